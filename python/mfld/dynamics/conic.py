"""Overdamped Langevin dynamics on the cone over a domain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mfld.dynamics.base import Dynamics, Move, Step
from mfld.gradients import Drift, GradientEstimator
from mfld.objectives.base import Objective
from mfld.state import Buffers
from mfld.validation import FloatArray


@dataclass(frozen=True)
class Conic(Dynamics):
    """Overdamped dynamics of pairs of a position w and a weight r in the metric ``r**2 dw**2 + dr**2``.

    A step leads along a geodesic of the cone: with the tangent vector ``(v, q)`` of position and size,

    ::

        q = |r| - step_size * sign(r) db/dr + sqrt(2 temperature step_size) xi_r
        v = -step_size * (db/dw) / |r| + sqrt(2 temperature step_size) xi_w

    the size becomes ``sqrt(q**2 + |v|**2)`` and the position turns by the angle ``atan2(|v|, |q|)`` towards v. Signs
    stay. On a sphere it is Euler's step of the vector ``|r| w`` in Euclidean space. For objectives whose gradient in w
    is a multiple of r, like `Lifting` with ``metric="conic"``. Noise: stream ``move``. Source: Chizat 2022, "Sparse
    optimization on measures with over-parameterized gradient descent".

    Examples
    --------
    >>> import mfld
    >>> mfld.MFLD(step_size=0.1, temperature=0.0, dynamics=mfld.dynamics.Conic()).dynamics
    Conic()
    """

    on_domains: ClassVar[bool] = True
    metric: ClassVar[str] = "conic"

    def check(self, objective: Objective, gradient: GradientEstimator) -> None:
        if objective.l2 != 0:
            raise ValueError(f"dynamics must know the ridge to be Conic(), got one with l2 {objective.l2:g} beside it")

    def move(self, particles: FloatArray, buffers: Buffers, drift: Drift, step: Step) -> Move:
        gradient, buffers = drift(particles, buffers, step.place)
        moving = particles[:, : step.n_moving]
        position, weight = moving[:, :-1], moving[:, -1]
        size = np.abs(weight)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            # A weight of 0 gives no slope in w, which is a multiple of it. Its inverse may be beyond all numbers.
            divisor = np.where(size > 0, size, 1)[:, np.newaxis]
            along = -step.step_size * (gradient[:, : step.n_moving - 1] / divisor)
            outwards = -step.step_size * np.where(weight < 0, -1, 1) * gradient[:, step.n_moving - 1]
            if step.temperature > 0:
                noise = float(np.sqrt(2 * step.temperature * step.step_size)) * step.normals(particles)
                along, outwards = along + noise[:, :-1], outwards + noise[:, -1]
            following = self._turned(step, position, size, along, size + outwards)
            theta = np.concatenate([following[0], np.copysign(following[1], weight)[:, np.newaxis]], axis=1)
            moved, bad_particle = step.moved(particles, theta.astype(particles.dtype))
        return Move(moved, buffers, gradient, bad_particle)

    @staticmethod
    def _turned(
        step: Step, position: FloatArray, size: FloatArray, along: FloatArray, outwards: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        blocks = [(block, part) for block, part in step.space.parts() if part.stop < step.n_moving]
        tangent = np.concatenate([block.tangent(position[:, part], along[:, part]) for block, part in blocks], axis=1)
        length = np.sqrt(np.sum(np.square(tangent), axis=1))
        angle = np.arctan2(length, np.abs(outwards))
        turn = tangent * np.where(length > 0, angle / np.where(length > 0, length, 1), 0)[:, np.newaxis]
        turned = np.concatenate([block.along(position[:, part], turn[:, part]) for block, part in blocks], axis=1)
        return turned, np.hypot(outwards, length)
