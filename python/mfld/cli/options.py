"""Options that commands share, and how their texts become values."""

from __future__ import annotations

import argparse
import datetime
import glob
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from typing import Any, NoReturn

from mfld import validation
from mfld.experiments import Recipe
from mfld.experiments.encoding import MISSING, TASKS
from mfld.experiments.recipe import CHECKS, METHODS
from mfld.experiments.tables import KINDS


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and whose help may end with examples, a line each."""

    def __init__(self, *arguments: Any, examples: Sequence[str] = (), **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.examples = tuple(examples)

    def format_help(self) -> str:
        shown = "".join(f"  {example}\n" for example in self.examples)
        return super().format_help() + (f"\nexamples:\n{shown}" if shown else "")

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {' '.join(message.split())}\n")


class Names:
    """Names, and files, that a shell may offer where an argument is either."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = names

    def __call__(self, prefix: str, **_: Any) -> list[str]:
        files = [f"{path}/" if os.path.isdir(path) else path for path in glob.glob(f"{glob.escape(prefix)}*")]
        return [name for name in self._names if name.startswith(prefix)] + files


def option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def knob(group: Any, name: str, parse: Callable[[str], Any] | None, metavar: str, text: str, *aliases: str) -> None:
    """An option for a field of the recipe."""
    default = next(field.default for field in fields(Recipe) if field.name == name)
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    flag = option(name)
    text = text if default is None else f"{text} ({shown})"
    if parse is None:
        group.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
        return
    convert = checked(name, parse, CHECKS[name])
    group.add_argument(flag, *aliases, dest=name, type=convert, default=argparse.SUPPRESS, metavar=metavar, help=text)


def by_method(name: str) -> str:
    """The defaults of the methods, in words."""
    shown = {k: ",".join(map(str, v)) if isinstance(v := each[name], tuple) else str(v) for k, each in METHODS.items()}
    others = "".join(f"; {k}: {text}" for k, text in shown.items() if text != shown["mfld"])
    return shown["mfld"] + others


def checked(name: str, parse: Callable[[str], Any], check: Callable[[str, Any], Any]) -> Callable[[str], Any]:
    """From the text of an option to its value, with the checks and messages of the Python argument."""
    kinds = {
        int: "an integer",
        number: "a number",
        numbers: "numbers with commas between them",
        step_size: "a number or 'fuse'",
    }

    def convert(text: str) -> Any:
        try:
            value = parse(text)
        except ValueError as error:
            message = f"must be {kinds[parse]}, got {text!r}" if parse in kinds else str(error)
            raise argparse.ArgumentTypeError(message.removeprefix(f"{name} ")) from None
        try:
            return check(name, value)
        except (TypeError, ValueError) as error:
            raise argparse.ArgumentTypeError(str(error).removeprefix(f"{name} ")) from None

    return convert


def add_data(data: Any, names: str) -> None:
    kinds = "text with delimiters, Parquet, Arrow, JSON lines or .npz, compressed or not; a folder of mfld convert"
    source = data.add_argument(
        "data", metavar="DATA", help=f"file or URL ({kinds}), - for standard input, or one of {names}"
    )
    source.completer = Names(names.split(", "))
    data.add_argument("--target", metavar="NAME", help="column to predict, by name or number from 1 (the last one)")
    data.add_argument("--task", choices=TASKS, help="by default classification of texts or few whole numbers")
    data.add_argument("--header", choices=("yes", "no"), help="whether the first line has names (found out)")
    data.add_argument(
        "--missing",
        choices=MISSING,
        default="refuse",
        help="missing values: refuse them, drop their rows, or impute the median with a feature that says so (refuse)",
    )
    add_drop_and_types(data)
    add_format(data)
    knob(data, "test_share", number, "SHARE", "of the rows, held out")


def add_drop_and_types(data: Any) -> None:
    """Options for which columns there are, and what they hold."""
    data.add_argument(
        "--drop", action="append", default=[], metavar="NAME", help="leave this column out, or this number; repeatable"
    )
    data.add_argument(
        "--type",
        dest="types",
        action="append",
        default=[],
        type=_type,
        metavar="NAME=KIND",
        help=f"what a column holds: {', '.join(KINDS)} (found out); repeatable",
    )


def add_format(group: Any) -> None:
    """Options for how a file is written."""
    group.add_argument("--delimiter", type=_delimiter, metavar="CHAR", help="between fields; or tab, blank (found out)")
    group.add_argument("--decimal", choices=(".", ","), help="decimal sign (found out)")
    group.add_argument("--encoding", metavar="NAME", help="such as cp1252 (UTF-8, or UTF-16 with its mark)")
    group.add_argument(
        "--missing-values",
        type=lambda text: tuple(part.strip() for part in text.split(",")),
        metavar="TEXT[,TEXT...]",
        help="texts that stand for no value, in place of NA, ?, -, null and their like; '' for the empty one only",
    )


def format_options(options: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ("delimiter", "decimal", "encoding", "missing_values")}


def add_num_threads(group: Any) -> None:
    group.add_argument(
        "--num-threads",
        type=checked("num_threads", int, lambda name, value: validation.integer(name, value, 1)),
        metavar="N",
        help="threads; they never change the result",
    )


def _delimiter(text: str) -> str:
    return {"tab": "\t", "\\t": "\t", "blank": " "}.get(text, text)


def _type(text: str) -> tuple[str, str]:
    name, _, kind = text.rpartition("=")
    if not name or kind not in KINDS:
        raise argparse.ArgumentTypeError(f"must be NAME=KIND with one of {', '.join(KINDS)}, got {text!r}")
    return name, kind


def number(text: str) -> float:
    return float(text)


def step_size(text: str) -> float | str:
    return text if text == "fuse" else number(text)


def numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def column_bounds(text: str) -> tuple[str, tuple[float, float]]:
    """``NAME=LOW:HIGH``, of numbers, or of dates like 2020-12-31, as days since 1970."""
    name, _, ends = text.rpartition("=")
    low, colon, high = ends.partition(":")
    try:
        if not name or not colon:
            raise ValueError
        return name, (_end(low), _end(high))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be NAME=LOW:HIGH with two numbers, or dates like 2020-12-31, got {text!r}"
        ) from None


def _end(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float((datetime.date.fromisoformat(text.strip()) - datetime.date(1970, 1, 1)).days)
