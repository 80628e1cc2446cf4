"""How long other networks need for the accuracy that mfld reaches with its defaults.

    python bench/fits.py                  # the bundled data, ten splits each
    python bench/fits.py csv              # a file of 100 000 rows and 20 columns, as commands
    python bench/fits.py import           # what importing costs

mfld trains first, and its score on the held-out quarter, the mean over the splits, is the target of the others:
scikit-learn's `MLPClassifier` and `MLPRegressor`, and a loop in PyTorch with Adam (step 1e-3, batches of 200, a network
of 100 or of 1000 neurons, silu), both on standardised columns. They are stopped at the first epoch whose held-out
score, the mean over the splits, is as good, which no user could know: these times are the least that they could need.
One that does not get there in 400 epochs has its best score in place of a time. Times of fits are those of the
processor, on one thread, medians over the splits; those of commands are of the clock and of the processor, with
imports, reading and all threads.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

EPOCHS = 400
BATCH = 200


# ---- contestants: generators that yield a held-out score an epoch ----------------------------------------------------


def score(predicted: np.ndarray, targets: np.ndarray, classes: bool) -> float:
    """Accuracy of class numbers, or R squared."""
    if classes:
        return float(np.mean(predicted == targets))
    return float(1 - np.sum((predicted - targets) ** 2) / np.sum((targets - targets.mean()) ** 2))


def scikit_learn(train: tuple, test: tuple, classes: bool, seed: int) -> Iterator[float]:
    from sklearn.neural_network import MLPClassifier, MLPRegressor  # noqa: PLC0415

    X, y = train
    network = (MLPClassifier if classes else MLPRegressor)(random_state=seed)
    arguments = {"classes": np.unique(y)} if classes else {}
    for _ in range(EPOCHS):
        network.partial_fit(X, y, **arguments)
        yield score(network.predict(test[0]), test[1], classes)


def torch_loop(neurons: int) -> Callable[..., Iterator[float]]:
    def run(train: tuple, test: tuple, classes: bool, seed: int) -> Iterator[float]:
        import torch  # noqa: PLC0415

        torch.manual_seed(seed)
        X = torch.from_numpy(train[0].astype(np.float32))
        y = torch.from_numpy(train[1] if classes else train[1].astype(np.float32))
        X_test = torch.from_numpy(test[0].astype(np.float32))
        n_outputs = int(y.max()) + 1 if classes else 1
        network = torch.nn.Sequential(
            torch.nn.Linear(X.shape[1], neurons), torch.nn.SiLU(), torch.nn.Linear(neurons, n_outputs)
        )
        loss = torch.nn.CrossEntropyLoss() if classes else torch.nn.MSELoss()
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(X)).split(BATCH):
                optimizer.zero_grad()
                out = network(X[rows])
                loss(out if classes else out[:, 0], y[rows]).backward()
                optimizer.step()
            with torch.no_grad():
                out = network(X_test)
            yield score((out.argmax(1) if classes else out[:, 0]).numpy(), test[1], classes)

    return run


PEERS = {
    "scikit-learn": scikit_learn,
    "PyTorch, 100": torch_loop(100),
    "PyTorch, 1000": torch_loop(1000),
}
BY_ITSELF = "scikit-learn, stopped by itself"


def until(target: float, scores: Iterator[float]) -> float | None:
    """The best score, where none is as high as the target; else None."""
    best = -np.inf
    for reached in scores:
        if reached >= target - 1e-9:
            return None
        best = max(best, reached)
    return best


def standardised(X: np.ndarray, X_test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scale = X.std(axis=0)
    scale = np.where(scale > 0, scale, 1)
    return (X - X.mean(axis=0)) / scale, (X_test - X.mean(axis=0)) / scale


# ---- the bundled data ------------------------------------------------------------------------------------------------


def bundled(names: list[str], n_splits: int) -> None:
    from sklearn.model_selection import train_test_split  # noqa: PLC0415

    from mfld import experiments  # noqa: PLC0415
    from mfld.sklearn import MeanFieldClassifier, MeanFieldRegressor  # noqa: PLC0415

    print("| data | score | mfld | " + " | ".join(PEERS) + " |")
    print("| --- " * (3 + len(PEERS)) + "|")
    for name in names:
        data = experiments.load(name)
        classes = data.classes is not None
        targets = np.asarray(data.targets, np.int64) if classes else np.ravel(data.targets)
        reached, seconds = np.empty(n_splits), np.empty(n_splits)
        theirs = {peer: np.empty((2, n_splits, EPOCHS)) for peer in PEERS}  # seconds and scores
        for seed in range(n_splits):
            X, X_test, y, y_test = train_test_split(
                np.asarray(data.inputs),
                targets,
                test_size=0.25,
                random_state=seed,
                stratify=targets if classes else None,
            )
            estimator = (MeanFieldClassifier if classes else MeanFieldRegressor)(random_state=seed)
            begin = time.process_time()
            estimator.fit(X, y)
            seconds[seed] = time.process_time() - begin
            reached[seed] = score(estimator.predict(X_test), y_test, classes)
            X, X_test = standardised(X, X_test)
            if not classes:  # as a user of a network would
                y, y_test = standardised(y, y_test)
            for peer, run in PEERS.items():
                begin = time.process_time()
                for epoch, each in enumerate(run((X, y), (X_test, y_test), classes, seed)):
                    theirs[peer][:, seed, epoch] = time.process_time() - begin, each
        cells = [f"{np.median(seconds):.2f} s"]
        for their_seconds, scores in theirs.values():
            means = scores.mean(axis=0)
            there = np.flatnonzero(means >= reached.mean() - 1e-9)
            cells.append(
                f"{np.median(their_seconds[:, there[0]]):.2f} s" if len(there) else f"at most {means.max():.4f}"
            )
        print(f"| {name} | {reached.mean():.4f} | " + " | ".join(cells) + " |", flush=True)


# ---- a file, as commands ---------------------------------------------------------------------------------------------


def write_table(path: Path, n_rows: int = 100_000, n_columns: int = 20) -> None:
    """A label by the sign of three ridge functions of twenty normals, a tenth of the labels by chance."""
    generator = np.random.default_rng(0)
    X = generator.standard_normal((n_rows, n_columns))
    signal = sum(np.tanh(2 * X @ w) for w in generator.standard_normal((3, n_columns)) / np.sqrt(n_columns))
    label = np.where(generator.random(n_rows) < 0.1, generator.integers(0, 2, n_rows), signal > 0)
    header = ",".join([f"x{j}" for j in range(n_columns)] + ["label"])
    np.savetxt(
        path, np.column_stack([X, label]), fmt=["%.6f"] * n_columns + ["%d"], delimiter=",", header=header, comments=""
    )


def peer_command(peer: str, path: str, target: float) -> None:
    """What a script of a user would do: read, split, standardise, train until the target, or till the peer stops."""
    import pandas  # noqa: PLC0415

    table = pandas.read_csv(path).to_numpy()
    order = np.random.default_rng(0).permutation(len(table))
    test, train = np.split(table[order], [len(table) // 5])
    X, X_test = standardised(train[:, :-1], test[:, :-1])
    split = (X, train[:, -1].astype(np.int64)), (X_test, test[:, -1].astype(np.int64))
    if peer == BY_ITSELF:
        from sklearn.neural_network import MLPClassifier  # noqa: PLC0415

        best = MLPClassifier(random_state=0).fit(*split[0]).score(*split[1])
    else:
        best = until(target, PEERS[peer](*split, True, 0))
    print(json.dumps({"best": best}))


def timed(command: list[str]) -> tuple[dict[str, Any], float, float]:
    """What a command prints as JSON, its seconds by the clock and of the processor."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return json.loads(out), wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def csv() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        write_table(path)
        ours = [
            sys.executable,
            "-m",
            "mfld",
            "train",
            str(path),
            "--quiet",
            "--json",
            "--output",
            f"{folder}/model.npz",
        ]
        result, wall, cpu = timed(ours)
        target = result["scores"]["test"]["accuracy"]
        print("| command | accuracy | seconds | of the processor |")
        print("| --- | --- | --- | --- |")
        print(f"| mfld train | {target:.4f} | {wall:.1f} | {cpu:.1f} |", flush=True)
        for peer in [*PEERS, BY_ITSELF]:
            result, wall, cpu = timed([sys.executable, __file__, "--peer", peer, str(path), str(target)])
            reached = "as much" if result["best"] is None else f"{result['best']:.4f}"
            print(f"| {peer} | {reached} | {wall:.1f} | {cpu:.1f} |", flush=True)


def imports(repetitions: int = 7) -> None:
    print("| import | ms of the processor |")
    print("| --- | --- |")
    modules = ["numpy", "mfld", "mfld.sklearn", "sklearn.neural_network", "torch"]
    seconds = {module: [] for module in modules}
    for _ in range(repetitions):
        for module in modules:
            program = f"import time, {module}, json; print(json.dumps(time.process_time()))"
            seconds[module].append(timed([sys.executable, "-c", program])[0])
    for module, each in seconds.items():
        print(f"| {module} | {1e3 * np.median(each):.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", nargs="*", default=["digits", "breast_cancer", "wine", "iris", "diabetes"])
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--peer", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.peer:
        return peer_command(options.peer[0], options.peer[1], float(options.peer[2]))
    if options.what == ["csv"]:
        return csv()
    if options.what == ["import"]:
        return imports()
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        if os.environ.get(variable) != "1":  # read when the libraries load, some of which is behind us
            os.environ[variable] = "1"
            os.execv(sys.executable, [sys.executable, *sys.argv])
    return bundled(options.what, options.splits)


if __name__ == "__main__":
    main()
