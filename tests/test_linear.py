"""Sums of fixed order against LAPACK."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mfld import linear


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
