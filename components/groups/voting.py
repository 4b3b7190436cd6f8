"""One vote, as the coordinator holds it: rounds of votes until the proposal is decided, rejected or withdrawn.

Pure; knows no messages and decides nothing but this. Any reject ends it at once. When all voters of a round have
spoken, or its deadline is over, all approving decides it; so does a last round without a reject; else the next round
begins. A member that is gone, silent or has nobody to vote for it has the default vote. A failure is never put to the
vote, and who is to be expelled has no voice in that.

A vote lives in the coordinator's memory only: it comes to something when its decision is durable, and to nothing when
the coordinator is gone before that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Literal

from .drafting import Draft, Queued, change_events
from .messages import Cast, Decision, Event, How, Key, Kind, Member, Outcome, Settled, Tally, Terms, ViewId, Vote, shown
from .replica import Group

AUDITED = 50  # votes that the audit log names; the transcript has all

WHY = 200  # characters of one reason; a member may say more, nobody keeps it
WHYS = 32 * 1024  # characters of all reasons in one tally

Finding = Literal["against", "unanimous", "mixed"]

STEPS: dict[tuple[Finding, bool], Outcome | Literal["next"]] = {
    # what the votes of a round say, and whether it was the last round
    ("against", False): "rejected",
    ("against", True): "rejected",
    ("unanimous", False): "decided",
    ("unanimous", True): "decided",
    ("mixed", False): "next",
    ("mixed", True): "decided",
}


class Ballot:
    """A proposal before the members. `protocol` is the version that its decision will have."""

    def __init__(self, protocol: int, item: Queued, terms: Terms, voters: Iterable[Member], now: float) -> None:
        self.protocol = protocol
        self.item = item
        self.terms = terms
        self.phase = 1
        self.until = now + terms.deadline
        self.called = now  # when it was last said to the nodes
        self.withdrawn = False
        target = item.proposal.target
        self._voters = [member.key for member in voters if target is None or member.key != target.key]
        self._casts: dict[Key, Cast] = {}
        self._rounds: list[tuple[Cast, ...]] = []
        self._room = WHYS

    def cast(self, key: Key, phase: int, vote: Vote | None, why: str) -> None:
        """Take a vote of the present round; the first of each member counts."""
        if phase == self.phase and key in self._voters:
            self._note(key, vote, why, "voted" if vote else "abstained")

    def _note(self, key: Key, vote: Vote | None, why: str, how: How) -> None:
        if key not in self._casts:
            why = why[: min(WHY, self._room)]
            self._room -= len(why)
            self._casts[key] = Cast(key[0], key[2], vote or self.terms.default, why, how)

    def missing(self) -> set[int]:
        """Return the nodes with members that have not voted in this round."""
        return {key[0] for key in self._voters if key not in self._casts}

    def judge(self, now: float, gone: Collection[Key]) -> Outcome | Literal["next"] | None:
        """Return how it ended, that the next round begins now, or None while votes are missing."""
        if self.withdrawn:
            self._end_round()
            return "withdrawn"
        for key in self._voters:
            if key in gone:
                self._note(key, None, "", "gone")
            elif now >= self.until:
                self._note(key, None, "", "silent")
        votes = [cast.vote for cast in self._casts.values()]
        if "reject" not in votes and len(votes) < len(self._voters):
            return None
        finding: Finding = "against" if "reject" in votes else "mixed" if "continue" in votes else "unanimous"
        step = STEPS[finding, self.phase >= self.terms.phases]
        self._end_round()
        if step == "next":
            self.phase += 1
            self.until = now + self.terms.deadline
        return step

    def _end_round(self) -> None:
        self._rounds.append(tuple(self._casts[key] for key in self._voters if key in self._casts))
        self._casts = {}

    def draft(self, group: Group, outcome: Outcome, view: ViewId, limit: int, rest: list[Queued]) -> Draft:
        """Return the decision that this outcome is. `limit`: of members; `rest` waits on behind it."""
        node, session, proposal = self.item.node, self.item.session, self.item.proposal
        who = group.members.get(self.item.key) or Member(*self.item.key)
        done = Settled(node, session, proposal.number)
        undone = Settled(node, session, proposal.number, (proposal.number,))
        rounds = tuple(self._rounds)
        tally = Tally(
            self.protocol, proposal.op, who, session, proposal.number, proposal.body, proposal.target, self.terms,
            outcome, rounds,
        )  # fmt: skip
        settled, events = done, []
        if outcome != "decided":
            settled = undone
            events = [Event("rejected", group.sequence + 1, group.view, (who,), proposal.body, proposal.number)]
        elif proposal.op in ("join", "expel"):
            events = change_events(group, self.item, view, limit)
            if not events:  # there is no such member any more, or no room for another
                settled = undone
        else:
            kind: Kind = "state" if proposal.op == "state" else "decided"
            events = [Event(kind, group.sequence + 1, group.view, (who,), proposal.body, proposal.number)]
        after = max((event.view for event in events), default=group.view)
        return Draft(
            Decision(group.name, self.protocol, after, tuple(events), (settled,), tally), rest, self.item.cause
        )


def voted(group: str, tally: Tally) -> dict[str, Any]:
    """Return what the audit log keeps of a vote: what, by whom, the outcome, and who voted what and why."""
    casts = [(phase, cast) for phase, votes in enumerate(tally.rounds, 1) for cast in votes]
    casts.sort(key=lambda each: each[1].vote != "reject")
    return {
        "group": group,
        "protocol": tally.protocol,
        "proposal": shown(tally.op),
        "by": f"{tally.who.party}@{tally.who.node}",
        "outcome": tally.outcome,
        "votes": [[phase, f"{c.party}@{c.node}", c.vote, c.why or c.how] for phase, c in casts[:AUDITED]],
        "more": max(0, len(casts) - AUDITED),
    }
