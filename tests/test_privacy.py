"""Noise for privacy, what it costs, private embeddings, and the matching of features."""

import itertools
import math
import pickle
import random

import mpmath
import numpy as np
import pytest
from scipy import optimize, stats

import mfld
from mfld import features as ft
from mfld import privacy

SEEDED = pytest.mark.filterwarnings("ignore::mfld.privacy.PrivacyWarning")
RNG = np.random.default_rng(0)


def mixed(neighbours=None, **shares):
    """Features of three numbers, two categories and a label."""
    return privacy.table_features(3, [4, 3, 2], label=2, waves=20, **shares)


def rows(n, rng, sizes=(4, 3, 2), d=3):
    return rng.uniform(size=(n, d)), np.stack([rng.integers(-1, size, size=n) for size in sizes], axis=1)


# ---- calibration -----------------------------------------------------------------------------------------------------


def exact_delta(epsilon, s):
    """Closed form of the Gaussian mechanism in 60 digits."""
    with mpmath.workdps(60):
        epsilon, s = mpmath.mpf(epsilon), mpmath.mpf(s)
        return mpmath.ncdf(1 / (2 * s) - epsilon * s) - mpmath.exp(epsilon) * mpmath.ncdf(-1 / (2 * s) - epsilon * s)


@pytest.mark.parametrize("epsilon", [0.0, 0.01, 0.5, 1.0, 4.0, 20.0, 200.0])
@pytest.mark.parametrize("s", [0.05, 0.3, 1.0, 4.0, 50.0])
def test_delta_is_the_closed_form(epsilon, s):
    exact = float(exact_delta(epsilon, s))
    assert privacy.gaussian_delta(epsilon, s) == pytest.approx(exact, rel=1e-9, abs=1e-16)


@pytest.mark.parametrize(("epsilon", "delta"), [(0.01, 1e-6), (0.1, 1e-5), (1.0, 1e-5), (1.0, 0.3), (8.0, 1e-9)])
def test_multiplier_is_the_least_that_suffices(epsilon, delta):
    s = privacy.noise_multiplier(epsilon, delta)
    assert exact_delta(epsilon, s) <= delta * (1 + 1e-9)
    assert exact_delta(epsilon, s * (1 - 1e-6)) > delta
    assert privacy.gaussian_epsilon(delta, s) == pytest.approx(epsilon, rel=1e-8)
    if epsilon <= 1 and delta < 0.1:  # where the classical rule holds, it has more noise
        assert s < math.sqrt(2 * math.log(1.25 / delta)) / epsilon


@pytest.mark.slow
def test_calibration_of_the_accountant_library():
    accounting = pytest.importorskip("dp_accounting")
    for epsilon, delta in ((0.5, 1e-6), (1.0, 1e-5), (4.0, 1e-3)):
        event = accounting.GaussianDpEvent(privacy.noise_multiplier(epsilon, delta))
        accountant = accounting.pld.PLDAccountant(value_discretization_interval=1e-5).compose(event)
        assert accountant.get_epsilon(delta) == pytest.approx(epsilon, rel=1e-3)


def test_what_noise_of_whole_numbers_lacks_is_part_of_the_claim():
    """M values add (1 + exp(epsilon)) M / (32 4**30) to delta, at the epsilon that is claimed."""
    for asked in (2.0, 20.0, 22.0, 25.0):
        s = privacy.noise_multiplier(asked, 1e-5)
        found = privacy.Ledger((privacy.Expense("a", s, 1.0, 100_000),)).epsilon(1e-5)
        assert found > asked
        if found < math.inf:
            distance = 100_000 / (32 * 2.0**60)
            assert exact_delta(found, s) + (1 + math.exp(found)) * distance <= 1e-5 * (1 + 1e-9)
    assert found == math.inf


def test_releases_add_up():
    s = privacy.noise_multiplier(1.0, 1e-5)
    ledger = privacy.Ledger((privacy.Expense("a", s, 2.0), privacy.Expense("b", 2 * s, 1.0, 10)))
    # Losses of independent Gaussian mechanisms are normal with squared means that add.
    assert ledger.noise_multiplier == pytest.approx(1 / math.sqrt(s**-2 + (2 * s) ** -2))
    assert ledger.epsilon(1e-5) == pytest.approx(privacy.gaussian_epsilon(1e-5, ledger.noise_multiplier), rel=1e-9)
    assert ledger.epsilon(1e-5) > 1
    threshold = privacy.Ledger((privacy.Expense("c", s, 1.0, 1, 5e-6),))
    assert threshold.epsilon(1e-5) == pytest.approx(privacy.gaussian_epsilon(5e-6, s), rel=1e-9)
    assert threshold.epsilon(5e-6) == math.inf
    assert privacy.Ledger.from_json(ledger.as_json()) == ledger
    assert privacy.Ledger().epsilon(1e-5) == 0
    with pytest.raises(ValueError, match="neighbours must be the same"):
        ledger + privacy.Ledger((privacy.Expense("d", s, 1.0),), "add_remove")


# ---- noise -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deviation", [1, 3])
def test_law_of_the_discrete_gaussian(deviation):
    n, source = 20000, random.Random(1)
    drawn = np.array([privacy.discrete_gaussian(deviation, source) for _ in range(n)])
    support = np.arange(-4 * deviation, 4 * deviation + 1)
    weights = np.exp(-(np.arange(-200, 201) ** 2) / (2 * deviation**2))
    expected = np.exp(-(support**2) / (2 * deviation**2)) / weights.sum()
    seen = np.array([(drawn == k).sum() for k in support])
    kept = n * expected >= 5
    assert np.sum((seen - n * expected)[kept] ** 2 / (n * expected)[kept]) < stats.chi2.ppf(1 - 1e-6, kept.sum())


def test_noise_of_a_release_is_normal_and_on_the_grid():
    mechanism = privacy.GaussianMechanism(3.0, 2.0)
    values = RNG.uniform(-1, 1, size=6000)
    released = mechanism.release(mechanism.on_grid(values), random.Random(2))
    # The low-order bits tell nothing: whatever the value, only whole units are possible.
    units = released / mechanism.unit
    assert np.array_equal(units, np.round(units))
    assert len({int(unit) % 2 for unit in units}) == 2
    noise = (released - values) / mechanism.deviation
    assert stats.kstest(noise, "norm").pvalue > 1e-6
    assert abs(noise.std() - 1) < 5 / math.sqrt(2 * len(noise))


def test_values_are_cut_towards_zero():
    mechanism = privacy.GaussianMechanism(1.0, 1.0)
    values = RNG.uniform(-1, 1, size=1000)
    units = mechanism.on_grid(values)
    assert (np.abs(units * mechanism.unit) <= np.abs(values)).all()
    assert np.abs(units * mechanism.unit - values).max() < mechanism.unit


def test_noise_is_secret_unless_a_seed_says_otherwise():
    first, second = (privacy.generator().getrandbits(64) for _ in range(2))
    assert first != second
    with pytest.warns(privacy.PrivacyWarning, match="NOT PRIVATE: the noise is made from the seed 3"):
        known = privacy.generator(3)
    assert known.getrandbits(64) == random.Random(3).getrandbits(64)
    with pytest.raises(TypeError, match="not to be copied"):
        pickle.dumps(privacy.generator())
    shares = np.bincount([privacy.generator().randrange(5) for _ in range(5000)], minlength=5) / 5000
    assert np.abs(shares - 0.2).max() < 5 * math.sqrt(0.16 / 5000)


# ---- sensitivity -----------------------------------------------------------------------------------------------------


def sums(table, features, mechanism):
    return privacy.embedding.grid_sum(*features.check_rows(*table), features, mechanism)


def test_sums_are_exact_and_know_no_order():
    features, mechanism = mixed(), privacy.GaussianMechanism(1.0, 2.0)
    x, c = rows(6000, np.random.default_rng(1))
    total = sums((x, c), features, mechanism)
    shuffled = np.random.default_rng(2).permutation(len(x))
    assert np.array_equal(sums((x[shuffled], c[shuffled]), features, mechanism), total)
    parts = sums((x[:100], c[:100]), features, mechanism) + sums((x[100:], c[100:]), features, mechanism)
    assert np.array_equal(parts, total)
    assert np.abs(total * mechanism.unit - features.of_rows(x, c).sum(axis=0)).max() < 1e-4


def length(units):
    """Euclidean length of whole numbers, rounded up."""
    return math.isqrt(sum(int(unit) ** 2 for unit in units)) + 1


@pytest.mark.parametrize("by_label", [True, False])
@pytest.mark.parametrize("neighbours", privacy.NEIGHBOURS)
def test_no_neighbours_are_further_apart_than_the_sensitivity(neighbours, by_label):
    features = mixed(by_label=by_label)
    sensitivity = 2.0 if neighbours == "replace" else 1.0
    mechanism, rng = privacy.GaussianMechanism(0.7, sensitivity), np.random.default_rng(3)
    common = rows(5, rng)

    def distance(a, b):
        """Between tables that have the row a, and the row b or none in its place."""
        first = sums([np.vstack(pair) for pair in zip(common, a, strict=True)], features, mechanism)
        other = common if b is None else [np.vstack(pair) for pair in zip(b, common, strict=True)]
        return length(first - sums(other, features, mechanism)) * mechanism.unit

    largest = 0.0
    for trial in range(12):  # an adversary who climbs, from rows drawn at random and from corners
        a, b = (rows(1, rng) for _ in range(2))
        if trial % 2:
            a, b = ((np.round(x), c) for x, c in (a, b))
        best = distance(a, None if neighbours == "add_remove" else b)
        for _ in range(25):
            moved = [(np.clip(x + rng.normal(size=x.shape) / 5, 0, 1), c) for x, c in (a, b)]
            tried = distance(moved[0], None if neighbours == "add_remove" else moved[1])
            if tried > best:
                best, (a, b) = tried, moved
        largest = max(largest, best)
    assert largest <= sensitivity + mechanism.unit  # the length was rounded up
    assert largest > 0.6 * sensitivity


@pytest.mark.parametrize(("neighbours", "sensitivity"), [("replace", 2.0), ("add_remove", 1.0)])
def test_the_sensitivity_is_reached(neighbours, sensitivity):
    wave = ft.ProductFeatures(1, [], [ft.Waves([0], [[math.pi]])], [ft.Block((0,))])
    mechanism = privacy.GaussianMechanism(1.0, sensitivity)
    ends = [sums(([[x]], np.zeros((1, 0), int)), wave, mechanism) for x in (0.0, 1.0)]
    apart = ends[0] - ends[1] if neighbours == "replace" else ends[0]
    assert sensitivity * (1 - 1e-6) < length(apart) * mechanism.unit <= sensitivity + mechanism.unit


# ---- the guarantee, audited ------------------------------------------------------------------------------------------


def empirical_epsilon(statistics, delta, confidence=0.99):
    """Lower confidence bound on epsilon from a distinguishing game, by the best threshold of an independent half."""
    halves = [np.sort(values[: len(values) // 2]) for values in statistics]
    tests = [values[len(values) // 2 :] for values in statistics]
    grid = np.quantile(np.concatenate(halves), np.linspace(0.02, 0.98, 97))
    above = [1 - np.searchsorted(values, grid) / len(values) for values in halves]
    threshold = grid[np.argmax((above[1] - delta) / np.maximum(above[0], 0.01))]
    false, true = (int((values > threshold).sum()) for values in tests)
    n = len(tests[0])
    share = (1 - confidence) / 2
    low = stats.beta.ppf(share, true, n - true + 1)  # Clopper-Pearson
    high = stats.beta.ppf(1 - share, false + 1, n - false)
    return math.log((low - delta) / high) if low > delta else 0.0


def game(noise_multiplier, neighbours, n=6000):
    """What an adversary sees of a release from neighbouring tables, along the direction in which they differ."""
    wave = ft.ProductFeatures(1, [], [ft.Waves([0], [[math.pi]])], [ft.Block((0,))])
    codes = np.zeros((2, 0), int)
    tables = ([[0.5], [1.0]], [[0.5], [0.0]]) if neighbours == "replace" else ([[0.5]], [[0.5], [0.0]])
    source = random.Random(5)
    return [
        np.array(
            [
                privacy.PrivateEmbedding(
                    table,
                    codes[: len(table)],
                    wave,
                    noise_multiplier=noise_multiplier,
                    neighbours=neighbours,
                    n_rows=None if neighbours == "replace" else 1.0,
                    seed=source,
                ).mean[0]
                for _ in range(n)
            ]
        )
        for table in tables
    ]


@pytest.mark.parametrize("neighbours", privacy.NEIGHBOURS)
def test_the_guarantee_holds_and_half_the_noise_breaks_it(neighbours):
    epsilon, delta = 1.0, 0.2
    s = privacy.noise_multiplier(epsilon, delta)
    claimed = empirical_epsilon(game(s, neighbours), delta)
    assert 0.6 < claimed <= epsilon  # the adversary is good
    assert empirical_epsilon(game(s / 2, neighbours), delta) > 1.5 * epsilon


# ---- features of particles -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [None, 1])
def test_features_of_a_particle_are_those_of_the_rows_that_it_draws(label):
    features = privacy.table_features(2, [3, 2], label, waves=5)
    fit = mfld.FeatureMatching(features, np.zeros(features.n_features))
    points = fit.initial_particles(4, 0, "float64")
    probabilities = [features.probabilities(points, t) for t in range(2)]
    expected = np.zeros(features.n_features)
    for m, (a, b) in itertools.product(range(4), itertools.product(range(3), range(2))):
        phi = features.of_rows(points[[m], :2], [[a, b]])[0]
        expected += probabilities[0][m, a] * probabilities[1][m, b] * phi / 4
    np.testing.assert_allclose(features.mean(points), expected, atol=1e-10)


def test_a_category_that_is_not_known_has_no_features():
    features = privacy.table_features(0, [3, 2], None)
    phi = features.of_rows(np.zeros((2, 0)), [[-1, -1], [1, 0]])
    assert (phi[0] == 0).all()
    assert np.sum(phi[1] ** 2) == pytest.approx(1, abs=1e-9)


def test_columns_of_numbers_are_known_for_each_class_or_for_all_rows():
    """By their parts: 3 numbers of 24 waves each, categories of 4 and 3 values, 40 waves of all numbers, 2 classes."""
    rng = np.random.default_rng(1)
    x, codes = rng.uniform(size=(50, 3)), np.stack([rng.integers(0, size, size=50) for size in (4, 3, 2)], axis=1)
    found = {}
    for by_label in (True, False):
        features = mixed(by_label=by_label, pairs=0.0)
        phi = features.of_rows(x, codes)
        np.testing.assert_allclose(np.sum(phi**2, axis=1), 1, atol=1e-9)
        found[by_label] = [
            (part.stop - part.start, np.mean(np.sum(phi[:, part] ** 2, axis=1))) for part in features.parts
        ]
    assert [width for width, _ in found[True]] == [48, 48, 48, 8, 6, 80, 2]
    assert [width for width, _ in found[False]] == [24, 24, 24, 8, 6, 80, 2]
    each = np.array([0.08] * 5 + [0.3, 0.1]) / 0.8  # 0.4 of five columns, 0.3, and 0.1 of the classes
    np.testing.assert_allclose([length for _, length in found[True]], each, atol=1e-9)
    moved = np.array([-0.06] * 3 + [0, 0, 0.18, 0]) / 0.8  # three quarters of the share of three columns
    np.testing.assert_allclose([length for _, length in found[False]], each + moved, atol=1e-9)
    assert privacy.table_features(1, [2], label=0, by_label=False).parts[0].stop == 48  # nothing else has the classes


def test_waves_have_the_kernel():
    waves = ft.ProductFeatures(2, [], [ft.Waves.gaussian((0, 1), 4000, 0.3)], [ft.Block((0,))])
    phi = waves.of_rows([[0.2, 0.3], [0.5, 0.1]], np.zeros((2, 0), int))
    assert phi[0] @ phi[1] == pytest.approx(math.exp(-0.13 / (2 * 0.09)), abs=5 / math.sqrt(4000))


@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_by_finite_differences(weighted):
    features = mixed()
    target = RNG.normal(size=features.n_features) / 30
    weights = RNG.uniform(size=features.n_features) if weighted else None
    fit = mfld.FeatureMatching(features, target, weights=weights, label_shares=[0.3, 0.7])
    points = fit.initial_particles(10, 0, "float64")
    gradient = fit.loss_gradient(points)
    assert (gradient[:, features.space.n_moving :] == 0).all()
    for m, j in itertools.product((0, 9), range(fit.n_moving)):
        ahead, back = points.copy(), points.copy()
        ahead[m, j] += 1e-5
        back[m, j] -= 1e-5
        # A particle has a tenth of the mass.
        slope = 10 * (fit.loss(ahead) - fit.loss(back)) / 2e-5
        assert gradient[m, j] == pytest.approx(slope, abs=1e-7)
    frozen = fit.first_variation(points)
    np.testing.assert_allclose(frozen.gradient(points), gradient, atol=1e-12)
    # U is quadratic: its first variation at the measure itself has twice the part of U that is not linear.
    moved = points.copy()
    moved[:, : fit.n_moving] *= 0.9
    mixture = mfld.Cloud(np.concatenate([points, moved]), np.repeat([0.1 * (1 - 1e-4), 0.1 * 1e-4], 10))
    change = (fit.loss(mixture) - fit.loss(points)) / 1e-4
    assert change == pytest.approx(np.mean(frozen(moved)) - np.mean(frozen(points)), rel=1e-3)


def test_labels_stand_in_proportion_and_do_not_move():
    features = mixed()
    fit = mfld.FeatureMatching(features, np.zeros(features.n_features), label_shares=[0.251, 0.749])
    result = mfld.MFLD(100, step_size=0.1, temperature=1e-4).run(fit, n_steps=5)
    assert np.array_equal(result.particles[:, -1], np.repeat([0, 1], [25, 75]))
    assert (result.particles[:, :3] >= 0).all()
    assert (result.particles[:, :3] <= 1).all()


@SEEDED
def test_without_noise_the_matching_is_that_of_the_embedding():
    rng = np.random.default_rng(4)
    n = 3000
    label = rng.integers(0, 2, size=n)
    x = np.clip(rng.normal(0.3 + 0.4 * label, 0.1), 0, 1)[:, np.newaxis]
    codes = np.stack([np.where(rng.uniform(size=n) < 0.8, label, 2), label], axis=1)
    features = privacy.table_features(1, [3, 2], label=1)
    exact = privacy.PrivateEmbedding(x, codes, features, epsilon=math.inf, delta=1e-5)
    np.testing.assert_allclose(exact.mean, features.of_rows(x, codes).mean(axis=0), atol=1e-8)
    np.testing.assert_allclose(exact.label_shares(), np.bincount(label) / n, atol=1e-8)
    fit = mfld.FeatureMatching(features, exact.mean, label_shares=exact.label_shares())
    result = mfld.MFLD(300, step_size=0.05, temperature=1e-7).run(fit, n_steps=600)
    assert fit.loss(result.measure) < 1e-3
    assert fit.loss(fit.initial_particles(300)) > 0.1
    noisy = privacy.PrivateEmbedding(x, codes, features, epsilon=1.0, delta=1e-5, seed=0)
    assert np.std(noisy.mean - exact.mean) == pytest.approx(noisy.deviation, rel=0.2)
    assert noisy.deviation == pytest.approx(2 * privacy.noise_multiplier(1.0, 1e-5) / n)


@SEEDED
def test_the_number_of_rows_is_public_or_paid_for():
    features = privacy.table_features(1, [])
    x, codes = RNG.uniform(size=(500, 1)), np.zeros((500, 0), int)
    paid = privacy.PrivateEmbedding(x, codes, features, epsilon=1.0, delta=1e-5, neighbours="add_remove", seed=1)
    assert [each.what for each in paid.ledger.expenses] == ["embedding", "number of rows"]
    assert paid.ledger.epsilon(1e-5) == pytest.approx(1.0, rel=1e-6)
    assert paid.n_rows != 500
    assert abs(paid.n_rows - 500) < 6 * 10 * privacy.noise_multiplier(1.0, 1e-5)
    given = privacy.PrivateEmbedding(
        x, codes, features, epsilon=1.0, delta=1e-5, neighbours="add_remove", n_rows=400, seed=1
    )
    assert given.n_rows == 400
    assert given.deviation == pytest.approx(privacy.noise_multiplier(1.0, 1e-5) / 400)
    with pytest.raises(ValueError, match="n_rows must be left out"):
        privacy.PrivateEmbedding(x, codes, features, epsilon=1.0, delta=1e-5, n_rows=500)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: privacy.noise_multiplier(0.0, 1e-5), "epsilon must be finite and positive"),
        (lambda: privacy.noise_multiplier(1e4, 1e-5), "epsilon must be at most 500"),
        (lambda: privacy.noise_multiplier(1.0, 1.5), "delta must be below 1"),
        (lambda: privacy.table_features(0, [3], label=0), "blocks must have one|must have a number"),
        (lambda: ft.ProductFeatures(1, [2], [ft.Waves.series(0, 2)] * 2, [ft.Block((0, 1))]), "one factor of waves"),
        (lambda: ft.ProductFeatures(1, [2], [ft.OneHot(0, 3)], [ft.Block((0,))]), "must match the sizes"),
        (
            lambda: privacy.PrivateEmbedding([[1.5]], np.zeros((1, 0), int), privacy.table_features(1), epsilon=1.0),
            r"numbers must be in \[0, 1\]",
        ),
        (
            lambda: privacy.PrivateEmbedding([[0.5]], np.zeros((1, 0), int), privacy.table_features(1), epsilon=1.0),
            "epsilon and delta must be given",
        ),
    ],
)
def test_misuse_has_its_message(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_gibbs_law_of_a_matching():
    """At a temperature, one number and a linear first variation: the law of particles is that of quadrature."""
    wave = ft.ProductFeatures(1, [], [ft.Waves([0], [[math.pi]])], [ft.Block((0,))])
    fit = mfld.FeatureMatching(wave, [0.5, 0.2])
    result = mfld.MFLD(4000, step_size=2e-3, temperature=0.5).run(fit, n_steps=600)
    grid = (np.arange(2000) + 0.5) / 2000

    def gap(mean):
        energy = 2 * ((mean[0] - 0.5) * np.cos(np.pi * grid) + (mean[1] - 0.2) * np.sin(np.pi * grid))
        law = np.exp(-energy / 0.5)
        law /= law.sum()
        return [law @ np.cos(np.pi * grid) - mean[0], law @ np.sin(np.pi * grid) - mean[1]]

    found = fit.features.mean(result.particles)
    np.testing.assert_allclose(found, optimize.root(gap, [0.0, 0.5]).x, atol=5 / math.sqrt(4000))
