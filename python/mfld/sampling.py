"""Sampling the Gibbs law of a frozen potential with many independent chains, and weighted particles by weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mfld import noise, validation
from mfld.objectives import Potential
from mfld.state import Cloud
from mfld.validation import FloatArray

TARGET_ACCEPTANCE = 0.574  # optimal for MALA in many dimensions: Roberts & Rosenthal 1998
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
    """Metropolis-adjusted Langevin chains for ``exp(-(V + l2 |theta|**2) / temperature)``, one at each point.

    The ridge is integrated exactly, so that it sets no limit to the step::

        theta' = rho theta - (1 - rho) / (2 l2) grad V + sqrt((1 - rho**2) temperature / (2 l2)) xi,
        rho = exp(-2 l2 step_size)

    and is accepted with the probability that leaves the law invariant. For small steps it is the Euler-Maruyama step.
    The step size starts at ``min(1 / (2 l2), temperature / (2 mean |grad V|**2))`` and is multiplied by
    ``exp(acceptance - 0.574)`` after a move that adapts, a function of the chains' state alone. Noise: streams ``move``
    and ``acceptance``, at the place (key, moves made). Source: Roberts, Tweedie 1996, "Exponential convergence of
    Langevin distributions and their discrete approximations"; with the reference in the proposal Cotter, Roberts,
    Stuart, White 2013, "MCMC methods for functions".

    Parameters
    ----------
    potential : Potential
        With a value, and ``l2 > 0``.
    temperature : float
        Positive.
    key, population : int
        Place in the noise, see `mfld.noise`.
    num_threads : int, optional
        It never changes a result.

    Raises
    ------
    ValueError
        If l2 or the temperature is 0.

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

    def __post_init__(self) -> None:
        validation.real("temperature", self.temperature, positive=True)
        validation.real("potential.l2", self.potential.l2, positive=True)

    def start(self, points: FloatArray, step_size: float | None = None, moves: int = 0) -> Chains:
        """Chains at these points."""
        values, gradient = self.potential.value_and_gradient(points)
        if step_size is None:
            slope = float(np.mean(np.sum(gradient.astype(np.float64) ** 2, axis=1)))
            step_size = self.temperature / (2 * slope + 4 * self.potential.l2 * self.temperature)
        return Chains(points, values, gradient, step_size, moves)

    def move(self, chains: Chains, adapt: bool = True) -> Chains:
        """One move of every chain."""
        l2, temperature, n_moving = self.potential.l2, self.temperature, self.potential.n_moving
        x, slope = chains.points[:, :n_moving], chains.gradient[:, :n_moving]
        real = chains.points.dtype.type
        rho = real(np.exp(-2 * l2 * chains.step_size))
        pull = real(-np.expm1(-2 * l2 * chains.step_size) / (2 * l2))
        variance = -np.expm1(-4 * l2 * chains.step_size) * temperature / (2 * l2)

        still = rho * x
        moved = still - pull * slope
        moved += real(np.sqrt(variance)) * self._normals(chains, "move", n_moving)
        finite = np.isfinite(moved).all(axis=1)
        proposal = chains.points.copy()
        proposal[finite, :n_moving] = moved[finite]
        values, gradient = self.potential.value_and_gradient(proposal)

        # Without the gradient the proposal is reversible for the Gaussian reference: of the densities the terms in the
        # gradients remain, and nothing large cancels.
        new, new_slope = proposal[:, :n_moving], gradient[:, :n_moving]
        there = _dot(slope, 2 * (new - still) + pull * slope)
        back = _dot(new_slope, 2 * (x - rho * new) + pull * new_slope)
        log_ratio = float(pull) / (2 * variance) * (there - back)
        log_ratio -= (values.astype(np.float64) - chains.values) / temperature
        log_ratio[~finite] = -np.inf
        # Half the squared length of two normals is exponential, as is -log of a uniform number.
        log_uniform = -np.sum(self._normals(chains, "acceptance", 2).astype(np.float64) ** 2, axis=1) / 2
        accepted = log_uniform < log_ratio
        acceptance = float(np.mean(np.exp(np.minimum(log_ratio, 0.0))))
        step_size = chains.step_size
        if adapt:
            step_size = min(step_size * float(np.exp(acceptance - TARGET_ACCEPTANCE)), _LONGEST_STEP / l2)
        return Chains(
            np.where(accepted[:, np.newaxis], proposal, chains.points),
            np.where(accepted, values, chains.values),
            np.where(accepted[:, np.newaxis], gradient, chains.gradient),
            step_size,
            chains.moves + 1,
            acceptance,
        )

    def move_until_forgotten(self, chains: Chains, watched: Watched, most_moves: int) -> Chains:
        """Move until no watched function of the points keeps a correlation above 0.3 with what it was, over chains."""
        start = _standardised(watched(chains))
        for _ in range(most_moves):
            chains = self.move(chains)
            kept = np.mean(start * _standardised(watched(chains)), axis=0)
            if np.max(np.abs(kept)) < 0.3:
                break
        return chains

    def _normals(self, chains: Chains, stream: str, n_coordinates: int) -> FloatArray:
        place = noise.Place(self.key, chains.moves, self.population, self.num_threads)
        return place.normals(len(chains.points), n_coordinates, chains.points.dtype, stream)


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


def _dot(a: FloatArray, b: FloatArray) -> NDArray[np.float64]:
    products: NDArray[np.float64] = np.einsum("ij,ij->i", a, b).astype(np.float64)
    return products


def _standardised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns of mean 0 and variance 1; a constant is 0."""
    centred = values - values.mean(axis=0)
    deviation = centred.std(axis=0)
    standardised: NDArray[np.float64] = np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 0)
    return standardised
