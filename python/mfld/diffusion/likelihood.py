"""Likelihoods: the instantaneous change of variables along the probability flow."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from mfld import noise, validation
from mfld.diffusion import grids
from mfld.diffusion.forward import Times
from mfld.diffusion.scores import Score
from mfld.floating import underflow_is_zero
from mfld.noise import Place
from mfld.validation import FloatArray

_STEP = 1e-3  # of differences along probes, relative to sigma: the law of X_t has no finer structure


@underflow_is_zero
def log_likelihood(
    score: Score,
    points: ArrayLike,
    *,
    n_steps: int = 100,
    times: str = "log-snr",
    n_probes: int | None = None,
    seed: int = 0,
    num_threads: int | None = None,
) -> Times:
    """Logarithm of the density that the probability flow of a score gives to points, shape (n,), float64.

    With ``y = x / alpha`` and ``r = sigma / alpha``, ``dy/dr = eps`` and ``d log q(y)/dr = -alpha div_x eps`` from the
    earliest time to the horizon, by the classical Runge-Kutta method. It is the density at the earliest time, of data
    with as much noise as is in them there. Source: Song et al. 2021.

    Parameters
    ----------
    score : Score
    points : array_like, shape (n, p)
    n_steps : int
        Four evaluations of the score and its divergence each.
    times : str
        Name of a grid, see `mfld.diffusion.times`.
    n_probes : int, optional
        Random directions for the divergence (Hutchinson's estimate, without bias). By default the divergence is exact
        where the score knows it, and else from 10 directions.
    seed : int
        Of the directions.
    num_threads : int, optional
        It changes no number.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> from mfld import diffusion
    >>> from mfld.mixtures import GaussianMixture
    >>> score = diffusion.ExactScore(GaussianMixture(None, [[0.0]], 1.0))
    >>> diffusion.log_likelihood(score, [[0.0], [1.0]]).round(4)
    array([-0.9189, -1.4189])
    """
    validation.instance("score", score, Score, "a Score")
    x = validation.array("points", points, np.float64)
    validation.shape("points", x, ("n", score.n_coordinates), "to match the score")
    validation.squarable("points", x)
    forward, p = score.forward, score.n_coordinates
    grid = grids.times(forward, n_steps, validation.choice("times", times, grids.NAMES))[::-1]
    threads = None if num_threads is None else validation.num_threads(num_threads)
    score = score.on_threads(threads)
    place = Place.of(validation.seed(seed), num_threads=threads).beside("probes")
    if n_probes is not None:
        n_probes = validation.integer("n_probes", n_probes, 1, 10**6)

    def slope(y: FloatArray, time: float) -> tuple[FloatArray, FloatArray]:
        alpha = float(forward.alpha(time))
        exact = score.divergence(alpha * y, time) if n_probes is None else None
        divergence = _estimated(score, alpha * y, time, n_probes or 10, place) if exact is None else exact
        return score.noise(alpha * y, time), alpha * divergence

    y, gained = x / float(forward.alpha(grid[0])), np.zeros(len(x))
    for early, late in zip(grid[:-1].tolist(), grid[1:].tolist(), strict=True):
        first, last = float(forward.ratio(early)), float(forward.ratio(late))
        h, middle = last - first, forward.time((first + last) / 2)
        a, da = slope(y, early)
        b, db = slope(y + h / 2 * a, middle)
        c, dc = slope(y + h / 2 * b, middle)
        d, dd = slope(y + h * c, late)
        y = y + h / 6 * (a + 2 * b + 2 * c + d)
        gained += h / 6 * (da + 2 * db + 2 * dc + dd)
    ratio, alpha = float(forward.ratio(grid[-1])), float(forward.alpha(grid[0]))
    end = -np.sum(y**2, axis=1) / (2 * ratio**2) - p / 2 * math.log(2 * math.pi * ratio**2)
    return validation.held("the log-density at points", np.asarray(end + gained - p * math.log(alpha)), x.dtype)


def _estimated(score: Score, points: FloatArray, time: float, n_probes: int, place: Place) -> FloatArray:
    """Divergence of the noise from random signs, the same at all times, so that the flow stays smooth."""
    total, h = np.zeros(len(points)), _STEP * float(score.forward.sigma(time))
    for k in range(n_probes):
        own = place._replace(key=noise.key(place.key, k))
        signs = np.where(own.normals_like(points, points.shape[1], "data") > 0, 1.0, -1.0)
        change = score.noise(points + h * signs, time) - score.noise(points - h * signs, time)
        total += np.sum(signs * change, axis=1) / (2 * h)
    return np.asarray(total / n_probes)
