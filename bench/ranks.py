"""One run over MPI ranks: step times against the model of `mfld.scaling`, and against threads of one process.

    mpirun -n 4 python -m mpi4py bench/ranks.py                      about three minutes
    mpirun -n 2 python -m mpi4py bench/ranks.py --seconds 60

Each line is a case of bench/cases.py, and what is shared: seconds of a step of one process, of one with two threads, of
two, and of four where there are as many. Layouts take turns in windows of a quarter of a second, so that what a call
costs once does not count, and the best window of each counts, since whoever else is on the machine only makes them
longer. Processes that have no part in a layout sleep. The model has the best exchange of these processes and the best
step of one. At the end P-SDCA: processor time of a rank, its waiting left out, since MPICH spins meanwhile.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from cases import L2, SCHEDULE, Case, Problem, make_problem
from mpi4py import MPI

import mfld
from mfld.scaling import Machine, Work

CASES = (
    Case("full batch", 4096, 1797, 64),
    Case("full batch", 10_000, 2000, 100),
    Case("full batch", 2000, 10_000, 32),
    Case("full batch", 512, 60_000, 784),
    Case("full batch", 200, 200_000, 10),
    Case("mini-batch", 10_000, 2000, 100, batch_size=128),
    Case("odd and large", 100_000, 1000, 10, batch_size=32),
)


class Layout(NamedTuple):
    ranks: int
    threads: int


ONE, THREADS, TWO, FOUR = Layout(1, 1), Layout(1, 2), Layout(2, 1), Layout(4, 1)


class Watched:
    """A communicator, and the processor time that its messages took."""

    def __init__(self, comm: Any) -> None:
        self.comm, self.seconds = comm, 0.0
        self.Get_rank, self.Get_size, self.bcast = comm.Get_rank, comm.Get_size, comm.bcast

    def Allgather(self, mine: Any, all_of_them: Any, /) -> None:
        begin = time.process_time()
        self.comm.Allgather(mine, all_of_them)
        self.seconds += time.process_time() - begin


def risk_of(problem: Problem) -> mfld.EmpiricalRisk:
    case = problem.case
    model = mfld.TwoLayerNetwork(case.n_features, n_outputs=case.n_outputs, activation=case.activation)
    return mfld.EmpiricalRisk(model, problem.inputs, problem.targets, loss=case.loss, l2=L2)


def asleep(world: Any) -> None:
    """Until all are here, without spinning."""
    request = world.Ibarrier()
    while not request.Test():
        time.sleep(5e-4)


def best(
    world: Any, comms: dict[int, Any], actions: dict[Any, Callable[[Any], None]], seconds: float
) -> dict[Any, float]:
    """Shortest time of each action, of those who take part in it; keys begin with the number of ranks."""
    taken, end = dict.fromkeys(actions, math.inf), time.perf_counter() + seconds
    while world.bcast(time.perf_counter() < end):
        for key, action in actions.items():
            asleep(world)
            if world.rank < key[0]:
                comms[key[0]].Barrier()
                begin = time.perf_counter()
                action(comms[key[0]])
                taken[key] = min(taken[key], time.perf_counter() - begin)
    return {key: float(world.bcast(seconds)) for key, seconds in taken.items()}


def exchanges(comm: Any, size: int, count: int = 200) -> float:
    """Shortest time of an exchange, of many."""
    slots, mine, taken = bytearray(size * comm.Get_size()), bytes(size), math.inf
    for _ in range(count):
        begin = time.perf_counter()
        comm.Allgather(mine, slots)
        taken = min(taken, time.perf_counter() - begin)
    return taken


def links(world: Any, comms: dict[int, Any]) -> dict[int, tuple[float, float]]:
    """Latency and bandwidth of so many ranks."""
    short, long, seconds = 128, 1 << 18, {}
    for ranks in list(comms)[1:]:
        for size in (short, long):
            asleep(world)
            # From rank 0, which has waited for the others: an exchange that they were late for is no shorter.
            seconds[ranks, size] = world.bcast(exchanges(comms[ranks], size) if world.rank < ranks else None)
    return {1: (1e-6, 1e10)} | {
        ranks: (
            seconds[ranks, short] / math.ceil(math.log2(ranks)),
            (ranks - 1) * long / max(seconds[ranks, long] - seconds[ranks, short], 1e-9),
        )
        for ranks in comms
        if ranks > 1
    }


def steps_of(
    case: Case, seconds_of_case: float, world: Any, comms: dict[int, Any], link: dict[int, tuple[float, float]]
) -> None:
    risk = risk_of(make_problem(case))
    gradient = mfld.Minibatch(case.batch_size) if case.batch_size else mfld.FullBatch()
    step_size, temperature = SCHEDULE

    def solver(threads: int) -> mfld.MFLD:
        return mfld.MFLD(
            case.n_particles, step_size=step_size, temperature=temperature, gradient=gradient, num_threads=threads
        )

    work = Work.of(solver(1), risk)
    start = solver(1).init(risk)
    begin = time.perf_counter()
    solver(1).advance(risk, start, 1)
    steps = int(world.bcast(max(2, math.ceil(0.25 / (time.perf_counter() - begin)))))
    shards = ["particles"] if case.batch_size or work.n_row_leaves == 1 else ["particles", "rows"]

    def action(threads: int, shard: str) -> Callable[[Any], None]:
        own = solver(threads)
        return lambda comm: mfld.mpi.Sharded(own, comm, shard=shard).advance(risk, start, steps) and None

    layouts = [layout for layout in (ONE, THREADS, TWO, FOUR) if layout.ranks in comms]
    actions = {(*layout, shard): action(layout.threads, shard) for layout in layouts for shard in shards}
    seconds = {key: value / steps for key, value in best(world, comms, actions, seconds_of_case).items()}
    for shard in shards:
        said = []
        for layout in layouts:
            measured = seconds[*layout, shard]
            text = f"{measured * 1e3:8.3f}"
            if layout.ranks > 1:
                machine = Machine(*link[layout.ranks], seconds[*ONE, shard] / work.n_particles)
                text += f" (model {machine.step(work, layout.ranks, shard) * 1e3:8.3f})"
            said.append(text)
        efficiency = seconds[*THREADS, shard] / seconds[*TWO, shard]
        say(world, f"| {case.name} | {shard} | {' | '.join(said)} | {efficiency:.2f} |")


def dual_ascent(rounds: int, world: Any, comms: dict[int, Any]) -> None:
    """Processor time of a rank in epochs of dual ascent."""
    case = Case("P-SDCA", 4000, 256, 20)
    problem = make_problem(case)
    model = mfld.TwoLayerNetwork(case.n_features, readout="bounded")
    risk = mfld.EmpiricalRisk(model, problem.inputs, np.sign(problem.targets), loss="logistic", l2=L2)
    for n_particles in (4000, 40_000):
        solver = mfld.PSDCA(n_particles, temperature=0.02, num_threads=1)
        start = solver.init(risk)
        taken: dict[int, float] = dict.fromkeys(comms, math.inf)
        for _ in range(rounds):
            for ranks, comm in comms.items():
                asleep(world)
                if world.rank < ranks:
                    watched = Watched(comm)
                    begin = time.process_time()
                    mfld.mpi.Sharded(solver, watched).advance(risk, start, 2)
                    taken[ranks] = min(taken[ranks], time.process_time() - begin - watched.seconds)
        each = world.gather(taken)
        if world.rank == 0:
            most = {ranks: max(one[ranks] for one in each[:ranks]) for ranks in comms}
            text = ", ".join(f"{seconds:.2f} s of {ranks}" for ranks, seconds in most.items())
            say(world, f"P-SDCA, {n_particles} particles, two epochs, processor time of a rank: {text}")


def say(world: Any, text: str) -> None:
    if world.rank == 0:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="for each case")
    options = parser.parse_args()
    world = MPI.COMM_WORLD
    if world.size < TWO.ranks:
        parser.error("needs two processes: mpirun -n 2 python -m mpi4py bench/ranks.py")
    comms = {ranks: world.Split(world.rank >= ranks, world.rank) for ranks in (1, 2, 4) if ranks <= world.size}
    link = links(world, comms)
    for ranks in list(comms)[1:]:
        latency, bandwidth = link[ranks]
        say(world, f"{ranks} ranks: latency {latency * 1e6:.1f} us, bandwidth {bandwidth / 1e9:.2f} GB/s")
    columns = ["1 rank", "1 rank, 2 threads", "2 ranks", "4 ranks"][: 3 + (FOUR.ranks in comms)]
    say(world, f"| milliseconds a step | shared | {' | '.join(columns)} | efficiency |")
    say(world, "|" + " --- |" * (3 + len(columns)))
    for case in CASES:
        steps_of(case, options.seconds, world, comms, link)
    dual_ascent(3, world, comms)


if __name__ == "__main__":
    main()
