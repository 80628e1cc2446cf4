"""``mfld generate``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from mfld import diffusion, plots, validation
from mfld.cli.options import add_drop_and_types, add_format, add_num_threads, checked, format_options, number
from mfld.cli.report import Report, check_output
from mfld.experiments import datasets, sources
from mfld.experiments.densities import MISSING, as_csv, columns_of, form_of, read_rows
from mfld.experiments.tables import Format
from mfld.files import replacing

_PIXELS, _COMPONENTS = 8, 32  # of the digits, and of what stands for them
_GREYS = 16
_ANIMATED = 64


def add(commands: Any) -> None:
    generate = commands.add_parser(
        "generate",
        examples=("mfld generate rows.csv --n 100", "mfld generate digits --n 100 --animation digits.gif"),
        help="train a diffusion on the rows of a file, and write new ones",
        description="Train a diffusion on all columns of a file and write new rows like them, with its columns and "
        "types; or on the pictures of handwritten digits, and draw new ones.",
    )
    data = generate.add_argument_group("data")
    data.add_argument("data", metavar="DATA", help="file or URL, - for standard input, or digits")
    data.add_argument("--header", choices=("yes", "no"), help="whether the first line has names (found out)")
    data.add_argument("--missing", choices=MISSING, default="refuse", help="rows with missing values (refuse)")
    add_drop_and_types(data)
    add_format(data)

    fit = generate.add_argument_group("diffusion")
    for name, text in (
        ("n_particles", "neurons (500; 1000 for digits)"),
        ("n_steps", "of training (3000)"),
    ):
        fit.add_argument(
            f"--{name.replace('_', '-')}",
            type=checked(name, int, lambda name, value: validation.integer(name, value, 1)),
            metavar="N",
            help=text,
        )
    fit.add_argument(
        "--guidance",
        type=checked("guidance", number, validation.real),
        default=0.0,
        metavar="W",
        help="of digits: above 0 they are clearer and less various (0)",
    )
    fit.add_argument(
        "--seed",
        type=checked("seed", int, lambda name, value: validation.seed(value)),
        default=0,
        help="of training and new rows (0)",
    )
    add_num_threads(fit)

    output = generate.add_argument_group("output")
    output.add_argument(
        "--n",
        type=checked("n", int, lambda name, value: validation.integer(name, value, 1)),
        default=100,
        metavar="N",
        help="new rows (100)",
    )
    output.add_argument("--rows", type=Path, metavar="FILE.csv", help="where to write them (FILE-generated.csv)")
    output.add_argument("--picture", type=Path, metavar="FILE.png", help="of digits (digits-generated.png)")
    output.add_argument("--animation", type=Path, metavar="FILE.gif", help="of digits: how they come out of the noise")
    output.add_argument("--json", action="store_true", help="print one JSON object")
    generate.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    is_digits = options.data == "digits"
    stem = sources.stem(options.data)
    rows = options.rows or Path(f"{stem}-generated.csv")
    picture = options.picture or Path("digits-generated.png")
    written = [rows] + [picture] * is_digits + [options.animation] * (options.animation is not None)
    for name in ("picture", "animation"):
        if getattr(options, name) is not None and not is_digits:
            raise ValueError(f"--{name} is of digits, got {options.data}")
    if options.guidance and not is_digits:
        raise ValueError(f"--guidance is of digits, got {options.data}")
    for path in written:
        check_output(path, [] if is_digits else [options.data])
    if len({path.resolve() for path in written}) < len(written):
        raise ValueError(f"rows and pictures must be different files, got {', '.join(map(str, written))}")
    if options.animation is not None and options.animation.suffix.lower() != ".gif":
        raise ValueError(f"--animation must end in .gif, got {options.animation}")
    report = Report(options.json)
    try:
        (_digits if is_digits else _table)(options, report, rows, picture)
    finally:
        report.finish()
    return 0


def _choices(options: argparse.Namespace, **defaults: int) -> dict[str, Any]:
    given = {name: getattr(options, name) for name in ("n_particles", "n_steps") if getattr(options, name) is not None}
    return {**defaults, **given, "seed": options.seed, "num_threads": options.num_threads}


def _trained(report: Report, model: diffusion.DiffusionModel, what: str) -> None:
    loss = float(np.mean(model.result.history["loss"][-10:]))
    p, n = model.score.n_coordinates, len(model.score.measure.particles)
    size = f"{n} neuron{'s' * (n > 1)} in {p} coordinate{'s' * (p > 1)}"
    report.add(
        {"n_coordinates": p, "n_particles": n, "n_steps": model.result.state.step, "loss": loss},
        f"{what}: {size}, {model.result.state.step} steps, loss {loss:.4f}",
    )


def _table(options: argparse.Namespace, report: Report, path: Path, picture: Path) -> None:
    header = None if options.header is None else options.header == "yes"
    how = Format(header=header, types=dict(options.types), **format_options(options))
    table, variables, rows = read_rows(options.data, how, drop=options.drop, missing=options.missing)
    form = form_of(table)
    kinds = ", ".join(f"{kind}s: {n}" for kind, n in form["kinds"].items())
    report.add(
        {"data": options.data, "rows": len(rows), "kinds": form["kinds"]},
        f"{options.data}: {len(rows)} rows, columns of {kinds}",
    )
    model = diffusion.fit(rows, **_choices(options))
    _trained(report, model, "diffusion")
    new = model.sample(options.n, seed=options.seed, num_threads=options.num_threads)
    with replacing(path) as file:
        file.write(as_csv(columns_of(variables, new.astype(np.float64), form["decimal"]), form).encode())
    report.add({"generated": str(path), "n": options.n}, f"{options.n} new rows: {path}")


def _digits(options: argparse.Namespace, report: Report, path: Path, picture: Path) -> None:
    try:
        plots.check_format(picture)
        no_picture = None
    except ImportError as error:
        if options.animation is not None:
            raise
        no_picture = str(error)
    data = datasets.load("digits")
    pixels, labels = data.inputs, data.targets.astype(np.int64)
    report.add({"data": "digits", "rows": len(pixels)}, f"digits: {len(pixels)} pictures of {_PIXELS} x {_PIXELS}")
    model = diffusion.fit(pixels, labels, latent=_COMPONENTS, **_choices(options, n_particles=1000))
    _trained(report, model, "diffusion")
    wanted = np.arange(options.n) % 10
    new = model.sample(options.n, wanted, guidance=options.guidance, seed=options.seed, num_threads=options.num_threads)
    new = np.clip(new, 0, _GREYS)
    header = [f"pixel_{i}_{j}" for i in range(_PIXELS) for j in range(_PIXELS)] + ["digit"]
    body = "".join(
        ",".join([*(f"{value:.2f}" for value in row), str(label)]) + "\n"
        for row, label in zip(new, wanted, strict=True)
    )
    with replacing(path) as file:
        file.write((",".join(header) + "\n" + body).encode())
    report.add({"generated": str(path), "n": options.n}, f"{options.n} new digits: {path}")
    if no_picture is not None:
        report.add({"picture": None})
        print(f"no picture: {no_picture}", file=sys.stderr)
        return
    shape = (len(new), _PIXELS, _PIXELS)
    plots.save(plots.pictures(new.reshape(shape), title="mfld generate digits"), picture)
    report.add({"picture": str(picture)}, f"picture: {picture}")
    if options.animation is not None:
        first = min(options.n, _ANIMATED)
        frames: list[np.ndarray] = []
        model.sample(
            first,
            wanted[:first],
            guidance=options.guidance,
            seed=options.seed,
            num_threads=options.num_threads,
            callback=lambda points, k: frames.append(np.clip(points, 0, _GREYS).reshape(first, _PIXELS, _PIXELS)),
        )
        plots.animation(frames, options.animation)
        report.add({"animation": str(options.animation)}, f"animation: {options.animation}")
