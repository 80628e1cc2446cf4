"""Dynamics with velocities and with acceptance, against the laws of their discrete schemes."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import integrate, linalg

import mfld
from mfld import _core, plain
from mfld.dynamics.underdamped import _FrozenForce

EPS = {"float32": 2.0**-23, "float64": 2.0**-52}
SCHEMES = ["baoab", "obabo", "middle", "frozen_force"]


def assert_mean(values, expected, standard_error):
    assert np.all(np.abs(values - expected) <= 5 * standard_error), (values, expected, standard_error)


# ---- the harmonic well -----------------------------------------------------------------------------------------------
#
# On V = a theta^2 / 2 a step is linear in (theta, v): z <- A z + noise of covariance Q, and the stationary covariance
# solves S = A S A^T + Q. A and Q are put together here from the parts of each scheme.


def kick(a, h):
    return np.array([[1.0, 0.0], [-h * a, 1.0]])


def drift(h):
    return np.array([[1.0, h], [0.0, 1.0]])


def linear_scheme(scheme, a, h, friction, temperature):
    """A and Q."""

    def friction_and_noise(time):
        e = np.exp(-friction * time)
        return np.diag([1.0, e]), np.diag([0.0, temperature * (1 - e**2)])

    def compose(*parts):
        total, covariance = np.eye(2), np.zeros((2, 2))
        for matrix, added in parts:
            total, covariance = matrix @ total, matrix @ covariance @ matrix.T + added
        return total, covariance

    zero = np.zeros((2, 2))
    if scheme == "baoab":
        b, half = (kick(a, h / 2), zero), (drift(h / 2), zero)
        return compose(b, half, friction_and_noise(h), half, b)
    if scheme == "middle":
        half = (drift(h / 2), zero)
        return compose((kick(a, h), zero), half, friction_and_noise(h), half)
    if scheme == "obabo":
        b, o = (kick(a, h / 2), zero), friction_and_noise(h / 2)
        return compose(o, b, (drift(h), zero), b, o)
    # d(theta, v, f) = M (theta, v, f) dt + noise, with the force f frozen: exponentials of matrices.
    flow = linalg.expm(h * np.array([[0.0, 1.0, 0.0], [0.0, -friction, -1.0], [0.0, 0.0, 0.0]]))
    matrix = flow[:2, :2] + np.outer(flow[:2, 2], [a, 0.0])
    free = np.array([[0.0, 1.0], [0.0, -friction]])

    def integrand(t):
        g = linalg.expm(t * free)[:, 1]
        return 2 * friction * temperature * np.outer(g, g)

    return matrix, integrate.quad_vec(integrand, 0, h, epsabs=1e-14, epsrel=1e-13)[0]


def ridge_alone(curvature):
    """A network without output: its native steps see the ridge and nothing else."""
    model = mfld.TwoLayerNetwork(n_features=2, output_scale=0.0, readout="fixed", bias=False)
    return mfld.EmpiricalRisk(model, np.ones((3, 2)), np.zeros(3), loss="squared", l2=curvature / 2)


CURVATURE = 1.7
WELLS = {
    "python": mfld.Potential(lambda x: x.dtype.type(CURVATURE) * x, n_coordinates=2),
    "python and ridge": mfld.Potential(lambda x: x.dtype.type(CURVATURE - 0.4) * x, n_coordinates=2, l2=0.2),
    "core": ridge_alone(CURVATURE),
}


@pytest.mark.parametrize("well", WELLS.values(), ids=WELLS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_law_on_a_harmonic_well(scheme, well):
    n, h, friction, temperature, start = 50_000, 0.6, 0.8, 0.5, 1.5
    matrix, noise_covariance = linear_scheme(scheme, CURVATURE, h, friction, temperature)
    limit = linalg.solve_discrete_lyapunov(matrix, noise_covariance)
    solver = mfld.MFLD(n, step_size=h, temperature=temperature, dynamics=mfld.Underdamped(friction, scheme))
    state = solver.init(well, seed=1, particles=np.full((n, 2), start))
    mean, covariance = np.array([start, 0.0]), np.diag([0.0, temperature])
    for n_steps in (1, 2, 57):
        state, _ = solver.advance(well, state, n_steps)
        for _ in range(n_steps):
            mean = matrix @ mean
            covariance = matrix @ covariance @ matrix.T + noise_covariance
        for coordinate in (0, 1):
            x, v = state.particles[:, coordinate], state.buffers["velocities"][0][:, coordinate]
            z = np.stack([x, v]).astype(np.float64)
            assert_mean(z.mean(axis=1), mean, np.sqrt(np.diag(covariance) / n))
            # Var S_ij = (C_ii C_jj + C_ij^2) / (n - 1) for normal z
            spread = np.sqrt((np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2) / (n - 1))
            assert_mean(np.cov(z), covariance, spread)
    assert_allclose(covariance, limit, rtol=1e-3, atol=1e-12)  # 60 steps forget their start
    # What is exact is exact; what is not is plain at this step size.
    bias = np.diag(limit) / (temperature / np.array([CURVATURE, 1.0])) - 1
    exact = {"baoab": [True, False], "obabo": [False, True], "middle": [True, True], "frozen_force": [False, False]}[
        scheme
    ]
    assert_array_equal(np.abs(bias) < 1e-12, exact)
    assert (np.abs(bias[~np.array(exact)]) > 10 * np.sqrt(2 / n)).all()


def test_orders_on_a_harmonic_well():
    """The bias of the linear schemes above, which the runs follow: of order h^2, of order h."""
    for scheme, order in [("baoab", 2), ("obabo", 2), ("middle", 1), ("frozen_force", 1)]:
        bias = []
        for h in (0.02, 0.01):
            limit = linalg.solve_discrete_lyapunov(*linear_scheme(scheme, 1.0, h, 1.0, 0.5))
            bias.append(np.abs(limit - 0.5 * np.eye(2)).max())
        assert abs(np.log2(bias[0] / bias[1]) - order) < 0.05


@pytest.mark.parametrize("friction", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("step_size", [1e-6, 1e-3, 0.1, 0.499, 0.501, 2.0])
def test_frozen_force_coefficients(friction, step_size):
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(60):
        gamma, h = mpmath.mpf(friction), mpmath.mpf(step_size)
        e = mpmath.exp(-gamma * h)
        a = (1 - e) / gamma
        var_v, cov = 1 - e**2, (1 - e) ** 2 / gamma
        var_x = (2 * gamma * h - 3 + 4 * e - e**2) / gamma**2
        expected = [
            e,
            a,
            (h - a) / gamma,
            mpmath.sqrt(var_v),
            cov / mpmath.sqrt(var_v),
            mpmath.sqrt(var_x - cov**2 / var_v),
        ]
        expected = [float(value) for value in expected]
    flow = _FrozenForce(friction, step_size)
    got = [
        flow.persistence,
        flow.velocity_to_position,
        flow.force_to_position,
        flow.velocity_noise,
        flow.shared,
        flow.position_alone,
    ]
    assert_allclose(got, expected, rtol=1e-12)


# ---- the moves, number by number -------------------------------------------------------------------------------------

KEY, STEP, POPULATION = plain.noise_key(7), 2**32 + 5, 3


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (33, 66), (1001, 3)])
@pytest.mark.parametrize("n_frozen", [0, 2])
def test_baoab_moves(shape, n_frozen, dtype, level, rng):
    particles, velocities, gradient = (rng.normal(size=shape).astype(np.float32) for _ in range(3))
    n_moving = max(1, shape[1] - n_frozen)
    velocities[:, n_moving:] = 0
    h, temperature, l2, friction = 0.2, 0.3, 0.1, 1.5
    noise_place = (KEY, STEP, POPULATION, 2)
    x, v = particles.astype(dtype), velocities.astype(dtype)
    e = np.exp(-friction * h)
    numbers = (n_moving, (h / 2, h * l2, e, np.sqrt(temperature * (1 - e**2))))
    assert _core.backend.baoab(x, v, gradient.astype(dtype), False, *numbers, *noise_place) == -1
    xi = plain.normals(KEY, STEP, shape[0], n_moving, dtype.name, population=POPULATION)

    def full(points):
        return gradient + 2 * l2 * points * (np.arange(shape[1]) < n_moving)

    sizes = {"n_moving": n_moving, "step_size": h}
    expected, speeds = plain.baoab_open(
        particles.astype(np.float64),
        velocities.astype(np.float64),
        full(particles.astype(np.float64)),
        xi,
        temperature=temperature,
        friction=friction,
        **sizes,
    )
    assert_allclose(x, expected, rtol=0, atol=8 * EPS[dtype.name] * (1 + np.abs(expected).max()))
    assert_allclose(v, speeds, rtol=0, atol=8 * EPS[dtype.name] * (1 + np.abs(speeds).max()))
    kept = x.copy()
    assert _core.backend.baoab(x, v, gradient.astype(dtype), True, *numbers, *noise_place) == -1
    assert_array_equal(x, kept)
    speeds = plain.baoab_close(speeds, full(expected), **sizes)
    assert_allclose(v, speeds, rtol=0, atol=10 * EPS[dtype.name] * (1 + np.abs(speeds).max()))
    assert_array_equal(x[:, n_moving:], particles[:, n_moving:].astype(dtype))
    assert not v[:, n_moving:].any()


def test_baoab_moves_report_the_first_particle_that_is_not_finite(dtype, level):
    for bad in (0, 5, 40, 99):
        for closing in (False, True):
            x, v, gradient = (np.zeros((100, 3), dtype) for _ in range(3))
            gradient[bad:, 1] = np.inf
            gradient[bad + 1 :, 0] = np.nan
            assert _core.backend.baoab(x, v, gradient, closing, 3, (0.05, 0.0, 0.9, 0.1), KEY, 0, 0, 2) == bad


@pytest.mark.parametrize("n_frozen", [0, 2])
def test_metropolis(n_frozen, dtype, level, rng):
    """The decision of every particle, by the densities of the law and of the proposal, and uniforms of the oracle."""
    n, p, h, temperature, l2 = 2000, 5, 0.2, 0.4, 0.3
    n_moving = p - n_frozen
    x = rng.normal(size=(n, p)).astype(dtype)
    y = x.copy()
    y[:, :n_moving] += 0.3 * rng.normal(size=(n, n_moving)).astype(dtype)
    gradient, proposed = (rng.normal(size=(n, p)).astype(dtype) for _ in range(2))
    gradient[:, n_moving:] = proposed[:, n_moving:] = 0
    values, proposed_values = (0.1 * rng.normal(size=n).astype(dtype) for _ in range(2))
    proposed_values[3], proposed_values[4], proposed[5, 0], y[6, 1] = np.nan, -np.inf, np.nan, np.inf

    a, b, u, w = (array[:, :n_moving].astype(np.float64) for array in (x, y, gradient, proposed))
    rho = np.exp(-2 * l2 * h)
    pull, variance = (1 - rho) / (2 * l2), (1 - rho**2) * temperature / (2 * l2)
    with np.errstate(invalid="ignore"):
        energy = proposed_values - values.astype(np.float64) + l2 * (np.sum(b**2, axis=1) - np.sum(a**2, axis=1))
        there = np.sum((b - rho * a + pull * u) ** 2, axis=1)
        back = np.sum((a - rho * b + pull * w) ** 2, axis=1)
        log_ratio = -energy / temperature - (back - there) / (2 * variance)
    gap = log_ratio - np.log(plain.uniforms(KEY, STEP, n, POPULATION))
    expected = gap > 0
    expected[[3, 4, 5, 6]] = False
    assert np.nanmin(np.abs(np.delete(gap, [3, 4, 5, 6]))) > 1e-10  # no decision hangs on rounding
    assert 0.2 < expected.mean() < 0.8

    got = [array.copy() for array in (x, values, gradient)]
    numbers = (n_moving, (1 - rho, pull, np.sqrt(variance)), KEY, STEP, POPULATION, 2)
    accepted, probabilities = _core.backend.accept(*got, y, proposed_values, proposed, *numbers)
    assert accepted == expected.sum()
    log_ratio[[3, 4, 5, 6]] = -np.inf
    assert_allclose(probabilities, np.exp(np.minimum(log_ratio, 0)), rtol=1e-9)
    for array, old, new in zip(got, (x, values, gradient), (y, proposed_values, proposed), strict=True):
        chosen = expected if old.ndim == 1 else expected[:, np.newaxis]
        assert_array_equal(array, np.where(chosen, new, old))


# ---- MALA: exact at every step size ----------------------------------------------------------------------------------


class Well:
    """A potential in one dimension, its Gibbs law on a grid, and draws from it."""

    def __init__(self, value, slope, temperature, l2, width=6.0, n_points=24_001):
        self.temperature, self.l2 = temperature, l2
        self.grid = np.linspace(-width, width, n_points)
        self.objective = mfld.Potential(slope, lambda x: value(x)[:, 0], n_coordinates=1, l2=l2)
        self.energy = value(self.grid) + l2 * self.grid**2
        self.slope = slope(self.grid)
        density = np.exp(-(self.energy - self.energy.min()) / temperature)
        self.density = density / density.sum()

    def draw(self, n, seed):
        cumulative = np.cumsum(self.density)
        u = np.random.default_rng(seed).uniform(size=n)
        return np.interp(u, cumulative / cumulative[-1], self.grid + np.diff(self.grid[:2])[0] / 2)[:, np.newaxis]

    def expectation(self, function):
        mean = self.density @ function(self.grid)
        return mean, np.sqrt(self.density @ (function(self.grid) - mean) ** 2)

    def acceptance(self, step_size):
        """E min(1, r) over the law and the proposal: sums of smooth functions on the grid, thinned."""
        rho = np.exp(-2 * self.l2 * step_size)
        pull, variance = (1 - rho) / (2 * self.l2), (1 - rho**2) * self.temperature / (2 * self.l2)
        y, there_energy, there_slope, density = (a[::20] for a in (self.grid, self.energy, self.slope, self.density))
        likely = density > 1e-12 * density.max()
        x, energy, slope = (a[likely, np.newaxis] for a in (y, there_energy, there_slope))
        forth = (y - rho * x + pull * slope) ** 2 / (2 * variance)
        back = (x - rho * y + pull * there_slope) ** 2 / (2 * variance)
        kernel = np.exp(-forth)
        kernel /= kernel.sum(axis=1, keepdims=True)
        log_ratio = -(there_energy - energy) / self.temperature - back + forth
        return density[likely] / density[likely].sum() @ (kernel * np.exp(np.minimum(log_ratio, 0))).sum(axis=1)


TARGETS = {
    "gaussian": Well(lambda x: x**2 / 2, lambda x: x, temperature=0.7, l2=0.2),
    "double well": Well(
        lambda x: (x**2 - 1) ** 2 / 4 + x / 10, lambda x: x * (x * x - 1) + x.dtype.type(0.1), 0.25, 0.1
    ),
}


@pytest.mark.parametrize(("name", "step_size"), [("gaussian", 0.2), ("gaussian", 0.9), ("double well", 0.3)])
def test_mala_keeps_its_law(name, step_size, dtype):
    target = TARGETS[name]
    n, n_steps = 100_000, 8
    solver = mfld.MFLD(n, step_size=step_size, temperature=target.temperature, dynamics=mfld.MALA(), dtype=dtype)
    state = solver.init(target.objective, seed=2, particles=target.draw(n, seed=3))
    state, info = solver.advance(target.objective, state, n_steps)
    x = state.particles[:, 0].astype(np.float64)
    for function in (lambda x: x, lambda x: x**2, lambda x: x**4, np.cos):
        mean, spread = target.expectation(function)
        assert_mean(function(x).mean(), mean, spread / np.sqrt(n))
    # A probability varies less than a coin; the steps of one particle are not independent, hence no root of n_steps.
    acceptance = target.acceptance(step_size)
    assert_mean(info.acceptance, acceptance, np.sqrt(acceptance * (1 - acceptance) / n))
    assert acceptance < 0.99
    # Without acceptance the second moment would be off by this much, and the test would see it.
    overdamped = mfld.MFLD(n, step_size=step_size, temperature=target.temperature, dtype=dtype)
    biased = overdamped.advance(target.objective, overdamped.init(target.objective, 2, state.particles), n_steps)[0]
    mean, spread = target.expectation(lambda x: x**2)
    assert abs(np.mean(biased.particles.astype(np.float64) ** 2) - mean) > 10 * spread / np.sqrt(n)


def test_mala_finds_the_law_from_elsewhere():
    target, n = TARGETS["double well"], 20_000
    solver = mfld.MFLD(n, step_size=0.5, temperature=target.temperature, dynamics=mfld.MALA())
    x = solver.run(target.objective, 150, seed=5, particles=np.full((n, 1), 0.5)).particles[:, 0].astype(np.float64)
    for function in (lambda x: x, lambda x: x**2):
        mean, spread = target.expectation(function)
        assert_mean(function(x).mean(), mean, spread / np.sqrt(n))


def test_mala_samples_a_frozen_first_variation():
    """Of a network's risk: native value and gradient, against the Gibbs law by quadrature."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(8, 1))
    model = mfld.TwoLayerNetwork(1, readout="fixed", bias=False, output_scale=3.0)
    risk = mfld.EmpiricalRisk(model, inputs, np.sin(inputs[:, 0]), loss="squared", l2=0.1)
    potential = risk.first_variation(risk.model.initial_particles(10, dtype="float64"))
    grid = np.linspace(-12, 12, 4001)
    energy = potential(grid[:, np.newaxis])
    density = np.exp(-(energy - energy.min()) / 0.2)
    density /= density.sum()
    n = 20_000
    solver = mfld.MFLD(n, step_size=0.4, temperature=0.2, dynamics=mfld.MALA(), dtype="float64")
    x = solver.run(potential, 120, seed=1).particles[:, 0]
    mean = density @ grid
    second = density @ grid**2
    assert_mean(x.mean(), mean, np.sqrt((second - mean**2) / n))
    assert_mean(np.mean(x**2), second, np.sqrt((density @ grid**4 - second**2) / n))


def test_mala_rejects_what_is_not_finite():
    def walled(x):
        return np.where(np.abs(x[:, 0]) < 1, 0.0, np.inf)

    box = mfld.Potential(lambda x: np.where(np.abs(x) < 1, 0.0, np.nan), walled, n_coordinates=1)
    n = 20_000
    solver = mfld.MFLD(n, step_size=0.1, temperature=1.0, dynamics=mfld.MALA())
    result = solver.run(box, 60, seed=1, particles=np.zeros((n, 1)))
    x = result.particles[:, 0].astype(np.float64)
    assert np.abs(x).max() < 1
    assert_mean(x.mean(), 0, np.sqrt(1 / 3 / n))
    assert_mean(np.mean(x**2), 1 / 3, np.sqrt((1 / 5 - 1 / 9) / n))
    # A step so large that the proposal itself overflows.
    cliff = mfld.Potential(lambda x: x * 1e30, lambda x: 5e29 * x[:, 0] ** 2, n_coordinates=1)
    still = mfld.MFLD(3, step_size=1e20, temperature=1.0, dynamics=mfld.MALA())
    result = still.run(cliff, 3, particles=np.ones((3, 1)))
    assert_array_equal(result.particles, np.ones((3, 1)))
    assert result.history["acceptance"][-1] == 0


@pytest.mark.parametrize("outside", [np.inf, -np.inf, np.nan])
def test_mala_says_that_a_particle_starts_beyond_a_wall(outside):
    box = mfld.Potential(lambda x: 0 * x, lambda x: np.where(np.abs(x[:, 0]) < 1, 0.0, outside), n_coordinates=1)
    solver = mfld.MFLD(4, step_size=0.1, temperature=1.0, dynamics=mfld.MALA())
    message = rf"particles must be where the potential is finite .* got {outside} at particle 2, the first of 2"
    with pytest.raises(ValueError, match=message) as caught:
        solver.run(box, 3, particles=[[0.0], [0.5], [1.5], [-2.0]])
    assert caught.value.state.step == 0
    assert solver.run(box, 3, particles=[[0.0], [0.5], [0.9], [-0.9]]).state.step == 3


def test_mala_is_refused_where_it_is_not_exact():
    risk = ridge_alone(1.0)
    well = TARGETS["gaussian"].objective
    settings = {"step_size": 0.1, "dynamics": mfld.MALA()}
    with pytest.raises(ValueError, match="for a EmpiricalRisk, whose particles interact"):
        mfld.MFLD(5, temperature=0.1, **settings).init(risk)
    with pytest.raises(TypeError, match="give the Potential value="):
        mfld.MFLD(5, temperature=0.1, **settings).init(mfld.Potential(lambda x: x, n_coordinates=1))

    class Clipped(mfld.GradientEstimator):
        def estimate(self, objective, particles, buffers, place):
            raise AssertionError

    with pytest.raises(ValueError, match=r"gradient must be FullBatch\(\) with dynamics=MALA"):
        mfld.MFLD(5, temperature=0.1, gradient=Clipped(), **settings).init(well)
    cold = mfld.MFLD(5, temperature=0.0, **settings)
    with pytest.raises(ValueError, match="temperature must be positive with dynamics=MALA"):
        cold.run(well, 1)


# ---- what they have in common ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dynamics", [*(mfld.Underdamped(1.3, scheme) for scheme in SCHEMES), mfld.MALA()], ids=repr)
def test_restart_is_continue_and_threads_do_not_matter(dynamics, dtype):
    well = TARGETS["gaussian"].objective
    runs = []
    for num_threads, parts in [(1, [12]), (2, [5, 7]), (7, [1] * 12)]:
        solver = mfld.MFLD(
            70_001, step_size=0.3, temperature=0.4, dynamics=dynamics, dtype=dtype, num_threads=num_threads
        )
        state = solver.init(well, seed=3)
        for part in parts:
            state, _ = solver.advance(well, state, part)
        runs.append((state.particles.tobytes(), {name: b.tobytes() for name, b in state.buffers.items()}))
    assert runs.count(runs[0]) == len(runs)
    own = {"force"} if getattr(dynamics, "scheme", "") in ("middle", "frozen_force") else set()
    assert set(state.buffers) == set(dynamics.buffer_names) - own


@pytest.mark.parametrize("scheme", SCHEMES)
def test_underdamped_divergence(scheme, dtype):
    steep = mfld.Potential(lambda x: x**3, n_coordinates=1)
    solver = mfld.MFLD(20, step_size=1.5, temperature=0.0, dynamics=mfld.Underdamped(0.1, scheme), dtype=dtype)
    start = solver.init(steep, particles=np.full((20, 1), 3.0))
    with np.errstate(over="ignore"), pytest.raises(mfld.DivergenceError) as caught:
        solver.advance(steep, start, 100)
    good = caught.value.state
    assert np.isfinite(good.particles).all()
    again, _ = solver.advance(steep, start, good.step)
    assert_array_equal(again.particles, good.particles)
    assert_array_equal(again.buffers["velocities"], good.buffers["velocities"])


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("gradient", [mfld.FullBatch(), mfld.Minibatch(4), mfld.SVRG(4, 3), mfld.SARAH(4, 3)], ids=repr)
def test_underdamped_descends_a_risk(scheme, gradient):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(30, 2))
    model = mfld.TwoLayerNetwork(2)
    risk = mfld.EmpiricalRisk(model, inputs, np.sin(inputs[:, 0]), loss="squared", l2=1e-4)
    solver = mfld.MFLD(100, step_size=0.3, temperature=1e-5, dynamics=mfld.Underdamped(2.0, scheme), gradient=gradient)
    result = solver.run(risk, 400, seed=1)
    assert risk.loss(result.particles) < 0.1 * risk.loss(solver.init(risk, seed=1).particles)


def test_frozen_coordinates_stay(dtype):
    rng = np.random.default_rng(0)
    risk = mfld.EmpiricalRisk(
        mfld.TwoLayerNetwork(2, readout="signs"), rng.normal(size=(30, 2)), rng.normal(size=30), loss="squared", l2=0.1
    )
    for scheme in SCHEMES:
        solver = mfld.MFLD(40, step_size=0.3, temperature=0.1, dynamics=mfld.Underdamped(2.0, scheme), dtype=dtype)
        start = solver.init(risk, seed=1)
        state, _ = solver.advance(risk, start, 5)
        assert_array_equal(state.particles[:, -1], start.particles[:, -1])
        assert (state.particles[:, :-1] != start.particles[:, :-1]).all()
        assert not state.buffers["velocities"][0][:, -1].any()


@pytest.mark.parametrize("dynamics", [mfld.Underdamped(1.0), mfld.MALA()], ids=repr)
def test_buffers_of_another_objective_are_refused(dynamics):
    line, plane = (mfld.Potential(lambda x: x, lambda x: np.sum(x**2, axis=1) / 2, n_coordinates=p) for p in (1, 2))
    solver = mfld.MFLD(5, step_size=0.1, temperature=0.1, dynamics=dynamics)
    state, _ = solver.advance(line, solver.init(line))
    moved = mfld.State({"mu": mfld.Cloud(np.zeros((1, 5, 2), np.float32))}, 1, 0, state.buffers)
    with pytest.raises(ValueError, match=r"must have shape \(1, 5, 2\) to suit the objective, got \(1, 5, 1\)"):
        solver.advance(plane, moved)


def test_underdamped_checks_its_arguments():
    for friction in (0, -1.0, np.inf):
        with pytest.raises(ValueError, match="friction must be finite and positive"):
            mfld.Underdamped(friction)
    with pytest.raises(ValueError, match="scheme must be one of baoab, obabo, middle, frozen_force; got 'aboba'"):
        mfld.Underdamped(1.0, "aboba")


# ---- batches that particles share, and batches of their own ----------------------------------------------------------
#
# F(mu) = (1/n) sum_i (E_mu x - c_i)^2 / 2 + l2 E_mu x^2, a network of linear neurons at inputs 1 with targets c_i. From
# rows I the gradient is m - c_I + 2 l2 x with m = E_mu x and c_I the mean target of the rows, whose variance is
# S = (n - B) / (B (n - 1)) Var c. With rho = 1 - step (1 + 2 l2) and sigma = 1 - 2 step l2 a step is
#
#   m       <-  rho m + step c_I + s xi_mean           rows in common
#   m       <-  rho m + step mean_m(c_I_m) + s xi_mean  rows of their own: the variance of their mean is S / N
#   x_i - m <-  sigma (x_i - m) + s (xi_i - xi_mean)    + step (c_I_i - mean_m(c_I_m)) with rows of their own
#
# so Var m = (step^2 S [/ N] + s^2 / N) / (1 - rho^2), and E (x_i - m)^2 = (1 - 1/N) (s^2 [+ step^2 S]) / (1 - sigma^2).


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_stationary_law_with_either_kind_of_batch(shared):
    n, batch_size, n_particles, step_size, temperature, l2 = 12, 3, 6, 0.4, 0.02, 0.3
    targets = np.random.default_rng(1).normal(size=n)
    model = mfld.TwoLayerNetwork(1, activation="identity", readout="fixed", bias=False)
    risk = mfld.EmpiricalRisk(model, np.ones((n, 1)), targets, loss="half_squared", l2=l2)
    gradient = mfld.Minibatch(batch_size) if shared else mfld.PerParticleMinibatch(batch_size)
    solver = mfld.MFLD(n_particles, step_size=step_size, temperature=temperature, gradient=gradient, dtype="float64")

    batch_variance = (n - batch_size) / (batch_size * (n - 1)) * targets.var()
    rho, sigma = 1 - step_size * (1 + 2 * l2), 1 - 2 * step_size * l2
    thermal, sampled = 2 * temperature * step_size, step_size**2 * batch_variance
    in_mean = thermal / n_particles + (sampled if shared else sampled / n_particles)
    in_deviation = thermal + (0 if shared else sampled)
    mean_variance = in_mean / (1 - rho**2)
    deviation = (1 - 1 / n_particles) * in_deviation / (1 - sigma**2)

    state = solver.init(risk, seed=2, particles=np.full((n_particles, 1), targets.mean() / (1 + 2 * l2)))
    state, _ = solver.advance(risk, state, 50)
    means, deviations, count = [], [], 2000
    for _ in range(count):
        state, _ = solver.advance(risk, state, 8)  # sigma^8 = 0.1: a correlation of 0.01 between squares
        means.append(state.particles.mean())
        deviations.append(state.particles.var())
    means = np.array(means)
    assert_mean(means.mean(), targets.mean() / (1 + 2 * l2), np.sqrt(mean_variance / count))
    # Sums of a few uniform draws are lighter in their tails than a Gaussian, whose variance of a square this is.
    error = np.sqrt(2 / count)
    centred = (means - targets.mean() / (1 + 2 * l2)) ** 2
    assert_mean(centred.mean(), mean_variance, mean_variance * error)
    assert_mean(np.mean(deviations), deviation, deviation * 1.02 * error / np.sqrt(n_particles - 1))
    # The other kind's laws are far away.
    assert sampled * (1 - 1 / n_particles) > 0.5 * min(in_mean, in_deviation)
