"""Maximum mean discrepancy: how far a measure is from samples, in the distance that a kernel makes."""

from __future__ import annotations

import copy
import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mfld import fourier, references, validation
from mfld.kernels import Kernel, Statistics
from mfld.kernels.core import in_core
from mfld.kernels.pairwise import statistics
from mfld.mixtures import GaussianMixture
from mfld.native import Discrepancy, final
from mfld.noise import Place
from mfld.objectives.base import Measure, Objective, Potential, SetOnce
from mfld.ranks import Ranks
from mfld.references import Reference
from mfld.space import Space
from mfld.state import Cloud
from mfld.validation import FloatArray, FloatDType

_WIDEST = 1e17  # smoothing, below the largest length scale
_ROWS = 1000  # of a stream, for its moments and a median
_GRAIN = 0.01  # of float32 where the target is, as a share of what varies


@final
class MMD(SetOnce, Objective):
    """Squared maximum mean discrepancy ``F(mu) = MMD**2(g * mu, target) + l2 E_mu |theta|**2`` of a kernel k.

    With ``k_v(x, y) = E k(x + sqrt(v) xi, y)``, xi ~ N(0, I), and the smoothing g = N(0, smoothing**2 I)::

        MMD**2(g * mu, nu) = E k_2v(X, X') - 2 E k_v(X, Z) + E k(Z, Z'),     X, X' ~ mu,  Z, Z' ~ nu,  v = smoothing**2

    with first variation ``2 E k_2v(x, X) - 2 E k_v(x, Z)``. The particles are the means of a mixture of Gaussians of
    deviation ``smoothing`` that is fitted to the target: a density. `loss` is the V-statistic, pairs of a particle with
    itself included: the value at the measure that the particles are, which is what a run lowers. `u_statistic` leaves
    them out. A step costs ``N (N + n)`` values of the kernel, in memory that of the points. Source: Arbel, Korba,
    Salim, Gretton 2019, "Maximum mean discrepancy gradient flow"; Chizat 2022, "Mean-field Langevin dynamics:
    exponential convergence and annealing".

    Parameters
    ----------
    samples : array_like, shape (n, p); or GaussianMixture; or callable
        The target: samples, of which estimators may take batches; a `mfld.mixtures.GaussianMixture`, with which sums
        over it are exact for Gaussian kernels; or a stream ``samples(step, n_rows)`` of new samples, shape (n_rows, p),
        a pure function as in `mfld.data.Stream`, for `Minibatch`.
    kernel : Kernel
        Of `mfld.kernels`; a median length scale is that of the samples.
    smoothing : float
        Standard deviation of g, at least 0. Above 0 the kernel must have the closed form, as Gaussian ones do.
    sample_weight : array_like, shape (n,), optional
        At least 0; normalised to sum 1. Default: 1/n each.
    l2 : float
        Coefficient of the ridge, without a factor 1/2.
    space : Space, optional
        By default Euclidean of p coordinates; a stream needs it.
    reference : Reference, optional
        In place of l2.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or shape, or not finite; if the kernel has no closed form that is needed;
        with float32 particles, if the target is so far from 0 that this precision does not tell its points apart.

    Warns
    -----
    UserWarning
        If the kernel is seen not to be positive definite.

    Examples
    --------
    >>> import mfld
    >>> from mfld import kernels, noise
    >>> samples = 3 + noise.normals(0, 0, 500, 1, dtype="float64", stream="data")
    >>> fit = mfld.MMD(samples, kernels.Gaussian(1.0), smoothing=0.5)
    >>> result = mfld.MFLD(100, step_size=0.5, temperature=1e-4).run(fit, n_steps=300)
    >>> bool(abs(result.particles.mean() - samples.mean()) < 0.05)
    True
    >>> bool(fit.loss(result.measure) < 1e-3)
    True
    """

    any_precision = True
    kernel: Kernel
    _ranks: Ranks | None = None

    def __init__(
        self,
        samples: ArrayLike | GaussianMixture | Callable[[int, int], ArrayLike],
        kernel: Kernel,
        *,
        smoothing: float = 0.0,
        sample_weight: ArrayLike | None = None,
        l2: float = 0.0,
        space: Space | None = None,
        reference: Reference | None = None,
    ) -> None:
        validation.instance("kernel", kernel, Kernel, "a Kernel, like kernels.Gaussian(1.0)")
        self.smoothing = validation.real("smoothing", smoothing, non_negative=True)
        if self.smoothing > _WIDEST:
            raise ValueError(f"smoothing must be at most {_WIDEST:g}: scale the samples, got {smoothing}")
        if space is not None:
            validation.instance("space", space, Space, "a Space")
        if sample_weight is not None and (callable(samples) or isinstance(samples, GaussianMixture)):
            raise TypeError("sample_weight must be left out where the target is no array of samples")
        self.target = _target(samples, sample_weight, space)
        p = self.target.n_coordinates
        self.space = Space(p) if space is None else space
        if self.space.n_coordinates != p:
            raise ValueError(f"samples must have {self.space.n_coordinates} columns to match the space, got {p}")
        self.reference = references.given(l2, reference, self.space)
        if kernel.n_coordinates not in (None, p):
            raise ValueError(f"kernel must be of {p} coordinates to match the samples, got {kernel!r}")
        self.kernel = self.target.fit(kernel)
        self.kernel.check_space(self.space)
        variance = self.smoothing**2
        self._cross, self._own = (self.kernel.smoothed(v, p) for v in (variance, 2 * variance))
        self.target.check(self.kernel)

    def __repr__(self) -> str:
        smoothed = f", smoothing={self.smoothing:g}" if self.smoothing else ""
        return f"MMD({self.target!r}, {self.kernel!r}{smoothed}, l2={self.l2:g})"

    @property
    def n_samples(self) -> int | None:  # type: ignore[override]
        return self.target.n_samples

    @property
    def has_batches(self) -> bool:
        return self.target.has_batches

    @property
    def has_value(self) -> bool:  # type: ignore[override]
        return self.target.known

    @property
    def has_gradient(self) -> bool:  # type: ignore[override]
        return self.target.known

    def on_threads(self, num_threads: int | None) -> Self:
        if num_threads == self.num_threads:
            return self
        if num_threads not in self._on_threads:
            same = copy.copy(self)
            same.num_threads = num_threads
            self._on_threads[num_threads] = same
        return self._on_threads[num_threads]

    def over_ranks(self, ranks: Ranks) -> Self:
        if self.native(np.dtype(np.float64)) is None:
            raise TypeError(
                f"objective must be an MMD from samples, with a kernel of the core, for Sharded, got {self!r}"
            )
        same = copy.copy(self)
        vars(same)["_ranks"] = ranks
        vars(same).pop("_on_threads", None)
        return same

    def native(self, dtype: FloatDType) -> Discrepancy | None:
        if self._ranks is not None:
            return None  # whose steps share the sums of pairs
        own, cross = (in_core(kernel, self.n_coordinates) for kernel in (self._own, self._cross))
        points = self.target.points(dtype)
        if own is None or cross is None or points is None:
            return None
        self._check_grain(dtype)
        return Discrepancy(*own, *cross, *points)

    def initial_particles(self, n_particles: int, place: Place | int = 0, dtype: DTypeLike = "float32") -> FloatArray:
        """Normal draws of the mean and the standard deviations of the target; on a domain uniform ones."""
        self._check_grain(dtype)
        drawn = super().initial_particles(n_particles, place, dtype)
        moments = self.target.moments()
        if moments is None or not self.space.flat:
            return drawn
        mean, deviation = (part.astype(drawn.dtype) for part in moments)
        return mean + deviation * drawn

    def loss(self, measure: Measure) -> float:
        """The squared discrepancy of the measure, in float64: the V-statistic of its particles."""
        cloud = self._wide(measure)
        return cloud.mean(self._own_sums(cloud) - 2 * self._target_values(cloud)) + self._energy.v

    def u_statistic(self, measure: Measure) -> float:
        """The squared discrepancy without the pairs of a point with itself.

        Without bias for ``MMD**2(g * rho, nu)`` where particles and samples are independent draws of rho and nu; it may
        be negative. Of a mixture, which is known exactly, there is nothing to leave out.

        Parameters
        ----------
        measure : Cloud or array_like, shape (N, p)
            NaN for a single particle or sample.
        """
        cloud = self._wide(measure)
        own = statistics(self._own_sums(cloud), self._own.diagonal(cloud.particles), cloud.weights)
        return own.u - 2 * cloud.mean(self._target_values(cloud)) + self._energy.u

    def loss_gradient(self, measure: Measure, batch: Any = None) -> FloatArray:
        cloud = self.cloud(measure)
        mmd, rows = self._of_batch(batch)
        gradient = mmd.witness(cloud.particles, cloud, rows, True)[1]
        gradient[:, self.n_moving :] = 0
        return gradient

    def first_variation(self, measure: Measure, batch: Any = None) -> Potential:
        """Twice the witness function, ``2 E k_2v(x, X) - 2 E k_v(x, Z) + l2 |x|**2``."""
        mmd, rows = self._of_batch(batch)
        return _Witness(mmd, self.cloud(measure), rows)

    def witness(
        self, points: FloatArray, cloud: Cloud, rows: NDArray[np.int64] | None, with_gradient: bool
    ) -> tuple[FloatArray, FloatArray]:
        """The first variation at points without the ridge, and its gradient if asked for; else the points."""
        if self._ranks is not None:
            alone = copy.copy(self)
            vars(alone)["_ranks"] = None
            shared, slopes = self._ranks.of_points(lambda some: alone.witness(some, cloud, rows, with_gradient), points)
            return shared, slopes
        self._check_grain(points.dtype)
        others = cloud.particles.astype(points.dtype, copy=False)
        weights = None if cloud.weights is None else cloud.weights.astype(points.dtype, copy=False)
        values, gradient = self._own.sums_of(points, others, weights, with_gradient, self._threads)
        of_target, target_gradient = self.target.sums(self._cross, points, rows, with_gradient, self._threads)
        if gradient is None:
            return 2 * (values - of_target), points
        return 2 * (values - of_target), 2 * (gradient - target_gradient)

    def draw_batch(self, place: Place, batch_size: int) -> Any:
        return self.sampled(place.step, batch_size) if self.n_samples is None else super().draw_batch(place, batch_size)

    def loss_of_batch(self, measure: Measure, batch: Any) -> float:
        return math.nan if self.target.known else self._given(batch).loss(measure)

    def sampled(self, step: int, n_rows: int) -> MMD:
        """Of a stream the discrepancy from so many samples of a step; else itself."""
        rows = self.target.sampled(step, n_rows)
        if rows is None:
            return self
        return MMD(rows, self.kernel, smoothing=self.smoothing, space=self.space, reference=self.reference).on_threads(
            self.num_threads
        )

    def transform(
        self, frequencies: FloatArray, dtype: DTypeLike, batch: Any = None
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Factors of the smoothing at frequencies, and means of cosines and sines over the target, shape (m,) each."""
        if not self.target.known:
            return self._given(batch).transform(frequencies, dtype)
        self._check_grain(dtype)
        rows = None if batch is None else validation.rows("batch", batch, self.n_samples or 0)
        cosines, sines = self.target.transform(frequencies.astype(dtype), rows, self._threads)
        return np.exp(-(self.smoothing**2) / 2 * np.sum(frequencies**2, axis=1)), cosines, sines

    @property
    def _threads(self) -> int:
        return validation.num_threads(self.num_threads)

    @functools.cached_property
    def _on_threads(self) -> dict[int | None, Self]:
        """Copies by their number of threads, which keep what they computed from one call of a run to the next."""
        return {}

    @functools.cached_property
    def _energy(self) -> Statistics:
        """``E k(Z, Z')`` over the target."""
        return self.target.energy(self.kernel, self._threads)

    def _check_grain(self, dtype: DTypeLike) -> None:
        """Refuse single precision where the target is so far from 0 that particles would move in coarse steps."""
        if np.dtype(dtype) != np.float32:
            return
        if self._coarse is not None:
            j, where, grain, scale = self._coarse
            raise ValueError(
                f"particles must be float64, or the samples have their mean subtracted: coordinate {j} of the target "
                f"is near {where:.6g}, where float32 has steps of {grain:.3g}, and varies by {scale:.3g}"
            )

    @functools.cached_property
    def _coarse(self) -> tuple[int, float, float, float] | None:
        """A coordinate of which float32 tells too little: where the target is, the grain there, and what varies."""
        moments = self.target.moments()
        if moments is None:
            return None
        mean, scale = moments
        grain = np.finfo(np.float32).eps * (np.abs(mean) + scale)
        if hasattr(self.kernel, "lengths") and not self.kernel.conditional:  # the energy distance has no scale
            lengths = self.kernel.lengths(len(mean))
            scale = np.where(scale > 0, np.minimum(scale, lengths), lengths)
        j = int(np.argmax(grain - _GRAIN * np.where(scale > 0, scale, np.inf)))
        coarse = 0 < scale[j] < grain[j] / _GRAIN
        return (j, float(mean[j]), float(grain[j]), float(scale[j])) if coarse else None

    def _wide(self, measure: Measure) -> Cloud:
        cloud = self.cloud(measure)
        return Cloud(cloud.particles.astype(np.float64), cloud.weights)

    def _own_sums(self, cloud: Cloud) -> FloatArray:
        return self._shared(
            lambda points: self._own.sums(points, cloud.particles, cloud.weights, self._threads), cloud.particles
        )

    def _target_values(self, cloud: Cloud) -> FloatArray:
        return self._shared(
            lambda points: self.target.sums(self._cross, points, None, False, self._threads)[0], cloud.particles
        )

    def _shared(self, function: Callable[[FloatArray], FloatArray], points: FloatArray) -> FloatArray:
        if self._ranks is None:
            return function(points)
        return self._ranks.of_points(lambda some: (function(some),), points)[0]

    @staticmethod
    def _given(batch: Any) -> MMD:
        return validation.instance("batch", batch, MMD, "the MMD that sampled(step, n_rows) gives of a stream")

    def _of_batch(self, batch: Any) -> tuple[MMD, NDArray[np.int64] | None]:
        """The discrepancy that a batch stands for, and its rows of the samples."""
        if self.target.known:
            if batch is None:
                return self, None
            if self.n_samples is None:
                raise ValueError("batch must be None for a mixture, which has no samples")
            return self, validation.rows("batch", batch, self.n_samples)
        if batch is None:
            raise TypeError(
                "the gradient over a stream is an expectation, which is not known: use Minibatch, or the MMD that "
                "sampled(step, n_rows) gives"
            )
        return self._given(batch), None


class _Witness(Potential):
    """First variation of an `MMD` at a frozen cloud."""

    def __init__(self, mmd: MMD, cloud: Cloud, rows: NDArray[np.int64] | None) -> None:
        self._parts = mmd, cloud, rows
        super().__init__(
            gradient=lambda points: mmd.witness(points, cloud, rows, True)[1],
            value=lambda points: mmd.witness(points, cloud, rows, False)[0],
            value_and_gradient=lambda points: mmd.witness(points, cloud, rows, True),
            space=mmd.space,
            reference=mmd.reference,
        )
        self.num_threads = mmd.num_threads

    def on_threads(self, num_threads: int | None) -> _Witness:
        mmd, cloud, rows = self._parts
        return _Witness(mmd.on_threads(num_threads), cloud, rows)

    def initial_particles(self, n_particles: int, place: Place | int = 0, dtype: DTypeLike = "float32") -> FloatArray:
        return self._parts[0].initial_particles(n_particles, place, dtype)


class _Target(ABC):
    """Measure that another is compared with.

    Attributes
    ----------
    known : bool
        False of a stream, of which only samples are seen.
    """

    n_coordinates: int
    n_samples: int | None = None
    has_batches = False
    known = True

    @abstractmethod
    def fit(self, kernel: Kernel) -> Kernel:
        """The kernel with numbers for its rules."""

    def check(self, kernel: Kernel) -> None:  # noqa: B027
        """Refuse kernels that do not suit, and warn about those that are not positive definite."""

    def sums(
        self, kernel: Kernel, points: FloatArray, rows: NDArray[np.int64] | None, with_gradient: bool, num_threads: int
    ) -> tuple[FloatArray, Any]:
        """``E k(x, Z)`` at points and its gradient, from some rows without bias."""
        raise NotImplementedError

    def energy(self, kernel: Kernel, num_threads: int) -> Statistics:
        """``E k(Z, Z')``."""
        raise NotImplementedError

    def transform(
        self, frequencies: FloatArray, rows: NDArray[np.int64] | None, num_threads: int
    ) -> tuple[FloatArray, FloatArray]:
        """``E cos(w . Z)`` and ``E sin(w . Z)`` at each frequency, from some rows without bias."""
        raise NotImplementedError

    def points(self, dtype: DTypeLike) -> tuple[FloatArray, FloatArray | None] | None:
        """Points and their weights, where the target consists of such."""
        return None

    def moments(self) -> tuple[FloatArray, FloatArray] | None:
        """Mean and standard deviation of each coordinate, where they are known."""
        return None

    def sampled(self, step: int, n_rows: int) -> FloatArray | None:
        """Samples of a step, of a stream."""
        return None


class _Samples(_Target):
    has_batches = True

    def __init__(self, samples: ArrayLike, sample_weight: ArrayLike | None) -> None:
        rows = validation.array("samples", samples)
        validation.shape("samples", rows, ("n", "p"), "(samples, coordinates)")
        self.rows = validation.frozen(rows)
        self.n_samples, self.n_coordinates = rows.shape
        self.weights: FloatArray | None = None
        if sample_weight is not None:
            given = validation.weights(
                "sample_weight", sample_weight, (self.n_samples,), "to match samples", np.float64
            )
            self.weights = validation.frozen(given)

    def __repr__(self) -> str:
        weighted = "" if self.weights is None else ", weighted"
        return f"{self.n_samples} samples of {self.n_coordinates} coordinates{weighted}"

    def fit(self, kernel: Kernel) -> Kernel:
        return kernel.fitted(self.rows)

    def check(self, kernel: Kernel) -> None:
        kernel.check_definite(self.rows)

    def sums(
        self, kernel: Kernel, points: FloatArray, rows: NDArray[np.int64] | None, with_gradient: bool, num_threads: int
    ) -> tuple[FloatArray, Any]:
        samples, weights = self._taken(rows, points.dtype)
        return kernel.sums_of(points, samples, weights, with_gradient, num_threads)

    def transform(
        self, frequencies: FloatArray, rows: NDArray[np.int64] | None, num_threads: int
    ) -> tuple[FloatArray, FloatArray]:
        return fourier.means(*self._taken(rows, frequencies.dtype), frequencies, num_threads)

    def points(self, dtype: DTypeLike) -> tuple[FloatArray, FloatArray | None]:
        return self._taken(None, dtype)

    def _taken(self, rows: NDArray[np.int64] | None, dtype: DTypeLike) -> tuple[FloatArray, FloatArray | None]:
        samples, weights = self.rows, self.weights
        if rows is not None:
            samples = samples[rows]
            weights = None if weights is None else weights[rows] * (len(self.rows) / len(rows))
        return np.ascontiguousarray(samples, dtype), None if weights is None else weights.astype(dtype)

    def energy(self, kernel: Kernel, num_threads: int) -> Statistics:
        rows = self.rows.astype(np.float64)
        return statistics(kernel.sums(rows, rows, self.weights, num_threads), kernel.diagonal(rows), self.weights)

    def moments(self) -> tuple[FloatArray, FloatArray]:
        rows = self.rows.astype(np.float64)
        mean = np.average(rows, axis=0, weights=self.weights)
        return mean, np.sqrt(np.average((rows - mean) ** 2, axis=0, weights=self.weights))


class _Mixture(_Target):
    def __init__(self, mixture: GaussianMixture) -> None:
        self.mixture = mixture
        self.n_coordinates = mixture.n_coordinates

    def __repr__(self) -> str:
        return repr(self.mixture)

    def fit(self, kernel: Kernel) -> Kernel:
        return kernel

    def check(self, kernel: Kernel) -> None:
        self.energy(kernel, 1)  # which needs the closed form and the numbers

    def sums(
        self, kernel: Kernel, points: FloatArray, rows: NDArray[np.int64] | None, with_gradient: bool, num_threads: int
    ) -> tuple[FloatArray, Any]:
        return kernel.mixture_sums(points, self.mixture)

    def transform(
        self, frequencies: FloatArray, rows: NDArray[np.int64] | None, num_threads: int
    ) -> tuple[FloatArray, FloatArray]:
        wide = frequencies.astype(np.float64)
        phases = self.mixture.means @ wide.T
        decay = np.exp(-np.einsum("mi,kij,mj->km", wide, self.mixture.covariances, wide) / 2)
        cosines, sines = (self.mixture.weights @ (decay * wave(phases)) for wave in (np.cos, np.sin))
        return cosines.astype(frequencies.dtype), sines.astype(frequencies.dtype)

    def energy(self, kernel: Kernel, num_threads: int) -> Statistics:
        exact = kernel.mixture_energy(self.mixture)
        return Statistics(exact, exact)

    def moments(self) -> tuple[FloatArray, FloatArray]:
        weights, means = self.mixture.weights, self.mixture.means
        mean = weights @ means
        variances = np.diagonal(self.mixture.covariances, axis1=1, axis2=2) + (means - mean) ** 2
        return mean, np.sqrt(weights @ variances)


class _Stream(_Target):
    has_batches = True
    known = False

    def __init__(self, sample: Callable[[int, int], ArrayLike], space: Space | None) -> None:
        if space is None:
            raise ValueError("space must be given for a stream of samples, like Space(2)")
        self.sample, self.n_coordinates = sample, space.n_coordinates

    def __repr__(self) -> str:
        return f"stream of samples of {self.n_coordinates} coordinates"

    def fit(self, kernel: Kernel) -> Kernel:
        return kernel.fitted(self._rows(0, _ROWS))

    def moments(self) -> tuple[FloatArray, FloatArray]:
        return _Samples(self._rows(0, _ROWS), None).moments()

    def sampled(self, step: int, n_rows: int) -> FloatArray:
        return self._rows(validation.integer("step", step, 0), validation.integer("n_rows", n_rows, 1))

    def _rows(self, step: int, n_rows: int) -> FloatArray:
        rows = validation.array(f"what samples({step}, {n_rows}) returned", self.sample(step, n_rows))
        validation.shape(f"what samples({step}, {n_rows}) returned", rows, (n_rows, self.n_coordinates), "")
        return rows


def _target(samples: Any, sample_weight: ArrayLike | None, space: Space | None) -> _Target:
    if isinstance(samples, GaussianMixture):
        return _Mixture(samples)
    return _Stream(samples, space) if callable(samples) else _Samples(samples, sample_weight)
