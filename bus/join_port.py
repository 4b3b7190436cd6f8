"""The join port: where a node that is in no cluster yet, or not any more, may be asked and ask a few things.

One socket on the port above the peer port, open to any key, with small messages, few sessions and a bounded appetite.
What may be said is `join_gate.py`, sessions are as on the peer port. Knows no router: what passes goes to `on_ask`.

Odd: ZeroMQ cannot close one connection of a socket, so when strangers hold too many of them, or the process grew much
meanwhile (from whatever cause: it costs little), the whole socket is opened anew. Whoever is in the middle of something
dials again and goes on.
"""

from __future__ import annotations

import asyncio
import mmap
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import zmq

from ..errors import CoveyError, Malformed
from . import codec
from .callers import Callers, Limits
from .guard import Context, Guard, address_of
from .messages import HELLO, Header, Kind
from .zap import Arrivals

LIMITS = Limits(frame=4096, sending=100, receiving=100, sessions=64, rate=500.0, burst=1000.0)
"""Of the join port: bytes of a frame, messages in libzmq's queues, sessions, raw messages a second and at once."""

MOST_MEMORY = 256 * 1024 * 1024
"""Bytes that this process may grow while the port is open. libzmq keeps a message until its last frame is there, and
one without a last frame for ever; nothing bounds that but closing the socket."""

MOST_OPEN = 512
"""Connections at a time, in the middle of their handshake or idle. A flood shall not take all file descriptors."""


class JoinPort:
    """Listen to strangers. `on_ask(session, header, body)` gets what may pass; `on_gone(session)` ends one."""

    def __init__(
        self,
        context: Context,
        endpoints: Sequence[str],
        guard: Guard,
        on_ask: Callable[[bytes, Header, zmq.Frame], None],
        on_gone: Callable[[bytes], None],
        on_drained: Callable[[], None],
    ) -> None:
        self._context = context
        self._endpoints = endpoints
        self._guard = guard
        self._on_ask = on_ask
        self._on_gone = on_gone
        self._on_drained = on_drained
        self._loop = asyncio.get_running_loop()
        self._counters: Counter[str] = Counter()  # what strangers do wrong in their sessions is theirs alone
        self._callers: Callers | None = None
        self._arrivals: Arrivals | None = None
        self._grown_from = 0
        self.renewed = 0
        """Times the port was opened anew."""

    def listen(self) -> None:
        """Bind; raises CoveyError when an address cannot be had."""
        callers = Callers(
            self._context,
            self._from_stranger,
            lambda key, _: self._on_gone(key),
            self._on_gone,
            self._counters,
            self._on_drained,
            self._secure,
            limits=LIMITS,
        )
        try:
            callers.listen(self._endpoints)
        except BaseException:
            self._close_arrivals()
            raise
        self._callers = callers
        self._grown_from = resident()

    def close(self) -> None:
        """Close; sessions are told."""
        self._close_arrivals()
        if self._callers:
            for key in self._callers.state():
                self._on_gone(key)
            self._callers.close()
            self._callers = None

    def sweep(self) -> None:
        """Open the port anew when too many connections are held. To be called about every second."""
        if self._callers is None:
            try:
                self.listen()
                self.renewed += 1
            except CoveyError:
                pass  # the old socket is not quite gone, or another program was faster: the next sweep tries again
        elif self._arrivals is not None and self._arrivals.open > MOST_OPEN:
            self._guard.refused("join_full")
            self.close()
        elif (self._arrivals is None or self._arrivals.open) and resident() > self._grown_from + MOST_MEMORY:
            self._guard.refused("join_memory")
            self.close()

    def send(self, session: bytes, kind: Kind, frame: bytes, body: Any) -> None:
        """Send an answer to who asked, under the name that it asked by; raises Overloaded, Unreachable."""
        found = self._guard.gate.back(codec.decode_header(frame))
        if found is None or self._callers is None:
            return
        header = found[1]
        if header.kind is Kind.ERROR and header.source.startswith("bus@"):
            body = codec.encode_error(CoveyError("the node asked cannot answer now", "try again later"))
        self._callers.send(session, kind, [codec.encode_header(header), body])

    def state(self) -> dict[str, int]:
        """Return how many connections and sessions there are, and how often the port was opened anew."""
        return {
            "open": self._arrivals.open if self._arrivals else 0,
            "sessions": len(self._callers.state()) if self._callers else 0,
            "renewed": self.renewed,
        }

    def _from_stranger(self, session: bytes, frames: list[zmq.Frame], user: str | None) -> None:
        address = address_of(frames[0])
        try:
            if len(frames) != 2:
                raise Malformed(f"{len(frames)} frames, expected 2")
            header = codec.decode_header(frames[0].bytes)
        except Malformed:
            self._guard.refused("join_malformed", address, user or "")
            return
        if header.kind is Kind.CONTROL and header.topic == HELLO:
            return  # every broker says it first; here it means nothing
        passed = self._guard.gate.let(self._loop.time(), session, user or "", address, header)
        if isinstance(passed, str):
            self._guard.refused(passed, address, user or "")
        else:
            self._on_ask(session, passed, frames[1])

    def _secure(self, socket: zmq.Socket[bytes]) -> None:
        self._arrivals = self._guard.secure_join(socket)

    def _close_arrivals(self) -> None:
        if self._arrivals:
            self._arrivals.close()
            self._arrivals = None


def resident() -> int:
    """Return how many bytes of memory this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
