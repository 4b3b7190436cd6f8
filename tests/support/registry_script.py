"""Registry servers moved by hand: one message, one timer, one sync, one crash at a time; every invariant is watched.

Knows the machine, the simulated disk (`registry_copy.py`) and the guard (`registry_guard.py`); no network and no common
time: each server has a clock of its own, and a message lies in `flight` until a script delivers or drops it. What a
script asks for and is not there raises `Astray`, which is no finding: a planted mistake must be caught by what it did,
not by a schedule that could not be played.
"""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

import msgspec
from covey.bus.machine import Address, Asked, Effect, Notify, Persist, Received, Reply, Send
from covey.components.registry import entries, membership, messages, peers, records
from covey.components.registry.machine import RegistryMachine
from covey.components.registry.recovery import recover
from covey.components.registry.settings import Settings
from covey.components.registry.states import State
from covey.errors import CoveyError, NotPrimary
from registry_cluster import founding
from registry_copy import FLIPPED, CopyDisk
from registry_guard import Guard
from registry_truth import Truth

SERVICE = "registry"
SETTINGS = Settings(append_bytes=1, snapshot_bytes=1 << 30, part_bytes=1 << 20, learner_lag=4)
MOST = 3000  # messages that servers may need to come to rest


class Astray(LookupError):
    """The schedule cannot be played: no such message is under way, or a server is not in the state it needs."""


class Flight(NamedTuple):
    """A message under way."""

    source: int
    to: int
    message: Any


class Dice:
    """Draws the longest time there is, so that nothing comes by chance; ordinary chance when `fair`."""

    def __init__(self) -> None:
        self.fair = False
        self._random = Random(1)
        self._lives = 0

    def uniform(self, a: float, b: float) -> float:
        """Return a number between two."""
        return self._random.uniform(a, b) if self.fair else b

    def getrandbits(self, k: int) -> int:
        """Return a number that was not returned before."""
        self._lives += 1
        return 1000 + self._lives


class Script:
    """Servers 1, 2, …, and spare ones that are not filled; all founded and started, and nobody leads."""

    def __init__(
        self,
        servers: int = 3,
        spares: int = 0,
        *,
        settings: Settings = SETTINGS,
        gen: int = 0,
        old: int = 0,
        group: bool = True,
    ) -> None:
        self.settings, self.group = settings, group
        self.voters = list(range(1, servers + 1))
        self.all = list(range(1, servers + spares + 1))
        snapshot = founding(self.voters, self.all, gen)
        self.truth = Truth(snapshot, settings.requests_kept)
        self.questions: dict[int, Any] = {}
        self.answers: dict[int, Any] = {}
        self.guard = Guard(self.truth, self.questions)
        self.flight: list[Flight] = []
        self.cuts: set[tuple[int, int]] = set()
        self.slow: set[int] = set()  # servers whose disk syncs by hand
        self.machines: dict[int, Any] = {}
        self.disks: dict[int, CopyDisk] = {}
        self.clock: dict[int, float] = {}
        self.dice = Dice()
        self.snapshots: list[bytes] = []
        for number in self.all:
            disk = self.disks[number] = CopyDisk(Random(number))
            self.guard.add(number, disk)
            self.clock[number] = 1000.0 * number
            if number in self.voters:
                founded = founding(self.voters, self.all, gen - 1, "old") if number == old else snapshot
                for record in (records.encode_hard_state(1), founded):
                    disk.keep(record)
            self.start(number)

    # --- servers ---

    def start(self, number: int) -> None:
        """Start a server from what its disk holds; its group forms at once, unless the script has `group=False`."""
        self.guard.born(number)
        recovered = recover(self.disks[number].load(), self.settings)
        self.machines[number] = RegistryMachine(number, recovered, self.settings, self.dice)
        self.step(number)
        if self.group:
            self.step(number, messages.GroupFormed())

    def crash(self, number: int, kept: int = 0) -> None:
        """End a server; of the records that its disk has not synced the first `kept` are there all the same."""
        disk = self.disks[number]
        rows = [data for _, batch in disk.pending for data in batch]
        for data in rows[:kept]:
            disk.keep(data)
        disk.pending = []
        del self.machines[number]

    def restart(self, number: int, kept: int = 0) -> None:
        """Crash a server and start it again."""
        self.crash(number, kept)
        self.start(number)

    def damage(self, number: int) -> None:
        """Crash a server, spoil its copy, start it again."""
        self.crash(number)
        self.disks[number].spoil(FLIPPED)
        self.start(number)

    def raft(self, number: int) -> Any:
        """Return a server's core log."""
        return self.machines[number].raft

    def leads(self, number: int) -> bool:
        """Is this server the primary, as far as it knows?"""
        return number in self.machines and self.raft(number).leads

    def committed(self, number: int) -> int:
        """Return up to where a server knows its log to be committed."""
        index: int = self.raft(number).log.committed
        return index

    def last(self, number: int) -> int:
        """Return the index of the newest entry of a server's log in memory."""
        index: int = self.raft(number).log.last
        return index

    def durable(self, number: int) -> int:
        """Return the index of the newest entry on a server's disk."""
        return self.disks[number].copy.last

    # --- steps ---

    def step(self, number: int, input: Any = None) -> None:
        """Give a server one input; what its disk was told to do is done at once unless the disk is slow."""
        machine = self.machines[number]
        effects: list[Effect] = machine.step(self.clock[number], input)
        machine.check_invariants()
        self.guard.step(number, machine, input, effects)
        made: list[bytes] = []
        for effect in effects:
            if isinstance(effect, Send):
                if (number, effect.to.node) not in self.cuts:
                    self.flight.append(Flight(number, effect.to.node, effect.message))
            elif isinstance(effect, Persist):
                self.disks[number].pending.append((effect.number, effect.data))
            elif isinstance(effect, Reply):
                assert effect.request not in self.answers, f"request {effect.request} was answered twice"
                self.answers[effect.request] = effect.result
            elif isinstance(effect, Notify) and effect.what == "snapshot":
                made.append(effect.body)
        if number not in self.slow:
            self.sync(number)
        for snapshot in made:
            self.disks[number].write_own(snapshot)
            self.snapshots.append(snapshot)
            self.step(number, messages.SnapshotWritten(records.index_of(snapshot)))

    def sync(self, number: int, orders: int = 1 << 30) -> None:
        """Let a server's disk do its next orders, and tell the server of each."""
        disk = self.disks[number]
        while disk.pending and orders:
            orders -= 1
            done = disk.sync(disk.pending[0][0])
            if done is not None:
                self.step(number, done)

    # --- time ---

    def time_out(self, number: int) -> None:
        """Let a server miss its primary, or give up the election under way and try anew."""
        self.clock[number] = max(self.clock[number], self.raft(number)._election_at)
        self.step(number)

    def doubt(self, number: int) -> None:
        """Let as much time pass for a server as it takes to give its vote away; its own timer does not ring."""
        raft = self.raft(number)
        self.clock[number] = max(self.clock[number], raft._heard + self.settings.election_low)

    def beat(self, number: int) -> None:
        """Let the primary's next heartbeat come."""
        if not self.leads(number):
            raise Astray(f"{number} does not lead")
        self.clock[number] = max(self.clock[number], self.raft(number).reign._beat_at)
        self.step(number)

    def wait(self, number: int, seconds: float) -> None:
        """Let time pass for one server; it does what is due."""
        end = self.clock[number] + seconds
        while (deadline := self.machines[number].deadline) is not None and deadline <= end:
            self.clock[number] = max(self.clock[number], deadline)
            self.step(number)
        self.clock[number] = end

    # --- messages ---

    def under_way(self, source: int = 0, to: int = 0, kind: Any = object) -> list[Flight]:
        """Return messages that are under way, oldest first; 0: from or to anybody."""
        return [
            one
            for one in self.flight
            if source in (0, one.source) and to in (0, one.to) and isinstance(one.message, kind)
        ]

    def take(self, source: int, to: int, kind: Any = object, at: int = 0) -> Flight:
        """Take one message out of the flight, the oldest of its kind (`at` -1: the newest)."""
        found = self.under_way(source, to, kind)
        if not found:
            raise Astray(f"no {kind.__name__} is under way from {source} to {to}")
        self.flight.remove(found[at])
        return found[at]

    def hand(self, flight: Flight) -> None:
        """Let a message arrive, whether or not it is still under way."""
        if flight.to in self.machines:
            message = msgspec.msgpack.decode(msgspec.msgpack.encode(flight.message), type=peers.PeerMessage)
            self.step(flight.to, Received(Address(SERVICE, flight.source), message))

    def deliver(self, source: int, to: int, kind: Any = object, at: int = 0) -> Flight:
        """Take a message out of the flight and let it arrive."""
        one = self.take(source, to, kind, at)
        self.hand(one)
        return one

    def drop(self, source: int = 0, to: int = 0, kind: Any = object) -> None:
        """Lose all such messages."""
        gone = self.under_way(source, to, kind)
        self.flight = [one for one in self.flight if one not in gone]

    def talk(self, *servers: int) -> None:
        """Deliver all between these servers, in order, until nothing more is said."""
        among = servers or tuple(self.all)
        for _ in range(MOST):
            found = next((one for one in self.flight if one.source in among and one.to in among), None)
            if found is None:
                return
            self.flight.remove(found)
            self.hand(found)
        raise AssertionError(f"INV-32: more than {MOST} messages between {among}, and no end")

    # --- what scripts are made of ---

    def elect(self, number: int, *voters: int) -> int:
        """Let these vote for a server, and nobody else hear of it; return its epoch. One that leads gives up first."""
        if self.leads(number):
            self.wait(number, 2 * self.settings.election_high)
            self.drop(number)
        self.drop(number, 0, peers.PreVoteAsked | peers.VoteAsked)
        for _ in range(6):
            for voter in voters:
                self.doubt(voter)
            self.time_out(number)
            for asked, given in ((peers.PreVoteAsked, peers.PreVoteGiven), (peers.VoteAsked, peers.VoteGiven)):
                for voter in voters:
                    if self.under_way(number, voter, asked):
                        self.deliver(number, voter, asked, -1)
                        self.deliver(voter, number, given, -1)
            self.drop(number, 0, peers.PreVoteAsked | peers.VoteAsked)
            if self.leads(number):
                epoch: int = self.raft(number).promised
                return epoch
        raise Astray(f"{number} is not elected by {voters}: {self.machines[number].state}")

    def elected(self, number: int, *voters: int) -> bool:
        """Try to get a server elected by these."""
        try:
            return bool(self.elect(number, *voters))
        except Astray:
            return False

    def stand(self, number: int, *voters: int) -> None:
        """Let a server stand for election with the promise of these; its questions for votes are under way."""
        for voter in voters:
            self.doubt(voter)
        self.time_out(number)
        for voter in voters:
            self.deliver(number, voter, peers.PreVoteAsked, -1)
            self.deliver(voter, number, peers.PreVoteGiven, -1)
        self.drop(number, 0, peers.PreVoteAsked)
        if self.machines[number].state is not State.CANDIDATE:
            raise Astray(f"{number} does not stand: {self.machines[number].state}")

    def open(self, number: int = 1) -> None:
        """Let a server lead, with writes open and everybody level."""
        self.elect(number, *(other for other in self.voters if other != number))
        self.talk()
        self.beat(number)
        self.talk()
        if self.machines[number].state is not State.WRITES:
            raise Astray(f"{number} opened no writes: {self.machines[number].state}")

    def ask(self, number: int, question: Any) -> int:
        """Ask a server; return the number of the request, under which `answers` will have the answer."""
        request = len(self.questions) + 1
        self.questions[request] = question
        self.step(number, Asked(request, question))
        if self.machines[number].deadline == 0.0:  # the turn of the loop is over: what it gathered is sent
            self.step(number)
        return request

    def put(self, number: int, value: Any, id: str = "", key: str = "/app/a", since: int = 0) -> int:
        """Ask a server to write; return the number of the request."""
        id = id or f"r{len(self.questions) + 1}"
        put = messages.Transact(id, (), (messages.Operation("put", key, value),), since=since)
        return self.ask(number, put)

    def read(self, number: int, key: str = "/app/a") -> int:
        """Ask a server for an exact read; return the number of the request."""
        return self.ask(number, messages.Get(key))

    def define(self, number: int, server: int, change: Any = "define") -> int:
        """Ask a server to change the servers by one."""
        id = f"c{len(self.questions) + 1}"
        return self.ask(number, messages.ChangeServers(id, change, server))

    def refused(self, request: int) -> CoveyError:
        """Return the error that a request was answered with."""
        answer = self.answers.get(request)
        assert isinstance(answer, CoveyError), f"not refused: {self.questions[request]} got {answer}"
        return answer

    def result(self, request: int) -> Any:
        """Return what a request was answered with, no error."""
        answer = self.answers.get(request)
        assert answer is not None, f"not answered: {self.questions[request]}"
        assert not isinstance(answer, CoveyError), f"refused: {self.questions[request]} got {answer}"
        return answer

    def in_doubt(self, request: int) -> bool:
        """Was this write answered by "ask the next primary, it may be done"?"""
        answer = self.answers.get(request)
        return isinstance(answer, NotPrimary) and bool(answer.details.get("in_doubt"))

    # --- the end ---

    def run(self, seconds: float, step: float = 0.02, done: Any = None) -> float:
        """Let time pass for all, in which messages arrive and timers ring; return how much, when `done()` ended it."""
        self.dice.fair = True
        for turn in range(int(seconds / step)):
            if done is not None and done():
                return turn * step
            for number in list(self.machines):
                self.clock[number] += step
                deadline = self.machines[number].deadline
                if deadline is not None and deadline <= self.clock[number]:
                    self.step(number)
            flights, self.flight = self.flight, []
            for one in flights:
                self.hand(one)
        return seconds

    def peace(self, seconds: float = 30.0) -> float:
        """INV-31: let all live, hear and sync; return after how many seconds writes are open and all is level."""
        self.cuts, self.slow = set(), set()
        for number in self.all:
            if number not in self.machines:
                self.start(number)
            self.sync(number)
        took = self.run(seconds, done=lambda: not self.unsettled())
        assert not self.unsettled(), f"INV-31: after {seconds:g} s of peace {self.unsettled()}"
        return took

    def unsettled(self) -> str:
        """Return why not all is well yet; empty when it is."""
        leading = [number for number in self.all if self.machines[number].state is State.WRITES]
        if not leading:
            return f"nobody takes writes: {[self.machines[number].state.value for number in self.all]}"
        log = max((self.raft(number) for number in leading), key=lambda raft: raft.promised).log
        if log.servers_index > log.committed or log.servers.learners:
            return "a change of the servers is under way"
        for number in membership.all_of(log.servers):
            mine = self.raft(number).log
            if self.machines[number].state is State.DAMAGED or (mine.last, mine.committed) != (log.last, log.last):
                return f"{number} is {self.machines[number].state.value}, at {mine.committed} of {mine.last}"
        return ""

    def value(self, key: str = "/app/a") -> Any:
        """Return the committed value of a key."""
        return self.truth.at(key)[0]

    def kinds(self, number: int) -> list[str]:
        """Return what the entries in a server's log are, for a failure's text."""
        log = self.raft(number).log
        found = (log.entry(index) for index in range(log.base.index + 1, log.last + 1))
        return [f"{one.epoch}.{one.index} {type(one.body).__name__}" for one in found]

    def entry(self, number: int, index: int) -> entries.Entry | None:
        """Return an entry of a server's log in memory, None: it is not there."""
        log = self.raft(number).log
        return log.entry(index) if log.base.index < index <= log.last else None
