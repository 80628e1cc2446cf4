"""Dynamics of any kind with the noise of another run, to compare runs on one Brownian path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mfld import validation
from mfld.dynamics.base import Dynamics, Move, Step, checked_coefficients, first_bad
from mfld.gradients import Drift, GradientEstimator
from mfld.noise import Coupling
from mfld.objectives.base import Objective
from mfld.state import Buffers
from mfld.validation import FloatArray


@dataclass(frozen=True, eq=False)
class Coupled(Dynamics):
    """Another dynamics, with the noise of each run made of that of another run.

    The law of a run is that of the other dynamics. Moves that the compiled core makes are made here from their
    coefficients, in NumPy.

    Parameters
    ----------
    dynamics : Dynamics
    couplings : mapping of int to Coupling
        By the key of the run, of each replicate.

    Raises
    ------
    NotImplementedError
        At the first step, if the dynamics draws within a kernel, as `MALA` does.
    """

    dynamics: Dynamics
    couplings: Mapping[int, Coupling]

    def __post_init__(self) -> None:
        validation.instance("dynamics", self.dynamics, Dynamics, "a Dynamics, like Overdamped()")
        validation.instance("couplings", self.couplings, Mapping, "a mapping of keys to couplings")
        for name in (
            "buffer_names",
            "curvature_power",
            "metric",
            "on_domains",
            "on_members",
            "evaluations",
            "starts_anew",
        ):
            object.__setattr__(self, name, getattr(self.dynamics, name))

    def check_space(self, objective: Objective) -> None:
        self.dynamics.check_space(objective)

    def check(self, objective: Objective, gradient: GradientEstimator) -> None:
        self.dynamics.check(objective, gradient)

    def buffer_shapes(self, objective: Objective, n_particles: int) -> dict[str, tuple[int, ...]]:
        return self.dynamics.buffer_shapes(objective, n_particles)

    def start(self, particles: FloatArray, step: Step) -> Buffers:
        return self.dynamics.start(particles, self._on_path(step))

    def move(self, particles: FloatArray, buffers: Buffers, drift: Drift, step: Step) -> Move:
        step = self._on_path(step)
        form = self.dynamics.native(particles[None], {name: value[None] for name, value in buffers.items()})
        if form is None or not (form.form.affine or form.form.looks_ahead):  # its normals are those of the place
            return self.dynamics.move(particles, buffers, drift, step)
        numbers = checked_coefficients(self.dynamics, step.step_size, step.temperature, step.l2)
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found by the move
            return (_affine if form.form.affine else _baoab)(particles, buffers, drift, step, numbers)

    def _on_path(self, step: Step) -> Step:
        return replace(step, place=step.place._replace(coupling=self.couplings[step.place.key]))


def _affine(particles: FloatArray, buffers: Buffers, drift: Drift, step: Step, numbers: tuple[object, ...]) -> Move:
    c, h, s = map(particles.dtype.type, numbers)
    gradient, buffers = drift(particles, buffers, step.place)
    theta = particles[..., : step.n_moving]
    change = c * theta + h * gradient[..., : step.n_moving] - s * step.normals(particles)
    moved, bad_particle = step.moved(particles, theta - change)
    return Move(moved, buffers, gradient, bad_particle)


def _baoab(particles: FloatArray, buffers: Buffers, drift: Drift, step: Step, numbers: tuple[object, ...]) -> Move:
    a, r, e, s = map(particles.dtype.type, numbers)
    moved, velocities = particles.copy(), buffers["velocities"].copy()
    x, v = moved[..., : step.n_moving], velocities[..., : step.n_moving]
    force = buffers.get("force")
    if force is None:
        force, buffers = drift(particles, buffers, step.place)
    v -= a * force[..., : step.n_moving] + r * x
    x += a * v
    v *= e
    v += s * step.normals(particles)
    x += a * v
    bad_particle = first_bad(x, v)
    if bad_particle < 0:
        force, buffers = drift(moved, buffers, step.place.ahead(1))
        v -= a * force[..., : step.n_moving] + r * x
        bad_particle = first_bad(x, v)
    buffers = {**buffers, "velocities": velocities, "force": force}
    return Move(moved, buffers, force, bad_particle, gradient_at=moved)
