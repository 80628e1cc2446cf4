"""Time and memory of a step that many processes share: a model of what `mfld.mpi.Sharded` does.

Where they share the particles, a step takes the longest share of them, what every process does for itself, and for each
block of rows one exchange, in which all get the sums of all::

    t(R) = seconds_per_step + seconds_per_particle * N * longest share + blocks * t_exchange(R, sums of predictions)
    t_exchange(R, slot) = ceil(log2 R) * latency + (R - 1) * slot / bandwidth

by the algorithm of Bruck, which MPI libraries take for short messages. Source: Thakur, Rabenseifner, Gropp 2005,
"Optimization of collective communication operations in MPICH".

Where they share the rows of full gradients, every process moves all particles, and a step has one exchange of
gradients, beside some of a few bytes that ask whether one of them was stopped::

    t(R) = seconds_per_step + seconds_per_particle * N * (moves + (1 - moves) * longest share)
           + questions * t_exchange(R, 8) + t_exchange(R, gradients)

with ``moves`` the part of the work that is no evaluation of neurons. So rows are worth sharing where there are many of
them beside the numbers of all particles: the messages are n K numbers of predictions, or N p of gradients.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfld import _core, validation
from mfld.algorithms import MFLD
from mfld.objectives import EmpiricalRisk
from mfld.ranks import Communicator

__all__ = ["SHARDS", "Machine", "Work", "measure", "typical"]

SHARDS = ("particles", "rows")
"""What processes may share."""

_REGISTER = {"base": 16, "v3": 32, "v4": 64}  # bytes
_LEAVES, _ENOUGH_PANELS = 64, 16  # panels.hpp
_CACHE, _DATA, _FEWEST, _MOST = 1 << 20, 4 << 20, 24, 1024  # advance/sizes.hpp
_NEWS = 64  # bytes before the numbers of a slot
_ENOUGH_ROWS, _LITTLE, _BETWEEN_QUESTIONS = 1 << 13, 1 << 25, 2e8  # advance/sizes.hpp
_MOVE = 20  # multiply-adds that take as long as the move of a coordinate, moves.cpp
_ACTIVATION = 8  # and an activation
_MULTIPLY_ADD = 2.4e-11  # seconds of one core with AVX-512: 20,000 particles on 256 rows of 30 features take 9.2 ms
_LONGEST = 3600  # seconds of a measurement


@dataclass(frozen=True)
class Work:
    """Sizes of a step of `MFLD` on a two-layer risk, as the core makes it.

    Parameters
    ----------
    n_particles, n_features, n_rows : int
        N, d, and the rows that the gradient of a step sees.
    n_outputs : int
    n_coordinates : int, optional
        p; by default d + 1 + n_outputs.
    dtype : {"float32", "float64"}
    isa : str, optional
        Level of the kernels; by default that of this process.
    n_summed : int
        Clouds whose predictions a step sums: 2 for `SARAH`.
    kept : int
        Arrays of activations that a panel keeps: 2 for activations that keep their slopes.

    Examples
    --------
    >>> from mfld.scaling import Work
    >>> work = Work(n_particles=100_000, n_features=30, n_rows=256)
    >>> work.n_leaves, work.longest_share(4)
    (64, 0.25)
    """

    n_particles: int
    n_features: int
    n_rows: int
    n_outputs: int = 1
    n_coordinates: int | None = None
    dtype: str = "float32"
    isa: str | None = None
    n_summed: int = 1
    kept: int = 1

    def __post_init__(self) -> None:
        for name in ("n_particles", "n_features", "n_rows", "n_outputs", "n_summed", "kept"):
            object.__setattr__(self, name, validation.integer(name, getattr(self, name), 1))
        if self.n_coordinates is not None:
            object.__setattr__(self, "n_coordinates", validation.integer("n_coordinates", self.n_coordinates, 1))
        validation.choice("dtype", self.dtype, ("float32", "float64"))
        if self.isa is not None:
            validation.choice("isa", self.isa, _REGISTER)

    @classmethod
    def of(cls, solver: MFLD, risk: EmpiricalRisk) -> Work:
        """The work of a solver's steps on a risk: those between refreshes, where the gradient has any."""
        validation.instance("solver", solver, MFLD, "an MFLD")
        validation.instance("risk", risk, EmpiricalRisk, "an EmpiricalRisk")
        return cls(
            solver.n_particles,
            risk.model.n_features,
            solver.gradient.rows_of_a_step(risk) or risk.n_samples,
            risk.model.n_outputs,
            risk.n_coordinates,
            validation.of_particles(str(solver.dtype)),
            n_summed=solver.gradient.n_summed,
        )

    @property
    def _number(self) -> int:
        return np.dtype(self.dtype).itemsize

    @property
    def _register(self) -> int:
        """Numbers in a register."""
        return _REGISTER.get(self.isa or _core.backend.isa, 64) // self._number

    @property
    def _panels(self) -> int:
        return math.ceil(self.n_particles / (2 * self._register))

    @property
    def _p(self) -> int:
        return self.n_features + 1 + self.n_outputs if self.n_coordinates is None else self.n_coordinates

    @property
    def n_leaves(self) -> int:
        """Parts of the particles, beyond whose number more processes have nothing to do."""
        per_leaf = max(math.ceil(self._panels / _LEAVES), 1 if self._panels < _ENOUGH_PANELS else 2)
        return math.ceil(self._panels / per_leaf)

    def longest_share(self, ranks: int) -> float:
        """Share of the particles that the busiest of so many processes has."""
        return max(end - begin for begin, end in self._shares(ranks)) / self.n_leaves

    @property
    def blocks(self) -> list[int]:
        """Rows of the blocks in which a step sees its rows."""
        count = self.n_blocks
        return [self.n_rows * (b + 1) // count - self.n_rows * b // count for b in range(count)]

    @property
    def n_blocks(self) -> int:
        """Number of the blocks: they are cut evenly, so that there are two sizes at most."""
        kept, lanes = self.n_summed * self.kept, 2 * self._register
        fit = _CACHE // (self._panels * lanes * kept * self._number)
        worth = max(min(2 * self._p // kept, _DATA // (self.n_features * self._number)), 2 * _FEWEST)
        target = min(max(fit, worth) if fit < _FEWEST or self.n_rows <= worth else fit, _MOST)
        return -(-self.n_rows // target)

    @property
    def n_row_leaves(self) -> int:
        """Parts of the rows of a full gradient, beyond whose number more processes have no rows."""
        room = max(self.n_rows * self.n_outputs, _LITTLE) // (self.n_particles * self._p)
        return 1 << (max(1, min(_LEAVES, self.n_blocks, self.n_rows // _ENOUGH_ROWS, room)).bit_length() - 1)

    def longest_share_of_rows(self, ranks: int) -> float:
        """Share of the blocks of rows that the busiest of so many processes has."""
        return max(end - begin for begin, end in self._shares_of_blocks(ranks)) / self.n_blocks

    def gradient_slot(self, ranks: int) -> int:
        """Bytes that each process gives in the exchange of gradients over its rows, of neurons that have a bias."""
        root, shares = self.n_row_leaves, self._shares_of_leaves(ranks)
        nodes = max(_nodes(0, root, root, begin, end) for begin, end in shares)
        panel = (min(self._p, self.n_features + 1) + self.n_outputs) * 2 * self._register
        return _NEWS + 64 * math.ceil(nodes * (self._panels + 1) * panel * self._number / 64)

    def questions(self, ranks: int) -> int:
        """How often in a step processes that share rows ask whether one of them was stopped."""
        lanes = 2 * self._register
        per_leaf = max(math.ceil(self._panels / _LEAVES), 1 if self._panels < _ENOUGH_PANELS else 2)
        work = 2.0 * self.n_leaves * per_leaf * lanes * self._most_rows * (self.n_features + _ACTIVATION)
        most = max(end - begin for begin, end in self._shares_of_blocks(ranks))
        return most // max(1, int(_BETWEEN_QUESTIONS / work))

    def slot(self, ranks: int, rows: int) -> int:
        """Bytes that each process gives in the exchange of a block of so many rows."""
        nodes = max(_nodes(0, self._root, self.n_leaves, begin, end) for begin, end in self._shares(ranks))
        padded = math.ceil(rows / self._register) * self._register
        return _NEWS + 64 * math.ceil(nodes * self.n_outputs * self.n_summed * padded * self._number / 64)

    def memory(self, ranks: int, shard: str = "particles") -> float:
        """Bytes of each process for particles, panels, activations and gradients, without the data and buffers.

        The cloud itself twice, before and behind a call; the panels, activations and gradients of the share of
        particles, or of all particles, and gradients for each leaf of rows.
        """
        by_rows = validation.choice("shard", shard, SHARDS) == "rows"
        rows = self._most_rows
        cloud = 2 * self.n_particles * self._p
        own = 2 * self._p + 2 * self.n_outputs + self.n_summed * self.kept * rows
        if by_rows:
            return self._number * self.n_particles * float(2 * self._p + own + self.n_row_leaves * self._p)
        return self._number * (cloud + own * self.n_particles * self.longest_share(ranks))

    @property
    def _root(self) -> int:
        return 1 << (self.n_leaves - 1).bit_length()

    def _shares(self, ranks: int) -> list[tuple[int, int]]:
        leaves = self.n_leaves
        return [(leaves * r // ranks, leaves * (r + 1) // ranks) for r in range(ranks)]

    @property
    def _most_rows(self) -> int:
        """Of a block."""
        return -(-self.n_rows // self.n_blocks)

    def _shares_of_leaves(self, ranks: int) -> list[tuple[int, int]]:
        leaves = self.n_row_leaves
        return [(leaves * r // ranks, leaves * (r + 1) // ranks) for r in range(ranks)]

    def _shares_of_blocks(self, ranks: int) -> list[tuple[int, int]]:
        leaves, blocks = self.n_row_leaves, self.n_blocks
        return [(blocks * begin // leaves, blocks * end // leaves) for begin, end in self._shares_of_leaves(ranks)]


def _nodes(first: int, size: int, n_leaves: int, begin: int, end: int) -> int:
    """Nodes of the tree over leaves that make up those from begin to end."""
    last = min(first + size, n_leaves)
    if last <= begin or end <= first or last <= first:
        return 0
    if begin <= first and last <= end:
        return 1
    half = size // 2
    return _nodes(first, half, n_leaves, begin, end) + _nodes(first + half, half, n_leaves, begin, end)


@dataclass(frozen=True)
class Machine:
    """Costs of a step on a machine or a cluster, see the formula of this module.

    Parameters
    ----------
    latency : float
        Of a message, in seconds, the call from the core included.
    bandwidth : float
        Bytes per second.
    seconds_per_particle : float
        Of a step, on one process.
    seconds_per_step : float
        What every process does for itself.

    Examples
    --------
    >>> from mfld.scaling import Machine, Work
    >>> work = Work(n_particles=100_000, n_features=30, n_rows=256)
    >>> cluster = Machine(latency=2e-6, bandwidth=1e10, seconds_per_particle=1e-6, seconds_per_step=1e-5)
    >>> [round(cluster.step(work, ranks) * 1e3, 2) for ranks in (1, 4, 64)]     # milliseconds
    [100.01, 25.03, 1.63]
    """

    latency: float
    bandwidth: float
    seconds_per_particle: float
    seconds_per_step: float = 0.0

    def __post_init__(self) -> None:
        for name in ("latency", "bandwidth", "seconds_per_particle"):
            object.__setattr__(self, name, validation.real(name, getattr(self, name), positive=True))
        own = validation.real("seconds_per_step", self.seconds_per_step, non_negative=True)
        object.__setattr__(self, "seconds_per_step", own)

    def exchange(self, ranks: int, slot: int) -> float:
        """Seconds until each of so many processes has the bytes of all."""
        return math.ceil(math.log2(ranks)) * self.latency + (ranks - 1) * slot / self.bandwidth

    def step(self, work: Work, ranks: int = 1, shard: str = "particles") -> float:
        """Seconds of a step of so many processes, which share ``"particles"``, or the ``"rows"`` of full gradients."""
        ranks = validation.integer("ranks", ranks, 1)
        if validation.choice("shard", shard, SHARDS) == "rows":
            evaluations = 2 * work.n_rows * (work.n_features + _ACTIVATION)
            moves = _MOVE * work._p / (_MOVE * work._p + evaluations)
            share = moves + (1 - moves) * work.longest_share_of_rows(ranks)
            asked = work.questions(ranks) * self.exchange(ranks, 8)
            own = self.seconds_per_step + self.seconds_per_particle * work.n_particles * share
            return own + asked + self.exchange(ranks, work.gradient_slot(ranks))
        own = self.seconds_per_step + self.seconds_per_particle * work.n_particles * work.longest_share(ranks)
        few, longer = divmod(work.n_rows, work.n_blocks)  # of the two sizes of blocks
        sizes = ((few, work.n_blocks - longer), (few + 1, longer))
        return own + sum(count * self.exchange(ranks, work.slot(ranks, rows)) for rows, count in sizes if count)

    def strong(self, work: Work, ranks: Sequence[int]) -> NDArray[np.float64]:
        """Speedups ``t(1) / t(R)`` at one size of the problem."""
        return np.array([self.step(work) / self.step(work, count) for count in ranks])

    def weak(self, work: Work, ranks: Sequence[int]) -> NDArray[np.float64]:
        """Efficiencies ``t(1) / t(R)`` where R processes have R times the particles."""
        larger = [(replace(work, n_particles=count * work.n_particles), count) for count in ranks]
        return np.array([self.step(work) / self.step(own, count) for own, count in larger])

    def best(self, work: Work, gain: float = 1.25, shard: str = "particles") -> int:
        """How many processes pay: doubled as long as that makes a step at least so many times as fast."""
        gain = validation.real("gain", gain, positive=True)
        ranks, most = 1, work.n_row_leaves if validation.choice("shard", shard, SHARDS) == "rows" else work.n_leaves
        while ranks < most and self.step(work, ranks, shard) >= gain * self.step(work, 2 * ranks, shard):
            ranks *= 2
        return ranks

    def replayed(self, work: Work, ranks: int, n_steps: int = 1, *, jitter: float = 0.0, seed: int = 0) -> float:
        """Seconds of a step when its messages are replayed one by one, each process by its own clock.

        Parameters
        ----------
        work : Work
        ranks, n_steps : int
        jitter : float
            Mean of an exponential share of time by which each process is late with its work, anew for each block.
        seed : int
        """
        rng = np.random.default_rng(seed)
        blocks, shares = work.blocks, np.diff(np.array(work._shares(ranks)), axis=1)[:, 0] / work.n_leaves
        clocks = np.zeros(ranks)
        own = (self.seconds_per_step + self.seconds_per_particle * work.n_particles * shares) / len(blocks)
        for _ in range(n_steps):
            for rows in blocks:
                clocks += own * (1 + rng.exponential(jitter, ranks)) if jitter else own
                slot, held = work.slot(ranks, rows), 1
                while held < ranks:  # from the process `held` further on, what it holds by now
                    given = min(held, ranks - held)
                    clocks = np.maximum(clocks, np.roll(clocks, -held)) + self.latency + given * slot / self.bandwidth
                    held += given
        return float(clocks.max()) / n_steps


def typical(work: Work) -> Machine:
    """A machine with the numbers of docs/clusters.md: MPI within one of AVX-512, and the work at the pace of its cores.

    Examples
    --------
    >>> from mfld.scaling import Work, typical
    >>> work = Work(n_particles=1000, n_features=10, n_rows=10_000_000, isa="v4")
    >>> machine = typical(work)
    >>> [round(machine.step(work, 16, shard), 2) for shard in ("particles", "rows")]     # seconds
    [1.43, 0.54]
    """
    validation.instance("work", work, Work, "a Work")
    per_row = 2 * (work.n_features + _ACTIVATION) * _MULTIPLY_ADD
    return Machine(latency=3e-6, bandwidth=1.5e9, seconds_per_particle=per_row * work.n_rows)


def measure(comm: Any, solver: MFLD, risk: EmpiricalRisk, *, seconds: float = 1.0) -> Machine:
    """The machine that a solver and its processes run on: exchanges timed, and steps of one process on its own.

    It is the same on all of them, the mean of what they measured.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
        All of its processes make this call.
    solver : MFLD
        With `FullBatch` or `Minibatch`.
    risk : EmpiricalRisk
    seconds : float
        About how long each of the two measurements of steps takes.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    """
    validation.instance("comm", comm, Communicator, "one of mpi4py")
    validation.instance("solver", solver, MFLD, "an MFLD")
    validation.instance("risk", risk, EmpiricalRisk, "an EmpiricalRisk")
    if solver.gradient.buffer_names:
        raise ValueError(f"gradient of the solver must be FullBatch() or Minibatch(...) here, got {solver.gradient}")
    seconds, ranks = validation.real("seconds", seconds, positive=True), comm.Get_size()
    if seconds > _LONGEST:
        raise ValueError(f"seconds must be at most {_LONGEST}, got {seconds:g}")
    latency, bandwidth = math.inf, math.inf
    if ranks > 1:
        rounds = math.ceil(math.log2(ranks))
        # As many on all: by its clock, a process would stop before the others do.
        short, long = (_median(partial(_exchange, comm, size), count=50) for size in (128, 1 << 18))
        latency = short / rounds
        bandwidth = (ranks - 1) * (1 << 18) / max(long - short, 1e-9)
    whole, half = (_step_time(replace(solver, n_particles=n), risk, seconds) for n in _sizes(solver.n_particles))
    n, m = _sizes(solver.n_particles)
    per_particle = max((whole - half) / (n - m), whole / (2 * n))
    own = max(whole - per_particle * n, 0.0)
    mine = np.array([latency, bandwidth, per_particle, own] if ranks > 1 else [1e-6, 1e10, per_particle, own])
    each = np.empty((ranks, len(mine)))
    comm.Allgather(mine, each)
    return Machine(*each.mean(axis=0).tolist())


def _sizes(n_particles: int) -> tuple[int, int]:
    return n_particles, max(1, n_particles // 2)


def _exchange(comm: Any, size: int) -> None:
    slots = bytearray(size * comm.Get_size())
    comm.Allgather(bytes(size), slots)


def _step_time(solver: MFLD, risk: EmpiricalRisk, seconds: float) -> float:
    state = solver.init(risk)
    state, _ = solver.advance(risk, state, 1)
    start, steps = time.perf_counter(), 1
    solver.advance(risk, state, 1)
    steps = max(1, int(seconds / 5 / max(time.perf_counter() - start, 1e-6)))
    return _median(lambda: solver.advance(risk, state, steps), count=5) / steps


def _median(action: Callable[[], object], count: int) -> float:
    taken: list[float] = []
    for _ in range(count):
        start = time.perf_counter()
        action()
        taken.append(time.perf_counter() - start)
    return median(taken)
