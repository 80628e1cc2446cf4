"""Modes of a covariance on a grid, and the eigenpairs that they come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mfld.validation import FloatArray

Functions = Callable[[FloatArray], FloatArray]
"""From points, shape (P,), to the values of n functions there, shape (P, n)."""


@dataclass(frozen=True, eq=False)
class Modes:
    """The leading modes of a covariance: ``Sigma phi_j = s_j phi_j`` for j = 1, ..., K.

    Attributes
    ----------
    variances : ndarray, shape (K,)
        s_j, in falling order.
    projection : ndarray, shape (T, K)
        From values on the grid to coordinates: ``<phi_j, x> = sum_t x_t projection_tj``.
    functions : callable or None
        From points, shape (P,), to phi_j there, shape (P, K); None where inputs are no functions.
    discarded : float
        Trace of the covariance beyond these modes, ``sum_{j > K} s_j``: the variance that weights have no more.
    """

    variances: FloatArray
    projection: FloatArray
    functions: Functions | None
    discarded: float

    def __len__(self) -> int:
        return len(self.variances)

    def __repr__(self) -> str:
        return f"Modes({len(self)}, trace {self.variances.sum():.4g}, discarded {self.discarded:.4g})"


def eigenpairs(name: str, matrix: FloatArray, roots: FloatArray | float = 1.0) -> tuple[FloatArray, FloatArray]:
    """Eigenvalues of ``roots_s C_st roots_t`` in falling order, and eigenvectors in columns, of a sign that is fixed.

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
    values, vectors = np.linalg.eigh(roots[:, np.newaxis] * (matrix + matrix.T) / 2 * roots)
    values, vectors = values[::-1], vectors[:, ::-1]
    if values[-1] < -1e-8 * max(values[0], 0.0):
        raise ValueError(
            f"{name} must be positive, got a matrix with eigenvalues from {values[-1]:.3g} to {values[0]:.3g}"
        )
    # The entry that decides is the first one within a thousandth of the largest: rounding must not turn a function.
    size = np.abs(vectors)
    first = np.argmax(size >= 0.999 * size.max(axis=0), axis=0)
    signs = np.where(vectors[first, np.arange(len(values))] < 0, -1.0, 1.0)
    return values, vectors * signs


def rank(values: FloatArray) -> int:
    """Number of eigenvalues, in falling order, that are not made by rounding."""
    return int(np.sum(values > len(values) * np.finfo(np.float64).eps * max(values[0], 0.0)))
