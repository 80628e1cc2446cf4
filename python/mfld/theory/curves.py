"""Convergence curves: what the theory promises for the excess ``L(mu_k) - L*`` after k steps.

``L(mu) = F(mu) + temperature * Ent(mu)``, and L* is its minimum. All curves are of the form ``initial_gap *
exp(-rate * k) + floor``, with a floor for each of step size, number of particles and mini-batches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import validation

ESTIMATORS = ("full", "minibatch", "svrg")


@dataclass(frozen=True)
class Bound:
    """Curve ``initial_gap * exp(-rate * k) + sum(floor)``.

    Attributes
    ----------
    initial_gap, rate : float
        The rate is that of one step, or of time.
    floor : dict of str to float
        Terms that stay: ``"step"``, ``"particles"``, ``"batch"``.
    guesses : tuple of str
        Terms whose constant is not known: they are right up to a factor.

    Examples
    --------
    >>> from mfld import theory
    >>> bound = theory.continuous(initial_gap=1.0, alpha=1.0, temperature=0.5)
    >>> bound([0.0, 1.0]).round(3)
    array([1.   , 0.368])
    """

    initial_gap: float
    rate: float
    floor: dict[str, float] = field(default_factory=dict)
    guesses: tuple[str, ...] = ()

    def __call__(self, steps: ArrayLike) -> NDArray[np.float64]:
        """Values at counts of steps, or at times."""
        k = validation.array("steps", steps, np.float64)
        return np.asarray(self.initial_gap * np.exp(-self.rate * k) + self.limit)

    @property
    def limit(self) -> float:
        """Sum of the terms that stay."""
        return math.fsum(self.floor.values())

    def log_steps(self, accuracy: float) -> float:
        """Natural logarithm of the steps after which the curve is at an accuracy; infinite where it never is."""
        left = accuracy - self.limit
        if left <= 0 or self.rate <= 0:
            return math.inf
        needed = math.log(self.initial_gap / left) if self.initial_gap > 0 else 0.0
        return math.log(needed) - math.log(self.rate) if needed > 0 else -math.inf


def continuous(initial_gap: float, alpha: float, temperature: float) -> Bound:
    """Bound in continuous time with infinitely many particles: the rate is ``2 alpha temperature``.

    Sources: Nitanda, Wu, Suzuki 2022, "Convex analysis of the mean field Langevin dynamics"; Chizat 2022, "Mean-field
    Langevin dynamics: exponential convergence and annealing".

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or not positive.
    """
    initial_gap, alpha, temperature = _numbers(initial_gap=initial_gap, alpha=alpha, temperature=temperature)
    return Bound(initial_gap, 2 * alpha * temperature)


def discrete(
    initial_gap: float,
    alpha: float,
    temperature: float,
    step_size: float,
    *,
    n_particles: int | None = None,
    fluctuation: float | None = None,
    smoothness: float | None = None,
    n_coordinates: int = 1,
    linear: bool = False,
    estimator: str = "full",
    n_samples: int = 0,
    batch_size: int = 0,
    refresh_every: int = 1,
    constant: float = 1.0,
) -> Bound:
    """Bound for steps of `MFLD` with `Overdamped` dynamics.

    With h the step size, T the temperature, B of n rows in a batch, and m steps between full gradients, the excess
    falls at the rate ``alpha T h`` a step to the sum of

    ===============  ==================================================================================================
    step             ``8 p S**2 h / alpha`` for a linear objective whose gradient, ridge included, has the Lipschitz
                     constant S, where ``h <= alpha T / (4 S**2)``: Vempala, Wibisono 2019, all constants known; else
                     ``S**2 (h**2 + T h) / (2 alpha T)``
    particles        ``fluctuation / N`` where that is known (Nitanda 2024); else ``1 / (alpha T N)``; 0 if linear
    batch            ``(n - B) sqrt(h T) / (B (n - 1)) / (alpha T)``, of SVRG
                     ``(n - B) sqrt(T) h sqrt(m (h + T)) / (B (n - 1)) / (alpha T)``
    ===============  ==================================================================================================

    Terms without known constants have the factor ``constant`` and are named in `Bound.guesses`. Sources: Suzuki, Wu,
    Nitanda 2023, "Convergence of mean-field Langevin dynamics: time and space discretization, stochastic gradient, and
    variance reduction"; Nitanda 2024, "Improved particle approximation error for mean field neural networks"; Vempala,
    Wibisono 2019, "Rapid convergence of the unadjusted Langevin algorithm: isoperimetry suffices".

    Parameters
    ----------
    initial_gap, alpha, temperature, step_size : float
        Positive.
    n_particles : int, optional
        N; None for infinitely many.
    fluctuation, smoothness : float, optional
        As in `Objective.bounds`, the smoothness with the ridge; by default not known.
    n_coordinates : int
        p.
    linear : bool
    estimator : {"full", "minibatch", "svrg"}
    n_samples, batch_size, refresh_every : int
        n, B and m, of mini-batches.
    constant : float
        In place of constants that are not known.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> from mfld import theory
    >>> bound = theory.discrete(1.0, alpha=1.0, temperature=1.0, step_size=1e-3, smoothness=1.0, linear=True)
    >>> bound.floor["step"], bound.guesses
    (0.008, ())
    """
    gap, alpha, t, h, constant = _numbers(
        initial_gap=initial_gap, alpha=alpha, temperature=temperature, step_size=step_size, constant=constant
    )
    if not alpha * t * h > 0 or not alpha * t > 0:
        raise ValueError(
            f"alpha, temperature and step_size must have a product above 0 in float64, got {alpha:g}, {t:g} and {h:g}"
        )
    validation.choice("estimator", estimator, ESTIMATORS)
    p = validation.integer("n_coordinates", n_coordinates, 1)
    s = None if smoothness is None else validation.real("smoothness", smoothness, positive=True)
    validation.boolean("linear", linear)
    if fluctuation is not None:
        fluctuation = validation.real("fluctuation", fluctuation, non_negative=True)
    guesses = []
    floor = {}
    if linear and s is not None:
        floor["step"] = 8 * p * s * s * h / alpha
        if 4 * s * s * h > alpha * t:
            floor["step"] = math.inf
    else:
        floor["step"] = constant * (1.0 if s is None else s * s) * h * (h + t) / (2 * alpha * t)
        guesses.append("step")
    if n_particles is not None and not linear:
        n_particles = validation.integer("n_particles", n_particles, 1)
        if fluctuation is not None:
            floor["particles"] = fluctuation / n_particles
        else:
            floor["particles"] = constant / (alpha * t * n_particles)
            guesses.append("particles")
    if estimator != "full":
        n = validation.integer("n_samples", n_samples, 2)
        b = validation.integer("batch_size", batch_size, 1)
        m = validation.integer("refresh_every", refresh_every, 1, validation.MAX_STEP)
        if b > n:
            raise ValueError(f"batch_size must be at most n_samples, {n}, got {b}")
        size = math.sqrt(h * t) if estimator == "minibatch" else math.sqrt(t) * h * math.sqrt(m * (h + t))
        floor["batch"] = constant * (n - b) / (b * (n - 1)) * size / (alpha * t)
        guesses.append("batch")
    return Bound(gap, alpha * t * h, floor, tuple(guesses))


def _numbers(**numbers: float) -> list[float]:
    return [validation.real(name, value, positive=True) for name, value in numbers.items()]
