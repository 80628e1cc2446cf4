"""Utility of synthetic rows, judged by rows that had no part in them: without noise, for the table's holder only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from mfld import fitting
from mfld.algorithms import MFLD
from mfld.models import TwoLayerNetwork

_CELLS = 10  # of the range of a number
_PARTICLES, _STEPS, _L2 = 100, 500, 1e-3


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows by their numbers in [0, 1], shape (n, d), and their categories by number, -1 for none, shape (n, c)."""

    numbers: NDArray[np.float64]
    codes: NDArray[np.int64]

    def cells(self) -> NDArray[np.int64]:
        """Cells of all columns, from 0 on: tenths of numbers, and categories with none before them."""
        tenths = np.minimum(_CELLS * self.numbers, _CELLS - 1).astype(np.int64)
        return np.concatenate([tenths, self.codes + 1], axis=1)

    def take(self, rows: NDArray[np.int64]) -> Rows:
        """Some of them."""
        return Rows(self.numbers[rows], self.codes[rows])


@dataclass(frozen=True, eq=False)
class Utility:
    """Distances of synthetic rows from held-out ones, and what a classifier learns from them.

    Attributes
    ----------
    columns, pairs : dict of str to float
        Total variation of each column, and of each pair of them: numbers in tenths of their range.
    real_columns, real_pairs : float
        The same on average between held-out rows and those that the synthetic ones stand for.
    synthetic_auc, real_auc : float or None
        Area under the receiver operating characteristic on held-out rows, averaged over classes against the rest, of a
        network that saw synthetic rows, and of one that saw the real ones; None without a label, or where the held-out
        rows are of one class.
    """

    columns: dict[str, float]
    pairs: dict[str, float]
    real_columns: float
    real_pairs: float
    synthetic_auc: float | None
    real_auc: float | None


def compare(
    synthetic: Rows, real: Rows, held_out: Rows, names: Sequence[str], sizes: Sequence[int], label: int | None
) -> Utility:
    """Utility of synthetic rows that stand for real ones, by others that were held out.

    Parameters
    ----------
    synthetic, real, held_out : Rows
    names : sequence of str
        Of the numbers, then of the categories.
    sizes : sequence of int
        Numbers of categories.
    label : int, optional
        Column of categories that holds the classes.
    """
    sides = [rows.cells() for rows in (held_out, synthetic, real)]
    widths = [_CELLS] * synthetic.numbers.shape[1] + [size + 1 for size in sizes]
    columns, pairs = {}, {}
    among: tuple[list[float], list[float]] = ([], [])
    for j, name in enumerate(names):
        columns[name] = total_variation(sides[0][:, j], sides[1][:, j], widths[j])
        among[0].append(total_variation(sides[0][:, j], sides[2][:, j], widths[j]))
    for a, b in combinations(range(len(names)), 2):
        joint = [side[:, a] * widths[b] + side[:, b] for side in sides]
        pairs[f"{names[a]}, {names[b]}"] = total_variation(joint[0], joint[1], widths[a] * widths[b])
        among[1].append(total_variation(joint[0], joint[2], widths[a] * widths[b]))
    scores = [None if label is None else _auc(rows, held_out, sizes, label) for rows in (synthetic, real)]
    means = [float(np.mean(each)) if each else 0.0 for each in among]
    return Utility(columns, pairs, *means, *scores)


def total_variation(first: NDArray[np.int64], second: NDArray[np.int64], size: int) -> float:
    """Total variation between two samples of whole numbers below a size."""
    shares = [np.bincount(cells, minlength=size) / len(cells) for cells in (first, second)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def roc_auc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Probability that a positive row has a larger score than a negative one, ties by half."""
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    n = int(positive.sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(scores) - n)))


def _auc(train: Rows, test: Rows, sizes: Sequence[int], label: int) -> float | None:
    """Of a network that saw some rows, on others; None where these are of one class, or there is one class."""
    (x, y), (tested, truth) = (_inputs(rows, sizes, label) for rows in (train, test))
    n_classes = sizes[label]
    judged = [k for k in range(n_classes) if 0 < (truth == k).sum() < len(truth)]
    if n_classes < 2 or not judged or not len(y) or not x.shape[1]:
        return None
    scaling = fitting.scaling(x)
    loss = fitting.default_loss(n_classes)
    model = TwoLayerNetwork(x.shape[1], fitting.n_outputs(n_classes, loss))
    inputs = scaling.apply(x, np.float32)
    risk = fitting.risk(model, inputs, fitting.encoded(y, np.arange(n_classes), loss), loss=loss, l2=_L2)
    gradient = fitting.estimator("mfld", len(y))
    size = fitting.stable_step_size(fitting.largest_curvature(risk, _PARTICLES, 0, "float32", None))
    solver = MFLD(_PARTICLES, step_size=size, temperature=1e-5, gradient=gradient)
    outputs = np.asarray(solver.run(risk, _STEPS).predict(scaling.apply(tested, np.float32)), np.float64)
    if outputs.ndim == 1:
        return roc_auc(outputs, truth == 1)
    return float(np.mean([roc_auc(outputs[:, k], truth == k) for k in judged]))


def _inputs(rows: Rows, sizes: Sequence[int], label: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Numbers and indicators of the rows that have a class, and their classes."""
    known = rows.take(np.flatnonzero(rows.codes[:, label] >= 0))
    others = [t for t in range(len(sizes)) if t != label]
    # Behind the last category stands none of them.
    indicators = [np.eye(sizes[t] + 1)[known.codes[:, t]][:, : sizes[t]] for t in others]
    return np.concatenate([known.numbers, *indicators], axis=1), known.codes[:, label]
