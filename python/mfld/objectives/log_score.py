"""The log score of a mixture: how well particles, taken together, predict what was observed."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import references, validation
from mfld.likelihoods import Likelihood
from mfld.objectives.base import Measure, Objective, Potential, SetOnce
from mfld.references import Reference
from mfld.space import Space
from mfld.state import Cloud
from mfld.validation import FloatArray

_ENTRIES = 1 << 21  # of a table of particles and rows that is held at a time


class LogScore(SetOnce, Objective):
    """Mean log score of a mixture, ``F(mu) = -sum_i s_i log E_mu p(y_i | theta) + l2 E_mu |theta|**2``; convex in mu.

    Where a posterior asks which single theta made all observations, this asks which mixture of them predicts best: the
    maximum likelihood of a mixing measure, which the temperature regularises. With the weights ``s_i = 1 / n``, the
    temperature ``1 / n`` and ``l2 = 1 / (2 n v)`` the algorithms minimise::

        -(1 / n) sum_i log E_mu p(y_i | theta) + (1 / n) KL(mu | N(0, v I))

    the predictively oriented posterior. Its first variation is ``-sum_i s_i r_i(theta) + l2 |theta|**2`` with the
    *responsibility* ``r_i(theta) = p(y_i | theta) / E_mu p(y_i | .)``, a mean over observations: mini-batches and
    variance reduction suit it. All is computed from logarithms of densities, so that none underflows.

    How many particles? N independent draws from mu in place of mu raise the loss, by a Taylor expansion of the
    logarithm, by::

        E F(mu_N) - F(mu)  ~  1 / (2 N) sum_i s_i Var_mu(r_i)

    so that ``sum_i s_i Var_mu(r_i) / (2 tolerance)`` of them are within a tolerance, in nats an observation. The sum is
    0 where one theta explains all, and grows as observations are explained by fewer particles each;
    `particles_needed` estimates it from any cloud.

    Source: McLatchie, Chérief-Abdellatif, Frazier, Knoblauch 2025, "Predictively oriented posteriors"; without the
    regularisation Kiefer, Wolfowitz 1956, "Consistency of the maximum likelihood estimator in the presence of
    infinitely many incidental parameters".

    Parameters
    ----------
    likelihood : mfld.likelihoods.Likelihood
        One of `mfld.likelihoods`, or your own.
    l2 : float
        Coefficient of the ridge (no factor 1/2).
    sample_weight : array_like, shape (n,), optional
        At least 0; normalised to the weights s of sum 1. Default: 1/n each.
    space, reference
        In place of the likelihood's number of coordinates and of l2, as in `mfld.Potential`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or range; later, if a log-density is +inf or NaN, or one observation
        has the density 0 under all particles.

    Examples
    --------
    Two groups, of which no single mean predicts both:

    >>> import numpy as np
    >>> import mfld
    >>> rng = np.random.default_rng(0)
    >>> samples = np.concatenate([rng.normal(-2, 1, 150), rng.normal(2, 1, 50)])[:, np.newaxis]
    >>> score = mfld.LogScore(mfld.likelihoods.Gaussian(samples, scale=1.0), l2=1e-4)
    >>> solver = mfld.MFLD(n_particles=200, step_size=0.3, temperature=1 / 200)
    >>> result = solver.run(score, n_steps=300)
    >>> round(float(np.mean(result.particles > 0)), 1)         # the share of the second group is 1/4
    0.3
    >>> score.loss(result.measure) < score.loss([[samples.mean()]]) - 0.2
    True
    """

    def __init__(
        self,
        likelihood: Likelihood,
        *,
        l2: float = 0.0,
        sample_weight: ArrayLike | None = None,
        space: Space | None = None,
        reference: Reference | None = None,
    ) -> None:
        expected = "a Likelihood, like mfld.likelihoods.Gaussian(samples)"
        self.likelihood = validation.instance("likelihood", likelihood, Likelihood, expected)
        self.n_samples = validation.integer("likelihood.n_samples", likelihood.n_samples, 1)
        p = validation.integer("likelihood.n_coordinates", likelihood.n_coordinates, 1)
        if space is None:
            space = Space(p)
        elif validation.instance("space", space, Space, "a Space, like Space(3)").n_coordinates != p:
            raise ValueError(f"space must have {p} coordinates to suit the likelihood, got {space.n_coordinates}")
        self.space = space
        self.reference = references.given(l2, reference, space)
        weights = np.full(self.n_samples, 1 / self.n_samples)
        if sample_weight is not None:
            why = "to match the observations"
            weights = validation.weights("sample_weight", sample_weight, weights.shape, why, np.float64)
        self.sample_weight = validation.frozen(weights)

    def __repr__(self) -> str:
        return f"LogScore({self.likelihood!r}, {self.reference!r})"

    def loss(self, measure: Measure) -> float:
        return -float(np.sum(self.sample_weight * self.log_predictive(measure)))

    def log_predictive(self, measure: Measure) -> NDArray[np.float64]:
        """Log density of each observation under the mixture, ``log E_mu p(y_i | theta)``, shape (n,).

        Parameters
        ----------
        measure : Cloud or array_like, shape (N, n_coordinates)
        """
        return self._log_mixture(self.cloud(measure), self._rows(None)).astype(np.float64)

    def loss_gradient(self, measure: Measure, batch: ArrayLike | None = None) -> FloatArray:
        cloud = self.cloud(measure)
        gradient = np.zeros_like(cloud.particles)
        for rows, responsibilities in self._responsibilities(cloud, self._rows(batch)):
            cotangent = -responsibilities * self._shares(rows, batch).astype(gradient.dtype)
            gradient += self.likelihood.pull_back(cloud.particles, cotangent, rows)
        gradient[:, self.n_moving :] = 0
        return gradient

    def first_variation(self, measure: Measure, batch: ArrayLike | None = None) -> Potential:
        every = self._rows(batch)
        log_mixture = self._log_mixture(self.cloud(measure), every)

        def value_and_gradient(points: FloatArray) -> tuple[FloatArray, FloatArray]:
            values, gradient = np.zeros(len(points), points.dtype), np.zeros_like(points)
            for piece in _pieces(len(points), len(every)):
                rows = every[piece]
                # Away from all particles a ratio may be infinite.
                with np.errstate(over="ignore", under="ignore", invalid="ignore"):
                    ratios = np.exp(self._log_density(points, rows) - log_mixture[piece].astype(points.dtype))
                    cotangent = -ratios * self._shares(rows, batch).astype(points.dtype)
                    values += np.sum(cotangent, axis=1)
                    gradient += self.likelihood.pull_back(points, cotangent, rows)
            return values, gradient

        return Potential(
            lambda points: value_and_gradient(points)[1],
            lambda points: value_and_gradient(points)[0],
            value_and_gradient=value_and_gradient,
            space=self.space,
            reference=self.reference,
        )

    def particles_needed(self, measure: Measure, tolerance: float = 0.01) -> int:
        """Number of particles at which a finite cloud costs about ``tolerance`` nats an observation; see the class.

        Parameters
        ----------
        measure : Cloud or array_like, shape (N, n_coordinates)
            A cloud of a pilot run. Of N particles it shows variances below N only: where the answer is above
            N / (2 tolerance) / 2 or so, ask again with more.
        tolerance : float
            Positive.

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or out of range.

        Examples
        --------
        >>> import numpy as np
        >>> import mfld
        >>> score = mfld.LogScore(mfld.likelihoods.Gaussian([[-3.0], [3.0]]))
        >>> score.particles_needed([[-3.0], [3.0]])             # each observation has half of the particles: Var = 1
        50
        """
        tolerance = validation.real("tolerance", tolerance, positive=True)
        cloud = self.cloud(measure)
        variance = 0.0
        for rows, responsibilities in self._responsibilities(cloud, self._rows(None)):
            second = _mean(responsibilities.astype(np.float64) ** 2, cloud.weights)
            variance += float(np.sum(self.sample_weight[rows] * (second - 1)))
        needed = variance / 2 / tolerance
        if not math.isfinite(needed):
            raise ValueError(f"tolerance must be large enough for a number of particles, got {tolerance}")
        return max(1, math.ceil(needed))

    def _rows(self, batch: ArrayLike | None) -> NDArray[np.int64]:
        n = len(self.sample_weight)
        return np.arange(n) if batch is None else validation.rows("batch", batch, n)

    def _shares(self, rows: NDArray[np.int64], batch: ArrayLike | None) -> FloatArray:
        """Weights of rows in the estimate from a batch: s_i, times n / B."""
        scale = 1.0 if batch is None else len(self.sample_weight) / len(np.asarray(batch))
        return self.sample_weight[rows] * scale

    def _log_mixture(self, cloud: Cloud, every: NDArray[np.int64]) -> FloatArray:
        """Logarithms of the densities of observations under the mixture."""
        found = [
            _normalised(self._log_density(cloud.particles, every[piece]), cloud.weights)[1]
            for piece in _pieces(len(cloud.particles), len(every))
        ]
        return np.concatenate(found)

    def _responsibilities(
        self, cloud: Cloud, every: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], FloatArray]]:
        """Rows, a piece at a time, with their responsibilities at the particles."""
        for piece in _pieces(len(cloud.particles), len(every)):
            rows = every[piece]
            yield rows, _normalised(self._log_density(cloud.particles, rows), cloud.weights)[0]

    def _log_density(self, points: FloatArray, rows: NDArray[np.int64]) -> FloatArray:
        with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
            logs = self.likelihood.log_density(points, rows)
        if not (logs < np.inf).all():  # NaN included
            particle, row = np.argwhere(~(logs < np.inf))[0]
            raise ValueError(
                f"log_density of the likelihood must be below inf, got {logs[particle, row]} for observation "
                f"{rows[row]} at particle {particle}"
            )
        return logs


def _normalised(logs: FloatArray, weights: FloatArray | None) -> tuple[FloatArray, FloatArray]:
    """Densities over their means under the measure, shape (N, B), and the logarithms of the means, from logarithms."""
    top = logs.max(axis=0)
    if not np.isfinite(top).all():
        raise ValueError("measure must give each observation a positive density, one has none at all particles")
    with np.errstate(under="ignore"):
        ratios = np.exp(logs - top)
        mean = _mean(ratios, weights)
        return ratios / mean, top + np.log(mean)


def _mean(values: FloatArray, weights: FloatArray | None) -> FloatArray:
    """Mean over particles, the first axis."""
    return np.asarray(np.mean(values, axis=0) if weights is None else np.sum(weights[:, np.newaxis] * values, axis=0))


def _pieces(n_points: int, n_rows: int) -> Iterator[slice]:
    """Rows cut so that a table of points and rows stays small."""
    length = max(1, _ENTRIES // n_points)
    for start in range(0, n_rows, length):
        yield slice(start, start + length)
