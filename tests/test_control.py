"""Relaxed optimal control: against Riccati equations, finite differences, static problems and shooting."""

import itertools
import pickle

import numpy as np
import pytest
from scipy import integrate, linalg, optimize

import mfld
from mfld.algorithms.replicates import advance_each
from mfld.control import RecedingHorizon, optimality
from mfld.state import Info

A = np.array([[0.0, 1.0], [-1.0, 0.3]])
B = np.array([[0.0], [1.0]])
Q, R, G = np.diag([1.0, 0.5]), np.array([[0.8]]), np.diag([2.0, 1.0])
START = np.array([1.0, -0.5])


def quadratic(n_nodes, horizon=2.0, initial_states=START, **arguments):
    """dX = (A X + B a) dt, L = (x'Qx + a'Ra) / 2, G = x'Gx / 2."""
    return mfld.ControlProblem(
        lambda t, x, a: x @ A.T + a @ B.T,
        lambda t, x, a: (np.einsum("mi,ij,mj->m", x, Q, x) + np.einsum("mi,ij,mj->m", a, R, a)) / 2,
        lambda x: np.einsum("mi,ij,mj->m", x, G, x) / 2,
        horizon,
        n_nodes,
        initial_states,
        n_controls=1,
        dynamics_jacobians=lambda t, x, a: (np.tile(A, (len(x), 1, 1)), np.tile(B, (len(x), 1, 1))),
        running_gradients=lambda t, x, a: (x @ Q, a @ R),
        terminal_gradient=lambda x: x @ G,
        **arguments,
    )


def bend(**arguments):
    """A problem without any structure: nonlinear in the state, the control and time, with an environment."""

    def jacobians(t, x, a):
        of_x, of_a = np.zeros((len(x), 2, 2)), np.zeros((len(x), 2, 2))
        of_x[:, 0, 1] = np.cos(x[:, 1] + t)
        of_x[:, 1, 0] = -a[:, 0] * 2 * x[:, 0]
        of_a[:, 0, 0] = 1
        of_a[:, 1] = np.stack([-(x[:, 0] ** 2), 1 / np.cosh(a[:, 1]) ** 2], axis=1)
        return of_x, of_a

    def gradients(t, x, a):
        size = np.exp(-t) * np.cos(a[:, 0] * x[:, 1])
        of_x = np.stack([x[:, 0], size * a[:, 0]], axis=1)
        return of_x, np.stack([size * x[:, 1], 2 * a[:, 1]], axis=1)

    rng = np.random.default_rng(3)
    return mfld.ControlProblem(
        lambda t, x, a: np.stack([np.sin(x[:, 1] + t) + a[:, 0], np.tanh(a[:, 1]) - a[:, 0] * x[:, 0] ** 2], axis=1),
        lambda t, x, a: np.exp(-t) * np.sin(a[:, 0] * x[:, 1]) + x[:, 0] ** 2 / 2 + a[:, 1] ** 2,
        lambda x: np.cos(x[:, 0]) + x[:, 0] * x[:, 1],
        1.3,
        4,
        rng.normal(size=(5, 2)),
        n_controls=2,
        dynamics_jacobians=jacobians,
        running_gradients=gradients,
        terminal_gradient=lambda x: np.stack([-np.sin(x[:, 0]) + x[:, 1], x[:, 0]], axis=1),
        **{"l2": 0.1, **arguments},
    )


def differences(function, at, h=1e-3):
    """Gradient by differences of order 4."""
    found = np.empty(at.shape)
    for index in np.ndindex(at.shape):
        values = []
        for step in (-2, -1, 1, 2):
            there = at.copy()
            there[index] += step * h
            values.append(function(there))
        found[index] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
    return found


KINDS = {
    "euler": {},
    "midpoint": {"scheme": "midpoint", "steps_per_node": 2},
    "rk4": {"scheme": "rk4"},
    "noise": {"scheme": "rk4", "state_noise": [0.3, 0.1], "n_paths": 3},
    "shared": {"scheme": "midpoint", "shared": True},
    "weighted": {"sample_weight": [1, 0, 2, 3, 1]},
}


# ---- the adjoint -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_that_of_the_cost_per_unit_of_time(kind, rng):
    problem = bend(**KINDS[kind])
    particles = rng.normal(size=(*problem.members, 3, 2))
    part = problem.horizon / (1 if problem.shared else problem.n_nodes)
    expected = 3 / part * differences(problem.value, particles)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(problem.gradient(particles), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_adjoint_is_the_derivative_of_the_costs_in_the_states(kind, rng):
    problem = bend(**KINDS[kind])
    particles = rng.normal(size=(*problem.members, 3, 2))
    found = problem.trajectory(particles)

    def cost(states):
        moved = problem.moved(states)
        return float(moved.trajectory(particles).costs.sum())

    # Of all paths from one initial state together.
    expected = differences(cost, problem.initial_states)
    paths = found.adjoints[0].reshape(5, -1, 2).sum(axis=1)
    np.testing.assert_allclose(paths, expected, rtol=1e-10, atol=1e-10)
    of_starts = found.costs.reshape(5, -1).mean(axis=1)
    expected = np.average(of_starts, weights=KINDS[kind].get("sample_weight"))
    assert np.isclose(problem.loss(particles), expected, rtol=1e-14)


@pytest.mark.parametrize("kind", ["euler", "rk4", "shared"])
def test_first_variation_is_the_derivative_under_moving_mass(kind, rng):
    problem = bend(**KINDS[kind])
    particles = rng.normal(size=(*problem.members, 3, 2))
    potential = problem.first_variation(particles)
    points = rng.normal(size=(*problem.members, 2, 2))
    values = potential(points)
    assert values.shape == points.shape[:-1]
    part = problem.horizon / (1 if problem.shared else problem.n_nodes)
    at_particles = potential(particles)
    for index in np.ndindex(values.shape):
        own = index[:-1]

        def mixture(e, index=index, own=own):
            weights = np.full((*problem.members, 4), 1 / 3)
            weights[..., 3] = 0
            weights[own] = [*[(1 - e) / 3] * 3, e]
            filled = np.concatenate([particles, particles[..., :1, :]], axis=-2)
            filled[(*own, 3)] = points[index]
            return problem.value(mfld.Cloud(filled, weights))

        # One-sided, of order 4: masses are not negative.
        h = 1e-3
        shares = zip((-25, 48, -36, 16, -3), range(5), strict=True)
        slope = sum(share * mixture(k * h) for share, k in shares) / (12 * h)
        assert np.isclose(values[index] - at_particles[own].mean(), slope / part, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(
        potential.gradient(points), differences(lambda at: float(potential(at).sum()), points), rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(potential.gradient(particles), problem.gradient(particles), rtol=1e-13, atol=1e-14)
    if not problem.shared:
        single = problem.hamiltonian(particles, 2)
        np.testing.assert_allclose(single(points[2]), values[2], rtol=1e-13)
        np.testing.assert_allclose(single.gradient(points[2]), potential.gradient(points)[2], rtol=1e-13)


def test_blocks_of_pairs_change_nothing(rng, monkeypatch):
    problem = bend(scheme="rk4")
    particles = rng.normal(size=(4, 6, 2))
    whole, gradient = problem.loss(particles), problem.gradient(particles)
    monkeypatch.setattr("mfld.objectives.control.timeline._PAIRS_AT_A_TIME", 13)
    assert np.isclose(problem.loss(particles), whole, rtol=1e-14)
    np.testing.assert_allclose(problem.gradient(particles), gradient, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("library", ["jax", "torch"])
def test_automatic_derivatives_are_those_of_the_user(library, rng):
    np_like = pytest.importorskip(library)
    np_like = np_like.numpy if library == "jax" else np_like
    problem = bend(scheme="rk4")
    automatic = getattr(mfld.ControlProblem, f"from_{library}")(
        lambda t, x, a: np_like.stack(
            [np_like.sin(x[:, 1] + t) + a[:, 0], np_like.tanh(a[:, 1]) - a[:, 0] * x[:, 0] ** 2], 1
        ),
        lambda t, x, a: np.exp(-1) ** t * np_like.sin(a[:, 0] * x[:, 1]) + x[:, 0] ** 2 / 2 + a[:, 1] ** 2,
        lambda x: np_like.cos(x[:, 0]) + x[:, 0] * x[:, 1],
        1.3,
        4,
        problem.initial_states,
        n_controls=2,
        scheme="rk4",
        l2=0.1,
    )
    particles = rng.normal(size=(4, 3, 2))
    assert np.isclose(automatic.value(particles), problem.value(particles), rtol=1e-13)
    np.testing.assert_allclose(automatic.gradient(particles), problem.gradient(particles), rtol=1e-10, atol=1e-12)
    points = rng.normal(size=(4, 2, 2))
    ours, theirs = (each.first_variation(particles)(points) for each in (problem, automatic))
    np.testing.assert_allclose(theirs, ours, rtol=1e-12)


def test_the_whole_adjoint_is_that_of_jax(rng):
    jax = pytest.importorskip("jax")
    jnp = jax.numpy
    problem = quadratic(3, scheme="rk4")
    particles = rng.normal(size=(3, 4, 1))
    h = 2.0 / 3

    def cost(particles):
        x, total = jnp.asarray(START), 0.0

        def rate(x, a):
            return A @ x + B @ a.mean(axis=0), (x @ Q @ x + (a @ R * a).sum() / len(a)) / 2

        for a in particles:
            k1, l1 = rate(x, a)
            k2, l2 = rate(x + h / 2 * k1, a)
            k3, l3 = rate(x + h / 2 * k2, a)
            k4, l4 = rate(x + h * k3, a)
            x, total = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), total + h / 6 * (l1 + 2 * l2 + 2 * l3 + l4)
        return total + x @ G @ x / 2

    home = jax if hasattr(jax, "enable_x64") else jax.experimental
    with home.enable_x64(True):
        value, gradient = jax.value_and_grad(cost)(jnp.asarray(particles))
        assert np.isclose(problem.loss(particles), float(value), rtol=1e-13)
        np.testing.assert_allclose(problem.gradient(particles), np.asarray(gradient) * 4 / h, rtol=1e-10)


# ---- linear-quadratic problems ---------------------------------------------------------------------------------------


def riccati(horizon=2.0):
    """P(0) and the mean of the optimal control as a function of time, by the Riccati equation."""
    backward = integrate.solve_ivp(
        lambda t, p: -_riccati_rate(p.reshape(2, 2)).ravel(),
        (horizon, 0),
        G.ravel(),
        rtol=1e-11,
        atol=1e-12,
        dense_output=True,
    )

    def feedback(t):
        return -linalg.solve(R, B.T @ backward.sol(t).reshape(2, 2))

    forward = integrate.solve_ivp(
        lambda t, x: A @ x + B @ (feedback(t) @ x), (0, horizon), START, rtol=1e-11, atol=1e-12, dense_output=True
    )
    return backward.y[:, -1].reshape(2, 2), lambda t: float((feedback(t) @ forward.sol(t))[0])


def _riccati_rate(p):
    return A.T @ p + p @ A - p @ B @ linalg.solve(R, B.T @ p) + Q


def best_means(problem):
    """Controls at which the gradient, which is affine in them, is 0: one particle a node."""
    n = problem.n_nodes
    at = problem.gradient(np.zeros((n, 1, 1))).ravel()
    columns = [problem.gradient(np.eye(n)[:, k].reshape(n, 1, 1)).ravel() - at for k in range(n)]
    return -np.linalg.solve(np.stack(columns, axis=1), at).reshape(n, 1, 1)


def test_minimiser_of_a_quadratic_problem_is_gaussian_with_the_mean_of_riccati():
    # Discrete Riccati equation for the Euler scheme: no bias of nodes is left in the comparison.
    n, temperature, step_size, l2 = 8, 0.05, 0.1, 0.15
    problem = quadratic(n, l2=l2)
    h = problem.horizon / n
    f, b, r = np.eye(2) + h * A, h * B, h * (R + 2 * l2 * np.eye(1))
    p, gains = G, []
    for _ in range(n):
        gain = linalg.solve(r + b.T @ p @ b, b.T @ p @ f)
        p = h * Q + f.T @ p @ f - f.T @ p @ b @ gain
        gains.append(gain)
    x, means = START, []
    for gain in reversed(gains):
        means.append(float((-gain @ x)[0]))
        x = f @ x + b @ (-gain @ x)

    solver = mfld.MFLD(1000, step_size=step_size, temperature=temperature)
    result = solver.run(problem, 60)
    found = []
    for _ in range(30):
        result = solver.run(problem, 5, state=result.state)
        found.append(result.particles[..., 0].astype(float))
    means_found, variances = np.mean(found, axis=(0, 2)), np.mean(np.var(found, axis=2), axis=0)
    # The step does not bias the mean of a linear system; its noise is sqrt(variance / N) over a few relaxation times.
    np.testing.assert_allclose(means_found, means, atol=5 * np.sqrt(0.05 / 1000))
    curvature = R[0, 0] + 2 * l2  # the mean field only shifts a particle: each has this curvature of its own
    expected = temperature / (curvature * (1 - curvature * step_size / 2))
    np.testing.assert_allclose(variances, expected, rtol=0.03)
    assert abs(expected / (temperature / curvature) - 1) > 0.04  # the bias of the step is seen
    # The cost of the relaxed optimum: that of its means, and the running cost of its variance.
    cost = problem.value(result.particles)
    of_means = problem.value(np.array(means).reshape(n, 1, 1))
    assert abs(of_means - START @ p @ START / 2) < 1e-12
    assert abs(cost - of_means - problem.horizon * curvature * expected / 2) < 5e-3


def test_cost_tends_to_that_of_riccati_and_is_extrapolated():
    exact = START @ riccati()[0] @ START / 2
    costs = {}
    for scheme in ("euler", "midpoint", "rk4"):
        found = []
        for n in (8, 16, 32):
            problem = quadratic(n, scheme=scheme)
            found.append(problem.value(best_means(problem)))
        costs[scheme] = np.array(found)
    errors = {scheme: found - exact for scheme, found in costs.items()}
    slopes = {scheme: np.log2(np.abs(e[:-1] / e[1:])) for scheme, e in errors.items()}
    # Euler's steps cost O(1/K); controls that are constant on parts O(1/K**2), whatever the scheme.
    np.testing.assert_allclose(slopes["euler"], 1, atol=0.2)
    assert (slopes["midpoint"] > 1.9).all()  # its own error nearly cancels that of the parts here
    np.testing.assert_allclose(slopes["rk4"], 2, atol=0.1)
    extrapolated = {
        "euler": costs["euler"] @ [1, -6, 8] / 3,  # without the terms in 1/K and 1/K**2
        "rk4": costs["rk4"] @ [0, -1, 4] / 3,
    }
    assert abs(costs["euler"][-1] / exact - 1) > 1e-3
    assert abs(extrapolated["euler"] / exact - 1) < 1e-3
    assert abs(extrapolated["rk4"] / exact - 1) < 1e-5


def test_mean_controls_tend_to_those_of_riccati():
    problem = quadratic(24, scheme="rk4")
    middles = (problem.node_times[1:] + problem.node_times[:-1]) / 2
    mean = riccati()[1]
    expected = [mean(t) for t in middles]
    np.testing.assert_allclose(best_means(problem).ravel(), expected, atol=1e-2)


@pytest.mark.parametrize(("scheme", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_order_of_the_schemes_under_given_controls(scheme, order, rng):
    controls = rng.normal(size=(3, 5, 1))
    x, cost = START, 0.0
    for node in controls:  # with the variances, which the running cost sees
        mean, square = node.mean(axis=0), float(np.mean(np.einsum("mi,ij,mj->m", node, R, node)))
        solved = integrate.solve_ivp(
            lambda t, y, mean=mean, square=square: [*(A @ y[:2] + B @ mean), (y[:2] @ Q @ y[:2] + square) / 2],
            (0, 2 / 3),
            [*x, cost],
            rtol=1e-12,
            atol=1e-13,
        )
        *x, cost = solved.y[:, -1]
    exact = cost + x @ G @ x / 2
    steps = (8, 16, 32)
    errors = [quadratic(3, scheme=scheme, steps_per_node=k).loss(controls) - exact for k in steps]
    np.testing.assert_allclose(np.log2(np.abs(errors)[:-1] / np.abs(errors)[1:]), order, atol=0.1)


# ---- static problems, noise, batches ---------------------------------------------------------------------------------


def as_control(inputs, targets, shared=False, n_nodes=1):
    """A network of features cos(a . z): states are (z, y, prediction), and the prediction grows."""
    d = inputs.shape[1]

    def drift(t, x, a):
        return np.column_stack([0 * x[:, : d + 1], np.cos(np.sum(x[:, :d] * a, axis=1))])

    def jacobians(t, x, a):
        slope = -np.sin(np.sum(x[:, :d] * a, axis=1))[:, np.newaxis]
        of_x, of_a = np.zeros((len(x), d + 2, d + 2)), np.zeros((len(x), d + 2, d))
        of_x[:, -1, :d], of_a[:, -1] = slope * a, slope * x[:, :d]
        return of_x, of_a

    def terminal_gradient(x):
        residual = (x[:, -1] - x[:, -2])[:, np.newaxis]
        return np.column_stack([0 * x[:, :d], -residual, residual])

    return mfld.ControlProblem(
        drift,
        None,
        lambda x: (x[:, -1] - x[:, -2]) ** 2 / 2,
        1.0,
        n_nodes,
        np.column_stack([inputs, targets, np.zeros(len(inputs))]),
        n_controls=d,
        dynamics_jacobians=jacobians,
        terminal_gradient=terminal_gradient,
        l2=0.01,
        shared=shared,
    )


@pytest.mark.parametrize(("shared", "n_nodes"), [(False, 1), (True, 1), (True, 3)])
def test_one_measure_is_the_static_problem(shared, n_nodes, rng):
    inputs = rng.normal(size=(12, 2))
    targets = np.sin(inputs[:, 0])
    features = mfld.NeuronModel(
        lambda a, z: np.cos(z @ a.T),
        lambda a, z: -np.sin(z @ a.T)[:, :, np.newaxis] * z[:, np.newaxis],
        n_features=2,
        n_coordinates=2,
    )
    risk = mfld.EmpiricalRisk(features, inputs, targets, loss="half_squared", l2=0.01)
    problem = as_control(inputs, targets, shared, n_nodes)
    particles = rng.normal(size=(*problem.members, 7, 2))
    flat = particles.reshape(7, 2)
    assert np.isclose(problem.value(particles), risk.value(flat), rtol=1e-13)
    np.testing.assert_allclose(problem.gradient(particles).reshape(7, 2), risk.gradient(flat), rtol=1e-11, atol=1e-14)
    rows = [1, 5, 6]
    np.testing.assert_allclose(
        problem.gradient(particles, rows).reshape(7, 2), risk.gradient(flat, rows), rtol=1e-11, atol=1e-14
    )
    # Whole runs, mini-batches and variance reduction included, see the same noise and the same rows.
    for gradient in (mfld.FullBatch(), mfld.Minibatch(4), mfld.SVRG(4, 5)):
        solver = mfld.MFLD(7, step_size=0.2, temperature=1e-3, gradient=gradient, dtype="float64")
        ours, theirs = (
            solver.run(each, 12, seed=3, particles=p).particles for each, p in ((problem, particles), (risk, flat))
        )
        np.testing.assert_allclose(ours.reshape(7, 2), theirs, rtol=1e-9)


def test_batches_of_initial_states_are_unbiased(rng):
    problem = bend(state_noise=0.2, n_paths=2, sample_weight=[1, 2, 3, 1, 1])
    particles = rng.normal(size=(4, 3, 2))
    batches = list(itertools.combinations(range(5), 2))
    mean = np.mean([problem.gradient(particles, rows) for rows in batches], axis=0)
    np.testing.assert_allclose(mean, problem.gradient(particles), rtol=1e-12, atol=1e-13)
    loss = np.mean([problem.loss_of_batch(particles, rows) for rows in batches])
    assert np.isclose(loss, problem.loss(particles), rtol=1e-13)


@pytest.mark.parametrize("n_steps", [2, 8])
def test_noise_after_each_step_leaves_order_one(n_steps):
    # dX = -X dt + dW from 0: kicks of variance h decay by exp(-h) in each step that follows (RK4: to 1e-3 at h=1/2).
    n_paths, h = 20_000, 1 / n_steps
    problem = mfld.ControlProblem(
        lambda t, x, a: a - x,
        None,
        lambda x: x[:, 0] ** 2,
        1.0,
        1,
        0.0,
        n_controls=1,
        dynamics_jacobians=lambda t, x, a: (np.full((len(x), 1, 1), -1.0), np.ones((len(x), 1, 1))),
        terminal_gradient=lambda x: 2 * x,
        scheme="rk4",
        steps_per_node=n_steps,
        state_noise=1.0,
        n_paths=n_paths,
    )
    variance, limit = h * np.sum(np.exp(-2 * h * np.arange(n_steps))), (1 - np.exp(-2)) / 2
    chance = 5 * np.sqrt(2 / n_paths) * variance
    assert problem.loss(np.zeros((1, 1, 1))) == pytest.approx(variance, abs=chance + 1e-3)
    assert chance + 1e-3 < variance - limit == pytest.approx(h * limit, rel=h)


def test_noise_of_states_is_common_and_has_its_law(rng):
    # dX = -X dt + sigma dW under the control 0: the variance of the Euler scheme in closed form.
    sigma, n, h = 0.5, 10, 0.1
    problem = mfld.ControlProblem(
        lambda t, x, a: -x + a,
        None,
        lambda x: x[:, 0] ** 2,
        1.0,
        n,
        2.0,
        n_controls=1,
        dynamics_jacobians=lambda t, x, a: (
            -np.ones((len(x), 1, 1)),
            np.ones((len(x), 1, 1)),
        ),
        terminal_gradient=lambda x: 2 * x,
        state_noise=sigma,
        n_paths=20_000,
    )
    still = np.zeros((n, 1, 1))
    ends = problem.trajectory(still).states[-1, :, 0]
    decay = 1 - h
    variance = sigma**2 * h * (1 - decay ** (2 * n)) / (1 - decay**2)
    assert abs(ends.mean() - 2 * decay**n) < 5 * np.sqrt(variance / 20_000)
    assert abs(ends.var() / variance - 1) < 5 * np.sqrt(2 / 20_000)
    assert problem.loss(still) == problem.loss(still)
    # Common random numbers: a shift of all controls shifts all paths alike.
    shifted = problem.trajectory(still + 0.3).states[-1, :, 0]
    np.testing.assert_allclose(shifted - ends, (shifted - ends)[0], rtol=1e-9)


def test_runs_on_members_with_every_estimator_continue_and_replicate():
    problem = bend()
    for gradient in (mfld.FullBatch(), mfld.Minibatch(2), mfld.SVRG(2, 3), mfld.SARAH(2, 3)):
        solver = mfld.MFLD(6, step_size=0.05, temperature=1e-3, gradient=gradient)
        whole = solver.run(problem, 8, seed=1)
        half = solver.run(problem, 4, seed=1)
        assert np.array_equal(solver.run(problem, 4, state=half.state).particles, whole.particles)
        assert np.isfinite(whole.history["loss"]).all()
    two = mfld.MFLD(6, step_size=0.05, temperature=1e-3, n_replicates=2).run(problem, 5)
    assert two.state.clouds["mu"].particles.shape == (2, 4, 6, 2)
    automatic = mfld.MFLD(6, temperature=1e-3).run(problem, 30)
    assert automatic.history["loss"][-1] < automatic.history["loss"][0]


# ---- the certificate -------------------------------------------------------------------------------------------------


def test_optimality_holds_at_the_end_of_a_run_and_not_before():
    problem = quadratic(2)
    solver = mfld.MFLD(400, step_size=0.05, temperature=0.1)
    early, late = solver.run(problem, 3), solver.run(problem, 150)
    found = optimality(problem, late.measure, 0.1)
    assert found.holds
    assert found.mixed.all()
    assert found.particles.shape == (2, 512, 1)
    # The draws have the law: the curvature is R.
    np.testing.assert_allclose(found.particles.var(axis=1), 0.1 / R[0, 0], rtol=0.25)
    before = optimality(problem, early.measure, 0.1)
    assert not before.holds
    assert before.mixed.all()
    assert before.distances.max() > 3 * before.noise.max()
    assert not optimality(problem, late.measure, 0.2, nodes=[1]).holds  # the law of another temperature


def double_well(**arguments):
    """Controls +1 and -1 cost nothing, and the state should stay where it is."""
    return mfld.ControlProblem(
        lambda t, x, a: a,
        lambda t, x, a: (a[:, 0] ** 2 - 1) ** 2,
        lambda x: x[:, 0] ** 2,
        1.0,
        2,
        0.0,
        dynamics_jacobians=lambda t, x, a: (0 * x[:, :, np.newaxis], 1 + 0 * a[:, :, np.newaxis]),
        running_gradients=lambda t, x, a: (0 * x, 4 * a * (a**2 - 1)),
        terminal_gradient=lambda x: 2 * x,
        **{"n_controls": 1, **arguments},
    )


@pytest.mark.slow
def test_optimality_finds_the_well_that_a_run_left_empty():
    problem, solver = double_well(), mfld.MFLD(400, step_size=0.02, temperature=0.05)
    split = np.where(np.arange(400) % 2 == 0, 1.0, -1.0).reshape(1, 400, 1).repeat(2, axis=0)
    assert optimality(problem, solver.run(problem, 400, particles=split).measure, 0.05).holds
    # All in one well by turns: the state comes back, and each node is far from its Gibbs law.
    turns = np.ones((2, 400, 1)) * np.array([1.0, -1.0]).reshape(2, 1, 1)
    found = optimality(problem, turns + 0.1 * np.random.default_rng(0).normal(size=turns.shape), 0.05)
    assert found.mixed.all()
    assert not found.holds


def test_optimality_on_a_box_and_of_a_shared_measure():
    box = mfld.Space(domain=[mfld.Box([-0.5], [0.5])])
    problem = mfld.ControlProblem(
        lambda t, x, a: a,
        lambda t, x, a: a[:, 0] ** 2 / 2,
        lambda x: x[:, 0] ** 2,
        1.0,
        3,
        2.0,
        dynamics_jacobians=lambda t, x, a: (0 * x[:, :, np.newaxis], 1 + 0 * a[:, :, np.newaxis]),
        running_gradients=lambda t, x, a: (0 * x, a),
        terminal_gradient=lambda x: 2 * x,
        space=box,
        shared=True,
    )
    solver = mfld.MFLD(500, step_size=0.002, temperature=0.5)
    late = solver.run(problem, 500)
    assert np.abs(late.particles).max() <= 0.5
    assert optimality(problem, late.measure, 0.5).holds
    assert not optimality(problem, late.particles[::-1] * 0.5, 0.5).holds


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        (
            {"dynamics_jacobians": lambda t, x, a: (0 * x[:, :, np.newaxis], 0.9 + 0 * a[:, :, np.newaxis])},
            ValueError,
            r"dynamics_jacobians must be the derivative of dynamics: d/da\[0\] is 0.9 by dynamics_jacobians and 1 by",
        ),
        (
            {"running_gradients": lambda t, x, a: (0 * x, -4 * a * (a**2 - 1))},
            ValueError,
            r"running_gradients must be the derivative of running_cost: d/da\[0\]",
        ),
        (
            {"terminal_gradient": lambda x: 2 * x + 1},
            ValueError,
            r"terminal_gradient must be the derivative of terminal_cost: d/dx\[0\]",
        ),
        ({"horizon": 0.0}, ValueError, "horizon must be finite and positive, got 0.0"),
        ({"horizon": -1.0}, ValueError, "horizon must be finite and positive, got -1.0"),
        ({"n_nodes": 0}, ValueError, "n_nodes must be at least 1, got 0"),
        ({"initial_states": np.zeros((2, 0))}, ValueError, "initial_states must have shape"),
        ({"initial_states": [np.nan]}, ValueError, "initial_states must be finite"),
        ({"n_controls": None}, ValueError, "n_controls must be given, or space; got neither"),
        ({"space": mfld.Space(1)}, ValueError, "n_controls must be left out where space is given, got 1 and Space"),
        (
            {"running_gradients": lambda t, x, a: (0 * x, np.nan * a)},
            ValueError,
            r"running_gradients must be the derivative of running_cost: d/da\[0\] is nan by running_gradients",
        ),
        ({"dynamics": lambda t, x, a: np.multiply(a, 2, out=a)}, ValueError, "output array is read-only"),
        ({"dynamics": lambda t, x, a: a[:, 0]}, ValueError, r"the result of dynamics must have shape \(1, 1\)"),
        ({"running_cost": lambda t, x, a: a}, ValueError, r"the result of running_cost must have shape \(1,\)"),
        ({"running_cost": None}, ValueError, "running_gradients must be left out where running_cost is None"),
        ({"terminal_gradient": None}, TypeError, "terminal_gradient must be callable, got None"),
        ({"n_paths": 3}, ValueError, "n_paths must be 1 without state_noise"),
        ({"state_noise": [1.0, 2.0]}, ValueError, r"state_noise must have shape \(1,\)"),
        ({"scheme": "heun"}, ValueError, "scheme must be one of euler, midpoint, rk4; got 'heun'"),
    ],
)
def test_refused_problems(changed, error, message):
    given = {
        "dynamics": lambda t, x, a: a,
        "running_cost": lambda t, x, a: (a[:, 0] ** 2 - 1) ** 2,
        "terminal_cost": lambda x: x[:, 0] ** 2,
        "horizon": 1.0,
        "n_nodes": 2,
        "initial_states": 0.0,
        "n_controls": 1,
        "dynamics_jacobians": lambda t, x, a: (0 * x[:, :, np.newaxis], 1 + 0 * a[:, :, np.newaxis]),
        "running_gradients": lambda t, x, a: (0 * x, 4 * a * (a**2 - 1)),
        "terminal_gradient": lambda x: 2 * x,
    }
    mfld.ControlProblem(**given)
    with pytest.raises(error, match=message):
        mfld.ControlProblem(**{**given, **changed})


def test_states_that_blow_up_are_named_with_node_and_state():
    problem = mfld.ControlProblem(
        lambda t, x, a: x**3 + a,
        None,
        lambda x: x[:, 0],
        10.0,
        20,
        [[0.0], [2.0]],
        n_controls=1,
        dynamics_jacobians=lambda t, x, a: (3 * x[:, :, np.newaxis] ** 2, 1 + 0 * a[:, :, np.newaxis]),
        terminal_gradient=lambda x: 1 + 0 * x,
    )
    with pytest.raises(mfld.DivergenceError, match=r"path 1 blew up under node \d: after time") as caught:
        mfld.MFLD(5, step_size=0.1, temperature=0.1).run(problem, 5)
    error = caught.value
    assert isinstance(error, mfld.BlowUpError)
    assert error.path == 1
    assert error.time == pytest.approx(0.5 * error.node)
    assert np.isfinite(error.last_state).all()
    assert error.state.step == 0
    # Of several replicates it stays what it is, and says which.
    start = np.zeros((2, 20, 5, 1))
    start[1] = 3.0
    calm = problem.moved([0.0])
    with pytest.raises(mfld.BlowUpError, match=r"path 0 of replicate 1 blew up under node \d") as caught:
        mfld.MFLD(5, step_size=0.1, temperature=0.1, n_replicates=2).run(calm, 5, particles=start)
    assert caught.value.replicate == 1
    assert caught.value.state.n_replicates == 2

    def one_step(single):
        calm.loss(single.measure)
        return single, Info(steps=1)

    state = mfld.MFLD(5, temperature=0.1, n_replicates=2).init(calm, particles=start)
    with pytest.raises(mfld.BlowUpError, match=r"path 0 of replicate 1 blew up under node \d") as caught:
        advance_each(one_step, state, 3)
    assert (caught.value.replicate, caught.value.state.n_replicates) == (1, 2)
    bare = mfld.BlowUpError(*error.args)
    again = pickle.loads(pickle.dumps(bare))
    assert (again.node, again.path, str(again)) == (error.node, error.path, str(error))


# ---- receding horizon ------------------------------------------------------------------------------------------------


def test_receding_horizon_follows_the_optimal_feedback():
    # The plan looks far enough for the feedback of the stationary Riccati equation.
    problem = quadratic(12, horizon=3.0, scheme="midpoint")
    solver = mfld.MFLD(1, step_size=0.1, temperature=0.0, dtype="float64")
    course = RecedingHorizon(problem, solver, n_steps=20, n_first=150).run(START, n_rounds=6)
    stationary = linalg.solve_continuous_are(A, B, Q, R)
    closed = A - B @ linalg.solve(R, B.T @ stationary)
    expected = np.stack([linalg.expm(closed * t) @ START for t in course.times])
    assert np.abs(course.states - expected).max() < 0.04
    assert course.times[-1] == pytest.approx(1.5)
    assert len(course.controls) == len(course.costs) == 6

    def push(t, x, controls):
        after = problem.moved(x, t).simulate(np.repeat(controls, 12, axis=0), x[np.newaxis], 0.25)[-1, 0]
        return after + (1.0 if t == 0.5 else 0.0)

    # What the plant does beside the plan is answered.
    pushed = RecedingHorizon(problem, solver, n_steps=20, n_first=150, plant=push).run(START, n_rounds=6)
    np.testing.assert_allclose(pushed.states[3] - course.states[3], 1.0, atol=1e-12)
    follow = np.stack([linalg.expm(closed * t) @ pushed.states[3] for t in (0.25, 0.5, 0.75)])
    assert np.abs(pushed.states[4:] - follow).max() < 0.06


def test_warm_starts_are_worth_steps():
    problem = quadratic(8)
    solver = mfld.MFLD(20, step_size=0.1, temperature=1e-4)
    course = RecedingHorizon(problem, solver, n_steps=3, n_first=100, n_applied=2).run(START, 2)
    cold = solver.run(problem.moved(course.states[1]), 3)
    best = problem.moved(course.states[1])
    assert course.costs[1] < best.loss(best_means(best)) + 0.2 * (
        best.loss(cold.particles) - best.loss(best_means(best))
    )


# ---- against shooting ------------------------------------------------------------------------------------------------


def pendulum(n_nodes=30):
    """Swing-up of a pendulum with a torque too weak to lift it: theta = 0 is up."""
    return mfld.ControlProblem(
        lambda t, x, a: np.stack([x[:, 1], np.sin(x[:, 0]) + 0.7 * np.tanh(a[:, 0])], axis=1),
        lambda t, x, a: 0.02 * a[:, 0] ** 2 / 2,
        lambda x: 5 * (1 - np.cos(x[:, 0])) + x[:, 1] ** 2,
        7.0,
        n_nodes,
        [np.pi, 0.0],
        n_controls=1,
        scheme="rk4",
        dynamics_jacobians=lambda t, x, a: (
            np.stack([np.stack([0 * x[:, 0], 1 + 0 * x[:, 0]], 1), np.stack([np.cos(x[:, 0]), 0 * x[:, 0]], 1)], 1),
            np.stack([0 * a, 0.7 / np.cosh(a) ** 2], 1),
        ),
        running_gradients=lambda t, x, a: (0 * x, 0.02 * a),
        terminal_gradient=lambda x: np.stack([5 * np.sin(x[:, 0]), 2 * x[:, 1]], axis=1),
    )


def van_der_pol(n_nodes=20):
    """Stabilisation of the Van der Pol oscillator at its unstable rest."""

    def jacobians(t, x, a):
        of_x = np.zeros((len(x), 2, 2))
        of_x[:, 0, 1] = 1
        of_x[:, 1] = np.stack([-1 - 2 * x[:, 0] * x[:, 1], 1 - x[:, 0] ** 2], axis=1)
        return of_x, np.tile([[0.0], [1.0]], (len(x), 1, 1))

    return mfld.ControlProblem(
        lambda t, x, a: np.stack([x[:, 1], (1 - x[:, 0] ** 2) * x[:, 1] - x[:, 0] + a[:, 0]], axis=1),
        lambda t, x, a: np.sum(x**2, axis=1) / 2 + 0.05 * a[:, 0] ** 2,
        lambda x: np.sum(x**2, axis=1),
        5.0,
        n_nodes,
        [2.0, 0.0],
        n_controls=1,
        scheme="rk4",
        steps_per_node=2,
        dynamics_jacobians=jacobians,
        running_gradients=lambda t, x, a: (x, 0.1 * a),
        terminal_gradient=lambda x: 2 * x,
    )


def shooting(problem, start):
    """BFGS on one control a node, with the exact gradient."""
    part = problem.horizon / problem.n_nodes

    def both(a):
        particles = a.reshape(problem.n_nodes, 1, 1)
        return problem.value(particles), problem.gradient(particles).ravel() * part

    return optimize.minimize(both, start, jac=True, method="L-BFGS-B", options={"maxiter": 300}).fun


def cooled(problem, start, temperature=0.02, friction=0.3, n_steps=600):
    """Cost at the end of a run with velocities that is cooled by half twelve times, from controls of one start."""
    cooling = mfld.schedules.Geometric(temperature, factor=0.5, stage_length=n_steps // 12)
    solver = mfld.MFLD(16, temperature=cooling, dynamics=mfld.Underdamped(friction))
    particles = np.repeat(start.reshape(-1, 1, 1), 16, axis=1)
    result = solver.run(problem, n_steps, particles=particles, record_every=n_steps)
    return problem.value(result.measure), result


@pytest.mark.slow
@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_relaxed_controls_end_where_shooting_does_from_any_start(seed):
    # Costs that are convex in the control have no use for a measure that is not at a point, so that shooting is the
    # best that can be reached, up to the temperature that is left: its share is horizon * temperature / 2.
    draws = np.zeros(20) if seed is None else np.random.default_rng(seed).normal(size=20)
    for problem, most in ((van_der_pol(), 1e-3), (pendulum(20), 1e-2)):
        found, by_shooting = cooled(problem, draws)[0], shooting(problem, draws)
        assert found < (1 + most) * by_shooting


@pytest.mark.slow
def test_a_pendulum_at_rest_is_swung_up_where_shooting_stays():
    problem, rest = pendulum(20), np.zeros(20)
    assert shooting(problem, rest) > 9.9  # a stationary point: the gradient is 0 there
    value, result = cooled(problem, rest)
    assert value < 0.07
    up = problem.trajectory(result.measure).states[-1, 0]
    assert np.cos(up[0]) > 0.99
