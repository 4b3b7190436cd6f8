"""The groups machine at work on one node's bus: its driver, its orders, and what it must hear.

Knows what the machine's effects mean on the bus and nothing of how it decides. System entries go through the
registry's verbs `append_system` and `system`; an error after which nobody knows whether the entry was appended is
silence to the machine, which asks again. Events of the bus may be missed: what they tell can be asked for, too.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Coroutine
from typing import Any

import msgspec

from ...bus.context import ComponentContext
from ...bus.driver import Background, Driver, perform_common
from ...bus.machine import Address, Asked, Effect, Notify, Publish, Received, Reply, Send
from ...bus.messages import PARTY_TOPIC
from ...errors import ConnectionLost, CoveyError, Overloaded, ServiceDied, Timeout, Unreachable
from ..liveness.messages import VIEW_TOPIC, ViewChanged
from ..registry.messages import (
    LEADING_TOPIC,
    AppendSystem,
    Leading,
    ReadSystem,
    SystemAppended,
    SystemRead,
    SystemRefused,
)
from .machine import SYNCED, GroupsMachine
from .messages import SERVICE, GroupsMessage, PartyGone
from .settings import Settings

log = logging.getLogger(__name__)

IN_DOUBT = (Timeout, ConnectionLost, ServiceDied, Unreachable, Overloaded)
"""Errors after which nobody knows whether the entry was appended."""

ASK_AGAIN = 1.0
"""Seconds between two tries of what must be learned."""

APPEND_TIMEOUT = 5.0
"""Seconds an append may take before the machine's own repetition is let through."""

OUTBOX = 20_000
"""Messages that wait for this node's broker; more are lost, and repeated by the machines."""

_decoder = msgspec.msgpack.Decoder(GroupsMessage)


class GroupsEngine:
    """One groups machine, fed and obeyed."""

    def __init__(self, context: ComponentContext, settings: Settings | None = None) -> None:
        self._bus = context.bus
        self.node = context.local.node
        self._machine = GroupsMachine(self.node, context.local.boot_id, time.time_ns(), settings)
        self._driver = Driver(self._machine, self._perform)
        self._background = Background()
        self._outbox: asyncio.Queue[Send | Publish] = asyncio.Queue(OUTBOX)
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._appending: set[str] = set()
        self._primary = 0
        self._view: tuple[int, int] = (0, 0)
        self.synced = asyncio.Event()

    async def run(self) -> None:
        """Keep the machine going until cancelled; an error of the machine ends it."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._driver.failed())
                tasks.create_task(self._post())
                tasks.create_task(self._hear_leading())
                tasks.create_task(self._hear_views())
                tasks.create_task(self._hear_parties())
                tasks.create_task(self._learn())
                self._driver.feed()
        finally:
            self._driver.stop()
            await self._background.close()

    async def ask(self, question: Any, cause: str) -> Any:
        """Ask the machine and wait for its answer; raises the error that it answers."""
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self._driver.feed(Asked(number, question, cause))
            return await answer
        finally:
            del self._asked[number]

    def hear(self, body: bytes, node: int, cause: str) -> None:
        """Take a message of another node's machine."""
        self._driver.feed(Received(Address(SERVICE, node), _decoder.decode(body), cause))

    # --- the machine's orders -----------------------------------------------------------------------------------------

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, Reply):
            self._answer(effect)
        elif isinstance(effect, Notify):
            self._notified(effect)
        elif isinstance(effect, Send) and isinstance(effect.message, AppendSystem):
            if effect.message.id not in self._appending:
                self._background.start(self._append(effect.message, effect.cause), "append a decision")
        elif isinstance(effect, Send) and isinstance(effect.message, ReadSystem):
            self._background.start(self._read(effect.message, effect.cause), "read the decisions")
        elif isinstance(effect, Send) and effect.to.node in (0, self.node):
            received = Received(Address(SERVICE, self.node), effect.message, effect.cause)
            asyncio.get_running_loop().call_soon(self._driver.feed, received)
        elif isinstance(effect, Send | Publish):
            try:
                self._outbox.put_nowait(effect)
            except asyncio.QueueFull:
                log.warning("the broker does not keep up; lost: %s", type(effect).__name__)

    def _answer(self, reply: Reply) -> None:
        future = self._asked.get(reply.request)
        if future is None or future.done():
            return
        if isinstance(reply.result, CoveyError):
            future.set_exception(reply.result)
        else:
            future.set_result(reply.result)

    def _notified(self, notify: Notify) -> None:
        if notify.what == SYNCED:
            self.synced.set()
            self._background.start(self._bury(), "look for dead members")

    async def _post(self) -> None:
        while True:
            effect = await self._outbox.get()
            await self._try(perform_common(self._bus, effect))

    @staticmethod
    async def _try(work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except CoveyError as problem:
            log.debug("not sent: %s", problem)

    async def _append(self, entry: AppendSystem, cause: str) -> None:
        told: SystemAppended | SystemRefused
        self._appending.add(entry.id)
        try:
            answer = await self._bus.call(
                "registry",
                "append_system",
                request_id=entry.id,
                cause=cause,
                epoch=entry.epoch,
                kind=entry.kind,
                slot=entry.slot,
                body=entry.body,
                keep=entry.keep,
                timeout=APPEND_TIMEOUT,
            )
            told = SystemAppended(entry.id, answer["index"], entry.epoch)
        except IN_DOUBT as problem:
            log.info("decision not appended, or not known to be: %s", problem)
            return
        except CoveyError as problem:
            log.info("decision refused by the log: %s", problem)
            told = SystemRefused(entry.id, int(problem.details.get("epoch", 0)), str(problem))
        finally:
            self._appending.discard(entry.id)
        self._driver.feed(Received(Address("registry", self.node), told, cause))

    async def _read(self, wanted: ReadSystem, cause: str) -> None:
        entries: list[tuple[str, int, int, bytes]] = []
        more, since = True, 0
        while more:
            try:
                answer = await self._bus.call("registry", "system", cause=cause, kind=wanted.kind, since_index=since)
            except CoveyError as problem:
                log.info("the log's decisions could not be read: %s", problem)
                return
            entries += [(e["slot"], e["index"], e["epoch"], e["body"]) for e in answer["entries"]]
            more = answer.get("more", False)
            since = entries[-1][1] if entries else 0
        told = SystemRead(wanted.id, tuple(entries), answer["epoch"])
        self._driver.feed(Received(Address("registry", self.node), told, cause))

    # --- what this node learns ----------------------------------------------------------------------------------------

    async def _hear_leading(self) -> None:
        async with self._bus.subscribe(LEADING_TOPIC) as events:
            async for event in events:
                self._lead(event.body, event.cause)

    async def _hear_views(self) -> None:
        async with self._bus.subscribe(VIEW_TOPIC) as events:
            async for event in events:
                self._show_view(msgspec.convert(event.body, ViewChanged), event.cause)

    async def _hear_parties(self) -> None:
        async with self._bus.subscribe(PARTY_TOPIC) as events:
            async for event in events:
                if event.body["state"] == "gone":
                    self._driver.feed(PartyGone(event.body["party"]))
                if event.missed:
                    await self._bury()

    async def _learn(self) -> None:
        """An event may be missed, or have come before we listened: ask for what is not known, or in doubt."""
        while True:
            try:
                if not self._primary or self._machine.frozen:
                    status = await self._bus.call("registry", "status", timeout=ASK_AGAIN)
                    self._lead({**status, "primary": status.get("primary") or 0}, "")
                if self._view == (0, 0) or self._machine.frozen:
                    await self._ask_view()
            except CoveyError as problem:
                log.debug("not known yet: %s", problem)
            await asyncio.sleep(ASK_AGAIN)

    async def _ask_view(self) -> None:
        status = await self._bus.call("liveness", "status", timeout=ASK_AGAIN)
        view = status.get("view")
        if view:
            told = {"id": view["id"], "members": view["members"], "quorate": status["quorate"]}
            self._show_view(msgspec.convert({"type": "ViewChanged", **told}, ViewChanged), "")

    def _lead(self, told: dict[str, Any], cause: str) -> None:
        self._primary = told["primary"]
        leading = Leading(told["epoch"], told["primary"], told["phase"], told["writable"])
        self._driver.feed(Received(Address("registry", self.node), leading, cause))

    def _show_view(self, view: ViewChanged, cause: str) -> None:
        self._view = view.id
        self._driver.feed(Received(Address("liveness", self.node), view, cause))

    async def _bury(self) -> None:
        """Members of this node that are not on its bus are dead, whether or not their death was heard of."""
        while True:
            members = self._machine.local_members()  # each was on the bus when it joined, which is in the past
            try:
                status = await self._bus.call("bus", "status")
                break
            except CoveyError as problem:
                log.info("the broker does not say who is alive: %s", problem)
                await asyncio.sleep(ASK_AGAIN)
        for party in sorted(members - {party["name"] for party in status["parties"]}):
            self._driver.feed(PartyGone(party))
