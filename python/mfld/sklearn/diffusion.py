"""The generator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from joblib import effective_n_jobs
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from mfld import diffusion, validation
from mfld.sklearn.base import seed_of, whole_or_not

if TYPE_CHECKING:
    from numpy.random import RandomState


class DiffusionSampler(BaseEstimator):  # type: ignore[misc]  # untyped
    """Generator of rows: a diffusion whose score is a mean-field network, trained by denoising score matching.

    `mfld.diffusion.fit` has the steps. With y the rows can be asked for by their label.

    Parameters
    ----------
    n_components : int, optional
        Principal components in which the diffusion runs. Default: the standardised columns.
    n_particles : int
        Neurons.
    n_steps : int
        Of training.
    random_state : int, RandomState or None
        Of the training.
    n_jobs : int, optional
        Threads: -1 for all, by default one, as joblib counts.

    Attributes
    ----------
    model_ : mfld.diffusion.DiffusionModel
    classes_ : ndarray or None
        Labels, where there was a y.
    n_features_in_ : int
    feature_names_in_ : ndarray
        Where X has names.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from mfld.sklearn import DiffusionSampler
    >>> X, y = load_iris(return_X_y=True)
    >>> sampler = DiffusionSampler(n_particles=100, n_steps=1000, random_state=0).fit(X, y)
    >>> setosa = sampler.sample(200, label=0, random_state=0)
    >>> bool(abs(setosa.mean(axis=0) - X[y == 0].mean(axis=0)).max() < 0.3)
    True
    """

    def __init__(
        self,
        *,
        n_components: int | None = None,
        n_particles: int = 500,
        n_steps: int = 3000,
        random_state: int | RandomState | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.n_components = n_components
        self.n_particles = n_particles
        self.n_steps = n_steps
        self.random_state = random_state
        self.n_jobs = n_jobs

    @whole_or_not
    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Fit to rows X, shape (n, n_features), and their labels y, if they have any."""
        validation.unmasked("X", X)
        if y is None:
            rows, labels = validate_data(self, X, dtype=np.float64, order="C"), None
        else:
            rows, labels = validate_data(self, X, y, dtype=np.float64, order="C")
        self.model_ = diffusion.fit(
            rows,
            labels,
            latent=self.n_components,
            n_particles=self.n_particles,
            n_steps=self.n_steps,
            seed=seed_of(self.random_state),
            num_threads=int(effective_n_jobs(self.n_jobs)),
        )
        self.classes_ = self.model_.classes
        return self

    def sample(
        self,
        n_samples: int = 1,
        label: Any = None,
        *,
        guidance: float = 0.0,
        random_state: int | RandomState | None = None,
    ) -> NDArray[np.float64]:
        """New rows, shape (n_samples, n_features): of a label, or one each, if given. See `DiffusionModel.sample`."""
        check_is_fitted(self)
        drawn = self.model_.sample(n_samples, label, guidance=guidance, seed=seed_of(random_state))
        return np.asarray(drawn, np.float64)
