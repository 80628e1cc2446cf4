"""``mfld run`` and ``mfld experiments``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from mfld import gallery, plots, validation
from mfld.cli.options import Names, checked
from mfld.cli.report import Report, check_output


def add(commands: Any) -> None:
    run = commands.add_parser(
        "run",
        examples=("mfld run double_well", "mfld run parity --paper --theme dark", "mfld run own.toml --processes 4"),
        help="run an experiment, shipped or of a file, and draw it",
        description="Run an experiment: a shipped one by its name, or that of a file. Each run is kept as soon as "
        "it ends, and is not made again. The exit status is 1 if the experiment does not show what it claims.",
    )
    what = run.add_argument("experiment", metavar="NAME|FILE.toml", help="see mfld experiments")
    what.completer = Names(gallery.names())
    size = run.add_mutually_exclusive_group()
    size.add_argument("--paper", dest="size", action="store_const", const="paper", help="in the setting of the source")
    size.add_argument("--small", dest="size", action="store_const", const="small", help="in seconds, as the tests do")
    run.add_argument(
        "--without", action="store_true", help="switch off the part under study: the claim is expected to fail"
    )
    run.add_argument("--output", type=Path, metavar="FILE.png", help="the figure (NAME.png)")
    run.add_argument("--runs", type=Path, metavar="FILE.jsonl", help="the runs, a line each (beside the figure)")
    run.add_argument("--theme", choices=("light", "dark"), default="light", help="paper of the figure (light)")
    run.add_argument(
        "--processes",
        type=checked("processes", int, lambda name, value: validation.integer(name, value, 0)),
        metavar="N",
        help="runs at a time, 0 for none but this process (one a core)",
    )
    run.add_argument("--quiet", action="store_true", help="no progress bar")
    run.add_argument("--json", action="store_true", help="print one JSON object")
    run.set_defaults(command=_run)

    listed = commands.add_parser(
        "experiments",
        examples=("mfld experiments", "mfld experiments double_well > own.toml"),
        help="list the shipped experiments, or print one as a file to be varied",
        description="List the shipped experiments with what they claim; or print the file of one, to be varied.",
    )
    name = listed.add_argument("name", nargs="?", metavar="NAME", help="print its file")
    name.completer = Names(gallery.names())
    listed.set_defaults(command=_experiments)


def _run(options: argparse.Namespace) -> int:
    experiment = gallery.load(options.experiment)
    changes = [options.size] * bool(options.size) + ["without"] * options.without
    varied = experiment.varied(*changes)
    stem = "-".join([experiment.name, *changes])
    picture = options.output or Path(f"{stem}.png")
    check_output(picture, [options.experiment])
    runs = options.runs = options.runs or picture.with_suffix(".jsonl")
    check_output(runs, [options.experiment])
    plots.check_format(picture)
    if runs.resolve() == picture.resolve():
        raise ValueError(f"--output and --runs cannot both be {picture}")

    progress = not options.quiet and sys.stderr.isatty()
    findings = varied.run(runs, executor=options.processes, progress=progress)
    with plots.theme(options.theme):
        plots.save(varied.figure(findings), picture)

    report = Report(options.json)
    report.add({"experiment": varied.name, "variations": changes, "title": varied.title}, varied.title or None)
    if options.without:
        part = experiment.variations["without"]["part"]
        report.add({"without": part}, f"switched off: {part}")
    seconds = sum(run["seconds"] for run in findings.runs.runs)
    n = len(findings.runs.runs)
    report.add(
        {"runs": n, "new_runs": findings.runs.n_new, "seconds": seconds},
        f"{n} runs, {findings.runs.n_new} of them new, {seconds:.1f} s in all",
    )
    claim = varied.claim
    if claim is not None:
        report.add(
            {"quantity": claim.quantity, "value": findings.value, "at_least": claim.at_least, "at_most": claim.at_most},
            f"{claim}, got {findings.value:.4g}: {'holds' if findings.holds else 'does not hold'}",
        )
    report.add(
        {"holds": findings.holds, "figure": str(picture), "records": str(runs)}, f"figure: {picture}; runs: {runs}"
    )
    report.finish()
    return 1 if findings.holds is False else 0


def _experiments(options: argparse.Namespace) -> int:
    if options.name is not None:
        name = validation.choice("experiment", options.name, gallery.names())
        print(f'experiment = "{name}"\n' + (gallery.LIBRARY / f"{name}.toml").read_text(encoding="utf-8"), end="")
        return 0
    width = max(map(len, gallery.names()))
    for name in gallery.names():
        experiment = gallery.load(name)
        paper = "  [--paper]" if "paper" in experiment.variations else ""
        print(f"{name:{width}}  {experiment.title}{paper}")
        print(f"{'':{width}}  claim: {experiment.claim}")
    return 0
