"""Callbacks of scikit-learn, which it has from version 1.9 on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from mfld.algorithms import Callback
from mfld.fitting import pace
from mfld.state import Cloud, Info, State

_Method = TypeVar("_Method", bound=Callable[..., object])

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # before scikit-learn 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Adds nothing: there are no callbacks."""

    def with_callbacks(method: _Method) -> _Method:
        """The method as it is."""
        return method


__all__ = ["CallbackSupportMixin", "Hooks", "with_callbacks"]


class Hooks(Callback):
    """Calls the callbacks of scikit-learn that an estimator has: the fit is a task, and so many steps are a subtask."""

    def __init__(self, estimator: Any, n_steps: int, **rows: Any) -> None:
        self.every = pace(n_steps)
        self._estimator, self._rows = estimator, rows
        self.neurons: Callable[[State], Cloud] | None = None  # of a state, where they are not its measure
        # One more where a fit that goes on begins between two multiples of so many steps.
        self._task = estimator._init_callback_context(max_subtasks=math.ceil(n_steps / self.every) + 1)
        self._task.call_on_fit_task_begin(estimator=estimator, **rows)

    def on_start(self, state: State, n_steps: int) -> None:
        self._last = state.step + n_steps
        self._begin()

    def __call__(self, state: State, info: Info) -> bool:
        reached = {"state_": state, "_neurons": None if self.neurons is None else self.neurons(state)}
        stop = self._subtask.call_on_fit_task_end(
            estimator=self._estimator, **self._rows, reconstruction_attributes=reached
        )
        if not stop and state.step < self._last:
            self._begin()
        return bool(stop)

    def on_end(self, state: State) -> None:
        return

    def end(self) -> None:
        """Behind the last step, once the estimator is fitted."""
        self._task.call_on_fit_task_end(estimator=self._estimator, **self._rows, reconstruction_attributes={})

    def _begin(self) -> None:
        self._subtask = self._task.subcontext(task_name="steps")
        self._subtask.call_on_fit_task_begin(estimator=self._estimator, **self._rows)
