"""A run as Markdown: one table a group of cases, the ceilings, and what the machine is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from measure import CLEAN_ENOUGH

ONE_THREAD = "mfld, 1 thread"
FORCED = "numpy forced"
PEERS = {"numpy": "NumPy", FORCED: "NumPy forced", "torch": "PyTorch", "jax": "JAX"}


def duration(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def median(entry: dict[str, Any], label: str) -> float | None:
    found = entry["implementations"].get(label)
    return None if found is None else found["median"]


def best_ratio(entry: dict[str, Any], *, forced: bool) -> float | None:
    """The time of the best peer over that of mfld; without the forced NumPy, or with it."""
    labels = [label for label in PEERS if forced or label != FORCED]
    times = [time for label in labels if (time := median(entry, label)) is not None]
    ours = median(entry, "mfld")
    return min(times) / ours if times and ours else None


def share(entry: dict[str, Any]) -> float | None:
    ours, floor = median(entry, "mfld"), entry.get("floor")
    return None if floor is None or ours is None else floor / ours


def spread(implementation: dict[str, Any]) -> float:
    """Half of the interquartile range over the median."""
    return (implementation["third_quartile"] - implementation["first_quartile"]) / 2 / implementation["median"]


def shown(implementation: dict[str, Any]) -> str:
    """The median, with a question mark where it rests on disturbed windows."""
    doubtful = implementation["clean_windows"] < CLEAN_ENOUGH
    return duration(implementation["median"]) + " ?" * doubtful


def one_line(entry: dict[str, Any]) -> str:
    times = [f"{label} {shown(each)}" for label, each in entry["implementations"].items()]
    return f"{entry['name']}: " + ", ".join(times)


def markdown(result: dict[str, Any]) -> str:
    machine, entries = result["machine"], result["cases"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    core = machine["mfld"]
    lines = [
        "# mfld benchmark",
        "",
        f"{machine['date']}, {machine['cpu']}, {machine['cores']} cores, {machine['system']}, "
        f"Python {machine['python']}.",
        f"mfld {core['version']} ({machine.get('commit', 'unknown')}), level {core['level']}, {core['compiler']}.",
        f"Peers: {versions}. NumPy forced: {result['forced']}.",
        "",
        "Times are medians of a step over undisturbed windows, ± half of the interquartile range. *Of floor* is the "
        "time that the arithmetic takes at this machine's ceilings over the time of mfld. *Ahead of best* is the time "
        "of the fastest peer over that of mfld: of the peers as they come, and with NumPy forced. *Speed-up* is the "
        "time of mfld with one thread over that with two; *1 thread of floor* compares the processor time of one "
        "thread with the floor of one. A question mark: fewer than two windows were undisturbed.",
        "",
    ]
    for group in dict.fromkeys(entry["group"] for entry in entries):
        lines += [f"## {group.capitalize()}", "", *_cases([e for e in entries if e["group"] == group]), ""]
    lines += _neighbours(entries)
    if result.get("ceilings"):
        lines += ["## Ceilings", "", *_ceilings(result["ceilings"]), ""]
    return "\n".join(lines)


def _number(value: float | None, form: str = ".1f") -> str:
    return "" if value is None else f"{value:{form}}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    aligned = ["---"] + ["---:"] * (len(header) - 1)
    return ["| " + " | ".join(row) + " |" for row in (header, aligned, *rows)]


def _cases(entries: list[dict[str, Any]]) -> list[str]:
    labels = [label for label in PEERS if any(label in entry["implementations"] for entry in entries)]
    forced = FORCED in labels
    header = ["case", "mfld", "of floor"]
    if any(ONE_THREAD in entry["implementations"] for entry in entries):
        header += ["speed-up", "1 thread of floor"]
    header += [PEERS[label] for label in labels] + ["ahead of best"] * bool(labels) + ["forced"] * forced
    rows = []
    for entry in entries:
        ours = entry["implementations"]["mfld"]
        one = entry["implementations"].get(ONE_THREAD)
        row = [entry["name"], f"{shown(ours)} ±{spread(ours):.0%}", _number(share(entry), ".0%")]
        if "speed-up" in header:
            alone = one and entry.get("floor_one_thread") and entry["floor_one_thread"] / one["cpu_median"]
            row += [_number(one and one["median"] / ours["median"], ".2f"), _number(alone, ".0%")]
        found = [entry["implementations"].get(label) for label in labels]
        row += ["" if each is None else shown(each) for each in found]
        row += [_number(best_ratio(entry, forced=False))] * bool(labels)
        row += [_number(best_ratio(entry, forced=True))] * forced
        rows.append(row)
    lines = _table(header, rows)
    if labels and len(entries) > 1:
        ratios = [r for e in entries if (r := best_ratio(e, forced=False))]
        shares = [s for e in entries if (s := share(e))]
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else None
        least = _number(min(shares, default=None), ".0%")
        lines += ["", f"Geometric mean ahead of best: {_number(mean, '.2f')}. Least share of floor: {least}."]
    return lines


def _neighbours(entries: list[dict[str, Any]]) -> list[str]:
    """Where a size stands against what a neighbouring size predicts, in units of the floor."""
    by_name = {entry["name"]: entry for entry in entries}
    rows = []
    for entry in entries:
        near = by_name.get(entry["neighbour"] or "")
        if near is None or not share(entry) or not share(near):
            continue
        excess = share(near) / share(entry)
        verdict = "" if excess <= entry["cliff"] else "beyond"
        rows.append([entry["name"], near["name"], f"{excess:.2f}", f"{entry['cliff']:g}", verdict])
    if not rows:
        return []
    header = ["case", "neighbour", "time over prediction", "allowed", ""]
    return [
        "## Cliffs",
        "",
        "The prediction is the neighbour's time, scaled by the floors.",
        "",
        *_table(header, rows),
        "",
    ]


def _ceilings(ceilings: list[dict[str, Any]]) -> list[str]:
    columns = sorted({(c["precision"], c["threads"]) for c in ceilings})
    header = ["what", "unit", *(f"{precision}, {threads}" for precision, threads in columns)]
    rows = []
    for what, unit in dict.fromkeys((c["what"], c["unit"]) for c in ceilings):
        rates = {(c["precision"], c["threads"]): c["rate"] for c in ceilings if c["what"] == what}
        rows.append([what, unit, *(_number(rates.get(column), ".4g") for column in columns)])
    return ["Columns: precision, threads.", "", *_table(header, rows)]
