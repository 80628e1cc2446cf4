"""Preconditioned overdamped Langevin dynamics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mfld import _core, validation
from mfld.dynamics.base import Dynamics, Move, Numbers, Step
from mfld.gradients import Drift
from mfld.native import Native, final
from mfld.objectives.base import Objective
from mfld.state import Buffers
from mfld.validation import FloatArray


@final
@dataclass(frozen=True)
class Preconditioned(Dynamics):
    """Overdamped dynamics with a step of its own for each particle and coordinate (pSGLD).

    With b the gradient, ridge included, and all operations by coordinates::

        S     <- decay * S + (1 - decay) * b**2
        G      = 1 / (epsilon + sqrt(S))
        theta <- theta - step_size * G b + sqrt(2 * temperature * step_size * G) * xi,      xi ~ N(0, I)

    The law is biased at any step size: for G that depends on theta the drift would have to contain ``temperature *
    dG/dtheta``, which is dropped, as usual; what that costs shrinks with ``1 - decay``. From step ``freeze_at`` on S
    and G stay as they are, and with them the bias goes: weak order 1, and on a quadratic potential of curvature a the
    stationary variance ``temperature / (a * (1 - a * G * step_size / 2))``, steps from ``2 / (a G)`` on being unstable.
    At temperature 0 this is RMSprop. Noise: stream ``move``, one normal for each moving coordinate. Source: Li, Chen,
    Carlson, Carin 2016, "Preconditioned stochastic gradient Langevin dynamics for deep neural networks".

    Parameters
    ----------
    decay : float
        Between 0 and 1.
    epsilon : float
        Positive, in the units of the gradient: where gradients are far below it, G is ``1 / epsilon``.
    freeze_at : int, optional
        Count of the step from which on S is left alone. Default: never.
    second_moment : float
        S before the first step, at least 0; with ``freeze_at=0`` it stays. The source starts from 0, and then the first
        steps are longer than later ones by ``1 / sqrt(1 - decay)``.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Notes
    -----
    The state's buffer ``second_moment``, shape (1, N, p), is S; in frozen coordinates it stays.

    Examples
    --------
    Coordinates of very different scales:

    >>> import mfld
    >>> valley = mfld.Potential(lambda x: x * [1.0, 1e4], n_coordinates=2)
    >>> solver = mfld.MFLD(n_particles=1, step_size=0.01, temperature=0.0, dynamics=mfld.Preconditioned(decay=0.9))
    >>> bool((abs(solver.run(valley, n_steps=500, particles=[[1.0, 1.0]]).particles) < 0.02).all())
    True
    """

    decay: float = 0.99
    epsilon: float = 1e-5
    freeze_at: int | None = None
    second_moment: float = 0.0

    buffer_names: ClassVar[tuple[str, ...]] = ("second_moment",)
    on_members: ClassVar[bool] = True

    def __post_init__(self) -> None:
        decay = validation.real("decay", self.decay, non_negative=True)
        if decay >= 1:
            raise ValueError(f"decay must be at least 0 and below 1, got {decay}")
        checked = {
            "decay": decay,
            "epsilon": validation.real("epsilon", self.epsilon, positive=True),
            "freeze_at": None if self.freeze_at is None else validation.integer("freeze_at", self.freeze_at, 0),
            "second_moment": validation.real("second_moment", self.second_moment, non_negative=True),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def buffer_shapes(self, objective: Objective, n_particles: int) -> dict[str, tuple[int, ...]]:
        return {"second_moment": (*objective.members, n_particles, objective.n_coordinates)}

    def start(self, particles: FloatArray, step: Step) -> Buffers:
        return {"second_moment": np.full_like(particles, self.second_moment)}

    def native(self, particles: FloatArray, buffers: Buffers) -> Native[_core.Dynamics] | None:
        second_moment = buffers["second_moment"].copy()
        form = _core.Dynamics(
            "preconditioned",
            second_moment=second_moment,
            decay=self.decay,
            epsilon=self.epsilon,
            frozen_from=self.freeze_at,
        )
        return Native(form, {"second_moment": second_moment})

    def coefficients(self, step_size: Numbers, temperature: Numbers, l2: Numbers) -> tuple[Numbers, ...]:
        return 2 * l2, step_size, np.sqrt(2 * temperature * step_size)

    def move(self, particles: FloatArray, buffers: Buffers, drift: Drift, step: Step) -> Move:
        gradient, buffers = drift(particles, buffers, step.place)
        second_moment = buffers["second_moment"]
        with np.errstate(over="ignore", invalid="ignore"):
            theta, b = step.moving(particles, gradient)
            if self.freeze_at is None or step.place.step < self.freeze_at:
                second_moment = second_moment.copy()
                average = second_moment[..., : step.n_moving]
                average *= self.decay
                average += (1 - self.decay) * b**2
            preconditioner = 1 / (self.epsilon + np.sqrt(second_moment[..., : step.n_moving]))
            change = -step.step_size * preconditioner * b
            if step.temperature > 0:
                variance = 2 * step.temperature * step.step_size * preconditioner
                change += np.sqrt(variance) * step.normals(particles)
            theta = theta + change
        moved, bad_particle = step.moved(particles, theta)
        return Move(moved, {**buffers, "second_moment": second_moment}, gradient, bad_particle)
