"""Entropy sandwich: bounds from both sides on the excess of a measure that has a density."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mfld import diagnostics, validation
from mfld.objectives import Objective, Potential
from mfld.objectives.base import Measure


@dataclass(frozen=True)
class Sandwich:
    """Bounds ``lower <= L(mu) - L* <= upper``.

    Attributes
    ----------
    lower : float or None
        ``temperature * KL(mu | mu*)``, where the minimiser mu* is known.
    upper : float
        ``temperature * KL(mu | p_mu)``, with p_mu the Gibbs measure of the first variation at mu.
    error : float
        Standard error of both, by that of the entropy: 0 where it was given.
    """

    lower: float | None
    upper: float
    error: float = 0.0

    def __str__(self) -> str:
        error = f" (+- {self.error:.2g})" if self.error else ""
        return f"{'0' if self.lower is None else f'{self.lower:.4g}'} <= L(mu) - L* <= {self.upper:.4g}{error}"


def sandwich(
    objective: Objective,
    measure: Measure,
    temperature: float,
    *,
    entropy: float | None = None,
    optimum: Potential | None = None,
) -> Sandwich:
    """Bounds from both sides on the excess ``L(mu) - L*`` of a measure, for an objective that is convex in it.

    ``temperature * KL(mu | mu*) <= L(mu) - L* <= temperature * KL(mu | p_mu)``, where ``KL(mu | exp(-V / T) / Z) =
    Ent(mu) + E_mu V / T + log Z``. The measure enters by averages, which particles give, and by its entropy, which they
    do not: it comes from a density that is known, or from `mfld.diagnostics.entropy`, whose error is that of the
    bounds, so that they are estimates then. For the run of a risk in any number of dimensions there is a certificate
    (`mfld.certificate`), which needs no entropy but is of another measure. Sources: Nitanda, Wu, Suzuki 2022, "Convex
    analysis of the mean field Langevin dynamics"; Chizat 2022, "Mean-field Langevin dynamics: exponential convergence
    and annealing".

    Parameters
    ----------
    objective : Objective
        With a first variation, in one or two coordinates that all move.
    measure : Cloud or array_like, shape (N, p)
        For averages: particles, or the nodes and weights of a quadrature.
    temperature : float
        Positive.
    entropy : float, optional
        ``Ent(mu)``, the integral of ``mu log mu``; by default estimated from the particles, which then must weigh the
        same.
    optimum : Potential, optional
        First variation at the minimiser mu*, whose Gibbs measure that is. Of a linear objective it is known.

    Returns
    -------
    Sandwich

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or there are too many coordinates.

    Examples
    --------
    N(1, 1) against the target N(0, 1), from which it is 1/2 apart:

    >>> import numpy as np
    >>> import mfld
    >>> well = mfld.potentials.Gaussian([0.0])
    >>> nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    >>> shifted = mfld.Cloud(nodes[:, np.newaxis] + 1, weights / weights.sum())
    >>> print(mfld.theory.sandwich(well, shifted, temperature=1.0, entropy=-np.log(2 * np.pi * np.e) / 2))
    0.5 <= L(mu) - L* <= 0.5
    """
    validation.instance("objective", objective, Objective, "an Objective")
    temperature = validation.real("temperature", temperature, positive=True)
    if entropy is not None:
        entropy = validation.real("entropy", entropy)
    if optimum is not None:
        validation.instance("optimum", optimum, Potential, "a Potential")
    elif objective.linear:
        optimum = objective.first_variation(measure)
    cloud = objective.cloud(measure)

    found = diagnostics.entropy(cloud) if entropy is None else diagnostics.Estimate(entropy, 0.0)

    def excess(potential: Potential) -> float:
        mean = cloud.mean(potential(cloud.particles.astype(np.float64)))
        return temperature * (float(found) + diagnostics.log_normaliser(potential, temperature)) + mean

    lower, upper = None if optimum is None else excess(optimum), excess(objective.first_variation(cloud))
    if np.isnan([upper if lower is None else lower, upper]).any():
        raise ValueError(
            f"temperature must leave the bounds within float64, got {temperature:g}: potentials at the particles or "
            "logarithms of their normalisers are infinite"
        )
    return Sandwich(lower, upper, temperature * found.error)
