"""What diagnostics cost at 10 000 particles: seconds of one processor core.

OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python bench/diagnostics.py
"""

import time

import numpy as np

import mfld
from mfld import diagnostics

N_PARTICLES, N_ROWS = 10_000, 200


def calls(p: int) -> dict:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(N_PARTICLES, p)), rng.normal(size=(N_PARTICLES, p))
    well = mfld.potentials.Gaussian(np.zeros(p))
    network = mfld.TwoLayerNetwork(p, readout="fixed", bias=False)
    inputs = rng.normal(size=(N_ROWS, p))
    law = diagnostics.StepLaw(well, x, step_size=0.05, temperature=1.0)
    return {
        "entropy": lambda: diagnostics.entropy(x),
        "kl": lambda: diagnostics.kl(x, well, 1.0),
        "fisher_divergence": lambda: diagnostics.fisher_divergence(x, well, 1.0),
        "StepLaw.entropy": law.entropy,
        "wasserstein, one coordinate": lambda: diagnostics.wasserstein(x[:, :1], y[:, :1]),
        "sliced_wasserstein": lambda: diagnostics.sliced_wasserstein(x, y[1:]),
        "gaussian_wasserstein": lambda: diagnostics.gaussian_wasserstein(x, y),
        "mmd": lambda: diagnostics.mmd(x, y),
        "ksd": lambda: diagnostics.ksd(x, well, 1.0),
        "stein_identities": lambda: diagnostics.stein_identities(well, x, 1.0),
        "conjugate_kernel": lambda: diagnostics.conjugate_kernel(network, x, inputs),
        "tangent_kernel": lambda: diagnostics.tangent_kernel(network, x, inputs),
    }


def main() -> None:
    rows = {p: calls(p) for p in (2, 10, 20)}
    print(f"{'':30}" + "".join(f"{f'p = {p}':>10}" for p in rows))
    for name in rows[2]:
        seconds = []
        for each in rows.values():
            each[name]()
            start = time.process_time()
            each[name]()
            seconds.append(time.process_time() - start)
        print(f"{name:30}" + "".join(f"{spent:10.3f}" for spent in seconds))


if __name__ == "__main__":
    main()
