"""What variance reduction buys: objective and error of the gradient against per-sample gradients, at one step size.

    python bench/variance.py [--output docs/variance.png]

A two-layer network on noisy data, which it cannot interpolate, so that mini-batch gradients stay noisy at the minimum.
Each estimator runs on the same number of gradients of single samples: a step of `Minibatch` costs B, one of `SVRG` or
`SARAH` 2 B, and a refresh n.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

import mfld
from mfld import plots

N_SAMPLES, N_FEATURES, N_PARTICLES, BATCH = 1000, 4, 100, 8
PASSES = 100
STEP_SIZE, TEMPERATURE, RIDGE = 0.05, 1e-6, 1e-3
BUDGET = PASSES * N_SAMPLES
ESTIMATORS: dict[str, tuple[mfld.GradientEstimator, float]] = {  # and per-sample gradients a step, on average
    "mini-batch (SGD)": (mfld.Minibatch(BATCH), BATCH),
    "SVRG": (mfld.SVRG(BATCH, refresh_every=100), 2 * BATCH + (N_SAMPLES - 2 * BATCH) / 100),
    "SARAH": (mfld.SARAH(BATCH, refresh_every=100), 2 * BATCH + (N_SAMPLES - 2 * BATCH) / 100),
    "full batch": (mfld.FullBatch(), N_SAMPLES),
}


def problem() -> mfld.EmpiricalRisk:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(N_SAMPLES, N_FEATURES))
    targets = np.sin(2 * inputs[:, 0]) + inputs[:, 1] * inputs[:, 2] / 2 + 0.5 * rng.normal(size=N_SAMPLES)
    model = mfld.TwoLayerNetwork(N_FEATURES, activation="tanh", output_scale=3.0)
    return mfld.EmpiricalRisk(model, inputs, targets, loss="half_squared", l2=RIDGE)


def run(risk: mfld.EmpiricalRisk, gradient: mfld.GradientEstimator, cost: float) -> dict[str, np.ndarray]:
    """History of one estimator: objective, probe, and per-sample gradients spent."""
    solver = mfld.MFLD(N_PARTICLES, step_size=STEP_SIZE, temperature=TEMPERATURE, gradient=gradient)
    n_steps = int(BUDGET / cost)
    # Odd, so that records of the variance-reduced ones fall on all offsets from a refresh.
    every = max(1, n_steps // 60) | 1
    record = {
        "objective": lambda state: risk.value(state.particles),
        "variance": lambda state: solver.gradient_variance(risk, state),
    }
    history = solver.run(risk, n_steps, seed=0, record_every=every, record=record).history
    return {**history, "gradients": history["step"] * cost}


def draw(histories: dict[str, dict[str, np.ndarray]], output: str) -> None:
    figure = plots.figure(9, 3.6)
    left, right = figure.subplots(1, 2)
    colours = {name: plots.colour(k) for k, name in enumerate(histories)}
    for name, history in histories.items():
        passes = history["gradients"] / N_SAMPLES
        left.plot(passes, history["objective"], color=colours[name], linewidth=1.5, label=name)
        seen = history["variance"] > 0  # the full batch and refreshes have none
        if seen.any():
            right.plot(passes[seen], history["variance"][seen], ".", markersize=4, color=colours[name], label=name)
    left.set(xlabel="per-sample gradients / n", ylabel="objective", yscale="log", yticks=[0.12, 0.15, 0.2, 0.3, 0.5])
    left.yaxis.set_major_formatter("{x:g}")
    left.minorticks_off()
    right.set(xlabel="per-sample gradients / n", ylabel="mean |estimate - gradient|²", yscale="log")
    for axes in (left, right):
        plots.open_axes(axes)
    left.legend(frameon=False)
    plots.save(figure, output)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", help="write the picture here (needs matplotlib)")
    options = parser.parse_args(arguments)
    risk = problem()
    histories = {name: run(risk, gradient, cost) for name, (gradient, cost) in ESTIMATORS.items()}
    print(f"{'estimator':18} {'steps':>7} {'objective':>10} {'variance':>10}   (means over the last third)")
    for name, history in histories.items():
        tail = slice(2 * len(history["step"]) // 3, None)
        print(
            f"{name:18} {history['step'][-1]:7d} {history['objective'][tail].mean():10.5f} "
            f"{history['variance'][tail].mean():10.2e}"
        )
    if options.output:
        draw(histories, options.output)


if __name__ == "__main__":
    main()
