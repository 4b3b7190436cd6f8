"""A registry server, agents and clients in the simulator; and the checks that know the truth from the disk alone.

The checks trust nothing that the machine says of itself: they replay the records that were synced with a model of
their own (a dict), and hold every answer that a client got against it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from random import Random
from typing import Any

import msgspec
from covey.bus.machine import Effect, Reply
from covey.bus.simulation import Birth, Link, Operation, World
from covey.components.registry import entries, messages, records
from covey.components.registry.agent import AgentMachine
from covey.components.registry.loaded import Identity, Loaded
from covey.components.registry.machine import RegistryMachine
from covey.components.registry.messages import AppendSystem, Comparison, Get, Leading, ListSystem, Transact, Watch
from covey.components.registry.messages import Operation as Change
from covey.components.registry.recovery import recover
from covey.components.registry.settings import Settings
from covey.errors import Compacted, CoveyError, NoQuorum, NotPrimary, ReadOnly, StaleEpoch

SERVER = 1
AGENTS = (2, 3)
SETTINGS = Settings(history_changes=40, requests_kept=500, watch_bytes=2000, watches=6)
KEYS = ["/app/a", "/app/b", "/app/b/c", "/app/d"]


def first_record() -> bytes:
    """The entry that a log is founded with."""
    then = (("/cluster/servers", b"\x82\xa7servers\x91\x01\xa7primary\x01"),)
    return entries.encode(entries.Entry(1, 1, 0, entries.Founded("c", 0, then)), records.START)


def loaded_from(written: Iterable[Sequence[bytes]], identity: Identity | None = None) -> Loaded:
    """Return what a disk holds that kept `Persist` data, one list of records each: the simulator's."""
    promised = voted_for = committed = 0
    base: records.Record | None = None
    first, chain = 1, records.START
    found: list[records.Record] = []
    for data in (data for batch in written for data in batch):
        kind = records.kind_of(data)
        if kind == records.HARD_STATE:
            hard = records.decode_only(data, kind)
            promised, voted_for = hard.epoch, records.decode_vote(hard)
        elif kind == records.CUT:
            cut = records.decode_only(data, kind)
            del found[max(cut.index - first + 1, 0) :]
            chain = cut.payload
        elif kind == records.COMMITTED:
            committed = max(committed, records.index_of(data))
        elif kind == records.SNAPSHOT:
            base = records.decode_only(data, kind)
            first, chain, committed = base.index + 1, base.payload[: records.DIGEST_BYTES], base.index
            found.clear()
        else:
            record = records.decode(data, 0, chain)
            assert record.index == first + len(found), f"entry {record.index} lies behind {first + len(found) - 1}"
            found.append(record)
            chain = record.digest
    last = found[-1].epoch if found else base.epoch if base else 0
    if last > promised:
        promised, voted_for = last, 0
    return Loaded(identity, promised, voted_for, committed, base, tuple(found))


class RegistryWorld:
    """One server, two agents, clients on the server's node that ask until they are answered."""

    def __init__(
        self,
        seed: int,
        machine: Callable[..., Any] = RegistryMachine,
        agent: Callable[..., Any] = AgentMachine,
        link: Link | None = None,
    ) -> None:
        self.world = World(seed, link=link, peer_down={"registry": messages.PeerDown})
        self.random = Random(f"registry {seed}")
        self.machine, self.agent = machine, agent
        self.done: list[Operation] = []  # every operation that was answered
        self.doubled: list[Operation] = []  # the same question at the same time: it must get the same answer
        self.leading: dict[int, list[Leading]] = {}
        self.followed: dict[int, int] = {}
        self._ids = 0
        self._stopped = False
        self.world.on_step.append(self._watch_answers)
        server = self.world.add(SERVER, {"registry": self._server}, start=False)
        server.disks["registry"].synced.append([first_record()])
        self.start()
        for number in AGENTS:
            self.world.add(number, {"registry": self._agent})

    def _server(self, birth: Birth) -> Any:
        recovered = recover(loaded_from(birth.disk.synced), SETTINGS)
        return self.machine(birth.node, recovered, SETTINGS, birth.random)

    def _agent(self, birth: Birth) -> Any:
        return self.agent(birth.node, (SERVER,), SETTINGS)

    def start(self) -> None:
        """Start the server; the group forms a little later."""
        world = self.world
        world.start(SERVER)
        life = world.nodes[SERVER].life

        def formed() -> None:
            if world.nodes[SERVER].running and world.nodes[SERVER].life == life:
                world.feed(SERVER, "registry", messages.GroupFormed())

        world.after(self.random.uniform(0.0, 0.3), formed)

    def crash(self, for_seconds: float) -> None:
        """Kill the server: what its disk had not synced is gone, but for a part. It comes back later."""
        if self.world.nodes[SERVER].running:
            self.world.crash(SERVER, power=self.random.random() < 0.5)
            self.world.after(for_seconds, self.start)

    def stop(self) -> None:
        """Let the clients finish what they are at, and begin nothing new."""
        self._stopped = True

    # --- clients ---

    def client(self, choose: Callable[[RegistryWorld], Any] | None = None) -> None:
        """Ask one thing after another; what stays without an answer is asked again under the same id."""

        def next_one() -> None:
            if not self._stopped:
                ask((choose or RegistryWorld.anything)(self))

        def ask(question: Any) -> None:
            operation = self.world.ask(SERVER, "registry", question)
            if self.random.random() < 0.1:
                self.doubled.append(self.world.ask(SERVER, "registry", question))
            self.world.after(0.001, lambda: look(operation))

        def look(operation: Operation) -> None:
            if operation.done:
                retry = isinstance(operation.result, ReadOnly | NoQuorum) and isinstance(operation.question, Transact)
                if not retry:
                    self.done.append(operation)
                    self.world.after(self.random.expovariate(30), next_one)
                    return
            if operation.done or operation.unknown:
                self.world.after(0.05, lambda: ask(operation.question))
            else:
                self.world.after(0.005, lambda: look(operation))

        self.world.after(self.random.uniform(0, 0.1), next_one)

    def watcher(self, prefix: str) -> list[dict[str, Any]]:
        """Poll for ever from the first revision on; return the list that its batches go to."""
        batches: list[dict[str, Any]] = []

        def ask(start: int) -> None:
            if not self._stopped:
                look(self.world.ask(SERVER, "registry", Watch(prefix, start, 0.5)), start)

        def look(operation: Operation, start: int) -> None:
            result = operation.result
            if isinstance(result, Compacted):
                batches.append({"compacted": result.details["compacted"], "from": start})
                self.world.after(0.01, lambda: ask(result.details["compacted"]))
            elif operation.unknown or isinstance(result, CoveyError):
                self.world.after(0.05, lambda: ask(start))
            elif operation.done:
                batches.append(result)
                self.world.after(self.random.expovariate(20), lambda: ask(result["to"] + 1))
            else:
                self.world.after(0.02, lambda: look(operation, start))

        self.world.after(0.01, lambda: ask(1))
        return batches

    def anything(self) -> Any:
        """Choose a question."""
        random = self.random
        kind = random.random()
        if kind < 0.25:
            return Get(random.choice(KEYS), random.choice(["linear", "linear", "stale"]))
        self._ids += 1
        id = f"q{self._ids}"
        if kind < 0.35:
            machine = self.world.nodes[SERVER].machines.get("registry")
            epoch = max((machine.epoch if machine else 1) - random.choice([0, 0, 0, 1]), 0)
            return AppendSystem(id, epoch, "kind", random.choice(["", "s"]), id.encode(), random.choice([1, 2]))
        if kind < 0.4:
            return ListSystem("kind")
        compare = (Comparison(random.choice(KEYS), random.randint(0, 6)),) if random.random() < 0.2 else ()
        then = tuple(
            Change("delete", key) if random.random() < 0.2 else Change("put", key, id)
            for key in sorted(random.sample(KEYS, random.choice([1, 1, 2])))
        )
        return Transact(id, compare, then, (Change("put", "/app/no", id),) if compare else ())

    # --- checks ---

    def _watch_answers(self, node: int, service: str, input: Any, effects: list[Effect]) -> None:
        """INV-7: whoever is told that something was written finds it on the disk. INV-1: one reign, one epoch."""
        for body in (getattr(effect, "body", None) for effect in effects):
            if node != SERVER and isinstance(body, Leading):
                assert body.epoch >= self.followed.get(node, 0), f"agent {node} went back to epoch {body.epoch}"
                self.followed[node] = body.epoch
        if node != SERVER:
            return
        written = self.truth().ids
        for effect in effects:
            if isinstance(effect, Reply) and isinstance(effect.result, dict):
                question = self.world.history[effect.request - 1].question
                if isinstance(question, Transact | AppendSystem):
                    assert question.id in written, f"INV-7: {question.id} was answered and is not on the disk"
            body = getattr(effect, "body", None)
            if isinstance(body, Leading) and body.primary:
                before = self.leading.setdefault(self.world.nodes[SERVER].life, [])
                before.append(body)
                assert all(one.epoch == body.epoch for one in before), "INV-1: an epoch changed within one life"
                older = [one.epoch for life, row in self.leading.items() if life != max(self.leading) for one in row]
                assert all(epoch < body.epoch for epoch in older), "INV-1: an epoch reigned twice"

    def truth(self) -> Truth:
        """Return what the synced records say (kept while they do not change)."""
        disk = self.world.nodes[SERVER].disks["registry"]
        size = len(disk.synced)
        kept = getattr(self, "_truth", None)
        if kept is None or kept.size > size:
            kept = self._truth = Truth()
        for batch in disk.synced[kept.size :]:
            kept.add(batch)
        return kept

    def check(self) -> Truth:
        """Hold every answer against the truth."""
        truth = self.truth()
        latest = 0
        self.done += [one for one in self.doubled if one.done and not isinstance(one.result, ReadOnly | NoQuorum)]
        for operation in sorted(self.done, key=lambda one: one.answered_at or 0.0):
            truth.check(operation)
        timed = sorted((one for one in self.done if self._revision(one)), key=lambda one: one.asked_at)
        ends = sorted((one.answered_at or 0.0, self._revision(one)) for one in timed)
        at = 0
        for operation in timed:  # real time: what was answered before this was asked is part of it
            while at < len(ends) and ends[at][0] < operation.asked_at:
                latest = max(latest, ends[at][1])
                at += 1
            if getattr(operation.question, "consistency", "linear") == "linear" and isinstance(operation.question, Get):
                assert self._revision(operation) >= latest, f"INV-10: {operation} is older than what was seen before"
        return truth

    @staticmethod
    def _revision(operation: Operation) -> int:
        result = operation.result
        found = (
            result.get("revision", 0) if isinstance(result, dict) else getattr(result, "details", {}).get("revision", 0)
        )
        return int(found)


class Truth:
    """A dict, a list of changes, and every id: what the entries on the disk come to."""

    def __init__(self) -> None:
        self.size = 0
        self.ids: dict[str, tuple[int, bool]] = {}
        self.states: list[dict[str, tuple[bytes, int]]] = [{}]
        self.changes: list[tuple[int, str, bytes | None]] = []  # their revisions rise
        self.system: dict[str, tuple[int, int]] = {}
        self._chain = records.START
        self._opened = 0

    def add(self, batch: list[bytes]) -> None:
        self.size += 1
        for data in batch:
            if records.kind_of(data) in (records.HARD_STATE, records.COMMITTED):
                continue
            record = records.decode(data, 0, self._chain)
            self._chain = record.digest
            self._apply(entries.decode(record))

    def _apply(self, entry: entries.Entry) -> None:
        body = entry.body
        if isinstance(body, entries.WritesOpened):
            self._opened = entry.epoch
        elif isinstance(body, entries.Founded):
            self._change(body.then)
        elif isinstance(body, entries.Committed):
            self._once(body.id, 0, True)
            self.system[body.id] = (entry.index, entry.epoch)
        elif isinstance(body, entries.Transacted):
            assert self._opened == entry.epoch, f"INV-13: {body.id} was written while writes were closed"
            now = self.states[-1]
            succeeded = all(now.get(key, (b"", 0))[1] == revision for key, revision in body.compare)
            self._change(body.then if succeeded else body.otherwise)
            self._once(body.id, len(self.states) - 1, succeeded)

    def _once(self, id: str, revision: int, succeeded: bool) -> None:
        assert id not in self.ids, f"INV-14: {id} stands in the log twice"
        self.ids[id] = (revision, succeeded)

    def _change(self, operations: Any) -> None:
        after, revision, changed = dict(self.states[-1]), len(self.states), False
        for key, value in operations:
            if value is None and after.pop(key, None) is None:
                continue
            if value is not None:
                after[key] = (value, revision)
            self.changes.append((revision, key, value))
            changed = True
        if changed:
            self.states.append(after)

    def check(self, operation: Operation) -> None:
        """Hold one answer against the truth."""
        question, result = operation.question, operation.result
        if isinstance(question, Transact):
            assert not isinstance(result, CoveyError), result
            assert (result["revision"], result["succeeded"]) == self.ids[question.id], f"INV-9, INV-14: {operation}"
        elif isinstance(question, AppendSystem) and isinstance(result, dict):
            assert self.system[question.id] == (result["index"], result["epoch"]), operation
            assert result["epoch"] == question.epoch, f"an entry of epoch {question.epoch} stands in another"
        elif isinstance(question, AppendSystem):
            assert isinstance(result, StaleEpoch | ReadOnly | NotPrimary) and question.id not in self.ids, operation
        elif isinstance(question, Get) and isinstance(result, dict):
            value, revision = self.states[result["revision"]][question.key]
            assert result["mod_revision"] == revision, f"INV-11: {operation}"
            assert value.endswith(result["value"].encode()), operation
            assert result["consistency"] == question.consistency, f"INV-12: {operation}"
        elif isinstance(question, Get) and result.code == "registry.not_found":
            assert question.key not in self.states[result.details["revision"]], f"INV-11: {operation}"

    def check_watch(self, prefix: str, batches: list[dict[str, Any]]) -> None:
        """INV-15: batches follow one another and hold all there was, in order, once."""
        following = 1
        for batch in batches:
            assert batch["from"] == following, f"INV-15: a gap before {batch}"
            if "compacted" in batch:
                assert batch["compacted"] > following
                following = batch["compacted"]
                continue
            first = bisect_left(self.changes, following, key=itemgetter(0))
            last = bisect_right(self.changes, batch["to"], key=itemgetter(0))
            expected = [
                (revision, key, None if value is None else msgspec.msgpack.decode(value))
                for revision, key, value in self.changes[first:last]
                if key.startswith(prefix)
            ]
            found = [(one["revision"], one["key"], one["value"]) for one in batch["events"]]
            assert found == expected, f"INV-15: {batch}"
            assert batch["to"] <= len(self.states) - 1, "INV-15: a change that is not durable was shown"
            following = batch["to"] + 1
