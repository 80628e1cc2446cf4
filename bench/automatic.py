"""Cost of the automatic step size: 100 steps with it against 100 steps of a given size, one thread, processor time.

python bench/automatic.py
"""

import time

import numpy as np

import mfld

SIZES = ((1000, 10), (1797, 64), (200, 2000))  # rows, features
N_STEPS = 100


def main() -> None:
    print("| rows x features | particles | full batch | mini-batch of 50 |")
    print("| --- | ---: | ---: | ---: |")
    for n, d in SIZES:
        rng = np.random.default_rng(0)
        inputs = rng.normal(size=(n, d)).astype(np.float32)
        targets = np.sign(inputs[:, 0] + 0.3 * rng.normal(size=n))
        model = mfld.TwoLayerNetwork(d, readout="linear")
        risk = mfld.EmpiricalRisk(model, inputs, targets, loss="logistic", l2=1e-4)
        for n_particles in (100, 1000):
            ratios = [ratio(risk, n_particles, gradient) for gradient in (mfld.FullBatch(), mfld.Minibatch(50))]
            print(f"| {n} x {d} | {n_particles} | {ratios[0]:.2f} | {ratios[1]:.1f} |", flush=True)


def ratio(risk: mfld.EmpiricalRisk, n_particles: int, gradient: mfld.GradientEstimator) -> float:
    """Time with the automatic size over that with a given one; each the least of five, interleaved."""
    solvers = [
        mfld.MFLD(n_particles, step_size=size, temperature=1e-5, gradient=gradient, num_threads=1)
        for size in (None, 1e-3)
    ]
    times = [[cost(solver, risk) for solver in solvers] for _ in range(5)]
    automatic, given = np.min(times, axis=0)
    return float(automatic / given)


def cost(solver: mfld.MFLD, risk: mfld.EmpiricalRisk) -> float:
    state = solver.init(risk)
    start = time.process_time()
    solver.advance(risk, state, N_STEPS)
    return time.process_time() - start


if __name__ == "__main__":
    main()
