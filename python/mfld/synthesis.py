"""Synthetic rows: particles matched to a private embedding of a table, and rows drawn from them.

1. `mfld.privacy.PrivateEmbedding` releases the mean features of the rows, once: those of `mfld.privacy.table_features`,
   without pairs of columns where noise would hide them, and with columns of numbers for all rows in place of for each
   class where it would hide these; then the embedding of all numbers together tells classes apart. How many rows there
   are says so, where that is public.
2. `MFLD` on `mfld.FeatureMatching` places particles; classes of a label have particles in proportion to their noisy
   shares, which do not change class. Numbers start within a twentieth of the middle: where noise hides how they are
   spread, they stay as near to each other as they began. This and what follows sees the release only.
3. A row is drawn from a particle: its numbers with a normal jitter of a twentieth of their range, reflected at the
   bounds, and categories by their probabilities. Less would leave so many rows alike that classifiers learn them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import schedules, validation
from mfld.algorithms import MFLD
from mfld.features import ProductFeatures
from mfld.objectives import FeatureMatching
from mfld.privacy import Ledger, PrivateEmbedding, table_features
from mfld.privacy.embedding import multiplier_of
from mfld.validation import FloatArray

_JITTER = 0.05
_SPREAD = 0.1  # of the numbers of particles at the start, over their range
_TEMPERATURE = 1e-6
_PAIRS = 0.3  # share of pairs of columns
_MARGINALS = 0.4  # of columns
_COARSEST = 0.05  # deviation of what is released of a pair, or of a column in a class, beyond which it says nothing
_WAVES, _WAVES_OF_A_NUMBER, _MOST_WAVES = 200, 16, 2000


@dataclass(frozen=True, eq=False)
class Synthesis:
    """Particles that stand for rows.

    Attributes
    ----------
    features : ProductFeatures
    particles : ndarray, shape (N, p)
    loss : float
        Squared distance of their mean features to the release.
    floor : float
        Squared length of the noise in the release, on average.
    ledger : Ledger
        What was spent on the release.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import synthesis
    >>> rows = np.random.default_rng(0).uniform(size=(2000, 1))
    >>> found = synthesis.fit(rows, np.zeros((2000, 0), int), [], epsilon=1.0, delta=1e-5, n_steps=20)
    >>> found.sample(5, seed=0)[0].shape
    (5, 1)
    """

    features: ProductFeatures
    particles: FloatArray
    loss: float
    floor: float
    ledger: Ledger

    def sample(self, n_rows: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Numbers in [0, 1], shape (n_rows, n_numbers), and categories by number, shape (n_rows, columns)."""
        n_rows = validation.integer("n_rows", n_rows, 1)
        rng = np.random.default_rng(validation.seed(seed))
        # Each particle as often as any other, but for one.
        turns = [rng.permutation(len(self.particles)) for _ in range(-(-n_rows // len(self.particles)))]
        chosen = np.concatenate(turns)[:n_rows]
        points = self.particles[chosen].astype(np.float64)
        moved = points[:, : self.features.n_numbers]
        moved = np.abs(moved + _JITTER * rng.normal(size=moved.shape))
        numbers = np.clip(1 - np.abs(1 - moved), 0, 1)
        codes = np.zeros((n_rows, len(self.features.sizes)), np.int64)
        for t in range(len(self.features.sizes)):
            levels = np.cumsum(self.features.probabilities(points, t), axis=1)
            codes[:, t] = np.minimum((levels < rng.uniform(size=(n_rows, 1))).sum(axis=1), levels.shape[1] - 1)
        return numbers, codes


def fit(
    numbers: ArrayLike,
    codes: ArrayLike,
    sizes: Sequence[int],
    label: int | None = None,
    *,
    epsilon: float | None = None,
    delta: float | None = None,
    noise_multiplier: float | None = None,
    neighbours: str = "replace",
    n_particles: int = 200,
    n_steps: int = 150,
    seed: int | random.Random | None = None,
    num_threads: int | None = None,
) -> Synthesis:
    """Particles for the rows of a table.

    Parameters
    ----------
    numbers, codes, epsilon, delta, noise_multiplier, neighbours, seed
        As in `mfld.privacy.PrivateEmbedding`.
    sizes, label
        As in `mfld.privacy.table_features`.
    n_particles, n_steps : int
        Of the dynamics.
    num_threads : int, optional
        It never changes the result.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    """
    shape = validation.array("numbers", numbers).shape
    n_columns = shape[-1] + len(sizes) - (label is not None)
    multiplier = multiplier_of(epsilon, delta, noise_multiplier)
    n_labels = 1 if label is None else sizes[label]

    def hidden(share: float, n_blocks: int, n_classes: int) -> bool:
        deviation = 2 * multiplier / shape[0] * math.sqrt(max(1, n_blocks) / share) * n_classes
        return neighbours == "replace" and deviation > _COARSEST

    features = table_features(
        shape[-1],
        sizes,
        label,
        marginals=_MARGINALS,
        pairs=0.0 if hidden(_PAIRS, math.comb(n_columns, 2), 1) else _PAIRS,
        waves=min(max(_WAVES, _WAVES_OF_A_NUMBER * shape[-1]), _MOST_WAVES),
        by_label=not hidden(_MARGINALS, n_columns, n_labels),
    )
    released = PrivateEmbedding(
        numbers,
        codes,
        features,
        epsilon=epsilon,
        delta=delta,
        noise_multiplier=noise_multiplier,
        neighbours=neighbours,
        seed=seed,
    )
    shares = None if label is None else released.label_shares()
    matching = FeatureMatching(features, released.mean, label_shares=shares)
    longest = 4 / features.stiffness  # twice what is stable, for the way there
    n_steps = validation.integer("n_steps", n_steps, 3)
    solver = MFLD(
        n_particles,
        step_size=schedules.Piecewise([longest, longest / 3], [0, 2 * n_steps // 3]),
        temperature=_TEMPERATURE,
        num_threads=num_threads,
    )
    start = matching.initial_particles(validation.integer("n_particles", n_particles, 1))
    numbers_of = np.s_[:, : features.n_numbers]
    start[numbers_of] = 0.5 + _SPREAD * (start[numbers_of] - 0.5)
    result = solver.run(matching, n_steps, particles=start)
    floor = features.n_features * released.deviation**2
    return Synthesis(features, result.particles, matching.loss(result.measure), floor, released.ledger)
