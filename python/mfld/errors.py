"""Errors that a run can raise."""

from __future__ import annotations

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

    def __str__(self) -> str:
        where = "" if self.replicate is None else f" of replicate {self.replicate}"
        return (
            f"step {self.step} diverged: particle {self.particle}{where} is no longer finite. "
            f"A smaller step_size usually helps (it was {self.step_size:g}); the last good state is in .state"
        )


class ConvergenceError(RuntimeError):
    """Failure to converge: a network that is worse than a constant prediction, a fixed point that was not reached.

    Examples
    --------
    >>> import mfld
    >>> issubclass(mfld.ConvergenceError, RuntimeError)
    True
    """
