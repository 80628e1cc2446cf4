"""Samplers: steps of the way back from noise to data, and the walk that they make."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from mfld import _core
from mfld.diffusion.forward import Forward
from mfld.diffusion.scores import Score
from mfld.noise import Place
from mfld.validation import FloatArray

Terms = Sequence[tuple[float, FloatArray]]


@dataclass
class Leg:
    """A step of the way back: from a time to an earlier one, with the score, the noise and what earlier steps left.

    Attributes
    ----------
    score : Score
    late, early : float
        Where the step starts and ends: times t and u < t.
    place : mfld.noise.Place
        Of the step's normals, stream ``move``.
    memory : list of (float, ndarray)
        Times and predictions of the steps before, for samplers that use them; empty after noise was added.
    levels : dict
        Alpha and sigma by their time, of those that were asked for; the legs of a walk share it.
    """

    score: Score
    late: float
    early: float
    place: Place
    memory: list[tuple[float, FloatArray]] = field(default_factory=list)
    levels: dict[float, tuple[float, float]] = field(default_factory=dict)

    @property
    def forward(self) -> Forward:
        return self.score.forward

    def level(self, time: float) -> tuple[float, float]:
        """Factor of the data and deviation of the noise at a time."""
        known = self.levels.get(time)
        if known is None:
            known = self.levels[time] = float(self.forward.alpha(time)), float(self.forward.sigma(time))
        return known

    def ratio(self, time: float) -> float:
        """Noise to signal, ``sigma / alpha``, at a time."""
        alpha, sigma = self.level(time)
        return sigma / alpha

    @property
    def alphas(self) -> tuple[float, float]:
        """Factors of the data at the start and the end of the step."""
        return self.level(self.late)[0], self.level(self.early)[0]

    @property
    def sigmas(self) -> tuple[float, float]:
        """Deviations of the noise at the start and the end of the step."""
        return self.level(self.late)[1], self.level(self.early)[1]

    def noise(self, points: FloatArray, time: float | None = None) -> FloatArray:
        """Noise that the score expects at points: at the start of the step unless another time is given."""
        return self.score.noise(points, self.late if time is None else time)

    def moved(self, points: FloatArray, factor: float, terms: Terms, deviation: float = 0.0) -> FloatArray:
        """New points ``factor x + sum_k weight_k term_k + deviation xi``: the affine move of the compiled core."""
        direction = terms[0][1]
        weight = terms[0][0]
        if len(terms) > 1:
            dtype = points.dtype.type
            direction, weight = dtype(weight) * direction, 1.0
            for w, term in terms[1:]:
                direction += dtype(w) * term
        moved = points.copy()
        if self.place.coupling is not None and deviation > 0:  # the core draws by itself, which is another noise
            moved += points.dtype.type(deviation) * self.place.normals_like(points, points.shape[1])
            return np.asarray(moved + points.dtype.type(factor - 1) * points + points.dtype.type(weight) * direction)
        bad = _core.backend.affine(
            moved,
            np.ascontiguousarray(direction, points.dtype),
            points.shape[1],
            (1 - factor, -weight, deviation),
            *(self.place if self.place.coupling is None else self.place._replace(coupling=None)).of_members(()),
        )
        if bad >= 0:
            raise FloatingPointError(
                f"sample {bad} is no longer finite at the step from time {self.late:g} to {self.early:g}: smaller "
                "steps usually help, or a score that stays finite"
            )
        return moved

    def kept(self, prediction: FloatArray, n: int) -> list[tuple[float, FloatArray]]:
        """The predictions of the last n steps, newest first, this one among them."""
        self.memory.insert(0, (self.late, prediction))
        del self.memory[n:]
        return self.memory


class Sampler(ABC):
    """Sampler: one step of the way back, by evaluations of the score and affine moves.

    Attributes
    ----------
    evaluations : int
        Of the score in a step.

    Examples
    --------
    A sampler that forgets the noise at each step:

    >>> from mfld import diffusion
    >>> from mfld.mixtures import GaussianMixture
    >>> class Jump(diffusion.Sampler):
    ...     def step(self, points, leg):
    ...         _, alpha = leg.alphas
    ...         _, sigma = leg.sigmas
    ...         return leg.moved(points, 0.0, [(alpha, leg.score.data(points, leg.late))], sigma)
    >>> score = diffusion.ExactScore(GaussianMixture(None, [[0.0]], 1.0))
    >>> diffusion.sample(score, 3, sampler=Jump(), n_steps=10).shape
    (3, 1)
    """

    evaluations: ClassVar[int] = 1

    @abstractmethod
    def step(self, points: FloatArray, leg: Leg) -> FloatArray:
        """Points at the end of a step, shape (n, p)."""

    def last(self, points: FloatArray, leg: Leg) -> FloatArray:
        """Points at the end of a step to time 0, where scores have no values: the expected data."""
        return np.asarray(leg.score.data(points, leg.late))


def walk(
    points: FloatArray,
    score: Score,
    sampler: Sampler,
    times: FloatArray,
    place: Place,
    after: Callable[[FloatArray, int], FloatArray],
) -> FloatArray:
    """Points at the last of some times, from those at the first; ``after`` sees, and may change, those of each step.

    Where times rise, noise is added as the forward process adds it.
    """
    memory: list[tuple[float, FloatArray]] = []
    grid = times.tolist()
    alphas, sigmas = (np.asarray(f(times), np.float64).tolist() for f in (score.forward.alpha, score.forward.sigma))
    levels = dict(zip(grid, zip(alphas, sigmas, strict=True), strict=True))
    for k, (late, early) in enumerate(itertools.pairwise(grid)):
        leg = Leg(score, late, early, place.ahead(k), memory, levels)
        if early > late:
            points = _noised(points, leg)
            memory.clear()
        elif leg.sigmas[1] == 0:
            points = sampler.last(points, leg)
        else:
            points = sampler.step(points, leg)
        points = after(points, k + 1)
    return points


def _noised(points: FloatArray, leg: Leg) -> FloatArray:
    """Points some time later in the forward process, when a leg leads that way."""
    (alpha, later), (sigma, noise) = leg.alphas, leg.sigmas
    factor = later / alpha
    return leg.moved(points, factor, [(0.0, points)], math.sqrt(max(noise**2 - (factor * sigma) ** 2, 0.0)))
