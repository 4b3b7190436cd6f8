"""The broker of one node: it owns the sockets and lets the router decide.

Local parties come in over one ROUTER (`ipc`, and `inproc` for those in this process), peers over another (`tcp`, one
endpoint an adapter); events leave by an XPUB. The kernel proves the uid and pid of each local connection, which gives
it its role; a watched pid tells the death of a party at once. Bodies pass unopened.

It must have its loop for itself, or share it with code that never blocks: nothing else on the node can talk meanwhile.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import zmq

from ..errors import CoveyError, Malformed, ServiceDied
from . import codec
from .links import Link, Links, endpoint, parse_endpoint
from .messages import HELLO, PEER_TOPIC, WELCOME, EventHead, Header, Hello, Kind, NodeInfo, Peer, Role
from .port import Port
from .routing import Connection, Out, Router, event_frame
from .tap import Taps

QUEUE = 10_000
"""Messages libzmq may hold for one party."""

CALLERS_LOOK = 60.0
"""Seconds between the looks whether the brokers that dialled us are still there: one small message to each."""

SWEEP = 1.0
"""Seconds between the looks for forgotten requests and ended tap leases."""

_hello_decoder = msgspec.msgpack.Decoder(Hello)
_inproc_names = itertools.count(1)


class BrokerSettings(msgspec.Struct, frozen=True):
    """What a broker must know: its run folder, adapters as `address/prefix`, peer port, and who may do what.

    `roles` gives extra uids their role; uid 0 and the daemon's own are always administrators. `reserved` are the
    service names only components may take.
    """

    folder: str
    adapters: tuple[str, ...] = ()
    port: int = 0
    roles: dict[int, Role] = {}
    reserved: tuple[str, ...] = ()


class Broker:
    """Run a node's broker on the running loop: `await start()`, then `close()`."""

    def __init__(self, settings: BrokerSettings, context: zmq.Context[zmq.Socket[bytes]] | None = None) -> None:
        self.settings = settings
        self.router = Router(settings.reserved)
        self.taps = Taps()
        self.inproc = f"inproc://covey-broker-{os.getpid()}-{next(_inproc_names)}"
        self._context = context or zmq.Context.instance()
        self._links = Links(self._make_link, self._link_down)
        self._ports: dict[str, Port] = {}
        self._watched: dict[bytes, int] = {}  # local connections and the pidfd of their process
        self._sweeper: asyncio.TimerHandle | None = None
        self._callers_seen = time.monotonic()

    @property
    def endpoints(self) -> tuple[str, str]:
        """The in-process endpoints of requests and of events."""
        return self.inproc, self.inproc + "-events"

    async def start(self) -> None:
        """Bind all sockets; raises OSError-like zmq.ZMQError when an address or the port is taken."""
        run = Path(self.settings.folder)
        run.mkdir(parents=True, exist_ok=True)
        local = self._socket(zmq.ROUTER)
        self._bind(local, f"ipc://{run}/bus.sock", self.inproc)
        events = self._socket(zmq.XPUB)
        events.setsockopt(zmq.XPUB_VERBOSE, 1)
        self._bind(events, f"ipc://{run}/events.sock", self.inproc + "-events")
        for name in ("bus.sock", "events.sock"):
            (run / name).chmod(0o666)  # the kernel's uid decides what a connection may do, not the path
        self._ports["local"] = Port(local, self._from_local)
        self._ports["events"] = Port(events, self._subscribed)
        if self.settings.adapters:
            peers = self._socket(zmq.ROUTER)
            peers.setsockopt(zmq.TCP_KEEPALIVE, 1)
            peers.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 30)
            peers.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 10)
            peers.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
            peers.setsockopt(zmq.IPV6, int(any(":" in adapter for adapter in self.settings.adapters)))
            self._bind(peers, *(f"tcp://{endpoint(a, self.settings.port)}" for a in self.settings.adapters))
            self._ports["peer"] = Port(peers, self._from_peer)
        self._sweep()

    def close(self) -> None:
        """Close all sockets; parties see their connection end."""
        if self._sweeper:
            self._sweeper.cancel()
        self._links.close()
        for port in self._ports.values():
            port.close()
        for pidfd in self._watched.values():
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)
        self._watched.clear()

    def configure(self, node: NodeInfo, peers: dict[int, Peer]) -> None:
        """Take this node's place in its cluster, and where its peers are."""
        changed = node != self.router.node
        self._send(self.router.configure(node, peers))
        self._links.retain({number: peer.addresses for number, peer in peers.items()})
        if changed:
            self._links.greet()

    def status(self) -> dict[str, Any]:
        """Return parties, links, waiting requests and counters."""
        return {
            "parties": [
                {
                    "name": p.name,
                    "services": list(p.services),
                    "role": p.role.name.lower(),
                    "uid": p.uid,
                    "pid": p.pid,
                }
                for p in sorted(self.router.parties.values(), key=lambda party: party.name)
            ],
            "links": self._links.state(),
            "callers": sorted(node.number for node in self.router.callers.values()),
            "waiting": len(self.router.pending),
            "counters": dict(sorted(self.router.counters.items())),
        }

    # --- what comes in --------------------------------------------------------------------------------------

    def _from_local(self, frames: list[zmq.Frame]) -> None:
        connection = Connection("local", frames[0].bytes)
        header = self._header(frames)
        if header is None:
            return
        if header.kind is Kind.CONTROL and header.topic == HELLO:
            self._hello(connection, frames)
        else:
            self._route(connection, header, frames[2])

    def _from_peer(self, frames: list[zmq.Frame]) -> None:
        connection = Connection("peer", frames[0].bytes)
        header = self._header(frames)
        if header is None:
            return
        if header.kind is Kind.CONTROL and header.topic == HELLO:
            hello = self._decode_hello(frames[2].bytes)
            if hello and hello.node:
                self._send(self.router.peer_hello(connection, hello.node))
                self._look_for_callers(hello.node.number, but=connection)
        else:
            self._route(connection, header, frames[2])

    def _from_link(self, key: int | str, frames: list[zmq.Frame]) -> None:
        header = self._header([frames[0], *frames])
        if header is None:
            return
        if header.kind is Kind.CONTROL:
            if header.topic != WELCOME:
                self._links.greet()
        else:
            self._route(Connection("link", key), header, frames[1])

    def _header(self, frames: list[zmq.Frame]) -> Header | None:
        try:
            if len(frames) != 3:
                raise Malformed(f"{len(frames) - 1} frames, expected 2")
            return codec.decode_header(frames[1].bytes)
        except Malformed:
            self.router.counters["malformed"] += 1
            return None

    def _decode_hello(self, body: bytes) -> Hello | None:
        try:
            return _hello_decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self.router.counters["malformed"] += 1
            return None

    def _hello(self, connection: Connection, frames: list[zmq.Frame]) -> None:
        hello = self._decode_hello(frames[2].bytes)
        if hello is None:
            return
        uid, pid = self._proved(frames[1])
        own = uid == os.getuid()
        if hello.component and own:
            role = Role.COMPONENT
        elif own or uid == 0:
            role = Role.ADMIN
        else:
            role = self.settings.roles.get(uid, Role.LOOK)
        known = connection in self.router.parties
        self._send(self.router.hello(connection, hello, role, uid, pid))
        if pid and not known and connection in self.router.parties:
            self._watch(connection, pid)

    @staticmethod
    def _proved(frame: zmq.Frame) -> tuple[int, int]:
        """Return uid and pid as the kernel says; a connection in this process has no such proof and needs none."""
        try:
            address = str(frame.get("Peer-Address"))
        except zmq.ZMQError:
            return os.getuid(), 0
        _, uid, _, pid = address.rsplit(":", 3)
        return int(uid), int(pid)

    def _watch(self, connection: Connection, pid: int) -> None:
        assert isinstance(connection.key, bytes)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            self._gone(connection, "process ended")
            return
        self._watched[connection.key] = pidfd
        asyncio.get_running_loop().add_reader(pidfd, self._gone, connection, "process ended")

    def _gone(self, connection: Connection, reason: str) -> None:
        self._unwatch(connection)
        self._send(self.router.gone(connection, reason))

    def _unwatch(self, connection: Connection) -> None:
        assert isinstance(connection.key, bytes)
        pidfd = self._watched.pop(connection.key, None)
        if pidfd is not None:
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)

    def _route(self, connection: Connection, header: Header, body: zmq.Frame) -> None:
        party = self.router.parties.get(connection)
        outs = self.router.message(connection, header, body, time.monotonic())
        if self.taps:
            if party:
                header = msgspec.structs.replace(header, source=f"{party.name}@{self.router.node.number}")
            if outs and header.kind in (Kind.REPLY, Kind.ERROR):
                header = msgspec.structs.replace(header, id=outs[0].header.id)  # the number its request was shown with
            self._show("out" if connection.port == "local" else "in", header, body.bytes)
            for out in outs:
                if out.header.kind is Kind.ERROR and header.kind is Kind.REQUEST:
                    self._show("in", out.header, out.body)
        if connection.port == "local" and connection not in self.router.parties:
            self._unwatch(connection)
        self._send(outs)

    def _show(self, direction: str, header: Header, body: bytes) -> None:
        self.taps.offer(time.time(), self.router.node.number, direction, header, body)

    def _subscribed(self, frames: list[zmq.Frame]) -> None:
        """Answer a new subscription with a welcome on it, so that the subscriber knows it stands."""
        wanted = frames[0].bytes
        if wanted[:1] == b"\1" and len(wanted) > 1:
            topic = wanted[1:].rstrip(b"\0").decode(errors="replace")
            head = EventHead(f"bus@{self.router.node.number}", 0, "", b"", welcome=True)
            with suppress(zmq.Again):
                self._ports["events"].send([codec.encode_event(topic, head)])

    # --- what goes out --------------------------------------------------------------------------------------

    def _send(self, outs: Sequence[Out]) -> None:
        for out in outs:
            if out.connection is None:
                with suppress(zmq.Again):
                    self._ports["events"].send([event_frame(out)])
                continue
            frames = [codec.encode_header(out.header), out.body]
            try:
                if out.connection.port == "link":
                    assert not isinstance(out.connection.key, bytes)
                    self._links.send(out.connection.key, frames)
                else:
                    self._ports[out.connection.port].send([out.connection.key, *frames], copy=False)
            except CoveyError as problem:
                self._send(self.router.undeliverable(out, problem))
            except zmq.ZMQError as problem:
                # unroutable: that connection is closed; or its queue is full, which a dead party's soon is
                reason = ServiceDied(f"'{out.header.destination or 'the caller'}' does not read its messages any more")
                self._send(self.router.undeliverable(out, reason))
                if problem.errno == zmq.EHOSTUNREACH and out.connection.port == "peer":
                    self._send(self.router.gone(out.connection, "it hung up"))

    def _make_link(self, key: int | str) -> Link:
        addresses = self.router.peers[key].addresses if isinstance(key, int) else (parse_endpoint(key),)
        return Link(
            self._context,
            addresses,
            self.settings.adapters,
            lambda: [
                codec.encode_header(Header(Kind.CONTROL, topic=HELLO)),
                msgspec.msgpack.encode(Hello(node=self.router.node)),
            ],
            lambda frames: self._from_link(key, frames),
            lambda: self._peer(key, "up", ""),
            lambda reason: self._link_down(key, reason),
        )

    def _link_down(self, key: int | str, reason: str) -> None:
        self._send(self.router.link_down(key, reason))
        self._peer(key, "down", reason)

    def _peer(self, key: int | str, state: str, reason: str) -> None:
        if isinstance(key, int):
            self.publish(PEER_TOPIC, {"node": key, "state": state, "reason": reason})

    def publish(self, topic: str, body: Any) -> None:
        """Publish an event of the broker's own."""
        source = f"bus@{self.router.node.number}"
        header = Header(Kind.EVENT, source=source, topic=topic, sequence=self.router.sequence(source, topic))
        self._send([Out(None, header, msgspec.msgpack.encode(body))])

    def _sweep(self) -> None:
        now = time.monotonic()
        self.router.expire(now)
        self.taps.sweep(now)
        self._links.sweep(now, self.router.busy_links())
        if now - self._callers_seen >= CALLERS_LOOK:
            self._callers_seen = now
            self._look_for_callers()
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP, self._sweep)

    def _look_for_callers(self, number: int | None = None, but: Connection | None = None) -> None:
        """Forget the brokers that had dialled us and are gone: all such, or those of a node that just dialled again.

        A node may have dialled twice, by number and by address, and a clone speaks for its number, too: so each is
        tried. The welcome is for that; whoever lives takes no notice of it.
        """
        frames = [codec.encode_header(Header(Kind.CONTROL, topic=WELCOME)), b""]
        for connection, node in list(self.router.callers.items()):
            if connection != but and number in (None, node.number):
                try:
                    self._ports["peer"].send([connection.key, *frames])
                except zmq.Again:
                    pass
                except zmq.ZMQError:
                    self._send(self.router.gone(connection, "it hung up"))

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, QUEUE)
        socket.setsockopt(zmq.RCVHWM, QUEUE)
        socket.setsockopt(zmq.MAXMSGSIZE, codec.MAX_BODY + codec.MAX_HEADER)
        socket.setsockopt(zmq.BACKLOG, 1024)
        socket.setsockopt(zmq.HANDSHAKE_IVL, 3000)
        if kind == zmq.ROUTER:
            socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        return socket

    @staticmethod
    def _bind(socket: zmq.Socket[bytes], *endpoints: str) -> None:
        for each in endpoints:
            try:
                socket.bind(each)
            except zmq.ZMQError as problem:
                raise CoveyError(f"cannot listen on {each}: {problem}", "is another daemon using it?") from None
