"""``mfld deconvolve``: files in, spikes, pictures and errors out."""

import json

import numpy as np
import pytest

from mfld import cli

X = np.linspace(0, 20, 201)


def bump(x, width):
    return np.exp(-(x**2) / (2 * width**2))


SIGNAL = 2 * bump(X - 4.03, 0.5) - bump(X - 6.5, 0.5) + 1.5 * bump(X - 7.6, 0.5)
SPIKES = {4.03: 2.0, 7.6: 1.5, 6.5: -1.0}


def run(capsys, *arguments):
    status = cli.main(["deconvolve", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def files(tmp_path):
    order = np.random.default_rng(0).permutation(len(X))
    pairs = np.stack([X, SIGNAL], axis=1)[order]
    np.savetxt(tmp_path / "pairs.csv", pairs, delimiter=";", header="position;signal", comments="")
    np.savetxt(tmp_path / "values.csv", SIGNAL)
    np.savetxt(tmp_path / "kernel.csv", bump(np.arange(-25, 26) * 0.1, 0.5))
    circle = np.arange(32) * 2 * np.pi / 32
    wave = sum(np.cos(k * (circle - 2)) for k in range(-5, 6)) / 11
    np.savetxt(tmp_path / "circle.csv", np.stack([circle, 3 * wave], axis=1), delimiter=",")
    rows, columns = np.mgrid[:20.0, :25.0]
    image = 2 * bump(np.hypot(rows - 8.3, columns - 11.2), 2) - bump(np.hypot(rows - 15, columns - 5), 2)
    np.savetxt(tmp_path / "image.csv", image, delimiter=",")
    (tmp_path / "words.csv").write_text("a,b\nx,1\ny,2\n")
    np.savetxt(tmp_path / "even.csv", np.ones(6))
    (tmp_path / "gap.csv").write_text("1\nNA\n2\n")
    (tmp_path / "twice.csv").write_text("1,1\n2,2\n2,3\n")
    return tmp_path


@pytest.mark.parametrize(
    ("data", "kernel", "positions_by"),
    [("pairs.csv", "gaussian:0.5", 1), ("values.csv", "gaussian:5", 10), ("pairs.csv", "kernel.csv", 1)],
)
def test_spikes_of_a_signal(files, capsys, data, kernel, positions_by):
    kernel = files / kernel if kernel.endswith("csv") else kernel
    output, picture = files / "spikes.csv", files / "spikes.png"
    status, out, err = run(capsys, files / data, "--kernel", kernel, "--output", output, "--picture", picture)
    assert (status, err) == (0, "")
    assert "spikes: 3" in out
    table = np.genfromtxt(output, delimiter=",", names=True)
    tolerance = 3e-3 if "kernel" in str(kernel) else 1e-6
    np.testing.assert_allclose(table["position"] / positions_by, list(SPIKES), atol=tolerance)
    np.testing.assert_allclose(table["amplitude"], list(SPIKES.values()), atol=10 * tolerance)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_json_on_a_circle_and_in_two_dimensions(files, capsys):
    status, out, _ = run(capsys, files / "circle.csv", "--kernel", "dirichlet:5", "--strength", 0.01, "--json")
    found = json.loads(out)
    assert status == 0
    assert found["strength"] == 0.01
    assert found["spikes"] == [
        pytest.approx({"position": 2.0, "amplitude": 3.0, "position_error": 0.0, "amplitude_error": 0.0}, abs=1e-6)
    ]
    status, out, _ = run(capsys, files / "image.csv", "--kernel", "gaussian:2", "--json", "--penalty", "squared_tv",
                         "--strength", 1e-3, "--picture", files / "image.svg")  # fmt: skip
    first, second = json.loads(out)["spikes"]
    assert (first["position_1"], first["position_2"], first["amplitude"]) == pytest.approx((8.3, 11.2, 2), abs=1e-5)
    assert (second["position_1"], second["position_2"], second["amplitude"]) == pytest.approx((15, 5, -1), abs=1e-5)
    assert (files / "image.svg").exists()


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ("values.csv", ["--kernel", "gaussian:wide"], "--kernel must be gaussian:WIDTH or dirichlet:F"),
        ("values.csv", ["--kernel", "gaussian:-1"], "--kernel must be gaussian:WIDTH or dirichlet:F"),
        ("values.csv", ["--kernel", "dirichlet:2:3:4"], "--kernel must be gaussian:WIDTH or dirichlet:F"),
        ("values.csv", ["--kernel", "none.csv"], "none.csv: No such file"),
        ("values.csv", ["--kernel", "gaussian:1e300"], "'gaussian:1e300': width must be between 1e-100 and 1e+100"),
        (
            "values.csv",
            ["--kernel", "dirichlet:1000000000"],
            "frequencies must be between 1 and 100000, got 1000000000",
        ),
        ("values.csv", ["--kernel", "gaussian"], "or a file, got 'gaussian'"),
        ("values.csv", ["--kernel", "box:3"], "or a file, got 'box:3'"),
        ("values.csv", ["--kernel", ""], "or a file, got ''"),
        ("values.csv", ["--kernel", "even.csv"], "--kernel even.csv: values must have shape (2 m + 1,)"),
        ("gap.csv", ["--kernel", "gaussian:1"], "must be a number, there is none"),
        ("words.csv", ["--kernel", "gaussian:1"], "column 'a' must hold numbers, it holds texts"),
        ("twice.csv", ["--kernel", "gaussian:1"], "each position must occur once, 2 occurs again"),
        ("circle.csv", ["--kernel", "kernel.csv"], "--kernel must not be longer than the signal, 32, got 51 samples"),
        ("circle.csv", ["--kernel", "dirichlet:3:1"], "the period"),
        ("values.csv", ["--kernel", "gaussian:5", "--penalty", "squared_tv"], "strength must be given with penalty"),
        ("values.csv", ["--kernel", "gaussian:5", "--picture", "spikes.txt"], "must end in one of"),
        ("values.csv", ["--kernel", "gaussian:5", "--output", "values.csv"], "it will not be overwritten"),
    ],
)
def test_what_cannot_be_is_one_line(files, capsys, monkeypatch, data, options, message):
    monkeypatch.chdir(files)
    status, out, err = run(capsys, data, *options)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
