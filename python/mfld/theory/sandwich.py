"""Entropy sandwich: bounds from both sides on the excess of a measure that has a density."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mfld import validation
from mfld.objectives import Objective, Potential
from mfld.objectives.base import Measure

_TAIL = 60.0  # energies, in temperatures, that are left out of an integral
_POINTS = {1: 20_001, 2: 1001}  # of a grid, along each axis
_RESOLVED = 10  # points within the bulk of a density, along each axis
_MOST_DOUBLINGS = 60


@dataclass(frozen=True)
class Sandwich:
    """Bounds ``lower <= L(mu) - L* <= upper``.

    Attributes
    ----------
    lower : float or None
        ``temperature * KL(mu | mu*)``, where the minimiser mu* is known.
    upper : float
        ``temperature * KL(mu | p_mu)``, with p_mu the Gibbs measure of the first variation at mu.
    """

    lower: float | None
    upper: float

    def __str__(self) -> str:
        return f"{'0' if self.lower is None else f'{self.lower:.4g}'} <= L(mu) - L* <= {self.upper:.4g}"


def sandwich(
    objective: Objective,
    measure: Measure,
    temperature: float,
    entropy: float,
    *,
    optimum: Potential | None = None,
) -> Sandwich:
    """Bounds from both sides on the excess ``L(mu) - L*`` of a measure, for an objective that is convex in it.

    ``temperature * KL(mu | mu*) <= L(mu) - L* <= temperature * KL(mu | p_mu)``, where ``KL(mu | exp(-V / T) / Z) =
    Ent(mu) + E_mu V / T + log Z``. The measure enters by averages, which particles give, and by its entropy, which they
    do not: it comes from a density that is known, or from an estimate, whose error is that of the bounds. Source:
    Nitanda, Wu, Suzuki 2022, "Convex analysis of the mean field Langevin dynamics"; Chizat 2022, "Mean-field Langevin
    dynamics: exponential convergence and annealing".

    Parameters
    ----------
    objective : Objective
        With a first variation, in one or two coordinates that all move.
    measure : Cloud or array_like, shape (N, p)
        For averages: particles, or the nodes and weights of a quadrature.
    temperature : float
        Positive.
    entropy : float
        ``Ent(mu)``, the integral of ``mu log mu``.
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
    entropy = validation.real("entropy", entropy)
    if optimum is not None:
        validation.instance("optimum", optimum, Potential, "a Potential")
    elif objective.linear:
        optimum = objective.first_variation(measure)
    cloud = objective.cloud(measure)

    def excess(potential: Potential) -> float:
        mean = cloud.mean(potential(cloud.particles.astype(np.float64)))
        return temperature * (entropy + log_normaliser(potential, temperature)) + mean

    return Sandwich(None if optimum is None else excess(optimum), excess(objective.first_variation(cloud)))


def log_normaliser(potential: Potential, temperature: float) -> float:
    """Logarithm of the integral of ``exp(-(V + l2 |theta|**2) / temperature)`` in one or two coordinates.

    By the trapezoidal rule on a grid that grows until 60 temperatures above its lowest value are left out.

    Parameters
    ----------
    potential : Potential
        With a value, on Euclidean space.
    temperature : float
        Positive.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, there are more coordinates, or the integral is not finite.

    Examples
    --------
    >>> import mfld
    >>> round(mfld.theory.log_normaliser(mfld.potentials.Gaussian([1.0]), 1.0), 6)     # log sqrt(2 pi)
    0.918939
    """
    validation.instance("potential", potential, Potential, "a Potential")
    temperature = validation.real("temperature", temperature, positive=True)
    p = potential.n_coordinates
    if p not in _POINTS or potential.n_moving != p or not potential.space.flat:
        raise ValueError(f"potential must have one or two coordinates, which all move in Euclidean space, got {p}")
    half = 1.0
    for _ in range(_MOST_DOUBLINGS):
        axes = [np.linspace(-half, half, 201)] * p
        energy = potential(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, p)).reshape([201] * p)
        edges = [energy[0], energy[-1]] + ([energy[:, 0], energy[:, -1]] if p == 2 else [])
        if min(float(np.min(edge)) for edge in edges) > float(energy.min()) + _TAIL * temperature:
            break
        half *= 1.5
    else:
        raise ValueError("potential must grow at infinity, so that its Gibbs measure exists")
    line = np.linspace(-half, half, _POINTS[p])
    energy = potential(np.stack(np.meshgrid(*[line] * p, indexing="ij"), axis=-1).reshape(-1, p)) / temperature
    lowest = float(energy.min())
    density = np.exp(lowest - energy)
    if density.sum() ** 2 < _RESOLVED**p * np.sum(density**2):
        raise ValueError(f"temperature must be higher for a grid of {_POINTS[p]} points an axis, got {temperature:g}")
    return math.log(float(density.sum())) - lowest + p * math.log(line[1] - line[0])
