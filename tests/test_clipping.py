"""Clipped gradients and their accounts."""

import math

import mpmath
import numpy as np
import pytest
from scipy import stats

import mfld
from mfld import noise, privacy

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
    assert privacy.training_epsilon([4.530877117], 1.0, 1e-6) == pytest.approx(1.0, abs=1e-3)
    assert privacy.training_epsilon([4.530877117], 1.0, 1e-6) > privacy.gaussian_epsilon(1e-6, 4.530877117)
    assert privacy.training_epsilon([0.0, 1.0], 0.1, 1e-5) == math.inf


@pytest.mark.slow
def test_accounts_of_the_library():
    accounting = pytest.importorskip("dp_accounting")
    event = accounting.PoissonSampledDpEvent(0.02, accounting.GaussianDpEvent(1.1))
    ours = privacy.training_epsilon(np.full(500, 1.1), 0.02, 1e-5)
    theirs = accounting.rdp.RdpAccountant().compose(event, 500).get_epsilon(1e-5)
    assert ours == pytest.approx(theirs, rel=5e-3)
    tight = privacy.training_epsilon(np.full(500, 1.1), 0.02, 1e-5, accountant="pld")
    assert 0.7 * ours < tight < ours


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
    assert result.privacy_spent(1e-5, count_dynamics=True) == pytest.approx(expected, rel=1e-9)
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


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mfld.Clipped(1.0, 1.0, 1.5), ValueError, "batch_rate must be at most 1"),
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
