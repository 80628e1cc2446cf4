"""Pictures of predictions against what was true."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mfld import validation
from mfld.plots import style

_BINS = 10
_FEWEST = 5  # rows that a share is taken of


def calibration(probabilities: ArrayLike, right: ArrayLike, *, axes: Any = None) -> Any:
    """Share of predictions that are right against the probability that they were given.

    Rows are cut into ten intervals of probability; on the diagonal probabilities are what they say. Bars are two
    standard errors. An interval with fewer than five rows is not shown.

    Parameters
    ----------
    probabilities : array_like, shape (n,)
        Of the class that was predicted.
    right : array_like of bool, shape (n,)
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
        If the arrays do not fit, or a probability is not between 0 and 1.

    Examples
    --------
    >>> from mfld import plots
    >>> figure = plots.calibration([0.9] * 10, [True] * 9 + [False])
    >>> figure.axes[0].get_xlabel()
    'probability of the predicted class'
    """
    given = validation.array("probabilities", probabilities, np.float64)
    validation.shape("probabilities", given, ("n",))
    hits = np.asarray(right, bool)
    if hits.shape != given.shape:
        raise ValueError(f"right must have shape {given.shape} to match probabilities, got {hits.shape}")
    if given.min() < 0 or given.max() > 1:
        raise ValueError(f"probabilities must be between 0 and 1, got {given.min():g} to {given.max():g}")
    axes = style.figure(5, 3.6).subplots() if axes is None else axes
    places = np.minimum((given * _BINS).astype(int), _BINS - 1)
    axes.plot([0, 1], [0, 1], "--", color=style.grey(), label="as they say")
    rows = [places == k for k in range(_BINS) if np.sum(places == k) >= _FEWEST]
    if rows:
        means, shares, sizes = np.array([(given[r].mean(), hits[r].mean(), r.sum()) for r in rows]).T
        errors = 2 * np.sqrt(shares * (1 - shares) / sizes)
        look = {"fmt": style.marker(0), "color": style.colour(0), "capsize": 3}
        axes.errorbar(means, shares, errors, label="held-out rows", **look)
    axes.set(xlabel="probability of the predicted class", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.05))
    axes.legend(frameon=False, loc="upper left")
    return style.open_axes(axes).figure


def residuals(targets: ArrayLike, predicted: ArrayLike, *, axes: Any = None) -> Any:
    """Errors of predictions against the predictions: around 0, without a trend, where a regression is as it should be.

    Parameters
    ----------
    targets, predicted : array_like, shape (n,)
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
        If the arrays do not fit.

    Examples
    --------
    >>> from mfld import plots
    >>> plots.residuals([1.0, 2.0], [1.1, 1.8]).axes[0].get_ylabel()
    'target - prediction'
    """
    true = validation.array("targets", targets, np.float64)
    validation.shape("targets", true, ("n",))
    found = validation.array("predicted", predicted, np.float64)
    validation.shape("predicted", found, true.shape, "to match targets")
    axes = style.figure(5, 3.6).subplots() if axes is None else axes
    axes.axhline(0, color=style.grey(), linestyle="--")
    axes.plot(found, true - found, ".", color=style.colour(0), markersize=4, alpha=0.7)
    axes.set(xlabel="prediction", ylabel="target - prediction")
    return style.open_axes(axes).figure
