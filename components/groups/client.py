"""A group as its members use it: join on entry, leave on exit, broadcast, and iterate over what happens.

Knows only the verbs of the service `groups`. The events come by long polls that resume from the last one seen, so
nothing is lost or doubled when Group Services or the connection are restarted in between. One connection is one member
of a group, however many `Group` objects it makes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any

import msgspec

from ...bus.client import Client
from ...errors import (
    ConnectionLost,
    CoveyError,
    NoService,
    NotImplementedYet,
    NotMember,
    Overloaded,
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

    `who`: those that joined, left, failed or were expelled; of a message or state the sender. `members` and `view` are
    those after it; `body` is the message or the state value. `missed` events before it were no longer to be had.
    """

    kind: str
    sequence: int
    view: int
    who: tuple[GroupMember, ...]
    body: Any
    members: tuple[GroupMember, ...]
    missed: int = 0


class Group:
    """A membership: `async with bus.group("db") as group`. Also an async iterator over `GroupEvent`s.

    The first event is the own join, unless this connection was a member already. Iteration ends when this member has
    left, failed or was expelled.
    """

    def __init__(self, bus: Client, name: str, state: Any = b"") -> None:
        self.name = name
        self.view = 0
        self.members: tuple[GroupMember, ...] = ()
        self.state: Any = None
        self.frozen = False
        self._bus = bus
        self._first = state
        self._me: GroupMember | None = None
        self._since = 0
        self._events: deque[GroupEvent] = deque()

    async def __aenter__(self) -> Group:
        found = await self._bus.call("groups", "join", group=self.name, state=self._first)
        self._me = _member(found["member"])
        fresh = found["sequence"] <= self._me.joined + 1  # else this connection was a member before
        self._since = self._me.joined - 1 if fresh else found["sequence"]
        self.view, self.state = found["view"], found["state"]
        self.members = tuple(_member(each) for each in found["members"])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._me is None:
            return
        try:
            await self._bus.call("groups", "leave", group=self.name, timeout=LEAVE_TIMEOUT)
        except NotMember:
            pass
        except CoveyError as trouble:
            log.warning("could not leave the group %s in order: %s", self.name, trouble)
        self._me = None

    async def broadcast(self, body: Any, *, fast: bool = False) -> int:
        """Send a message to all members; returns its sequence when it is durable and this node has seen it.

        Raises NotMember, Frozen, TooLarge; CoordinatorChanged when nobody got it; Timeout when that is not known.
        """
        answer = await self._bus.call("groups", "broadcast", group=self.name, body=body, fast=fast)
        return int(answer["sequence"])

    async def set_state(self, value: Any) -> int:
        """Change the group's state value, in order with its messages; returns the sequence. Raises as `broadcast`."""
        answer = await self._bus.call("groups", "set_state", group=self.name, value=value)
        return int(answer["sequence"])

    async def propose(self, body: Any, *, phases: int = 1) -> None:
        """Put something to the vote of all members."""
        await self._bus.call("groups", "propose", group=self.name, body=body, phases=phases)

    def vote(self, judge: Callable[[Any], str]) -> Callable[[Any], str]:
        """Name the function that votes for this member."""
        raise NotImplementedYet("voting in groups is not built yet (SPEC 11.2)")

    def __aiter__(self) -> Group:
        return self

    async def __anext__(self) -> GroupEvent:
        while not self._events:
            if self._me is None:
                raise StopAsyncIteration
            try:
                answer = await self._bus.call(
                    "groups",
                    "poll",
                    group=self.name,
                    since=self._since,
                    wait=POLL,
                    frozen=self.frozen,
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
        if event.kind in ("left", "failed", "expelled") and self._me in event.who:
            self._me = None
            self._events.clear()
        return event

    def _take(self, answer: dict[str, Any]) -> None:
        """Turn one answer into events, each with the members there are after it."""
        missed, members = answer["missed"], self.members
        events = [(each, tuple(_member(m) for m in each["who"])) for each in answer["events"]]
        if missed:  # what came between is gone: begin anew from how it is now, which holds the events below already
            members = tuple(_member(each) for each in answer["members"])
            self.state = answer["state"]
            self.members, self.view = members, answer["view"]
        self._since, self.frozen = answer["to"], answer["frozen"]
        for each, who in events:
            members = changed(members, each["kind"], who)
            event = GroupEvent(each["kind"], each["sequence"], each["view"], who, each["body"], members, missed)
            self._events.append(event)
            missed = 0


def changed(members: tuple[GroupMember, ...], kind: str, who: tuple[GroupMember, ...]) -> tuple[GroupMember, ...]:
    """Return the members after an event; one that is known already changes nothing."""
    if kind == "joined":
        return members + tuple(member for member in who if member not in members)
    if kind in ("left", "failed", "expelled"):
        return tuple(member for member in members if member not in who)
    return members


def _member(told: dict[str, Any]) -> GroupMember:
    return msgspec.convert(told, GroupMember)
