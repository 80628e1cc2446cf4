"""The automatic step size: from the curvature of the objective where the particles are.

A step of `Overdamped` dynamics is unstable from ``2 / curvature`` on; the automatic one is ``1 / curvature``::

    step_size(k) = 1 / (c + 2 l2(k))

and that of `Underdamped` dynamics, whose steps are unstable from ``2 / sqrt(curvature)`` on, the root of this. Here c
is the largest curvature of the loss that was seen at the steps 0, 1, 2, 3, 4, 6, 8, 12, ..., 2**j, 3 * 2**(j-1) up to
k. The estimates are a pure function of the state and c is kept in it, so that restarts stay exact; c never falls,
so that a step size is never raised again. Each estimate (`estimate`) is the largest of

1. power iterations on differences of gradients, which find the largest eigenvalue of the Hessian in absolute value;
2. the same where a step of this size would lead, noise included, and along the way: it may be larger there;
3. the gradient over the size of the particles: no step moves them by more than their own root mean square, or by 1;
4. doublings until a step of this size without noise does not raise the objective by a tenth.

With mini-batches it is the curvature of a bad batch: an eighth of its rows have the largest inputs of all.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfld import noise, validation
from mfld.dynamics import Step
from mfld.gradients import GradientEstimator
from mfld.objectives import Objective
from mfld.validation import FloatArray

_PARTICLES = 256  # of a risk, whose curvature does not need more of them
_ROWS = 1024  # of a risk: as many spread evenly, or all of a few more
_LARGEST_ROWS = 256
_ITERATIONS = 10
_LOOKS_AHEAD = 8


def curvature(objective: Objective, particles: FloatArray, n_iterations: int = _ITERATIONS) -> float:
    """Largest curvature of the objective at a cloud, in the scaling of its gradient b, by power iteration.

    The Euler step of b is unstable from ``2 / curvature`` on. Directions are differences of gradients, so the objective
    needs no second derivative.

    Parameters
    ----------
    objective : Objective
    particles : ndarray, shape (N, p)
    n_iterations : int
        One gradient to start and one for each; the estimate comes from below.

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
    of_loss, _ = _power_iteration(objective, particles, direction, n_iterations)
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


def estimate(objective: Objective, gradient: GradientEstimator, particles: FloatArray, step: Step) -> float:
    """Largest curvature of the loss that a next step may meet; see the module.

    Parameters
    ----------
    objective : Objective
    gradient : GradientEstimator
        How many rows a step sees.
    particles : ndarray, shape (N, p)
    step : Step
        Its temperature and l2.
    """
    objective = objective.on_threads(step.num_threads)
    batch_size = gradient.rows_of_a_step(objective)
    objective = objective.sampled(step.place.step, _ROWS)
    row_sizes = objective.row_sizes()
    if row_sizes is None or batch_size is None:
        return _ahead(objective, particles, step)
    return _of_rows(objective, row_sizes, batch_size, particles[_evenly(len(particles), _PARTICLES)], step)


def _of_rows(
    risk: Objective, row_sizes: NDArray[np.float64], batch_size: int, particles: FloatArray, step: Step
) -> float:
    n = len(row_sizes)
    if batch_size == n <= 2 * _ROWS:
        return _ahead(risk.of_rows(np.arange(n))[0], particles, step)
    # Descent on batches of B rows is stable in the mean square if it is for curvature + (largest of a row) / B; and a
    # sum of losses is at most as curved as its parts together.
    n_largest = min(max(1, batch_size // 8), _LARGEST_ROWS)
    order = np.argsort(-row_sizes, kind="stable")
    others = np.sort(order[n_largest:])
    large, share = risk.of_rows(order[:n_largest])
    typical, _ = risk.of_rows(others[_evenly(len(others), _ROWS)])
    of_large, of_others = (_ahead(part, particles, step) for part in (large, typical))
    expected = n_largest / batch_size
    return (1 - expected) * of_others + max(n / batch_size * share * of_large, expected * of_others)


def _ahead(objective: Objective, particles: FloatArray, step: Step) -> float:
    """The largest of the quantities of the module, on one objective with all its rows."""
    particles = _working_precision(objective, particles)
    moving = np.s_[..., : objective.n_moving]
    slope = objective.loss_gradient(particles)
    drift = slope[moving] + 2 * step.l2 * particles[moving]
    value = _value(objective, particles, step.l2)
    far = _far(step.num_threads)
    found, direction = _power_iteration(objective, particles, _direction(objective, particles, far), _ITERATIONS)
    found = max(found, _rms(slope[moving]) / max(1.0, _rms(particles[moving])))
    xi = far.member(math.prod(objective.members)).normals_like(particles, objective.n_moving)
    for _ in range(_LOOKS_AHEAD):
        step_size = float(size(found, np.array([step.l2]))[0])
        trial = particles.copy()
        trial[moving] -= step_size * drift
        if not np.isfinite(trial).all():
            break  # the step itself will report it
        if _value(objective, trial, step.l2) > value + 0.1 * abs(value):
            found = max(2 * found, 1 / step_size)
            continue
        trial[moving] += np.sqrt(2 * step.temperature * step_size) * xi
        there, direction = _power_iteration(objective, trial, direction, 3)
        apart = float(_norm(trial - particles))
        along = float(_norm(objective.loss_gradient(trial) - slope) / apart) if apart else 0.0
        seen = max(there, along)
        if not seen > 1.25 * found:  # NaN included
            break
        found = seen
    return found


def size(curvature: float | NDArray[np.float64], l2: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """The step sizes for curvatures of the loss and ridges, broadcast; 1 where there is neither."""
    total = curvature + 2 * l2
    return np.where(total > 0, 1 / np.where(total > 0, total, 1.0), 1.0)


def _value(objective: Objective, particles: FloatArray, l2: float) -> float:
    if not objective.has_value:
        return 0.0
    moving = particles[..., : objective.n_moving].astype(np.float64)
    return objective.loss(particles) + l2 * float(np.mean(np.sum(moving**2, axis=-1)))


def _power_iteration(
    objective: Objective, particles: FloatArray, direction: FloatArray, n_iterations: int
) -> tuple[float, FloatArray]:
    """Estimated largest curvature in absolute value, and its direction."""
    # Between what rounding spoils and what is not local; relative to the particles.
    length = float(np.finfo(particles.dtype).eps) ** 0.4 * max(1.0, _rms(particles))
    start = objective.loss_gradient(particles)
    found = 0.0
    for _ in range(n_iterations):
        # Without interaction each particle has a Hessian of its own, and the largest one counts.
        axis = 1 if objective.linear else None
        norm = np.sqrt(np.mean(direction**2, axis=axis, keepdims=True))
        direction = direction * np.where(norm > 0, length / np.where(norm > 0, norm, 1), 0).astype(direction.dtype)
        change = objective.loss_gradient(particles + direction) - start
        moved = _norm(direction, axis)
        ratio = _norm(change, axis) / np.where(moved > 0, moved, 1)
        found = float(np.max(ratio))
        if not np.isfinite(found) or found == 0:
            break
        direction = change
    return found, direction


def _direction(objective: Objective, particles: FloatArray, place: noise.Place) -> FloatArray:
    direction = np.zeros_like(particles)
    direction[..., : objective.n_moving] = place.normals_like(particles, objective.n_moving)
    return direction


def _working_precision(objective: Objective, particles: FloatArray) -> FloatArray:
    # The functions of a user may know one precision only.
    return particles.astype(np.float64) if objective.any_precision else particles


def _far(num_threads: int | None) -> noise.Place:
    """A place past the noise of any run: what is drawn there is independent of the particles."""
    return noise.Place.of(0, step=validation.MAX_STEP, num_threads=num_threads)


def _evenly(n: int, at_most: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, n - 1, min(n, at_most)).astype(np.int64))


def _rms(values: FloatArray) -> float:
    return float(np.sqrt(np.mean(values.astype(np.float64) ** 2)))


def _norm(values: FloatArray, axis: int | None = None) -> NDArray[np.floating[Any]]:
    # Not np.linalg.norm, which without an axis is a product of BLAS, whose bits may depend on threads.
    return np.asarray(np.sqrt(np.sum(values.astype(np.float64) ** 2, axis=axis)))
