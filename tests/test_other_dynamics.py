"""Preconditioned, irreversible, general and tempered dynamics, smoothed gradients, and the probe of the estimators.

Laws are those of the discrete schemes where they have a closed form, else the error of the step size is bounded. Seeds
are fixed, standard errors derived, and 5 of them allowed.
"""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import linalg, stats

import mfld
from mfld import noise, potentials, schedules
from mfld.dynamics import Step, general

HESSIAN = np.array([[1.0, 0.3], [0.3, 4.0]])
ROTATION = np.array([[0.0, 1.5], [-1.5, 0.0]])
QUADRATIC = potentials.Gaussian([0.0, 0.0], np.linalg.inv(HESSIAN))


def assert_mean(values, expected, standard_error):
    assert np.all(np.abs(values - expected) <= 5 * standard_error), (values, expected, standard_error)


def assert_covariance(particles, expected):
    x = particles.astype(np.float64)
    n = len(x)
    # Var S_ij = (C_ii C_jj + C_ij^2) / (n - 1) for normal x
    error = np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / (n - 1))
    assert_mean(np.cov(x.T), expected, error)
    assert_mean(x.mean(axis=0), 0, np.sqrt(np.diag(expected) / n))
    return error


def euler_covariance(matrix, diffusion, step_size, temperature):
    """Of x <- (I - step_size matrix) x + sqrt(2 temperature step_size diffusion) xi, in the long run."""
    return linalg.solve_discrete_lyapunov(
        np.eye(len(matrix)) - step_size * matrix, 2 * step_size * temperature * diffusion
    )


def euler_law(grid, drift, diffusion, temperature, step_size, n_steps):
    """Of x <- x + step_size drift(x) + sqrt(2 temperature step_size diffusion(x)) xi from 0: its kernel on the grid."""
    variance = 2 * temperature * step_size * diffusion
    kernel = np.exp(-((grid[:, np.newaxis] - grid - step_size * drift) ** 2) / (2 * variance))
    kernel /= kernel.sum(axis=0)
    law = kernel[:, len(grid) // 2]
    for _ in range(n_steps - 1):
        law = kernel @ law
    return law


# ---- what they all do ------------------------------------------------------------------------------------------------


def varying(x):
    """A diffusion that depends on the point, for any number of coordinates."""
    p = x.shape[1]
    return np.eye(p) * (1 + 0.5 * np.sin(x))[:, :, np.newaxis] + 0.5 * np.ones((p, p))


SKEW = np.triu(np.ones((3, 3)), 1) - np.triu(np.ones((3, 3)), 1).T
DYNAMICS = {
    "preconditioned": mfld.Preconditioned(decay=0.8, second_moment=1.0),
    "frozen at 5": mfld.Preconditioned(decay=0.8, freeze_at=5),
    "irreversible": mfld.Irreversible(SKEW),
    "general": mfld.General(varying, SKEW),
    "tempering": mfld.ContinuousTempering(base_width=0.2, hot_width=0.5, level=-1.0),
}
ESTIMATORS = [mfld.Minibatch(4), mfld.SVRG(4, 3), mfld.Smoothed(0.1, mfld.SARAH(4, 3))]
every_dynamics = pytest.mark.parametrize("dynamics", DYNAMICS.values(), ids=DYNAMICS)


def frozen_last(l2=0.1):
    """Three coordinates that move, in wells that depend on a fourth that does not."""

    def gradient(x):
        g = np.zeros_like(x)
        g[:, :3] = x[:, :3] - x[:, 3:] / 2 + np.sin(x[:, :3])
        return g

    def value(x):
        return np.sum(x[:, :3] ** 2 / 2 - x[:, 3:] * x[:, :3] / 2 - np.cos(x[:, :3]), axis=1)

    return mfld.Potential(gradient, value, n_coordinates=4, n_moving=3, l2=l2)


def general_of_moving(dynamics):
    if isinstance(dynamics, mfld.General) and callable(dynamics.diffusion):
        return mfld.General(lambda x: dynamics.diffusion(x[:, :3]), dynamics.skew)
    return dynamics


def solver_of(dynamics, **arguments):
    settings = {"n_particles": 11, "step_size": 0.05, "temperature": 0.3, "dynamics": general_of_moving(dynamics)}
    return mfld.MFLD(**{**settings, **arguments})


@every_dynamics
def test_frozen_coordinates_stay(dynamics, dtype):
    result = solver_of(dynamics, dtype=dtype).run(frozen_last(), 20, seed=1)
    start = frozen_last().initial_particles(11, 1, dtype)
    assert result.particles.dtype == dtype
    assert np.array_equal(result.particles[:, 3], start[:, 3])
    assert (result.particles[:, :3] != start[:, :3]).all()


@every_dynamics
@pytest.mark.parametrize("n_first", [1, 4, 5, 6])
def test_restart_equals_continue(dynamics, n_first):
    solver = solver_of(dynamics, temperature=schedules.Power(0.3, 0.5), step_size=schedules.Power(0.05, 0.2))
    objective = frozen_last()
    whole, info = solver.advance(objective, solver.init(objective, seed=2), 12)
    half, _ = solver.advance(objective, solver.init(objective, seed=2), n_first)
    again, info_again = solver.advance(objective, half, 12 - n_first)
    assert again.particles.tobytes() == whole.particles.tobytes()
    assert set(whole.buffers) == set(dynamics.buffer_names)
    for name in dynamics.buffer_names:
        assert again.buffers[name].tobytes() == whole.buffers[name].tobytes()
    assert info_again.gradient_norm == info.gradient_norm


@every_dynamics
def test_threads_do_not_change_a_run(dynamics):
    one, many = (solver_of(dynamics, num_threads=k, n_particles=300).run(frozen_last(), 5, seed=3) for k in (1, 3))
    assert one.particles.tobytes() == many.particles.tobytes()


@every_dynamics
def test_particles_do_not_depend_on_how_many_there_are(dynamics):
    few, many = (solver_of(dynamics, n_particles=n).run(frozen_last(), 5, seed=3).particles for n in (5, 64))
    assert_allclose(few, many[:5], rtol=1e-5, atol=1e-6)


@every_dynamics
def test_without_noise_it_is_descent(dynamics):
    """To the minimum of V + l2 |theta|^2, where the gradient vanishes."""
    objective = frozen_last()
    result = solver_of(dynamics, temperature=0.0, dtype="float64", step_size=0.02).run(objective, 4000)
    size = 0.05 if isinstance(dynamics, mfld.Preconditioned) and dynamics.freeze_at is None else 1e-8
    assert np.abs(objective.gradient(result.particles)).max() < size  # RMSprop's steps do not shrink with the gradient


@every_dynamics
def test_the_ridge_is_part_of_the_potential(dynamics):
    """With the ridge taken into V, the run is the same but for rounding, although only V is estimated."""
    inner = frozen_last(l2=0.0)

    def moving(x):
        y = x.copy()
        y[:, 3] = 0
        return y

    merged = mfld.Potential(
        lambda x: inner.loss_gradient(x) + 0.2 * moving(x),
        lambda x: inner(x) + 0.1 * np.sum(moving(x) ** 2, axis=1),
        n_coordinates=4,
        n_moving=3,
    )
    one, two = (solver_of(dynamics, dtype="float64").run(o, 30, seed=4).particles for o in (frozen_last(0.1), merged))
    assert_allclose(one, two, rtol=1e-10, atol=1e-12)
    assert np.abs(one - solver_of(dynamics, dtype="float64").run(inner, 30, seed=4).particles).max() > 1e-3


@every_dynamics
def test_divergence_is_reported(dynamics):
    steep = mfld.Potential(lambda x: 1e4 * x**3, lambda x: 2500 * np.sum(x**4, axis=1), n_coordinates=3)
    if isinstance(dynamics, mfld.Preconditioned):
        dynamics = mfld.Preconditioned(second_moment=1.0, freeze_at=0)  # a live one would not diverge
    elif isinstance(dynamics, mfld.General):
        dynamics = mfld.General(np.eye(3), SKEW)
    solver = mfld.MFLD(7, step_size=1.0, temperature=1.0, dynamics=dynamics)
    with np.errstate(over="ignore"), pytest.raises(mfld.DivergenceError) as caught:  # in the function of the user
        solver.run(steep, 100)
    assert np.isfinite(caught.value.state.particles).all()


@pytest.mark.parametrize("name", [name for name in DYNAMICS if name != "tempering"])
def test_a_drift_without_a_value(name):
    drift_only = mfld.Potential(frozen_last().loss_gradient, n_coordinates=4, n_moving=3, l2=0.1)
    one, two = (solver_of(DYNAMICS[name]).run(o, 10, seed=5) for o in (drift_only, frozen_last()))
    assert one.particles.tobytes() == two.particles.tobytes()
    assert np.isnan(one.history["loss"]).all()
    with pytest.raises(TypeError, match="gradient only"):
        drift_only.value(one.particles)


def test_a_drift_without_a_value_is_not_tempered():
    drift_only = mfld.Potential(lambda x: x, n_coordinates=1)
    with pytest.raises(TypeError, match="needs the value of its objective; this Potential has a gradient only"):
        mfld.MFLD(step_size=0.1, temperature=1.0, dynamics=mfld.ContinuousTempering()).init(drift_only)


@pytest.mark.parametrize("name", [name for name in DYNAMICS if name != "tempering"])
@pytest.mark.parametrize(
    "gradient", [mfld.Minibatch(4), mfld.SVRG(4, 3), mfld.Smoothed(0.1, mfld.SARAH(4, 3))], ids=repr
)
def test_interacting_particles_and_estimators(name, gradient, rng):
    """On a two-layer risk, at every offset from a refresh."""
    model = mfld.TwoLayerNetwork(1, readout="signed") if "signed" in mfld.readouts() else mfld.TwoLayerNetwork(1)
    risk = mfld.EmpiricalRisk(model, rng.normal(size=(12, 1)), rng.normal(size=12), loss="squared", l2=1e-2)
    dynamics = DYNAMICS[name]
    if isinstance(dynamics, mfld.General):
        dynamics = mfld.General(lambda x: varying(x[:, : model.n_moving]))
    elif isinstance(dynamics, mfld.Irreversible):
        dynamics = mfld.Irreversible(SKEW[: model.n_moving, : model.n_moving])
    solver = mfld.MFLD(8, step_size=0.05, temperature=0.01, gradient=gradient, dynamics=dynamics)
    whole, _ = solver.advance(risk, solver.init(risk, seed=6), 8)
    for first in range(1, 8):
        part, _ = solver.advance(risk, solver.init(risk, seed=6), first)
        assert solver.advance(risk, part, 8 - first)[0].particles.tobytes() == whole.particles.tobytes()


# ---- preconditioned --------------------------------------------------------------------------------------------------


def test_the_preconditioner_is_the_formula():
    start = np.array([[1.0, -2.0]])
    dynamics = mfld.Preconditioned(decay=0.7, epsilon=0.1, second_moment=0.5)
    solver = mfld.MFLD(1, step_size=0.05, temperature=0.2, dynamics=dynamics, dtype="float64")
    state, _ = solver.advance(QUADRATIC, solver.init(QUADRATIC, seed=8, particles=start))
    b = start @ HESSIAN
    second_moment = 0.7 * 0.5 + 0.3 * b**2
    g = 1 / (0.1 + np.sqrt(second_moment))
    xi = noise.normals(8, 0, 1, 2, dtype="float64")
    assert_allclose(state.particles, start - 0.05 * g * b + np.sqrt(2 * 0.2 * 0.05 * g) * xi, rtol=1e-13)
    assert_allclose(state.buffers["second_moment"][0], second_moment, rtol=1e-14)


def test_frozen_preconditioner_has_the_law_of_its_steps(dtype):
    """Each particle and coordinate with its own G: the variance is T / (a (1 - a G step / 2))."""
    n, step_size, temperature, a = 20_000, 0.4, 0.7, np.array([0.5, 3.0])
    well = potentials.Gaussian([0.0, 0.0], np.diag(1 / a))
    dynamics = mfld.Preconditioned(decay=0.9, epsilon=0.3, freeze_at=20)
    solver = mfld.MFLD(n, step_size=step_size, temperature=temperature, dynamics=dynamics, dtype=dtype)
    early = solver.run(well, 20, seed=9).state.buffers["second_moment"][0]
    state = solver.run(well, 200, seed=9).state
    assert np.array_equal(state.buffers["second_moment"][0], early)
    g = 1 / (0.3 + np.sqrt(early.astype(np.float64)))
    assert ((1 - a * g * step_size) ** 180 < 1e-3).mean() > 0.999  # whoever has not forgotten the start weighs nothing
    assert (a * g * step_size < 1.9).all()
    assert g.std(axis=0).min() > 0.05
    variance = temperature / (a * (1 - a * g * step_size / 2))
    x = state.particles / np.sqrt(variance)
    assert_mean(np.mean(x**2, axis=0), 1, np.sqrt(2 / n))
    assert_mean(x.mean(axis=0), 0, 1 / np.sqrt(n))
    plain = np.mean(state.particles**2 / (temperature / a), axis=0)
    assert np.all(plain - 1 > 10 * np.sqrt(2 / n))


def test_a_live_preconditioner_is_biased():
    """The dropped term, by quadrature: with decay 0 the scheme is Euler's for G(x) without temperature G'(x)."""
    epsilon, temperature, step_size = 1.0, 1.0, 0.02
    n, n_steps = 40_000, 700
    dynamics = mfld.Preconditioned(decay=0.0, epsilon=epsilon)
    solver = mfld.MFLD(n, step_size=step_size, temperature=temperature, dynamics=dynamics, dtype="float64")
    x = solver.run(potentials.Gaussian([0.0]), n_steps, seed=10, particles=np.zeros((n, 1))).particles[:, 0]
    grid = np.linspace(-9, 9, 901)
    g = 1 / (epsilon + np.abs(grid))
    density = euler_law(grid, -g * grid, g, temperature, step_size, n_steps)
    second, fourth = density @ grid**2, density @ grid**4
    error = np.sqrt((fourth - second**2) / n)
    assert_mean(np.mean(x**2), second, error)
    # Without the bias it would be the temperature. That of small steps has the density exp(-x^2 / 2T) / G.
    assert second - temperature > 30 * error
    limit = np.exp(-(grid**2) / (2 * temperature)) / g
    assert_allclose(second, limit @ grid**2 / limit.sum(), rtol=step_size)


# ---- irreversible and general ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("general", [False, True])
def test_irreversible_dynamics_has_the_law_of_the_discrete_lyapunov_equation(general, dtype):
    n, step_size, temperature = 50_000, 0.1, 0.6
    dynamics = mfld.General(np.eye(2), ROTATION) if general else mfld.Irreversible(ROTATION)
    solver = mfld.MFLD(n, step_size=step_size, temperature=temperature, dynamics=dynamics, dtype=dtype)
    result = solver.run(QUADRATIC, 120, seed=11)
    expected = euler_covariance((np.eye(2) + ROTATION) @ HESSIAN, np.eye(2), step_size, temperature)
    error = assert_covariance(result.particles, expected)
    for other in (
        temperature * np.linalg.inv(HESSIAN),  # no bias
        euler_covariance(HESSIAN, np.eye(2), step_size, temperature),  # no rotation
        euler_covariance((np.eye(2) - ROTATION) @ HESSIAN, np.eye(2), step_size, temperature),  # the other way
    ):
        assert np.abs((expected - other) / error).max() > 10


def test_general_constant_matrices():
    n, step_size, temperature = 50_000, 0.08, 0.6
    diffusion = np.array([[2.0, 0.5], [0.5, 0.5]])
    dynamics = mfld.General(diffusion, ROTATION)
    result = mfld.MFLD(n, step_size=step_size, temperature=temperature, dynamics=dynamics).run(QUADRATIC, 150, seed=12)
    expected = euler_covariance((diffusion + ROTATION) @ HESSIAN, diffusion, step_size, temperature)
    error = assert_covariance(result.particles, expected)
    assert np.abs((expected - temperature * np.linalg.inv(HESSIAN)) / error).max() > 10


def test_degenerate_diffusion():
    """Noise in one coordinate only, which the skew part carries to the other: underdamped dynamics, by Euler."""
    n, step_size, temperature, friction = 20_000, 0.1, 0.6, 1.5
    well = potentials.Gaussian([0.0, 0.0], np.diag([1 / 2.0, 1.0]))  # of position and velocity
    diffusion, skew = np.diag([0.0, friction]), np.array([[0.0, -1.0], [1.0, 0.0]])
    solver = mfld.MFLD(n, step_size=step_size, temperature=temperature, dynamics=mfld.General(diffusion, skew))
    result = solver.run(well, 200, seed=13)
    expected = euler_covariance((diffusion + skew) @ np.diag([2.0, 1.0]), diffusion, step_size, temperature)
    assert_covariance(result.particles, expected)
    function = mfld.General(lambda x: np.broadcast_to(diffusion, (len(x), 2, 2)), skew)
    few = [
        mfld.MFLD(50, step_size=step_size, temperature=temperature, dynamics=d).run(well, 20, seed=13).particles
        for d in (function, mfld.General(diffusion, skew))
    ]
    assert_allclose(*few, rtol=1e-5, atol=1e-6)


def test_relaxation_rate_and_stability():
    dynamics = mfld.Irreversible(3 * ROTATION)
    matrix = (np.eye(2) + 3 * ROTATION) @ HESSIAN
    rate = np.linalg.eigvals(matrix).real.min()
    assert_allclose(dynamics.relaxation_rate(HESSIAN), rate)
    assert rate > 2 * np.linalg.eigvalsh(HESSIAN)[0]  # faster than without rotation
    assert_allclose(mfld.Irreversible(0 * ROTATION).relaxation_rate(HESSIAN), np.linalg.eigvalsh(HESSIAN)[0])

    # Without noise the particle spirals inwards: its size after time t is exp(-rate t) times a bounded factor.
    solver = mfld.MFLD(1, step_size=1e-3, temperature=0.0, dynamics=dynamics, dtype="float64")
    state = solver.init(QUADRATIC, particles=[[1.0, 1.0]])
    sizes = []
    for _ in range(8):
        state, _ = solver.advance(QUADRATIC, state, 1000)
        sizes.append(np.linalg.norm(linalg.sqrtm(HESSIAN) @ state.particles[0]))
    slope = np.polyfit(np.arange(8), np.log(sizes), 1)[0]
    # Euler's rate is that of 1 - step z: off by step |z|^2 / 2; the bounded factor moves the fit of 7 time units.
    assert abs(slope + rate) < 0.15 * rate

    limit = dynamics.largest_step_size(HESSIAN)
    assert_allclose(limit, np.min(2 * np.linalg.eigvals(matrix).real / np.abs(np.linalg.eigvals(matrix)) ** 2))
    for factor, bounded in ((0.98, True), (1.02, False)):
        descent = mfld.MFLD(1, step_size=factor * limit, temperature=0.0, dynamics=dynamics, dtype="float64")
        size = np.abs(descent.run(QUADRATIC, 2000, particles=[[1.0, 1.0]]).particles).max()
        assert (size < 0.1) == bounded
    assert mfld.Irreversible(ROTATION).largest_step_size(-HESSIAN) == 0


@pytest.mark.parametrize("given", [True, False])
def test_divergence_keeps_the_law(given):
    """D = 1 + x^2. With its divergence the law is the Gibbs one, without it another: both are seen."""
    n, n_steps, step_size, temperature = 8_000, 250, 0.01, 0.5
    well = mfld.Potential(lambda x: x + x**3, n_coordinates=1)
    grid = np.linspace(-4, 4, 801)
    diffusion, force = 1 + grid**2, -(grid + grid**3)
    drifts = {"right": diffusion * force + temperature * 2 * grid, "dropped": diffusion * force}
    seconds, errors = {}, {}
    for name, divergence in (("right", (lambda x: 2 * x) if given else None), ("dropped", lambda x: 0 * x)):
        dynamics = mfld.General(lambda x: (1 + x**2)[:, :, np.newaxis], divergence=divergence)
        solver = mfld.MFLD(n, step_size=step_size, temperature=temperature, dynamics=dynamics, dtype="float64")
        x = solver.run(well, n_steps, seed=14, particles=np.zeros((n, 1))).particles
        density = euler_law(grid, drifts[name], diffusion, temperature, step_size, n_steps)
        seconds[name] = density @ grid**2
        errors[name] = np.sqrt((density @ grid**4 - seconds[name] ** 2) / n)
        assert_mean(np.mean(x**2), seconds[name], errors[name])
    assert abs(seconds["right"] - seconds["dropped"]) > 5 * (errors["right"] + errors["dropped"])
    gibbs = np.exp(-(grid**2 / 2 + grid**4 / 4) / temperature)
    assert_allclose(seconds["right"], gibbs @ grid**2 / gibbs.sum(), rtol=0.05)  # of small steps


def test_finite_differences_of_the_divergence(rng):
    def diffusion(x):
        u = np.stack([np.cos(x[:, 0] * x[:, 1]), np.sin(x[:, 1])], axis=1)
        return np.eye(2) + u[:, :, np.newaxis] * u[:, np.newaxis]

    def skew(x):
        s = x[:, 0] ** 2 * x[:, 1]
        return s[:, np.newaxis, np.newaxis] * np.array([[0.0, 1.0], [-1.0, 0.0]])

    def divergence(x):
        a, b = x.T
        c, s, cd, sd = np.cos(a * b), np.sin(b), -np.sin(a * b), np.cos(b)
        # D = I + u u': d(c^2)/da + d(c s)/db and d(s c)/da + d(s^2)/db; of Q d(a^2 b)/db and -d(a^2 b)/da
        return np.stack([2 * c * cd * b + cd * a * s + c * sd + a**2, s * cd * b + 2 * s * sd - 2 * a * b], axis=1)

    points = rng.normal(size=(6, 2))
    move = {}
    for name, given in (("given", divergence), ("differences", None)):
        dynamics = mfld.General(diffusion, skew, given)
        solver = mfld.MFLD(6, step_size=0.5, temperature=2.0, dynamics=dynamics, dtype="float64")
        move[name] = solver.run(QUADRATIC, 1, seed=15, particles=points).particles
    assert_allclose(move["given"], move["differences"], atol=1e-8)
    xi = noise.normals(15, 0, 6, 2, dtype="float64")
    by_hand = [
        x - 0.5 * (d + q) @ HESSIAN @ x + 0.5 * 2.0 * v + np.sqrt(2 * 2.0 * 0.5) * linalg.cholesky(d, lower=True) @ z
        for x, d, q, v, z in zip(points, diffusion(points), skew(points), divergence(points), xi, strict=True)
    ]
    assert_allclose(move["given"], by_hand, rtol=1e-10)


@pytest.mark.parametrize(("m", "rank"), [(1, 1), (3, 3), (5, 2), (40, 40), (40, 7), (4, 0)])
def test_roots_of_semidefinite_matrices(m, rank, rng):
    factors = rng.normal(size=(20, m, rank))
    matrices = factors @ np.swapaxes(factors, 1, 2)
    roots = general._root(matrices)
    assert_allclose(roots @ np.swapaxes(roots, 1, 2), matrices, atol=1e-9)
    assert_array_equal(roots, np.tril(roots))
    if rank == m:
        assert_allclose(roots, np.linalg.cholesky(matrices), rtol=1e-6, atol=1e-8)


def test_roots_keep_what_is_small_and_refuse_what_is_negative(rng):
    scales = np.array([1e-30, 1.0, 1e-6, 0.0])
    assert_allclose(np.diag(general._root(np.diag(scales))), np.sqrt(scales), rtol=1e-14)
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    for lowest, refused in ((-1e-7, False), (-1e-4, True)):
        matrix = rotation * np.array([lowest, 0.0, 0.5, 1.0, 2.0, 1.0]) @ rotation.T
        if refused:
            with pytest.raises(ValueError, match=r"positive semidefinite, got the eigenvalue -.* at particle 1"):
                general._root(np.stack([np.eye(6), (matrix + matrix.T) / 2]))
        else:
            root = general._root((matrix + matrix.T) / 2)
            assert_allclose(root @ root.T, matrix, atol=1e-5)
    for matrix in ([[0.0, 1.0], [1.0, 0.0]], [[1.0, 2.0], [2.0, 1.0]]):
        with pytest.raises(ValueError, match="got the eigenvalue -1"):
            general._root(np.array(matrix))


# ---- order -----------------------------------------------------------------------------------------------------------


def summed(fine, factor):
    """The normals of coarse steps: sums of those of their fine steps, over the square root of their number."""
    return fine.reshape(-1, factor, *fine.shape[1:]).sum(axis=1) / np.sqrt(factor)


ORDERS = {
    "overdamped": mfld.Overdamped(),
    "irreversible": mfld.Irreversible(ROTATION),
    "general": mfld.General(varying, ROTATION),
    "frozen preconditioner": mfld.Preconditioned(freeze_at=0, second_moment=2.0),
}


@pytest.mark.parametrize("name", ORDERS)
def test_weak_order_one(name, monkeypatch):
    """Differences of means between a step and half of it, with common noise, halve with the step."""
    n, time, temperature, finest = 4000, 0.8, 0.4, 128
    fine = np.stack([noise.normals(16, k, n, 2, dtype="float64") for k in range(finest)])
    well = mfld.Potential(lambda x: x @ HESSIAN + np.sin(x), n_coordinates=2)
    given = {}
    monkeypatch.setattr(Step, "normals", lambda step, like, *_: given["noise"][step.place.step])
    ends = []
    for n_steps in (32, 64, 128):
        given["noise"] = summed(fine, finest // n_steps)
        step_size = time / n_steps
        dynamics = ORDERS[name]
        if name == "overdamped" and n_steps < finest:  # it runs in the core on the noise of its seed: the finest steps
            dynamics = mfld.Irreversible(0 * ROTATION)
        solver = mfld.MFLD(n, step_size=step_size, temperature=temperature, dynamics=dynamics, dtype="float64")
        x = solver.run(well, n_steps, seed=16, particles=np.ones((n, 2))).particles
        ends.append(x)
    changes = [(a**2 - b**2).sum(axis=1) for a, b in itertools.pairwise(ends)]
    means = np.array([change.mean() for change in changes])
    errors = np.array([change.std() for change in changes]) / np.sqrt(n)
    assert np.all(np.abs(means) > 8 * errors)
    order = np.log2(means[0] / means[1])
    # The quarter is for the next order: step times eigenvalue is up to 0.15.
    assert abs(order - 1) < 5 * np.linalg.norm(errors / means) / np.log(2) + 0.25, order


# ---- continuous tempering --------------------------------------------------------------------------------------------

TEMPERED = {"base_width": 0.5, "hot_width": 1.2, "highest": 6.0, "level": 0.8}


def joint_law(potential, temperature, tempering):
    """Of (theta, a) on a grid, from the Hamiltonian as the documentation has it."""
    theta, a = np.linspace(-4, 4, 801), np.linspace(-6, 6, 1201)
    t = np.clip((np.abs(a) - tempering.base_width) / (tempering.hot_width - tempering.base_width), 0, 1)
    f = (1 - 1 / tempering.highest) * (3 * t**2 - 2 * t**3)
    phi = np.maximum(np.abs(a) - tempering.hot_width, 0) ** 2 / 2
    energy = np.outer(potential(theta[:, np.newaxis]) - tempering.level, 1 - f) + phi
    law = np.exp(-(energy - energy.min()) / temperature)
    return theta, a, law / law.sum()


def test_tempering_has_the_law_of_its_hamiltonian():
    """All particles start from one side of the well and at a = 0; the joint law is reached, and theta's law given a."""
    n, temperature = 10_000, 0.4
    well = potentials.DoubleWell(height=1.5, tilt=0.2)
    tempering = mfld.ContinuousTempering(**TEMPERED)
    solver = mfld.MFLD(n, step_size=0.1, temperature=temperature, dynamics=tempering, dtype="float64")
    state = solver.run(well, 600, seed=17, particles=np.ones((n, 1))).state
    theta, a, law = joint_law(well, temperature, tempering)
    x, b = state.particles[:, 0], state.buffers["tempering"][0]

    def check(values, grid, density, names):
        for name in names:
            function = {"mean": lambda y: y, "square": np.square, "cosine": np.cos, "left": lambda y: y < 0}[name]
            mean = density @ function(grid)
            spread = np.sqrt(density @ (function(grid) - mean) ** 2)
            assert_mean(function(values).mean(), mean, spread / np.sqrt(len(values)))

    check(b, a, law.sum(axis=0), ["mean", "square", "cosine"])
    check(x, theta, law.sum(axis=1), ["mean", "square", "left"])
    inside = tempering.at_base(state)
    assert np.array_equal(inside, np.abs(b) <= 0.5)
    base = np.exp(-well(theta[:, np.newaxis]) / temperature)
    base /= base.sum()
    check(x[inside], theta, base, ["mean", "square", "cosine", "left"])
    assert 0.1 < inside.mean() < 0.9
    # The others are hotter, and on the barrier more often.
    barrier = base @ (np.abs(theta) < 0.4)
    error = np.sqrt(barrier * (1 - barrier) / (~inside).sum())
    assert np.mean(np.abs(x[~inside]) < 0.4) - barrier > 10 * error


def test_tempering_crosses_where_langevin_does_not():
    n, temperature = 500, 0.1
    well = potentials.DoubleWell(height=2.0)  # a barrier of 20 temperatures
    start = np.ones((n, 1))
    tempering = mfld.ContinuousTempering(highest=20.0, level=0.1)
    state = (
        mfld.MFLD(n, step_size=0.1, temperature=temperature, dynamics=tempering)
        .run(well, 3000, seed=18, particles=start)
        .state
    )
    samples = state.particles[tempering.at_base(state), 0]
    assert len(samples) > 50
    assert_mean(np.mean(samples < 0), 0.5, 0.5 / np.sqrt(len(samples)))
    plain = mfld.MFLD(n, step_size=0.02, temperature=temperature).run(well, 3000, seed=18, particles=start)
    assert not (plain.particles < 0).any()


def test_tempering_has_order_two():
    """At temperature 0, where no mean has to be taken, with all of its parts in motion."""
    tempering = mfld.ContinuousTempering(friction=0.7, base_width=0.1, hot_width=3.0, highest=4.0)
    well = frozen_last()
    start = np.array([[1.0, -0.5, 0.8, 0.3]])
    buffers = {
        "velocities": np.array([[[0.5, 1.0, -1.0, 0.0]]]),
        "tempering": np.array([[0.7]]),
        "tempering_velocity": np.array([[0.4]]),
    }
    ends = []
    for n_steps in (16, 32, 64, 128):
        solver = mfld.MFLD(1, step_size=2.0 / n_steps, temperature=0.0, dynamics=tempering, dtype="float64")
        state = solver.init(well, particles=start)
        state, _ = solver.advance(well, mfld.State(state.clouds, 0, 0, buffers), n_steps)
        a = state.buffers["tempering"][0]
        assert 0.2 < abs(a[0]) < 2.9
        ends.append(np.concatenate([state.particles[0, :3], a]))
    changes = np.abs(np.diff(ends, axis=0))
    assert_allclose(np.log2(changes[1] / changes[2]), 2, atol=0.1)


def test_forces_of_tempering_are_derivatives(rng):
    """Minus the derivatives of the Hamiltonian, by finite differences of its formula."""
    tempering = mfld.ContinuousTempering(**TEMPERED)
    well = frozen_last()
    step = Step(0.1, 0.5, 0.1, mfld.Space(4, 3), noise.Place(0, 0))
    particles, a = rng.normal(size=(40, 4)), rng.uniform(-2, 2, size=40)

    def energy(x, a):
        t = np.clip((np.abs(a) - 0.5) / 0.7, 0, 1)
        f = (1 - 1 / 6.0) * (3 * t**2 - 2 * t**3)
        return (1 - f) * (well(x) - 0.8) + np.maximum(np.abs(a) - 1.2, 0) ** 2 / 2

    force, tempering_force = tempering._forces(particles, a, *well.value_and_gradient(particles), step)
    h = 1e-5
    for j in range(3):
        e = h * np.eye(4)[j]
        assert_allclose(force[:, j], (energy(particles - e, a) - energy(particles + e, a)) / (2 * h), atol=1e-8)
    kink = np.minimum(np.abs(np.abs(a) - 0.5), np.abs(np.abs(a) - 1.2)) < 1e-3  # a jump of the second derivative
    slope = (energy(particles, a - h) - energy(particles, a + h)) / (2 * h)
    assert_allclose(tempering_force[~kink], slope[~kink], atol=1e-8)


# ---- smoothed gradients ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", ["normal", "ball"])
def test_smoothed_gradients_are_those_of_the_smoothed_potential(law, dtype):
    """Of cos(k.x): smoothing multiplies it by the characteristic function of the law of radius zeta at k."""
    n, radius, k = 200_000, 0.7, np.array([1.0, -2.0, 0.5])
    wave = mfld.Potential(lambda x: -np.sin(x @ k.astype(x.dtype))[:, np.newaxis] * k.astype(x.dtype), n_coordinates=3)
    size = radius * np.linalg.norm(k)
    factor = np.exp(-(size**2) / 2) if law == "normal" else 3 * (np.sin(size) - size * np.cos(size)) / size**3
    x = np.tile(np.array([0.3, 0.2, -0.1], dtype), (n, 1))
    estimate, buffers = mfld.Smoothed(radius, law=law).estimate(wave, x, {}, noise.Place(noise.key(19), 3))
    exact = -np.sin(x[0] @ k) * k
    assert_mean(estimate.mean(axis=0, dtype=np.float64), factor * exact, estimate.std(axis=0) / np.sqrt(n))
    assert np.all(np.abs((1 - factor) * exact) > 20 * estimate.std(axis=0) / np.sqrt(n))
    assert buffers == {}
    assert estimate.dtype == dtype


def test_shifts_of_the_ball_are_uniform():
    identity = mfld.Potential(lambda x: x, n_coordinates=4, n_moving=3)
    n = 100_000
    x = np.zeros((n, 4))
    shifts, _ = mfld.Smoothed(1.0, law="ball").estimate(identity, x, {}, noise.Place(noise.key(20), 0))
    assert not shifts[:, 3].any()
    radius = np.linalg.norm(shifts, axis=1)
    assert radius.max() <= 1
    assert stats.kstest(radius**3, "uniform").pvalue > 5.7e-7
    assert_mean(shifts[:, :3].mean(axis=0), 0, np.sqrt(1 / 5 / n))


def test_smoothing_draws_apart_from_the_move():
    """Neither the shifts nor the noise of the step repeat each other, and radius 0 is the gradient itself."""
    identity = mfld.Potential(lambda x: x, n_coordinates=3)
    x = np.zeros((1000, 3))
    place = noise.Place(noise.key(21), 5)
    shifts, _ = mfld.Smoothed(1.0).estimate(identity, x, {}, place)
    move = noise.normals(21, 5, 1000, 3, dtype="float64")
    assert np.abs(np.corrcoef(shifts.ravel(), move.ravel())[0, 1]) < 5 / np.sqrt(3000)
    assert np.array_equal(shifts, noise.normals(21, 5, 1000, 3, dtype="float64", stream="smoothing"))
    solver = mfld.MFLD(100, step_size=0.1, temperature=0.2)
    runs = [
        mfld.MFLD(100, step_size=0.1, temperature=0.2, gradient=g).run(QUADRATIC, 20, seed=22).particles.tobytes()
        for g in (mfld.FullBatch(), mfld.Smoothed(0.0), mfld.Smoothed(1.0))
    ]
    assert runs[0] == runs[1] != runs[2]
    assert solver.gradient_variance(QUADRATIC, solver.init(QUADRATIC)) == 0


def test_graduated_descent_leaves_the_ripples(rng):
    ripples = mfld.Potential(
        lambda x: x + 6 * np.sin(6 * x), lambda x: np.sum(x**2 / 2 - np.cos(6 * x), axis=1), n_coordinates=2
    )
    start = 3 * rng.normal(size=(50, 2))
    reached = {}
    for name, gradient in {
        "plain": mfld.FullBatch(),
        "graduated": mfld.Smoothed(schedules.Geometric(1.0, 0.7, 200)),
    }.items():
        solver = mfld.MFLD(50, step_size=0.02, temperature=0.0, gradient=gradient, dtype="float64")
        state = solver.run(ripples, 3000, particles=start).state
        reached[name] = ripples(state.particles)
        if name == "graduated":
            again, _ = solver.advance(
                ripples, solver.advance(ripples, solver.init(ripples, particles=start), 700)[0], 2300
            )
            assert again.particles.tobytes() == state.particles.tobytes()
    assert np.median(reached["graduated"]) < -1.9 < 0 < np.median(reached["plain"])


# ---- the probe of the estimators -------------------------------------------------------------------------------------


def risk_of(n, rng):
    inputs = rng.normal(size=(n, 2))
    model = mfld.TwoLayerNetwork(2)
    return mfld.EmpiricalRisk(model, inputs, np.sin(inputs[:, 0]), loss="squared", l2=1e-3)


def test_probe_is_the_error_of_the_next_estimate(rng):
    risk = risk_of(40, rng)
    solver = mfld.MFLD(7, step_size=0.1, temperature=0.01, gradient=mfld.Minibatch(5), dtype="float64")
    state, info = solver.advance(risk, solver.init(risk, seed=23), 4)
    assert np.isnan(info.gradient_variance)
    rows = noise.minibatch(23, 4, 40, 5)
    error = risk.loss_gradient(state.particles, rows) - risk.loss_gradient(state.particles)
    expected = np.mean(np.sum(error**2, axis=1))
    assert_allclose(solver.gradient_variance(risk, state), expected, rtol=1e-12)
    plain, _ = solver.advance(risk, state, 1)
    probed, info = solver.advance(risk, solver.init(risk, seed=23), 5, probe=True)
    assert_allclose(info.gradient_variance, expected, rtol=1e-12)
    assert info.steps == 5
    assert probed.particles.tobytes() == plain.particles.tobytes()
    history = solver.run(
        risk, 6, seed=23, record_every=2, record={"v": lambda s: solver.gradient_variance(risk, s)}
    ).history
    assert_allclose(history["v"][1], expected, rtol=1e-12)
    exact = mfld.MFLD(7, step_size=0.1, temperature=0.01, dtype="float64")
    assert exact.advance(risk, exact.init(risk), 3, probe=True)[1].gradient_variance == 0


def test_replicates_of_the_probe_and_of_tempering(rng):
    risk = risk_of(40, rng)
    solver = mfld.MFLD(7, step_size=0.1, temperature=0.01, gradient=mfld.Minibatch(5), n_replicates=3)
    state, info = solver.advance(risk, solver.init(risk), 4, probe=True)
    assert_allclose(info.gradient_variance, np.mean([one.gradient_variance for one in info.replicates]))
    each = [solver.gradient_variance(risk, state.replicate(r)) for r in range(3)]
    assert_allclose(solver.gradient_variance(risk, state), np.mean(each))
    assert len(set(each)) == 3
    tempering = mfld.ContinuousTempering(base_width=0.05)
    solver = mfld.MFLD(9, step_size=0.1, temperature=0.5, dynamics=tempering, n_replicates=2)
    state, _ = solver.advance(QUADRATIC, solver.init(QUADRATIC), 5)
    with pytest.raises(ValueError, match="2 replicates"):
        tempering.at_base(state)
    for r in range(2):
        assert np.array_equal(tempering.at_base(state.replicate(r)), np.abs(state.buffers["tempering"][r]) <= 0.05)


@pytest.mark.parametrize("estimator", ["minibatch", "svrg"])
def test_probe_tends_to_the_closed_form(estimator, rng):
    """Sampling B of n rows without replacement: the variance is (n - B) / (B (n - 1)) that of one row."""
    n, batch_size, n_steps = 12, 4, 800
    risk = risk_of(n, rng)
    gradient = mfld.Minibatch(batch_size) if estimator == "minibatch" else mfld.SVRG(batch_size, 10**6)
    solver = mfld.MFLD(5, step_size=1e-12, temperature=0.0, gradient=gradient, dtype="float64")  # at one place
    state, _ = solver.advance(risk, solver.init(risk, seed=24), 1)
    rows = [risk.loss_gradient(state.particles, [i]) for i in range(n)]
    if estimator == "svrg":
        moved = mfld.State({"mu": mfld.Cloud(state.clouds["mu"].particles + 0.1)}, 1, 24, state.buffers)
        anchor = state.buffers["anchor"][0]
        state = moved
        rows = [risk.loss_gradient(state.particles, [i]) - risk.loss_gradient(anchor, [i]) for i in range(n)]
    one_row = np.mean(np.sum((np.array(rows) - np.mean(rows, axis=0)) ** 2, axis=2))
    expected = (n - batch_size) / (batch_size * (n - 1)) * one_row
    seen = [
        solver.gradient_variance(risk, mfld.State(state.clouds, k, 24, state.buffers)) for k in range(1, n_steps + 1)
    ]
    assert_mean(np.mean(seen), expected, np.std(seen) / np.sqrt(n_steps))
    # Exactly, over all batches:
    exact = [np.mean([rows[i] for i in batch], axis=0) for batch in itertools.combinations(range(n), batch_size)]
    every = np.mean(np.sum((np.array(exact) - np.mean(rows, axis=0)) ** 2, axis=2))
    assert_allclose(every, expected, rtol=1e-12)


def test_svrg_reduces_the_variance(rng):
    risk = risk_of(200, rng)
    variance = {}
    for gradient in (mfld.Minibatch(10), mfld.SVRG(10, 20)):
        solver = mfld.MFLD(100, step_size=0.05, temperature=1e-5, gradient=gradient)
        record = {"v": lambda s, solver=solver: solver.gradient_variance(risk, s)}
        variance[gradient] = (
            solver.run(risk, 1000, record_every=[*range(905, 1000, 7)], record=record).history["v"].mean()
        )
    assert variance[mfld.SVRG(10, 20)] < variance[mfld.Minibatch(10)] / 20


def test_svrg_reaches_a_lower_objective_than_sgd_at_equal_cost():
    """On data that cannot be interpolated, at one step size, for as many per-sample gradients (bench/variance.py).

    A step of mini-batches costs B of them, one of SVRG 2 B and a refresh n.
    """
    rng = np.random.default_rng(0)
    n, batch_size, refresh_every, passes = 1000, 8, 100, 60
    inputs = rng.normal(size=(n, 4))
    targets = np.sin(2 * inputs[:, 0]) + inputs[:, 1] * inputs[:, 2] / 2 + 0.5 * rng.normal(size=n)
    model = mfld.TwoLayerNetwork(4, output_scale=3.0)
    risk = mfld.EmpiricalRisk(model, inputs, targets, loss="half_squared", l2=1e-3)
    values, variances = [], []
    for gradient in (mfld.Minibatch(batch_size), mfld.SVRG(batch_size, refresh_every)):
        cost = batch_size
        if isinstance(gradient, mfld.SVRG):
            cost = 2 * batch_size + (n - 2 * batch_size) / refresh_every
        n_steps = int(passes * n / cost)
        solver = mfld.MFLD(50, step_size=0.05, temperature=1e-6, gradient=gradient)
        record = {
            "objective": lambda state: risk.value(state.particles),
            "variance": lambda state, solver=solver: solver.gradient_variance(risk, state),
        }
        late = [int(n_steps * (0.7 + 0.3 * k / 16)) for k in range(17)]
        history = solver.run(risk, n_steps, record_every=late, record=record).history
        values.append(history["objective"])
        variances.append(np.median(history["variance"]))
    # Records are far apart against the time in which the fast directions forget, and the slow ones hardly move.
    sgd, svrg = values
    assert sgd.mean() - svrg.mean() > 5 * sgd.std() / np.sqrt(len(sgd))
    assert sgd.min() > svrg.max()
    assert variances[1] < variances[0] / 100


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: mfld.Preconditioned(decay=1.0), ValueError, "decay must be at least 0 and below 1"),
        (lambda: mfld.Preconditioned(epsilon=0.0), ValueError, "epsilon must be finite and positive"),
        (lambda: mfld.Preconditioned(freeze_at=-1), ValueError, "freeze_at must be at least 0"),
        (lambda: mfld.Irreversible([[0.0, 1.0], [1.0, 0.0]]), ValueError, "skew must be minus its transpose"),
        (lambda: mfld.Irreversible([0.0, 1.0]), ValueError, "skew must be a square matrix"),
        (
            lambda: mfld.Irreversible(ROTATION).largest_step_size(np.eye(3)),
            ValueError,
            r"hessian must have shape \(2, 2",
        ),
        (lambda: mfld.General([[1.0, 1.0], [0.0, 1.0]]), ValueError, "diffusion must be symmetric"),
        (lambda: mfld.General([[1.0, 0.0], [0.0, -1.0]]), ValueError, "positive semidefinite, got the eigenvalue -1"),
        (lambda: mfld.General(np.eye(2), np.eye(2)), ValueError, "skew must be skew"),
        (lambda: mfld.General(np.eye(2), divergence=3), TypeError, "divergence must be callable"),
        (lambda: mfld.ContinuousTempering(highest=1.0), ValueError, "highest must be above 1"),
        (lambda: mfld.ContinuousTempering(base_width=3.0), ValueError, "hot_width must be above base_width"),
        (lambda: mfld.ContinuousTempering(friction=0.0), ValueError, "friction must be finite and positive"),
        (lambda: mfld.Smoothed(-1.0), ValueError, "radius must be finite and at least 0"),
        (lambda: mfld.Smoothed(1.0, law="cube"), ValueError, "law must be one of normal, ball"),
        (lambda: mfld.Smoothed(1.0, 3), TypeError, "gradient must be a GradientEstimator"),
    ],
)
def test_refused_dynamics(make, error, message):
    with pytest.raises(error, match=message):
        make()


class TwoParticles(mfld.Objective):
    space = mfld.Space(2)

    def loss(self, measure):
        return 0.0

    def loss_gradient(self, measure, batch=None):
        return np.zeros_like(self.cloud(measure).particles)

    def first_variation(self, measure):
        return QUADRATIC


@pytest.mark.parametrize(
    ("objective", "arguments", "error", "message"),
    [
        (
            QUADRATIC,
            {"dynamics": mfld.Irreversible(SKEW)},
            ValueError,
            r"skew must have shape \(2, 2\) to match the moving",
        ),
        (QUADRATIC, {"dynamics": mfld.General(np.eye(3))}, ValueError, r"diffusion must have shape \(2, 2\)"),
        (
            QUADRATIC,
            {"dynamics": mfld.General(lambda x: x)},
            ValueError,
            r"result of diffusion must have shape \(4, 2, 2\)",
        ),
        (
            QUADRATIC,
            {"dynamics": mfld.General(lambda x: -np.ones((len(x), 2, 2)))},
            ValueError,
            "positive semidefinite, got the eigenvalue .* at particle 0",
        ),
        (
            QUADRATIC,
            {"dynamics": mfld.General(np.eye(2), lambda x: np.ones((len(x), 2, 2)))},
            ValueError,
            "result of skew must be skew, minus its transpose, got .* at particle 0",
        ),
        (TwoParticles(), {"dynamics": mfld.ContinuousTempering()}, ValueError, "objective must be linear"),
        (
            POSTERIOR := potentials.BayesianLinearRegression([[1.0]], [1.0]),
            {"dynamics": mfld.ContinuousTempering(), "gradient": mfld.Minibatch(1)},
            ValueError,
            "gradient must be FullBatch",
        ),
        (QUADRATIC, {"gradient": mfld.Smoothed(0.1, mfld.Minibatch(1))}, ValueError, "has no samples"),
        (QUADRATIC, {"gradient": mfld.Smoothed(lambda k: -1.0)}, ValueError, "radius"),
    ],
)
def test_refused_pairs(objective, arguments, error, message):
    with pytest.raises(error, match=message):
        mfld.MFLD(4, step_size=0.1, temperature=1.0, **arguments).run(objective, 1)


@pytest.mark.parametrize("name", ["preconditioned", "tempering"])
def test_buffers_of_another_objective_are_refused(name):
    solver = solver_of(DYNAMICS[name])
    state, _ = solver.advance(frozen_last(), solver.init(frozen_last()))
    wider = potentials.Gaussian(np.zeros(5))
    mixed = mfld.State({"mu": mfld.Cloud(np.zeros((1, 11, 5), np.float32))}, state.step, state.seed, state.buffers)
    with pytest.raises(ValueError, match=r"state.buffers\['.*'\] must have shape \(1, 11, 5\)"):
        solver.advance(wider, mixed)


def test_base_samples_need_tempering():
    state = mfld.MFLD(4, step_size=0.1, temperature=1.0).init(QUADRATIC)
    with pytest.raises(ValueError, match="no buffer tempering"):
        mfld.ContinuousTempering().at_base(state)


class OneByOne(mfld.GradientEstimator):
    """An estimator that the compiled core does not know, so that each step is one call."""

    def __init__(self, inner):
        self.inner, self.buffer_names = inner, inner.buffer_names

    def estimate(self, objective, particles, buffers, place):
        return self.inner.estimate(objective, particles, buffers, place)

    def loss(self, objective, particles, place):
        return self.inner.loss(objective, particles, place)


@pytest.mark.parametrize(
    "gradient", [mfld.FullBatch(), mfld.Minibatch(16), mfld.SVRG(16, 5), mfld.SARAH(16, 5)], ids=repr
)
@pytest.mark.parametrize("freeze_at", [None, 4])
def test_preconditioned_steps_of_the_core_are_those_of_numpy(gradient, freeze_at, rng):
    model = mfld.TwoLayerNetwork(5, 3)
    risk = mfld.EmpiricalRisk(model, rng.normal(size=(200, 5)), rng.normal(size=(200, 3)), loss="half_squared", l2=1e-2)
    states = [
        mfld.MFLD(
            37,
            step_size=0.05,
            temperature=1e-3,
            gradient=own,
            dynamics=mfld.Preconditioned(freeze_at=freeze_at),
            dtype="float64",
        )
        .run(risk, 9, seed=3)
        .state
        for own in (gradient, OneByOne(gradient))
    ]
    # The same sums in another order; 1 / sqrt(S) magnifies a relative error of 1e-15 of small gradients.
    np.testing.assert_allclose(states[0].particles, states[1].particles, rtol=1e-10, atol=1e-10)
    moments = [state.buffers["second_moment"] for state in states]
    np.testing.assert_allclose(*moments, rtol=1e-9, atol=1e-15)
    assert moments[0].max() > 1e-6
