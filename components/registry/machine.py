"""The registry server's protocol machine: one copy of the core log, the state it leads to, and who may read and write.

Knows no socket, disk, clock or thread: time arrives as `now`, bytes leave as `Persist` and are safe once `Persisted`.
Who leads and what is committed is decided by `raft.py`; this file applies what is committed to the store, in order,
and answers: what was written when its entry is applied, what is read exactly when a majority has confirmed that this
server still leads. A server that does not lead answers what may be old, and names the primary for everything else.
States and what leads from one to another are tables in `states.py`.

Invariants (`check_invariants`; what concerns several servers is checked in the simulator):
  5. the store has the hash of its content, and has applied exactly the entries that are committed
  6. epoch, committed index and revision never go back
  7. nothing was answered that is not committed
 12. while not exact, only reads marked stale are answered (`_exactly`)
 13. a user's entry stands only behind the entry that opened writes in this epoch
 14. a request id is under way at most once, and not when its answer is known
 15. history and watchers leave no gap
 32. every table is bounded
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ...bus.machine import Asked, Effect, Message, Notify, Persisted, Received, Reply, Send
from ...errors import (
    CoveyError,
    DiskFull,
    NoQuorum,
    NotPrimary,
    Overloaded,
    ReadOnly,
    Refused,
    StaleEpoch,
    UsageError,
)
from . import entries, membership, messages, proposals, reading, records, status
from .exact import ExactReads
from .hand_overs import HandOvers
from .herald import Herald
from .keys import check_prefix
from .loaded import Damage
from .log import Log, Place
from .messages import SERVICE, AppendSystem, Leading, Phase
from .peers import PeerMessage
from .proposed import Proposal, Proposed, Waiter, result_of
from .raft import Chance, Raft
from .recovery import Recovered, encode_snapshot, restore
from .reign import Reign
from .settings import Settings
from .snapshots import Snapshots
from .states import EXACT, PHASE, RETRIED, State
from .store import Answer
from .story import Story
from .watchers import Waiting, Watchers


class RegistryMachine:
    """One registry server. Build it on what was recovered, then step it."""

    def __init__(self, node: int, recovered: Recovered, settings: Settings, random: Chance) -> None:
        self.node = node
        self.settings = settings
        self.store = recovered.store
        self.damaged, self.repaired = recovered.damaged, recovered.repaired
        self.raft = Raft(node, recovered, settings, random)
        if self.damaged:
            self.raft.turn("damaged")
        self._started = False
        self._group_formed = False
        self._opened = 0  # index of the entry that opened writes in this epoch
        self._proposed = Proposed()
        self._reads = ExactReads()
        self._hand_overs = HandOvers(settings.hand_over)
        self._snapshots = Snapshots(
            settings.snapshot_bytes, recovered.log_bytes, recovered.snapshot_bytes, recovered.log.base.index
        )
        self._no_room = ""  # a lone server: why the disk took nothing, until it takes something again
        self._again: float | None = None  # when it is tried again
        self._watchers = Watchers(settings.watches)
        self._herald = Herald(settings.askers, settings.asker_seconds)
        self._now = 0.0
        self._stands: tuple[Any, ...] = ()  # all that `leading` is made of, when it was said last
        self._story = Story()
        self._highest = (0, 0, 0)
        self._answered = 0

    # --- the machine's face ---

    @property
    def state(self) -> State:
        """Where this server stands."""
        return self.raft.state

    @property
    def epoch(self) -> int:
        """The newest epoch that this server promised to."""
        return self.raft.promised

    @property
    def voters(self) -> tuple[int, ...]:
        """The servers that count for majorities."""
        return self.raft.log.servers.voters

    @property
    def phase(self) -> Phase:
        """How far the registry is, as far as this server knows: what the primary says, if another one leads."""
        raft = self.raft
        return PHASE[self.state] if raft.leads or not raft.leader or self.state is State.DAMAGED else raft.told[0]

    @property
    def writable(self) -> bool:
        """Users may write, here or at the primary."""
        raft = self.raft
        return self.state is State.WRITES if raft.leads or not raft.leader else raft.told[1]

    @property
    def leading(self) -> Leading:
        """What is said of the primary to others; nobody, until its phase 1 is over."""
        raft = self.raft
        committed = raft.log.committed
        unsettled = self.state not in EXACT if raft.leads else raft.told[0] == "stale"
        if not raft.leader or unsettled:
            return Leading(0, 0, self.phase, False, committed)
        return Leading(raft.promised, raft.leader, self.phase, self.writable, committed)

    @property
    def closed_because(self) -> str:
        """Why users may not write; empty when they may."""
        if self.writable:
            return ""
        return status.why_closed(self.raft, self.damaged, self._no_room)

    @property
    def deadline(self) -> float | None:
        """At once for the first step, then whatever is due next."""
        if not self._started or self.raft.owes:
            return 0.0
        due = self.raft.deadline
        for at in (self._watchers.deadline, self._again, self._hand_overs.deadline):
            if at is not None and (due is None or at < due):
                due = at
        return due

    def step(self, now: float, input: Any = None) -> list[Effect]:
        """Take one input; return what must be done. What need not be looked at after each input is not: of a thousand
        inputs nearly all are questions and answers of a settled reign."""
        self._now = now
        raft = self.raft
        raft.cause = getattr(input, "cause", "")
        reign = raft.reign
        self._story.note(now, raft.state, input)
        if not self._started:
            self._started = True
            raft.tells(self._story.__str__, self)
            raft.begin(now)
        if input is not None:
            handler = self._handlers.get(type(input))
            if handler is None:
                raise raft.impossible(f"input {input!r}")
            handler(self, input)
        if raft.owes and not isinstance(input, Asked):
            raft.pay(now)
        raft.tick(now)
        if self._again is not None and now >= self._again:
            self._try_again()
        self._settle(reign)
        if len(self._watchers):
            for waiting in self._watchers.due(now):
                self._answer_watcher(waiting, self.store.revision + 1)
        effects, raft.effects = raft.effects, []
        return effects

    # --- what follows from a change of the core log ---

    def _settle(self, before: Reign | None) -> None:
        """After each input: end and begin reigns, apply what is committed, answer reads, say what changed."""
        raft = self.raft
        if raft.reign is not before:
            if before is not None:
                self._deposed()
            if raft.reign is not None:
                self._opened = 0
                self._propose(entries.Reigned(self.node), [])
        self._apply()
        self._answer_reads()
        if len(self._hand_overs):
            for waiter, result in self._hand_overs.answers(self._now, raft):
                self._reply(waiter, result)
        if self._snapshots.due and self.state is not State.DAMAGED:
            record = self.snapshot()
            self._snapshots.taken(self.store.index, len(record))
            raft.effects.append(Notify("snapshot", record))
        if self._stands != (raft.state, raft.promised, raft.leader, raft.told):
            if raft.leads:
                raft.told = (PHASE[raft.state], raft.state is State.WRITES)
            self._stands = (raft.state, raft.promised, raft.leader, raft.told)
            raft.effects.extend(self._herald.say(self.leading, self._now))

    def _apply(self) -> None:
        """Apply what is committed, answer those who wait for it, wake watchers."""
        raft, store = self.raft, self.store
        while store.index < raft.log.committed:
            proposal = self._proposed.take(store.index + 1)
            entry = proposal.entry if proposal else raft.log.entry(store.index + 1)
            revision = store.revision
            answer = store.apply(entry)
            self._snapshots.applied(raft.log.size(entry.index))
            for waiter in proposal.waiters if proposal else ():
                self._answer(waiter, entry.body, answer or Answer(entry.index, entry.epoch, store.revision, True))
            if store.revision > revision:
                self._wake()
            if raft.leads and entry.epoch == raft.promised:
                self._reigns(entry)

    def _reigns(self, entry: entries.Entry) -> None:
        """An entry of this reign is committed: it may open what was closed."""
        if isinstance(entry.body, entries.Reigned):
            self.raft.turn("reign settled")
            self._no_room = ""
            if self._group_formed:
                self._group(messages.GroupFormed())
        elif isinstance(entry.body, entries.WritesOpened):
            self._opened = entry.index
            self.raft.turn("writes opened")
            self._no_room = ""

    def _deposed(self) -> None:
        """This server leads no more: whoever waits for it must ask the next primary."""
        self._opened, self._again = 0, None
        for proposal in self._proposed.clear():
            for waiter in proposal.waiters:
                if waiter.request is not None:
                    self._reply(waiter, self._not_primary(in_doubt=True))
        for waiter in self._reads.clear():
            if waiter.request is not None:
                self._reply(waiter, self._not_primary())
        for waiting in self._watchers.clear():
            self.raft.effects.append(Reply(waiting.request, self._not_primary(), waiting.cause))

    def _not_primary(self, in_doubt: bool = False) -> NotPrimary:
        leader = 0 if self.raft.leads else self.raft.leader
        who = f"node {leader} is" if leader else "nobody is known to be"
        return NotPrimary(
            f"node {self.node} is not the primary registry server, {who}", primary=leader, in_doubt=in_doubt
        )

    def _group(self, input: messages.GroupFormed) -> None:
        self._group_formed = True
        was = self.state
        self.raft.turn("group formed")
        if was is not State.OPENING and self.state is State.OPENING:
            self._propose(entries.WritesOpened(), [])

    # --- from a proposal to an answer ---

    def _propose(self, body: entries.Body, waiters: list[Waiter]) -> None:
        raft = self.raft
        if waiters:
            raft.cause = waiters[0].cause
        entry = raft.propose(self._now, body)
        self._proposed.add(Proposal(entry, raft.log.size(entry.index), waiters))

    def _persisted(self, input: Persisted) -> None:
        damaged = self.state is State.DAMAGED
        self.raft.persisted(self._now, input.number)
        if damaged and self.state is not State.DAMAGED:
            self.damaged = ()

    def _refused(self, input: messages.NoRoom) -> None:
        """The disk is full. A lone primary: nobody else has what it proposed, so it is taken back and told so; writes
        close until the disk takes an entry again. It is tried at once with the smallest there is, for only a large one
        may have found no room. One of several: its copy counts for nothing meanwhile, the others go on.
        """
        raft = self.raft
        if not raft.sole:
            raft.refused(self._now, input.reason)
            return
        was, self._no_room = self.state, input.reason
        for proposal in self._proposed.clear():
            for waiter in proposal.waiters:
                if waiter.source is not None:
                    self._refuse(waiter, proposal.id, self._disk_full())
                elif waiter.request is not None:
                    self._reply(waiter, self._disk_full())
        raft.discard(self._now)
        raft.turn("no room")
        if self.state in RETRIED:
            self._again = self._now + (self.settings.room_seconds if self.state is was else 0.0)

    def _try_again(self) -> None:
        self._again = None
        if self.state in RETRIED and len(self._proposed):
            self._again = self._now + self.settings.room_seconds  # what is under way will tell
        elif self.state in RETRIED:
            body = entries.Reigned(self.node) if self.state is State.SETTLING else entries.WritesOpened()
            self._propose(body, [])

    def _disk_full(self) -> DiskFull:
        return DiskFull(
            f"the disk of node {self.node} is full, nothing was written: {self._no_room}",
            "free space there; writes open again by themselves",
        )

    def _answer(self, waiter: Waiter, body: entries.Body, answer: Answer) -> None:
        self._answered = max(self._answered, answer.index)
        if waiter.source is not None:
            appended = messages.SystemAppended(getattr(body, "id", ""), answer.index, answer.epoch)
            self.raft.effects.append(Send(waiter.source, appended, waiter.cause))
        else:
            self._reply(waiter, result_of(body, answer))

    def _reply(self, waiter: Waiter, result: Any) -> None:
        assert waiter.request is not None
        self.raft.effects.append(Reply(waiter.request, result, waiter.cause))

    # --- snapshots ---

    def _snapshot_written(self, input: messages.SnapshotWritten) -> None:
        needless = self._snapshots.written(input.index)
        if needless is not None:
            self.raft.log.trim(needless)

    def snapshot(self) -> bytes:
        """Return the record of a snapshot of all that was applied."""
        place = self.raft.log.place(self.store.index)
        assert place is not None
        return encode_snapshot(self.store, place.chain)

    def install(self, record: bytes) -> Place | None:
        """Take a primary's snapshot for the state; None: it is not sound."""
        try:
            snapshot = records.decode_only(record, records.SNAPSHOT)
            store, place = restore(snapshot, self.settings)
        except (records.BadRecord, msgspec.MsgspecError, ValueError):
            return None
        self.store = store
        self.raft.log = Log(place, membership.of_store(store))
        self._snapshots.installed(place.index, len(record))
        self._highest = (0, 0, 0) if self.state is State.DAMAGED else self._highest
        return place

    def log_time(self) -> int:
        """Return the log time of the newest entry."""
        log = self.raft.log
        return log.entry(log.last).time if log.last > self.store.index else self.store.time

    # --- questions ---

    def _asked(self, input: Asked) -> None:
        waiter = Waiter(input.request, None, input.cause)
        try:
            handler = self._questions.get(type(input.question))
            if handler is None:
                raise UsageError(f"the registry cannot answer {type(input.question).__name__}")
            if self.state is State.DAMAGED and not isinstance(input.question, messages.Status):
                raise self._no_copy()
            handler(self, input.question, waiter)
        except CoveyError as error:
            self._reply(waiter, error)

    def _no_copy(self) -> CoveyError:
        """Return why nothing is answered from this copy: the primary has another, if there is one."""
        if self.raft.leader or not self.damaged:
            return self._not_primary()
        return self.damaged[0].error()

    def _must_lead(self) -> None:
        """Raise NotPrimary, or NoQuorum while phase 1 of this server's reign is not over."""
        if self.state not in EXACT:
            if not self.raft.leads:
                raise self._not_primary()
            raise NoQuorum(
                f"nothing current can be read: {self.closed_because}", "what may be old: --consistency stale"
            )

    def _transact(self, question: messages.Transact, waiter: Waiter) -> None:
        body = proposals.transaction(question)
        if not self.raft.leads:
            raise self._not_primary()
        known = self.state in EXACT and self.store.answered(question.id)
        if self.state is State.FULL and not known and not question.system:
            raise self._disk_full()
        if not (self.state is State.WRITES or known or (question.system and self.state in EXACT)):
            raise ReadOnly(f"writes are closed: {self.closed_because}", "reads are possible; try again in a moment")
        self._enter(body, waiter)

    def _append(self, question: AppendSystem, waiter: Waiter) -> None:
        body = proposals.system_entry(question)
        if self.state is State.SETTLING:
            raise ReadOnly(f"system entries cannot be taken: {self.closed_because}")
        self._must_lead()
        known = self._proposed.under_way(question.id) or self.store.answered(question.id)
        if question.epoch != self.epoch and not known:
            raise StaleEpoch(
                f"the entry belongs to epoch {question.epoch}, epoch {self.epoch} reigns now", epoch=self.epoch
            )
        self._enter(body, waiter)

    def _enter(self, body: entries.Transacted | entries.Committed, waiter: Waiter) -> None:
        """Propose an entry, or join the one with the same id that is under way, or say what it came to."""
        under_way = self._proposed.under_way(body.id)
        answer = self.store.answered(body.id)
        if under_way is not None:
            under_way.waiters.append(waiter)
        elif answer is not None:
            self._answer(waiter, body, answer)
        elif len(self._proposed) >= self.settings.proposals or self._proposed.bytes >= self.settings.proposal_bytes:
            raise Overloaded(f"{len(self._proposed)} entries wait to be committed already", "try again in a moment")
        elif self.raft.reign and self.raft.reign.handing:
            raise self._not_primary()  # in a moment another one leads
        else:
            self._propose(body, [waiter])

    def _exactly(self, waiter: Waiter, read: Callable[[], None]) -> None:
        """Read when a majority has confirmed that this server leads; raises NotPrimary, ReadOnly."""
        self._must_lead()
        assert self.raft.reign is not None
        self._reads.add(self._now, self.raft.reign, waiter, read)

    def _answer_reads(self) -> None:
        if not len(self._reads):
            return
        for waiter, read in self._reads.ready(self._now, self.raft.reign) if self.raft.reign else ():
            try:
                read()
            except CoveyError as error:
                if waiter.request is not None:
                    self._reply(waiter, error)

    def _read(self, question: Any, waiter: Waiter) -> None:
        """Answer a question by what was applied: at once where what may be old was asked for, else when it is exact."""
        if getattr(question, "consistency", "linear") == "stale":
            self._reply(waiter, self._found(question))
        else:
            self._exactly(waiter, lambda: self._reply(waiter, self._found(question)))

    def _found(self, question: Any) -> Any:
        if isinstance(question, messages.Backup):
            return self.snapshot()
        return reading.read(self.store, question, self.epoch, self.settings.list_bytes)

    def _status(self, question: messages.Status, waiter: Waiter) -> None:
        told = (self._now, self.raft, self.store, self.leading, self.closed_because, self.damaged, self.repaired)
        self._reply(waiter, status.of(*told))

    def _watch(self, question: messages.Watch, waiter: Waiter) -> None:
        self._must_lead()
        prefix = check_prefix(question.prefix)
        start = question.from_revision or self.store.revision + 1
        if start < 0:
            raise UsageError(f"there is no revision {start}", "0 means from now on")
        wait = min(max(question.wait, 0.0), self.settings.watch_wait) if question.from_revision else 0.0
        assert waiter.request is not None
        waiting = Waiting(waiter.request, prefix, start, self._now + wait, waiter.cause)
        found = self.store.changes(prefix, start, self.settings.watch_bytes)
        if found.events or found.end < self.store.revision or wait == 0:
            self._reply(waiter, reading.batch(found, start))
        elif self._watchers.full:
            raise Overloaded(f"{len(self._watchers)} watchers wait already", "try again in a moment")
        else:
            self._watchers.park(waiting)

    def _wake(self) -> None:
        """Answer the watchers whom the newest revision concerns; before it there was nothing for them."""
        if len(self._watchers):
            news = self.store.changes("/", self.store.revision, 1)
            for waiting in self._watchers.touched(news.events):
                self._answer_watcher(waiting, self.store.revision)

    def _answer_watcher(self, waiting: Waiting, look_from: int) -> None:
        found = self.store.changes(waiting.prefix, look_from, self.settings.watch_bytes)
        self.raft.effects.append(Reply(waiting.request, reading.batch(found, waiting.start), waiting.cause))

    # --- the servers ---

    def _change(self, question: messages.ChangeServers, waiter: Waiter) -> None:
        """Change the servers by one; raises Refused, Busy, NotDefined, NotPrimary."""
        self._must_lead()
        raft = self.raft
        assert raft.reign is not None
        after = membership.wanted(raft, self.store, question, self._now)
        if after is None:  # it is so already, if this server still leads
            found = {"index": raft.log.servers_index, **membership.plain(raft.log.servers)}
            self._exactly(waiter, lambda: self._reply(waiter, found))
            return
        leaves = question.change in ("undefine", "stop") and question.server == self.node
        if leaves and raft.reign.hand_over(self._now, 0):
            raise self._not_primary()  # the next primary does it
        self._propose(after, [waiter])

    def _hand_over(self, question: messages.HandOver, waiter: Waiter) -> None:
        self._must_lead()
        assert self.raft.reign is not None
        if question.to == self.node:
            self._reply(waiter, {"primary": self.node, "epoch": self.epoch})
        elif not self.raft.reign.hand_over(self._now, question.to):
            who = f"node {question.to}" if question.to else "no other server"
            raise Refused(f"{who} can become the primary: it must be a voter that runs, answers and is sound")
        else:
            self._hand_overs.add(self._now, waiter)

    def _leaving(self, input: messages.Leaving) -> None:
        if self.raft.reign and not self.raft.alone:
            self.raft.reign.hand_over(self._now, 0)

    # --- messages of other machines ---

    def _received(self, input: Received) -> None:
        message, node = input.message, input.source.node
        if isinstance(message, PeerMessage):
            if input.source.service == SERVICE and node not in (0, self.node):
                self._heard(node, message)
        elif isinstance(message, AppendSystem):
            waiter = Waiter(None, input.source, input.cause)
            try:
                if self.state is State.DAMAGED:
                    raise self._no_copy()
                self._append(message, waiter)
            except CoveyError as error:
                self._refuse(waiter, message.id, error)
        elif isinstance(message, messages.ReadSystem):
            self._read_system(Waiter(None, input.source, input.cause), message)
        elif isinstance(message, messages.FindPrimary):
            if node not in (0, self.node):
                self._herald.asked(node, self._now)
            self._send(Waiter(None, input.source, input.cause), self.leading)

    def _heard(self, node: int, message: PeerMessage) -> None:
        raft = self.raft
        sound = self.state is not State.DAMAGED
        raft.receive(self._now, node, message)
        if sound and raft.diverged and self.state is State.DAMAGED:
            self.damaged = (Damage("the copy in memory", 0, raft.diverged),)

    def _read_system(self, waiter: Waiter, message: messages.ReadSystem) -> None:
        def read() -> None:
            found = [(slot, one.index, one.epoch, one.body) for slot, one in self.store.system(message.kind)]
            self._send(waiter, messages.SystemRead(message.id, tuple(found), self.epoch))

        try:
            self._exactly(waiter, read)
        except CoveyError as error:
            self._refuse(waiter, message.id, error)

    def _refuse(self, waiter: Waiter, id: str, error: CoveyError) -> None:
        self._send(waiter, messages.SystemRefused(id, self.leading.epoch, str(error)))

    def _send(self, waiter: Waiter, message: Message) -> None:
        assert waiter.source is not None
        self.raft.effects.append(Send(waiter.source, message, waiter.cause))

    def _peer_down(self, input: messages.PeerDown) -> None:
        self._herald.forget(input.node)
        self.raft.peer_down(self._now, input.node)

    _handlers: dict[type[Any], Callable[[RegistryMachine, Any], None]] = {
        Asked: _asked,
        Received: _received,
        Persisted: _persisted,
        messages.GroupFormed: _group,
        messages.PeerDown: _peer_down,
        messages.AgentAsked: lambda self, input: self._herald.asked(input.node, self._now),
        messages.SnapshotWritten: _snapshot_written,
        messages.SnapshotFailed: lambda self, input: self._snapshots.failed(),
        messages.NoRoom: _refused,
        messages.Leaving: _leaving,
    }
    _questions: dict[type[Any], Callable[[RegistryMachine, Any, Waiter], None]] = {
        messages.Transact: _transact,
        AppendSystem: _append,
        messages.Get: _read,
        messages.List: _read,
        messages.ListSystem: _read,
        messages.Backup: _read,
        messages.Watch: _watch,
        messages.Status: _status,
        messages.ChangeServers: _change,
        messages.HandOver: _hand_over,
    }

    # --- what must always hold ---

    def check_invariants(self) -> None:
        """Raise AssertionError naming the number of the invariant that does not hold."""
        self.raft.check()
        self.store.check_invariants()
        assert self.store.index == self.raft.log.committed, "5: the store has not applied what is committed"
        if self.state is not State.DAMAGED:
            highest = (self.epoch, self.store.index, self.store.revision)
            assert all(now >= before for now, before in zip(highest, self._highest, strict=True)), "6: went back"
            self._highest = highest
        assert self._answered <= self.raft.log.committed, "7: an answer left before its entry was committed"
        opened = self._opened if self.writable else 0
        self._proposed.check(opened, {id for id in self._proposed.ids() if self.store.answered(id)})
        self._watchers.check()
        assert len(self._proposed) <= self.settings.proposals + 8, "32: too many proposals"
        self._herald.check()
