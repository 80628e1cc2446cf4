"""The number of threads that the caller gives is the one that every kernel gets.

A spy in place of the core writes down the ``num_threads`` of each call, whose position it reads from the stub of the
core. Asking how many threads there are, `max_threads`, counts as a fault too.
"""

import ast
import functools
import itertools
from pathlib import Path

import numpy as np
import pytest

import mfld
from mfld import _core, certificates, quantities
from mfld.step_size import curvature

STUB = Path(_core.__file__).parent / "_binding.pyi"


def positions():
    """Position of ``num_threads`` in each method of the core that has it."""
    classes = {node.name: node for node in ast.parse(STUB.read_text()).body if isinstance(node, ast.ClassDef)}
    methods = {node.name: node for node in classes["Backend"].body if isinstance(node, ast.FunctionDef)}
    names = {name: [argument.arg for argument in node.args.args[1:]] for name, node in methods.items()}
    return {name: arguments.index("num_threads") for name, arguments in names.items() if "num_threads" in arguments}


class Spy:
    """The core, with a record of (method, number of threads); None where the number was left out."""

    def __init__(self, backend):
        self._backend, self._positions, self.calls = backend, positions(), []

    def __getattr__(self, name):
        member = getattr(self._backend, name)
        if name == "max_threads":
            self.calls.append((name, None))
        if name not in self._positions:
            return member

        @functools.wraps(member)
        def called(*arguments, **named):
            at = self._positions[name]
            threads = arguments[at] if len(arguments) > at else named.get("num_threads")
            self.calls.append((name, threads))
            return member(*arguments, **named)

        return called


@pytest.fixture(params=[1, 3])
def threads(request):
    return request.param


@pytest.fixture
def watched(monkeypatch, threads):
    """A function that calls another one, and says that all its kernels got the number of threads."""
    spy = Spy(_core.backend)
    monkeypatch.setattr(_core, "backend", spy)

    def call(function, *arguments, kernels=True, **options):
        spy.calls.clear()
        result = function(*arguments, **options)
        wrong = [call for call in spy.calls if call[1] != threads]
        assert not wrong, f"of {len(spy.calls)} calls: {sorted(set(wrong), key=str)}"
        assert spy.calls or not kernels
        return result

    return call


def test_the_stub_names_the_kernels():
    assert {"advance", "affine", "baoab", "accept", "normals", "uniforms", "predict", "pull_back", "dual_sweep"} <= set(
        positions()
    )


def test_the_spy_sees_a_default(watched):
    with pytest.raises(AssertionError, match="max_threads"):
        watched(mfld.noise.normals, 0, 0, 3, 2)
    with pytest.raises(AssertionError, match="normals"):
        watched(_core.backend.normals, 1, 0, 3, 2, np.dtype("float32"))


# ---- objectives, estimators, dynamics --------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
INPUTS = RNG.uniform(-1, 1, (12, 2))
SIGNS = np.where(INPUTS[:, 0] > 0, 1.0, -1.0)


def risk(loss="logistic", **options):
    return mfld.EmpiricalRisk(mfld.TwoLayerNetwork(2, readout="bounded", **options), INPUTS, SIGNS, loss=loss, l2=0.05)


def python_loss(predictions, targets):
    return (predictions - targets) ** 2, 2 * (predictions - targets)


def neurons():
    def value(theta, z):
        return np.tanh(z @ theta.T)

    def gradient(theta, z):
        return (1 - value(theta, z) ** 2)[:, :, np.newaxis] * z[:, np.newaxis, :]

    model = mfld.NeuronModel(value, gradient, n_features=2, n_coordinates=2)
    return mfld.EmpiricalRisk(model, INPUTS, SIGNS, loss="squared", l2=0.05)


def potential():
    return mfld.Potential(lambda x: x**3, lambda x: np.sum(x**4, axis=1) / 4, n_coordinates=4, l2=0.05)


def frozen():
    of = risk()
    return of.on_threads(1).first_variation(
        of.on_threads(1).initial_particles(5, mfld.noise.Place.of(0, num_threads=1))
    )


def stream():
    def sample(step, n_rows):
        inputs = np.random.default_rng(step).uniform(-1, 1, (n_rows, 2))
        return inputs, inputs[:, 0]

    return mfld.StreamRisk(mfld.TwoLayerNetwork(2, readout="bounded"), sample, loss="squared", l2=0.05, capacity=100)


OBJECTIVES = {
    "risk": risk,
    "frozen signs": lambda: mfld.EmpiricalRisk(
        mfld.TwoLayerNetwork(2, readout="signs"), INPUTS, SIGNS, loss="logistic", l2=0.05
    ),
    "python loss": functools.partial(risk, python_loss),
    "neurons": neurons,
    "potential": potential,
    "frozen variation": frozen,
    "stream": stream,
    "functional": lambda: mfld.Functional(lambda x: x.mean(axis=0) - x, n_coordinates=2, l2=1.0),
    "sphere": lambda: mfld.Potential(lambda x: x, space=mfld.Space(domain=[mfld.Sphere(3)])),
}
ESTIMATORS = {
    "full": mfld.FullBatch(),
    "minibatch": mfld.Minibatch(4),
    "svrg": mfld.SVRG(4, 3),
    "sarah": mfld.SARAH(4, 3),
    "per particle": mfld.PerParticleMinibatch(4),
    "smoothed": mfld.Smoothed(0.1),
    "smoothed minibatch": mfld.Smoothed(0.1, mfld.Minibatch(4)),
    "smoothed in a ball": mfld.Smoothed(0.1, law="ball"),
}


def skew(m):
    return np.triu(np.ones((m, m)), 1) - np.triu(np.ones((m, m)), 1).T


DYNAMICS = {
    "overdamped": lambda m: mfld.Overdamped(),
    "baoab": lambda m: mfld.Underdamped(1.5, "baoab"),
    "obabo": lambda m: mfld.Underdamped(1.5, "obabo"),
    "middle": lambda m: mfld.Underdamped(1.5, "middle"),
    "frozen force": lambda m: mfld.Underdamped(1.5, "frozen_force"),
    "preconditioned": lambda m: mfld.Preconditioned(),
    "mala": lambda m: mfld.MALA(),
    "tempering": lambda m: mfld.ContinuousTempering(base_width=0.2, hot_width=0.5),
    "irreversible": lambda m: mfld.Irreversible(skew(m)),
    "general": lambda m: mfld.General(lambda x: np.eye(m) * (1 + x[:, :m, np.newaxis] ** 2), skew(m)),
}


def fits(solver, objective):
    try:
        solver.check(objective)
    except (TypeError, ValueError):
        return False
    return True


def settings(objective, estimator, dynamics, **options):
    given = {"step_size": 0.01, "temperature": 0.05, **options}
    parts = {"gradient": ESTIMATORS[estimator], "dynamics": DYNAMICS[dynamics](objective.n_moving)}
    return mfld.MFLD(6, **parts, **given)


def estimators_of(kind, dynamics, **options):
    """Estimators with which the dynamics serves this kind of objective."""
    objective = OBJECTIVES[kind]()
    return [name for name in ESTIMATORS if fits(settings(objective, name, dynamics, **options), objective)]


EVERY_RUN = [(kind, dynamics) for kind in OBJECTIVES for dynamics in DYNAMICS if estimators_of(kind, dynamics)]
AUTOMATIC = [(kind, name) for kind in OBJECTIVES for name in estimators_of(kind, "overdamped", step_size=None)]


@pytest.mark.parametrize(("kind", "dynamics"), EVERY_RUN)
def test_every_run(kind, dynamics, watched, threads):
    objective = OBJECTIVES[kind]()
    for estimator, n_replicates in itertools.product(estimators_of(kind, dynamics), (1, 2)):
        solver = settings(objective, estimator, dynamics, num_threads=threads, n_replicates=n_replicates)
        state = watched(solver.init, objective)
        watched(solver.run, objective, 4)
        state, _ = watched(solver.advance, objective, state, 4, probe=objective.has_gradient)
        if objective.has_gradient:
            watched(solver.gradient_variance, objective, state, kernels=False)


@pytest.mark.parametrize(("kind", "estimator"), AUTOMATIC)
def test_automatic_step_size(kind, estimator, watched, threads):
    objective = OBJECTIVES[kind]()
    watched(settings(objective, estimator, "overdamped", step_size=None, num_threads=threads).run, objective, 5)


def test_curvature_of_an_objective(watched, threads):
    particles = np.zeros((5, 4))
    watched(curvature, risk().on_threads(threads), particles)


# ---- what an objective and a model answer ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["risk", "frozen signs", "python loss", "stream"])
def test_objectives_on_threads(kind, watched, threads):
    objective = OBJECTIVES[kind]().on_threads(threads)
    if kind == "stream":
        objective = objective.batch(0, 8)
    particles = np.full((5, objective.n_coordinates), 0.5)
    for name in ("loss", "value", "gradient", "loss_gradient", "derivative"):
        watched(getattr(objective, name), particles)
    watched(objective.loss_gradient, particles, [0, 3])
    watched(objective.loss_gradient_by_particle, particles, np.zeros((5, 2), np.int64))
    watched(objective.predict, particles, INPUTS)
    variation = watched(objective.first_variation, particles)
    part, _ = objective.of_rows(np.arange(4))
    watched(part.loss, particles)
    for function in (variation, variation.gradient, variation.value_and_gradient, variation.loss):
        watched(function, particles)


def test_a_potential_changes_its_threads(watched, threads):
    particles = np.full((5, 4), 0.5)
    variation = frozen().on_threads(threads)
    for function in (variation, variation.gradient, variation.value_and_gradient, variation.loss):
        watched(function, particles)
    assert np.array_equal(variation(particles), frozen()(particles))


def test_models(watched, threads):
    model, particles = mfld.TwoLayerNetwork(2), np.full((5, 4), 0.5)
    watched(model.neurons, particles, INPUTS, num_threads=threads)
    watched(model.predict, particles, INPUTS, num_threads=threads)


# ---- the other algorithms, and what follows a run --------------------------------------------------------------------

ALGORITHMS = {
    "mfld": lambda threads: mfld.MFLD(64, step_size=0.1, temperature=0.1, num_threads=threads),
    "pda": lambda threads: mfld.PDA(64, step_size=0.1, temperature=0.1, inner_steps=3, num_threads=threads),
    "pda in batches": lambda threads: mfld.PDA(
        64, step_size=0.1, temperature=0.1, inner_steps=3, batch_size=5, num_threads=threads, n_replicates=2
    ),
    "pda, irreversible": lambda threads: mfld.PDA(
        64, step_size=0.1, temperature=0.1, inner_steps=3, dynamics=mfld.Irreversible(skew(4)), num_threads=threads
    ),
    "psdca": lambda threads: mfld.PSDCA(64, temperature=0.1, refresh_every=5, num_threads=threads),
    "psdca at random": lambda threads: mfld.PSDCA(64, temperature=0.1, order="random", num_threads=threads),
    "psdca, replicates": lambda threads: mfld.PSDCA(64, temperature=0.1, n_replicates=2, num_threads=threads),
    "two phases": lambda threads: mfld.TwoPhase(ALGORITHMS["mfld"](threads), switch=2),
    "two phases at a plateau": lambda threads: mfld.TwoPhase(
        ALGORITHMS["mfld"](threads), switch=mfld.StopOnPlateau("loss", 1, every=1)
    ),
    "top particles": lambda threads: mfld.TopParticles(ALGORITHMS["mfld"](threads), n_best=5, switch=2),
}
OF_CERTIFICATES = {"n_chains": 64, "most_moves": 512}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_algorithms(name, watched, threads):
    objective, solver = risk(), ALGORITHMS[name](threads)
    result = watched(solver.run, objective, 4)
    watched(solver.run, objective, 2, state=result.state)
    watched(result.predict, INPUTS)
    watched(lambda: result.dual, kernels=False)
    watched(solver.dual, objective, result.state, kernels=False)
    watched(result.certificate, **OF_CERTIFICATES, temperature=0.1, l2=0.05)
    if name == "pda":
        potential = watched(solver.potential, objective, result.state, kernels=False)
        watched(potential, result.particles)


def test_psdca_with_frozen_signs(watched, threads):
    watched(mfld.PSDCA(80, temperature=0.1, num_threads=threads).run, OBJECTIVES["frozen signs"](), 2)


def test_pda_of_a_stream(watched, threads):
    solver = mfld.PDA(6, step_size=0.1, temperature=0.1, inner_steps=3, batch_size=5, num_threads=threads)
    result = watched(solver.run, stream(), 3)
    watched(result.predict, INPUTS)


@pytest.mark.parametrize("kind", ["risk", "frozen signs"])
def test_certificates(kind, watched, threads):
    objective, dual = OBJECTIVES[kind](), np.full(12, -0.1) * SIGNS
    watched(mfld.certificate, objective, dual, 0.1, num_threads=threads, **OF_CERTIFICATES)
    watched(mfld.certificate, objective.on_threads(threads), dual, 0.1, **OF_CERTIFICATES)


@pytest.mark.parametrize("method", ["thermodynamic", "quadrature"])
def test_log_partition(method, watched, threads):
    model = mfld.TwoLayerNetwork(2, readout="fixed", activation="tanh", bias=False)
    objective = mfld.EmpiricalRisk(model, INPUTS, SIGNS, loss="logistic", l2=0.05)
    dual = np.full(12, -0.1) * SIGNS
    options = {} if method == "quadrature" else {"n_chains": 32, "n_moves": 4}
    watched(certificates.log_partition, objective, dual, 0.1, method=method, num_threads=threads, **options)
    watched(certificates.log_partition, objective.on_threads(threads), dual, 0.1, method=method, **options)


def test_quantities(watched, threads):
    objective = risk().on_threads(threads)
    solver = ALGORITHMS["mfld"](threads)
    state = solver.init(objective)
    for quantity in (quantities.loss, quantities.score):
        watched(quantity(objective), state)
    watched(quantities.ridge(objective), state, kernels=False)
    watched(quantities.predictions(objective.model, INPUTS, num_threads=threads), state)
    for name in ("mfld", "psdca"):
        solver = ALGORITHMS[name](threads)
        reached = solver.run(risk(), 2).state
        watched(quantities.gap(solver, risk(), 0.1, **OF_CERTIFICATES), reached)
        watched(quantities.gap_bound(solver, risk(), 0.1, **OF_CERTIFICATES), reached)
