"""Errors that a run can raise."""

from __future__ import annotations

import math
from typing import Any

from mfld.state import State


class DivergenceError(RuntimeError):
    """A particle left the finite numbers; the run has stopped at the last good state.

    Attributes
    ----------
    step : int
        Count, from 0, of the step that diverged: the step that would have followed ``state``.
    particle : int
        First particle that is not finite after it.
    step_size : float
        Step size of that step.
    replicate : int or None
        The replicate that diverged, where there are several.
    state : State
        State before that step: all its particles are finite.
    result : Result or None
        Where the error comes out of ``run``: particles and history up to ``state``.

    Examples
    --------
    >>> import mfld
    >>> model = mfld.TwoLayerNetwork(n_features=1, activation="identity")
    >>> risk = mfld.EmpiricalRisk(model, [[1.0]], [5.0], loss="squared")
    >>> try:
    ...     mfld.MFLD(n_particles=8, step_size=100.0, temperature=0.0).run(risk, n_steps=100)
    ... except mfld.DivergenceError as error:
    ...     print(error.state.step == error.step, error.result.particles.shape)
    True (8, 3)
    """

    def __init__(self, step: int, particle: int, step_size: float, state: State, replicate: int | None = None) -> None:
        # All of them are args, so that the error survives pickling between processes.
        super().__init__(step, particle, step_size, state, replicate)
        self.step = step
        self.particle = particle
        self.step_size = step_size
        self.state = state
        self.replicate = replicate
        self.result: Any = None  # a Result: algorithms stand above errors

    def among(self, state: State, replicate: int) -> DivergenceError:
        """The same error where it met one replicate of several: with its number, and the last good state of all."""
        return DivergenceError(self.step, self.particle, self.step_size, state, replicate)

    def __str__(self) -> str:
        where = "" if self.replicate is None else f" of replicate {self.replicate}"
        return (
            f"step {self.step} diverged: particle {self.particle}{where} is no longer finite. "
            f"A smaller step_size usually helps (it was {self.step_size:g}); the last good state is in .state"
        )


class BlowUpError(DivergenceError):
    """Failure of a controlled system: its state, or its cost, is no longer finite.

    ``step``, ``particle`` and ``step_size`` are those of no step of a run: -1, -1 and NaN; ``state`` is set where the
    error comes out of a run.

    Attributes
    ----------
    node : int
        Node of the control under which it happened.
    path : int
        First path that is not finite.
    time : float
        Beginning of the step of the scheme.
    last_state : list of float
        State of the path at that time: the last finite one.
    replicate : int or None
        Of a run, where there are several.

    Examples
    --------
    >>> import mfld
    >>> try:
    ...     raise mfld.BlowUpError(node=3, path=0, time=0.75, last_state=[2.5e120])
    ... except mfld.DivergenceError as error:
    ...     print(error)          # doctest: +ELLIPSIS
    path 0 blew up under node 3: after time 0.75, where its state was [2.5e+120], it is no longer finite. More ...
    """

    def __init__(self, node: int, path: int, time: float, last_state: list[float]) -> None:
        RuntimeError.__init__(self, node, path, time, last_state)
        self.node, self.path, self.time, self.last_state = node, path, time, last_state
        self.step, self.particle, self.step_size = -1, -1, math.nan
        self.replicate: int | None = None
        self.result: Any = None

    def among(self, state: State, replicate: int) -> BlowUpError:
        error = BlowUpError(self.node, self.path, self.time, self.last_state)
        error.state, error.replicate = state, replicate
        return error

    def __str__(self) -> str:
        shown = ", ".join(f"{number:.3g}" for number in self.last_state)
        where = "" if self.replicate is None else f" of replicate {self.replicate}"
        return (
            f"path {self.path}{where} blew up under node {self.node}: after time {self.time:g}, where its state was "
            f"[{shown}], it is no longer finite. More nodes, more steps_per_node, or controls of smaller size (a "
            "smaller step_size or temperature) usually help"
        )


class ConvergenceError(RuntimeError):
    """Failure to converge: a network that is worse than a constant prediction, a fixed point that was not reached.

    Examples
    --------
    >>> import mfld
    >>> issubclass(mfld.ConvergenceError, RuntimeError)
    True
    """
