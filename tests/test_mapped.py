"""Data that stay on disk: read-only memory maps are neither copied nor changed, and train like arrays."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import mfld
from mfld import cli, experiments, validation


def stored(folder, n=2000, d=6, dtype="float32"):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(n, d)).astype(dtype)
    np.save(folder / "inputs.npy", inputs)
    np.save(folder / "targets.npy", np.sin(inputs[:, 0]))
    return [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("inputs", "targets")]


def make_risk(inputs, targets):
    return mfld.EmpiricalRisk(mfld.TwoLayerNetwork(inputs.shape[1]), inputs, targets, loss="half_squared", l2=1e-3)


@pytest.mark.parametrize("gradient", [mfld.FullBatch(), mfld.Minibatch(16), mfld.SVRG(16, 7)], ids=repr)
def test_rows_on_disk_train_like_rows_in_memory(tmp_path, gradient):
    inputs, targets = stored(tmp_path)
    risk = make_risk(inputs, targets)
    assert validation.mapped(risk.inputs) is not None
    assert risk.native(np.dtype("float32")).inputs.ctypes.data == inputs.ctypes.data  # the map itself
    solver = mfld.MFLD(50, step_size=0.1, temperature=1e-3, gradient=gradient)
    expected = solver.run(make_risk(np.array(inputs), np.array(targets)), 20)
    assert solver.run(risk, 20).particles.tobytes() == expected.particles.tobytes()


def test_a_map_that_can_be_written_to_is_copied(tmp_path):
    stored(tmp_path)
    inputs = np.load(tmp_path / "inputs.npy", mmap_mode="r+")
    risk = make_risk(inputs, np.load(tmp_path / "targets.npy"))
    assert validation.mapped(risk.inputs) is None
    before = risk.inputs.copy()
    inputs[:] = 0
    assert np.array_equal(risk.inputs, before)


def test_what_is_not_finite_is_found_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(validation, "_AT_ONCE", 100)
    inputs = np.zeros((60, 3), np.float32)
    inputs[41, 2] = np.nan
    np.save(tmp_path / "inputs.npy", inputs)
    with pytest.raises(ValueError, match=r"inputs must be finite, got nan at index \(41, 2\)"):
        make_risk(np.load(tmp_path / "inputs.npy", mmap_mode="r"), np.zeros(60, np.float32))


def test_another_precision_is_refused_by_name(tmp_path):
    inputs, targets = stored(tmp_path, dtype="float64")
    solver = mfld.MFLD(50, step_size=0.1, temperature=1e-3)
    with pytest.raises(
        ValueError, match="inputs must be float32 on disk for what is computed in this precision, got float64"
    ):
        solver.run(make_risk(inputs, targets), 1)


def table(n=1000):
    rng = np.random.default_rng(3)
    return {"a": rng.normal(size=n), "count": rng.integers(0, 9, n), "b": np.where(np.arange(n) < 900, 1.0, 0.5)}


def written(path, columns):
    arrow, csv, parquet, feather = (
        pytest.importorskip(f"pyarrow{name}") for name in ("", ".csv", ".parquet", ".feather")
    )
    write = {".csv": csv.write_csv, ".parquet": parquet.write_table, ".arrow": feather.write_feather}[path.suffix]
    write(arrow.table(columns), str(path))
    return path


@pytest.mark.parametrize("ending", ["csv", "parquet", "arrow"])
def test_tables_become_arrays(tmp_path, ending):
    columns = table()
    stored = experiments.convert(written(tmp_path / f"table.{ending}", columns), tmp_path / "rows", target="count")
    inputs, targets = stored.arrays()
    assert (stored.n_rows, stored.inputs, stored.target) == (1000, ["a", "b"], "count")
    assert inputs.dtype == np.float32
    np.testing.assert_array_equal(inputs, np.column_stack([columns["a"], columns["b"]]).astype(np.float32))
    np.testing.assert_array_equal(targets, columns["count"])
    assert validation.mapped(make_risk(inputs, targets).inputs) is not None


def test_the_command_converts(tmp_path, capsys):
    path = written(tmp_path / "table.csv", table(50))
    assert cli.main(["convert", str(path), str(tmp_path / "rows"), "--dtype", "float64"]) == 0
    assert "50 rows, 2 inputs, target b" in capsys.readouterr().out
    assert np.load(tmp_path / "rows" / "inputs.npy").dtype == np.float64
    assert cli.main(["convert", str(path), str(tmp_path / "rows"), "--target", "c"]) == 2
    assert "target must be one of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": ["x", "y", "z"]}, "must hold numbers"),
        ({"a": [1.0, None, 2.0]}, "must have no missing values, got one in row 1, column 'a'"),
        ({"a": [1.0, 2.0, 1e39]}, "must hold finite numbers of float32, got 1e\\+39 in row 2, column 'a'"),
    ],
    ids=["text", "missing", "too large"],
)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_what_is_no_number_is_refused_by_its_place(tmp_path, change, message, ending):
    path = written(tmp_path / f"table.{ending}", {"a": [0.0, 1.0, 2.0], "b": [1.0, 2.0, 3.0], **change})
    with pytest.raises(ValueError, match=message):
        experiments.convert(path, tmp_path / "rows")
    assert not list((tmp_path / "rows").iterdir())  # nothing is left of it


def test_a_folder_trains_like_its_table(tmp_path):
    path, folder = written(tmp_path / "table.csv", table()), tmp_path / "rows"
    experiments.convert(path, folder, target="count", dtype="float64")
    options = ["--target", "count", "--n-steps", "20", "--quiet"]
    for source, name in ((path, "a.npz"), (folder, "b.npz")):
        assert cli.main(["train", str(source), *options, "--output", str(tmp_path / name)]) == 0
    first, second = (np.load(tmp_path / name)["particles"] for name in ("a.npz", "b.npz"))
    assert first.tobytes() == second.tobytes()


def test_a_folder_that_memory_does_not_hold_is_refused_before_it_is_read(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("mfld.files.physical_memory", lambda: 8 * 2.0**30)
    n, d = 50_000_000, 100  # sparse files: 20 GB
    for name, shape in (("inputs", (n, d)), ("targets", (n,))):
        np.lib.format.open_memmap(tmp_path / f"{name}.npy", "w+", np.float32, shape)
    names = [f"x{i}" for i in range(d)]
    (tmp_path / "columns.json").write_text(json.dumps({"inputs": names, "target": "y", "rows": n}))
    assert cli.main(["train", str(tmp_path), "--output", str(tmp_path / "model.npz")]) == 2
    message = capsys.readouterr().err
    assert f"{tmp_path} has {n} rows of {d + 1} columns, which as a table take some 94.1 GiB of memory" in message
    assert "MFLD on an EmpiricalRisk of numpy.load" in message


@pytest.mark.parametrize("damage", ["columns.json", "targets.npy", "rows"])
def test_a_folder_of_something_else_is_refused(tmp_path, damage, capsys):
    folder = tmp_path / "rows"
    experiments.convert(written(tmp_path / "table.csv", table(80)), folder)
    if damage == "rows":
        np.save(folder / "targets.npy", np.zeros(79, np.float32))
    else:
        (folder / damage).unlink()
    assert cli.main(["train", str(folder), "--output", str(tmp_path / "model.npz")]) == 2
    assert str(folder) in capsys.readouterr().err
    assert not (tmp_path / "model.npz").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have names in its first line, got an empty one"),
        ("a,b\n", "must have at least one row, got none"),
        ("1,2\n3,4\n", r"must have names in its first line, got the numbers \['1', '2'\]"),
        ("a,a,b\n1,2,3\n", "must have each column once, got 'a' twice"),
        ("a;b\n1;2\n", r"must have a column beside the target, between commas, got \['a;b'\]"),
        ("größe,b\n1,2\n", "must be text in UTF-8"),
    ],
    ids=["nothing", "names alone", "no names", "a name twice", "semicolons", "another encoding"],
)
def test_odd_tables_are_refused_by_name(tmp_path, text, message):
    pytest.importorskip("pyarrow")
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"table\.csv " + message):
        experiments.convert(path, tmp_path / "rows")


def test_names_have_no_blanks_around_them(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("height, weight ,price\n1, 2 ,3\n4,5,7\n")
    pytest.importorskip("pyarrow")
    stored = experiments.convert(path, tmp_path / "rows", target="weight")
    names = [column.name for column in experiments.tables.read(path).columns]
    assert ([*stored.inputs, stored.target], names) == (["height", "price", "weight"], ["height", "weight", "price"])
    assert stored.arrays()[1].tolist() == [2, 5]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([1.0, 123456789.0, 5.0], r"got 123456789 in row 1, column 'a', which it makes 123456792"),
        ([1.7e9 + 0.5, 1.7e9 - 3, 1.7e9 + 2], r"got column 'a' near 1\.7e\+09, where its steps are of 203, with a dev"),
    ],
    ids=["whole", "offset"],
)
def test_what_single_precision_does_not_tell_apart_is_refused(tmp_path, ending, column, message, capsys):
    path = written(tmp_path / f"table.{ending}", {"a": column, "b": [1.0, 2.0, 3.0]})
    with pytest.raises(ValueError, match=f"must hold numbers that float32 tells apart, {message}.*--dtype float64"):
        experiments.convert(path, tmp_path / "rows")
    assert not list((tmp_path / "rows").iterdir())
    assert cli.main(["convert", str(path), str(tmp_path / "rows")]) == 2
    stored = experiments.convert(path, tmp_path / "rows", dtype="float64")
    assert stored.arrays()[0][:, 0].tolist() == column


def test_what_single_precision_rounds_as_it_rounds_all_is_taken(tmp_path, monkeypatch):
    columns = {"a": [0.1, 16777217.5, 2.0], "b": [6.02e23, 1e-9, 0.5], "c": [16777216.0, 3.0, 2.0], "d": [0.1] * 3}
    stored = experiments.convert(written(tmp_path / "table.parquet", columns), tmp_path / "rows")
    np.testing.assert_array_equal(stored.arrays()[0].T, np.array([columns[name] for name in "abc"], np.float32))


def test_sweeps_of_rows_on_disk_are_those_of_rows_in_memory(tmp_path):
    inputs, targets = stored(tmp_path, n=500)
    model = mfld.TwoLayerNetwork(6, readout="bounded", readout_bound=1.0)
    options = {"loss": "half_squared", "l2": 1e-3}
    solver = mfld.PSDCA(70, temperature=0.05)
    ours = solver.run(mfld.EmpiricalRisk(model, inputs, targets, **options), 2)
    expected = solver.run(mfld.EmpiricalRisk(model, np.array(inputs), np.array(targets), **options), 2)
    assert ours.particles.tobytes() == expected.particles.tobytes()
    assert ours.state.buffers["dual"].tobytes() == expected.state.buffers["dual"].tobytes()


SWEEP = """
    import sys
    import numpy as np
    import mfld
    def own():
        with open("/proc/self/status") as lines:
            return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024
    inputs, targets = (np.load(f"{sys.argv[1]}/{name}.npy", mmap_mode="r") for name in ("inputs", "targets"))
    before = own()
    model = mfld.TwoLayerNetwork(inputs.shape[1], readout="bounded", readout_bound=1.0)
    risk = mfld.EmpiricalRisk(model, inputs, targets, loss="half_squared", l2=1e-3)
    result = mfld.PSDCA(16, temperature=0.1, num_threads=1).run(risk, 1)
    print(before, own(), np.ptp(result.particles) > 0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_sweeps_map_their_rows_and_copy_none(tmp_path):
    n, d = 250_000, 200  # 200 MB
    np.lib.format.open_memmap(tmp_path / "inputs.npy", "w+", np.float32, (n, d))[::1000] = 1
    np.save(tmp_path / "targets.npy", np.zeros(n, np.float32))
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SWEEP))
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, check=True)
    before, after, moved = done.stdout.split()
    assert moved == "True"
    assert float(after) - float(before) < 60  # some numbers for each row; what is mapped the system may take back


def test_averages_of_rows_on_disk_need_double_precision(tmp_path):
    inputs, targets = stored(tmp_path)
    solver = mfld.PDA(50, step_size=0.1, temperature=1e-2)
    with pytest.raises(ValueError, match="inputs must be float64 on disk for what is computed in this precision, got"):
        solver.run(make_risk(inputs, targets), 1)


MEASURE = """
    import resource, sys
    import numpy as np
    import mfld
    def peak():
        with open("/proc/self/status") as lines:
            return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    inputs, targets = (np.load(f"{sys.argv[1]}/{name}.npy", mmap_mode="r") for name in ("inputs", "targets"))
    before = peak()
    risk = mfld.EmpiricalRisk(mfld.TwoLayerNetwork(inputs.shape[1]), inputs, targets, loss="half_squared", l2=1e-3)
    gradient = {"batch": mfld.Minibatch(64), "full": mfld.FullBatch(), "refreshed": mfld.SVRG(64, 2)}[sys.argv[3]]
    solver = mfld.MFLD(int(sys.argv[4]), step_size=0.1, temperature=1e-4, gradient=gradient, num_threads=1)
    result = solver.run(risk, int(sys.argv[2]), record_every=100)
    if sys.argv[3] == "full":
        risk.loss(result.measure)
    print(before, peak(), np.ptp(result.particles) > 0)
"""


def memory(folder, n_steps, gradient="batch", n_particles=100):
    """Peak in MiB before the risk is made, and after the run."""
    script = folder / "script.py"
    script.write_text(textwrap.dedent(MEASURE))
    command = [sys.executable, script, folder, str(n_steps), gradient, str(n_particles)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, after, moved = done.stdout.split()
    assert moved == "True"
    return float(before), float(after)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_file(tmp_path):
    n, d = 500_000, 100  # 200 MB
    np.lib.format.open_memmap(tmp_path / "inputs.npy", "w+", np.float32, (n, d))[::1000] = 1
    np.save(tmp_path / "targets.npy", np.zeros(n, np.float32))
    before, after = memory(tmp_path, 20)
    # The check reads 16 MiB, with a byte for each number; steps map up to 1 MiB around a row, and keep 256 MiB at most.
    assert after - before < 130


@pytest.mark.parametrize("gradient", ["full", "refreshed"])
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_full_batches_give_back_what_they_read(tmp_path, gradient):
    n, d = 250_000, 200  # 200 MB
    np.lib.format.open_memmap(tmp_path / "inputs.npy", "w+", np.float32, (n, d))[::1000] = 1
    np.save(tmp_path / "targets.npy", np.zeros(n, np.float32))
    before, after = memory(tmp_path, 3, gradient, n_particles=16)
    # 16 MiB of rows, and a few numbers for each of all rows; 64 rows of a mini-batch, each with 1 MiB around it.
    assert after - before < (110 if gradient == "refreshed" else 60)


def test_predictions_are_made_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("mfld.objectives.risk._AT_ONCE", 24 * 7)  # seven rows
    inputs, targets = stored(tmp_path, n=333)
    risk, rows = make_risk(inputs, targets), make_risk(np.array(inputs), np.array(targets))
    particles = rows.initial_particles(70)
    assert risk.loss(particles) == rows.loss(particles)
    assert risk.derivative(particles)[0].tobytes() == rows.derivative(particles)[0].tobytes()


def test_steps_are_cut_where_memory_is_released(tmp_path, monkeypatch):
    monkeypatch.setattr("mfld.objectives.risk._RESIDENT", 16 * 3 * ((1 << 20) + 24))
    inputs, targets = stored(tmp_path)
    risk, rows = make_risk(inputs, targets), make_risk(np.array(inputs), np.array(targets))
    assert risk.steps_at_once(16) == 3
    size = mfld.schedules.Power(0.1, 0.5)
    for dynamics in (mfld.Overdamped(), mfld.Underdamped(friction=1.0), mfld.dynamics.Preconditioned()):
        solver = mfld.MFLD(50, step_size=size, temperature=1e-3, gradient=mfld.SVRG(16, 7), dynamics=dynamics)
        ours, expected = solver.run(risk, 20), solver.run(rows, 20)
        assert ours.particles.tobytes() == expected.particles.tobytes()
        assert ours.history["loss"].tobytes() == expected.history["loss"].tobytes()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_twenty_gigabytes_train_within_one(tmp_path):
    n, d = 50_000_000, 100
    rows = np.lib.format.open_memmap(tmp_path / "inputs.npy", "w+", np.float32, (n, d))  # sparse: holes are zeros
    rows[:: n // 1000] = np.random.default_rng(0).normal(size=(1000, d))
    del rows
    np.lib.format.open_memmap(tmp_path / "targets.npy", "w+", np.float32, (n,))
    before, after = memory(tmp_path, 1000)
    print(f"{before:.0f} MiB before, {after:.0f} MiB at most")
    assert after < 1024
