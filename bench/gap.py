"""How fast does the certified duality gap fall: P-SDCA by epochs, and against PDA and MFLD at equal work?

    python bench/gap.py [--output docs/gap.png]

A regression with two-layer networks of bounded neurons. Work is counted in evaluations of a neuron at a sample, each
with its gradient or without, in units of N n, all pairs of a particle and a sample: a step of `MFLD` takes 1, one of
`PDA` 1 and its inner steps, and one of `PSDCA` 1 and the moves of its sampler. Every gap has its certificate, with a
bound at confidence 0.999. That of `MFLD` belongs to the derivatives at its cloud.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

import mfld
from mfld import plots, quantities

N_SAMPLES, N_FEATURES, N_PARTICLES = 400, 3, 8000
TEMPERATURE, RIDGE, BOUND = 0.1, 0.05, 5.0  # the reference measure is N(0, 1)
EPOCHS, INNER_STEPS, RECORDS = 8, 10, 9


def problem() -> mfld.EmpiricalRisk:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(N_SAMPLES, N_FEATURES))
    targets = np.sin(2 * inputs[:, 0]) + inputs[:, 1] * inputs[:, 2] / 2 + 0.3 * rng.normal(size=N_SAMPLES)
    model = mfld.TwoLayerNetwork(N_FEATURES, readout="bounded", readout_bound=BOUND)
    return mfld.EmpiricalRisk(model, inputs, targets, loss="half_squared", l2=RIDGE)


def histories(risk: mfld.EmpiricalRisk) -> dict[str, dict[str, np.ndarray]]:
    """Gaps of the three, with ``work``."""
    start = mfld.noise.normals(0, 0, N_PARTICLES, risk.n_coordinates, stream="init")  # a sample of the reference
    step_size = 1 / mfld.step_size.curvature(risk, start[:256])

    def run(solver: mfld.Algorithm, steps: Sequence[int], work: int) -> dict[str, np.ndarray]:
        record = {
            "gap": quantities.gap(solver, risk, TEMPERATURE, tolerance=3e-4),
            "moves": lambda state: state.buffers.get("sampler_moves", np.zeros(1))[0],
        }
        history = solver.run(risk, steps[-1], record_every=steps, record=record, particles=start).history
        return {**history, "work": work * history["step"] + history["moves"]}

    dual = run(mfld.PSDCA(N_PARTICLES, temperature=TEMPERATURE), range(EPOCHS + 1), 1)
    budget = int(dual["work"][-1])
    places = np.linspace(0, budget, RECORDS + 1)[1:]
    langevin = mfld.MFLD(N_PARTICLES, step_size=step_size, temperature=TEMPERATURE)
    averaging = mfld.PDA(N_PARTICLES, step_size=step_size, temperature=TEMPERATURE, inner_steps=INNER_STEPS)
    outer = [int(place) // (1 + INNER_STEPS) for place in places]
    return {
        "P-SDCA": dual,
        "PDA": run(averaging, outer, 1 + INNER_STEPS),
        "MFLD": run(langevin, [int(place) for place in places], 1),
    }


def draw(found: dict[str, dict[str, np.ndarray]], output: str) -> None:
    figure = plots.figure(10.5, 4)
    left, right = figure.subplots(1, 2, sharey=True)
    plots.gap(
        {"P-SDCA": found["P-SDCA"]},
        xlabel="epoch",
        title="P-SDCA falls by a factor every epoch, to the noise of N particles",
        axes=left,
    )
    plots.gap(
        found,
        x="work",
        xlabel="neuron evaluations / (N n)",
        title="The first epoch takes most of its work: all three against work",
        axes=right,
    )
    right.set_ylabel("")
    plots.save(figure, output)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", help="write the picture here (needs matplotlib)")
    options = parser.parse_args(arguments)
    found = histories(problem())
    print(f"{'':8} {'step':>5} {'work':>5} {'gap':>9} {'at most':>9}")
    for name, history in found.items():
        for step, work, (gap, upper) in zip(history["step"], history["work"], history["gap"], strict=True):
            print(f"{name:8} {step:5d} {work:5.0f} {gap:9.1e} {upper:9.1e}")
    if options.output:
        draw(found, options.output)


if __name__ == "__main__":
    main()
