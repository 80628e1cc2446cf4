"""Dynamics in general, the numbers of a step, and the move that it comes to."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mfld import _core
from mfld.gradients import Drift, GradientEstimator
from mfld.native import Native
from mfld.noise import Place
from mfld.objectives.base import Objective
from mfld.space import Space
from mfld.state import Buffers
from mfld.validation import FloatArray

Numbers: TypeAlias = float | NDArray[np.float64]
"""A number, or many of them in the shape of replicates and steps."""


@dataclass(frozen=True)
class Step:
    """Numbers of one step: its step size, temperature and ridge, the space, and its place in the noise.

    Particles have shape (..., N, n_coordinates), with leading axes where a measure has several members.
    """

    step_size: float
    temperature: float
    l2: float
    space: Space
    place: Place

    @property
    def n_moving(self) -> int:
        """Leading coordinates that move."""
        return self.space.n_moving

    @property
    def num_threads(self) -> int:
        """Number of threads for the kernels of the step."""
        return self.place.threads

    def normals(self, like: FloatArray, n_columns: int | None = None, stream: str = "move") -> FloatArray:
        """Standard normals of the step in the precision of ``like`` and a row for each of its rows.

        Shape (..., N, n_columns), by default a column for each moving coordinate.
        """
        return self.place.normals_like(like, self.n_moving if n_columns is None else n_columns, stream)

    def moving(self, particles: FloatArray, gradient: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The moving coordinates of the particles, and of the gradient with the ridge: shapes (..., N, n_moving)."""
        theta = particles[..., : self.n_moving]
        return theta, gradient[..., : self.n_moving] + 2 * self.l2 * theta

    def moved(self, particles: FloatArray, theta: FloatArray) -> tuple[FloatArray, int]:
        """Particles with new moving coordinates, on the domain, and the first one that is not finite, or -1."""
        result = particles.copy()
        result[..., : self.n_moving] = self.space.retract(theta)
        return result, first_bad(result)


def checked_coefficients(
    dynamics: Dynamics, step_size: Numbers, temperature: Numbers, l2: Numbers
) -> tuple[float | NDArray[np.float64], ...]:
    """Coefficients of steps as the core takes them; refuses what it could not move by."""
    found = dynamics.coefficients(step_size, temperature, l2)
    if not isinstance(found, tuple) or len(found) not in (3, 4):
        raise TypeError(f"{_named(dynamics)} must return a tuple of numbers or arrays, got {found!r}")
    rows = [own if isinstance(own, float) else _as_coefficient(dynamics, own) for own in found]
    of_step = 1 if len(rows) == 3 else 0
    for k, own in enumerate(rows):
        if isinstance(own, float):
            fits = math.isfinite(own) and (k != of_step or own > 0)
        else:
            fits = bool(np.isfinite(own).all() and (k != of_step or (own > 0).all()))
        if not fits:
            raise ValueError(
                f"{_named(dynamics)} must be finite, with a positive step, got {tuple(rows)} for "
                f"step_size={step_size}, temperature={temperature}, l2={l2}"
            )
    return tuple(rows)


def _named(dynamics: Dynamics) -> str:
    return f"{type(dynamics).__name__}.coefficients(step_size, temperature, l2)"


def _as_coefficient(dynamics: Dynamics, own: object) -> float | NDArray[np.float64]:
    try:
        numbers = np.asarray(own, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{_named(dynamics)} must return numbers or arrays of them, got {own!r}") from None
    return float(numbers) if numbers.ndim == 0 else numbers


def first_bad(*arrays: FloatArray) -> int:
    """The first row that is not finite in all arrays, counted through all members, or -1."""
    finite = np.logical_and.reduce([np.isfinite(array).all(axis=-1) for array in arrays]).ravel()
    return -1 if finite.all() else int(np.argmin(finite))


@dataclass(frozen=True, eq=False)
class Move:
    """Outcome of one step.

    ``gradient`` is an estimate that the step made or used, ridge excluded, and ``gradient_at`` where it was taken, with
    the rows of the next step; None stands for the particles before the step, with those of this one. ``bad_particle``
    is the first one that is not finite after the step, or -1; ``acceptance`` the mean probability with which proposals
    are accepted, where there are proposals.
    """

    particles: FloatArray
    buffers: Buffers
    gradient: FloatArray
    bad_particle: int = -1
    acceptance: float = np.nan
    gradient_at: FloatArray | None = None


class Dynamics(ABC):
    """How one step moves particles along the gradient and with the noise.

    The target is the Gibbs law ``exp(-(V + l2 |theta|**2) / temperature)`` of a potential V; for an interacting
    objective V is its first variation at the current cloud. Subclasses of `Affine`, like `Overdamped`, and the BAOAB
    scheme of `Underdamped` run inside the compiled core. Another subclass is called once a step with all particles.

    Attributes
    ----------
    buffer_names : tuple of str
        Names within `State.buffers` of what it carries from step to step.
    curvature_power : float
        A step of ``curvature ** -power`` is stable, so that the step size may be left out; 0 where none is known.
    on_domains : bool
        True where moves end on the domain of the space, as `Step.moved` sees to.
    metric : str
        Metric of the particles in which it moves: that of the product, but for `Conic`.
    on_members : bool
        True where particles may have leading axes, of members.
    evaluations : tuple of str
        Those of ``buffer_names`` that are values or gradients of the objective at the particles, kept to spare one.
    starts_anew : bool
        True where ``buffer_names`` are functions of the particles, so that nothing is lost where they are left out.
    affine : bool
        True where each step is that of `Affine`, with one gradient; accounts of privacy go by it.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> class SignDescent(mfld.Dynamics):
    ...     def move(self, particles, buffers, drift, step):
    ...         gradient, buffers = drift(particles, buffers, step.place)
    ...         return mfld.dynamics.Move(particles - step.step_size * np.sign(gradient), buffers, gradient)
    >>> well = mfld.Potential(lambda x: x**3, n_coordinates=1)
    >>> solver = mfld.MFLD(n_particles=1, step_size=0.5, temperature=0.0, dynamics=SignDescent(), dtype="float64")
    >>> solver.run(well, n_steps=3, particles=[[10.0]]).particles
    array([[8.5]])
    """

    buffer_names: ClassVar[tuple[str, ...]] = ()
    curvature_power: float = 0.0
    on_domains: ClassVar[bool] = False
    on_members: ClassVar[bool] = False
    metric: ClassVar[str] = "product"
    evaluations: ClassVar[tuple[str, ...]] = ()
    starts_anew: ClassVar[bool] = False
    affine: ClassVar[bool] = False

    def check_space(self, objective: Objective) -> None:
        """Raise ValueError if this dynamics cannot move an objective's members, on its domain and in its metric."""
        if objective.metric != self.metric:
            fits = "mfld.dynamics.Conic()" if objective.metric == "conic" else "of that metric, like Overdamped(),"
            raise ValueError(f"dynamics must be {fits} for an objective in the {objective.metric} metric, got {self}")
        if not (objective.space.flat or self.on_domains):
            raise ValueError(f"dynamics must be Overdamped() on the domain {objective.space.domain}, got {self}")
        if objective.members and not self.on_members:
            raise ValueError(f"dynamics must serve several members, like Overdamped() and Underdamped(), got {self}")

    @property
    def in_core(self) -> bool:
        """True where the compiled core makes its steps: `native` is not None."""
        return type(self).native is not Dynamics.native

    def native(self, particles: FloatArray, buffers: Buffers) -> Native[_core.Dynamics] | None:
        """This dynamics as the compiled core takes it, for all replicates; None where the core does not know it."""
        return None

    def coefficients(self, step_size: Numbers, temperature: Numbers, l2: Numbers) -> tuple[Numbers, ...]:
        """Coefficients of a step by which the core moves particles, for numbers or arrays of them.

        Defined where `native` is: `mfld.dynamics.Affine` says what they are for one kind.
        """
        raise NotImplementedError(f"{type(self).__name__} has no coefficients")

    def matrices(self, n_moving: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Diffusion D and skew Q of the continuous-time dynamics, where they are constant.

        It is ``dX = -(D + Q) grad H dt + sqrt(2 temperature D) dB`` with X the moving coordinates and H the potential,
        ridge included, shapes (n_moving, n_moving); or X the moving coordinates and the velocities v, and H the
        potential plus ``|v|**2 / 2``, shapes (2 n_moving, 2 n_moving).

        Raises
        ------
        TypeError
            If it is no such dynamics.
        """
        raise TypeError(f"dynamics must have matrices D and Q, like Overdamped or General, got {self}")

    def matrices_at(self, points: FloatArray, n_moving: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """D and Q at points, shape (N, p): of `matrices` where they are constant, else with N of each, behind one axis.

        Raises
        ------
        TypeError
            If it is no such dynamics.
        """
        return self.matrices(n_moving)

    def check(self, objective: Objective, gradient: GradientEstimator) -> None:  # noqa: B027  most suit all
        """Raise ValueError or TypeError if this dynamics cannot serve the objective with this estimator."""

    def buffer_shapes(self, objective: Objective, n_particles: int) -> dict[str, tuple[int, ...]]:
        """Shapes that its buffers have, so that those of another objective are refused; those left out may be any."""
        return {}

    def start(self, particles: FloatArray, step: Step) -> Buffers:
        """Buffers before a first step; called where a state has none of ``buffer_names``."""
        return {}

    @abstractmethod
    def move(self, particles: FloatArray, buffers: Buffers, drift: Drift, step: Step) -> Move:
        """One step of all particles, which stay as they are: shape (N, n_coordinates), or (..., N, n_coordinates).

        Only the leading ``step.n_moving`` coordinates may move. The ridge is the dynamics' to add: its gradient is
        ``2 * step.l2 * theta``. Add drift and noise to each other first and then to the particles: float32 rounds away
        what is below 6e-8 of a coordinate, unless it comes with the noise.
        """
