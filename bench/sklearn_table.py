"""How good and how fast the estimators are beside scikit-learn's own network, both with their defaults.

    python bench/sklearn_table.py                     # digits, breast_cancer, wine, diabetes; 5 seeds
    python bench/sklearn_table.py --readouts iris     # the default against readout="bilevel"

Each seed cuts off a quarter of the rows for the test, the same for all. `MLPClassifier` and `MLPRegressor` do not
standardise their inputs, so they run a second time behind a StandardScaler. Time is that of the processor within `fit`,
the median over the seeds, all on one thread. With --readouts the last numbers are the mean of the differences from the
default, seed by seed, and its standard error.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mfld import experiments
from mfld.sklearn import MeanFieldClassifier, MeanFieldRegressor


def contestants(classes, seed, readouts=False):
    """Estimators by the names of their columns."""
    if readouts:
        kind = MeanFieldRegressor if classes is None else MeanFieldClassifier
        return {"default": kind(random_state=seed), "bilevel": kind(readout="bilevel", random_state=seed)}
    if classes is None:
        ours, theirs = MeanFieldRegressor(random_state=seed), MLPRegressor(random_state=seed)
    else:
        ours, theirs = MeanFieldClassifier(random_state=seed), MLPClassifier(random_state=seed)
    return {"mfld": ours, "MLP": theirs, "scaled MLP": make_pipeline(StandardScaler(), clone(theirs))}


def measure(name, n_seeds, readouts):
    """Test scores and seconds, shape (n_seeds,), of each estimator on one data set."""
    data = experiments.load(name)
    scores, seconds = {}, {}
    for seed in range(n_seeds):
        stratify = None if data.classes is None else data.targets
        X, X_test, y, y_test = train_test_split(
            data.inputs, data.targets, test_size=0.25, random_state=seed, stratify=stratify
        )
        for column, estimator in contestants(data.classes, seed, readouts).items():
            started = time.process_time()
            estimator.fit(X, y)
            seconds.setdefault(column, []).append(time.process_time() - started)
            scores.setdefault(column, []).append(estimator.score(X_test, y_test))
    return scores, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", default=["digits", "breast_cancer", "wine", "diabetes"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--readouts", action="store_true", help='the default against readout="bilevel"')
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    print("| data | score | " + " | ".join(contestants([], 0, options.readouts)) + " |")
    print("|---" * (2 + len(contestants([], 0, options.readouts))) + "|")
    for name in options.names:
        scores, seconds = measure(name, options.seeds, options.readouts)
        kind = "R2" if experiments.load(name).classes is None else "accuracy"
        cells = [
            f"{np.mean(scores[column]):.4f} ± {np.std(scores[column]):.4f}, {np.median(seconds[column]):.3f} s"
            for column in scores
        ]
        if options.readouts:
            change = np.subtract(scores["bilevel"], scores["default"])
            error = np.std(change, ddof=1) / np.sqrt(len(change)) if len(change) > 1 else np.nan
            cells[-1] += f", {np.mean(change):+.4f} ± {error:.4f}"
        print(f"| {name} | {kind} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
