"""The registry server's protocol machine: one copy of the core log, and who may read and write it when.

Knows no socket, disk, clock or thread: time arrives as `now`, bytes leave as `Persist` and are safe once `Persisted`.
Entries are applied to the store in order, only when durable (`corelog.py`); an answer leaves only after that, and what
is read is what was applied. States and what leads from one to another are tables in `states.py`.

Invariants (`check_invariants`):
  5. the store has the hash of its content, and has applied exactly the entries that are committed
  6. epoch, committed index and revision never go back
  7. nothing was answered that is not durable
 12. while not exact, only reads marked stale are answered (`_readable`)
 13. a user's entry stands only behind the entry that opened writes in this epoch
 14. a request id is under way at most once, and not when its answer is known
 15. history and watchers leave no gap
 32. every table is bounded
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from ...bus.machine import (
    Address,
    Asked,
    Effect,
    ImpossibleTransition,
    Message,
    Notify,
    Persisted,
    Publish,
    Received,
    Reply,
    Send,
)
from ...errors import CoveyError, DiskFull, NoQuorum, Overloaded, ReadOnly, StaleEpoch, UsageError
from . import entries, messages, proposals, reading, records, status
from .corelog import CoreLog, Waiter
from .keys import check_prefix
from .messages import SERVICE, AppendSystem, Leading, Phase
from .recovery import Recovered, encode_snapshot
from .settings import Settings
from .states import EXACT, PHASE, RETRIED, TABLE, WHY_CLOSED, State
from .store import Answer
from .watchers import Waiting, Watchers


class RegistryMachine:
    """One registry server. Build it on what was recovered, then step it."""

    def __init__(self, node: int, recovered: Recovered, settings: Settings | None = None) -> None:
        self.node = node
        self.settings = settings or Settings()
        self.store = recovered.store
        self.damaged, self.repaired = recovered.damaged, recovered.repaired
        self.state = State.DAMAGED if self.damaged else State.LOADED
        self.epoch = recovered.promised
        self._started = False
        self._group_formed = False
        self._opened = 0  # index of the entry that opened writes in this epoch
        self._log = CoreLog(self.store.index, recovered.chain)
        self._log_bytes, self._snapshot_bytes = recovered.log_bytes, recovered.snapshot_bytes
        self._snapshot_at = 0  # index of the snapshot under way
        self._no_room = ""  # why the disk took nothing, until it takes something again
        self._again: float | None = None  # when the disk is tried again
        self._watchers = Watchers(self.settings.watches)
        self._askers: dict[int, float] = {}  # node -> when it last asked who leads
        self._clock_base = self.store.time
        self._start = 0.0
        self._now = 0.0
        self._effects: list[Effect] = []
        self._story: deque[str] = deque(maxlen=20)
        self._highest = (0, 0, 0)
        self._answered = 0

    # --- the machine's face ---

    @property
    def phase(self) -> Phase:
        """What others see of the state."""
        return PHASE[self.state]

    @property
    def writable(self) -> bool:
        """Users may write."""
        return self.state is State.WRITES

    @property
    def leading(self) -> Leading:
        """What is said of this server to others."""
        exact = self.state in EXACT
        return Leading(self.epoch if exact else 0, self.node if exact else 0, self.phase, self.writable)

    @property
    def closed_because(self) -> str:
        """Why users may not write; empty when they may."""
        why = WHY_CLOSED[self.state]
        if self._no_room and self.state in RETRIED:
            return f"{why}: {self._no_room}"
        return f"{why}: {self.damaged[0].path} at byte {self.damaged[0].position}" if self.damaged else why

    @property
    def deadline(self) -> float | None:
        """At once for the first step, then when a watcher must be answered or a full disk tried again."""
        if not self._started:
            return 0.0
        return min((at for at in (self._watchers.deadline, self._again) if at is not None), default=None)

    def step(self, now: float, input: Any = None) -> list[Effect]:
        """Take one input; return what must be done."""
        self._now = now
        if not self._started:
            self._begin(now)
        self._story.append(f"{now:.6f} {self.state.value}: {type(input).__name__}")
        if input is not None:
            handler = self._handlers.get(type(input))
            if handler is None:
                raise self._impossible(f"input {input!r}")
            handler(self, input)
        if self._again is not None and now >= self._again:
            self._try_again()
        for waiting in self._watchers.due(now):
            self._answer_watcher(waiting, self.store.revision + 1)
        effects, self._effects = self._effects, []
        return effects

    # --- states ---

    def _begin(self, now: float) -> None:
        """Phase 1 of a lone server: promise the next epoch and settle the log's tail with its first entry."""
        self._started, self._start = True, now
        self._turn("started")
        if self.state is State.SETTLING:
            self.epoch += 1
            self._reign()
        self._announce()

    def _reign(self) -> None:
        self._propose(entries.Reigned(self.node), [], before=(records.encode_hard_state(self.epoch),))

    def _turn(self, event: str) -> None:
        target = TABLE.get((self.state, event))
        if target is None:
            raise self._impossible(event)
        self.state = target

    def _impossible(self, what: str) -> ImpossibleTransition:
        story = "\n  ".join(self._story)
        return ImpossibleTransition(f"{what} in state {self.state.value}; the story:\n  {story}")

    def _group(self, input: messages.GroupFormed) -> None:
        self._group_formed = True
        was = self.state
        self._turn("group formed")
        if was is not State.OPENING and self.state is State.OPENING:
            self._propose(entries.WritesOpened(), [])

    def _announce(self) -> None:
        """Say on the node, and to those who asked lately, who leads and what is open."""
        leading = self.leading
        self._effects.append(Publish(messages.LEADING_TOPIC, leading))
        phase = {"phase": leading.phase, "writable": leading.writable, "epoch": leading.epoch}
        self._effects.append(Publish(messages.PHASE_TOPIC, {**phase, "primary": leading.primary}))
        oldest = self._now - self.settings.asker_seconds
        self._askers = {node: at for node, at in sorted(self._askers.items()) if at >= oldest}
        self._effects.extend(Send(Address(SERVICE, node), leading) for node in self._askers)

    # --- from a proposal to an answer ---

    def _propose(self, body: entries.Body, waiters: list[Waiter], before: tuple[bytes, ...] = ()) -> None:
        time = self._clock_base + max(int((self._now - self._start) * 1000), 0)
        self._effects.append(self._log.propose(self.epoch, time, body, waiters, before))

    def _persisted(self, input: Persisted) -> None:
        """Apply what is durable now, answer those who wait for it, wake watchers, order a snapshot."""
        try:
            committed = self._log.persisted(input.number)
        except ValueError as error:
            raise self._impossible(str(error)) from error
        for proposal in committed:
            revision = self.store.revision
            answer = self.store.apply(proposal.entry)
            self._log_bytes += proposal.size
            for waiter in proposal.waiters:
                assert answer is not None
                self._answer(waiter, proposal.id, proposal.entry.body, answer)
            if self.store.revision > revision:
                self._wake()
            if isinstance(proposal.entry.body, entries.Reigned):
                self._turn("reign settled")
                self._no_room = ""
                self._announce()
                if self._group_formed:
                    self._group(messages.GroupFormed())
            elif isinstance(proposal.entry.body, entries.WritesOpened):
                self._opened = proposal.entry.index
                self._turn("writes opened")
                self._no_room = ""
                self._announce()
        self._maybe_snapshot()

    def _refused(self, input: messages.NoRoom) -> None:
        """Tell all who wait for the disk that nothing was written; close the writes until it takes an entry again.

        It is tried at once with the smallest entry there is, for only a large one may have found no room.
        """
        was, self._no_room = self.state, input.reason
        for proposal in self._log.discard():
            for waiter in proposal.waiters:
                if waiter.source is not None:
                    refused = messages.SystemRefused(proposal.id, self.leading.epoch, str(self._disk_full()))
                    self._effects.append(Send(waiter.source, refused, waiter.cause))
                elif waiter.request is not None:
                    self._effects.append(Reply(waiter.request, self._disk_full(), waiter.cause))
        self._turn("no room")
        if self.state in RETRIED:
            self._again = self._now + (self.settings.room_seconds if self.state is was else 0.0)
        if self.state is not was:
            self._announce()

    def _try_again(self) -> None:
        self._again = None
        if self.state is State.SETTLING:
            self._reign()
        else:
            self._propose(entries.WritesOpened(), [])

    def _disk_full(self) -> DiskFull:
        return DiskFull(
            f"the disk of node {self.node} is full, nothing was written: {self._no_room}",
            "free space there; writes open again by themselves",
        )

    def _answer(self, waiter: Waiter, request_id: str, body: entries.Body, answer: Answer) -> None:
        self._answered = max(self._answered, answer.index)
        if waiter.source is not None:
            appended = messages.SystemAppended(request_id, answer.index, answer.epoch)
            self._effects.append(Send(waiter.source, appended, waiter.cause))
            return
        assert waiter.request is not None
        if isinstance(body, entries.Committed):
            result: dict[str, Any] = {"index": answer.index, "epoch": answer.epoch}
        else:
            result = {"revision": answer.revision, "succeeded": answer.succeeded}
        self._effects.append(Reply(waiter.request, result, waiter.cause))

    def _maybe_snapshot(self) -> None:
        worth = max(self.settings.snapshot_bytes, self._snapshot_bytes // 2)
        if self._snapshot_at or self._log_bytes < worth:
            return
        record = encode_snapshot(self.store, self._log.committed_chain)
        self._snapshot_at, self._log_bytes, self._snapshot_bytes = self.store.index, 0, len(record)
        self._effects.append(Notify("snapshot", record))

    def _snapshot_over(self, input: messages.SnapshotWritten | messages.SnapshotFailed) -> None:
        self._snapshot_at = 0

    # --- questions ---

    def _asked(self, input: Asked) -> None:
        waiter = Waiter(input.request, None, input.cause)
        try:
            if self.damaged and not isinstance(input.question, messages.Status):
                raise self.damaged[0].error()
            handler = self._questions.get(type(input.question))
            if handler is None:
                raise UsageError(f"the registry cannot answer {type(input.question).__name__}")
            handler(self, input.question, waiter)
        except CoveyError as error:
            self._effects.append(Reply(input.request, error, input.cause))

    def _transact(self, question: messages.Transact, waiter: Waiter) -> None:
        body = proposals.transaction(question)
        known = self.state in EXACT and self.store.answered(question.id)
        if self.state is State.FULL and not known and not question.system:
            raise self._disk_full()
        if not (self.state is State.WRITES or known or (question.system and self.state in EXACT)):
            raise ReadOnly(f"writes are closed: {self.closed_because}", "reads are possible; try again in a moment")
        self._enter(body, waiter)

    def _append(self, question: AppendSystem, waiter: Waiter) -> None:
        body = proposals.system_entry(question)
        if self.state not in EXACT:
            raise ReadOnly(f"system entries cannot be taken: {self.closed_because}")
        known = self._log.under_way(question.id) or self.store.answered(question.id)
        if question.epoch != self.epoch and not known:
            raise StaleEpoch(
                f"the entry belongs to epoch {question.epoch}, epoch {self.epoch} reigns now", epoch=self.epoch
            )
        self._enter(body, waiter)

    def _enter(self, body: entries.Transacted | entries.Committed, waiter: Waiter) -> None:
        """Propose an entry, or join the one with the same id that is under way, or say what it came to."""
        under_way = self._log.under_way(body.id)
        answer = self.store.answered(body.id)
        if under_way is not None:
            under_way.waiters.append(waiter)
        elif answer is not None:
            self._answer(waiter, body.id, body, answer)
        elif len(self._log) >= self.settings.proposals or self._log.bytes >= self.settings.proposal_bytes:
            raise Overloaded(f"{len(self._log)} entries wait for the disk already", "try again in a moment")
        else:
            self._propose(body, [waiter])

    def _readable(self, consistency: str) -> None:
        if self.state in EXACT or (consistency == "stale" and self.state is not State.DAMAGED):
            return
        raise NoQuorum(f"current data cannot be read: {self.closed_because}", "what may be old: --consistency stale")

    def _get(self, question: messages.Get, waiter: Waiter) -> None:
        self._readable(question.consistency)
        self._reply(waiter, reading.get(self.store, question))

    def _list(self, question: messages.List, waiter: Waiter) -> None:
        self._readable(question.consistency)
        self._reply(waiter, reading.ls(self.store, question, self.settings.list_bytes))

    def _list_system(self, question: messages.ListSystem, waiter: Waiter) -> None:
        self._readable("linear")
        self._reply(waiter, reading.system(self.store, question, self.epoch, self.settings.list_bytes))

    def _status(self, question: messages.Status, waiter: Waiter) -> None:
        told = (self.node, self.store, self.epoch, self.leading, self.closed_because, self.damaged, self.repaired)
        self._reply(waiter, status.of(*told))

    def _watch(self, question: messages.Watch, waiter: Waiter) -> None:
        self._readable("linear")
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
        self._effects.append(Reply(waiting.request, reading.batch(found, waiting.start), waiting.cause))

    def _reply(self, waiter: Waiter, result: Any) -> None:
        assert waiter.request is not None
        self._effects.append(Reply(waiter.request, result, waiter.cause))

    # --- messages of other machines ---

    def _received(self, input: Received) -> None:
        message = input.message
        if isinstance(message, AppendSystem):
            try:
                if self.damaged:
                    raise self.damaged[0].error()
                self._append(message, Waiter(None, input.source, input.cause))
            except CoveyError as error:
                self._refuse(input, message.id, error)
        elif isinstance(message, messages.ReadSystem):
            self._read_system(input, message)
        elif isinstance(message, messages.FindPrimary):
            if input.source.node not in (0, self.node) and (
                input.source.node in self._askers or len(self._askers) < self.settings.askers
            ):
                self._askers[input.source.node] = self._now
            self._send(input, self.leading)

    def _read_system(self, input: Received, message: messages.ReadSystem) -> None:
        if self.state not in EXACT:
            self._refuse(input, message.id, NoQuorum(f"nothing current can be read: {self.closed_because}"))
            return
        found = tuple((slot, kept.index, kept.epoch, kept.body) for slot, kept in self.store.system(message.kind))
        self._send(input, messages.SystemRead(message.id, found, self.epoch))

    def _refuse(self, input: Received, id: str, error: CoveyError) -> None:
        self._send(input, messages.SystemRefused(id, self.leading.epoch, str(error)))

    def _send(self, input: Received, message: Message) -> None:
        self._effects.append(Send(input.source, message, input.cause))

    def _peer_down(self, input: messages.PeerDown) -> None:
        self._askers.pop(input.node, None)

    _handlers: dict[type[Any], Callable[[RegistryMachine, Any], None]] = {
        Asked: _asked,
        Received: _received,
        Persisted: _persisted,
        messages.GroupFormed: _group,
        messages.PeerDown: _peer_down,
        messages.SnapshotWritten: _snapshot_over,
        messages.SnapshotFailed: _snapshot_over,
        messages.NoRoom: _refused,
    }
    _questions: dict[type[Any], Callable[[RegistryMachine, Any, Waiter], None]] = {
        messages.Transact: _transact,
        AppendSystem: _append,
        messages.Get: _get,
        messages.List: _list,
        messages.Watch: _watch,
        messages.ListSystem: _list_system,
        messages.Status: _status,
    }

    # --- what must always hold ---

    def check_invariants(self) -> None:
        """Raise AssertionError naming the number of the invariant that does not hold."""
        self.store.check_invariants()
        assert self.store.index == self._log.committed, "5: the store has not applied what is committed"
        highest = (self.epoch, self.store.index, self.store.revision)
        assert all(now >= before for now, before in zip(highest, self._highest, strict=True)), "6: something went back"
        self._highest = highest
        assert self._answered <= self._log.committed, "7: an answer left before its entry was durable"
        opened = self._opened if self.writable else 0
        self._log.check(opened, {id for id in self._log.ids() if self.store.answered(id)})
        self._watchers.check()
        assert len(self._log) <= self.settings.proposals + 2, "32: too many proposals"
        assert len(self._askers) <= self.settings.askers, "32: too many askers"
