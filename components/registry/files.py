"""Small durable files: written aside, synced, renamed.

Knows bytes and paths, no record and no entry. Odd: an error of fsync is never tried again, because the kernel may mark
the pages clean all the same (notes on fsync failures in five databases); it is `DiskFailed`, which ends the process,
and the next start reads what really is there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn


class DiskFailed(Exception):
    """The disk refused a write or a sync of the log. Nothing may go on in this process: it must end."""


def failed(path: Path, error: OSError) -> NoReturn:
    """Turn an error of the log's disk into the end of the process."""
    raise DiskFailed(f"cannot write {path}: {error.strerror or error}") from error


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


def write_aside(path: Path, data: bytes) -> None:
    """Replace or create the file `path` so that after any crash it holds the old bytes or the new ones."""
    aside = path.with_name(path.name + ".tmp")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(descriptor, data, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    aside.replace(path)
    sync_folder(path.parent)
