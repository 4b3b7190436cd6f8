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

READ_MESSAGES = 500
"""Messages after which a reader says what it has read."""

READ_BYTES = 256 * 1024
"""Bytes after which a reader says what it has read."""

_SHARE = {Kind.EVENT: 0.5, Kind.REQUEST: 0.75, Kind.REPLY: 1.0, Kind.ERROR: 1.0, Kind.CONTROL: 1.0}
_MESSAGES = {kind: int(MESSAGES * share) for kind, share in _SHARE.items()}
_BYTES = {kind: int(BYTES * share) for kind, share in _SHARE.items()}


class Window:
    """What one connection was sent and has not read.

    A single message always fits into an empty window, and one that may be empty counts as such: a reader says nothing
    before it has read `READ_MESSAGES` or `READ_BYTES`. So whoever finds no room will hear of a reading.
    """

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
        messages = self._sent_messages - self._read_messages
        bytes_ = self._sent_bytes - self._read_bytes
        if messages < READ_MESSAGES and bytes_ < READ_BYTES:
            return True
        return messages < _MESSAGES[kind] and bytes_ + size <= _BYTES[kind]

    def sent(self, size: int) -> None:
        """Count a message that was sent."""
        self._sent_messages += 1
        self._sent_bytes += size

    def take(self, kind: Kind, size: int) -> bool:
        """Count a message that is about to be sent, if there is room for it."""
        messages = self._sent_messages - self._read_messages
        bytes_ = self._sent_bytes - self._read_bytes
        may_be_empty = messages < READ_MESSAGES and bytes_ < READ_BYTES
        if not may_be_empty and (messages >= _MESSAGES[kind] or bytes_ + size > _BYTES[kind]):
            return False
        self._sent_messages += 1
        self._sent_bytes += size
        return True

    def read(self, messages: int, size: int) -> bool:
        """Take what the other side says it has read in all; False when that cannot be: nothing is changed then."""
        if not self._read_messages <= messages <= self._sent_messages:
            return False
        if not self._read_bytes <= size <= self._sent_bytes:
            return False
        self._read_messages, self._read_bytes = messages, size
        return True
