"""Descent of the maximum mean discrepancy in the plane: time of a step against the number of particles.

    python bench/interactions.py [--most 1000000] [--steps 1000] [--picture docs/interactions.png]

The target is a mixture of 20 Gaussians with its exact embedding for coresets, and waves for features. Each size is run
for some steps, after one that brings the core up; the exponent is the slope of log time against log N. With ``--steps``
the largest size is then run once for so many steps with features, and its time and the largest memory are printed.
"""

import argparse
import resource
import time

import numpy as np

import mfld
from mfld import kernels, noise, plots
from mfld.mixtures import GaussianMixture

METHODS = {
    "exact": (lambda n: mfld.FullBatch(), 2**13),
    "coreset of sqrt(N)": (lambda n: mfld.KernelThinning(), 2**17),
    "64 random features": (lambda n: mfld.RandomFeatures(64), 2**20),
}


def problem():
    centres = 2 * noise.normals(11, 0, 20, 2, dtype="float64", stream="data")
    mixture = GaussianMixture(None, centres, 0.1)
    labels = np.arange(2000) % 20
    draws = centres[labels] + 0.1**0.5 * noise.normals(12, 0, 2000, 2, dtype="float64", stream="data")
    return mfld.MMD(draws, kernels.Gaussian(1.0)), mfld.MMD(mixture, kernels.Gaussian(1.0))


def seconds(fit, gradient, n, n_steps):
    solver = mfld.MFLD(n, step_size=1.0, temperature=3e-4, gradient=gradient)
    state = solver.init(fit, particles=2 * noise.normals(0, 0, n, 2, stream="init"))
    state, _ = solver.advance(fit, state, 1)
    start = time.perf_counter()
    solver.advance(fit, state, n_steps)
    return (time.perf_counter() - start) / n_steps


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=2**20)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--picture")
    given = parser.parse_args()
    fit, _ = problem()
    found = {}
    print("| interaction | N | seconds a step |")
    print("|---|---|---|")
    for name, (method, most) in METHODS.items():
        sizes = [2**k for k in range(10, 21, 2 if most > 2**13 else 1) if 2**k <= min(most, given.most)]
        times = []
        for n in sizes:
            times.append(seconds(fit, method(n), n, 3 if n > 2**14 else 5))
            print(f"| {name} | {n} | {times[-1]:.4g} |", flush=True)
        found[name] = sizes, times
    exponents = {}
    for name, (sizes, times) in found.items():
        upper = len(sizes) // 2  # small sizes cost their calls
        exponents[name] = np.polyfit(np.log(sizes[upper - 1 :]), np.log(times[upper - 1 :]), 1)[0]
        print(f"{name}: time grows like N^{exponents[name]:.2f}")
    if given.picture:
        draw(found, exponents, given.picture)
    if given.steps:
        took = seconds(fit, mfld.RandomFeatures(64), given.most, given.steps) * given.steps
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{given.most} particles, {given.steps} steps: {took:.1f} s; largest memory so far {memory:.2f} GiB")


def draw(found, exponents, path):
    figure = plots.figure(6, 4)
    axes = figure.add_subplot()
    for k, (name, (sizes, times)) in enumerate(found.items()):
        axes.loglog(
            sizes, times, plots.marker(k) + "-", color=plots.colour(k), label=f"{name}: $N^{{{exponents[name]:.2f}}}$"
        )
    axes.set(xlabel="particles N", ylabel="seconds a step", title="MMD flow in the plane, 2000 samples")
    plots.open_axes(axes).legend(frameon=False)
    plots.save(figure, path)


if __name__ == "__main__":
    main()
