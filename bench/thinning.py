"""Kernel thinning beside the goodpoints package: how close coresets are to their points, and what they cost.

    pip install goodpoints
    python bench/thinning.py [--seeds 5]

Coresets of sqrt(N) of N points in the plane, of 20 clumps, by a Gaussian kernel; up to 1024 points by kernel thinning,
else by compression first (``compresspp_kt``). The discrepancy is the root mean over seeds of MMD**2, with that of as
many random points.
"""

import argparse
import time

import numpy as np
from goodpoints import compress, kt

from mfld import kernels, noise, thinning

KERNEL = kernels.Gaussian(1.0)


def clumps(n, seed):
    centres = 2 * noise.normals(11, 0, 20, 2, dtype="float64", stream="data")
    return centres[np.arange(n) % 20] + 0.3 * noise.normals(seed, 0, n, 2, dtype="float64", stream="data")


def value(y, x):
    return np.exp(-np.sum((x - y) ** 2, axis=1) / 2)


def discrepancy(points, rows):
    part = np.ascontiguousarray(points[rows])
    within, across = KERNEL.sums(part, part).mean(), KERNEL.sums(part, points).mean()
    return within - 2 * across + KERNEL.sums(points, points).mean()


def own(points, seed):
    return thinning.thin(points, kernel=KERNEL, seed=seed, num_threads=1)


def peer(points, seed):
    if len(points) <= 1024:
        return kt.thin(points, int(np.log2(len(points))) // 2, value, value, seed=seed, store_K=True)
    return compress.compresspp_kt(points, b"gaussian", np.array([2.0]), g=4, seed=seed)


def random(points, seed):
    return np.random.default_rng(seed).choice(len(points), round(len(points) ** 0.5), replace=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    print("| N | discrepancy: mfld | goodpoints | random | seconds: mfld | goodpoints |")
    print("|---|---|---|---|---|---|")
    for n in (256, 1024, 4096, 16384, 65536):
        squares, seconds = {}, {}
        for method in (own, peer, random):
            method(clumps(256, 0), 0)  # the first call loads things
            found, took = [], []
            for seed in range(given.seeds):
                points = clumps(n, seed)
                start = time.perf_counter()
                rows = method(points, seed)
                took.append(time.perf_counter() - start)
                found.append(discrepancy(points, rows))
            squares[method], seconds[method] = np.mean(found) ** 0.5, np.median(took)
        shown = " | ".join(f"{squares[method]:.2g}" for method in (own, peer, random))
        print(f"| {n} | {shown} | {seconds[own]:.3g} | {seconds[peer]:.3g} |", flush=True)


if __name__ == "__main__":
    main()
