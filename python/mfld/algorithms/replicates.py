"""Replicates: independent repetitions of a run, in step."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import numpy as np

from mfld.errors import DivergenceError
from mfld.state import Cloud, Info, State

Advance: TypeAlias = Callable[[State, int], tuple[State, Info]]
"""Makes so many steps of one replicate."""

_SECONDS = 0.05  # of a round of all replicates, about: what an interrupt loses


def join(states: Sequence[State]) -> State:
    """Replicates side by side, from states of one replicate each: the inverse of `State.replicate`."""
    first = states[0]
    clouds = {}
    for name, cloud in first.clouds.items():
        members = [state.clouds[name] for state in states]
        weights = None
        if cloud.weights is not None:
            weights = np.concatenate([member.weights for member in members if member.weights is not None])
        clouds[name] = Cloud(_frozen([member.particles for member in members]), weights)
    buffers = {name: _frozen([state.buffers[name] for state in states]) for name in first.buffers}
    return dataclasses.replace(first, clouds=clouds, buffers=buffers)


def advance_each(
    advance: Advance, state: State, n_steps: int, *, beside: Advance | None = None, n_workers: int = 1
) -> tuple[State, Info]:
    """Make steps (at least 1) of all replicates, each as `advance` makes them of one.

    They keep in step by short rounds, so that whatever ends the call finds them at one count of steps: an interrupt at
    the last whole round, a divergence right before the step of the first one to diverge.

    ``beside`` makes the same steps on one thread, and may be called on ``n_workers`` threads at once: for quick steps,
    which spend their time waiting where several threads share each of them. A signal cannot reach into those threads,
    so slow steps are left to ``advance``.
    """
    states = [state.replicate(r) for r in range(state.n_replicates)]
    end = state.step + n_steps
    accepted = np.zeros(len(states))
    steps = 1
    with ThreadPoolExecutor(n_workers) as pool:
        while True:
            started = time.monotonic()
            try:
                reached = _round(advance if beside is None else beside, states, steps, pool if beside else None)
            except DivergenceError:
                raise
            except BaseException as error:
                error.state = join(states)  # type: ignore[attr-defined]
                raise
            states = [single for single, _ in reached]
            accepted += [steps * info.acceptance for _, info in reached]
            if states[0].step == end:
                break
            took = time.monotonic() - started
            if took > _SECONDS and steps == 1:
                beside = None
            if took < _SECONDS / 2:
                steps *= 2
            steps = min(steps, end - states[0].step)
    infos = tuple(
        dataclasses.replace(info, steps=n_steps, acceptance=share / n_steps)
        for (_, info), share in zip(reached, accepted.tolist(), strict=True)
    )
    names = [field.name for field in dataclasses.fields(Info) if field.name not in ("steps", "replicates")]
    means = {name: float(np.mean([getattr(info, name) for info in infos])) for name in names}
    return join(states), Info(steps=n_steps, replicates=infos, **means)


def _round(
    advance: Advance, states: Sequence[State], n_steps: int, pool: ThreadPoolExecutor | None
) -> list[tuple[State, Info]]:
    outcomes = list((pool.map if pool else map)(lambda single: _caught(advance, single, n_steps), states))
    errors = [(outcome.step, r, outcome) for r, outcome in enumerate(outcomes) if isinstance(outcome, DivergenceError)]
    if not errors:
        return [outcome for outcome in outcomes if not isinstance(outcome, DivergenceError)]
    step, r, first = min(errors, key=lambda entry: entry[:2])
    last = join([advance(single, step - single.step)[0] for single in states])
    raise DivergenceError(step, first.particle, first.step_size, last, r)


def _caught(advance: Advance, single: State, n_steps: int) -> tuple[State, Info] | DivergenceError:
    try:
        return advance(single, n_steps)
    except DivergenceError as error:
        return error


def _frozen(arrays: Sequence[np.typing.NDArray[np.generic]]) -> np.typing.NDArray[np.generic]:
    joined = np.concatenate(arrays)
    joined.flags.writeable = False  # so that a state takes it without another copy
    return joined
