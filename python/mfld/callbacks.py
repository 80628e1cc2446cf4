"""Callbacks: to show a run, to stop it early, to average over it. `StopOnPlateau` is among the algorithms."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfld import validation
from mfld.algorithms.base import Algorithm, Callback
from mfld.certificates import dual_at
from mfld.objectives import EmpiricalRisk, Objective
from mfld.privacy.mechanism import check_delta
from mfld.state import Info, State


class StopWhen(Callback):
    """Stop a run as soon as a condition holds.

    Parameters
    ----------
    condition : callable
        ``condition(state, info)``: whether to stop.
    every : int
        Ask at each multiple of so many steps and at the end. 1 asks at every step, which costs a call of the core each.

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

    def __init__(self, condition: Callable[[State, Info], bool], every: int = 10) -> None:
        validation.function("condition", condition)
        self.every = validation.integer("every", every, 1)
        self._condition = condition

    def __call__(self, state: State, info: Info) -> bool:
        return bool(self._condition(state, info))


class PrivacyBudget(Callback):
    """Stop a run with `mfld.Clipped` gradients before it has spent more than epsilon at delta.

    Parameters
    ----------
    epsilon, delta : float
    every : int
        Ask at each multiple of so many steps, whether as many more may follow.
    count_dynamics : bool
        As in `MFLD.privacy_spent`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; at the start of a run, if its first steps cost more, or it
        goes on from a state that has no account of its steps.

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> X = np.random.default_rng(0).normal(size=(500, 2))
    >>> risk = mfld.EmpiricalRisk(mfld.TwoLayerNetwork(2), X, np.sign(X[:, 0]), loss="logistic")
    >>> gradient = mfld.Clipped(max_norm=1.0, noise_multiplier=1.0, batch_rate=0.1)
    >>> solver = mfld.MFLD(20, step_size=0.1, temperature=0.0, gradient=gradient)
    >>> result = solver.run(risk, 1000, callbacks=[mfld.PrivacyBudget(3.0, 1e-5)])
    >>> result.state.step < 1000, result.privacy_spent(1e-5) <= 3.0
    (True, True)
    """

    def __init__(self, epsilon: float, delta: float, *, every: int = 5, count_dynamics: bool = False) -> None:
        self.epsilon = validation.real("epsilon", epsilon, positive=True)
        self.delta = check_delta(delta)
        self.every = validation.integer("every", every, 1)
        self.count_dynamics = validation.boolean("count_dynamics", count_dynamics)

    def on_problem(self, algorithm: Algorithm, objective: Objective) -> None:
        self._problem = algorithm, objective

    def on_start(self, state: State, n_steps: int) -> None:
        if self._after(state, min(self.every or 1, n_steps)) > self.epsilon:
            raise ValueError(f"epsilon must allow the first {self.every} steps, got {self.epsilon:g}")

    def __call__(self, state: State, info: Info) -> bool:
        return self._after(state, self.every or 1) > self.epsilon

    def _after(self, state: State, n_steps: int) -> float:
        algorithm, objective = self._problem
        return algorithm.privacy_spent(
            objective, state, self.delta, n_steps=n_steps, count_dynamics=self.count_dynamics
        )


class AverageDual(Callback):
    """Average of the dual variables ``l'(f_mu(z_i), y_i)`` over the steps of a run.

    The predictions of one cloud fluctuate, and the gap of their dual variables has a floor of order 1/N. The average is
    as good a point of the dual problem, without most of that floor.

    Parameters
    ----------
    risk : EmpiricalRisk
    start : int
        Count of steps from which on to average.
    every : int
        At each multiple of so many steps and at the end.

    Attributes
    ----------
    dual : ndarray, shape (n, n_outputs), float64

    Examples
    --------
    >>> import numpy as np
    >>> import mfld
    >>> inputs = np.linspace(-2, 2, 20)[:, np.newaxis]
    >>> model = mfld.TwoLayerNetwork(n_features=1, readout="fixed", bias=False)
    >>> risk = mfld.EmpiricalRisk(model, inputs, np.sign(inputs[:, 0]), loss="logistic", l2=0.1)
    >>> average = mfld.AverageDual(risk, start=100)
    >>> result = mfld.MFLD(100, step_size=0.2, temperature=0.1).run(risk, n_steps=300, callbacks=[average])
    >>> result.certificate(dual=average.dual).reason is None
    True
    """

    def __init__(self, risk: EmpiricalRisk, start: int = 0, every: int = 10) -> None:
        validation.instance("risk", risk, EmpiricalRisk, "an EmpiricalRisk")
        self._risk = risk
        self._start = validation.integer("start", start, 0)
        self.every = validation.integer("every", every, 1)
        self._algorithm: Algorithm | None = None
        self._sum = np.zeros((risk.n_samples, risk.model.n_outputs))
        self._count = 0

    def on_problem(self, algorithm: Algorithm, objective: Objective) -> None:
        self._algorithm = algorithm

    def __call__(self, state: State, info: Info) -> None:
        if state.step >= self._start:
            own = self._algorithm
            self._sum += dual_at(self._risk, state.measure) if own is None else own.dual(self._risk, state)
            self._count += 1

    @property
    def dual(self) -> NDArray[np.float64]:
        if self._count == 0:
            raise ValueError(f"no step from {self._start} on has been seen: run with this callback first")
        return self._sum / self._count


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
