"""Wells of a potential: minima that are looked for from everywhere, and the mass of the Gibbs measure about each.

Particles that come down a ladder of temperatures find what the heat leads to. A well so narrow that nothing leads to
it is found, where there are few coordinates, by looking everywhere; its mass needs no ladder.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mfld.noise import Place
from mfld.objectives import Potential
from mfld.validation import FloatArray

_LEAF = 8  # points, at least, that are looked at for each descent
_MOST_DESCENTS = 512
_DESCENT = 30  # steps
_MOST_WELLS = 64
_MOST_PRODUCTS = 4096  # of Hessians with vectors
_DRAWS = 4096  # of all wells together
_NEGLIGIBLE = 1e-5  # share of the mass
COVERED = 3  # coordinates up to which as many points as there may be are worth it, where they do not cover the ball


@dataclass(frozen=True, eq=False)
class Wells:
    """Regions about minima and their masses: ellipsoids, in their order without what those before have.

    Attributes
    ----------
    centres : ndarray, shape (K, n_moving)
    whitening : ndarray, shape (K, n_moving, n_moving)
        In coordinates ``whitening (theta - centre)`` the Gibbs measure about a minimum is about a standard normal.
    log_mass : ndarray, shape (K,)
        Logarithms of the integral of ``exp(-(V + l2 |theta|**2) / temperature)`` over each region.
    error : ndarray, shape (K,)
        Standard errors of the masses, relative to them.
    points : ndarray, shape (K, D, n_coordinates)
    weights : ndarray, shape (K, D)
        A sample of the measure in each region, by importance, of weights whose sum is 1.
    evaluations : int
        Of the potential at a point.
    """

    centres: FloatArray
    whitening: FloatArray
    log_mass: NDArray[np.float64]
    error: NDArray[np.float64]
    points: FloatArray
    weights: FloatArray
    evaluations: int

    def region(self, points: FloatArray) -> NDArray[np.int64]:
        """The region that each point (M, n_coordinates) is in, -1 where it is in none."""
        return _region(points, self.centres, self.whitening)


def find(
    potential: Potential,
    temperature: float,
    frozen: FloatArray,
    reach: float,
    n: int,
    place: Place,
    most: int = 2**18,
    *,
    evenly: bool = True,
) -> Wells:
    """Wells that may count, within a distance ``reach`` of 0.

    The potential is evaluated at n points or more that cover the ball as evenly as points of a lattice do (a Kronecker
    sequence of the generalised golden ratio, Roberts 2018: within 0.95 times their spacing of each other point). Of
    neighbours, 8 or more, the lowest descends, by steps of Barzilai and Borwein 1988, to a minimum. About each minimum
    the measure is integrated by importance sampling from the Gaussian with the Hessian there (Laplace). No well is
    found for sure: with more than a few coordinates a ball has room for wells that no number of points meets.

    Parameters
    ----------
    potential : Potential
        V, with l2 positive.
    temperature : float
    frozen : ndarray, shape (n_coordinates,)
        A point that has the coordinates that do not move.
    reach : float
    n : int
    place : Place
        Of the noise.
    most : int
        Evaluations, for all of it about twice as many.
    evenly : bool
        Points cover the ball; else they are at all distances from 0, for balls with too many coordinates.
    """
    part = most // 4
    # A power of two, so that neighbours are cut in halves: at least n unless that is too many.
    n = 2 ** min(math.ceil(math.log2(n)), math.floor(math.log2(most)))
    leaf = max(_LEAF, 2 ** math.ceil(math.log2(n / min(_MOST_DESCENTS, max(part // _DESCENT, 1)))))
    scanned = _covering(potential.n_moving, frozen, reach, max(n, leaf), place, evenly)
    lowest, count = _lowest_of_leaves(potential, scanned, leaf)
    bottoms, values = _descended(potential, lowest)
    count += (_DESCENT + 1) * len(lowest)
    order = np.argsort(values, kind="stable")
    few = max(min(_MOST_PRODUCTS, part) // (2 * potential.n_moving), 1)
    bottoms, values = _distinct(bottoms[order], values[order], potential.n_moving, few)
    whitening = _whitening(potential, temperature, bottoms)
    count += 2 * potential.n_moving * len(bottoms)
    by_laplace = -values / temperature - np.linalg.slogdet(whitening)[1]
    order = np.argsort(-by_laplace, kind="stable")[:_MOST_WELLS]
    order = order[by_laplace[order] > by_laplace[order[0]] + math.log(_NEGLIGIBLE)]
    bottoms, values, whitening = bottoms[order], values[order], whitening[order]
    centres = bottoms[:, : potential.n_moving]
    apart = [k for k in range(len(order)) if _region(bottoms[k : k + 1], centres[:k], whitening[:k])[0] < 0]
    bottoms, values, whitening = bottoms[apart], values[apart], whitening[apart]
    return _masses(potential, temperature, bottoms, values, whitening, place, count, min(_DRAWS, part))


def _covering(n_moving: int, frozen: FloatArray, reach: float, n: int, place: Place, evenly: bool) -> FloatArray:
    """Points that cover a ball, or are at all distances from 0."""
    dimension = n_moving if evenly else n_moving + 1  # a projection of the sequence has wider gaps than its own
    ratio = 2.0
    for _ in range(60):
        ratio = (1 + ratio) ** (1 / (dimension + 1))
    shares = ratio ** -np.arange(1.0, dimension + 1) if dimension > 1 else np.array([1 / n])
    unit = (place.uniforms(1, dimension) + np.arange(n)[:, np.newaxis] * shares) % 1
    cube = 2 * unit[:, :n_moving] - 1
    if not evenly:
        cube *= unit[:, n_moving:] * math.sqrt(3 / n_moving)
    points = np.tile(frozen, (n, 1))
    points[:, :n_moving] = reach * cube
    return points


def _lowest_of_leaves(potential: Potential, points: FloatArray, leaf: int) -> tuple[FloatArray, int]:
    """Of neighbours, cut by coordinates in turn, the point where the potential is lowest; and its evaluations."""
    values = potential(points).astype(np.float64)
    leaves = np.arange(len(points))[np.newaxis]
    k = 0
    while leaves.shape[1] > leaf:
        along = points[leaves, k % potential.n_moving]
        leaves = np.take_along_axis(leaves, np.argsort(along, axis=1, kind="stable"), axis=1)
        leaves = leaves.reshape(2 * len(leaves), -1)
        k += 1
    best = leaves[np.arange(len(leaves)), np.argmin(values[leaves], axis=1)]
    return points[best].astype(np.float64), len(points)


def _descended(potential: Potential, points: FloatArray) -> tuple[FloatArray, NDArray[np.float64]]:
    """Ends of descents from points, and the potential there."""

    def at(x: FloatArray) -> tuple[FloatArray, FloatArray]:
        value, gradient = potential.value_and_gradient(x)
        moving = x[:, :q]
        slope = gradient[:, :q] + 2 * potential.l2 * moving
        return value + potential.l2 * np.einsum("ij,ij->i", moving, moving), slope

    q = potential.n_moving
    x = points.copy()
    value, slope = at(x)
    # The first step is a small part of the distance to the next start.
    spread = np.max(np.abs(x[:, :q])) / max(len(x), 2) ** (1 / min(q, COVERED))
    size = 0.1 * spread / np.maximum(np.sqrt(np.einsum("ij,ij->i", slope, slope)), 1e-300)
    for _ in range(_DESCENT):
        tried = x.copy()
        tried[:, :q] -= size[:, np.newaxis] * slope
        new_value, new_slope = at(tried)
        step, change = tried[:, :q] - x[:, :q], new_slope - slope
        curvature = np.einsum("ij,ij->i", step, change)
        length = np.einsum("ij,ij->i", step, step)
        lower = new_value < value
        bent = curvature > 1e-12 * length
        by_curvature = np.divide(length, curvature, out=4 * size, where=bent)
        size = np.where(lower, np.minimum(by_curvature, 16 * size), np.minimum(size / 4, by_curvature))
        x[lower], value, slope = (
            tried[lower],
            np.where(lower, new_value, value),
            np.where(lower[:, None], new_slope, slope),
        )
    return x, value.astype(np.float64)


def _distinct(
    points: FloatArray, values: NDArray[np.float64], q: int, most: int
) -> tuple[FloatArray, NDArray[np.float64]]:
    """At most so many of points in the order of their values, without those in the same place."""
    scale = 1e-4 * max(float(np.max(np.abs(points[:, :q]))), 1e-300)
    _, first = np.unique(np.round(points[:, :q] / scale), axis=0, return_index=True)
    kept = np.sort(first)[:most]
    return points[kept], values[kept]


def _whitening(potential: Potential, temperature: float, points: FloatArray) -> FloatArray:
    """Roots of the Hessians over the temperature, shape (K, q, q); no direction is wider than without V."""
    q = potential.n_moving
    vectors = np.zeros((q, *points.shape))
    vectors[np.arange(q), :, np.arange(q)] = 1
    products = potential.hessian_vector(np.tile(points, (q, 1)), vectors.reshape(-1, points.shape[1]))
    hessians = products.reshape(q, len(points), -1)[:, :, :q].transpose(1, 0, 2)
    values, axes = np.linalg.eigh((hessians + hessians.transpose(0, 2, 1)) / 2)
    roots: FloatArray = np.sqrt(np.maximum(values, potential.l2) / temperature)[:, :, np.newaxis] * axes.transpose(
        0, 2, 1
    )
    return roots


def _region(points: FloatArray, centres: FloatArray, whitening: FloatArray) -> NDArray[np.int64]:
    q = centres.shape[1]
    found = np.full(len(points), -1)
    radius = q + 3 * math.sqrt(2 * q) + 4
    for k in range(len(centres)):
        white = (points[:, :q] - centres[k]) @ whitening[k].T
        found[(found < 0) & (np.einsum("ij,ij->i", white, white) <= radius)] = k
    return found


def _masses(
    potential: Potential,
    temperature: float,
    bottoms: FloatArray,
    values: NDArray[np.float64],
    whitening: FloatArray,
    place: Place,
    count: int,
    draws: int,
) -> Wells:
    q, n = potential.n_moving, len(bottoms)
    each = max(draws // n, 8)
    normals = place.normals(n * each, q, np.float64, "move").reshape(n, each, q)
    points = np.repeat(bottoms[:, np.newaxis], each, axis=1)
    points[..., :q] += np.linalg.solve(whitening[:, np.newaxis], normals[..., np.newaxis])[..., 0]
    flat = points.reshape(n * each, -1)
    inside = _region(flat, bottoms[:, :q], whitening).reshape(n, each) == np.arange(n)[:, np.newaxis]
    energy = potential(flat).astype(np.float64).reshape(n, each) - values[:, np.newaxis]
    exponent = np.where(inside, np.sum(normals**2, axis=2) / 2 - energy / temperature, -math.inf)
    highest = np.maximum(exponent.max(axis=1, keepdims=True), -1e300)
    weights = np.exp(exponent - highest)
    mean = weights.mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        # A region is left by a draw more or less, where none left it too.
        error = np.hypot(weights.std(axis=1) / mean / math.sqrt(each), 1 / each)
        log_mass = np.log(mean) + highest[:, 0] - values / temperature - np.linalg.slogdet(whitening)[1]
        weights = weights / weights.sum(axis=1, keepdims=True)
    log_mass = log_mass + q / 2 * math.log(2 * math.pi)
    has = mean > 0
    return Wells(
        bottoms[has, :q], whitening[has], log_mass[has], error[has], points[has], weights[has], count + n * each
    )
