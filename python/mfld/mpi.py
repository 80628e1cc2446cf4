"""One run by several processes together, on one machine or many (extra ``mpi``)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import description, extras, validation
from mfld.algorithms.base import Algorithm, Callback, Result
from mfld.certificates import Certificate
from mfld.objectives import Objective
from mfld.ranks import Communicator, Ranks
from mfld.scaling import SHARDS, Machine, Work, typical
from mfld.state import Info, State

__all__ = ["Sharded", "SharePlan", "world"]

_Value = TypeVar("_Value")


def world() -> Any:
    """Communicator of all processes of MPI, ``MPI.COMM_WORLD`` of mpi4py.

    Raises
    ------
    ImportError
        If mpi4py is not installed.
    """
    return extras.library("mpi4py.MPI", "mpi", "Sharded").COMM_WORLD


@dataclass(frozen=True)
class SharePlan:
    """Choice of what the processes of a run share, and the times of a step that it goes by: `Sharded.plan`.

    Attributes
    ----------
    shard : {"particles", "rows"}
    seconds : dict
        Of a step by the model of `mfld.scaling`, if they shared the one or the other; empty where rows cannot be
        shared.
    n_processes : int

    Examples
    --------
    >>> from mfld.mpi import SharePlan
    >>> print(SharePlan("rows", {"particles": 1.4, "rows": 0.5}, 16))
    16 processes share rows: by the model 0.5 s a step, against 1.4 s if they shared particles
    """

    shard: str
    seconds: dict[str, float]
    n_processes: int

    def __str__(self) -> str:
        said = f"{self.n_processes} processes share {self.shard}"
        if not self.seconds:
            return f"{said}: rows are shared in full gradients of MFLD on an EmpiricalRisk alone"
        (other,) = set(SHARDS) - {self.shard}
        own, others = (f"{self.seconds[name]:.3g} s" for name in (self.shard, other))
        return f"{said}: by the model {own} a step, against {others} if they shared {other}"


class Sharded(Algorithm):
    """An algorithm whose particles are shared out among processes: the same numbers, to the last bit.

    Every process makes the same calls and gets the same results; each computes for the particles of its share. In the
    steps of `MFLD` that the core makes, with `FullBatch`, `Minibatch`, `SVRG` and `SARAH`, `Overdamped` and
    `Underdamped`, processes exchange sums of predictions of the rows that a step sees, and the particles where a call
    ends; in sweeps of `PSDCA` over many particles the sums over their weights, and in its refreshes those over chains
    that stay where they are until the last move. Whatever else evaluates the objective, such as `PDA` and certificates,
    shares its evaluations at many particles; the rest of it each process computes by itself.

    With `FullBatch` they may share the rows of the data instead: each moves all particles, sees its own rows only, and
    all exchange their gradients, once a step. That is less where there are many rows and few particles, and the rest of
    a file that `numpy.load` maps is not read. By default a model of both chooses, `plan` says what.

    The process of rank 0 leads a `run`: callbacks and recorded functions are called there only, so that a `Checkpoint`
    is one file, which a run of any number of processes may go on from. A divergence on one of them, or a stop while the
    core makes steps, ends the call on all of them after the same step. One that is stopped elsewhere, in Python between
    two calls of the core, ends alone: ``python -m mpi4py`` ends the others with it, where nobody catches what stops it.

    Parameters
    ----------
    solver : Algorithm
        Of one replicate or several, which are made one after the other.
    comm : mpi4py.MPI.Comm, optional
        By default ``MPI.COMM_WORLD``.
    shard : {"auto", "particles", "rows"}
        What is shared out in the steps of `MFLD` with `FullBatch`; it changes no number.
    machine : Machine, optional
        For the choice, as `mfld.scaling.measure` finds it; by default `mfld.scaling.typical`.

    Raises
    ------
    ImportError
        If there is no communicator, and mpi4py is not installed.
    TypeError, ValueError
        If an argument is of the wrong kind; in a run, if the objective is none that processes can share.

    Examples
    --------
    A script that ``mpirun -n 4 python -m mpi4py script.py`` runs on four processes:

    >>> import numpy as np
    >>> import mfld
    >>> inputs = np.linspace(-2, 2, 50)[:, np.newaxis]
    >>> risk = mfld.EmpiricalRisk(mfld.TwoLayerNetwork(1), inputs, np.sin(inputs[:, 0]), loss="half_squared", l2=1e-4)
    >>> solver = mfld.MFLD(1000, step_size=0.1, temperature=1e-5)
    >>> result = mfld.mpi.Sharded(solver).run(risk, 500)  # doctest: +SKIP
    """

    def __init__(
        self, solver: Algorithm, comm: Any = None, *, shard: str = "auto", machine: Machine | None = None
    ) -> None:
        self.solver: Algorithm = validation.instance("solver", solver, Algorithm, "an Algorithm, like MFLD(...)")
        self.comm: Any = world() if comm is None else validation.instance("comm", comm, Communicator, "one of mpi4py")
        self.shard = validation.choice("shard", shard, ("auto", *SHARDS))
        self.machine = None if machine is None else validation.instance("machine", machine, Machine, "a Machine")
        self._ranks, self._by_rows = Ranks(self.comm), Ranks(self.comm, by_rows=True)
        self.num_threads = solver.num_threads

    def __repr__(self) -> str:
        return f"Sharded({self.solver!r}, {self._ranks.count} processes, shard={self.shard!r})"

    @property
    def described(self) -> Algorithm:
        return self.solver

    def plan(self, objective: Objective) -> SharePlan:
        """Choice of what the processes share in steps down this objective.

        Raises
        ------
        TypeError, ValueError
            If the objective is none, or rows were asked for and cannot be shared.
        """
        validation.instance("objective", objective, Objective, "an Objective")
        solver, count = self.solver, self._ranks.count
        if not (solver.sees_all_rows and objective.shares_rows):
            if self.shard == "rows":
                raise ValueError(
                    "shard must be 'particles' or 'auto' here: rows are shared in full gradients of MFLD on an "
                    f"EmpiricalRisk alone, got {solver!r} on {objective!r}"
                )
            return SharePlan("particles", {}, count)
        work = Work.of(cast(Any, solver), cast(Any, objective))
        machine = typical(work) if self.machine is None else self.machine
        seconds = {shard: machine.step(work, count, shard) for shard in SHARDS}
        best = min(SHARDS, key=seconds.__getitem__) if self.shard == "auto" else self.shard
        return SharePlan(best, seconds, count)

    def init(
        self,
        objective: Objective,
        seed: int = 0,
        particles: ArrayLike | None = None,
        *,
        replica: int | Sequence[int] = 0,
    ) -> State:
        """State before the first step, the whole of it on every process; arguments as those of the solver's."""
        return self.solver.init(self._shared(objective), seed, particles, replica=replica)

    def advance(self, objective: Objective, state: State, n_steps: int = 1) -> tuple[State, Info]:
        """Make steps, as many on every process, from one state; arguments and errors as those of the solver's."""
        return self.solver.advance(self._shared(objective), state, n_steps)

    def once(self, function: Callable[[], _Value]) -> _Value:
        """Value of a function that rank 0 calls for all; what it raises is a RuntimeError on the others."""
        if self._ranks.rank > 0:
            value, failure = self.comm.bcast(None, root=0)
            if failure is not None:
                raise RuntimeError(f"rank 0 failed: {failure}")
            return cast(_Value, value)
        try:
            value = function()
        except BaseException as error:
            self.comm.bcast((None, repr(error)), root=0)
            raise
        self.comm.bcast((value, None), root=0)
        return value

    def check(self, objective: Objective, state: State | None = None) -> None:
        self.solver.check(self._shared(objective), state)

    def check_steps(self, objective: Objective, state: State, n_steps: int) -> None:
        self.solver.check_steps(objective, state, n_steps)

    def run(
        self,
        objective: Objective,
        n_steps: int,
        seed: int = 0,
        *,
        particles: ArrayLike | None = None,
        state: State | None = None,
        record_every: int | Sequence[int] | None = None,
        record: Mapping[str, Callable[[State], ArrayLike]] | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> Result:
        """Run from the start, or go on from a state: arguments and errors as in `Algorithm.run`.

        ``record`` and ``callbacks`` are those of rank 0. All processes return the result that the solver would without
        them, and raise what it would; what a callback raises is a RuntimeError on the others.

        Raises
        ------
        ValueError
            On all processes, if one of them was given another algorithm, objective, number of steps, seed, particles or
            state than rank 0. Data are compared where they are in memory.
        """
        self._check_alike(
            {
                "shard": self.shard,
                "solver": self.solver,
                "objective": _compared(objective),
                "n_steps": n_steps,
                "seed": seed,
                "particles": particles,
                "state": state,
            }
        )
        if self._ranks.rank > 0:
            return _Following(self).follow(objective, n_steps, seed, particles, state)
        lead = _Leading(self)
        try:
            result = Algorithm.run(
                lead,
                objective,
                n_steps,
                seed,
                particles=particles,
                state=state,
                record_every=record_every,
                record=record,
                callbacks=callbacks,
            )
        except BaseException as error:
            if lead.running and not lead.together:  # of a callback: the others know nothing of it
                self.comm.bcast(_Order(0, failure=repr(error)), root=0)
            raise
        self.comm.bcast(_Order(0, result.history), root=0)
        return result

    def certificate(self, result: Result, confidence: float = 0.999, **options: Any) -> Certificate:
        """Certificate of a result like `Result.certificate`, whose chains the processes move together.

        Parameters
        ----------
        result : Result
        confidence : float
            Of the upper bound.
        **options
            Further arguments of `Result.certificate`.
        """
        validation.instance("result", result, Result, "a Result")
        shared = Result(result.algorithm, self._shared(result.objective), result.state, result.history, result.info)
        return shared.certificate(confidence, **options)

    def _check_alike(self, given: dict[str, object]) -> None:
        """Refuse, on all, what is not the same on all: they would wait for each other, or mix several runs."""
        said = b"".join(hashlib.sha256(description.describe(value).encode()).digest() for value in given.values())
        mine = np.frombuffer(said, np.uint8).reshape(len(given), -1)
        every = np.empty((self._ranks.count, *mine.shape), np.uint8)
        self.comm.Allgather(mine.copy(), every)
        differs = (every != every[0]).any(axis=2)
        if differs.any():
            name = next(name for name, those in zip(given, differs.T, strict=True) if those.any())
            ranks = np.flatnonzero(differs[:, list(given).index(name)])
            raise ValueError(
                f"{name} must be the same on all processes, got another on rank "
                f"{', '.join(map(str, ranks))} than on rank 0"
            )

    def _shared(self, objective: Objective) -> Objective:
        by_rows = self.plan(objective).shard == "rows"
        return objective.over_ranks(self._by_rows if by_rows else self._ranks)


def _compared(objective: Objective) -> object:
    """An objective, or of one whose rows are mapped, which nobody is to read as a whole, the sizes."""
    inputs = getattr(objective, "inputs", None)
    if isinstance(inputs, np.ndarray) and validation.mapped(inputs) is not None:
        return type(objective), inputs.shape, objective.n_coordinates
    return objective


class _Order(NamedTuple):
    """Order of rank 0 to the others: to make steps, or where there are none, that the run has ended."""

    n_steps: int
    history: dict[str, NDArray[Any]] | None = None
    failure: str | None = None


class _Leading(Sharded):
    """The run of rank 0."""

    running = False  # the others wait for orders
    together = False  # all are within the same call

    def __init__(self, sharded: Sharded) -> None:
        vars(self).update(vars(sharded))

    def init(self, *arguments: Any, **options: Any) -> State:
        self.together = True
        state = super().init(*arguments, **options)
        self.together = False
        return state

    def check_steps(self, objective: Objective, state: State, n_steps: int) -> None:
        super().check_steps(objective, state, n_steps)
        self.running = True  # the last check that all make alike

    def advance(self, objective: Objective, state: State, n_steps: int = 1) -> tuple[State, Info]:
        self.comm.bcast(_Order(n_steps), root=0)
        self.together = True
        reached = super().advance(objective, state, n_steps)
        self.together = False
        return reached


class _Ended(Exception):
    """The run has ended before its last step."""


class _Following(Sharded):
    """The run of another rank: the steps that rank 0 says."""

    end: _Order | None = None

    def __init__(self, sharded: Sharded) -> None:
        vars(self).update(vars(sharded))

    def follow(
        self, objective: Objective, n_steps: int, seed: int, particles: ArrayLike | None, state: State | None
    ) -> Result:
        """The run; it records nothing, and has the history of rank 0."""
        try:
            result = Algorithm.run(self, objective, n_steps, seed, particles=particles, state=state, record_every=[])
            end = self.comm.bcast(None, root=0)
        except _Ended as early:
            result, end = early.result, self.end  # type: ignore[attr-defined]
        if end.failure is not None:
            error = RuntimeError(f"the run was ended by rank 0: {end.failure}")
            error.state, error.result = result.state, result  # type: ignore[attr-defined]
            raise error
        return Result(result.algorithm, result.objective, result.state, end.history, result.info)

    def advance(self, objective: Objective, state: State, n_steps: int = 1) -> tuple[State, Info]:
        order = self.comm.bcast(None, root=0)
        if order.n_steps == 0:
            self.end = order
            raise _Ended
        return super().advance(objective, state, order.n_steps)
