"""The side that dials: one connection to each peer's broker, made when first needed, kept while it is used.

When to dial, what is sent again and when it is over is decided by `dialler.py` and `session.py`; here are the sockets:
one DEALER per connection, never used for a second one, so that nothing of an old connection can follow. libzmq's own
reconnection never comes to pass, its monitor tells when the connection stands or breaks. A dial starts from the local
adapter that shares the address's network when there is one.

Links by address are for a question or two (a define, a node that is nowhere listed): there are at most so many, and a
link that was closed is forgotten. Those to nodes are remembered with what they counted.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import random
import socket as system
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Any

import msgspec
import zmq

from ..errors import CoveyError, Malformed, Overloaded, UsageError
from . import codec
from .dialler import IDLE_LIMIT, Act, Connect, Dialler, HangUp, State
from .messages import Kind, Peer
from .port import Port
from .session import CUT, LEAVING, Closed, Deliver, Down, Transmit, Up, parse
from .window import MESSAGES

QUEUE = 3 * MESSAGES
"""Messages libzmq may hold for a connection: what the session's window allows, errors, confirmations and heartbeats."""

LINGER = 500
"""Milliseconds a closed connection may still take to say goodbye."""

NEVER = 3600_000
"""Milliseconds until libzmq would connect again; the socket of a broken connection is closed long before."""

BY_ADDRESS = 64
"""Links by address at a time; for one more, the one that was quiet longest is closed."""

Context = zmq.Context[zmq.Socket[bytes]]
Secure = Callable[[zmq.Socket[bytes], int | str], None]

_BROKEN = zmq.EVENT_DISCONNECTED
_NOT_MADE = zmq.EVENT_CLOSED
_FAILED = {
    int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL): "the handshake failed: is another program listening there?",
    int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL): "the handshake failed: it speaks another protocol, or has another key",
    int(zmq.EVENT_HANDSHAKE_FAILED_AUTH): "the handshake failed: it does not trust the key of this node",
}
_EVENTS = int(zmq.EVENT_HANDSHAKE_SUCCEEDED) | int(_BROKEN) | int(_NOT_MADE) | sum(_FAILED)


class Link:
    """One dialler and the socket it has at the moment."""

    def __init__(self, links: Links, key: int | str, peer: Peer) -> None:
        self.key = key
        self.peer = peer
        self.dialler = Dialler(key, peer.addresses, links.chance, links.hello)
        self._links = links
        self._loop = asyncio.get_running_loop()
        self._port: Port | None = None
        self._monitor: Port | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._armed = 0.0
        self._touching = False

    def send(self, kind: Kind, frames: list[Any]) -> None:
        """Send header and body; raises Overloaded."""
        effects = self.dialler.send(self._loop.time(), kind, frames)
        if self._timer and not self.dialler.hushed and len(effects) == 1 and isinstance(effects[0], Transmit):
            self._transmit(effects[0].frames)  # which makes nothing due any earlier
        else:
            self.do(effects)

    def do(self, effects: Sequence[Act]) -> None:
        """Perform what the dialler says."""
        try:
            for effect in effects:
                if isinstance(effect, Transmit):
                    self._transmit(effect.frames)
                elif isinstance(effect, Deliver):
                    self._links.on_frames(self.key, effect.frames)
                elif isinstance(effect, Connect):
                    self._connect(effect.address)
                elif isinstance(effect, HangUp):
                    self._hang_up()
                elif isinstance(effect, Up):
                    self._links.on_up(self.key)
                elif isinstance(effect, Down):
                    self._links.counters["links_down"] += 1
                    self._links.counters["messages_lost"] += effect.lost
                    self._links.on_down(self.key, effect.reason, effect.reached)
                elif isinstance(effect, Closed):
                    self._links.on_closed(self.key)
        finally:
            self._arm()

    def close(self) -> None:
        """Say goodbye and close everything; nobody is told."""
        self.do(self.dialler.stop(self._loop.time(), LEAVING))
        self._hang_up()

    def _transmit(self, frames: list[Any]) -> None:
        port = self._port
        if port is None:
            return
        try:
            port.put(frames)
        except zmq.Again:  # the connection is gone, its monitor will say so; the session sends it again
            self._loop.call_soon(self._failed, port, "connection closed", False)
        if not self._touching:
            self._touching = True
            self._loop.call_soon(self._touch)

    def _touch(self) -> None:
        self._touching = False
        if self._port:
            self._port.touched()

    def _connect(self, address: str) -> None:
        try:
            socket = self._links.socket(self.key, ":" in address.rpartition(":")[0])
        except (CoveyError, zmq.ZMQError) as problem:
            self._loop.call_soon(self._failed, None, str(problem), False)
            return
        port = self._port = Port(socket, lambda frames: self._heard(port, frames), self._links.on_drained)
        monitor = socket.get_monitor_socket(_EVENTS)
        self._monitor = Port(monitor, lambda frames: self._told(port, address, frames))
        source = self._links.source_for(address)
        try:
            socket.connect(f"tcp://{source}{address}")
        except zmq.ZMQError as problem:
            self._loop.call_soon(self._failed, port, str(problem), False)

    def _heard(self, port: Port, frames: list[zmq.Frame]) -> None:
        if port is not self._port:
            return
        try:
            type, number, sequence, ack, extra = parse(frames[0].bytes, len(frames))
        except Malformed:
            self.dialler.counters.malformed += 1
            self._links.counters["malformed"] += 1
            return
        self.do(self.dialler.heard(self._loop.time(), type, number, sequence, ack, extra, frames[1:]))

    def _told(self, port: Port, address: str, frames: list[zmq.Frame]) -> None:
        event = int.from_bytes(frames[0].bytes[:2], "little")
        if port is not self._port:
            return
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.do(self.dialler.connected(self._loop.time()))
        elif event == _NOT_MADE:
            reason = why_not(address, self._links.source_for(address))
            self._failed(port, reason or "connection refused", not reason)
        else:
            port.drain()  # the goodbye may have come just before
            self._failed(port, _FAILED.get(event, "connection closed"), False)

    def _failed(self, port: Port | None, reason: str, refused: bool) -> None:
        if port is self._port:
            self.do(self.dialler.failed(self._loop.time(), reason, refused))

    def _hang_up(self) -> None:
        port, monitor = self._port, self._monitor
        self._port = self._monitor = None
        if monitor and port:
            port.socket.disable_monitor()  # before the socket is closed: an unread monitor would block libzmq
            monitor.close()
        if port:
            port.close(LINGER)

    def _arm(self) -> None:
        deadline = self.dialler.deadline
        if deadline is None:
            if self._timer:
                self._timer.cancel()
                self._timer = None
        elif self._timer is None or deadline < self._armed:
            if self._timer:
                self._timer.cancel()
            self._armed = deadline
            self._timer = self._loop.call_at(deadline, self._due)

    def _due(self) -> None:
        self._timer = None
        self.do(self.dialler.due(self._loop.time()))


class Links:
    """All links of a broker, by node number or `host:port`.

    `find(key)` gives the peer to dial, `hello()` the first message of each session, `secure(socket, key)` makes a
    socket trust nobody but that peer. `on_frames(key, [header, body])` gets each message once and in order,
    `on_up(key)` is called when a new session stands (one that was resumed is the same), `on_down(key, reason, reached)`
    when it is over, or none came about: what waits for answers over it must be told, and unless `reached` is False it
    may have happened. A link that nobody used is closed without a word.
    """

    def __init__(
        self,
        context: Context,
        adapters: Sequence[str],
        find: Callable[[int | str], Peer],
        hello: Callable[[], list[Any]],
        on_frames: Callable[[int | str, list[zmq.Frame]], None],
        on_up: Callable[[int | str], None],
        on_down: Callable[[int | str, str, bool], None],
        on_closed: Callable[[int | str], None] = lambda key: None,
        counters: Counter[str] | None = None,
        on_drained: Callable[[], None] | None = None,
        secure: Secure | None = None,
    ) -> None:
        self._context = context
        self._adapters = [ipaddress.ip_interface(adapter) for adapter in adapters]
        self._find = find
        self.hello = hello
        self.on_frames = on_frames
        self.on_up = on_up
        self.on_down = on_down
        self.on_closed = on_closed
        self.counters: Counter[str] = Counter() if counters is None else counters
        self.on_drained = on_drained
        self._secure = secure
        self.chance = random.Random(os.urandom(16))
        self.links: dict[int | str, Link] = {}

    def send(self, key: int | str, kind: Kind, frames: list[Any]) -> None:
        """Send header and body to that peer, dialling when needed. Raises Overloaded, and what `find` raises."""
        link = self.links.get(key) or self._add(key)
        link.send(kind, frames)

    def keep(self, wanted: Collection[int]) -> None:
        """Hold the links to these nodes, and dial again when they break; those to others only while they are used."""
        now = asyncio.get_running_loop().time()
        for number in wanted:
            link = self.links.get(number) or self._add(number)
            if not link.dialler.kept:
                link.do(link.dialler.keep(now, True))
        for key, link in list(self.links.items()):
            if link.dialler.kept and key not in wanted:
                link.do(link.dialler.keep(now, False))

    def hush(self, vouched: Collection[int]) -> None:
        """Somebody vouches that these nodes live: the links to them need few heartbeats, those to others the usual."""
        now = asyncio.get_running_loop().time()
        for key, link in self.links.items():
            link.do(link.dialler.hush(now, key in vouched))

    def up(self, key: int | str) -> bool:
        """Whether the peer answers now."""
        link = self.links.get(key)
        return link is not None and link.dialler.up

    def heard_at(self, key: int | str) -> float | None:
        """Return when the peer was heard last, by the loop's clock; None when it is not up."""
        link = self.links.get(key)
        session = link.dialler.session if link and link.dialler.up else None
        return session.heard_at if session else None

    def sweep(self, busy: Collection[Hashable]) -> None:
        """Close the links that nobody used for long; those in `busy` are not, an answer is on its way."""
        now = asyncio.get_running_loop().time()
        for key, link in list(self.links.items()):
            link.do(link.dialler.rest_if_idle(now, key in busy))
            resting = link.dialler.state is State.AT_REST
            if isinstance(key, str) and resting and now - link.dialler.used >= IDLE_LIMIT:
                del self.links[key]

    def greet(self) -> None:
        """Say hello again wherever it was said: this node's own facts changed."""
        for link in list(self.links.values()):
            if link.dialler.session:
                try:
                    link.send(Kind.CONTROL, self.hello())
                except Overloaded:  # then it must hear it in a new session
                    link.do(link.dialler.stop(link._loop.time(), CUT, "it does not read its messages any more"))

    def retain(self, peers: Mapping[int, Peer]) -> None:
        """Cut the links to nodes that are gone, or whose addresses or key changed."""
        for key, link in list(self.links.items()):
            if isinstance(key, int) and (
                key not in peers or (peers[key].addresses, peers[key].key) != (link.peer.addresses, link.peer.key)
            ):
                reason = "its addresses or its key changed" if key in peers else "it is no peer of this node any more"
                self.cut(key, reason)

    def cut(self, key: int | str, reason: str) -> None:
        """End a link at once and forget it; `on_down` is called when it was in use."""
        link = self.links.pop(key, None)
        if link:
            link.do(link.dialler.stop(link._loop.time(), reason=reason))

    def state(self) -> list[dict[str, Any]]:
        """Return for each link its peer, where it stands and what it counted (times in seconds)."""
        return [
            {
                "peer": str(key),
                "addresses": list(link.peer.addresses),
                "address": link.dialler.address,
                "up": link.dialler.up,
                "state": link.dialler.state.value,
                "calm": link.dialler.hushed,
                "waiting": link.dialler.session.waiting if link.dialler.session else 0,
                **msgspec.structs.asdict(link.dialler.counters),
            }
            for key, link in self.links.items()
        ]

    def close(self) -> None:
        """Say goodbye on all and close them; nobody is told."""
        for link in self.links.values():
            link.close()
        self.links.clear()

    # --- for the links --------------------------------------------------------------------------------------

    def socket(self, key: int | str, ipv6: bool) -> zmq.Socket[bytes]:
        """Return a new socket for a connection to that peer, not yet connected."""
        socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, LINGER)
        # what came just before the end, a goodbye say, must still be read: with IMMEDIATE 1, and with the reconnection
        # off (-1), libzmq throws it away with the pipe. Nothing is sent before the connection stands in any case
        socket.setsockopt(zmq.IMMEDIATE, 0)
        socket.setsockopt(zmq.RECONNECT_IVL, NEVER)
        socket.setsockopt(zmq.SNDHWM, QUEUE)
        socket.setsockopt(zmq.RCVHWM, MESSAGES)
        socket.setsockopt(zmq.MAXMSGSIZE, codec.MAX_BODY + codec.MAX_HEADER)
        socket.setsockopt(zmq.HANDSHAKE_IVL, 3000)
        socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 5)
        socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 2)
        socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
        socket.setsockopt(zmq.TCP_MAXRT, 10_000)
        socket.setsockopt(zmq.IPV6, int(ipv6))
        if self._secure:
            try:
                self._secure(socket, key)
            except BaseException:
                socket.close(0)
                raise
        return socket

    def source_for(self, address: str) -> str:
        """Return the part of an endpoint that binds a connection to the adapter on the address's network, or ""."""
        host = ipaddress.ip_address(address.rpartition(":")[0].strip("[]"))
        for adapter in self._adapters:
            if host in adapter.network:
                return f"[{adapter.ip}]:0;" if adapter.version == 6 else f"{adapter.ip}:0;"
        return ""

    def _add(self, key: int | str) -> Link:
        link = Link(self, key, self._find(key))
        by_address = [(each.dialler.used, other) for other, each in self.links.items() if isinstance(other, str)]
        if isinstance(key, str) and len(by_address) >= BY_ADDRESS:
            self.cut(min(by_address)[1], f"more than {BY_ADDRESS} addresses are asked at a time")
        self.links[key] = link
        return link


def why_not(address: str, source: str) -> str:
    """Return why a connection that failed at once cannot be made, or "" when the other side refused it.

    libzmq does not tell. The kernel does, without sending anything, when a datagram socket is asked the same.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    with system.socket(system.AF_INET6 if ":" in host else system.AF_INET, system.SOCK_DGRAM) as probe:
        try:
            if source:
                own = source.removesuffix(":0;").strip("[]")
                try:
                    probe.bind((own, 0))
                except OSError as problem:
                    return f"cannot send from {own}: {problem.strerror}"
            probe.connect((host, int(port)))
        except OSError as problem:
            return str(problem.strerror).lower()
    return ""


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
