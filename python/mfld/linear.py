"""Cholesky factors, the systems that they solve, and eigenpairs, in sums whose order is fixed.

LAPACK would do, and be faster, were it not that its bits depend on the number of threads of BLAS, and with them what is
computed from a solution: a trajectory, say.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mfld import _core
from mfld.validation import FloatArray

_LARGE = 1e100


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


def ridge_solve(
    factor: FloatArray,
    ridge: float,
    right: FloatArray,
    num_threads: int = 1,
    *,
    row_scale: FloatArray | None = None,
    column_scale: FloatArray | None = None,
    name: str = "ridge",
) -> FloatArray:
    """Solution X of ``(B B' + ridge I) X = right``, ``B = diag(row_scale) F diag(column_scale)``.

    In the precision of the arrays, by the compiled core and a Cholesky factor of the smaller side, of size r: where
    there are fewer columns than rows, ``ridge X = right - B Y`` with ``(B' B + ridge I) Y = B' right``. With c for the
    larger side it takes ``r**2 (c + r / 3) / 2`` multiply-adds.

    Parameters
    ----------
    factor : ndarray, shape (rows, columns)
        The matrix F.
    ridge : float
    right : ndarray, shape (rows, k)
    num_threads : int
        It never changes the solution.
    row_scale : ndarray, shape (rows,), optional
    column_scale : ndarray, shape (columns,), optional
    name : str
        Of the ridge, in a message.

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
    right = np.ascontiguousarray(right)
    solution, positive = _core.backend.ridge_solve(
        factor, ridge, right, num_threads, row_scale=row_scale, column_scale=column_scale
    )
    if not positive:
        raise ValueError(
            f"{name} must make the matrix positive definite to the precision of {factor.dtype}, got {ridge:g}"
        )
    return solution


def product(factor: FloatArray, right: FloatArray, *, transposed: bool = False, num_threads: int = 1) -> FloatArray:
    """Product of a matrix, or of its transpose, and another one, by the compiled core.

    Parameters
    ----------
    factor : ndarray, shape (rows, columns)
    right : ndarray, shape (columns, k), or (rows, k) where the factor is transposed
    transposed : bool
    num_threads : int
        It never changes the product.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import linear
    >>> linear.product(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0], [1.0]]), transposed=True)
    array([[4.],
           [6.]])
    """
    return _core.backend.product(factor, np.ascontiguousarray(right), transposed, num_threads)


def unit(values: FloatArray) -> float:
    """The number to divide values by before they are squared: 1 unless squares would leave the range of numbers.

    It is a power of two, near the largest size of a value, so that nothing is rounded.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import linear
    >>> linear.unit(np.array([3.0, -1e60])), linear.unit(np.array([0.0, 3e-200])) == 2.0**-662
    (1.0, True)
    """
    size = float(np.abs(values).max(initial=0.0))
    if size == 0 or not math.isfinite(size) or 2.0**-300 <= size <= 2.0**300:
        return 1.0
    return math.ldexp(1.0, max(math.frexp(size)[1], -1021))


def eigenpairs(matrix: FloatArray, n: int) -> tuple[FloatArray, FloatArray, float]:
    """The n largest eigenvalues of a symmetric matrix, in falling order, their eigenvectors in columns; the smallest.

    By Householder's reduction to tridiagonal form, bisection and inverse iteration (Golub, Van Loan 2013, "Matrix
    computations", chapter 8). Eigenvalues are right to rounding of the largest one in size, and vectors orthonormal,
    also where eigenvalues are equal. A matrix of 1000 rows takes some seconds.

    Parameters
    ----------
    matrix : ndarray, shape (p, p)
    n : int

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import linear
    >>> values, vectors, smallest = linear.eigenpairs(np.array([[2.0, 1.0], [1.0, 2.0]]), 1)
    >>> values.round(12), np.abs(vectors[:, 0]).round(4), round(smallest, 12)
    (array([3.]), array([0.7071, 0.7071]), 1.0)
    """
    size = unit(matrix)
    if size != 1:
        values, vectors, smallest = eigenpairs(matrix / size, n)
        return values * size, vectors, smallest * size
    diagonal, beside, reflectors = _tridiagonal(np.array(matrix, np.float64))
    found = _bisected(diagonal, beside, np.append(np.arange(n), len(matrix) - 1))
    values = found[:n]
    vectors = _inverse_iterated(diagonal, beside, values)
    for k in range(len(reflectors) - 1, -1, -1):
        v, below = reflectors[k], vectors[k + 1 :]
        below -= np.multiply.outer(2 * v, np.einsum("i,ij->j", v, below))
    return values, vectors, float(found[n])


def _tridiagonal(a: FloatArray) -> tuple[FloatArray, FloatArray, list[FloatArray]]:
    """Diagonal and the entries beside it of H' A H, and the unit vectors v of the reflections ``I - 2 v v'`` of H."""
    reflectors, work = [], np.empty_like(a)
    for k in range(len(a) - 2):
        x = a[k + 1 :, k].copy()
        length = -np.copysign(np.sqrt(np.sum(x**2)), x[0])
        x[0] -= length
        size = np.sqrt(np.sum(x**2))
        v = x / size if size > 0 else x
        rest = a[k + 1 :, k + 1 :]
        p = 2 * np.einsum("ij,j->i", rest, v)
        w = p - np.sum(v * p) * v
        product = work[k + 1 :, k + 1 :]
        rest -= np.multiply.outer(v, w, out=product)
        rest -= np.multiply.outer(w, v, out=product)
        a[k + 1, k] = length
        reflectors.append(v)
    return np.diag(a).copy(), np.diag(a, -1).copy(), reflectors


def _bisected(diagonal: FloatArray, beside: FloatArray, places: NDArray[np.int64]) -> FloatArray:
    """Eigenvalues of a tridiagonal matrix by their places in falling order, from Sturm's count of those below."""
    around = np.abs(np.concatenate([[0.0], beside])) + np.abs(np.concatenate([beside, [0.0]]))
    low = np.full(len(places), float((diagonal - around).min()))
    high = np.full(len(places), float((diagonal + around).max()))
    least = np.finfo(np.float64).tiny / np.finfo(np.float64).eps
    squares = np.concatenate([[0.0], beside**2])
    most = len(diagonal) - 1 - places
    for _ in range(60):
        middle = (low + high) / 2
        below, pivot = np.zeros(len(places), np.int64), np.ones(len(places))
        for d, square in zip(diagonal, squares, strict=True):
            pivot = d - middle - square / pivot
            pivot = np.where(np.abs(pivot) < least, -least, pivot)
            below += pivot < 0
        low, high = np.where(below <= most, middle, low), np.where(below <= most, high, middle)
    return np.asarray((low + high) / 2)


def _inverse_iterated(diagonal: FloatArray, beside: FloatArray, values: FloatArray) -> FloatArray:
    """Orthonormal eigenvectors of a tridiagonal matrix, shape (p, n), side by side."""
    p, n = len(diagonal), len(values)
    size = max(float(np.abs(diagonal).max()), float(np.abs(beside).max(initial=0.0)))
    least = max(float(np.finfo(np.float64).eps) * size, float(np.finfo(np.float64).tiny))
    vectors: FloatArray = np.random.default_rng(0).normal(size=(p, n))
    for _ in range(3):
        vectors = _solved(diagonal, beside, values, vectors, least)
        vectors /= np.abs(vectors).max(axis=0)
        for k in range(n):
            for _ in range(2):  # once leaves what rounding has made of large parts
                own = vectors[:, k]
                if k > 0:  # NumPy may leave a sum of no terms unset
                    along = np.einsum("ij,i->j", vectors[:, :k], own)
                    own = own - np.einsum("ij,j->i", vectors[:, :k], along)
                vectors[:, k] = own / np.sqrt(np.sum(own**2))
    return vectors


def _solved(
    diagonal: FloatArray, beside: FloatArray, values: FloatArray, right: FloatArray, least: float
) -> FloatArray:
    """Solutions of ``(T - value) x = right`` for each value, by elimination with row exchanges."""
    p, n = right.shape
    upper = np.zeros((p, 3, n))  # of each row: the diagonal and two entries behind it
    sums = right.copy()
    own, behind = diagonal[0] - values, np.full(n, beside[0] if p > 1 else 0.0)
    for i in range(p - 1):
        e, d = beside[i], diagonal[i + 1] - values
        after = beside[i + 1] if i + 2 < p else 0.0
        swap = np.abs(own) < abs(e)
        factor = np.where(swap, own, e) / np.where(swap, e, np.where(np.abs(own) < least, least, own))
        upper[i] = np.where(swap, [np.full(n, e), d, np.full(n, after)], [own, behind, np.zeros(n)])
        first, second = np.where(swap, sums[i + 1], sums[i]), np.where(swap, sums[i], sums[i + 1])
        sums[i], sums[i + 1] = first, second - factor * first
        own, behind = (
            np.where(swap, behind - factor * d, d - factor * behind),
            np.where(swap, -factor * after, after),
        )
    upper[p - 1, 0] = own
    pivots = np.where(np.abs(upper[:, 0]) < least, least, upper[:, 0])
    found = np.zeros((p + 2, n))
    for i in range(p - 1, -1, -1):
        found[i] = (sums[i] - upper[i, 1] * found[i + 1] - upper[i, 2] * found[i + 2]) / pivots[i]
        if np.abs(found[i]).max() > _LARGE:  # behind several pivots that are almost 0
            share = np.where(np.abs(found[i]) > _LARGE, 1 / _LARGE, 1.0)
            found *= share
            sums *= share
    return found[:p]
