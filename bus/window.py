"""How much of what was sent to one connection is not read yet: bounded in messages and in bytes.

ZeroMQ's own bound counts messages only, and a queue of large ones can take all memory. So whoever sends counts what it
sent, the other side says from time to time what it has read, and what would go beyond the bound is not sent. Events
give way first, then requests, then replies: a party that reads slowly loses events while its calls still work.
"""

from __future__ import annotations

from .messages import Kind

MESSAGES = 10_000
"""Messages that may wait for one connection."""

BYTES = 32 * 1024 * 1024
"""Bytes that may wait for one connection: two of the largest messages."""

_SHARE = {Kind.EVENT: 0.5, Kind.REQUEST: 0.75}


class Window:
    """What one connection was sent and has not read. A single message always fits into an empty window."""

    __slots__ = ("_read_bytes", "_read_messages", "_sent_bytes", "_sent_messages")

    def __init__(self) -> None:
        self._sent_messages = self._sent_bytes = 0
        self._read_messages = self._read_bytes = 0

    @property
    def messages(self) -> int:
        """Messages that wait."""
        return self._sent_messages - self._read_messages

    @property
    def bytes(self) -> int:
        """Bytes that wait."""
        return self._sent_bytes - self._read_bytes

    def room(self, kind: Kind, size: int) -> bool:
        """Whether a message of that kind and size (header and body) may be sent now."""
        waiting = self._sent_messages - self._read_messages
        if not waiting:
            return True
        share = _SHARE.get(kind, 1.0)
        return waiting < MESSAGES * share and self._sent_bytes - self._read_bytes + size <= BYTES * share

    def sent(self, size: int) -> None:
        """Count a message that was sent."""
        self._sent_messages += 1
        self._sent_bytes += size

    def read(self, messages: int, size: int) -> bool:
        """Take what the other side says it has read in all; False when that cannot be: nothing is changed then."""
        if not self._read_messages <= messages <= self._sent_messages:
            return False
        if not self._read_bytes <= size <= self._sent_bytes:
            return False
        self._read_messages, self._read_bytes = messages, size
        return True
