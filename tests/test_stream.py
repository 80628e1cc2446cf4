"""Dual averaging on a stream: against finite data that it replays, against its recursion, and within its capacity."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import mfld


def solver(**arguments):
    return mfld.PDA(
        **{
            "n_particles": 6,
            "step_size": 0.1,
            "temperature": 0.1,
            "inner_steps": 3,
            "batch_size": 4,
            "num_threads": 1,
            **arguments,
        }
    )


def network(outputs=1):
    return mfld.TwoLayerNetwork(2, outputs, readout="bounded")


def sines(step, n_rows):
    inputs = mfld.noise.normals(3, step, n_rows, 2, dtype="float64")
    return inputs, np.sin(inputs[:, 0])


def stream(sample=sines, outputs=1, loss="half_squared", l2=0.05, capacity=1000):
    return mfld.StreamRisk(network(outputs), sample, loss=loss, l2=l2, capacity=capacity)


@pytest.mark.parametrize(("loss", "outputs"), [("half_squared", 2), ("logistic", 1), ("cross_entropy", 3)])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_stream_that_replays_finite_data_is_finite_data(loss, outputs, batch_size, rng):
    n, steps = 12, 9
    inputs = rng.normal(size=(n, 2))
    targets = {
        "half_squared": rng.normal(size=(n, outputs)),
        "logistic": rng.choice([-1.0, 1.0], size=(n, 1)),
        "cross_entropy": rng.integers(0, 3, size=n),
    }[loss]
    risk = mfld.EmpiricalRisk(network(outputs), inputs, targets, loss=loss, l2=0.05)

    def replay(step, n_rows):
        rows = mfld.noise.minibatch(3, step, n, n_rows)
        return inputs[rows], targets[rows]

    replayed = stream(replay, outputs, loss)
    pda = solver(batch_size=batch_size, dtype="float64", temperature=0.01)
    finite, state = pda.init(risk, seed=3), pda.init(replayed, seed=3)
    points = rng.normal(size=(5, risk.n_coordinates))
    for _ in range(steps):
        finite, expected = pda.advance(risk, finite)
        state, info = pda.advance(replayed, state)
        # The same sums in another order: rounding, which so few contracting steps hardly amplify.
        assert_allclose(state.particles, finite.particles, rtol=1e-12, atol=1e-12)
        assert_allclose(
            pda.potential(replayed, state)(points), pda.potential(risk, finite)(points), rtol=1e-12, atol=1e-13
        )
        assert (info.loss, info.l2) == pytest.approx((expected.loss, expected.l2), rel=1e-12)
    assert state.buffers["kept_inputs"].shape == (1, steps * batch_size, 2)
    assert state.buffers["kept_sum"].shape == (1, steps * batch_size, outputs)
    assert np.abs(state.particles - risk.initial_particles(6, 3, "float64")).max() > 0.1


def test_lq_model_follows_its_exact_recursion():
    # h(theta, z) = z theta, one sample a step: g_t = (z_t E theta - y_t) z_t theta. Without noise a particle of the
    # average slope * theta + l2 t / (t + 2) theta^2 contracts to its minimiser by 1 - 2 eta l2 t / (t + 2) a step.
    l2, eta, inner = 0.3, 0.2, 7
    model = mfld.TwoLayerNetwork(1, activation="identity", readout="fixed", bias=False)

    def z(step):
        return 1 + 0.5 * np.cos(step)

    risk = mfld.StreamRisk(
        model, lambda step, n: ([[z(step)]], [step % 3 - 1.0]), loss="half_squared", l2=l2, capacity=39
    )
    pda = solver(n_particles=4, step_size=eta, temperature=1e-24, inner_steps=inner, batch_size=1, dtype="float64")
    state = pda.init(risk, particles=[[1.0], [0.0], [-1.0], [4.0]])
    expected, total = state.particles[:, 0].copy(), 0.0
    for t in range(1, 40):
        total += t * z(t - 1) * (z(t - 1) * expected.mean() - ((t - 1) % 3 - 1))
        slope, ridge = 2 * total / ((t + 1) * (t + 2)), l2 * t / (t + 2)
        minimiser = -slope / (2 * ridge)
        expected = minimiser + (1 - 2 * eta * ridge) ** inner * (expected - minimiser)
        state, _ = pda.advance(risk, state)
        assert_allclose(state.particles[:, 0], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_restarting_is_continuing_for_any_number_of_threads(dtype, tmp_path):
    risk = stream()
    whole = solver(n_particles=200, dtype=dtype, num_threads=1).run(risk, 6, seed=5).state
    pda = solver(n_particles=200, dtype=dtype, num_threads=2)
    state, _ = pda.advance(risk, pda.init(risk, seed=5), 2)
    mfld.checkpoint.save(state, tmp_path / "state.npz", objective=risk)
    state = mfld.checkpoint.load(tmp_path / "state.npz", objective=risk)
    state = pda.run(risk, 4, state=state).state
    assert state.step == whole.step == 6
    assert state.particles.tobytes() == whole.particles.tobytes()
    assert set(state.buffers) == {"kept_inputs", "kept_sum", "inner_steps", "output"}
    for name, value in whole.buffers.items():
        assert state.buffers[name].dtype == value.dtype
        assert state.buffers[name].tobytes() == value.tobytes()
    assert whole.buffers["kept_inputs"].dtype == dtype
    seen = [sines(step, 4)[0] for step in range(6)]
    assert_array_equal(whole.buffers["kept_inputs"][0], np.concatenate(seen).astype(dtype))


class OneByOne(mfld.GradientEstimator):
    """A mini-batch that the compiled core does not know, so that each step is one call."""

    def rows_of_a_step(self, objective):
        return 16

    def estimate(self, objective, particles, buffers, place):
        return mfld.Minibatch(16).estimate(objective, particles, buffers, place)

    def loss(self, objective, particles, place):
        return mfld.Minibatch(16).loss(objective, particles, place)


def noisy(step, n_rows):
    inputs = mfld.noise.normals(3, step, n_rows, 2, dtype="float64")
    return inputs, mfld.noise.normals(4, step, n_rows, 3, dtype="float64")


@pytest.mark.parametrize("dynamics", [mfld.Overdamped(), mfld.Underdamped(1.0), mfld.Preconditioned()], ids=repr)
def test_steps_in_one_call_are_those_of_a_call_each(dynamics, monkeypatch):
    monkeypatch.setattr(mfld.native, "_ROWS_OF_STREAM", 48)  # three steps at once
    risk = stream(noisy, outputs=3)
    runs = [
        mfld.MFLD(37, step_size=0.05, temperature=1e-3, gradient=gradient, dynamics=dynamics, dtype="float64").run(
            risk, 10, seed=5, record_every=5
        )
        for gradient in (mfld.Minibatch(16), OneByOne())
    ]
    assert_allclose(runs[0].particles, runs[1].particles, rtol=1e-11, atol=1e-12)
    for name in ("loss", "gradient_norm"):
        assert_allclose(runs[0].history[name], runs[1].history[name], rtol=1e-11)
    assert set(runs[0].state.buffers) == set(runs[1].state.buffers)


def test_an_error_of_a_sample_comes_after_the_steps_before_it():
    def ends(step, n_rows):
        if step == 7:
            raise RuntimeError("no more samples")
        return noisy(step, n_rows)

    solver = mfld.MFLD(5, step_size=0.05, temperature=1e-3, gradient=mfld.Minibatch(4), dtype="float64")
    with pytest.raises(RuntimeError, match="no more samples") as caught:
        solver.run(stream(ends, outputs=3), 20, seed=1)
    assert caught.value.state.step == 7
    expected = solver.run(stream(noisy, outputs=3), 7, seed=1).state
    assert caught.value.state.particles.tobytes() == expected.particles.tobytes()


def test_replicates_see_the_same_samples():
    risk = stream()
    both = solver(n_replicates=2).run(risk, 3, seed=5).state
    for r in range(2):
        alone = solver().init(risk, seed=5, replica=r)
        alone, _ = solver().advance(risk, alone, 3)
        assert both.replicate(r).particles.tobytes() == alone.particles.tobytes()
        for name, value in alone.buffers.items():
            assert both.replicate(r).buffers[name].tobytes() == value.tobytes()
    assert_array_equal(both.buffers["kept_inputs"][0], both.buffers["kept_inputs"][1])
    assert np.ptp(both.buffers["kept_sum"], axis=0).max() > 1e-3


def test_a_run_beyond_the_capacity_is_refused_before_it_starts():
    asked = []

    def sample(step, n_rows):
        asked.append(step)
        return sines(step, n_rows)

    risk = stream(sample, capacity=21)
    with pytest.raises(
        ValueError,
        match="n_steps must be at most 5 here, got 6: the StreamRisk has capacity=21, the state keeps 0 samples, and "
        "each step adds batch_size=4: this run takes capacity=24",
    ):
        solver().run(risk, 6)
    assert asked == []
    state = solver().run(risk, 3, record_every=1).state
    with pytest.raises(ValueError, match=r"n_steps must be at most 2 here, got 3: .* keeps 12 samples"):
        solver().run(risk, 3, state=state)
    with pytest.raises(ValueError, match="n_steps must be at most 2 here, got 3"):
        solver().advance(risk, state, 3)
    assert asked == [0, 1, 2]
    full = solver().run(risk, 2, state=state).state
    assert full.buffers["kept_inputs"].shape == (1, 20, 2)
    # More capacity lets it go on; the last sample fits with smaller batches.
    assert solver().run(stream(capacity=24), 1, state=full).state.step == 6
    assert solver(batch_size=1).run(risk, 1, state=full).state.buffers["kept_sum"].shape == (1, 21, 1)


def test_learns_what_the_stream_shows():
    # The risk of predicting 0 is E sin(z)^2 / 2 = (1 - e^-2) / 4.
    risk = mfld.StreamRisk(
        mfld.TwoLayerNetwork(2, readout="bounded", readout_bound=5.0),
        sines,
        loss="half_squared",
        l2=1e-2,
        capacity=2000,
    )
    result = solver(n_particles=300, step_size=0.2, temperature=1e-3, inner_steps=20, batch_size=20).run(risk, 60)
    fresh = risk.batch(10**6, 2000)
    assert fresh.loss(np.zeros((1, 4))) == pytest.approx((1 - np.exp(-2)) / 4, abs=0.02)
    assert fresh.loss(result.particles) < 0.1 * fresh.loss(np.zeros((1, 4)))
    assert_allclose(result.predict(fresh.inputs), risk.model.predict(result.particles, fresh.inputs))
    with pytest.raises(TypeError, match=r"the objective of the run must be an EmpiricalRisk, got .*StreamRisk"):
        result.certificate()


def test_first_variation_of_a_batch_of_a_stream(rng):
    risk = stream(outputs=1)
    particles, points = rng.normal(size=(6, 4)), rng.normal(size=(3, 4))
    batch = risk.draw_batch(mfld.noise.Place.of(3, step=7), 5)
    inputs, targets = sines(7, 5)

    def neurons(theta):
        return np.tanh(inputs @ theta[:, :2].T + theta[:, 2]) * np.tanh(theta[:, 3])

    slopes = neurons(particles).mean(axis=1) - targets
    variation = risk.first_variation(particles, batch)
    expected = slopes @ neurons(points) / 5 + 0.05 * np.sum(points**2, axis=1)
    assert_allclose(variation(points), expected, rtol=1e-12)
    assert_allclose(variation.gradient(particles), risk.gradient(particles, batch), rtol=1e-11, atol=1e-14)
    with pytest.raises(TypeError, match=r"batch must be the EmpiricalRisk that StreamRisk\.batch gives, got"):
        risk.first_variation(particles, [0])


def test_what_a_stream_does_not_know_is_refused():
    risk = stream()
    for method in (risk.loss, risk.value, risk.gradient, risk.first_variation):
        with pytest.raises(TypeError, match="of a StreamRisk is an expectation, which is not known: use Minibatch"):
            method(np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"gradient must be Minibatch\(batch_size\) for a StreamRisk"):
        mfld.MFLD(5, step_size=0.1, temperature=0.1).run(risk, 2)
    with pytest.raises(TypeError, match="objective must be an EmpiricalRisk"):
        mfld.PSDCA(5, temperature=0.1).run(risk, 2)


def test_a_state_of_other_data_is_refused():
    finite = mfld.EmpiricalRisk(network(), *sines(0, 10), loss="half_squared", l2=0.05)
    with pytest.raises(ValueError, match="state must come from a PDA on StreamRisk data: it has no buffer kept_inputs"):
        solver().advance(stream(), solver().init(finite))
    with pytest.raises(ValueError, match="state must come from a PDA on EmpiricalRisk data: it has no buffer dual_sum"):
        solver().advance(finite, solver().init(stream()))
    with pytest.raises(ValueError, match="state must have made a step"):
        solver().potential(stream(), solver().init(stream()))


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: stream(sample=3), TypeError, "sample must be callable, got 3"),
        (lambda: stream(capacity=0), ValueError, "capacity must be at least 1, got 0"),
        (lambda: stream(l2=-1.0), ValueError, "l2 must be finite and at least 0"),
        (lambda: mfld.StreamRisk(1, sines, loss="squared", capacity=1), TypeError, "model must be a Model"),
        (lambda: solver().init(stream(l2=0.0)), ValueError, "l2 of the objective must be positive"),
        (lambda: solver(batch_size=None).init(stream()), ValueError, "batch_size must be given for a StreamRisk"),
        (lambda: stream().batch(-1, 2), ValueError, "step must be at least 0, got -1"),
        (lambda: stream().batch(0, 0), ValueError, "n_rows must be at least 1, got 0"),
        (lambda: solver().run(stream(lambda k, n: 1), 1), TypeError, r"sample must return a tuple \(inputs, targets\)"),
        (
            lambda: solver().run(stream(lambda k, n: sines(k, n + 1)), 1),
            ValueError,
            r"sample\(0, 4\) must return 4 samples, got 5",
        ),
        (
            lambda: solver().run(stream(lambda k, n: (np.zeros((n, 3)), np.zeros(n))), 1),
            ValueError,
            r"inputs must have shape \(n, 2\)",
        ),
        (
            lambda: solver().run(stream(lambda k, n: (np.full((n, 2), np.nan), np.zeros(n))), 1),
            ValueError,
            "inputs must be finite",
        ),
        (
            lambda: stream().frozen(np.zeros((3, 2)), np.zeros((3, 2))),
            ValueError,
            "coefficients must have shape",
        ),
    ],
)
def test_refused(make, kind, message):
    with pytest.raises(kind, match=message):
        make()


# ---- mean-field Langevin dynamics on a stream ------------------------------------------------------------------------


@pytest.mark.parametrize("dynamics", [mfld.Overdamped(), mfld.Underdamped(2.0)], ids=["overdamped", "underdamped"])
def test_langevin_on_a_stream_that_replays_mini_batches_is_langevin_on_mini_batches(dynamics, rng):
    inputs, targets = rng.normal(size=(12, 2)), rng.normal(size=12)
    risk = mfld.EmpiricalRisk(network(), inputs, targets, loss="half_squared", l2=0.05)

    def replay(step, n_rows):
        rows = mfld.noise.minibatch(3, step, 12, n_rows)
        return inputs[rows], targets[rows]

    langevin = mfld.MFLD(
        7, step_size=0.1, temperature=0.01, gradient=mfld.Minibatch(4), dynamics=dynamics, dtype="float64"
    )
    finite = langevin.run(risk, 20, seed=3, record_every=5)
    replayed = langevin.run(stream(replay), 20, seed=3, record_every=5)
    assert_allclose(replayed.particles, finite.particles, rtol=1e-9, atol=1e-11)
    if dynamics == mfld.Overdamped():  # the loss of the rows of the step, as in the core
        assert_allclose(replayed.history["loss"], finite.history["loss"], rtol=1e-9)
    assert_allclose(replayed.history["gradient_norm"], finite.history["gradient_norm"], rtol=1e-9)


def test_langevin_on_a_stream_end_to_end(tmp_path):
    data = stream(capacity=None)
    langevin = mfld.MFLD(100, step_size=0.5, temperature=1e-4, gradient=mfld.Minibatch(20))
    whole = langevin.run(data, 300, seed=1)
    fresh = data.batch(10**6, 1000)
    assert fresh.loss(whole.measure) < 0.3 * fresh.loss(langevin.init(data, seed=1).measure)
    path = tmp_path / "run.npz"
    mfld.checkpoint.run(langevin, data, 100, seed=1, path=path)
    resumed = mfld.checkpoint.run(langevin, stream(capacity=None), 300, seed=1, path=path)
    assert_array_equal(resumed.particles, whole.particles)
    several = mfld.MFLD(100, step_size=0.5, temperature=1e-4, gradient=mfld.Minibatch(20), n_replicates=2)
    together = several.run(data, 50, seed=1).state
    alone = langevin.run(data, 50, state=langevin.init(data, seed=1, replica=1)).state
    assert_array_equal(together.replicate(1).particles, alone.particles)
    automatic = mfld.MFLD(100, temperature=1e-4, gradient=mfld.Minibatch(20)).run(data, 50, seed=1)
    assert automatic.info.step_size > 0


@pytest.mark.parametrize("gradient", [mfld.FullBatch(), mfld.SVRG(4), mfld.SARAH(4), mfld.PerParticleMinibatch(4)])
def test_estimators_that_need_all_samples_are_refused(gradient):
    langevin = mfld.MFLD(5, step_size=0.1, temperature=0.1, gradient=gradient)
    with pytest.raises(ValueError, match=r"gradient must be Minibatch\(batch_size\) for a StreamRisk"):
        langevin.init(stream())


def test_dual_averaging_needs_a_capacity():
    with pytest.raises(ValueError, match="capacity of the StreamRisk must be given for PDA"):
        solver().init(stream(capacity=None))


def test_data_of_a_risk_are_read_only(rng):
    weights = [1, 2, 3, 4]
    risk = mfld.EmpiricalRisk(network(), rng.normal(size=(4, 2)), np.ones(4), loss="squared", sample_weight=weights)
    for name in ("inputs", "targets", "sample_weight", "n_samples", "l2"):
        with pytest.raises(AttributeError):
            setattr(risk, name, getattr(risk, name))
    for array in (risk.inputs, risk.targets, risk.sample_weight):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
