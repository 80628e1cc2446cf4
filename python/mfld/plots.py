"""Pictures of a run (needs matplotlib: ``pip install 'mfld[plot]'``)."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from mfld import validation
from mfld.algorithms import Result
from mfld.diagnostics import Chaos
from mfld.files import replacing
from mfld.fokker_planck import FokkerPlanck
from mfld.objectives import ControlProblem
from mfld.objectives.base import Measure
from mfld.spikes import Deconvolution

if TYPE_CHECKING:
    from mfld.density import Density
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
    particles = particles.reshape(-1, particles.shape[-1])  # of all layers, where there are several
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


def fokker_planck(
    grid: FokkerPlanck,
    densities: Mapping[str, ArrayLike],
    measure: Measure | None = None,
    *,
    title: str = "",
    axes: Any = None,
) -> Any:
    """Particles over densities of the Fokker-Planck equation.

    In one dimension the histogram of the particles under lines; in two the particles over contours of one density.

    Parameters
    ----------
    grid : FokkerPlanck
    densities : mapping of str to array_like, shape n_cells
        By their names in the legend: ``{"at time 1": evolution.density[-1]}``.
    measure : Cloud or array_like, shape (N, p), optional
        Its histogram has one bin for several cells where there are few particles.
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
        If an argument does not fit, or there are several densities in two dimensions.

    Examples
    --------
    >>> import mfld
    >>> from mfld import plots
    >>> grid = mfld.FokkerPlanck(mfld.potentials.DoubleWell(), temperature=0.2, n_cells=100, limits=[(-2, 2)])
    >>> plots.fokker_planck(grid, {"Gibbs": grid.gibbs()}, measure=[[-1.0], [0.9], [1.1]]).axes[0].get_ylabel()
    'density'
    """
    validation.instance("grid", grid, FokkerPlanck, "a FokkerPlanck")
    validation.instance("densities", densities, Mapping, "a mapping of names to densities")
    curves = {name: validation.array(f"densities[{name!r}]", values, np.float64) for name, values in densities.items()}
    for name, values in curves.items():
        validation.shape(f"densities[{name!r}]", values, grid.n_cells, "to match the grid")
    planar = len(grid.axes) == 2
    if not curves or (planar and len(curves) > 1):
        raise ValueError(f"densities must be {'one' if planar else 'at least one'}, got {len(curves)}")
    particles = None if measure is None else grid.objective.cloud(measure)
    if axes is None:
        axes = _figure(6.4, 5.4 if planar else 4.0).subplots()
    if planar:
        (values,) = curves.values()
        filled = axes.contourf(*grid.axes, values.T, levels=12, cmap="Blues")
        axes.figure.colorbar(filled, ax=axes, label=next(iter(curves)))
        if particles is not None:
            shown = np.linspace(0, len(particles.particles) - 1, min(len(particles.particles), 2000)).astype(int)
            axes.plot(*particles.particles[shown].T, ".", color="#c46a1b", markersize=2.5, alpha=0.7)
        axes.set(xlabel="first coordinate", ylabel="second coordinate")
    else:
        (x,) = grid.axes
        if particles is not None:
            heights = grid.histogram(particles)
            together = max(1, round(len(x) / min(len(x), 4 * len(particles.particles) ** (1 / 3) + 10)))
            starts = np.arange(0, len(x), together)
            counts = np.diff([*starts, len(x)])
            width = x[1] - x[0]
            edges = np.append(x[starts], x[-1] + width) - width / 2
            label = f"{len(particles.particles)} particles"
            axes.stairs(np.add.reduceat(heights, starts) / counts, edges, fill=True, color="#cfdcea", label=label)
        for number, (name, values) in enumerate(curves.items()):
            axes.plot(x, values, color=_COLOURS[number % len(_COLOURS)], linewidth=1.5, label=name)
        axes.set(xlabel="coordinate", ylabel="density", ylim=(0, None))
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    halves = [(axis[1] - axis[0]) / 2 for axis in grid.axes]
    limits = [(float(axis[0] - half), float(axis[-1] + half)) for axis, half in zip(grid.axes, halves, strict=True)]
    axes.set_xlim(limits[0])
    if planar:
        axes.set_ylim(limits[1])
    axes.set_title(title, color=_INK, fontsize=10)
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
    figure = _figure(9, 3.8)
    left, right = figure.subplots(1, 2)
    figure.suptitle(title, color=_INK)
    widths = np.asarray(measured.widths, np.float64)
    line = np.geomspace(widths.min(), widths.max(), 200)
    left.errorbar(
        1 / widths, measured.means, 2 * measured.errors, fmt="o", markersize=4, color=_COLOURS[0], label="two errors"
    )
    ends = np.array([0, 1 / widths.min()])
    label = f"{measured.limit:.4g} + ({measured.bias:.2g} ± {measured.bias.error:.1g}) / N"
    left.plot(ends, measured.limit + measured.bias * ends, color=_COLOURS[1], linewidth=1.5, label=label)
    left.set(xlabel="1 / N", ylabel="mean over replicates")
    right.loglog(widths, measured.spreads, "o", markersize=4, color=_COLOURS[0])
    middle = np.exp(np.mean(np.log(widths))), np.exp(np.mean(np.log(measured.spreads)))
    label = f"N to the power -({measured.exponent:.2f} ± {measured.exponent.error:.2f})"
    curve = middle[1] * (line / middle[0]) ** -float(measured.exponent)
    right.loglog(line, curve, color=_COLOURS[1], linewidth=1.5, label=label)
    right.set(xlabel="number of particles N", ylabel="standard deviation over replicates")
    for panel in (left, right):
        panel.legend(frameon=False)
        panel.grid(color="#dddddd", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    return figure


def bands(
    x: ArrayLike,
    curves: ArrayLike,
    *,
    levels: Sequence[float] = (0.5, 0.9),
    points: tuple[ArrayLike, ArrayLike] | None = None,
    xlabel: str = "",
    ylabel: str = "",
    title: str = "",
    axes: Any = None,
) -> Any:
    """Curves that were drawn at random, as credible bands around their median: how far a posterior is spread.

    At each x the band of a level holds that share of the curves, with as many above as below.

    Parameters
    ----------
    x : array_like, shape (n,)
        Ascending.
    curves : array_like, shape (M, n)
        Values of M curves there.
    levels : sequence of float
        Between 0 and 1.
    points : pair of array_like, optional
        Coordinates of observations to show.
    xlabel, ylabel, title : str
    axes : matplotlib.axes.Axes, optional
        Draw here instead of in a figure of its own.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    TypeError, ValueError
        If an array is of the wrong kind or shape, or a level out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import plots
    >>> slopes = np.random.default_rng(0).normal(1, 0.1, size=(500, 1))
    >>> figure = plots.bands(np.linspace(0, 1, 20), slopes * np.linspace(0, 1, 20))
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    ['90 %', '50 %', 'median']
    """
    places = validation.array("x", x, np.float64)
    validation.shape("x", places, ("n",))
    values = validation.array("curves", curves, np.float64)
    validation.shape("curves", values, ("M", len(places)), "(curves, places)")
    shares = sorted((validation.real("levels", level, positive=True) for level in levels), reverse=True)
    if not shares or shares[0] >= 1:
        raise ValueError(f"levels must be between 0 and 1, got {list(levels)}")
    if axes is None:
        axes = _figure(7, 4.2).subplots()
    for number, share in enumerate(shares):
        low, high = np.quantile(values, [(1 - share) / 2, (1 + share) / 2], axis=0)
        alpha = 0.15 + 0.25 * (number + 1) / len(shares)
        axes.fill_between(places, low, high, color=_COLOURS[0], alpha=alpha, linewidth=0, label=f"{100 * share:.3g} %")
    axes.plot(places, np.median(values, axis=0), color=_COLOURS[0], linewidth=1.5, label="median")
    if points is not None:
        axes.plot(*points, ".", color=_INK, markersize=4, label="observed")
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.set_title(title, color=_INK, fontsize=10)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return axes.figure


_MOST_SHOWN = 5  # coordinates of a density
_MOST_POINTS = 1000


def density(
    found: Density, rows: ArrayLike, labels: Sequence[str], *, shown: Sequence[int] | None = None, title: str = ""
) -> Any:
    """Marginals of a density on the diagonal, and of pairs of coordinates below it, with the rows.

    Curves and contours are exact, those of the marginal mixtures; contours hold 50 and 90 % of their mass.

    Parameters
    ----------
    found : mfld.density.Density
    rows : array_like, shape (n, p)
    labels : sequence of str
        Names of the p coordinates.
    shown : sequence of int, optional
        Numbers of the coordinates to show, by default the first 5.
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    TypeError, ValueError
        If the arrays do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from mfld import density, plots
    >>> rows = np.random.default_rng(0).normal(size=(100, 2))
    >>> figure = plots.density(density.fit(rows).density, rows, ["a", "b"])
    >>> figure.axes[0].get_ylabel()
    'density'
    """
    p = found.means.shape[1]
    given = validation.array("rows", rows, np.float64)
    validation.shape("rows", given, ("n", p), "to match the density")
    if len(labels) != p:
        raise ValueError(f"labels must be {p} names, got {len(labels)}")
    chosen = [
        validation.integer("shown", j, 0, p - 1) for j in (range(min(p, _MOST_SHOWN)) if shown is None else shown)
    ]
    if not chosen:
        raise ValueError("shown must have one coordinate at least")
    size = len(chosen)
    figure = _figure(2.4 * size + 1.6, 2.2 * size + 0.8)
    figure.suptitle(title + (f" ({size} of {p} coordinates)" if size < p else ""), color=_INK, fontsize=11)
    grid = figure.subplots(size, size, squeeze=False)
    given, found, names = given[:, chosen], found.marginal(chosen), [labels[j] for j in chosen]
    some = given[:: max(1, len(given) // _MOST_POINTS)]
    lines = []
    for j in range(size):
        margin = 0.08 * (np.ptp(given[:, j]) or 1.0)
        lines.append(np.linspace(given[:, j].min() - margin, given[:, j].max() + margin, 160))
    for i, j in np.ndindex(size, size):
        axes = grid[i, j]
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=7, labelleft=j in (i, 0), labelbottom=i == size - 1)
        if j > i:
            axes.set_axis_off()
            continue
        if i == j:
            axes.hist(given[:, j], bins="sqrt", density=True, color="#cccccc")
            curve = np.exp(found.marginal([j]).log_density(lines[j][:, np.newaxis]))
            axes.plot(lines[j], curve, color=_COLOURS[0], linewidth=1.5)
            axes.set_ylabel("density", fontsize=8)
        else:
            axes.plot(some[:, j], some[:, i], ".", color="#999999", markersize=2, zorder=0)
            plane = np.stack(np.meshgrid(lines[j], lines[i]), axis=-1)
            height = np.exp(found.marginal([j, i]).log_density(plane.reshape(-1, 2))).reshape(160, 160)
            levels = _levels(height, (0.9, 0.5))
            if levels is not None:
                axes.contour(lines[j], lines[i], height, levels=levels, colors=_COLOURS[0], linewidths=[0.8, 1.4])
            if j == 0:
                axes.set_ylabel(names[i], fontsize=8)
        if i == size - 1:
            axes.set_xlabel(names[j], fontsize=8)
        axes.set_xlim(lines[j][0], lines[j][-1])
    return figure


def _levels(height: np.ndarray, shares: Sequence[float]) -> list[float] | None:
    """Heights above which these shares of the mass on a grid lie, ascending; None where they are not distinct."""
    ordered = np.sort(height, axis=None)[::-1]
    mass = np.cumsum(ordered)
    if not mass[-1] > 0:
        return None
    found = [float(ordered[np.searchsorted(mass, share * mass[-1])]) for share in shares]
    return found if found == sorted(set(found)) else None


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


def control(problem: ControlProblem, measure: Measure, title: str = "") -> Any:
    """Controls over time and the states that they lead to.

    On the left, for each coordinate of the control, the mean and the bands that hold 50 % and 95 % of a node's measure;
    on the right the coordinates of the states, those of all paths up to 50.

    Parameters
    ----------
    problem : ControlProblem
    measure : Cloud or array_like, shape (n_nodes, N, p), or (N, p) where it is shared
        Of equal weights.
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    found = problem.trajectory(measure)
    particles = problem.cloud(measure).particles.astype(np.float64)
    each = np.repeat(particles[np.newaxis], problem.n_nodes, axis=0) if problem.shared else particles
    figure = _figure(10, 3.8)
    left, right = figure.subplots(1, 2)
    figure.suptitle(title, color=_INK)
    edges = problem.node_times
    for j in range(each.shape[2]):
        colour = _COLOURS[j % len(_COLOURS)]
        for low, high, alpha in ((2.5, 97.5, 0.18), (25, 75, 0.3)):
            ends = np.percentile(each[:, :, j], (low, high), axis=1)
            # A node's measure holds for its whole part.
            ends = np.concatenate([ends, ends[:, -1:]], axis=1)
            left.fill_between(edges, *ends, step="post", color=colour, alpha=alpha, linewidth=0)
        mean = each[:, :, j].mean(axis=1)
        left.step(edges, [*mean, mean[-1]], where="post", color=colour, linewidth=1.5, label=f"$a_{{{j + 1}}}$")
    left.set(xlabel="time", ylabel="control: mean, 50 % and 95 %")
    shown = found.states[:, :50]
    for j in range(shown.shape[2]):
        lines = right.plot(found.times, shown[:, :, j], color=_COLOURS[j % len(_COLOURS)], linewidth=1.2, alpha=0.8)
        lines[0].set_label(f"$x_{{{j + 1}}}$")
    right.set(xlabel="time", ylabel="state")
    for axes in (left, right):
        axes.legend(frameon=False)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def pictures(images: np.ndarray, title: str = "") -> Any:
    """Grey pictures side by side, ten in a row.

    Parameters
    ----------
    images : ndarray, shape (n, height, width)
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    figure = _figure(5, 0.5 * math.ceil(len(images) / 10) + 0.4)
    axes = figure.subplots(1, 1)
    axes.imshow(_mosaic(images), cmap="gray_r", interpolation="nearest")
    axes.axis("off")
    figure.suptitle(title, color=_INK, fontsize=9)
    return figure


def animation(frames: Sequence[np.ndarray], path: str | os.PathLike[str]) -> None:
    """Write an animated GIF of grey pictures, each frame of shape (n, height, width); the last one stays a while.

    Raises
    ------
    ImportError
        If matplotlib, with the Pillow that it brings, is not installed.
    """
    _figure(1, 1)  # says what is missing
    from PIL import Image  # noqa: PLC0415  comes with matplotlib

    low, high = float(np.min(frames[-1])), float(np.max(frames[-1]))
    tiles = [np.clip((_mosaic(frame) - low) / ((high - low) or 1.0), 0, 1) for frame in frames]
    enlarged = [np.kron((255 * (1 - tile)).astype(np.uint8), np.ones((4, 4), np.uint8)) for tile in tiles]
    images = [Image.fromarray(each) for each in enlarged]
    with replacing(path) as file:
        durations = [100] * (len(images) - 1) + [2000]
        images[0].save(file, format="GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)


def _mosaic(images: np.ndarray, n_columns: int = 10) -> np.ndarray:
    """Pictures in rows of ten with a white pixel between them, shape (height, width)."""
    n, height, width = images.shape
    columns = min(n, n_columns)
    whole = np.zeros((math.ceil(n / columns), height + 1, columns, width + 1))
    for k, image in enumerate(images):
        whole[k // columns, :height, k % columns, :width] = image
    return whole.reshape(whole.shape[0] * (height + 1), columns * (width + 1))


def generated(
    frames: Sequence[ArrayLike], rows: ArrayLike, path: str | os.PathLike[str], *, titles: Sequence[str] = ()
) -> None:
    """Animation of generated points beside the rows, as a GIF: of one column histograms, of more the first two columns.

    Parameters
    ----------
    frames : sequence of array_like, each of shape (n, d)
        Generated points, one array for each picture.
    rows : array_like, shape (n, d)
    path : path
        Ends in ``.gif``; a file of that name is replaced as a whole.
    titles : sequence of str, optional
        One for each picture.

    Raises
    ------
    ImportError
        If matplotlib, or Pillow that writes the file, is not installed.
    TypeError, ValueError
        If the arrays do not fit, or there are none.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from mfld import plots
    >>> rows = np.random.default_rng(0).normal(size=(50, 2))
    >>> path = os.path.join(tempfile.mkdtemp(), "points.gif")
    >>> plots.generated([rows * 0.5, rows], rows, path)
    >>> os.path.exists(path)
    True
    """
    given = validation.array("rows", rows, np.float64)
    validation.shape("rows", given, ("n", "d"))
    each = [validation.array(f"frames[{k}]", frame, np.float64) for k, frame in enumerate(frames)]
    if not each:
        raise ValueError("frames must have one array at least")
    for k, frame in enumerate(each):
        validation.shape(f"frames[{k}]", frame, ("n", given.shape[1]), "to match rows")
    if titles and len(titles) != len(each):
        raise ValueError(f"titles must be {len(each)} texts, one for each frame, got {len(titles)}")
    if Path(path).suffix.lower() != ".gif":
        raise ValueError(f"{path} must end in .gif")
    figure = _figure(4.2, 4.2)
    from matplotlib.animation import PillowWriter  # noqa: PLC0415  an extra

    axes, writer = figure.subplots(), PillowWriter(fps=6)
    margin = 0.25 * (np.ptp(given, axis=0) + (np.ptp(given, axis=0) == 0))
    low, high = given.min(axis=0) - margin, given.max(axis=0) + margin
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "points.gif"
        with writer.saving(figure, str(own), dpi=80):
            for k, frame in enumerate(each):
                axes.clear()
                axes.spines[["top", "right"]].set_visible(False)
                if given.shape[1] == 1:
                    bins = np.linspace(low[0], high[0], 60)
                    axes.hist(given[:, 0], bins, density=True, color="#cccccc", label="rows")
                    axes.hist(frame[:, 0], bins, density=True, histtype="step", color=_COLOURS[0], label="generated")
                else:
                    some = given[:: max(1, len(given) // _MOST_POINTS)]
                    axes.plot(some[:, 0], some[:, 1], ".", color="#bbbbbb", markersize=3, label="rows")
                    axes.plot(frame[:, 0], frame[:, 1], ".", color=_COLOURS[0], markersize=3, label="generated")
                    axes.set_ylim(low[1], high[1])
                axes.set_xlim(low[0], high[0])
                axes.legend(loc="upper right", fontsize=7, frameon=False)
                axes.set_title(titles[k] if titles else "", color=_INK, fontsize=10)
                writer.grab_frame()
        with replacing(path) as file:
            file.write(own.read_bytes())


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
