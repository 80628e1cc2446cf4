"""Private rows and private training against peers.

    python bench/privacy.py clipped                 # steps with clipped gradients against those of mini-batches
    python bench/privacy.py rows                    # synthetic rows against a generator with torch
    python bench/privacy.py training [--output t.md]  # accuracy against epsilon, beside Opacus (needs opacus)

``rows``: an adult-like table that is made here, 20 000 rows of six numbers and six categories, and two tables of
scikit-learn. Each method sees the same rows and spends epsilon 1 at delta 1e-5, replace-one neighbours; ROC-AUC on real
held-out rows is the mean over logistic regression, a random forest and boosted trees that learned from synthetic rows.

``training``: `MeanFieldClassifier(epsilon=...)` with public bounds, and logistic regression and a network of 64 hidden
units that Opacus trains, on the same scaled rows, with the same number of steps; all spend the same, each by its own
account. Means over splits and seeds.
"""

import argparse
import math
import statistics
import time
import warnings
from pathlib import Path

import numpy as np

import mfld
from mfld import privacy, synthesis

DELTA = 1e-5


# ---- steps


def clipped():
    print("particles  rows  features | minibatch us  clipped us  ratio")
    for n_particles, batch, d in ((256, 64, 30), (256, 256, 64), (1000, 256, 64), (1000, 1024, 64)):
        n = 8 * batch
        rng = np.random.default_rng(0)
        inputs = rng.normal(size=(n, d))
        risk = mfld.EmpiricalRisk(mfld.TwoLayerNetwork(d), inputs, np.sign(inputs[:, 0]), loss="logistic", l2=1e-3)
        kinds = {"minibatch": mfld.Minibatch(batch), "clipped": mfld.Clipped(1.0, 1.0, batch / n)}
        solvers = {
            name: mfld.MFLD(n_particles, step_size=0.1, temperature=1e-4, gradient=gradient, num_threads=1)
            for name, gradient in kinds.items()
        }
        times = {name: [] for name in solvers}
        for _ in range(7):
            for name, solver in solvers.items():
                start = time.process_time()
                solver.run(risk, 40, seed=1, record_every=40)
                times[name].append((time.process_time() - start) / 40)
        own = {name: 1e6 * statistics.median(each) for name, each in times.items()}
        ratio = statistics.median(a / b for a, b in zip(times["clipped"], times["minibatch"], strict=True))
        print(
            f"{n_particles:9} {batch:5} {d:9} | {own['minibatch']:12.0f} {own['clipped']:11.0f} {ratio:6.1f}",
            flush=True,
        )


# ---- rows


def adult_like(n, rng):
    """Six numbers and six categories that hang together, and an income of two classes, one row in four."""
    age = np.clip(rng.gamma(6, 6.5, n) + 14, 17, 90)
    education = np.clip(rng.normal(10 + 0.02 * (age - 38), 2.6, n).round(), 1, 16)
    sex = rng.integers(0, 2, n)
    married = (rng.random(n) < 1 / (1 + np.exp(-(age - 32) / 7))).astype(int) * rng.choice([1, 2], n, p=[0.8, 0.2])
    hours = np.clip(rng.normal(38 + 4 * sex + 0.4 * (education - 10), 11, n), 1, 99)
    job = np.clip((education / 3 + rng.normal(0, 1.2, n)).astype(int), 0, 5)
    sector = rng.choice(4, n, p=[0.7, 0.15, 0.1, 0.05])
    origin = rng.choice(5, n, p=[0.6, 0.2, 0.1, 0.06, 0.04])
    score = 0.045 * (age - 40) - 0.0012 * (age - 45) ** 2 + 0.33 * (education - 10) + 0.03 * (hours - 40)
    score += 1.1 * (married == 1) + 0.5 * sex + 0.25 * job - 0.2 * (origin == 1) - 2.6
    rich = (rng.random(n) < 1 / (1 + np.exp(-score))).astype(int)
    gain = np.where(rng.random(n) < 0.04 + 0.12 * rich, rng.lognormal(8.5, 0.8, n), 0)
    region = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    numbers = np.stack([age, education, hours, np.log1p(gain), rng.normal(12, 0.6, n), rng.gamma(2, 20, n)], axis=1)
    low, high = np.array([17, 1, 1, 0, 9, 0]), np.array([90, 16, 99, 12, 15, 200])
    codes = np.stack([sex, married, job, sector, origin, region, rich], axis=1)
    return np.clip((numbers - low) / (high - low), 0, 1), codes, [2, 3, 6, 4, 5, 3, 2]


def table(name, draw):
    """Rows to learn from, rows to test on, sizes of categories: the label is the last; each draw has its own split."""
    from sklearn.datasets import load_breast_cancer, load_digits  # noqa: PLC0415

    rng = np.random.default_rng(draw)
    if name == "adult-like":
        x, codes, sizes = adult_like(30000, rng)
        return (x[:20000], codes[:20000]), (x[20000:], codes[20000:]), sizes
    load, columns = {"breast_cancer": (load_breast_cancer, 10), "digits": (load_digits, 64)}[name]
    inputs, labels = load(return_X_y=True)
    inputs = inputs[:, :columns]
    # Bounds as somebody who knows the instrument would give them: here those of the table, for all methods alike.
    span = np.maximum(np.ptp(inputs, axis=0), 1)
    inputs, labels = (inputs - inputs.min(axis=0)) / span, labels[:, np.newaxis].astype(np.int64)
    chosen = rng.permutation(len(inputs))
    train, test = chosen[len(inputs) // 5 :], chosen[: len(inputs) // 5]
    return (inputs[train], labels[train]), (inputs[test], labels[test]), [int(labels.max()) + 1]


def area(train, test, sizes):
    """Mean ROC-AUC on test rows of three classifiers that learned from others."""
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415

    def inputs(x, codes):
        return np.concatenate([x, *(np.eye(size)[codes[:, t]] for t, size in enumerate(sizes[:-1]))], axis=1)

    (x, y), (tested, truth) = ((inputs(*rows), rows[1][:, -1]) for rows in (train, test))
    if len(np.unique(y)) == 1:
        return 0.5  # of scores that are all the same
    found = []
    for model in (
        LogisticRegression(max_iter=300),
        RandomForestClassifier(60, random_state=0, min_samples_leaf=3),
        HistGradientBoostingClassifier(max_iter=60, random_state=0),
    ):
        scores = np.full((len(tested), sizes[-1]), 1e-6)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(x, y)
        scores[:, model.classes_] += model.predict_proba(tested)
        scores /= scores.sum(axis=1, keepdims=True)
        found.append(
            roc_auc_score(truth, scores[:, 1]) if sizes[-1] == 2 else roc_auc_score(truth, scores, multi_class="ovr")
        )
    return float(np.mean(found))


def rows(draws, names, peers):
    if peers:
        from peers import merf_peer  # noqa: PLC0415  needs torch

    print("table | real rows | ours: ROC-AUC, s | peer: ROC-AUC, s", flush=True)
    multiplier = privacy.noise_multiplier(1.0, DELTA)
    for name in names:
        real, ours, peer, seconds = [], [], [], ([], [])
        for draw in draws:
            train, test, sizes = table(name, draw)
            label, n = len(sizes) - 1, len(train[0])
            real.append(area(train, test, sizes))
            start = time.process_time()
            made = synthesis.fit(*train, sizes, label, epsilon=1.0, delta=DELTA, num_threads=1).sample(n, draw)
            seconds[0].append(time.process_time() - start)
            ours.append(area(made, test, sizes))
            if not peers:
                continue
            start = time.process_time()
            made = merf_peer.synthesize(*train, sizes, label, noise_multiplier=multiplier, n_rows=n, seed=draw)
            seconds[1].append(time.process_time() - start)
            peer.append(area(made, test, sizes))
        shown = [
            f"{np.mean(areas):.3f} +- {np.std(areas):.3f}, {np.median(own):.1f}" if areas else "-"
            for areas, own in zip((ours, peer), seconds, strict=True)
        ]
        print(f"{name} | {np.mean(real):.3f} | {' | '.join(shown)}", flush=True)


# ---- training

EPSILONS = (0.5, 1, 2, 4, 8)
STEPS = 300


def opacus_accuracy(train, test, n_classes, epsilon, rate, n_steps, hidden, seed):
    """Accuracy of a network that Opacus trains, clipped to 1, for the best of three learning rates on test rows.

    Choosing by test rows costs privacy that is not counted: it favours the peer.
    """
    import torch  # noqa: PLC0415
    from opacus import GradSampleModule  # noqa: PLC0415
    from opacus.accountants.utils import get_noise_multiplier  # noqa: PLC0415
    from opacus.optimizers import DPOptimizer  # noqa: PLC0415

    torch.set_num_threads(1)
    (x, y), (tested, truth) = train, test
    n, d = x.shape
    noise = get_noise_multiplier(
        target_epsilon=epsilon, target_delta=DELTA, sample_rate=rate, steps=n_steps, accountant="rdp"
    )
    inputs, labels = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
    best = 0.0
    for step in (0.1, 0.5, 2.0):
        torch.manual_seed(seed)
        layers = [torch.nn.Linear(d, n_classes)]
        if hidden:
            layers = [torch.nn.Linear(d, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, n_classes)]
        network = GradSampleModule(torch.nn.Sequential(*layers))
        optimiser = DPOptimizer(
            torch.optim.SGD(network.parameters(), lr=step),
            noise_multiplier=noise,
            max_grad_norm=1.0,
            expected_batch_size=max(1, round(rate * n)),
        )
        for _ in range(n_steps):
            chosen = torch.rand(n) < rate
            if not chosen.any():
                continue
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(network(inputs[chosen]), labels[chosen]).backward()
            optimiser.step()
        with torch.no_grad():
            guessed = network(torch.tensor(tested, dtype=torch.float32)).argmax(1).numpy()
        best = max(best, float(np.mean(guessed == truth)))
    return best


def training(draws, names, epsilons, output, peers):
    from sklearn.datasets import load_breast_cancer, load_digits  # noqa: PLC0415
    from sklearn.model_selection import train_test_split  # noqa: PLC0415

    from mfld.sklearn import MeanFieldClassifier  # noqa: PLC0415

    lines = ["| data | epsilon | mfld | Opacus, logistic regression | Opacus, network |", "|---|---|---|---|---|"]
    for name in names:
        inputs, labels = {"digits": load_digits, "breast_cancer": load_breast_cancer}[name](return_X_y=True)
        # For all methods alike: pixels are from 0 to 16, and bounds of the other table are taken as known.
        low, high = (0.0, 16.0) if name == "digits" else (inputs.min(axis=0), inputs.max(axis=0))
        low, high = (np.broadcast_to(end, inputs.shape[1]) for end in (low, high))
        scaled = (inputs - (low + high) / 2) / ((high - low) / math.sqrt(12))
        for epsilon in epsilons:
            found = [[], [], []]
            for draw in draws:
                x, tested, y, truth = train_test_split(
                    scaled, labels, test_size=0.2, random_state=draw, stratify=labels
                )
                bounds = [(-math.sqrt(3), math.sqrt(3))] * x.shape[1]
                ours = MeanFieldClassifier(
                    n_particles=64,
                    epsilon=epsilon,
                    delta=DELTA,
                    bounds=bounds,
                    n_steps=STEPS,
                    n_jobs=1,
                    random_state=draw,
                ).fit(x, y)
                assert ours.privacy_spent_ <= epsilon
                found[0].append(ours.score(tested, truth))
                rate = min(1.0, 256 / len(x))
                for kind, hidden in enumerate((0, 64) if peers else ()):
                    sides = (x, y), (tested, truth)
                    found[kind + 1].append(
                        opacus_accuracy(*sides, int(labels.max()) + 1, epsilon, rate, STEPS, hidden, draw)
                    )
            shown = [f"{100 * np.mean(each):.1f} +- {100 * np.std(each):.1f}" if each else "-" for each in found]
            lines.append(f"| {name} | {epsilon:g} | {' | '.join(shown)} |")
            print(lines[-1], flush=True)
    if output:
        output.write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("clipped", "rows", "training"))
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--first-draw", type=int, default=0, help="number of the first split: others are fresh (0)")
    parser.add_argument("--tables", nargs="+", help="adult-like (of rows), breast_cancer, digits (all)")
    parser.add_argument("--epsilons", nargs="+", type=float, default=EPSILONS, help="of training (0.5 1 2 4 8)")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args()
    draws = range(options.first_draw, options.first_draw + options.draws)
    if options.what == "clipped":
        clipped()
    elif options.what == "rows":
        rows(draws, options.tables or ("adult-like", "breast_cancer", "digits"), not options.no_peers)
    else:
        names = options.tables or ("digits", "breast_cancer")
        training(draws, names, options.epsilons, options.output, not options.no_peers)


if __name__ == "__main__":
    main()
