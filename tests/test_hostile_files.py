"""Files of models, densities and generators that are damaged, or made to harm: refused by name, and run nothing."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import textwrap
import zipfile

import numpy as np
import pytest

from mfld import cli, experiments
from mfld.files import arrays

KINDS = {
    "train": (experiments.TrainedModel, ["--n-steps", "50", "--n-particles", "3", "--l2", "0.01"]),
    "density": (experiments.DensityModel, []),
    "gan": (experiments.GeneratorModel, ["--n-steps", "2", "--n-particles", "3"]),
}


@pytest.fixture(scope="module", params=KINDS)
def good(request, tmp_path_factory):
    """How a kind of file is read, and the bytes of one."""
    folder = tmp_path_factory.mktemp("good")
    before = os.getcwd()
    os.chdir(folder)
    try:
        (folder / "data.csv").write_text("a,y\n" + "".join(f"{i},{i + i % 3}\n" for i in range(40)))
        kind, options = KINDS[request.param]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert cli.main([request.param, "data.csv", *options]) == 0
        (path,) = folder.glob("*.npz")
    finally:
        os.chdir(before)
    kind.load(path)
    return kind.load, path.read_bytes()


def outcome(load, path, content):
    """What was read, or None where it was refused by the file's name."""
    path.write_bytes(content)
    try:
        return load(path)
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017  either outcome is right
        return None


def test_cut_at_every_percent(good, tmp_path):
    load, content = good
    for percent in range(100):
        assert outcome(load, tmp_path / "cut.npz", content[: len(content) * percent // 100]) is None


def test_bits_that_are_wrong(good, tmp_path):
    """Beyond what a zip archive does not look at, a wrong bit is seen; and whatever is read can be asked."""
    load, content = good
    chance = np.random.default_rng(0)
    read = 0
    for place in chance.integers(8 * len(content), size=100):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        read += outcome(load, tmp_path / "flipped.npz", damaged) is not None
    assert read < 40


def packed(content, change):
    """An archive with members changed, or None for those that go."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            member = change(name, old.read(name))
            if member is not None:
                new.writestr(name, member)
    return out.getvalue()


def saved(array, **options):
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


class Explosive:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


def test_members_that_are_wrong(good, tmp_path, monkeypatch):
    load, content = good
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
    huge = b"\x93NUMPY\x01\x00\x76\x00" + b"{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,), }"
    huge = huge.ljust(127) + b"\n"
    for wrong in names:
        for member in (
            None,
            b"",
            huge,
            saved(np.array(Explosive(), object), allow_pickle=True),
            saved(np.full((2, 2), np.nan)),
            saved(np.array("[" * 100_000)),
            saved(np.array('{"format": 5}')),
        ):
            made = packed(content, lambda name, old, wrong=wrong, member=member: member if name == wrong else old)
            if wrong in ("weights.npy", "classes.npy", "input_bend.npy") and member is None:
                continue  # which may be left out
            assert outcome(load, tmp_path / "wrong.npz", made) is None, (wrong, member)
    assert not (tmp_path / "exploded").exists()


def test_archives_that_unpack_to_more_are_not_unpacked(good, tmp_path):
    load, _ = good
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("particles.npy", saved(np.zeros(4_000_000)))
    assert path.stat().st_size < 100_000
    with pytest.raises(ValueError, match=f"{path}.*: it unpacks to 32000128 bytes, and has"):
        load(path)


def test_arrays_come_back():
    file = io.BytesIO()
    np.savez(file, a=np.arange(3), b=np.array("text"))
    found = arrays(file)
    assert found["a"].tolist() == [0, 1, 2]
    assert str(found["b"][()]) == "text"


# ---- a disk that is full and signals in the middle -------------------------------------------------------------------

SAVING = """
    import resource, signal, sys
    from mfld import cli, experiments
    model = experiments.TrainedModel.load(sys.argv[1])
    model.provenance["filler"] = "x" * 300_000
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    (folder / "data.csv").write_text("a,y\n" + "".join(f"{i},{i + i % 3}\n" for i in range(40)))
    path = folder / "model.npz"
    options = ["--n-steps", "50", "--n-particles", "3", "--l2", "0.01", "--output", str(path), "--quiet"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert cli.main(["train", str(folder / "data.csv"), *options]) == 0
    return path


def started(code, *arguments):
    source = textwrap.dedent(SAVING) + textwrap.dedent(code)
    return subprocess.Popen([sys.executable, "-c", source, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def test_a_full_disk_keeps_the_older_model(model):
    before = model.read_bytes()
    code = """
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            model.save(sys.argv[1])
        except OSError as error:
            print(error.strerror)
    """
    process = started(code, model)
    assert process.communicate(timeout=60)[0].strip() == "File too large"
    assert model.read_bytes() == before
    assert not list(model.parent.glob("*.part"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_signals_while_models_are_written(number, model, rng):
    """Whenever it comes, the name stands for a whole model."""
    for _ in range(2):
        process = started("print('ready', flush=True)\nwhile True: model.save(sys.argv[1])", model)
        process.stdout.readline()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0, 0.1))
        process.send_signal(number)
        process.communicate(timeout=60)
        experiments.TrainedModel.load(model)
        if number == signal.SIGINT:
            assert not list(model.parent.glob("*.part"))


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS")
def test_what_does_not_fit_is_refused_in_little_memory(tmp_path):
    """In a process that has no room for what the file promises."""
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("particles.npy", bytes(1 << 28))
    code = """
        try:
            experiments.TrainedModel.load(sys.argv[2])
        except ValueError as error:
            print("refused", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    good = tmp_path / "none"
    source = "import resource, sys\nfrom mfld import experiments\n"
    source += "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n" + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", source, good, path], capture_output=True, text=True, check=True, timeout=60
    )
    word, grown = done.stdout.split()
    assert word == "refused"
    assert int(grown) < 20_000  # KiB
