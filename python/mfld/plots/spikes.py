"""Pictures of deconvolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mfld import validation
from mfld.plots import style
from mfld.spikes import Deconvolution


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
    figure.suptitle(title, fontsize=11)
    return figure


def _signal(found: Deconvolution, axes: Sequence[np.ndarray]) -> Any:
    figure = style.figure(9, 4)
    panel = figure.subplots()
    fine = np.linspace(axes[0][0], axes[0][-1], max(1000, 2 * len(axes[0])))
    panel.axhline(0, color=style.grey(), linewidth=0.6)
    panel.plot(axes[0], found.signal, ".", color=style.grey(), markersize=4, label="signal")
    panel.plot(fine, found.fitted.predict(fine[:, np.newaxis]), color=style.colour(0), linewidth=1.5, label="fit")
    places, heights = found.positions[:, 0], found.amplitudes
    panel.vlines(places, 0, heights, color=style.colour(1), linewidth=1.5)
    across, up = (np.where(np.isfinite(e), 2 * e, 0) for e in (found.position_errors[:, 0], found.amplitude_errors))
    look = {"fmt": "o", "color": style.colour(1), "markersize": 4, "linewidth": 1, "capsize": 2}
    panel.errorbar(places, heights, up, across, label="spikes", **look)
    panel.set(xlabel="position", ylabel="signal, amplitude")
    style.open_axes(panel, grid=False)
    panel.legend(frameon=False)
    return figure


def _image(found: Deconvolution, axes: Sequence[np.ndarray]) -> Any:
    figure = style.figure(11, 3.8)
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
        panel.set_title(name, fontsize=10)
        panel.set(xlabel="second axis")
    panels[0].set(ylabel="first axis")
    sizes = 20 + 60 * np.abs(found.amplitudes) / max(float(np.abs(found.amplitudes).max(initial=0.0)), 1e-300)
    look = {"facecolors": "none", "edgecolors": style.ink(), "linewidths": 1}
    panels[1].scatter(found.positions[:, 1], found.positions[:, 0], sizes, **look)
    return figure
