"""Potentials to sample from, each with its value, its gradient and its normalising constant.

Each is a `Potential`, so that every dynamics and every estimator that suits a linear objective runs on it::

    mfld.MFLD(step_size=0.1, temperature=1.0).run(mfld.potentials.Banana(), n_steps=1000)

and knows ``log_normaliser(temperature)``, the logarithm of the integral of its Gibbs density ``exp(-(V + l2
|theta|**2) / temperature)``: in closed form where there is one, else by the trapezoidal rule in one or two dimensions,
which for smooth densities that vanish at the ends of the grid is exact to about ten digits.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import linear, validation
from mfld.likelihoods import Linear, LinearRegression, LogisticRegression, Rows
from mfld.objectives.base import Bounds, Measure, Potential, SetOnce
from mfld.validation import FloatArray

__all__ = [
    "Banana",
    "BayesianLinearRegression",
    "BayesianLogisticRegression",
    "BuiltIn",
    "DoubleWell",
    "Funnel",
    "Gaussian",
    "GaussianMixture",
]

_TAIL = 60.0  # energies, in temperatures, above the lowest: exp(-60) is left out of an integral
_MOST_POINTS = 4_000_000  # of a grid
_LINE = 20_001  # points of a grid in one dimension


class BuiltIn(SetOnce, Potential):
    """A `Potential` with a known normalising constant."""

    def __init__(self, n_coordinates: int, l2: float = 0.0) -> None:
        super().__init__(
            self._gradient_at,
            self._value_at,
            value_and_gradient=self._both_at,
            hessian_vector=self._product_at,
            n_coordinates=n_coordinates,
            l2=l2,
        )

    def log_normaliser(self, temperature: float = 1.0) -> float:
        """Logarithm of the integral of ``exp(-(V + l2 |theta|**2) / temperature)``.

        Parameters
        ----------
        temperature : float
            Positive.

        Raises
        ------
        TypeError, ValueError
            If the temperature is not positive, or there is neither a closed form nor a grid that would do.
        """
        return self._log_normaliser(validation.real("temperature", temperature, positive=True))

    def _value_at(self, points: FloatArray) -> FloatArray:
        with np.errstate(
            over="ignore", under="ignore", invalid="ignore"
        ):  # far out it is infinite; a run finds and reports that
            return self._energy(points)

    def _gradient_at(self, points: FloatArray) -> FloatArray:
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            return self._derivative(points)

    def _both_at(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        return self._value_at(points), self._gradient_at(points)

    def _product_at(self, points: FloatArray, vectors: FloatArray) -> FloatArray:
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            return self._product(points, vectors)

    def _product(self, points: FloatArray, vectors: FloatArray) -> FloatArray:
        """Hessian of V at points times vectors, shape (M, n_coordinates)."""
        return self._difference(points.astype(np.float64), vectors.astype(np.float64))

    @abstractmethod
    def _energy(self, points: FloatArray) -> FloatArray:
        """V at points, shape (M,), in their precision."""

    @abstractmethod
    def _derivative(self, points: FloatArray) -> FloatArray:
        """Gradient of V at points, shape (M, n_coordinates)."""

    @abstractmethod
    def _log_normaliser(self, temperature: float) -> float:
        """The same for a temperature that is known to be right."""


class Gaussian(BuiltIn):
    """``V = (theta - mean)' C^-1 (theta - mean) / 2``: at temperature T the law N(mean, T C).

    Parameters
    ----------
    mean : array_like, shape (p,)
    covariance : array_like, shape (p, p), optional
        C, symmetric and positive definite. Default: I.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or shape, or the covariance not positive definite.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import potentials
    >>> well = potentials.Gaussian([1.0, 0.0], [[2.0, 1.0], [1.0, 2.0]])
    >>> well([[1.0, 3.0]]), well.gradient([[1.0, 3.0]])
    (array([3.]), array([[-1.,  2.]]))
    >>> np.isclose(np.exp(well.log_normaliser()), 2 * np.pi * np.sqrt(3)).item()
    True
    """

    def __init__(self, mean: ArrayLike, covariance: ArrayLike | None = None) -> None:
        self.mean = _own("mean", mean)
        validation.shape("mean", self.mean, ("p",))
        p = len(self.mean)
        self.covariance = _own("covariance", np.eye(p) if covariance is None else covariance)
        validation.shape("covariance", self.covariance, (p, p), "to match the mean")
        self._factor = _factor("covariance", self.covariance)
        self._precision = linear.inverse(self._factor)
        super().__init__(p)

    def bounds(self) -> Bounds:
        curvatures = np.linalg.eigvalsh(self._precision)
        return Bounds(convexity=float(curvatures[0]), smoothness=float(curvatures[-1]), fluctuation=0.0)

    def _energy(self, points: FloatArray) -> FloatArray:
        offsets = points - self._like(self.mean, points)
        return _halved(np.sum(offsets * self._derivative(points), axis=1))

    def _derivative(self, points: FloatArray) -> FloatArray:
        return self._product(points, points - self._like(self.mean, points))

    def _product(self, points: FloatArray, vectors: FloatArray) -> FloatArray:
        return np.asarray(np.einsum("ij,mj->mi", self._like(self._precision, points), vectors))

    def _log_normaliser(self, temperature: float) -> float:
        return _log_gaussian(self._factor, temperature)

    @staticmethod
    def _like(array: FloatArray, points: FloatArray) -> FloatArray:
        return array.astype(points.dtype)


class DoubleWell(BuiltIn):
    """``V = sum_j height ((theta_j / distance)**2 - 1)**2 + tilt theta_j``: two wells in each coordinate.

    They lie near ``-distance`` and ``distance``, with a barrier of ``height`` at 0; a positive tilt lowers the left
    ones. The normaliser is the power p of that in one dimension, which is a quadrature.

    Parameters
    ----------
    n_coordinates : int
    distance, height : float
        Positive.
    tilt : float

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> from mfld import potentials
    >>> well = potentials.DoubleWell(height=2.0)
    >>> well([[0.0], [1.0]])
    array([2., 0.])
    >>> round(well.log_normaliser(temperature=0.01), 2)     # two Gaussians of variance 0.01 / 16
    -2.08
    """

    def __init__(
        self, n_coordinates: int = 1, *, distance: float = 1.0, height: float = 1.0, tilt: float = 0.0
    ) -> None:
        self.distance = validation.real("distance", distance, positive=True)
        self.height = validation.real("height", height, positive=True)
        self.tilt = validation.real("tilt", tilt)
        super().__init__(validation.integer("n_coordinates", n_coordinates, 1))

    def bounds(self) -> Bounds:
        return Bounds(convexity=-4 * self.height / self.distance**2, fluctuation=0.0)

    def _energy(self, points: FloatArray) -> FloatArray:
        return cast(FloatArray, np.sum(self._each(points), axis=1))

    def _derivative(self, points: FloatArray) -> FloatArray:
        u = points / self.distance
        return (4 * self.height / self.distance) * u * (u**2 - 1) + self.tilt

    def _product(self, points: FloatArray, vectors: FloatArray) -> FloatArray:
        return (4 * self.height / self.distance**2) * (3 * (points / self.distance) ** 2 - 1) * vectors

    def _log_normaliser(self, temperature: float) -> float:
        end = 2 * self.distance
        while min(self._each(np.array([-end, end]))) < self._each(np.linspace(-end, end, 1001)).min() + (
            _TAIL * temperature
        ):
            end *= 1.5
        line = np.linspace(-end, end, _LINE)
        return self.n_coordinates * _log_integral(-self._each(line) / temperature, line[1] - line[0])

    def _each(self, x: FloatArray) -> FloatArray:
        return self.height * ((x / self.distance) ** 2 - 1) ** 2 + self.tilt * x


class GaussianMixture(BuiltIn):
    """``V = -log sum_k weights_k N(theta; means_k, covariances_k)``: at temperature 1 the mixture itself.

    The normaliser is 1 there; at other temperatures it is a quadrature in one or two dimensions.

    Parameters
    ----------
    means : array_like, shape (K, p)
    covariances : float or array_like, shape (K, p, p)
        A number s stands for s I for all.
    weights : array_like, shape (K,), optional
        At least 0, normalised to sum 1. Default: 1/K each.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or shape, or a covariance not positive definite.

    Examples
    --------
    >>> from mfld import potentials
    >>> mixture = potentials.GaussianMixture([[-2.0], [2.0]], 0.25, weights=[1, 3])
    >>> mixture.log_normaliser()
    0.0
    >>> mixture.gradient([[2.0]]).round(6)
    array([[0.]])
    """

    def __init__(
        self, means: ArrayLike, covariances: float | ArrayLike = 1.0, weights: ArrayLike | None = None
    ) -> None:
        self.means = _own("means", means)
        validation.shape("means", self.means, ("K", "p"))
        n_modes, p = self.means.shape
        given = validation.array("covariances", covariances, np.float64)
        if given.ndim == 0:
            given = np.broadcast_to(float(given) * np.eye(p), (n_modes, p, p))
        validation.shape("covariances", given, (n_modes, p, p), "(modes, coordinates, coordinates)")
        self.covariances = validation.frozen(given)
        even = np.full(n_modes, 1 / n_modes) if weights is None else weights
        self.weights = validation.frozen(validation.weights("weights", even, (n_modes,), "to match means", np.float64))
        factors = [_factor(f"covariances[{k}]", covariance) for k, covariance in enumerate(self.covariances)]
        self._precisions = np.stack([linear.inverse(factor) for factor in factors])
        with np.errstate(divide="ignore", under="ignore"):  # a weight of 0
            self._log_scales = np.log(self.weights) - [_log_gaussian(factor) for factor in factors]
        super().__init__(p)

    def _energy(self, points: FloatArray) -> FloatArray:
        logs, _ = self._modes(points)
        top = logs.max(axis=0)
        return cast(FloatArray, -top - np.log(np.sum(np.exp(logs - top), axis=0)))

    def _derivative(self, points: FloatArray) -> FloatArray:
        share, pulls = self._shares(points)
        return np.asarray(np.einsum("km,kmi->mi", share, pulls))

    def _product(self, points: FloatArray, vectors: FloatArray) -> FloatArray:
        share, pulls = self._shares(points)
        mean = np.einsum("km,kmi->mi", share, pulls)
        within = np.einsum("km,kij,mj->mi", share, self._precisions.astype(points.dtype), vectors)
        between = np.einsum("km,kmi,kmj,mj->mi", share, pulls, pulls, vectors)
        return np.asarray(within - between + mean * np.sum(mean * vectors, axis=1, keepdims=True))

    def _shares(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Probabilities of the modes given the points, shape (K, M), and the pulls of `_modes`."""
        logs, pulls = self._modes(points)
        share = np.exp(logs - logs.max(axis=0))
        return share / share.sum(axis=0), pulls

    def _modes(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Logarithms of the terms of the sum, shape (K, M), and ``C_k^-1 (theta - mean_k)``, shape (K, M, p)."""
        offsets = points - self.means.astype(points.dtype)[:, np.newaxis]
        pulls = np.einsum("kij,kmj->kmi", self._precisions.astype(points.dtype), offsets)
        log_scales = self._log_scales.astype(points.dtype)[:, np.newaxis]
        return log_scales - _halved(np.sum(offsets * pulls, axis=2)), pulls

    def _log_normaliser(self, temperature: float) -> float:
        if temperature == 1:
            return 0.0
        _check_grid(type(self).__name__, self.n_coordinates)
        # The density of one mode is exp(-TAIL) at its ends. Between modes that are d deviations apart the logarithm has
        # singularities pi / d deviations beside the real axis, which ask for steps that are finer than for one mode.
        spread = np.sqrt(np.linalg.eigvalsh(self.covariances) * temperature)  # of at most two rows: no threads
        reach = math.sqrt(2 * _TAIL) * spread.max()
        axes = [(low - reach, high + reach) for low, high in zip(self.means.min(0), self.means.max(0), strict=True)]
        return _grid_integral(self, temperature, axes, 0.1 * min(1.0, 1 / math.sqrt(temperature)) * spread.min())


class Banana(BuiltIn):
    """A Gaussian bent along a parabola: ``V = x**2 / (2 scale**2) + (y + bend (x**2 - scale**2))**2 / 2 + |z|**2 / 2``.

    x and y are the first two coordinates and z the others. The bend keeps volumes: the normaliser is that of the
    Gaussian at every temperature. Source: Haario, Saksman, Tamminen 1999, "Adaptive proposal distribution for random
    walk Metropolis algorithm".

    Parameters
    ----------
    n_coordinates : int
        At least 2.
    scale : float
        Positive; the standard deviation of x at temperature 1.
    bend : float

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import potentials
    >>> banana = potentials.Banana(scale=2.0, bend=0.5)
    >>> banana([[0.0, 2.0], [2.0, 0.0]])
    array([0. , 0.5])
    >>> np.isclose(np.exp(banana.log_normaliser()), 2 * np.pi * 2).item()
    True
    """

    def __init__(self, n_coordinates: int = 2, *, scale: float = 3.0, bend: float = 0.1) -> None:
        self.scale = validation.real("scale", scale, positive=True)
        self.bend = validation.real("bend", bend)
        super().__init__(validation.integer("n_coordinates", n_coordinates, 2))

    def _energy(self, points: FloatArray) -> FloatArray:
        straight = self._straight(points)
        return _halved((straight[:, 0] / self.scale) ** 2 + np.sum(straight[:, 1:] ** 2, axis=1))

    def _derivative(self, points: FloatArray) -> FloatArray:
        gradient = self._straight(points)
        gradient[:, 0] *= self.scale**-2 + 2 * self.bend * gradient[:, 1]
        return gradient

    def _product(self, points: FloatArray, vectors: FloatArray) -> FloatArray:
        x, height = points[:, 0], self._straight(points)[:, 1]
        product, slope = vectors.copy(), 2 * self.bend * x
        product[:, 0] = (self.scale**-2 + 2 * self.bend * height + slope**2) * vectors[:, 0] + slope * vectors[:, 1]
        product[:, 1] += slope * vectors[:, 0]
        return product

    def _straight(self, points: FloatArray) -> FloatArray:
        straight = points.copy()
        straight[:, 1] += self.bend * (points[:, 0] ** 2 - self.scale**2)
        return straight

    def _log_normaliser(self, temperature: float) -> float:
        return self.n_coordinates / 2 * math.log(2 * math.pi * temperature) + math.log(self.scale)


class Funnel(BuiltIn):
    """Neal's funnel: ``V = v**2 / (2 scale**2) + (p - 1) v / 2 + exp(-v) |x|**2 / 2``.

    v is the first coordinate, of standard deviation ``scale`` at temperature 1, and x the p - 1 others, normal with
    variance ``exp(v)`` given v. At temperature T the integral over x leaves a Gaussian in v, so that::

        log Z = (p - 1) / 2 log(2 pi T) + log(2 pi scale**2 T) / 2 + scale**2 T ((p - 1) / 2 (1 - 1 / T))**2 / 2

    Source: Neal 2003, "Slice sampling", section 8.

    Parameters
    ----------
    n_coordinates : int
        p, at least 2.
    scale : float
        Positive.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import potentials
    >>> funnel = potentials.Funnel(n_coordinates=3)
    >>> funnel([[0.0, 1.0, 1.0]])
    array([1.])
    >>> np.isclose(np.exp(funnel.log_normaliser()), 3 * (2 * np.pi)**1.5).item()
    True
    """

    def __init__(self, n_coordinates: int = 10, *, scale: float = 3.0) -> None:
        self.scale = validation.real("scale", scale, positive=True)
        super().__init__(validation.integer("n_coordinates", n_coordinates, 2))

    def _energy(self, points: FloatArray) -> FloatArray:
        v, x = points[:, 0], points[:, 1:]
        return _halved((v / self.scale) ** 2 + x.shape[1] * v + np.exp(-v) * np.sum(x**2, axis=1))

    def _derivative(self, points: FloatArray) -> FloatArray:
        v, x = points[:, 0], points[:, 1:]
        gradient = np.empty_like(points)
        gradient[:, 1:] = np.exp(-v)[:, np.newaxis] * x
        gradient[:, 0] = v / self.scale**2 + _halved(x.shape[1] - np.sum(x * gradient[:, 1:], axis=1))
        return gradient

    def _product(self, points: FloatArray, vectors: FloatArray) -> FloatArray:
        x, width = points[:, 1:], np.exp(-points[:, 0])
        product = np.empty_like(points)
        along = np.sum(x * vectors[:, 1:], axis=1)
        product[:, 0] = (self.scale**-2 + width * _halved(np.sum(x**2, axis=1))) * vectors[:, 0] - width * along
        product[:, 1:] = width[:, np.newaxis] * (vectors[:, 1:] - x * vectors[:, :1])
        return product

    def _log_normaliser(self, temperature: float) -> float:
        half = (self.n_coordinates - 1) / 2
        variance = self.scale**2 * temperature
        log_x = half * math.log(2 * math.pi * temperature)
        return log_x + math.log(2 * math.pi * variance) / 2 + variance * (half * (1 - 1 / temperature)) ** 2 / 2


def _variance(name: str, value: float) -> float:
    result = validation.real(name, value, positive=True)
    if result < np.finfo(np.float64).tiny:  # its inverse overflows
        raise ValueError(f"{name} must be at least {np.finfo(np.float64).tiny:.3g}, got {result}")
    return result


class OverSamples(Potential):
    """Potential that is a sum over samples: from a batch of B rows it is estimated by n / B times their sum."""

    n_samples: int

    def loss_gradient(self, measure: Measure, batch: ArrayLike | None = None) -> FloatArray:
        if batch is None:
            return super().loss_gradient(measure)
        points, rows = self.cloud(measure).particles, validation.rows("batch", batch, self.n_samples)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # a run finds what is not finite
            return self._sum(points, rows) * points.dtype.type(self.n_samples / len(rows))

    def first_variation(self, measure: Measure, batch: ArrayLike | None = None) -> Potential:
        """The potential itself, whatever the measure; from a batch of B rows its sum over them, times n / B."""
        if batch is None:
            return self
        rows = validation.rows("batch", batch, self.n_samples)
        scale = self.n_samples / len(rows)
        return Potential(
            lambda points: self.loss_gradient(points, rows),
            lambda points: scale * self._total(points, rows),
            space=self.space,
            reference=self.reference,
        )

    @abstractmethod
    def _total(self, points: FloatArray, rows: NDArray[np.int64]) -> FloatArray:
        """Sum over rows of the terms, shape (M,)."""

    @abstractmethod
    def _sum(self, points: FloatArray, rows: NDArray[np.int64]) -> FloatArray:
        """Sum over rows of their gradients, shape (M, p)."""


class _Regression(OverSamples, BuiltIn):
    """Posterior of the coefficients of a linear predictor: a sum over samples, and the prior as the ridge."""

    def __init__(self, likelihood: Linear, prior_variance: float) -> None:
        self.likelihood = likelihood
        self.inputs, self.targets, self.n_samples = likelihood.inputs, likelihood.targets, likelihood.n_samples
        self.prior_variance = _variance("prior_variance", prior_variance)
        super().__init__(likelihood.n_coordinates, l2=1 / (2 * self.prior_variance))

    def _derivative(self, points: FloatArray) -> FloatArray:
        return self._sum(points, slice(None))

    def _sum(self, points: FloatArray, rows: Rows) -> FloatArray:
        known = self.likelihood
        return known.summed(known.slopes(*known.predicted(points, rows)), rows)

    def _product(self, points: FloatArray, vectors: FloatArray) -> FloatArray:
        known, rows = self.likelihood, slice(None)
        (predictors, _), (along, _) = (known.predicted(each, rows) for each in (points, vectors))
        return known.summed(known.curvatures(predictors) * along, rows)

    def _energy(self, points: FloatArray) -> FloatArray:
        return self._total(points, slice(None))

    def _total(self, points: FloatArray, rows: Rows) -> FloatArray:
        # Minus the log-likelihood up to a constant.
        losses = self.likelihood.losses(*self.likelihood.predicted(points, rows))
        return np.asarray(np.sum(losses, axis=1, dtype=np.float64), points.dtype)


class BayesianLinearRegression(_Regression):
    """Posterior of linear regression: ``V = sum_i (y_i - x_i.theta)**2 / (2 noise_variance)``, prior as the ridge.

    The prior N(0, prior_variance I) is ``l2 = 1 / (2 prior_variance)``. At temperature 1 the law is the posterior
    N(`posterior_mean`, `posterior_covariance`). A sum over the samples: mini-batches and variance reduction suit it.

    Parameters
    ----------
    inputs : array_like, shape (n, p)
    targets : array_like, shape (n,)
    noise_variance, prior_variance : float
        Positive.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or range.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import potentials
    >>> posterior = potentials.BayesianLinearRegression([[1.0], [1.0]], [1.0, 2.0])
    >>> posterior.posterior_mean, posterior.posterior_covariance
    (array([1.]), array([[0.33333333]]))
    >>> round(posterior.log_evidence(), 4)       # of N(0, I + x x') at the targets
    -3.3872
    """

    def __init__(
        self, inputs: ArrayLike, targets: ArrayLike, *, noise_variance: float = 1.0, prior_variance: float = 1.0
    ) -> None:
        self.noise_variance = _variance("noise_variance", noise_variance)
        super().__init__(LinearRegression(inputs, targets, noise_variance=self.noise_variance), prior_variance)
        gram = np.einsum("ni,nj->ij", self.inputs, self.inputs)
        factor = linear.cholesky(gram / self.noise_variance + np.eye(self.n_coordinates) / self.prior_variance)
        right = np.einsum("ni,n->i", self.inputs, self.targets)
        self.posterior_covariance: FloatArray = linear.inverse(factor)
        self.posterior_mean: FloatArray = linear.solve(factor, right / self.noise_variance)

    def log_evidence(self) -> float:
        """Logarithm of the marginal density of the targets."""
        log_prior = self.n_coordinates / 2 * math.log(2 * math.pi * self.prior_variance)
        return self.log_normaliser() - log_prior - self.n_samples / 2 * math.log(2 * math.pi * self.noise_variance)

    def _log_normaliser(self, temperature: float) -> float:
        lowest = float(self(self.posterior_mean[np.newaxis])[0])
        return _log_gaussian(linear.cholesky(self.posterior_covariance), temperature) - lowest / temperature


class BayesianLogisticRegression(_Regression):
    """Posterior of logistic regression: ``V = sum_i log(1 + exp(-y_i x_i.theta))``, prior as the ridge.

    The prior N(0, prior_variance I) is ``l2 = 1 / (2 prior_variance)``; at temperature 1 the law is the posterior. The
    normaliser is a quadrature for one or two coefficients. A sum over the samples: mini-batches and variance reduction
    suit it.

    Parameters
    ----------
    inputs : array_like, shape (n, p)
    targets : array_like, shape (n,)
        -1 and +1.
    prior_variance : float
        Positive.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or range.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import potentials
    >>> posterior = potentials.BayesianLogisticRegression([[1.0], [2.0], [-1.0]], [1, 1, -1])
    >>> posterior([[0.0]]) / np.log(2)
    array([3.])
    >>> posterior.mode().round(2)
    array([0.88])
    """

    def __init__(self, inputs: ArrayLike, targets: ArrayLike, *, prior_variance: float = 1.0) -> None:
        super().__init__(LogisticRegression(inputs, targets), prior_variance)

    def mode(self) -> FloatArray:
        """The most probable coefficients, shape (p,), by Newton's method with steps halved while they lead up."""
        theta = np.zeros((1, self.n_coordinates))
        for _ in range(100):
            gradient = self.gradient(theta)[0]
            direction = linear.solve(linear.cholesky(self._hessian(theta[0])), gradient)
            if np.sum(gradient * direction) < 1e-24 * (1 + abs(float(self(theta)[0]))):
                break
            length = 1.0
            while length > 1e-10 and self(theta - length * direction) > self(theta):
                length /= 2
            theta = theta - length * direction
        return cast(FloatArray, theta[0])

    def _hessian(self, theta: FloatArray) -> FloatArray:
        curvature = self.likelihood.curvatures(self.likelihood.predicted(theta[np.newaxis], slice(None))[0])[0]
        of_samples: FloatArray = np.einsum("ni,nj->ij", self.inputs * curvature[:, np.newaxis], self.inputs)
        return of_samples + np.eye(self.n_coordinates) / self.prior_variance

    def _log_normaliser(self, temperature: float) -> float:
        mode = self.mode()
        # Around the mode in units of the curvature there. The energy is convex: once it is high all around a box, it is
        # higher outside.
        axes = linear.cholesky(linear.inverse(linear.cholesky(self._hessian(mode))) * temperature)
        lowest = float(self(mode[np.newaxis])[0])

        def energy(u: FloatArray) -> FloatArray:
            return (self(mode + np.einsum("mj,ij->mi", u, axes)) - lowest) / temperature

        n_axes = self.n_coordinates
        _check_grid(type(self).__name__, n_axes)
        reach = 8.0
        while True:
            line = np.linspace(-reach, reach, _LINE if n_axes == 1 else 601)
            grid = np.stack(np.meshgrid(*[line] * n_axes, indexing="ij"), axis=-1).reshape(-1, n_axes)
            energies = np.concatenate([energy(part) for part in np.array_split(grid, 64)])
            if energies[(np.abs(grid) == reach).any(axis=1)].min() > _TAIL:
                break
            reach *= 1.25
        scale = np.log(np.diagonal(axes)).sum()
        return float(scale) - lowest / temperature + _log_integral(-energies, (line[1] - line[0]) ** n_axes)


# ---- shared by them --------------------------------------------------------------------------------------------------


def _own(name: str, values: ArrayLike) -> FloatArray:
    """An array of numbers that the caller cannot change any more."""
    return validation.frozen(validation.array(name, values, np.float64))


def _factor(name: str, covariance: FloatArray) -> FloatArray:
    """Cholesky factor of a covariance."""
    try:
        if np.allclose(covariance, covariance.T, rtol=1e-12, atol=0):
            return linear.cholesky(covariance)
    except ValueError:
        pass
    raise ValueError(f"{name} must be symmetric and positive definite, got {covariance.tolist()}")


def _halved(values: Any) -> FloatArray:
    return np.asarray(values / 2)


def _log_gaussian(factor: FloatArray, temperature: float = 1.0) -> float:
    """Logarithm of the integral of a Gaussian that is 1 at its top, of covariance ``temperature L L'``."""
    return len(factor) / 2 * math.log(2 * math.pi * temperature) + float(np.sum(np.log(np.diagonal(factor))))


def _log_integral(log_density: FloatArray, cell: float) -> float:
    top = float(log_density.max())
    return top + math.log(float(np.sum(np.exp(log_density - top))) * float(cell))


def _check_grid(name: str, n_axes: int) -> None:
    if n_axes > 2:
        raise ValueError(f"log_normaliser of a {name} is a quadrature for at most 2 coordinates, it has {n_axes}")


def _grid_integral(potential: BuiltIn, temperature: float, axes: Sequence[tuple[float, float]], width: float) -> float:
    """`log_normaliser` by the trapezoidal rule on a box, with steps of at most ``width``."""
    _check_grid(type(potential).__name__, len(axes))
    lengths = [math.ceil((high - low) / width) + 1 for low, high in axes]
    n_points = math.prod(lengths)
    if n_points > _MOST_POINTS:
        raise ValueError(
            f"the quadrature would take {n_points} points, above {_MOST_POINTS}: modes are far apart for their width"
        )
    lines = [np.linspace(low, high, length) for (low, high), length in zip(axes, lengths, strict=True)]
    grid = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, len(lines))
    log_density = np.concatenate([-potential(part) / temperature for part in np.array_split(grid, 64) if len(part)])
    return _log_integral(log_density, math.prod(line[1] - line[0] for line in lines))
