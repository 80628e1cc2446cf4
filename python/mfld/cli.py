"""The command line: ``mfld train``, ``mfld predict``, ``mfld info``, ``mfld config``."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from mfld import experiments, plots, schedules, validation
from mfld._core import __version__
from mfld.bias import BiasReport
from mfld.callbacks import Progress
from mfld.config import show_config
from mfld.errors import ConvergenceError, DivergenceError
from mfld.experiments import Dataset, Recipe, Scores, TrainedModel, sources
from mfld.experiments.encoding import MISSING, TASKS
from mfld.experiments.recipe import CHECKS, METHODS
from mfld.experiments.tables import KINDS, Format
from mfld.files import check_writable, replacing
from mfld.fitting import GRADIENTS
from mfld.losses import Loss, losses
from mfld.models import activations, readouts
from mfld.schedules import Schedule
from mfld.standard import Standard


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; what a user can mend is one line on standard error and exit status 2."""
    with Standard() as standard:
        status = _main(arguments)
    if standard.error is None:
        return status
    return status or 2


def _main(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    try:
        status: int = options.command(options)
    except (ValueError, ImportError, OSError, DivergenceError, ConvergenceError) as error:
        print(f"mfld: {_message(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        kept = getattr(options, "checkpoint", None)
        left = f"go on with --checkpoint {kept} --resume" if kept and kept.exists() else "nothing was written"
        print(f"mfld: interrupted; {left}", file=sys.stderr)
        return 130
    return status


def _message(error: Exception) -> str:
    """One line, with the option in place of the Python argument."""
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    name, *rest = text.split() or [type(error).__name__]
    return " ".join([_option(name) if name in CHECKS else name, *rest])


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {' '.join(message.split())}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="mfld", description="Mean-field Langevin dynamics.")
    parser.add_argument("--version", action="version", version=f"mfld {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    _add_train(commands)

    predict = commands.add_parser(
        "predict",
        help="use a trained model",
        description="Print how good a model is on a data set, or its predictions where that has no target.",
    )
    predict.add_argument("model", type=Path, metavar="MODEL", help="a file that mfld train wrote")
    predict.add_argument("data", metavar="DATA", help="a bundled data set, or a file with the columns of the first one")
    _add_format(predict)
    predict.add_argument(
        "--output", type=Path, metavar="FILE.csv", help="write row, held out or not, target, prediction"
    )
    _add_num_threads(predict)
    predict.add_argument("--json", action="store_true", help="print one JSON object")
    predict.set_defaults(command=_predict)

    info = commands.add_parser("info", help="show what a model is and how it was made")
    info.add_argument("model", type=Path, metavar="MODEL", help="a file that mfld train wrote")
    info.add_argument("--json", action="store_true", help="print one JSON object")
    info.set_defaults(command=_info)

    config = commands.add_parser("config", help="show how mfld was built and what it runs on")
    config.set_defaults(command=_config)
    return parser


def _add_train(commands: Any) -> None:
    names = ", ".join(experiments.bundled())
    train = commands.add_parser(
        "train",
        help="train a two-layer network on a data set",
        description="Train a two-layer network on a data set; write the model and a picture of the run.",
        epilog="A schedule is a factor that depends on the step k: geometric:FACTOR:STAGE_LENGTH for FACTOR**(k // "
        "STAGE_LENGTH), power:EXPONENT for 1/(1+k)**EXPONENT, log for log(2)/log(2+k), off:STEP for 1 and from that "
        "step on 0; A*B for the product of two. Example: --temperature-schedule geometric:0.5:250*off:1800",
    )
    _add_data(train.add_argument_group("data"), names)

    model = train.add_argument_group("model")
    _knob(model, "activation", str, "NAME", f"{', '.join(activations())} ({_by_method('activation')})")
    _knob(model, "readout", str, "NAME", ", ".join(readouts()))
    _knob(model, "readout_bound", _number, "B", f"of the bounded and parity readouts ({_by_method('readout_bound')})")
    _knob(model, "bias", None, "", "neurons have a bias")
    _knob(model, "output_scale", _number, "SCALE", "factor of every neuron")

    objective = train.add_argument_group("objective")
    _knob(
        objective, "loss", _loss, "NAME", f"{', '.join(losses())}; huber:DELTA, smoothed_hinge:GAMMA (by the targets)"
    )
    _knob(
        objective,
        "l2",
        _numbers,
        "L2[,L2...]",
        f"ridge; of several, the one with the lowest validation loss ({_by_method('l2')})",
    )
    _knob(objective, "temperature", _number, "T", "noise (2 * l2 * reference_scale**2)")
    _knob(
        objective,
        "reference_scale",
        _number,
        "S",
        f"standard deviation of the reference measure ({_by_method('reference_scale')})",
    )

    run = train.add_argument_group("algorithm")
    _knob(run, "method", str, "NAME", "mfld, mean-field Langevin dynamics; pda, dual averaging; psdca, dual ascent")
    _knob(run, "n_particles", int, "N", "neurons")
    steps = f"steps; of psdca epochs ({_by_method('n_steps')}, and at least 5 passes over the rows with mini-batches)"
    _knob(run, "n_steps", int, "N", steps)
    _knob(run, "inner_steps", int, "N", "Langevin steps in each step of pda (10)")
    _knob(run, "step_size", _number, "H", "a share of the largest stable one")
    _knob(run, "step_share", _number, "SHARE", "that share (0.5)")
    _knob(
        run,
        "gradient",
        str,
        "NAME",
        f"{', '.join(GRADIENTS)} (minibatch where there are more than two batches; pda: full)",
    )
    _knob(run, "batch_size", int, "B", "rows of a mini-batch (128; svrg and sarah: by the number of rows)")
    _knob(run, "refresh_every", int, "M", "steps between the full gradients of svrg and sarah")
    _knob(run, "step_size_schedule", _schedule, "SPEC", "see below", "--schedule")
    _knob(run, "temperature_schedule", _schedule, "SPEC", "see below; l2 follows, unless it has its own")
    _knob(run, "l2_schedule", _schedule, "SPEC", "see below")
    _knob(run, "dtype", str, "NAME", "float32 or float64")
    run.add_argument(
        "--seed",
        type=_checked("seed", int, lambda name, value: validation.seed(value)),
        default=0,
        help="of split, start and noise (0)",
    )
    _add_num_threads(run)

    search = train.add_argument_group("search for l2")
    _knob(search, "validation_particles", int, "N", "neurons of each run")
    _knob(search, "validation_samples", int, "N", "rows to score on, in all")
    _knob(search, "validation_rows", int, "N", "rows to train and score on, at most")

    output = train.add_argument_group("output")
    output.add_argument("--output", type=Path, metavar="FILE.npz", help="the model (NAME.npz, or FILE-model.npz)")
    output.add_argument("--picture", type=Path, metavar="FILE.png", help="the picture (beside the model, as .png)")
    output.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="keep the state of the final run here, twice a minute"
    )
    output.add_argument("--resume", action="store_true", help="go on from the checkpoint where there is one")
    output.add_argument(
        "--report",
        nargs="?",
        const=4,
        type=_checked("report", int, lambda name, value: validation.integer(name, value, 4)),
        metavar="R",
        help="what step size, number of neurons and seeds did to the loss on the held-out rows, by R more runs (4) and "
        "at most five times as many beside them",
    )
    output.add_argument("--quiet", action="store_true", help="no progress bar")
    output.add_argument("--json", action="store_true", help="print one JSON object")
    train.set_defaults(command=_train)


def _add_data(data: Any, names: str) -> None:
    kinds = "text with delimiters, Parquet, Arrow, JSON lines or .npz, compressed or not"
    data.add_argument("data", metavar="DATA", help=f"file or URL ({kinds}), - for standard input, or one of {names}")
    data.add_argument("--target", metavar="NAME", help="column to predict, by name or number from 1 (the last one)")
    data.add_argument("--task", choices=TASKS, help="by default classification of texts or few whole numbers")
    data.add_argument("--header", choices=("yes", "no"), help="whether the first line has names (found out)")
    data.add_argument(
        "--drop", action="append", default=[], metavar="NAME", help="leave this column out, or this number; repeatable"
    )
    data.add_argument(
        "--missing",
        choices=MISSING,
        default="refuse",
        help="missing values: refuse them, drop their rows, or impute the median with a feature that says so (refuse)",
    )
    data.add_argument(
        "--type",
        dest="types",
        action="append",
        default=[],
        type=_type,
        metavar="NAME=KIND",
        help=f"what a column holds: {', '.join(KINDS)} (found out); repeatable",
    )
    _add_format(data)
    _knob(data, "test_share", _number, "SHARE", "of the rows, held out")


def _add_format(group: Any) -> None:
    """Options for how a file is written."""
    group.add_argument("--delimiter", type=_delimiter, metavar="CHAR", help="between fields; or tab, blank (found out)")
    group.add_argument("--decimal", choices=(".", ","), help="decimal sign (found out)")
    group.add_argument("--encoding", metavar="NAME", help="such as cp1252 (UTF-8, or UTF-16 with its mark)")
    group.add_argument(
        "--missing-values",
        type=lambda text: tuple(part.strip() for part in text.split(",")),
        metavar="TEXT[,TEXT...]",
        help="texts that stand for no value, in place of NA, ?, -, null and their like; '' for the empty one only",
    )


def _delimiter(text: str) -> str:
    return {"tab": "\t", "\\t": "\t", "blank": " "}.get(text, text)


def _type(text: str) -> tuple[str, str]:
    name, _, kind = text.rpartition("=")
    if not name or kind not in KINDS:
        raise argparse.ArgumentTypeError(f"must be NAME=KIND with one of {', '.join(KINDS)}, got {text!r}")
    return name, kind


def _format(options: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ("delimiter", "decimal", "encoding", "missing_values")}


def _knob(group: Any, name: str, parse: Callable[[str], Any] | None, metavar: str, text: str, *aliases: str) -> None:
    """An option for a field of the recipe."""
    default = next(field.default for field in fields(Recipe) if field.name == name)
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    option = _option(name)
    text = text if default is None else f"{text} ({shown})"
    if parse is None:
        group.add_argument(option, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
        return
    convert = _checked(name, parse, CHECKS[name])
    group.add_argument(option, *aliases, dest=name, type=convert, default=argparse.SUPPRESS, metavar=metavar, help=text)


def _add_num_threads(group: Any) -> None:
    group.add_argument(
        "--num-threads",
        type=_checked("num_threads", int, lambda name, value: validation.integer(name, value, 1)),
        metavar="N",
        help="threads; they never change the result",
    )


def _by_method(name: str) -> str:
    """The defaults of the methods, in words."""
    shown = {k: ",".join(map(str, v)) if isinstance(v := each[name], tuple) else str(v) for k, each in METHODS.items()}
    others = "".join(f"; {k}: {text}" for k, text in shown.items() if text != shown["mfld"])
    return shown["mfld"] + others


def _checked(name: str, parse: Callable[[str], Any], check: Callable[[str, Any], Any]) -> Callable[[str], Any]:
    """From the text of an option to its value, with the checks and messages of the Python argument."""
    kinds = {int: "an integer", _number: "a number", _numbers: "numbers with commas between them"}

    def convert(text: str) -> Any:
        try:
            value = parse(text)
        except ValueError as error:
            message = f"must be {kinds[parse]}, got {text!r}" if parse in kinds else str(error)
            raise argparse.ArgumentTypeError(message.removeprefix(f"{name} ")) from None
        try:
            return check(name, value)
        except (TypeError, ValueError) as error:
            raise argparse.ArgumentTypeError(str(error).removeprefix(f"{name} ")) from None

    return convert


def _number(text: str) -> float:
    return float(text)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _loss(text: str) -> Loss:
    name, _, parameter = text.partition(":")
    loss = Loss(name)
    if not parameter:
        return loss
    if loss.parameter_name is None:
        raise ValueError(f"{name} has no parameter, got {text!r}")
    try:
        value = float(parameter)
    except ValueError:
        raise ValueError(f"must be {name}:{loss.parameter_name.upper()} with a number, got {text!r}") from None
    return Loss(name, **{loss.parameter_name: value})


_SCHEDULES: dict[str, tuple[str, tuple[type, ...], Callable[..., Schedule]]] = {
    "geometric": ("geometric:FACTOR:STAGE_LENGTH", (float, int), lambda f, n: schedules.Geometric(1.0, f, n)),
    "power": ("power:EXPONENT", (float,), lambda q: schedules.Power(1.0, q)),
    "log": ("log", (), lambda: schedules.Logarithmic(math.log(2))),
    "off": ("off:STEP", (int,), lambda step: schedules.SwitchOff(1.0, step)),
}


def _schedule(text: str) -> Schedule:
    """A schedule from the syntax that the help explains."""
    product: Schedule | None = None
    for factor in text.split("*"):
        name, *parts = factor.strip().split(":")
        if name not in _SCHEDULES:
            raise ValueError(f"must be made of {', '.join(_SCHEDULES)}; got {text!r}")
        form, kinds, make = _SCHEDULES[name]
        try:
            numbers = [kind(part) for kind, part in zip(kinds, parts, strict=True)]
        except ValueError:
            raise ValueError(f"must be {form} with numbers, got {text!r}") from None
        try:
            schedule = make(*numbers)
        except ValueError as error:
            raise ValueError(f"{error} (in {text!r})") from None
        product = schedule if product is None else product * schedule
    assert product is not None  # split gives one part at least
    return product


def _train(options: argparse.Namespace) -> int:
    recipe = Recipe(**{name: getattr(options, name) for name in CHECKS if name in options})
    is_bundled = options.data in experiments.bundled()
    output = options.output or Path(f"{options.data}.npz" if is_bundled else f"{sources.stem(options.data)}-model.npz")
    picture = options.picture or output.with_suffix(".png")
    for path in (output, picture):
        _check_output(path, [] if is_bundled else [options.data])
    if output.resolve() == picture.resolve():
        raise ValueError(f"model and picture cannot both be {output}")
    _check_checkpoint(options, (output, picture))
    try:
        plots.check_format(picture)
        no_picture = None
    except ImportError as error:
        no_picture = str(error)

    header = None if options.header is None else options.header == "yes"
    data = experiments.load(
        options.data,
        target=options.target,
        task=options.task,
        header=header,
        drop=options.drop,
        missing=options.missing,
        types=dict(options.types),
        **_format(options),
    )
    n, d = data.inputs.shape
    kind = "regression" if data.classes is None else f"{len(data.classes)} classes"
    report = _Report(options.json)
    report.add({"data": data.name, "rows": n, "features": d}, f"{data.name}: {n} rows, {d} features, {kind}")
    report.add({"reading": data.reading or None}, _read(data.reading) if data.reading else None)
    report.add({"target": data.encoding.target, "classes": None if data.classes is None else data.classes.tolist()})

    callbacks = [] if options.quiet else [Progress()]
    training = experiments.train(
        data, options.seed, recipe, callbacks, options.num_threads, options.checkpoint, options.resume
    )
    trained = training.trained
    chosen, made = trained.hyperparameters, trained.provenance
    tried = ", ".join(f"{each['l2']:g}: {each['loss']:.4f}" for each in made["validation"])
    report.add({"validation": made["validation"]}, f"validation loss by l2: {tried}" if tried else None)
    report.add(
        {"hyperparameters": chosen},
        f"{chosen['method']}, {len(trained.particles)} neurons, {trained.loss.name} loss, l2 {chosen['l2']:g}, "
        f"temperature {chosen['temperature']:g}, {_steps(chosen)}",
    )
    report.add(
        {"seconds": training.seconds},
        f"trained in {training.seconds:.1f} s on {n - len(trained.test_rows)} rows",
    )
    report.add_scores(trained.split_scores(data, options.num_threads))
    if training.certificate is not None:
        report.add({"certificate": made["certificate"]}, _certified(made["certificate"]))

    if options.report is not None:
        found = training.bias_report(data, options.report, options.seed)
        report.add({"report": _biases(found)}, f"held-out loss:\n{found}")

    trained.save(output)
    report.add({"model": str(output)}, f"model: {output}")
    try:
        report.add({"picture": None})
        if no_picture is None:
            plots.save(plots.training(training.result, trained, title=f"mfld train {data.name}"), picture)
            report.add({"picture": str(picture)}, f"picture: {picture}")
        else:
            print(f"no picture: {no_picture}", file=sys.stderr)
    finally:
        report.finish()
    return 0


def _read(reading: Mapping[str, Any]) -> str:
    """How a file was read, in one line."""
    delimiter = {"\t": "tab", " ": "blank", None: None}.get(reading.get("delimiter"), repr(reading.get("delimiter")))
    parts = [
        " in ".join(filter(None, (reading["format"], reading["compression"]))),
        reading.get("encoding"),
        None if "delimiter" not in reading else f"delimiter {delimiter}",
        None if reading.get("decimal") is None else f"decimal {reading['decimal']}",
        None if "delimiter" not in reading else f"{'names in the first line' if reading['header'] else 'no header'}",
        f"columns of {', '.join(f'{kind}s: {n}' for kind, n in reading['kinds'].items())}",
    ]
    missing = reading["missing"]
    if missing["values"]:
        where = ", ".join(f"{name}: {n}" for name, n in missing["values"].items())
        parts.append(f"missing values ({where}): {missing['policy']}, {missing['rows_left_out']} rows left out")
    parts += [f"left out {name!r}: {why}" for name, why in reading["left_out"].items()]
    return f"read as {'; '.join(part for part in parts if part)}"


def _steps(chosen: Mapping[str, Any]) -> str:
    if chosen["method"] == "psdca":
        return f"{chosen['n_steps']} epochs"
    inner = "" if chosen["inner_steps"] is None else f" of {chosen['inner_steps']}"
    return f"step size {chosen['step_size']:.4g}, {chosen['n_steps']} steps{inner}, {chosen['gradient']}"


def _certified(found: Mapping[str, Any]) -> str:
    if found["reason"] is not None:
        return f"no certificate: {found['reason']}"
    bound = f"at most {found['upper']:.3g} above the optimum at confidence {found['confidence']:g}"
    return f"certified gap {found['gap']:.3g}: the objective of the dual variables' Gibbs measure is {bound}"


def _biases(found: BiasReport) -> dict[str, Any]:
    """Numbers of a bias report: values with the half widths of their intervals."""
    parts = {name: getattr(found, name) for name in ("value", "step_bias", "particle_bias", "extrapolated")}
    numbers = {
        name: None if each is None else {"value": each.value, "half_width": each.half_width(found.confidence)}
        for name, each in parts.items()
    }
    regimes = {"step_regime": found.step_regime, "particle_regime": found.particle_regime}
    return {**numbers, **regimes, "confidence": found.confidence, "cost": found.cost, "notes": list(found.notes)}


def _predict(options: argparse.Namespace) -> int:
    trained = TrainedModel.load(options.model)
    if options.output is not None:
        _check_output(options.output, [options.model, options.data])
    inputs, targets, data = _rows_to_predict(options, trained)
    report = _Report(options.json)
    report.add({"model": str(options.model), "data": options.data, "rows": len(inputs)})
    predictions = trained.predict(inputs, options.num_threads)
    if data is not None:
        report.add_scores(trained.split_scores(data, options.num_threads))
    elif targets is not None:
        report.add_scores({"all": trained.scores(inputs, targets, num_threads=options.num_threads)})

    columns: dict[str, NDArray[Any]] = {"row": np.arange(len(inputs))}
    if data is not None:
        columns["held_out"] = np.isin(columns["row"], trained.test_rows).astype(int)
    if targets is not None:
        columns["target"] = targets
    columns["prediction"] = predictions
    if options.output is not None:
        with replacing(options.output) as file:
            file.write(_csv(columns).encode())
        report.add({"predictions": str(options.output)}, f"predictions: {options.output}")
    elif targets is None:
        report.add({"predictions": predictions.tolist()}, _csv(columns).rstrip("\n"))
    report.finish()
    return 0


def _check_output(path: Path, read: Sequence[str | Path]) -> None:
    """Refuse, before the work, an output that cannot be written or that the command reads."""
    check_writable(path)
    if any(path.resolve() == Path(source).resolve() for source in read):
        raise ValueError(f"{path} is what this command reads; it will not be overwritten")


def _check_checkpoint(options: argparse.Namespace, outputs: Sequence[Path]) -> None:
    """Refuse, before the work, a checkpoint that cannot be written or that would take the place of another file."""
    path = options.checkpoint
    if path is None:
        if options.resume:
            raise ValueError("--resume needs the --checkpoint to go on from")
        return
    check_writable(path)
    if any(path.resolve() == output.resolve() for output in (*outputs, Path(options.data))):
        raise ValueError(f"--checkpoint must be a file of its own, got {path}")
    if path.exists() and not options.resume:
        raise ValueError(f"{path} exists: --resume goes on from it, without it nothing is overwritten")


def _rows_to_predict(
    options: argparse.Namespace, trained: TrainedModel
) -> tuple[NDArray[np.float64], NDArray[Any] | None, Dataset | None]:
    """Inputs, targets where there are some, and the data set if it is the one that the model was trained on."""
    made_of = trained.provenance
    if options.data in experiments.bundled():
        data = experiments.load(options.data)
        if data.name != made_of["data"]:
            raise ValueError(f"{options.model} was trained on {made_of['data']!r}, not on {data.name!r}")
        return data.inputs, data.targets, data
    how = Format(**_format(options))
    inputs, targets = experiments.load_like(trained.encoding, options.data, trained.classes, how)
    if targets is not None:
        data = Dataset(options.data, inputs, targets, trained.classes, trained.encoding)
        if data.fingerprint == made_of["fingerprint"]:
            return inputs, targets, data
    return inputs, targets, None


def _info(options: argparse.Namespace) -> int:
    trained = TrainedModel.load(options.model)
    made, encoding = trained.provenance, trained.encoding
    columns = [
        feature.name if feature.categories is None else f"{feature.name} ({', '.join(feature.categories)})"
        for feature in encoding.features
    ]
    n_test = len(trained.test_rows)
    report = _Report(options.json)
    report.add({"model": str(options.model), "version": made["version"], "kernels": made["kernels"]})
    report.add({"data": made["data"], "rows": made["rows"], "held_out": n_test, "fingerprint": made["fingerprint"]})
    report.add({"encoding": encoding.as_json()})
    report.add({"classes": None if trained.classes is None else trained.classes.tolist()})
    report.add({"network": repr(trained.model), "n_particles": len(trained.particles), "loss": repr(trained.loss)})
    report.add({"hyperparameters": trained.hyperparameters})
    report.add({"validation": made["validation"], "scores": made["scores"]})
    report.add({"certificate": made.get("certificate")})
    if options.json:
        report.finish()
        return 0
    kind = "numbers" if trained.classes is None else f"classes {', '.join(map(str, trained.classes[:20]))}"
    lines = {
        "model": f"{options.model}, made by mfld {made['version']} ({made['kernels']})",
        "data": f"{made['data']}: {made['rows']} rows, {n_test} of them held out",
        "columns": ", ".join(columns),
        "target": f"{encoding.target}: {kind}",
        "network": f"{len(trained.particles)} neurons ({trained.particles.dtype}), {trained.model}",
        "loss": repr(trained.loss),
        **{
            name: f"{value:.6g}" if isinstance(value, float) else str(value)
            for name, value in trained.hyperparameters.items()
            if value is not None and name != "loss"
        },
        **({"certificate": _certified(made["certificate"])} if "certificate" in made else {}),
        "validation": ", ".join(f"l2 {each['l2']:g} loss {each['loss']:.4f}" for each in made["validation"]) or "none",
        "scores": "; ".join(
            f"{part} {', '.join(f'{name} {value:.6f}' for name, value in scores.items())}"
            for part, scores in made["scores"].items()
        ),
    }
    for name, text in lines.items():
        print(f"{name}: {text}")
    return 0


def _config(options: argparse.Namespace) -> int:
    show_config()
    print(f"methods of train: {', '.join(METHODS)}")
    return 0


class _Report:
    """Output of a command, at its end, when all files are written: lines or one JSON object."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._values: dict[str, Any] = {}
        self._lines: list[str] = []

    def add(self, values: Mapping[str, Any], line: str | None = None) -> None:
        self._values.update(values)
        if line is not None:
            self._lines.append(line)

    def add_scores(self, scores: Mapping[str, Scores]) -> None:
        self.add({"scores": {part: {"loss": each.loss, each.measure: each.score} for part, each in scores.items()}})
        for part, each in scores.items():
            self.add({}, f"{part:5}  loss {each.loss:.6f}  {each.measure} {each.score:.6f}")

    def finish(self) -> None:
        print(json.dumps(_finite(self._values)) if self._as_json else "\n".join(self._lines))


def _finite(value: Any) -> Any:
    """JSON has no NaN: null stands for it."""
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _csv(columns: Mapping[str, NDArray[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(values.tolist() for values in columns.values()), strict=True))
    return text.getvalue()


if __name__ == "__main__":
    sys.exit(main())
