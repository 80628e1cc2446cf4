"""Pictures of a run (needs matplotlib: ``pip install 'mfld[plot]'``)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from mfld import validation
from mfld.algorithms import Result
from mfld.files import replacing
from mfld.spikes import Deconvolution

if TYPE_CHECKING:
    from mfld.experiments.trained import TrainedModel

_INK = "#333333"
_COLOURS = ("#1f5a99", "#c46a1b", "#2e8b57", "#8a4f9e", "#888888")


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  an extra; no pyplot, so no display is needed
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install 'mfld[plot]'") from error
    return Figure(figsize=(width, height), layout="constrained")


def training(result: Result, trained: TrainedModel, title: str = "") -> Any:
    """Loss against step, and the cloud of neurons.

    The neurons are shown in the plane of the first two principal axes of their weights, each coloured by its strongest
    readout: by sign and size with one output, by the class that it speaks for with several. Where particles have
    weights, their areas are in proportion to them.

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
    mass = np.full(len(particles), 1 / len(particles)) if trained.weights is None else trained.weights
    plane, spread = _principal_plane(weights, np.asarray(mass, np.float64))
    size = np.abs(readout).max(axis=1, initial=0.0)
    order = np.argsort(size)
    if readout.shape[1] > 1:
        colours, colormap, limits = readout.argmax(axis=1), "tab10", (-0.5, 9.5)
    else:
        colours, colormap = (readout[:, 0] if readout.shape[1] else np.zeros(len(particles))), "coolwarm"
        limits = (-max(size.max(), 1e-12), max(size.max(), 1e-12))
    points = right.scatter(
        *plane[order].T,
        c=colours[order],
        cmap=colormap,
        vmin=limits[0],
        vmax=limits[1],
        s=10 * len(mass) * mass[order],
        alpha=0.8,
        linewidths=0,
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


def gap(
    runs: Mapping[str, Mapping[str, ArrayLike]],
    *,
    entry: str = "gap",
    x: str = "step",
    xlabel: str = "step",
    title: str = "",
    axes: Any = None,
) -> Any:
    """Certified duality gap of one or several runs, on a logarithmic axis: what falls geometrically is a straight line.

    The line is the estimate, and the band above it reaches up to the certified bound; where a record has no certificate
    there is neither.

    Parameters
    ----------
    runs : mapping of str to mapping
        By their names in the legend, histories: ``{"P-SDCA": result.history}``.
    entry : str
        Entry of the histories that `mfld.quantities.gap` recorded, shape (n_records, 2).
    x, xlabel : str
        Entry for the other axis, and what it says there.
    title : str
    axes : matplotlib.axes.Axes, optional
        Draw here instead of in a figure of its own.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If an entry is missing or does not fit, or no record has a certificate.

    Examples
    --------
    >>> from mfld import plots
    >>> history = {"step": [1, 2, 3], "gap": [[0.1, 0.12], [0.03, 0.04], [0.01, 0.014]]}
    >>> figure = plots.gap({"P-SDCA": history}, xlabel="epoch")
    >>> figure.axes[0].get_yscale()
    'log'
    """
    validation.instance("runs", runs, Mapping, "a mapping of names to histories")
    curves = {}
    for name, history in runs.items():
        for needed in (x, entry):
            if needed not in history:
                raise ValueError(f"runs[{name!r}] must have the entry {needed!r}, it has {', '.join(history)}")
        places, values = np.asarray(history[x], np.float64), np.asarray(history[entry], np.float64)
        validation.shape(f"runs[{name!r}][{entry!r}]", values, (len(places), 2), "(records, gap and upper bound)")
        curves[name] = places, values
    known = [values[np.isfinite(values[:, 1]), 1] for _, values in curves.values()]
    if not any(len(values) for values in known):
        raise ValueError("runs must have a certificate at one record at least, there is none")
    if axes is None:
        axes = _figure(7, 4.2).subplots()
    # The estimate is debiased and may fall below 0, which this axis does not have: the bottom stands for it.
    bottom = min(values.min() for values in known if len(values)) / 30
    for number, (name, (places, values)) in enumerate(curves.items()):
        estimate, upper = np.maximum(values, bottom).T
        colour = _COLOURS[number % len(_COLOURS)]
        axes.fill_between(places, estimate, upper, color=colour, alpha=0.2, linewidth=0)
        axes.plot(places, estimate, color=colour, linewidth=1.5, marker="o", markersize=3, label=name)
    axes.set_yscale("log")
    axes.set_ylim(bottom=bottom)
    axes.set(xlabel=xlabel, ylabel="duality gap, shaded up to its certified bound")
    axes.set_title(title, color=_INK, fontsize=10)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return axes.figure


def deconvolution(found: Deconvolution, title: str = "") -> Any:
    """Signal, fit and spikes of a deconvolution.

    A signal in one dimension is drawn as points, its fit as a line, and its spikes as stems with two standard errors
    either way; one in two dimensions as a picture beside those of the fit and of what it leaves, with the spikes on it.

    Parameters
    ----------
    found : Deconvolution
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import mfld
    >>> from mfld import plots
    >>> found = mfld.deconvolve([0.0, 1.0, 0.0, 0.0, 0.0], mfld.deconvolution.Dirichlet(2, period=5.0))
    >>> len(plots.deconvolution(found).axes)
    1
    """
    validation.instance("found", found, Deconvolution, "a Deconvolution, as mfld.deconvolve returns it")
    axes = found.measure.model.axes  # type: ignore[attr-defined]  # a Convolution
    draw = _signal if len(axes) == 1 else _image
    figure: Any = draw(found, axes)
    figure.suptitle(title, color=_INK, fontsize=11)
    return figure


def _signal(found: Deconvolution, axes: Sequence[np.ndarray]) -> Any:
    figure = _figure(9, 4)
    panel = figure.subplots()
    fine = np.linspace(axes[0][0], axes[0][-1], max(1000, 2 * len(axes[0])))
    panel.axhline(0, color="#bbbbbb", linewidth=0.6)
    panel.plot(axes[0], found.signal, ".", color="#888888", markersize=4, label="signal")
    panel.plot(fine, found.fitted.predict(fine[:, np.newaxis]), color="#1f5a99", linewidth=1.5, label="fit")
    places, heights = found.positions[:, 0], found.amplitudes
    panel.vlines(places, 0, heights, color="#c46a1b", linewidth=1.5)
    across, up = (np.where(np.isfinite(e), 2 * e, 0) for e in (found.position_errors[:, 0], found.amplitude_errors))
    style = {"fmt": "o", "color": "#c46a1b", "markersize": 4, "linewidth": 1, "capsize": 2}
    panel.errorbar(places, heights, up, across, label="spikes", **style)
    panel.set(xlabel="position", ylabel="signal, amplitude")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False)
    return figure


def _image(found: Deconvolution, axes: Sequence[np.ndarray]) -> Any:
    figure = _figure(11, 3.8)
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    steps = [(x[-1] - x[0]) / (len(x) - 1) / 2 for x in axes]
    first, second = ((x[0] - step, x[-1] + step) for x, step in zip(axes, steps, strict=True))
    largest = float(np.abs(found.signal).max()) or 1.0
    parts = {"signal": found.signal, "fit": found.fit, "signal - fit": found.signal - found.fit}
    for panel, (name, values) in zip(panels, parts.items(), strict=True):
        limit = largest if name != "signal - fit" else float(np.abs(values).max()) or 1.0
        limits = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
        shown = panel.imshow(values, origin="lower", extent=(*second, *first), aspect="auto", **limits)
        figure.colorbar(shown, ax=panel, shrink=0.85)
        panel.set_title(name, fontsize=10, color=_INK)
        panel.set(xlabel="second axis")
    panels[0].set(ylabel="first axis")
    sizes = 20 + 60 * np.abs(found.amplitudes) / max(float(np.abs(found.amplitudes).max(initial=0.0)), 1e-300)
    style = {"facecolors": "none", "edgecolors": "black", "linewidths": 1}
    panels[1].scatter(found.positions[:, 1], found.positions[:, 0], sizes, **style)
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


def _principal_plane(weights: np.ndarray, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates along the two main axes, shape (N, 2), and the shares of the variance along them, under masses."""
    centred = weights - np.average(weights, axis=0, weights=mass)
    _, singular, axes = np.linalg.svd(np.sqrt(mass)[:, np.newaxis] * centred, full_matrices=False)
    share = np.zeros(2)
    found = min(2, len(singular))
    share[:found] = singular[:found] ** 2 / max(np.sum(singular**2), np.finfo(float).tiny)
    plane = np.zeros((len(weights), 2))
    plane[:, :found] = centred @ axes[:found].T
    return plane, share
