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
from mfld import density, diagnostics, diffusion, noise, privacy, schedules, theory
from mfld import functional_data as fd
from ranks import ALONE

FEATURES = privacy.table_features(2, [2, 2], label=1, waves=5)
WELL = mfld.Potential(lambda x: x, lambda x: np.sum(x**2, axis=1) / 2, n_coordinates=2)
WELL_1 = mfld.Potential(lambda x: x, lambda x: np.sum(x**2, axis=1) / 2, n_coordinates=1)
WELL_3 = mfld.potentials.Gaussian(np.zeros(3))
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
        (
            lambda: make_solver().run(make_risk(), -1),
            ValueError,
            "n_steps must be between 0 and 281474976710655, got -1",
        ),
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
GRID = np.linspace(0, 1, 7)
# Each constructor with arguments that are right.
CONSTRUCTORS = {
    mfld.TwoLayerNetwork: {"n_features": 3, "n_outputs": 1, "activation": "tanh", "readout": "linear", "bias": True}
    | {"output_scale": 1.0, "readout_bound": 1.0, "domain": ()},
    mfld.NeuronModel: LINEAR
    | {"n_features": 3, "n_coordinates": 3, "n_outputs": 1, "n_moving": None}
    | {"initial_particles": None, "space": None, "input_gradient": None, "mixed_gradient": None},
    mfld.EmpiricalRisk: {"model": MODEL, "inputs": INPUTS, "targets": TARGETS, "loss": "squared", "l2": 0.0}
    | {"sample_weight": None, "reference": None},
    mfld.Potential: {"gradient": abs, "value": None, "value_and_gradient": None, "n_coordinates": 3, "n_moving": None}
    | {"hessian_vector": None, "l2": 0.0, "space": None, "reference": None},
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
    mfld.FunctionalNetwork: {"grid": GRID, "covariance": fd.PowerLaw(2.0), "n_modes": 3, "curves": None}
    | {"n_outputs": 1, "activation": "tanh", "readout": "linear", "bias": True}
    | {"output_scale": 1.0, "readout_bound": 1.0},
    fd.Grid: {"points": GRID, "weights": "trapezoid"},
    fd.PowerLaw: {"exponent": 2.0, "scale": 1.0, "basis": fd.Fourier()},
    fd.RBF: {"length": 0.2, "scale": 1.0},
    fd.Matern: {"length": 0.2, "smoothness": 1.5, "scale": 1.0},
    fd.Given: {"covariance": np.minimum},
    fd.Fourier: {"periodic": False},
    fd.BSplines: {"n_splines": 6, "degree": 3},
    fd.PrincipalComponents: {"whitened": False},
    fd.KernelComponents: {"whitened": False},
    fd.SemiImplicit: {"variances": [1.0, 0.5]},
    fd.interpolate: {"points": GRID, "values": [np.sin(GRID), np.cos(GRID)], "grid": GRID[1:-1], "ends": "refuse"},
    fd.derivative: {"curves": [np.sin(GRID)], "grid": GRID, "order": 1, "degree": 3},
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
    mfld.MMD: {"samples": INPUTS, "kernel": mfld.kernels.Gaussian(1.0), "smoothing": 0.1, "sample_weight": None}
    | {"l2": 0.0, "space": None, "reference": None},
    mfld.KSD: {"potential": WELL, "kernel": mfld.kernels.Gaussian(1.0), "target_temperature": 1.0}
    | {"l2": 0.0, "reference": None},
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
PAIRED = (mfld.EmpiricalRisk, mfld.Loss, mfld.TwoLayerNetwork, noise.minibatch, mfld.FunctionalNetwork)
PAIRED += (fd.Grid, fd.BSplines, fd.interpolate, fd.derivative)
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


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:n_modes must be at most", "ignore:NOT PRIVATE")
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


# ---- every public argument, against one table ------------------------------------------------------------------------

SIMPLE = mfld.EmpiricalRisk(
    mfld.TwoLayerNetwork(3, activation="tanh", readout="bounded"), INPUTS, TARGETS, loss="half_squared", l2=0.1
)
STATE = make_solver().init(SIMPLE)
RESULT = make_solver(n_replicates=2).run(SIMPLE, 8)
CLOUD = mfld.Cloud(np.ones((2, 5)))
GRID = mfld.FokkerPlanck(mfld.potentials.DoubleWell(), 0.2, 20, [(-2, 2)])
STEP_LAW = diagnostics.StepLaw(WELL_3, INPUTS, 0.1, 0.1)
FIXED = mfld.TwoLayerNetwork(3, readout="fixed")
SIGNED_RISK = mfld.SignedRisk(FIXED, INPUTS, TARGETS, strength=0.1)
SIGNED_LOGISTIC = mfld.SignedRisk(FIXED, INPUTS, np.sign(TARGETS), loss="logistic", strength=0.1)
SIGNED = mfld.SignedMeasure(FIXED, np.ones((2, 4)), [1.0, -1.0])
QUICK = {"n_chains": 64, "most_moves": 128}
PAYOFF = mfld.payoffs.Polynomial({(1, 1): 1.0})
GAME = mfld.Bilinear(PAYOFF, space=1, l2=0.5)
GAN = mfld.MeanFieldGAN(mfld.TwoLayerNetwork(2, 3), MODEL, INPUTS)


MIXED = mfld.mixtures.GaussianMixture(None, [[0.0, 0.0]], 1.0)
DENOISED = diffusion.ExactScore(MIXED)
LABELLED = diffusion.fit(INPUTS, [0, 1] * 6, n_particles=3, n_steps=2)
LINE = mfld.mixtures.GaussianMixture(None, [[0.0]], 1.0)
DIFFUSION = {
    "OrnsteinUhlenbeck": (diffusion.OrnsteinUhlenbeck, {"horizon": 5.0, "earliest": 1e-3}),
    "VariancePreserving": (diffusion.VariancePreserving, {"beta_min": 0.1, "beta_max": 20.0, "earliest": 1e-4}),
    "VarianceExploding": (diffusion.VarianceExploding, {"horizon": 80.0, "earliest": 1e-3}),
    "diffusion.Steps": (diffusion.Steps, {"betas": [0.1, 0.2]}),
    "ExactScore": (diffusion.ExactScore, {"mixture": MIXED, "forward": None}),
    "EmpiricalScore": (diffusion.EmpiricalScore, {"data": INPUTS, "forward": None, "weights": None}),
    "FunctionScore": (diffusion.FunctionScore, {"function": abs, "n_coordinates": 2, "forward": None, "kind": "noise"}),
    "DDIM": (diffusion.DDIM, {"eta": 0.5, "clip": None}),
    "Ancestral": (diffusion.Ancestral, {"variance": "matched"}),
    "Flow": (diffusion.Flow, {"clock": "noise", "method": "heun"}),
    "DPMSolver": (diffusion.DPMSolver, {"order": 2}),
    "LinearMultistep": (diffusion.LinearMultistep, {"order": 2}),
    "PredictorCorrector": (
        diffusion.PredictorCorrector,
        {"predictor": diffusion.DDIM(), "n_corrections": 1, "snr": 0.1},
    ),
    "Denoising": (
        diffusion.Denoising,
        {"data": INPUTS, "forward": None, "target": "noise", "times": "tangent", "labels": [0, 1] * 6}
        | {"label_dropout": 0.1, "n_frequencies": 3, "waves": np.ones((2, 3)), "seed": 0},
    ),
    "Denoising.risk": (
        diffusion.Denoising(INPUTS).risk,
        {"model": diffusion.Denoising(INPUTS).network(), "n_samples": 5, "l2": 0.1, "weight": None, "step": 0},
    ),
    "MeanFieldScore": (
        diffusion.MeanFieldScore,
        {"model": mfld.TwoLayerNetwork(2 + 3 + 2 + 2, 2), "measure": np.zeros((4, 12)), "n_coordinates": 2}
        | {"forward": None, "target": "noise", "n_frequencies": 3, "n_classes": 2, "waves": [[1.0, 2.0]], "label": 1},
    ),
    "diffusion.random_waves": (
        diffusion.random_waves,
        {"n_waves": 3, "n_coordinates": 2, "highest": 2.0, "seed": 0},
    ),
    "ClassifierFree": (diffusion.ClassifierFree, {"conditional": DENOISED, "unconditional": DENOISED, "weight": 1.0}),
    "ClassifierGuided": (diffusion.ClassifierGuided, {"score": DENOISED, "gradient": abs, "weight": 1.0}),
    "diffusion.log_likelihood": (
        diffusion.log_likelihood,
        {"score": DENOISED, "points": INPUTS[:, :2], "n_steps": 2, "times": "log-snr", "n_probes": 1, "seed": 0}
        | {"num_threads": None},
    ),
    "PrincipalAxes": (diffusion.PrincipalAxes, {"n_components": 2}),
    "Coders": (diffusion.Coders, {"encoder": abs, "decoder": abs}),
    "diffusion.fit": (
        diffusion.fit,
        {"X": INPUTS, "y": [0, 1] * 6, "latent": None, "n_particles": 3, "n_steps": 2, "seed": 0}
        | {"num_threads": None},
    ),
    "DiffusionModel.sample": (
        LABELLED.sample,
        {"n_samples": 3, "label": 1, "sampler": "ddim", "n_steps": 3, "seed": 0, "num_threads": 1},
    ),
    "DiffusionModel.log_likelihood": (LABELLED.log_likelihood, {"points": INPUTS, "n_steps": 3}),
    "Denoising.sample": (diffusion.Denoising(INPUTS).sample, {"step": 0, "n_rows": 3}),
    "Denoising.steps": (diffusion.Denoising(INPUTS).steps, {"first": 0, "n_steps": 2, "n_rows": 3}),
    "Forward.time": (diffusion.OrnsteinUhlenbeck().time, {"ratio": 1.0}),
    "ExactScore.noise": (DENOISED.noise, {"points": INPUTS[:, :2], "time": 0.5}),
    "diffusion.times": (
        diffusion.times,
        {"forward": DENOISED.forward, "n_steps": 3, "name": "tangent", "scale": 1.0, "start": None, "end": None},
    ),
    "grids.with_restarts": (
        diffusion.grids.with_restarts,
        {"grid": [3.0, 2.0, 1.0], "low": 1.0, "high": 3.0, "n_restarts": 2},
    ),
    "grids.equidistributed": (
        diffusion.grids.equidistributed,
        {"grid": [3.0, 2.0, 1.0], "errors": np.ones(3), "n_steps": 2, "power": 2.0},
    ),
    "grids.measured_errors": (
        diffusion.grids.measured_errors,
        {"score": DENOISED, "grid": [3.0, 2.0, 1.0], "sampler": diffusion.DDIM(), "n_samples": 2, "seed": 0}
        | {"start": None},
    ),
    "grids.measured_shifts": (
        diffusion.grids.measured_shifts,
        {"score": DENOISED, "grid": [3.0, 2.0, 1.0], "sampler": diffusion.DDIM(), "n_samples": 2, "seed": 0}
        | {"start": None},
    ),
    "grids.predicted_error": (
        diffusion.grids.predicted_error,
        {"grid": [3.0, 2.0, 1.0], "fine": [3.0, 2.0, 1.0], "shifts": np.ones((1, 2, 2))},
    ),
    "diffusion.exponent": (diffusion.experiments.exponent, {"x": [1.0, 2.0, 3.0], "y": [1.0, 2.0, 4.0]}),
    "diffusion.levels_of": (diffusion.experiments.levels_of, {"law": LINE, "n_levels": 3}),
    "diffusion.transported_error": (
        diffusion.experiments.transported_error,
        {"score": diffusion.ExactScore(LINE), "law": LINE, "sampler": "ddim", "times": [2.0, 1.0], "n_levels": 3},
    ),
    "diffusion.early_stopped_density": (
        diffusion.experiments.early_stopped_density,
        {"data": INPUTS, "points": INPUTS, "time": 0.5, "forward": None, "num_threads": None},
    ),
    "diffusion.stopped_errors": (
        diffusion.experiments.stopped_errors,
        {"shape": "box", "n_coordinates": 1, "sizes": [10], "factor": 0.5, "n_repetitions": 1, "n_points": 20}
        | {"seed": 0},
    ),
    "diffusion.rate_of": (diffusion.experiments.rate_of, {"shape": "box", "n_coordinates": 1}),
    "diffusion.weak_errors": (
        diffusion.experiments.weak_errors,
        {"law": LINE, "dimensions": [1, 2], "sampler": "ddim", "times": [2.0, 1.0], "forward": None, "n_levels": 3},
    ),
    "grids.gaussian_error": (
        diffusion.grids.gaussian_error,
        {"forward": DENOISED.forward, "grid": [3.0, 2.0, 1.0], "variances": 1.0},
    ),
    "diffusion.sample": (
        diffusion.sample,
        {"score": DENOISED, "n_samples": 2, "sampler": "ddim", "n_steps": 3, "times": "tangent", "scale": 1.0}
        | {"start": None, "known": None, "seed": 0, "dtype": "float32", "num_threads": None, "callback": None},
    ),
}


def control_problem(**arguments):
    """``X' = a`` towards 0."""
    return mfld.ControlProblem(**{**CONTROL, **arguments})


CONTROL = {
    "dynamics": lambda t, x, a: a,
    "running_cost": lambda t, x, a: a[:, 0] ** 2 / 2,
    "terminal_cost": lambda x: x[:, 0] ** 2 / 2,
    "horizon": 1.0,
    "n_nodes": 2,
    "initial_states": 1.0,
    "n_controls": 1,
    "dynamics_jacobians": lambda t, x, a: (np.zeros((len(x), 1, 1)), np.ones((len(x), 1, 1))),
    "running_gradients": lambda t, x, a: (0 * x, a),
    "terminal_gradient": lambda x: x,
    "scheme": "euler",
    "steps_per_node": 1,
    "state_noise": 0.0,
    "n_paths": 1,
    "shared": False,
    "l2": 0.1,
    "sample_weight": None,
    "space": None,
    "reference": None,
    "seed": 0,
}
OF_CONTROL = [name for name, given in CONTROL.items() if callable(given)]  # which a constructor calls


TABLE = {
    **{constructor.__qualname__: (constructor, right) for constructor, right in CONSTRUCTORS.items()},
    "PDA": (
        mfld.PDA,
        {"n_particles": 8, "step_size": 0.1, "temperature": 0.1, "inner_steps": 10, "batch_size": None}
        | {"dynamics": mfld.Overdamped(), "dtype": "float32", "num_threads": None, "n_replicates": 1},
    ),
    "SVIS": (
        mfld.SVIS,
        {"n_particles": 8, "n_leaders": 4, "step_size": 0.1, "temperature": 0.1, "initial_scale": 1.0}
        | {"kernel": mfld.kernels.Gaussian(1.0), "dtype": "float32", "num_threads": None, "n_replicates": 1},
    ),
    "ResidualNetwork": (
        mfld.ResidualNetwork,
        {"n_features": 2, "n_outputs": 1, "depth": 2, "n_hidden": 0, "activation": "tanh", "readout": "linear"}
        | {"bias": True, "output_scale": 1.0, "readout_bound": 1.0, "checkpoint_every": 1},
    ),
    "ResidualRisk": (
        mfld.ResidualRisk,
        {"model": mfld.ResidualNetwork(3, depth=2), "inputs": INPUTS, "targets": TARGETS, "loss": "squared", "l2": 0.1}
        | {"sample_weight": None, "reference": None},
    ),
    "ControlProblem": (control_problem, CONTROL),
    "optimality": (
        mfld.control.optimality,
        {"problem": control_problem(), "measure": np.array([[[-0.5], [-0.4]]] * 2), "temperature": 0.1}
        | {"nodes": None, "n_chains": 64, "most_moves": 128, "seed": 0},
    ),
    "RecedingHorizon": (
        mfld.control.RecedingHorizon,
        {"problem": control_problem(), "solver": make_solver(), "n_steps": 1, "n_first": None, "n_applied": 1}
        | {"plant": None},
    ),
    "Exact": (mfld.Exact, {"gradient": mfld.FullBatch()}),
    "RandomSubset": (mfld.RandomSubset, {"m": 3, "gradient": mfld.FullBatch()}),
    "KernelThinning": (
        mfld.KernelThinning,
        {"size": None, "kernel": mfld.kernels.Gaussian(1.0), "refresh": 0.3, "gradient": mfld.FullBatch()},
    ),
    "RandomFeatures": (mfld.RandomFeatures, {"m": 3, "gradient": mfld.FullBatch()}),
    "FourierFeatures": (mfld.FourierFeatures, {"gradient": mfld.FullBatch()}),
    "interactions.choose": (
        mfld.interactions.choose,
        {"objective": SIMPLE, "solver": mfld.MFLD(2, step_size=0.1, temperature=0.1), "state": None, "share": 0.1}
        | {"candidates": None, "seed": 0},
    ),
    "thinning.thin": (
        mfld.thinning.thin,
        {"points": INPUTS, "size": 2, "kernel": None, "seed": 0, "num_threads": None},
    ),
    "thinning.split": (
        mfld.thinning.split,
        {"points": INPUTS, "halvings": 1, "kernel": None, "seed": 0, "num_threads": None},
    ),
    **{
        kind.__name__: (
            kind,
            {"n_particles": 8, "step_size": 0.1, "temperature": 0.1, "gradient": mfld.FullBatch()}
            | {"dynamics": mfld.Overdamped(), "dtype": "float32", "num_threads": None, "n_replicates": 1}
            | own,
        )
        for kind, own in (
            (mfld.DescentAscent, {"alternating": False}),
            (mfld.AveragedGradient, {"weights": 1.0, "forgetting": None, "history": "clouds"}),
            (mfld.FictitiousPlay, {"weights": 0.0, "forgetting": None, "history": "reservoir", "inner_steps": 2}),
            (mfld.BestResponse, {"share": 0.5, "inner_steps": 3}),
        )
    },
    "payoffs.Function": (mfld.payoffs.Function, {"value": abs, "gradient_x": abs, "gradient_y": abs}),
    "payoffs.OfKernel": (mfld.payoffs.OfKernel, {"kernel": mfld.kernels.Gaussian(1.0), "factor": -1.0}),
    "payoffs.Opposite": (mfld.payoffs.Opposite, {"payoff": PAYOFF}),
    "payoffs.Polynomial": (mfld.payoffs.Polynomial, {"terms": {(1, 1): 1.0}, "n_coordinates": (1, 1)}),
    "payoffs.Trigonometric": (
        mfld.payoffs.Trigonometric,
        {"terms": {(1, 1): 1.0}, "n_coordinates": (1, 1), "period": 1.0},
    ),
    "Bilinear": (mfld.Bilinear, {"payoff": PAYOFF, "space": 1, "l2": 0.1, "reference": None}),
    "PairwiseGame": (
        mfld.PairwiseGame,
        {"payoffs": {("a", "b"): PAYOFF}, "players": ("b", "a"), "space": 1, "l2": 0.1, "reference": None},
    ),
    "three_point_error": (
        mfld.three_point_error,
        {"game": GAME, "candidates": [{name: mfld.Cloud([[1.0]]) for name in "xy"}] * 2, "temperature": 1.0},
    ),
    "Environment": (mfld.Environment, {"atoms": [1.0, 2.0], "weights": None}),
    "Environment.mean": (mfld.Environment([1.0, 2.0]).mean, {"values": [1.0, 2.0]}),
    "Environment.facing": (mfld.Environment([1.0, 2.0]).facing, {"objectives": [WELL, WELL]}),
    "EnvironmentGame": (
        mfld.EnvironmentGame,
        {"environment": mfld.Environment([1.0]), "at": lambda atom: GAME, "unseen_by": ["x"]},
    ),
    "Environment.game": (mfld.Environment([1.0]).game, {"at": lambda atom: GAME, "unseen_by": ["x"]}),
    "MaxMargin": (
        mfld.MaxMargin,
        {"model": MODEL, "inputs": INPUTS, "targets": np.sign(TARGETS), "largest": 1.0, "l2": 0.1}
        | {"sample_weight": None},
    ),
    "RobustRisk": (
        mfld.RobustRisk,
        {"model": MODEL, "inputs": INPUTS, "targets": TARGETS, "loss": "half_squared", "cost": 1.0, "l2": 0.1}
        | {"sample_weight": None},
    ),
    "SinglePlayer": (mfld.SinglePlayer, {"objective": WELL}),
    "Conditional": (mfld.Conditional, {"objectives": [WELL, WELL], "weights": None}),
    "GradientPenalty": (mfld.GradientPenalty, {"strength": 1.0, "target": 0.5, "at": "between"}),
    "MeanFieldGAN": (
        mfld.MeanFieldGAN,
        {"generator": mfld.TwoLayerNetwork(2, 3), "critic": MODEL, "data": INPUTS, "latent": None, "penalty": None}
        | {"l2": 0.1, "reference": None},
    ),
    "quantities.distance_to_data": (
        mfld.quantities.distance_to_data,
        {"game": GAN, "held_out": INPUTS, "n_samples": 5, "order": 1.0, "n_directions": 3, "seed": 0},
    ),
    "nikaido_isoda": (
        mfld.nikaido_isoda,
        {"game": GAME, "clouds": {name: mfld.Cloud([[1.0]]) for name in "xy"}, "temperature": 1.0}
        | {"method": "automatic", "confidence": 0.99, "n_chains": 64, "most_moves": 20, "seed": 0, "num_threads": None},
    ),
    "PSDCA": (
        mfld.PSDCA,
        {"n_particles": 8, "temperature": 0.1, "order": "cyclic", "refresh_every": None}
        | {"effective_sample_size": 0.5, "dtype": "float32", "num_threads": None, "n_replicates": 1},
    ),
    "Cooling": (mfld.Cooling, {"solver": make_solver(), "every": 3}),
    "TwoPhase": (mfld.TwoPhase, {"explore": make_solver(), "descend": None, "switch": 3}),
    "TopParticles": (mfld.TopParticles, {"sample": make_solver(), "descend": None, "n_best": 2, "switch": 3}),
    "Overdamped": (mfld.Overdamped, {"ridge": "exact"}),
    "Underdamped": (mfld.Underdamped, {"friction": 1.0, "scheme": "baoab"}),
    "Preconditioned": (mfld.Preconditioned, {"decay": 0.9, "epsilon": 1e-5, "freeze_at": None, "second_moment": 0.0}),
    "ContinuousTempering": (
        mfld.ContinuousTempering,
        {"friction": 1.0, "highest": 10.0, "base_width": 1.0} | {"hot_width": 2.0, "level": 0.0},
    ),
    "Irreversible": (mfld.Irreversible, {"skew": [[0.0, 1.0], [-1.0, 0.0]]}),
    "General": (mfld.General, {"diffusion": np.eye(2), "skew": None, "divergence": None}),
    "Smoothed": (mfld.Smoothed, {"radius": 0.1, "gradient": mfld.FullBatch(), "law": "normal"}),
    "SVGD": (mfld.SVGD, {"kernel": mfld.kernels.Gaussian(1.0)}),
    **{
        f"kernels.{kind.__name__}": (kind, {"length_scale": 1.0})
        for kind in (mfld.kernels.Gaussian, mfld.kernels.Matern52, mfld.kernels.Matern32)
    },
    "kernels.Laplace": (mfld.kernels.Laplace, {"length_scale": [1.0, 2.0]}),
    "kernels.Energy": (mfld.kernels.Energy, {"length_scale": "median"}),
    "kernels.InverseMultiquadric": (mfld.kernels.InverseMultiquadric, {"length_scale": 1.0, "exponent": -0.5}),
    "kernels.Dirichlet": (mfld.kernels.Dirichlet, {"coefficients": [0.5, 0.2], "period": 1.0}),
    "kernels.WrappedGaussian": (mfld.kernels.WrappedGaussian, {"length_scale": 0.1, "period": 1.0}),
    "kernels.Product": (mfld.kernels.Product, {"kernels": [mfld.kernels.Gaussian(1.0)], "sizes": [3]}),
    "kernels.median_distance": (mfld.kernels.median_distance, {"points": INPUTS}),
    "mixtures.GaussianMixture": (
        mfld.mixtures.GaussianMixture,
        {"weights": None, "means": [[0.0], [1.0]], "covariances": 1.0},
    ),
    "quantities.kernel_gradient_discrepancy": (
        mfld.quantities.kernel_gradient_discrepancy,
        {"objective": WELL, "temperature": 0.1, "kernel": None},
    ),
    "PerParticleMinibatch": (mfld.PerParticleMinibatch, {"batch_size": 2}),
    "Euclidean": (mfld.Euclidean, {"n_coordinates": 2}),
    "StreamRisk": (
        mfld.StreamRisk,
        {"model": MODEL, "sample": lambda k, n: (INPUTS, TARGETS), "loss": "half_squared"}
        | {"l2": 0.1, "capacity": None, "reference": None},
    ),
    "LogScore": (
        mfld.LogScore,
        {"likelihood": mfld.likelihoods.Gaussian([[0.0], [1.0]]), "l2": 0.1}
        | {"sample_weight": None, "space": None, "reference": None},
    ),
    "LogScore.particles_needed": (
        mfld.LogScore(mfld.likelihoods.Gaussian([[0.0], [1.0]])).particles_needed,
        {"measure": [[0.0], [1.0]], "tolerance": 0.1},
    ),
    "posteriors.Posterior": (
        mfld.posteriors.Posterior,
        {"likelihood": mfld.likelihoods.Gaussian([[0.0], [1.0]]), "prior_variance": 1.0},
    ),
    "posteriors.EightSchools": (
        mfld.posteriors.EightSchools,
        {"effects": [1.0, 2.0], "errors": [1.0, 1.0], "scale": 1.0},
    ),
    "posteriors.sample": (
        mfld.posteriors.sample,
        {"posterior": WELL, "methods": ["mala"], "n_chains": 2, "n_draws": 4, "n_steps": 8, "warmup": 4}
        | {"step_size": None, "seed": 0, "num_threads": None},
    ),
    "statistics.of_chains": (mfld.statistics.of_chains, {"draws": np.arange(16.0).reshape(2, 8) % 5}),
    "density.fit": (
        density.fit,
        {"rows": INPUTS[:8], "n_particles": 3, "smoothing": 0.5, "prior_rows": 1.0, "n_steps": 2}
        | {"sample_weight": None, "seed": 0, "num_threads": None},
    ),
    "likelihoods.Gaussian": (mfld.likelihoods.Gaussian, {"samples": [[0.0], [1.0]], "scale": 1.0}),
    "likelihoods.LinearRegression": (
        mfld.likelihoods.LinearRegression,
        {"inputs": INPUTS, "targets": TARGETS, "noise_variance": 1.0},
    ),
    "likelihoods.LogisticRegression": (
        mfld.likelihoods.LogisticRegression,
        {"inputs": INPUTS, "targets": np.sign(TARGETS)},
    ),
    "likelihoods.LogLikelihood": (
        mfld.likelihoods.LogLikelihood,
        {"log_density": len, "gradient": len, "n_samples": 2, "n_coordinates": 1},
    ),
    "AverageDual": (mfld.AverageDual, {"risk": SIMPLE, "start": 0, "every": 1}),
    "Checkpoint": (mfld.Checkpoint, {"path": "state.npz", "every": None, "seconds": None}),
    "Product": (schedules.Product, {"left": schedules.Constant(1.0), "right": schedules.Constant(1.0)}),
    "run": (
        make_solver().run,
        {"objective": SIMPLE, "n_steps": 2, "seed": 0, "particles": None, "state": None}
        | {"record_every": 1, "record": None, "callbacks": ()},
    ),
    "run from a state": (make_solver().run, {"objective": SIMPLE, "n_steps": 2, "seed": 0, "state": STATE}),
    "init": (make_solver().init, {"objective": SIMPLE, "seed": 0, "particles": None, "replica": 0}),
    "advance": (make_solver().advance, {"objective": SIMPLE, "state": STATE, "n_steps": 1}),
    "Result.predict": (RESULT.predict, {"inputs": INPUTS}),
    "Result.certificate": (RESULT.certificate, {"confidence": 0.9, "dual": None, "temperature": None, **QUICK}),
    "certificate": (
        mfld.certificate,
        {"risk": SIMPLE, "dual": TARGETS, "temperature": 0.1, "l2": None}
        | {"confidence": 0.9, "tolerance": 1e-4, "seed": 0, "dtype": "float32", "num_threads": None, **QUICK},
    ),
    "log_partition": (
        mfld.certificates.log_partition,
        {"risk": SIMPLE, "dual": TARGETS, "temperature": 0.1}
        | {"method": "thermodynamic", "n_chains": 2, "n_moves": 2, "seed": 0, "num_threads": None},
    ),
    "fenchel_young_gap": (
        mfld.certificates.fenchel_young_gap,
        {"risk": SIMPLE, "predictions": TARGETS, "dual": TARGETS},
    ),
    "dual_at": (mfld.certificates.dual_at, {"risk": SIMPLE, "measure": CLOUD}),
    "smallest_ridge": (mfld.certificates.smallest_ridge, {"risk": SIMPLE, "dual": TARGETS[:, np.newaxis]}),
    "student_quantile": (mfld.certificates.student_quantile, {"confidence": 0.9, "degrees": 31}),
    "prune": (mfld.prune, {"model": MODEL, "cloud": CLOUD, "inputs": INPUTS, "n_particles": 1, "num_threads": None}),
    "resample": (mfld.resample, {"cloud": CLOUD, "n_particles": 2, "seed": 0}),
    "quantities.ridge": (mfld.quantities.ridge, {"objective": WELL}),
    "quantities.score": (mfld.quantities.score, {"risk": SIMPLE}),
    "quantities.gap": (mfld.quantities.gap, {"algorithm": make_solver(), "risk": SIMPLE, "temperature": 0.1}),
    "quantities.free_energy": (
        mfld.quantities.free_energy,
        {"algorithm": make_solver(), "risk": SIMPLE, "temperature": 0.1},
    ),
    "quantities.gap_bound": (
        mfld.quantities.gap_bound,
        {"algorithm": make_solver(), "risk": SIMPLE, "temperature": 0.1, "confidence": 0.99},
    ),
    "statistics.summary": (mfld.statistics.summary, {"result": RESULT, "burn_in": 0}),
    "statistics.export": (mfld.statistics.export, {"result": RESULT, "burn_in": 0}),
    "SignedRisk": (
        mfld.SignedRisk,
        {"model": FIXED, "inputs": INPUTS, "targets": TARGETS, "loss": "half_squared", "strength": 0.1}
        | {"reduction": mfld.Bilevel(), "l2": 0.0, "sample_weight": None, "reference": None, "n_outputs": None},
    ),
    "SignedRisk.coefficients": (SIGNED_LOGISTIC.coefficients, {"measure": np.ones((2, 4)), "start": None}),
    "SignedRisk.gradient_at": (
        SIGNED_RISK.gradient_at,
        {"measure": np.ones((2, 4)), "coefficients": np.ones((len(INPUTS), 1))},
    ),
    "Bilevel": (mfld.Bilevel, {"tolerance": 1e-6}),
    "Lifting": (mfld.Lifting, {"metric": "product"}),
    "LabelNoise": (mfld.LabelNoise, {"scale": 0.1, "variant": "outer"}),
    "SignedMeasure": (mfld.SignedMeasure, {"model": FIXED, "positions": np.ones((2, 4)), "weights": [1.0, -1.0]}),
    "SignedMeasure.predict": (SIGNED.predict, {"inputs": INPUTS, "num_threads": None}),
    "SignedMeasure.prune": (SIGNED.prune, {"threshold": 0.1}),
    "SignedMeasure.merged": (SIGNED.merged, {"radius": 0.1}),
    "signed_certificate": (
        mfld.signed_certificate,
        {"risk": SIGNED_RISK, "measure": SIGNED, "penalty": "tv", "tolerance": 1e-3},
    ),
    "deconvolution.Gaussian": (mfld.deconvolution.Gaussian, {"width": 1.0}),
    "deconvolution.Dirichlet": (mfld.deconvolution.Dirichlet, {"frequencies": 2, "period": 1.0}),
    "deconvolution.Sampled": (mfld.deconvolution.Sampled, {"values": np.hanning(7), "spacing": 1.0}),
    "deconvolution.Convolution": (
        mfld.deconvolution.Convolution,
        {"point_spread": mfld.deconvolution.Gaussian(1.0), "axes": [np.arange(9.0)]},
    ),
    "deconvolve": (
        mfld.deconvolve,
        {"signal": np.hanning(9), "point_spread": mfld.deconvolution.Gaussian(1.0), "strength": 0.01, "axes": None}
        | {"penalty": "tv", "n_particles": 5, "n_steps": 3, "gap": 1e-3, "seed": 0, "num_threads": None},
    ),
    "pieces.InPieces": (
        mfld.pieces.InPieces,
        {"solver": make_solver(), "path": "cloud.npy", "n_pieces": 3},
    ),
    "mpi.Sharded": (mfld.mpi.Sharded, {"solver": make_solver(), "comm": ALONE, "shard": "auto", "machine": None}),
    "mpi.Sharded.run": (
        mfld.mpi.Sharded(make_solver(), ALONE).run,
        {"objective": SIMPLE, "n_steps": 2, "seed": 0, "particles": None, "state": None}
        | {"record_every": 1, "record": None, "callbacks": ()},
    ),
    "mpi.Sharded.plan": (mfld.mpi.Sharded(make_solver(), ALONE).plan, {"objective": SIMPLE}),
    "mpi.Sharded.certificate": (
        mfld.mpi.Sharded(make_solver(), ALONE).certificate,
        {"result": make_solver().run(SIMPLE, 8), "confidence": 0.9, **QUICK},
    ),
    "scaling.Work": (
        mfld.scaling.Work,
        {"n_particles": 100, "n_features": 2, "n_rows": 9, "n_outputs": 1, "n_coordinates": None, "dtype": "float32"}
        | {"isa": "v3", "n_summed": 1, "kept": 1},
    ),
    "scaling.Machine": (
        mfld.scaling.Machine,
        {"latency": 1e-6, "bandwidth": 1e9, "seconds_per_particle": 1e-6, "seconds_per_step": 0.0},
    ),
    "scaling.typical": (mfld.scaling.typical, {"work": mfld.scaling.Work(10, 2, 9)}),
    "scaling.measure": (
        mfld.scaling.measure,
        {"comm": ALONE, "solver": make_solver(), "risk": SIMPLE, "seconds": 1e-6},
    ),
    "sweep": (
        mfld.sweep,
        {"function": np.sqrt, "grid": [{}], "path": None, "executor": 0, "seed": 0, "progress": False},
    ),
    "checkpoint.load": (
        mfld.checkpoint.load,
        {"path": "missing.npz", "algorithm": None, "objective": None} | {"accept_other": False},
    ),
    "checkpoint.save": (
        mfld.checkpoint.save,
        {"state": STATE, "path": "state.npz", "algorithm": None, "objective": None},
    ),
    "checkpoint.run": (
        mfld.checkpoint.run,
        {"algorithm": make_solver(), "objective": SIMPLE, "n_steps": 2, "seed": 0}
        | {"path": "run.npz", "every": None, "seconds": None, "resume": False, "accept_other": False},
    ),
    "checkpoint.fingerprint": (mfld.checkpoint.fingerprint, {"algorithm": make_solver(), "objective": SIMPLE}),
    "potentials.Gaussian": (mfld.potentials.Gaussian, {"mean": [0.0, 1.0], "covariance": None}),
    "potentials.GaussianMixture": (
        mfld.potentials.GaussianMixture,
        {"means": [[0.0], [1.0]], "covariances": 1.0} | {"weights": None},
    ),
    "potentials.DoubleWell": (
        mfld.potentials.DoubleWell,
        {"n_coordinates": 1, "distance": 1.0, "height": 1.0, "tilt": 0.0},
    ),
    "FokkerPlanck": (
        mfld.FokkerPlanck,
        {"objective": mfld.potentials.DoubleWell(), "temperature": 0.2, "n_cells": 20, "limits": [(-2, 2)]},
    ),
    "FokkerPlanck.run": (GRID.run, {"density": np.ones(20), "n_steps": 3, "time_step": 0.1, "record_every": None}),
    "FokkerPlanck.histogram": (GRID.histogram, {"measure": np.ones((4, 1))}),
    "diagnostics.entropy": (diagnostics.entropy, {"measure": INPUTS, "k": 3, "space": None}),
    "diagnostics.kl": (
        diagnostics.kl,
        {"measure": INPUTS, "potential": WELL_3, "temperature": 0.1, "log_normaliser": 0.0, "k": 3},
    ),
    "diagnostics.fisher_divergence": (
        diagnostics.fisher_divergence,
        {"measure": INPUTS, "potential": WELL_3, "temperature": 0.1, "bandwidth": None, "n_points": 9},
    ),
    "diagnostics.mmd": (
        diagnostics.mmd,
        {"first": INPUTS, "second": INPUTS[:5], "kernel": mfld.kernels.Gaussian(1.0)},
    ),
    "diagnostics.ksd": (
        diagnostics.ksd,
        {"measure": INPUTS, "objective": WELL_3, "temperature": 0.1, "kernel": None},
    ),
    "diagnostics.log_normaliser": (diagnostics.log_normaliser, {"potential": WELL_3, "temperature": 0.1}),
    "diagnostics.StepLaw": (
        diagnostics.StepLaw,
        {"objective": WELL_3, "measure": INPUTS, "step_size": 0.1, "temperature": 0.1},
    ),
    "StepLaw.log_density": (STEP_LAW.log_density, {"points": INPUTS}),
    "StepLaw.draw": (STEP_LAW.draw, {"n_draws": 3, "seed": 0}),
    "StepLaw.kl": (STEP_LAW.kl, {"potential": WELL_3, "log_normaliser": 0.0, "n_draws": 3, "seed": 0}),
    "StepLaw.fisher_divergence": (STEP_LAW.fisher_divergence, {"potential": WELL_3, "n_draws": 3, "seed": 0}),
    "diagnostics.wasserstein": (diagnostics.wasserstein, {"first": INPUTS, "second": INPUTS[:5], "order": 2}),
    "diagnostics.sliced_wasserstein": (
        diagnostics.sliced_wasserstein,
        {"first": INPUTS, "second": INPUTS[:5], "order": 2, "n_directions": 5, "seed": 0},
    ),
    "diagnostics.gaussian_wasserstein": (diagnostics.gaussian_wasserstein, {"first": INPUTS, "second": INPUTS[:5]}),
    "diagnostics.stein_identities": (
        diagnostics.stein_identities,
        {"objective": WELL_3, "measure": INPUTS, "temperature": 0.1},
    ),
    "diagnostics.effective_sample_size": (
        diagnostics.effective_sample_size,
        {"draws": INPUTS.reshape(4, 9), "kind": "mean"},
    ),
    "diagnostics.rhat": (diagnostics.rhat, {"draws": INPUTS.reshape(4, 9)}),
    "diagnostics.autocorrelation_time": (diagnostics.autocorrelation_time, {"draws": INPUTS.reshape(4, 9)}),
    "diagnostics.conjugate_kernel": (
        diagnostics.conjugate_kernel,
        {"model": MODEL, "measure": np.ones((2, 5)), "inputs": INPUTS, "num_threads": None},
    ),
    "diagnostics.tangent_kernel": (
        diagnostics.tangent_kernel,
        {"model": MODEL, "measure": np.ones((2, 5)), "inputs": INPUTS, "num_threads": None},
    ),
    "diagnostics.kernel_alignment": (diagnostics.kernel_alignment, {"kernel": np.eye(12), "targets": TARGETS}),
    "diagnostics.degrees_of_freedom": (diagnostics.degrees_of_freedom, {"kernel": np.eye(12), "ridge": 0.1}),
    "diagnostics.parameter_alignment": (
        diagnostics.parameter_alignment,
        {"weights": INPUTS, "directions": [1.0, 2.0, 3.0]},
    ),
    "diagnostics.propagation_of_chaos": (
        diagnostics.propagation_of_chaos,
        {"solver": lambda n: make_solver(n_particles=n, n_replicates=2), "objective": WELL}
        | {"quantity": lambda state: state.particles.mean(), "widths": [2, 4], "n_steps": 2, "seed": 0},
    ),
    "Coupled": (mfld.dynamics.Coupled, {"dynamics": mfld.Overdamped(), "couplings": {}}),
    "bias_report": (
        mfld.bias_report,
        {"solver": make_solver(), "objective": SIMPLE, "quantity": mfld.quantities.loss(SIMPLE), "n_steps": 2}
        | {"seed": 0, "n_replicates": 4, "confidence": 0.9},
    ),
    "theory.log_sobolev": (
        theory.log_sobolev,
        {"objective": SIMPLE, "temperature": 0.1, "l2": 0.1, "n_coordinates": 3, "oscillation": 0.1}
        | {"lipschitz": 0.1, "convexity": 0.1},
    ),
    "theory.continuous": (theory.continuous, {"initial_gap": 1.0, "alpha": 1.0, "temperature": 0.1}),
    "theory.discrete": (
        theory.discrete,
        {"initial_gap": 1.0, "alpha": 1.0, "temperature": 0.1, "step_size": 0.01, "n_particles": 10}
        | {"fluctuation": 1.0, "smoothness": 1.0, "n_coordinates": 3, "linear": False, "estimator": "svrg"}
        | {"n_samples": 20, "batch_size": 4, "refresh_every": 2, "constant": 1.0},
    ),
    "theory.plan": (
        theory.plan,
        {"objective": SIMPLE, "accuracy": 0.1, "temperature": 10.0, "initial_gap": 1.0, "estimator": "full"}
        | {"smoothness": 1.0, "oscillation": 0.1, "lipschitz": 0.1, "convexity": 0.1, "fluctuation": 1.0}
        | {"run": None, "most_steps": 1},
    ),
    "theory.observe": (
        theory.observe,
        {"objective": WELL, "solver": make_solver(), "accuracy": 0.1, "seed": 0, "most_steps": 4},
    ),
    "theory.fit_rate": (
        theory.fit_rate,
        {"times": np.arange(1.0, 13.0), "values": 1 / np.arange(1.0, 13.0), "floor": 0.0, "kind": "power"},
    ),
    "theory.sandwich": (
        theory.sandwich,
        {"objective": WELL_1, "measure": INPUTS[:, :1], "temperature": 0.1, "entropy": 1.0, "optimum": None},
    ),
    "theory.contraction": (
        theory.contraction,
        {
            "dynamics": mfld.Overdamped(),
            "objective": WELL,
            "points": INPUTS[:, :2],
            "temperature": 0.1,
            "measure": None,
            "metric": np.eye(2),
        },
    ),
    "theory.contraction by directions": (
        theory.contraction,
        {"dynamics": mfld.Underdamped(1.0), "objective": WELL, "points": INPUTS[:, :2], "directions": np.eye(4)},
    ),
    "theory.fisher": (
        theory.fisher,
        {
            "objective": WELL,
            "state": make_solver().init(WELL),
            "temperature": 0.1,
            "metric": np.eye(2),
            "measure": None,
        },
    ),
    "features.Waves": (
        mfld.features.Waves,
        {"columns": [0, 1], "frequencies": np.ones((3, 2)), "shares": [1.0, 1.0, 2.0]},
    ),
    "features.OneHot": (mfld.features.OneHot, {"category": 0, "width": 2}),
    "features.ProductFeatures": (
        mfld.features.ProductFeatures,
        {"n_numbers": 1, "sizes": [2], "factors": [mfld.features.OneHot(0, 2)], "label": None}
        | {"blocks": [mfld.features.Block((0,))]},
    ),
    "FeatureMatching": (
        mfld.FeatureMatching,
        {"features": FEATURES, "target": np.zeros(FEATURES.n_features), "weights": np.ones(FEATURES.n_features)}
        | {"label_shares": [0.5, 0.5], "reference": None},
    ),
    "privacy.table_features": (
        privacy.table_features,
        {"n_numbers": 2, "sizes": [2, 3], "label": 1, "marginals": 0.4, "pairs": 0.3, "joint": 0.3}
        | {"classes": 0.1, "waves": 5, "length_scale": 0.25, "by_label": False, "seed": 0},
    ),
    "privacy.PrivateEmbedding": (
        privacy.PrivateEmbedding,
        {"numbers": np.full((4, 2), 0.5), "codes": np.zeros((4, 2), int), "features": FEATURES}
        | {"epsilon": 1.0, "delta": 1e-5},
    ),
    "privacy.gaussian_delta": (privacy.gaussian_delta, {"epsilon": 1.0, "noise_multiplier": 1.0}),
    "privacy.gaussian_epsilon": (privacy.gaussian_epsilon, {"delta": 1e-5, "noise_multiplier": 1.0}),
    "privacy.noise_multiplier": (privacy.noise_multiplier, {"epsilon": 1.0, "delta": 1e-5}),
    "privacy.private_bounds": (
        privacy.private_bounds,
        {"values": np.linspace(1, 2, 99), "noise_multiplier": 1.0, "neighbours": "replace", "name": "values"}
        | {"seed": None},
    ),
    "privacy.private_categories": (
        privacy.private_categories,
        {"counts": [90, 80], "noise_multiplier": 1.0, "delta": 1e-5, "neighbours": "replace", "seed": None},
    ),
    "Clipped": (mfld.Clipped, {"max_norm": 1.0, "noise_multiplier": 1.0, "batch_rate": 0.1, "seed": None}),
    "PrivacyBudget": (
        mfld.PrivacyBudget,
        {"epsilon": 1.0, "delta": 1e-5, "every": 5, "count_dynamics": False},
    ),
    "privacy.sampled_gaussian": (
        privacy.sampled_gaussian,
        {"order": 2.0, "rate": 0.1, "noise_multiplier": 1.0},
    ),
    "privacy.training_epsilon": (
        privacy.training_epsilon,
        {"noise_multipliers": [1.0, 2.0], "rate": 0.1, "delta": 1e-5, "releases": [3.0], "accountant": "rdp"},
    ),
    "privacy.training_multiplier": (
        privacy.training_multiplier,
        {"epsilon": 1.0, "delta": 1e-5, "rate": 0.1, "n_steps": 10, "releases": [5.0]},
    ),
    "privacy.last_iterate": (
        privacy.last_iterate,
        {"objective": WELL, "order": 2.0, "sensitivity": 1.0, "n_rows": 10, "convexity": 1.0, "smoothness": 1.0}
        | {"step_size": 0.1, "temperature": 0.1, "n_steps": 5, "quadratic": True},
    ),
    "privacy.generator": (privacy.generator, {"seed": None}),
    "privacy.together": (privacy.together, {"multipliers": [1.0, 2.0]}),
    "privacy.GaussianMechanism": (privacy.GaussianMechanism, {"noise_multiplier": 1.0, "sensitivity": 1.0}),
    "privacy.discrete_gaussian": (
        privacy.discrete_gaussian,
        {"deviation": 3, "source": privacy.generator()},
    ),
    **DIFFUSION,
    "potentials.Funnel": (mfld.potentials.Funnel, {"n_coordinates": 3, "scale": 3.0}),
    "potentials.Banana": (mfld.potentials.Banana, {"n_coordinates": 2, "scale": 3.0, "bend": 0.1}),
    "potentials.BayesianLinearRegression": (
        mfld.potentials.BayesianLinearRegression,
        {"inputs": INPUTS} | {"targets": TARGETS, "noise_variance": 1.0, "prior_variance": 1.0},
    ),
    "potentials.BayesianLogisticRegression": (
        mfld.potentials.BayesianLogisticRegression,
        {"inputs": INPUTS} | {"targets": np.sign(TARGETS), "prior_variance": 1.0},
    ),
}
VALUES = {
    "None": lambda: None,
    "text": lambda: "x",
    "no text": lambda: "",
    "bytes": lambda: b"\x01",
    "True": lambda: True,
    "huge": lambda: 10**30,
    "beyond floats": lambda: 10**400,
    "tiny": lambda: 1e-320,
    "large": lambda: 1e308,
    "-1": lambda: -1,
    "-0.5": lambda: -0.5,
    "nan": lambda: np.nan,
    "inf": lambda: np.inf,
    "-inf": lambda: -np.inf,
    "complex": lambda: 1j,
    "set": lambda: {1},
    "generator": lambda: (k for k in (1, 2)),
    "object": object,
    "list": lambda: [],
    "ragged": lambda: [[1.0], [1.0, 2.0]],
    "mapping": lambda: {"a": 1},
    "date": lambda: np.datetime64("2020"),
    "0-d": lambda: np.array(3),
    "1-d": lambda: np.zeros(3),
    "2-d": lambda: np.zeros((2, 2)),
    "3-d": lambda: np.zeros((2, 2, 2)),
    "text array": lambda: np.array(["a"]),
    "objects": lambda: np.array([None, 1]),
    "masked": lambda: np.ma.array([1.0, 2.0], mask=[0, 1]),
    "a type": lambda: int,
    "a function": lambda: len,
}
# Functions of the user are called with what fits them alone; beyond them, another argument may be named with this one.
SIZES = (
    "n_particles",
    "n_coordinates",
    "n_controls",
    "n_features",
    "n_outputs",
    "n_samples",
    "n_rows",
    "n",
    "n_replicates",
    "n_chains",
)
ELSEWHERE = {
    "objective": {"particles", "state"},
    "state": {"particles", "seed"},
    "sample": {"explore"},
    "temperature": {"potential"},
    "accuracy": {"fluctuation"},
    "convexity": {"temperature"},
    "measure": {"particles"},
    "n_outputs": {"targets"},
    "sizes": {"label"},
    "numbers": {"codes"},
    "initial_states": {"dynamics", "running_cost"},
    "n_controls": {"dynamics", "running_cost"},
    "counts": {"values"},
    "delta": {"values"},
    "noise_multiplier": {"values"},
}
CALLED = (
    "density",
    "solver",
    "quantity",
    "callback",
    "times",
    "weight",
)  # at once, so that what they raise is their own


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:n_modes must be at most", "ignore:NOT PRIVATE")
@pytest.mark.parametrize(
    ("signature", "argument"), [(name, argument) for name, (_, right) in TABLE.items() for argument in right]
)
def test_each_argument_against_each_odd_value(signature, argument, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, right = TABLE[signature]
    wrong = []
    for value, make in VALUES.items():
        if value in ("huge", "beyond floats") and argument in SIZES:
            continue  # a matter of memory
        if value in ("a type", "a function") and argument in CALLED:
            continue
        if value in ("a type", "a function") and signature == "ControlProblem" and argument in OF_CONTROL:
            continue
        odd = make()
        try:
            call(**{**right, argument: odd})
        except (TypeError, ValueError) as error:
            paired = set(right) if call in PAIRED else set()
            names = {argument, *ALIASES.get(argument, ()), *ELSEWHERE.get(argument, ()), *paired}
            if not any(name in str(error) for name in names):
                wrong.append((value, error))
        except (mfld.DivergenceError, FileNotFoundError, ImportError):
            pass  # by an argument that is right, or one that needs an extra
        except Exception as error:
            wrong.append((value, error))
    assert not wrong, "\n".join(f"{signature}({argument}={value}): {error!r}" for value, error in wrong)


def takes_arguments(part):
    """Whether a function or class has parameters; a class of errors, which has no signature, takes anything."""
    return (isinstance(part, type) and issubclass(part, Exception)) or bool(inspect.signature(part).parameters)


def test_every_public_signature_is_in_the_table():
    tried = {getattr(call, "__func__", call) for call, _ in TABLE.values()} | {mfld.ControlProblem}
    modules = [mfld] + [getattr(mfld, name) for name in mfld.__all__ if inspect.ismodule(getattr(mfld, name))]
    parts = {getattr(module, name) for module in modules for name in getattr(module, "__all__", ())}
    left = {
        part.__qualname__
        for part in parts - tried
        if callable(part) and not inspect.isabstract(part) and getattr(part, "__qualname__", "") not in MADE
        if takes_arguments(part)
    }
    assert not left


# What the library makes itself, what takes anything, and a function of the build.
MADE = {
    "Argument",
    "BiasReport",
    "BlowUpError",
    "Bound",
    "Callback",
    "Certificate",
    "Chaos",
    "Choice",
    "ClosedLoop",
    "Comparison",
    "Contraction",
    "ConvergenceError",
    "Deconvolution",
    "DiffusionModel",
    "DivergenceError",
    "Draws",
    "EquilibriumGap",
    "Estimate",
    "Expense",
    "Info",
    "Ledger",
    "Leg",
    "LogSobolev",
    "Modes",
    "Move",
    "Normaliser",
    "Observed",
    "Optimality",
    "Plan",
    "PrivacyWarning",
    "Progress",
    "Rate",
    "Result",
    "Row",
    "Sandwich",
    "SharePlan",
    "SignedCertificate",
    "Spectrum",
    "Statistics",
    "SteinIdentities",
    "SteinSums",
    "SteinTerms",
    "Trajectory",
    "Step",
    "Sweep",
    "show_config",
}


def test_a_number_without_an_axis_and_a_generator_are_taken():
    run = make_solver().run
    assert run(WELL, 6, record_every=np.array(3)).history["step"].tolist() == [3, 6]
    assert run(WELL, 6, record_every=(k for k in (2, 5))).history["step"].tolist() == [2, 5]
    calls = []
    watches = (mfld.StopWhen(lambda state, info: calls.append(state.step) or False, every=3) for _ in range(2))
    run(WELL, 6, callbacks=watches)
    assert calls == [3, 3, 6, 6]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_solver().run(WELL, 10**30, record_every=1), "n_steps must be between 0 and"),
        (
            lambda: make_solver().run(WELL, 10**12, record_every=1),
            "record_every must be at least 100000 in a run of 1000",
        ),
        (lambda: schedules.SwitchOff(-1.0, at=3), "schedule must be finite and at least 0, got -1.0"),
        (lambda: schedules.Piecewise([1.0, -1.0], [0, 3]), r"schedules\[1\] must be finite and at least 0, got -1.0"),
        (
            lambda: mfld.certificate(SIMPLE, TARGETS, 1e308),
            r"temperature / \(2 l2\) must be between .* temperature=1e\+308",
        ),
        (lambda: make_solver(step_size=10**400), "step_size must be finite and positive, got inf"),
    ],
)
def test_refusals_name_what_the_user_gave(call, message):
    with pytest.raises(ValueError, match=message):
        call()
