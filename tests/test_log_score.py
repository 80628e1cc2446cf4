"""The log score of a mixture and its likelihoods: derivatives, convexity, logarithms, numbers of particles."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import optimize, special, stats

import mfld
from mfld import likelihoods

RNG = np.random.default_rng(5)
INPUTS = RNG.normal(size=(12, 2))
REALS = INPUTS @ [1.0, -0.5] + 0.4 * RNG.normal(size=12)
SIGNS = np.where(RNG.uniform(size=12) > 0.4, 1.0, -1.0)
WAITS = RNG.exponential(size=12)
CENTRED = (RNG.normal(size=(12, 2)) * [1.0, 3.0]).round(3)


def waits_log_density(theta, rows):
    """Of exponential waiting times with the rate exp(a + b)."""
    return theta.sum(axis=1)[:, np.newaxis] - np.exp(theta.sum(axis=1))[:, np.newaxis] * WAITS[rows]


def waits_gradient(theta, rows):
    slopes = 1 - np.exp(theta.sum(axis=1))[:, np.newaxis] * WAITS[rows]
    return np.stack([slopes, slopes], axis=2)


LIKELIHOODS = {
    "gaussian": likelihoods.Gaussian(CENTRED, scale=1.5),
    "linear": likelihoods.LinearRegression(INPUTS, REALS, noise_variance=0.3),
    "logistic": likelihoods.LogisticRegression(INPUTS, SIGNS),
    "user": likelihoods.LogLikelihood(waits_log_density, waits_gradient, n_samples=12, n_coordinates=2),
}
# log p(y_i | theta) of one observation at one point, by SciPy.
DENSITIES = {
    "gaussian": lambda i, t: stats.multivariate_normal(t, 2.25 * np.eye(2)).logpdf(CENTRED[i]),
    "linear": lambda i, t: stats.norm(INPUTS[i] @ t, np.sqrt(0.3)).logpdf(REALS[i]),
    "logistic": lambda i, t: np.log(special.expit(SIGNS[i] * INPUTS[i] @ t)),
    "user": lambda i, t: stats.expon(scale=np.exp(-t.sum())).logpdf(WAITS[i]),
}
ALL = pytest.mark.parametrize("name", LIKELIHOODS)


@ALL
def test_the_loss_is_the_mean_log_density_of_the_mixture(name, rng):
    weights, mass = rng.uniform(size=12), rng.uniform(size=5)
    score = mfld.LogScore(LIKELIHOODS[name], sample_weight=weights, l2=0.3)
    cloud = mfld.Cloud(rng.normal(size=(5, 2)), mass)
    expected = [
        np.log(sum(m / mass.sum() * np.exp(DENSITIES[name](i, t)) for m, t in zip(mass, cloud.particles, strict=True)))
        for i in range(12)
    ]
    assert_allclose(score.log_predictive(cloud), expected, rtol=1e-12)
    assert_allclose(score.loss(cloud), -np.dot(weights / weights.sum(), expected), rtol=1e-12)
    ridge = 0.3 * np.average(np.sum(cloud.particles**2, axis=1), weights=mass)
    assert_allclose(score.value(cloud), score.loss(cloud) + ridge, rtol=1e-12)


@ALL
def test_the_gradient_is_n_times_that_of_the_function_of_n_particles(name, rng):
    score = mfld.LogScore(LIKELIHOODS[name], sample_weight=rng.uniform(size=12))
    particles = rng.normal(size=(4, 2))
    gradient, h = score.loss_gradient(particles), 1e-3
    assert np.abs(gradient).max() > 0.1
    for m, j in itertools.product(range(4), range(2)):

        def value(t, m=m, j=j):
            shifted = particles.copy()
            shifted[m, j] += t
            return score.loss(shifted)

        slope = (value(-2 * h) - 8 * value(-h) + 8 * value(h) - value(2 * h)) / (12 * h)
        assert_allclose(gradient[m, j], 4 * slope, rtol=1e-7, atol=1e-8)


@ALL
def test_the_first_variation_is_the_derivative_towards_a_point_mass(name, rng):
    score = mfld.LogScore(LIKELIHOODS[name], l2=0.2)
    cloud, point = mfld.Cloud(rng.normal(size=(4, 2)), rng.uniform(size=4)), rng.normal(size=(1, 2))

    def mixed(t):
        particles = np.concatenate([cloud.particles, point])
        return score.value(mfld.Cloud(particles, [*((1 - t) * cloud.weights), t]))

    h = 1e-4
    slope = (-3 * mixed(0.0) + 4 * mixed(h) - mixed(2 * h)) / (2 * h)
    potential = score.first_variation(cloud)
    assert_allclose(potential(point)[0] - cloud.mean(potential(cloud.particles)), slope, rtol=1e-5)
    assert_allclose(potential.gradient(cloud.particles), score.gradient(cloud), rtol=1e-12, atol=1e-12)


@ALL
def test_it_is_convex_along_mixtures(name, rng):
    score = mfld.LogScore(LIKELIHOODS[name])
    for _ in range(20):
        one, other = 2 * rng.normal(size=(2, 3, 2))
        together = np.concatenate([one, other])
        for t in (0.2, 0.5, 0.7):
            mixture = mfld.Cloud(together, [(1 - t) / 3] * 3 + [t / 3] * 3)
            bound = (1 - t) * score.loss(one) + t * score.loss(other)
            assert score.loss(mixture) < bound - 1e-9  # strictly: the predictions differ


@ALL
def test_batches_are_unbiased_and_pieces_change_nothing(name, rng, monkeypatch):
    score = mfld.LogScore(LIKELIHOODS[name], sample_weight=rng.uniform(size=12))
    particles, points = rng.normal(size=(4, 2)), rng.normal(size=(3, 2))
    batches = [np.array(rows) for rows in itertools.combinations(range(12), 2)]
    mean = np.mean([score.loss_gradient(particles, rows) for rows in batches], axis=0)
    assert_allclose(mean, score.loss_gradient(particles), rtol=1e-12, atol=1e-14)
    frozen = np.mean([score.first_variation(particles, rows)(points) for rows in batches], axis=0)
    assert_allclose(frozen, score.first_variation(particles)(points), rtol=1e-12)
    whole = score.loss_gradient(particles), score.loss(particles), score.first_variation(particles)(points)
    monkeypatch.setattr("mfld.objectives.log_score._ENTRIES", 8)  # pieces of two rows
    cut = score.loss_gradient(particles), score.loss(particles), score.first_variation(particles)(points)
    for one, other in zip(whole, cut, strict=True):
        assert_allclose(one, other, rtol=1e-13, atol=1e-15)


@ALL
def test_float32_is_close_to_float64(name, rng):
    score = mfld.LogScore(LIKELIHOODS[name])
    particles = rng.normal(size=(50, 2)).astype(np.float32)
    single, double = score.gradient(particles), score.gradient(particles.astype(float))
    assert single.dtype == np.float32
    assert_allclose(single, double, atol=2e-5 * np.abs(double).max())


def test_densities_that_underflow_are_no_obstacle():
    samples = np.array([[0.0], [1.0]])
    score = mfld.LogScore(likelihoods.Gaussian(samples, scale=1e-3))
    particles = np.array([[0.4], [0.5]])  # 400 deviations away, where exp(-80000) is 0
    exact = np.mean([(0.4 / 1e-3) ** 2 / 2, (0.5 / 1e-3) ** 2 / 2]) + np.log(2e-3) + np.log(2 * np.pi) / 2
    assert_allclose(score.loss(particles), exact, rtol=1e-12)
    # The nearer particle answers for an observation: 1/2 for each, times N = 2.
    assert_allclose(score.loss_gradient(particles), [[0.4e6], [-0.5e6]], rtol=1e-12)


def test_two_observations_are_explained_by_two_atoms():
    """Observations at -a and a of deviation 1: for a > 1 the best mixture has atoms at +-b with b = a tanh(a b)."""
    a = 1.5
    b = optimize.brentq(lambda x: x - a * np.tanh(a * x), 0.5, 2.0)
    score = mfld.LogScore(likelihoods.Gaussian([[-a], [a]], scale=1.0))
    solver = mfld.MFLD(40, step_size=0.2, temperature=0.0, dtype="float64")
    result = solver.run(score, 2000, particles=np.linspace(-1, 1, 40)[:, np.newaxis])
    assert_allclose(np.abs(result.particles), b, atol=1e-3)
    certificate = score.first_variation(result.measure)(np.linspace(-4, 4, 401)[:, np.newaxis])
    assert certificate.min() > -1 - 1e-4  # the optimality condition of Kiefer and Wolfowitz: E_y r(theta) <= 1


@pytest.mark.parametrize("gradient", [mfld.Minibatch(20), mfld.SVRG(20, 10), mfld.SARAH(20, 10)], ids=str)
def test_estimators_reach_the_optimum_of_the_full_gradient(gradient):
    rng = np.random.default_rng(3)
    samples = np.concatenate([rng.normal(-2, 1, 100), rng.normal(2, 1, 100)])[:, np.newaxis]
    score = mfld.LogScore(likelihoods.Gaussian(samples), l2=1e-3)
    clouds = [
        mfld.MFLD(200, step_size=0.1, temperature=1 / 200, gradient=each).run(score, 400).measure
        for each in (mfld.FullBatch(), gradient)
    ]
    assert abs(score.loss(clouds[0]) - score.loss(clouds[1])) < 0.01


def test_a_predictively_oriented_posterior_spreads_where_the_model_is_wrong_and_only_there():
    rng = np.random.default_rng(0)
    n = 400
    right, wrong = rng.normal(0, 1, (n, 1)), rng.standard_t(3, (n, 1)) * 2
    spread, gain = [], []
    for samples in (right, wrong):
        score = mfld.LogScore(likelihoods.Gaussian(samples), l2=1 / (2 * n * 100))
        cloud = mfld.MFLD(150, step_size=0.5, temperature=1 / n).run(score, 200).measure
        spread.append(cloud.particles.std())
        fresh = mfld.LogScore(
            likelihoods.Gaussian(rng.normal(0, 1, (5000, 1)) if samples is right else rng.standard_t(3, (5000, 1)) * 2)
        )
        posterior = rng.normal(samples.mean(), 1 / np.sqrt(n), (300, 1))  # of the mean, under the model
        gain.append(fresh.loss(posterior) - fresh.loss(cloud))
    assert spread[0] < 0.5
    assert spread[1] > 1.5
    assert abs(gain[0]) < 0.02
    assert gain[1] > 1.0


def test_particles_needed_against_the_closed_form():
    """theta ~ N(0, t^2), y ~ N(theta, s^2): E p^2 = N(y; 0, t^2 + s^2/2) / (2 s sqrt(pi)), E p = N(y; 0, t^2 + s^2)."""
    t, s = 2.0, 0.3
    samples = np.linspace(-3, 3, 25)[:, np.newaxis]
    particles = t * stats.norm.ppf((np.arange(20000) + 0.5) / 20000)[:, np.newaxis]
    second = stats.norm(0, np.sqrt(t**2 + s**2 / 2)).pdf(samples) / (2 * s * np.sqrt(np.pi))
    variance = np.mean(second / stats.norm(0, np.hypot(t, s)).pdf(samples) ** 2 - 1)
    score = mfld.LogScore(likelihoods.Gaussian(samples, scale=s))
    assert_allclose(score.particles_needed(particles, tolerance=1e-3), variance / 2e-3, rtol=2e-3)
    # And it is what so many particles cost.
    n_particles = score.particles_needed(particles, tolerance=0.02)
    rng = np.random.default_rng(1)
    costs = [score.loss(t * rng.normal(size=(n_particles, 1))) for _ in range(400)]
    excess = np.mean(costs) - score.loss(particles)
    error = np.std(costs) / 20
    assert abs(excess - 0.02) < 4 * error + 0.004  # of the next order, (variance / N)^2


def test_what_does_not_fit_is_refused():
    gaussian = LIKELIHOODS["gaussian"]
    with pytest.raises(TypeError, match="likelihood must be a Likelihood, like"):
        mfld.LogScore(3)
    with pytest.raises(ValueError, match=r"sample_weight must have shape \(12,\) to match the observations"):
        mfld.LogScore(gaussian, sample_weight=[1.0])
    with pytest.raises(ValueError, match="space must have 2 coordinates to suit the likelihood, got 3"):
        mfld.LogScore(gaussian, space=mfld.Space(3))
    with pytest.raises(ValueError, match=r"particles must have shape \(N, 2\)"):
        mfld.LogScore(gaussian).loss(np.zeros((3, 1)))
    with pytest.raises(ValueError, match="targets must be -1 or \\+1, got 0"):
        likelihoods.LogisticRegression([[1.0]], [0])
    broken = likelihoods.LogLikelihood(
        lambda t, rows: np.full((len(t), len(rows)), np.nan), waits_gradient, n_samples=3, n_coordinates=2
    )
    with pytest.raises(ValueError, match="log_density of the likelihood must be below inf, got nan for observation 0"):
        mfld.LogScore(broken).loss(np.zeros((1, 2)))
    wrong = likelihoods.LogLikelihood(lambda t, rows: np.zeros(3), waits_gradient, n_samples=3, n_coordinates=2)
    with pytest.raises(ValueError, match=r"the result of log_density must have shape \(1, 3\) \(points, rows\)"):
        mfld.LogScore(wrong).loss(np.zeros((1, 2)))
    nowhere = likelihoods.LogLikelihood(
        lambda t, rows: np.full((len(t), len(rows)), -np.inf), waits_gradient, n_samples=3, n_coordinates=2
    )
    with pytest.raises(ValueError, match="measure must give each observation a positive density"):
        mfld.LogScore(nowhere).loss(np.zeros((1, 2)))
