"""Private mean embeddings: the mean feature vector of a table with Gaussian noise, and the features of tables."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import validation
from mfld.features import MOST, Block, Factor, OneHot, ProductFeatures, Waves, sequence
from mfld.privacy.mechanism import (
    NEIGHBOURS,
    Expense,
    GaussianMechanism,
    Ledger,
    check_delta,
    check_epsilon,
    generator,
    noise_multiplier,
)

_ROWS = 4096  # whose features are in memory at a time
_OF_ALL = 0.25  # share of a column of numbers that is not released for each class, in that of one that is
_COUNT = 10.0  # noise multiplier of the number of rows, in that of the embedding: a hundredth of the budget


def table_features(
    n_numbers: int,
    sizes: Sequence[int] = (),
    label: int | None = None,
    *,
    marginals: float = 0.4,
    pairs: float = 0.3,
    joint: float = 0.3,
    classes: float = 0.1,
    waves: int = 100,
    length_scale: float = 0.25,
    by_label: bool = True,
    seed: int = 0,
) -> ProductFeatures:
    """Features of a table: of each column, of pairs of columns, and of all numbers together, by the label.

    Columns have 12 cosines and sines in a series, or indicators; pairs their products, and two numbers 30 random
    waves; all numbers together random waves of a Gaussian kernel. Where there is a label, columns and all numbers are
    multiplied by its indicators, so that each class has an embedding of its own. None of it looks at rows.

    Parameters
    ----------
    n_numbers, sizes, label
        As in `mfld.features.ProductFeatures`.
    marginals, pairs, joint, classes : float
        Shares of the squared length, hence of the budget, of columns, pairs, all numbers together, and the label alone:
        at least 0, made to sum to 1 over those that there are.
    waves : int
        Random waves of all numbers together.
    length_scale : float
        Of their Gaussian kernel, times the root of the number of numbers, which are in [0, 1].
    by_label : bool
        Whether each column of numbers is multiplied by the indicators of the label. Where not, all numbers together
        still are, and have three quarters of its share; without these it always is.
    seed : int
        Of the random waves, which are public.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or nothing is left.

    Examples
    --------
    >>> from mfld import privacy
    >>> privacy.table_features(2, [3, 2], label=1).space.n_coordinates     # two numbers, three logits, the label
    6
    """
    n_numbers = validation.integer("n_numbers", n_numbers, 0, 1000)
    sizes = [validation.integer("sizes", size, 1, MOST) for size in sequence("sizes", sizes)]
    shares = {
        name: validation.real(name, value, non_negative=True)
        for name, value in (("marginals", marginals), ("pairs", pairs), ("joint", joint), ("classes", classes))
    }
    waves = validation.integer("waves", waves, 1, MOST)
    length_scale = validation.real("length_scale", length_scale, positive=True)
    if not 1e-6 < length_scale < 1e6:
        raise ValueError(f"length_scale must be between 1e-6 and 1e6, for numbers in [0, 1], got {length_scale:g}")
    by_label, seed = validation.boolean("by_label", by_label), validation.seed(seed)
    factors: list[Factor] = [Waves.series(j, 12) for j in range(n_numbers)]
    factors += [OneHot(t, size) for t, size in enumerate(sizes)]
    of_label = () if label is None else (n_numbers + validation.integer("label", label, 0, len(sizes) - 1),)
    columns = [f for f in range(len(factors)) if f not in of_label]
    groups: dict[str, list[tuple[int, ...]]] = {name: [] for name in shares}
    by_label = by_label or not of_label or n_numbers < 2 or not shares["joint"]
    groups["marginals"] = [(f, *(of_label if by_label or f >= n_numbers else ())) for f in columns]
    for a, b in combinations(columns, 2) if shares["pairs"] else ():
        if b < n_numbers:
            factors.append(Waves.gaussian((a, b), 30, length_scale, (seed + len(factors)) % 2**64))
            groups["pairs"].append((len(factors) - 1,))
        else:
            groups["pairs"].append((a, b))
    if n_numbers > 1 and shares["joint"]:
        scale = length_scale * math.sqrt(n_numbers)
        factors.append(Waves.gaussian(range(n_numbers), waves, scale, seed))
        groups["joint"] = [(len(factors) - 1, *of_label)]
    if of_label:
        groups["classes"] = [of_label]
    if not any(shares[name] and members for name, members in groups.items()):
        raise ValueError(f"marginals, pairs and joint must leave a column and a share above 0, got {shares}")
    each = {places: shares[name] / len(members) for name, members in groups.items() for places in members}
    if not by_label:
        for f in range(n_numbers):
            each[groups["joint"][0]] += (1 - _OF_ALL) * each[(f,)]
            each[(f,)] *= _OF_ALL
    blocks = [Block(places, share) for places, share in each.items() if share]
    return ProductFeatures(n_numbers, sizes, factors, blocks, label)


class PrivateEmbedding:
    """Mean feature vector of the rows of a table, with Gaussian noise for (epsilon, delta)-differential privacy.

    ``(sum_i phi(row_i) + s S xi) / n`` with the noise multiplier s of `noise_multiplier` and the sensitivity S of the
    sum. Feature vectors have length 1 at most, hence

    - S = 2 where neighbouring tables differ in one row ("replace"): ``|phi(a) - phi(b)| <= |phi(a)| + |phi(b)|``, which
      waves reach. The number of rows n is public then;
    - S = 1 where one of them has a row more ("add_remove"): the sums differ by one vector. The number of rows is not
      public: it is a constant that you give, or released with noise for a hundredth of the budget.

    Vectors are cut to the grid of `GaussianMechanism` towards 0 before they are summed, so that these bounds hold for
    what is computed and not only in exact arithmetic. What is computed from the embedding is as private as it is.
    Source: Harder, Adamczewski, Park 2021, "DP-MERF: differentially private mean embeddings with random features for
    practical privacy-preserving data generation".

    Parameters
    ----------
    numbers : array_like, shape (n, n_numbers)
        In [0, 1], scaled and clipped by bounds that do not come from the rows.
    codes : array_like of int, shape (n, number of categorical columns)
        Categories by number, -1 for those that are not among them.
    features : ProductFeatures
        For example `table_features`.
    epsilon, delta : float, optional
        What it may cost; epsilon of infinity adds no noise.
    noise_multiplier : float, optional
        In place of these two.
    neighbours : {"replace", "add_remove"}
    n_rows : float, optional
        For "add_remove": a public number to divide by.
    seed : int or random.Random, optional
        For tests only, or a source of randomness. Default: the operating system's.

    Attributes
    ----------
    mean : ndarray, shape (n_features,)
        The noisy mean.
    deviation : float
        Of the noise in each entry of it.
    n_rows : float
        What the sum was divided by.
    ledger : Ledger
        What was spent.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Warns
    -----
    PrivacyWarning
        If a seed is given.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import privacy
    >>> rng = np.random.default_rng(0)
    >>> features = privacy.table_features(1, [2], label=0)
    >>> rows = rng.uniform(size=(5000, 1)), rng.integers(0, 2, size=(5000, 1))
    >>> released = privacy.PrivateEmbedding(*rows, features, epsilon=1.0, delta=1e-5)
    >>> round(released.ledger.epsilon(1e-5), 6)
    1.0
    >>> exact = features.of_rows(*rows).mean(axis=0)
    >>> bool(np.abs(released.mean - exact).max() < 6 * released.deviation)
    True
    """

    def __init__(
        self,
        numbers: ArrayLike,
        codes: ArrayLike,
        features: ProductFeatures,
        *,
        epsilon: float | None = None,
        delta: float | None = None,
        noise_multiplier: float | None = None,
        neighbours: str = "replace",
        n_rows: float | None = None,
        seed: int | random.Random | None = None,
    ) -> None:
        self.features = validation.instance("features", features, ProductFeatures, "ProductFeatures")
        x, c = features.check_rows(numbers, codes)
        validation.choice("neighbours", neighbours, NEIGHBOURS)
        replace = neighbours == "replace"
        if n_rows is not None and replace:
            raise ValueError(f"n_rows must be left out where neighbours replace a row, got {n_rows}")
        counted = not replace and n_rows is None
        multiplier = multiplier_of(epsilon, delta, noise_multiplier)
        if counted:
            multiplier *= math.sqrt(1 + _COUNT**-2)
        source = seed if isinstance(seed, random.Random) else generator(seed)
        mechanism = GaussianMechanism(multiplier, 2.0 if replace else 1.0)
        total = mechanism.release(grid_sum(x, c, features, mechanism), source)
        expenses = [Expense("embedding", multiplier, mechanism.sensitivity, features.n_features)]
        if counted:
            count = GaussianMechanism(_COUNT * multiplier, 1.0)
            n_rows = max(1.0, float(count.release(count.on_grid(np.ones(1)) * len(x), source)[0]))
            expenses.append(Expense("number of rows", count.noise_multiplier, 1.0))
        self.n_rows = float(len(x)) if n_rows is None else validation.real("n_rows", n_rows, positive=True)
        self.mean: NDArray[np.float64] = total / self.n_rows
        self.deviation = mechanism.deviation / self.n_rows
        self.ledger = Ledger(tuple(expenses), neighbours)

    def __repr__(self) -> str:
        return f"PrivateEmbedding({self.features!r}, deviation {self.deviation:.3g}, {self.ledger.neighbours})"

    def part(self, *factors: int) -> NDArray[np.float64] | None:
        """Entries of the block of these factors, in its own scale; None where there is no such block."""
        for block, place in zip(self.features.blocks, self.features.parts, strict=True):
            if block.factors == factors:
                return np.asarray(self.mean[place] / math.sqrt(block.share))
        return None

    def label_shares(self) -> NDArray[np.float64]:
        """Shares of the classes as the noisy embedding has them: at least 0, of sum 1, and even where none is left.

        Raises
        ------
        ValueError
            If the features have no label, or no block of it alone.
        """
        features = self.features
        if features.label is None:
            raise ValueError("features must have a label")
        place = next(f for f, factor in enumerate(features.factors) if factor.category == features.label)
        found = self.part(place)
        if found is None:
            raise ValueError("features must have a block of the label alone")
        shares = np.maximum(found, 0)
        return shares / shares.sum() if shares.sum() > 0 else np.full(len(shares), 1 / len(shares))


def grid_sum(
    numbers: NDArray[np.float64], codes: NDArray[np.int64], features: ProductFeatures, mechanism: GaussianMechanism
) -> NDArray[np.int64]:
    """Sum of the feature vectors of rows, each cut to the grid of a mechanism: exact, whatever their order."""
    total = np.zeros(features.n_features, np.int64)
    for start in range(0, len(numbers), _ROWS):
        x, c = numbers[start : start + _ROWS], codes[start : start + _ROWS]
        for block, part in zip(features.blocks, features.parts, strict=True):
            waves, places, width = features.row_block(block, x, c)
            known = places >= 0
            units, where = mechanism.on_grid(waves[known]), places[known]
            sums = np.zeros((width, waves.shape[1]), np.int64)
            if width == 1:
                sums[0] = units.sum(axis=0)
            else:
                order = np.argsort(where, kind="stable")
                present, begins = np.unique(where[order], return_index=True)
                if len(present):
                    sums[present] = np.add.reduceat(units[order], begins, axis=0)
            total[part] += sums.T.ravel()
    return total


def multiplier_of(epsilon: float | None, delta: float | None, given: float | None) -> float:
    """Noise multiplier that is given, or that of epsilon and delta."""
    if given is not None:
        if epsilon is not None or delta is not None:
            raise ValueError("epsilon and delta must be left out where noise_multiplier is given")
        return validation.real("noise_multiplier", given, non_negative=True)
    if epsilon is None or delta is None:
        raise ValueError(f"epsilon and delta must be given, or noise_multiplier; got {epsilon} and {delta}")
    return noise_multiplier(check_epsilon(epsilon), check_delta(delta))
