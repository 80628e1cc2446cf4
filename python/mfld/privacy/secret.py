"""Secret numbers of the core: Gaussian noise on a grid and sampled rows, under keys of ChaCha20.

Steps of private training need some thousand numbers each, which the exact sampler of `mfld.privacy.mechanism` makes in
Python at some microseconds apiece. These are whole numbers too, of a law as exact as matters: those of a release of M
numbers are within ``2 * M * 2**-50`` in epsilon and ``M * 2**-64`` in delta of Gaussian ones, for a billion of them
2e-6 and 6e-11. Each key is 256 bits of the operating system's generator, used once. Source of the cipher: Nir, Langley
2018, RFC 8439.
"""

from __future__ import annotations

import functools
import hashlib
import os
from decimal import Decimal, localcontext

import numpy as np
from numpy.typing import NDArray

from mfld._core import backend

KEY_BYTES = 32
UNITS = 2**30  # of the grid, in a deviation: secret.cpp
DISTANCE = 2.0**-64  # of the law of a number from a Gaussian one, in total variation
_COLUMNS, _CELLS, _WHOLE = 1024, 592, 2**64  # of the table; cells of a 64th of a deviation, 9.25 of them in all


def key(seed: int | None, *place: int | str) -> bytes:
    """Key of 256 bits: new ones, or for tests a function of a seed and of a place."""
    if seed is None:
        return os.urandom(KEY_BYTES)
    return hashlib.sha256(repr((seed, *place)).encode()).digest()


def noisy(total: NDArray[np.float64], deviation: float, own_key: bytes, num_threads: int = 1) -> NDArray[np.float64]:
    """Numbers rounded to the grid, with Gaussian noise on it: low-order bits tell nothing.

    The grid's unit is 2**-30 of the deviation; rounding moves a vector of M numbers by ``unit * sqrt(M) / 2`` at most.

    Raises
    ------
    ValueError
        If a number is too large for the grid.
    """
    unit = deviation / UNITS
    units = total / unit
    np.rint(units, out=units)
    if not max(units.max(initial=0), -units.min(initial=0)) < 2**62:
        raise ValueError(f"noise must be at least 2**-32 of what it hides, got a deviation of {deviation:g}")
    noise = backend.gaussians(own_key, units.size, *_table(), num_threads).reshape(units.shape)
    noise += units.astype(np.int64)
    # The core's numbers are cut downwards: half a unit up they have mean 0.
    np.add(noise, 0.5, out=units)
    units *= unit
    return units


def sampled(n: int, rate: float, own_key: bytes) -> NDArray[np.int64]:
    """Rows that are chosen each by itself with a probability, cut to 32 bits."""
    return np.flatnonzero(backend.chacha(own_key, n) < np.uint64(int(rate * 2**32)))


@functools.cache
def _table() -> tuple[NDArray[np.uint64], NDArray[np.uint16], NDArray[np.uint64]]:
    """Table of aliases of the cells of |X|, in proportion to ``exp(-x**2 / 2)`` at their lower ends: secret.cpp.

    Source: Vose 1991, "A linear algorithm for generating random numbers with a given distribution", in whole numbers.
    """
    with localcontext() as context:
        context.prec = 60
        ends = [(-(Decimal(c) ** 2) / 8192).exp() for c in range(_CELLS + 1)]
        total = sum(ends[:-1])
        weights = [int(end / total * _COLUMNS * _WHOLE) for end in ends[:-1]] + [0] * (_COLUMNS - _CELLS)
        # Of a place at the far end of the cell, where it is least.
        always = [int((-(Decimal(c) + Decimal("0.5")) / 4096).exp() * _WHOLE) - 2**14 for c in range(_CELLS)]
    weights[0] += _COLUMNS * _WHOLE - sum(weights)
    aliases, thresholds = list(range(_COLUMNS)), [_WHOLE - 1] * _COLUMNS
    small = [c for c, weight in enumerate(weights) if weight < _WHOLE]
    large = [c for c, weight in enumerate(weights) if weight >= _WHOLE]
    while small:
        less, more = small.pop(), large[-1]
        thresholds[less], aliases[less] = weights[less], more
        weights[more] -= _WHOLE - weights[less]
        if weights[more] < _WHOLE:
            small.append(large.pop())
    return (
        np.array(thresholds, np.uint64),
        np.array(aliases, np.uint16),
        np.array(always + [0] * (_COLUMNS - _CELLS), np.uint64),
    )
