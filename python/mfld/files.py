"""Files written whole and by one process at a time, and archives read in no more memory than they have bytes."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import io
import math
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np


def check_writable(path: Path) -> None:
    """Raise OSError if a file of this name could not be written: to be asked before the work, not after it."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} cannot be written: it is a folder")
    if _is_device(path):
        if not os.access(path, os.W_OK):
            raise PermissionError(f"{path} cannot be written: no permission to write to it")
        return
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path} cannot be written: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{path} cannot be written: no permission to write in {path.parent}")


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write to; at the end it takes the place of `path`, after an error it is gone and `path` untouched.

    It is brought to the disk before it gets the name, and lies beside it until then; a symbolic link is followed.
    What is no file, such as /dev/null or a pipe, is written to. An OSError of writing has the name of `path`.
    """
    target = followed(path)
    if _is_device(target):
        with naming(path), open(target, "wb") as device:
            yield device
        return
    temporary = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with naming(path):
            raw = _Named(temporary, path)
        with io.BufferedRandom(raw) as file:
            yield file
            file.flush()
            with naming(path):
                os.fsync(file.fileno())
        with naming(path):
            os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name, too, is to survive a crash of the machine
    finally:
        os.close(folder)


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Give an OSError of the body the name of a file: the system's own of writing has none, or one of our making."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = os.fspath(path), None
        raise


class _Named(io.FileIO):
    """A new file that is told of by another name."""

    def __init__(self, path: Path, told: str | os.PathLike[str]) -> None:
        super().__init__(path, "w+")
        self._told = told

    def write(self, data: Any, /) -> int:
        with naming(self._told):
            return super().write(data)


def arrays(file: BinaryIO) -> dict[str, Any]:
    """All arrays of an archive that `numpy.savez` wrote; nothing in it is executed, and nothing is unpacked.

    Its members are stored as they are: a file that promises more than it holds, packed or by members that overlap, is
    none of ours and would fill the memory. What is wrong is an exception of any kind.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    with zipfile.ZipFile(file) as archive:
        promised = sum(member.file_size for member in archive.infolist())
        if promised > size:
            raise ValueError(f"it unpacks to {promised} bytes, and has {size}")
    file.seek(0)
    with np.load(file, allow_pickle=False) as stored:
        return dict(stored)


@contextlib.contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Wait for, and have, a file for oneself among the processes that ask: to read it and replace it as one.

    The lock is that of a file beside it, since `replacing` puts another file in its place, which is gone afterwards.
    """
    target = followed(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = target.with_name(f"{target.name}.lock")
    while True:
        own = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(own, fcntl.LOCK_EX)
            # If whoever had it before has removed it, this lock is on a file without a name, which others do not see.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(own), os.stat(lock)):
                    break
        except BaseException:
            os.close(own)
            raise
        os.close(own)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(own)


def physical_memory() -> float:
    """Bytes of memory of the machine; infinite where the system does not say."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return math.inf


def sweep(path: str | os.PathLike[str]) -> None:
    """Remove what processes that died in the middle of `replacing` this file left behind."""
    target = followed(path)
    for leftover in target.parent.glob(f"{glob.escape(target.name)}.*.part"):
        pid = leftover.suffixes[-2][1:]
        if pid.isdecimal() and not _alive(int(pid)):
            leftover.unlink(missing_ok=True)


def followed(path: str | os.PathLike[str]) -> Path:
    """Path of the file itself, behind symbolic links."""
    return Path(os.path.realpath(path))


def _is_device(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
