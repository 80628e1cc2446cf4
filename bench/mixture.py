"""What a mixture of independent ensembles buys: R of N particles against one of R N, and against one of N.

    python bench/mixture.py

A two-layer network on 60 rows, at 600 steps. Errors are root mean squares, over 200 points and all that were drawn,
of the distance to the predictions of 20000 particles. The error of a mixture has two parts: chance, which falls like
1 / sqrt(R N) as that of one large ensemble does, and the bias of an ensemble of N, which stays.
"""

import numpy as np

import mfld

SIZE, REPLICATES, REPETITIONS = 25, 8, 20


def main():
    rng = np.random.default_rng(0)
    inputs, points = rng.normal(size=(60, 2)), rng.normal(size=(200, 2))
    targets = np.sin(2 * inputs[:, 0]) + inputs[:, 1] ** 2 / 2
    model = mfld.TwoLayerNetwork(2)
    risk = mfld.EmpiricalRisk(model, inputs, targets, loss="half_squared", l2=1e-3)

    def predictions(n_particles, n_replicates, seed):
        solver = mfld.MFLD(n_particles, step_size=0.2, temperature=5e-3, n_replicates=n_replicates)
        state = solver.run(risk, 600, seed=seed).state
        return np.array([model.predict(state.replicate(r).particles, points) for r in range(n_replicates)])

    limit, again = predictions(20_000, 1, 1), predictions(20_000, 1, 2)
    small = predictions(SIZE, REPLICATES * REPETITIONS, 3)
    rows = {
        f"one of {SIZE}": small,
        f"mixture of {REPLICATES} of {SIZE}": small.reshape(REPETITIONS, REPLICATES, -1).mean(axis=1),
        f"one of {REPLICATES * SIZE}": predictions(REPLICATES * SIZE, REPETITIONS, 4),
    }
    print(f"predictions {rms(limit):.4f}, two of 20000 differ by {rms(limit - again):.4f}")
    print("| ensemble | error | bias |")
    print("|---|---|---|")
    for name, found in rows.items():
        print(f"| {name} | {rms(found - limit):.4f} | {rms(found.mean(axis=0) - limit):.4f} |")


def rms(values):
    return np.sqrt(np.mean(np.square(values, dtype=float)))


if __name__ == "__main__":
    main()
