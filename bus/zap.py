"""Who may shake hands: the ZAP handler of one ZeroMQ context, which nothing can end but `close`.

libzmq asks it at every handshake on a socket with a ZAP domain (RFC 27). One judge a domain says why a key is refused,
or nothing; any other domain, mechanism or form is refused. Knows no node and no list of keys: the judges do. The key
that was proved becomes the `User-Id` of every message of that connection, in hex, and is checked there again, since a
handshake is judged only once.

Odd: a judge that raises gives status 500 for that handshake and the handler goes on. pyzmq's own authenticator ends
at the first exception, and then every later handshake hangs.
"""

from __future__ import annotations

import asyncio
import errno
import struct
from collections.abc import Callable, Mapping

import zmq

from .port import Port

ENDPOINT = "inproc://zeromq.zap.01"
VERSION = b"1.0"
OK, LATER, NO, FAILED = b"200", b"300", b"400", b"500"

TRY_LATER = ("join_rate",)
"""Reasons that pass by themselves: the peer is not told that it is refused for good."""

MOST_EVENTS = 100_000
"""Events of a socket that may wait to be read: libzmq's thread would stand still on a full queue."""

_EVENT = struct.Struct("=HI")
_EVENTS = int(
    zmq.EVENT_ACCEPTED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
)
_PROTOCOL = {
    int(zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH): "null",
    int(zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC): "wrong_key",
}

Judge = Callable[[str, str], str]
"""Gets a proved key in hex and the peer's address; returns why it is refused, "" when it is not."""


class Zap:
    """Answer the handshakes of all sockets of `context`, on the running loop.

    `refused(reason, address, key)` hears of each refusal: the judge's reason, or "null", "plain" or "mechanism" (not
    CURVE), "domain" (no such domain here), "zap" (malformed), "error" (the judge raised).
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        judges: Mapping[str, Judge],
        refused: Callable[[str, str, str], None],
    ) -> None:
        self._judges = {domain.encode(): judge for domain, judge in judges.items()}
        self._refused = refused
        self._loop = asyncio.get_running_loop()
        self.asked = 0
        """Handshakes judged so far."""
        socket: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.bind(ENDPOINT)  # raises when the context has a handler already
        self._port = Port(socket, self._asked)

    def close(self) -> None:
        """Stop answering: from then on no handshake succeeds."""
        self._port.close()

    def _asked(self, frames: list[zmq.Frame]) -> None:
        self.asked += 1
        request = [frame.bytes for frame in frames]
        status, text, user = FAILED, b"internal error", b""
        try:
            status, text, user = self._judged(request)
        except Exception as problem:
            # whatever went wrong must cost one handshake, not all of them
            self._loop.call_exception_handler({"message": "a handshake could not be judged", "exception": problem})
            self._told("error", request)
        if len(request) >= 4:
            self._port.send([*request[:2], VERSION, request[3], status, text, user, b""])

    def _judged(self, request: list[bytes]) -> tuple[bytes, bytes, bytes]:
        if len(request) < 8 or request[1] or request[2] != VERSION:
            self._told("zap", request)
            return FAILED, b"not a request of ZAP 1.0", b""
        domain, mechanism, credentials = request[4], request[7], request[8:]
        if mechanism != b"CURVE":
            self._told({b"NULL": "null", b"PLAIN": "plain"}.get(mechanism, "mechanism"), request)
            return NO, b"CURVE is needed", b""
        if len(credentials) != 1 or len(credentials[0]) != 32:
            self._told("zap", request)
            return FAILED, b"not a key", b""
        judge = self._judges.get(domain)
        if judge is None:
            self._told("domain", request)
            return NO, b"no such domain", b""
        key = credentials[0].hex()
        reason = judge(key, _address(request))
        if reason:
            self._told(reason, request)
            return (LATER if reason in TRY_LATER else NO), reason.encode(), b""
        return OK, b"OK", key.encode()

    def _told(self, reason: str, request: list[bytes]) -> None:
        key = request[8].hex() if len(request) == 9 and len(request[8]) == 32 else ""
        try:
            self._refused(reason, _address(request), key)
        except Exception as problem:
            self._loop.call_exception_handler({"message": "a refusal could not be told", "exception": problem})


def _address(request: list[bytes]) -> str:
    return request[5].decode("ascii", "replace")[:64] if len(request) > 5 else ""


class Arrivals:
    """Watch a bound CURVE socket: count what never came to the ZAP handler, and how many connections are open.

    `refused(reason, "", "")` hears "null" (the peer does not speak CURVE but NULL or PLAIN), "wrong_key" (it took this
    node for the holder of another key), "hung_up" (it went before the end) or "handshake" (no ZeroMQ, or it did not
    finish in time). libzmq tells no address with them. To be closed before the socket, which is to be bound after it.

    Odd: who speaks NULL and is first to see that this side does not hangs up, so it may be counted as that.
    """

    def __init__(self, socket: zmq.Socket[bytes], refused: Callable[[str, str, str], None]) -> None:
        self.open = 0
        """Connections that stand, those that have not shaken hands among them."""
        self._watched = socket
        self._refused = refused
        self._address = f"inproc://covey-arrivals-{id(self):x}"
        socket.monitor(self._address, _EVENTS)
        heard: zmq.Socket[bytes] = socket.context.socket(zmq.PAIR)
        heard.setsockopt(zmq.LINGER, 0)
        heard.setsockopt(zmq.RCVHWM, MOST_EVENTS)
        heard.connect(self._address)
        self._port = Port(heard, self._heard)

    def close(self) -> None:
        """Stop."""
        if not self._watched.closed:
            self._watched.disable_monitor()
        self._port.close()

    def _heard(self, frames: list[zmq.Frame]) -> None:
        event, value = _EVENT.unpack(frames[0].bytes)
        if event == zmq.EVENT_ACCEPTED:
            self.open += 1
        elif event == zmq.EVENT_DISCONNECTED:
            self.open -= 1
        elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            self._refused(_PROTOCOL.get(value, "handshake"), "", "")
        else:
            self._refused("hung_up" if value in (errno.EPIPE, errno.ECONNRESET) else "handshake", "", "")
