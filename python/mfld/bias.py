"""Bias report: an answer with its Monte Carlo error, and with what step size and number of particles did to it.

Differences of runs that see other noise drown in it. Here runs of two step sizes follow the same Brownian paths, and
the halves of a cloud run by themselves on the noise that they had in it (`mfld.noise.Coupling`): what is left of a
difference is the bias. Sources: Giles 2008, "Multilevel Monte Carlo path simulation", for the step size; Haji-Ali,
Tempone 2018, "Multilevel and multi-index Monte Carlo methods for the McKean-Vlasov equation", for the particles.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import validation
from mfld.algorithms import Algorithm
from mfld.certificates import student_quantile
from mfld.errors import DivergenceError
from mfld.noise import Coupling
from mfld.objectives import Game, Objective
from mfld.state import State

_COARSEST = (4, 8)  # times the step size, where finer differences drown
_RESOLVED = 3.0  # standard errors, from which on a difference is seen
_SHARPEST_ORDER = 0.75  # half width of an interval for an order that says something
_ORDER_TOLERANCE = 0.35  # a next term of a seventh of the first one changes an order by as much
_SMALL_STEP = 2_000_000  # particles times rows times coordinates
_ROWS = 10  # of an array, that are shown

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Mean:
    """Mean of independent replicates.

    Attributes
    ----------
    value : float or ndarray
    standard_error : float or ndarray
    degrees_of_freedom : int
        Replicates that it is a mean of, less 1.
    """

    value: Any
    standard_error: Any
    degrees_of_freedom: int

    def half_width(self, confidence: float) -> Any:
        """Half of the interval of Student's law at a confidence."""
        return student_quantile((1 + confidence) / 2, self.degrees_of_freedom) * self.standard_error

    def contains(self, value: ArrayLike, confidence: float) -> Any:
        """True where the interval at a confidence contains a value."""
        return np.abs(self.value - np.asarray(value)) <= self.half_width(confidence)


@dataclass(frozen=True, eq=False, repr=False)
class BiasReport:
    """Outcome of `bias_report`; printing it shows all in some lines.

    Attributes
    ----------
    value : Mean
        The quantity, a mean over replicates of the algorithm as it is.
    spread : float or ndarray
        Standard deviation over replicates: the Monte Carlo error of a single run.
    step_bias, particle_bias : Mean or None
        Value less its limit for small steps, and for many particles. None where the algorithm has no step size, or
        cannot be run at another one.
    extrapolated : Mean
        The value less both.
    step_order, particle_order : Mean or None
        Powers of step size and of 1 / N that the differences fall with; None where there were not three levels.
    step_regime, particle_regime : str
        ``"reached"`` where the order is 1, or for the step size 1 or 2, within its error; ``"not reached"``;
        ``"not resolved"`` where noise hides it; ``"unknown"``.
    coupled : bool
        Whether the runs had common noise.
    cost : float
        Steps times particles of all runs, in those of the runs that the value is a mean of.
    n_replicates : int
    confidence : float
        Of the intervals that are printed.
    notes : tuple of str

    Examples
    --------
    >>> import mfld
    >>> well = mfld.Potential(lambda x: x, n_coordinates=1)
    >>> solver = mfld.MFLD(50, step_size=0.2, temperature=1.0)
    >>> report = mfld.bias_report(solver, well, lambda state: (state.particles**2).mean(), n_steps=40)
    >>> report.step_regime                           # the variance is 1 / (1 - step_size / 2)
    'reached'
    >>> bool(abs(report.step_bias.value - 0.11) < 0.02)
    True
    """

    value: Mean
    spread: Any
    step_bias: Mean | None
    particle_bias: Mean | None
    extrapolated: Mean
    step_order: Mean | None
    particle_order: Mean | None
    step_regime: str
    particle_regime: str
    coupled: bool
    cost: float
    n_replicates: int
    confidence: float
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"BiasReport({self})"

    def __str__(self) -> str:
        biases = [
            name
            for name, bias in (("the step-size bias", self.step_bias), ("the particle bias", self.particle_bias))
            if bias is not None
        ]
        known = {0: "nothing: no bias is known", 1: f"{''.join(biases)} only"}.get(len(biases), "both biases")
        lines = [
            self._line("value", self.value, f"mean of {self.n_replicates} runs; one spreads by {_short(self.spread)}"),
            self._line("step-size bias", self.step_bias, self._regime(self.step_regime, self.step_order)),
            self._line("particle bias", self.particle_bias, self._regime(self.particle_regime, self.particle_order)),
            self._line("extrapolated", self.extrapolated, f"value less {known}"),
            f"intervals at {100 * self.confidence:g} %; {'common' if self.coupled else 'independent'} noise; "
            f"cost {self.cost:.3g} times the {self.n_replicates} runs",
            *self.notes,
        ]
        return "\n".join(lines)

    def _line(self, name: str, estimate: Mean | None, remark: str) -> str:
        if estimate is None:
            return f"{name:15} {'-':>25}   {remark}"
        values, widths = np.ravel(estimate.value), np.ravel(estimate.half_width(self.confidence))
        shown = [f"{v:.6g} +- {w:.2g}" for v, w in zip(values[:_ROWS], widths[:_ROWS], strict=True)]
        more = f" (and {len(values) - _ROWS} more)" if len(values) > _ROWS else ""
        return f"{name:15} {', '.join(shown):>25}{more}   {remark}"

    def _regime(self, regime: str, order: Mean | None) -> str:
        if order is None or not np.all(np.isfinite(order.half_width(self.confidence))):
            return f"asymptotic regime {regime}"
        width = _short(order.half_width(self.confidence))
        return f"order {_short(order.value)} +- {width}, asymptotic regime {regime}"


def _short(value: Any) -> str:
    values = np.ravel(value)
    return f"{values[0]:.2g}" if len(values) == 1 else f"{np.nanmin(values):.2g} to {np.nanmax(values):.2g}"


class _NoSmallerCloud(ValueError):
    """Refusal of a problem to have smaller clouds, or of a quantity to have values that compare with theirs."""


def bias_report(
    solver: Algorithm,
    objective: Any,
    quantity: Callable[[State], ArrayLike],
    n_steps: int,
    seed: int = 0,
    *,
    n_replicates: int = 16,
    confidence: float = 0.95,
) -> BiasReport:
    """Monte Carlo error, step-size bias and particle bias of a quantity at the end of a run.

    The runs, with h the step size, are R replicates at (h, N), whose mean is the value; the same at h/2 and 2h on the
    same Brownian paths; and the halves and quarters of each, as clouds of N/2 and N/4 on the noise of their particles.
    With Q the means, ::

        step-size bias = (8 (Q(h) - Q(h/2)) - (Q(2h) - Q(h))) / 3,       particle bias = (Q(N/4) - Q(N)) / 3

    The first is right for terms h and h**2, whatever the order of the scheme; outside of the asymptotic regime, and
    where Q(2h) is too noisy, it is ``2 (Q(h) - Q(h/2))``. Where both of its differences drown in the noise, the run at
    2h is followed by 4h and 8h, which cost less and differ more, until a difference is seen, or does not agree with the
    finer ones. The second is right for terms 1/N, and ``Q(N/2) - Q(N)`` outside of the asymptotic regime. The order is
    the logarithm, in base 2, of the quotient of two differences that follow each other.

    Errors come from replicates, so that they are right whatever noise the runs have in common; but with few replicates
    of a skew law intervals are too short by some percents. Where common noise cannot be had, as for `PSDCA` and `MALA`,
    which draw in other ways, the runs are independent.

    In all, this takes at most six times the R runs.

    Parameters
    ----------
    solver : Algorithm
        Its replicates are taken as one problem: step size, temperature and l2 must not differ between them. Without a
        step size, and with one that the run finds ("fuse"), that of the end of such a run is taken throughout.
    objective : Objective or Game
    quantity : callable
        Function of the state of one replicate, like those of `mfld.quantities`: a number, or an array.
    n_steps : int
        Even, for steps of twice the size to fit: without them there is no order.
    seed : int
    n_replicates : int
        R, at least 4.
    confidence : float
        Of the intervals that are printed, between 0.5 and 1.

    Returns
    -------
    BiasReport

    Raises
    ------
    DivergenceError
        If a run at (h, N) or finer diverges.
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import mfld
    >>> well = mfld.Potential(lambda x: x, n_coordinates=1)
    >>> solver = mfld.MFLD(50, step_size=0.2, temperature=1.0)
    >>> report = mfld.bias_report(solver, well, lambda state: state.particles.var(), n_steps=40)
    >>> bool(report.particle_bias.contains(-1 / 50 / 0.9, confidence=0.999))     # var divides by N
    True
    """
    validation.instance("solver", solver, Algorithm, "an Algorithm, like MFLD()")
    if not isinstance(objective, Game):
        validation.instance("objective", objective, Objective, "an Objective or a Game")
    validation.function("quantity", quantity)
    n_steps = validation.integer("n_steps", n_steps, 1, validation.MAX_STEP // 2)
    n_replicates = validation.integer("n_replicates", n_replicates, 4)
    confidence = validation.real("confidence", confidence)
    if not 0.5 <= confidence < 1:
        raise ValueError(f"confidence must be at least 0.5 and below 1, got {confidence}")
    for name in ("step_size", "temperature", "l2"):
        if isinstance(getattr(solver, name, None), tuple):
            raise ValueError(f"{name} of solver must be one for all replicates, got {getattr(solver, name)}")
    return _Report(solver, objective, quantity, n_steps, validation.seed(seed), n_replicates).made(confidence)


class _Report:
    """Runs of a report, and what they cost."""

    def __init__(
        self,
        solver: Algorithm,
        objective: Any,
        quantity: Callable[[State], ArrayLike],
        n_steps: int,
        seed: int,
        n_replicates: int,
    ) -> None:
        self.objective, self.quantity = objective, quantity
        self.n_steps, self.seed, self.n_replicates = n_steps, seed, n_replicates
        self.notes: list[str] = []
        self.cost = 1.0
        self._shape: tuple[int, ...] | None = None  # of the quantity
        self._others = n_replicates  # numbers of replicates that nobody has used
        self.solver = _threaded(self._with_step_size(solver).resized(Fraction(1), n_replicates), objective)
        self.start = self.solver.init(objective, seed)
        self.coupled = self._can_be_coupled()

    def made(self, confidence: float) -> BiasReport:
        values = self._ends(self.solver, self.start, self.n_steps)
        step_bias, step_order, step_regime = self._of_step_size(values)
        particle_bias, particle_order, particle_regime = self._of_particles(values)
        extrapolated = values
        for each in (step_bias, particle_bias):
            if each is not None:
                extrapolated = extrapolated - each
        return BiasReport(
            value=_mean(values),
            spread=_plain(values.std(axis=0, ddof=1)),
            step_bias=None if step_bias is None else _mean(step_bias),
            particle_bias=None if particle_bias is None else _mean(particle_bias),
            extrapolated=_mean(extrapolated),
            step_order=step_order,
            particle_order=particle_order,
            step_regime=step_regime,
            particle_regime=particle_regime,
            coupled=self.coupled,
            cost=self.cost,
            n_replicates=self.n_replicates,
            confidence=confidence,
            notes=tuple(self.notes),
        )

    def _with_step_size(self, solver: Algorithm) -> Algorithm:
        given = getattr(solver, "step_size", 0.0)
        if given is not None and not isinstance(given, str):
            return solver
        own: Any = solver.resized(Fraction(1), 1)
        info = own.run(self.objective, self.n_steps, self.seed, record_every=self.n_steps).info
        self.cost += 1 / self.n_replicates
        self.notes.append(f"step size {info.step_size:.4g} throughout, that of the end of an automatic run")
        fixed: Algorithm = dataclasses.replace(own, step_size=info.step_size)
        return fixed

    def _can_be_coupled(self) -> bool:
        solver = self.solver.coupled({key: Coupling(key) for key in self.start.keys})
        if solver is None:
            return False
        try:
            solver.advance(self.objective, self.start, 1)
        except NotImplementedError:
            return False
        return True

    # ---- step size ---------------------------------------------------------------------------------------------------

    def _of_step_size(self, values: Array) -> tuple[Array | None, Mean | None, str]:
        finer = self._at_step(Fraction(1, 2))
        if finer is None:
            self.notes.append("no step-size bias: the algorithm has no one step size to vary")
            return None, None, "unknown"
        fine, coarser = values - finer, self._at_step(Fraction(2))
        if coarser is None:
            if self.n_steps % 2:
                self.notes.append("no order of the step-size bias: n_steps is odd")
            return 2 * fine, None, "unknown"
        coarse = coarser - values
        order, regime = _order(coarse, fine, (1.0, 2.0))
        two, three = 2 * fine, (8 * fine - coarse) / 3
        # 2h may be near the largest stable step.
        wild = np.mean(_mean(three).standard_error) > 2 * np.mean(_mean(two).standard_error)
        bias = two if regime == "not reached" or wild else three
        if _resolved(fine) or _resolved(coarse):
            return bias, order, regime
        for share in _COARSEST:
            further = self._at_step(Fraction(share))
            if further is None:
                break
            rough = (further - values) / (share - 1)
            if not _sharper(rough, bias):
                break
            bias, note = rough, f"step-size bias by steps of {share} h: finer differences drown in the noise"
            self.notes = [*(one for one in self.notes if not one.startswith("step-size bias")), note]
            if _resolved(rough):
                break
        return bias, order, regime

    def _at_step(self, share: Fraction) -> Array | None:
        """Values of the replicates at so many times the step size; None where such a run is not to be had."""
        found = self.solver.at_step(share)
        if found is None or (self.n_steps * found[1]).denominator > 1:
            return None
        solver, ratio = found
        try:
            values = self._values(solver, int(self.n_steps * ratio), share, 1)
        except DivergenceError:
            if share < 1:
                raise
            self.notes.append(f"the run at {share} times the step size diverges")
            return None
        self.cost += float(1 / share)
        return values if np.isfinite(values).all() else None

    # ---- particles ---------------------------------------------------------------------------------------------------

    def _of_particles(self, values: Array) -> tuple[Array | None, Mean | None, str]:
        levels = [values]
        for parts in (2, 4):
            try:
                own = self._values(self._smaller(parts), self.n_steps, Fraction(1), parts)
            except _NoSmallerCloud as error:  # other errors are the quantity's or the run's, and end the report
                missing = "particle bias" if len(levels) == 1 else "order of the particle bias"
                self.notes.append(f"no {missing}: {error}")
                break
            levels.append(own.reshape(-1, parts, *own.shape[1:]).mean(axis=1))
            self.cost += 1.0
        differences = [there - here for here, there in itertools.pairwise(levels)]
        if len(differences) == 2:
            order, regime = _order(differences[1], differences[0], (1.0,))
            # Bias falls like 1/N: quarters differ by three times as much as halves, with as much noise for its size.
            return differences[0] if regime == "not reached" else (levels[2] - values) / 3, order, regime
        return (differences[0] if differences else None), None, "unknown"

    def _smaller(self, parts: int) -> Algorithm:
        """The solver of the parts of each cloud."""
        try:
            solver = self.solver.resized(Fraction(1, parts), self.n_replicates * parts)
            solver.init(self.objective)
        except (NotImplementedError, ValueError) as error:
            raise _NoSmallerCloud(str(error)) from error
        return solver

    # ---- runs --------------------------------------------------------------------------------------------------------

    def _values(self, solver: Algorithm, n_steps: int, share: Fraction, parts: int) -> Array:
        """Values after runs at a share of the step size of equal parts of the cloud: part after part of a replicate."""
        n = self.n_replicates * parts
        first, self._others = self._others, self._others + n
        if not self.coupled:
            return self._ends(solver, solver.init(self.objective, self.seed, replica=first), n_steps)
        start: Any = {}
        for name, cloud in self.start.clouds.items():
            split = np.split(cloud.particles, parts, axis=-2)
            start[name] = np.stack(split, axis=1).reshape(n, *split[0].shape[1:])
        if not isinstance(self.objective, Game):
            (start,) = start.values()
        state = solver.init(self.objective, self.seed, start, replica=first)
        couplings = {
            key: Coupling(self.start.keys[r // parts], share.numerator, share.denominator, r % parts, parts)
            for r, key in enumerate(state.keys)
        }
        coupled = solver.coupled(couplings)
        assert coupled is not None  # by _can_be_coupled
        return self._ends(coupled, state, n_steps)

    def _ends(self, solver: Algorithm, state: State, n_steps: int) -> Array:
        end = solver.run(self.objective, n_steps, state=state, record_every=n_steps).state
        given = [np.asarray(self.quantity(one)) for one in end.each()]
        name = "the result of quantity"
        if given[0].size == 0:
            raise ValueError(f"{name} must have at least one number, got shape {given[0].shape}")
        if self._shape is None:
            self._shape = given[0].shape
        elif self._shape != given[0].shape:
            raise _NoSmallerCloud(
                f"{name} must have one shape at all numbers of particles and step sizes, got {self._shape} and "
                f"{given[0].shape}"
            )
        return np.stack([validation.returned(name, own, given[0].shape, np.float64, "as before") for own in given])


def _threaded(solver: Algorithm, objective: Any) -> Algorithm:
    """The same on one thread where steps are small and nothing else is said: each of them is a call from Python."""
    own: Any = solver
    if isinstance(objective, Game):
        return solver
    if not dataclasses.is_dataclass(solver) or vars(solver).get("num_threads", 1) is not None:
        return solver
    work = vars(solver).get("n_particles", 1) * (solver.rows_of_a_step(objective) or 1) * objective.n_coordinates
    small: Algorithm = dataclasses.replace(own, num_threads=1) if work < _SMALL_STEP else solver
    return small


def _plain(values: Array) -> Any:
    return float(values) if np.ndim(values) == 0 else values


def _mean(values: Array) -> Mean:
    error = values.std(axis=0, ddof=1) / math.sqrt(len(values))
    return Mean(_plain(values.mean(axis=0)), _plain(error), len(values) - 1)


def _resolved(differences: Array) -> bool:
    found = _mean(differences)
    return bool(np.any(np.abs(found.value) > _RESOLVED * found.standard_error))


def _sharper(rough: Array, bias: Array) -> bool:
    """True where a rough estimate has the smaller error, and lies within that of a finer one."""
    new, old = _mean(rough), _mean(bias)
    near = np.abs(new.value - old.value) <= 2 * old.standard_error
    return bool(np.mean(near) > 0.9 and np.mean(new.standard_error) < np.mean(old.standard_error))


def _order(coarse: Array, fine: Array, expected: tuple[float, ...]) -> tuple[Mean | None, str]:
    """Order by the quotient of two mean differences, with the error of the jackknife, and the verdict."""
    n = len(fine)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.log2(coarse.mean(axis=0) / fine.mean(axis=0))
        left_out = [(total.sum(axis=0) - total) / (n - 1) for total in (coarse, fine)]
        parts = np.log2(left_out[0] / left_out[1])
        error = np.sqrt((n - 1) * np.var(parts, axis=0))
    found = Mean(_plain(value), _plain(error), n - 1)
    width = found.half_width(0.95)
    sharp = np.isfinite(value) & (width < _SHARPEST_ORDER) & np.array(_resolved(coarse) and _resolved(fine))
    if not np.all(sharp):
        return found, "not resolved"
    near = np.any([np.abs(value - order) <= np.maximum(width, _ORDER_TOLERANCE) for order in expected], axis=0)
    return found, "reached" if np.all(near) else "not reached"
