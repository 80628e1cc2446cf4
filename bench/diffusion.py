"""How near its floor is the score of data, does a sampler cost more than its scores, and does an epoch of training cost
less than PyTorch's?

Run as ``python bench/diffusion.py``; PyTorch is asked for where it is installed. Ratios of runs that take turns, which
is what is left of a time on a machine that others use too; times are those of the processor, of one thread.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import ceilings

import mfld
from mfld import diffusion
from mfld.mixtures import GaussianMixture


def seconds(*calls: Callable[[], object], n_rounds: int) -> list[float]:
    """Median processor times of calls of one thread that take turns."""
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(n_rounds):
        for own, call in zip(taken, calls, strict=True):
            begin = time.process_time()
            call()
            own.append(time.process_time() - begin)
    return [statistics.median(own) for own in taken]


def overhead(n_rounds: int) -> None:
    """Time of a sampler over that of its evaluations of the score."""
    rng = np.random.default_rng(0)
    model = mfld.TwoLayerNetwork(2 + 8, 2, activation="relu")
    network = diffusion.MeanFieldScore(model, rng.normal(size=(500, 13)).astype(np.float32), 2)
    scores = {
        "network of 500 neurons": network,
        "mixture of 8 modes": diffusion.ExactScore(GaussianMixture(None, rng.normal(size=(8, 2)), 0.1)),
        "2000 points": diffusion.EmpiricalScore(rng.normal(size=(2000, 2)).astype(np.float32)),
    }
    n, n_steps = 4000, 20
    for name, score in scores.items():
        grid = diffusion.times(score.forward, n_steps)
        points = rng.normal(size=(n, 2)).astype(np.float32)

        def evaluations(score: diffusion.Score = score, grid=grid, points=points) -> None:
            for t in grid[:-1]:
                score.noise(points, float(t))

        for sampler in ("ddim", "euler-maruyama", "dpm-solver++"):

            def samples(score: diffusion.Score = score, sampler: str = sampler, grid=grid) -> None:
                diffusion.sample(score, n, sampler=sampler, times=grid, dtype="float32", num_threads=1)

            both, alone = seconds(samples, evaluations, n_rounds=n_rounds)
            print(f"{name}, {sampler}: {100 * (both / alone - 1):.1f} % beyond {n_steps} scores of {n} points")


def training(n_rounds: int, n_neurons: int, n_steps: int = 200, batch: int = 128, p: int = 32) -> None:
    """An epoch of so many batches: the stream's samples and steps of the same network, here and in PyTorch."""
    data = np.random.default_rng(0).normal(size=(n_steps * batch, p)).astype(np.float32)
    denoising = diffusion.Denoising(data)
    stream = denoising.stream(denoising.network())
    solvers = {
        "plain steps": mfld.MFLD(
            n_neurons, step_size=0.01, temperature=0.0, gradient=mfld.Minibatch(batch), num_threads=1
        ),
        "preconditioned": mfld.MFLD(
            n_neurons,
            step_size=0.01,
            temperature=0.0,
            gradient=mfld.Minibatch(batch),
            dynamics=mfld.Preconditioned(),
            num_threads=1,
        ),
    }
    try:
        import torch  # noqa: PLC0415  a peer that need not be there
    except ImportError:
        print("no PyTorch: times of mfld alone")
        for name, solver in solvers.items():
            (own,) = seconds(lambda s=solver: s.run(stream, n_steps, record_every=n_steps), n_rounds=n_rounds)
            print(f"{name}: {own:.2f} s")
        return
    torch.set_num_threads(1)
    kinds = {"plain steps": torch.optim.SGD, "preconditioned": torch.optim.RMSprop}
    tensor = torch.from_numpy(data)

    def epoch(kind: type) -> None:
        torch.manual_seed(0)
        net = torch.nn.Sequential(
            torch.nn.Linear(p + 8, n_neurons), torch.nn.ReLU(), torch.nn.Linear(n_neurons, p, bias=False)
        )
        optimiser = kind(net.parameters(), lr=1e-3)
        ks = torch.arange(8)
        for k in range(n_steps):
            x0, xi = tensor[k * batch : (k + 1) * batch], torch.randn(batch, p)
            tau = torch.rand(batch, 1) * torch.pi / 2
            alpha, sigma = torch.cos(tau), torch.sin(tau)
            inputs = torch.cat([alpha * x0 + sigma * xi, torch.cos(2 * tau * ks)], dim=1)
            loss = ((net(inputs) - (sigma * x0 - alpha * xi)) ** 2).sum(dim=1).mean() / 2
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    for name, solver in solvers.items():
        own, theirs = seconds(
            lambda s=solver: s.run(stream, n_steps, record_every=n_steps),
            lambda k=kinds[name]: epoch(k),
            n_rounds=n_rounds,
        )
        print(f"{n_neurons} neurons, {name}: {own:.2f} s, PyTorch {theirs:.2f} s, {theirs / own:.2f} times as long")


def empirical(n_rounds: int, n: int = 4000) -> None:
    """Time of the score of the data, against the floor of its pairs: distances, an exponential, a mean."""
    level = mfld.show_config(mode="dicts")["level"]
    rng = np.random.default_rng(0)
    for dtype in ("float32", "float64"):
        for p, n_data in ((2, 2000), (32, 2000), (64, 20_000)):
            score = diffusion.EmpiricalScore(rng.normal(size=(n_data, p)).astype(dtype)).on_threads(1)
            points = rng.normal(size=(n, p)).astype(dtype)
            rates = ceilings.measure(level, [1])
            (taken,) = seconds(lambda s=score, x=points: s.data(x, 0.3), n_rounds=n_rounds)
            table = ceilings.table(ceilings.best(rates, ceilings.measure(level, [1])))
            # p differences, p multiply-adds of squares and p + 1 of the mean
            of_pair = (3 * p + 1) / table["multiply_add", dtype, 1] + 1 / table["exp", dtype, 1]
            floor = n * n_data * of_pair * 1e-9
            print(
                f"{n_data} points in {p} coordinates, {dtype}: {1e3 * taken:.1f} ms, {floor / taken:.0%} of the floor"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-rounds", type=int, default=7)
    options = parser.parse_args()
    empirical(options.n_rounds)
    overhead(options.n_rounds)
    for n_neurons in (100, 500, 2000):
        training(options.n_rounds, n_neurons)
