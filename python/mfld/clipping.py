"""Clipped gradients: what one sample does to a step is bounded, and hidden in noise."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfld import validation
from mfld.gradients import GradientEstimator
from mfld.noise import Place
from mfld.objectives import EmpiricalRisk, Objective
from mfld.privacy import PrivacyWarning
from mfld.state import Buffers
from mfld.validation import FloatArray

_BELOW = 1 - 1e-5  # so that rounding makes no gradient longer than the bound


@dataclass(frozen=True)
class Clipped(GradientEstimator):
    """The gradient from samples each of which is bounded, with Gaussian noise: differentially private training.

    Each of the n samples is in the batch I with probability q; its gradient at all N particles is
    ``G_i = (l'(f_mu(z_i), y_i) grad h(theta_m, z_i))_m``, ``|G_i|**2 = (1/N) sum_m |G_im|**2``::

        (1 / (q n)) (sum_{i in I} min(1, C / |G_i|) G_im + s C sqrt(N) xi_m),     xi ~ N(0, I)

    Its sum has the sensitivity ``C sqrt(N)`` over all particles, where a sample is added or removed; n is taken as
    public. A step of length h adds noise of the deviation ``sqrt(2 h T)`` to each coordinate, which counts like a noise
    multiplier of ``q n sqrt(2 T / (h N)) / C``: `MFLD.privacy_spent`. Batches and noise come from the operating
    system's generator, so that no two runs are alike; noise is in floating point, whose low-order bits are not
    protected. Losses in a history are NaN: they would tell of the samples. Source: Abadi et al. 2016, "Deep learning
    with differential privacy".

    Parameters
    ----------
    max_norm : float
        Positive: C.
    noise_multiplier : float
        At least 0: s. With 0 only the noise of the dynamics protects.
    batch_rate : float
        q, above 0 and at most 1.
    seed : int, optional
        For tests only: noise that can be made again protects nobody.

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

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {
            "max_norm": validation.real("max_norm", self.max_norm, positive=True),
            "noise_multiplier": validation.real("noise_multiplier", self.noise_multiplier, non_negative=True),
            "batch_rate": validation.real("batch_rate", self.batch_rate, positive=True),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.batch_rate > 1:
            raise ValueError(f"batch_rate must be at most 1, got {self.batch_rate:g}")
        if self.seed is not None:
            validation.seed(self.seed)
            warnings.warn(
                f"NOT PRIVATE: batches and noise are made from the seed {self.seed}", PrivacyWarning, stacklevel=3
            )

    def check(self, objective: Objective) -> None:
        risk = validation.instance("objective", objective, EmpiricalRisk, "an EmpiricalRisk for Clipped gradients")
        if risk.sample_weight is not None:
            raise ValueError("sample_weight must be left out for Clipped gradients: it is normalised by all rows")

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
    ) -> tuple[float, NDArray[np.float64]]:
        self.check(objective)
        assert objective.n_samples is not None
        of_dynamics = deviations * self.batch_rate * objective.n_samples / (scales * self.max_norm)
        return self.batch_rate, np.hypot(self.noise_multiplier, of_dynamics / math.sqrt(n_particles))

    def norms(self, objective: EmpiricalRisk, particles: FloatArray, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Lengths ``|G_i|`` of the gradients of some samples, shape (B,)."""
        inputs, derivative = self._samples(objective, particles, rows)
        threads = validation.num_threads(objective.num_threads)
        found = np.empty(len(rows))
        for i in range(len(rows)):  # so that memory is that of one gradient
            gradient = objective.model.pull_back(particles, inputs[i : i + 1], derivative[i : i + 1], threads)[1]
            found[i] = math.sqrt(float(np.einsum("mj,mj->", gradient, gradient, dtype=np.float64)) / len(particles))
        return found

    def estimate(
        self, objective: Objective, particles: FloatArray, buffers: Buffers, place: Place
    ) -> tuple[FloatArray, Buffers]:
        assert isinstance(objective, EmpiricalRisk)
        random = np.random.default_rng(None if self.seed is None else [self.seed, place.step])
        n = objective.n_samples
        rows = np.flatnonzero(random.random(n) < self.batch_rate)
        gradient = np.zeros_like(particles)
        if len(rows):
            inputs, derivative = self._samples(objective, particles, rows)
            norms = self.norms(objective, particles, rows)
            share = np.minimum(1, _BELOW * self.max_norm / np.maximum(norms, 1e-300)).astype(derivative.dtype)
            threads = validation.num_threads(objective.num_threads)
            cotangent = share[:, np.newaxis] * derivative
            gradient = np.array(objective.model.pull_back(particles, inputs, cotangent, threads)[1])
        deviation = self.noise_multiplier * self.max_norm * math.sqrt(len(particles))
        moving = gradient[:, : objective.n_moving]
        moving += (deviation * random.standard_normal(moving.shape)).astype(gradient.dtype)
        return gradient / gradient.dtype.type(self.batch_rate * n), {}

    @staticmethod
    def _samples(
        objective: EmpiricalRisk, particles: FloatArray, rows: NDArray[np.int64]
    ) -> tuple[FloatArray, FloatArray]:
        derivative = objective.derivative(particles, rows)[0]
        return objective.inputs[rows].astype(particles.dtype), derivative.astype(particles.dtype)
