"""Training runs that end with a certificate."""

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import mfld
from mfld import experiments
from mfld.cli import main
from mfld.experiments import Recipe, TrainedModel


def test_a_file_does_not_depend_on_how_busy_the_machine_is(tmp_path):
    recipe = Recipe(method="psdca", n_particles=64, n_steps=2, l2=0.2)
    data = experiments.load("iris")

    def file(name):
        training = experiments.train(data, recipe=recipe, num_threads=1)
        assert training.certificate is not None
        training.trained.save(tmp_path / name)
        return (tmp_path / name).read_bytes()

    idle = file("idle.npz")
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        busy = file("busy.npz")
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    assert idle == busy


LOSSES = {0.01: 0.32, 0.05: 0.30, 0.1: 0.33, 0.4: 0.36}
ERRORS = {0.01: 0.01, 0.05: 0.04, 0.1: 0.09, 0.4: 0.09}


def test_a_run_to_be_certified_takes_the_warmest_l2_that_fits_as_well(monkeypatch):
    monkeypatch.setattr(experiments.recipe, "_validated", lambda *arguments: (LOSSES, ERRORS))
    recipe = Recipe(n_particles=64, n_steps=20, l2=tuple(LOSSES), certify=True)
    training = experiments.train(experiments.load("iris"), recipe=recipe, num_threads=1)
    found, chosen = training.certificate, training.trained.hyperparameters
    assert found is not None
    assert found.reason is None
    assert training.declined == {}
    assert (chosen["l2"], chosen["temperature"]) == (0.1, 2 * 0.1 * 0.5**2)
    written = training.trained.provenance["certificate"]
    assert (written["moves"], written["upper"], written["declined"]) == (found.n_moves, found.upper, [])
    plain = experiments.train(experiments.load("iris"), recipe=replace(recipe, certify=False), num_threads=1)
    assert plain.trained.hyperparameters["l2"] == 0.05
    assert plain.certificate is None


@pytest.mark.parametrize("mixes_at", [0.4, math.inf])
def test_a_run_without_a_certificate_makes_way_for_a_warmer_one(monkeypatch, capsys, tmp_path, mixes_at):
    asked = []

    def certificate(result, **options):
        asked.append(result.objective.l2)
        if result.objective.l2 < mixes_at:
            return mfld.Certificate(math.nan, math.nan, math.nan, 0.999, f"not with {result.objective.l2}", np.zeros(1))
        return mfld.Certificate(0.1, 0.01, 0.2, 0.999, None, np.zeros(1), optimum=(1.0, 1.3))

    monkeypatch.setattr(experiments.recipe, "_validated", lambda *arguments: (LOSSES, dict.fromkeys(LOSSES, 0.0)))
    monkeypatch.setattr(mfld.Result, "certificate", certificate)
    command = [
        "train",
        "iris",
        "--certify",
        "--l2",
        ",".join(map(str, LOSSES)),
        "--n-particles",
        "16",
        "--n-steps",
        "3",
    ]
    assert main([*command, "--output", str(tmp_path / "model.npz"), "--quiet"]) == 0
    assert asked == [0.05, 0.1, 0.4]
    trained, text = TrainedModel.load(tmp_path / "model.npz"), capsys.readouterr().out
    chosen = 0.4 if mixes_at == 0.4 else 0.05
    assert trained.hyperparameters["l2"] == chosen
    for l2 in (0.05, 0.1, 0.4):
        assert (f"no certificate with l2 {l2:g}: not with {l2}" in text) == (l2 < mixes_at and l2 != chosen)
    assert ("certified gap 0.1" in text) == (mixes_at == 0.4)
    assert ("no certificate: not with 0.05" in text) == (mixes_at == math.inf)
    # The scores of the file are those of the model in it.
    data = experiments.load("iris")
    assert trained.split_scores(data)["test"].loss == pytest.approx(trained.provenance["scores"]["test"]["loss"])
