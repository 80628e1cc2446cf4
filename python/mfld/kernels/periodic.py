"""Kernels of a torus."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mfld import fourier, validation
from mfld.fourier import Spectrum
from mfld.kernels.base import Kernel, Scaled
from mfld.kernels.blocks import over_blocks
from mfld.kernels.core import InCore, Native, pair_kernel
from mfld.kernels.pairwise import SteinTerms
from mfld.native import final
from mfld.validation import FloatArray


class _Periodic(InCore):
    """Product over the coordinates of a function phi of the difference, in radians of the period."""

    derivatives = 3
    period: float

    @abstractmethod
    def factor(self, t: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """phi and its three derivatives at angles."""

    @property
    def frequency(self) -> float:
        """Radians of a unit of length."""
        return 2 * math.pi / self.period

    def _check_period(self) -> None:
        object.__setattr__(self, "period", validation.real("period", self.period, positive=True))

    def value(self, x: FloatArray, y: FloatArray) -> FloatArray:
        return np.asarray(np.prod(self.factor(self._angles(x, y))[0], axis=-1))

    def gradient(self, x: FloatArray, y: FloatArray) -> FloatArray:
        value, first, *_ = self.factor(self._angles(x, y))
        return over_blocks([SteinTerms(v, g, np.zeros_like(v), None) for v, g in self._each(value, first)]).gradient

    def stein_terms(self, x: FloatArray, y: FloatArray, x_vectors: FloatArray, y_vectors: FloatArray) -> SteinTerms:
        a = x.dtype.type(self.frequency)
        value, first, second, third = self.factor(self._angles(x, y))
        v = y_vectors - x_vectors
        rest = a * v * first - a**2 * second
        slope = a**2 * v * second - a**3 * third
        columns = zip(self._each(value, first), np.moveaxis(rest, -1, 0), np.moveaxis(slope, -1, 0), strict=True)
        return over_blocks([SteinTerms(k, g, r, e[..., np.newaxis]) for (k, g), r, e in columns])

    def _angles(self, x: FloatArray, y: FloatArray) -> FloatArray:
        return (x - y) * x.dtype.type(self.frequency)

    def _each(self, value: FloatArray, first: FloatArray) -> list[tuple[FloatArray, FloatArray]]:
        """Value and gradient of the factor of each coordinate."""
        a = first.dtype.type(self.frequency)
        return [(value[..., c], a * first[..., c : c + 1]) for c in range(value.shape[-1])]

    def _described(self, name: str, parameter: float, coefficients: tuple[float, ...], n: int, factor: float) -> Native:
        return Native(pair_kernel(name, parameter, (self.frequency,) * n, coefficients), factor**n)


@final
@dataclass(frozen=True, init=False)
class Dirichlet(_Periodic):
    """Product over the coordinates of ``1 + 2 sum_k a_k cos(2 pi k (x_c - y_c) / period)``, on a torus.

    It has finitely many Fourier features, so that its discrepancy compares finitely many moments.

    Parameters
    ----------
    coefficients : sequence of float
        ``a_1, a_2, ...``; the kernel is positive definite where none is negative, else there is a warning.
    period : float

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import mfld
    >>> kernel = mfld.kernels.Dirichlet([0.5, 0.25], period=1.0)
    >>> kernel.matrix([[0.0]], [[0.0], [0.5]])
    array([[2.5, 0.5]])
    """

    coefficients: tuple[float, ...]
    period: float = 1.0

    def __init__(self, coefficients: Sequence[float], period: float = 1.0) -> None:
        given = validation.array("coefficients", coefficients, np.float64)
        validation.shape("coefficients", given, ("K",))
        object.__setattr__(self, "coefficients", tuple(given.tolist()))
        object.__setattr__(self, "period", period)
        self._check_period()
        if (given < 0).any():
            warnings.warn(
                f"kernel Dirichlet is not positive definite with the coefficient {given.min()}, which is negative",
                stacklevel=2,
            )

    def factor(self, t: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        sums = [np.ones_like(t), np.zeros_like(t), np.zeros_like(t), np.zeros_like(t)]
        for k, a in enumerate(self.coefficients, start=1):
            cosine, sine = 2 * a * np.cos(k * t), 2 * a * np.sin(k * t)
            for order, term in enumerate((cosine, -k * sine, -(k**2) * cosine, k**3 * sine)):
                sums[order] += term
        return sums[0], sums[1], sums[2], sums[3]

    def native(self, n_coordinates: int) -> Native:
        return self._described("cosine_series", 0.0, self.coefficients, n_coordinates, 1.0)

    def harmonics(self, n_coordinates: int) -> Spectrum:
        # Of k and -k one is enough; 0, where all measures agree, lies in the middle.
        last = len(self.coefficients)
        size = (2 * last + 1) ** n_coordinates
        fourier.check_memory(size, n_coordinates)
        flat = np.arange(size // 2 + 1, size)
        whole = np.stack(np.unravel_index(flat, (2 * last + 1,) * n_coordinates), axis=1) - last
        weights = np.prod(np.array([1.0, *self.coefficients])[np.abs(whole)], axis=1)
        return Spectrum(self.frequency * whole.astype(np.float64), 2 * weights)

    def smoothed(self, variance: float, n_coordinates: int) -> Kernel:
        decay = math.exp(-(self.frequency**2) * variance / 2)
        return Dirichlet([a * decay ** (k * k) for k, a in enumerate(self.coefficients, start=1)], self.period)


@final
@dataclass(frozen=True, init=False)
class WrappedGaussian(_Periodic):
    """Gaussian kernel of a torus: product over the coordinates of ``sum_m exp(-(x_c - y_c + m period)**2 / (2 l**2))``.

    Parameters
    ----------
    length_scale : float
        l, positive.
    period : float

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import mfld
    >>> kernel = mfld.kernels.WrappedGaussian(0.1, period=1.0)
    >>> kernel.matrix([[0.05]], [[0.95]]).round(4)
    array([[0.6065]])
    """

    length_scale: float
    period: float = 1.0

    def __init__(self, length_scale: float, period: float = 1.0) -> None:
        object.__setattr__(self, "length_scale", validation.real("length_scale", length_scale, positive=True))
        object.__setattr__(self, "period", period)
        self._check_period()
        if not 1e-9 <= self._radians <= 1e9:
            raise ValueError(f"length_scale must be between 1e-9 and 1e9 periods, got {length_scale} and {period}")

    @property
    def _radians(self) -> float:
        return self.length_scale * self.frequency

    def factor(self, t: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        if self._radians > 1:
            series = Dirichlet(self._coefficients(), 2 * math.pi).factor(t)
            a, b, c, d = (self._mean * part for part in series)
            return a, b, c, d
        nearest = t - 2 * math.pi * np.round(t / (2 * math.pi))
        sums = [np.zeros_like(t) for _ in range(4)]
        for m in (-1, 0, 1):
            z = (nearest + 2 * math.pi * m) / self._radians
            k = np.exp(-(z**2) / 2)
            for order, term in enumerate((k, -z * k, (z**2 - 1) * k, z * (3 - z**2) * k)):
                sums[order] += term / self._radians**order
        return sums[0], sums[1], sums[2], sums[3]

    def native(self, n_coordinates: int) -> Native:
        if self._radians > 1:  # by Poisson's formula
            return self._described("cosine_series", 0.0, self._coefficients(), n_coordinates, self._mean)
        return self._described("wrapped_gaussian", self._radians, (), n_coordinates, 1.0)

    def smoothed(self, variance: float, n_coordinates: int) -> Kernel:
        if variance == 0:
            return self
        wider = math.sqrt(self.length_scale**2 + variance)
        return Scaled((self.length_scale / wider) ** n_coordinates, WrappedGaussian(wider, self.period))

    @property
    def _mean(self) -> float:
        """Mean of a factor over the period."""
        return self._radians / math.sqrt(2 * math.pi)

    def _coefficients(self) -> tuple[float, ...]:
        last = max(1, math.ceil(9 / self._radians))  # exp(-9**2 / 2) is below the rounding
        return tuple(math.exp(-((k * self._radians) ** 2) / 2) for k in range(1, last + 1))
