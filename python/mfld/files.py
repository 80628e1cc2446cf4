"""Files that are written as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def check_writable(path: Path) -> None:
    """Raise OSError if a file of this name could not be written: to be asked before the work, not after it."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} cannot be written: it is a folder")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path} cannot be written: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{path} cannot be written: no permission to write in {path.parent}")


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write to; at the end it takes the place of `path`, after an error it is gone and `path` untouched."""
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    file = open(temporary, "xb")  # noqa: SIM115  closed below; if it is somebody else's, it is not ours to delete
    try:
        with file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
