"""The semi-implicit scheme of the literature on Hilbert spaces; the others are those of `mfld.Overdamped`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mfld import validation
from mfld.dynamics import Dynamics, Move, Step
from mfld.gradients import Drift
from mfld.state import Buffers
from mfld.validation import FloatArray


@dataclass(frozen=True, eq=False)
class SemiImplicit(Dynamics):
    """Semi-implicit Euler scheme of the weights w themselves, with white noise that ``Sigma^-1`` smooths.

    ::

        w <- (1 + 2 l2 h Sigma^-1)^-1 (w - h gradient_w + sqrt(2 T h) xi)

    for step size h and temperature T. Without a gradient mode j has the stationary variance ``s_j / (1 + l2 h / s_j)``
    in place of s_j, at ``T = 2 l2``: modes with s_j below the step are lost, and the trace with them.
    ``Overdamped(ridge="crank_nicolson")`` (pCN) has no such bias; this is for comparison. Source: Muzellec, Sato,
    Massias, Suzuki 2020, "Dimension-free convergence rates for gradient Langevin dynamics in RKHS". Noise: stream
    ``move``, one normal for each moving coordinate. It moves the whitened coordinates ``u = Sigma^(-1/2) w`` of a
    `FunctionalNetwork`; bias and readout behind them have the variance 1.

    Parameters
    ----------
    variances : array_like, shape (K,)
        s_j, of ``network.modes``.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> from mfld.functional_data import SemiImplicit
    >>> flat = mfld.Potential(lambda x: 0 * x, n_coordinates=2, l2=0.5)
    >>> solver = mfld.MFLD(20_000, step_size=0.1, temperature=1.0, dynamics=SemiImplicit([1.0, 0.05]))
    >>> solver.run(flat, n_steps=100).particles.var(axis=0).round(1)      # 1 / (1 + 0.05 / s)
    array([1. , 0.5], dtype=float32)
    """

    variances: ArrayLike

    def __post_init__(self) -> None:
        variances = validation.array("variances", self.variances, np.float64)
        validation.shape("variances", variances, ("K",))
        if not (variances > 0).all():
            raise ValueError(f"variances must be positive, got {variances.min()}")
        object.__setattr__(self, "variances", validation.frozen(variances))

    def __repr__(self) -> str:
        return f"SemiImplicit({len(np.asarray(self.variances))} variances)"

    def move(self, particles: FloatArray, buffers: Buffers, drift: Drift, step: Step) -> Move:
        gradient, buffers = drift(particles, buffers, step.place)
        variances = np.ones(step.n_moving)
        given = np.asarray(self.variances)
        if len(given) > step.n_moving:
            raise ValueError(f"variances must be those of at most {step.n_moving} coordinates, got {len(given)}")
        variances[: len(given)] = given
        size = step.step_size / variances
        theta = particles[..., : step.n_moving]
        change = np.sqrt(2 * step.temperature * size) * step.normals(particles) - size * gradient[..., : step.n_moving]
        moved, bad_particle = step.moved(particles, (theta + change) / (1 + 2 * step.l2 * size))
        return Move(moved, buffers, gradient, bad_particle)
