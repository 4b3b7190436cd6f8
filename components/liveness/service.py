"""Liveness on the bus: runs the machine, carries its messages, answers people and the DCM.

Knows what the machine's effects mean on the bus and nothing of how it decides. Messages between nodes are the
verb `message`; system entries are the registry's verbs `append_system` and `system`, whose errors become
`SystemRefused` when it is certain that nothing was appended, and silence when it is not: the machine asks
again. What other parties need is published: `liveness.view`, and `liveness.removed` / `liveness.refused`,
again and again until the DCM stops this process, since an event may be missed.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec

from ...bus.client import Client
from ...bus.context import ComponentContext
from ...bus.driver import Background, Driver, perform_common
from ...bus.machine import Address, Asked, Effect, Notify, Publish, Received, Reply, Send
from ...bus.messages import PEER_TOPIC, Role
from ...bus.service import Request, verb
from ...errors import (
    ConnectionLost,
    CoveyError,
    Denied,
    NotImplementedYet,
    Overloaded,
    ServiceDied,
    Timeout,
    Unreachable,
)
from ..registry.messages import (
    LEADING_TOPIC,
    AppendSystem,
    Leading,
    ReadSystem,
    SystemAppended,
    SystemRead,
    SystemRefused,
)
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

IN_DOUBT = (Timeout, ConnectionLost, ServiceDied, Unreachable, Overloaded)
"""Errors after which nobody knows whether the entry was appended."""

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
        self._outbox: asyncio.Queue[Send | Publish] = asyncio.Queue()
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self.joined = asyncio.Event()

    async def run(self) -> None:
        """Keep the machine going until cancelled; an error of the machine ends the component."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._driver.failed())
                tasks.create_task(self._post())
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
        found: dict[str, Any] = await self._ask(Status())
        return found

    @verb()
    async def views(self, *, last: int = 10) -> list[dict[str, Any]]:
        """The last views, oldest first: members, who joined, who left, when."""
        found: list[dict[str, Any]] = await self._ask(Views(last))
        return found

    @verb(Role.COMPONENT)
    async def configured(self) -> dict[str, Any]:
        """This node is configured: returns when the view calls it online."""
        found: dict[str, Any] = await self._ask(ConfiguredQ())
        return found

    @verb(Role.COMPONENT)
    async def leave(self) -> dict[str, Any]:
        """Take this node out of the view in order: returns when it is out."""
        found: dict[str, Any] = await self._ask(LeaveQ())
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

    async def _ask(self, question: Any) -> Any:
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self._driver.feed(Asked(number, question))
            return await answer
        finally:
            del self._asked[number]

    # --- the machine's orders ---------------------------------------------------------------------------------------

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, Reply):
            self._answer(effect)
        elif isinstance(effect, Notify):
            self._notified(effect)
        elif isinstance(effect, Send) and isinstance(effect.message, AppendSystem):
            self._background.start(self._append(effect.message, effect.cause), "append a view")
        elif isinstance(effect, Send) and isinstance(effect.message, ReadSystem):
            self._background.start(self._read(effect.message, effect.cause), "read the views")
        elif isinstance(effect, Send | Publish):
            self._outbox.put_nowait(effect)

    def _answer(self, reply: Reply) -> None:
        future = self._asked.get(reply.request)
        if future is None or future.done():
            return
        if isinstance(reply.result, CoveyError):
            future.set_exception(reply.result)
        else:
            future.set_result(reply.result)

    def _notified(self, notify: Notify) -> None:
        log.info("this node %s: %s", notify.what, notify.body)
        if notify.what == "joined":
            self.joined.set()
        elif notify.what in ("removed", "refused"):
            self._background.start(self._tell(f"liveness.{notify.what}", notify.body), "tell the DCM")

    async def _tell(self, topic: str, body: Any) -> None:
        while True:
            await self._try(self._bus.publish(topic, body))
            await asyncio.sleep(REPEAT)

    async def _post(self) -> None:
        while True:
            await self._try(perform_common(self._bus, await self._outbox.get()))

    async def _try(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except CoveyError as problem:  # a lost message is the machine's business, which says it again
            log.debug("not sent: %s", problem)

    async def _append(self, entry: AppendSystem, cause: str) -> None:
        told: SystemAppended | SystemRefused
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
                timeout=4 * self._settings.repeat,
            )
            told = SystemAppended(entry.id, answer["index"], entry.epoch)
        except IN_DOUBT as problem:
            log.info("view not appended, or not known to be: %s", problem)
            return
        except CoveyError as problem:
            log.info("view refused by the log: %s", problem)
            told = SystemRefused(entry.id, int(problem.details.get("epoch", 0)), str(problem))
        self._driver.feed(Received(Address("registry"), told, cause))

    async def _read(self, wanted: ReadSystem, cause: str) -> None:
        entries: list[tuple[str, int, int, bytes]] = []
        more = True
        while more:
            since = entries[-1][1] if entries else 0
            try:
                answer = await self._bus.call("registry", "system", cause=cause, kind=wanted.kind, since_index=since)
            except CoveyError as problem:
                log.info("the log's views could not be read: %s", problem)
                return
            entries += [(e["slot"], e["index"], e["epoch"], e["body"]) for e in answer["entries"]]
            more = answer.get("more", False)
        read = SystemRead(wanted.id, tuple(entries), answer["epoch"])
        self._driver.feed(Received(Address("registry"), read, cause))

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
                if event.body["state"] == "down":
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
        self._lead({**status, "primary": status.get("primary") or 0}, "")

    def _lead(self, told: dict[str, Any], cause: str) -> None:
        leading = Leading(told["epoch"], told["primary"], told["phase"], told["writable"])
        self._driver.feed(Received(Address("registry"), leading, cause))

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
    while True:
        try:
            found = await context.bus.call("registry", "ls", prefix="/nodes/")
            break
        except CoveyError as problem:
            log.info("the global configuration cannot be read yet: %s", problem)
            await asyncio.sleep(0.2)
    await context.step(10, f"has read the global configuration: {len(found['items'])} nodes")
    service = LivenessService(context)

    async def announce() -> None:
        await service.joined.wait()
        await context.step(11, "ready: in the view")
        await context.ready("liveness")

    async with context.bus.serve(context.name, service), asyncio.TaskGroup() as tasks:
        tasks.create_task(announce())
        await service.run()
