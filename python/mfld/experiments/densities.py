"""Densities of tables: rows of a file to points, points drawn to rows like those of the file."""

from __future__ import annotations

import csv
import datetime
import io
import json
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mfld import _core, density, files, validation
from mfld.density import Density
from mfld.experiments import tables
from mfld.experiments.encoding import refuse_gaps
from mfld.experiments.tables import Column, Format, Table

_FORMAT = "density 1"
_MOST_CATEGORIES = 50
_MOST_DECIMALS = 6
_LARGEST_WHOLE = 1e16
_LEAST_ROWS = 5
MISSING = ("refuse", "drop")


@dataclass(frozen=True)
class Variable:
    """A column as coordinates of a density: one for numbers, dates and two categories, else one for each category.

    Attributes
    ----------
    name : str
    kind : {"number", "date", "text"}
    unit : str
        That all numbers have.
    categories : tuple of str
        Of texts, sorted.
    low, high : float
        The least and the largest value that were seen.
    decimals : int or None
        That numbers have at most; None where they have more than 6.
    digits : int
        Length up to which zeros in front fill whole numbers; 0: none.
    """

    name: str
    kind: str
    unit: str = ""
    categories: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 1.0
    decimals: int | None = None
    digits: int = 0

    @classmethod
    def of(cls, table: Table, column: Column) -> Variable:
        """The variable of a column.

        Raises
        ------
        ValueError
            If it has too many categories, or values out of range.
        """
        where = f"{table.source}, column {column.name!r}"
        if column.categories is not None:
            if len(column.categories) > _MOST_CATEGORIES:
                raise ValueError(
                    f"{where} has {len(column.categories)} different texts, more than {_MOST_CATEGORIES}; leave it out "
                    "with --drop"
                )
            return cls(column.name, "text", "", column.categories)
        low, high = float(column.values.min()), float(column.values.max())
        if max(abs(low), abs(high)) > 1e100:
            raise ValueError(f"{where} has values up to {max(abs(low), abs(high)):g}, above 1e100")
        if not column.exact:
            raise ValueError(
                f"{where} has whole numbers beyond 2**53, which double precision does not tell apart; leave it out "
                "with --drop"
            )
        decimals = 0 if column.digits else _decimals(column.values)
        return cls(column.name, column.kind, column.unit, (), low, high, decimals, column.digits)

    @property
    def width(self) -> int:
        """Number of coordinates; 0 where all rows are alike."""
        n = len(self.categories)
        if self.kind != "text":
            return int(self.low < self.high)
        return n if n > 2 else n - 1

    @property
    def labels(self) -> list[str]:
        """Names of the coordinates."""
        if self.width > 1:
            return [f"{self.name}={category}" for category in self.categories]
        return [self.name] * self.width

    def points(self, column: Column) -> NDArray[np.float64]:
        """Coordinates of the rows, shape (n, width)."""
        if self.width > 1:
            indicators: NDArray[np.float64] = np.eye(self.width)[column.values]
            return indicators
        values: NDArray[np.float64] = column.values.astype(np.float64)[:, np.newaxis]
        return values[:, : self.width]

    def texts(self, points: NDArray[np.float64], decimal: str) -> list[str]:
        """Texts as a file has them, for points of shape (n, width): within the range that was seen."""
        n = len(points)
        if self.kind == "text":
            codes = np.zeros(n, int)
            if self.width:
                codes = points.argmax(axis=1) if self.width > 1 else (points[:, 0] > 0.5).astype(int)
            return [self.categories[code] for code in codes]
        values = np.clip(points[:, 0], self.low, self.high) if self.width else np.full(n, self.low)
        if self.kind == "date":
            return [_date(value, self.unit == "time", self.decimals == 0) for value in values]
        if self.decimals is not None:
            values = np.round(values, self.decimals) + 0.0  # no negative zero
        # Ten digits of what varies: an offset that all values have takes more. Whole numbers of hundreds of digits are
        # floats that were written so.
        size = max(abs(self.low), abs(self.high))
        offset = math.log10(size / (self.high - self.low)) if self.width else 0.0
        digits = min(10 + max(math.ceil(offset), 0), 17)
        form = f".{digits}g" if self.decimals is None or size >= _LARGEST_WHOLE else f".{self.decimals}f"
        shown = [f"{value:{form}}".zfill(self.digits) for value in values]
        after = "" if not self.unit else self.unit if self.unit == "%" else f" {self.unit}"
        return [text.replace(".", decimal) + after for text in shown]


@dataclass(frozen=True, eq=False)
class DensityModel:
    """Density of the rows of a table, with what it takes to write rows like them.

    Attributes
    ----------
    density : Density
        Over the coordinates of all variables, in their order.
    variables : tuple of Variable
    rows : ndarray, shape (n, p)
        Coordinates of the rows that it was made from; None where it was read from a file.
    provenance : dict
        Where it comes from, and how it was fitted.
    """

    density: Density
    variables: tuple[Variable, ...]
    rows: NDArray[np.float64] | None
    provenance: dict[str, Any]

    @classmethod
    def fit(
        cls,
        source: str | os.PathLike[str],
        how: Format | None = None,
        *,
        drop: Collection[str] = (),
        missing: str = "refuse",
        seed: int = 0,
        num_threads: int | None = None,
        **choices: Any,
    ) -> DensityModel:
        """Fit a density to the rows of a file.

        Parameters
        ----------
        source, how, drop
            As in `mfld.experiments.tables.read`.
        missing : {"refuse", "drop"}
            Rows with a missing value.
        seed, num_threads, **choices
            As in `mfld.density.fit`.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it has fewer than 5 rows, or a column that does not suit: the message says where.
        """
        table, variables, rows = read_rows(source, how, drop=drop, missing=missing)
        found = density.fit(rows, seed=seed, num_threads=num_threads, **choices)
        best = max(found.scores.values()) if found.scores else None
        provenance = {
            "data": str(source),
            "rows": len(rows),
            "seed": seed,
            "version": _core.__version__,
            "smoothing": found.smoothing,
            "prior_rows": found.prior_rows,
            "shrinkage": found.shrinkage,
            "log_likelihood": float(found.density.log_density(rows).mean()),
            "held_out": best,
            **form_of(table),
        }
        return cls(found.density, variables, rows, provenance)

    @property
    def labels(self) -> list[str]:
        """Names of the coordinates."""
        return [label for variable in self.variables for label in variable.labels]

    def most_telling(self, n: int) -> list[int]:
        """Numbers of up to n coordinates for a picture: those of numbers and dates before those of categories."""
        texts = [variable.kind == "text" for variable in self.variables for _ in range(variable.width)]
        return sorted(range(len(texts)), key=texts.__getitem__)[:n]

    def sample(self, n_rows: int, seed: int = 0) -> dict[str, list[str]]:
        """New rows, as texts by the names of the columns.

        Numbers have the decimals of the file and dates their form in ISO 8601; categories are the nearest ones.
        Numbers stay within the range that was seen.
        """
        n_rows = validation.integer("n_rows", n_rows, 1)
        generator = np.random.default_rng(validation.seed(seed))
        return columns_of(self.variables, self.density.sample(n_rows, generator), self.provenance["decimal"])

    def csv(self, columns: Mapping[str, list[str]]) -> str:
        """Rows as a text, with the delimiter of the file that the density was made from, and a header if it had one."""
        return as_csv(columns, self.provenance)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a ``.npz`` file: arrays and one JSON text, nothing that could be executed. Replaced as a whole."""
        metadata = {
            "format": _FORMAT,
            "variables": [asdict(variable) for variable in self.variables],
            "provenance": self.provenance,
        }
        found = self.density
        with files.replacing(path) as file:
            np.savez(
                file,
                metadata=np.array(json.dumps(metadata)),
                weights=found.weights,
                means=found.means,
                factors=found.factors,
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DensityModel:
        """Read a file that `save` wrote.

        Raises
        ------
        OSError
            If it cannot be read.
        ValueError
            If it is no such file, or damaged.
        """
        content = Path(path).read_bytes()
        try:
            arrays = files.arrays(io.BytesIO(content))
            metadata = json.loads(str(arrays.pop("metadata")[()]))
            if metadata["format"] != _FORMAT:
                raise ValueError(f"its format is {metadata['format']}")
            variables = tuple(
                Variable(**{**each, "categories": tuple(each["categories"])}) for each in metadata["variables"]
            )
            checked = {name: validation.array(name, arrays[name], np.float64) for name in arrays}
            width = sum(variable.width for variable in variables)
            validation.shape("means", checked["means"], ("N", width))
            n = len(checked["means"])
            validation.shape("factors", checked["factors"], (n, width, width))
            weights = validation.weights("weights", checked["weights"], (n,), "to match means", np.float64)
            found = Density(
                weights.astype(np.float64), *(checked[name].astype(np.float64) for name in ("means", "factors"))
            )
            return cls(found, variables, None, metadata["provenance"])
        except Exception as error:
            raise ValueError(f"{path} is not a density file of mfld: {error}") from error


def complete(table: Table, missing: str) -> Table:
    """The table without rows that lack a value; or the table itself, which has no such row or is refused."""
    if missing == "drop":
        gone = np.zeros(len(table.rows), bool)
        for column in table.columns:
            gone |= column.missing
        table = table.without(gone) if gone.any() else table
    refuse_gaps(table, table.columns, "; --missing drop leaves such rows out")
    return table


def read_rows(
    source: str | os.PathLike[str], how: Format | None = None, *, drop: Collection[str] = (), missing: str = "refuse"
) -> tuple[Table, tuple[Variable, ...], NDArray[np.float64]]:
    """A table, its columns as variables, and its rows as points, shape (n, p); arguments as in `DensityModel.fit`.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it has fewer than 5 rows, or a column that does not suit: the message says where.
    """
    validation.choice("missing", missing, MISSING)
    table = complete(tables.read(source, replace(how or Format(), digits=True), drop=drop), missing)
    if len(table.rows) < _LEAST_ROWS:
        raise ValueError(f"{table.source} has {len(table.rows)} rows; at least {_LEAST_ROWS} are needed")
    variables = tuple(Variable.of(table, column) for column in table.columns)
    rows = np.concatenate([v.points(c) for v, c in zip(variables, table.columns, strict=True)], axis=1)
    if not rows.shape[1]:
        raise ValueError(f"{table.source} has no column in which rows differ")
    return table, variables, rows


def form_of(table: Table) -> dict[str, Any]:
    """How a table is written, and how many columns it has of each kind."""
    kinds = [column.kind for column in table.columns]
    return {
        "header": table.header,
        "delimiter": table.reading.get("delimiter"),
        "decimal": table.reading.get("decimal"),
        "kinds": {kind: kinds.count(kind) for kind in tables.KINDS if kind in kinds},
    }


def columns_of(variables: Sequence[Variable], points: NDArray[np.float64], decimal: str | None) -> dict[str, list[str]]:
    """Texts of points, shape (n, p), by the names of the columns."""
    columns, place = {}, 0
    for variable in variables:
        columns[variable.name] = variable.texts(points[:, place : place + variable.width], decimal or ".")
        place += variable.width
    return columns


def as_csv(columns: Mapping[str, list[str]], form: Mapping[str, Any]) -> str:
    """Columns as a text, with the delimiter of the table that the form is of, and a header if it had one."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=form["delimiter"] or ",", lineterminator="\n")
    if form["header"]:
        writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def _decimals(values: ArrayLike) -> int | None:
    given = np.asarray(values, np.float64)
    for decimals in range(_MOST_DECIMALS + 1):
        if np.array_equal(np.round(given, decimals), given):
            return decimals
    return None


def _date(days: float, is_time: bool, whole: bool) -> str:
    if is_time:
        seconds = min(round((days % 1) * 86400), 86399)
        return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=round(days * 86400))
    if whole:
        # The day that is nearest, not the one before.
        return (datetime.datetime(1970, 1, 1) + datetime.timedelta(days=round(days))).date().isoformat()
    return moment.isoformat(timespec="seconds")
