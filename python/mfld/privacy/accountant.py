"""Accounts of noisy training: Renyi divergences of sampled Gaussian mechanisms, and of last iterates."""

from __future__ import annotations

import functools
import math
import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import extras, validation
from mfld.privacy.mechanism import check_delta, check_epsilon, gaussian_epsilon, together

_ORDERS = np.concatenate([1 + np.geomspace(0.01, 1, 30)[:-1], np.geomspace(2, 1024, 80)])
_CELLS = 40  # of the quadrature, in a deviation of the noise
_REACH = 14.0
_LEVELS = 1000  # of noise, to a factor of e
_GRID = 1e-6  # by which noise is taken for less than it is: for a billion numbers `mfld.privacy.secret` adds that


def secret_seed() -> int:
    """Seed of 64 bits from the operating system's generator, for runs whose noise counts for privacy.

    Examples
    --------
    >>> from mfld import privacy
    >>> privacy.secret_seed() >= 2**32
    True
    """
    return secrets.randbelow(2**64 - 2**32) + 2**32


def sampled_gaussian(order: float, rate: float, noise_multiplier: float) -> float:
    """Renyi divergence of a Gaussian mechanism on rows that are sampled independently, for add/remove neighbours.

    ``log E[(1 - q + q exp((2 z - 1) / (2 s**2)))**a] / (a - 1)``, z ~ N(0, s**2), by quadrature, with the order a, the
    rate q and the noise multiplier s. Source: Mironov, Talwar, Zhang 2019, "Renyi differential privacy of the sampled
    Gaussian mechanism".

    Parameters
    ----------
    order : float
        Above 1 and at most 10000.
    rate : float
        Between 0 and 1.
    noise_multiplier : float
        Between 0.01 and 1e6.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> from mfld import privacy
    >>> round(50 * privacy.sampled_gaussian(5.0, 0.01, 2.5), 10)
    0.0021807566
    """
    a = validation.real("order", order, positive=True)
    q = validation.real("rate", rate, positive=True)
    s = validation.real("noise_multiplier", noise_multiplier, positive=True)
    if not 1 < a <= 1e4:
        raise ValueError(f"order must be above 1 and at most 10000, got {a:g}")
    if q > 1:
        raise ValueError(f"rate must be at most 1, got {q:g}")
    if not 0.01 <= s <= 1e6:
        raise ValueError(f"noise_multiplier must be between 0.01 and 1e6, got {s:g}")
    return _divergence(a, q, s)


@functools.lru_cache(maxsize=2**17)  # a budget asks for the same ones at each look
def _divergence(a: float, q: float, s: float) -> float:
    if q == 1:
        return a / (2 * s**2)
    cell = s / _CELLS
    z = np.arange(-_REACH * s, a + _REACH * s, cell)
    ratio = np.logaddexp(math.log1p(-q), math.log(q) + (2 * z - 1) / (2 * s**2))
    logs = -(z**2) / (2 * s**2) + a * ratio
    top = float(logs.max())
    total = top + math.log(float(np.exp(logs - top).sum()) * cell / (s * math.sqrt(2 * math.pi)))
    return max(0.0, total / (a - 1))


def training_epsilon(
    noise_multipliers: ArrayLike,
    rate: ArrayLike,
    delta: float,
    *,
    releases: Sequence[float] = (),
    accountant: str = "rdp",
) -> float:
    """Epsilon at delta of steps with Gaussian noise on rows that are sampled independently, for add/remove neighbours.

    Each step may choose by what those before it have published. At the rate 1 all steps together are one Gaussian
    mechanism, whose epsilon is exact. Source: Dong, Roth, Su 2022, "Gaussian differential privacy".

    Parameters
    ----------
    noise_multipliers : array_like, shape (n_steps,)
        Of each step; 0 gives infinity.
    rate : float or array_like, shape (n_steps,)
        At which rows are sampled, at most 1.
    delta : float
        Between 0 and 1.
    releases : sequence of float
        Noise multipliers of Gaussian mechanisms on all rows that come beside the steps, such as bounds of columns.
    accountant : {"rdp", "pld"}
        Of rates below 1: Renyi divergences, converted as in Canonne, Kamath, Steinke 2020, proposition 12; or the
        privacy loss distributions of dp-accounting (extra ``privacy``), which are tighter.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    ImportError
        If the library is needed and not there.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import privacy
    >>> round(privacy.training_epsilon(np.full(1000, 4.0), 0.01, 1e-5), 2)
    0.3
    """
    given = validation.array("noise_multipliers", noise_multipliers, np.float64)
    validation.shape("noise_multipliers", given, ("n_steps",))
    delta = check_delta(delta)
    validation.choice("accountant", accountant, ("rdp", "pld"))
    if (given < 0).any():
        raise ValueError(f"noise_multipliers must be at least 0, got {given.min():g}")
    rates = validation.array("rate", rate, np.float64).astype(np.float64)
    if rates.ndim > 0:
        validation.shape("rate", rates, given.shape, "to match noise_multipliers")
    outside = rates[(rates <= 0) | (rates > 1)]
    if len(outside):
        raise ValueError(f"rate must be positive and at most 1, got {outside[0]:g}")
    rates = np.broadcast_to(rates, given.shape)
    return composed(
        np.ones(given.shape), rates, given.astype(np.float64), delta, beside=_beside(releases), accountant=accountant
    )


def composed(
    counts: NDArray[np.float64],
    rates: NDArray[np.float64],
    noise_multipliers: NDArray[np.float64],
    delta: float,
    *,
    beside: float = math.inf,
    accountant: str = "rdp",
) -> float:
    """`training_epsilon` of kinds of steps, shapes (k,), each with how many there are of it."""
    if min(float(noise_multipliers.min(initial=math.inf)), beside) < 0.01:
        return math.inf
    # Steps on all rows are Gaussian mechanisms, and one together with what is released beside them.
    whole = rates == 1
    of_whole = float(np.sum(counts[whole] * noise_multipliers[whole] ** -2.0))
    if whole.all():
        return _exact(of_whole, beside, delta)
    beside = (of_whole + beside**-2) ** -0.5 if of_whole > 0 else beside
    counts, rates, own = counts[~whole], rates[~whole], noise_multipliers[~whole]
    # Steps of about the same noise are taken together, with the least of it.
    levels = rounded(np.minimum(own, 1e6)) if len(np.unique(own)) > 20 else own
    kinds, places = np.unique(np.stack([rates, np.clip(levels, 0.01, 1e6)], axis=1), axis=0, return_inverse=True)
    numbers = np.bincount(places.ravel(), weights=counts)
    steps = [(int(n), q, s) for n, (q, s) in zip(numbers.tolist(), kinds.tolist(), strict=True)]
    return (_loss_distributions if accountant == "pld" else _renyi)(steps, delta, beside)


def rounded(noise_multipliers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positive noise multipliers to a thousandth, from below."""
    found: NDArray[np.float64] = np.exp(np.floor(np.log(noise_multipliers) * _LEVELS) / _LEVELS)
    return found


def _exact(steps: float, beside: float, delta: float) -> float:
    """Epsilon of steps on all rows, by the sum of ``s**-2`` over them, and of what is released beside them."""
    inverse = math.sqrt(steps + beside**-2)
    return gaussian_epsilon(delta, (1 - _GRID) / inverse) if inverse > 0 else 0.0


def _beside(releases: Any) -> float:
    """Noise multiplier of all releases beside the steps together, checked."""
    if isinstance(releases, (list, tuple)) and not releases:
        return math.inf
    given = validation.array("releases", releases, np.float64)
    validation.shape("releases", given, ("k",), "(noise multipliers)")
    if (given < 0).any():
        raise ValueError(f"releases must be at least 0, got {given.min():g}")
    return together(given.astype(float).tolist())


def _renyi(steps: Sequence[tuple[int, float, float]], delta: float, beside: float) -> float:
    """Epsilon of numbers of steps by rate and noise multiplier, and of what is released beside them."""
    best = math.inf
    for a in _ORDERS.tolist():
        spent = a / 2 / beside / beside + sum(n * _divergence(a, q, s) for n, q, s in steps)
        best = min(best, spent + math.log1p(-1 / a) - (math.log(delta) + math.log(a)) / (a - 1))
    return max(0.0, best)


def training_multiplier(
    epsilon: float, delta: float, rate: float, n_steps: int, *, releases: Sequence[float] = ()
) -> float:
    """Least noise multiplier, within 1e-3 of it, with which so many steps cost epsilon at delta: by `training_epsilon`.

    Parameters
    ----------
    epsilon, delta : float
    rate : float
        At which rows are sampled, at most 1.
    n_steps : int
    releases : sequence of float
        As in `training_epsilon`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; if the releases leave nothing, or no noise would do.

    Examples
    --------
    >>> from mfld import privacy
    >>> round(privacy.training_multiplier(1.0, 1e-5, 0.01, 1000), 2)
    1.51
    """
    epsilon, delta = check_epsilon(epsilon), check_delta(delta)
    if epsilon == math.inf:
        raise ValueError("epsilon must be finite, for there is no privacy without noise")
    n_steps = validation.integer("n_steps", n_steps, 1, 10**9)

    beside = _beside(releases)
    rate = validation.real("rate", rate, positive=True)
    if rate > 1:
        raise ValueError(f"rate must be at most 1, got {rate:g}")

    def spent(multiplier: float) -> float:
        if rate == 1:
            return _exact(n_steps * multiplier**-2, beside, delta)
        return _renyi([(n_steps, rate, multiplier)], delta, beside)

    low, high = 0.05, 1e4
    if beside < 0.01 or spent(high) > epsilon:
        raise ValueError(
            f"epsilon must be larger for {n_steps} steps at this rate, delta and releases, got {epsilon:g}"
        )
    while high / low > 1 + 1e-3:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if spent(middle) > epsilon else (low, middle)
    return high


def _loss_distributions(steps: Sequence[tuple[int, float, float]], delta: float, beside: float) -> float:
    library: Any = extras.library("dp_accounting", "privacy", "accountant='pld'")
    extras.library("dp_accounting.pld", "privacy", "accountant='pld'")
    account = library.pld.PLDAccountant()
    for n, q, s in steps:
        account.compose(library.PoissonSampledDpEvent(q, library.GaussianDpEvent(s)), n)
    if beside < math.inf:
        account.compose(library.GaussianDpEvent(beside))
    return float(account.get_epsilon(delta))


def last_iterate(
    objective: Any,
    order: float,
    *,
    sensitivity: float,
    n_rows: int,
    convexity: float,
    smoothness: float,
    step_size: float,
    temperature: float,
    n_steps: int,
    quadratic: bool = False,
) -> float:
    """Renyi divergence of the last particle of Langevin steps on a strongly convex mean of losses, others kept secret.

    For ``theta - h grad V + sqrt(2 h T) xi`` from a start that knows no row, V a mean over n rows that is
    lambda-strongly convex, whatever one row is replaced by, and the gradients of two losses nowhere further apart than
    S: at most ``a S**2 / (lambda T n**2) (1 - exp(-lambda h K / 2))``, for ``h <= 1 / smoothness``. For quadratic
    losses of one Hessian lambda I exactly ``a D**2 / (2 v)`` with ``D <- (1 - h lambda) D + h S / n`` and
    ``v <- (1 - h lambda)**2 v + 2 h T``. One particle; N of them that do not interact cost N times as much. Source:
    Chourasia, Ye, Shokri 2021, "Differential privacy dynamics of Langevin diffusion and noisy gradient descent".

    Parameters
    ----------
    objective : Objective
        A potential: the drift of particles that interact is not covered.
    order : float
        Above 1: a.
    sensitivity : float
        S, of gradients.
    n_rows, n_steps : int
    convexity, smoothness : float
        lambda, and the Lipschitz constant of the gradient, ridge included.
    step_size, temperature : float
        Positive: h and T.
    quadratic : bool
        The exact value.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; if particles interact, or steps are too long.

    Examples
    --------
    >>> import mfld
    >>> from mfld import privacy
    >>> well = mfld.Potential(lambda x: x, n_coordinates=1)
    >>> size = dict(sensitivity=1.0, n_rows=100, convexity=1.0, smoothness=1.0, step_size=0.1, temperature=0.1)
    >>> bound = privacy.last_iterate(well, 2.0, n_steps=1000, **size)
    >>> exact = privacy.last_iterate(well, 2.0, n_steps=1000, quadratic=True, **size)
    >>> 0 < exact < bound < 0.0021
    True
    """
    if not getattr(objective, "linear", False):
        raise TypeError(
            "objective must be a Potential, whose particles do not interact: no bound on the last iterate is known for "
            f"the drift of a measure, got {validation.show(objective)}"
        )
    a = validation.real("order", order, positive=True)
    if a <= 1:
        raise ValueError(f"order must be above 1, got {a:g}")
    s = validation.real("sensitivity", sensitivity, positive=True) / validation.integer("n_rows", n_rows, 1, 10**15)
    convexity = validation.real("convexity", convexity, positive=True)
    smoothness = validation.real("smoothness", smoothness, positive=True)
    h = validation.real("step_size", step_size, positive=True)
    temperature = validation.real("temperature", temperature, positive=True)
    n_steps = validation.integer("n_steps", n_steps, 1, 10**9)
    for name, value in (("sensitivity", s), ("convexity", convexity), ("step_size", h), ("temperature", temperature)):
        if not 1e-50 < value < 1e50:
            raise ValueError(f"{name} must be between 1e-50 and 1e50, got {value:g}")
    if convexity > smoothness:
        raise ValueError(f"convexity must be at most smoothness, {smoothness:g}, got {convexity:g}")
    if h * smoothness > 1:
        raise ValueError(f"step_size must be at most 1 / smoothness, {1 / smoothness:g}, got {h:g}")
    if not validation.boolean("quadratic", quadratic):
        return a * s**2 / (convexity * temperature) * -math.expm1(-convexity * h * n_steps / 2)
    lost = h * convexity  # of a distance, in a step; 1 - lost may be 1
    log_kept = math.log1p(-lost) if lost < 1 else -math.inf
    distance = h * s * -math.expm1(n_steps * log_kept) / lost
    variance = 2 * h * temperature * -math.expm1(2 * n_steps * log_kept) / (lost * (2 - lost))
    return a * distance**2 / (2 * variance)
