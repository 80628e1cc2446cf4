"""Clipped gradients: what one sample does to a step is bounded, and hidden in noise."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mfld import _core, validation
from mfld.gradients import GradientEstimator
from mfld.noise import Place
from mfld.objectives import EmpiricalRisk, Objective
from mfld.privacy import PrivacyWarning, secret
from mfld.state import Buffers
from mfld.validation import FloatArray

_MARGIN = 1e-5  # of the bound, for the rounding of lengths
_ROWS_OF_BLOCK = 48  # that are summed in the precision of the particles, on average


@dataclass(frozen=True)
class Clipped(GradientEstimator):
    """The gradient from samples each of which is bounded, with Gaussian noise: differentially private training.

    Each of the n samples is in the batch I with probability q; its gradient at all N particles is
    ``G_i = (l'(f_mu(z_i), y_i) grad h(theta_m, z_i))_m``, ``|G_i|**2 = (1/N) sum_m |G_im|**2``::

        (1 / (q n)) (sum_{i in I} min(1, C / |G_i|) G_im + s C sqrt(N) xi_m),     xi ~ N(0, I)

    Its sum has the sensitivity ``C sqrt(N)`` over all particles, where a sample's place in the table is emptied or
    filled; n is taken as public. A step of length h adds noise of the deviation ``sqrt(2 h T)`` to each coordinate,
    which counts like a noise multiplier of ``q n sqrt(2 T / (h N)) / C``: `MFLD.privacy_spent`. Batches and noise come
    from keys of the operating system's generator, so that no two runs are alike, and the noise is a whole number of
    units of 2**-30 of its deviation: low-order bits tell nothing. C is made smaller by what rounding may add, below a
    thousandth in float32. Losses in a history are NaN: they would tell of the samples. For a `TwoLayerNetwork` and a
    built-in loss lengths and sums are made by the core; other models take a gradient a sample. Source: Abadi et al.
    2016, "Deep learning with differential privacy".

    Parameters
    ----------
    max_norm : float
        Between 1e-8 and 1e8: C.
    noise_multiplier : float
        s: 0, with which only the noise of the dynamics protects, or between 1e-3 and 1e6.
    batch_rate : float
        q, between 1e-6 and 1.
    seed : int, optional
        For tests only: noise that can be made again protects nobody, and its steps cost an infinite epsilon.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; when a run starts, if the objective is no `EmpiricalRisk`,
        or has sample weights.

    Warns
    -----
    PrivacyWarning
        If a seed is given.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> X = np.random.default_rng(0).normal(size=(1000, 2))
    >>> risk = mfld.EmpiricalRisk(mfld.TwoLayerNetwork(2), X, np.sign(X[:, 0]), loss="logistic", l2=1e-3)
    >>> gradient = mfld.Clipped(max_norm=1.0, noise_multiplier=1.0, batch_rate=0.1)
    >>> result = mfld.MFLD(50, step_size=0.5, temperature=0.0, gradient=gradient).run(risk, n_steps=50)
    >>> bool(result.privacy_spent(1e-5) < 6)
    True
    """

    max_norm: float
    noise_multiplier: float
    batch_rate: float
    seed: int | None = None

    bounds_rows: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {
            "max_norm": validation.real("max_norm", self.max_norm, positive=True),
            "noise_multiplier": validation.real("noise_multiplier", self.noise_multiplier, non_negative=True),
            "batch_rate": validation.real("batch_rate", self.batch_rate, positive=True),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        for name, low, high in (("max_norm", 1e-8, 1e8), ("noise_multiplier", 1e-3, 1e6), ("batch_rate", 1e-6, 1)):
            if not low <= checked[name] <= high and not checked[name] == 0:
                raise ValueError(f"{name} must be between {low:g} and {high:g}, got {checked[name]:g}")
        if self.seed is not None:
            validation.seed(self.seed)
            warnings.warn(
                f"NOT PRIVATE: batches and noise are made from the seed {self.seed}", PrivacyWarning, stacklevel=3
            )

    def check(self, objective: Objective) -> None:
        risk = validation.instance("objective", objective, EmpiricalRisk, "an EmpiricalRisk for Clipped gradients")
        if risk.sample_weight is not None:
            raise ValueError("sample_weight must be left out for Clipped gradients: it is normalised by all rows")
        if risk.is_shared:
            raise ValueError("gradient must not be Clipped with Sharded: each process would draw noise of its own")

    def rows_of_a_step(self, objective: Objective) -> int | None:
        return max(1, round(self.batch_rate * (objective.n_samples or 1)))

    def loss(self, objective: Objective, particles: FloatArray, place: Place) -> float:
        return math.nan

    def noise_multipliers(
        self,
        objective: Objective,
        n_particles: int,
        scales: NDArray[np.float64],
        deviations: NDArray[np.float64],
    ) -> tuple[float, float, NDArray[np.float64]]:
        self.check(objective)
        assert objective.n_samples is not None
        of_dynamics = deviations * self.batch_rate * objective.n_samples / (scales * self.max_norm)
        of_dynamics = of_dynamics / math.sqrt(n_particles)
        if self.seed is not None:  # whoever has it knows the rows of each step, and takes the noise off
            return 1.0, 0.0, of_dynamics
        return self.batch_rate, self.noise_multiplier, of_dynamics

    def norms(self, objective: EmpiricalRisk, particles: FloatArray, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Lengths ``|G_i|`` of the gradients of some samples, shape (B,)."""
        return self._sum(objective, particles, rows, [len(rows)], math.inf)[0]

    def estimate(
        self, objective: Objective, particles: FloatArray, buffers: Buffers, place: Place
    ) -> tuple[FloatArray, Buffers]:
        assert isinstance(objective, EmpiricalRisk)
        n, at = objective.n_samples, (place.key, place.step, place.population)
        rows = secret.sampled(n, self.batch_rate, secret.key(self.seed, "rows", *at))
        n_blocks = max(1, round(self.batch_rate * n / _ROWS_OF_BLOCK))
        # By places in the table, so that a row more or less changes one block and no other.
        ends = np.searchsorted(rows, n * np.arange(1, n_blocks + 1) // n_blocks)
        bound = self.max_norm * (1 - self._rounding(particles, objective.n_moving, ends))
        gradient = self._sum(objective, particles, rows, ends.tolist(), bound)[1]
        if self.noise_multiplier > 0:
            deviation = self.noise_multiplier * self.max_norm * math.sqrt(len(particles))
            moving = np.ascontiguousarray(gradient[:, : objective.n_moving])
            own_key = secret.key(self.seed, "noise", *at)
            gradient[:, : objective.n_moving] = secret.noisy(moving, deviation, own_key, place.threads)
        return (gradient / (self.batch_rate * n)).astype(particles.dtype), {}

    def _rounding(self, particles: FloatArray, n_moving: int, ends: NDArray[np.int64]) -> float:
        """Share of the bound by which sums of neighbouring tables may differ beside it.

        A sum of b vectors, one after the other in an arithmetic of unit roundoff u, is off by ``b u`` times the sum of
        their lengths at most: twice, with and without a row. The grid of the noise adds half a unit to each number, and
        that twice.
        """
        most = int(np.diff(ends, prepend=0).max())
        of_sums = most**2 * float(np.finfo(particles.dtype).eps)
        of_grid = self.noise_multiplier * math.sqrt(len(particles) * n_moving) / secret.UNITS
        share = _MARGIN + of_sums + of_grid
        if share > 0.1:
            raise ValueError(f"noise_multiplier must be smaller for so many particles, got {self.noise_multiplier:g}")
        return share

    @staticmethod
    def _sum(
        objective: EmpiricalRisk, particles: FloatArray, rows: NDArray[np.int64], ends: list[int], bound: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lengths of the gradients of samples, and the sum of these once they are cut to the bound."""
        threads = validation.num_threads(objective.num_threads)
        problem = objective.native(particles.dtype)
        if problem is not None:
            inputs, targets = problem.inputs[rows], problem.targets[rows]
            return _core.backend.pull_back_clipped(
                problem.network, problem.loss, particles, inputs, targets, ends, bound, threads
            )
        wide = particles.astype(np.float64)
        norms, total = np.zeros(len(rows)), np.zeros(wide.shape)
        for i, row in enumerate(rows):  # so that memory is that of one gradient
            derivative = np.asarray(objective.derivative(wide, [row])[0], np.float64)
            inputs = objective.inputs[[row]].astype(np.float64)
            gradient = objective.model.pull_back(wide, inputs, derivative, threads)[1]
            norms[i] = math.sqrt(float(np.einsum("mj,mj->", gradient, gradient)) / len(wide))
            if math.isfinite(norms[i]):
                total += gradient * min(1.0, bound / norms[i] if norms[i] > 0 else 1.0)
        return norms, total
