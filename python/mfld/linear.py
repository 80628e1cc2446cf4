"""Cholesky factors and the systems that they solve, in sums whose order is fixed.

LAPACK would do, and be faster, were it not that its bits depend on the number of threads of BLAS, and with them what is
computed from a solution: a trajectory, say.
"""

from __future__ import annotations

import numpy as np

from mfld.validation import FloatArray


def cholesky(matrix: FloatArray) -> FloatArray:
    """Lower triangular L with ``L L' = matrix``, of which the lower triangle is read.

    Parameters
    ----------
    matrix : ndarray, shape (p, p)

    Raises
    ------
    ValueError
        If it is not positive definite.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import linear
    >>> linear.cholesky(np.array([[4.0, 2.0], [2.0, 5.0]]))
    array([[2., 0.],
           [1., 2.]])
    """
    factor = np.array(matrix)
    for j in range(len(factor)):
        if not factor[j, j] > 0:
            raise ValueError(f"matrix must be positive definite, got {matrix.tolist()}")
        factor[j:, j] /= np.sqrt(factor[j, j])
        column = factor[j + 1 :, j]
        factor[j + 1 :, j + 1 :] -= np.multiply.outer(column, column)
    return np.tril(factor)


def forwards(factor: FloatArray, right: FloatArray) -> FloatArray:
    """Solution x of ``L x = right``, for a vector or the columns of a matrix."""
    solution = right.copy()
    for j in range(len(factor)):
        solution[j] /= factor[j, j]
        solution[j + 1 :] -= np.multiply.outer(factor[j + 1 :, j], solution[j])
    return solution


def backwards(factor: FloatArray, right: FloatArray) -> FloatArray:
    """Solution x of ``L' x = right``, for a vector or the columns of a matrix."""
    solution = right.copy()
    for j in reversed(range(len(factor))):
        solution[j] /= factor[j, j]
        solution[:j] -= np.multiply.outer(factor[j, :j], solution[j])
    return solution


def solve(factor: FloatArray, right: FloatArray) -> FloatArray:
    """Solution x of ``L L' x = right``, for a vector or the columns of a matrix."""
    return backwards(factor, forwards(factor, right))


def inverse(factor: FloatArray) -> FloatArray:
    """The matrix ``(L L')^-1``."""
    return solve(factor, np.eye(len(factor)))
