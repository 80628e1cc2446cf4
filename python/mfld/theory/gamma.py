"""Information Gamma calculus: how fast a diffusion contracts, also where it is irreversible or degenerate.

For ``dX = -(D + Q) grad H dt + sqrt(2 T D) dB`` with constant D (symmetric, positive semidefinite) and Q (skew), the
invariant law is ``rho = exp(-H / T)``. Along the law p of X the Fisher information in a metric P, constant and positive
definite, ::

    I_P(p) = integral g' P g p,        g = grad log(p / rho)

falls at least like ``exp(-2 kappa t)`` where, with the Hessian ``S(x)`` of H, at all points x ::

    P S(x) (D + Q) + (D - Q) S(x) P  >=  2 kappa P

For ``D = P = I`` and ``Q = 0`` this is the criterion of Bakry and Emery. A degenerate D, as of underdamped dynamics,
needs another metric than D itself: D with further directions, ``D + sum z z'``. Here kappa is the smallest generalised
eigenvalue over a set of points: a check there, and a proof where the Hessian is the same everywhere.
Sources: Arnold, Erb 2014, "Sharp entropy decay for hypocoercive and non-symmetric Fokker-Planck equations with linear
drift"; Feng, Li 2021, "Hypoelliptic entropy dissipation for stochastic differential equations"; Villani 2009,
"Hypocoercivity".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import validation
from mfld.dynamics import Dynamics
from mfld.objectives import Objective
from mfld.objectives.base import Measure
from mfld.state import State

Matrix: TypeAlias = NDArray[Any]

_WIDTH = 1e-5  # of central differences of gradients, relative to the size of a coordinate


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
    metric : ndarray, shape (m, m)
        P, of the moving coordinates, and of the velocities behind them where there are some.
    eigenvalues : ndarray, shape (M,)
        The smallest at each point.
    relaxation : float
        Smallest real part of the eigenvalues of ``(D + Q) S`` at the mean Hessian S: the rate of the linearised
        dynamics, and the best that any metric could give there.

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
    measure: Measure | None = None,
    metric: ArrayLike | None = None,
    directions: ArrayLike | None = None,
) -> Contraction:
    """Rate at which a dynamics contracts by the information Gamma criterion, as the smallest over some points.

    Parameters
    ----------
    dynamics : Dynamics
        With constant matrices: `Overdamped`, `Irreversible`, `Underdamped`, and `General` of constants.
    objective : Objective
        H is its first variation, ridge included, whose Hessians are central differences of its gradient.
    points : array_like, shape (M, n_coordinates)
        Where to look: particles of a run, or a grid.
    measure : Cloud or array_like, optional
        Where the first variation is taken; it may be left out for linear objectives.
    metric : array_like, shape (m, m), optional
        P, positive definite. By default that of the left eigenvectors w of ``S (D + Q)`` at the mean Hessian S, the sum
        of their ``w w*``, which is optimal where the Hessian is S everywhere and has a basis of eigenvectors.
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
    """
    validation.instance("dynamics", dynamics, Dynamics, "a Dynamics, like Underdamped(1.0)")
    validation.instance("objective", objective, Objective, "an Objective")
    at = validation.array("points", points, np.float64)
    validation.shape("points", at, ("M", objective.n_coordinates), "(points, coordinates of the objective)")
    d, q = dynamics.matrices(objective.n_moving)
    hessians = _with_velocities(_hessians(objective, at, measure), len(d))
    both = d + q
    mean = hessians.mean(axis=0)
    if metric is not None and directions is not None:
        raise ValueError("directions must be left out where metric is given")
    if metric is not None:
        p = validation.array("metric", metric, np.float64)
    elif directions is not None:
        z = validation.array("directions", directions, np.float64)
        validation.shape("directions", z, ("k", len(d)), "(directions, coordinates and velocities)")
        p = d + z.T @ z
    else:
        p = _best_metric(mean @ both)
    validation.shape("metric", p, d.shape, "(coordinates and velocities, twice)")
    roots = _root(p)
    products = p @ hessians @ both
    symmetric = (products + np.swapaxes(products, 1, 2)) / 2
    eigenvalues = np.linalg.eigvalsh(roots @ symmetric @ roots)[:, 0]
    worst = int(np.argmin(eigenvalues))
    relaxation = float(np.linalg.eigvals(both @ mean).real.min())
    return Contraction(float(eigenvalues[worst]), worst, p, eigenvalues, relaxation)


def fisher(
    objective: Objective, state: State, temperature: float, metric: ArrayLike, *, measure: Measure | None = None
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
    metric : array_like, shape (m, m)
        As in `Contraction`.
    measure : Cloud or array_like, optional
        Where the first variation is taken: by default at the cloud.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or shape.

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
    p = validation.array("metric", metric, np.float64)
    validation.shape("metric", p, ("m", p.shape[-1] if p.ndim else "m"), "of coordinates and velocities")
    m = objective.n_moving
    x = state.particles.astype(np.float64)
    slopes = _first_variation(objective, x if measure is None else measure).gradient(x)[:, :m]
    x = x[:, :m]
    if len(p) == 2 * m:
        if "velocities" not in state.buffers:
            raise ValueError("state must have velocities for a metric of coordinates and velocities: make a step first")
        v = state.buffers["velocities"][0][:, :m].astype(np.float64)
        x, slopes = np.concatenate([x, v], axis=1), np.concatenate([slopes, v], axis=1)
    validation.shape("metric", p, (x.shape[1], x.shape[1]), "to match the moving coordinates")
    offsets = x - x.mean(axis=0)
    covariance = offsets.T @ offsets / len(x)
    g = slopes / temperature - np.linalg.solve(covariance, offsets.T).T
    return float(np.mean(np.einsum("ni,ij,nj->n", g, p, g)))


def _first_variation(objective: Objective, measure: Measure) -> Objective:
    return objective if objective.linear else objective.first_variation(measure)


def _hessians(objective: Objective, points: Matrix, measure: Measure | None) -> Matrix:
    """Hessians of the first variation in the moving coordinates, ridge included, shape (M, m, m)."""
    if measure is None and not objective.linear:
        raise ValueError("measure must be given for an objective that is not linear")
    potential = _first_variation(objective, points if measure is None else measure)
    m = objective.n_moving
    hessians = np.empty((len(points), m, m))
    for j in range(m):
        width = _WIDTH * np.maximum(1.0, np.abs(points[:, j]))
        above, below = points.copy(), points.copy()
        above[:, j] += width
        below[:, j] -= width
        change = potential.gradient(above)[:, :m] - potential.gradient(below)[:, :m]
        hessians[:, :, j] = change / (above[:, j] - below[:, j])[:, np.newaxis]
    return (hessians + np.swapaxes(hessians, 1, 2)) / 2


def _with_velocities(hessians: Matrix, size: int) -> Matrix:
    """Hessians of the potential plus ``|v|**2 / 2``, where the matrices of the dynamics have room for velocities."""
    n, m, _ = hessians.shape
    if size == m:
        return hessians
    full = np.tile(np.eye(size), (n, 1, 1))
    full[:, :m, :m] = hessians
    return full


def _best_metric(matrix: Matrix) -> Matrix:
    """Sum of ``w w*`` over the left eigenvectors w of a matrix, of length 1."""
    _, vectors = np.linalg.eig(matrix.T)  # w' matrix = z w'
    best: Matrix = (vectors.conj() @ vectors.T).real
    return best


def _root(metric: Matrix) -> Matrix:
    """Symmetric inverse square root of a metric."""
    if not np.allclose(metric, metric.T, rtol=1e-9, atol=1e-9 * np.abs(metric).max()):
        raise ValueError(f"metric must be symmetric, got {metric.tolist()}")
    values, vectors = np.linalg.eigh((metric + metric.T) / 2)
    if values[0] <= 1e-12 * values[-1]:
        raise ValueError(
            f"metric must be positive definite, got the eigenvalue {values[0]:.3g}: a degenerate diffusion needs "
            "further directions, and a defective drift, as at critical damping, a metric of its own"
        )
    inverse: Matrix = vectors / np.sqrt(values) @ vectors.T
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
