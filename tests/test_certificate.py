"""Certificates: the gap by quadrature, bounds that hold, refusals, and the sampler below them."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from numpy.testing import assert_allclose

import mfld
from mfld import gibbs
from mfld.certificates import fenchel_young_gap, smallest_ridge, student_quantile
from mfld.noise import Place
from mfld.sampling import GibbsSampler

GRID = np.linspace(-9, 9, 1801)  # the trapezoidal rule, whose error for these densities is far below 1e-12
CELL = GRID[1] - GRID[0]


class OneDimension:
    """A risk of neurons tanh(w z) with one coordinate w, and its integrals on a grid."""

    def __init__(self, loss, seed=0, n=10, temperature=0.1, l2=0.1):
        rng = np.random.default_rng(seed)
        self.inputs = rng.normal(size=(n, 1))
        noisy = np.sin(2 * self.inputs[:, 0]) + 0.3 * rng.normal(size=n)
        self.y = np.where(noisy > 0, 1.0, -1.0) if mfld.Loss(loss).targets == "sign" else noisy
        model = mfld.TwoLayerNetwork(1, readout="fixed", bias=False)
        self.s = rng.uniform(0.5, 2, size=n)
        self.s /= self.s.sum()
        self.risk = mfld.EmpiricalRisk(model, self.inputs, self.y, loss=loss, l2=l2, sample_weight=self.s)
        self.loss, self.temperature, self.l2, self.n = mfld.Loss(loss), temperature, l2, n
        self.h = np.tanh(self.inputs * GRID)

    def law(self, g):
        exponent = -((self.s * g) @ self.h + self.l2 * GRID**2) / self.temperature
        masses = np.exp(exponent - exponent.max())
        return masses / masses.sum(), exponent.max() + math.log(masses.sum() * CELL)

    def primal(self, g):
        masses, _ = self.law(g)
        entropy = np.sum(masses * np.log(masses / CELL, where=masses > 0, out=np.zeros_like(masses)))
        loss = self.s @ self.loss.value(self.h @ masses, self.y)
        return loss + self.l2 * masses @ GRID**2 + self.temperature * entropy

    def dual(self, g):
        return -self.s @ self.loss.conjugate(g, self.y) - self.temperature * self.law(g)[1]

    def optimum(self, epochs=100):
        g = self.loss.derivative(np.zeros(self.n), self.y)
        for i in np.tile(np.arange(self.n), epochs):
            u = self.h[i] @ self.law(g)[0]
            g[i] = self.loss.dual_step(g[i : i + 1], [u], self.y[i : i + 1], [self.temperature / self.s[i]])[0]
        return g


@pytest.mark.parametrize("loss", [name for name in mfld.losses() if name != "cross_entropy"])
def test_gap_is_primal_minus_dual(loss, rng):
    problem = OneDimension(loss)
    for _ in range(5):
        g = problem.loss.derivative(rng.normal(size=problem.n), problem.y)
        u = problem.h @ problem.law(g)[0]
        assert_allclose(fenchel_young_gap(problem.risk, u, g), problem.primal(g) - problem.dual(g), atol=1e-10)


def test_gap_of_cross_entropy_by_brute_force(rng):
    n, k = 20, 3
    y = rng.integers(0, k, size=n)
    model = mfld.TwoLayerNetwork(1, k)
    risk = mfld.EmpiricalRisk(model, rng.normal(size=(n, 1)), y, loss="cross_entropy", l2=0.1)
    u, p = rng.normal(size=(n, k)), rng.dirichlet(np.ones(k), size=n)
    expected = np.log(np.exp(u).sum(axis=1)) + np.sum(p * np.log(p), axis=1) - np.sum(u * p, axis=1)
    assert_allclose(fenchel_young_gap(risk, u, p - np.eye(k)[y]), expected.mean(), rtol=1e-12)


@pytest.mark.parametrize("loss", ["half_squared", "logistic", "hinge"])
def test_certificate_is_the_gap_within_its_error(loss, rng):
    problem = OneDimension(loss)
    g = problem.loss.derivative(rng.normal(size=problem.n), problem.y)
    found = mfld.certificate(problem.risk, g, problem.temperature, dtype="float64", num_threads=1)
    gap = problem.primal(g) - problem.dual(g)
    assert found.reason is None
    assert found.r_hat < 1.1
    assert abs(found.gap - gap) < 5 * found.standard_error < 0.2 * gap
    u = problem.h @ problem.law(g)[0]
    assert_allclose(found.predictions[:, 0], u, atol=0.03)
    assert found.particles.shape == (512, 1)
    assert "by at most" in str(found)
    assert found.confidence == 0.999


def covered(seed, **options):
    """Whether a certificate at random, nearly optimal or optimal dual variables is an upper bound of the gap."""
    rng = np.random.default_rng(seed)
    problem = OneDimension(["half_squared", "logistic", "smoothed_hinge"][seed % 3], seed, n=6)
    g = problem.optimum(8)
    scale = [0.0, 0.05, 1.0][seed // 3 % 3]
    g = (1 - scale) * g + scale * problem.loss.derivative(rng.normal(size=problem.n), problem.y)
    found = mfld.certificate(problem.risk, g, problem.temperature, n_chains=256, seed=seed, num_threads=1, **options)
    assert found.reason is None
    return found.upper >= problem.primal(g) - problem.dual(g)


def test_upper_bounds_hold():
    # At confidence 0.999 each, two failures among 9 have a probability of 4e-5.
    assert sum(covered(seed) for seed in range(9)) >= 8


def test_upper_bounds_hold_near_the_optimum_where_the_error_is_not_that_of_a_linear_function():
    # Nearly optimal dual variables and few moves: estimates that fall below the gap by luck have a standard error that
    # is too small as well. These seeds, picked for that, defeat a bound of the form gap + t * standard_error.
    assert all(covered(seed, tolerance=1.0) for seed in (5, 212, 265, 398, 464, 581, 715))


def test_dual_error_bounds_the_distance_to_the_optimum():
    for loss in ("half_squared", "logistic"):
        problem = OneDimension(loss)
        optimum = problem.optimum()
        g = 0.7 * optimum + 0.3 * problem.loss.derivative(np.ones(problem.n), problem.y)
        found = mfld.certificate(problem.risk, g, problem.temperature, num_threads=1)
        distance = math.sqrt(problem.s @ (g - optimum) ** 2)
        assert distance <= found.dual_error < 20 * distance
    assert (
        mfld.certificate(OneDimension("absolute").risk, np.zeros(10), 0.1, n_chains=64, num_threads=1).dual_error
        == math.inf
    )


def test_student_quantile():
    for confidence in (0.9, 0.99, 0.999, 0.9999):
        assert_allclose(student_quantile(confidence, 31), scipy.stats.t.ppf(confidence, 31), atol=2e-3)


@pytest.mark.parametrize("loss", ["half_squared", "logistic"])
def test_log_partition(loss, rng):
    problem = OneDimension(loss)
    g = problem.loss.derivative(rng.normal(size=problem.n), problem.y)
    exact = problem.law(g)[1]
    quadrature, error = mfld.certificates.log_partition(problem.risk, g, problem.temperature, method="quadrature")
    assert error == 0
    assert_allclose(quadrature, exact, atol=1e-10)
    estimate, error = mfld.certificates.log_partition(problem.risk, g, problem.temperature)
    assert abs(estimate - exact) < 5 * error < 0.3
    conjugate = problem.s @ problem.loss.conjugate(g, problem.y)
    assert_allclose(-conjugate - problem.temperature * quadrature, problem.dual(g), atol=1e-10)


# ---- results of runs -------------------------------------------------------------------------------------------------


def test_of_a_run_of_langevin_dynamics():
    problem = OneDimension("logistic")
    solver = mfld.MFLD(200, step_size=0.3, temperature=problem.temperature, num_threads=1)
    average = mfld.AverageDual(problem.risk, start=100)
    result = solver.run(problem.risk, n_steps=500, callbacks=[average])
    single = result.certificate(dual=solver.dual(problem.risk, result.state), num_threads=1)
    averaged = result.certificate(dual=average.dual, num_threads=1)
    by_default = result.certificate(num_threads=1)
    assert single.reason is averaged.reason is by_default.reason is None
    # One cloud's dual variables fluctuate with its predictions: averaging removes most of the floor of order 1/N.
    floors = [problem.primal(c.dual[:, 0]) - problem.dual(c.dual[:, 0]) for c in (single, averaged, by_default)]
    assert max(floors[1:]) < floors[0] / 2
    for found, floor in zip((averaged, by_default), floors[1:], strict=True):
        assert floor <= found.upper < 1e-3


def test_looks_at_a_bound_share_its_confidence(monkeypatch):
    asked = []

    def recorded(*arguments, confidence, **options):
        asked.append(1 - confidence)
        return mfld.certificate(*arguments, confidence=confidence, **options)

    monkeypatch.setattr(mfld.quantities, "certificate", recorded)
    problem = OneDimension("logistic")
    solver = mfld.PSDCA(100, temperature=problem.temperature, num_threads=1)
    bound = mfld.quantities.gap_bound(solver, problem.risk, 0.1, confidence=0.99, n_chains=64, tolerance=0.1)
    state = solver.init(problem.risk)
    for _ in range(5):
        bound(state)
    assert_allclose(asked, [0.01 * 6 / (math.pi * k) ** 2 for k in range(1, 6)])
    assert sum(asked) < 0.01


def test_bounds_of_the_optimum_and_free_energy_of_a_state():
    for loss in ("half_squared", "logistic"):
        problem = OneDimension(loss)
        best = problem.dual(problem.optimum())
        g = problem.optimum(3)
        found = mfld.certificate(problem.risk, g, problem.temperature, num_threads=1)
        lower, upper = found.optimum
        assert lower <= best <= upper < lower + 0.1
        assert upper >= problem.primal(g)
        assert abs(found.dual_value - problem.dual(g)) < 5 * found.dual_value_error < 0.05
        assert f"The optimum is between {lower:.6g} and {upper:.6g}" in str(found)
        solver = mfld.PSDCA(200, temperature=problem.temperature, num_threads=1)
        state, _ = solver.advance(problem.risk, solver.init(problem.risk), 2)
        value, low, high = mfld.quantities.free_energy(solver, problem.risk, problem.temperature)(state)
        exact = problem.primal(solver.dual(problem.risk, state)[:, 0])
        assert low < exact < high
        assert abs(value - exact) < 0.02


@pytest.mark.parametrize("size", [1.0, 1e9, 1e10])
def test_bounds_of_the_optimum_know_the_rounding_of_their_terms(size):
    # Dual variables as far from the optimum as one likes: D(g) and the gap are about -+size**2, and P* is about 0.1.
    z, y, l2, temperature = np.array([1.0, 0.3]), np.array([0.5, -0.5]), 0.1, 0.05
    model = mfld.TwoLayerNetwork(1, readout="fixed", bias=False)
    risk = mfld.EmpiricalRisk(model, z[:, np.newaxis], y, loss="half_squared", l2=l2)
    found = mfld.certificate(risk, [size, -0.7 * size], temperature, num_threads=1)
    assert found.reason is None
    # D at duals of the prediction 0 is a lower bound of P*, and the objective of the reference measure an upper one.
    exponent = (y @ np.tanh(np.outer(z, GRID)) / 2 - l2 * GRID**2) / temperature
    least = np.mean(y**2) / 2 - temperature * math.log(np.exp(exponent).sum() * CELL)
    most = np.mean(y**2) / 2 - temperature / 2 * math.log(math.pi * temperature / l2)
    lower, upper = found.optimum
    assert 0.07 < least < most < 0.12
    assert lower <= most
    assert least <= upper < most + 1 + 1e-14 * size**2


def test_stop_when_the_gap_is_small():
    problem = OneDimension("logistic")
    solver = mfld.PSDCA(1000, temperature=problem.temperature, num_threads=1)
    gap = mfld.quantities.gap_bound(solver, problem.risk, problem.temperature, n_chains=64, num_threads=1)
    stop = mfld.StopWhen(lambda state, info: gap(state) < 2e-3, every=2)
    result = solver.run(problem.risk, n_steps=50, callbacks=[stop])
    assert result.state.step < 20
    assert problem.primal(result.dual) - problem.dual(result.dual) < 2e-3


def test_of_other_objectives_and_without_steps():
    well = mfld.Potential(lambda x: x, n_coordinates=1)
    with pytest.raises(TypeError, match=r"the objective of the run must be an EmpiricalRisk, got .*Potential"):
        mfld.MFLD(10, step_size=0.1, temperature=0.1).run(well, n_steps=1).certificate()
    risk = OneDimension("logistic").risk
    with pytest.raises(ValueError, match="temperature must be given where the run has made no step"):
        mfld.MFLD(10, step_size=0.1, temperature=0.1).run(risk, n_steps=0).certificate()


# ---- reasons ---------------------------------------------------------------------------------------------------------


def reason(risk, dual, temperature=0.1, **options):
    found = mfld.certificate(risk, dual, temperature, num_threads=1, **options)
    assert math.isnan(found.gap)
    assert math.isnan(found.upper)
    assert str(found) == f"no certificate: {found.reason}"
    return found.reason


def test_reasons(rng):
    problem = OneDimension("logistic")
    risk, g = problem.risk, -problem.y / 2
    assert reason(risk, g, 0.0) == "the temperature is 0: there is no Gibbs measure"
    assert reason(risk, g, l2=0.0) == "l2 is 0: the Gibbs measure is not normalisable"
    assert reason(risk, 2 * g * 1.5) == "a dual variable is outside of the domain of the loss's conjugate"
    own = mfld.EmpiricalRisk(risk.model, problem.inputs, problem.y, loss=lambda u, y: (u * u, 2 * u), l2=0.1)
    assert reason(own, g) == "the loss is not convex: there is no duality gap"
    assert "combinations of frozen coordinates need n_chains" in reason(
        mfld.EmpiricalRisk(
            mfld.TwoLayerNetwork(1, n_outputs=6, readout="signs"), [[1.0]], [0], loss="cross_entropy", l2=0.1
        ),
        np.full((1, 6), 1 / 6) - np.eye(6)[:1],
    )


def test_moves_are_the_budget(rng):
    inputs, y = rng.normal(size=(50, 20)), rng.choice([-1.0, 1.0], size=50)
    model = mfld.TwoLayerNetwork(20, activation="silu", readout="bounded", readout_bound=5.0)
    risk = mfld.EmpiricalRisk(model, inputs, y, loss="logistic", l2=1e-3)
    for most in (128, 1000):
        found = mfld.certificate(risk, -y / 2, 2e-5, n_chains=64, most_moves=most, num_threads=1)
        assert found.reason.startswith(f"the particles did not mix within {found.n_moves} moves (")
        assert found.n_moves <= most
    problem = OneDimension("logistic")
    g = problem.optimum(8)
    short, long = (
        mfld.certificate(problem.risk, g, 0.1, most_moves=most, tolerance=0, n_chains=64, num_threads=1)
        for most in (500, 4000)
    )
    assert short.reason is long.reason is None
    assert short.n_moves <= 500 < long.n_moves <= 4000
    assert short.dual_value_error > long.dual_value_error
    assert min(short.upper, long.upper) >= problem.primal(g) - problem.dual(g)


def test_two_wells_far_apart_are_both_found():
    # sin(3 w z) with a strong pull: chains that start in one place do not cross.
    model = mfld.TwoLayerNetwork(1, activation="sin", readout="fixed", bias=False)
    risk = mfld.EmpiricalRisk(model, [[3.0]], [0.0], loss="half_squared", l2=1e-3)
    found = mfld.certificate(risk, [8.0], 0.2, num_threads=1)
    w = np.linspace(-150, 150, 300_001)
    density = np.exp(-(8 * (np.sin(3 * w) + 1) + 1e-3 * w**2) / 0.2)
    log_z = math.log(density.sum() * (w[1] - w[0])) + 8 / 0.2
    u = density @ np.sin(3 * w) / density.sum()
    assert found.reason is None
    assert_allclose(found.predictions, [[u]], atol=0.01)
    assert_allclose(found.dual_value, -32 - 0.2 * log_z, atol=0.1)
    assert abs(found.dual_value - (-32 - 0.2 * log_z)) < 5 * found.dual_value_error


def aimed(activation, number, width, n=400):
    """A risk, dual variables aimed at one w in the plane, the temperature, and an upper bound of D by quadrature.

    The wells have a width of the inverse of the inputs' and are far from the start of any ladder. The mass of those at
    w and, of cosines, at -w alone is a lower bound of Z, hence an upper one of D.
    """
    rng = np.random.default_rng(number)
    z, w = width * rng.normal(size=(n, 2)), [[2.0, -1.5], [0.5, 2.5], [-1.9, 0.9]][number]
    l2, temperature, function = 0.1, 0.2, {"sin": np.sin, "cos": np.cos}[activation]
    model = mfld.TwoLayerNetwork(2, activation=activation, readout="fixed", bias=False, output_scale=2.0)
    risk = mfld.EmpiricalRisk(model, z, np.zeros(n), loss="half_squared", l2=l2)
    g = -4 * function(z @ w)
    axis = np.linspace(-4 / width, 4 / width, 61)
    near = w + np.stack([part.ravel() for part in np.meshgrid(axis, axis)], axis=1)
    exponent = -(g @ (2 * function(z @ near.T)) / n + l2 * np.sum(near**2, axis=1)) / temperature
    log_mass = math.log((1 + (activation == "cos")) * np.exp(exponent).sum() * (axis[1] - axis[0]) ** 2)
    return risk, g, temperature, -np.mean(g**2) / 2 - temperature * log_mass


@pytest.mark.parametrize(("activation", "number", "width"), [("cos", 0, 60.0), ("sin", 1, 20.0), ("sin", 2, 40.0)])
def test_narrow_wells_that_nothing_leads_to_are_found_or_there_is_no_certificate(activation, number, width):
    risk, g, temperature, highest = aimed(activation, number, width)
    found = mfld.certificate(risk, g, temperature, most_moves=2048, num_threads=1)
    if found.reason is None:
        assert found.optimum[0] < found.dual_value < highest + 0.01
    else:
        assert "the particles did not mix" in found.reason


@pytest.mark.parametrize(("dimension", "share", "temperature"), [(1, 0.9999, 0.01), (9, 0.99, 0.1)])
def test_laws_that_neurons_nearly_take_the_ridge_of_are_as_wide_as_they_are(dimension, share, temperature, rng):
    # Neurons a (w . z) with one z: a Gaussian, along one axis up to 100 times as wide as the reference.
    n, z = 20, rng.normal(size=dimension)
    y, g = rng.normal(size=n), np.abs(rng.normal(size=n))
    pull = g.mean() * np.linalg.norm(z)  # V = pull a (w . z) / |z|
    l2 = pull / 2 / share
    model = mfld.TwoLayerNetwork(dimension, activation="identity", readout="linear", bias=False)
    risk = mfld.EmpiricalRisk(model, np.tile(z, (n, 1)), y, loss="half_squared", l2=l2)
    precision = 2 / temperature * np.array([[l2, pull / 2], [pull / 2, l2]])
    u = np.linalg.inv(precision)[0, 1] * np.linalg.norm(z)
    gap = np.mean((u - y) ** 2 / 2 + g**2 / 2 + g * y - u * g)
    log_z = (dimension + 1) / 2 * math.log(math.pi * temperature) - (dimension - 1) / 2 * math.log(l2)
    dual_value = -np.mean(g**2 / 2 + g * y) - temperature * (log_z - math.log(l2**2 - pull**2 / 4) / 2)
    found = mfld.certificate(risk, g, temperature, num_threads=1)
    assert found.reason is None
    assert gap <= found.upper < 10 * gap
    assert found.optimum[0] <= dual_value
    assert abs(found.dual_value - dual_value) < 5 * found.dual_value_error


def test_cold_potentials_are_resolved_or_refused():
    # At this temperature the exponents are rounded to about 40 in float32.
    problem = OneDimension("half_squared", temperature=3e-9, l2=0.5)
    g = problem.optimum(0)
    risk, options = problem.risk, {"most_moves": 512, "num_threads": 1}
    assert "float32 does not resolve" in mfld.certificate(risk, g, 3e-9, dtype="float32", **options).reason
    assert "float64 does not resolve" in mfld.certificate(risk, g, 3e-16, **options).reason
    found = mfld.certificate(risk, g, 1e-4, **options)
    precise = mfld.certificate(risk, g, 1e-5, **options)
    assert found.particles.dtype == np.float32
    assert precise.particles.dtype == np.float64


def test_what_is_said_when_the_moves_end_has_to_hold_with_the_wells_too():
    problem = OneDimension("logistic")
    asked = []

    def estimate(holds):
        place = Place.of(0, num_threads=1)
        return gibbs.rounds_of(
            problem.risk,
            problem.optimum(1)[:, np.newaxis],
            problem.temperature,
            problem.l2,
            n_chains=64,
            most_moves=600,
            place=place,
            quantile=4.0,
            dtype=np.dtype("float32"),
            confined=1.0,
            enough=lambda found: False,
            holds=lambda found, predictions, log_z: asked.append(log_z) or holds,
        )

    assert estimate(holds=True).reason is None
    assert abs(asked[-1] - problem.law(problem.optimum(1))[1]) < 0.1
    assert "with wells that have" in estimate(holds=False).reason


def test_whether_points_covered_all_wells_is_said():
    problem = OneDimension("logistic")
    near = mfld.certificate(problem.risk, problem.optimum(1), problem.temperature, num_threads=1)
    assert near.covered
    assert "too narrow" not in str(near)
    # Without dual variables there are no wells; with inputs a thousand times as wide there is no room for the points.
    for g, covered in ((np.zeros(8), True), (np.ones(8), False)):
        wide = mfld.EmpiricalRisk(
            mfld.TwoLayerNetwork(2, readout="fixed", bias=False),
            1e3 * np.random.default_rng(0).normal(size=(8, 2)),
            np.zeros(8),
            loss="half_squared",
            l2=0.1,
        )
        found = mfld.certificate(wide, g, 0.5, tolerance=1.0, num_threads=1)
        assert found.reason is None
        assert found.covered == covered
        assert ("too narrow" in str(found)) != covered


def test_normalisability_is_checked(rng):
    inputs, y = rng.normal(size=(30, 2)), rng.normal(size=30)
    g = rng.normal(size=30)
    needed = 0.5 * np.mean(np.abs(g) * np.sqrt(np.sum(inputs**2, axis=1) + 1))
    for l2, fits in ((0.99 * needed, False), (1.01 * needed, True)):
        model = mfld.TwoLayerNetwork(2, activation="relu", readout="linear")
        risk = mfld.EmpiricalRisk(model, inputs, y, loss="half_squared", l2=l2)
        assert_allclose(smallest_ridge(risk, g[:, np.newaxis]), needed)
        found = mfld.certificate(risk, g, 0.5, n_chains=64, num_threads=1)
        assert (found.reason is None) == fits
        if not fits:
            assert "grows like |theta|**2 and needs l2 >" in found.reason
    for arguments in ({"activation": "relu", "readout": "bounded"}, {"activation": "tanh", "readout": "linear"}):
        risk = mfld.EmpiricalRisk(mfld.TwoLayerNetwork(2, **arguments), inputs, y, loss="half_squared", l2=1e-3)
        assert smallest_ridge(risk, g[:, np.newaxis]) == 0


def test_arguments_are_checked():
    risk = OneDimension("logistic").risk
    with pytest.raises(ValueError, match=r"dual must have shape \(10, 1\)"):
        mfld.certificate(risk, np.zeros(9), 0.1)
    with pytest.raises(ValueError, match="dual must be finite"):
        mfld.certificate(risk, np.full(10, np.nan), 0.1)
    with pytest.raises(ValueError, match="n_chains must be a multiple of 32, got 100"):
        mfld.certificate(risk, np.zeros(10), 0.1, n_chains=100)
    with pytest.raises(ValueError, match=r"confidence must be at least 0\.5 and below 1, got 1"):
        mfld.certificate(risk, np.zeros(10), 0.1, confidence=1.0)
    with pytest.raises(ValueError, match="temperature must be finite and at least 0"):
        mfld.certificate(risk, np.zeros(10), -0.1)


# ---- the sampler -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step_size", [0.05, 1.0, None])
def test_chains_have_the_gibbs_law_at_any_step_size(step_size):
    # V = cos(2 x) + x: far from Gaussian. The law is exact, whatever the step.
    def value(x):
        return np.cos(2 * x[:, 0]) + x[:, 0]

    def gradient(x):
        return np.column_stack([-2 * np.sin(2 * x[:, 0]) + 1, np.zeros(len(x))])

    well = mfld.Potential(gradient, value, n_coordinates=2, l2=0.25)
    sampler = GibbsSampler(well, temperature=1.0, key=7)
    n = 4000
    start = np.sqrt(1 / 0.5) * np.random.default_rng(0).normal(size=(n, 2))
    chains = sampler.start(start, step_size)
    for _ in range(400 if step_size == 0.05 else 60):
        chains = sampler.move(chains, adapt=step_size is None)
    x = np.linspace(-12, 12, 4001)
    density = np.exp(-(np.cos(2 * x) + x + 0.25 * x**2))
    density /= density.sum()
    for f in (np.sin, np.cos, lambda t: t, lambda t: t**2, lambda t: np.tanh(3 * t)):
        exact = density @ f(x)
        spread = math.sqrt(density @ f(x) ** 2 - exact**2)
        assert abs(np.mean(f(chains.points[:, 0])) - exact) < 5 * spread / math.sqrt(n)
    assert abs(np.var(chains.points[:, 1]) - 2.0) < 5 * 2 * math.sqrt(2 / n)
    if step_size is None:
        assert abs(chains.acceptance - 0.574) < 0.05


def test_one_move_is_reversible():
    # Detailed balance in a stationary cloud: flows between two halves of the line cancel.
    well = mfld.Potential(np.sin, lambda x: -np.cos(x[:, 0]), n_coordinates=1, l2=0.2)
    x = np.linspace(-9, 9, 200_001)
    density = np.exp(np.cos(x) - 0.2 * x**2)
    uniform = (np.arange(60_000) + 0.5) / 60_000
    start = np.interp(uniform, np.cumsum(density) / density.sum(), x)[:, np.newaxis]
    sampler = GibbsSampler(well, temperature=1.0, key=1)
    chains = sampler.start(start, 1.5)
    moved = sampler.move(chains, adapt=False)
    forward = np.sum((start < 0.3) & (moved.points >= 0.3))
    back = np.sum((start >= 0.3) & (moved.points < 0.3))
    assert forward > 5000
    assert abs(forward - back) < 5 * math.sqrt(forward + back)
    for low, high in ((-2.0, -1.0), (0.0, 0.5), (1.0, 3.0)):
        share = density[(x >= low) & (x < high)].sum() / density.sum()
        inside = np.mean((moved.points >= low) & (moved.points < high))
        assert abs(inside - share) < 5 * math.sqrt(share / 60_000)


def test_chains_need_no_ridge_where_the_potential_confines_them():
    well = mfld.Potential(lambda x: x**3, lambda x: np.sum(x**4, axis=1) / 4, n_coordinates=1)
    sampler = GibbsSampler(well, temperature=1.0, key=3)
    n = 20_000
    chains = sampler.start(np.random.default_rng(0).normal(size=(n, 1)))
    for _ in range(60):
        chains = sampler.move(chains)
    x = np.linspace(-6, 6, 4001)
    density = np.exp(-(x**4) / 4)
    density /= density.sum()
    second, fourth = density @ x**2, density @ x**4
    assert abs(np.mean(chains.points**2) - second) < 5 * math.sqrt((fourth - second**2) / n)


def test_sampler_refuses_what_has_no_step_or_no_value():
    flat = mfld.Potential(lambda x: 0 * x, lambda x: 0 * x[:, 0], n_coordinates=1)
    with pytest.raises(ValueError, match="step_size must be given where the potential has no l2 and no gradient"):
        GibbsSampler(flat, temperature=1.0, key=0).start(np.zeros((3, 1)))
    with pytest.raises(TypeError, match="needs the value"):
        GibbsSampler(mfld.Potential(lambda x: x, n_coordinates=1, l2=1.0), temperature=1.0, key=0)


def test_what_knows_euclidean_space_only_says_so():
    circle = mfld.Space(domain=[mfld.Sphere(2)])
    well = mfld.Potential(lambda x: 0 * x, lambda x: 0 * x[:, 0], space=circle, reference=mfld.references.Uniform())
    with pytest.raises(ValueError, match="on the domain"):
        GibbsSampler(well, 1.0, key=1)
    model = mfld.TwoLayerNetwork(2, readout="fixed", bias=False, domain=[mfld.Sphere(2)])
    risk = mfld.EmpiricalRisk(model, np.eye(2), [1.0, -1.0], loss="logistic", reference=mfld.references.Uniform())
    assert "certificates know Euclidean space only" in mfld.certificate(risk, [0.1, 0.1], 0.1).reason
    for solver in (mfld.PSDCA(20, temperature=0.1), mfld.PDA(20, step_size=0.1, temperature=0.1)):
        with pytest.raises(ValueError, match="objective must live in Euclidean space"):
            solver.init(risk)


@pytest.mark.filterwarnings("error")
def test_combinations_of_frozen_signs_whose_partition_functions_are_far_apart():
    # Of the four combinations log Z is between about 100 and 2000 here: each has masses of its own.
    z, g, temperature, l2 = np.array([0.5, -1.0, 2.0]), np.array([[2.0, 1.0], [-3.0, -1.0], [1.0, 2.0]]), 0.002, 0.05
    model = mfld.TwoLayerNetwork(1, 2, activation="tanh", readout="signs", bias=False, output_scale=2.0)
    risk = mfld.EmpiricalRisk(model, z[:, np.newaxis], np.zeros((3, 2)), loss="squared", l2=l2)
    found = mfld.certificate(risk, g, temperature)
    assert found.reason is None
    w = np.linspace(-15, 15, 200_001)
    neurons, exact, heights = 2 * np.tanh(np.outer(z, w)), np.zeros((3, 2)), []
    for signs in itertools.product([-1.0, 1.0], repeat=2):
        exponent = -((g @ signs / 3) @ neurons + l2 * w**2) / temperature
        heights.append(exponent.max())
        density = np.exp(exponent - heights[-1])
        exact += np.outer(neurons @ density / density.sum(), signs) / 4
    assert np.ptp(heights) > 710
    np.testing.assert_allclose(found.predictions, exact, atol=0.05)
    gap = np.mean(np.sum(exact**2 + g**2 / 4 - exact * g, axis=1))
    assert abs(found.gap - gap) < 0.02
    assert found.upper >= gap
