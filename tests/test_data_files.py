"""Files of one's own: what is read from them, what is refused and how it is said, and the way to a model and back."""

import csv
import io
import json
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfld import cli, experiments
from mfld.experiments import Encoding, Recipe, TrainedModel, tables
from mfld.experiments.encoding import Feature

QUICK = ("--n-steps", "20", "--n-particles", "20", "--l2", "0.01", "--quiet")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys):
    """Runs the command line: status, standard output, standard error."""

    def run(*arguments):
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as stopped:
            status = stopped.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def write(name, text, **kwargs):
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", **kwargs))
    return name


def people(n=40, header="age,colour,height"):
    """A small regression with a column of texts."""
    colours = ["red", "green", "light blue"]
    rows = [f"{20 + i % 7},{colours[i % 3]},{1.5 + 0.01 * i}" for i in range(n)]
    return "\n".join([header, *rows] if header else rows) + "\n"


def test_texts_become_one_feature_for_each_category():
    data = experiments.load(write("people.csv", people()))
    assert data.encoding.feature_names == ["age", "colour=green", "colour=light blue", "colour=red"]
    np.testing.assert_array_equal(data.inputs[:4, 1:], [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    np.testing.assert_array_equal(data.inputs[:4, 0], [20, 21, 22, 23])
    np.testing.assert_allclose(data.targets[:2], [1.5, 1.51])
    assert data.classes is None


def test_the_target_is_the_last_column_or_the_one_that_is_named_or_numbered():
    write("people.csv", people())
    assert experiments.load("people.csv").encoding.target == "height"
    for target in ("age", "1"):
        data = experiments.load("people.csv", target=target)
        assert data.encoding.target == "age"
        assert data.encoding.feature_names[-1] == "height"
        assert list(data.classes) == [20, 21, 22, 23, 24, 25, 26]  # few whole numbers, each of them often
        assert list(data.targets) == [20 + i % 7 for i in range(40)]
    named = experiments.load("people.csv", target="colour")
    assert list(named.classes) == ["green", "light blue", "red"]
    assert named.targets[0] == "red"


def test_the_task_can_be_said():
    write("people.csv", people())
    assert experiments.load("people.csv", target="age", task="regression").classes is None
    assert len(experiments.load("people.csv", task="classification").classes) == 40
    with pytest.raises(ValueError, match=r"target 'colour' has texts such as 'green': --task must be classification"):
        experiments.load("people.csv", target="colour", task="regression")
    with pytest.raises(ValueError, match=r"task must be one of classification, regression; got 'guess'"):
        experiments.load("people.csv", task="guess")


@pytest.mark.parametrize(
    ("numbers", "is_classification"),
    [
        ("0 1 0 1 0 1", True),
        ("0.0 1.0 0 1 1 1", True),
        ("0.5 1 0.5 1 1 1", False),
        ("1 2 3 4 5 6", False),
        (" ".join(str(i % 20) for i in range(60)), True),
        (" ".join(str(i % 21) for i in range(60)), False),
    ],
)
def test_the_task_follows_from_the_numbers(numbers, is_classification):
    rows = "".join(f"{i},{number}\n" for i, number in enumerate(numbers.split()))
    assert (experiments.load(write("data.csv", rows)).classes is not None) == is_classification


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a,b\n1,2\n3,4\n", ["a", "b"]),
        ("1,2\n3,4\n", ["1", "2"]),
        ("1,x\n3,x\n5,y\n", ["1", "2"]),  # x comes again: it is a value
        ("1,kind\n3,x\n5,y\n", ["1", "2"]),  # 1 stands above numbers
        ("p,q\nr,s\nr,q\n", ["1", "2"]),
        ("p,q\nr,s\nr,t\n", ["p", "q"]),
    ],
)
def test_a_header_is_found_or_said(text, names):
    table = tables.read(write("data.csv", text))
    assert table.names == names
    assert len(table.rows) == text.count("\n") - table.header


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\N{BYTE ORDER MARK}"])
def test_delimiters_line_ends_and_byte_order_marks(delimiter, line_end, mark):
    lines = ["name,x", '"Li, ""Q""; a|b",1', "", "Bo,2.5", ' Bo , "-3e2"']
    text = mark + line_end.join(line.replace(",", delimiter) if "Li" not in line else line for line in lines)
    text = text.replace('b",1', f'b"{delimiter}1')
    table = tables.read(write("data.csv", text))
    assert table.names == ["name", "x"]
    assert table.columns[0].categories == ("Bo", 'Li, "Q"; a|b')
    np.testing.assert_array_equal(table.columns[0].values, [1, 0, 0])
    np.testing.assert_array_equal(table.columns[1].values, [1, 2.5, -300])
    np.testing.assert_array_equal(table.rows, [2, 4, 5])


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8).filter(
    lambda text: text == text.strip() and text.lower() not in ("true", "false")
)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)


@st.composite
def random_tables(draw):
    n = draw(st.integers(1, 12))
    kinds = draw(st.lists(st.sampled_from([TEXTS, NUMBERS]), min_size=2, max_size=5))
    return [draw(st.lists(kind, min_size=n, max_size=n)) for kind in kinds]


@settings(max_examples=150, deadline=None)
@given(
    random_tables(),
    st.sampled_from(",;\t|"),
    # With "\n" between lines the writer would leave a "\r" unquoted.
    st.sampled_from([(csv.QUOTE_ALL, "\n"), (csv.QUOTE_ALL, "\r\n"), (csv.QUOTE_MINIMAL, "\r\n")]),
)
def test_what_the_csv_module_writes_is_read_again(columns, delimiter, style):
    quoting, line_end = style
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=line_end)
    names = [f"column{place}" for place in range(len(columns))]
    writer.writerow(names)
    writer.writerows(zip(*columns, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        path.write_bytes(text.getvalue().encode())
        types = {
            name: "text" if isinstance(values[0], str) else "number"
            for name, values in zip(names, columns, strict=True)
        }
        table = tables.read(path, tables.Format(header=True, missing_values=(), types=types))
    assert table.names == names
    for column, values in zip(table.columns, columns, strict=True):
        if isinstance(values[0], str):
            assert [column.categories[code] for code in column.values] == values
        else:
            assert column.categories is None
            np.testing.assert_array_equal(column.values, np.array(values, np.float64))


CSV_LIKE = st.lists(st.sampled_from([*"0123456789.,;\"'\n\r\t-e xyz", "\ufeff", "nan", "inf", "1e308", "\0"])).map(
    "".join
)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | CSV_LIKE.map(str.encode), st.sampled_from(["data.csv", "data.npz"]))
def test_random_bytes_are_a_data_set_or_a_value_error(content, name):
    features = (Feature("1"), Feature("2", ("x", "y")))
    encodings = [Encoding(features, "3", ("1", "2", "3"), header) for header in (True, False)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        for encoding in encodings:
            try:
                inputs, _ = experiments.load_like(encoding, path, None)
            except (ValueError, ImportError) as error:
                assert _is_refusal(error, path)  # noqa: PT017  either outcome is right
            else:
                assert np.isfinite(inputs).all()
        try:
            data = experiments.load(path)
        except (ValueError, ImportError) as error:
            assert _is_refusal(error, path)  # noqa: PT017
        else:
            assert np.isfinite(data.inputs).all()
            assert (np.ptp(data.inputs, axis=0) > 0).all()
            assert len(data.inputs) >= 5


def _is_refusal(error, path):
    """By name; bytes may begin like Parquet, Arrow or zstd, which need pyarrow."""
    return str(path) in str(error) and (isinstance(error, ValueError) or "needs pyarrow" in str(error))


ROWS = "1,u,0.1\n2,v,0.2\n3,u,0.3\n4,v,0.4\n5,u,0.5\n"

# Content of the file, further options, and what the message says after the name of the file.
REFUSED = {
    "all dropped": (ROWS, ("--drop", "1", "--drop", "2", "--drop", "3"), " has no targets"),
    "only the target left": (ROWS, ("--drop", "1", "--drop", "2"), " has no column beside the target '3'"),
    "target dropped": (ROWS, ("--target", "3", "--drop", "3"), " has no column '3' (--target); it has 1, 2"),
    "empty": ("", (), " is empty"),
    "blank": ("\n \n\n", (), " is empty"),
    "only a header": ("a,b\n", (), " has a header and no rows"),
    "few rows": ("a,b\n1,2\n3,4\n5,6\n7,8\n", (), " has 4 rows; at least 5 are needed"),
    "ragged": ("a,b\n1,2\n3\n", (), ", line 3: 1 fields where the first line has 2"),
    "ragged, long": ("a,b\n1,2\n\n3,4,5\n", (), ", line 4: 3 fields where the first line has 2"),
    "one column": ("a\n1\n2\n3\n4\n5\n", (), " has no column beside the target 'a'"),
    "empty field": ("a,b\n1,2\n3,\n5,6\n", (), ", line 3, column 'b': the value is missing"),
    "NA": ("a,b\n1,2\n NA ,4\n5,6\n", (), ", line 3, column 'a': the value is missing ('NA')"),
    "NaN": ("a,b\n1,2\n3,4\nNaN,6\n", (), ", line 4, column 'a': the value is missing ('NaN')"),
    "missing text": ("a,b\nx,2\n,4\n", (), ", line 3, column 'a': the value is missing"),
    "infinite": ("a,b\n1,2\n3,-inf\n", (), ", line 3, column 'b': '-inf' is no finite number"),
    "overflow": ("a,b\n1,2\n3,1e999\n", (), ", line 3, column 'b': '1e999' is no finite number"),
    "too large": (ROWS + "1e300,u,0.1\n", (), ", column '1' reaches 1e+300 and spreads over 1e+300: these must be"),
    "text among numbers": (
        "a,b\n1,2\n3,4\nfive,6\n",
        (),
        ", line 4, column 'a': 'five' is a text in a column of numbers (above it '3')",
    ),
    "number among texts": (
        "a,b\none,2\n3,4\n",
        (),
        ", line 3, column 'a': '3' is a number in a column of texts (above it 'one')",
    ),
    "underscore": ("a,b\n1,2\n1_0,4\n", (), ", line 3, column 'a': '1_0' is a text in a column of numbers"),
    "decimal comma or thousands": (
        "a;b\n1,500;2\n",
        (),
        ", line 2, column 'a': '1,500' may be 1500 or 1.5; --decimal . or , tells",
    ),
    "long text": (f"a,b\n{'x' * 201},2\n", (), ", line 2, column 'a': a text of 201 characters is no category"),
    "quoted line end": ('a,b\n"p\nq",2\n"r\ns",\n', (), ", line 4, column 'b': the value is missing"),
    "open quote": ('a,b\n1,2\n"3,4\n', (), ", line 3: unexpected end of data"),
    "NUL": ("a,b\nx\0,2\n", (), ", line 2, column 'a': 'x\\x00' has a NUL character"),
    "not UTF-8": (b"a,b\n\xff,2\n", (), ", line 2: byte 0xff is no UTF-8 text; say which"),
    "same names": ("a,b,a\n1,2,3\n", (), ", line 1: column 3 has the name 'a' of column 1"),
    "constant": (
        "a,b,c\n" + "".join(f"7,{i},{i}\n" for i in range(6)),
        (),
        ", column 'a' is constant (7.0 in every row); leave it out with --drop a",
    ),
    "constant text": (
        "a,b,c\n" + "".join(f"x,{i},{i}\n" for i in range(6)),
        (),
        ", column 'a' is constant ('x' in every row); leave it out with --drop a",
    ),
    "many texts": (
        "a,b\n" + "".join(f"n{i},{i}\n" for i in range(257)),
        (),
        ", column 'a' has 257 different texts, more than 256; leave it out with --drop a",
    ),
    "single class": (
        "a,b\n" + "".join(f"{i},yes\n" for i in range(6)),
        (),
        ", target 'b' has a single class, yes: nothing can be learned",
    ),
    "single class of numbers": (
        "a,b\n" + "".join(f"{i},1\n" for i in range(6)),
        (),
        ", target 'b' has a single class, 1: nothing can be learned",
    ),
    "constant target": (
        "a,b\n" + "".join(f"{i},0.5\n" for i in range(6)),
        (),
        ", target 'b' is constant (0.5 in every row): nothing can be learned",
    ),
    "many classes": (
        "a,b\n" + "".join(f"{i},n{i}\n" for i in range(257)),
        (),
        ", target 'b' has 257 classes, more than 256",
    ),
    "unknown target": (ROWS, ("--target", "4"), " has no column '4' (--target); it has 1, 2, 3"),
    "unknown drop": (ROWS, ("--drop", "q"), " has no column 'q' to drop; it has 1, 2, 3"),
    "texts to regress on": (
        ROWS,
        ("--target", "2", "--task", "regression"),
        ", target '2' has texts such as 'u': --task must be classification",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_files_are_refused_in_one_line_with_the_place(case, run, folder):
    content, options, message = REFUSED[case]
    write("data.csv", content)
    status, out, error = run("train", "data.csv", *options, *QUICK)
    assert (status, out) == (2, "")
    assert error.startswith(f"mfld: data.csv{message}")
    assert error.count("\n") == 1
    assert [path.name for path in folder.iterdir()] == ["data.csv"]


def test_the_place_is_right_far_into_a_long_file(run):
    rows = [f"{i},{i % 5},{'u' if i % 2 else 'v'}" for i in range(9000)]
    for line, column, bad, message in [
        (8500, "1", "x,1,u", "'x' is a text in a column of numbers (above it '8498')"),
        (5000, "3", "7,1,8", "'8' is a number in a column of texts (above it 'v')"),
        (9000, "2", "7,,u", "the value is missing"),
    ]:
        changed = [*rows[: line - 1], bad, *rows[line:]]
        write("data.csv", "\n".join(changed))
        error = run("train", "data.csv")[2]
        assert error.startswith(f"mfld: data.csv, line {line}, column '{column}': {message}")


def test_npz_files(run):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(30, 3))
    labels = np.where(inputs[:, 0] > 0, "up", "down")
    np.savez("data.npz", inputs=inputs, targets=labels)
    data = experiments.load("data.npz")
    np.testing.assert_array_equal(data.inputs, inputs)
    np.testing.assert_array_equal(data.targets, labels)
    np.savez("other.npz", X=inputs.astype(np.float32), y=inputs[:, :1], z=inputs[:, 1])
    np.testing.assert_array_equal(experiments.load("other.npz").targets, inputs[:, 0])
    np.testing.assert_array_equal(experiments.load("other.npz", target="z").targets, inputs[:, 1])
    assert run("train", "data.npz", *QUICK)[0] == 0
    np.savez("new.npz", inputs=inputs[:4])
    status, out, _ = run("predict", "data-model.npz", "new.npz")
    assert (status, out.splitlines()[0], len(out.splitlines())) == (0, "row,prediction", 5)
    status, out, _ = run("predict", "data-model.npz", "data.npz")
    assert status == 0
    assert "test " in out


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros(3)}, " has no array named inputs or X; it has a"),
        ({"X": np.arange(12.0).reshape(6, 2)}, " has no targets: an array named targets or y"),
        ({"X": np.zeros(3), "y": np.zeros(3)}, ": inputs must be real numbers of shape (n, d), got float64 of"),
        ({"X": np.full((3, 2), "a"), "y": np.zeros(3)}, ": inputs must be real numbers of shape (n, d), got <U1 of"),
        ({"X": np.eye(6), "y": np.zeros(5)}, ": y must be numbers or texts of shape (6,), got float64 of shape (5,)"),
        ({"X": np.eye(6), "y": np.arange(6) * 1j}, ": y must be numbers or texts of shape (6,), got complex128"),
        (
            {"X": np.full((6, 1), np.nan), "y": np.arange(6)},
            ", row 0, column '1': the value is missing, and so are all below it",
        ),
        (
            {"X": np.eye(6) / [1, 1, 1, 1, 1, np.inf], "y": np.array([1, 2, 3, np.inf, 4, 5])},
            ", row 3, column 'y': inf",
        ),
        ({"X": np.array([[None]]), "y": np.zeros(1)}, " is no .npz file of plain arrays"),
    ],
)
def test_bad_npz_files_are_refused(arrays, message, run):
    np.savez("data.npz", **arrays)
    status, _, error = run("train", "data.npz", *QUICK)
    assert (status, error.count("\n")) == (2, 1)
    assert error.startswith(f"mfld: data.npz{message}")


def test_files_that_cannot_be_read_and_names_that_are_none(run, folder):
    (folder / "folder.csv").mkdir()
    for source, message in [
        ("none.csv", "none.csv: No such file or directory"),
        ("none.npz", "none.npz: No such file or directory"),
        ("folder.csv", "folder.csv: Is a directory"),
        ("mnist", "no bundled data set and no file is called 'mnist'; bundled are breast_cancer, diabetes, digits,"),
    ]:
        status, out, error = run("train", source)
        assert (status, out) == (2, "")
        assert error.startswith(f"mfld: {message}")
        assert error.count("\n") == 1


def test_outputs_that_cannot_be_written_are_refused_before_the_work(run, folder):
    write("people.csv", people())
    (folder / "taken.npz").mkdir()
    for options, message in [
        (("--output", "none/model.npz"), "none/model.npz cannot be written: there is no folder none"),
        (("--output", "taken.npz"), "taken.npz cannot be written: it is a folder"),
        (("--output", "people.csv"), "people.csv is what this command reads; it will not be overwritten"),
        (("--picture", "people.csv"), "people.csv is what this command reads; it will not be overwritten"),
        (("--output", "a.png"), "model and picture cannot both be a.png"),
        (("--picture", "a.doc"), "a.doc must end in one of ."),
    ]:
        status, out, error = run("train", "people.csv", *options)
        assert (status, out) == (2, "")
        assert error.startswith(f"mfld: {message}")
    assert sorted(path.name for path in folder.iterdir()) == ["people.csv", "taken.npz"]
    assert run("train", "people.csv", *QUICK)[0] == 0
    for output in ("people-model.npz", "people.csv", "none/table.csv"):
        before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
        status, out, error = run("predict", "people-model.npz", "people.csv", "--output", output)
        assert (status, out) == (2, "")
        assert error.startswith(f"mfld: {output} ")
        assert before == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_nothing_half_written_stays_when_writing_fails(run, folder, monkeypatch):
    write("people.csv", people())
    write("people-model.npz", "the model of yesterday")

    def full(*args, **kwargs):
        args[0].write(b"the first half")
        raise OSError(28, "No space left on device", "people-model.npz")

    monkeypatch.setattr(np, "savez", full)
    status, _, error = run("train", "people.csv", *QUICK)
    assert (status, error) == (2, "mfld: people-model.npz: No space left on device\n")
    assert sorted(path.name for path in folder.iterdir()) == ["people-model.npz", "people.csv"]
    assert Path("people-model.npz").read_text() == "the model of yesterday"


def test_a_model_predicts_on_files_with_and_without_the_target(run):
    write("people.csv", people())
    status, out, _ = run("train", "people.csv", "--target", "colour", *QUICK)
    assert status == 0
    scores = out.splitlines()[-4:-2]
    status, again, _ = run("predict", "people-model.npz", "people.csv")
    assert again.splitlines() == scores  # the same rows, so train and test are known

    data = experiments.load("people.csv", target="colour")
    trained = TrainedModel.load("people-model.npz")
    predicted = trained.predict(data.inputs)
    write("new.csv", "note,height,age\n" + "".join(f"n{i},{1.5 + 0.01 * i},{20 + i % 7}\n" for i in range(9)))
    status, out, _ = run("predict", "people-model.npz", "new.csv")
    assert (status, out.splitlines()) == (0, ["row,prediction", *(f"{i},{predicted[i]}" for i in range(9))])

    write("scored.csv", people(10))
    status, out, _ = run("predict", "people-model.npz", "scored.csv", "--output", "table.csv")
    accuracy = np.mean(predicted[:10] == data.targets[:10])
    assert status == 0
    assert out.startswith("all ")
    assert f"accuracy {accuracy:.6f}\n" in out
    with open("table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["target"] for row in rows] == list(data.targets[:10])
    assert [row["prediction"] for row in rows] == list(predicted[:10])


def test_a_file_without_a_header_goes_by_places(run):
    write("people.csv", people(header=None))
    assert run("train", "people.csv", "--target", "2", *QUICK)[0] == 0
    expected = TrainedModel.load("people-model.npz").predict(experiments.load("people.csv", target="2").inputs)
    write("new.csv", "".join(f"{20 + i % 7},{1.5 + 0.01 * i}\n" for i in range(9)))
    status, out, _ = run("predict", "people-model.npz", "new.csv")
    assert (status, out.splitlines()[1:]) == (0, [f"{i},{expected[i]}" for i in range(9)])
    write("new.csv", "1\n2\n")
    status, _, error = run("predict", "people-model.npz", "new.csv")
    assert status == 2
    assert error == "mfld: new.csv has 1 columns; the model was made from 3, or 2 without the target\n"


@pytest.mark.parametrize(
    ("target", "content", "message"),
    [
        ("height", "age,colour\n20,red\n21,pink\n", "line 3, column 'colour': 'pink' is none of the categories green,"),
        ("height", "age,colour\n20,red\nx,red\n", "line 3, column 'age': 'x' is a text in a column of numbers"),
        ("height", "age,colour\nx,red\n", "line 2, column 'age': must be a number, got 'x'"),
        (
            "height",
            "age,colour\n20,7\n",
            "line 2, column 'colour': '7' is none of the categories green, light blue, red",
        ),
        ("height", "age,colour\n20,\n", "line 2, column 'colour': the value is missing"),
        ("colour", "age,height,colour\n20,1,pink\n", "line 2, column 'colour': 'pink' is none of the classes green,"),
        ("age", "age,height,colour\n5,1,red\n", "line 2, column 'age': 5 is none of the classes 20, 21, 22"),
    ],
)
def test_new_files_are_held_to_the_columns_of_the_first(target, content, message, run):
    write("people.csv", people())
    assert run("train", "people.csv", "--target", target, *QUICK)[0] == 0
    status, out, error = run("predict", "people-model.npz", write("new.csv", content), "--output", "table.csv")
    assert (status, out) == (2, "")
    assert error.startswith(f"mfld: new.csv, {message}")
    assert not Path("table.csv").exists()


def test_a_column_that_is_missing_is_named(run):
    write("people.csv", people())
    assert run("train", "people.csv", *QUICK)[0] == 0
    write("new.csv", "colour,size\nred,1\n")
    status, _, error = run("predict", "people-model.npz", "new.csv")
    assert (status, error) == (2, "mfld: new.csv has no column 'age'; it has colour, size\n")


def test_info_says_what_a_model_is_and_how_it_was_made(run):
    write("people.csv", people())
    _, trained, _ = run("train", "people.csv", "--seed", "7", *QUICK)
    status, text, _ = run("info", "people-model.npz")
    assert status == 0
    lines = dict(line.split(": ", 1) for line in text.splitlines())
    assert lines["data"] == "people.csv: 40 rows, 8 of them held out"
    assert lines["columns"] == "age, colour (green, light blue, red)"
    assert lines["target"] == "height: numbers"
    assert lines["loss"] == "Loss('half_squared')"
    assert (lines["seed"], lines["l2"], lines["n_steps"], lines["n_particles"]) == ("7", "0.01", "20", "20")
    assert f"test loss {trained.splitlines()[-3].split()[2]}" in lines["scores"]
    _, text, _ = run("info", "people-model.npz", "--json")
    report = json.loads(text)
    assert report["hyperparameters"]["seed"] == 7
    assert report["encoding"]["features"][1]["categories"] == ["green", "light blue", "red"]


def test_columns_can_be_left_out(run):
    write("people.csv", "id," + people()[:-1].replace("\n", "\n?,") + "\n")  # missing values, which nobody wants to see
    assert experiments.load("people.csv", drop=["id"]).encoding.feature_names[0] == "age"
    data = experiments.load("people.csv", drop=["id", "height"])
    assert (data.encoding.target, data.encoding.feature_names) == ("colour", ["age"])
    assert run("train", "people.csv", "--drop", "id", *QUICK)[0] == 0
    write("new.csv", "id,colour,age\n,red,20\n,green,25\n")
    status, out, _ = run("predict", "people-model.npz", "new.csv")
    assert (status, len(out.splitlines())) == (0, 3)

    write("places.csv", "".join(f"{i},{-i},{i % 3},{i / 2}\n" for i in range(20)))
    assert run("train", "places.csv", "--drop", "2", *QUICK)[0] == 0
    trained = TrainedModel.load("places-model.npz")
    expected = trained.predict([[i, i % 3] for i in range(4)])
    for columns in ("{i},{a},{b}", "{i},{a},{b},7"):  # without and with the target
        write("new.csv", "".join(columns.format(i=i, a=100 - i, b=i % 3) + "\n" for i in range(4)))
        status, _, _ = run("predict", "places-model.npz", "new.csv", "--output", "table.csv")
        with open("table.csv", newline="") as file:
            assert [float(row["prediction"]) for row in csv.DictReader(file)] == list(expected)

    inputs = np.arange(20.0).reshape(10, 2) ** 2
    np.savez("data.npz", X=inputs, y=inputs[:, 1] / 7)
    np.testing.assert_array_equal(experiments.load("data.npz", drop=["1"]).inputs, inputs[:, 1:])
    with pytest.raises(ValueError, match=r"data\.npz has no column '4' to drop; it has 1, 2, y"):
        experiments.load("data.npz", drop=["4"])


def test_many_columns_are_no_matter():
    values = np.random.default_rng(0).normal(size=(6, 3000))
    np.savetxt("data.csv", values, delimiter=",", fmt="%.17g")
    np.testing.assert_array_equal(experiments.load("data.csv").inputs, values[:, :-1])


def test_five_rows_are_enough(run):
    write("data.csv", ROWS)
    status, out, _ = run("train", "data.csv", "--n-steps", "5", "--n-particles", "10", "--quiet", "--json")
    report = json.loads(out)
    assert status == 0
    assert report["rows"] == 5
    assert report["scores"]["test"]["R2"] is None  # of a single row
    assert len(report["validation"]) == 5
    assert report["hyperparameters"]["l2"] == min(report["validation"], key=lambda each: each["loss"])["l2"]


def test_a_feature_that_varies_on_held_out_rows_only_is_left_as_it_is():
    # 0.1 is no sum of few powers of 2: the mean of many is off by rounding, and so is the deviation from 0.
    rows = [(0.1, i / 50, i % 2) for i in range(50)]
    held_out = experiments.train(experiments.load(_csv_of(rows, 0)), 0, Recipe(n_steps=1, l2=0.1)).trained.test_rows[0]
    trained = experiments.train(experiments.load(_csv_of(rows, held_out)), 0, Recipe(n_steps=1, l2=0.1)).trained
    assert trained.scaling.scale[0] == 1

    def varied(row):
        data = experiments.load(_csv_of([row[::-1] for row in rows], row), target="3", task="regression")
        return experiments.train(data, 0, Recipe(n_steps=1, l2=0.1)).trained

    assert varied(varied(0).test_rows[0]).target_scale == 1


def _csv_of(rows, different):
    rows = [tuple(0.9 if (i, value) == (different, 0.1) else value for value in row) for i, row in enumerate(rows)]
    return write("data.csv", "".join(f"{a},{b},{c}\n" for a, b, c in rows))


def test_a_file_needs_neither_sklearn_nor_matplotlib_and_a_name_says_what_is_missing():
    write("people.csv", people())
    block = (
        "import sys\n"
        "for name in ('sklearn', 'matplotlib', 'tqdm', 'pandas', 'scipy'): sys.modules[name] = None\n"
        "from mfld import cli\n"
        f"status = cli.main(['train', 'people.csv', *{QUICK!r}])\n"
        "print('status', status)\n"
        "print('status', cli.main(['train', 'iris']))\n"
    )
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, check=True)
    assert [line for line in done.stdout.splitlines() if line.startswith("status")] == ["status 0", "status 2"]
    assert "no picture: a picture needs matplotlib: pip install 'mfld[plot]'" in done.stderr
    assert "mfld: the bundled data sets come with scikit-learn: pip install 'mfld[data]'" in done.stderr
    assert Path("people-model.npz").exists()
    assert "Traceback" not in done.stderr


def test_a_long_file_is_read_a_piece_at_a_time():
    values = np.random.default_rng(0).normal(size=(30_000, 10))
    np.savetxt("data.csv", values, delimiter=",", fmt="%.17g")
    tracemalloc.start()
    table = tables.read("data.csv")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(np.column_stack([column.values for column in table.columns]), values)
    # The columns and what they are put together from, and the texts of two chunks of 4096 rows: of 70 bytes and a
    # pointer in the rows and one in the columns each. All texts at once would take 26 MB.
    assert peak < 2 * values.nbytes + 2 * 4096 * 10 * (70 + 16) + 1e6


@pytest.mark.parametrize("start", [b"PAR1", b"ARROW1", b"\x28\xb5\x2f\xfd"], ids=["Parquet", "Arrow", "zstd"])
def test_what_needs_pyarrow_says_so(start, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    Path("data.csv").write_bytes(start + b" and more")
    with pytest.raises(ImportError, match=r"data.csv, .* needs pyarrow: pip install 'mfld\[train\]'"):
        experiments.load("data.csv")
    assert cli.main(["train", "data.csv"]) == 2
    assert "needs pyarrow" in capsys.readouterr().err
