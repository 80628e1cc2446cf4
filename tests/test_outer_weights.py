"""Networks whose outer weights are the best ones, in the library, as estimators and from the command line."""

import numpy as np
import pytest

import mfld
from mfld import experiments, fitting, outer_weights
from mfld.cli import main

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(40, 3))
CLASSES = (INPUTS[:, 0] > 0).astype(int) + (INPUTS[:, 1] > 0.5)


def risk(loss, targets, n_outputs):
    network = mfld.TwoLayerNetwork(3, n_outputs, readout="linear")
    return mfld.EmpiricalRisk(network, INPUTS, targets, loss=loss, l2=0.01)


@pytest.mark.parametrize(("loss", "n_outputs"), [("half_squared", 2), ("cross_entropy", 3), ("logistic", 1)])
def test_the_network_of_positions_is_at_a_minimum_in_its_outer_weights(loss, n_outputs):
    """At it the slopes of the risk with a ridge vanish in the weights, and the value is that of the positions."""
    targets = {"half_squared": INPUTS[:, :2], "cross_entropy": CLASSES, "logistic": np.sign(INPUTS[:, 0])}[loss]
    network_risk, strength = risk(loss, targets, n_outputs), 0.02
    positions = outer_weights.reduced(network_risk, strength)
    start = positions.initial_particles(15, 2, "float64")
    cloud = outer_weights.neurons(positions, start)
    np.testing.assert_array_equal(cloud.particles[:, :4], start)
    f = cloud.particles[:, 4:]
    slopes = network_risk.loss_gradient(cloud.particles)[:, 4:] + strength * f
    np.testing.assert_allclose(slopes, 0, atol=1e-7 * strength * np.abs(f).max())
    value = network_risk.loss(cloud.particles) + strength / 2 * np.mean(np.sum(f**2, axis=1))
    assert positions.loss(start) == pytest.approx(value, rel=1e-5)
    moved = cloud.particles.copy()
    moved[:, 4:] *= 1.1
    assert network_risk.loss(moved) + strength / 2 * np.mean(np.sum(moved[:, 4:] ** 2, axis=1)) > value


@pytest.mark.parametrize("name", ["wine", "diabetes"])
def test_estimators_predict_at_least_as_well_as_by_default(name):
    """Measured over 5 seeds by bench/sklearn_table.py --readouts; here of one, whose standard error is the slack."""
    sklearn = pytest.importorskip("mfld.sklearn")
    data = experiments.load(name)
    rows = np.random.default_rng(1).permutation(len(data.inputs))
    train, test = rows[: 3 * len(rows) // 4], rows[3 * len(rows) // 4 :]
    kind = sklearn.MeanFieldRegressor if data.classes is None else sklearn.MeanFieldClassifier
    scores = []
    for own in ({}, {"readout": "bilevel"}):
        fitted = kind(random_state=0, **own).fit(data.inputs[train], data.targets[train])
        scores.append(fitted.score(data.inputs[test], data.targets[test]))
    assert scores[1] > scores[0] - 0.03
    assert scores[1] > (0.4 if data.classes is None else 0.93)


def test_estimators_go_on_prune_and_stop_early():
    sklearn = pytest.importorskip("mfld.sklearn")
    estimator = sklearn.MeanFieldClassifier(readout="bilevel", n_steps=30, n_particles=40, random_state=0)
    once = estimator.fit(INPUTS, CLASSES)
    assert once.model_.readout == "linear"
    assert once.cloud_.particles.shape == (40, 4 + 3)
    pruned = once.prune(10, INPUTS)
    assert len(pruned.cloud_.particles) <= 10
    before = once.decision_function(INPUTS)
    again = once.set_params(warm_start=True).fit(INPUTS[::2], CLASSES[::2])
    assert again.n_iter_ == 60
    assert np.abs(again.decision_function(INPUTS) - before).max() > 1e-3
    stopping = sklearn.MeanFieldClassifier(readout="bilevel", early_stopping=True, n_steps=40, n_particles=40)
    assert len(stopping.fit(INPUTS, CLASSES).validation_losses_) > 0
    probable = sklearn.MeanFieldClassifier(readout="bilevel", loss="cross_entropy", n_steps=10, n_particles=20)
    np.testing.assert_allclose(probable.fit(INPUTS, CLASSES).predict_proba(INPUTS).sum(axis=1), 1, rtol=1e-5)
    assert "coefficients" in probable.state_.buffers


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"strength": 0.0}, "strength must be finite and positive"),
        ({"loss": "absolute"}, "loss must be convex with a smooth derivative"),
        ({"algorithm": "psdca"}, "algorithm must be 'mfld' or an object"),
        ({"certify": True}, "certify must be False"),
        ({"covariance": mfld.functional_data.PowerLaw(2.0)}, "covariance must be None"),
        ({"gradient": "svrg"}, "gradient must be 'full' or an object with readout='bilevel', got 'svrg'"),
        ({"batch_size": 8}, "batch_size must be None with readout='bilevel', got 8"),
        ({"strength": 1e-40}, "strength must be larger"),
        ({"strength": 1e300, "n_particles": 50}, None),
    ],
)
def test_what_has_no_place_beside_best_weights_is_refused(given, message):
    sklearn = pytest.importorskip("mfld.sklearn")
    estimator = sklearn.MeanFieldRegressor(**{"readout": "bilevel", "n_steps": 2, "n_particles": 5} | given)
    if message is None:
        np.testing.assert_allclose(estimator.fit(INPUTS, INPUTS[:, 0]).predict(INPUTS), INPUTS[:, 0].mean(), rtol=1e-9)
        return
    with pytest.raises(ValueError, match=message):
        estimator.fit(INPUTS, INPUTS[:, 0])


def own_model(n_features, n_outputs):
    return mfld.TwoLayerNetwork(n_features, n_outputs)


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("MeanFieldClassifier", {"strength": 0.1}, "strength must be left out with readout='bounded'"),
        ("MeanFieldRegressor", {"readout": "linear", "strength": 0.1}, "strength must be left out"),
        ("MeanFieldRegressor", {"readout": "linear", "readout_bound": 2.0}, "readout_bound must be left out with"),
        ("MeanFieldClassifier", {"readout": "bilevel", "readout_bound": 2.0}, "readout_bound must be left out with"),
        ("ResidualRegressor", {"readout": "linear", "readout_bound": 2.0}, "readout_bound must be left out with"),
        ("MeanFieldRegressor", {"n_modes": 3}, "n_modes must be left out with no covariance"),
        ("MeanFieldRegressor", {"model": own_model, "activation": "tanh"}, "activation must be left out with a model"),
        ("MeanFieldRegressor", {"model": own_model, "readout": "bilevel"}, "readout must be left out with a model"),
        ("MeanFieldRegressor", {"model": own_model, "strength": 1.0}, "strength must be left out with your own model"),
        ("MeanFieldRegressor", {"readout": "bilvel"}, "readout must be one of .*, parity, bilevel; got 'bilvel'"),
        ("ResidualRegressor", {"readout": "bilevel"}, "readout must be one of .*, parity; got 'bilevel'"),
    ],
)
def test_what_would_change_nothing_is_refused(kind, given, message):
    sklearn = pytest.importorskip("mfld.sklearn")
    with pytest.raises(ValueError, match=message):
        getattr(sklearn, kind)(n_steps=1, n_particles=5, **given).fit(INPUTS, CLASSES)


@pytest.mark.parametrize("readout", ["linear", "bilevel"])
def test_a_recipe_refuses_a_bound_where_there_is_none(readout, capsys):
    with pytest.raises(ValueError, match=f"readout_bound must be left out with readout='{readout}', got 2"):
        experiments.Recipe(readout=readout, readout_bound=2.0)
    with pytest.raises(ValueError, match="n_modes must be left out without functional, got 3"):
        experiments.Recipe(n_modes=3)
    assert main(f"train iris --readout {readout} --readout-bound 2".split()) == 2
    assert f"--readout-bound must be left out with --readout {readout}, got 2" in capsys.readouterr().err


def test_a_recipe_of_a_linear_readout_trains():
    recipe = experiments.Recipe(readout="linear", l2=0.01, n_steps=5, n_particles=10)
    assert experiments.train(experiments.load("iris"), recipe=recipe).trained.model.readout == "linear"


def test_parts_of_the_rows_are_refused():
    sklearn = pytest.importorskip("mfld.sklearn")
    with pytest.raises(TypeError, match="partial_fit needs another readout"):
        sklearn.MeanFieldRegressor(readout="bilevel").partial_fit(INPUTS, INPUTS[:, 0])
    for given in ({"method": "pda"}, {"depth": 2}, {"certify": True}, {"batch_size": 5}, {"gradient": "sarah"}):
        with pytest.raises(ValueError, match="with readout='bilevel'"):
            experiments.Recipe(readout="bilevel", **given)
    with pytest.raises(ValueError, match="strength must be left out"):
        experiments.Recipe(strength=0.1)


def test_the_command_line_trains_saves_and_predicts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train = "train iris --readout bilevel --strength 0.01 --n-steps 60 --n-particles 60 --quiet --output iris.npz"
    assert main(train.split()) == 0
    trained = experiments.TrainedModel.load("iris.npz")
    data = experiments.load("iris")
    assert trained.hyperparameters["strength"] == 0.01
    assert trained.model.readout == "linear"
    assert trained.split_scores(data)["test"].score > 0.9
    # The file has all that predictions need: those of a mean over neurons, by NumPy.
    w, f = np.split(trained.particles.astype(np.float64), [5], axis=1)
    z = trained.standardised(data.inputs).astype(np.float64) @ w[:, :4].T + w[:, 4]
    outputs = (z / (1 + np.exp(-z))) @ f / len(w)
    np.testing.assert_array_equal(fitting.decided(outputs, data.classes), trained.predict(data.inputs))
    assert main([*train.split(), "--report"]) == 2
    assert "--report must be left out" in capsys.readouterr().err
