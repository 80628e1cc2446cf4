"""Modes of a covariance on a grid, and the eigenpairs that they come from."""

from __future__ import annotations

import warnings
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


def eigenpairs(matrix: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Eigenvalues of a symmetric matrix in falling order, and eigenvectors in columns, of a sign that is fixed."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    values, vectors = values[::-1], vectors[:, ::-1]
    # The entry that decides is the first one within a thousandth of the largest: rounding must not turn a function.
    size = np.abs(vectors)
    first = np.argmax(size >= 0.999 * size.max(axis=0), axis=0)
    signs = np.where(vectors[first, np.arange(len(values))] < 0, -1.0, 1.0)
    return values, vectors * signs


def supported(n_modes: int, n: int, of: str) -> int:
    """So many modes, or those that there are, with a warning."""
    if n_modes <= n:
        return n_modes
    warnings.warn(f"n_modes must be at most {n}, {of}, got {n_modes}: {n} are taken", UserWarning, stacklevel=2)
    return n
