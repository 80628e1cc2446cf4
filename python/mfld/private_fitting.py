"""From data to a private run: `mfld.fitting` where no choice may look at rows.

* Features are scaled by bounds: public ones, or bounds that a tenth of the budget pays for. Their mean, which another
  tenth pays for, is subtracted: gradients are cut to one length, and what all rows share takes much of it.
* Steps have `mfld.Clipped` gradients, with the least noise for which all of them cost what is left of epsilon at delta.
  They see all rows up to 2048 of them: fewer would need as much noise for each, and have a coarser account.
* The step size is that of uniform rows within the bounds and of random classes, which are nobody's; or shorter, so that
  K steps of length h with gradients of at most C come no further than ``h K C = r**(2/3) / 2`` with
  ``r = sqrt(K) q n / s``: the noise, of multiplier s on q n rows a step, comes ``h K C / r`` far. Power and factor were
  chosen on digits, breast_cancer and two tables made by programs, at epsilon 0.5 to 8.

Neighbouring tables differ in one row, there or not; the number of rows, and the classes, are public.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import fitting, privacy, validation
from mfld.clipping import Clipped
from mfld.fitting import Scaling, TrainedRisk
from mfld.privacy import secret
from mfld.privacy.domains import check_bounds
from mfld.privacy.mechanism import check_delta_of_rows, check_epsilon
from mfld.validation import FloatArray

_DOMAINS = 0.1  # share of the budget for bounds that are not given
_PUBLIC_ROWS = 512
_CENTRE = 0.1  # share of the budget for the mean of features
_COARSEST = 0.5  # noise of the mean over the range that it may have, beyond which the middle of the bounds does better
_LEAST_BATCH, _LEAST_SHARE = 2048, 0.1  # rows of a step, on average
_MAX_NORM = 1.0
_HALF = math.sqrt(3)  # range of uniform numbers of variance 1
_ROWS = 4096  # that are copied at a time


@dataclass(frozen=True, eq=False)
class PrivateChoices:
    """Choices of a private training.

    Attributes
    ----------
    scaling : Scaling
        Of features to inputs.
    gradient : Clipped
    longest_step : float
    spent : float
        Epsilon at delta that bounds, mean and all steps cost together.
    delta : float
    """

    scaling: Scaling
    gradient: Clipped
    longest_step: float
    spent: float
    delta: float

    def curvature(
        self,
        make: Callable[[FloatArray, NDArray[np.int64]], TrainedRisk],
        n_features: int,
        n_classes: int,
        n_particles: int,
    ) -> float:
        """Curvature for `mfld.fitting.stable_step_size`: of nobody's rows, or that of the longest step.

        Parameters
        ----------
        make : callable
            ``make(inputs, classes) -> risk``.
        n_features, n_classes, n_particles : int
        """
        rng = np.random.default_rng(0)
        inputs = rng.uniform(-_HALF, _HALF, size=(_PUBLIC_ROWS, n_features))
        risk = make(inputs, rng.integers(0, n_classes, size=_PUBLIC_ROWS))
        largest = fitting.largest_curvature(risk, n_particles, 0, "float32", 1)
        return max(largest, 2 * fitting.STEP_SHARE / self.longest_step)


def choose(
    values: FloatArray,
    n_steps: int,
    *,
    epsilon: float,
    delta: float,
    n_particles: int,
    n_classes: int,
    bounds: ArrayLike | Sequence[tuple[float, float] | None] | None,
    standardise: bool = True,
    batch_size: int | None = None,
    names: Sequence[str] | None = None,
) -> PrivateChoices:
    """Scaling, and gradients with the noise that so many steps need.

    Parameters
    ----------
    values : ndarray, shape (n, n_features)
        Rows: looked at for bounds that are not given and for a mean, with noise, and for nothing else.
    n_steps : int
    epsilon, delta : float
        What all may cost.
    n_particles, n_classes : int
        Of the network: the more numbers have noise, the more of delta is for what it lacks to Gaussian noise.
    bounds : array_like, shape (n_features, 2) or (2,), or sequence of pairs and None, optional
        Public bounds of features, or of all of them; None where they are to be estimated.
    standardise : bool
        Whether features are scaled at all: else they need no bounds.
    batch_size : int, optional
        Rows of a step on average. Default: 2048, or a tenth of them where that is more.
    names : sequence of str, optional
        Of the features, for messages.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; if the budget does not do for bounds, or for the noise.
    """
    n, n_features = values.shape
    check_delta_of_rows(delta, n)
    n_numbers = n_steps * n_particles * (n_features + n_classes + 1)
    epsilon = check_epsilon(epsilon)
    if epsilon == math.inf:
        raise ValueError("epsilon must be finite, for there is no privacy without noise")
    aside = (1 + math.exp(epsilon)) * n_numbers * secret.DISTANCE  # as in mechanism.off_by, at most
    if aside > delta / 2:
        raise ValueError(
            f"epsilon must be smaller or delta larger, got {epsilon:g} and {delta:g}: the noise of {n_numbers} numbers "
            f"is Gaussian up to 2**-64 each, which takes {aside:.2g} of delta"
        )
    of_steps = delta - aside
    releases: list[float] = []
    scaling = Scaling.none(n_features)
    if standardise:
        total = privacy.noise_multiplier(epsilon, delta)
        ends = _ends(bounds, n_features)
        unknown = [j for j, pair in enumerate(ends) if pair is None]
        for j in unknown:
            own = total / math.sqrt(_DOMAINS / len(unknown))
            name = f"column {j} of X" if names is None else names[j]
            least, most, paid = privacy.private_bounds(values[:, j], own, neighbours="add_remove", name=name)
            ends[j] = least, most
            releases += [expense.noise_multiplier for expense in paid]
        low, high = np.array(ends, np.float64).T
        half = (high - low) / 2
        # As wide as uniform numbers of variance 1; what is beyond is drawn in.
        scaling = Scaling(low + half, half / _HALF, np.full(n_features, _HALF))
        of_mean = total / math.sqrt(_CENTRE)
        if of_mean * math.sqrt(n_features) <= _COARSEST * n:
            centre = scaling.centre + scaling.scale * private_mean(values, scaling, of_mean)
            # A row at one bound is then up to twice as far from the mean as from the middle.
            scaling = Scaling(centre, scaling.scale, np.full(n_features, 2 * _HALF))
            releases.append(of_mean)
    expected = max(_LEAST_BATCH, _LEAST_SHARE * n) if batch_size is None else batch_size
    rate = min(1.0, expected / n)
    multiplier = privacy.training_multiplier(epsilon, of_steps, rate, n_steps, releases=releases)
    gradient = Clipped(_MAX_NORM, multiplier, rate)
    spent = privacy.training_epsilon(np.full(n_steps, multiplier), rate, of_steps, releases=releases)
    ratio = math.sqrt(n_steps) * rate * n / multiplier
    longest = ratio ** (2 / 3) / 2 / (n_steps * _MAX_NORM)
    return PrivateChoices(scaling, gradient, longest, spent, delta)


def private_mean(values: FloatArray, scaling: Scaling, noise_multiplier: float) -> NDArray[np.float64]:
    """Mean of scaled features cut to plus or minus root 3, with noise, for neighbours with a row more or less.

    The row that is more or less has the length ``sqrt(3 d)`` at most: that is the sensitivity of the sum. The number of
    rows, by which it is divided, is public.

    Parameters
    ----------
    values : ndarray, shape (n, d)
    scaling : Scaling
    noise_multiplier : float

    Returns
    -------
    ndarray, shape (d,)
    """
    n, d = values.shape
    # A little more, for the rounding of root 3.
    mechanism = privacy.GaussianMechanism(noise_multiplier, _HALF * math.sqrt(d) * (1 + 1e-12))
    total = np.zeros(d, np.int64)
    for start in range(0, n, _ROWS):
        inputs = scaling.apply(values[start : start + _ROWS], np.float64)
        total += mechanism.on_grid(np.clip(inputs, -_HALF, _HALF)).sum(axis=0)
    mean: NDArray[np.float64] = np.clip(mechanism.release(total, privacy.generator()) / n, -_HALF, _HALF)
    return mean


def _ends(bounds: Any, n_features: int) -> list[tuple[float, float] | None]:
    """Bounds of each feature, checked; None where there are none."""
    if bounds is None:
        return [None] * n_features
    pairs: list[Any]
    if isinstance(bounds, (list, tuple)) and any(pair is None for pair in bounds):
        pairs = list(bounds)
    else:
        given = validation.array("bounds", bounds, np.float64).astype(np.float64)
        pairs = list(np.tile(given, (n_features, 1)) if given.shape == (2,) else given)
    if len(pairs) != n_features:
        raise ValueError(f"bounds must have shape ({n_features}, 2) or (2,), got {np.shape(bounds)}")
    ends: list[tuple[float, float] | None] = []
    for pair in pairs:
        if pair is None:
            ends.append(None)
            continue
        own = validation.array("bounds", pair, np.float64)
        if own.shape != (2,):
            raise ValueError(f"bounds must be low and high, increasing, got {validation.show(pair)}")
        check_bounds("bounds", float(own[0]), float(own[1]))
        ends.append((float(own[0]), float(own[1])))
    return ends
