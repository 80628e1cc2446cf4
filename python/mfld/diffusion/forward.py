"""Forward processes: how data turn into noise."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import validation
from mfld.mixtures import GaussianMixture
from mfld.validation import FloatArray

Times = NDArray[np.float64]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)
_DIFFERENCE = 1e-4  # of central differences, relative to the time
_HALVINGS = 200
_OF_ROUNDING = 1e-9  # relative: what comes of the ratio of the horizon and back is not beyond it


class Forward(ABC):
    """Forward process ``dX = f(t) X dt + g(t) dB``, by its transition ``X_t | x_0 ~ N(alpha(t) x_0, sigma(t)**2 I)``.

    Time 0 is that of the data, alpha = 1 and sigma = 0 there; ``sigma / alpha`` grows with the time. A subclass defines
    `alpha` and `sigma` of arrays of times; what follows from them by differences, quadrature or bisection it may define
    as well where it knows closed forms. Source: Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole 2021, "Score-based
    generative modeling through stochastic differential equations".

    Attributes
    ----------
    horizon : float
        The last time T, at which ``N(0, sigma(T)**2 I)`` stands for the law of X_T.
    earliest : float
        Where the way back stops by default: scores grow like ``1 / sigma**2`` below.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import diffusion
    >>> class Linear(diffusion.Forward):
    ...     horizon, earliest = 0.999, 1e-3
    ...     def alpha(self, time):
    ...         return 1 - np.asarray(time)
    ...     def sigma(self, time):
    ...         return np.asarray(time)
    >>> round(Linear().time(1.0), 6)                    # where sigma = alpha
    0.5
    """

    horizon: float
    earliest: float

    @abstractmethod
    def alpha(self, time: ArrayLike) -> Times:
        """Factor of the data at times."""

    @abstractmethod
    def sigma(self, time: ArrayLike) -> Times:
        """Standard deviation of the noise at times."""

    def ratio(self, time: ArrayLike) -> Times:
        """Noise to signal, ``sigma / alpha``, at times."""
        return np.asarray(self.sigma(time) / self.alpha(time))

    def time(self, ratio: float) -> float:
        """The time at which ``sigma / alpha`` has this value, between 0 and the horizon.

        Raises
        ------
        TypeError, ValueError
            If the ratio is no number, or none that is reached up to the horizon.
        """
        ratio = self.checked_ratio(ratio)
        return self._when(lambda time: float(self.ratio(time)) >= ratio, 0.0, self.horizon)

    def rates(self, time: float) -> tuple[float, float]:
        """The numbers ``f(t)`` and ``g(t)**2``: by central differences unless a subclass knows better."""
        h = _DIFFERENCE * max(time, self.earliest)
        steps = time + h * np.array([-2.0, -1.0, 1.0, 2.0])
        weights = np.array([1.0, -8.0, 8.0, -1.0]) / (12 * h)
        f = float(weights @ np.log(self.alpha(steps)))
        growth = float(weights @ self.ratio(steps) ** 2)
        return f, float(self.alpha(time)) ** 2 * growth

    def reach(self, late: float, early: float) -> float:
        """The integral of ``g**2 / (2 alpha)`` from one time to a later one, which multiplies scores."""
        middle, half = (late + early) / 2, (late - early) / 2
        values = [g2 / (2 * float(self.alpha(t))) for t in middle + half * _NODES for _, g2 in [self.rates(float(t))]]
        return half * float(_WEIGHTS @ np.array(values))

    def share_of_reach(self, late: float, early: float, share: float) -> float:
        """The time from which on, backwards from the late one, `reach` has this share of all up to the early one."""
        whole = share * self.reach(late, early)
        return self._when(lambda time: self.reach(late, time) <= whole, early, late)

    def marginal(self, mixture: GaussianMixture, time: float) -> GaussianMixture:
        """The law of X_t where X_0 has that of a Gaussian mixture.

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or out of range.
        """
        validation.instance("mixture", mixture, GaussianMixture, "a GaussianMixture")
        time = self.checked("time", time)
        alpha, noise = float(self.alpha(time)), float(self.sigma(time)) ** 2 * np.eye(mixture.n_coordinates)
        return GaussianMixture(mixture.weights, alpha * mixture.means, alpha**2 * mixture.covariances + noise)

    def diffused(self, points: ArrayLike, normals: ArrayLike, time: ArrayLike) -> FloatArray:
        """Points ``alpha(t) x + sigma(t) xi``, with a time for all of them or one each, shape (n, p).

        Raises
        ------
        TypeError, ValueError
            If an array is of the wrong kind or shape, or a time out of range.
        """
        x = validation.array("points", points)
        validation.shape("points", x, ("n", "p"))
        xi = validation.array("normals", normals, x.dtype)
        validation.shape("normals", xi, x.shape, "to match points")
        times = validation.array("time", time, np.float64)
        if times.ndim:
            validation.shape("time", times, (len(x),), "to match points")
        for t in np.unique([times.min(), times.max()]):
            self.checked("time", float(t))
        alpha, sigma = (np.broadcast_to(f(times), len(x))[:, np.newaxis] for f in (self.alpha, self.sigma))
        return np.asarray(alpha.astype(x.dtype) * x + sigma.astype(x.dtype) * xi)

    def checked(self, name: str, time: float) -> float:
        """A time between 0 and the horizon."""
        time = validation.real(name, time, non_negative=True)
        if time > self.horizon:
            raise ValueError(f"{name} must be at most the horizon, {self.horizon:g}, got {time:g}")
        return time

    def checked_ratio(self, ratio: float) -> float:
        """A ratio ``sigma / alpha`` between 0 and that of the horizon."""
        ratio = validation.real("ratio", ratio, non_negative=True)
        with np.errstate(divide="ignore"):
            last = float(self.ratio(self.horizon))
        if ratio > last * (1 + _OF_ROUNDING):
            raise ValueError(
                f"ratio must be at most {last:g}, sigma / alpha of the horizon {self.horizon:g}, got {ratio:g}"
            )
        return min(ratio, last)

    @staticmethod
    def _when(reached: Callable[[float], bool], low: float, high: float) -> float:
        """The first time from which on something is reached, by bisection to the last bit."""
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            if not low < middle < high:
                break
            low, high = (low, middle) if reached(middle) else (middle, high)
        return high


class _VariancePreserving(Forward):
    """Processes with ``alpha**2 + sigma**2 = 1``, by the logarithm of alpha."""

    @abstractmethod
    def log_alpha(self, time: ArrayLike) -> Times:
        """Logarithm of alpha at times."""

    @abstractmethod
    def when(self, log_alpha: float) -> float:
        """The time at which alpha has this logarithm."""

    def alpha(self, time: ArrayLike) -> Times:
        return np.asarray(np.exp(self.log_alpha(time)))

    def sigma(self, time: ArrayLike) -> Times:
        return np.asarray(np.sqrt(-np.expm1(2 * self.log_alpha(time))))

    def reach(self, late: float, early: float) -> float:
        first, second = (float(self.log_alpha(time)) for time in (late, early))
        return math.exp(-first) * -math.expm1(first - second)

    def share_of_reach(self, late: float, early: float, share: float) -> float:
        first, second = (float(self.log_alpha(time)) for time in (late, early))
        return self.when(first - math.log1p(share * math.expm1(first - second)))

    def time(self, ratio: float) -> float:
        ratio = self.checked_ratio(ratio)
        return min(self.when(-math.log1p(ratio * ratio) / 2), self.horizon)


@dataclass(frozen=True)
class OrnsteinUhlenbeck(_VariancePreserving):
    """The process ``dX = -X dt + sqrt(2) dB``: ``alpha = exp(-t)``, ``sigma**2 = 1 - exp(-2 t)``.

    Parameters
    ----------
    horizon, earliest : float
        See `Forward`; positive, and the horizon is later.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> from mfld import diffusion
    >>> forward = diffusion.OrnsteinUhlenbeck()
    >>> forward.alpha(1.0).round(4), forward.sigma(1.0).round(4), forward.rates(1.0)
    (np.float64(0.3679), np.float64(0.9299), (-1.0, 2.0))
    """

    horizon: float = 5.0
    earliest: float = 1e-3

    def __post_init__(self) -> None:
        _check_ends(self)

    def log_alpha(self, time: ArrayLike) -> Times:
        return np.negative(np.asarray(time, np.float64))

    def when(self, log_alpha: float) -> float:
        return -log_alpha

    def rates(self, time: float) -> tuple[float, float]:
        return -1.0, 2.0


@dataclass(frozen=True)
class VariancePreserving(_VariancePreserving):
    """The process ``dX = -beta(t) / 2 X dt + sqrt(beta(t)) dB`` with beta linear between two values on [0, 1].

    Parameters
    ----------
    beta_min, beta_max : float
        Positive.
    earliest : float
        See `Forward`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> from mfld import diffusion
    >>> forward = diffusion.VariancePreserving()
    >>> forward.alpha(1.0).round(5)
    np.float64(0.00657)
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    earliest: float = 1e-4

    horizon: ClassVar[float] = 1.0  # type: ignore[misc]

    def __post_init__(self) -> None:
        for name in ("beta_min", "beta_max"):
            object.__setattr__(self, name, validation.real(name, getattr(self, name), positive=True))
        _check_ends(self)

    def log_alpha(self, time: ArrayLike) -> Times:
        t = np.asarray(time, np.float64)
        return np.asarray(-t / 2 * (self.beta_min + t / 2 * (self.beta_max - self.beta_min)))

    def when(self, log_alpha: float) -> float:
        root = math.sqrt(self.beta_min**2 - 4 * log_alpha * (self.beta_max - self.beta_min))
        return -4 * log_alpha / (self.beta_min + root)

    def rates(self, time: float) -> tuple[float, float]:
        beta = self.beta_min + time * (self.beta_max - self.beta_min)
        return -beta / 2, beta


@dataclass(frozen=True)
class VarianceExploding(Forward):
    """The process ``dX = sqrt(2 t) dB``: ``alpha = 1``, ``sigma = t``.

    Parameters
    ----------
    horizon, earliest : float
        See `Forward`; the horizon is the largest deviation of the noise, which should be many times that of the data.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> from mfld import diffusion
    >>> diffusion.VarianceExploding().rates(3.0)
    (0.0, 6.0)
    """

    horizon: float = 80.0
    earliest: float = 2e-3

    def __post_init__(self) -> None:
        _check_ends(self)

    def alpha(self, time: ArrayLike) -> Times:
        return np.ones_like(np.asarray(time, np.float64))

    def sigma(self, time: ArrayLike) -> Times:
        return np.array(time, np.float64)

    def time(self, ratio: float) -> float:
        return self.checked_ratio(ratio)

    def rates(self, time: float) -> tuple[float, float]:
        return 0.0, 2 * time

    def reach(self, late: float, early: float) -> float:
        return (late - early) * (late + early) / 2

    def share_of_reach(self, late: float, early: float, share: float) -> float:
        return math.sqrt(late**2 - share * (late - early) * (late + early))


class Steps(_VariancePreserving):
    """A table of steps ``X_k = sqrt(1 - beta_k) X_(k-1) + sqrt(beta_k) xi``: time k is that after k steps.

    Between whole times the logarithm of alpha is interpolated linearly. Source: Ho, Jain, Abbeel 2020, "Denoising
    diffusion probabilistic models", whose time t is t + 1 here.

    Parameters
    ----------
    betas : array_like, shape (n,)
        Each between 0 and 1.

    Raises
    ------
    TypeError, ValueError
        If they are of the wrong kind or shape, or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import diffusion
    >>> diffusion.Steps(np.linspace(1e-4, 0.02, 1000)).alpha([0, 1000]).round(5)
    array([1.     , 0.00635])
    """

    def __init__(self, betas: ArrayLike) -> None:
        given = validation.array("betas", betas, np.float64)
        validation.shape("betas", given, ("n",))
        if (given <= 0).any() or (given >= 1).any():
            wrong = given[(given <= 0) | (given >= 1)][0]
            raise ValueError(f"betas must be above 0 and below 1, got {wrong:g}")
        self.betas = validation.frozen(given)
        self.horizon, self.earliest = float(len(given)), 1.0
        self._log_alphas = np.append(0.0, np.cumsum(np.log1p(-given)) / 2)

    def __repr__(self) -> str:
        return f"Steps({len(self.betas)} betas from {self.betas[0]:g} to {self.betas[-1]:g})"

    def log_alpha(self, time: ArrayLike) -> Times:
        return np.asarray(np.interp(np.asarray(time, np.float64), np.arange(len(self._log_alphas)), self._log_alphas))

    def when(self, log_alpha: float) -> float:
        return float(np.interp(-log_alpha, -self._log_alphas, np.arange(len(self._log_alphas))))

    def rates(self, time: float) -> tuple[float, float]:
        step = min(max(math.ceil(time), 1), len(self.betas))
        f = float(self._log_alphas[step] - self._log_alphas[step - 1])
        return f, -2 * f


def _check_ends(forward: Forward) -> None:
    for name in ("horizon", "earliest"):
        validation.real(name, getattr(forward, name), positive=True)
    if forward.earliest >= forward.horizon:
        raise ValueError(f"earliest must be below the horizon, {forward.horizon:g}, got {forward.earliest:g}")
