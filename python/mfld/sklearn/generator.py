"""The generative estimator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from joblib import effective_n_jobs
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from mfld import generative, validation
from mfld.sklearn.base import seed_of, whole_or_not

if TYPE_CHECKING:
    from numpy.random import RandomState


class MeanFieldGenerator(BaseEstimator):  # type: ignore[misc]  # untyped
    """Generative adversarial network of two-layer networks, both trained by mean-field Langevin dynamics.

    `mfld.generative` has the steps, and `mfld.MeanFieldGAN` the game for choices of your own. For the density of rows
    `MeanFieldDensity` is faster and exact: a generator is for laws on curves and surfaces, which have none.

    Parameters
    ----------
    n_particles, n_latent, n_steps, batch_size, temperature, penalty
        As in `mfld.generative.fit`.
    random_state : int, RandomState or None
        Of the initial particles, the batches and the noise.
    n_jobs : int, optional
        Threads: -1 for all, by default one, as joblib counts.

    Attributes
    ----------
    generator_ : mfld.generative.Generator
    particles_, critic_particles_ : ndarray, shape (n_particles, n_coordinates)
    n_features_in_ : int
    feature_names_in_ : ndarray
        Where X has names.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from mfld.sklearn import MeanFieldGenerator
    >>> moons = make_moons(500, noise=0.05, random_state=0)[0]
    >>> model = MeanFieldGenerator(n_steps=200, random_state=0).fit(moons)
    >>> model.sample(3, random_state=0).shape
    (3, 2)
    """

    generator_: generative.Generator

    def __init__(
        self,
        *,
        n_particles: int = 200,
        n_latent: int | None = None,
        n_steps: int = 10_000,
        batch_size: int = 128,
        temperature: float = 1e-4,
        penalty: float = 0.05,
        random_state: int | RandomState | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.n_particles = n_particles
        self.n_latent = n_latent
        self.n_steps = n_steps
        self.batch_size = batch_size
        self.temperature = temperature
        self.penalty = penalty
        self.random_state = random_state
        self.n_jobs = n_jobs

    @whole_or_not
    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Fit to rows X, shape (n, n_features); y is not looked at."""
        validation.unmasked("X", X)
        rows = validate_data(self, X, dtype=np.float64, order="C")
        self.generator_ = generative.fit(
            rows,
            n_particles=self.n_particles,
            n_latent=self.n_latent,
            n_steps=self.n_steps,
            batch_size=self.batch_size,
            temperature=self.temperature,
            penalty=self.penalty,
            seed=seed_of(self.random_state),
            num_threads=int(effective_n_jobs(self.n_jobs)),
        )
        self.particles_ = self.generator_.clouds["generator"].particles
        self.critic_particles_ = self.generator_.clouds["critic"].particles
        return self

    def sample(self, n_samples: int = 1, random_state: int | RandomState | None = None) -> NDArray[np.float64]:
        """Generated rows, shape (n_samples, n_features)."""
        check_is_fitted(self)
        return self.generator_.sample(validation.integer("n_samples", n_samples, 1), seed_of(random_state))

    def critic_values(self, X: ArrayLike) -> NDArray[np.float64]:
        """Values of the critic at rows X, shape (n,)."""
        check_is_fitted(self)
        validation.unmasked("X", X)
        return self.generator_.critic_values(validate_data(self, X, dtype=np.float64, order="C", reset=False))
