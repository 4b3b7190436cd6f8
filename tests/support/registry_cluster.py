"""A registry of one to five servers in the simulator, with spare servers, agents, clients, and all that watches them.

`RegistryCluster(seed, 3)` founds it; `machine=` takes a subclass of the machine, for planted mistakes. Servers are
nodes 1, 2, …, spare ones follow them (never filled, in no list until one is defined), agents are 21 and 22. Every
fault has a method here; faults by chance are in `registry_nemesis.py`, storms in `registry_storm.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Any

import msgspec
from covey.bus.linearizability import check_registers, check_transactions, check_watch
from covey.bus.machine import Effect
from covey.bus.simulation import Birth, Link, Occurrence, World
from covey.components.registry import entries, messages, records
from covey.components.registry.agent import AgentMachine
from covey.components.registry.machine import RegistryMachine
from covey.components.registry.recovery import encode_snapshot, recover
from covey.components.registry.settings import Settings
from covey.components.registry.states import State
from covey.components.registry.store import Store
from covey.errors import CoveyError
from registry_clients import SERVICE, Call, Clients, registers, transactions
from registry_copy import FLIPPED, SERVERS_KEY, CopyDisk
from registry_guard import Guard
from registry_truth import Truth

AGENTS = (21, 22)
SETTINGS = Settings(
    history_changes=150,
    requests_kept=400,
    watch_bytes=2000,
    watches=40,
    snapshot_bytes=6000,
    append_bytes=700,
    part_bytes=900,
    learner_lag=8,
)


def founding(servers: Iterable[int], nodes: Iterable[int], gen: int = 0, extra: str = "") -> bytes:
    """Return the snapshot of a registry that was just founded on these servers: what their disks begin with."""
    listed = list(servers)
    keys: dict[str, Any] = {SERVERS_KEY: {"servers": listed, "primary": listed[0], "learners": [], "stopped": []}}
    keys |= {f"/nodes/{number}": {"number": number} for number in nodes}
    if extra:
        keys["/app/only-here"] = extra
    then = tuple((key, msgspec.msgpack.encode(value)) for key, value in sorted(keys.items()))
    store = Store(SETTINGS)
    entry = entries.Entry(1, 1, 0, entries.Founded("c", gen, then))
    store.apply(entry)
    return encode_snapshot(store, records.digest(entries.encode(entry, records.START)))


class RegistryCluster:
    """Servers, spares, agents; `clients` asks, `guard` watches every step, `truth` is what was committed."""

    def __init__(
        self,
        seed: int,
        servers: int = 3,
        spares: int = 0,
        *,
        machine: Callable[..., Any] = RegistryMachine,
        agent: Callable[..., Any] = AgentMachine,
        settings: Settings = SETTINGS,
        link: Link | None = None,
        gen: int = 0,
        old: Iterable[int] = (),
        start: bool = True,
    ) -> None:
        self.world = World(seed, link=link, peer_down={SERVICE: messages.PeerDown})
        self.random = Random(f"registry {seed}")
        self.machine, self.agent, self.settings = machine, agent, settings
        self.servers = list(range(1, servers + 1))
        self.all = list(range(1, servers + spares + 1))
        self.clients = Clients(self.world, self.random, lambda: self.listed)
        self.groups = True  # the group sys.registry forms some time after each start
        self.listed = list(self.servers)
        snapshot = founding(self.servers, self.all, gen)
        self.truth = Truth(snapshot, settings.requests_kept)
        self.guard = Guard(self.truth, self.clients.questions)
        self.world.on_step.append(self._step)
        self.world.on_notify.append(self._notified)
        self.disks: dict[int, CopyDisk] = {}
        for number in self.all:
            node = self.world.add(number, {SERVICE: self._server}, start=False)
            disk = self.disks[number] = CopyDisk(Random(f"disk {seed} {number}"))
            node.disks[SERVICE] = disk
            self.guard.add(number, disk)
            if number in self.servers:
                founded = founding(self.servers, self.all, gen - 1, "old") if number in old else snapshot
                for record in (records.encode_hard_state(1), founded):
                    disk.keep(record)
        for number in AGENTS:
            self.world.add(number, {SERVICE: self._agent}, start=False)
        for number in (*self.all, *AGENTS) if start else ():
            self.start(number)

    # --- machines ---

    def _server(self, birth: Birth) -> Any:
        self.guard.born(birth.node)
        recovered = recover(self.disks[birth.node].load(), self.settings)
        return self.machine(birth.node, recovered, self.settings, birth.random)

    def _agent(self, birth: Birth) -> Any:
        return self.agent(birth.node, tuple(self.listed), self.settings)

    def _step(self, node: int, service: str, input: Any, effects: list[Effect]) -> None:
        if node in self.disks:
            self.guard.step(node, self.world.nodes[node].machines[service], input, effects)
            if list(self.truth.servers.voters) != self.listed:
                self.listed = list(self.truth.servers.voters)
                for agent in AGENTS:
                    if self.world.nodes[agent].running:
                        self.world.feed(agent, SERVICE, messages.ServersChanged(tuple(self.listed)), delay=0.05)

    def _notified(self, occurrence: Occurrence) -> None:
        """A server made a snapshot: it is written aside while the log goes on."""
        if occurrence.what != "snapshot":
            return
        node, snapshot = self.world.nodes[occurrence.node], occurrence.body
        disk, birth = self.disks[node.number], node.births[SERVICE]
        index, refills = records.index_of(snapshot), disk.refills

        def written() -> None:
            if node.births[SERVICE] != birth:
                return
            if disk.full or self.random.random() < 0.05 or refills != disk.refills or not disk.write_own(snapshot):
                heard: Any = messages.SnapshotFailed(index, "no space left on device")
            else:
                heard = messages.SnapshotWritten(index)
            self.world.feed(node.number, SERVICE, heard)

        self.world.after(self.random.uniform(0.001, 0.05), written)

    # --- faults ---

    def running(self, number: int) -> bool:
        """The server's process is there (it may be paused)."""
        return SERVICE in self.world.nodes[number].machines

    def start(self, number: int) -> None:
        """Start a node that is down; its group forms a little later."""
        world = self.world
        node = world.nodes[number]
        if node.running:
            return
        world.start(number)
        if number in self.disks:
            self._form(number)

    def _form(self, number: int) -> None:
        birth = self.world.nodes[number].births[SERVICE]

        def formed() -> None:
            node = self.world.nodes[number]
            if node.running and node.births[SERVICE] == birth:
                if self.groups:
                    self.world.feed(number, SERVICE, messages.GroupFormed())
                else:
                    self.world.after(0.5, formed)

        self.world.after(self.random.uniform(0.0, 0.4), formed)

    def crash(self, number: int, *, power: bool = False, down: float | None = None) -> None:
        """Kill a node; what its disk had not synced is lost in part. It comes back after `down` seconds."""
        if self.world.nodes[number].running:
            self.world.crash(number, power=power)
            if down is not None:
                self.world.after(down, lambda: self.start(number))

    def power_failure(self, down: float) -> None:
        """Cut the power of all nodes at once."""
        for number in (*self.all, *AGENTS):
            self.crash(number, power=True, down=down * self.random.uniform(0.8, 1.2))

    def disk_error(self, number: int, down: float) -> None:
        """A write fails: the server's process ends, and is started again in the same life of its node."""
        if not self.running(number):
            return
        self.world.crash_service(number, SERVICE)

        def again() -> None:
            if not self.running(number):
                self.world.start_service(number, SERVICE)
                self._form(number)

        self.world.after(down, again)

    def damage(self, number: int, down: float) -> None:
        """Kill a server and spoil its files; they are found so when it starts again."""
        self.crash(number, power=True)
        self.world.faults.append((self.world.now, f"damage {number}"))
        self.disks[number].spoil(FLIPPED)
        self.world.after(down, lambda: self.start(number))

    def fill_disk(self, number: int, seconds: float) -> None:
        """Let a server's disk be full for a while."""
        self._disk_fault(number, f"full disk {number}", seconds, full=True)

    def slow_disk(self, number: int, low: float, high: float, seconds: float) -> None:
        """Let a server's disk be slow for a while."""
        self._disk_fault(number, f"slow disk {number}", seconds, low=low, high=high)

    def _disk_fault(self, number: int, text: str, seconds: float, **changed: Any) -> None:
        disk = self.disks[number]
        self.world.faults.append((self.world.now, text))
        usual = {name: {"full": False, "low": 0.0002, "high": 0.002}[name] for name in changed}
        disk.__dict__.update(changed)
        self.world.after(seconds, lambda: disk.__dict__.update(usual))

    def all_in_force(self) -> list[set[int]]:
        """Return every set of voters that some log has in force, and the committed one."""
        found = {frozenset(self.truth.servers.voters)}
        found |= {frozenset(c.in_force.voters) for c in self.guard.ordered.values() if c.servers and c.gen == self.gen}
        return [set(one) for one in sorted(map(sorted, found))]

    @property
    def gen(self) -> int:
        """The generation of the registry."""
        return self.truth.gen

    def spoiled(self) -> set[int]:
        """Return the servers whose disks hold no sound copy of this generation."""
        return {number for number, disk in self.disks.items() if disk.damage or disk.copy.gen != self.gen}

    def may_damage(self, number: int) -> bool:
        """Would enough sound copies be left, whichever list of servers comes to be in force?"""
        bad = self.spoiled() | {number}
        return all(number not in one or len(one & bad) <= len(one) - len(one) // 2 - 1 for one in self.all_in_force())

    # --- who leads ---

    @property
    def primary(self) -> int:
        """Return the server that leads in the newest epoch, 0: none does."""
        found = [
            (machine.raft.promised, number)
            for number in self.all
            if (machine := self.world.nodes[number].machines.get(SERVICE)) and machine.raft.leads
        ]
        return max(found)[1] if found else 0

    def server(self, number: int) -> Any:
        """Return a server's machine."""
        return self.world.machine(number, SERVICE)

    def writable(self) -> bool:
        """The primary takes writes."""
        return bool(self.primary) and self.server(self.primary).state is State.WRITES

    def ready(self, within: float = 10.0) -> int:
        """Wait until writes are open; return the primary."""
        self.world.eventually(self.writable, within, "writes are open")
        return self.primary

    def change(
        self, kind: Any, number: int, node: int | None = None, done: Callable[[Call], None] | None = None
    ) -> Call:
        """Ask for a change of the servers."""
        question = messages.ChangeServers(self.clients.id(), kind, number)
        return self.clients.call(self.primary or self.servers[0] if node is None else node, question, done)

    def hand_over(self, to: int = 0) -> Call:
        """Ask for another primary, from an agent's node."""
        return self.clients.call(AGENTS[0], messages.HandOver(to))

    def leave(self, number: int) -> None:
        """Tell a server that it is about to stop in order."""
        if self.running(number):
            self.world.feed(number, SERVICE, messages.Leaving())

    # --- the end ---

    def heal(self) -> None:
        """Undo every fault and start all that is down."""
        self.world.heal()
        self.groups = True
        for number, disk in self.disks.items():
            disk.full, disk.low, disk.high = False, 0.0002, 0.002
            if self.world.nodes[number].life and not self.running(number):
                self.start(number)
        for number in AGENTS:
            self.start(number)

    def unsettled(self) -> str:
        """Return why not all is well yet; empty when it is."""
        if not self.writable():
            return "writes are closed"
        primary = self.server(self.primary)
        log = primary.raft.log
        if log.servers_index > log.committed or log.servers.learners:
            return "a change of servers is under way"
        for number in log.servers.voters:
            machine = self.server(number)
            if machine.state is State.DAMAGED or self.disks[number].damage:
                return f"{number} is damaged"
            if machine.raft.log.committed != log.committed or machine.raft.log.last != log.last:
                return f"{number} is at {machine.raft.log.committed}, the primary at {log.committed}"
            if machine.leading.primary != self.primary:
                return f"{number} follows {machine.leading.primary}"
        for number in AGENTS:
            if self.server(number).known.primary != self.primary:
                return f"agent {number} follows {self.server(number).known.primary}"
        return ""

    def settle(self, within: float = 30.0) -> float:
        """INV-31: wait until all is well; return how long that took."""
        at = [0.0, "not looked"]

        def well() -> bool:
            if self.world.now >= at[0]:  # type: ignore[operator]
                at[:] = [self.world.now + 0.05, self.unsettled()]
            return not at[1]

        try:
            return self.world.eventually(well, within, "INV-31: all is well again")
        except AssertionError as failure:
            raise AssertionError(f"{at[1]}\n{failure}") from None

    def finish(self, within: float = 30.0) -> None:
        """Heal, let clients end, wait until all is well, and judge the history."""
        self.heal()
        self.world.run(1.0)
        self.settle(within)
        self.clients.stopped = True
        probes = [self.probe(number) for number in (*self.listed, *AGENTS)]
        self.world.eventually(lambda: all(call.over for call in probes), 10.0, "INV-31: every node can write")
        self.world.run(2.0)
        self.settle(10.0)
        self.clients.watching = False
        for call in probes:
            if not isinstance(call.result, dict):
                raise self.world.failure(f"INV-31: a write from node {call.node} ended with {call.result}")
        try:
            self.judge()
        except AssertionError as error:
            raise self.world.failure(str(error)) from error

    def probe(self, node: int) -> Call:
        """Write something from a node."""
        id = self.clients.id()
        put = messages.Operation("put", f"/app/probe/{node}", id)
        return self.clients.call(node, messages.Transact(id, (), (put,)))

    def judge(self) -> None:
        """Hold every answer against the truth, and the history by itself."""
        truth, calls = self.truth, self.clients.calls
        for call in calls:
            question, result = call.question, call.result
            if isinstance(question, messages.Transact | messages.AppendSystem) and call.returned is not None:
                if isinstance(result, CoveyError):
                    assert question.id not in truth.ids, f"INV-14: {question.id} was refused ({result}) and done"
                else:
                    assert question.id in truth.ids, f"INV-9: {question.id} was acknowledged and is lost"
        asked, reads = transactions(calls)
        for read in reads:
            for key, found in read.found.items():
                known = truth.at(key, read.revision)
                kind = "INV-10" if read.exact else "INV-12"
                assert found == known, f"{kind}: {key} was read as {found} at {read.revision}, and was {known}"
        self.guard.seen["operations judged"] += check_registers(registers(calls))
        check_transactions(asked, reads)
        for prefix, start, batches in self.clients.batches:
            reached = check_watch(prefix, start, batches, truth.changes_from(start))
            self.guard.seen["watches compacted"] += sum("compacted" in batch for batch in batches)
            assert not batches or reached <= truth.revisions[-1], f"INV-15: revision {reached} was not committed"
