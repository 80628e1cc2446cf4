"""How fast is a step of the bilevel reduction, against NumPy and PyTorch, and where does its time go?

    python bench/signed.py [--threads 1] [--repetitions 5]

A step solves the ridge system of the outer weights, in the smaller of particles and samples, and pulls its coefficients
back to the positions: tanh networks, half squared loss, float32. All implementations draw no noise here, and their
drifts are compared first. The floor is the time of the Gram matrix as one product of matrices by NumPy's BLAS, which
computes both of its halves, with the product of the neurons' inputs and that of the pull-back.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence

import numpy as np

import mfld
from mfld import linear

CASES = [(2000, 1000, 20), (1000, 5000, 64)]
STRENGTH = np.float32(1e-2)


def numpy_drift(w: np.ndarray, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Gradient of the first variation at positions w, shape (N, d + 1), bias last."""
    n_particles, n = len(w), len(z)
    phi = z @ w[:, :-1].T
    phi += w[:, -1]
    np.tanh(phi, out=phi)
    if n_particles < n:
        system = phi.T @ phi
        system /= n * n_particles
        system[np.diag_indices(n_particles)] += STRENGTH
        weights = np.linalg.solve(system, phi.T @ y / n)
        dual = (y - phi @ weights / n_particles) / (n * STRENGTH)
    else:
        system = phi @ phi.T
        system /= n_particles
        system[np.diag_indices(n)] += n * STRENGTH
        dual = np.linalg.solve(system, y)
        weights = phi.T @ dual
    np.multiply(phi, phi, out=phi)
    np.subtract(1, phi, out=phi)
    phi *= dual[:, np.newaxis]
    slope = np.concatenate([phi.T @ z, phi.sum(axis=0)[:, np.newaxis]], axis=1)
    return -STRENGTH * weights[:, np.newaxis] * slope


def torch_drift(torch: object, w: np.ndarray, z: np.ndarray, y: np.ndarray) -> Callable[[], np.ndarray]:
    own = [torch.from_numpy(each) for each in (w, z, y)]  # type: ignore[attr-defined]

    def drift() -> np.ndarray:
        t = torch
        weights, inputs, targets = own
        n_particles, n = len(weights), len(inputs)
        phi = t.tanh(t.addmm(weights[:, -1], inputs, weights[:, :-1].T))  # type: ignore[attr-defined]
        if n_particles < n:
            system = phi.T @ phi / (n * n_particles)
            system.diagonal().add_(float(STRENGTH))
            factor = t.linalg.cholesky(system)  # type: ignore[attr-defined]
            outer = t.cholesky_solve((phi.T @ targets / n)[:, None], factor)[:, 0]  # type: ignore[attr-defined]
            dual = (targets - phi @ outer / n_particles) / (n * float(STRENGTH))
        else:
            system = phi @ phi.T / n_particles
            system.diagonal().add_(n * float(STRENGTH))
            factor = t.linalg.cholesky(system)  # type: ignore[attr-defined]
            dual = t.cholesky_solve(targets[:, None], factor)[:, 0]  # type: ignore[attr-defined]
            outer = phi.T @ dual
        pulled = (1 - phi * phi) * dual[:, None]
        slope = t.cat([pulled.T @ inputs, pulled.sum(0)[:, None]], 1)  # type: ignore[attr-defined]
        return (-float(STRENGTH) * outer[:, None] * slope).numpy()

    return drift


def best(call: Callable[[], object], repetitions: int) -> float:
    """Least time of a call, in milliseconds."""
    call()
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args(arguments)
    try:
        import torch  # noqa: PLC0415  a peer that may be missing
    except ImportError:
        torch = None
    else:
        torch.set_num_threads(options.threads)
    if os.environ.get("OMP_NUM_THREADS") != str(options.threads):
        print(f"NumPy's BLAS takes its threads from OMP_NUM_THREADS; set it to {options.threads}")
    print(f"load {os.getloadavg()[0]:.1f}; milliseconds, the least of {options.repetitions}")
    for n_particles, n, d in CASES:
        rng = np.random.default_rng(0)
        z, y = rng.normal(size=(n, d)).astype(np.float32), rng.normal(size=n).astype(np.float32)
        w = (rng.normal(size=(n_particles, d + 1)) / np.sqrt(d)).astype(np.float32)
        model = mfld.TwoLayerNetwork(d, readout="fixed")
        risk = mfld.SignedRisk(model, z, y, strength=float(STRENGTH)).on_threads(options.threads)
        ways: dict[str, Callable[[], np.ndarray]] = {
            "mfld": lambda: risk.gradient(w),  # noqa: B023  called within this turn
            "numpy": lambda: numpy_drift(w, z, y),  # noqa: B023
        }
        if torch is not None:
            ways["torch"] = torch_drift(torch, w, z, y)
        reference = numpy_drift(*(each.astype(np.float64) for each in (w, z, y)))
        for name, way in ways.items():
            error = np.abs(way() - reference).max() / np.abs(reference).max()
            assert error < 1e-3, f"{name} differs by {error:.2g} of the largest entry"
        times = {name: best(way, options.repetitions) for name, way in ways.items()}
        side, other = min(n, n_particles), max(n, n_particles)
        factor = rng.normal(size=(side, other)).astype(np.float32)
        products = best(lambda: (factor @ factor.T, z @ w[:, :-1].T, factor @ (z if side < n else w)), 3)  # noqa: B023
        parts = {
            "neurons": best(lambda: model.neurons(w, z, options.threads), 3),  # noqa: B023
            "ridge system": best(lambda: linear.ridge_solve(factor, 1.0, y[:side, None], options.threads), 3),  # noqa: B023
            "pull back": best(lambda: model.pull_back(w, z, y[:, None], options.threads), 3),  # noqa: B023
        }
        print(f"\nN = {n_particles}, n = {n}, d = {d}: floor {products:.1f}")
        for name, value in times.items():
            print(f"  {name:12} {value:8.1f}   {value / times['mfld']:.2f} x mfld")
        print("  of mfld: " + ", ".join(f"{name} {value:.1f}" for name, value in parts.items()))


if __name__ == "__main__":
    main()
