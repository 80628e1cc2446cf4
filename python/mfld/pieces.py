"""Clouds that do not fit into memory: particles lie in a file, and a step takes one piece of them after the other."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from mfld import _core, files, noise, validation
from mfld.algorithms.base import Algorithm
from mfld.files import replacing
from mfld.native import Due, Outlook, Reached, RiskOfNetwork
from mfld.objectives import Objective
from mfld.state import Info, State
from mfld.validation import FloatArray, FloatDType

__all__ = ["InPieces"]

_MOST_PIECES = 64  # leaves of the sum over particles


class InPieces(Algorithm):
    """An algorithm whose particles stay on disk and move a piece at a time: the same numbers, to the last bit.

    A step reads the cloud twice: for the predictions, which are sums over the pieces, and to move each piece, which
    goes to a new file. That file takes the place of the one at ``path`` when the step is whole, so that there is a
    whole cloud at every moment. A `State` maps its file read-only, and keeps what it maps after later steps have
    written others: ``numpy.array(state.particles)`` reads it into memory.

    Memory is what the core needs for one piece. With 64 of them, in float32, that is for each particle of the whole
    cloud a quarter of a byte for each coordinate, and a sixteenth of one for each row of a step, of which there are 48
    at a time at most where particles have few coordinates.

    Parameters
    ----------
    solver : Algorithm
        `MFLD` of one replicate, with a step size that is given, `FullBatch` or `Minibatch` gradients, and `Overdamped`
        dynamics or others that are `Affine`, which keep nothing for a particle from step to step.
    path : path
        File of the particles, a ``.npy`` of shape (N, p), made by `init` and replaced at each step. There has to be
        room for two more: the new one of a step, and the old one for as long as a state maps it.
    n_pieces : int
        At most 64, the leaves of the sum over particles; as many pieces as there are leaves, where these are fewer.

    Raises
    ------
    OSError
        If the file cannot be written.
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or ``path`` a device or a pipe; in a run, if the objective
        is no `EmpiricalRisk` of a `TwoLayerNetwork`, or the solver none of the above.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import mfld
    >>> inputs = np.linspace(-2, 2, 20)[:, np.newaxis]
    >>> risk = mfld.EmpiricalRisk(mfld.TwoLayerNetwork(1), inputs, np.sin(inputs[:, 0]), loss="half_squared", l2=1e-4)
    >>> solver = mfld.MFLD(10_000, step_size=0.1, temperature=1e-5)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = mfld.pieces.InPieces(solver, f"{folder}/cloud.npy").run(risk, 10)
    ...     np.array_equal(result.particles, solver.run(risk, 10).particles)
    True
    """

    def __init__(self, solver: Algorithm, path: str | os.PathLike[str], n_pieces: int = _MOST_PIECES) -> None:
        self.solver: Algorithm = validation.instance("solver", solver, Algorithm, "an Algorithm, like MFLD(...)")
        validation.path("path", path)
        self.path = files.followed(path)
        files.check_writable(self.path)
        if self.path.exists() and not self.path.is_file():
            raise ValueError(f"path must be that of a file, which is read again, got {self.path}, a device or a pipe")
        files.sweep(self.path)
        self.n_pieces = validation.integer("n_pieces", n_pieces, 1, _MOST_PIECES)
        self.num_threads = solver.num_threads
        self._pieces = _Pieces(self.path, self.n_pieces)

    def __repr__(self) -> str:
        return f"InPieces({self.solver!r}, {os.fspath(self.path)!r}, n_pieces={self.n_pieces})"

    @property
    def described(self) -> Algorithm:
        return self.solver

    def init(
        self,
        objective: Objective,
        seed: int = 0,
        particles: ArrayLike | None = None,
        *,
        replica: int | Sequence[int] = 0,
    ) -> State:
        """State before the first step; arguments and errors as those of the solver's.

        Initial particles are drawn a piece at a time and written to ``path``. Particles that are given stay where they
        are: a read-only map of a file, ``numpy.load(file, mmap_mode="r")``, of the precision of the run, is not read
        into memory.
        """
        whole = self._apart(objective)
        if particles is None:
            solver: Any = self.solver
            if not hasattr(solver, "n_replicates") or solver.n_replicates != 1:
                raise ValueError(f"solver must be MFLD of one replicate to go in pieces, got {solver!r}")
            if not _goes_in_pieces(solver, whole):  # else a file at the path would be replaced for nothing
                raise TypeError(_NEEDS_MFLD)
            (number,) = noise.replicas(replica, 1)
            place = noise.initial(validation.seed(seed), number, self.num_threads)
            self._draw(objective, place, solver.n_particles, np.dtype(validation.of_particles(str(solver.dtype))))
            particles = np.load(self.path, mmap_mode="r")
        return self.solver.init(whole, seed, particles, replica=replica)

    def advance(self, objective: Objective, state: State, n_steps: int = 1) -> tuple[State, Info]:
        """Make steps; arguments and errors as those of the solver's. Each of them replaces the file."""
        return self.solver.advance(self._apart(objective), state, n_steps)

    def check(self, objective: Objective, state: State | None = None) -> None:
        self.solver.check(self._apart(objective), state)

    def check_steps(self, objective: Objective, state: State, n_steps: int) -> None:
        self.solver.check_steps(objective, state, n_steps)

    def _apart(self, objective: Objective) -> Objective:
        validation.instance("objective", objective, Objective, "an Objective")
        return objective.over_ranks(self._pieces)  # type: ignore[arg-type]

    def _draw(self, objective: Objective, place: noise.Place, n_particles: int, dtype: FloatDType) -> None:
        with replacing(self.path) as file:
            _write_header(file, (n_particles, objective.n_coordinates), dtype)
            for begin, end in _shares(n_particles, self.n_pieces, dtype):
                piece = objective.initial_particles(end - begin, place._replace(first=begin), dtype)
                file.write(np.ascontiguousarray(piece).data)


def _goes_in_pieces(solver: Any, objective: Objective) -> bool:
    """True where the core makes the steps, and they keep nothing but the cloud."""
    if not all(hasattr(solver, name) for name in ("gradient", "dynamics", "step_size")):
        return False
    if solver.step_size is None or isinstance(solver.step_size, str) or not solver.dynamics.affine:
        return False
    one = np.zeros((1, 1, objective.n_coordinates), validation.of_particles(str(solver.dtype)))
    estimator = solver.gradient.native(objective, one, {})
    return estimator is not None and not estimator.form.anchored


class _Pieces:
    """Pieces of a cloud, one after the other: they stand in for ranks in an objective."""

    def __init__(self, path: Path, count: int) -> None:
        self.path, self.count = path, count

    def __repr__(self) -> str:
        return f"Pieces({self.count})"

    def sharing(self, problem: RiskOfNetwork) -> _RiskInPieces:
        return _RiskInPieces(problem, self.path, self.count)

    @property
    def native(self) -> NoReturn:
        raise TypeError(_NEEDS_MFLD)

    def of_points(self, *_: object) -> NoReturn:
        raise TypeError(_NEEDS_MFLD)


_NEEDS_MFLD = (
    "solver must be MFLD to go in pieces, with a step_size that is given, FullBatch() or Minibatch(...) gradients, and "
    "dynamics that are affine, like Overdamped(): whatever else a run evaluates or keeps is as large as the cloud"
)


@dataclass(frozen=True)
class _RiskInPieces:
    """A risk as the core takes it, with the particles in pieces."""

    risk: RiskOfNetwork
    path: Path
    count: int

    @property
    def samples(self) -> bool:
        return True

    @property
    def reports(self) -> bool:
        return True

    def moved_by(self, dynamics: _core.Dynamics) -> bool:
        return dynamics.affine

    def advance(
        self, particles: FloatArray, estimator: _core.Estimator, dynamics: _core.Dynamics, due: Due
    ) -> tuple[FloatArray, Outlook]:
        if estimator.anchored or len(particles) > 1:
            raise TypeError(_NEEDS_MFLD)
        loss = norm = [math.nan]
        for k in range(due.n_steps):
            step = _StepInPieces(self, particles, estimator, dynamics, due.part(k, k + 1))
            try:
                particles = step.made()
            except _EndedError as early:
                return particles, Reached(k, early.bad, [math.nan], [math.nan], early.reason)
            except BaseException as error:  # of the disk
                return particles, Reached(k, None, [math.nan], [math.nan], error)
            loss, norm = step.loss, step.gradient_norm
        return particles, Reached(due.n_steps, None, loss, norm, None)


class _EndedError(Exception):
    """A step has ended early: a particle is not finite, or it was stopped."""

    def __init__(self, bad: tuple[int, int] | None, reason: BaseException | None) -> None:
        self.bad, self.reason = bad, reason


class _StepInPieces:
    """One step. Pieces are ranks that come one after the other, where those of MPI come at once.

    In a first round each makes its sums over particles and says them; in the second each hears those of all, and moves.
    The core does not know the difference: it takes part in meetings, in which it says something and hears what the
    others say. Whoever has not spoken yet is taken to say the same, which matters nowhere: in the first round nothing
    follows from it, and in the second what meets behind the sums is that nobody stops, and norms, whose sum is read
    from the last piece, which has heard all.
    """

    loss: list[float]
    gradient_norm: list[float]

    def __init__(
        self,
        problem: _RiskInPieces,
        particles: FloatArray,
        estimator: _core.Estimator,
        dynamics: _core.Dynamics,
        due: Due,
    ) -> None:
        self._problem, self._particles, self._due = problem, particles, due
        self._parts = estimator, dynamics
        self._shares = _shares(particles.shape[1], problem.count, particles.dtype)
        self._sums: list[list[bytes]] = []  # said in the first round, by each piece
        self._said: list[list[bytes]] = []  # and in the second

    def made(self) -> FloatArray:
        """Particles after the step, in a new file."""
        if len(self._shares) > 1:
            for piece in range(len(self._shares)):
                self._sums.append([])
                self._call(piece, self._hear_itself, only_sums=True)
                self._sums[piece].pop()  # the last meeting is that all have ended
        with replacing(self._problem.path) as file:
            _write_header(file, self._particles.shape[1:], self._particles.dtype)
            for piece in range(len(self._shares)):
                self._said.append([])
                file.write(self._call(piece, self._hear_all, only_sums=False).data)
        particles: FloatArray = np.load(self._problem.path, mmap_mode="r")[np.newaxis]
        return particles

    def _call(self, piece: int, exchange: Callable[[int, bytes, memoryview], None], *, only_sums: bool) -> FloatArray:
        begin, end = self._shares[piece]
        own = self._particles[:, begin:end]
        count, n = len(self._shares), self._particles.shape[1]
        ranks = _core.Ranks(piece, count, functools.partial(exchange, piece), n, only_sums)
        moved, report = self._problem.risk._replace(ranks=ranks).advance(own, *self._parts, self._due)
        validation.release(self._particles)
        if report.bad is not None or report.exception is not None:
            raise _EndedError(report.bad, report.exception)
        self.loss, self.gradient_norm = report.loss, report.gradient_norm
        return moved

    def _hear_itself(self, piece: int, mine: bytes, slots: memoryview) -> None:
        self._sums[piece].append(mine)
        slots[:] = mine * len(self._shares)

    def _hear_all(self, piece: int, mine: bytes, slots: memoryview) -> None:
        said = self._said[piece]
        meeting = len(said)
        said.append(mine)
        if meeting < len(self._sums[0]):
            heard = [sums[meeting] for sums in self._sums]
        else:
            heard = [other[meeting] for other in self._said] + [mine] * (len(self._shares) - piece - 1)
        slots[:] = b"".join(heard)


def _shares(n_particles: int, n_pieces: int, dtype: FloatDType) -> list[tuple[int, int]]:
    """First particle of each piece and the first behind it; where there are fewer leaves, so many pieces."""
    for count in range(n_pieces, 0, -1):
        shares = [_core.backend.share(n_particles, piece, count, dtype) for piece in range(count)]
        if all(begin < end for begin, end in shares):
            return shares
    raise AssertionError("one piece has all particles")


def _write_header(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": tuple(shape)})
