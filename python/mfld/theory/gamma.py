"""Information Gamma calculus: how fast a diffusion contracts, also where it is irreversible or degenerate.

For ``dX = -(D + Q) grad H dt + sqrt(2 T D) dB`` with constant D (symmetric, positive semidefinite) and Q (skew), the
invariant law is ``rho = exp(-H / T)``. Along the law p of X the Fisher information in a metric P, constant and positive
definite, ::

    I_P(p) = integral g' P g p,        g = grad log(p / rho)

falls at least like ``exp(-2 kappa t)`` where, with the Hessian ``S(x)`` of H, at all points x ::

    P S(x) (D + Q) + (D - Q) S(x) P  >=  2 kappa P

For ``D = P = I`` and ``Q = 0`` this is the criterion of Bakry and Emery. A degenerate D, as of underdamped dynamics,
needs another metric than D itself: D with further directions, ``D + sum z z'``. Here kappa is the smallest generalised
eigenvalue over a set of points: a check there, and a proof where the Hessian is the same everywhere. Matrices that
depend on the point add terms of their derivatives: see `mfld.theory.fields`.
Sources: Arnold, Erb 2014, "Sharp entropy decay for hypocoercive and non-symmetric Fokker-Planck equations with linear
drift"; Feng, Li 2021, "Hypoelliptic entropy dissipation for stochastic differential equations"; Villani 2009,
"Hypocoercivity".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import validation
from mfld.dynamics import Dynamics
from mfld.objectives import Objective
from mfld.objectives.base import Measure
from mfld.state import State
from mfld.theory import fields

Matrix: TypeAlias = NDArray[Any]

_WIDTH = 1e-5  # of central differences of gradients; it grows with the rounding eps |x| / h, against h**2


@dataclass(frozen=True, eq=False)
class Contraction:
    """Outcome of the check of a metric at some points.

    Attributes
    ----------
    rate : float
        kappa, the smallest generalised eigenvalue: where it is positive at all points of space, the Fisher information
        in the metric falls like ``exp(-2 rate t)``.
    worst : int
        Row of the point where it is smallest.
    metric : ndarray, shape (m, m) or (M, m, m)
        P, of the moving coordinates, and of the velocities behind them where there are some; at each point where it
        depends on it.
    eigenvalues : ndarray, shape (M,)
        The smallest at each point.
    relaxation : float
        Smallest real part of the eigenvalues of ``(D + Q) S`` at the mean Hessian S and the mean of the matrices: the
        rate of the linearised dynamics, and for constant matrices the best that any metric could give there.

    Examples
    --------
    >>> import mfld
    >>> well = mfld.potentials.Gaussian([0.0, 0.0], [[1.0, 0.0], [0.0, 0.25]])
    >>> rotated = mfld.theory.contraction(mfld.Irreversible([[0, 2], [-2, 0]]), well, [[0.0, 0.0]])
    >>> round(rotated.rate, 3), round(mfld.theory.contraction(mfld.Overdamped(), well, [[0.0, 0.0]]).rate, 3)
    (2.5, 1.0)
    """

    rate: float
    worst: int
    metric: Matrix
    eigenvalues: Matrix
    relaxation: float

    def __str__(self) -> str:
        verdict = f"Fisher information falls like exp(-{2 * self.rate:.4g} t)" if self.rate > 0 else "no contraction"
        return f"{verdict} in this metric, by {len(self.eigenvalues)} points; linearised rate {self.relaxation:.4g}"


def contraction(
    dynamics: Dynamics,
    objective: Objective,
    points: ArrayLike,
    *,
    temperature: float | None = None,
    measure: Measure | None = None,
    metric: ArrayLike | Callable[[Matrix], ArrayLike] | None = None,
    directions: ArrayLike | None = None,
) -> Contraction:
    """Rate at which a dynamics contracts by the information Gamma criterion, as the smallest over some points.

    Parameters
    ----------
    dynamics : Dynamics
        `Overdamped`, `Irreversible`, `Underdamped` or `General`.
    objective : Objective
        H is its first variation, ridge included, whose Hessians are central differences of its gradient.
    points : array_like, shape (M, n_coordinates)
        Where to look: particles of a run, or a grid.
    temperature : float, optional
        Positive; needed where the matrices or the metric depend on the point, else the rate does not depend on it.
    measure : Cloud or array_like, optional
        Where the first variation is taken; it may be left out for linear objectives.
    metric : array_like, shape (m, m), or callable, optional
        P, positive definite, or a function of points, shape (M, p), with values of shape (M, m, m). By default that of
        the left eigenvectors w of ``S (D + Q)`` at the mean Hessian S, the sum of their ``w w*``, which is optimal
        where the Hessian is S everywhere and has a basis of eigenvectors. Where the matrices depend on the point, the
        better of D, which is the metric of Bakry and Emery, and that of their means.
    directions : array_like, shape (k, m), optional
        Instead of a metric: ``P = D + sum z z'`` of these z.

    Returns
    -------
    Contraction

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or shape, or the metric is not positive definite.

    Examples
    --------
    A harmonic oscillator: the friction that damps it best is twice its frequency, but for a defective eigenvalue there.

    >>> import mfld
    >>> well = mfld.potentials.Gaussian([0.0])
    >>> for friction in (0.5, 1.9, 5.0):
    ...     print(round(mfld.theory.contraction(mfld.Underdamped(friction), well, [[0.0]]).rate, 3))
    0.25
    0.95
    0.209

    Steps that grow with the distance from the origin contract where tails are too heavy for constant ones:

    >>> import numpy as np
    >>> tails = mfld.Potential(lambda x: 4 * x / (1 + x**2), n_coordinates=1)
    >>> growing = mfld.General(lambda x: 1 + x[:, :, None] ** 2)
    >>> grid = np.linspace(-5, 5, 101)[:, np.newaxis]
    >>> for dynamics in (mfld.Overdamped(), growing):
    ...     print(round(mfld.theory.contraction(dynamics, tails, grid, temperature=1.0).rate, 3))
    -0.5
    0.115
    """
    validation.instance("dynamics", dynamics, Dynamics, "a Dynamics, like Underdamped(1.0)")
    validation.instance("objective", objective, Objective, "an Objective")
    at = validation.array("points", points, np.float64)
    validation.shape("points", at, ("M", objective.n_coordinates), "(points, coordinates of the objective)")
    for block, _ in objective.space.parts():
        if not block.flat and block.limits is None:
            raise ValueError(f"objective must be on Euclidean space, tori and boxes here, got {block}")
    if temperature is not None:
        temperature = validation.real("temperature", temperature, positive=True)
    if metric is not None and directions is not None:
        raise ValueError("directions must be left out where metric is given")
    d, q = dynamics.matrices_at(at, objective.n_moving)
    if callable(metric) and d.shape[-1] > objective.n_moving:
        raise ValueError("metric must be a constant for dynamics with velocities")
    slopes, hessians = _derivatives(objective, at, measure, d.shape[-1])
    if d.ndim == 2 and not callable(metric):
        p, eigenvalues = _constant(d, q, hessians, metric, directions)
    elif temperature is None:
        raise ValueError("temperature must be given where the matrices or the metric depend on the point")
    else:
        p, eigenvalues = _varying(dynamics, at, (d, q), slopes, hessians, temperature, metric, directions)
    worst = int(np.argmin(eigenvalues))
    both = _mean(d + q)
    relaxation = float(np.linalg.eigvals(both @ hessians.mean(axis=0)).real.min())
    return Contraction(float(eigenvalues[worst]), worst, p, eigenvalues, relaxation)


def _constant(
    d: Matrix, q: Matrix, hessians: Matrix, metric: ArrayLike | None, directions: ArrayLike | None
) -> tuple[Matrix, Matrix]:
    """Metric and smallest eigenvalues, of constant matrices in a constant metric."""
    p = _given_metric(d, metric, directions)
    p = _best_metric(hessians.mean(axis=0) @ (d + q)) if p is None else p
    roots = _root(p)
    products = p @ hessians @ (d + q)
    symmetric = (products + np.swapaxes(products, 1, 2)) / 2
    return p, np.linalg.eigvalsh(roots @ symmetric @ roots)[:, 0]


def _varying(
    dynamics: Dynamics,
    points: Matrix,
    matrices: tuple[Matrix, Matrix],
    slopes: Matrix,
    hessians: Matrix,
    temperature: float,
    metric: ArrayLike | Callable[[Matrix], ArrayLike] | None,
    directions: ArrayLike | None,
) -> tuple[Matrix, Matrix]:
    """Metric, at each point where it is no constant, and smallest eigenvalues, where something depends on the point."""
    m = slopes.shape[1]
    _check_diffusion(matrices)

    def both(x: Matrix) -> Matrix:
        shape = (len(x), m, m)
        return np.stack([np.broadcast_to(each, shape) for each in dynamics.matrices_at(x, m)], axis=1)

    if callable(metric):
        of_points = _metric_field(metric, m)
        tried: list[tuple[Matrix, fields.Field | Matrix | None]] = [(of_points(points), of_points)]
    elif directions is not None:
        added = _given_metric(np.zeros((m, m)), None, directions)
        tried = [(matrices[0] + added, lambda x: both(x)[:, 0] + added)]
    elif metric is not None:
        given = _given_metric(np.eye(m), metric, None)
        assert given is not None
        tried = [(given, given)]
    else:
        mean = _best_metric(hessians.mean(axis=0) @ _mean(matrices[0] + matrices[1]))
        tried = [(matrices[0], None), (mean, mean)]
    fit, failure = [], None
    for value, p in tried:
        try:
            _root(value)
            fit.append((value, p))
        except ValueError as error:
            failure = error
    if not fit:
        assert failure is not None
        raise failure
    found = fields.smallest(both, [p for _, p in fit], slopes, hessians, points, temperature)
    best = int(np.argmax([each.min() for each in found]))
    return fit[best][0], found[best]


def _check_diffusion(matrices: tuple[Matrix, Matrix]) -> None:
    d, q = matrices
    wrong = np.flatnonzero(~np.isfinite(d + q).all(axis=(-2, -1)).reshape(-1))
    if len(wrong):
        raise ValueError(f"dynamics must have finite matrices at the points, they are not at point {wrong[0]}")
    if d.ndim == 3:
        values = np.linalg.eigvalsh(d)
        wrong = np.flatnonzero(values[:, 0] < -1e-5 * np.abs(values).max(axis=1))
        if len(wrong):
            i = wrong[0]
            raise ValueError(f"diffusion must be positive semidefinite, got the eigenvalue {values[i, 0]} at point {i}")


def _mean(matrices: Matrix) -> Matrix:
    mean: Matrix = matrices.mean(axis=0) if matrices.ndim == 3 else matrices
    return mean


def _given_metric(d: Matrix, metric: ArrayLike | None, directions: ArrayLike | None) -> Matrix | None:
    if metric is not None:
        p = validation.array("metric", metric, np.float64)
        validation.shape("metric", p, d.shape, "(coordinates and velocities, twice)")
        return np.asarray(p)
    if directions is None:
        return None
    z = validation.array("directions", directions, np.float64)
    validation.shape("directions", z, ("k", len(d)), "(directions, coordinates and velocities)")
    return np.asarray(d + z.T @ z)


def _metric_field(metric: Callable[[Matrix], ArrayLike], m: int) -> fields.Field:
    if isinstance(metric, type):
        raise TypeError(f"metric must be an array or a function of points, got {validation.show(metric)}")

    def of_points(x: Matrix) -> Matrix:
        name, why = "the result of metric", "(points, coordinates, coordinates)"
        return validation.returned(name, metric(x.copy()), (len(x), m, m), np.float64, why)

    return of_points


def fisher(
    objective: Objective,
    state: State,
    temperature: float,
    metric: ArrayLike | Callable[[Matrix], ArrayLike],
    *,
    measure: Measure | None = None,
) -> float:
    """Fisher information ``I_P`` of a cloud, and of its velocities where there are some, as if it were Gaussian.

    ``mean over particles of g' P g`` with ``g = -C**-1 (x - mean) + grad H(x) / temperature``, where mean and C are
    those of the cloud: exact for Gaussian laws, up to the error of N draws, and of the order ``tr(P C**-1) / N`` at
    equilibrium. A function of the state to record, whose decay `fit_rate` measures.

    Parameters
    ----------
    objective : Objective
    state : State
        Of one replicate.
    temperature : float
        Positive.
    metric : array_like, shape (m, m), or callable
        As in `contraction`.
    measure : Cloud or array_like, optional
        Where the first variation is taken: by default at the cloud.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or shape, the metric is not positive definite, or the value is beyond
        float64.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> well = mfld.potentials.Gaussian([0.0])
    >>> solver = mfld.MFLD(10_000, step_size=0.1, temperature=1.0)
    >>> state = solver.init(well, particles=np.full((10_000, 1), 3.0) + solver.init(well).particles)
    >>> round(mfld.theory.fisher(well, state, 1.0, [[1.0]]))            # N(3, 1) against N(0, 1): 9
    9
    """
    validation.instance("objective", objective, Objective, "an Objective")
    validation.instance("state", state, State, "a State")
    temperature = validation.real("temperature", temperature, positive=True)
    m = objective.n_moving
    x = state.particles.astype(np.float64)
    if callable(metric):
        p = _metric_field(metric, m)(x)
    else:
        p = np.asarray(validation.array("metric", metric, np.float64))
        validation.shape("metric", p, ("m", p.shape[-1] if p.ndim else "m"), "of coordinates and velocities")
    slopes = _first_variation(objective, x if measure is None else measure).gradient(x)[:, :m]
    x = x[:, :m]
    if p.shape[-1] == 2 * m:
        if "velocities" not in state.buffers:
            raise ValueError("state must have velocities for a metric of coordinates and velocities: make a step first")
        v = state.buffers["velocities"][0][:, :m].astype(np.float64)
        x, slopes = np.concatenate([x, v], axis=1), np.concatenate([slopes, v], axis=1)
    validation.shape("metric", p[-1] if p.ndim == 3 else p, (x.shape[1], x.shape[1]), "to match the moving coordinates")
    _root(p)  # refuses what is no metric
    offsets = x - x.mean(axis=0)
    covariance = offsets.T @ offsets / len(x)
    with np.errstate(over="ignore", invalid="ignore"):
        g = slopes / temperature - np.linalg.solve(covariance, offsets.T).T
        each = np.einsum("ni,...ij,nj->n", g, p, g) if p.ndim == 2 else np.einsum("ni,nij,nj->n", g, p, g)
    found = float(np.mean(each))
    if not math.isfinite(found):
        raise ValueError(
            f"temperature must not be so small that squares of slopes over it overflow, got {temperature:g} with "
            f"slopes up to {np.abs(slopes).max():.3g}"
        )
    return found


def _first_variation(objective: Objective, measure: Measure) -> Objective:
    return objective if objective.linear else objective.first_variation(measure)


def _derivatives(objective: Objective, points: Matrix, measure: Measure | None, size: int) -> tuple[Matrix, Matrix]:
    """Gradients and Hessians of the first variation, ridge included, shapes (M, size) and (M, size, size).

    Beyond the moving coordinates they are those of ``|v|**2 / 2`` at v = 0, where the dynamics have velocities.
    """
    if measure is None and not objective.linear:
        raise ValueError("measure must be given for an objective that is not linear")
    potential = _first_variation(objective, points if measure is None else measure)
    m = objective.n_moving
    slopes = np.zeros((len(points), size))
    slopes[:, :m] = potential.gradient(points)[:, :m]
    hessians = np.tile(np.eye(size), (len(points), 1, 1))
    for j in range(m):
        width = _WIDTH * np.cbrt(np.maximum(1.0, np.abs(points[:, j])))
        above, below = points.copy(), points.copy()
        above[:, j] += width
        below[:, j] -= width
        change = potential.gradient(above)[:, :m] - potential.gradient(below)[:, :m]
        hessians[:, :m, j] = change / (above[:, j] - below[:, j])[:, np.newaxis]
    wrong = np.flatnonzero(~(np.isfinite(slopes).all(axis=1) & np.isfinite(hessians).all(axis=(1, 2))))
    if len(wrong):
        raise ValueError(f"points must lie where the gradient of objective is finite, it is not near point {wrong[0]}")
    return slopes, (hessians + np.swapaxes(hessians, 1, 2)) / 2


def _best_metric(matrix: Matrix) -> Matrix:
    """Sum of ``w w*`` over the left eigenvectors w of a matrix, of length 1."""
    _, vectors = np.linalg.eig(matrix.T)  # w' matrix = z w'
    best: Matrix = (vectors.conj() @ vectors.T).real
    return best


def _root(metric: Matrix) -> Matrix:
    """Symmetric inverse square root of a metric, or of one at each point."""
    size = np.abs(metric).max(axis=(-2, -1), keepdims=True)
    transposed = np.swapaxes(metric, -2, -1)
    if not (np.abs(metric - transposed) <= 1e-9 * size).all():  # not finite, too
        raise ValueError(f"metric must be finite and symmetric, got {validation.show(metric)}")
    values, vectors = np.linalg.eigh((metric + transposed) / 2)
    lowest = values[..., 0].reshape(-1)
    bad = np.flatnonzero(lowest <= 1e-12 * values[..., -1].reshape(-1))
    if len(bad):
        place = f" at point {bad[0]}" if metric.ndim == 3 else ""
        raise ValueError(
            f"metric must be positive definite, got the eigenvalue {lowest[bad[0]]:.3g}{place}: a degenerate diffusion "
            "needs further directions, and a defective drift, as at critical damping, a metric of its own"
        )
    inverse: Matrix = (vectors / np.sqrt(values)[..., np.newaxis, :]) @ np.swapaxes(vectors, -2, -1)
    return inverse


def gaussian_fisher(
    mean: ArrayLike, covariance: ArrayLike, hessian: ArrayLike, temperature: float, metric: ArrayLike
) -> float:
    """Fisher information ``I_P`` of N(mean, C) with respect to ``N(0, temperature * hessian**-1)``, in closed form.

    ``tr(P A C A) + (S mean / T)' P (S mean / T)`` with ``A = S / T - C**-1`` and S the Hessian.

    Examples
    --------
    >>> from mfld.theory.gamma import gaussian_fisher
    >>> gaussian_fisher([3.0], [[1.0]], [[1.0]], 1.0, [[1.0]])
    9.0
    """
    m, c, s, p = (np.asarray(one, np.float64) for one in (mean, covariance, hessian, metric))
    a, slope = s / temperature - np.linalg.inv(c), s @ m / temperature
    value = float(np.trace(p @ a @ c @ a) + slope @ p @ slope)
    return value if math.isfinite(value) else math.inf
