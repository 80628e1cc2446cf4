"""Peer for private synthetic rows: random features and a generator by gradient descent, in PyTorch.

The method of Harder, Adamczewski, Park 2021, "DP-MERF": one noisy mean embedding of random Fourier features of the
numbers and indicators of the categories, times indicators of the label, and a network from normal noise and a label to
rows, trained by Adam. Written from the paper; sizes, steps and the noise are its own: 2000 features, two hidden layers
of 300 and 100 numbers, batches of 500, learning rate 0.01.
"""

import math

import numpy as np
import torch


def embed(x, codes, sizes, waves):
    """Rows as features of length 1: half of the square for the numbers, half for the categories."""
    parts = []
    if x.shape[1]:
        phase = x @ waves
        parts.append(torch.cat([torch.cos(phase), torch.sin(phase)], 1) / math.sqrt(waves.shape[1]))
    if sizes:
        parts.append(codes / math.sqrt(len(sizes)))
    return torch.cat(parts, 1) / math.sqrt(len(parts))


def synthesize(numbers, codes, sizes, label, *, noise_multiplier, n_rows, n_features=2000, n_steps=2000, seed=0):
    """Numbers in [0, 1] and codes of `n_rows` rows like those given; replace-one neighbours."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    n, d = numbers.shape
    others = [t for t in range(len(sizes)) if t != label]
    own_sizes, n_labels = [sizes[t] for t in others], sizes[label]
    # The median distance of pairs of uniform rows, which looks at no row.
    pairs = rng.uniform(size=(2, 2000, d))
    length = float(np.median(np.linalg.norm(pairs[0] - pairs[1], axis=1))) if d else 1.0
    waves = torch.tensor(rng.normal(size=(d, n_features // 2)) / max(length, 1e-9), dtype=torch.float32)
    one_hot = [np.eye(size)[codes[:, t]] for t, size in zip(others, own_sizes, strict=True)]
    indicators = np.concatenate(one_hot, axis=1) if one_hot else np.zeros((n, 0))
    labels = np.eye(n_labels)[codes[:, label]]
    with torch.no_grad():
        phi = embed(torch.tensor(numbers).float(), torch.tensor(indicators).float(), own_sizes, waves).double().numpy()
    mean = phi.T @ labels / n
    # Embedding and shares of the labels: two releases of one budget, the paper's even split.
    scale = noise_multiplier * math.sqrt(2) * 2 / n
    mean += scale * rng.normal(size=mean.shape)
    shares = labels.mean(axis=0) + scale * rng.normal(size=n_labels)
    shares = np.maximum(shares, 1e-3) / np.maximum(shares, 1e-3).sum()
    target = torch.tensor(mean, dtype=torch.float32)

    latent = 10
    network = torch.nn.Sequential(
        torch.nn.Linear(latent + n_labels, 300),
        torch.nn.BatchNorm1d(300),
        torch.nn.ReLU(),
        torch.nn.Linear(300, 100),
        torch.nn.BatchNorm1d(100),
        torch.nn.ReLU(),
        torch.nn.Linear(100, d + sum(own_sizes)),
    )
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, max(1, n_steps // 20), 0.9)

    def rows(chosen):
        given = torch.nn.functional.one_hot(torch.tensor(chosen), n_labels).float()
        out = network(torch.cat([torch.randn(len(chosen), latent), given], 1))
        x, rest = torch.sigmoid(out[:, :d]), out[:, d:]
        probabilities = [torch.softmax(part, 1) for part in torch.split(rest, own_sizes, 1)] if own_sizes else []
        return x, probabilities, given

    for _ in range(n_steps):
        chosen = rng.choice(n_labels, p=shares, size=500)
        x, probabilities, given = rows(chosen)
        soft = torch.cat(probabilities, 1) if probabilities else torch.zeros(len(chosen), 0)
        found = embed(x, soft, own_sizes, waves).T @ given / len(chosen)
        loss = ((found - target) ** 2).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()

    network.eval()
    with torch.no_grad():
        chosen = rng.choice(n_labels, p=shares, size=n_rows)
        x, probabilities, _ = rows(chosen)
    made = np.zeros((n_rows, len(sizes)), np.int64)
    made[:, label] = chosen
    for t, table in zip(others, probabilities, strict=True):
        levels = np.cumsum(table.numpy(), axis=1)
        made[:, t] = np.minimum((levels < rng.uniform(size=(n_rows, 1))).sum(axis=1), levels.shape[1] - 1)
    return x.double().numpy(), made
