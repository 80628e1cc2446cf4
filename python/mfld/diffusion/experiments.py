"""Experiments on what diffusion models guarantee: errors on the line without sampling error, rates, many dimensions.

On the line the probability flow keeps the order of its points, so that points at equal levels of the noise end at equal
levels of what a sampler makes: distances of laws are sums over levels, and exact up to their number.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mfld import noise, validation
from mfld.diffusion.forward import Forward, OrnsteinUhlenbeck
from mfld.diffusion.samplers import Sampler
from mfld.diffusion.sampling import sample
from mfld.diffusion.scores import ExactScore, Score
from mfld.kernels import Gaussian
from mfld.mixtures import GaussianMixture
from mfld.validation import FloatArray

_HALVINGS = 60
_LEAST_RATIO = 1e-12
_SMOOTHNESS = {"box": 0.5, "tent": 1.5}
SHAPES = tuple(_SMOOTHNESS)


class Slope(NamedTuple):
    """Exponent of a power law, found by regression of logarithms, and its standard error."""

    exponent: float
    standard_error: float


def exponent(x: ArrayLike, y: ArrayLike) -> Slope:
    """Exponent b of ``y = a x**b`` by least squares in logarithms, with its standard error from the residuals.

    Parameters
    ----------
    x, y : array_like, shape (n,)
        Positive, n at least 3.

    Raises
    ------
    TypeError, ValueError
        If an array is of the wrong kind or shape, or not positive; if all of x are equal.

    Examples
    --------
    >>> from mfld import diffusion
    >>> diffusion.experiments.exponent([1.0, 2.0, 4.0], [3.0, 12.0, 48.0]).exponent
    2.0
    """
    logs = []
    for name, values in (("x", x), ("y", y)):
        given = validation.array(name, values, np.float64)
        validation.shape(name, given, ("n",))
        if len(given) < 3 or (given <= 0).any():
            raise ValueError(f"{name} must be at least 3 positive numbers, got {validation.show(values)}")
        logs.append(np.log(given))
    validation.shape("y", logs[1], logs[0].shape, "to match x")
    if logs[0].min() == logs[0].max():
        raise ValueError(f"x must hold different numbers, got {validation.show(x)}")
    u, v = (own - own.mean() for own in logs)
    slope = float(u @ v / (u @ u))
    residual = v - slope * u
    return Slope(round(slope, 12), math.sqrt(float(residual @ residual) / (len(u) - 2) / float(u @ u)))


def levels_of(law: GaussianMixture, n_levels: int) -> FloatArray:
    """Quantiles of a mixture on the line at the levels ``(i + 1/2) / n_levels``, shape (n_levels,).

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, or the law not on the line.

    Examples
    --------
    >>> from mfld import diffusion
    >>> from mfld.mixtures import GaussianMixture
    >>> diffusion.experiments.levels_of(GaussianMixture(None, [[1.0]], 1.0), 3).round(3)
    array([0.033, 1.   , 1.967])
    """
    _on_the_line(law)
    n = validation.integer("n_levels", n_levels, 1, 10**6)
    means, deviations = law.means[:, 0], np.sqrt(law.covariances[:, 0, 0])
    wanted = (np.arange(n) + 0.5) / n
    erfc = np.frompyfunc(math.erfc, 1, 1)
    low = np.full(n, float((means - 10 * deviations).min()))
    high = np.full(n, float((means + 10 * deviations).max()))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        z = (middle[:, np.newaxis] - means) / deviations
        below = erfc(-z / math.sqrt(2)).astype(np.float64) @ law.weights / 2 < wanted
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.asarray((low + high) / 2)


def transported_error(
    score: Score, law: GaussianMixture, *, sampler: Sampler | str, times: ArrayLike, n_levels: int = 500
) -> float:
    """Wasserstein distance W_2 between a law on the line and what a sampler makes of noise.

    The levels of ``N(0, sigma**2)`` go through the sampler, are sorted, and stand against the quantiles of the law.

    Parameters
    ----------
    score : Score
        In one coordinate.
    law : GaussianMixture
        What the samples should have: that of the data, or of `Forward.marginal` at the last time.
    sampler : Sampler or str
        One that draws no noise.
    times : array_like, shape (K + 1,)
    n_levels : int

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> from mfld import diffusion
    >>> from mfld.mixtures import GaussianMixture
    >>> law = GaussianMixture(None, [[0.0]], 9.0)
    >>> score = diffusion.ExactScore(law)
    >>> for n in (10, 20):
    ...     grid = diffusion.times(score.forward, n, "tangent", scale=3.0, end=0.0)
    ...     print(round(diffusion.experiments.transported_error(score, law, sampler="ddim", times=grid), 2))
    0.34
    0.18
    """
    exact = levels_of(law, n_levels)
    return float(np.sqrt(np.mean((_pushed(score, sampler, times, n_levels) - exact) ** 2)))


def early_stopped_density(
    data: ArrayLike,
    points: ArrayLike,
    time: float,
    forward: Forward | None = None,
    num_threads: int | None = None,
) -> FloatArray:
    """Density at points of what the flow of `EmpiricalScore` has made by a time, divided by alpha.

    It is the data with noise of deviation ``sigma / alpha``, the kernel estimate of their density with that bandwidth,
    up to the law at the horizon: a diffusion that fits its data perfectly is as good an estimator as the time at which
    it stops. Source: Oko, Akiyama, Suzuki 2023, "Diffusion models are minimax optimal distribution estimators".

    Parameters
    ----------
    data : array_like, shape (n, p)
    points : array_like, shape (m, p)
    time : float
        Above 0.
    forward : Forward, optional
        By default `OrnsteinUhlenbeck`.
    num_threads : int, optional
        It changes no number.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or range.

    Examples
    --------
    >>> from mfld import diffusion
    >>> diffusion.experiments.early_stopped_density([[0.0]], [[0.0], [1.0]], 0.5).round(3)
    array([0.304, 0.228])
    """
    chosen = OrnsteinUhlenbeck() if forward is None else forward
    validation.instance("forward", chosen, Forward, "a Forward, like OrnsteinUhlenbeck()")
    rows, x = validation.array("data", data, np.float64), validation.array("points", points, np.float64)
    validation.shape("data", rows, ("n", "p"))
    validation.shape("points", x, ("m", rows.shape[1]), "to match data")
    ratio = float(chosen.ratio(chosen.checked("time", time)))
    if ratio < _LEAST_RATIO:
        raise ValueError(f"time must be one with sigma / alpha of at least {_LEAST_RATIO:g}, got {time:g}")
    sums = Gaussian(ratio).sums(x, rows, num_threads=num_threads)
    return np.asarray(sums / (math.sqrt(2 * math.pi) * ratio) ** rows.shape[1])


def stopped_errors(
    shape: str,
    n_coordinates: int,
    sizes: ArrayLike,
    *,
    factor: float = 0.5,
    n_repetitions: int = 8,
    n_points: int = 200,
    seed: int = 0,
) -> FloatArray:
    """L2 errors of early-stopped diffusions as estimators of a density of known smoothness, shape (sizes, repetitions).

    The density is a product over coordinates of the shape ``box``, 1/2 on [-1, 1], with Sobolev smoothness s = 1/2, or
    ``tent``, ``1 - |x|`` on [-1, 1], with s = 3/2 (both but for logarithms). The diffusion of n data stops where
    ``sigma / alpha = factor n**(-1 / (2 s + p))``, at which the error is of the minimax order ``n**(-s / (2 s + p))``:
    `rate_of`. It is measured on a grid.

    Parameters
    ----------
    shape : str
        "box" or "tent".
    n_coordinates : int
        p, 1 or 2.
    sizes : array_like of int
        Numbers n of data.
    factor : float
        Between 0.01 and 10.
    n_repetitions : int
        Independent sets of data of each size.
    n_points : int
        Of the grid, in each coordinate.
    seed : int

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> from mfld import diffusion
    >>> errors = diffusion.experiments.stopped_errors("tent", 1, [100, 1000], n_repetitions=4)
    >>> bool((errors[1] < errors[0]).all())
    True
    """
    smoothness = _SMOOTHNESS[validation.choice("shape", shape, SHAPES)]
    p = validation.integer("n_coordinates", n_coordinates, 1, 2)
    numbers = _counts("sizes", sizes)
    factor = validation.real("factor", factor, positive=True)
    if not 0.01 <= factor <= 10:
        raise ValueError(f"factor must be between 0.01 and 10, got {factor:g}")
    repetitions = validation.integer("n_repetitions", n_repetitions, 1, 10**6)
    per_axis = validation.integer("n_points", n_points, 2, 10**4)
    key, forward = validation.seed(seed), OrnsteinUhlenbeck()
    errors = np.empty((len(numbers), repetitions))
    for i, (row, n) in enumerate(zip(errors, numbers, strict=True)):
        ratio = factor * n ** (-1 / (2 * smoothness + p))
        # Midpoints as far as the noise reaches; the jump of a box lies between two of them.
        half = math.ceil((1 + 4 * ratio) * per_axis / 2) / (per_axis / 2)
        count = round(half * per_axis)
        axis = (np.arange(count) + 0.5) * (2 * half / count) - half
        grid = np.stack(np.meshgrid(*[axis] * p, indexing="ij"), axis=-1).reshape(-1, p)
        exact = np.prod(_height(shape, grid), axis=1)
        for r in range(repetitions):
            rows = _drawn(shape, n, p, noise.Place.of(key, step=i * repetitions + r))
            found = early_stopped_density(rows, grid, forward.time(ratio), forward)
            row[r] = math.sqrt(float(np.sum((found - exact) ** 2)) * (2 * half / count) ** p)
    return errors


def rate_of(shape: str, n_coordinates: int) -> float:
    """The exponent s / (2 s + p) of the minimax error in L2 over densities of this smoothness: see `stopped_errors`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> from mfld import diffusion
    >>> diffusion.experiments.rate_of("tent", 1), diffusion.experiments.rate_of("tent", 2)
    (0.375, 0.3)
    """
    smoothness = _SMOOTHNESS[validation.choice("shape", shape, SHAPES)]
    return smoothness / (2 * smoothness + validation.integer("n_coordinates", n_coordinates, 1))


class WeakErrors(NamedTuple):
    """Errors in many dimensions: of a test function, and the distance W_2 of the laws, shape (dimensions,) each."""

    weak: FloatArray
    wasserstein: FloatArray


def weak_errors(
    law: GaussianMixture,
    dimensions: ArrayLike,
    *,
    sampler: Sampler | str,
    times: ArrayLike,
    forward: Forward | None = None,
    n_levels: int = 1000,
) -> WeakErrors:
    """Errors of a sampler of d independent coordinates with this law, in the test function ``cos(u.x)``, |u| = 1.

    With u the same in all coordinates; the function and its derivatives of orders one and two are at most 1 whatever
    d is, and its error stays bounded as d grows, while the distance W_2 grows like ``sqrt(d)``. The coordinates of the
    flow do not see each other, so that ``E exp(i u.x)`` is a power of the one on the line. Source: De Bortoli et al.
    2025, arXiv 2512.01820, whose errors of smooth test functions are free of the dimension.

    Parameters
    ----------
    law : GaussianMixture
        Of a coordinate.
    dimensions : array_like of int
    sampler, times, n_levels
        As in `transported_error`; the times end at 0, or close by.
    forward : Forward, optional
        By default `OrnsteinUhlenbeck`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> from mfld import diffusion
    >>> from mfld.mixtures import GaussianMixture
    >>> grid = diffusion.times(diffusion.OrnsteinUhlenbeck(), 20, end=0.0)
    >>> law = GaussianMixture(None, [[-1.0], [1.0]], 0.25)
    >>> found = diffusion.experiments.weak_errors(law, [1, 100, 10_000], sampler="ddim", times=grid)
    >>> found.weak.round(3), (found.wasserstein / found.wasserstein[0]).round(6)
    (array([0.036, 0.029, 0.029]), array([  1.,  10., 100.]))
    """
    _on_the_line(law)
    score = ExactScore(law, forward)
    exact = levels_of(law, n_levels)
    found = _pushed(score, sampler, times, n_levels)
    d = _counts("dimensions", dimensions)
    means = [np.array([np.mean(np.exp(1j * x / math.sqrt(n))) ** n for n in d]).real for x in (found, exact)]
    distance = math.sqrt(float(np.mean((found - exact) ** 2)))
    return WeakErrors(np.abs(means[0] - means[1]), np.sqrt(d) * distance)


def _counts(name: str, values: ArrayLike) -> list[int]:
    given = validation.array(name, values, np.float64)
    validation.shape(name, given, ("n",))
    return [validation.integer(name, int(n) if n.is_integer() else n, 1, 10**9) for n in given.tolist()]


def _on_the_line(law: GaussianMixture) -> None:
    validation.instance("law", law, GaussianMixture, "a GaussianMixture")
    if law.n_coordinates != 1:
        raise ValueError(f"law must have one coordinate, got {law.n_coordinates}")


def _pushed(score: Score, sampler: Sampler | str, times: ArrayLike, n_levels: int) -> FloatArray:
    """Ends of the levels of the noise under a sampler, sorted."""
    validation.instance("score", score, Score, "a Score")
    if score.n_coordinates != 1:
        raise ValueError(f"score must have one coordinate, got {score.n_coordinates}")
    grid = validation.array("times", times, np.float64)
    validation.shape("times", grid, ("K + 1",))
    start = float(score.forward.sigma(grid[0])) * levels_of(GaussianMixture(None, [[0.0]], 1.0), n_levels)
    return np.sort(sample(score, n_levels, sampler=sampler, times=grid, start=start[:, np.newaxis])[:, 0])


def _height(shape: str, x: FloatArray) -> FloatArray:
    inside = np.abs(x) < 1
    return np.asarray(np.where(inside, 0.5 if shape == "box" else 1 - np.abs(x), 0.0))


def _drawn(shape: str, n: int, p: int, place: noise.Place) -> FloatArray:
    uniforms = place.uniforms(n, 2 * p, "float64", "data")
    return 2 * uniforms[:, :p] - 1 if shape == "box" else uniforms[:, :p] + uniforms[:, p:] - 1
