"""Gradient estimators in the core: against the reference, exactly unbiased or recursive, and the same from any cut."""

import copy
import itertools
import signal
import time
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import mfld
from mfld import _core, noise, plain

EPS = {"float32": 2.0**-23, "float64": 2.0**-52}
SEED, FIRST_STEP = 11, 2**32 - 2  # the count of steps passes 32 bits on the way
STEP_SIZE, TEMPERATURE, L2, FRICTION = 0.05, 0.02, 0.1, 1.5

OVERDAMPED, BAOAB = mfld.Overdamped(), mfld.Underdamped(FRICTION)
both_dynamics = pytest.mark.parametrize("dynamics", [OVERDAMPED, BAOAB], ids=["overdamped", "baoab"])
ANCHORED = [mfld.SVRG(7, 3), mfld.SARAH(7, 3)]


class Problem(NamedTuple):
    readout: str = "linear"
    n_outputs: int = 3
    weights: bool = True
    activation: str = "tanh"
    n_particles: int = 33
    n_features: int = 5
    n: int = 40


@cache
def make_risk(problem):
    """The risk, the same as the reference, and particles to start from; all numbers are dyadic or of float32."""
    rng = np.random.default_rng([problem.n_particles, problem.n, problem.n_outputs])
    fields = {"readout_bound": 1.5, "output_scale": 2.0}
    network = plain.Network(problem.n_features, problem.n_outputs, problem.activation, problem.readout, **fields)
    model = mfld.TwoLayerNetwork(
        problem.n_features, problem.n_outputs, activation=problem.activation, readout=problem.readout, **fields
    )
    inputs = rng.normal(size=(problem.n, problem.n_features)).astype(np.float32).astype(np.float64) / 2
    targets = np.where(rng.normal(size=(problem.n, problem.n_outputs)) < 0, -1.0, 1.0)
    weights = None
    if problem.weights:
        weights = (1 + rng.multinomial(2**14 - problem.n, np.full(problem.n, 1 / problem.n))) / 2**14
    shaped = targets if problem.n_outputs > 1 else targets[:, 0]
    risk = mfld.EmpiricalRisk(model, inputs, shaped, loss="logistic", l2=L2, sample_weight=weights)
    known = plain.Risk(network, inputs, targets, "logistic", None, L2, weights)
    start = rng.normal(size=(problem.n_particles, network.n_coordinates)).astype(np.float32).astype(np.float64)
    start[:, network.n_moving :] = np.where(start[:, network.n_moving :] < 0, -1, 1)
    return risk, known, start


def make_solver(gradient, dynamics=OVERDAMPED, **arguments):
    settings = {"step_size": STEP_SIZE, "temperature": TEMPERATURE, **arguments}
    return mfld.MFLD(gradient=gradient, dynamics=dynamics, **settings)


def state_at(particles, step, seed=SEED):
    return mfld.State({"mu": mfld.Cloud(particles[np.newaxis])}, step=step, seed=seed)


def reference_steps(known, start, gradient, dynamics, n_steps, dtype):
    """The formulas, step by step: particles, velocities and the last estimate."""
    estimators = {
        mfld.FullBatch: plain.Estimator,
        mfld.Minibatch: lambda: plain.Estimator(gradient.batch_size),
        mfld.SVRG: lambda: plain.Estimator(gradient.batch_size, "svrg", gradient.refresh_every),
        mfld.SARAH: lambda: plain.Estimator(gradient.batch_size, "sarah", gradient.refresh_every),
    }
    estimator = estimators[type(gradient)]()
    key, n_moving, shape = noise.key(SEED), known.network.n_moving, start.shape

    def full(x, estimate):
        return estimate + known.ridge_gradient(x)

    x, v = start, np.zeros(shape)
    v[:, :n_moving] = np.sqrt(TEMPERATURE) * plain.normals(key, 1, len(x), n_moving, dtype, stream=0)
    kinetic = dynamics is not OVERDAMPED
    force = estimator(known, x, key, FIRST_STEP) if kinetic else None
    for step in range(FIRST_STEP, FIRST_STEP + n_steps):
        xi = plain.normals(key, step, len(x), n_moving, dtype)
        sizes = {"n_moving": n_moving, "step_size": STEP_SIZE}
        if kinetic:
            x, v = plain.baoab_open(x, v, full(x, force), xi, temperature=TEMPERATURE, friction=FRICTION, **sizes)
            force = estimator(known, x, key, step + 1)
            v = plain.baoab_close(v, full(x, force), **sizes)
        else:
            force = estimator(known, x, key, step)
            x = plain.euler_maruyama(x, full(x, force), xi, temperature=TEMPERATURE, **sizes)
    return x, v, force


def assert_as_reference(problem, gradient, dynamics, dtype, n_steps=5):
    risk, known, start = make_risk(problem)
    solver = make_solver(gradient, dynamics, dtype=dtype, n_particles=problem.n_particles)
    state, _ = solver.advance(risk, state_at(start.astype(dtype), FIRST_STEP), n_steps)
    x, v, force = reference_steps(known, start, gradient, dynamics, n_steps, dtype.name)
    # As in test_kernels: a few roundings of numbers of size 1 a step. An estimate is rounded by its own size, which
    # n / B makes large, and comes into the particle times the step size.
    size = 10 * EPS[dtype.name] * (1 + np.abs(x).max())
    assert_allclose(state.particles, x, rtol=0, atol=size, err_msg=f"{problem} {gradient}")
    if dynamics is BAOAB:
        assert_allclose(state.buffers["velocities"][0], v, rtol=0, atol=size)
        # Its error is that of the particles, times a slope of 10 at most, n / B and what is summed.
        scale = 200 * EPS[dtype.name] * (1 + np.abs(force).max())
        assert_allclose(state.buffers["force"][0], force, rtol=0, atol=scale)
    frozen = slice(known.network.n_moving, None)
    assert_array_equal(state.particles[:, frozen], start[:, frozen])


# ---- steps of every kind ---------------------------------------------------------------------------------------------


@both_dynamics
@pytest.mark.parametrize("readout", plain.READOUTS)
@pytest.mark.parametrize("gradient", [mfld.FullBatch(), mfld.Minibatch(7), *ANCHORED], ids=repr)
def test_steps_of_every_readout(readout, gradient, dynamics, dtype):
    for n_outputs, weights in itertools.product((1,) if readout == "fixed" else (1, 3), (False, True)):
        assert_as_reference(Problem(readout, n_outputs, weights), gradient, dynamics, dtype)


@both_dynamics
@pytest.mark.parametrize("activation", ["relu", "gelu"])  # without and with slopes that are stored
def test_steps_on_every_level(level, activation, dynamics, dtype):
    for gradient in ANCHORED:
        assert_as_reference(Problem(activation=activation), gradient, dynamics, dtype)


# One particle, feature, sample; more rows than a block has; a batch of all rows; a refresh at every step.
@both_dynamics
@pytest.mark.parametrize("kind", [mfld.SVRG, mfld.SARAH])
def test_steps_of_awkward_sizes(kind, dynamics, dtype):
    for sizes, batch_size, refresh_every in [
        ((1, 1, 1), 1, 3),
        ((7, 65, 13), 13, 2),
        ((1001, 5, 500), 300, 4),
        ((33, 5, 40), 3, 1),
    ]:
        n_particles, n_features, n = sizes
        problem = Problem(n_particles=n_particles, n_features=n_features, n=n, n_outputs=1)
        assert_as_reference(problem, kind(batch_size, refresh_every), dynamics, dtype)


@both_dynamics
@pytest.mark.parametrize("gradient", [mfld.FullBatch(), mfld.Minibatch(7), *ANCHORED], ids=repr)
def test_an_objective_in_python_makes_the_same_steps(gradient, dynamics, dtype):
    risk, _, start = make_risk(Problem())

    twin = copy.copy(risk)
    twin.native = lambda dtype: None  # the same stages, called one by one
    solver = make_solver(gradient, dynamics, dtype=dtype, n_particles=len(start))
    native, python = (solver.run(objective, 7, SEED, particles=start) for objective in (risk, twin))
    scale = 20 * EPS[dtype.name] * (1 + np.abs(native.particles).max())
    assert_allclose(python.particles, native.particles, rtol=0, atol=scale)
    for name in set(native.state.buffers) & set(python.state.buffers):
        a, b = native.state.buffers[name], python.state.buffers[name]
        assert_allclose(a, b, rtol=0, atol=200 * EPS[dtype.name] * (1 + np.abs(a).max()))
    assert set(python.state.buffers) == set(native.state.buffers) - {"anchor_predictions"}
    assert_allclose(python.history["gradient_norm"], native.history["gradient_norm"], rtol=1000 * EPS[dtype.name])
    if isinstance(gradient, mfld.FullBatch):  # else the core's loss is that of the rows of the step
        assert_allclose(python.history["loss"], native.history["loss"], rtol=100 * EPS[dtype.name])


def test_loss_and_gradient_norm_are_those_of_the_last_gradient(dtype):
    risk, known, start = make_risk(Problem())
    for gradient, dynamics in itertools.product([mfld.Minibatch(7), *ANCHORED], [OVERDAMPED, BAOAB]):
        solver = make_solver(gradient, dynamics, dtype=dtype, n_particles=len(start))
        for n_steps in (1, 2, 4):
            state, info = solver.advance(risk, state_at(start.astype(dtype), 0), n_steps)
            seen, at = state, n_steps
            if dynamics is OVERDAMPED:
                at = n_steps - 1
                seen, _ = solver.advance(risk, state_at(start.astype(dtype), 0), at)
            rows = np.arange(risk.n_samples)
            if isinstance(gradient, mfld.Minibatch) or at % gradient.refresh_every:
                rows = noise.minibatch(SEED, at, risk.n_samples, 7)
            u = known.network.predict(seen.particles, known.inputs[rows])
            losses = plain.LOSSES["logistic"].value(u, known.targets[rows], 0.0)
            loss = risk.n_samples / len(rows) * known.weights[rows] @ losses
            assert info.loss == pytest.approx(loss, rel=100 * EPS[dtype.name])
            if dynamics is BAOAB:
                b = state.buffers["force"][0] + 2 * L2 * state.particles
                assert info.gradient_norm == pytest.approx(np.sqrt(np.mean(np.sum(b**2, axis=1))), rel=1e-5)


# ---- means over all batches ------------------------------------------------------------------------------------------


def native_estimates(risk, state, gradient, n, batch_size):
    """What a native step takes for the gradient, for every batch there is: seeds are tried until all have come.

    With step size 1, no ridge and no noise a step subtracts the estimate.
    """
    wanted = {frozenset(rows) for rows in itertools.combinations(range(n), batch_size)}
    solver = mfld.MFLD(
        len(state.particles),
        step_size=1.0,
        temperature=0.0,
        l2=0.0,
        gradient=gradient,
        dtype=state.particles.dtype,
    )
    estimates = {}
    for seed in range(10_000):
        rows = frozenset(noise.minibatch(seed, state.step, n, batch_size).tolist())
        if rows not in estimates:
            after, _ = solver.advance(risk, replace(state, seed=seed))
            estimates[rows] = state.particles.astype(np.float64) - after.particles
        if len(estimates) == len(wanted):
            return np.array(list(estimates.values()))
    raise AssertionError("not all batches came")


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 4])
@pytest.mark.parametrize("kind", [mfld.Minibatch, mfld.SVRG, mfld.SARAH])
def test_mean_over_all_batches(kind, batch_size, n_outputs, level, dtype):
    n = 6
    risk, known, start = make_risk(Problem(n=n, n_particles=20, n_outputs=n_outputs))

    def data_gradient(particles):
        x = particles.astype(np.float64)
        return known.gradient(x) - known.ridge_gradient(x)

    gradient = kind(batch_size) if kind is mfld.Minibatch else kind(batch_size, 5)
    solver = make_solver(gradient, dtype=dtype, n_particles=20, step_size=0.3)
    # Three steps after the refresh the anchor is far away, and SARAH's own estimate is off.
    state, _ = solver.advance(risk, state_at(start.astype(dtype), 5), 3)
    expected = data_gradient(state.particles)
    if kind is mfld.SARAH:
        previous, estimate = (state.buffers[name][0] for name in ("previous", "previous_estimate"))
        assert np.abs(estimate - data_gradient(previous)).max() > 0.01 * np.abs(estimate).max()
        expected = expected - data_gradient(previous) + estimate
    estimates = native_estimates(risk, state, gradient, n, batch_size)
    # The step is rounded like the particle, each estimate by its own size.
    scale = EPS[dtype.name] * (np.abs(estimates).max() + np.abs(state.particles).max())
    assert_allclose(estimates.mean(axis=0), expected, rtol=0, atol=4 * scale)
    assert estimates.std(axis=0).max() > 0.005  # the batches really differ


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("readout", ["linear", "signs", "parity"])
def test_svrg_is_exact_at_its_anchor(readout, n_outputs, level, dtype):
    risk, _, start = make_risk(Problem(readout, n_outputs))
    solver = mfld.MFLD(len(start), step_size=0.1, temperature=0.0, l2=0.0, gradient=mfld.SVRG(5, 10), dtype=dtype)
    refreshed, _ = solver.advance(risk, state_at(start.astype(dtype), 10))
    # Back to the anchor, at a step that draws a batch: both terms of the batch are one number, and cancel.
    back = mfld.State({"mu": mfld.Cloud(refreshed.buffers["anchor"])}, 13, SEED, refreshed.buffers)
    assert_array_equal(back.particles, start.astype(dtype))
    assert_array_equal(solver.advance(risk, back)[0].particles, refreshed.particles)


def test_svrg_has_no_noise_where_the_loss_is_quadratic_and_neurons_are_linear():
    # grad l_i(X) - grad l_i(A) = (f_X(z) - f_A(z)) z with one and the same z: no batch differs from another.
    rng = np.random.default_rng(0)
    model = mfld.TwoLayerNetwork(1, activation="identity", readout="fixed")
    risk = mfld.EmpiricalRisk(model, np.ones((50, 1)), rng.normal(size=50), loss="half_squared", l2=0.1)
    full, reduced, plain = (
        make_solver(gradient, n_particles=20, dtype="float64").run(risk, 50, seed=1).particles
        for gradient in (mfld.FullBatch(), mfld.SVRG(3, 20), mfld.Minibatch(3))
    )
    assert_allclose(reduced, full, rtol=0, atol=1e-13)  # 50 steps of a contraction
    assert np.abs(plain - full).max() > 0.01


# ---- a batch for each particle ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "step", "population"), [(0, 0, 0), (1, 2**32 + 3, 7), (2**64 - 1, 2**48 - 1, 65535)])
def test_rows_of_each_particle(seed, step, population, level):
    key = plain.noise_key(seed)
    for n, batch_size, n_particles in [(1, 1, 1), (10, 10, 3), (1000, 7, 40), (2**40, 33, 5)]:
        got = _core.backend.particle_batches(key, step, n, batch_size, n_particles, population, 2)
        assert_array_equal(got, plain.particle_minibatches(key, step, n, batch_size, n_particles, population))


def test_rows_of_each_particle_are_uniform_and_independent():
    n, batch_size, count = 10, 4, 100_000
    rows = _core.backend.particle_batches(noise.key(3), 0, n, batch_size, count)
    chosen = np.zeros((count, n))
    chosen[np.arange(count)[:, np.newaxis], rows] = 1
    assert (chosen.sum(axis=1) == batch_size).all()
    p, q = batch_size / n, batch_size * (batch_size - 1) / (n * (n - 1))  # of a row, of two rows
    pairs = chosen.T @ chosen / count
    expected = np.where(np.eye(n, dtype=bool), p, q)
    assert (np.abs(pairs - expected) < 5 * np.sqrt(expected * (1 - expected) / count)).all()
    neighbours = chosen[:-1].T @ chosen[1:] / (count - 1)
    assert (np.abs(neighbours - p * p) < 5 * p / np.sqrt(count)).all()


@pytest.mark.parametrize("readout", plain.READOUTS)
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_gradient_by_particle(readout, n_outputs, level, dtype):
    if readout == "fixed":
        n_outputs = 1
    for activation, bias in itertools.product(("tanh", "gelu"), (True, False)):
        rng = np.random.default_rng(1)
        n, n_particles = 12, 70
        fields = {"activation": activation, "readout": readout, "bias": bias}
        risk = mfld.EmpiricalRisk(
            mfld.TwoLayerNetwork(3, n_outputs, **fields),
            rng.normal(size=(n, 3)),
            rng.normal(size=(n, n_outputs))[:, 0] if n_outputs == 1 else rng.normal(size=(n, n_outputs)),
            loss="squared",
            sample_weight=rng.uniform(1, 2, size=n),
        )
        known = plain.Risk(
            plain.Network(3, n_outputs, activation, readout, bias),
            risk.inputs,
            risk.targets,
            "squared",
            None,
            0.0,
            risk.sample_weight,
        )
        particles = risk.model.initial_particles(n_particles, dtype=dtype)
        rows = noise_rows = _core.backend.particle_batches(noise.key(2), 0, n, 5, n_particles)
        got = risk.loss_gradient_by_particle(particles, rows)
        inputs, cotangent = known.cotangent(particles.astype(np.float64))
        expected = np.stack(
            [
                known.network.pull_back(particle[np.newaxis], inputs[own], n / 5 * cotangent[own])[1][0]
                for particle, own in zip(particles.astype(np.float64), noise_rows, strict=True)
            ]
        )
        assert_allclose(got, expected, rtol=0, atol=20 * EPS[dtype.name] * (1 + np.abs(expected).max()))
        # All rows in any order are the full gradient, and the mean over all batches is it too.
        every = np.array([rng.permutation(n) for _ in range(n_particles)])
        full = risk.loss_gradient(particles)
        bound = 20 * EPS[dtype.name] * (1 + np.abs(full).max())
        assert_allclose(risk.loss_gradient_by_particle(particles, every), full, rtol=0, atol=bound)


def test_mean_over_all_batches_of_a_particle(dtype):
    risk, _, start = make_risk(Problem(n=6, n_particles=20))
    particles = start.astype(dtype)
    combinations = np.array(list(itertools.combinations(range(6), 2)))
    estimates = np.stack(
        [
            # Particle m takes batch k + m: all see all, but never the same at once.
            risk.loss_gradient_by_particle(particles, np.roll(combinations, -k, axis=0)[np.arange(20) % 15])
            for k in range(15)
        ]
    ).astype(np.float64)
    bound = 4 * EPS[dtype.name] * np.abs(estimates).max()
    assert_allclose(estimates.mean(axis=0), risk.loss_gradient(particles), rtol=0, atol=bound)


def test_per_particle_batches_do_not_depend_on_threads(dtype):
    risk, _, start = make_risk(Problem(n_particles=1001, n=500))
    net, particles = risk.model.native, start.astype(dtype)
    cotangent = np.ones((500, 3), dtype)

    def run(num_threads):
        rows = _core.backend.particle_batches(5, 1, 500, 30, 1001, 0, num_threads)
        gradient = _core.backend.pull_back_rows(net, particles, risk.inputs.astype(dtype), cotangent, rows, num_threads)
        return rows.tobytes(), gradient.tobytes()

    assert all(run(num_threads) == run(1) for num_threads in (2, 3, 7))


def test_per_particle_batches_are_refused_where_nobody_knows_them():
    well = mfld.Potential(lambda x: x, n_coordinates=1)
    solver = make_solver(mfld.PerParticleMinibatch(4), n_particles=5)
    with pytest.raises(ValueError, match="no samples"):
        solver.init(well)
    risk, _, _ = make_risk(Problem())
    with pytest.raises(ValueError, match="batch_size must be at most the number of samples, 40, got 41"):
        make_solver(mfld.PerParticleMinibatch(41), n_particles=5).init(risk)

    class Samples(mfld.Objective):
        space, n_samples = mfld.Space(1), 10
        loss = loss_gradient = first_variation = None

    with pytest.raises(ValueError, match="gradient must be one of FullBatch, Minibatch, SVRG, SARAH"):
        solver.init(Samples())
    with pytest.raises(NotImplementedError, match="Samples does not define"):
        Samples().loss_gradient_by_particle(np.zeros((1, 1)), np.zeros((1, 1), int))
    for rows in (np.zeros((3, 2), int), np.zeros((33, 2)), np.zeros(33, int)):
        with pytest.raises(ValueError, match="rows must be integers of shape"):
            risk.loss_gradient_by_particle(np.zeros((33, 9)), rows)
    with pytest.raises(ValueError, match="rows must be between 0 and 39, got 40"):
        risk.loss_gradient_by_particle(np.zeros((33, 9)), np.full((33, 1), 40))


# ---- what must not change a bit --------------------------------------------------------------------------------------


def same(one, two):
    return (
        one.step == two.step
        and one.particles.tobytes() == two.particles.tobytes()
        and one.buffers.keys() == two.buffers.keys()
        and all(one.buffers[name].tobytes() == two.buffers[name].tobytes() for name in one.buffers)
    )


@both_dynamics
@pytest.mark.parametrize("kind", [mfld.Minibatch, mfld.SVRG, mfld.SARAH])
def test_restart_is_continue_at_every_offset_from_a_refresh(kind, dynamics, dtype, level):
    risk, _, _ = make_risk(Problem(n_particles=100, n=60))
    gradient = kind(9) if kind is mfld.Minibatch else kind(9, 4)
    solver = make_solver(gradient, dynamics, n_particles=100, dtype=dtype)
    start = solver.init(risk, seed=3)
    whole, info = solver.advance(risk, start, 10)
    for cut in range(1, 10):
        middle, _ = solver.advance(risk, start, cut)
        state, last = solver.advance(risk, middle, 10 - cut)
        assert same(state, whole)
        assert last.gradient_norm == info.gradient_norm
        assert last.loss == info.loss
    state = start
    for _ in range(10):
        state, _ = solver.advance(risk, state)
    assert same(state, whole)


@both_dynamics
@pytest.mark.parametrize("gradient", [mfld.FullBatch(), mfld.Minibatch(150), mfld.SVRG(150, 3), mfld.SARAH(150, 3)])
def test_threads_do_not_change_a_bit(gradient, dynamics, level, dtype):
    for n_outputs, activation in [(1, "gelu"), (3, "relu")]:
        risk, _, _ = make_risk(Problem(n_outputs=n_outputs, activation=activation, n_particles=1001, n=700))
        runs = []
        for num_threads in (1, 2, 3, 7):
            solver = make_solver(gradient, dynamics, n_particles=1001, dtype=dtype, num_threads=num_threads)
            runs.append(solver.advance(risk, solver.init(risk, seed=1), 5))
        assert all(same(state, runs[0][0]) for state, _ in runs)
        assert all(info == runs[0][1] for _, info in runs)


@both_dynamics
@pytest.mark.parametrize("gradient", [mfld.FullBatch(), mfld.Minibatch(20), mfld.SVRG(20, 4), mfld.SARAH(20, 4)])
def test_divergence_leads_back_to_the_last_good_state(gradient, dynamics, dtype):
    rng = np.random.default_rng(0)
    model = mfld.TwoLayerNetwork(5, activation="identity")  # with its readout a cubic gradient: doubly exponential
    risk = mfld.EmpiricalRisk(model, rng.normal(size=(50, 5)), rng.normal(size=50), loss="squared")
    solver = make_solver(gradient, dynamics, n_particles=70, dtype=dtype, step_size=2.0)
    start = solver.init(risk, seed=2)
    with pytest.raises(mfld.DivergenceError) as caught:
        solver.advance(risk, start, 1000)
    good = caught.value.state
    assert 2 <= good.step < 50
    assert np.isfinite(good.particles).all()
    assert all(np.isfinite(buffer).all() for buffer in good.buffers.values())
    assert same(good, solver.advance(risk, start, good.step)[0])
    with pytest.raises(mfld.DivergenceError) as again:
        solver.advance(risk, good, 1)
    assert again.value.particle == caught.value.particle
    assert same(again.value.state, good)


class Interruption(KeyboardInterrupt):
    pass


@both_dynamics
@pytest.mark.parametrize("gradient", [mfld.FullBatch(), mfld.Minibatch(1000), mfld.SVRG(1000, 3), mfld.SARAH(1000, 3)])
def test_an_interrupted_run_goes_on_as_if_nothing_had_been(gradient, dynamics):
    rng = np.random.default_rng(0)
    model = mfld.TwoLayerNetwork(20)
    risk = mfld.EmpiricalRisk(model, rng.normal(size=(10_000, 20)), rng.normal(size=10_000), loss="squared")
    solver = make_solver(gradient, dynamics, n_particles=500, num_threads=2)
    start = solver.init(risk, seed=4)
    n_steps = {mfld.FullBatch: 100, mfld.Minibatch: 300}.get(type(gradient), 80)

    def interrupt(*_):
        raise Interruption

    previous = signal.signal(signal.SIGALRM, interrupt)
    interruptions, state = 0, start
    delays = itertools.cycle([0.06, 0.11, 0.08, 0.17])  # beyond 50 ms, and never in step with the refreshes
    try:
        while state.step < n_steps and interruptions < 20:
            signal.setitimer(signal.ITIMER_REAL, next(delays))
            began = time.monotonic()
            try:
                state, _ = solver.advance(risk, state, n_steps - state.step)
            except Interruption as error:
                interruptions += 1
                assert time.monotonic() - began < 5
                state = getattr(error, "state", state)  # none if it struck outside of the core
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, previous)
    if state.step < n_steps:  # a slow machine: the rest in peace
        state, _ = solver.advance(risk, state, n_steps - state.step)
    assert interruptions
    assert same(state, solver.advance(risk, start, n_steps)[0])


# ---- the core's own checks -------------------------------------------------------------------------------------------


def test_the_core_checks_buffers():
    risk, _, start = make_risk(Problem())

    def advance(estimator, dynamics=None, keys=(0,)):
        _core.backend.advance(
            risk.model.native,
            risk.loss_function.native,
            start[np.newaxis].copy(),
            risk.inputs,
            risk.targets,
            None,
            estimator,
            dynamics or _core.Dynamics("affine"),
            [np.ones((1, 1))] * (4 if dynamics else 3),
            1,
            keys,
            0,
        )

    good, predictions = np.zeros((1, *start.shape)), np.zeros((1, 40, 3))
    for estimator, message in [
        (_core.Estimator("full_batch", 3), "batch_size"),
        (_core.Estimator("minibatch", 0), "batch_size"),
        (_core.Estimator("minibatch", 41), "batch_size"),
        (_core.Estimator("svrg", 5, 0, good, good, predictions), "refresh_every"),
        (_core.Estimator("svrg", 5, 2, None, good, predictions), "anchor is needed"),
        (_core.Estimator("svrg", 5, 2, good[1:], good, predictions), "anchor must have shape"),
        (_core.Estimator("svrg", 5, 2, good, good, predictions[1:]), "anchor_predictions must have shape"),
        (_core.Estimator("sarah", 5, 2, good, None), "anchor_gradient is needed"),
    ]:
        with pytest.raises(ValueError, match=message):
            advance(estimator)
    with pytest.raises(ValueError, match="keys must have length 1, the number of replicates, got 2"):
        advance(_core.Estimator("full_batch"), keys=(0, 1))
    with pytest.raises(TypeError, match="anchor must be float64, got float32"):
        advance(_core.Estimator("sarah", 5, 2, good.astype(np.float32), good))
    with pytest.raises(ValueError, match="kind of an estimator must be one of full_batch, minibatch, svrg, sarah"):
        _core.Estimator("saga")
    with pytest.raises(ValueError, match="kind of a dynamics must be one of affine, baoab"):
        _core.Dynamics("obabo")
    with pytest.raises(ValueError, match="velocities is needed"):
        advance(_core.Estimator("full_batch"), _core.Dynamics("baoab"))
    frozen = good.copy()
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="writ"):
        advance(_core.Estimator("full_batch"), _core.Dynamics("baoab", frozen, good))


class _ByHand(mfld.Dynamics):
    """The same steps, one by one in Python."""

    def __init__(self, dynamics):
        self.dynamics, self.buffer_names = dynamics, dynamics.buffer_names

    def start(self, particles, step):
        return self.dynamics.start(particles, step)

    def move(self, particles, buffers, drift, step):
        return self.dynamics.move(particles, buffers, drift, step)


@pytest.mark.parametrize(
    "gradient",
    [mfld.FullBatch(), mfld.Minibatch(10), mfld.PerParticleMinibatch(10), mfld.SVRG(10, 4), mfld.SARAH(10, 4)],
    ids=lambda estimator: type(estimator).__name__,
)
@pytest.mark.parametrize("dynamics", [mfld.Overdamped(), mfld.Underdamped(1.0)], ids=["overdamped", "BAOAB"])
def test_the_loss_of_a_step_means_the_same_in_python_and_in_the_core(gradient, dynamics, rng):
    inputs = rng.normal(size=(60, 2))
    model = mfld.TwoLayerNetwork(2)
    weights = rng.uniform(0.5, 2, 60)
    risk = mfld.EmpiricalRisk(model, inputs, inputs[:, 0], loss="squared", l2=1e-3, sample_weight=weights)
    seen = []
    for moves, rows in ((dynamics, gradient), (_ByHand(dynamics), gradient), (dynamics, mfld.Smoothed(0.0, gradient))):
        solver = mfld.MFLD(9, step_size=0.1, temperature=1e-3, gradient=rows, dynamics=moves, dtype="float64")
        seen.append(solver.run(risk, 9, record_every=1).history["loss"])
    assert_allclose(seen[1], seen[0], rtol=1e-10)
    assert_allclose(seen[2], seen[0], rtol=1e-10)
