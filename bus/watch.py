"""Tells when a process ends, at once: the kernel makes its pidfd readable."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Hashable


class Watch:
    """Watch processes on the running loop; `on_end(key)` is called once for each that ended."""

    def __init__(self, on_end: Callable[[Hashable], None]) -> None:
        self._on_end = on_end
        self._files: dict[Hashable, int] = {}

    def add(self, key: Hashable, pid: int) -> None:
        """Watch a process under a key; `on_end` is called at once when there is none."""
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            self._on_end(key)
            return
        self._files[key] = pidfd
        asyncio.get_running_loop().add_reader(pidfd, self._ended, key)

    def discard(self, key: Hashable) -> None:
        """Watch no more."""
        pidfd = self._files.pop(key, None)
        if pidfd is not None:
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)

    def close(self) -> None:
        """Watch nothing more."""
        for key in list(self._files):
            self.discard(key)

    def _ended(self, key: Hashable) -> None:
        self.discard(key)
        self._on_end(key)
