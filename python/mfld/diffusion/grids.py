"""Time grids: where the steps of the way back start and end.

A named grid has equal steps in a function of the ratio ``sigma / alpha`` of noise to signal, or of the time.

=============  ==========================================  ======================================================
name           equal steps in
=============  ==========================================  ======================================================
``uniform``    t
``log-snr``    ``log(sigma / alpha)``                      does not reach time 0
``cosine``     ``arctan(sigma / alpha)``                   alpha = cos(phi), of `OrnsteinUhlenbeck`
``tangent``    ``arctan(sigma / (alpha scale))``           best for `DDIM` on data of deviation ``scale``
``sech``       ``arsinh(sigma / alpha)``                   alpha = sech(u), of `OrnsteinUhlenbeck`
``karras``     ``(sigma / alpha)**(1 / 7)``                Karras et al. 2022
=============  ==========================================  ======================================================

On data ``N(m, c**2 I)``, `DDIM` from t_0 to t_K on any grid has the exact mean and the standard deviation of the exact
flow times ``prod_k cos(phi_k - phi_(k+1))`` with ``sigma / alpha = c tan(phi)``. By Jensen's inequality equal steps in
phi are the best of all grids for each number of steps K, and the logarithm of the factor is then ``K log cos(Phi / K)``
(`gaussian_error`). With c = 1 this is the cosine grid.

For other errors there is a rule: where they add up to ``sum_k c(t_k) h_k**q``, the best grid of many steps has steps in
proportion to ``c**(-1 / q)`` (`equidistributed`), and c can be measured (`measured_errors`). For an error that is a
function of the grid, `optimised` finds the best grid numerically.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import extras, noise, validation
from mfld.diffusion.forward import Forward, Times
from mfld.diffusion.samplers import Sampler, walk
from mfld.diffusion.scores import Score
from mfld.validation import FloatArray

_POWER = 7.0
_MOST_STEPS = 10**6
_CLOCKS: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "log-snr": (math.log, math.exp),
    "cosine": (math.atan, math.tan),
    "tangent": (math.atan, math.tan),
    "sech": (math.asinh, math.sinh),
    "karras": (lambda ratio: ratio ** (1 / _POWER), lambda root: root**_POWER),
}
NAMES = ("uniform", *_CLOCKS)


def times(
    forward: Forward,
    n_steps: int,
    name: str = "tangent",
    *,
    scale: float = 1.0,
    start: float | None = None,
    end: float | None = None,
) -> Times:
    """Times of a named grid, falling, shape (n_steps + 1,).

    Parameters
    ----------
    forward : Forward
    n_steps : int
    name : str
        One of ``mfld.diffusion.grids.NAMES``.
    scale : float
        Of the tangent grid: standard deviation of the data, by their root mean square eigenvalue.
    start, end : float, optional
        By default the horizon and the earliest time of the forward process; 0 leads to the data themselves.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> from mfld import diffusion
    >>> diffusion.times(diffusion.OrnsteinUhlenbeck(), 4, "cosine", end=0.0).round(3)
    array([5.   , 0.948, 0.343, 0.078, 0.   ])
    """
    validation.instance("forward", forward, Forward, "a Forward, like OrnsteinUhlenbeck()")
    n_steps = validation.integer("n_steps", n_steps, 1, _MOST_STEPS)
    validation.choice("name", name, NAMES)
    scale = validation.real("scale", scale, positive=True)
    first = forward.horizon if start is None else forward.checked("start", start)
    last = forward.earliest if end is None else forward.checked("end", end)
    if last >= first:
        raise ValueError(f"end must be before the start, {first:g}, got {last:g}")
    invertible("start", forward, first)
    if name == "uniform":
        return np.array(np.linspace(first, last, n_steps + 1))
    if name == "log-snr" and last == 0:
        raise ValueError("end must be above 0 for the grid log-snr, which never reaches it, got 0")
    unit = scale if name == "tangent" else 1.0
    clock, back = _CLOCKS[name]
    begin, finish = (clock(float(forward.ratio(time)) / unit) for time in (first, last))
    inner = [forward.time(unit * back(value)) for value in np.linspace(begin, finish, n_steps + 1)[1:-1].tolist()]
    grid = np.array([first, *inner, last])
    if (np.diff(grid) >= 0).any():
        why = f" of the scale {scale:g}" if name == "tangent" else ""
        raise ValueError(f"scale and n_steps must leave times apart, got {n_steps} steps of the grid {name}{why}")
    return grid


def with_restarts(grid: ArrayLike, low: float, high: float, n_restarts: int) -> Times:
    """Times that go down a grid, and, once at the time ``low``, back up to ``high`` and down again, so many times.

    Where times rise, samplers add noise. Source: Xu, Deng, Cheng, Tian, Liu, Jaakkola 2023, "Restart sampling for
    improving generative processes".

    Parameters
    ----------
    grid : array_like, shape (K + 1,)
        Falling times.
    low, high : float
        Ends of what is repeated: the nearest times of the grid are taken, which must differ.
    n_restarts : int

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> from mfld import diffusion
    >>> diffusion.grids.with_restarts([4.0, 2.0, 1.0, 0.0], low=1.0, high=2.0, n_restarts=2).tolist()
    [4.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 0.0]
    """
    falling = checked("grid", grid)
    ends = [int(np.argmin(np.abs(falling - validation.real(name, t)))) for name, t in (("low", low), ("high", high))]
    if ends[0] <= ends[1]:
        raise ValueError(f"low must be before high by a step of the grid, got {low:g} and {high:g}")
    part = falling[ends[1] : ends[0] + 1]
    again = [part] * validation.integer("n_restarts", n_restarts, 0, _MOST_STEPS)
    return np.concatenate([falling[: ends[0] + 1], *again, falling[ends[0] + 1 :]])


def equidistributed(grid: ArrayLike, errors: ArrayLike, n_steps: int, power: float = 2.0) -> Times:
    """Grid whose steps go like ``c(t)**(-1 / power)``: the best one where errors are ``sum_k c(t_k) h_k**power``.

    Parameters
    ----------
    grid : array_like, shape (J + 1,)
        Falling times at which c is known.
    errors : array_like, shape (J + 1,)
        Values of c, at least 0 and not all 0.
    n_steps : int
    power : float
        Above 1: that of a step in its error, one more than the order of a sampler.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or shape, or out of range.

    Examples
    --------
    >>> from mfld import diffusion
    >>> diffusion.grids.equidistributed([1.0, 0.5, 0.0], [1.0, 1.0, 1.0], 4)
    array([1.  , 0.75, 0.5 , 0.25, 0.  ])
    """
    falling = checked("grid", grid)
    c = validation.array("errors", errors, np.float64)
    validation.shape("errors", c, falling.shape, "to match grid")
    if (c < 0).any() or not c.any():
        raise ValueError(f"errors must be at least 0, and not all 0, got {c.min():g} at least and {c.max():g} at most")
    power = validation.real("power", power)
    if power <= 1:
        raise ValueError(f"power must be above 1, got {power:g}")
    density = c ** (1 / power)
    steps = (density[:-1] + density[1:]) / 2 * -np.diff(falling)
    covered = np.append(0.0, np.cumsum(steps))
    wanted = np.linspace(0, covered[-1], validation.integer("n_steps", n_steps, 1, _MOST_STEPS) + 1)
    return np.append(np.interp(wanted[:-1], covered, falling), falling[-1])


def measured_errors(
    score: Score,
    grid: ArrayLike,
    sampler: Sampler,
    n_samples: int = 1000,
    seed: int = 0,
    start: ArrayLike | None = None,
) -> Times:
    """Values of c at the inner times of a grid, measured, for errors ``sum_k c(t_k) h_k**2`` of a sampler of order 1.

    Each inner time is left out once, which makes one step of two, of lengths h and h'; c is the root mean square of
    what this changes in the samples, over ``2 h h'``. What happens to the error on the way is in it. Evaluations of the
    score: about half the square of the steps.

    Parameters
    ----------
    score : Score
    grid : array_like, shape (J + 1,)
        Falling times.
    sampler : Sampler
        One that draws no noise.
    n_samples, seed : int
    start : array_like, shape (n_samples, p), optional
        As in `mfld.diffusion.sample`.

    Returns
    -------
    ndarray, shape (J - 1,)

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> from mfld import diffusion
    >>> from mfld.mixtures import GaussianMixture
    >>> score = diffusion.ExactScore(GaussianMixture(None, [[0.0]], 4.0))
    >>> grid = diffusion.times(score.forward, 30, "log-snr")
    >>> c = diffusion.grids.measured_errors(score, grid, diffusion.DDIM())
    >>> better = diffusion.grids.equidistributed(grid[1:-1], c, 10)
    """
    shifts = measured_shifts(score, grid, sampler, n_samples, seed, start)
    return np.asarray(np.sqrt(np.mean(shifts**2, axis=(1, 2))))


def measured_shifts(
    score: Score,
    grid: ArrayLike,
    sampler: Sampler,
    n_samples: int = 1000,
    seed: int = 0,
    start: ArrayLike | None = None,
) -> FloatArray:
    """Vectors v of each sample at the inner times of a grid, measured, for errors ``sum_k v(t_k) h_k**2`` of order 1.

    As in `measured_errors`, whose numbers are their root mean squares: but errors of different times may point in
    different directions, and then less of them is left. `predicted_error` adds them as they are.

    Parameters
    ----------
    score, grid, sampler, n_samples, seed, start
        As in `measured_errors`.

    Returns
    -------
    ndarray, shape (J - 1, n_samples, p)

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> from mfld import diffusion
    >>> from mfld.mixtures import GaussianMixture
    >>> score = diffusion.ExactScore(GaussianMixture(None, [[0.0]], 4.0))
    >>> grid = diffusion.times(score.forward, 10, "log-snr")
    >>> diffusion.grids.measured_shifts(score, grid, diffusion.DDIM(), n_samples=5).shape
    (9, 5, 1)
    """
    validation.instance("score", score, Score, "a Score")
    validation.instance("sampler", sampler, Sampler, "a Sampler")
    falling = checked("grid", grid)
    validation.shape("grid", falling[2:], ("J - 1",))
    place = noise.Place.of(validation.seed(seed))
    shape = (validation.integer("n_samples", n_samples, 1), score.n_coordinates)
    if start is None:
        points = float(score.forward.sigma(falling[0])) * place.normals(*shape, "float64", "init")
    else:
        points = validation.array("start", start, np.float64)
        validation.shape("start", points, ("n", score.n_coordinates))

    def end(points: FloatArray, times: Times) -> FloatArray:
        return walk(points, score, sampler, times, place, lambda points, k: points)

    exact, shifts = end(points, falling), np.empty((len(falling) - 2, *points.shape))
    for k in range(len(shifts)):
        h, next_h = -np.diff(falling[k : k + 3])
        skipped = end(points, np.delete(falling[k:], 1))
        shifts[k] = (skipped - exact) / (2 * h * next_h)
        points = end(points, falling[k : k + 2])
    return shifts


def predicted_error(grid: ArrayLike, fine: ArrayLike, shifts: ArrayLike) -> float:
    """Root mean square over samples of ``sum_k v(t_k) h_k**2``: what a sampler of order 1 should err by on a grid.

    It is the first term of the error in the steps. As a cost for `optimised` it takes no evaluation of the score.

    Parameters
    ----------
    grid : array_like, shape (K + 1,)
        Falling times.
    fine : array_like, shape (J + 1,)
        The falling times at whose inner ones the shifts were measured.
    shifts : array_like, shape (J - 1, n, p)
        From `measured_shifts`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import diffusion
    >>> fine = np.linspace(1, 0, 11)
    >>> diffusion.grids.predicted_error([1.0, 0.5, 0.0], fine, np.ones((9, 4, 1)))
    0.5
    """
    falling, measured = checked("grid", grid), checked("fine", fine)
    v = validation.array("shifts", shifts, np.float64)
    validation.shape("shifts", v, (len(measured) - 2, "n", "p"), "to match the inner times of fine")
    # Weights of the measured times: each step reads v at its middle, by linear interpolation.
    squares, last = np.diff(falling) ** 2, len(v) - 1
    places = last - np.interp((falling[1:] + falling[:-1]) / 2, measured[-2:0:-1], np.arange(last + 1))
    low = np.floor(places).astype(np.int64)
    weights = np.bincount(low, (1 - places + low) * squares, last + 1)
    weights += np.bincount(np.minimum(low + 1, last), (places - low) * squares, last + 1)
    return float(np.sqrt(np.mean(np.einsum("k,knp->np", weights, v) ** 2)))


def optimised(cost: Callable[[Times], float], grid: ArrayLike) -> Times:
    """Grid with the same ends at which a cost is lowest, by the BFGS method in the logarithms of the steps.

    Parameters
    ----------
    cost : callable
        ``cost(times)``: a finite number, smooth in the times; its unit does not matter.
    grid : array_like, shape (K + 1,)
        Falling times to start from.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    ImportError
        If SciPy is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import diffusion
    >>> diffusion.grids.optimised(lambda t: np.sum(np.diff(t)**2), [1.0, 0.9, 0.0]).round(4)
    array([1. , 0.5, 0. ])
    """
    validation.function("cost", cost)
    falling = checked("grid", grid)
    optimize = extras.library("scipy.optimize", "diagnostics", "mfld.diffusion.grids.optimised")
    first, last = falling[0], falling[-1]

    def of(logs: NDArray[np.float64]) -> Times:
        shares = np.exp(logs - logs.max())
        inner = first - (first - last) * np.cumsum(shares)[:-1] / shares.sum()
        return np.array([first, *inner, last])

    def value(logs: NDArray[np.float64]) -> float:
        return validation.real("the result of cost", cost(of(logs)))

    start = np.log(-np.diff(falling))
    unit = abs(value(start)) or 1.0  # in which the method's tolerances are
    found = optimize.minimize(lambda logs: value(logs) / unit, start, method="BFGS")
    return checked("the best grid", of(found.x))


def gaussian_error(forward: Forward, grid: ArrayLike, variances: ArrayLike) -> float:
    """Logarithm of the factor by which `DDIM` makes standard deviations too small, summed over coordinates.

    For data with independent Gaussian coordinates: ``sum_j sum_k -log cos(phi_k - phi_(k+1))`` with ``sigma / alpha =
    c_j tan(phi)``, which is exact for any grid.

    Parameters
    ----------
    forward : Forward
    grid : array_like, shape (K + 1,)
        Falling times.
    variances : float or array_like, shape (p,)
        Of the data, positive.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> from mfld import diffusion
    >>> forward = diffusion.OrnsteinUhlenbeck()
    >>> tangent = diffusion.times(forward, 10, "tangent", scale=3.0)
    >>> round(diffusion.grids.gaussian_error(forward, tangent, 9.0), 4)
    0.1184
    """
    validation.instance("forward", forward, Forward, "a Forward")
    falling = checked("grid", grid)
    spread = np.atleast_1d(validation.array("variances", variances, np.float64))
    validation.shape("variances", spread, ("p",))
    if (spread <= 0).any():
        raise ValueError(f"variances must be positive, got {spread.min():g}")
    angles = np.arctan(forward.ratio(falling) / np.sqrt(spread)[:, np.newaxis])
    return float(-np.sum(np.log(np.cos(np.diff(angles, axis=1)))))


def checked(name: str, grid: ArrayLike, falling: bool = True) -> Times:
    """Times of a grid: at least two, at least 0, and falling (or at least not the same twice in a row)."""
    given: FloatArray = validation.array(name, grid, np.float64)
    validation.shape(name, given, ("K + 1",))
    if len(given) < 2:
        raise ValueError(f"{name} must be at least two times, got {len(given)}")
    if (given < 0).any():
        raise ValueError(f"{name} must be at least 0, got {given.min():g}")
    wrong = np.diff(given) >= 0 if falling else np.diff(given) == 0
    if wrong.any():
        k = int(np.argmax(wrong))
        raise ValueError(f"{name} must {'fall' if falling else 'change'}, got {given[k]:g} and then {given[k + 1]:g}")
    return given.astype(np.float64, copy=False)


def invertible(name: str, forward: Forward, time: float) -> None:
    """Refusal of a time at which nothing is left of the data, from which no sampler finds back."""
    alpha, sigma = float(forward.alpha(time)), float(forward.sigma(time))
    if not alpha > 0 or not math.isfinite(sigma / alpha):
        raise ValueError(
            f"{name} must be a time at which sigma / alpha is finite, got {time:g}, where alpha is {alpha:g}: "
            "an earlier horizon helps"
        )
