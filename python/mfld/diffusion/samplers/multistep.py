"""Samplers that use the predictions of earlier steps: one evaluation of the score a step, and a higher order."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mfld import validation
from mfld.diffusion.samplers.base import Leg, Sampler
from mfld.diffusion.samplers.flow import Flow
from mfld.noise import key
from mfld.validation import FloatArray

_STARTS = {2: "heun", 3: "heun3", 4: "rk4"}


@dataclass(frozen=True)
class LinearMultistep(Sampler):
    """Adams-Bashforth in ``sigma / alpha``: the polynomial through the last predictions of the noise, integrated.

    ::

        d(x / alpha) = eps d(sigma / alpha)

    with exact weights for steps of any lengths. The first steps are those of a Runge-Kutta method of the same order,
    which evaluate the score so many times. Source: Zhang, Chen 2023, "Fast sampling of diffusion models with
    exponential integrator".

    Parameters
    ----------
    order : int
        Number of predictions, from 1 to 4.

    Raises
    ------
    TypeError, ValueError
        If it is out of range.

    Examples
    --------
    >>> from mfld import diffusion
    >>> diffusion.LinearMultistep(3).evaluations
    1
    """

    order: int = 4

    def __post_init__(self) -> None:
        validation.integer("order", self.order, 1, 4)

    def step(self, points: FloatArray, leg: Leg) -> FloatArray:
        alpha, earlier = leg.alphas
        known = leg.kept(leg.noise(points), self.order)
        if len(known) < self.order:
            return Flow("noise", _STARTS[self.order]).step(points, leg)
        nodes = np.array([leg.ratio(time) for time, _ in known])
        weights = _integrals(nodes, leg.ratio(leg.late), leg.ratio(leg.early))
        terms = [(earlier * w, past) for w, (_, past) in zip(weights.tolist(), known, strict=True)]
        return leg.moved(points, earlier / alpha, terms)


@dataclass(frozen=True)
class PNDM(Sampler):
    """Pseudo numerical method: fourth-order formulas for equal steps in time, with the steps of `DDIM`.

    Three steps of the pseudo Runge-Kutta method, with 4 evaluations each, then ``(55 e_0 - 59 e_1 + 37 e_2 - 9 e_3) /
    24`` of the last four predictions of the noise. Order 2, and only on times with equal distances. Source: Liu, Ren,
    Lin, Zhao 2022, "Pseudo numerical methods for diffusion models on manifolds".

    Examples
    --------
    >>> from mfld import diffusion
    >>> diffusion.PNDM().evaluations
    1
    """

    def step(self, points: FloatArray, leg: Leg) -> FloatArray:
        first = leg.noise(points)
        if len(leg.memory) >= 3:
            known = [noise for _, noise in leg.kept(first, 4)]
            return _transfer(points, leg, leg.early, _weighted((55 / 24, -59 / 24, 37 / 24, -9 / 24), known))
        leg.kept(first, 4)
        middle = (leg.late + leg.early) / 2
        second = leg.noise(_transfer(points, leg, middle, first), middle)
        third = leg.noise(_transfer(points, leg, middle, second), middle)
        fourth = leg.noise(_transfer(points, leg, leg.early, third), leg.early)
        mean = _weighted((1 / 6, 1 / 3, 1 / 3, 1 / 6), [first, second, third, fourth])
        return _transfer(points, leg, leg.early, mean)


@dataclass(frozen=True)
class DPMSolverPlusPlus(Sampler):
    """DPM-Solver++(2M): the expected data, extrapolated linearly in ``lambda = log(alpha / sigma)`` to the half step.

    ::

        x <- sigma_u / sigma_t x - alpha_u (exp(-h) - 1) D,    D = x0_t + h / (2 h') (x0_t - x0_t')

    with the expected data of this step and the one before, whose length in lambda is h'. Order 2, the first step has
    order 1. Source: Lu, Zhou, Bao, Chen, Li, Zhu 2022, "DPM-Solver++: fast solver for guided sampling of diffusion
    probabilistic models".

    Examples
    --------
    >>> from mfld import diffusion
    >>> diffusion.DPMSolverPlusPlus().evaluations
    1
    """

    def step(self, points: FloatArray, leg: Leg) -> FloatArray:
        (_, earlier), (sigma, less) = leg.alphas, leg.sigmas
        late, early = math.log(leg.ratio(leg.late)), math.log(leg.ratio(leg.early))
        known = leg.kept(leg.score.data(points, leg.late), 2)
        weight = -earlier * math.expm1(early - late)
        terms = [(weight, known[0][1])]
        if len(known) == 2:
            before = math.log(leg.ratio(known[1][0]))
            share = (late - early) / (2 * (before - late))
            terms = [(weight * (1 + share), known[0][1]), (-weight * share, known[1][1])]
        return leg.moved(points, less / sigma, terms)


@dataclass(frozen=True)
class PredictorCorrector(Sampler):
    """Steps of another sampler, each followed by Langevin steps that leave the law at its end as it is.

    ::

        x <- x + d s(x, u) + sqrt(2 d) xi,    d = (snr sigma_u)**2 * 2

    Source: Song et al. 2021, "Score-based generative modeling through stochastic differential equations", with the
    length of the noise and of the score taken for their expectations.

    Parameters
    ----------
    predictor : Sampler
    n_corrections : int
        Langevin steps after each step.
    snr : float
        Positive: signal to noise.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> from mfld import diffusion
    >>> diffusion.PredictorCorrector(diffusion.EulerMaruyama(), n_corrections=2).evaluations
    3
    """

    predictor: Sampler
    n_corrections: int = 1
    snr: float = 0.16

    def __post_init__(self) -> None:
        validation.instance("predictor", self.predictor, Sampler, "a Sampler, like EulerMaruyama()")
        validation.integer("n_corrections", self.n_corrections, 0)
        validation.real("snr", self.snr, positive=True)

    @property
    def evaluations(self) -> int:  # type: ignore[override]
        return self.predictor.evaluations + self.n_corrections

    def step(self, points: FloatArray, leg: Leg) -> FloatArray:
        points = self.predictor.step(points, leg)
        sigma = leg.sigmas[1]
        length = 2 * (self.snr * sigma) ** 2
        for k in range(self.n_corrections):
            place = leg.place.beside("corrector")._replace(key=key(leg.place.key, k))
            correction = Leg(leg.score, leg.late, leg.early, place, levels=leg.levels)
            noise = leg.noise(points, leg.early)
            points = correction.moved(points, 1.0, [(-length / sigma, noise)], math.sqrt(2 * length))
        return points

    def last(self, points: FloatArray, leg: Leg) -> FloatArray:
        return self.predictor.last(points, leg)


def _integrals(nodes: FloatArray, start: float, end: float) -> FloatArray:
    """Integrals of the Lagrange polynomials of some nodes from one point to another."""
    middle, half = (start + end) / 2, (end - start) / 2
    scaled = (nodes - middle) / half
    points, weights = np.polynomial.legendre.leggauss(4)
    values = [
        np.prod([(points - other) / (own - other) for other in np.delete(scaled, j)], axis=0) * np.ones(4)
        for j, own in enumerate(scaled)
    ]
    return np.asarray(half * np.array(values) @ weights)


def _weighted(weights: tuple[float, ...], terms: list[FloatArray]) -> FloatArray:
    return np.asarray(sum(terms[0].dtype.type(w) * term for w, term in zip(weights, terms, strict=True)))


def _transfer(points: FloatArray, leg: Leg, time: float, noise: FloatArray) -> FloatArray:
    """DDIM's step from the start of a leg to a time, with this noise."""
    alpha, sigma = leg.level(time)
    factor = alpha / leg.alphas[0]
    return leg.moved(points, factor, [(sigma - factor * leg.sigmas[0], noise)])
