"""Overdamped Langevin dynamics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from mfld import validation
from mfld.dynamics.affine import Affine
from mfld.dynamics.base import Numbers
from mfld.native import final


@final
@dataclass(frozen=True, repr=False)
class Overdamped(Affine):
    """Overdamped Langevin dynamics: a step along the gradient, and noise.

    ::

        dtheta = -(gradient + 2 l2 theta) dt + sqrt(2 temperature) dW

    With h the step size, T the temperature and xi ~ N(0, I), one step is, for the ways to take the ridge,

    ``"explicit"`` (default)
        ``theta - h (gradient + 2 l2 theta) + sqrt(2 T h) xi``, the Euler-Maruyama scheme (the unadjusted Langevin
        algorithm). On a quadratic potential of curvature a, ridge included, the stationary variance is
        ``T / (a (1 - a h / 2))`` rather than ``T / a``; steps from ``2 / a`` on are unstable.
    ``"implicit"``
        ``(theta - h gradient + sqrt(2 T h) xi) / (1 + 2 l2 h)``. Without a gradient the stationary variance is
        ``T / (2 l2 (1 + l2 h))`` rather than ``T / (2 l2)``; stable at any l2.
    ``"crank_nicolson"``
        ``((1 - l2 h) theta - h gradient + sqrt(2 T h) xi) / (1 + l2 h)``. It leaves the Gaussian reference measure as
        it is. Source: Cotter, Roberts, Stuart, White 2013, "MCMC methods for functions".
    ``"exact"``
        ``rho theta - (1 - rho) / (2 l2) gradient + sqrt((1 - rho**2) T / (2 l2)) xi`` with ``rho = exp(-2 l2 h)``: the
        linear equation solved with the gradient frozen. It leaves the reference as it is, too.

    They are the same where l2 is 0, and all of weak order 1. On a domain the step is brought back to it, see
    `mfld.space`. Noise: stream ``move``, one normal for each moving coordinate.

    Parameters
    ----------
    ridge : {"explicit", "implicit", "crank_nicolson", "exact"}

    Raises
    ------
    TypeError, ValueError
        If ridge is none of these.

    Examples
    --------
    >>> import mfld
    >>> mfld.MFLD(step_size=0.1, temperature=0.01).dynamics
    Overdamped()
    >>> flat = mfld.Potential(lambda x: 0 * x, n_coordinates=1, l2=0.5)      # reference: N(0, 1)
    >>> for ridge in ("explicit", "exact"):
    ...     solver = mfld.MFLD(20_000, step_size=1.0, temperature=1.0, dynamics=mfld.Overdamped(ridge))
    ...     print(round(float(solver.run(flat, n_steps=30).particles.var()), 1))
    2.0
    1.0
    """

    ridge: str = "explicit"

    curvature_power: ClassVar[float] = 1.0  # type: ignore[misc]

    def __post_init__(self) -> None:
        validation.choice("ridge", self.ridge, _RIDGES)

    def __repr__(self) -> str:
        return "Overdamped()" if self.ridge == "explicit" else f"Overdamped(ridge={self.ridge!r})"

    def matrices(self, n_moving: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return np.eye(n_moving), np.zeros((n_moving, n_moving))

    def coefficients(self, step_size: Numbers, temperature: Numbers, l2: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        return _RIDGES[self.ridge](step_size, temperature, l2)


def _explicit(h: Numbers, temperature: Numbers, l2: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    return 2 * h * l2, h, np.sqrt(2 * temperature * h)


def _implicit(h: Numbers, temperature: Numbers, l2: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    share = 1 / (1 + 2 * h * l2)
    return 2 * h * l2 * share, h * share, np.sqrt(2 * temperature * h) * share


def _crank_nicolson(h: Numbers, temperature: Numbers, l2: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    share = 1 / (1 + h * l2)
    return 2 * h * l2 * share, h * share, np.sqrt(2 * temperature * h) * share


def _exact(h: Numbers, temperature: Numbers, l2: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    decay = 2 * h * l2
    return decay * _mean_decay(decay), h * _mean_decay(decay), np.sqrt(2 * temperature * h * _mean_decay(2 * decay))


def _mean_decay(x: Numbers) -> Numbers:
    """``(1 - exp(-x)) / x``, and 1 at 0."""
    return np.where(x > 0, -np.expm1(-x) / np.where(x > 0, x, 1.0), 1.0)


_RIDGES: Final[dict[str, Callable[[Numbers, Numbers, Numbers], tuple[Numbers, Numbers, Numbers]]]] = {
    "explicit": _explicit,
    "implicit": _implicit,
    "crank_nicolson": _crank_nicolson,
    "exact": _exact,
}
