"""What this node's parties want of each group and what became of it: numbered, repeated, settled or withdrawn.

Every proposal of this node in a group has the next number of a line. The line is sent to the coordinator from its
lowest unsettled number, again and again, and is settled from the front by the decisions that this node applies; so an
answer to a party never comes before its node has what it tells of. A proposal that nobody waits for any more is not
forgotten but turned void, because it may have been decided already: settled as void, it surely came to nothing.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from ... import errors
from ...bus.machine import Address, Effect, Reply, Send
from .drafting import put_to_vote
from .fast import Streams
from .messages import SERVICE, Decision, Frontier, Op, Proposal, Propose, Tally
from .replica import Group, Replica
from .settings import Settings


class Item:
    """One proposal of this node that is not settled."""

    def __init__(self, wish: Proposal, request: int | None, until: float, cause: str) -> None:
        self.number = wish.number
        self.wish = wish
        self.request = request
        self.until = until  # when to withdraw it, and once it is withdrawn, when to give up
        self.withdrawn = ""  # why
        self.cause = cause

    @property
    def op(self) -> Op:
        """What is wanted."""
        return self.wish.op

    @property
    def party(self) -> str:
        """Who wants it."""
        return self.wish.party

    def withdraw(self, why: str) -> None:
        """Nobody waits for it any more. What members may have been asked to vote on, they are told the end of."""
        self.withdrawn = why
        if self.wish.terms is None:
            self.wish = msgspec.structs.replace(self.wish, body=b"")

    def proposal(self) -> Proposal:
        """Return it as the coordinator gets it."""
        op: Op = "void" if self.withdrawn else self.op
        return msgspec.structs.replace(self.wish, number=self.number, op=op)


class Line:
    """This node's proposals in one group, in order."""

    def __init__(self, session: int) -> None:
        self.session = session
        self.last = 0
        self.sent = 0
        self.items: list[Item] = []
        self.repeat_at = 0.0


class Proposer:
    """Bring this node's proposals to a decision. Invariant: a line's numbers are consecutive and end at `last`."""

    def __init__(
        self,
        node: int,
        boot_id: str,
        session: int,
        settings: Settings,
        replica: Replica,
        streams: Streams,
        out: list[Effect],
    ) -> None:
        self._streams = streams
        self._node = node
        self.boot_id = boot_id
        self._session = session
        self._settings = settings
        self._replica = replica
        self._out = out
        self._lines: dict[str, Line] = {}
        self._busy: dict[str, Line] = {}  # those with something unsettled
        self._look_at = 0.0  # nothing is due before; with a thousand busy groups it is dear to look
        self.primary = 0
        self._patience: dict[str, float] = {}  # until when to wait behind a vote, in each group

    # --- in ------------------------------------------------------------------------------------------------------

    def add(self, now: float, group: str, wish: Proposal, request: int | None, cause: str) -> None:
        """Propose something for a party; `request` is the question to answer when it is settled, if any."""
        line = self._lines.setdefault(group, Line(self._session))
        if request is not None and len(line.items) >= self._settings.queue:
            text = f"{len(line.items)} proposals of this node wait in the group {group}"
            self._reply(request, errors.Overloaded(text, "wait for answers before you send more"), cause)
            return
        self._busy[group] = line
        line.last += 1
        terms = put_to_vote(self._replica.get(group), wish)
        voting = terms.phases * terms.deadline if terms else 0.0
        wish = msgspec.structs.replace(wish, number=line.last, terms=terms or wish.terms)
        line.items.append(Item(wish, request, now + voting + self._settings.decide_within, cause))
        if len(line.items) == 1:
            line.repeat_at = now + self._settings.repeat
        self._look_at = min(self._look_at, line.repeat_at)
        self._send_new(group, line)

    def held_up(self, now: float, group: str, left: float | None = None) -> None:
        """A vote holds up what waits in a group, for `left` seconds at most; None: no more."""
        if left is not None or (group in self._patience and group in self._busy):
            self._patience[group] = now + (left or 0.0) + self._settings.decide_within
        else:
            self._patience.pop(group, None)

    def wants(self, group: str, party: str) -> bool | None:
        """Return whether the party will be a member when its proposals are settled; None: they change nothing."""
        line = self._lines.get(group)
        for item in reversed(line.items if line else []):
            if item.party == party and item.op in ("join", "leave", "failed"):
                return item.op == "join"
        return None

    def party_gone(self, now: float, party: str) -> None:
        """A party is dead: make it leave every group that it is in or about to join."""
        key = (self._node, self.boot_id, party)
        for name in sorted(self._replica.groups.keys() | self._busy.keys()):
            wanted = self.wants(name, party)
            if wanted or (wanted is None and key in self._replica.get(name).members):
                self.add(now, name, Proposal(0, "failed", party), None, "")

    # --- out -----------------------------------------------------------------------------------------------------

    def repeat(self, now: float) -> None:
        """Send every line anew: there is a new coordinator. A vote that the former one held is not held again."""
        self._patience.clear()
        self._look_at = now
        for name, line in sorted(self._busy.items()):
            for item in line.items:
                if item.wish.terms is not None and item.number <= line.sent and not item.withdrawn:
                    item.withdraw("the coordinator changed before the vote was decided")
                    item.until = now + self._settings.decide_within
            self._send_all(now, name, line)

    def _send_all(self, now: float, group: str, line: Line) -> None:
        line.sent = 0
        line.repeat_at = now + self._settings.repeat
        self._send_new(group, line)

    def _send_new(self, group: str, line: Line) -> None:
        """Send what was not sent yet and fits into the window."""
        chosen: list[Item] = []
        room = self._settings.batch_bytes
        for item in line.items[: self._settings.window]:
            room -= len(item.wish.body)
            if room < 0 and item is not line.items[0]:
                break
            if item.number > line.sent:
                chosen.append(item)
        if self.primary and chosen:
            line.sent = chosen[-1].number
            proposals = tuple(item.proposal() for item in chosen)
            message = Propose(group, self.boot_id, line.session, proposals)
            self._out.append(Send(Address(SERVICE, self.primary), message, chosen[0].cause))

    def outdated(self, now: float, group: str, session: int) -> None:
        """The coordinator knows a later session of this node in that group: number the line anew above it."""
        line = self._lines.get(group)
        if line is None or line.session >= session:
            return  # the answer to a proposal of this node's former life, which came late
        line.session = session + 1
        line.last = len(line.items)
        for number, item in enumerate(line.items, 1):
            item.number = number
        self._send_all(now, group, line)

    # --- settled -------------------------------------------------------------------------------------------------

    def settle(self, now: float, group: Group, decision: Decision | None) -> None:
        """The replica of a group has moved: answer what its frontier covers. `decision`: the step, if it was one."""
        line, frontier = self._lines.get(group.name), group.frontiers.get(self._node)
        if line is None or frontier is None or frontier.session != line.session:
            return
        moved = False
        while line.items and line.items[0].number <= frontier.number:
            self._answer(group, line.items.pop(0), frontier, decision)
            moved = True
        if not line.items:
            self._busy.pop(group.name, None)
        elif moved:
            line.repeat_at = now + self._settings.repeat
            self._send_new(group.name, line)

    def _answer(self, group: Group, item: Item, frontier: Frontier, decision: Decision | None) -> None:
        if item.request is None:
            return
        undone = item.number in frontier.undone
        tally = self._tally(group, item) if item.wish.terms is not None else None
        if undone and tally is not None and tally.outcome == "rejected":
            self._reply(item.request, rejected(group.name, tally), item.cause)
        elif undone and item.withdrawn:
            error = errors.CoordinatorChanged(item.withdrawn, "nobody got it; propose again")
            self._reply(item.request, error, item.cause)
        elif undone and item.wish.target is not None and tally is None:
            text = f"{item.wish.target.party} is no member of the group {group.name} any more"
            self._reply(item.request, errors.NotFound(text, "`covey group show` shows who is"), item.cause)
        elif undone and item.op == "join":
            text = f"the group {group.name} has {len(group.members)} members, which is all it can have"
            self._reply(item.request, errors.Refused(text, "use several groups"), item.cause)
        elif item.op == "join" and (self._node, self.boot_id, item.party) not in group.members:
            text = f"{item.party} joined the group {group.name} and was lost before this node heard of it"
            self._reply(item.request, errors.NotMember(text, "join again"), item.cause)
        elif undone and item.op != "leave":
            text = f"{item.party} is no member of the group {group.name}"
            self._reply(item.request, errors.NotMember(text, "join it first"), item.cause)
        else:
            self._reply(item.request, self.result(group, item.op, item.party, item.number, decision), item.cause)

    def _tally(self, group: Group, item: Item) -> Tally | None:
        session = self._lines[group.name].session
        for tally in reversed(group.tallies):
            if (tally.who.node, tally.session, tally.number) == (self._node, session, item.number):
                return tally
        return None

    def result(
        self, group: Group, op: Op, party: str, number: int = 0, decision: Decision | None = None
    ) -> dict[str, Any]:
        """Return what a party is told of its settled proposal."""
        if op == "join":
            member = group.members[(self._node, self.boot_id, party)]
            return {
                "group": group.name,
                "view": group.view,
                "sequence": group.sequence,
                "joined": member.joined,
                "member": member,
                "members": list(group.members.values()),
                "state": group.state,
                "fast": self._streams.cursor(group, member.joined),
            }
        sequence = group.sequence
        for event in decision.events if decision else ():
            if event.number == number > 0 and event.who[0].node == self._node:
                sequence = event.sequence
        return {"group": group.name, "view": group.view, "sequence": sequence}

    # --- time, and giving up ---------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When `tick` must be called next."""
        return self._look_at if self._busy and self._look_at < math.inf else None

    def _due(self) -> float:
        times = [line.repeat_at for line in self._busy.values() if self.primary]
        for name, line in self._busy.items():
            patience = self._patience.get(name, 0.0)
            times.extend(max(item.until, patience) for item in line.items if item.request is not None)
        return min(times, default=math.inf)

    def tick(self, now: float) -> None:
        """Repeat what is not settled; withdraw what took too long; give up what cannot be withdrawn."""
        if now < self._look_at:
            return
        for name, line in sorted(self._busy.items()):
            for item in line.items:
                if item.request is None or now < max(item.until, self._patience.get(name, 0.0)):
                    continue
                if item.withdrawn:
                    text = f"the group {name} did not settle the proposal, nor its withdrawal"
                    self._reply(item.request, errors.Timeout(text, "it may still have happened"), item.cause)
                    item.request = None
                else:
                    self._patience.pop(name, None)
                    item.withdraw(f"it was not decided within {self._settings.decide_within:g} s, and withdrawn")
                    item.until = now + self._settings.withdraw_within
                    line.repeat_at = now
            if self.primary and now >= line.repeat_at:
                self._send_all(now, name, line)
        self._look_at = self._due()

    def withdraw(self, error: errors.CoveyError) -> None:
        """Answer every question with an error, and withdraw what was proposed; losses are proposed on."""
        for line in self._busy.values():
            for item in line.items:
                if item.request is not None:
                    self._reply(item.request, error, item.cause)
                    item.request = None
                    item.withdraw(error.message)

    def _reply(self, request: int, result: Any, cause: str) -> None:
        self._out.append(Reply(request, result, cause))

    def check_invariants(self) -> None:
        """Raise AssertionError when the invariant of the class does not hold."""
        for name, line in self._lines.items():
            numbers = [item.number for item in line.items]
            assert numbers == list(range(line.last - len(numbers) + 1, line.last + 1)), f"{name}: {numbers}"
            assert (name in self._busy) == bool(numbers), f"{name}: {numbers}"


def rejected(group: str, tally: Tally) -> errors.Rejected:
    """Return the error that tells who was against a proposal, and why; all votes are in its details."""
    last = tally.rounds[-1] if tally.rounds else ()
    against = [f"{cast.party}@{cast.node}" + (f" ({cast.why or cast.how})") for cast in last if cast.vote == "reject"]
    named = ", ".join(against[:3]) + (f" and {len(against) - 3} more" if len(against) > 3 else "")
    text = f"the group {group} rejected it in round {len(tally.rounds)} of {tally.terms.phases}: {named}"
    return errors.Rejected(text, f"`covey group transcript {group}` shows every vote", votes=votes_of(tally))


def votes_of(tally: Tally) -> list[dict[str, Any]]:
    """Return the votes of all rounds as plain data: `{phase, node, member, vote, why, how}`."""
    return [
        {"phase": phase, "node": c.node, "member": c.party, "vote": c.vote, "why": c.why, "how": c.how}
        for phase, casts in enumerate(tally.rounds, 1)
        for c in casts
    ]
