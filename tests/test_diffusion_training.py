"""Scores that are learnt, guidance, likelihoods, latent spaces and the generators made of them."""

import math

import numpy as np
import pytest
from sklearn.datasets import load_digits, make_moons
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

import mfld
from mfld import diffusion
from mfld.mixtures import GaussianMixture
from mfld.sklearn import DiffusionSampler

TWO = GaussianMixture([0.4, 0.6], [[-1.0], [1.2]], [[[0.1]], [[0.2]]])


def drawn(mixture, n, rng):
    chosen = rng.choice(len(mixture.weights), size=n, p=mixture.weights)
    roots = np.linalg.cholesky(mixture.covariances)
    return mixture.means[chosen] + np.einsum("nij,nj->ni", roots[chosen], rng.normal(size=(n, mixture.n_coordinates)))


# ---- denoising -------------------------------------------------------------------------------------------------------


def least(target, variance, alpha, sigma):
    """Least expected squared error of a target on Gaussian data: its variance given x_t, by regression."""
    total = alpha**2 * variance + sigma**2
    own = {
        "noise": (1.0, sigma),
        "data": (variance, alpha * variance),
        "velocity": (sigma**2 * variance + alpha**2, alpha * sigma * (variance - 1)),
    }
    square, product = own[target]
    return square - product**2 / total


@pytest.mark.parametrize("variance", [0.3, 2.0])
@pytest.mark.parametrize("target", diffusion.training.TARGETS)
def test_least_loss_is_the_closed_form_on_gaussian_data(target, variance, rng):
    forward = diffusion.OrnsteinUhlenbeck(horizon=0.50001, earliest=0.5)  # one time
    data = math.sqrt(variance) * rng.normal(size=(20000, 1))
    data *= math.sqrt(variance) / data.std()
    denoising = diffusion.Denoising(data, forward, target=target, n_frequencies=1)
    network = denoising.network("identity", bias=False)
    solver = mfld.MFLD(20, step_size=0.05, temperature=0.0, gradient=mfld.Minibatch(500), dtype="float64")
    result = solver.run(denoising.stream(network), 600)
    n = 200_000
    expected = least(target, variance, math.exp(-0.5), math.sqrt(-math.expm1(-1.0))) / 2
    assert denoising.risk(network, n, step=10**6).loss(result.measure) == pytest.approx(expected, rel=0.02)
    # The score of what was learnt is that of the data.
    score, exact = denoising.score(network, result.measure), -1 / (variance * math.exp(-1) - math.expm1(-1))
    x = np.array([[-1.0], [2.0]])
    np.testing.assert_allclose(score.score(x, 0.5), exact * x, rtol=0.06, atol=0.04)
    np.testing.assert_allclose(score.data(x, 0.5), variance * math.exp(-0.5) * -exact * x, rtol=0.06, atol=0.05)


def test_samples_are_a_pure_function_of_step_and_seed(rng):
    data, labels = rng.normal(size=(50, 3)), rng.integers(0, 4, size=50)
    make = lambda seed: diffusion.Denoising(data, labels=labels, label_dropout=0.25, waves=np.ones((2, 3)), seed=seed)  # noqa: E731
    inputs, targets = make(0).sample(7, 4000)
    again, others, later = make(0).sample(7, 4000), make(1).sample(7, 4000), make(0).sample(8, 4000)
    assert np.array_equal(inputs, again[0])
    assert np.array_equal(targets, again[1])
    assert not np.isclose(inputs[:, 0], others[0][:, 0]).any()
    assert not np.isclose(inputs[:, 0], later[0][:, 0]).any()
    several = make(0).steps(7, 2, 4000)  # steps one after the other
    assert np.array_equal(several[0], np.concatenate([inputs, later[0]]))
    assert np.array_equal(several[1][:4000], targets)
    assert inputs.shape == (4000, make(0).n_features) == (4000, 3 + 8 + 4 + 4)
    indicators = inputs[:, 11:15]
    assert indicators.sum(axis=1).max() == 1
    assert indicators.sum() / 4000 == pytest.approx(0.75, abs=5 * math.sqrt(0.1875 / 4000))
    np.testing.assert_allclose(inputs[:, 15], np.cos(inputs[:, :3].sum(axis=1)), atol=1e-12)
    np.testing.assert_allclose(inputs[:, 17], np.sin(inputs[:, :3].sum(axis=1)), atol=1e-12)


def test_times_have_the_density_that_is_asked_for(rng):
    data = rng.normal(size=(10, 1))
    for times, mean in (("uniform", 2.5), (lambda t: math.exp(-2 * t), 0.5), (lambda t: float(t < 1), 0.5)):
        inputs, _ = diffusion.Denoising(data, times=times).sample(0, 20000)
        tau = np.arccos(np.clip(inputs[:, 2], -1, 1)) / 2  # arctan of sigma / alpha
        assert np.mean(-np.log(np.cos(tau))) == pytest.approx(mean, abs=0.02)


def test_weights_of_times_are_those_of_the_risk(rng):
    data = rng.normal(size=(100, 1))
    denoising = diffusion.Denoising(data)
    network = denoising.network()
    weight = lambda t: math.exp(-3 * t)  # noqa: E731
    plain, weighted = (denoising.risk(network, 3000, weight=each) for each in (None, weight))
    alpha = np.cos(np.arccos(np.clip(plain.inputs[:, 2], -1, 1)) / 2)
    expected = alpha**3 / np.sum(alpha**3)
    np.testing.assert_allclose(weighted.sample_weight, expected, rtol=2e-3)


@pytest.mark.parametrize("target", diffusion.training.TARGETS)
@pytest.mark.parametrize("weighted", [False, True])
def test_divergence_of_a_network_is_its_trace(target, weighted, rng):
    model = mfld.TwoLayerNetwork(2 + 4 + 3 + 6, 2, activation="tanh", output_scale=1.5)
    particles = rng.normal(size=(30, model.n_coordinates))
    weights = rng.dirichlet(np.ones(30)) if weighted else None
    score = diffusion.MeanFieldScore(
        model,
        mfld.Cloud(particles, weights=weights),
        2,
        target=target,
        n_frequencies=4,
        n_classes=3,
        waves=rng.normal(size=(3, 2)),
        label=1,
    )
    x, h, total = rng.normal(size=(9, 2)), 1e-5, 0.0
    for j in range(2):
        e = h * np.eye(2)[j]
        total += (score.noise(x + e, 0.3) - score.noise(x - e, 0.3))[:, j] / (2 * h)
    np.testing.assert_allclose(score.divergence(x, 0.3), total, rtol=1e-6, atol=1e-8)
    alpha, sigma = math.exp(-0.3), math.sqrt(-math.expm1(-0.6))
    np.testing.assert_allclose(score.data(x, 0.3), (x - sigma * score.noise(x, 0.3)) / alpha, rtol=1e-9, atol=1e-9)


def test_score_converges_to_the_exact_one_as_neurons_grow(rng):
    data = drawn(TWO, 20000, rng)
    scale = data.std()
    exact = diffusion.ExactScore(GaussianMixture(TWO.weights, TWO.means / scale, TWO.covariances / scale**2))
    denoising = diffusion.Denoising((data / scale).astype(np.float32))
    errors = []
    for n in (3, 12, 100):
        result = mfld.MFLD(
            n,
            step_size=diffusion.fitting._HalfCosine(0.1, 2000),
            temperature=1e-10,
            gradient=mfld.Minibatch(256),
            dynamics=mfld.Preconditioned(decay=0.99),
        ).run(denoising.stream(denoising.network("tanh")), 2000, record_every=2000)
        score, squares = denoising.score(denoising.network("tanh"), result.measure), []
        for time in (0.05, 0.2, 0.6):
            x = exact.forward.diffused(data[:2000] / scale, rng.normal(size=(2000, 1)), time)
            squares.append(np.mean((score.noise(x, time) - exact.noise(x, time)) ** 2))
        errors.append(math.sqrt(np.mean(squares)))
    assert errors[0] > 1.5 * errors[1] > 2 * errors[2]
    assert errors[2] < 0.08  # of noise with deviation 1


def test_residual_networks_learn_scores(rng):
    data = drawn(TWO, 2000, rng)
    scale = data.std()
    exact = diffusion.ExactScore(GaussianMixture(TWO.weights, TWO.means / scale, TWO.covariances / scale**2))
    denoising = diffusion.Denoising((data / scale).astype(np.float32))
    network = denoising.residual(depth=3, n_hidden=2)
    solver = mfld.MFLD(
        40,
        step_size=diffusion.fitting._HalfCosine(0.03, 500),
        temperature=1e-8,
        gradient=mfld.Minibatch(256),
        dynamics=mfld.Preconditioned(decay=0.99),
    )
    result = solver.run(denoising.risk(network, 20000), 500, record_every=500)
    score = denoising.score(network, result.measure)
    assert "120 particles, 1 coordinate, " in repr(score)
    gaussian = diffusion.ExactScore(GaussianMixture(None, [data.mean(axis=0) / scale], 1.0))
    wrong, linear = [], []
    for time in (0.1, 0.4, 1.0):
        x = exact.forward.diffused(data[:1000] / scale, rng.normal(size=(1000, 1)), time)
        wrong.append(np.mean((score.noise(x, time) - exact.noise(x, time)) ** 2))
        linear.append(np.mean((gaussian.noise(x, time) - exact.noise(x, time)) ** 2))
    assert np.mean(wrong) < 0.2 * np.mean(linear)  # it sees more than mean and variance
    draws = diffusion.sample(score, 2000, n_steps=30) * scale
    assert draws.mean() == pytest.approx(data.mean(), abs=0.1)
    assert draws.std() == pytest.approx(scale, rel=0.1)
    found = diffusion.log_likelihood(score, draws[:5] / scale, n_steps=20)  # the divergence is estimated
    assert np.isfinite(found).all()
    with pytest.raises(ValueError, match=r"measure must have shape \(3, N, 2[0-9]\)"):
        denoising.score(network, result.particles[:2])


ALGORITHMS = {
    "svrg": lambda: mfld.MFLD(60, step_size=0.1, temperature=1e-6, gradient=mfld.SVRG(50)),
    "underdamped": lambda: mfld.MFLD(60, step_size=0.3, temperature=1e-6, dynamics=mfld.Underdamped(1.0)),
    "pda": lambda: mfld.PDA(60, step_size=0.1, temperature=1e-3, inner_steps=5),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_trains_a_score(name, rng):
    denoising = diffusion.Denoising(drawn(TWO, 1000, rng).astype(np.float32))
    network = denoising.network("tanh", readout="bounded", readout_bound=10.0)
    risk = denoising.risk(network, 2000, l2=1e-4)
    result = ALGORITHMS[name]().run(risk, 150)
    assert risk.loss(result.measure) < 0.95 * risk.loss(np.zeros_like(result.particles))


# ---- guidance --------------------------------------------------------------------------------------------------------


def test_guidance_by_the_exact_classifier_is_the_conditional_score(rng):
    score, one = (
        diffusion.ExactScore(TWO),
        diffusion.ExactScore(GaussianMixture(None, TWO.means[1:], TWO.covariances[1:])),
    )

    def gradient(x, time, h=1e-5):
        def log_share(x):
            joint = one.forward.marginal(one.mixture, time).log_density(x) + math.log(0.6)
            return joint - score.forward.marginal(TWO, time).log_density(x)

        return ((log_share(x + h) - log_share(x - h)) / (2 * h))[:, np.newaxis]

    x = rng.normal(size=(20, 1))
    guided = diffusion.ClassifierGuided(score, gradient)
    np.testing.assert_allclose(guided.score(x, 0.3), one.score(x, 0.3), rtol=1e-5, atol=1e-6)
    draws = diffusion.sample(guided, 500, n_steps=30)
    assert draws.mean() == pytest.approx(1.2, abs=5 * math.sqrt(0.2 / 500) + 0.02)
    for weight, expected in ((0.0, one), (-1.0, score)):
        free = diffusion.ClassifierFree(one, score, weight)
        np.testing.assert_allclose(free.noise(x, 0.3), expected.noise(x, 0.3), rtol=1e-12)
    strong = diffusion.ClassifierFree(one, score, 2.0).score(x, 0.3)
    np.testing.assert_allclose(strong, 3 * one.score(x, 0.3) - 2 * score.score(x, 0.3), rtol=1e-10)


# ---- likelihoods -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forward", [diffusion.OrnsteinUhlenbeck(8.0), diffusion.VariancePreserving(), None], ids=repr)
def test_likelihood_is_the_exact_one(forward, rng):
    forward = diffusion.VarianceExploding(400.0) if forward is None else forward
    law = GaussianMixture([1, 2], [[-1.0, 0.0], [1.0, 0.5]], [[[0.2, 0.1], [0.1, 0.3]], np.eye(2) * 0.2])
    score, x = diffusion.ExactScore(law, forward), drawn(law, 40, rng)
    exact = forward.marginal(law, forward.earliest).log_density(x)
    # At the horizon X_T is taken for noise, which is wrong by alpha / sigma times the size of the data and the noise.
    end = 3 / float(forward.ratio(forward.horizon))
    np.testing.assert_allclose(diffusion.log_likelihood(score, x), exact, atol=2e-3 + end)
    estimated = diffusion.log_likelihood(score, x, n_probes=20, n_steps=40)
    assert np.mean(estimated - exact) == pytest.approx(0, abs=0.1)
    assert np.abs(estimated - exact).max() > 1e-3  # they are estimates
    bare = diffusion.FunctionScore(score.noise, 2, forward)
    assert np.mean(diffusion.log_likelihood(bare, x, n_steps=40) - exact) == pytest.approx(0, abs=0.2)


# ---- latent spaces ---------------------------------------------------------------------------------------------------


def test_principal_components_are_those_of_the_singular_values(rng):
    data = rng.normal(size=(100, 5)) @ rng.normal(size=(5, 5)) + 3
    latent = diffusion.PrincipalAxes(3).fitted(data)
    _, values, axes = np.linalg.svd(data - data.mean(axis=0), full_matrices=False)
    codes = latent.encode(data)
    assert np.mean(codes**2) == pytest.approx(1, rel=1e-10)
    np.testing.assert_allclose(codes.std(axis=0), values[:3] / np.sqrt(np.mean(values[:3] ** 2)), rtol=1e-9)
    projected = data.mean(axis=0) + (data - data.mean(axis=0)) @ axes[:3].T @ axes[:3]
    np.testing.assert_allclose(latent.decode(codes), projected, rtol=1e-8)
    with pytest.raises(ValueError, match=r"n_components must be at most 5 for data of shape \(100, 5\)"):
        diffusion.PrincipalAxes(6).fitted(data)
    with pytest.raises(ValueError, match="latent must be between 1 and 5, got 6"):
        diffusion.fit(data, latent=6)


SPACES = {"standardised": lambda: None, "principal": lambda: 2}


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("size", [1e200, 1e-200, 1e300, 1e-310, 1.0])
def test_columns_of_every_size_are_alike(name, size, rng):
    rows = rng.normal(size=(200, 2)) @ np.array([[1.0, 0.5], [0.0, 1.0]])
    new = diffusion.fit(rows * size, latent=SPACES[name](), n_particles=50, n_steps=200).sample(300) / size
    assert np.abs(new.mean(axis=0) - rows.mean(axis=0)).max() < 0.35
    assert new.std(axis=0) == pytest.approx(rows.std(axis=0), rel=0.3)


@pytest.mark.parametrize("name", SPACES)
def test_offsets_far_above_the_spread_are_kept(name, rng):
    rows = 1e9 + 1e-5 * rng.normal(size=(200, 2))
    new = diffusion.fit(rows, latent=SPACES[name](), n_particles=50, n_steps=200).sample(300)
    assert np.abs(new - 1e9).max() < 6e-5
    assert (new - 1e9).std() == pytest.approx(1e-5, rel=0.3)
    same = np.full((50, 2), 1e9) + 1e-8 * rng.normal(size=(50, 2))  # which are 1e9 in double precision
    assert np.array_equal(diffusion.fit(same, latent=SPACES[name](), n_particles=9, n_steps=9).sample(20), same[:20])


@pytest.mark.parametrize("latent", [None, 3, 4])
def test_a_constant_column_comes_back_as_it_is(latent, rng):
    rows = rng.normal(size=(100, 4))
    rows[:, 1], rows[:, 3] = 0.1, 2 * rows[:, 0] - 1
    new = diffusion.fit(rows, latent=latent, n_particles=20, n_steps=20).sample(50)
    assert (new[:, 1] == 0.1).all()
    if latent:  # data of two dimensions have samples of two
        np.testing.assert_allclose(new[:, 3], 2 * new[:, 0] - 1, atol=1e-6)
    lone = diffusion.fit([[0.1, 7.0]], latent=None if latent is None else 1, n_particles=5, n_steps=5).sample(3)
    assert np.array_equal(lone, [[0.1, 7.0]] * 3)


def test_latent_points_of_a_space_are_standard_in_every_size(rng):
    for size in (1e-320, 1e-160, 1.0, 1e160, 1e307):
        rows = size * np.array([[1.0, 2.0], [2.0, 8.0], [3.0, 5.0]])
        own = diffusion.Standardised().fitted(rows)
        codes = own.encode(rows)
        # Denormal numbers have few digits.
        np.testing.assert_allclose(
            codes,
            (np.array([[1, 2], [2, 8], [3, 5]]) - [2, 5]) / [(2 / 3) ** 0.5, 6**0.5],
            rtol=1e-12,
            atol=1e-3 if size < 1e-300 else 1e-12,
        )
        np.testing.assert_allclose(own.decode(codes), rows, rtol=1e-12, atol=1e-323)


def test_own_coders(rng):
    rows = np.exp(rng.normal(size=(300, 2)))
    model = diffusion.fit(rows, latent=diffusion.Coders(np.log, np.exp), n_particles=100, n_steps=500)
    draws = model.sample(500)
    assert (draws > 0).all()
    assert np.log(draws).std() == pytest.approx(1, abs=0.2)


# ---- generators ------------------------------------------------------------------------------------------------------


def test_samples_of_two_moons_are_not_told_from_the_data():
    rows, _ = make_moons(1000, noise=0.06, random_state=0)
    fresh, _ = make_moons(600, noise=0.06, random_state=1)
    new = diffusion.fit(rows, n_particles=300, n_steps=2000).sample(600)
    told = cross_val_score(KNeighborsClassifier(15), np.r_[fresh, new], np.repeat([0, 1], 600), cv=5).mean()
    assert told < 0.57
    worse = cross_val_score(
        KNeighborsClassifier(15),
        np.r_[fresh, new + 0.2 * np.random.default_rng(0).normal(size=new.shape)],
        np.repeat([0, 1], 600),
        cv=5,
    ).mean()
    assert worse > 0.6  # what the test can see


def test_labels_have_their_rows_and_shares(rng):
    labels = np.where(rng.random(1000) < 0.25, "left", "right")
    rows = rng.normal(size=(1000, 2)) * 0.5 + np.where(labels == "left", -2.0, 2.0)[:, np.newaxis]
    model = diffusion.fit(rows, labels, n_particles=200, n_steps=1500)
    assert model.classes.tolist() == ["left", "right"]
    assert model.frequencies == pytest.approx([np.mean(labels == "left"), np.mean(labels == "right")])
    assert np.mean(model.sample(400, "left")[:, 0] < 0) > 0.97
    assert np.mean(model.sample(400, ["left", "right"] * 200)[:, 0] < 0) == pytest.approx(0.5, abs=0.03)
    share = np.mean(model.sample(2000)[:, 0] < 0)
    assert share == pytest.approx(np.mean(labels == "left"), abs=5 * math.sqrt(0.19 / 2000) + 0.02)
    assert np.mean(model.sample(400, "left", guidance=1.0)[:, 0] < 0) > 0.97
    for wrong, message in (
        ("up", "label must be one of left, right, got 'up'"),
        (["left"] * 3, "label must be one label or 5"),
    ):
        with pytest.raises(ValueError, match=message):
            model.sample(5, wrong)
    with pytest.raises(ValueError, match="guidance must be 0 without a label, got 1"):
        model.sample(5, guidance=1.0)


def test_rows_asked_for_by_a_rare_label_are_of_it(rng):
    labels = np.repeat([0, 1], [997, 3])
    rows = rng.normal(size=(1000, 2)) * 0.3 + np.where(labels == 1, 3.0, 0.0)[:, np.newaxis]
    model = diffusion.fit(rows, labels, n_particles=150, n_steps=800)
    assert np.mean(model.sample(300, 1)[:, 0] > 1.5) > 0.95
    assert np.mean(model.sample(300, 0)[:, 0] > 1.5) < 0.02
    assert np.mean(model.sample(2000)[:, 0] > 1.5) < 0.015  # shares are those of the rows: 0.003


def test_labels_are_drawn_by_the_root_of_their_number_and_rows_without_one_evenly():
    labels = np.repeat([0, 1, 2], [64, 16, 1])
    data = np.arange(81.0)[:, np.newaxis]
    denoising = diffusion.Denoising(data, labels=labels, label_dropout=0.5, target="data")
    inputs, rows = denoising.sample(0, 60000)
    known = inputs[:, -3:].any(axis=1)
    assert np.array_equal(labels[rows[known, 0].astype(int)], inputs[known, -3:].argmax(axis=1))
    for chosen, shares in ((known, np.repeat([1 / 8, 1 / 4, 1.0], [64, 16, 1]) / 13), (~known, np.full(81, 1 / 81))):
        seen = np.bincount(rows[chosen, 0].astype(int), minlength=81) / chosen.sum()
        assert np.abs(seen - shares).max() < 5 * np.sqrt(shares.max() / chosen.sum())


@pytest.fixture(scope="module")
def labelled():
    rows = np.random.default_rng(0).normal(size=(40, 2))
    return rows, diffusion.fit(rows, [0, 1] * 20, n_particles=5, n_steps=5)


def test_likelihoods_are_of_rows_with_all_columns(labelled):
    _, model = labelled
    for wrong in ([[1.0]], [[1.0, 2.0, 3.0]], [1.0, 2.0]):
        with pytest.raises(ValueError, match=r"points must have shape \(n, 2\).* to match the columns of the data"):
            model.log_likelihood(wrong)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        ([0, np.nan] * 20, ValueError, "y must have a label for each row, got nan at index 1"),
        (["a", np.nan] * 20, TypeError, "y must be all numbers or all texts, got 'a' and, at index 1, nan"),
        ([None, "a"] * 20, TypeError, "y must be all numbers or all texts, got None and, at index 1, 'a'"),
        ([None] * 40, ValueError, r"y must be numbers or texts of shape \(40,\) to match X, got object"),
        (["a", 1] * 20, TypeError, "y must be all numbers or all texts, got 'a' and, at index 1, 1"),
        ([[1], [1, 2]] * 20, ValueError, r"y must be numbers or texts of shape \(40,\) to match X: setting"),
        (np.ma.array([0, 1] * 20, mask=[0, 1] * 20), ValueError, "y must have no masked values, got 20"),
        ([[0, 1]] * 20, ValueError, r"y must be numbers or texts of shape \(40,\) to match X, got int64"),
    ],
)
def test_labels_that_are_none_are_refused(y, error, message, labelled):
    with pytest.raises(error, match=message):
        diffusion.fit(labelled[0], y, n_particles=5, n_steps=5)


def test_labels_may_be_objects(labelled):
    rows, _ = labelled
    for y, classes in ((["b", "a"] * 20, ["a", "b"]), ([2, 1] * 20, [1, 2]), ([True, False] * 20, [False, True])):
        for given in (y, np.array(y, dtype=object), np.array(y)):
            assert diffusion.fit(rows, given, n_particles=5, n_steps=5).classes.tolist() == classes
            own = DiffusionSampler(n_particles=5, n_steps=5).fit(rows, given)
            assert own.classes_.tolist() == classes
            assert own.sample(2, label=y[0]).shape == (2, 2)


@pytest.mark.parametrize(
    "label", [{}, {1}, None, "1", np.nan, [[1], [1, 2], [3]], np.ma.array([0, 1, 1], mask=[1, 0, 0])]
)
def test_labels_that_no_row_has_are_refused(label, labelled):
    with pytest.raises(ValueError, match="label must "):
        labelled[1].sample(3, label=[label, 0, 0] if label is None else label)


def test_samples_of_training_have_steps_and_rows(rng):
    denoising = diffusion.Denoising(rng.normal(size=(5, 2)))
    for call, message in (
        (lambda: denoising.sample(-1, 3), "step must be between 0 and .*, got -1"),
        (lambda: denoising.sample(0, 0), "n_rows must be at least 1, got 0"),
        (lambda: denoising.steps(0, 0, 3), "n_steps must be between 1 and .*, got 0"),
        (lambda: denoising.steps(2**48 - 1, 2, 3), "n_steps must be between 1 and 1, got 2"),
        (lambda: diffusion.Denoising([[1.0]], labels=[10**9]), "labels must be numbers of classes, from 0 to 999999"),
        (lambda: diffusion.Denoising([[1.0]], labels=[-1]), "labels must be numbers of classes, .* got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match=r"step must be an integer, got 0\.5"):
        denoising.sample(0.5, 3)


def test_fits_and_samples_have_the_same_bits_for_any_number_of_threads(rng):
    rows = rng.normal(size=(200, 3))
    models = [diffusion.fit(rows, n_particles=300, n_steps=60, num_threads=n) for n in (1, 3)]
    draws = [model.sample(500, num_threads=n) for model, n in zip(models, (1, 2), strict=True)]
    assert draws[0].tobytes() == draws[1].tobytes()


def test_likelihood_of_a_model_prefers_its_data(rng):
    rows = rng.normal(size=(500, 2))
    model = diffusion.fit(rows, n_particles=100, n_steps=800)
    found = model.log_likelihood(rows[:50])
    exact = -np.sum(model.latent.encode(rows[:50]) ** 2, axis=1) / 2 - math.log(2 * math.pi)
    assert np.mean(np.abs(found - exact)) < 0.5
    assert model.log_likelihood([[6.0, 6.0]])[0] < found.min()


def digits_told_apart(n_particles, n_steps):
    """Accuracy of a classifier of other pictures on conditional samples, and distances to the nearest picture."""
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(pixels))
    train, test = order[:1200], order[1200:]
    model = diffusion.fit(pixels[train], labels[train], latent=32, n_particles=n_particles, n_steps=n_steps)
    wanted = np.arange(300) % 10
    new = model.sample(300, wanted, seed=1)
    accuracy = SVC(gamma=0.001).fit(pixels[test], labels[test]).score(new, wanted)

    def nearest(pictures):
        return np.sqrt(((pictures[:, np.newaxis] - pixels[train]) ** 2).sum(axis=-1)).min(axis=1)

    return accuracy, nearest(new), nearest(pixels[test][:300])


def test_digits_are_recognised_and_no_copies():
    accuracy, new, fresh = digits_told_apart(300, 1000)
    assert accuracy >= 0.85
    assert np.median(new) > 0.8 * np.median(fresh)
    assert np.quantile(new, 0.01) > 0.5 * np.quantile(fresh, 0.01)


@pytest.mark.slow
def test_digits_of_the_command_are_recognised():
    accuracy, new, fresh = digits_told_apart(1000, 3000)
    assert accuracy >= 0.92
    assert 0.8 < np.median(new) / np.median(fresh) < 1.2


@parametrize_with_checks([DiffusionSampler(n_particles=10, n_steps=5)])
@pytest.mark.filterwarnings("ignore")
def test_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


def test_the_estimator_is_the_function(rng):
    rows = rng.normal(size=(60, 2))
    own = DiffusionSampler(n_particles=20, n_steps=30, random_state=0).fit(rows)
    assert own.classes_ is None
    assert np.array_equal(own.sample(5, random_state=1), own.sample(5, random_state=1))
    assert not np.array_equal(own.sample(5, random_state=1), own.sample(5, random_state=2))
    assert own.sample().shape == (1, 2)
