"""A group as its members use it: join on entry, leave on exit, speak, vote, and iterate over what happens.

Knows only the verbs of the service `groups`. The events come by long polls that resume from the last one seen, so
nothing is lost or doubled when Group Services or the connection are restarted in between. One connection is one member
of a group, however many `Group` objects it makes.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

import msgspec

from ...bus.client import Client
from ...errors import (
    ConnectionLost,
    CoveyError,
    NoService,
    NotFound,
    NotMember,
    Overloaded,
    Refused,
    ServiceDied,
    Timeout,
)

log = logging.getLogger(__name__)

PASSING = (ConnectionLost, NoService, Overloaded, ServiceDied, Timeout)
"""Errors of a poll after which polling goes on: the events are still there."""

POLL = 10.0
"""Seconds of one long poll."""

PAUSE = 0.2
"""Seconds before the next poll after one that failed."""

VOTE_TIMEOUT = 20.0
"""Seconds for what may be put to the vote or wait for one, beside the deadlines of the vote itself."""

VOTES = ("approve", "reject", "continue")

GONE = ("left", "failed", "expelled")

LEAVE_TIMEOUT = 5.0
"""Seconds to leave in order at exit; a member that cannot leaves with its connection."""


class GroupMember(msgspec.Struct, frozen=True):
    """One member: which party (`member`) of which node, and the sequence of the event that told of it."""

    node: int
    boot_id: str
    member: str
    joined: int


class GroupEvent(msgspec.Struct, frozen=True):
    """One thing that happened to the group, the same for all members and in the same order.

    `who`: those that joined, left, failed or were expelled; else who sent or proposed it. `members` and `view` are
    those after it; `body` is the message, the state value, what was voted on (`decided`, `rejected`), or the reason of
    an expulsion. `missed` events before it were no longer to be had. `fast`: a fast message, numbered within its view.
    """

    kind: str
    sequence: int
    view: int
    who: tuple[GroupMember, ...]
    body: Any
    members: tuple[GroupMember, ...]
    missed: int = 0
    fast: bool = False


class GroupProposal(msgspec.Struct, frozen=True):
    """What a member is asked to vote on, in one phase of the vote.

    `kind`: `message`, `state`, `join` or `expel`; `body`: the message or value, or why to expel; `target`: who is to be
    expelled. After `deadline` seconds the default vote counts.
    """

    kind: str
    body: Any
    proposer: GroupMember
    target: GroupMember | None
    phase: int
    phases: int
    deadline: float


Judge = Callable[[GroupProposal], Any]
"""Votes for a member: returns `approve`, `reject` or `continue`, or a pair of that and why; may be async."""


class GroupEvents:
    """What happens in a group, for one who only watches: `async for event in bus.group_events("db")`.

    Begins with what happens after the first event was asked for, or after `begin`; `members`, `view` and `state` are
    those after the last event that was taken.
    """

    def __init__(self, bus: Client, name: str) -> None:
        self.name = name
        self.view = 0
        self.members: tuple[GroupMember, ...] = ()
        self._held: dict[GroupMember, None] = {}  # the members after the last event that came, in their order
        self.state: Any = None
        self.frozen = False
        self._bus = bus
        self._since: int | None = None
        self._fast: tuple[int, int, int] | None = None
        self._events: deque[GroupEvent] = deque()

    def __aiter__(self) -> GroupEvents:
        return self

    async def __anext__(self) -> GroupEvent:
        while not self._events:
            try:
                if self._since is None:
                    await self.begin()
                answer = await self._bus.call(
                    "groups",
                    "poll",
                    group=self.name,
                    since=self._since,
                    wait=POLL,
                    frozen=self.frozen,
                    fast=self._fast,
                    timeout=2 * POLL,
                )
            except PASSING as trouble:
                log.debug("polling the group %s again: %s", self.name, trouble)
                await asyncio.sleep(PAUSE)
                continue
            self._take(answer)
        event = self._events.popleft()
        self.members, self.view = event.members, event.view
        if event.kind == "state":
            self.state = event.body
        return event

    async def begin(self) -> None:
        """Learn how the group is now; what happens after that are the events. It need not exist yet."""
        try:
            found = await self._bus.call("groups", "show", name=self.name)
        except NotFound:
            answer = await self._bus.call("groups", "poll", group=self.name, wait=0.0)
            self._since, self._fast = answer["to"], answer["fast"]
        else:
            self._since, self.view, self.state = found["sequence"], found["view"], found["state"]
            self._fast = found["fast"]
            self._stand(found["members"])

    def _take(self, answer: dict[str, Any]) -> None:
        """Turn one answer into events, each with the members there are after it."""
        missed = answer["missed"]
        events = [(each, _members(each["who"])) for each in answer["events"]]
        if missed:  # what came between is gone: begin anew from how it is now, which holds the events below already
            self._stand(answer["members"])
            self.view, self.state = answer["view"], answer["state"]
        members = self.members
        self._since, self._fast, self.frozen = answer["to"], answer["fast"], answer["frozen"]
        for each, who in events:
            if self._changed(each["kind"], who):
                members = tuple(self._held)
            event = GroupEvent(
                each["kind"], each["sequence"], each["view"], who, each["body"], members, missed, each["fast"]
            )
            self._events.append(event)
            missed = 0

    def _stand(self, told: list[dict[str, Any]]) -> None:
        """These are the members now."""
        self.members = _members(told)
        self._held = dict.fromkeys(self.members)

    def _changed(self, kind: str, who: tuple[GroupMember, ...]) -> bool:
        """Take an event; return whether it changes the members. One that is known already does not."""
        before = len(self._held)
        if kind == "joined":
            self._held |= dict.fromkeys(who)
        elif kind in GONE:
            for member in who:
                self._held.pop(member, None)
        return len(self._held) != before


class Group(GroupEvents):
    """A membership: `async with bus.group("db") as group`. Also an async iterator over `GroupEvent`s.

    The first event is the own join, unless this connection was a member already. Iteration ends when this member has
    left, failed or was expelled.
    """

    def __init__(self, bus: Client, name: str, state: Any = b"", voted: Iterable[str] = ()) -> None:
        super().__init__(bus, name)
        self._first = state
        self._voted = tuple(voted)
        self._me: GroupMember | None = None
        self._judge: Judge | None = None
        self._voting: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Group:
        found = await self._bus.call("groups", "join", group=self.name, state=self._first, voted=self._voted)
        self._me = _member(found["member"])
        fresh = found["sequence"] <= self._me.joined + 1  # else this connection was a member before
        self._since = self._me.joined - 1 if fresh else found["sequence"]
        self._fast = found["fast"] if fresh else None
        self.view, self.state = found["view"], found["state"]
        self._stand(found["members"])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._voting is not None:
            self._voting.cancel()
            await asyncio.gather(self._voting, return_exceptions=True)
            self._voting = None
        if self._me is None:
            return
        try:
            await self._bus.call("groups", "leave", group=self.name, timeout=LEAVE_TIMEOUT)
        except NotMember:
            pass
        except CoveyError as trouble:
            log.warning("could not leave the group %s in order: %s", self.name, trouble)
        self._me = None

    @property
    def me(self) -> GroupMember | None:
        """This member; None when it is none (any more)."""
        return self._me

    async def __anext__(self) -> GroupEvent:
        if self._me is None and not self._events:
            raise StopAsyncIteration
        event = await super().__anext__()
        if event.kind in GONE and self._me in event.who:
            self._me = None
            self._events.clear()
        return event

    # --- speaking ------------------------------------------------------------------------------------------------

    async def broadcast(self, body: Any, *, fast: bool = False) -> int:
        """Send a message to all members; returns its sequence when it is durable and this node has seen it.

        `fast`: past the log. Fast messages have an order of their own within a view, not durable, and members that go
        on to the next view together have had the same in this one; the sequence counts them in their view.
        Raises NotMember, Frozen, TooLarge; CoordinatorChanged when nobody got it; Timeout when that is not known.
        """
        answer = await self._bus.call("groups", "broadcast", group=self.name, body=body, fast=fast)
        return int(answer["sequence"])

    async def set_state(self, value: Any) -> int:
        """Change the group's state value, in order with its messages; returns the sequence. Raises as `broadcast`, and
        Rejected where the group votes on that."""
        answer = await self._bus.call("groups", "set_state", group=self.name, value=value, timeout=VOTE_TIMEOUT)
        return int(answer["sequence"])

    async def propose(self, body: Any, *, phases: int = 1, default: str = "reject", deadline: float = 5.0) -> int:
        """Put something to the vote of all members, in at most `phases` rounds of at most `deadline` seconds each.

        Any reject ends it; when all approve, or when the last round ends without a reject, all members get it as an
        event `decided`. `default` is the vote of a member that gives none. Returns the sequence. Raises Rejected with
        the votes (`error.details["votes"]`), and as `broadcast`; CoordinatorChanged: nobody got it, propose again.
        """
        answer = await self._bus.call(
            "groups",
            "propose",
            group=self.name,
            body=body,
            phases=phases,
            default=default,
            deadline=float(deadline),
            timeout=phases * deadline + VOTE_TIMEOUT,
        )
        return int(answer["sequence"])

    async def expel(self, member: str | GroupMember, *, reason: str = "") -> int:
        """Put a member out of the group: `PARTY`, `PARTY@NODE`, or one of `members`. Returns the sequence.

        It gets the event `expelled` with the reason, and its iteration ends. Raises NotFound, Rejected.
        """
        name = member if isinstance(member, str) else f"{member.member}@{member.node}"
        answer = await self._bus.call(
            "groups", "expel", group=self.name, member=name, reason=reason, timeout=VOTE_TIMEOUT
        )
        return int(answer["sequence"])

    # --- voting --------------------------------------------------------------------------------------------------

    def vote(self, judge: Judge) -> Judge:
        """Name the function that votes for this member; it is asked in each phase, whether or not events are read.

        It runs on this loop, so one that takes time should be async. If it raises, or is not ready at the deadline and
        so cancelled, the default vote counts.
        """
        self._judge = judge
        if self._voting is None:
            self._voting = asyncio.get_running_loop().create_task(self._vote(), name=f"votes in {self.name}")
        return judge

    async def _vote(self) -> None:
        while True:
            try:
                answer = await self._bus.call("groups", "await_vote", group=self.name, wait=POLL, timeout=2 * POLL)
                asked = answer["vote"]
                if asked is None:
                    continue
                vote, why = await self._judged(asked)
                place = {"protocol": asked["protocol"], "phase": asked["phase"]}
                await self._bus.call("groups", "vote", group=self.name, **place, vote=vote, why=why)
            except NotMember:
                return
            except Refused as late:
                log.info("%s", late)
            except CoveyError as trouble:
                log.debug("asking the group %s for votes again: %s", self.name, trouble)
                await asyncio.sleep(PAUSE)

    async def _judged(self, asked: dict[str, Any]) -> tuple[str | None, str]:
        assert self._judge is not None
        target = asked["target"]
        proposal = GroupProposal(
            asked["op"],
            asked["body"],
            _member(asked["proposer"]),
            target and _member(target),
            asked["phase"],
            asked["phases"],
            asked["deadline"],
        )
        try:
            said = self._judge(proposal)
            if inspect.isawaitable(said):
                async with asyncio.timeout(proposal.deadline):  # else it would keep this member from all later votes
                    said = await said
            vote, why = said if isinstance(said, tuple) else (said, "")
            if vote not in VOTES:
                raise ValueError(f"{vote!r} is no vote; it must be one of {', '.join(VOTES)}")
            return vote, _sendable(str(why))
        except (Exception, asyncio.CancelledError) as problem:
            task = asyncio.current_task()
            if isinstance(problem, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # this member leaves
            log.exception("the function that votes in the group %s failed", self.name)
            return None, _sendable(f"{type(problem).__name__}: {problem}")


def _sendable(text: str) -> str:
    """Return a text that a message can carry: what a vote function says may hold bytes that were no Unicode text."""
    return text.encode(errors="backslashreplace").decode()


def _members(told: list[dict[str, Any]]) -> tuple[GroupMember, ...]:
    return msgspec.convert(told, tuple[GroupMember, ...])


def _member(told: dict[str, Any]) -> GroupMember:
    return msgspec.convert(told, GroupMember)
