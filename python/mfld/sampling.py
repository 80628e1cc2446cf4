"""Sampling the Gibbs law of a frozen potential with many independent chains, and weighted particles by weight."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mfld import noise, validation
from mfld.dynamics import MALA, Step
from mfld.floating import underflow_is_zero
from mfld.gradients import Drift, FullBatch
from mfld.objectives import Potential
from mfld.ranks import ALONE, Share
from mfld.state import Buffers, Cloud
from mfld.validation import FloatArray

TARGET_ACCEPTANCE = 0.574  # optimal for MALA in many dimensions: Roberts & Rosenthal 1998
_MALA, _FULL = MALA(), FullBatch()
_LONGEST_STEP = 2.5  # times 1 / l2: rho = exp(-5), beyond which a proposal forgets its start in any case


@dataclass(frozen=True, eq=False)
class Chains:
    """State of chains: points (M, p), potential without ridge (M,), its gradient (M, p); ``moves`` counts them."""

    points: FloatArray
    values: FloatArray
    gradient: FloatArray
    step_size: float
    moves: int = 0
    acceptance: float = np.nan


Watched: TypeAlias = Callable[[Chains], NDArray[np.float64]]
"""Functions of the points, shape (M, number of functions)."""


@dataclass(frozen=True)
class GibbsSampler:
    """Independent chains of `MALA` for ``exp(-(V + l2 |theta|**2) / temperature)``, one at each point.

    The step size starts at ``temperature / (2 mean |grad V|**2 + 4 l2 temperature)`` and is multiplied by
    ``exp(acceptance - 0.574)`` after a move that adapts, a function of the chains' state alone. Noise: that of `MALA`,
    at the place (key, moves made).

    Parameters
    ----------
    potential : Potential
        With a value; with l2 of 0 it has to confine the chains itself.
    temperature : float
        Positive.
    key, population : int
        Place in the noise, see `mfld.noise`.
    num_threads : int, optional
        It never changes a result.
    share : Share, optional
        Where processes share the chains: this process has those of its share, and the potential evaluates them by
        itself. By default it has all of them.

    Raises
    ------
    TypeError, ValueError
        If the potential has no value or the temperature is not positive; when chains start, if there is neither l2 nor
        a gradient by which a step size could be chosen.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> from mfld.sampling import GibbsSampler
    >>> well = mfld.Potential(lambda x: x, lambda x: np.sum(x**2, axis=1) / 2, n_coordinates=1, l2=0.5)
    >>> sampler = GibbsSampler(well, temperature=1.0, key=0)
    >>> chains = sampler.start(np.zeros((4000, 1)))
    >>> for _ in range(20):
    ...     chains = sampler.move(chains)
    >>> bool(abs(chains.points.var() - 0.5) < 0.05)
    True
    """

    potential: Potential
    temperature: float
    key: int
    population: int = 0
    num_threads: int | None = None
    share: Share | None = None

    def __post_init__(self) -> None:
        validation.real("temperature", self.temperature, positive=True)
        _MALA.check(self.potential, _FULL)
        _MALA.check_space(self.potential)

    def start(self, points: FloatArray, step_size: float | None = None, moves: int = 0) -> Chains:
        """Chains at these points, those of all processes."""
        share = self._share(points)
        points = points[share.own]
        values, gradient = self.potential.value_and_gradient(points)
        if step_size is None:
            slope = float(share.mean(np.sum(gradient.astype(np.float64) ** 2, axis=1)))
            if not math.isfinite(slope):
                wrong = int(np.argmin(np.isfinite(gradient).all(axis=1)))
                raise ValueError(f"potential must have a finite gradient, got {gradient[wrong]} at {points[wrong]}")
            scale = 2 * slope + 4 * self.potential.l2 * self.temperature
            if not scale > 0:
                raise ValueError("step_size must be given where the potential has no l2 and no gradient at the points")
            step_size = self.temperature / scale
        return Chains(points, values, gradient, step_size, moves)

    def move(self, chains: Chains, adapt: bool = True) -> Chains:
        """One move of every chain."""
        share = self._share(chains.points)
        place = noise.Place(self.key, chains.moves, self.population, self.num_threads, first=share.own.start)
        step = Step(chains.step_size, self.temperature, self.potential.l2, self.potential.space, place)
        known: Buffers = {"potential": chains.values, "force": chains.gradient}
        drift = Drift(self.potential, _FULL)
        moved, probabilities = _MALA.move_chains(chains.points, known, drift, step)
        # Chains that nobody shares are added one after the other, as in `MALA`.
        total = np.cumsum(probabilities)[-1] / len(probabilities) if self.share is None else share.mean(probabilities)
        acceptance, step_size = float(total), chains.step_size
        if adapt:
            step_size *= math.exp(acceptance - TARGET_ACCEPTANCE)
            if self.potential.l2 > 0:
                step_size = min(step_size, _LONGEST_STEP / self.potential.l2)
        return Chains(
            moved.particles,
            moved.buffers["potential"],
            moved.buffers["force"],
            step_size,
            chains.moves + 1,
            acceptance,
        )

    def move_until_forgotten(self, chains: Chains, watched: Watched, most_moves: int) -> Chains:
        """Move until no watched function of the points keeps a correlation above 0.3 with what it was, over chains."""
        share, before = self._share(chains.points), watched(chains)
        centre = share.mean(before)
        start = before - centre
        spread = _root(share.mean(start**2))
        spread = np.where(spread > 1e-12 * np.abs(centre), spread, 0.0)  # else all are the same, but for rounding
        for _ in range(most_moves):
            chains = self.move(chains)
            now = watched(chains) - centre
            # One meeting: sums from the old mean on cancel no more than chains move away from it.
            mean, square, product = share.mean(np.stack([now, now**2, start * now], axis=1))
            scale = spread * _root(square - mean**2)
            kept = np.divide(product, scale, out=np.zeros_like(product), where=scale > 0)
            if np.max(np.abs(kept)) < 0.3:
                break
        return chains

    def points(self, chains: Chains) -> FloatArray:
        """Points of the chains of all processes."""
        return self._share(chains.points).gather(chains.points)

    def _share(self, points: FloatArray) -> Share:
        return ALONE.share(len(points)) if self.share is None else self.share


def systematic(weights: NDArray[np.float64], size: int, offset: float) -> NDArray[np.int64]:
    """Systematic resampling: each index i so that it comes floor or ceil of ``size * w_i / sum w`` times.

    The points ``offset, offset + 1, ...`` below ``size``, with an offset in [0, 1), fall on a line that the weights
    divide: with a uniform offset the expected number is exact. Source: Kitagawa 1996, "Monte Carlo filter and smoother
    for non-Gaussian nonlinear state space models".
    """
    heights = np.cumsum(weights)
    heights *= size / heights[-1]
    found = np.searchsorted(heights, np.arange(size) + offset, side="left")
    return np.minimum(found, len(weights) - 1)


@underflow_is_zero
def resample(cloud: Cloud, n_particles: int | None = None, seed: int = 0) -> Cloud:
    """Particles of equal weight for a weighted cloud, by systematic resampling.

    A particle of weight w comes ``floor(n_particles * w)`` or ``ceil(n_particles * w)`` times, and ``n_particles * w``
    times on average over seeds. It is the way from the weighted particles of `PSDCA` to what needs equal ones, such as
    the start of `MFLD`; predictions and all else in the library take the weights as they are.

    Parameters
    ----------
    cloud : Cloud
        Particles of shape (N, p).
    n_particles : int, optional
        By default N.
    seed : int

    Returns
    -------
    Cloud
        With ``weights=None``.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or range.

    Examples
    --------
    >>> import mfld
    >>> cloud = mfld.Cloud([[0.0], [1.0], [2.0]], weights=[0.5, 0.25, 0.25])
    >>> mfld.resample(cloud, n_particles=4).particles[:, 0]
    array([0., 0., 1., 2.])
    """
    validation.instance("cloud", cloud, Cloud, "a Cloud")
    validation.shape("cloud.particles", cloud.particles, ("N", "p"), "(number, coordinates)")
    n = len(cloud.particles)
    size = n if n_particles is None else validation.integer("n_particles", n_particles, 1)
    weights = np.ones(n) if cloud.weights is None else cloud.weights.astype(np.float64)
    offset = noise.Place.of(seed).beside("resample").uniforms(1, 1).item()
    return Cloud(cloud.particles[systematic(weights, size, offset)])


def _root(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Square roots of what rounding alone makes negative."""
    root: NDArray[np.float64] = np.sqrt(np.maximum(values, 0.0))
    return root
