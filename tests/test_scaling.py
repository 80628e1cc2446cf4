"""The model of runs on many processes: its sizes are those of real messages, its formula that of messages replayed."""

import math
from collections import Counter

import numpy as np
import pytest

import mfld
from mfld.scaling import Machine, Work, measure, typical
from ranks import ALONE, on_ranks

CLUSTER = Machine(latency=3e-6, bandwidth=5e9, seconds_per_particle=2e-8, seconds_per_step=2e-5)


def problem(n, d=5, n_outputs=1):
    rng = np.random.default_rng(0)
    model = mfld.TwoLayerNetwork(d, n_outputs=n_outputs)
    return mfld.EmpiricalRisk(
        model, rng.normal(size=(n, d)), rng.normal(size=(n, n_outputs)), loss="half_squared", l2=1e-3
    )


@pytest.mark.parametrize("ranks", [2, 3, 5])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("n_particles", "n", "n_outputs", "gradient"),
    [
        (3000, 40, 2, mfld.Minibatch(10)),
        (700, 2500, 1, mfld.FullBatch()),  # several blocks
        (30_000, 300, 1, mfld.FullBatch()),  # more activations than fit the cache
        (3000, 100, 1, mfld.SARAH(10, 1000)),
        (20, 30, 1, mfld.FullBatch()),  # fewer leaves than processes
    ],
    ids=["minibatch", "blocks", "large", "sarah", "tiny"],
)
def test_messages_are_those_of_the_model(n_particles, n, n_outputs, gradient, dtype, ranks):
    risk = problem(n, n_outputs=n_outputs)
    solver = mfld.MFLD(n_particles, step_size=0.01, temperature=1e-3, gradient=gradient, dtype=dtype, num_threads=1)
    start, _ = solver.advance(risk, solver.init(risk), 1)  # a refresh, where there are any
    work = Work.of(solver, risk)
    expected = Counter([work.slot(ranks, rows) for rows in work.blocks * 3])
    assert sent_by_three_steps(solver, risk, start, ranks, "particles") == expected


@pytest.mark.parametrize("ranks", [2, 3, 5])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("n_particles", "n", "d", "n_outputs"), [(50, 40_000, 5, 2), (300, 70_000, 40, 1), (30, 500, 5, 1)]
)
def test_messages_of_shared_rows_are_those_of_the_model(n_particles, n, d, n_outputs, dtype, ranks):
    risk = problem(n, d, n_outputs)
    solver = mfld.MFLD(n_particles, step_size=0.01, temperature=1e-3, dtype=dtype, num_threads=1)
    start, _ = solver.advance(risk, solver.init(risk), 1)
    work = Work.of(solver, risk)
    assert (work.questions(ranks) > 0) == (d == 40)
    assert work.n_row_leaves == {40_000: 4, 70_000: 8, 500: 1}[n]
    expected = Counter({8: 3 * work.questions(ranks), work.gradient_slot(ranks): 3})
    assert sent_by_three_steps(solver, risk, start, ranks, "rows") == +expected


def sent_by_three_steps(solver, risk, start, ranks, shard):
    """Sizes of messages that five steps send more than two, and how many of each."""
    sent = []

    def advance(comm, n_steps):
        gather, sizes = comm.Allgather, []
        comm.Allgather = lambda mine, out: (sizes.append(memoryview(mine).nbytes), gather(mine, out))
        mfld.mpi.Sharded(solver, comm, shard=shard).advance(risk, start, n_steps)
        sent.append(Counter(sizes))

    on_ranks(ranks, lambda comm: advance(comm, 2))
    on_ranks(ranks, lambda comm: advance(comm, 5))
    return sent[-1] - sent[0]


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5, 8, 13, 64])
def test_the_formula_is_that_of_messages_replayed(ranks):
    work = Work(n_particles=200_000, n_features=10, n_rows=700)
    # The busiest share is that of every process here, 64 leaves among 1, 2, 4 ...; else it delays the others.
    replayed, formula = CLUSTER.replayed(work, ranks, n_steps=3), CLUSTER.step(work, ranks)
    if 64 % ranks == 0:
        assert replayed == pytest.approx(formula, rel=1e-12)
    assert replayed == pytest.approx(formula, rel=0.02)


def test_jitter_delays_everybody():
    work = Work(n_particles=200_000, n_features=10, n_rows=100)
    quiet = CLUSTER.replayed(work, 32)
    late = CLUSTER.replayed(work, 32, n_steps=200, jitter=0.1)
    # Everybody waits for the last of 32: the expected maximum of 32 exponentials is the harmonic number of 32, 4.06.
    share = (CLUSTER.seconds_per_step + CLUSTER.seconds_per_particle * work.n_particles / 32) / len(work.blocks)
    expected = quiet + len(work.blocks) * share * 0.1 * sum(1 / k for k in range(1, 33))
    assert late == pytest.approx(expected, rel=0.05)


def test_strong_and_weak_scaling_have_their_limits():
    counts = [1, 2, 4, 16, 64, 256, 4096]
    small, large = (Work(n_particles=n, n_features=30, n_rows=256) for n in (2_000, 10_000_000))
    strong = CLUSTER.strong(large, counts)
    assert strong[0] == 1
    assert (np.diff(strong[:5]) > 0).all()
    assert strong[4] > 0.9 * 64
    assert strong[5] < strong[4]  # 64 leaves: more processes have nothing to do but to exchange
    assert CLUSTER.best(large) == 64
    assert CLUSTER.best(small) <= 2
    assert CLUSTER.best(Work(n_particles=20_000, n_features=30, n_rows=256)) in (4, 8, 16)
    weak = CLUSTER.weak(Work(n_particles=100_000, n_features=30, n_rows=256), counts)
    assert (np.diff(weak) < 0).all()
    assert weak[4] > 0.8 > weak[5]


def test_memory_of_a_thousand_million_particles():
    work = Work(n_particles=10**9, n_features=1, n_rows=48)
    cloud = 10**9 * 3 * 4
    alone, many = work.memory(1), work.memory(64)
    assert 2 * cloud < many < 3 * cloud
    assert alone - 2 * cloud == pytest.approx(64 * (many - 2 * cloud), rel=1e-6)


def test_rows_are_shared_by_few_long_messages():
    work = Work(n_particles=1000, n_features=10, n_rows=10_000_000, isa="v4")
    machine = typical(work)
    assert work.n_leaves == 16
    assert work.n_row_leaves == 64
    # One message of the gradients of 1000 particles, by the formula of the module.
    message = math.ceil(math.log2(64)) * machine.latency + 63 * work.gradient_slot(64) / machine.bandwidth
    asked = 6 * machine.latency + 63 * 8 / machine.bandwidth
    moves = 20 * 12 / (20 * 12 + 2 * 10_000_000 * 18)
    share = moves + (1 - moves) * work.longest_share_of_rows(64)
    expected = machine.step(work) * share + work.questions(64) * asked + message
    assert machine.step(work, 64, "rows") == pytest.approx(expected, rel=1e-3)
    assert machine.step(work, 64, "rows") < machine.step(work, 16, "particles") / 5
    assert machine.best(work, shard="rows") == 64
    assert machine.best(work) <= 16
    assert work.memory(64, "rows") < 1.1 * work.memory(1, "rows")
    few = Work(n_particles=100_000, n_features=30, n_rows=256)
    assert typical(few).step(few, 16) < typical(few).step(few, 16, "rows") / 10
    with pytest.raises(ValueError, match="shard must be"):
        machine.step(work, 2, "samples")


def test_measured_numbers_predict_the_time_they_were_measured_from():
    risk = problem(200)
    solver = mfld.MFLD(2000, step_size=0.01, temperature=1e-3, num_threads=1)
    machine = measure(ALONE, solver, risk, seconds=0.05)
    assert machine.seconds_per_particle > 0
    assert machine.step(Work.of(solver, risk)) == pytest.approx(
        machine.seconds_per_step + 2000 * machine.seconds_per_particle
    )
    with pytest.raises(ValueError, match="gradient of the solver must be FullBatch"):
        measure(ALONE, mfld.MFLD(gradient=mfld.SVRG(8), step_size=0.1, temperature=1.0), risk)
    with pytest.raises(ValueError, match="latency must be"):
        Machine(0.0, 1.0, 1.0)
    assert math.isfinite(machine.latency)
