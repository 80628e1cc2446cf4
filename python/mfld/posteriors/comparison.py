"""Sampling of a posterior by several methods, side by side."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mfld import noise, statistics, validation
from mfld.algorithms import MFLD
from mfld.dynamics import MALA, SVGD, Dynamics, Overdamped
from mfld.floating import underflow_is_zero
from mfld.gradients import SVRG, FullBatch, GradientEstimator
from mfld.kernels import InverseMultiquadric
from mfld.objectives import KSD, Potential
from mfld.sampling import GibbsSampler
from mfld.validation import FloatArray

Variables: TypeAlias = Callable[[FloatArray], dict[str, Any]]
"""Values of variables by their names, shape (M, ...), at points of shape (M, p)."""

_SHARE = 0.1  # of the step of MALA, in the methods whose bias grows with the step
_CLOUD = 100  # particles of the methods whose particles interact
_CLOUD_STEPS = 500
_MOST = 10**9  # steps, which would take a day
_AGREED = 1.05  # chains, up to this R-hat


class Row(NamedTuple):
    """A line of the table: a variable by a method.

    ``error`` is the standard error of the mean, ``sd / sqrt(ess)``; it does not know of bias. R-hat, effective sample
    size and error are NaN where draws are no chains.
    """

    variable: str
    method: str
    mean: float
    sd: float
    error: float
    ess: float
    rhat: float


@dataclass(frozen=True, eq=False)
class Draws:
    """Draws of one method.

    Attributes
    ----------
    values : dict of str to ndarray, shape (chain, draw, ...)
        In ArviZ's shape: ``arviz.from_dict({"posterior": values})``.
    step_size : float
    acceptance : float
        NaN where every move is accepted.
    seconds : float
    are_chains : bool
        False where they are the places of particles that interact.
    """

    values: dict[str, NDArray[np.float64]]
    step_size: float
    acceptance: float
    seconds: float
    are_chains: bool = True


@dataclass(frozen=True, eq=False)
class Comparison:
    """Draws of several methods, and the table of what they say; ``print`` shows it.

    Attributes
    ----------
    draws : dict of str to Draws
        By the names of the methods.
    rows : list of Row
        By variable, and within by method.
    """

    draws: dict[str, Draws]
    rows: list[Row]

    def row(self, variable: str, method: str) -> Row:
        """The line of a variable and a method.

        Raises
        ------
        KeyError
            If there is none.
        """
        for row in self.rows:
            if (row.variable, row.method) == (variable, method):
                return row
        raise KeyError(f"no row of {variable!r} by {method!r}")

    def __str__(self) -> str:
        wide = max(len(row.variable) for row in self.rows)
        lines = [f"{'':{wide}}  {'method':6} {'mean':>10} {'sd':>10} {'error':>9} {'ess':>7} {'R-hat':>6}"]
        for row in self.rows:
            known = f"{_shown(row.error, 9, '.2g')} {_shown(row.ess, 7, '.0f')} {_shown(row.rhat, 6, '.3f')}"
            numbers = f"{row.mean:10.4g} {row.sd:10.4g} {known}"
            lines.append(f"{row.variable:{wide}}  {row.method:6} {numbers}")
        for name, draws in self.draws.items():
            accepted = "" if np.isnan(draws.acceptance) else f", {draws.acceptance:.0%} accepted"
            lines.append(f"{name}: step size {draws.step_size:.3g}{accepted}, {draws.seconds:.1f} s")
        lines.append("n effective draws know a mean to sd / sqrt(n): 100 of them to a tenth of the spread")
        apart = [f"{row.variable} by {row.method}" for row in self.rows if row.rhat > _AGREED]
        if apart:
            more = f" and {len(apart) - 3} more" if len(apart) > 3 else ""
            lines.append(
                f"R-hat above {_AGREED}, where chains disagree and no line is right: {', '.join(apart[:3])}{more}"
            )
        return "\n".join(lines)


def _shown(value: float, width: int, form: str) -> str:
    """A number, or a dash where none is known."""
    return f"{'-' if math.isnan(value) else format(value, form):>{width}}"


@underflow_is_zero
def sample(
    posterior: Potential,
    methods: Iterable[str] | None = None,
    *,
    n_chains: int = 8,
    n_draws: int = 500,
    n_steps: int = 10_000,
    warmup: int = 1000,
    step_size: float | None = None,
    variables: Variables | None = None,
    seed: int = 0,
    num_threads: int | None = None,
) -> Comparison:
    """Sample a posterior, the Gibbs law of a potential at temperature 1, by each of several methods.

    The chains are the particles of one run, which do not interact under a potential. They start at the potential's
    initial particles and are warmed up by MALA, whose step is adapted to an acceptance of 0.574; from where they are
    then, each method makes ``n_steps`` steps and keeps ``n_draws`` of them. ``ula`` is the Langevin algorithm without
    acceptance, whose bias grows with its step; it takes a tenth of MALA's. ``sgld`` is the same with mini-batches and
    variance reduction (`SVRG`), for posteriors that are sums over rows. ``mala`` has no bias. ``svgd``, `SVGD`, and
    ``ksd``, descent on the kernel Stein discrepancy, move 100 particles from the end of the warm-up, 500 steps, until
    they settle: one chain in the table, whose draws are their places, of which no R-hat or effective size is known. Few
    particles understate the spread in many dimensions, which the table shows.

    Parameters
    ----------
    posterior : Potential
        With a value.
    methods : iterable of str, optional
        Of `methods`; by default all that suit the posterior.
    n_chains, n_draws : int
        At least 2 and 4.
    n_steps : int
        After the warm-up, a multiple of n_draws.
    warmup : int
    step_size : float, optional
        Of ``ula`` and ``sgld``.
    variables : callable, optional
        ``variables(points)``: a dict of arrays of shape (M, ...) at points of shape (M, p). Default: the method
        ``variables`` of the posterior where it has one, or the coordinates as ``theta``.
    seed : int
    num_threads : int, optional
        It never changes a result.

    Raises
    ------
    ImportError
        If arviz-stats is not installed: ``pip install 'mfld[diagnostics]'``.
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or a method does not suit the posterior.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> inputs = np.stack([np.ones(50), np.linspace(-1, 1, 50)], axis=1)
    >>> exact = mfld.potentials.BayesianLinearRegression(inputs, 1 + inputs[:, 1], prior_variance=10.0)
    >>> table = mfld.posteriors.sample(exact, ["ula", "mala"], n_steps=2000)
    >>> row = table.row("theta[1]", "mala")
    >>> bool(abs(row.mean - exact.posterior_mean[1]) < 5 * row.error), row.rhat < 1.05
    (True, True)
    >>> table.draws["mala"].values["theta"].shape
    (8, 500, 2)
    """
    validation.instance("posterior", posterior, Potential, "a Potential")
    chosen = _chosen(posterior, methods)
    n_chains = validation.integer("n_chains", n_chains, 2)
    n_draws = validation.integer("n_draws", n_draws, 4, _MOST)
    n_steps = validation.integer("n_steps", n_steps, 1, _MOST)
    if n_steps % n_draws:
        raise ValueError(f"n_steps must be a multiple of n_draws, {n_draws}, got {n_steps}")
    warmup = validation.integer("warmup", warmup, 0, _MOST)
    step_size = None if step_size is None else validation.real("step_size", step_size, positive=True)
    if variables is not None:
        validation.function("variables", variables)
    seed = validation.seed(seed)
    measured = variables or getattr(posterior, "variables", None) or (lambda points: {"theta": points})

    start, of_mala = _warm(posterior, max(n_chains, _CLOUD), warmup, seed, num_threads)
    budget = _Budget(n_chains, n_draws, n_steps, of_mala, step_size, num_threads)
    found: dict[str, Draws] = {}
    for number, (name, method) in enumerate(chosen.items()):
        began = time.perf_counter()
        points, size, accepted = method.run(posterior, start, budget, noise.key(seed, number + 1))
        values = _measured(measured, points)
        found[name] = Draws(values, size, accepted, time.perf_counter() - began, method.chains)
    return Comparison(found, _table(found))


@dataclass(frozen=True)
class _Budget:
    """Sizes and steps that the methods have in common."""

    n_chains: int
    n_draws: int
    n_steps: int
    of_mala: float
    step_size: float | None
    num_threads: int | None


@dataclass(frozen=True)
class _Method:
    """How points move: particles that are chains, of which draws are kept."""

    dynamics: Dynamics
    gradient: GradientEstimator = field(default_factory=FullBatch)
    exact: bool = False

    chains: ClassVar[bool] = True

    def complaint(self, posterior: Potential) -> str | None:
        """Description of what the method needs, where the posterior lacks it; else None."""
        if self.gradient.exact or posterior.n_samples is not None:
            return None
        return "a posterior that is a sum over rows, like Posterior(likelihood)"

    def run(
        self, posterior: Potential, start: FloatArray, budget: _Budget, seed: int
    ) -> tuple[FloatArray, float, float]:
        """Points, shape (chain, draw, p), the step size, and the share of moves that was accepted."""
        size = budget.of_mala if self.exact else budget.step_size or _SHARE * budget.of_mala
        solver = MFLD(
            budget.n_chains,
            step_size=size,
            temperature=1.0,
            gradient=self.gradient,
            dynamics=self.dynamics,
            dtype="float64",
            num_threads=budget.num_threads,
        )
        result = solver.run(
            posterior,
            budget.n_steps,
            seed,
            particles=start[: budget.n_chains],
            record_every=budget.n_steps // budget.n_draws,
            record={"points": lambda state: state.particles},
        )
        points = np.moveaxis(result.history["points"], 0, 1)
        return points, size, float(np.mean(result.history["acceptance"]))


@dataclass(frozen=True)
class _Stein(_Method):
    """Particles that interact and settle: their last places are the draws."""

    chains: ClassVar[bool] = False

    def run(
        self, posterior: Potential, start: FloatArray, budget: _Budget, seed: int
    ) -> tuple[FloatArray, float, float]:
        size = budget.of_mala / 2
        solver = self._solver(size, 1.0, budget)
        points = solver.run(posterior, _CLOUD_STEPS, seed, particles=start, record_every=_CLOUD_STEPS).particles
        return points[np.newaxis], size, math.nan

    def _solver(self, step_size: float | None, temperature: float, budget: _Budget) -> MFLD:
        return MFLD(
            max(budget.n_chains, _CLOUD),
            step_size=step_size,
            temperature=temperature,
            dynamics=self.dynamics,
            dtype="float64",
            num_threads=budget.num_threads,
        )


@dataclass(frozen=True)
class _Discrepancy(_Stein):
    """The same by descent on the kernel Stein discrepancy."""

    def run(
        self, posterior: Potential, start: FloatArray, budget: _Budget, seed: int
    ) -> tuple[FloatArray, float, float]:
        kernel = InverseMultiquadric(tuple(np.std(start, axis=0)))
        objective = KSD(posterior, kernel)
        solver = self._solver(None, 0.0, budget)
        result = solver.run(objective, _CLOUD_STEPS, seed, particles=start, record_every=_CLOUD_STEPS)
        return result.particles[np.newaxis], result.info.step_size, math.nan


_METHODS: dict[str, _Method] = {
    "ula": _Method(Overdamped()),
    "mala": _Method(MALA(), exact=True),
    "sgld": _Method(Overdamped(), SVRG()),
    "svgd": _Stein(SVGD()),
    "ksd": _Discrepancy(Overdamped()),
}


def methods() -> list[str]:
    """Names of the ways to sample.

    Examples
    --------
    >>> from mfld import posteriors
    >>> posteriors.methods()
    ['ula', 'mala', 'sgld', 'svgd', 'ksd']
    """
    return list(_METHODS)


def _chosen(posterior: Potential, methods: Iterable[str] | None) -> dict[str, _Method]:
    if methods is None:
        return {name: method for name, method in _METHODS.items() if method.complaint(posterior) is None}
    try:
        names = None if isinstance(methods, str) else list(methods)
    except TypeError:  # no sequence, or one without an axis
        names = None
    if names is None:
        raise TypeError(f"methods must be several names, like ['mala'], got {validation.show(methods)}")
    chosen = {}
    for each in names:
        name = validation.choice("methods", each, _METHODS)
        complaint = _METHODS[name].complaint(posterior)
        if complaint is not None:
            raise ValueError(f"methods must be without {name!r} here, which needs {complaint}")
        chosen[name] = _METHODS[name]
    if not chosen:
        raise ValueError("methods must have one name at least")
    return chosen


def _warm(
    posterior: Potential, n_chains: int, warmup: int, seed: int, num_threads: int | None
) -> tuple[FloatArray, float]:
    """Points to start from, and the step at which MALA accepts 0.574 of its proposals."""
    points = posterior.initial_particles(n_chains, seed, "float64")
    sampler = GibbsSampler(posterior, 1.0, noise.key(seed, 0), num_threads=num_threads)
    chains = sampler.start(points)
    logs = []
    for move in range(warmup):
        chains = sampler.move(chains)
        if 2 * move >= warmup:  # each step is noisy, of few chains; their mean is not
            logs.append(np.log(chains.step_size))
    return chains.points, float(np.exp(np.mean(logs))) if logs else chains.step_size


def _measured(variables: Variables, points: FloatArray) -> dict[str, NDArray[np.float64]]:
    n_chains, n_draws, p = points.shape
    values = validation.instance("what variables returned", variables(points.reshape(-1, p)), dict, "a dict of arrays")
    checked: dict[str, NDArray[np.float64]] = {}
    for name, array in values.items():
        each = validation.array(f"variables(points)[{name!r}]", array, np.float64)
        if each.ndim == 0 or len(each) != n_chains * n_draws:
            raise ValueError(f"variables(points)[{name!r}] must have a value for each point, got shape {each.shape}")
        checked[str(name)] = each.astype(np.float64, copy=False).reshape(n_chains, n_draws, *each.shape[1:])
    return checked


def _table(found: dict[str, Draws]) -> list[Row]:
    rows: dict[str, list[Row]] = {}
    for method, draws in found.items():
        for name, values in draws.values.items():
            agreed = statistics.of_chains(values) if draws.are_chains else None
            for place in np.ndindex(values.shape[2:]):
                label = name + "".join(f"[{number}]" for number in place)
                own = values[(slice(None), slice(None), *place)]
                sd = float(np.std(own, ddof=1))
                ess, rhat = (math.nan,) * 2 if agreed is None else (float(agreed.ess[place]), float(agreed.rhat[place]))
                row = Row(label, method, float(own.mean()), sd, sd / ess**0.5, ess, rhat)
                rows.setdefault(label, []).append(row)
    return [row for group in rows.values() for row in group]
