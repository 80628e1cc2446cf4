"""Numbers with an offset that is large beside what varies: times in seconds, prices in cents, coordinates in metres.

Offsets and scales are float64 whatever the particles are: float32 has a grain of 128 at 1.7e9.
"""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mfld
from mfld import cli, experiments, kernels
from mfld.experiments import Recipe, TrainedModel

N = 300


def rows(offset):
    """Features with this offset and deviation 1, and a target at 1.7e9 with deviation 3."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(N, 2))
    return x + offset, 1.7e9 + 3 * x[:, 0]


@pytest.fixture
def table(tmp_path):
    x, y = rows(1e9)
    path = tmp_path / "data.csv"
    path.write_text("a,b,y\n" + "\n".join(f"{a:.17g},{b:.17g},{c:.17g}" for (a, b), c in zip(x, y, strict=True)))
    return path


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_command_line(table, dtype, tmp_path, capsys):
    command = ["train", str(table), "--quiet", "--json", "--n-steps", "400", "--l2", "0.001", "--dtype", dtype]
    output = ["--n-particles", "100", "--output", str(tmp_path / "model.npz"), "--picture", str(tmp_path / "model.png")]
    assert cli.main([*command, *output]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["scores"]["test"]["R2"] > 0.98
    assert cli.main(["predict", str(tmp_path / "model.npz"), str(table), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["scores"] == report["scores"]
    loaded = TrainedModel.load(tmp_path / "model.npz")
    assert loaded.particles.dtype == dtype
    x, y = rows(1e9)
    predicted = loaded.predict(x)
    assert predicted.dtype == np.float64
    assert 1 - np.var(predicted - y) / np.var(y) > 0.98


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_python(table, dtype):
    data = experiments.load(table)
    x, y = rows(1e9)
    assert np.array_equal(data.inputs, x)
    assert np.array_equal(data.targets, y)
    trained = experiments.train(data, 0, Recipe(n_steps=400, l2=1e-3, n_particles=100, dtype=dtype)).trained
    # What the network sees is what it would see without offsets; rounding of x at 1e9 is 1e-7 of its deviation.
    small = rows(0.0)[0]
    below = 3 * small[:, 0]
    here, there = trained.standardised(x), (small - (trained.scaling.centre - 1e9)) / trained.scaling.scale
    assert_allclose(here, there, atol=1e-6)
    assert_allclose(trained.encoded(y), (below - (trained.target_mean - 1.7e9)) / trained.target_scale, atol=1e-6)
    assert trained.split_scores(data)["test"].score > 0.98
    assert np.std(below) > 2  # the rows do vary


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n_targets", [1, 2])
def test_scikit_learn(dtype, n_targets):
    """Single precision can hold features of this deviation at 1e6: its grain is 0.06 there."""
    sklearn = pytest.importorskip("mfld.sklearn")
    x, y = rows(1e6 if dtype == "float32" else 1e9)
    y = y if n_targets == 1 else np.column_stack([y, -y / 7 + 5e8])
    fitted = sklearn.MeanFieldRegressor(random_state=0).fit(x.astype(dtype), y)
    assert fitted.state_.measure.particles.dtype == dtype
    predicted = fitted.predict(x.astype(dtype))
    assert predicted.dtype == np.float64
    assert fitted.score(x.astype(dtype), y) > 0.98
    fitted.partial_fit(x.astype(dtype), y)
    assert fitted.score(x.astype(dtype), y) > 0.98
    small = fitted.prune(50, x.astype(dtype))
    assert small.score(x.astype(dtype), y) > 0.9


def test_classes_by_features_with_an_offset():
    sklearn = pytest.importorskip("mfld.sklearn")
    x, y = rows(1e9)
    fitted = sklearn.MeanFieldClassifier(random_state=0).fit(x, y > 1.7e9)
    assert fitted.score(x, y > 1.7e9) > 0.97


@pytest.mark.parametrize("target", ["samples", "mixture", "stream"])
def test_a_discrepancy_far_from_0_asks_for_double_precision(target):
    """Particles of a discrepancy are where its samples are; at 1e6 float32 has steps of 0.1 for a deviation of 1."""
    fits = {}
    for offset in (0.0, 1e3, 1e6):
        x = rows(offset)[0]
        mixture = mfld.mixtures.GaussianMixture([1.0], x.mean(axis=0)[np.newaxis], np.eye(2)[np.newaxis])
        given = {"samples": x, "mixture": mixture, "stream": lambda step, n, x=x: np.resize(x, (n, 2))}[target]
        fits[offset] = mfld.MMD(given, kernels.Gaussian(1.0), space=mfld.Space(2))
    gradient = mfld.FullBatch() if target != "stream" else mfld.Minibatch(N)
    solver = mfld.MFLD(50, step_size=0.5, temperature=0.0, gradient=gradient)
    wide = mfld.MFLD(50, step_size=0.5, temperature=0.0, gradient=gradient, dtype="float64")
    with pytest.raises(
        ValueError, match=r"particles must be float64, .* is near 1e\+06, where float32 has steps of 0.1"
    ):
        solver.run(fits[1e6], n_steps=1)
    with pytest.raises(ValueError, match="particles must be float64"):
        solver.run(fits[1e6], n_steps=1, particles=np.full((50, 2), 1e6, np.float32))
    start = mfld.noise.normals(0, 0, 50, 2, dtype="float64")
    ends = {x: wide.run(fits[x], n_steps=20, particles=start + x).particles - x for x in (0.0, 1e6)}
    assert_allclose(ends[1e6], ends[0.0], atol=1e-7)  # the rounding of x at 1e6 is 1e-10
    assert np.ptp(ends[0.0] - start) > 0.1
    end = solver.run(fits[1e3], n_steps=20, particles=start + 1e3).particles - 1e3
    wide_rows = mfld.MMD(1e6 * (2 + rows(0.0)[0]), kernels.Energy())  # far from 0, and as wide
    assert np.isfinite(solver.run(wide_rows, n_steps=1, particles=1e6 * start).particles).all()
    assert_allclose(end, ends[0.0], atol=2e-3)  # 20 roundings of 1e3, each of at most 3e-5, and that of the samples
