"""MFLD: init, advance, run; states, histories, callbacks; what a run does when it goes wrong."""

import copy
import dataclasses
import os
import pickle
import signal
import sys
import threading
import time

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mfld

WELL = mfld.Potential(lambda x: x, lambda x: np.sum(x**2, axis=1) / 2, n_coordinates=2, l2=0.25)


def make_risk(n=30, loss="squared"):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(n, 3))
    return mfld.EmpiricalRisk(mfld.TwoLayerNetwork(3), inputs, np.sign(inputs[:, 0]), loss=loss, l2=0.01)


def make_solver(**arguments):
    return mfld.MFLD(**{"n_particles": 20, "step_size": 0.1, "temperature": 0.01, **arguments})


OBJECTIVES = {
    "risk": (make_risk(), mfld.FullBatch()),
    "batch": (make_risk(), mfld.Minibatch(7)),
    "python": (WELL, mfld.FullBatch()),
}
every_objective = pytest.mark.parametrize(("objective", "gradient"), OBJECTIVES.values(), ids=OBJECTIVES)


def same(one, other):
    return one.step == other.step and one.seed == other.seed and one.particles.tobytes() == other.particles.tobytes()


# ---- the step --------------------------------------------------------------------------------------------------------


@every_objective
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_step_is_the_formula(objective, gradient, dtype):
    solver = make_solver(gradient=gradient, dtype=dtype)
    state, _ = solver.advance(objective, solver.init(objective, seed=9), n_steps=4)
    after, info = solver.advance(objective, state)
    theta = state.particles.astype(np.float64)
    batch = mfld.noise.minibatch(9, 4, 30, 7) if isinstance(gradient, mfld.Minibatch) else None
    b = objective.gradient(theta, batch)
    xi = mfld.noise.normals(9, 4, 20, objective.n_moving, dtype=dtype)
    expected = theta - 0.1 * b + np.sqrt(2 * 0.01 * 0.1) * xi
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    assert after.particles.dtype == dtype
    assert_allclose(after.particles, expected, atol=tolerance)
    assert_allclose(info.gradient_norm, np.sqrt(np.mean(np.sum(b**2, axis=1))), rtol=tolerance)
    if batch is None:
        assert_allclose(info.loss, objective.loss(theta), rtol=tolerance)
    assert info.steps == 1


def test_the_loss_of_a_minibatch_step_is_estimated_from_its_rows():
    weights = np.arange(1.0, 31.0)
    plain = make_risk()
    risk = mfld.EmpiricalRisk(plain.model, plain.inputs, plain.targets, loss="squared", sample_weight=weights)
    solver = make_solver(gradient=mfld.Minibatch(7), dtype="float64")
    state = solver.init(risk, seed=2)
    _, info = solver.advance(risk, state)
    rows = mfld.noise.minibatch(2, 0, 30, 7)
    errors = (risk.model.predict(state.particles, risk.inputs[rows]) - risk.targets[rows, 0]) ** 2
    assert_allclose(info.loss, 30 / 7 * np.sum(weights[rows] / weights.sum() * errors), rtol=1e-12)


def test_steps_without_noise_are_gradient_descent():
    result = make_solver(temperature=0.0, dtype="float64").run(WELL, n_steps=10, particles=np.ones((20, 2)))
    assert_allclose(result.particles, (1 - 0.1 * (1 + 2 * 0.25)) ** 10, rtol=1e-12)


# ---- states ----------------------------------------------------------------------------------------------------------


def test_init():
    risk, solver = make_risk(), make_solver()
    state = solver.init(risk, seed=3)
    assert (state.step, state.seed, list(state.clouds)) == (0, 3, ["mu"])
    assert state.clouds["mu"].particles.shape == (1, 20, 5)
    assert np.array_equal(state.particles, risk.model.initial_particles(20, 3))
    given = np.arange(100.0).reshape(20, 5)
    state = solver.init(risk, particles=given)
    assert state.particles.dtype == np.float32
    assert np.array_equal(state.particles, given)
    given[:] = 0  # the state has its own
    assert state.particles[-1, -1] == 99


@every_objective
def test_advance_does_not_touch_its_state(objective, gradient):
    solver = make_solver(gradient=gradient)
    state = solver.init(objective)
    before = state.particles.tobytes()
    after, _ = solver.advance(objective, state, n_steps=3)
    assert state.particles.tobytes() == before != after.particles.tobytes()
    assert (state.step, after.step) == (0, 3)


def test_states_are_read_only():
    state = make_solver().init(WELL)
    with pytest.raises(ValueError, match="read-only"):
        state.particles[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        state.clouds["mu"].particles[0] = 0
    with pytest.raises(TypeError, match="does not support item assignment"):
        state.clouds["mu"] = None
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.step = 3


@every_objective
def test_k_steps_and_k_steps_are_2k_steps(objective, gradient):
    solver = make_solver(gradient=gradient)
    whole = solver.run(objective, 40, seed=1).state
    state = solver.init(objective, seed=1)
    for n_steps in (1, 19, 0, 20):
        state, _ = solver.advance(objective, state, n_steps)
    assert same(state, whole)
    halfway = solver.run(objective, 20, seed=1)
    assert same(solver.run(objective, 20, state=halfway.state).state, whole)


def test_weights_keep_their_bits():
    cloud = mfld.Cloud(np.ones((1000, 1), np.float32), np.random.default_rng(0).uniform(size=1000))
    assert abs(cloud.weights.sum(dtype=np.float64) - 1) < 1e-6
    for twin in (copy.deepcopy(cloud), pickle.loads(pickle.dumps(cloud))):
        assert twin.weights.tobytes() == cloud.weights.tobytes()
        assert not twin.weights.flags.writeable


def test_states_survive_copies_and_pickling():
    solver, risk = make_solver(), make_risk()
    state = solver.run(risk, 5, seed=1).state
    whole, _ = solver.advance(risk, state, 5)
    for twin in (copy.copy(state), copy.deepcopy(state), pickle.loads(pickle.dumps(state))):
        assert not twin.particles.flags.writeable
        assert same(solver.advance(risk, twin, 5)[0], whole)


def test_zero_steps_return_the_same_state():
    solver = make_solver()
    state = solver.init(WELL)
    after, info = solver.advance(WELL, state, n_steps=0)
    assert after is state
    assert info.steps == 0
    assert np.isnan([info.loss, info.gradient_norm]).all()
    result = solver.run(WELL, n_steps=0, state=state)
    assert result.state is state
    assert len(result.history["step"]) == 0


@every_objective
@pytest.mark.parametrize("num_threads", [2, 3, 7])
def test_threads_do_not_change_a_run(objective, gradient, num_threads):
    many = make_solver(n_particles=100, gradient=gradient, num_threads=num_threads).run(objective, 10)
    one = make_solver(n_particles=100, gradient=gradient, num_threads=1).run(objective, 10)
    assert same(many.state, one.state)


def test_seeds_differ_and_decide():
    first, again, other = (make_solver().run(make_risk(), 5, seed=seed).state for seed in (1, 1, 2))
    assert same(first, again)
    assert first.particles.tobytes() != other.particles.tobytes()


def test_a_state_with_several_clouds_or_replicates_has_no_single_particles():
    cloud = mfld.Cloud(np.zeros((1, 2, 3)))
    with pytest.raises(ValueError, match="the state has the clouds mu, nu: take one from"):
        _ = mfld.State({"mu": cloud, "nu": cloud}, step=0, seed=0).particles
    with pytest.raises(ValueError, match="the state has 2 replicates: take one with"):
        _ = mfld.State({"mu": mfld.Cloud(np.zeros((2, 2, 3)))}, step=0, seed=0).particles


# ---- run: results and histories --------------------------------------------------------------------------------------


def test_result():
    risk = make_risk()
    result = make_solver().run(risk, 10)
    assert result.objective is risk
    assert result.particles.shape == (20, 5)
    assert_allclose(result.weights, np.full(20, 1 / 20))
    assert_allclose(result.predict(risk.inputs), risk.model.predict(result.particles, risk.inputs))
    with pytest.raises(
        TypeError, match="predict needs an objective with a model, like an EmpiricalRisk; this is a Potential"
    ):
        make_solver().run(WELL, 1).predict(risk.inputs)


@pytest.mark.parametrize(
    ("n_steps", "record_every", "start", "expected"),
    [
        (10, None, 0, range(1, 11)),
        (250, None, 0, [*range(3, 250, 3), 250]),
        (10, 4, 0, [4, 8, 10]),
        (10, 4, 3, [4, 8, 12, 13]),  # counts of the whole run, so that continuing records the same steps
        (10, 100, 0, [10]),
        (10, (7, 0, 2), 0, [0, 2, 7]),
        (10, np.array([3, 5]), 3, [3, 5]),
        (10, (), 0, []),
    ],
)
def test_recorded_steps(n_steps, record_every, start, expected):
    solver = make_solver()
    state, _ = solver.advance(WELL, solver.init(WELL), start)
    history = solver.run(WELL, n_steps, state=state, record_every=record_every).history
    assert history["step"].tolist() == list(expected)
    assert np.array_equal(np.isnan(history["loss"]), history["step"] == start)  # no step has been made there


@every_objective
def test_history_is_what_each_step_saw(objective, gradient):
    solver = make_solver(gradient=gradient)
    functions = {"mean": lambda state: state.particles.mean(), "step_again": lambda state: state.step}
    history = solver.run(objective, 9, seed=4, record_every=3, record=functions).history
    seen = {"loss", "gradient_norm", "step_size", "temperature", "l2", "acceptance"}
    assert set(history) == {"step", "mean", "step_again"} | seen
    state = solver.init(objective, seed=4)
    for row in range(3):
        state, _ = solver.advance(objective, state, 2)
        state, info = solver.advance(objective, state, 1)
        assert history["loss"][row] == info.loss
        assert history["gradient_norm"][row] == info.gradient_norm
        assert history["mean"][row] == state.particles.mean()
        assert history["step_again"][row] == state.step == history["step"][row]


def test_recording_and_callbacks_do_not_change_a_run():
    risk, solver = make_risk(), make_solver()
    plain = solver.run(risk, 50, record_every=())
    watched = solver.run(risk, 50, record_every=1, callbacks=[Watch(every=7), Watch(every=None)])
    assert same(plain.state, watched.state)


# ---- callbacks -------------------------------------------------------------------------------------------------------


class Watch(mfld.Callback):
    def __init__(self, every=1, stop_at=None):
        self.every = every
        self.stop_at = stop_at
        self.calls = []

    def on_start(self, state, n_steps):
        self.calls.append(("start", state.step, n_steps))

    def __call__(self, state, info):
        self.calls.append(state.step)
        return self.stop_at is not None and np.bool_(state.step >= self.stop_at)

    def on_end(self, state):
        self.calls.append(("end", state.step))


def test_callbacks_are_called_when_they_ask():
    often, rarely = Watch(every=2), Watch(every=5)
    make_solver().run(WELL, 12, callbacks=[often, rarely], record_every=100)
    assert often.calls == [("start", 0, 12), 2, 4, 6, 8, 10, 12, ("end", 12)]
    assert rarely.calls == [("start", 0, 12), 5, 10, 12, ("end", 12)]


def test_a_callback_that_returns_true_stops_the_run():
    watch, bystander = Watch(every=5, stop_at=10), Watch(every=5)
    result = make_solver().run(WELL, 1000, callbacks=[watch, bystander], record_every=100)
    assert result.state.step == 10
    assert result.history["step"].tolist() == [10]
    assert watch.calls == [("start", 0, 1000), 5, 10, ("end", 10)] == bystander.calls


def test_callbacks_for_display_are_called_some_ten_times_a_second():
    slow = mfld.Potential(lambda x: time.sleep(0.005) or x, n_coordinates=1)
    watch = Watch(every=None)
    make_solver().run(slow, 150, callbacks=[watch], record_every=())
    steps = watch.calls[1:-1]
    assert steps[-1] == 150
    assert 2 <= len(steps) <= 12  # 0.75 s at least; on a loaded machine the steps take longer, and more calls fit


@pytest.mark.parametrize("tqdm", [True, False])
def test_progress(tqdm, capsys, monkeypatch):
    if not tqdm:
        monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    make_solver().run(make_risk(), 50, callbacks=[mfld.Progress()])
    shown = capsys.readouterr()
    assert shown.out == ""
    assert ("50/50" if tqdm else "step 50 of 50, loss ") in shown.err


def test_progress_without_tqdm_speaks_once_a_second(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    slow = mfld.Potential(lambda x: time.sleep(0.02) or x, n_coordinates=1)
    make_solver().run(slow, 75, callbacks=[mfld.Progress()])
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 6
    assert lines[-1].startswith("step 75 of 75, ")


def test_callbacks_end_when_the_run_fails():
    def failing(state):
        raise ArithmeticError("no")

    watch = Watch()
    with pytest.raises(ArithmeticError, match="no") as caught:
        make_solver().run(WELL, 10, callbacks=[watch], record={"bad": failing}, record_every=5)
    assert watch.calls[-1] == ("end", 5)
    assert caught.value.state.step == 5
    assert caught.value.result.state is caught.value.state


# ---- divergence and interrupts ---------------------------------------------------------------------------------------


def explosive(x):
    with np.errstate(over="ignore"):
        return 50 * x


DIVERGENT = {
    "risk": (make_risk(), mfld.FullBatch(), 200.0),
    "batch": (make_risk(), mfld.Minibatch(7), 200.0),
    "python": (mfld.Potential(explosive, n_coordinates=3), mfld.FullBatch(), 10.0),
    "python float64": (mfld.Potential(lambda x: 50 * x.astype(np.float64), n_coordinates=3), mfld.FullBatch(), 10.0),
}


def advance_repeatedly(solver, state, objective, n_steps):
    for _ in range(1000):
        state, _ = solver.advance(objective, state, n_steps)


@pytest.mark.parametrize(("objective", "gradient", "step_size"), DIVERGENT.values(), ids=DIVERGENT)
@pytest.mark.parametrize("n_steps", [1, 7, 1000])
def test_divergence_stops_at_the_last_good_state(objective, gradient, step_size, n_steps):
    solver = make_solver(gradient=gradient, step_size=step_size)
    state = solver.init(objective, seed=3)
    with pytest.raises(mfld.DivergenceError, match=r"particle \d+ is no longer finite.*smaller step_size") as caught:
        advance_repeatedly(solver, state, objective, n_steps)
    error = caught.value
    assert error.step == error.state.step > 3
    assert np.isfinite(error.state.particles).all()
    # It is the state that single steps lead to, and the step after it is the bad one.
    again = solver.init(objective, seed=3)
    for _ in range(error.step):
        again, _ = solver.advance(objective, again)
    assert same(again, error.state)
    with pytest.raises(mfld.DivergenceError) as single:
        solver.advance(objective, again)
    assert (single.value.step, single.value.particle) == (error.step, error.particle)
    assert single.value.state.particles.tobytes() == again.particles.tobytes()


def test_divergence_of_a_run_has_its_history():
    with pytest.raises(mfld.DivergenceError) as caught:
        make_solver(step_size=200.0).run(make_risk(), 1000, record_every=2)
    error = caught.value
    steps = error.result.history["step"]
    assert steps.tolist() == list(range(2, error.step + 1, 2))
    assert not np.isnan(error.result.history["loss"]).any()
    assert error.result.state is error.state
    twin = pickle.loads(pickle.dumps(error))
    assert str(twin) == str(error)
    assert same(twin.state, error.state)


def test_nan_from_a_python_gradient_is_a_divergence():
    broken = mfld.Potential(lambda x: np.where(np.arange(20)[:, None] == 5, np.nan, x), n_coordinates=1)
    with pytest.raises(mfld.DivergenceError, match="step 0 diverged: particle 5 is no longer finite"):
        make_solver().run(broken, 10)


class Interrupt(mfld.Callback):
    """Ctrl-C so long after a run has begun: never before it, however busy the machine is."""

    every = 10**9

    def __init__(self, seconds):
        self.timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))

    def on_start(self, state, n_steps):
        self.timer.start()


@pytest.mark.parametrize("n_particles", [1, 20000])  # many short steps; steps longer than the time to answer
def test_interrupt_of_native_steps_leaves_a_valid_state(n_particles):
    risk = make_risk(n=3000)
    solver = make_solver(n_particles=n_particles)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt) as caught:
        solver.run(risk, 10**9, seed=1, record_every=(), callbacks=[Interrupt(0.3)])
    assert time.monotonic() - start < 5  # that it is prompt is not for a loaded machine to decide
    state = caught.value.state
    assert caught.value.result.state is state
    assert same(solver.run(risk, state.step, seed=1, record_every=()).state, state)


@pytest.mark.parametrize("at_call", [1, 2, 17])
def test_interrupt_of_python_steps_leaves_a_valid_state(at_call):
    calls = []

    def gradient(x):
        calls.append(1)
        if len(calls) == at_call:
            signal.raise_signal(signal.SIGINT)
        return x

    interrupted = mfld.Potential(gradient, n_coordinates=2, l2=0.25)
    solver = make_solver()
    with pytest.raises(KeyboardInterrupt) as caught:
        solver.run(interrupted, 100, seed=1, record_every=8)
    state = caught.value.state
    assert state.step == at_call - 1
    assert same(solver.run(WELL, state.step, seed=1).state, state)
    assert caught.value.result.history["step"].tolist() == list(range(8, state.step + 1, 8))


def test_interrupt_anywhere_in_python_steps_leaves_a_valid_state():
    solver = make_solver(n_particles=3)
    for k in range(20):
        interrupt = Interrupt(0.01 + 0.0005 * k)
        with pytest.raises(KeyboardInterrupt) as caught:
            solver.run(WELL, 10**9, seed=1, record_every=(), callbacks=[interrupt])
        interrupt.timer.join()
        state = caught.value.state
        assert same(solver.run(WELL, state.step, seed=1).state, state)


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_particles": 0}, ValueError, "n_particles must be at least 1, got 0"),
        ({"n_particles": 10.0}, TypeError, r"n_particles must be an integer, got 10.0 \(float\)"),
        ({"step_size": 0}, ValueError, "step_size must be finite and positive, got 0.0"),
        ({"step_size": np.nan}, ValueError, "step_size must be finite and positive, got nan"),
        ({"step_size": "0.1"}, TypeError, r"step_size must be a real number or 'fuse', got '0.1' \(str\)"),
        ({"step_size": True}, TypeError, r"step_size must be a real number, got True \(bool\)"),
        ({"temperature": -1e-9}, ValueError, "temperature must be finite and at least 0, got -1e-09"),
        ({"temperature": np.inf}, ValueError, "temperature must be finite and at least 0, got inf"),
        ({"temperature": 1j}, TypeError, r"temperature must be a real number, got 1j \(complex\)"),
        ({"gradient": 32}, TypeError, r"gradient must be a GradientEstimator, like FullBatch\(\), got 32 \(int\)"),
        (
            {"gradient": mfld.Minibatch},
            TypeError,
            r"gradient must be a GradientEstimator, like FullBatch\(\), got <class",
        ),
        ({"dtype": "float16"}, ValueError, "dtype must be float32, float64 or 'bfloat16', got float16"),
        ({"dtype": None}, ValueError, "dtype must be float32, float64 or 'bfloat16', got None"),
        ({"num_threads": 0}, ValueError, "num_threads must be at least 1, got 0"),
        ({"num_threads": 1.5}, TypeError, r"num_threads must be an integer, got 1.5 \(float\)"),
    ],
)
def test_refused_solvers(arguments, error, message):
    with pytest.raises(error, match=message):
        make_solver(**arguments)


def test_the_temperature_has_no_default():
    with pytest.raises(TypeError, match="temperature"):
        mfld.MFLD(100, step_size=1.0)


@pytest.mark.parametrize(
    ("batch_size", "error", "message"),
    [
        (0, ValueError, "batch_size must be at least 1, got 0"),
        (8.0, TypeError, r"batch_size must be an integer, got 8.0 \(float\)"),
        (31, ValueError, "batch_size must be at most the number of samples, 30, got 31"),
    ],
)
def test_refused_batch_sizes(batch_size, error, message):
    with pytest.raises(error, match=message):
        make_solver(gradient=mfld.Minibatch(batch_size)).run(make_risk(), 1)


def test_minibatches_need_samples():
    message = r"gradient must be FullBatch\(\) for a Potential, which has no samples; got Minibatch\(batch_size=2\)"
    with pytest.raises(ValueError, match=message):
        make_solver(gradient=mfld.Minibatch(2)).init(WELL)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"objective": "risk"}, TypeError, r"objective must be an Objective, got 'risk' \(str\)"),
        ({"seed": -1}, ValueError, "seed must be between 0 and 18446744073709551615, got -1"),
        ({"seed": 0.0}, TypeError, r"seed must be an integer, got 0.0 \(float\)"),
        ({"particles": np.zeros((19, 2))}, ValueError, r"particles must have shape \(20, 2\).*, got \(19, 2\)"),
        ({"particles": np.zeros((20, 3))}, ValueError, r"particles must have shape \(20, 2\).*, got \(20, 3\)"),
        ({"particles": np.full((20, 2), np.nan)}, ValueError, r"particles must be finite, got nan at index \(0, 0\)"),
        (
            {"particles": np.full((20, 2), 1e39)},
            ValueError,
            r"particles must be finite in float32, got 1e\+39 at index",
        ),
    ],
)
def test_refused_starts(arguments, error, message):
    with pytest.raises(error, match=message):
        make_solver().init(**{"objective": WELL, **arguments})


def state_of(particles=None, weights=None):
    particles = np.zeros((1, 20, 2), np.float32) if particles is None else particles
    return mfld.State({"mu": mfld.Cloud(particles, weights)}, step=0, seed=0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_steps": -1}, ValueError, "n_steps must be between 0 and 281474976710655, got -1"),
        ({"n_steps": 1.0}, TypeError, r"n_steps must be an integer, got 1.0 \(float\)"),
        ({"n_steps": 2**48}, ValueError, "n_steps must be between 0 and 281474976710655, got 281474976710656"),
        ({"state": np.zeros((20, 2))}, TypeError, "state must be a State, got array"),
        ({"state": state_of(np.zeros((1, 20, 2)))}, ValueError, "state.particles must be float32.*, got float64"),
        ({"state": state_of(np.zeros((1, 20, 3)))}, ValueError, r"state.particles must have shape \(N, 2\).*\(20, 3\)"),
        ({"state": state_of(weights=np.ones((1, 20)))}, ValueError, "state must have particles of equal weight"),
    ],
)
def test_refused_advances(arguments, error, message):
    with pytest.raises(error, match=message):
        make_solver().advance(**{"objective": WELL, "state": state_of(), **arguments})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_steps": -1}, ValueError, "n_steps must be between 0 and 281474976710655, got -1"),
        ({"n_steps": True}, TypeError, r"n_steps must be an integer, got True \(bool\)"),
        ({"record_every": 0}, ValueError, "record_every must be at least 1, got 0"),
        ({"record_every": 1.5}, TypeError, r"record_every must be an integer, got 1.5 \(float\)"),
        ({"record_every": [5, 11]}, ValueError, "record_every must hold steps between 0 and 10, got 11"),
        ({"record_every": [True]}, TypeError, r"record_every must be an integer, got True \(bool\)"),
        ({"record": {"loss": len}}, ValueError, "record must not use the names step, loss, .*, got 'loss'"),
        ({"record": {"a": 3}}, TypeError, r"record\['a'\] must be callable, got 3"),
        ({"callbacks": [print]}, TypeError, r"callbacks\[0\] must be a Callback, got <built-in function print>"),
        ({"callbacks": [Watch(every=0)]}, ValueError, r"callbacks\[0\].every must be at least 1, got 0"),
        (
            {"state": state_of(), "particles": np.zeros((20, 2))},
            ValueError,
            "particles must be None where state is given",
        ),
        (
            {"state": state_of(), "seed": 1},
            ValueError,
            "seed must be left out where state is given: it has the seed 0, got 1",
        ),
    ],
)
def test_refused_runs(arguments, error, message):
    with pytest.raises(error, match=message):
        make_solver().run(**{"objective": WELL, "n_steps": 10, **arguments})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"step": -1}, ValueError, "step must be between 0 and 281474976710655, got -1"),
        ({"seed": "0"}, TypeError, r"seed must be an integer, got '0' \(str\)"),
        ({"clouds": {"mu": np.zeros((1, 2, 3))}}, TypeError, r"clouds\['mu'\] must be a Cloud, got array"),
        (
            {"clouds": {"mu": mfld.Cloud(np.zeros((2, 3)))}},
            ValueError,
            r"clouds\['mu'\] must have particles of shape \(replicates, \.\.\., N, p\), got \(2, 3\)",
        ),
    ],
)
def test_refused_states(arguments, error, message):
    with pytest.raises(error, match=message):
        mfld.State(**{"clouds": {"mu": mfld.Cloud(np.zeros((1, 2, 3)))}, "step": 0, "seed": 0, **arguments})


def test_refused_config_mode():
    with pytest.raises(ValueError, match="mode must be one of stdout, dicts; got 'json'"):
        mfld.show_config(mode="json")


def test_show_config_prints_what_it_returns(capsys):
    report = mfld.show_config(mode="dicts")
    assert mfld.show_config() is None
    printed = capsys.readouterr().out
    assert all(f"{name}: " in printed for name in report)
    assert report["version"] == mfld.__version__


def test_a_later_state_keeps_what_it_was_given():
    solver = mfld.MFLD(3, step_size=0.1, temperature=0.0)
    state = solver.init(WELL)
    held = np.zeros((2, 4))
    later = state.after(5, state.clouds, {"part": held[:1]})
    held[0, 0] = 7.0
    assert later.step == state.step + 5
    assert (later.seed, later.replica, dict(state.buffers)) == (state.seed, state.replica, {})
    np.testing.assert_array_equal(later.buffers["part"], np.zeros((1, 4)))
    assert not later.buffers["part"].flags.writeable


def test_histories_are_read_only():
    well = mfld.Potential(lambda x: x, n_coordinates=1)
    record = {"mean": lambda state: state.particles.mean()}
    history = mfld.MFLD(3, step_size=0.1, temperature=1.0).run(well, 4, record=record).history
    for array in history.values():
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
