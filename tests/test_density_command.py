"""``mfld density``: a model, a picture, and new rows that are read as the file was."""

import csv
import datetime
import json

import numpy as np
import pytest

from mfld.cli import main
from mfld.experiments import DensityModel, tables

pytest.importorskip("matplotlib")

HEAD = ["age", "height", "city", "smoker", "since", "share", "price", "at", "site"]


def people(path, n=150, seed=0):
    """Rows with decimal commas, a percent sign, a currency, dates, times, categories and a constant."""
    rng = np.random.default_rng(seed)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(HEAD)
        for _ in range(n):
            city = rng.choice(["Lyon", "Nice", "Paris"], p=[0.3, 0.2, 0.5])
            height = f"{170 + 6 * rng.normal() + 15 * (city == 'Nice'):.1f}".replace(".", ",")
            date = datetime.date(2020, 1, 1) + datetime.timedelta(int(rng.integers(0, 900)))
            at = f"{rng.integers(8, 18):02}:{rng.integers(0, 60):02}"
            share, price = f"{rng.uniform(0, 100):.0f}%", f"{rng.gamma(3, 10):.2f} EUR".replace(".", ",")
            writer.writerow(
                [int(rng.gamma(9, 5)), height, city, rng.choice(["yes", "no"]), date, share, price, at, "A"]
            )
    return path


def run(capsys, *arguments):
    status = main(list(map(str, arguments)))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("density")
    path = people(folder / "people.csv")
    arguments = ["--output", folder / "m.npz", "--sample", 400, "--rows", folder / "new.csv", "--num-threads", 1]
    assert main(list(map(str, ["density", path, *arguments]))) == 0
    return folder


def test_new_rows_have_columns_types_and_laws_of_the_file(made):
    old, new = (tables.read(made / name) for name in ("people.csv", "new.csv"))
    assert new.all_names == HEAD
    assert new.header
    assert (new.reading["delimiter"], new.reading["decimal"]) == (";", ",")
    assert len(new.rows) == 400
    for one, other in zip(old.columns, new.columns, strict=True):
        assert (other.kind, other.unit, other.categories) == (one.kind, one.unit, one.categories)
        if one.categories is None:
            assert one.values.min() <= other.values.min()
            assert other.values.max() <= one.values.max()
            assert abs(one.values.mean() - other.values.mean()) < 0.3 * one.values.std()
            assert 0.75 < other.values.std() / one.values.std() < 1.25
        else:
            shares = [np.bincount(each.values, minlength=3) / len(each.values) for each in (one, other)]
            assert np.abs(shares[0] - shares[1]).max() < 0.1
    nice = [table.columns[1].values[table.columns[2].values == 1].mean() for table in (old, new)]
    assert abs(nice[0] - nice[1]) < 3  # and not the 173 of all
    lines = (made / "new.csv").read_text().splitlines()
    age, height, _, _, since, share, price, at, site = lines[1].split(";")
    assert age.isdigit()
    assert height[-2] == ","
    assert datetime.date.fromisoformat(since).year in (2020, 2021, 2022)
    assert share.endswith("%")
    assert price.endswith(" EUR")
    assert len(at) == 8
    assert site == "A"


def test_a_model_file_is_read_as_it_was_written(made, tmp_path):
    model = DensityModel.load(made / "m.npz")
    assert model.labels[:4] == ["age", "height", "city=Lyon", "city=Nice"]
    assert len(model.density.means) == 15
    assert model.provenance["rows"] == 150
    assert model.csv(model.sample(400, 0)) == (made / "new.csv").read_text()
    assert (made / "m.png").stat().st_size > 10_000
    model.save(tmp_path / "again.npz")
    again = DensityModel.load(tmp_path / "again.npz")
    assert again.density.means.tobytes() == model.density.means.tobytes()
    content = (made / "m.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="is not a density file of mfld"):
        DensityModel.load(tmp_path / "cut.npz")


def test_the_same_command_writes_the_same_rows_and_json_says_what(made, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = people(tmp_path / "people.csv")
    quick = ["--smoothing", 0.4, "--prior-rows", 5, "--n-particles", 10]
    written = []
    for threads in (1, 2):
        arguments = ["density", path, *quick, "--sample", 20, "--seed", 3, "--json", "--num-threads", threads]
        status, out, _ = run(capsys, *arguments)
        assert status == 0
        said = json.loads(out)
        assert (said["rows"], said["n_particles"], said["smoothing"], said["held_out"]) == (150, 10, 0.4, None)
        written.append((tmp_path / "people-sample.csv").read_text())
    assert written[0] == written[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "people-density.npz",
        "people-density.png",
        "people-sample.csv",
        "people.csv",
    ]


def test_files_without_a_header_and_with_missing_values(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = np.random.default_rng(1).normal(size=(40, 2)).round(2)
    lines = [",".join(map(str, row)) for row in rows]
    lines[4] = ",1.5"
    (tmp_path / "plain.csv").write_text("\n".join(lines))
    status, _, err = run(capsys, "density", "plain.csv", "--header", "no")
    assert status == 2
    assert "plain.csv, line 5, column '1': the value is missing" in err
    assert "--missing drop" in err
    status, out, _ = run(capsys, "density", "plain.csv", "--header", "no", "--missing", "drop", "--sample", "7")
    assert status == 0
    assert "39 rows" in out
    new = np.loadtxt(tmp_path / "plain-sample.csv", delimiter=",")
    assert new.shape == (7, 2)
    assert np.array_equal(new, new.round(2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "x.csv"], "--rows needs --sample"),
        (["--output", "people.csv"], "people.csv is what this command reads"),
        (["--output", "x.png", "--picture", "x.png"], "must be different files"),
        (["--sample", "0"], "must be at least 1, got 0"),
        (["--smoothing", "-1"], "--smoothing: must be finite and positive, got -1.0"),
        (["--drop", "wrong"], "no column 'wrong'"),
        (["--picture", "x.bmp2"], "must end in one of"),
    ],
)
def test_what_does_not_fit_is_one_line_before_the_work(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    people(tmp_path / "people.csv", 20)
    try:
        status = main(["density", "people.csv", *arguments])
    except SystemExit as stop:
        status = stop.code
    err = capsys.readouterr().err
    assert status == 2
    assert message in err
    assert len(err.splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["people.csv"]


def test_too_few_rows_and_too_many_texts_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    people(tmp_path / "few.csv", 4)
    (tmp_path / "names.csv").write_text("a,name\n" + "\n".join(f"{k},name {chr(65 + k % 26)}{k}x" for k in range(60)))
    (tmp_path / "same.csv").write_text("a,b\n" + "1,2\n" * 10)
    for name, message in (
        ("few.csv", "few.csv has 4 rows; at least 5 are needed"),
        ("names.csv", "column 'name' has 60 different texts, more than 50"),
        ("same.csv", "same.csv has no column in which rows differ"),
    ):
        status, _, err = run(capsys, "density", name)
        assert status == 2
        assert message in err


@pytest.mark.parametrize("n", [60, 20_000])  # a file that is large enough is read by pyarrow
def test_codes_keep_their_zeros(tmp_path, n):
    rng = np.random.default_rng(1)
    lines = ["code,plain,signed,size"]
    codes = rng.integers(0, 20_000, n)
    lines += [f"{code:05},{code % 90 + 10},{code - 9000:+06},{code / 7:.3f}" for code in codes]
    (tmp_path / "codes.csv").write_text("\n".join(lines))
    read = tables.read(tmp_path / "codes.csv", tables.Format(digits=True))
    assert [column.digits for column in read.columns] == [5, 0, 0, 0]
    if n == 60:
        model = DensityModel.fit(tmp_path / "codes.csv", smoothing=0.3, prior_rows=np.inf, n_particles=20)
        model.save(tmp_path / "codes.npz")
        drawn = DensityModel.load(tmp_path / "codes.npz").sample(50)
        assert {len(code) for code in drawn["code"]} == {5}
        assert any(code.startswith("0") for code in drawn["code"])
        assert all(number == str(int(number)) for name in ("plain", "signed") for number in drawn[name])


def test_whole_numbers_beyond_double_precision_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "large.csv").write_text("id,x\n" + "\n".join(f"{2**53 + k},{k % 7}.5" for k in range(60)))
    records = [json.dumps({"id": 2**53 + k, "x": k % 7}) for k in range(60)]
    (tmp_path / "large.json").write_text("\n".join(records))
    np.savez(tmp_path / "large.npz", X=np.arange(60)[:, np.newaxis] + 2**53)
    for name in ("large.csv", "large.json", "large.npz"):
        status, _, err = run(capsys, "density", name)
        assert status == 2
        assert "has whole numbers beyond 2**53" in err
    (tmp_path / "physical.csv").write_text("x,y\n" + "\n".join(f"{k + 1}e20,{k % 7}.5" for k in range(60)))
    assert all(column.exact for column in tables.read("physical.csv", tables.Format(digits=True)).columns)
