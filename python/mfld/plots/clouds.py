"""Clouds of points that move, as animated GIFs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mfld import extras, validation
from mfld.files import replacing
from mfld.plots import style
from mfld.validation import FloatArray

_MOST_POINTS = 1000
_FRAMES_PER_SECOND = 6
_LAST_FRAMES = 9  # as long as which the last one stays


def moving(
    frames: Sequence[ArrayLike],
    path: str | os.PathLike[str],
    *,
    behind: Callable[[Any], None] | None = None,
    limits: Sequence[tuple[float, float]] | None = None,
    titles: Sequence[str] = (),
    label: str = "particles",
) -> None:
    """Animation of a cloud, as a GIF: of one coordinate its histogram, of more the first two coordinates.

    Parameters
    ----------
    frames : sequence of array_like, each of shape (n, d)
        Particles, one array for each picture. The last one stays for a while.
    path : path
        Ends in ``.gif``; a file of that name is replaced as a whole.
    behind : callable, optional
        Draws on the axes of each picture what stands behind the cloud: contours, a density, data.
    limits : sequence of pairs, optional
        Ends of the axes, one pair for each of the first two coordinates; by default those of all frames.
    titles : sequence of str, optional
        One for each picture.
    label : str
        Of the cloud in the legend.

    Raises
    ------
    ImportError
        If matplotlib, or Pillow that writes the file, is not installed.
    TypeError, ValueError
        If the arrays do not fit, or there are none.

    Examples
    --------
    >>> import os, tempfile
    >>> import mfld
    >>> from mfld import plots
    >>> well = mfld.Potential(lambda x: x, n_coordinates=2)
    >>> run = mfld.MFLD(100, step_size=0.1, temperature=0.1)
    >>> frames = [run.run(well, n_steps, seed=0).particles for n_steps in (0, 5, 20)]
    >>> path = os.path.join(tempfile.mkdtemp(), "cloud.gif")
    >>> plots.moving(frames, path, titles=["start", "5 steps", "20 steps"])
    >>> os.path.exists(path)
    True
    """
    each = _frames(frames, path, titles)
    d = each[0].shape[1]
    shown = range(min(d, 2))
    if limits is None:
        every = np.concatenate(each)
        limits = [(float(every[:, j].min()), float(every[:, j].max())) for j in shown]
    elif len(limits) != len(shown):
        raise ValueError(f"limits must be {len(shown)} pairs, one for each coordinate that is shown, got {len(limits)}")
    drawn = style.figure(4.2, 4.2)
    writer = extras.library("matplotlib.animation", "plot", "an animation").PillowWriter(fps=_FRAMES_PER_SECOND)
    axes = drawn.subplots()
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "cloud.gif"
        with writer.saving(drawn, str(own), dpi=80):
            for k, frame in enumerate(each):
                axes.clear()
                style.open_axes(axes, grid=False)
                if behind is not None:
                    behind(axes)
                if d == 1:
                    bins = np.linspace(*limits[0], 60)
                    axes.hist(frame[:, 0], bins, density=True, histtype="step", color=style.colour(0), label=label)
                else:
                    axes.plot(frame[:, 0], frame[:, 1], ".", color=style.colour(0), markersize=3, label=label)
                    axes.set_ylim(*limits[1])
                axes.set_xlim(*limits[0])
                axes.legend(loc="upper right", fontsize=7, frameon=False)
                axes.set_title(titles[k] if titles else "")
                for _ in range(_LAST_FRAMES if k == len(each) - 1 else 1):
                    writer.grab_frame()
        with replacing(path) as file:
            file.write(own.read_bytes())


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
    _frames(frames, path, titles, given.shape[1], "to match rows")
    margin = 0.25 * (np.ptp(given, axis=0) + (np.ptp(given, axis=0) == 0))
    low, high = given.min(axis=0) - margin, given.max(axis=0) + margin
    limits = [(float(low[j]), float(high[j])) for j in range(min(2, given.shape[1]))]
    moving(frames, path, behind=_rows(given, limits), limits=limits, titles=titles, label="generated")


def _rows(given: FloatArray, limits: Sequence[tuple[float, float]]) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        if given.shape[1] == 1:
            axes.hist(given[:, 0], np.linspace(*limits[0], 60), density=True, color=style.grey(), label="rows")
        else:
            some = given[:: max(1, len(given) // _MOST_POINTS)]
            axes.plot(some[:, 0], some[:, 1], ".", color=style.grey(), markersize=3, label="rows")

    return draw


def _frames(
    frames: Sequence[ArrayLike],
    path: str | os.PathLike[str],
    titles: Sequence[str],
    n_columns: int | None = None,
    why: str = "to match the first one",
) -> list[FloatArray]:
    """Frames that fit each other, a path and titles; refused before anything is drawn."""
    each = [validation.array(f"frames[{k}]", frame, np.float64) for k, frame in enumerate(frames)]
    if not each:
        raise ValueError("frames must have one array at least")
    for k, frame in enumerate(each):
        validation.shape(f"frames[{k}]", frame, ("n", n_columns or "d"), why)
        n_columns = frame.shape[1]
    if titles and len(titles) != len(each):
        raise ValueError(f"titles must be {len(each)} texts, one for each frame, got {len(titles)}")
    if Path(path).suffix.lower() != ".gif":
        raise ValueError(f"{path} must end in .gif")
    return each
