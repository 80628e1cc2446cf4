"""Two runs of bench/run.py, case by case.

    python bench/compare.py old.json new.json [--implementation mfld] [--tolerance 0.05]

Prints new time over old time of each case that both have, and between which values the quartiles put it. A case is
slower (or faster) when its median moved by more than the tolerance *and* the quartiles do not overlap: the first
quartile of the slower run lies above the third of the faster one. A case that other processes disturbed in either run
is not judged. Exit status 1 if a case is slower, 2 if the runs cannot be compared.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from measure import CLEAN_ENOUGH


def verdict(old: dict[str, Any], new: dict[str, Any], tolerance: float) -> str:
    if min(old["clean_windows"], new["clean_windows"]) < CLEAN_ENOUGH:
        return "disturbed"
    ratio = new["median"] / old["median"]
    if ratio > 1 + tolerance and new["first_quartile"] > old["third_quartile"]:
        return "slower"
    if ratio < 1 / (1 + tolerance) and new["third_quartile"] < old["first_quartile"]:
        return "faster"
    return ""


def what_differs(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What must be equal for times to mean the same."""
    of = {
        "cpu": lambda run: run["machine"]["cpu"],
        "cores": lambda run: run["machine"]["cores"],
        "level": lambda run: run["machine"]["mfld"]["level"],
    }
    return [f"{name}: {get(old)} and {get(new)}" for name, get in of.items() if get(old) != get(new)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--implementation", default="mfld", help="whose times; a peer's show what the machine did")
    parser.add_argument("--tolerance", type=float, default=0.05, help="relative change of a median that may be noise")
    parser.add_argument("--force", action="store_true", help="compare runs of different machines")
    options = parser.parse_args(arguments)

    old, new = (json.loads(path.read_text()) for path in (options.old, options.new))
    different = what_differs(old, new)
    if different:
        print("the runs differ in " + "; ".join(different), file=sys.stderr)
        if not options.force:
            return 2

    def times(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
        found = ((case["name"], case["implementations"].get(options.implementation)) for case in run["cases"])
        return {name: implementation for name, implementation in found if implementation}

    before, after = times(old), times(new)
    common = [name for name in before if name in after]
    if not common:
        print(f"no case of both runs has {options.implementation}", file=sys.stderr)
        return 2
    width = max(map(len, common))
    slower = 0
    for name in common:
        a, b = before[name], after[name]
        said = verdict(a, b, options.tolerance)
        slower += said == "slower"
        low, high = b["first_quartile"] / a["third_quartile"], b["third_quartile"] / a["first_quartile"]
        print(f"{name:{width}}  {b['median'] / a['median']:6.3f}  [{low:.3f}, {high:.3f}]  {said}".rstrip())
    mean = math.exp(sum(math.log(after[name]["median"] / before[name]["median"]) for name in common) / len(common))
    print(f"{'geometric mean':{width}}  {mean:6.3f}")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
