"""Orthonormal systems in a space of curves: what the modes of a `PowerLaw` are."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mfld import linear, validation
from mfld.functional_data.grids import Grid, as_grid, scipy_module
from mfld.functional_data.modes import Functions, eigenpairs, turned
from mfld.validation import FloatArray


class System(NamedTuple):
    """Functions of a basis: a projection from values to coordinates, shape (T, n), and the functions, if they are some.

    ``size`` is how many the basis has in all, on data at most; infinite where it has no end.
    """

    projection: FloatArray
    functions: Functions | None
    size: float = math.inf


class Basis(ABC):
    """Orthonormal functions, from the smoothest or most common ones on.

    Examples
    --------
    >>> from mfld.functional_data import Basis, Fourier
    >>> isinstance(Fourier(), Basis)
    True
    """

    of_kernel: ClassVar[bool] = False
    """Rows are values of a kernel with the training inputs, not curves."""

    @abstractmethod
    def system(self, grid: Grid, n: int, curves: FloatArray | None) -> System:
        """The first n functions, or as many as there are, on the domain of a grid.

        ``curves``, shape (m, T), are those of a training, for a basis that is made of them.
        """

    def coefficients(self, curves: ArrayLike, grid: Grid | ArrayLike, n: int) -> FloatArray:
        """Coefficients of the curves that come nearest by the weights of the grid, shape (m, n).

        Raises
        ------
        ValueError
            If the basis is one of data, or there are no n functions that the grid tells apart.
        """
        grid = as_grid(grid)
        values = validation.array("curves", curves, np.float64)
        validation.shape("curves", values, ("n", len(grid)), "(number, points of the grid)")
        on_grid = self._functions(grid, n)(grid.points)
        roots = np.sqrt(grid.weights)
        found, _, rank, _ = np.linalg.lstsq(roots[:, np.newaxis] * on_grid, (roots * values).T, rcond=None)
        if rank < n:
            raise ValueError(f"n must be at most {rank}, of the functions that the grid tells apart, got {n}")
        return np.ascontiguousarray(found.T)

    def curves(self, coefficients: ArrayLike, grid: Grid | ArrayLike) -> FloatArray:
        """Curves of given coefficients, shape (m, n), on a grid: shape (m, T)."""
        grid = as_grid(grid)
        given = validation.array("coefficients", coefficients, np.float64)
        validation.shape("coefficients", given, ("m", "n"))
        found: FloatArray = np.einsum("mk,tk->mt", given, self._functions(grid, given.shape[1])(grid.points))
        return found

    def _functions(self, grid: Grid, n: int) -> Functions:
        system = self.system(grid, validation.integer("n", n, 1), None)
        if system.functions is None or system.projection.shape[1] < n:
            raise ValueError(f"n must be at most {system.projection.shape[1]} for {self}, got {n}")
        return system.functions


def _on_grid(grid: Grid, functions: Functions, size: float = math.inf) -> System:
    return System(grid.weights[:, np.newaxis] * functions(grid.points), functions, size)


@dataclass(frozen=True)
class Fourier(Basis):
    """Cosines on the interval of the grid, or with ``periodic=True`` sines and cosines of curves that close.

    ::

        1, sqrt(2) cos(pi t), sqrt(2) cos(2 pi t), ...                                     t in [0, 1]
        1, sqrt(2) cos(2 pi t), sqrt(2) sin(2 pi t), sqrt(2) cos(4 pi t), ...              periodic

    over the root of the length of the interval.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld.functional_data import Fourier
    >>> t = np.linspace(0, 2, 101)
    >>> Fourier().coefficients([np.cos(np.pi * t)], t, 4).round(6) + 0.0
    array([[0., 0., 1., 0.]])
    """

    periodic: bool = False

    def __post_init__(self) -> None:
        validation.boolean("periodic", self.periodic)

    def system(self, grid: Grid, n: int, curves: FloatArray | None) -> System:
        start = grid.points[0]
        length = grid.points[-1] - start if len(grid) > 1 else 1.0
        return _on_grid(grid, partial(self._waves, start, length, n))

    def _waves(self, start: float, length: float, n: int, points: FloatArray) -> FloatArray:
        order = np.arange(n)
        t = np.multiply.outer((points - start) / length, np.ones(n))
        if self.periodic:
            angle = 2 * np.pi * t * ((order + 1) // 2)
            waves: FloatArray = np.where(order % 2 == 1, np.cos(angle), np.sin(angle))
        else:
            waves = np.cos(np.pi * t * order)
        waves = waves * np.sqrt(2 / length)
        waves[:, 0] = np.sqrt(1 / length)
        return waves


@dataclass(frozen=True)
class BSplines(Basis):
    """Splines on the interval of the grid, in the orthonormal basis that runs from smooth to rough; needs SciPy.

    They are the eigenfunctions of the penalty ``integral (f^(q))**2`` within the span of n B-splines with equidistant
    knots, q = 2 or the degree where that is less, and constants come before lines. Source: Demmler, Reinsch 1975,
    "Oscillation matrices with spline smoothing".

    Parameters
    ----------
    n_splines : int
        Above the degree.
    degree : int

    Examples
    --------
    The first two are the lines, which have no curvature:

    >>> import numpy as np
    >>> from mfld.functional_data import BSplines
    >>> t = np.linspace(0, 1, 201)
    >>> bool(abs(BSplines(12).coefficients([1 + 2 * t], t, 6)[0, 2:]).max() < 1e-8)
    True
    """

    n_splines: int
    degree: int = 3

    def __post_init__(self) -> None:
        degree = validation.integer("degree", self.degree, 1)
        validation.integer("n_splines", self.n_splines, degree + 1)

    def system(self, grid: Grid, n: int, curves: FloatArray | None) -> System:
        k, start, stop = self.degree, grid.points[0], grid.points[-1]
        stop = stop if stop > start else start + 1
        inner = np.linspace(start, stop, self.n_splines - k + 1)
        knots = np.concatenate([[start] * k, inner, [stop] * k])
        splines = scipy_module("interpolate", "BSplines").BSpline(knots, np.eye(self.n_splines), k)
        # Gauss points of each piece, by which products of splines are integrated exactly.
        nodes, weights = np.polynomial.legendre.leggauss(k + 1)
        half = np.diff(inner)[:, np.newaxis] / 2
        where = (inner[:-1, np.newaxis] + half * (1 + nodes)).ravel()
        weight = (half * weights).ravel()
        gram, slopes, penalty = (
            np.einsum("t,tj,tk->jk", weight, values, values)
            for values in (splines(where), splines(where, nu=1), splines(where, nu=min(k, 2)))
        )
        # A grain of slope tells constants from lines, which both have no curvature.
        penalty = penalty + 1e-6 / (stop - start) ** (2 * min(k, 2) - 2) * slopes
        factor = linear.cholesky(gram)
        rough = linear.forwards(factor, linear.forwards(factor, penalty).T)
        _, vectors, _ = linear.eigenpairs(-(rough + rough.T) / 2, min(n, self.n_splines))
        combine = turned(linear.backwards(factor, vectors))
        return _on_grid(grid, partial(_combined, splines, combine), self.n_splines)


def _combined(splines: Any, combine: FloatArray, points: FloatArray) -> FloatArray:
    found: FloatArray = np.einsum("pj,jk->pk", splines(points), combine)
    return found


@dataclass(frozen=True)
class PrincipalComponents(Basis):
    """Principal components of the curves that a network is made for, by the weights of their grid.

    Between points of the grid they are interpolated linearly.

    Parameters
    ----------
    whitened : bool
        Whether each is divided by the standard deviation of the curves along it, so that all count alike.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld.functional_data import FunctionalNetwork, PowerLaw, PrincipalComponents
    >>> t = np.linspace(0, 1, 51)
    >>> curves = np.random.default_rng(0).normal(size=(20, 2)) @ [np.sin(np.pi * t), t]
    >>> FunctionalNetwork(t, PowerLaw(basis=PrincipalComponents()), n_modes=2, curves=curves).modes.projection.shape
    (51, 2)
    """

    whitened: bool = False

    def __post_init__(self) -> None:
        validation.boolean("whitened", self.whitened)

    def system(self, grid: Grid, n: int, curves: FloatArray | None) -> System:
        if curves is None:
            raise ValueError("curves must be given for a basis of PrincipalComponents, got None")
        roots, size = np.sqrt(grid.weights), linear.unit(curves)
        curves = curves / size
        centred = (curves - curves.mean(axis=0)) * roots
        if len(curves) < len(grid):
            values, left = eigenpairs("curves", np.einsum("it,jt->ij", centred, centred) / len(curves), n)
            vectors = np.einsum("it,ij->tj", centred, left) / np.sqrt(len(curves) * values)
        else:
            values, vectors = eigenpairs("curves", np.einsum("is,it->st", centred, centred) / len(curves), n)
        if len(values) == 0:
            raise ValueError(f"curves must differ for a basis of PrincipalComponents, got {len(curves)} equal ones")
        on_grid = vectors / roots[:, np.newaxis]
        if self.whitened:
            on_grid = on_grid / np.sqrt(values) / size
        size = min(len(grid), len(curves) - 1) if len(values) == n else len(values)
        return _on_grid(grid, interpolated(grid.points, on_grid), size)


@dataclass(frozen=True)
class KernelComponents(Basis):
    """Principal axes of inputs that are known by a kernel only, like graphs, texts or trees.

    A network on it takes rows of kernel values ``k(x, x_i)`` with the m inputs of the training, in place of curves; the
    grid is any of m points, and the ``curves`` of the network are the Gram matrix of the training. Coordinates are
    those of ``k(x, .)`` along the eigenvectors of that matrix, not centred.

    Parameters
    ----------
    whitened : bool
        Whether each is divided by the root mean square of the training inputs along it.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld.functional_data import FunctionalNetwork, KernelComponents, PowerLaw
    >>> features = np.random.default_rng(0).normal(size=(6, 2))
    >>> gram = features @ features.T
    >>> network = FunctionalNetwork(np.arange(6), PowerLaw(0.0, basis=KernelComponents()), n_modes=2, curves=gram)
    >>> z = network.inputs(gram)
    >>> bool(np.allclose(z @ z.T, gram))
    True
    """

    of_kernel: ClassVar[bool] = True

    whitened: bool = False

    def __post_init__(self) -> None:
        validation.boolean("whitened", self.whitened)

    def system(self, grid: Grid, n: int, curves: FloatArray | None) -> System:
        if curves is None or curves.shape != (len(grid), len(grid)):
            got = None if curves is None else curves.shape
            raise ValueError(f"curves must be a Gram matrix, shape ({len(grid)}, {len(grid)}), got {got}")
        values, vectors = eigenpairs("curves", curves, n)
        projection = vectors / np.sqrt(values)
        if self.whitened:
            projection = projection / np.sqrt(values / len(grid))
        return System(projection, None, len(grid) if len(values) == n else len(values))


def interpolated(points: FloatArray, values: FloatArray) -> Functions:
    """Functions by their values at points, shape (T, n), linear between them and constant outside."""
    return partial(_interpolated, points, values)


def _interpolated(points: FloatArray, values: FloatArray, where: FloatArray) -> FloatArray:
    return np.stack([np.interp(where, points, column) for column in values.T], axis=1)
