"""Overdamped Langevin dynamics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mfld import _core
from mfld.dynamics.base import Dynamics, Move, Step
from mfld.gradients import Drift
from mfld.native import Native, final
from mfld.state import Buffers
from mfld.validation import FloatArray


@final
@dataclass(frozen=True)
class Overdamped(Dynamics):
    """Overdamped Langevin dynamics by the Euler-Maruyama scheme (the unadjusted Langevin algorithm).

    ::

        theta <- theta - step_size * (gradient + 2 l2 theta) + sqrt(2 * temperature * step_size) * xi,   xi ~ N(0, I)

    Weak order 1. On a quadratic potential of curvature a the stationary variance is
    ``temperature / (a * (1 - a * step_size / 2))`` rather than ``temperature / a``; steps from ``2 / a`` on are
    unstable. On a domain the step is brought back to it, see `mfld.space`. Noise: stream ``move``, one normal for each
    moving coordinate.

    Examples
    --------
    >>> import mfld
    >>> mfld.MFLD(step_size=0.1, temperature=0.01).dynamics
    Overdamped()
    """

    has_stable_step: ClassVar[bool] = True
    on_domains: ClassVar[bool] = True
    on_members: ClassVar[bool] = True

    def native(self, particles: FloatArray, buffers: Buffers) -> Native[_core.Dynamics] | None:
        return Native(_core.Dynamics("overdamped"), {})

    def move(self, particles: FloatArray, buffers: Buffers, drift: Drift, step: Step) -> Move:
        gradient, buffers = drift(particles, buffers, step.place)
        moved, bad_particle = particles.copy(), -1
        for number, (place, (theta, slope)) in enumerate(step.members(moved, gradient)):
            bad = _core.backend.move(
                theta,
                slope,
                step.n_moving,
                step.step_size,
                step.temperature,
                step.l2,
                place.key,
                place.step,
                place.population,
                step.num_threads,
            )
            if bad >= 0 > bad_particle:
                bad_particle = number * len(theta) + bad
        if not step.space.flat:
            moved, bad_particle = step.moved(moved, moved[..., : step.n_moving])
        return Move(moved, buffers, gradient, bad_particle)
