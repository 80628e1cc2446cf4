"""Steps of kernel objectives against the pair sums that they consist of, and a discrepancy's gradient against KeOps.

    python bench/pairs.py [--threads 1] [--keops]

2000 particles and 2000 samples in float32. Times are the least of rounds in which all methods take turns. A step should
cost little more than its sums; and sums of Stein kernels what their arithmetic asks for beside those of gradients: the
last column divides the time of a pair by its multiply-adds (3 p of a gradient, 4 p of a field, 12 p of a Stein kernel
with its gradient, and 16 for the exponential), in units of that of the gradient. ``--keops`` needs pykeops and a
compiler; its first call takes some seconds and is not counted.
"""

import argparse
import time

import numpy as np

import mfld
from mfld import kernels, noise

N, STEPS = 2000, 20
KERNEL = kernels.Gaussian(1.0)
WORK = {"gradient": 3, "field": 4, "Stein": 12}


def methods(p, threads):
    """Steps, and the sums in them: names to functions, and of each sum its pairs and multiply-adds."""
    x, z = (noise.normals(seed, 0, N, p, stream="data") for seed in (0, 1))
    well = mfld.potentials.Gaussian(np.zeros(p))
    fit = mfld.MMD(z, KERNEL)
    stein = mfld.KSD(well, KERNEL)
    options = {"step_size": 0.1, "temperature": 0.0, "num_threads": threads}
    descent = mfld.MFLD(N, **options)
    svgd = mfld.MFLD(N, **{**options, "temperature": 1.0}, dynamics=mfld.SVGD(KERNEL))

    def steps(solver, objective):
        state = solver.init(objective, particles=x)
        return lambda: solver.advance(objective, state, STEPS)

    def sums():
        for other in (x, z):
            KERNEL.gradient_sums(x, other, num_threads=threads)

    return {
        "MMD": (steps(descent, fit), sums, "gradient", 2),
        "KSD": (
            steps(descent, stein),
            lambda: KERNEL.stein_sums(x, -x, x, -x, with_gradient=True, num_threads=threads),
            "Stein",
            1,
        ),
        "SVGD": (steps(svgd, well), lambda: KERNEL.field(x, x, -x, num_threads=threads), "field", 1),
    }


def keops(p, threads):
    """Gradients of the sums over x and z."""
    from pykeops.numpy import Genred  # noqa: PLC0415  a peer

    x, z = (noise.normals(seed, 0, N, p, stream="data") for seed in (0, 1))
    aliases = [f"x = Vi({p})", f"y = Vj({p})"]
    total = Genred("Exp(-SqDist(x, y) / IntCst(2)) * (y - x)", aliases, reduction_op="Sum", axis=1)
    found = total(x, z, backend="CPU") / N
    np.testing.assert_allclose(found, KERNEL.gradient_sums(x, z), atol=2e-6)
    return lambda: [total(x, other, backend="CPU") for other in (x, z)]


def seconds(functions, rounds=25):
    times = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    return {name: min(own) for name, own in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keops", action="store_true")
    given = parser.parse_args()
    print("| p | step | ms a step | of its sums | multiply-add, against that of the gradient |")
    print("|---|---|---|---|---|")
    for p in (2, 10):
        found = methods(p, given.threads)
        functions = {(name, part): own[part] for name, own in found.items() for part in (0, 1)}
        if given.keops:
            functions["KeOps"] = keops(p, given.threads)
        times = seconds(functions)
        unit = None
        for name, (_, _, kind, clouds) in found.items():
            step, sums = times[name, 0] / STEPS, times[name, 1]
            each = sums / (clouds * N**2 * (WORK[kind] * p + 16))
            unit = unit or each
            print(f"| {p} | {name} | {1e3 * step:.2f} | {step / sums:.2f} | {each / unit:.2f} |")
        if given.keops:
            print(f"| {p} | KeOps, of MMD | {1e3 * times['KeOps']:.2f} | {times['KeOps'] / times['MMD', 1]:.1f} | |")


if __name__ == "__main__":
    main()
