"""Replicates of a run, side by side: what the algorithms share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from mfld import noise, validation
from mfld.errors import DivergenceError
from mfld.state import Cloud, Info, State
from mfld.validation import FloatArray


def start(
    draw: Callable[[int], FloatArray],
    particles: ArrayLike | None,
    shape: tuple[int, int, int],
    dtype: DTypeLike,
    seed: int,
    replica: int,
) -> FloatArray:
    """Where replicates start, of this shape: from particles for each or for all, or else from draws with seeds."""
    n_replicates, *one = shape
    if particles is None:
        seeds = (noise.key(seed, replica + r) if replica + r else seed for r in range(n_replicates))
        particles = np.stack([draw(s) for s in seeds])
    given = validation.array("particles", particles, dtype)
    if given.ndim == 3:
        validation.shape("particles", given, shape, "(n_replicates, n_particles, coordinates)")
        return given
    validation.shape("particles", given, tuple(one), "(n_particles, coordinates)")
    return np.repeat(given[np.newaxis], n_replicates, axis=0)


def advance_each(step: Callable[[State], tuple[State, Info]], state: State, n_steps: int) -> tuple[State, Info]:
    """Make steps, each of one replicate after the other; what ends them finds all replicates before the same step."""
    each, infos = state.each(), [Info(steps=0)] * state.n_replicates
    reached: list[tuple[State, Info]] = []
    try:
        for k in range(n_steps):
            reached = []
            for single in each:
                reached.append(step(single))
            infos = [dataclasses.replace(info, steps=k + 1) for _, info in reached]
            each = [single for single, _ in reached]
    except DivergenceError as error:
        if len(each) == 1:
            raise
        raise DivergenceError(error.step, error.particle, error.step_size, join(each), len(reached)) from None
    except BaseException as error:
        error.state = join(each)  # type: ignore[attr-defined]
        raise
    return join(each), together(infos)


def join(states: Sequence[State]) -> State:
    """Replicates side by side, from states of one replicate each: the inverse of `State.replicate`."""
    first = states[0]
    if len(states) == 1:
        return first
    clouds = {}
    for name, cloud in first.clouds.items():
        members = [state.clouds[name] for state in states]
        weights = None
        if cloud.weights is not None:
            weights = np.concatenate([member.weights for member in members if member.weights is not None])
        clouds[name] = Cloud(_frozen([member.particles for member in members]), weights)
    buffers = {name: _frozen([state.buffers[name] for state in states]) for name in first.buffers}
    return dataclasses.replace(first, clouds=clouds, buffers=buffers)


def together(infos: Sequence[Info]) -> Info:
    """What all replicates saw: the means."""
    if len(infos) == 1:
        return infos[0]
    names = [field.name for field in dataclasses.fields(Info) if field.name not in ("steps", "replicates")]
    means = {name: float(np.mean([getattr(info, name) for info in infos])) for name in names}
    return Info(steps=infos[0].steps, replicates=tuple(infos), **means)


def _frozen(arrays: Sequence[np.typing.NDArray[np.generic]]) -> np.typing.NDArray[np.generic]:
    joined = np.concatenate(arrays)
    joined.flags.writeable = False  # so that a state takes it without another copy
    return joined
