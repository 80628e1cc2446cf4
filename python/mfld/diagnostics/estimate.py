"""A number with its standard error, and the forms in which clouds come in."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import validation
from mfld.state import Cloud

Vector = NDArray[np.float64]

_BLOCK = 200_000  # numbers in a temporary array of pairs


class Estimate(float):
    """Estimate of a number, with its standard error: a float with the attribute ``error``.

    Attributes
    ----------
    error : float
        Standard error, by independence of the particles; bias is not in it. NaN where there is none.

    Examples
    --------
    >>> from mfld.diagnostics import Estimate
    >>> value = Estimate(1.25, 0.03)
    >>> value, value.error, 2 * value
    (1.25 +- 0.03, 0.03, 2.5)
    """

    error: float

    def __new__(cls, value: float, error: float) -> Estimate:
        made = super().__new__(cls, value)
        made.error = float(error)
        return made

    def __reduce__(self) -> tuple[type[Estimate], tuple[float, float]]:
        return Estimate, (float(self), self.error)

    def __repr__(self) -> str:
        return f"{float(self):.6g} +- {self.error:.2g}"

    def __str__(self) -> str:
        return repr(self)


def mean(values: Vector, weights: Vector | None = None) -> Estimate:
    """Mean of values of independent particles."""
    n = len(values)
    if weights is None:
        spread = float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
        return Estimate(float(values.mean()), spread)
    centre = float(weights @ values)
    return Estimate(centre, math.sqrt(float(weights**2 @ (values - centre) ** 2)))


def one_cloud(name: str, measure: Cloud | ArrayLike) -> tuple[Vector, Vector | None]:
    """Particles of a single cloud in float64, shape (N, p), and its weights."""
    if isinstance(measure, Cloud):
        points, weights = measure.particles, measure.weights
    else:
        points, weights = validation.array(name, measure), None
    validation.shape(name, points, ("N", "p"), "(particles, coordinates)")
    return points.astype(np.float64), None if weights is None else weights.astype(np.float64)


def unweighted(name: str, measure: Cloud | ArrayLike) -> Vector:
    """Particles of a single cloud, which weigh the same."""
    points, weights = one_cloud(name, measure)
    if weights is not None and np.ptp(weights) > 1e-6 * weights.max():
        raise ValueError(f"{name} must not be weighted here: mfld.resample makes a cloud without weights of it")
    return validation.squarable(name, points)


def blocks(n_rows: int, n_columns: int) -> Iterator[slice]:
    """Slices of rows, few enough at a time for arrays of pairs with columns."""
    height = max(1, _BLOCK // n_columns)
    return (slice(start, start + height) for start in range(0, n_rows, height))
