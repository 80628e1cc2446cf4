"""Irreversible overdamped Langevin dynamics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import validation
from mfld.dynamics.base import Dynamics, Move, Step
from mfld.gradients import Drift, GradientEstimator
from mfld.objectives.base import Objective
from mfld.state import Buffers
from mfld.validation import FloatArray


@dataclass(frozen=True, eq=False)
class Irreversible(Dynamics):
    """Overdamped dynamics with a constant rotation J of the gradient, by the Euler-Maruyama scheme.

    ::

        theta <- theta - step_size * (I + J) b + sqrt(2 * temperature * step_size) * xi,   J' = -J,   xi ~ N(0, I)

    with b the gradient, ridge included. In continuous time the invariant law is that of J = 0, and it is approached
    never slower, often faster. Weak order 1. On a quadratic potential of Hessian H, with A = (I + J) H, the stationary
    covariance C of the scheme solves ``C = (I - step_size A) C (I - step_size A)' + 2 step_size temperature I``; a J
    that is large asks for small steps (`largest_step_size`). Noise: stream ``move``, one normal for each moving
    coordinate. Source: Hwang, Hwang-Ma, Sheu 1993, "Accelerating Gaussian diffusions"; Ma, Chen, Fox 2015, "A complete
    recipe for stochastic gradient MCMC".

    Parameters
    ----------
    skew : array_like, shape (n_moving, n_moving)
        J, for the moving coordinates.

    Raises
    ------
    TypeError, ValueError
        If it is no finite skew matrix; against the objective its size is checked when a run starts.

    Examples
    --------
    >>> import mfld
    >>> dynamics = mfld.Irreversible([[0, 2], [-2, 0]])
    >>> hessian = [[1, 0], [0, 4]]
    >>> round(dynamics.relaxation_rate(hessian), 3)      # 1 without rotation
    2.5
    >>> round(dynamics.largest_step_size(hessian), 3)    # 0.5 without rotation
    0.25
    >>> well = mfld.Potential(lambda x: x * [1, 4], n_coordinates=2)
    >>> solver = mfld.MFLD(n_particles=10, step_size=0.1, temperature=0.0, dynamics=dynamics)
    >>> bool((abs(solver.run(well, n_steps=100).particles) < 1e-6).all())
    True
    """

    skew: ArrayLike

    on_members: ClassVar[bool] = True

    def __post_init__(self) -> None:
        skew = _square("skew", self.skew)
        if not np.array_equal(skew, -skew.T):
            raise ValueError(f"skew must be minus its transpose, got {skew.tolist()}")
        object.__setattr__(self, "skew", validation.frozen(skew))

    def check(self, objective: Objective, gradient: GradientEstimator) -> None:
        m = objective.n_moving
        validation.shape("skew", self._skew, (m, m), "to match the moving coordinates of the objective")

    def matrices(self, n_moving: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        validation.shape("skew", self._skew, (n_moving, n_moving), "to match the moving coordinates of the objective")
        return np.eye(n_moving), self._skew

    def move(self, particles: FloatArray, buffers: Buffers, drift: Drift, step: Step) -> Move:
        gradient, buffers = drift(particles, buffers, step.place)
        with np.errstate(over="ignore", invalid="ignore"):
            theta, b = step.moving(particles, gradient)
            # Not a matrix product of BLAS, whose bits depend on threads and on the number of rows.
            b = b + np.einsum("ij,...j->...i", self._skew.astype(b.dtype), b)
            change = -step.step_size * b
            if step.temperature > 0:
                change += float(np.sqrt(2 * step.temperature * step.step_size)) * step.normals(particles)
            theta = theta + change
        moved, bad_particle = step.moved(particles, theta)
        return Move(moved, buffers, gradient, bad_particle)

    def largest_step_size(self, hessian: ArrayLike) -> float:
        """Step size below which the scheme is stable on a quadratic potential: ``min 2 Re(z) / |z|**2``.

        Over the eigenvalues z of ``(I + J) hessian``, ridge included. It is 0 where one of them has no positive real
        part.

        Parameters
        ----------
        hessian : array_like, shape (n_moving, n_moving)

        Raises
        ------
        TypeError, ValueError
            If it is no finite matrix of this shape.
        """
        eigenvalues = self._eigenvalues(hessian)
        if (eigenvalues.real <= 0).any():
            return 0.0
        return float(np.min(2 * eigenvalues.real / np.abs(eigenvalues) ** 2))

    def relaxation_rate(self, hessian: ArrayLike) -> float:
        """Rate at which the mean relaxes on a quadratic potential in continuous time: ``min Re(z)``.

        Over the eigenvalues z of ``(I + J) hessian``, ridge included. Arguments and errors as in `largest_step_size`.
        """
        return float(np.min(self._eigenvalues(hessian).real))

    @property
    def _skew(self) -> NDArray[np.float64]:
        assert isinstance(self.skew, np.ndarray)  # by __post_init__
        return self.skew

    def _eigenvalues(self, hessian: ArrayLike) -> NDArray[np.complex128]:
        checked = validation.array("hessian", hessian, np.float64)
        validation.shape("hessian", checked, self._skew.shape, "to match skew")
        return np.linalg.eigvals(checked + self._skew @ checked).astype(np.complex128)


def _square(name: str, value: ArrayLike) -> FloatArray:
    matrix = validation.array(name, value, np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(f"{name} must be a square matrix, got shape {matrix.shape}")
    return matrix
