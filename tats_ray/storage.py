"""Writing to disk: a full or read-only disk is one typed error that names the path."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tats_ray.errors import StorageError

_FREE = "free some space there, or choose another place"
_PERMIT = "make it writable, or choose another place"
_REMEDIES = {
    errno.ENOSPC: _FREE,
    errno.EDQUOT: _FREE,
    errno.EFBIG: "raise the limit of file sizes (ulimit -f), or choose another place",
    errno.EROFS: _PERMIT,
    errno.EACCES: _PERMIT,
    errno.EPERM: _PERMIT,
    errno.ENOTDIR: "a file is in the way of a folder: move it, or choose another place",
    errno.EEXIST: "a file is in the way of a folder: move it, or choose another place",
    errno.ENOTEMPTY: "it holds other files: move them, or choose another place",
}
# Faults that only a write meets, where one call both reads and writes.
_OF_WRITING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
# safetensors writes in Rust and tells the number in its message only.
_RUST_ERROR = re.compile(r"\(os error (\d+)\)")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around code that does nothing with files but to write `path`, or files below it.

    Raises:
        StorageError: path, what the system says, and the remedy.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        number = _number(error)
        if number is None:
            raise
        raise _fault(path, number) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a file to write instead of `path`, which takes its place when it is whole; the folder
    is made where it is missing.

    Raises:
        StorageError: as `writing`; `path` is as it was.
    """
    aside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield aside
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)


@contextmanager
def making_folder(path: Path) -> Iterator[Path]:
    """Gives an empty folder to fill, which becomes `path` when it is whole.

    Raises:
        StorageError: as `writing`, and where `path` holds files already; nothing is left behind.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as hidden:
            aside = Path(hidden, path.name)
            aside.mkdir()
            yield aside
            aside.rename(path)


@contextmanager
def converting(target: Path) -> Iterator[None]:
    """Around code that reads one file and writes another: takes what only a write can meet.

    Raises:
        StorageError: as `writing`.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _OF_WRITING:
            raise _fault(target, error.errno) from error
        raise


def _fault(path: Path, number: int) -> StorageError:
    remedy = _REMEDIES.get(number, "look after the disk, or choose another place")
    return StorageError(f"{path}: cannot be written ({os.strerror(number)}); {remedy}")


def _number(error: Exception) -> int | None:
    """The system's error number; None where the error is no fault of the disk."""
    if isinstance(error, OSError):
        return error.errno
    if type(error).__name__ != "SafetensorError":
        return None
    found = _RUST_ERROR.search(str(error))
    return None if found is None else int(found[1])


def unreadable(path: str) -> str | None:
    """What the system says of a regular file that is there, or may be, and cannot be read to its
    end; None where it can be, or there is no such file."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            return None
        with Path(path).open("rb", buffering=0) as file:
            while file.read(2**20):
                pass
    except OSError as error:
        gone = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
        return None if error.errno in gone else os.strerror(error.errno or errno.EIO)
    return None
