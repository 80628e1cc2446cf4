"""Detection of runs that circle."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mfld.algorithms.base import Callback
from mfld.state import Info, State

_LOOKS = 400  # over a run
_FEWEST = 40  # looks at a second half, below which nothing is said
_TURNS = 2.0
_KEPT = 0.8  # of the radius, from the third quarter of the run to the last
_ABOVE_NOISE = 5.0  # radius over the standard error of the means


class Circling(Callback):
    """Turns that the means of the players make about their centre in the second half of a run.

    A run to a stable equilibrium spirals inwards, and then goes about it at a distance of the standard error of the
    means. It circles if in the plane of the two largest principal components of all means it turns one way at least
    twice, far beyond that error, and the distance from the centre does not fall. Means on a torus are followed along
    the shortest way, but for whole turns of all particles.
    """

    def __init__(self, n_steps: int) -> None:
        self.every = max(1, n_steps // _LOOKS) if isinstance(n_steps, (int, np.integer)) and n_steps > 0 else 1
        self._means: list[NDArray[np.float64]] = []
        self._error = 0.0

    def on_start(self, state: State, n_steps: int) -> None:
        return

    def on_end(self, state: State) -> None:
        return

    def __call__(self, state: State, info: Info) -> None:
        clouds = [cloud.particles for cloud in state.clouds.values()]
        means = [cloud.mean(axis=-2, dtype=np.float64).reshape(len(cloud), -1) for cloud in clouds]
        self._means.append(np.concatenate(means, axis=1))
        # The largest over the run: a cloud that contracts has been as noisy as it was.
        errors = [np.std(cloud, axis=-2, dtype=np.float64).max() / np.sqrt(cloud.shape[-2]) for cloud in clouds]
        self._error = max(self._error, float(max(errors)))

    def turns(self) -> float:
        """Turns of the replicate that makes most; 0 where none circles."""
        half = np.array(self._means[len(self._means) // 2 :])
        if len(half) < _FEWEST:
            return 0.0
        return max(self._turns(half[:, r]) for r in range(half.shape[1]))

    def _turns(self, path: NDArray[np.float64]) -> float:
        centred = path - path.mean(axis=0)
        plane = np.linalg.svd(centred, full_matrices=False)[2][:2]
        if len(plane) < 2:
            return 0.0
        flat = centred @ plane.T
        radius = np.hypot(*flat.T)
        middle = len(radius) // 2
        before, after = (float(np.sqrt(np.mean(part**2))) for part in (radius[:middle], radius[middle:]))
        # A line is no circle: both directions count, and the centre is kept away from.
        spread = np.std(flat, axis=0).min()
        if after < _KEPT * before or spread < _ABOVE_NOISE * self._error or radius.min() < 0.1 * radius.max():
            return 0.0
        angles = np.diff(np.unwrap(np.arctan2(flat[:, 1], flat[:, 0])))
        turned = abs(float(angles.sum())) / (2 * np.pi)
        one_way = abs(angles.sum()) > 0.8 * np.abs(angles).sum()
        return turned if one_way and turned >= _TURNS else 0.0
