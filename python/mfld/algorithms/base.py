"""Algorithms in general: a run, as a sequence of advances with a history and callbacks."""

from __future__ import annotations

import bisect
import dataclasses
import html
import io
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, ClassVar, Protocol, Self, TypeVar, cast, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mfld import validation
from mfld.certificates import Certificate, certificate, dual_at
from mfld.floating import underflow_is_zero
from mfld.noise import Coupling
from mfld.objectives import EmpiricalRisk, Objective
from mfld.state import Cloud, Info, State
from mfld.validation import FloatArray

_Value = TypeVar("_Value")

_RECORDS = 100  # of a run, about, unless told otherwise
_MOST_RECORDS = 10_000_000  # a history is held in memory
_DISPLAY_SECONDS = 0.1  # between two calls of a callback with every=None


_OUTSIDE = ("steps", "gradient_variance", "replicates")
SEEN = tuple(field.name for field in dataclasses.fields(Info) if field.name not in _OUTSIDE)
"""Entries of `Info` that a history has."""


@runtime_checkable
class Callback(Protocol):
    """Function that a run calls on its way: to show, to save, to stop early. Subclass it and define ``__call__``.

    Attributes
    ----------
    every : int or None
        Call at each multiple of so many steps and at the end; each call ends a call of the core, which costs as much as
        some steps of a small problem, hence 10 by default. None: about ten times a second and at the end, for
        display only, since the steps at which this falls depend on the machine. Neither changes the result of the run.

    Examples
    --------
    >>> import mfld
    >>> class StopWhenFlat(mfld.Callback):
    ...     every = 10
    ...     def __call__(self, state, info):
    ...         return info.gradient_norm < 0.5
    >>> well = mfld.Potential(lambda x: x, n_coordinates=1)
    >>> descent = mfld.MFLD(n_particles=100, step_size=0.1, temperature=0.0)
    >>> descent.run(well, n_steps=1000, callbacks=[StopWhenFlat()]).state.step
    10
    """

    every: int | None = 10

    def __repr__(self) -> str:
        pace = f"{_DISPLAY_SECONDS:g} s" if self.every is None else f"{self.every} steps"
        return f"{type(self).__name__}(every {pace})"

    def on_problem(self, algorithm: Algorithm, objective: Objective) -> None:
        """Called first, with what runs on what."""
        return

    def on_start(self, state: State, n_steps: int) -> None:
        """Called once before ``n_steps`` steps."""

    def __call__(self, state: State, info: Info) -> bool | None:
        """Called on the way with the state and what the last step saw; True stops the run here."""

    def on_end(self, state: State) -> None:
        """Called once at the end, also when an error ends the run."""


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """End of a run, and what was seen on the way.

    Attributes
    ----------
    algorithm : Algorithm
    objective : Objective
    state : State
        To go on from: ``solver.run(result.objective, n_steps, state=result.state)``.
    history : dict of str to ndarray, shape (n_records,)
        ``step``: how many steps had been done. ``loss``, ``gradient_norm`` and the other entries of `Info`: what the
        last of them saw, before its move. Further entries: the values of the functions given as ``record``, at the
        particles after it. With several replicates every entry but ``step`` has a second axis, one value for each.
    info : Info
        What the last step saw, with the step size, temperature and ridge that it used.

    Examples
    --------
    >>> import mfld
    >>> model = mfld.TwoLayerNetwork(n_features=1)
    >>> risk = mfld.EmpiricalRisk(model, [[-1.0], [1.0]], [-1.0, 1.0], loss="squared")
    >>> result = mfld.MFLD(n_particles=50, step_size=0.1, temperature=1e-4).run(risk, n_steps=100)
    >>> result.particles.shape, result.predict([[0.5]]).shape, len(result.history["loss"])
    ((50, 3), (1,), 100)
    """

    algorithm: Algorithm
    objective: Objective
    state: State
    history: dict[str, NDArray[Any]]
    info: Info = field(default_factory=lambda: Info(steps=0))

    def __repr__(self) -> str:
        seen = [f"{name} {getattr(self.info, name):.4g}" for name in ("loss", "gradient_norm", "acceptance")]
        seen = [text for text in seen if not text.endswith("nan")]
        records = len(self.history.get("step", ()))
        return (
            f"Result of {type(self.algorithm).__name__} on {self.objective!r}:\n"
            f"  {self.state!r}\n"
            f"  {', '.join([*seen, f'{records} records'])}"
        )

    def _repr_html_(self) -> str:
        """The same for notebooks, with a small picture of the loss where matplotlib is installed."""
        return f"<pre>{html.escape(repr(self))}</pre>{_picture(self.history)}"

    @property
    def particles(self) -> FloatArray:
        """Particles, shape (N, p), read-only; of several replicates see `State.replicate` and `State.measure`."""
        return self.state.particles

    @property
    def measure(self) -> Cloud:
        """Particles with their weights; the mixture of several replicates."""
        return self.state.measure

    @property
    def weights(self) -> FloatArray:
        """Weights of the particles of `measure`, shape (N,), of sum 1."""
        cloud = self.state.measure
        n = len(cloud.particles)
        return np.full(n, 1 / n, cloud.particles.dtype) if cloud.weights is None else cloud.weights

    @property
    def dual(self) -> FloatArray | None:
        """Dual variables g of the samples, where the algorithm has them: shape (n,), or (n, n_outputs); else None.

        Those of `PSDCA`, and of `PDA` the averages over its steps; of several replicates the mean.
        """
        if not self.algorithm.has_dual:
            return None
        dual = self.algorithm.dual(self.objective, self.state)
        return dual[:, 0] if dual.shape[1] == 1 else dual

    def certificate(
        self,
        confidence: float = 0.999,
        *,
        dual: ArrayLike | None = None,
        temperature: float | None = None,
        **options: Any,
    ) -> Certificate:
        """How far from the optimum the answer is at most: the duality gap of the run's dual variables.

        It certifies the Gibbs measure of the dual variables, and not the cloud: see `mfld.certificate`.

        Parameters
        ----------
        confidence : float
            Of the upper bound.
        dual : array_like, shape (n,) or (n, n_outputs), optional
            Dual variables; by default `dual`, or where there are none the averages of `Algorithm.late_dual`.
        temperature : float, optional
            By default that of the last step.
        **options
            Further arguments of `mfld.certificate`.

        Returns
        -------
        Certificate

        Raises
        ------
        TypeError, ValueError
            If the objective is no EmpiricalRisk, the run has no step to take the temperature from, its replicates have
            several temperatures or l2, or an argument does not fit.
        """
        risk = validation.instance("the objective of the run", self.objective, EmpiricalRisk, "an EmpiricalRisk")
        if len({(info.temperature, info.l2) for info in self.info.each()}) > 1:
            raise ValueError(
                "the replicates must have one temperature and one l2, got several: their mixture is of no one problem. "
                "Certify each: mfld.certificate(objective, algorithm.dual(objective, state.replicate(r)), "
                "temperature, l2=l2)"
            )
        last_temperature, l2 = self.algorithm.certified(risk, self.info)
        if temperature is None:
            temperature = last_temperature
            if math.isnan(temperature):
                raise ValueError("temperature must be given where the run has made no step")
        if not math.isnan(l2):
            options.setdefault("l2", l2)
        options.setdefault("num_threads", self.algorithm.num_threads)
        if dual is None:
            dual = self.algorithm.late_dual(risk, self.state, self.info)
        return certificate(risk, dual, temperature, confidence=confidence, **options)

    def privacy_spent(self, delta: float, *, count_dynamics: bool = False, accountant: str = "rdp") -> float:
        """Epsilon of the run at delta: with `mfld.Clipped` gradients, see `MFLD.privacy_spent`."""
        options = {"count_dynamics": count_dynamics, "accountant": accountant}
        return self.algorithm.privacy_spent(self.objective, self.state, delta, **options)

    def predict(self, inputs: ArrayLike) -> FloatArray:
        """Predictions of the model that was trained; with several replicates those of their mixture, the mean.

        Parameters
        ----------
        inputs : array_like, shape (n, n_features)

        Returns
        -------
        ndarray, shape (n,), or (n, n_outputs) with several outputs

        Raises
        ------
        TypeError, ValueError
            If the objective has no model, or the inputs do not fit it.
        """
        return self.objective.on_threads(self.algorithm.num_threads).predict(self.state.measure, inputs)


def _picture(history: Mapping[str, NDArray[Any]]) -> str:
    """The loss against the step as inline SVG; nothing where there is none, or no matplotlib."""
    step, loss = history.get("step", np.zeros(0)), history.get("loss", np.zeros(0))
    if len(step) < 2 or not np.isfinite(loss).any():
        return ""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  an extra, and slow to import
    except ImportError:
        return ""
    figure = Figure(figsize=(4, 2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(step, loss, linewidth=1)
    axes.set(xlabel="step", ylabel="loss")
    file = io.StringIO()
    figure.savefig(file, format="svg")
    svg = file.getvalue()
    return svg[svg.index("<svg") :]  # a page has no room for the prolog of a file


class Algorithm(ABC):
    """An outer loop: `init` makes a state, `advance` leads from state to state, `run` does both and keeps a history.

    Attributes
    ----------
    has_dual : bool
        True where it carries dual variables of the samples.
    goes_on : bool
        True where a run may go on from a state with other samples, since nothing in it belongs to the rows.
    starts_anywhere : bool
        False where the particles stand for dual variables, so that a run on other samples does not start from them.
    sees_all_rows : bool
        True where every step is along the gradient from all samples.
    num_threads : int or None
        Number of threads; None stands for what OpenMP would take. It never changes a result.
    """

    has_dual: ClassVar[bool] = False
    goes_on: ClassVar[bool] = False
    starts_anywhere: ClassVar[bool] = True
    sees_all_rows: bool = False
    num_threads: int | None = None

    @abstractmethod
    def init(
        self,
        objective: Objective,
        seed: int = 0,
        particles: ArrayLike | None = None,
        *,
        replica: int | Sequence[int] = 0,
    ) -> State:
        """State before the first step."""

    @abstractmethod
    def advance(self, objective: Objective, state: State, n_steps: int = 1) -> tuple[State, Info]:
        """Make steps; k steps and then k steps are 2k steps, bit by bit."""

    @property
    def described(self) -> Algorithm:
        """The algorithm as results, callbacks and files know it: where it is one that only runs another, the other."""
        return self

    def once(self, function: Callable[[], _Value]) -> _Value:
        """Value of a function that looks outside, at files: called once, also where processes run together."""
        return function()

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
        expected: tuple[int | str, ...] = (*objective.members, "N", objective.n_coordinates)
        validation.shape("state.particles", particles, expected, "to suit the objective")
        if particles.dtype != dtype:
            own = type(self).__name__
            raise ValueError(f"state.particles must be {dtype}, the dtype of this {own}, got {particles.dtype}")
        if cloud.weights is not None and not may_be_weighted:
            raise ValueError("state must have particles of equal weight (weights=None)")
        return state

    def rows_of_a_step(self, objective: Objective) -> int | None:
        """Number of rows that a step sees; None where the objective has no samples."""
        return objective.n_samples

    def dual(self, objective: Objective, state: State) -> FloatArray:
        """Dual variables of the samples that belong to a state, shape (n, n_outputs), float64.

        Those that the algorithm carries, where `has_dual` is; else ``l'(f_mu(z_i), y_i)`` at the cloud. Of several
        replicates those at their mixture, or the mean of theirs, which is no worse than they are on average.

        Raises
        ------
        TypeError
            If the objective is no EmpiricalRisk.
        """
        risk = validation.instance("objective", objective, EmpiricalRisk, "an EmpiricalRisk, which has dual variables")
        return dual_at(risk.on_threads(self.num_threads), state.measure)

    def late_dual(self, objective: Objective, state: State, info: Info) -> FloatArray:
        """Dual variables to certify, of a state and the info of the step that led to it: those of `dual`.

        Where these are the derivatives at one cloud, whose gap has a floor of order 1/N, an algorithm may make further
        steps and average over them.
        """
        return self.dual(objective, state)

    def certified(self, objective: Objective, info: Info) -> tuple[float, float]:
        """Temperature and l2 of the problem that the last step belongs to; NaN where there was no step."""
        return info.temperature, info.l2

    def privacy_spent(self, objective: Objective, state: State, delta: float, **options: Any) -> float:
        """Epsilon at delta of the steps that led to a state.

        Raises
        ------
        TypeError
            If nothing bounds what a row does to them.
        """
        raise TypeError(f"{type(self).__name__} has no account of privacy: use MFLD with Clipped gradients")

    def resized(self, share: Fraction, n_replicates: int) -> Self:
        """The same algorithm with so many times the particles, and so many replicates.

        Raises
        ------
        NotImplementedError
            If it has no fields ``n_particles`` and ``n_replicates``, and does not define this otherwise.
        ValueError
            If that is no whole number of particles.
        """
        own: Any = self
        if not dataclasses.is_dataclass(self) or not {"n_particles", "n_replicates"} <= vars(self).keys():
            raise NotImplementedError(f"{type(self).__name__} must define resized(share, n_replicates)")
        n_particles = scaled("n_particles", own.n_particles, share)
        return cast(Self, dataclasses.replace(own, n_particles=n_particles, n_replicates=n_replicates))

    def at_step(self, share: Fraction) -> tuple[Self, Fraction] | None:
        """The same algorithm with so many times the step size, and how many of its steps make one; None without a size.

        Schedules are stretched, so that what a run does at a time stays the same.
        """
        return None

    def coupled(self, couplings: Mapping[int, Coupling]) -> Self | None:
        """The same algorithm with noise made of that of another run, by each replicate's key; None if it cannot."""
        return None

    def check_steps(self, objective: Objective, state: State, n_steps: int) -> None:  # noqa: B027  most take any number
        """Raise ValueError if this algorithm cannot make so many steps from the state; called before a run."""

    @underflow_is_zero
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
        history up to there; one within `init`, before there is a state, has neither.

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
        n_steps = validation.integer("n_steps", n_steps, 0, validation.MAX_STEP)
        seed = validation.seed(seed)
        callbacks = _all_callbacks(callbacks)
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
        validation.integer("n_steps", n_steps, 0, validation.MAX_STEP - state.step)  # which the noise has room for
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
                callback.on_problem(self.described, objective)
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
            failure.result = Result(self.described, objective, state, history.arrays(), info)  # type: ignore[attr-defined]
            raise failure
        return Result(self.described, objective, state, history.arrays(), info)


def scaled(name: str, number: int, share: Fraction) -> int:
    """A share of a whole number, where that is one."""
    part = number * share
    if part.denominator > 1:
        raise ValueError(f"{name} must be a multiple of {share.denominator}, got {number}")
    return int(part)


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


def _all_callbacks(callbacks: Iterable[Callback]) -> list[Callback]:
    if not isinstance(callbacks, Iterable) or isinstance(callbacks, np.ndarray):
        raise TypeError(f"callbacks must be a sequence of callbacks, got {validation.show(callbacks)}")
    found = list(callbacks)  # once: a generator has them no second time
    for number, callback in enumerate(found):
        validation.instance(f"callbacks[{number}]", callback, Callback, "a Callback")
        if callback.every is not None:
            validation.integer(f"callbacks[{number}].every", callback.every, 1)
    return found


def are_steps(record_every: object) -> bool:
    """True for steps to record at, and not for their distance; an array without an axis is a number."""
    if isinstance(record_every, np.ndarray):
        return record_every.ndim > 0
    return isinstance(record_every, Iterable) and not isinstance(record_every, (str, bytes))


def _record_steps(record_every: int | Sequence[int] | None, start: int, end: int) -> list[int]:
    """Counts of steps at which to record, increasing."""
    if record_every is None:
        record_every = max(1, math.ceil((end - start) / _RECORDS))
    if are_steps(record_every):
        steps = {validation.integer("record_every", step, 0) for step in cast(Iterable[int], record_every)}
        outside = sorted(step for step in steps if not start <= step <= end)
        if outside:
            raise ValueError(f"record_every must hold steps between {start} and {end}, got {outside[0]}")
        return sorted(steps)
    every = validation.integer("record_every", record_every, 1)
    if (end - start) // every > _MOST_RECORDS:
        least = math.ceil((end - start) / _MOST_RECORDS)
        raise ValueError(f"record_every must be at least {least} in a run of {end - start} steps, got {every}")
    return [*range(every * (start // every + 1), end, every), end] if end > start else []


class _Agenda:
    """When a run comes up from its steps, and whom it calls then."""

    def __init__(self, record_steps: list[int], callbacks: Sequence[Callback], end: int) -> None:
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
        found = {name: np.array([row[name] for row in self._rows], int if name == "step" else float) for name in names}
        for array in found.values():
            array.flags.writeable = False
        return found
