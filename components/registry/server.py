"""The engine of a registry server: this node's copy, its machine, its disk.

Knows the bus only to carry messages. The machine runs on the loop, the log is written by one thread (`writer.py`), a
snapshot is written by another while the log goes on. An error of the disk or of the machine ends `run`, and with it
the component; a disk that is full only closes the writes. A copy that is damaged or was never filled has no disk until
its machine orders the first bytes: those are a whole new copy, and make one.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from ...bus.client import Client
from ...bus.context import Local
from ...bus.driver import Background, Driver
from ...bus.machine import Address, Effect, Message, Notify, Persist, Persisted, Publish, Received, Send
from ...bus.service import Request
from ...errors import NotPrimary
from . import messages, records
from .direct import Post
from .disk import Disk
from .files import NoRoom
from .machine import RegistryMachine
from .messages import LEADING_TOPIC, SERVICE, Leading, Question
from .peers import Reach
from .recovery import recover
from .settings import Settings
from .writer import Writer

log = logging.getLogger(__name__)

HAND_OVER = 1.0
"""Seconds that a primary which ends in order waits for another to take over: an election takes less."""


class ServerEngine:
    """One copy at work. Made by `open`, which loads the files; `run` serves until cancelled, then `close`.

    `leads(leading)` is called with each change of what the copy knows of who leads.
    """

    def __init__(
        self,
        bus: Client,
        machine: RegistryMachine,
        disk: Disk | None,
        leads: Callable[[Leading], None],
        refill: Callable[[Sequence[bytes], int], Disk],
        gen: int = 0,
    ) -> None:
        self.machine = machine
        self._leads = leads
        self._refill = refill
        self._disk = disk
        self._gen = gen  # of the copy on the disk
        self._driver = Driver(machine, self._perform)
        self._background = Background()
        self._post = Post(bus, self._came)
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._writer = self._writing(disk) if disk else None
        self._refilling: list[Persist] | None = None  # what was ordered while a new copy is being made
        self._snapshot = 0
        self._moved = asyncio.Event()

    @classmethod
    async def open(
        cls,
        bus: Client,
        folder: Path,
        cluster_id: str,
        node: int,
        settings: Settings | None = None,
        leads: Callable[[Leading], None] = lambda _: None,
        new: bool = False,
        local: Local | None = None,
    ) -> ServerEngine:
        """Load the copy in `folder` and rebuild its state; a damaged one becomes an engine that says so.

        `new`: the server was defined just now, so it is no news that its copy was never filled. `local` says where the
        node's key is, and who the others are, for direct links to them.
        """
        settings = settings or Settings()
        disk, loaded = await asyncio.to_thread(Disk.open, folder, cluster_id, settings)
        recovered = await asyncio.to_thread(recover, loaded, settings, str(folder))
        for damage in () if new else recovered.damaged:
            log.error("%s is damaged at byte %d: %s", damage.path, damage.position, damage.reason)
        for damage in recovered.repaired:
            log.warning("%s at byte %d: %s", damage.path, damage.position, damage.reason)
        if recovered.damaged and disk:
            disk.close()
            disk = None

        def refill(data: Sequence[bytes], gen: int) -> Disk:
            hard_state, snapshot, *entries = data
            return Disk.refill(folder, cluster_id, settings, hard_state, snapshot, gen=gen, log=entries)

        machine = RegistryMachine(node, recovered, settings, Random(secrets.randbits(128)))
        engine = cls(bus, machine, disk, leads, refill, loaded.identity.gen if loaded.identity else 0)
        if local is not None:
            await engine._post.open(local)
        return engine

    async def run(self) -> None:
        """Start the machine and serve; raises what the disk or the machine raised."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._driver.failed())
            tasks.create_task(self._post.run())
            tasks.create_task(self._broken())
            self._driver.feed()

    async def leave(self) -> None:
        """Say that this server is about to end, and give a primary the time to hand over. Others must hear it still."""
        if self.machine.leading.primary != self.machine.node or len(self.machine.voters) < 2 or self._driver.stopped:
            return
        self._driver.feed(messages.Leaving())
        try:
            async with asyncio.timeout(HAND_OVER):
                while self.machine.leading.primary in (0, self.machine.node):
                    await self._moved.wait()
        except TimeoutError:
            log.info("no other server took over within %g s", HAND_OVER)

    async def close(self) -> None:
        """Stop the machine, finish what was ordered from the disk, give up the files."""
        self._driver.stop()
        self._driver.refuse(NotPrimary("the registry server of this node ended", in_doubt=True))
        await self._background.close()
        if self._writer:
            await self._writer.close()
        await self._post.close()

    @property
    def index(self) -> int:
        """How far this copy knows the log to be committed."""
        return self.machine.store.index

    def ask(self, question: Question, request: Request) -> asyncio.Future[Any]:
        """Answer from this copy; raises CoveyError, NotPrimary when the primary must be asked."""
        return self._driver.ask(question, request.cause)

    def put(self, question: Question, request: Request, answered: Callable[[Any], None]) -> None:
        """The same; `answered` is called with the answer or the CoveyError."""
        self._driver.put(question, request.cause, answered)

    async def status(self, question: messages.Status, request: Request) -> dict[str, Any]:
        """Answer how the registry stands, as this copy knows it, and what its direct links passed."""
        answer = await self.ask(question, request)
        return {**answer, "direct": self._post.state(), "direct_refused": self._post.refused()}

    def traffic(self) -> list[dict[str, Any]]:
        """Return what passed over the direct links, by network."""
        return self._post.traffic()

    def configure(self, local: Local) -> None:
        """The local configuration changed."""
        self._post.configure(local)

    def hear(self, message: Message, request: Request) -> None:
        """Take a message of another node's registry."""
        if isinstance(message, Reach):
            self._post.reached(request.node, message)
        else:
            self._driver.feed(Received(Address(request.service, request.node), message, request.cause))

    def asked(self, node: int) -> None:
        """A node asked who leads, and is answered already."""
        self._driver.feed(messages.AgentAsked(node))

    def _came(self, node: int, message: Message, cause: str) -> None:
        self._driver.feed(Received(Address(SERVICE, node), message, cause))

    def peer_down(self, node: int) -> None:
        """The link to a node was lost."""
        self._driver.feed(messages.PeerDown(node))

    def group_formed(self) -> None:
        """This server is a member of `sys.registry`."""
        self._driver.feed(messages.GroupFormed())

    # --- the machine's orders ---

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, Persist):
            self._persist(effect)
        elif isinstance(effect, Notify) and effect.what == "damaged":
            log.error("this server's copy counts for nothing until it is filled anew: %s", effect.body)
        elif isinstance(effect, Notify):
            self._background.start(self._write_snapshot(effect.body), "snapshot")
        elif isinstance(effect, Publish):
            if effect.topic == LEADING_TOPIC:  # the node's agent publishes what the node knows
                self._leads(effect.body)
                self._moved.set()
                self._moved = asyncio.Event()
        elif isinstance(effect, Send):
            self._post.put(effect)

    def _persist(self, order: Persist) -> None:
        if self._refilling is not None:
            self._refilling.append(order)
        elif self._writer is not None and _gen_of(order.data, self._gen) == self._gen:
            self._writer.write(order.number, order.data)
        else:
            self._refilling = []
            self._background.start(self._fill(order), "a new copy")

    async def _fill(self, order: Persist) -> None:
        """Put a whole new copy in the place of the one that cannot be used, then go on writing behind it."""
        try:
            if self._writer is not None:  # superseded: the files are sound, and not wanted any more
                writer, self._writer = self._writer, None
                await writer.close()
            self._gen = _gen_of(order.data, self._gen)
            self._disk = await asyncio.to_thread(self._refill, order.data, self._gen)
        except NoRoom as problem:
            self._refilling = None
            self._refused(str(problem))
            return
        except Exception as error:
            self._fail(error)
            return
        log.warning("this server's copy was filled anew, up to entry %d", records.index_of(order.data[1]))
        self._writer = self._writing(self._disk)
        later, self._refilling = self._refilling or [], None
        self._persisted(order.number)
        for each in later:
            self._persist(each)

    def _writing(self, disk: Disk) -> Writer:
        writer = Writer(disk, self._persisted, self._trimmed, self._refused)
        self._background.start(self._watch(writer), "the log's thread")
        return writer

    async def _watch(self, writer: Writer) -> None:
        try:
            await writer.failed()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if not self._failed.done():
            self._failed.set_exception(error)

    async def _broken(self) -> None:
        await asyncio.shield(self._failed)

    def _persisted(self, number: int) -> None:
        self._driver.feed(Persisted(number))

    def _refused(self, reason: str) -> None:
        if self.machine.writable:
            log.error("the disk is full, writes are closed until there is room: %s", reason)
        self._driver.feed(messages.NoRoom(reason))

    async def _write_snapshot(self, record: bytes) -> None:
        self._snapshot = records.index_of(record)
        if self._disk is None or self._writer is None:
            self._driver.feed(messages.SnapshotFailed(self._snapshot, "the copy is being filled anew"))
            return
        try:
            await asyncio.to_thread(self._disk.write_snapshot, record)
        except OSError as error:
            log.warning("no snapshot could be written, the log is kept: %s", error)
            self._driver.feed(messages.SnapshotFailed(self._snapshot, str(error)))
            return
        self._writer.trim()

    def _trimmed(self) -> None:
        self._driver.feed(messages.SnapshotWritten(self._snapshot))


class _Head(msgspec.Struct, array_like=True, frozen=True):
    """The beginning of a snapshot's image."""

    cluster_id: str
    gen: int


def _gen_of(data: Sequence[bytes], present: int) -> int:
    """Return the generation that the copy has after an order: another one when a snapshot of the primary brings it."""
    if len(data) < 2 or records.kind_of(data[1]) != records.SNAPSHOT:
        return present
    payload = memoryview(records.decode_only(data[1], records.SNAPSHOT).payload)
    return msgspec.msgpack.decode(payload[records.DIGEST_BYTES :], type=_Head).gen
