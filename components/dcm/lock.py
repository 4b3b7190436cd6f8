"""One daemon a state folder: a lock file that the kernel frees when its holder is gone.

The lock is inherited by forked children, so it is held until the last process of a killed daemon has ended: a new
daemon never meets the old one's children.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

PATIENCE = 2.0
"""Seconds to wait for the processes of a daemon that was just killed."""


class FolderLock:
    """Context manager; `holder` is None when we have the lock, else the process id of who has it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self.holder: int | None = None

    def __enter__(self) -> FolderLock:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    self.holder = _number(os.pread(self._fd, 32, 0))
                    return self
                time.sleep(0.02)
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _number(text: bytes) -> int:
    try:
        return int(text)
    except ValueError:
        return 0
