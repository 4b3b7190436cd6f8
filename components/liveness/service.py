"""Liveness on the bus: runs the machine, carries its messages, answers people and the DCM.

Knows what the machine's effects mean on the bus and nothing of how it decides. Messages between nodes are the
verb `message`, probes that name a network are datagrams (`probes.py`); system entries go through
`registry/client.py`. What other parties need is published:
`liveness.view`, and `liveness.removed` / `liveness.refused`, again and again until the DCM stops this process,
since an event may be missed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from ...bus.client import Client
from ...bus.context import ComponentContext
from ...bus.driver import Background, Driver, Hearing, Outbox
from ...bus.machine import Address, Effect, Notify, Publish, Received, Send
from ...bus.messages import CUT_TOPIC, PEER_TOPIC, Role, Way
from ...bus.prefixes import Prefixes
from ...bus.service import Request, verb
from ...errors import ConnectionLost, CoveyError, Denied, NotFound, Timeout
from ..registry.client import SystemLog, leading_from, read_nodes
from ..registry.messages import LEADING_TOPIC, AppendSystem, ReadSystem
from .machine import LivenessMachine
from .messages import (
    Adapters,
    ClockRead,
    ConfiguredQ,
    Heartbeat,
    HeartbeatAck,
    LeaveQ,
    LivenessMessage,
    PeerDown,
    ProbeKey,
    Seen,
    Status,
    TasksChecked,
    Views,
)
from .networks import DEFAULT, Networks
from .probes import Probes
from .seen import Sight, paths
from .settings import Settings

log = logging.getLogger(__name__)

REPEAT = 1.0
"""Seconds between two tries of what must be learned or told."""

CHECK_EVERY = 3
"""Intervals between two rounds of liveness tasks: often enough for their limit, rare enough for a disk's sake."""

LOOK_AGAIN, LOOK_SOON = 10.0, 0.2
"""Seconds between two looks at the local configuration, for adapters that changed, and while a member is missing."""

VOUCH_EVERY = 5.0
"""Seconds between two words to the broker about who lives; changes are told at once."""

VOUCH_INTERVAL = 1.0
"""Seconds. With a longer interval probes would be slower than the broker's own heartbeats, which then go on."""

SEEN_TIME = 2.0
"""Seconds within which a node has to say which paths it sees; what it does not say is known from the other end."""

ASKED_AT_ONCE = 64
"""Nodes asked at a time which paths they see."""


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
        self._hearing = Hearing(LivenessMessage)
        self._log = SystemLog(context.bus)
        self._probes = Probes(local.node, self._hear_probe, self._tell_key, self._refused)
        self._linked: set[int] = set()
        self._vouched: frozenset[int] = frozenset()
        self._vouch_at = 0.0
        self._networks: Networks = {}
        self._look = asyncio.Event()
        self.joined = asyncio.Event()

    async def run(self) -> None:
        """Keep the machine going until cancelled; an error of the machine ends the component."""
        try:
            self._take_adapters()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._driver.failed())
                tasks.create_task(self._follow_adapters())
                tasks.create_task(self._hear_local())
                if self._context.local.settings.get("lab"):
                    tasks.create_task(self._hear_cuts())
                tasks.create_task(self._outbox.post())
                tasks.create_task(self._hear_leading())
                tasks.create_task(self._hear_peers())
                tasks.create_task(self._seek_leader())
                tasks.create_task(self._do_tasks())
        finally:
            self._driver.stop()
            self._probes.close()
            await self._background.close()

    # --- verbs ----------------------------------------------------------------------------------------------------

    @verb()
    async def status(self) -> dict[str, Any]:
        """The view this node holds, whether it is quorate, who leads, and what it thinks of each peer."""
        found: dict[str, Any] = await self._driver.ask(Status())
        misheard = {str(node): count for node, count in sorted(self._hearing.misheard.items())}
        return {**found, "probes": dict(sorted(self._probes.counters.items())), "not_understood": misheard}

    @verb()
    def traffic(self) -> list[dict[str, Any]]:
        """Probes by network: messages and bytes, as `bus.traffic` tells of all else."""
        return self._probes.traffic.state()

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
    async def seen(self) -> list[dict[str, Any]]:
        """Which paths this node sees, to those whom it observes and from those who observe it; one end of `paths`."""
        return [msgspec.structs.asdict(sight) for sight in await self._driver.ask(Seen())]

    @verb()
    async def paths(self, *, network: str = "") -> list[dict[str, Any]]:
        """The state of the path between any two adapters of which one observes the other, as both ends see it.

        `network` names one of those that are probed, or a network of SPEC 8.1: all paths from its addresses.
        """
        networks, ways = dict(self._machine.networks), self._context.local.ways
        defined = {way.network for way in ways.values()} | {DEFAULT}
        if network and network not in defined:
            if network not in networks:
                known = ", ".join(sorted({*networks, *defined}))
                raise NotFound(f"no network '{network}' is known here", f"networks: {known}")
            networks = {network: networks[network]}
        members = [member.number for member in self._machine.chain.members]
        limit = asyncio.Semaphore(ASKED_AT_ONCE)
        told = await asyncio.gather(*(self._ask_seen(number, limit) for number in members))
        rows = paths(
            {number: sights for number, sights in zip(members, told, strict=True) if sights is not None}, networks
        )
        if network not in defined:
            return rows
        table, nowhere = Prefixes(ways), Way(DEFAULT)
        return [row for row in rows if (table.find(row["from"]) or nowhere).network == network]

    async def _ask_seen(self, number: int, limit: asyncio.Semaphore) -> list[Sight] | None:
        """Ask a node what it sees; None when it does not say."""
        try:
            if number == self._context.local.node:
                return list(await self._driver.ask(Seen()))
            async with limit:
                found = await self._bus.call("liveness", "seen", node=number, timeout=SEEN_TIME)
            return msgspec.convert(found, list[Sight])
        except (CoveyError, msgspec.ValidationError) as problem:
            log.debug("node %d does not say which paths it sees: %s", number, problem)
            return None

    @verb(Role.COMPONENT)
    def message(self, request: Request, *, body: bytes) -> None:
        """A message of another node's liveness."""
        if request.service != self._context.name:
            raise Denied(f"'{request.source}' is not the liveness of a node, and only that may speak here")
        message = self._hearing.take(body, request.node)
        if message is None:
            return
        if isinstance(message, ProbeKey):
            if request.node in self._context.local.nodes or self._machine.chain.boot_id(request.node):
                self._probes.learn(request.node, message.key)
            return
        self._driver.feed(Received(Address("liveness", request.node), message, request.cause))

    # --- the machine's orders ---------------------------------------------------------------------------------------

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, Notify):
            self._notified(effect)
        elif isinstance(effect, Send) and isinstance(effect.message, AppendSystem | ReadSystem):
            self._background.start(self._ask_log(effect.message, effect.cause), "views in the log")
        elif (
            isinstance(effect, Send) and isinstance(effect.message, Heartbeat | HeartbeatAck) and effect.message.network
        ):
            self._probes.send(effect.to.node, effect.message)
            self._vouch()
        elif isinstance(effect, Send | Publish):
            self._outbox.put(effect)
            if self._networks != self._machine.networks:
                self._place_probes()
            self._look_if_missing()

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

    # --- probes ---------------------------------------------------------------------------------------------------

    def _vouch(self) -> None:
        """Who answers probes need not be asked by the broker as well. To be looked at whenever somebody is probed."""
        sound, now = self._machine.peers.sound, asyncio.get_running_loop().time()
        if sound != self._vouched or (sound and now >= self._vouch_at):
            self._vouched, self._vouch_at = sound, now + VOUCH_EVERY
            self._background.start(self._say_vouched(sorted(sound)), "vouch for nodes")

    async def _say_vouched(self, nodes: list[int]) -> None:
        if self._settings.interval <= VOUCH_INTERVAL:
            with suppress(CoveyError):
                await self._bus.send("bus", "vouch", nodes=nodes, seconds=3 * VOUCH_EVERY)

    def _hear_probe(self, number: int, message: Heartbeat | HeartbeatAck) -> None:
        self._driver.feed(Received(Address("liveness", number), message))

    def _tell_key(self, number: int, key: bytes) -> None:
        self._outbox.put(Send(Address("liveness", number), ProbeKey(key)))

    def _refused(self, number: int) -> None:
        """Nobody listens there. While the link to its broker stands it is this process alone that ended, and may come
        back within everybody's patience."""
        if number not in self._linked:
            self._driver.feed(PeerDown(number))

    def _take_adapters(self) -> None:
        local = self._context.local
        ways = Prefixes(local.ways)
        self._probes.traffic.renew(local.ways)

        def probed(address: str) -> bool:
            way = ways.find(address)
            return way is None or "liveness" not in way.never

        known = tuple(
            (number, tuple(each for each in node.get("addresses", ()) if probed(each)))
            for number, node in sorted(local.nodes.items())
        )
        self._driver.feed(Adapters(known))
        self._place_probes()

    def _place_probes(self) -> None:
        self._networks = self._machine.networks
        nodes = self._context.local.nodes
        self._probes.configure(self._networks, {n: int(node.get("port", 0)) for n, node in nodes.items()}, nodes)

    async def _follow_adapters(self) -> None:
        """The local configuration has the nodes' adapters; a member that is not in it yet will be soon."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN):
                    await self._look.wait()
                    await asyncio.sleep(LOOK_SOON)
            known = self._context.local
            self._greet_servers()
            try:
                await self._context.refresh()
            except CoveyError as problem:
                log.debug("the DCM does not tell the local configuration: %s", problem)
                continue
            if (self._context.local.nodes, self._context.local.ways) != (known.nodes, known.ways):
                self._take_adapters()
            self._look_if_missing()

    async def _hear_local(self) -> None:
        """The DCM says when the local configuration changed."""
        async for _ in self._bus.subscribe("dcm.local"):
            self._look.set()

    async def _hear_cuts(self) -> None:
        """On a node of a lab probes are cut with all other traffic."""
        async for event in self._bus.subscribe(CUT_TOPIC):
            self._probes.traffic.cut(event.body["out"], event.body["into"])

    def _greet_servers(self) -> None:
        """Registry servers judge by the end of the links between their brokers whether another one lives: those links
        must be in use, also between two of many nodes that do not probe each other."""
        servers = self._context.local.registry_servers
        if self._context.local.node in servers:
            for number in servers:
                if number != self._context.local.node:
                    self._probes.introduce(number)

    def _look_if_missing(self) -> None:
        known = self._context.local.nodes
        if known and any(member.number not in known for member in self._machine.chain.members):
            self._look.set()
        else:
            self._look.clear()

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
                node = event.body["node"]
                if event.body["state"] == "up":
                    self._linked.add(node)
                else:
                    self._linked.discard(node)
                    if not event.welcome:
                        self._driver.feed(PeerDown(node))

    async def _seek_leader(self) -> None:
        """The event may have come before we listened: ask while nobody is known."""
        while True:
            if not self._machine.leader[1]:
                await self._ask_who_leads()
            await asyncio.sleep(LOOK_AGAIN if self._machine.leader[1] else REPEAT)

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
