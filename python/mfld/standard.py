"""Standard output and error that may be closed, full or read by nobody, at no cost to the work."""

from __future__ import annotations

import contextlib
import os
import sys
from types import TracebackType
from typing import Any


class Standard:
    """A context in which no print fails.

    What cannot be written is dropped. `error` is then the reason why standard output is not whole, except where it is
    closed or its reader has gone, which both say that nobody wants the rest.

    Examples
    --------
    >>> with Standard() as standard:
    ...     print("hello")
    hello
    >>> standard.error is None
    True
    """

    def __init__(self) -> None:
        self.error: OSError | None = None

    def __enter__(self) -> Standard:
        _occupy()
        self._before = sys.stdout, sys.stderr
        self._out, self._err = _Stream(sys.stdout), _Stream(sys.stderr)
        sys.stdout, sys.stderr = self._out, self._err
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._out.flush()
        if self._out.error is not None and not isinstance(self._out.error, BrokenPipeError):
            self.error = self._out.error
            self._err.write(f"mfld: standard output: {self.error.strerror}\n")
        self._err.flush()
        sys.stdout, sys.stderr = self._before


class _Stream:
    """A stream that goes silent at its first error."""

    def __init__(self, stream: Any) -> None:
        self.error: OSError | None = None
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._try("write", text)
        return len(text)

    def flush(self) -> None:
        self._try("flush")

    def isatty(self) -> bool:
        return bool(self._stream is not None and not self._stream.closed and self._stream.isatty())

    def _try(self, method: str, *text: str) -> None:
        stream = self._stream
        if stream is None or self.error is not None or stream.closed:
            return
        try:
            try:
                getattr(stream, method)(*text)
            except UnicodeEncodeError:
                shown = text[0].encode(stream.encoding, "backslashreplace").decode(stream.encoding)
                getattr(stream, method)(shown)
        except OSError as error:
            self.error = error
            # What is still in the buffer would fail again when the interpreter ends.
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)


def _occupy() -> None:
    """Open the null device for each closed standard stream, or else the next file would take its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
