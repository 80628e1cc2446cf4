"""The estimator of sparse deconvolution in scikit-learn's tools."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.utils import estimator_checks

import mfld
from mfld.deconvolution import Gaussian
from mfld.sklearn import Deconvolver

X = np.linspace(0, 10, 81)[:, np.newaxis]


def signal(x):
    return 2 * Gaussian(0.5)(x[:, 0] - 3.03)[0] - Gaussian(0.5)(x[:, 0] - 6.5)[0]


Y = signal(X) + 0.05 * np.random.default_rng(0).normal(size=len(X))


def test_a_fit_is_that_of_the_function_in_any_order_of_rows():
    order = np.random.default_rng(1).permutation(len(X))
    found = Deconvolver(Gaussian(0.5), strength=0.01).fit(X[order], Y[order])
    expected = mfld.deconvolve(Y, Gaussian(0.5), 0.01, axes=[X[:, 0]])
    np.testing.assert_allclose(found.positions_, expected.positions, atol=1e-6)
    np.testing.assert_allclose(found.amplitude_errors_, expected.amplitude_errors, rtol=1e-4)
    np.testing.assert_allclose(found.predict(X), expected.fit, atol=1e-6)
    assert found.score(X, signal(X)) > 0.99
    assert found.certificate_.gap < 1e-6


def test_two_dimensions():
    axes = np.arange(12.0), np.arange(10.0)
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    y = Gaussian(1.5)(grid[:, 0] - 4.2)[0] * Gaussian(1.5)(grid[:, 1] - 6.1)[0]
    order = np.random.default_rng(0).permutation(len(grid))
    found = Deconvolver(Gaussian(1.5)).fit(grid[order], y[order])
    np.testing.assert_allclose(found.positions_, [[4.2, 6.1]], atol=1e-6)
    np.testing.assert_allclose(found.predict(grid), y, atol=1e-6)


def test_what_is_masked_is_refused_and_a_fit_that_fails_leaves_the_last_one():
    found = Deconvolver(Gaussian(0.5), n_steps=30).fit(X, Y)
    before = found.predict(X)
    for points, values, name in (
        (np.ma.masked_array(X, X > 5), Y, "X"),
        (X, np.ma.masked_array(Y, Y > 1), "y"),
    ):
        with pytest.raises(ValueError, match=f"{name} must have no masked values"):
            found.fit(points, values)
    with pytest.raises(ValueError, match="X must be a whole grid"):
        found.fit(np.eye(3, 2), np.arange(3.0))
    np.testing.assert_array_equal(found.predict(X), before)


def test_tools():
    search = GridSearchCV(Deconvolver(Gaussian(0.5)), {"strength": [1.0, 0.01]}, cv=3).fit(X, Y)
    assert search.best_params_ == {"strength": 0.01}
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    np.testing.assert_array_equal(again.predict(X), search.predict(X))
    assert not hasattr(clone(again), "positions_")


@pytest.mark.parametrize(
    "check",
    [
        "check_no_attributes_set_in_init",
        "check_get_params_invariance",
        "check_set_params",
        "check_estimator_get_tags_default_keys",
        "check_valid_tag_types",
        "check_estimator_repr",
        "check_estimators_unfitted",
        "check_do_not_raise_errors_in_init_or_set_param",
    ],
)
def test_checks_of_scikit_learn_that_need_no_grid(check):
    """The others fit positions at random in many dimensions."""
    own = getattr(estimator_checks, check, None)
    if own is None:
        pytest.skip("not in this version of scikit-learn")
    own("Deconvolver", Deconvolver(Gaussian(0.5)))


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.array([[0.0], [1], [1], [2]]), "X must hold each position once"),
        (np.eye(4)[:, :3], "X must have one or two columns"),
        (np.array([[0, 0], [0, 1], [1, 0], [2, 2.0]]), r"X must be a whole grid, got 4 of 3 x 3"),
        (np.array([[0.0], [1], [2], [np.nan]]), "NaN"),
        (np.array([[0, 0], [0, 1], [0, 2], [0, 3.0]]), "X must hold at least two positions along each axis, got 1 x 4"),
    ],
)
def test_positions_that_are_no_grid_are_refused(points, message):
    with pytest.raises(ValueError, match=message):
        Deconvolver(Gaussian(1.0)).fit(points, np.arange(4.0))
