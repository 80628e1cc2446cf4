"""Replicates of a run, side by side: what the algorithms share."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from mfld import validation
from mfld.errors import DivergenceError
from mfld.noise import Place
from mfld.objectives import Objective
from mfld.state import Cloud, Info, State
from mfld.validation import FloatArray

_OFF_DOMAIN = 1e-3  # by so much rounding may lead off a domain, in the units of its coordinates


def start(
    objective: Objective,
    particles: ArrayLike | None,
    n_replicates: int,
    n_particles: int,
    dtype: DTypeLike,
    places: Sequence[Place],
    draw: Callable[[int, Place, DTypeLike], FloatArray] | None = None,
) -> FloatArray:
    """Particles that replicates start from, shape (R, ..., N, p): those given for each or for all, or else draws.

    The places are those of the initial particles of each replicate; members of an objective draw from the populations
    behind it. They suit the objective, as `Objective.cloud` says of those in memory.
    """
    members, one = objective.members, (*objective.members, n_particles, objective.n_coordinates)
    if particles is None:
        draw = draw or objective.initial_particles
        draws = [draw(n_particles, place.member(e), dtype) for place in places for e in range(math.prod(members))]
        begun = np.stack(draws).reshape(n_replicates, *one)
    else:
        begun = _given(objective, particles, n_replicates, one, dtype)
    if validation.mapped(begun) is None:  # a file may be larger than memory
        for each in begun:
            objective.cloud(each)
    return begun


def _given(
    objective: Objective, particles: ArrayLike, n_replicates: int, one: tuple[int, ...], dtype: DTypeLike
) -> FloatArray:
    """Particles of the shape of one replicate, or of all of them, for each replicate, on the domain."""
    given = validation.array("particles", particles, dtype)
    if given.ndim == 1 + len(one):
        validation.shape("particles", given, (n_replicates, *one), "(n_replicates, n_particles, coordinates)")
    else:
        validation.shape("particles", given, one, "(n_particles, coordinates)")
        # One replicate takes them as they are: they may be a map of a file that is larger than memory.
        given = given[np.newaxis] if n_replicates == 1 else np.repeat(given[np.newaxis], n_replicates, axis=0)
    if objective.space.flat:
        return given
    moving = np.s_[..., : objective.n_moving]
    there = objective.space.retract(given[moving])
    if np.abs(there - given[moving]).max() > _OFF_DOMAIN:
        raise ValueError(f"particles must lie on the domain {objective.space.domain} of the objective")
    given = given.copy()
    given[moving] = there
    return given


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
        raise error.among(join(each), len(reached)) from None
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
    numbers = tuple(number for state in states for number in state.replicas)
    return dataclasses.replace(first, clouds=clouds, buffers=buffers, replica=numbers)


def together(infos: Sequence[Info]) -> Info:
    """Means of what all replicates saw."""
    if len(infos) == 1:
        return infos[0]
    names = [field.name for field in dataclasses.fields(Info) if field.name not in ("steps", "replicates")]
    means = {name: float(np.mean([getattr(info, name) for info in infos])) for name in names}
    return Info(steps=infos[0].steps, replicates=tuple(infos), **means)


def _frozen(arrays: Sequence[np.typing.NDArray[np.generic]]) -> np.typing.NDArray[np.generic]:
    joined = np.concatenate(arrays)
    joined.flags.writeable = False  # so that a state takes it without another copy
    return joined
