"""Misuse, each with its message; and the public constructors under thousands of odd inputs."""

import contextlib
import inspect
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import mfld
from mfld import noise, schedules

WELL = mfld.Potential(lambda x: x, lambda x: np.sum(x**2, axis=1) / 2, n_coordinates=2)
RNG = np.random.default_rng(0)
INPUTS, TARGETS = RNG.normal(size=(12, 3)), RNG.normal(size=12)
MODEL = mfld.TwoLayerNetwork(3)


def make_risk(inputs=INPUTS, targets=TARGETS, **arguments):
    model = mfld.TwoLayerNetwork(np.shape(inputs)[1])
    return mfld.EmpiricalRisk(model, inputs, targets, **{"loss": "squared", **arguments})


def make_solver(**arguments):
    return mfld.MFLD(**{"n_particles": 8, "step_size": 0.1, "temperature": 0.01, **arguments})


# ---- misuse ----------------------------------------------------------------------------------------------------------


def nan_loss(predictions, targets):
    return np.full(len(predictions), np.nan), predictions - targets


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: make_solver(step_size=300.0).run(make_risk(), 1000),
            mfld.DivergenceError,
            "A smaller step_size usually",
        ),
        (
            lambda: make_solver().run(make_risk(loss=nan_loss), 3),
            ValueError,
            "the values of loss nan_loss must not be nan",
        ),
        (
            lambda: make_solver().init(make_risk(), particles=np.zeros((8, 5), complex)),
            TypeError,
            "particles must be an array of real numbers, got dtype complex128",
        ),
        (
            lambda: make_solver().init(make_risk(), particles=[["a"] * 5] * 8),
            TypeError,
            "particles must be an array of real numbers, got dtype <U1",
        ),
        (
            lambda: make_solver().init(make_risk(), particles=np.zeros((8, 4))),
            ValueError,
            r"particles must have shape \(8, 5\) \(n_particles, coordinates\), got \(8, 4\)",
        ),
        (
            lambda: make_solver().init(make_risk(), particles=[[1.0], [1.0, 2.0]]),
            ValueError,
            "particles must be an array of real numbers: ",
        ),
        (
            lambda: make_solver(gradient=mfld.Minibatch(13)).run(make_risk(), 1),
            ValueError,
            "batch_size must be at most the number of samples, 12, got 13",
        ),
        (
            lambda: make_solver(gradient=mfld.SVRG(13)).run(make_risk(), 1),
            ValueError,
            "batch_size must be at most the number of samples, 12, got 13",
        ),
        (lambda: make_solver().run(make_risk(), -1), ValueError, "n_steps must be at least 0, got -1"),
        (lambda: make_solver(step_size=-0.1), ValueError, "step_size must be finite and positive, got -0.1"),
        (lambda: make_solver(step_size=np.inf), ValueError, "step_size must be finite and positive, got inf"),
        (lambda: make_solver(temperature=np.nan), ValueError, "temperature must be finite and at least 0, got nan"),
        (lambda: make_solver(l2=-1), ValueError, "l2 must be finite and at least 0, got -1.0"),
        (lambda: make_risk(l2=np.inf), ValueError, "l2 must be finite and at least 0, got inf"),
        (
            lambda: make_solver(step_size=lambda k: 0.1 if k < 3 else -1.0).run(make_risk(), 9),
            ValueError,
            "step_size must be finite and positive at every step, got -1.0 at step 3",
        ),
        (
            lambda: make_solver(temperature=lambda k: np.nan).run(make_risk(), 9),
            ValueError,
            r"temperature\(0\) must be finite, got nan",
        ),
        (
            lambda: make_solver(temperature=lambda k: "hot").run(make_risk(), 9),
            TypeError,
            r"temperature\(0\) must be a real number, got 'hot' \(str\)",
        ),
    ],
)
def test_misuse_has_its_message(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_no_steps_are_no_misuse():
    result = make_solver().run(make_risk(), 0)
    assert (result.state.step, result.info.steps, len(result.history["step"])) == (0, 0, 0)
    assert np.array_equal(result.particles, make_solver().init(make_risk()).particles)


@pytest.mark.parametrize("gradient", [mfld.FullBatch(), mfld.SVRG(4, 3), mfld.SARAH(4, 3)], ids=repr)
def test_a_changed_objective_is_refused(gradient):
    solver = make_solver(gradient=gradient)
    state = solver.run(make_risk(), 4).state
    wider = make_risk(RNG.normal(size=(12, 4)))
    with pytest.raises(
        ValueError, match=r"state.particles must have shape \(N, 6\).*to suit the objective, got \(8, 5\)"
    ):
        solver.advance(wider, state)
    with pytest.raises(ValueError, match=r"state.particles must have shape \(N, 6\)"):
        solver.run(wider, 1, state=state)


@pytest.mark.parametrize(
    ("gradient", "name", "shape"),
    [
        (mfld.SVRG(4, 3), "anchor", (1, 9, 5)),
        (mfld.SVRG(4, 3), "anchor_gradient", (1, 8, 6)),
        (mfld.SVRG(4, 3), "anchor_predictions", (1, 20, 1)),
        (mfld.SVRG(4, 3), "anchor_predictions", (1, 12, 3)),
        (mfld.SARAH(4, 3), "previous", (8, 5)),
        (mfld.SARAH(4, 3), "previous_estimate", (1, 8, 4)),
    ],
)
def test_buffers_of_another_objective_are_refused(gradient, name, shape):
    solver = make_solver(gradient=gradient)
    state = solver.run(make_risk(), 4).state
    stale = mfld.State(state.clouds, state.step, state.seed, {**state.buffers, name: np.zeros(shape, np.float32)})
    message = (
        rf"state.buffers\['{name}'\] must have shape \(1, .*\) to suit the objective, got {re.escape(str(shape))}: it "
    )
    message += r"is of another one. To change the objective .* with init\(objective, particles=state.particles\)"
    with pytest.raises(ValueError, match=message):
        solver.advance(make_risk(), stale)
    anew = solver.init(make_risk(), particles=stale.particles)  # as the message says
    assert solver.advance(make_risk(), anew)[0].step == 1


# ---- odd inputs ------------------------------------------------------------------------------------------------------

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 70),
    st.sampled_from([10**30, -(10**30), 2**48, 2**64, 2**63]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([np.float32(0.5), np.int64(3), np.bool_(True), np.float64("nan"), np.datetime64("2020-01-01")]),
    st.complex_numbers(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.sampled_from(["tanh", "squared", "logistic", "cross_entropy", "linear", "signs", "fixed", "float32", "float64"]),
    st.sampled_from([float, np.float32, len, abs, lambda x: x, lambda k: 0.1, lambda u, y: (u, u), object(), Ellipsis]),
    st.sampled_from([mfld.FullBatch(), mfld.Minibatch(4), mfld.SVRG(), mfld.Overdamped(), mfld.Loss("squared"), MODEL]),
    st.sampled_from(
        [schedules.Constant(1.0), schedules.Power(1.0), mfld.Cloud(np.ones((2, 3))), mfld.Minibatch, mfld.Loss]
    ),
    st.sampled_from(
        [np.float64(1.0) * np.ones(()), np.zeros((0, 3)), np.zeros((3, 0)), np.array([None, 1]), np.ma.masked]
    ),
    st.sampled_from([[[1], [1, 2]], [], [[]], {}, {"mu": 1}, {"mu": mfld.Cloud(np.ones((1, 2, 3)))}, (), {1, 2}, "ab"]),
    st.lists(st.one_of(st.floats(), st.text(max_size=2), st.none()), max_size=4),
    hnp.arrays(
        st.sampled_from(["f4", "f8", "f2", "i8", "u1", "?", "c16", "U2", "O", "M8[s]"]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
    ),
    hnp.arrays("f8", st.sampled_from([(12, 3), (12,), (12, 1), (8, 5), (2, 3)]), elements=st.floats(-1e300, 1e300)),
)

LINEAR = {"value": lambda x, z: z @ x.T, "gradient": lambda x, z: np.tile(z[:, np.newaxis], (1, len(x), 1))}
# Each constructor with arguments that are right.
CONSTRUCTORS = {
    mfld.TwoLayerNetwork: {"n_features": 3, "n_outputs": 1, "activation": "tanh", "readout": "linear", "bias": True}
    | {"output_scale": 1.0, "readout_bound": 1.0, "domain": ()},
    mfld.NeuronModel: LINEAR
    | {"n_features": 3, "n_coordinates": 3, "n_outputs": 1, "n_moving": None}
    | {"initial_particles": None, "space": None},
    mfld.EmpiricalRisk: {"model": MODEL, "inputs": INPUTS, "targets": TARGETS, "loss": "squared", "l2": 0.0}
    | {"sample_weight": None, "reference": None},
    mfld.Potential: {"gradient": abs, "value": None, "value_and_gradient": None, "n_coordinates": 3, "n_moving": None}
    | {"l2": 0.0, "space": None, "reference": None},
    mfld.Functional: {
        "gradient": abs,
        "value": None,
        "n_coordinates": 3,
        "n_moving": None,
        "l2": 0.0,
        "n_samples": None,
        "space": None,
        "reference": None,
    }
    | {"initial_particles": None},
    mfld.Space: {"n_coordinates": 3, "n_moving": None, "domain": ()},
    mfld.Sphere: {"n_coordinates": 3},
    mfld.Torus: {"n_coordinates": 3, "period": 1.0},
    mfld.Box: {"lower": [0.0, 1.0, 2.0], "upper": [3.0, 4.0, 5.0]},
    mfld.references.Gaussian: {"l2": 0.1},
    mfld.MFLD: {"n_particles": 8, "step_size": 0.1, "temperature": 0.1, "l2": None, "gradient": mfld.FullBatch()}
    | {"dynamics": mfld.Overdamped(), "dtype": "float32", "num_threads": None, "n_replicates": 1},
    mfld.Minibatch: {"batch_size": 4},
    mfld.SVRG: {"batch_size": 4, "refresh_every": 3},
    mfld.SARAH: {"batch_size": 4, "refresh_every": 3},
    mfld.Loss: {"name": "huber", "delta": 1.0},
    mfld.Cloud: {"particles": np.ones((2, 3)), "weights": None},
    mfld.State: {"clouds": {"mu": mfld.Cloud(np.ones((1, 2, 3)))}, "step": 0, "seed": 0, "buffers": {}, "replica": 0},
    mfld.StopWhen: {"condition": bool, "every": 1},
    mfld.StopOnPlateau: {"quantity": "loss", "patience": 1, "tolerance": 0.0, "every": 1},
    schedules.Constant: {"value": 1.0},
    schedules.Geometric: {"initial": 1.0, "factor": 0.5, "stage_length": 3},
    schedules.Logarithmic: {"scale": 1.0},
    schedules.Power: {"initial": 1.0, "exponent": 1.0},
    schedules.Piecewise: {"schedules": [1.0, 2.0], "starts": [0, 3]},
    schedules.SwitchOff: {"schedule": 1.0, "at": 3},
    noise.key: {"seed": 0, "replica": 0},
    noise.normals: {"seed": 0, "step": 0, "n_particles": 2, "n_coordinates": 3, "dtype": "float32", "stream": "move"}
    | {"population": 0, "replica": 0, "num_threads": None},
    noise.minibatch: {"seed": 0, "step": 0, "n": 12, "batch_size": 4, "population": 0, "replica": 0},
    mfld.quantities.loss: {"objective": WELL, "num_threads": None},
    mfld.quantities.predictions: {"model": MODEL, "inputs": INPUTS, "num_threads": None},
}
# What names an argument in a message, beside its own name.
PAIRED = (mfld.EmpiricalRisk, mfld.Loss, mfld.TwoLayerNetwork, noise.minibatch)
ALIASES = {"name": {"loss"}, "schedules": {"schedule", "value", "starts"}, "schedule": {"value"}}


def check_works(thing):
    """What was accepted is usable."""
    if isinstance(thing, mfld.Model) and thing.n_features * thing.n_outputs < 100:
        with contextlib.suppress(TypeError, ValueError):  # functions that do not fit, by their own messages
            particles = thing.initial_particles(4, dtype="float64")
            assert thing.predict(particles, np.ones((2, thing.n_features))).shape[0] == 2
    elif isinstance(thing, mfld.EmpiricalRisk):
        particles = thing.initial_particles(4, dtype="float64")
        with contextlib.suppress(TypeError, ValueError), np.errstate(all="ignore"):
            assert thing.gradient(particles).shape == particles.shape
    elif isinstance(thing, mfld.MFLD) and thing.n_particles < 100 and isinstance(thing.step_size, (float, type(None))):
        with contextlib.suppress(mfld.DivergenceError, TypeError, ValueError), np.errstate(all="ignore"):
            assert thing.run(make_risk(), 2).particles.shape == (thing.n_particles, 5)
    elif isinstance(thing, mfld.Loss):
        assert np.isfinite(thing.value([0.5, 0.5, 0.5], [1.0, 1.0, 1.0])).all() or thing.targets == "class"
    elif isinstance(thing, mfld.Cloud):
        assert np.isfinite(thing.particles).all()
        assert thing.weights is None or np.isclose(thing.weights.sum(axis=-1, dtype=float), 1, rtol=1e-5).all()
    elif isinstance(thing, schedules.Schedule):
        values = thing(np.arange(5))
        assert values.shape == (5,)
        assert (values >= 0).all()
    elif isinstance(thing, np.ndarray) and thing.dtype.kind == "f":
        assert np.isfinite(thing).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("constructor", CONSTRUCTORS, ids=lambda c: c.__qualname__)
@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_odd_inputs_are_accepted_and_right_or_refused_by_name(constructor, data):
    right = CONSTRUCTORS[constructor]
    name = data.draw(st.sampled_from(list(right)))
    odd = data.draw(ODD)
    too_large = isinstance(odd, (int, np.integer)) and not isinstance(odd, bool) and odd > 70
    if too_large and name in ("n_particles", "n_coordinates", "n_features", "n_outputs", "n_samples", "n"):
        return  # a matter of memory
    refusal = None
    try:
        check_works(constructor(**{**right, name: odd}))
    except (TypeError, ValueError) as error:
        refusal = str(error)
    # Where two arguments do not suit each other the message may name the other one.
    names = {name, *ALIASES.get(name, ())} | (set(right) if constructor in PAIRED else set())
    assert refusal is None or any(each in refusal for each in names), (name, odd, refusal)


def test_every_argument_is_among_those_that_are_tried():
    for constructor, right in CONSTRUCTORS.items():
        parameters = inspect.signature(constructor).parameters
        named = {name for name, p in parameters.items() if p.kind is not p.VAR_KEYWORD} - {"self", "_"}
        assert named <= set(right), constructor


ARRAYS = hnp.arrays(
    st.sampled_from(["f4", "f8", "f2", "i8", "?", "c16", "U2", "O"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(odd=st.one_of(ODD, ARRAYS), place=st.sampled_from(["particles", "inputs", "weights", "batch"]))
@example(odd=np.zeros((0, 5)), place="particles")
@example(odd=np.array(3.0), place="inputs")
def test_odd_arrays_are_taken_or_refused_by_name(odd, place):
    risk, particles = make_risk(), MODEL.initial_particles(4, dtype="float64")
    calls = {
        "particles": lambda: risk.gradient(odd),
        "inputs": lambda: MODEL.predict(particles, odd),
        "weights": lambda: MODEL.predict(particles, INPUTS, odd),
        "batch": lambda: risk.gradient(particles, odd),
    }
    try:
        result = calls[place]()
    except (TypeError, ValueError) as error:
        refusal = str(error)
    else:
        refusal = None
        assert result.ndim in (1, 2)
    assert refusal is None or place in refusal, (odd, refusal)
