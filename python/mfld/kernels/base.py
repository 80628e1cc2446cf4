"""Kernels in general, their sums over clouds, multiples, sums and products."""

from __future__ import annotations

import functools
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mfld import validation
from mfld.fourier import Spectrum
from mfld.kernels import pairwise
from mfld.kernels.pairwise import Statistics, SteinSums, SteinTerms, statistics
from mfld.mixtures import GaussianMixture
from mfld.noise import Place
from mfld.space import Space
from mfld.validation import FloatArray


class Kernel(ABC):
    """Positive definite kernel of pairs of points.

    A kernel of your own defines `value` and `gradient`, in NumPy; one of the distance alone is a `Radial`. Kernels may
    be added, and multiplied by positive numbers and by each other.

    Attributes
    ----------
    derivatives : int
        1: it has a gradient. 2: `stein_terms` too, so that there is a kernel Stein discrepancy. 3: with the gradient of
        the rest, so that one can descend it.
    conditional : bool
        True where it is positive definite on differences of measures only, like the energy distance.
    n_coordinates : int or None
        Length of a point; None: any.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> class Quadratic(mfld.kernels.Kernel):
    ...     def value(self, x, y):
    ...         return (1 + np.sum(x * y, axis=-1)) ** 2
    ...     def gradient(self, x, y):
    ...         return 2 * (1 + np.sum(x * y, axis=-1))[..., np.newaxis] * y
    >>> kernel = Quadratic() + 0.5 * mfld.kernels.Gaussian(2.0)
    >>> kernel.matrix([[0.0], [1.0]], [[0.0]]).round(3)
    array([[1.5  ],
           [1.441]])
    """

    derivatives: int = 1
    conditional: bool = False
    n_coordinates: int | None = None

    # ---- what a kernel is ----------------------------------------------------------------------------------------

    @abstractmethod
    def value(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """``k(x, y)`` of points, shapes (..., p) that broadcast -> (...)."""

    def gradient(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """Gradient of ``k(x, y)`` in x, shape (..., p)."""
        raise NotImplementedError(f"{type(self).__name__} does not define gradient")

    def stein_terms(self, x: FloatArray, y: FloatArray, x_vectors: FloatArray, y_vectors: FloatArray) -> SteinTerms:
        """Parts of the Stein kernel; the vectors have shape (..., p) as well."""
        raise TypeError(f"kernel must define stein_terms for Stein kernels, {type(self).__name__} does not")

    def fitted(self, points: ArrayLike) -> Kernel:
        """The kernel with numbers where it asks for a rule, from points of shape (n, p).

        Raises
        ------
        ValueError
            If a median of distances is 0.
        """
        return self

    def smoothed(self, variance: float, n_coordinates: int) -> Kernel:
        """The kernel ``E k(x + sqrt(variance) xi, y)``, xi ~ N(0, I), where it has a closed form.

        Raises
        ------
        TypeError
            If there is none.
        """
        if variance == 0:
            return self
        raise TypeError(
            f"smoothing must be 0 for {type(self).__name__}, which has no closed form: Gaussian, WrappedGaussian, "
            "Dirichlet, their sums and products over blocks have one"
        )

    def mixture_sums(self, x: FloatArray, mixture: GaussianMixture) -> tuple[FloatArray, FloatArray]:
        """``E k(x_i, Z)`` over a Gaussian mixture and its gradient in x_i, where they have a closed form.

        Raises
        ------
        TypeError
            If they have none.
        """
        raise TypeError(f"kernel must be Gaussian, or a sum of such, for a Gaussian mixture, got {self!r}")

    def spectrum(self, place: Place, n_frequencies: int, n_coordinates: int) -> Spectrum:
        """Random frequencies whose mean cosine is the kernel (Rahimi, Recht 2007, "Random features").

        Raises
        ------
        TypeError
            If none are known, as of a kernel that depends on more than the difference.
        """
        raise TypeError(
            "kernel must have random features, as Gaussian, Matern52, Matern32, Laplace and InverseMultiquadric with "
            f"an exponent -1/2, -1, ... have; got {self!r}"
        )

    def harmonics(self, n_coordinates: int) -> Spectrum:
        """The finitely many frequencies that the kernel consists of.

        Raises
        ------
        TypeError, ValueError
            If there are infinitely many, or they do not fit into memory.
        """
        raise TypeError(f"kernel must have finitely many frequencies, as Dirichlet has; got {self!r}")

    def mixture_energy(self, mixture: GaussianMixture) -> float:
        """``E k(Z, Z')`` over two independent points of a Gaussian mixture."""
        raise TypeError(f"kernel must be Gaussian, or a sum of such, for a Gaussian mixture, got {self!r}")

    # ---- sums ----------------------------------------------------------------------------------------------------

    def matrix(self, x: ArrayLike, y: ArrayLike | None = None) -> FloatArray:
        """All values k(x_i, y_j), shape (n, m); y is by default x. Memory grows with n m, unlike that of sums."""
        first = self._points("x", x)
        second = first if y is None else self._points("y", y, first)
        return self.value(first[:, np.newaxis], second)

    def diagonal(self, x: ArrayLike) -> FloatArray:
        """Values k(x_i, x_i), shape (n,)."""
        points = self._points("x", x)
        return self.value(points, points)

    def sums(
        self, x: ArrayLike, y: ArrayLike, weights: ArrayLike | None = None, num_threads: int | None = None
    ) -> FloatArray:
        """``sum_j w_j k(x_i, y_j)`` for each point x_i.

        Parameters
        ----------
        x : array_like, shape (n, p)
        y : array_like, shape (m, p)
        weights : array_like, shape (m,), optional
            Of any sign; 1/m each by default.
        num_threads : int, optional

        Returns
        -------
        ndarray, shape (n,), in the precision of x

        Raises
        ------
        TypeError, ValueError
            If an array is of the wrong kind or shape, or not finite.
        """
        return self.sums_of(*self._clouds(x, y, weights), False, validation.num_threads(num_threads))[0]

    def gradient_sums(
        self, x: ArrayLike, y: ArrayLike, weights: ArrayLike | None = None, num_threads: int | None = None
    ) -> FloatArray:
        """Gradients of `sums` in the points x_i, shape (n, p)."""
        return self.values_and_gradients(x, y, weights, num_threads)[1]

    def values_and_gradients(
        self, x: ArrayLike, y: ArrayLike, weights: ArrayLike | None = None, num_threads: int | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """`sums` and `gradient_sums` in one pass, shapes (n,) and (n, p)."""
        values, gradient = self.sums_of(*self._clouds(x, y, weights), True, validation.num_threads(num_threads))
        assert gradient is not None
        return values, gradient

    def field(
        self,
        x: ArrayLike,
        y: ArrayLike,
        vectors: ArrayLike,
        weights: ArrayLike | None = None,
        *,
        repulsion: float = 1.0,
        num_threads: int | None = None,
    ) -> FloatArray:
        """``sum_j w_j (k(x_i, y_j) s_j + repulsion grad_y k(x_i, y_j))`` for vectors s, shape (m, p) -> (n, p)."""
        points, others, w = self._clouds(x, y, weights)
        s = self._vectors("vectors", vectors, others)
        repulsion = validation.real("repulsion", repulsion)
        return self.field_of(points, others, s, w, repulsion, validation.num_threads(num_threads))

    def stein_sums(
        self,
        x: ArrayLike,
        x_vectors: ArrayLike,
        y: ArrayLike,
        y_vectors: ArrayLike,
        weights: ArrayLike | None = None,
        *,
        with_gradient: bool = False,
        num_threads: int | None = None,
    ) -> SteinSums:
        """``sum_j w_j u(x_i, y_j)`` for each point x_i; with its gradient if asked for.

        Parameters
        ----------
        x, x_vectors : array_like, shape (n, p)
        y, y_vectors : array_like, shape (m, p)
            Points, and the vectors there: scores.
        weights : array_like, shape (m,), optional
        with_gradient : bool
        num_threads : int, optional

        Raises
        ------
        TypeError, ValueError
            If an array is of the wrong kind or shape, or not finite; if the kernel lacks the derivatives.
        """
        self.check_derivatives(3 if with_gradient else 2)
        points, others, w = self._clouds(x, y, weights)
        mine, theirs = self._vectors("x_vectors", x_vectors, points), self._vectors("y_vectors", y_vectors, others)
        return self.stein_of(points, mine, others, theirs, w, with_gradient, validation.num_threads(num_threads))

    def stein_diagonal(self, x: ArrayLike, vectors: ArrayLike) -> FloatArray:
        """Values u(x_i, x_i) of the Stein kernel, shape (n,)."""
        self.check_derivatives(2)
        points = self._points("x", x)
        s = self._vectors("vectors", vectors, points)
        terms = self.stein_terms(points, points, s, s)
        return np.asarray(np.sum(s * s, axis=-1) * terms.value + terms.rest)

    def stein_statistics(
        self,
        x: ArrayLike,
        vectors: ArrayLike,
        weights: ArrayLike | None = None,
        num_threads: int | None = None,
    ) -> Statistics:
        """``sum_ij w_i w_j u(x_i, x_j)``, a squared kernel Stein discrepancy, in float64.

        Parameters
        ----------
        x, vectors : array_like, shape (n, p)
            Points, and the scores there.
        weights : array_like, shape (n,), optional
            Of sum 1.
        num_threads : int, optional
        """
        points = self._points("x", validation.array("x", x, np.float64))
        s = self._vectors("vectors", vectors, points)
        sums = self.stein_sums(points, s, points, s, weights, num_threads=num_threads).values
        return statistics(sums, self.stein_diagonal(points, s), weights)

    def check_space(self, space: Space) -> None:
        """Raise ValueError if the kernel jumps where a domain closes: on a torus it has to be periodic."""
        point = 0.3 + 0.1 * np.arange(space.n_coordinates, dtype=np.float64)[np.newaxis]
        for block, part in space.parts():
            if block.kind != "torus" or block.limits is None:
                continue
            turned = point.copy()
            turned[:, part] += block.limits[1] - block.limits[0]
            before, after = float(self.value(point, 0 * point)[0]), float(self.value(turned, 0 * point)[0])
            if abs(after - before) > 1e-6 * abs(self.value(point, point)[0]):
                raise ValueError(
                    f"kernel must have the periods of {block}, like Dirichlet and WrappedGaussian, got {self!r}"
                )

    def check_derivatives(self, needed: int) -> None:
        """Raise ValueError if the kernel is not smooth enough for Stein kernels (2) or their gradients (3)."""
        if self.derivatives < needed:
            raise ValueError(
                f"kernel must have {needed} derivatives here, like Gaussian, InverseMultiquadric or Matern52; "
                f"{self!r} has {self.derivatives}"
            )

    def check_definite(self, points: FloatArray) -> None:
        """Warn where the matrix of some points shows that the kernel is not positive definite."""
        some = np.asarray(some_rows(points, 64), np.float64)
        gram = np.asarray(self.matrix(some), np.float64)
        if not np.allclose(gram, gram.T, rtol=1e-6, atol=1e-9 * np.abs(gram).max()):
            raise ValueError(f"kernel must be symmetric, {self!r} is not")
        if self.conditional:
            gram = gram - gram.mean(axis=0) - gram.mean(axis=1)[:, np.newaxis] + gram.mean()
        lowest, size = float(np.linalg.eigvalsh(gram)[0]), float(np.abs(gram).max())
        if lowest < -1e-6 * size * len(gram):
            warnings.warn(
                f"kernel {self!r} is not positive definite: its matrix at some points has the eigenvalue {lowest:.3g}. "
                "A discrepancy may be negative then, and is no distance",
                stacklevel=4,
            )

    # ---- arithmetic ----------------------------------------------------------------------------------------------

    def __add__(self, other: Kernel) -> Kernel:
        if not isinstance(other, Kernel):
            return NotImplemented
        return _Sum((*self._parts(), *other._parts()))

    def __mul__(self, other: float | Kernel) -> Kernel:
        if isinstance(other, Kernel):
            return _PointwiseProduct((self, other))
        return Scaled(validation.real("factor", other, positive=True), self)

    def __rmul__(self, other: float) -> Kernel:
        return self * other

    def _parts(self) -> tuple[Kernel, ...]:
        return (self,)

    # ---- sums of arrays that are checked; in NumPy unless the core knows the kernel --------------------------------

    def sums_of(
        self, x: FloatArray, y: FloatArray, w: FloatArray | None, with_gradient: bool, num_threads: int
    ) -> tuple[FloatArray, FloatArray | None]:
        return pairwise.sums(self, x, y, w, with_gradient)

    def field_of(
        self, x: FloatArray, y: FloatArray, s: FloatArray, w: FloatArray | None, repulsion: float, num_threads: int
    ) -> FloatArray:
        return pairwise.field(self, x, y, s, w, repulsion)

    def stein_of(
        self,
        x: FloatArray,
        s: FloatArray,
        y: FloatArray,
        t: FloatArray,
        w: FloatArray | None,
        with_gradient: bool,
        num_threads: int,
    ) -> SteinSums:
        return pairwise.stein(self, x, s, y, t, w, with_gradient)

    # ---- checks --------------------------------------------------------------------------------------------------

    def _clouds(
        self, x: ArrayLike, y: ArrayLike, weights: ArrayLike | None
    ) -> tuple[FloatArray, FloatArray, FloatArray | None]:
        points = self._points("x", x)
        others = self._points("y", y, points)
        if weights is None:
            return points, others, None
        w = validation.array("weights", weights, points.dtype)
        validation.shape("weights", w, (len(others),), "to match y")
        return points, others, w

    def _points(self, name: str, value: ArrayLike, like: FloatArray | None = None) -> FloatArray:
        points = validation.array(name, value, None if like is None else like.dtype)
        p = self.n_coordinates if like is None else like.shape[1]
        why = "to match the kernel" if like is None else "to match x"
        validation.shape(name, points, ("n", "p" if p is None else p), "" if p is None else why)
        return points

    @staticmethod
    def _vectors(name: str, value: ArrayLike, like: FloatArray) -> FloatArray:
        vectors = validation.array(name, value, like.dtype)
        validation.shape(name, vectors, like.shape, "to match the points")
        return vectors


def some_rows(points: FloatArray, most: int) -> FloatArray:
    """At most so many rows, spread evenly."""
    n = len(points)
    return points if n <= most else points[np.arange(most) * n // most]


@dataclass(frozen=True)
class Scaled(Kernel):
    """Multiple of a kernel."""

    factor: float
    kernel: Kernel

    def __repr__(self) -> str:
        return f"{self.factor:g} * {self.kernel!r}"

    def __mul__(self, other: float | Kernel) -> Kernel:
        if isinstance(other, Kernel):
            return super().__mul__(other)
        return Scaled(self.factor * validation.real("factor", other, positive=True), self.kernel)

    @property
    def derivatives(self) -> int:  # type: ignore[override]
        return self.kernel.derivatives

    @property
    def conditional(self) -> bool:  # type: ignore[override]
        return self.kernel.conditional

    @property
    def n_coordinates(self) -> int | None:  # type: ignore[override]
        return self.kernel.n_coordinates

    def fitted(self, points: ArrayLike) -> Kernel:
        return Scaled(self.factor, self.kernel.fitted(points))

    def smoothed(self, variance: float, n_coordinates: int) -> Kernel:
        return self.factor * self.kernel.smoothed(variance, n_coordinates)

    def mixture_sums(self, x: FloatArray, mixture: GaussianMixture) -> tuple[FloatArray, FloatArray]:
        values, gradient = self.kernel.mixture_sums(x, mixture)
        return times(self.factor, values), times(self.factor, gradient)

    def mixture_energy(self, mixture: GaussianMixture) -> float:
        return self.factor * self.kernel.mixture_energy(mixture)

    def spectrum(self, place: Place, n_frequencies: int, n_coordinates: int) -> Spectrum:
        frequencies, weights = self.kernel.spectrum(place, n_frequencies, n_coordinates)
        return Spectrum(frequencies, self.factor * weights)

    def harmonics(self, n_coordinates: int) -> Spectrum:
        frequencies, weights = self.kernel.harmonics(n_coordinates)
        return Spectrum(frequencies, self.factor * weights)

    def value(self, x: FloatArray, y: FloatArray) -> FloatArray:
        return np.asarray(times(self.factor, self.kernel.value(x, y)))

    def gradient(self, x: FloatArray, y: FloatArray) -> FloatArray:
        return np.asarray(times(self.factor, self.kernel.gradient(x, y)))

    def stein_terms(self, x: FloatArray, y: FloatArray, x_vectors: FloatArray, y_vectors: FloatArray) -> SteinTerms:
        terms = self.kernel.stein_terms(x, y, x_vectors, y_vectors)
        return SteinTerms._make(times(self.factor, part) for part in terms)

    def native(self, n_coordinates: int) -> Any:
        """The kernel inside as the compiled core takes it, with this factor; None where the core does not know it."""
        native = getattr(self.kernel, "native", None)
        found = None if native is None else native(n_coordinates)
        # Two factors are two roundings, as sums have them.
        return None if found is None or found.amplitude != 1 else found._replace(amplitude=self.factor)

    def sums_of(self, *arguments: Any) -> tuple[FloatArray, FloatArray | None]:
        values, gradient = self.kernel.sums_of(*arguments)
        return times(self.factor, values), times(self.factor, gradient)

    def field_of(self, *arguments: Any) -> FloatArray:
        return np.asarray(times(self.factor, self.kernel.field_of(*arguments)))

    def stein_of(self, *arguments: Any) -> SteinSums:
        return SteinSums._make(times(self.factor, part) for part in self.kernel.stein_of(*arguments))


@dataclass(frozen=True)
class Several(Kernel):
    """Kernel made of others."""

    kernels: tuple[Kernel, ...]

    @property
    def derivatives(self) -> int:  # type: ignore[override]
        return min(kernel.derivatives for kernel in self.kernels)


@dataclass(frozen=True)
class _Sum(Several):
    """Sum of kernels."""

    def __post_init__(self) -> None:
        _same_coordinates(self.kernels)

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.kernels))

    @property
    def conditional(self) -> bool:  # type: ignore[override]
        return any(kernel.conditional for kernel in self.kernels)

    @property
    def n_coordinates(self) -> int | None:  # type: ignore[override]
        return _same_coordinates(self.kernels)

    def _parts(self) -> tuple[Kernel, ...]:
        return self.kernels

    def fitted(self, points: ArrayLike) -> Kernel:
        return _Sum(tuple(kernel.fitted(points) for kernel in self.kernels))

    def smoothed(self, variance: float, n_coordinates: int) -> Kernel:
        return _Sum(tuple(kernel.smoothed(variance, n_coordinates) for kernel in self.kernels))

    def mixture_sums(self, x: FloatArray, mixture: GaussianMixture) -> tuple[FloatArray, FloatArray]:
        values, gradients = zip(*(kernel.mixture_sums(x, mixture) for kernel in self.kernels), strict=True)
        return _total(values), _total(gradients)

    def mixture_energy(self, mixture: GaussianMixture) -> float:
        return sum(kernel.mixture_energy(mixture) for kernel in self.kernels)

    def value(self, x: FloatArray, y: FloatArray) -> FloatArray:
        return np.asarray(_total([kernel.value(x, y) for kernel in self.kernels]))

    def gradient(self, x: FloatArray, y: FloatArray) -> FloatArray:
        return np.asarray(_total([kernel.gradient(x, y) for kernel in self.kernels]))

    def stein_terms(self, x: FloatArray, y: FloatArray, x_vectors: FloatArray, y_vectors: FloatArray) -> SteinTerms:
        each = [kernel.stein_terms(x, y, x_vectors, y_vectors) for kernel in self.kernels]
        return SteinTerms(*(_total(parts) for parts in zip(*each, strict=True)))

    def sums_of(self, *arguments: Any) -> tuple[FloatArray, FloatArray | None]:
        values, gradients = zip(*(kernel.sums_of(*arguments) for kernel in self.kernels), strict=True)
        return _total(values), _total(gradients)

    def field_of(self, *arguments: Any) -> FloatArray:
        return np.asarray(_total([kernel.field_of(*arguments) for kernel in self.kernels]))

    def stein_of(self, *arguments: Any) -> SteinSums:
        each = [kernel.stein_of(*arguments) for kernel in self.kernels]
        return SteinSums(*(_total(parts) for parts in zip(*each, strict=True)))


@dataclass(frozen=True)
class _PointwiseProduct(Several):
    """Product of kernels of the same points."""

    derivatives = 1

    def __post_init__(self) -> None:
        _same_coordinates(self.kernels)
        check_factors(self.kernels)

    def __repr__(self) -> str:
        return " * ".join(map(repr, self.kernels))

    @property
    def n_coordinates(self) -> int | None:  # type: ignore[override]
        return _same_coordinates(self.kernels)

    def fitted(self, points: ArrayLike) -> Kernel:
        return _PointwiseProduct(tuple(kernel.fitted(points) for kernel in self.kernels))

    def value(self, x: FloatArray, y: FloatArray) -> FloatArray:
        first, second = self.kernels
        return first.value(x, y) * second.value(x, y)

    def gradient(self, x: FloatArray, y: FloatArray) -> FloatArray:
        first, second = self.kernels
        left, right = first.value(x, y)[..., np.newaxis], second.value(x, y)[..., np.newaxis]
        return np.asarray(left * second.gradient(x, y) + right * first.gradient(x, y))


def _total(parts: Sequence[Any]) -> Any:
    """Sum of arrays; None where one is missing."""
    if any(part is None for part in parts):
        return None
    return functools.reduce(np.add, parts)


def _same_coordinates(kernels: tuple[Kernel, ...]) -> int | None:
    known = {kernel.n_coordinates for kernel in kernels} - {None}
    if len(known) > 1:
        raise ValueError(f"kernels must be of the same number of coordinates, got {sorted(map(str, known))}")
    return known.pop() if known else None


def check_factors(kernels: tuple[Kernel, ...]) -> None:
    for kernel in kernels:
        if kernel.conditional:
            raise ValueError(f"kernels of a product must be positive definite, {kernel!r} is on differences only")


def times(factor: float, array: Any) -> Any:
    """A multiple of an array in its precision; None where there is none."""
    return array if array is None or factor == 1 else array * array.dtype.type(factor)
