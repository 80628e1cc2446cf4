"""The command line: ``mfld train``, ``mfld predict``, ``mfld config``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mfld import experiments, plots
from mfld._core import __version__
from mfld.callbacks import Progress
from mfld.config import show_config
from mfld.errors import DivergenceError
from mfld.experiments import Dataset, TrainedModel


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; what a user can mend is one line on standard error and exit status 2."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.command(options)
    except (ValueError, ImportError, OSError, DivergenceError) as error:
        print(f"mfld: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("mfld: interrupted; nothing was written", file=sys.stderr)
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mfld", description="Mean-field Langevin dynamics.")
    parser.add_argument("--version", action="version", version=f"mfld {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    names = ", ".join(experiments.bundled())

    train = commands.add_parser(
        "train",
        help="train a two-layer network on a data set",
        description="Train a two-layer network on a data set; write the model and a picture of the run.",
    )
    train.add_argument("name", metavar="NAME", help=f"a bundled data set: {names}")
    train.add_argument("--seed", type=_seed, default=0, help="of the split, the initial neurons and the noise (0)")
    train.add_argument("--num-threads", type=_count, metavar="N", help="threads; they never change the result")
    train.add_argument("--output", type=Path, metavar="FILE.npz", help="the model (NAME.npz)")
    train.add_argument("--picture", type=Path, metavar="FILE.png", help="the picture (beside the model, as .png)")
    train.add_argument("--quiet", action="store_true", help="no progress bar")
    train.set_defaults(command=_train)

    predict = commands.add_parser(
        "predict",
        help="use a trained model",
        description="Print how good a model is on the data set that it was trained on, and write its predictions.",
    )
    predict.add_argument("model", type=Path, metavar="MODEL", help="a file that mfld train wrote")
    predict.add_argument("data", metavar="DATA", help=f"a bundled data set: {names}")
    predict.add_argument(
        "--output", type=Path, metavar="FILE.csv", help="write row, held out or not, target, prediction"
    )
    predict.set_defaults(command=_predict)

    config = commands.add_parser("config", help="show how mfld was built and what it runs on")
    config.set_defaults(command=_config)
    return parser


def _train(options: argparse.Namespace) -> int:
    data = experiments.load(options.name)
    output = options.output or Path(f"{options.name}.npz")
    picture = options.picture or output.with_suffix(".png")
    for path in (output, picture):
        # Before the work, not after it.
        if not path.parent.is_dir():
            raise FileNotFoundError(f"{path} cannot be written: there is no folder {path.parent}")
    n, d = data.inputs.shape
    kind = "regression" if data.classes is None else f"{len(data.classes)} classes"
    print(f"{data.name}: {n} rows, {d} features, {kind}")

    callbacks = [] if options.quiet else [Progress()]
    training = experiments.train(data, options.seed, callbacks=callbacks, num_threads=options.num_threads)
    trained, chosen = training.trained, training.trained.hyperparameters
    if training.validation:
        tried = ", ".join(f"{l2:g}: {loss:.4f}" for l2, loss in training.validation.items())
        print(f"validation loss by l2: {tried}")
    print(
        f"{len(trained.particles)} neurons, {trained.loss.name} loss, l2 {chosen['l2']:g}, "
        f"temperature {chosen['temperature']:g}, step size {chosen['step_size']:.4g}, {chosen['gradient']}"
    )
    print(f"trained in {training.seconds:.1f} s on {n - len(trained.test_rows)} rows")
    _print_scores(trained, data)

    trained.save(output)
    print(f"model: {output}")
    try:
        figure = plots.training(training.result, trained, title=f"mfld train {data.name}")
    except ImportError as error:
        print(f"no picture: {error}", file=sys.stderr)
    else:
        plots.save(figure, picture)
        print(f"picture: {picture}")
    return 0


def _predict(options: argparse.Namespace) -> int:
    trained = TrainedModel.load(options.model)
    data = experiments.load(options.data)
    if data.name != trained.hyperparameters["data"]:
        made_of = trained.hyperparameters["data"]
        raise ValueError(f"{options.model} was trained on {made_of!r}, not on {data.name!r}")
    _print_scores(trained, data)
    if options.output is not None:
        held_out = np.isin(np.arange(len(data.inputs)), trained.test_rows)
        rows = zip(held_out, data.targets, trained.predict(data.inputs), strict=True)
        lines = [f"{i},{int(out)},{target},{prediction}\n" for i, (out, target, prediction) in enumerate(rows)]
        options.output.write_text("row,held_out,target,prediction\n" + "".join(lines))
        print(f"predictions: {options.output}")
    return 0


def _config(options: argparse.Namespace) -> int:
    show_config()
    return 0


def _print_scores(trained: TrainedModel, data: Dataset) -> None:
    measure = "R2" if trained.classes is None else "accuracy"
    for name, scores in trained.split_scores(data).items():
        print(f"{name:5}  loss {scores.loss:.6f}  {measure} {scores.score:.6f}")


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**64:
        raise argparse.ArgumentTypeError(f"must be between 0 and 2**64 - 1, got {text}")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())
