"""Modes of a covariance on a grid, and the eigenpairs that they come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mfld import linear, validation
from mfld.validation import FloatArray

Functions = Callable[[FloatArray], FloatArray]
"""From points, shape (P,), to the values of n functions there, shape (P, n)."""


@dataclass(frozen=True, eq=False)
class Modes:
    """The leading modes of a covariance: ``Sigma phi_j = s_j phi_j`` for j = 1, ..., K.

    Attributes
    ----------
    variances : ndarray, shape (K,)
        s_j, positive and in falling order.
    projection : ndarray, shape (T, K)
        From values on the grid to coordinates: ``<phi_j, x> = sum_t x_t projection_tj``.
    functions : callable or None
        From points, shape (P,), to phi_j there, shape (P, K); None where inputs are no functions.
    discarded : float
        Trace of the covariance beyond these modes, ``sum_{j > K} s_j``: the variance that weights have no more.

    Raises
    ------
    TypeError, ValueError
        If variances are not positive, the projection does not suit them, or a number is not finite.
    """

    variances: FloatArray
    projection: FloatArray
    functions: Functions | None
    discarded: float

    def __post_init__(self) -> None:
        variances = validation.array("variances", self.variances, np.float64)
        validation.shape("variances", variances, ("K",))
        if not (variances > 0).all():
            place = int(np.argmin(variances > 0))
            raise ValueError(f"variances must be positive, got {variances[place]} at index {place}")
        projection = validation.array("projection", self.projection, np.float64)
        validation.shape("projection", projection, ("T", len(variances)), "(points of the grid, modes)")
        object.__setattr__(self, "variances", validation.frozen(variances))
        object.__setattr__(self, "projection", validation.frozen(projection))
        validation.real("discarded", self.discarded, non_negative=True)

    def __len__(self) -> int:
        return len(self.variances)

    def __repr__(self) -> str:
        return f"Modes({len(self)}, trace {self.variances.sum():.4g}, discarded {self.discarded:.4g})"


def eigenpairs(name: str, matrix: FloatArray, n: int, roots: FloatArray | float = 1.0) -> tuple[FloatArray, FloatArray]:
    """The n largest eigenvalues of ``roots_s C_st roots_t`` that are above rounding, and eigenvectors in columns.

    They fall, and the sign of each vector is fixed.

    Raises
    ------
    ValueError
        If the matrix C is not symmetric, or has negative eigenvalues beyond rounding.
    """
    gap = np.abs(matrix - matrix.T)
    if gap.max() > 1e-8 * np.abs(matrix).max():
        place = tuple(int(i) for i in np.unravel_index(np.argmax(gap), gap.shape))
        raise ValueError(
            f"{name} must be symmetric, got {matrix[place]:g} at {place} and {matrix[place[::-1]]:g} at {place[::-1]}"
        )
    roots = np.broadcast_to(roots, len(matrix))
    weighted = roots[:, np.newaxis] * (matrix + matrix.T) / 2 * roots
    values, vectors, lowest = linear.eigenpairs(weighted, min(n, len(matrix)))
    if lowest < -1e-8 * max(values[0], 0.0):
        raise ValueError(f"{name} must be positive, got a matrix with eigenvalues from {lowest:.3g} to {values[0]:.3g}")
    above = values > len(matrix) * np.finfo(np.float64).eps * max(values[0], 0.0)
    values, vectors = values[above], vectors[:, above]
    return values, turned(vectors)


def turned(vectors: FloatArray) -> FloatArray:
    """Vectors in columns, each of the sign that makes its largest entry positive, the first of those as large."""
    size = np.abs(vectors)
    # Within a thousandth: rounding must not turn a function.
    first = np.argmax(size >= 0.999 * size.max(axis=0), axis=0)
    return vectors * np.where(vectors[first, np.arange(vectors.shape[1])] < 0, -1.0, 1.0)
