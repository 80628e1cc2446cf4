"""Ctrl-C within each kernel: answered soon, in the middle of one call on one thread.

The signal comes after 0.1 s of the process's own time, and the answer is timed by the same clock: a busy machine does
not matter. Each call takes more than 0.6 s, so one that does not look for signals fails. Arrays are zeros, which
take no memory before they are touched. Steps of a run are interrupted in test_process.py.
"""

import signal
import sys
import time

import numpy as np
import pytest

import mfld
from mfld import _core, thinning
from mfld.privacy import secret

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

BEFORE = 0.1
BOUND = 0.3
"""The aim is 0.1 s: 0.05 between two looks at pending signals, then a block of work, and memory that is given back."""


@pytest.fixture
def answer():
    """A function that interrupts a call, and says how long that took."""

    def interrupted(call):
        start = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, BEFORE)
        with pytest.raises(KeyboardInterrupt):
            call()
        return time.process_time() - start - BEFORE

    before = signal.signal(signal.SIGPROF, lambda number, frame: signal.raise_signal(signal.SIGINT))
    yield interrupted
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)


def zeros(*shape, dtype="float32"):
    return np.zeros(shape, dtype)


def doubles(*shape):
    return np.zeros(shape)


CORE = _core.backend
NETWORK = mfld.TwoLayerNetwork(50).native
LOGISTIC = _core.Loss(mfld.losses().index("logistic"), 0.0)
TANH, DOUBLE = mfld.activations().index("tanh"), np.dtype("float64")
PLACE, ALONE = (7, 3), 1


def drawn(kernel, n_particles, n_coordinates):
    return lambda: getattr(CORE, kernel)(*PLACE, n_particles, n_coordinates, DOUBLE, 1, 0, ALONE)


def activation():
    z = zeros(1_000_000_000)
    return lambda: CORE.activation(TANH, z)


def loss():
    u = zeros(400_000_000, 1)
    return lambda: CORE.loss(LOGISTIC, u, u)


def conjugate():
    u = zeros(100_000_000, 1)
    return lambda: CORE.conjugate(LOGISTIC, u, u)


def dual_step():
    u = doubles(20_000_000, 1)
    return lambda: CORE.dual_step(LOGISTIC, u, u, u, u[:, 0])


def neurons(n_particles, n):
    x, z = zeros(n_particles, 52), zeros(n, 50)
    return lambda: CORE.neurons(NETWORK, x, z, ALONE)


def predict(n_particles, n):
    x, z = zeros(n_particles, 52), zeros(n, 50)
    return lambda: CORE.predict(NETWORK, x, None, z, ALONE)


def pull_back(n_particles, n):
    x, z, g = zeros(n_particles, 52), zeros(n, 50), zeros(n, 1)
    return lambda: CORE.pull_back(NETWORK, x, z, g, ALONE)


def pull_back_inputs(n_particles, n):
    x, z, g = zeros(n_particles, 52), zeros(n, 50), zeros(n, 1)
    return lambda: CORE.pull_back_inputs(NETWORK, x, None, z, g, ALONE)


def pull_back_both(n_particles, n):
    x, z, g = zeros(n_particles, 52), zeros(n, 50), zeros(n, 1)
    return lambda: CORE.pull_back_both(NETWORK, x, None, z, g, ALONE)


def pull_back_clipped(n_particles, n):
    x, z, y = zeros(n_particles, 52), zeros(n, 50), zeros(n, 1) + 1
    ends = [*range(200, n + 1, 200)]
    return lambda: CORE.pull_back_clipped(NETWORK, LOGISTIC, x, z, y, ends, 1.0, ALONE)


# Of many features: what is kept of the activations is no larger than the inputs.
WIDE = mfld.TwoLayerNetwork(20_000).native


def risk_at():
    x, z, y = zeros(1000, 20_002), zeros(1000, 20_000), zeros(1000, 1) + 1
    return lambda: CORE.risk_at(WIDE, LOGISTIC, x, z, y, None, ALONE)


def risk_along():
    x, z, y = zeros(1000, 20_002), zeros(1000, 20_000), zeros(1000, 1) + 1
    _, v, kept = CORE.risk_at(WIDE, LOGISTIC, x, z, y, None, 2)
    return lambda: CORE.risk_along(WIDE, LOGISTIC, x, z, y, None, kept, v, ALONE)


def gaussians():
    table = secret._table()
    return lambda: CORE.gaussians(bytes(32), 400_000_000, *table, ALONE)


def pull_back_rows(n_particles, batch_size):
    x, z, g = zeros(n_particles, 52), zeros(10, 50), zeros(10, 1)
    rows = zeros(n_particles, batch_size, dtype="int64")
    return lambda: CORE.pull_back_rows(NETWORK, x, z, g, rows, ALONE)


def affine(domain=None):
    x, g = doubles(2_000_000, 60), doubles(2_000_000, 60)
    return lambda: CORE.affine(x, g, 60, (0.0, 0.1, 0.1), *PLACE, 0, ALONE, domain)


def baoab(closing):
    x, v, g = (doubles(4_000_000, 60) for _ in range(3))
    return lambda: CORE.baoab(x, v, g, closing, 60, (0.1, 0.0, 0.9, 0.1), *PLACE, 0, ALONE)


def accept():
    (x, u, g), (y, w, c) = ((zeros(20_000_000, 4), zeros(20_000_000), zeros(20_000_000, 4)) for _ in range(2))
    return lambda: CORE.accept(x, u, g, y, w, c, 4, (0.0, 0.1, 0.1), *PLACE, 0, ALONE)


def dual_sweep(n_particles, n):
    x, z, y, groups = zeros(n_particles, 52), zeros(n, 50), zeros(n, 1) + 1, np.array([n_particles])
    log_weights, dual, rows = doubles(n_particles), doubles(n, 1), np.arange(n)
    bounds = 0.1, 1.0, 1.0, 1e-9
    return lambda: CORE.dual_sweep(NETWORK, LOGISTIC, x, z, y, None, rows, groups, *bounds, log_weights, dual, ALONE)


PAIRS = thinning.in_core(mfld.kernels.Gaussian(1.0), 2)


def points(n):
    return zeros(n, 2)


def advance_pairs(n, n_target):
    x, numbers = zeros(1, n, 2), ([0.0, 1e-3, 0.0], 2_000_000, [0], 0, 0)

    def call():
        raise CORE.advance_pairs(PAIRS, 1.0, PAIRS, 1.0, x, 2, points(n_target), None, *numbers, ALONE).exception

    return call


def split(n):
    x, rows = points(n), np.arange(n)
    return lambda: CORE.thinning_split(PAIRS, x, rows, 1, 0, *PLACE, 0, ALONE)


def compress(n, levels):
    x, rows = points(n), np.arange(n)
    return lambda: CORE.thinning_compress(PAIRS, x, rows, levels, *PLACE, 0, ALONE)


def refine(n):
    x, rows, ends = points(n), np.arange(n), np.array([n // 2, n])
    return lambda: CORE.thinning_refine(PAIRS, x, rows, ends, 100, ALONE)


def ridge_solve(rows, columns, k):
    factor, right = zeros(rows, columns), zeros(rows, k)
    return lambda: CORE.ridge_solve(factor, 1.0, right, ALONE)


def product(rows, columns, k, transposed):
    factor, right = zeros(rows, columns), zeros(rows if transposed else columns, k)
    return lambda: CORE.product(factor, right, transposed, ALONE)


CALLS = {
    "activation": activation,
    "loss": loss,
    "conjugate": conjugate,
    "dual_step": dual_step,
    "neurons": lambda: neurons(100_000, 2_000),
    "neurons, many particles": lambda: neurons(5_000_000, 48),
    "predict": lambda: predict(1000, 1_000_000),
    "predict, many particles": lambda: predict(5_000_000, 200),
    "pull_back": lambda: pull_back(1_000_000, 1000),
    "pull_back, many rows": lambda: pull_back(100, 5_000_000),
    "pull_back_inputs": lambda: pull_back_inputs(1000, 1_000_000),
    "pull_back_inputs, many particles": lambda: pull_back_inputs(5_000_000, 200),
    "pull_back_both": lambda: pull_back_both(1000, 1_000_000),
    "pull_back_both, many particles": lambda: pull_back_both(5_000_000, 200),
    "pull_back_clipped": lambda: pull_back_clipped(1000, 1_000_000),
    "pull_back_clipped, many particles": lambda: pull_back_clipped(2_000_000, 200),
    "risk_at": risk_at,
    "risk_along": risk_along,
    "gaussians": gaussians,
    "pull_back_rows": lambda: pull_back_rows(1_000_000, 60),
    "pull_back_rows, large batches": lambda: pull_back_rows(10, 6_000_000),
    "affine": affine,
    "affine, on a torus": lambda: affine(mfld.Space(domain=[mfld.Torus(60)]).native()),
    "baoab, open": lambda: baoab(False),
    "baoab, close": lambda: baoab(True),
    "accept": accept,
    "normals": lambda: drawn("normals", 3_000_000, 60),
    "normals, long": lambda: drawn("normals", 2, 33_000_000),
    "uniforms": lambda: drawn("uniforms", 6_000_000, 60),
    "uniforms, long": lambda: drawn("uniforms", 6, 33_000_000),
    "batch": lambda: lambda: CORE.batch(*PLACE, 100_000_000, 60_000_000),
    "particle_batches": lambda: lambda: CORE.particle_batches(*PLACE, 100_000_000, 60, 1_000_000, 0, ALONE),
    "particle_batches, large": lambda: lambda: CORE.particle_batches(*PLACE, 100_000_000, 15_000_000, 4, 0, ALONE),
    "pair_sums": lambda: lambda: CORE.pair_sums(PAIRS, points(200_000), points(200_000), None, True, ALONE),
    "gaussian_means": lambda: lambda: CORE.gaussian_means([1.0, 1.0], points(200_000), points(200_000), None, ALONE),
    "pair_pull_back": lambda: (
        lambda: CORE.pair_pull_back(PAIRS, points(200_000), points(200_000), points(200_000), None, 1.0, ALONE)
    ),
    "pair_stein": lambda: (
        lambda: CORE.pair_stein(
            PAIRS, points(200_000), points(200_000), points(200_000), points(200_000), None, True, ALONE
        )
    ),
    "advance_pairs": lambda: advance_pairs(100, 20),
    "advance_pairs, many particles": lambda: advance_pairs(200_000, 200_000),
    "thinning_split": lambda: split(200_000),
    "thinning_compress": lambda: compress(2**22, 11),
    "thinning_refine": lambda: refine(100_000),
    "ridge_solve": lambda: ridge_solve(6000, 4000, 1),
    "ridge_solve, more rows": lambda: ridge_solve(40_000, 2000, 1),
    "ridge_solve, many right sides": lambda: ridge_solve(2000, 4000, 20_000),
    "ridge_solve, more rows and many right sides": lambda: ridge_solve(80_000, 300, 400),
    "product": lambda: product(20_000, 2000, 200, False),
    "product, transposed": lambda: product(20_000, 2000, 1000, True),
    "dual_sweep": lambda: dual_sweep(100_000, 20_000),
    "dual_sweep, many rows": lambda: dual_sweep(10, 5_000_000),
}


def test_every_kernel_is_among_the_calls():
    alone = {"activation", "loss", "conjugate", "dual_step", "batch"}  # those that always have one thread
    methods = vars(type(CORE)).items()
    others = {name for name, method in methods if "num_threads" in (method.__doc__ or "")}  # which has the signature
    assert {name.split(",")[0] for name in CALLS} == alone | others - {"advance"}


@pytest.mark.parametrize("name", CALLS)
def test_ctrl_c_within_a_kernel(name, answer):
    assert answer(CALLS[name]()) < BOUND


def test_ctrl_c_within_the_draws_of_an_estimator(answer):
    model = mfld.TwoLayerNetwork(2)
    risk = mfld.EmpiricalRisk(model, zeros(100, 2), zeros(100), loss="squared").on_threads(1)
    place = mfld.noise.Place.of(0, num_threads=1)
    estimator, particles = mfld.PerParticleMinibatch(60), zeros(1_000_000, model.n_coordinates)
    assert answer(lambda: estimator.estimate(risk, particles, {}, place)) < BOUND
