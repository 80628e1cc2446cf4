"""Whether fits survive features with values far out: 20 files, some seeds, each rule for the step size.

    python bench/heavy_tails.py                       # all files, 3 seeds
    python bench/heavy_tails.py cauchy 'pareto*' --seeds 10

A fit is wrecked where its R2 on its own rows is below 0 or not a number: a constant would have been better. The files
are four targets of five columns each, with five laws. Time is that of the processor within `fit`, on one thread.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import time
import warnings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from mfld.sklearn import MeanFieldRegressor

ROWS, COLUMNS = 3000, 5

LAWS = {
    "cauchy": lambda rng, shape: rng.standard_cauchy(shape),
    "t1.5": lambda rng, shape: rng.standard_t(1.5, shape),
    "pareto": lambda rng, shape: rng.pareto(1.0, shape),
    "lognormal": lambda rng, shape: np.exp(2 * rng.normal(size=shape)),
    "rare": lambda rng, shape: (rng.uniform(size=shape) < 1e-3) + rng.normal(size=shape) * [1, 0, 1, 0, 0],
}

TARGETS = {
    "bounded": lambda z: np.tanh(z[:, 0]),
    "steps": lambda z: np.tanh(z[:, 0]) + np.sign(z[:, 1] - np.median(z[:, 1])) / 2,
    "logarithm": lambda z: np.log1p(np.abs(z[:, 0])) - np.log1p(np.abs(z[:, 2])) / 2,
    "heavy": lambda z: z[:, 0],  # the target is as far out as the feature
}

RULES = {"automatic": None, "fuse": "fuse"}


def rows(name, seed):
    """Features and target of a file, ``LAW-TARGET``."""
    law, target = name.split("-")
    rng = np.random.default_rng(seed)
    features = LAWS[law](rng, (ROWS, COLUMNS))
    return features, TARGETS[target](features) + 0.1 * rng.normal(size=ROWS)


def main():
    names = [f"{law}-{target}" for law in LAWS for target in TARGETS]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("patterns", nargs="*", default=["*"])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # R2 says what a ConvergenceWarning does
    wrecked = dict.fromkeys(RULES, 0)
    print("| file | " + " | ".join(f"{rule}: worst R2, median, seconds" for rule in RULES) + " |")
    print("|---|" + "---|" * len(RULES))
    for name in names:
        if not any(fnmatch.fnmatch(name, pattern) for pattern in options.patterns):
            continue
        cells = []
        for rule, step_size in RULES.items():
            scores, seconds = [], []
            for seed in range(options.seeds):
                X, y = rows(name, seed)
                started = time.process_time()
                fitted = MeanFieldRegressor(step_size=step_size, random_state=seed).fit(X, y)
                seconds.append(time.process_time() - started)
                scores.append(fitted.score(X, y))
            wrecked[rule] += sum(not score >= 0 for score in scores)
            cells.append(f"{np.min(scores):.3f}, {np.median(scores):.3f}, {np.median(seconds):.2f} s")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    print("wrecked: " + ", ".join(f"{rule} {n}" for rule, n in wrecked.items()))


if __name__ == "__main__":
    main()
