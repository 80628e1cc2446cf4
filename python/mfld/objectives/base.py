"""What an objective is, and how steps are made on one that is written in Python."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mfld import noise
from mfld.dynamics.base import Drift, Dynamics, Step
from mfld.gradients import GradientEstimator
from mfld.noise import Place
from mfld.state import Buffers, Cloud
from mfld.validation import FloatArray

if TYPE_CHECKING:
    from mfld.objectives.potential import Potential

Measure: TypeAlias = Cloud | ArrayLike
"""A cloud, or its particles, shape (N, p), where they weigh the same."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What a call of `Objective.steps` needs beside the particles, the buffers and the number of steps.

    ``step_size``, ``temperature`` and ``l2`` are float64 arrays: each of length 1, a constant, or with an entry per
    step. ``step_size`` may have a row for each replicate. ``l2`` replaces that of the objective. ``places`` are those
    of the first step, one for each replicate.
    """

    step_size: NDArray[np.float64]
    temperature: NDArray[np.float64]
    l2: NDArray[np.float64]
    gradient: GradientEstimator
    dynamics: Dynamics
    places: tuple[Place, ...]
    num_threads: int

    def at(self, k: int, n_moving: int, replicate: int = 0) -> Step:
        """The call's step k of a replicate."""
        return Step(*self.numbers(k, replicate), n_moving, self.places[replicate].ahead(k), self.num_threads)

    def numbers(self, k: int, replicate: int = 0) -> tuple[float, float, float]:
        """Step size, temperature and l2 of the call's step k of a replicate."""
        rows = self.step_size[replicate] if self.step_size.ndim == 2 else self.step_size
        step_size, temperature, l2 = (
            values.item(k if values.size > 1 else 0) for values in (rows, self.temperature, self.l2)
        )
        return step_size, temperature, l2


@dataclass(frozen=True, eq=False)
class Outcome:
    """Where a call of `Objective.steps` came to.

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


@dataclass(frozen=True, eq=False)
class _Reached:
    """Where the steps of one replicate came to."""

    particles: FloatArray
    buffers: Buffers
    loss: float = np.nan
    gradient_norm: float = np.nan
    acceptance: float = np.nan
    bad_particle: int = -1


class Objective(ABC):
    """A functional of a probability measure, ``F(mu) = U(mu) + l2 * E_mu |theta|**2``.

    The algorithms minimise ``F(mu) + temperature * Ent(mu)``. A subclass defines U by `loss`, `loss_gradient` and
    `first_variation`; the ridge, which acts on the moving coordinates, is added here. It is then called once a step
    with all particles, and the noise, the scheme and the estimators are the same as for the objectives that the core
    knows.

    Attributes
    ----------
    n_coordinates : int
        Coordinates p of a particle.
    n_moving : int
        Leading coordinates that move; those behind them are frozen.
    l2 : float
        Coefficient of the ridge, without a factor 1/2.
    n_samples : int or None
        Number of samples that `loss_gradient` can take a batch of; None where there are none.
    linear : bool
        True where the first variation does not depend on the measure: particles then do not interact.
    has_particle_batches : bool
        True where `loss_gradient_by_particle` is defined.
    has_value : bool
        False where only gradients are known: `loss` and `value` then raise, and a history holds NaN for the loss.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> class TargetMean(mfld.Objective):
    ...     '''U(mu) = |E_mu theta - target|**2 / 2.'''
    ...     n_coordinates = n_moving = 2
    ...     l2 = 0.1
    ...     target = np.array([1.0, -1.0])
    ...     def residual(self, measure):
    ...         return np.average(self.cloud(measure).particles, axis=0) - self.target
    ...     def loss(self, measure):
    ...         return float(np.sum(self.residual(measure) ** 2) / 2)
    ...     def loss_gradient(self, measure, batch=None):
    ...         return np.tile(self.residual(measure), (len(self.cloud(measure).particles), 1))
    ...     def first_variation(self, measure):
    ...         slope = self.residual(measure)
    ...         return mfld.Potential(lambda x: np.tile(slope, (len(x), 1)), n_coordinates=2, l2=self.l2)
    >>> solver = mfld.MFLD(n_particles=500, step_size=0.1, temperature=0.01)
    >>> result = solver.run(TargetMean(), n_steps=200)
    >>> np.round(result.particles.mean(axis=0), 1)     # the minimiser is target / (1 + 2 l2)
    array([ 0.8, -0.8], dtype=float32)
    """

    n_coordinates: int
    n_moving: int
    l2: float
    n_samples: int | None = None
    linear: bool = False
    has_particle_batches: bool = False
    has_value: bool = True

    @abstractmethod
    def loss(self, measure: Measure) -> float:
        """The functional without its ridge, U(mu)."""

    @abstractmethod
    def loss_gradient(self, measure: Measure, batch: ArrayLike | None = None) -> FloatArray:
        """Gradient in theta of the first variation of U, at each particle of the measure.

        Parameters
        ----------
        measure : Cloud or array_like, shape (N, n_coordinates)
        batch : array_like of int, shape (B,), optional
            Rows of the samples to estimate it from, without bias over all batches of the size B.

        Returns
        -------
        ndarray, shape (N, n_coordinates)
            0 in frozen coordinates.
        """

    def loss_gradient_by_particle(self, measure: Measure, rows: ArrayLike) -> FloatArray:
        """`loss_gradient` of each particle from a batch of its own, for `PerParticleMinibatch`; defined by some.

        Parameters
        ----------
        measure : Cloud or array_like, shape (N, n_coordinates)
        rows : array_like of int, shape (N, B)

        Returns
        -------
        ndarray, shape (N, n_coordinates)
        """
        raise NotImplementedError(f"{type(self).__name__} does not define loss_gradient_by_particle")

    @abstractmethod
    def first_variation(self, measure: Measure) -> Potential:
        """First variation of F at a measure: a function of theta, frozen, for value and gradient at any points.

        It is normalised as the formula gives it, without centring: for a risk with sample weights s,
        ``sum_i s_i l'(f_mu(z_i), y_i) h(theta, z_i) + l2 |theta|**2``.
        """

    def value(self, measure: Measure) -> float:
        """``F(mu)``, ridge included, entropy not: that of finitely many particles is infinite.

        Parameters
        ----------
        measure : Cloud or array_like, shape (N, n_coordinates)

        Raises
        ------
        TypeError, ValueError
            If the particles have the wrong shape, are no array of reals, or are not finite.
        """
        cloud = self.cloud(measure)
        return self.loss(cloud) + self.ridge(cloud)

    def ridge(self, measure: Measure) -> float:
        """``l2 * E_mu |theta|**2``, over the moving coordinates.

        Parameters
        ----------
        measure : Cloud or array_like, shape (N, n_coordinates)
        """
        cloud = self.cloud(measure)
        moving = cloud.particles[:, : self.n_moving].astype(np.float64)
        return self.l2 * cloud.mean(np.sum(moving**2, axis=1))

    def gradient(self, measure: Measure, batch: ArrayLike | None = None) -> FloatArray:
        """Gradient ``b(theta; mu)`` of the first variation of F at each particle of the measure, ridge included.

        It is N times the gradient in a particle of F as a function of N particles.

        Parameters
        ----------
        measure : Cloud or array_like, shape (N, n_coordinates)
        batch : array_like of int, shape (B,), optional
            Rows of the samples to estimate the loss's part from; all of them by default.

        Returns
        -------
        ndarray, shape (N, n_coordinates)
            0 in frozen coordinates.

        Raises
        ------
        TypeError, ValueError
            If the particles have the wrong shape, are no array of reals, or are not finite; if a row does not exist.
        """
        cloud = self.cloud(measure)
        return _add_ridge(self.loss_gradient(cloud, batch), cloud.particles, self.l2, self.n_moving)

    def cloud(self, measure: Measure) -> Cloud:
        """A measure as a `Cloud`, once its particles are known to suit this objective."""
        cloud = measure if isinstance(measure, Cloud) else Cloud(measure)
        if cloud.particles.ndim != 2 or cloud.particles.shape[1] != self.n_coordinates:
            expected = f"(N, {self.n_coordinates})"
            raise ValueError(f"particles must have shape {expected} to suit the objective, got {cloud.particles.shape}")
        return cloud

    def initial_particles(self, n_particles: int, seed: int = 0, dtype: DTypeLike = "float32") -> FloatArray:
        """Particles for a run to start from: independent draws from N(0, I), unless the objective knows better."""
        return noise.normals(seed, 0, n_particles, self.n_coordinates, dtype=dtype, stream="init")

    def steps(self, particles: FloatArray, buffers: Buffers, n_steps: int, plan: Plan) -> Outcome:
        """Make up to ``n_steps`` (at least 1) steps from particles and buffers, which stay as they are.

        Particles have shape (R, N, n_coordinates) for R replicates, and buffers that leading axis too. This is what
        algorithms call. Here a step costs one call of the dynamics and of the gradient for each replicate; objectives
        that the core knows do all their steps inside it.
        """
        each = [_Reached(one, {name: array[r] for name, array in buffers.items()}) for r, one in enumerate(particles)]
        reached, bad, interrupt = (0, each), None, None
        try:
            for k in range(n_steps):
                each = [self._step(one, plan, k, r, k == n_steps - 1) for r, one in enumerate(each)]
                diverged = [(r, one.bad_particle) for r, one in enumerate(each) if one.bad_particle >= 0]
                if diverged:
                    bad = diverged[0]
                    break
                # One assignment of one object: wherever a signal strikes, replicates and count belong together.
                reached = (k + 1, each)
        except (KeyboardInterrupt, Exception) as error:
            interrupt = error
        steps, each = reached
        return Outcome(
            np.stack([one.particles for one in each]),
            {name: np.stack([one.buffers[name] for one in each]) for name in each[0].buffers},
            steps,
            [one.loss for one in each],
            [one.gradient_norm for one in each],
            [one.acceptance for one in each],
            bad,
            interrupt,
        )

    def _step(self, one: _Reached, plan: Plan, k: int, replicate: int, last: bool) -> _Reached:
        particles = one.particles
        step = plan.at(k, self.n_moving, replicate)
        move = plan.dynamics.move(particles, one.buffers, Drift(self, plan.gradient), step)
        if move.bad_particle >= 0:
            return replace(one, bad_particle=move.bad_particle)
        acceptance = move.acceptance if k == 0 else (k * one.acceptance + move.acceptance) / (k + 1)
        reached = _Reached(move.particles, move.buffers, acceptance=acceptance)
        if not last:
            return reached
        seen = particles if move.gradient_at is None else move.gradient_at
        full = _add_ridge(move.gradient.astype(np.float64), seen, step.l2, self.n_moving)[:, : self.n_moving]
        loss = self.loss(seen) if self.has_value else np.nan
        with np.errstate(over="ignore"):  # near a divergence the square is infinite before the particles are
            norm = float(np.sqrt(np.mean(np.sum(full**2, axis=1))))
        return replace(reached, loss=loss, gradient_norm=norm)


def _add_ridge(loss_gradient: FloatArray, particles: FloatArray, l2: float, n_moving: int) -> FloatArray:
    gradient = np.array(loss_gradient)
    gradient[:, :n_moving] += 2 * l2 * particles[:, :n_moving]
    return gradient
