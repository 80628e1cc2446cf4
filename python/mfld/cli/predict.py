"""``mfld predict``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfld import experiments
from mfld.cli.options import add_format, add_num_threads, format_options
from mfld.cli.report import Report, check_output, csv_text
from mfld.experiments import Dataset, TrainedModel
from mfld.experiments.tables import Format
from mfld.files import replacing


def add(commands: Any) -> None:
    predict = commands.add_parser(
        "predict",
        examples=("mfld predict digits.npz digits", "mfld predict people-model.npz new.csv --output predictions.csv"),
        help="use a trained model",
        description="Print how good a model is on a data set, or its predictions where that has no target.",
    )
    predict.add_argument("model", type=Path, metavar="MODEL", help="a file that mfld train wrote")
    predict.add_argument("data", metavar="DATA", help="a bundled data set, or a file with the columns of the first one")
    add_format(predict)
    predict.add_argument(
        "--output", type=Path, metavar="FILE.csv", help="write row, held out or not, target, prediction"
    )
    add_num_threads(predict)
    predict.add_argument("--json", action="store_true", help="print one JSON object")
    predict.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    trained = TrainedModel.load(options.model)
    if options.output is not None:
        check_output(options.output, [options.model, options.data])
    inputs, targets, data = _rows_to_predict(options, trained)
    report = Report(options.json)
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
            file.write(csv_text(columns).encode())
        report.add({"predictions": str(options.output)}, f"predictions: {options.output}")
    elif targets is None:
        report.add({"predictions": predictions.tolist()}, csv_text(columns).rstrip("\n"))
    report.finish()
    return 0


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
    how = Format(**format_options(options))
    inputs, targets = experiments.load_like(trained.encoding, options.data, trained.classes, how)
    if targets is not None:
        data = Dataset(options.data, inputs, targets, trained.classes, trained.encoding)
        if data.fingerprint == made_of["fingerprint"]:
            return inputs, targets, data
    return inputs, targets, None
