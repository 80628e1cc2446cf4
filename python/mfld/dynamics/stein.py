"""Stein variational gradient descent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from mfld import validation
from mfld.dynamics.base import Dynamics, Move, Step
from mfld.gradients import Drift, GradientEstimator
from mfld.kernels import Gaussian, Kernel
from mfld.objectives.base import Objective
from mfld.objectives.stein import check_stein
from mfld.state import Buffers
from mfld.validation import FloatArray


@dataclass(frozen=True)
class SVGD(Dynamics):
    """Stein variational gradient descent: particles that move along the kernelised gradient, without noise.

    ::

        theta <- theta + step_size (1/N) sum_j [-k(theta, theta_j) b(theta_j) + T grad_(theta_j) k(theta, theta_j)]

    with b the gradient, ridge included, and T the temperature. The first term averages the gradient over neighbours,
    the second drives particles apart. The temperature enters the score ``-b / T`` of the Gibbs law, not a noise: there
    is none, and the step is that of the score's flow times T, so that its size means what it does for `Overdamped`; at
    T = 0 it is kernelised descent. For a `Potential` it samples ``exp(-(V + l2 |theta|**2) / T)``; for an objective
    whose particles interact b is that of the first variation at the current cloud, which is variational gradient
    descent, and its limit solves ``mu = exp(-dF/dmu(mu) / T)``. Particles settle: a cloud of finitely many is a
    quadrature for the functions that the kernel sees, and not a sample. A step costs N**2 values of the kernel. Source:
    Liu, Wang 2016, "Stein variational gradient descent: a general purpose Bayesian inference algorithm"; Chazal,
    Kanagawa, Shen, Korba, Oates 2025, "A computable measure of suboptimality for entropy-regularised variational
    objectives".

    Parameters
    ----------
    kernel : Kernel
        Of the moving coordinates. With a median length scale, as by default, it is fitted to the particles at each
        step.

    Raises
    ------
    TypeError, ValueError
        If it is no positive definite kernel; when a run starts, on a domain that is neither Euclidean nor a torus.

    Examples
    --------
    >>> import mfld
    >>> well = mfld.potentials.Gaussian([3.0], [[4.0]])
    >>> solver = mfld.MFLD(50, step_size=1.0, temperature=1.0, dynamics=mfld.SVGD(mfld.kernels.Gaussian(2.0)))
    >>> particles = solver.run(well, n_steps=500).particles
    >>> bool(abs(particles.mean() - 3) < 0.01), bool(abs(particles.var() - 4) < 0.2)
    (True, True)
    """

    kernel: Kernel = field(default_factory=Gaussian)

    on_domains: ClassVar[bool] = True
    on_members: ClassVar[bool] = True

    def __post_init__(self) -> None:
        validation.instance("kernel", self.kernel, Kernel, "a Kernel, like kernels.Gaussian(1.0)")
        if self.kernel.conditional:
            raise ValueError(f"kernel must be positive definite, {self.kernel!r} is on differences of measures only")

    def check(self, objective: Objective, gradient: GradientEstimator) -> None:
        check_stein(self.kernel, objective.space)

    def move(self, particles: FloatArray, buffers: Buffers, drift: Drift, step: Step) -> Move:
        gradient, buffers = drift(particles, buffers, step.place)
        theta, b = step.moving(particles, gradient)
        if not np.isfinite(b).all():
            return Move(particles, buffers, gradient, int(np.argmin(np.isfinite(b).all(axis=-1).ravel())))
        clouds = theta.reshape(-1, *theta.shape[-2:])
        fields = [
            self.kernel.fitted(own).field(own, own, -slope, repulsion=step.temperature, num_threads=step.num_threads)
            for own, slope in zip(clouds, b.reshape(clouds.shape), strict=True)
        ]
        with np.errstate(over="ignore", invalid="ignore"):
            change = theta.dtype.type(step.step_size) * np.stack(fields).reshape(theta.shape)
            moved, bad_particle = step.moved(particles, theta + change)
        return Move(moved, buffers, gradient, bad_particle)
