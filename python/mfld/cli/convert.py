"""``mfld convert``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mfld import experiments
from mfld.cli.report import Report


def add(commands: Any) -> None:
    convert = commands.add_parser(
        "convert",
        examples=("mfld convert rows.csv arrays --target y",),
        help="write a table of numbers as arrays, for data that do not fit into memory",
        description="Write a table of numbers block by block as inputs.npy and targets.npy, which numpy.load maps and "
        "an EmpiricalRisk trains on without reading them as a whole.",
    )
    convert.add_argument("data", metavar="DATA", help="a file: CSV with names in its first line, Parquet or Arrow")
    convert.add_argument("folder", type=Path, metavar="FOLDER", help="where the arrays are written")
    convert.add_argument("--target", metavar="NAME", help="column of the targets (the last one)")
    convert.add_argument("--dtype", default="float32", choices=("float32", "float64"), help="of the arrays (float32)")
    convert.add_argument("--json", action="store_true", help="print one JSON object")
    convert.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    stored = experiments.convert(options.data, options.folder, target=options.target, dtype=options.dtype)
    report = Report(options.json)
    report.add(
        {"folder": str(stored.folder), "rows": stored.n_rows, "inputs": stored.inputs, "target": stored.target},
        f"{stored.folder}: {stored.n_rows} rows, {len(stored.inputs)} inputs, target {stored.target}",
    )
    report.finish()
    return 0
