"""Group Services on one node, as a pure machine: serves the local parties, and coordinates where the primary is.

Its parts: `replica` (what is decided), `streams` (the fast messages), `parties` (what local parties ask), `proposer`
and `fast_sender` (what they want), `voters` (who has to vote), `pollers` (who waits for events), and `coordinator`
(asleep unless this node has the registry's primary). The machine itself keeps the replica level with the coordinator's
announcements, and knows when it has lost contact. It must not know sockets, clocks or threads.

Odd: a committed decision is true whoever tells of it and in whatever term, so it is applied as soon as it is the next
of its group; terms and announcement numbers only serve to see that something is missing.
"""

from __future__ import annotations

from typing import Any

from ...bus.machine import Address, Asked, Effect, Message, Notify, Publish, Received, Send
from ..liveness.messages import ViewChanged
from ..registry.messages import Leading, SystemAppended, SystemRead, SystemRefused
from .coordinator import Coordinator
from .fast import Streams
from .fast_sender import FastSender
from .messages import (
    SERVICE,
    Announce,
    Beat,
    CallVote,
    Caught,
    Decision,
    Fast,
    FastRefused,
    FastSend,
    Fetch,
    Lend,
    Lent,
    Outdated,
    PartyGone,
    Propose,
    Snapshot,
    Votes,
)
from .parties import Parties
from .pollers import Pollers
from .proposer import Proposer
from .replica import Group, Replica
from .settings import Settings
from .voters import Voters

CONTACT_TOPIC = "groups.contact"
SYNCED = "synced"  # what the service is notified of once: this node holds all groups as decided


class GroupsMachine:
    """Give local parties membership, messages and events of groups that are the same on all nodes.

    Invariants (check_invariants): 1. those of the coordinator and of the proposer; 2. a group's recent decisions have
    consecutive versions that end at its own; 3. their events have consecutive sequences that end at the group's.
    """

    def __init__(self, node: int, boot_id: str, session: int, settings: Settings | None = None) -> None:
        """`session` must be higher at every start of the machine on this node."""
        self._node = node
        self._session = session
        self._settings = settings or Settings()
        self._out: list[Effect] = []
        self._now = 0.0
        self._heard: float | None = None
        self._epoch = 0
        self._quorate = True
        self.frozen = False
        self.synced = False
        self._term = 0
        self._number: int | None = None  # announcements of this term up to it are applied; None: not known yet
        self._told = 0  # the highest number heard of in this term
        self._source = 0  # who coordinates this term
        self._fetch_at: float | None = None
        self.replica = Replica(self._settings)
        self.streams = Streams(self._settings, session)
        self.pollers = Pollers(self._settings, self.replica, self.streams, self._out)
        self.proposer = Proposer(node, boot_id, session, self._settings, self.replica, self.streams, self._out)
        self.fast_sender = FastSender(node, boot_id, session, self._settings, self._out)
        self.voters = Voters(node, boot_id, self._settings, self.replica, self._out)
        self.parties = Parties(
            node,
            self._settings,
            self.replica,
            self.streams,
            self.pollers,
            self.proposer,
            self.fast_sender,
            self.voters,
            self._out,
        )
        self.coordinator = Coordinator(
            node,
            session,
            self._settings,
            self.replica,
            self._out,
            self._decided,
            self._restored,
            self.streams,
            self._sequenced,
        )

    # --- the shape of a machine ----------------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When `step` must be called next though nothing happened."""
        parts = (self.coordinator, self.proposer, self.pollers, self.voters, self.fast_sender)
        times = [self._fetch_at, *(part.deadline for part in parts)]
        if self._heard is None:
            return 0.0
        if not self.frozen:
            times.append(self._heard + self._settings.freeze_after)
        return min((time for time in times if time is not None), default=None)

    def step(self, now: float, input: Any = None) -> list[Effect]:
        """Take one input; return what must be done."""
        self._now = now
        if self._heard is None:
            self._heard = now
        if isinstance(input, Received):
            self._received(now, input)
        elif isinstance(input, Asked):
            self.parties.asked(now, input)
        elif isinstance(input, PartyGone):
            self.voters.party_gone(input.party)
            self.proposer.party_gone(now, input.party)
        self.coordinator.tick(now)
        self._follow_own(now)
        self.proposer.tick(now)
        self.pollers.tick(now)
        self.voters.tick(now)
        self.fast_sender.tick(now)
        if self._fetch_at is not None and now >= self._fetch_at:
            self._fetch(now)
        self._judge_contact(now)
        effects = list(self._out)
        self._out.clear()
        return effects

    # --- what other machines say -----------------------------------------------------------------------------------

    def _received(self, now: float, received: Received) -> None:
        message, cause = received.message, received.cause
        node = received.source.node or self._node
        if isinstance(message, Leading):
            if node == self._node:
                self._leading(now, message)
        elif isinstance(message, ViewChanged):
            if node == self._node:
                self._quorate = message.quorate
                self.coordinator.view_changed(now, message)
        elif isinstance(message, SystemAppended | SystemRefused | SystemRead):
            self.coordinator.registry_said(now, message, cause)
        elif isinstance(message, Propose | Fetch | Votes | FastSend | Lent):
            self._for_coordinator(now, node, message, cause)
        else:
            self._from_coordinator(now, node, message)

    def _for_coordinator(
        self, now: float, node: int, message: Propose | Fetch | Votes | FastSend | Lent, cause: str
    ) -> None:
        if isinstance(message, Propose):
            self.coordinator.proposed(now, node, message, cause)
        elif isinstance(message, Fetch):
            self.coordinator.fetched(now, node, message, cause)
        elif isinstance(message, FastSend):
            self.coordinator.fast_sent(now, node, message, cause)
        elif isinstance(message, Lent):
            self.coordinator.lent(now, node, message)
        else:
            self.coordinator.voted(now, node, message)

    def _from_coordinator(self, now: float, node: int, message: Message) -> None:
        if isinstance(message, Outdated):
            self.proposer.outdated(now, message.group, message.session)
            self.fast_sender.outdated(now, message.group, message.session)
        elif isinstance(message, FastRefused):
            self.fast_sender.refused(message.group, message.session, message.number)
        elif isinstance(message, Beat):
            if self._word(now, node, message.term):
                self._heard_of(now, message.number)
        elif isinstance(message, CallVote):
            if self._word(now, node, message.term):
                self.voters.called(now, node, message)
                self.proposer.held_up(now, message.group, message.left)
        elif isinstance(message, Lend):
            if self._word(now, node, message.term):
                self._lend(node, message)
        elif isinstance(message, Fast):
            self._fast(now, node, message)
        elif isinstance(message, Announce):
            self._announced(now, node, message)
        elif isinstance(message, Caught):
            self._caught(now, node, message)

    def _leading(self, now: float, leading: Leading) -> None:
        """The core log has another primary, or none that this node knows of."""
        if leading.primary and leading.epoch < self._epoch:
            return
        changed = (leading.epoch, leading.primary) != (self._epoch, self.proposer.primary)
        self._epoch = max(self._epoch, leading.epoch)
        self.proposer.primary = self.fast_sender.primary = leading.primary
        if leading.primary != self._node:
            self.coordinator.retire()
        else:
            self.coordinator.lead(now, leading.epoch)
        if changed:
            self.proposer.repeat(now)
            self.fast_sender.repeat(now)
            if leading.primary not in (0, self._node):  # it may have been leading for long: do not wait for its beat
                self._source = leading.primary
                self._fetch(now)

    def _word(self, now: float, node: int, term: int) -> bool:
        """Note that a coordinator speaks; return whether it is the latest."""
        if term < self._term:
            return False
        self._heard = now
        if term > self._term:
            if self.coordinator.state == "leading":
                self.coordinator.retire()
            self._term, self._source, self._number, self._told = term, node, None, 0
            self.voters.forget_calls()
            self.proposer.repeat(now)
            self.fast_sender.repeat(now)
            self._fetch(now)
        return True

    def _heard_of(self, now: float, number: int) -> None:
        self._told = max(self._told, number)
        if self._number is None or self._number < self._told:
            self._want(now)

    def _announced(self, now: float, node: int, message: Announce) -> None:
        outcome = self._decided(message.decision)
        if not self._word(now, node, message.term):
            return
        if self._number is not None and message.number == self._number + 1 and outcome != "gap":
            self._number = message.number
        self._heard_of(now, message.number)

    def _fast(self, now: float, node: int, message: Fast) -> None:
        if not self._word(now, node, message.term):
            return  # whoever leads now may know nothing of it
        taken = self.replica.get(message.group).view >= message.view and self._sequenced(message)
        if self._number is not None and message.number == self._number + 1 and taken:
            self._number = message.number
        self._heard_of(now, message.number)

    def _sequenced(self, message: Fast, jump: bool = False) -> bool:
        """Take fast messages of the present coordinator; return whether those before them are there, too."""
        taken = self.streams.take(message, jump)
        if taken is None:
            return False
        self.fast_sender.sequenced(message.group, message.view, *taken)
        self.pollers.wake(message.group)
        return True

    def _lend(self, node: int, message: Lend) -> None:
        stream = self.streams.get(message.group, message.view)
        lent = tuple(stream.after(message.after))
        answer = Lent(message.term, message.group, message.view, stream.count - len(lent) + 1, lent)
        self._out.append(Send(Address(SERVICE, node), answer))

    def _caught(self, now: float, node: int, message: Caught) -> None:
        for decision in message.decisions:
            self._decided(decision)
        if not self._word(now, node, message.term) or message.session != self._session:
            return
        for snapshot in message.snapshots:
            held = self.replica.get(snapshot.state.name).version
            if snapshot.state.version > held or snapshot.instead_of == held:
                self._restored(snapshot)
        for told in message.fast:
            self._sequenced(told, jump=True)
        if message.asked != self._term:
            return  # what this node has of fast messages, the coordinator must hear in its own term: that is on its way
        self._fetch_at = None
        if message.complete:
            self._number = max(self._number or 0, message.number)
            self._is_synced()
        if not message.complete or self._number is None or self._number < self._told:
            self._fetch(now)

    # --- keeping level ---------------------------------------------------------------------------------------------

    def _want(self, now: float) -> None:
        """Something is missing: fetch, unless a fetch is under way."""
        if self._fetch_at is None:
            self._fetch(now)

    def _fetch(self, now: float) -> None:
        self._fetch_at = now + self._settings.repeat
        self._out.append(Send(Address(SERVICE, self._source), self._question()))

    def _question(self) -> Fetch:
        return Fetch(self._session, self.replica.have(), self._term, self.streams.report())

    def _decided(self, decision: Decision) -> str:
        """A decision is known to be durable: apply it if it is the next of its group."""
        outcome = self.replica.apply(decision)
        if outcome == "applied":
            self.streams.decided(decision)
            self._moved(self.replica.groups[decision.group], decision)
        return outcome

    def _moved(self, group: Group, decision: Decision | None) -> None:
        self.voters.decided(group)
        self.proposer.held_up(self._now, group.name)
        self.proposer.settle(self._now, group, decision)
        self.pollers.wake(group.name)

    def _restored(self, snapshot: Snapshot) -> None:
        """This node lagged too far in a group, and takes it over whole."""
        self.replica.restore(snapshot)
        if snapshot.instead_of > snapshot.state.version:
            self.streams.drop(snapshot.state.name)
        for decision in snapshot.recent:
            self.streams.decided(decision)
        self._moved(self.replica.groups[snapshot.state.name], None)

    def _follow_own(self, now: float) -> None:
        """Where the coordinator is, the replica is level by itself."""
        if self.coordinator.state == "leading":
            self._heard = now
            if self._term != self.coordinator.term:
                self.voters.forget_calls()
            self._term, self._source = self.coordinator.term, self._node
            self._number = self._told = self.coordinator.number
            self._fetch_at = None
            self._is_synced()

    def _is_synced(self) -> None:
        if not self.synced:
            self.synced = True
            self._out.append(Notify(SYNCED))

    def _judge_contact(self, now: float) -> None:
        """Freeze when there is no word from the quorum, thaw when there is again; say either once."""
        silent = self._heard is not None and now >= self._heard + self._settings.freeze_after
        frozen = silent or not self._quorate
        if frozen == self.frozen:
            return
        self.frozen = self.parties.frozen = frozen
        if frozen:
            self.voters.forget_calls()
            self.fast_sender.give_up(self.parties.frozen_error("the message may have been sent, or not"))
            self.proposer.withdraw(self.parties.frozen_error("the group operation is not finished"))
        self.pollers.freeze(frozen)
        self._out.append(Publish(CONTACT_TOPIC, {"frozen": frozen}))

    def local_members(self) -> set[str]:
        """Return the parties of this node that are members of any group, as far as is known."""
        mine = (self._node, self.proposer.boot_id)
        groups = self.replica.groups.values()
        return {m.party for group in groups for m in group.members.values() if (m.node, m.boot_id) == mine}

    def check_invariants(self) -> None:
        """Raise AssertionError when one of the machine's invariants does not hold."""
        self.coordinator.check_invariants()
        self.proposer.check_invariants()
        self.fast_sender.check_invariants()
        self.streams.check_invariants()
        for name, group in self.replica.groups.items():
            versions = [decision.version for decision in group.recent]
            first = group.version - len(versions) + 1
            assert versions == list(range(first, group.version + 1)), f"2: {name} at {group.version}: {versions}"
            seen = [event.sequence for decision in group.recent for event in decision.events]
            start = group.sequence - len(seen) + 1
            assert seen == list(range(start, group.sequence + 1)), f"3: {name} at {group.sequence}: {seen}"
