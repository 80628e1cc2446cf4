"""Feature matching: how far the mean features of a measure are from given ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from mfld import references, validation
from mfld.features import ProductFeatures
from mfld.noise import Place, start
from mfld.objectives.base import Measure, Objective, Potential, SetOnce
from mfld.references import Reference
from mfld.state import Cloud
from mfld.validation import FloatArray


class FeatureMatching(SetOnce, Objective):
    """Squared distance of mean features ``U(mu) = sum_k w_k (E_mu phi_k - b_k)**2``.

    The first variation is ``2 sum_k w_k (E_mu phi_k - b_k) phi_k(theta)``. With the mean features b of a table it is
    the squared maximum mean discrepancy of the kernel ``<phi, phi'>`` between the rows that particles draw and those of
    the table; with a `mfld.privacy.PrivateEmbedding` whatever is computed is as private as that. Source: Harder,
    Adamczewski, Park 2021, "DP-MERF: differentially private mean embeddings with random features for practical
    privacy-preserving data generation"; with particles in place of their generator.

    Parameters
    ----------
    features : ProductFeatures
    target : array_like, shape (n_features,)
        The mean features b.
    weights : array_like, shape (n_features,), optional
        The w, at least 0. Default: 1 each.
    label_shares : array_like, shape (number of labels,), optional
        Of which initial particles have their labels; even by default.
    reference : Reference, optional
        Default: the uniform law of the box of particles.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or shape, or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> from mfld import privacy
    >>> rows = np.random.default_rng(0).beta(2, 5, size=(2000, 1)), np.zeros((2000, 0), int)
    >>> features = privacy.table_features(1)
    >>> target = features.of_rows(*rows).mean(axis=0)
    >>> fit = mfld.FeatureMatching(features, target)
    >>> result = mfld.MFLD(200, step_size=2 / features.stiffness, temperature=1e-6).run(fit, n_steps=300)
    >>> bool(fit.loss(result.measure) < 1e-3)
    True
    """

    def __init__(
        self,
        features: ProductFeatures,
        target: ArrayLike,
        *,
        weights: ArrayLike | None = None,
        label_shares: ArrayLike | None = None,
        reference: Reference | None = None,
    ) -> None:
        self.features = validation.instance("features", features, ProductFeatures, "ProductFeatures")
        self.space = features.space
        self.reference = references.given(0.0, references.Uniform() if reference is None else reference, self.space)
        size = (features.n_features,)
        given = validation.array("target", target, np.float64)
        validation.shape("target", given, size, "(features)")
        self.target = validation.frozen(given)
        own = np.ones(size) if weights is None else validation.array("weights", weights, np.float64)
        validation.shape("weights", own, size, "(features)")
        if (own < 0).any():
            raise ValueError(f"weights must be at least 0, got {own.min():g}")
        self.weights = validation.frozen(own)
        self.label_shares = None
        if features.label is not None:
            n_labels = features.sizes[features.label]
            even = np.full(n_labels, 1 / n_labels) if label_shares is None else label_shares
            vars(self)["label_shares"] = validation.weights("label_shares", even, (n_labels,), "(labels)", np.float64)
        elif label_shares is not None:
            raise ValueError("label_shares must be left out where features have no label")

    def __repr__(self) -> str:
        return f"FeatureMatching({self.features!r}, {self.reference!r})"

    def residual(self, measure: Measure) -> FloatArray:
        """``E_mu phi - b``, shape (n_features,), float64."""
        cloud = self.cloud(measure)
        return self.features.mean(cloud.particles, cloud.weights) - self.target

    def loss(self, measure: Measure) -> float:
        return float(np.sum(self.weights * self.residual(measure) ** 2))

    def loss_gradient(self, measure: Measure, batch: ArrayLike | None = None) -> FloatArray:
        self._check_no_batch(batch)
        cloud = self.cloud(measure)
        return self.features.pull_back(cloud.particles, self._slope(cloud))[1]

    def first_variation(self, measure: Measure, batch: ArrayLike | None = None) -> Potential:
        self._check_no_batch(batch)
        slope, features = self._slope(self.cloud(measure)), self.features
        return Potential(
            lambda points: features.pull_back(points, slope)[1],
            lambda points: features.pull_back(points, slope)[0],
            value_and_gradient=lambda points: features.pull_back(points, slope),
            space=self.space,
            reference=self.reference,
        )

    def initial_particles(self, n_particles: int, place: Place | int = 0, dtype: DTypeLike = "float32") -> FloatArray:
        """Uniform numbers, small logits, and labels in proportion to their shares, as near as whole numbers are."""
        drawn = super().initial_particles(n_particles, start(place), dtype)
        n, moving = self.features.n_numbers, self.n_moving
        drawn[:, n:moving] /= drawn.dtype.type(4)
        if self.label_shares is not None:
            drawn[:, moving] = apportioned(self.label_shares, n_particles)
        return drawn

    def _slope(self, cloud: Cloud) -> FloatArray:
        return 2 * self.weights * self.residual(cloud)

    @staticmethod
    def _check_no_batch(batch: ArrayLike | None) -> None:
        if batch is not None:
            raise ValueError("batch must be None for a FeatureMatching, which has no samples")


def apportioned(shares: FloatArray, n: int) -> FloatArray:
    """n numbers of shares, each as often as is nearest to its share: by largest remainders, in increasing order."""
    exact = shares * n
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: n - counts.sum()]] += 1
    return np.repeat(np.arange(len(shares), dtype=float), counts)
