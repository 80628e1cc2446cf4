"""Annealing that follows the objective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from mfld import validation
from mfld.algorithms.base import Algorithm
from mfld.algorithms.mfld import MFLD
from mfld.algorithms.phases import _together
from mfld.floating import underflow_is_zero
from mfld.objectives import Objective
from mfld.state import Info, State
from mfld.validation import FloatArray

_FIRST, _NOW = "first_loss", "temperature"


@dataclass(frozen=True)
class Cooling(Algorithm):
    """Mean-field Langevin dynamics whose temperature is in proportion to the loss.

    ::

        temperature_k = temperature * J(mu_k) / J(mu_0)

    at each multiple k of ``every`` steps, and in between that of the last one. For a `SignedRisk` with `Bilevel` the
    first variation has an oscillation of at most ``Phi**2 J(mu) / strength``, Phi**2 the largest mean square of a
    neuron over the samples: at this temperature its quotient by it stays within a bound, so that the logarithmic
    Sobolev constant of the Gibbs measures (Holley, Stroock) does not fall while the run cools. It suits losses whose
    lowest value is near 0, and at least 0 everywhere.

    Source: Wang, Mousavi-Hosseini, Chizat 2024 anneals by stages; that the rule follows the loss is derived.

    Parameters
    ----------
    solver : MFLD
        Its temperature, a number for each replicate or one for all, is that of the first steps. Its gradients are not
        `Clipped`: the temperature tells of the loss.
    every : int
        Steps of one temperature: a look at the loss costs about as much as a step.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; when a run starts, if the loss is not positive.

    Notes
    -----
    The state's buffers ``first_loss`` and ``temperature`` have an entry for each replicate.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> inputs = np.linspace(-2, 2, 50)[:, np.newaxis]
    >>> model = mfld.TwoLayerNetwork(n_features=1, readout="fixed")
    >>> risk = mfld.SignedRisk(model, inputs, np.sin(3 * inputs[:, 0]), strength=1e-3, l2=1e-5)
    >>> solver = mfld.MFLD(n_particles=50, step_size=1.0, temperature=1e-3)
    >>> info = mfld.Cooling(solver).run(risk, n_steps=500).info
    >>> bool(info.loss < 0.05), bool(info.temperature < 3e-4)
    (True, True)
    """

    solver: MFLD
    _: KW_ONLY
    every: int = 10

    goes_on: ClassVar[bool] = True

    def __post_init__(self) -> None:
        validation.instance("solver", self.solver, MFLD, "an MFLD")
        object.__setattr__(self, "every", validation.integer("every", self.every, 1))
        if self.solver.gradient.bounds_rows:
            raise ValueError(f"solver must not have {self.solver.gradient}: the temperature tells of the loss of rows")
        given = self.solver.temperature
        for own in given if isinstance(given, tuple) else (given,):
            if callable(own):
                raise ValueError(f"solver must have a number as temperature, which follows the loss, got {own!r}")

    @property
    def num_threads(self) -> int | None:  # type: ignore[override]
        return self.solver.num_threads

    def rows_of_a_step(self, objective: Objective) -> int | None:
        return self.solver.rows_of_a_step(objective)

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
        state = self.solver.init(objective, seed, particles, replica=replica)
        losses = self._losses(objective, state)
        if not (np.isfinite(losses) & (losses > 0)).all():
            raise ValueError(f"objective must have a positive loss at the start, got {losses.tolist()}")
        temperatures = np.broadcast_to(np.array(self.solver.temperature, np.float64), losses.shape)
        return self._with_buffers(state, {_FIRST: losses, _NOW: temperatures.copy()})

    def check(self, objective: Objective, state: State | None = None) -> None:
        if state is None:
            self.solver.check(objective)
            return
        validation.instance("state", state, State, "a State")
        for name in (_FIRST, _NOW):
            if name not in state.buffers:
                raise ValueError(f"state must come from a Cooling: it has no buffer {name!r}")
        self.solver.check(objective, self._inner(state))

    @underflow_is_zero
    def advance(self, objective: Objective, state: State, n_steps: int = 1) -> tuple[State, Info]:
        """Make steps; arguments and errors as in `MFLD.advance`."""
        self.check(objective, state)
        n_steps = validation.integer("n_steps", n_steps, 0, validation.MAX_STEP - state.step)
        end, info = state.step + n_steps, Info(steps=0)
        while state.step < end:
            if state.step % self.every == 0:
                ratio = np.maximum(self._losses(objective, state), 0) / state.buffers[_FIRST]
                state = self._with_buffers(state, {_NOW: np.asarray(self.solver.temperature, np.float64) * ratio})
            temperatures = tuple(float(own) for own in state.buffers[_NOW])
            solver = replace(self.solver, temperature=temperatures if len(temperatures) > 1 else temperatures[0])
            until = min(end, state.step + self.every - state.step % self.every)
            own = {name: state.buffers[name] for name in (_FIRST, _NOW)}
            try:
                inner, seen = solver.advance(objective, self._inner(state), until - state.step)
            except BaseException as error:
                reached = getattr(error, "state", None)
                kept = self._with_buffers(reached, own) if isinstance(reached, State) else state
                error.state = kept  # type: ignore[attr-defined]
                raise
            state, info = self._with_buffers(inner, own), _together(info, seen)
        return state, info

    def _losses(self, objective: Objective, state: State) -> FloatArray:
        objective = objective.on_threads(self.num_threads)
        return np.array([objective.loss(one.measure) for one in state.each()], np.float64)

    def _inner(self, state: State) -> State:
        buffers = {name: value for name, value in state.buffers.items() if name not in (_FIRST, _NOW)}
        return replace(state, buffers=buffers)

    def _with_buffers(self, state: State, own: dict[str, FloatArray]) -> State:
        return replace(state, buffers={**state.buffers, **own})
