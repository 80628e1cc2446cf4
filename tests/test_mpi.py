"""Runs whose particles are shared out: the same bytes as in one process."""

import importlib.util
import math
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import mfld
from mfld import _core
from mfld.algorithms.psdca import dual_of_zero
from mfld.ranks import Ranks
from ranks import Meeting, ThreadComm, on_ranks, same

SKEW = np.triu(np.ones((6, 6)), 1) - np.tril(np.ones((6, 6)), -1)
N = 600  # particles: 38 leaves or fewer, shared unevenly among 3


def risk(n=150, n_outputs=1, dtype="float64"):
    rng = np.random.default_rng(5)
    inputs = rng.normal(size=(n, 4)).astype(dtype)
    targets = np.sin(inputs @ rng.normal(size=(4, n_outputs)))
    model = mfld.TwoLayerNetwork(4, n_outputs=n_outputs, activation="tanh")
    return mfld.EmpiricalRisk(model, inputs, targets, loss="half_squared", l2=1e-3, sample_weight=rng.uniform(1, 2, n))


def sharded(solver, count, objective, *arguments, **options):
    """Results of a run on so many ranks, all alike; that of rank 0."""
    results = on_ranks(count, lambda comm: mfld.mpi.Sharded(solver, comm).run(objective, *arguments, **options))
    for result in results:
        if isinstance(result, BaseException):
            raise result
        assert same(result.state, results[0].state)
    return results[0]


ESTIMATORS = [mfld.FullBatch(), mfld.Minibatch(16), mfld.SVRG(16, 7), mfld.SARAH(16, 7)]
DYNAMICS = [mfld.Overdamped(), mfld.Underdamped(friction=2.0), mfld.dynamics.Preconditioned()]


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("dynamics", DYNAMICS, ids=lambda part: type(part).__name__)
@pytest.mark.parametrize("gradient", ESTIMATORS, ids=lambda part: type(part).__name__)
def test_ranks_make_the_bytes_of_one_process(gradient, dynamics, dtype, count):
    solver = mfld.MFLD(N, step_size=0.05, temperature=1e-3, gradient=gradient, dynamics=dynamics, dtype=dtype)
    objective = risk(n_outputs=2)
    alone = solver.run(objective, 25, seed=3, record_every=10)
    together = sharded(solver, count, objective, 25, seed=3, record_every=10)
    assert same(together.state, alone.state)
    assert {k: v.tobytes() for k, v in together.history.items()} == {k: v.tobytes() for k, v in alone.history.items()}
    assert together.info == alone.info or np.isnan(alone.info.acceptance)
    assert np.ptp(alone.particles) > 0.1


def test_blocks_of_rows_and_threads_within_ranks():
    # 4000 particles by 3000 rows: many blocks, whose sums a rank of two threads joins before it meets the other one.
    solver = mfld.MFLD(4000, step_size=0.05, temperature=1e-3, num_threads=2)
    objective = risk(n=3000)
    assert same(sharded(solver, 2, objective, 2).state, solver.run(objective, 2).state)


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize(
    "solver",
    [
        *(
            mfld.MFLD(N, step_size=0.05, temperature=1e-3, gradient=gradient, dynamics=dynamics, n_replicates=3)
            for gradient, dynamics in zip(
                [mfld.FullBatch(), mfld.SVRG(16, 7), mfld.Minibatch(8)], DYNAMICS, strict=True
            )
        ),
        mfld.PDA(N, step_size=0.1, temperature=1e-2, inner_steps=3, batch_size=20, n_replicates=2),
        mfld.PSDCA(100, temperature=0.1, n_replicates=2),
    ],
    ids=lambda solver: f"{type(solver).__name__} {type(getattr(solver, 'dynamics', None)).__name__}",
)
def test_replicates_are_those_of_one_process(solver, count):
    model = mfld.TwoLayerNetwork(4, readout="bounded", readout_bound=2.0)
    objective = mfld.EmpiricalRisk(model, risk().inputs, risk().targets, loss="half_squared", l2=1e-2)
    n_steps = 6 if isinstance(solver, mfld.MFLD) else 2
    alone = solver.run(objective, n_steps, seed=3)
    together = sharded(solver, count, objective, n_steps, seed=3)
    assert same(together.state, alone.state)
    assert {k: v.tobytes() for k, v in together.history.items()} == {k: v.tobytes() for k, v in alone.history.items()}
    assert np.ptp(alone.state.clouds["mu"].particles, axis=0).min() > 0  # replicates differ


# Rows, particles, features: of 4, 8 and 4 leaves of rows.
MANY_ROWS = [(40_000, 20, 4), (70_000, 20, 4), (40_000, 300, 4)]


def tall(n, n_features, n_outputs=1, dtype="float64", **options):
    rng = np.random.default_rng(5)
    inputs = rng.normal(size=(n, n_features)).astype(dtype)
    model = mfld.TwoLayerNetwork(n_features, n_outputs=n_outputs, activation="tanh")
    targets = np.sin(inputs[:, :n_outputs])
    return mfld.EmpiricalRisk(model, inputs, targets, loss="half_squared", l2=1e-3, **options)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("size", "dynamics", "counts", "num_threads"),
    [
        (MANY_ROWS[0], DYNAMICS[0], (2, 3, 4), 1),
        (MANY_ROWS[1], DYNAMICS[1], (2, 4, 9), 1),
        (MANY_ROWS[1], DYNAMICS[2], (2, 3), 1),
        (MANY_ROWS[2], DYNAMICS[0], (2, 4), 2),
    ],
    ids=["4 leaves", "underdamped, fewer leaves than ranks", "preconditioned", "two threads"],
)
def test_ranks_that_share_rows_make_the_bytes_of_one_process(size, dynamics, counts, num_threads, dtype):
    n, n_particles, n_features = size
    weights = np.random.default_rng(1).uniform(1, 2, n)
    objective = tall(n, n_features, 2, dtype, sample_weight=weights)
    solver = mfld.MFLD(
        n_particles, step_size=0.05, temperature=1e-3, dynamics=dynamics, dtype=dtype, num_threads=num_threads
    )
    alone = solver.run(objective, 5, seed=3, record_every=2)
    assert mfld.scaling.Work.of(solver, objective).n_row_leaves >= 4
    for count, shard in [(count, "rows") for count in counts] + [(3, "particles")]:

        def run(comm, shard=shard):
            return mfld.mpi.Sharded(solver, comm, shard=shard).run(objective, 5, seed=3, record_every=2)

        for together in on_ranks(count, run):
            assert same(together.state, alone.state)
            for name, values in alone.history.items():
                assert together.history[name].tobytes() == values.tobytes(), name
    assert np.ptp(alone.particles) > 0.1


def test_a_sum_over_leaves_of_rows_is_that_over_rows():
    # The same rows in two orders: other leaves, and the same numbers to rounding.
    objective = tall(40_000, 4, sample_weight=np.linspace(1, 2, 40_000))
    order = np.random.default_rng(0).permutation(40_000)
    other = mfld.EmpiricalRisk(
        objective.model,
        objective.inputs[order],
        objective.targets[order],
        loss="half_squared",
        l2=1e-3,
        sample_weight=objective.sample_weight[order],
    )
    solver = mfld.MFLD(20, step_size=0.5, temperature=0.0, dtype="float64")
    one, two = (solver.run(risk, 3) for risk in (objective, other))
    particles = np.array(solver.init(objective).particles)
    for _ in range(3):  # the loss's gradient by other kernels, which know no leaves
        particles = particles - 0.5 * (objective.loss_gradient(particles) + 2e-3 * particles)
    for found in (one, two):
        np.testing.assert_allclose(found.particles, particles, rtol=1e-9, atol=1e-12)
    assert one.particles.tobytes() != two.particles.tobytes()


@pytest.mark.parametrize("delay", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("shard", ["particles", "rows"])
def test_an_interrupt_of_one_rank_ends_all(shard, delay):
    objective, solver = tall(70_000, 40, dtype="float32"), mfld.MFLD(300, step_size=0.05, temperature=1e-3)
    meeting, found = Meeting(2), {}
    comms = [ThreadComm(meeting, rank) for rank in range(2)]

    def run(rank):
        sharded = mfld.mpi.Sharded(solver, comms[rank], shard=shard)
        try:
            sharded.advance(objective, sharded.init(objective), 10**6)
        except KeyboardInterrupt as error:
            found[rank] = error.state

    def handler(number, frame):
        # That of MPI is no code in Python, within which a handler could run.
        while frame is not None:
            if frame.f_code is ThreadComm.Allgather.__code__:
                threading.Timer(0.002, signal.raise_signal, [number]).start()
                return
            frame = frame.f_back
        raise KeyboardInterrupt

    def interrupt():
        while comms[0].meetings < 3:  # the first steps have begun
            time.sleep(0.001)
        time.sleep(delay)
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, handler)
    other = threading.Thread(target=run, args=(1,))
    timer = threading.Thread(target=interrupt)
    try:
        other.start()
        timer.start()
        run(0)
        other.join(60)
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)
    assert not other.is_alive()
    assert same(found[0], found[1])
    assert same(found[0], solver.run(objective, found[0].step).state)


@pytest.mark.parametrize("particle", [3, 17])
def test_a_divergence_ends_all_that_share_rows(particle):
    objective, solver = tall(40_000, 4), mfld.MFLD(20, step_size=50.0, temperature=1e-3)
    start = np.array(solver.init(objective).particles)
    start[particle] = 1e3
    with pytest.raises(mfld.DivergenceError) as alone:
        solver.run(objective, 300, particles=start)
    for error in on_ranks(
        3, lambda comm: mfld.mpi.Sharded(solver, comm, shard="rows").run(objective, 300, particles=start)
    ):
        assert isinstance(error, mfld.DivergenceError), error
        assert str(error) == str(alone.value)
        assert same(error.state, alone.value.state)


def test_what_is_shared_is_chosen_and_said():
    solver, many, few = mfld.MFLD(20, step_size=0.05, temperature=1e-3), tall(70_000, 4), risk()
    batches = mfld.MFLD(20, step_size=0.05, temperature=1e-3, gradient=mfld.Minibatch(16))

    def run(comm):
        chosen = mfld.mpi.Sharded(solver, comm)
        assert [chosen.plan(one).shard for one in (many, few)] == ["rows", "particles"]
        plan = chosen.plan(many)
        assert plan.seconds["rows"] < plan.seconds["particles"]
        assert str(plan).startswith("8 processes share rows: by the model ")
        slow = mfld.scaling.Machine(latency=1.0, bandwidth=1e9, seconds_per_particle=1e-6)
        assert mfld.mpi.Sharded(solver, comm, shard="particles").plan(many).shard == "particles"
        assert mfld.mpi.Sharded(solver, comm, shard="rows").plan(few).shard == "rows"
        assert mfld.mpi.Sharded(solver, comm, machine=slow).plan(many).shard == "rows"  # one message and not many
        assert "shard='auto'" in repr(chosen)
        assert mfld.mpi.Sharded(batches, comm).plan(many).shard == "particles"
        assert "rows are shared in full gradients" in str(mfld.mpi.Sharded(batches, comm).plan(many))
        with pytest.raises(ValueError, match="shard must be 'particles' or 'auto' here"):
            mfld.mpi.Sharded(batches, comm, shard="rows").run(many, 1)

    assert on_ranks(8, run) == [None] * 8


def test_ranks_that_share_rows_read_their_own():
    # Rows of the other rank are not numbers: whoever looked at them would have none either.
    solver, objective = mfld.MFLD(20, step_size=0.05, temperature=1e-3), tall(40_000, 4, dtype="float32")
    alone = solver.run(objective, 1).state

    def run(comm):
        ranks = Ranks(comm, by_rows=True)
        problem = objective.over_ranks(ranks).native(np.dtype("float32"))
        half = slice(20_000, None) if comm.rank == 0 else slice(20_000)
        inputs = problem.inputs.copy()
        inputs[half] = np.nan
        particles = np.array(solver.init(objective).clouds["mu"].particles)
        dynamics = mfld.Overdamped().native(particles, {}).form
        estimator = mfld.FullBatch().native(objective, particles, {}).form
        coefficients = mfld.Overdamped().coefficients(0.05, 1e-3, 1e-3)
        _core.backend.advance(
            *problem[:2],
            particles,
            inputs,
            *problem[3:5],
            estimator,
            dynamics,
            coefficients,
            1,
            [alone.key],
            0,
            ranks=ranks.native,
        )
        return particles.tobytes()

    assert on_ranks(2, run) == [alone.clouds["mu"].particles.tobytes()] * 2


def test_a_divergence_of_one_replicate_ends_all():
    solver = mfld.MFLD(N, step_size=50.0, temperature=1e-3, gradient=mfld.SVRG(16, 7), n_replicates=3)
    objective = risk()
    start = np.array(solver.init(objective).clouds["mu"].particles)
    start[1, N - 2] = 1e3
    with pytest.raises(mfld.DivergenceError) as alone:
        solver.run(objective, 300, particles=start)
    for error in on_ranks(3, lambda comm: mfld.mpi.Sharded(solver, comm).run(objective, 300, particles=start)):
        assert isinstance(error, mfld.DivergenceError), error
        assert str(error) == str(alone.value)
        assert same(error.state, alone.value.state)


def test_more_ranks_than_leaves():
    solver = mfld.MFLD(5, step_size=0.05, temperature=1e-3)
    assert same(sharded(solver, 3, risk(), 10).state, solver.run(risk(), 10).state)


@pytest.mark.parametrize(
    "solver",
    [
        mfld.PDA(N, step_size=0.1, temperature=1e-2, inner_steps=3, batch_size=20),
        mfld.PSDCA(200, temperature=0.1),
        mfld.MFLD(N, step_size=0.05, temperature=1e-3, dynamics=mfld.dynamics.Irreversible(SKEW)),
        mfld.MFLD(N, step_size=None, temperature=1e-3),
        mfld.MFLD(N, step_size=0.05, temperature=1e-3, gradient=mfld.PerParticleMinibatch(8)),
    ],
    ids=["PDA", "PSDCA", "a dynamics of Python", "automatic step", "rows of each particle"],
)
def test_what_the_core_does_not_fuse_is_shared_too(solver):
    model = mfld.TwoLayerNetwork(4, readout="bounded", readout_bound=2.0)
    rows = risk(n=60)
    objective = mfld.EmpiricalRisk(model, rows.inputs, rows.targets, loss="half_squared", l2=1e-2)
    assert same(sharded(solver, 2, objective, 4).state, solver.run(objective, 4).state)


SWEPT = 60_000  # particles: so many that two ranks share a sweep, and four do where there are three outputs


def swept(comm, dtype, n_outputs=1, loss="half_squared", groups=1, num_threads=1, n=40, variance=4.0):
    """Rows that a sweep of dual ascent visits, and the bytes that it leaves: log-weights, dual variables."""
    rng = np.random.default_rng(2)
    inputs = rng.normal(size=(n, 6)).astype(dtype)
    targets = rng.integers(0, n_outputs, n) if loss == "cross_entropy" else np.sin(inputs[:, :n_outputs])
    model = mfld.TwoLayerNetwork(6, n_outputs=n_outputs, readout="bounded", readout_bound=2.0)
    objective = mfld.EmpiricalRisk(model, inputs, targets, loss=loss, l2=1e-2)
    problem = (objective if comm is None else objective.over_ranks(Ranks(comm))).native(np.dtype(dtype))
    particles = rng.normal(size=(SWEPT, objective.n_coordinates)).astype(dtype)
    log_weights, dual = rng.normal(size=SWEPT) / 10, dual_of_zero(objective) / 2
    ends = np.linspace(0, SWEPT, groups + 1).astype(int)
    numbers = (0.02, variance, 2.0, 0.5)  # temperature, bounds on the neurons' variance and size, effective share
    done = _core.backend.dual_sweep(
        *problem[:2],
        particles,
        *problem[2:5],
        rng.permutation(n),
        np.diff(ends),
        *numbers,
        log_weights,
        dual,
        num_threads,
        problem.ranks,
    )
    return done, log_weights.tobytes(), dual.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "case",
    [
        {},
        {"n_outputs": 3, "num_threads": 2},
        {"n_outputs": 3, "loss": "cross_entropy", "groups": 7},
        {"variance": 0.1},
    ],
    ids=["one output", "three outputs", "coupled, groups", "early end"],
)
def test_a_sweep_of_dual_ascent_shares_its_weights(dtype, case):
    alone = swept(None, dtype, **case)
    assert (alone[0] < 40) == (len(case) > 0)  # the weights degenerate
    met = {}
    for count in (1, 2, 4):

        def one(comm, count=count):
            found = swept(comm, dtype, **case)
            met[count] = comm.meetings
            return found

        assert on_ranks(count, one) == [alone] * count
    assert met[2] > alone[0]  # at every visit
    assert (met[4] > alone[0]) == (case.get("n_outputs") == 3)  # else each makes the sweep by itself


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", ["logistic", "cross_entropy"])
def test_chains_of_a_refresh_stay_where_they_are(loss, dtype, monkeypatch):
    n, rng = 900, np.random.default_rng(1)
    inputs = rng.normal(size=(40, 4))
    n_outputs, targets = (1, np.sign(inputs[:, 0])) if loss == "logistic" else (3, rng.integers(0, 3, 40))
    model = mfld.TwoLayerNetwork(4, n_outputs=n_outputs, readout="bounded", readout_bound=2.0)
    objective = mfld.EmpiricalRisk(model, inputs, targets, loss=loss, l2=0.1)
    solver = mfld.PSDCA(n, temperature=0.1, dtype=dtype)
    alone = solver.run(objective, 2, seed=4)
    for count in (2, 3, 4, 20):  # fewer leaves than the last
        assert same(sharded(solver, count, objective, 2, seed=4).state, alone.state)
    assert alone.state.buffers["sampler_moves"][0] > 3

    evaluated, sent, pull_back = [], [], mfld.TwoLayerNetwork.pull_back
    monkeypatch.setattr(
        mfld.TwoLayerNetwork, "pull_back", lambda *own: (evaluated.append(len(own[1])), pull_back(*own))[1]
    )

    def run(comm):
        gather = comm.Allgather
        comm.Allgather = lambda mine, out: (sent.append(memoryview(mine).nbytes), gather(mine, out))
        return mfld.mpi.Sharded(solver, comm).run(objective, 2, seed=4)

    on_ranks(2, run)
    assert max(evaluated) <= 512  # 8 of 15 leaves
    moves = alone.state.buffers["sampler_moves"][0]
    cloud = 512 * objective.n_coordinates * np.dtype(dtype).itemsize
    # Positions once a refresh, and not once a move.
    assert sum(size >= cloud for size in sent) < moves


def test_a_run_of_dual_ascent_with_shared_sweeps():
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(30, 6))
    model = mfld.TwoLayerNetwork(6, readout="bounded", readout_bound=2.0)
    objective = mfld.EmpiricalRisk(model, inputs, np.sign(inputs[:, 0]), loss="logistic", l2=0.1)
    solver = mfld.PSDCA(SWEPT, temperature=0.1)
    alone = solver.run(objective, 2, seed=4)
    assert same(sharded(solver, 2, objective, 2, seed=4).state, alone.state)


@pytest.mark.parametrize("block", [0, 1, 12])
def test_a_stop_on_one_rank_ends_a_shared_sweep_on_all(block):
    def run(comm):
        gather = comm.Allgather

        def stopping(mine, out):
            if comm.rank == 1 and comm.meetings == block:
                mine = np.frombuffer(bytearray(mine)).copy()
                mine.view(np.int64 if block == 0 else np.float64)[0] = 1
            gather(mine, out)

        comm.Allgather = stopping
        with pytest.raises(KeyboardInterrupt):
            swept(comm, "float32")
        return comm.meetings

    first, second = on_ranks(2, run)
    assert first == second <= block + 4  # what is left of the pass, the weights, and whether to stop


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count", [2, 3])
def test_kernel_objectives_share_their_pairs(count, dtype):
    rng = np.random.default_rng(0)
    objective = mfld.MMD(rng.normal(size=(90, 2)), mfld.kernels.Gaussian(1.0), smoothing=0.1, l2=1e-3)
    solver = mfld.MFLD(300, step_size=0.2, temperature=1e-4, dtype=dtype)
    alone, together = (
        run(objective, 6, seed=2) for run in (solver.run, lambda *a, **k: sharded(solver, count, *a, **k))
    )
    assert same(together.state, alone.state)
    assert together.history["loss"].tobytes() == alone.history["loss"].tobytes()
    mixture = mfld.MMD(mfld.mixtures.GaussianMixture(None, [[0.0, 0.0]], 1.0), mfld.kernels.Gaussian(1.0))
    with pytest.raises(TypeError, match="MMD from samples"):
        sharded(solver, 1, mixture, 2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count", [2, 4])
def test_a_stein_discrepancy_shares_its_pairs(count, dtype, monkeypatch):
    factors = np.random.default_rng(3).normal(size=(3, 3))
    wells = mfld.potentials.Gaussian(np.zeros(3), factors @ factors.T + np.eye(3))  # a product of BLAS
    objective = mfld.KSD(wells, mfld.kernels.InverseMultiquadric(1.0), l2=1e-3)
    solver = mfld.MFLD(300, step_size=0.05, temperature=1e-3, dtype=dtype)
    alone, together = (
        run(objective, 6, seed=2) for run in (solver.run, lambda *a, **k: sharded(solver, count, *a, **k))
    )
    assert same(together.state, alone.state)
    assert together.history["loss"].tobytes() == alone.history["loss"].tobytes()
    sizes, alone_of = [], mfld.kernels.InverseMultiquadric.stein_of
    expected = objective.loss(alone.state.measure)
    monkeypatch.setattr(
        mfld.kernels.InverseMultiquadric, "stein_of", lambda *own: (sizes.append(len(own[1])), alone_of(*own))[1]
    )
    found = on_ranks(count, lambda comm: objective.over_ranks(Ranks(comm)).loss(alone.state.measure))
    assert found == [expected] * count
    assert max(sizes) <= 192  # of 300: nobody sums all


@pytest.mark.parametrize("count", [2, 4])
def test_certificates_are_those_of_one_process(count):
    objective = mfld.EmpiricalRisk(
        mfld.TwoLayerNetwork(4, readout="bounded", readout_bound=2.0),
        risk(n=40).inputs,
        risk(n=40).targets,
        loss="half_squared",
        l2=1e-1,
    )
    result = mfld.MFLD(100, step_size=0.2, temperature=0.1).run(objective, 20)
    options = {"n_chains": 320, "seed": 2}
    expected = mfld.certificate(objective, result.algorithm.dual(objective, result.state), 0.1, **options)
    dual = result.algorithm.dual(objective, result.state)
    found = on_ranks(
        count, lambda comm: mfld.mpi.Sharded(result.algorithm, comm).certificate(result, dual=dual, **options)
    )
    assert [repr(one) for one in found] == [repr(expected)] * count


def test_messages_are_predictions_and_not_particles():
    solver = mfld.MFLD(5000, step_size=0.05, temperature=1e-3, gradient=mfld.Minibatch(8))
    sizes = []

    def run(comm):
        gather = comm.Allgather
        if comm.rank == 0:
            comm.Allgather = lambda mine, out: (sizes.append(memoryview(mine).nbytes), gather(mine, out))
        sharded = mfld.mpi.Sharded(solver, comm)
        return sharded.advance(risk(), sharded.init(risk()), 50)

    on_ranks(2, run)
    assert sum(size < 1024 for size in sizes) >= 50  # one for each step: 8 rows in float32 and the news
    assert sum(size > 2000 for size in sizes) <= 3  # the cloud, once, in parts of a megabyte


def test_a_checkpoint_is_one_file_for_any_number_of_ranks(tmp_path):
    solver, objective = mfld.MFLD(N, step_size=0.05, temperature=1e-3, gradient=mfld.SVRG(16, 7)), risk()
    path = tmp_path / "state.npz"
    sharded(solver, 4, objective, 20, callbacks=[mfld.Checkpoint(path, every=10)])
    state = mfld.checkpoint.load(path, algorithm=solver, objective=objective)
    assert same(sharded(solver, 3, objective, 15, state=state).state, solver.run(objective, 35).state)


def test_a_run_with_a_file_goes_on_on_any_number_of_ranks(tmp_path):
    solver, objective = mfld.MFLD(N, step_size=0.05, temperature=1e-3), risk()
    path = tmp_path / "run.npz"

    def run(count, n_steps):
        return on_ranks(
            count, lambda comm: mfld.checkpoint.run(mfld.mpi.Sharded(solver, comm), objective, n_steps, path=path)
        )

    run(2, 12)
    for result in run(3, 30):
        assert len(result.history["step"]) == 18  # it went on
        assert same(result.state, solver.run(objective, 30).state)
    first, second = run(2, 20)
    assert isinstance(first, ValueError)
    assert "n_steps must be at least 30" in str(first)
    assert str(second) == str(first)
    path.write_bytes(b"no checkpoint")
    first, second = run(2, 40)
    assert isinstance(first, ValueError)
    assert isinstance(second, RuntimeError)


class _StopAt(mfld.Callback):
    every = 1

    def __init__(self, step, error=None):
        self.step, self.error, self.calls = step, error, 0

    def __call__(self, state, info):
        self.calls += 1
        if state.step >= self.step:
            if self.error:
                raise self.error
            return True
        return False


def test_rank_0_calls_callbacks_and_stops_all():
    solver, callback = mfld.MFLD(N, step_size=0.05, temperature=1e-3), _StopAt(7)
    result = sharded(solver, 2, risk(), 100, callbacks=[callback, mfld.Progress()])
    assert result.state.step == 7
    assert callback.calls == 7
    assert same(result.state, solver.run(risk(), 7).state)


def test_what_a_callback_raises_ends_all():
    solver, broken = mfld.MFLD(N, step_size=0.05, temperature=1e-3), _StopAt(3, OSError("the disk is full"))
    first, second = on_ranks(
        2, lambda comm: mfld.mpi.Sharded(solver, comm).run(risk(), 10, callbacks=[broken] if comm.rank == 0 else [])
    )
    assert isinstance(first, OSError)
    assert isinstance(second, RuntimeError)
    assert "the disk is full" in str(second)
    assert same(first.state, second.state)


@pytest.mark.parametrize("dynamics", DYNAMICS[:2], ids=lambda part: type(part).__name__)
@pytest.mark.parametrize("particle", [3, N - 2])  # of the first rank, of the last
def test_a_divergence_on_one_rank_ends_all(particle, dynamics):
    solver = mfld.MFLD(N, step_size=50.0, temperature=1e-3, dynamics=dynamics, gradient=mfld.SVRG(16, 7))
    objective = risk()
    start = np.array(solver.init(objective).particles)
    start[particle] = 1e3
    with pytest.raises(mfld.DivergenceError) as alone:
        solver.run(objective, 300, particles=start)
    found = on_ranks(3, lambda comm: mfld.mpi.Sharded(solver, comm).run(objective, 300, particles=start))
    for error in found:
        assert isinstance(error, mfld.DivergenceError), error
        assert str(error) == str(alone.value)
        assert same(error.state, alone.value.state)


def test_a_failed_meeting_leaves_the_state_as_it_was():
    solver, objective = mfld.MFLD(N, step_size=0.05, temperature=1e-3, gradient=mfld.SVRG(16, 7)), risk()

    def run(comm):
        meet, end = comm.Allgather, math.inf

        def fail(mine, out):
            if comm.meetings == end:
                raise ConnectionError("the network is down")
            meet(mine, out)

        comm.Allgather = fail
        sharded = mfld.mpi.Sharded(solver, comm)
        state, _ = sharded.advance(objective, sharded.init(objective), 5)
        end = comm.meetings + 20
        with pytest.raises(ConnectionError, match="down") as caught:
            sharded.advance(objective, state, 50)
        return caught.value.state, state

    for reached, before in on_ranks(2, run):
        assert same(reached, before)


def test_what_cannot_be_shared_is_refused():
    def run(comm):
        well = mfld.Potential(lambda x: x, n_coordinates=1)
        with pytest.raises(TypeError, match="objective must be an EmpiricalRisk"):
            mfld.mpi.Sharded(mfld.MFLD(step_size=0.1, temperature=1.0), comm).run(well, 1)
        with pytest.raises(TypeError, match="solver must be an Algorithm"):
            mfld.mpi.Sharded(3, comm)

    assert on_ranks(1, run) == [None]


@pytest.mark.parametrize("name", ["shard", "solver", "objective", "n_steps", "seed", "particles"])
def test_processes_that_were_given_other_things_are_refused(name):
    # They would hang, or compute the predictions of one cloud from particles of several.
    objective = risk(20)

    def run(comm):
        other = name if comm.rank == 1 else None
        solver = mfld.MFLD(130 + (other == "solver"), step_size=0.1, temperature=0.01, num_threads=1 + comm.rank)
        shared = mfld.mpi.Sharded(solver, comm, shard="rows" if other == "shard" else "particles")
        given = risk(20 + (other == "objective"))
        particles = np.full((130, objective.n_coordinates), 1.0 + comm.rank) if name == "particles" else None
        n_steps, seed = 2 + (other == "n_steps"), 3 + (other == "seed")
        with pytest.raises(ValueError, match=f"{name} must be the same on all processes, got another on rank 1 "):
            shared.run(given, n_steps, seed, particles=particles)

    assert on_ranks(2, run) == [None] * 2


def test_values_of_the_data_are_compared():
    inputs = np.linspace(-1, 1, 20)[:, np.newaxis]

    def run(comm, differ):
        targets = np.random.default_rng(comm.rank if differ else 0).standard_normal(20)  # as if no seed were given
        given = mfld.EmpiricalRisk(mfld.TwoLayerNetwork(1), inputs, targets, loss="half_squared")
        mfld.mpi.Sharded(mfld.MFLD(130, step_size=0.1, temperature=0.01, l2=0.1), comm).run(given, 2)

    refused = on_ranks(2, lambda comm: run(comm, True))
    assert all("objective must be the same" in str(error) for error in refused), refused
    assert on_ranks(2, lambda comm: run(comm, False)) == [None] * 2


# ---- with MPI itself

# That of the mpich wheel first, which stands beside Python.
MPIRUN = shutil.which("mpirun", path=str(Path(sys.executable).parent)) or shutil.which("mpirun")
MPI = pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None or MPIRUN is None, reason="needs mpi4py and mpirun")


def mpirun(count, path, text, *arguments, **options):
    path.write_text(textwrap.dedent(text))
    command = [MPIRUN, "-n", str(count), sys.executable, "-m", "mpi4py", str(path), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


PROBLEM = """
    import sys, time
    import numpy as np
    import mfld
    from mpi4py import MPI
    inputs = np.random.default_rng(5).normal(size=(100, 4))
    risk = mfld.EmpiricalRisk(mfld.TwoLayerNetwork(4), inputs, np.sin(inputs[:, 0]), loss="half_squared", l2=1e-3)
    solver = mfld.MFLD(600, step_size=0.05, temperature=1e-3, gradient=mfld.SVRG(16, 7), num_threads=1)
"""


@MPI
def test_mpi_makes_the_bytes_of_one_process(tmp_path):
    script = PROBLEM + (
        """
    result = mfld.mpi.Sharded(solver).run(risk, 40, callbacks=[mfld.Checkpoint(sys.argv[1], every=20)])
    alone = solver.run(risk, 40)
    same = result.particles.tobytes() == alone.particles.tobytes()
    sys.stdout.write(f"{same} {MPI.COMM_WORLD.Get_size()}\\n")
    """
    )
    process = mpirun(2, tmp_path / "script.py", script, tmp_path / "state.npz")
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert output.split() == ["True", "2"] * 2
    assert mfld.checkpoint.load(tmp_path / "state.npz").step == 40


@MPI
def test_mpi_processes_share_rows(tmp_path):
    script = PROBLEM + (
        """
    rows, targets = (np.tile(array, (400, 1)) for array in (inputs, risk.targets))
    tall = mfld.EmpiricalRisk(risk.model, rows, targets, loss="half_squared")
    small = mfld.MFLD(20, step_size=0.05, temperature=1e-3, num_threads=1)
    sharded = mfld.mpi.Sharded(small)
    plan, result, alone = sharded.plan(tall), sharded.run(tall, 40), small.run(tall, 40)
    same = result.particles.tobytes() == alone.particles.tobytes()
    sys.stdout.write(f"{same} {plan.shard}\\n")
    """
    )
    process = mpirun(2, tmp_path / "script.py", script)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert output.split() == ["True", "rows"] * 2


@MPI
def test_a_divergence_ends_all_processes_cleanly(tmp_path):
    script = PROBLEM + (
        """
    wild = mfld.MFLD(600, step_size=50.0, temperature=1e-3, gradient=mfld.SVRG(16, 7), num_threads=1)
    start = np.array(wild.init(risk).particles)
    start[598] = 1e3  # of the last process
    try:
        mfld.mpi.Sharded(wild).run(risk, 300, particles=start)
    except mfld.DivergenceError as error:
        sys.stdout.write(f"diverged {error.state.step}\\n")
    """
    )
    process = mpirun(2, tmp_path / "script.py", script)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    first, second = output.splitlines()
    assert first == second
    assert first.startswith("diverged")


@MPI
def test_the_command_line_trains_over_processes(tmp_path):
    rows = np.random.default_rng(1).normal(size=(200, 3))
    table = tmp_path / "table.csv"
    np.savetxt(table, np.column_stack([rows, np.sin(rows[:, 0])]), delimiter=",")
    command = [sys.executable, "-m", "mfld", "train", str(table), "--n-steps", "50", "--quiet", "--num-threads", "1"]

    def run(words):
        return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)

    def train(name, *more, before=()):
        done = run([*before, *command, "--output", str(tmp_path / name), *more])
        assert done.returncode == 0, done.stderr
        return done.stdout, np.load(tmp_path / name)["particles"].tobytes()

    _, alone = train("alone.npz")
    shared, together = train("shared.npz", "--mpi", before=[MPIRUN, "-n", "2"])
    assert together == alone
    assert shared.count("trained in") == 1
    wrong = run([MPIRUN, "-n", "2", *command, "--mpi", "--batch-size", "1000"])
    assert wrong.returncode == 2
    assert wrong.stderr.count("mfld: --batch-size must be") == 1


@MPI
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_end_of_one_rank_is_the_end_of_all(tmp_path, number):
    script = PROBLEM + (
        """
    import os
    name = sys.argv[2] + str(MPI.COMM_WORLD.Get_rank())
    open(name + ".new", "w").write(str(os.getpid()))
    os.rename(name + ".new", name)
    mfld.mpi.Sharded(solver).run(risk, 10**9, record_every=[], callbacks=[mfld.Checkpoint(sys.argv[1], every=50)])
    """
    )
    state, pid = tmp_path / "state.npz", tmp_path / "pid"
    process = mpirun(2, tmp_path / "script.py", script, state, pid)
    deadline = time.monotonic() + 60
    pids = [pid.with_name(f"pid{rank}") for rank in range(2)]
    files = [state, *pids]
    while not all(file.exists() for file in files) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    ranks = [int(file.read_text()) for file in pids]
    os.kill(ranks[1], number)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert mfld.checkpoint.load(state).step > 0
    deadline = time.monotonic() + 30
    while any(map(_lives, ranks)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_lives, ranks)), "a process hangs"


def _lives(number):
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True
