"""Time and memory of a step whose particles are shared by many processes: a model of what `mfld.mpi.Sharded` does.

A step takes the longest share of the particles, what every process does for itself, and for each block of rows one
exchange, in which all get the sums of all::

    t(R) = seconds_per_step + seconds_per_particle * N * longest share + blocks * t_exchange(R)
    t_exchange(R) = ceil(log2 R) * latency + (R - 1) * slot / bandwidth

by the algorithm of Bruck, which MPI libraries take for short messages. Source: Thakur, Rabenseifner, Gropp 2005,
"Optimization of collective communication operations in MPICH".
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

__all__ = ["Machine", "Work", "measure"]

_REGISTER = {"base": 16, "v3": 32, "v4": 64}  # bytes
_LEAVES, _ENOUGH_PANELS = 64, 16  # panels.hpp
_CACHE, _DATA, _FEWEST, _MOST = 1 << 20, 4 << 20, 24, 1024  # advance/sizes.hpp
_NEWS = 64  # bytes before the numbers of a slot
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
            str(solver.dtype),
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
        kept, lanes = self.n_summed * self.kept, 2 * self._register
        fit = _CACHE // (self._panels * lanes * kept * self._number)
        worth = max(min(2 * self._p // kept, _DATA // (self.n_features * self._number)), 2 * _FEWEST)
        target = min(max(fit, worth) if fit < _FEWEST or self.n_rows <= worth else fit, _MOST)
        count = math.ceil(self.n_rows / target)
        return [self.n_rows * (b + 1) // count - self.n_rows * b // count for b in range(count)]

    def slot(self, ranks: int, rows: int) -> int:
        """Bytes that each process gives in the exchange of a block of so many rows."""
        nodes = max(self._nodes(0, self._root, begin, end) for begin, end in self._shares(ranks))
        padded = math.ceil(rows / self._register) * self._register
        return _NEWS + 64 * math.ceil(nodes * self.n_outputs * self.n_summed * padded * self._number / 64)

    def memory(self, ranks: int) -> float:
        """Bytes of each process for particles, panels, activations and gradients, without the data and buffers.

        The cloud itself twice, before and behind a call; the panels, activations and gradients of the share.
        """
        rows = max(self.blocks)
        cloud = 2 * self.n_particles * self._p
        own = 2 * self._p + 2 * self.n_outputs + self.n_summed * self.kept * rows
        return self._number * (cloud + own * self.n_particles * self.longest_share(ranks))

    @property
    def _root(self) -> int:
        return 1 << (self.n_leaves - 1).bit_length()

    def _shares(self, ranks: int) -> list[tuple[int, int]]:
        leaves = self.n_leaves
        return [(leaves * r // ranks, leaves * (r + 1) // ranks) for r in range(ranks)]

    def _nodes(self, first: int, size: int, begin: int, end: int) -> int:
        """Nodes of the tree over leaves that make up those from begin to end."""
        last = min(first + size, self.n_leaves)
        if last <= begin or end <= first or last <= first:
            return 0
        if begin <= first and last <= end:
            return 1
        return self._nodes(first, size // 2, begin, end) + self._nodes(first + size // 2, size // 2, begin, end)


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

    def step(self, work: Work, ranks: int = 1) -> float:
        """Seconds of a step of so many processes."""
        ranks = validation.integer("ranks", ranks, 1)
        own = self.seconds_per_step + self.seconds_per_particle * work.n_particles * work.longest_share(ranks)
        return own + sum(self.exchange(ranks, work.slot(ranks, rows)) for rows in work.blocks)

    def strong(self, work: Work, ranks: Sequence[int]) -> NDArray[np.float64]:
        """Speedups ``t(1) / t(R)`` at one size of the problem."""
        return np.array([self.step(work) / self.step(work, count) for count in ranks])

    def weak(self, work: Work, ranks: Sequence[int]) -> NDArray[np.float64]:
        """Efficiencies ``t(1) / t(R)`` where R processes have R times the particles."""
        larger = [(replace(work, n_particles=count * work.n_particles), count) for count in ranks]
        return np.array([self.step(work) / self.step(own, count) for own, count in larger])

    def best(self, work: Work, gain: float = 1.25) -> int:
        """How many processes pay: doubled as long as that makes a step at least so many times as fast."""
        gain = validation.real("gain", gain, positive=True)
        ranks = 1
        while ranks < work.n_leaves and self.step(work, ranks) >= gain * self.step(work, 2 * ranks):
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


def measure(comm: Any, solver: MFLD, risk: EmpiricalRisk, *, seconds: float = 1.0) -> Machine:
    """The machine that a solver and its processes run on: exchanges timed, and steps of one process on its own.

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
    return Machine(
        latency if ranks > 1 else 1e-6,
        bandwidth if ranks > 1 else 1e10,
        per_particle,
        max(whole - per_particle * n, 0.0),
    )


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
