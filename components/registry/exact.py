"""Exact reads: answered when a majority has confirmed, after they came, that this server still leads (ReadIndex). Pure.

Knows rounds (`reign.py`), not what is read. Reads that come while a round is under way share the next one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from .proposed import Waiter
from .reign import Reign


class ExactReads:
    """Reads by the round they wait for, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, Waiter, Callable[[], None]]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, now: float, reign: Reign, waiter: Waiter, read: Callable[[], None]) -> None:
        """Call `read` when it is exact; at once where this server alone is a majority."""
        round = reign.read_round(now)
        if round <= reign.confirmed and not self._waiting:
            read()
        else:
            self._waiting.append((round, waiter, read))

    def ready(self, now: float, reign: Reign) -> list[tuple[Waiter, Callable[[], None]]]:
        """Take out and return those that are exact now; begin the round that the others wait for."""
        found: list[tuple[Waiter, Callable[[], None]]] = []
        while self._waiting:
            round, waiter, read = self._waiting[0]
            if round > reign.round and reign.confirmed >= reign.round and not reign.wants_round:
                reign.broadcast(now)
            if round > reign.confirmed:
                break
            self._waiting.popleft()
            found.append((waiter, read))
        return found

    def clear(self) -> list[Waiter]:
        """Take out and return all who wait: this server leads no more."""
        found = [waiter for _, waiter, _ in self._waiting]
        self._waiting.clear()
        return found
