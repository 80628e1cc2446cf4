"""Output of the commands."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mfld.bias import BiasReport
from mfld.experiments import Scores
from mfld.files import check_writable


class Report:
    """Output of a command, at its end, when all files are written: lines or one JSON object."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._values: dict[str, Any] = {}
        self._lines: list[str] = []

    def add(self, values: Mapping[str, Any], line: str | None = None) -> None:
        self._values.update(values)
        if line is not None:
            self._lines.append(line)

    def add_scores(self, scores: Mapping[str, Scores]) -> None:
        self.add({"scores": {part: {"loss": each.loss, each.measure: each.score} for part, each in scores.items()}})
        for part, each in scores.items():
            self.add({}, f"{part:5}  loss {each.loss:.6f}  {each.measure} {each.score:.6f}")

    def finish(self) -> None:
        print(json.dumps(_finite(self._values)) if self._as_json else "\n".join(self._lines))


def _finite(value: Any) -> Any:
    """JSON has no NaN: null stands for it."""
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def csv_text(columns: Mapping[str, NDArray[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(values.tolist() for values in columns.values()), strict=True))
    return text.getvalue()


def check_output(path: Path, read: Sequence[str | Path]) -> None:
    """Refuse, before the work, an output that cannot be written or that the command reads."""
    check_writable(path)
    if any(path.resolve() == Path(source).resolve() for source in read):
        raise ValueError(f"{path} is what this command reads; it will not be overwritten")


def reading(how: Mapping[str, Any]) -> str:
    """How a file was read, in one line."""
    delimiter = {"\t": "tab", " ": "blank", None: None}.get(how.get("delimiter"), repr(how.get("delimiter")))
    parts = [
        " in ".join(filter(None, (how["format"], how["compression"]))),
        how.get("encoding"),
        None if "delimiter" not in how else f"delimiter {delimiter}",
        None if how.get("decimal") is None else f"decimal {how['decimal']}",
        None if "delimiter" not in how else f"{'names in the first line' if how['header'] else 'no header'}",
        f"columns of {', '.join(f'{kind}s: {n}' for kind, n in how['kinds'].items())}",
    ]
    missing = how["missing"]
    if missing["values"]:
        where = ", ".join(f"{name}: {n}" for name, n in missing["values"].items())
        parts.append(f"missing values ({where}): {missing['policy']}, {missing['rows_left_out']} rows left out")
    parts += [f"left out {name!r}: {why}" for name, why in how["left_out"].items()]
    return f"read as {'; '.join(part for part in parts if part)}"


def biases(found: BiasReport) -> dict[str, Any]:
    """Numbers of a bias report: values with the half widths of their intervals."""
    parts = {name: getattr(found, name) for name in ("value", "step_bias", "particle_bias", "extrapolated")}
    numbers = {
        name: None if each is None else {"value": each.value, "half_width": each.half_width(found.confidence)}
        for name, each in parts.items()
    }
    regimes = {"step_regime": found.step_regime, "particle_regime": found.particle_regime}
    return {**numbers, **regimes, "confidence": found.confidence, "cost": found.cost, "notes": list(found.notes)}


def certified(found: Mapping[str, Any]) -> str:
    declined = "".join(
        f"no certificate with l2 {each['l2']:g}: {each['reason']}\n" for each in found.get("declined", ())
    )
    if found["reason"] is not None:
        return f"{declined}no certificate: {found['reason']}"
    bound = f"at most {found['upper']:.3g} above the optimum at confidence {found['confidence']:g}"
    found_between = found.get("optimum")  # files of earlier versions have none
    optimum = f", which is between {found_between[0]:.6g} and {found_between[1]:.6g}" if found_between else ""
    narrow = "" if found.get("covered", True) else "; wells too narrow for the search are not excluded"
    objective = "the objective of the dual variables' Gibbs measure"
    return f"{declined}certified gap {found['gap']:.3g}: {objective} is {bound}{optimum}{narrow}"
