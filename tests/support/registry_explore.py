"""Every order of events of a small registry: three servers, a few epochs and entries, looked at state by state.

Explores real `Raft` objects (no store: what is committed is decided there) breadth first, and forgets states that it
has seen. From a state the next are: any message in flight arrives, and its answer stays in flight, arrives too, or is
lost; any server misses its primary (or, as a primary, its majority) and stands for election; a primary takes a client's
entry; once, a server crashes, or crashes in the middle of a step, so that what it said is said and nothing that it
ordered is on its disk. A message that never arrives is a lost one; of too many in flight the oldest are lost. Time is
not explored: nobody is ever content with its primary, so PreVote and time-outs hinder no election; that makes more
possible, not less.

What is checked in each state: one primary an epoch; the same epoch and index are the same entry, and the same before
it; what is committed stays, is the same everywhere, and is in the log of every later primary; and, since that shows a
mistake some steps earlier, that nobody who lacks a committed entry could win an election now.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

from covey.bus.machine import Effect, Persist, Send
from covey.components.registry import entries, peers, records
from covey.components.registry.entries import Configured
from covey.components.registry.journal import Journal
from covey.components.registry.log import Log, Place
from covey.components.registry.raft import Raft
from covey.components.registry.recovery import Recovered
from covey.components.registry.reign import Reign
from covey.components.registry.settings import Settings
from covey.components.registry.states import State
from covey.components.registry.store import Store
from msgspec import structs

SERVERS = (1, 2, 3)
FOUNDED = Place(1, 1, b"the founding one")
SETTINGS = Settings(append_bytes=1)


class Found(AssertionError):
    """A state in which something that must always hold does not; the text tells how to come there."""


class _Chance:
    """Nothing is left to chance: lives are not told apart, for no copy is damaged here."""

    def uniform(self, a: float, b: float) -> float:
        return a

    def getrandbits(self, k: int) -> int:
        return 7


class _Keeper:
    """There are no snapshots, and no time."""

    def snapshot(self) -> bytes:
        raise AssertionError("no copy is filled here")

    def install(self, record: bytes) -> Place | None:
        raise AssertionError("no copy is filled here")

    def log_time(self) -> int:
        return 0


_chance, _keeper, _nothing = _Chance(), _Keeper(), Store()


class Disk(NamedTuple):
    """What is durable on one server."""

    promised: int
    voted_for: int
    rows: tuple[bytes, ...]  # entries behind the founding one

    def wrote(self, data: list[bytes]) -> Disk:
        """Return the disk with these records on it."""
        promised, voted_for, rows = self
        for one in data:
            kind = records.kind_of(one)
            if kind == records.HARD_STATE:
                hard = records.unchecked(one)
                promised, voted_for = hard.epoch, records.decode_vote(hard)
            elif kind == records.CUT:
                rows = rows[: records.index_of(one) - FOUNDED.index]
            elif kind < records.SEGMENT:
                rows = (*rows, one)
        return Disk(promised, voted_for, rows)

    def start(self, node: int) -> Raft:
        """Return a server that starts on this disk. What was committed it may have to hear again."""
        log = Log(FOUNDED, Configured(SERVERS))
        for one in self.rows:
            log.append(one, records.unchecked(one))
        raft = Raft(node, Recovered(_nothing, log, self.promised, self.voted_for), SETTINGS, _chance)
        raft.tells(str, _keeper)
        return raft


class Server:
    """One server at one moment; never changed once it is part of a state."""

    def __init__(self, raft: Raft, disk: Disk) -> None:
        self.raft, self.disk = raft, disk
        self.key = hash(self._key())

    def clone(self) -> Raft:
        """Return its core log, to be changed."""
        old = self.raft
        raft = object.__new__(Raft)
        raft.__dict__.update(old.__dict__)
        log, journal = object.__new__(Log), object.__new__(Journal)
        log.__dict__.update(old.log.__dict__)
        log._kept, log._servers = list(log._kept), list(log._servers)
        journal.__dict__.update(old.journal.__dict__)
        journal._orders = deque(journal._orders)
        raft.log, raft.journal, raft._votes, raft.effects = log, journal, set(old._votes), []
        if old.reign:
            reign = raft.reign = object.__new__(Reign)
            reign.__dict__.update(old.reign.__dict__)
            reign._raft = raft
            reign.others = {number: structs.replace(one) for number, one in reign.others.items()}
        return raft

    def _key(self) -> tuple[Any, ...]:
        """Return all of it that makes a difference."""
        raft = self.raft
        reign = raft.reign and tuple(
            (one.next, one.match, one.probing, one.flights) for one in raft.reign.others.values()
        )
        log = raft.log
        votes = frozenset(raft._votes) if raft.state is State.CANDIDATE else None
        return (raft.state, raft.promised, raft.voted_for, log.end.chain, log.committed, votes, reign, self.disk)


class Letter:
    """A message in flight; the same one is the same object."""

    known: ClassVar[dict[tuple[int, int, Any], Letter]] = {}

    def __init__(self, source: int, to: int, message: Any) -> None:
        self.source, self.to, self.message = source, to, message
        self.order = (message.epoch, len(self.known))

    @classmethod
    def of(cls, source: int, to: int, message: Any) -> Letter:
        """Return the letter, made once."""
        key = (source, to, message)
        found = cls.known.get(key)
        if found is None:
            found = cls.known[key] = cls(source, to, message)
        return found

    def __str__(self) -> str:
        message = self.message
        held = [f"{one.epoch}.{one.index}" for one in map(records.unchecked, getattr(message, "records", ()))]
        more = f" with {', '.join(held)}" if held else ""
        return f"{type(message).__name__}{more} {self.source}->{self.to} of epoch {message.epoch}"


class World(NamedTuple):
    """One state of all."""

    servers: tuple[Server, ...]
    flight: frozenset[Letter]
    crashes: int  # that may still happen
    writes: int
    leaders: tuple[tuple[int, int], ...]  # epoch, node
    committed: tuple[tuple[bytes, int], ...]  # from the founding one on: digest, epoch of the commit

    def key(self) -> tuple[Any, ...]:
        """Two states with the same key have the same future."""
        rest = (frozenset(one.order for one in self.flight), self.crashes, self.writes, self.leaders, self.committed)
        return (*(server.key for server in self.servers), *rest)


class Explorer:
    """Looks at what comes after up to `most` states; `epochs` and `entries` bound epochs and indexes, `flight` the
    messages under way. Not `late`: an answer comes at once, or at another message's time never."""

    def __init__(
        self, most: int, *, epochs: int = 4, entries: int = 4, crashes: int = 1, flight: int = 5, late: bool = True
    ) -> None:
        Letter.known.clear()  # their numbers decide the order in which states are looked at
        self.most, self.epochs, self.entries, self.crashes = most, epochs, entries, crashes
        self.flight, self.late = flight, late
        self.seen: dict[int, tuple[int, tuple[Any, str]]] = {}  # state -> state before, what was done
        self.doing: tuple[Any, str] = (0, "")
        self.looked_at = 0
        self.depth = 0
        self.steps = 0
        self.whole = False  # all within the bounds was looked at

    # --- the search ---

    def run(self) -> None:
        """Explore; raises `Found`."""
        first = self.first()
        row = [(hash(first.key()), first)]
        self.seen[row[0][0]] = (0, (0, ""))
        while row:
            self.depth += 1
            after: list[tuple[int, World]] = []
            for at, world in row:
                self.looked_at += 1
                if self.looked_at > self.most:
                    return
                try:
                    for then in self.after(world):
                        key = hash(then.key())
                        if key not in self.seen:
                            self._holds(then)
                            self.seen[key] = (at, self.doing)
                            after.append((key, then))
                except AssertionError as error:
                    raise Found(f"{error}\n  {self.story(at)}\n  {self.doing[0]} {self.doing[1]}") from error
            row = after
        self.whole = True

    def first(self) -> World:
        """Return the beginning: 1 has the votes of all for epoch 2, and its first entry on its own disk only."""
        servers = tuple(Server(Disk(1, 0, ()).start(node), Disk(1, 0, ())) for node in SERVERS)
        world = World(servers, frozenset(), self.crashes, 1, (), ((FOUNDED.chain, 1),))
        world = self._stand(world, 1)
        for other in (2, 3):
            world = self._answered(world, self._letter(world, 1, other, peers.VoteAsked))
        return world

    @staticmethod
    def _letter(world: World, source: int, to: int, kind: Any) -> Letter:
        return next(
            one for one in world.flight if (one.source, one.to) == (source, to) and isinstance(one.message, kind)
        )

    def story(self, at: int) -> str:
        """Return how a state was come to."""
        lines: list[str] = []
        while at in self.seen and self.seen[at][0]:
            at, (who, what) = self.seen[at]
            lines.append(f"{who} {what}")
        return "\n  ".join(reversed(lines))

    # --- what may come next ---

    def after(self, world: World) -> Iterator[World]:
        """Yield the states that may come next; `doing` says how."""
        for letter in sorted(world.flight, key=lambda one: one.order):
            self.doing = (letter, "arrives")
            then, said = self._arrive(world, letter)
            answers = [answer for answer in said if answer.to == letter.source and answer in then.flight]
            if self.late or not answers:
                yield then
            for answer in answers:
                self.doing = (letter, "arrives, and its answer")
                yield self._arrive(then, answer)[0]
            if world.crashes:
                self.doing = (letter, f"arrives, {letter.to} crashes before its disk is done")
                yield self._arrive(world, letter, crash=True)[0]
        for server in world.servers:
            node, raft = server.raft.node, server.raft
            if raft.promised < self.epochs:
                self.doing = (node, f"stands in epoch {raft.promised + 1}")
                yield self._stand(world, node)
            if raft.leads and world.writes and raft.log.last < self.entries:
                self.doing = (node, "takes a client's entry")
                yield self._write(world, node)
            if world.crashes:
                self.doing = (node, "crashes")
                yield self._crashed(world, node)

    def _arrive(self, world: World, letter: Letter, crash: bool = False) -> tuple[World, list[Letter]]:
        world = world._replace(flight=world.flight - {letter})
        server = world.servers[letter.to - 1]
        raft = server.clone()
        raft.receive(0.0, letter.source, letter.message)
        return self._done(world, raft, server.disk, crash)

    def _answered(self, world: World, letter: Letter) -> World:
        world, said = self._arrive(world, letter)
        for answer in said:
            world = self._arrive(world, answer)[0]
        return world

    def _stand(self, world: World, node: int) -> World:
        server = world.servers[node - 1]
        raft = server.clone()
        if raft.leads:
            raft.step_down(0.0)
        elif raft.state is State.CANDIDATE:
            raft.turn("follows")
        raft._missed(0.0)
        raft.effects = []  # who would vote is asked, and one other answers
        if raft.state is State.CANVASSING:
            promise = peers.PreVoteGiven(0, raft.promised + 1, True)
            raft.receive(0.0, next(other for other in SERVERS if other != node), promise)
        return self._done(world, raft, server.disk)[0]

    def _write(self, world: World, node: int) -> World:
        server = world.servers[node - 1]
        raft = server.clone()
        raft.propose(0.0, entries.Committed(f"w{world.writes}", "kind", "", b"", 1))
        return self._done(world._replace(writes=world.writes - 1), raft, server.disk)[0]

    def _crashed(self, world: World, node: int) -> World:
        disk = world.servers[node - 1].disk
        return self._put(world._replace(crashes=world.crashes - 1), Server(disk.start(node), disk), [])

    def _done(self, world: World, raft: Raft, disk: Disk, crash: bool = False) -> tuple[World, list[Letter]]:
        """Do what a step ordered: the disk is done at once, or never."""
        said: list[Letter] = []
        number = 0
        while True:
            if raft.leads and raft.log.end.epoch < raft.promised:
                raft.propose(0.0, entries.Reigned(raft.node))
            if raft.owes:
                raft.pay(0.0)
            orders: list[Effect] = []
            for effect in raft.effects:
                if isinstance(effect, Send):
                    said.append(Letter.of(raft.node, effect.to.node, effect.message))
                elif isinstance(effect, Persist):
                    orders.append(effect)
            raft.effects = []
            if crash:
                return self._put(world._replace(crashes=0), Server(disk.start(raft.node), disk), said), said
            if not orders:
                break
            for order in orders:
                assert isinstance(order, Persist)
                disk = disk.wrote(order.data)
                number = order.number
            raft.persisted(0.0, number)
        self.steps += 1
        if raft.reign:
            for one in raft.reign.others.values():
                one.heard_at = one.quiet = 0
        raft._heard, raft._election_at, raft._stood = float("-inf"), 0.0, 0
        return self._put(world, Server(raft, disk), said), said

    def _put(self, world: World, server: Server, said: list[Letter]) -> World:
        """Return the world with this server changed, and what it said in flight."""
        servers = tuple(server if one.raft.node == server.raft.node else one for one in world.servers)
        node = server.raft.node
        flight = {one for one in world.flight if one.to != node or not _idle(one, server.raft)}
        flight |= {one for one in said if not _idle(one, servers[one.to - 1].raft)}
        if len(flight) > self.flight:  # the oldest are lost
            rest = sorted(flight - set(said), key=lambda one: one.order)
            flight = set(rest[len(flight) - self.flight :]) | set(said)
        leaders, committed = world.leaders, world.committed
        raft = server.raft
        if raft.leads and (raft.promised, raft.node) not in leaders:
            leaders = tuple(sorted((*leaders, (raft.promised, raft.node))))
            self._leads(world, raft)
        if raft.log.committed >= len(committed) + 1:
            log = raft.log
            more = []
            for index in range(len(committed) + 1, log.committed + 1):
                place = log.place(index)
                assert place is not None
                more.append((place.chain, raft.promised))
            committed = (*committed, *more)
        return world._replace(servers=servers, flight=frozenset(flight), leaders=leaders, committed=committed)

    # --- what must hold ---

    @staticmethod
    def _leads(world: World, raft: Raft) -> None:
        assert raft.promised not in dict(world.leaders), f"INV-1: two primaries in epoch {raft.promised}"
        for index, (chain, epoch) in enumerate(world.committed, FOUNDED.index):
            place = raft.log.place(index)
            if epoch < raft.promised:
                assert place and place.chain == chain, f"INV-4: {raft.node} leads and lacks entry {index}"

    @staticmethod
    def _holds(world: World) -> None:
        rafts = [server.raft for server in world.servers]
        known: dict[tuple[int, int], bytes] = {}
        for raft in rafts:
            for index, kept in enumerate(raft.log._kept, FOUNDED.index + 1):
                same = known.setdefault((kept.epoch, index), kept.chain)
                assert same == kept.chain, f"INV-3: two entries {kept.epoch}.{index}"
            for index in range(FOUNDED.index, raft.log.committed + 1):
                place = raft.log.place(index)
                assert place and place.chain == world.committed[index - FOUNDED.index][0], (
                    f"INV-5: {raft.node} has committed another entry {index}"
                )
        last = len(world.committed) - 1 + FOUNDED.index
        chain = world.committed[-1][0]
        ends = [raft.log.end for raft in rafts]
        lacking = [end for raft, end in zip(rafts, ends, strict=True) if _chain(raft, last) != chain]
        for end in lacking:
            voters = [other for other in ends if (end.epoch, end.index) >= (other.epoch, other.index)]
            assert len(voters) < 2, f"INV-4: entry {last} is committed, and one who lacks it could be elected"


def _chain(raft: Raft, index: int) -> bytes | None:
    place = raft.log.place(index)
    return place.chain if place else None


def _idle(letter: Letter, raft: Raft) -> bool:
    """Is this a message that can change nothing any more, now or later?"""
    message = letter.message
    if isinstance(message, peers.VoteGiven | peers.Appended):
        if message.epoch > raft.promised:
            return False
        wanted = raft.state is State.CANDIDATE if isinstance(message, peers.VoteGiven) else raft.leads
        return message.epoch < raft.promised or not wanted
    if isinstance(message, peers.PreVoteGiven):
        return message.granted or message.epoch <= raft.promised
    return isinstance(message, peers.PreVoteAsked)
