"""Private bounds of numbers and private lists of categories: the domains of columns, for a share of a budget."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import validation
from mfld.privacy.mechanism import NEIGHBOURS, Expense, GaussianMechanism, generator

_POWERS = np.arange(-20, 41)  # of two: sizes of numbers that are told apart
_CELLS = 32  # in which an interval is looked at again
_CATEGORIES = 100_000  # that a ledger counts, for how many there are is private
_THINNEST = 1e-100  # interval, beyond which squares overflow
_ROUNDS = 3  # the powers of two, and twice the cells


def private_bounds(
    values: ArrayLike,
    noise_multiplier: float,
    *,
    neighbours: str = "replace",
    name: str = "values",
    seed: int | random.Random | None = None,
) -> tuple[float, float, tuple[Expense, ...]]:
    """Interval that holds most of the numbers, and what it cost.

    Noisy counts between powers of two of either sign, then twice of 32 equal cells of the interval found; cells count
    where noise alone would reach them with probability 1e-3 at most in all. A row is in one cell: counts of neighbours
    differ by 1 in two cells where a row is replaced and in one where it is added. Source: the approximate bounds of
    Wilson et al. 2020, "Differentially private SQL with bounded user contribution", with Gaussian noise.

    Parameters
    ----------
    values : array_like, shape (n,)
    noise_multiplier : float
        Positive: of all three looks together.
    neighbours : {"replace", "add_remove"}
    name : str
        Of the column, for the ledger.
    seed : int or random.Random, optional
        As in `mfld.privacy.PrivateEmbedding`.

    Returns
    -------
    low, high : float
    expenses : tuple of Expense

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; if there is too much noise to find anything, or numbers
        reach 2**39, beyond which none are told apart.

    Examples
    --------
    >>> import random
    >>> import numpy as np
    >>> from mfld import privacy
    >>> years = np.random.default_rng(0).integers(1990, 2021, size=5000)
    >>> low, high, spent = privacy.private_bounds(years, 10.0, seed=random.Random(0))  # for this example
    >>> 1980 <= low <= 1990 and 2020 <= high <= 2030
    True
    """
    given = validation.array("values", values, np.float64)
    validation.shape("values", given, ("n",), "(rows)")
    validation.choice("neighbours", neighbours, NEIGHBOURS)
    multiplier = validation.real("noise_multiplier", noise_multiplier, positive=True) * math.sqrt(_ROUNDS)
    source = seed if isinstance(seed, random.Random) else generator(seed)
    mechanism = GaussianMechanism(multiplier, math.sqrt(2) if neighbours == "replace" else 1.0)
    powers = np.exp2(_POWERS.astype(float))
    edges = np.concatenate([-powers[::-1], powers])
    for look in range(_ROUNDS):
        places = np.clip(np.searchsorted(edges, given, side="right") - 1, 0, len(edges) - 2)
        counts = noisy_counts(np.bincount(places, minlength=len(edges) - 1), mechanism, source)
        level = mechanism.deviation * NormalDist().inv_cdf(1 - 1e-3 / len(counts))
        seen = np.flatnonzero(counts > level)
        if not len(seen):
            if look:
                break  # what was found holds
            raise ValueError(
                f"{name} must have bounds given: no interval has rows enough to stand out from the noise of its counts"
            )
        if not look and (seen[0] == 0 or seen[-1] == len(counts) - 1):  # where those beyond are counted too
            raise ValueError(f"{name} must have bounds given: numbers of {powers[-2]:g} and more are not told apart")
        edges = np.linspace(edges[seen[0]], edges[seen[-1] + 1], _CELLS + 1)
    expense = Expense(f"bounds of {name}", multiplier, mechanism.sensitivity, _CELLS * _ROUNDS)
    return float(edges[0]), float(edges[-1]), (expense,) * _ROUNDS


def check_bounds(name: str, low: float, high: float) -> None:
    """Raise ValueError unless two finite numbers are the ends of an interval that numbers can be scaled by."""
    if not low < high:
        raise ValueError(f"{name} must be low and high, increasing, got {low:g} and {high:g}")
    if not _THINNEST <= high - low <= 1 / _THINNEST:
        raise ValueError(f"{name} must be between {_THINNEST:g} and {1 / _THINNEST:g} apart, got {low:g} and {high:g}")


def private_categories(
    counts: Sequence[int] | NDArray[np.int64],
    noise_multiplier: float,
    delta: float,
    *,
    neighbours: str = "replace",
    name: str = "values",
    seed: int | random.Random | None = None,
) -> tuple[NDArray[np.int64], tuple[Expense, ...]]:
    """Categories whose noisy counts pass a threshold that one row passes with probability delta, and what it cost.

    The list of categories that occur is private: one may occur in one row. Those that pass
    ``1 + deviation * quantile(1 - delta)`` are published. Source: Korolova, Kenthapadi, Mishra, Ntoulas 2009,
    "Releasing search queries and clicks privately", with Gaussian noise.

    Parameters
    ----------
    counts : array_like of int, shape (k,)
        How many rows each has.
    noise_multiplier : float
        Positive.
    delta : float
        Between 0 and 1.
    neighbours, name, seed
        As in `private_bounds`.

    Returns
    -------
    ndarray of int
        Places of those that pass, in order.
    tuple of Expense

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; if none passes.

    Examples
    --------
    >>> from mfld import privacy
    >>> privacy.private_categories([900, 1, 1200], 10.0, 1e-6)[0].tolist()
    [0, 2]
    """
    given = validation.array("counts", counts, np.float64)
    validation.shape("counts", given, ("k",), "(categories)")
    validation.choice("neighbours", neighbours, NEIGHBOURS)
    if not 0 < validation.real("delta", delta, positive=True) < 0.5:
        raise ValueError(f"delta must be between 0 and 0.5, got {delta}")
    multiplier = validation.real("noise_multiplier", noise_multiplier, positive=True)
    source = seed if isinstance(seed, random.Random) else generator(seed)
    mechanism = GaussianMechanism(multiplier, math.sqrt(2) if neighbours == "replace" else 1.0)
    threshold = 1 + mechanism.deviation * -NormalDist().inv_cdf(delta)
    kept = np.flatnonzero(noisy_counts(given.astype(np.int64), mechanism, source) > threshold)
    if not len(kept):
        raise ValueError(f"{name} must have categories given: none has more rows than about {threshold:.0f}, the noise")
    return kept, (Expense(f"categories of {name}", multiplier, mechanism.sensitivity, _CATEGORIES, delta),)


def noisy_counts(counts: NDArray[np.int64], mechanism: GaussianMechanism, source: random.Random) -> NDArray[np.float64]:
    """Counts of rows with the noise of a mechanism."""
    one = int(mechanism.on_grid([1.0])[0])
    return mechanism.release(counts.astype(np.int64) * one, source)
