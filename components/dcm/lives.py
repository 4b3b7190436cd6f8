"""The lives of the components: which stay in a cluster each process is in, and how it ends one and begins the next.

A process lives as long as it can, a *life* in it as long as the node's stay in a cluster (its boot id). When the node
moves, each process ends its life, keeps what it has imported and found, and begins another. The processes ask for their
life by a long poll (`child.py`): the question says in which life the process is, "" for none, and the answer in which
one it is to be. So nothing is lost when a message is, and a process that does not obey in time is stopped.
"""

from __future__ import annotations

import asyncio

from ...errors import CoveyError
from .processes import Spawner

POLL = 20.0
"""Seconds after which a process asks anew; it costs nothing in between."""


class Lives:
    """Starts and ends lives, in processes that are started when there is none at rest."""

    def __init__(self, spawner: Spawner) -> None:
        self._spawner = spawner
        self._wanted: dict[str, str] = {}  # by process: the life it is to be in
        self._said: dict[str, str] = {}  # and the one that it says it is in
        self._changed = asyncio.Event()

    @property
    def at_rest(self) -> list[str]:
        """The processes that run and are in no life."""
        return sorted(name for name, life in self._wanted.items() if not life)

    async def begin(self, name: str, boot_id: str) -> None:
        """Have a process begin this life; one is started when none is at rest. Raises what the spawner raises."""
        known = name in self._wanted
        self._set(name, boot_id)
        if not known:
            try:
                await self._spawner.start(name)
            except BaseException:
                self.gone(name)
                raise

    async def end(self, name: str, deadline: float, *, keep: bool) -> None:
        """End a process's life, and with `keep` leave the process at rest; by force after `deadline` seconds."""
        if keep and name in self._said:
            self._set(name, "")
            try:
                async with asyncio.timeout(deadline):
                    while self._said.get(name, ""):
                        await self._changed.wait()
            except TimeoutError:
                keep = False
        if not (keep and name in self._said):
            self.gone(name)
            await self._spawner.stop(name, deadline)

    async def stop_resting(self, deadline: float) -> None:
        """Stop the processes that are at rest."""
        for name in self.at_rest:
            self.gone(name)
            try:
                await self._spawner.stop(name, deadline)
            except (CoveyError, OSError):
                continue  # it is ended with the daemon

    def gone(self, name: str) -> None:
        """A process is there no more."""
        self._wanted.pop(name, None)
        self._said.pop(name, None)
        self._wake()

    async def ask(self, name: str, life: str) -> str:
        """A process says in which life it is; return which one it is to be in, as soon as that is another."""
        if self._said.get(name) != life:
            self._said[name] = life
            self._wake()
        try:
            async with asyncio.timeout(POLL):
                while self._wanted.get(name, life) == life:
                    await self._changed.wait()
        except TimeoutError:
            pass
        return self._wanted.get(name, life)

    def _set(self, name: str, life: str) -> None:
        self._wanted[name] = life
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
