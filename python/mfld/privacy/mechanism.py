"""Gaussian mechanism: how much noise a guarantee needs, and the noise itself, exact to the last bit.

A randomised function M of a table is (epsilon, delta)-differentially private when for all neighbouring tables and all
events ``P(M(D) in S) <= exp(epsilon) P(M(D') in S) + delta``. Adding ``N(0, (s S)**2 I)`` to a vector whose Euclidean
sensitivity is S, where s is the *noise multiplier*, is private exactly where

    Phi(1/(2 s) - epsilon s) - exp(epsilon) Phi(-1/(2 s) - epsilon s) <= delta.

Source: Balle, Wang 2018, "Improving the Gaussian mechanism for differential privacy: analytical calibration and optimal
denoising", theorem 8. Mechanisms of multipliers s_1, s_2, ... on one table are together as one of multiplier
``(sum_i s_i**-2)**-0.5``, also where one is chosen by what another gave (Dong, Roth, Su 2022, "Gaussian differential
privacy").

Noise made of floating-point numbers leaks what it hides: their low-order bits tell which of two values they were added
to (Mironov 2012, "On significance of the least significant bits for differential privacy"). Here values are cut to a
grid, and the noise is a whole number of its units, drawn by the exact algorithm of Canonne, Kamath, Steinke 2020, "The
discrete Gaussian for differential privacy", in whole numbers from the operating system's generator. The unit is 2**-30
of the noise's deviation, so that the discrete law is within ``1 / (32 * 4**30)`` in total variation of a Gaussian one
rounded to the grid, for each value; `Ledger` adds that to delta.
"""

from __future__ import annotations

import math
import os
import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import validation

_UNITS = 2**30  # of the grid, in a deviation of the noise
_DISTANCE = 1 / (32 * _UNITS**2)  # in total variation of one value: the sum of |second derivative| / 24 over cells
_LEAST, _MOST = 1e-6, 1e9  # noise multipliers that are looked at
_LARGEST_EPSILON = 500.0
_BYTES = 64  # from the operating system at a time
NEIGHBOURS = ("replace", "add_remove")


class PrivacyWarning(UserWarning):
    """Warning of what makes a guarantee void, or weaker than it looks."""


def check_epsilon(epsilon: object) -> float:
    """A positive number, at most 500; or infinity, for no privacy."""
    if isinstance(epsilon, float) and epsilon == math.inf:
        return math.inf
    value = validation.real("epsilon", epsilon, positive=True)
    if value > _LARGEST_EPSILON:
        raise ValueError(f"epsilon must be at most {_LARGEST_EPSILON:g}, or infinite for no privacy, got {value:g}")
    return value


def check_delta(delta: object) -> float:
    """A number between 0 and 1."""
    value = validation.real("delta", delta, positive=True)
    if value >= 1:
        raise ValueError(f"delta must be below 1, got {value:g}")
    return value


def check_delta_of_rows(delta: object, n_rows: int) -> float:
    """A number between 0 and one over the number of rows: from there on to publish one of the rows would be private."""
    value = check_delta(delta)
    if value * n_rows >= 1:
        raise ValueError(
            f"delta must be below 1 / {n_rows}, one over the number of rows, got {value:g}: with it a row might be "
            "published as it is"
        )
    return value


def gaussian_delta(epsilon: float, noise_multiplier: float) -> float:
    """Least delta for which a Gaussian mechanism is (epsilon, delta)-private.

    ``Phi(1/(2 s) - epsilon s) - exp(epsilon) Phi(-1/(2 s) - epsilon s)``, for the noise multiplier s: the deviation of
    the noise over the sensitivity. Source: Balle, Wang 2018.

    Parameters
    ----------
    epsilon : float
        At least 0.
    noise_multiplier : float
        Positive.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> from mfld import privacy
    >>> f"{privacy.gaussian_delta(1.0, 3.730631634944469):.3g}"
    '1e-05'
    """
    epsilon = validation.real("epsilon", epsilon, non_negative=True)
    s = min(max(validation.real("noise_multiplier", noise_multiplier, positive=True), _LEAST**2), 1 / _LEAST**2)
    epsilon = min(epsilon, 1 / _LEAST**2)
    upper = math.erfc((epsilon * s - 1 / (2 * s)) / math.sqrt(2)) / 2
    lower = epsilon + _log_tail(epsilon * s + 1 / (2 * s))
    return max(0.0, upper - math.exp(lower)) if lower < 0 else 0.0


def gaussian_epsilon(delta: float, noise_multiplier: float) -> float:
    """Least epsilon for which a Gaussian mechanism is (epsilon, delta)-private: the inverse of `gaussian_delta`.

    Parameters
    ----------
    delta : float
        Between 0 and 1.
    noise_multiplier : float
        Positive.

    Returns
    -------
    float
        Infinite beyond 500.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> from mfld import privacy
    >>> round(privacy.gaussian_epsilon(1e-5, 3.730631634944469), 6)
    1.0
    """
    delta = check_delta(delta)
    s = validation.real("noise_multiplier", noise_multiplier, positive=True)
    low, high = 0.0, _LARGEST_EPSILON
    if gaussian_delta(low, s) <= delta:
        return 0.0
    if gaussian_delta(high, s) > delta:
        return math.inf
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_delta(middle, s) > delta else (low, middle)
    return high


def noise_multiplier(epsilon: float, delta: float) -> float:
    """Least noise multiplier of a Gaussian mechanism that is (epsilon, delta)-private: the analytic calibration.

    Source: Balle, Wang 2018. The classical ``sqrt(2 log(1.25 / delta)) / epsilon`` is larger, and no guarantee above
    epsilon 1.

    Parameters
    ----------
    epsilon : float
        Positive, at most 500; infinity gives 0, which is no privacy.
    delta : float
        Between 0 and 1.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> from mfld import privacy
    >>> round(privacy.noise_multiplier(1.0, 1e-5), 4)
    3.7306
    """
    epsilon, delta = check_epsilon(epsilon), check_delta(delta)
    if epsilon == math.inf:
        return 0.0
    low, high = math.log(_LEAST), math.log(_MOST)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_delta(epsilon, math.exp(middle)) > delta else (low, middle)
    return math.exp(high)


def together(multipliers: Sequence[float]) -> float:
    """Noise multiplier of several Gaussian mechanisms on one table, ``(sum_i s_i**-2)**-0.5``.

    Parameters
    ----------
    multipliers : sequence of float
        At least 0; a 0 among them gives 0, and none at all infinity.

    Examples
    --------
    >>> from mfld import privacy
    >>> round(privacy.together([2.0, 2.0]), 4)
    1.4142
    """
    if isinstance(multipliers, (str, bytes)) or not isinstance(multipliers, Sequence):
        raise TypeError(f"multipliers must be a sequence of numbers, got {validation.show(multipliers)}")
    given = [validation.real("multipliers", each, non_negative=True) for each in multipliers]
    if not given:
        return math.inf
    least = min(given)  # in units of which no square overflows
    return 0.0 if least == 0 else least * sum((least / each) ** 2 for each in given) ** -0.5


class _System(random.Random):
    """The operating system's generator, asked for many bits at a time; neither copied nor kept."""

    def __init__(self) -> None:
        super().__init__(0)
        self._bits, self._left = 0, 0

    def getrandbits(self, k: int) -> int:
        if k > self._left:
            self._left = max(8 * _BYTES, k)
            self._bits = int.from_bytes(os.urandom((self._left + 7) // 8))
        found = self._bits & ((1 << k) - 1)
        self._bits >>= k
        self._left -= k
        return found

    def random(self) -> float:
        return self.getrandbits(53) / 2**53

    def seed(self, *arguments: Any) -> None:
        """There is none."""

    def __reduce__(self) -> Any:
        raise TypeError("a source of secret numbers is not to be copied")


def generator(seed: int | None = None) -> random.Random:
    """Source of randomness: the operating system's generator, or for tests one that a seed makes again.

    Warns
    -----
    PrivacyWarning
        If a seed is given: whoever knows it, or guesses it, takes the noise off.

    Examples
    --------
    >>> from mfld import privacy
    >>> 0 <= privacy.generator().randrange(6) < 6
    True
    """
    if seed is None:
        return _System()
    seed = validation.seed(seed)
    warnings.warn(
        f"NOT PRIVATE: the noise is made from the seed {seed}, and whoever knows it takes the noise off; leave the "
        "seed out for noise from the operating system's generator",
        PrivacyWarning,
        stacklevel=3,
    )
    return random.Random(seed)


def off_by(epsilon: Callable[[float], float], delta: float, distance: float) -> float:
    """Epsilon at delta where noise is not quite that of an account, but within a distance in total variation.

    What is (e, d)-private with the noise of the account is ``(e, d + (1 + exp(e)) distance)``-private.

    Parameters
    ----------
    epsilon : callable
        Of the account: falls with delta.
    delta, distance : float
    """
    # By half of delta the account claims more than in the end, so that what is set aside for the distance does.
    aside = (1 + math.exp(min(epsilon(delta / 2), _LARGEST_EPSILON))) * distance
    return epsilon(delta - aside) if aside <= delta / 2 else math.inf


@dataclass(frozen=True)
class GaussianMechanism:
    """Gaussian noise on sums over rows, on a grid.

    The grid's unit is 2**-30 of the noise's deviation ``noise_multiplier * sensitivity``. Rows are cut to the grid
    towards 0, which makes none longer, and their sum is exact; the noise is a whole number of units. Without noise,
    for a multiplier of 0, the unit is 2**-30 of the sensitivity.

    Parameters
    ----------
    noise_multiplier : float
        Deviation of the noise over the sensitivity, at least 0.
    sensitivity : float
        Positive: the most by which the sums of neighbouring tables differ, in Euclidean length.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import privacy
    >>> mechanism = privacy.GaussianMechanism(noise_multiplier=3.0, sensitivity=1.0)
    >>> total = mechanism.on_grid(np.full((1000, 2), 0.5)).sum(axis=0)
    >>> released = mechanism.release(total, privacy.generator())
    >>> bool(np.abs(released - 500).max() < 30)
    True
    """

    noise_multiplier: float
    sensitivity: float

    def __post_init__(self) -> None:
        multiplier = validation.real("noise_multiplier", self.noise_multiplier, non_negative=True)
        object.__setattr__(self, "noise_multiplier", multiplier)
        object.__setattr__(self, "sensitivity", validation.real("sensitivity", self.sensitivity, positive=True))

    @property
    def deviation(self) -> float:
        """Standard deviation of the noise."""
        return self.noise_multiplier * self.sensitivity

    @property
    def unit(self) -> float:
        """Distance of points of the grid."""
        return (self.deviation or self.sensitivity) / _UNITS

    def on_grid(self, values: ArrayLike) -> NDArray[np.int64]:
        """Values in units of the grid, cut towards 0, so that sums of them are exact.

        Raises
        ------
        TypeError, ValueError
            If they are no finite reals, or so large that sums of them would not fit into 64 bits.
        """
        given = validation.array("values", values, np.float64)
        units = given / self.unit
        if units.size and np.abs(units).max() > 2**40:
            raise ValueError(f"values must be below {2**40 * self.unit:g} in size, got {np.abs(given).max():g}")
        return np.asarray(np.trunc(units), np.int64)

    def release(self, total: NDArray[np.int64], source: random.Random) -> NDArray[np.float64]:
        """A sum in units of the grid, with noise, in units of the values: what may be published."""
        flat = [int(each) for each in total.ravel()]
        if self.noise_multiplier > 0:
            flat = [each + discrete_gaussian(_UNITS, source) for each in flat]
        return np.array([each * self.unit for each in flat]).reshape(total.shape)


def discrete_gaussian(deviation: int, source: random.Random) -> int:
    """A whole number k drawn with probability in proportion to ``exp(-k**2 / (2 deviation**2))``, exactly.

    Whole numbers only: no floating-point number is made. Source: algorithms 1 to 3 of Canonne, Kamath, Steinke 2020,
    "The discrete Gaussian for differential privacy".

    Parameters
    ----------
    deviation : int
        At least 1 and at most 2**64.
    source : random.Random

    Examples
    --------
    >>> from mfld import privacy
    >>> abs(privacy.discrete_gaussian(10, privacy.generator())) < 200
    True
    """
    deviation = validation.integer("deviation", deviation, 1, 2**64)
    validation.instance("source", source, random.Random, "a random.Random, like generator()")
    square, scale = deviation**2, deviation + 1
    while True:
        size = _discrete_laplace(scale, source)
        # (|k| - s**2 / t)**2 / (2 s**2) with the denominators brought together
        if _exponential((abs(size) * scale - square) ** 2, 2 * square * scale**2, source):
            return size


def _discrete_laplace(scale: int, source: random.Random) -> int:
    """A whole number k drawn with probability in proportion to ``exp(-|k| / scale)``."""
    while True:
        rest = source.randrange(scale)
        if not _exponential(rest, scale, source):
            continue
        turns = 0
        while _exponential(1, 1, source):
            turns += 1
        size = rest + scale * turns
        negative = source.getrandbits(1)
        if size or not negative:
            return -size if negative else size


def _exponential(numerator: int, denominator: int, source: random.Random) -> bool:
    """True with probability ``exp(-numerator / denominator)``."""
    while numerator > denominator:
        if not _exponential(1, 1, source):
            return False
        numerator -= denominator
    k = 1
    while source.randrange(denominator * k) < numerator:
        k += 1
    return k % 2 == 1


def _log_tail(x: float) -> float:
    """Logarithm of the normal probability above x >= 0."""
    if x < 30:
        return math.log(math.erfc(x / math.sqrt(2)) / 2)
    x = min(x, 1e100)
    return -(x**2) / 2 - math.log(x * math.sqrt(2 * math.pi)) + math.log1p(-1 / x**2 + 3 / x**4)


@dataclass(frozen=True)
class Expense:
    """A release, and what it cost.

    Attributes
    ----------
    what : str
        What was released.
    noise_multiplier : float
        Deviation of its noise over its sensitivity.
    sensitivity : float
    n_values : int
        How many numbers were released.
    delta : float
        Probability of failure beside that of the Gaussian noise: of what passes a threshold that it should not.
    """

    what: str
    noise_multiplier: float
    sensitivity: float
    n_values: int = 1
    delta: float = 0.0


@dataclass(frozen=True)
class Ledger:
    """All releases from one table, and what they cost together.

    Attributes
    ----------
    expenses : tuple of Expense
    neighbours : {"replace", "add_remove"}
        Which tables count as neighbours: those that differ in one row, or by one row.

    Examples
    --------
    >>> from mfld import privacy
    >>> s = privacy.noise_multiplier(1.0, 1e-5)
    >>> once = privacy.Ledger((privacy.Expense("embedding", s, 2.0),))
    >>> round(once.epsilon(1e-5), 3), round((once + once).epsilon(1e-5), 3)
    (1.0, 1.465)
    """

    expenses: tuple[Expense, ...] = ()
    neighbours: str = "replace"

    def __add__(self, other: Ledger) -> Ledger:
        if other.expenses and self.expenses and other.neighbours != self.neighbours:
            raise ValueError(f"neighbours must be the same in both, got {self.neighbours} and {other.neighbours}")
        return Ledger(self.expenses + other.expenses, self.neighbours if self.expenses else other.neighbours)

    @property
    def noise_multiplier(self) -> float:
        """That of one Gaussian mechanism that costs as much."""
        return together([each.noise_multiplier for each in self.expenses])

    def epsilon(self, delta: float) -> float:
        """Least epsilon for which all releases together are (epsilon, delta)-private.

        Raises
        ------
        TypeError, ValueError
            If delta is not between 0 and 1.
        """
        delta = check_delta(delta)
        multiplier = self.noise_multiplier
        if multiplier == math.inf:
            return 0.0
        if multiplier == 0:
            return math.inf
        failing = sum(each.delta for each in self.expenses)
        distance = _DISTANCE * sum(each.n_values for each in self.expenses)
        left = delta - failing
        if left <= 0:
            return math.inf
        return off_by(lambda own: gaussian_epsilon(own, multiplier), left, distance)

    def as_json(self) -> dict[str, Any]:
        """Numbers and texts from which `from_json` makes it again."""
        return {"neighbours": self.neighbours, "expenses": [vars(each) for each in self.expenses]}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Ledger:
        expenses = tuple(Expense(**each) for each in stored["expenses"])
        return cls(expenses, validation.choice("neighbours", stored["neighbours"], NEIGHBOURS))
