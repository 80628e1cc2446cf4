"""Hashes of many small runs: a change of one bit anywhere is found, and told apart from the rest by name.

``tests/data/bits.json`` has the first 16 hexadecimal digits of the SHA-256 of what each run leaves: particles, weights,
buffers, history. They hold for the kernels of level v3 as the compiler that is recorded beside them builds them; with
another one, or another C library, there is nothing to compare and the tests are skipped. The cases have three groups:

- ``core``: the kernels, arithmetic, square roots and sums in NumPy, scalar functions of the C library;
- ``numpy``: whatever goes through exp, log or powers of arrays, einsum or linear algebra, whose bits depend on the
  version of NumPy and, by its choice of loops and of BLAS kernels, on the processor: both are recorded too;
- ``defaults``: what the library chooses by itself, such as step sizes, and whole fits. It is expected to change where
  the changelog announces it. BLAS has one thread here, since the defaults depend on their number.

A change that is meant: ``python tests/test_bits.py --write [group ...]``, and a line in the changelog.
"""

import argparse
import functools
import hashlib
import itertools
import json
import platform
from pathlib import Path

import numpy as np
import pytest

import mfld
from mfld import _core, certificates, experiments, noise, potentials, schedules

PATH = Path(__file__).parent / "data" / "bits.json"
GROUPS = ("core", "numpy", "defaults")
LEVEL = "v3"
PRECISIONS = ("float32", "float64")
CASES = {group: {} for group in GROUPS}


def case(group, name, function, *arguments, **options):
    assert name not in CASES[group], name
    CASES[group][name] = functools.partial(function, *arguments, **options)


# ---- what is looked at -----------------------------------------------------------------------------------------------


def arrays_of_state(state):
    found = {}
    for name, cloud in state.clouds.items():
        of = "" if name == "mu" else f" of {name}"
        found[f"particles{of}"] = cloud.particles
        if cloud.weights is not None:
            found[f"weights{of}"] = cloud.weights
    return found | {f"buffer {name}": value for name, value in state.buffers.items()}


def arrays_of_result(result):
    history = {name: result.history[name] for name in ("loss", "gradient_norm", "acceptance")}
    if np.isnan(history["acceptance"]).all():
        del history["acceptance"]
    return arrays_of_state(result.state) | history


def arrays_of_cloud(cloud):
    return {"particles": cloud.particles} | ({} if cloud.weights is None else {"weights": cloud.weights})


def hashed(arrays):
    return {name: hashlib.sha256(np.asarray(array).tobytes()).hexdigest()[:16] for name, array in arrays.items()}


# ---- data: uniform numbers and arithmetic, which are the same everywhere ---------------------------------------------


def inputs_of(n, n_features, seed=0):
    return np.random.default_rng(seed).uniform(-2, 2, size=(n, n_features))


def targets_of(loss, n, n_outputs):
    rng = np.random.default_rng(1)
    if loss == "cross_entropy":
        return rng.integers(0, n_outputs, size=n)
    shape = (n,) if n_outputs == 1 else (n, n_outputs)
    if loss in ("logistic", "hinge", "smoothed_hinge"):
        return rng.integers(0, 2, size=shape) * 2.0 - 1
    return rng.uniform(-1, 1, size=shape)


def risk(loss="logistic", n=23, features=3, outputs=1, *, weights=False, l2=1e-2, **network):
    return mfld.EmpiricalRisk(
        mfld.TwoLayerNetwork(features, outputs, **network),
        inputs_of(n, features),
        targets_of(loss, n, outputs),
        loss=loss,
        l2=l2,
        sample_weight=np.random.default_rng(2).uniform(0.1, 1, size=n) if weights else None,
    )


def stream_risk(loss="half_squared", features=2, capacity=200):
    def sample(step, n_rows):
        inputs = inputs_of(n_rows, features, seed=1000 + step)
        return inputs, inputs[:, 0] * inputs[:, 1] / 4

    model = mfld.TwoLayerNetwork(features, readout="bounded")
    return mfld.StreamRisk(model, sample, loss=loss, l2=0.05, capacity=capacity)


def cauchy_like(predictions, targets):
    """A loss in Python, of arithmetic only: ``d**2 / (1 + d**2)``."""
    difference = predictions - targets
    square = difference * difference
    return square / (1 + square), 2 * difference / ((1 + square) * (1 + square))


def python_loss():
    model = mfld.TwoLayerNetwork(3, activation="gelu")
    return mfld.EmpiricalRisk(model, inputs_of(19, 3), targets_of("squared", 19, 1), loss=cauchy_like, l2=1e-2)


def bumps():
    def value(theta, z):
        difference = z[:, np.newaxis, :] - theta
        return 1 / (1 + (difference * difference).sum(axis=2))

    def gradient(theta, z):
        return 2 * (value(theta, z) ** 2)[:, :, np.newaxis] * (z[:, np.newaxis, :] - theta)

    model = mfld.NeuronModel(value, gradient, n_features=2, n_coordinates=2)
    return mfld.EmpiricalRisk(model, inputs_of(19, 2), targets_of("squared", 19, 1), loss="huber", l2=1e-2)


def quartic(n_moving=3):
    """Three coordinates; with two that move the third tilts their wells."""

    def gradient(x):
        slope = x * (x * x - 1)
        slope[:, 0] += x[:, 2] / 4
        return slope

    def value(x):
        return ((x * x - 1) * (x * x - 1)).sum(axis=1) / 4 + x[:, 0] * x[:, 2] / 4

    return mfld.Potential(gradient, value, n_coordinates=3, n_moving=n_moving, l2=0.05)


def repulsion():
    return mfld.Functional(lambda x: x.mean(axis=0) - x, lambda x: -x.var(axis=0).sum() / 2, n_coordinates=3, l2=1.0)


def regression():
    """A functional with samples: the square of a mean, whose gradient at a batch is unbiased."""
    rows = inputs_of(17, 3)

    def gradient(x, batch=None):
        chosen = rows if batch is None else rows[batch]
        return np.broadcast_to(x.mean(axis=0) - chosen.mean(axis=0), x.shape).astype(x.dtype)

    def value(x):
        difference = x.mean(axis=0) - rows.mean(axis=0)
        return (difference * difference).sum() / 2

    return mfld.Functional(gradient, value, n_coordinates=3, n_samples=17, l2=0.1)


# ---- MFLD ------------------------------------------------------------------------------------------------------------

EXACT = {
    "full": mfld.FullBatch,
    "smoothed": lambda: mfld.Smoothed(0.2),
    "smoothed in a ball": lambda: mfld.Smoothed(lambda k: 1 / (1 + k), law="ball"),
}
SAMPLED = {
    "minibatch": lambda: mfld.Minibatch(5),
    "svrg": lambda: mfld.SVRG(4, 3),
    "sarah": lambda: mfld.SARAH(4, 3),
    "smoothed minibatch": lambda: mfld.Smoothed(0.1, mfld.Minibatch(5)),
}
OF_PARTICLES = {"per particle": lambda: mfld.PerParticleMinibatch(4)}
NATIVE = ("full", "minibatch", "svrg", "sarah")
ESTIMATORS = EXACT | SAMPLED | OF_PARTICLES


def rotation(m):
    return np.triu(np.ones((m, m)), 1) - np.triu(np.ones((m, m)), 1).T


def diffusion(m):
    return lambda x: np.eye(m) * (1 + x[:, :m] ** 2 / (1 + x[:, :m] ** 2))[:, :, np.newaxis] + 0.25


DYNAMICS = {
    "overdamped": lambda m: mfld.Overdamped(),
    "baoab": lambda m: mfld.Underdamped(1.5, "baoab"),
    "obabo": lambda m: mfld.Underdamped(1.5, "obabo"),
    "middle": lambda m: mfld.Underdamped(1.5, "middle"),
    "frozen force": lambda m: mfld.Underdamped(1.5, "frozen_force"),
    "preconditioned": lambda m: mfld.Preconditioned(decay=0.8, second_moment=1.0),
    "preconditioned until 4": lambda m: mfld.Preconditioned(decay=0.8, freeze_at=4),
}
DYNAMICS_BY_NUMPY = {
    "irreversible": lambda m: mfld.Irreversible(rotation(m)),
    "general": lambda m: mfld.General(diffusion(m), rotation(m)),
    "general of constants": lambda m: mfld.General(np.eye(m) + 0.5),
}
DYNAMICS_OF_POTENTIALS = {
    "mala": lambda m: mfld.MALA(),
    "tempering": lambda m: mfld.ContinuousTempering(base_width=0.2, hot_width=0.5, level=-1.0),
}
EVERY_DYNAMICS = DYNAMICS | DYNAMICS_BY_NUMPY | DYNAMICS_OF_POTENTIALS


def group_of(dynamics):
    return "numpy" if dynamics in DYNAMICS_BY_NUMPY else "core"


def langevin(objective, estimator="full", dynamics="overdamped", n_particles=33, n_steps=7, **options):
    problem = objective()
    settings = {"step_size": 0.05, "temperature": 1e-2, **options}
    solver = mfld.MFLD(
        n_particles,
        gradient=ESTIMATORS[estimator](),
        dynamics=EVERY_DYNAMICS[dynamics](problem.n_moving),
        **settings,
    )
    return arrays_of_result(solver.run(problem, n_steps, seed=5))


for dtype in PRECISIONS:
    run = functools.partial(langevin, dtype=dtype)

    # Every estimator with every dynamics, on each kind of objective that takes them.
    for kind, objective, estimators, extra in (
        ("risk", functools.partial(risk, weights=True), ESTIMATORS, {}),
        ("python loss", python_loss, ("full", "minibatch", "svrg", "sarah", "per particle"), {}),
        ("potential", quartic, EXACT, DYNAMICS_OF_POTENTIALS),
        ("potential with a frozen coordinate", functools.partial(quartic, 2), ("full",), DYNAMICS_OF_POTENTIALS),
        ("functional", repulsion, EXACT, {}),
        ("functional with samples", regression, SAMPLED, {}),
        ("neurons of numpy", bumps, EXACT | SAMPLED, {}),
    ):
        for estimator, dynamics in itertools.product(estimators, DYNAMICS | DYNAMICS_BY_NUMPY | extra):
            if dynamics in extra and estimator != "full":
                continue
            group = "numpy" if objective is bumps else group_of(dynamics)
            case(group, f"{kind}: {estimator}, {dynamics}, {dtype}", run, objective, estimator, dynamics)

    # Every activation with every readout; the losses take turns.
    turns = itertools.cycle(["squared", "half_squared", "absolute", "huber", "logistic", "hinge", "smoothed_hinge"])
    for activation, readout in itertools.product(mfld.activations(), mfld.readouts()):
        loss, network = next(turns), {"activation": activation, "readout": readout, "readout_bound": 2.0}
        objective = functools.partial(risk, loss, outputs=1 if readout == "fixed" else 2, output_scale=1.5, **network)
        case("core", f"network: {activation}, {readout}, {loss}, {dtype}", run, objective, "svrg", n_steps=4)

    # Every loss, alone and of several outputs, weighted or not.
    for loss, estimator, weights in itertools.product(mfld.losses(), NATIVE, (False, True)):
        outputs = 3 if loss == "cross_entropy" or weights else 1
        objective = functools.partial(risk, loss, outputs=outputs, weights=weights, activation="silu")
        weighted = "weighted" if weights else "unweighted"
        case("core", f"loss: {loss}, {estimator}, {weighted}, {dtype}", run, objective, estimator, n_steps=4)

    # Sizes around those of vectors and panels.
    sizes = itertools.product((1, 33, 65, 100), (1, 5, 16, 17), (1, 4), (True, False))
    for n_particles, features, outputs, bias in sizes:
        objective = functools.partial(risk, "half_squared", 37, features, outputs, bias=bias, activation="erf")
        name = f"{n_particles} particles, {features} features, {outputs} outputs, {'bias' if bias else 'no bias'}"
        case("core", f"size: {name}, {dtype}", run, objective, "svrg", n_particles=n_particles, n_steps=4)
    for n in (1, 64, 129, 1000):
        objective = functools.partial(risk, "logistic", n)
        case("core", f"size: {n} samples, {dtype}", run, objective, "full", n_particles=65, n_steps=3)

    # Replicates, schedules, sparse records, descent without noise, an l2 of the run.
    for estimator, dynamics in itertools.product(("full", "svrg", "per particle"), ("overdamped", "baoab")):
        case("core", f"replicates: {estimator}, {dynamics}, {dtype}", run, risk, estimator, dynamics, n_replicates=3)
    case("core", f"replicates: potential, {dtype}", run, quartic, n_replicates=3)
    case("core", f"replicates: mala, {dtype}", run, quartic, dynamics="mala", n_replicates=3)
    case("core", f"replicates: preconditioned, {dtype}", run, risk, dynamics="preconditioned", n_replicates=3)
    falling = {"temperature": lambda k: 0.1 / (1 + k), "step_size": lambda k: 0.1 / (2 + k)}
    named = {
        "temperature": schedules.Geometric(0.1, factor=0.7, stage_length=2),
        "step_size": schedules.Power(0.1, exponent=0.4),
    }
    for estimator, dynamics in itertools.product(("full", "sarah"), ("overdamped", "obabo", "preconditioned")):
        name = f"{estimator}, {dynamics}, {dtype}"
        case("core", f"annealing: {name}", run, risk, estimator, dynamics, **falling)
        case("core", f"annealing with an l2: {name}", run, risk, estimator, dynamics, l2=lambda k: 0.1 / (3 + k))
        case("core", f"no noise: {name}", run, risk, estimator, dynamics, temperature=0.0, l2=0.0)
        case("numpy", f"annealing: {name}", run, risk, estimator, dynamics, **named)
    cooling = schedules.Logarithmic(0.1)
    case("numpy", f"annealing: mala, {dtype}", run, quartic, dynamics="mala", temperature=cooling)
    case("core", f"switched off: {dtype}", run, risk, temperature=schedules.SwitchOff(0.1, at=3))
    parts = schedules.Piecewise([schedules.Constant(0.05), schedules.Constant(0.01)], starts=[0, 3])
    case("core", f"piecewise: {dtype}", run, risk, "minibatch", step_size=parts)


def record_and_probe(dtype):
    """What is recorded, the mean of a stretch, and a step that compares the estimate with the full gradient."""
    objective, solver = risk(), mfld.MFLD(33, step_size=0.1, temperature=1e-2, gradient=mfld.Minibatch(5), dtype=dtype)
    average = mfld.AverageDual(objective, start=3, every=2)
    record = {"mean": lambda state: state.particles.mean(axis=0)}
    result = solver.run(objective, 12, seed=1, record=record, record_every=4, callbacks=[average])
    state, info = solver.advance(objective, result.state, 3, probe=True)
    found = {"mean": result.history["mean"], "average dual": average.dual, "variance": info.gradient_variance}
    return arrays_of_result(result) | arrays_of_state(state) | found


def evaluated(dtype, **options):
    """All that an objective answers at weighted particles, each by itself."""
    objective = risk("cross_entropy", outputs=3, readout="bounded", **options)
    particles = objective.initial_particles(33, 3, dtype=dtype)
    cloud = mfld.Cloud(particles, np.arange(1.0, 34.0))
    variation = objective.first_variation(cloud)
    return {
        "initial": particles,
        "loss": objective.loss(cloud),
        "value": objective.value(cloud),
        "gradient": objective.gradient(cloud),
        "gradient of a batch": objective.loss_gradient(cloud, [3, 1, 7]),
        "predictions": objective.model.predict(cloud.particles, objective.inputs, cloud.weights),
        "neurons": objective.model.neurons(cloud.particles, objective.inputs),
        "variation": variation(particles),
        "gradient of the variation": variation.gradient(particles),
    }


def conjugates(loss):
    """Conjugates and dual steps from derivatives, which are within the domain."""
    own, n, k = mfld.Loss(loss), 40, 3
    targets = targets_of(loss, n, k)
    u = inputs_of(n, k, seed=4)
    dual = own.derivative(u, targets)
    step = np.linspace(0.1, 4, n)
    found = {"value": own.value(u, targets), "dual": dual, "conjugate": own.conjugate(dual, targets)}
    if loss == "cross_entropy":
        return found | {"step": own.dual_step(dual, 1.5 * u, targets, step)}
    columns = [own.dual_step(dual[:, j], 1.5 * u[:, j], targets[:, j], step) for j in range(k)]
    return found | {f"step {j}": column for j, column in enumerate(columns)}


for dtype in PRECISIONS:
    case("core", f"record and probe: {dtype}", record_and_probe, dtype)
    for weights in (False, True):
        name = f"objective: {'weighted' if weights else 'unweighted'}, {dtype}"
        case("core", name, evaluated, dtype, weights=weights)
for loss in mfld.losses():
    case("core", f"conjugate: {loss}", conjugates, loss)


# ---- noise -----------------------------------------------------------------------------------------------------------

# By name, so that a new stream is no change.
STREAMS = ("init", "move", "batch", "acceptance", "label_noise", "coordinate_order", "smoothing")


def normals(stream, dtype):
    return {
        f"{n} x {p} at step {step} of {seed}, {replica}": noise.normals(
            seed, step, n, p, dtype=dtype, stream=stream, population=population, replica=replica
        )
        for n, p, step, seed, population, replica in (
            (1, 1, 0, 0, 0, 0),
            (33, 5, 7, 3, 0, 0),
            (65, 17, 2**32 + 1, 2**63 + 5, 3, 0),
            (100, 4, 12, 9, 65535, 2),
        )
    }


def batches():
    sizes = ((1, 1), (10, 10), (1000, 7), (1000, 400), (10**6, 50))
    found = {f"{size} of {n}": noise.minibatch(3, 2**33 + 1, n, size, population=2, replica=1) for n, size in sizes}
    return found | {"key": np.uint64(noise.key(2**64 - 1, 7))}


for stream, dtype in itertools.product(STREAMS, PRECISIONS):
    case("core", f"normals: {stream}, {dtype}", normals, stream, dtype)
case("core", "minibatches", batches)


# ---- the other algorithms --------------------------------------------------------------------------------------------


def averaging(objective, n_steps=5, **options):
    settings = {"step_size": 0.1, "temperature": 0.05, "inner_steps": 3, **options}
    solver, problem = mfld.PDA(33, **settings), objective()
    result = solver.run(problem, n_steps, seed=2)
    found = arrays_of_result(result)
    if solver.n_replicates == 1:
        potential = solver.potential(problem, result.state)
        found |= {"potential": potential(result.particles), "its gradient": potential.gradient(result.particles)}
    return found


def ascent(objective, n_particles=40, **options):
    solver = mfld.PSDCA(n_particles, **{"temperature": 0.05, "refresh_every": 7, **options})
    return arrays_of_result(solver.run(objective(), 2, seed=3))


def explore(dtype, **options):
    gradient = mfld.SVRG(8, 5)
    return mfld.MFLD(12, step_size=0.1, temperature=1e-2, gradient=gradient, dtype=dtype, **options)


def by_phases(kind, dtype, switch, objective=risk, **options):
    kinds = {"two": mfld.TwoPhase, "top": functools.partial(mfld.TopParticles, n_best=5)}
    plateau = mfld.StopOnPlateau("loss", 2, 0.3, every=3)
    solver = kinds[kind](explore(dtype, **options), switch=plateau if switch is None else switch)
    return arrays_of_result(solver.run(objective(), 16, seed=4))


bounded = functools.partial(risk, n=12, features=2, readout="bounded", l2=5e-2)
classes = functools.partial(bounded, "cross_entropy", outputs=3)
for dtype in PRECISIONS:
    for name, objective in (
        ("data", bounded),
        ("weighted data", functools.partial(bounded, "half_squared", outputs=2, weights=True)),
        ("classes", classes),
    ):
        case("core", f"pda: {name}, {dtype}", averaging, objective, dtype=dtype)
        case("core", f"pda: {name}, in batches, {dtype}", averaging, objective, dtype=dtype, batch_size=5)
    case("core", f"pda: stream, {dtype}", averaging, stream_risk, dtype=dtype, batch_size=8)
    case("core", f"pda: replicates, {dtype}", averaging, bounded, dtype=dtype, batch_size=5, n_replicates=3)
    case("core", f"pda: stream, replicates, {dtype}", averaging, stream_risk, dtype=dtype, batch_size=8, n_replicates=3)
    inner = {"inner_steps": lambda t: 1 + t, "step_size": lambda t: 0.2 / (1 + t)}
    case("core", f"pda: schedules, {dtype}", averaging, bounded, dtype=dtype, **inner)
    turned = mfld.Irreversible(rotation(4))
    case("numpy", f"pda: irreversible, {dtype}", averaging, bounded, dtype=dtype, dynamics=turned)

    for loss in ("half_squared", "absolute", "huber", "logistic", "hinge", "smoothed_hinge"):
        case("numpy", f"psdca: {loss}, {dtype}", ascent, functools.partial(bounded, loss), dtype=dtype)
    for order in ("random", "cyclic"):
        case("numpy", f"psdca: {order}, {dtype}", ascent, bounded, dtype=dtype, order=order)
    case("numpy", f"psdca: classes, {dtype}", ascent, classes, dtype=dtype)
    weighted = functools.partial(bounded, "half_squared", outputs=2, weights=True)
    case("numpy", f"psdca: weighted, {dtype}", ascent, weighted, dtype=dtype)
    signs = functools.partial(risk, n=12, features=2, readout="signs", l2=5e-2)
    case("numpy", f"psdca: frozen signs, {dtype}", ascent, signs, dtype=dtype, n_particles=80)
    several_signs = functools.partial(signs, "half_squared", outputs=2)
    case("numpy", f"psdca: frozen signs of two outputs, {dtype}", ascent, several_signs, dtype=dtype, n_particles=160)
    case("numpy", f"psdca: replicates, {dtype}", ascent, bounded, dtype=dtype, n_replicates=3)

    for kind, switch in itertools.product(("two", "top"), (7, None)):
        name = f"{kind} phases: {'at a plateau' if switch is None else 'at a step'}, {dtype}"
        case("core", name, by_phases, kind, dtype, switch)
    case("core", f"two phases: replicates, {dtype}", by_phases, "two", dtype, 7, n_replicates=3)
    case("core", f"top phases: replicates, {dtype}", by_phases, "top", dtype, 7, n_replicates=3)


# ---- certificates, samples, built-in potentials ----------------------------------------------------------------------


def certified(objective, dtype, n_steps=4):
    result = mfld.PSDCA(64, temperature=0.1, dtype=dtype).run(objective(), n_steps, seed=1)
    limits = {"n_chains": 64, "most_moves": 1024}
    found = mfld.certificate(objective(), result.dual, 0.1, seed=2, dtype=dtype, **limits)
    assert found.reason is None, found.reason
    numbers = {name: getattr(found, name) for name in ("gap", "standard_error", "upper", "r_hat", "n_moves")}
    return numbers | {"predictions": found.predictions, "particles": found.particles, "dual": found.dual}


def partition(method):
    model = {"n": 8, "features": 1, "readout": "fixed", "l2": 0.1}
    dual = np.linspace(-0.4, 0.4, 8)
    options = {} if method == "quadrature" else {"n_chains": 32, "n_moves": 8, "seed": 1}
    value = certificates.log_partition(risk("half_squared", **model), dual, 0.1, method=method, **options)
    return {"log partition": value[0], "error": value[1]}


def resampled(dtype):
    cloud = mfld.Cloud(risk().initial_particles(50, 1, dtype), np.arange(50.0))
    return {f"{n}": mfld.resample(cloud, n, seed=4).particles for n in (None, 7, 200)}


def pruned(dtype):
    objective = risk(outputs=2, n=30)
    cloud = mfld.Cloud(objective.initial_particles(65, 1, dtype), np.arange(1.0, 66.0))
    fewer, error = mfld.prune(objective.model, cloud, objective.inputs, 9)
    return arrays_of_cloud(fewer) | {"error": error}


POTENTIALS = {
    "gaussian": lambda: potentials.Gaussian([1.0, 0.0], [[2.0, 1.0], [1.0, 2.0]]),
    "double well": lambda: potentials.DoubleWell(2, tilt=0.2),
    "mixture": lambda: potentials.GaussianMixture([[-2.0, 0.0], [2.0, 1.0]], 0.25, weights=[1, 3]),
    "banana": lambda: potentials.Banana(scale=2.0, bend=0.5),
    "funnel": lambda: potentials.Funnel(n_coordinates=3),
    "linear regression": lambda: potentials.BayesianLinearRegression(inputs_of(20, 3), targets_of("squared", 20, 1)),
    "logistic regression": lambda: potentials.BayesianLogisticRegression(inputs_of(20, 3), targets_of("hinge", 20, 1)),
}


for dtype in PRECISIONS:
    for name, objective in (
        ("signs", bounded),
        ("reals", functools.partial(bounded, "half_squared", weights=True)),
        ("classes", classes),
        ("frozen signs", functools.partial(risk, n=12, features=2, readout="signs", l2=5e-2)),
    ):
        case("numpy", f"certificate: {name}, {dtype}", certified, objective, dtype)
    case("numpy", f"resample: {dtype}", resampled, dtype)
    case("numpy", f"prune: {dtype}", pruned, dtype)
    for name, potential in POTENTIALS.items():
        for dynamics in ("overdamped", "mala"):
            case("numpy", f"{name}: {dynamics}, {dtype}", langevin, potential, dynamics=dynamics, dtype=dtype)
    for name in ("linear regression", "logistic regression"):
        case("numpy", f"{name}: minibatch, {dtype}", langevin, POTENTIALS[name], "minibatch", dtype=dtype)
for method in ("thermodynamic", "quadrature"):
    case("numpy", f"log partition: {method}", partition, method)


# ---- what the library chooses by itself ------------------------------------------------------------------------------


def automatic(objective, estimator, dtype, **options):
    solver = mfld.MFLD(33, temperature=1e-2, gradient=ESTIMATORS[estimator](), dtype=dtype, **options)
    return arrays_of_result(solver.run(objective(), 9, seed=5))


def defaults_of_variance_reduction(gradient):
    solver = mfld.MFLD(33, step_size=0.1, temperature=1e-2, gradient=gradient())
    return arrays_of_result(solver.run(risk(n=100), 25, seed=5))


def taught():
    setting = experiments.teacher_student(n_features=4, n_teachers=2, n_samples=40, seed=3)
    solver = setting.solver(20, step_sizes=(0.5, 1.0), inverse_temperature=1e6, switch=20)
    result = solver.run(setting.risk(20, ridge=1e-2), 30)
    drawn = {name: getattr(setting, name) for name in ("weights", "readout", "inputs", "targets")}
    return arrays_of_result(result) | {f"{k} of the teacher": v for k, v in drawn.items()}


def estimator(kind, **options):
    pytest.importorskip("sklearn", "1.6")
    from mfld import sklearn  # noqa: PLC0415

    n, n_classes = 60, 3
    inputs = inputs_of(n, 4)
    targets = targets_of("cross_entropy", n, n_classes) if kind == "Classifier" else inputs[:, 0] * inputs[:, 1]
    fitted = getattr(sklearn, f"MeanField{kind}")(random_state=0, **options).fit(inputs, targets)
    curve = {"loss curve": fitted.loss_curve_, "predictions": fitted.predict(inputs)}
    return arrays_of_state(fitted.state_) | arrays_of_cloud(fitted.cloud_) | curve


def trained(**recipe):
    pytest.importorskip("sklearn", "1.6")  # it has the data
    training = experiments.train(experiments.load("iris"), seed=1, recipe=experiments.Recipe(**recipe))
    return arrays_of_result(training.result)


for dtype in PRECISIONS:
    for name in ("full", "smoothed", "minibatch", "svrg", "sarah", "smoothed minibatch", "per particle"):
        case("defaults", f"step size: risk, {name}, {dtype}", automatic, risk, name, dtype)
    for name, objective in (("potential", quartic), ("functional", repulsion), ("python loss", python_loss)):
        case("defaults", f"step size: {name}, {dtype}", automatic, objective, "full", dtype)
    case("defaults", f"step size: replicates, {dtype}", automatic, risk, "svrg", dtype, n_replicates=3)
    cooling = {"temperature": lambda k: 0.1 / (1 + k)}
    case("defaults", f"step size: annealing, {dtype}", langevin, risk, dtype=dtype, step_size=None, **cooling)
for gradient in (mfld.SVRG, mfld.SARAH):
    case("defaults", f"sizes of {gradient.__name__}", defaults_of_variance_reduction, gradient)
case("defaults", "teacher and student", taught)
OF_ASCENT = {"n_particles": 64, "n_steps": 5, "activation": "tanh"}
for kind, algorithm in itertools.product(("Classifier", "Regressor"), ("mfld", "pda", "psdca")):
    some_steps = {"mfld": {}, "pda": {"n_particles": 64, "n_steps": 10}}.get(algorithm, OF_ASCENT)
    case("defaults", f"{kind}: {algorithm}", estimator, kind, algorithm=algorithm, **some_steps)
    if algorithm != "psdca":
        given = {"n_particles": 33, "n_steps": 20, "step_size": 0.1, "temperature": 1e-2, "algorithm": algorithm}
        case("numpy", f"{kind}: {algorithm}", estimator, kind, **given)
case("defaults", "Classifier: stops early", estimator, "Classifier", n_particles=64, early_stopping=True)
given = {"n_particles": 64, "n_steps": 50, "dynamics": "preconditioned", "step_size": 0.01}
case("defaults", "Classifier: preconditioned", estimator, "Classifier", **given)
case("defaults", "iris", trained, n_particles=128, n_steps=50, validation_particles=32)
for method, l2 in (("mfld", 1e-3), ("pda", 1e-2), ("psdca", 1e-1)):
    case("defaults", f"iris: {method}", trained, method=method, l2=l2, n_particles=64, n_steps=10)
given = {"l2": 1e-3, "step_size": 0.1, "temperature": 1e-3, "n_particles": 33, "n_steps": 20}
case("numpy", "iris", trained, **given)
case("numpy", "iris: svrg", trained, gradient="svrg", batch_size=10, refresh_every=5, **given)


# ---- the comparison --------------------------------------------------------------------------------------------------


def made_by(backend):
    """What the bits of all groups depend on."""
    return {"compiler": backend.compiler, "libc": " ".join(platform.libc_ver())}


def numpy_here():
    """What the bits of NumPy's functions depend on: its version, the loops and the BLAS that it takes here."""
    from threadpoolctl import threadpool_info  # noqa: PLC0415  tests that skip need not have it

    numpy = {"version": np.__version__, "loops": "", "blas": ""}
    if hasattr(np.lib, "introspect"):
        found = np.lib.introspect.opt_func_info(func_name="^(exp|log|power|tanh|add)$", signature="float(32|64)")
        loops = {f"{name} {key}": kind["current"] for name, kinds in found.items() for key, kind in kinds.items()}
        numpy["loops"] = ", ".join(f"{name}: {loop}" for name, loop in sorted(loops.items()))
    blas = [pool for pool in threadpool_info() if pool["user_api"] == "blas" and "numpy" in pool["filepath"]]
    numpy["blas"] = ", ".join(f"{p['internal_api']} {p['version']} {p.get('architecture')}" for p in blas)
    return numpy


def use_level(set_backend):
    """Take the kernels of the level; None where this machine has none of them."""
    if LEVEL not in _core.available_levels():
        return None
    backend = _core.load(LEVEL)
    set_backend(_core, "backend", backend)
    return backend


def computed(group, name):
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    if group != "defaults":
        return hashed(CASES[group][name]())
    with threadpool_limits(1, user_api="blas"):
        return hashed(CASES[group][name]())


@functools.cache
def recorded():
    return json.loads(PATH.read_text(encoding="utf-8"))


@functools.cache
def numpy_differs():
    return {key: value for key, value in numpy_here().items() if recorded()["numpy"][key] != value}


@pytest.fixture
def the_level(monkeypatch):
    backend = use_level(monkeypatch.setattr)
    if backend is None:
        pytest.skip(f"the hashes are of level {LEVEL}, which is not built or does not run here")
    if made_by(backend) != recorded()["made by"]:
        pytest.skip(f"the hashes are of {recorded()['made by']}, here is {made_by(backend)}")


def test_cases_are_those_of_the_file():
    for group in GROUPS:
        assert list(recorded()["hashes"][group]) == list(CASES[group]), "python tests/test_bits.py --write"


@pytest.mark.filterwarnings("ignore:the loss of the network")  # short runs
@pytest.mark.usefixtures("the_level")
@pytest.mark.parametrize(("group", "name"), [(group, name) for group in GROUPS for name in CASES[group]])
def test_bits(group, name):
    if group != "core" and numpy_differs():
        pytest.skip(f"the hashes are of {recorded()['numpy']}, here is {numpy_differs()}")
    expected, found = recorded()["hashes"][group].get(name, {}), computed(group, name)
    changed = [key for key in expected.keys() & found.keys() if expected[key] != found[key]]
    lost, new = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    assert found == expected, f"{group}, {name}: changed {sorted(changed)}, lost {lost}, new {new}"


def write(groups):
    backend = use_level(setattr)
    if backend is None:
        raise SystemExit(f"level {LEVEL} is not built or does not run here: {_core.available_levels()}")
    old = json.loads(PATH.read_text(encoding="utf-8")) if PATH.exists() else {"hashes": {}}
    here = {"made by": made_by(backend), "numpy": numpy_here()}
    groups = groups or GROUPS
    kept = [group for group in GROUPS if group not in groups]
    if kept and here != {key: old.get(key) for key in here}:
        raise SystemExit(f"write all groups: those that stay, {kept}, are of {old}, here is {here}")
    hashes = {g: {name: computed(g, name) for name in CASES[g]} if g in groups else old["hashes"][g] for g in GROUPS}
    for group in groups:
        before = old["hashes"].get(group, {})
        differ = [name for name in before if before[name] != hashes[group].get(name)]
        print(f"{group}: {len(hashes[group])} cases, {len(differ)} of {len(before)} changed", *differ, sep="\n  ")
    # A line for each case, so that a difference names what changed.
    lines = [f'  "{key}": {json.dumps(value)},' for key, value in here.items()]
    blocks = [
        f'    "{group}": {{\n'
        + ",\n".join(f"      {json.dumps(name)}: {json.dumps(value)}" for name, value in hashes[group].items())
        + "\n    }"
        for group in GROUPS
    ]
    text = "\n".join(["{", *lines, '  "hashes": {', ",\n".join(blocks), "  }", "}"]) + "\n"
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compute the hashes of this file anew.")
    parser.add_argument("--write", nargs="*", choices=GROUPS, required=True, metavar="GROUP", help=", ".join(GROUPS))
    write(parser.parse_args().write)
