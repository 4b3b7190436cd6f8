"""Those who wait for changes: a bounded table of long polls. Pure.

Knows the store only through what the machine hands over. A watcher is answered once, at once when there is something
for it, else when there is, else with an empty batch at its deadline; whatever the answer, `to + 1` is where it goes on,
so nothing is lost, nothing comes twice, and nothing is kept for a watcher that does not come back.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

from .history import Event


class Waiting(NamedTuple):
    """One question of a watcher: below which prefix, from which revision, until when."""

    request: int
    prefix: str
    start: int
    deadline: float
    cause: str


class Watchers:
    """Parked questions by request, and their deadlines in order."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: dict[int, Waiting] = {}
        self._deadlines: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """No more can be parked."""
        return len(self._waiting) >= self._limit

    @property
    def deadline(self) -> float | None:
        """When the first of them must be answered."""
        while self._deadlines and self._deadlines[0][1] not in self._waiting:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def park(self, waiting: Waiting) -> None:
        """Let a question wait."""
        if len(self._deadlines) > 2 * len(self._waiting) + 64:  # most of them were answered before their time
            self._deadlines = sorted((one.deadline, one.request) for one in self._waiting.values())
        self._waiting[waiting.request] = waiting
        heapq.heappush(self._deadlines, (waiting.deadline, waiting.request))

    def touched(self, events: list[tuple[int, Event]]) -> list[Waiting]:
        """Take out and return those whom one of these new events concerns, in the order in which they came."""
        found = [
            waiting
            for waiting in self._waiting.values()
            if any(revision >= waiting.start and event.key.startswith(waiting.prefix) for revision, event in events)
        ]
        for waiting in found:
            del self._waiting[waiting.request]
        return found

    def due(self, now: float) -> list[Waiting]:
        """Take out and return those whose time is over."""
        found: list[Waiting] = []
        while (deadline := self.deadline) is not None and deadline <= now:
            _, request = heapq.heappop(self._deadlines)
            found.append(self._waiting.pop(request))
        return found

    def clear(self) -> list[Waiting]:
        """Take out and return all."""
        found = list(self._waiting.values())
        self._waiting.clear()
        return found

    def check(self) -> None:
        """Raise AssertionError when the table is over its bound (32)."""
        assert len(self._waiting) <= self._limit, "32: too many watchers wait"
        assert len(self._deadlines) <= 2 * self._limit + 65, "32: too many old deadlines"
