"""Planner: step size, steps, particles and batches that the theory asks for, and what a run needed in fact."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mfld import noise, validation
from mfld.algorithms import Algorithm
from mfld.certificates import certificate
from mfld.objectives import EmpiricalRisk, Objective
from mfld.theory.curves import ESTIMATORS, Bound, discrete
from mfld.theory.lsi import LogSobolev, in_powers, log_sobolev

_LARGEST_STEP = 0.25  # h <= 1/4 and alpha T h <= 1/4, of the bounds whose constants are not known
_REFERENCE_DRAWS = 4096
_MOST_PARTICLES = 1e15


@dataclass(frozen=True)
class Observed:
    """Count of steps at which a run has converged in fact.

    Attributes
    ----------
    steps : int or None
        None where it has not, within the steps that it had.
    by : str
        ``"certificate"``: the duality gap of its dual variables is below the accuracy, and the cloud as close to what
        is certified. ``"plateau"``: while the steps doubled twice the objective changed by less than half of it each
        time, which is no proof.
    most_steps : int
        Steps that it had.
    """

    steps: int | None
    by: str
    most_steps: int

    def __str__(self) -> str:
        if self.steps is None:
            return f"a run has not converged in {self.most_steps} steps, by its {self.by}"
        return f"a run has converged after {self.steps} step{'s' * (self.steps > 1)}, by its {self.by}"


@dataclass(frozen=True)
class Plan:
    """Plan for an accuracy; printing it says what it rests on, and how much of it is to be believed.

    Attributes
    ----------
    step_size : float
    log_steps : float
        Natural logarithm of the number of steps, which may be beyond all floats.
    n_particles : int
    batch_size, refresh_every : int or None
        Where the estimator has them.
    accuracy, temperature : float
    bound : Bound
        Curve at these numbers.
    log_sobolev : LogSobolev
    dominated_by : str
        What limits the step size: ``"step"``, ``"batch"`` or ``"stability"``.
    guesses : tuple of str
        Terms that are an order of magnitude only.

    Examples
    --------
    >>> import mfld
    >>> well = mfld.potentials.Gaussian([0.0])
    >>> found = mfld.theory.plan(well, accuracy=0.1, temperature=1.0, initial_gap=1.0)
    >>> found.n_steps, found.guesses, found.dominated_by
    (480, (), 'step')
    """

    step_size: float
    log_steps: float
    n_particles: int
    batch_size: int | None
    refresh_every: int | None
    accuracy: float
    temperature: float
    bound: Bound
    log_sobolev: LogSobolev
    dominated_by: str
    guesses: tuple[str, ...]
    observed: Observed | None = None

    @property
    def n_steps(self) -> int | None:
        """Number of steps; None where it is beyond all that can be made."""
        return math.ceil(math.exp(self.log_steps)) if self.log_steps < math.log(validation.MAX_STEP) else None

    @property
    def log_e_folding(self) -> float:
        """Natural logarithm of the time in which the excess falls by e in continuous time, ``1 / (2 alpha T)``."""
        return -(math.log(2 * self.temperature) + self.log_sobolev.log_value)

    def __str__(self) -> str:
        rows = [("rows of a batch", self.batch_size), ("steps between full gradients", self.refresh_every)]
        lines = [
            f"plan for an excess of {self.accuracy:g} at temperature {self.temperature:g}",
            f"  step size {self.step_size:.3g}, limited by {self.dominated_by}",
            f"  steps {in_powers(self.log_steps)}",
            f"  particles {self.n_particles}",
            *(f"  {name} {value}" for name, value in rows if value is not None),
            f"  time of an e-folding {in_powers(self.log_e_folding)}",
            "  terms that stay: " + ", ".join(f"{name} {value:.2g}" for name, value in self.bound.floor.items()),
            f"  log-Sobolev constant {in_powers(self.log_sobolev.log_value)}, by {self.log_sobolev.best.name}",
        ]
        if self.guesses:
            lines.append(f"  orders of magnitude only, with constants taken as 1: {', '.join(self.guesses)}")
        if self.observed is not None:
            lines.append(f"  {self.observed}; the theory asks for {in_powers(self.log_steps)}")
        elif self.log_steps > math.log(1e9):
            lines.append("  nobody runs so many steps: the bound says little here. See theory.observe")
        return "\n".join(lines)


def plan(
    objective: Objective,
    accuracy: float,
    temperature: float,
    *,
    initial_gap: float | None = None,
    estimator: str = "full",
    smoothness: float | None = None,
    oscillation: float | None = None,
    lipschitz: float | None = None,
    convexity: float | None = None,
    fluctuation: float | None = None,
    run: Algorithm | None = None,
    most_steps: int = 10_000,
) -> Plan:
    """Plan by the bound of `theory.discrete`: half of the accuracy for the start to be forgotten, half for what stays.

    The particles take a quarter of the accuracy; the step size is then the largest one that leaves room for all other
    terms, within the conditions of the bounds. SVRG takes B = n**(1/3) rows and m = B**2, mini-batches ``min(n, (alpha
    T accuracy)**(-1/2))``.

    Parameters
    ----------
    objective : Objective
    accuracy : float
        Of ``L(mu) - L*``: positive.
    temperature : float
        Positive.
    initial_gap : float, optional
        Of the start. By default, for risks, of a start at the Gaussian reference: since losses are not negative it is
        at most the risk there.
    estimator : {"full", "minibatch", "svrg"}
    smoothness : float, optional
        Lipschitz constant of the gradient of the first variation, without the ridge. By default what the objective
        knows, else 1, as an order of magnitude.
    oscillation, lipschitz, convexity : float, optional
        As in `theory.log_sobolev`.
    fluctuation : float, optional
        As in `Objective.bounds`, by default what the objective knows.
    run : Algorithm, optional
        Run this one as well and see when it has converged, see `theory.observe`; of the same temperature and ridge.
    most_steps : int
        Of that run.

    Returns
    -------
    Plan

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or what is not known of the objective must be given.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> inputs = np.linspace(-1, 1, 20)[:, np.newaxis]
    >>> model = mfld.TwoLayerNetwork(n_features=1, readout="bounded")
    >>> risk = mfld.EmpiricalRisk(model, inputs, np.sign(inputs[:, 0]), loss="logistic", l2=0.1)
    >>> found = mfld.theory.plan(risk, accuracy=0.05, temperature=0.1)
    >>> found.n_particles, found.guesses
    (10, ('step',))
    >>> print(str(found).splitlines()[-1].strip())                     # at a log-Sobolev constant of 2 exp(-18)
    nobody runs so many steps: the bound says little here. See theory.observe
    """
    validation.instance("objective", objective, Objective, "an Objective")
    accuracy = validation.real("accuracy", accuracy, positive=True)
    temperature = validation.real("temperature", temperature, positive=True)
    validation.choice("estimator", estimator, ESTIMATORS)
    alpha = log_sobolev(objective, temperature, oscillation=oscillation, lipschitz=lipschitz, convexity=convexity)
    if not 1e-300 < alpha.value * temperature < 1e300 or not 1e-300 < alpha.value < 1e300:
        raise ValueError(
            f"temperature must be another one for a plan, got {temperature:g}: the log-Sobolev constant is "
            f"{in_powers(alpha.log_value)} there"
        )
    if run is not None:
        validation.instance("run", run, Algorithm, "an Algorithm, like MFLD()")
        for name, planned in (("temperature", temperature), ("l2", objective.l2)):
            own = getattr(run, name, None)
            if isinstance(own, float) and own != planned:
                raise ValueError(f"run must have the {name} of the plan, {planned:g}, got {own:g}")
    known = objective.bounds()
    if fluctuation is None:
        fluctuation = known.fluctuation if math.isfinite(known.fluctuation) else None
    else:
        fluctuation = validation.real("fluctuation", fluctuation, non_negative=True)
    if smoothness is None:
        smoothness = known.smoothness if math.isfinite(known.smoothness) else None
    else:
        smoothness = validation.real("smoothness", smoothness, positive=True)
    gap = _initial_gap(objective, temperature) if initial_gap is None else initial_gap
    gap = validation.real("initial_gap", gap, positive=True)

    n_particles = 1
    if not objective.linear:
        per_particle = 1 / (alpha.value * temperature) if fluctuation is None else fluctuation
        if not 4 * per_particle < _MOST_PARTICLES * accuracy:
            raise ValueError(
                f"accuracy must be larger for a plan, got {accuracy:g}: fluctuations of {per_particle:.3g} / N ask for "
                f"more than {_MOST_PARTICLES:.0g} particles"
            )
        n_particles = max(1, math.ceil(4 * per_particle / accuracy))
    n = objective.n_samples or 0
    batch_size = refresh_every = None
    if estimator != "full":
        if n < 2:
            raise ValueError(f"estimator must be full for an objective without samples, got {estimator}")
        batch_size, refresh_every = _batches(estimator, n, alpha.value * temperature * accuracy)

    def bound_at(step_size: float) -> Bound:
        return discrete(
            gap,
            alpha.value,
            temperature,
            step_size,
            n_particles=n_particles,
            fluctuation=fluctuation,
            smoothness=None if smoothness is None else smoothness + 2 * objective.l2,
            n_coordinates=objective.n_moving,
            linear=objective.linear,
            estimator=estimator,
            n_samples=n,
            batch_size=batch_size or 0,
            refresh_every=refresh_every or 1,
        )

    largest = min(_LARGEST_STEP, _LARGEST_STEP / (alpha.value * temperature))
    step_size = _largest(lambda h: bound_at(h).limit <= accuracy / 2, largest)
    bound = bound_at(step_size)
    terms = {name: value for name, value in bound.floor.items() if name != "particles"}
    dominated_by = "stability" if step_size == largest else max(terms, key=lambda name: terms[name])
    observed = None if run is None else observe(objective, run, accuracy, most_steps=most_steps)
    return Plan(
        step_size,
        bound.log_steps(accuracy),
        n_particles,
        batch_size,
        refresh_every,
        accuracy,
        temperature,
        bound,
        alpha,
        dominated_by,
        bound.guesses,
        observed,
    )


def observe(
    objective: Objective, solver: Algorithm, accuracy: float, seed: int = 0, *, most_steps: int = 10_000
) -> Observed:
    """Count of steps at which a run has converged to an accuracy, seen at powers of 2.

    Where there is a certificate (a risk with a convex loss that has a conjugate, a ridge and a temperature), it is the
    first count at which the gap of the run's dual variables is certified to be below the accuracy, and the objective
    ``F`` at the cloud within the accuracy of that at the measure that is certified, the Gibbs measure of the dual
    variables. Else it is a plateau: the first count after which the objective
    ``F(mu)`` changes by less than half of the accuracy while the steps double, twice.

    Parameters
    ----------
    objective : Objective
    solver : Algorithm
    accuracy : float
        Positive.
    seed : int
    most_steps : int

    Returns
    -------
    Observed

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import mfld
    >>> well = mfld.potentials.Gaussian([3.0])
    >>> solver = mfld.MFLD(10_000, step_size=0.1, temperature=1.0)
    >>> print(mfld.theory.observe(well, solver, accuracy=0.2))
    a run has converged after 32 steps, by its plateau
    """
    validation.instance("objective", objective, Objective, "an Objective")
    validation.instance("solver", solver, Algorithm, "an Algorithm, like MFLD()")
    accuracy = validation.real("accuracy", accuracy, positive=True)
    most_steps = validation.integer("most_steps", most_steps, 1, validation.MAX_STEP)
    state = solver.init(objective, validation.seed(seed))
    loss = getattr(objective, "loss_function", None)
    certified = objective.n_samples is not None and getattr(loss, "has_conjugate", False)
    values: list[float] = []
    steps = 1
    while steps <= most_steps:
        state, info = solver.advance(objective, state, steps - state.step)
        if certified:
            found = certificate(
                validation.instance("objective", objective, EmpiricalRisk, "an EmpiricalRisk, to be certified"),
                solver.dual(objective, state),
                solver.certified(objective, info)[0],
                tolerance=accuracy / 10,
                n_chains=256,
                most_moves=1024,
            )
            if found.reason is None and found.upper <= accuracy and found.particles is not None:
                apart = abs(objective.value(state.measure) - objective.value(found.particles))
                if apart <= accuracy:
                    return Observed(steps, "certificate", most_steps)
            certified = found.reason is None or "mix" in found.reason
        if not certified:
            values.append(float(np.mean([objective.value(one.measure) for one in state.each()])))
            changes = np.abs(np.diff(values[-3:]))
            if len(values) >= 3 and (changes < accuracy / 2).all():
                return Observed(steps // 4, "plateau", most_steps)
        steps *= 2
    return Observed(None, "certificate" if certified else "plateau", most_steps)


def _initial_gap(objective: Objective, temperature: float) -> float:
    if objective.linear or not objective.has_value or objective.n_samples is None or not objective.reference.proper:
        raise ValueError("initial_gap must be given: it is known for risks with a ridge only")
    place = noise.Place.of(0)
    particles = objective.initial_particles(_REFERENCE_DRAWS, place, "float64")
    m = objective.n_moving
    particles[:, :m] = objective.reference.draw(place, _REFERENCE_DRAWS, objective.space, temperature, "float64")
    return objective.loss(particles)


def _batches(estimator: str, n: int, scale: float) -> tuple[int, int | None]:
    if estimator == "minibatch":
        return min(n, max(1, math.ceil(scale**-0.5))), None
    size = max(1, round(n ** (1 / 3)))
    return size, size**2


def _largest(fits: Callable[[float], bool], largest: float) -> float:
    """The largest step size that fits, up to a part in a thousand, where smaller ones fit too."""
    if fits(largest):
        return largest
    low, high = math.log(1e-300), math.log(largest)
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (middle, high) if fits(math.exp(middle)) else (low, middle)
    return math.exp(low)
