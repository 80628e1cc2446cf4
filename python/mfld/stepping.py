"""Steps: an objective, a gradient estimator and dynamics, put together.

Where all three are known to the compiled core, any number of steps of all replicates is one call of it. Otherwise each
step of each replicate is one call of the dynamics, in the same order and with the same noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mfld import validation
from mfld.dynamics.base import Dynamics, Move, Numbers, Step, checked_coefficients, first_bad
from mfld.errors import DivergenceError
from mfld.gradients import Drift, GradientEstimator
from mfld.native import Due
from mfld.noise import Place
from mfld.objectives.base import Objective
from mfld.space import Space
from mfld.state import Buffers
from mfld.validation import FloatArray


@dataclass(frozen=True, eq=False)
class Plan:
    """Numbers of the steps of a call, and the parts that make them.

    ``step_size``, ``temperature`` and ``l2`` are numbers, or float64 arrays of shape (1 or R, 1 or n_steps): rows for R
    replicates or one for all, and an entry per step or a constant. ``l2`` replaces that of the objective. ``places``
    are those of the first step, one for each replicate, with the number of threads. ``bfloat16`` asks for products of
    such numbers, which only the core has.
    """

    step_size: Numbers
    temperature: Numbers
    l2: Numbers
    gradient: GradientEstimator
    dynamics: Dynamics
    places: tuple[Place, ...]
    bfloat16: bool = False

    def at(self, k: int, space: Space, replicate: int = 0) -> Step:
        """The call's step k of a replicate."""
        return Step(*self.numbers(k, replicate), space, self.places[replicate].ahead(k))

    def ahead(self, k: int) -> Plan:
        """The plan from the call's step k on."""
        size, temperature, l2 = (_rest(numbers, k) for numbers in (self.step_size, self.temperature, self.l2))
        places = tuple(place.ahead(k) for place in self.places)
        return replace(self, step_size=size, temperature=temperature, l2=l2, places=places)

    def numbers(self, k: int, replicate: int = 0) -> tuple[float, float, float]:
        """Step size, temperature and l2 of the call's step k of a replicate."""
        return _at(self.step_size, replicate, k), _at(self.temperature, replicate, k), _at(self.l2, replicate, k)

    def coefficients(self, n_steps: int) -> tuple[float | NDArray[np.float64], ...]:
        """Coefficients of the dynamics for the first steps of the call."""
        own = (self.step_size, self.temperature, self.l2)
        return checked_coefficients(self.dynamics, *(_first(numbers, n_steps) for numbers in own))

    @property
    def num_threads(self) -> int:
        """Number of threads, which changes no number."""
        return self.places[0].threads


def _at(numbers: Numbers, replicate: int, k: int) -> float:
    if isinstance(numbers, float):
        return numbers
    return float(numbers[replicate if len(numbers) > 1 else 0, k if numbers.shape[1] > 1 else 0])


def _rest(numbers: Numbers, k: int) -> Numbers:
    return numbers if isinstance(numbers, float) or numbers.shape[1] == 1 else numbers[:, k:]


def _first(numbers: Numbers, n_steps: int) -> Numbers:
    return numbers if isinstance(numbers, float) or numbers.shape[1] == 1 else numbers[:, :n_steps]


@dataclass(frozen=True, eq=False)
class Outcome:
    """Result of a call of `steps`.

    ``particles`` and ``buffers`` are those after ``steps`` whole steps of all replicates, and the particles are always
    finite. Where all steps were made, ``loss`` and ``gradient_norm``, of each replicate, are what the last one saw,
    before its move. Otherwise either the next step would make ``bad``, a replicate and its particle, the first that is
    not finite, or the exception ``interrupt``, of a signal or out of a function of the user, ended the call.
    ``acceptance``, of each replicate, is the mean over the steps.
    """

    particles: FloatArray
    buffers: Buffers
    steps: int
    loss: Sequence[float]
    gradient_norm: Sequence[float]
    acceptance: Sequence[float]
    bad: tuple[int, int] | None = None
    interrupt: BaseException | None = None


def steps(objective: Objective, particles: FloatArray, buffers: Buffers, n_steps: int, plan: Plan) -> Outcome:
    """Make up to ``n_steps`` (at least 1) steps from particles and buffers, which stay as they are.

    Particles have shape (R, N, n_coordinates) for R replicates, and buffers that leading axis too; where a measure has
    several members, (R, ..., N, n_coordinates).
    """
    least, tiny = float(np.min(plan.step_size)), float(np.finfo(particles.dtype).tiny)
    if least < tiny:
        raise ValueError(f"step_size must be at least {tiny:.3g} for {particles.dtype}, got {least:.3g}")
    most = objective.steps_at_once(plan.gradient.rows_of_a_step(objective))
    if most is None:
        return _steps(objective, particles, buffers, n_steps, plan)
    outcome = _steps(objective, particles, buffers, min(most, n_steps), plan)
    objective.release()
    while outcome.steps < n_steps and outcome.bad is None and outcome.interrupt is None:
        made = outcome.steps
        later = _steps(objective, outcome.particles, outcome.buffers, min(most, n_steps - made), plan.ahead(made))
        objective.release()
        outcome = replace(later, steps=made + later.steps)
    return outcome


def not_in_bfloat16(objective: Objective, gradient: GradientEstimator, dynamics: Dynamics) -> TypeError:
    """The error that steps of these parts have no products of bfloat16."""
    return TypeError(
        "dtype must be 'float32' or 'float64' here, got 'bfloat16': its products are for an EmpiricalRisk of a "
        "TwoLayerNetwork and a loss by its name, in memory, with FullBatch, Minibatch, SVRG or SARAH gradients and "
        f"dynamics of the core, like Overdamped(); got {objective!r}, {gradient!r} and {dynamics!r}"
    )


def _steps(objective: Objective, particles: FloatArray, buffers: Buffers, n_steps: int, plan: Plan) -> Outcome:
    made = _in_core(objective, particles, buffers, n_steps, plan)
    if made is not None and (made.steps == n_steps or made.bad is not None or made.interrupt is not None):
        return made
    if plan.bfloat16:
        raise not_in_bfloat16(objective, plan.gradient, plan.dynamics)
    begun = 0 if made is None else made.steps
    if made is not None:
        particles, buffers = made.particles, made.buffers
    return _one_by_one(objective.on_threads(plan.num_threads), particles, buffers, range(begun, n_steps), plan)


def _in_core(objective: Objective, particles: FloatArray, buffers: Buffers, n_steps: int, plan: Plan) -> Outcome | None:
    """Steps in one call of the core, None where it does not know a part: all, or all but one that is to be seen."""
    problem = objective.native_in_bfloat16() if plan.bfloat16 else objective.native(particles.dtype)
    if problem is None or not objective.space.in_core or not (problem.samples or plan.gradient.exact):
        return None
    estimator = plan.gradient.native(objective, particles, buffers)
    dynamics = plan.dynamics.native(particles, buffers)
    if estimator is None or dynamics is None or not problem.moved_by(dynamics.form):
        return None
    count = n_steps if problem.reports else n_steps - 1
    if count == 0:
        return None
    place = plan.places[0]
    due = Due(
        plan.coefficients(count),
        count,
        [own.key for own in plan.places],
        place.step,
        place.population,
        plan.num_threads,
        objective.n_moving,
        objective.space.native(),
    )
    moved, report = problem.advance(particles, estimator.form, dynamics.form, due)
    reached = dict(buffers)
    for part in (estimator, dynamics):
        part.renew(reached)
    unknown = [np.nan] * len(particles)
    return Outcome(
        moved,
        reached,
        report.steps,
        report.loss if problem.reports else unknown,
        report.gradient_norm if problem.reports else unknown,
        unknown,
        report.bad,
        report.exception,
    )


@dataclass(frozen=True, eq=False)
class _Reached:
    """State of one replicate, and what its last step saw."""

    particles: FloatArray
    buffers: Buffers
    loss: float = np.nan
    gradient_norm: float = np.nan
    acceptance: float = np.nan


def _one_by_one(objective: Objective, particles: FloatArray, buffers: Buffers, due: range, plan: Plan) -> Outcome:
    """Each step of each replicate by itself, of those of the call that are due."""
    drift = Drift(objective, plan.gradient)
    each = [_Reached(one, {name: array[r] for name, array in buffers.items()}) for r, one in enumerate(particles)]
    reached, bad, interrupt = (due.start, each), None, None
    try:
        for k in due:
            following = []
            for r, one in enumerate(each):
                step = plan.at(k, objective.space, r)
                move = plan.dynamics.move(one.particles, one.buffers, drift, step)
                bad_particle = _checked(move, plan.dynamics, one.particles)
                if bad_particle >= 0:
                    bad = bad or (r, bad_particle)
                    continue
                seen = k - due.start
                acceptance = move.acceptance if seen == 0 else (seen * one.acceptance + move.acceptance) / (seen + 1)
                then = _Reached(move.particles, move.buffers, acceptance=acceptance)
                following.append(_with_sight(then, drift, one, move, step) if k == due[-1] else then)
            if bad is not None:
                break
            each = following
            # One assignment of one object: wherever a signal strikes, replicates and count belong together.
            reached = (k + 1, each)
    except (KeyboardInterrupt, Exception) as error:
        if isinstance(error, DivergenceError) and len(each) > 1:
            error.replicate = r
        interrupt = error
    made, each = reached
    return Outcome(
        np.stack([one.particles for one in each]),
        {name: np.stack([one.buffers[name] for one in each]) for name in each[0].buffers},
        made,
        [one.loss for one in each],
        [one.gradient_norm for one in each],
        [one.acceptance for one in each],
        bad,
        interrupt,
    )


def _checked(move: Move, dynamics: Dynamics, before: FloatArray) -> int:
    """The first particle that is not finite after a move, or -1; refuses what is no move of these particles."""
    name = f"what {type(dynamics).__name__}.move returned"
    validation.instance(name, move, Move, "a Move")
    validation.instance(f"the particles of {name}", move.particles, np.ndarray, "an ndarray")
    validation.shape(f"the particles of {name}", move.particles, before.shape, "to match those before")
    if move.particles.dtype != before.dtype:
        raise TypeError(f"the particles of {name} must be {before.dtype} as before, got {move.particles.dtype}")
    if move.bad_particle >= 0 or np.isfinite(move.particles).all():
        return move.bad_particle
    return first_bad(move.particles)


def _with_sight(reached: _Reached, drift: Drift, before: _Reached, move: Move, step: Step) -> _Reached:
    """With the loss and the gradient norm where the step took its gradient."""
    seen = before.particles if move.gradient_at is None else move.gradient_at
    moving = np.s_[..., : step.n_moving]
    full = move.gradient[moving].astype(np.float64) + 2 * step.l2 * seen[moving]
    place = step.place if move.gradient_at is None else step.place.ahead(1)
    loss = drift.gradient.loss(drift.objective, seen, place)
    if not isinstance(loss, (float, int, np.number)):
        raise TypeError(f"loss of {type(drift.objective).__name__} must return a number, got {loss!r}")
    with np.errstate(over="ignore"):  # near a divergence the square is infinite before the particles are
        norm = float(np.sqrt(np.mean(np.sum(full**2, axis=-1))))
    return replace(reached, loss=float(loss), gradient_norm=norm)
