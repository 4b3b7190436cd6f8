"""The core log among several servers: who leads, and how a server that does not lead follows. Raft, pure.

Knows no socket, disk, clock or store: time arrives as `now`; what is said and ordered is put into `effects`; a snapshot
is taken and installed by the `Keeper`. What the primary does is in `reign.py`. Sources: Ongaro, Consensus: Bridging
Theory and Practice (2014): 3.4 elections, 3.5 replication, 3.10 hand-over, 4.1 one server at a time, 9.6 PreVote.

What differs from the thesis: an `Append` is checked by the digest of the entry before, which stands for all entries
before it; a server that does not fit answers with its committed index, which always does, so there is no search; and
a server whose copy was damaged counts for nothing until it was refilled with a state that holds a note of its damage
(`Noted`), committed without it. Odd: with one server all of this runs too, and takes no time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ...bus.machine import Address, Effect, ImpossibleTransition, Notify, Send
from . import entries, membership, peers, records
from .journal import Journal
from .log import Place
from .messages import SERVICE, Phase
from .peers import PeerMessage
from .recovery import Recovered
from .reign import Reign
from .settings import Settings
from .states import FOLLOWING, LEADING, TABLE, State


class Chance(Protocol):
    """The part of `random.Random` that is used."""

    def uniform(self, a: float, b: float) -> float:
        """Return a number between two."""

    def getrandbits(self, k: int) -> int:
        """Return a number of `k` bits."""


class Keeper(Protocol):
    """Keeps the state that the log leads to."""

    def snapshot(self) -> bytes:
        """Return the record of a snapshot of all that is committed."""

    def install(self, record: bytes) -> Place | None:
        """Take a snapshot for the state; return its place, or None when it is not sound."""

    def log_time(self) -> int:
        """Return the log time of the newest entry, applied or not."""


class Incoming:
    """A snapshot that arrives in parts."""

    def __init__(self, source: int, index: int, size: int) -> None:
        self.source, self.index, self.size = source, index, size
        self.data = bytearray()


class Raft:
    """One server's part in the core log."""

    def __init__(self, node: int, recovered: Recovered, settings: Settings, random: Chance) -> None:
        self.node = node
        self.gen = recovered.store.gen
        self.log = log = recovered.log
        self.promised = recovered.promised
        self.voted_for = recovered.voted_for
        self.settings = settings
        self.random = random
        self.state = State.FOLLOWER
        self.life = random.getrandbits(53)
        self.leader = 0
        self.told: tuple[Phase, bool] = ("stale", False)  # what the primary says of itself
        self.reign: Reign | None = None
        self.keeper: Keeper | None = None
        self.effects: list[Effect] = []
        self.cause = ""
        self.no_room = ""  # why the disk took nothing, until it takes something again
        self.diverged = ""  # why this copy is damaged, when that was found while running
        self.journal = Journal(log.last)
        self._again: float | None = None  # when a full disk is tried again
        self._hard_owed = False  # the promise in memory is newer than the one ordered
        self._unsaved: bytes | None = None  # a snapshot that was installed and is not durable yet
        self._hinted = log.committed
        self._heard = float("-inf")
        self._election_at = 0.0
        self._votes: set[int] = set()
        self._stood = 0  # number of the order that makes the own vote durable
        self._incoming: Incoming | None = None
        self.owes = False  # entries were proposed and not sent; that is done as soon as the loop's turn is over
        self._story: Callable[[], str] = str

    # --- the face ---

    @property
    def leads(self) -> bool:
        """This server is the primary."""
        return self.state in LEADING

    @property
    def alone(self) -> bool:
        """There is no other voter."""
        return self.log.servers.voters == (self.node,)

    @property
    def sole(self) -> bool:
        """This server leads and there is no other, not even a learner: what its own disk refused is nowhere."""
        return self.leads and membership.all_of(self.log.servers) == (self.node,)

    @property
    def deadline(self) -> float | None:
        """When `tick` must be called next."""
        if self.owes:
            return 0.0
        due: float | None = None
        if self.reign:
            due = self.reign.deadline
        elif self.state is not State.DAMAGED or self.leader:
            due = self._election_at
        if self._again is not None and (due is None or self._again < due):
            due = self._again
        return due

    def begin(self, now: float) -> None:
        """Start: a lone server elects itself at once, another looks soon whether there is a primary."""
        soon = 0.0 if self.alone else self.random.uniform(self.settings.down_low, 3 * self.settings.down_high)
        self._election_at = now + soon
        self.tick(now)

    def tick(self, now: float) -> None:
        """Do what is due."""
        if self._again is not None and now >= self._again and not self.sole:
            self._try_disk_again()
        if self.reign:
            self.reign.tick(now)
        elif now >= self._election_at and (self.state in FOLLOWING or self.leader):
            self._missed(now)

    def turn(self, event: str) -> None:
        """Go to the state that the table gives."""
        target = TABLE.get((self.state, event))
        if target is None:
            raise self.impossible(event)
        self.state = target
        if target not in LEADING:
            self.reign = None

    def impossible(self, what: str) -> ImpossibleTransition:
        """Return the error for what the tables do not allow, with the story."""
        return ImpossibleTransition(f"{what} in state {self.state.value}; the story:\n  {self._story()}")

    def tells(self, story: Callable[[], str], keeper: Keeper) -> None:
        """Be told who keeps the state, and how to tell the story of an error."""
        self._story, self.keeper = story, keeper

    # --- the disk ---

    def order(self, data: Sequence[bytes], held: Sequence[Effect] = ()) -> None:
        """Order records from the disk; `held` is said when they are durable. While there is no room: nothing."""
        if self.no_room:
            return
        data = list(data)
        if self._hard_owed:
            data.insert(0, records.encode_hard_state(self.promised, self.voted_for))
            self._hard_owed = False
        if self.log.committed > self._hinted:
            self._hinted = self.log.committed
            data.append(records.encode_committed(self._hinted))
        assert data, "an order of nothing is never done"
        self.effects.append(self.journal.order(data, self.log.last, self.promised, held, self.cause))

    def persisted(self, now: float, number: int) -> None:
        """Say what waited for this, count the own vote, commit what is durable on enough servers."""
        try:
            self.effects.extend(self.journal.persisted(number, self.promised))
        except ValueError as error:
            raise self.impossible(str(error)) from error
        if self._unsaved is not None and not len(self.journal):
            self._unsaved = None
        if self.state is State.DAMAGED and self.journal.durable >= self.log.base.index > 0 and self._unsaved is None:
            self.turn("refilled")
            self._election_at = now + self._timeout()
        if self.state is State.CANDIDATE and number >= self._stood:
            self._vote(now, self.node)
        if self.reign:
            self.reign.advance(now)

    def refused(self, now: float, reason: str) -> None:
        """The disk is full: nothing that is under way was written. Several servers: go on, and try again later."""
        self.no_room = reason
        self.journal.refused()
        self._hard_owed = True
        self._again = now + self.settings.room_seconds
        self._hinted = 0
        if not self.leads:
            self.turn("no room")
            self._election_at = self._again + (0.0 if self.alone else self._timeout())
        elif not self.alone and self.reign:
            self.reign.hand_over(now, 0)

    def _try_disk_again(self) -> None:
        """Order again all that the disk does not have."""
        self._again, self.no_room = None, ""
        data: list[bytes] = []
        if self._unsaved is not None:
            data.append(self._unsaved)
            start = self.log.base.index
        else:
            start = max(self.journal.durable, self.log.base.index)
            place = self.log.place(start)
            assert place is not None
            if self.state is not State.DAMAGED:
                data.append(records.encode_cut(place.index, place.epoch, place.chain))
        data.extend(self.log.data(start + 1, 1 << 62))
        self.order(data)

    def discard(self, now: float) -> None:
        """A lone server: take back all that is not durable; no other has it.

        What is durable stays, committed or not: it may have been acknowledged in an earlier life.
        """
        self._again, self.no_room = None, ""
        self.journal.refused()
        self.log.cut(max(self.log.committed, self.journal.durable))
        if self.reign:
            self.reign.servers_changed(now)

    def say(self, to: int, message: PeerMessage) -> None:
        """Send a message to another server."""
        self.effects.append(Send(Address(SERVICE, to), message, self.cause))

    # --- elections ---

    def _timeout(self) -> float:
        return self.random.uniform(self.settings.election_low, self.settings.election_high)

    def _others(self) -> list[int]:
        return [number for number in self.log.servers.voters if number != self.node]

    def _missed(self, now: float) -> None:
        """The primary was not heard for too long."""
        if self.leader:
            self._forget_leader()
        self._election_at = now + self.random.uniform(self.settings.canvass_low, self.settings.canvass_high)
        servers = self.log.servers
        if self.state is State.DAMAGED or self.node not in servers.voters or self.no_room:
            return
        self.turn("missed the primary")
        if self.alone:
            self._stand(now, False)
            return
        self._votes = {self.node}
        end = self.log.end
        for number in self._others():
            self.say(number, peers.PreVoteAsked(self.gen, self.promised + 1, end.epoch, end.index))

    def _forget_leader(self) -> None:
        self.leader, self.told = 0, ("stale", False)

    def _stand(self, now: float, handed: bool) -> None:
        self.turn("stands")
        self.promised, self.voted_for, self._votes = self.promised + 1, self.node, set()
        end = self.log.end
        asked = peers.VoteAsked(self.gen, self.promised, end.epoch, end.index, handed)
        self._hard_owed = True
        self.order([], [Send(Address(SERVICE, number), asked, self.cause) for number in self._others()])
        self._stood = self.journal.number
        self._election_at = now + self.random.uniform(self.settings.canvass_low, self.settings.canvass_high)

    def _vote(self, now: float, voter: int) -> None:
        """Count a vote, or the promise of one; go on when a majority is there."""
        self._votes.add(voter)
        servers = self.log.servers
        if len(self._votes & set(servers.voters)) < membership.majority(servers):
            return
        if self.state is State.CANVASSING:
            self._stand(now, False)
        elif self.node in self._votes:
            self.turn("elected")
            self.leader = self.node
            self._incoming = None
            self.reign = Reign(self, now)

    def _newer(self, message: peers.PreVoteAsked | peers.VoteAsked) -> bool:
        """Is the asker's log at least as new as ours (thesis 3.6.1)?"""
        end = self.log.end
        return (message.last_epoch, message.last_index) >= (end.epoch, end.index)

    def _content(self, now: float) -> bool:
        """There is a primary, as far as this server sees: no reason to elect another (thesis 4.2.3)."""
        return self.leads or (self.leader != 0 and now - self._heard < self.settings.election_low)

    def _pre_vote_asked(self, now: float, source: int, message: peers.PreVoteAsked) -> None:
        granted = message.epoch > self.promised and self._newer(message) and not self._content(now)
        epoch = message.epoch if granted else self.promised
        self.say(source, peers.PreVoteGiven(self.gen, epoch, granted))

    def _pre_vote_given(self, now: float, source: int, message: peers.PreVoteGiven) -> None:
        if message.granted:
            if self.state is State.CANVASSING and message.epoch == self.promised + 1:
                self._vote(now, source)
        elif message.epoch > self.promised:
            self.adopt(now, message.epoch)

    def _vote_asked(self, now: float, source: int, message: peers.VoteAsked) -> None:
        if message.epoch > self.promised:
            if self._content(now) and not message.handed:
                return
            self.adopt(now, message.epoch, write=False)
        granted = message.epoch == self.promised and self.voted_for in (0, source) and self._newer(message)
        answer = Send(Address(SERVICE, source), peers.VoteGiven(self.gen, self.promised, granted), self.cause)
        if not granted:
            if self._hard_owed and not self.no_room:
                self.order([])
            self.effects.append(answer)
        elif self.voted_for == 0 or self._hard_owed:
            self.voted_for = source
            self._hard_owed = True
            self._election_at = now + self._timeout()
            self.order([], [answer])
        elif not self.journal.hold(answer, self.promised):
            self.effects.append(answer)

    def _vote_given(self, now: float, source: int, message: peers.VoteGiven) -> None:
        if message.epoch > self.promised:
            self.adopt(now, message.epoch)
        elif message.granted and self.state is State.CANDIDATE and message.epoch == self.promised:
            self._vote(now, source)

    def _take_over(self, now: float, source: int, message: peers.TakeOver) -> None:
        ready = self.state is State.FOLLOWER and self.node in self.log.servers.voters and not self.no_room
        if message.epoch == self.promised and source == self.leader and ready:
            self._forget_leader()
            self._stand(now, True)

    def adopt(self, now: float, epoch: int, write: bool = True) -> None:
        """Promise a newer epoch; whoever leads or stands gives it up."""
        self.promised, self.voted_for = epoch, 0
        self._hard_owed = True
        if self.leads or self.leader:
            self._forget_leader()
        if self.state is not State.FOLLOWER:
            self.turn("follows")
            self._election_at = now + self._timeout()
        if write and self.state is not State.DAMAGED:
            self.order([])

    def step_down(self, now: float) -> None:
        """Lead no more: a majority does not answer, or this server was removed."""
        self.turn("follows")
        self._forget_leader()
        self._election_at = now  # whether there is another majority is found out by asking

    def peer_down(self, now: float, node: int) -> None:
        """The link to a node closed: its process is dead, or the way to it is."""
        if self.reign:
            self.reign.peer_down(now, node)
        elif node == self.leader:
            self._heard = float("-inf")
            soon = self.random.uniform(self.settings.down_low, self.settings.down_high)
            self._election_at = min(self._election_at, now + soon)

    # --- following ---

    def receive(self, now: float, source: int, message: Any) -> None:
        """Take a message of another server."""
        if self.state is not State.DAMAGED:
            if message.gen < self.gen:  # it must learn that it is superseded: any word of a newer generation says so
                self._is_past(source)
                return
            if message.gen > self.gen:
                self.damage(now, f"the cluster goes on in generation {message.gen}, this copy is of {self.gen}")
        if self.state is State.DAMAGED and not isinstance(message, peers.Append | peers.Part):
            return  # a copy that is not sound neither votes nor counts
        self._handlers[type(message)](self, now, source, message)

    def damage(self, now: float, why: str) -> None:
        """This copy is not to be trusted any more: it counts for nothing until it is filled anew."""
        self.diverged = why
        self.turn("damaged")
        self._forget_leader()
        self.journal.refused()
        self.effects.append(Notify("damaged", why))
        self.life = self.random.getrandbits(53)
        self.promised, self.voted_for, self.gen = 0, 0, 0
        self._incoming, self._hard_owed, self._hinted = None, False, 0

    def _follow(self, now: float, source: int, epoch: int) -> None:
        if epoch > self.promised:
            self.adopt(now, epoch)
        if self.leads:
            raise self.impossible(f"node {source} leads in epoch {epoch} too")
        if self.state in FOLLOWING and self.state is not State.FOLLOWER:
            self.turn("follows")
        self.leader, self._heard = source, now
        self._election_at = now + self._timeout()

    def _append(self, now: float, source: int, message: peers.Append) -> None:
        if message.epoch < self.promised:
            self._is_past(source)
            return
        self._follow(now, source, message.epoch)
        self.told = (message.phase, message.writable)
        if self.state is State.DAMAGED:
            self.say(source, peers.Refill(message.gen, message.epoch, self.life, message.round))
            return
        try:
            self._take(now, source, message)
        except records.BadRecord:
            self._refuse(source, message.round)  # changed on its way, or not the next one: it is sent again

    def _take(self, now: float, source: int, message: peers.Append) -> None:
        """Put the entries behind the log if they fit, cutting away what does not; answer when they are durable."""
        log, index, chain, data = self.log, message.previous, message.chain, message.records
        if index < log.base.index:  # what is in our snapshot is committed, so it fits
            data = data[log.base.index - index :]
            index, chain = log.base.index, log.base.chain
            if not data:
                self._accept(source, message.round, min(index, message.previous + len(message.records)))
                return
        place = log.place(index)
        if place is None or place.chain != chain:
            self._refuse(source, message.round, index)
            return
        if self.no_room:
            data = ()
        fresh: list[bytes] = []
        for one in data:
            record = records.decode(one, 0, chain)
            if record.index != index + 1:
                raise records.BadRecord(0, f"entry {record.index} lies where {index + 1} belongs")
            index, chain = record.index, record.digest
            known = log.place(index)
            if known is not None:
                if known.chain == chain:
                    continue
                if index <= log.committed:
                    self.damage(now, f"its entry {index} is not the one that the primary node {source} committed")
                    return
                fresh.append(self._cut(index - 1))
            log.append(one, record)
            fresh.append(one)
        if min(message.committed, index) > log.committed:
            log.commit(min(message.committed, index))
        if fresh:
            answer = self._accepted(message.round, index)
            self.order(fresh, [Send(Address(SERVICE, source), answer, self.cause)])
        else:
            self._accept(source, message.round, index)

    def _cut(self, index: int) -> bytes:
        """Give up the log behind `index`; return the record that says so."""
        self.log.cut(index)
        self.journal.cut(index)
        end = self.log.end
        return records.encode_cut(end.index, end.epoch, end.chain)

    def _accepted(self, round: int, match: int) -> peers.Appended:
        return peers.Appended(self.gen, self.promised, self.life, round, True, match, b"", self.log.committed)

    def _accept(self, source: int, round: int, match: int) -> None:
        self.say(source, self._accepted(round, min(match, self.journal.durable)))

    def _is_past(self, source: int) -> None:
        """Tell who led once which epoch it is. No `Appended`: it may lead again by now, and would take the answer to a
        round of its old reign for one to the new; and a copy that is not sound would seem to be."""
        self.say(source, peers.PreVoteGiven(self.gen, self.promised, False))

    def _refuse(self, source: int, round: int, wanted: int = 0) -> None:
        """Tell a primary that its message does not fit, and what would."""
        log = self.log
        place = log.end if wanted > log.last else log.place(log.committed)
        assert place is not None
        self.say(
            source,
            peers.Appended(
                self.gen, self.promised, self.life, round, False, place.index, place.chain, self.log.committed
            ),
        )

    # --- being filled ---

    def _part(self, now: float, source: int, message: peers.Part) -> None:
        if message.epoch < self.promised:
            self._is_past(source)
            return
        self._follow(now, source, message.epoch)
        if message.life != self.life:
            return
        if self.state is not State.DAMAGED and message.index <= self.log.committed:
            self._accept(source, message.round, message.index)
            return
        if self._unsaved is not None:
            return  # the disk is at it
        coming = self._incoming
        if coming is None or (coming.source, coming.index, coming.size) != (source, message.index, message.size):
            coming = self._incoming = Incoming(source, message.index, message.size)
        if message.offset == len(coming.data):
            coming.data += message.data
        if len(coming.data) == coming.size:
            self._incoming = None
            if self._install(message, bytes(coming.data)):
                held = Send(Address(SERVICE, source), self._accepted(message.round, message.index), self.cause)
                vote = records.encode_hard_state(self.promised, self.voted_for)
                assert self._unsaved is not None
                self.order([vote, self._unsaved], [held])
                return
            coming = Incoming(source, message.index, message.size)
        taken = peers.PartTaken(message.gen, message.epoch, self.life, message.round, message.index, len(coming.data))
        self.say(source, taken)

    def _install(self, message: peers.Part, record: bytes) -> bool:
        assert self.keeper is not None
        if (place := self.keeper.install(record)) is None:
            return False
        self.gen = message.gen
        if self.state is State.DAMAGED:
            # it may have voted in this epoch and lost the memory of it: for this primary it may vote, for no other
            self.voted_for = self.leader
        self._hard_owed = False
        self._unsaved = record
        self.journal = self.journal.anew()
        self._hinted = place.index
        return True

    # --- answers to a primary ---

    def _appended(self, now: float, source: int, message: peers.Appended) -> None:
        if message.epoch > self.promised:
            self.adopt(now, message.epoch)
        elif self.reign:
            self.reign.appended(now, source, message)

    def _refill(self, now: float, source: int, message: peers.Refill) -> None:
        if self.reign:
            self.reign.refill(now, source, message)

    def _part_taken(self, now: float, source: int, message: peers.PartTaken) -> None:
        if self.reign:
            self.reign.part_taken(now, source, message)

    _handlers: dict[type[Any], Callable[[Raft, float, int, Any], None]] = {
        peers.PreVoteAsked: _pre_vote_asked,
        peers.PreVoteGiven: _pre_vote_given,
        peers.VoteAsked: _vote_asked,
        peers.VoteGiven: _vote_given,
        peers.Append: _append,
        peers.Part: _part,
        peers.TakeOver: _take_over,
        peers.Appended: _appended,
        peers.Refill: _refill,
        peers.PartTaken: _part_taken,
    }

    # --- leading ---

    def propose(self, now: float, body: entries.Body) -> entries.Entry:
        """Put an entry into the log, the disk and the other servers' hands."""
        assert self.reign is not None
        end = self.log.end
        entry = entries.Entry(self.promised, end.index + 1, self.reign.time(now), body)
        data = entries.encode(entry, end.chain)
        self.log.append(data, records.unchecked(data))
        if isinstance(body, entries.Configured):
            self.reign.servers_changed(now)
        self.order([data])
        self.owes = bool(self.reign.others)
        return entry

    def pay(self, now: float) -> None:
        """Send the others what gathered in one turn of the loop: its entries together, one round for all its reads."""
        self.owes = False
        if self.reign and self.reign.wants_round:
            self.reign.wants_round = False
            self.reign.broadcast(now)
        elif self.reign:
            self.reign.pump_all(now)

    def check(self) -> None:
        """Raise AssertionError: 7 and 8 of the machine's invariants, as far as they concern the core log."""
        self.log.check()
        assert self.journal.durable <= self.log.last, "7: more is durable than there is"
        assert (self.reign is not None) == self.leads, "1: a reign without a primary, or a primary without a reign"
        if self.leads:
            assert self.leader == self.node and self.voted_for == self.node, "1: a primary that did not vote for itself"
