"""Noise against stalling: 50 particles on a torus descend the discrepancy from 10 points, with and without noise.

    python bench/torus.py --picture docs/torus.png

Settings of Chizat 2022, with a square that is not halved.
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np

import mfld
from mfld import kernels, noise, plots

TURN = 2 * np.pi
SCHEDULES = {"descent": 0.0, "annealed noise": lambda step: 40 / (step + 1) if step < 800 else 0.0}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--picture", required=True)
parser.add_argument("--seed", type=int, default=0, help="of the points and the start (0)")
options = parser.parse_args()

circles = mfld.Space(domain=[mfld.Torus(2, period=TURN)])
uniform = circles.draw(noise.Place.of(options.seed), 60, "float64")
points = mfld.MMD(uniform[:10], kernels.Dirichlet([1 / (1 + k) for k in range(1, 6)], TURN), space=circles)
figure, (left, *places) = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
for place, colour, (name, temperature) in zip(places, ("tab:orange", "tab:blue"), SCHEDULES.items(), strict=True):
    solver = mfld.MFLD(50, step_size=0.04, temperature=temperature, dtype="float64")
    result = solver.run(points, n_steps=1000, seed=options.seed, particles=uniform[10:], record_every=10)
    print(f"{name}: {points.loss(result.measure):.4f}")
    left.semilogy(result.history["step"], result.history["loss"], color=colour, label=name)
    place.plot(*np.mod(uniform[:10], TURN).T, "k+", markersize=11)
    place.plot(*np.mod(result.particles, TURN).T, "o", color=colour, markersize=4, alpha=0.6)
    place.set(xlim=(0, TURN), ylim=(0, TURN), xticks=[], yticks=[], title=name, aspect="equal")
left.set(xlabel="step", ylabel="squared discrepancy")
left.legend(frameon=False)
plots.save(figure, options.picture)
