"""Propagation of chaos, measured: what a finite number of particles does to a quantity."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mfld import validation
from mfld.algorithms import Algorithm
from mfld.diagnostics.estimate import Estimate, Vector
from mfld.objectives import Objective
from mfld.state import State


@dataclass(frozen=True, eq=False)
class Chaos:
    """A quantity at several numbers of particles N, and two laws fitted to it.

    Attributes
    ----------
    widths : ndarray of int, shape (K,)
        Numbers of particles N.
    means, errors : ndarray, shape (K,)
        Means over replicates, and their standard errors.
    spreads : ndarray, shape (K,)
        Standard deviations over replicates.
    limit : Estimate
        Value at N = infinity, of the fit ``mean = limit + bias / N``, weighted by the errors.
    bias : Estimate
        The coefficient of 1/N.
    misfit : float
        Mean square of the residuals in standard errors, per degree of freedom: about 1 where the law holds, and NaN
        with two widths.
    exponent : Estimate
        Of the fit ``spread = c N**-exponent``: 1/2 is what theory says.
    """

    widths: Vector
    means: Vector
    errors: Vector
    spreads: Vector
    limit: Estimate
    bias: Estimate
    misfit: float
    exponent: Estimate

    def __repr__(self) -> str:
        return f"Chaos(limit {self.limit}, bias ({self.bias}) / N, fluctuation N**-({self.exponent}))"


def propagation_of_chaos(
    solver: Callable[[int], Algorithm],
    objective: Objective,
    quantity: Callable[[State], ArrayLike],
    widths: Sequence[int],
    n_steps: int,
    seed: int = 0,
) -> Chaos:
    """Bias O(1/N) and fluctuation O(1/sqrt(N)) of a quantity at the end of runs, over numbers of particles N.

    Runs at different widths have seeds of their own: what is fitted is independent. `mfld.plots.chaos` draws it.

    Parameters
    ----------
    solver : callable
        Takes N and returns an algorithm with as many particles and several replicates (tens of them, for errors).
    objective : Objective
    quantity : callable
        Function of the state of one replicate; its value is a number.
    widths : sequence of int
        At least two different ones, N.
    n_steps : int
    seed : int
        The first; others count on.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or there is one replicate only.

    References
    ----------
    Sznitman 1991, "Topics in propagation of chaos"; Suzuki, Nitanda, Wu 2023, "Uniform-in-time propagation of chaos for
    the mean-field gradient Langevin dynamics".

    Examples
    --------
    >>> import mfld
    >>> from mfld import diagnostics
    >>> pull = mfld.Functional(lambda x: 0 * x + x.mean(), lambda x: x.mean() ** 2 / 2, n_coordinates=1, l2=0.5)
    >>> chaos = diagnostics.propagation_of_chaos(
    ...     lambda n: mfld.MFLD(n, step_size=0.1, temperature=1.0, n_replicates=100),
    ...     pull, lambda state: state.particles.mean() ** 2, widths=[10, 20, 40, 80], n_steps=50,
    ... )
    >>> bool(abs(chaos.limit) < 4 * chaos.limit.error), bool(abs(chaos.bias - 0.55) < 4 * chaos.bias.error)
    (True, True)
    """
    validation.function("solver", solver)
    validation.instance("objective", objective, Objective, "an Objective")
    validation.function("quantity", quantity)
    if not isinstance(widths, (list, tuple)) and not (isinstance(widths, np.ndarray) and widths.ndim == 1):
        raise TypeError(f"widths must be a sequence of integers, got {validation.show(widths)}")
    sizes = [validation.integer("widths", width, 1) for width in widths]
    if len(sizes) < 2 or len(set(sizes)) < len(sizes):
        raise ValueError(f"widths must be at least two different numbers, got {sizes}")
    n_steps = validation.integer("n_steps", n_steps, 0)
    seed = validation.seed(seed)
    values = []
    for number, width in enumerate(sizes):
        algorithm = validation.instance("solver", solver(width), Algorithm, "a function that returns an Algorithm")
        n_particles = getattr(algorithm, "n_particles", width)
        if n_particles != width:
            raise ValueError(f"solver must return an Algorithm with {width} particles for {width}, got {n_particles}")
        result = algorithm.run(objective, n_steps, seed + number, record_every=())
        state = result.state
        if state.n_replicates < 2:
            raise ValueError("solver must have several replicates, as of MFLD(n_replicates=20); it has 1")
        each = [validation.returned("quantity", quantity(one), (), np.float64, "") for one in state.each()]
        values.append(np.array(each, np.float64))
    return fitted(sizes, values)


def fitted(widths: Sequence[int], values: Sequence[Vector]) -> Chaos:
    """The two laws, from independent values of each width."""
    n = np.array(widths, np.float64)
    means = np.array([each.mean() for each in values])
    spreads = np.array([each.std(ddof=1) for each in values])
    counts = np.array([len(each) for each in values])
    for width, each in zip(widths, values, strict=True):
        if not np.isfinite(each).all():
            raise ValueError(f"quantity must be finite, got {each[~np.isfinite(each)][0]} at {width} particles")
    if not (spreads > 0).all():
        raise ValueError("quantity must vary over replicates, it is the same in all")
    errors = spreads / np.sqrt(counts)
    (limit, bias), chi_square = _least_squares(1 / n, means, errors)
    # The logarithm of a standard deviation of R normal values has the variance 1 / (2 (R - 1)).
    (_, slope), _ = _least_squares(np.log(n), np.log(spreads), 1 / np.sqrt(2 * (counts - 1)))
    freedom = len(n) - 2
    misfit = chi_square / freedom if freedom else math.nan
    return Chaos(np.array(widths), means, errors, spreads, limit, bias, misfit, Estimate(-float(slope), slope.error))


def _least_squares(x: Vector, y: Vector, errors: Vector) -> tuple[tuple[Estimate, Estimate], float]:
    """Line ``y = a + b x`` through values with errors: both coefficients with theirs, and the sum of squares."""
    design = np.stack([np.ones_like(x), x], axis=1) / errors[:, np.newaxis]
    covariance = np.linalg.inv(design.T @ design)
    a, b = covariance @ (design.T @ (y / errors))
    chi_square = float(np.sum(((y - a - b * x) / errors) ** 2))
    deviations = np.sqrt(np.diagonal(covariance))
    return (Estimate(a, deviations[0]), Estimate(b, deviations[1])), chi_square
