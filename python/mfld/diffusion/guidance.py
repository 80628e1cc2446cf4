"""Guidance: scores that are led to a condition."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from mfld import validation
from mfld.diffusion.forward import Forward
from mfld.diffusion.scores import Score
from mfld.validation import FloatArray


class ClassifierFree(Score):
    """Conditional score, pushed away from the unconditional one: ``(1 + weight) conditional - weight unconditional``.

    Source: Ho, Salimans 2022, "Classifier-free diffusion guidance".

    Parameters
    ----------
    conditional, unconditional : Score
        Of one forward process.
    weight : float
        0 is the conditional score, -1 the unconditional one.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, or the two do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import diffusion
    >>> from mfld.mixtures import GaussianMixture
    >>> one, both = (diffusion.ExactScore(GaussianMixture(None, m, 1.0)) for m in ([[1.0]], [[-1.0], [1.0]]))
    >>> diffusion.ClassifierFree(one, both, 1.0).data(np.zeros((1, 1)), 0.01).round(2)
    array([[0.04]])
    """

    def __init__(self, conditional: Score, unconditional: Score, weight: float = 1.0) -> None:
        self.conditional = validation.instance("conditional", conditional, Score, "a Score")
        self.unconditional = validation.instance("unconditional", unconditional, Score, "a Score")
        if conditional.n_coordinates != unconditional.n_coordinates:
            raise ValueError(
                f"unconditional must have {conditional.n_coordinates} coordinates to match conditional, "
                f"got {unconditional.n_coordinates}"
            )
        if not _alike(conditional.forward, unconditional.forward):
            raise ValueError(
                f"unconditional must have the forward process of conditional, {conditional.forward!r}, "
                f"got {unconditional.forward!r}"
            )
        self.weight = validation.real("weight", weight)
        self.forward, self.n_coordinates = conditional.forward, conditional.n_coordinates

    def __repr__(self) -> str:
        return f"ClassifierFree({self.conditional!r}, {self.unconditional!r}, weight={self.weight:g})"

    def noise(self, points: FloatArray, time: float) -> FloatArray:
        points = self._asked(points, time)
        w = points.dtype.type(self.weight)
        return np.asarray((1 + w) * self.conditional.noise(points, time) - w * self.unconditional.noise(points, time))

    def divergence(self, points: FloatArray, time: float) -> FloatArray | None:
        one, other = self.conditional.divergence(points, time), self.unconditional.divergence(points, time)
        return None if one is None or other is None else np.asarray((1 + self.weight) * one - self.weight * other)

    def on_threads(self, num_threads: int | None) -> ClassifierFree:
        conditional, unconditional = (score.on_threads(num_threads) for score in (self.conditional, self.unconditional))
        return ClassifierFree(conditional, unconditional, self.weight)


class ClassifierGuided(Score):
    """Score plus ``weight`` times the gradient of the log-probability that a classifier gives the wanted class.

    Source: Dhariwal, Nichol 2021, "Diffusion models beat GANs on image synthesis".

    Parameters
    ----------
    score : Score
    gradient : callable
        ``gradient(points, time)``: of log p(class | x_t) in x_t, shape (n, p).
    weight : float
        With 1 the score is that of the data given the class.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import diffusion
    >>> from mfld.mixtures import GaussianMixture
    >>> score = diffusion.ExactScore(GaussianMixture(None, [[0.0]], 1.0))
    >>> pushed = diffusion.ClassifierGuided(score, lambda x, t: np.ones_like(x), weight=2.0)
    >>> pushed.score(np.zeros((1, 1)), 0.5)
    array([[2.]])
    """

    def __init__(self, score: Score, gradient: Callable[[FloatArray, float], ArrayLike], weight: float = 1.0) -> None:
        self.inner = validation.instance("score", score, Score, "a Score")
        validation.function("gradient", gradient)
        self.gradient = gradient
        self.weight = validation.real("weight", weight)
        self.forward, self.n_coordinates = score.forward, score.n_coordinates

    def __repr__(self) -> str:
        return f"ClassifierGuided({self.inner!r}, weight={self.weight:g})"

    def noise(self, points: FloatArray, time: float) -> FloatArray:
        points = self._asked(points, time)
        push = validation.returned(
            "the result of gradient", self.gradient(points.copy(), time), points.shape, points.dtype, "to match points"
        )
        factor = points.dtype.type(self.weight * float(self.forward.sigma(time)))
        return np.asarray(self.inner.noise(points, time) - factor * push)

    def on_threads(self, num_threads: int | None) -> ClassifierGuided:
        return ClassifierGuided(self.inner.on_threads(num_threads), self.gradient, self.weight)


def _alike(one: Forward, other: Forward) -> bool:
    """True where two processes, which may be different objects, have the same transitions."""
    if one.horizon != other.horizon:
        return False
    times = np.linspace(0, one.horizon, 9)
    return np.allclose(one.alpha(times), other.alpha(times)) and np.allclose(one.sigma(times), other.sigma(times))
