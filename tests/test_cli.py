"""The main job from the command line: figures, files, errors; and how good the recipe is on real data."""

import json
import re
import zipfile

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV

import mfld
from mfld import cli, experiments
from mfld.experiments import Recipe, TrainedModel


def run(capsys, *arguments):
    """Status, standard output, standard error."""
    status = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def figures(text):
    """The two lines of figures, as numbers."""
    lines = re.findall(r"^(train|test) +loss (\S+)  (?:accuracy|R2) (\S+)$", text, re.MULTILINE)
    return {name: (float(loss), float(score)) for name, loss, score in lines}


@pytest.mark.parametrize("name", ["iris", "breast_cancer", "diabetes"])
def test_predict_prints_what_train_printed(name, tmp_path, capsys):
    model = tmp_path / "model.npz"
    status, trained, progress = run(capsys, "train", name, "--output", model)
    assert status == 0
    assert progress  # the bar
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


def test_the_same_seed_trains_the_same_model_and_another_seed_another(tmp_path):
    data = experiments.load("iris")
    recipe = Recipe(n_steps=20, n_particles=50, l2_grid=(1e-2,))
    first, again, other = (experiments.train(data, seed, recipe).trained for seed in (3, 3, 4))
    assert first.particles.tobytes() == again.particles.tobytes()
    assert first.particles.tobytes() != other.particles.tobytes()
    assert list(first.test_rows) != list(other.test_rows)


def test_the_file_holds_no_pickle_and_every_choice(tmp_path):
    data = experiments.load("wine")
    trained = experiments.train(data, 1, Recipe(n_steps=20, n_particles=30, l2_grid=(1e-2,))).trained
    path = tmp_path / "wine.npz"
    trained.save(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["wine.npz"]
    with zipfile.ZipFile(path) as archive:
        for entry in archive.namelist():
            # An object array, which is what pickle would be needed for, has the type |O in its header.
            assert b"|O" not in archive.read(entry)[:128]
    with np.load(path, allow_pickle=False) as stored:
        metadata = json.loads(str(stored["metadata"]))
    assert metadata["version"] == mfld.__version__
    assert {"seed", "l2", "temperature", "step_size", "gradient", "data"} <= set(metadata["hyperparameters"])
    loaded = TrainedModel.load(path)
    assert loaded.model == trained.model
    assert loaded.loss == trained.loss
    assert loaded.hyperparameters == json.loads(json.dumps(trained.hyperparameters))
    np.testing.assert_array_equal(loaded.predict(data.inputs), trained.predict(data.inputs))


@pytest.mark.parametrize("damage", ["text", "truncated", "newer", "no metadata", "missing array"])
def test_a_file_that_is_no_model_is_refused_in_one_line(damage, tmp_path, capsys):
    path = tmp_path / "model.npz"
    if damage == "text":
        path.write_text("hello")
    else:
        data = experiments.load("iris")
        experiments.train(data, 0, Recipe(n_steps=2, n_particles=5, l2_grid=(1e-2,))).trained.save(path)
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
    for bad in (["--seed", "-1"], ["--seed", "x"], ["--num-threads", "0"]):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["train", "iris", *bad])
        assert stopped.value.code == 2
        assert bad[0] in capsys.readouterr().err


def test_a_model_is_not_scored_on_another_data_set(tmp_path, capsys):
    path = tmp_path / "iris.npz"
    experiments.train(experiments.load("iris"), 0, Recipe(n_steps=2, n_particles=5, l2_grid=(1e-2,))).trained.save(path)
    status, _, error = run(capsys, "predict", path, "wine")
    assert status == 2
    assert "'iris'" in error
    assert "'wine'" in error


def test_config_names_the_level(capsys):
    status, text, _ = run(capsys, "config")
    assert status == 0
    assert mfld.show_config(mode="dicts")["level"] in text


@pytest.mark.parametrize(("name", "least"), [("digits", 0.97), ("breast_cancer", 0.96)])
def test_accuracy_on_held_out_rows_over_five_seeds(name, least):
    data = experiments.load(name)
    scores = [experiments.train(data, seed).trained.split_scores(data)["test"].score for seed in range(5)]
    assert np.mean(scores) >= least


def test_diabetes_is_as_good_as_ridge_regression_on_the_same_splits():
    data = experiments.load("diabetes")
    ours, ridge = [], []
    for seed in range(5):
        trained = experiments.train(data, seed).trained
        ours.append(trained.split_scores(data)["test"].score)
        held_out = np.isin(np.arange(len(data.inputs)), trained.test_rows)
        scaled = (data.inputs - trained.input_mean) / trained.input_scale
        fitted = RidgeCV(alphas=np.logspace(-3, 4, 50)).fit(scaled[~held_out], data.targets[~held_out])
        ridge.append(fitted.score(scaled[held_out], data.targets[held_out]))
    assert np.mean(ours) >= np.mean(ridge) - 0.01


def test_the_curvature_is_where_euler_becomes_unstable():
    # F = sum_j a_j theta_j^2 / 2 has curvature max a; the power iteration comes from below.
    scales = np.array([0.5, 3.0, 1.0])
    potential = mfld.Potential(lambda x: scales * x, n_coordinates=3)
    particles = potential.initial_particles(20, 0)
    found = experiments.recipe.curvature(potential, particles, n_iterations=30)
    assert 3.0 * (1 - 1e-6) <= found <= 3.0 * (1 + 1e-9)
