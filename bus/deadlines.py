"""When waiting ends: any number of deadlines, one timer.

A timer per call would cost more than the call itself. What ended in time is not taken out of the heap but skipped when
it comes up, and swept out when it is most of what is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container
from heapq import heapify, heappop, heappush

SLACK = 0.001
"""Seconds a deadline may be told early: the clock of a loop may count whole milliseconds."""

LONGEST = 30 * 24 * 3600.0
"""Seconds. Longer waiting is waiting for ever, which timers cannot count."""

SWEEP_ABOVE = 1000
"""Deadlines in the heap before it is swept."""


class Deadlines:
    """Call `on_late(number)` when the time of a number is over and it is still in `waiting`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, waiting: Container[int], on_late: Callable[[int], None]
    ) -> None:
        self._loop = loop
        self._waiting = waiting
        self._on_late = on_late
        self._heap: list[tuple[float, int]] = []
        self._sweep_at = SWEEP_ABOVE
        self._timer: asyncio.TimerHandle | None = None
        self._armed = 0.0

    def add(self, number: int, seconds: float) -> None:
        """Wait for a number, for that many seconds from now."""
        if seconds > LONGEST:
            return
        end = self._loop.time() + seconds
        heap = self._heap
        heappush(heap, (end, number))
        if len(heap) > self._sweep_at:
            self._heap = [each for each in heap if each[1] in self._waiting]
            heapify(self._heap)
            self._sweep_at = SWEEP_ABOVE + 2 * len(self._heap)
        if self._timer is None or end < self._armed:
            self._arm(end)

    def close(self) -> None:
        """Tell nothing more."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        self._heap.clear()

    def _arm(self, end: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._armed = end
        self._timer = self._loop.call_at(end, self._come)

    def _come(self) -> None:
        self._timer = None
        now = self._loop.time() + SLACK
        while self._heap:
            end, number = self._heap[0]
            late = number in self._waiting
            if late and end > now:
                self._arm(end)
                return
            heappop(self._heap)
            if late:
                self._on_late(number)
