"""The heartbeats a node sends, counted, and what their answers prove: when the leader last had us in its ear.

Knows no message and no peer. The word of the leader counts from the time of the heartbeat it answers, not
from when the answer came: what waited in a buffer while this node was stopped proves nothing about now.
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

    def word(self, beat: int) -> None:
        """The leader answered that heartbeat."""
        self.word_at = max(self.word_at, self._sent_at.get(beat, self.word_at))

    @property
    def word_until(self) -> float:
        """Until when a node may rely on the last word."""
        return self.word_at + self.settings.word
