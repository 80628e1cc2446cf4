"""Gradient estimators: how the gradient of a step is computed from the samples."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mfld import _core, schedules, validation
from mfld.native import Native, final
from mfld.noise import Place
from mfld.objectives.base import Objective
from mfld.schedules import Scheduled
from mfld.state import Buffers
from mfld.validation import FloatArray

_SMALLEST_BATCH = 8  # below this a step costs its overheads and not its rows


class GradientEstimator(ABC):
    """How the gradient of the loss is estimated at each step; the ridge is never sampled, steps add it exactly.

    The estimators of this module run inside the compiled core where the objective does. A subclass of your own is
    called once a step.

    Attributes
    ----------
    buffer_names : tuple of str
        Names within `State.buffers` of what it carries from step to step.
    exact : bool
        True where the estimate is the gradient itself.
    n_summed : int
        Clouds whose predictions a step of the core sums.
    bounds_rows : bool
        True where what one row does to the estimate is bounded, so that `noise_multipliers` is defined.

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
    exact: ClassVar[bool] = False
    n_summed: ClassVar[int] = 1
    bounds_rows: ClassVar[bool] = False

    def rows_of_a_step(self, objective: Objective) -> int | None:
        """Number of rows that the estimate of a step sees; None where the objective has no samples."""
        return objective.n_samples

    def native(self, objective: Objective, particles: FloatArray, buffers: Buffers) -> Native[_core.Estimator] | None:
        """This estimator as the compiled core takes it, for all replicates; None where the core does not know it."""
        return None

    def check(self, objective: Objective) -> None:  # noqa: B027  most estimators suit any objective
        """Raise ValueError if this estimator cannot serve the objective; called before a run."""

    def buffer_shapes(self, objective: Objective, n_particles: int) -> dict[str, tuple[int, ...]]:
        """Shapes that its buffers have, so that those of another objective are refused; those left out may be any."""
        return {}

    def loss(self, objective: Objective, particles: FloatArray, place: Place) -> float:
        """Loss at the particles of a step, as a history shows it; NaN where it is not known.

        From the rows that the estimate of the gradient sees, if all particles share them, else from all.
        """
        return objective.loss(particles) if objective.has_value else math.nan

    def noise_multipliers(
        self,
        objective: Objective,
        n_particles: int,
        scales: NDArray[np.float64],
        deviations: NDArray[np.float64],
    ) -> tuple[float, float, NDArray[np.float64]]:
        """Rate at which rows are sampled, and noise multipliers of steps ``- scale * estimate + deviation * xi``.

        That of the noise in the estimate, and those of the deviations: they add in squares. Defined where
        ``bounds_rows`` is True.
        """
        raise NotImplementedError(f"{type(self).__name__} must define noise_multipliers")

    @abstractmethod
    def estimate(
        self, objective: Objective, particles: FloatArray, buffers: Buffers, place: Place
    ) -> tuple[FloatArray, Buffers]:
        """Estimate ``objective.loss_gradient(particles)`` at a place in the noise; with it the buffers for next time.

        ``buffers`` lacks the estimator's own before the first step.
        """


@final
@dataclass(frozen=True)
class FullBatch(GradientEstimator):
    """The gradient itself, from all samples at every step.

    Examples
    --------
    >>> import mfld
    >>> mfld.MFLD(step_size=0.1, temperature=0.01, gradient=mfld.FullBatch()).gradient
    FullBatch()
    """

    exact: ClassVar[bool] = True

    def check(self, objective: Objective) -> None:
        if not objective.has_gradient:
            kind = type(objective).__name__
            fits = "Minibatch(batch_size)"
            raise ValueError(f"gradient must be {fits} for a {kind}, which has no end of samples; got {self}")

    def native(self, objective: Objective, particles: FloatArray, buffers: Buffers) -> Native[_core.Estimator] | None:
        return Native(_core.Estimator("full_batch"), {})

    def estimate(
        self, objective: Objective, particles: FloatArray, buffers: Buffers, place: Place
    ) -> tuple[FloatArray, Buffers]:
        return objective.loss_gradient(particles), {}


@dataclass(frozen=True)
class _OfBatch(GradientEstimator):
    """An estimator from a number of the samples."""

    batch_size: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "batch_size", validation.integer("batch_size", self.batch_size, 1))

    def check(self, objective: Objective) -> None:
        if objective.n_samples is not None or not objective.has_batches:
            _check_batch(self, objective, self.batch_size)

    def rows_of_a_step(self, objective: Objective) -> int | None:
        return self.batch_size


@final
@dataclass(frozen=True)
class Minibatch(_OfBatch):
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

    def native(self, objective: Objective, particles: FloatArray, buffers: Buffers) -> Native[_core.Estimator] | None:
        kind = "stream" if objective.n_samples is None else "minibatch"
        return Native(_core.Estimator(kind, self.batch_size), {})

    def estimate(
        self, objective: Objective, particles: FloatArray, buffers: Buffers, place: Place
    ) -> tuple[FloatArray, Buffers]:
        return objective.loss_gradient(particles, objective.draw_batch(place, self.batch_size)), {}

    def loss(self, objective: Objective, particles: FloatArray, place: Place) -> float:
        return _loss(objective, particles, objective.draw_batch(place, self.batch_size))


@dataclass(frozen=True)
class PerParticleMinibatch(_OfBatch):
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
        rows = place.particle_batches(objective.n_samples, self.batch_size, len(particles))
        return objective.loss_gradient_by_particle(particles, rows), {}


@dataclass(frozen=True)
class _VarianceReduced(GradientEstimator):
    """A mini-batch estimator that returns to the full gradient at steps 0, m, 2m, ..."""

    batch_size: int | None = None
    refresh_every: int | None = None

    kind: ClassVar[str]
    """Name under which the compiled core knows it."""

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

    def rows_of_a_step(self, objective: Objective) -> int | None:
        return None if objective.n_samples is None else self.sizes(objective.n_samples)[0]

    def native(self, objective: Objective, particles: FloatArray, buffers: Buffers) -> Native[_core.Estimator] | None:
        assert objective.n_samples is not None  # by check
        valid = all(name in buffers for name in self.buffer_names)
        shapes = self.buffer_shapes(objective, particles.shape[1])
        own = {
            name: buffers[name].copy() if valid else np.empty((len(particles), *shapes[name]), particles.dtype)
            for name in self.buffer_names
        }
        anchor, gradient, *predictions = own.values()
        form = _core.Estimator(
            self.kind,
            *self.sizes(objective.n_samples),
            anchor,
            gradient,
            predictions[0] if predictions else None,
            valid,
        )
        return Native(form, own, fragile=self.buffer_names)

    def buffer_shapes(self, objective: Objective, n_particles: int) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(self.required_buffers, (*objective.members, n_particles, objective.n_coordinates))

    def _rows(self, objective: Objective, place: Place, buffers: Container[str]) -> NDArray[np.int64] | None:
        """Rows of the step; None where the full gradient is due."""
        assert objective.n_samples is not None  # by check
        batch_size, refresh_every = self.sizes(objective.n_samples)
        if place.step % refresh_every == 0 or any(name not in buffers for name in self.required_buffers):
            return None
        return place.batch(objective.n_samples, batch_size)

    def loss(self, objective: Objective, particles: FloatArray, place: Place) -> float:
        return _loss(objective, particles, self._rows(objective, place, dict.fromkeys(self.required_buffers)))

    @property
    def required_buffers(self) -> tuple[str, ...]:
        """The buffers without which a refresh is due, whatever the step."""
        return self.buffer_names[:2]


@final
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
    kind: ClassVar[str] = "svrg"

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


@final
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
    n_summed: ClassVar[int] = 2
    kind: ClassVar[str] = "sarah"

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


def _loss(objective: Objective, particles: FloatArray, rows: Any) -> float:
    """Loss from rows; from all where there are none, or there is no estimate from some."""
    estimate = math.nan if rows is None else objective.loss_of_batch(particles, rows)
    return objective.loss(particles) if math.isnan(estimate) and objective.has_value else estimate


def _check_batch(estimator: GradientEstimator, objective: Objective, batch_size: int) -> None:
    n = objective.n_samples
    if n is None:
        kind = type(objective).__name__
        fits, has = ("Minibatch(batch_size)", "no end of") if objective.has_batches else ("FullBatch()", "no")
        raise ValueError(f"gradient must be {fits} for a {kind}, which has {has} samples; got {estimator}")
    if batch_size > n:
        raise ValueError(f"batch_size must be at most the number of samples, {n}, got {batch_size}")


_LAWS = ("normal", "ball")


@dataclass(frozen=True)
class Smoothed(GradientEstimator):
    """Gradient at particles shifted at random: on average that of a smoothed objective (graduated optimisation).

    At step k another estimator's gradient at::

        theta + radius(k) * zeta,       zeta ~ N(0, I) or uniform in the unit ball

    afresh for each particle, on moving coordinates. For a `Potential` V its mean is the gradient of the convolution of
    V with the law of ``radius * zeta``, in which narrow minima are gone; with a radius that falls to 0, descent follows
    the minimum of the wide ones into V itself. Interacting particles are shifted all together, so that the measure is
    smoothed as well. The ridge is not smoothed, which would add a constant only. Noise: stream ``smoothing``, one
    normal for each moving coordinate; for the ball two more, whose common direction is kept: the first m coordinates
    of a uniform point of the sphere in m + 2 dimensions are uniform in the ball. Source: Hazan, Levy, Shalev-Shwartz
    2016, "On graduated optimization for stochastic non-convex problems".

    Parameters
    ----------
    radius : float or Schedule or callable
        At least 0, in the units of the particles; at 0 the gradient is the other estimator's.
    gradient : GradientEstimator
        What is asked at the shifted particles; the buffers are its own.
    law : {"normal", "ball"}
        Of zeta.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    Ripples of depth 1 on a bowl: descent stays in one of them, graduated descent goes to the bottom.

    >>> import numpy as np
    >>> import mfld
    >>> bowl = mfld.Potential(lambda x: 0.2 * x + 5 * np.sin(5 * x), n_coordinates=1)
    >>> start = np.full((100, 1), 6.0)
    >>> graduated = mfld.Smoothed(mfld.schedules.Geometric(2.0, factor=0.5, stage_length=400))
    >>> for gradient in (mfld.FullBatch(), graduated):
    ...     solver = mfld.MFLD(n_particles=100, step_size=0.02, temperature=0.0, gradient=gradient)
    ...     print(bool(np.abs(solver.run(bowl, n_steps=4000, particles=start).particles).mean() < 1.5))
    False
    True
    """

    radius: Scheduled
    gradient: GradientEstimator = field(default_factory=FullBatch)
    law: str = "normal"

    def __post_init__(self) -> None:
        object.__setattr__(self, "radius", schedules.check("radius", self.radius))
        validation.instance("gradient", self.gradient, GradientEstimator, "a GradientEstimator, like FullBatch()")
        validation.choice("law", self.law, _LAWS)
        object.__setattr__(self, "buffer_names", self.gradient.buffer_names)

    def check(self, objective: Objective) -> None:
        self.gradient.check(objective)

    def rows_of_a_step(self, objective: Objective) -> int | None:
        return self.gradient.rows_of_a_step(objective)

    def buffer_shapes(self, objective: Objective, n_particles: int) -> dict[str, tuple[int, ...]]:
        return self.gradient.buffer_shapes(objective, n_particles)

    def estimate(
        self, objective: Objective, particles: FloatArray, buffers: Buffers, place: Place
    ) -> tuple[FloatArray, Buffers]:
        radius = float(schedules.values("radius", self.radius, place.step, 1)[0])
        if radius > 0:
            shifted = particles.copy()
            shifted[..., : objective.n_moving] += radius * self._shifts(particles, objective.n_moving, place)
            particles = shifted
        return self.gradient.estimate(objective, particles, buffers, place)

    def loss(self, objective: Objective, particles: FloatArray, place: Place) -> float:
        return self.gradient.loss(objective, particles, place)

    def _shifts(self, particles: FloatArray, m: int, place: Place) -> FloatArray:
        normals = place.normals_like(particles, m if self.law == "normal" else m + 2, "smoothing")
        if self.law == "normal":
            return normals
        direction: FloatArray = normals[..., :m] / np.sqrt(np.sum(normals**2, axis=-1, keepdims=True))
        return direction


@dataclass(frozen=True, eq=False)
class Drift:
    """Gradient of an objective as an estimator gives it, ridge excluded: what dynamics integrate."""

    objective: Objective
    gradient: GradientEstimator

    def __call__(self, particles: FloatArray, buffers: Buffers, place: Place) -> tuple[FloatArray, Buffers]:
        """Estimated gradient at particles, in their precision, and all buffers with the estimator's own renewed."""
        estimate, renewed = self.gradient.estimate(self.objective, particles, buffers, place)
        validation.unmasked("loss_gradient(particles)", estimate)
        with np.errstate(over="ignore"):  # what overflows is found by the move
            estimate = np.ascontiguousarray(estimate, particles.dtype)
        validation.shape("loss_gradient(particles)", estimate, particles.shape, "to match particles")
        return estimate, {**buffers, **renewed}

    def value_and_gradient(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """First variation and its gradient at points, ridge excluded, for dynamics on linear objectives."""
        values, gradient = self.objective.first_variation(points).value_and_gradient(points)
        return np.array(values, points.dtype, order="C"), np.array(gradient, points.dtype, order="C")
