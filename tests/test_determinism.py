"""What must not change a result: threads, where a run is cut, the number and order of particles, unused data."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import mfld
from mfld import _core, noise

EPS = {"float32": 2.0**-23, "float64": 2.0**-52}


def make_risk(n_outputs=1, n=1797, n_features=17, weights=True, **model):
    """Large enough for many leaves of particles, several blocks of samples, and as many threads as are asked for."""
    rng = np.random.default_rng(6)
    inputs = rng.normal(size=(n, n_features)) / np.sqrt(n_features)
    targets = np.sin(3 * inputs @ rng.normal(size=(n_features, n_outputs)))
    return mfld.EmpiricalRisk(
        mfld.TwoLayerNetwork(n_features, n_outputs, **model),
        inputs,
        targets if n_outputs > 1 else targets[:, 0],
        loss="squared",
        l2=0.01,
        sample_weight=rng.uniform(0.5, 2, size=n) if weights else None,
    )


def make_solver(n_particles=1001, **arguments):
    return mfld.MFLD(n_particles, **{"step_size": 0.2, "temperature": 1e-3, **arguments})


# ---- threads ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("gradient", [mfld.FullBatch(), mfld.Minibatch(150)], ids=repr)
def test_threads_do_not_change_a_bit_of_a_run(level, dtype, n_outputs, gradient):
    # gelu stores slopes beside values, relu does not.
    for activation in ("gelu", "relu"):
        risk = make_risk(n_outputs, activation=activation)
        runs = []
        for num_threads in (1, 2, 3, 7):
            solver = make_solver(gradient=gradient, dtype=dtype, num_threads=num_threads)
            state, info = solver.advance(risk, solver.init(risk, seed=1), n_steps=3)
            runs.append((state.particles.tobytes(), info))
        assert runs.count(runs[0]) == len(runs)


def test_threads_do_not_change_a_bit_of_a_stage(level, dtype, rng):
    risk = make_risk(3)
    net, theta = risk.model.native, risk.model.initial_particles(1001, dtype=dtype)
    inputs, cotangent = risk.inputs.astype(dtype), rng.normal(size=(1797, 3)).astype(dtype)
    coefficients = rng.normal(size=1001).astype(dtype)

    def stages(num_threads):
        moved = theta.copy()
        _core.backend.affine(moved, theta, risk.n_moving, (0.1, 0.1, 0.1), 5, 0, 0, num_threads)
        return [
            array.tobytes()
            for array in (
                _core.backend.neurons(net, theta, inputs[:50], num_threads),
                _core.backend.predict(net, theta, coefficients, inputs, num_threads),
                _core.backend.predict(net, theta, None, inputs, num_threads),
                *_core.backend.pull_back(net, theta, inputs, cotangent, num_threads),
                _core.backend.normals(5, 0, 1001, 40, dtype, 1, 0, num_threads),
                moved,
            )
        ]

    alone = stages(1)
    assert all(stages(num_threads) == alone for num_threads in (2, 3, 7))


@pytest.mark.parametrize("n_features", [3, 200])  # a strip of features, and two of them
def test_threads_and_company_do_not_change_a_bit_of_a_neuron(level, dtype, rng, n_features):
    model = mfld.TwoLayerNetwork(n_features, n_outputs=2)
    theta, inputs = model.initial_particles(300, dtype=dtype), rng.normal(size=(101, n_features)).astype(dtype)
    alone = model.neurons(theta, inputs, num_threads=1)
    for num_threads in (2, 3):
        assert model.neurons(theta, inputs, num_threads=num_threads).tobytes() == alone.tobytes()
    for particles, rows in [(slice(1), slice(1)), (slice(95, 98), slice(15, 18)), (slice(7, None), slice(100, None))]:
        part = model.neurons(theta[particles], inputs[rows])
        assert part.tobytes() == alone[rows, particles].tobytes()


def test_the_tree_over_particles_has_one_shape(level, rng):
    # From one leaf to many, powers of two of them and not, shared by as many threads as leaves or fewer.
    net = mfld.TwoLayerNetwork(60).native
    inputs = rng.normal(size=(300, 60)).astype("float32")
    for n_particles in (30, 65, 97, 130, 200, 300, 389, 500, 700):
        theta = rng.normal(size=(n_particles, 62)).astype("float32")
        predictions = [_core.backend.predict(net, theta, None, inputs, num_threads) for num_threads in (1, 2, 3, 5, 8)]
        assert len({array.tobytes() for array in predictions}) == 1


def test_repetition_does_not_change_a_bit(dtype):
    # Scratch memory of earlier calls, of another size too, must not leak into a result.
    risk, solver = make_risk(3, n=300), make_solver(300, dtype=dtype, gradient=mfld.Minibatch(33))
    first = solver.run(risk, 5, seed=2).particles.tobytes()
    make_solver(500, dtype=dtype).run(make_risk(1, n=77), 2)
    assert solver.run(risk, 5, seed=2).particles.tobytes() == first


# ---- the cutting of a run --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gradient", [mfld.FullBatch(), mfld.Minibatch(40)], ids=repr)
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_k_steps_and_k_steps_are_2k_steps(level, dtype, gradient, n_outputs):
    risk = make_risk(n_outputs, n=400)
    solver = make_solver(gradient=gradient, dtype=dtype)
    start = solver.init(risk, seed=3)
    whole, info = solver.advance(risk, start, 12)
    for parts in ([6, 6], [1] * 12, [5, 7]):
        state = start
        for part in parts:
            state, last = solver.advance(risk, state, part)
        assert state.step == whole.step == 12
        assert state.particles.tobytes() == whole.particles.tobytes()
        assert (last.loss, last.gradient_norm) == (info.loss, info.gradient_norm)


# ---- the number and the order of particles ---------------------------------------------------------------------------


@pytest.mark.parametrize("n_features", [1, 6, 17])
def test_particles_that_do_not_interact_do_not_know_how_many_they_are(level, dtype, n_features):
    potential = mfld.Potential(
        lambda x: x - 3 * x / (1 + x * x), n_coordinates=n_features, l2=0.1
    )  # bounded, two wells
    many = make_solver(500, dtype=dtype, temperature=0.1).run(potential, 20, seed=4).particles
    for n in (1, 37, 250):
        few = make_solver(n, dtype=dtype, temperature=0.1).run(potential, 20, seed=4).particles
        assert few.tobytes() == many[:n].tobytes()


# Shares 1/N are exact for powers of two, but sums over particles get another shape: rounding, passed on by a few steps.
# The particles have size 1 and move by 0.1 a step.
ROUNDING = 10


@pytest.mark.parametrize("copies", ["behind", "beside"])
@pytest.mark.parametrize("readout", ["linear", "signs", "bounded", "parity"])
def test_duplicated_particles_move_as_their_originals(level, dtype, copies, readout):
    risk = make_risk(3, n=200, readout=readout)
    start = risk.model.initial_particles(150, 5, dtype=dtype)
    index = np.tile(np.arange(150), 2) if copies == "behind" else np.repeat(np.arange(150), 2)
    for gradient in (mfld.FullBatch(), mfld.Minibatch(20)):
        one, two = (
            make_solver(len(particles), dtype=dtype, temperature=0.0, gradient=gradient).run(
                risk, 15, seed=6, particles=particles, record_every=()
            )
            for particles in (start, start[index])
        )
        assert np.abs(one.particles - start).max() > 0.1  # a factor 2 in the gradient would not hide in the tolerance
        assert_allclose(two.particles, one.particles[index], rtol=0, atol=ROUNDING * EPS[dtype.name])
        # Equal particles stay equal to the last bit, wherever they stand.
        first, second = (two.particles[np.flatnonzero(np.arange(300) % 2 == k)] for k in (0, 1))
        if copies == "behind":
            first, second = two.particles[:150], two.particles[150:]
        assert_array_equal(first, second)


def test_permuted_particles_move_as_before(level, dtype, rng):
    risk = make_risk(3, n=200, readout="signs")
    start = risk.model.initial_particles(333, 5, dtype=dtype)
    order = rng.permutation(333)
    solver = make_solver(333, dtype=dtype, temperature=0.0)
    one, two = (
        solver.run(risk, 15, particles=particles, record_every=()).particles for particles in (start, start[order])
    )
    assert_allclose(two, one[order], rtol=0, atol=ROUNDING * EPS[dtype.name])


# ---- mini-batches ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [False, True], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("batch_size", [1, 2, 4, 7])
def test_the_mean_over_all_batches_is_the_gradient(level, dtype, batch_size, weights):
    risk = make_risk(3, n=7, weights=weights)
    particles = risk.model.initial_particles(20, 7, dtype=dtype)
    batches = list(itertools.combinations(range(7), batch_size))
    estimates = np.array([risk.gradient(particles, batch=np.array(rows)) for rows in batches], np.float64)
    full = risk.gradient(particles).astype(np.float64)
    # Each estimate is rounded relative to its own size, which grows as batches shrink.
    assert_allclose(estimates.mean(axis=0), full, rtol=0, atol=4 * EPS[dtype.name] * np.abs(estimates).max())
    if batch_size < 7:
        assert estimates.std(axis=0).max() > 0.1 * np.abs(full).max()  # the batches really differ


@pytest.mark.parametrize("weights", [False, True], ids=["unweighted", "weighted"])
def test_a_step_uses_the_rows_of_its_place_in_the_noise(level, dtype, weights):
    n, batch_size, seed, step = 50, 6, 2**40 + 1, 2**32 + 9
    risk = make_risk(n=n, weights=weights)
    theta = risk.model.initial_particles(60, 8, dtype=dtype)
    solver = make_solver(60, dtype=dtype, temperature=0.0, gradient=mfld.Minibatch(batch_size))
    state = mfld.State({"mu": mfld.Cloud(theta[np.newaxis])}, step=step, seed=seed)
    for k in range(3):
        rows = noise.minibatch(seed, step + k, n, batch_size)
        expected = state.particles - 0.2 * risk.gradient(state.particles, rows).astype(np.float64)
        state, _ = solver.advance(risk, state)
        assert_allclose(state.particles, expected, rtol=0, atol=ROUNDING * EPS[dtype.name])


def test_rows_outside_of_the_batch_are_not_read(level, dtype):
    n, solver = 50, make_solver(60, dtype=dtype, gradient=mfld.Minibatch(6))
    risk = make_risk(n=n, weights=False)
    once, _ = solver.advance(risk, solver.init(risk, seed=9))
    rows = noise.minibatch(9, 0, n, 6)

    def with_other_inputs(changed):
        inputs = risk.inputs.copy()
        inputs[changed] += 1
        other = mfld.EmpiricalRisk(risk.model, inputs, risk.targets[:, 0], loss="squared", l2=risk.l2)
        return solver.advance(other, solver.init(risk, seed=9))[0].particles

    assert_array_equal(with_other_inputs(np.setdiff1d(np.arange(n), rows)), once.particles)
    for row in rows:
        assert (with_other_inputs(row) != once.particles).any()


# ---- the noise -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gradient", [mfld.FullBatch(), mfld.Minibatch(5)], ids=repr)
@pytest.mark.parametrize("readout", ["linear", "signs"])
def test_noise_does_not_depend_on_activation_or_loss(level, dtype, gradient, readout):
    """Without output there is no gradient: a run is its start plus noise, bit for bit, whatever the network is."""
    rng = np.random.default_rng(0)
    inputs, start = rng.normal(size=(9, 3)), rng.normal(size=(40, 7))
    solver = make_solver(40, dtype=dtype, temperature=0.3, gradient=gradient)

    def run(activation, loss):
        model = mfld.TwoLayerNetwork(3, 3, activation=activation, readout=readout, output_scale=0.0)
        targets = np.arange(9) % 3 if mfld.Loss(loss).targets == "class" else np.where(inputs < 0, -1, 1)
        risk = mfld.EmpiricalRisk(model, inputs, targets, loss=loss)
        return solver.run(risk, 2, seed=10, particles=start).particles

    expected = start.astype(dtype).astype(np.float64)
    n_moving = 4 if readout == "signs" else 7
    for step in (0, 1):
        xi = noise.normals(10, step, 40, n_moving, dtype=dtype)
        expected[:, :n_moving] += np.sqrt(2 * 0.3 * 0.2) * xi.astype(np.float64)
    first = run("tanh", "squared")
    assert_allclose(first, expected, rtol=0, atol=4 * EPS[dtype.name])  # sums of size 4, rounded twice
    for activation in mfld.activations():
        assert run(activation, "squared").tobytes() == first.tobytes()
    for loss in mfld.losses():
        assert run("gelu", loss).tobytes() == first.tobytes()
