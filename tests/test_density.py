"""Densities: exact log-likelihoods, draws, weights, the estimator, and comparisons with kernel density estimates."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import integrate, stats

import mfld
from mfld import density

pytest.importorskip("sklearn")
from sklearn.datasets import load_diabetes, load_iris, load_wine
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from mfld.sklearn import MeanFieldDensity


def crossed(n, rng):
    """Three Gaussians in the plane, of different directions."""
    means = np.array([[0.0, 0.0], [4.0, 1.0], [-2.0, 4.0]])
    maps = np.array([[[1.0, 0.0], [0.8, 0.3]], [[0.4, 0.0], [0.0, 1.5]], [[0.7, 0.0], [-0.5, 0.5]]])
    modes = rng.choice(3, n, p=[0.4, 0.3, 0.3])
    return means[modes] + np.einsum("nij,nj->ni", maps[modes], rng.normal(size=(n, 2)))


def skewed(n, rng):
    """Two modes on the line, of which one is narrow."""
    return np.where(rng.uniform(size=n) < 0.7, rng.normal(-2, 1, n), rng.normal(2, 0.2, n))[:, np.newaxis]


@pytest.fixture(scope="module")
def fitted():
    rows = crossed(200, np.random.default_rng(1))
    return rows, density.fit(rows, seed=3, num_threads=1)


def test_the_log_density_is_that_of_the_mixture_and_integrates_to_one(fitted):
    rows, found = fitted
    mixture = found.density
    expected = sum(
        w * stats.multivariate_normal(m, c).pdf(rows)
        for w, m, c in zip(mixture.weights, mixture.means, mixture.covariances, strict=True)
    )
    assert_allclose(mixture.log_density(rows), np.log(expected), rtol=1e-10)
    assert_allclose(mixture.mixture.log_density(rows), np.log(expected), rtol=1e-10)
    line = mixture.marginal([1])
    total, _ = integrate.quad(lambda x: np.exp(line.log_density([[x]])[0]), -12, 16, limit=200)
    assert_allclose(total, 1, rtol=1e-7)
    # The marginal is the integral of the joint density over the other coordinate.
    at = lambda x: np.exp(mixture.log_density([[x, 1.0]])[0])  # noqa: E731
    assert_allclose(integrate.quad(at, -12, 16, limit=200)[0], np.exp(line.log_density([[1.0]])[0]), rtol=1e-6)


def test_draws_have_the_moments_of_the_mixture(fitted):
    _, found = fitted
    mixture = found.density
    draws = mixture.sample(40_000, np.random.default_rng(0))
    mean = mixture.weights @ mixture.means
    second = np.einsum("k,kij->ij", mixture.weights, mixture.covariances)
    offsets = mixture.means - mean
    second += np.einsum("k,ki,kj->ij", mixture.weights, offsets, offsets)
    assert_allclose(draws.mean(axis=0), mean, atol=5 * np.sqrt(second.max() / 40_000))
    assert_allclose(np.cov(draws.T), second, rtol=0.05, atol=0.05)


def test_draws_of_one_gaussian_have_its_covariance():
    factor = np.array([[[1.0, 0.0], [3.0, 0.5]]])
    one = density.Density(np.ones(1), np.array([[1.0, -2.0]]), factor)
    draws = one.sample(20_000, np.random.default_rng(0))
    assert_allclose(np.cov(draws.T), [[1.0, 3.0], [3.0, 9.25]], rtol=0.05)


def test_covariances_are_those_of_the_rows_with_the_rows_of_the_prior():
    rows = np.random.default_rng(3).normal(2, 3, (50, 1))
    found = density.fit(rows, n_particles=1, smoothing=0.5, prior_rows=7.0).density
    deviation = 0.5 * rows.std()  # the map of one column is its deviation
    expected = (50 * rows.var() + 7 * deviation**2) / 57
    assert_allclose(found.covariances[0, 0, 0], expected, rtol=1e-8)


def test_with_prior_rows_of_infinity_it_is_the_smoothed_measure_of_the_particles():
    rows = skewed(200, np.random.default_rng(2))
    found = density.fit(rows, smoothing=0.2, prior_rows=np.inf)
    points = np.linspace(-4, 4, 30)[:, np.newaxis]
    scale = 0.2 * rows.std()  # the map is the deviation of the rows in one dimension
    expected = np.mean(stats.norm(found.particles[:, 0], scale).pdf(points), axis=1)
    assert_allclose(np.exp(found.density.log_density(points)), expected, rtol=1e-9)


def test_the_particles_lower_the_discrepancy_of_what_they_started_from():
    rows = skewed(300, np.random.default_rng(4))
    z = (rows - rows.mean()) / rows.std()
    mmd = mfld.MMD(z, mfld.kernels.Gaussian(0.4), smoothing=0.2)
    values = []
    for n_steps in (0, 100, 400):
        plan = {"n_particles": 20, "smoothing": 0.2, "prior_rows": np.inf, "n_steps": n_steps}
        particles = density.fit(rows, **plan, num_threads=1).particles
        values.append(mmd.loss((particles - rows.mean()) / rows.std()))
    assert values[1] < 0.5 * values[0]  # which smoothing leaves: one mode is narrower
    assert values[1] < 1.05 * values[2]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e8])
def test_units_do_not_matter(scale):
    rows = crossed(150, np.random.default_rng(5))
    plan = {"smoothing": 0.4, "prior_rows": 5.0, "num_threads": 1}
    one, other = density.fit(rows, **plan).density, density.fit(rows * scale + 3 * scale, **plan).density
    expected = one.log_density(rows) - 2 * np.log(scale)
    assert_allclose(other.log_density(rows * scale + 3 * scale), expected, atol=1e-3)


def test_weights_stand_for_repetitions_and_zero_for_none():
    rows = skewed(60, np.random.default_rng(6))
    weights = np.random.default_rng(7).integers(0, 3, 60).astype(float)
    plan = {"n_particles": 8, "smoothing": 0.3, "prior_rows": 5.0}
    zero = density.fit(rows, sample_weight=weights, **plan).density
    left = density.fit(rows[weights > 0], sample_weight=weights[weights > 0], **plan).density
    points = np.linspace(-4, 4, 20)[:, np.newaxis]
    assert_allclose(zero.log_density(points), left.log_density(points), rtol=1e-10)
    # Of one Gaussian, mean and covariance are those of the weighted rows, with the prior beside.
    one = density.fit(rows, sample_weight=weights, n_particles=1, smoothing=0.5, prior_rows=1e-9).density
    assert_allclose(one.means[0, 0], np.average(rows[:, 0], weights=weights), rtol=1e-8)
    assert_allclose(one.covariances[0, 0, 0], np.cov(rows[:, 0], aweights=weights, ddof=0), rtol=1e-6)


def test_the_same_seed_gives_the_same_density_on_any_number_of_threads():
    rows = crossed(120, np.random.default_rng(8))
    one, two = (density.fit(rows, smoothing=0.4, prior_rows=5.0, seed=5, num_threads=n) for n in (1, 2))
    assert one.particles.tobytes() == two.particles.tobytes()
    assert density.fit(rows, smoothing=0.4, prior_rows=5.0, seed=6).particles.tobytes() != one.particles.tobytes()


@pytest.mark.parametrize(
    "rows",
    [
        np.zeros((1, 2)),
        np.zeros((30, 2)),
        np.repeat([[0.0, 1.0], [1.0, 1.0]], 20, axis=0),
        np.eye(40)[:, :3],
        np.arange(20.0)[:, np.newaxis] * [1.0, 2.0, -1.0],
        np.random.default_rng(0).standard_cauchy((60, 2)),
    ],
    ids=["one row", "equal rows", "two values", "rare columns", "a line", "heavy tails"],
)
def test_degenerate_rows_give_a_finite_density(rows):
    found = density.fit(rows, num_threads=1).density
    assert np.isfinite(found.log_density(rows)).all()
    assert np.isfinite(found.sample(10, np.random.default_rng(0))).all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"rows must have shape \(n, p\)"):
        density.fit([1.0, 2.0])
    with pytest.raises(ValueError, match="smoothing must be finite and positive, got -1"):
        density.fit([[1.0], [2.0]], smoothing=-1.0)
    with pytest.raises(ValueError, match="prior_rows must be finite and positive, got 0"):
        density.fit([[1.0], [2.0]], prior_rows=0)
    with pytest.raises(ValueError, match="sample_weight must be at least 0"):
        density.fit([[1.0], [2.0]], sample_weight=[-1, 2])
    with pytest.raises(ValueError, match="squares within double precision"):
        density.fit([[1e200], [-1e200]])


# ---- the estimator ---------------------------------------------------------------------------------------------------


@parametrize_with_checks([MeanFieldDensity(n_steps=5)])
def test_the_checks_of_scikit_learn(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


def test_a_grid_over_smoothing_finds_one_that_is_neither_end():
    rows = crossed(100, np.random.default_rng(9))
    grid = {"smoothing": [0.02, 0.2, 0.4, 3.0]}
    search = GridSearchCV(MeanFieldDensity(prior_rows=5.0, random_state=0), grid, cv=3).fit(rows)
    assert search.best_params_["smoothing"] in (0.2, 0.4)
    scaled = make_pipeline(StandardScaler(), MeanFieldDensity(random_state=0)).fit(rows)
    assert np.isfinite(scaled.score(rows))


def test_score_and_sample_of_the_estimator():
    rows = skewed(150, np.random.default_rng(10))
    model = MeanFieldDensity(random_state=0).fit(rows)
    assert len(model.means_) == 15
    assert model.score(rows) == np.mean(model.score_samples(rows))
    assert (model.smoothing_, model.prior_rows_) == max(model.held_out_, key=model.held_out_.get)
    assert_allclose(model.sample(5, random_state=1), model.sample(5, random_state=1))
    assert model.sample(2000, random_state=0).shape == (2000, 1)
    assert stats.ks_2samp(model.sample(2000, random_state=0)[:, 0], rows[:, 0]).pvalue > 1e-3


def kernel_density(train, test):
    """Held-out log-likelihood of scikit-learn's estimate with a cross-validated bandwidth, of raw and scaled rows."""
    scores = []
    for scales in (np.ones(train.shape[1]), train.std(axis=0)):
        grid = {"bandwidth": np.geomspace(0.03, 1.5, 10) * (1 if (scales != 1).any() else train.std())}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            best = GridSearchCV(KernelDensity(), grid, cv=5).fit(train / scales)
        scores.append(best.score(test / scales) / len(test) - np.sum(np.log(scales)))
    return max(scores)


def halves(rows, seed):
    order = np.random.default_rng(seed).permutation(len(rows))
    cut = int(0.7 * len(rows))
    return rows[order[:cut]], rows[order[cut:]]


@pytest.mark.parametrize("name", ["iris", "wine", "diabetes", "crossed", "skewed"])
def test_a_tenth_of_the_terms_is_at_least_as_good_as_a_kernel_density_estimate(name):
    ours, theirs = [], []
    for seed in range(2 if name in ("iris", "wine") else 1):
        rng = np.random.default_rng(seed)
        if name in ("crossed", "skewed"):
            law = {"crossed": crossed, "skewed": skewed}[name]
            train, test = law(300, rng), law(1000, rng)
        else:
            rows = {"iris": load_iris, "wine": load_wine, "diabetes": load_diabetes}[name]().data
            train, test = halves(rows, seed)
        model = MeanFieldDensity(random_state=seed).fit(train)
        assert len(model.means_) <= max(len(train) // 10, 5)
        ours.append(model.score(test))
        theirs.append(kernel_density(train, test))
    assert np.mean(ours) >= np.mean(theirs)


def test_points_out_of_range_have_no_density(recwarn):
    rows = np.random.default_rng(0).normal(size=(40, 2))
    model = MeanFieldDensity(n_steps=5, random_state=0).fit(rows)
    far = [[1e200, 0.0], [1e300, -1e300], [1.7e308, -1.7e308]]
    scores = model.score_samples([*far, [0.0, 0.0]])
    assert np.isneginf(scores[:3]).all()
    assert np.isfinite(scores[3])
    assert np.isneginf(mfld.mixtures.GaussianMixture(None, np.zeros((2, 2)), 1.0).log_density(far[:1]))
    assert not recwarn.list
