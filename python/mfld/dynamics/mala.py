"""The Metropolis-adjusted Langevin algorithm."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mfld import _core
from mfld.dynamics.base import Dynamics, Move, Step, checked_coefficients
from mfld.dynamics.overdamped import Overdamped
from mfld.gradients import Drift, GradientEstimator
from mfld.objectives.base import Objective
from mfld.state import Buffers
from mfld.validation import FloatArray


@dataclass(frozen=True)
class MALA(Dynamics):
    """Metropolis-adjusted Langevin algorithm: a step of `Overdamped` as a proposal that may be rejected.

    The step is that of ``Overdamped(ridge="exact")``, which leaves the Gaussian reference as it is, so that the ridge
    sets no limit to it. A particle moves from theta to the proposal theta' with the probability ``min(1, r)``::

        log r = -[V(theta') - V(theta)] / T + (f - f') / (2 (1 + rho) T),    rho = exp(-2 l2 step_size),
        f  = g . (2 (theta' - rho theta) + h g),      h = (1 - rho) / (2 l2),
        f' = g' . (2 (theta - rho theta') + h g')

    with V the potential without the ridge, g and g' its gradients at the two places, and T the temperature: the terms
    of the ridge cancel. The law ``exp(-(V + l2 |theta|**2) / T)`` is exact at every step size. This holds where
    particles do not interact: accepting particles one by one under a measure that moves with them has no such law, so
    objectives that are not linear are refused. A proposal that is not finite, or whose potential or gradient is not, is
    rejected. Source: Roberts, Tweedie 1996, "Exponential convergence of Langevin distributions and their discrete
    approximations"; with the reference in the proposal Cotter, Roberts, Stuart, White 2013, "MCMC methods for
    functions". Under a schedule of temperatures it is simulated annealing.

    Noise: stream ``move`` as in `Overdamped`, and one uniform for each particle, stream ``acceptance``. The buffers are
    ``potential`` and ``force``, value and gradient at the particles without the ridge. `Info` has the mean over
    particles of the probability with which proposals are accepted.

    Raises
    ------
    TypeError, ValueError
        When a run starts: if the objective is not linear or has no value, if the gradient is estimated, if the
        temperature is 0, or if the potential is not finite at a particle.

    Examples
    --------
    >>> import mfld
    >>> well = mfld.Potential(lambda x: x, lambda x: (x**2).sum(axis=1) / 2, n_coordinates=1)
    >>> solver = mfld.MFLD(n_particles=10_000, step_size=1.0, temperature=1.0, dynamics=mfld.MALA())
    >>> result = solver.run(well, n_steps=50)
    >>> bool(abs(result.particles.var() - 1) < 0.05)          # Overdamped: temperature / (1 - step_size / 2) = 2
    True
    >>> bool(0.7 < result.history["acceptance"][-1] < 0.9)
    True
    """

    buffer_names: ClassVar[tuple[str, ...]] = ("potential", "force")
    evaluations: ClassVar[tuple[str, ...]] = buffer_names
    starts_anew: ClassVar[bool] = True

    def check(self, objective: Objective, gradient: GradientEstimator) -> None:
        kind = type(objective).__name__
        if not objective.linear:
            raise ValueError(
                f"dynamics must not be MALA() for a {kind}, whose particles interact: accepting them one by one is not "
                "exact there. Sample its first variation, or take Overdamped() or Underdamped()"
            )
        if not objective.has_value:
            raise TypeError(f"dynamics=MALA() needs the value of the objective: give the {kind} value=")
        if not gradient.exact:
            raise ValueError(f"gradient must be FullBatch() with dynamics=MALA(), got {gradient}")

    def buffer_shapes(self, objective: Objective, n_particles: int) -> dict[str, tuple[int, ...]]:
        return {"potential": (n_particles,), "force": (n_particles, objective.n_coordinates)}

    def start(self, particles: FloatArray, step: Step) -> Buffers:
        _check_temperature(step)
        return {}

    def move(self, particles: FloatArray, buffers: Buffers, drift: Drift, step: Step) -> Move:
        moved, probabilities = self.move_chains(particles, buffers, drift, step)
        # One after the other, so that the number of particles is all that the shape of the sum depends on.
        return replace(moved, acceptance=float(np.cumsum(probabilities)[-1]) / len(probabilities))

    def move_chains(
        self, particles: FloatArray, buffers: Buffers, drift: Drift, step: Step
    ) -> tuple[Move, NDArray[np.float64]]:
        """A move, and the probability with which the proposal of each particle is accepted."""
        _check_temperature(step)
        coefficients = checked_coefficients(_PROPOSAL, step.step_size, step.temperature, step.l2)
        numbers = (step.n_moving, coefficients, *step.place.of_members(()))
        if "potential" in buffers and "force" in buffers:
            values, force = buffers["potential"].copy(), buffers["force"].copy()
        else:
            values, force = drift.value_and_gradient(particles)
        _check_inside(values)
        seen = force.copy()
        proposals = particles.copy()
        _core.backend.affine(proposals, force, *numbers, first=step.place.first)
        finite = np.asarray(np.isfinite(proposals).all(axis=1))
        # A potential takes finite points only: a proposal that is not has the value inf, which is never accepted.
        points = proposals if finite.all() else np.where(finite[:, np.newaxis], proposals, particles)
        proposal_values, proposal_force = drift.value_and_gradient(points)
        proposal_values[~finite] = np.inf
        moved = particles.copy()
        _, probabilities = _core.backend.accept(
            moved, values, force, proposals, proposal_values, proposal_force, *numbers, first=step.place.first
        )
        return Move(moved, {**buffers, "potential": values, "force": force}, seen), probabilities


_PROPOSAL = Overdamped(ridge="exact")


def _check_inside(values: FloatArray) -> None:
    # From inf every proposal is accepted, and from NaN none: such a chain does not have the law. No move leads there.
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise ValueError(
            f"particles must be where the potential is finite with dynamics=MALA(), got {values[bad[0]]} at particle "
            f"{bad[0]}, the first of {bad.size}: start within the walls"
        )


def _check_temperature(step: Step) -> None:
    if step.temperature <= 0:
        raise ValueError(f"temperature must be positive with dynamics=MALA(), got {step.temperature}")
