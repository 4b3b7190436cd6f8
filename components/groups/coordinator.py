"""The coordinator's half of a groups machine: asleep everywhere but on the primary's node.

States: off → taking (its `Takeover` is on the way to the log) → loading (reads what was decided) → leading → off.
The takeover makes every entry void that a dead predecessor still had under way, and what is read after it is all
there is. While leading it drafts one decision per group at a time, commits it, applies it to its own node's replica
and only then announces it. Knows nothing of clients; it repeats what is not answered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

from ...bus.machine import Address, Effect, Message, Publish, Send
from ..liveness.messages import ViewChanged
from ..registry.messages import AppendSystem, ReadSystem, SystemAppended, SystemRead, SystemRefused
from .desk import Desk, Flight
from .drafting import Draft, draft, terms_of
from .entries import read_back
from .fast import Streams
from .messages import (
    KIND,
    SERVICE,
    TAKEOVER_SLOT,
    VOTED_TOPIC,
    Announce,
    Beat,
    CallVote,
    Caught,
    Decision,
    Entry,
    Fast,
    FastRefused,
    FastSend,
    Fetch,
    Lent,
    Member,
    Outdated,
    Propose,
    Snapshot,
    Takeover,
    ViewId,
    Votes,
)
from .replica import Group, Replica
from .sequencer import Sequencer, Tell
from .settings import Settings
from .voting import Ballot, voted

REGISTRY = Address("registry")
State = Literal["off", "taking", "loading", "leading"]


class Coordinator:
    """Serialise the proposals of each group, commit decisions, then announce them.

    Invariants (check_invariants): 1. at most one vote or decision of a group is under way; 2. what is under way is the
    next version of its group and of the present term; 3. queues and flights are bounded.
    """

    def __init__(
        self,
        node: int,
        session: int,
        settings: Settings,
        replica: Replica,
        out: list[Effect],
        decided: Callable[[Decision], object],
        restored: Callable[[Snapshot], None],
        streams: Streams,
        sequenced: Callable[[Fast], object],
    ) -> None:
        """`decided`, `restored` and `sequenced` bring what is decided into what this node has."""
        self._node = node
        self._session = session
        self._settings = settings
        self._replica = replica
        self._out = out
        self._decided = decided
        self._restored = restored
        self._streams = streams
        self._sequenced = sequenced
        self._sequencer = Sequencer(settings, replica, streams, Tell(self._send, self._beat_to, self._tell_fast))
        self.state: State = "off"
        self.epoch = 0
        self.term = 0
        self._takeovers = 0
        self.number = 0
        self._view: ViewId = (0, 0)
        self._nodes: dict[int, str] = {}
        self._desks: dict[str, Desk] = {}
        self._flights: dict[str, Flight] = {}
        self._ballots: dict[str, Ballot] = {}
        self._waiting: deque[str] = deque()
        self._asked: AppendSystem | ReadSystem | None = None
        self._asked_at = 0.0
        self._beat_at = 0.0
        self._given_up: dict[str, set[Member]] = {}  # members of nodes that did not report in time

    # --- who leads, who is there -------------------------------------------------------------------------------

    def lead(self, now: float, epoch: int) -> None:
        """The core log's primary of `epoch` is this node: take over."""
        if self.state != "off" and self.epoch == epoch:
            return
        self.retire()
        self.epoch = epoch
        self._take_over(now)

    def _take_over(self, now: float) -> None:
        self.state = "taking"
        self._takeovers += 1  # a second one in the same epoch must be an entry of its own
        body = msgspec.msgpack.encode(Takeover(self._node, self.epoch, self._session, self._takeovers))
        name = f"groups/{self.epoch}/{self._node}/{self._session}/takeover-{self._takeovers}"
        self._ask(now, AppendSystem(name, self.epoch, KIND, TAKEOVER_SLOT, body, self._settings.keep))

    def retire(self) -> None:
        """This node does not lead any more. What was under way is decided by the next coordinator, or proposed anew."""
        self.state = "off"
        self._desks.clear()
        self._flights.clear()
        self._ballots.clear()
        self._sequencer.retire()
        self._waiting.clear()
        self._given_up.clear()
        self._asked = None

    def view_changed(self, now: float, view: ViewChanged) -> None:
        """Take note of a membership view; members whose node's boot is not in it are lost."""
        if view.id < self._view:
            return
        before, self._view = self._nodes, view.id
        self._nodes = {member.number: member.boot_id for member in view.members}
        if self.state != "leading":
            return
        for number, boot_id in sorted(self._nodes.items()):
            if before.get(number) != boot_id:
                self._beat_to(number)
        for name in sorted(self._replica.groups):
            self._recheck(name)
        if self._sequencer.view_changed(self._nodes):
            self._sequencer.resume_all()
        for name in sorted(self._desks):
            self._ready(name)
        self._pump(now)

    def _recheck(self, name: str) -> None:
        """Find members that a view newer than their join does not hold, or whose node was given up."""
        given_up = self._given_up.get(name, ())
        lost = {
            key
            for key, member in self._replica.get(name).members.items()
            if (self._nodes.get(member.node) != member.boot_id and member.view <= self._view) or member in given_up
        }
        if lost or name in self._desks:
            self._desk(name).lost = lost
        if lost:
            self._ready(name)

    # --- taking over ---------------------------------------------------------------------------------------------

    def _ask(self, now: float, question: AppendSystem | ReadSystem) -> None:
        self._asked, self._asked_at = question, now
        self._out.append(Send(REGISTRY, question))

    def registry_said(self, now: float, answer: SystemAppended | SystemRefused | SystemRead, cause: str) -> None:
        """Take an answer of this node's registry; one to a question not asked (any more) is dropped."""
        flight = self._flights.get(answer.id)
        if flight is None and (self._asked is None or self._asked.id != answer.id):
            return
        if isinstance(answer, SystemRefused):
            if answer.epoch not in (0, self.epoch):
                self.retire()
        elif isinstance(answer, SystemRead):
            self._load(now, answer)
        elif flight is not None:
            self._commit(now, flight)
        elif self.state == "taking":
            self.state = "loading"
            self.term = answer.index
            self._ask(now, ReadSystem(f"groups/{self.epoch}/{self.term}/read", KIND))

    def _load(self, now: float, read: SystemRead) -> None:
        if self.state != "loading":
            return
        told = read_back(read.entries)
        if told.takeovers[-1:] != [self.term]:  # a later life of this machine, or a clock that went back
            if told.latest and told.latest.epoch == self.epoch:
                self._session = max(self._session, told.latest.session + 1)
            self._take_over(now)
            return
        for _, entries in sorted(told.groups.items()):
            self._adopt(entries)
        self.state, self._asked, self.number = "leading", None, 0
        self._sequencer.lead(now, self.term, self._nodes, self._node)
        for name in sorted(self._replica.groups):
            self._recheck(name)
        self._beat(now)
        self._pump(now)

    def _adopt(self, entries: list[Entry]) -> None:
        """Bring one group of this node's replica to what the log says, event by event where the log reaches back."""
        latest = entries[-1].state
        held = self._replica.get(latest.name).version
        if held == latest.version:
            return
        news = [entry.decision for entry in entries if entry.decision.version > held]
        if news and news[0].version == held + 1 and len(news) == latest.version - held:
            for decision in news:
                self._decided(decision)
        else:
            self._restored(Snapshot(latest, tuple(entry.decision for entry in entries)))

    # --- proposals -----------------------------------------------------------------------------------------------

    def _desk(self, name: str) -> Desk:
        return self._desks.setdefault(name, Desk())

    def proposed(self, now: float, node: int, message: Propose, cause: str) -> None:
        """Take proposals in, each number of a node once and in order; what is too early is repeated by its sender."""
        if self.state != "leading" or self._nodes.get(node) != message.boot_id:
            return
        group = self._replica.get(message.group)
        if group.version == 0 and len(self._replica.groups) >= self._settings.groups:
            return
        desk = self._desk(message.group)
        taken = desk.take(node, message, group.frontiers.get(node), self._settings.queue, cause)
        if taken.outdated:
            self._send(node, Outdated(message.group, taken.outdated), cause)
        elif taken.settled:
            self._beat_to(node, cause)
        self._ready(message.group)
        self._pump(now)

    # --- decisions -----------------------------------------------------------------------------------------------

    def _ready(self, name: str) -> None:
        desk = self._desk(name)
        if not desk.ready and desk.flight is None:
            desk.ready = True
            self._waiting.append(name)

    def _pump(self, now: float) -> None:
        while self._waiting and len(self._flights) < self._settings.appends:
            name = self._waiting.popleft()
            desk = self._desks[name]
            desk.ready = False
            group = self._replica.get(name)
            drafted = self._next(now, desk, group)
            if drafted is not None:
                self._take_off(now, desk, group, drafted)
            elif not desk.busy:
                del self._desks[name]

    def _next(self, now: float, desk: Desk, group: Group) -> Draft | None:
        """Return the group's next decision; None if nothing waits, or if it waits for votes."""
        desk.queue = [item for item in desk.queue if self._nodes.get(item.node) == item.boot_id]
        desk.blocked = group.fast and not self._sequencer.flushed
        if desk.blocked:
            return None
        if desk.ballot is None:
            drafted = draft(group, desk.queue, desk.lost, self._view, self._nodes, self._settings)
            if drafted is None and desk.mark and not group.fast:
                return Draft(Decision(group.name, group.version + 1, group.view), desk.queue, "")
            terms = terms_of(group, desk.queue[0]) if drafted is None and desk.queue else None
            if terms is None:
                return drafted
            item = desk.queue.pop(0)
            desk.ballot = Ballot(group.version + 1, item, terms, group.members.values(), now)
            self._ballots[group.name] = desk.ballot
            self._call(now, desk.ballot, group.name, self._nodes)
        return self._judge(now, desk, desk.ballot, group)

    # --- votes ---------------------------------------------------------------------------------------------------

    def _call(self, now: float, ballot: Ballot, name: str, nodes: Iterable[int]) -> None:
        ballot.called = now
        item, left = ballot.item, max(ballot.until - now, 0.0)
        who = self._replica.get(name).members.get(item.key) or Member(*item.key)
        proposal = item.proposal
        call = CallVote(
            self.term, name, ballot.protocol, ballot.phase, ballot.terms, proposal.op, who, proposal.target,
            proposal.body, left,
        )  # fmt: skip
        for node in sorted(nodes):
            self._send(node, call, item.cause)

    def voted(self, now: float, node: int, message: Votes) -> None:
        """Take the votes of a node's members."""
        ballot, boot_id = self._ballots.get(message.group), self._nodes.get(node)
        if self.state != "leading" or message.term != self.term or ballot is None or boot_id is None:
            return
        if ballot.protocol == message.protocol:
            for party, vote, why in message.votes:
                ballot.cast((node, boot_id, party), message.phase, vote, why)
            self._ready(message.group)
            self._pump(now)

    def _judge(self, now: float, desk: Desk, ballot: Ballot, group: Group) -> Draft | None:
        if self._nodes.get(ballot.item.node) != ballot.item.boot_id:
            ballot.withdrawn = True
        while (step := ballot.judge(now, desk.gone())) == "next":
            self._call(now, ballot, group.name, self._nodes)
        if step is None:
            return None
        desk.ballot = None
        del self._ballots[group.name]
        return ballot.draft(group, step, self._view, self._settings.members, desk.queue)

    def _take_off(self, now: float, desk: Desk, group: Group, drafted: Draft) -> None:
        decision = drafted.decision
        if group.fast and decision.changes_view:
            decision = msgspec.structs.replace(decision, fast=self._sequencer.close(group.name))
        elif desk.mark:
            decision = msgspec.structs.replace(decision, fast=0)
        desk.mark = False
        kept = {item.node for item in drafted.rest} | {settled.node for settled in decision.settled}
        desk.accepted = {node: last for node, last in desk.accepted.items() if node in kept}
        desk.queue = drafted.rest
        after = Group(group.snapshot(), self._settings)
        after.apply(decision)
        body = msgspec.msgpack.encode(Entry(self.term, after.snapshot(), decision))
        name = f"groups/{self.epoch}/{self.term}/{decision.group}/{decision.version}"
        append = AppendSystem(name, self.epoch, KIND, decision.group, body, self._settings.keep)
        desk.flight = self._flights[name] = Flight(append, decision, drafted.cause, now)
        self._out.append(Send(REGISTRY, append, drafted.cause))

    def _commit(self, now: float, flight: Flight) -> None:
        """The decision is durable: from here on, and not before, it may be told."""
        name = flight.decision.group
        del self._flights[flight.append.id]
        self._desks[name].flight = None
        self._decided(flight.decision)
        self.number += 1
        announce = Announce(self.term, self.number, flight.decision)
        for node in sorted(self._nodes):
            self._send(node, announce, flight.cause)
        if flight.decision.tally is not None:
            self._out.append(Publish(VOTED_TOPIC, voted(name, flight.decision.tally), flight.cause))
        if any(event.kind != "message" for event in flight.decision.events):
            self._recheck(name)
        self._sequencer.resume(name)
        self._ready(name)
        self._pump(now)

    # --- fast messages -------------------------------------------------------------------------------------------

    def fast_sent(self, now: float, node: int, message: FastSend, cause: str) -> None:
        """Put fast messages of a node in their order."""
        if self.state == "leading" and self._nodes.get(node) == message.boot_id:
            if self._sequencer.sent(node, message, cause):
                self._desk(message.group).mark = True
                self._ready(message.group)
            self._pump(now)

    def lent(self, now: float, node: int, message: Lent) -> None:
        """A node has lent fast messages that this one lacked."""
        if self.state == "leading" and self._sequencer.lent(node, message):
            self._go_on(now)

    def _go_on(self, now: float) -> None:
        """All is known of the fast messages there were."""
        self._sequencer.resume_all()
        for name in sorted(self._desks):
            self._ready(name)
        self._pump(now)

    def _give_up(self, late: set[int]) -> None:
        """These nodes are in the view, but their groups processes hang: their members have failed where it matters."""
        for name, group in sorted(self._replica.groups.items()):
            members = {member for member in group.members.values() if member.node in late} if group.fast else set()
            if members:
                self._given_up[name] = members
                self._recheck(name)
        if self._sequencer.give_up(late, self._given_up):
            self._sequencer.resume_all()
        for name in sorted(self._desks):
            self._ready(name)

    def _tell_fast(self, message: Fast, cause: str) -> None:
        self.number += 1
        message = msgspec.structs.replace(message, number=self.number)
        self._sequenced(message)
        for node in sorted(self._nodes):
            self._send(node, message, cause)

    # --- what other nodes are told -------------------------------------------------------------------------------

    def fetched(self, now: float, node: int, message: Fetch, cause: str) -> None:
        """Send a node what it lacks, and take note of the fast messages it has."""
        if self.state != "leading" or node not in self._nodes:
            return
        if message.term == self.term and self._sequencer.reported(now, node, message.fast):
            self._go_on(now)
        decisions, snapshots, complete = self._replica.missing(message.have)
        fast, all_fast = self._streams.missing(self.term, message.fast) if self._sequencer.flushed else ([], True)
        caught = Caught(
            message.session,
            message.term,
            self.term,
            self.number,
            complete and all_fast,
            tuple(decisions),
            tuple(snapshots),
            tuple(fast),
        )
        self._send(node, caught, cause)

    def _send(self, node: int, message: Message, cause: str = "") -> None:
        if node != self._node or isinstance(message, Outdated | CallVote | FastRefused):
            self._out.append(Send(Address(SERVICE, node), message, cause))

    def _beat_to(self, node: int, cause: str = "") -> None:
        self._send(node, Beat(self.term, self.number), cause)

    def _beat(self, now: float) -> None:
        self._beat_at = now + self._settings.beat
        for node in sorted(self._nodes):
            self._beat_to(node)

    # --- time ----------------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When `tick` must be called next."""
        if self.state == "off":
            return None
        if self.state != "leading":
            return self._asked_at + self._settings.repeat
        flights = (flight.sent + self._settings.repeat for flight in self._flights.values())
        open_ = self._ballots.values() if len(self._flights) < self._settings.appends else ()
        ballots = (min(each.until, each.called + self._settings.repeat) for each in open_)
        loans = self._sequencer.deadline
        return min([self._beat_at, *flights, *ballots, *([] if loans is None else [loans])])

    def tick(self, now: float) -> None:
        """Repeat what was not answered, and beat."""
        if self._asked is not None and now >= self._asked_at + self._settings.repeat:
            self._ask(now, self._asked)
        for flight in self._flights.values():
            if now >= flight.sent + self._settings.repeat:
                flight.sent = now
                self._out.append(Send(REGISTRY, flight.append, flight.cause))
        for name, ballot in sorted(self._ballots.items()):
            if now >= ballot.until:
                self._ready(name)
            elif now >= ballot.called + self._settings.repeat:
                self._call(now, ballot, name, ballot.missing() & self._nodes.keys())
        self._sequencer.tick(now)
        if late := self._sequencer.late(now):
            self._give_up(late)
        if self.state == "leading":
            self._pump(now)
            if now >= self._beat_at:
                self._beat(now)

    def check_invariants(self) -> None:
        """Raise AssertionError when an invariant of the class does not hold."""
        under_way = [flight.decision.group for flight in self._flights.values()]
        assert len(under_way) == len(set(under_way)), f"1: two decisions of a group under way: {under_way}"
        for flight in self._flights.values():
            group = self._replica.get(flight.decision.group)
            assert flight.decision.version == group.version + 1, f"2: {flight.decision} at {group.version}"
            assert flight.append.epoch == self.epoch, f"2: {flight.append.id} in epoch {self.epoch}"
        assert len(self._flights) <= self._settings.appends, f"3: {len(self._flights)} appends under way"
        for name, desk in self._desks.items():
            assert desk.ballot is None or desk.flight is None, f"1: a vote and a decision under way in {name}"
            assert self._ballots.get(name) is desk.ballot, f"1: the vote in {name} is not the desk's"
            assert len(desk.queue) <= self._settings.queue, f"3: {len(desk.queue)} proposals wait in {name}"
