"""The votes under way as one node sees them: which of its members have to vote, how they did, who waits to be asked.

A party that has asked once for something to vote on is expected to vote. One that has not asked when a call is repeated
for the second time has no say until it does: its node says so at once from then on, and the default counts. Holds
nothing that matters: what is lost with it, the coordinator asks for again. Knows no other node's members.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ... import errors
from ...bus.machine import Address, Effect, Reply, Send
from .messages import SERVICE, CallVote, Vote, Votes, shown
from .questions import AwaitVote, CastVote
from .replica import Group, Replica
from .settings import Settings
from .voting import WHY

PATIENT = 2  # calls for one round that a party may let pass before it asks for something to vote on


class _Waiter(NamedTuple):
    request: int
    until: float
    cause: str


class _Call:
    """One round of one vote."""

    def __init__(self, node: int, message: CallVote, until: float) -> None:
        self.node = node
        self.message = message
        self.until = until
        self.said: dict[str, tuple[Vote | None, str]] = {}
        self.heard = 0

    @property
    def place(self) -> tuple[int, int, int]:
        return self.message.term, self.message.protocol, self.message.phase


class Voters:
    """Bring calls for votes to the members of this node, and their votes to the coordinator."""

    def __init__(self, node: int, boot_id: str, settings: Settings, replica: Replica, out: list[Effect]) -> None:
        self._node = node
        self._boot_id = boot_id
        self._settings = settings
        self._replica = replica
        self._out = out
        self._calls: dict[str, _Call] = {}
        self._expected: set[tuple[str, str]] = set()  # group and party
        self._mute: set[tuple[str, str]] = set()
        self._waiting: dict[tuple[str, str], list[_Waiter]] = {}

    # --- what the coordinator says -------------------------------------------------------------------------------

    def called(self, now: float, node: int, message: CallVote) -> None:
        """A round is called, or its call repeated."""
        name = message.group
        if self._replica.get(name).version >= message.protocol:
            return  # a late repetition: it is over
        call = self._calls.get(name)
        new = _Call(node, message, now + message.left)
        if call is not None and call.place > new.place:
            return
        if call is None or call.place < new.place:
            self._calls[name] = call = new
        call.heard += 1
        self._abstain(name, call)
        self._send(call, call.said)
        for key in sorted(key for key in self._waiting if key[0] == name):
            self._offer(key)

    def _abstain(self, name: str, call: _Call) -> None:
        for node, boot_id, party in self._replica.get(name).members:
            key = (name, party)
            if (node, boot_id) != (self._node, self._boot_id) or key in self._expected:
                continue
            if (
                call.heard > PATIENT
            ):  # it has had time to ask, even if it joined just before, or this process was started anew
                self._mute.add(key)
            if key in self._mute:
                call.said.setdefault(party, (None, ""))

    def _send(self, call: _Call, said: dict[str, tuple[Vote | None, str]]) -> None:
        message = call.message
        votes = tuple((party, vote, why) for party, (vote, why) in sorted(said.items()))
        if votes:
            answer = Votes(message.term, message.group, message.protocol, message.phase, votes)
            self._out.append(Send(Address(SERVICE, call.node), answer))

    def decided(self, group: Group) -> None:
        """The group has moved: a vote whose decision is there is over."""
        call = self._calls.get(group.name)
        if call is not None and group.version >= call.message.protocol:
            del self._calls[group.name]

    def forget_calls(self) -> None:
        """There is another coordinator, or no contact to any: no vote goes on."""
        self._calls.clear()

    # --- what the members say ------------------------------------------------------------------------------------

    def ask(self, now: float, request: int, question: AwaitVote, cause: str) -> None:
        """A party wants to vote: answer when there is something to vote on, or when it has waited enough."""
        key = (question.group, question.party)
        if (self._node, self._boot_id, question.party) not in self._replica.get(question.group).members:
            raise errors.NotMember(f"{question.party} is no member of the group {question.group}", "join it first")
        self._expected.add(key)
        self._mute.discard(key)
        until = now + min(question.wait, self._settings.wait_at_most)
        self._waiting.setdefault(key, []).append(_Waiter(request, until, cause))
        self._offer(key)

    def _offer(self, key: tuple[str, str]) -> None:
        name, party = key
        call = self._calls.get(name)
        if call is None or party in call.said:
            return
        target = call.message.target
        if target is not None and target.key == (self._node, self._boot_id, party):
            return
        for waiter in self._waiting.pop(key, ()):
            self._out.append(Reply(waiter.request, {"vote": self._told(call.message)}, waiter.cause))

    @staticmethod
    def _told(message: CallVote) -> dict[str, Any]:
        return {
            "protocol": message.protocol,
            "phase": message.phase,
            "phases": message.terms.phases,
            "op": shown(message.op),
            "proposer": message.who,
            "target": message.target,
            "body": message.body,
            "default": message.terms.default,
            "deadline": message.terms.deadline,
        }

    def cast(self, question: CastVote) -> dict[str, Any]:
        """A party votes. Its first vote counts."""
        call = self._calls.get(question.group)
        if call is None or call.place[1:] != (question.protocol, question.phase):
            text = f"round {question.phase} of vote {question.protocol} in the group {question.group} is over"
            raise errors.Refused(text, "the vote did not count; wait for the next")
        said = call.said.setdefault(question.party, (question.vote, question.why[:WHY]))
        self._send(call, {question.party: said})
        return {"group": question.group, "vote": said[0]}

    def party_gone(self, party: str) -> None:
        """A party of this node is dead."""
        self._expected = {key for key in self._expected if key[1] != party}
        self._mute = {key for key in self._mute if key[1] != party}
        for key in [key for key in self._waiting if key[1] == party]:
            del self._waiting[key]

    # --- what others want to know --------------------------------------------------------------------------------

    def phase(self, name: str) -> str | None:
        """Return how far the vote of a group is, as people see it; None if there is none."""
        call = self._calls.get(name)
        return f"voting {call.message.phase}/{call.message.terms.phases}" if call else None

    def until(self, name: str) -> float:
        """Return when the round under way ends at the latest; 0 if there is none."""
        call = self._calls.get(name)
        return call.until if call else 0.0

    # --- time ----------------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When `tick` must be called next."""
        return min((w.until for waiters in self._waiting.values() for w in waiters), default=None)

    def tick(self, now: float) -> None:
        """Answer those that have waited enough."""
        late = [key for key, waiters in self._waiting.items() if any(now >= w.until for w in waiters)]
        for key in sorted(late):
            for waiter in self._waiting.pop(key):
                self._out.append(Reply(waiter.request, {"vote": None}, waiter.cause))
