"""Quantities to record, callbacks that stop a run, and what happens when a callback fails."""

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mfld
from mfld import quantities

RNG = np.random.default_rng(3)
INPUTS = RNG.normal(size=(30, 3))
WEIGHT = RNG.uniform(0.5, 2, size=30)
PARTICLES = {p: RNG.normal(size=(8, p)) for p in (5, 7)}
WELL = mfld.Potential(lambda x: x, lambda x: np.sum(x**2, axis=1) / 2, n_coordinates=1, l2=0.25)


def make_risk(targets, loss, n_outputs=1, weight=WEIGHT):
    model = mfld.TwoLayerNetwork(3, n_outputs)
    return mfld.EmpiricalRisk(model, INPUTS, targets, loss=loss, l2=0.1, sample_weight=weight)


REAL = make_risk(RNG.normal(size=30), "squared")
SIGN = make_risk(np.sign(RNG.normal(size=30)), "logistic")
CLASS = make_risk(RNG.integers(3, size=30), "cross_entropy", 3)


def make_solver(**arguments):
    return mfld.MFLD(**{"n_particles": 8, "step_size": 0.1, "temperature": 0.01, **arguments})


def state_of(risk, weights=None):
    particles = PARTICLES[risk.n_coordinates]
    return mfld.State({"mu": mfld.Cloud(particles[np.newaxis], None if weights is None else weights[np.newaxis])}, 0, 0)


# ---- quantities ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [None, RNG.uniform(0.5, 2, size=8)], ids=["equal", "weighted"])
def test_loss_ridge_and_predictions(weights):
    state = state_of(REAL, weights)
    w = np.full(8, 1 / 8) if weights is None else weights / weights.sum()
    theta = PARTICLES[5]
    f = (np.tanh(INPUTS @ theta[:, :3].T + theta[:, 3]) * theta[:, 4]) @ w
    assert_allclose(quantities.predictions(REAL.model, INPUTS)(state), f, rtol=1e-12)
    errors = (f - REAL.targets[:, 0]) ** 2
    assert_allclose(quantities.loss(REAL)(state), np.sum(errors * WEIGHT) / WEIGHT.sum(), rtol=1e-12)
    assert_allclose(quantities.ridge(REAL)(state), 0.1 * np.sum(w * np.sum(theta**2, axis=1)), rtol=1e-12)
    assert_allclose(REAL.value(state.measure), quantities.loss(REAL)(state) + quantities.ridge(REAL)(state))


def test_scores():
    state = state_of(SIGN)
    f = SIGN.model.predict(PARTICLES[5], INPUTS)
    right = (f > 0) == (SIGN.targets[:, 0] > 0)
    assert 0 < right.sum() < 30
    assert_allclose(quantities.score(SIGN)(state), np.sum(WEIGHT * right) / WEIGHT.sum())
    y = REAL.targets[:, 0]
    mean = np.sum(WEIGHT * y) / WEIGHT.sum()
    expected = 1 - np.sum(WEIGHT * (y - f) ** 2) / np.sum(WEIGHT * (y - mean) ** 2)
    assert_allclose(quantities.score(REAL)(state), expected, rtol=1e-12)
    right = CLASS.model.predict(PARTICLES[7], INPUTS).argmax(axis=1) == CLASS.targets[:, 0]
    assert_allclose(quantities.score(CLASS)(state_of(CLASS)), np.sum(WEIGHT * right) / WEIGHT.sum())
    constant = make_risk(np.ones(30), "squared")
    assert np.isnan(quantities.score(constant)(state))


def test_a_history_of_a_validation_set_and_of_the_parts_of_the_objective():
    validation = mfld.EmpiricalRisk(REAL.model, INPUTS[:7] + 1, np.ones(7), loss="squared")
    record = {
        "validation": quantities.loss(validation),
        "predictions": quantities.predictions(REAL.model, INPUTS[:7]),
        "train": quantities.loss(REAL),
        "ridge": quantities.ridge(REAL),
        "score": quantities.score(REAL),
        "seconds": quantities.seconds(),
    }
    result = make_solver().run(REAL, 20, record_every=[0, 5, 20], record=record)
    history = result.history
    assert {name: values.shape for name, values in history.items() if name in record} == {
        **dict.fromkeys(record, (3,)),
        "predictions": (3, 7),
    }
    assert_allclose(history["predictions"][-1], result.predict(INPUTS[:7]), rtol=1e-6)
    assert_allclose(history["validation"][-1], validation.loss(result.particles))
    assert_allclose(history["train"][-1] + history["ridge"][-1], REAL.value(result.particles), rtol=1e-6)
    assert (np.diff(history["seconds"]) > 0).all()
    assert history["seconds"][0] > 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: quantities.loss(3), TypeError, "objective must be an Objective, got 3"),
        (lambda: quantities.ridge(None), TypeError, "objective must be an Objective, got None"),
        (
            lambda: quantities.predictions(REAL, INPUTS),
            TypeError,
            "model must be a Model, like a TwoLayerNetwork, got Empirical",
        ),
        (lambda: quantities.predictions(REAL.model, [[1.0]]), ValueError, r"inputs must have shape \(n, 3\).*\(1, 1\)"),
        (lambda: quantities.score(WELL), TypeError, "risk must be an EmpiricalRisk, got Potential"),
        (
            lambda: quantities.score(make_risk(np.ones(30), lambda u, y: (u, u))),
            TypeError,
            "risk must have a loss of the library to be scored, got ",
        ),
    ],
)
def test_refused_quantities(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda state: "a", TypeError, r"the result of record\['x'\] must be an array of real numbers, got dtype <U1"),
        (
            lambda state: None,
            TypeError,
            r"the result of record\['x'\] must be an array of real numbers, got dtype object",
        ),
        (lambda state: [[1], [1, 2]], ValueError, r"the result of record\['x'\] must be an array of real numbers: "),
        (
            lambda state: np.ones(state.step),
            ValueError,
            r"the result of record\['x'\] must have shape \(1,\) as at the first record, got \(2,\)",
        ),
    ],
)
def test_what_is_recorded_is_checked(function, error, message):
    with pytest.raises(error, match=message):
        make_solver().run(WELL, 5, record_every=1, record={"x": function})


def test_record_must_be_a_mapping():
    with pytest.raises(TypeError, match="record must be a mapping of names to functions of the state, got 3"):
        make_solver().run(WELL, 5, record=3)


# ---- callbacks that stop ---------------------------------------------------------------------------------------------


def test_stop_when():
    def small(state, info):
        return np.bool_(info.gradient_norm < 0.5)

    descent = make_solver(temperature=0.0, n_particles=1)
    # gradient norm 1.5 * 0.85**k at the step k from 0: below 0.5 from k = 7, the eighth step, on
    assert descent.run(WELL, 1000, particles=[[1.0]], callbacks=[mfld.StopWhen(small, every=1)]).state.step == 8
    assert descent.run(WELL, 1000, particles=[[1.0]], callbacks=[mfld.StopWhen(small, every=5)]).state.step == 10


class Steps(mfld.Callback):
    """The steps at which it is called, at the default pace."""

    def __init__(self):
        self.seen = []

    def __call__(self, state, info):
        self.seen.append(state.step)


def test_callbacks_are_called_at_fixed_steps_by_default():
    own, asked, looked = Steps(), [], []
    stop = mfld.StopWhen(lambda state, info: asked.append(state.step))
    plateau = mfld.StopOnPlateau(lambda state: looked.append(state.step) or -state.step)
    average, solver = mfld.AverageDual(REAL), make_solver()
    for _ in range(2):  # whatever the clock says
        for seen in (own.seen, asked, looked):
            seen.clear()
        solver.run(REAL, 25, callbacks=[own, stop, plateau], record_every=25)
        assert own.seen == asked == looked == [10, 20, 25]
    result = solver.run(REAL, 25, callbacks=[average], record_every=25)
    by_hand, state = [], None
    for n_steps in (10, 10, 5):
        state = solver.run(REAL, n_steps, state=state).state
        by_hand.append(solver.dual(REAL, state))
    assert state.particles.tobytes() == result.particles.tobytes()
    assert_allclose(average.dual, np.mean(by_hand, axis=0))


def values_at(values):
    """A quantity that takes these values at the steps 1, 2, ..."""
    return lambda state: values[state.step - 1]


@pytest.mark.parametrize(
    ("values", "arguments", "stops_at"),
    [
        ([5, 4, 3, 2, 1, 0], {"patience": 1}, 6),
        ([5, 4, 4, 4, 4, 4], {"patience": 2}, 4),
        ([5, 4, 4, 3, 3, 3], {"patience": 2}, 6),
        ([5, 6, 7, 4, 8, 8], {"patience": 3}, 6),
        ([5, 6, 7, 8, 1, 1], {"patience": 3}, 4),
        ([5, 4.5, 3.9, 3.5, 3.2, 3], {"patience": 2, "tolerance": 1.0}, 5),
        ([np.nan, np.nan, 1, np.nan, np.nan, 0], {"patience": 2}, 2),
        ([np.nan, 3, np.nan, 2, np.nan, 1], {"patience": 2}, 6),
        ([np.inf, 3, 3, 3, 3, 3], {"patience": 2, "tolerance": 1.0}, 4),
        ([9, 5, 0, 5, 0, 6], {"patience": 2, "every": 2}, 6),
    ],
)
def test_stop_on_plateau(values, arguments, stops_at):
    plateau = mfld.StopOnPlateau(values_at(values), **{"every": 1, **arguments})
    for _ in range(2):  # a callback that served once starts anew
        assert make_solver().run(WELL, 6, callbacks=[plateau], record_every=1).state.step == stops_at


@pytest.mark.parametrize("name", ["loss", "gradient_norm"])
def test_stop_on_plateau_of_what_a_step_saw(name):
    descent = make_solver(temperature=0.0)
    result = descent.run(WELL, 10**6, callbacks=[mfld.StopOnPlateau(name, 5, 1e-3, every=1)], record_every=1)
    history = result.history[name]
    assert 10 < len(history) < 200
    assert 0 < history[-6] - history[-1] <= 1e-3 < history[-12] - history[-6]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mfld.StopWhen(True), TypeError, "condition must be callable, got True"),
        (lambda: mfld.StopWhen(bool, every=0), ValueError, "every must be at least 1, got 0"),
        (lambda: mfld.StopOnPlateau(1), TypeError, "quantity must be callable, got 1"),
        (lambda: mfld.StopOnPlateau("lose"), ValueError, "quantity must be one of loss, gradient_norm, .*; got 'lose'"),
        (lambda: mfld.StopOnPlateau("loss", patience=0), ValueError, "patience must be at least 1, got 0"),
        (
            lambda: mfld.StopOnPlateau("loss", tolerance=-1),
            ValueError,
            "tolerance must be finite and at least 0, got -1",
        ),
        (lambda: mfld.StopOnPlateau("loss", every=1.5), TypeError, "every must be an integer, got 1.5"),
        (
            lambda: make_solver().run(WELL, 3, callbacks=[mfld.StopOnPlateau(lambda state: state.particles)]),
            ValueError,
            r"the result of quantity must have shape \(\), got \(8, 1\)",
        ),
    ],
)
def test_refused_callbacks(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ---- what a callback can do, and what it cannot ----------------------------------------------------------------------


class Scribbler(mfld.Callback):
    """Tries to write to all that it is shown."""

    every = 1

    def __init__(self):
        self.refused = 0

    def __call__(self, state, info):
        for array in (state.particles, *state.buffers.values(), *(cloud.particles for cloud in state.clouds.values())):
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0
            self.refused += 1
        for mapping in (state.clouds, state.buffers):
            with pytest.raises(TypeError, match="does not support item assignment"):
                mapping["mu"] = 0
        for thing in (state, info):
            with pytest.raises(dataclasses.FrozenInstanceError):
                thing.step = 0


def test_a_callback_sees_a_state_that_is_read_only():
    scribbler = Scribbler()
    solver = make_solver(gradient=mfld.SVRG(4, 3))
    watched = solver.run(REAL, 6, callbacks=[scribbler])
    assert scribbler.refused >= 6 * 4  # particles twice, and two buffers at least
    assert watched.particles.tobytes() == solver.run(REAL, 6).particles.tobytes()


class Failing(mfld.Callback):
    every = 4

    def __init__(self, *places):
        self.places = places
        self.ended = []

    def on_start(self, state, n_steps):
        if "start" in self.places:
            raise ArithmeticError("at the start")

    def __call__(self, state, info):
        if state.step in self.places:
            raise ArithmeticError(f"at step {state.step}")

    def on_end(self, state):
        self.ended.append(state.step)
        if "end" in self.places:
            raise LookupError("at the end")


@pytest.mark.parametrize(
    ("place", "error", "step"),
    [("start", ArithmeticError, 0), (8, ArithmeticError, 8), ("end", LookupError, 10)],
)
def test_an_exception_in_a_callback_loses_nothing(place, error, step):
    before, failing, after = Failing(), Failing(place), Failing()
    with pytest.raises(error, match="at ") as caught:
        make_solver().run(REAL, 10, seed=1, callbacks=[before, failing, after], record_every=2)
    state, result = caught.value.state, caught.value.result
    assert state.step == step
    assert result.state is state
    # The step at which a callback fails is not recorded any more.
    assert result.history["step"].tolist() == [s for s in range(2, step + 1, 2) if s != 8 or place == "end"]
    assert state.particles.tobytes() == make_solver().run(REAL, step, seed=1).particles.tobytes()
    assert before.ended == [step]
    assert failing.ended == ([] if place == "start" else [step])
    assert after.ended == ([] if place == "start" else [step])
    # and the run goes on from there
    whole = make_solver().run(REAL, 10, seed=1).particles
    assert make_solver().run(REAL, 10 - step, state=state).particles.tobytes() == whole.tobytes()


def test_the_first_failure_counts():
    one, two, three = Failing(4, "end"), Failing(), Failing("end")
    with pytest.raises(ArithmeticError, match="at step 4") as caught:
        make_solver().run(WELL, 10, callbacks=[one, two, three])
    assert caught.value.__notes__ == ["then on_end of Failing failed: LookupError('at the end')"] * 2
    assert one.ended == two.ended == three.ended == [4]


def test_a_divergence_stays_one_when_a_callback_fails_at_the_end():
    with pytest.raises(mfld.DivergenceError) as caught:
        make_solver(step_size=200.0).run(REAL, 1000, callbacks=[Failing("end")])
    assert caught.value.result.state is caught.value.state


def test_steps_beyond_the_noise_are_refused_before_the_first():
    well = mfld.Potential(lambda x: x, n_coordinates=1)
    solver = mfld.MFLD(3, step_size=0.1, temperature=1.0)
    state = solver.init(well)
    late = mfld.State(dict(state.clouds), 2**48 - 3, 0)
    with pytest.raises(ValueError, match="n_steps must be between 0 and"):
        solver.run(well, 5, state=late)
