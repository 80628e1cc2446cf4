"""Samples from a score: noise that is led back to data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from mfld import noise, validation
from mfld.diffusion import grids
from mfld.diffusion.samplers import (
    DDIM,
    PNDM,
    Ancestral,
    DPMSolver,
    DPMSolverPlusPlus,
    EulerMaruyama,
    ExponentialSDE,
    Flow,
    LinearMultistep,
    PredictorCorrector,
    Sampler,
    walk,
)
from mfld.diffusion.scores import Score
from mfld.floating import underflow_is_zero
from mfld.validation import FloatArray

SAMPLERS: dict[str, Sampler] = {
    "euler-maruyama": EulerMaruyama(),
    "exponential-sde": ExponentialSDE(),
    "ancestral": Ancestral(),
    "euler": Flow("time", "euler"),
    "heun": Flow("time", "heun"),
    "exponential-euler": Flow("score", "euler"),
    "exponential-rk2": Flow("score", "heun"),
    "exponential-rk3": Flow("score", "heun3"),
    "karras": Flow("noise", "heun"),
    "ddim": DDIM(),
    "dpm-solver-2": DPMSolver(2),
    "dpm-solver-3": DPMSolver(3),
    "dpm-solver++": DPMSolverPlusPlus(),
    "adams": LinearMultistep(4),
    "pndm": PNDM(),
    "predictor-corrector": PredictorCorrector(EulerMaruyama()),
}
"""Samplers by name."""


@underflow_is_zero
def sample(
    score: Score,
    n_samples: int,
    *,
    sampler: Sampler | str = "dpm-solver++",
    n_steps: int = 50,
    times: ArrayLike | str = "tangent",
    scale: float = 1.0,
    start: ArrayLike | None = None,
    known: ArrayLike | None = None,
    seed: int = 0,
    dtype: DTypeLike = "float64",
    num_threads: int | None = None,
    callback: Callable[[FloatArray, int], Any] | None = None,
) -> FloatArray:
    """Samples of the data, from noise that a score leads back, shape (n_samples, p).

    Parameters
    ----------
    score : Score
    n_samples : int
    sampler : Sampler or str
        Or its name among ``mfld.diffusion.SAMPLERS``.
    n_steps : int
        Steps of a named grid.
    times : array_like, shape (K + 1,), or str
        Times, or the name of a grid, see `mfld.diffusion.times`. Where they rise, noise is added.
    scale : float
        Of the tangent grid.
    start : array_like, shape (n_samples, p), optional
        Points at the first time. By default ``sigma xi``, with normals of the stream ``init``.
    known : array_like, shape (p,) or (n_samples, p), optional
        Coordinates that are known, and nan for the others: after each step the known ones are replaced by their law at
        that time (inpainting).
    seed : int
        Of the noise. Sample i depends on it and on i, not on how many there are, where the score does so.
    dtype : {"float64", "float32"}
    num_threads : int, optional
        It changes no number.
    callback : callable, optional
        ``callback(points, k)`` after step k; what it returns is not looked at.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    FloatingPointError
        If a sample leaves the finite numbers.

    Examples
    --------
    >>> from mfld import diffusion
    >>> from mfld.mixtures import GaussianMixture
    >>> two = GaussianMixture(None, means=[[-2.0], [2.0]], covariances=0.01)
    >>> x = diffusion.sample(diffusion.ExactScore(two), 1000, n_steps=20)
    >>> bool(abs((x > 0).mean() - 0.5) < 0.05), (abs(x).mean().round(1), abs(x).std().round(1))
    (True, (np.float64(2.0), np.float64(0.1)))
    """
    validation.instance("score", score, Score, "a Score, like ExactScore(mixture)")
    n_samples = validation.integer("n_samples", n_samples, 1)
    if isinstance(sampler, str):
        sampler = SAMPLERS[validation.choice("sampler", sampler, SAMPLERS)]
    validation.instance("sampler", sampler, Sampler, "a Sampler or the name of one")
    forward = score.forward
    if isinstance(times, str):
        grid = grids.times(forward, n_steps, validation.choice("times", times, grids.NAMES), scale=scale)
    else:
        grid = grids.checked("times", times, falling=False)
        forward.checked("times", float(grid.max()))
        grids.invertible("times", forward, float(grid.max()))
    precision = validation.float_dtype("dtype", dtype)
    threads = None if num_threads is None else validation.num_threads(num_threads)
    place = noise.Place.of(validation.seed(seed), num_threads=threads)
    shape = (n_samples, score.n_coordinates)
    points: FloatArray
    if start is None:
        points = precision.type(forward.sigma(grid[0])) * place.normals(*shape, precision, "init")
    else:
        points = validation.array("start", start, precision)
        validation.shape("start", points, shape, "(n_samples, coordinates)")
    given = None if known is None else _known(known, shape)
    if callback is not None:
        validation.function("callback", callback)

    def after(points: FloatArray, k: int) -> FloatArray:
        if given is not None:
            alpha, sigma = (precision.type(f(grid[k])) for f in (forward.alpha, forward.sigma))
            normals = place.ahead(k).beside("inpainting").normals(*shape, precision)
            points = np.where(np.isnan(given), points, alpha * given.astype(precision) + sigma * normals)
        if callback is not None:
            callback(points, k)
        return points

    return walk(points, score.on_threads(threads), sampler, grid, place, after)


def _known(known: ArrayLike, shape: tuple[int, int]) -> FloatArray:
    validation.unmasked("known", known)
    try:
        given = np.asarray(known)
    except ValueError as error:  # a ragged list
        raise ValueError(f"known must be an array of real numbers: {error}") from None
    if given.dtype.kind not in "biuf":
        raise TypeError(f"known must be an array of real numbers, got dtype {given.dtype}")
    if given.shape not in (shape, shape[1:]):
        raise ValueError(f"known must have shape {shape[1:]} or {shape}, got {given.shape}")
    if np.isinf(given).any():
        raise ValueError("known must be finite, or nan where a coordinate is not known, got inf")
    return np.broadcast_to(given.astype(np.float64), shape)
