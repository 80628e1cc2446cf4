"""Kernels of the distance."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from mfld import fourier, validation
from mfld.fourier import Spectrum
from mfld.kernels.base import Kernel, Scaled, some_rows
from mfld.kernels.core import InCore, Native, pair_kernel
from mfld.kernels.pairwise import SteinTerms
from mfld.mixtures import GaussianMixture
from mfld.native import final
from mfld.noise import Place
from mfld.validation import FloatArray

LengthScale: TypeAlias = float | Sequence[float] | str
"""A number, one for each coordinate, or "median": the median distance of the points that a kernel is fitted to."""

_LARGEST = 1e18  # length: its inverse square is a float32
_MEDIAN_ROWS = 1000  # points whose distances make a median


@dataclass(frozen=True)
class Radial(InCore):
    """Kernel of the distance in units of the length scale: ``k(x, y) = profile(s)``, ``s = |(x - y) / length|**2``.

    A subclass of your own defines `profile` in NumPy, and says by ``derivatives`` how many derivatives it gives.

    Parameters
    ----------
    length_scale : float or sequence of float or "median"
        Positive: one number, or one for each coordinate. "median" is the median distance of the points that an
        objective is about, or at each step that of the particles.

    Raises
    ------
    TypeError, ValueError
        If it is of the wrong kind or not positive.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> class Cauchy(mfld.kernels.Radial):
    ...     def profile(self, s):
    ...         return 1 / (1 + s), -1 / (1 + s) ** 2
    >>> Cauchy(2.0).matrix([[0.0], [2.0]])
    array([[1. , 0.5],
           [0.5, 1. ]])
    """

    length_scale: LengthScale = "median"

    def __post_init__(self) -> None:
        object.__setattr__(self, "length_scale", _length("length_scale", self.length_scale))

    @abstractmethod
    def profile(self, s: FloatArray) -> tuple[FloatArray, ...]:
        """kappa(s) and its derivatives, at least one; a derivative that is infinite at 0 is to be 0 there."""

    @property
    def n_coordinates(self) -> int | None:  # type: ignore[override]
        return len(self.length_scale) if isinstance(self.length_scale, tuple) else None

    def fitted(self, points: ArrayLike) -> Self:
        if self.length_scale != "median":
            return self
        return replace(self, length_scale=median_distance(points))

    def value(self, x: FloatArray, y: FloatArray) -> FloatArray:
        return self.profile(np.sum(self._scaled(x, y) ** 2, axis=-1))[0]

    def gradient(self, x: FloatArray, y: FloatArray) -> FloatArray:
        d = self._scaled(x, y)
        first = self.profile(np.sum(d**2, axis=-1))[1]
        return 2 * first[..., np.newaxis] * d * self._inverse(x)

    def stein_terms(self, x: FloatArray, y: FloatArray, x_vectors: FloatArray, y_vectors: FloatArray) -> SteinTerms:
        self.check_derivatives(2)
        d, a = self._scaled(x, y), self._inverse(x)
        value, first, second, *more = self.profile(np.sum(d**2, axis=-1))
        v, metric = a * (y_vectors - x_vectors), a**2
        excess = np.sum(v * d, axis=-1) - np.sum(metric)
        weighted = np.sum(metric * d**2, axis=-1)
        rest = 2 * first * excess - 4 * second * weighted
        rest_gradient = None
        if more:
            along = (4 * second * excess - 8 * more[0] * weighted)[..., np.newaxis]
            rest_gradient = a * (along * d + 2 * first[..., np.newaxis] * v - 8 * second[..., np.newaxis] * metric * d)
        return SteinTerms(value, 2 * first[..., np.newaxis] * d * a, rest, rest_gradient)

    def lengths(self, n_coordinates: int) -> FloatArray:
        """Length scale of each coordinate, in float64.

        Raises
        ------
        ValueError
            If it is still to be fitted.
        """
        if isinstance(self.length_scale, str):
            raise ValueError(f"length_scale must be a number here: fit the kernel to points first, {self!r}.fitted(x)")
        return np.broadcast_to(np.asarray(self.length_scale, np.float64), (n_coordinates,))

    def _inverse(self, like: FloatArray) -> FloatArray:
        return (1 / self.lengths(like.shape[-1])).astype(like.dtype)

    def _scaled(self, x: FloatArray, y: FloatArray) -> FloatArray:
        return (x - y) * self._inverse(x)


@dataclass(frozen=True)
class _NativeRadial(Radial):
    """A kernel of the distance that the core knows by a name and a number."""

    name: ClassVar[str]

    def native(self, n_coordinates: int) -> Native:
        inverse = tuple((1 / self.lengths(n_coordinates)).tolist())
        return Native(pair_kernel(*self._named(), inverse, ()), 1.0)

    def _named(self) -> tuple[str, float]:
        return self.name, 0.0

    def spectrum(self, place: Place, n_frequencies: int, n_coordinates: int) -> Spectrum:
        fourier.check_memory(n_frequencies, n_coordinates)
        degrees = self._degrees()
        if degrees is None:
            return super().spectrum(place, n_frequencies, n_coordinates)
        normals = place.normals(n_frequencies, n_coordinates + degrees, "float64")
        squares = np.sum(normals[:, n_coordinates:] ** 2, axis=1)
        radius = self._radius(squares)[:, np.newaxis]
        return Spectrum(
            radius * normals[:, :n_coordinates] / self.lengths(n_coordinates), np.full(n_frequencies, 1 / n_frequencies)
        )

    def _degrees(self) -> int | None:
        """Degrees of freedom of the chi-square law by which frequencies are longer or shorter than normal ones."""
        return None

    def _radius(self, squares: FloatArray) -> FloatArray:
        """Factor of a normal frequency. Of a Matern kernel of smoothness q/2 they have Student's law of q degrees."""
        return np.asarray(np.sqrt((self._degrees() or 0) / squares))


@final
@dataclass(frozen=True)
class Gaussian(_NativeRadial):
    """Gaussian kernel ``exp(-|x - y|**2 / (2 length**2))``.

    Examples
    --------
    >>> import mfld
    >>> kernel = mfld.kernels.Gaussian(1.0)
    >>> kernel.sums([[0.0]], [[0.0], [1.0]]).round(4)
    array([0.8033])
    """

    derivatives = 3
    name: ClassVar[str] = "gaussian"

    def _degrees(self) -> int:
        return 0

    def _radius(self, squares: FloatArray) -> FloatArray:
        return np.ones_like(squares)

    def profile(self, s: FloatArray) -> tuple[FloatArray, ...]:
        k = np.exp(-s / 2)
        return k, -k / 2, k / 4, -k / 8

    def smoothed(self, variance: float, n_coordinates: int) -> Kernel:
        if variance == 0:
            return self
        lengths = self.lengths(n_coordinates)
        wider = np.sqrt(lengths**2 + variance)
        amplitude = float(np.prod(lengths / wider))
        same = not isinstance(self.length_scale, tuple)
        return Scaled(amplitude, Gaussian(float(wider[0]) if same else tuple(wider.tolist())))

    def mixture_sums(self, x: FloatArray, mixture: GaussianMixture) -> tuple[FloatArray, FloatArray]:
        # The kernel is a multiple of the density of N(x, length**2).
        lengths = self.lengths(mixture.n_coordinates)
        logs, slopes = mixture.widened(lengths**2).log_terms(x)
        terms = x.dtype.type(self._mass(lengths)) * np.exp(logs)
        return terms.sum(axis=0), np.einsum("kn,kni->ni", terms, slopes)

    def mixture_energy(self, mixture: GaussianMixture) -> float:
        energy = 0.0
        for weight, mean, covariance in zip(mixture.weights, mixture.means, mixture.covariances, strict=True):
            other = GaussianMixture(mixture.weights, mixture.means, mixture.covariances + covariance)
            energy += weight * float(self.mixture_sums(mean[np.newaxis], other)[0][0])
        return energy

    @staticmethod
    def _mass(lengths: FloatArray) -> float:
        return float(np.prod(math.sqrt(2 * math.pi) * lengths))


@final
@dataclass(frozen=True)
class InverseMultiquadric(_NativeRadial):
    """Inverse multiquadric ``(1 + |x - y|**2 / length**2)**exponent``, the usual choice for Stein discrepancies.

    With the exponent between -1 and 0 its Stein discrepancy detects mass that leaves to infinity. Source: Gorham,
    Mackey 2017, "Measuring sample quality with kernels".

    Parameters
    ----------
    length_scale
        As in `Radial`.
    exponent : float
        Negative.

    Examples
    --------
    >>> import mfld
    >>> kernel = mfld.kernels.InverseMultiquadric(1.0)
    >>> kernel.matrix([[0.0]], [[0.0]])
    array([[1.]])
    """

    exponent: float = -0.5
    derivatives = 3
    name: ClassVar[str] = "inverse_multiquadric"

    def __post_init__(self) -> None:
        super().__post_init__()
        exponent = validation.real("exponent", self.exponent)
        if exponent >= 0:
            raise ValueError(f"exponent must be negative, got {exponent}")
        object.__setattr__(self, "exponent", exponent)

    def _degrees(self) -> int | None:
        # (1 + s)^e is the mean of exp(-q s / 2) over q of the chi-square law of -2 e degrees.
        return round(-2 * self.exponent) if (-2 * self.exponent) % 1 == 0 else None

    def _radius(self, squares: FloatArray) -> FloatArray:
        return np.asarray(np.sqrt(squares))

    def profile(self, s: FloatArray) -> tuple[FloatArray, ...]:
        e = self.exponent
        k = (1 + s) ** e
        return k, e * k / (1 + s), e * (e - 1) * k / (1 + s) ** 2, e * (e - 1) * (e - 2) * k / (1 + s) ** 3

    def _named(self) -> tuple[str, float]:
        return ("inverse_root", 0.0) if self.exponent == -0.5 else (self.name, self.exponent)


@final
@dataclass(frozen=True)
class Matern52(_NativeRadial):
    """Matern kernel of smoothness 5/2: ``(1 + q + q**2 / 3) exp(-q)``, ``q = sqrt(5) |x - y| / length``.

    Examples
    --------
    >>> import mfld
    >>> mfld.kernels.Matern52(1.0).matrix([[0.0]], [[1.0]]).round(4)
    array([[0.524]])
    """

    derivatives = 3
    name: ClassVar[str] = "matern52"

    def _degrees(self) -> int:
        return 5

    def profile(self, s: FloatArray) -> tuple[FloatArray, ...]:
        r = np.sqrt(s)
        q = math.sqrt(5) * r
        decay = np.exp(-q)
        third = -25 * math.sqrt(5) / 24 * _inverse_or_zero(r) * decay
        return (1 + q + q**2 / 3) * decay, -5 / 6 * (1 + q) * decay, 25 / 12 * decay, third


@final
@dataclass(frozen=True)
class Matern32(_NativeRadial):
    """Matern kernel of smoothness 3/2: ``(1 + q) exp(-q)``, ``q = sqrt(3) |x - y| / length``.

    Examples
    --------
    >>> import mfld
    >>> mfld.kernels.Matern32(1.0).matrix([[0.0]], [[1.0]]).round(4)
    array([[0.4834]])
    """

    derivatives = 2
    name: ClassVar[str] = "matern32"

    def _degrees(self) -> int:
        return 3

    def profile(self, s: FloatArray) -> tuple[FloatArray, ...]:
        r = np.sqrt(s)
        q = math.sqrt(3) * r
        decay = np.exp(-q)
        return (1 + q) * decay, -1.5 * decay, 0.75 * math.sqrt(3) * _inverse_or_zero(r) * decay


@final
@dataclass(frozen=True)
class Laplace(_NativeRadial):
    """Laplace kernel ``exp(-|x - y| / length)``; its gradient at distance 0 is taken as 0.

    Examples
    --------
    >>> import mfld
    >>> mfld.kernels.Laplace(1.0).matrix([[0.0]], [[1.0]]).round(4)
    array([[0.3679]])
    """

    derivatives = 1
    name: ClassVar[str] = "laplace"

    def _degrees(self) -> int:
        return 1

    def profile(self, s: FloatArray) -> tuple[FloatArray, ...]:
        r = np.sqrt(s)
        return np.exp(-r), -np.exp(-r) * _inverse_or_zero(r) / 2


@final
@dataclass(frozen=True)
class Energy(_NativeRadial):
    """Kernel ``-|x - y| / length`` of the energy distance, positive definite on differences of measures.

    Its squared discrepancy is ``E|X - Y| * 2 - E|X - X'| - E|Y - Y'|`` over the length, which may stay at 1. Source:
    Szekely, Rizzo 2013, "Energy statistics".

    Examples
    --------
    >>> import mfld
    >>> mfld.kernels.Energy().sums([[0.0]], [[3.0], [1.0]])
    array([-2.])
    """

    length_scale: LengthScale = 1.0
    derivatives = 1
    conditional = True
    name: ClassVar[str] = "energy"

    def profile(self, s: FloatArray) -> tuple[FloatArray, ...]:
        r = np.sqrt(s)
        return -r, -_inverse_or_zero(r) / 2


def _inverse_or_zero(r: FloatArray) -> FloatArray:
    return np.where(r == 0, 0, 1 / np.where(r == 0, 1, r)).astype(r.dtype)


def _length(name: str, value: LengthScale) -> float | tuple[float, ...] | str:
    if isinstance(value, str):
        return validation.choice(name, value, ("median",))
    if isinstance(value, (tuple, list)) or (isinstance(value, np.ndarray) and value.ndim > 0):
        given = validation.array(name, value, np.float64)
        validation.shape(name, given, ("p",), "of a number for each coordinate")
        if not (given > 0).all():
            raise ValueError(f"{name} must be positive, got {given.tolist()}")
        return tuple(_moderate(name, length) for length in given.tolist())
    return _moderate(name, validation.real(name, value, positive=True))


def _moderate(name: str, length: float) -> float:
    if not 1 / _LARGEST <= length <= _LARGEST:
        raise ValueError(f"{name} must be between {1 / _LARGEST:g} and {_LARGEST:g}: scale the points, got {length}")
    return length


def median_distance(points: ArrayLike) -> float:
    """Median of the distances between points, from at most 1000 of them, spread evenly over the rows.

    Parameters
    ----------
    points : array_like, shape (n, p)

    Raises
    ------
    ValueError
        If it is 0: there is one point only, or more than half of the pairs are of identical ones.

    Examples
    --------
    >>> from mfld import kernels
    >>> kernels.median_distance([[0.0], [1.0], [3.0]])
    2.0
    """
    checked = validation.array("points", points, np.float64)
    validation.shape("points", checked, ("n", "p"))
    some = some_rows(checked, _MEDIAN_ROWS)
    with np.errstate(over="ignore"):  # it is refused below
        distances = np.concatenate(
            [np.sqrt(np.sum((some[i + 1 :] - some[i]) ** 2, axis=1)) for i in range(len(some) - 1)] or [np.zeros(1)]
        )
    median = float(np.median(distances))
    if median <= 0 or not math.isfinite(median):
        raise ValueError(
            f"length_scale must be a number where the median distance of the points is none, got {median} from "
            f"{len(some)} points"
        )
    return median
