"""One group's work at the coordinator: what waits, what was taken in of each node, the vote and the decision under way.

Knows one group and no message to anybody. A node's proposals are taken in once each and in order.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from ..registry.messages import AppendSystem
from .drafting import Queued
from .messages import Decision, Frontier, Key, Propose
from .voting import Ballot


class Flight:
    """One decision on its way to the log."""

    def __init__(self, append: AppendSystem, decision: Decision, cause: str, now: float) -> None:
        self.append = append
        self.decision = decision
        self.cause = cause
        self.sent = now


class Taken(NamedTuple):
    """What became of a node's `Propose`: `outdated` says the session it must be above, `settled` that all was done."""

    outdated: int = 0
    settled: bool = False


class Desk:
    """The work on one group. A vote and a decision are never under way together."""

    def __init__(self) -> None:
        self.queue: list[Queued] = []
        self.accepted: dict[int, tuple[int, int]] = {}
        self.lost: set[Key] = set()
        self.flight: Flight | None = None
        self.ballot: Ballot | None = None
        self.ready = False
        self.mark = False  # the group is to have fast messages
        self.blocked = False  # until all is known of the fast messages there were

    @property
    def busy(self) -> bool:
        """Whether it waits for something else than proposals."""
        return self.ballot is not None or self.blocked

    def take(self, node: int, message: Propose, frontier: Frontier | None, room: int, cause: str) -> Taken:
        """Take proposals in, at most `room` waiting; what is too early or too much is repeated by its sender."""
        settled = (frontier.session, frontier.number) if frontier else (0, 0)
        session, last = max(self.accepted.get(node, settled), settled)
        if message.session < session:
            return Taken(outdated=session)
        if message.session > session:
            self.drop(node)
            last = 0
        for proposal in message.proposals:
            if proposal.number == last + 1 and len(self.queue) < room:
                self.queue.append(Queued(node, message.boot_id, message.session, proposal, cause))
                last = proposal.number
            elif proposal.op == "void" and proposal.number <= last:
                self._withdraw(node, proposal.number)
        self.accepted[node] = (message.session, last)
        done = bool(message.proposals) and message.proposals[-1].number <= settled[1] and message.session == settled[0]
        return Taken(settled=done)

    def drop(self, node: int) -> None:
        """A node's former life wants nothing any more."""
        self.queue = [item for item in self.queue if item.node != node]
        if self.ballot is not None and self.ballot.item.node == node:
            self.ballot.withdrawn = True

    def _withdraw(self, node: int, number: int) -> None:
        for place, item in enumerate(self.queue):
            if item.node == node and item.proposal.number == number:
                void = msgspec.structs.replace(item.proposal, op="void", body=b"", terms=None)
                self.queue[place] = item._replace(proposal=void)
        ballot = self.ballot
        if ballot is not None and ballot.item.node == node and ballot.item.proposal.number == number:
            ballot.withdrawn = True

    def gone(self) -> set[Key]:
        """Return the members that will not vote any more: they are dead, or about to leave."""
        return self.lost | {item.key for item in self.queue if item.proposal.op in ("leave", "failed")}
