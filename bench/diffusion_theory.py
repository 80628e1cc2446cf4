"""What diffusion models guarantee, measured without sampling error: ``python bench/diffusion_theory.py`` draws it.

The error of a sampler against steps, score error and early stopping, by transport of levels on the line; the rates of
early-stopped diffusions as estimators of densities of known smoothness; and weak errors from 1 to 1000 dimensions.
Exponents are printed with their standard errors.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from mfld import diffusion, plots
from mfld.diffusion import experiments
from mfld.mixtures import GaussianMixture

FORWARD = diffusion.OrnsteinUhlenbeck(10.0)
LAW = GaussianMixture(None, [[-1.0], [1.0]], 0.25)
SCORE = diffusion.ExactScore(LAW, FORWARD)


def grid(n: int, end: float) -> np.ndarray:
    return diffusion.times(FORWARD, n, "tangent", scale=1.1, end=end)


def against_steps(sizes: list[float]) -> list[float]:
    return [
        experiments.transported_error(SCORE, LAW, sampler="ddim", times=grid(int(n), 0.0), n_levels=1000) for n in sizes
    ]


def against_score_error(sizes: list[float]) -> list[float]:
    errors, end = [], 0.01
    for size in sizes:

        def wrong(x: np.ndarray, t: float, size: float = size) -> np.ndarray:
            return SCORE.noise(x, t) + size * float(FORWARD.alpha(t)) * np.sin(3 * x)

        score = diffusion.FunctionScore(wrong, 1, FORWARD)
        law = FORWARD.marginal(LAW, end)
        errors.append(experiments.transported_error(score, law, sampler="dpm-solver-3", times=grid(100, end)))
    return errors


def against_stopping(ends: list[float]) -> list[float]:
    return [
        experiments.transported_error(SCORE, LAW, sampler="dpm-solver-3", times=grid(100, end), n_levels=1000)
        for end in ends
    ]


def draw(path: Path, n_repetitions: int) -> None:
    figure = plots.figure(12, 3.6)
    left, middle, right = axes = figure.subplots(1, 3)
    curves = (
        ("1 / steps (DDIM)", [20, 40, 80, 160, 320], against_steps, lambda x: 1 / x),
        ("error of the score", [0.0025, 0.005, 0.01, 0.02, 0.04], against_score_error, lambda x: x),
        ("time of the stop", [0.04, 0.02, 0.01, 0.005, 0.0025], against_stopping, lambda x: x),
    )
    for k, (name, values, measure, place) in enumerate(curves):
        x, y = np.array([place(value) for value in values]), measure(values)
        found = experiments.exponent(x, y)
        print(f"{name}: exponent {found.exponent:.3f} +- {found.standard_error:.3f}, errors {np.round(y, 5)}")
        left.loglog(x, y, plots.marker(k) + "-", color=plots.colour(k), label=f"{name}: {found.exponent:.2f}")
    left.set(xlabel="size of what is wrong", ylabel="distance $W_2$ from the data")
    for k, (shape, p) in enumerate((("box", 1), ("tent", 1), ("box", 2), ("tent", 2))):
        sizes = [2**k for k in range(8, 18 if p == 1 else 15)]
        errors = experiments.stopped_errors(
            shape, p, sizes, n_repetitions=n_repetitions, n_points=400 if p == 1 else 60
        )
        means = np.sqrt(np.mean(errors**2, axis=1))
        found, rate = experiments.exponent(sizes, means), experiments.rate_of(shape, p)
        print(f"{shape}, {p}d: exponent {-found.exponent:.3f} +- {found.standard_error:.3f}, minimax {rate:.3f}")
        middle.loglog(
            sizes,
            means,
            plots.marker(k) + "-",
            color=plots.colour(k),
            label=f"{shape}, {p}d: {-found.exponent:.3f} ({rate:.3f})",
        )
    middle.set(xlabel="number of data", ylabel="error in $L_2$")
    dimensions = [1, 3, 10, 30, 100, 300, 1000]
    errors = experiments.weak_errors(
        LAW, dimensions, sampler="ddim", times=grid(20, 0.0), forward=FORWARD, n_levels=2000
    )
    named = ((errors.wasserstein, "distance $W_2$"), (errors.weak, "of $\\cos(u x)$, $|u| = 1$"))
    for k, (values, name) in enumerate(named):
        right.loglog(dimensions, values, plots.marker(k) + "-", color=plots.colour(k), label=name)
    right.set(xlabel="dimension", ylabel="error of 20 steps of DDIM")
    print(f"weak errors {np.round(errors.weak, 4)}, distances {np.round(errors.wasserstein, 3)}")
    for axis in axes:
        plots.open_axes(axis).legend(frameon=False, fontsize=8)
        for each in (axis.xaxis, axis.yaxis):
            each.set_minor_formatter("")
    plots.save(figure, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/diffusion-theory.png"))
    parser.add_argument("--n-repetitions", type=int, default=8)
    options = parser.parse_args()
    draw(options.output, options.n_repetitions)
