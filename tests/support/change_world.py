"""Undefine and modify in virtual time: a member (node 1), another node (2), and a registry that decides.

Each message may be lost, doubled or cut off, each piece of work may be the last of its node's daemon. A node erases
its data in the writes of `storage.erase_cluster`, only on a tombstone, and finishes that at its next start. In the end
(`settled`) a node has a definition on its disk if and only if the registry lists that very one.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from typing import Any

import msgspec
from covey.components.dcm import change, entries
from covey.components.dcm.definitions import NodeDefinition, ServerList
from covey.components.dcm.identity import copy_of, judge
from covey.components.dcm.lookup import Global
from covey.components.dcm.modifying import modified
from covey.errors import CoveyError, Timeout
from define_world import CLUSTER, Registry, node

PATIENCE = 5.0
"""Seconds until an order that nobody answers has failed."""


class Machine:
    """A node's daemon and its disk."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.disk: NodeDefinition | None = node(number, definition_id=f"{number:0>31}d")
        self.erasing = False
        self.online = True
        self.run = 1  # which run of the daemon; 0: none
        self.runs = 1


class World:
    """Give it a request with `undefine` or `rename`; `ended` is how that ended, `settled` lets everything be over."""

    def __init__(self, seed: int = 0, loss: float = 0.0, double: float = 0.0, late: float = 0.0) -> None:
        self.random = random.Random(seed)
        self.loss, self.double, self.late = loss, double, late
        self.now = 0.0
        self.agenda: list[tuple[float, int, Callable[[], None]]] = []
        self.order = itertools.count()
        self.nodes = {number: Machine(number) for number in (1, 2)}
        self.registry = Registry(*(one.disk for one in self.nodes.values() if one.disk))
        self.count = self.messages = 0
        self.crash_at: dict[int, int] = {}  # after so many pieces of work: which node's daemon ends
        self.lose: set[int] = set()
        self.twice: set[int] = set()
        self.cut: set[int] = set()  # whose messages do not get through; the registry is apart from both
        self.on_step: dict[str, Callable[[], None]] = {}
        self.steps: list[str] = []
        self.ended: list[change.Finish] = []
        self.changed = False  # whether anybody learns of changes: the watchers
        for one in self.nodes.values():
            self.watch(one, one.run)

    # --- time and faults ----------------------------------------------------------------------------------------

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        heapq.heappush(self.agenda, (self.now + seconds, next(self.order), do))

    def mine(self, one: Machine, seconds: float, do: Callable[[], None]) -> None:
        """Do something later, unless that daemon has ended meanwhile."""
        run = one.run
        self.after(seconds, lambda: do() if one.run == run else None)

    def send(self, ends: set[int], do: Callable[[], None]) -> None:
        """Carry a message between these nodes (one alone: to or from the registry)."""
        self.messages += 1
        if self.messages in self.lose or ends & self.cut or self.random.random() < self.loss:
            return
        for _ in range(1 + (self.messages in self.twice or self.random.random() < self.double)):
            self.after(0.01 + self.random.random() * self.late, do)

    def work(self, one: Machine) -> bool:
        """Count one piece of work; say whether the daemon lives to do what follows."""
        run = one.run
        self.count += 1
        who = self.crash_at.get(self.count)
        if who is not None:
            self.crash(self.nodes[who])
        return one.run == run

    def crash(self, one: Machine) -> None:
        if one.run:
            one.run, one.online = 0, False
            self.after(1.0, lambda: self.start(one))

    def advance(self, seconds: float) -> World:
        until = self.now + seconds
        while self.agenda and self.agenda[0][0] <= until:
            self.now, _, do = heapq.heappop(self.agenda)
            do()
        self.now = until
        return self

    # --- a node's life ------------------------------------------------------------------------------------------

    def start(self, one: Machine) -> None:
        if one.run:
            return
        one.runs += 1
        one.run = one.runs
        if one.erasing:  # the sweep at the start
            one.disk, one.erasing = None, False
        self.join(one)

    def join(self, one: Machine) -> None:
        if one.disk is None or one.online:
            return
        self.mine(one, 1.0, lambda: self.join(one))
        self.ask(one, lambda: self.look(one), lambda found: self.judged(one, found))

    def look(self, one: Machine) -> tuple[NodeDefinition | None, str]:
        assert one.disk is not None
        found = self.registry.entry(one.disk.definition_id)
        return (found.definition if found else None), self.registry.standing(one.disk.definition_id)

    def judged(self, one: Machine, found: tuple[NodeDefinition | None, str]) -> None:
        entry, standing = found
        if one.disk is None or one.online:
            return
        own = copy_of(CLUSTER.id, one.disk)
        verdict = judge(one.disk.id, own, copy_of(CLUSTER.id, entry), known=entry is not None or standing == "gone")
        if verdict.action == "join" and entry is not None and self.work(one):
            one.disk, one.online = entry, True
            self.watch(one, one.run)
        elif verdict.action == "erase":
            self.erase(one)

    def erase(self, one: Machine) -> bool:
        """Erase the data, in its writes; say whether the daemon lived to the end of it."""
        if one.disk is None:
            return True
        assert self.registry.standing(one.disk.definition_id) == "gone", "erased without a proof"
        assert not one.online, "erased while it is online"
        if not self.work(one):
            return False
        one.erasing = True
        if not self.work(one):
            return False
        one.disk, one.erasing = None, False
        return self.work(one)

    def watch(self, one: Machine, run: int) -> None:
        """Follow the registry, as the watcher does: the local copy follows what is changed."""

        def followed(found: tuple[NodeDefinition | None, str]) -> None:
            if found[0] is not None and one.disk != found[0] and one.online and self.work(one):
                one.disk = found[0]

        if one.run == run and one.online and one.disk is not None:
            self.ask(one, lambda: self.look(one), followed, quietly=True)
            self.mine(one, 2.0, lambda: self.watch(one, run))

    def ask(self, one: Machine, there: Callable[[], Any], then: Callable[[Any], None], quietly: bool = False) -> None:
        """Ask the registry; `quietly`: not one of the messages of what is tried here."""
        run = one.run

        def back(found: Any) -> None:
            if one.run == run:
                then(found)

        def arrived() -> None:
            if one.run == run and one.disk is not None:
                found = there()
                self.send({one.number}, lambda: back(found)) if not quietly else back(found)

        if not quietly:
            self.send({one.number}, arrived)
        elif one.number not in self.cut:
            self.after(0.01, arrived)

    # --- a request ----------------------------------------------------------------------------------------------

    def undefine(self, number: int = 2) -> None:
        self.begin(change.UndefineMember(number, own=1))

    def rename(self, name: str, number: int = 2) -> None:
        def decide(known: Global) -> Any:
            return modified(known, number, {"name": name})

        self.begin(change.Change(decide, "it"))

    def begin(self, machine: Any) -> None:
        one = self.nodes[1]
        orders = itertools.count()
        self.feed(one, machine, change.Begun(), orders)

    def feed(self, one: Machine, machine: Any, input: Any, orders: Any) -> None:
        run = one.run
        for effect in machine.step(input):
            if isinstance(effect, change.Finish):
                self.ended.append(effect)
                return
            if isinstance(effect, change.At):
                self.steps.append(effect.step)
                if effect.step in self.on_step:
                    self.on_step.pop(effect.step)()
            if not self.work(one) or one.run != run:
                return
            if not isinstance(effect, change.At):
                self.perform(one, machine, effect, orders)

    def perform(self, one: Machine, machine: Any, effect: Any, orders: Any) -> None:
        """Carry out an order; its first answer counts, and none within PATIENCE is a failure."""
        order = next(orders)
        waiting = [order]

        def answer(input: Any) -> None:
            if waiting:
                waiting.clear()
                self.feed(one, machine, input, orders)

        def late() -> None:
            answer(change.Told(False) if isinstance(effect, change.Tell) else change.Failed(Timeout("no answer")))

        self.mine(one, PATIENCE, late)
        if isinstance(effect, change.Look):
            self.ask(one, lambda: self.read(effect.number), lambda found: answer(change.Read(found)))
        elif isinstance(effect, change.Write):
            written = lambda: self.registry.txn(effect.transaction, f"{id(machine)}-{order}")  # noqa: E731
            self.ask(one, written, lambda done: answer(change.Wrote(done[0])))
        else:
            other = self.nodes[2]
            back = lambda input: self.send({1, 2}, lambda: answer(input) if one.run else None)  # noqa: E731
            does = self.leave if isinstance(effect, change.PutOffline) else self.told
            self.send({1, 2}, lambda: does(other, back) if other.run else None)

    def read(self, number: int) -> Any:
        if not number:
            nodes = self.registry.nodes()
            return Global(CLUSTER, ServerList((1,), 1), nodes, self.registry.revision)
        entry = next((each for each in self.registry.nodes() if each.definition.number == number), None)
        return change.Standing(entry, self.nodes[number].online, ServerList((1,), 1))

    def leave(self, one: Machine, back: Callable[[Any], None]) -> None:
        if self.work(one):
            one.online = False
            back(change.Went())

    def told(self, one: Machine, back: Callable[[Any], None]) -> None:
        """Asked by itself, and erased on the proof alone."""

        def answered(found: tuple[NodeDefinition | None, str]) -> None:
            if found[1] != "gone" or one.online:
                back(change.Told(False))
            elif self.erase(one):
                back(change.Told(True))

        if one.disk is None:
            back(change.Told(True))
        else:
            self.ask(one, lambda: self.look(one), answered)

    # --- what must hold -----------------------------------------------------------------------------------------

    def settled(self) -> World:
        """Let the faults do their work, then be over; start every node anew; check."""
        self.advance(60.0)
        self.cut, self.loss, self.double, self.late = set(), 0.0, 0.0, 0.0
        self.crash_at, self.lose, self.twice = {}, set(), set()
        self.advance(10.0)
        for one in self.nodes.values():
            self.crash(one)
        self.advance(30.0)
        self.registry.check()
        listed = {each.definition.number: each.definition for each in self.registry.nodes()}
        for number, one in self.nodes.items():
            assert not one.erasing
            assert one.disk == listed.get(number), f"node {number} and the registry differ"
            assert one.online == (one.disk is not None)
        return self

    def error(self) -> CoveyError | None:
        """How the one request ended."""
        (end,) = self.ended
        return end.error

    def name(self) -> str:
        """What node 2 is called, "" when it is not listed."""
        return next((each.definition.name for each in self.registry.nodes() if each.definition.number == 2), "")


def renamed(definition: NodeDefinition, name: str) -> NodeDefinition:
    return msgspec.structs.replace(definition, name=name)


def somebody_else_renames(world: World, name: str, number: int = 2) -> None:
    """A change by another member, just in between."""
    entry = next(each for each in world.registry.nodes() if each.definition.number == number)
    world.registry.txn(entries.modify(entry, name=name))
