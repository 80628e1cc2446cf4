"""Particles in a file that move a piece at a time: the bytes of a run in memory, a whole file at every moment."""

import itertools
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

import mfld
from mfld import _core, noise
from mfld.pieces import InPieces


def make_risk(n=30, d=1, outputs=1, l2=1e-3, **network):
    rng = np.random.default_rng(0)
    model = mfld.TwoLayerNetwork(d, n_outputs=outputs, **network)
    return mfld.EmpiricalRisk(model, rng.normal(size=(n, d)), rng.normal(size=(n, outputs)), loss="half_squared", l2=l2)


def make_solver(n_particles=3000, **settings):
    return mfld.MFLD(n_particles, **{"num_threads": 1, "step_size": 0.1, "temperature": 1e-3, **settings})


def in_turns(shares):
    return all(end == begin for (_, end), (begin, _) in itertools.pairwise(shares))


@pytest.mark.parametrize(
    ("n_particles", "rows", "pieces", "settings", "network"),
    [
        (5000, 20, 64, {}, {}),
        (5000, 300, 7, {}, {"readout": "signs"}),  # several blocks of rows
        (40, 30, 64, {}, {"readout": "fixed"}),  # fewer leaves than pieces
        (1, 10, 3, {}, {}),
        (3001, 20, 1, {}, {}),
        (20_011, 300, 5, {"gradient": mfld.Minibatch(16)}, {"d": 3}),
        (20_011, 900, 64, {"dtype": "float64", "dynamics": mfld.Overdamped("exact")}, {"d": 3, "outputs": 2}),
        (
            3000,
            30,
            9,
            {},
            {"d": 2, "domain": [mfld.Torus(2), mfld.Box(0.0, 1.0)], "readout": "fixed", "l2": 0.0},
        ),
    ],
    ids=["pieces", "blocks", "leaves", "one", "whole", "batch", "double", "domain"],
)
def test_the_bytes_are_those_of_a_run_in_memory(tmp_path, n_particles, rows, pieces, settings, network):
    risk = make_risk(rows, **network)
    solver = make_solver(n_particles, **settings)
    expected = solver.run(risk, 7, seed=3, record_every=3)
    ours = InPieces(solver, tmp_path / "cloud.npy", pieces).run(risk, 7, seed=3, record_every=3)
    assert np.ptp(expected.particles) > 0 or n_particles == 1
    assert ours.particles.tobytes() == expected.particles.tobytes()
    assert np.load(tmp_path / "cloud.npy").tobytes() == expected.particles.tobytes()
    for name, values in expected.history.items():
        np.testing.assert_array_equal(ours.history[name], values)
    assert [path.name for path in tmp_path.iterdir()] == ["cloud.npy"]


@pytest.mark.parametrize("num_threads", [1, 3])
def test_schedules_and_continued_runs(tmp_path, num_threads):
    settings = {"step_size": mfld.schedules.Power(0.2, 0.5), "temperature": lambda k: 0.01 / (1 + k)}
    solver = make_solver(num_threads=num_threads, **settings)
    apart, risk = InPieces(solver, tmp_path / "cloud.npy", 5), make_risk()
    half = apart.run(risk, 4, seed=1)
    ours = apart.run(risk, 5, state=half.state)
    assert ours.particles.tobytes() == solver.run(risk, 9, seed=1).particles.tobytes()


def test_states_keep_their_particles(tmp_path):
    apart, risk = InPieces(make_solver(), tmp_path / "cloud.npy"), make_risk()
    first = apart.init(risk, seed=2)
    before = np.array(first.particles)
    second, _ = apart.advance(risk, first, 2)
    assert np.array_equal(first.particles, before)
    assert not np.array_equal(second.particles, before)
    again, _ = apart.advance(risk, first, 2)  # a state may be gone on from twice
    assert again.particles.tobytes() == second.particles.tobytes()


def test_given_particles_stay_where_they_are(tmp_path):
    risk, solver = make_risk(), make_solver()
    start = solver.init(risk, seed=5).particles
    np.save(tmp_path / "start.npy", start)
    mapped = np.load(tmp_path / "start.npy", mmap_mode="r")
    apart = InPieces(solver, tmp_path / "cloud.npy", 3)
    state = apart.init(risk, seed=1, particles=mapped)
    assert state.particles.ctypes.data == mapped.ctypes.data
    expected = solver.run(risk, 3, seed=1, particles=start).particles
    assert apart.run(risk, 3, state=state).particles.tobytes() == expected.tobytes()
    assert apart.run(risk, 3, seed=1, particles=start).particles.tobytes() == expected.tobytes()  # in memory too
    assert np.array_equal(np.load(tmp_path / "start.npy"), start)


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (make_solver(gradient=mfld.SVRG(5, 3)), "solver must be MFLD to go in pieces, with a step_size"),
        (make_solver(gradient=mfld.Smoothed(0.1)), "solver must be MFLD to go in pieces, with a step_size"),
        (make_solver(dynamics=mfld.Underdamped(friction=1.0)), "solver must be MFLD to go in pieces, with a step_size"),
        (make_solver(step_size=None), "solver must be MFLD to go in pieces, with a step_size"),
        (make_solver(step_size="fuse"), "solver must be MFLD to go in pieces, with a step_size"),
        (make_solver(n_replicates=2), "solver must be MFLD of one replicate"),
        (mfld.PSDCA(50, temperature=0.1), "solver must be MFLD"),
        (mfld.PDA(50, step_size=0.1, temperature=0.1), "solver must be MFLD"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_keeps_more_than_particles_is_refused(tmp_path, solver, message):
    path = tmp_path / "cloud.npy"
    path.write_bytes(b"of an earlier run")
    with pytest.raises((TypeError, ValueError), match=message):
        InPieces(solver, path).run(make_risk(readout="bounded", readout_bound=1.0), 2)
    assert path.read_bytes() == b"of an earlier run"


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # a run would wait for a reader for ever
    for path in (tmp_path / "pipe", os.devnull):
        with pytest.raises(ValueError, match="path must be that of a file"):
            InPieces(make_solver(), path)


def test_other_objectives_are_refused(tmp_path):
    well = mfld.Potential(lambda x: x, n_coordinates=1)
    with pytest.raises(TypeError, match="objective must be an EmpiricalRisk of a TwoLayerNetwork"):
        InPieces(make_solver(), tmp_path / "cloud.npy").run(well, 2)


def test_a_divergence_leaves_the_last_whole_step(tmp_path):
    risk, solver = make_risk(), make_solver(step_size=1e12, temperature=0.0)
    with pytest.raises(mfld.DivergenceError) as expected:
        solver.run(risk, 50)
    with pytest.raises(mfld.DivergenceError) as ours:
        InPieces(solver, tmp_path / "cloud.npy", 9).run(risk, 50)
    assert str(ours.value) == str(expected.value)
    assert ours.value.state.step == expected.value.state.step > 0
    for particles in (ours.value.state.particles, np.load(tmp_path / "cloud.npy")):
        assert particles.tobytes() == expected.value.state.particles.tobytes()


def test_ctrl_c_leaves_a_whole_step(tmp_path):
    risk, solver = make_risk(200), make_solver(300_000)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1.0)
        with pytest.raises(KeyboardInterrupt) as stopped:
            InPieces(solver, tmp_path / "cloud.npy").run(risk, 100_000, record_every=[])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    state = stopped.value.state
    assert state.step > 0
    assert state.particles.tobytes() == solver.run(risk, state.step).particles.tobytes()
    assert [path.name for path in tmp_path.iterdir()] == ["cloud.npy"]


def test_a_full_disk_leaves_the_last_whole_step(tmp_path, monkeypatch):
    apart, risk = InPieces(make_solver(), tmp_path / "cloud.npy", 4), make_risk()
    state = apart.init(risk)
    real, calls = mfld.pieces.replacing, []

    def full_at_third(path):
        calls.append(path)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return real(path)

    monkeypatch.setattr(mfld.pieces, "replacing", full_at_third)
    with pytest.raises(OSError, match="No space left") as error:
        apart.advance(risk, state, 5)
    assert error.value.state.step == 2
    assert error.value.state.particles.tobytes() == make_solver().run(risk, 2).particles.tobytes()


ENDLESS = """
    import sys
    import numpy as np
    import mfld
    inputs = np.linspace(-2, 2, 32)[:, np.newaxis]
    risk = mfld.EmpiricalRisk(mfld.TwoLayerNetwork(1), inputs, np.sin(inputs[:, 0]), loss="half_squared", l2=1e-4)
    solver = mfld.MFLD(300_000, step_size=0.1, temperature=1e-5, num_threads=1)
    apart = mfld.pieces.InPieces(solver, sys.argv[1])
    apart.run(risk, 100_000, record_every=[])
"""


def test_kill_9_leaves_a_whole_step(tmp_path):
    path, script = tmp_path / "cloud.npy", tmp_path / "script.py"
    script.write_text(textwrap.dedent(ENDLESS))
    process = subprocess.Popen([sys.executable, script, path])
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("cloud.npy.*.part")) or not path.exists():  # until a step is being written
        assert time.monotonic() < deadline
    process.kill()
    process.wait()
    cloud = np.load(path)
    assert cloud.shape == (300_000, 3)
    assert np.isfinite(cloud).all()
    InPieces(make_solver(), path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "cloud.npy",
        "script.py",
    ]  # what was half written is gone


def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    with pytest.raises(FileNotFoundError, match="cannot be written: there is no folder"):
        InPieces(make_solver(), tmp_path / "none" / "cloud.npy")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n_coordinates", [1, 2, 7])
def test_noise_may_begin_at_any_particle(dtype, n_coordinates):
    place = noise.Place.of(seed=4, step=9)
    for draw in ("normals", "uniforms"):
        whole = getattr(place, draw)(1000, n_coordinates, dtype)
        for first, n in ((0, 7), (32, 64), (77, 500), (999, 1)):
            part = getattr(place._replace(first=first), draw)(n, n_coordinates, dtype)
            assert part.tobytes() == whole[first : first + n].tobytes()
    with pytest.raises(ValueError, match=r"n_particles must be at most 2\*\*32"):
        place._replace(first=2**32).normals(1, 1)


@pytest.mark.parametrize("n_particles", [1, 31, 1000, 100_003])
@pytest.mark.parametrize("count", [1, 3, 64])
def test_shares_are_all_particles(n_particles, count):
    shares = [_core.backend.share(n_particles, rank, count, np.dtype("float32")) for rank in range(count)]
    assert (shares[0][0], shares[-1][1], in_turns(shares)) == (0, n_particles, True)


MEASURE = """
    import sys
    import numpy as np
    import mfld
    def peak():
        with open("/proc/self/status") as lines:
            return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    inputs = np.linspace(-2, 2, 32)[:, np.newaxis]
    network = mfld.TwoLayerNetwork(1, readout="fixed")
    risk = mfld.EmpiricalRisk(network, inputs, np.sin(inputs[:, 0]), loss="half_squared", l2=1e-4)
    solver = mfld.MFLD(int(sys.argv[2]), step_size=0.1, temperature=1e-5, num_threads=2)
    before = peak()
    apart = mfld.pieces.InPieces(solver, sys.argv[1])
    state = apart.init(risk)
    reached, info = apart.advance(risk, state)
    print(before, peak(), np.ptp(state.particles[:10] - reached.particles[:10]) > 0)
"""


def memory(folder, n_particles):
    """Peak in MiB before the run and after it."""
    script = folder / "script.py"
    script.write_text(textwrap.dedent(MEASURE))
    command = [sys.executable, script, folder / "cloud.npy", str(n_particles)]
    before, after, moved = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert moved == "True"
    return float(before), float(after)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_that_of_a_piece(tmp_path):
    before, after = memory(tmp_path, 10_000_000)
    # 76 MiB of particles. Of a piece its particles twice and 32 activations of each; 16 MiB are searched for what is
    # not finite.
    assert after - before < 60


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_hundred_million_particles_within_a_gigabyte(tmp_path):
    before, after = memory(tmp_path, 100_000_000)
    print(f"{before:.0f} MiB before, {after:.0f} MiB at most")
    assert after < 1024
