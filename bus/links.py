"""The side that dials: one connection to each peer's broker, made when first needed, kept while it is used.

When to dial, what is sent again and when it is over is decided by `dialler.py` and `session.py`; here are the sockets:
one DEALER per connection, never used for a second one, so that nothing of an old connection can follow. libzmq's own
reconnection never comes to pass, its monitor tells when the connection stands or breaks. A dial starts from the local
adapter on the address's network when there is one. While a better address is tried there are two connections.

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

from ..errors import CoveyError, Malformed, Overloaded, Unreachable, UsageError
from . import codec
from .dialler import IDLE_LIMIT, Act, Adopt, Connect, Dialler, Drop, HangUp, State, Try
from .ends import LinkKey, node_of
from .messages import Kind, Peer
from .port import Port
from .session import CUT, LEAVING, Closed, Deliver, Down, Transmit, Up, parse
from .traffic import Traffic, host_of
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
Secure = Callable[[zmq.Socket[bytes], LinkKey], None]

_BROKEN = zmq.EVENT_DISCONNECTED
_NOT_MADE = zmq.EVENT_CLOSED
_FAILED = {
    int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL): "the handshake failed: is another program listening there?",
    int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL): "the handshake failed: it speaks another protocol, or has another key",
    int(zmq.EVENT_HANDSHAKE_FAILED_AUTH): "the handshake failed: it does not trust the key of this node",
}
_EVENTS = int(zmq.EVENT_HANDSHAKE_SUCCEEDED) | int(_BROKEN) | int(_NOT_MADE) | sum(_FAILED)


class Wire:
    """One connection: its socket, and the monitor that tells when it stands or breaks."""

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        address: str,
        heard: Callable[[Wire, list[zmq.Frame]], None],
        told: Callable[[Wire, list[zmq.Frame]], None],
        on_drained: Callable[[], None] | None,
    ) -> None:
        self.address = address
        self.host = host_of(address)
        self.port = Port(socket, lambda frames: heard(self, frames), on_drained)
        self._monitor = Port(socket.get_monitor_socket(_EVENTS), lambda frames: told(self, frames))

    def close(self) -> None:
        """Close it; what was sent may still leave, briefly."""
        self.port.socket.disable_monitor()  # before the socket is closed: an unread monitor would block libzmq
        self._monitor.close()
        self.port.close(LINGER)


class Link:
    """One dialler and the connections it has at the moment."""

    def __init__(self, links: Links, key: LinkKey, peer: Peer) -> None:
        self.key = key
        self.peer = peer
        self.dialler = Dialler(key, peer.addresses, links.chance, links.hello)
        self._links = links
        self._loop = asyncio.get_running_loop()
        self._wire: Wire | None = None
        self._second: Wire | None = None  # to a better address, while that is tried
        self._timer: asyncio.TimerHandle | None = None
        self._armed = 0.0
        self._touching = False
        self._arming = False

    def send(self, kind: Kind, frames: list[Any], service: str = "") -> None:
        """Send header and body; raises Overloaded."""
        effects = self.dialler.send(self._loop.time(), kind, frames, service)
        if self._timer and not self.dialler.hushed and len(effects) == 1 and isinstance(effects[0], Transmit):
            self._transmit(effects[0])  # which makes nothing due any earlier
        else:
            self.do(effects)

    def do(self, effects: Sequence[Act]) -> None:
        """Perform what the dialler says."""
        try:
            for effect in effects:
                if isinstance(effect, Transmit):
                    self._transmit(effect)
                elif isinstance(effect, Deliver):
                    self._links.on_frames(self.key, effect.frames)
                elif isinstance(effect, Connect):
                    self._connect(effect.address)
                elif isinstance(effect, HangUp):
                    self._hang_up()
                elif isinstance(effect, Try):
                    self._try(effect.address)
                elif isinstance(effect, Adopt):
                    second, self._second = self._second, None
                    self._hang_up()
                    self._wire = second
                elif isinstance(effect, Drop):
                    self._drop()
                elif isinstance(effect, Up):
                    self._links.on_up(self.key)
                elif isinstance(effect, Down):
                    self._links.counters["links_down"] += 1
                    self._links.counters["messages_lost"] += effect.lost
                    self._links.on_down(self.key, effect.reason, effect.reached)
                elif isinstance(effect, Closed):
                    self._links.on_closed(self.key)
        finally:
            self._arm_soon()

    def move(self, peer: Peer) -> None:
        """The peer's addresses are others now, or in another order."""
        self.peer = peer
        self.do(self.dialler.move(self._loop.time(), peer.addresses))

    @property
    def host(self) -> str:
        """The address at the other end of the connection, "" when there is none."""
        return self._wire.host if self._wire else ""

    def close(self) -> None:
        """Say goodbye and close everything; nobody is told."""
        self.do(self.dialler.stop(self._loop.time(), LEAVING))
        self._hang_up()

    def _transmit(self, effect: Transmit) -> None:
        wire = self._wire
        if wire is None or not self._links.traffic.lets_out(wire.host):
            return
        try:
            wire.port.put(effect.frames)
        except zmq.Again:  # the connection is gone, its monitor will say so; the session sends it again
            self._loop.call_soon(self._failed, wire, "connection closed", False)
        else:
            self._links.traffic.sent(wire.host, effect.service, sum(map(len, effect.frames)))
        if not self._touching:
            self._touching = True
            self._loop.call_soon(self._touch)

    def _touch(self) -> None:
        self._touching = False
        if self._wire:
            self._wire.port.touched()

    def _connect(self, address: str) -> None:
        try:
            self._wire = self._dial(address)
        except (CoveyError, zmq.ZMQError) as problem:
            self._loop.call_soon(self._failed, None, str(problem), False)

    def _try(self, address: str) -> None:
        try:
            self._second = self._dial(address)
        except (CoveyError, zmq.ZMQError):
            self._loop.call_soon(self._tried, None, False)

    def _dial(self, address: str) -> Wire:
        """Open a connection with a socket of its own; raises CoveyError, ZMQError."""
        socket = self._links.socket(self.key, ":" in address.rpartition(":")[0])
        wire = Wire(socket, address, self._heard, self._told, self._links.on_drained)
        if not (self._links.traffic.lets_out(wire.host) and self._links.traffic.lets_in(wire.host)):
            return wire  # no connection comes about where one way is cut, and nothing tells so
        try:
            socket.connect(f"tcp://{self._links.source_for(address)}{address}")
        except zmq.ZMQError:
            wire.close()
            raise
        return wire

    def _heard(self, wire: Wire, frames: list[zmq.Frame]) -> None:
        if wire is not self._wire or not self._links.traffic.lets_in(wire.host):
            return
        try:
            type, number, sequence, ack, extra = parse(frames[0].bytes, len(frames))
        except Malformed:
            self.dialler.counters.malformed += 1
            self._links.counters["malformed"] += 1
            return
        if len(frames) == 1:
            self._links.traffic.received(wire.host, "", len(frames[0]))
        self.do(self.dialler.heard(self._loop.time(), type, number, sequence, ack, extra, frames[1:]))

    def _told(self, wire: Wire, frames: list[zmq.Frame]) -> None:
        event = int.from_bytes(frames[0].bytes[:2], "little")
        if wire is self._second:
            self._tried(wire, event == zmq.EVENT_HANDSHAKE_SUCCEEDED)
        elif wire is not self._wire:
            return
        elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.do(self.dialler.connected(self._loop.time()))
        elif event == _NOT_MADE:
            reason = why_not(wire.address, self._links.source_for(wire.address))
            self._failed(wire, reason or "connection refused", not reason)
        else:
            wire.port.drain()  # the goodbye may have come just before
            self._failed(wire, _FAILED.get(event, "connection closed"), False)

    def _failed(self, wire: Wire | None, reason: str, refused: bool) -> None:
        if wire is self._wire:
            self.do(self.dialler.failed(self._loop.time(), reason, refused))

    def _tried(self, wire: Wire | None, stands: bool) -> None:
        if wire is self._second:
            self.do(self.dialler.tried(self._loop.time(), stands))

    def _hang_up(self) -> None:
        wire, self._wire = self._wire, None
        if wire:
            wire.close()

    def _drop(self) -> None:
        wire, self._second = self._second, None
        if wire:
            wire.close()

    def _arm_soon(self) -> None:
        """Set the timer when this turn of the loop is over: a confirmation may yet ride on what it answers."""
        if not self._arming:
            self._arming = True
            self._loop.call_soon(self._arm)

    def _arm(self) -> None:
        self._arming = False
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
        find: Callable[[LinkKey], Peer],
        hello: Callable[[], list[Any]],
        on_frames: Callable[[LinkKey, list[zmq.Frame]], None],
        on_up: Callable[[LinkKey], None],
        on_down: Callable[[LinkKey, str, bool], None],
        on_closed: Callable[[LinkKey], None] = lambda key: None,
        counters: Counter[str] | None = None,
        on_drained: Callable[[], None] | None = None,
        secure: Secure | None = None,
        traffic: Traffic | None = None,
    ) -> None:
        self.traffic = traffic or Traffic()
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
        self.links: dict[LinkKey, Link] = {}

    def send(self, key: LinkKey, kind: Kind, frames: list[Any], service: str = "") -> None:
        """Send header and body to that peer, dialling when needed. Raises Overloaded, Unreachable when no network may
        carry it, and what `find` raises."""
        link = self.links.get(key) or self._add(key)
        if not link.peer.addresses:
            raise Unreachable(
                f"no network may carry {service or 'this'} to {link.peer.name or key}: they all have priority 0 for it",
                "`covey network explain` shows them",
            )
        link.send(kind, frames, service)

    def keep(self, wanted: Collection[LinkKey]) -> None:
        """Hold these links to nodes, and dial again when they break; the others only while they are used."""
        now = asyncio.get_running_loop().time()
        for key in wanted:
            link = self.links.get(key) or self._add(key)
            if not link.dialler.kept and link.peer.addresses:
                link.do(link.dialler.keep(now, True))
        for key, link in list(self.links.items()):
            if link.dialler.kept and key not in wanted:
                link.do(link.dialler.keep(now, False))

    def hush(self, vouched: Collection[int]) -> None:
        """Somebody vouches that these nodes live: the links to them need few heartbeats, those to others the usual."""
        now = asyncio.get_running_loop().time()
        for key, link in self.links.items():
            link.do(link.dialler.hush(now, node_of(key) in vouched))

    def up(self, key: LinkKey) -> bool:
        """Whether the peer answers now."""
        link = self.links.get(key)
        return link is not None and link.dialler.up

    def heard_at(self, key: LinkKey) -> float | None:
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
        """Cut the links to nodes that are gone, or have another key; move those of which the addresses changed."""
        for key, link in list(self.links.items()):
            number = node_of(key)
            if number is None:
                continue
            if number not in peers:
                self.cut(key, "it is no peer of this node any more")
            elif peers[number].key != link.peer.key:
                self.cut(key, "its key changed")
            elif (peer := self._find(key)) != link.peer:
                link.move(peer)

    def host(self, key: LinkKey) -> str:
        """Return the address at the other end of a link's connection, "" when there is none."""
        link = self.links.get(key)
        return link.host if link else ""

    def cut(self, key: LinkKey, reason: str) -> None:
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

    def socket(self, key: LinkKey, ipv6: bool) -> zmq.Socket[bytes]:
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
        host = ipaddress.ip_address(host_of(address))
        source = self.traffic.source_for(str(host))
        for adapter in self._adapters:
            if str(adapter.ip) == source or (not source and host in adapter.network):
                return f"[{adapter.ip}]:0;" if adapter.version == 6 else f"{adapter.ip}:0;"
        return ""

    def _add(self, key: LinkKey) -> Link:
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
