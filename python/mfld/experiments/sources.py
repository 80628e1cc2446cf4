"""Bytes of files, pipes, standard input and URLs, behind any compression; and what kind of file they are."""

from __future__ import annotations

import bz2
import codecs
import gzip
import importlib
import io
import lzma
import os
import re
import sys
import urllib.error
import urllib.request
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

STANDARD_INPUT = "-"

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://")
_SCHEMES = ("http", "https", "ftp", "file")
_SECONDS = 60.0  # without an answer
_BLOCK = 1 << 20
_ENDINGS = (".gz", ".bz2", ".xz", ".zst", ".csv", ".tsv", ".txt", ".npz", ".parquet", ".arrow", ".feather", ".jsonl")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like the next one
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_COMPRESSIONS = ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"))
_KINDS = (
    (b"PAR1", "parquet"),
    (b"ARROW1", "arrow"),
    (b"PK\x03\x04", "zip"),
    (b"\xd0\xcf\x11\xe0", "excel"),
)


_STREAM = b"\xff\xff\xff\xff"  # of Arrow; then the size of the schema, a multiple of 8


@dataclass(frozen=True, eq=False)
class Source:
    """An open file that can be read again from its beginning.

    Attributes
    ----------
    name : str
        For messages.
    file : binary file
    compression : str or None
    kind : str
        "csv", "npz", "parquet", "arrow" or "json".
    """

    name: str
    file: BinaryIO
    compression: str | None
    kind: str


def is_url(path: str | os.PathLike[str]) -> bool:
    return _URL.match(str(path)) is not None


def stem(path: str | os.PathLike[str]) -> str:
    """Name of a file without folders and endings of formats: ``people`` of ``https://host/people.csv.gz``."""
    if str(path) == STANDARD_INPUT:
        return "stdin"
    name = Path(str(path).partition("?")[0] if is_url(path) else path).name
    short = Path(name).stem
    while Path(short).suffix.lower() in _ENDINGS:
        short = Path(short).stem
    return short or "data"


def opened(path: str | os.PathLike[str]) -> Source:
    """Open a file by its path or URL, or standard input by ``-``.

    Raises
    ------
    OSError
        If it cannot be opened.
    ValueError
        If its compression is damaged, or it is of a kind that is not read here: the message has its name.
    ImportError
        If it is compressed by zstd and no package that reads this is installed.
    """
    name = "standard input" if str(path) == STANDARD_INPUT else str(path)
    file = _opened(path)
    try:
        compression = next((found for mark, found in _COMPRESSIONS if _head(file).startswith(mark)), None)
        if compression is not None:
            packed = file
            with packed:
                file = _decompressed(name, packed, compression)
        return Source(name, file, compression, _kind(name, str(path), _head(file)))
    except BaseException:
        file.close()
        raise


def text_encoding(source: Source, given: str | None = None) -> str:
    """The encoding of a text: the given one, that of its byte order mark, UTF-16 by its zero bytes, else UTF-8.

    Raises
    ------
    ValueError
        If some line is no text in this encoding, or there is no such encoding.
    """
    head = _head(source.file, 4096)
    encoding = given or next((found for mark, found in _MARKS if head.startswith(mark)), None)
    if encoding is None:
        even, odd = head[0::2].count(0), head[1::2].count(0)
        zeros = max(even, odd) > len(head) // 5 and min(even, odd) == 0 and len(head) >= 4
        encoding = ("utf-16-le" if odd else "utf-16-be") if zeros else "utf-8"
    elif encoding.lower().replace("_", "-") in ("utf-8", "utf8") and head.startswith(codecs.BOM_UTF8):
        encoding = "utf-8-sig"
    try:
        bytes(4).decode(encoding, "ignore")  # refuses what makes no texts of bytes: rot13, base64 and the like
        decoder = codecs.getincrementaldecoder(encoding)()
    except (LookupError, UnicodeError):
        raise ValueError(f"encoding must be one that Python knows, such as utf-8 or cp1252; got {encoding!r}") from None
    lines = 1
    source.file.seek(0)
    while True:
        block = source.file.read(_BLOCK)
        try:
            lines += decoder.decode(block, final=not block).count("\n")
        except UnicodeError as error:
            start = getattr(error, "start", 0)
            wrong = getattr(error, "object", b"")
            lines += wrong[:start].decode(encoding, errors="ignore").count("\n")
            byte = f"byte 0x{wrong[start]:02x}" if start < len(wrong) else "the end"
            raise ValueError(
                f"{source.name}, line {lines}: {byte} is no {encoding.removesuffix('-sig').upper()} text; say which "
                "encoding it is (--encoding cp1252, latin-1, utf-16, ...)"
            ) from None
        if not block:
            source.file.seek(0)
            return encoding


def engine(module: str, what: str) -> Any:
    """A module of pyarrow, which reads what NumPy and the standard library do not."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{what} needs pyarrow: pip install 'mfld[train]'") from error


def _opened(path: str | os.PathLike[str]) -> BinaryIO:
    if str(path) == STANDARD_INPUT:
        if sys.stdin is None:
            raise OSError("standard input is closed")
        return io.BytesIO(sys.stdin.buffer.read())
    url = _URL.match(str(path))
    if url is not None:
        if url["scheme"].lower() not in _SCHEMES:
            raise ValueError(f"{path} must begin with one of {', '.join(f'{each}://' for each in _SCHEMES)}")
        try:
            with urllib.request.urlopen(str(path), timeout=_SECONDS) as answer:
                return io.BytesIO(answer.read())
        except urllib.error.URLError as error:
            raise OSError(f"{path}: {error.reason}") from error
    file = open(path, "rb")  # noqa: SIM115  closed by the caller
    if file.seekable():
        return file
    with file:
        return io.BytesIO(file.read())


def _head(file: BinaryIO, length: int = 64) -> bytes:
    file.seek(0)
    head = file.read(length)
    file.seek(0)
    return head


def _decompressed(name: str, file: BinaryIO, compression: str) -> BinaryIO:
    content = file.read()
    try:
        if compression == "gzip":
            return io.BytesIO(gzip.decompress(content))
        if compression == "bzip2":
            return io.BytesIO(bz2.decompress(content))
        if compression == "xz":
            return io.BytesIO(lzma.decompress(content))
        pyarrow = engine("pyarrow", f"{name}, which zstd has compressed,")
        with pyarrow.CompressedInputStream(pyarrow.BufferReader(content), "zstd") as stream:
            return io.BytesIO(stream.read())
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"{name} is a damaged {compression} file: {error}") from error


def _kind(name: str, path: str, head: bytes) -> str:
    kind = next((found for mark, found in _KINDS if head.startswith(mark)), None)
    size = int.from_bytes(head[4:8], "little")
    if head.startswith(_STREAM) and size > 0 and size % 8 == 0 and len(head) > 16:
        kind = "arrow"
    ending = Path(path).suffix.lower()
    if ending == ".npz":
        return "npz"
    if kind == "excel" or (kind == "zip" and ending in (".xlsx", ".xlsm", ".xlsb", ".ods")):
        raise ValueError(f"{name} is a workbook; save its sheet as CSV")
    if kind == "zip":
        return "npz"
    if kind is not None:
        return kind
    if ending == ".parquet":
        raise ValueError(f"{name} is no Parquet file")
    start = head.lstrip(codecs.BOM_UTF8).lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        raise ValueError(f"{name} is a web page and no table")
    if ending in (".jsonl", ".ndjson", ".json") or start.startswith((b"{", b"[{")):
        return "json"
    return "csv"


def as_text(source: Source, encoding: str) -> io.TextIOWrapper:
    """The file as text, with its line ends as they are."""
    return io.TextIOWrapper(cast(Any, source.file), encoding=encoding, newline="")
