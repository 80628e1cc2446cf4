"""Deconvolution: a signal as a few spikes seen through a kernel.

    signal(z) = sum_m c_m prod_j k(z_j - w_mj) + noise

on a product of grids in one or two dimensions. It is the sparse problem over signed measures of `SignedRisk`, whose
model is `Convolution`.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mfld import noise, validation
from mfld.models import Model
from mfld.noise import Place
from mfld.space import Block, Box, Space, Torus
from mfld.validation import FloatArray

__all__ = ["Convolution", "Dirichlet", "Gaussian", "PointSpread", "Sampled"]

_MOST_FREQUENCIES: Final = 100_000
_PROBES: Final = 1001


class PointSpread(ABC):
    """Response ``k(x)`` of an instrument to a spike at 0, along one axis.

    Its derivative has to be continuous. A `Convolution` refuses a response that contradicts its derivative or bounds.

    Attributes
    ----------
    period : float or None
        Period of a response on a circle; None on a line.
    steepest, most_curved : float
        Bounds on the sizes of its first and second derivative.
    largest : float
        Bound on its own size.
    """

    period: float | None = None
    largest: float
    steepest: float
    most_curved: float

    @abstractmethod
    def __call__(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The response and its derivative at differences, in the shape of x."""


@dataclass(frozen=True)
class Gaussian(PointSpread):
    """Gaussian response ``exp(-x**2 / (2 width**2))``.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld.deconvolution import Gaussian
    >>> Gaussian(0.5)(np.array([0.0, 0.5]))[0].round(4)
    array([1.    , 0.6065])
    """

    width: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "width", _length("width", self.width))

    largest = 1.0

    @property
    def steepest(self) -> float:  # type: ignore[override]
        return math.exp(-0.5) / self.width

    @property
    def most_curved(self) -> float:  # type: ignore[override]
        return 1 / self.width**2

    def __call__(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        scaled = _reals(x) / self.width
        value = np.exp(-np.square(scaled) / 2)
        return value, -scaled / self.width * value


@dataclass(frozen=True)
class Dirichlet(PointSpread):
    """Ideal low-pass filter on a circle, ``(1 + 2 sum_l cos(2 pi l x / period)) / (1 + 2 frequencies)``, l from 1 up.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld.deconvolution import Dirichlet
    >>> Dirichlet(2, period=1.0)(np.array([0.0, 0.2]))[0].round(4) + 0.0
    array([1., 0.])
    """

    frequencies: int
    period: float = 1.0

    def __post_init__(self) -> None:
        frequencies = validation.integer("frequencies", self.frequencies, 1, _MOST_FREQUENCIES)
        object.__setattr__(self, "frequencies", frequencies)
        object.__setattr__(self, "period", _length("period", self.period))

    largest = 1.0

    @property
    def steepest(self) -> float:  # type: ignore[override]
        return self._moment(1)

    @property
    def most_curved(self) -> float:  # type: ignore[override]
        return self._moment(2)

    def _moment(self, power: int) -> float:
        waves = 2 * math.pi / self.period * np.arange(1, self.frequencies + 1)
        return float(2 * np.sum(waves**power) / (1 + 2 * self.frequencies))

    def __call__(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        x = _reals(x)
        value, slope = np.ones_like(x), np.zeros_like(x)
        for number in range(1, self.frequencies + 1):
            wave = 2 * math.pi * number / self.period
            value += 2 * np.cos(wave * x)
            slope -= 2 * wave * np.sin(wave * x)
        scale = 1 + 2 * self.frequencies
        return value / scale, slope / scale


@dataclass(frozen=True, eq=False, repr=False)
class Sampled(PointSpread):
    """Response known at equidistant points around 0, with a cubic spline between them and 0 beyond.

    The spline is the interpolating one of Catmull and Rom, whose derivative is continuous.

    Parameters
    ----------
    values : array_like, shape (2 m + 1,)
        At ``-m spacing, ..., m spacing``.
    spacing : float

    Raises
    ------
    TypeError, ValueError
        If there is an even number of values or fewer than 5, all are 0, or spacing is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld.deconvolution import Gaussian, Sampled
    >>> x = np.linspace(-2, 2, 81)
    >>> sampled = Sampled(Gaussian(0.5)(x)[0], spacing=0.05)
    >>> at = np.array([0.013, -0.4])
    >>> bool(np.allclose(sampled(at)[0], Gaussian(0.5)(at)[0], atol=1e-4))
    True
    """

    values: ArrayLike
    spacing: float
    largest: float = field(init=False)
    steepest: float = field(init=False)
    most_curved: float = field(init=False)
    _pieces: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        values = validation.array("values", self.values, np.float64)
        if values.ndim != 1 or len(values) < 5 or len(values) % 2 == 0:
            raise ValueError(f"values must have shape (2 m + 1,) with m at least 2, got {values.shape}")
        if not 1e-100 < (largest := float(np.abs(values).max())) < 1e100:
            raise ValueError(f"values must have their largest size between 1e-100 and 1e+100, got {largest:g}")
        spacing = _length("spacing", self.spacing)
        padded = np.concatenate([np.zeros(3), values, np.zeros(3)])  # so that it ends without a kink
        before, left, right, after = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
        # Polynomials in the place t within a piece, 0 to 1: coefficients of 1, t, t**2, t**3.
        pieces = np.stack(
            [
                left,
                (right - before) / 2,
                before - 5 * left / 2 + 2 * right - after / 2,
                (after - before) / 2 + 3 * (left - right) / 2,
            ]
        )
        object.__setattr__(self, "values", validation.frozen(values))
        object.__setattr__(self, "spacing", spacing)
        object.__setattr__(self, "_pieces", pieces)
        ends = np.abs(pieces)
        object.__setattr__(self, "largest", float(np.max(ends.sum(axis=0))))
        object.__setattr__(self, "steepest", float(np.max(ends[1] + 2 * ends[2] + 3 * ends[3])) / spacing)
        object.__setattr__(self, "most_curved", float(np.max(2 * ends[2] + 6 * ends[3])) / spacing**2)

    def __repr__(self) -> str:
        return f"Sampled({np.size(self.values)} values, spacing={self.spacing:g})"

    def __call__(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        x, pieces = _reals(x), self._pieces.shape[1]
        place = np.asarray(x, np.float64) / self.spacing + (pieces - 1) / 2 + 0.5
        number = np.floor(place)
        inside = (number >= 0) & (number < pieces)
        t = np.where(inside, place - number, 0)
        a, b, c, d = self._pieces[:, np.where(inside, number, 0).astype(np.int64)] * inside
        value, slope = a + t * (b + t * (c + t * d)), (b + t * (2 * c + 3 * t * d)) / self.spacing
        return value.astype(x.dtype), slope.astype(x.dtype)


class Convolution(Model):
    """Model of spikes seen through a point spread on a grid: ``phi(w, z) = prod_j k_j(z_j - w_j)``.

    Parameters
    ----------
    point_spread : PointSpread or sequence of them
        Of each axis, or one for all.
    axes : sequence of array_like
        Increasing coordinates of the grid along each axis; one or two.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, a grid is longer than a period, or a response contradicts its bounds.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld.deconvolution import Convolution, Gaussian
    >>> model = Convolution(Gaussian(0.1), [np.linspace(0, 1, 20), np.linspace(0, 2, 40)])
    >>> model.predict([[0.5, 1.0]], model.grid).shape
    (800,)
    """

    n_outputs = 1

    def __init__(self, point_spread: PointSpread | Sequence[PointSpread], axes: Sequence[ArrayLike]) -> None:
        validation.instance("axes", axes, Sequence, "a sequence of arrays, one for each axis")
        self.axes = tuple(_axis(f"axes[{j}]", own) for j, own in enumerate(axes))
        if len(self.axes) not in (1, 2):
            raise ValueError(f"axes must be one or two, got {len(self.axes)}")
        self.point_spreads = _of_each_axis(point_spread, len(self.axes))
        blocks = [
            _block(f"axes[{j}]", k, x) for j, (k, x) in enumerate(zip(self.point_spreads, self.axes, strict=True))
        ]
        for own, x in zip(self.point_spreads, self.axes, strict=True):
            _check_response(own, float(x[-1] - x[0]))
        self._space = Space(domain=blocks)
        self.n_features = len(self.axes)
        self.grid = np.stack(np.meshgrid(*self.axes, indexing="ij"), axis=-1).reshape(-1, self.n_features)

    def __repr__(self) -> str:
        return f"Convolution({', '.join(map(repr, self.point_spreads))}, {' x '.join(str(len(x)) for x in self.axes)})"

    @property
    def space(self) -> Space:
        return self._space

    def initial_particles(self, n_particles: int, place: Place | int = 0, dtype: DTypeLike = "float32") -> FloatArray:
        return self._space.draw(noise.start(place), n_particles, dtype)

    @property
    def most_curved(self) -> float:
        curves = []
        for j, own in enumerate(self.point_spreads):
            others = math.prod(k.largest for i, k in enumerate(self.point_spreads) if i != j)
            curves.append(own.most_curved * others)
        mixed = math.prod(k.steepest for k in self.point_spreads) if len(self.axes) == 2 else 0.0
        return math.hypot(*curves, mixed, mixed)

    def predictions(
        self, particles: FloatArray, weights: FloatArray | None, inputs: FloatArray, num_threads: int
    ) -> FloatArray:
        neurons = self._neurons(particles, inputs, num_threads)[..., 0]
        share = np.full(len(particles), 1 / len(particles), particles.dtype) if weights is None else weights
        sums: FloatArray = np.einsum("im,m->i", neurons, share)
        return sums[:, np.newaxis]

    def pull_back(
        self, particles: FloatArray, inputs: FloatArray, cotangent: FloatArray, num_threads: int
    ) -> tuple[FloatArray, FloatArray]:
        dual = cotangent[:, 0]
        if not self._is_grid(inputs):
            columns = [self._along(j, particles, inputs[:, j]) for j in range(self.n_features)]
            return self._joined(
                columns, lambda factors: np.einsum("i,im->m", dual, functools.reduce(np.multiply, factors))
            )
        columns = [self._along(j, particles, x.astype(particles.dtype)) for j, x in enumerate(self.axes)]
        table = dual.reshape([len(x) for x in self.axes])
        if len(columns) == 1:
            return self._joined(columns, lambda factors: np.einsum("i,im->m", table, factors[0]))
        # One axis after the other: a sum over the product of grids would take as many more numbers.
        (first, first_slope), (second, second_slope) = columns
        by_first = np.einsum("ij,im->jm", table, first)
        by_slope = np.einsum("ij,im->jm", table, first_slope)
        values = np.einsum("jm,jm->m", by_first, second)
        slopes = [np.einsum("jm,jm->m", by_slope, second), np.einsum("jm,jm->m", by_first, second_slope)]
        return values, -np.stack(slopes, axis=1)

    def slopes(self, particles: FloatArray) -> FloatArray:
        """Gradient in w_m of ``phi(w_m, z_i)`` on the grid, shape (n, N, p)."""
        columns = [self._along(j, particles, x.astype(particles.dtype)) for j, x in enumerate(self.axes)]
        if len(columns) == 1:
            return -columns[0][1][:, :, np.newaxis]
        (first, first_slope), (second, second_slope) = columns
        each = [first_slope[:, np.newaxis] * second, first[:, np.newaxis] * second_slope]
        return -np.stack([own.reshape(len(self.grid), len(particles)) for own in each], axis=2)

    def _neurons(self, particles: FloatArray, inputs: FloatArray, num_threads: int) -> FloatArray:
        if not self._is_grid(inputs):
            factors = [self._along(j, particles, inputs[:, j])[0] for j in range(self.n_features)]
            joined: FloatArray = functools.reduce(np.multiply, factors)
            return joined[..., np.newaxis]
        factors = [self._along(j, particles, x.astype(particles.dtype))[0] for j, x in enumerate(self.axes)]
        product = factors[0] if len(factors) == 1 else factors[0][:, np.newaxis] * factors[1]
        return product.reshape(len(inputs), len(particles), 1)

    def _along(self, j: int, particles: FloatArray, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Response and derivative along an axis, shape (len(x), N)."""
        value, slope = self.point_spreads[j](x[:, np.newaxis] - particles[:, j])
        return value.astype(particles.dtype), slope.astype(particles.dtype)

    @staticmethod
    def _joined(
        columns: list[tuple[FloatArray, FloatArray]], total: Callable[[list[FloatArray]], FloatArray]
    ) -> tuple[FloatArray, FloatArray]:
        values = [own for own, _ in columns]
        slopes = []
        for j, (_, slope) in enumerate(columns):
            slopes.append(total([slope if i == j else own for i, own in enumerate(values)]))
        return total(values), -np.stack(slopes, axis=1)

    def _is_grid(self, inputs: FloatArray) -> bool:
        return inputs.shape == self.grid.shape and np.array_equal(inputs, self.grid.astype(inputs.dtype))


def default_axes(point_spread: PointSpread | Sequence[PointSpread], shape: Sequence[int]) -> list[FloatArray]:
    """Axes of a signal that has none: 0, 1, 2, ..., or a period in equal parts."""
    return [
        np.arange(n, dtype=np.float64) * (1.0 if own.period is None else own.period / n)
        for n, own in zip(shape, _of_each_axis(point_spread, len(shape)), strict=True)
    ]


def _of_each_axis(point_spread: PointSpread | Sequence[PointSpread], n_axes: int) -> tuple[PointSpread, ...]:
    expected = "a PointSpread, like Gaussian(0.1), or one for each axis"
    if isinstance(point_spread, PointSpread):
        return (point_spread,) * n_axes
    if not isinstance(point_spread, Sequence) or isinstance(point_spread, str):
        raise TypeError(f"point_spread must be {expected}, got {validation.show(point_spread)}")
    each = tuple(point_spread)
    for own in each:
        validation.instance("point_spread", own, PointSpread, expected)
    if len(each) != n_axes:
        raise ValueError(f"point_spread must be one, or one for each of {n_axes} axes, got {len(each)}")
    return each


def _axis(name: str, values: ArrayLike) -> NDArray[np.float64]:
    x = validation.array(name, values, np.float64)
    validation.shape(name, x, ("n",))
    if len(x) < 2 or not (np.diff(x) > 0).all():
        raise ValueError(f"{name} must be at least two increasing numbers, got {validation.show(values)}")
    return np.asarray(validation.frozen(x), np.float64)


def _block(name: str, point_spread: PointSpread, x: NDArray[np.float64]) -> Block:
    if point_spread.period is None:
        return Box([float(x[0])], [float(x[-1])])  # type: ignore[arg-type]
    if not (x[0] >= 0 and x[-1] < point_spread.period):
        raise ValueError(f"{name} must lie in [0, {point_spread.period:g}), the period, got {x[0]:g} to {x[-1]:g}")
    return Torus(1, period=point_spread.period)


def _length(name: str, value: float) -> float:
    """A length whose square, and that of its inverse, are in the range of double precision."""
    length = validation.real(name, value, positive=True)
    if not 1e-100 < length < 1e100:
        raise ValueError(f"{name} must be between 1e-100 and 1e+100, got {length:g}")
    return length


def _reals(x: ArrayLike) -> FloatArray:
    given = np.asarray(x)
    return given if given.dtype.kind == "f" else given.astype(np.float64)


def _check_response(point_spread: PointSpread, reach: float) -> None:
    """Refuse a response whose values at differences up to reach contradict its derivative or its bounds."""
    named = f"of point_spread {point_spread!r}"
    largest, steepest, most_curved = (
        validation.real(f"{name} {named}", getattr(point_spread, name, None), positive=True)
        for name in ("largest", "steepest", "most_curved")
    )
    width = math.sqrt(largest / most_curved)
    x = np.concatenate([np.linspace(-reach, reach, _PROBES), np.linspace(-5 * width, 5 * width, _PROBES)])
    after = x + 1e-3 * width
    (value, slope), (following, _) = (_response(point_spread, at, named) for at in (x, after))
    # By Taylor's theorem, up to the rounding of a difference.
    remainder = most_curved * (after - x) / 2 + 1e-9 * largest / width
    for name, found, bound in (
        ("largest", value, largest),
        ("steepest", slope, steepest),
        ("most_curved, or the derivative,", (following - value) / (after - x) - slope, remainder),
    ):
        beyond = ~(np.abs(found) <= bound * (1 + 1e-9))
        if beyond.any():
            raise ValueError(f"{name} {named} must suit its response, which it does not at {x[beyond][0]:.6g}")


def _response(point_spread: PointSpread, x: FloatArray, named: str) -> list[FloatArray]:
    both = point_spread(x)
    if not isinstance(both, tuple) or len(both) != 2:
        raise TypeError(f"the value {named} must be a pair, response and derivative, got {type(both).__name__}")
    return [
        validation.returned(f"the {what} {named}", own, x.shape, np.float64, "as the differences")
        for what, own in zip(("response", "derivative"), both, strict=True)
    ]
