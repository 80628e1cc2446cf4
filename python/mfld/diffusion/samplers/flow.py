"""Samplers of the probability-flow equation, which has no noise: Runge-Kutta methods in a clock that suits it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from mfld import validation
from mfld.diffusion.samplers.base import Leg, Sampler
from mfld.validation import FloatArray


class _Clock(ABC):
    """Frame ``z = x / scale(t)`` and clock in which the flow is ``dz/dclock = field(x, t)``."""

    @abstractmethod
    def scale(self, leg: Leg, time: float) -> float:
        """Scale of the frame."""

    @abstractmethod
    def elapsed(self, leg: Leg, time: float) -> float:
        """How far the clock goes from the start of the step to a time in it."""

    @abstractmethod
    def at(self, leg: Leg, share: float) -> float:
        """The time at a share of the step by the clock."""

    @abstractmethod
    def field(self, points: FloatArray, leg: Leg, time: float) -> FloatArray:
        """Right-hand side of the flow."""


class _Time(_Clock):
    """Time itself: ``dx/dt = f x + g**2 / (2 sigma) eps``."""

    def scale(self, leg: Leg, time: float) -> float:
        return 1.0

    def elapsed(self, leg: Leg, time: float) -> float:
        return time - leg.late

    def at(self, leg: Leg, share: float) -> float:
        return leg.late + share * (leg.early - leg.late)

    def field(self, points: FloatArray, leg: Leg, time: float) -> FloatArray:
        f, g2 = leg.forward.rates(time)
        dtype = points.dtype.type
        weight = dtype(g2 / (2 * leg.level(time)[1]))
        return np.asarray(dtype(f) * points + weight * leg.noise(points, time))


class _OfScore(_Clock):
    """``d(x / alpha) = score dzeta`` with ``dzeta = -g**2 / (2 alpha) dt``."""

    def scale(self, leg: Leg, time: float) -> float:
        return leg.level(time)[0]

    def elapsed(self, leg: Leg, time: float) -> float:
        return leg.forward.reach(leg.late, time)

    def at(self, leg: Leg, share: float) -> float:
        return leg.early if share == 1 else leg.forward.share_of_reach(leg.late, leg.early, share)

    def field(self, points: FloatArray, leg: Leg, time: float) -> FloatArray:
        return leg.score.score(points, time)


class _OfNoise(_Clock):
    """``d(x / alpha) = eps d(sigma / alpha)``."""

    def scale(self, leg: Leg, time: float) -> float:
        return leg.level(time)[0]

    def elapsed(self, leg: Leg, time: float) -> float:
        return leg.ratio(time) - leg.ratio(leg.late)

    def at(self, leg: Leg, share: float) -> float:
        first, last = leg.ratio(leg.late), leg.ratio(leg.early)
        return leg.early if share == 1 else leg.forward.time(first + share * (last - first))

    def field(self, points: FloatArray, leg: Leg, time: float) -> FloatArray:
        return leg.noise(points, time)


class _OfData(_Clock):
    """``d(x / sigma) = x0 d(alpha / sigma)``."""

    def scale(self, leg: Leg, time: float) -> float:
        return leg.level(time)[1]

    def elapsed(self, leg: Leg, time: float) -> float:
        return 1 / leg.ratio(time) - 1 / leg.ratio(leg.late)

    def at(self, leg: Leg, share: float) -> float:
        first, last = 1 / leg.ratio(leg.late), 1 / leg.ratio(leg.early)
        return leg.early if share == 1 else leg.forward.time(1 / (first + share * (last - first)))

    def field(self, points: FloatArray, leg: Leg, time: float) -> FloatArray:
        return leg.score.data(points, time)


_CLOCKS: dict[str, _Clock] = {"time": _Time(), "score": _OfScore(), "noise": _OfNoise(), "data": _OfData()}
# Weights of earlier stages in each stage but the first, then weights of all stages in the step.
_METHODS: dict[str, list[list[float]]] = {
    "euler": [[1.0]],
    "midpoint": [[1 / 2], [0.0, 1.0]],
    "heun": [[1.0], [1 / 2, 1 / 2]],
    "heun3": [[1 / 3], [0.0, 2 / 3], [1 / 4, 0.0, 3 / 4]],
    "rk4": [[1 / 2], [0.0, 1 / 2], [0.0, 0.0, 1.0], [1 / 6, 1 / 3, 1 / 3, 1 / 6]],
}


@dataclass(frozen=True)
class Flow(Sampler):
    """Runge-Kutta method for the probability flow ``dx/dt = f x - g**2 / 2 score``, in a clock in which it is short.

    ============  ============================================  =============================================
    clock         equation                                      what its methods are known as
    ============  ============================================  =============================================
    ``"time"``    the flow itself                               Euler, Heun
    ``"score"``   ``d(x / alpha) = score dzeta``                exponential Euler, exponential Runge-Kutta
    ``"noise"``   ``d(x / alpha) = eps d(sigma / alpha)``       DDIM (euler), the method of Karras et al. (heun)
    ``"data"``    ``d(x / sigma) = x0 d(alpha / sigma)``        DPM-Solver++ of order 1 (euler), which is DDIM too
    ============  ============================================  =============================================

    Clocks other than time solve what is linear exactly. With alpha = 1 (`VarianceExploding`) nothing is: far from the
    data, where the score is about ``-x / sigma**2``, the clock of the score takes x in an Euler step from sigma to ``r
    sigma`` to ``(1 + r**2) / 2 x``, and not to ``r x``, which is good for small steps in log(sigma) only; that of the
    noise is exact there. Methods are ``euler`` (order 1), ``midpoint``, ``heun`` (2), ``heun3`` (3) and ``rk4`` (4).
    Sources: Song et al. 2021, "Score-based generative modeling through stochastic differential equations"; Hochbruck,
    Ostermann 2010, "Exponential integrators"; Karras, Aittala, Aila, Laine 2022, "Elucidating the design space of
    diffusion-based generative models".

    Parameters
    ----------
    clock, method : str

    Raises
    ------
    TypeError, ValueError
        If one of them is no name in the lists.

    Examples
    --------
    >>> from mfld import diffusion
    >>> from mfld.mixtures import GaussianMixture
    >>> score = diffusion.ExactScore(GaussianMixture(None, [[0.0]], 4.0))
    >>> x = diffusion.sample(score, 1000, sampler=diffusion.Flow("noise", "heun"), n_steps=40)
    >>> bool(abs(x.var() - 4) < 0.5)
    True
    """

    clock: str = "noise"
    method: str = "heun"

    def __post_init__(self) -> None:
        validation.choice("clock", self.clock, _CLOCKS)
        validation.choice("method", self.method, _METHODS)

    @property
    def evaluations(self) -> int:  # type: ignore[override]
        return len(_METHODS[self.method])

    def step(self, points: FloatArray, leg: Leg) -> FloatArray:
        clock, rows = _CLOCKS[self.clock], _METHODS[self.method]
        start, whole = clock.scale(leg, leg.late), clock.elapsed(leg, leg.early)
        fields = [clock.field(points, leg, leg.late)]
        for row in rows:
            last = row is rows[-1]
            time = leg.early if last else clock.at(leg, sum(row))
            scale = clock.scale(leg, time)
            terms = [(scale * whole * w, slope) for w, slope in zip(row, fields, strict=True) if w]
            stage = leg.moved(points, scale / start, terms)
            if not last:
                fields.append(clock.field(stage, leg, time))
        return stage


@dataclass(frozen=True)
class DPMSolver(Sampler):
    """Single-step DPM-Solver: Taylor's formula for the noise in ``lambda = log(alpha / sigma)``, of order 1, 2 or 3.

    Order 1 is `DDIM`; order 2 has its second evaluation in the middle of the step in lambda, order 3 two at its thirds.
    Source: Lu, Zhou, Bao, Chen, Li, Zhu 2022, "DPM-Solver: a fast ODE solver for diffusion probabilistic model sampling
    in around 10 steps".

    Parameters
    ----------
    order : int
        1, 2 or 3, and as many evaluations of the score in a step.

    Raises
    ------
    TypeError, ValueError
        If it is none of them.

    Examples
    --------
    >>> from mfld import diffusion
    >>> diffusion.DPMSolver(3).evaluations
    3
    """

    order: int = 2

    def __post_init__(self) -> None:
        validation.integer("order", self.order, 1, 3)

    @property
    def evaluations(self) -> int:  # type: ignore[override]
        return self.order

    def step(self, points: FloatArray, leg: Leg) -> FloatArray:
        forward, (alpha, earlier), (_, less) = leg.forward, leg.alphas, leg.sigmas
        h = _log_snr(leg, leg.early) - _log_snr(leg, leg.late)
        noise, factor = leg.noise(points), earlier / alpha
        if self.order == 1:
            return leg.moved(points, factor, [(-less * math.expm1(h), noise)])

        def inner(share: float, change: FloatArray | None = None) -> tuple[FloatArray, float]:
            """Points at a share of the step, by the change of the noise over its first third."""
            time = forward.time(math.exp(-_log_snr(leg, leg.late) - share * h))
            (own, s), grown = leg.level(time), math.expm1(share * h)
            terms = [(-s * grown, noise)]
            if change is not None:
                terms.append((-s * 3 * share * (grown / (share * h) - 1), change))
            return leg.moved(points, own / alpha, terms), time

        if self.order == 2:
            return leg.moved(points, factor, [(-less * math.expm1(h), leg.noise(*inner(1 / 2)))])
        change = leg.noise(*inner(1 / 3)) - noise
        change = leg.noise(*inner(2 / 3, change)) - noise
        weight = -less * 3 / 2 * (math.expm1(h) / h - 1)
        return leg.moved(points, factor, [(-less * math.expm1(h), noise), (weight, change)])


def _log_snr(leg: Leg, time: float) -> float:
    return -math.log(leg.ratio(time))
