"""Callbacks: what a run calls on its way."""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from mfld import validation
from mfld.state import Info, State

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from mfld.algorithms.base import Algorithm
    from mfld.objectives import Objective

SEEN = tuple(
    field.name for field in dataclasses.fields(Info) if field.name not in ("steps", "gradient_variance", "replicates")
)
"""Entries of `Info` that a history has."""


@runtime_checkable
class Callback(Protocol):
    """What a run calls on its way: to show, to save, to stop early. Subclass it and define ``__call__``.

    Attributes
    ----------
    every : int or None
        Call at each multiple of so many steps and at the end. None: about ten times a second and at the end, for
        display only, since the steps at which this falls depend on the machine. Neither changes the result of the run.

    Examples
    --------
    >>> import mfld
    >>> class StopWhenFlat(mfld.Callback):
    ...     every = 10
    ...     def __call__(self, state, info):
    ...         return info.gradient_norm < 0.5
    >>> well = mfld.Potential(lambda x: x, n_coordinates=1)
    >>> descent = mfld.MFLD(n_particles=100, step_size=0.1, temperature=0.0)
    >>> descent.run(well, n_steps=1000, callbacks=[StopWhenFlat()]).state.step
    10
    """

    every: int | None = 1

    def on_problem(self, algorithm: Algorithm, objective: Objective) -> None:
        """Called first, with what runs on what."""
        return

    def on_start(self, state: State, n_steps: int) -> None:
        """Called once before ``n_steps`` steps."""

    def __call__(self, state: State, info: Info) -> bool | None:
        """Called on the way with the state and what the last step saw; True stops the run here."""

    def on_end(self, state: State) -> None:
        """Called once at the end, also when an error ends the run."""


class StopWhen(Callback):
    """Stop a run as soon as a condition holds.

    Parameters
    ----------
    condition : callable
        ``condition(state, info)``: whether to stop.
    every : int
        Ask at each multiple of so many steps.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import mfld
    >>> well = mfld.Potential(lambda x: x, n_coordinates=1)
    >>> descent = mfld.MFLD(n_particles=100, step_size=0.1, temperature=0.0)
    >>> flat = mfld.StopWhen(lambda state, info: info.gradient_norm < 0.5, every=10)
    >>> descent.run(well, n_steps=1000, callbacks=[flat]).state.step
    10
    """

    def __init__(self, condition: Callable[[State, Info], bool], every: int = 1) -> None:
        validation.function("condition", condition)
        self.every = validation.integer("every", every, 1)
        self._condition = condition

    def __call__(self, state: State, info: Info) -> bool:
        return bool(self._condition(state, info))


class StopOnPlateau(Callback):
    """Stop a run when a quantity that should fall has not fallen for some time.

    A value is progress if it is below the lowest one since the start of the run by more than ``tolerance``. After
    ``patience`` values in a row without progress the run stops; NaN is no progress. A run that goes on from a state
    starts to count anew.

    Parameters
    ----------
    quantity : callable or str
        A function of the state, like ``mfld.quantities.loss(validation_risk)``, or the name of an entry of `Info`.
    patience : int
    tolerance : float
        At least 0, in the units of the quantity.
    every : int
        Look at each multiple of so many steps.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> import mfld
    >>> well = mfld.Potential(lambda x: x, lambda x: (x**2).sum(axis=1) / 2, n_coordinates=1)
    >>> descent = mfld.MFLD(n_particles=1, step_size=0.5, temperature=0.0)
    >>> plateau = mfld.StopOnPlateau("loss", patience=3, tolerance=0.01)
    >>> descent.run(well, n_steps=1000, particles=[[1.0]], callbacks=[plateau]).state.step
    7
    """

    def __init__(
        self,
        quantity: Callable[[State], ArrayLike] | str,
        patience: int = 10,
        tolerance: float = 0.0,
        every: int = 1,
    ) -> None:
        if isinstance(quantity, str):
            validation.choice("quantity", quantity, SEEN)
        else:
            validation.function("quantity", quantity)
        self._quantity = quantity
        self._patience = validation.integer("patience", patience, 1)
        self._tolerance = validation.real("tolerance", tolerance, non_negative=True)
        self.every = validation.integer("every", every, 1)

    @property
    def patience(self) -> int:
        """Values in a row without progress after which it is time to stop."""
        return self._patience

    def on_start(self, state: State, n_steps: int) -> None:
        self._followed = (math.inf, 0)

    def __call__(self, state: State, info: Info) -> bool:
        self._followed = self.follow(self._followed, state, info)
        return self._followed[1] >= self._patience

    def follow(self, followed: tuple[float, int], state: State, info: Info) -> tuple[float, int]:
        """The lowest value and how many came since, one value later; before the first one they are (inf, 0)."""
        lowest, waited = followed
        name = self._quantity
        given = getattr(info, name) if isinstance(name, str) else name(state)
        value = float(validation.returned("the result of quantity", given, (), "float64", ""))
        if value < lowest - self._tolerance or (lowest == math.inf and not math.isnan(value)):
            return value, 0
        return lowest, waited + 1


class Progress(Callback):
    """Progress on standard error: a bar where tqdm is installed, else a line about once a second.

    Examples
    --------
    >>> import mfld
    >>> well = mfld.Potential(lambda x: x, n_coordinates=1)
    >>> solver = mfld.MFLD(n_particles=10, step_size=0.1, temperature=1.0)
    >>> result = solver.run(well, n_steps=100, callbacks=[mfld.Progress()])
    """

    every = None

    def on_start(self, state: State, n_steps: int) -> None:
        self._display = _bar(n_steps)
        self._step = state.step

    def __call__(self, state: State, info: Info) -> None:
        if not math.isnan(info.loss):
            self._display.set_postfix(loss=f"{info.loss:.4g}", refresh=False)
        self._advance(state)

    def on_end(self, state: State) -> None:
        self._advance(state)
        self._display.close()

    def _advance(self, state: State) -> None:
        self._display.update(state.step - self._step)
        self._step = state.step


def _bar(n_steps: int) -> Any:
    try:
        from tqdm.auto import tqdm  # noqa: PLC0415  an extra, and slow to import
    except ImportError:
        return _Lines(n_steps)
    return tqdm(total=n_steps, unit="step", file=sys.stderr)


class _Lines:
    """The part of tqdm's interface that Progress uses, as plain lines."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._postfix = ""
        self._started = self._shown = time.monotonic()

    def set_postfix(self, *, refresh: bool, **values: str) -> None:
        self._postfix = "".join(f", {name} {value}" for name, value in values.items())

    def update(self, n_steps: int) -> None:
        self._done += n_steps
        now = time.monotonic()
        if now - self._shown >= 1:
            self._shown = now
            self._show(now)

    def close(self) -> None:
        self._show(time.monotonic())

    def _show(self, now: float) -> None:
        print(f"step {self._done} of {self._total}{self._postfix}, {now - self._started:.1f} s", file=sys.stderr)
