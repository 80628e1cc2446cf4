"""Covariances of the Gaussian reference of weight functions."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from mfld import validation
from mfld.functional_data.bases import Basis, Fourier, interpolated
from mfld.functional_data.grids import Grid
from mfld.functional_data.modes import Functions, Modes, eigenpairs
from mfld.validation import FloatArray


class Covariance(ABC):
    """Covariance operator of the Gaussian reference ``N(0, Sigma)`` of weight functions, by its modes.

    Examples
    --------
    >>> from mfld.functional_data import RBF, Covariance
    >>> isinstance(RBF(length=0.2), Covariance)
    True
    """

    @abstractmethod
    def modes(self, grid: Grid, n_modes: int, curves: FloatArray | None = None) -> Modes:
        """The first modes on a grid; fewer where there are no more that it tells apart.

        ``curves``, shape (m, T), are those that a basis of data is made of.
        """


@dataclass(frozen=True)
class PowerLaw(Covariance):
    """Covariance with the variances ``s_j = scale**2 * j**-exponent`` along the functions of a basis.

    Parameters
    ----------
    exponent : float
        Above 1, or else the trace is infinite, which is refused for a basis that has no end.
    scale : float
        Standard deviation of the first coordinate.
    basis : Basis

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> from mfld.functional_data import Grid, PowerLaw
    >>> modes = PowerLaw(2.0).modes(Grid([0.0, 0.25, 0.5, 0.75, 1.0]), 3)
    >>> modes.variances.round(4), round(modes.discarded, 4)              # pi**2 / 6 in all
    (array([1.    , 0.25  , 0.1111]), 0.2838)
    """

    exponent: float = 2.0
    scale: float = 1.0
    basis: Basis = field(default_factory=Fourier)

    def __post_init__(self) -> None:
        validation.real("exponent", self.exponent, non_negative=True)
        _check_scale(self.scale)
        validation.instance("basis", self.basis, Basis, "a Basis, like Fourier()")

    def modes(self, grid: Grid, n_modes: int, curves: FloatArray | None = None) -> Modes:
        system = self.basis.system(grid, min(n_modes, len(grid)), curves)
        n = system.projection.shape[1]
        endless = math.isinf(system.size)
        if endless and self.exponent <= 1:
            raise ValueError(f"exponent must be above 1 with basis={self.basis}, got {self.exponent}")
        variances = self.scale**2 * np.arange(1.0, n + 1) ** -self.exponent
        variances = variances[variances > 0]  # of a large exponent, some are below the range of numbers
        rest = _tail(self.exponent, n) if endless else np.sum(np.arange(n + 1.0, system.size + 1) ** -self.exponent)
        rest = self.scale**2 * float(rest)
        return Modes(variances, system.projection[:, : len(variances)], system.functions, rest)


def _tail(exponent: float, n: int) -> float:
    """``sum_{j > n} j**-exponent``, by Euler's summation behind the first twenty terms."""
    first = np.arange(n + 1.0, n + 21)
    a, m = exponent, n + 21.0
    series = m ** (1 - a) / (a - 1) + m**-a / 2 + a * m ** (-a - 1) / 12 - a * (a + 1) * (a + 2) * m ** (-a - 3) / 720
    return float(np.sum(first**-a) + series)


class OfPoints(Covariance):
    """Covariance by a function of two points, whose eigenpairs on a grid are those of ``W^(1/2) C W^(1/2)``.

    Between its points the functions are ``phi_j(t) = sum_i w_i C(t, t_i) phi_j(t_i) / s_j`` (Nystroem's extension).
    """

    @abstractmethod
    def between(self, points: FloatArray, others: FloatArray) -> FloatArray:
        """Covariances of the values at points, shape (P,), and others, (Q,): shape (P, Q)."""

    def modes(self, grid: Grid, n_modes: int, curves: FloatArray | None = None) -> Modes:
        modes, on_grid = _of_matrix(self.between(grid.points, grid.points), grid, n_modes)
        weighted = grid.weights[:, np.newaxis] * on_grid / modes.variances
        functions = partial(self._extended, grid.points, weighted)
        return Modes(modes.variances, modes.projection, functions, modes.discarded)

    def _extended(self, points: FloatArray, weighted: FloatArray, where: FloatArray) -> FloatArray:
        found: FloatArray = np.einsum("pt,tk->pk", self.between(where, points), weighted)
        return found


def _of_matrix(matrix: FloatArray, grid: Grid, n_modes: int) -> tuple[Modes, FloatArray]:
    """Modes without functions, and their values on the grid, shape (T, K)."""
    roots = np.sqrt(grid.weights)
    values, vectors = eigenpairs("covariance", matrix, n_modes, roots)
    if len(values) == 0:
        raise ValueError("covariance must be positive, got a matrix without positive eigenvalues")
    on_grid = vectors / roots[:, np.newaxis]
    rest = max(0.0, float(np.sum(grid.weights * np.diag(matrix)) - values.sum()))
    return Modes(values, grid.weights[:, np.newaxis] * on_grid, None, rest), on_grid


@dataclass(frozen=True)
class RBF(OfPoints):
    """Gaussian covariance ``scale**2 * exp(-(s - t)**2 / (2 length**2))``: weight functions are analytic.

    Parameters
    ----------
    length : float
        In the units of the grid.
    scale : float
        Standard deviation at a point.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld.functional_data import Grid, RBF
    >>> modes = RBF(length=0.2).modes(Grid(np.linspace(0, 1, 101)), 6)
    >>> round(float(modes.variances.sum()) + modes.discarded, 6)
    1.0
    """

    length: float
    scale: float = 1.0

    def __post_init__(self) -> None:
        _check_kernel(self.length, self.scale)

    def between(self, points: FloatArray, others: FloatArray) -> FloatArray:
        distance = _distance(points, others, 1.0, self.length)
        found: FloatArray = self.scale**2 * np.exp(-(distance**2) / 2)
        return found


@dataclass(frozen=True)
class Matern(OfPoints):
    """Matern covariance, of weight functions with so many derivatives in the mean square: ``smoothness - 1/2``.

    ::

        scale**2 * exp(-d) * (1 | 1 + d | 1 + d + d**2 / 3),      d = sqrt(2 smoothness) * |s - t| / length

    Parameters
    ----------
    length : float
        In the units of the grid.
    smoothness : {0.5, 1.5, 2.5}
    scale : float
        Standard deviation at a point.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld.functional_data import Grid, Matern
    >>> Matern(length=0.2, smoothness=0.5).between(np.zeros(1), np.array([0.0, 0.2])).round(4)
    array([[1.    , 0.3679]])
    """

    length: float
    smoothness: float = 1.5
    scale: float = 1.0

    def __post_init__(self) -> None:
        _check_kernel(self.length, self.scale)
        if validation.real("smoothness", self.smoothness) not in (0.5, 1.5, 2.5):
            raise ValueError(f"smoothness must be 0.5, 1.5 or 2.5, got {self.smoothness}")

    def between(self, points: FloatArray, others: FloatArray) -> FloatArray:
        d = _distance(points, others, math.sqrt(2 * self.smoothness), self.length)
        factor = {0.5: np.ones_like(d), 1.5: 1 + d, 2.5: 1 + d + d**2 / 3}[self.smoothness]
        found: FloatArray = self.scale**2 * np.exp(-d) * factor
        return found


class Given(OfPoints):
    """Covariance of your own: a function of two points, or a matrix on the points of the grid.

    Parameters
    ----------
    covariance : callable or array_like, shape (T, T)
        ``covariance(s, t)`` with arrays of shapes (P, 1) and (1, Q), to return (P, Q). Eigenfunctions of a matrix are
        interpolated linearly between the points of the grid.

    Raises
    ------
    TypeError, ValueError
        If it is neither; when a network is made, if it is not symmetric and positive on its grid.

    Examples
    --------
    Of the Brownian motion, whose variances are ``1 / ((j - 1/2) pi)**2``:

    >>> import numpy as np
    >>> from mfld.functional_data import Given, Grid
    >>> modes = Given(np.minimum).modes(Grid(np.linspace(0, 1, 401)), 3)
    >>> (modes.variances * np.pi**2 * np.array([0.5, 1.5, 2.5]) ** 2).round(3)
    array([1., 1., 1.])
    """

    def __init__(self, covariance: Callable[[FloatArray, FloatArray], ArrayLike] | ArrayLike) -> None:
        self.covariance: Callable[[FloatArray, FloatArray], ArrayLike] | FloatArray
        if callable(covariance):
            self.covariance = covariance
        else:
            matrix = validation.array("covariance", covariance, np.float64)
            validation.shape("covariance", matrix, (len(matrix) if matrix.ndim else 1,) * 2)
            self.covariance = validation.frozen(matrix)

    def __repr__(self) -> str:
        if callable(self.covariance):
            return f"Given({getattr(self.covariance, '__name__', repr(self.covariance))})"
        return f"Given({len(self.covariance)} x {len(self.covariance)} matrix)"

    def between(self, points: FloatArray, others: FloatArray) -> FloatArray:
        assert callable(self.covariance)
        result = self.covariance(points[:, np.newaxis].copy(), others[np.newaxis, :].copy())
        expected = (len(points), len(others))
        found = validation.returned("the result of covariance", result, expected, np.float64, "to match its arguments")
        return validation.array("the result of covariance", found)

    def modes(self, grid: Grid, n_modes: int, curves: FloatArray | None = None) -> Modes:
        matrix = self.between(grid.points, grid.points) if callable(self.covariance) else self.covariance
        validation.shape("covariance", matrix, (len(grid), len(grid)), "to match the points of the grid")
        if callable(self.covariance):
            return super().modes(grid, n_modes)
        modes, on_grid = _of_matrix(matrix, grid, n_modes)
        functions: Functions = interpolated(grid.points, on_grid)
        return Modes(modes.variances, modes.projection, functions, modes.discarded)


def _distance(points: FloatArray, others: FloatArray, factor: float, length: float) -> FloatArray:
    """Distances in units of the length, up to one of which the exponential is 0."""
    with np.errstate(over="ignore"):
        found: FloatArray = np.minimum(factor * np.abs(np.subtract.outer(points, others)) / length, 1000.0)
    return found


def _check_kernel(length: float, scale: float) -> None:
    validation.real("length", length, positive=True)
    _check_scale(scale)


def _check_scale(scale: float) -> None:
    if not 1e-150 <= validation.real("scale", scale, positive=True) <= 1e150:
        raise ValueError(f"scale must be from 1e-150 to 1e150, the root of a variance, got {scale}")
