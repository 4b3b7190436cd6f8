"""The changes kept for watchers: a ring of revisions, bounded by bytes, number and log time. Pure.

Knows nothing of keys but their text. It holds every revision from `start` to the newest without a gap, so a batch read
from it is contiguous by nature. Bounds are applied as entries are, by the log time in them: every copy drops the same.
"""

from __future__ import annotations

import msgspec

from .settings import Settings

OVERHEAD = 128  # bytes of memory an event costs beside its key and value


class Event(msgspec.Struct, frozen=True, gc=False):
    """One key changed; `value` is packed, None: it was deleted."""

    key: str
    value: bytes | None


class Change(msgspec.Struct, frozen=True, gc=False):
    """One transaction that changed something."""

    revision: int
    time: int
    events: tuple[Event, ...]
    size: int


class History:
    """Ring of the newest changes. Invariant: revisions `start` … `start + len - 1`, without a gap."""

    def __init__(self, settings: Settings, start: int) -> None:
        self._settings = settings
        self._changes: list[Change] = []
        self._dropped = 0  # changes at the head of the list that are no longer kept
        self._bytes = 0
        self.start = start

    def __len__(self) -> int:
        return len(self._changes) - self._dropped

    @property
    def size(self) -> int:
        """Bytes kept."""
        return self._bytes

    def add(self, revision: int, time: int, events: tuple[Event, ...]) -> None:
        """Append the next revision and drop what is over a bound; the newest is always kept."""
        size = 0
        for event in events:
            size += len(event.key) + len(event.value or b"") + OVERHEAD
        changes, settings = self._changes, self._settings
        changes.append(Change(revision, time, events, size))
        self._bytes += size
        oldest = time - int(settings.history_seconds * 1000)
        while self._dropped < len(changes) - 1 and (
            self._bytes > settings.history_bytes
            or len(changes) - self._dropped > settings.history_changes
            or changes[self._dropped].time < oldest
        ):
            self._bytes -= changes[self._dropped].size
            self._dropped += 1
            self.start += 1
        if self._dropped > 64 and self._dropped * 2 > len(self._changes):
            del self._changes[: self._dropped]
            self._dropped = 0

    def read(self, prefix: str, start: int, limit: int) -> tuple[list[tuple[int, Event]], int]:
        """Return the events below `prefix` from revision `start` on, and the last revision looked at.

        `start` must be kept or be the next one. A batch ends after `limit` bytes, never inside a revision.
        """
        found: list[tuple[int, Event]] = []
        size, last = 0, start - 1
        for at in range(self._dropped + start - self.start, len(self._changes)):
            change = self._changes[at]
            for event in change.events:
                if event.key.startswith(prefix):
                    found.append((change.revision, event))
                    size += len(event.key) + len(event.value or b"") + OVERHEAD
            last = change.revision
            if size >= limit:
                break
        return found, last

    def check(self, revision: int) -> None:
        """Raise AssertionError unless the ring ends at `revision` without a gap."""
        kept = self._changes[self._dropped :]
        assert [change.revision for change in kept] == list(range(self.start, revision + 1)), "15: history has a gap"
        assert self._bytes == sum(change.size for change in kept), "32: history counts its bytes wrong"
        assert len(kept) <= 1 or self._bytes <= self._settings.history_bytes, "32: history over its bound"
