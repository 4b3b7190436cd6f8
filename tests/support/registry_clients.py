"""Clients of a simulated registry, on every node: they ask, follow the primary, try again, and remember it all.

A call behaves as the engines make it behave: it asks its own node's server, goes to the one that it names (or that the
node's agent follows), and is tried again under the same request id until its deadline; after that, or when its node
dies, its outcome is unknown. Between nodes it takes the way that messages take, and is lost with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec
from covey.bus.linearizability import Read, Register, Transaction
from covey.bus.machine import Effect, Reply
from covey.bus.simulation import World
from covey.components.registry.agent import AgentMachine
from covey.components.registry.messages import (
    AppendSystem,
    Comparison,
    Get,
    List,
    ListSystem,
    Operation,
    Transact,
    Watch,
)
from covey.errors import Compacted, CoveyError, KeyNotFound, NoQuorum, NotPrimary, RequestExpired

SERVICE = "registry"
KEYS = [f"/app/{name}" for name in ("a", "b", "b/c", "d", "e", "f")]
PATIENCE = 8.0  # seconds until a call gives up
TRY = 0.8  # seconds until one try counts as lost, beside what it asked to wait


@dataclass
class Call:
    """One call of a client, over all its tries. `unknown`: it may have been done, or may still be."""

    node: int
    question: Any
    called: float
    returned: float | None = None
    result: Any = None
    unknown: bool = False
    doubt: bool = False
    tries: int = 0
    done: Callable[[Call], None] = field(default=lambda call: None, repr=False)

    @property
    def over(self) -> bool:
        """An answer came, or nobody waits for one any more."""
        return self.returned is not None or self.unknown


class Clients:
    """All clients of one world. `calls` is the history."""

    def __init__(self, world: World, random: Random, servers: Callable[[], list[int]]) -> None:
        self.world, self.random, self.servers = world, random, servers
        self.calls: list[Call] = []
        self.questions: dict[int, Any] = {}
        self.batches: list[tuple[str, int, list[dict[str, Any]]]] = []
        self.stopped = False
        self.watching = True
        self._waiting: dict[int, Callable[[Any], None]] = {}
        self._ids = 0
        self._seen: dict[str, int] = {}  # key -> mod_revision that somebody read last
        world.on_step.append(self._hear)

    def _hear(self, node: int, service: str, input: Any, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Reply) and (then := self._waiting.pop(effect.request, None)):
                self.world.after(0.0, lambda t=then, r=effect.result: t(r))  # type: ignore[misc]

    # --- one call ---

    def call(
        self, node: int, question: Any, done: Callable[[Call], None] | None = None, *, remember: bool = True
    ) -> Call:
        """Ask from a node; `done` is called with the call when it is over."""
        call = Call(node, question, self.world.now)
        if done:
            call.done = done
        if remember:
            self.calls.append(call)
        self._try(call, node)
        return call

    def _index(self, node: int) -> int:
        machine = self.world.nodes[node].machines.get(SERVICE)
        if isinstance(machine, AgentMachine):
            return machine.index
        return machine.leading.index if machine else 0

    def _stamp(self, call: Call, node: int) -> None:
        """Say of a write, at its first try, how far the log was: as far as the node knows, or whoever takes it."""
        if isinstance(call.question, Transact) and not call.question.since:
            call.question = msgspec.structs.replace(call.question, since=self._index(node))

    def _end(self, call: Call, result: Any, unknown: bool) -> None:
        call.unknown, call.result = unknown, result
        if not unknown:
            call.returned = self.world.now
        call.done(call)

    def _try(self, call: Call, target: int) -> None:
        world = self.world
        if call.over:
            return
        mine = world.nodes[call.node].machines.get(SERVICE)
        if mine is None or world.now - call.called > PATIENCE:
            self._end(call, None, True)
            return
        if target == call.node and isinstance(mine, AgentMachine):
            target = mine.known.primary
            if not target and getattr(call.question, "consistency", "") == "stale":
                target = self.random.choice(self.servers())
            if not target:
                world.after(0.1, lambda: self._try(call, call.node))
                return
        self._stamp(call, call.node)
        call.tries += 1
        number = call.tries
        patience = TRY + getattr(call.question, "wait", 0.0)

        def lost() -> None:
            if not call.over and call.tries == number:
                call.doubt = True
                self._try(call, call.node)

        def arrive() -> None:
            if call.over or SERVICE not in world.nodes[target].machines:
                return
            self._stamp(call, target)
            asking = world.ask(target, SERVICE, call.question)
            self.questions[asking.number] = call.question
            self._waiting[asking.number] = lambda result: self._travel(
                target, call.node, lambda: self._answered(call, number, target, result)
            )

        world.after(patience, lost)
        self._travel(call.node, target, arrive)

    def _travel(self, a: int, b: int, then: Callable[[], None]) -> None:
        world = self.world
        if a == b:
            then()
            return
        link = world._links.get((a, b), world.default_link)

        def arrive() -> None:
            if (a, b) not in world.cut_ways:
                then()

        if (a, b) not in world.cut_ways and world.random.random() >= link.loss:
            world.after(world.random.uniform(link.low, link.high), arrive)

    def _answered(self, call: Call, number: int, target: int, result: Any) -> None:
        if call.over or (number != call.tries and isinstance(result, CoveyError)):
            return
        if isinstance(result, NotPrimary):
            call.doubt = call.doubt or bool(result.details.get("in_doubt"))
            to = result.details.get("primary") or call.node
            self._again(
                call, number, to if to != target else call.node, 0.005 if to not in (target, call.node) else 0.1
            )
        elif isinstance(result, NoQuorum):
            self._again(call, number, call.node, 0.1)
        elif isinstance(result, RequestExpired):
            self._end(call, result, True)
        elif isinstance(result, CoveyError) and not isinstance(result, KeyNotFound | Compacted):
            self._end(call, result, call.doubt)
        else:
            self._end(call, result, False)

    def _again(self, call: Call, number: int, target: int, delay: float) -> None:
        def again() -> None:
            if call.tries == number:
                self._try(call, target)

        self.world.after(delay, again)

    # --- what clients do ---

    def start(self, node: int, pace: float) -> None:
        """Let a client live on a node: it asks about `pace` things a second, one after another."""

        def next_one(call: Call | None = None) -> None:
            if self.stopped:
                return
            if call is not None and isinstance(call.result, dict) and "mod_revision" in call.result:
                self._seen[call.question.key] = call.result["mod_revision"]
            self.world.after(self.random.expovariate(pace), ask)

        def ask() -> None:
            if self.stopped:
                return
            if SERVICE in self.world.nodes[node].machines:
                self.call(node, self.anything(node), next_one)
            else:
                self.world.after(0.3, ask)

        next_one()

    def anything(self, node: int) -> Any:
        """Choose a question."""
        random = self.random
        chance = random.random()
        key = random.choice(KEYS)
        if chance < 0.25:
            return Get(key)
        if chance < 0.34:
            return Get(key, "stale")
        if chance < 0.38:
            return List("/app/", random.choice(["linear", "stale"]))
        id = self.id()
        if chance < 0.43:
            machine = self.world.nodes[node].machines.get(SERVICE)
            epoch = max(getattr(machine, "epoch", 1) - random.choice([0, 0, 0, 1]), 0)
            return AppendSystem(id, epoch, "kind", random.choice(["", "s"]), id.encode(), random.choice([1, 2]))
        if chance < 0.44:
            return ListSystem("kind")
        value = id if random.random() < 0.9 else f"{id} {'x' * random.randint(50, 600)}"
        if chance < 0.7:
            return Transact(id, (), (Operation("put", key, value),))
        if chance < 0.76:
            return Transact(id, (), (Operation("delete", key),))
        expected = random.choice([self._seen.get(key, 0), self._seen.get(key, 0), 0])
        if chance < 0.9:
            return Transact(id, (Comparison(key, expected),), (Operation("put", key, value),))
        keys = random.sample(KEYS, random.choice([2, 3]))
        then = tuple(Operation("put", k, value) if random.random() < 0.75 else Operation("delete", k) for k in keys)
        if chance < 0.96:
            return Transact(id, (), then)
        return Transact(id, (Comparison(key, expected),), then, (Operation("put", keys[0], f"else {id}"),))

    def id(self) -> str:
        """Return a new request id."""
        self._ids += 1
        return f"q{self._ids}"

    def watch(self, prefix: str, nodes: list[int]) -> list[dict[str, Any]]:
        """Watch from the first revision on, from one node after another; return the list its batches go to."""
        batches: list[dict[str, Any]] = []
        self.batches.append((prefix, 1, batches))

        def ask(start: int) -> None:
            if self.watching:
                running = [node for node in nodes if SERVICE in self.world.nodes[node].machines]
                if running:
                    question = Watch(prefix, start, self.random.choice([0.3, 1.5]))
                    self.call(self.random.choice(running), question, lambda call: heard(call, start), remember=False)
                else:
                    self.world.after(0.3, lambda: ask(start))

        def heard(call: Call, start: int) -> None:
            result = call.result
            if isinstance(result, Compacted):
                batches.append({"from": start, "compacted": result.details["compacted"]})
                start = result.details["compacted"]
            elif isinstance(result, dict):
                batches.append(result)
                start = result["to"] + 1
            self.world.after(self.random.expovariate(10), lambda: ask(start))

        self.world.after(0.01, lambda: ask(1))
        return batches


# --- what they remember, for the judges ------------------------------------------------------------------------------


def registers(calls: list[Call]) -> Iterator[Register]:
    """Yield what was done to each key, as operations on single keys."""
    for call in calls:
        question, result = call.question, call.result
        who = f"node {call.node}"
        if call.returned is None and not call.unknown:
            call.unknown = True  # still open at the end
        if isinstance(question, Get | List) and question.consistency == "linear" and not call.unknown:
            for key, (value, revision) in _found(call).items():
                yield Register(key, "get", call.called, call.returned, value, revision, client=who)
        elif isinstance(question, Transact) and not (isinstance(result, CoveyError) and not call.unknown):
            yield from _writes(call, question, who)


def _writes(call: Call, question: Transact, who: str) -> Iterator[Register]:
    returned = None if call.unknown else call.returned
    succeeded = call.unknown or call.result["succeeded"]
    revision = 0 if call.unknown else call.result["revision"]
    single = len(question.then) == 1 and [one.key for one in question.compare] == [question.then[0].key]
    if single and not question.otherwise:
        expected, then = question.compare[0].mod_revision, question.then[0]
        yield Register(then.key, "cas", call.called, returned, then.value, revision, expected, succeeded, who)
        return
    for branch in (question.then, question.otherwise) if call.unknown else (question.then,):
        for one in branch if succeeded else question.otherwise:
            kind = "put" if one.op == "put" else "delete"
            value = one.value if one.op == "put" else None
            yield Register(one.key, kind, call.called, returned, value, revision, client=who)  # type: ignore[arg-type]


def _found(call: Call) -> dict[str, tuple[Any, int]]:
    result = call.result
    if isinstance(call.question, Get):
        if isinstance(result, KeyNotFound):
            return {call.question.key: (None, 0)}
        return {call.question.key: (result["value"], result["mod_revision"])} if isinstance(result, dict) else {}
    if not isinstance(result, dict):
        return {}
    items = {item["key"]: (item["value"], item["mod_revision"]) for item in result["items"]}
    return {key: items.get(key, (None, 0)) for key in KEYS}


def transactions(calls: list[Call]) -> tuple[list[Transaction], list[Read]]:
    """Return transactions and reads, with the revisions that they were answered with."""
    asked, reads = [], []
    for call in calls:
        question, result = call.question, call.result
        if isinstance(question, Transact) and not (isinstance(result, CoveyError) and not call.unknown):
            compare = tuple((one.key, one.mod_revision) for one in question.compare)
            one = Transaction(call.called, None, _branch(question.then), compare, _branch(question.otherwise))
            if not call.unknown and call.returned is not None:
                one = one._replace(returned=call.returned, revision=result["revision"], succeeded=result["succeeded"])
            asked.append(one)
        elif isinstance(question, Get | List) and call.returned is not None and (found := _found(call)):
            revision = result["revision"] if isinstance(result, dict) else result.details["revision"]
            exact = question.consistency == "linear"
            reads.append(Read(call.called, call.returned, revision, found, exact))
    return asked, reads


def _branch(operations: tuple[Operation, ...]) -> tuple[tuple[str, Any], ...]:
    return tuple((one.key, one.value if one.op == "put" else None) for one in operations)


__all__ = [
    "KEYS",
    "Call",
    "Clients",
    "registers",
    "transactions",
]
