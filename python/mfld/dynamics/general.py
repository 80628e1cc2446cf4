"""The general Langevin dynamics with a diffusion matrix and a skew matrix that depend on the point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import validation
from mfld.dynamics.base import Dynamics, Move, Step
from mfld.gradients import Drift, GradientEstimator
from mfld.objectives.base import Objective
from mfld.state import Buffers
from mfld.validation import FloatArray

MatrixField: TypeAlias = ArrayLike | Callable[[FloatArray], ArrayLike]
"""A constant matrix, shape (m, m), or a function of points, shape (N, p), with values of shape (N, m, m)."""

_TOLERANCE = 1e-5  # of symmetry and positivity, relative to the largest entry: the user's matrices may be float32
_ROUNDING = 1e-13  # of a pivot that is 0, relative to its diagonal entry


@dataclass(frozen=True, eq=False)
class General(Dynamics):
    """Every diffusion that leaves the Gibbs law invariant, by the Euler-Maruyama scheme.

    With b the gradient, ridge included, D(theta) symmetric and positive semidefinite, and Q(theta) skew::

        dtheta = -(D + Q) b dt + temperature * div(D + Q) dt + sqrt(2 * temperature * D) dB,
        div(A)_i = sum_j dA_ij / dtheta_j

    In continuous time the invariant law is ``exp(-(V + l2 |theta|**2) / temperature)`` for all D and Q for which it is
    reached at all; without the divergence it would be another one. Weak order 1. For constant D and Q, on a quadratic
    potential of Hessian H and with A = (D + Q) H, the stationary covariance C of the scheme solves ``C = (I - step_size
    A) C (I - step_size A)' + 2 step_size temperature D``. The square root of D is its Cholesky factor, in
    float64, as is the divergence. Noise: stream ``move``, one normal for each moving coordinate.
    Source: Ma, Chen, Fox 2015, "A complete recipe for stochastic gradient MCMC".

    Parameters
    ----------
    diffusion : array_like or callable
        D: a constant, shape (m, m) for m moving coordinates, or a function of points, shape (N, p), with values of
        shape (N, m, m). It is called in the precision of the run, and in float64 for differences.
    skew : array_like or callable, optional
        Q, likewise. Default: 0.
    divergence : callable, optional
        ``div(D + Q)`` as a function of points, shape (N, p), with values of shape (N, m). Default: 0 for constants,
        else central differences, which take 2 m calls of the functions at every step and are good to about 1e-10.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or a constant is not as it should be; during a run, if a function returns
        another shape, or a matrix that is not symmetric and positive semidefinite, or not skew.

    Examples
    --------
    Steps that grow with the distance from the origin, on ``V = 2 log(1 + x**2)``:

    >>> import numpy as np
    >>> import mfld
    >>> heavy_tails = mfld.Potential(lambda x: 4 * x / (1 + x**2), n_coordinates=1)
    >>> dynamics = mfld.General(lambda x: 1 + x[:, :, None] ** 2, divergence=lambda x: 2 * x)
    >>> solver = mfld.MFLD(n_particles=10_000, step_size=0.01, temperature=1.0, dynamics=dynamics)
    >>> result = solver.run(heavy_tails, n_steps=500)
    >>> median = np.median(np.abs(result.particles))     # of the density 2 / (pi (1 + x**2)**2): 0.4416
    >>> bool(abs(median - 0.4416) < 0.03)
    True
    """

    diffusion: MatrixField
    skew: MatrixField | None = None
    divergence: Callable[[FloatArray], ArrayLike] | None = None

    def __post_init__(self) -> None:
        for name in ("diffusion", "skew"):
            field = getattr(self, name)
            if not callable(field) and (field is not None or name == "diffusion"):
                matrix = validation.array(name, field, np.float64)
                validation.shape(name, matrix, ("m", matrix.shape[-1] if matrix.ndim else "m"), "where it is constant")
                object.__setattr__(self, name, validation.frozen(matrix))
                _check_symmetry(name, matrix, -1 if name == "skew" else 1)
        if not callable(self.diffusion):
            _root(np.asarray(self.diffusion))
        if self.divergence is not None:
            validation.function("divergence", self.divergence)

    def check(self, objective: Objective, gradient: GradientEstimator) -> None:
        m = objective.n_moving
        for name in ("diffusion", "skew"):
            field = getattr(self, name)
            if isinstance(field, np.ndarray):
                validation.shape(name, field, (m, m), "to match the moving coordinates of the objective")

    def matrices(self, n_moving: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if callable(self.diffusion) or callable(self.skew):
            return super().matrices(n_moving)
        zero = np.zeros((n_moving, n_moving))
        found = np.asarray(self.diffusion), zero if self.skew is None else np.asarray(self.skew)
        for name, matrix in zip(("diffusion", "skew"), found, strict=True):
            validation.shape(name, matrix, zero.shape, "to match the moving coordinates of the objective")
        return found

    def matrices_at(self, points: FloatArray, n_moving: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if not callable(self.diffusion) and not callable(self.skew):
            return self.matrices(n_moving)
        shape = (len(points), n_moving, n_moving)
        found = []
        for name, field in (("diffusion", self.diffusion), ("skew", self.skew)):
            if callable(field):
                raw = np.asarray(field(points.copy()))
                if raw.dtype.kind == "f" and raw.dtype.itemsize < points.dtype.itemsize:
                    raise TypeError(f"the result of {name} must be {points.dtype} for such points, got {raw.dtype}")
                own = _at(name, lambda _, raw=raw: raw, points, n_moving)  # type: ignore[misc]
            else:
                own = np.zeros((n_moving, n_moving)) if field is None else np.asarray(field)
            validation.shape(name, own[-1] if own.ndim == 3 else own, shape[1:], "to match the moving coordinates")
            found.append(np.broadcast_to(own, shape))
        return np.asarray(found[0], np.float64), np.asarray(found[1], np.float64)

    def move(self, particles: FloatArray, buffers: Buffers, drift: Drift, step: Step) -> Move:
        gradient, buffers = drift(particles, buffers, step.place)
        m = step.n_moving
        with np.errstate(over="ignore", invalid="ignore"):
            theta, b = step.moving(particles, gradient)
            diffusion = _at("diffusion", self.diffusion, particles, m)
            both = diffusion if self.skew is None else diffusion + _at("skew", self.skew, particles, m)
            # Not a matrix product of BLAS, whose bits depend on threads and on the number of rows.
            change = -step.step_size * np.einsum("...ij,...j->...i", both.astype(b.dtype), b)
            if step.temperature > 0:
                divergence = self._divergence(particles, m)
                if divergence is not None:
                    change += (step.step_size * step.temperature * divergence).astype(theta.dtype)
                root = float(np.sqrt(2 * step.temperature * step.step_size)) * _root(diffusion)
                change += np.einsum("...ij,...j->...i", root.astype(theta.dtype), step.normals(particles))
            theta = theta + change
        moved, bad_particle = step.moved(particles, theta)
        return Move(moved, buffers, gradient, bad_particle)

    def _divergence(self, particles: FloatArray, m: int) -> FloatArray | None:
        """``div(D + Q)`` at the particles, shape (N, m); None where it is 0."""
        if self.divergence is not None:
            shape = (len(particles), m)
            given = self.divergence(particles.copy())
            return validation.returned("the result of divergence", given, shape, np.float64, "(particles, moving)")
        fields = [(n, f) for n, f in (("diffusion", self.diffusion), ("skew", self.skew)) if callable(f)]
        if not fields:
            return None
        points = particles.astype(np.float64)
        divergence = np.zeros((len(points), m))
        for j in range(m):
            # The cube root balances the truncation, h**2, against the rounding, eps / h.
            width = np.cbrt(np.finfo(np.float64).eps) * np.maximum(1, np.abs(points[:, j]))
            above, below = points.copy(), points.copy()
            above[:, j] += width
            below[:, j] -= width
            exact_width = (above[:, j] - below[:, j])[:, np.newaxis]
            for name, field in fields:
                change = _at(name, field, above, m)[:, :, j] - _at(name, field, below, m)[:, :, j]
                divergence += change / exact_width
        return divergence


def _at(name: str, field: MatrixField, points: FloatArray, m: int) -> FloatArray:
    """The matrices at points, in float64: shape (N, m, m), or (m, m) of a constant."""
    if not callable(field):
        return np.asarray(field)
    shape = (len(points), m, m)
    name = f"the result of {name}"
    result = validation.returned(name, field(points.copy()), shape, np.float64, "(particles, moving, moving)")
    _check_symmetry(name, result, -1 if "skew" in name else 1)
    return result


def _check_symmetry(name: str, matrices: FloatArray, sign: int) -> None:
    size = np.abs(matrices).max(axis=(-2, -1), keepdims=True)
    wrong = np.abs(matrices - sign * np.swapaxes(matrices, -2, -1)) > _TOLERANCE * size
    if wrong.any():
        where = np.argwhere(wrong.any(axis=(-2, -1)))[0]
        expected = "symmetric" if sign == 1 else "skew, minus its transpose"
        raise ValueError(f"{name} must be {expected}, got {matrices[tuple(where)].tolist()}{_place(where)}")


def _root(matrices: FloatArray) -> FloatArray:
    """Roots of positive semidefinite matrices: lower triangles L with ``L L' = D`` (Cholesky).

    Column by column for all matrices at once, in sums and products only: LAPACK's bits depend on threads.
    """
    if not np.isfinite(matrices).all():  # the move finds and reports them
        return np.full_like(matrices, np.nan)
    m = matrices.shape[-1]
    given = matrices.reshape(-1, m, m)
    size = np.abs(given).max(axis=(1, 2))
    roots, missed = np.zeros_like(given), np.zeros(len(given))
    left = np.einsum("nii->ni", given).copy()  # of the diagonals
    for j in range(m):
        column = given[:, j:, j]
        if j > 0:  # NumPy may leave a sum of no terms unset
            column = column - np.einsum("nik,nk->ni", roots[:, j:, :j], roots[:, j, :j])
        pivot = np.where(column[:, 0] > _ROUNDING * given[:, j, j], column[:, 0], 0)
        root = column / np.sqrt(np.where(pivot > 0, pivot, np.inf))[:, np.newaxis]
        # What is semidefinite has no larger entries; after rounding it may.
        bound = np.sqrt(left[:, j:].clip(0))
        bound[:, 0] = np.sqrt(pivot)
        root = np.clip(root, -bound, bound)
        roots[:, j:, j] = root
        left[:, j:] -= root**2
        missed = np.maximum(missed, np.abs(column - root[:, :1] * root).max(axis=1))
    # A negative eigenvalue is missed by products of roots, by at least as much.
    for suspect in np.flatnonzero(missed > _TOLERANCE / (2 * m) * size):
        eigenvalues = np.linalg.eigvalsh(given[suspect])
        if eigenvalues[0] < -_TOLERANCE * abs(eigenvalues[-1]):
            where = np.array([suspect] if matrices.ndim > 2 else [])
            raise ValueError(
                f"diffusion must be positive semidefinite, got the eigenvalue {eigenvalues[0]}{_place(where)}"
            )
    return roots.reshape(matrices.shape)


def _place(where: np.ndarray) -> str:
    return f" at particle {where[0]}" if len(where) else ""
