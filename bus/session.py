"""A conversation of two brokers that outlives its connections: what was sent arrives once, in order, or is reported.

Knows no socket, clock, thread or random source: time arrives as `now`, the session's number is given from outside,
effects leave. ZeroMQ loses what is under way when a connection breaks and says nothing (trap Z2), so each side numbers
its messages, keeps them until the other has confirmed them, and sends the rest again on the next connection. The
receiver takes only the next number: less is a duplicate, more is a gap and asks for the missing ones.

In front of header and body goes a frame of fixed size: version, type, session, sequence, ack, extra. Confirmations are
cumulative, ride on whatever is sent, and go alone when nothing is. They are the credit, too: what is not confirmed is
bounded in messages and bytes. A `Session` is one side; `dialler.py` and `acceptor.py` say when it begins and ends.

A side that dialled may be *calm*: somebody else vouches that the other node lives (`Broker.vouch`), so heartbeats are
rare, and more silence is borne. Not while anything waits to be confirmed: then, or when nobody vouches any more, the
usual limits hold from that moment on.

Odd: a confirmation means that the other broker has the message, not that a party has read it.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import Any

import msgspec

from ..errors import Malformed, Overloaded
from .ends import LinkKey
from .messages import Kind
from .window import MESSAGES, Window

VERSION = 1
"""First byte of every session frame."""

# types of a session frame, and what `sequence` and `extra` mean in it
OPEN = 1  # dialler: begin; the number of the attempt, the session it replaces (0: none)
RESUME = 2  # dialler: go on, on this new connection; the number of the attempt
ACCEPT = 3  # listener: so be it; the number of the attempt
DATA = 4  # header and body follow; the message's number from 1
ACK = 5  # nothing but the ack; the number last sent
PING = 6  # answer at once; the number last sent, the sender's clock in microseconds
PONG = 7  # the answer; the number last sent, the same clock reading
RESEND = 8  # what follows `ack` did not arrive, send it again
END = 9  # the session is over; `extra` says why
CALM = 10  # as PING; this side says so little from now on that silence proves nothing, until its next PING

SAID = frozenset((DATA, ACK, PING, PONG, RESEND, CALM))
"""What is said while a session stands; all else opens or ends one."""

IDLE, LEAVING, UNKNOWN, SILENT_END, FULL, MISMATCH, CUT = range(1, 8)
REASONS = {
    IDLE: "it was not used any more",
    LEAVING: "the other side ended",
    UNKNOWN: "it was started anew, or had given up this connection",
    SILENT_END: "it heard nothing from this node any more",
    FULL: "it has too many connections",
    MISMATCH: "it remembers another conversation",
    CUT: "it does not take this node for its peer any more",
}

HEARTBEAT = 1.0
"""Seconds without sending anything after which a side says that it is there."""

SILENT = 5.0
"""Seconds without hearing anything after which the other side is down. Several heartbeats, for one may be late."""

LULL = 15.0
"""Seconds that take the place of `HEARTBEAT` while a session is calm, and are added to `SILENT`."""

WORRY = 2.0
"""Seconds of silence that are left when nobody vouches for the other side any more: some have passed by then."""

ACK_MESSAGES = 64
"""Messages received after which they are confirmed without waiting for something to send."""

ACK_BYTES = 1024 * 1024
"""Bytes likewise: large messages fill a window before they are many."""

ACK_DELAY = 0.02
"""Seconds after which the first unconfirmed message is confirmed alone."""

ASK_AGAIN = 1.0
"""Seconds between two requests to send the same missing message again."""

_FRAME = struct.Struct("!BBQQQQ")
_CLOCK = 1e6


class Transmit(msgspec.Struct, frozen=True, gc=False):
    """Put these frames on the connection; a listener's begin with the connection's identity.

    `service` is that of the message in it, "" for what only concerns the session.
    """

    frames: list[Any]
    service: str = ""


class Deliver(msgspec.Struct, frozen=True, gc=False):
    """Give this message (header, body) to the broker: the next in order, never the same twice."""

    key: LinkKey | bytes
    frames: list[Any]


class Up(msgspec.Struct, frozen=True):
    """A new session stands."""

    key: LinkKey | bytes


class Down(msgspec.Struct, frozen=True):
    """The session is over, or none came about. `lost` messages given to it were not confirmed.

    `reached`: the other side may have got them, and may have acted on those it confirmed; else it got nothing.
    """

    key: LinkKey | bytes
    reason: str
    reached: bool = True
    lost: int = 0


class Closed(msgspec.Struct, frozen=True):
    """The session ended in good order, because nobody used it."""

    key: LinkKey | bytes
    lost: int = 0


Effect = Transmit | Deliver | Up | Down | Closed


class Counters(msgspec.Struct):
    """What one link did, over all its sessions. Times in seconds; `rtt` is that of the last heartbeat, 0: none yet."""

    messages_out: int = 0
    bytes_out: int = 0
    messages_in: int = 0
    bytes_in: int = 0
    resent: int = 0
    duplicates: int = 0
    gaps: int = 0
    refused: int = 0
    lost: int = 0
    resumed: int = 0
    downs: int = 0
    malformed: int = 0
    last_reason: str = ""
    rtt: float = 0.0


def frame(type: int, session: int, sequence: int = 0, ack: int = 0, extra: int = 0) -> bytes:
    """Return the bytes of a session frame."""
    return _FRAME.pack(VERSION, type, session, sequence, ack, extra)


def parse(data: bytes, count: int) -> tuple[int, int, int, int, int]:
    """Read the session frame of a message of `count` frames in all: type, session, sequence, ack, extra.

    Raises Malformed for another version, type, length, or number of frames.
    """
    try:
        version, type, session, sequence, ack, extra = _FRAME.unpack(data)
    except struct.error:
        raise Malformed(f"a session frame of {len(data)} bytes, expected {_FRAME.size}") from None
    if version != VERSION or not OPEN <= type <= CALM or count != (3 if type == DATA else 1):
        raise Malformed(f"a session frame of version {version}, type {type}, with {count - 1} frames behind it")
    return type, session, sequence, ack, extra


class Session:
    """One side of a conversation.

    `route` is put in front of everything sent: a listener's sockets need the identity of the connection.
    Invariants: 1. what waits is exactly what was given after the last confirmed; 2. nothing is confirmed that was not
    sent; 3. a message is delivered only as the successor of the one before.
    """

    __slots__ = (
        "_acked",
        "_again",
        "_asked",
        "_given",
        "_lulled",
        "_owed",
        "_owed_bytes",
        "_ping",
        "_queue",
        "_read_bytes",
        "_received",
        "_sent",
        "_since",
        "_spoke",
        "_window",
        "ack_by",
        "attached",
        "counters",
        "heard_at",
        "hushed",
        "key",
        "number",
        "route",
    )

    def __init__(self, number: int, key: LinkKey | bytes, now: float, counters: Counters) -> None:
        self.number = number
        self.key = key
        self.counters = counters
        self.attached = False
        self.heard_at = now
        self.hushed = False  # this side said that it is calm
        self._lulled = False  # the other side said so
        self._since = now  # when the usual limits came to hold again
        self.route: tuple[bytes, ...] = ()
        self.ack_by: float | None = None  # when a confirmation must go, alone if need be
        self._spoke = now
        self._window = Window()
        self._queue: deque[tuple[int, list[Any], str]] = deque()  # size, frames, service of what is not confirmed
        self._given = self._sent = self._acked = self._read_bytes = 0
        self._received = self._owed = self._owed_bytes = 0
        self._asked: tuple[int, float] | None = None  # which message was asked for again, and when
        self._again: tuple[int, float] | None = None  # the same, asked for by the other side
        self._ping = 0

    @property
    def waiting(self) -> int:
        """Messages given and not confirmed."""
        return len(self._queue)

    @property
    def received(self) -> int:
        """The number of the last message taken: what a new connection tells the other side."""
        return self._received

    @property
    def untouched(self) -> bool:
        """Nothing was exchanged yet."""
        return not self._received and not self._acked

    @property
    def calm(self) -> bool:
        """Heartbeats are rare: one side said so, and nothing waits."""
        return (self.hushed or self._lulled) and not self._queue

    @property
    def deadline(self) -> float:
        """When `due` must be called."""
        at = self._silent_at
        if self.attached:
            at = min(at, self._beat_at)
            if self.ack_by is not None:
                at = min(at, self.ack_by)
        return at

    def silent(self, now: float) -> bool:
        """Whether the other side was not heard for too long."""
        return now >= self._silent_at

    @property
    def silent_since(self) -> float:
        """From when silence counts: since the other side was heard, or much later while that says little."""
        return max(self.heard_at, self._since) + (LULL if self.calm else 0.0)

    @property
    def _silent_at(self) -> float:
        return self.silent_since + SILENT

    @property
    def _beat_at(self) -> float:
        return self._spoke + (LULL if self.calm else HEARTBEAT)

    def excuse(self, now: float) -> None:
        """This side itself stood still: give what came in meanwhile one heartbeat of time to be read."""
        self.heard_at = max(self.heard_at, now - SILENT + HEARTBEAT)

    def send(self, now: float, kind: Kind, frames: list[Any], service: str = "") -> list[Effect]:
        """Take a message: it goes at once, or when there is a connection. Raises Overloaded when the window is full.

        Errors and control messages may fill twice the window: they are small, and others wait for them.
        """
        size = len(frames[0]) + len(frames[1])
        if not self._window.take(kind, size):
            if kind not in (Kind.ERROR, Kind.CONTROL) or self._window.messages >= 2 * MESSAGES:
                self.counters.refused += 1
                raise Overloaded(
                    f"{self._window.messages} messages ({self._window.bytes} bytes) to that node wait to be confirmed",
                    "the node or the way to it is slow; try again later",
                )
            self._window.sent(size)
        if self.calm:
            self._since = now
        self._given += 1
        self._queue.append((size, frames, service))
        self.counters.messages_out += 1
        self.counters.bytes_out += size
        if not self.attached:
            return []
        self._sent = number = self._given
        self._spoke = now
        self.ack_by = None
        self._owed = self._owed_bytes = 0
        first = _FRAME.pack(VERSION, DATA, self.number, number, self._received, 0)
        return [Transmit([*self.route, first, *frames], service)]

    def attach(self, now: float, ack: int) -> bool:
        """A connection stands whose other side has received up to `ack`; False: that is not what this side knows."""
        if not self._acked <= ack <= self._sent:
            return False
        self._confirm(ack)
        self.attached = True
        self.hushed = self._lulled = False
        self.heard_at = now
        self._asked = None
        return True

    def detach(self, now: float) -> None:
        """The connection is gone."""
        if self.calm:
            self._since = now
        self.hushed = self._lulled = False
        self.attached = False
        self.ack_by = None

    def hush(self, now: float, wanted: bool) -> list[Effect]:
        """Be calm from now on, or no longer, and tell the other side."""
        if not self.attached or wanted == self.hushed:
            return []
        if self.calm:
            self._since = now - SILENT + WORRY
        self.hushed = wanted
        return [self._beat(now)]

    def rest(self, now: float) -> list[Effect]:
        """Send everything that is not confirmed: after `attach`, or because the other side asked for it."""
        first = self._acked + 1
        self.counters.resent += max(0, self._sent - self._acked)
        self._sent = self._given
        return [
            self._out(now, DATA, number, 0, each, service)
            for number, (_, each, service) in enumerate(self._queue, first)
        ]

    def heard(self, now: float, type: int, sequence: int, ack: int, extra: int, frames: list[Any]) -> list[Effect]:
        """Take what came over the session's connection (`frames`: header and body); connecting and ending excepted."""
        self.heard_at = now
        if ack > self._acked:
            if ack > self._sent:
                self.counters.malformed += 1
                return []
            self._confirm(ack)
        if type == DATA:
            return self._data(now, sequence, frames)
        effects: list[Effect] = []
        if type == RESEND:
            effects = self._repeat(now, ack)
        elif type in (PING, CALM):
            self._lulled = type == CALM
            effects = [self._out(now, PONG, self._sent, extra)]
        elif type == PONG and extra == self._ping:
            self.counters.rtt = now - extra / _CLOCK
        if type != RESEND and sequence > self._received:  # the last message was lost, and none came after it
            effects += self._missing(now)
        return effects

    def due(self, now: float) -> list[Effect]:
        """Say what time demands: a confirmation, a heartbeat."""
        if not self.attached:
            return []
        if now >= self._beat_at:  # as `deadline` reckons, or rounding would make it turn in circles
            return [self._beat(now)]
        if self.ack_by is not None and now >= self.ack_by:
            return [self._out(now, ACK, self._sent)]
        return []

    def opening(self, now: float, type: int, attempt: int, extra: int = 0) -> Transmit:
        """Return the frame that opens, resumes or accepts on a new connection."""
        return self._out(now, type, attempt, extra)

    def ending(self, now: float, reason: int) -> Transmit:
        """Return the frame that says the session is over."""
        return self._out(now, END, self._sent, reason)

    def check_invariants(self) -> None:
        """Raise AssertionError when a numbered invariant of the class does not hold."""
        assert len(self._queue) == self._given - self._acked == self._window.messages, "1"
        assert sum(size for size, _, _ in self._queue) == self._window.bytes, "1"
        assert self._acked <= self._sent <= self._given, "2"
        assert not self.attached or self._sent == self._given, "2"

    def _beat(self, now: float) -> Transmit:
        self._ping = int(now * _CLOCK)
        return self._out(now, CALM if self.hushed else PING, self._sent, self._ping)

    def _data(self, now: float, sequence: int, frames: list[Any]) -> list[Effect]:
        if sequence != self._received + 1:
            if sequence > self._received:
                return self._missing(now)
            self.counters.duplicates += 1
            self._owe(now, 0)
            return []
        self._received = sequence
        size = len(frames[0]) + len(frames[1])
        self.counters.messages_in += 1
        self.counters.bytes_in += size
        self._owe(now, size)
        if self._owed >= ACK_MESSAGES or self._owed_bytes >= ACK_BYTES:
            return [Deliver(self.key, frames), self._out(now, ACK, self._sent)]
        return [Deliver(self.key, frames)]

    def _owe(self, now: float, size: int) -> None:
        self._owed += 1
        self._owed_bytes += size
        if self.ack_by is None:
            self.ack_by = now + ACK_DELAY

    def _repeat(self, now: float, ack: int) -> list[Effect]:
        # an honest side asks for one message once a second; one that asks more often would make us send without end
        if self._again and self._again[0] == ack and now - self._again[1] < ASK_AGAIN / 2:
            return []
        self._again = (ack, now)
        return self.rest(now)

    def _missing(self, now: float) -> list[Effect]:
        if self._asked and self._asked[0] == self._received and now - self._asked[1] < ASK_AGAIN:
            return []
        self._asked = (self._received, now)
        self.counters.gaps += 1
        return [self._out(now, RESEND, 0)]

    def _confirm(self, ack: int) -> None:
        for _ in range(ack - self._acked):
            self._read_bytes += self._queue.popleft()[0]
        self._acked = ack
        self._window.read(ack, self._read_bytes)

    def _out(
        self, now: float, type: int, sequence: int, extra: int = 0, frames: list[Any] | None = None, service: str = ""
    ) -> Transmit:
        self._spoke = now
        self.ack_by = None
        self._owed = self._owed_bytes = 0
        first = _FRAME.pack(VERSION, type, self.number, sequence, self._received, extra)
        return Transmit([*self.route, first, *frames] if frames else [*self.route, first], service)
