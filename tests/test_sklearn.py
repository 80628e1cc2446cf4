"""The estimators: scikit-learn's own checks, then what is ours: choices, weights, going on, pruning, accuracy."""

import copy
import itertools
import math
import pickle
import subprocess
import sys
import warnings

import joblib
import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

import mfld
from mfld import fitting
from mfld.sklearn import MeanFieldClassifier, MeanFieldRegressor

IRIS = load_iris(return_X_y=True)
TWO = (IRIS[0][50:], IRIS[1][50:])
DIABETES = load_diabetes(return_X_y=True)
QUICK = {"n_steps": 30, "n_particles": 20, "random_state": 0}


@parametrize_with_checks([MeanFieldClassifier(), MeanFieldRegressor()])
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings("ignore:Skipping check check_array_api_input")
def test_the_only_check_that_mini_batches_fail():
    """A row of weight k is not k rows for who draws rows."""
    expected = {"check_sample_weight_equivalence_on_dense_data": "mini-batches draw rows"}
    regressor = MeanFieldRegressor(batch_size=8, n_particles=20, n_steps=100)
    results = check_estimator(regressor, on_fail=None, on_skip=None, expected_failed_checks=expected)
    assert {result["check_name"] for result in results if result["status"] in ("failed", "xfail")} == set(expected)


def test_mfld_alone_does_not_import_scikit_learn():
    code = "import sys, mfld; assert not any(name.partition('.')[0] in ('sklearn', 'joblib') for name in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- how good --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["wine", "diabetes"])
def test_at_least_as_good_as_the_network_of_scikit_learn(name):
    """Two small sets of the table that bench/sklearn_table.py makes."""
    X, y = load_wine(return_X_y=True) if name == "wine" else DIABETES
    ours, theirs = [], []
    for seed in range(2):
        X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=seed)
        kinds = (MeanFieldClassifier, MLPClassifier) if name == "wine" else (MeanFieldRegressor, MLPRegressor)
        ours.append(kinds[0](random_state=seed).fit(X_train, y_train).score(X_test, y_test))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            theirs.append(kinds[1](random_state=seed).fit(X_train, y_train).score(X_test, y_test))
    assert np.mean(ours) >= np.mean(theirs)
    assert np.mean(ours) > (0.95 if name == "wine" else 0.2)


# ---- the network and the loss ----------------------------------------------------------------------------------------


def by_hand(estimator, X):
    """Outputs from the public attributes, in NumPy."""
    cloud = estimator.cloud_
    weights = np.full(len(cloud.particles), 1 / len(cloud.particles)) if cloud.weights is None else cloud.weights
    neurons = estimator.model_.neurons(cloud.particles, (X - estimator.scaling_.centre) / estimator.scaling_.scale)
    return np.tensordot(neurons, weights, axes=(1, 0))


@pytest.mark.parametrize("loss", ["auto", *mfld.losses(), mfld.Loss("huber", delta=2.0)], ids=str)
@pytest.mark.parametrize("data", [TWO, IRIS], ids=["two classes", "three classes"])
def test_every_loss_classifies(loss, data):
    X, y = data
    labels = np.array(["setosa", "versicolor", "virginica"])[y]
    classifier = MeanFieldClassifier(loss=loss, random_state=0, n_steps=100, n_particles=50).fit(X, labels)
    scores = classifier.decision_function(X)
    assert scores.shape == ((len(X),) if data is TWO else (len(X), 3))
    outputs = by_hand(classifier, X)
    if outputs.ndim == 2 and data is TWO:
        np.testing.assert_allclose(scores, outputs[:, 1] - outputs[:, 0], atol=1e-10)
    else:
        np.testing.assert_allclose(scores, outputs, atol=1e-10)
    assert classifier.score(X, labels) > 0.9
    name = loss if isinstance(loss, str) else loss.name
    assert hasattr(classifier, "predict_proba") == (name in ("auto", "logistic", "cross_entropy"))
    if hasattr(classifier, "predict_proba"):
        probabilities = classifier.predict_proba(X)
        if data is TWO:
            expected = np.stack([expit(-scores), expit(scores)], axis=1)
        elif name == "logistic":
            expected = expit(scores) / expit(scores).sum(axis=1, keepdims=True)
        else:
            expected = softmax(scores, axis=1)
        np.testing.assert_allclose(probabilities, expected, rtol=1e-10, atol=1e-15)
        np.testing.assert_allclose(classifier.predict_log_proba(X), np.log(expected), rtol=1e-9, atol=1e-12)
        chosen = classifier.classes_[probabilities.argmax(axis=1)]
        np.testing.assert_array_equal(chosen, classifier.predict(X))


@pytest.mark.parametrize("loss", ["auto", "squared", "absolute", "huber"])
def test_losses_of_numbers_regress(loss):
    X, y = DIABETES
    regressor = MeanFieldRegressor(loss=loss, random_state=0, n_steps=100, n_particles=50).fit(X, y)
    expected = by_hand(regressor, X) * np.std(y) + np.mean(y)
    np.testing.assert_allclose(regressor.predict(X), expected, rtol=1e-9)
    assert regressor.score(X, y) > 0.4


def test_several_targets_are_several_columns():
    X, y = DIABETES
    both = np.stack([y, -3 * y + 7], axis=1)
    regressor = MeanFieldRegressor(random_state=0).fit(X, both)
    predictions = regressor.predict(X)
    assert predictions.shape == both.shape
    # The second is the first up to scale, and standardised targets do not know scales.
    assert np.corrcoef(predictions.T)[0, 1] < -0.99
    assert regressor.score(X, both) > 0.4
    column = MeanFieldRegressor(**QUICK).fit(X, y[:, np.newaxis])
    assert column.predict(X).shape == (len(X), 1)
    np.testing.assert_array_equal(column.predict(X)[:, 0], MeanFieldRegressor(**QUICK).fit(X, y).predict(X))


def test_a_loss_of_signs_does_not_regress():
    with pytest.raises(ValueError, match="loss must be one of real targets for a regression, got 'logistic'"):
        MeanFieldRegressor(loss="logistic").fit(*DIABETES)


class Cauchy(mfld.LossFunction):
    def value_and_derivative(self, predictions, targets):
        error = predictions - targets
        return np.log1p(error**2), 2 * error / (1 + error**2)


def test_a_loss_and_a_model_of_the_user():
    def bump(n_features, n_outputs):
        def value(theta, z):
            return np.tanh(z @ theta[:, :-1].T) * theta[:, -1]

        def gradient(theta, z):
            inner = np.tanh(z @ theta[:, :-1].T)[:, :, np.newaxis]
            slope = (1 - inner**2) * theta[:, -1:] * z[:, np.newaxis, :]
            return np.concatenate([slope, inner], axis=2)

        return mfld.NeuronModel(value, gradient, n_features=n_features, n_coordinates=n_features + 1)

    classifier = MeanFieldClassifier(loss=Cauchy(), model=bump, n_particles=50, n_steps=200, random_state=0)
    assert classifier.fit(*TWO).score(*TWO) > 0.9
    assert not hasattr(classifier, "predict_proba")


# ---- names and objects -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "gradient", ["full", "minibatch", "svrg", "sarah", mfld.SVRG(batch_size=5, refresh_every=4)], ids=str
)
@pytest.mark.parametrize("dynamics", ["overdamped", mfld.Overdamped()], ids=str)
def test_gradients_and_dynamics_by_name_or_object(gradient, dynamics):
    classifier = MeanFieldClassifier(gradient=gradient, dynamics=dynamics, n_particles=30, n_steps=150, random_state=0)
    assert classifier.fit(*IRIS).score(*IRIS) > 0.9


def test_dual_averaging_by_name():
    classifier = MeanFieldClassifier(algorithm="pda", n_steps=40, n_particles=50, random_state=0).fit(*IRIS)
    assert classifier.score(*IRIS) > 0.9
    with pytest.raises(ValueError, match="gradient must be 'full' or 'minibatch' for algorithm='pda', got SVRG"):
        MeanFieldClassifier(algorithm="pda", gradient="svrg").fit(*IRIS)


def test_dual_coordinate_ascent_by_name():
    options = {"activation": "tanh", "readout_bound": 2.0, "temperature": 1e-2, "n_steps": 2, "n_particles": 200}
    classifier = MeanFieldClassifier(algorithm="psdca", random_state=0, **options).fit(*TWO)
    assert classifier.score(*TWO) > 0.9
    weights = classifier.cloud_.weights  # it weighs its particles
    np.testing.assert_allclose(classifier.decision_function(TWO[0]), by_hand(classifier, TWO[0]), atol=1e-10)
    assert weights is not None
    assert np.ptp(weights) > 0


def test_certificate_on_request():
    options = {"activation": "tanh", "readout_bound": 2.0, "l2": 0.05, "temperature": 0.05, "random_state": 0}
    dual = MeanFieldClassifier(algorithm="psdca", n_steps=6, n_particles=500, certify=True, **options).fit(*TWO)
    assert dual.certificate_.reason is None
    assert dual.certificate_.upper < 2e-3
    X, y = TWO
    inputs = (X - X.mean(axis=0)) / X.std(axis=0)
    risk = mfld.EmpiricalRisk(dual.model_, inputs, 2.0 * (y == 2) - 1, loss="logistic", l2=0.05)
    again = mfld.certificate(risk, dual.state_.buffers["dual"][0], 0.05)
    np.testing.assert_allclose(dual.certificate_.gap, again.gap, rtol=1e-3, atol=1e-7)
    assert not hasattr(
        MeanFieldClassifier(algorithm="psdca", n_steps=1, n_particles=50, **options).fit(*TWO), "certificate_"
    )
    # The bound of a few steps is worse than that of many.
    few, many = (
        MeanFieldClassifier(n_steps=n, n_particles=300, certify=True, **options).fit(*TWO).certificate_
        for n in (3, 150)
    )
    assert few.gap - 5 * few.standard_error > many.upper
    flat = MeanFieldClassifier(n_steps=3, n_particles=20, certify=True, **{**options, "temperature": 0.0}).fit(*TWO)
    assert flat.certificate_.reason == "the temperature is 0: there is no Gibbs measure"
    with pytest.raises(ValueError, match="certify must be False with a loss of your own"):
        MeanFieldRegressor(certify=True, loss=lambda u, y: ((u - y) ** 2, 2 * (u - y))).fit(*DIABETES)
    with pytest.raises(TypeError, match="certify must be True or False, got 1"):
        MeanFieldClassifier(certify=1).fit(*TWO)


def test_dual_ascent_starts_anew_with_warm_start():
    options = {"activation": "tanh", "readout_bound": 2.0, "temperature": 1e-2, "n_steps": 2, "n_particles": 100}
    classifier = MeanFieldClassifier(algorithm="psdca", random_state=0, warm_start=True, **options)
    first = classifier.fit(*TWO).cloud_.particles
    np.testing.assert_array_equal(classifier.fit(*TWO).cloud_.particles, first)


def test_an_algorithm_as_an_object_is_used_as_it_is():
    X, y = TWO
    solver = mfld.MFLD(30, step_size=0.1, temperature=1e-4)
    classifier = MeanFieldClassifier(algorithm=solver, n_steps=40, random_state=0).fit(X, y)
    inputs = (X - X.mean(axis=0)) / X.std(axis=0)
    model = mfld.TwoLayerNetwork(4, activation="silu", readout="bounded", readout_bound=5.0)
    risk = mfld.EmpiricalRisk(model, inputs, 2.0 * (y == 2) - 1, loss="logistic", l2=classifier.l2)
    result = solver.run(risk, 40, seed=classifier.state_.seed)
    assert classifier.cloud_.particles.tobytes() == result.particles.tobytes()
    np.testing.assert_array_equal(classifier.loss_curve_, result.history["loss"])


@pytest.mark.parametrize(
    "algorithm",
    [
        mfld.MFLD(20, step_size=0.01, temperature=1e-3, n_replicates=3),
        mfld.PDA(20, step_size=0.01, temperature=1e-3, n_replicates=3),
    ],
    ids=lambda algorithm: type(algorithm).__name__,
)
def test_replicates_predict_together_and_go_on(algorithm):
    regressor = MeanFieldRegressor(algorithm=algorithm, n_steps=5, warm_start=True, random_state=0)
    regressor.fit(*DIABETES).fit(*DIABETES)
    each = []
    for one in regressor.state_.each():
        single = copy.copy(regressor)
        single.state_ = one
        each.append(single.predict(DIABETES[0]))
    np.testing.assert_allclose(regressor.predict(DIABETES[0]), np.mean(each, axis=0), rtol=1e-5)
    assert regressor.state_.n_replicates == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"algorithm": "sgd"}, "algorithm must be one of mfld, pda, psdca"),
        ({"gradient": "half"}, "gradient must be one of auto, full, minibatch, svrg, sarah; got 'half'"),
        ({"dynamics": "lazy"}, "dynamics must be one of .*overdamped.*; got 'lazy'"),
        ({"loss": "zero_one"}, "loss must be one of .*; got 'zero_one'"),
        ({"n_steps": 0}, "n_steps must be at least 1, got 0"),
        ({"l2": -1.0}, "l2 must be finite and at least 0, got -1"),
        ({"validation_fraction": 1.5}, "validation_fraction must be below 1, got 1.5"),
        ({"n_particles": 0}, "n_particles must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
def test_arguments_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        MeanFieldClassifier(**change).fit(*IRIS)


@pytest.mark.filterwarnings("ignore:the loss of the network")  # at a temperature of 0.5
def test_what_is_chosen_by_default(rng):
    rule = MeanFieldRegressor()._gradient
    assert rule(256, None) == mfld.FullBatch()
    assert rule(257, None) == mfld.Minibatch(128)
    assert rule(100_000, None) == mfld.Minibatch(2500)
    assert MeanFieldRegressor(algorithm="pda")._gradient(100_000, None) == mfld.FullBatch()
    assert MeanFieldRegressor(batch_size=32)._gradient(100, None) == mfld.Minibatch(32)
    assert MeanFieldRegressor(batch_size=32)._gradient(20, None) == mfld.Minibatch(20)
    fitted = MeanFieldRegressor(l2=0.02, **QUICK).fit(*DIABETES)
    assert fitted.temperature_ == pytest.approx(2 * 0.02 * 0.01)
    dual = MeanFieldRegressor(algorithm="psdca", activation="tanh", n_particles=20, n_steps=1, l2=0.02)
    assert dual.fit(*DIABETES).temperature_ == pytest.approx(2 * 0.02 * 0.25)
    assert MeanFieldRegressor(temperature=0.5, **QUICK).fit(*DIABETES).temperature_ == 0.5
    assert MeanFieldRegressor(step_size=0.25, **QUICK).fit(*DIABETES).step_size_ == 0.25


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_precision_is_that_of_the_rows_or_the_one_asked_for(kind, dtype):
    X, y = DIABETES
    rows = X.astype(kind)
    own = MeanFieldRegressor(n_particles=20, n_steps=5, random_state=0).fit(rows, y)
    assert own.cloud_.particles.dtype == kind
    asked = MeanFieldRegressor(n_particles=20, n_steps=5, random_state=0, dtype=dtype).fit(rows, y)
    assert asked.cloud_.particles.dtype == dtype
    if kind == dtype:
        assert np.array_equal(asked.predict(rows), own.predict(rows))
    with pytest.raises(ValueError, match=f"dtype must be '{dtype}' as before in a fit that goes on, got None"):
        asked.set_params(dtype=None, warm_start=True).fit(rows, y)
    with pytest.raises(ValueError, match="dtype must be float32, float64 or 'bfloat16', got float16"):
        asked.set_params(dtype="float16", warm_start=False).fit(rows, y)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_precision_is_that_of_the_inputs(kind):
    X, y = DIABETES
    regressor = MeanFieldRegressor(**QUICK).fit(X.astype(kind), y)
    assert regressor.cloud_.particles.dtype == kind
    assert regressor.predict(X).dtype == np.float64  # the offset of the targets may need it


# ---- weights ---------------------------------------------------------------------------------------------------------


def test_class_weights_multiply_sample_weights(rng):
    X, y = TWO
    weights = rng.random(len(y)) + 0.1
    once = MeanFieldClassifier(class_weight={1: 3.0, 2: 0.5}, **QUICK).fit(X, y, weights)
    other = MeanFieldClassifier(**QUICK).fit(X, y, weights * np.where(y == 1, 3.0, 0.5))
    np.testing.assert_allclose(once.decision_function(X), other.decision_function(X), rtol=1e-9)


def test_balanced_classes_weigh_the_same(rng):
    X, y = TWO[0][:70], TWO[1][:70]  # 50 and 20
    balanced = MeanFieldClassifier(class_weight="balanced", **QUICK).fit(X, y)
    explicit = MeanFieldClassifier(**QUICK).fit(X, y, np.where(y == 1, 1 / 50, 1 / 20))
    np.testing.assert_allclose(balanced.decision_function(X), explicit.decision_function(X), rtol=1e-9)
    weights = rng.integers(0, 3, len(y))  # and balance counts rows by their weights
    weighted = MeanFieldClassifier(class_weight="balanced", **QUICK).fit(X, y, weights)
    repeated = MeanFieldClassifier(class_weight="balanced", **QUICK).fit(X.repeat(weights, axis=0), y.repeat(weights))
    np.testing.assert_allclose(weighted.decision_function(X), repeated.decision_function(X), rtol=1e-7)


def test_weights_that_are_none():
    X, y = TWO
    with pytest.raises(ValueError, match="weights must be at least 0"):
        MeanFieldClassifier().fit(X, y, np.where(np.arange(len(y)) == 3, -1, 1))
    with pytest.raises(ValueError, match="at least one non-zero"):
        MeanFieldClassifier().fit(X, y, np.zeros(len(y)))
    with pytest.raises(ValueError, match="needs at least 2 classes, got 1 class"):
        MeanFieldClassifier().fit(X, y, y == 1)


# ---- going on --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gradient", ["full", "sarah"])
def test_warm_starts_are_one_long_fit(gradient):
    whole = MeanFieldRegressor(gradient=gradient, n_steps=30, n_particles=20, random_state=3).fit(*DIABETES)
    parts = clone(whole).set_params(warm_start=True)
    for n_steps in (7, 11, 12):
        parts.set_params(n_steps=n_steps).fit(*DIABETES)
    assert parts.n_iter_ == whole.n_iter_ == 30
    assert parts.cloud_.particles.tobytes() == whole.cloud_.particles.tobytes()


def test_warm_starts_need_the_same_problem():
    classifier = MeanFieldClassifier(warm_start=True, **QUICK).fit(*IRIS)
    with pytest.raises(ValueError, match="warm_start needs the classes of the last fit"):
        classifier.fit(*TWO)
    with pytest.raises(ValueError, match="expecting 4 features"):
        classifier.fit(IRIS[0][:, :3], IRIS[1])
    assert MeanFieldClassifier(**QUICK).fit(*IRIS).fit(*TWO).classes_.tolist() == [1, 2]  # a cold one does not


def test_partial_fits(rng):
    X, y = IRIS
    order = rng.permutation(len(y))
    classifier = MeanFieldClassifier(n_particles=50, batch_size=10, random_state=0)
    with pytest.raises(ValueError, match="classes must be passed on the first call to partial_fit"):
        classifier.partial_fit(X, y)
    for _ in range(15):
        for part in np.array_split(order, 3):
            classifier.partial_fit(X[part], y[part], classes=[0, 1, 2])
    assert classifier.n_iter_ == 15 * 3 * 5
    assert classifier.score(X, y) > 0.9
    with pytest.raises(ValueError, match="y must hold classes of the first call"):
        classifier.partial_fit(X[:2], [1, 5])
    with pytest.raises(ValueError, match="classes must be those of the first call"):
        classifier.partial_fit(X, y, classes=[0, 1])
    regressor = MeanFieldRegressor(n_particles=50, random_state=0)
    for _ in range(10):
        regressor.partial_fit(*DIABETES)
    assert regressor.n_iter_ == 10 * 4  # 442 rows, 128 at a time
    assert regressor.score(*DIABETES) > 0.2


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        ({"gradient": "full"}, 1),
        ({"gradient": "svrg", "batch_size": 40}, 4),
        ({"gradient": mfld.Smoothed(0.0, mfld.Minibatch(50))}, 3),
        ({"algorithm": mfld.MFLD(20, step_size=0.1, temperature=0.0, gradient=mfld.Minibatch(15))}, 10),
    ],
    ids=["full", "svrg", "smoothed", "an object"],
)
def test_a_partial_fit_sees_each_row_about_once(arguments, steps):
    estimator = MeanFieldClassifier(n_particles=20, step_size=0.1, random_state=0, **arguments)
    for passes in (1, 2):
        assert estimator.partial_fit(*IRIS, classes=[0, 1, 2]).n_iter_ == passes * steps  # of 150 rows


@pytest.mark.parametrize("algorithm", ["pda", "psdca", mfld.PDA(5, step_size=0.1, temperature=0.1)], ids=str)
def test_algorithms_that_belong_to_their_rows_have_no_partial_fit(algorithm):
    for estimator, data in ((MeanFieldClassifier, IRIS), (MeanFieldRegressor, DIABETES)):
        with pytest.raises(TypeError, match="partial_fit needs algorithm='mfld'"):
            estimator(algorithm=algorithm).partial_fit(*data)


def test_early_stopping_keeps_the_best():
    X, y = DIABETES
    options = {"n_particles": 100, "l2": 1e-4, "n_steps": 1000, "random_state": 0, "n_iter_no_change": 5}
    stopped = MeanFieldRegressor(early_stopping=True, **options).fit(X, y)
    losses = stopped.validation_losses_
    assert len(losses) < 100
    assert stopped.n_iter_ == 10 * (1 + np.argmin(losses))
    assert not hasattr(MeanFieldRegressor(**QUICK).fit(X, y), "validation_losses_")
    # The last looks did not improve on what came before them, and those before did.
    assert losses[:-5].min() <= losses[-5:].min() + 1e-4
    classifier = MeanFieldClassifier(early_stopping=True, **options).fit(*IRIS)
    assert classifier.score(*IRIS) > 0.9


@pytest.mark.parametrize(
    "make", [lambda: None, lambda: np.random.RandomState(0), lambda: 0], ids=["None", "state", "0"]
)
def test_fits_that_go_on_validate_on_the_same_rows(make, monkeypatch):
    seen = []

    class Watched(fitting.KeepBest):
        def __init__(self, held_out, *args):
            seen.append(held_out.inputs.tobytes())
            super().__init__(held_out, *args)

    monkeypatch.setattr("mfld.sklearn.base.KeepBest", Watched)
    regressor = MeanFieldRegressor(early_stopping=True, n_particles=20, n_steps=5, random_state=make())
    regressor.set_params(warm_start=True).fit(*DIABETES).fit(*DIABETES).fit(*DIABETES)
    assert len(seen) == 3
    assert len(set(seen)) == 1
    regressor.set_params(warm_start=False).fit(*DIABETES)
    assert (seen[3] == seen[0]) == (regressor.random_state == 0)  # a cold one draws anew


# ---- what fails, fails loudly ----------------------------------------------------------------------------------------


def interrupted(predictions, targets):
    raise KeyboardInterrupt


def broken(predictions, targets):
    raise RuntimeError("no loss today")


BREAKS = {
    "divergence": ({"step_size": 1e200, "batch_size": 5}, mfld.DivergenceError),
    "Ctrl-C": ({"loss": interrupted}, KeyboardInterrupt),
    "own loss": ({"loss": broken}, RuntimeError),
    "refused": ({"n_particles": 0}, ValueError),
    "refused late": ({"certify": True, "loss": lambda u, y: ((u - y) ** 2, 2 * (u - y))}, ValueError),
}


@pytest.mark.parametrize(("change", "error"), BREAKS.values(), ids=BREAKS)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_fit_that_fails_leaves_the_last_one_whole(method, change, error, rng):
    X = rng.normal(size=(40, 3))
    regressor = MeanFieldRegressor(**QUICK).fit(X, X[:, 0])
    before = regressor.predict(X)
    cold = clone(regressor).set_params(**change)
    if method == "partial_fit" and "certify" in change:
        return  # it makes none
    with pytest.raises(error):
        getattr(regressor.set_params(**change), method)(X, 1000 * X[:, 0] + 1e5)
    regressor.set_params(**{name: getattr(MeanFieldRegressor(**QUICK), name) for name in change})
    assert regressor.predict(X).tobytes() == before.tobytes()
    assert regressor.partial_fit(X, X[:, 0]).n_iter_ == QUICK["n_steps"] + 1  # and it goes on
    with pytest.raises(error):
        getattr(cold, method)(X, X[:, 0])
    with pytest.raises(NotFittedError):
        cold.predict(X)


def test_classes_and_features_are_those_of_the_last_whole_fit():
    classifier = MeanFieldClassifier(**QUICK).fit(*IRIS)
    with pytest.raises(mfld.DivergenceError):
        classifier.set_params(step_size=1e200).fit(TWO[0][:, :2], TWO[1] + 5)
    assert classifier.classes_.tolist() == [0, 1, 2]
    assert classifier.predict_proba(IRIS[0]).shape == (150, 3)


@pytest.mark.parametrize("offset", [1.7e9, -3e12])
def test_offsets_of_targets_are_double_whatever_the_particles_are(offset, rng):
    X = rng.normal(size=(300, 3))
    y = offset + 3 * X[:, 0]
    regressor = MeanFieldRegressor(n_particles=100, n_steps=300, random_state=0).fit(X.astype(np.float32), y)
    assert regressor.cloud_.particles.dtype == np.float32
    errors = regressor.predict(X.astype(np.float32)) - y
    assert 1 - np.mean(errors**2) / np.var(y) > 0.99


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_particles": 30}, "n_particles must be 20 as before in a fit that goes on, got 30"),
        ({"activation": "tanh"}, "activation must be 'silu' as before in a fit that goes on, got 'tanh'"),
        ({"readout": "linear"}, "readout must be 'bounded' as before"),
        ({"readout_bound": 2.0}, "readout_bound must be 5.0 as before .* got 2.0"),
        ({"standardise": False}, "standardise must be True as before"),
        ({"model": mfld.TwoLayerNetwork}, "model must be None as before"),
    ],
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_network_that_goes_on_is_the_same_network(method, change, message):
    regressor = MeanFieldRegressor(warm_start=True, **QUICK).fit(*DIABETES)
    with pytest.raises(ValueError, match=message):
        getattr(regressor.set_params(**change), method)(*DIABETES)
    name, before = next((name, getattr(MeanFieldRegressor(**QUICK), name)) for name in change)
    assert getattr(regressor.set_params(**{name: before}), method)(*DIABETES).n_iter_ > QUICK["n_steps"]


def test_a_loss_of_other_outputs_does_not_go_on():
    classifier = MeanFieldClassifier(warm_start=True, **QUICK).fit(*TWO)
    with pytest.raises(ValueError, match=r"loss must be one of 1 outputs as before .* got 'cross_entropy' of 2"):
        classifier.set_params(loss="cross_entropy").fit(*TWO)
    assert classifier.set_params(loss="hinge").fit(*TWO).n_iter_ == 2 * QUICK["n_steps"]


def test_rows_are_held_out_by_strata_and_classes_too_rare_are_named(rng):
    X = rng.normal(size=(60, 2))
    stopped = MeanFieldClassifier(early_stopping=True, **QUICK)
    with pytest.raises(ValueError, match="at least 2 rows of each class with early_stopping, got 1 of class 'sick'"):
        stopped.fit(X, np.where(np.arange(60) == 7, "sick", "well"))
    two = np.where(np.arange(60) % 50 == 7, "sick", "well")
    train, held_out = stopped.fit(X, two)._split(two)
    assert set(two[train]) == {"sick", "well"}
    assert sorted([*train, *held_out]) == list(range(60))
    with pytest.raises(ValueError, match=r"rows of each class to train on, got 0\.9: none of class 'sick'"):
        clone(stopped).set_params(validation_fraction=0.9).fit(X, two)
    with pytest.raises(ValueError, match=r"at least 3 rows on either side, .* got 0\.02: of 60 rows 2"):
        clone(stopped).set_params(validation_fraction=0.02).fit(X, np.arange(60) % 3)


def test_masked_values_are_refused_by_name():
    X, y = IRIS
    masked = np.ma.array(X, mask=X > 7.5)
    for call, name in (
        (lambda: MeanFieldClassifier(**QUICK).fit(masked, y), "X"),
        (lambda: MeanFieldClassifier(**QUICK).fit(X, np.ma.array(y, mask=y == 2)), "y"),
        (lambda: MeanFieldRegressor(**QUICK).fit(X, y, np.ma.array(X[:, 0], mask=y == 2)), "sample_weight"),
        (lambda: MeanFieldClassifier(**QUICK).partial_fit(list(masked), y, [0, 1, 2]), "X"),
        (lambda: MeanFieldClassifier(**QUICK).fit(X, y).predict(masked), "X"),
    ):
        with pytest.raises(ValueError, match=f"^{name} must have no masked values, got"):
            call()
    whole = MeanFieldClassifier(**QUICK).fit(np.ma.array(X), y)  # nothing is masked
    assert whole.cloud_.particles.tobytes() == MeanFieldClassifier(**QUICK).fit(X, y).cloud_.particles.tobytes()


# ---- randomness, threads, copies -------------------------------------------------------------------------------------


def test_random_state_and_threads():
    def particles(**options):
        return MeanFieldClassifier(**{**QUICK, **options}).fit(*IRIS).cloud_.particles.tobytes()

    first = particles()
    assert particles() == first
    assert particles(random_state=np.random.RandomState(0)) == first
    assert particles(random_state=1) != first
    assert particles(random_state=None) != particles(random_state=None)
    for n_jobs in (1, 2, -1):
        assert particles(n_jobs=n_jobs) == first
    stream = np.random.RandomState(0)
    assert len({particles(random_state=stream) for _ in range(3)}) == 3


def test_copies_predict_the_same(tmp_path):
    X, y = DIABETES
    regressor = MeanFieldRegressor(gradient="svrg", **QUICK).fit(X, y)
    expected = regressor.predict(X)
    joblib.dump(regressor, tmp_path / "model.joblib")
    copies = [
        pickle.loads(pickle.dumps(regressor)),
        copy.deepcopy(regressor),
        copy.copy(regressor),
        joblib.load(tmp_path / "model.joblib"),
        joblib.load(tmp_path / "model.joblib", mmap_mode="r"),
    ]
    for other in copies:
        np.testing.assert_array_equal(other.predict(X), expected)
        other.set_params(warm_start=True).fit(X, y)  # and go on
    states = {other.cloud_.particles.tobytes() for other in copies}
    assert len(states) == 1
    np.testing.assert_array_equal(regressor.predict(X), expected)


class Watch:
    """A callback of scikit-learn: what it was called with, and when to stop."""

    def __init__(self, stop_after=None):
        self.stop_after = stop_after
        self.tasks, self.fitted, self.seen = [], [], []

    def setup(self, estimator, context):
        self.tasks.append(("setup", context.task_name))

    def teardown(self, estimator, context):
        self.tasks.append(("teardown", context.task_name))

    def on_fit_task_begin(self, estimator, context):
        self.tasks.append(("begin", context.task_name))

    def on_fit_task_end(self, estimator, context, *, X, y, metadata, fitted_estimator):
        self.tasks.append(("end", context.task_name))
        if context.task_name == "steps":
            self.fitted.append(fitted_estimator)
            self.seen.append((X, y, metadata))
            return len(self.fitted) == self.stop_after


@pytest.mark.skipif(not hasattr(MeanFieldClassifier, "set_callbacks"), reason="scikit-learn has no callbacks")
@pytest.mark.parametrize(("make", "data"), [(MeanFieldClassifier, IRIS), (MeanFieldRegressor, DIABETES)])
def test_callbacks_of_scikit_learn(make, data):
    X, y = data[0][::5], data[1][::5]
    weights = np.linspace(1, 2, len(y))

    def fitted(n_steps, *callbacks):
        estimator = make(n_particles=10, n_steps=n_steps, random_state=0).set_callbacks(*callbacks)
        return estimator.fit(X, y, weights)

    watch, alone = Watch(), fitted(250)
    np.testing.assert_array_equal(fitted(250, watch).predict(X), alone.predict(X))
    subtasks = [("begin", "steps"), ("end", "steps")] * math.ceil(250 / 3)
    assert watch.tasks == [("setup", "fit"), ("begin", "fit"), *subtasks, ("end", "fit"), ("teardown", "fit")]
    assert [estimator.n_iter_ for estimator in watch.fitted] == [*range(3, 250, 3), 250]
    # Those of a subtask are those of a fit that ends there, and they stay so.
    np.testing.assert_array_equal(watch.fitted[9].predict(X), fitted(30).predict(X))
    for given, known in zip(watch.seen[0][:2], (X, y), strict=True):
        np.testing.assert_array_equal(given, known)
    np.testing.assert_array_equal(watch.seen[0][2]["sample_weight"], weights)

    stopped = fitted(250, Watch(stop_after=10))
    assert stopped.n_iter_ == 30
    np.testing.assert_array_equal(stopped.predict(X), watch.fitted[9].predict(X))

    failing = Watch()
    with pytest.raises(ValueError, match="batch_size must be at most the number of samples"):
        make(gradient=mfld.Minibatch(1000)).set_callbacks(failing).fit(X, y)
    assert failing.tasks[-1] == ("teardown", "fit")


@pytest.mark.skipif(not hasattr(MeanFieldClassifier, "set_callbacks"), reason="scikit-learn has no callbacks")
def test_callbacks_of_warm_starts_and_of_scores():
    from sklearn.callback import ScoringMonitor  # noqa: PLC0415  scikit-learn 1.9

    monitor = ScoringMonitor(scoring="accuracy")
    estimator = MeanFieldClassifier(warm_start=True, **QUICK).set_callbacks(monitor).fit(*IRIS)
    estimator.set_params(n_steps=7).fit(*IRIS)
    of_steps = [row["accuracy"] for row in monitor.get_logs().data if row["task_name"] == "steps"]
    assert len(of_steps) == 7
    assert of_steps[-1] == estimator.score(*IRIS)


@pytest.mark.skipif(not hasattr(MeanFieldClassifier, "set_callbacks"), reason="scikit-learn has no callbacks")
def test_callbacks_of_a_pipeline_reach_the_steps():
    class Propagated(Watch):
        max_propagation_depth = None

    watch = Propagated()
    pipeline = make_pipeline(StandardScaler(), MeanFieldClassifier(**QUICK)).set_callbacks(watch).fit(*IRIS)
    assert watch.tasks.count(("end", "steps")) == 30
    assert watch.fitted[-1].score(pipeline[0].transform(IRIS[0]), IRIS[1]) == pipeline.score(*IRIS)


def test_pipelines_grid_search_and_workers():
    X, y = IRIS
    pipeline = make_pipeline(StandardScaler(), MeanFieldClassifier(**QUICK))
    search = GridSearchCV(pipeline, {"meanfieldclassifier__l2": [1e-3, 1.0]}, cv=2).fit(X, y)
    assert search.best_params_ == {"meanfieldclassifier__l2": 1e-3}
    alone = cross_val_score(pipeline, X, y, cv=2)
    np.testing.assert_array_equal(cross_val_score(pipeline, X, y, cv=2, n_jobs=2), alone)


def test_progress_only_when_asked_for(capsys):
    MeanFieldClassifier(**QUICK).fit(*IRIS)
    assert capsys.readouterr().err == ""
    MeanFieldClassifier(verbose=1, **QUICK).fit(*IRIS)
    assert "loss" in capsys.readouterr().err


# ---- pruning ---------------------------------------------------------------------------------------------------------


def best_of_all_subsets(columns, target, size):
    """Smallest squared error of non-negative weights on at most so many columns, by enumeration."""
    best = np.inf
    for chosen in itertools.combinations(range(columns.shape[1]), size):
        solution, *_ = np.linalg.lstsq(columns[:, chosen], target, rcond=None)
        if (solution >= 0).all():
            best = min(best, np.sum((columns[:, chosen] @ solution - target) ** 2))
    return best


def test_pruning_against_all_subsets(rng):
    model = mfld.TwoLayerNetwork(n_features=2)
    cloud = mfld.Cloud(rng.normal(size=(12, 4)), rng.random(12))
    inputs = rng.normal(size=(30, 2))
    neurons, f = model.neurons(cloud.particles, inputs), model.predict(cloud.particles, inputs, cloud.weights)
    errors = []
    for size in range(1, 12):
        pruned, error = mfld.prune(model, cloud, inputs, size)
        assert len(pruned.particles) <= size
        np.testing.assert_allclose(pruned.weights.sum(), 1, rtol=1e-12)
        change = model.neurons(pruned.particles, inputs) @ pruned.weights - f
        assert error == pytest.approx(np.abs(change).max(), rel=1e-9)
        errors.append(np.sum(change**2))
        if size <= 4:
            assert errors[-1] >= best_of_all_subsets(neurons, f, size) * (1 - 1e-9)
    # Greedy is no optimum, but it is far better than particles at hand with their weights.
    random = [
        np.sum((neurons[:, some] @ (cloud.weights[some] / cloud.weights[some].sum()) - f) ** 2)
        for some in (rng.permutation(12)[:6] for _ in range(200))
    ]
    assert errors[5] < np.min(random) / 4
    assert mfld.prune(model, cloud, inputs, 12) == (cloud, 0.0)


def test_equal_neurons_merge(rng):
    model = mfld.TwoLayerNetwork(n_features=2)
    particles = rng.normal(size=(5, 4)).repeat(20, axis=0)
    pruned, error = mfld.prune(model, mfld.Cloud(particles), rng.normal(size=(50, 2)), 30)
    assert len(np.unique(pruned.particles, axis=0)) == 5
    assert error < 1e-6
    assert len(pruned.particles) <= 6


@pytest.mark.parametrize("data", [TWO, IRIS], ids=["two classes", "three classes"])
def test_a_pruned_classifier(data):
    X, y = data
    classifier = MeanFieldClassifier(random_state=0).fit(X, y)
    before = classifier.decision_function(X)
    pruned = classifier.prune(32, X)
    assert len(pruned.cloud_.particles) <= 32
    assert len(classifier.cloud_.particles) == 256
    change = np.abs(pruned.decision_function(X) - before).max()
    assert change == pytest.approx(pruned.pruning_error_, rel=1e-9)
    assert change < 0.02 * np.abs(before).max()
    assert pruned.score(X, y) >= classifier.score(X, y) - 0.01
    np.testing.assert_array_equal(classifier.decision_function(X), before)
    with pytest.raises(ValueError, match="particles of equal weight"):
        pruned.set_params(warm_start=True).fit(X, y)


def test_a_pruned_regressor_states_its_error_in_the_units_of_y():
    X, y = DIABETES
    regressor = MeanFieldRegressor(random_state=0).fit(X, y)
    pruned = regressor.prune(64, X)
    change = np.abs(pruned.predict(X) - regressor.predict(X)).max()
    assert change == pytest.approx(pruned.pruning_error_, rel=1e-6)
    assert change < 0.1 * np.std(y)
    again = pickle.loads(pickle.dumps(pruned))
    np.testing.assert_array_equal(again.predict(X), pruned.predict(X))
