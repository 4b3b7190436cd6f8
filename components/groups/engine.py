"""The groups machine at work on one node's bus: its driver, its orders, and what it must hear.

Knows what the machine's effects mean on the bus and nothing of how it decides. System entries go through
`registry/client.py`. Events of the bus may be missed: what they tell can be asked for, too.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import msgspec

from ...bus.context import ComponentContext
from ...bus.driver import Background, Driver, Hearing, Outbox
from ...bus.machine import Address, Effect, Notify, Publish, Received, Send
from ...bus.messages import PARTY_TOPIC
from ...errors import CoveyError
from ..liveness.messages import VIEW_TOPIC, ViewChanged
from ..registry.client import SystemLog, leading_from
from ..registry.messages import LEADING_TOPIC, AppendSystem, ReadSystem
from .machine import SYNCED, GroupsMachine
from .messages import SERVICE, GroupsMessage, PartyGone
from .settings import Settings

log = logging.getLogger(__name__)

ASK_AGAIN = 1.0
"""Seconds between two tries of what must be learned."""

LOOK_AGAIN = 5.0
"""Seconds between two looks whether something has become unknown: events tell sooner."""

OUTBOX = 20_000
"""Messages that wait for this node's broker; more are lost, and repeated by the machines."""


class GroupsEngine:
    """One groups machine, fed and obeyed."""

    def __init__(self, context: ComponentContext, settings: Settings | None = None) -> None:
        self._bus = context.bus
        self.node = context.local.node
        self._machine = GroupsMachine(self.node, context.local.boot_id, time.time_ns(), settings)
        self._driver = Driver(self._machine, self._perform)
        self._background = Background()
        self._outbox = Outbox(context.bus, OUTBOX)
        self._hearing = Hearing(GroupsMessage)
        self._log = SystemLog(context.bus)
        self._primary = 0
        self._view: tuple[int, int] = (0, 0)
        self.synced = asyncio.Event()

    async def run(self) -> None:
        """Keep the machine going until cancelled; an error of the machine ends it."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._driver.failed())
                tasks.create_task(self._outbox.post())
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
        return await self._driver.ask(question, cause)

    def hear(self, body: bytes, node: int, cause: str) -> None:
        """Take a message of another node's machine."""
        message = self._hearing.take(body, node)
        if message is not None:
            self._driver.feed(Received(Address(SERVICE, node), message, cause))

    # --- the machine's orders -----------------------------------------------------------------------------------------

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, Notify):
            self._notified(effect)
        elif isinstance(effect, Send) and isinstance(effect.message, AppendSystem | ReadSystem):
            self._background.start(self._ask_log(effect.message, effect.cause), "decisions in the log")
        elif isinstance(effect, Send) and effect.to.node in (0, self.node):
            received = Received(Address(SERVICE, self.node), effect.message, effect.cause)
            asyncio.get_running_loop().call_soon(self._driver.feed, received)
        elif isinstance(effect, Send | Publish):
            self._outbox.put(effect)

    def _notified(self, notify: Notify) -> None:
        if notify.what == SYNCED:
            self.synced.set()
            self._background.start(self._bury(), "look for dead members")

    async def _ask_log(self, message: AppendSystem | ReadSystem, cause: str) -> None:
        answer = await self._log.ask(message, cause)
        if answer is not None:
            self._driver.feed(Received(Address("registry", self.node), answer, cause))

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
                if event.body["state"] == "gone" and not event.welcome:
                    self._driver.feed(PartyGone(event.body["party"]))
                if event.missed:
                    await self._bury()

    async def _learn(self) -> None:
        """An event may be missed, or have come before we listened: ask for what is not known, or in doubt."""
        while True:
            try:
                if not self._primary or self._machine.frozen:
                    status = await self._bus.call("registry", "status", timeout=ASK_AGAIN)
                    self._lead(status, "")
                if self._view == (0, 0) or self._machine.frozen:
                    await self._ask_view()
            except CoveyError as problem:
                log.debug("not known yet: %s", problem)
            unknown = not self._primary or self._machine.frozen or self._view == (0, 0)
            await asyncio.sleep(ASK_AGAIN if unknown else LOOK_AGAIN)

    async def _ask_view(self) -> None:
        status = await self._bus.call("liveness", "status", timeout=ASK_AGAIN)
        view = status.get("view")
        if view:
            told = {"id": view["id"], "members": view["members"], "quorate": status["quorate"]}
            self._show_view(msgspec.convert({"type": "ViewChanged", **told}, ViewChanged), "")

    def _lead(self, told: dict[str, Any], cause: str) -> None:
        leading = leading_from(told)
        self._primary = leading.primary
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
