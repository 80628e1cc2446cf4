"""Checkpoints: runs go on to the bit, whatever happens to the process, the disk and the file."""

import ast
import enum
import errno
import functools
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
import types
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mfld
from mfld import checkpoint, description

ESTIMATORS = [
    mfld.FullBatch(),
    mfld.Minibatch(batch_size=4),
    mfld.PerParticleMinibatch(batch_size=4),
    mfld.SVRG(batch_size=4, refresh_every=5),
    mfld.SARAH(batch_size=4, refresh_every=5),
    mfld.Smoothed(0.1, mfld.SARAH(batch_size=4, refresh_every=5)),
    mfld.Exact(),
    mfld.RandomSubset(6),
    mfld.KernelThinning(5),
]
REQUIRED = {  # of dynamics that have no defaults; 4 coordinates
    "General": {"diffusion": np.diag([1.0, 2.0, 0.5, 1.0])},
    "Irreversible": {"skew": np.kron(np.eye(2), [[0.0, 1.0], [-1.0, 0.0]])},
    "Underdamped": {"friction": 1.0},
}
ABSTRACT = {mfld.Dynamics, mfld.dynamics.Affine, mfld.GradientEstimator, mfld.interactions.Interaction}
OF_OTHERS = {  # for objectives of their own, in whose tests they are
    mfld.RandomFeatures,
    mfld.FourierFeatures,
    mfld.LabelNoise,
    mfld.WarmStart,
    mfld.Clipped,  # whose noise is the operating system's
    mfld.dynamics.Conic,
    mfld.dynamics.Coupled,
}


def public(base, module):
    """The classes of a module that are of a kind."""
    members = [getattr(module, name) for name in module.__all__]
    return [
        kind
        for kind in members
        if isinstance(kind, type) and issubclass(kind, base) and kind not in ABSTRACT | OF_OTHERS
    ]


DYNAMICS = [kind(**REQUIRED.get(kind.__name__, {})) for kind in public(mfld.Dynamics, mfld.dynamics)]


def test_no_estimator_is_left_out():
    assert {type(estimator) for estimator in ESTIMATORS} == set(public(mfld.GradientEstimator, mfld))


def make_risk(l2=1e-3, n=12):
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(n, 2))
    model = mfld.TwoLayerNetwork(n_features=2)
    return mfld.EmpiricalRisk(model, inputs, np.sign(inputs[:, 0]), loss="logistic", l2=l2)


def make_solver(**options):
    return mfld.MFLD(**{"n_particles": 20, "step_size": 0.1, "temperature": 1e-3, **options})


def digest(state):
    """Of everything that a state holds."""
    text = hashlib.sha256(
        repr((state.step, state.seed, state.replica, sorted(state.clouds), sorted(state.buffers))).encode()
    )
    for name in sorted(state.clouds):
        cloud = state.clouds[name]
        text.update(cloud.particles.tobytes() + cloud.particles.dtype.str.encode())
        text.update(b"" if cloud.weights is None else cloud.weights.tobytes())
    for name in sorted(state.buffers):
        value = state.buffers[name]
        text.update(value.tobytes() + repr((name, value.shape, value.dtype)).encode())
    return text.hexdigest()


# ---- the same bytes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gradient", ESTIMATORS, ids=lambda estimator: type(estimator).__name__)
@pytest.mark.parametrize("dynamics", DYNAMICS, ids=lambda dynamics: type(dynamics).__name__)
def test_a_resumed_run_is_the_run(gradient, dynamics, dtype, tmp_path):
    solver = make_solver(gradient=gradient, dynamics=dynamics, dtype=dtype)
    objective = suitable(solver)
    if objective is None:
        return  # a dynamics of linear objectives and an estimator of samples
    whole = solver.run(objective, 23, seed=5).state
    path = tmp_path / "run.npz"
    for n_steps in (7, 8, 16, 23):  # in the middle between refreshes, and one step further
        part = checkpoint.run(solver, objective, n_steps, 5, path=path, every=100)
        assert part.state.step == n_steps
    assert digest(part.state) == digest(whole)
    assert digest(checkpoint.load(path, algorithm=solver, objective=objective)) == digest(whole)


def suitable(solver):
    """An objective that a solver takes, if there is one; with a full gradient there is."""
    well = mfld.Potential(np.positive, lambda x: np.sum(x**2, axis=1) / 2, n_coordinates=4)
    for objective in (make_risk(), well):
        try:
            solver.check(objective)
        except (TypeError, ValueError):
            continue
        return objective
    assert solver.gradient != mfld.FullBatch()
    return None


def test_a_resumed_run_of_automatic_steps_is_the_run(tmp_path):
    solver, risk = make_solver(step_size=None), make_risk()
    whole = solver.run(risk, 23, seed=5).state
    for n_steps in (3, 7, 8, 16, 23):
        part = checkpoint.run(solver, risk, n_steps, 5, path=tmp_path / "run.npz")
    assert digest(part.state) == digest(whole)
    assert set(whole.buffers) == {"curvature", "curvature_direction"}


@pytest.mark.parametrize("batch_size", [None, 4])
def test_a_resumed_dual_averaging_is_the_run(batch_size, dtype, tmp_path):
    risk = make_risk()
    solver = mfld.PDA(20, step_size=0.1, temperature=1e-2, inner_steps=3, batch_size=batch_size, dtype=dtype)
    whole = solver.run(risk, 9, seed=5).state
    for n_steps in (4, 5, 9):
        part = checkpoint.run(solver, risk, n_steps, 5, path=tmp_path / "run.npz")
    assert digest(part.state) == digest(whole)


def test_a_resumed_dual_coordinate_ascent_is_the_run(dtype, tmp_path):
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(12, 2))
    model = mfld.TwoLayerNetwork(n_features=2, readout="bounded")
    risk = mfld.EmpiricalRisk(model, inputs, np.sign(inputs[:, 0]), loss="logistic", l2=1e-2)
    solver = mfld.PSDCA(50, temperature=0.05, dtype=dtype)
    whole = solver.run(risk, 5, seed=5).state
    for n_steps in (2, 3, 5):
        part = checkpoint.run(solver, risk, n_steps, 5, path=tmp_path / "run.npz")
    assert digest(part.state) == digest(whole)


def test_everything_that_a_state_holds_survives(tmp_path, rng):
    weighted = mfld.Cloud(rng.normal(size=(2, 5, 3)).astype(np.float32), rng.random((2, 5)))
    state = mfld.State(
        {"mu": weighted, "ν/../x": mfld.Cloud(rng.normal(size=(2, 4, 2)))},
        step=2**48 - 1,
        seed=2**64 - 1,
        buffers={
            "numbers": np.array([[np.nan, np.inf, -0.0]]),
            "": np.arange(6, dtype=np.int16).reshape(2, 3).T,
            "flags": np.array([True, False]),
            "text": np.array(["a", "µ"]),
            "scalar": np.array(1.5, np.float32),
            "nothing": np.empty((0, 3)),
        },
        replica=7,
    )
    path = tmp_path / "state.npz"
    checkpoint.save(state, path)
    loaded = checkpoint.load(path)
    assert digest(loaded) == digest(state)
    assert [path.name for path in tmp_path.iterdir()] == ["state.npz"]
    with np.load(path, allow_pickle=False) as stored:  # a plain archive, and JSON that says what is in it
        metadata = json.loads(str(stored["metadata"]))
    assert metadata["format"] == 1
    assert metadata["scalars"]["step"] == 2**48 - 1
    assert not any(cloud.particles.flags.writeable for cloud in loaded.clouds.values())


def test_objects_are_refused_and_the_file_before_stays(tmp_path):
    solver, risk = make_solver(), make_risk()
    state = solver.init(risk)
    path = tmp_path / "state.npz"
    checkpoint.save(state, path)
    before = path.read_bytes()
    odd = replace(state, buffers={"odd": np.array([{}, None])})
    with pytest.raises(TypeError, match=r"buffers\['odd'\] must be an array of numbers.*got dtype object"):
        checkpoint.save(odd, path)
    assert path.read_bytes() == before


def test_a_symbolic_link_is_followed(tmp_path):
    (tmp_path / "disk").mkdir()
    link, file = tmp_path / "run.npz", tmp_path / "disk" / "run.npz"
    link.symlink_to(file)
    solver, risk = make_solver(), make_risk()
    checkpoint.run(solver, risk, 3, path=link)
    assert link.is_symlink()
    assert checkpoint.load(file).step == 3


# ---- when the callback writes ----------------------------------------------------------------------------------------


@pytest.fixture
def written(monkeypatch):
    """Steps at which a file was written."""
    steps = []
    write = checkpoint._write

    def spy(state, path, problem):
        write(state, path, problem)
        steps.append(state.step)

    monkeypatch.setattr(checkpoint, "_write", spy)
    return steps


def test_every_so_many_steps_and_at_the_end(written, tmp_path):
    solver, risk = make_solver(), make_risk()
    solver.run(risk, 25, callbacks=[mfld.Checkpoint(tmp_path / "a.npz", every=10)])
    assert written == [10, 20, 25]
    written.clear()
    solver.run(risk, 20, callbacks=[mfld.Checkpoint(tmp_path / "a.npz", every=10)])
    assert written == [10, 20]


def test_every_so_many_seconds(written, tmp_path):
    def slow(x):
        time.sleep(0.01)
        return x

    well = mfld.Potential(slow, n_coordinates=1)
    started = time.monotonic()
    make_solver().run(well, 60, callbacks=[mfld.Checkpoint(tmp_path / "a.npz", seconds=0.2)])
    assert 2 <= len(written) <= 1 + (time.monotonic() - started) / 0.2
    assert written[-1] == 60


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ZeroDivisionError])
def test_an_error_leaves_the_last_valid_state(kind, tmp_path):
    class Strike(mfld.Callback):
        every = 1

        def __call__(self, state, info):
            if state.step == 7:
                raise kind

    solver, risk = make_solver(), make_risk()
    path = tmp_path / "a.npz"
    with pytest.raises(kind):
        solver.run(risk, 20, callbacks=[mfld.Checkpoint(path, every=5), Strike()])
    assert digest(checkpoint.load(path)) == digest(solver.run(risk, 7).state)


def test_a_diverging_run_leaves_its_last_good_state(tmp_path):
    well = mfld.Potential(lambda x: x, n_coordinates=1)
    solver = make_solver(step_size=10.0, temperature=0.0)
    with pytest.raises(mfld.DivergenceError) as caught:
        checkpoint.run(solver, well, 1000, path=tmp_path / "a.npz", every=1000)
    assert digest(checkpoint.load(tmp_path / "a.npz")) == digest(caught.value.state)


def test_arguments():
    with pytest.raises(ValueError, match="every and seconds must not both be given, got 3 and 4"):
        mfld.Checkpoint("a.npz", every=3, seconds=4.0)
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        mfld.Checkpoint("a.npz", every=0)
    with pytest.raises(ValueError, match="seconds must be finite and positive, got 0"):
        mfld.Checkpoint("a.npz", seconds=0)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*/nowhere"):
        make_solver().run(make_risk(), 3, callbacks=[mfld.Checkpoint("nowhere/a.npz")])


def test_a_file_beyond_the_run_or_of_another_seed_is_refused(tmp_path):
    solver, risk = make_solver(), make_risk()
    path = tmp_path / "a.npz"
    checkpoint.run(solver, risk, 10, 3, path=path)
    with pytest.raises(ValueError, match=r"n_steps must be at least 10, where .*a\.npz stands, got 9"):
        checkpoint.run(solver, risk, 9, 3, path=path)
    refused = r"a\.npz is a checkpoint of another run: seed was 3, now it is 4; accept_other=True .* with seed=3$"
    with pytest.raises(ValueError, match=refused):
        checkpoint.run(solver, risk, 20, 4, path=path)
    assert checkpoint.load(path).step == 10
    assert checkpoint.run(solver, risk, 5, 4, path=path, resume=False).state.step == 5
    again = checkpoint.run(solver, risk, 20, 4, path=path, record_every=[2, 10, 20])
    assert again.history["step"].tolist() == [10, 20]


def test_another_seed_knowingly_goes_on_with_the_noise_of_the_file(tmp_path):
    solver, risk = make_solver(), make_risk()
    path = tmp_path / "a.npz"
    checkpoint.run(solver, risk, 10, 3, path=path)
    warned = r"another run: seed was 3, now it is 4, and the run goes on with seed=3$"
    with pytest.warns(RuntimeWarning, match=warned) as caught:
        result = checkpoint.run(solver, risk, 20, 4, path=path, accept_other=True)
    assert caught[0].filename == __file__
    assert result.state.seed == checkpoint.load(path).seed == 3
    assert digest(result.state) == digest(solver.run(risk, 20, 3).state) != digest(solver.run(risk, 20, 4).state)
    with pytest.warns(RuntimeWarning, match=r"seed was 3, now it is 4, and .* with seed=3; objective\.reference was"):
        checkpoint.run(solver, make_risk(l2=0.5), 25, 4, path=path, accept_other=True)
    with pytest.raises(ValueError, match=r"seed was 3, now it is 4; objective\.reference was .* with seed=3$"):
        checkpoint.run(solver, make_risk(l2=0.1), 30, 4, path=path)


# ---- what a run is of ------------------------------------------------------------------------------------------------


class Spring(mfld.Objective):
    """A user's objective, with a cache that its copies leave out."""

    space = mfld.Space(2)

    def __init__(self, stiffness):
        self.stiffness = stiffness
        self.calls = 0

    def __getstate__(self):
        return {"stiffness": self.stiffness}

    def loss(self, measure):
        return float(self.stiffness * np.mean(self.cloud(measure).particles ** 2) / 2)

    def loss_gradient(self, measure, batch=None):
        self.calls += 1
        return self.stiffness * self.cloud(measure).particles

    def first_variation(self, measure):
        raise NotImplementedError


def other_problems():
    risk, solver = make_risk(), make_solver()
    inputs = risk.inputs.copy()
    inputs[3, 1] = np.nextafter(inputs[3, 1], 9)

    def risk_of(**changes):
        given = {"model": risk.model, "inputs": risk.inputs, "targets": risk.targets, "loss": "logistic", "l2": 1e-3}
        return mfld.EmpiricalRisk(**{**given, **changes})

    yield "algorithm.step_size was 0.1, now it is 0.2", replace(solver, step_size=0.2), risk
    yield "algorithm.gradient was ", replace(solver, gradient=mfld.Minibatch(3)), risk
    yield "algorithm.step_size was 0.1, now it is Power", replace(solver, step_size=mfld.schedules.Power(0.1)), risk
    yield "algorithm.dtype was 'float32', now it is 'float64'", replace(solver, dtype="float64"), risk
    yield "objective.reference was Gaussian", solver, make_risk(l2=2e-3)
    yield "objective.data.inputs was <f8 array of shape (12, 2)", solver, risk_of(inputs=inputs)
    yield "objective.data.weights was None, now it is <f8 array", solver, risk_of(sample_weight=np.arange(12))
    yield "objective.loss_function was ", solver, risk_of(loss="smoothed_hinge")
    yield "objective.model was ", solver, risk_of(model=mfld.TwoLayerNetwork(2, activation="relu"))
    yield "objective was EmpiricalRisk, now it is Spring", solver, Spring(1.0)


@pytest.mark.parametrize(("reason", "solver", "objective"), list(other_problems()), ids=lambda value: str(value)[:30])
def test_another_problem_is_refused(reason, solver, objective, tmp_path):
    path = tmp_path / "run.npz"
    checkpoint.run(make_solver(), make_risk(), 3, path=path)
    with pytest.raises(ValueError, match="is a checkpoint of another run: ") as caught:
        checkpoint.run(solver, objective, 5, path=path)
    assert reason in str(caught.value)
    assert str(path) in str(caught.value)
    assert checkpoint.load(path).step == 3  # without a problem there is nothing to compare with


def test_what_does_not_matter_may_differ(tmp_path):
    path = tmp_path / "run.npz"
    risk = make_risk()
    risk.loss(np.zeros((1, 4), np.float32))  # fills a cache
    checkpoint.run(make_solver(num_threads=1), risk, 3, path=path)
    checkpoint.run(make_solver(num_threads=2), make_risk(), 5, path=path)
    spring = Spring(2.0)
    before = checkpoint.fingerprint(objective=spring)
    spring.loss_gradient(np.zeros((3, 2)))
    assert checkpoint.fingerprint(objective=spring) == before
    assert checkpoint.fingerprint(objective=Spring(2.5)) != before


def potentials():
    """Functions that differ in their code, a constant, a default, a closure, a partial argument."""
    import functools  # noqa: PLC0415

    def scaled(by):
        return lambda x: by * x

    table = np.arange(3.0)
    shifted = np.arange(3.0) + 1
    return [
        lambda x: x,
        lambda x: -x,
        lambda x: 2 * x,
        lambda x, by=2.0: by * x,
        lambda x, by=3.0: by * x,
        scaled(2.0),
        scaled(3.0),
        scaled(table),
        scaled(shifted),
        functools.partial(scaled, by=1.0),
        functools.partial(scaled, by=2.0),
        functools.cache(scaled(5.0)),
        functools.cache(scaled(6.0)),
        np.sin,
        np.cos,
        Spring(1.0).loss_gradient,
        Spring(2.0).loss_gradient,
    ]


def test_functions_are_told_apart():
    prints = [checkpoint.fingerprint(objective=mfld.Potential(f, n_coordinates=1)) for f in potentials()]
    texts = [json.dumps(entries) for entries in prints]
    assert len(set(texts)) == len(texts)
    again = [checkpoint.fingerprint(objective=mfld.Potential(f, n_coordinates=1)) for f in potentials()]
    assert again == prints


def test_a_description_is_the_same_in_another_process():
    code = """
        import json, sys
        sys.path.insert(0, {folder!r})
        import test_checkpoint as t
        from mfld import checkpoint, description
        out = [checkpoint.fingerprint(objective=t.mfld.Potential(f, n_coordinates=1)) for f in t.potentials()]
        loop = {{"set": {{"a", "b", "c"}}}}
        loop["self"] = loop
        out.append(description.describe(loop))
        out.append(checkpoint.fingerprint(algorithm=t.make_solver(), objective=t.make_risk()))
        print(json.dumps(out))
    """
    source = textwrap.dedent(code).format(folder=os.path.dirname(__file__))
    outputs = {
        subprocess.run(
            [sys.executable, "-c", source],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert json.loads(outputs.pop())[-1] == checkpoint.fingerprint(algorithm=make_solver(), objective=make_risk())


# ---- files that are none ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "good.npz"
    checkpoint.save(make_solver(n_particles=3).init(make_risk()), path)
    return path.read_bytes()


def refused(path, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        checkpoint.load(path)
    assert str(path) in str(caught.value)


def test_truncated_anywhere(good_file, tmp_path):
    path = tmp_path / "cut.npz"
    for length in {*range(0, len(good_file), 15), *range(len(good_file) - 150, len(good_file))}:
        path.write_bytes(good_file[:length])
        refused(path, "is no checkpoint of mfld, or a damaged one: it does not end like one")


def test_a_byte_is_wrong_anywhere(good_file, tmp_path):
    path = tmp_path / "flipped.npz"
    for place in range(0, len(good_file), 7):
        damaged = bytearray(good_file)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        refused(path, "is a damaged checkpoint: its checksum does not match|does not end like one")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_pieces_that_are_overwritten_moved_or_repeated(good_file, tmp_path_factory, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(good_file)), min_size=2, max_size=2, unique=True)))
    first, middle, last = good_file[: cuts[0]], good_file[cuts[0] : cuts[1]], good_file[cuts[1] :]
    damaged = data.draw(
        st.sampled_from([first + last, first + middle + middle + last, last + first, first + bytes(len(middle)) + last])
    )
    if damaged != good_file:
        path = tmp_path_factory.mktemp("pieces") / "damaged.npz"
        path.write_bytes(damaged)
        refused(path, "damaged")


def sealed(path, metadata, **arrays):
    """A file with a right checksum, whatever it holds."""
    with open(path, "w+b") as file:
        np.savez(file, metadata=np.array(json.dumps(metadata)), **arrays)
        checkpoint._seal(file)
    return path


def test_foreign_newer_and_senseless_files(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(b"")
    refused(path, "is no checkpoint of mfld")
    path.write_bytes(b"PK\x03\x04" * 100)
    refused(path, "is no checkpoint of mfld")
    np.savez(path, a=np.arange(3))
    refused(path, "is no checkpoint of mfld")
    good = {
        "format": 1,
        "version": "9.9",
        "clouds": {},
        "buffers": {},
        "scalars": {"step": 0, "seed": 0},
        "problem": {},
    }
    assert checkpoint.load(sealed(path, good)).clouds == {}
    refused(
        sealed(path, {**good, "format": 2}), "has checkpoint format 2, written by mfld 9.9; this mfld .* reads format 1"
    )
    refused(sealed(path, []), "is no checkpoint of mfld")
    refused(sealed(path, {**good, "scalars": {"step": -1, "seed": 0}}), "step must be between 0 and")
    refused(sealed(path, {**good, "scalars": {"step": 1, "seed": 0, "mood": 3}}), "unexpected keyword argument 'mood'")
    refused(sealed(path, {**good, "buffers": {"a": "array_0"}}), "array_0")
    wrong = {**good, "clouds": {"mu": {"particles": "array_0"}}}
    refused(sealed(path, wrong, array_0=np.full((1, 2, 3), np.nan)), "particles must be finite")
    with pytest.raises(FileNotFoundError):
        checkpoint.load(tmp_path / "none.npz")
    with pytest.raises(IsADirectoryError):
        checkpoint.load(tmp_path)


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


def test_loading_executes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bomb.npz"
    with open(path, "w+b") as file:
        np.savez(file, metadata=np.array(Bomb(), object))
        checkpoint._seal(file)
    refused(path, "is no checkpoint of mfld: Object arrays cannot be loaded")
    np.load(path, allow_pickle=True)["metadata"]  # it would
    assert (tmp_path / "exploded").is_dir()


# ---- disks and processes that fail -----------------------------------------------------------------------------------


def failing(call, error):
    """One of the calls that reach the disk, on a full one."""

    def fail(*arguments, **options):
        raise OSError(error, os.strerror(error))

    return {
        "savez": ("numpy.savez", fail),
        "fsync": ("os.fsync", fail),
        "replace": ("os.replace", fail),
    }[call]


@pytest.mark.parametrize("call", ["savez", "fsync", "replace"])
def test_a_full_disk_loses_neither_the_run_nor_the_last_good_file(call, tmp_path, monkeypatch):
    solver, risk = make_solver(), make_risk()
    path = tmp_path / "a.npz"
    checkpoint.run(solver, risk, 10, path=path)
    good = path.read_bytes()

    class Repair(mfld.Callback):
        every = 1

        def __call__(self, state, info):
            if state.step == 11:
                monkeypatch.setattr(*failing(call, errno.ENOSPC))
            if state.step == 17:
                assert path.read_bytes() == good
                assert checkpoint.load(path).step == 10
                if repaired:
                    monkeypatch.undo()

    for repaired in (False, True):
        with pytest.warns(
            RuntimeWarning, match=r"no checkpoint at step 11, the run goes on: .*No space left"
        ) as caught:
            result = checkpoint.run(solver, risk, 20, path=path, every=1, callbacks=[Repair()])
        monkeypatch.undo()
        assert len(caught) == 1
        assert digest(result.state) == digest(solver.run(risk, 20).state)
        assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]
        assert checkpoint.load(path).step == (20 if repaired else 10)


def test_a_real_limit_of_the_system(tmp_path):
    """A file may not grow beyond a limit: writing fails in the middle, with some of it written."""
    code = f"""
        import resource, sys, warnings
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        import test_checkpoint as t
        solver, risk, path = t.make_solver(n_particles=2000), t.make_risk(), sys.argv[1]
        t.checkpoint.run(solver, risk, 10, path=path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = t.checkpoint.run(solver, risk, 20, path=path, every=1)
        assert len(caught) == 1 and "File too large" in str(caught[0].message), caught
        print(t.checkpoint.load(path).step, t.digest(result.state))
    """
    path = tmp_path / "a.npz"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    expected = make_solver(n_particles=2000).run(make_risk(), 20).state
    assert done.stdout.split() == ["10", digest(expected)]
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]


# A state of a megabyte and quick steps: most of the time goes into writing.
KILLED = {"n_particles": 30_000, "dtype": "float64"}
KILLED_STEPS = 100_000


def killed_problem():
    return make_solver(**KILLED, num_threads=1), mfld.Potential(np.positive, n_coordinates=4, l2=0.1)


NURSERY = """
    import os, sys
    sys.path.insert(0, {folder!r})
    import test_checkpoint as t
    for path in sys.stdin:
        child = os.fork()
        if child == 0:
            t.checkpoint.run(*t.killed_problem(), t.KILLED_STEPS, 1, path=path.strip(), every=1)
            os._exit(0)
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)
"""


def kill_and_resume(path, n_kills, rng):
    """Kill a run at random instants, each time from where the last one had come; how many died while writing.

    The states that were found are compared with those of one run.
    """
    nursery = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(NURSERY).format(folder=os.path.dirname(__file__))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    solver, well = killed_problem()
    state = solver.init(well, 1)
    in_writing = 0
    for _ in range(n_kills):
        nursery.stdin.write(f"{path}\n")
        nursery.stdin.flush()
        child = int(nursery.stdout.readline())
        time.sleep(rng.uniform(0, 0.2))
        os.kill(child, signal.SIGKILL)
        assert int(nursery.stdout.readline()) == signal.SIGKILL
        in_writing += path.with_name(f"{path.name}.{child}.part").exists()
        if path.exists():
            found = checkpoint.load(path, algorithm=solver, objective=well)
            if found.step > state.step:
                state, _ = solver.advance(well, state, found.step - state.step)
            assert digest(found) == digest(state)
    nursery.stdin.close()
    assert nursery.wait() == 0
    nursery.stdout.close()
    assert state.step > 5  # it did come forward
    end = state.step + 3
    assert digest(checkpoint.run(solver, well, end, 1, path=path).state) == digest(solver.run(well, end, 1).state)
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # leftovers are swept up
    return in_writing


def test_killed_at_random_instants(tmp_path, rng):
    assert kill_and_resume(tmp_path / "run.npz", 20, rng) >= 3


def test_leftovers_of_processes_that_live_stay(tmp_path):
    path = tmp_path / "run[1].npz"
    mine = tmp_path / f"run[1].npz.{os.getppid()}.part"
    other = tmp_path / "run[1].npz.notes.part"
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    gone = tmp_path / f"run[1].npz.{dead.stdout.strip()}.part"
    for file in (mine, other, gone):
        file.write_bytes(b"")
    checkpoint.run(make_solver(), make_risk(), 2, path=path)
    assert {file.name for file in tmp_path.iterdir()} == {path.name, mine.name, other.name}


# ---- what belongs to a run -------------------------------------------------------------------------------------------

SCRIPT = '''
{first_lines}
import functools
import types
import numpy as np
import mfld

settings = types.ModuleType("settings")
settings.rate = {rate}
settings.unread = {unread}
settings.deeper = types.ModuleType("settings.deeper")
settings.deeper.turn = lambda x: {turn}
OFFSET = {offset}
SCALE = {scale}
TABLE = np.array({table})


def helper(x):
    {helper_comment}
    return {helper} + OFFSET


class Part:
    factor = {factor}

    def {part_method}(self, x):
        return x


def decorated(f):
    @functools.wraps(f)
    def inner(x):
        return {around}
    return inner


@decorated
def inside(x):
    {helper_docstring}
    return x.mean() + Part().factor + INNER


INNER = {inner}
mean = {mean}


class Own(mfld.Objective):
    """{docstring}"""

    space = mfld.Space(1)
    strength = {strength}

    def loss(self, measure):
        return float(np.mean(self.slope(self.cloud(measure).particles)))

    def slope(self, x):
        return {slope}

    def loss_gradient(self, measure, batch=None):
        return self.strength * helper(self.slope(self.cloud(measure).particles)) * TABLE.sum()

    def first_variation(self, measure):
        raise TypeError


def gradient(x{default}):
    return SCALE * settings.deeper.turn(x) / settings.rate


UNRELATED = {unrelated}
own = Own()
potential = mfld.Potential(gradient, n_coordinates=1)
lambdas = mfld.Potential(lambda x: {lambda_body}, n_coordinates=1)
wrapped = mfld.Potential(inside, n_coordinates=1)
pieces = [lambda x: x, lambda x: x,
          lambda x: x
          + {second_line}, lambda x: x * {same_line}]
objectives = (own, potential, lambdas, wrapped, mfld.Potential(pieces[{piece}], n_coordinates=1))
'''
USUAL = {
    "scale": "2.0",
    "table": "[1.0, 2.0]",
    "helper_comment": "# nothing",
    "helper": "x + 1",
    "docstring": "An objective.",
    "strength": "0.5",
    "slope": "x - 1",
    "default": "",
    "unrelated": "1",
    "lambda_body": "x - 3",
    "first_lines": "",
    "factor": "1",
    "part_method": "go",
    "around": "f(x)",
    "helper_docstring": "",
    "inner": "1",
    "mean": "1",
    "second_line": "1",
    "same_line": "1",
    "piece": "2",
    "rate": "1.0",
    "unread": "1.0",
    "turn": "x",
    "offset": "1",
}


def described(tmp_path, **changed):
    """Fingerprints of the objectives of a script."""
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.format(**{**USUAL, **changed}))
    code = (
        "import sys, json, linecache\n"
        "import importlib.util as u\n"
        f"spec = u.spec_from_file_location('script', {str(path)!r}); m = u.module_from_spec(spec)\n"
        "spec.loader.exec_module(m)\n"
        "from mfld import checkpoint\n"
        "print(json.dumps([checkpoint.fingerprint(objective=o) for o in m.objectives]))"
    )
    done = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"strength": "0.6"}, [(0, "objective.strength")]),
        ({"slope": "x + 1"}, [(0, "objective.slope")]),
        ({"helper": "x - 1"}, [(0, "objective.loss_gradient")]),
        ({"table": "[1.0, 3.0]"}, [(0, "objective.loss_gradient")]),
        ({"scale": "3.0"}, [(1, "objective._gradient")]),
        ({"default": ", factor=2"}, [(1, "objective._gradient")]),
        ({"lambda_body": "x + 3"}, [(2, "objective._gradient")]),
        ({"docstring": "Another text."}, []),
        ({"helper_comment": "# a comment"}, []),
        ({"slope": "(x   -    1)"}, []),
        ({"unrelated": "2"}, []),
        ({"inner": "2"}, [(3, "objective._gradient")]),  # named by what a decorator wraps
        ({"around": "f(2 * x)"}, [(3, "objective._gradient")]),
        ({"factor": "2"}, [(3, "objective._gradient")]),
        ({"part_method": "come"}, [(3, "objective._gradient")]),
        ({"second_line": "2"}, [(4, "objective._gradient")]),
        ({"same_line": "2"}, []),  # of the lambda beside
        ({"piece": "3"}, [(4, "objective._gradient")]),
        ({"mean": "2"}, []),  # a global called as an attribute is
        ({"helper_docstring": "'Text where there was none.'"}, []),
        ({"rate": "2.0"}, [(1, "objective._gradient")]),  # of a module
        ({"turn": "-x"}, [(1, "objective._gradient")]),  # of a module in a module
        ({"unread": "2.0"}, []),
        ({"offset": "2"}, [(0, "objective.loss_gradient")]),  # named by a helper
        ({"first_lines": "# other places" + 3 * chr(10)}, []),
    ],
)
def test_what_a_function_reads_is_part_of_a_run_and_prose_is_not(changed, where, tmp_path):
    before, after = described(tmp_path), described(tmp_path, **changed)
    differ = [
        (k, name)
        for k, (one, other) in enumerate(zip(before, after, strict=True))
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name)
    ]
    assert differ == where


def test_functions_without_source_go_by_their_code():
    def potential(body):
        names = {"SCALE": 2.0}
        exec(f"def f(x):\n    {body}", names)
        return mfld.Potential(names["f"], n_coordinates=1)

    def text(body):
        return description.describe(potential(body)._gradient)

    assert " by names, constants and instructions " in text("return x + 1")
    assert text("return x + 1") != text("return x + 2")
    assert text("'Words.'; return SCALE * x") == text("'Other words.'; return SCALE * x")


def test_a_description_does_not_depend_on_the_version_of_python():
    """Bytecode and the printed forms of syntax trees do; these are digests of what is written here."""
    tree = ast.parse("def f(x, *, by=2):\n    'Words.'\n    return [by * x[i] for i in (None, 0)]")
    assert description._syntax(tree.body[0]) == (
        "FunctionDef(name='f', args=arguments(args=[arg(arg='x')], kwonlyargs=[arg(arg='by')], kw_defaults=[2]), "
        "body=[Return(value=ListComp(elt=BinOp(left=Name(id='by', ctx=Load()), op=Mult(), "
        "right=Subscript(value=Name(id='x', ctx=Load()), slice=Name(id='i', ctx=Load()), ctx=Load())), "
        "generators=[comprehension(target=Name(id='i', ctx=Store()), "
        "iter=Tuple(elts=[None, 0], ctx=Load()), is_async=0)]))])"
    )


def test_an_object_of_many_classes_is_described_in_no_time():
    class Colour(enum.Enum):
        A, B, C, D, E, F, G, H, J, K, L, M = range(12)

    colour = Colour.A
    one, other = (mfld.Potential(lambda x, c=c: x if c else colour, n_coordinates=1) for c in (Colour.A, Colour.B))
    assert checkpoint.fingerprint(objective=one) != checkpoint.fingerprint(objective=other)


def test_going_on_with_another_problem_knowingly(tmp_path):
    path = tmp_path / "a.npz"
    checkpoint.run(make_solver(), make_risk(), 5, path=path)
    other = make_risk(l2=0.5)
    with pytest.raises(ValueError, match=r"objective\.reference was .*; accept_other=True goes on all the same"):
        checkpoint.run(make_solver(), other, 10, path=path)
    with pytest.warns(RuntimeWarning, match=r"another run: objective\.reference was"):
        result = checkpoint.run(make_solver(), other, 10, path=path, accept_other=True)
    assert result.state.step == 10
    with pytest.warns(RuntimeWarning, match="another run"):
        assert checkpoint.load(path, objective=make_risk(l2=0.1), accept_other=True).step == 10
    many = make_solver(step_size=0.2, temperature=1.0, dtype="float64", n_particles=21)
    with pytest.raises(ValueError, match="; and 2 more; accept_other"):
        checkpoint.load(path, algorithm=many, objective=make_risk(l2=0.1))
    with pytest.warns(RuntimeWarning) as caught:  # knowingly: of all that differs
        checkpoint.load(path, algorithm=many, objective=make_risk(l2=0.1), accept_other=True)
    for name in ("dtype", "n_particles", "step_size", "temperature"):
        assert f"algorithm.{name} was" in str(caught[0].message)
    assert caught[0].filename == __file__


def test_what_cannot_be_read_is_unseen_and_no_error():
    class Stubborn:
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("needs gradients")

    class Parameter:
        """As of torch: an array once it is detached, of a type that NumPy has once it is made float."""

        def __init__(self, value, steps=("detach", "float")):
            self.value, self.steps = value, steps

        def __array__(self, dtype=None, copy=None):
            if self.steps:
                raise TypeError(f"call {self.steps[0]}")
            return np.array([self.value])

        def __getattr__(self, name):
            if self.__dict__.get("steps", ())[:1] != (name,):
                raise AttributeError(name)
            return lambda: Parameter(self.value, self.steps[1:])

    class Rude:
        def __getattr__(self, name):
            raise RuntimeError("no")

    def gradient_with(held):
        objective = mfld.Potential(lambda x: x if held else -x, n_coordinates=1)
        return description.describe(objective._gradient).replace(f"{Stubborn.__qualname__[:-8]}", "")

    assert "'held': unseen Stubborn" in gradient_with(Stubborn())
    assert "'held': unseen Rude" in gradient_with(Rude())
    assert "<f8 array of shape (1,)" in gradient_with(Parameter(1.0))
    assert gradient_with(Parameter(1.0)) == gradient_with(Parameter(1.0)) != gradient_with(Parameter(2.0))
    assert gradient_with({"module": Stubborn()}) == gradient_with({"module": Stubborn()})
    objective = mfld.Potential(functools.partial(lambda held, x: x, {"a": Stubborn(), "b": 80 * "c"}), n_coordinates=1)
    assert checkpoint.fingerprint(objective=objective)["objective._gradient"].endswith("Stubborn")


def test_a_run_from_a_state_resumes_by_the_same_line(tmp_path):
    well = mfld.Potential(lambda x: x, n_coordinates=1)
    grid = mfld.MFLD(5, step_size=(0.1, 0.2), temperature=1.0, n_replicates=2)
    start = grid.init(well, 3, replica=(4, 4))

    def line(n_steps):
        return checkpoint.run(grid, well, n_steps, path=tmp_path / "run.npz", state=start)

    line(5)
    whole = grid.run(well, 9, state=start)
    resumed = line(9)
    assert resumed.state.replicas == (4, 4)
    assert resumed.state.step == 9
    assert resumed.state.measure.particles.tobytes() == whole.state.measure.particles.tobytes()


class Tensor:
    """As of torch: refuses to be an array while it has gradients, is on a device, or has a type that NumPy lacks."""

    def __init__(self, values, dtype="torch.float32", *, gradients=False, device=None):
        self.values, self.dtype = np.asarray(values, np.float32), dtype
        self.gradients, self.device = gradients, device

    def __array__(self, dtype=None, copy=None):
        if self.gradients or self.device or self.dtype == "torch.bfloat16":
            raise TypeError
        return self.values

    def __bool__(self):
        raise RuntimeError("Boolean value of Tensor with more than one value is ambiguous")

    def __eq__(self, other):
        return self

    __hash__ = None

    def detach(self):
        return Tensor(self.values, self.dtype, device=self.device)

    def cpu(self):
        return Tensor(self.values, self.dtype)

    def float(self):
        return Tensor(self.values)


class Module:
    """As of torch: attributes are found in dicts, and a call is that of the network."""

    def __init__(self, **parameters):
        self.__dict__["_parameters"] = parameters

    def __getattr__(self, name):
        if name in self.__dict__.get("_parameters", {}):
            return self._parameters[name]
        raise AttributeError(name)

    def __call__(self, x):
        return x


class Key:
    """As of JAX: an array of keys is none of numbers."""

    dtype = "key<fry>"

    def __init__(self, *words):
        self.words = words

    def __array__(self, dtype=None, copy=None):
        raise TypeError("JAX array with PRNGKey dtype cannot be converted to a NumPy array")


HELD = {
    "parameter": lambda value: Tensor([value, 1], gradients=True),
    "bfloat16": lambda value: Tensor([value, 1], "torch.bfloat16", gradients=True, device="cuda"),
    "module": lambda value: Module(weight=Tensor([value], gradients=True), inner=Module(bias=Tensor([2]))),
    "key": lambda value: Key(value, 0),
}


@pytest.mark.parametrize("make", HELD.values(), ids=HELD)
def test_what_torch_and_jax_hold_is_part_of_a_run(make, tmp_path, monkeypatch):
    random = types.SimpleNamespace(key_data=lambda key: np.array(key.words, np.uint32))
    monkeypatch.setitem(sys.modules, "jax", types.SimpleNamespace(random=random))
    path = tmp_path / "a.npz"

    def potential(held):
        return mfld.Potential(lambda x: x if held is not None else -x, n_coordinates=1)

    checkpoint.run(make_solver(), potential(make(1)), 3, path=path)
    with pytest.raises(ValueError, match=r"objective\._gradient was"):
        checkpoint.run(make_solver(), potential(make(2)), 6, path=path)
    assert checkpoint.run(make_solver(), potential(make(1)), 6, path=path).state.step == 6


def test_types_that_numpy_lacks_are_told_apart():
    one, other = Tensor([1.0]), Tensor([1.0], "torch.bfloat16")
    assert description.describe(one) != description.describe(other)


def test_a_run_says_what_its_checkpoint_does_not_see(tmp_path):
    held = {"key": Key(1), "words": 80 * "w"}  # with no JAX to read it
    well = mfld.Potential(lambda x: x if held else -x, n_coordinates=1)
    message = (
        "cannot tell whether what it does not see has changed when a run goes on: objective._gradient has unseen Key"
    )
    with pytest.warns(RuntimeWarning, match=re.escape(message)):
        make_solver().run(well, 3, callbacks=[mfld.Checkpoint(tmp_path / "a.npz")])
