"""Posteriors: derivatives, batches, and samplers against closed forms, quadrature and a published reference."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import mfld
from mfld import likelihoods, plots, posteriors

pytest.importorskip("arviz_stats")

RNG = np.random.default_rng(2)
INPUTS = RNG.normal(size=(60, 2))
REALS = INPUTS @ [1.0, -0.5] + 0.5 * RNG.normal(size=60)
SIGNS = np.where(INPUTS @ [1.0, -1.5] + RNG.logistic(size=60) > 0, 1.0, -1.0)
BUDGET = {"n_steps": 2000, "n_draws": 250, "warmup": 300}

# posteriordb, eight_schools-eight_schools_noncentered: means and their Monte Carlo errors, of theta_1..8, mu, tau.
PUBLISHED = np.array([6.15050, 4.93958, 3.90591, 4.79602, 3.61444, 4.05115, 6.31717, 4.88400, 4.41052, 3.60206])
PUBLISHED_ERRORS = np.array([0.0557, 0.0462, 0.0542, 0.0475, 0.0461, 0.0485, 0.0499, 0.0543, 0.0330, 0.0319])


def eight_schools_by_quadrature():
    """Means and deviations of theta_1..8, mu, tau: given tau all is Gaussian, and tau is a sum on a grid."""
    y = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
    s2 = np.array([15.0, 10, 16, 11, 9, 11, 10, 18]) ** 2
    tau = np.exp(np.linspace(-12, 6, 6001))[:, np.newaxis]
    v = s2 + tau**2
    precision = np.sum(1 / v, axis=1) + 1 / 25
    mean, variance = np.sum(y / v, axis=1) / precision, 1 / precision
    log_marginal = np.sum(stats.norm.logpdf(y, mean[:, np.newaxis], np.sqrt(v)), axis=1)
    log_marginal += stats.norm.logpdf(mean, 0, 5) + np.log(2 * np.pi * variance) / 2
    log_density = log_marginal + stats.halfcauchy.logpdf(tau[:, 0], scale=5) + np.log(tau[:, 0])  # on a grid of log tau
    weight = np.exp(log_density - log_density.max())
    weight /= weight.sum()
    shrink = tau**2 / v  # theta = mu + shrink (y - mu) + noise
    theta = shrink * y + (1 - shrink) * mean[:, np.newaxis]
    spread = (1 - shrink) ** 2 * variance[:, np.newaxis] + shrink * s2
    first = np.column_stack([theta, mean, tau[:, 0]])
    second = np.column_stack([spread + theta**2, variance + mean**2, tau[:, 0] ** 2])
    means = weight @ first
    return means, np.sqrt(weight @ second - means**2)


NAMES = [*(f"theta[{j}]" for j in range(8)), "mu", "tau"]


def test_the_quadrature_agrees_with_the_published_reference():
    means, _ = eight_schools_by_quadrature()
    assert (np.abs(means - PUBLISHED) < 4 * PUBLISHED_ERRORS).all()


@pytest.fixture(scope="module")
def schools():
    return posteriors.sample(posteriors.EightSchools(), ["mala", "svgd"], n_chains=16, n_steps=4000, n_draws=500)


def test_eight_schools_by_mala(schools):
    means, deviations = eight_schools_by_quadrature()
    for name, mean, deviation in zip(NAMES, means, deviations, strict=True):
        row = schools.row(name, "mala")
        assert abs(row.mean - mean) < 5 * row.error
        assert abs(row.sd / deviation - 1) < 0.15
        assert row.rhat < 1.05
        assert row.ess > 400
    # A cloud of a hundred particles is a coarser picture, and no chain.
    assert abs(schools.row("mu", "svgd").mean - means[8]) < 1
    assert np.isnan(schools.row("mu", "svgd").rhat)


def test_draws_are_in_the_shape_of_arviz_and_the_table_is_printed(schools):
    values = schools.draws["mala"].values
    assert {name: array.shape for name, array in values.items()} == {
        "mu": (16, 500),
        "tau": (16, 500),
        "theta": (16, 500, 8),
    }
    assert (values["tau"] > 0).all()
    lines = str(schools).splitlines()
    assert lines[0].split() == ["method", "mean", "sd", "error", "ess", "R-hat"]
    assert lines[2].split()[:2] == ["mu", "svgd"]
    assert lines[2].split()[-1] == "-"
    assert "accepted" in lines[-3]
    with pytest.raises(KeyError, match="no row of 'nu' by 'mala'"):
        schools.row("nu", "mala")


def test_linear_regression_against_the_closed_form():
    exact = mfld.potentials.BayesianLinearRegression(INPUTS, REALS, noise_variance=0.25, prior_variance=4.0)
    likelihood = likelihoods.LinearRegression(INPUTS, REALS, noise_variance=0.25)
    found = posteriors.sample(posteriors.Posterior(likelihood, prior_variance=4.0), **BUDGET)
    assert set(found.draws) == set(posteriors.methods())
    for j, method in itertools.product(range(2), posteriors.methods()):
        row = found.row(f"theta[{j}]", method)
        deviation = np.sqrt(exact.posterior_covariance[j, j])
        error = 0.1 * deviation if np.isnan(row.error) else 5 * row.error
        assert abs(row.mean - exact.posterior_mean[j]) < error, method
        assert abs(row.sd / deviation - 1) < 0.2, method  # the bias of ula's step is 3 %, the error of its ess 7 %


def test_logistic_regression_against_quadrature():
    line = np.linspace(-3, 5, 401)
    grid = np.stack(np.meshgrid(line, line - 4, indexing="ij"), axis=-1).reshape(-1, 2)
    margins = SIGNS * (grid @ INPUTS.T)
    log_density = -np.logaddexp(0, -margins).sum(axis=1) - np.sum(grid**2, axis=1) / 8
    weight = np.exp(log_density - log_density.max())
    weight /= weight.sum()
    means = weight @ grid
    deviations = np.sqrt(weight @ grid**2 - means**2)
    posterior = posteriors.Posterior(likelihoods.LogisticRegression(INPUTS, SIGNS), prior_variance=4.0)
    found = posteriors.sample(posterior, ["mala", "sgld"], **BUDGET)
    for j, method in itertools.product(range(2), ("mala", "sgld")):
        row = found.row(f"theta[{j}]", method)
        assert abs(row.mean - means[j]) < 5 * row.error
        assert abs(row.sd / deviations[j] - 1) < 0.2


def test_a_log_density_of_the_user():
    """A gamma law of shape 3 and rate 1, in the logarithm."""
    gamma = mfld.Potential(lambda x: np.exp(x) - 3, lambda x: np.sum(np.exp(x) - 3 * x, axis=1), n_coordinates=1)
    found = posteriors.sample(gamma, ["mala"], variables=lambda x: {"rate": np.exp(x[:, 0])}, **BUDGET)
    row = found.row("rate", "mala")
    assert abs(row.mean - 3) < 5 * row.error
    assert abs(row.sd - np.sqrt(3)) < 0.25


@pytest.mark.parametrize(
    "posterior",
    [
        posteriors.EightSchools(),
        posteriors.EightSchools([1.0, -2.0], [0.5, 2.0], scale=3.0),
        posteriors.Posterior(likelihoods.Gaussian(INPUTS, 0.8), prior_variance=3.0),
    ],
    ids=repr,
)
def test_gradients_are_derivatives(posterior, rng):
    points, h = rng.normal(size=(5, posterior.n_coordinates)), 1e-3
    gradient = posterior.gradient(points)
    for j in range(posterior.n_coordinates):
        e = np.zeros(posterior.n_coordinates)
        e[j] = h
        value = posterior
        slope = (value(points - 2 * e) - 8 * value(points - e) + 8 * value(points + e) - value(points + 2 * e)) / (
            12 * h
        )
        assert_allclose(gradient[:, j], slope, rtol=1e-7, atol=1e-7)
    single = posterior.gradient(points.astype(np.float32))
    assert_allclose(single, gradient, rtol=1e-4, atol=1e-4)


def test_a_posterior_of_a_likelihood_is_the_potential_of_the_same_name(rng):
    points, rows = rng.normal(size=(4, 2)), np.array([3, 7, 20])
    pairs = [
        (
            posteriors.Posterior(likelihoods.LinearRegression(INPUTS, REALS, noise_variance=0.3), prior_variance=2.0),
            mfld.potentials.BayesianLinearRegression(INPUTS, REALS, noise_variance=0.3, prior_variance=2.0),
        ),
        (
            posteriors.Posterior(likelihoods.LogisticRegression(INPUTS, SIGNS), prior_variance=2.0),
            mfld.potentials.BayesianLogisticRegression(INPUTS, SIGNS, prior_variance=2.0),
        ),
    ]
    for ours, known in pairs:
        assert_allclose(ours.gradient(points), known.gradient(points), rtol=1e-12)
        assert_allclose(ours.gradient(points, rows), known.gradient(points, rows), rtol=1e-12)
        assert_allclose(np.ptp(ours(points) - known(points)), 0, atol=1e-10)  # up to a constant
        frozen = ours.first_variation(points, rows)
        assert_allclose(frozen.gradient(points), ours.gradient(points, rows), rtol=1e-12)


def test_variance_reduction_is_exact_at_its_anchor_and_unbiased(rng):
    posterior = posteriors.Posterior(likelihoods.LogisticRegression(INPUTS[:6], SIGNS[:6]))
    particles, anchor = rng.normal(size=(2, 4, 2))
    full = posterior.loss_gradient(anchor)
    batches = [np.array(rows) for rows in itertools.combinations(range(6), 2)]
    estimates = [posterior.loss_gradient(particles, r) - posterior.loss_gradient(anchor, r) + full for r in batches]
    assert_allclose(np.mean(estimates, axis=0), posterior.loss_gradient(particles), rtol=1e-12)


def test_what_does_not_fit_is_refused():
    schools = posteriors.EightSchools()
    with pytest.raises(ValueError, match="methods must be without 'sgld' here, which needs a posterior that is a sum"):
        posteriors.sample(schools, ["sgld"])
    with pytest.raises(TypeError, match="methods must be several names, like"):
        posteriors.sample(schools, "mala")
    with pytest.raises(ValueError, match="n_steps must be a multiple of n_draws, 300, got 1000"):
        posteriors.sample(schools, n_draws=300, n_steps=1000)
    with pytest.raises(TypeError, match="posterior must be a Potential"):
        posteriors.sample(likelihoods.Gaussian([[1.0]]))
    with pytest.raises(ValueError, match="errors must be positive"):
        posteriors.EightSchools([1.0], [0.0])
    with pytest.raises(ValueError, match=r"variables\(points\)\['a'\] must have a value for each point"):
        posteriors.sample(schools, ["mala"], variables=lambda x: {"a": 1.0}, n_steps=8, n_draws=4, warmup=2)


def test_effective_sizes_of_autoregressive_chains():
    """Draws that keep the share rho of the last one are worth (1 - rho) / (1 + rho) of independent ones."""
    rng, rho = np.random.default_rng(0), 0.8
    draws = rng.normal(size=(8, 4000))
    for t in range(1, 4000):
        draws[:, t] = rho * draws[:, t - 1] + np.sqrt(1 - rho**2) * draws[:, t]
    found = mfld.statistics.of_chains(draws)
    assert abs(found.ess / (8 * 4000 * (1 - rho) / (1 + rho)) - 1) < 0.15
    assert found.rhat < 1.02
    apart = draws + np.arange(8)[:, np.newaxis] / 3
    assert mfld.statistics.of_chains(apart).rhat > 1.1
    with pytest.raises(ValueError, match=r"draws must have shape \(chain, draw, ...\) with 2 and 4 at least"):
        mfld.statistics.of_chains(np.zeros((1, 10)))


def test_bands_hold_their_shares():
    pytest.importorskip("matplotlib")
    x = np.linspace(0, 1, 5)
    curves = stats.norm.ppf((np.arange(2000) + 0.5) / 2000)[:, np.newaxis] * (1 + x)
    figure = plots.bands(x, curves, points=([0.5], [0.0]))
    outer, inner = (collection.get_paths()[0].vertices for collection in figure.axes[0].collections)
    for band, share in ((outer, 0.9), (inner, 0.5)):
        half = stats.norm.ppf((1 + share) / 2)
        assert_allclose([band[:, 1].min(), band[:, 1].max()], [-2 * half, 2 * half], rtol=0.01)
    with pytest.raises(ValueError, match="levels must be between 0 and 1"):
        plots.bands(x, curves, levels=[1.5])


def test_the_table_says_where_chains_disagree():
    scales = np.array([1e-8, 1e4])  # after so few steps the first coordinate has not moved
    wide = mfld.Potential(lambda x: x * scales, lambda x: (x**2 * scales).sum(axis=1) / 2, n_coordinates=2)
    table = posteriors.sample(wide, ["mala"], n_steps=100, n_draws=50, warmup=100)
    assert table.row("theta[0]", "mala").rhat > 1.5
    assert "R-hat above 1.05, where chains disagree and no line is right: theta[0] by mala" in str(table)
    near = mfld.Potential(lambda x: x, lambda x: (x**2).sum(axis=1) / 2, n_coordinates=2)
    assert "disagree" not in str(posteriors.sample(near, ["mala"], n_steps=500, n_draws=500, warmup=100))


def test_a_gradient_that_is_not_finite_is_named():
    broken = mfld.Potential(lambda x: x * np.nan, lambda x: (x**2).sum(axis=1), n_coordinates=2)
    with pytest.raises(ValueError, match=r"potential must have a finite gradient, got \[nan nan\] at \["):
        posteriors.sample(broken, ["mala"], n_steps=8, n_draws=4, warmup=2)
