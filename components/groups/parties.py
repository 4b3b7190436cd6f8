"""What the parties of this node ask of Group Services: answered at once, made a proposal, or refused.

Knows this node's part of the machine and no other node. What a party is told of a proposal comes when it is settled
(`proposer.py`), of a fast message when it is in its place (`fast_sender.py`).
"""

from __future__ import annotations

from typing import Any

from ... import errors
from ...bus.machine import Asked, Effect, Reply
from . import wishes
from .fast import Streams
from .fast_sender import FastSender
from .messages import Tally, shown
from .pollers import Pollers
from .proposer import Proposer, votes_of
from .questions import (
    AwaitVote,
    Broadcast,
    CastVote,
    JoinGroup,
    LeaveGroup,
    ListGroups,
    Poll,
    Show,
    Transcript,
    Wish,
)
from .replica import Group, Replica
from .settings import Settings
from .voters import Voters


class Parties:
    """The questions of local parties. `frozen`: nothing can be changed just now."""

    def __init__(
        self,
        node: int,
        settings: Settings,
        replica: Replica,
        streams: Streams,
        pollers: Pollers,
        proposer: Proposer,
        fast_sender: FastSender,
        voters: Voters,
        out: list[Effect],
    ) -> None:
        self._node = node
        self._settings = settings
        self._replica = replica
        self._streams = streams
        self._pollers = pollers
        self._proposer = proposer
        self._fast_sender = fast_sender
        self._voters = voters
        self._out = out
        self.frozen = False

    def asked(self, now: float, asked: Asked) -> None:
        """Answer a question, now or when it is settled."""
        question, cause = asked.question, asked.cause
        try:
            if isinstance(question, Poll):
                wishes.check_name(question.group)
                self._pollers.ask(now, asked.request, question, cause)
            elif isinstance(question, AwaitVote):
                self._voters.ask(now, asked.request, question, cause)
            elif isinstance(question, Show | ListGroups | Transcript | CastVote):
                self._out.append(Reply(asked.request, self._answer(question), cause))
            else:
                self._wanted(now, asked)
        except errors.CoveyError as error:
            self._out.append(Reply(asked.request, error, cause))

    def _answer(self, question: Show | ListGroups | Transcript | CastVote) -> Any:
        if isinstance(question, Show | Transcript):
            wishes.check_name(question.group)
        if isinstance(question, Show):
            return self._show(question.group)
        if isinstance(question, Transcript):
            return [tally_dict(tally) for tally in self._known(question.group).tallies]
        return self._list() if isinstance(question, ListGroups) else self._voters.cast(question)

    def _wanted(self, now: float, asked: Asked) -> None:
        """A party wants to change something or to be heard: check what can be known here, then propose it."""
        question: Wish = asked.question
        request, cause = asked.request, asked.cause
        name, party = question.group, question.party
        wishes.check(question, name in self._replica.groups, len(self._replica.groups), self._settings)
        if self.frozen:
            raise self.frozen_error("nothing was done")
        group = self._replica.get(name)
        member = (self._node, self._proposer.boot_id, party) in group.members
        pending = self._proposer.wants(name, party)
        if isinstance(question, JoinGroup):
            if member and pending is None:
                self._out.append(Reply(request, self._proposer.result(group, "join", party), cause))
                return
        elif not isinstance(question, LeaveGroup) and question.outside:
            self._known(name)
        elif not (member if pending is None else pending):
            raise errors.NotMember(f"{party} is no member of the group {name}", "join it first")
        if isinstance(question, Broadcast) and question.fast:
            self._fast_sender.add(now, name, party, question.body, request, cause)
        else:
            self._proposer.add(now, name, wishes.proposal(question, group), request, cause)

    @staticmethod
    def frozen_error(consequence: str) -> errors.Frozen:
        """Return what a party is told while there is no contact to the quorum."""
        text = f"this node has no contact to the quorum, so its groups stand still; {consequence}"
        return errors.Frozen(text, "ask again when `covey cluster status` says quorate")

    def _known(self, name: str) -> Group:
        group = self._replica.get(name)
        if not group.members:
            raise errors.NotFound(f"there is no group {name}", "`covey group ls` shows those there are")
        return group

    def _show(self, name: str) -> dict[str, Any]:
        group = self._known(name)
        return {
            "name": name,
            "view": group.view,
            "sequence": group.sequence,
            "members": list(group.members.values()),
            "state": group.state,
            "voted": list(group.voted),
            "fast": self._streams.cursor(group),
            "phase": self.phase(name),
        }

    def phase(self, name: str) -> str:
        """How a group stands, as people see it: `idle`, `frozen`, or how far its vote is."""
        return "frozen" if self.frozen else self._voters.phase(name) or "idle"

    def _list(self) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "view": group.view,
                "members": len(group.members),
                "sequence": group.sequence,
                "phase": self.phase(name),
            }
            for name, group in sorted(self._replica.groups.items())
            if group.members
        ]


def tally_dict(tally: Tally) -> dict[str, Any]:
    """Return a vote of a transcript, with its members and its body as they are in the machine."""
    return {
        "protocol": tally.protocol,
        "op": shown(tally.op),
        "proposer": tally.who,
        "target": tally.target,
        "body": tally.body,
        "phases": tally.terms.phases,
        "default": tally.terms.default,
        "outcome": tally.outcome,
        "votes": votes_of(tally),
    }
