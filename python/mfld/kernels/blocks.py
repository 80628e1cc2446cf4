"""Products of kernels, each of a block of coordinates."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mfld import validation
from mfld.kernels.base import Kernel, Several, check_factors
from mfld.kernels.pairwise import SteinTerms
from mfld.native import final
from mfld.validation import FloatArray


@final
@dataclass(frozen=True, init=False)
class Product(Several):
    """Product of kernels, each of a block of coordinates: ``k(x, y) = prod_b k_b(x_b, y_b)``.

    Parameters
    ----------
    kernels : sequence of Kernel
    sizes : sequence of int
        Coordinates of each block, in their order.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or the sizes do not fit the kernels.

    Examples
    --------
    A plane and a circle:

    >>> from mfld import kernels
    >>> cylinder = kernels.Product([kernels.Gaussian(1.0), kernels.WrappedGaussian(0.2)], sizes=[2, 1])
    >>> cylinder.matrix([[0.0, 0.0, 0.0]], [[0.0, 1.0, 1.0]]).round(3)
    array([[0.607]])
    """

    sizes: tuple[int, ...]

    def __init__(self, kernels: Sequence[Kernel], sizes: Sequence[int]) -> None:
        validation.instance("kernels", kernels, Sequence, "a sequence of kernels")
        validation.instance("sizes", sizes, Sequence, "a sequence of integers, like [2, 1]")
        given = tuple(
            validation.instance(f"kernels[{b}]", kernel, Kernel, "a Kernel, like Gaussian(1.0)")
            for b, kernel in enumerate(kernels)
        )
        counts = tuple(validation.integer(f"sizes[{b}]", size, 1) for b, size in enumerate(sizes))
        if not given:
            raise ValueError("kernels must hold at least one, got none")
        if len(given) != len(counts):
            raise ValueError(f"sizes must have an entry for each of the {len(given)} kernels, got {counts}")
        for b, (kernel, count) in enumerate(zip(given, counts, strict=True)):
            if kernel.n_coordinates not in (None, count):
                raise ValueError(f"sizes[{b}] must be {kernel.n_coordinates} to match {kernel!r}, got {count}")
        check_factors(given)
        object.__setattr__(self, "kernels", given)
        object.__setattr__(self, "sizes", counts)

    @property
    def n_coordinates(self) -> int:  # type: ignore[override]
        return sum(self.sizes)

    def fitted(self, points: ArrayLike) -> Kernel:
        checked = self._points("points", points)
        return Product([kernel.fitted(checked[:, part]) for kernel, part in self._blocks()], self.sizes)

    def smoothed(self, variance: float, n_coordinates: int) -> Kernel:
        each = zip(self.kernels, self.sizes, strict=True)
        return Product([kernel.smoothed(variance, size) for kernel, size in each], self.sizes)

    def value(self, x: FloatArray, y: FloatArray) -> FloatArray:
        return np.asarray(
            functools.reduce(np.multiply, [kernel.value(x[..., part], y[..., part]) for kernel, part in self._blocks()])
        )

    def gradient(self, x: FloatArray, y: FloatArray) -> FloatArray:
        each = []
        for kernel, part in self._blocks():
            value = kernel.value(x[..., part], y[..., part])
            each.append(SteinTerms(value, kernel.gradient(x[..., part], y[..., part]), np.zeros_like(value), None))
        return over_blocks(each).gradient

    def stein_terms(self, x: FloatArray, y: FloatArray, x_vectors: FloatArray, y_vectors: FloatArray) -> SteinTerms:
        arrays = (x, y, x_vectors, y_vectors)
        return over_blocks([kernel.stein_terms(*(a[..., part] for a in arrays)) for kernel, part in self._blocks()])

    def _blocks(self) -> Iterator[tuple[Kernel, slice]]:
        start = 0
        for kernel, size in zip(self.kernels, self.sizes, strict=True):
            yield kernel, slice(start, start + size)
            start += size


def over_blocks(each: list[SteinTerms]) -> SteinTerms:
    """Terms of a product of kernels of different coordinates from those of its factors.

    Products of ``value + epsilon rest`` with ``epsilon**2 = 0`` hold the sums over all factors but one.
    """

    def products(terms: list[SteinTerms]) -> list[tuple[FloatArray, FloatArray]]:
        found = [(np.ones_like(each[0].value), np.zeros_like(each[0].value))]
        for term in terms:
            value, rest = found[-1]
            found.append((value * term.value, rest * term.value + value * term.rest))
        return found

    before, behind = products(each), products(each[::-1])[::-1]
    gradients, rest_gradients = [], []
    for b, term in enumerate(each):
        (left, left_rest), (right, right_rest) = before[b], behind[b + 1]
        others = (left * right)[..., np.newaxis]
        others_rest = (left * right_rest + left_rest * right)[..., np.newaxis]
        gradients.append(term.gradient * others)
        if term.rest_gradient is not None:
            rest_gradients.append(term.gradient * others_rest + term.rest_gradient * others)
    whole = np.concatenate(rest_gradients, axis=-1) if len(rest_gradients) == len(each) else None
    return SteinTerms(before[-1][0], np.concatenate(gradients, axis=-1), before[-1][1], whole)
