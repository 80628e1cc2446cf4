"""Stein identities: what holds of every cloud at equilibrium, and costs one gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mfld import validation
from mfld.diagnostics.estimate import Vector, one_cloud
from mfld.objectives import Objective
from mfld.state import Cloud


@dataclass(frozen=True, eq=False)
class SteinIdentities:
    """Identities of equilibrium in each moving coordinate j, with z-scores of what a cloud has in their place.

    Attributes
    ----------
    gradient : ndarray, shape (n_moving,)
        Means of b_j, which are 0 at equilibrium.
    virial : ndarray, shape (n_moving,)
        Means of ``theta_j b_j``, which are the temperature.
    gradient_z, virial_z : ndarray, shape (n_moving,)
        Deviations from these numbers in standard errors.
    worst : float
        Largest z in size. Of 2 p independent ones it exceeds 4 with a probability of 1e-4 p.
    """

    gradient: Vector
    virial: Vector
    gradient_z: Vector
    virial_z: Vector

    @property
    def worst(self) -> float:
        return float(np.abs(np.concatenate([self.gradient_z, self.virial_z])).max())


def stein_identities(objective: Objective, measure: Cloud | ArrayLike, temperature: float) -> SteinIdentities:
    """Tests of equilibrium: ``E b_j = 0`` and ``E theta_j b_j = temperature``, b the gradient of the first variation.

    Both are integrations by parts against the Gibbs law, exact for any number of interacting particles in continuous
    time; a step of size h adds a bias of O(h). Standard errors take particles as independent. They are not where the
    objective interacts, for which a measure with several clouds (independent replicates) is the sound one.

    Parameters
    ----------
    objective : Objective
        On Euclidean space, without members.
    measure : Cloud or array_like, shape (N, p) or (R, N, p)
        A cloud, whose errors are over its particles; or replicates, whose errors are over their means.
    temperature : float

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import mfld
    >>> from mfld import diagnostics, noise
    >>> normals = noise.normals(seed=1, step=0, n_particles=5000, n_coordinates=3, stream="data")
    >>> well = mfld.potentials.Gaussian([0.0, 0.0, 0.0])
    >>> diagnostics.stein_identities(well, normals, temperature=1.0).worst < 4
    True
    >>> diagnostics.stein_identities(well, normals, temperature=1.2).worst > 5
    True
    """
    validation.instance("objective", objective, Objective, "an Objective")
    temperature = validation.real("temperature", temperature, non_negative=True)
    if not objective.space.flat or objective.members:
        raise ValueError(f"objective must live on Euclidean space and have no members, got {objective!r}")
    m = objective.n_moving
    replicates = _replicates(measure)
    if replicates is None:
        points, weights = one_cloud("measure", measure)
        gradients, virials = _products(objective, measure if isinstance(measure, Cloud) else Cloud(points), m)
    else:
        weights = None
        means = [[_mean(values, each.weights) for values in _products(objective, each, m)] for each in replicates]
        gradients, virials = np.stack([pair[0] for pair in means]), np.stack([pair[1] for pair in means])
    gradient, gradient_z = _scores(gradients, weights, 0.0)
    virial, virial_z = _scores(virials, weights, temperature)
    return SteinIdentities(gradient, virial, gradient_z, virial_z)


def _replicates(measure: Cloud | ArrayLike) -> list[Cloud] | None:
    """The clouds of several replicates; None of a single cloud."""
    particles = measure.particles if isinstance(measure, Cloud) else validation.array("measure", measure)
    if particles.ndim != 3:
        return None
    weights = measure.weights if isinstance(measure, Cloud) else None
    if len(particles) < 2:
        raise ValueError(f"measure must have several replicates where it has that axis, got shape {particles.shape}")
    return [Cloud(each, None if weights is None else weights[r]) for r, each in enumerate(particles)]


def _products(objective: Objective, cloud: Cloud, m: int) -> tuple[Vector, Vector]:
    gradient = objective.gradient(cloud)[:, :m].astype(np.float64)
    return gradient, gradient * cloud.particles[:, :m]


def _mean(values: Vector, weights: ArrayLike | None) -> Vector:
    return np.asarray(np.average(values, axis=0, weights=None if weights is None else np.asarray(weights, np.float64)))


def _scores(values: Vector, weights: Vector | None, expected: float) -> tuple[Vector, Vector]:
    """Means of rows, and their distances from what is expected in standard errors."""
    if len(values) < 2:
        raise ValueError("measure must have at least 2 particles for an error, got 1")
    centre = _mean(values, weights)
    if weights is None:
        error = values.std(axis=0, ddof=1) / math.sqrt(len(values))
    else:
        error = np.sqrt(weights**2 @ (values - centre) ** 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(error > 0, (centre - expected) / error, np.where(centre == expected, 0.0, np.inf))
    return centre, np.asarray(z)
