"""Stein variational importance sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from mfld import noise, schedules, validation
from mfld.algorithms.base import Algorithm
from mfld.algorithms.replicates import advance_each
from mfld.errors import DivergenceError
from mfld.floating import underflow_is_zero
from mfld.kernels import Gaussian, Radial
from mfld.objectives import Objective, Potential
from mfld.schedules import Scheduled
from mfld.state import Cloud, Info, State
from mfld.validation import FloatArray

_PAIRS = 1 << 18  # of followers and leaders at a time


class Normaliser(NamedTuple):
    """Estimate of the logarithm of a normalising constant.

    ``standard_error`` is that of the logarithm, from the spread of the weights: it means little where
    ``effective_sample_size`` is small, since what was not visited is not seen.
    """

    log_normaliser: float
    standard_error: float
    effective_sample_size: float


@dataclass(frozen=True)
class SVIS(Algorithm):
    """Stein variational importance sampling: leaders make a map by SVGD, followers are carried along with densities.

    Leaders and followers are independent draws of ``N(0, initial_scale**2 I)``. A step moves both by the same map::

        theta <- theta + step_size * phi(theta),    phi = mean over leaders of -k(theta, l) b(l) + T grad_l k(theta, l)

    with b the gradient, ridge included, and T the temperature, as `SVGD` does. Given the leaders, the followers are
    independent and their density q is known, ``log q <- log q - log |det(I + step_size * grad phi(theta))|``, so that
    ``w = exp(-(V + l2 |theta|**2) / T) / q`` are importance weights: their mean estimates the normalising constant
    without bias, and weighted means of the followers those of the Gibbs law. A step costs ``N_L (N_L + N_F)`` pairs
    with ``p**2`` numbers each, and N_F determinants. Source: Han, Liu 2017, "Stein variational adaptive importance
    sampling".

    Parameters
    ----------
    n_particles : int
        Followers N_F.
    n_leaders : int
        N_L. The map is that of so many particles: it should be good, while followers make the error small.
    step_size : float or Schedule or callable
        So small that the map is invertible; where a determinant is seen not to be positive, it is refused.
    temperature : float
        T, positive.
    initial_scale : float
        Positive. Rather too wide than too narrow: where q is small and the Gibbs law is not, weights are large.
    kernel : Radial
        Kernel of the distance with two derivatives. Default: a Gaussian with the median distance of the leaders.
    dtype, num_threads, n_replicates
        As in `MFLD`. Densities are float64.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; during a run, if a step size is too large for the map.

    Notes
    -----
    ``result.measure`` has the followers with their weights. The state's buffers: ``leaders``, shape (R, N_L, p);
    ``log_density`` and ``log_weights`` of the followers, shape (R, N_F).

    Examples
    --------
    >>> import mfld
    >>> well = mfld.potentials.Gaussian([1.0, 0.0], [[1.0, 0.5], [0.5, 1.0]])
    >>> solver = mfld.SVIS(500, n_leaders=50, step_size=0.3, temperature=1.0, initial_scale=2.0, dtype="float64")
    >>> result = solver.run(well, n_steps=50)
    >>> estimate = solver.normaliser(well, result.state)
    >>> bool(abs(estimate.log_normaliser - well.log_normaliser()) < 4 * estimate.standard_error)
    True
    """

    n_particles: int = 1000
    _: KW_ONLY
    n_leaders: int = 100
    step_size: Scheduled
    temperature: float
    initial_scale: float = 1.0
    kernel: Radial = field(default_factory=Gaussian)
    dtype: DTypeLike = "float32"
    num_threads: int | None = None
    n_replicates: int = 1

    def __post_init__(self) -> None:
        checked = {
            "n_particles": validation.integer("n_particles", self.n_particles, 1),
            "n_leaders": validation.integer("n_leaders", self.n_leaders, 2),
            "step_size": schedules.check("step_size", self.step_size, positive=True),
            "temperature": validation.real("temperature", self.temperature, positive=True),
            "initial_scale": validation.real("initial_scale", self.initial_scale, positive=True),
            "dtype": validation.float_dtype("dtype", self.dtype).name,
            "n_replicates": validation.integer("n_replicates", self.n_replicates, 1),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        validation.instance("kernel", self.kernel, Radial, "a Radial kernel, like kernels.Gaussian()")
        self.kernel.check_derivatives(2)
        validation.num_threads(self.num_threads)

    @underflow_is_zero
    def init(
        self,
        objective: Objective,
        seed: int = 0,
        particles: ArrayLike | None = None,
        *,
        replica: int | Sequence[int] = 0,
    ) -> State:
        """State before the first step; arguments as in `MFLD.init`, but that particles cannot be given.

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind, or particles are given: their density would not be known.
        """
        self.check(objective)
        if particles is not None:
            raise ValueError("particles must be left out for SVIS, which needs the density that they are drawn from")
        seed, replicas = validation.seed(seed), noise.replicas(replica, self.n_replicates)
        p, scale = objective.n_coordinates, self.initial_scale
        n = self.n_leaders + self.n_particles
        places = [noise.initial(seed, number, self.num_threads) for number in replicas]
        normals = np.stack([place.normals(n, p, self.dtype, "init") for place in places])
        leaders, followers = np.split(scale * normals, [self.n_leaders], axis=1)
        square = np.sum((followers.astype(np.float64) / scale) ** 2, axis=-1)
        buffers = {
            "leaders": leaders.astype(self.dtype),
            "log_density": -square / 2 - p * math.log(scale * math.sqrt(2 * math.pi)),
        }
        return self._state(objective, followers.astype(self.dtype), buffers, 0, seed, replicas)

    @underflow_is_zero
    def advance(self, objective: Objective, state: State, n_steps: int = 1) -> tuple[State, Info]:
        """Make steps; arguments and errors as in `MFLD.advance`."""
        validation.instance("state", state, State, "a State")
        self.check(objective, state)
        n_steps = validation.integer("n_steps", n_steps, 0, validation.MAX_STEP - state.step)
        objective = objective.on_threads(self.num_threads)
        return advance_each(lambda single: self._step(objective, single), state, n_steps)

    def check(self, objective: Objective, state: State | None = None) -> None:
        potential = validation.instance("objective", objective, Objective, "a Potential")
        if not potential.linear or not potential.has_value:
            raise ValueError(f"objective must be a Potential with a value for SVIS, got {potential!r}")
        if not potential.space.flat or potential.n_moving < potential.n_coordinates:
            raise ValueError(f"objective must move all coordinates of Euclidean space for SVIS, got {potential.space}")
        if state is None:
            potential.check()
            return
        state = self._first_replicate(objective, state, self.dtype, may_be_weighted=True)
        n = state.particles.shape[0]
        expected = {"leaders": ("N_L", potential.n_coordinates), "log_density": (n,), "log_weights": (n,)}
        for name, shape in expected.items():
            if name not in state.buffers:
                raise ValueError(f"state must come from SVIS: it has no buffer {name}")
            validation.shape(f"state.buffers[{name!r}]", state.buffers[name][0], shape, "to suit the objective")

    def normaliser(self, objective: Objective, state: State) -> Normaliser:
        """Logarithm of ``integral exp(-(V + l2 |theta|**2) / T)``, its standard error and the effective sample size.

        All followers of all replicates are used, as one sample.

        Raises
        ------
        TypeError, ValueError
            If the state is none of this solver and objective.
        """
        validation.instance("state", state, State, "a State")
        self.check(objective, state)
        logs = np.asarray(state.buffers["log_weights"], np.float64).ravel()
        top = float(logs.max())
        weights = np.exp(logs - top)
        size = float(weights.sum() ** 2 / np.sum(weights**2))
        error = math.sqrt(max(0.0, 1 / size - 1 / len(weights)))
        return Normaliser(top + math.log(float(weights.mean())), error, size)

    def _step(self, objective: Objective, state: State) -> tuple[State, Info]:
        h = float(schedules.values("step_size", self.step_size, state.step, 1)[0])
        followers = state.particles.astype(np.float64)
        leaders = np.asarray(state.buffers["leaders"][0], np.float64)
        gradient = objective.gradient(leaders)
        kernel = self.kernel.fitted(leaders)
        threads = validation.num_threads(self.num_threads)
        moved_leaders = leaders + h * kernel.field(
            leaders, leaders, -gradient, repulsion=self.temperature, num_threads=threads
        )
        field, log_det, bad = _carried(kernel, followers, leaders, -gradient, self.temperature, h)
        if bad is not None:
            raise ValueError(
                f"step_size must be smaller than {h:g} at step {state.step}: there the map of the leaders turns space "
                f"inside out, at particle {bad}"
            )
        moved = (followers + h * field).astype(self.dtype)
        finite = np.isfinite(moved).all(axis=1)
        if not finite.all() or not np.isfinite(moved_leaders).all():
            raise DivergenceError(state.step, int(np.argmin(finite)), h, state)
        buffers = {
            "leaders": moved_leaders.astype(self.dtype)[np.newaxis],
            "log_density": state.buffers["log_density"] - log_det[np.newaxis],
        }
        reached = self._state(objective, moved[np.newaxis], buffers, state.step + 1, state.seed, state.replica)
        norm = float(np.sqrt(np.mean(np.sum(gradient**2, axis=1))))
        loss = objective.loss(state.measure)
        return reached, Info(1, loss, norm, h, self.temperature, objective.l2)

    def _state(
        self,
        objective: Objective,
        followers: FloatArray,
        buffers: dict[str, FloatArray],
        step: int,
        seed: int,
        replica: int | tuple[int, ...],
    ) -> State:
        """With the weights at the followers, shape (R, N_F, p)."""
        potential: Potential = objective.first_variation(followers[0])
        energy = np.stack([potential(own.astype(np.float64)) for own in followers])
        logs = -energy / self.temperature - buffers["log_density"]
        weights = np.exp(logs - logs.max(axis=1, keepdims=True))
        weights = (weights / weights.sum(axis=1, keepdims=True)).astype(self.dtype)
        return State({"mu": Cloud(followers, weights)}, step, seed, {**buffers, "log_weights": logs}, replica)


def _carried(
    kernel: Radial, x: FloatArray, leaders: FloatArray, vectors: FloatArray, temperature: float, h: float
) -> tuple[FloatArray, FloatArray, int | None]:
    """phi at points, ``log det(I + h grad phi)``, and the first point where that is not positive, or None."""
    n, p = x.shape
    scale = 1 / kernel.lengths(p)
    fields, logs = np.empty_like(x), np.empty(n)
    count = max(1, _PAIRS // len(leaders))
    for first in range(0, n, count):
        part = slice(first, first + count)
        d = (x[part, np.newaxis] - leaders) * scale
        value, slope, curvature, *_ = kernel.profile(np.sum(d**2, axis=-1))
        d *= scale  # half the gradient of s in x
        fields[part] = value @ vectors - 2 * temperature * np.einsum("fl,fla->fa", slope, d)
        # d/dx_b of [k v_a - 2 T slope d_a]
        jacobian = np.einsum("la,flb->fab", vectors, 2 * slope[..., np.newaxis] * d)
        jacobian -= 4 * temperature * np.einsum("fla,flb->fab", curvature[..., np.newaxis] * d, d)
        jacobian -= 2 * temperature * slope.sum(axis=1)[:, np.newaxis, np.newaxis] * np.diag(scale**2)
        fields[part] /= len(leaders)
        sign, logs[part] = np.linalg.slogdet(np.eye(p) + h / len(leaders) * jacobian)
        if not (sign > 0).all():
            return fields, logs, first + int(np.argmin(sign > 0))
    return fields, logs, None
