"""Games of two clouds: time of an iteration, against particle mirror-prox in NumPy, and against the floor of its pairs.

    python bench/games.py [--particles 2000] [--threads 1] [--repetitions 7]

Mirror-prox moves positions and weights of particles by an extra step from the gradients at a half step (Wang, Chizat
2022, "An exponentially converging particle method for the mixed Nash equilibrium of continuous games"): it evaluates
all pairs twice in an iteration. Here are plain NumPy forms of it, at equal numbers of particles. Answers are checked
first: payoffs and gradients of both agree.

The first table is of a Gaussian kernel in float32. The floor counts what `Case.work` counts for pairs: for x and for y
a square of the difference, an exponential and a product with it.

The second one has the games and numbers of particles of the program that they publish in Julia, which is not run here
(github.com/guillaumew16/particle-MNE): random trigonometric payoffs of orders up to 3 on the torus, 15 and 15 particles
in one dimension, 100 in two and 22 in one, in float64. NumPy, too, makes use of the products in the payoff.

Times are the best of interleaved repetitions; of one thread, CPU times, which other processes disturb less.
"""

import argparse
import itertools
import time

import ceilings
import numpy as np

import mfld


def kernel_pairs(x, y):
    """Kernel exp(-|x - y|**2 / 2) of all pairs."""
    squares = np.sum(x**2, axis=1)[:, None] + np.sum(y**2, axis=1) - 2 * x @ y.T
    return np.exp(-squares / 2)


def evaluate(x, y, wx, wy):
    """Averages for each player, and their gradients."""
    pairs = kernel_pairs(x, y)
    of_x, of_y = pairs * wy, pairs.T * wx
    value_x, value_y = of_x.sum(axis=1), of_y.sum(axis=1)
    return value_x, of_x @ y - value_x[:, None] * x, value_y, of_y @ x - value_y[:, None] * y


def mirror_prox(evaluate, x, y, wx, wy, step, rate):
    """One iteration: positions move along gradients, weights multiply by exponentials of payoffs, from a half step."""
    at = (x, y, wx, wy)
    for _ in range(2):
        value_x, slope_x, value_y, slope_y = evaluate(*at)
        up_x, up_y = wx * np.exp(-rate * value_x), wy * np.exp(rate * value_y)
        at = (x - step * slope_x, y + step * slope_y, up_x / up_x.sum(), up_y / up_y.sum())
    return at


class Waves:
    """Payoff ``Re sum_kl C_kl exp(2 pi i (k . x + l . y))`` of random C, all orders up to 3, and mirror-prox on it."""

    def __init__(self, dimensions, order=3):
        rng = np.random.default_rng(0)
        each = range(-order, order + 1)
        self.k, self.m = (np.array(list(itertools.product(each, repeat=d)), float) for d in dimensions)
        shape = len(self.k), len(self.m)
        self.c = (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / np.sqrt(2)
        terms = {(*map(int, k), *map(int, m)): self.c[i, j] for i, k in enumerate(self.k) for j, m in enumerate(self.m)}
        self.payoff = mfld.payoffs.Trigonometric(terms, dimensions)

    def evaluate(self, x, y, wx, wy):
        """Averages for each player, and their gradients."""
        ex, ey = np.exp(2j * np.pi * x @ self.k.T), np.exp(2j * np.pi * y @ self.m.T)
        of_x, of_y = ex * (self.c @ (wy @ ey)), ey * ((wx @ ex) @ self.c)
        slope_x, slope_y = (np.real(2j * np.pi * (own @ k)) for own, k in ((of_x, self.k), (of_y, self.m)))
        return np.real(of_x.sum(axis=1)), slope_x, np.real(of_y.sum(axis=1)), slope_y


def best(calls, repetitions, threads):
    """Shortest time of each call, one after the other in each repetition."""
    times = {name: [] for name in calls}
    clock = time.thread_time if threads == 1 else time.perf_counter
    for _ in range(repetitions):
        for name, call in calls.items():
            start = clock()
            call()
            times[name].append(clock() - start)
    return {name: min(own) for name, own in times.items()}


def check(payoff, evaluate, sizes):
    rng = np.random.default_rng(1)
    x, y = (rng.normal(size=size) for size in sizes)
    value_x, slope_x, value_y, slope_y = evaluate(x, y, *(np.full(n, 1 / n) for n, _ in sizes))
    for player, points, other, value, slope in ((0, x, y, value_x, slope_x), (1, y, x, value_y, slope_y)):
        values, gradient = payoff.average(points, mfld.Cloud(other), player)
        np.testing.assert_allclose(values, value, rtol=1e-9)
        np.testing.assert_allclose(gradient, slope, rtol=1e-7, atol=1e-12)


def measured(d, n, threads, repetitions):
    payoff = mfld.payoffs.OfKernel(mfld.kernels.Gaussian(1.0))
    check(payoff, evaluate, [(50, d)] * 2)
    game = mfld.Bilinear(payoff, space=d, l2=0.1)
    solver = mfld.DescentAscent(n, step_size=0.1, temperature=0.01, num_threads=threads)
    state = solver.init(game)
    x, y = (state.clouds[name].particles[0] for name in "xy")
    even = np.full(n, 1 / n, np.float32)
    cloud_x, cloud_y = mfld.Cloud(x), mfld.Cloud(y)
    found = best(
        {
            "mfld": lambda: solver.advance(game, state, 5),
            "mirror-prox": lambda: mirror_prox(evaluate, x, y, even, even, np.float32(0.1), np.float32(0.1)),
            "pairs": lambda: (payoff.average(x, cloud_y, 0, threads), payoff.average(y, cloud_x, 1, threads)),
        },
        repetitions,
        threads,
    )
    return {**found, "mfld": found["mfld"] / 5}


def of_waves(sizes, dimensions, threads, repetitions):
    """Times of an iteration on the torus, at the numbers of particles of the two players."""
    waves = Waves(dimensions)
    check(waves.payoff, waves.evaluate, list(zip(sizes, dimensions, strict=True)))
    spaces = {name: mfld.Space(domain=[mfld.Torus(d)]) for name, d in zip("xy", dimensions, strict=True)}
    game = mfld.Bilinear(waves.payoff, space=spaces, reference=mfld.references.Uniform())
    numbers = dict(zip("xy", sizes, strict=True))
    solver = mfld.DescentAscent(numbers, step_size=1e-3, temperature=0.01, num_threads=threads, dtype="float64")
    state = solver.init(game)
    x, y = (state.clouds[name].particles[0] for name in "xy")
    even = [np.full(n, 1 / n) for n in sizes]

    def iterations():
        at = (x, y, *even)
        for _ in range(50):
            at = mirror_prox(waves.evaluate, *at, 1e-3, 4e-2)

    found = best({"mfld": lambda: solver.advance(game, state, 50), "mirror-prox": iterations}, repetitions, threads)
    return {name: seconds / 50 for name, seconds in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=7)
    given = parser.parse_args()
    n, threads = given.particles, given.threads
    level = mfld.show_config(mode="dicts")["level"]
    rates = ceilings.measure(level, [threads])
    print("| dimension | mfld, ms | mirror-prox, ms | ratio | pairs alone, ms | floor, ms | share of floor |")
    print("|---|---|---|---|---|---|---|")
    for d in (2, 10, 30):
        found = {name: 1e3 * seconds for name, seconds in measured(d, n, threads, given.repetitions).items()}
        rates = ceilings.best(rates, ceilings.measure(level, [threads]))
        table = ceilings.table(rates)
        of_pair = 4 * d / table["multiply_add", "float32", threads] + 1 / table["exp", "float32", threads]
        floor = 2 * n * n * of_pair * 1e-6
        print(
            f"| {d} | {found['mfld']:.2f} | {found['mirror-prox']:.2f} | {found['mirror-prox'] / found['mfld']:.1f} | "
            f"{found['pairs']:.2f} | {floor:.2f} | {floor / found['pairs']:.0%} |",
            flush=True,
        )
    print("\n| particles | dimensions | mfld, us | mirror-prox, us | ratio |")
    print("|---|---|---|---|---|")
    for sizes, dimensions in (((15, 15), (1, 1)), ((100, 22), (2, 1))):
        found = {name: 1e6 * t for name, t in of_waves(sizes, dimensions, threads, given.repetitions).items()}
        ratio = found["mirror-prox"] / found["mfld"]
        print(
            f"| {sizes} | {dimensions} | {found['mfld']:.0f} | {found['mirror-prox']:.0f} | {ratio:.1f} |", flush=True
        )


if __name__ == "__main__":
    main()
