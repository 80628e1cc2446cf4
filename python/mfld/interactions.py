"""Interactions: how many of the other particles a particle sees in a step, or which features of them.

The gradient of a step is that of the first variation at the measure of all particles. These estimators put another
measure into the first variation, which costs less, and take the gradient at all particles as before:

====================  ================================  =========================  ==================================
`Exact`               all N particles                   N**2 pairs
`RandomSubset(m)`     m of them, new in each step       N m                        unbiased where F is quadratic
`KernelThinning()`    a coreset of sqrt(N) of them      N**(3/2)                   error of order 1/M, M = sqrt(N)
`RandomFeatures(m)`   m random waves of an `MMD`        N m, data included         unbiased
`FourierFeatures()`   all waves of a Dirichlet kernel   N times their number       exact
====================  ================================  =========================  ==================================

Each has a ``gradient`` inside, which says how the samples are used, so that both may be estimated. They serve every
objective with a first variation: discrepancies, and risks, whose predictions are then those of the subset. `choose`
measures them on a cloud and takes the cheapest whose error is small beside the noise.
"""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import _core, fourier, thinning, validation
from mfld.fourier import Spectrum
from mfld.gradients import FullBatch, GradientEstimator
from mfld.kernels import Gaussian, Kernel
from mfld.native import Native
from mfld.noise import Place
from mfld.objectives.base import Measure, Objective, Potential
from mfld.state import Buffers, Cloud, State
from mfld.validation import FloatArray

_DRAWS = 16  # over which errors are measured


class Interaction(GradientEstimator):
    """Estimator that lets particles see something cheaper than all of them; a subclass defines `seen`.

    Attributes
    ----------
    gradient : GradientEstimator
        How the samples are used.
    """

    gradient: GradientEstimator
    exact_interaction: ClassVar[bool] = False

    @abstractmethod
    def seen(
        self, objective: Objective, particles: FloatArray, buffers: Buffers, place: Place
    ) -> tuple[Objective, Buffers]:
        """The objective as particles see it in a step, and the buffers for next time."""

    @abstractmethod
    def work(self, objective: Objective, n_particles: int) -> float:
        """Pairs, or values of waves, that the gradient of a step takes, samples included."""

    def rows_of_a_step(self, objective: Objective) -> int | None:
        return self.gradient.rows_of_a_step(objective)

    def check(self, objective: Objective) -> None:
        self.gradient.check(objective)
        if objective.members:
            raise ValueError(f"gradient must be FullBatch() or another for an objective with members, got {self!r}")

    def buffer_shapes(self, objective: Objective, n_particles: int) -> dict[str, tuple[int, ...]]:
        return self.gradient.buffer_shapes(objective, n_particles)

    def loss(self, objective: Objective, particles: FloatArray, place: Place) -> float:
        """NaN: the loss of all particles costs what these estimators save. Record it where it is wanted."""
        return math.nan

    def estimate(
        self, objective: Objective, particles: FloatArray, buffers: Buffers, place: Place
    ) -> tuple[FloatArray, Buffers]:
        seen, own = self.seen(objective, particles, buffers, place)
        estimate, renewed = self.gradient.estimate(seen, particles, buffers, place)
        return estimate, {**renewed, **own}

    def _check_gradient(self) -> None:
        validation.instance("gradient", self.gradient, GradientEstimator, "a GradientEstimator, like FullBatch()")
        if hasattr(self.gradient, "seen"):  # an interaction
            raise TypeError(f"gradient must say how samples are used, like FullBatch(), got {self.gradient!r}")
        object.__setattr__(self, "buffer_names", (*self.own_buffers, *self.gradient.buffer_names))

    own_buffers: ClassVar[tuple[str, ...]] = ()


@dataclass(frozen=True)
class Exact(Interaction):
    """All particles with all others: what `gradient` does by itself.

    Examples
    --------
    >>> import mfld
    >>> mfld.interactions.Exact(mfld.Minibatch(8))
    Exact(gradient=Minibatch(batch_size=8))
    """

    gradient: GradientEstimator = field(default_factory=FullBatch)
    exact_interaction: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._check_gradient()

    @property
    def exact(self) -> bool:  # type: ignore[override]
        return self.gradient.exact

    def native(self, objective: Objective, particles: FloatArray, buffers: Buffers) -> Native[_core.Estimator] | None:
        return self.gradient.native(objective, particles, buffers)

    def seen(
        self, objective: Objective, particles: FloatArray, buffers: Buffers, place: Place
    ) -> tuple[Objective, Buffers]:
        return objective, {}

    def loss(self, objective: Objective, particles: FloatArray, place: Place) -> float:
        return self.gradient.loss(objective, particles, place)

    def work(self, objective: Objective, n_particles: int) -> float:
        return float(n_particles) * (n_particles + _rows(self, objective))


@dataclass(frozen=True)
class RandomSubset(Interaction):
    """Particles see m of the N, drawn anew in each step without replacement.

    Unbiased where the first variation is linear in the measure: for `MMD`, `KSD` and squared losses. Its variance is
    ``(N - m) / (m (N - 1))`` times that of the pairs; of other losses there is a bias of order 1/m. Noise: the rows of
    a mini-batch, in a population of their own. Source: Jin, Li, Liu 2020, "Random batch methods for interacting
    particle systems".

    Parameters
    ----------
    m : int
        At least 1 and at most the number of particles.
    gradient : GradientEstimator
        How the samples are used.

    Raises
    ------
    TypeError, ValueError
        If m is no positive integer; in a run, if there are fewer particles.

    Examples
    --------
    >>> import mfld
    >>> from mfld import kernels, noise
    >>> samples = noise.normals(0, 0, 200, 2, stream="data")
    >>> fit = mfld.MMD(samples, kernels.Gaussian(1.0))
    >>> solver = mfld.MFLD(400, step_size=0.5, temperature=1e-3, gradient=mfld.RandomSubset(20))
    >>> result = solver.run(fit, n_steps=100, particles=3 * noise.normals(1, 0, 400, 2))
    >>> bool(fit.loss(result.measure) < 0.04)
    True
    """

    m: int
    gradient: GradientEstimator = field(default_factory=FullBatch)

    def __post_init__(self) -> None:
        object.__setattr__(self, "m", validation.integer("m", self.m, 1))
        self._check_gradient()

    def seen(
        self, objective: Objective, particles: FloatArray, buffers: Buffers, place: Place
    ) -> tuple[Objective, Buffers]:
        if self.m > len(particles):
            raise ValueError(f"m of {self!r} must be at most the number of particles, {len(particles)}")
        return _OfRows(objective, place.beside("interaction").batch(len(particles), self.m)), {}

    def work(self, objective: Objective, n_particles: int) -> float:
        return float(n_particles) * (self.m + _rows(self, objective))


@dataclass(frozen=True)
class KernelThinning(Interaction):
    """Particles see a coreset of about sqrt(N) of them, chosen by kernel thinning (`mfld.thinning.thin`).

    The rows of the coreset are kept while the cloud moves little: they are chosen anew once its particles have moved,
    in root mean square since they were chosen, by ``refresh * length / sqrt(M)``, where length is the kernel's (of a
    kernel without, the median distance). Independent moves of ``length / sqrt(M)`` put the error of M draws, times
    1/sqrt(M), on the coreset, which is the error that it has. The choice depends on state and noise only; the rows and
    the places where they were chosen are carried as buffers. Errors of a coreset that is kept add up over steps, as
    those of new ones do not: where steps are long and the temperature is low, a size of ``4 sqrt(N)`` pays. Source:
    Chen et al. 2026, "Kernel thinning for mean-field Langevin dynamics" (KT-MFLD).

    Parameters
    ----------
    size : int, optional
        M; default sqrt(N), both up to a factor sqrt(2).
    kernel : Kernel, optional
        Of particles, for the thinning. Default: the objective's where the core knows it, else a Gaussian with the
        median distance of the particles, as for networks.
    refresh : float
        At least 0; 0 thins in every step.
    gradient : GradientEstimator
        How the samples are used.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import mfld
    >>> from mfld import kernels, noise
    >>> samples = noise.normals(0, 0, 200, 2, stream="data")
    >>> fit = mfld.MMD(samples, kernels.Gaussian(1.0))
    >>> solver = mfld.MFLD(400, step_size=0.5, temperature=1e-3, gradient=mfld.KernelThinning())
    >>> result = solver.run(fit, n_steps=100, particles=3 * noise.normals(1, 0, 400, 2))
    >>> bool(fit.loss(result.measure) < 0.04)
    True
    """

    size: int | None = None
    kernel: Kernel | None = None
    refresh: float = 0.3
    gradient: GradientEstimator = field(default_factory=FullBatch)

    own_buffers: ClassVar[tuple[str, ...]] = ("coreset", "coreset_places")

    def __post_init__(self) -> None:
        if self.size is not None:
            object.__setattr__(self, "size", validation.integer("size", self.size, 1))
        if self.kernel is not None:
            validation.instance("kernel", self.kernel, Kernel, "a Kernel, like kernels.Gaussian(1.0)")
        object.__setattr__(self, "refresh", validation.real("refresh", self.refresh, non_negative=True))
        self._check_gradient()

    def seen(
        self, objective: Objective, particles: FloatArray, buffers: Buffers, place: Place
    ) -> tuple[Objective, Buffers]:
        moving = np.ascontiguousarray(particles[:, : objective.n_moving])
        kept = {name: buffers[name] for name in self.own_buffers if name in buffers}
        kernel = self._kernel(objective, moving)
        if len(kept) < 2 or self._has_moved(objective, moving, kernel, *kept.values()):
            rows = thinning.thin(
                moving,
                None if self.size is None else min(self.size, len(moving)),
                kernel,
                seed=place.beside("interaction"),
                num_threads=place.num_threads,
            )
            kept = dict(zip(self.own_buffers, (rows, moving[rows]), strict=True))
        return _OfRows(objective, kept["coreset"]), kept

    def work(self, objective: Objective, n_particles: int) -> float:
        size = math.sqrt(n_particles) if self.size is None else self.size
        return float(n_particles) * (size + _rows(self, objective))

    def _kernel(self, objective: Objective, moving: FloatArray) -> Kernel:
        own = getattr(objective, "kernel", None) if self.kernel is None else self.kernel
        if own is None or thinning.in_core(own.fitted(moving), moving.shape[1]) is None:
            own = Gaussian()
        fitted: Kernel = own.fitted(moving)
        return fitted

    def _has_moved(
        self,
        objective: Objective,
        moving: FloatArray,
        kernel: Kernel,
        rows: NDArray[np.int64],
        places: FloatArray,
    ) -> bool:
        if self.refresh == 0 or rows.max() >= len(moving):
            return True
        moves = (moving[rows] - places).astype(np.float64) / _lengths(kernel, places)
        return bool(np.mean(np.sum(moves**2, axis=1)) > self.refresh**2 / len(rows))


@dataclass(frozen=True)
class RandomFeatures(Interaction):
    """An `MMD` in m random waves, new in each step: cost N m instead of ``N (N + n)``, for a shift-invariant kernel.

    The squared discrepancy is the mean, over frequencies w of the kernel's law, of
    ``|E exp(i w . X) - E exp(i w . Z)|**2``; m draws of w estimate it, and its gradient, without bias. Noise: normals
    of the step, in a population of their own. Source: Rahimi, Recht 2007, "Random features for large-scale kernel
    machines".

    Parameters
    ----------
    m : int
        Waves: pairs of a cosine and a sine.
    gradient : GradientEstimator
        How the samples are used.

    Raises
    ------
    TypeError, ValueError
        If m is no positive integer; before a run, if the objective is no `MMD`, its kernel has no random features or
        they do not fit into memory.

    Examples
    --------
    >>> import mfld
    >>> from mfld import kernels, noise
    >>> samples = noise.normals(0, 0, 200, 2, stream="data")
    >>> fit = mfld.MMD(samples, kernels.Gaussian(1.0))
    >>> solver = mfld.MFLD(400, step_size=0.5, temperature=1e-3, gradient=mfld.RandomFeatures(100))
    >>> result = solver.run(fit, n_steps=100, particles=3 * noise.normals(1, 0, 400, 2))
    >>> bool(fit.loss(result.measure) < 0.04)
    True
    """

    m: int
    gradient: GradientEstimator = field(default_factory=FullBatch)

    def __post_init__(self) -> None:
        object.__setattr__(self, "m", validation.integer("m", self.m, 1))
        self._check_gradient()

    def check(self, objective: Objective) -> None:
        super().check(objective)
        _check_waves(self, objective)
        fourier.check_memory(self.m, objective.n_coordinates)
        objective.kernel.spectrum(Place.of(0), 1, objective.n_coordinates)  # type: ignore[attr-defined]

    def seen(
        self, objective: Objective, particles: FloatArray, buffers: Buffers, place: Place
    ) -> tuple[Objective, Buffers]:
        kernel: Kernel = objective.kernel  # type: ignore[attr-defined]
        return _InWaves(objective, kernel.spectrum(place.beside("interaction"), self.m, particles.shape[1])), {}

    def work(self, objective: Objective, n_particles: int) -> float:
        return 4 * float(self.m) * (n_particles + _rows(self, objective))


@dataclass(frozen=True)
class FourierFeatures(Interaction):
    """An `MMD` of a Dirichlet kernel in all of its waves: exact, at a cost of N times their number.

    A kernel with K coefficients has ``((2 K + 1)**p - 1) / 2`` frequencies on a torus of p dimensions.

    Parameters
    ----------
    gradient : GradientEstimator
        How the samples are used.

    Raises
    ------
    TypeError, ValueError
        If gradient is no estimator; before a run, if the objective is no `MMD`, its kernel has infinitely many
        frequencies, or more than memory holds.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> from mfld import kernels, noise
    >>> circle = mfld.Space(domain=[mfld.Torus(1, period=1.0)])
    >>> fit = mfld.MMD([[0.2], [0.5]], kernels.Dirichlet([0.5, 0.25]), space=circle)
    >>> x = noise.Place.of(0).uniforms(50, 1)
    >>> estimate, _ = mfld.FourierFeatures().estimate(fit, x, {}, noise.Place.of(0))
    >>> bool(np.allclose(estimate, fit.loss_gradient(x)))
    True
    """

    gradient: GradientEstimator = field(default_factory=FullBatch)
    exact_interaction: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._check_gradient()

    def check(self, objective: Objective) -> None:
        super().check(objective)
        _check_waves(self, objective)
        objective.kernel.harmonics(objective.n_coordinates)  # type: ignore[attr-defined]

    def seen(
        self, objective: Objective, particles: FloatArray, buffers: Buffers, place: Place
    ) -> tuple[Objective, Buffers]:
        kernel: Kernel = objective.kernel  # type: ignore[attr-defined]
        return _InWaves(objective, kernel.harmonics(particles.shape[1])), {}

    def loss(self, objective: Objective, particles: FloatArray, place: Place) -> float:
        seen, _ = self.seen(objective, particles, {}, place)
        return seen.loss(particles)

    def work(self, objective: Objective, n_particles: int) -> float:
        n_waves = len(objective.kernel.harmonics(objective.n_coordinates).weights)  # type: ignore[attr-defined]
        return 4 * float(n_waves) * (n_particles + _rows(self, objective))


class _Solver(Protocol):
    """A solver as `choose` sees it: `MFLD` is one."""

    gradient: GradientEstimator
    num_threads: int | None

    def init(self, objective: Objective, seed: int = 0) -> State: ...

    def numbers(self, objective: Objective, state: State) -> tuple[float, float, float]: ...


_SolverT = TypeVar("_SolverT", bound=_Solver)


@dataclass(frozen=True)
class Choice(Generic[_SolverT]):
    """Choice that `choose` made, with what it measured; printed, one line for each candidate, a star at the one taken.

    Attributes
    ----------
    solver : MFLD
        The solver with the interaction that was taken.
    interaction : Interaction
    allowed : float
        Error of a coordinate of the gradient that was allowed.
    errors : dict
        Error of each that was measured, root mean square over probes and coordinates.
    work : dict
        Pairs, or values of waves, of each in a step.
    """

    solver: _SolverT
    interaction: Interaction
    allowed: float
    errors: dict[str, float]
    work: dict[str, float]

    def __str__(self) -> str:
        lines = [f"error allowed: {self.allowed:.3g} of a coordinate of the gradient"]
        for name, error in sorted(self.errors.items(), key=lambda entry: self.work[entry[0]]):
            mark = "*" if name == repr(self.interaction) else " "
            lines.append(f"{mark} {name}: error {error:.3g}, {self.work[name]:.3g} pairs a step")
        return "\n".join(lines)


def choose(
    objective: Objective,
    solver: _SolverT,
    *,
    state: State | None = None,
    share: float = 0.1,
    candidates: Sequence[Interaction] | None = None,
    seed: int = 0,
) -> Choice[_SolverT]:
    """The solver with the cheapest interaction whose measured error is a small share of the noise of a step.

    A step adds noise of deviation ``sqrt(2 temperature step_size)`` to each coordinate and ``step_size`` times the
    error of the gradient; allowed are errors of at most ``share`` times that noise, so that the variance of a step
    grows by a factor ``1 + share**2`` at most where errors are fresh. Errors are measured at 64 particles against the
    interaction with all, those that are new in each step over 16 draws. At temperature 0 only exact ones are allowed.
    Under a potential particles do not interact: `Exact` is taken.

    Parameters
    ----------
    objective : Objective
    solver : MFLD
        Its gradient says how samples are used, and its numbers are those of the noise.
    state : State, optional
        Where a run has come to: its particles, and the numbers of its next step. Default: ``solver.init(objective,
        seed)``.
    share : float
        Positive.
    candidates : sequence of Interaction, optional
        Default: `Exact`, `FourierFeatures`, `KernelThinning`, and `RandomSubset` and `RandomFeatures` of sqrt(N) and
        4 sqrt(N), with the solver's gradient in them; those that do not suit the objective are left out.
    seed : int

    Returns
    -------
    Choice
        ``solver`` takes the interaction; printed, it says what was measured.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or no candidate suits.

    Examples
    --------
    >>> import mfld
    >>> from mfld import kernels, noise
    >>> fit = mfld.MMD(noise.normals(0, 0, 200, 2, stream="data"), kernels.Gaussian(1.0))
    >>> warm = mfld.MFLD(1024, step_size=0.1, temperature=1e-3)
    >>> choice = mfld.interactions.choose(fit, warm)
    >>> choice.solver.gradient == choice.interaction
    True
    >>> cold = mfld.MFLD(1024, step_size=0.1, temperature=0.0)
    >>> mfld.interactions.choose(fit, cold).interaction
    Exact(gradient=FullBatch())
    """
    validation.instance("objective", objective, Objective, "an Objective")
    if not (hasattr(solver, "numbers") and dataclasses.is_dataclass(solver)):
        raise TypeError(f"solver must be an MFLD, got {validation.show(solver)}")
    share = validation.real("share", share, positive=True)
    if state is None:
        state = solver.init(objective, seed)
    step_size, temperature, _ = solver.numbers(objective, state)
    points = state.each()[0].particles
    gradient = getattr(solver.gradient, "gradient", solver.gradient)
    objective = objective.on_threads(solver.num_threads)
    place = Place.of(seed, num_threads=solver.num_threads)
    n = len(points)
    root = max(1, round(math.sqrt(n)))
    if candidates is None:
        sizes = (root, min(n, 4 * root))
        kinds = [RandomSubset, RandomFeatures]
        fresh: list[Interaction] = [kind(m, gradient) for kind in kinds for m in sizes]
        candidates = [Exact(gradient), FourierFeatures(gradient), KernelThinning(gradient=gradient), *fresh]
        if objective.linear:
            candidates = [Exact(gradient)]
    validation.instance("candidates", candidates, Sequence, "a sequence of Interactions")
    allowed = share * math.sqrt(2 * temperature / step_size)
    rows = gradient.rows_of_a_step(objective)
    seen = objective if rows is None else objective.sampled(state.step, rows)  # of a stream
    probes = points[np.arange(min(n, 64)) * n // min(n, 64)]
    exact = seen.first_variation(points).loss_gradient(probes).astype(np.float64)
    errors, work, suitable = {}, {}, []
    for candidate in candidates:
        validation.instance("candidates", candidate, Interaction, "of Interactions, like KernelThinning()")
        try:
            candidate.check(objective)
            error = 0.0 if candidate.exact_interaction else _error(candidate, seen, points, probes, exact, place)
        except (TypeError, ValueError):  # it does not suit the objective, or these particles
            continue
        work[repr(candidate)] = candidate.work(objective, n)
        errors[repr(candidate)] = error
        if error <= allowed:
            suitable.append(candidate)
    if not suitable:
        raise ValueError(f"candidates must have one with an error of at most {allowed:.3g}, got {errors}")
    best = min(suitable, key=lambda each: work[repr(each)])
    return Choice(dataclasses.replace(solver, gradient=best), best, allowed, errors, work)


def _error(
    candidate: Interaction,
    objective: Objective,
    particles: FloatArray,
    probes: FloatArray,
    exact: FloatArray,
    place: Place,
) -> float:
    """Root mean square, over probes, coordinates and draws, of the error of a candidate's gradient.

    All probes share what is seen: one draw of a random subset may be far better or worse than most.
    """
    squares = []
    for step in range(1 if candidate.own_buffers else _DRAWS):
        seen, _ = candidate.seen(objective, particles, {}, place._replace(step=step))
        estimate = seen.first_variation(particles).loss_gradient(probes)
        squares.append(np.mean((estimate - exact)[:, : objective.n_moving] ** 2))
    return float(np.sqrt(np.mean(squares)))


class _Seen(Objective):
    """An objective of which particles see only a part."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self.space, self.reference = objective.space, objective.reference
        self.n_samples, self.num_threads = objective.n_samples, objective.num_threads
        self.any_precision = objective.any_precision

    @property
    def has_batches(self) -> bool:
        return self._objective.has_batches

    def draw_batch(self, place: Place, batch_size: int) -> Any:
        return self._objective.draw_batch(place, batch_size)

    def loss_gradient(self, measure: Measure, batch: ArrayLike | None = None) -> FloatArray:
        cloud = self.cloud(measure)
        return self.first_variation(cloud, batch).loss_gradient(cloud.particles)


class _OfRows(_Seen):
    """An objective whose first variation is that of some of the particles."""

    def __init__(self, objective: Objective, rows: NDArray[np.int64]) -> None:
        super().__init__(objective)
        self._rows = rows

    def loss(self, measure: Measure) -> float:
        return self._objective.loss(self.cloud(measure).particles[self._rows])

    def first_variation(self, measure: Measure, batch: ArrayLike | None = None) -> Potential:
        return self._objective.first_variation(Cloud(self.cloud(measure).particles[self._rows]), batch)


class _InWaves(_Seen):
    """An `MMD` in the waves of its kernel: ``sum_k weights_k |a_k E exp(i w_k X) - E exp(i w_k Z)|**2``."""

    def __init__(self, objective: Objective, spectrum: Spectrum) -> None:
        super().__init__(objective)
        self._spectrum = spectrum

    def loss(self, measure: Measure) -> float:
        cloud = self.cloud(measure)
        _, _, cosines, sines = self._differences(cloud, np.float64, None)
        return float(np.sum(self._spectrum.weights * (cosines**2 + sines**2)))

    def first_variation(self, measure: Measure, batch: ArrayLike | None = None) -> Potential:
        cloud = self.cloud(measure)
        frequencies, factors, cosines, sines = self._differences(cloud, cloud.particles.dtype, batch)
        scale = 2 * self._spectrum.weights * factors
        dtype = frequencies.dtype
        cotangents = (scale * cosines).astype(dtype), (scale * sines).astype(dtype)
        threads = validation.num_threads(self.num_threads)

        def both(points: FloatArray) -> tuple[FloatArray, FloatArray]:
            return fourier.pull_back(points.astype(dtype, copy=False), frequencies, *cotangents, threads)

        return Potential(
            lambda points: both(points)[1],
            lambda points: both(points)[0],
            value_and_gradient=both,
            space=self.space,
            reference=self.reference,
        )

    def _differences(
        self, cloud: Cloud, dtype: Any, batch: ArrayLike | None
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Frequencies, the smoothing's factors there, and what the means of cosines and sines differ by."""
        wide = self._spectrum.frequencies
        narrow = wide.astype(dtype)
        factors, *target = self._objective.transform(wide, dtype, batch)  # type: ignore[attr-defined]
        threads = validation.num_threads(self.num_threads)
        own = fourier.means(cloud.particles.astype(dtype, copy=False), cloud.weights, narrow, threads)
        cosines, sines = (factors * mine - other for mine, other in zip(own, target, strict=True))
        return narrow, factors, cosines, sines


def _rows(interaction: Interaction, objective: Objective) -> int:
    return interaction.rows_of_a_step(objective) or 0


def _check_waves(interaction: Interaction, objective: Objective) -> None:
    if not hasattr(objective, "transform"):
        kind = type(objective).__name__
        raise ValueError(f"objective must be an MMD for {interaction!r}, which is about its kernel; got a {kind}")


def _lengths(kernel: Kernel, points: FloatArray) -> Any:
    """Length scales of a kernel; of one without, the median distance of points."""
    if hasattr(kernel, "lengths"):
        return kernel.lengths(points.shape[1])
    if hasattr(kernel, "length_scale"):
        return kernel.length_scale
    if hasattr(kernel, "period"):  # of a series: a radian of its highest frequency
        return 1 / (kernel.frequency * len(kernel.coefficients))  # type: ignore[attr-defined]
    return Gaussian().fitted(points).lengths(points.shape[1])
