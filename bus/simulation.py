"""The simulation kit: a cluster of protocol machines in one thread, in virtual time, from one seed.

Knows only the shape of a machine, never a component: a test says which machines a node runs. It reads no
clock, and all chance comes from the seed, so the same seed gives the same trace, byte for byte, under any
PYTHONHASHSEED.

How it works: a heap of events ordered by time and then by the order in which they were made. Each event steps
one machine; the effects it returns become further events: messages after the delay (or loss, or doubling) of
the link they take, `Persisted` after the disk's delay, published messages at once to every other machine of
the node, and to one that starts later. After each step the machine's invariants and those of the world are
checked; whatever fails is raised as `SimulationFailure`, whose text holds the seed, the faults so far and the
last events: all that is needed to run it again and to read it.

Odd: every node has a clock of its own that is off by whole seconds, since monotonic clocks of two machines
have nothing to do with one another. Every message goes through the codec, so what cannot travel fails here
first. What a disk had not synced at a crash is lost from some random point on, for a part of it may have
reached the platter.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import deque
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

import msgspec

from ..errors import CoveyError
from .machine import (
    Address,
    Asked,
    Effect,
    Message,
    Notify,
    Persist,
    Publish,
    Received,
    Reply,
    Send,
)
from .simulation_parts import Birth, Disk, Factory, Link, Node, Occurrence, Operation, describe

__all__ = [
    "Birth",
    "Disk",
    "Factory",
    "Link",
    "Node",
    "Occurrence",
    "Operation",
    "SimulationFailure",
    "World",
    "describe",
]

LOCAL_DELAY = 0.00005
STUCK = 2000  # timer steps of one machine at one instant, after which it is called a loop


class SimulationFailure(AssertionError):
    """Something that must always hold did not, or something that must happen did not. The text tells the story."""


class World:
    """A cluster in virtual time.

    `peer_down` maps a service to the input that its machines get when the link to a node closes, which is
    what `crash(…)` does to its peers and `crash(…, power=True)` does not.
    """

    def __init__(
        self, seed: int, *, link: Link | None = None, peer_down: dict[str, Callable[[int], Any]] | None = None
    ) -> None:
        self.seed = seed
        self.random = Random(f"world {seed}")
        self.now = 0.0
        self.steps = 0
        self.nodes: dict[int, Node] = {}
        self.default_link = link or Link()
        self.history: list[Operation] = []
        self.published: list[Occurrence] = []
        self.notified: list[Occurrence] = []
        self.faults: list[tuple[float, str]] = []
        self.counts: dict[str, int] = dict.fromkeys(("sent", "lost", "doubled", "nobody"), 0)
        self.on_notify: list[Callable[[Occurrence], None]] = []
        self.on_step: list[Callable[[int, str, Any, list[Effect]], None]] = []
        self._peer_down = peer_down or {}
        self._checks: list[Callable[[World], None]] = []
        self._links: dict[tuple[int, int], Link] = {}
        self.cut_ways: set[tuple[int, int]] = set()
        self.cut_networks: set[tuple[int, int, str]] = set()
        self._busy_until: dict[tuple[int, int], float] = {}
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._made = 0
        self._open: dict[int, Operation] = {}
        self._armed: dict[tuple[int, str], float] = {}
        self._stuck: dict[tuple[int, str], tuple[float, int]] = {}
        self._persisted: dict[tuple[int, str], int] = {}
        self._log: deque[tuple[float, int, str, Any, list[Effect]]] = deque(maxlen=3000)
        self._digest = hashlib.blake2b(digest_size=16)
        self._encoder = msgspec.msgpack.Encoder(enc_hook=_plain, order="deterministic")

    # --- nodes ------------------------------------------------------------------------------------------------

    def add(self, number: int, factories: dict[str, Factory], *, start: bool = True) -> Node:
        """Add a node that runs one machine a service; `start=False` leaves it off until `start(number)`."""
        node = self.nodes[number] = Node(number, dict(factories), float(self.random.randint(1, 100_000)))
        if start:
            self.start(number)
        return node

    def start(self, number: int) -> None:
        """Start a node: a new life and boot id, machines built anew from what their disks hold."""
        node = self.nodes[number]
        assert not node.running, f"node {number} runs already"
        node.life += 1
        self._fault(f"start {number} as {node.boot_id}", quiet=node.life == 1)
        for service in node.factories:
            self.start_service(number, service)

    def start_service(self, number: int, service: str) -> None:
        """Build one machine of a running node anew: what the restart of a single crashed component does."""
        node = self.nodes[number]
        node.births[service] += 1
        chance = Random(f"machine {self.seed} {number} {service} {node.births[service]}")
        birth = Birth(number, service, node.life, node.boot_id, self.now + node.offset, node.disks[service], chance)
        node.machines[service] = node.factories[service](birth)
        self._persisted.pop((number, service), None)
        self._armed.pop((number, service), None)
        self._arm(node, service)
        for (source, _), body in node.said.items():
            self.feed(number, service, Received(Address(source, number), body))

    def crash(self, number: int, *, power: bool = False) -> None:
        """Kill a node. Its peers see the links close, unless the power failed, when they see nothing."""
        node = self.nodes[number]
        self._fault(f"crash {number}{' (power)' if power else ''}")
        for service in list(node.machines):
            self._end(node, service)
        node.paused, node.held = False, []
        for peer in [] if power else self.nodes.values():
            for service in peer.machines:
                if service in self._peer_down and (number, peer.number) not in self.cut_ways:
                    self.feed(peer.number, service, self._peer_down[service](number), delay=0.001)

    def crash_service(self, number: int, service: str) -> None:
        """Kill one machine of a node; `start_service` brings it back in the same life of the node."""
        self._fault(f"crash {service}@{number}")
        self._end(self.nodes[number], service)

    def restart(self, number: int) -> None:
        """Crash a node and start it at once."""
        self.crash(number)
        self.start(number)

    def pause(self, number: int) -> None:
        """Stop a node in its tracks (SIGSTOP): nothing runs; what comes in waits."""
        self._fault(f"pause {number}")
        self.nodes[number].paused = True

    def resume(self, number: int) -> None:
        """Let a paused node go on: it finds its timers long past and everything that came in meanwhile."""
        node = self.nodes[number]
        if not node.paused:
            return
        self._fault(f"resume {number}")
        node.paused, held, node.held = False, node.held, []
        timers_first = self.random.random() < 0.5
        for service in node.machines if timers_first else ():
            self._armed.pop((number, service), None)
            self._arm(node, service)
        for service, birth, input in held:
            self._later(0.0, lambda s=service, b=birth, i=input: self._deliver(node, s, b, i))  # type: ignore[misc]  # bound now
        for service in () if timers_first else node.machines:
            self._armed.pop((number, service), None)
            self._arm(node, service)

    def machine(self, number: int, service: str) -> Any:
        """Return the machine itself, for a test to look into."""
        return self.nodes[number].machines[service]

    # --- the network ------------------------------------------------------------------------------------------

    def cut(self, a: int, b: int, *, one_way: bool = False, network: str = "") -> None:
        """Lose all from `a` to `b`, and from `b` to `a` unless `one_way`; also what is under way.

        `network`: only messages that name this one as their way (a field `network`).
        """
        self._fault(f"cut {a} {'->' if one_way else '<->'} {b}{network and f' on {network}'}")
        ways = {(a, b)} if one_way else {(a, b), (b, a)}
        if network:
            self.cut_networks |= {(*way, network) for way in ways}
        else:
            self.cut_ways |= ways

    def partition(self, *sides: Iterable[int]) -> None:
        """Cut every link between two different sides."""
        named = [sorted(side) for side in sides]
        self._fault(f"partition {named}")
        for side in named:
            for other in named:
                self.cut_ways |= {(a, b) for a in side for b in other if side is not other}

    def mend(self, ways: Iterable[tuple[int, int]]) -> None:
        """Undo the cuts of these ways `(from, to)`."""
        gone = set(ways) & self.cut_ways
        self._fault(f"mend {sorted(gone)}")
        self.cut_ways -= gone

    def set_link(self, a: int, b: int, link: Link | None) -> None:
        """Give the way from `a` to `b` other chances than the default; None: the default again."""
        self._fault(f"link {a} -> {b} {link or 'as usual'}")
        self._links.pop((a, b), None)
        if link:
            self._links[a, b] = link

    def heal(self) -> None:
        """Undo every cut and every link of its own; paused nodes go on. Crashed nodes stay down."""
        self._fault("heal")
        self.cut_ways.clear()
        self.cut_networks.clear()
        self._links.clear()
        for number in sorted(self.nodes):
            self.resume(number)

    # --- clients and the test -----------------------------------------------------------------------------------

    def ask(self, number: int, service: str, question: Any) -> Operation:
        """Ask a machine something as a client of its node; the answer appears in the operation returned."""
        operation = Operation(len(self.history) + 1, number, service, question, self.now)
        self.history.append(operation)
        if service in self.nodes[number].machines:
            self._open[operation.number] = operation
            self.feed(number, service, Asked(operation.number, question, cause=f"ask-{operation.number}"))
        else:
            operation.unknown = True
        return operation

    def feed(self, number: int, service: str, input: Any, *, delay: float = LOCAL_DELAY) -> None:
        """Give a machine an input, such as a fact of its own node."""
        node = self.nodes[number]
        birth = node.births[service]
        self._later(delay, lambda: self._deliver(node, service, birth, input))

    def after(self, delay: float, act: Callable[[], Any]) -> None:
        """Call `act` in `delay` seconds."""
        self._later(delay, lambda: (act(), None)[1])

    def always(self, check: Callable[[World], None]) -> None:
        """Call `check` after every step; it raises AssertionError when what it guards does not hold."""
        self._checks.append(check)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self._heap and self._heap[0][0] <= end:
            self._next()
        self.now = end

    def eventually(self, holds: Callable[[], bool], within: float, what: str = "") -> float:
        """Let time pass until `holds()`; return how long that took, or fail after `within` seconds."""
        start = self.now
        while not holds():
            if not self._heap or self._heap[0][0] > start + within:
                raise self.failure(f"{what or 'what was waited for'}: not within {within} s")
            self._next()
        return self.now - start

    def digest(self) -> str:
        """Return a digest of every input and effect so far: equal for equal runs, and only for those."""
        return self._digest.hexdigest()

    def failure(self, message: str, cause: str = "") -> SimulationFailure:
        """Make the error that tells the story: seed, faults, the events of `cause` and the last events of all."""
        lines = [f"seed {self.seed}, at {self.now:.6f} s, step {self.steps}: {message}", "faults so far:"]
        lines += [f"  {at:12.6f} {text}" for at, text in self.faults[-40:]] or ["  none"]
        if cause:
            lines += [f"what {cause} led to:", self.story(cause)]
        return SimulationFailure("\n".join([*lines, "last events:", self.story()]))

    def story(self, cause: str = "", last: int = 40) -> str:
        """Return the last steps as text: of one cause, or of all."""
        kept = [entry for entry in self._log if not cause or getattr(entry[3], "cause", "") == cause][-last:]
        lines = []
        for at, number, service, input, effects in kept:
            lines.append(f"  {at:12.6f} {service}@{number} {describe(input)}")
            lines += [f"  {'':12} -> {describe(effect)}" for effect in effects]
        return "\n".join(lines) or "  nothing"

    # --- how it runs --------------------------------------------------------------------------------------------

    def _fault(self, text: str, *, quiet: bool = False) -> None:
        if not quiet:
            self.faults.append((self.now, text))

    def _later(self, delay: float, act: Callable[[], None]) -> None:
        self._made += 1
        heapq.heappush(self._heap, (self.now + delay, self._made, act))

    def _next(self) -> None:
        at, _, act = heapq.heappop(self._heap)
        self.now = max(self.now, at)
        act()

    def _end(self, node: Node, service: str) -> None:
        del node.machines[service]
        node.said = {key: body for key, body in node.said.items() if key[0] != service}
        node.births[service] += 1  # what was under way to the dead machine finds nobody
        node.disks[service].crash(self.random)
        self._armed.pop((node.number, service), None)
        for operation in list(self._open.values()):
            if (operation.node, operation.service) == (node.number, service):
                operation.unknown = True
                del self._open[operation.number]

    def _arm(self, node: Node, service: str) -> None:
        deadline = node.machines[service].deadline
        key = (node.number, service)
        if deadline is None or node.paused:
            return
        at = max(self.now, deadline - node.offset)
        if key in self._armed and self._armed[key] <= at:
            return
        self._armed[key] = at
        birth = node.births[service]
        self._later(at - self.now, lambda: self._ring(node, service, birth, at))

    def _ring(self, node: Node, service: str, birth: int, at: float) -> None:
        key = (node.number, service)
        if node.births[service] != birth or self._armed.get(key) != at:
            return
        if node.paused:
            return
        del self._armed[key]
        self.now = max(self.now, at)
        deadline = node.machines[service].deadline
        if deadline is not None and deadline <= self.now + node.offset:
            since, times = self._stuck.get(key, (self.now, 0))
            self._stuck[key] = (self.now, times + 1 if since == self.now else 1)
            if self._stuck[key][1] > STUCK:
                raise self.failure(f"{service}@{node.number} asks for the same deadline for ever")
            self._step(node, service, None)
        else:
            self._arm(node, service)

    def _deliver(self, node: Node, service: str, birth: int | None, input: Any) -> None:
        if service not in node.machines or (birth is not None and node.births[service] != birth):
            self.counts["nobody"] += 1
        elif node.paused:
            node.held.append((service, node.births[service], input))
        else:
            self._step(node, service, input)

    def _step(self, node: Node, service: str, input: Any) -> None:
        self.steps += 1
        machine = node.machines[service]
        effects: list[Effect] = []
        self._log.append((self.now, node.number, service, input, effects))
        cause = getattr(input, "cause", "")
        try:
            effects += machine.step(self.now + node.offset, input)
            machine.check_invariants()
            for watch in self.on_step:
                watch(node.number, service, input, effects)
            for effect in effects:
                self._perform(node, service, effect)
            for check in self._checks:
                check(self)
        except SimulationFailure:
            raise
        except Exception as error:
            raise self.failure(f"{service}@{node.number}: {type(error).__name__}: {error}", cause) from error
        entry = (self.now, node.number, service, type(input).__name__, input)
        self._digest.update(self._encoder.encode((entry, [(type(effect).__name__, effect) for effect in effects])))
        if service in node.machines:
            self._arm(node, service)

    def _perform(self, node: Node, service: str, effect: Effect) -> None:
        number = node.number
        if isinstance(effect, Send):
            self._send(node, Address(service, number), effect)
        elif isinstance(effect, Reply):
            operation = self._open.pop(effect.request, None)
            assert operation is not None, f"a reply to request {effect.request}, which is not open"
            operation.answered_at, operation.result = self.now, effect.result
        elif isinstance(effect, Persist):
            key, disk = (number, service), node.disks[service]
            assert effect.number > self._persisted.get(key, -1), "Persist numbers must rise"
            self._persisted[key] = effect.number
            disk.pending.append((effect.number, effect.data))
            disk.ready_at = max(disk.ready_at, self.now + self.random.uniform(disk.low, disk.high))
            birth = node.births[service]
            self._later(disk.ready_at - self.now, lambda: self._sync(node, service, birth, effect.number))
        elif isinstance(effect, Publish):
            self.published.append(Occurrence(self.now, number, service, effect.topic, effect.body))
            if isinstance(effect.body, Message):
                body = node.said[service, effect.topic] = _through_codec(effect.body)
                for other in [name for name in node.machines if name != service]:
                    self.feed(number, other, Received(Address(service, number), body, effect.cause))
        elif isinstance(effect, Notify):
            occurrence = Occurrence(self.now, number, service, effect.what, effect.body)
            self.notified.append(occurrence)
            for hear in self.on_notify:  # not within the step: a hearer may well end this machine
                self.after(0.0, lambda h=hear: h(occurrence))  # type: ignore[misc]  # bound now

    def _sync(self, node: Node, service: str, birth: int, number: int) -> None:
        if node.births[service] != birth:
            return
        if node.paused:
            self._later(0.01, lambda: self._sync(node, service, birth, number))
            return
        heard = node.disks[service].sync(number)
        if heard is not None:
            self._step(node, service, heard)

    def _send(self, node: Node, source: Address, effect: Send) -> None:
        self.counts["sent"] += 1
        target = effect.to.node or node.number
        received = Received(source, _through_codec(effect.message), effect.cause)
        if target == node.number:
            if effect.to.service in node.machines:
                self.feed(target, effect.to.service, received)
            return
        way = (node.number, target)
        link = self._links.get(way, self.default_link)
        network = getattr(effect.message, "network", "") if self.cut_networks else ""
        if (
            target not in self.nodes
            or way in self.cut_ways
            or (*way, network) in self.cut_networks
            or self.random.random() < link.loss
        ):
            self.counts["lost"] += 1
            return
        copies = 2 if self.random.random() < link.duplicate else 1
        self.counts["doubled"] += copies - 1
        for _ in range(copies):
            at = self.now + self.random.uniform(link.low, link.high)
            if self.random.random() < link.reorder:
                at += self.random.uniform(0.0, link.late)
            else:
                at = self._busy_until[way] = max(at, self._busy_until.get(way, 0.0))
            self._later(at - self.now, lambda: self._arrive(way, effect.to.service, received))

    def _arrive(self, way: tuple[int, int], service: str, received: Received) -> None:
        if way in self.cut_ways:
            self.counts["lost"] += 1
        else:
            self._deliver(self.nodes[way[1]], service, None, received)


def _through_codec(message: Message) -> Message:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=type(message))


def _plain(value: Any) -> Any:
    if isinstance(value, CoveyError):
        return [value.code, value.message, value.hint]
    raise TypeError(f"{type(value).__name__} has no canonical bytes: use structs, dicts, lists and plain values")
