"""Pictures of a run (needs matplotlib: ``pip install 'mfld[plot]'``)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mfld.algorithms import Result
from mfld.files import replacing

if TYPE_CHECKING:
    from mfld.experiments.trained import TrainedModel

_INK = "#333333"


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  an extra; no pyplot, so no display is needed
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install 'mfld[plot]'") from error
    return Figure(figsize=(width, height), layout="constrained")


def training(result: Result, trained: TrainedModel, title: str = "") -> Any:
    """Loss against step, and the cloud of neurons.

    The neurons are shown in the plane of the first two principal axes of their weights, each coloured by its strongest
    readout: by sign and size with one output, by the class that it speaks for with several.

    Parameters
    ----------
    result : Result
        With ``train_loss`` and ``test_loss`` in its history, as `mfld.experiments.train` returns it.
    trained : TrainedModel
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    figure = _figure(10, 4.2)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.1))
    figure.suptitle(title, color=_INK)

    for name, label, colour in (("train_loss", "training rows", "#1f5a99"), ("test_loss", "held-out rows", "#c46a1b")):
        left.plot(result.history["step"], result.history[name], color=colour, linewidth=1.5, label=label)
    left.set(xlabel="step", ylabel="mean loss", yscale="log")
    left.legend(frameon=False)
    left.grid(color="#dddddd", linewidth=0.6)
    left.spines[["top", "right"]].set_visible(False)

    parts = trained.model.slices
    particles = np.asarray(trained.particles, np.float64)
    weights, readout = particles[:, parts["weights"]], particles[:, parts["readout"]]
    plane, spread = _principal_plane(weights)
    size = np.abs(readout).max(axis=1, initial=0.0)
    order = np.argsort(size)
    if readout.shape[1] > 1:
        colours, colormap, limits = readout.argmax(axis=1), "tab10", (-0.5, 9.5)
    else:
        colours, colormap = (readout[:, 0] if readout.shape[1] else np.zeros(len(particles))), "coolwarm"
        limits = (-max(size.max(), 1e-12), max(size.max(), 1e-12))
    points = right.scatter(
        *plane[order].T, c=colours[order], cmap=colormap, vmin=limits[0], vmax=limits[1], s=10, alpha=0.8, linewidths=0
    )
    bar = figure.colorbar(points, ax=right, label="class of the largest readout" if readout.shape[1] > 1 else "readout")
    if readout.shape[1] > 1 and trained.classes is not None:
        shown = range(min(len(trained.classes), 10))
        bar.set_ticks(list(shown), labels=[str(trained.classes[k]) for k in shown])
        bar.ax.set_ylim(-0.5, len(shown) - 0.5)
    right.set_xlabel(f"first principal axis of the weights ({spread[0]:.0%})")
    right.set_ylabel(f"second ({spread[1]:.0%})")
    right.set_title(f"{len(particles)} neurons", color=_INK, fontsize=10)
    right.spines[["top", "right"]].set_visible(False)
    return figure


def check_format(path: str | os.PathLike[str]) -> None:
    """Raise ValueError if the ending of the path names no format of pictures, ImportError without matplotlib."""
    known = _figure(1, 1).canvas.get_supported_filetypes()
    if Path(path).suffix[1:].lower() not in known:
        raise ValueError(f"{path} must end in one of {', '.join(f'.{name}' for name in sorted(known))}")


def save(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a figure; the ending of the path names the format. Replaced as a whole."""
    with replacing(path) as file:
        figure.savefig(file, format=Path(path).suffix[1:].lower(), dpi=150)


def _principal_plane(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates along the two main axes, shape (N, 2), and the shares of the variance along them."""
    centred = weights - weights.mean(axis=0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    share = np.zeros(2)
    found = min(2, len(singular))
    share[:found] = singular[:found] ** 2 / max(np.sum(singular**2), np.finfo(float).tiny)
    plane = np.zeros((len(weights), 2))
    plane[:, :found] = centred @ axes[:found].T
    return plane, share
