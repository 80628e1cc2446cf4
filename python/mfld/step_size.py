"""The automatic step size: from the curvature of the objective where the particles are.

A step of `Overdamped` dynamics is unstable from ``2 / curvature`` on; the automatic one is ``1 / curvature``::

    step_size(k) = 1 / (c + 2 l2(k))

and that of `Underdamped` dynamics, whose steps are unstable from ``2 / sqrt(curvature)`` on, the root of this. Here c
is the largest curvature of the loss that was seen at the steps 0, 1, 2, 3, 4, 6, 8, 12, ..., 2**j, 3 * 2**(j-1) up to
k. The estimates are a pure function of the state and c is kept in it, so that restarts stay exact; c never falls,
so that a step size is never raised again. Each estimate (`estimate`) is the largest of

1. power iterations, which find the largest eigenvalue of the Hessian in absolute value, and go on from the direction
   that the state keeps of the last look; its products are exact where the core makes them, and else differences of
   gradients;
2. the same where a step of this size would lead, noise included, and along the way: it may be larger there;
3. the gradient over the size of the particles: no step moves them by more than their own root mean square, or by 1;
4. doublings until a step of this size without noise does not raise the objective by a tenth.

From the third step on a look begins with one product of 1. and the slope along the step of 2.: the rest is made only
where one of them is above c, as is rare.

With mini-batches it is the curvature of a bad batch: an eighth of its rows have the largest inputs of all. Of a risk
some particles and rows are seen: the largest eigenvalue is convex, so that in the mean a sample looks at least as
curved as all.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mfld import noise, validation
from mfld.dynamics import Step
from mfld.gradients import GradientEstimator
from mfld.objectives import Objective
from mfld.objectives.base import Around
from mfld.validation import FloatArray

_PARTICLES = 64, 256  # of a risk, whose curvature does not need more of them; fewer where they have many coordinates
_NUMBERS = 1 << 16  # of these particles
_ROWS = 128, 1024  # of a risk, at least and at most: a quarter of those of a step, or all of a few more
_LARGEST_ROWS = 256
_ITERATIONS = 10  # from a random direction
_MORE_ITERATIONS = 3  # from the steepest one of an earlier look, or close by
_FRESH = 0.1  # share of a random direction in that of an earlier look
_WHOLE = 3  # steps before which all looks are whole: the curvature changes most there
_LOOKS_AHEAD = 8


def curvature(objective: Objective, particles: FloatArray, n_iterations: int = _ITERATIONS) -> float:
    """Largest curvature of the objective at a cloud, in the scaling of its gradient b, by power iteration.

    The Euler step of b is unstable from ``2 / curvature`` on. The objective needs no second derivative: those that the
    core does not know are differences of gradients.

    Parameters
    ----------
    objective : Objective
    particles : ndarray, shape (N, p)
    n_iterations : int
        One gradient to start and one product for each; the estimate comes from below.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> from mfld.step_size import curvature
    >>> well = mfld.Potential(lambda x: x * [1.0, 4.0], n_coordinates=2)
    >>> round(curvature(well, np.ones((3, 2))), 3)
    4.0
    """
    particles = _working_precision(objective, particles)
    direction = _direction(objective, particles, _far(objective.num_threads))
    of_loss, _ = _power_iteration(objective, _around(objective, particles), direction, n_iterations)
    return of_loss + 2 * objective.l2


def due(step: int) -> bool:
    """True where the curvature is looked at again, at this count of steps: 0, 2**j and 3 * 2**j."""
    while step > 3 and step % 2 == 0:
        step //= 2
    return step <= 3


def following(step: int) -> int:
    """The next count after this one that is `due`."""
    power = 1 << max(step, 1).bit_length() - 1
    return next(count for count in (1, power + power // 2, 2 * power) if count > step and due(count))


def estimate(
    objective: Objective,
    gradient: GradientEstimator,
    particles: FloatArray,
    step: Step,
    steepest: FloatArray | None = None,
    known: float | None = None,
) -> tuple[float, FloatArray]:
    """Largest curvature of the loss that a next step may meet, see the module, and the direction in which it is.

    Where it is below a known one it may be one of less search.

    Parameters
    ----------
    objective : Objective
    gradient : GradientEstimator
        How many rows a step sees.
    particles : ndarray, shape (N, p)
    step : Step
        Its temperature and l2.
    steepest : ndarray, optional
        The direction of an earlier look, which spares most of the search.
    known : float, optional
        The largest one of earlier looks.
    """
    objective = objective.on_threads(step.num_threads)
    batch_size = gradient.rows_of_a_step(objective)
    objective = objective.sampled(step.place.step, _ROWS[1])
    row_sizes = objective.row_sizes()
    if row_sizes is None or batch_size is None:
        return _ahead(objective, particles, step, steepest, known)
    n_rows = _between(*_ROWS, batch_size // 4)
    share = 1.0
    if not batch_size == len(row_sizes) <= 2 * n_rows:
        objective, share = objective.of_rows(*_bad_batch(row_sizes, batch_size, n_rows))
    n_particles = _between(*_PARTICLES, _NUMBERS // particles.shape[-1])
    some = particles[..., _evenly(particles.shape[-2], n_particles), :]
    found, steepest = _ahead(objective, some, step, steepest, None if known is None else known / share)
    return share * found, steepest


def _bad_batch(
    row_sizes: NDArray[np.float64], batch_size: int, n_rows: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rows, and factors of their weights, that stand for a batch with the largest rows of all in an eighth of it.

    Descent on batches of B rows is stable in the mean square if it is for curvature + (largest of a row) / B.
    """
    n = len(row_sizes)
    n_largest = min(max(1, batch_size // 8), _LARGEST_ROWS)
    largest = np.argpartition(row_sizes, n - n_largest)[n - n_largest :]
    others = np.setdiff1d(_evenly(n, n_rows), largest, assume_unique=True)
    if not len(others):
        return largest, np.full(n_largest, n / n_largest)
    of_others = (1 - n_largest / batch_size) * n / len(others)
    factors = np.repeat([n / batch_size, of_others], [n_largest, len(others)])
    return np.concatenate([largest, others]), factors


class _Outlook:
    """Particles, the loss around them, and where a step leads that is as long as a curvature allows."""

    def __init__(self, objective: Objective, particles: FloatArray, step: Step) -> None:
        self.objective, self.particles, self._step = objective, particles, step
        self._moving = np.s_[..., : objective.n_moving]
        self.around = _around(objective, particles)
        slope = self.around.slope
        self._drift = slope[self._moving] + 2 * step.l2 * particles[self._moving]
        # Below it a step moves the particles by more than their own root mean square, or by 1.
        self.least = _rms(slope[self._moving]) / max(1.0, _rms(particles[self._moving]))
        far = _far(step.num_threads)
        self.direction = _direction(objective, particles, far)
        self._xi = far.member(math.prod(objective.members)).normals_like(particles, objective.n_moving)

    def drifted(self, step_size: float) -> FloatArray:
        """The particles behind a step without noise."""
        trial = self.particles.copy()
        trial[self._moving] -= step_size * self._drift
        return trial

    def with_noise(self, drifted: FloatArray, step_size: float) -> FloatArray:
        drifted[self._moving] += np.sqrt(2 * self._step.temperature * step_size) * self._xi
        return drifted

    def curvature_towards(self, there: FloatArray, slope_there: FloatArray) -> float:
        apart = _norm(there - self.particles)
        return _norm(slope_there - self.around.slope) / apart if apart else 0.0

    def step_size(self, curvature: float) -> float:
        return float(size(curvature, np.array([self._step.l2]))[0])

    def value(self) -> float:
        return self._value(self.around.loss, self.particles)

    def value_at(self, trial: FloatArray) -> float:
        return self._value(functools.partial(self.objective.loss, trial), trial)

    def _value(self, loss: Callable[[], float], particles: FloatArray) -> float:
        if not self.objective.has_value:
            return 0.0
        moving = particles[self._moving].astype(np.float64)
        return loss() + self._step.l2 * float(np.mean(np.sum(moving**2, axis=-1)))


def _ahead(
    objective: Objective, particles: FloatArray, step: Step, steepest: FloatArray | None, known: float | None
) -> tuple[float, FloatArray]:
    """The largest of the quantities of the module, on one objective with all its rows."""
    particles = _working_precision(objective, particles)
    here = _Outlook(objective, particles, step)
    direction, n_iterations = here.direction, _ITERATIONS
    if steepest is not None and steepest.shape == particles.shape:
        direction, n_iterations = steepest + _FRESH * direction, _MORE_ITERATIONS
        if known is not None and step.place.step >= _WHOLE:
            found, near = _glance(here, direction, known)
            if found <= known:
                return found, near
    value = here.value()
    found, direction = _power_iteration(objective, here.around, direction, n_iterations)
    found = max(found, here.least)
    for _ in range(_LOOKS_AHEAD):
        step_size = here.step_size(found)
        trial = here.drifted(step_size)
        if not np.isfinite(trial).all():
            break  # the step itself will report it
        if here.value_at(trial) > value + 0.1 * abs(value):
            found = max(2 * found, 1 / step_size)
            continue
        trial = here.with_noise(trial, step_size)
        at_trial = _around(objective, trial)
        there, direction = _power_iteration(objective, at_trial, direction, _MORE_ITERATIONS)
        seen = max(there, here.curvature_towards(trial, at_trial.slope))
        if not seen > 1.25 * found:  # NaN included
            break
        found = seen
    return found, direction


def _glance(here: _Outlook, direction: FloatArray, known: float) -> tuple[float, FloatArray]:
    """The curvature as far as one product and a step of the known one show it; infinite where that leads nowhere."""
    found, near = _power_iteration(here.objective, here.around, direction, 1)
    step_size = here.step_size(known)
    trial = here.with_noise(here.drifted(step_size), step_size)
    along = np.inf
    if np.isfinite(trial).all():
        along = here.curvature_towards(trial, _around(here.objective, trial).slope)
    seen = np.array([found, here.least, along])
    return float(seen.max()) if np.isfinite(seen).all() else math.inf, near


def size(curvature: float | NDArray[np.float64], l2: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """The step sizes for curvatures of the loss and ridges, broadcast; 1 where there is neither."""
    total = curvature + 2 * l2
    return np.where(total > 0, 1 / np.where(total > 0, total, 1.0), 1.0)


def _power_iteration(
    objective: Objective, around: Around, direction: FloatArray, n_iterations: int
) -> tuple[float, FloatArray]:
    """Estimated largest curvature in absolute value, and its direction, scaled."""
    # Without interaction each particle has a Hessian of its own, and the largest one counts.
    axis = 1 if objective.linear else None
    direction, _ = _scaled(direction, axis)
    found = 0.0
    for _ in range(n_iterations):
        change, sizes = _scaled(around.along(direction), axis)
        found = float(np.max(sizes))
        if not np.isfinite(found) or found == 0:
            break  # with a direction that may be steep elsewhere
        direction = change
    return found, direction


def _around(objective: Objective, particles: FloatArray) -> Around:
    """The loss around particles: exact where the objective is, else by differences of gradients."""
    exact = objective.around(particles)
    if exact is not None:
        return exact
    slope = objective.loss_gradient(particles)
    # Between what rounding spoils and what is not local; relative to the particles.
    length = float(np.finfo(particles.dtype).eps) ** 0.4 * max(1.0, _rms(particles))

    def along(direction: FloatArray) -> FloatArray:
        moved = objective.loss_gradient(particles + (length * direction).astype(particles.dtype))
        return (moved - slope) / particles.dtype.type(length)

    return Around(functools.partial(objective.loss, particles), slope, along)


def _scaled(values: FloatArray, axis: int | None) -> tuple[FloatArray, FloatArray]:
    """Values of root mean square 1, or 0, along an axis or all together, and what it was."""
    # Not np.linalg.norm, which without an axis is a product of BLAS, whose bits may depend on threads.
    sizes = np.sqrt(np.mean(np.square(values, dtype=np.float64), axis=axis, keepdims=True))
    return (values / np.where(sizes > 0, sizes, 1)).astype(values.dtype, copy=False), sizes


def _direction(objective: Objective, particles: FloatArray, place: noise.Place) -> FloatArray:
    direction = np.zeros_like(particles)
    direction[..., : objective.n_moving] = place.normals_like(particles, objective.n_moving)
    return direction


def _working_precision(objective: Objective, particles: FloatArray) -> FloatArray:
    # A float64 activation still bends where that of float32 has ended. The functions of a user may know one precision.
    return particles.astype(np.float64) if objective.any_precision else particles


def _far(num_threads: int | None) -> noise.Place:
    """A place past the noise of any run: what is drawn there is independent of the particles."""
    return noise.Place.of(0, step=validation.MAX_STEP, num_threads=num_threads)


def _between(low: int, high: int, n: int) -> int:
    return min(max(n, low), high)


def _evenly(n: int, at_most: int) -> NDArray[np.int64]:
    count = min(n, at_most)
    return np.arange(count) * (n - 1) // max(count - 1, 1)


def _rms(values: FloatArray) -> float:
    return float(np.sqrt(np.mean(values.astype(np.float64) ** 2)))


def _norm(values: FloatArray) -> float:
    return math.sqrt(values.size) * _rms(values)
