"""Callbacks: what a run calls on its way."""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from mfld.state import Info, State


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

    def on_start(self, state: State, n_steps: int) -> None:
        """Called once before ``n_steps`` steps."""

    def __call__(self, state: State, info: Info) -> bool | None:
        """Called on the way with the state and what the last step saw; True stops the run here."""

    def on_end(self, state: State) -> None:
        """Called once at the end, also when an error ends the run."""


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
