"""Pictures of controls and of the states that they lead to."""

from __future__ import annotations

from typing import Any

import numpy as np

from mfld.objectives import ControlProblem
from mfld.objectives.base import Measure
from mfld.plots import style


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
    figure = style.figure(10, 3.8)
    left, right = figure.subplots(1, 2)
    figure.suptitle(title)
    edges = problem.node_times
    for j in range(each.shape[2]):
        colour = style.colour(j)
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
        lines = right.plot(found.times, shown[:, :, j], color=style.colour(j), linewidth=1.2, alpha=0.8)
        lines[0].set_label(f"$x_{{{j + 1}}}$")
    right.set(xlabel="time", ylabel="state")
    for axes in (left, right):
        axes.legend(frameon=False)
        style.open_axes(axes)
    return figure
