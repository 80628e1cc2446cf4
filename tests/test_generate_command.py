"""``mfld generate``: rows that are read as the file was, and digits with their pictures."""

import csv
import json

import numpy as np
import pytest

from mfld.cli import main
from mfld.experiments import tables

pytest.importorskip("matplotlib")


def run(capsys, *arguments):
    status = main(list(map(str, arguments)))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def people(path, n=120, seed=0):
    rng = np.random.default_rng(seed)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["age", "height", "city"])
        for _ in range(n):
            city = rng.choice(["Lyon", "Nice", "Paris"], p=[0.3, 0.2, 0.5])
            height = f"{170 + 6 * rng.normal() + 15 * (city == 'Nice'):.1f}".replace(".", ",")
            writer.writerow([int(rng.gamma(9, 5)), height, city])
    return path


def test_new_rows_have_columns_types_and_laws_of_the_file(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = people(tmp_path / "people.csv")
    status, out, err = run(capsys, "generate", path, "--n", 300, "--n-particles", 100, "--n-steps", 1000, "--json")
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert (report["rows"], report["n"], report["generated"]) == (120, 300, "people-generated.csv")
    old, new = (tables.read(name) for name in ("people.csv", "people-generated.csv"))
    assert new.all_names == ["age", "height", "city"]
    assert (new.reading["delimiter"], new.reading["decimal"]) == (";", ",")
    for one, other in zip(old.columns, new.columns, strict=True):
        assert (other.kind, other.categories) == (one.kind, one.categories)
    (_, height, city), (_, made, town) = old.columns, new.columns
    assert made.values.mean() == pytest.approx(height.values.mean(), abs=2.5)
    nice = lambda values, places: values[places == 1].mean() - values[places != 1].mean()  # noqa: E731
    assert nice(made.values, town.values) == pytest.approx(nice(height.values, city.values), abs=6)


def test_numbers_have_the_digits_that_vary(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    lines = [f"{1e6 + 1e-6 * rng.normal():.9f},{1e99 * rng.normal():.15g},7" for _ in range(60)]
    (tmp_path / "a.csv").write_text("near,large,same\n" + "\n".join(lines) + "\n")
    status, _, err = run(capsys, "generate", "a.csv", "--n", 50, "--n-particles", 30, "--n-steps", 100)
    assert (status, err) == (0, "")
    written = csv.reader((tmp_path / "a-generated.csv").read_text().splitlines())
    near, large, same = (np.array(column) for column in zip(*written, strict=True))
    assert len(set(near[1:])) > 40
    assert 2e-7 < (near[1:].astype(float) - 1e6).std() < 2e-6
    assert max(map(len, large[1:])) < 20
    assert 2e98 < large[1:].astype(float).std() < 2e99
    assert (same[1:] == "7").all()


def test_digits_have_pictures(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["--n", 25, "--n-particles", 50, "--n-steps", 60, "--guidance", 0.5, "--animation", "digits.gif"]
    status, out, err = run(capsys, "generate", "digits", *arguments)
    assert (status, err) == (0, "")
    assert "25 new digits: digits-generated.csv" in out
    table = tables.read("digits-generated.csv")
    assert len(table.rows) == 25
    assert table.columns[-1].values.tolist() == [k % 10 for k in range(25)]
    pixels = np.array([column.values for column in table.columns[:-1]])
    assert pixels.shape == (64, 25)
    assert 0 <= pixels.min() < pixels.max() <= 16
    from PIL import Image  # noqa: PLC0415

    with Image.open("digits.gif") as animation:
        assert animation.n_frames > 20
    with Image.open("digits-generated.png") as picture:
        assert picture.size[0] > 300


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.csv"], "none.csv: No such file"),
        (["people.csv", "--picture", "a.png"], "--picture is of digits, got people.csv"),
        (["people.csv", "--guidance", "1"], "--guidance is of digits, got people.csv"),
        (["people.csv", "--n", "0"], "argument --n: must be at least 1, got 0"),
        (["people.csv", "--rows", "people.csv"], "people.csv"),
        (["digits", "--animation", "a.png"], "--animation must end in .gif, got a.png"),
    ],
)
def test_misuse_has_its_message(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    people(tmp_path / "people.csv")
    try:
        status = main(["generate", *arguments])
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    assert message in capsys.readouterr().err
