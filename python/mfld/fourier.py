"""Waves: means of cosines and sines over points, and the gradients of their sums, in the compiled core."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mfld import _core, files
from mfld.validation import FloatArray


class Spectrum(NamedTuple):
    """Frequencies of a kernel, ``k(x, y) = constant + sum_k weights_k cos(frequencies_k . (x - y))``.

    ``frequencies`` have shape (m, p) and ``weights`` (m,). The sum is exact, or its mean over random frequencies is.
    """

    frequencies: FloatArray
    weights: FloatArray


def means(
    points: FloatArray, weights: FloatArray | None, frequencies: FloatArray, num_threads: int
) -> tuple[FloatArray, FloatArray]:
    """``E cos(w_k . X)`` and ``E sin(w_k . X)`` over weighted points, shape (m,) each."""
    cosine, sine = (
        _core.backend.predict(wave, points, weights, frequencies, num_threads)[:, 0]
        for wave in _waves(frequencies.shape[1])
    )
    return cosine, sine


def pull_back(
    points: FloatArray, frequencies: FloatArray, of_cosines: FloatArray, of_sines: FloatArray, num_threads: int
) -> tuple[FloatArray, FloatArray]:
    """``sum_k (a_k cos(w_k . x) + b_k sin(w_k . x))`` at points and its gradient, shapes (N,) and (N, p)."""
    both = [
        _core.backend.pull_back(wave, points, frequencies, factors[:, np.newaxis], num_threads)
        for wave, factors in zip(_waves(frequencies.shape[1]), (of_cosines, of_sines), strict=True)
    ]
    return both[0][0] + both[1][0], both[0][1] + both[1][1]


def check_memory(n_frequencies: int, n_coordinates: int) -> None:
    """Raise ValueError if so many frequencies, with what is computed at each, do not fit into the machine's memory."""
    needed = 8 * n_frequencies * (2 * n_coordinates + 8)
    memory = files.physical_memory()
    if needed > memory:
        raise ValueError(
            f"features must fit into memory: {n_frequencies:.3g} frequencies of {n_coordinates} coordinates take "
            f"{needed / 2**30:.3g} GiB, this machine has {memory / 2**30:.3g}"
        )


def _waves(n_coordinates: int) -> tuple[_core.Network, _core.Network]:
    """Networks of one neuron a particle: cos and sin of its product with the input, which is the frequency."""
    known = list(_core.backend.activations)
    readout = [name for name, *_ in _core.backend.readouts].index("fixed")
    cosine, sine = (
        _core.Network(n_coordinates, 1, False, known.index(name), readout, 1.0, 1.0) for name in ("cos", "sin")
    )
    return cosine, sine
