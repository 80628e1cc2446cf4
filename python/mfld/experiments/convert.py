"""Tables of numbers as arrays on disk, for data that do not fit into memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mfld import validation
from mfld.experiments import sources
from mfld.experiments.fields import looks_like_number
from mfld.experiments.sources import Source
from mfld.files import replacing

_MOST_ROWS = 10**18  # of a file: its header has room for the number
_GRAIN = 0.01  # of float32 where a column is, as a share of its deviation


@dataclass(frozen=True)
class Stored:
    """Arrays that `convert` wrote: ``inputs.npy``, ``targets.npy`` and the names of columns in ``columns.json``.

    Attributes
    ----------
    folder : Path
    n_rows : int
    inputs : list of str
        Names of the columns of the inputs.
    target : str
    """

    folder: Path
    n_rows: int
    inputs: list[str]
    target: str

    @classmethod
    def of(cls, folder: str | os.PathLike[str]) -> Stored:
        """Arrays that `convert` has written into a folder.

        Raises
        ------
        OSError
            If a file cannot be read.
        ValueError
            If it is no such folder, or its files do not belong together.
        """
        place = Path(folder)
        try:
            about = json.loads((place / "columns.json").read_text())
            stored = cls(place, about["rows"], list(about["inputs"]), about["target"])
            inputs, targets = stored.arrays()
        except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{place} is no folder that mfld convert wrote: {error}") from error
        if (inputs.shape, targets.shape) != ((stored.n_rows, len(stored.inputs)), (stored.n_rows,)):
            raise ValueError(
                f"{place} has arrays of shape {inputs.shape} and {targets.shape}, which columns.json denies"
            )
        return stored

    def arrays(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Inputs, shape (n, d), and targets, shape (n,), as read-only maps of the files."""
        inputs, targets = (np.load(self.folder / f"{name}.npy", mmap_mode="r") for name in ("inputs", "targets"))
        return inputs, targets


def convert(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    target: str | None = None,
    dtype: DTypeLike = "float32",
) -> Stored:
    """Write a table of numbers as arrays, block by block: memory does not grow with the table (extra ``files``).

    Parameters
    ----------
    path : str or path
        A CSV file with names in its first line, Parquet, or Arrow; a compressed file is unpacked in memory.
    folder : str or path
        Made where there is none; files of these names in it are replaced, once they are whole.
    target : str, optional
        Column of the targets; by default the last one.
    dtype : {"float32", "float64"}
        Of the arrays, and of the runs on them. Columns that float32 does not tell apart are refused: whole numbers that
        it rounds, like 123456789, and numbers so far from 0 that its grain there is a hundredth of their deviation.

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    OSError
        If a file cannot be read or written.
    TypeError, ValueError
        If there is no such column, or one holds something else than finite numbers, or numbers that the precision does
        not tell apart; the message names it.
    """
    validation.path("path", path)
    validation.path("folder", folder)
    dtype = validation.float_dtype("dtype", dtype)
    with ExitStack() as stack:
        source = sources.opened(path)
        stack.enter_context(source.file)
        names, blocks = _read(source)
        name = names[-1] if target is None else validation.choice("target", target, names)
        if len(names) < 2:
            commas = ", between commas" if source.kind == "csv" else ""
            raise ValueError(f"{source.name} must have a column beside the target{commas}, got {names}")
        if len(set(names)) < len(names):
            twice = next(one for one in names if names.count(one) > 1)
            raise ValueError(f"{source.name} must have each column once, got {twice!r} twice")
        column = names.index(name)
        kept = [i for i in range(len(names)) if i != column]
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        inputs, targets = (
            _Growing(stack.enter_context(replacing(place / f"{part}.npy")), dtype, width)
            for part, width in (("inputs", len(kept)), ("targets", None))
        )
        rounding = _Rounding(len(names))
        for block in blocks:
            values = np.column_stack([_numbers(source, names[i], block.column(i), inputs.n) for i in range(len(names))])
            with np.errstate(over="ignore", under="ignore"):
                cast = values.astype(dtype)
            if not np.isfinite(cast).all():
                row, i = (int(found) for found in np.argwhere(~np.isfinite(cast))[0])
                raise ValueError(
                    f"{source.name} must hold finite numbers of {dtype}, got {values[row, i]} in row {inputs.n + row}, "
                    f"column {names[i]!r}"
                )
            rounding.look(values, cast, inputs.n)
            inputs.append(np.ascontiguousarray(cast[:, kept]))
            targets.append(np.ascontiguousarray(cast[:, column]))
        if inputs.n == 0:
            raise ValueError(f"{source.name} must have at least one row, got none")
        lost = rounding.lost(names)
        if lost is not None:
            raise ValueError(f"{source.name} must hold numbers that {dtype} tells apart, got {lost}: {_WIDER}")
        inputs.finish()
        targets.finish()
        about = stack.enter_context(replacing(place / "columns.json"))
        columns = [names[i] for i in kept]
        about.write(json.dumps({"inputs": columns, "target": name, "rows": inputs.n}).encode())
    return Stored(place, inputs.n, columns, name)


_WIDER = "convert it with dtype='float64' (--dtype float64), or leave the column out"


class _Rounding:
    """Rounding of the columns of a table to the precision of the arrays, seen block by block."""

    def __init__(self, n_columns: int) -> None:
        self._whole = np.ones(n_columns, bool)  # all of its numbers
        self._first: dict[int, tuple[int, float, float]] = {}  # that is rounded: row, value, and what becomes of it
        self._n, self._origin = 0, np.zeros(n_columns)
        self._sum, self._squares = np.zeros(n_columns), np.zeros(n_columns)  # of the differences from the origin

    def look(self, values: NDArray[np.float64], cast: NDArray[Any], n_before: int) -> None:
        """One more block of rows, and what it becomes."""
        if cast.dtype == values.dtype or len(values) == 0:
            return
        self._whole &= (values == np.floor(values)).all(axis=0)
        rounded = cast.astype(np.float64) != values
        for i in np.flatnonzero(rounded.any(axis=0)):
            row = int(np.argmax(rounded[:, i]))
            self._first.setdefault(int(i), (n_before + row, float(values[row, i]), float(cast[row, i])))
        if self._n == 0:
            self._origin = values[0].copy()
        self._n += len(values)
        with np.errstate(over="ignore"):
            self._sum += (values - self._origin).sum(axis=0)
            self._squares += ((values - self._origin) ** 2).sum(axis=0)

    def lost(self, names: list[str]) -> str | None:
        """Numbers that are lost, and where; None where that is no more than rounding always loses."""
        n = max(self._n, 1)
        mean = self._sum / n
        deviation = np.sqrt(np.maximum(self._squares / n - mean**2, 0))
        grain = np.finfo(np.float32).eps * np.abs(self._origin + mean)
        for i, (row, value, became) in sorted(self._first.items()):
            if self._whole[i]:
                return f"{value:.0f} in row {row}, column {names[i]!r}, which it makes {became:.0f}"
            if grain[i] > _GRAIN * deviation[i] > 0:
                return (
                    f"column {names[i]!r} near {self._origin[i] + mean[i]:.6g}, where its steps are of {grain[i]:.3g}, "
                    f"with a deviation of {deviation[i]:.3g}"
                )
        return None


class _Growing:
    """A .npy file whose number of rows is known at its end."""

    def __init__(self, file: BinaryIO, dtype: np.dtype[Any], width: int | None) -> None:
        self.n, self._file, self._dtype, self._width = 0, file, dtype, width
        self._header(_MOST_ROWS)
        self._start = file.tell()

    def append(self, rows: NDArray[Any]) -> None:
        self._file.write(rows.data)
        self.n += len(rows)

    def finish(self) -> None:
        self._file.seek(0)
        self._header(self.n)
        if self._file.tell() != self._start:
            raise OSError("the header of a .npy file has another length than was kept for it")

    def _header(self, n: int) -> None:
        shape = (n,) if self._width is None else (n, self._width)
        descr = np.lib.format.dtype_to_descr(self._dtype)
        np.lib.format.write_array_header_1_0(self._file, {"descr": descr, "fortran_order": False, "shape": shape})


def _read(source: Source) -> tuple[list[str], Iterator[Any]]:
    """Names of the columns, and the rows as batches of Arrow."""
    if source.kind == "parquet":
        table = sources.engine("pyarrow.parquet", source.name).ParquetFile(source.file)
        return table.schema_arrow.names, table.iter_batches()
    if source.kind == "arrow":
        arrow, ipc = (sources.engine(module, source.name) for module in ("pyarrow", "pyarrow.ipc"))
        try:
            reader = ipc.open_file(source.file)
        except arrow.ArrowInvalid:
            source.file.seek(0)
            stream = ipc.open_stream(source.file)
            return stream.schema.names, iter(stream)
        return reader.schema.names, (reader.get_batch(i) for i in range(reader.num_record_batches))
    if source.kind != "csv":
        raise ValueError(f"{source.name} must be CSV, Parquet or Arrow to be converted, got {source.kind}")
    arrow, csv = (sources.engine(module, source.name) for module in ("pyarrow", "pyarrow.csv"))
    first = source.file.readline()
    try:
        first.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{source.name} must be text in UTF-8 to be converted, got {first[:40]!r}") from None
    if not first.strip():
        raise ValueError(f"{source.name} must have names in its first line, got an empty one")
    header = csv.read_csv(arrow.BufferReader(first + first))  # a row of names is a row of texts
    names = [name.strip() for name in header.column_names]  # as `tables` has them
    if all(looks_like_number(name) for name in names):
        raise ValueError(f"{source.name} must have names in its first line, got the numbers {names[:5]}")
    types = csv.ConvertOptions(column_types=dict.fromkeys(names, arrow.float64()))
    named = csv.ReadOptions(column_names=names)

    def blocks() -> Iterator[Any]:
        try:
            yield from csv.open_csv(source.file, read_options=named, convert_options=types)
        except arrow.ArrowInvalid as error:
            if "Empty CSV" in str(error):
                return
            raise ValueError(f"{source.name} must hold numbers: {error}") from None

    return names, blocks()


def _numbers(source: Source, name: str, column: Any, first: int) -> NDArray[np.float64]:
    if column.null_count:
        row = first + int(np.argmin(column.is_valid().to_numpy(zero_copy_only=False)))
        raise ValueError(f"{source.name} must have no missing values, got one in row {row}, column {name!r}")
    values = column.to_numpy(zero_copy_only=False)
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{source.name} must hold numbers, got {column.type} in column {name!r}")
    return np.asarray(values, np.float64)
