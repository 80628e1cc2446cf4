"""``mfld synth``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from mfld import validation
from mfld.cli.options import add_drop_and_types, add_format, add_num_threads, checked, format_options, number
from mfld.cli.report import Report, check_output
from mfld.experiments import sources
from mfld.experiments.densities import MISSING
from mfld.experiments.synthesis import SyntheticTable
from mfld.experiments.tables import Format
from mfld.files import replacing
from mfld.privacy import NEIGHBOURS, Expense, Ledger, noise_multiplier
from mfld.privacy.mechanism import check_delta, check_epsilon


def add(commands: Any) -> None:
    synth = commands.add_parser(
        "synth",
        examples=("mfld synth people.csv --epsilon 1 --delta 1e-5 --rows 10000 --target rich --bounds age=18:100",),
        help="draw rows like those of a file, under differential privacy",
        description="Release the mean features of a file with noise, once; match particles to them, and draw rows with "
        "the file's columns and types. What was spent on what is written beside them, and kept in a ledger, by which "
        "further runs on the file are refused once the budget is spent.",
    )
    data = synth.add_argument_group("data")
    data.add_argument("data", metavar="DATA", help="file or URL, or - for standard input; as for mfld train")
    data.add_argument("--target", metavar="NAME", help="column of classes, by which the others are matched")
    data.add_argument("--header", choices=("yes", "no"), help="whether the first line has names (found out)")
    data.add_argument("--missing", choices=MISSING, default="refuse", help="rows with missing values (refuse)")
    add_drop_and_types(data)
    add_format(data)

    private = synth.add_argument_group("privacy")
    epsilon = checked("epsilon", number, lambda name, value: check_epsilon(value))
    delta = checked("delta", number, lambda name, value: check_delta(value))
    private.add_argument("--epsilon", type=epsilon, required=True, help="what the rows may cost, such as 1")
    private.add_argument("--delta", type=delta, default=1e-5, help="probability that more is lost (1e-5)")
    private.add_argument(
        "--bounds",
        action="append",
        default=[],
        type=_bounds,
        metavar="NAME=LOW:HIGH",
        help="public bounds of a column of numbers (else estimated, for a tenth of the budget); repeatable",
    )
    private.add_argument(
        "--categories",
        action="append",
        default=[],
        type=_categories,
        metavar="NAME=A,B,...",
        help="public categories of a column (else those with rows enough, for a tenth of the budget); repeatable",
    )
    private.add_argument("--neighbours", choices=NEIGHBOURS, default="replace", help="which tables count as such")
    private.add_argument("--budget", type=epsilon, help="epsilon of all runs on this file together (--epsilon)")
    private.add_argument("--ledger", type=Path, metavar="FILE.json", help="of all runs (FILE-privacy-ledger.json)")
    private.add_argument(
        "--seed",
        type=checked("seed", int, lambda name, value: validation.seed(value)),
        help="FOR TESTS: noise that can be made again protects nobody",
    )
    add_num_threads(synth)

    output = synth.add_argument_group("output")
    output.add_argument(
        "--rows",
        type=checked("rows", int, lambda name, value: validation.integer(name, value, 1)),
        required=True,
        metavar="N",
        help="rows to draw, as many as you like",
    )
    output.add_argument("--output", type=Path, metavar="FILE.csv", help="where to write them (FILE-synth.csv)")
    output.add_argument("--utility", action="store_true", help="compare with the file; for its holder's eyes only")
    output.add_argument("--json", action="store_true", help="print one JSON object")
    synth.set_defaults(command=_run)


def _bounds(text: str) -> tuple[str, tuple[float, float]]:
    name, _, ends = text.rpartition("=")
    low, colon, high = ends.partition(":")
    try:
        if not name or not colon:
            raise ValueError
        return name, (float(low), float(high))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be NAME=LOW:HIGH with two numbers, got {text!r}") from None


def _categories(text: str) -> tuple[str, tuple[str, ...]]:
    name, _, listed = text.partition("=")
    if not name or not listed:
        raise argparse.ArgumentTypeError(f"must be NAME=A,B,..., got {text!r}")
    return name, tuple(part.strip() for part in listed.split(","))


def _run(options: argparse.Namespace) -> int:
    stem = sources.stem(options.data)
    output = options.output or Path(f"{stem}-synth.csv")
    told = output.with_suffix(".json")
    kept = options.ledger or output.with_name(f"{stem}-privacy-ledger.json")
    for path in (output, told, kept):
        check_output(path, [options.data])
    if len({path.resolve() for path in (output, told, kept)}) < 3:
        raise ValueError(f"rows, report and ledger must be different files, got {output}, {told}, {kept}")
    runs = _runs(kept)
    budget = options.epsilon if options.budget is None else options.budget
    _check_budget(runs, options, budget, kept)

    header = None if options.header is None else options.header == "yes"
    how = Format(header=header, types=dict(options.types), **format_options(options))
    table = SyntheticTable.fit(
        options.data,
        how,
        epsilon=options.epsilon,
        delta=options.delta,
        bounds=dict(options.bounds),
        categories=dict(options.categories),
        target=options.target,
        drop=options.drop,
        missing=options.missing,
        neighbours=options.neighbours,
        seed=options.seed,
        num_threads=options.num_threads,
    )
    # The ledger first: what is released and not written down would be forgotten.
    runs.append({"delta": table.delta, **table.ledger.as_json()})
    with replacing(kept) as file:
        file.write(json.dumps({"format": "mfld privacy ledger 1", "runs": runs}, indent=1).encode())
    with replacing(output) as file:
        file.write(table.csv(table.sample(options.rows)).encode())
    spent = table.report() | {"reproducible_noise": options.seed is not None}
    with replacing(told) as file:
        file.write(json.dumps(spent, indent=1).encode())

    report = Report(options.json)
    try:
        if options.seed is not None:
            report.add({"private": False}, f"NOT PRIVATE: the noise is that of the seed {options.seed}")
        report.add(
            {"rows": options.rows, "output": str(output), "report": str(told), "ledger": str(kept)},
            f"{options.rows} rows: {output}; what was spent: {told}; ledger of all runs, to be kept: {kept}",
        )
        report.add(spent, f"epsilon {spent['epsilon']:.4g} at delta {table.delta:g}, neighbours {options.neighbours}:")
        total = table.ledger.noise_multiplier**-2
        for each in table.ledger.expenses:
            share = each.noise_multiplier**-2 / total
            report.add({}, f"  {100 * share:5.1f}% {each.what}")
        report.add({}, f"taken as public: {', '.join(table.public)}")
        if options.utility:
            texts = dict.fromkeys([name for name, _ in options.categories] + [options.target] * bool(options.target))
            types = {**dict(options.types), **dict.fromkeys(texts, "text")}
            seen = Format(header=header, types=types, **format_options(options))
            worst = table.utility(options.data, seen, options.drop, options.missing)
            report.add(
                {"total_variation": worst},
                f"NOT FOR RELEASE, computed without noise: columns differ by {worst:.3f} in total variation at most",
            )
    finally:
        report.finish()
    return 0


def _runs(kept: Path) -> list[dict[str, Any]]:
    if not kept.exists():
        return []
    try:
        runs: list[dict[str, Any]] = json.loads(kept.read_text(encoding="utf-8"))["runs"]
        for run in runs:
            check_delta(run["delta"])
            Ledger.from_json(run)
        return runs
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{kept} is no ledger of mfld synth, or damaged: {error}") from error


def _check_budget(runs: list[dict[str, Any]], options: argparse.Namespace, budget: float, kept: Path) -> None:
    """Refuse a run that would spend more than the budget together with those before it."""
    if not runs:
        if options.epsilon > budget:
            raise ValueError(f"budget must be at least --epsilon, {options.epsilon:g}, got {budget:g}")
        return

    own = Ledger((Expense("this run", noise_multiplier(options.epsilon, options.delta), 1.0),), options.neighbours)
    delta = options.delta + sum(run["delta"] for run in runs)
    total = sum((Ledger.from_json(run) for run in runs), start=Ledger()) + own
    together = total.epsilon(delta)
    if together > budget:
        raise ValueError(
            f"budget must be at least {together:.4g}, got {budget:.4g}: with the {len(runs)} runs in {kept} this one "
            f"makes epsilon {together:.4g} at delta {delta:g} for the same rows. The rows of one run may be drawn as "
            "many as you like; runs again reveal more"
        )
