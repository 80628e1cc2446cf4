"""Schedules: a step size, a temperature or a ridge that depends on the step.

Wherever an algorithm takes one of these numbers, it takes a number, a `Schedule`, or any function of the step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mfld import validation

Steps: TypeAlias = NDArray[np.int64]
Values: TypeAlias = NDArray[np.float64]


class Schedule(ABC):
    """A number that depends on the step k, counted from 0 over the whole run: a pure function, so that runs restart.

    Schedules multiply: with each other, and with numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld.schedules import Geometric, Power
    >>> cooling = 0.1 * Geometric(1.0, factor=0.5, stage_length=10) * Power(1.0, exponent=1)
    >>> cooling(np.array([0, 1, 10])).round(5)
    array([0.1    , 0.05   , 0.00455])
    """

    @abstractmethod
    def __call__(self, steps: Steps) -> Values:
        """Values at an array of steps."""

    def __mul__(self, other: Schedule | float) -> Schedule:
        return Product(self, _schedule("a factor of a schedule", other))

    __rmul__ = __mul__


@dataclass(frozen=True)
class Constant(Schedule):
    """The same value at every step.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld.schedules import Constant
    >>> Constant(0.5)(np.arange(3))
    array([0.5, 0.5, 0.5])
    """

    value: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", validation.real("value", self.value, non_negative=True))

    def __call__(self, steps: Steps) -> Values:
        return np.full(len(steps), self.value)


@dataclass(frozen=True)
class Geometric(Schedule):
    """Stages: ``initial * factor**(k // stage_length)``.

    The annealing of Suzuki, Wu, Oko, Nitanda 2023, "Feature learning via mean-field Langevin dynamics", halves the
    temperature from stage to stage.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld.schedules import Geometric
    >>> Geometric(1.0, factor=0.5, stage_length=2)(np.arange(5))
    array([1.  , 1.  , 0.5 , 0.5 , 0.25])
    """

    initial: float
    factor: float
    stage_length: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "initial", validation.real("initial", self.initial, non_negative=True))
        object.__setattr__(self, "factor", validation.real("factor", self.factor, positive=True))
        object.__setattr__(
            self, "stage_length", validation.integer("stage_length", self.stage_length, 1, validation.MAX_STEP)
        )

    def __call__(self, steps: Steps) -> Values:
        stage: Values = (steps // self.stage_length).astype(np.float64)
        with np.errstate(over="ignore", under="ignore"):  # an infinite value is refused with its step
            return np.asarray(self.initial * self.factor**stage, np.float64)


@dataclass(frozen=True)
class Logarithmic(Schedule):
    """Classical annealing: ``scale / log(2 + k)``.

    Source: Chizat 2022, "Mean-field Langevin dynamics: exponential convergence and annealing", which proves it for the
    temperature.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld.schedules import Logarithmic
    >>> Logarithmic(1.0)(np.array([0, 100])).round(3)
    array([1.443, 0.216])
    """

    scale: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", validation.real("scale", self.scale, non_negative=True))

    def __call__(self, steps: Steps) -> Values:
        return np.asarray(self.scale / np.log(2.0 + steps), np.float64)


@dataclass(frozen=True)
class Power(Schedule):
    """Power law: ``initial / (1 + k)**exponent``.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld.schedules import Power
    >>> Power(1.0, exponent=0.5)(np.array([0, 3]))
    array([1. , 0.5])
    """

    initial: float
    exponent: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "initial", validation.real("initial", self.initial, non_negative=True))
        object.__setattr__(self, "exponent", validation.real("exponent", self.exponent, non_negative=True))

    def __call__(self, steps: Steps) -> Values:
        with np.errstate(over="ignore", under="ignore"):  # a power beyond all bounds makes 0
            return np.asarray(self.initial / (1.0 + steps) ** self.exponent, np.float64)


@dataclass(frozen=True)
class Piecewise(Schedule):
    """One schedule after another: schedule j rules from step ``starts[j]`` on and counts from there.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld.schedules import Constant, Piecewise, Power
    >>> Piecewise([Constant(2.0), Power(1.0)], starts=[0, 3])(np.arange(5))
    array([2. , 2. , 2. , 1. , 0.5])
    """

    schedules: Sequence[Schedule | float]
    starts: Sequence[int]

    def __post_init__(self) -> None:
        validation.instance("schedules", self.schedules, Sequence, "a sequence of schedules and numbers")
        validation.instance("starts", self.starts, Sequence, "a sequence of integers")
        schedules = tuple(_schedule(f"schedules[{j}]", given) for j, given in enumerate(self.schedules))
        starts = tuple(validation.integer("starts", start, 0, validation.MAX_STEP) for start in self.starts)
        if len(starts) != len(schedules) or not starts or starts[0] != 0 or list(starts) != sorted(set(starts)):
            raise ValueError(
                f"starts must be 0 and then increase, one for each of {len(schedules)} schedules; got {starts}"
            )
        object.__setattr__(self, "schedules", schedules)
        object.__setattr__(self, "starts", starts)

    def __call__(self, steps: Steps) -> Values:
        piece = np.searchsorted(self.starts, steps, side="right") - 1
        values = np.empty(len(steps))
        for j, schedule in enumerate(self.schedules):
            assert isinstance(schedule, Schedule)
            values[piece == j] = schedule(steps[piece == j] - self.starts[j])
        return values


@dataclass(frozen=True)
class SwitchOff(Schedule):
    """A schedule whose value is 0 from step ``at`` on: the noiseless tail of a run.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld.schedules import SwitchOff
    >>> SwitchOff(0.5, at=2)(np.arange(4))
    array([0.5, 0.5, 0. , 0. ])
    """

    schedule: Schedule | float
    at: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedule", _schedule("schedule", self.schedule))
        object.__setattr__(self, "at", validation.integer("at", self.at, 0, validation.MAX_STEP))

    def __call__(self, steps: Steps) -> Values:
        assert isinstance(self.schedule, Schedule)
        return np.where(steps < self.at, self.schedule(steps), 0.0)


@dataclass(frozen=True)
class Product(Schedule):
    """The product of two schedules, as ``a * b`` makes it."""

    left: Schedule
    right: Schedule

    def __post_init__(self) -> None:
        for name in ("left", "right"):
            validation.instance(name, getattr(self, name), Schedule, "a Schedule")

    def __call__(self, steps: Steps) -> Values:
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # not finite: refused with its step
            return self.left(steps) * self.right(steps)


@dataclass(frozen=True)
class Stretched(Schedule):
    """A schedule or function of the step at another step size: ``factor * schedule(floor(k * share))``.

    With steps of half the size (``share = Fraction(1, 2)``) it takes two steps for one of the schedule, which then has
    the same value at the same time.

    Examples
    --------
    >>> from fractions import Fraction
    >>> import numpy as np
    >>> from mfld.schedules import Power, Stretched
    >>> Stretched(Power(1.0), Fraction(1, 2))(np.arange(5)).round(3)
    array([1.   , 1.   , 0.5  , 0.5  , 0.333])
    """

    schedule: Schedule | Callable[[int], float]
    share: Fraction
    factor: float = 1.0

    def __call__(self, steps: Steps) -> Values:
        then = steps * self.share.numerator // self.share.denominator
        if isinstance(self.schedule, Schedule):
            return self.factor * self.schedule(then)
        return self.factor * np.array([self.schedule(k) for k in then.tolist()], np.float64)


def stretched(value: Any, share: Fraction, factor: float = 1.0) -> Any:
    """A number times a factor, or what depends on the step as `Stretched`; None, and each of several, likewise."""
    if value is None or isinstance(value, tuple):
        return value if value is None else tuple(stretched(own, share, factor) for own in value)
    return Stretched(value, share, factor) if callable(value) else factor * value


def _schedule(name: str, value: Schedule | float) -> Schedule:
    return value if isinstance(value, Schedule) else Constant(validation.real(name, value, non_negative=True))


Scheduled: TypeAlias = float | Schedule | Callable[[int], float]
"""A number, a `Schedule`, or a function of the step."""


def check_each(
    name: str, value: Any, n_replicates: int, *, positive: bool = False
) -> Scheduled | tuple[Scheduled, ...]:
    """The value as `check` has it, or a tuple of them, one for each replicate."""
    several = isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim > 0)
    if not several:
        return check(name, value, positive=positive)
    if len(value) != n_replicates:
        raise ValueError(
            f"{name} must be one for all replicates, or a sequence of n_replicates={n_replicates}, got {len(value)}"
        )
    return tuple(check(f"{name}[{r}]", own, positive=positive) for r, own in enumerate(value))


def check(name: str, value: Scheduled, *, positive: bool = False) -> Scheduled:
    """The value as it came, once it is known to be a number in range, a schedule or a function."""
    if isinstance(value, Schedule) or callable(value):
        return value
    return validation.real(name, value, positive=positive, non_negative=not positive)


def table(
    name: str, value: Scheduled | tuple[Scheduled, ...], first: int, n_steps: int, *, positive: bool = False
) -> float | Values:
    """`values` with a row for each replicate, or one for all: a number, or shape (1 or n_replicates, 1 or n_steps)."""
    if isinstance(value, float):
        return value
    if not isinstance(value, tuple):
        return values(name, value, first, n_steps, positive=positive)[np.newaxis]
    rows = [values(f"{name}[{r}]", own, first, n_steps, positive=positive) for r, own in enumerate(value)]
    return np.stack(np.broadcast_arrays(*rows))


def values(name: str, value: Scheduled, first: int, n_steps: int, *, positive: bool = False) -> Values:
    """Values at steps ``first, first + 1, ...``: of length 1 where they cannot differ, else of length ``n_steps``.

    Raises ValueError where one is out of range, with its step.
    """
    if not callable(value):
        return np.array([value], np.float64)
    steps = np.arange(first, first + n_steps, dtype=np.int64)
    if isinstance(value, Schedule):
        result = np.ascontiguousarray(value(steps), np.float64)
        validation.shape(f"{name}(steps)", result, (n_steps,), "to match steps")
    else:
        result = np.array([validation.real(f"{name}({k})", value(k)) for k in steps.tolist()], np.float64)
    bad = ~np.isfinite(result) | (result <= 0 if positive else result < 0)
    if bad.any():
        k = int(np.argmax(bad))
        expected = "positive" if positive else "at least 0"
        raise ValueError(f"{name} must be finite and {expected} at every step, got {result[k]} at step {first + k}")
    return result
