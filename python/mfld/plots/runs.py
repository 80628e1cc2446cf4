"""Pictures of runs: losses and neurons, certified gaps, errors against the number of particles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from mfld import validation
from mfld.algorithms import Result
from mfld.diagnostics import Chaos
from mfld.plots import style

if TYPE_CHECKING:
    from mfld.experiments.trained import TrainedModel

_MOST_NAMES = 20  # of classes beside a bar


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
    figure = style.figure(10, 4.2)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.1))
    figure.suptitle(title)
    losses(result, axes=left)
    neurons(trained, axes=right)
    return figure


def losses(result: Result, *, axes: Any = None) -> Any:
    """Loss on the rows that were trained on and on those that were held out, against the step.

    Parameters
    ----------
    result : Result
        With ``train_loss`` and ``test_loss`` in its history, as `mfld.experiments.train` returns it.
    axes : matplotlib.axes.Axes, optional
        Draw here instead of in a figure of its own.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    axes = style.figure(5, 3.6).subplots() if axes is None else axes
    for k, (name, label) in enumerate((("train_loss", "training rows"), ("test_loss", "held-out rows"))):
        if name in result.history:  # a private training has no curve of its own rows
            axes.plot(result.history["step"], result.history[name], color=style.colour(k), linewidth=1.5, label=label)
    axes.set(xlabel="step", ylabel="mean loss")
    low, high = axes.dataLim.intervaly
    if high > 10 * low > 0:
        axes.set_yscale("log")
    axes.legend(frameon=False)
    return style.open_axes(axes).figure


def neurons(trained: TrainedModel, *, axes: Any = None) -> Any:
    """The cloud of neurons of a model, as `training` shows it.

    Parameters
    ----------
    trained : TrainedModel
    axes : matplotlib.axes.Axes, optional
        Draw here instead of in a figure of its own.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    axes = style.figure(5, 3.6).subplots() if axes is None else axes
    parts = trained.model.slices
    particles = np.asarray(trained.particles, np.float64)
    particles = particles.reshape(-1, particles.shape[-1])  # of all layers, where there are several
    weights, readout = particles[:, parts["weights"]], particles[:, parts["readout"]]
    mass = np.full(len(particles), 1 / len(particles)) if trained.weights is None else trained.weights
    plane, spread = _principal_plane(weights, np.asarray(mass, np.float64))
    size = np.abs(readout).max(axis=1, initial=0.0)
    order = np.argsort(size)
    if readout.shape[1] > 1:
        n = readout.shape[1]
        colours, colormap, limits = readout.argmax(axis=1), style.classes(n), (-0.5, n - 0.5)
    else:
        colours, colormap = (readout[:, 0] if readout.shape[1] else np.zeros(len(particles))), "coolwarm"
        limits = (-max(size.max(), 1e-12), max(size.max(), 1e-12))
    points = axes.scatter(
        *plane[order].T,
        c=colours[order],
        cmap=colormap,
        vmin=limits[0],
        vmax=limits[1],
        s=10 * len(mass) * mass[order],
        alpha=0.8,
        linewidths=0,
    )
    bar = axes.figure.colorbar(
        points, ax=axes, label="class of the largest readout" if readout.shape[1] > 1 else "readout"
    )
    if readout.shape[1] > 1 and trained.classes is not None:
        shown = range(0, len(trained.classes), -(-len(trained.classes) // _MOST_NAMES))
        bar.set_ticks(list(shown), labels=[style.plain(str(trained.classes[k]), most=20) for k in shown])
    axes.set_xlabel(f"first principal axis of the weights ({spread[0]:.0%})")
    axes.set_ylabel(f"second ({spread[1]:.0%})")
    axes.set_title(f"{len(particles)} neurons", fontsize=10)
    return style.open_axes(axes, grid=False).figure


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
        axes = style.figure(7, 4.2).subplots()
    # The estimate is debiased and may fall below 0, which this axis does not have: the bottom stands for it.
    bottom = min(values.min() for values in known if len(values)) / 30
    for number, (name, (places, values)) in enumerate(curves.items()):
        estimate, upper = np.maximum(values, bottom).T
        colour = style.colour(number)
        axes.fill_between(places, estimate, upper, color=colour, alpha=0.2, linewidth=0)
        axes.plot(places, estimate, color=colour, linewidth=1.5, marker="o", markersize=3, label=name)
    axes.set_yscale("log")
    axes.set_ylim(bottom=bottom)
    axes.set(xlabel=xlabel, ylabel="duality gap, shaded up to its certified bound")
    axes.set_title(title, fontsize=10)
    style.open_axes(axes)
    axes.legend(frameon=False)
    return axes.figure


def chaos(measured: Chaos, title: str = "") -> Any:
    """Bias and fluctuation of a quantity against the number of particles, with the two laws fitted to them.

    Parameters
    ----------
    measured : Chaos
        Of `mfld.diagnostics.propagation_of_chaos`.
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
    >>> from mfld import diagnostics, plots
    >>> pull = mfld.Functional(lambda x: 0 * x + x.mean(), lambda x: x.mean() ** 2 / 2, n_coordinates=1, l2=0.5)
    >>> measured = diagnostics.propagation_of_chaos(
    ...     lambda n: mfld.MFLD(n, step_size=0.1, temperature=1.0, n_replicates=20),
    ...     pull, lambda state: state.particles.mean() ** 2, widths=[10, 40], n_steps=20,
    ... )
    >>> len(plots.chaos(measured).axes)
    2
    """
    validation.instance("measured", measured, Chaos, "a Chaos, as of propagation_of_chaos")
    figure = style.figure(9, 3.8)
    left, right = figure.subplots(1, 2)
    figure.suptitle(title)
    widths = np.asarray(measured.widths, np.float64)
    line = np.geomspace(widths.min(), widths.max(), 200)
    left.errorbar(
        1 / widths,
        measured.means,
        2 * measured.errors,
        fmt="o",
        markersize=4,
        color=style.colour(0),
        label="two errors",
    )
    ends = np.array([0, 1 / widths.min()])
    label = f"{measured.limit:.4g} + ({measured.bias:.2g} ± {measured.bias.error:.1g}) / N"
    left.plot(ends, measured.limit + measured.bias * ends, color=style.colour(1), linewidth=1.5, label=label)
    left.set(xlabel="1 / N", ylabel="mean over replicates")
    right.loglog(widths, measured.spreads, "o", markersize=4, color=style.colour(0))
    middle = np.exp(np.mean(np.log(widths))), np.exp(np.mean(np.log(measured.spreads)))
    label = f"N to the power -({measured.exponent:.2f} ± {measured.exponent.error:.2f})"
    curve = middle[1] * (line / middle[0]) ** -float(measured.exponent)
    right.loglog(line, curve, color=style.colour(1), linewidth=1.5, label=label)
    right.set(xlabel="number of particles N", ylabel="standard deviation over replicates")
    for panel in (left, right):
        panel.legend(frameon=False)
        style.open_axes(panel)
    return figure


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
