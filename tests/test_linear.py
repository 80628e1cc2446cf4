"""Sums of fixed order against LAPACK."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mfld import linear
from mfld.dynamics import general


@pytest.mark.parametrize("size", [1, 2, 7, 60])
def test_factors_and_solutions(size, rng):
    square = rng.normal(size=(size, size))
    matrix = square @ square.T / size + np.eye(size)  # of a condition below 10
    factor = linear.cholesky(matrix)
    assert_allclose(factor, np.linalg.cholesky(matrix), rtol=1e-12, atol=1e-14)
    assert_allclose(linear.cholesky(np.tril(matrix)), factor, rtol=0)
    for right in (rng.normal(size=size), rng.normal(size=(size, 3))):
        before = right.copy()
        assert_allclose(linear.forwards(factor, right), np.linalg.solve(factor, right), rtol=1e-11, atol=1e-13)
        assert_allclose(linear.backwards(factor, right), np.linalg.solve(factor.T, right), rtol=1e-11, atol=1e-13)
        assert_allclose(linear.solve(factor, right), np.linalg.solve(matrix, right), rtol=1e-11, atol=1e-13)
        assert (right == before).all()
    assert_allclose(linear.inverse(factor), np.linalg.inv(matrix), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("matrix", [[[0.0]], [[1.0, 2.0], [2.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]], [[np.nan]]])
def test_what_is_not_positive_definite_is_refused(matrix):
    with pytest.raises(ValueError, match="matrix must be positive definite, got"):
        linear.cholesky(np.array(matrix))


T = np.linspace(0, 1, 90)
LOW = np.random.default_rng(5).normal(size=(40, 4))


@pytest.mark.parametrize(
    "matrix",
    [
        np.array([[-3.0]]),
        np.array([[2.0, 1.0], [1.0, 2.0]]),
        np.zeros((5, 5)),
        np.eye(12),
        np.diag(np.r_[np.ones(6), 2 * np.ones(6), -np.arange(5.0)]),
        LOW @ LOW.T,
        -LOW @ LOW.T,
        np.subtract.outer(T, T) ** 2,
        np.exp(-(np.subtract.outer(T, T) ** 2) / 0.2),
        np.exp(np.cos(2 * np.pi * np.subtract.outer(T, T))),  # pairs
        1e-150 * np.exp(-np.abs(np.subtract.outer(T, T))),
        1e150 * np.minimum.outer(T, T),
    ],
)
def test_eigenpairs(matrix):
    size = len(matrix)
    before = matrix.copy()
    every = np.linalg.eigvalsh(matrix)[::-1]
    scale = max(np.abs(every).max(), np.finfo(float).tiny)
    for n in {1, size // 2 + 1, size}:
        values, vectors, smallest = linear.eigenpairs(matrix, n)
        assert_allclose(values / scale, every[:n] / scale, atol=1e-14)
        assert smallest / scale == pytest.approx(every[-1] / scale, abs=1e-14)
        assert_allclose(vectors.T @ vectors, np.eye(n), atol=1e-13)
        assert_allclose(matrix / scale @ vectors, vectors * (values / scale), atol=1e-14 * size)
    assert (matrix == before).all()


def test_no_sum_has_no_terms(monkeypatch):
    """NumPy may leave such a sum of `einsum` unset: what is in memory then becomes a part of the result."""

    def checked(subscripts, *operands):
        assert all(operand.size for operand in operands)
        return einsum(subscripts, *operands)

    einsum = np.einsum
    monkeypatch.setattr(np, "einsum", checked)
    vectors = linear.eigenpairs(np.diag([3.0, 2.0, 1.0]), 3)[1]
    assert_allclose(np.abs(vectors), np.eye(3), atol=1e-12)
    assert_allclose(general._root(np.diag([4.0, 9.0])), np.diag([2.0, 3.0]))


@pytest.mark.parametrize("size", [5e-324, 1e-300, 1e-200, 1e200, 1e307])
def test_eigenpairs_of_any_size(size):
    values, _, smallest = linear.eigenpairs(np.array([[2.0, 1.0], [1.0, 2.0]]) * size, 2)
    assert_allclose(values, [3 * size, size], rtol=1e-12)
    assert smallest == pytest.approx(size, rel=1e-12)
