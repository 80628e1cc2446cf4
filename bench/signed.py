"""How fast is a step of the bilevel reduction, against NumPy, PyTorch and JAX, and where does its time go?

    python bench/signed.py [--repetitions 15]

A step solves the ridge system of the outer weights, in the smaller of particles and samples, and pulls its coefficients
back to the positions: tanh networks, half squared loss, float32, one thread. All implementations draw no noise here,
and their drifts are compared first. The floor is the least that the step is made of, by NumPy's BLAS and LAPACK: one
half of the Gram matrix (SYRK), its Cholesky factor, the product of the neurons' inputs and that of the pull-back.
Implementations and floor take turns; times are medians of the processor's time, so that a busy machine matters less.
"""

from __future__ import annotations

import argparse
import importlib
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import numpy as np

import mfld
from mfld import linear

CASES = [(2000, 1000, 20), (1000, 5000, 64)]
STRENGTH = np.float32(1e-2)


def numpy_drift(scipy_linalg: Any, w: np.ndarray, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Gradient of the first variation at positions w, shape (N, d + 1), bias last; by Cholesky where SciPy is."""

    def solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
        if scipy_linalg is None:
            return np.linalg.solve(matrix, right)
        return scipy_linalg.cho_solve(scipy_linalg.cho_factor(matrix, overwrite_a=True, check_finite=False), right)

    n_particles, n = len(w), len(z)
    phi = z @ w[:, :-1].T
    phi += w[:, -1]
    np.tanh(phi, out=phi)
    if n_particles < n:
        system = phi.T @ phi
        system /= n * n_particles
        system[np.diag_indices(n_particles)] += STRENGTH
        weights = solve(system, phi.T @ y / n)
        dual = (y - phi @ weights / n_particles) / (n * STRENGTH)
    else:
        system = phi @ phi.T
        system /= n_particles
        system[np.diag_indices(n)] += n * STRENGTH
        dual = solve(system, y)
        weights = phi.T @ dual
    np.multiply(phi, phi, out=phi)
    np.subtract(1, phi, out=phi)
    phi *= dual[:, np.newaxis]
    slope = np.concatenate([phi.T @ z, phi.sum(axis=0)[:, np.newaxis]], axis=1)
    return -STRENGTH * weights[:, np.newaxis] * slope


def torch_drift(torch: Any, w: np.ndarray, z: np.ndarray, y: np.ndarray) -> Callable[[], np.ndarray]:
    own = [torch.from_numpy(each) for each in (w, z, y)]

    def drift() -> np.ndarray:
        t = torch
        weights, inputs, targets = own
        n_particles, n = len(weights), len(inputs)
        phi = t.tanh(t.addmm(weights[:, -1], inputs, weights[:, :-1].T))
        if n_particles < n:
            system = phi.T @ phi / (n * n_particles)
            system.diagonal().add_(float(STRENGTH))
            factor = t.linalg.cholesky(system)
            outer = t.cholesky_solve((phi.T @ targets / n)[:, None], factor)[:, 0]
            dual = (targets - phi @ outer / n_particles) / (n * float(STRENGTH))
        else:
            system = phi @ phi.T / n_particles
            system.diagonal().add_(n * float(STRENGTH))
            factor = t.linalg.cholesky(system)
            dual = t.cholesky_solve(targets[:, None], factor)[:, 0]
            outer = phi.T @ dual
        pulled = (1 - phi * phi) * dual[:, None]
        slope = t.cat([pulled.T @ inputs, pulled.sum(0)[:, None]], 1)
        return (-float(STRENGTH) * outer[:, None] * slope).numpy()

    return drift


def jax_drift(jax: Any, w: np.ndarray, z: np.ndarray, y: np.ndarray) -> Callable[[], np.ndarray]:
    n_particles, n = len(w), len(z)

    @jax.jit  # type: ignore[untyped-decorator]
    def drift(weights: Any, inputs: Any, targets: Any) -> Any:
        t, cho_factor, cho_solve = jax.numpy, jax.scipy.linalg.cho_factor, jax.scipy.linalg.cho_solve
        phi = t.tanh(inputs @ weights[:, :-1].T + weights[:, -1])
        if n_particles < n:
            system = phi.T @ phi / (n * n_particles) + STRENGTH * t.eye(n_particles)
            outer = cho_solve(cho_factor(system), phi.T @ targets / n)
            dual = (targets - phi @ outer / n_particles) / (n * STRENGTH)
        else:
            dual = cho_solve(cho_factor(phi @ phi.T / n_particles + n * STRENGTH * t.eye(n)), targets)
            outer = phi.T @ dual
        pulled = (1 - phi * phi) * dual[:, None]
        slope = t.concatenate([pulled.T @ inputs, pulled.sum(0)[:, None]], 1)
        return -STRENGTH * outer[:, None] * slope

    own = [jax.numpy.asarray(each) for each in (w, z, y)]
    return lambda: np.asarray(drift(*own))


def in_turns(calls: dict[str, Callable[[], object]], repetitions: int) -> dict[str, float]:
    """Median time of each call, in milliseconds of the processor."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repetitions + 1):
        for name, call in calls.items():
            start = time.process_time()
            call()
            times[name].append(time.process_time() - start)
    return {name: 1e3 * float(np.median(own[1:])) for name, own in times.items()}  # the first ones warm up


def imported(name: str) -> Any:
    """A peer, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=15)
    options = parser.parse_args(arguments)
    torch, jax, scipy_linalg = imported("torch"), imported("jax"), imported("scipy.linalg")
    if torch is not None:
        torch.set_num_threads(1)
    if jax is not None:
        jax.scipy = importlib.import_module("jax.scipy")
    print(f"load {os.getloadavg()[0]:.1f}; milliseconds of the processor, medians of {options.repetitions}")
    for n_particles, n, d in CASES:
        rng = np.random.default_rng(0)
        z, y = rng.normal(size=(n, d)).astype(np.float32), rng.normal(size=n).astype(np.float32)
        w = (rng.normal(size=(n_particles, d + 1)) / np.sqrt(d)).astype(np.float32)
        model = mfld.TwoLayerNetwork(d, readout="fixed")
        risk = mfld.SignedRisk(model, z, y, strength=float(STRENGTH)).on_threads(1)
        ways: dict[str, Callable[[], np.ndarray]] = {
            "mfld": lambda: risk.gradient(w),  # noqa: B023  called within this turn
            "numpy": lambda: numpy_drift(scipy_linalg, w, z, y),  # noqa: B023
        }
        if torch is not None:
            ways["torch"] = torch_drift(torch, w, z, y)
        if jax is not None:
            ways["jax"] = jax_drift(jax, w, z, y)
        reference = numpy_drift(scipy_linalg, *(each.astype(np.float64) for each in (w, z, y)))
        for name, way in ways.items():
            error = np.abs(way() - reference).max() / np.abs(reference).max()
            assert error < 1e-3, f"{name} differs by {error:.2g} of the largest entry"
        neurons = model.neurons(w, z, 1)
        factor = neurons if n < n_particles else np.ascontiguousarray(neurons.T)
        side = len(factor)
        system = factor @ factor.T + np.float32(side) * np.eye(side, dtype=np.float32)
        affine = np.ascontiguousarray(w[:, :-1])
        parts: dict[str, Callable[[], object]] = {
            "of floor: Gram matrix": lambda: factor @ factor.T,  # noqa: B023  the same array twice: SYRK
            "of floor: Cholesky": lambda: np.linalg.cholesky(system),  # noqa: B023
            "of floor: inputs": lambda: z @ affine.T,  # noqa: B023
            "of floor: pull back": lambda: neurons.T @ z,  # noqa: B023
            "of mfld: neurons": lambda: model.neurons(w, z, 1),  # noqa: B023
            "of mfld: ridge system": lambda: linear.ridge_solve(neurons, float(n), y[:, None]),  # noqa: B023
            "of mfld: pull back": lambda: model.pull_back(w, z, y[:, None], 1),  # noqa: B023
        }
        times = in_turns({**ways, **parts}, options.repetitions)
        floor = sum(value for name, value in times.items() if name.startswith("of floor"))
        print(f"\nN = {n_particles}, n = {n}, d = {d}: floor {floor:.1f}, {floor / times['mfld']:.0%} of mfld")
        for name in ways:
            print(f"  {name:22} {times[name]:8.1f}   {times[name] / times['mfld']:.2f} x mfld")
        for name in parts:
            print(f"  {name:22} {times[name]:8.1f}")


if __name__ == "__main__":
    main()
