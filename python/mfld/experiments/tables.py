"""Tables of numbers and texts from CSV and NumPy files."""

from __future__ import annotations

import csv
import itertools
import math
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

_DELIMITERS = ("\t", ";", ",", "|")
_MISSING = frozenset(("", "na", "n/a", "nan", "null", "?"))
_CHUNK = 4096  # rows that are held as texts at a time
_LONGEST_TEXT = 200  # characters; a longer one is prose and no category
_INPUTS, _TARGETS = ("inputs", "X", "x"), ("targets", "target", "y")

# As a decimal comma or a separator of thousands; taken for texts, such numbers would become one category each.
_NUMBER_WITH_COMMA = re.compile(r"[+-]?\d+(,\d+)+(\.\d+)?")


@dataclass(frozen=True, eq=False)
class Column:
    """A column of a table.

    Attributes
    ----------
    name : str
    values : ndarray, shape (n,)
        float64; of texts, their places among the categories (int32).
    categories : tuple of str or None
        The distinct texts, sorted; None for numbers.
    """

    name: str
    values: NDArray[Any]
    categories: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of one length.

    Attributes
    ----------
    source : str
        The file.
    columns : tuple of Column
    all_names : list of str
        Names of all columns of the file, those included that were left out.
    header : bool
        Whether the file names its columns; otherwise they are called "1", "2", ...
    rows : ndarray of int, shape (n,)
        How the file counts its rows.
    unit : str
        What it counts: "line" (from 1) or "row" (from 0).
    target : str or None
        The column that the file marks as its target, else the last one; None where ``.npz`` has no targets.
    """

    source: str
    columns: tuple[Column, ...]
    all_names: list[str]
    header: bool
    rows: NDArray[np.int64] = field(repr=False)
    unit: str
    target: str | None

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    def place(self, row: int, column: str) -> str:
        """Place of a value, for a message."""
        return _place(self.source, self.unit, int(self.rows[row]), column)


def read(
    path: str | os.PathLike[str],
    *,
    header: bool | None = None,
    only: Collection[str] | None = None,
    drop: Collection[str] = (),
    target: str | None = None,
) -> Table:
    """Read ``.npz`` by its ending and all else as CSV.

    CSV is UTF-8 text with fields between commas, semicolons, tabs or bars, and quoted by ``"`` where need be. A column
    holds numbers or texts; blanks around them do not count, and blank lines are skipped. ``.npz`` has the arrays
    ``inputs`` (or ``X``) of shape (n, d) and, possibly, ``targets`` (or ``y``, or what `target` says) of shape (n,).

    Parameters
    ----------
    path : path
    header : bool, optional
        Whether the first line of a CSV file has the names. By default it does if it has a text above a number, or if no
        text of it occurs again in its column.
    only : collection of str, optional
        Leave out all other columns.
    drop : collection of str
        Leave out these columns.
    target : str, optional
        Which array of an ``.npz`` file has the targets.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is no such file, or a value is missing, not finite, or of another type than those above it: the message
        has line and column.
    """
    path = Path(path)
    if path.suffix.lower() == ".npz":
        return _read_npz(path, target, frozenset(drop))
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return _read_csv(str(path), file, header, only, frozenset(drop))
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no UTF-8 text") from None


def number(text: str) -> float | None:
    """The number that a field holds, None where it holds something else."""
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def _read_csv(
    source: str, file: TextIO, header: bool | None, only: Collection[str] | None, drop: Collection[str]
) -> Table:
    delimiter = _delimiter(source, file)
    names, header = _names(source, file, delimiter, header)
    _check_drop(source, names, drop)
    used = [place for place, name in enumerate(names) if name not in drop and (only is None or name in only)]

    file.seek(0)
    records = _records(source, file, delimiter)
    if header:
        next(records)
    growing = [_Growing(source, names[place]) for place in used]
    rows: list[NDArray[np.int64]] = []
    while chunk := list(itertools.islice(records, _CHUNK)):
        lines = [line for line, _ in chunk]
        for line, cells in chunk:
            if len(cells) != len(names):
                raise ValueError(f"{source}, line {line}: {len(cells)} fields where the first line has {len(names)}")
        fields = list(zip(*(cells for _, cells in chunk), strict=True))
        for place, column in zip(used, growing, strict=True):
            column.extend(fields[place], lines)
        rows.append(np.array(lines))
    if not rows:
        raise ValueError(f"{source} has a header and no rows")
    columns = tuple(column.finished() for column in growing)
    target = columns[-1].name if columns else None
    return Table(source, columns, names, header, np.concatenate(rows), "line", target)


def _names(source: str, file: TextIO, delimiter: str, header: bool | None) -> tuple[list[str], bool]:
    """Names of the columns, and whether they are in the file."""
    first = list(itertools.islice(_records(source, file, delimiter), _CHUNK))
    if not first:
        raise ValueError(f"{source} is empty")
    names = [cell.strip() for cell in first[0][1]]
    if header is None:
        header = _has_header([cells for _, cells in first])
    if header:
        _check_names(source, first[0][0], names)
        return names, True
    return [str(place) for place in range(1, len(names) + 1)], False


def _records(source: str, file: TextIO, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Records that are not blank, with the lines on which they begin."""
    reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
    line = 1
    try:
        for cells in reader:
            if cells and (len(cells) > 1 or cells[0].strip()):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{source}, line {line}: {error}") from None


def _delimiter(source: str, file: TextIO) -> str:
    """The first delimiter that cuts the first records into equal numbers of fields, else the one that cuts most."""

    def merit(delimiter: str) -> tuple[bool, bool, int]:
        file.seek(0)
        records: list[list[str]] = []
        clean = True
        try:
            for _, cells in itertools.islice(_records(source, file, delimiter), 20):
                records.append(cells)
                # A delimiter within quoted fields leaves parts of their quotes.
                clean = clean and not any('"' in cell for cell in cells)
        except ValueError:
            clean = False
        lengths = [len(cells) for cells in records]
        equal = min(lengths, default=0) == max(lengths, default=0) > 1
        return equal, clean, 0 if equal else max(lengths, default=0)

    merits = {delimiter: merit(delimiter) for delimiter in _DELIMITERS}
    file.seek(0)
    return max(_DELIMITERS, key=merits.__getitem__)


def _has_header(records: list[list[str]]) -> bool:
    first, *others = records
    if not others:
        return all(number(cell) is None for cell in first)
    is_text = [number(cell) is None for cell in first]
    below = [number(cell) is None for cell in others[0]]
    if any(text and not text_below for text, text_below in zip(is_text, below, strict=False)):
        return True
    texts = [place for place, text in enumerate(is_text) if text]
    again = any(place < len(cells) and cells[place] == first[place] for cells in others for place in texts)
    return bool(texts) and not again


def _check_names(source: str, line: int, names: list[str]) -> None:
    for place, name in enumerate(names):
        where = f"{source}, line {line}: column {place + 1}"
        if not name:
            raise ValueError(f"{where} has no name")
        if name in names[:place]:
            raise ValueError(f"{where} has the name {name!r} of column {names.index(name) + 1}")


def _check_drop(source: str, names: list[str], drop: Collection[str]) -> None:
    unknown = [name for name in drop if name not in names]
    if unknown:
        raise ValueError(f"{source} has no column {unknown[0]!r} to drop; it has {_listed(names)}")


class _Growing:
    """A column while it is read."""

    def __init__(self, source: str, name: str) -> None:
        self.name = name
        self._source = source
        self._parts: list[NDArray[Any]] = []
        self._places: dict[str, int] = {}  # of texts, in order of appearance
        self._last = ""  # the value above

    def extend(self, cells: Sequence[str], lines: Sequence[int]) -> None:
        """Take the fields of some more rows, and the lines on which these begin."""
        if not self._places:
            values = _numbers(cells)
            if values is not None:
                self._parts.append(values)
                self._last = cells[-1]
                return
        is_text = bool(self._places) or not self._parts
        codes = np.empty(len(cells), np.int32)
        for i, given in enumerate(cells):
            cell = given.strip()
            code = self._places.get(cell)
            if code is None:
                value = self._check(cell, lines[i])
                if i == 0 and not self._parts:
                    is_text = value is None
                if is_text != (value is None):
                    kinds = ("a number", "texts") if is_text else ("a text", "numbers")
                    raise self._error(
                        lines[i], f"{cell!r} is {kinds[0]} in a column of {kinds[1]} (above it {self._last!r})"
                    )
                code = self._places[cell] = len(self._places)
            codes[i] = code
            self._last = cell
        self._parts.append(codes)

    def finished(self) -> Column:
        values = np.concatenate(self._parts)
        if not self._places:
            return Column(self.name, values)
        categories = sorted(self._places)
        order = np.empty(len(categories), np.int32)
        order[[self._places[text] for text in categories]] = np.arange(len(categories))
        return Column(self.name, order[values], tuple(categories))

    def _check(self, cell: str, line: int) -> float | None:
        """The number in a field, None for a text; or what is wrong with it."""
        value = number(cell)
        if cell.lower() in _MISSING:
            raise self._error(line, f"the value is missing{f' ({cell!r})' if cell else ''}")
        if value is not None and not math.isfinite(value):
            raise self._error(line, f"{cell!r} is no finite number")
        if _NUMBER_WITH_COMMA.fullmatch(cell):
            raise self._error(line, f"{cell!r} has a comma; numbers are written like 1234.5")
        if len(cell) > _LONGEST_TEXT:
            raise self._error(line, f"a text of {len(cell)} characters is no category")
        if "\0" in cell:
            raise self._error(line, f"{cell!r} has a NUL character")
        return value

    def _error(self, line: int, message: str) -> ValueError:
        return ValueError(f"{_place(self._source, 'line', line, self.name)}: {message}")


def _numbers(cells: Sequence[str]) -> NDArray[np.float64] | None:
    """All fields as numbers, or None if there is anything to say about one of them."""
    try:
        values = np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        return None
    return values if np.isfinite(values).all() and "_" not in "".join(cells) else None


def _read_npz(path: Path, target: str | None, drop: Collection[str]) -> Table:
    known = _TARGETS if target is None else (target, *_TARGETS)
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            given, marked = (
                next((name for name in wanted if name in stored.files), None) for wanted in (_INPUTS, known)
            )
            inputs, targets = (None if name is None else np.asarray(stored[name]) for name in (given, marked))
            found = ", ".join(stored.files)
    except OSError:
        raise
    except Exception as error:  # zip, zlib and NumPy have many ways to say so
        raise ValueError(f"{path} is no .npz file of plain arrays") from error
    if inputs is None:
        raise ValueError(f"{path} has no array named inputs or X; it has {found or 'none'}")
    if inputs.ndim != 2 or 0 in inputs.shape or inputs.dtype.kind not in "biuf":
        raise ValueError(
            f"{path}: inputs must be real numbers of shape (n, d), got {inputs.dtype} of shape {inputs.shape}"
        )
    n = len(inputs)
    columns = [Column(str(place + 1), inputs[:, place].astype(np.float64)) for place in range(inputs.shape[1])]
    if marked is not None and targets is not None:
        targets = targets[:, 0] if targets.shape == (n, 1) else targets
        if targets.shape != (n,) or targets.dtype.kind not in "biufU":
            got = f"{targets.dtype} of shape {targets.shape}"
            raise ValueError(f"{path}: {marked} must be numbers or texts of shape ({n},), got {got}")
        if targets.dtype.kind == "U":
            categories, codes = np.unique(targets, return_inverse=True)
            columns.append(Column(marked, codes.astype(np.int32), tuple(map(str, categories))))
        else:
            columns.append(Column(marked, targets.astype(np.float64)))
    names = [column.name for column in columns]
    _check_drop(str(path), names, drop)
    used = tuple(column for column in columns if column.name not in drop)
    table = Table(str(path), used, names, False, np.arange(n), "row", marked)
    for column in used:
        bad = np.flatnonzero(~np.isfinite(column.values))
        if bad.size:
            value = column.values[bad[0]]
            what = "the value is missing (nan)" if np.isnan(value) else f"{value} is no finite number"
            raise ValueError(f"{table.place(bad[0], column.name)}: {what}")
    return table


def _place(source: str, unit: str, row: int, column: str) -> str:
    return f"{source}, {unit} {row}, column {column!r}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
