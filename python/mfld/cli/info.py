"""``mfld info`` and ``mfld config``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mfld.cli.report import Report, certified
from mfld.config import show_config
from mfld.experiments import TrainedModel
from mfld.experiments.recipe import METHODS


def add(commands: Any) -> None:
    info = commands.add_parser(
        "info", examples=("mfld info digits.npz",), help="show what a model is and how it was made"
    )
    info.add_argument("model", type=Path, metavar="MODEL", help="a file that mfld train wrote")
    info.add_argument("--json", action="store_true", help="print one JSON object")
    info.set_defaults(command=_info)

    config = commands.add_parser(
        "config", examples=("mfld config",), help="show how mfld was built and what it runs on"
    )
    config.set_defaults(command=_config)


def _info(options: argparse.Namespace) -> int:
    trained = TrainedModel.load(options.model)
    made, encoding = trained.provenance, trained.encoding
    columns = [
        feature.name if feature.categories is None else f"{feature.name} ({', '.join(feature.categories)})"
        for feature in encoding.features
    ]
    n_test = len(trained.test_rows)
    report = Report(options.json)
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
        **({"certificate": certified(made["certificate"])} if "certificate" in made else {}),
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
