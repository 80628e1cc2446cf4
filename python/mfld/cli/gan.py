"""``mfld gan``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from mfld import plots, validation
from mfld.cli.options import add_drop_and_types, add_format, add_num_threads, checked, format_options
from mfld.cli.report import Report, check_output
from mfld.experiments import GeneratorModel, sources
from mfld.experiments.densities import MISSING
from mfld.experiments.tables import Format
from mfld.files import replacing
from mfld.generative import Generator

_FRAMES = 30
_POINTS = 500


def add(commands: Any) -> None:
    gan = commands.add_parser(
        "gan",
        examples=("mfld gan rows.csv --sample 100",),
        help="fit a generator to the rows of a file, and draw new ones",
        description="Train a generative adversarial network on all columns of a file; write the model and an animation "
        "of the points that it makes, and new rows if asked for.",
    )
    data = gan.add_argument_group("data")
    data.add_argument("data", metavar="DATA", help="file or URL, or - for standard input; as for mfld train")
    data.add_argument("--header", choices=("yes", "no"), help="whether the first line has names (found out)")
    data.add_argument("--missing", choices=MISSING, default="refuse", help="rows with missing values (refuse)")
    add_drop_and_types(data)
    add_format(data)

    fit = gan.add_argument_group("generator")
    fit.add_argument(
        "--n-particles", type=_count("n_particles"), default=200, metavar="N", help="neurons of each (200)"
    )
    fit.add_argument("--n-steps", type=_count("n_steps"), default=10_000, metavar="K", help="steps (10000)")
    fit.add_argument(
        "--seed",
        type=checked("seed", int, lambda name, value: validation.seed(value)),
        default=0,
        help="of start, batches, noise and new rows (0)",
    )
    add_num_threads(fit)

    output = gan.add_argument_group("output")
    output.add_argument("--output", type=Path, metavar="FILE.npz", help="the model (FILE-gan.npz)")
    output.add_argument("--picture", type=Path, metavar="FILE.gif", help="the animation (beside the model, as .gif)")
    output.add_argument("--sample", type=_count("sample"), metavar="N", help="draw so many new rows")
    output.add_argument("--rows", type=Path, metavar="FILE.csv", help="where to write them (FILE-sample.csv)")
    output.add_argument("--json", action="store_true", help="print one JSON object")
    gan.set_defaults(command=_run)


def _count(name: str) -> Any:
    return checked(name, int, lambda name, value: validation.integer(name, value, 1))


def _run(options: argparse.Namespace) -> int:
    stem = sources.stem(options.data)
    output = options.output or Path(f"{stem}-gan.npz")
    picture = options.picture or output.with_suffix(".gif")
    rows = options.rows or Path(f"{stem}-sample.csv")
    if options.rows is not None and options.sample is None:
        raise ValueError("--rows needs --sample, the number of rows to draw")
    outputs = [output, picture] + [rows] * (options.sample is not None)
    for path in outputs:
        check_output(path, [options.data])
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise ValueError(f"model, picture and rows must be different files, got {', '.join(map(str, outputs))}")
    if picture.suffix.lower() != ".gif":
        raise ValueError(f"{picture} must end in .gif")
    frames, titles = [], []

    def look(generator: Generator, step: int) -> None:
        frames.append(generator.sample(_POINTS, options.seed))
        titles.append(plots.plain(f"{stem}, step {step}"))

    header = None if options.header is None else options.header == "yes"
    model = GeneratorModel.fit(
        options.data,
        Format(header=header, types=dict(options.types), **format_options(options)),
        drop=options.drop,
        missing=options.missing,
        seed=options.seed,
        num_threads=options.num_threads,
        n_particles=options.n_particles,
        n_steps=options.n_steps,
        on_step=look,
        every=max(1, options.n_steps // _FRAMES),
    )
    made, report = model.provenance, Report(options.json)
    kinds = ", ".join(f"{kind}s: {n}" for kind, n in made["kinds"].items())
    report.add(
        {"data": made["data"], "rows": made["rows"], "kinds": made["kinds"]},
        f"{made['data']}: {made['rows']} rows, columns of {kinds}",
    )
    model.save(output)
    report.add({"model": str(output)}, f"model: {output}")
    try:
        if options.sample is not None:
            with replacing(rows) as file:
                file.write(model.csv(options.sample, options.seed).encode())
            report.add({"sample": str(rows)}, f"{options.sample} new rows: {rows}")
        report.add({"picture": None})
        try:
            assert model.rows is not None  # it was fitted here
            plots.generated(frames, model.rows, picture, titles=titles)
            report.add({"picture": str(picture)}, f"picture: {picture}")
        except ImportError as error:
            print(f"no picture: {error}", file=sys.stderr)
    finally:
        report.finish()
    return 0
