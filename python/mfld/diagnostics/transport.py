"""Wasserstein distances between clouds."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from mfld import extras, noise, validation
from mfld.diagnostics.estimate import Estimate, Vector, one_cloud
from mfld.state import Cloud

_MOST_DIRECTIONS = 10_000_000
_HIGHEST = 100  # order
_MOST_PAIRS = 4_000_000  # of an exact plan in several dimensions


def wasserstein(first: Cloud | ArrayLike, second: Cloud | ArrayLike, order: float = 2) -> float:
    """Wasserstein distance ``W_q = (inf over couplings of E |x - y|**q)**(1 / q)`` between two clouds, exactly.

    In one dimension by sorting, for any numbers of particles and weights. In several by POT's network simplex, whose
    time grows like the third power of the number of particles: a few thousand of them take seconds.

    Parameters
    ----------
    first, second : Cloud or array_like, shapes (N, p) and (M, p)
        Their numbers may differ, and they may be weighted. A density on a grid is the cloud
        ``Cloud(points, density)``.
    order : float
        q, between 1 and 100.

    Raises
    ------
    ImportError
        In several dimensions, if POT is not installed: ``pip install 'mfld[ot]'``.
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or there are more than 4e6 pairs in several dimensions.

    Examples
    --------
    >>> import mfld
    >>> from mfld import diagnostics
    >>> diagnostics.wasserstein([[0.0], [1.0]], [[2.0], [1.0]])
    1.0
    >>> diagnostics.wasserstein([[0.0]], mfld.Cloud([[3.0], [5.0]], weights=[3, 1]), order=1)
    3.5
    """
    order = _order(order)
    x, a, y, b = _pair(first, second)
    if x.shape[1] == 1:
        return math.pow(_sorted_cost(x, a, y, b, order)[0], 1 / order)
    n_pairs = len(x) * len(y)
    if n_pairs > _MOST_PAIRS:
        raise ValueError(
            f"first and second must have at most {_MOST_PAIRS} pairs in several dimensions, got {n_pairs}: "
            "take parts of them, or sliced_wasserstein"
        )
    transport = extras.library("ot", "ot", "wasserstein in several dimensions")
    squares = np.zeros((len(x), len(y)))
    for own, other in zip(x.T, y.T, strict=True):  # products of matrices would cancel far from the origin
        squares += (own[:, np.newaxis] - other) ** 2
    costs = squares ** (order / 2)
    cost = transport.emd2(_shares(a, len(x)), _shares(b, len(y)), costs, numItermax=10_000_000)
    return math.pow(max(float(cost), 0.0), 1 / order)


def sliced_wasserstein(
    first: Cloud | ArrayLike,
    second: Cloud | ArrayLike,
    order: float = 2,
    n_directions: int = 100,
    seed: int = 0,
) -> Estimate:
    """Sliced Wasserstein distance: the mean over directions u of ``W_q**q`` of the projections ``u . x``, to 1/q.

    Parameters
    ----------
    first, second, order
        As in `wasserstein`.
    n_directions : int
        Independent directions, uniform on the sphere.
    seed : int
        Of the directions: the same ones compare clouds over time.

    Returns
    -------
    Estimate
        With the error that the choice of directions makes.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    References
    ----------
    Bonneel, Rabin, Peyré, Pfister 2015, "Sliced and Radon Wasserstein barycenters of measures".

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import diagnostics
    >>> found = diagnostics.sliced_wasserstein([[0.0, 0.0]], [[3.0, 4.0]], n_directions=1000)
    >>> bool(abs(found - 5 / np.sqrt(2)) < 4 * found.error)
    True
    """
    order = _order(order)
    n_directions = validation.integer("n_directions", n_directions, 1, _MOST_DIRECTIONS)
    x, a, y, b = _pair(first, second)
    normals = noise.Place.of(validation.seed(seed)).beside("directions").normals(n_directions, x.shape[1], "float64")
    directions = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    height = max(1, 1_000_000 // (len(x) + len(y)))
    costs = np.concatenate(
        [
            _sorted_cost(x @ part.T, a, y @ part.T, b, order)
            for part in (directions[k : k + height] for k in range(0, n_directions, height))
        ]
    )
    cost = float(costs.mean())
    spread = float(costs.std(ddof=1)) / math.sqrt(n_directions) if n_directions > 1 else math.nan
    distance = cost ** (1 / order)
    return Estimate(distance, spread * distance / (order * cost) if cost > 0 else 0.0)


def gaussian_wasserstein(first: Cloud | ArrayLike, second: Cloud | ArrayLike) -> float:
    """W_2 between the Gaussian laws of the same means and covariances: a lower bound of W_2, by their moments alone::

        |m - n|**2 + tr(A + B - 2 (A^(1/2) B A^(1/2))^(1/2))

    Parameters
    ----------
    first, second : Cloud or array_like, shapes (N, p) and (M, p)

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind.

    References
    ----------
    Gelbrich 1990, "On a formula for the L2 Wasserstein metric between measures on Euclidean and Hilbert spaces".

    Examples
    --------
    >>> from mfld import diagnostics
    >>> round(diagnostics.gaussian_wasserstein([[-1.0], [1.0]], [[2.0], [8.0]]), 6)     # of N(0, 1) and N(5, 9)
    5.385165
    """
    x, a, y, b = _pair(first, second)
    moments = []
    for points, weights in ((x, a), (y, b)):
        shares = _shares(weights, len(points))
        middle = shares @ points
        offsets = points - middle
        moments.append((middle, (shares[:, np.newaxis] * offsets).T @ offsets))
    (m, cov_x), (n, cov_y) = moments
    values, vectors = np.linalg.eigh(cov_x)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_y @ root), 0)).sum()
    square = float(np.sum((m - n) ** 2) + np.trace(cov_x) + np.trace(cov_y) - 2 * cross)
    return math.sqrt(max(square, 0.0))


def _order(order: float) -> float:
    result = validation.real("order", order, positive=True)
    if not 1 <= result <= _HIGHEST:
        raise ValueError(f"order must be between 1 and {_HIGHEST}, got {result}")
    return result


def _pair(first: Cloud | ArrayLike, second: Cloud | ArrayLike) -> tuple[Vector, Vector | None, Vector, Vector | None]:
    x, a = one_cloud("first", first)
    y, b = one_cloud("second", second)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"second must have {x.shape[1]} coordinates to match first, got {y.shape[1]}")
    return x, a, y, b


def _shares(weights: Vector | None, n: int) -> Vector:
    """Weights that sum to 1 in float64."""
    return np.full(n, 1 / n) if weights is None else weights / weights.sum()


def _sorted_cost(x: Vector, a: Vector | None, y: Vector, b: Vector | None, order: float) -> Vector:
    """``W_q**q`` in one dimension, for each of the columns: by quantiles at all levels where one of them jumps."""
    if a is None and b is None and len(x) == len(y):
        return np.asarray(np.mean(np.abs(np.sort(x, axis=0) - np.sort(y, axis=0)) ** order, axis=0))
    if a is None and b is None:
        x, y = np.sort(x, axis=0), np.sort(y, axis=0)
        # In units of 1 / (N M) levels are integers, so that jumps at the same level are found to be the same.
        steps = np.union1d(len(y) * np.arange(1, len(x) + 1), len(x) * np.arange(1, len(y) + 1))
        lengths = np.diff(steps, prepend=0) / (len(x) * len(y))
        gaps = np.abs(x[(steps - 1) // len(y)] - y[(steps - 1) // len(x)]) ** order
        return np.asarray(lengths @ gaps)
    shares = _shares(a, len(x)), _shares(b, len(y))
    return np.array([_weighted_cost(x[:, k], shares[0], y[:, k], shares[1], order) for k in range(x.shape[1])])


def _weighted_cost(x: Vector, a: Vector, y: Vector, b: Vector, order: float) -> float:
    by_x, by_y = np.argsort(x), np.argsort(y)
    levels_x, levels_y = np.cumsum(a[by_x]), np.cumsum(b[by_y])
    levels = np.sort(np.concatenate([levels_x[:-1], levels_y[:-1], [1.0]]))
    lengths = np.diff(levels, prepend=0.0)
    middles = levels - lengths / 2
    gaps = [
        points[order_of][np.minimum(np.searchsorted(own, middles), len(own) - 1)]
        for points, order_of, own in ((x, by_x, levels_x), (y, by_y, levels_y))
    ]
    return float(np.maximum(lengths, 0) @ np.abs(gaps[0] - gaps[1]) ** order)
