"""Bias reports against closed forms: linear-quadratic models at finite N, finite step size and finite time."""

from fractions import Fraction

import numpy as np
import pytest

import mfld
from mfld.noise import Coupling, Place

C, L2, T = 1.5, 0.4, 0.6


def lq():
    """F = (E theta - C)**2 / 2 + L2 E theta**2 in one coordinate."""
    return mfld.Functional(
        lambda x: np.full_like(x, x.mean() - C), lambda x: (x.mean() - C) ** 2 / 2, n_coordinates=1, l2=L2
    )


def second_moment(state):
    return np.mean(state.particles**2)


def discrete(h, n_steps, n_particles):
    """E of the second moment after Euler steps from N(0, 1): the mean of the particles and the rest are scalar chains.

    The mean moves by ``m' = (1 - (1 + 2 L2) h) m + C h + noise of variance 2 T h / N``, each deviation from it by
    ``(1 - 2 L2 h)`` with noise of variance ``2 T h (1 - 1/N)``.
    """
    inverse = 1 / n_particles
    mean, of_mean, within = 0.0, inverse, 1 - inverse
    for _ in range(n_steps):
        mean = (1 - (1 + 2 * L2) * h) * mean + C * h
        of_mean = (1 - (1 + 2 * L2) * h) ** 2 * of_mean + 2 * T * h * inverse
        within = (1 - 2 * L2 * h) ** 2 * within + 2 * T * h * (1 - inverse)
    return mean**2 + of_mean + within


def continuous(time, n_particles):
    inverse, fast, slow = 1 / n_particles, 1 + 2 * L2, 2 * L2
    mean = C / fast * (1 - np.exp(-fast * time))
    of_mean = inverse * (np.exp(-2 * fast * time) + T / fast * (1 - np.exp(-2 * fast * time)))
    within = (1 - inverse) * (np.exp(-2 * slow * time) + T / slow * (1 - np.exp(-2 * slow * time)))
    return mean**2 + of_mean + within


def test_the_closed_forms_agree():
    assert discrete(1e-4, 10_000, 7) == pytest.approx(continuous(1.0, 7), abs=2e-4)


class ManyModels(mfld.Objective):
    """Members that each are a model by themselves: as many reports in one."""

    space = mfld.Space(1)
    members = (600,)

    def __init__(self, interacts):
        self.interacts = interacts
        self.reference = mfld.references.Gaussian(L2)

    def loss(self, measure):
        return 0.0

    def loss_gradient(self, measure, batch=None):
        x = self.cloud(measure).particles
        return np.broadcast_to(x.mean(axis=1, keepdims=True) - C, x.shape) if self.interacts else x - C

    def first_variation(self, measure, batch=None):
        raise NotImplementedError


@pytest.mark.parametrize("interacts", [True, False])
def test_the_three_numbers_cover_the_exact_ones(interacts):
    h, n_steps, n = 0.1, 8, 20
    if interacts:
        exact = discrete(h, n_steps, n)
        of_step = exact - continuous(h * n_steps, n)
        of_particles = exact - discrete(h, n_steps, 10**12)
    else:  # Ornstein-Uhlenbeck of curvature 1 + 2 L2; the variance of a cloud divides by N
        rate = 1 + 2 * L2
        a, decay = (1 - rate * h) ** 2, np.exp(-2 * rate * h * n_steps)
        variance = a**n_steps + 2 * T * h * (1 - a**n_steps) / (1 - a)
        exact = (1 - 1 / n) * variance
        of_step = (1 - 1 / n) * (variance - decay - T / rate * (1 - decay))
        of_particles = -variance / n
    solver = mfld.MFLD(n, step_size=h, temperature=T, dtype="float64")

    def quantity(state):
        x = state.particles[..., 0]
        return np.mean(x**2, axis=1) if interacts else np.var(x, axis=1)

    report = mfld.bias_report(solver, ManyModels(interacts), quantity, n_steps)
    of_value = report.value.standard_error
    for name, truth in (("value", exact), ("step_bias", of_step), ("particle_bias", of_particles)):
        found = getattr(report, name)
        assert abs(found.value.mean() - truth) < 5 * found.value.std() / np.sqrt(600), name  # the mean of 600 reports
        # Of 600 intervals at 95 %, four deviations of the binomial law; the particle bias is like chi squared here.
        low = 0.95 - 4 * np.sqrt(0.95 * 0.05 / 600) - (0.02 if name == "particle_bias" else 0.0)
        assert low < np.mean(found.contains(truth, 0.95)) < 0.99, name
        assert np.mean(found.contains(truth, 0.6)) < 0.7, name
        if name != "value":  # without common noise it would be twice that of the value
            assert found.standard_error.mean() < of_value.mean() / 3, name
    assert np.mean(report.extrapolated.contains(exact - of_step - of_particles, 0.95)) > 0.91


def test_coverage_over_a_hundred_seeds():
    h, n_steps, n = 0.1, 2, 20
    exact = discrete(h, n_steps, n)
    truths = {
        "value": exact,
        "step_bias": exact - continuous(h * n_steps, n),
        "particle_bias": exact - discrete(h, n_steps, 10**12),
    }
    solver = mfld.MFLD(n, step_size=h, temperature=T, dtype="float64")
    reports = [mfld.bias_report(solver, lq(), second_moment, n_steps, s, n_replicates=8) for s in range(100)]
    for name, truth in truths.items():
        covered = sum(getattr(report, name).contains(truth, 0.95) for report in reports)
        assert covered >= 88, name  # of 100 at 95 %: fewer with a probability of 0.4 %


# ---- common noise ----------------------------------------------------------------------------------------------------


def test_runs_of_two_step_sizes_follow_one_brownian_path():
    """Without drift, a run at h/2 and one at 2h end where the run at h ends: at sqrt(2 T) times the same path."""
    flat, n_steps = mfld.Potential(lambda x: 0 * x, n_coordinates=2), 6
    solver = mfld.MFLD(5, step_size=0.3, temperature=1.0, dtype="float64")
    state = solver.init(flat, seed=3)
    end = solver.run(flat, n_steps, state=state).particles
    for share in (Fraction(1, 2), Fraction(2)):
        other, ratio = solver.at_step(share)
        coupled = other.coupled({state.key: Coupling(state.key, share.numerator, share.denominator)})
        there = coupled.run(flat, int(n_steps * ratio), state=state).particles
        np.testing.assert_allclose(there, end, atol=1e-12)
    assert np.abs(end - state.particles).max() > 1


@pytest.mark.parametrize("dynamics", [mfld.Overdamped("exact"), mfld.Underdamped(2.0)], ids=str)
def test_coupled_moves_are_those_of_the_core(dynamics):
    """With the run's own noise, what is made from the coefficients is what the compiled core makes."""
    risk = two_layer_risk()
    for dtype, tolerance in (("float32", 1e-5), ("float64", 1e-12)):
        solver = mfld.MFLD(16, step_size=0.2, temperature=0.01, dynamics=dynamics, dtype=dtype, n_replicates=2)
        state = solver.init(risk, seed=1)
        coupled = solver.coupled({key: Coupling(key) for key in state.keys})
        one, other = (each.run(risk, 20, state=state).state.clouds["mu"].particles for each in (solver, coupled))
        np.testing.assert_allclose(one, other, atol=tolerance)


def test_coupled_moves_stay_on_their_domain():
    model = mfld.TwoLayerNetwork(1, readout="fixed", domain=[mfld.Sphere(2)])
    inputs = np.linspace(-2, 2, 10)[:, np.newaxis]
    uniform = mfld.references.Uniform()
    risk = mfld.EmpiricalRisk(model, inputs, np.sign(inputs[:, 0]), loss="logistic", reference=uniform)
    solver = mfld.MFLD(8, step_size=0.1, temperature=0.1, dtype="float64")
    state = solver.init(risk)
    ends = [
        one.run(risk, 10, state=state).particles for one in (solver, solver.coupled({state.key: Coupling(state.key)}))
    ]
    np.testing.assert_allclose(*ends, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(ends[1], axis=1), 1)


def test_a_part_of_a_cloud_sees_the_noise_that_it_had_in_it():
    place = Place.of(7, step=5)
    second = place._replace(key=99, coupling=Coupling(place.key, part=1, parts=3))
    assert np.array_equal(second.normals(2, 4), place.normals(6, 4)[2:4])
    assert np.array_equal(second.ahead(2).batch(50, 4), place.ahead(2).batch(50, 4))
    assert np.array_equal(second.particle_batches(50, 4, 2), place.particle_batches(50, 4, 6)[2:4])
    assert np.array_equal(
        second.normals_like(np.zeros((5, 2, 3)), 3), place.normals_like(np.zeros((5, 6, 3)), 3)[:, 2:4]
    )
    with pytest.raises(NotImplementedError, match="coupled noise"):
        second.of_members(())


def test_finer_noise_is_independent_and_normal():
    place = Place.of(7)
    fine = place._replace(coupling=Coupling(place.key, finer=2))
    first, second = fine.normals(40_000, 1, "float64")[:, 0], fine.ahead(1).normals(40_000, 1, "float64")[:, 0]
    assert np.allclose((first + second) / np.sqrt(2), place.normals(40_000, 1, "float64")[:, 0])
    covariance = np.cov(first, second)
    assert np.abs(covariance - np.eye(2)).max() < 5 * np.sqrt(2 / 40_000)


# ---- any algorithm ---------------------------------------------------------------------------------------------------


def two_layer_risk():
    inputs = np.linspace(-2, 2, 20)[:, np.newaxis]
    model = mfld.TwoLayerNetwork(n_features=1, readout="bounded")
    return mfld.EmpiricalRisk(model, inputs, np.sign(inputs[:, 0]), loss="logistic", l2=0.05)


LANGEVIN = mfld.MFLD(16, step_size=0.2, temperature=0.01)


@pytest.mark.parametrize(
    ("solver", "coupled", "has_step"),
    [
        (LANGEVIN, True, True),
        (mfld.MFLD(16, step_size=0.2, temperature=0.01, gradient=mfld.SVRG(4, 3)), True, True),
        (mfld.MFLD(16, step_size=0.2, temperature=0.01, gradient=mfld.PerParticleMinibatch(4)), True, True),
        (mfld.MFLD(16, step_size=mfld.schedules.Power(0.3, 0.5), temperature=lambda k: 0.01), True, True),
        (mfld.MFLD(16, temperature=0.01), True, True),
        (mfld.MFLD(16, step_size=0.3, temperature=0.01, dynamics=mfld.Preconditioned()), True, True),
        (mfld.PDA(16, step_size=0.2, temperature=0.01, inner_steps=4), True, True),
        (mfld.PDA(16, step_size=0.2, temperature=0.01, inner_steps=4, batch_size=5), True, True),
        (mfld.PSDCA(64, temperature=0.1), False, False),
        (mfld.TwoPhase(LANGEVIN, switch=4), True, True),
        (mfld.TopParticles(LANGEVIN, n_best=8, switch=4), True, True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, mfld.Algorithm) else str(value),
)
def test_every_algorithm_has_a_report(solver, coupled, has_step):
    risk = two_layer_risk()
    report = mfld.bias_report(solver, risk, mfld.quantities.loss(risk), n_steps=8, n_replicates=8)
    assert report.coupled == coupled
    assert (report.step_bias is not None) == has_step
    assert report.particle_bias is not None
    assert np.isfinite(report.extrapolated.value)
    assert report.cost <= 6
    assert f"cost {report.cost:.3g} times the 8 runs" in str(report)


def test_the_value_is_that_of_the_plain_runs():
    risk = two_layer_risk()
    report = mfld.bias_report(LANGEVIN, risk, mfld.quantities.loss(risk), n_steps=8, seed=5, n_replicates=8)
    runs = mfld.MFLD(16, step_size=0.2, temperature=0.01, n_replicates=8).run(risk, 8, seed=5).state
    losses = [risk.loss(one.measure) for one in runs.each()]
    assert report.value.value == np.mean(losses)
    assert report.spread == np.std(losses, ddof=1)


def test_independent_runs_where_noise_cannot_be_common():
    well = mfld.Potential(lambda x: x, lambda x: (x**2).sum(axis=1) / 2, n_coordinates=1)
    solver = mfld.MFLD(50, step_size=0.5, temperature=1.0, dynamics=mfld.MALA())
    report = mfld.bias_report(solver, well, second_moment, n_steps=40)
    assert not report.coupled
    assert "independent noise" in str(report)
    assert report.step_bias.contains(0.0, 0.999)  # it is exact at every step size


def test_quantities_may_be_arrays():
    risk = two_layer_risk()
    quantity = mfld.quantities.predictions(risk.model, [[-1.0], [0.0], [1.0]])
    report = mfld.bias_report(LANGEVIN, risk, quantity, n_steps=8, n_replicates=8)
    assert report.value.value.shape == report.step_bias.value.shape == report.extrapolated.standard_error.shape == (3,)
    assert len(str(report).splitlines()) >= 5


def test_a_second_order_scheme_is_not_taken_for_a_first_order_one():
    """OBABO's position on a quadratic potential: variance T / (1 - h**2 / 4) after long, hence a bias of T h**2 / 4."""
    well = mfld.Potential(lambda x: x, n_coordinates=1)
    dynamics = mfld.Underdamped(2.0, "obabo")
    solver = mfld.MFLD(2000, step_size=0.6, temperature=1.0, dynamics=dynamics, dtype="float64")
    report = mfld.bias_report(solver, well, second_moment, n_steps=40, n_replicates=8)
    assert report.step_bias.contains(1 / (1 - 0.09) - 1, 0.999)
    assert report.step_bias.value > 2 * report.step_bias.standard_error


def test_a_step_size_near_the_edge_says_so():
    well = mfld.Potential(lambda x: x, n_coordinates=1)
    report = mfld.bias_report(mfld.MFLD(50, step_size=1.9, temperature=1.0), well, second_moment, 200, n_replicates=8)
    assert any("at 2 times the step size diverges" in note for note in report.notes)
    assert report.step_regime == "unknown"
    report = mfld.bias_report(mfld.MFLD(50, step_size=0.95, temperature=1.0), well, second_moment, 40, n_replicates=8)
    assert report.step_regime == "not reached"  # 2 h = 1.9: the variance is 20 instead of 1.9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_steps": 0}, "n_steps must be between 1 and"),
        ({"n_replicates": 3}, "n_replicates must be at least 4, got 3"),
        ({"confidence": 1.0}, "confidence must be at least 0.5 and below 1"),
        (
            {"solver": mfld.MFLD(8, step_size=0.1, temperature=(0.1, 0.2), n_replicates=2)},
            "temperature of solver must be one for all replicates",
        ),
    ],
)
def test_misuse(change, message):
    arguments = {"solver": LANGEVIN, "objective": lq(), "quantity": second_moment, "n_steps": 4} | change
    with pytest.raises(ValueError, match=message):
        mfld.bias_report(**arguments)


def test_odd_counts_of_steps_and_of_particles_have_what_they_allow():
    report = mfld.bias_report(mfld.MFLD(15, step_size=0.1, temperature=0.1), lq(), second_moment, 5, n_replicates=4)
    assert report.step_bias is not None
    assert (report.step_order, report.particle_bias) == (None, None)
    assert "no order of the step-size bias: n_steps is odd" in report.notes
    assert "no particle bias: n_particles must be a multiple of 2, got 15" in report.notes
    assert "value less the step-size bias only" in str(report)
    halved = mfld.bias_report(mfld.MFLD(14, step_size=0.1, temperature=0.1), lq(), second_moment, 4, n_replicates=4)
    assert halved.particle_bias is not None
    assert halved.particle_order is None


def test_step_sizes_that_a_run_finds():
    well = mfld.potentials.Gaussian([0.0])
    solver = mfld.MFLD(20, step_size="fuse", temperature=1.0)
    assert solver.at_step(Fraction(1, 2)) is None
    report = mfld.bias_report(solver, well, second_moment, 4, n_replicates=4)
    assert report.step_bias is not None
    assert any("that of the end of an automatic run" in note for note in report.notes)


def test_quantities_that_change_their_shape_are_named():
    well, solver = mfld.potentials.Gaussian([0.0]), mfld.MFLD(20, step_size=0.1, temperature=1.0)
    report = mfld.bias_report(solver, well, lambda state: state.particles[:, 0], 4, n_replicates=4)
    assert report.particle_bias is None
    assert any("the result of quantity must have one shape" in note for note in report.notes)
    with pytest.raises(ValueError, match="the result of quantity must have at least one number"):
        mfld.bias_report(solver, well, lambda state: [], 4, n_replicates=4)


def test_an_error_of_the_quantity_ends_the_report():
    """It is no note: only a cloud that cannot be smaller, or a shape that follows it, is."""
    well, solver = mfld.potentials.Gaussian([0.0]), mfld.MFLD(20, step_size=0.1, temperature=1.0)

    def quantity(state):
        if len(state.particles) < 20:
            raise ValueError("of its own")
        return state.particles.mean()

    with pytest.raises(ValueError, match="of its own"):
        mfld.bias_report(solver, well, quantity, 4, n_replicates=4)
