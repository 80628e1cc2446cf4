"""Posteriors that are sampled as potentials."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import validation
from mfld.likelihoods import Likelihood
from mfld.objectives.base import Potential, SetOnce
from mfld.potentials import OverSamples
from mfld.validation import FloatArray

# Effects of coaching on test scores and their standard errors: Rubin 1981, "Estimation in parallel randomized
# experiments", table 1.
_EFFECTS = (28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0)
_ERRORS = (15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0)


class Posterior(SetOnce, OverSamples):
    """Posterior of one parameter: ``V = -sum_i log p(y_i | theta)``, the prior N(0, prior_variance I) as the ridge.

    At temperature 1 the Gibbs law is the posterior. A sum over observations: from a batch of B rows it is estimated by
    n / B times their sum, so that mini-batches and variance reduction suit it.

    Parameters
    ----------
    likelihood : mfld.likelihoods.Likelihood
    prior_variance : float
        Positive: ``l2 = 1 / (2 prior_variance)``.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import likelihoods, posteriors
    >>> posterior = posteriors.Posterior(likelihoods.Gaussian([[1.0], [3.0]]), prior_variance=2.0)
    >>> posterior.gradient([[0.0]])                     # 0 at the mean 4 / (2 + 1/2)
    array([[-4.]])
    >>> posterior.gradient([[1.6]]).round(12)
    array([[0.]])
    """

    def __init__(self, likelihood: Likelihood, *, prior_variance: float = 1.0) -> None:
        expected = "a Likelihood, like mfld.likelihoods.Gaussian(samples)"
        self.likelihood = validation.instance("likelihood", likelihood, Likelihood, expected)
        self.n_samples = validation.integer("likelihood.n_samples", likelihood.n_samples, 1)
        self.prior_variance = validation.real("prior_variance", prior_variance, positive=True)
        if not np.isfinite(1 / self.prior_variance):
            raise ValueError(f"prior_variance must have a finite inverse, got {self.prior_variance}")
        super().__init__(
            self._whole_sum,
            self._whole_total,
            n_coordinates=validation.integer("likelihood.n_coordinates", likelihood.n_coordinates, 1),
            l2=1 / (2 * self.prior_variance),
        )

    def __repr__(self) -> str:
        return f"Posterior({self.likelihood!r}, prior_variance={self.prior_variance:g})"

    def _whole_total(self, points: FloatArray) -> FloatArray:
        return self._total(points, np.arange(self.n_samples))

    def _whole_sum(self, points: FloatArray) -> FloatArray:
        return self._sum(points, np.arange(self.n_samples))

    def _total(self, points: FloatArray, rows: NDArray[np.int64]) -> FloatArray:
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # a run finds what is not finite
            logs = self.likelihood.log_density(points, rows)
        return np.asarray(-np.sum(logs, axis=1, dtype=np.float64), points.dtype)

    def _sum(self, points: FloatArray, rows: NDArray[np.int64]) -> FloatArray:
        minus = np.full((len(points), len(rows)), -1, points.dtype)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            return self.likelihood.pull_back(points, minus, rows)


class EightSchools(SetOnce, Potential):
    """Hierarchical model of effects with known errors, by default those of eight schools; not centred.

    Effects ``y_j ~ N(theta_j, errors_j**2)`` around ``theta_j = mu + tau eta_j``, with ``eta_j ~ N(0, 1)``,
    ``mu ~ N(0, scale**2)`` and ``tau`` half Cauchy of that scale. Particles are
    ``(mu / scale, log(tau / scale), eta_1, ..., eta_J)``, of whose densities the Jacobian is part: ``log(tau / scale)``
    has the density ``1 / (pi cosh x)``. Source: Rubin 1981, "Estimation in parallel randomized experiments"; the form
    and the priors of the posterior database's eight_schools_noncentered (Magnusson and others 2024).

    Parameters
    ----------
    effects, errors : array_like, shape (J,)
        By default those of the eight schools. Errors are positive.
    scale : float
        Positive; of the priors.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or range.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import posteriors
    >>> schools = posteriors.EightSchools()
    >>> schools.n_coordinates
    10
    >>> values = schools.variables(np.zeros((1, 10)))
    >>> values["mu"], values["tau"], values["theta"].shape
    (array([0.]), array([5.]), (1, 8))
    """

    def __init__(self, effects: ArrayLike = _EFFECTS, errors: ArrayLike = _ERRORS, *, scale: float = 5.0) -> None:
        given = validation.array("effects", effects, np.float64)
        validation.shape("effects", given, ("J",))
        known = validation.array("errors", errors, np.float64)
        validation.shape("errors", known, given.shape, "to match effects")
        if not (known > 0).all() or not np.isfinite(known**-2.0).all():
            raise ValueError(f"errors must be positive, and their inverse squares finite; got {known.min()}")
        self.effects, self.errors = validation.frozen(given), validation.frozen(known)
        self.scale = validation.real("scale", scale, positive=True)
        super().__init__(self._slope, self._energy, n_coordinates=2 + len(given))

    def __repr__(self) -> str:
        return f"EightSchools({len(self.effects)} effects, scale={self.scale:g})"

    def variables(self, points: ArrayLike) -> dict[str, FloatArray]:
        """Values of mu and tau, shape (M,), and theta, shape (M, J), at points of shape (M, 2 + J)."""
        mu, tau, eta = self._unpacked(self.cloud(points).particles)
        return {"mu": mu, "tau": tau, "theta": mu[:, np.newaxis] + tau[:, np.newaxis] * eta}

    def _unpacked(self, points: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        with np.errstate(over="ignore", under="ignore"):
            return self.scale * points[:, 0], self.scale * np.exp(points[:, 1]), points[:, 2:]

    def _residuals(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Residuals over the errors, shape (M, J), and tau, shape (M, 1)."""
        mu, tau, eta = self._unpacked(points)
        theta = mu[:, np.newaxis] + tau[:, np.newaxis] * eta
        return (self.effects.astype(points.dtype) - theta) / self.errors.astype(points.dtype), tau[:, np.newaxis]

    def _energy(self, points: FloatArray) -> FloatArray:
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            residuals, _ = self._residuals(points)
            squares = points[:, 0] ** 2 + np.sum(points[:, 2:] ** 2, axis=1) + np.sum(residuals**2, axis=1)
            return np.asarray(squares / 2 + np.logaddexp(points[:, 1], -points[:, 1]))

    def _slope(self, points: FloatArray) -> FloatArray:
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            residuals, tau = self._residuals(points)
            pulls = residuals / self.errors.astype(points.dtype)
            gradient = points.copy()
            gradient[:, 0] -= self.scale * np.sum(pulls, axis=1)
            gradient[:, 1] = np.tanh(points[:, 1]) - tau[:, 0] * np.sum(pulls * points[:, 2:], axis=1)
            gradient[:, 2:] -= tau * pulls
            return gradient
