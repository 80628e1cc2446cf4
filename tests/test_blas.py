"""Bits do not depend on the number of threads of BLAS and LAPACK, which belongs to the machine and not to the run.

Each group of paths runs in two processes, with one thread of OpenBLAS (and MKL and Accelerate) and with two, and
returns the SHA-256 of what it leaves. Sizes are such that a matrix product or a decomposition in the way would differ.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mfld
from mfld import certificates, potentials
from mfld import functional_data as fd

VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def digest(*arrays):
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def digest_of_state(state):
    return digest(*[cloud.particles for cloud in state.clouds.values()], *state.buffers.values())


def images(n=1797):
    """As many rows as the digits have, and as wide: whole numbers from 0 to 16."""
    inputs = np.random.default_rng(0).integers(0, 17, size=(n, 64)) / 16
    return inputs, np.where(inputs[:, 3] > inputs[:, 7], 1.0, -1.0)


def risk(n=400, **network):
    inputs, signs = images(n)
    model = mfld.TwoLayerNetwork(64, **{"readout": "bounded", "activation": "tanh", **network})
    return mfld.EmpiricalRisk(model, inputs, signs, loss="logistic", l2=1e-2)


def automatic():
    model = mfld.TwoLayerNetwork(64, activation="silu")
    inputs, signs = images()
    digits = mfld.EmpiricalRisk(model, inputs, signs, loss="half_squared", l2=1e-4)
    wells = mfld.Potential(lambda x: x**3 - x, lambda x: np.sum(x**4 / 4 - x**2 / 2, axis=1), n_coordinates=60)
    spread = mfld.Functional(lambda x: x.mean(axis=0) - x, n_coordinates=60, l2=1.0)
    for name, objective in (("risk", digits), ("potential", wells), ("functional", spread)):
        solver = mfld.MFLD(300, temperature=1e-4, num_threads=1)
        yield f"automatic step on a {name}", digest_of_state(solver.run(objective, 3).state)
    frozen = digits.first_variation(digits.initial_particles(300))
    yield "frozen variation", digest_of_state(mfld.MFLD(300, temperature=1e-4, num_threads=1).run(frozen, 3).state)


def averaging():
    for batch_size in (None, 50):
        solver = mfld.PDA(300, step_size=0.1, temperature=1e-2, batch_size=batch_size, num_threads=1)
        result = solver.run(risk(), 3)
        yield f"pda, {batch_size}", digest_of_state(result.state)
        yield f"its dual, {batch_size}", digest(result.dual)


def ascent():
    for name, problem, n in (("one group", risk(100), 300), ("four", groups(), 800)):
        result = mfld.PSDCA(n, temperature=1e-2, num_threads=1).run(problem, 2)
        yield f"psdca, {name}", digest_of_state(result.state)


def groups():
    inputs, signs = images(100)
    model = mfld.TwoLayerNetwork(64, 2, readout="signs", activation="tanh")
    return mfld.EmpiricalRisk(model, inputs, np.stack([signs, -signs], axis=1), loss="half_squared", l2=1e-2)


def certified():
    objective = risk(100)
    dual = np.linspace(-0.4, -0.1, 100) * objective.targets[:, 0]
    limits = {"n_chains": 320, "most_moves": 256, "num_threads": 1}
    found = mfld.certificate(objective, dual, 0.1, **limits)
    assert found.reason is None, found.reason
    yield "certificate", digest(found.gap, found.upper, found.predictions, found.particles)
    options = {"n_chains": 320, "n_moves": 8, "num_threads": 1}
    yield "log partition", digest(*certificates.log_partition(objective, dual, 0.1, **options))


def covariance(size, seed=0):
    square = np.random.default_rng(seed).normal(size=(size, size))
    return np.einsum("ik,jk->ij", square, square) / size + np.eye(size)


def matrices():
    m = 40
    rotation = np.triu(np.ones((m, m)), 1) - np.triu(np.ones((m, m)), 1).T

    def diffusion(x):
        return np.eye(m) * (1 + x[:, :, np.newaxis] ** 2) + 0.25

    well = mfld.Potential(lambda x: x, n_coordinates=m, l2=0.1)
    wide = mfld.Potential(lambda x: x, n_coordinates=500, l2=0.1)
    constant = covariance(500)
    for name, objective, dynamics in (
        ("a function", well, mfld.General(diffusion, rotation, lambda x: 2 * x)),
        ("a constant", wide, mfld.General(constant)),
        ("irreversible", well, mfld.Irreversible(rotation)),
        ("preconditioned", well, mfld.Preconditioned()),
    ):
        solver = mfld.MFLD(50, step_size=1e-3, temperature=0.1, dynamics=dynamics, dtype="float64", num_threads=1)
        yield f"dynamics: {name}", digest_of_state(solver.run(objective, 3).state)


def built_in():
    means = np.random.default_rng(0).normal(size=(2, 200))
    inputs = np.random.default_rng(1).normal(size=(1000, 200))
    slopes = np.einsum("ij->i", inputs)
    regression = potentials.BayesianLinearRegression(inputs, slopes)
    logistic = potentials.BayesianLogisticRegression(inputs, np.sign(slopes))
    for name, potential in (
        ("gaussian", potentials.Gaussian(np.zeros(512), covariance(512))),
        ("mixture", potentials.GaussianMixture(means, [covariance(200, seed) for seed in (2, 3)])),
        ("linear regression", regression),
        ("logistic regression", logistic),
    ):
        solver = mfld.MFLD(50, step_size=1e-3, temperature=1.0, dtype="float64", num_threads=1)
        yield f"potential: {name}", digest_of_state(solver.run(potential, 3).state)
    yield "posterior", digest(regression.posterior_mean, regression.posterior_covariance, regression.log_evidence())
    yield "mode", digest(logistic.mode())
    yield "normaliser", digest(potentials.Gaussian(np.zeros(512), covariance(512)).log_normaliser())


def pruned():
    model = mfld.TwoLayerNetwork(8)
    cloud = mfld.Cloud(model.initial_particles(1500, 0, dtype="float64"))
    inputs = np.random.default_rng(0).normal(size=(300, 8))
    fewer, _ = mfld.prune(model, cloud, inputs, 200, num_threads=1)
    assert len(fewer.particles) > 150
    yield "prune", digest(fewer.particles, fewer.weights)


def functions():
    t = np.linspace(0, 1, 150)
    curves = np.random.default_rng(0).normal(size=(400, 150))
    for covariance in (
        fd.RBF(0.1),
        fd.Given(np.minimum),
        fd.PowerLaw(basis=fd.BSplines(40)),
        fd.PowerLaw(basis=fd.PrincipalComponents()),
    ):
        network = mfld.FunctionalNetwork(t, covariance, 20, curves=curves)
        elsewhere = network.inputs(curves[:, ::2], t[::2])
        yield f"inputs, {covariance}", digest(network.inputs(curves), elsewhere, network.modes.variances)


PARTS = (automatic, averaging, ascent, certified, matrices, built_in, pruned, functions)
PATHS = {function.__name__: function for function in PARTS}


def told(name, n_threads):
    """Lines of a process with so many threads of BLAS."""
    environment = os.environ | dict.fromkeys(VARIABLES, str(n_threads))
    command = [sys.executable, str(Path(__file__)), name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", PATHS)
def test_threads_of_blas(name):
    one, two = told(name, 1), told(name, 2)
    assert one
    assert one == two


if __name__ == "__main__":
    for label, value in PATHS[sys.argv[1]]():
        print(label, value)
