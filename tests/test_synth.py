"""Private rows for files and arrays: columns, types, budget, refusals."""

import argparse
import csv
import datetime
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from mfld import cli, privacy, synthesis
from mfld.cli import options
from mfld.experiments import SyntheticTable, register, tables, utility
from mfld.sklearn import PrivateSynthesizer

pytestmark = pytest.mark.filterwarnings("ignore::mfld.privacy.PrivacyWarning")


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A file with a serial number, numbers, a rare category, dates, gaps and classes."""
    rng, n = np.random.default_rng(0), 6000
    rich = rng.integers(0, 2, n)
    age = np.clip(rng.normal(40 + 10 * rich, 12), 18, 90).astype(int)
    job = np.array(["clerk", "cook", "nurse"])[rng.integers(0, 3, n)].astype(object)
    job[7] = "king"
    day = [(datetime.date(2020, 1, 1) + datetime.timedelta(days=int(d))).isoformat() for d in rng.integers(0, 700, n)]
    path = tmp_path_factory.mktemp("people") / "people.csv"
    with path.open("w") as file:
        file.write("id;age;job;since;rich\n")
        for row in zip(range(n), age, job, day, rich, strict=True):
            file.write(";".join(map(str, row)) + "\n")
        file.write("6000;;cook;2020-02-01;0\n")
    return path


@pytest.fixture(autouse=True)
def own_register(tmp_path_factory, monkeypatch):
    """A register of each test's own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("register")))


RUN = ["--epsilon", "1", "--rows", "300", "--target", "rich", "--missing", "drop"]


def synth(*arguments):
    return cli.main(["synth", *map(str, arguments)])


def test_rows_have_the_columns_and_types_of_the_file(people, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert synth(people, *RUN, "--drop", "id", "--bounds", "age=18:100", "--utility") == 0
    with open("people-synth.csv", encoding="utf-8") as file:
        names, *rows = csv.reader(file, delimiter=";")
    assert names == ["age", "job", "since", "rich"]
    assert len(rows) == 300
    assert all(18 <= int(row[0]) <= 100 for row in rows)
    assert {row[1] for row in rows} <= {"clerk", "cook", "nurse"}  # the king would be known
    assert all(2019 <= datetime.date.fromisoformat(row[2]).year <= 2022 for row in rows)
    ages = [np.mean([int(row[0]) for row in rows if row[3] == rich]) for rich in "01"]
    assert 5 < ages[1] - ages[0] < 15
    told = json.loads((tmp_path / "people-synth.json").read_text())
    assert told["epsilon"] <= 1 + 1e-6
    assert told["epsilon"] > 0.9
    assert told["bounds"]["age"] == [18, 100]
    assert {each["what"] for each in told["spent"]} == {
        "bounds of since",
        "categories of job",
        "categories of rich",
        "embedding",
    }
    # The parts of the budget are of one Gaussian mechanism, at the part of delta that thresholds leave.
    total = sum(each["noise_multiplier"] ** -2 for each in told["spent"]) ** -0.5
    assert total == pytest.approx(privacy.noise_multiplier(1.0, 0.9e-5), rel=1e-9)
    assert sum(each["delta"] for each in told["spent"]) == pytest.approx(1e-6)
    shown = capsys.readouterr().out
    assert "NOT FOR RELEASE" in shown
    assert "1200 rows of the file that were held out" in shown
    assert float(shown.split("columns differ by ")[1].split()[0]) < 0.12
    synthetic, real = (
        float(each.split(",")[0].split("\n")[0])
        for each in (shown.split("synthetic rows has a ROC-AUC of ")[1], shown.split("from real ones ")[1])
    )
    assert 0.65 < synthetic < real + 0.03  # ages of two classes that are 10 years apart, with a deviation of 12

    # A second run on the same file would cost more than was to be spent.
    assert synth(people, *RUN, "--drop", "id") == 2
    error = capsys.readouterr().err
    assert "with 1 earlier run in people-privacy-ledger.json this one makes epsilon 1." in error
    needed = float(error.split("at least ")[1].split(",")[0])
    twice = privacy.gaussian_epsilon(1.8e-5 + 1e-6, privacy.noise_multiplier(1.0, 0.9e-5) / math.sqrt(2))
    assert needed == pytest.approx(twice, rel=0.02)
    assert synth(people, *RUN, "--drop", "id", "--budget", "1.5", "--bounds", "age=18:100") == 0
    runs = json.loads((tmp_path / "people-privacy-ledger.json").read_text())["runs"]
    assert len(runs) == 2
    assert synth(people, *RUN, "--drop", "id", "--budget", "1.5") == 2


@pytest.mark.filterwarnings("ignore::mfld.privacy.PrivacyWarning")
def test_bounds_are_not_those_of_numbers_that_are_not_told_apart():
    for far in (1e17, -1e300, 2.0**39):
        with pytest.raises(ValueError, match=r"height must have bounds given: numbers of 5\.49756e"):
            privacy.private_bounds(np.append(np.full(500, far), np.ones(500)), 5.0, name="height", seed=0)
    low, high, _ = privacy.private_bounds(np.append(np.full(500, 2.0**38), np.ones(500)), 5.0, seed=0)
    assert low <= 1 < 2.0**38 < high


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "column 'id' identifies rows: it counts them; leave it out with --drop"),
        (["--drop", "id", "--epsilon", "0.01"], "epsilon must be at least 0.0"),
        (["--drop", "id", "--bounds", "salary=0:1"], "has no column 'salary'"),
        (["--drop", "id", "--bounds", "age=-1e308:1e308"], "bounds of 'age' must be between 1e-100 and 1e+100 apart"),
        (["--drop", "id", "--bounds", "age=9:1"], "bounds of 'age' must be low and high, increasing"),
        (["--drop", "id", "--missing", "refuse"], "the value is missing; --missing drop"),
        (["--drop", "id", "--epsilon", "inf"], "epsilon must be finite"),
    ],
)
def test_refusals(people, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert synth(people, *RUN, *arguments) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())  # nothing was written, and nothing spent


def test_a_copy_of_a_file_is_the_same_file(people, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert synth(people, *RUN, "--drop", "id") == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    _, *lines = people.read_text().splitlines()
    np.random.default_rng(5).shuffle(lines)
    rows = [line.split(";")[::-1] for line in lines]  # other names, orders of rows and columns, delimiter
    (tmp_path / "elsewhere" / "copy.csv").write_text("a,b,c,d,e\n" + "".join(",".join(row) + "\n" for row in rows))
    again = [*RUN[:4], "--target", "a", "--missing", "drop", "--drop", "e"]
    capsys.readouterr()
    assert synth("copy.csv", *again) == 2
    error = capsys.readouterr().err
    assert "1 on the same rows, in " in error
    assert "people-privacy-ledger.json" in error
    # Without a column or two they are still the same rows, with other values they are not.
    assert synth("copy.csv", *again, "--drop", "b") == 2
    other = [[row[0], *row[1:3], str(100 - int(row[3] or 0)), row[4]] for row in rows]
    other = [[row[0], row[1][:8] + "01", row[2][::-1], *row[3:]] for row in other]
    (tmp_path / "elsewhere" / "other.csv").write_text("a,b,c,d,e\n" + "".join(",".join(row) + "\n" for row in other))
    assert synth("other.csv", *again) == 0


def test_the_register_is_for_its_owner(people, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "kept.json"
    assert synth(people, *RUN, "--drop", "id", "--register", path) == 0
    assert path.stat().st_mode & 0o077 == 0
    first, other = (register.Register.load(place) for place in (path, tmp_path / "none.json"))
    table = tables.read(people)
    # A digest is worth nothing without the key.
    assert not set(first.digests(table)) & set(other.digests(table))
    assert len(first.runs_of(first.digests(table))) == 1
    path.write_text("{}")
    assert synth(people, *RUN, "--drop", "id", "--register", path) == 2
    assert "is no register of mfld synth" in capsys.readouterr().err


def test_columns_of_few_values_do_not_make_tables_one(tmp_path):
    rng, known = np.random.default_rng(2), register.Register(tmp_path / "none.json", bytes(32), [])

    def digests(x, c, k, order=(0, 1, 2)):
        rows = np.stack([x, c, k], axis=1)[:, order]
        path = tmp_path / "table.csv"
        path.write_text("a,b,c\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
        return set(known.digests(tables.read(path)))

    c, k = rng.permutation(np.repeat(["u", "v"], 50)), rng.permutation(np.repeat(["p", "q", "r", "s"], 25))
    x = rng.normal(size=(2, 100)).round(3)
    assert not digests(x[0], c, k) & digests(x[1], c, k)
    assert digests(x[0], c, k) & digests(x[0], c[::-1], k)
    few = x.round(0).astype(int)
    assert digests(few[0], c, k) == digests(few[0][::-1], c[::-1], k[::-1], (2, 0, 1))
    assert digests(few[0], c, k) != digests(few[0], np.roll(c, 1), k)


def test_bounds_of_dates_are_dates():
    assert options.column_bounds("when=1970-01-02:2000-01-01") == ("when", (1.0, 10957.0))
    assert options.column_bounds("a=b=-1:2e3") == ("a=b", (-1.0, 2000.0))
    for wrong in ("1:2", "x=1", "x=1970-13-01:2000-01-01", "x=:"):
        with pytest.raises(argparse.ArgumentTypeError, match="must be NAME=LOW:HIGH"):
            options.column_bounds(wrong)


def test_areas_by_counting_pairs():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 6, size=40).astype(float), rng.random(40) < 0.4
    pairs = [(a > b) + (a == b) / 2 for a in scores[positive] for b in scores[~positive]]
    assert utility.roc_auc(scores, positive) == pytest.approx(np.mean(pairs))


def test_utility_of_rows_themselves_is_that_of_sampling():
    rng, n = np.random.default_rng(1), 4000
    label = rng.integers(0, 2, size=n)
    x = np.clip(rng.normal(0.4 + 0.2 * label, 0.1), 0, 1)[:, np.newaxis]
    codes = np.stack([rng.integers(-1, 3, size=n), label], axis=1)
    rows = utility.Rows(x, codes)
    parts = [rows.take(np.arange(k, n, 3)) for k in range(3)]
    found = utility.compare(*parts, ["x", "c", "y"], [3, 2], 1)
    assert list(found.pairs) == ["x, c", "x, y", "c, y"]
    # k cells of shares p: total variation sum_k |normal| / 2 of variance 2 p (1 - p) / m, at most sqrt(k / (pi m)).
    assert 0 < found.columns["c"] < 2 * math.sqrt(4 / (math.pi * n / 3))
    assert found.real_columns == pytest.approx(np.mean(list(found.columns.values())), abs=0.03)
    # Two normal laws, two deviations apart: Phi(sqrt(2)).
    assert found.synthetic_auc == pytest.approx(0.921, abs=0.03)
    assert found.real_auc == pytest.approx(0.921, abs=0.03)
    shifted = utility.Rows(np.clip(x + 0.3, 0, 1), codes)
    assert utility.compare(shifted, *parts[1:], ["x", "c", "y"], [3, 2], 1).columns["x"] > 0.5


def test_what_another_process_spends_in_the_meantime_counts(people, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fit, command = SyntheticTable.fit, [*RUN, "--drop", "id"]

    def meanwhile(*arguments, **options):
        subprocess.run([sys.executable, "-m", "mfld", "synth", people, *command], check=True, capture_output=True)
        os.remove("people-synth.csv")
        return fit(*arguments, **options)

    monkeypatch.setattr(SyntheticTable, "fit", meanwhile)
    assert synth(people, *command) == 2
    assert "with 1 earlier run in people-privacy-ledger.json" in capsys.readouterr().err
    assert not os.path.exists("people-synth.csv")  # nothing was released
    # With a budget for both the ledger and the register have both, under one key.
    monkeypatch.setattr(SyntheticTable, "fit", fit)
    assert synth(people, *command, "--budget", "3") == 0
    assert len(json.loads((tmp_path / "people-privacy-ledger.json").read_text())["runs"]) == 2
    known = register.Register.load(register.default_path())
    assert len(known.runs_of(known.digests(tables.read(people, drop=["id"])))) == 2
    assert sorted(os.listdir()) == ["people-privacy-ledger.json", "people-synth.csv", "people-synth.json"]


def test_processes_wait_for_a_file(tmp_path):
    program = """
import json, pathlib, sys
from mfld.files import locked, replacing
path = pathlib.Path(sys.argv[1])
for _ in range(200):
    with locked(path):
        found = json.loads(path.read_text()) if path.exists() else []
        with replacing(path) as file:
            file.write(json.dumps([*found, sys.argv[2]]).encode())
"""
    path = tmp_path / "kept.json"
    own = [subprocess.Popen([sys.executable, "-c", program, path, str(k)]) for k in range(2)]
    assert [each.wait() for each in own] == [0, 0]
    assert sorted(json.loads(path.read_text())) == ["0"] * 200 + ["1"] * 200
    assert os.listdir(tmp_path) == ["kept.json"]


def test_the_register_is_no_ledger(people, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert synth(people, *RUN, "--drop", "id", "--ledger", "one.json", "--register", "one.json") == 2
    assert "rows, report, ledger and register must be different files" in capsys.readouterr().err


def test_a_damaged_ledger_is_no_empty_one(people, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "people-privacy-ledger.json").write_text("{}")
    assert synth(people, *RUN, "--drop", "id") == 2
    assert "is no ledger of mfld synth" in capsys.readouterr().err


def test_names_identify_rows(tmp_path):
    path = tmp_path / "names.csv"
    path.write_text("name,x\n" + "".join(f"person {k * 7919 % 10007},{k % 7}\n" for k in range(100)))
    with pytest.raises(ValueError, match="column 'name' identifies rows: 100 different texts in 100 rows"):
        SyntheticTable.fit(path, epsilon=1.0, delta=1e-5)


@pytest.mark.parametrize("numbers", [[1, *range(1, 200)], [7919 * k % 100003 for k in (1, *range(1, 200))]])
def test_numbers_of_rows_identify_them_though_one_comes_twice(tmp_path, numbers):
    path = tmp_path / "numbers.csv"
    path.write_text("customer,x\n" + "".join(f"{number},{k % 7}\n" for k, number in enumerate(numbers)))
    with pytest.raises(ValueError, match="column 'customer' identifies rows: 199 different whole numbers in 200 rows"):
        SyntheticTable.fit(path, epsilon=1.0, delta=1e-5)


def test_a_seed_is_said_loudly(people, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert synth(people, *RUN, "--drop", "id", "--seed", "3") == 0
    assert "NOT PRIVATE" in capsys.readouterr().out
    assert json.loads((tmp_path / "people-synth.json").read_text())["reproducible_noise"]


@pytest.mark.parametrize(
    ("values", "low", "high"), [((-3.0, 5.0), -8, 8), ((1000, 1100), 900, 1200), ((0, 1e-3), 0, 0.1)]
)
def test_private_bounds_hold_the_numbers(values, low, high):
    drawn = np.random.default_rng(1).uniform(*values, size=20000)
    found = privacy.private_bounds(drawn, 5.0, seed=2)
    assert low <= found[0] <= values[0] + 0.05 * np.ptp(values)
    assert values[1] - 0.05 * np.ptp(values) <= found[1] <= high
    assert privacy.Ledger(found[2]).noise_multiplier == pytest.approx(5.0)


def test_one_row_shows_no_category():
    shown = [len(privacy.private_categories([5000, 1], 1.0, 0.2, seed=seed)[0]) - 1 for seed in range(400)]
    assert abs(np.mean(shown) - 0.2) < 5 * math.sqrt(0.16 / 400)  # with the probability delta


def test_the_loss_at_a_finite_epsilon_is_that_of_the_noise():
    rng = np.random.default_rng(3)
    label = rng.integers(0, 2, size=(4000, 1))
    x = np.clip(rng.normal(0.3 + 0.4 * label, 0.1), 0, 1)
    private = synthesis.fit(x, label, [2], 0, epsilon=1.0, delta=1e-5, seed=0, n_particles=500, n_steps=700)
    exact = synthesis.fit(x, label, [2], 0, epsilon=math.inf, delta=1e-5, seed=0, n_particles=500, n_steps=700)
    assert exact.loss < 2e-3
    assert 0.4 * private.floor < private.loss < 1.6 * private.floor + 2 * exact.loss


@pytest.mark.parametrize(("n", "by_class"), [(20000, True), (1400, False)])
def test_columns_that_noise_would_hide_in_a_class_are_released_for_all_rows(n, by_class):
    """Two classes, 11 columns, epsilon 1: the deviation in a class is 7.5 * 2 / n * sqrt(11 / 0.4), 0.004 or 0.056."""
    rng = np.random.default_rng(0)
    x, codes = rng.uniform(size=(n, 10)), rng.integers(0, 2, size=(n, 2))
    made = synthesis.fit(x, codes, [2, 2], 1, epsilon=1.0, delta=1e-5, seed=0, n_particles=10, n_steps=3)
    singles = [block.factors for block in made.features.blocks if set(block.factors) <= set(range(12))]
    assert ((0, 11) in singles) == by_class
    assert ((0,) in singles) != by_class
    assert (10, 11) in singles  # a category is known by class in any case


@pytest.mark.slow
def test_digits_of_private_rows_are_told_apart():
    """By logistic regression, whose area with real rows is 0.998: 0.76 where columns are released by class."""
    from sklearn.datasets import load_digits  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415

    inputs, labels = load_digits(return_X_y=True)
    x, codes = inputs / 16, labels[:, np.newaxis]
    made, classes = synthesis.fit(x[:1400], codes[:1400], [10], 0, epsilon=1.0, delta=1e-5, seed=0).sample(1400)
    told = LogisticRegression(max_iter=300).fit(made, classes[:, 0])
    assert roc_auc_score(labels[1400:], told.predict_proba(x[1400:]), multi_class="ovr") > 0.85


def test_synthesizer():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, size=4000)
    X = rng.normal(20 + 4 * y[:, np.newaxis], 1.0, size=(4000, 2))
    ours = PrivateSynthesizer(epsilon=1.0, noise_seed=0).fit(X, np.array(["no", "yes"])[y])
    rows, labels = ours.sample(1000, random_state=0)
    assert ours.epsilon_ == pytest.approx(1.0, rel=1e-6)
    means = np.array([rows[labels == name].mean() for name in ("no", "yes")])
    assert np.abs(means - [20, 24]).max() < 0.7
    with pytest.raises(ValueError, match="bounds must have shape"):
        PrivateSynthesizer(bounds=[(0, 1)]).fit(X)
    with pytest.raises(ValueError, match="delta must be below 1 / 4000, one over the number of rows"):
        PrivateSynthesizer(delta=0.01).fit(X, y)
    for bounds in ((-1e308, 1e308), (0, 5e-324)):
        with pytest.raises(ValueError, match="bounds must be between 1e-100 and"):
            PrivateSynthesizer(bounds=[bounds] * X.shape[1]).fit(X, y)
    assert not hasattr(ours.fit(X), "classes_")


@parametrize_with_checks([PrivateSynthesizer(epsilon=450.0, n_particles=20, n_steps=3, noise_seed=0)])
@pytest.mark.filterwarnings("ignore")
def test_the_checks_of_scikit_learn(estimator, check):
    check(estimator)
