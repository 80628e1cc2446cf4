"""Likelihoods: the density of each observation given the coordinates of a particle, in logarithms.

`mfld.LogScore` makes an objective of one, the log score of a mixture, and `mfld.posteriors.Posterior` a potential, the
posterior of a single parameter.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import validation
from mfld.validation import FloatArray

__all__ = ["Gaussian", "Likelihood", "LinearRegression", "LogLikelihood", "LogisticRegression"]

Rows: TypeAlias = NDArray[np.int64] | slice
"""Numbers of the observations that are asked for; ``slice(None)`` for all."""


class Likelihood(ABC):
    """Densities ``p(y_i | theta)`` of n observations, given a particle theta.

    A subclass has the numbers of observations and coordinates, the logarithms of the densities, and their gradients in
    theta, summed with weights, so that no array of n gradients for each of M particles is ever made.

    Attributes
    ----------
    n_samples : int
        n.
    n_coordinates : int
        p, of a particle.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import likelihoods
    >>> class Poisson(likelihoods.Likelihood):
    ...     '''Counts y_i of the rate exp(theta).'''
    ...     n_coordinates = 1
    ...     def __init__(self, counts):
    ...         self.counts, self.n_samples = np.asarray(counts), len(counts)
    ...     def log_density(self, points, rows):               # up to what does not depend on theta
    ...         return points * self.counts[rows] - np.exp(points)
    ...     def pull_back(self, points, cotangent, rows):
    ...         slopes = self.counts[rows] - np.exp(points)
    ...         return np.sum(cotangent * slopes, axis=1, keepdims=True)
    >>> Poisson([2, 3]).log_density(np.zeros((1, 1)), slice(None))
    array([[-1., -1.]])
    """

    n_samples: int
    n_coordinates: int

    @abstractmethod
    def log_density(self, points: FloatArray, rows: Rows) -> FloatArray:
        """Logarithms ``log p(y_i | theta_m)``, shape (M, B), at points of shape (M, p) and for B rows."""

    @abstractmethod
    def pull_back(self, points: FloatArray, cotangent: FloatArray, rows: Rows) -> FloatArray:
        """Sums ``sum_i c_mi grad log p(y_i | theta_m)``, shape (M, p), with a cotangent c of shape (M, B)."""


class Gaussian(Likelihood):
    """Observations around a particle: ``y_i ~ N(theta, scale**2 I)``.

    Parameters
    ----------
    samples : array_like, shape (n, p)
    scale : float
        Positive.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or range.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import likelihoods
    >>> likelihood = likelihoods.Gaussian([[0.0], [2.0]], scale=1.0)
    >>> likelihood.log_density(np.zeros((1, 1)), slice(None)).round(4)
    array([[-0.9189, -2.9189]])
    """

    def __init__(self, samples: ArrayLike, scale: float = 1.0) -> None:
        given = validation.array("samples", samples, np.float64)
        validation.shape("samples", given, ("n", "p"), "(observations, coordinates)")
        self.samples = validation.frozen(given)
        self.scale = validation.real("scale", scale, positive=True)
        self.n_samples, self.n_coordinates = given.shape

    def __repr__(self) -> str:
        return f"Gaussian({self.n_samples} samples of {self.n_coordinates}, scale={self.scale:g})"

    def log_density(self, points: FloatArray, rows: Rows) -> FloatArray:
        samples = self.samples[rows].astype(points.dtype)
        squares = np.zeros((len(points), len(samples)), points.dtype)
        for j in range(self.n_coordinates):  # differences, and not the expanded square, which cancels
            squares += (points[:, j, np.newaxis] - samples[:, j]) ** 2
        log_scale = self.n_coordinates / 2 * math.log(2 * math.pi * self.scale**2)
        return np.asarray(squares / (-2 * self.scale**2) - log_scale)

    def pull_back(self, points: FloatArray, cotangent: FloatArray, rows: Rows) -> FloatArray:
        samples = self.samples[rows].astype(points.dtype)
        # From the mean of the samples, so that what cancels is small.
        centre = samples.mean(axis=0)
        pulled = np.einsum("mi,ij->mj", cotangent, samples - centre)
        pulled -= np.sum(cotangent, axis=1, keepdims=True) * (points - centre)
        return np.asarray(pulled / self.scale**2)


class Linear(Likelihood):
    """A likelihood of a linear predictor ``x_i . theta``: ``log p = -loss(x_i . theta, y_i) - log_scale``."""

    log_scale = 0.0

    def __init__(self, inputs: ArrayLike, targets: ArrayLike) -> None:
        given = validation.array("inputs", inputs, np.float64)
        validation.shape("inputs", given, ("n", "p"), "(observations, coefficients)")
        self.inputs = validation.frozen(given)
        named = validation.array("targets", targets, np.float64)
        validation.shape("targets", named, (len(given),), "to match inputs")
        self.targets = validation.frozen(named)
        self.n_samples, self.n_coordinates = given.shape

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.n_samples} samples of {self.n_coordinates} features)"

    def log_density(self, points: FloatArray, rows: Rows) -> FloatArray:
        return np.asarray(-self.losses(*self.predicted(points, rows)) - self.log_scale)

    def pull_back(self, points: FloatArray, cotangent: FloatArray, rows: Rows) -> FloatArray:
        return self.summed(-cotangent * self.slopes(*self.predicted(points, rows)), rows)

    def summed(self, shares: FloatArray, rows: Rows) -> FloatArray:
        """Sums ``sum_i c_mi x_i``, shape (M, p)."""
        return np.asarray(np.einsum("mi,ij->mj", shares, self.inputs[rows].astype(shares.dtype)))

    def predicted(self, points: FloatArray, rows: Rows) -> tuple[FloatArray, FloatArray]:
        """Predictors of points, shape (M, B), and targets."""
        # Not a matrix product of BLAS, whose bits depend on threads and on the number of rows; and no slower.
        inputs = np.ascontiguousarray(self.inputs[rows].T.astype(points.dtype))
        return np.einsum("mj,ji->mi", points, inputs), self.targets[rows].astype(points.dtype)

    @abstractmethod
    def losses(self, predictors: FloatArray, targets: FloatArray) -> FloatArray:
        """Minus the log-density of each observation, but for ``log_scale``."""

    @abstractmethod
    def slopes(self, predictors: FloatArray, targets: FloatArray) -> FloatArray:
        """Derivatives of `losses` in the predictor."""

    @abstractmethod
    def curvatures(self, predictors: FloatArray) -> FloatArray:
        """Second derivatives of `losses` in the predictor."""


class LinearRegression(Linear):
    """Targets around a linear predictor: ``y_i ~ N(x_i . theta, noise_variance)``.

    Parameters
    ----------
    inputs : array_like, shape (n, p)
    targets : array_like, shape (n,)
    noise_variance : float
        Positive.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or range.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import likelihoods
    >>> likelihood = likelihoods.LinearRegression([[1.0], [2.0]], [1.0, 2.0])
    >>> likelihood.pull_back(np.zeros((1, 1)), np.ones((1, 2)), slice(None))
    array([[5.]])
    """

    def __init__(self, inputs: ArrayLike, targets: ArrayLike, *, noise_variance: float = 1.0) -> None:
        super().__init__(inputs, targets)
        self.noise_variance = validation.real("noise_variance", noise_variance, positive=True)
        self.log_scale = math.log(2 * math.pi * self.noise_variance) / 2

    def losses(self, predictors: FloatArray, targets: FloatArray) -> FloatArray:
        return np.asarray((predictors - targets) ** 2 / (2 * self.noise_variance))

    def slopes(self, predictors: FloatArray, targets: FloatArray) -> FloatArray:
        return np.asarray((predictors - targets) / self.noise_variance)

    def curvatures(self, predictors: FloatArray) -> FloatArray:
        return np.full_like(predictors, 1 / self.noise_variance)


class LogisticRegression(Linear):
    """Signs by a linear predictor: ``p(y_i | theta) = 1 / (1 + exp(-y_i x_i . theta))``.

    Parameters
    ----------
    inputs : array_like, shape (n, p)
    targets : array_like, shape (n,)
        -1 and +1.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or shape, or a target neither -1 nor +1.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import likelihoods
    >>> likelihood = likelihoods.LogisticRegression([[1.0], [2.0]], [1, -1])
    >>> np.exp(likelihood.log_density(np.zeros((1, 1)), slice(None))).round(2)
    array([[0.5, 0.5]])
    """

    def __init__(self, inputs: ArrayLike, targets: ArrayLike) -> None:
        super().__init__(inputs, targets)
        wrong = self.targets[~np.isin(self.targets, (-1, 1))]
        if wrong.size:
            raise ValueError(f"targets must be -1 or +1, got {wrong[0]}")

    def losses(self, predictors: FloatArray, targets: FloatArray) -> FloatArray:
        return np.asarray(np.logaddexp(0, -targets * predictors))

    def slopes(self, predictors: FloatArray, targets: FloatArray) -> FloatArray:
        return np.asarray(-targets * _logistic(-targets * predictors))

    def curvatures(self, predictors: FloatArray) -> FloatArray:
        share = _logistic(predictors)
        return np.asarray(share * (1 - share))


def _logistic(z: FloatArray) -> FloatArray:
    e = np.exp(-np.abs(z))  # no overflow
    return np.asarray(np.where(z < 0, e, 1) / (1 + e), z.dtype)


class LogLikelihood(Likelihood):
    """A likelihood of the user: functions in NumPy of particles and rows.

    Parameters
    ----------
    log_density : callable
        ``log_density(points, rows)``: logarithms of the densities, shape (M, B), at points of shape (M, p), for the B
        observations of these numbers (an integer array).
    gradient : callable
        ``gradient(points, rows)``: their gradients in theta, shape (M, B, p).
    n_samples, n_coordinates : int

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; later, if a function returns another shape.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import likelihoods
    >>> waits = np.array([0.5, 1.0, 3.0])                     # exponential, of the rate exp(theta)
    >>> likelihood = likelihoods.LogLikelihood(
    ...     lambda theta, rows: theta - np.exp(theta) * waits[rows],
    ...     lambda theta, rows: (1 - np.exp(theta) * waits[rows])[:, :, np.newaxis],
    ...     n_samples=3,
    ...     n_coordinates=1,
    ... )
    >>> likelihood.log_density(np.zeros((1, 1)), np.arange(3))
    array([[-0.5, -1. , -3. ]])
    """

    def __init__(
        self,
        log_density: Callable[[FloatArray, NDArray[np.int64]], ArrayLike],
        gradient: Callable[[FloatArray, NDArray[np.int64]], ArrayLike],
        *,
        n_samples: int,
        n_coordinates: int,
    ) -> None:
        validation.function("log_density", log_density)
        validation.function("gradient", gradient)
        self.n_samples = validation.integer("n_samples", n_samples, 1)
        self.n_coordinates = validation.integer("n_coordinates", n_coordinates, 1)
        self._log_density, self._gradient = log_density, gradient

    def __repr__(self) -> str:
        name = getattr(self._log_density, "__name__", "log_density")
        return f"LogLikelihood({name}, {self.n_samples} samples, {self.n_coordinates} coordinates)"

    def log_density(self, points: FloatArray, rows: Rows) -> FloatArray:
        numbers = np.arange(self.n_samples)[rows]
        result = self._log_density(points.copy(), numbers)
        expected, why = (len(points), len(numbers)), "(points, rows)"
        return validation.returned("the result of log_density", result, expected, points.dtype, why)

    def pull_back(self, points: FloatArray, cotangent: FloatArray, rows: Rows) -> FloatArray:
        numbers = np.arange(self.n_samples)[rows]
        result = self._gradient(points.copy(), numbers)
        expected, why = (len(points), len(numbers), self.n_coordinates), "(points, rows, coordinates)"
        slopes = validation.returned("the result of gradient", result, expected, points.dtype, why)
        return np.asarray(np.einsum("mi,mij->mj", cotangent, slopes))
