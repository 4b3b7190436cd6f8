"""A simulated cluster with liveness on every node, for the tests of liveness; it plays the DCM and checks the chain.

Two kinds of log stand below it. `lone`: the real registry machine on node 1, as a cluster with one server has
it. `moving`: a plain stand-in for a replicated log, whose primary moves to another node when it fails, so
that the change of leaders can be tested by itself; it knows by magic who reaches whom, and keeps what it
promises: one reign at a time may append, and who reads sees everything appended before.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from covey.bus.machine import Effect, Publish, Received, Send
from covey.bus.simulation import Birth, Link, Occurrence, World
from covey.components.liveness.machine import LivenessMachine
from covey.components.liveness.messages import Adapters, ClockRead, ConfiguredQ, PeerDown, View
from covey.components.liveness.settings import Settings
from covey.components.registry import entries, records
from covey.components.registry.agent import AgentMachine
from covey.components.registry.founding import FIRST_EPOCH
from covey.components.registry.machine import RegistryMachine
from covey.components.registry.messages import (
    AppendSystem,
    Leading,
    ReadSystem,
    SystemAppended,
    SystemRead,
    SystemRefused,
)
from covey.components.registry.recovery import recover
from covey.components.registry.settings import Settings as RegistrySettings
from registry_world import loaded_from


def adapters(n: int, networks: int) -> dict[int, tuple[str, ...]]:
    """Return the addresses of `n` nodes with one adapter on each of so many networks; none for no networks."""
    if not networks:
        return {}
    return {
        node: tuple(f"10.{net}.{node // 250}.{node % 250 + 1}/16" for net in range(1, networks + 1))
        for node in range(1, n + 1)
    }


class MovingLog:
    """What the parts of the stand-in log share: the reign, and what was appended."""

    def __init__(self, servers: list[int]) -> None:
        self.servers = servers
        self.epoch = 0
        self.primary = 0
        self.entries: list[tuple[str, int, int, bytes]] = []
        self.ids: dict[str, int] = {}


class LogPart:
    """One node's registry over a `MovingLog`. An entry takes a while, and is refused if the reign ends meanwhile."""

    def __init__(self, birth: Birth, cluster: Cluster) -> None:
        self.node, self.cluster, self.log = birth.node, cluster, cluster.log
        self.look_at = birth.now
        self.random = birth.random
        self.known: Leading | None = None
        self.pending: list[tuple[float, Received]] = []

    @property
    def deadline(self) -> float | None:
        return min([self.look_at, *(at for at, _ in self.pending)])

    def step(self, now: float, input: Any = None) -> list[Effect]:
        effects: list[Effect] = []
        if isinstance(input, Received) and isinstance(input.message, AppendSystem):
            self.pending.append((now + self.random.uniform(0.001, 0.3), input))
        elif isinstance(input, Received) and isinstance(input.message, ReadSystem):
            answer: Any = SystemRead(input.message.id, tuple(self.log.entries[-256:]), self.log.epoch)
            if not self.reigns:
                answer = SystemRefused(input.message.id, self.log.epoch, "not the primary")
            effects.append(Send(input.source, answer))
        for pending in sorted([p for p in self.pending if p[0] <= now], key=lambda p: p[0]):
            self.pending.remove(pending)
            effects.append(Send(pending[1].source, self.append(pending[1].message)))
        if now >= self.look_at:
            self.look_at = now + self.random.uniform(0.1, 0.4)
            primary = self.log.primary if self.cluster.reaches(self.node, self.log.primary) else 0
            leading = Leading(
                self.log.epoch if primary else 0, primary, "writes" if primary else "stale", bool(primary)
            )
            if leading != self.known:
                self.known = leading
                effects.append(Publish("registry.leading", leading))
        return effects

    @property
    def reigns(self) -> bool:
        return self.log.primary == self.node and self.cluster.has_majority(self.node)

    def append(self, asked: Any) -> Any:
        log = self.log
        if asked.id in log.ids:
            return SystemAppended(asked.id, log.ids[asked.id], asked.epoch)
        if not self.reigns or asked.epoch != log.epoch:
            return SystemRefused(asked.id, log.epoch, "another reign")
        log.ids[asked.id] = len(log.entries) + 1
        log.entries.append((asked.slot, log.ids[asked.id], asked.epoch, asked.body))
        return SystemAppended(asked.id, log.ids[asked.id], asked.epoch)

    def check_invariants(self) -> None:
        pass


class Cluster:
    """`n` nodes that join by themselves. `moving`: these nodes carry the stand-in log, else node 1 the real one."""

    def __init__(
        self,
        seed: int,
        n: int,
        *,
        link: Link | None = None,
        moving: tuple[int, ...] = (),
        settings: Settings | None = None,
        rejoin: bool = True,
        machine: type[LivenessMachine] = LivenessMachine,
        networks: int = 0,
    ) -> None:
        self.world = World(seed, link=link, peer_down={"liveness": PeerDown})
        self.settings = settings or Settings()
        self.machine_class = machine
        self.rejoin = rejoin
        self.adapters = adapters(n, networks)
        self.log = MovingLog(list(moving))
        self.views: dict[int, View] = {}
        self.first_seen: dict[int, float] = {}
        self._checked: dict[tuple[int, int], int] = {}
        self._gone: set[str] = set()
        self._departed_to = 0
        self._lost_since: float | None = None
        self.world.on_notify.append(self.play_dcm)
        self.world.on_step.append(self.check)
        for number in range(1, n + 1):
            self.world.add(number, {"registry": self.registry, "liveness": self.liveness})
        if moving:
            self.elect()

    # --- building -------------------------------------------------------------------------------------------------

    def liveness(self, birth: Birth) -> LivenessMachine:
        machine = self.machine_class(birth.node, birth.boot_id, f"n{birth.node}", self.settings, birth.now)
        self.world.feed(birth.node, "liveness", ClockRead(1e9 + self.world.now - birth.now))
        if self.adapters:
            self.world.feed(birth.node, "liveness", Adapters(tuple(self.adapters.items())))
        return machine

    def registry(self, birth: Birth) -> Any:
        if self.log.servers:
            return LogPart(birth, self)
        if birth.node != 1:
            return AgentMachine(birth.node, (1,))
        if not birth.disk.synced:
            founded = entries.Founded("c1", 0, (("/cluster/servers", b"\x82\xa7servers\x91\x01\xa7primary\x01"),))
            birth.disk.synced.append([entries.encode(entries.Entry(FIRST_EPOCH, 1, 0, founded), records.START)])
        settings = RegistrySettings()
        return RegistryMachine(1, recover(loaded_from(birth.disk.synced), settings), settings, birth.random)

    # --- the DCM's part ---------------------------------------------------------------------------------------------

    def play_dcm(self, heard: Occurrence) -> None:
        if heard.service != "liveness":
            return
        node = self.world.nodes[heard.node]
        if heard.what == "joined" and node.running:
            self.world.after(0.2, lambda: self.configure(heard))
        elif heard.what == "removed" and self.rejoin:
            self.world.after(0.5, lambda: self.rejoins(heard))

    def configure(self, heard: Occurrence) -> None:
        if self.is_life(heard):
            self.world.ask(heard.node, "liveness", ConfiguredQ())

    def rejoins(self, heard: Occurrence) -> None:
        if self.is_life(heard):
            self.world.restart(heard.node)

    def is_life(self, heard: Occurrence) -> bool:
        node = self.world.nodes[heard.node]
        return "liveness" in node.machines and node.boot_id == heard.body["boot_id"]

    # --- the stand-in log's elections -------------------------------------------------------------------------------

    def reaches(self, a: int, b: int) -> bool:
        nodes, cut = self.world.nodes, self.world.cut_ways
        if b not in nodes or not nodes[b].running or nodes[b].paused:
            return False
        return a == b or ((a, b) not in cut and (b, a) not in cut)

    def has_majority(self, node: int) -> bool:
        return 2 * sum(self.reaches(node, server) for server in self.log.servers) > len(self.log.servers)

    def elect(self) -> None:
        """Every 0.3 s: move the reign when the primary has been without a majority for 1.5 s."""
        self.world.after(0.3, self.elect)
        log, nodes = self.log, self.world.nodes
        primary = nodes.get(log.primary)
        if primary is not None and primary.running and not primary.paused and self.has_majority(log.primary):
            self._lost_since = None
            return
        self._lost_since = self._lost_since or self.world.now
        able = [s for s in log.servers if nodes[s].running and not nodes[s].paused and self.has_majority(s)]
        if able and (self.world.now >= self._lost_since + 1.5 or not log.primary):
            log.primary, log.epoch = self.world.random.choice(able), log.epoch + 1

    # --- what must always hold --------------------------------------------------------------------------------------

    def check(self, number: int, service: str, input: Any, effects: list[Effect]) -> None:
        """INV-18, 19, 20 over all nodes and all lives: one chain, everybody holds a piece of it."""
        machine = self.world.nodes[number].machines.get("liveness")
        if service != "liveness" or not isinstance(machine, LivenessMachine) or machine.chain.last is None:
            return
        key = (number, self.world.nodes[number].births["liveness"])
        seen = self._checked.get(key, 0)
        assert machine.chain.id[1] >= seen, "INV-19: the views of a node went back"
        if machine.chain.id[1] == seen:
            return
        for view in [v for v in machine.chain.views if v.id[1] > seen]:
            known = self.views.setdefault(view.id[1], view)
            self.first_seen.setdefault(view.id[1], self.world.now)
            assert known == view, f"INV-18: two views are number {view.id[1]}: {known} and {view}"
            if self.log.servers:
                assert f"view/{view.id[0]}/{view.id[1]}" in self.log.ids, f"{view.id} is held and not in the log"
        self._checked[key] = machine.chain.id[1]
        self.check_departed()

    def check_departed(self) -> None:
        while (n := self._departed_to + 1) in self.views:
            before = {m.boot_id for m in self.views[n - 1].members} if n > 1 else set()
            now = {m.boot_id for m in self.views[n].members}
            self._gone |= before - now
            back = self._gone & now
            assert not back, f"INV-20: {sorted(back)} came back in view {n}"
            self._departed_to = n

    # --- what tests look at -----------------------------------------------------------------------------------------

    def machine(self, number: int) -> LivenessMachine:
        found: LivenessMachine = self.world.machine(number, "liveness")
        return found

    def running(self) -> list[int]:
        return [number for number, node in self.world.nodes.items() if node.running]

    def waiting(self) -> list[int]:
        """Those who were removed while they ran, and are not let in yet."""
        now, nodes = self.world.now, self.world.nodes
        found = [(n, self.machine(n)) for n in self.running()]
        return [n for n, m in found if m.phase == "outside" and m.waits_until > now + nodes[n].offset]

    def settled(self, but: Container[int] = ()) -> bool:
        """Every running node is online in the same view, which holds these nodes and no others, and is quorate."""
        numbers = [number for number in self.running() if number not in but]
        machines = [self.machine(number) for number in numbers]
        if len({m.chain.id for m in machines}) != 1 or not all(m.quorate for m in machines):
            return False
        listed = [(m.number, m.boot_id, m.state) for m in machines[0].chain.members]
        return listed == [(m.number, m.boot_id, "online") for m in machines]

    def settle(self, within: float = 30.0) -> float:
        return self.world.eventually(self.settled, within, "the cluster is settled")

    def left(self) -> list[tuple[float, str]]:
        """Every boot id that left so far and when the first node knew."""
        found: list[tuple[float, str]] = []
        before: set[str] = set()
        for n in sorted(self.views):
            now = {m.boot_id for m in self.views[n].members}
            found += [(self.first_seen[n], boot_id) for boot_id in sorted(before - now)]
            before = now
        return found
