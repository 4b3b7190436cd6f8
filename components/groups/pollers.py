"""The long polls that wait on this node, and how each is answered.

Holds nothing for a member but its waiting question: the events themselves are in the replica, so a poller resumes from
any sequence, and one that lags too far is told how many events it missed. Knows no other node.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ... import errors
from ...bus.machine import Effect, Reply
from .fast import Cursor, Streams
from .messages import Event
from .questions import Poll
from .replica import Replica
from .settings import Settings

MOST_EVENTS = 500  # in one answer; the poller comes again at once for the rest


class _Waiter(NamedTuple):
    request: int
    poll: Poll
    since: int
    fast: Cursor
    frozen: bool
    until: float
    cause: str


class Pollers:
    """Answer polls when there is something to tell, or when they have waited enough."""

    def __init__(self, settings: Settings, replica: Replica, streams: Streams, out: list[Effect]) -> None:
        self._settings = settings
        self._replica = replica
        self._streams = streams
        self._out = out
        self._waiting: dict[str, list[_Waiter]] = {}
        self._count = 0
        self._next: float | None = None  # not later than the first end of a wait
        self._frozen = False

    def ask(self, now: float, request: int, poll: Poll, cause: str) -> None:
        """Take a question; answer it now if there is anything to tell."""
        group = self._replica.get(poll.group)
        since = group.sequence if poll.since is None else poll.since
        fast = self._streams.cursor(group) if poll.fast is None else poll.fast
        frozen = self._frozen if poll.frozen is None else poll.frozen
        until = now + min(poll.wait, self._settings.wait_at_most)
        waiter = _Waiter(request, poll, since, fast, frozen, until, cause)
        if self._answer(waiter, last=poll.wait <= 0):
            return
        if self._count >= self._settings.waiters:
            error = errors.Overloaded(f"{self._count} polls wait on this node", "try again later")
            self._out.append(Reply(request, error, cause))
            return
        self._waiting.setdefault(poll.group, []).append(waiter)
        self._count += 1
        self._next = waiter.until if self._next is None else min(self._next, waiter.until)

    def wake(self, group: str) -> None:
        """The group has news."""
        self._sift(group, None)

    def freeze(self, frozen: bool) -> None:
        """Contact to the quorum was lost, or is there again: tell everyone who waits."""
        self._frozen = frozen
        for group in sorted(self._waiting):
            self._sift(group, None)

    def tick(self, now: float) -> None:
        """Answer those that have waited enough with no events."""
        if self._next is None or now < self._next:
            return
        for group in sorted(self._waiting):
            self._sift(group, now)
        self._next = min((w.until for waiters in self._waiting.values() for w in waiters), default=None)

    @property
    def deadline(self) -> float | None:
        """When `tick` must be called next."""
        return self._next if self._count else None

    def _sift(self, group: str, now: float | None) -> None:
        waiters = self._waiting.pop(group, [])
        left = [w for w in waiters if not self._answer(w, last=now is not None and now >= w.until)]
        self._count -= len(waiters) - len(left)
        if left:
            self._waiting[group] = left

    def _answer(self, waiter: _Waiter, last: bool) -> bool:
        group = self._replica.get(waiter.poll.group)
        missed, events = group.events_since(waiter.since)
        events, fast, lost = self._streams.merge(group.name, waiter.fast, events[:MOST_EVENTS])
        missed += lost
        changed = waiter.frozen != self._frozen
        if not events and not missed and not changed and not last:
            return False
        seen = [event.sequence for event in events if not event.fast]
        to = seen[-1] if seen else waiter.since + missed - lost
        if changed:
            events.append(Event("frozen" if self._frozen else "thawed", to, group.view))
        result: dict[str, Any] = {
            "group": group.name,
            "from": waiter.since + 1,
            "to": to,
            "fast": fast,
            "missed": missed,
            "events": events,
            "frozen": self._frozen,
        }
        if missed:
            result["members"] = list(group.members.values())
            result["view"] = group.view
            result["state"] = group.state
        self._out.append(Reply(waiter.request, result, waiter.cause))
        return True
