"""Two brokers and a bad network between them, in virtual time, from one seed: node A dials, node B is dialled.

Messages carry numbers; what each side gave to a session is written down, and what the other side delivers is compared
at once: of each session exactly its first so many messages, in order, never one twice. A side that is told of an end
must not have been told too little: what it does not count as lost has arrived.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import defaultdict
from collections.abc import Callable
from random import Random
from typing import Any

from covey.bus.acceptor import Acceptor
from covey.bus.dialler import IDLE_LIMIT, Adopt, Connect, Dialler, Drop, HangUp, State, Try
from covey.bus.messages import Kind
from covey.bus.session import LULL, Closed, Deliver, Down, Transmit, Up, parse
from covey.errors import Overloaded, Unreachable

ADDRESSES = ("10.1.0.2:7400", "10.2.0.2:7400")


class Broken(AssertionError):
    """Something that must always hold did not. The text has the seed and the last events."""


class Wire:
    """One connection. Both ways keep their order; what is stalled waits, as TCP makes it wait."""

    def __init__(self, number: int, address: str) -> None:
        self.name = b"\0" + number.to_bytes(4, "big")
        self.address = address
        self.cut = False  # B can send nothing on it any more, A was or will be told
        self.given_up = False  # A has hung up
        self.free_at = {"A": 0.0, "B": 0.0}
        self.stalled: dict[str, list[list[Any]]] = {"A": [], "B": []}


class World:
    """The two brokers. `A` and `B` name the ways, too: way "A" leads from A to B."""

    def __init__(self, seed: int, *, loss: float = 0.0, make_dialler: Any = Dialler, make_acceptor: Any = Acceptor):
        self.seed = seed
        self.random = Random(f"links {seed}")
        self.now = 1000.0
        self.loss = loss
        self.steps = 0
        self.stopped = {"A": False, "B": False}  # the way swallows everything
        self.refusing = False
        self.paused = {"A": False, "B": False}
        self.held: dict[str, list[Callable[[], None]]] = {"A": [], "B": []}
        self.wire: Wire | None = None
        self.trial: Wire | None = None  # the second connection of A
        self.dead: set[str] = set()  # addresses to and from which everything is swallowed
        self.made = 0
        self.downs: list[tuple[float, str, Down]] = []
        self.closed: list[tuple[float, str]] = []
        self.ups: list[tuple[float, str]] = []
        self.given: dict[tuple[str, int], list[bytes]] = defaultdict(list)  # (side, session): what was sent in it
        self.arrived: dict[tuple[str, int], int] = defaultdict(int)  # (sender, session): how many were delivered
        self.sent = {"A": 0, "B": 0}
        self.overloaded = 0
        self.faults: list[str] = []
        self._make_dialler, self._make_acceptor = make_dialler, make_acceptor
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._armed: dict[str, float] = {}
        self._log: list[tuple[float, str, str, list[Any], list[Any]]] = []  # told as text only when somebody reads it
        self.a_life = self.b_life = 0
        self.start_a()
        self.start_b()

    # --- lives --------------------------------------------------------------------------------------------------

    def start_a(self) -> None:
        self.a_life += 1
        chance = Random(f"A {self.seed} {self.a_life}")
        self.a = self._make_dialler("B", ADDRESSES, chance, lambda: [b"hello", b""])
        self._hang_up()
        self._armed.pop("A", None)

    def start_b(self) -> None:
        self.b_life += 1
        self.b = self._make_acceptor()
        self._armed.pop("B", None)
        self.keys: list[bytes] = []
        for known in [known for known in self.given if known[0] == "B" and not self.arrived[known]]:
            del self.given[known]  # A never was on it, so the new life of B may use its number
        if self.wire:
            self.break_wire()

    # --- what the brokers want ----------------------------------------------------------------------------------

    def send_a(self, size: int = 1, kind: Kind = Kind.REQUEST) -> None:
        if self.paused["A"]:
            return
        body = f"A{self.a_life}.{self.sent['A']}".encode().ljust(size, b".")
        try:
            effects = self.a.send(self.now, kind, [b"h", body])
        except Overloaded:
            self.overloaded += 1
            return
        self.sent["A"] += 1
        known = self.given["A", self.a.session.number]
        if not known:
            known.append(b"")  # the hello, which the dialler gives itself
        known.append(body)
        self._perform("A", effects, f"send {body[:20]!r}")

    def send_b(self, size: int = 1, kind: Kind = Kind.EVENT) -> None:
        if not self.keys or self.paused["B"]:
            return
        key = self.keys[-1]
        body = f"B{self.b_life}.{self.sent['B']}".encode().ljust(size, b".")
        try:
            effects = self.b.send(self.now, key, kind, [b"h", body])
        except Overloaded:
            self.overloaded += 1
            return
        except Unreachable:
            raise self.failure(f"B was not told of the end of {key.hex()}") from None
        self.sent["B"] += 1
        self.given["B", int.from_bytes(key, "big")].append(body)
        self._perform("B", effects, f"send {body[:20]!r}")

    def do_a(self, what: str, *arguments: Any) -> None:
        self._perform("A", getattr(self.a, what)(self.now, *arguments), what)

    # --- faults -------------------------------------------------------------------------------------------------

    def fault(self, text: str) -> None:
        self.faults.append(f"{self.now:.3f} {text}")

    def break_wire(self) -> None:
        """The connection breaks: of what is under way a part arrives, late perhaps; A is told, B is not."""
        wire = self.wire
        if wire and not wire.cut:
            wire.cut = True
            self.after(self.random.uniform(0.0001, 0.01), lambda: self._closed(wire))

    def stop(self, *ways: str) -> None:
        for way in ways:
            self.stopped[way] = True

    def heal(self) -> None:
        self.stopped = {"A": False, "B": False}
        self.refusing = False
        self.dead = set()
        for side in ("A", "B"):
            self.resume(side)
        wire = self.wire
        if wire:
            for way in ("A", "B"):
                waiting, wire.stalled[way] = wire.stalled[way], []
                for frames in waiting:
                    self._put(wire, way, frames)

    def pause(self, side: str) -> None:
        self.paused[side] = True

    def resume(self, side: str) -> None:
        if self.paused[side]:
            self.paused[side] = False
            held, self.held[side] = self.held[side], []
            if self.random.random() < 0.5:
                self._ring(side)
            for act in held:
                act()
            self._ring(side)

    # --- time ---------------------------------------------------------------------------------------------------

    def after(self, delay: float, act: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._heap, (self.now + delay, self._order, act))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._heap and self._heap[0][0] <= end:
            self.now, _, act = heapq.heappop(self._heap)
            act()
        self.now = end

    def every(self, low: float, high: float, until: float, act: Callable[[], None]) -> None:
        def again() -> None:
            if self.now < until:
                act()
                self.after(self.random.uniform(low, high), again)

        self.after(self.random.uniform(low, high), again)

    def digest(self) -> str:
        """Return a digest of every step so far: equal for equal runs, and only for those."""
        digest = hashlib.blake2b(digest_size=16)
        for step in self._log:
            digest.update(_told(*step).encode())
        return digest.hexdigest()

    def failure(self, text: str) -> Broken:
        last = "\n".join(_told(*step) for step in self._log[-60:])
        return Broken(f"seed {self.seed}, at {self.now:.4f}: {text}\nfaults: {self.faults[-30:]}\n{last}")

    def check_healed(self) -> None:
        """What was not reported lost has arrived, and both sides hold the same session or none."""
        for (side, number), bodies in self.given.items():
            alive = self._number_of_a() == number if side == "A" else number in self.b.sessions
            if alive and self.arrived[side, number] != len(bodies):
                raise self.failure(f"{side} sent {len(bodies)}, {self.arrived[side, number]} arrived")
        if self.a.up and set(self.b.sessions) != {self._number_of_a()}:
            raise self.failure(f"A is on {self._number_of_a():x}, B on {[f'{n:x}' for n in self.b.sessions]}")

    # --- how it runs --------------------------------------------------------------------------------------------

    def _number_of_a(self) -> int:
        return self.a.session.number if self.a.session else 0

    def _perform(self, side: str, effects: list[Any], cause: str, frames: list[Any] | None = None) -> None:
        self.steps += 1
        self._log.append((self.now, side, cause, frames or [], effects))
        for effect in effects:
            if isinstance(effect, Transmit):
                self._transmit(side, effect.frames)
            elif isinstance(effect, Deliver):
                self._delivered(side, effect)
            elif isinstance(effect, Connect):
                self._connect(effect.address)
            elif isinstance(effect, HangUp):
                self._hang_up()
            elif isinstance(effect, Try):
                self._try(effect.address)
            elif isinstance(effect, Adopt):
                trial, self.trial = self.trial, None
                self._hang_up()
                self.wire = trial
            elif isinstance(effect, Drop):
                self.trial = None
            elif isinstance(effect, Up):
                self.ups.append((self.now, side))
                if side == "B":
                    self.keys.append(effect.key)  # type: ignore[arg-type]
            elif isinstance(effect, (Down, Closed)):
                self._ended(side, effect)
        machine = self.a if side == "A" else self.b
        sessions = self.b.sessions.values() if side == "B" else [self.a] if self.a.session else []
        waiting = sum(each.session.waiting for each in sessions)
        try:
            if self.steps % (1 + waiting // 16) == 0:  # a check counts all that waits: the more, the rarer
                machine.check_invariants()
        except AssertionError as problem:
            raise self.failure(f"invariant of {side}: {problem}") from problem
        self._arm(side)

    def _ended(self, side: str, effect: Down | Closed) -> None:
        if side == "B":
            self.keys.remove(effect.key)  # type: ignore[arg-type]
            number = int.from_bytes(effect.key, "big")  # type: ignore[arg-type]
        else:
            number = self.last_of_a
        if isinstance(effect, Down):
            self.downs.append((self.now, side, effect))
        else:
            self.closed.append((self.now, side))
        told = len(self.given[side, number]) - effect.lost
        if number and self.arrived[side, number] < told:
            raise self.failure(f"{side} was told that {told} arrived, it was {self.arrived[side, number]}")

    def _delivered(self, side: str, effect: Deliver) -> None:
        sender = "B" if side == "A" else "A"
        number = int.from_bytes(effect.key, "big") if isinstance(effect.key, bytes) else self._number_of_a()
        sent, before = self.given[sender, number], self.arrived[sender, number]
        body = bytes(effect.frames[1])
        if before == 0 and sender == "A":
            if bytes(effect.frames[0]) != b"hello":
                raise self.failure(f"the first message is no hello but {body!r}")
        elif before >= len(sent) or sent[before] != body:
            raise self.failure(f"{side} got {body!r} as number {before + 1}, sent were {sent[: before + 1][-3:]}")
        self.arrived[sender, number] += 1

    def _transmit(self, side: str, frames: list[Any]) -> None:
        wire = self.wire
        if side == "B":
            if wire is None or wire.cut or wire.given_up or frames[0] != wire.name:
                name = frames[0]
                self.after(0.0, lambda: self.b.unroutable(self.now, name))  # what was sent meanwhile is lost silently
                return
            frames = frames[1:]
        assert wire is not None, "A transmits without a connection"
        if side == "A" and frames[0]:
            kind, number, *_ = parse(frames[0], len(frames))
            if kind == 1 and not self.given["A", number]:
                self.given["A", number].append(b"")
        chance = self.random.random()
        if chance >= self.loss:
            self._put(wire, side, frames)
            if chance > 1.0 - self.loss / 2:
                self._put(wire, side, frames)

    def _put(self, wire: Wire, way: str, frames: list[Any]) -> None:
        if wire.address in self.dead:
            return
        if self.stopped[way]:
            wire.stalled[way].append(frames)
            return
        at = max(self.now + self.random.uniform(0.0002, 0.003), wire.free_at[way])
        wire.free_at[way] = at
        self.after(at - self.now, lambda: self._arrive(wire, way, frames))

    def _arrive(self, wire: Wire, way: str, frames: list[Any]) -> None:
        if self.stopped[way]:
            wire.stalled[way].append(frames)
            return
        if wire.cut or wire.given_up:
            if way == "B" or self.random.random() < 0.5:
                return
            if self.random.random() < 0.5:  # read by B only after it has read newer connections
                self.after(self.random.uniform(0.0, 0.8), lambda: self._to_b(wire, frames))
                return
        if way == "A":
            self._to_b(wire, frames)
        else:
            self._to_a(wire, frames)

    def _to_b(self, wire: Wire, frames: list[Any]) -> None:
        life = self.b_life

        def act() -> None:
            if self.b_life == life:
                self._perform("B", self.b.heard(self.now, wire.name, frames), "heard", frames)

        self._or_hold("B", act)

    def _to_a(self, wire: Wire, frames: list[Any]) -> None:
        def act() -> None:
            if self.wire is wire:
                parsed = parse(frames[0], len(frames))
                self._perform("A", self.a.heard(self.now, *parsed, frames[1:]), "heard", frames)

        self._or_hold("A", act)

    def _or_hold(self, side: str, act: Callable[[], None]) -> None:
        if self.paused[side]:
            self.held[side].append(act)
        else:
            act()

    def _connect(self, address: str) -> None:
        self.made += 1
        wire = self.wire = Wire(self.made, address)
        if self.stopped["A"] or self.stopped["B"] or address in self.dead:
            return
        done = self._refused if self.refusing else self._stands
        self.after(self.random.uniform(0.0005, 0.005), lambda: self._or_hold("A", lambda: done(wire)))

    def _try(self, address: str) -> None:
        self.made += 1
        wire = self.trial = Wire(self.made, address)
        if self.stopped["A"] or self.stopped["B"] or address in self.dead:
            return
        stands = not self.refusing

        def act() -> None:
            if self.trial is wire:
                self._perform("A", self.a.tried(self.now, stands), "tried")

        self.after(self.random.uniform(0.0005, 0.005), lambda: self._or_hold("A", act))

    def _stands(self, wire: Wire) -> None:
        if self.wire is wire:
            self._perform("A", self.a.connected(self.now), "connected")

    def _refused(self, wire: Wire) -> None:
        if self.wire is wire:
            self._perform("A", self.a.failed(self.now, "connection refused", True), "refused")

    def _closed(self, wire: Wire) -> None:
        def act() -> None:
            if self.wire is wire:
                self._perform("A", self.a.failed(self.now, "connection closed"), "closed")

        self._or_hold("A", act)

    def _hang_up(self) -> None:
        if self.wire:
            self.wire.given_up = True
            self.wire = None

    def _arm(self, side: str) -> None:
        if side == "A":
            self.last_of_a = self._number_of_a() or getattr(self, "last_of_a", 0)
        deadline = (self.a if side == "A" else self.b).deadline
        if deadline is None or self._armed.get(side, float("inf")) <= deadline:
            return
        self._armed[side] = at = max(deadline, self.now)
        self.after(at - self.now, lambda: self._ring(side, at))

    def _ring(self, side: str, at: float | None = None) -> None:
        if at is not None and self._armed.get(side) != at:
            return
        self._armed.pop(side, None)
        if self.paused[side]:
            return
        machine = self.a if side == "A" else self.b
        self._perform(side, machine.due(self.now), "due")
        if machine.deadline is not None and machine.deadline <= self.now and self.a.state is not State.AT_REST:
            raise self.failure(f"{side} turns in circles")


def storm(
    seed: int, seconds: float = 40.0, *, loss: bool = True, make_dialler: Any = Dialler, make_acceptor: Any = Acceptor
) -> World:
    """Let both sides talk while the network and the brokers suffer; then heal, and check that all is well again."""
    world = World(seed, make_dialler=make_dialler, make_acceptor=make_acceptor)
    random, end = world.random, world.now + seconds
    world.loss = random.choice((0.0, 0.0, 0.01, 0.1)) if loss else 0.0
    pace = random.choice((0.01, 0.05, 0.5))
    world.every(pace / 2, pace * 2, end, lambda: [world.send_a(random.choice((1, 1, 5000))) for _ in range(random.randint(1, 90 if random.random() < 0.05 else 3))])  # fmt: skip  # noqa: E501
    world.every(pace / 2, pace * 2, end, lambda: [world.send_b() for _ in range(random.randint(1, 3))])

    def strike() -> None:
        kind = random.choice(
            (
                "break",
                "break",
                "break",
                "stall",
                "stall",
                "one-way",
                "refuse",
                "pause",
                "restart-a",
                "restart-b",
                "idle",
                "network",
                "order",
            )
        )
        length = random.choice((random.uniform(0.05, 2.0), random.uniform(2.0, 9.0)))
        world.fault(f"{kind} {length:.2f}")
        if kind == "break":
            world.break_wire()
        elif kind in ("stall", "one-way"):
            world.stop(*(("A", "B") if kind == "stall" else random.choice("AB")))
            if random.random() < 0.3:
                world.after(random.uniform(0.0, length), world.break_wire)
            world.after(length, world.heal)
        elif kind == "refuse":
            world.refusing = True
            world.break_wire()
            world.after(length, world.heal)
        elif kind == "network":
            world.dead = {random.choice(ADDRESSES)}
            world.after(length, world.dead.clear)
        elif kind == "order":
            world.do_a("move", random.choice((ADDRESSES, ADDRESSES[::-1], ADDRESSES[:1], ADDRESSES[1:])))
        elif kind == "pause":
            world.pause(random.choice("AB"))
            world.after(length, world.heal)
        elif kind == "restart-a":
            world.start_a()
        elif kind == "restart-b":
            world.start_b()
        else:
            world.a.used = world.now - IDLE_LIMIT
            world.do_a("rest_if_idle", False)

    world.every(0.2, 4.0, end, strike)
    world.every(0.5, 8.0, end, lambda: world.do_a("hush", random.random() < 0.7))
    world.run(seconds)
    world.loss = 0.0
    world.heal()
    world.run(12.0 + LULL)  # long enough for either side to end what the other ended, were it calm
    world.send_a()
    world.run(3.0)
    if not world.a.up:
        raise world.failure("healed, and not up")
    for _ in range(5):
        world.send_a()
        world.send_b()
    world.run(3.0)
    world.check_healed()
    return world


def _frames(frames: list[Any]) -> str:
    kind, number, sequence, ack, extra = parse(frames[0], len(frames))
    return f"{kind} {number & 0xFFFF:04x} {sequence} {ack} {extra & 0xFFFF:04x}"


def _told(at: float, side: str, cause: str, frames: list[Any], effects: list[Any]) -> str:
    heard = f" {_frames(frames)}" if frames else ""
    return f"{at:.4f} {side} {cause}{heard} -> {[_shown(each) for each in effects[:8]]} of {len(effects)}"


def _shown(effect: Any) -> str:
    if isinstance(effect, Transmit):
        first = next(each for each in effect.frames if len(each) == 34)
        return f"Transmit {_frames(effect.frames[effect.frames.index(first) :])}"
    return str(effect)[:120]
