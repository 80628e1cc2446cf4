"""The main job from the command line: figures, files, errors; and how good the recipe is on real data."""

import dataclasses
import json
import re
import sys
import zipfile

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV

import mfld
from mfld import cli, experiments
from mfld.experiments import Recipe, TrainedModel
from mfld.experiments import recipe as recipe_module


def run(capsys, *arguments):
    """Status, standard output, standard error."""
    status = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def figures(text):
    """The two lines of figures, as numbers."""
    lines = re.findall(r"^(train|test) +loss (\S+)  (?:accuracy|R2) (\S+)$", text, re.MULTILINE)
    return {name: (float(loss), float(score)) for name, loss, score in lines}


QUICK = {
    "mfld": (),
    "pda": ("--method", "pda", "--l2", "0.02", "--n-particles", 300),
    "psdca": ("--method", "psdca", "--l2", "0.06", "--n-particles", 300, "--n-steps", 6),
}


@pytest.mark.parametrize(
    ("name", "method"),
    [("iris", "mfld"), ("breast_cancer", "mfld"), ("diabetes", "mfld"), ("breast_cancer", "pda"), ("iris", "psdca")],
)
def test_predict_prints_what_train_printed(name, method, tmp_path, capsys):
    model = tmp_path / "model.npz"
    status, trained, progress = run(capsys, "train", name, "--output", model, *QUICK[method])
    assert status == 0
    assert not progress  # no bar where nobody sees it move
    assert (tmp_path / "model.png").read_bytes().startswith(b"\x89PNG")
    table = tmp_path / "predictions.csv"
    status, predicted, _ = run(capsys, "predict", model, name, "--output", table)
    assert status == 0
    printed = figures(trained)
    assert set(printed) == {"train", "test"}
    for part, numbers in figures(predicted).items():
        np.testing.assert_allclose(numbers, printed[part], atol=1e-6)
    rows = np.genfromtxt(table, delimiter=",", names=True)
    data = experiments.load(name)
    np.testing.assert_array_equal(rows["target"], data.targets)
    held_out = rows["held_out"] == 1
    score = printed["test"][1]
    target, prediction = rows["target"][held_out], rows["prediction"][held_out]
    if data.classes is None:
        recomputed = 1 - np.sum((target - prediction) ** 2) / np.sum((target - target.mean()) ** 2)
    else:
        recomputed = np.mean(target == prediction)
    assert abs(score - recomputed) < 2e-6


def test_a_terminal_sees_a_bar(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for quiet in ([], ["--quiet"]):
        status, _, progress = run(capsys, "train", "iris", "--output", tmp_path / "model.npz", *QUICK["mfld"], *quiet)
        assert status == 0
        assert bool(progress) == (not quiet)


def test_the_same_seed_trains_the_same_model_and_another_seed_another(tmp_path):
    data = experiments.load("iris")
    recipe = Recipe(n_steps=20, n_particles=50, l2=1e-2)
    first, again, other = (experiments.train(data, seed, recipe).trained for seed in (3, 3, 4))
    assert first.particles.tobytes() == again.particles.tobytes()
    assert first.particles.tobytes() != other.particles.tobytes()
    assert list(first.test_rows) != list(other.test_rows)


def test_the_file_holds_no_pickle_and_every_choice(tmp_path):
    data = experiments.load("wine")
    trained = experiments.train(data, 1, Recipe(n_steps=20, n_particles=30, l2=1e-2)).trained
    path = tmp_path / "wine.npz"
    trained.save(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["wine.npz"]
    with zipfile.ZipFile(path) as archive:
        for entry in archive.namelist():
            # An object array, which is what pickle would be needed for, has the type |O in its header.
            assert b"|O" not in archive.read(entry)[:128]
    with np.load(path, allow_pickle=False) as stored:
        metadata = json.loads(str(stored["metadata"]))
    assert metadata["provenance"]["version"] == mfld.__version__
    assert metadata["provenance"]["data"] == "wine"
    assert {"seed", "l2", "temperature", "step_size", "gradient", "loss"} <= set(metadata["hyperparameters"])
    loaded = TrainedModel.load(path)
    assert loaded.model == trained.model
    assert loaded.loss == trained.loss
    assert loaded.encoding == trained.encoding
    assert loaded.hyperparameters == json.loads(json.dumps(trained.hyperparameters))
    assert loaded.provenance == json.loads(json.dumps(trained.provenance))
    np.testing.assert_array_equal(loaded.predict(data.inputs), trained.predict(data.inputs))


def test_the_file_of_the_dual_method_holds_weights_and_the_certificate(tmp_path, capsys):
    model = tmp_path / "model.npz"
    status, out, _ = run(capsys, "train", "breast_cancer", "--output", model, *QUICK["psdca"], "--json")
    assert status == 0
    report = json.loads(out)
    assert report["hyperparameters"]["method"] == "psdca"
    assert report["hyperparameters"]["temperature"] == pytest.approx(2 * 0.06 * 0.5**2)
    assert report["scores"]["test"]["accuracy"] > 0.94
    found = report["certificate"]
    assert found["reason"] is None
    # The reference Gaussian predicts 0: its objective, which the optimum is below, is log 2 and what its entropy and
    # ridge sum to. The certified measure has to be better, by the bound alone.
    temperature, l2 = report["hyperparameters"]["temperature"], 0.06
    gaussian = np.log(2) - temperature * 32 / 2 * np.log(np.pi * temperature / l2)
    lower, upper = found["optimum"]
    assert found["gap"] <= found["upper"] <= upper - lower
    assert lower < upper < gaussian
    trained = TrainedModel.load(model)
    assert trained.provenance["certificate"] == found
    assert trained.weights.shape == (300,)
    assert np.ptp(trained.weights) > 1e-3 / 300  # those of equal particles differ by rounding, some 1e-7 of 1 / 300
    # The predictions are those of the weighted neurons.
    data = experiments.load("breast_cancer")
    neurons = trained.model.neurons(trained.particles, trained.standardised(data.inputs)).astype(np.float64)
    np.testing.assert_allclose(trained.outputs(data.inputs), neurons @ trained.weights, rtol=1e-4, atol=1e-4)
    status, text, _ = run(capsys, "info", model)
    assert status == 0
    assert "\nmethod: psdca\n" in text
    assert f"\ncertificate: certified gap {found['gap']:.3g}: " in text


def test_models_of_the_last_format_are_read(tmp_path):
    data, path = experiments.load("iris"), tmp_path / "model.npz"
    trained = experiments.train(data, 0, Recipe(n_steps=2, n_particles=5, l2=1e-2)).trained
    trained.save(path)
    with np.load(path) as stored:
        arrays = dict(stored)
    assert "weights" not in arrays
    arrays["metadata"] = np.array(json.dumps({**json.loads(str(arrays["metadata"])), "format": 2}))
    np.savez(path, **arrays)
    np.testing.assert_array_equal(TrainedModel.load(path).predict(data.inputs), trained.predict(data.inputs))


DAMAGED = {  # other metadata, other arrays
    "another loss": ({"loss": "zero_one"}, {}),
    "another activation": ({"model": {"n_features": 4, "n_outputs": 3, "activation": "swish9"}}, {}),
    "no model": ({"model": [1, 2]}, {}),
    "no features": ({"encoding": {"features": 3, "target": "", "columns": [], "header": True}}, {}),
    "fewer outputs": ({"loss": "logistic"}, {"classes": np.array([0, 1])}),
    "a parameter that the loss has not": ({"loss_parameter": 2.0}, {}),
    "narrow particles": ({}, {"particles": np.zeros((5, 3), np.float32)}),
    "nan": ({}, {"particles": np.full((5, 8), np.nan, np.float32)}),
    "short mean": ({}, {"input_mean": np.zeros(3)}),
    "zero scale": ({}, {"input_scale": np.zeros(4)}),
    "text for a number": ({}, {"target_mean": np.array("much")}),
    "weights of others": ({}, {"weights": np.ones(4)}),
    "rows that are none": ({}, {"test_rows": np.array([0.5])}),
}


@pytest.mark.parametrize(("metadata", "arrays"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_model_file_is_named(metadata, arrays, tmp_path, capsys):
    path = tmp_path / "model.npz"
    experiments.train(experiments.load("iris"), 0, Recipe(n_steps=2, n_particles=5, l2=1e-2)).trained.save(path)
    with np.load(path) as stored:
        kept = dict(stored)
    kept["metadata"] = np.array(json.dumps({**json.loads(str(kept["metadata"])), **metadata}))
    np.savez(path, **{**kept, **arrays})
    with pytest.raises(ValueError, match=re.escape(f"{path} is a damaged model file: ")):
        TrainedModel.load(path)
    status, _, error = run(capsys, "info", path)
    assert status == 2
    assert error.startswith(f"mfld: {path} ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("where", [0.2, 0.5, 0.9, 0.97, 0.999])
def test_a_model_file_with_wrong_bytes_is_named(where, tmp_path):
    path = tmp_path / "model.npz"
    experiments.train(experiments.load("iris"), 0, Recipe(n_steps=2, n_particles=5, l2=1e-2)).trained.save(path)
    content = bytearray(path.read_bytes())
    place = int(where * len(content))
    content[place : place + 16] = b"\xff" * 16
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        TrainedModel.load(path)
    with pytest.raises(FileNotFoundError):
        TrainedModel.load(tmp_path / "none.npz")


@pytest.mark.parametrize("damage", ["text", "truncated", "newer", "no metadata", "missing array"])
def test_a_file_that_is_no_model_is_refused_in_one_line(damage, tmp_path, capsys):
    path = tmp_path / "model.npz"
    if damage == "text":
        path.write_text("hello")
    else:
        data = experiments.load("iris")
        experiments.train(data, 0, Recipe(n_steps=2, n_particles=5, l2=1e-2)).trained.save(path)
        with np.load(path) as stored:
            arrays = dict(stored)
        if damage == "truncated":
            path.write_bytes(path.read_bytes()[:700])
        elif damage == "newer":
            metadata = json.loads(str(arrays["metadata"]))
            arrays["metadata"] = np.array(json.dumps({**metadata, "format": 999}))
            np.savez(path, **arrays)
        else:
            del arrays["metadata" if damage == "no metadata" else "particles"]
            np.savez(path, **arrays)
    status, _, error = run(capsys, "predict", path, "iris")
    assert status == 2
    assert error.startswith("mfld: ")
    assert str(path) in error
    assert error.count("\n") == 1
    if damage == "newer":
        assert "has model format 999" in error
        assert error.endswith("reads 2, 3, 4, 5\n")


def test_errors_are_one_line_and_nothing_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, error = run(capsys, "train", "mnist")
    assert (status, error.count("\n")) == (2, 1)
    assert "digits" in error
    status, _, error = run(capsys, "train", "iris", "--output", tmp_path / "missing" / "model.npz")
    assert (status, error.count("\n")) == (2, 1)
    assert "missing" in error
    status, _, error = run(capsys, "predict", tmp_path / "model.npz", "iris")
    assert (status, error.count("\n")) == (2, 1)
    assert not list(tmp_path.iterdir())


ACTIVATIONS = ", ".join(mfld.activations())
LOSSES = ", ".join(mfld.losses())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--method sgd", "must be one of mfld, pda, psdca; got 'sgd'"),
        ("--inner-steps 0", "must be at least 1, got 0"),
        ("--seed -1", "must be between 0 and 18446744073709551615, got -1"),
        ("--seed x", "must be an integer, got 'x'"),
        ("--num-threads 0", "must be at least 1, got 0"),
        ("--activation swish", f"must be one of {ACTIVATIONS}; got 'swish'"),
        ("--readout none", f"must be one of {', '.join([*mfld.readouts(), 'bilevel'])}; got 'none'"),
        ("--readout-bound 0", "must be finite and positive, got 0.0"),
        ("--output-scale inf", "must be finite, got inf"),
        ("--loss mse", f"must be one of {LOSSES}; got 'mse'"),
        ("--loss huber:x", "must be huber:DELTA with a number, got 'huber:x'"),
        ("--loss huber:-1", "delta must be finite and positive, got -1.0"),
        ("--loss hinge:1", "hinge has no parameter, got 'hinge:1'"),
        ("--l2 -1", "must be finite and at least 0, got -1.0"),
        ("--l2 0.1,x", "must be numbers with commas between them, got '0.1,x'"),
        ("--temperature=-1e-3", "must be finite and at least 0, got -0.001"),
        ("--reference-scale 0", "must be finite and positive, got 0.0"),
        ("--n-particles 0", "must be at least 1, got 0"),
        ("--n-particles 1.5", "must be an integer, got '1.5'"),
        ("--n-steps 0", "must be at least 1, got 0"),
        ("--step-size 0", "must be finite and positive, got 0.0"),
        ("--step-size nan", "must be finite and positive, got nan"),
        ("--step-share 1", "must be between 0 and 1, got 1"),
        ("--gradient saga", "must be one of full, minibatch, svrg, sarah; got 'saga'"),
        ("--batch-size 0", "must be at least 1, got 0"),
        ("--refresh-every 0", "must be at least 1, got 0"),
        ("--schedule cosine", "must be made of geometric, power, log, off; got 'cosine'"),
        (
            "--temperature-schedule geometric:0.5",
            "must be geometric:FACTOR:STAGE_LENGTH with numbers, got 'geometric:0.5'",
        ),
        ("--temperature-schedule geometric:0:5", "factor must be finite and positive, got 0.0 (in 'geometric:0:5')"),
        ("--l2-schedule off:x", "must be off:STEP with numbers, got 'off:x'"),
        ("--dtype float16", "must be float32, float64 or 'bfloat16', got float16"),
        ("--test-share 1", "must be between 0 and 1, got 1"),
        ("--test-share 0", "must be finite and positive, got 0.0"),
        ("--validation-particles 0", "must be at least 1, got 0"),
        ("--validation-samples 0", "must be at least 1, got 0"),
        ("--validation-rows 4", "must be at least 5, got 4"),
        ("--task guess", "invalid choice: 'guess' (choose from 'classification', 'regression')"),
        ("--header maybe", "invalid choice: 'maybe' (choose from 'yes', 'no')"),
    ],
)
def test_a_bad_value_names_the_option_what_was_expected_and_what_came(options, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", "iris", *options.split()])
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert error.startswith("mfld train: argument --")
    assert re.split("[ =]", options)[0] in error
    assert f": {message}" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--batch-size 121", "--batch-size must be at most the number of rows to train on, 120, got 121"),
        ("--loss logistic", "--loss must suit 3 classes, got logistic, which is for two classes"),
        ("--loss squared", "--loss must suit 3 classes, got squared, which is for a regression"),
        ("--schedule off:10", "--step-size-schedule must be finite and positive at every step, got 0.0 at step 10"),
        ("--readout fixed", "n_outputs must be 1 with --readout fixed: all would be equal; got 3"),
        ("--step-size 1e30 --activation identity --readout linear", "step "),
        ("--inner-steps 5", "--inner-steps must be left out with --method mfld, got 5"),
        ("--method pda --l2-schedule log", "--l2-schedule must be left out with --method pda, got "),
        ("--method pda --gradient svrg", "--gradient must be 'full' or 'minibatch' with --method pda, got 'svrg'"),
        ("--method psdca --step-size 0.1", "--step-size must be left out with --method psdca, got 0.1"),
        (
            "--method psdca --activation silu",
            "PSDCA needs a bounded neuron, got --readout bounded with --activation silu: take --readout bounded, ",
        ),
        ("--method psdca --temperature 0", "--temperature must be finite and positive, got 0.0"),
        ("--method pda --l2 0", "--l2 must be positive with --method pda: else there is no"),
        ("--target 1", "target, task, header, drop and the like are for files; iris is a bundled data set"),
    ],
)
def test_what_does_not_suit_the_data_is_refused_in_one_line(options, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, error = run(capsys, "train", "iris", "--quiet", "--l2", "0.01", *options.split())
    assert status == 2
    assert error.startswith(f"mfld: {message}")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_every_choice_of_a_recipe_has_an_option_in_a_group(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", "--help"])
    text = capsys.readouterr().out
    assert stopped.value.code == 0
    for field in dataclasses.fields(Recipe):
        assert f"\n  --{field.name.replace('_', '-')}" in text
    for group in ("data", "model", "objective", "algorithm", "search for l2", "output"):
        assert f"\n{group}:\n" in text


def test_options_reach_the_run(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {
        "activation": "relu",
        "readout": "parity",
        "readout_bound": 2.0,
        "output_scale": 3.0,
        "loss": "smoothed_hinge:0.5",
        "l2": 0.02,
        "temperature": 0.003,
        "reference_scale": 0.2,
        "n_particles": 40,
        "n_steps": 30,
        "step_size": 0.04,
        "step_share": 0.3,
        "gradient": "svrg",
        "batch_size": 11,
        "refresh_every": 5,
        "dtype": "float64",
        "test_share": 0.25,
        "validation_particles": 13,
        "validation_samples": 50,
        "validation_rows": 100,
        "seed": 5,
    }
    options = [text for name, value in given.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    status, out, error = run(capsys, "train", "breast_cancer", *options, "--no-bias", "--num-threads", 1, "--quiet")
    assert (status, error) == (0, "")
    assert "validation" not in out  # there is one l2
    assert "SVRG(batch_size=11, refresh_every=5)" in out
    trained = TrainedModel.load("breast_cancer.npz")
    assert trained.model == mfld.TwoLayerNetwork(30, 1, "relu", "parity", False, 3.0, 2.0)
    assert trained.loss == mfld.Loss("smoothed_hinge", gamma=0.5)
    assert trained.particles.shape == (40, 31)
    assert trained.particles.dtype == np.float64
    assert len(trained.test_rows) == round(0.25 * 569)
    replaced = {"gradient": "SVRG(batch_size=11, refresh_every=5)", "loss": "Loss('smoothed_hinge', gamma=0.5)"}
    for name, value in {**given, **replaced, "bias": False}.items():
        assert trained.hyperparameters[name] == value

    # The same run by hand.
    data = experiments.load("breast_cancer")
    rows = np.setdiff1d(np.arange(569), trained.test_rows)
    inputs = (data.inputs[rows] - data.inputs[rows].mean(axis=0)) / data.inputs[rows].std(axis=0)
    risk = mfld.EmpiricalRisk(trained.model, inputs, 2.0 * data.targets[rows] - 1, loss=trained.loss, l2=0.02)
    solver = mfld.MFLD(40, step_size=0.04, temperature=0.003, gradient=mfld.SVRG(11, 5), dtype="float64")
    np.testing.assert_allclose(solver.run(risk, 30, seed=5).particles, trained.particles, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gradient", ["full", "minibatch", "svrg", "sarah"])
def test_every_estimator_trains(gradient):
    data = experiments.load("wine")
    recipe = Recipe(gradient=gradient, n_steps=300, n_particles=100, l2=0.01, batch_size=32)
    assert experiments.train(data, 0, recipe).trained.split_scores(data)["test"].score > 0.9


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("geometric:0.5:3", lambda k: 0.5 ** (k // 3)),
        ("power:0.5", lambda k: (1 + k) ** -0.5),
        ("log", lambda k: np.log(2) / np.log(2 + k)),
        ("off:4", lambda k: 1.0 * (k < 4)),
        ("geometric:0.5:3*off:4 * power:1", lambda k: 0.5 ** (k // 3) * (k < 4) / (1 + k)),
    ],
)
def test_schedules_are_written_as_factors(text, expected):
    steps = np.arange(10)
    options = cli._parser().parse_args(["train", "iris", "--temperature-schedule", text])
    np.testing.assert_allclose(options.temperature_schedule(steps), expected(steps), rtol=1e-14)


def test_schedules_reach_the_run():
    data = experiments.load("iris")
    halved = mfld.schedules.Geometric(1.0, 0.5, 5)
    fixed = {"n_steps": 12, "n_particles": 20, "l2": 0.01, "step_size": 0.1, "temperature": 0.002}
    info = experiments.train(data, 0, Recipe(**fixed, temperature_schedule=halved)).result.info
    assert (info.temperature, info.l2, info.step_size) == (0.0005, 0.0025, 0.1)  # the reference measure stays
    scheduled = Recipe(**fixed, step_size_schedule=halved, temperature_schedule=halved, l2_schedule=halved * halved)
    info = experiments.train(data, 0, scheduled).result.info
    assert (info.temperature, info.l2, info.step_size) == (0.0005, 0.01 / 16, 0.025)
    dual = {"method": "psdca", "n_particles": 50, "l2": 0.2, "temperature": 0.1}
    seen = []
    for n_steps, schedule in ((3, None), (5, None), (10, None), (3, halved * 4.0)):
        recipe = Recipe(**dual, n_steps=n_steps, temperature_schedule=schedule)
        info = experiments.train(data, 0, recipe).result.info
        given = experiments.recipe._completed(recipe, data, 120).temperature_schedule
        seen.append([0.1 if given is None else round(0.1 * float(given(np.array([k]))[0]), 4) for k in range(n_steps)])
        assert info.temperature == pytest.approx(seen[-1][-1])
        assert info.l2 == 0.2
    assert seen[0] == [0.1] * 3
    assert seen[1] == [2.0, 0.4472, 0.1, 0.1, 0.1]
    assert (seen[2][0], seen[2][6:]) == (2.0, [0.1534, 0.1, 0.1, 0.1])
    assert seen[3] == [0.4] * 3


def test_what_is_given_is_not_searched():
    data = experiments.load("iris")
    quick = {"n_steps": 10, "n_particles": 10}
    assert set(experiments.train(data, 0, Recipe(**quick, l2=(0.1, 0.2))).validation) == {0.1, 0.2}
    given = experiments.train(data, 0, Recipe(**quick, l2=0.3, step_size=0.07))
    assert given.validation == {}
    assert given.trained.hyperparameters["l2"] == 0.3
    assert given.trained.hyperparameters["step_size"] == 0.07
    assert given.trained.hyperparameters["temperature"] == pytest.approx(2 * 0.3 * 0.1**2)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"n_particles": 0}, ValueError, "n_particles must be at least 1, got 0"),
        ({"l2": ()}, ValueError, "l2 must have at least one value"),
        ({"bias": 1}, TypeError, "bias must be True or False, got 1"),
        ({"loss": 3}, TypeError, "loss must be a name or a Loss, got 3"),
        ({"l2_schedule": 0.5}, TypeError, "l2_schedule must be a Schedule, got 0.5"),
        ({"gradient": "saga"}, ValueError, "gradient must be one of full, minibatch, svrg, sarah; got 'saga'"),
    ],
)
def test_a_recipe_checks_its_choices(given, error, message):
    with pytest.raises(error, match=re.escape(message)):
        Recipe(**given)


def test_json_is_one_object_with_all_that_is_printed_otherwise(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick = ("--n-steps", 20, "--n-particles", 20, "--quiet")
    status, out, error = run(capsys, "train", "wine", *quick, "--json")
    report = json.loads(out)
    assert (status, error) == (0, "")
    assert {name: report[name] for name in ("data", "rows", "features", "classes", "model", "picture")} == {
        "data": "wine",
        "rows": 178,
        "features": 13,
        "classes": [0, 1, 2],
        "model": "wine.npz",
        "picture": "wine.png",
    }
    assert [each["l2"] for each in report["validation"]] == [1e-4, 1e-3, 1e-2, 3e-2, 1e-1]
    assert report["hyperparameters"]["n_particles"] == 20
    status, text, _ = run(capsys, "train", "wine", *quick)
    for part, (loss, score) in figures(text).items():
        assert report["scores"][part] == pytest.approx({"loss": loss, "accuracy": score}, abs=1e-6)
    _, out, _ = run(capsys, "predict", "wine.npz", "wine", "--json")
    assert json.loads(out)["scores"] == report["scores"]


@pytest.mark.parametrize("loss", ["squared", "half_squared", "absolute", "huber"])
def test_every_loss_of_a_regression_trains(loss):
    data = experiments.load("diabetes")
    trained = experiments.train(data, 0, Recipe(loss=loss, n_steps=500, n_particles=100, l2=0.03)).trained
    assert trained.split_scores(data)["test"].score > 0.35


@pytest.mark.parametrize("loss", ["logistic", "hinge", "smoothed_hinge", "cross_entropy"])
def test_every_loss_of_two_classes_trains(loss):
    data = experiments.load("breast_cancer")
    trained = experiments.train(data, 0, Recipe(loss=loss, n_steps=500, n_particles=100, l2=0.01)).trained
    assert trained.split_scores(data)["test"].score > 0.93


def test_many_rows_take_as_many_steps_as_ten_passes():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(100_000, 1))
    data = experiments.Dataset("", inputs, inputs[:, 0], None, experiments.Encoding((), "", ()))
    chosen = experiments.train(data, 0, Recipe(n_particles=4, l2=0.1)).trained.hyperparameters
    assert chosen["n_steps"] == 10 * 80_000 / 128
    assert chosen["gradient"] == "Minibatch(batch_size=128)"
    chosen = experiments.train(data, 0, Recipe(n_particles=4, l2=0.1, batch_size=50)).trained.hyperparameters
    assert chosen["n_steps"] == 10 * 80_000 / 50
    chosen = experiments.train(data, 0, Recipe(n_particles=4, l2=0.1, n_steps=10)).trained.hyperparameters
    assert chosen["n_steps"] == 10


def test_2000_steps_on_a_sample_of_many_rows_decide_about_l2(rng, monkeypatch):
    seen = []
    monkeypatch.setattr(
        recipe_module, "_validated", lambda *args: seen.append(args[2].n_steps) or ({0.1: 1.0}, {0.1: 0.0})
    )
    inputs = rng.normal(size=(400, 1))
    data = experiments.Dataset("", inputs, inputs[:, 0], None, experiments.Encoding((), "", ()))
    for rows, n_steps, decide in ((400, 7000, 7000), (200, 7000, 2000), (200, 30, 30)):
        experiments.train(data, 0, Recipe(n_particles=4, n_steps=n_steps, l2=(0.1, 0.2), validation_rows=rows))
        assert seen.pop() == decide


def test_validation_sees_a_sample_of_the_rows_that_are_not_held_out():
    data = experiments.load("diabetes")
    recipe = Recipe(n_particles=10, n_steps=20, l2=(0.01, 0.1), validation_rows=50)
    first = experiments.train(data, 0, recipe)
    seen = np.random.default_rng(0).permutation(442)[88:138]  # behind the 88 that are held out
    for rows, same in ((np.setdiff1d(np.arange(442), seen), True), (seen, False)):
        targets = data.targets.copy()
        targets[rows] += 100 * np.random.default_rng(1).normal(size=len(rows))
        again = experiments.train(dataclasses.replace(data, targets=targets), 0, recipe)
        assert (again.validation == first.validation) == same


def test_a_model_is_not_scored_on_another_data_set(tmp_path, capsys):
    path = tmp_path / "iris.npz"
    experiments.train(experiments.load("iris"), 0, Recipe(n_steps=2, n_particles=5, l2=1e-2)).trained.save(path)
    status, _, error = run(capsys, "predict", path, "wine")
    assert status == 2
    assert "'iris'" in error
    assert "'wine'" in error


def test_config_names_the_level(capsys):
    status, text, _ = run(capsys, "config")
    assert status == 0
    assert mfld.show_config(mode="dicts")["level"] in text
    assert "methods of train: mfld, pda, psdca" in text


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("digits", 0.97), ("breast_cancer", 0.96)])
def test_accuracy_on_held_out_rows_over_five_seeds(name, least):
    data = experiments.load(name)
    scores = [experiments.train(data, seed).trained.split_scores(data)["test"].score for seed in range(5)]
    assert np.mean(scores) >= least


@pytest.mark.parametrize(
    ("name", "method", "least"),
    [
        ("breast_cancer", "pda", 0.96),
        pytest.param("breast_cancer", "psdca", 0.96, marks=pytest.mark.slow),
        ("diabetes", "pda", 0.46),
        ("diabetes", "psdca", 0.44),
    ],
)
def test_the_other_methods_are_as_good(name, method, least):
    data = experiments.load(name)
    recipe = Recipe(method=method, l2=0.15 if name == "diabetes" else 0.05, n_particles=200)
    scores = [experiments.train(data, seed, recipe).trained.split_scores(data)["test"].score for seed in range(2)]
    assert np.mean(scores) >= least


def test_diabetes_is_as_good_as_ridge_regression_on_the_same_splits():
    data = experiments.load("diabetes")
    ours, ridge = [], []
    for seed in range(5):
        trained = experiments.train(data, seed).trained
        ours.append(trained.split_scores(data)["test"].score)
        held_out = np.isin(np.arange(len(data.inputs)), trained.test_rows)
        scaled = (data.inputs - trained.scaling.centre) / trained.scaling.scale
        fitted = RidgeCV(alphas=np.logspace(-3, 4, 50)).fit(scaled[~held_out], data.targets[~held_out])
        ridge.append(fitted.score(scaled[held_out], data.targets[held_out]))
    assert np.mean(ours) >= np.mean(ridge) - 0.01


def test_a_risk_without_curvature_wants_a_step_size():
    # At inputs that are all 0 the neuron sin(w * 0) is 0 for every w.
    still = experiments.Dataset("", np.zeros((20, 1)), np.arange(20.0), None, experiments.Encoding((), "", ()))
    recipe = Recipe(readout="fixed", activation="sin", bias=False, l2=0, n_steps=2, n_particles=4)
    with pytest.raises(ValueError, match="step_size must be given where the risk has no curvature at the start"):
        experiments.train(still, 0, recipe)
    experiments.train(still, 0, dataclasses.replace(recipe, step_size=0.1))


def test_the_curvature_is_where_euler_becomes_unstable():
    # F = sum_j a_j theta_j^2 / 2 has curvature max a; the power iteration comes from below.
    scales = np.array([0.5, 3.0, 1.0])
    potential = mfld.Potential(lambda x: scales * x, n_coordinates=3)
    particles = potential.initial_particles(20, 0, "float64")
    found = mfld.step_size.curvature(potential, particles, n_iterations=30)
    assert 3.0 * (1 - 1e-6) <= found <= 3.0 * (1 + 1e-9)


@pytest.mark.parametrize(("method", "steps"), [("mfld", (120, 300)), ("pda", (7, 20)), ("psdca", (1, 3))])
def test_a_run_goes_on_from_its_checkpoint(method, steps, tmp_path, capsys):
    options = ["--method", method, "--l2", "0.5", "--n-particles", "50", "--quiet"]
    first, last = steps
    kept, whole, resumed = (tmp_path / name for name in ("kept.npz", "whole.npz", "resumed.npz"))
    assert run(capsys, "train", "iris", *options, "--n-steps", last, "--output", whole)[0] == 0
    short = ["train", "iris", *options, "--n-steps", first, "--output", resumed, "--checkpoint", kept]
    assert run(capsys, *short)[0] == 0
    status, _, error = run(capsys, *short)
    assert (status, error) == (
        2,
        f"mfld: {kept} exists: --resume goes on from it, without it nothing is overwritten\n",
    )
    long = ["train", "iris", *options, "--n-steps", last, "--output", resumed, "--checkpoint", kept, "--resume"]
    assert run(capsys, *long)[0] == 0
    one, other = (experiments.TrainedModel.load(path) for path in (whole, resumed))
    assert one.particles.tobytes() == other.particles.tobytes()
    assert np.asarray(one.weights).tobytes() == np.asarray(other.weights).tobytes()

    status, _, error = run(capsys, *long, "--seed", "1")
    assert status == 2
    assert f"{kept} is a checkpoint of another run" in error
    assert error.endswith("; take another file for --checkpoint\n")
    assert run(capsys, "train", "iris", "--resume")[2] == "mfld: --resume needs the --checkpoint to go on from\n"
    status, _, error = run(capsys, "train", "iris", "--output", whole, "--checkpoint", whole)
    assert (status, error) == (2, f"mfld: --checkpoint must be a file of its own, got {whole}\n")


def test_a_run_may_end_with_its_bias_report(tmp_path, capsys):
    quick = ["--n-steps", 20, "--n-particles", 20, "--l2", "0.1", "--quiet", "--output", tmp_path / "model.npz"]
    status, out, _ = run(capsys, "train", "iris", *quick, "--report")
    assert status == 0
    value = float(re.search(r"^value +(\S+) \+- ", out, re.MULTILINE)[1])
    assert abs(value - figures(out)["test"][0]) < 0.3
    assert re.search(r"^step-size bias .* asymptotic regime", out, re.MULTILINE)
    assert re.search(r"cost 5\.\d+ times the 4 runs", out)
    status, out, _ = run(capsys, "train", "iris", *quick, "--report", 5, "--json")
    report = json.loads(out)["report"]
    assert report["value"]["half_width"] > 0
    assert report["cost"] <= 6
    with pytest.raises(SystemExit):
        run(capsys, "train", "iris", *quick, "--report", 3)
    assert "--report: must be at least 4, got 3" in capsys.readouterr().err
