"""Rates fitted to histories, with their error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import validation
from mfld.certificates import student_quantile

KINDS = ("exponential", "power")
_BLOCKS = 8  # of records, where there are no replicates
_SLOWEST = 1e-2  # rate that is looked for, times the time
_ZOOMS = 12  # by a factor 6 each


@dataclass(frozen=True)
class Rate:
    """Fitted decay ``scale * exp(-value * t) + floor``, or ``scale * t**-value + floor``.

    Attributes
    ----------
    value : float
    standard_error : float
        By the jackknife, over replicates or else over blocks of records.
    degrees_of_freedom : int
    floor : float
    averaged : float
        Time-averaged rate, ``-log((v_end - floor) / (v_start - floor)) / (t_end - t_start)``, of the first and the last
        record that are above the floor; of powers against ``log t``.
    kind : str
    """

    value: float
    standard_error: float
    degrees_of_freedom: int
    floor: float
    averaged: float
    kind: str

    def __str__(self) -> str:
        width = student_quantile(0.975, self.degrees_of_freedom) * self.standard_error
        return f"{self.kind} rate {self.value:.4g} +- {width:.2g} (95 %), floor {self.floor:.3g}"


def fit_rate(times: ArrayLike, values: ArrayLike, *, floor: float | None = None, kind: str = "exponential") -> Rate:
    """Rate at which recorded values fall, with its error.

    Times may be the steps of a history or these times the step size. Least squares, with weights ``1 / value**2``, so
    that the fit follows the decay over all its orders of magnitude.

    Parameters
    ----------
    times : array_like, shape (n,)
        Increasing; positive for powers.
    values : array_like, shape (n,) or (n, R)
        Of R replicates, whose mean is fitted: positive.
    floor : float, optional
        Where the values end; by default it is fitted too.
    kind : {"exponential", "power"}

    Returns
    -------
    Rate

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or shape, there are fewer than 8 records, or the values do not fall.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import theory
    >>> t = np.linspace(0, 5, 100)
    >>> found = theory.fit_rate(t, 3 * np.exp(-2 * t) + 0.1)
    >>> round(found.value, 3), round(found.floor, 3)
    (2.0, 0.1)
    """
    validation.choice("kind", kind, KINDS)
    t = validation.array("times", times, np.float64)
    validation.shape("times", t, ("n",))
    v = validation.array("values", values, np.float64)
    if v.ndim not in (1, 2) or len(v) != len(t):
        raise ValueError(f"values must have shape ({len(t)},) or ({len(t)}, R) to match times, got {v.shape}")
    if len(t) < _BLOCKS:
        raise ValueError(f"times must have at least {_BLOCKS} records, got {len(t)}")
    if (np.diff(t) <= 0).any() or (kind == "power" and t[0] <= 0):
        raise ValueError(f"times must increase{' from above 0' if kind == 'power' else ''}")
    if (v <= 0).any():
        raise ValueError(f"values must be positive, got {v.min()}")
    v = v.reshape(len(t), -1)
    exponent = int(np.frexp(v.max(initial=0.0))[1])
    v = np.ldexp(v, -exponent)  # exact, and away from the ends of the floating-point numbers
    if v.size == 0 or (v < np.finfo(np.float64).tiny).any():
        raise ValueError(f"values must have at least one replicate, and a range within float64, got shape {v.shape}")
    if floor is not None:
        floor = math.ldexp(validation.real("floor", floor), -exponent)
        if floor >= v.mean(axis=1).max():
            raise ValueError(f"floor must be below the values, got {math.ldexp(floor, exponent):g}")
    x = np.log(t) if kind == "power" else t - t[0]
    mean = v.mean(axis=1)
    value, fitted = _fit(x, mean, floor)
    if value < 1.01 * _SLOWEST / (x[-1] - x[0]) or (floor is None and fitted >= mean[0]):
        raise ValueError("values must fall over the times: no rate above 0 fits them")
    if v.shape[1] > 1:
        parts = [_fit(x, np.delete(v, r, axis=1).mean(axis=1), floor)[0] for r in range(v.shape[1])]
    else:
        blocks = np.array_split(np.arange(len(t)), _BLOCKS)
        parts = [_fit(np.delete(x, block), np.delete(mean, block), floor)[0] for block in blocks]
    n = len(parts)
    error = math.sqrt((n - 1) * float(np.var(parts)))
    above = np.flatnonzero(mean > fitted)
    averaged = math.nan
    if len(above) > 1:
        first, last = above[0], above[-1]
        averaged = math.log((mean[first] - fitted) / (mean[last] - fitted)) / (x[last] - x[first])
    return Rate(value, error, n - 1, math.ldexp(fitted, exponent), float(averaged), kind)


def _fit(x: NDArray[np.float64], v: NDArray[np.float64], floor: float | None) -> tuple[float, float]:
    """Rate and floor: for each rate the rest is linear, so that it is a search in one dimension."""

    def residuals(log_rates: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Sum of squares and floor, for each rate."""
        decay = np.exp(-np.exp(log_rates)[:, np.newaxis] * (x - x[0])) / v
        level = 1 / v
        dd, dl, d1 = np.sum(decay**2, axis=1), decay @ level, np.sum(decay, axis=1)
        if floor is not None:
            scale = (d1 - floor * dl) / dd
            return np.sum((1 - floor * level - scale[:, np.newaxis] * decay) ** 2, axis=1), np.full(len(dd), floor)
        ll, l1 = np.sum(level**2), np.sum(level)
        determinant = dd * ll - dl**2
        scale, floors = (d1 * ll - l1 * dl) / determinant, (l1 * dd - d1 * dl) / determinant
        left = 1 - scale[:, np.newaxis] * decay - floors[:, np.newaxis] * level
        return np.sum(left**2, axis=1), floors

    span = x[-1] - x[0]
    grid = np.log(np.geomspace(_SLOWEST / span, 1e3 / span, 120))
    for _ in range(_ZOOMS):
        found, floors = residuals(grid)
        best = int(np.argmin(found))
        rate, level = grid[best], floors[best]
        grid = np.linspace(grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)], 13)
    return math.exp(rate), float(level)
