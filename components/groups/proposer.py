"""What this node's parties want of each group and what became of it: numbered, repeated, settled or withdrawn.

Every proposal of this node in a group has the next number of a line. The line is sent to the coordinator from its
lowest unsettled number, again and again, and is settled from the front by the decisions that this node applies; so an
answer to a party never comes before its node has what it tells of. A proposal that nobody waits for any more is not
forgotten but turned void, because it may have been decided already: settled as void, it surely came to nothing.
"""

from __future__ import annotations

from typing import Any

from ... import errors
from ...bus.machine import Address, Effect, Reply, Send
from .messages import SERVICE, Decision, Frontier, Op, Proposal, Propose
from .replica import Group, Replica
from .settings import Settings


class Item:
    """One proposal of this node that is not settled."""

    def __init__(
        self, number: int, op: Op, party: str, body: bytes, request: int | None, until: float, cause: str
    ) -> None:
        self.number = number
        self.op = op
        self.party = party
        self.body = body
        self.request = request
        self.until = until  # when to withdraw it, and once it is withdrawn, when to give up
        self.withdrawn = False
        self.cause = cause

    def proposal(self) -> Proposal:
        """Return it as the coordinator gets it."""
        if self.withdrawn:
            return Proposal(self.number, "void")
        return Proposal(self.number, self.op, self.party, self.body)


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
        self, node: int, boot_id: str, session: int, settings: Settings, replica: Replica, out: list[Effect]
    ) -> None:
        self._node = node
        self.boot_id = boot_id
        self._session = session
        self._settings = settings
        self._replica = replica
        self._out = out
        self._lines: dict[str, Line] = {}
        self._busy: dict[str, Line] = {}  # those with something unsettled
        self.primary = 0

    # --- in ------------------------------------------------------------------------------------------------------

    def add(self, now: float, group: str, op: Op, party: str, body: bytes, request: int | None, cause: str) -> None:
        """Propose something for a party; `request` is the question to answer when it is settled, if any."""
        line = self._lines.setdefault(group, Line(self._session))
        if request is not None and len(line.items) >= self._settings.queue:
            text = f"{len(line.items)} proposals of this node wait in the group {group}"
            self._reply(request, errors.Overloaded(text, "wait for answers before you send more"), cause)
            return
        self._busy[group] = line
        line.last += 1
        until = now + self._settings.decide_within
        line.items.append(Item(line.last, op, party, body, request, until, cause))
        if len(line.items) == 1:
            line.repeat_at = now + self._settings.repeat
        self._send_new(group, line)

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
                self.add(now, name, "failed", party, b"", None, "")

    # --- out -----------------------------------------------------------------------------------------------------

    def repeat(self, now: float) -> None:
        """Send every line anew: there is a new coordinator."""
        for name, line in sorted(self._busy.items()):
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
            room -= len(item.body)
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
        if undone and item.withdrawn:
            text = f"no coordinator decided it within {self._settings.decide_within:g} s; it was withdrawn"
            self._reply(item.request, errors.CoordinatorChanged(text, "nobody got it; propose again"), item.cause)
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
        times = [line.repeat_at for line in self._busy.values() if self.primary]
        for line in self._busy.values():
            times.extend(item.until for item in line.items if item.request is not None)
        return min(times, default=None)

    def tick(self, now: float) -> None:
        """Repeat what is not settled; withdraw what took too long; give up what cannot be withdrawn."""
        for name, line in sorted(self._busy.items()):
            for item in line.items:
                if item.request is None or now < item.until:
                    continue
                if item.withdrawn:
                    text = f"the group {name} did not settle the proposal, nor its withdrawal"
                    self._reply(item.request, errors.Timeout(text, "it may still have happened"), item.cause)
                    item.request = None
                else:
                    item.withdrawn, item.body = True, b""
                    item.until = now + self._settings.withdraw_within
                    line.repeat_at = now
            if self.primary and now >= line.repeat_at:
                self._send_all(now, name, line)

    def withdraw(self, error: errors.CoveyError) -> None:
        """Answer every question with an error, and withdraw what was proposed; losses are proposed on."""
        for line in self._busy.values():
            for item in line.items:
                if item.request is not None:
                    self._reply(item.request, error, item.cause)
                    item.request, item.withdrawn, item.body = None, True, b""

    def _reply(self, request: int, result: Any, cause: str) -> None:
        self._out.append(Reply(request, result, cause))

    def check_invariants(self) -> None:
        """Raise AssertionError when the invariant of the class does not hold."""
        for name, line in self._lines.items():
            numbers = [item.number for item in line.items]
            assert numbers == list(range(line.last - len(numbers) + 1, line.last + 1)), f"{name}: {numbers}"
            assert (name in self._busy) == bool(numbers), f"{name}: {numbers}"
