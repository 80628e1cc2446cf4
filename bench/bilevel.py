"""Bilevel reduction against lifting: the training objective of a network that learns from a teacher.

    python bench/bilevel.py [--output docs/bilevel.png]

The teacher has 5 neurons relu(w.z), of both signs, in 10 dimensions; so has the student 40, with positions on the
sphere. The inputs have a mean of 3 along the first axis. The student's positions start all over the sphere, or in a cap
around the direction opposite to that mean, where neurons are silent on nearly all inputs. Each reduction runs with and
without noise, which is switched off at the end, and with a step size and a temperature that were the best of a grid
for the second start. Figure 1 of Wang, Mousavi-Hosseini, Chizat 2024 compares the same; its sizes are not published.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import mfld
from mfld import plots, schedules

N_SAMPLES, N_FEATURES, N_PARTICLES, N_TEACHER = 200, 10, 40, 5
STRENGTH, N_STEPS, N_SEEDS, RECORD_EVERY = 1e-3, 300, 3, 5
STARTS = {"all over the sphere": None, "where neurons are silent": 0.1}


@dataclass(frozen=True)
class Method:
    """A reduction with its dynamics, and a step size and temperature that suit it."""

    reduction: mfld.Bilevel | mfld.Lifting
    dynamics: mfld.Dynamics
    step_size: float
    temperature: float


METHODS = {
    "bilevel": Method(mfld.Bilevel(), mfld.Overdamped(), 0.5, 1e-2),
    "lifting, conic": Method(mfld.Lifting("conic"), mfld.dynamics.Conic(), 0.6, 1e-2),
    "lifting, product": Method(mfld.Lifting(), mfld.Overdamped(), 0.05, 3e-2),
}


def problem(seed: int, reduction: mfld.Bilevel | mfld.Lifting) -> mfld.SignedRisk:
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(N_SAMPLES, N_FEATURES)) + 3 * np.eye(N_FEATURES)[0]
    teacher = rng.normal(size=(N_TEACHER, N_FEATURES))
    teacher /= np.linalg.norm(teacher, axis=1, keepdims=True)
    targets = np.maximum(inputs @ teacher.T, 0) @ np.where(np.arange(N_TEACHER) % 2, -1.0, 1.0)
    model = mfld.TwoLayerNetwork(
        N_FEATURES, activation="relu", readout="fixed", bias=False, domain=(mfld.Sphere(N_FEATURES),)
    )
    return mfld.SignedRisk(model, inputs, targets, strength=STRENGTH, reduction=reduction)


def start(risk: mfld.SignedRisk, seed: int, cap: float | None) -> np.ndarray:
    particles = np.array(risk.initial_particles(N_PARTICLES, seed))
    if cap is not None:
        positions = cap * particles[:, :N_FEATURES] - np.eye(N_FEATURES)[0]
        particles[:, :N_FEATURES] = positions / np.linalg.norm(positions, axis=1, keepdims=True)
    return particles


def history(method: Method, seed: int, cap: float | None, noisy: bool) -> tuple[np.ndarray, np.ndarray]:
    """Steps, and the objective over signed measures there."""
    risk = problem(seed, method.reduction)
    inputs, targets, _ = risk.samples(np.dtype("float64"))

    def objective(state: mfld.State) -> float:
        measure = risk.signed_measure(state.measure)
        residual = measure.predict(inputs) - targets[:, 0]
        return float(np.mean(residual**2) / 2 + STRENGTH / 2 * measure.tv_norm**2)

    cooling = schedules.SwitchOff(schedules.Geometric(method.temperature, 0.7, 15), at=N_STEPS * 4 // 5)
    solver = mfld.MFLD(
        N_PARTICLES,
        step_size=method.step_size,
        temperature=cooling if noisy else 0.0,
        dynamics=method.dynamics,
    )
    run = solver.run(
        risk,
        N_STEPS,
        seed=seed,
        particles=start(risk, seed, cap),
        record_every=RECORD_EVERY,
        record={"objective": objective},
    )
    return run.history["step"], run.history["objective"]


def draw(found: dict[str, dict[tuple[str, bool], np.ndarray]], steps: np.ndarray, output: str) -> None:
    figure = plots.figure(10.5, 4.6)
    panels = figure.subplots(1, 2, sharey=True)
    colours = {name: plots.colour(k) for k, name in enumerate(METHODS)}
    for panel, (place, curves) in zip(panels, found.items(), strict=True):
        for (name, noisy), values in curves.items():
            style = {"color": colours[name], "linewidth": 1.5, "linestyle": "-" if noisy else "--"}
            label = f"{name}, {'with' if noisy else 'without'} noise"
            panel.plot(steps, np.exp(np.mean(np.log(values), axis=0)), label=label, **style)
        panel.set_title(f"neurons start {place}", fontsize=10)
        panel.set(xlabel="step", yscale="log")
        plots.open_axes(panel)
    panels[0].set_ylabel("training objective, geometric mean of seeds")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=8
    )
    plots.save(figure, output)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", help="write the picture here (needs matplotlib)")
    options = parser.parse_args(arguments)
    found: dict[str, dict[tuple[str, bool], np.ndarray]] = {}
    for place, cap in STARTS.items():
        found[place] = {}
        for name, method in METHODS.items():
            for noisy in (True, False):
                runs = [history(method, seed, cap, noisy) for seed in range(N_SEEDS)]
                found[place][name, noisy] = np.array([values for _, values in runs])
                ends = " ".join(f"{values[-1]:.4f}" for _, values in runs)
                print(f"{place:25} {name:17} {'with' if noisy else 'without':7} noise: {ends}")
    if options.output:
        draw(found, runs[0][0], options.output)


if __name__ == "__main__":
    main()
