"""The engine of a registry server: this node's copy, its machine, its disk.

Knows the bus only to carry messages and events. The machine runs on the loop, the log is written by one thread
(`writer.py`), a snapshot is written by another while the log goes on. An error of the disk or of the machine ends
`run`, and with it the component; a disk that is full only closes the writes.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from ...bus.client import Client
from ...bus.driver import Background, Driver, Outbox
from ...bus.machine import Address, Effect, Notify, Persist, Persisted, Publish, Received, Send
from ...bus.messages import PEER_TOPIC
from ...bus.service import Request
from . import messages, records
from .disk import Disk
from .machine import RegistryMachine
from .messages import AnyMessage, Question
from .recovery import recover
from .settings import Settings
from .writer import Writer

log = logging.getLogger(__name__)
_messages = msgspec.msgpack.Decoder(AnyMessage)


class ServerEngine:
    """One copy at work. Made by `open`, which loads the files; `run` serves until cancelled, then `close`."""

    def __init__(self, bus: Client, machine: RegistryMachine, disk: Disk | None) -> None:
        self.machine = machine
        self._bus = bus
        self._disk = disk
        self._driver = Driver(machine, self._perform)
        self._background = Background()
        self._outbox = Outbox(bus)
        self._writer = Writer(disk, self._persisted, self._trimmed, self._refused) if disk else None
        self._snapshot = 0
        self._changed = asyncio.Event()

    @classmethod
    async def open(
        cls, bus: Client, folder: Path, cluster_id: str, node: int, settings: Settings | None = None
    ) -> ServerEngine:
        """Load the copy in `folder` and rebuild its state; a damaged one becomes an engine that says so."""
        settings = settings or Settings()
        disk, loaded = await asyncio.to_thread(Disk.open, folder, cluster_id, settings)
        recovered = await asyncio.to_thread(recover, loaded, settings, str(folder))
        for damage in recovered.damaged:
            log.error("%s is damaged at byte %d: %s", damage.path, damage.position, damage.reason)
        for damage in recovered.repaired:
            log.warning("%s at byte %d: %s", damage.path, damage.position, damage.reason)
        if recovered.damaged and disk:
            disk.close()
            disk = None
        return cls(bus, RegistryMachine(node, recovered, settings, Random()), disk)

    async def run(self) -> None:
        """Start the machine and serve; raises what the disk or the machine raised."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._driver.failed())
            tasks.create_task(self._outbox.post())
            tasks.create_task(self._hear_peers())
            if self._writer:
                tasks.create_task(self._writer.failed())
            self._driver.feed()

    async def close(self) -> None:
        """Stop the machine, finish what was ordered from the disk, give up the files."""
        self._driver.stop()
        await self._background.close()
        if self._writer:
            await self._writer.close()

    async def ask(self, question: Question, request: Request) -> Any:
        """Answer from this copy; raises CoveyError."""
        return await self._driver.ask(question, request.cause)

    async def hear(self, body: bytes, request: Request) -> bytes | None:
        """Take a message of another node's registry; return the answer to one that asks who leads."""
        message = _messages.decode(body)
        self._driver.feed(Received(Address(request.service, request.node), message, request.cause))
        return msgspec.msgpack.encode(self.machine.leading) if isinstance(message, messages.FindPrimary) else None

    async def reach(self, *phases: str) -> None:
        """Wait until the copy is in one of these phases."""
        while self.machine.phase not in phases:
            await self._changed.wait()

    def group_formed(self) -> None:
        """This server is a member of `sys.registry`."""
        self._driver.feed(messages.GroupFormed())

    # --- the machine's orders ---

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, Persist):
            assert self._writer is not None, "a damaged copy writes nothing"
            self._writer.write(effect.number, effect.data)
        elif isinstance(effect, Notify):
            self._background.start(self._write_snapshot(effect.body), "snapshot")
        elif isinstance(effect, Send | Publish):
            self._outbox.put(effect)
            if isinstance(effect, Publish):
                self._changed.set()
                self._changed = asyncio.Event()

    def _persisted(self, number: int) -> None:
        self._driver.feed(Persisted(number))

    def _refused(self, reason: str) -> None:
        if self.machine.writable:
            log.error("the disk is full, writes are closed until there is room: %s", reason)
        self._driver.feed(messages.NoRoom(reason))

    async def _write_snapshot(self, record: bytes) -> None:
        assert self._disk is not None and self._writer is not None
        self._snapshot = records.index_of(record)
        try:
            await asyncio.to_thread(self._disk.write_snapshot, record)
        except OSError as error:
            log.warning("no snapshot could be written, the log is kept: %s", error)
            self._driver.feed(messages.SnapshotFailed(self._snapshot, str(error)))
            return
        self._writer.trim()

    def _trimmed(self) -> None:
        self._driver.feed(messages.SnapshotWritten(self._snapshot))

    async def _hear_peers(self) -> None:
        async with self._bus.subscribe(PEER_TOPIC) as events:
            async for event in events:
                if event.body["state"] == "down" and not event.welcome:
                    self._driver.feed(messages.PeerDown(event.body["node"]))
