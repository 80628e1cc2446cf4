"""A run whose particles lie in a file: the time of a step, and memory, of 10^8 particles in the plane.

    python bench/pieces.py [--particles 100000000] [--rows 32] [--steps 3] [--pieces 64] [--folder .]

The network has one feature and a bias, and the readout 1, so that a particle has two coordinates; float32. The file
takes 8 bytes for a particle, and another one stands beside it while a step is made. With `--check` the run is made in
memory too, and its particles are compared.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

import mfld


def peak() -> int:
    """Most memory that the process has had, in MiB; pages of mapped files that it has read count."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=int, default=100_000_000)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--pieces", type=int, default=64)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--folder", default=".", help="where there is room for the files")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()

    inputs = np.linspace(-2, 2, given.rows)[:, np.newaxis]
    network = mfld.TwoLayerNetwork(1, readout="fixed")
    risk = mfld.EmpiricalRisk(network, inputs, np.tanh(2 * inputs[:, 0]) / 2, loss="half_squared", l2=1e-4)
    solver = mfld.MFLD(given.particles, step_size=0.1, temperature=1e-5, num_threads=given.threads)
    before = peak()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        apart = mfld.pieces.InPieces(solver, Path(folder, "cloud.npy"), given.pieces)
        begin = time.perf_counter()
        state = apart.init(risk, seed=0)
        print(f"{given.particles} particles of {state.particles.shape[1]} coordinates, {given.rows} rows", flush=True)
        print(f"initial particles: {time.perf_counter() - begin:.1f} s", flush=True)
        for _ in range(given.steps):
            begin = time.perf_counter()
            state, info = apart.advance(risk, state)
            print(f"step {state.step}: {time.perf_counter() - begin:.1f} s, loss {info.loss:.6f}", flush=True)
        print(f"memory at most: {peak()} MiB, of which {before} before the run", flush=True)
        if given.check:
            whole = solver.run(risk, given.steps, seed=0)
            same = np.array_equal(whole.particles, state.particles)
            print(f"in memory: {'the same particles' if same else 'other particles'}, {peak()} MiB at most")


if __name__ == "__main__":
    main()
