"""A TCP proxy for one port that keeps all bytes its callers sent, and plays them again."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from types import TracebackType


class Recorder:
    """Stand before `target` (host, port) while the context lasts; `port` is where to call."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.sent: list[list[bytes]] = []
        """The pieces that each caller sent."""
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stop.close()
        self._thread.join()
        self._stopped.close()
        self._listening.close()

    def _run(self) -> None:
        far: dict[socket.socket, tuple[socket.socket, list[bytes]]] = {}
        with selectors.DefaultSelector() as selector:
            for each in (self._listening, self._stopped):
                selector.register(each, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    near = key.fileobj
                    assert isinstance(near, socket.socket)
                    if near is self._stopped:
                        for each in far:
                            each.close()
                        return
                    if near is self._listening:
                        caller = near.accept()[0]
                        called = socket.create_connection(self._target)
                        self.sent.append([])
                        far[caller], far[called] = (called, self.sent[-1]), (caller, [])
                        for each in (caller, called):
                            selector.register(each, selectors.EVENT_READ)
                        continue
                    if near not in far:
                        continue  # its other end was closed in this very turn
                    other, kept = far[near]
                    data = _received(near)
                    kept.append(data)
                    if data:
                        with contextlib.suppress(OSError):
                            other.sendall(data)
                        continue
                    for each in (near, other):
                        selector.unregister(each)
                        del far[each]
                        each.close()

    def play(self, number: int = 0, *, pieces: bool = True) -> bytes:
        """Send what a caller sent once more, as a caller of its own, and return all that is answered.

        `pieces`: each piece only after an answer to the one before it, or a short while.
        """
        sent = [piece for piece in self.sent[number] if piece]
        answered = b""
        with socket.create_connection(self._target) as again:
            again.settimeout(0.2)
            for piece in sent if pieces else [b"".join(sent)]:
                with contextlib.suppress(OSError):
                    again.sendall(piece)
                with contextlib.suppress(OSError):
                    answered += again.recv(65536)
            again.settimeout(5)
            while data := _received(again):
                answered += data
        return answered


def _received(near: socket.socket) -> bytes:
    try:
        return near.recv(65536)
    except OSError:
        return b""
