"""Mean-field Langevin dynamics."""

from __future__ import annotations

import bisect
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mfld import noise, validation
from mfld.algorithms.result import Result
from mfld.callbacks import Callback
from mfld.errors import DivergenceError
from mfld.gradients import FullBatch, GradientEstimator
from mfld.objectives import Objective, Plan
from mfld.state import Cloud, Info, State

_RECORDS = 100  # of a run, about, unless told otherwise
_DISPLAY_SECONDS = 0.1  # between two calls of a callback with every=None

_NO_STEP = Info(0, np.nan, np.nan)


@dataclass(frozen=True)
class MFLD:
    """Mean-field Langevin dynamics: noisy gradient descent of interacting particles.

    ::

        theta <- theta - step_size * b(theta; mu) + sqrt(2 * temperature * step_size) * xi,    xi ~ N(0, I)

    for all particles at once, where mu is their empirical measure and b the gradient in theta of the first variation of
    the objective, ``2 * l2 * theta`` included. In the limit of many particles and small steps it minimises
    ``F(mu) + temperature * Ent(mu)``. Weak order 1: at a finite step the law is off by O(step_size), at N particles by
    O(1/N). Source: Suzuki, Wu, Nitanda 2023, "Convergence of mean-field Langevin dynamics: time and space
    discretization, stochastic gradient, and variance reduction"; Mei, Montanari, Nguyen 2018, "A mean field view of the
    landscape of two-layer neural networks".

    Parameters
    ----------
    n_particles : int
        N.
    step_size : float
        Positive; the time of one step.
    temperature : float
        At least 0; 0 is gradient descent.
    gradient : GradientEstimator
        `FullBatch` or `Minibatch`.
    dtype : {"float32", "float64"}
        Precision of the particles and of all that is computed on them.
    num_threads : int, optional
        Default: what OpenMP would take (OMP_NUM_THREADS). It never changes the result.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> inputs = np.linspace(-2, 2, 50)[:, np.newaxis]
    >>> model = mfld.TwoLayerNetwork(n_features=1, activation="tanh")
    >>> risk = mfld.EmpiricalRisk(model, inputs, np.sin(inputs[:, 0]), loss="squared", l2=1e-4)
    >>> solver = mfld.MFLD(n_particles=200, step_size=0.2, temperature=1e-5)
    >>> result = solver.run(risk, n_steps=1000, seed=0)
    >>> bool(result.history["loss"][-1] < 0.02)
    True

    The same by hand; a `State` is never changed:

    >>> state = solver.init(risk, seed=0)
    >>> for _ in range(10):
    ...     state, info = solver.advance(risk, state, n_steps=100)
    >>> np.array_equal(state.particles, result.particles)
    True
    """

    n_particles: int = 1000
    _: KW_ONLY
    step_size: float
    temperature: float
    gradient: GradientEstimator = field(default_factory=FullBatch)
    dtype: DTypeLike = "float32"
    num_threads: int | None = None

    def __post_init__(self) -> None:
        checked = {
            "n_particles": validation.integer("n_particles", self.n_particles, 1),
            "step_size": validation.real("step_size", self.step_size, positive=True),
            "temperature": validation.real("temperature", self.temperature, non_negative=True),
            "dtype": validation.float_dtype("dtype", self.dtype).name,
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        validation.instance("gradient", self.gradient, GradientEstimator, "FullBatch() or Minibatch(batch_size)")
        validation.num_threads(self.num_threads)

    def init(self, objective: Objective, seed: int = 0, particles: ArrayLike | None = None) -> State:
        """State before the first step.

        Parameters
        ----------
        objective : Objective
        seed : int
            At least 0 and below 2**64: of the initial particles and of all the noise of the run.
        particles : array_like, shape (n_particles, p), optional
            Where to start; by default the objective's initial particles.

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or out of range, or the particles do not fit.
        """
        self._check(objective)
        seed = validation.seed(seed)
        if particles is None:
            particles = objective.initial_particles(self.n_particles, seed, self.dtype)
        start = validation.array("particles", particles, self.dtype)
        validation.shape("particles", start, (self.n_particles, objective.n_coordinates), "(n_particles, coordinates)")
        return State({"mu": Cloud(start[np.newaxis])}, step=0, seed=seed)

    def advance(self, objective: Objective, state: State, n_steps: int = 1) -> tuple[State, Info]:
        """Make steps; k steps and then k steps are 2k steps, bit by bit.

        Parameters
        ----------
        objective : Objective
        state : State
            Where to start; it stays as it is.
        n_steps : int
            With 0 the same state comes back.

        Returns
        -------
        State, Info

        Raises
        ------
        DivergenceError
            If a particle is not finite after a step; the last good state is attached.
        KeyboardInterrupt
            At Ctrl-C, answered within long steps too; the state that the steps so far led to is attached as ``state``.
        TypeError, ValueError
            If an argument is of the wrong kind or out of range, or the state is none of this solver and objective.
        """
        self._check(objective)
        self._check_state(objective, state)
        n_steps = validation.integer("n_steps", n_steps, 0, validation.MAX_STEP - state.step)
        if n_steps == 0:
            return state, _NO_STEP
        plan = Plan(
            step_size=np.array([self.step_size]),
            temperature=np.array([self.temperature]),
            l2=np.array([objective.l2]),
            gradient=self.gradient,
            key=noise.key(state.seed),
            step=state.step,
            population=0,
            num_threads=validation.num_threads(self.num_threads),
        )
        outcome = objective.steps(state.particles, n_steps, plan)
        outcome.particles.flags.writeable = False  # so that the state takes them without a copy
        reached = State({"mu": Cloud(outcome.particles[np.newaxis])}, state.step + outcome.steps, state.seed)
        if outcome.interrupt is not None:
            outcome.interrupt.state = reached  # type: ignore[attr-defined]
            raise outcome.interrupt
        if outcome.bad_particle is not None:
            raise DivergenceError(reached.step, outcome.bad_particle, self.step_size, reached)
        return reached, Info(outcome.steps, outcome.loss, outcome.gradient_norm)

    def run(
        self,
        objective: Objective,
        n_steps: int,
        seed: int = 0,
        *,
        particles: ArrayLike | None = None,
        state: State | None = None,
        record_every: int | Sequence[int] | None = None,
        record: Mapping[str, Callable[[State], float]] | None = None,
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
            Further entries of the history: functions of the state with a float as their value.
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
            self._check(objective)
            self._check_state(objective, state)
            if particles is not None:
                raise ValueError("particles must be None where state is given: a state brings its own")
            if seed not in (0, state.seed):
                raise ValueError(
                    f"seed must be left out where state is given: it has the seed {state.seed}, got {seed}"
                )
        end = state.step + n_steps
        record_steps = _record_steps(record_every, state.step, end)
        to_record = set(record_steps)
        agenda = _Agenda(record_steps, callbacks, end)
        history = _History(record)
        started: list[Callback] = []
        try:
            for callback in callbacks:
                callback.on_start(state, n_steps)
                started.append(callback)
            if state.step in to_record:
                history.add(state, _NO_STEP)
            stop = False
            while state.step < end and not stop:
                state, info = self.advance(objective, state, agenda.next(state.step) - state.step)
                for callback in agenda.due(state.step, info.steps):
                    stop = bool(callback(state, info)) or stop
                if stop or state.step in to_record:
                    history.add(state, info)
        except BaseException as error:
            reached = getattr(error, "state", None)  # from advance: later than the one here
            state = reached if isinstance(reached, State) else state
            error.state = state  # type: ignore[attr-defined]
            error.result = Result(objective, state, history.arrays())  # type: ignore[attr-defined]
            raise
        finally:
            for callback in started:
                callback.on_end(state)
        return Result(objective, state, history.arrays())

    def _check(self, objective: Objective) -> None:
        validation.instance("objective", objective, Objective, "an Objective")
        self.gradient.check(objective)

    def _check_state(self, objective: Objective, state: State) -> None:
        validation.instance("state", state, State, "a State")
        cloud = state.only_cloud
        particles = cloud.particles[0]
        validation.shape("state.particles", particles, ("N", objective.n_coordinates), "to suit the objective")
        if particles.dtype != self.dtype:
            raise ValueError(f"state.particles must be {self.dtype}, the dtype of this MFLD, got {particles.dtype}")
        if cloud.weights is not None:
            raise ValueError("state must have particles of equal weight (weights=None)")


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
    """Rows of what is recorded."""

    def __init__(self, record: Mapping[str, Callable[[State], float]] | None) -> None:
        self._functions = dict(record or {})
        self._rows: list[dict[str, float]] = []
        for name, function in self._functions.items():
            if name in ("step", "loss", "gradient_norm"):
                raise ValueError(f"record must not use the names step, loss, gradient_norm, got {name!r}")
            validation.function(f"record[{name!r}]", function)

    def add(self, state: State, info: Info) -> None:
        recorded = {name: float(function(state)) for name, function in self._functions.items()}
        self._rows.append({"step": state.step, "loss": info.loss, "gradient_norm": info.gradient_norm, **recorded})

    def arrays(self) -> dict[str, NDArray[Any]]:
        names = ["step", "loss", "gradient_norm", *self._functions]
        return {name: np.array([row[name] for row in self._rows], int if name == "step" else float) for name in names}
