"""Samplers of the reverse stochastic equation ``dx = (f x - g**2 score) dt + g dB``, backwards in time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mfld import validation
from mfld.diffusion.samplers.base import Leg, Sampler
from mfld.validation import FloatArray


@dataclass(frozen=True)
class EulerMaruyama(Sampler):
    """Euler-Maruyama: ``x <- x - h (f x - g**2 s) + g sqrt(h) xi``, with f and g at the start of the step.

    Weak and strong order 1. On variance S of the data and ``V = 1 + (S - 1) exp(-2 t)`` of `OrnsteinUhlenbeck`, a step
    leaves the variance wrong by ``-h**2 (V + 2 - 4 / V)``.

    Examples
    --------
    >>> from mfld import diffusion
    >>> diffusion.EulerMaruyama().evaluations
    1
    """

    def step(self, points: FloatArray, leg: Leg) -> FloatArray:
        h, (f, g2) = leg.late - leg.early, leg.forward.rates(leg.late)
        weight = -h * g2 / leg.sigmas[0]
        return leg.moved(points, 1 - h * f, [(weight, leg.noise(points))], math.sqrt(h * g2))


@dataclass(frozen=True)
class ExponentialSDE(Sampler):
    """Exponential integrator: the score stays as it is during a step, and what is linear is exact.

    Of `OrnsteinUhlenbeck`, ``x <- e x + 2 (e - 1) s + sqrt(e**2 - 1) xi`` with ``e = exp(h)``. Weak and strong order 1.

    Examples
    --------
    >>> from mfld import diffusion
    >>> diffusion.ExponentialSDE().evaluations
    1
    """

    def step(self, points: FloatArray, leg: Leg) -> FloatArray:
        (alpha, earlier), (sigma, less) = leg.alphas, leg.sigmas
        weight = -2 * earlier * leg.forward.reach(leg.late, leg.early) / sigma
        variance = (earlier / alpha * sigma) ** 2 - less**2
        return leg.moved(points, earlier / alpha, [(weight, leg.noise(points))], math.sqrt(variance))


@dataclass(frozen=True)
class DDIM(Sampler):
    """Denoising diffusion implicit model: the expected data and the expected noise, mixed anew.

    ::

        x <- alpha_u x0 + sqrt(sigma_u**2 - s**2) eps + s xi,    x0 = (x - sigma_t eps) / alpha_t
        s = eta sigma_u / sigma_t sqrt(sigma_t**2 - (alpha_t / alpha_u)**2 sigma_u**2)

    Exact for data that are one point. With ``eta = 0`` it has no noise, and is the explicit Euler method for ``y = x /
    alpha`` in the variable ``sigma / alpha``: order 1. With ``eta = 1`` it is `Ancestral`. Source: Song, Meng, Ermon
    2021, "Denoising diffusion implicit models".

    Parameters
    ----------
    eta : float
        Share of the noise, from 0 to 1.
    clip : float, optional
        Positive: bound on the size of coordinates of the expected data.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import diffusion
    >>> point = diffusion.EmpiricalScore([[3.0]])
    >>> diffusion.sample(point, 2, sampler=diffusion.DDIM(), times=[5.0, 1.0, 0.0])
    array([[3.],
           [3.]])
    """

    eta: float = 0.0
    clip: float | None = None

    def __post_init__(self) -> None:
        eta = validation.real("eta", self.eta, non_negative=True)
        if eta > 1:
            raise ValueError(f"eta must be between 0 and 1, got {eta:g}")
        object.__setattr__(self, "eta", eta)
        if self.clip is not None:
            object.__setattr__(self, "clip", validation.real("clip", self.clip, positive=True))

    def step(self, points: FloatArray, leg: Leg) -> FloatArray:
        (alpha, earlier), (sigma, less) = leg.alphas, leg.sigmas
        noise = leg.noise(points)
        deviation = self.eta * less / sigma * math.sqrt(sigma**2 - (alpha / earlier * less) ** 2)
        kept = math.sqrt(less**2 - deviation**2)
        if self.clip is None:
            factor = earlier / alpha
            return leg.moved(points, factor, [(kept - factor * sigma, noise)], deviation)
        data = (points - points.dtype.type(sigma) * noise) / points.dtype.type(alpha)
        return leg.moved(points, 0.0, [(earlier, self._clipped(data)), (kept, noise)], deviation)

    def last(self, points: FloatArray, leg: Leg) -> FloatArray:
        return self._clipped(super().last(points, leg))

    def _clipped(self, data: FloatArray) -> FloatArray:
        return data if self.clip is None else np.clip(data, -self.clip, self.clip)


_VARIANCES = ("posterior", "forward", "matched")


@dataclass(frozen=True)
class Ancestral(Sampler):
    """Ancestral sampling (DDPM): the law of X_u given X_t and the expected data.

    ::

        x <- (alpha_u b x0 + r sigma_u**2 x) / sigma_t**2 + s xi
        r = alpha_t / alpha_u,    b = sigma_t**2 - r**2 sigma_u**2

    ``s**2`` is that of the *posterior*, ``sigma_u**2 b / sigma_t**2``, which is right for data that are one point; or
    of the step *forward*, ``b``, right for data N(0, 1) in many small steps; or *matched*: the posterior's, and that
    which X_0 itself has given X_t, ``v = (sigma_t / alpha_t)**2 (1 - E|eps|**2 / p)`` with the mean over all samples,
    which makes the variance right at all steps for data ``N(m, c**2 I)``. Sources: Ho, Jain, Abbeel 2020, "Denoising
    diffusion probabilistic models"; Bao, Li, Zhu, Zhang 2022, "Analytic-DPM".

    Parameters
    ----------
    variance : str
        "posterior", "forward" or "matched".

    Raises
    ------
    TypeError, ValueError
        If it is none of them.

    Examples
    --------
    >>> from mfld import diffusion
    >>> diffusion.Ancestral("matched")
    Ancestral(variance='matched')
    """

    variance: str = "posterior"

    def __post_init__(self) -> None:
        validation.choice("variance", self.variance, _VARIANCES)

    def step(self, points: FloatArray, leg: Leg) -> FloatArray:
        (alpha, earlier), (sigma, less) = leg.alphas, leg.sigmas
        back = alpha / earlier
        added = sigma**2 - (back * less) ** 2
        noise = leg.noise(points)
        variance = added if self.variance == "forward" else less**2 * added / sigma**2
        if self.variance == "matched":
            unexplained = 1 - float(np.mean(np.square(noise, dtype=np.float64)))
            variance += (earlier * added / (sigma * alpha)) ** 2 * max(unexplained, 0.0)
        weight = -added / (back * sigma)
        return leg.moved(points, 1 / back, [(weight, noise)], math.sqrt(variance))
