"""Training runs that end with a certificate."""

import subprocess
import sys
from dataclasses import replace

from mfld import experiments
from mfld.experiments import Recipe


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


def test_a_run_to_be_certified_takes_the_warmest_l2_that_fits_as_well(monkeypatch):
    losses = {0.01: 0.32, 0.05: 0.30, 0.1: 0.33, 0.4: 0.36}
    errors = {0.01: 0.01, 0.05: 0.04, 0.1: 0.09, 0.4: 0.09}
    monkeypatch.setattr(experiments.recipe, "_validated", lambda *arguments: (losses, errors))
    monkeypatch.setattr(experiments.recipe, "_CERTIFIED_MOVES", 256)
    recipe = Recipe(n_particles=32, n_steps=4, l2=tuple(losses), certify=True)
    training = experiments.train(experiments.load("iris"), recipe=recipe)
    assert training.trained.hyperparameters["l2"] == 0.1
    found = training.certificate
    assert found is not None
    assert training.trained.provenance["certificate"]["moves"] == found.n_moves <= 256
    plain = experiments.train(experiments.load("iris"), recipe=replace(recipe, certify=False))
    assert plain.trained.hyperparameters["l2"] == 0.05
    assert plain.certificate is None
