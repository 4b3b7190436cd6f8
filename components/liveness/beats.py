"""The heartbeats a node sends, counted, and what their answers prove: when the leader last had us in its ear.

Knows no message and no peer. The word of the leader counts from the time of the heartbeat it answers, not
from when the answer came: what waited in a buffer while this node was stopped proves nothing about now. Word
that others pass on is as much older as they say: they had it that long before they answered, and they answered
after the heartbeat was sent.
"""

from __future__ import annotations

from .settings import Settings

KEPT = 64


class Beats:
    """The count of heartbeats, when the next is due, and since when there is no word."""

    def __init__(self, settings: Settings, now: float) -> None:
        self.settings = settings
        self.count = 0
        self.due_at = now
        self.word_at = now
        self._sent_at: dict[int, float] = {}

    def due(self, now: float) -> bool:
        """Tell whether it is time for a round of heartbeats; if so, the next is due an interval later."""
        if now < self.due_at:
            return False
        self.due_at = now + self.settings.interval
        return True

    def next(self, now: float) -> int:
        """Count a heartbeat that is sent now."""
        self.count += 1
        self._sent_at[self.count] = now
        if len(self._sent_at) > KEPT:
            del self._sent_at[next(iter(self._sent_at))]
        return self.count

    def sent_at(self, beat: int) -> float | None:
        """When a heartbeat was sent; None for one of long ago."""
        return self._sent_at.get(beat)

    def word(self, beat: int, age: float = 0.0) -> None:
        """Somebody who had word of the leader `age` seconds before answered that heartbeat; at age 0 the leader."""
        sent_at = self._sent_at.get(beat)
        if sent_at is not None:
            self.word_at = max(self.word_at, sent_at - max(0.0, age))

    @property
    def word_until(self) -> float:
        """Until when a node may rely on the last word."""
        return self.word_at + self.settings.word
