"""Small durable files: written aside, synced, renamed.

Knows bytes and paths, no record and no entry. Odd: an error of fsync is never tried again, because the kernel may mark
the pages clean all the same (notes on fsync failures in five databases); it is `DiskFailed`, which ends the process,
and the next start reads what really is there. A disk that is full before anything was synced is another thing: what
was written is taken back and synced, then it is as if nothing had been tried (`NoRoom`).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from ...errors import DiskFailed

FULL = (errno.ENOSPC, errno.EDQUOT)
"""No room, or none left for this user. EIO is not among them: some systems tell a failed sync of before that way."""


class NoRoom(OSError):
    """The disk is full. Nothing of what was to be written is in the files, and they may be written to again."""

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


def failed(path: Path, error: OSError, position: int = 0) -> NoReturn:
    """Turn an error of the log's disk into the end of the process."""
    name = errno.errorcode.get(error.errno or 0, "?")
    raise DiskFailed(
        f"cannot write {path} at byte {position}: {error.strerror or error} (errno {error.errno}, {name})",
        "see to the disk; the registry reads what really is there when it is started again",
    ) from error


@contextlib.contextmanager
def unsynced(path: Path, undo: Callable[[], None]) -> Iterator[None]:
    """Inside, nothing is synced: when there is no room, `undo` takes it back, then `NoRoom`. Any other error, and one
    of `undo`, goes through as it is."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        undo()
        raise NoRoom(error.errno, os.strerror(error.errno), str(path)) from error


def write_all(descriptor: int, data: bytes, offset: int) -> None:
    """Write all of `data` at `offset`; a short write goes on where it stopped."""
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view = view[count:]
        offset += count


def names(folder: Path) -> list[str]:
    """Return the names in a folder, in order."""
    return sorted(path.name for path in folder.iterdir())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_new(path: Path, data: bytes) -> int:
    """Create or empty the file `path`, write `data` to it and return its descriptor; nothing is synced."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(descriptor, data, 0)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def aside_of(path: Path) -> Path:
    """Return the name that a file has until it is whole."""
    return path.with_name(path.name + ".tmp")


def write_hidden(path: Path, data: bytes) -> int:
    """Write the file that will be `path`, synced, and return its descriptor; `show` gives it its name."""
    aside = aside_of(path)
    with unsynced(path, lambda: aside.unlink(missing_ok=True)):
        descriptor = write_new(aside, data)
    try:
        os.fsync(descriptor)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def show(path: Path) -> None:
    """Give what `write_hidden` wrote its name, durably; what had the name before is gone."""
    aside_of(path).replace(path)
    sync_folder(path.parent)


def write_aside(path: Path, data: bytes) -> None:
    """Replace or create the file `path` so that after any crash it holds the old bytes or the new ones."""
    os.close(write_hidden(path, data))
    show(path)
