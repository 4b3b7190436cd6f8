"""What one node knows of all groups: the decided state of each, and the latest decisions that led to it.

Pure data; knows neither time nor messages, and decides nothing. A decision is applied exactly when it is the next
version of its group, so replicas that applied the same version are equal whatever was lost, doubled or reordered on
the way. The coordinator works on the replica of its own node.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice, takewhile
from typing import Literal

from .messages import Decision, Event, Frontier, GroupState, Key, Member, Op, Settled, Snapshot, Tally
from .settings import Settings

MEMBER_BYTES = 100  # about what a member, or anything else beside a body, takes in a message
CAST_BYTES = 40  # about what a vote takes without its reason


def weight(decision: Decision) -> int:
    """Return about how many bytes a decision takes in a message."""
    events = sum(MEMBER_BYTES * (1 + len(e.who)) + len(e.body) for e in decision.events)
    return MEMBER_BYTES + events + (tally_weight(decision.tally) if decision.tally else 0)


def tally_weight(tally: Tally) -> int:
    """Return about how many bytes a tally takes in a message."""
    return len(tally.body) + sum(CAST_BYTES + len(cast.why) for votes in tally.rounds for cast in votes)


def advance(frontier: Frontier | None, settled: Settled, window: int) -> Frontier:
    """Return the frontier of a node after `settled`, remembering what came to nothing as far back as it may matter."""
    past = frontier.undone if frontier and frontier.session == settled.session else ()
    undone = tuple(n for n in (*past, *settled.undone) if n > settled.number - 2 * window)
    return Frontier(settled.session, settled.number, undone)


class Group:
    """One group on one node."""

    def __init__(self, state: GroupState, settings: Settings) -> None:
        self._settings = settings
        self.name = state.name
        self.version = state.version
        self.view = state.view
        self.sequence = state.sequence
        self.members: dict[Key, Member] = {member.key: member for member in state.members}
        self.state = state.state
        self.frontiers: dict[int, Frontier] = dict(state.frontiers)
        self.voted: tuple[Op, ...] = state.voted
        self.fast = state.fast  # whether fast messages were ever sent here
        self.recent: deque[Decision] = deque()
        self.tallies: deque[Tally] = deque(maxlen=settings.tallies)
        self._bytes = 0

    def apply(self, decision: Decision) -> None:
        """Take the next step. The caller has checked that it is the next."""
        if decision.voted is not None:
            self.voted = decision.voted
        self.fast = self.fast or decision.fast >= 0
        for event in decision.events:
            if event.kind == "joined":
                self.members.update((member.key, member) for member in event.who)
            elif event.kind in ("left", "failed", "expelled"):
                for member in event.who:
                    del self.members[member.key]
            elif event.kind == "state":
                self.state = event.body
            self.sequence = event.sequence
            if not self.members:
                self.state = b""  # a value belongs to those who agreed on it
                self.fast = False
        for settled in decision.settled:
            self.frontiers[settled.node] = advance(self.frontiers.get(settled.node), settled, self._settings.window)
        self.version = decision.version
        self.view = decision.view
        self.remember((decision,))

    def remember(self, decisions: Iterable[Decision]) -> None:
        """Keep decisions for pollers and lagging nodes, as many as the bounds allow."""
        for decision in decisions:
            self.recent.append(decision)
            self._bytes += weight(decision)
            if decision.tally is not None:
                self.tallies.append(decision.tally)
        while len(self.recent) > self._settings.recent or (
            self._bytes > self._settings.recent_bytes and len(self.recent) > 1
        ):
            self._bytes -= weight(self.recent.popleft())

    def snapshot(self) -> GroupState:
        """Return the whole state as plain data."""
        return GroupState(
            self.name,
            self.version,
            self.view,
            self.sequence,
            tuple(self.members.values()),
            self.state,
            tuple(sorted(self.frontiers.items(), key=lambda item: item[0])),
            self.voted,
            self.fast,
        )

    def events_since(self, since: int) -> tuple[int, list[Event]]:
        """Return the events after `since`, and how many of them are no longer held and thus missed."""
        found: list[Event] = []
        for decision in reversed(self.recent):
            newer = [event for event in decision.events if event.sequence > since]
            found.extend(reversed(newer))
            if len(newer) < len(decision.events):
                break
        return max(0, self.sequence - since - len(found)), found[::-1]

    def decisions_since(self, version: int) -> list[Decision] | None:
        """Return the decisions after `version`, or None if some of them are no longer held."""
        missing = self.version - version
        if missing > len(self.recent):
            return None
        return list(islice(self.recent, len(self.recent) - missing, None))


class Replica:
    """All groups on one node."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.groups: dict[str, Group] = {}

    def get(self, name: str) -> Group:
        """Return the group, which is empty at version 0 if nobody ever joined it; that leaves no trace."""
        return self.groups.get(name) or Group(GroupState(name), self._settings)

    def apply(self, decision: Decision) -> Literal["applied", "known", "gap"]:
        """Apply a decision if it is the next of its group; say whether it was, or why not."""
        group = self.get(decision.group)
        if decision.version <= group.version:
            return "known"
        if decision.version > group.version + 1:
            return "gap"
        group.apply(decision)
        self.groups[decision.group] = group
        return "applied"

    def restore(self, snapshot: Snapshot) -> None:
        """Replace a group by a snapshot."""
        group = Group(snapshot.state, self._settings)
        group.remember(snapshot.recent)
        self.groups[group.name] = group

    def have(self) -> dict[str, int]:
        """Return the version of each group held."""
        return {name: group.version for name, group in sorted(self.groups.items())}

    def missing(self, have: dict[str, int]) -> tuple[list[Decision], list[Snapshot], bool]:
        """Return what a node that holds `have` lacks, at most one batch of it, and whether that is all.

        A node that holds more than is decided (the log was rolled back by force) gets a snapshot, too.
        """
        decisions: list[Decision] = []
        snapshots: list[Snapshot] = []
        room = self._settings.batch_bytes
        for name, group in sorted(self.groups.items()):
            held = have.get(name, 0)
            if held == group.version:
                continue
            if room <= 0:
                return decisions, snapshots, False
            news = group.decisions_since(held) if held < group.version else None
            if news is None:
                recent = self._latest(group)
                snapshots.append(Snapshot(group.snapshot(), recent, held))
                room -= MEMBER_BYTES * (1 + len(group.members)) + sum(map(weight, recent))
                continue
            for decision in news:
                if room <= 0:
                    return decisions, snapshots, False
                decisions.append(decision)
                room -= weight(decision)
        return decisions, snapshots, True

    def _latest(self, group: Group) -> tuple[Decision, ...]:
        room = self._settings.batch_bytes

        def fits(decision: Decision) -> bool:
            nonlocal room
            room -= weight(decision)
            return room >= 0

        return tuple(reversed(list(takewhile(fits, reversed(group.recent)))))
