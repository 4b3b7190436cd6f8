"""When a snapshot is worth its cost, and which one is under way. Pure."""

from __future__ import annotations


class Snapshots:
    """One is made when the log since the last has `least` bytes, and at least half as many as the last one."""

    def __init__(self, least: int, log_bytes: int, last_bytes: int, index: int) -> None:
        self._least = least
        self._log_bytes = log_bytes  # since the last one
        self._last_bytes = last_bytes
        self._before = index  # where the newest one stands that is on the disk
        self._under_way = 0  # index of the one being written

    def applied(self, size: int) -> None:
        """An entry of so many bytes was applied."""
        self._log_bytes += size

    @property
    def due(self) -> bool:
        """Is it time for one?"""
        return not self._under_way and self._log_bytes >= max(self._least, self._last_bytes // 2)

    def taken(self, index: int, size: int) -> None:
        """One was made, and is being written."""
        self._under_way, self._log_bytes, self._last_bytes = index, 0, size

    def written(self, index: int) -> int | None:
        """It is durable; return up to where the log is needed no more: up to the one before it."""
        if index != self._under_way:
            return None
        before, self._before, self._under_way = self._before, index, 0
        return before

    def failed(self) -> None:
        """It could not be written; the next is made when it would have been, for each costs much."""
        self._under_way = 0

    def installed(self, index: int, size: int) -> None:
        """A primary's snapshot took the place of everything."""
        self._log_bytes, self._last_bytes, self._before, self._under_way = 0, size, index, 0
