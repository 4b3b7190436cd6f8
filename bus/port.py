"""One socket, one owner: poll, then drain without waiting.

A ZeroMQ file descriptor is edge-triggered: whatever is done with the socket may eat the wake-up for what has come. A
drain ends with such a look, and sends during a drain need none of their own; every other send is followed by one. A
drain is bounded in messages and in time, so that one busy socket leaves the loop to others; a slow tick repairs a
wake-up that a kernel or library might lose. Four times as fast as a future per message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import zmq

from ..errors import CoveyError

DRAIN = 200
"""Messages read in one go before other tasks get the loop."""

DRAIN_TIME = 0.005
"""Seconds after which a drain stops, too: a message may be a batch of a hundred requests."""

MOST_FRAMES = 16
"""Of a message; none has so many. The rest is thrown away as it is read, `SKIP` frames at a time."""

SKIP = 1000

TICK = 5.0
"""Seconds between the looks that repair a lost wake-up; all ports of a loop are looked at in one turn, so that an idle
process sleeps."""

LARGE = 64 * 1024
"""Bytes. Smaller frames are copied, which is cheaper than keeping track of who still needs them."""

_WHY_NOT: dict[int, str] = {
    zmq.EADDRINUSE: "is another daemon using it?",
    zmq.EADDRNOTAVAIL: "this machine has no such address: see `node: adapters:` in the node's YAML",
}

# plain numbers: an enum's `&` costs more than the call it is for
_NOBLOCK = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)


class _Ticker:
    """Call some functions every `TICK` seconds, all in one turn of the loop. Without any it ends."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._called: dict[Callable[[], None], None] = {}
        self._timer = loop.call_later(TICK, self._tick)
        _tickers[loop] = self

    def add(self, function: Callable[[], None]) -> None:
        self._called[function] = None

    def discard(self, function: Callable[[], None]) -> None:
        self._called.pop(function, None)
        if not self._called:
            self._timer.cancel()
            del _tickers[self._loop]

    def _tick(self) -> None:
        self._timer = self._loop.call_later(TICK, self._tick)
        for function in list(self._called):
            function()


_tickers: dict[asyncio.AbstractEventLoop, _Ticker] = {}


class Port:
    """Read a socket on the running loop and send on it without ever blocking.

    `on_frames` gets the frames of each message: zmq.Frame objects, so that large bodies are not copied and the
    connection's metadata stays readable (`content` gives the bytes). An exception in it is passed to the loop's
    exception handler; reading goes on. `on_drained` is called when everything that had come was handled.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        on_frames: Callable[[list[zmq.Frame]], None],
        on_drained: Callable[[], None] | None = None,
    ) -> None:
        self.socket = socket
        self._on_frames = on_frames
        self._on_drained = on_drained
        self._loop = asyncio.get_running_loop()
        self._fd: int = socket.getsockopt(zmq.FD)  # type: ignore[assignment]  # this option is a number
        self._again = False
        self._rest = False
        """Whether the rest of a message with too many frames is being thrown away."""
        self.draining = False
        """Whether messages are being handled: `on_drained` comes after that."""
        self._closed = False
        self._paused: asyncio.TimerHandle | None = None
        # what pyzmq's own class adds to a send is for options nobody uses here, and as dear as the send itself
        self.send_frame: Callable[..., object] = super(zmq.Socket, socket).send
        self._recv: Callable[..., zmq.Frame] = socket.recv
        self._look: Callable[[int], int] = socket.get  # type: ignore[assignment]  # asked for numbers alone
        self._loop.add_reader(self._fd, self._drain)
        self._ticker = _tickers.get(self._loop) or _Ticker(self._loop)
        self._ticker.add(self._drain)
        self.touched()

    def send(self, frames: Sequence[Any], copy: bool = True) -> None:
        """Send one message; raises zmq.Again when the socket's queue is full or nobody is there to take it.

        Frames are bytes or zmq.Frame. `copy` False spares the copy of large bytes, which must then not change.
        """
        try:
            self.put(frames, copy)
        finally:
            self.touched()

    def put(self, frames: Sequence[Any], copy: bool = True) -> None:
        """Send one of several messages: like `send`, but `touched` is to be called after the last."""
        send = self.send_frame
        for frame in frames[:-1]:
            send(frame, _MORE, copy)
        send(frames[-1], _NOBLOCK, copy)

    def touched(self) -> None:
        """To be called after anything else was done with the socket, an option set say: that too eats wake-ups."""
        if self._again or self.draining or self._closed or self._paused:
            return
        if self._look(_EVENTS) & _POLLIN:
            self._again = True
            self._loop.call_soon(self._drain)

    def drain(self) -> None:
        """Handle what has come until now, without waiting for the loop."""
        if not self.draining:
            self._drain()

    def pause(self, seconds: float) -> None:
        """Read nothing for a while: what comes meanwhile waits in libzmq's queue, then with who sends it."""
        if self._paused is None and not self._closed:
            self._loop.remove_reader(self._fd)
            self._paused = self._loop.call_later(seconds, self._resume)

    def close(self, linger: int = 0) -> None:
        """Stop reading and close the socket, giving what is queued `linger` milliseconds to leave."""
        if self._closed:
            return
        self._closed = True
        self._ticker.discard(self._drain)
        if self._paused:
            self._paused.cancel()
        self._loop.remove_reader(self._fd)
        self.socket.close(linger)

    def _resume(self) -> None:
        self._paused = None
        self._loop.add_reader(self._fd, self._drain)
        self._drain()

    def _drain(self) -> None:
        self._again = False
        if self._closed or self._paused:
            return
        self.draining = True
        try:
            # most wake-ups bring one message, and what follows from it need not wait for a look whether there are more
            if self._receive() and not self._closed:
                if self._on_drained:
                    self._on_drained()
                if not self._closed and not self._paused and self._look(_EVENTS) & _POLLIN:
                    self._drain_all()
        finally:
            self.draining = False

    def _drain_all(self) -> None:
        end = monotonic() + DRAIN_TIME
        for _ in range(DRAIN):
            if not self._receive():
                break
            if self._closed:
                return
            if self._paused or monotonic() > end:
                break
        if self._on_drained:
            self._on_drained()
        if not self._closed and not self._paused and self._look(_EVENTS) & _POLLIN:
            self._again = True
            self._loop.call_soon(self._drain)

    def _receive(self) -> bool:
        """Handle one message; False when there is none."""
        receive = self._recv
        if self._rest:
            return self._skip()
        try:
            frame = receive(_NOBLOCK, False)
        except zmq.Again:
            return False
        frames = [frame]
        while frame.more:
            if len(frames) > MOST_FRAMES:
                self._rest = True
                break
            frame = receive(_NOBLOCK, False)
            frames.append(frame)
        try:
            self._on_frames(frames)
        except Exception as problem:
            self._loop.call_exception_handler({"message": "a message could not be handled", "exception": problem})
        return True

    def _skip(self) -> bool:
        """Throw away some more of a message with too many frames: millions at once would hold the loop."""
        receive = self._recv
        try:
            for _ in range(SKIP):
                if not receive(_NOBLOCK, False).more:
                    self._rest = False
                    break
        except zmq.Again:
            return False
        return True


def content(frame: zmq.Frame) -> bytes | memoryview:
    """Return what a frame holds: as bytes, or when it is large without copying it."""
    return frame.bytes if len(frame) < LARGE else frame.buffer


class Monitor:
    """Tell what happens to a socket's connection: `up` when a peer has shaken hands, `down` with the reason.

    Only for sockets that connect to one endpoint. libzmq's own reconnection goes on behind it.
    """

    def __init__(self, socket: zmq.Socket[bytes], on_up: Callable[[], None], on_down: Callable[[str], None]) -> None:
        self._watched = socket
        self._on_up = on_up
        self._on_down = on_down
        events = (
            zmq.EVENT_HANDSHAKE_SUCCEEDED
            | zmq.EVENT_DISCONNECTED
            | zmq.EVENT_CONNECT_RETRIED
            | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
            | zmq.EVENT_HANDSHAKE_FAILED_AUTH
        )
        self._port = Port(socket.get_monitor_socket(int(events)), self._heard)

    def close(self) -> None:
        """Stop; to be called before the watched socket is closed (an unread monitor would block libzmq)."""
        self._watched.disable_monitor()
        self._port.close()

    def _heard(self, frames: list[zmq.Frame]) -> None:
        event = int.from_bytes(frames[0].bytes[:2], "little")
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._on_up()
        elif event == zmq.EVENT_DISCONNECTED:
            self._on_down("connection closed")
        elif event == zmq.EVENT_CONNECT_RETRIED:
            self._on_down("connection refused")
        else:
            self._on_down("handshake failed")


def bind(socket: zmq.Socket[bytes], endpoint: str) -> None:
    """Listen at an endpoint; raises CoveyError with what may be the reason."""
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as problem:
        hint = _WHY_NOT.get(problem.errno or 0, "")
        place, why = endpoint.removeprefix("tcp://"), zmq.strerror(problem.errno or 0)
        raise CoveyError(f"cannot listen on {place}: {why}", hint) from None
