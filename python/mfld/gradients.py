"""Gradient estimators: how the gradient of a step is computed from the samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mfld import _core, validation
from mfld.validation import FloatArray

if TYPE_CHECKING:
    from mfld.objectives.base import Objective


class GradientEstimator(ABC):
    """How the gradient of the loss is estimated at each step; the ridge is never sampled, steps add it exactly.

    `FullBatch` and `Minibatch` run inside the compiled core. A subclass of your own is called once a step.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> class Clipped(mfld.GradientEstimator):
    ...     def estimate(self, objective, particles, key, step, population):
    ...         return np.clip(objective.loss_gradient(particles), -1, 1)
    >>> well = mfld.Potential(lambda x: x**3, n_coordinates=1)
    >>> solver = mfld.MFLD(n_particles=1, step_size=0.5, temperature=0.0, gradient=Clipped())
    >>> solver.run(well, n_steps=2, particles=[[10.0]]).particles
    array([[9.]], dtype=float32)
    """

    def check(self, objective: Objective) -> None:  # noqa: B027  most estimators suit any objective
        """Raise ValueError if this estimator cannot serve the objective; called before a run."""

    @abstractmethod
    def estimate(self, objective: Objective, particles: FloatArray, key: int, step: int, population: int) -> FloatArray:
        """Estimate ``objective.loss_gradient(particles)`` at the place (key, step, population) of the noise."""


@dataclass(frozen=True)
class FullBatch(GradientEstimator):
    """The gradient itself, from all samples at every step.

    Examples
    --------
    >>> import mfld
    >>> mfld.MFLD(step_size=0.1, temperature=0.01, gradient=mfld.FullBatch()).gradient
    FullBatch()
    """

    def estimate(self, objective: Objective, particles: FloatArray, key: int, step: int, population: int) -> FloatArray:
        return objective.loss_gradient(particles)


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
        n = objective.n_samples
        if n is None:
            kind = type(objective).__name__
            raise ValueError(f"gradient must be FullBatch() for a {kind}, which has no samples; got {self}")
        if self.batch_size > n:
            raise ValueError(f"batch_size must be at most the number of samples, {n}, got {self.batch_size}")

    def estimate(self, objective: Objective, particles: FloatArray, key: int, step: int, population: int) -> FloatArray:
        assert objective.n_samples is not None  # by check
        rows = _core.backend.batch(key, step, objective.n_samples, self.batch_size, population)
        return objective.loss_gradient(particles, rows)
