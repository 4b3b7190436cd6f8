"""Connections to other nodes' brokers: dialled when first needed, kept while they work.

A link tries the peer's addresses in order, from the local adapter that shares the address's network when there is one.
What is sent before the connection stands waits, bounded and briefly. A refused or closed connection is told at once,
with the reason; the next message dials anew, beginning with the next address.

Links to nodes stay as long as there are such nodes. Links by address are for a question or two (a define, a node that
is nowhere listed): one that is idle is closed, and there are at most so many.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any

import zmq

from ..errors import Overloaded, UsageError
from .port import Monitor, Port

DIAL_LIMIT = 2.0
"""Seconds a first connection may take before what waits for it is told. Long enough for a busy machine."""

WAITING = 1000
"""Messages that may wait for a connection."""

QUEUE = 10_000
"""Messages libzmq may hold for a slow peer before senders are told `overloaded`."""


IDLE = 60.0
"""Seconds without a message after which a link by address is closed, unless somebody waits for an answer over it."""

BY_ADDRESS = 64
"""Links by address at a time; for one more, the one that was quiet longest is closed."""


class Link:
    """One dialled connection. `on_frames` gets what the peer sends, `on_down(reason)` is called when it breaks."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        addresses: Sequence[str],
        adapters: Sequence[str],
        hello: Callable[[], list[bytes]],
        on_frames: Callable[[list[zmq.Frame]], None],
        on_up: Callable[[], None],
        on_down: Callable[[str], None],
    ) -> None:
        self._context = context
        self.addresses = tuple(addresses)
        self._adapters = [ipaddress.ip_interface(adapter) for adapter in adapters]
        self._hello = hello
        self._on_frames = on_frames
        self._on_up = on_up
        self._on_down = on_down
        self._loop = asyncio.get_running_loop()
        self._tried = 0
        self._waiting: deque[list[Any]] = deque()
        self._port: Port | None = None
        self._monitor: Monitor | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.up = False
        self.used = self._loop.time()

    def send(self, frames: list[Any]) -> None:
        """Send, dialling first when needed; raises Overloaded when the peer does not keep up."""
        self.used = self._loop.time()
        if self.up and self._port:
            try:
                self._port.send(frames)
            except zmq.Again:
                raise Overloaded("the peer does not keep up", "try again later") from None
            return
        if len(self._waiting) >= WAITING:
            raise Overloaded(f"{WAITING} messages wait for a connection already", "try again later")
        self._waiting.append(frames)
        if self._port is None:
            self._dial()

    def greet(self) -> None:
        """Say hello (again): this node's own facts changed. A peer that does not take it gets it when dialled anew."""
        if self.up and self._port:
            try:
                self._port.send(self._hello())
            except zmq.Again:
                self._broken("it does not read its messages any more")

    def close(self) -> None:
        """Drop the connection and what waits for it."""
        self._hang_up()
        self._waiting.clear()

    def _dial(self) -> None:
        address = self.addresses[self._tried % len(self.addresses)]
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.SNDHWM, QUEUE)
        socket.setsockopt(zmq.RCVHWM, QUEUE)
        socket.setsockopt(zmq.RECONNECT_IVL, 100 + random.randrange(100))
        socket.setsockopt(zmq.HANDSHAKE_IVL, 3000)
        socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 5)
        socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 2)
        socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
        socket.setsockopt(zmq.TCP_MAXRT, 10_000)
        if ":" in address.rpartition(":")[0]:
            socket.setsockopt(zmq.IPV6, 1)
        self._port = Port(socket, self._heard)
        self._monitor = Monitor(socket, self._connected, self._broken)
        socket.connect(f"tcp://{self._source_for(address)}{address}")
        self._timer = self._loop.call_later(DIAL_LIMIT, self._broken, f"no answer from {address} in {DIAL_LIMIT:g} s")

    def _source_for(self, address: str) -> str:
        host = ipaddress.ip_address(address.rpartition(":")[0].strip("[]"))
        for adapter in self._adapters:
            if host in adapter.network:
                return f"[{adapter.ip}]:0;" if adapter.version == 6 else f"{adapter.ip}:0;"
        return ""

    def _heard(self, frames: list[zmq.Frame]) -> None:
        self.used = self._loop.time()
        self._on_frames(frames)

    def _connected(self) -> None:
        if self._timer:
            self._timer.cancel()
        assert self._port is not None
        self.up = True
        try:
            self._port.send(self._hello())
            while self._waiting:
                self._port.send(self._waiting[0])
                self._waiting.popleft()
        except zmq.Again:
            self._broken("the connection broke while it was made")
            return
        self._on_up()

    def _broken(self, reason: str) -> None:
        address = self.addresses[self._tried % len(self.addresses)]
        was_up = self.up
        self.up = False
        self._hang_up()
        self._tried += 1
        if not was_up and self._waiting and self._tried % len(self.addresses):
            self._dial()
            return
        self._waiting.clear()
        self._on_down(f"{address}: {reason}")

    def _hang_up(self) -> None:
        self.up = False
        if self._timer:
            self._timer.cancel()
        if self._monitor:
            self._monitor.close()
        if self._port:
            self._port.close()
        self._port = self._monitor = self._timer = None


class Links:
    """All links of a broker, by node number or `host:port`. `closed` hears of each that was closed to make room."""

    def __init__(self, make: Callable[[int | str], Link], closed: Callable[[str, str], None]) -> None:
        self._make = make
        self._closed = closed
        self._links: dict[int | str, Link] = {}

    def send(self, key: int | str, frames: list[Any]) -> None:
        """Send over the link of that peer, making it when there is none; raises Overloaded when it cannot be taken."""
        link = self._links.get(key)
        if link is None:
            link = self._make(key)
            if isinstance(key, str):
                self._make_room()
            self._links[key] = link
        link.send(frames)

    def sweep(self, now: float, busy: Collection[int | str]) -> None:
        """Close the links by address that are idle; those in `busy` are not, an answer is on its way."""
        for key, link in list(self._links.items()):
            if isinstance(key, str) and key not in busy and now - link.used >= IDLE:
                link.close()
                del self._links[key]

    def _make_room(self) -> None:
        by_address = [(link.used, key) for key, link in self._links.items() if isinstance(key, str)]
        if len(by_address) >= BY_ADDRESS:
            _, oldest = min(by_address)
            self._links.pop(oldest).close()
            self._closed(oldest, f"more than {BY_ADDRESS} addresses are asked at a time")

    def greet(self) -> None:
        """Say hello again on every link that stands."""
        for link in list(self._links.values()):
            link.greet()

    def retain(self, addresses: dict[int, tuple[str, ...]]) -> None:
        """Close the links to nodes that are gone or whose addresses changed."""
        for key, link in list(self._links.items()):
            if isinstance(key, int) and addresses.get(key) != link.addresses:
                link.close()
                del self._links[key]

    def state(self) -> list[dict[str, Any]]:
        """Return for each link `{peer, addresses, up}`."""
        return [
            {"peer": str(key), "addresses": list(link.addresses), "up": link.up} for key, link in self._links.items()
        ]

    def close(self) -> None:
        """Close all."""
        for link in self._links.values():
            link.close()
        self._links.clear()


def endpoint(address: str, port: int) -> str:
    """Return `host:port` for an adapter written as `address/prefix`; IPv6 hosts get brackets."""
    host = ipaddress.ip_interface(address).ip
    return f"[{host}]:{port}" if host.version == 6 else f"{host}:{port}"


def parse_endpoint(text: str) -> str:
    """Check that `text` is `IP:PORT` and return it; raises UsageError. Names are not looked up: it would block."""
    host, _, port = text.rpartition(":")
    try:
        ipaddress.ip_address(host.strip("[]"))
        number = int(port)
    except ValueError:
        raise UsageError(f"'{text}' is no IP:PORT") from None
    if not 0 < number < 65536:
        raise UsageError(f"'{text}': a port is 1 to 65535")
    return text
