"""Payoffs of two players: functions Q(x, y) of a point of each, whose averages over measures are what games are about.

The average over the second player's measure, ``E_nu Q(x, .)``, and over the first one's, ``E_mu Q(., y)``, with their
gradients, are all that a game takes of a payoff. `Function` and `OfKernel` sum over all pairs; a `Polynomial` and a
`Trigonometric` payoff is a sum of products of a function of x and one of y, and costs the number of these functions a
particle.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import autodiff, validation
from mfld.kernels import Kernel
from mfld.space import Space
from mfld.state import Cloud
from mfld.validation import FloatArray

__all__ = ["Function", "OfKernel", "Opposite", "Payoff", "Polynomial", "Trigonometric"]

_BLOCK = 1 << 20  # numbers of an array of pairs


class Payoff(ABC):
    """Function Q(x, y) of a point of each of two players.

    Attributes
    ----------
    n_coordinates : tuple of int, or None
        Lengths of x and of y; None: any.
    n_moments : int
        Number of `moments` of a measure, the averages of functions that averages of the payoff are combinations of; 0:
        there are none.

    Examples
    --------
    ``x . y``, whose averages need the means alone:

    >>> import numpy as np
    >>> import mfld
    >>> class Inner(mfld.payoffs.Payoff):
    ...     def average(self, points, measure, player, num_threads=None):
    ...         mean = np.average(measure.particles, axis=0, weights=measure.weights)
    ...         return points @ mean, np.tile(mean, (len(points), 1))
    >>> Inner().average(np.array([[2.0]]), mfld.Cloud([[1.0], [3.0]]), player=0)
    (array([4.]), array([[2.]]))
    """

    n_coordinates: tuple[int, int] | None = None
    n_moments: int = 0

    @abstractmethod
    def average(
        self, points: FloatArray, measure: Cloud, player: int, num_threads: int | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Averages over the measure of the other player, and their gradients in the points of this one.

        Parameters
        ----------
        points : ndarray, shape (n, p)
            Of the player 0, ``E_measure Q(points, .)``, or 1, ``E_measure Q(., points)``.
        measure : Cloud
            Of the other player, in float32 or float64, weighted or not.
        player : {0, 1}
        num_threads : int, optional

        Returns
        -------
        ndarray, shape (n,); ndarray, shape (n, p)
        """

    def moments(self, measure: Cloud, player: int) -> FloatArray:
        """Averages over the measure of a player of the functions that averages of the payoff are combinations of.

        Returns
        -------
        ndarray, shape (n_moments,), float64
        """
        raise TypeError(f"payoff must have moments, like Polynomial and Trigonometric, got {self!r}")

    def average_by_moments(self, points: FloatArray, moments: FloatArray, player: int) -> tuple[FloatArray, FloatArray]:
        """As `average`, over a measure of the other player that is given by its moments."""
        raise TypeError(f"payoff must have moments, like Polynomial and Trigonometric, got {self!r}")

    def check(self, *spaces: Space) -> None:
        """Raise ValueError if the payoff does not suit the spaces of x and y: on a torus it must have the period."""
        if self.n_coordinates is not None:
            for name, space, n in zip("xy", spaces, self.n_coordinates, strict=True):
                if space.n_coordinates != n:
                    raise ValueError(f"space of {name} must have {n} coordinates, got {space.n_coordinates}")
        points = [0.3 + 0.1 * np.arange(space.n_coordinates, dtype=np.float64)[np.newaxis] for space in spaces]
        for player, space in enumerate(spaces):
            other = Cloud(points[1 - player])
            for block, part in space.parts():
                if block.kind != "torus" or block.limits is None:
                    continue
                turned = points[player].copy()
                turned[:, part] += block.limits[1] - block.limits[0]
                (before,), (after,) = (self.average(x, other, player)[0] for x in (points[player], turned))
                if abs(after - before) > 1e-6 * max(1.0, abs(before)):
                    raise ValueError(f"payoff must have the periods of {block}, got {self!r}")


@dataclass(frozen=True)
class Opposite(Payoff):
    """Payoff of the other player of a zero-sum game: ``(y, x) -> -Q(x, y)``.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> product = mfld.payoffs.Polynomial({(1, 1): 1.0})
    >>> mfld.payoffs.Opposite(product).average(np.array([[2.0]]), mfld.Cloud([[3.0]]), player=0)[0]
    array([-6.])
    """

    payoff: Payoff

    def __post_init__(self) -> None:
        validation.instance("payoff", self.payoff, Payoff, "a Payoff")

    @property
    def n_coordinates(self) -> tuple[int, int] | None:  # type: ignore[override]
        own = self.payoff.n_coordinates
        return None if own is None else own[::-1]

    @property
    def n_moments(self) -> int:  # type: ignore[override]
        return self.payoff.n_moments

    def average(
        self, points: FloatArray, measure: Cloud, player: int, num_threads: int | None = None
    ) -> tuple[FloatArray, FloatArray]:
        values, gradient = self.payoff.average(points, measure, 1 - player, num_threads)
        return -values, -gradient

    def moments(self, measure: Cloud, player: int) -> FloatArray:
        return self.payoff.moments(measure, 1 - player)

    def average_by_moments(self, points: FloatArray, moments: FloatArray, player: int) -> tuple[FloatArray, FloatArray]:
        values, gradient = self.payoff.average_by_moments(points, moments, 1 - player)
        return -values, -gradient


@dataclass(frozen=True)
class Function(Payoff):
    """Payoff from NumPy functions of pairs, which are summed over all of them.

    Parameters
    ----------
    value : callable
        ``value(x, y)``: points of shapes (..., p) and (..., q) that broadcast -> (...).
    gradient_x, gradient_y : callable
        Gradients in x, shape (..., p), and in y, shape (..., q), of the same arguments.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> product = mfld.payoffs.Function(
    ...     lambda x, y: (x * y).sum(axis=-1), lambda x, y: y + 0 * x, lambda x, y: x + 0 * y
    ... )
    >>> product.average(np.array([[2.0]]), mfld.Cloud([[1.0], [3.0]]), player=1)
    (array([4.]), array([[2.]]))
    """

    value: Callable[[FloatArray, FloatArray], ArrayLike]
    gradient_x: Callable[[FloatArray, FloatArray], ArrayLike]
    gradient_y: Callable[[FloatArray, FloatArray], ArrayLike]

    def __post_init__(self) -> None:
        for name in ("value", "gradient_x", "gradient_y"):
            validation.function(name, getattr(self, name))

    @classmethod
    def from_jax(cls, value: Callable[[Any, Any], Any]) -> Payoff:
        """Payoff from a function of pairs in JAX, which sees to the gradients.

        Parameters
        ----------
        value : callable
            ``value(x, y)``: JAX arrays of shapes (..., p) and (..., q) that broadcast -> (...). It is compiled once for
            each shape and precision, and traced with 64-bit types where points are in float64.

        Raises
        ------
        ImportError
            If JAX is not installed.

        Examples
        --------
        >>> import numpy as np
        >>> import mfld
        >>> try:
        ...     import jax
        ... except ImportError:
        ...     pass
        ... else:
        ...     product = mfld.payoffs.Function.from_jax(lambda x, y: (x * y).sum(axis=-1))
        ...     values, gradient = product.average(np.array([[2.0]]), mfld.Cloud([[1.0], [3.0]]), player=1)
        ...     assert (values.item(), gradient.item()) == (4.0, 2.0)
        """
        validation.function("value", value)
        return _Differentiated(value, autodiff.Jax)

    @classmethod
    def from_torch(cls, value: Callable[[Any, Any], Any]) -> Payoff:
        """Payoff from a function of pairs in torch, which sees to the gradients.

        Parameters
        ----------
        value : callable
            As in `from_jax`, of torch tensors on the CPU in the precision of the run.

        Raises
        ------
        ImportError
            If torch is not installed.

        Examples
        --------
        >>> import numpy as np
        >>> import mfld
        >>> try:
        ...     import torch
        ... except ImportError:
        ...     pass
        ... else:
        ...     product = mfld.payoffs.Function.from_torch(lambda x, y: (x * y).sum(dim=-1))
        ...     values, gradient = product.average(np.array([[2.0]]), mfld.Cloud([[1.0], [3.0]]), player=1)
        ...     assert (values.item(), gradient.item()) == (4.0, 2.0)
        """
        validation.function("value", value)
        return _Differentiated(value, autodiff.Torch)

    def __repr__(self) -> str:
        return f"Function({getattr(self.value, '__name__', type(self.value).__name__)})"

    def average(
        self, points: FloatArray, measure: Cloud, player: int, num_threads: int | None = None
    ) -> tuple[FloatArray, FloatArray]:
        others, weights = _others(measure, points)
        others, n = others[np.newaxis], len(others)
        gradient_of = self.gradient_y if player else self.gradient_x
        name = "gradient_y" if player else "gradient_x"
        values, gradient = np.empty(len(points), points.dtype), np.empty_like(points)
        height = max(1, _BLOCK // (n * max(points.shape[1], others.shape[2])))
        for start in range(0, len(points), height):
            rows = slice(start, start + height)
            here = points[rows, np.newaxis]
            pair = (others, here) if player else (here, others)
            shape = (len(here), n)
            pay = validation.returned("the result of value", self.value(*pair), shape, points.dtype, "to match pairs")
            slopes = validation.returned(
                f"the result of {name}", gradient_of(*pair), (*shape, points.shape[1]), points.dtype, "to match pairs"
            )
            values[rows] = pay @ weights
            gradient[rows] = np.einsum("ijc,j->ic", slopes, weights)
        return values, gradient


class _Differentiated(Payoff):
    """Payoff from a function of pairs whose gradients a library finds."""

    def __init__(
        self,
        value: Callable[[Any, Any], Any],
        library: Callable[[Callable[..., Any], autodiff.Check, str], autodiff.Differentiable],
    ) -> None:
        def vector(shape: tuple[int, ...]) -> None:
            assert len(shape) == 1

        def paid(here: Any, others: Any, weights: Any, *, player: int) -> Any:
            mine, theirs = here[:, None], others[None]
            pay = value(theirs, mine) if player else value(mine, theirs)
            if tuple(getattr(pay, "shape", ())) != (len(here), len(others)):
                shape = getattr(pay, "shape", ())
                expected = (len(here), len(others))
                raise ValueError(f"the result of value must have shape {expected} to match pairs, got {tuple(shape)}")
            return pay @ weights

        self._value = value
        self._paid = tuple(
            library(functools.partial(paid, player=player), vector, "payoffs.Function") for player in (0, 1)
        )

    def __repr__(self) -> str:
        return f"Function({getattr(self._value, '__name__', type(self._value).__name__)})"

    def average(
        self, points: FloatArray, measure: Cloud, player: int, num_threads: int | None = None
    ) -> tuple[FloatArray, FloatArray]:
        others, weights = _others(measure, points)
        values, gradient = np.empty(len(points), points.dtype), np.empty_like(points)
        height = max(1, _BLOCK // (len(others) * max(points.shape[1], others.shape[1])))
        for start in range(0, len(points), height):
            rows = slice(start, start + height)
            pay, slopes = self._paid[player].value_and_gradient(points[rows], others, weights)
            values[rows], gradient[rows] = pay, slopes
        return values, gradient


def _others(measure: Cloud, points: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Particles of a measure and their weights, in the precision of points."""
    others: FloatArray = measure.particles.astype(points.dtype, copy=False)
    if measure.weights is None:
        return others, np.full(len(others), 1 / len(others), points.dtype)
    return others, measure.weights.astype(points.dtype)


@dataclass(frozen=True)
class OfKernel(Payoff):
    """Multiple of a kernel, ``factor * k(x, y)``, summed where the kernel is: in the compiled core.

    Parameters
    ----------
    kernel : Kernel
        See `mfld.kernels`.
    factor : float
        Of either sign.

    Examples
    --------
    The first player hides from the second one:

    >>> import numpy as np
    >>> import mfld
    >>> chase = mfld.payoffs.OfKernel(mfld.kernels.Gaussian(1.0))
    >>> chase.average(np.array([[0.0]]), mfld.Cloud([[0.0], [1.0]]), player=0)[0].round(3)
    array([0.803])
    """

    kernel: Kernel
    factor: float = 1.0

    def __post_init__(self) -> None:
        validation.instance("kernel", self.kernel, Kernel, "a Kernel, like mfld.kernels.Gaussian(1.0)")
        object.__setattr__(self, "factor", validation.real("factor", self.factor))

    def check(self, *spaces: Space) -> None:
        x, y = (space.n_coordinates for space in spaces)
        if x != y:
            raise ValueError(f"space of y must have the {x} coordinates of x, to meet in a kernel, got {y}")
        super().check(*spaces)

    def average(
        self, points: FloatArray, measure: Cloud, player: int, num_threads: int | None = None
    ) -> tuple[FloatArray, FloatArray]:
        factor = points.dtype.type(self.factor)
        values, gradient = self.kernel.values_and_gradients(points, measure.particles, measure.weights, num_threads)
        return factor * values, factor * gradient


class _Products(Payoff):
    """Sum of products ``Re(c_k f_k(x) g_k(y))``: the terms have an integer for each coordinate of x and then of y."""

    n_coordinates: tuple[int, int]

    def __init__(self, terms: Mapping[tuple[int, ...], complex], n_coordinates: tuple[int, int]) -> None:
        validation.instance("terms", terms, Mapping, "a mapping of tuples of integers to coefficients")
        validation.instance("n_coordinates", n_coordinates, tuple, "a tuple of two integers")
        if len(n_coordinates) != 2:
            raise ValueError(f"n_coordinates must be two integers, of x and of y, got {n_coordinates}")
        p, q = (validation.integer("n_coordinates", n, 1) for n in n_coordinates)
        for term in terms:
            if not isinstance(term, tuple) or len(term) != p + q:
                raise ValueError(f"terms must have tuples of {p + q} integers, of x and y, got {term!r}")
        if not terms:
            raise ValueError("terms must hold at least one term, got none")
        numbers = np.array([[validation.integer("terms", k, self._smallest) for k in term] for term in terms])
        self.n_coordinates = (p, q)
        self.terms = dict(terms)
        # Of each player the functions that occur, each once, and which of them is in each term.
        x, of_x = np.unique(numbers[:, :p], axis=0, return_inverse=True)
        y, of_y = np.unique(numbers[:, p:], axis=0, return_inverse=True)
        self._numbers, self._of_terms = (x, y), (of_x.ravel(), of_y.ravel())
        self._coefficients = self._checked(list(terms.values()))
        self.n_moments = self._coefficients.view(np.float64).size  # of complex terms real and imaginary parts

    _smallest: int

    def _checked(self, coefficients: list[complex]) -> NDArray[np.complex128] | FloatArray:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.terms})"

    def features(self, points: FloatArray, numbers: NDArray[np.int64]) -> NDArray[np.inexact]:
        """Functions of points, shape (n, K)."""
        raise NotImplementedError

    def combination(
        self, points: FloatArray, numbers: NDArray[np.int64], coefficients: NDArray[np.inexact]
    ) -> tuple[FloatArray, FloatArray]:
        """Sum of the functions with these coefficients, shape (n,), and its gradients, shape (n, p)."""
        raise NotImplementedError

    def average(
        self, points: FloatArray, measure: Cloud, player: int, num_threads: int | None = None
    ) -> tuple[FloatArray, FloatArray]:
        return self.average_by_moments(points, self.moments(measure, 1 - player), player)

    def moments(self, measure: Cloud, player: int) -> FloatArray:
        functions = self.features(measure.particles.astype(np.float64), self._numbers[player])
        means = np.average(functions, axis=0, weights=measure.weights)
        return means[self._of_terms[player]].view(np.float64)

    def average_by_moments(self, points: FloatArray, moments: FloatArray, player: int) -> tuple[FloatArray, FloatArray]:
        numbers = self._numbers[player]
        coefficients = np.zeros(len(numbers), self._coefficients.dtype)
        np.add.at(coefficients, self._of_terms[player], self._coefficients * moments.view(coefficients.dtype))
        values, gradient = self.combination(points.astype(np.float64), numbers, coefficients)
        with np.errstate(over="ignore"):  # what overflows is found by the move
            return values.astype(points.dtype), gradient.astype(points.dtype)


class Polynomial(_Products):
    """Polynomial payoff, ``sum_k c_k prod_j x_j**a_kj prod_j y_j**b_kj``.

    Parameters
    ----------
    terms : mapping of tuples of int to float
        Exponents of the coordinates of x and then of y -> coefficient.
    n_coordinates : tuple of int
        Lengths of x and of y.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    ``x**2 / 2 + 3 x y - y**2 / 2``:

    >>> import numpy as np
    >>> import mfld
    >>> saddle = mfld.payoffs.Polynomial({(2, 0): 0.5, (1, 1): 3.0, (0, 2): -0.5})
    >>> saddle.average(np.array([[2.0]]), mfld.Cloud([[1.0]]), player=0)
    (array([7.5]), array([[5.]]))
    """

    _smallest = 0

    def __init__(self, terms: Mapping[tuple[int, ...], float], n_coordinates: tuple[int, int] = (1, 1)) -> None:
        super().__init__(terms, n_coordinates)

    def _checked(self, coefficients: list[complex]) -> FloatArray:
        return np.array([validation.real("terms", c) for c in coefficients])

    def features(self, points: FloatArray, numbers: NDArray[np.int64]) -> FloatArray:
        values = np.ones((len(points), len(numbers)))
        for c in range(points.shape[1]):
            values *= self._powers(points[:, c], numbers[:, c])
        return values

    def combination(
        self, points: FloatArray, numbers: NDArray[np.int64], coefficients: NDArray[np.inexact]
    ) -> tuple[FloatArray, FloatArray]:
        gradient = np.empty(points.shape)
        for c in range(points.shape[1]):
            lower = numbers.copy()
            lower[:, c] = np.maximum(lower[:, c] - 1, 0)
            gradient[:, c] = self.features(points, lower) @ (numbers[:, c] * coefficients)
        return np.asarray(self.features(points, numbers) @ coefficients), gradient

    @staticmethod
    def _powers(x: FloatArray, exponents: NDArray[np.int64]) -> FloatArray:
        powers = np.vander(x, int(exponents.max()) + 1, increasing=True)
        return powers[:, exponents]


class Trigonometric(_Products):
    """Trigonometric payoff on tori, ``sum_k Re(c_k exp(2 pi i (a_k . x + b_k . y) / period))``.

    Parameters
    ----------
    terms : mapping of tuples of int to complex
        Frequencies of the coordinates of x and then of y -> coefficient: c real is a cosine, -1j a sine.
    n_coordinates : tuple of int
        Lengths of x and of y.
    period : float
        Of all coordinates.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    ``cos 2 pi (x - y)``:

    >>> import numpy as np
    >>> import mfld
    >>> match = mfld.payoffs.Trigonometric({(1, -1): 1.0})
    >>> match.average(np.array([[0.25], [0.5]]), mfld.Cloud([[0.25]]), player=0)[0].round(12)
    array([1., 0.])
    """

    _smallest = -(2**31)

    def __init__(
        self, terms: Mapping[tuple[int, ...], complex], n_coordinates: tuple[int, int] = (1, 1), period: float = 1.0
    ) -> None:
        super().__init__(terms, n_coordinates)
        self.period = validation.real("period", period, positive=True)

    def _checked(self, coefficients: list[complex]) -> NDArray[np.complex128]:
        parts = [
            c if isinstance(c, (complex, np.complexfloating)) else validation.real("terms", c) for c in coefficients
        ]
        checked = np.array(parts, np.complex128)
        if not np.isfinite(checked).all():
            raise ValueError(f"terms must have finite coefficients, got {coefficients}")
        return checked

    def features(self, points: FloatArray, numbers: NDArray[np.int64]) -> NDArray[np.complex128]:
        return np.asarray(np.exp(2j * np.pi / self.period * (points @ numbers.T)))

    def combination(
        self, points: FloatArray, numbers: NDArray[np.int64], coefficients: NDArray[np.inexact]
    ) -> tuple[FloatArray, FloatArray]:
        waves = self.features(points, numbers) * coefficients
        return np.real(waves.sum(axis=1)), np.real((2j * np.pi / self.period) * (waves @ numbers))
