"""``mfld synth``."""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mfld import validation
from mfld.cli.options import (
    add_drop_and_types,
    add_format,
    add_num_threads,
    checked,
    column_bounds,
    format_options,
    number,
)
from mfld.cli.report import Report, check_output
from mfld.experiments import register, sources, synthesis
from mfld.experiments.densities import MISSING, complete
from mfld.experiments.register import Register
from mfld.experiments.synthesis import SyntheticTable
from mfld.experiments.tables import Format, Table
from mfld.experiments.utility import Utility
from mfld.files import locked, replacing
from mfld.privacy import NEIGHBOURS, Expense, Ledger, noise_multiplier
from mfld.privacy.mechanism import check_delta, check_epsilon

_HELD_OUT = 5  # of so many rows one


def add(commands: Any) -> None:
    synth = commands.add_parser(
        "synth",
        examples=("mfld synth people.csv --epsilon 1 --rows 10000 --bounds age=18:100",),
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
        type=column_bounds,
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
        "--register",
        type=Path,
        metavar="FILE.json",
        help=f"of all your tables, by which runs on a copy of this one are known ({register.default_path()})",
    )
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
    output.add_argument(
        "--utility",
        action="store_true",
        help="hold out a fifth of the rows, make rows from the others, say how close they are to those held out and "
        "what a classifier learns from them; computed without noise, for the holder's eyes only",
    )
    output.add_argument("--json", action="store_true", help="print one JSON object")
    synth.set_defaults(command=_run)


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
    registered = options.register or register.default_path()
    written = (output, told, kept, registered)
    if len({path.resolve() for path in written}) < len(written):
        raise ValueError(
            f"rows, report, ledger and register must be different files, got {', '.join(map(str, written))}"
        )
    header = None if options.header is None else options.header == "yes"
    how = Format(header=header, types=dict(options.types), **format_options(options))
    categories = dict(options.categories)
    read = synthesis.read(options.data, how, categories=categories, target=options.target, drop=options.drop)
    with _accounts(kept, registered) as (runs, known):
        _check_budget(runs, known, read, options, kept)

    seen = complete(read, options.missing)
    held_out = np.zeros(len(seen.rows), bool)
    if options.utility:
        held_out[random.SystemRandom().sample(range(len(seen.rows)), len(seen.rows) // _HELD_OUT)] = True
    used = seen.without(held_out) if held_out.any() else seen
    table = SyntheticTable.fit(
        used,
        epsilon=options.epsilon,
        delta=options.delta,
        bounds=dict(options.bounds),
        categories=categories,
        target=options.target,
        missing=options.missing,
        neighbours=options.neighbours,
        seed=options.seed,
        num_threads=options.num_threads,
    )
    # The register and the ledger first: what is released and not written down would be forgotten. They are read again,
    # for another process may have spent on the same rows in the meantime.
    run = {"id": secrets.token_hex(8), "delta": table.delta, **table.ledger.as_json()}
    with _accounts(kept, registered) as (runs, known):
        _check_budget(runs, known, read, options, kept)
        known.add({**run, "columns": known.digests(read), "ledger": str(kept.resolve())})
        with replacing(kept) as file:
            file.write(json.dumps({"format": "mfld privacy ledger 1", "runs": [*runs, run]}, indent=1).encode())
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
        shares: dict[str, float] = {}
        for each in table.ledger.expenses:
            shares[each.what] = shares.get(each.what, 0.0) + each.noise_multiplier**-2 / total
        for what, share in shares.items():
            report.add({}, f"  {100 * share:5.1f}% {what}")
        report.add({}, f"taken as public: {', '.join(table.public)}")
        if options.utility:
            _add_utility(report, table.utility(used, seen.without(~held_out)), int(held_out.sum()))
    finally:
        report.finish()
    return 0


@contextlib.contextmanager
def _accounts(kept: Path, registered: Path) -> Iterator[tuple[list[dict[str, Any]], Register]]:
    """Runs of a ledger, and the register, which no other process reads or writes in the meantime."""
    with locked(registered), locked(kept):
        yield _runs(kept), Register.load(registered)


def _runs(kept: Path) -> list[dict[str, Any]]:
    if not kept.exists():
        return []
    try:
        runs: list[dict[str, Any]] = json.loads(kept.read_text(encoding="utf-8"))["runs"]
        for run in runs:
            register.ledger_of(run)
        return runs
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{kept} is no ledger of mfld synth, or damaged: {error}") from error


def _check_budget(
    runs: list[dict[str, Any]], known: Register, read: Table, options: argparse.Namespace, kept: Path
) -> None:
    """Refuse a run that would spend more than the budget together with those before it."""
    budget = options.epsilon if options.budget is None else options.budget
    identities = {run.get("id") for run in runs}
    elsewhere = [run for run in known.runs_of(known.digests(read)) if run["id"] not in identities]
    before = runs + elsewhere
    if not before:
        if options.epsilon > budget:
            raise ValueError(f"budget must be at least --epsilon, {options.epsilon:g}, got {budget:g}")
        return

    own = Ledger((Expense("this run", noise_multiplier(options.epsilon, options.delta), 1.0),), options.neighbours)
    delta = options.delta + sum(run["delta"] for run in before)
    total = sum((Ledger.from_json(run) for run in before), start=Ledger()) + own
    together = total.epsilon(delta)
    if together > budget:
        counted = [f"{len(runs)} earlier {'run' if len(runs) == 1 else 'runs'} in {kept}"] * bool(runs)
        counted += [f"{len(elsewhere)} on the same rows, in {_names(elsewhere)}"] * bool(elsewhere)
        raise ValueError(
            f"budget must be at least {together:.4g}, got {budget:.4g}: with {' and '.join(counted)} this one makes "
            f"epsilon {together:.4g} at delta {delta:g} for the same rows. The rows of one run may be drawn as many as "
            "you like; runs again reveal more"
        )


def _names(runs: list[dict[str, Any]]) -> str:
    return ", ".join(sorted({str(run.get("ledger")) for run in runs}))


def _add_utility(report: Report, found: Utility, n_rows: int) -> None:
    """Add utility by held-out rows, none of which is private."""
    report.add({"utility": {"private": False, "held_out_rows": n_rows, **vars(found)}})
    report.add({}, f"NOT FOR RELEASE, computed without noise from {n_rows} rows of the file that were held out:")
    for name, distances, real in (
        ("columns", found.columns, found.real_columns),
        ("pairs of columns", found.pairs, found.real_pairs),
    ):
        if distances:
            worst = max(distances, key=lambda key: distances[key])
            mean = sum(distances.values()) / len(distances)
            report.add(
                {},
                f"  {name} differ by {mean:.3f} in total variation on average (real rows by {real:.3f}), most "
                f"{worst}, by {distances[worst]:.3f}",
            )
    if found.synthetic_auc is not None and found.real_auc is not None:
        report.add(
            {},
            f"  a classifier that learns from synthetic rows has a ROC-AUC of {found.synthetic_auc:.3f}, from real "
            f"ones {found.real_auc:.3f}",
        )
