"""Many short runs and fits in one process, and one long run: memory and file descriptors stay flat, the law stays.

python tests/soak.py [--runs N] [--fits N] [--steps N]
"""

import argparse
import contextlib
import gc
import os
import sys
import tempfile
import warnings

import numpy as np

import mfld
from mfld import checkpoint, sklearn

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(30, 3))
TARGETS = np.sign(INPUTS[:, 0])
STRETCHES = 1000


def resident():
    """Bytes of memory that the process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors():
    """Open files."""
    return len(os.listdir("/proc/self/fd"))


def run(k):
    """A short run of a kind that turns with k."""
    risk = mfld.EmpiricalRisk(mfld.TwoLayerNetwork(3), INPUTS, TARGETS, loss="logistic", l2=0.01)
    gradient = [mfld.FullBatch(), mfld.Minibatch(4), mfld.SVRG(4, 3), mfld.SARAH(4, 3)][k % 4]
    dynamics = [mfld.Overdamped(), mfld.Underdamped(friction=1.0), mfld.Preconditioned()][k // 4 % 3]
    solver = mfld.MFLD(8, step_size=0.05, temperature=0.01, gradient=gradient, dynamics=dynamics, num_threads=1 + k % 2)
    result = solver.run(risk, 3, seed=k, record_every=1)
    if k % 100 == 0:
        checkpoint.save(result.state, "state.npz")
        checkpoint.load("state.npz")
        with np.errstate(all="ignore"), contextlib.suppress(mfld.DivergenceError):
            mfld.MFLD(8, step_size=300.0, temperature=0.01).run(risk, 1000)


def fit(k):
    """A fit of an estimator that turns with k."""
    kind = [sklearn.MeanFieldRegressor, sklearn.MeanFieldClassifier][k % 2]
    kind(n_particles=4, n_steps=5, random_state=k).fit(INPUTS, TARGETS).predict(INPUTS)


def growth(call, count):
    """Bytes and descriptors that the second half of so many calls leaves behind."""
    before = None
    for k in range(count):
        if k == count // 2:
            gc.collect()
            before = resident(), descriptors()
        call(k)
    gc.collect()
    return resident() - before[0], descriptors() - before[1]


def drift(n_steps):
    """Largest deviation of the law of a long run from its stationary one, in standard errors.

    Without a signal the ridge alone pulls: ``theta' = (1 - 2 h l2) theta + sqrt(2 h T) xi``, whose law is normal with
    the variance ``2 h T / (1 - (1 - 2 h l2)^2)``. Ends of stretches of steps are as good as independent draws of it.
    """
    network = mfld.TwoLayerNetwork(1, activation="identity", readout="fixed", bias=False)
    risk = mfld.EmpiricalRisk(network, np.zeros((1, 1)), np.zeros(1), loss="half_squared", l2=0.5)
    solver = mfld.MFLD(32, step_size=0.5, temperature=1.0, num_threads=1)
    state = solver.init(risk, seed=1)
    ends = []
    for _ in range(STRETCHES):
        state, _ = solver.advance(risk, state, max(n_steps // STRETCHES, 100))
        ends.append(state.particles[:, 0] / np.sqrt(1 / (1 - 0.5**2)))
    worst = 0.0
    for part in np.array_split(np.array(ends, np.float64), 4):  # over time
        for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
            worst = max(worst, abs(np.mean(part**power) - mean) / np.sqrt(variance / part.size))
    return worst


def main():
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--fits", type=int, default=2_000)
    parser.add_argument("--steps", type=int, default=1_000_000_000)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    leaks = False
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for call, count in ((run, options.runs), (fit, options.fits)):
            grown, opened = growth(call, count)
            each = grown / (count / 2)
            leaks |= opened > 0 or (grown > 2_000_000 and each > 20)
            print(f"{count} calls of {call.__name__}: {grown} bytes ({each:.1f} a call), {opened} descriptors more")
        os.chdir("/")
    worst = drift(options.steps)
    print(f"{options.steps} steps: the law is within {worst:.1f} standard errors of the stationary one")
    return bool(leaks or worst > 5)


if __name__ == "__main__":
    sys.exit(main())
