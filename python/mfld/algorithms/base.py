"""What algorithms share: a run, as a sequence of advances with a history and callbacks."""

from __future__ import annotations

import bisect
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mfld import validation
from mfld.algorithms.result import Result
from mfld.callbacks import SEEN, Callback
from mfld.objectives import Objective
from mfld.state import Info, State

_RECORDS = 100  # of a run, about, unless told otherwise
_DISPLAY_SECONDS = 0.1  # between two calls of a callback with every=None


class Algorithm(ABC):
    """An outer loop: `init` makes a state, `advance` leads from state to state, `run` does both and keeps a history."""

    @abstractmethod
    def init(
        self, objective: Objective, seed: int = 0, particles: ArrayLike | None = None, *, replica: int = 0
    ) -> State:
        """State before the first step."""

    @abstractmethod
    def advance(self, objective: Objective, state: State, n_steps: int = 1) -> tuple[State, Info]:
        """Make steps; k steps and then k steps are 2k steps, bit by bit."""

    @abstractmethod
    def check(self, objective: Objective, state: State | None = None) -> None:
        """Raise TypeError or ValueError if this algorithm cannot serve the objective, or go on from the state."""

    def _first_replicate(
        self, objective: Objective, state: State, dtype: DTypeLike, *, may_be_weighted: bool = False
    ) -> State:
        """For `check`: the first replicate, which has the shapes of all, of a state whose particles suit."""
        validation.instance("state", state, State, "a State")
        if state.n_replicates > 1:
            state = state.replicate(0)
        cloud = state.only_cloud
        particles = cloud.particles[0]
        validation.shape("state.particles", particles, ("N", objective.n_coordinates), "to suit the objective")
        if particles.dtype != dtype:
            own = type(self).__name__
            raise ValueError(f"state.particles must be {dtype}, the dtype of this {own}, got {particles.dtype}")
        if cloud.weights is not None and not may_be_weighted:
            raise ValueError("state must have particles of equal weight (weights=None)")
        return state

    def check_steps(self, objective: Objective, state: State, n_steps: int) -> None:  # noqa: B027  most take any number
        """Raise ValueError if this algorithm cannot make so many steps from the state; called before a run."""

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
        """Run from the start, or go on from a state.

        Parameters
        ----------
        objective : Objective
        n_steps : int
            Steps to make.
        seed, particles
            As in `init`.
        state : State, optional
            Go on from here instead; it brings its own seed and particles.
        record_every : int or sequence of int, optional
            When to record: at each multiple of an integer and at the end, or at these counts of steps. Default: about
            100 times. Counts include the steps that led to ``state``. At a count where the run starts, no step has been
            made: loss and gradient norm are NaN there.
        record : mapping of str to callable, optional
            Further entries of the history: functions of the state. Their values are numbers, or arrays of always the
            same shape; `mfld.quantities` has some, like the loss on a validation set. With several replicates they
            are called on the state of each.
        callbacks : sequence of Callback
            For example ``[mfld.Progress()]``.

        Returns
        -------
        Result

        Raises
        ------
        DivergenceError, KeyboardInterrupt
            As in `advance`.
        TypeError, ValueError
            If an argument is of the wrong kind or out of range.

        Notes
        -----
        Whatever exception ends a run early has the attributes ``state``, the last valid one, and ``result``, with the
        history up to there.

        Examples
        --------
        >>> import numpy as np
        >>> import mfld
        >>> well = mfld.Potential(lambda x: x, n_coordinates=1)
        >>> solver = mfld.MFLD(n_particles=1000, step_size=0.1, temperature=1.0)
        >>> result = solver.run(well, 40, record_every=20, record={"variance": lambda state: np.var(state.particles)})
        >>> result.history["step"], result.history["variance"].shape
        (array([20, 40]), (2,))
        """
        n_steps = validation.integer("n_steps", n_steps, 0)
        if state is None:
            state = self.init(objective, seed, particles)
        else:
            self.check(objective, state)
            if particles is not None:
                raise ValueError("particles must be None where state is given: a state brings its own")
            if seed not in (0, state.seed):
                raise ValueError(
                    f"seed must be left out where state is given: it has the seed {state.seed}, got {seed}"
                )
        self.check_steps(objective, state, n_steps)
        end = state.step + n_steps
        record_steps = _record_steps(record_every, state.step, end)
        to_record = set(record_steps)
        agenda = _Agenda(record_steps, callbacks, end)
        info = Info(steps=0)
        history = _History(record)
        started: list[Callback] = []
        failure: BaseException | None = None
        try:
            for callback in callbacks:
                callback.on_problem(self, objective)
                callback.on_start(state, n_steps)
                started.append(callback)
            if state.step in to_record:
                history.add(state, info)
            stop = False
            while state.step < end and not stop:
                state, info = self.advance(objective, state, agenda.next(state.step) - state.step)
                for callback in agenda.due(state.step, info.steps):
                    stop = bool(callback(state, info)) or stop
                if stop or state.step in to_record:
                    history.add(state, info)
        except BaseException as error:
            failure = error
            reached = getattr(error, "state", None)  # from advance: later than the one here
            state = reached if isinstance(reached, State) else state
        failure = _end(started, state, failure)
        if failure is not None:
            failure.state = state  # type: ignore[attr-defined]
            failure.result = Result(objective, state, history.arrays(), info)  # type: ignore[attr-defined]
            raise failure
        return Result(objective, state, history.arrays(), info)


def _end(callbacks: Sequence[Callback], state: State, failure: BaseException | None) -> BaseException | None:
    """Call each one's on_end, whatever the others do; the first failure counts, and notes what else failed."""
    for callback in callbacks:
        try:
            callback.on_end(state)
        except BaseException as error:
            if failure is None:
                failure = error
            else:
                failure.add_note(f"then on_end of {type(callback).__name__} failed: {error!r}")
    return failure


def _record_steps(record_every: int | Sequence[int] | None, start: int, end: int) -> list[int]:
    """Counts of steps at which to record, increasing."""
    if record_every is None:
        record_every = max(1, math.ceil((end - start) / _RECORDS))
    if isinstance(record_every, Iterable):
        steps = {validation.integer("record_every", step, 0) for step in record_every}
        outside = sorted(step for step in steps if not start <= step <= end)
        if outside:
            raise ValueError(f"record_every must hold steps between {start} and {end}, got {outside[0]}")
        return sorted(steps)
    every = validation.integer("record_every", record_every, 1)
    return [*range(every * (start // every + 1), end, every), end] if end > start else []


class _Agenda:
    """When a run comes up from its steps, and whom it calls then."""

    def __init__(self, record_steps: list[int], callbacks: Sequence[Callback], end: int) -> None:
        for number, callback in enumerate(callbacks):
            validation.instance(f"callbacks[{number}]", callback, Callback, "a Callback")
            if callback.every is not None:
                validation.integer(f"callbacks[{number}].every", callback.every, 1)
        self._record_steps = record_steps
        self._callbacks = callbacks
        self._end = end
        self._chunk = 1  # steps that take about as long as a display lasts
        self._displayed = self._left = time.monotonic()

    def next(self, step: int) -> int:
        """The count of steps at which to come up again."""
        following = bisect.bisect(self._record_steps, step)
        places = [self._end, *self._record_steps[following : following + 1]]
        for callback in self._callbacks:
            every = callback.every
            places.append(step + self._chunk if every is None else every * (step // every + 1))
        self._left = time.monotonic()
        return min(places)

    def due(self, step: int, n_steps: int) -> list[Callback]:
        """Callbacks to call, after the last `n_steps` led to this count."""
        now = time.monotonic()
        pace = n_steps / max(now - self._left, 1e-6)
        self._chunk = max(1, min(int(pace * _DISPLAY_SECONDS), 10 * n_steps))
        display = step == self._end or now - self._displayed >= _DISPLAY_SECONDS
        if display:
            self._displayed = now
        return [
            callback
            for callback in self._callbacks
            if (display if callback.every is None else step == self._end or step % callback.every == 0)
        ]


class _History:
    """Rows of what is recorded: what the last step saw, and functions of the state."""

    def __init__(self, record: Mapping[str, Callable[[State], ArrayLike]] | None) -> None:
        if record is not None:
            validation.instance("record", record, Mapping, "a mapping of names to functions of the state")
        self._functions = dict(record or {})
        self._rows: list[dict[str, Any]] = []
        self._shapes: dict[str, tuple[int, ...]] = {}
        own = ["step", *SEEN]
        for name, function in self._functions.items():
            if name in own:
                raise ValueError(f"record must not use the names {', '.join(own)}, got {name!r}")
            validation.function(f"record[{name!r}]", function)

    def add(self, state: State, info: Info) -> None:
        states = state.each()
        infos = info.replicates or (info,) * len(states)
        row: dict[str, Any] = {name: [getattr(one, name) for one in infos] for name in SEEN}
        for name, function in self._functions.items():
            row[name] = [self._value(name, function(one)) for one in states]
        # A single run has no axis of replicates.
        self._rows.append({"step": state.step, **{k: v[0] if len(v) == 1 else np.stack(v) for k, v in row.items()}})

    def _value(self, name: str, given: ArrayLike) -> NDArray[np.float64]:
        expected = self._shapes.get(name)
        why = "" if expected is None else "as at the first record"
        value = validation.returned(f"the result of record[{name!r}]", given, expected, np.float64, why)
        self._shapes[name] = value.shape
        return np.array(value)  # a copy: the function may hand out the same array again

    def arrays(self) -> dict[str, NDArray[Any]]:
        names = ["step", *SEEN, *self._functions]
        return {name: np.array([row[name] for row in self._rows], int if name == "step" else float) for name in names}
