"""How pictures look: colours that colour-blind readers tell apart, on light and on dark paper."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mfld import extras, validation
from mfld.files import replacing

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#777777")
"""The first four are from Okabe and Ito, "Color universal design" (2008). On the paper of both themes all five have the
contrast of 3 to 1 that the Web Content Accessibility Guidelines ask of graphics."""

MARKERS = ("o", "s", "^", "D", "v")  # the second sign by which curves are told apart, on a grey printer too

_INKS = {"light": ("#ffffff", "#222222", "#dddddd", "Blues"), "dark": ("#15181c", "#dddddd", "#3a3f45", "cividis")}


def _matplotlib(module: str = "matplotlib") -> Any:
    return extras.library(module, "plot", "a picture")


def settings(theme: str = "light") -> dict[str, Any]:
    """Settings of matplotlib that make a theme, for ``matplotlib.rc_context``.

    Parameters
    ----------
    theme : {"light", "dark"}

    Raises
    ------
    ValueError
        If there is no such theme.

    Examples
    --------
    >>> from mfld import plots
    >>> plots.settings("dark")["text.color"]
    '#dddddd'
    """
    paper, ink, line, colormap = _INKS[validation.choice("theme", theme, _INKS)]
    inks = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    papers = ("figure.facecolor", "axes.facecolor", "savefig.facecolor")
    return {
        **dict.fromkeys(inks, ink),
        **dict.fromkeys(papers, paper),
        "grid.color": line,
        "image.cmap": colormap,
        "axes.titlesize": 10,
        "figure.titlesize": 11,
    }


@contextmanager
def theme(name: str = "light") -> Iterator[None]:
    """Pictures that are drawn within this context are made for light or for dark paper.

    Parameters
    ----------
    name : {"light", "dark"}

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If there is no such theme.

    Examples
    --------
    >>> from mfld import plots
    >>> with plots.theme("dark"):
    ...     figure = plots.bands([0.0, 1.0], [[0.0, 1.0], [1.0, 2.0]])
    >>> figure.get_facecolor()[:3] < (0.1, 0.1, 0.2)
    True
    """
    with _matplotlib().rc_context(settings(name)):
        yield


def figure(width: float, height: float) -> Any:
    """An empty figure of so many inches; no display is needed.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    return _matplotlib("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")


def colour(k: int) -> str:
    """Colour of the k-th curve."""
    return COLOURS[k % len(COLOURS)]


def marker(k: int) -> str:
    """Sign of the k-th curve's points."""
    return MARKERS[k % len(MARKERS)]


def classes(n: int) -> Any:
    """Colours of n classes: those above while they last, else shades that become lighter."""
    if n <= len(COLOURS):
        return _matplotlib("matplotlib.colors").ListedColormap(COLOURS[:n])
    return _matplotlib().colormaps["cividis"].resampled(n)


def plain(text: str, most: int = 80) -> str:
    """Text that is no formula, no longer than this: matplotlib reads what is between dollars as one.

    Examples
    --------
    >>> from mfld import plots
    >>> print(plots.plain("from $5 to $10"))
    from \\$5 to \\$10
    """
    short = text if len(text) <= most else f"{text[: most - 1]}…"
    return short.replace("$", r"\$")


def ink() -> str:
    """Colour of text in the theme that holds."""
    return str(_matplotlib().rcParams["text.color"])


def grey() -> str:
    """Colour of what stands behind, seen on light and on dark paper."""
    return "#999999"


def open_axes(axes: Any, *, grid: bool = True) -> Any:
    """Axes with two of their four lines, and a faint grid; returned."""
    axes.spines[["top", "right"]].set_visible(False)
    if grid:
        axes.grid(linewidth=0.6)
        axes.set_axisbelow(True)
    return axes


def ticks_at(axis: Any, values: Sequence[float]) -> None:
    """Ticks of an axis, ``axes.xaxis`` say, at these values and nowhere else: for few values on a logarithmic axis."""
    axis.set_ticks(list(values), [f"{value:g}" for value in values])
    axis.set_ticks([], minor=True)


def check_format(path: str | os.PathLike[str]) -> None:
    """Raise ValueError if the ending of the path names no format of pictures, ImportError without matplotlib."""
    known = figure(1, 1).canvas.get_supported_filetypes()
    if Path(path).suffix[1:].lower() not in known:
        raise ValueError(f"{path} must end in one of {', '.join(f'.{name}' for name in sorted(known))}")


def save(drawn: Any, path: str | os.PathLike[str]) -> None:
    """Write a figure; the ending of the path names the format. Replaced as a whole."""
    with replacing(path) as file:
        drawn.savefig(file, format=Path(path).suffix[1:].lower(), dpi=150)
