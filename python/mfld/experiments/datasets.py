"""Data sets: from files, and those that come inside scikit-learn. Nothing is downloaded."""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfld import validation
from mfld.experiments import tables
from mfld.experiments.encoding import TASKS, Encoding, Feature, classes_of

_BUNDLED = ("breast_cancer", "diabetes", "digits", "iris", "wine")
_REGRESSION = ("diabetes",)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows of features and what is to be predicted from them.

    Attributes
    ----------
    name : str
        Of a bundled data set, or the path of a file.
    inputs : ndarray, shape (n, n_features), float64
    targets : ndarray, shape (n,)
        Class labels, or real numbers for a regression.
    classes : ndarray or None
        The distinct labels, sorted; None for a regression.
    encoding : Encoding
        How columns became features.
    """

    name: str
    inputs: NDArray[np.float64]
    targets: NDArray[Any]
    classes: NDArray[Any] | None
    encoding: Encoding

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of inputs and targets: equal for the same rows in the same order, from whatever file."""
        digest = hashlib.sha256()
        for array in (self.inputs, self.targets):
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()


def bundled() -> list[str]:
    """Names of the data sets that need no file."""
    return list(_BUNDLED)


def load(
    source: str | os.PathLike[str],
    *,
    target: str | None = None,
    task: str | None = None,
    header: bool | None = None,
    drop: Collection[str] = (),
) -> Dataset:
    """Load a bundled data set by its name, or a file.

    Parameters
    ----------
    source : str or path
        A name among `bundled`, or a file of `mfld.experiments.tables.read`.
    target : str, optional
        Name of the column to predict, or its number from 1; default: the last one. Of ``.npz``: the name of the array.
    task : {"classification", "regression"}, optional
        Default: by the target, see `mfld.experiments.encoding.classes_of`.
    header : bool, optional
        Whether the first line has names; by default it is found out.
    drop : collection of str
        Columns to leave out.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If there is none of this name, or it is nothing to learn from: the message says where.
    ImportError
        If scikit-learn, which brings the bundled data, is not installed.

    Examples
    --------
    >>> from mfld import experiments
    >>> experiments.load("wine").inputs.shape
    (178, 13)
    >>> import os, tempfile
    >>> rows = ["age,colour,size", "31,red,1.5", "45,blue,1.7", "28,red,1.6", "61,green,1.8", "39,red,1.4"]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "people.csv")
    ...     with open(path, "w") as file:
    ...         _ = file.write("\\n".join(rows))
    ...     people = experiments.load(path)
    >>> people.encoding.feature_names
    ['age', 'colour=blue', 'colour=green', 'colour=red']
    >>> people.targets
    array([1.5, 1.7, 1.6, 1.8, 1.4])
    """
    if task is not None:
        validation.choice("task", task, TASKS)
    if source in _BUNDLED:
        if task is not None or target is not None or header is not None or drop:
            raise ValueError(f"target, task, header and drop are for files; {source} is a bundled data set")
        return _load_bundled(str(source))
    path = Path(source)
    if not path.exists() and path.name == str(source) and not path.suffix:
        raise ValueError(
            f"no bundled data set and no file is called {str(source)!r}; bundled are {', '.join(_BUNDLED)}"
        )
    table = tables.read(path, header=header, drop=drop, target=target)
    encoding = Encoding.infer(table, target)
    classes = classes_of(table, encoding.target, task)
    targets = encoding.targets(table, classes)
    assert targets is not None  # infer has found them
    return Dataset(str(source), encoding.inputs(table), targets, classes, encoding)


def load_like(
    encoding: Encoding, path: str | os.PathLike[str], classes: NDArray[Any] | None
) -> tuple[NDArray[np.float64], NDArray[Any] | None]:
    """Inputs and, where the file has them, targets, from a file with the columns of an earlier one.

    Parameters
    ----------
    encoding : Encoding
        Of the earlier file; where that had a header, columns are found by their names and others may stand between.
    path : path
    classes : ndarray or None
        Labels that may occur; None for a regression.

    Raises
    ------
    OSError, ValueError
        If the file cannot be read, a column is missing, or a text is none of those known.
    """
    used = [feature.name for feature in encoding.features] + [encoding.target]
    only = used if encoding.header else None
    table = tables.read(path, header=encoding.header, only=only, target=encoding.target)
    return encoding.inputs(table), encoding.targets(table, classes)


def _load_bundled(name: str) -> Dataset:
    try:
        datasets = importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise ImportError("the bundled data sets come with scikit-learn: pip install 'mfld[data]'") from error
    bunch = getattr(datasets, f"load_{name}")()
    classes = None if name in _REGRESSION else np.unique(bunch.target)
    names = [str(each) for each in bunch.feature_names]
    encoding = Encoding(tuple(Feature(each) for each in names), "target", (*names, "target"))
    return Dataset(name, np.asarray(bunch.data, np.float64), np.asarray(bunch.target), classes, encoding)
