"""Steps with products of bfloat16 beside those of float32, and how far their answers are apart.

python bench/bfloat16.py             both tables
python bench/bfloat16.py --threads 2 wall time on so many threads, for an idle machine

Times are processor times of one thread, interleaved: the median of the ratios of neighbouring calls. The bias is that
of the predictions on common noise, beside what another seed makes of them.
"""

import argparse
import time

import numpy as np

import mfld

# particles, samples, features, batch (0: all)
CASES = (
    (512, 60000, 784, 0),
    (10000, 2000, 100, 0),
    (4096, 1797, 64, 0),
    (1000, 60000, 784, 128),
    (10000, 2000, 100, 128),
    (1000, 60000, 784, 32),
)
DTYPES = ("float32", "bfloat16")
SECONDS = 0.4
PAIRS = 9


def speed(case: tuple[int, int, int, int], threads: int) -> tuple[float, float, float]:
    """Seconds of a step in either precision, medians; and the median of their ratio."""
    n_particles, n, d, batch = case
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((n, d), np.float32)
    model = mfld.TwoLayerNetwork(d, activation="tanh")
    risk = mfld.EmpiricalRisk(model, inputs, np.tanh(inputs[:, 0]), loss="half_squared", l2=1e-3)
    gradient = mfld.Minibatch(batch) if batch else mfld.FullBatch()
    solvers = [
        mfld.MFLD(n_particles, step_size=1e-3, temperature=1e-4, gradient=gradient, dtype=dtype, num_threads=threads)
        for dtype in DTYPES
    ]
    state = solvers[0].init(risk)
    clock = time.process_time if threads == 1 else time.perf_counter

    def seconds(solver: mfld.MFLD, n_steps: int) -> float:
        start = clock()
        solver.advance(risk, state, n_steps)
        return (clock() - start) / n_steps

    for solver in solvers:  # their data are made, their caches full
        seconds(solver, 1)
    n_steps = max(1, round(SECONDS / seconds(solvers[0], 1)))
    times = np.array([[seconds(solver, n_steps) for solver in solvers] for _ in range(PAIRS)])
    exact, rounded = np.median(times, axis=0)
    return float(exact), float(rounded), float(np.median(times[:, 0] / times[:, 1]))


def bias(name: str) -> tuple[float, float, float, list[float]]:
    """Predictions, root mean square: their size, their bias, what another seed changes; accuracies."""
    from sklearn import datasets  # noqa: PLC0415

    rng = np.random.default_rng(0)
    if name == "digits":
        inputs, labels = datasets.load_digits(return_X_y=True)
        inputs = (inputs - inputs.mean(axis=0)) / 16
    else:  # ten Gaussians that overlap, in 784 features
        labels = rng.integers(10, size=4000)
        inputs = (0.1 * rng.standard_normal((10, 784))[labels] + rng.standard_normal((4000, 784))) / 10
    order = rng.permutation(len(inputs))
    train, test = order[len(order) // 3 :], order[: len(order) // 3]
    model = mfld.TwoLayerNetwork(inputs.shape[1], n_outputs=10)
    risk = mfld.EmpiricalRisk(model, inputs[train], labels[train], loss="cross_entropy", l2=1e-4)

    def predictions(dtype: str, seed: int) -> np.ndarray:
        solver = mfld.MFLD(500, step_size=0.5, temperature=1e-6, dtype=dtype, num_threads=1)
        return solver.run(risk, 300, seed=seed).predict(inputs[test])

    exact, rounded, other = predictions("float32", 0), predictions("bfloat16", 0), predictions("float32", 1)
    size, of_rounding, of_seed = (float(np.sqrt(np.mean(a**2))) for a in (exact, rounded - exact, other - exact))
    right = [float((a.argmax(axis=1) == labels[test]).mean()) for a in (exact, rounded, other)]
    return size, of_rounding, of_seed, right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    threads = parser.parse_args().threads
    print("| step | float32 | bfloat16 | times as fast |\n| --- | ---: | ---: | ---: |")
    for case in CASES:
        n_particles, n, d, batch = case
        exact, rounded, ratio = speed(case, threads)
        name = f"mini{batch}-" if batch else "full-"
        print(
            f"| {name}{n_particles}x{n}x{d}-tanh | {1e3 * exact:.3g} ms | {1e3 * rounded:.3g} ms | {ratio:.2f} |",
            flush=True,
        )
    print("\n| data | predictions | bias | another seed | accuracy: float32, bfloat16, another seed |")
    print("| --- | ---: | ---: | ---: | --- |")
    for name in ("digits", "wide"):
        size, of_rounding, of_seed, right = bias(name)
        accuracies = ", ".join(f"{share:.1%}" for share in right)
        print(f"| {name} | {size:.3g} | {of_rounding:.2g} | {of_seed:.2g} | {accuracies} |", flush=True)


if __name__ == "__main__":
    main()
