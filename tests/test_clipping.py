"""Clipped gradients and their accounts."""

import dataclasses
import math
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
from scipy import stats

import mfld
from mfld import noise, privacy
from mfld._core import backend
from mfld.privacy import secret
from mfld.ranks import Ranks

SEEDED = pytest.mark.filterwarnings("ignore::mfld.privacy.PrivacyWarning")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
RISK = mfld.EmpiricalRisk(mfld.TwoLayerNetwork(3), X, np.sign(X[:, 0]), loss="logistic", l2=1e-2)
CLASSES = mfld.EmpiricalRisk(mfld.TwoLayerNetwork(3, n_outputs=3), X, RNG.integers(0, 3, size=40), loss="cross_entropy")
PARTICLES = RISK.initial_particles(15, 1, "float64")


def one_by_one(risk, particles):
    """Gradients of the samples, each from a risk of that sample alone: (n, N, p)."""
    return np.array(
        [
            mfld.EmpiricalRisk(risk.model, risk.inputs[[i]], RISK.targets[[i], 0], loss="logistic").loss_gradient(
                particles
            )
            for i in range(len(risk.inputs))
        ]
    )


@SEEDED
@pytest.mark.parametrize("bound", [0.05, 0.3, 100.0])
def test_the_sum_is_that_of_clipped_gradients(bound):
    each = one_by_one(RISK, PARTICLES)
    lengths = np.sqrt(np.mean(np.sum(each**2, axis=2), axis=1))
    gradient = mfld.Clipped(bound, 0.0, 1.0, seed=0)
    np.testing.assert_allclose(gradient.norms(RISK, PARTICLES, np.arange(40)), lengths, rtol=1e-9)
    expected = np.mean(np.minimum(1, bound / lengths)[:, np.newaxis, np.newaxis] * each, axis=0)
    place = noise.Place.of(0)
    found = gradient.estimate(RISK, PARTICLES, {}, place)[0]
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-12)
    if bound == 100:
        np.testing.assert_allclose(found, RISK.loss_gradient(PARTICLES), rtol=1e-9)


NETWORKS = [
    (mfld.TwoLayerNetwork(3), "logistic"),
    (mfld.TwoLayerNetwork(3, activation="relu", readout="linear", bias=False), "squared"),
    (mfld.TwoLayerNetwork(3, n_outputs=3, activation="tanh", readout="parity"), "cross_entropy"),
    (mfld.TwoLayerNetwork(3, n_outputs=7, readout="linear"), "squared"),
    (mfld.TwoLayerNetwork(3, activation="gelu", readout="fixed"), "logistic"),
    (mfld.TwoLayerNetwork(3, readout="signs"), "logistic"),
]


def of(model, loss, n=70):
    rng = np.random.default_rng(2)
    X = rng.normal(size=(n, 3))
    y = {"logistic": np.sign(X[:, 0]), "cross_entropy": rng.integers(0, 3, n), "squared": rng.normal(size=(n, 7))}[loss]
    y = y[:, : model.n_outputs] if loss == "squared" else y
    return mfld.EmpiricalRisk(model, X, y, loss=loss)


@SEEDED
@pytest.mark.parametrize(("model", "loss"), NETWORKS)
@pytest.mark.parametrize(("dtype", "error"), [("float64", 1e-10), ("float32", 5e-4)])
def test_the_core_knows_lengths_without_gradients(model, loss, dtype, error):
    """Against gradients of samples, each made by itself."""
    risk = of(model, loss)
    particles = risk.initial_particles(45, 3, dtype)
    n, wide = risk.n_samples, particles.astype(np.float64)
    each = np.array([risk.loss_gradient(wide, [i]) for i in range(n)])
    lengths = np.sqrt(np.mean(np.sum(each**2, axis=2), axis=1))
    bound = float(np.median(lengths))
    gradient = mfld.Clipped(bound, 0.0, 1.0, seed=0)
    np.testing.assert_allclose(gradient.norms(risk, particles, np.arange(n)), lengths, rtol=error)
    expected = np.mean(np.minimum(1, bound / lengths)[:, np.newaxis, np.newaxis] * each, axis=0)
    found = gradient.estimate(risk, particles, {}, noise.Place.of(0))[0]
    assert found.dtype == dtype
    # Clipped to a little less than the bound: the margin for blocks of 40 rows at most, and of 1e-5.
    slack = 1e-5 + 40**2 * np.finfo(dtype).eps + error
    np.testing.assert_allclose(found, expected, atol=slack * bound)
    assert (found[:, risk.n_moving :] == 0).all()


@SEEDED
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_are_the_same_for_any_number_of_threads(dtype):
    risk = of(mfld.TwoLayerNetwork(3, n_outputs=3), "cross_entropy", 600)
    gradient = mfld.Clipped(0.3, 0.5, 0.5, seed=1)
    particles = risk.initial_particles(700, 0, dtype)
    found = {
        gradient.estimate(risk.on_threads(k), particles, {}, noise.Place.of(0)._replace(num_threads=k))[0].tobytes()
        for k in (1, 2, 3, 7)
    }
    assert len(found) == 1


def test_a_row_has_one_gradient_whatever_stands_beside_it():
    risk = of(mfld.TwoLayerNetwork(3, n_outputs=3), "cross_entropy", 100)
    particles = risk.initial_particles(50, 0, "float32")
    gradient = mfld.Clipped(1.0, 0.0, 1.0)
    lengths = gradient.norms(risk, particles, np.arange(100))
    for rows in ([0], [99, 3], np.arange(5, 60), np.arange(99, -1, -3)):
        assert np.array_equal(gradient.norms(risk, particles, np.array(rows)), lengths[rows])


@SEEDED
def test_models_of_ones_own_take_a_gradient_a_sample():
    def difference(theta, z):
        return z[:, np.newaxis, :] - theta[np.newaxis, :, :]

    def value(theta, z):
        return np.exp(-np.sum(difference(theta, z) ** 2, axis=2) / 2)

    def slope(theta, z):
        return value(theta, z)[:, :, np.newaxis] * difference(theta, z)

    risk = mfld.EmpiricalRisk(
        mfld.NeuronModel(value, slope, n_features=3, n_coordinates=3), X, np.sign(X[:, 0]), loss="logistic"
    )
    particles = risk.initial_particles(15, 1, "float64")
    each = np.array([risk.loss_gradient(particles, [i]) for i in range(40)])
    lengths = np.sqrt(np.mean(np.sum(each**2, axis=2), axis=1))
    bound = float(np.median(lengths))
    found = mfld.Clipped(bound, 0.0, 1.0, seed=0).estimate(risk, particles, {}, noise.Place.of(0))[0]
    expected = np.mean(np.minimum(1, bound / lengths)[:, np.newaxis, np.newaxis] * each, axis=0)
    # Cut to 1e-5 less than the bound, whose root mean square over 15 particles is that of one number times sqrt(15).
    np.testing.assert_allclose(found, expected, atol=1.01e-5 * bound * math.sqrt(15))


def test_a_batch_without_rows_is_noise_alone():
    gradient = mfld.Clipped(1.0, 0.0, 1e-6)
    assert (gradient.estimate(RISK, PARTICLES, {}, noise.Place.of(0))[0] == 0).all()
    assert (mfld.Clipped(1.0, 1.0, 1e-6).estimate(RISK, PARTICLES, {}, noise.Place.of(0))[0] != 0).all()


@SEEDED
def test_gradients_that_are_no_numbers_are_left_out():
    """A sample beyond the range of float32 gives nothing, and takes nothing from the others."""
    X = np.array([[1.0, 0.0, 0.0], [3e38, 3e38, 3e38]])
    risk = mfld.EmpiricalRisk(
        mfld.TwoLayerNetwork(3, activation="relu", readout="linear"), X, [1.0, 1.0], loss="squared"
    )
    particles = RISK.initial_particles(15, 1, "float32")
    found = mfld.Clipped(0.1, 0.0, 1.0, seed=0).estimate(risk, particles, {}, noise.Place.of(0))[0]
    alone = mfld.EmpiricalRisk(risk.model, X[:1], [1.0], loss="squared")
    expected = mfld.Clipped(0.1, 0.0, 1.0, seed=0).estimate(alone, particles, {}, noise.Place.of(0))[0]
    np.testing.assert_allclose(found, expected / 2, rtol=1e-3, atol=1e-7)


# ---- secret numbers --------------------------------------------------------------------------------------------------


def test_words_are_those_of_the_standard():
    """RFC 8439, 2.3.2 and A.1: blocks of ChaCha20."""
    key = bytes(range(32))
    nonce = [int.from_bytes(bytes(each), "little") for each in ([0, 0, 0, 9], [0, 0, 0, 0x4A], [0, 0, 0, 0])]
    block = backend.chacha(key, 16, 1, nonce).tolist()
    assert block[:4] == [0xE4E7F110, 0x15593BD1, 0x1FDD0F50, 0xC47120A3]
    assert block[12:] == [0xD19C12B5, 0xB94E16DE, 0xE883D0CB, 0x4E3C50A2]
    zero = backend.chacha(bytes(32), 600)
    assert zero[:4].tobytes().hex() == "76b8e0ada0f13d90405d6ae55386bd28"
    assert np.array_equal(backend.chacha(bytes(32), 40, 17), zero[17 * 16 : 17 * 16 + 40])


def test_the_table_has_the_law_of_the_cells():
    thresholds, aliases, always = secret._table()
    with mpmath.workdps(50):
        weights = [mpmath.exp(-(mpmath.mpf(c) ** 2) / 8192) for c in range(592)]
        total = mpmath.fsum(weights)
        found = [0] * 1024
        for column, (threshold, alias) in enumerate(zip(thresholds.tolist(), aliases.tolist(), strict=True)):
            whole = 2**64 if alias == column else threshold
            found[column] += whole
            found[alias] += 2**64 - whole
        distance = sum(
            abs(mpmath.mpf(n) / 2**74 - w / total) for n, w in zip(found, [*weights, *[0] * 432], strict=True)
        )
        # Those that fill their column stand for a probability of 1 and not of 1 - 2**-64.
        assert distance < mpmath.mpf(2) ** -63
        for c in (0, 1, 100, 591):
            least = mpmath.exp(-(mpmath.mpf(c + 1) ** 2 - c**2) / 8192)
            assert 0 <= least - mpmath.mpf(int(always[c])) / 2**64 < 2**-48
        # What the cells leave out.
        assert mpmath.erfc(mpmath.mpf("9.25") / mpmath.sqrt(2)) < mpmath.mpf(2) ** -65


def test_law_of_the_secret_noise():
    n = 400_000
    x = secret.noisy(np.zeros(n), 1.0, bytes(32))
    drawn = np.floor(x * secret.UNITS).astype(np.int64)
    assert abs(x.mean()) < 5 / math.sqrt(n)
    assert abs(x.var() - 1) < 5 * math.sqrt(2 / n)
    edges = stats.norm.ppf(np.linspace(0, 1, 257)[1:-1])
    counts = np.bincount(np.searchsorted(edges, x), minlength=256)
    assert np.sum((counts - n / 256) ** 2) / (n / 256) < stats.chi2.ppf(1 - 1e-6, 255)
    # Within cells of a 64th of a deviation, too, and down to the last bits.
    inside = np.bincount((np.abs(x) * 1024).astype(int) % 16, minlength=16) / n
    share = np.diff(stats.norm.cdf(np.arange(0, 16 * 600 + 1) / 1024)).reshape(-1, 16).sum(axis=0) * 2
    assert np.abs(inside - share).max() < 5 * math.sqrt(1 / 16 / n)
    low = np.bincount(drawn & 255, minlength=256)
    assert np.sum((low - n / 256) ** 2) / (n / 256) < stats.chi2.ppf(1 - 1e-6, 255)
    assert np.array_equal(secret.noisy(np.zeros(n), 1.0, bytes(32), 3), x)
    assert (secret.noisy(np.zeros(n), 1.0, bytes([1] + [0] * 31)) != x).mean() > 0.99


def test_noise_of_a_step_is_on_the_grid():
    values = RNG.normal(size=(30, 7))
    unit = 0.25 / secret.UNITS  # a power of two, so that what follows is exact
    # Released are odd halves of units: whatever the value, its low-order bits tell nothing.
    units = secret.noisy(values, 0.25, secret.key(None)) / unit - 0.5
    assert np.array_equal(units, np.round(units))
    assert secret.key(None) != secret.key(None)
    with pytest.raises(ValueError, match="noise must be at least"):
        secret.noisy(values, 1e-12, bytes(32))


@SEEDED
def test_rows_are_sampled_each_by_itself():
    gradient = mfld.Clipped(100.0, 0.0, 0.3, seed=1)
    each = one_by_one(RISK, PARTICLES) / (0.3 * 40)
    found = []
    for step in range(200):
        estimate = gradient.estimate(RISK, PARTICLES, {}, noise.Place.of(0, step=step))[0]
        weights = np.linalg.lstsq(each.reshape(40, -1).T, estimate.ravel(), rcond=None)[0]
        assert np.abs(weights - np.round(weights)).max() < 1e-6
        found.append(np.round(weights))
    counts = np.sum(found, axis=1)
    assert abs(np.mean(counts) - 12) < 5 * math.sqrt(8.4 / 200)
    assert abs(np.var(counts) - 8.4) < 5 * 8.4 * math.sqrt(2 / 200)  # not of one size


@SEEDED
@pytest.mark.parametrize("risk", [RISK, CLASSES])
def test_a_sample_more_moves_all_particles_by_the_sensitivity_at_most(risk):
    """Adversarial samples: wild targets and inputs far out."""
    n, bound = 15, 0.2
    particles = risk.initial_particles(n, 2, "float64")
    # On all samples and on all but one; the expected number of rows is public, hence that factor.
    for scale in (1.0, 30.0):
        inputs = scale * RNG.normal(size=(40, 3))
        parts = [
            type(risk)(risk.model, inputs[kept], risk.targets[kept, 0], loss=risk.loss_function)
            for kept in (slice(None), slice(1, None))
        ]
        sums = [
            len(part.inputs) * mfld.Clipped(bound, 0.0, 1.0, seed=0).estimate(part, particles, {}, noise.Place.of(0))[0]
            for part in parts
        ]
        assert np.linalg.norm(sums[0] - sums[1]) <= bound * math.sqrt(n)
    assert np.linalg.norm(sums[0] - sums[1]) > 0.99 * bound * math.sqrt(n)  # the far one is clipped to it


def test_noise_has_its_deviation():
    gradient = mfld.Clipped(0.2, 3.0, 1.0)
    bare = mfld.Clipped(0.2, 0.0, 1.0)
    place = noise.Place.of(0)
    exact = bare.estimate(RISK, PARTICLES, {}, place)[0]
    drawn = np.array([gradient.estimate(RISK, PARTICLES, {}, place)[0] - exact for _ in range(50)])
    deviation = 3.0 * 0.2 * math.sqrt(15) / 40
    assert abs(drawn.std() / deviation - 1) < 5 / math.sqrt(2 * drawn.size)
    assert stats.kstest(drawn.ravel() / deviation, "norm").pvalue > 1e-6


# ---- accounts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("order", "published"), [(5, 2.18075656e-3), (50, 2.38460375e-2), (100, 167.416308)])
def test_published_divergences(order, published):
    assert 50 * privacy.sampled_gaussian(order, 0.01, 2.5) == pytest.approx(published, rel=1e-7)


@pytest.mark.parametrize(("order", "published"), [(1.5, 6.70579741e-4), (2.5, 1.08548710e-3)])
def test_published_bounds_on_fractional_orders_hold(order, published):
    """Numbers of another program at these orders are upper bounds, 1 to 4 % above what two quadratures give."""
    q, s = mpmath.mpf("0.01"), mpmath.mpf("2.5")

    def integrand(z):
        return mpmath.npdf(z, 0, s) * (1 - q + q * mpmath.exp((2 * z - 1) / (2 * s**2))) ** order

    exact = 50 * mpmath.log(mpmath.quad(integrand, [-40, -10, 0, 10, 40])) / (mpmath.mpf(order) - 1)
    assert 50 * privacy.sampled_gaussian(order, 0.01, 2.5) == pytest.approx(float(exact), rel=1e-8)
    assert 0.96 * published < 50 * privacy.sampled_gaussian(order, 0.01, 2.5) < published


@pytest.mark.parametrize("order", [1.5, 3.2])
def test_divergences_by_another_quadrature(order):
    q, s = mpmath.mpf("0.05"), mpmath.mpf("1.3")

    def integrand(z):
        return mpmath.npdf(z, 0, s) * (1 - q + q * mpmath.exp((2 * z - 1) / (2 * s**2))) ** order

    exact = mpmath.log(mpmath.quad(integrand, [-20, -5, 0, 5, 10, 30])) / (order - 1)
    assert privacy.sampled_gaussian(order, 0.05, 1.3) == pytest.approx(float(exact), rel=1e-8)


def test_accounts_are_above_tight_values():
    # 10000 steps have delta(epsilon = 1) = 4.243484e-6 exactly: at that delta no valid account is below 1.
    assert 1.0 <= privacy.training_epsilon(np.full(10000, 4.0), 0.01, 4.243484e-6) < 1.2
    assert privacy.training_epsilon([0.0, 1.0], 0.1, 1e-5) == math.inf


def test_steps_on_all_rows_have_an_exact_account():
    """One Gaussian mechanism of the root of the sum of s**-2, by its privacy profile in 40 digits."""
    multipliers, beside = np.array([30.0, 40.0, 50.0]), [25.0]
    found = privacy.training_epsilon(multipliers, 1.0, 1e-6, releases=beside)
    with mpmath.workdps(40):
        mu = mpmath.sqrt(mpmath.fsum(mpmath.mpf(float(s)) ** -2 for s in [*multipliers, *beside]))
        delta = mpmath.ncdf(mu / 2 - found / mu) - mpmath.exp(found) * mpmath.ncdf(-mu / 2 - found / mu)
    assert 0.9999 < float(delta) / 1e-6 < 1  # a little below: noise of whole numbers is counted as less than it is
    # A published value by Renyi divergences, which are coarser.
    assert 0.9 < privacy.training_epsilon([4.530877117], 1.0, 1e-6) < 0.95
    assert privacy.training_epsilon([4.530877117], 0.999999, 1e-6) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.slow
def test_accounts_of_the_library():
    accounting = pytest.importorskip("dp_accounting")
    event = accounting.PoissonSampledDpEvent(0.02, accounting.GaussianDpEvent(1.1))
    ours = privacy.training_epsilon(np.full(500, 1.1), 0.02, 1e-5)
    theirs = accounting.rdp.RdpAccountant().compose(event, 500).get_epsilon(1e-5)
    assert ours == pytest.approx(theirs, rel=5e-3)
    tight = privacy.training_epsilon(np.full(500, 1.1), 0.02, 1e-5, accountant="pld")
    assert 0.7 * ours < tight < ours
    # 10000 steps have this delta, by privacy loss distributions; 1000 would have none to speak of.
    for n_steps, low, high in ((10000, 4.2e-6, 4.3e-6), (1000, 0.0, 1e-9)):
        many = accounting.PoissonSampledDpEvent(0.01, accounting.GaussianDpEvent(4.0))
        account = accounting.pld.PLDAccountant(value_discretization_interval=1e-4).compose(many, n_steps)
        assert low <= account.get_delta(1.0) <= high
    beside = privacy.training_epsilon(np.full(500, 1.1), 0.02, 1e-5, releases=[6.0, 8.0])
    both = accounting.rdp.RdpAccountant().compose(event, 500).compose(accounting.GaussianDpEvent(4.8))
    assert beside == pytest.approx(both.get_epsilon(1e-5), rel=5e-3)
    tight = privacy.training_epsilon(np.full(500, 1.1), 0.02, 1e-5, releases=[6.0, 8.0], accountant="pld")
    assert ours * 0.7 < tight < beside


def test_the_noise_for_a_budget_is_the_least():
    for epsilon, rate, n_steps, releases in ((0.5, 0.1, 300, []), (2.0, 1.0, 50, [8.0, 9.0]), (8.0, 0.02, 2000, [])):
        least = privacy.training_multiplier(epsilon, 1e-5, rate, n_steps, releases=releases)
        spent, more = (
            privacy.training_epsilon(np.full(n_steps, factor * least), rate, 1e-5, releases=releases)
            for factor in (1.0, 0.995)
        )
        assert spent <= epsilon < more
    with pytest.raises(ValueError, match="epsilon must be larger for 10 steps"):
        privacy.training_multiplier(0.5, 1e-5, 0.1, 10, releases=[0.1])


def test_the_noise_of_the_dynamics_counts():
    n, h, temperature, bound, rate = 15, 0.2, 0.05, 0.7, 0.25
    gradient = mfld.Clipped(bound, 1.5, rate)
    solver = mfld.MFLD(n, step_size=h, temperature=temperature, gradient=gradient)
    result = solver.run(RISK, 4, seed=privacy.secret_seed())
    assert np.isnan(result.history["loss"]).all()
    # The sum of clipped gradients moves all particles by h C sqrt(N) / (q n) at most, and the step adds this noise:
    sensitivity = h * bound * math.sqrt(n) / (rate * 40)
    own = math.hypot(1.5 * sensitivity, math.sqrt(2 * temperature * h)) / sensitivity
    expected = privacy.training_epsilon(np.full(4, own), rate, 1e-5)
    found = result.privacy_spent(1e-5, count_dynamics=True)
    assert expected < found < privacy.training_epsilon(np.full(4, 0.998 * own), rate, 1e-5)  # noise to a thousandth
    assert result.privacy_spent(1e-5) == pytest.approx(privacy.training_epsilon([1.5] * 4, rate, 1e-5))
    guessed = solver.run(RISK, 4, seed=7)
    with pytest.raises(ValueError, match="seed must be secret"):
        guessed.privacy_spent(1e-5, count_dynamics=True)


def test_a_budget_stops_the_run():
    solver = mfld.MFLD(10, step_size=0.2, temperature=0.0, gradient=mfld.Clipped(1.0, 2.0, 0.2))
    result = solver.run(RISK, 400, callbacks=[mfld.PrivacyBudget(2.0, 1e-5)])
    assert 0 < result.state.step < 400
    assert result.privacy_spent(1e-5) <= 2.0
    after = privacy.training_epsilon(np.full(result.state.step + 5, 2.0), 0.2, 1e-5)
    assert after > 2.0
    with pytest.raises(ValueError, match="epsilon must allow the first 5 steps"):
        solver.run(RISK, 400, callbacks=[mfld.PrivacyBudget(0.01, 1e-5)])
    with pytest.raises(ValueError, match="delta must be below 1, got 1"):
        mfld.PrivacyBudget(2.0, 1.0)


def test_a_run_that_goes_on_from_a_checkpoint_has_new_noise_and_one_budget(tmp_path):
    solver = mfld.MFLD(10, step_size=0.2, temperature=0.0, gradient=mfld.Clipped(1.0, 3.0, 0.2))
    path, budget = tmp_path / "run.npz", mfld.PrivacyBudget(4.0, 1e-5)
    whole = solver.run(RISK, 400, callbacks=[budget]).state.step
    mfld.checkpoint.run(solver, RISK, 10, path=path)
    state = mfld.checkpoint.load(path, algorithm=solver, objective=RISK)
    first, second = (solver.run(RISK, 400, state=state, callbacks=[budget]) for _ in range(2))
    assert first.state.step == second.state.step == whole
    assert first.privacy_spent(1e-5) == pytest.approx(privacy.training_epsilon(np.full(whole, 3.0), 0.2, 1e-5))
    # Noise of a deviation of 3 sqrt(10) on the sum of a batch, in steps of 0.2: twice the same would cancel. The ridge
    # leaves 0.78 of it, and 50 numbers tell a deviation to a tenth.
    expected = 0.2 * 3.0 * math.sqrt(2 * 10 * (whole - 10)) / (0.2 * RISK.n_samples)
    assert np.std(first.particles - second.particles) > 0.4 * expected
    other = mfld.MFLD(10, step_size=0.2, temperature=0.0, gradient=mfld.Clipped(1.0, 5.0, 0.2))
    with pytest.raises(ValueError, match=r"algorithm\.gradient was Clipped"):
        mfld.checkpoint.run(other, RISK, 20, path=path)


# ---- accounts in states ----------------------------------------------------------------------------------------------


def clipped(noise_multiplier, rate=1.0, **options):
    gradient = mfld.Clipped(1.0, noise_multiplier, rate)
    return mfld.MFLD(10, **{"step_size": 0.2, "temperature": 0.0, "gradient": gradient, **options})


def exact(multipliers):
    """Epsilon at 1e-5 of Gaussian mechanisms one after the other, by bisection of their privacy profile."""
    mu = math.sqrt(sum(s**-2 for s in multipliers))

    def delta(epsilon):
        return stats.norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * stats.norm.cdf(-mu / 2 - epsilon / mu)

    low, high = 0.0, 50.0
    for _ in range(60):
        low, high = (low, (low + high) / 2) if delta((low + high) / 2) < 1e-5 else ((low + high) / 2, high)
    return high


def test_a_state_knows_the_noise_of_its_steps():
    """Whoever goes on from it, with whatever noise, on whatever rows."""
    loud, quiet = clipped(10.0), clipped(50.0)
    first = loud.run(RISK, 20)
    assert first.privacy_spent(1e-5) == pytest.approx(exact([10.0] * 20), rel=1e-5)
    assert quiet.privacy_spent(RISK, first.state, 1e-5) == first.privacy_spent(1e-5)
    both = exact([10.0] * 20 + [50.0] * 30)
    assert quiet.run(RISK, 30, state=first.state).privacy_spent(1e-5) == pytest.approx(both, rel=1e-5)
    other = mfld.EmpiricalRisk(RISK.model, X[:7], np.sign(X[:7, 0]), loss="logistic", l2=1e-2)
    assert quiet.run(other, 30, state=first.state).privacy_spent(1e-5) == pytest.approx(both, rel=1e-5)
    # Steps of other rates beside them: Renyi divergences of all add up.
    mixed = clipped(3.0, 0.2).run(RISK, 5, state=first.state)
    expected = min(
        (20 * a / 200 + 5 * privacy.sampled_gaussian(a, 0.2, 3.0))
        + math.log1p(-1 / a)
        - (math.log(1e-5) + math.log(a)) / (a - 1)
        for a in np.geomspace(1.01, 1000, 2000)
    )
    assert expected <= mixed.privacy_spent(1e-5) < 1.001 * expected


@pytest.mark.slow
def test_mixed_accounts_of_the_library():
    accounting = pytest.importorskip("dp_accounting")
    first = clipped(3.0, 0.2).run(RISK, 10)
    state = clipped(2.0, 0.1).run(RISK, 20, state=first.state).state
    solver = clipped(9.0)
    mixed = solver.run(RISK, 5, state=state)
    for accountant, account in (
        ("rdp", accounting.rdp.RdpAccountant()),
        ("pld", accounting.pld.PLDAccountant()),
    ):
        for rate, s, n in ((0.2, 3.0, 10), (0.1, 2.0, 20), (1.0, 9.0, 5)):
            account.compose(accounting.PoissonSampledDpEvent(rate, accounting.GaussianDpEvent(s)), n)
        found = mixed.privacy_spent(1e-5, accountant=accountant)
        assert found == pytest.approx(account.get_epsilon(1e-5), rel=5e-3)


def test_accounts_do_not_depend_on_how_calls_are_cut(tmp_path):
    solver = clipped(1.5, 0.25, temperature=mfld.schedules.Geometric(0.05, factor=0.8, stage_length=2))
    seed = privacy.secret_seed()
    whole, _ = solver.advance(RISK, solver.init(RISK, seed), 12)
    state = solver.init(RISK, seed)
    for n_steps in (1, 5, 2, 4):
        state, _ = solver.advance(RISK, state, n_steps)
        mfld.checkpoint.save(state, tmp_path / "state.npz")
        state = mfld.checkpoint.load(tmp_path / "state.npz")
    assert state.buffers["privacy_account"].tobytes() == whole.buffers["privacy_account"].tobytes()
    # Multipliers of the dynamics: sqrt(2 T / (h N)) q n / C.
    temperatures = 0.05 * 0.8 ** (np.arange(12) // 2)
    own = np.hypot(1.5, np.sqrt(2 * temperatures / (0.2 * 10)) * 0.25 * 40)
    low, high = (privacy.training_epsilon(factor * own, 0.25, 1e-5) for factor in (1.0, 0.998))
    assert low < solver.privacy_spent(RISK, state, 1e-5, count_dynamics=True) < high
    with pytest.raises(ValueError, match="n_steps must be between 0"):
        solver.privacy_spent(RISK, state, 1e-5, n_steps=-1)
    planned = solver.privacy_spent(RISK, solver.init(RISK, seed), 1e-5, count_dynamics=True, n_steps=12)
    assert planned == solver.privacy_spent(RISK, whole, 1e-5, count_dynamics=True)


def test_each_replicate_has_its_account():
    solver = clipped(1.5, 0.25, temperature=(0.0, 0.05), n_replicates=2)
    both, _ = solver.advance(RISK, solver.init(RISK, privacy.secret_seed()), 3)
    both, _ = clipped(1.5, 0.25, temperature=(0.0, 0.1), n_replicates=2).advance(RISK, both, 4)
    with pytest.raises(ValueError, match="n_replicates must be 1"):
        solver.privacy_spent(RISK, both, 1e-5)
    of_dynamics = np.sqrt(2 * np.array([0.05] * 3 + [0.1] * 4) / (0.2 * 10)) * 0.25 * 40
    for state, own in zip(both.each(), (np.full(7, 1.5), np.hypot(1.5, of_dynamics)), strict=True):
        low, high = (privacy.training_epsilon(factor * own, 0.25, 1e-5) for factor in (1.0, 0.998))
        assert low <= clipped(1.0).privacy_spent(RISK, state, 1e-5, count_dynamics=True) < high


def test_steps_without_an_account_leave_no_claim():
    private, open_ = clipped(20.0), mfld.MFLD(10, step_size=0.2, temperature=0.0)
    budget = mfld.PrivacyBudget(4.0, 1e-5)
    seen = open_.run(RISK, 3).state
    after = private.run(RISK, 4, state=seen)
    with pytest.raises(ValueError, match="account of all its steps for privacy: of 7 it has that of 4"):
        after.privacy_spent(1e-5)
    with pytest.raises(ValueError, match="of 3 it has that of 0"):  # before a step is made
        private.run(RISK, 4, state=seen, callbacks=[budget])
    between = open_.run(RISK, 3, state=private.run(RISK, 4).state)
    with pytest.raises(TypeError, match="gradient must be Clipped"):
        between.privacy_spent(1e-5)
    with pytest.raises(ValueError, match="of 9 it has that of 2"):
        private.run(RISK, 2, state=between.state).privacy_spent(1e-5)
    for other in (clipped(20.0, step_size=None), clipped(20.0, dynamics=mfld.Underdamped(1.0))):
        with pytest.raises(ValueError, match="it has that of 0"):
            private.privacy_spent(RISK, other.run(RISK, 2).state, 1e-5)
    best = mfld.TopParticles(private, n_best=5, switch=3).run(RISK, 5).state  # the best for the rows
    with pytest.raises(ValueError, match="it has that of 2"):
        private.privacy_spent(RISK, best, 1e-5)
    anew = private.run(RISK, 4, particles=after.particles)
    assert anew.privacy_spent(1e-5) == pytest.approx(exact([20.0] * 4), rel=1e-5)


def test_what_ends_a_run_finds_the_account_of_the_steps_made(monkeypatch):
    estimate = mfld.Clipped.estimate

    def interrupted(self, objective, particles, buffers, place):
        if place.step == 3:
            raise KeyboardInterrupt
        return estimate(self, objective, particles, buffers, place)

    monkeypatch.setattr(mfld.Clipped, "estimate", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        clipped(20.0).run(RISK, 10)
    assert caught.value.state.step == 3
    assert caught.value.result.privacy_spent(1e-5) == pytest.approx(exact([20.0] * 3), rel=1e-5)


def test_checkpoints_of_other_noise_are_added_up(tmp_path):
    path = tmp_path / "run.npz"
    mfld.checkpoint.run(clipped(10.0), RISK, 20, path=path)
    with pytest.warns(RuntimeWarning, match="algorithm.gradient was Clipped"):
        result = mfld.checkpoint.run(clipped(50.0), RISK, 50, path=path, accept_other=True)
    assert result.privacy_spent(1e-5) == pytest.approx(exact([10.0] * 20 + [50.0] * 30), rel=1e-5)


@SEEDED
def test_noise_that_can_be_made_again_leaves_no_claim():
    state = clipped(20.0).run(RISK, 4).state
    gradient = mfld.Clipped(1.0, 20.0, 1.0, seed=0)
    seeded = clipped(20.0, gradient=gradient)
    assert seeded.run(RISK, 4).privacy_spent(1e-5) == math.inf
    assert clipped(20.0).run(RISK, 3, state=seeded.run(RISK, 1, state=state).state).privacy_spent(1e-5) == math.inf
    with pytest.raises(ValueError, match="epsilon must allow the first 5 steps"):
        seeded.run(RISK, 10, callbacks=[mfld.PrivacyBudget(400.0, 1e-5)])
    # The noise of the dynamics has another seed; the rows of each step are known.
    hot = clipped(20.0, 0.25, temperature=0.05, gradient=mfld.Clipped(1.0, 20.0, 0.25, seed=0))
    spent = hot.run(RISK, 4, seed=privacy.secret_seed()).privacy_spent(1e-5, count_dynamics=True)
    own = math.sqrt(2 * 0.05 / (0.2 * 10)) * 0.25 * 40
    assert exact([own] * 4) < spent < exact([0.998 * own] * 4)


def test_noise_of_a_seed_that_people_guess_does_not_count_later():
    solver = clipped(20.0, temperature=0.05)
    guessed = solver.run(RISK, 10, seed=3).state
    state = dataclasses.replace(guessed, seed=privacy.secret_seed())
    assert solver.privacy_spent(RISK, state, 1e-5, count_dynamics=True) == solver.privacy_spent(RISK, state, 1e-5)
    own = math.hypot(20.0, math.sqrt(2 * 0.05 / (0.2 * 10)) * 40)
    after = solver.run(RISK, 5, state=state).privacy_spent(1e-5, count_dynamics=True)
    assert exact([20.0] * 10 + [own] * 5) < after < exact([20.0] * 10 + [0.998 * own] * 5)


@pytest.mark.parametrize(
    "rows",
    [
        [[10, np.nan, 1, 0]],
        [[10, 0.0, 1, 0]],
        [[10, 2.0, 1, 0]],
        [[10, 0.5, np.nan, 0]],
        [[10, 0.5, np.inf, 0]],
        [[10, 0.5, -1, 0]],
        [[10, 0.5, 1, 1e7]],
        [[9.5, 0.5, 1, 0], [0.9, 0.5, 1, 0]],
        [[10, 0.5, 9, 0], [-4, 0.5, 1, 0]],
        [[10, 0.5, 9, 0], [np.nan, 0.5, 1, 0]],
        [[10, 0.5, 9, 0], [0, 0.5, 1, 0]],
    ],
)
def test_accounts_that_no_step_has_written_are_refused(rows):
    solver = clipped(1.0, 0.5)
    state = solver.run(RISK, 10).state
    edited = dataclasses.replace(state, buffers={"privacy_account": np.array([rows], float)})
    for call in (lambda: solver.privacy_spent(RISK, edited, 1e-5), lambda: solver.advance(RISK, edited, 1)):
        with pytest.raises(ValueError, match="must have rows of a whole number of steps"):
            call()
    for dtype in (np.int64, np.complex128, np.str_):
        edited = dataclasses.replace(state, buffers={"privacy_account": state.buffers["privacy_account"].astype(dtype)})
        with pytest.raises(ValueError, match="must be float64"):
            solver.privacy_spent(RISK, edited, 1e-5)


def test_nothing_is_compared_with_the_full_gradient():
    solver = clipped(20.0)
    state = solver.init(RISK)
    for call in (
        lambda: solver.gradient_variance(RISK, state),
        lambda: solver.advance(RISK, state, 2, probe=True),
        lambda: solver.run(RISK, 2, record={"v": lambda state: solver.gradient_variance(RISK, state)}),
    ):
        with pytest.raises(ValueError, match=r"gradient must not be Clipped.* where it is compared with the full one"):
            call()


def test_a_delta_below_what_the_noise_lacks_leaves_no_claim():
    """Each number is Gaussian up to 2**-64 in total variation: M of them add (1 + exp(epsilon)) M 2**-64 to delta."""
    solver = clipped(20.0)
    state = solver.run(RISK, 4).state
    lacking = 4 * state.particles.size * 2.0**-64
    assert solver.privacy_spent(RISK, state, lacking) == math.inf
    found = solver.privacy_spent(RISK, state, 1e3 * lacking)
    mu = math.sqrt(4) / 20.0
    with mpmath.workdps(40):
        delta = mpmath.ncdf(mu / 2 - found / mu) - mpmath.exp(found) * mpmath.ncdf(-mu / 2 - found / mu)
        delta += (1 + mpmath.exp(found)) * lacking
    assert 0.99 < float(delta / (1e3 * lacking)) <= 1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: mfld.Cooling(clipped(1.0, temperature=0.1)),
            ValueError,
            "solver must not have Clipped",
        ),
        (lambda: mfld.Clipped(1.0, 1.0, 1.5), ValueError, "batch_rate must be between 1e-06 and 1"),
        (
            lambda: mfld.MFLD(5, step_size=0.1, temperature=0.1).run(RISK, 1).privacy_spent(1e-5),
            TypeError,
            "gradient must be Clipped",
        ),
        (
            lambda: mfld.MFLD(5, temperature=0.1, gradient=mfld.Clipped(1.0, 1.0, 0.5)).run(RISK, 1).privacy_spent(0.1),
            ValueError,
            "step_size must be given for privacy",
        ),
        (
            lambda: (
                mfld.MFLD(
                    5,
                    step_size=0.1,
                    temperature=0.1,
                    gradient=mfld.Clipped(1.0, 1.0, 0.5),
                    dynamics=mfld.Underdamped(1.0),  # a gradient more than steps
                )
                .run(RISK, 1)
                .privacy_spent(0.1)
            ),
            ValueError,
            "dynamics must be Affine",
        ),
        (
            lambda: mfld.MFLD(5, step_size=0.1, temperature=0.1, gradient=mfld.Clipped(1.0, 1.0, 0.5)).run(
                RISK.over_ranks(Ranks(SimpleNamespace(Get_rank=lambda: 0, Get_size=lambda: 1))), 1
            ),
            ValueError,
            "gradient must not be Clipped with Sharded",
        ),
        (
            lambda: privacy.last_iterate(
                RISK,
                2.0,
                sensitivity=1.0,
                n_rows=5,
                convexity=0.1,
                smoothness=1.0,
                step_size=0.1,
                temperature=0.1,
                n_steps=3,
            ),
            TypeError,
            "objective must be a Potential, whose particles do not interact",
        ),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_last_iterate_of_a_slope_that_float64_cannot_tell_from_none():
    """Of hardly any convexity it is a random walk: n steps of h s apart, variance 2 h T n."""
    size = {"sensitivity": 1.0, "n_rows": 10, "smoothness": 1.0, "step_size": 0.1, "temperature": 0.5, "n_steps": 7}
    well = mfld.Potential(lambda x: x, n_coordinates=1)
    for convexity in (1e-14, 1e-30):  # 1 - h convexity loses digits, is 1
        found = privacy.last_iterate(well, 2.0, quadratic=True, convexity=convexity, **size)
        assert found == pytest.approx(2.0 * (7 * 0.1 * 0.1) ** 2 / (2 * 2 * 0.1 * 0.5 * 7), rel=1e-12)


@pytest.mark.parametrize("n_steps", [1, 7, 400])
def test_last_iterate_of_a_quadratic(n_steps):
    """Means of (x - z_i)**2 lambda / 2 that differ in one z: both laws are Gaussian, by their recursions."""
    convexity, h, temperature, n, gap, order = 0.8, 0.3, 0.2, 50, 2.0, 3.0
    means, variance = np.zeros(2), 0.0
    for _ in range(n_steps):
        means = means - h * convexity * (means - np.array([0.0, gap / n]))
        variance = (1 - h * convexity) ** 2 * variance + 2 * h * temperature
    exact = order * (means[1] - means[0]) ** 2 / (2 * variance)
    well = mfld.Potential(lambda x: convexity * x, n_coordinates=1)
    size = {
        "sensitivity": convexity * gap,
        "n_rows": n,
        "convexity": convexity,
        "smoothness": convexity,
        "step_size": h,
        "temperature": temperature,
        "n_steps": n_steps,
    }
    assert privacy.last_iterate(well, order, quadratic=True, **size) == pytest.approx(exact, rel=1e-10)
    bound = privacy.last_iterate(well, order, **size)
    assert exact <= bound
    composed = n_steps * order * (h * convexity * gap / n) ** 2 / (4 * h * temperature)
    assert bound < composed or n_steps < 100
