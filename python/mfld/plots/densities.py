"""Pictures of densities: of an equation on its grid, of curves drawn at random, of a mixture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from mfld import validation
from mfld.fokker_planck import FokkerPlanck
from mfld.objectives.base import Measure
from mfld.plots import style

if TYPE_CHECKING:
    from mfld.density import Density


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
        axes = style.figure(6.4, 5.4 if planar else 4.0).subplots()
    if planar:
        (values,) = curves.values()
        filled = axes.contourf(*grid.axes, values.T, levels=12)
        axes.figure.colorbar(filled, ax=axes, label=next(iter(curves)))
        if particles is not None:
            shown = np.linspace(0, len(particles.particles) - 1, min(len(particles.particles), 2000)).astype(int)
            axes.plot(*particles.particles[shown].T, ".", color=style.colour(1), markersize=2.5, alpha=0.7)
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
            axes.stairs(
                np.add.reduceat(heights, starts) / counts,
                edges,
                fill=True,
                color=style.colour(0),
                alpha=0.25,
                label=label,
            )
        for number, (name, values) in enumerate(curves.items()):
            axes.plot(x, values, color=style.colour(number), linewidth=1.5, label=name)
        axes.set(xlabel="coordinate", ylabel="density", ylim=(0, None))
        axes.legend(frameon=False)
        style.open_axes(axes, grid=False)
    halves = [(axis[1] - axis[0]) / 2 for axis in grid.axes]
    limits = [(float(axis[0] - half), float(axis[-1] + half)) for axis, half in zip(grid.axes, halves, strict=True)]
    axes.set_xlim(limits[0])
    if planar:
        axes.set_ylim(limits[1])
    axes.set_title(title, fontsize=10)
    return axes.figure


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
        axes = style.figure(7, 4.2).subplots()
    for number, share in enumerate(shares):
        low, high = np.quantile(values, [(1 - share) / 2, (1 + share) / 2], axis=0)
        alpha = 0.15 + 0.25 * (number + 1) / len(shares)
        axes.fill_between(
            places, low, high, color=style.colour(0), alpha=alpha, linewidth=0, label=f"{100 * share:.3g} %"
        )
    axes.plot(places, np.median(values, axis=0), color=style.colour(0), linewidth=1.5, label="median")
    if points is not None:
        axes.plot(*points, ".", color=style.ink(), markersize=4, label="observed")
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.set_title(title, fontsize=10)
    style.open_axes(axes)
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
    figure = style.figure(2.4 * size + 1.6, 2.2 * size + 0.8)
    figure.suptitle(title + (f" ({size} of {p} coordinates)" if size < p else ""), fontsize=11)
    grid = figure.subplots(size, size, squeeze=False)
    given, found, names = given[:, chosen], found.marginal(chosen), [labels[j] for j in chosen]
    some = given[:: max(1, len(given) // _MOST_POINTS)]
    lines = []
    for j in range(size):
        margin = 0.08 * (np.ptp(given[:, j]) or 1.0)
        lines.append(np.linspace(given[:, j].min() - margin, given[:, j].max() + margin, 160))
    for i, j in np.ndindex(size, size):
        axes = grid[i, j]
        style.open_axes(axes, grid=False)
        axes.tick_params(labelsize=7, labelleft=j in (i, 0), labelbottom=i == size - 1)
        if j > i:
            axes.set_axis_off()
            continue
        if i == j:
            axes.hist(given[:, j], bins="sqrt", density=True, color=style.grey())
            curve = np.exp(found.marginal([j]).log_density(lines[j][:, np.newaxis]))
            axes.plot(lines[j], curve, color=style.colour(0), linewidth=1.5)
            axes.set_ylabel("density", fontsize=8)
        else:
            axes.plot(some[:, j], some[:, i], ".", color=style.grey(), markersize=2, zorder=0)
            plane = np.stack(np.meshgrid(lines[j], lines[i]), axis=-1)
            height = np.exp(found.marginal([j, i]).log_density(plane.reshape(-1, 2))).reshape(160, 160)
            levels = _levels(height, (0.9, 0.5))
            if levels is not None:
                axes.contour(lines[j], lines[i], height, levels=levels, colors=style.colour(0), linewidths=[0.8, 1.4])
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
