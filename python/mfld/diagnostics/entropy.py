"""Entropy of a cloud, by the distances of its neighbours."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import extras, validation
from mfld.diagnostics.estimate import Estimate, Vector, mean, unweighted
from mfld.space import Space
from mfld.state import Cloud

# Variance from neighbours in common, against the variance trigamma(k) of a logarithm of a volume with k points in it.
# Measured on uniform points: between 0.5 and 0.8 for k from 2 to 10 and p from 1 to 8.
_SHARED = 0.65


def entropy(measure: Cloud | ArrayLike, k: int = 3, space: Space | None = None) -> Estimate:
    """Entropy ``Ent(mu) = integral mu log mu`` of the law of the particles: minus the differential entropy.

    By the distances rho_i to the k-th neighbours (Kozachenko and Leonenko), V the volume of the unit ball::

        Ent = psi(k) - psi(N) - log V - (p / N) sum_i log rho_i

    Its bias falls with N and grows with p: about 0.05 at p = 5 and 0.1 at p = 10 with thousands of particles. Particles
    that are equal, as after resampling, count once.

    Parameters
    ----------
    measure : Cloud or array_like, shape (N, p)
        Without weights.
    k : int
        Neighbours: more of them have less variance and more bias.
    space : Space, optional
        Distances go around its tori, and frozen coordinates are left out. Default: Euclidean, all coordinates.

    Returns
    -------
    Estimate
        Beyond 5 coordinates the mean is taken over some ``max(500, 40000 / p)`` particles, evenly spaced in the array;
        all are candidates for neighbours.

    Raises
    ------
    ImportError
        If SciPy is not installed: ``pip install 'mfld[diagnostics]'``.
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, the cloud weighted, or fewer than k + 1 particles differ.

    References
    ----------
    Kozachenko, Leonenko 1987, "Sample estimate of the entropy of a random vector".

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import diagnostics, noise
    >>> normals = noise.normals(seed=1, step=0, n_particles=5000, n_coordinates=2, stream="data")
    >>> found = diagnostics.entropy(normals)
    >>> bool(abs(found + np.log(2 * np.pi * np.e)) < 4 * found.error)
    True
    """
    terms, _, shared = log_densities(unweighted("measure", measure), k, space)
    found = mean(terms)
    return Estimate(float(found), math.hypot(found.error, shared))


def log_densities(points: Vector, k: int, space: Space | None) -> tuple[Vector, NDArray[np.int64], float]:
    """Estimates of the logarithm of the density at particles, whose mean is the entropy; and which particles they are.

    The last number is the standard error of their mean that comes from neighbours in common, beside that of independent
    terms.
    """
    k = validation.integer("k", k, 1)
    points, periods = (points, None) if space is None else _in_space(points, space)
    special = extras.library("scipy.special", "diagnostics", "entropy")
    chosen = np.arange(len(points))
    asked, nearest, distances = _neighbour_distances(points, k, periods)
    if not (nearest > 0).all():
        points, chosen = np.unique(points, axis=0, return_index=True)
        asked, _, distances = _neighbour_distances(points, k, periods)
    n, p = points.shape
    log_ball = p / 2 * math.log(math.pi) - math.lgamma(p / 2 + 1)
    terms = special.digamma(k) - special.digamma(n) - log_ball - p * np.log(distances)
    return terms, chosen[asked], math.sqrt(_SHARED * special.polygamma(1, k) / n)


def _in_space(points: Vector, space: Space) -> tuple[Vector, Vector | None]:
    """Moving coordinates, and the period of each (0: none)."""
    validation.instance("space", space, Space, "a Space")
    if points.shape[1] != space.n_coordinates:
        raise ValueError(f"measure must have {space.n_coordinates} coordinates to suit space, got {points.shape[1]}")
    periods = np.zeros(space.n_moving)
    for block, part in space.parts():
        if not block.flat and block.limits is None:
            raise ValueError(f"space must be made of Euclidean space, tori and boxes here, got {block}")
        if block.kind == "torus" and block.limits is not None:
            periods[part] = block.limits[1]
    return np.asarray(space.retract(points[:, : space.n_moving])), periods if periods.any() else None


def _neighbour_distances(points: Vector, k: int, periods: Vector | None) -> tuple[NDArray[np.int64], Vector, Vector]:
    """Distances of particles to their first and k-th neighbours: of all, or where trees are slow some; and which."""
    n, p = points.shape
    if n <= k:
        raise ValueError(f"measure must have more than k={k} particles that differ, got {n}")
    n_asked = n if p <= 5 else min(n, max(500, 40_000 // p))
    asked = np.unique(np.linspace(0, n - 1, n_asked).astype(np.int64))
    tree: Any = extras.library("scipy.spatial", "diagnostics", "entropy").cKDTree(points, boxsize=periods)
    distances, _ = tree.query(points[asked], k=[2, k + 1])
    return asked, distances[:, 0], distances[:, 1]
