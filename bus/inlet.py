"""The broker's end of many connections: a ROUTER socket, read and written with as little as can be.

Each message is a connection's identity, a header and a body. Identity and header are small and copied. A body is copied
when it is small, since many small frames share one buffer of libzmq, which a queued or kept one would hold.
"""

from __future__ import annotations

from collections.abc import Callable

import zmq

from .port import Port

LARGE_BODY = 8192
"""Bytes, of libzmq's own read buffer. A larger frame has memory of its own and passes without a copy."""

_NOBLOCK = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)


class Inlet(Port):
    """A Port that hands on `identity, header, body`, the body as a frame: there the connection's metadata is readable.

    `on_malformed` hears of each message that has not these three.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        on_message: Callable[[bytes, bytes, zmq.Frame], None],
        on_malformed: Callable[[], None],
        on_drained: Callable[[], None],
    ) -> None:
        self._on_message = on_message
        self._on_malformed = on_malformed
        super().__init__(socket, lambda _: None, on_drained)

    def put_three(self, identity: bytes, header: bytes, body: bytes | zmq.Frame) -> None:
        """Send one message, as `put` does; raises zmq.Again, or zmq.ZMQError when that connection is closed."""
        send = self.send_frame
        send(identity, _MORE)
        send(header, _MORE)
        send(body, _NOBLOCK, type(body) is bytes)

    def _receive(self) -> bool:
        receive = self._recv
        if self._rest:
            return self._skip()
        try:
            identity = receive(_NOBLOCK)
        except zmq.Again:
            return False
        header = receive(_NOBLOCK, False)
        body = receive(_NOBLOCK, False) if header.more else header
        try:
            if body is header or body.more:
                self._rest = body.more
                self._on_malformed()
            else:
                self._on_message(identity, header.bytes, body)  # type: ignore[arg-type]  # a Frame: read as a buffer
        except Exception as problem:
            self._loop.call_exception_handler({"message": "a message could not be handled", "exception": problem})
        return True


def content(frame: zmq.Frame) -> bytes | zmq.Frame:
    """Return what a frame holds, or when it is large the frame itself."""
    return frame if len(frame) >= LARGE_BODY else frame.bytes
