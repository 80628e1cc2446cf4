"""The command line: one module a command, each with ``add``, which describes it to the parser."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence

from mfld import extras
from mfld._core import __version__
from mfld.cli import convert, deconvolve, density, gan, generate, info, predict, run, synth, train
from mfld.cli.options import Parser, option
from mfld.errors import ConvergenceError, DivergenceError
from mfld.experiments.recipe import CHECKS
from mfld.gallery import FailedRunsError
from mfld.standard import Standard


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; what a user can mend is one line on standard error and exit status 2, Ctrl-C 130."""
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what may come next
        extras.library("argcomplete", "completion", "completion").autocomplete(parser)
    with Standard() as standard:
        status = _main(parser, arguments)
    if standard.error is None:
        return status
    return status or 2


def _main(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    options = parser.parse_args(arguments)
    try:
        status: int = options.command(options)
    except (ValueError, ImportError, OSError, MemoryError, DivergenceError, ConvergenceError, FailedRunsError) as error:
        if getattr(options, "leads", True):  # of several processes that fail alike one says so
            print(f"mfld: {_message(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        kept, runs = getattr(options, "checkpoint", None), getattr(options, "runs", None)
        left = "nothing was written"
        if kept and kept.exists():
            left = f"go on with --checkpoint {kept} --resume"
        elif runs and runs.exists():
            left = f"the runs that ended are in {runs}, from which the same command goes on"
        print(f"mfld: interrupted; {left}", file=sys.stderr)
        return 130
    return status


# Of a recipe, as messages of Python write it.
_ARGUMENT = re.compile(rf"(?<!\S)({'|'.join(CHECKS)})=('[^']*'|[\w.+-]*\w)")


def _given(argument: re.Match[str]) -> str:
    name, value = option(argument[1]), argument[2].strip("'")
    return {"True": name, "False": name.replace("--", "--no-", 1)}.get(value, f"{name} {value}")


def _message(error: Exception) -> str:
    """One line, with options in place of Python arguments."""
    text = str(error)
    if isinstance(error, MemoryError):
        return f"not enough memory: {text}"
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    else:
        text = re.sub(r"; accept_other=True .*", "; take another file for --checkpoint", text)
        text = _ARGUMENT.sub(_given, text)
    name, *rest = text.split() or [type(error).__name__]
    return " ".join([option(name) if name in CHECKS else name, *rest])


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="mfld",
        description="Mean-field Langevin dynamics.",
        epilog="Exit status: 0; 1 where an experiment does not show what it claims; 2 for what you can mend, with one "
        "line on standard error; 130 after Ctrl-C. NO_COLOR is obeyed. Completion in bash and zsh, with the extra "
        'completion: eval "$(register-python-argcomplete mfld)".',
        examples=("mfld train digits", "mfld train --help", "mfld run double_well"),
    )
    parser.add_argument("--version", action="version", version=f"mfld {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    for each in (train, predict, convert, density, gan, generate, synth, deconvolve, run, info):
        each.add(commands)
    return parser
