"""The one rule of both fronts: what it chooses, that it obeys a number of threads, and that BLAS has no say in it."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris

import mfld
from mfld import _core, cli, experiments, fitting
from mfld.experiments import Recipe
from mfld.experiments.recipe import validation_losses
from mfld.sklearn import MeanFieldClassifier, MeanFieldRegressor

DIABETES = load_diabetes(return_X_y=True)
IRIS = load_iris(return_X_y=True)
CANCER = load_breast_cancer(return_X_y=True)


# ---- data and targets ------------------------------------------------------------------------------------------------


def test_moments(rng):
    values = rng.normal(size=(50, 3)) * [1, 1e3, 1e-3] + [0, 1e5, 7]
    mean, deviation = fitting.moments(values)
    assert_allclose(mean, values.mean(axis=0), rtol=1e-14, atol=1e-15)
    assert_allclose(deviation, values.std(axis=0), rtol=1e-12)
    rows = np.array([4, 7, 31])
    assert_allclose(fitting.moments(values, rows=rows), fitting.moments(values[rows]), rtol=0)
    counts = rng.integers(0, 4, 50)
    repeated = values.repeat(counts, axis=0)
    assert_allclose(fitting.moments(values, 2.5 * counts), [repeated.mean(axis=0), repeated.std(axis=0)], rtol=1e-9)


def test_a_constant_column_has_the_deviation_1():
    # 0.1 is no sum of few powers of 2: the mean of many is off by rounding, and so is the deviation from 0.
    values = np.stack([np.full(49, 0.1), np.arange(49.0)], axis=1)
    assert fitting.moments(values)[1][0] == 1
    assert fitting.moments(values, np.linspace(1, 2, 49))[1][0] == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_standardised(dtype, rng):
    values = rng.normal(3, 2, size=(10_000, 2))  # several pieces
    mean, deviation = fitting.moments(values)
    scaling = fitting.Scaling(mean, deviation, np.full(2, np.inf))
    result = scaling.apply(values, dtype)
    assert result.dtype == dtype
    assert not result.flags.writeable
    assert_allclose(result, (values - mean) / deviation, rtol=1e-6 if dtype == "float32" else 1e-15)
    rows = rng.permutation(10_000)[:5000]
    np.testing.assert_array_equal(scaling.apply(values, dtype, rows), result[rows])


@pytest.mark.parametrize(
    ("classes", "loss", "n_outputs", "encoded"),
    [
        ("ab", "logistic", 1, [1, -1, 1]),
        ("ab", "cross_entropy", 2, [1, 0, 1]),
        ("abc", "cross_entropy", 3, [1, 0, 1]),
        ("abc", "hinge", 3, [[-1, 1, -1], [1, -1, -1], [-1, 1, -1]]),
        ("ab", "squared", 1, [1, -1, 1]),
    ],
)
def test_classes_as_targets_and_back(classes, loss, n_outputs, encoded):
    classes, labels = np.array(list(classes)), np.array(["b", "a", "b"])
    loss = mfld.Loss(loss)
    assert fitting.n_outputs(len(classes), loss) == n_outputs
    targets = fitting.encoded(labels, classes, loss)
    np.testing.assert_array_equal(targets, encoded)
    loss.check_targets(targets, n_outputs)
    outputs = np.eye(3)[[1, 0, 1]][:, :n_outputs] if n_outputs > 1 else np.array([0.2, -3.0, 1.0])
    np.testing.assert_array_equal(fitting.decided(outputs, classes), labels)


def test_losses_by_the_number_of_classes():
    names = [fitting.default_loss(n).name for n in (0, 2, 3, 10)]
    assert names == ["half_squared", "logistic", "cross_entropy", "cross_entropy"]


# ---- choices ---------------------------------------------------------------------------------------------------------


def stable(risk, particles):
    """Largest stable step at particles: 2 over the largest eigenvalue of the Hessian, by differences of gradients."""
    shape, h = particles.shape, 1e-5
    columns = []
    for place in np.ndindex(shape):
        e = np.zeros(shape)
        e[place] = h
        columns.append((risk.gradient(particles + e) - risk.gradient(particles - e)).ravel() / (2 * h))
    return 2 / np.abs(np.linalg.eigvals(np.array(columns))).max()


@pytest.mark.parametrize("front", ["train", "scikit-learn"])
def test_the_step_size_is_half_of_the_largest_stable_one(front):
    X, y = DIABETES
    if front == "train":
        training = experiments.train(experiments.load("diabetes"), 0, Recipe(n_particles=15, n_steps=1, l2=0.02))
        risk, step_size = training.result.objective, training.trained.hyperparameters["step_size"]
        start = risk.initial_particles(15, 0, "float32")
    else:
        fitted = MeanFieldRegressor(n_particles=15, n_steps=1, l2=0.02, random_state=0).fit(X, y)
        model, step_size = fitted.model_, fitted.step_size_
        risk = mfld.EmpiricalRisk(
            model, (X - X.mean(0)) / X.std(0), (y - y.mean()) / y.std(), loss="half_squared", l2=0.02
        )
        start = risk.initial_particles(15, fitted.state_.seed, "float64")
    largest = stable(risk, start.astype(np.float64))
    assert 0.5 * largest * (1 - 1e-3) <= step_size < 0.6 * largest  # power iteration comes from one side


def test_both_fronts_take_the_same_step():
    """On the same standardised rows, from the same start, all choices by default."""
    training = experiments.train(experiments.load("iris"), 4, Recipe(n_particles=30, n_steps=1, l2=5e-3))
    rows = np.setdiff1d(np.arange(150), training.trained.test_rows)
    fitted = MeanFieldClassifier(n_particles=30, n_steps=1, random_state=0)
    X = IRIS[0][rows].astype(np.float32)
    fitted.fit(X, IRIS[1][rows])
    risk = mfld.EmpiricalRisk(
        fitted.model_,
        (X - fitted.scaling_.centre) / fitted.scaling_.scale,
        IRIS[1][rows],
        loss="cross_entropy",
        l2=5e-3,
    )
    chosen = training.trained.hyperparameters
    own = [fitting.largest_curvature(risk, 30, seed, "float32", 1) for seed in (4, fitted.state_.seed)]
    assert_allclose([chosen["step_size"], fitted.step_size_], 1 / np.array(own), rtol=1e-4)
    assert chosen["temperature"] == fitted.temperature_


def test_the_curvature_of_a_loss_with_kinks_is_that_of_a_smooth_one(rng):
    model = mfld.TwoLayerNetwork(3, readout="bounded", readout_bound=1.0)
    inputs, signs = rng.normal(size=(40, 3)), np.sign(rng.normal(size=40))
    found = {
        loss: fitting.largest_curvature(mfld.EmpiricalRisk(model, inputs, signs, loss=loss), 20, 0, "float64", 1)
        for loss in ("hinge", "logistic", "absolute", "half_squared")
    }
    assert found["hinge"] == found["logistic"] != found["absolute"] == found["half_squared"]


def test_rows_of_a_step():
    rule = fitting.estimator
    assert rule("mfld", 256) == mfld.FullBatch()
    assert rule("mfld", 257) == mfld.Minibatch(128)
    assert rule("mfld", 100, batch_size=30) == mfld.Minibatch(30)
    assert rule("mfld", 20, batch_size=30) == mfld.Minibatch(20)
    assert rule("mfld", 100, "minibatch") == mfld.Minibatch(100)
    assert rule("mfld", 10_000, least_share=1 / 40) == mfld.Minibatch(250)
    assert rule("mfld", 10_000, batch_size=5, least_share=1 / 40) == mfld.Minibatch(5)
    assert rule("mfld", 10_000, "full") == mfld.FullBatch()
    assert rule("mfld", 500, "svrg", 10, 7) == mfld.SVRG(10, 7)
    assert rule("mfld", 500, "sarah") == mfld.SARAH()
    assert rule("pda", 10_000) == mfld.FullBatch()
    assert rule("pda", 10_000, batch_size=50) == mfld.Minibatch(50)


# ---- the search over l2 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["mfld", "pda"])
def test_validation_losses_are_those_of_runs_of_their_own(method):
    """Fold by fold and candidate by candidate, by hand."""
    data = experiments.load("diabetes")
    recipe = Recipe(method=method, l2=(0.01, 0.1, 0.3), n_particles=20, n_steps=8, step_size=0.05, loss="half_squared")
    rows = np.random.default_rng(0).permutation(442)[:60]
    found = validation_losses(data, rows, recipe.complete, seed=7)
    assert list(found) == [0.01, 0.1, 0.3]
    model = mfld.TwoLayerNetwork(10, activation="silu", readout="bounded", readout_bound=5.0)
    for l2, loss in found.items():
        losses = []
        for k in range(5):
            held_out = np.sort(rows[12 * k : 12 * (k + 1)])
            others = np.setdiff1d(rows, held_out)
            mean, deviation = data.inputs[others].mean(axis=0), data.inputs[others].std(axis=0)
            y_mean, y_deviation = data.targets[others].mean(), data.targets[others].std()

            def risk(part, mean=mean, deviation=deviation, y_mean=y_mean, y_deviation=y_deviation, l2=l2):
                x = ((data.inputs[part] - mean) / deviation).astype(np.float32)
                y = (data.targets[part] - y_mean) / y_deviation
                return mfld.EmpiricalRisk(model, x, y, loss="half_squared", l2=l2)

            kind = mfld.MFLD if method == "mfld" else mfld.PDA
            solver = kind(20, step_size=0.05, temperature=2 * l2 * 0.01)
            losses.append(risk(held_out).loss(solver.run(risk(others), 8, seed=7).particles))
        assert_allclose(loss, np.mean(losses), rtol=1e-6)


def test_runs_side_by_side_are_the_runs(rng):
    model = mfld.TwoLayerNetwork(2)
    inputs, targets = rng.normal(size=(30, 2)), rng.normal(size=30)
    risks = [mfld.EmpiricalRisk(model, inputs, targets, loss="squared", l2=l2) for l2 in (0.1, 0.01)]
    choices = [
        fitting.Choices(10, temperature=t, step_size=h, gradient=mfld.Minibatch(5))
        for t, h in ((1e-2, 0.1), (1e-3, 0.2))
    ]
    together = fitting.side_by_side("mfld", risks, choices, 20, 5)
    for result, risk, (t, h) in zip(together, risks, ((1e-2, 0.1), (1e-3, 0.2)), strict=True):
        solver = mfld.MFLD(10, step_size=h, temperature=t, gradient=mfld.Minibatch(5))
        assert result.particles.tobytes() == solver.run(risk, 20, seed=5).particles.tobytes()


# ---- early stopping --------------------------------------------------------------------------------------------------


def test_the_best_state_is_kept():
    model = mfld.TwoLayerNetwork(1, readout="fixed", bias=False, activation="identity")
    held_out = mfld.EmpiricalRisk(model, [[1.0]], [0.0], loss="squared")  # the square of the mean
    values = [5.0, 3.0, 4.0, 2.95, 2.9, 6.0, 7.0, 1.0]
    states = [mfld.State({"mu": mfld.Cloud([[[w]]])}, step, 0) for step, w in enumerate(values)]
    rule = fitting.KeepBest(held_out, patience=3, tolerance=1.0, every=1)
    rule.on_start(states[0], 8)
    stopped = [rule(state, mfld.Info(1)) for state in states[:6]]
    # 25, 9, 16, 8.70, 8.41: none of the last three is below 9 by more than 1, yet the last of them is the lowest.
    assert stopped == [False, False, False, False, True, True]
    assert_allclose(rule.losses, np.square(values[:6]))
    assert rule.best is states[4]


# ---- threads ---------------------------------------------------------------------------------------------------------


class Spy:
    """The core, with a list of the numbers of threads that it was called with."""

    def __init__(self, core):
        self._core, self.calls = core, []

    def __getattr__(self, name):
        found = getattr(self._core, name)
        # Of a function the documentation begins with its signature.
        arguments = re.findall(r"(\w+): ", (getattr(found, "__doc__", None) or "").partition("\n")[0])
        if not callable(found) or "num_threads" not in arguments:
            return found
        place = arguments.index("num_threads") - 1  # without self

        def call(*args, **kwargs):
            self.calls.append((name, kwargs.get("num_threads", args[place] if len(args) > place else 1)))
            return found(*args, **kwargs)

        return call


ELSEWHERE = {"normals"}  # `noise.normals` has no number of threads yet
FIT = {"n_steps": 6, "n_particles": 20, "random_state": 0}
TANH = {"activation": "tanh", "readout_bound": 2.0, "l2": 0.05, "temperature": 0.05, "n_steps": 1, "n_particles": 40}


def classifier(X=CANCER[0], y=CANCER[1], **options):
    return MeanFieldClassifier(**{**FIT, **options}).fit(X, y)


def run_cli(tmp_path, *options):
    model = tmp_path / "model.npz"
    few = ["--n-particles", "20", "--n-steps", "3", "--quiet", "--num-threads", "3"]
    assert cli.main(["train", "breast_cancer", "--output", str(model), *few, *options]) == 0
    assert cli.main(["predict", str(model), "breast_cancer", "--num-threads", "3"]) == 0


PATHS = {
    "fit": (lambda path: classifier(n_jobs=3), {"advance", "predict", "risk_along"}),
    "fit, user's loss": (
        lambda path: MeanFieldRegressor(loss=lambda u, y: ((u - y) ** 2, 2 * (u - y)), n_jobs=3, **FIT).fit(*DIABETES),
        {"predict", "pull_back", "affine"},
    ),
    "fit, hinge": (lambda path: classifier(loss="hinge", n_jobs=3), {"advance", "predict", "risk_along"}),
    "fit, pda": (lambda path: classifier(algorithm="pda", n_jobs=3), {"predict", "pull_back", "affine"}),
    "fit, psdca": (lambda path: classifier(algorithm="psdca", n_jobs=3, **TANH), {"dual_sweep"}),
    "early stopping": (lambda path: classifier(early_stopping=True, n_jobs=3), {"advance", "predict"}),
    "warm start": (
        lambda path: MeanFieldClassifier(warm_start=True, n_jobs=3, **FIT).fit(*IRIS).fit(*IRIS),
        {"advance"},
    ),
    "partial fit": (lambda path: MeanFieldRegressor(n_jobs=3, **FIT).partial_fit(*DIABETES), {"advance"}),
    "predictions": (
        lambda path: [getattr(classifier(*IRIS, n_jobs=3), name)(IRIS[0]) for name in ("predict", "predict_proba")],
        {"predict"},
    ),
    "prune": (lambda path: classifier(n_jobs=3).prune(5, CANCER[0]).predict(CANCER[0]), {"neurons", "predict"}),
    "certificate": (
        lambda path: classifier(*[each[:60] for each in CANCER], algorithm="psdca", certify=True, n_jobs=3, **TANH),
        {"dual_sweep", "predict", "pull_back"},
    ),
    "train": (run_cli, {"advance", "predict", "risk_along"}),
    "train, pda": (lambda path: run_cli(path, "--method", "pda"), {"predict", "pull_back", "affine"}),
    "train, psdca": (
        lambda path: run_cli(path, "--method", "psdca", "--l2", "0.2"),
        {"dual_sweep", "predict", "pull_back"},
    ),
    "teacher and student": (
        lambda path: (
            (s := experiments.teacher_student(n_samples=50))
            .solver(8, step_sizes=(0.5, 1.0), inverse_temperature=1e3, switch=3, num_threads=3)
            .run(s.risk(8, 0.01), 6)
        ),
        {"advance"},
    ),
}


@pytest.mark.parametrize(("run", "expected"), PATHS.values(), ids=PATHS)
def test_the_number_of_threads_is_obeyed(run, expected, tmp_path, monkeypatch, capsys):
    spy = Spy(_core.backend)
    monkeypatch.setattr(_core, "backend", spy)
    run(tmp_path)
    numbers = {}
    for name, number in spy.calls:
        numbers.setdefault(name, set()).add(number)
    assert expected <= set(numbers)
    assert {name: used for name, used in numbers.items() if used != {3} and name not in ELSEWHERE} == {}


# ---- BLAS ------------------------------------------------------------------------------------------------------------

RUNS = """
import hashlib, sys
import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from mfld import cli, experiments
from mfld.sklearn import MeanFieldClassifier, MeanFieldRegressor

def show(name, *arrays):
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    print(name, digest.hexdigest())

for name in ("iris", "breast_cancer"):
    path = f"{sys.argv[1]}/{name}.npz"
    assert cli.main(["train", name, "--output", path, "--quiet", "--n-steps", "40", "--json"]) == 0
    trained = experiments.TrainedModel.load(path)
    show(name, trained.particles, trained.scaling.centre, trained.scaling.scale, repr(trained.provenance["validation"]))
    predicted = trained.outputs(experiments.load(name).inputs)
    show(name, predicted, repr(trained.provenance["scores"]))
for fitted, data in (
    (MeanFieldClassifier(random_state=0, n_steps=40), load_iris(return_X_y=True)),
    (MeanFieldClassifier(random_state=0, n_steps=40, early_stopping=True), load_breast_cancer(return_X_y=True)),
    (MeanFieldRegressor(random_state=0, n_steps=40), load_diabetes(return_X_y=True)),
):
    fitted.fit(*data)
    show(type(fitted).__name__, fitted.cloud_.particles, fitted.predict(data[0]))
rng = np.random.default_rng(0)
X, y = rng.normal(size=(12_000, 40)), rng.normal(size=12_000)  # BLAS shares out work of this size
wide = MeanFieldRegressor(random_state=0, n_steps=3, step_size=0.01).fit(X, y, rng.random(12_000))
show("wide", wide.cloud_.particles, wide.scaling_.centre, wide.scaling_.scale)
setting = experiments.teacher_student(n_features=200, n_teachers=100, n_samples=3000)
show("teacher", setting.weights, setting.inputs, setting.targets)
show("population risk", setting.population_risk(setting.student(300).initial_particles(300, 0, "float64")))
"""


def test_results_do_not_depend_on_the_threads_of_blas(tmp_path):
    digests = []
    for n in (1, 2):
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": str(n), "OMP_NUM_THREADS": str(n)}
        command = [sys.executable, "-c", RUNS, str(tmp_path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        digests.append([line for line in done.stdout.splitlines() if not line.startswith("{")])
    assert len(digests[0]) == 10
    assert digests[0] == digests[1]
