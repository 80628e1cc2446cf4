"""Densities from samples: particles that mean-field Langevin dynamics places, and Gaussians around them.

1. Rows are made comparable by an affine map, of which the `SHRINKAGES` of their covariance towards a sphere are
   candidates: the one with the highest leave-one-out likelihood of a kernel density estimate is taken, and with it the
   smoothing that this estimate would have.
2. `MFLD` on the `mfld.MMD` between the smoothed particles and the rows places the particles. Noise, which is switched
   off half way, lets them leave where they started; smoothing above 0.9 of the spread of the rows would draw all of
   them together, and is not used here.
3. Each particle takes the covariance of the rows that it explains, together with ``prior_rows`` rows of covariance
   ``smoothing**2``, and their mean and share: `REFINEMENTS` steps of expectation-maximisation. With ``prior_rows`` of
   infinity nothing is taken, and the density is that of the smoothed particles themselves.
4. ``smoothing`` and ``prior_rows`` are those with the highest likelihood of rows held out.

The defaults are what measurements on Gaussian mixtures and on the data sets that come with scikit-learn have shown to
be good; `docs/densities.md` has them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import kernels, noise, schedules, validation
from mfld.algorithms import MFLD
from mfld.floating import underflow_is_zero
from mfld.mixtures import GaussianMixture
from mfld.objectives import MMD
from mfld.validation import FloatArray

SHRINKAGES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.0)
"""Shares of a sphere in the covariance by which rows are made comparable."""
REFINEMENTS = 2
SMOOTHINGS = (1.0, 1.4, 2.0, 2.8, 4.0)
"""Candidates, times that of the kernel density estimate."""
PRIOR_ROWS = (1.0, 5.0, 20.0)

_WIDEST = 0.9  # smoothing in the discrepancy, in deviations of the rows
_LENGTH = 2.0  # length scale of the kernel, in smoothings
_STEPS = 100
_MOST_STEPS = 10**9
_LEAST_SMOOTHING = 1e-5
_JITTER = 0.1  # deviation of particles by their noise, in smoothings
_ROWS = 600  # of which the affine map is chosen
_BANDWIDTHS = np.geomspace(0.05, 1.5, 16)
_MOST_FOLDS, _FOLD_ROWS = 5, 2500  # folds so that about so many rows are trained on in all
_ENTRIES = 1 << 21
_LEAST_PARTICLES = 5


@dataclass(frozen=True, eq=False)
class Density:
    """Mixture of Gaussians.

    Attributes
    ----------
    weights : ndarray, shape (N,)
        Of sum 1.
    means : ndarray, shape (N, p)
    factors : ndarray, shape (N, p, p)
        Lower Cholesky factors of the covariances.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld.density import Density
    >>> density = Density(np.ones(1), np.zeros((1, 1)), np.ones((1, 1, 1)))
    >>> density.log_density([[0.0]]).round(4)
    array([-0.9189])
    """

    weights: NDArray[np.float64]
    means: NDArray[np.float64]
    factors: NDArray[np.float64]

    @property
    def covariances(self) -> NDArray[np.float64]:
        """Covariances, shape (N, p, p)."""
        return np.asarray(np.einsum("kab,kcb->kac", self.factors, self.factors))

    def marginal(self, coordinates: Sequence[int]) -> Density:
        """The density of some coordinates, in this order."""
        chosen = list(coordinates)
        covariances = self.covariances[:, chosen][:, :, chosen]
        return Density(self.weights, self.means[:, chosen], _cholesky(covariances))

    @property
    def mixture(self) -> GaussianMixture:
        """The same as a value that other parts take: a target of `mfld.MMD`, say."""
        return GaussianMixture(self.weights, self.means, self.covariances)

    def log_density(self, points: ArrayLike) -> NDArray[np.float64]:
        """Logarithm of the density at points of shape (M, p), shape (M,)."""
        given = validation.array("points", points, np.float64)
        validation.shape("points", given, ("M", self.means.shape[1]), "to match the density")
        rows = max(1, _ENTRIES // (len(self.means) + given.shape[1]))
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            parts = [_log_sum(self._log_parts(given[k : k + rows])) for k in range(0, len(given), rows)]
        return np.concatenate(parts)

    def sample(self, n_samples: int, generator: np.random.Generator | np.random.RandomState) -> NDArray[np.float64]:
        """Independent draws, shape (n_samples, p)."""
        chosen = generator.choice(len(self.weights), size=n_samples, p=self.weights)
        normals = generator.standard_normal((n_samples, self.means.shape[1]))
        draws = self.means[chosen]
        for k in np.unique(chosen):
            own = chosen == k
            draws[own] += normals[own] @ self.factors[k].T
        return draws

    def _log_parts(self, points: FloatArray) -> NDArray[np.float64]:
        """Logarithms of the terms of the mixture, shape (M, N)."""
        p = self.means.shape[1]
        parts = np.empty((len(points), len(self.means)))
        for k, (mean, factor) in enumerate(zip(self.means, self.factors, strict=True)):
            whitened = np.linalg.solve(factor, (points - mean).T)
            parts[:, k] = np.sum(whitened**2, axis=0) / -2 - np.sum(np.log(np.diagonal(factor)))
        with np.errstate(divide="ignore"):
            parts += np.log(self.weights) - p / 2 * math.log(2 * math.pi)
        parts[np.isnan(parts)] = -np.inf  # a difference of infinities, of points beyond double precision
        return parts


@dataclass(frozen=True, eq=False)
class Fit:
    """Density of rows, and how it was found.

    Attributes
    ----------
    density : Density
    particles : ndarray, shape (N, p)
        Where the dynamics left them, in the units of the rows.
    smoothing : float
        In deviations of the rows after the affine map.
    prior_rows : float
    shrinkage : float
        Of the affine map.
    scores : dict of tuple to float
        Mean log-likelihood of rows held out, by smoothing and prior rows; empty where both were given.
    """

    density: Density
    particles: NDArray[np.float64]
    smoothing: float
    prior_rows: float
    shrinkage: float
    scores: dict[tuple[float, float], float]


@dataclass(frozen=True)
class _Map:
    """Affine map ``x = centre + axes z``."""

    centre: NDArray[np.float64]
    axes: NDArray[np.float64]
    inverse: NDArray[np.float64]
    shrinkage: float

    @property
    def log_volume(self) -> float:
        return float(np.linalg.slogdet(self.axes)[1])

    def apply(self, rows: FloatArray) -> NDArray[np.float64]:
        return np.asarray((rows - self.centre) @ self.inverse.T)


@underflow_is_zero
def fit(
    rows: ArrayLike,
    *,
    n_particles: int | None = None,
    smoothing: float | None = None,
    prior_rows: float | None = None,
    n_steps: int = _STEPS,
    sample_weight: ArrayLike | None = None,
    seed: int = 0,
    num_threads: int | None = None,
) -> Fit:
    """Fit a density to rows; see the module.

    Parameters
    ----------
    rows : array_like, shape (n, p)
    n_particles : int, optional
        By default a tenth of the rows, and 5 at least where there are so many.
    smoothing, prior_rows : float, optional
        Positive, smoothing between 1e-5 and 1e5; prior_rows may be infinite. By default by the likelihood of rows held
        out.
    n_steps : int
    sample_weight : array_like, shape (n,), optional
        At least 0; rows of weight 0 are left out.
    seed : int
        Below 2**64: of the initial particles, the noise and the rows held out.
    num_threads : int, optional

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or range, or values leave the range of double precision.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import density
    >>> rng = np.random.default_rng(0)
    >>> rows = np.concatenate([rng.normal(-3, 0.5, (200, 1)), rng.normal(2, 1, (200, 1))])
    >>> found = density.fit(rows)
    >>> len(found.density.means)
    40
    >>> bool(abs(found.density.log_density(rows).mean() + 1.76) < 0.1)         # minus the entropy of the law
    True
    """
    given = validation.array("rows", rows, np.float64)
    validation.shape("rows", given, ("n", "p"), "(rows, columns)")
    weights = np.full(len(given), 1 / len(given))
    if sample_weight is not None:
        weights = validation.weights("sample_weight", sample_weight, (len(given),), "to match rows", np.float64)
        given, weights = given[weights > 0], weights[weights > 0]
    n = len(given)
    n_particles = default_particles(n) if n_particles is None else validation.integer("n_particles", n_particles, 1)
    if smoothing is not None:
        smoothing = validation.real("smoothing", smoothing, positive=True)
        if not _LEAST_SMOOTHING <= smoothing <= 1 / _LEAST_SMOOTHING:
            raise ValueError(
                f"smoothing must be between {_LEAST_SMOOTHING:g} and {1 / _LEAST_SMOOTHING:g}, got {smoothing}"
            )
    if prior_rows is not None and not (isinstance(prior_rows, float) and prior_rows == math.inf):
        prior_rows = validation.real("prior_rows", prior_rows, positive=True)
    n_steps = validation.integer("n_steps", n_steps, 0, _MOST_STEPS)
    place = noise.Place.of(validation.seed(seed), num_threads=num_threads)

    affine, bandwidth = _comparable(given, weights, place)
    z = affine.apply(given)
    smoothings = [bandwidth * factor for factor in SMOOTHINGS] if smoothing is None else [smoothing]
    kinds = list(PRIOR_ROWS) if prior_rows is None else [prior_rows]
    plan = _Plan(n_particles, n_steps, place)
    scores: dict[tuple[float, float], float] = {}
    best = smoothings[0], kinds[0]
    if len(smoothings) * len(kinds) > 1 and n >= 2 * _LEAST_PARTICLES:
        held_out = _held_out(z, weights, smoothings, kinds, plan)
        scores = {key: value - affine.log_volume for key, value in held_out.items()}
        best = max(scores, key=lambda key: scores[key])
    particles = plan.placed(z, weights, best[0], math.isinf(best[1]))
    found = _refined(z, weights, particles, *best)
    back = Density(found.weights, affine.centre + found.means @ affine.axes.T, _triangular(affine.axes @ found.factors))
    return Fit(back, affine.centre + particles @ affine.axes.T, *best, affine.shrinkage, scores)


def default_particles(n_rows: int) -> int:
    """A tenth of the rows; and 5 at least, where there are so many rows."""
    return max(min(n_rows, _LEAST_PARTICLES), n_rows // 10)


@dataclass(frozen=True)
class _Plan:
    """How particles are placed."""

    n_particles: int
    n_steps: int
    place: noise.Place

    def placed(self, z: FloatArray, weights: FloatArray, smoothing: float, shared: bool) -> NDArray[np.float64]:
        """Particles after the dynamics on the discrepancy."""
        start = np.asarray(z[_chosen(weights, min(self.n_particles, len(z)), self.place)], np.float64)
        sigma = smoothing if shared else min(smoothing, _WIDEST)
        length = _LENGTH * sigma
        p = z.shape[1]
        # The rows pull a particle by 2 k / (length^2 + sigma^2), with k the mean kernel there: the curvature.
        wide = length**2 + sigma**2
        pull = kernels.Gaussian(length).smoothed(sigma**2, p).sums(start, z, weights, self.place.num_threads)
        curvature = 2 * float(pull.mean()) / wide
        if not curvature > 0 or self.n_steps == 0:
            return start
        objective = MMD(z, kernels.Gaussian(length), smoothing=sigma, sample_weight=weights)
        solver = MFLD(
            len(start),
            step_size=0.5 / curvature,
            temperature=schedules.SwitchOff((_JITTER * sigma) ** 2 * curvature, at=self.n_steps // 2),
            l2=0.0,
            dtype="float64",
            num_threads=self.place.num_threads,
        )
        result = solver.run(objective, self.n_steps, self.place.key, particles=start, record_every=self.n_steps)
        particles: NDArray[np.float64] = result.particles.astype(np.float64, copy=False)
        return particles


def _refined(z: FloatArray, weights: FloatArray, particles: FloatArray, smoothing: float, prior_rows: float) -> Density:
    """Gaussians around particles, with the covariances of the rows that they explain."""
    n_particles, p = particles.shape
    shared: NDArray[np.float64] = np.tile(smoothing * np.eye(p), (n_particles, 1, 1))
    found = Density(np.full(n_particles, 1 / n_particles), np.asarray(particles, np.float64), shared)
    if math.isinf(prior_rows):
        return found
    rows = weights * len(z)
    for step in range(REFINEMENTS):
        with np.errstate(over="ignore", under="ignore"):
            parts = found._log_parts(z) if step else _log_kernel(z, particles, smoothing)
            shares = np.exp(parts - _log_sum(parts)[:, np.newaxis]) * rows[:, np.newaxis]
        explained = shares.sum(axis=0)
        # Where no row is explained the particle stays.
        means = found.means
        if step:
            means = np.asarray((shares.T @ z + 1e-9 * means) / (explained + 1e-9)[:, np.newaxis], np.float64)
        factors = np.empty_like(shared)
        for k in range(n_particles):
            offsets = (z - means[k]) * np.sqrt(shares[:, k, np.newaxis])
            scatter = offsets.T @ offsets + prior_rows * smoothing**2 * np.eye(p)
            factors[k] = _cholesky(scatter / (explained[k] + prior_rows))
        found = Density((explained + 1) / np.sum(explained + 1), means, factors)
    return found


def _held_out(
    z: FloatArray, weights: FloatArray, smoothings: list[float], kinds: list[float], plan: _Plan
) -> dict[tuple[float, float], float]:
    """Mean log-likelihood of rows that were held out, by smoothing and prior rows."""
    n = len(z)
    folds = min(_MOST_FOLDS, max(1, round(_FOLD_ROWS / n)))
    order = _chosen(np.full(n, 1 / n), n, plan.place.ahead(1))
    scores = dict.fromkeys([(smoothing, kind) for smoothing in smoothings for kind in kinds], 0.0)
    for fold in range(folds):
        out = np.zeros(n, bool)
        out[order[fold::_MOST_FOLDS]] = True
        train, share = z[~out], weights[~out] / weights[~out].sum()
        placed: dict[tuple[float, bool], NDArray[np.float64]] = {}
        for smoothing, kind in scores:
            shared = math.isinf(kind)
            key = (smoothing if shared else min(smoothing, _WIDEST), shared)
            if key not in placed:
                placed[key] = plan.placed(train, share, smoothing, shared)
            found = _refined(train, share, placed[key], smoothing, kind)
            scores[smoothing, kind] += float(np.average(found.log_density(z[out]), weights=weights[out])) / folds
    return scores


def _comparable(rows: FloatArray, weights: FloatArray, place: noise.Place) -> tuple[_Map, float]:
    """The affine map, and the smoothing, with the highest leave-one-out likelihood of a kernel density estimate."""
    with np.errstate(over="ignore", invalid="ignore"):
        centre = weights @ rows
        deviations = np.sqrt(weights @ (rows - centre) ** 2)
    if not np.isfinite(deviations).all():
        raise ValueError(f"rows must have squares within double precision, got {np.abs(rows).max():g}")
    units = np.where(deviations > 0, deviations, 1.0)
    some = _chosen(np.full(len(rows), 1 / len(rows)), min(len(rows), _ROWS), place.ahead(2))
    best: tuple[float, _Map, float] | None = None
    for scales in (units, np.full_like(units, np.sqrt(np.mean(units**2)))):
        scaled = (rows - centre) / scales
        covariance = (weights[:, np.newaxis] * scaled).T @ scaled
        mean = float(np.trace(covariance)) / len(units) or 1.0
        for shrinkage in SHRINKAGES:
            values, vectors = np.linalg.eigh((1 - shrinkage) * covariance + shrinkage * mean * np.eye(len(units)))
            if values[0] <= 1e-8 * values[-1]:
                continue  # no density along some axis
            axes = scales[:, np.newaxis] * vectors * np.sqrt(values)
            inverse = (vectors / np.sqrt(values)).T / scales
            affine = _Map(centre, axes, inverse, shrinkage)
            likelihood, bandwidth = _left_one_out(affine.apply(rows[some]), weights[some])
            if best is None or likelihood - affine.log_volume > best[0]:
                best = likelihood - affine.log_volume, affine, bandwidth
    assert best is not None  # a sphere is always among them
    return best[1], best[2]


def _left_one_out(z: FloatArray, weights: FloatArray) -> tuple[float, float]:
    """Highest leave-one-out log-likelihood of a Gaussian kernel density estimate, and its bandwidth."""
    if len(z) < 2:
        return 0.0, 1.0
    share = weights / weights.sum()
    squares = np.sum(z**2, axis=1)
    distances = np.maximum(squares[:, np.newaxis] + squares - 2 * z @ z.T, 0.0)
    np.fill_diagonal(distances, np.inf)
    found = []
    for bandwidth in _BANDWIDTHS:
        logs = _log_sum(distances / (-2 * bandwidth**2) + np.log(share)) - np.log1p(-share)
        log_scale = z.shape[1] / 2 * math.log(2 * math.pi * bandwidth**2)
        found.append((float(share @ logs) - log_scale, float(bandwidth)))
    return max(found)


def _cholesky(covariances: FloatArray) -> NDArray[np.float64]:
    # By LAPACK: there are many of them, and no trajectory depends on their last bits.
    return np.asarray(np.linalg.cholesky(covariances), np.float64)


def _triangular(factors: FloatArray) -> NDArray[np.float64]:
    """Lower triangular factors of the same covariances, with positive diagonals."""
    upper = np.linalg.qr(np.swapaxes(factors, 1, 2), mode="r")
    signs = np.where(np.diagonal(upper, axis1=1, axis2=2) < 0, -1.0, 1.0)
    lower: NDArray[np.float64] = np.swapaxes(signs[:, :, np.newaxis] * upper, 1, 2)
    return lower


def _log_kernel(z: FloatArray, particles: FloatArray, smoothing: float) -> NDArray[np.float64]:
    """Logarithms of the shared kernel between rows and particles, up to a constant, shape (n, N)."""
    squares = np.sum(z**2, axis=1)[:, np.newaxis] + np.sum(particles**2, axis=1) - 2 * z @ particles.T
    return np.asarray(squares / (-2 * smoothing**2))


def _log_sum(parts: FloatArray) -> NDArray[np.float64]:
    top = parts.max(axis=1, keepdims=True)
    top[np.isneginf(top)] = 0  # where squares are beyond double precision
    with np.errstate(divide="ignore"):
        logs = np.log(np.sum(np.exp(parts - top), axis=1))
    return np.asarray(top[:, 0] + logs)


def _chosen(weights: FloatArray, size: int, place: noise.Place) -> NDArray[np.int64]:
    """So many different rows, drawn one after the other with probabilities in proportion to their weights."""
    # The first of exponential clocks with the weights as rates: Efraimidis, Spirakis 2006.
    uniforms = place.beside("resample").uniforms(len(weights), 1)[:, 0]
    return np.argsort(-np.log1p(-uniforms) / weights, kind="stable")[:size]
