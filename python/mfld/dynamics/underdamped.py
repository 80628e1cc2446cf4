"""Underdamped Langevin dynamics: particles with velocities."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from mfld import _core, validation
from mfld.dynamics.base import Dynamics, Move, Numbers, Step, first_bad
from mfld.gradients import Drift
from mfld.native import Native, final
from mfld.objectives.base import Objective
from mfld.state import Buffers
from mfld.validation import FloatArray


@final
@dataclass(frozen=True)
class Underdamped(Dynamics):
    """Underdamped (kinetic) Langevin dynamics, of particles with velocities v.

    ::

        dtheta = v dt,    dv = -(b + friction * v) dt + sqrt(2 * friction * temperature) dW

    with b the gradient, ridge included. The law of the positions is that of `Overdamped` dynamics, velocities are
    N(0, temperature). The step size h is the time of a step; at a large friction h acts like a step size ``h**2 / 2``
    of `Overdamped`. With ``e = exp(-friction * h)`` one step is

    ``"baoab"`` (default)
        ``v -= h/2 b;  theta += h/2 v;  v = e v + sqrt(temperature (1 - e**2)) xi;  theta += h/2 v;  v -= h/2 b``, the
        last with the gradient at the new position. Weak order 2; on a quadratic potential the variance of the position
        is exact. Source: Leimkuhler, Matthews 2013, "Rational construction of stochastic numerical methods for
        molecular sampling". It runs inside the compiled core where the objective does.
    ``"obabo"``
        The part of the noise split in two: ``e = exp(-friction * h / 2)`` at both ends of a Verlet step. Weak order 2;
        on a quadratic potential the variance of the velocity is exact. Source: Bussi, Parrinello 2007, "Accurate
        sampling using Langevin dynamics".
    ``"middle"``
        ``v -= h b``, then drift, noise and drift as in BAOAB: the same positions, with velocities of half a step later.
        Nothing of a step is an evaluation from before others moved, which is what players of a game want. Source:
        Zhang, Liu, Yan, Tuckerman, Liu 2019, "Unified efficient thermostat scheme for the canonical ensemble with
        holonomic or isokinetic constraints via molecular dynamics".
    ``"frozen_force"``
        The linear equation solved exactly with the gradient frozen over the step. Weak order 1. Source: Fu, Wilson
        2024, "Mean-field underdamped Langevin dynamics and its spacetime discretization".

    Each takes one gradient a step. The mean-field law: Chen, Lin, Ren, Wang 2024, "Uniform-in-time propagation of
    chaos for kinetic mean field Langevin dynamics". Noise: stream ``move``; one normal for each moving coordinate, two
    in ``"obabo"`` and ``"frozen_force"`` (those of coordinates p..2p-1 are the second ones). Initial velocities: stream
    ``init``, step 1.

    The buffers are ``velocities`` and, in the first two schemes, ``force``: the gradient at the present positions,
    without the ridge. Loss and gradient norm of an `Info` are those at the end of the last step, where that step took
    its gradient.

    Parameters
    ----------
    friction : float
        Positive.
    scheme : {"baoab", "obabo", "middle", "frozen_force"}

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import mfld
    >>> well = mfld.Potential(lambda x: x, n_coordinates=1)
    >>> solver = mfld.MFLD(
    ...     n_particles=10_000, step_size=0.5, temperature=1.0, dynamics=mfld.Underdamped(friction=1.0)
    ... )
    >>> result = solver.run(well, n_steps=100)
    >>> bool(abs(result.particles.var() - 1) < 0.05)
    True
    """

    friction: float
    scheme: str = "baoab"

    buffer_names: ClassVar[tuple[str, ...]] = ("velocities", "force")
    evaluations: ClassVar[tuple[str, ...]] = ("force",)
    on_members: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "friction", validation.real("friction", self.friction, positive=True))
        validation.choice("scheme", self.scheme, _SCHEMES)

    @property
    def curvature_power(self) -> float:  # type: ignore[override]
        # Verlet steps are stable up to 2 / sqrt(curvature) at any friction; frozen forces feed energy in without it.
        return 0.0 if self.scheme == "frozen_force" else 0.5

    def buffer_shapes(self, objective: Objective, n_particles: int) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(self.buffer_names, (*objective.members, n_particles, objective.n_coordinates))

    def start(self, particles: FloatArray, step: Step) -> Buffers:
        velocities = np.zeros_like(particles)
        place = step.place._replace(step=1)  # step 0 of the stream has the initial particles
        normals = place.normals_like(particles, step.n_moving, "init")
        velocities[..., : step.n_moving] = math.sqrt(step.temperature) * normals
        return {"velocities": velocities}

    def matrices(self, n_moving: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        zero, one = np.zeros((n_moving, n_moving)), np.eye(n_moving)
        return np.block([[zero, zero], [zero, self.friction * one]]), np.block([[zero, -one], [one, zero]])

    @property
    def in_core(self) -> bool:
        return self.scheme == "baoab"

    def native(self, particles: FloatArray, buffers: Buffers) -> Native[_core.Dynamics] | None:
        if not self.in_core:
            return None
        known = "force" in buffers
        velocities = buffers["velocities"].copy()
        force = buffers["force"].copy() if known else np.empty_like(particles)
        form = _core.Dynamics("baoab", velocities, force, known)
        return Native(form, {"velocities": velocities, "force": force}, fragile=("force",))

    def coefficients(self, step_size: Numbers, temperature: Numbers, l2: Numbers) -> tuple[Numbers, ...]:
        return _half_steps(step_size, temperature, l2, self.friction)

    def move(self, particles: FloatArray, buffers: Buffers, drift: Drift, step: Step) -> Move:
        if "velocities" not in buffers:
            buffers = {**buffers, **self.start(particles, step)}
        return _SCHEMES[self.scheme](particles, buffers, drift, step, self.friction)


def _half_steps(h: Numbers, temperature: Numbers, l2: Numbers, friction: float) -> tuple[Numbers, ...]:
    """Coefficients a, r, e, s of a BAOAB step: ``v -= a g + r theta``, ``theta += a v``, ``v = e v + s xi``."""
    # exp and not 1 - friction h: the Ornstein-Uhlenbeck part is then exact for every step size.
    return h / 2, h * l2, np.exp(-friction * h), np.sqrt(-np.expm1(-2 * friction * h) * temperature)


def _baoab(particles: FloatArray, buffers: Buffers, drift: Drift, step: Step, friction: float) -> Move:
    force, buffers = _force(particles, buffers, drift, step)
    moved, velocities = particles.copy(), buffers["velocities"].copy()

    coefficients = _half_steps(step.step_size, step.temperature, step.l2, friction)
    numbers = (step.n_moving, coefficients, *step.place.of_members(particles.shape[:-2]), step.place.first)

    bad_particle = _core.backend.baoab(moved, velocities, force, False, *numbers)
    if bad_particle >= 0:
        return Move(moved, buffers, force, bad_particle)
    force, buffers = drift(moved, buffers, step.place.ahead(1))
    bad_particle = _core.backend.baoab(moved, velocities, force, True, *numbers)
    return Move(moved, {**buffers, "velocities": velocities, "force": force}, force, bad_particle, gradient_at=moved)


def _middle(particles: FloatArray, buffers: Buffers, drift: Drift, step: Step, friction: float) -> Move:
    force, renewed = drift(particles, buffers, step.place)
    moved, velocities = particles.copy(), buffers["velocities"].copy()
    coefficients = _half_steps(step.step_size, step.temperature, step.l2, friction)
    numbers = (step.n_moving, coefficients, *step.place.of_members(particles.shape[:-2]), step.place.first)
    bad_particle = -1
    for second in (True, False):  # both halves of the kick, then drift, noise and drift
        if bad_particle < 0:
            bad_particle = _core.backend.baoab(moved, velocities, force, second, *numbers)
    return Move(moved, {**_without_force(renewed), "velocities": velocities}, force, bad_particle)


def _obabo(particles: FloatArray, buffers: Buffers, drift: Drift, step: Step, friction: float) -> Move:
    force, buffers = _force(particles, buffers, drift, step)
    moved, velocities = particles.copy(), buffers["velocities"].copy()
    moving = np.s_[..., : step.n_moving]
    x, v = moved[moving], velocities[moving]
    first, second = _two_normals(particles, step)
    h = step.step_size
    e = math.exp(-friction * h / 2)
    scale = math.sqrt(-math.expm1(-friction * h) * step.temperature)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found below
        v *= e
        v += scale * first
        v -= h / 2 * (force[moving] + 2 * step.l2 * x)
        x += h * v
        bad_particle = first_bad(x, v)
        if bad_particle >= 0:
            return Move(moved, buffers, force, bad_particle)
        force, buffers = drift(moved, buffers, step.place.ahead(1))
        v -= h / 2 * (force[moving] + 2 * step.l2 * x)
        v *= e
        v += scale * second
    buffers = {**buffers, "velocities": velocities, "force": force}
    return Move(moved, buffers, force, first_bad(x, v), gradient_at=moved)


def _frozen_force(particles: FloatArray, buffers: Buffers, drift: Drift, step: Step, friction: float) -> Move:
    force, renewed = drift(particles, buffers, step.place)
    moved, velocities = particles.copy(), buffers["velocities"].copy()
    moving = np.s_[..., : step.n_moving]
    x, v = moved[moving], velocities[moving]
    first, second = _two_normals(particles, step)
    flow = _FrozenForce(friction, step.step_size)
    scale = math.sqrt(step.temperature)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found below
        b = force[moving] + 2 * step.l2 * x
        x += flow.velocity_to_position * v
        x -= flow.force_to_position * b
        x += scale * flow.shared * first
        x += scale * flow.position_alone * second
        v *= flow.persistence
        v -= flow.velocity_to_position * b
        v += scale * flow.velocity_noise * first
    return Move(moved, {**_without_force(renewed), "velocities": velocities}, force, first_bad(x, v))


class _FrozenForce:
    """The exact flow over a time h with a frozen force b, and the Cholesky factor of its noise at temperature 1.

    With ``g = friction * h``, ``e = exp(-g)`` and ``a = (1 - e) / friction``::

        theta' = theta + a v - (h - a) / friction * b + W,        v' = e v - a b + W_v
        Var W_v = 1 - e**2,  Cov = friction * a**2,  Var W = (2 g - 3 + 4 e - e**2) / friction**2
    """

    def __init__(self, friction: float, step_size: float) -> None:
        g = friction * step_size
        self.persistence = math.exp(-g)
        self.velocity_to_position = a = -math.expm1(-g) / friction
        # Differences of nearly equal numbers where g is small: by their series, whose terms then fall fast.
        if g < 0.5:
            gap = _series(g, 2, lambda k: 1)
            spread = _series(g, 3, lambda k: 4 - 2**k)
        else:
            gap = g + math.expm1(-g)
            spread = 2 * g - 3 + 4 * math.exp(-g) - math.exp(-2 * g)
        self.force_to_position = gap / friction**2
        self.velocity_noise = math.sqrt(-math.expm1(-2 * g))
        self.shared = friction * a**2 / self.velocity_noise
        self.position_alone = math.sqrt(spread / friction**2 - self.shared**2)


def _series(g: float, first: int, coefficient: Callable[[int], int]) -> float:
    """``sum_k coefficient(k) (-g)**k / k!`` from k = first on, to rounding for g below 1/2."""
    return math.fsum(coefficient(k) * (-g) ** k / math.factorial(k) for k in range(first, first + 18))


_SCHEMES: Final[dict[str, Callable[[FloatArray, Buffers, Drift, Step, float], Move]]] = {
    "baoab": _baoab,
    "obabo": _obabo,
    "middle": _middle,
    "frozen_force": _frozen_force,
}


def _force(particles: FloatArray, buffers: Buffers, drift: Drift, step: Step) -> tuple[FloatArray, Buffers]:
    """The gradient at the present positions: known from the last step, or estimated before a first one."""
    if "force" in buffers:
        return buffers["force"], buffers
    return drift(particles, buffers, step.place)


def _without_force(buffers: Buffers) -> Buffers:
    """Buffers without a gradient, which is that of the old positions."""
    return {name: value for name, value in buffers.items() if name != "force"}


def _two_normals(particles: FloatArray, step: Step) -> tuple[FloatArray, FloatArray]:
    """Two independent normals for each moving coordinate."""
    p = step.n_moving
    normals = step.normals(particles, 2 * p)
    return normals[..., :p], normals[..., p:]
