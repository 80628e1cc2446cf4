"""Tables of numbers, dates and texts from CSV, Parquet, Arrow, JSON lines and NumPy files."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import math
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from mfld import files
from mfld.experiments import fields, sources
from mfld.experiments.convert import Stored
from mfld.experiments.fields import FieldError, looks_like_name, looks_like_number, number
from mfld.experiments.sources import Source

KINDS = ("number", "text", "date")

_DELIMITERS = ("\t", ";", ",", "|")
_BLANKS = " "  # as a delimiter: any number of blanks
_CHUNK = 4096  # rows that are held as texts at a time
_LEAST_BYTES = 1 << 18  # below, pyarrow takes longer to load than it saves
_SAMPLE = 200  # of them tell what columns hold, where it is open whether the first line has names
_LONGEST_FIELD = 2**31 - 1
_INPUTS, _TARGETS = ("inputs", "X", "x"), ("targets", "target", "y")
_LONGEST_SEP = 16
_BYTES = 20  # of memory for a number of a table that is trained on: itself, scaled, and as the run has it
_LARGEST_WHOLE = 2**53  # up to which float64 has all whole numbers
_SEP = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)


@dataclass(frozen=True)
class Format:
    """How a file is to be read; whatever is None is found out.

    Attributes
    ----------
    header : bool, optional
        Whether the first line of a text has names.
    delimiter : str, optional
        One character between fields; a blank stands for any number of blanks.
    decimal : {".", ","}, optional
        The decimal sign.
    encoding : str, optional
        Of a text, such as "cp1252".
    missing_values : collection of str, optional
        Texts that stand for no value, beside the empty one; by default `mfld.experiments.fields.MISSING`.
    types : dict
        Kinds ("number", "text", "date") of columns by their names.
    dates : dict
        What comes first, "day" or "month", in the dates of columns like 01/02/2024, by their names.
    digits : bool
        Whether columns of whole numbers say how they are written: `Column.digits` and `Column.exact`. Of a text it
        takes another reading of them.
    """

    header: bool | None = None
    delimiter: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    missing_values: Collection[str] | None = None
    types: Mapping[str, str] = field(default_factory=dict)
    dates: Mapping[str, str] = field(default_factory=dict)
    digits: bool = False

    def __post_init__(self) -> None:
        delimiter = self.delimiter
        if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n\0' or delimiter.isalnum()):
            raise ValueError(f"delimiter must be one character and no letter, digit or quote; got {delimiter!r}")
        if self.decimal not in (None, ".", ","):
            raise ValueError(f"decimal must be '.' or ',', got {self.decimal!r}")
        for name, kind in self.types.items():
            if kind not in KINDS:
                raise ValueError(f"types must be {', '.join(KINDS)}; got {kind!r} for {name!r}")
        for name, first in self.dates.items():
            if first not in ("day", "month"):
                raise ValueError(f"dates must be 'day' or 'month', got {first!r} for {name!r}")


@dataclass(frozen=True, eq=False)
class Column:
    """A column of a table.

    Attributes
    ----------
    name : str
    values : ndarray, shape (n,)
        float64, NaN where there is none; of texts, their places among the categories (int32), -1 where there is none.
    categories : tuple of str or None
        The distinct texts, sorted; None for numbers.
    kind : {"number", "date", "text"}
        Dates are days since 1970, times parts of a day.
    unit : str
        That all numbers of the file have: a percent sign, a currency, a word.
    first : str
        What comes first in dates, "day" or "month", where the order is one of these two.
    gap : tuple of int and str, optional
        The first row without a value, and what stands there.
    digits : int
        Length of all numbers where zeros in front fill them up, as in 00042, and `Format.digits` asks; else 0.
    exact : bool
        False where whole numbers beyond 2**53 were seen, which float64 rounds; of a text where `Format.digits` asks.
    """

    name: str
    values: NDArray[Any]
    categories: tuple[str, ...] | None = None
    kind: str = "number"
    unit: str = ""
    gap: tuple[int, str] | None = None
    first: str = ""
    digits: int = 0
    exact: bool = True

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Rows without a value."""
        return np.isnan(self.values) if self.categories is None else self.values < 0


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
    reading : dict
        How the file was read: format, compression, encoding, delimiter, decimal sign, columns left out and why.
    """

    source: str
    columns: tuple[Column, ...]
    all_names: list[str]
    header: bool
    rows: NDArray[np.int64] = field(repr=False)
    unit: str
    target: str | None
    reading: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    def place(self, row: int, column: str) -> str:
        """Place of a value, for a message."""
        return _place(self.source, self.unit, int(self.rows[row]), column)

    def without(self, left_out: NDArray[np.bool_]) -> Table:
        """The table without these rows."""
        kept = ~left_out
        columns = []
        for column in self.columns:
            values, categories = column.values[kept], column.categories
            if categories is not None:
                used = np.unique(values[values >= 0])
                places = np.full(len(categories) + 1, -1, np.int32)
                places[used] = np.arange(len(used))
                values, categories = places[values], tuple(categories[place] for place in used)
            columns.append(replace(column, values=values, categories=categories, gap=None))
        columns = [replace(each, gap=_first_gap(each)) for each in columns]
        return replace(self, columns=tuple(columns), rows=self.rows[kept])


def read(
    path: str | os.PathLike[str],
    how: Format | None = None,
    *,
    only: Collection[str] | None = None,
    drop: Collection[str] = (),
    target: str | None = None,
) -> Table:
    """Read a file, standard input (``-``) or URL: by its content, behind gzip, bzip2, xz or zstd.

    Texts have fields between commas, semicolons, tabs, bars or blanks, and quoted by ``"`` where need be. Blanks around
    fields do not count, and blank lines are skipped. A column holds numbers, dates or texts:
    `mfld.experiments.fields.meaning` has what is taken for what. The first line has names if it has names above
    numbers, or numbers that run on (0, 1, 2) above others, or if no text of it occurs again in its column. JSON is one
    object a line. ``.npz`` has the arrays ``inputs`` (or ``X``) of shape (n, d) and, possibly, ``targets`` (or ``y``,
    or what `target` says) of shape (n,). A folder that `convert` wrote is read as a whole, and refused where memory is
    too small for it. Parquet, Arrow and zstd need pyarrow, and large CSV files are read several times faster with it.

    Parameters
    ----------
    path : path
    how : Format, optional
    only : collection of str, optional
        Leave out all other columns.
    drop : collection of str
        Leave out these columns, by name or number from 1.
    target : str, optional
        Which array of an ``.npz`` file has the targets.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is no such file, or a value is not finite, or its column has no one meaning: the message has line and
        column.
    ImportError
        If pyarrow is needed and not there.
    """
    how = how or Format()
    if os.path.isfile(os.path.join(path, "columns.json")):
        return _read_folder(Stored.of(path), only, drop)
    source = sources.opened(path)
    with source.file:
        if source.kind == "npz":
            return _read_npz(source, target, drop)
        if source.kind == "csv":
            encoding = sources.text_encoding(source, how.encoding)
            with sources.as_text(source, encoding) as text:
                return _Text(source, how, encoding, text).table(only, drop)
        table = _read_json(source, how, only, drop) if source.kind == "json" else _read_arrow(source, how, only, drop)
    return table


@dataclass
class _Raw:
    """A column as its distinct texts, in order of appearance, and which of them each row has."""

    codes: NDArray[np.int32]
    texts: list[str]


class _Text:
    """A file of lines and fields, while it is read."""

    def __init__(self, source: Source, how: Format, encoding: str, file: TextIO) -> None:
        self.name, self.encoding = source.name, encoding
        self._source, self._how, self._file = source, how, file
        said = _SEP.fullmatch(file.readline(_LONGEST_SEP))
        self._skipped = int(said is not None)  # lines above the first
        self.quote = '"'
        self.delimiter = how.delimiter or (said[1] if said is not None else self._found_delimiter())
        if self._has_single_quotes():
            self.quote = "'"

    def table(self, only: Collection[str] | None, drop: Collection[str]) -> Table:
        names, header, notes = self._names()
        dropped = _dropped(self.name, names, drop)
        _check_types(self.name, names, self._how)
        used = [
            place
            for place, name in enumerate(names)
            if place not in dropped and place not in notes and (only is None or name in only)
        ]
        parts, rows = self._quickly(names, header, used) or self._slowly(names, header, used)
        columns, decimal = self._meant(names, header, used, parts, rows)
        left_out = {names[place]: why for place, why in notes.items() if place not in dropped and only is None}
        # A column without a name and without a value, which a delimiter at the end of each line makes.
        empty = [] if header else [column for column in columns[-1:] if len(columns) > 1 and column.missing.all()]
        columns = [column for column in columns if not any(column is each for each in empty)]
        left_out |= {column.name: "it is empty" for column in empty}
        reading = {
            "format": "CSV",
            "compression": self._source.compression,
            "encoding": self.encoding.removesuffix("-sig"),
            "delimiter": self.delimiter,
            "decimal": decimal,
            "left_out": left_out,
        }
        last = columns[-1].name if columns else None
        return Table(self.name, tuple(columns), names, header, rows, "line", last, reading)

    def _records(self, delimiter: str | None = None) -> Iterator[tuple[int, list[str]]]:
        """Records that are not blank, with the lines on which they begin."""
        delimiter = delimiter or self.delimiter
        self._file.seek(0)
        for _ in range(self._skipped):
            self._file.readline()
        blanks = delimiter == _BLANKS
        # As numpy.savetxt writes its header.
        lines: Iterator[str] = itertools.chain((self._file.readline().removeprefix("# "),), self._file)
        if blanks:
            lines = (re.sub(r"[ \t]+", " ", line.strip(" \t")) for line in lines)
        reader = csv.reader(lines, delimiter=delimiter, quotechar=self.quote, skipinitialspace=not blanks, strict=True)
        line = 1 + self._skipped
        try:
            with _any_length():
                for cells in reader:
                    if cells and (len(cells) > 1 or cells[0].strip()):
                        yield line, cells
                    line = reader.line_num + 1 + self._skipped
        except csv.Error as error:
            raise ValueError(f"{self.name}, line {line}: {error}") from None

    def _found_delimiter(self) -> str:
        """The one that cuts the first records into equal numbers of fields, most of them numbers."""

        def merit(delimiter: str) -> tuple[bool, bool, float, int]:
            records: list[list[str]] = []
            clean = True
            try:
                for _, cells in itertools.islice(self._records(delimiter), 20):
                    records.append(cells)
                    # A delimiter within quoted fields leaves parts of their quotes.
                    clean = clean and not any('"' in cell for cell in cells)
            except ValueError:
                clean = False
            lengths = [len(_trimmed(cells, len(records[0]))) for cells in records]
            most = max(lengths, default=0)
            equal = min(lengths, default=0) == most > 1
            cells = [cell for record in records for cell in record]
            share = sum(map(looks_like_number, cells)) / max(len(cells), 1)
            return equal, clean, share if equal else 0.0, 0 if equal else most

        merits = {delimiter: merit(delimiter) for delimiter in _DELIMITERS}
        if not any(equal for equal, *_ in merits.values()) and merit(_BLANKS)[0]:
            return _BLANKS
        return max(_DELIMITERS, key=merits.__getitem__)

    def _has_single_quotes(self) -> bool:
        """True if all fields of some column are between single quotes."""
        try:
            sample = [cells for _, cells in itertools.islice(self._records(), 20)]
        except ValueError:
            return False
        width = min(map(len, sample), default=0)
        return any(all(_is_quoted(cells[place].strip()) for cells in sample) for place in range(width))

    def _names(self) -> tuple[list[str], bool, dict[int, str]]:
        """Names of the columns, whether they are in the file, and which are left out for a reason."""
        sample = list(itertools.islice(self._records(), _CHUNK))
        if not sample:
            raise ValueError(f"{self.name} is empty")
        line, first = sample[0]
        body = [_trimmed(cells, len(first)) for _, cells in sample[1:]]
        header = self._how.header
        if header is None:
            header = _has_header(self.name, line, first, body)
        if not header:
            return [str(place) for place in range(1, len(first) + 1)], False, {}
        names = [cell.strip() for cell in first]
        notes: dict[int, str] = {}
        for place, name in enumerate(names):
            if name:
                if name in names[:place]:
                    where = f"{self.name}, line {line}: column {place + 1}"
                    raise ValueError(f"{where} has the name {name!r} of column {names.index(name) + 1}")
                continue
            names[place] = f"column {place + 1}"
            cells = [cells[place].strip() for cells in body if len(cells) == len(first)]
            if cells and not any(cells):
                notes[place] = "it is empty"
            elif place == 0 and _is_index(cells):
                notes[place] = "it counts the rows"
        return names, True, notes

    def _as_texts(self, name: str) -> bool:
        """True if the option of some meaning keeps plain numbers of a column from being what they seem."""
        how = self._how
        gone = any(number(text) is not None for text in how.missing_values or ())
        return name in how.types or how.decimal == "," or gone

    def _slowly(
        self, names: list[str], header: bool, used: list[int]
    ) -> tuple[dict[int, NDArray[np.float64] | _Raw], NDArray[np.int64]]:
        """Columns of plain numbers as such, others as texts; read a piece at a time."""
        as_texts = {place for place in used if self._as_texts(names[place])}
        parts, rows = self._pass(names, header, used, as_texts)
        late = [place for place in used if place not in parts]  # with a text below numbers
        if late:
            parts |= self._pass(names, header, late, set(late))[0]
        return parts, rows

    def _pass(
        self, names: list[str], header: bool, used: list[int], as_texts: Collection[int]
    ) -> tuple[dict[int, NDArray[np.float64] | _Raw], NDArray[np.int64]]:
        records = self._records()
        if header:
            next(records)
        growing = {place: _Growing(place in as_texts) for place in used}
        rows: list[NDArray[np.int64]] = []
        while chunk := list(itertools.islice(records, _CHUNK)):
            cut = [_trimmed(cells, len(names)) for _, cells in chunk]
            for (line, _), cells in zip(chunk, cut, strict=True):
                if len(cells) != len(names):
                    raise ValueError(
                        f"{self.name}, line {line}: {len(cells)} fields where the first line has {len(names)}"
                    )
            columns = list(zip(*cut, strict=True))
            for place, column in growing.items():
                column.extend(columns[place])
            rows.append(np.array([line for line, _ in chunk]))
        if not rows:
            raise ValueError(f"{self.name} has a header and no rows")
        finished = {place: column.finished() for place, column in growing.items()}
        return {place: part for place, part in finished.items() if part is not None}, np.concatenate(rows)

    def _quickly(
        self, names: list[str], header: bool, used: list[int]
    ) -> tuple[dict[int, NDArray[np.float64] | _Raw], NDArray[np.int64]] | None:
        """The same by pyarrow; None where it is not there, or the file is small or not plain throughout."""
        if self.encoding not in ("utf-8", "utf-8-sig") or self.delimiter == _BLANKS or self.quote != '"' or not used:
            return None
        large = self._source.file.seek(0, os.SEEK_END) >= _LEAST_BYTES
        sample = [cells for _, cells in itertools.islice(self._records(), int(header), _SAMPLE)]
        if not large or any(len(cells) != len(names) for cells in sample):
            return None
        plain = {
            place: not self._as_texts(names[place]) and _numbers([cells[place] for cells in sample]) is not None
            for place in used
        }
        above = header + self._skipped
        table = _arrow_table(self._source, self.delimiter, len(names), above, plain)
        if table is None:
            return None
        parts: dict[int, NDArray[np.float64] | _Raw] = {}
        for place in used:
            column = table[str(place)]
            if plain[place]:
                parts[place] = values = _unwrapped(column, np.float64)
                odd = not np.isfinite(values).all()
            else:
                coded = column.combine_chunks().dictionary_encode()
                texts = coded.dictionary.to_pylist()
                parts[place] = _Raw(_unwrapped(coded.indices, np.int32), texts)
                odd = any('"' in text for text in texts)  # after a blank it means another thing to pyarrow
            if odd:
                return None
        return parts, np.arange(len(table)) + 1 + above

    def _meant(
        self,
        names: list[str],
        header: bool,
        used: list[int],
        parts: dict[int, NDArray[np.float64] | _Raw],
        rows: NDArray[np.int64],
    ) -> tuple[list[Column], str | None]:
        """Columns, and the decimal sign that they have in common where one shows."""
        how, signs = self._how, set()
        fractions: list[int] = []  # columns of plain numbers with a point
        for place, part in parts.items():
            if isinstance(part, _Raw):
                with contextlib.suppress(FieldError):
                    signs.add(_meaning(part, names[place], how).decimal)
            elif (part != np.floor(part)).any():
                fractions.append(place)
        signs.discard("")
        if signs == {","} and how.decimal is None and fractions:
            # 1.234 among 1,5 is 1234: the texts of these columns tell.
            again = self._pass(names, header, fractions, set(fractions))[0]
            for place, part in again.items():
                assert isinstance(part, _Raw)
                if _meaning(part, names[place], how).decimal == ".":
                    signs.add(".")
                else:
                    parts[place] = part
        elif fractions:
            signs.add(".")
        decimal = how.decimal or (next(iter(signs)) if len(signs) == 1 else None)
        columns = {place: _column(self.name, "line", rows, names[place], parts[place], how, decimal) for place in used}
        if how.digits:
            whole = [place for place in used if _is_whole(columns[place])]
            texts = {place: part for place, part in parts.items() if place in whole and isinstance(part, _Raw)}
            plain = [place for place in whole if place not in texts]
            for place, part in {**texts, **(self._pass(names, header, plain, set(plain))[0] if plain else {})}.items():
                assert isinstance(part, _Raw)
                given = [text.strip() for text in part.texts if not fields.is_missing(text, how.missing_values)]
                columns[place] = _as_written(columns[place], given)
        return [columns[place] for place in used], decimal


def _is_whole(column: Column) -> bool:
    values = column.values[~column.missing]
    return column.kind == "number" and bool((values == np.floor(values)).all())


def _as_written(column: Column, texts: Sequence[str]) -> Column:
    """A column of whole numbers with what its texts say about them."""
    lengths = {len(text) if text.isdecimal() else 0 for text in texts}
    filled = len(lengths) == 1 and any(text[0] == "0" for text in texts) and lengths != {1}
    whole = [text.lstrip("+-") for text in texts]
    exact = all(int(text) <= _LARGEST_WHOLE for text in whole if text.isdecimal())
    return replace(column, digits=lengths.pop() if filled else 0, exact=exact)


def _arrow_table(source: Source, delimiter: str, width: int, above: int, plain: Mapping[int, bool]) -> Any:
    """Columns, called "0", "1", ..., of lines below the first ones: numbers where they are plain, else texts.

    None where pyarrow is not there, some field does not fit, or rows are no lines: blank ones, or line ends in fields.
    """
    try:
        arrow, reader = sources.engine("pyarrow", "this"), sources.engine("pyarrow.csv", "this")
    except ImportError:
        return None
    source.file.seek(0)
    content = source.file.read()
    end = len(content)
    while content[end - 1] in (b"\r\n" if delimiter == "\t" else b"\r\n \t"):
        end -= 1
    types = {str(place): arrow.float64() if number else arrow.string() for place, number in plain.items()}
    try:
        table = reader.read_csv(
            arrow.BufferReader(memoryview(content)[:end]),
            reader.ReadOptions(column_names=[str(place) for place in range(width)], skip_rows=above),
            reader.ParseOptions(delimiter=delimiter, ignore_empty_lines=False),
            reader.ConvertOptions(
                column_types=types, include_columns=list(types), null_values=[], strings_can_be_null=False
            ),
        )
    except arrow.ArrowException:
        return None
    return table if len(table) == content.count(b"\n", 0, end) + 1 - above else None


def _unwrapped(column: Any, dtype: type[np.generic]) -> NDArray[Any]:
    """The numbers of a column of pyarrow without gaps; its own ``to_numpy`` imports pandas, which takes longer."""
    chunks = getattr(column, "chunks", [column])
    parts = [np.frombuffer(own.buffers()[1], dtype, len(own), own.offset * np.dtype(dtype).itemsize) for own in chunks]
    return np.concatenate(parts)


class _Growing:
    """A column while it is read."""

    def __init__(self, as_texts: bool) -> None:
        self._as_texts = as_texts
        self._late = False
        self._parts: list[NDArray[Any]] = []
        self._places: dict[str, int] = {}  # of texts, in order of appearance

    def extend(self, cells: Sequence[str]) -> None:
        """Take the fields of some more rows."""
        if self._late:
            return
        if not self._as_texts:
            values = _numbers(cells)
            if values is not None:
                self._parts.append(values)
                return
            self._late = bool(self._parts)
            self._as_texts = True
            if self._late:
                self._parts = []
                return
        places = self._places
        self._parts.append(np.array([places.setdefault(cell, len(places)) for cell in cells], np.int32))

    def finished(self) -> NDArray[np.float64] | _Raw | None:
        """The column; None if a text came below numbers."""
        if self._late:
            return None
        values = np.concatenate(self._parts)
        return _Raw(values, list(self._places)) if self._as_texts else values


def _column(
    source: str,
    unit: str,
    rows: NDArray[np.int64],
    name: str,
    part: NDArray[np.float64] | _Raw,
    how: Format,
    decimal: str | None,
) -> Column:
    """A column from plain numbers, or from texts by their meaning."""
    if not isinstance(part, _Raw):
        return Column(name, part)
    try:
        try:
            found = _meaning(part, name, how)
        except FieldError as error:
            if decimal is None or not error.open_decimal:
                raise
            found = _meaning(part, name, how, decimal)
        if decimal == "," and found.kind == "number" and not found.decimal:
            found = _meaning(part, name, how, decimal)
    except FieldError as error:
        raise _named(source, unit, rows, name, part, error) from None
    absent = np.array(found.missing, bool)[part.codes]
    gaps = np.flatnonzero(absent)
    gap = (int(gaps[0]), part.texts[part.codes[gaps[0]]].strip()) if gaps.size else None
    if found.kind != "text":
        return Column(name, np.array(found.numbers)[part.codes], None, found.kind, found.unit, gap, found.first)
    categories = sorted({text for text, gone in zip(found.texts, found.missing, strict=True) if not gone})
    places = {text: place for place, text in enumerate(categories)}
    order = [-1 if gone else places[text] for text, gone in zip(found.texts, found.missing, strict=True)]
    return Column(name, np.array(order, np.int32)[part.codes], tuple(categories), "text", "", gap)


def _meaning(part: _Raw, name: str, how: Format, decimal: str | None = None) -> fields.Meaning:
    kind = how.types.get(name)
    return fields.meaning(
        part.texts,
        kind=kind,
        decimal=decimal or how.decimal,
        missing=how.missing_values,
        first=how.dates.get(name),
    )


def _named(source: str, unit: str, rows: NDArray[np.int64], name: str, part: _Raw, error: FieldError) -> ValueError:
    """An error with the first place of the text that it is about, and the text above where this tells more."""
    message = str(error)
    if error.open_decimal:
        message += "; --decimal . or , tells"
    if error.place is None:
        return ValueError(f"{source}, column {name!r}: {message}")
    row = int(np.flatnonzero(part.codes == error.place)[0])
    if message.endswith(("column of numbers", "column of texts")) and row:
        message += f" (above it {part.texts[part.codes[row - 1]].strip()!r})"
    return ValueError(f"{_place(source, unit, int(rows[row]), name)}: {message}")


def _has_header(source: str, line: int, first: list[str], body: list[list[str]]) -> bool:
    """True if a first line has names.

    Names above numbers make a header, numbers above numbers make none, unless they run on by 1 (0, 1, 2, or years) and
    the numbers below do not. Without numbers below, it is one if no text of it comes again in its column.

    Raises
    ------
    ValueError
        If whole numbers run on above whole numbers, or stand beside names: they may be both.
    """
    cells = [cell.strip() for cell in first]
    if not body:
        return all(map(looks_like_name, cells))
    rows = [[cell.strip() for cell in record] for record in body[:_SAMPLE] if len(record) == len(first)]
    regular = [place for place in range(len(cells)) if _is_regular([record[place] for record in rows])]
    named = [place for place, cell in enumerate(cells) if looks_like_name(cell)]
    numbered = [place for place in regular if looks_like_number(cells[place]) or fields.looks_like_date(cells[place])]
    above = [place for place in named if place in regular]
    whole = all(cells[place].isdecimal() for place in numbered)
    runs = len(numbered) > 1 and _runs([cells[place] for place in numbered])
    below = [[record[place] for place in numbered] for record in rows]
    if runs and not any(map(_runs, below)) and any(set(cell) & set(".,") for record in below for cell in record):
        return True
    many = len(numbered) > 2 or all(_is_year(cells[place]) for place in numbered)
    if (runs and many and not any(map(_runs, below))) or (numbered and above and whole):
        shown = ", ".join(cells[:5])
        raise ValueError(f"{source}, line {line}: names or numbers ({shown})? Say which (--header yes or --header no)")
    if numbered or above:
        return not numbered
    again = any(place < len(record) and record[place].strip() == cells[place] for record in body for place in named)
    return bool(named) and not again


def _is_regular(cells: Sequence[str]) -> bool:
    """True if most of the cells are numbers or dates."""
    there = [cell for cell in cells if not fields.is_missing(cell)]
    return 2 * sum(looks_like_number(cell) or fields.looks_like_date(cell) for cell in there) > len(there)


def _runs(cells: Sequence[str]) -> bool:
    """True if cells are whole numbers that go up by 1, from 0 or 1, or years."""
    if not cells or not all(cell.isdecimal() for cell in cells):
        return False
    values = [int(cell) for cell in cells]
    steps = {later - earlier for earlier, later in itertools.pairwise(values)}
    return steps <= {1} and (values[0] in (0, 1) or all(map(_is_year, cells)))


def _is_quoted(cell: str) -> bool:
    return len(cell) > 1 and cell[0] == cell[-1] == "'"


def _is_year(cell: str) -> bool:
    return cell.isdecimal() and 1800 <= int(cell) <= 2200


def _is_index(cells: Sequence[str]) -> bool:
    """True if cells count rows, from 0 or 1."""
    if not cells or cells[0] not in ("0", "1"):
        return False
    return all(cell == str(place) for place, cell in enumerate(cells, int(cells[0])))


def _trimmed(cells: list[str], width: int) -> list[str]:
    """A record without the empty field behind a delimiter that the first line does not have."""
    return cells[:-1] if len(cells) == width + 1 and not cells[-1].strip() else cells


@contextlib.contextmanager
def _any_length() -> Iterator[None]:
    """Fields may be of any length: a text beyond the limit of the csv module may stand in a column that is dropped."""
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _dropped(source: str, names: list[str], drop: Collection[str]) -> set[int]:
    """Places of columns by their names, or else numbers from 1."""
    places = set()
    for each in drop:
        if each in names:
            places.add(names.index(each))
        elif each.isdecimal() and 1 <= int(each) <= len(names):
            places.add(int(each) - 1)
        else:
            raise ValueError(f"{source} has no column {each!r} to drop; it has {_listed(names)}")
    return places


def _check_types(source: str, names: list[str], how: Format) -> None:
    """Raise ValueError where the meaning of a column is said that is not there."""
    unknown = next((name for name in how.types if name not in names), None)
    if unknown is not None:
        raise ValueError(f"{source} has no column {unknown!r}; it has {_listed(names)}")


def _numbers(cells: Sequence[str]) -> NDArray[np.float64] | None:
    """All fields as numbers, or None if there is anything to say about one of them."""
    try:
        values = np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        return None
    return values if np.isfinite(values).all() and "_" not in "".join(cells) else None


def _is_exact(whole: NDArray[np.float64]) -> bool:
    """True if these were whole numbers that float64 has all of: 2**53 itself may have been the one above."""
    return not (np.abs(whole) >= _LARGEST_WHOLE).any()


def _first_gap(column: Column) -> tuple[int, str] | None:
    gaps = np.flatnonzero(column.missing)
    return (int(gaps[0]), "") if gaps.size else None


def _of_values(
    source: Source,
    how: Format,
    columns: dict[str, Any],
    rows: NDArray[np.int64],
    unit: str,
    shown: str,
    only: Collection[str] | None,
    drop: Collection[str],
) -> Table:
    """A table of typed columns: arrays of numbers with NaN for none, texts, or finished columns."""
    names = list(columns)
    if not names:
        raise ValueError(f"{source.name} has no columns")
    if not len(rows):
        raise ValueError(f"{source.name} has no rows")
    dropped = _dropped(source.name, names, drop)
    _check_types(source.name, names, how)
    finished: list[Column] = []
    for place, name in enumerate(names):
        if place in dropped or (only is not None and name not in only):
            continue
        part = columns[name]() if callable(columns[name]) else columns[name]
        column = part if isinstance(part, Column) else _column(source.name, unit, rows, name, part, how, how.decimal)
        bad = np.flatnonzero(np.isinf(column.values)) if column.categories is None else np.array([])
        if bad.size:
            where = _place(source.name, unit, int(rows[bad[0]]), name)
            raise ValueError(f"{where}: {column.values[bad[0]]} is no finite number")
        finished.append(replace(column, gap=column.gap or _first_gap(column)))
    reading: dict[str, Any] = {"format": shown, "compression": source.compression, "left_out": {}}
    return Table(
        source.name, tuple(finished), names, True, rows, unit, finished[-1].name if finished else None, reading
    )


def _read_json(source: Source, how: Format, only: Collection[str] | None, drop: Collection[str]) -> Table:
    """One object a line, or one list of objects."""
    records: list[tuple[int, Any]] = []
    line, unit = 0, "line"
    try:
        with sources.as_text(source, sources.text_encoding(source, how.encoding)) as text:
            is_list = text.read(1) == "["
            text.seek(0)
            if is_list:
                records, unit = list(enumerate(json.load(text, object_pairs_hook=_once))), "row"
            else:
                for line, row in enumerate(text, 1):
                    if row.strip():
                        records.append((line, json.loads(row, object_pairs_hook=_once)))
    except (json.JSONDecodeError, RecursionError) as error:
        line = line or getattr(error, "lineno", 1)
        raise ValueError(f"{source.name}, line {line}: no JSON: {getattr(error, 'msg', error)}") from None
    names: dict[str, None] = {}
    for line, record in records:
        if not isinstance(record, dict):
            raise ValueError(f"{source.name}, {unit} {line}: must be a JSON object of names and values")
        names |= dict.fromkeys(record)
    rows = np.array([line for line, _ in records], np.int64)

    def column(name: str) -> Column | _Raw:
        values = [record.get(name) for _, record in records]
        kinds = {type(value) for value in values if value is not None}
        for place, value in enumerate(values):
            if isinstance(value, (dict, list)):
                where = _place(source.name, unit, int(rows[place]), name)
                raise ValueError(f"{where}: {json.dumps(value)[:50]} is no number and no text")
        if kinds <= {int, float} and how.types.get(name) != "text":
            try:
                exact = all(abs(value) <= _LARGEST_WHOLE for value in values if isinstance(value, int))
                numbers = np.array([math.nan if value is None else value for value in values], np.float64)
                return Column(name, numbers, exact=exact)
            except OverflowError:
                raise ValueError(f"{source.name}, column {name!r} has a number beyond the range of floats") from None
        return _raw(["" if value is None else _json_text(value) for value in values])

    columns = {name: lambda name=name: column(name) for name in names}
    return _of_values(source, how, columns, rows, unit, "JSON", only, drop)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, in which a name that came twice would hide a value."""
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise json.JSONDecodeError(f"the name {twice!r} comes twice in an object", "", 0)
    return record


def _json_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _raw(texts: Sequence[str]) -> _Raw:
    places: dict[str, int] = {}
    codes = np.array([places.setdefault(text, len(places)) for text in texts], np.int32)
    return _Raw(codes, list(places))


def _read_arrow(source: Source, how: Format, only: Collection[str] | None, drop: Collection[str]) -> Table:
    """Parquet, and Arrow's files and streams."""
    shown = "Parquet" if source.kind == "parquet" else "Arrow"
    arrow = sources.engine("pyarrow", f"{source.name}, a file of {shown},")
    try:
        if source.kind == "parquet":
            # Not read_table, which takes columns by their names, and files with two of one name for damaged.
            table = sources.engine("pyarrow.parquet", "Parquet").ParquetFile(arrow.PythonFile(source.file)).read()
        else:
            ipc, content = sources.engine("pyarrow.ipc", "Arrow"), arrow.BufferReader(source.file.read())
            is_file = content.read(6) == b"ARROW1"
            content.seek(0)
            table = (ipc.open_file if is_file else ipc.open_stream)(content).read_all()
    except (OSError, arrow.ArrowException) as error:
        raise ValueError(f"{source.name} is a damaged {shown} file: {str(error).splitlines()[0]}") from error
    names = table.column_names
    if len(set(names)) < len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        places = [place for place, name in enumerate(names, 1) if name == twice]
        raise ValueError(f"{source.name}: column {places[1]} has the name {twice!r} of column {places[0]}")
    columns = {name: lambda name=name: _of_arrow(arrow, source.name, name, table[name], how) for name in names}
    index = [name for name in names if name == "__index_level_0__"]  # of pandas
    read = _of_values(
        source,
        how,
        columns,
        np.arange(len(table)),
        "row",
        shown,
        only,
        [*drop, *(name for name in index if name not in drop)],
    )
    read.reading["left_out"] = dict.fromkeys(index, "it counts the rows")
    return read


def _of_arrow(arrow: Any, source: str, name: str, column: Any, how: Format) -> Column | _Raw:
    types = arrow.types
    kind = column.type
    if types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if types.is_null(kind):
        return Column(name, np.full(len(column), math.nan))
    if types.is_boolean(kind) or types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        texts = column.cast(arrow.string()).fill_null("").to_pylist()
        return _raw(texts)
    if (types.is_integer(kind) or types.is_floating(kind)) and how.types.get(name) == "text":
        return _raw(column.cast(arrow.string()).fill_null("").to_pylist())
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        safe = types.is_floating(kind)
        values = np.array(column.cast(arrow.float64(), safe=safe).to_numpy(), np.float64)
        return Column(name, values, exact=not types.is_integer(kind) or _is_exact(values))
    if types.is_date(kind) or types.is_timestamp(kind):
        # Whole microseconds; what a float64 of days has after them is lost anyway.
        whole = column.cast(arrow.timestamp("us", kind.tz if types.is_timestamp(kind) else None), safe=False)
        days = whole.cast(arrow.int64()).cast(arrow.float64(), safe=False).to_numpy() / 86400e6
        return Column(name, np.array(days, np.float64), None, "date")
    if types.is_time(kind):
        seconds = column.cast(arrow.time64("us")).cast(arrow.int64()).cast(arrow.float64(), safe=False)
        return Column(name, np.array(seconds.to_numpy() / 86400e6, np.float64), None, "date", "time")
    raise ValueError(f"{source}, column {name!r} is of the type {kind}, no numbers, texts or dates; --drop {name}")


def _read_folder(stored: Stored, only: Collection[str] | None, drop: Collection[str]) -> Table:
    inputs, targets = stored.arrays()
    names, where = [*stored.inputs, stored.target], str(stored.folder)
    dropped = _dropped(where, names, drop)
    n_columns = sum(i not in dropped and (only is None or name in only) for i, name in enumerate(names))
    needed, memory = float(_BYTES) * stored.n_rows * n_columns, files.physical_memory()
    if needed > memory:
        raise ValueError(
            f"{where} has {stored.n_rows} rows of {n_columns} columns, which as a table take some "
            f"{needed / 2**30:.3g} GiB of memory, and this machine has {memory / 2**30:.3g}: train on the arrays where "
            "they are, by MFLD on an EmpiricalRisk of numpy.load(..., mmap_mode='r') (docs/clusters.md)"
        )
    columns = tuple(
        Column(name, np.array(targets if i == len(stored.inputs) else inputs[:, i], np.float64))
        for i, name in enumerate(names)
        if i not in dropped and (only is None or name in only)
    )
    reading: dict[str, Any] = {"format": "arrays", "compression": None, "left_out": {}}
    return Table(where, columns, names, True, np.arange(stored.n_rows), "row", stored.target, reading)


def _read_npz(source: Source, target: str | None, drop: Collection[str]) -> Table:
    path = source.name
    known = _TARGETS if target is None else (target, *_TARGETS)
    try:
        with np.load(source.file, allow_pickle=False) as stored:
            given, marked = (
                next((name for name in wanted if name in stored.files), None) for wanted in (_INPUTS, known)
            )
            inputs, targets = (None if name is None else np.asarray(stored[name]) for name in (given, marked))
            found = ", ".join(stored.files)
    except Exception as error:  # zip, zlib and NumPy have many ways to say so
        raise ValueError(f"{path} is no .npz file of plain arrays") from error
    if inputs is None:
        raise ValueError(f"{path} has no array named inputs or X; it has {found or 'none'}")
    if inputs.ndim != 2 or 0 in inputs.shape or inputs.dtype.kind not in "biuf":
        raise ValueError(
            f"{path}: inputs must be real numbers of shape (n, d), got {inputs.dtype} of shape {inputs.shape}"
        )
    n = len(inputs)
    columns = []
    for place, values in enumerate(inputs.T.astype(np.float64), 1):
        columns.append(Column(str(place), values, exact=inputs.dtype.kind == "f" or _is_exact(values)))
    if marked is not None and targets is not None:
        targets = targets[:, 0] if targets.shape == (n, 1) else targets
        if targets.shape != (n,) or targets.dtype.kind not in "biufU":
            got = f"{targets.dtype} of shape {targets.shape}"
            raise ValueError(f"{path}: {marked} must be numbers or texts of shape ({n},), got {got}")
        if targets.dtype.kind == "U":
            categories, codes = np.unique(targets, return_inverse=True)
            columns.append(Column(marked, codes.astype(np.int32), tuple(map(str, categories)), "text"))
        else:
            values = targets.astype(np.float64)
            columns.append(Column(marked, values, exact=targets.dtype.kind == "f" or _is_exact(values)))
    names = [column.name for column in columns]
    dropped = _dropped(path, names, drop)
    used = tuple(replace(each, gap=_first_gap(each)) for place, each in enumerate(columns) if place not in dropped)
    reading: dict[str, Any] = {"format": "NumPy", "compression": source.compression, "left_out": {}}
    table = Table(path, used, names, False, np.arange(n), "row", marked, reading)
    for column in used:
        bad = np.flatnonzero(np.isinf(column.values))
        if bad.size:
            raise ValueError(f"{table.place(bad[0], column.name)}: {column.values[bad[0]]} is no finite number")
    return table


def _place(source: str, unit: str, row: int, column: str) -> str:
    return f"{source}, {unit} {row}, column {column!r}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
