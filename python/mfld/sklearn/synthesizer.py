"""The synthesizer of private rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from joblib import effective_n_jobs
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from mfld import privacy, synthesis, validation
from mfld.privacy.domains import check_bounds
from mfld.privacy.mechanism import check_delta_of_rows
from mfld.sklearn.base import seed_of, whole_or_not

if TYPE_CHECKING:
    from numpy.random import RandomState

_DOMAINS = 0.1  # share of the budget for bounds that are not given


class PrivateSynthesizer(BaseEstimator):  # type: ignore[misc]  # untyped
    """Rows like those of a table of numbers, and of their classes, under (epsilon, delta)-differential privacy.

    The number of rows and the classes are public, neighbouring tables differ in one row. `mfld.synthesis` has the
    steps; for categories, dates and files see ``mfld synth``.

    Parameters
    ----------
    epsilon, delta : float
        What it may cost in all.
    bounds : sequence of (low, high), optional
        Public bounds of each feature; by default estimated for a tenth of the budget.
    n_particles, n_steps : int
        Of the dynamics.
    noise_seed : int, optional
        For tests only: noise that can be made again protects nobody. Default: the operating system's generator.
    n_jobs : int, optional
        Threads, as joblib counts.

    Attributes
    ----------
    epsilon_ : float
        What was spent, at delta: a little more than was asked, and infinite where epsilon is so large, or delta so
        small, that what the noise of whole numbers lacks to Gaussian noise is more than delta.
    ledger_ : mfld.privacy.Ledger
        On what.
    bounds_ : ndarray, shape (n_features, 2)
    classes_ : ndarray
        Of y, where it was given.
    synthesis_ : mfld.synthesis.Synthesis
    n_features_in_ : int
    feature_names_in_ : ndarray
        Where X has names.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld.sklearn import PrivateSynthesizer
    >>> X = np.random.default_rng(0).beta(2, 5, size=(3000, 2))
    >>> ours = PrivateSynthesizer(epsilon=1.0, bounds=[(0, 1), (0, 1)], n_steps=50).fit(X)
    >>> ours.sample(10, random_state=0).shape
    (10, 2)
    """

    def __init__(
        self,
        *,
        epsilon: float = 1.0,
        delta: float = 1e-5,
        bounds: Sequence[tuple[float, float]] | None = None,
        n_particles: int = 200,
        n_steps: int = 150,
        noise_seed: int | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.epsilon = epsilon
        self.delta = delta
        self.bounds = bounds
        self.n_particles = n_particles
        self.n_steps = n_steps
        self.noise_seed = noise_seed
        self.n_jobs = n_jobs

    @whole_or_not
    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Fit to rows X, shape (n, n_features), and their classes y, shape (n,)."""
        validation.unmasked("X", X)
        rows = validate_data(self, X, dtype=np.float64, order="C", ensure_min_samples=2)
        check_delta_of_rows(self.delta, len(rows))
        multiplier = privacy.noise_multiplier(self.epsilon, self.delta)
        source = privacy.generator(self.noise_seed)
        n_features, expenses = rows.shape[1], privacy.Ledger()
        if self.bounds is None:
            own = multiplier / math.sqrt(_DOMAINS / n_features)
            found = [privacy.private_bounds(rows[:, j], own, name=f"x{j}", seed=source) for j in range(n_features)]
            bounds = np.array([each[:2] for each in found])
            expenses = privacy.Ledger(tuple(expense for each in found for expense in each[2]))
            multiplier /= math.sqrt(1 - _DOMAINS)
        else:
            bounds = validation.array("bounds", self.bounds, np.float64).astype(np.float64)
            validation.shape("bounds", bounds, (n_features, 2), "(features, low and high)")
            for low, high in bounds.tolist():
                check_bounds("bounds", low, high)
        codes, sizes = np.zeros((len(rows), 0), np.int64), []
        self.__dict__.pop("classes_", None)  # of an earlier fit
        if y is not None:
            self.classes_, labels = np.unique(np.asarray(y), return_inverse=True)
            if labels.shape != (len(rows),):
                raise ValueError(f"y must have shape ({len(rows)},), got {np.shape(y)}")
            codes, sizes = labels[:, np.newaxis].astype(np.int64), [len(self.classes_)]
        low, width = bounds[:, 0], np.diff(bounds)[:, 0]
        self.synthesis_ = synthesis.fit(
            np.clip((rows - low) / width, 0, 1),
            codes,
            sizes,
            0 if sizes else None,
            noise_multiplier=multiplier,
            n_particles=self.n_particles,
            n_steps=self.n_steps,
            seed=source,
            num_threads=int(effective_n_jobs(self.n_jobs)),
        )
        self.bounds_, self.ledger_ = bounds, expenses + self.synthesis_.ledger
        self.epsilon_ = self.ledger_.epsilon(self.delta)
        return self

    def sample(self, n_samples: int = 1, random_state: int | RandomState | None = None) -> Any:
        """New rows, shape (n_samples, n_features), within the bounds; with classes, these and their classes."""
        check_is_fitted(self)
        numbers, codes = self.synthesis_.sample(n_samples, seed_of(random_state))
        rows: NDArray[np.float64] = self.bounds_[:, 0] + np.diff(self.bounds_)[:, 0] * numbers
        return (rows, self.classes_[codes[:, 0]]) if codes.shape[1] else rows
