"""Curves as numbers: the points where they are known, weights by which they are integrated, and ways onto one grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mfld import validation
from mfld.validation import FloatArray

RULES = ("trapezoid", "simpson")
ENDS = ("refuse", "hold", "zero")


class Grid:
    """Points at which curves are known, and the weights of an inner product: ``<x, y> = sum_t weights_t x_t y_t``.

    Parameters
    ----------
    points : array_like, shape (T,)
        Increasing, at any distances.
    weights : {"trapezoid", "simpson"} or array_like, shape (T,)
        A rule, of order 2 or 4 in the distance of points for smooth curves, or positive numbers of your own: all ones
        where curves are nothing but vectors. Simpson's rule needs SciPy.

    Raises
    ------
    TypeError, ValueError
        If points do not increase, weights do not suit them or are not positive.
    ImportError
        For Simpson's rule without SciPy.

    Examples
    --------
    >>> from mfld.functional_data import Grid
    >>> Grid([0.0, 1.0, 3.0]).weights
    array([0.5, 1.5, 1. ])
    """

    points: FloatArray
    weights: FloatArray

    def __init__(self, points: ArrayLike, weights: str | ArrayLike = "trapezoid") -> None:
        points = _increasing("points", points)
        if isinstance(weights, str):
            found = _of_rule(validation.choice("weights", weights, RULES), points)
            if not (found > 0).all():
                raise ValueError(f"weights must not be {weights!r} on this grid, whose distances vary too much for it")
        else:
            found = validation.array("weights", weights, np.float64)
            validation.shape("weights", found, points.shape, "to match points")
            if not (found > 0).all():
                place = int(np.argmin(found > 0))
                raise ValueError(f"weights must be positive, got {found[place]} at index {place}")
        with np.errstate(over="ignore"):
            total = found.sum()
        if not (math.isfinite(total) and found.min() >= np.finfo(np.float64).tiny):
            raise ValueError(f"weights must be in the range of numbers, got {found.min():g} to a sum of {total:g}")
        self.points, self.weights = validation.frozen(points), validation.frozen(found)

    def __len__(self) -> int:
        return len(self.points)

    def __repr__(self) -> str:
        return f"Grid({len(self)} points from {self.points[0]:g} to {self.points[-1]:g})"


def _increasing(name: str, value: ArrayLike) -> FloatArray:
    points: FloatArray = validation.array(name, value, np.float64)
    validation.shape(name, points, ("T",))
    if not math.isfinite(float(points[-1]) - float(points[0])):
        raise ValueError(f"{name} must span a finite length, got {points[0]:g} to {points[-1]:g}")
    gaps = np.diff(points)
    if (gaps <= 0).any():
        place = int(np.argmax(gaps <= 0)) + 1
        raise ValueError(f"{name} must increase, got {points[place]} after {points[place - 1]} at index {place}")
    return points


def _of_rule(rule: str, points: FloatArray) -> FloatArray:
    if len(points) == 1:
        return np.ones(1)
    if rule == "simpson":
        simpson = scipy_module("integrate", "Simpson's rule").simpson
        return np.asarray(simpson(np.eye(len(points)), x=points), np.float64)
    gaps = np.diff(points)
    weights: FloatArray = np.concatenate([gaps[:1], gaps[1:] + gaps[:-1], gaps[-1:]]) / 2
    return weights


def as_grid(grid: Grid | ArrayLike, name: str = "grid") -> Grid:
    """A grid, made of points where it is given by them."""
    return grid if isinstance(grid, Grid) else Grid(_increasing(name, grid))


def as_curves(curves: Any, grid: Grid, points: Grid | ArrayLike | None = None) -> tuple[FloatArray, Grid]:
    """Checked curves, shape (n, T), and the grid that they are on: their own, or the one given here, or ``grid``."""
    if hasattr(curves, "data_matrix") and hasattr(curves, "grid_points"):  # an FDataGrid of scikit-fda
        if len(curves.grid_points) != 1 or np.shape(curves.data_matrix)[2:] != (1,):
            raise ValueError(f"curves must be of one variable with values of one, got {type(curves).__name__} of more")
        own = np.asarray(curves.grid_points[0], np.float64)
        same = points is None and len(own) == len(grid) and bool((own == grid.points).all())
        points = grid if same else own if points is None else points
        curves = np.asarray(curves.data_matrix)[:, :, 0]
    if points is not None:
        network, grid = grid, as_grid(points, "points")
        _check_reach(grid, network)
    if not isinstance(curves, np.ndarray) and isinstance(curves, Sequence):
        lengths = {len(curve) for curve in curves if hasattr(curve, "__len__")}
        if len(lengths) > 1:
            raise ValueError(
                f"curves must have one length, got lengths from {min(lengths)} to {max(lengths)}: "
                "functional_data.interpolate brings them onto one grid"
            )
    given = np.asarray(curves)
    if given.dtype.kind == "f" and np.isnan(given).any():
        raise ValueError(
            f"curves must have no NaN, got {np.isnan(given).sum()} of them, first at (curve, point) "
            f"{tuple(int(i) for i in np.argwhere(np.isnan(given))[0])}: functional_data.interpolate fills gaps"
        )
    values = validation.array("curves", curves)
    validation.shape("curves", values, ("n", len(grid)), "(number, points of the grid)")
    return values, grid


def _check_reach(own: Grid, grid: Grid) -> None:
    """Refuse a grid over another interval: inner products on it are others. Ends may differ by the widest gap."""
    widest = max((np.diff(each.points).max() for each in (own, grid) if len(each) > 1), default=0.0)
    ends, expected = own.points[[0, -1]], grid.points[[0, -1]]
    if np.abs(ends - expected).max() > widest * (1 + 1e-8):
        raise ValueError(
            f"points must reach from {expected[0]:g} to {expected[1]:g} as the grid of the network does, got "
            f"{ends[0]:g} to {ends[1]:g}: functional_data.interpolate takes what curves are at missing ends"
        )


def interpolate(
    points: ArrayLike | Sequence[ArrayLike],
    values: ArrayLike | Sequence[ArrayLike],
    grid: Grid | ArrayLike,
    ends: str = "refuse",
) -> FloatArray:
    """Curves on one grid, shape (n, T), from values at points of their own, by linear interpolation.

    Parameters
    ----------
    points : array_like, shape (m,), or sequence of n of them
        Increasing; one for all curves, or one for each.
    values : sequence of n array_like
        As long as their points. NaN stands for no value: gaps are interpolated, too.
    grid : Grid or array_like of points
    ends : {"refuse", "hold", "zero"}
        Curves at points of the grid before their first value or behind their last one: an error, that value, or 0,
        which is the mean of curves that were centred.

    Raises
    ------
    TypeError, ValueError
        If points and values disagree, a curve has no value, or its ends are missing and refused.

    Examples
    --------
    >>> from mfld.functional_data import interpolate
    >>> interpolate([[0.0, 2.0], [0.0, 1.0, 3.0]], [[1.0, 3.0], [0.0, 1.0, 5.0]], [0.0, 1.0, 2.0])
    array([[1., 2., 3.],
           [0., 1., 3.]])
    """
    grid = as_grid(grid)
    validation.choice("ends", ends, ENDS)
    each, own = _rows("values", values), _rows("points", points)
    if np.ndim(own[0]) == 0:
        own = [points] * len(each)
    if len(own) != len(each):
        raise ValueError(f"points must be those of {len(each)} curves, got those of {len(own)}")
    pairs = zip(own, each, strict=True)
    return np.stack([_onto(grid.points, *pair, ends, f"values[{i}]") for i, pair in enumerate(pairs)])


def _rows(name: str, value: Any) -> Any:
    """Something of some length, whose parts are yet to be looked at."""
    validation.unmasked(name, value)
    if not isinstance(value, (list, tuple)) and not (isinstance(value, np.ndarray) and value.ndim > 0):
        raise TypeError(f"{name} must be a sequence of arrays, got {validation.show(value)}")
    if len(value) == 0:
        raise ValueError(f"{name} must not be empty, got {value!r}")
    return value


def _onto(where: FloatArray, points: ArrayLike, values: ArrayLike, ends: str, name: str) -> FloatArray:
    """One curve at points of a grid."""
    points = _increasing("points", points)
    curve = validation.returned(name, values, points.shape, np.float64, "to match its points")
    known = ~np.isnan(curve)
    if not known.any():
        raise ValueError(f"{name} must have a number, got NaN only")
    points, curve = points[known], validation.array(name, curve[known])
    if ends == "refuse" and (where[0] < points[0] or where[-1] > points[-1]):
        raise ValueError(
            f"{name} must reach from {where[0]:g} to {where[-1]:g}, got {points[0]:g} to {points[-1]:g}: "
            "ends='hold' or 'zero' says what is there"
        )
    outside = {"left": 0.0, "right": 0.0} if ends == "zero" else {}
    found: FloatArray = np.interp(where, points, curve, **outside)
    return found


def derivative(curves: ArrayLike, grid: Grid | ArrayLike, order: int = 1, degree: int = 5) -> FloatArray:
    """Derivatives of curves at the points of their grid, shape (n, T), from interpolating splines; needs SciPy.

    A network on derivatives has the inner product of a Sobolev space, without its terms of lower order: spectra differ
    by offset and slope, which their second derivatives do not have.

    Parameters
    ----------
    curves : array_like, shape (n, T)
    grid : Grid or array_like of points
    order : int
        Below the degree.
    degree : int
        Of the splines.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld.functional_data import derivative
    >>> grid = np.linspace(0, 1, 11)
    >>> derivative([grid**3], grid, order=2)[0, [0, 5, 10]].round(6)
    array([0., 3., 6.])
    """
    values, grid = as_curves(curves, as_grid(grid))
    order = validation.integer("order", order, 0)
    degree = validation.integer("degree", degree, order + 1)
    if len(grid) <= degree:
        raise ValueError(f"grid must have more points than the degree, {degree}, got {len(grid)}")
    spline = scipy_module("interpolate", "derivative").make_interp_spline(grid.points, values.T, k=degree)
    return np.ascontiguousarray(spline(grid.points, nu=order).T)


def scipy_module(name: str, what: str) -> Any:
    """A module of SciPy, which is an extra."""
    try:
        return __import__(f"scipy.{name}", fromlist=[name])
    except ImportError as error:
        raise ImportError(f"{what} needs SciPy: pip install 'mfld[functional]'") from error
