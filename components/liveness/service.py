"""Liveness on the bus: runs the machine, carries its messages, answers people and the DCM.

Knows what the machine's effects mean on the bus and nothing of how it decides. Messages between nodes are the
verb `message`; system entries go through `registry/client.py`. What other parties need is published:
`liveness.view`, and `liveness.removed` / `liveness.refused`, again and again until the DCM stops this process,
since an event may be missed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path
from typing import Any

import msgspec

from ...bus.client import Client
from ...bus.context import ComponentContext
from ...bus.driver import Background, Driver, Outbox
from ...bus.machine import Address, Effect, Notify, Publish, Received, Send
from ...bus.messages import PEER_TOPIC, Role
from ...bus.service import Request, verb
from ...errors import ConnectionLost, CoveyError, Denied, NotImplementedYet, Timeout
from ..registry.client import SystemLog, leading_from, read_nodes
from ..registry.messages import LEADING_TOPIC, AppendSystem, ReadSystem
from .machine import LivenessMachine
from .messages import (
    ClockRead,
    ConfiguredQ,
    LeaveQ,
    LivenessMessage,
    PeerDown,
    Status,
    TasksChecked,
    Views,
)
from .settings import Settings

log = logging.getLogger(__name__)

REPEAT = 1.0
"""Seconds between two tries of what must be learned or told."""

CHECK_EVERY = 3
"""Intervals between two rounds of liveness tasks: often enough for their limit, rare enough for a disk's sake."""

_decoder = msgspec.msgpack.Decoder(LivenessMessage)


class LivenessService:
    """The verbs of `liveness`, and the machine behind them."""

    def __init__(self, context: ComponentContext) -> None:
        local = context.local
        self._context = context
        self._bus: Client = context.bus
        section = local.settings.get("liveness") or {}
        self._settings = Settings.for_interval(float(section.get("interval", 1.0)))
        now = asyncio.get_running_loop().time()
        self._machine = LivenessMachine(local.node, local.boot_id, local.node_name, self._settings, now)
        self._driver = Driver(self._machine, self._perform)
        self._background = Background()
        self._outbox = Outbox(context.bus)
        self._log = SystemLog(context.bus)
        self.joined = asyncio.Event()

    async def run(self) -> None:
        """Keep the machine going until cancelled; an error of the machine ends the component."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._driver.failed())
                tasks.create_task(self._outbox.post())
                tasks.create_task(self._hear_leading())
                tasks.create_task(self._hear_peers())
                tasks.create_task(self._seek_leader())
                tasks.create_task(self._do_tasks())
        finally:
            self._driver.stop()
            await self._background.close()

    # --- verbs ----------------------------------------------------------------------------------------------------

    @verb()
    async def status(self) -> dict[str, Any]:
        """The view this node holds, whether it is quorate, who leads, and what it thinks of each peer."""
        found: dict[str, Any] = await self._driver.ask(Status())
        return found

    @verb()
    async def views(self, *, last: int = 10) -> list[dict[str, Any]]:
        """The last views, oldest first: members, who joined, who left, when."""
        found: list[dict[str, Any]] = await self._driver.ask(Views(last))
        return found

    @verb(Role.COMPONENT)
    async def configured(self) -> dict[str, Any]:
        """This node is configured: returns when the view calls it online."""
        found: dict[str, Any] = await self._driver.ask(ConfiguredQ())
        return found

    @verb(Role.COMPONENT)
    async def leave(self) -> dict[str, Any]:
        """Take this node out of the view in order: returns when it is out."""
        found: dict[str, Any] = await self._driver.ask(LeaveQ())
        return found

    @verb()
    def paths(self, *, network: str = "") -> list[dict[str, Any]]:
        """The state of the path between any two adapters."""
        raise NotImplementedYet("the state of each path between adapters is not built yet (SPEC 10.1)")

    @verb(Role.COMPONENT)
    def message(self, request: Request, *, body: bytes) -> None:
        """A message of another node's liveness."""
        if request.service != self._context.name:
            raise Denied(f"'{request.source}' is not the liveness of a node, and only that may speak here")
        message = _decoder.decode(body)
        self._driver.feed(Received(Address("liveness", request.node), message, request.cause))

    # --- the machine's orders ---------------------------------------------------------------------------------------

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, Notify):
            self._notified(effect)
        elif isinstance(effect, Send) and isinstance(effect.message, AppendSystem | ReadSystem):
            self._background.start(self._ask_log(effect.message, effect.cause), "views in the log")
        elif isinstance(effect, Send | Publish):
            self._outbox.put(effect)

    def _notified(self, notify: Notify) -> None:
        log.info("this node %s: %s", notify.what, notify.body)
        if notify.what == "joined":
            self.joined.set()
        elif notify.what in ("removed", "refused"):
            self._background.start(self._tell(f"liveness.{notify.what}", notify.body), "tell the DCM")

    async def _tell(self, topic: str, body: Any) -> None:
        while True:
            try:
                await self._bus.publish(topic, body)
            except CoveyError as problem:
                log.debug("not said: %s", problem)
            await asyncio.sleep(REPEAT)

    async def _ask_log(self, message: AppendSystem | ReadSystem, cause: str) -> None:
        answer = await self._log.ask(message, cause)
        if answer is not None:
            self._driver.feed(Received(Address("registry"), answer, cause))

    # --- what this node learns --------------------------------------------------------------------------------------

    async def _hear_leading(self) -> None:
        async with self._bus.subscribe(LEADING_TOPIC) as events:
            async for event in events:
                self._lead(event.body, event.cause)
                if event.missed:
                    await self._ask_who_leads()

    async def _hear_peers(self) -> None:
        async with self._bus.subscribe(PEER_TOPIC) as events:
            async for event in events:
                if event.body["state"] == "down" and not event.welcome:
                    self._driver.feed(PeerDown(event.body["node"]))

    async def _seek_leader(self) -> None:
        """The event may have come before we listened: ask while nobody is known."""
        while True:
            if not self._machine.leader[1]:
                await self._ask_who_leads()
            await asyncio.sleep(REPEAT)

    async def _ask_who_leads(self) -> None:
        try:
            status = await self._bus.call("registry", "status", timeout=REPEAT)
        except CoveyError as problem:
            log.debug("the registry does not say who leads: %s", problem)
            return
        self._lead(status, "")

    def _lead(self, told: dict[str, Any], cause: str) -> None:
        self._driver.feed(Received(Address("registry"), leading_from(told), cause))

    async def _do_tasks(self) -> None:
        """What a heartbeat stands for (SPEC 10.1): the broker and the DCM answer, the state folder takes a write."""
        path = Path(self._context.local.folder) / "locks" / "liveness.check"
        while True:
            self._driver.feed(ClockRead(time.time() - asyncio.get_running_loop().time()))
            failed = []
            try:
                await self._bus.call("dcm", "ping", timeout=self._settings.tasks / 4)
            except (Timeout, ConnectionLost):
                failed.append("broker or dcm")
            except CoveyError:
                failed.append("dcm")
            try:
                async with asyncio.timeout(self._settings.tasks / 4):
                    await self._context.run_blocking(_write, path)
            except (OSError, TimeoutError) as problem:
                log.warning("the state folder took no write: %s: %s", path, problem)
                failed.append("state folder")
            self._driver.feed(TasksChecked(tuple(failed)))
            await asyncio.sleep(CHECK_EVERY * self._settings.interval)


def _write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.pwrite(file, b"liveness wrote this\n", 0)
        os.fdatasync(file)
    finally:
        os.close(file)


async def main(context: ComponentContext) -> None:
    """Boot steps 8, 10 and 11, then run until cancelled."""
    await context.need("dcm.local")
    await context.refresh()
    await context.step(8, "has the local configuration")
    await context.need("registry.reads")
    await context.step(10, f"has read the global configuration: {len(await read_nodes(context.bus))} nodes")
    service = LivenessService(context)

    async def announce() -> None:
        await service.joined.wait()
        await context.step(11, "ready: in the view")
        await context.ready("liveness")

    async with context.bus.serve(context.name, service) as served, asyncio.TaskGroup() as tasks:
        served.cluster_id = context.local.cluster_id
        tasks.create_task(announce())
        await service.run()
