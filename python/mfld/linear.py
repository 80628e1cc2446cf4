"""Cholesky factors and the systems that they solve, in sums whose order is fixed.

LAPACK would do, and be faster, were it not that its bits depend on the number of threads of BLAS, and with them what is
computed from a solution: a trajectory, say.
"""

from __future__ import annotations

import numpy as np

from mfld import _core
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


def ridge_solve(factor: FloatArray, ridge: float, right: FloatArray, num_threads: int = 1) -> FloatArray:
    """Solution X of ``(B B' + ridge I) X = right``, in the precision of the arrays.

    By the compiled core, in ``rows**2 (columns + rows / 3)`` multiply-adds over 2.

    Parameters
    ----------
    factor : ndarray, shape (rows, columns)
        The matrix B.
    ridge : float
    right : ndarray, shape (rows, k)
    num_threads : int
        It never changes the solution.

    Raises
    ------
    ValueError
        If the matrix is not positive definite to the precision of the arrays.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import linear
    >>> linear.ridge_solve(np.array([[1.0], [1.0]]), 1.0, np.array([[3.0], [0.0]]))
    array([[ 2.],
           [-1.]])
    """
    solution, bad_row = _core.backend.ridge_solve(factor, ridge, np.ascontiguousarray(right), num_threads)
    if bad_row >= 0:
        raise ValueError(
            f"ridge must make the matrix positive definite to the precision of {factor.dtype}, got {ridge:g}; "
            f"its pivot {bad_row} is not positive"
        )
    return solution
