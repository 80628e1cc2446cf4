"""Derivatives of the user against finite differences of the functions, before anything starts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mfld import noise
from mfld.objectives.control.functions import Array, Functions, result
from mfld.space import Space

_PROBES = 4  # pairs at which derivatives are compared with differences
_STEP = 6e-6  # of these differences, relative: the third root of the rounding error
_AGREEMENT = 1e-4  # relative to the size of the derivatives


def check_derivatives(functions: Functions, initial_states: Array, space: Space, time: float, seed: int) -> None:
    """Raise ValueError where derivatives and differences of the functions disagree, with the name and the place."""
    place, n = noise.Place.of(seed), _PROBES
    d, p = initial_states.shape[1], space.n_coordinates
    x = initial_states[np.arange(n) % len(initial_states)] + 0.1 * place.normals(n, d, "float64", "init")
    a = space.draw(place.member(1), n, "float64")
    for k in range(d + 1):  # the drift's coordinates, and the running cost
        g, w = np.zeros((n, d)), np.zeros(n)
        if k < d:
            g[:, k] = 1
        else:
            w[:] = 1
        name, wrong = ("dynamics", "dynamics_jacobians") if k < d else ("running_cost", "running_gradients")
        given = functions.pull_back(time, x.copy(), a.copy(), g, w)

        def value(x: Array, a: Array, k: int = k) -> Array:
            drift, cost = functions.rates(time, x, a)
            return drift[:, k] if k < d else cost

        part = f"{name}[{k}]" if k < d and d > 1 else name
        for letter, which, length in (("x", 0, d), ("a", 1, p)):
            for j in range(length):
                _compare(wrong, part, letter, j, given[which][:, j], value, (x, a), time)
    slope = result("terminal_gradient", functions.terminal_gradient(x.copy()), x.shape)
    for j in range(d):
        _compare("terminal_gradient", "terminal_cost", "x", j, slope[:, j], functions.terminal, (x,), None)


def _compare(
    wrong: str,
    part: str,
    letter: str,
    j: int,
    given: Array,
    value: Callable[..., Array],
    at: tuple[Array, ...],
    time: float | None,
) -> None:
    """Compare a derivative in coordinate j of the states x, or of the controls a behind them, with differences."""
    which = 0 if letter == "x" else 1
    width = _STEP * (1 + np.abs(at[which][:, j]))
    above, below = ([each.copy() for each in at] for _ in range(2))
    above[which][:, j] += width
    below[which][:, j] -= width
    high, low = value(*above), value(*below)
    difference = (high - low) / (2 * width)
    scale = np.abs(difference) + np.abs(given) + _STEP * (np.abs(high) + np.abs(low))
    # Where the function has no value, a derivative is not asked for.
    off = np.isfinite(difference) & ~(np.abs(given - difference) <= _AGREEMENT * scale + 1e-8)
    if off.any():
        i = int(np.argmax(off))
        when = "" if time is None else f" at t={time:g}"
        controls = "" if time is None else f", a={at[1][i].round(3).tolist()}"
        raise ValueError(
            f"{wrong} must be the derivative of {part}: d/d{letter}[{j}] is {given[i]:.6g} by {wrong} and "
            f"{difference[i]:.6g} by finite differences{when}, x={at[0][i].round(3).tolist()}{controls}"
        )
