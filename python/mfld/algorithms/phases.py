"""Recipes of two phases: noise to find a good region, then descent to its bottom."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from fractions import Fraction
from typing import Any, NamedTuple, Self, cast

import numpy as np
from numpy.typing import ArrayLike

from mfld import validation
from mfld.algorithms.base import Algorithm, scaled
from mfld.algorithms.mfld import MFLD
from mfld.algorithms.plateau import StopOnPlateau
from mfld.floating import underflow_is_zero
from mfld.noise import Coupling
from mfld.objectives import Objective
from mfld.state import Cloud, Info, State
from mfld.validation import FloatArray


class _Progress(NamedTuple):
    """Numbers carried beside those of the solvers: each a buffer, the same entry for each replicate."""

    phase: int = 0  # of the step that was made last
    lowest: float = math.inf  # of the quantity of a plateau
    waited: int = 0  # looks since then

    @classmethod
    def of(cls, state: State) -> _Progress:
        try:
            phase, lowest, waited = (state.buffers[name][0] for name in cls._fields)
        except KeyError as error:
            raise ValueError(f"state must come from an algorithm of two phases: it has no buffer {error}") from None
        return cls(int(phase), float(lowest), int(waited))

    def added_to(self, state: State) -> State:
        own = {name: np.full(state.n_replicates, value) for name, value in self._asdict().items()}
        return replace(state, buffers={**state.buffers, **own})

    @classmethod
    def taken_from(cls, state: State) -> State:
        """The state as a solver knows it."""
        return replace(state, buffers={n: v for n, v in state.buffers.items() if n not in cls._fields})


class _AtStep(NamedTuple):
    """Switch at a count of steps."""

    step: int

    def is_due(self, progress: _Progress, step: int) -> bool:
        return step >= self.step

    def next_look(self, step: int) -> int:
        return self.step

    def looked(self, progress: _Progress, state: State, seen: Info) -> _Progress:
        return progress


class _AtPlateau(NamedTuple):
    """Switch at a plateau; methods as in `_AtStep`."""

    plateau: StopOnPlateau

    def is_due(self, progress: _Progress, step: int) -> bool:
        return progress.waited >= self.plateau.patience

    def next_look(self, step: int) -> int:
        return step + self._every - step % self._every

    def looked(self, progress: _Progress, state: State, seen: Info) -> _Progress:
        if state.step % self._every:
            return progress
        lowest, waited = self.plateau.follow((progress.lowest, progress.waited), state, seen)
        return progress._replace(lowest=lowest, waited=waited)

    @property
    def _every(self) -> int:
        assert self.plateau.every is not None
        return self.plateau.every


class _Phases(Algorithm):
    """One solver up to the switch and another one from there on, with the steps of the run counted through."""

    switch: int | StopOnPlateau

    @property
    def num_threads(self) -> int | None:  # type: ignore[override]
        return self._solvers[0].num_threads

    @property
    @abstractmethod
    def _solvers(self) -> tuple[MFLD, MFLD]:
        """Those of the two phases."""

    @property
    @abstractmethod
    def _names(self) -> tuple[str, str]:
        """Those of the arguments that they are."""

    def resized(self, share: Fraction, n_replicates: int) -> Self:
        return self._with([solver.resized(share, n_replicates) for solver in self._solvers])

    def at_step(self, share: Fraction) -> tuple[Self, Fraction] | None:
        both = [solver.at_step(share) for solver in self._solvers]
        if None in both or callable(self.switch) or (self.switch / share).denominator > 1:
            return None
        return self._with([each[0] for each in both if each], switch=int(self.switch / share)), 1 / share

    def coupled(self, couplings: Mapping[int, Coupling]) -> Self | None:
        both = [solver.coupled(couplings) for solver in self._solvers]
        return None if None in both else self._with(both)

    def _with(self, solvers: Sequence[MFLD | None], **changed: Any) -> Self:
        own: Any = self
        return cast(Self, replace(own, **dict(zip(self._names, solvers, strict=True)), **changed))

    def _handed_over(self, objective: Objective, state: State) -> State:
        """The state that the second solver starts from: without buffers."""
        return replace(state, buffers={})

    def _check_arguments(self, names: tuple[str, str]) -> None:
        first, second = self._solvers
        validation.instance(names[1], second, MFLD, "an MFLD")
        if first.dtype != second.dtype:
            raise ValueError(f"{names[1]} must have the dtype of {names[0]}, {first.dtype}, got {second.dtype}")
        if callable(self.switch):
            validation.instance("switch", self.switch, StopOnPlateau, "a count of steps or a StopOnPlateau")
            self._check_plateau(first.n_replicates)
        else:
            object.__setattr__(self, "switch", validation.integer("switch", self.switch, 0))

    def _check_plateau(self, n_replicates: int) -> None:
        if callable(self.switch) and n_replicates > 1:
            raise ValueError(
                "switch must be a count of steps for several replicates, which have their plateaus at different steps; "
                f"got a StopOnPlateau for {n_replicates}"
            )

    @underflow_is_zero
    def init(
        self,
        objective: Objective,
        seed: int = 0,
        particles: ArrayLike | None = None,
        *,
        replica: int | Sequence[int] = 0,
    ) -> State:
        """State before the first step; arguments and errors as in `MFLD.init`."""
        self.check(objective)
        return _Progress().added_to(self._solvers[0].init(objective, seed, particles, replica=replica))

    def check(self, objective: Objective, state: State | None = None) -> None:
        for solver in self._solvers:
            solver.check(objective)
        if state is not None:
            validation.instance("state", state, State, "a State")
            self._check_plateau(state.n_replicates)
            self._solvers[_Progress.of(state).phase].check(objective, _Progress.taken_from(state))

    @underflow_is_zero
    def advance(self, objective: Objective, state: State, n_steps: int = 1) -> tuple[State, Info]:
        """Make steps of whichever phase it is; arguments and errors as in `MFLD.advance`.

        k steps and then k steps are 2k steps, bit by bit, wherever the switch falls.
        """
        validation.instance("state", state, State, "a State")
        self.check(objective, state)
        n_steps = validation.integer("n_steps", n_steps, 0, validation.MAX_STEP - state.step)
        end = state.step + n_steps
        info = Info(steps=0)
        rule = _AtPlateau(self.switch) if callable(self.switch) else _AtStep(self.switch)
        while state.step < end:
            progress = _Progress.of(state)
            inner = _Progress.taken_from(state)
            if progress.phase == 0 and rule.is_due(progress, state.step):
                progress = progress._replace(phase=1)
                inner = self._handed_over(objective, inner)
            until = end if progress.phase == 1 else min(end, rule.next_look(state.step))
            try:
                inner, seen = self._solvers[progress.phase].advance(objective, inner, until - state.step)
            except BaseException as error:
                reached = getattr(error, "state", None)
                if isinstance(reached, State):
                    # Where all steps to a look were made, the look was not: those steps are made again.
                    usable = reached.step < until
                    error.state = progress.added_to(reached) if usable else state  # type: ignore[attr-defined]
                raise
            if progress.phase == 0:
                progress = rule.looked(progress, inner, seen)
            state = progress.added_to(inner)
            info = _together(info, seen)
        return state, info

    def switched(self, state: State) -> bool:
        """True where the last step of a state was one of the second phase."""
        return _Progress.of(state).phase == 1


@dataclass(frozen=True)
class TwoPhase(_Phases):
    """Noisy, regularised exploration, then descent without noise and without ridge.

    The first phase brings neurons near those that are needed, the second lets them converge, linearly where the data
    have a teacher: the loss shows a plateau and then a drop. Source: Akiyama, Suzuki 2022, "Excess risk of two-layer
    ReLU neural networks in teacher-student settings and its superiority to kernel methods".

    Parameters
    ----------
    explore : MFLD
        Of the first phase.
    descend : MFLD, optional
        Of the second one, in the same precision. Its schedules see the count of steps of the whole run. Default:
        ``explore`` with ``temperature=0`` and ``l2=0``.
    switch : int or StopOnPlateau
        The count of steps after which the second phase begins, or what ends the first one: ``StopOnPlateau("loss",
        patience=20, every=10)``. It looks at the first phase only. Several replicates take a count of steps.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Notes
    -----
    The state's buffers ``phase``, ``lowest`` and ``waited``, with an entry for each replicate, are the phase of the
    last step, 0 or 1, and what the plateau is told by; the others are those of the solver. Descent starts without
    buffers: an estimator with anchors takes the full gradient there.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> inputs = np.linspace(-2, 2, 50)[:, np.newaxis]
    >>> model = mfld.TwoLayerNetwork(n_features=1)
    >>> risk = mfld.EmpiricalRisk(model, inputs, np.sin(inputs[:, 0]), loss="squared", l2=5e-2)
    >>> explore = mfld.MFLD(n_particles=200, step_size=0.2, temperature=5e-3)
    >>> result = mfld.TwoPhase(explore, switch=1000).run(risk, n_steps=2000, record_every=1000)
    >>> explored, descended = result.history["loss"]
    >>> bool(descended < explored / 5)
    True
    """

    explore: MFLD
    descend: MFLD | None = None
    _: KW_ONLY
    switch: int | StopOnPlateau

    def __post_init__(self) -> None:
        validation.instance("explore", self.explore, MFLD, "an MFLD")
        if self.descend is None:
            object.__setattr__(self, "descend", replace(self.explore, temperature=0.0, l2=0.0))
        self._check_arguments(self._names)

    @property
    def _names(self) -> tuple[str, str]:
        return "explore", "descend"

    @property
    def _solvers(self) -> tuple[MFLD, MFLD]:
        assert self.descend is not None  # by __post_init__
        return self.explore, self.descend


@dataclass(frozen=True)
class TopParticles(_Phases):
    """Sampling, so that the particles find many modes, and then descent from the best of them.

    The best are those with the lowest first variation, ridge included, at the measure of all of them: for a `Potential`
    the lowest potential. In the second phase there are ``n_best`` particles, best first as they were at the switch.

    Parameters
    ----------
    sample : MFLD
        Of the first phase.
    descend : MFLD, optional
        Of the second one, in the same precision; its number of particles is ``n_best``, whatever it says. Its schedules
        see the count of steps of the whole run. Default: ``sample`` with ``temperature=0``.
    n_best : int
        At most the number of particles of ``sample``.
    switch : int or StopOnPlateau
        As in `TwoPhase`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; when a run starts, if the objective has no value or no
        first variation.

    Notes
    -----
    The state's buffers are those of `TwoPhase`.

    Examples
    --------
    >>> import mfld
    >>> wells = mfld.potentials.DoubleWell(2, tilt=0.2)      # four modes, the lowest near (-1, -1)
    >>> sample = mfld.MFLD(n_particles=200, step_size=0.02, temperature=0.3)
    >>> solver = mfld.TopParticles(sample, n_best=3, switch=500)
    >>> result = solver.run(wells, n_steps=1000)
    >>> result.particles.round(2)
    array([[-1.02, -1.02],
           [-1.02, -1.02],
           [-1.02, -1.02]], dtype=float32)
    """

    sample: MFLD
    descend: MFLD | None = None
    _: KW_ONLY
    n_best: int
    switch: int | StopOnPlateau

    def __post_init__(self) -> None:
        validation.instance("sample", self.sample, MFLD, "an MFLD")
        n_best = validation.integer("n_best", self.n_best, 1, self.sample.n_particles)
        object.__setattr__(self, "n_best", n_best)
        if self.descend is None:
            object.__setattr__(self, "descend", replace(self.sample, temperature=0.0, n_particles=n_best))
        self._check_arguments(self._names)

    @underflow_is_zero
    def init(
        self,
        objective: Objective,
        seed: int = 0,
        particles: ArrayLike | None = None,
        *,
        replica: int | Sequence[int] = 0,
    ) -> State:
        """State before the first step; arguments and errors as in `MFLD.init`."""
        state = super().init(objective, seed, particles, replica=replica)
        self._values(objective, state)  # what cannot be ranked is found here and not at the switch
        return state

    def resized(self, share: Fraction, n_replicates: int) -> Self:
        solvers = [solver.resized(share, n_replicates) for solver in self._solvers]
        return self._with(solvers, n_best=scaled("n_best", self.n_best, share))

    @property
    def _names(self) -> tuple[str, str]:
        return "sample", "descend"

    @property
    def _solvers(self) -> tuple[MFLD, MFLD]:
        assert self.descend is not None  # by __post_init__
        return self.sample, self.descend

    def _handed_over(self, objective: Objective, state: State) -> State:
        best = [np.argsort(v, kind="stable")[: self.n_best] for v in self._values(objective, state)]
        particles = np.stack([one[rows] for one, rows in zip(state.clouds["mu"].particles, best, strict=True)])
        return replace(state, clouds={"mu": Cloud(particles)}, buffers={})

    def _values(self, objective: Objective, state: State) -> list[FloatArray]:
        """Values that rank the particles of each replicate."""
        objective = objective.on_threads(self.num_threads)
        clouds = [one.measure for one in state.each()]
        return [objective.first_variation(cloud)(cloud.particles) for cloud in clouds]


def _together(first: Info, second: Info) -> Info:
    """Of two calls in a row: what the last step saw, and the proposals of both."""
    steps = first.steps + second.steps
    shares = [(info.steps, info.acceptance) for info in (first, second) if not math.isnan(info.acceptance)]
    acceptance = sum(n * share for n, share in shares) / sum(n for n, _ in shares) if shares else math.nan
    replicates = second.replicates
    if first.replicates:
        replicates = tuple(map(_together, first.replicates, second.replicates))
    return replace(second, steps=steps, acceptance=acceptance, replicates=replicates)
