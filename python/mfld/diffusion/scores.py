"""Scores: what is known of the law at each time, exactly, from data, or from a function."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from mfld import _core, linear, validation
from mfld.diffusion.forward import Forward, OrnsteinUhlenbeck
from mfld.mixtures import GaussianMixture
from mfld.validation import FloatArray

_ENTRIES = 1 << 20  # of a block of intermediate numbers
KINDS = ("noise", "score", "data")


class Score(ABC):
    """Gradient of the log-density of X_t, and what is the same in other words.

    With ``x = alpha(t) x_0 + sigma(t) xi``, the noise is ``E(xi | x) = -sigma * score``, and the data ``E(x_0 | x) = (x
    - sigma * noise) / alpha``. A subclass defines `noise`.

    Attributes
    ----------
    forward : Forward
    n_coordinates : int
        Coordinates p of a point.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import diffusion
    >>> class Standard(diffusion.Score):                # of data N(0, I), which stay so
    ...     forward, n_coordinates = diffusion.OrnsteinUhlenbeck(), 2
    ...     def noise(self, points, time):
    ...         return self.forward.sigma(time) * points
    >>> Standard().score(np.array([[1.0, 2.0]]), 0.5)
    array([[-1., -2.]])
    """

    forward: Forward
    n_coordinates: int

    @abstractmethod
    def noise(self, points: FloatArray, time: float) -> FloatArray:
        """Expected noise ``E(xi | x)`` at points, shape (n, p), at a time above 0: a new array, which samplers keep."""

    def score(self, points: FloatArray, time: float) -> FloatArray:
        """Gradient of the log-density at points, shape (n, p), at a time above 0."""
        points = self._asked(points, time)
        return np.asarray(self.noise(points, time) * points.dtype.type(-1 / float(self.forward.sigma(time))))

    def data(self, points: FloatArray, time: float) -> FloatArray:
        """Expected data ``E(x_0 | x)`` at points, shape (n, p), at a time above 0."""
        points = self._asked(points, time)
        alpha, sigma = (points.dtype.type(f(time)) for f in (self.forward.alpha, self.forward.sigma))
        data = np.asarray(sigma * self.noise(points, time))
        np.subtract(points, data, out=data)
        data /= alpha
        return data

    def divergence(self, points: FloatArray, time: float) -> FloatArray | None:
        """Divergence of the noise in the points, shape (n,); None where it is not known."""
        return None

    def on_threads(self, num_threads: int | None) -> Score:
        """The same score, computed on so many threads; which changes no number."""
        return self

    def _asked(self, points: FloatArray, time: float) -> FloatArray:
        """The points, of the right shape, at a time at which there is a score; they need not be finite."""
        if not isinstance(points, np.ndarray) or points.dtype.char not in "fd":
            points = validation.array("points", points)
        if points.ndim != 2 or points.shape[1] != self.n_coordinates:
            validation.shape("points", points, ("n", self.n_coordinates), "to match the score")
        if not isinstance(time, float):
            time = validation.real("time", time)
        if not 0 < time <= self.forward.horizon:
            raise ValueError(f"time must be above 0 and at most the horizon, {self.forward.horizon:g}, got {time:g}")
        return points


class ExactScore(Score):
    """Score of a Gaussian mixture, in closed form.

    Parameters
    ----------
    mixture : GaussianMixture
        Law of the data.
    forward : Forward, optional
        By default `OrnsteinUhlenbeck`.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import diffusion
    >>> from mfld.mixtures import GaussianMixture
    >>> two = GaussianMixture(None, means=[[-1.0], [1.0]], covariances=0.01)
    >>> diffusion.ExactScore(two).data(np.array([[0.5]]), 0.1).round(3)
    array([[0.965]])
    """

    def __init__(self, mixture: GaussianMixture, forward: Forward | None = None) -> None:
        self.mixture = validation.instance("mixture", mixture, GaussianMixture, "a GaussianMixture")
        self.forward = _forward(forward)
        self.n_coordinates = mixture.n_coordinates
        # Principal axes, in which the covariance is diagonal at all times; None where they are the coordinates.
        self._variances, self._axes = [], []
        for covariance in mixture.covariances:
            if np.array_equal(covariance, np.diag(np.diag(covariance))):
                values, axes = np.diag(covariance), None
            else:
                values, axes, _ = linear.eigenpairs(covariance, len(covariance))
            self._variances.append(values)
            self._axes.append(axes)

    def __repr__(self) -> str:
        return f"ExactScore({self.mixture!r}, {self.forward!r})"

    def noise(self, points: FloatArray, time: float) -> FloatArray:
        points = self._asked(points, time)
        noise = np.empty_like(points)
        for rows in _blocks(len(points), len(self._variances) * self.n_coordinates):
            shares, pulls, _ = self._terms(points[rows], time)
            noise[rows] = np.einsum("kn,knj->nj", shares, pulls)
        return np.asarray(noise * points.dtype.type(self.forward.sigma(time)))

    def divergence(self, points: FloatArray, time: float) -> FloatArray:
        points = self._asked(points, time)
        divergence = np.empty(len(points), points.dtype)
        for rows in _blocks(len(points), len(self._variances) * self.n_coordinates):
            shares, pulls, traces = self._terms(points[rows], time)
            mean = np.einsum("kn,knj->nj", shares, pulls)
            squares = np.sum(pulls * pulls, axis=2) - traces[:, np.newaxis]
            divergence[rows] = np.sum(mean * mean, axis=1) - np.sum(shares * squares, axis=0)
        return np.asarray(divergence * points.dtype.type(self.forward.sigma(time)))

    def _terms(self, points: FloatArray, time: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Posterior shares of the modes, (K, n), gradients of -log N, (K, n, p), and traces of precisions, (K,)."""
        dtype = points.dtype
        alpha, noise = float(self.forward.alpha(time)), float(self.forward.sigma(time)) ** 2
        logs = np.empty((len(self._variances), len(points)), dtype)
        pulls = np.empty((len(self._variances), *points.shape), dtype)
        traces = np.empty(len(self._variances), dtype)
        for k, (values, axes) in enumerate(zip(self._variances, self._axes, strict=True)):
            precision = 1 / (alpha**2 * values + noise)
            offset = points - (alpha * self.mixture.means[k]).astype(dtype)
            if axes is None:
                pulls[k] = offset * precision.astype(dtype)
            else:
                matrix = np.einsum("ia,a,ja->ij", axes, precision, axes)
                pulls[k] = np.einsum("nj,ij->ni", offset, matrix.astype(dtype))
            with np.errstate(divide="ignore"):  # a weight of 0
                constant = np.log(self.mixture.weights[k]) + np.sum(np.log(precision)) / 2
            logs[k] = dtype.type(constant) - np.sum(offset * pulls[k], axis=1) / 2
            traces[k] = np.sum(precision)
        return _shares(logs), pulls, traces


class EmpiricalScore(Score):
    """Score of the data themselves, each a point mass: it leads back to the data, and makes nothing new.

    The expected data are an average of the data, with weights ``softmax_j(log w_j - |x - alpha z_j|**2 / (2
    sigma**2))``. It is what a network that fits its training data perfectly would learn, and an oracle for tests.

    Parameters
    ----------
    data : array_like, shape (n, p)
    forward : Forward, optional
        By default `OrnsteinUhlenbeck`.
    weights : array_like, shape (n,), optional
        At least 0; by default 1/n each.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or shape.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import diffusion
    >>> score = diffusion.EmpiricalScore([[0.0, 1.0], [2.0, 3.0]])
    >>> score.data(np.array([[0.1, 0.9]]), 0.01).round(6)
    array([[0., 1.]])
    """

    def __init__(self, data: ArrayLike, forward: Forward | None = None, weights: ArrayLike | None = None) -> None:
        points = validation.array("data", data)
        validation.shape("data", points, ("n", "p"))
        self.points = validation.frozen(points)
        self.forward = _forward(forward)
        self.n_coordinates = points.shape[1]
        even = np.full(len(points), 1 / len(points)) if weights is None else weights
        self.weights = validation.weights("weights", even, (len(points),), "to match data", np.float64)
        self.num_threads: int | None = None

    def __repr__(self) -> str:
        n, p = self.points.shape
        return f"EmpiricalScore({n} point{'s' * (n > 1)} of {p} coordinate{'s' * (p > 1)}, {self.forward!r})"

    def noise(self, points: FloatArray, time: float) -> FloatArray:
        points = self._asked(points, time)
        alpha, sigma = (points.dtype.type(f(time)) for f in (self.forward.alpha, self.forward.sigma))
        return np.asarray((points - alpha * self.data(points, time)) / sigma)

    def data(self, points: FloatArray, time: float) -> FloatArray:
        points = self._asked(points, time)
        dtype, scales = points.dtype, [1 / float(self.forward.ratio(time))] * self.n_coordinates
        scaled = np.ascontiguousarray(points / dtype.type(self.forward.alpha(time)))
        data, weights = (array.astype(dtype, copy=False) for array in (self.points, self.weights))
        return _core.backend.gaussian_means(scales, scaled, data, weights, validation.num_threads(self.num_threads))

    def on_threads(self, num_threads: int | None) -> EmpiricalScore:
        other = copy.copy(self)
        other.num_threads = num_threads
        return other


class FunctionScore(Score):
    """Score by a function of your own, in NumPy, PyTorch, JAX or what else gives arrays.

    Parameters
    ----------
    function : callable
        ``function(points, time)``: of an array of shape (n, p) and a time, an array of the same shape.
    n_coordinates : int
        Coordinates p of a point.
    forward : Forward, optional
        By default `OrnsteinUhlenbeck`.
    kind : str
        What the function gives: "noise", "score" or "data".

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import diffusion
    >>> score = diffusion.FunctionScore(lambda x, t: -x, n_coordinates=1, kind="score")
    >>> score.noise(np.array([[2.0]]), 5.0).round(3)
    array([[2.]])
    """

    def __init__(
        self,
        function: Callable[[FloatArray, float], ArrayLike],
        n_coordinates: int,
        forward: Forward | None = None,
        kind: str = "noise",
    ) -> None:
        validation.function("function", function)
        self.function = function
        self.n_coordinates = validation.integer("n_coordinates", n_coordinates, 1)
        self.forward = _forward(forward)
        self.kind = validation.choice("kind", kind, KINDS)

    def __repr__(self) -> str:
        name = getattr(self.function, "__name__", repr(self.function))
        return f"FunctionScore({name}, n_coordinates={self.n_coordinates}, {self.forward!r}, kind={self.kind!r})"

    def noise(self, points: FloatArray, time: float) -> FloatArray:
        why, points = "to match points", self._asked(points, time)
        # Functions may change what they are given, and give the same array again: both are theirs alone.
        result = self.function(points.copy(), time)
        value = validation.returned("the result of function", result, points.shape, points.dtype, why)
        alpha, sigma = (points.dtype.type(f(time)) for f in (self.forward.alpha, self.forward.sigma))
        if self.kind == "score":
            value = -sigma * value
        elif self.kind == "data":
            value = (points - alpha * value) / sigma
        else:
            value = value.copy()
        return np.asarray(value)


def _forward(forward: Forward | None) -> Forward:
    return OrnsteinUhlenbeck() if forward is None else validation.instance("forward", forward, Forward, "a Forward")


def _blocks(n_rows: int, width: int) -> list[slice]:
    size = max(1, _ENTRIES // max(width, 1))
    return [slice(first, first + size) for first in range(0, n_rows, size)]


def _shares(logs: FloatArray) -> FloatArray:
    """Softmax along the first axis."""
    with np.errstate(under="ignore"):
        shares = np.exp(logs - logs.max(axis=0))
        return np.asarray(shares / shares.sum(axis=0))
