"""Sums over pairs in NumPy, a block of points at a time, and the records that sums come in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from mfld.validation import FloatArray

_BLOCK = 1 << 20  # numbers of an array of pairs


class SteinTerms(NamedTuple):
    """Parts of the Stein kernel ``u = s_x.s_y value + rest``, with their gradients in x at fixed vectors."""

    value: FloatArray
    gradient: FloatArray
    rest: FloatArray
    rest_gradient: FloatArray | None


class SteinSums(NamedTuple):
    """Sums of the Stein kernel: values (N,); their gradient in x at fixed vectors, and the field, (N, p) or None.

    Where the vector s(x) has the Jacobian J(x), the whole gradient is ``gradient + J' field``.
    """

    values: FloatArray
    gradient: FloatArray | None
    field: FloatArray | None


class Statistics(NamedTuple):
    """Squared discrepancy: with the pairs of a point with itself (V), and without them (U).

    V is the value at the measure that the points are, never negative for a positive definite kernel. U has no bias for
    the measure that independent points are drawn from, and may be negative; NaN for a single point.
    """

    v: float
    u: float


class Pairs(Protocol):
    """Functions of a kernel that sums are made of: of points that broadcast."""

    def value(self, x: FloatArray, y: FloatArray) -> FloatArray: ...

    def gradient(self, x: FloatArray, y: FloatArray) -> FloatArray: ...

    def stein_terms(self, x: FloatArray, y: FloatArray, x_vectors: FloatArray, y_vectors: FloatArray) -> SteinTerms: ...


# Sums by einsum and not by a product of BLAS, whose bits depend on threads and on the number of rows.


def sums(
    kernel: Pairs, x: FloatArray, y: FloatArray, w: FloatArray | None, with_gradient: bool
) -> tuple[FloatArray, FloatArray | None]:
    """``sum_j w_j k(x_i, y_j)`` and its gradient in x_i, if asked for."""
    weights = _each(w, y)
    values, gradient = np.empty(len(x), x.dtype), np.empty_like(x) if with_gradient else None
    for rows in _blocks(x, y):
        here = x[rows, np.newaxis]
        values[rows] = np.einsum("ij,j->i", kernel.value(here, y), weights)
        if gradient is not None:
            gradient[rows] = np.einsum("ijc,j->ic", kernel.gradient(here, y), weights)
    return values, gradient


def field(
    kernel: Pairs, x: FloatArray, y: FloatArray, s: FloatArray, w: FloatArray | None, repulsion: float
) -> FloatArray:
    """``sum_j w_j (k(x_i, y_j) s_j + repulsion grad_y k(x_i, y_j))``."""
    weights = _each(w, y)
    found = np.empty_like(x)
    for rows in _blocks(x, y):
        here = x[rows, np.newaxis]
        found[rows] = np.einsum("ij,jc->ic", kernel.value(here, y), weights[:, np.newaxis] * s)
        if repulsion != 0:  # the gradient in y, by symmetry
            found[rows] += repulsion * np.einsum("ijc,j->ic", kernel.gradient(y, here), weights)
    return found


def stein(
    kernel: Pairs,
    x: FloatArray,
    s: FloatArray,
    y: FloatArray,
    t: FloatArray,
    w: FloatArray | None,
    with_gradient: bool,
) -> SteinSums:
    """``sum_j w_j u(x_i, y_j)``; its gradient at fixed vectors, and the field, if asked for."""
    weights = _each(w, y)
    values = np.empty(len(x), x.dtype)
    gradient = np.empty_like(x) if with_gradient else None
    for rows in _blocks(x, y):
        terms = kernel.stein_terms(x[rows, np.newaxis], y, s[rows, np.newaxis], t)
        inner = np.einsum("ic,jc->ij", s[rows], t)
        values[rows] = np.einsum("ij,j->i", inner * terms.value + terms.rest, weights)
        if gradient is not None:
            assert terms.rest_gradient is not None  # by Kernel.check_derivatives
            slope = inner[..., np.newaxis] * terms.gradient + terms.rest_gradient
            gradient[rows] = np.einsum("ijc,j->ic", slope, weights)
    return SteinSums(values, gradient, field(kernel, x, y, t, w, 1.0) if with_gradient else None)


def statistics(sums: FloatArray, diagonal: FloatArray, weights: ArrayLike | None) -> Statistics:
    """Means over all pairs of points, and over those of two different ones, from weighted sums over all."""
    n = len(sums)
    w = np.full(n, 1 / n) if weights is None else np.asarray(weights, np.float64)
    total, left = float(np.sum(w * sums)), float(1 - np.sum(w**2))
    return Statistics(total, (total - float(np.sum(w**2 * diagonal))) / left if left > 0 else float("nan"))


def _each(w: FloatArray | None, y: FloatArray) -> FloatArray:
    return np.full(len(y), 1 / len(y), y.dtype) if w is None else w


def _blocks(x: FloatArray, y: FloatArray) -> Iterator[slice]:
    """Slices of x whose pairs with all of y are an array of bounded size."""
    n_rows = max(1, _BLOCK // y.size)
    for start in range(0, len(x), n_rows):
        yield slice(start, start + n_rows)
