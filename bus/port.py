"""One socket, one owner: poll, then drain without waiting.

A ZeroMQ file descriptor is edge-triggered, so after every drain and after every send the socket's EVENTS are looked at
again; a drain is bounded, so that one busy socket leaves the loop to others; a slow tick repairs a wake-up that a
kernel or library might lose. Four times as fast as a future per message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import zmq

DRAIN = 200
"""Messages read in one go before other tasks get the loop."""

TICK = 1.0
"""Seconds between the looks that repair a lost wake-up."""


class Port:
    """Read a socket on the running loop and send on it without ever blocking.

    `on_frames` gets the frames of each message: zmq.Frame objects, so that large bodies are not copied and the
    connection's metadata stays readable. An exception in it is passed to the loop's exception handler; reading goes on.
    """

    def __init__(self, socket: zmq.Socket[bytes], on_frames: Callable[[list[zmq.Frame]], None]) -> None:
        self.socket = socket
        self._on_frames = on_frames
        self._loop = asyncio.get_running_loop()
        self._fd: int = socket.getsockopt(zmq.FD)  # type: ignore[assignment]
        self._again = False
        self._closed = False
        self._loop.add_reader(self._fd, self._drain)
        self._timer = self._loop.call_later(TICK, self._tick)
        self._look_again()

    def send(self, frames: list[Any], copy: bool = True) -> None:
        """Send one message; raises zmq.Again when the socket's queue is full or nobody is there to take it."""
        try:
            self.socket.send_multipart(frames, zmq.NOBLOCK, copy=copy)
        finally:
            self._look_again()

    def touched(self) -> None:
        """To be called after anything else was done with the socket, an option set say: that too eats wake-ups."""
        self._look_again()

    def close(self, linger: int = 0) -> None:
        """Stop reading and close the socket, giving what is queued `linger` milliseconds to leave."""
        if self._closed:
            return
        self._closed = True
        self._timer.cancel()
        self._loop.remove_reader(self._fd)
        self.socket.close(linger)

    def _tick(self) -> None:
        self._timer = self._loop.call_later(TICK, self._tick)
        self._drain()

    def _look_again(self) -> None:
        if self._again or self._closed:
            return
        events: int = self.socket.getsockopt(zmq.EVENTS)  # type: ignore[assignment]
        if events & zmq.POLLIN:
            self._again = True
            self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        self._again = False
        for _ in range(DRAIN):
            if self._closed:
                return
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            try:
                self._on_frames(frames)
            except Exception as problem:
                self._loop.call_exception_handler({"message": "a message could not be handled", "exception": problem})
        self._look_again()


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
