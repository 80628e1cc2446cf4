"""The density estimator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from joblib import effective_n_jobs
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from mfld import density, validation
from mfld.sklearn.base import seed_of, whole_or_not

if TYPE_CHECKING:
    from numpy.random import RandomState


class MeanFieldDensity(DensityMixin, BaseEstimator):  # type: ignore[misc]  # untyped
    """Density estimator: particles placed by mean-field Langevin dynamics, each with a Gaussian around it.

    The particles minimise the squared maximum mean discrepancy between the rows and their own smoothed measure; each
    takes the covariance of the rows that it explains, and the density is that mixture of Gaussians: exact, and of a
    tenth as many terms as a kernel density estimate. `mfld.density` has the steps.

    Parameters
    ----------
    n_particles : int, optional
        By default a tenth of the rows, and 5 at least where there are so many.
    smoothing : float, optional
        Positive: deviation of the Gaussians where they explain nothing, in deviations of the rows after the affine map
        that makes them comparable. Default: by the likelihood of rows held out.
    prior_rows : float, optional
        Positive: how many rows of covariance ``smoothing**2`` are added to those that a particle explains. With
        infinity all covariances are that, and the density is the smoothed measure of the particles. Default: by the
        likelihood of rows held out.
    n_steps : int
        Of the dynamics.
    random_state : int, RandomState or None
        Of the initial particles, the noise and the rows held out.
    n_jobs : int, optional
        Threads: -1 for all, by default one, as joblib counts.

    Attributes
    ----------
    weights_ : ndarray, shape (n_components,)
    means_ : ndarray, shape (n_components, n_features)
    covariances_ : ndarray, shape (n_components, n_features, n_features)
    particles_ : ndarray, shape (n_components, n_features)
        Where the dynamics left them.
    smoothing_, prior_rows_ : float
        Those given or chosen.
    held_out_ : dict
        Mean log-likelihood of rows held out, by smoothing and prior rows, where these were chosen.
    density_ : mfld.density.Density
    n_features_in_ : int
    feature_names_in_ : ndarray
        Where X has names.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import train_test_split
    >>> from mfld.sklearn import MeanFieldDensity
    >>> train, test = train_test_split(load_iris().data, random_state=0)
    >>> ours = MeanFieldDensity(random_state=0).fit(train)
    >>> len(ours.means_)                                # a kernel density estimate has 112
    11
    >>> bool(ours.score(test) > -2.3)                   # nats a row
    True
    >>> ours.sample(2, random_state=0).shape
    (2, 4)
    """

    density_: density.Density

    def __init__(
        self,
        *,
        n_particles: int | None = None,
        smoothing: float | None = None,
        prior_rows: float | None = None,
        n_steps: int = 100,
        random_state: int | RandomState | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.n_particles = n_particles
        self.smoothing = smoothing
        self.prior_rows = prior_rows
        self.n_steps = n_steps
        self.random_state = random_state
        self.n_jobs = n_jobs

    @whole_or_not
    def fit(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Fit to rows X, shape (n, n_features), with weights of rows; y is not looked at."""
        for name, given in (("X", X), ("sample_weight", sample_weight)):
            validation.unmasked(name, given)
        rows = validate_data(self, X, dtype=np.float64, order="C")
        weights = None
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, rows, dtype=np.float64)
        found = density.fit(
            rows,
            n_particles=self.n_particles,
            smoothing=self.smoothing,
            prior_rows=self.prior_rows,
            n_steps=self.n_steps,
            sample_weight=weights,
            seed=seed_of(self.random_state),
            num_threads=int(effective_n_jobs(self.n_jobs)),
        )
        self.density_ = found.density
        self.particles_, self.held_out_ = found.particles, found.scores
        self.smoothing_, self.prior_rows_ = found.smoothing, found.prior_rows
        return self

    @property
    def weights_(self) -> NDArray[np.float64]:
        check_is_fitted(self)
        return self.density_.weights

    @property
    def means_(self) -> NDArray[np.float64]:
        check_is_fitted(self)
        return self.density_.means

    @property
    def covariances_(self) -> NDArray[np.float64]:
        check_is_fitted(self)
        return self.density_.covariances

    def score_samples(self, X: ArrayLike) -> NDArray[np.float64]:
        """Logarithm of the density at each row of X, shape (n,)."""
        check_is_fitted(self)
        validation.unmasked("X", X)
        return self.density_.log_density(validate_data(self, X, dtype=np.float64, order="C", reset=False))

    def score(self, X: ArrayLike, y: Any = None) -> float:
        """Mean log-likelihood of the rows of X, so that rows of different number compare; more is better."""
        return float(np.mean(self.score_samples(X)))

    def sample(self, n_samples: int = 1, random_state: int | RandomState | None = None) -> NDArray[np.float64]:
        """Independent draws from the density, shape (n_samples, n_features)."""
        check_is_fitted(self)
        return self.density_.sample(validation.integer("n_samples", n_samples, 1), check_random_state(random_state))
