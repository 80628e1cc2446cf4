"""Which rows are trained on, and which only judge: by strata, so that each part has classes in their shares."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


def hold_out(
    n_rows: int, labels: NDArray[Any] | None, share: float, rng: np.random.Generator
) -> tuple[Rows, Rows, list[Any]]:
    """Rows to train on, rows that are held out, and the classes that have no row among the latter.

    Each stretch of the rows to train on has about the classes of all of them.

    Parameters
    ----------
    n_rows : int
    labels : ndarray, shape (n_rows,), or None
        Classes; None for a regression.
    share : float
        Of the rows, to hold out.
    rng : numpy.random.Generator

    Raises
    ------
    ValueError
        If a class has a single row, or none to train on.
    """
    order = rng.permutation(n_rows)
    n_held_out = min(max(1, round(share * n_rows)), n_rows - 2)
    if labels is None:
        return order[n_held_out:], np.sort(order[:n_held_out]), []
    classes, counts = np.unique(labels, return_counts=True)
    expected = "the target must have at least 2 rows of each class, one to train on and one to judge by"
    _refuse(expected, classes[counts < 2])
    order = by_strata(order, labels)
    rows, held_out = order[n_held_out:], order[:n_held_out]
    expected = f"test_share must leave rows of each class to train on, got {share:g}"
    _refuse(expected, np.setdiff1d(classes, labels[rows]))
    return rows, np.sort(held_out), np.setdiff1d(classes, labels[held_out]).tolist()


def by_strata(rows: Rows, labels: NDArray[Any]) -> Rows:
    """Rows in another order, where each stretch has about the same share of every class; that within a class stays.

    The j-th of m rows of a class comes where a fraction ``(j + 1/2) / m`` of all rows is.

    Examples
    --------
    >>> import numpy as np
    >>> labels = np.array(["a", "a", "a", "a", "a", "a", "b", "b"])
    >>> "".join(labels[by_strata(np.arange(8), labels)])
    'aabaaaba'
    """
    _, numbers, counts = np.unique(labels[rows], return_inverse=True, return_counts=True)
    together = np.argsort(numbers, kind="stable")
    ranks = np.empty(len(rows), np.int64)
    ranks[together] = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rows[np.argsort((ranks + 0.5) / counts[numbers], kind="stable")]


def folds(rows: Rows, labels: NDArray[Any] | None, n_scores: int) -> list[Rows]:
    """Rows to validate on, that score so many in all: 5 folds of a small set, fewer of a larger one, a fifth each.

    The only row of a class among these rows is never one of them.
    """
    n_parts = min(5, len(rows))
    n_folds = int(np.clip(math.ceil(5 * n_scores / len(rows)), 1, n_parts))
    parts = [np.sort(fold) for fold in np.array_split(rows, n_parts)[:n_folds]]
    if labels is None:
        return parts
    classes, counts = np.unique(labels[rows], return_counts=True)
    several = [fold[~np.isin(labels[fold], classes[counts < 2])] for fold in parts]
    return [fold for fold in several if len(fold)]


def _refuse(expected: str, classes: NDArray[Any]) -> None:
    if len(classes):
        more = f" and {len(classes) - 3} more" if len(classes) > 3 else ""
        shown = ", ".join(repr(each) for each in classes[:3].tolist())
        advice = ", or say --task regression if they are numbers" if classes.dtype.kind in "iuf" else ""
        raise ValueError(f"{expected}; too few are of {shown}{more}: leave these rows out or bring more{advice}")
