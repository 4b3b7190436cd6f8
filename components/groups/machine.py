"""Group Services on one node, as a pure machine: serves the local parties, and coordinates where the primary is.

Its parts: `replica` (what is decided), `proposer` (what local parties want), `pollers` (who waits for events), and
`coordinator` (asleep unless this node has the registry's primary). The machine itself keeps the replica level with the
coordinator's announcements, and knows when it has lost contact. It must not know sockets, clocks or threads.

Odd: a committed decision is true whoever tells of it and in whatever term, so it is applied as soon as it is the next
of its group; terms and announcement numbers only serve to see that something is missing.
"""

from __future__ import annotations

from typing import Any

from ... import errors
from ...bus.machine import Address, Asked, Effect, Notify, Publish, Received, Reply, Send
from ..liveness.messages import ViewChanged
from ..registry.messages import Leading, SystemAppended, SystemRead, SystemRefused
from .coordinator import Coordinator
from .messages import (
    SERVICE,
    Announce,
    Beat,
    Broadcast,
    Caught,
    Decision,
    Fetch,
    JoinGroup,
    LeaveGroup,
    ListGroups,
    Outdated,
    PartyGone,
    Poll,
    Propose,
    SetState,
    Show,
    Snapshot,
)
from .pollers import Pollers
from .proposer import Proposer
from .replica import Replica
from .settings import NAME, SYSTEM_PREFIX, Settings

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
        self.pollers = Pollers(self._settings, self.replica, self._out)
        self.proposer = Proposer(node, boot_id, session, self._settings, self.replica, self._out)
        self.coordinator = Coordinator(
            node, session, self._settings, self.replica, self._out, self._decided, self._restored
        )

    # --- the shape of a machine ----------------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When `step` must be called next though nothing happened."""
        times = [self.coordinator.deadline, self.proposer.deadline, self.pollers.deadline, self._fetch_at]
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
            self._asked(now, input)
        elif isinstance(input, PartyGone):
            self.proposer.party_gone(now, input.party)
        self.coordinator.tick(now)
        self._follow_own(now)
        self.proposer.tick(now)
        self.pollers.tick(now)
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
        elif isinstance(message, Propose):
            self.coordinator.proposed(now, node, message, cause)
        elif isinstance(message, Fetch):
            self.coordinator.fetched(node, message, cause)
        elif isinstance(message, Outdated):
            self.proposer.outdated(now, message.group, message.session)
        elif isinstance(message, Beat):
            if self._word(now, node, message.term):
                self._heard_of(now, message.number)
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
        self.proposer.primary = leading.primary
        if leading.primary != self._node:
            self.coordinator.retire()
        else:
            self.coordinator.lead(now, leading.epoch)
        if changed:
            self.proposer.repeat(now)
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
            self.proposer.repeat(now)
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

    def _caught(self, now: float, node: int, message: Caught) -> None:
        for decision in message.decisions:
            self._decided(decision)
        if not self._word(now, node, message.term) or message.session != self._session:
            return
        for snapshot in message.snapshots:
            held = self.replica.get(snapshot.state.name).version
            if snapshot.state.version > held or snapshot.instead_of == held:
                self._restored(snapshot)
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
        self._out.append(Send(Address(SERVICE, self._source), Fetch(self._session, self.replica.have())))

    def _decided(self, decision: Decision) -> str:
        """A decision is known to be durable: apply it if it is the next of its group."""
        outcome = self.replica.apply(decision)
        if outcome == "applied":
            self.proposer.settle(self._now, self.replica.groups[decision.group], decision)
            self.pollers.wake(decision.group)
        return outcome

    def _restored(self, snapshot: Snapshot) -> None:
        """This node lagged too far in a group, and takes it over whole."""
        self.replica.restore(snapshot)
        self.proposer.settle(self._now, self.replica.groups[snapshot.state.name], None)
        self.pollers.wake(snapshot.state.name)

    def _follow_own(self, now: float) -> None:
        """Where the coordinator is, the replica is level by itself."""
        if self.coordinator.state == "leading":
            self._heard = now
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
        self.frozen = frozen
        if frozen:
            self.proposer.withdraw(self._frozen_error("the group operation is not finished"))
        self.pollers.freeze(frozen)
        self._out.append(Publish(CONTACT_TOPIC, {"frozen": frozen}))

    def local_members(self) -> set[str]:
        """Return the parties of this node that are members of any group, as far as is known."""
        mine = (self._node, self.proposer.boot_id)
        groups = self.replica.groups.values()
        return {m.party for group in groups for m in group.members.values() if (m.node, m.boot_id) == mine}

    # --- what local parties ask --------------------------------------------------------------------------------------

    def _asked(self, now: float, asked: Asked) -> None:
        question, cause = asked.question, asked.cause
        try:
            if isinstance(question, Poll):
                self.pollers.ask(now, asked.request, question, cause)
            elif isinstance(question, Show):
                self._out.append(Reply(asked.request, self._show(question.group), cause))
            elif isinstance(question, ListGroups):
                self._out.append(Reply(asked.request, self._list(), cause))
            else:
                self._wanted(now, asked)
        except errors.CoveyError as error:
            self._out.append(Reply(asked.request, error, cause))

    def _wanted(self, now: float, asked: Asked) -> None:
        """A party wants to change something or to be heard: check what can be known here, then propose it."""
        question, request, cause = asked.question, asked.request, asked.cause
        name, party = question.group, question.party
        self._check(question)
        if self.frozen:
            raise self._frozen_error("nothing was done")
        member = (self._node, self.proposer.boot_id, party) in self.replica.get(name).members
        pending = self.proposer.wants(name, party)
        if isinstance(question, JoinGroup):
            if member and pending is None:
                result = self.proposer.result(self.replica.get(name), "join", party)
                self._out.append(Reply(request, result, cause))
                return
            self.proposer.add(now, name, "join", party, question.state, request, cause)
            return
        if not (member if pending is None else pending):
            raise errors.NotMember(f"{party} is no member of the group {name}", "join it first")
        if isinstance(question, LeaveGroup):
            self.proposer.add(now, name, "leave", party, b"", request, cause)
        elif isinstance(question, Broadcast):
            self.proposer.add(now, name, "message", party, question.body, request, cause)
        elif isinstance(question, SetState):
            self.proposer.add(now, name, "state", party, question.value, request, cause)

    def _check(self, question: JoinGroup | LeaveGroup | Broadcast | SetState) -> None:
        name, most = question.group, self._settings.body_bytes
        if not NAME.fullmatch(name):
            hint = "1 to 64 of the characters a-z 0-9 . _ -"
            raise errors.UsageError(f"'{name}' is no name for a group", hint)
        if isinstance(question, JoinGroup):
            if name.startswith(SYSTEM_PREFIX) and not question.component:
                raise errors.Denied(f"the group {name} is for covey's own components", "choose a name without sys.")
            if name not in self.replica.groups and len(self.replica.groups) >= self._settings.groups:
                raise errors.Refused(f"the cluster has {len(self.replica.groups)} groups, the most it can have")
            body = question.state
        elif isinstance(question, Broadcast):
            body = question.body
        else:
            body = question.value if isinstance(question, SetState) else b""
        if len(body) > most:
            text = f"{len(body)} bytes were to go to the group {name}; {most} are allowed"
            raise errors.TooLarge(text, "put it in the registry and tell the group its key")

    @staticmethod
    def _frozen_error(consequence: str) -> errors.Frozen:
        text = f"this node has no contact to the quorum, so its groups stand still; {consequence}"
        return errors.Frozen(text, "ask again when `covey cluster status` says quorate")

    def _show(self, name: str) -> dict[str, Any]:
        group = self.replica.get(name)
        if not group.members:
            raise errors.NotFound(f"there is no group {name}", "`covey group ls` shows those there are")
        return {
            "name": name,
            "view": group.view,
            "sequence": group.sequence,
            "members": list(group.members.values()),
            "state": group.state,
            "phase": self._phase(),
        }

    def _phase(self) -> str:
        """How a group stands, as people see it; with votes there will be more."""
        return "frozen" if self.frozen else "idle"

    def _list(self) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "view": group.view,
                "members": len(group.members),
                "sequence": group.sequence,
                "phase": self._phase(),
            }
            for name, group in sorted(self.replica.groups.items())
            if group.members
        ]

    def check_invariants(self) -> None:
        """Raise AssertionError when one of the machine's invariants does not hold."""
        self.coordinator.check_invariants()
        self.proposer.check_invariants()
        for name, group in self.replica.groups.items():
            versions = [decision.version for decision in group.recent]
            first = group.version - len(versions) + 1
            assert versions == list(range(first, group.version + 1)), f"2: {name} at {group.version}: {versions}"
            seen = [event.sequence for decision in group.recent for event in decision.events]
            start = group.sequence - len(seen) + 1
            assert seen == list(range(start, group.sequence + 1)), f"3: {name} at {group.sequence}: {seen}"
