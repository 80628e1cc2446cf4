"""The exact law of one more step: a Gaussian mixture, with its density, score, entropy and divergences."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from mfld import noise, validation
from mfld.diagnostics.estimate import Estimate, Vector, blocks, mean, one_cloud
from mfld.diagnostics.normaliser import energies_at, known_normaliser
from mfld.objectives import Objective, Potential
from mfld.state import Cloud

_MOST_DRAWS = 10_000_000


class StepLaw:
    """Law of the particles after one more step of Langevin dynamics, given where they are: a Gaussian mixture.

    With the gradients ``b_m`` of the first variation, and weights 1/N where there are none::

        sum_m w_m N(theta_m - h b_m, 2 T h I)

    Its density is exact, so that its functionals are those of a measure with a density, up to Monte Carlo errors: an
    entropy that needs no neighbours, at the price of one step's smoothing. It is the law given these particles: in
    many coordinates, where a step is shorter than the distance of neighbours, far from that of infinitely many. On
    moving coordinates.

    Parameters
    ----------
    objective : Objective
        On Euclidean space.
    measure : Cloud or array_like, shape (N, n_coordinates)
    step_size, temperature : float
        Positive.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> well = mfld.potentials.Gaussian([0.0])
    >>> law = mfld.diagnostics.StepLaw(well, [[-1.0], [1.0]], step_size=0.5, temperature=1.0)
    >>> law.log_density([[0.5]]).round(4)              # of N(-1/2, 1) and N(1/2, 1), in equal parts
    array([-1.138])
    >>> after = mfld.diagnostics.StepLaw(well, [[3.0]], step_size=0.5, temperature=1.0)     # N(3/2, 1)
    >>> found = after.kl(well)
    >>> bool(abs(found - 1.5**2 / 2) < 4 * found.error), round(after.fisher_divergence(well), 6)
    (True, 2.25)
    """

    def __init__(self, objective: Objective, measure: Cloud | ArrayLike, step_size: float, temperature: float) -> None:
        validation.instance("objective", objective, Objective, "an Objective")
        step_size = validation.real("step_size", step_size, positive=True)
        self.temperature = validation.real("temperature", temperature, positive=True)
        if not objective.space.flat or objective.members:
            raise ValueError(f"objective must live on Euclidean space and have no members, got {objective!r}")
        points, self._weights = one_cloud("measure", measure)
        cloud = objective.cloud(measure if isinstance(measure, Cloud) else Cloud(points))
        moved = points - step_size * objective.gradient(cloud).astype(np.float64)
        self._frozen = points[:, objective.n_moving :]
        self.centres = moved[:, : objective.n_moving]
        self.variance = 2 * self.temperature * step_size

    def log_density(self, points: ArrayLike) -> Vector:
        """Logarithm of the density at points, shape (M, n_moving) -> (M,)."""
        return self._log_density_and_score(self._checked(points))[0]

    def score(self, points: ArrayLike) -> Vector:
        """Gradient of the logarithm of the density at points, shape (M, n_moving)."""
        return self._log_density_and_score(self._checked(points))[1]

    def draw(self, n_draws: int = 2000, seed: int = 0) -> Vector:
        """Draws of the law, shape (n_draws, n_moving); stratified: components take turns by their weights."""
        return self._draw(n_draws, seed)[0]

    def entropy(self, n_draws: int = 2000, seed: int = 0) -> Estimate:
        """Entropy, the integral of mu log mu, as a mean over draws."""
        return mean(self.log_density(self.draw(n_draws, seed)))

    def kl(
        self, potential: Potential, *, log_normaliser: float | None = None, n_draws: int = 2000, seed: int = 0
    ) -> Estimate:
        """Kullback-Leibler divergence to the Gibbs law of a potential at the temperature of the step; as in `kl`.

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or out of range, or the normaliser is not known.
        """
        draws, frozen = self._draw(n_draws, seed)
        energies = energies_at(potential, np.hstack([draws, frozen])) / self.temperature
        log_z = known_normaliser(potential, self.temperature, log_normaliser)
        found = mean(self.log_density(draws) + energies)
        return Estimate(float(found + log_z), found.error)

    def fisher_divergence(self, potential: Potential, *, n_draws: int = 2000, seed: int = 0) -> Estimate:
        """Fisher divergence to the Gibbs law of a potential at the temperature of the step, as a mean over draws."""
        validation.instance("potential", potential, Potential, "a Potential")
        draws, frozen = self._draw(n_draws, seed)
        pull = potential.gradient(np.hstack([draws, frozen]))[:, : potential.n_moving]
        return mean(np.sum((self.score(draws) + pull / self.temperature) ** 2, axis=1))

    def _draw(self, n_draws: int, seed: int) -> tuple[Vector, Vector]:
        """Draws, and the frozen coordinates of the components that they are from."""
        n_draws = validation.integer("n_draws", n_draws, 1, _MOST_DRAWS)
        place = noise.Place.of(validation.seed(seed)).beside("step_law")
        levels = (np.arange(n_draws) + place.uniforms(1, 1).item()) / n_draws
        n = len(self.centres)
        shares = np.full(n, 1 / n) if self._weights is None else self._weights
        chosen = np.minimum(np.searchsorted(np.cumsum(shares), levels), n - 1)
        normals = place.normals(n_draws, self.centres.shape[1], "float64")
        return self.centres[chosen] + math.sqrt(self.variance) * normals, self._frozen[chosen]

    def _checked(self, points: ArrayLike) -> Vector:
        checked = validation.array("points", points, np.float64)
        validation.shape("points", checked, ("M", self.centres.shape[1]), "(number, moving coordinates)")
        return validation.squarable("points", checked.astype(np.float64))

    def _log_density_and_score(self, points: Vector) -> tuple[Vector, Vector]:
        return mixture(points, self.centres, self.variance, self._weights)


def mixture(
    points: Vector, centres: Vector, variance: float, weights: Vector | None = None, leave_out: Vector | None = None
) -> tuple[Vector, Vector]:
    """Log density and score, at points, of Gaussians of one variance around centres.

    ``leave_out`` has the number of a centre for each point, which is not in its mixture.
    """
    n, p = centres.shape
    middle = centres.mean(axis=0)
    points, centres = points - middle, centres - middle
    log_weights = np.zeros(n) if weights is None else np.log(np.maximum(weights * n, np.finfo(np.float64).tiny))
    squares = np.sum(centres**2, axis=1)
    logs, scores = np.empty(len(points)), np.empty_like(points)
    with np.errstate(under="ignore"):
        for rows in blocks(len(points), n):
            block = points[rows]
            exponents = (block @ centres.T - (squares + np.sum(block**2, axis=1)[:, np.newaxis]) / 2) / variance
            exponents += log_weights
            if leave_out is not None:
                exponents[np.arange(len(block)), leave_out[rows]] = -np.inf
            top = exponents.max(axis=1)
            exponents -= top[:, np.newaxis]
            np.exp(exponents, out=exponents)
            total = exponents.sum(axis=1)
            logs[rows] = top + np.log(total)
            scores[rows] = (exponents @ centres / total[:, np.newaxis] - block) / variance
    count = n if leave_out is None else n - 1
    return logs - math.log(count) - p / 2 * math.log(2 * math.pi * variance), scores
