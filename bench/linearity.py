"""Time of a step against the numbers of particles, samples and features: a picture.

    python bench/linearity.py --output docs/linearity.png

One size grows, the others stay. Past the overheads of a step its time should grow in proportion: the dashed lines do,
through the last point. One thread, in processor time, through `MFLD.advance`; the best of some repetitions. Needs
matplotlib.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np

import mfld
from mfld import plots

FIXED = {"particles": 1000, "samples": 1000, "features": 32}
SIZES: dict[str, Sequence[int]] = {
    "particles": (16, 64, 250, 1000, 4000, 16000, 64000),
    "samples": (16, 64, 250, 1000, 4000, 16000, 64000),
    "features": (1, 4, 16, 64, 256, 1024, 2048),
}
ESTIMATORS = {"full batch": mfld.FullBatch(), "mini-batch of 32": mfld.Minibatch(32)}


def seconds_per_step(particles: int, samples: int, features: int, gradient: mfld.FullBatch | mfld.Minibatch) -> float:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((samples, features), np.float32)
    model = mfld.TwoLayerNetwork(features)
    risk = mfld.EmpiricalRisk(model, inputs, np.tanh(inputs[:, 0]), loss="half_squared", l2=1e-3)
    solver = mfld.MFLD(particles, step_size=1e-3, temperature=1e-4, gradient=gradient, dtype="float32", num_threads=1)
    state = solver.init(risk, seed=0)

    def run(n_steps: int) -> float:
        begin = time.thread_time()
        solver.advance(risk, state, n_steps)
        return time.thread_time() - begin

    once = min(run(1), run(1))
    # What a call costs once is not the step's: the difference of two calls leaves it out.
    more = max(2, min(2000, round(0.02 / once)))
    return min((run(1 + more) - run(1)) / more for _ in range(3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="linearity.png")
    options = parser.parse_args()

    figure = plots.figure(9, 3.2)
    axes = figure.subplots(1, len(SIZES), sharey=True)
    for axis, (what, sizes) in zip(axes, SIZES.items(), strict=True):
        for k, (name, gradient) in enumerate(ESTIMATORS.items()):
            if what == "samples" and name != "full batch":
                continue  # the cost of a mini-batch does not depend on them
            times = [1e6 * seconds_per_step(**{**FIXED, what: size}, gradient=gradient) for size in sizes]
            axis.loglog(sizes, times, plots.marker(k) + "-", color=plots.colour(k), label=name, markersize=4)
            axis.loglog(
                sizes, [times[-1] * size / sizes[-1] for size in sizes], "--", color=plots.colour(k), linewidth=0.8
            )
            print(f"{what}, {name}:", ", ".join(f"{s}: {t:.4g} us" for s, t in zip(sizes, times, strict=True)))
        others = ", ".join(f"{size} {other}" for other, size in FIXED.items() if other != what)
        axis.set(xlabel=what, title=others)
        plots.open_axes(axis)
    axes[0].set(ylabel="microseconds a step, one thread")
    axes[0].legend(frameon=False)
    plots.save(figure, options.output)


if __name__ == "__main__":
    main()
