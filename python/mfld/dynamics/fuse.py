"""Steps whose size needs no tuning: how far the particles have come, over the gradients that they have met."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Final

import numpy as np

from mfld.dynamics.base import Dynamics, Move, Step
from mfld.gradients import Drift, GradientEstimator
from mfld.noise import Place
from mfld.objectives.base import Objective
from mfld.state import Buffers
from mfld.validation import FloatArray

# Of 1 + the size of the particles: four decades of it end within a factor of 1.6 of the same step (tests/test_fuse.py).
FIRST_RADIUS: Final = 1e-4


@dataclass(frozen=True)
class Fuse(Dynamics):
    """Dynamics in steps of a size that they find by themselves; `MFLD` makes it of ``step_size="fuse"``.

    With b the gradient with the ridge and |.| the root of the mean of squares over particles, step k has the size ::

        h_k = r_k / sqrt(|b_0|**2 + ... + |b_k|**2),    r_k = max(r, |y_1 - theta_0|, ..., |y_k - theta_0|)

    where y_j is where step j - 1 led without its noise, and r a small number that is soon forgotten. Source: Sharrock,
    Nemeth 2025, arXiv:2510.25315. The size falls like ``1 / sqrt(k)`` in the end.

    Attributes
    ----------
    dynamics : Dynamics
        Those that move: one call of ``move`` with the noise, and one without.
    """

    dynamics: Dynamics

    buffer_names: ClassVar[tuple[str, ...]] = ("fuse_start", "fuse_radius", "fuse_squares", "fuse_step_size")

    def check_space(self, objective: Objective) -> None:
        self.dynamics.check_space(objective)
        if not objective.space.flat:
            raise ValueError(f"step_size must not be 'fuse' on the domain {objective.space.domain}: distances are flat")

    def check(self, objective: Objective, gradient: GradientEstimator) -> None:
        self.dynamics.check(objective, gradient)

    def buffer_shapes(self, objective: Objective, n_particles: int) -> dict[str, tuple[int, ...]]:
        start = (*objective.members, n_particles, objective.n_coordinates)
        return {**dict.fromkeys(self.buffer_names, ()), "fuse_start": start}

    def start(self, particles: FloatArray, step: Step) -> Buffers:
        theta = particles[..., : step.n_moving]
        radius = FIRST_RADIUS * (1 + math.sqrt(_mean_square(theta)))
        return self._buffers(particles.copy(), radius, 0.0, 0.0)

    def move(self, particles: FloatArray, buffers: Buffers, drift: Drift, step: Step) -> Move:
        start = buffers["fuse_start"]
        radius, squares = float(buffers["fuse_radius"]), float(buffers["fuse_squares"])
        before = {name: value for name, value in buffers.items() if name not in self.buffer_names}
        gradient, others = drift(particles, before, step.place)
        _, b = step.moving(particles, gradient)
        with np.errstate(over="ignore"):  # what overflows is found by the move
            squares += _mean_square(b)
        size = radius / math.sqrt(squares) if squares > 0 else 1.0
        known = _Known(drift.objective, drift.gradient, gradient)
        step = replace(step, step_size=size)
        moved = self.dynamics.move(particles, others, known, step)
        if moved.bad_particle >= 0:
            return moved
        quiet = (
            moved
            if step.temperature == 0
            else self.dynamics.move(particles, others, known, replace(step, temperature=0.0))
        )
        moving = np.s_[..., : step.n_moving]
        apart = math.sqrt(_mean_square(quiet.particles[moving].astype(np.float64) - start[moving]))
        return replace(moved, buffers={**moved.buffers, **self._buffers(start, max(radius, apart), squares, size)})

    def _buffers(self, start: FloatArray, *numbers: float) -> Buffers:
        return dict(zip(self.buffer_names, (start, *map(np.float64, numbers)), strict=True))  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class _Known(Drift):
    """A gradient that has been computed."""

    found: FloatArray

    def __call__(self, particles: FloatArray, buffers: Buffers, place: Place) -> tuple[FloatArray, Buffers]:
        return self.found, buffers


def _mean_square(vectors: FloatArray) -> float:
    """Mean over the particles, of all members, of the square of their length."""
    return float(np.mean(np.sum(vectors.astype(np.float64) ** 2, axis=-1)))
