"""Data sets that come inside scikit-learn: nothing is downloaded."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BUNDLED = ("breast_cancer", "diabetes", "digits", "iris", "wine")
_REGRESSION = ("diabetes",)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows of features and what is to be predicted from them.

    Attributes
    ----------
    name : str
    inputs : ndarray, shape (n, n_features), float64
    targets : ndarray, shape (n,)
        Class labels, or real numbers for a regression.
    classes : ndarray or None
        The distinct labels, sorted; None for a regression.
    """

    name: str
    inputs: NDArray[np.float64]
    targets: NDArray[Any]
    classes: NDArray[Any] | None


def bundled() -> list[str]:
    """Names that `load` knows."""
    return list(_BUNDLED)


def load(name: str) -> Dataset:
    """Load a bundled data set.

    Raises
    ------
    ValueError
        If there is none of this name.
    ImportError
        If scikit-learn, which brings the data, is not installed.

    Examples
    --------
    >>> from mfld import experiments
    >>> experiments.load("wine").inputs.shape
    (178, 13)
    """
    if name not in _BUNDLED:
        raise ValueError(f"no bundled data set is called {name!r}; there are {', '.join(_BUNDLED)}")
    try:
        datasets = importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise ImportError("the bundled data sets come with scikit-learn: pip install 'mfld[data]'") from error
    bunch = getattr(datasets, f"load_{name}")()
    classes = None if name in _REGRESSION else np.unique(bunch.target)
    return Dataset(name, np.asarray(bunch.data, np.float64), np.asarray(bunch.target), classes)
