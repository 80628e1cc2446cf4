"""Gradient estimators: how the gradient of a step is computed from the samples."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mfld import _core, validation
from mfld.dynamics.base import Buffers
from mfld.noise import Place
from mfld.validation import FloatArray

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mfld.objectives.base import Objective

_SMALLEST_BATCH = 8  # below this a step costs its overheads and not its rows


class GradientEstimator(ABC):
    """How the gradient of the loss is estimated at each step; the ridge is never sampled, steps add it exactly.

    The estimators of this module run inside the compiled core where the objective does. A subclass of your own is
    called once a step.

    Attributes
    ----------
    buffer_names : tuple of str
        What it carries from step to step: names within `State.buffers`.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> class Clipped(mfld.GradientEstimator):
    ...     def estimate(self, objective, particles, buffers, place):
    ...         return np.clip(objective.loss_gradient(particles), -1, 1), {}
    >>> well = mfld.Potential(lambda x: x**3, n_coordinates=1)
    >>> solver = mfld.MFLD(n_particles=1, step_size=0.5, temperature=0.0, gradient=Clipped())
    >>> solver.run(well, n_steps=2, particles=[[10.0]]).particles
    array([[9.]], dtype=float32)
    """

    buffer_names: ClassVar[tuple[str, ...]] = ()

    def check(self, objective: Objective) -> None:  # noqa: B027  most estimators suit any objective
        """Raise ValueError if this estimator cannot serve the objective; called before a run."""

    def buffer_shapes(self, objective: Objective, n_particles: int) -> dict[str, tuple[int, ...]]:
        """Shapes that its buffers have, so that those of another objective are refused; those left out may be any."""
        return {}

    @abstractmethod
    def estimate(
        self, objective: Objective, particles: FloatArray, buffers: Buffers, place: Place
    ) -> tuple[FloatArray, Buffers]:
        """Estimate ``objective.loss_gradient(particles)`` at a place in the noise; with it the buffers for next time.

        ``buffers`` lacks the estimator's own before the first step.
        """


@dataclass(frozen=True)
class FullBatch(GradientEstimator):
    """The gradient itself, from all samples at every step.

    Examples
    --------
    >>> import mfld
    >>> mfld.MFLD(step_size=0.1, temperature=0.01, gradient=mfld.FullBatch()).gradient
    FullBatch()
    """

    def estimate(
        self, objective: Objective, particles: FloatArray, buffers: Buffers, place: Place
    ) -> tuple[FloatArray, Buffers]:
        return objective.loss_gradient(particles), {}


@dataclass(frozen=True)
class Minibatch(GradientEstimator):
    """The gradient from ``batch_size`` of the n samples, drawn afresh at every step without replacement.

    With sample weights s that sum to 1 and rows I shared by all particles::

        (n / batch_size) * sum_{i in I} s_i grad l(f_mu(z_i), y_i)

    unbiased, with variance factor ``(n - B) / (B (n - 1))``. Source: section 3 of Suzuki, Wu, Nitanda 2023,
    "Convergence of mean-field Langevin dynamics: time and space discretization, stochastic gradient, and
    variance reduction".

    Parameters
    ----------
    batch_size : int
        At least 1 and at most the number of samples.

    Raises
    ------
    TypeError, ValueError
        If it is not; against the number of samples it is checked when a run starts.

    Examples
    --------
    >>> import mfld
    >>> mfld.MFLD(step_size=0.1, temperature=0.01, gradient=mfld.Minibatch(batch_size=64)).gradient
    Minibatch(batch_size=64)
    """

    batch_size: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "batch_size", validation.integer("batch_size", self.batch_size, 1))

    def check(self, objective: Objective) -> None:
        _check_batch(self, objective, self.batch_size)

    def estimate(
        self, objective: Objective, particles: FloatArray, buffers: Buffers, place: Place
    ) -> tuple[FloatArray, Buffers]:
        return objective.loss_gradient(particles, _batch(objective, self.batch_size, place)), {}


@dataclass(frozen=True)
class PerParticleMinibatch(GradientEstimator):
    """The gradient from rows that each particle draws for itself, ``batch_size`` of n without replacement.

    With rows I_m of particle m and sample weights s that sum to 1::

        (n / batch_size) * sum_{i in I_m} s_i l'(f_mu(z_i), y_i) grad h(theta_m, z_i)

    This is another algorithm than `Minibatch`, whose particles share their rows: the noise of two particles is
    independent, so that it averages out in the measure like the noise of the temperature. What it saves is the
    pull-back alone: the predictions ``f_mu`` are those of the rows of all particles, hence of all samples.

    Parameters
    ----------
    batch_size : int
        At least 1 and at most the number of samples.

    Raises
    ------
    TypeError, ValueError
        If it is not; when a run starts, if it exceeds the number of samples or the objective knows no gradients by
        particle: an `EmpiricalRisk` of a `TwoLayerNetwork` does.

    Examples
    --------
    >>> import mfld
    >>> mfld.MFLD(step_size=0.1, temperature=0.01, gradient=mfld.PerParticleMinibatch(batch_size=8)).gradient
    PerParticleMinibatch(batch_size=8)
    """

    batch_size: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "batch_size", validation.integer("batch_size", self.batch_size, 1))

    def check(self, objective: Objective) -> None:
        _check_batch(self, objective, self.batch_size)
        if not objective.has_particle_batches:
            raise ValueError(
                "gradient must be one of FullBatch, Minibatch, SVRG, SARAH for this objective, since it defines no "
                f"loss_gradient_by_particle; got {self}"
            )

    def estimate(
        self, objective: Objective, particles: FloatArray, buffers: Buffers, place: Place
    ) -> tuple[FloatArray, Buffers]:
        assert objective.n_samples is not None  # by check
        rows = _core.backend.particle_batches(
            place.key, place.step, objective.n_samples, self.batch_size, len(particles), place.population
        )
        return objective.loss_gradient_by_particle(particles, rows), {}


@dataclass(frozen=True)
class _VarianceReduced(GradientEstimator):
    """A mini-batch estimator that returns to the full gradient at steps 0, m, 2m, ..."""

    batch_size: int | None = None
    refresh_every: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "refresh_every"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, validation.integer(name, getattr(self, name), 1))

    @abstractmethod
    def _defaults(self, n_samples: int) -> tuple[float, float]:
        """Batch size and steps from refresh to refresh that the theory names for n samples."""

    def sizes(self, n_samples: int) -> tuple[int, int]:
        """Batch size B and number m of steps from refresh to refresh, for n samples."""
        batch_size, refresh_every = self._defaults(n_samples)
        return (
            self.batch_size or min(n_samples, max(_SMALLEST_BATCH, round(batch_size))),
            self.refresh_every or max(1, round(refresh_every)),
        )

    def check(self, objective: Objective) -> None:
        _check_batch(self, objective, self.batch_size or 1)

    def buffer_shapes(self, objective: Objective, n_particles: int) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(self.required_buffers, (n_particles, objective.n_coordinates))

    def _rows(self, objective: Objective, place: Place, buffers: Buffers) -> NDArray[np.int64] | None:
        """Rows of the step; None where the full gradient is due."""
        assert objective.n_samples is not None  # by check
        batch_size, refresh_every = self.sizes(objective.n_samples)
        if place.step % refresh_every == 0 or any(name not in buffers for name in self.required_buffers):
            return None
        return _batch(objective, batch_size, place)

    @property
    def required_buffers(self) -> tuple[str, ...]:
        """The buffers without which a refresh is due, whatever the step."""
        return self.buffer_names[:2]


@dataclass(frozen=True)
class SVRG(_VarianceReduced):
    """Stochastic variance-reduced gradient: a mini-batch corrects the full gradient of an anchor.

    Every ``refresh_every`` steps the particles X become the anchors A, whose full gradient G is kept. In between, with
    rows I shared by all particles and sample weights s of sum 1::

        v = (n / B) * sum_{i in I} s_i [grad l_i(X) - grad l_i(A)] + G

    where each ``grad l_i`` is taken at its own cloud, predictions included. Unbiased; exact at the anchor. A step costs
    2 B gradients of samples, and 1 / m of a full gradient; memory is 2 N p + n beside the particles. Source: section 3
    of Suzuki, Wu, Nitanda 2023, "Convergence of mean-field Langevin dynamics: time and space discretization,
    stochastic gradient, and variance reduction".

    Parameters
    ----------
    batch_size : int, optional
        B; by default ``n**(1/3)``, at least 8.
    refresh_every : int, optional
        m; by default ``n**(2/3)``.

    Raises
    ------
    TypeError, ValueError
        If one is no positive integer; against the number of samples B is checked when a run starts.

    Examples
    --------
    >>> import mfld
    >>> mfld.SVRG(batch_size=32).sizes(1000)
    (32, 100)
    """

    buffer_names: ClassVar[tuple[str, ...]] = ("anchor", "anchor_gradient", "anchor_predictions")

    def _defaults(self, n_samples: int) -> tuple[float, float]:
        return n_samples ** (1 / 3), n_samples ** (2 / 3)

    def buffer_shapes(self, objective: Objective, n_particles: int) -> dict[str, tuple[int, ...]]:
        shapes = super().buffer_shapes(objective, n_particles)
        model = getattr(objective, "model", None)
        if model is None or objective.n_samples is None:
            return shapes
        return {**shapes, "anchor_predictions": (objective.n_samples, model.n_outputs)}

    def estimate(
        self, objective: Objective, particles: FloatArray, buffers: Buffers, place: Place
    ) -> tuple[FloatArray, Buffers]:
        rows = self._rows(objective, place, buffers)
        if rows is None:
            full = objective.loss_gradient(particles)
            return full, {"anchor": particles, "anchor_gradient": full}
        change = objective.loss_gradient(particles, rows) - objective.loss_gradient(buffers["anchor"], rows)
        return change + buffers["anchor_gradient"], {}


@dataclass(frozen=True)
class SARAH(_VarianceReduced):
    """Stochastic recursive gradient: a mini-batch follows the gradient from step to step.

    Every ``refresh_every`` steps the full gradient; in between, with rows I shared by all particles::

        v_k = (n / B) * sum_{i in I} s_i [grad l_i(X_k) - grad l_i(X_{k-1})] + v_{k-1}

    whose mean over batches is ``grad(X_k) - grad(X_{k-1}) + v_{k-1}``: biased from the second step after a refresh on.
    A step costs 2 B gradients of samples, and 1 / m of a full gradient; memory is 2 N p beside the particles. Source:
    Kinoshita, Suzuki 2022, "Improved convergence rate of stochastic gradient Langevin dynamics with variance reduction
    and its application to optimization", carried over to interacting particles.

    Parameters
    ----------
    batch_size : int, optional
        B; by default ``sqrt(n)``, at least 8.
    refresh_every : int, optional
        m; by default ``sqrt(n)``.

    Raises
    ------
    TypeError, ValueError
        If one is no positive integer; against the number of samples B is checked when a run starts.

    Examples
    --------
    >>> import mfld
    >>> mfld.SARAH().sizes(10000)
    (100, 100)
    """

    buffer_names: ClassVar[tuple[str, ...]] = ("previous", "previous_estimate")

    def _defaults(self, n_samples: int) -> tuple[float, float]:
        return math.sqrt(n_samples), math.sqrt(n_samples)

    def estimate(
        self, objective: Objective, particles: FloatArray, buffers: Buffers, place: Place
    ) -> tuple[FloatArray, Buffers]:
        rows = self._rows(objective, place, buffers)
        if rows is None:
            estimate = objective.loss_gradient(particles)
        else:
            change = objective.loss_gradient(particles, rows) - objective.loss_gradient(buffers["previous"], rows)
            estimate = change + buffers["previous_estimate"]
        return estimate, {"previous": particles, "previous_estimate": estimate}


def _check_batch(estimator: GradientEstimator, objective: Objective, batch_size: int) -> None:
    n = objective.n_samples
    if n is None:
        kind = type(objective).__name__
        raise ValueError(f"gradient must be FullBatch() for a {kind}, which has no samples; got {estimator}")
    if batch_size > n:
        raise ValueError(f"batch_size must be at most the number of samples, {n}, got {batch_size}")


def _batch(objective: Objective, batch_size: int, place: Place) -> NDArray[np.int64]:
    assert objective.n_samples is not None  # by check
    return _core.backend.batch(place.key, place.step, objective.n_samples, batch_size, place.population)
