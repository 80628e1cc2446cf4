"""Deconvolution of a signal of three spikes with noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mfld import noise as draws
from mfld import plots
from mfld.deconvolution import Gaussian
from mfld.gallery.experiment import Check, count, non_negative, positive
from mfld.spikes import deconvolve
from mfld.sweeps import Sweep

PANELS = 1
SETTINGS: dict[str, dict[str, Check]] = {
    "data": {"n_samples": count, "width": positive, "noise": non_negative},
    "algorithm": {"share": positive},
}
_PLACES, _HEIGHTS = np.array([3.0, 4.2, 7.5]), np.array([2.0, -1.0, 1.5])


def run(*, n_samples: int, width: float, noise: float, share: float, seed: int) -> dict[str, Any]:
    """Signal, spikes, and their Hausdorff distance from the true ones; the penalty is a share of the largest one."""
    axis = np.linspace(0, 10, n_samples)
    kernel = Gaussian(width)
    errors = draws.normals(seed, 0, n_samples, 1, dtype="float64", stream="data")[:, 0]
    clean = sum(h * np.exp(-((axis - p) ** 2) / (2 * width**2)) for p, h in zip(_PLACES, _HEIGHTS, strict=True))
    signal = clean + noise * errors
    columns = np.exp(-((axis[:, np.newaxis] - axis) ** 2) / (2 * width**2))
    strength = share * float(np.abs(columns @ signal).max()) / n_samples
    found = deconvolve(signal, kernel, strength, axes=[axis], seed=seed)
    places = found.positions[:, 0]
    apart = np.abs(places[:, np.newaxis] - _PLACES)
    distance = np.inf if not len(places) else max(apart.min(axis=0).max(), apart.min(axis=1).max())
    return {
        "distance": distance / width,
        "axis": axis,
        "signal": signal,
        "clean": clean,
        "positions": places,
        "amplitudes": found.amplitudes,
    }


def figure(found: Sweep, panels: Sequence[Any]) -> None:
    (axes,) = panels
    result = found.runs[0]["result"]
    axes.plot(result["axis"], result["signal"], ".", color=plots.colour(4), markersize=4, label="signal")
    axes.plot(result["axis"], result["clean"], color=plots.colour(0), label="without noise")
    axes.vlines(result["positions"], 0, result["amplitudes"], color=plots.colour(1))
    axes.plot(result["positions"], result["amplitudes"], "o", color=plots.colour(1), label="found")
    axes.plot(_PLACES, _HEIGHTS, "+", color=plots.ink(), markersize=10, label="true")
    axes.set(xlabel="position", ylabel="signal, amplitude")
    plots.open_axes(axes).legend(frameon=False)


def claim(found: Sweep) -> float:
    return float(found.column("distance").max())
