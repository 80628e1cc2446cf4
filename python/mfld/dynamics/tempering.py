"""Underdamped Langevin dynamics with continuous tempering."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mfld import validation
from mfld.dynamics.base import Dynamics, Move, Step
from mfld.gradients import Drift, GradientEstimator
from mfld.objectives.base import Objective
from mfld.state import Buffers, State
from mfld.validation import FloatArray


@dataclass(frozen=True)
class ContinuousTempering(Dynamics):
    """Particles that wander between the temperature of the run and higher ones, each on a variable a of its own.

    With ``U = V + l2 |theta|**2`` the law ``exp(-H / temperature)`` of the Hamiltonian, all masses 1::

        H = |v|**2 / 2 + w**2 / 2 + (1 - f(a)) (U(theta) - level) + phi(a)

        f(a)   = 0 for |a| <= base_width,  1 - 1 / highest for |a| >= hot_width,  t**2 (3 - 2 t) of it in between,
                 t = (|a| - base_width) / (hot_width - base_width)
        phi(a) = (|a| - hot_width)**2 / 2 for |a| > hot_width, else 0

    is kept by Langevin dynamics of (theta, a) with velocities (v, w), friction included, in the splitting BAOAB. At a
    fixed, theta has the temperature ``temperature / (1 - f(a))``, up to ``highest`` times the base: barriers are
    crossed there. Given ``|a| <= base_width`` it has exactly the law ``exp(-U / temperature)``: these particles are the
    samples (`at_base`), the others are on their way. The marginal density of a is proportional to
    ``Z(a) exp(-(phi(a) + f(a) level) / temperature)``, ``Z(a)`` the integral of ``exp(-(1 - f(a)) U / temperature)``,
    so that ``level`` moves time between hot and base: about the mean of U on the way makes the two alike. Weak
    order 2, one value and gradient a step; steps must suit an oscillator of frequency 1 in a as well. ``step_size`` is
    real time, as in all underdamped dynamics. Noise: stream ``move``, one normal for each moving coordinate and then
    one for a; initial velocities ``sqrt(temperature)`` times stream ``init`` at step 1. Source: Gobbo, Leimkuhler 2015,
    "Extended Hamiltonian approach to continuous tempering"; Ye, Zhu, Mantiuk 2017, "Langevin dynamics with continuous
    tempering for training deep neural networks".

    Parameters
    ----------
    friction : float
        Positive; of v and of w.
    highest : float
        Above 1: the highest temperature as a multiple of that of the run.
    base_width, hot_width : float
        ``0 < base_width < hot_width``: where tempering starts, and where it is complete.
    level : float
        Subtracted from the potential.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; when a run starts, if the objective is not linear, or has
        no value, or the gradient not `FullBatch`.

    Notes
    -----
    The state's buffers: ``velocities``, shape (1, N, p); ``tempering`` and ``tempering_velocity``, shape (1, N), are a
    and w; ``force`` and ``energy`` the gradient and the value of V at the particles.

    Examples
    --------
    A barrier of 16 temperatures, and all particles on one side of it:

    >>> import numpy as np
    >>> import mfld
    >>> wells = mfld.Potential(
    ...     lambda x: 16 * x * (x**2 - 1), lambda x: 4 * np.sum((x**2 - 1) ** 2, axis=1), n_coordinates=1
    ... )
    >>> tempering = mfld.ContinuousTempering(highest=20.0)
    >>> solver = mfld.MFLD(n_particles=500, step_size=0.1, temperature=0.25, dynamics=tempering)
    >>> state = solver.run(wells, n_steps=2000, particles=np.ones((500, 1))).state
    >>> samples = state.particles[tempering.at_base(state)]
    >>> bool(0.3 < np.mean(samples < 0) < 0.7)
    True
    """

    friction: float = 1.0
    highest: float = 10.0
    base_width: float = 1.0
    hot_width: float = 2.0
    level: float = 0.0

    buffer_names: ClassVar[tuple[str, ...]] = ("velocities", "tempering", "tempering_velocity", "force", "energy")
    evaluations: ClassVar[tuple[str, ...]] = ("force", "energy")

    def __post_init__(self) -> None:
        checked = {
            "friction": validation.real("friction", self.friction, positive=True),
            "highest": validation.real("highest", self.highest, positive=True),
            "base_width": validation.real("base_width", self.base_width, positive=True),
            "hot_width": validation.real("hot_width", self.hot_width, positive=True),
            "level": validation.real("level", self.level),
        }
        if checked["highest"] <= 1:
            raise ValueError(f"highest must be above 1, got {self.highest}")
        if checked["hot_width"] <= checked["base_width"]:
            raise ValueError(f"hot_width must be above base_width, {self.base_width}, got {self.hot_width}")
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def check(self, objective: Objective, gradient: GradientEstimator) -> None:
        kind = type(objective).__name__
        if not objective.linear:
            raise ValueError(f"objective must be linear for ContinuousTempering, like a Potential; got a {kind}")
        if not objective.has_value:
            raise TypeError(f"ContinuousTempering needs the value of its objective; this {kind} has a gradient only")
        if not gradient.exact:
            raise ValueError(f"gradient must be FullBatch() for ContinuousTempering, got {gradient}")

    def buffer_shapes(self, objective: Objective, n_particles: int) -> dict[str, tuple[int, ...]]:
        matrices = dict.fromkeys(("velocities", "force"), (n_particles, objective.n_coordinates))
        return {**matrices, **dict.fromkeys(("tempering", "tempering_velocity", "energy"), (n_particles,))}

    def start(self, particles: FloatArray, step: Step) -> Buffers:
        n, m = len(particles), step.n_moving
        early = replace(step, place=step.place._replace(step=1))
        first = math.sqrt(step.temperature) * early.normals(particles, m + 1, "init")
        velocities = np.zeros_like(particles)
        velocities[:, :m] = first[:, :m]
        return {
            "velocities": velocities,
            "tempering": np.zeros(n, particles.dtype),
            "tempering_velocity": first[:, m].copy(),
        }

    def move(self, particles: FloatArray, buffers: Buffers, drift: Drift, step: Step) -> Move:
        m, half = step.n_moving, step.step_size / 2
        if "force" in buffers:
            energy, gradient = buffers["energy"], buffers["force"]
        else:
            energy, gradient = drift.value_and_gradient(particles)
        seen = gradient
        damping = math.exp(-self.friction * step.step_size)
        kick = math.sqrt(step.temperature * -math.expm1(-2 * self.friction * step.step_size))
        noise = step.normals(particles, m + 1)
        a, w = buffers["tempering"], buffers["tempering_velocity"]
        velocities = buffers["velocities"].copy()
        moved = particles.copy()
        theta, v = moved[:, :m], velocities[:, :m]
        with np.errstate(over="ignore", invalid="ignore"):
            force, tempering_force = self._forces(particles, a, energy, gradient, step)
            v += half * force
            w = w + half * tempering_force
            theta += half * v
            a = a + half * w
            v *= damping
            v += kick * noise[:, :m]
            w = damping * w + kick * noise[:, m]
            theta += half * v
            a = a + half * w
            moved, bad_particle = step.moved(moved, theta)
            if bad_particle < 0:
                energy, gradient = drift.value_and_gradient(moved)
                force, tempering_force = self._forces(moved, a, energy, gradient, step)
                v += half * force
                w = w + half * tempering_force
        own = {"velocities": velocities, "tempering": a, "tempering_velocity": w, "force": gradient, "energy": energy}
        return Move(moved, {**buffers, **own}, seen, bad_particle)

    def at_base(self, state: State) -> NDArray[np.bool_]:
        """Which particles of a state are at the temperature of the run: samples of its law, shape (N,).

        Raises
        ------
        ValueError
            If the state does not come from a run with this dynamics, or has several replicates.
        """
        _ = state.only_cloud  # of one replicate
        if "tempering" not in state.buffers:
            raise ValueError("state must come from a run with ContinuousTempering: it has no buffer tempering")
        inside: NDArray[np.bool_] = np.abs(state.buffers["tempering"][0]) <= self.base_width
        return inside

    def _forces(
        self, particles: FloatArray, a: FloatArray, energy: FloatArray, gradient: FloatArray, step: Step
    ) -> tuple[FloatArray, FloatArray]:
        """Minus the derivatives of H: in the moving coordinates, shape (N, n_moving), and in a, shape (N,)."""
        theta, b = step.moving(particles, gradient)
        potential = energy - self.level + step.l2 * np.sum(theta**2, axis=1)
        f, slope, confinement = self._profile(a)
        return (f - 1)[:, np.newaxis] * b, slope * potential - confinement

    def _profile(self, a: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """f, its derivative, and the derivative of phi."""
        distance = np.abs(a)
        ramp = self.hot_width - self.base_width
        t = ((distance - self.base_width) / ramp).clip(0, 1)
        top = 1 - 1 / self.highest
        slope = np.sign(a) * (top * 6 / ramp) * t * (1 - t)
        return top * t**2 * (3 - 2 * t), slope, np.sign(a) * (distance - self.hot_width).clip(0)
