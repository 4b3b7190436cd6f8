"""How one decision is drafted from what waits: membership changes first and together, then messages.

A pure function of the group, the queue and the membership view. A node's proposals are settled in the order it made
them, so a leave does not overtake an earlier message of its own node; it does overtake those of others. What is put to
the vote is not drafted here (`voting.py`): it gets its turn when nothing before it waits any more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from .messages import Decision, Event, Key, Kind, Member, Proposal, Settled, Terms, ViewId
from .replica import Group
from .settings import Settings


class Queued(NamedTuple):
    """A proposal at the coordinator, and whose it is."""

    node: int
    boot_id: str
    session: int
    proposal: Proposal
    cause: str

    @property
    def key(self) -> Key:
        """The member that it is about."""
        return (self.node, self.boot_id, self.proposal.party)


def put_to_vote(group: Group, proposal: Proposal) -> Terms | None:
    """Return the terms on which a proposal is voted on: its own, or the standard ones for what the group votes on."""
    if proposal.op == "void" or not group.members:
        return None
    return proposal.terms or (Terms() if proposal.op in group.voted else None)


def may_speak(group: Group, item: Queued) -> bool:
    """Return whether a proposal comes from a member, or from one who speaks from outside to a group that exists."""
    return item.key in group.members or (item.proposal.outside and bool(group.members))


def terms_of(group: Group, item: Queued) -> Terms | None:
    """Return the terms on which this is put to the vote; None if it is not, or if there is nothing to vote on."""
    moot = item.key in group.members if item.proposal.op == "join" else not may_speak(group, item)
    return None if moot else put_to_vote(group, item.proposal)


class Draft(NamedTuple):
    """A decision not yet durable, and what waits on behind it."""

    decision: Decision
    rest: list[Queued]
    cause: str


class _Settling:
    """Collects what a decision settles, node by node."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[int, int]] = {}
        self._undone: dict[int, list[int]] = {}
        self.cause = ""

    def add(self, item: Queued, done: bool = True) -> None:
        self._last[item.node] = (item.session, item.proposal.number)
        if not done:
            self._undone.setdefault(item.node, []).append(item.proposal.number)
        self.cause = self.cause or item.cause

    def result(self) -> tuple[Settled, ...]:
        return tuple(
            Settled(node, session, number, tuple(self._undone.get(node, ())))
            for node, (session, number) in sorted(self._last.items())
        )


class _Changes:
    """The membership changes of one decision."""

    def __init__(self, group: Group, lost: Collection[Key], view: ViewId, limit: int) -> None:
        self._group = group
        self._view = view
        self._limit = limit
        self.failed = [member for key, member in group.members.items() if key in lost]
        self.left: list[Member] = []
        self.expelled: list[tuple[Member, Queued]] = []
        self.joined: list[Queued] = []
        self._touched = set(lost)

    def __len__(self) -> int:
        return self._gone + len(self.joined)

    @property
    def _gone(self) -> int:
        return len(self.failed) + len(self.left) + len(self.expelled)

    @property
    def survivors(self) -> int:
        """How many of the members stay."""
        return len(self._group.members) - self._gone

    def take(self, item: Queued) -> bool | None:
        """Return whether the change comes about; None: not in this decision, which changes that member already."""
        if item.proposal.op == "void":
            return False
        target = item.proposal.target
        key = target.key if target else item.key
        if key in self._touched:
            return None
        self._touched.add(key)
        member = self._group.members.get(key)
        if item.proposal.op == "join":
            size = self.survivors + len(self.joined)
            if member is None and size >= self._limit:
                return False
            if member is None:
                self.joined.append(item)
            return True
        if member is None or (target is not None and not may_speak(self._group, item)):
            return False
        if target is not None:
            self.expelled.append((member, item))
        else:
            (self.left if item.proposal.op == "leave" else self.failed).append(member)
        return True

    def events(self) -> list[Event]:
        """Return one event for each kind of change, those who go before those who come."""
        sequence, view = self._group.sequence, self._group.view + 1
        found: list[Event] = []

        def add(kind: Kind, who: tuple[Member, ...], body: bytes = b"") -> None:
            if who:
                found.append(Event(kind, sequence + len(found) + 1, view, who, body))

        add("failed", tuple(self.failed))
        add("left", tuple(self.left))
        for member, item in self.expelled:
            add("expelled", (member,), item.proposal.body)
        joined = sequence + len(found) + 1
        add("joined", tuple(Member(*item.key, joined=joined, view=self._view) for item in self.joined))
        if self.joined and not self.survivors and self.joined[0].proposal.body:
            first = self.joined[0]
            add("state", (Member(*first.key, joined=joined, view=self._view),), first.proposal.body)
        return found


def change_events(group: Group, item: Queued, view: ViewId, limit: int) -> list[Event]:
    """Return the events of one membership change alone; none if there is nothing to change."""
    changes = _Changes(group, (), view, limit)
    changes.take(item)
    return changes.events()


def draft(
    group: Group,
    queue: list[Queued],
    lost: Collection[Key],
    view: ViewId,
    nodes: Mapping[int, str],
    settings: Settings,
) -> Draft | None:
    """Return the next decision of a group, or None when nothing waits.

    `lost` are members known to be dead, `nodes` the boot id of each node in membership view `view`: what a node
    outside it proposed is dropped.
    """
    queue = [item for item in queue if nodes.get(item.node) == item.boot_id]
    settling = _Settling()
    changes = _Changes(group, lost, view, settings.members)
    rest: list[Queued] = []
    behind: set[int] = set()
    for item in queue:
        wanted = item.node not in behind and _changes_members(item.proposal) and terms_of(group, item) is None
        done = changes.take(item) if wanted and len(changes) < settings.members else None
        if done is None:
            behind.add(item.node)
            rest.append(item)
        else:
            settling.add(item, done)
    events = changes.events()
    group_view = group.view + 1 if events else group.view
    if not events:
        events, rest = _messages(group, rest, settling, settings)
    if not events and not settling.result():
        return None
    voted = changes.joined[0].proposal.voted if changes.joined and not changes.survivors else None
    decision = Decision(group.name, group.version + 1, group_view, tuple(events), settling.result(), voted=voted)
    return Draft(decision, rest, settling.cause)


def _changes_members(proposal: Proposal) -> bool:
    """A vote that was withdrawn goes with the messages: those who were asked are told that it came to nothing."""
    if proposal.op == "void":
        return proposal.terms is None
    return proposal.op not in ("message", "state", "propose")


def _messages(
    group: Group, queue: list[Queued], settling: _Settling, settings: Settings
) -> tuple[list[Event], list[Queued]]:
    events: list[Event] = []
    rest: list[Queued] = []
    behind: set[int] = set()
    room = settings.batch_bytes
    full = False
    for item in queue:
        op, body = item.proposal.op, item.proposal.body
        full = full or len(events) >= settings.window or (len(body) > room and bool(events))
        full = full or terms_of(group, item) is not None  # what came after it waits for it
        if full or item.node in behind or _changes_members(item.proposal):
            behind.add(item.node)
            rest.append(item)
            continue
        speaks = may_speak(group, item)
        settling.add(item, done=speaks and op in ("message", "state"))
        if speaks:
            kind: Kind = "rejected" if op == "void" else "message" if op == "message" else "state"
            sequence, who = group.sequence + len(events) + 1, group.members.get(item.key) or Member(*item.key)
            events.append(Event(kind, sequence, group.view, (who,), body, item.proposal.number))
            room -= len(body)
    return events, rest
