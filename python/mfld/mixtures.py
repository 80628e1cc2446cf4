"""Gaussian mixtures as values: weights, means and covariances."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mfld import linear, validation
from mfld.validation import FloatArray

__all__ = ["GaussianMixture"]


@dataclass(frozen=True, eq=False, init=False)
class GaussianMixture:
    """Mixture ``sum_k weights_k N(means_k, covariances_k)``.

    Parameters
    ----------
    weights : array_like, shape (K,), or None
        At least 0, normalised to sum 1; None stands for 1/K each.
    means : array_like, shape (K, p)
    covariances : float or array_like, shape (K, p, p)
        Symmetric and positive definite. A number s stands for s I for all.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or shape, or a covariance not positive definite.

    Examples
    --------
    >>> from mfld.mixtures import GaussianMixture
    >>> mixture = GaussianMixture([1, 3], means=[[0.0], [2.0]], covariances=0.25)
    >>> mixture.log_density([[2.0]]).round(4)
    array([-0.5134])
    """

    weights: FloatArray
    means: FloatArray
    covariances: FloatArray

    def __init__(self, weights: ArrayLike | None, means: ArrayLike, covariances: float | ArrayLike) -> None:
        centres = validation.array("means", means, np.float64)
        validation.shape("means", centres, ("K", "p"))
        n_modes, p = centres.shape
        given = validation.array("covariances", covariances, np.float64)
        if given.ndim == 0:
            given = np.broadcast_to(float(given) * np.eye(p), (n_modes, p, p))
        validation.shape("covariances", given, (n_modes, p, p), "(modes, coordinates, coordinates)")
        even = np.full(n_modes, 1 / n_modes) if weights is None else weights
        object.__setattr__(
            self,
            "weights",
            validation.frozen(validation.weights("weights", even, (n_modes,), "to match means", np.float64)),
        )
        object.__setattr__(self, "means", validation.frozen(centres))
        object.__setattr__(self, "covariances", validation.frozen(given))
        for k, covariance in enumerate(self.covariances):
            _factor(f"covariances[{k}]", covariance)

    def __repr__(self) -> str:
        n_modes, p = self.means.shape
        return f"GaussianMixture({n_modes} mode{'s' if n_modes > 1 else ''} of {p} coordinate{'s' if p > 1 else ''})"

    @property
    def n_coordinates(self) -> int:
        """Coordinates p of a point."""
        return int(self.means.shape[1])

    def widened(self, variance: float | FloatArray) -> GaussianMixture:
        """The law of a point plus independent noise ``N(0, diag(variance))``, one number or one a coordinate."""
        extra = np.broadcast_to(np.asarray(variance, np.float64), (self.n_coordinates,))
        return GaussianMixture(self.weights, self.means, self.covariances + np.diag(extra))

    def log_terms(self, points: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """``log(weights_k N(x; k))``, shape (K, n), and their gradients in x, shape (K, n, p)."""
        x = validation.array("points", points)
        validation.shape("points", x, ("n", self.n_coordinates), "to match the mixture")
        logs = np.empty((len(self.weights), len(x)), x.dtype)
        slopes = np.empty((len(self.weights), *x.shape), x.dtype)
        for k, (mean, covariance) in enumerate(zip(self.means, self.covariances, strict=True)):
            factor = _factor("covariances", covariance)
            offset = x - mean.astype(x.dtype)
            pull = np.einsum("ij,nj->ni", linear.inverse(factor).astype(x.dtype), offset)
            scale = -np.sum(np.log(np.diag(factor))) - self.n_coordinates / 2 * math.log(2 * math.pi)
            with np.errstate(divide="ignore"):  # a weight of 0
                scale += np.log(self.weights[k])
            logs[k] = x.dtype.type(scale) - np.sum(offset * pull, axis=1) / 2
            slopes[k] = -pull
        return logs, slopes

    def log_density(self, points: ArrayLike) -> FloatArray:
        """Logarithm of the density at points, shape (n, p) -> (n,)."""
        with np.errstate(over="ignore"):
            logs, _ = self.log_terms(points)
        top = logs.max(axis=0)
        top = np.where(np.isneginf(top), 0, top)  # where squares are out of range
        with np.errstate(divide="ignore"):
            return np.asarray(top + np.log(np.sum(np.exp(logs - top), axis=0)))


def _factor(name: str, covariance: FloatArray) -> FloatArray:
    """Cholesky factor of a covariance, once it is known to be one."""
    if np.abs(covariance - covariance.T).max() > 1e-9 * np.abs(covariance).max():
        raise ValueError(f"{name} must be symmetric, got {covariance.tolist()}")
    try:
        return linear.cholesky(covariance)
    except ValueError:
        raise ValueError(f"{name} must be positive definite, got {covariance.tolist()}") from None
