"""``mfld train``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mfld import experiments, mpi, plots, validation
from mfld.algorithms import Algorithm
from mfld.callbacks import Progress
from mfld.cli import page
from mfld.cli.options import (
    add_data,
    add_num_threads,
    by_method,
    checked,
    column_bounds,
    format_options,
    knob,
    number,
    numbers,
    step_size,
)
from mfld.cli.report import Report, biases, certified, check_output, reading
from mfld.errors import ConvergenceError, DivergenceError
from mfld.experiments import Recipe, curves, sources
from mfld.experiments.recipe import CHECKS, Training
from mfld.experiments.spelling import covariance, loss, schedule
from mfld.files import check_writable
from mfld.fitting import GRADIENTS
from mfld.losses import losses
from mfld.models import activations, readouts
from mfld.outer_weights import READOUT
from mfld.validation import FloatArray

_FEWEST_NEURONS = 16  # of a layer
_PRIVATE = (
    "for tables that differ in one row; taken as public: the number of rows, names, kinds and categories of columns, "
    "classes; NOT PRIVATE: scores of held-out rows, and their curve in the picture"
)


def _add_readout(model: Any) -> None:
    knob(model, "readout", str, "NAME", f"{', '.join(readouts())}; or bilevel, linear with the best outer weights")
    knob(model, "strength", number, "S", "ridge of these outer weights (0.001 for classes, else 0.1)")
    knob(model, "readout_bound", number, "B", f"of the bounded and parity readouts ({by_method('readout_bound')})")


def add(commands: Any) -> None:
    names = ", ".join(experiments.bundled())
    train = commands.add_parser(
        "train",
        examples=(
            "mfld train digits",
            "mfld train people.csv --target income --report people.html",
            "mfld train people.csv --temperature-schedule geometric:0.5:250*off:1800",
        ),
        help="train a two-layer network on a data set",
        description="Train a two-layer network on a data set; write the model and a picture of the run.",
        epilog="A schedule is a factor that depends on the step k: geometric:FACTOR:STAGE_LENGTH for FACTOR**(k // "
        "STAGE_LENGTH), power:EXPONENT for 1/(1+k)**EXPONENT, log for log(2)/log(2+k), off:STEP for 1 and from that "
        "step on 0; A*B for the product of two.",
    )
    add_data(train.add_argument_group("data"), names)

    model = train.add_argument_group("model")
    knob(model, "activation", str, "NAME", f"{', '.join(activations())} ({by_method('activation')})")
    _add_readout(model)
    knob(model, "bias", None, "", "neurons have a bias")
    knob(model, "output_scale", number, "SCALE", "factor of every neuron")

    model.add_argument(
        "--functional",
        nargs="?",
        const=curves.DEFAULT,
        type=checked("functional", covariance, CHECKS["functional"]),
        default=argparse.SUPPRESS,
        metavar="COVARIANCE",
        help="columns are the points of a curve, at the numbers that are their names, else from 0 to 1: a network on "
        "functions, whose weights have the covariance components[:EXPONENT] (principal components; the default, "
        "exponent 2), power:EXPONENT (Fourier), rbf:LENGTH or matern:LENGTH",
    )
    knob(model, "depth", int, "L", "a residual network of so many layers (a two-layer network)")
    knob(model, "n_modes", int, "K", "modes of this covariance, at most")

    objective = train.add_argument_group("objective")
    knob(objective, "loss", loss, "NAME", f"{', '.join(losses())}; huber:DELTA, smoothed_hinge:GAMMA (by the targets)")
    knob(
        objective,
        "l2",
        numbers,
        "L2[,L2...]",
        f"ridge; of several, the one with the lowest validation loss ({by_method('l2')})",
    )
    knob(objective, "temperature", number, "T", "noise (2 * l2 * reference_scale**2)")
    knob(
        objective,
        "reference_scale",
        number,
        "S",
        f"standard deviation of the reference measure ({by_method('reference_scale')})",
    )

    run = train.add_argument_group("algorithm")
    knob(run, "method", str, "NAME", "mfld, mean-field Langevin dynamics; pda, dual averaging; psdca, dual ascent")
    knob(run, "n_particles", int, "N", "neurons; of each layer with --depth, by default then 500 / depth")
    steps = f"steps; of psdca epochs ({by_method('n_steps')}, and at least 10 passes over the rows with mini-batches)"
    knob(run, "n_steps", int, "N", steps)
    knob(run, "inner_steps", int, "N", "Langevin steps in each step of pda (10)")
    knob(run, "step_size", step_size, "H", "a number, or fuse, which finds one (a share of the largest stable one)")
    knob(run, "step_share", number, "SHARE", "that share (0.5)")
    knob(
        run,
        "gradient",
        str,
        "NAME",
        f"{', '.join(GRADIENTS)} (minibatch where there are more than two batches; pda: full)",
    )
    knob(run, "batch_size", int, "B", "rows of a mini-batch (128; svrg and sarah: by the number of rows)")
    knob(run, "refresh_every", int, "M", "steps between the full gradients of svrg and sarah")
    knob(run, "step_size_schedule", schedule, "SPEC", "see below", "--schedule")
    follows = "see below; l2 follows, unless it has its own (psdca: l2 stays, and the first epochs are warm)"
    knob(run, "temperature_schedule", schedule, "SPEC", follows)
    knob(run, "l2_schedule", schedule, "SPEC", "see below")
    knob(
        run, "certify", None, "", "certify how far from the optimum the answer is, at the warmest temperature that fits"
    )
    knob(run, "dtype", str, "NAME", "float32, float64, or bfloat16: see MFLD")
    run.add_argument(
        "--seed",
        type=checked("seed", int, lambda name, value: validation.seed(value)),
        default=0,
        help="of split, start and noise (0)",
    )
    add_num_threads(run)

    _add_privacy(train.add_argument_group("privacy"))

    search = train.add_argument_group("search for l2")
    knob(search, "validation_particles", int, "N", "neurons of each run")
    knob(search, "validation_samples", int, "N", "rows to score on, in all")
    knob(search, "validation_rows", int, "N", "rows to train and score on, at most")

    run.add_argument(
        "--mpi", action="store_true", help="the processes that mpirun has started make the final run together"
    )

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
        default=[],
        action="append",
        type=_report,
        metavar="R|FILE.html",
        help="what step size, number of neurons and seeds did to the loss on the held-out rows, by R more runs (4) and "
        "at most five times as many beside them; or a web page of the run, with its pictures; repeatable, for both",
    )
    output.add_argument("--quiet", action="store_true", help="no progress bar")
    output.add_argument("--json", action="store_true", help="print one JSON object")
    train.set_defaults(command=_run)


def _add_privacy(private: Any) -> None:
    knob(private, "epsilon", number, "EPSILON", "train under differential privacy: what the model may cost, such as 1")
    knob(private, "delta", number, "DELTA", "probability that more is lost")
    private.add_argument(
        "--bounds",
        action="append",
        dest="column_bounds",
        default=[],
        type=column_bounds,
        metavar="NAME=LOW:HIGH",
        help="public bounds of a column of numbers (else estimated, for a tenth of the budget); repeatable",
    )


def _run(options: argparse.Namespace) -> int:
    if not options.mpi:
        return _train(options)
    world = mpi.world()
    options.leads = world.Get_rank() == 0
    try:
        return _train(options, mpi.Sharded)
    except (ValueError, DivergenceError, ConvergenceError):
        raise  # on all processes alike
    except BaseException as error:
        print(f"mfld: process {world.Get_rank()} ended by {error!r}, and all others with it", file=sys.stderr)
        world.Abort(2)
        raise


def _train(options: argparse.Namespace, shared: Callable[[Algorithm], Algorithm] = lambda algorithm: algorithm) -> int:
    recipe = _recipe(options)
    output, picture, pages = _outputs(options)
    try:
        plots.check_format(picture)
        no_picture = None
    except ImportError as error:
        if pages:
            raise
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
        **format_options(options),
    )
    report = Report(options.json)
    _add_data(report, data, recipe)

    if options.mpi:
        mpi.world().Barrier()  # all have looked at the files before one of them writes

    callbacks = [Progress()] if sys.stderr.isatty() and not options.quiet else []
    training = experiments.train(
        data, options.seed, recipe, callbacks, options.num_threads, options.checkpoint, options.resume, shared
    )
    if not getattr(options, "leads", True):
        return 0
    trained = training.trained
    chosen, made = trained.hyperparameters, trained.provenance
    tried = ", ".join(f"{each['l2']:g}: {each['loss']:.4f}" for each in made["validation"])
    report.add({"validation": made["validation"]}, f"validation loss by l2: {tried}" if tried else None)
    report.add(
        {"hyperparameters": chosen},
        f"{chosen['method']}, {_neurons(trained.particles)} neurons, {trained.loss.name} loss, l2 {chosen['l2']:g}, "
        f"temperature {chosen['temperature']:g}, {_steps(chosen)}",
    )
    report.add(
        {"seconds": training.seconds},
        f"trained in {training.seconds:.1f} s on {len(data.inputs) - len(trained.test_rows)} rows",
    )
    unjudged = made["classes_not_held_out"]
    report.add(
        {"classes_not_held_out": unjudged},
        f"too rare to be judged by held-out rows: {', '.join(map(repr, unjudged))}" if unjudged else None,
    )
    spent = made.get("privacy")
    if spent is not None:
        report.add({"privacy": spent}, f"epsilon {spent['epsilon']:.4g} at delta {spent['delta']:g}, {_PRIVATE}")
    report.add_scores(training.scores)
    if training.certificate is not None:
        report.add({"certificate": made["certificate"]}, certified(made["certificate"]))

    trained.save(output)
    report.add({"model": str(output)}, f"model: {output}")
    try:
        report.add({"picture": None})
        if no_picture is None:
            plots.save(plots.training(training.result, trained, title=plots.plain(f"mfld train {data.name}")), picture)
            report.add({"picture": str(picture)}, f"picture: {picture}")
        else:
            print(f"no picture: {no_picture}", file=sys.stderr)
        _report_on(report, data, training, options)
    finally:
        report.finish()
    return 0


def _report(text: str) -> int | Path:
    """A number of runs, or the path of a page."""
    if Path(text).suffix.lower() in (".html", ".htm"):
        return Path(text)
    check = checked("report", int, lambda name, value: validation.integer(name, value, 4))
    try:
        return int(check(text))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or a file whose name ends in .html") from None


def _report_on(report: Report, data: experiments.Dataset, training: Training, options: argparse.Namespace) -> None:
    """Answers to --report: the bias report, and pages, which have it too."""
    found = None
    for n_replicates in [each for each in options.report if not isinstance(each, Path)][-1:]:
        found = training.bias_report(data, n_replicates, options.seed)
        report.add({"report": biases(found)}, f"held-out loss:\n{found}")
    for path in (each for each in options.report if isinstance(each, Path)):
        page.write(path, data, training, found)
        report.add({"page": str(path)}, f"page: {path}")


def _outputs(options: argparse.Namespace) -> tuple[Path, Path, list[Path]]:
    """Files of the model, the picture and the pages of the report, once they can be written."""
    is_bundled = options.data in experiments.bundled()
    output = options.output or Path(f"{options.data}.npz" if is_bundled else f"{sources.stem(options.data)}-model.npz")
    picture = options.picture or output.with_suffix(".png")
    pages = [each for each in options.report if isinstance(each, Path)]
    outputs = (output, picture, *pages)
    for path in outputs:
        check_output(path, [] if is_bundled else [options.data])
    if output.resolve() == picture.resolve():
        raise ValueError(f"model and picture cannot both be {output}")
    _check_checkpoint(options, outputs)
    return output, picture, pages


def _recipe(options: argparse.Namespace) -> Recipe:
    if "epsilon" in options and options.report:
        raise ValueError("--report must be left out with --epsilon: it looks at rows")
    if "n_modes" in options and "functional" not in options:
        raise ValueError("--n-modes is of the covariance that --functional chooses: give both")
    given = {name: getattr(options, name) for name in CHECKS if name in options}
    if given.get("depth") is not None:  # about as many numbers as the default of two layers
        given.setdefault("n_particles", max(_FEWEST_NEURONS, 500 // given["depth"]))
    if options.column_bounds:
        given["bounds"] = dict(options.column_bounds)
    recipe = Recipe(**given)
    if options.report and recipe.readout == READOUT:
        raise ValueError("--report must be left out with --readout bilevel: its outer weights are none of a state")
    return recipe


def _add_data(report: Report, data: experiments.Dataset, recipe: Recipe) -> None:
    n, d = data.inputs.shape
    kind = "regression" if data.classes is None else f"{len(data.classes)} classes"
    report.add({"data": data.name, "rows": n, "features": d}, f"{data.name}: {n} rows, {d} features, {kind}")
    report.add({"reading": data.reading or None}, reading(data.reading) if data.reading else None)
    if recipe.functional is not None:
        grid = curves.grid(data.encoding)
        report.add({"grid": grid.points.tolist()}, f"curves on {grid}")
    report.add({"target": data.encoding.target, "classes": None if data.classes is None else data.classes.tolist()})


def _neurons(particles: FloatArray) -> str:
    layers = "" if particles.ndim == 2 else f"{len(particles)} layers of "
    return f"{layers}{particles.shape[-2]}"


def _steps(chosen: Mapping[str, Any]) -> str:
    if chosen["method"] == "psdca":
        return f"{chosen['n_steps']} epochs"
    inner = "" if chosen["inner_steps"] is None else f" of {chosen['inner_steps']}"
    size = chosen["step_size"]
    shown = size if isinstance(size, str) else f"{size:.4g}"
    return f"step size {shown}, {chosen['n_steps']} steps{inner}, {chosen['gradient']}"


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
