"""A deep residual network beside the same network in PyTorch: time of an epoch, and how time and memory grow.

    PYTHONPATH=python python bench/residual.py [--threads 2] [--rounds 5]

Both train with plain noisy gradient descent, in float32, on the same mini-batches; rounds take turns, so that whatever
else the machine does meets both. Reported is the median of each, and their ratio.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc

import numpy as np

import mfld


def problem(depth, width, n, d=64, outputs=10, **options):
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(n, d)).astype("float32"), rng.integers(outputs, size=n)
    network = mfld.ResidualNetwork(d, outputs, depth, activation="silu", **options)
    risk = mfld.ResidualRisk(network, inputs, targets, loss="cross_entropy", l2=1e-3)
    return risk, np.stack([network.initial_particles(width, k) for k in range(depth)])


def ours(risk, particles, batch, threads):
    solver = mfld.MFLD(
        particles.shape[1], step_size=0.01, temperature=1e-5, gradient=mfld.Minibatch(batch), num_threads=threads
    )
    state = solver.init(risk, particles=particles)

    def epoch():
        nonlocal state
        state, _ = solver.advance(risk, state, len(risk.inputs) // batch)

    return epoch


def peer(risk, particles, batch, threads):
    import torch  # noqa: PLC0415  a peer

    torch.set_num_threads(threads)
    depth, width, _ = particles.shape
    d, outputs = risk.model.n_states, risk.model.n_outputs
    w, b, r = (
        torch.tensor(part.copy(), requires_grad=True)
        for part in (particles[:, :, :d], particles[:, :, d], particles[:, :, d + 1 :])
    )
    x = torch.tensor(risk.model.embedded(risk.inputs))
    y = torch.tensor(risk.targets[:, 0].astype(np.int64))
    step, l2, temperature = 0.01, risk.l2, 1e-5
    noise = (2 * step * temperature) ** 0.5

    def epoch():
        for rows in torch.randperm(len(x))[: len(x) // batch * batch].split(batch):
            z = x[rows]
            for k in range(depth):
                hidden = torch.nn.functional.silu(torch.addmm(b[k], z, w[k].T))
                z = z + hidden @ r[k] / (depth * width)
            loss = torch.nn.functional.cross_entropy(z[:, d - outputs :], y[rows])
            gradients = torch.autograd.grad(loss, (w, b, r))
            with torch.no_grad():
                for part, gradient in zip((w, b, r), gradients, strict=True):
                    part.sub_(depth * width * gradient + 2 * l2 * part, alpha=step)
                    part.add_(torch.randn_like(part), alpha=noise)

    return epoch


def seconds(call, clock=time.perf_counter):
    start = clock()
    call()
    return clock() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print("depth width batch   ours [ms]  torch [ms]  ratio")
    for depth, width, batch in ((8, 64, 128), (8, 256, 128), (16, 64, 256)):
        risk, particles = problem(depth, width, 1024)
        epochs = [make(risk, particles, batch, options.threads) for make in (ours, peer)]
        for epoch in epochs:
            epoch()
        times = np.median([[seconds(epoch) for epoch in epochs] for _ in range(options.rounds)], axis=0)
        print(
            f"{depth:5d} {width:5d} {batch:5d} {1e3 * times[0]:11.1f} {1e3 * times[1]:11.1f} {times[1] / times[0]:6.2f}"
        )
    print("\ngradient over all rows, from depth 8, width 64, 512 rows: processor time and memory grow as powers of")
    base = {"depth": 8, "width": 64, "n": 512}
    for name, value in base.items():
        factors = (1, 2, 4, 8)
        prepared = [problem(**{**base, name: factor * value}) for factor in factors]
        for risk, particles in prepared:
            risk.loss_gradient(particles)
        calls = [lambda r=r, p=p: r.on_threads(1).loss_gradient(p) for r, p in prepared]
        rounds = [[seconds(call, time.process_time) for call in calls] for _ in range(options.rounds)]
        times, sizes = np.min(rounds, axis=0), [memory(call) for call in calls]
        powers = [np.polyfit(np.log(factors), np.log(each), 1)[0] for each in (times, sizes)]
        print(
            f"{name:6s} {powers[0]:.2f} (ms: {', '.join(f'{1e3 * t:.1f}' for t in times)}) and {powers[1]:.2f} "
            f"(MB: {', '.join(f'{size / 1e6:.2f}' for size in sizes)})"
        )
    risk, particles = problem(**base, checkpoint_every=3)
    print(f"with checkpoint_every=3 {memory(lambda: risk.loss_gradient(particles)) / 1e6:.2f} MB")


def memory(call):
    """Peak of the arrays of a call; the core's own are a few times those of one layer, whatever the depth and rows."""
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


if __name__ == "__main__":
    main()
