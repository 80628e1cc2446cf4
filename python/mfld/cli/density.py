"""``mfld density``."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

from mfld import plots, validation
from mfld.cli.options import add_drop_and_types, add_format, add_num_threads, checked, format_options, number
from mfld.cli.report import Report, check_output
from mfld.experiments import DensityModel, sources
from mfld.experiments.densities import MISSING
from mfld.experiments.tables import Format
from mfld.files import replacing

_SHOWN = 4  # coordinates in the picture


def add(commands: Any) -> None:
    density = commands.add_parser(
        "density",
        examples=("mfld density rows.csv --sample 100",),
        help="fit a density to the rows of a file, and draw new ones",
        description="Fit a mixture of Gaussians, a tenth as many as there are rows, to all columns of a file; write "
        "the model and a picture, and new rows if asked for.",
    )
    data = density.add_argument_group("data")
    data.add_argument("data", metavar="DATA", help="file or URL, or - for standard input; as for mfld train")
    data.add_argument("--header", choices=("yes", "no"), help="whether the first line has names (found out)")
    data.add_argument("--missing", choices=MISSING, default="refuse", help="rows with missing values (refuse)")
    add_drop_and_types(data)
    add_format(data)

    fit = density.add_argument_group("density")
    fit.add_argument(
        "--n-particles",
        type=checked("n_particles", int, lambda name, value: validation.integer(name, value, 1)),
        metavar="N",
        help="Gaussians (a tenth of the rows)",
    )
    fit.add_argument(
        "--smoothing", type=_positive("smoothing"), metavar="S", help="their least width (by rows held out)"
    )
    fit.add_argument(
        "--prior-rows",
        type=_positive("prior_rows"),
        metavar="K",
        help="rows of that width beside those that each explains; inf for equal widths (by rows held out)",
    )
    fit.add_argument(
        "--seed",
        type=checked("seed", int, lambda name, value: validation.seed(value)),
        default=0,
        help="of start, noise, rows held out and new rows (0)",
    )
    add_num_threads(fit)

    output = density.add_argument_group("output")
    output.add_argument("--output", type=Path, metavar="FILE.npz", help="the model (FILE-density.npz)")
    output.add_argument("--picture", type=Path, metavar="FILE.png", help="the picture (beside the model, as .png)")
    output.add_argument(
        "--sample",
        type=checked("sample", int, lambda name, value: validation.integer(name, value, 1)),
        metavar="N",
        help="draw so many new rows, with the columns and types of the file",
    )
    output.add_argument("--rows", type=Path, metavar="FILE.csv", help="where to write them (FILE-sample.csv)")
    output.add_argument("--json", action="store_true", help="print one JSON object")
    density.set_defaults(command=_run)


def _positive(name: str) -> Any:
    def check(name: str, value: float) -> float:
        return value if name == "prior_rows" and value == math.inf else validation.real(name, value, positive=True)

    return checked(name, number, check)


def _run(options: argparse.Namespace) -> int:
    stem = sources.stem(options.data)
    output = options.output or Path(f"{stem}-density.npz")
    picture = options.picture or output.with_suffix(".png")
    rows = options.rows or Path(f"{stem}-sample.csv")
    if options.rows is not None and options.sample is None:
        raise ValueError("--rows needs --sample, the number of rows to draw")
    written = [output, picture] + [rows] * (options.sample is not None)
    for path in written:
        check_output(path, [options.data])
    if len({path.resolve() for path in written}) < len(written):
        raise ValueError(f"model, picture and rows must be different files, got {', '.join(map(str, written))}")
    try:
        plots.check_format(picture)
        no_picture = None
    except ImportError as error:
        no_picture = str(error)

    header = None if options.header is None else options.header == "yes"
    model = DensityModel.fit(
        options.data,
        Format(header=header, types=dict(options.types), **format_options(options)),
        drop=options.drop,
        missing=options.missing,
        seed=options.seed,
        num_threads=options.num_threads,
        n_particles=options.n_particles,
        smoothing=options.smoothing,
        prior_rows=options.prior_rows,
    )
    made, report = model.provenance, Report(options.json)
    kinds = ", ".join(f"{kind}s: {n}" for kind, n in made["kinds"].items())
    report.add(
        {"data": made["data"], "rows": made["rows"], "kinds": made["kinds"]},
        f"{made['data']}: {made['rows']} rows, columns of {kinds}",
    )
    named = ("smoothing", "prior_rows", "shrinkage", "log_likelihood", "held_out")
    held_out = "" if made["held_out"] is None else f", {made['held_out']:.4f} of rows held out"
    report.add(
        {"n_particles": len(model.density.means), **{name: made[name] for name in named}},
        f"{len(model.density.means)} Gaussians in {model.density.means.shape[1]} coordinates, smoothing "
        f"{made['smoothing']:.3g}, prior rows {made['prior_rows']:g}; mean log-likelihood {made['log_likelihood']:.4f}"
        f"{held_out}",
    )
    model.save(output)
    report.add({"model": str(output)}, f"model: {output}")
    try:
        if options.sample is not None:
            with replacing(rows) as file:
                file.write(model.csv(model.sample(options.sample, options.seed)).encode())
            report.add({"sample": str(rows)}, f"{options.sample} new rows: {rows}")
        report.add({"picture": None})
        if no_picture is None:
            assert model.rows is not None  # it was fitted here
            shown = model.most_telling(_SHOWN)
            labels = [plots.plain(label, most=20) for label in model.labels]
            title = plots.plain(f"mfld density {stem}")
            figure = plots.density(model.density, model.rows, labels, shown=shown, title=title)
            plots.save(figure, picture)
            report.add({"picture": str(picture)}, f"picture: {picture}")
        else:
            print(f"no picture: {no_picture}", file=sys.stderr)
    finally:
        report.finish()
    return 0
