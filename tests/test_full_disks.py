"""Disks that are full and folders that may not be written to: the older files stay, and the error has a name.

A limit of the size of files stands for the full disk, whose first writes succeed as well. Checkpoints, which a run
outlives, are in test_checkpoint.py, and models that are half written in test_hostile_files.py.
"""

import contextlib
import os
import resource
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import mfld
from mfld import checkpoint, cli, sweeps

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_FSIZE, /dev/full"),
    pytest.mark.filterwarnings("ignore::mfld.privacy.PrivacyWarning"),
]

TINY = ["--n-steps", "5", "--n-particles", "4", "--seed", "1"]
TRAIN = ["train", "data.csv", *TINY, "--l2", "0.1", "--output", "model.npz"]
SYNTH = [
    "synth",
    "data.csv",
    "--epsilon",
    "20",
    "--budget",
    "inf",
    "--rows",
    "30",
    "--bounds",
    "a=0:4",
    "--bounds",
    "y=0:4",
]
SYNTH += ["--bounds", "a=0:4", "--bounds", "y=0:4"]
SYNTH += ["--ledger", "ledger.json", "--register", "register.json", "--output", "synth.csv"]
RUN = ["run", "double_well", "--small", "--processes", "0", "--output", "wells.png"]
# With bytes that files have room for, and the first of the command's that has not.
COMMANDS = {
    "train": (TRAIN, 50, "model.npz"),
    "train's picture": (TRAIN, 9000, "model.png"),
    "train's page": ([*TRAIN, "--report", "page.html"], 100_000, "page.html"),
    "predict": (["predict", "model.npz", "data.csv", "--output", "predictions.csv"], 50, "predictions.csv"),
    "convert": (["convert", "data.csv", "folder"], 200, "folder/inputs.npy"),
    "density": (["density", "data.csv", "--n-particles", "9", "--output", "density.npz"], 50, "density.npz"),
    "gan": (["gan", "data.csv", *TINY, "--output", "gan.npz"], 50, "gan.npz"),
    "generate": (["generate", "data.csv", *TINY, "--n", "30", "--rows", "new.csv"], 50, "new.csv"),
    "synth": (SYNTH, 50, "register.json"),
    "deconvolve": (["deconvolve", "signal.csv", "--kernel", "gaussian:3", "--output", "spikes.csv"], 50, "spikes.csv"),
    "run": (RUN, 2000, "wells.png"),
}


@contextlib.contextmanager
def full(size=50):
    """A disk on which files have no room for more than some bytes."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


@contextlib.contextmanager
def nobody():
    """Whoever may write nowhere; root becomes such a user."""
    if os.getuid() == 0:
        os.setresgid(65534, 65534, 0)
        os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        if os.getresuid()[2] == 0:
            os.setresuid(0, 0, 0)
            os.setresgid(0, 0, 0)


@pytest.fixture(scope="module")
def written():
    """A folder with all that the commands write; others may look into it."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    before = os.getcwd()
    os.chdir(folder)
    Path("data.csv").write_text("a,y\n" + "".join(f"{i * i % 17 / 4},{i % 5}\n" for i in range(40)), "utf-8")
    Path("signal.csv").write_text("y\n" + "".join(f"{np.exp(-((i - 20) ** 2) / 18)}\n" for i in range(60)), "utf-8")
    for arguments, *_ in COMMANDS.values():
        assert cli.main(arguments) == 0, arguments
    yield folder
    os.chdir(before)
    shutil.rmtree(folder)


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_on_a_full_disk(name, written, capsys):
    arguments, size, wanted = COMMANDS[name]
    before = files_of(written)
    with full(size):
        assert cli.main(arguments) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"mfld: {wanted}: File too large"
    assert files_of(written) == before


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_in_a_folder_of_another_user(name, written, capsys):
    arguments, *_ = COMMANDS[name]
    before = files_of(written)
    with nobody():
        assert cli.main(arguments) == 2
    assert "ermission" in capsys.readouterr().err.splitlines()[-1]
    assert files_of(written) == before


def test_devices_are_written_to(written, capsys):
    for arguments, *_ in (COMMANDS["predict"], COMMANDS["deconvolve"]):
        assert cli.main([*arguments[:-1], "/dev/null"]) == 0
        capsys.readouterr()
        assert cli.main([*arguments[:-1], "/dev/full"]) == 2
        assert capsys.readouterr().err.splitlines()[-1] == "mfld: /dev/full: No space left on device"
    for device in ("/dev/null", "/dev/full"):
        assert Path(device).is_char_device()
        assert not list(Path("/dev").glob("*.part"))


def square(x):
    return {"square": x * x, "filler": "x" * 500}


def test_a_sweep_keeps_whole_lines_and_goes_on(tmp_path):
    path = tmp_path / "runs.jsonl"
    with full(2000), pytest.raises(OSError, match=f"File too large: '{path}'"):
        sweeps.sweep(square, {"x": list(range(6))}, path=path, executor=0)
    lines = path.read_bytes().splitlines(keepends=True)
    assert 1 <= len(lines) < 6
    assert all(line.endswith(b"}\n") for line in lines)
    swept = sweeps.sweep(square, {"x": list(range(6))}, path=path, executor=0)
    assert swept.column("square").tolist() == [0, 1, 4, 9, 16, 25]
    assert swept.n_new == 6 - len(lines)


def test_a_checkpoint_that_is_saved(tmp_path):
    risk = mfld.EmpiricalRisk(mfld.TwoLayerNetwork(2), np.eye(2), [0.0, 1.0], loss="squared")
    state, path = mfld.MFLD(50, step_size=0.1, temperature=0.1).init(risk), tmp_path / "a.npz"
    checkpoint.save(state, path)
    before = path.read_bytes()
    with full(), pytest.raises(OSError, match=f"File too large: '{path}'"):
        checkpoint.save(state, path)
    assert files_of(tmp_path) == {Path("a.npz"): before}
