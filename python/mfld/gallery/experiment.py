"""Experiments described in files: what a file may say, and how its runs, its claim and its figure are made.

A file is TOML. Its code is a module of `mfld.gallery.library` that makes one run; the file has everything else::

    experiment = "chaos"        # the shipped experiment that it varies; left out, a training by `mfld.experiments`
    title = "..."
    shows = "..."               # what the figure must show
    source = "..."
    seeds = [0, 1, 2]           # every combination of the sweep is run with each

    [data]                      # groups of settings, as the module names them
    n_samples = 300

    [sweep]                     # settings with several values each
    n_particles = [32, 64, 128]

    [claim]                     # a quantity of all runs, and the bound that it must keep
    quantity = "..."
    at_least = 0.8

Three tables change the file that they stand in: ``[small]``, of which the tests run every shipped file; ``[paper]``,
the setting of the source; ``[without]``, in which a part, named by ``part``, is switched off, so that the claim fails.
They hold settings, with or without their groups, ``seeds``, ``sweep`` and ``claim``.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
import os
import textwrap
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from mfld import plots, validation
from mfld.sweeps import Sweep, sweep

LIBRARY = Path(__file__).parent / "library"
Check = Callable[[str, Any], Any]
"""Takes the name of a setting and its value; raises an error that says what is allowed."""

VARIATIONS = ("small", "paper", "without")
_BOUNDS = ("at_least", "at_most")
_TITLE_SIZE = 9
_MOST_IN_A_ROW = 3  # panels, so that they can be read on a page
_LETTERS_PER_INCH = 14  # of a title


class FailedRunsError(RuntimeError):
    """Some runs of an experiment failed; the others are kept."""


class Code(Protocol):
    """Module of an experiment.

    ``SETTINGS`` has groups of settings with their checks. ``run`` makes one run: settings and a seed to a dict of
    numbers and lists. ``figure`` draws all runs on ``PANELS`` axes. ``claim``, where there is one, is the quantity that
    the file bounds.
    """

    SETTINGS: Mapping[str, Mapping[str, Check]]
    PANELS: int

    def run(self, **settings: Any) -> dict[str, Any]: ...

    def figure(self, found: Sweep, panels: Sequence[Any]) -> None: ...

    def claim(self, found: Sweep) -> float: ...


@dataclass(frozen=True)
class Claim:
    """A quantity of an experiment's runs, and the bound that it must keep.

    Attributes
    ----------
    quantity : str
        In words.
    at_least, at_most : float or None
        One of the two.
    """

    quantity: str
    at_least: float | None = None
    at_most: float | None = None

    def holds(self, value: float) -> bool:
        """True if a value keeps the bound; NaN does not."""
        return value >= self.at_least if self.at_least is not None else value <= cast(float, self.at_most)

    def __str__(self) -> str:
        bound = f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"
        return f"{self.quantity}: {bound}"


@dataclass(frozen=True)
class Findings:
    """Runs of an experiment, and what came of its claim.

    Attributes
    ----------
    runs : Sweep
        Its axes are those of the experiment's sweep, and ``seed``.
    value : float or None
        Of the claim's quantity; None where the file claims nothing.
    holds : bool or None
        True if the claim does.
    """

    runs: Sweep
    value: float | None
    holds: bool | None


@dataclass(frozen=True)
class Experiment:
    """Experiment that a file describes.

    Attributes
    ----------
    name : str
        Of the file, without its ending.
    code : str
        Name of the module that makes one run.
    title, shows, source : str
    settings : dict
        Of every run.
    sweep : dict of lists
        Of every combination a run is made.
    seeds : tuple of int
    claim : Claim or None
    variations : dict
        Tables ``small``, ``paper`` and ``without`` of the file.
    """

    name: str
    code: str
    title: str = ""
    shows: str = ""
    source: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    sweep: Mapping[str, list[Any]] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    claim: Claim | None = None
    variations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def varied(self, *names: str) -> Experiment:
        """The experiment with the changes of some of its variations, one after the other.

        Raises
        ------
        ValueError
            If the file has no such variation.

        Examples
        --------
        >>> from mfld import gallery
        >>> small = gallery.load("double_well").varied("small")
        >>> small.settings["n_particles"] < gallery.load("double_well").settings["n_particles"]
        True
        """
        varied = self
        for name in names:
            validation.choice("variation", name, VARIATIONS)
            if name not in self.variations:
                raise ValueError(f"{self.name} has no variation {name!r}")
            table = {key: value for key, value in self.variations[name].items() if key != "part"}
            varied = _with(varied, table, f"{name}.")
        return varied

    def run(
        self, path: str | os.PathLike[str] | None = None, *, executor: Any = None, progress: bool = False
    ) -> Findings:
        """All runs, each kept in a file as soon as it ends, and the claim.

        Parameters
        ----------
        path, executor, progress
            As in `mfld.sweep`: runs that the file holds are not made again.

        Raises
        ------
        FailedRunsError
            If a run failed; the others are kept.

        Examples
        --------
        >>> from mfld import gallery
        >>> gallery.load("double_well").varied("small").run(executor=0).holds
        True
        """
        axes = {**self.sweep, "seed": list(self.seeds)}
        grid = {**{name: [value] for name, value in self.settings.items() if name not in self.sweep}, **axes}
        found = replace(sweep(code(self.code).run, grid, path, executor=executor, progress=progress), axes=axes)
        if found.failures:
            first = found.failures[0]
            last = first["error"].strip().splitlines()[-1]
            swept = {name: value for name, value in first["parameters"].items() if name in axes}
            failed = f"{len(found.failures)} of {len(found.runs)} runs failed, the first, {swept}, by {last}"
            raise FailedRunsError(failed)
        value = None if self.claim is None else float(code(self.code).claim(found))
        return Findings(found, value, None if self.claim is None or value is None else self.claim.holds(value))

    def figure(self, findings: Findings) -> Any:
        """The figure of these runs, with the claim below its title.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        module = code(self.code)
        n_rows = -(-module.PANELS // _MOST_IN_A_ROW)
        n_columns = -(-module.PANELS // n_rows)
        width = 4.8 * n_columns + 0.4  # inches
        drawn = plots.figure(width, 3.8 * n_rows + 0.4)
        panels = np.ravel(drawn.subplots(n_rows, n_columns))
        module.figure(findings.runs, list(panels))
        lines = [self.title or self.name]
        if self.claim is not None:
            said = "holds" if findings.holds else "does not hold"
            bound = str(self.claim).rpartition(": ")[2]
            lines.append(f"{self.claim.quantity}: {findings.value:.3g}; {bound}, {said}")
        letters = round(_LETTERS_PER_INCH * width)
        wrapped = [plots.plain(textwrap.fill(line, letters), most=4 * letters) for line in lines]
        drawn.suptitle("\n".join(wrapped), fontsize=_TITLE_SIZE)
        return drawn


def names() -> list[str]:
    """Names of the shipped experiments.

    Examples
    --------
    >>> from mfld import gallery
    >>> "double_well" in gallery.names()
    True
    """
    return sorted(path.stem for path in LIBRARY.glob("*.toml"))


def code(name: str) -> Code:
    """Module of a shipped experiment."""
    return cast(Code, importlib.import_module(f"{__package__}.library.{name}"))


def load(source: str | os.PathLike[str]) -> Experiment:
    """A shipped experiment by its name, or the experiment of a file.

    Parameters
    ----------
    source : str or path
        A path ends in ``.toml``.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If there is no experiment of this name, or the file is not TOML or says what it may not: the message has the key
        and what is allowed.

    Examples
    --------
    >>> from mfld import gallery
    >>> gallery.load("double_well").sweep["method"]
    ['ULA', 'MALA', 'annealing']
    """
    path = Path(source)
    if path.suffix != ".toml":
        name = validation.choice("experiment", os.fspath(source), names())
        return _read(LIBRARY / f"{name}.toml", shipped=True)
    return _read(path)


def _read(path: Path, shipped: bool = False) -> Experiment:
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} must be TOML: {error}") from None
    try:
        start = Experiment(path.stem, path.stem if shipped else "train")
        if not shipped and "experiment" in table:
            name = validation.choice("experiment", table.pop("experiment"), names())
            # What the file does not say is that of the experiment that it varies, its claim apart.
            start = replace(load(name), name=path.stem, title="", shows="", claim=None, variations={})
        return _checked(_with(start, table, ""))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path.name}: {error}") from None


# ---- what a file says ------------------------------------------------------------------------------------------------


def _with(start: Experiment, table: Mapping[str, Any], where: str) -> Experiment:
    """An experiment with the changes that a table of a file makes to it."""
    groups = code(start.code).SETTINGS
    group_of = {name: group for group, names in groups.items() for name in names}
    fields = _FIELDS if where else _FIELDS | _FILE_FIELDS
    given: dict[str, tuple[str, Any]] = {}  # of settings: the key in the file, and the value
    changes: dict[str, Any] = {"variations": dict(start.variations)}
    for name, value in table.items():
        key = f"{where}{name}"
        if name in groups:
            for inner, each in _table(key, value).items():
                if inner not in groups[name]:
                    elsewhere = f": it belongs to [{group_of[inner]}]" if inner in group_of else ""
                    raise ValueError(_unknown(f"{key}.{inner}", inner, groups[name]) + elsewhere)
                given[inner] = f"{key}.{inner}", each
        elif where and name in group_of:
            given[name] = key, value
        elif name in fields:
            read = fields[name](key, value, start)
            (changes["variations"] if name in VARIATIONS else changes)[name] = read
        else:
            raise ValueError(_unknown(key, name, [*groups, *fields, *(group_of if where else ("experiment",))]))
    settings, swept = dict(start.settings), dict(start.sweep)
    for name, (key, value) in given.items():
        groups[group_of[name]][name](key, value)
        settings[name] = value
        swept.pop(name, None)
    for name, values in changes.pop("sweep", {}).items():
        key = f"{where}sweep.{name}"
        if name not in group_of:
            raise ValueError(_unknown(key, name, group_of))
        swept[name] = _values(key, values, groups[group_of[name]][name])
    return replace(start, settings=settings, sweep=swept, **changes)


def _values(key: str, values: object, check: Check) -> list[Any]:
    """Values of a sweep: a list of at least one, each of which passes a check and stands there once."""
    if not isinstance(values, list) or not values:
        raise ValueError(f"{key} must be a list of values, got {validation.show(values)}")
    for k, value in enumerate(values):
        check(f"{key}[{k}]", value)
        if value in values[:k]:
            raise ValueError(f"{key} must hold each value once, got {value!r} twice")
    return values


def _checked(experiment: Experiment) -> Experiment:
    """The experiment, whose settings are all there and whose variations can be made."""
    module = code(experiment.code)
    needed = [
        name
        for name, each in inspect.signature(module.run).parameters.items()
        if each.default is each.empty and each.kind is each.KEYWORD_ONLY and name != "seed"
    ]
    missing = [name for name in needed if name not in experiment.settings and name not in experiment.sweep]
    if missing:
        group = next(group for group, names in module.SETTINGS.items() if missing[0] in names)
        raise ValueError(f"{group}.{missing[0]} is missing")
    for name, table in experiment.variations.items():
        if name == "without":
            text("without.part", table.get("part"))
        experiment.varied(name)
    return experiment


def _unknown(key: str, name: str, allowed: Iterable[str]) -> str:
    every = list(allowed)
    close = difflib.get_close_matches(name, every, 1)
    guess = f"; did you mean {close[0]!r}?" if close else ""
    return f"{key} is unknown, allowed are {', '.join(every)}{guess}"


def _table(key: str, value: object) -> Mapping[str, Any]:
    return validation.instance(key, value, Mapping, "a table")


def _seeds(key: str, value: object, before: Experiment) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{key} must be a list of integers, got {validation.show(value)}")
    seeds = tuple(validation.seed(each, f"{key}[{k}]") for k, each in enumerate(value))
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"{key} must hold each seed once, got {value}")
    return seeds


def _claim(key: str, value: object, before: Experiment) -> Claim:
    table = _table(key, value)
    for name in table:
        if name not in ("quantity", *_BOUNDS):
            raise ValueError(_unknown(f"{key}.{name}", name, ("quantity", *_BOUNDS)))
    given = [name for name in _BOUNDS if name in table]
    if len(given) != 1:
        raise ValueError(f"{key} must have one of at_least and at_most, got {' and '.join(given) or 'none'}")
    quantity = table.get("quantity", None if before.claim is None else before.claim.quantity)
    bound = validation.real(f"{key}.{given[0]}", table[given[0]])
    return Claim(text(f"{key}.quantity", quantity), **{given[0]: bound})


_Reader = Callable[[str, object, Experiment], Any]

# Of a file and of its variations, and of a file alone.
_FIELDS: dict[str, _Reader] = {"seeds": _seeds, "sweep": lambda key, value, _: _table(key, value), "claim": _claim}
_FILE_FIELDS: dict[str, _Reader] = {
    **dict.fromkeys(("title", "shows", "source"), lambda key, value, _: text(key, value)),
    **dict.fromkeys(VARIATIONS, lambda key, value, _: _table(key, value)),
}


# ---- checks that the modules share -----------------------------------------------------------------------------------


def count(name: str, value: object) -> int:
    """An integer of at least 1."""
    return validation.integer(name, value, 1)


def positive(name: str, value: object) -> float:
    """A finite number above 0."""
    return validation.real(name, value, positive=True)


def non_negative(name: str, value: object) -> float:
    """A finite number of at least 0."""
    return validation.real(name, value, non_negative=True)


def one_of(*allowed: str) -> Check:
    """One of some names."""
    return lambda name, value: validation.choice(name, value, allowed)


def spaced(n_steps: int, n: int) -> list[int]:
    """About n steps from 0 to the last one, evenly spaced, each once."""
    return sorted({round(place) for place in np.linspace(0, n_steps, n)})


def mean(values: Any) -> float:
    """Mean that is NaN where a value is not finite."""
    return float(np.mean(values)) if np.isfinite(values).all() else math.nan


def text(name: str, value: object) -> str:
    """A text."""
    return validation.instance(name, value, str, "a text")


def listed(check: Check) -> Check:
    """A list, each of whose values passes a check."""

    def each(name: str, value: object) -> list[Any]:
        values = validation.instance(name, value, list, "a list")
        return [check(f"{name}[{k}]", item) for k, item in enumerate(values)]

    return each


def spelled(parse: Callable[[str], Any]) -> Check:
    """A text that a function makes a value of."""

    def check(name: str, value: object) -> Any:
        try:
            return parse(text(name, value))
        except ValueError as error:
            raise ValueError(f"{name}, {value!r}: {error}") from None

    return check
