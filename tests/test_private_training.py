"""Private training through the fronts: what it costs, what it refuses, and that it sees nothing it has not paid for."""

import json
import random

import numpy as np
import pytest
from sklearn.base import clone

import mfld
from mfld import cli, experiments, privacy, private_fitting
from mfld.experiments import Recipe
from mfld.sklearn import MeanFieldClassifier

RNG = np.random.default_rng(0)
X = RNG.uniform(-2, 6, size=(3000, 3))
Y = np.where(X[:, 0] + X[:, 1] > 4, "yes", "no")
BOUNDS = (-2.0, 6.0)


def private(**options):
    usual = {"epsilon": 2.0, "bounds": BOUNDS, "n_particles": 64, "n_steps": 100, "n_jobs": 1}
    return MeanFieldClassifier(**{**usual, **options})


def test_it_learns_for_its_budget():
    found = private(random_state=0).fit(X, Y)
    assert found.score(X, Y) > 0.9
    assert found.cloud_.particles.size <= 64 * (3 + 2 + 1)  # numbers with noise, as they are counted
    assert 1.95 < found.privacy_spent_ <= 2.0
    assert np.isnan(found.loss_curve_).all()
    # By the account of the gradients that were used.
    gradient = found._private.gradient
    of_mean = privacy.noise_multiplier(2.0, 1e-5) / np.sqrt(0.1)
    multipliers = np.full(100, gradient.noise_multiplier)
    spent = privacy.training_epsilon(multipliers, gradient.batch_rate, 1e-5, releases=[of_mean])
    assert found.privacy_spent_ == pytest.approx(spent)
    assert spent > 1.02 * privacy.training_epsilon(multipliers, gradient.batch_rate, 1e-5)
    again = clone(found).fit(X, Y)
    assert not np.array_equal(found.cloud_.particles, again.cloud_.particles)  # the noise is nobody's


def test_what_was_spent_is_forgotten_by_a_fit_that_is_not_private():
    found = private(n_steps=5).fit(X, Y).set_params(epsilon=None, bounds=None)
    for fit in (found.fit, found.partial_fit):
        found._private, found.privacy_spent_ = object(), 2.0
        fit(X, Y)
        assert not hasattr(found, "privacy_spent_")
        assert found._private is None


def test_bounds_are_paid_for_where_they_are_not_given(monkeypatch):
    # The noise is the system's, which no test repeats: with a chance of 1e-3 a column it finds rows where none are.
    monkeypatch.setattr(privacy.domains, "generator", lambda seed: random.Random(0))
    monkeypatch.setattr(private_fitting, "private_mean", lambda values, scaling, multiplier: np.zeros(3))
    found = private(bounds=None).fit(X, Y)
    centre, half = found.scaling_.centre, found.scaling_.scale * np.sqrt(3)
    # Numbers from -2 to 6 are between the powers -2 and 8, and a 32nd of that is a cell: two may drown in the noise at
    # each end, and one be too many.
    cell = 10 / 32
    assert (np.abs(centre - half + 2) <= 2 * cell).all()
    assert (centre + half >= 6 - 2 * cell).all()
    assert (centre + half <= 6 + cell).all()
    assert 1.9 < found.privacy_spent_ <= 2.0
    public = private().fit(X, Y)
    assert found._private.gradient.noise_multiplier > 1.02 * public._private.gradient.noise_multiplier
    size = {"n_particles": 64, "n_classes": 2}
    some = private_fitting.choose(X, 50, epsilon=1.0, delta=1e-5, **size, bounds=[None, (-2, 6), None])
    assert some.scaling.centre[1] == 2.0


def test_the_mean_is_paid_for(monkeypatch):
    """Its noise has the deviation of the longest row, and one row more moves the sum by that length at most."""
    scaling = private_fitting.Scaling(np.full(3, 2.0), np.full(3, 4 / np.sqrt(3)), np.full(3, np.sqrt(3)))
    exact = np.clip((X - 2) / 4 * np.sqrt(3), -np.sqrt(3), np.sqrt(3)).mean(axis=0)
    drawn = np.array([private_fitting.private_mean(X, scaling, 20.0) - exact for _ in range(300)])
    assert abs(drawn.mean()) < 5 * drawn.std() / np.sqrt(drawn.size)
    assert abs(drawn.std() / (20 * 3 / len(X)) - 1) < 5 / np.sqrt(2 * drawn.size)

    monkeypatch.setattr(privacy.GaussianMechanism, "release", lambda self, total, source: total * self.unit)
    far = np.array([[6.0, 6.0, 6.0], [-2.0, 6.0, -2.0], [1e9, -1e9, 1e9]])
    small = X[:50]
    for row in far:
        tables = small, np.vstack([small, row])
        sums = [len(rows) * private_fitting.private_mean(rows, scaling, 20.0) for rows in tables]
        assert 2.999 < np.linalg.norm(sums[1] - sums[0]) <= 3.0 + 1e-8


def test_a_mean_that_noise_would_hide_is_not_asked_for():
    few = private_fitting.choose(X[:60], 50, epsilon=0.5, delta=1e-5, n_particles=64, n_classes=2, bounds=BOUNDS)
    assert np.array_equal(few.scaling.centre, np.full(3, 2.0))
    assert few.spent == pytest.approx(privacy.training_epsilon(np.full(50, few.gradient.noise_multiplier), 1.0, 1e-5))


def test_nothing_but_gradients_looks_at_rows(monkeypatch):
    """With gradients that see no rows, tables that have nothing in common give the same network, bit by bit."""

    def blind(self, objective, particles, buffers, place):
        return np.zeros_like(particles), {}

    monkeypatch.setattr(mfld.Clipped, "estimate", blind)
    monkeypatch.setattr(private_fitting, "private_mean", lambda values, scaling, multiplier: np.full(3, 0.1))
    other = RNG.uniform(-2, 6, size=X.shape) ** 2 / 9
    found = [private(random_state=3).fit(rows, labels) for rows, labels in ((X, Y), (other, Y[::-1]))]
    assert found[0].step_size_ == found[1].step_size_
    assert np.array_equal(found[0].cloud_.particles, found[1].cloud_.particles)
    assert np.array_equal(found[0].predict_proba(X), found[1].predict_proba(X))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"early_stopping": True}, "early_stopping must be left out with epsilon"),
        ({"certify": True}, "certify must be left out"),
        ({"warm_start": True}, "warm_start must be left out"),
        ({"class_weight": "balanced"}, "class_weight must be left out"),
        ({"algorithm": "pda"}, "algorithm must be 'mfld' with epsilon"),
        ({"gradient": "full"}, "gradient must be 'auto' with epsilon"),
        ({"dynamics": "underdamped"}, "dynamics must be 'auto' with epsilon"),
        ({"step_size": "fuse"}, "step_size must be a number with epsilon"),
        ({"epsilon": 0}, "epsilon must be finite and positive"),
        ({"epsilon": float("inf")}, "epsilon must be finite, for there is no privacy"),
        ({"epsilon": 1e-4}, "epsilon must be larger for 100 steps"),
        ({"epsilon": 1e-4, "bounds": None}, "column 0 of X must have bounds given"),
        ({"delta": 1.5}, "delta must be below 1"),
        ({"bounds": (6, -2)}, "bounds must be low and high, increasing"),
        ({"delta": 1e-20}, "epsilon must be smaller or delta larger"),
        ({"epsilon": 40.0}, "epsilon must be smaller or delta larger"),
        ({"bounds": (-1e308, 1e308)}, "bounds must be between 1e-100 and 1e\\+100 apart"),
        ({"bounds": (0, 5e-324)}, "bounds must be between 1e-100 and 1e\\+100 apart"),
        ({"bounds": [(0, 1)]}, r"bounds must have shape \(3, 2\)"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        private(**options).fit(X, Y)


def test_fits_that_go_on_are_refused():
    with pytest.raises(ValueError, match="epsilon must be None for partial_fit"):
        private().partial_fit(X, Y, classes=["no", "yes"])
    with pytest.raises(ValueError, match="sample_weight must be None with epsilon"):
        private().fit(X, Y, sample_weight=np.ones(len(X)))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("private") / "table.csv"
    colour = np.where(RNG.random(len(X)) < 0.3, "red", "blue")
    lines = [f"{a:.3f},{b:.3f},{c},{y}" for (a, b, _), c, y in zip(X, colour, Y, strict=True)]
    path.write_text("a,b,colour,rich\n" + "\n".join(lines) + "\n")
    return path


def test_command(table, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = ["train", str(table), "--quiet", "--epsilon", "2", "--bounds", "a=-2:6", "--bounds", "b=-2:6"]
    assert cli.main([*run, "--json", "--n-particles", "200"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert 1.9 < told["privacy"]["epsilon"] <= 2
    assert list(told["scores"]) == ["test"]
    assert told["scores"]["test"]["accuracy"] > 0.9
    assert "Clipped" in told["hyperparameters"]["gradient"]
    trained = experiments.TrainedModel.load("table-model.npz")
    assert trained.provenance["fingerprint"] is None
    assert "train" not in trained.provenance["scores"]
    assert cli.main(["info", "table-model.npz"]) == 0
    assert cli.main(["predict", "table-model.npz", str(table), "--output", "p.csv"]) == 0
    capsys.readouterr()
    for arguments, message in (
        (["--l2", "1e-3,1e-2"], "l2 must be one number with epsilon"),
        (["--method", "pda"], "method must be 'mfld' with epsilon"),
        (["--certify"], "certify must be False with epsilon"),
        (["--report"], "--report must be left out with --epsilon"),
        (["--bounds", "salary=0:1"], "bounds must be of columns of numbers or dates, got 'salary'"),
    ):
        assert cli.main([*run, *arguments]) == 2
        assert message in capsys.readouterr().err


def test_recipe_refusals(table):
    with pytest.raises(ValueError, match="bounds must be left out without epsilon"):
        Recipe(bounds={"a": (0, 1)})
    with pytest.raises(ValueError, match="bounds of 'a' must be low and high, increasing"):
        Recipe(epsilon=1.0, bounds={"a": (1, 0)})
    data = experiments.load(table, target="a")
    with pytest.raises(ValueError, match="epsilon must be left out for a regression"):
        experiments.train(data, recipe=Recipe(epsilon=1.0))
    with pytest.raises(ValueError, match="checkpoint must be left out with epsilon"):
        experiments.train(experiments.load(table), recipe=Recipe(epsilon=1.0), checkpoint=table.with_suffix(".npz"))
