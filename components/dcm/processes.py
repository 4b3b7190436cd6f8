"""What the DCM asks of whoever starts and stops its processes. Only the words; `supervisor.py` forks.

A process is named by what runs in it: a component's name, "controllers" (all shipped controllers) or
"controller:NAME" (one third-party controller).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec


class Exit(msgspec.Struct, frozen=True):
    """A process ended without having been asked to. `status` as of waitpid's decoding: negative is a signal."""

    name: str
    status: int
    reason: str = ""


class Spawner(Protocol):
    """Starts and stops the processes of one node, or tasks in their place with `isolation: inline`."""

    async def start(self, name: str) -> None:
        """Start it; return when it runs (not when it is ready). CoveyError when it cannot be started.

        Starting what runs already does nothing.
        """

    async def stop(self, name: str, deadline: float) -> None:
        """End it in order, by force after `deadline` seconds; return when it is gone, at once if it was."""

    def exits(self) -> AsyncIterator[Exit]:
        """Every end that no `stop` asked for, in the order in which they happened, for as long as the node runs."""
