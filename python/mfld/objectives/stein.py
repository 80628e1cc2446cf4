"""Kernel Stein discrepancy: how far a measure is from a Gibbs law, from the gradient of its potential."""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from mfld import references, validation
from mfld.kernels import Kernel, Statistics
from mfld.kernels.core import in_core
from mfld.kernels.pairwise import SteinSums, statistics
from mfld.noise import Place
from mfld.objectives.base import Measure, Objective, Potential, SetOnce
from mfld.ranks import Ranks
from mfld.references import Reference
from mfld.space import Space
from mfld.state import Cloud
from mfld.validation import FloatArray


class KSD(SetOnce, Objective):
    """Squared kernel Stein discrepancy ``F(mu) = KSD**2(mu, pi) + l2 E_mu |theta|**2`` from a Gibbs law pi.

    With the score ``s = grad log pi`` and a kernel k::

        KSD**2(mu, pi) = E u(X, X'),     u(x, y) = s(x).s(y) k + s(x).grad_y k + s(y).grad_x k + trace grad_x grad_y k

    X, X' ~ mu, with first variation ``2 E u(x, X)``. It needs no normalising constant. `loss` is the V-statistic, pairs
    of a particle with itself included; `statistics` has both. The gradient takes one product of the Hessian of the
    potential with a vector for each particle (`Potential.hessian_vector`): exact for those of `mfld.potentials`, of
    `Potential.from_jax` and `from_torch`, and where a potential is given its own; else by differences of the gradient,
    as its ``repr`` says. Descent may stall where the gradient is 0
    by symmetry; the noise of a temperature frees it. Source: Korba, Aubin-Frankowski, Majewski, Ablin 2021, "Kernel
    Stein discrepancy descent"; Liu, Lee, Jordan 2016, "A kernelized Stein discrepancy for goodness-of-fit tests".

    Parameters
    ----------
    potential : Potential
        pi is ``exp(-(V + its l2 |theta|**2) / target_temperature)``, on Euclidean space or a torus.
    kernel : Kernel
        With three derivatives, like `mfld.kernels.InverseMultiquadric`; its length scale a number.
    target_temperature : float
        Positive: that of pi. The temperature of a run is another thing: what its entropy weighs.
    l2 : float
        Coefficient of the ridge, without a factor 1/2.
    reference : Reference, optional
        In place of l2.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or the kernel is not smooth enough; later, if a score is
        not finite.

    Examples
    --------
    >>> import mfld
    >>> from mfld import kernels, potentials
    >>> ksd = mfld.KSD(potentials.Gaussian([1.0, -1.0]), kernels.InverseMultiquadric(1.0))
    >>> result = mfld.MFLD(30, step_size=0.1, temperature=0.0, dtype="float64").run(ksd, n_steps=500)
    >>> result.particles.mean(axis=0).round(2)
    array([ 1., -1.])
    """

    any_precision = True
    _ranks: Ranks | None = None

    def __init__(
        self,
        potential: Potential,
        kernel: Kernel,
        *,
        target_temperature: float = 1.0,
        l2: float = 0.0,
        reference: Reference | None = None,
    ) -> None:
        self.potential = validation.instance("potential", potential, Potential, "a Potential")
        self.kernel = validation.instance("kernel", kernel, Kernel, "a Kernel, like kernels.InverseMultiquadric(1.0)")
        self.target_temperature = validation.real("target_temperature", target_temperature, positive=True)
        self.space = potential.space
        self.reference = references.given(l2, reference, self.space)
        check_stein(kernel, self.space)
        kernel.check_derivatives(3)
        # A rule for the length scale would make another functional at every cloud.
        kernel.diagonal(np.zeros((1, self.n_coordinates)))

    def __repr__(self) -> str:
        how = "" if self.potential.has_hessian else ", products with the Hessian by differences"
        return f"KSD({self.potential!r}, {self.kernel!r}, l2={self.l2:g}{how})"

    def on_threads(self, num_threads: int | None) -> Self:
        same = copy.copy(self)
        same.num_threads = num_threads
        vars(same)["potential"] = self.potential.on_threads(num_threads)
        return same

    def over_ranks(self, ranks: Ranks) -> Self:
        if in_core(self.kernel, self.n_coordinates) is None:
            raise TypeError(f"kernel must be one that the core knows, for Sharded, got {self.kernel!r}")
        same = copy.copy(self)
        vars(same)["_ranks"] = ranks
        return same

    def initial_particles(self, n_particles: int, place: Place | int = 0, dtype: DTypeLike = "float32") -> FloatArray:
        """The potential's initial particles."""
        return self.potential.initial_particles(n_particles, place, dtype)

    def statistics(self, measure: Measure) -> Statistics:
        """The squared discrepancy in float64, as a V- and as a U-statistic.

        Parameters
        ----------
        measure : Cloud or array_like, shape (N, p)
        """
        cloud = self.cloud(measure)
        points = cloud.particles.astype(np.float64)
        scores = self.score(points)
        sums = self.sums(points, scores, Cloud(points, cloud.weights), scores, False, self.num_threads).values
        return statistics(sums, self.kernel.stein_diagonal(points, scores), cloud.weights)

    def sums(
        self,
        points: FloatArray,
        scores: FloatArray,
        cloud: Cloud,
        theirs: FloatArray,
        with_gradient: bool,
        num_threads: int | None,
    ) -> SteinSums:
        """Means of the Stein kernel over a cloud, at points with their scores; ranks share the pairs."""

        def of(some: FloatArray, vectors: FloatArray) -> SteinSums:
            others, weights = cloud.particles.astype(some.dtype, copy=False), cloud.weights
            return self.kernel.stein_sums(
                some, vectors, others, theirs, weights, with_gradient=with_gradient, num_threads=num_threads
            )

        if self._ranks is None:
            return of(points, scores)
        if with_gradient:
            return SteinSums._make(self._ranks.of_points(of, points, scores))
        (values,) = self._ranks.of_points(lambda *own: of(*own)[:1], points, scores)
        return SteinSums(values, None, None)

    def loss(self, measure: Measure) -> float:
        return self.statistics(measure).v

    def loss_gradient(self, measure: Measure, batch: ArrayLike | None = None) -> FloatArray:
        cloud = self.cloud(measure)
        return self.first_variation(cloud, batch).loss_gradient(cloud.particles)

    def first_variation(self, measure: Measure, batch: ArrayLike | None = None) -> Potential:
        """Twice the Stein witness, ``2 E u(x, X) + l2 |x|**2``."""
        if batch is not None:
            raise ValueError("batch must be None for a KSD, which has no samples")
        return _Witness(self, self.cloud(measure), self.num_threads)

    def score(self, points: FloatArray) -> FloatArray:
        """Score of pi at points, shape (M, p): minus the gradient of the potential over the temperature.

        Raises
        ------
        ValueError
            If it is not finite.
        """
        return checked_score(self.potential.gradient(points), self.target_temperature)


class _Witness(Potential):
    """First variation of a `KSD` at a frozen cloud."""

    def __init__(self, ksd: KSD, cloud: Cloud, num_threads: int | None) -> None:
        self._parts = ksd, cloud
        self._scores: dict[Any, FloatArray] = {}
        super().__init__(
            gradient=lambda points: self._both(points, True)[1],
            value=lambda points: self._both(points, False)[0],
            value_and_gradient=lambda points: self._both(points, True),
            space=ksd.space,
            reference=ksd.reference,
        )
        self.num_threads = num_threads

    def on_threads(self, num_threads: int | None) -> _Witness:
        return _Witness(*self._parts, num_threads)

    def initial_particles(self, n_particles: int, place: Place | int = 0, dtype: DTypeLike = "float32") -> FloatArray:
        return self._parts[0].initial_particles(n_particles, place, dtype)

    def _both(self, points: FloatArray, with_gradient: bool) -> tuple[FloatArray, FloatArray]:
        ksd, cloud = self._parts
        others = cloud.particles.astype(points.dtype, copy=False)
        if points.dtype not in self._scores:
            self._scores[points.dtype] = ksd.score(others)
        theirs = self._scores[points.dtype]
        mine = theirs if np.array_equal(points, others) else ksd.score(points)
        found = ksd.sums(points, mine, cloud, theirs, with_gradient, self.num_threads)
        if found.gradient is None or found.field is None:
            return 2 * found.values, points
        through_score = ksd.potential.hessian_vector(points, found.field) / points.dtype.type(ksd.target_temperature)
        return 2 * found.values, 2 * (found.gradient - through_score)


def checked_score(gradient: FloatArray, temperature: float) -> FloatArray:
    """Score of the Gibbs law of a potential with this gradient, which is to be finite."""
    finite = np.isfinite(gradient).all(axis=-1)
    if not finite.all():
        bad = int(np.argmin(finite))
        raise ValueError(f"score must be finite, got the gradient {gradient[bad].tolist()} at particle {bad}")
    return np.asarray(-gradient / gradient.dtype.type(temperature))


def check_stein(kernel: Kernel, space: Space) -> None:
    """Raise ValueError where Stein's identity does not hold: kernels that are not definite, domains with an end."""
    if kernel.conditional:
        raise ValueError(f"kernel must be positive definite, {kernel!r} is on differences of measures only")
    if kernel.n_coordinates not in (None, space.n_moving):
        raise ValueError(f"kernel must be of {space.n_moving} coordinates to match the space, got {kernel!r}")
    for block, _ in space.parts():
        if not (block.flat or block.kind == "torus"):
            raise ValueError(f"domain must be Euclidean or a torus for Stein's identity, got {block}")
    if space.n_frozen == 0:
        kernel.check_space(space)
