"""The broker of one node: it owns the sockets and lets the router decide.

Local parties come in over one ROUTER (`ipc`, and `inproc` for those in this process), peers over another (`tcp`, one
endpoint an adapter). What came in one wake-up is routed, then all that follows from it is sent. The kernel proves the
uid and pid of each local connection, which gives it its role; a watched pid tells the death of a party at once. Bodies
pass unopened, large ones without a copy.

It must have its loop for itself, or share it with code that never blocks: nothing else on the node can talk meanwhile.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import zmq

from ..errors import CoveyError, Malformed, ServiceDied
from . import codec
from .ends import Out
from .inlet import Inlet, content
from .links import Link, Links, endpoint, parse_endpoint
from .messages import HELLO, HELLO_WANTED, PEER_TOPIC, WELCOME, Header, Hello, Kind, NodeInfo, Peer, Role
from .routing import Router
from .tap import Taps
from .watch import Watch
from .window import MESSAGES

QUEUE = 3 * MESSAGES
"""Messages libzmq may hold for one party: its window, and errors, which need no window."""

CALLERS_LOOK = 60.0
"""Seconds between the looks whether the brokers that dialled us are still there: one small message to each."""

SWEEP = 1.0
"""Seconds between the looks for forgotten requests and ended tap leases."""

CONTROL = Kind.CONTROL
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
        self.endpoint = f"inproc://covey-broker-{os.getpid()}-{next(_inproc_names)}"
        self._context = context or zmq.Context.instance()
        self.links = Links(self._make_link, self._link_down)
        self._ports: dict[str, Inlet] = {}
        self._watch = Watch(lambda key: self._gone(key, "process ended"))
        self._outs: list[Out] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self._callers_seen = time.monotonic()

    async def start(self) -> None:
        """Bind all sockets; raises OSError-like zmq.ZMQError when an address or the port is taken."""
        run = Path(self.settings.folder)
        run.mkdir(parents=True, exist_ok=True)
        local = self._socket()
        self._bind(local, f"ipc://{run}/bus.sock", self.endpoint)
        (run / "bus.sock").chmod(0o666)  # the kernel's uid decides what a connection may do, not the path
        self._ports["local"] = self._local = Inlet(local, self._from_local, self._malformed, self._flush)
        if self.settings.adapters:
            peers = self._socket()
            peers.setsockopt(zmq.TCP_KEEPALIVE, 1)
            peers.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 30)
            peers.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 10)
            peers.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
            peers.setsockopt(zmq.IPV6, int(any(":" in adapter for adapter in self.settings.adapters)))
            self._bind(peers, *(f"tcp://{endpoint(a, self.settings.port)}" for a in self.settings.adapters))
            self._ports["peer"] = Inlet(peers, self._from_peer, self._malformed, self._flush)
        self._sweep()

    def close(self) -> None:
        """Close all sockets; parties see their connection end."""
        if self._sweeper:
            self._sweeper.cancel()
        self.links.close()
        for port in self._ports.values():
            port.close()
        self._watch.close()

    def configure(self, node: NodeInfo, peers: dict[int, Peer]) -> None:
        """Take this node's place in its cluster, and where its peers are."""
        changed = node != self.router.node
        self._send(self.router.configure(node, peers))
        self.links.retain({number: peer.addresses for number, peer in peers.items()})
        if changed:
            self.links.greet()

    def publish(self, topic: str, body: dict[str, Any]) -> None:
        """Publish an event of the broker's own."""
        self._send(self.router.event(topic, body))

    # --- what comes in --------------------------------------------------------------------------------------

    def _from_local(self, key: bytes, head: bytes, frame: zmq.Frame) -> None:
        try:
            header = codec.decode_header(head)
        except Malformed:
            self._malformed()
            return
        router = self.router
        if header.kind is CONTROL:
            if header.topic == HELLO:
                self._hello(key, frame)
                return
            self._outs += router.from_party(key, header, frame.bytes, time.monotonic())
            if key not in router.parties:  # it said goodbye
                self._watch.discard(key)
            return
        body: Any = content(frame)
        outs = router.from_party(key, header, body, time.monotonic())
        if self.taps and key in router.parties:
            self._show("out", header, router.parties[key].source, body, outs)
        self._outs += outs

    def _from_peer(self, key: bytes, head: bytes, frame: zmq.Frame) -> None:
        header = self._header(head)
        if header is None:
            return
        if header.kind is CONTROL and header.topic == HELLO:
            hello = self._decode_hello(frame.bytes)
            if hello and hello.node:
                self.router.caller_came(key, hello.node)
                body = msgspec.msgpack.encode({"name": "", "node": self.router.node})
                self._ports["peer"].put([key, codec.encode_header(Header(CONTROL, topic=WELCOME)), body])
                self._look_for_callers(hello.node.number, but=key)
            return
        body: Any = content(frame)
        outs = self.router.from_caller(key, header, body, time.monotonic())
        if self.taps:
            self._show("in", header, header.source, body, outs)
        self._outs += outs

    def _from_link(self, key: int | str, frames: list[zmq.Frame]) -> None:
        header = self._header(frames[0].bytes if len(frames) == 2 else b"")
        if header is None:
            return
        if header.kind is CONTROL and header.topic in (WELCOME, HELLO_WANTED):
            if header.topic == HELLO_WANTED:
                self.links.greet()
            return
        body = content(frames[1])
        outs = self.router.from_link(key, header, body)
        if self.taps:
            self._show("in", header, header.source, body, outs)
        self._send(outs)

    def _header(self, frame: bytes) -> Header | None:
        try:
            return codec.decode_header(frame)
        except Malformed:
            self._malformed()
            return None

    def _malformed(self) -> None:
        self.router.counters["malformed"] += 1

    def _decode_hello(self, body: bytes) -> Hello | None:
        try:
            return _hello_decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self.router.counters["malformed"] += 1
            return None

    def _hello(self, key: bytes, frame: zmq.Frame) -> None:
        hello = self._decode_hello(frame.bytes)
        if hello is None:
            return
        uid, pid = self._proved(frame)
        own = uid == os.getuid()
        if hello.component and own:
            role = Role.COMPONENT
        elif own or uid == 0:
            role = Role.ADMIN
        else:
            role = self.settings.roles.get(uid, Role.LOOK)
        known = key in self.router.parties
        self._outs += self.router.hello(key, hello, role, uid, pid)
        if pid and not known and key in self.router.parties:
            self._watch.add(key, pid)

    @staticmethod
    def _proved(frame: zmq.Frame) -> tuple[int, int]:
        """Return uid and pid as the kernel says; a connection in this process has no such proof and needs none."""
        try:
            address = str(frame.get("Peer-Address"))
        except zmq.ZMQError:
            return os.getuid(), 0
        _, uid, _, pid = address.rsplit(":", 3)
        return int(uid), int(pid)

    def _gone(self, key: Hashable, reason: str) -> None:
        self._watch.discard(key)
        self._send(self.router.party_gone(key, reason))

    def _show(self, direction: str, header: Header, source: str, body: Any, outs: list[Out]) -> None:
        """Show the taps what passed, and the errors that the broker itself answered with."""
        if header.kind is CONTROL:
            return
        now, number = time.time(), self.router.node.number
        self.taps.offer(now, number, direction, header, source, body)
        if header.kind is Kind.REQUEST:
            for out in outs:
                if out.kind is Kind.ERROR:
                    answer = codec.decode_header(out.frame)
                    self.taps.offer(now, number, "in", answer, answer.source, out.body)

    # --- what goes out --------------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Send what follows from what came in one wake-up."""
        if self._outs:
            outs, self._outs = self._outs, []
            self._send(outs)

    def _send(self, outs: Iterable[Out]) -> None:
        send_local = self._local.put_three
        again: list[Out] = []
        for out in outs:
            port, key = out.connection
            try:
                if port == "local":
                    send_local(key, out.frame, out.body)
                elif port == "peer":
                    self._ports[port].send([key, out.frame, out.body], copy=False)
                else:
                    self.links.send(key, [out.frame, out.body])
            except CoveyError as problem:
                again += self.router.undeliverable(out, problem)
            except zmq.ZMQError as problem:
                again += self._unsent(out, problem)
        self._local.touched()
        if again:
            self._send(again)

    def _unsent(self, out: Out, problem: zmq.ZMQError) -> list[Out]:
        """A connection is closed, or libzmq's queue for it is full, which a dead party's soon is."""
        outs = self.router.undeliverable(out, ServiceDied("the party asked does not read its messages any more"))
        if problem.errno == zmq.EHOSTUNREACH:
            if out.connection.port == "peer":
                outs += self.router.caller_gone(out.connection.key)
            else:
                self._watch.discard(out.connection.key)
                outs += self.router.party_gone(out.connection.key, "it hung up")
        return outs

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
            lambda: self._link_up(key),
            lambda reason: self._link_down(key, reason),
        )

    def _link_up(self, key: int | str) -> None:
        self._send(self.router.link_up(key))
        self._peer(key, "up", "")

    def _link_down(self, key: int | str, reason: str) -> None:
        self._send(self.router.link_down(key, reason))
        self._peer(key, "down", reason)

    def _peer(self, key: int | str, state: str, reason: str) -> None:
        if isinstance(key, int):
            self.publish(PEER_TOPIC, {"node": key, "state": state, "reason": reason})

    def _sweep(self) -> None:
        now = time.monotonic()
        self._send(self.router.sweep(now))
        self.taps.sweep(now)
        self.links.sweep(now, self.router.exchange.busy_links())
        if now - self._callers_seen >= CALLERS_LOOK:
            self._callers_seen = now
            self._look_for_callers()
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP, self._sweep)

    def _look_for_callers(self, number: int | None = None, but: Hashable = None) -> None:
        """Forget the brokers that had dialled us and are gone: all such, or those of a node that just dialled again.

        A node may have dialled twice, by number and by address, and a clone speaks for its number, too: so each is
        tried. The welcome is for that; whoever lives takes no notice of it.
        """
        frames = [codec.encode_header(Header(Kind.CONTROL, topic=WELCOME)), b""]
        for key, caller in list(self.router.callers.items()):
            if key != but and number in (None, caller.node.number):
                try:
                    self._ports["peer"].send([key, *frames])
                except zmq.Again:
                    pass
                except zmq.ZMQError:
                    self._send(self.router.caller_gone(key))

    def _socket(self) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, QUEUE)
        socket.setsockopt(zmq.RCVHWM, MESSAGES)
        socket.setsockopt(zmq.MAXMSGSIZE, codec.MAX_BODY + codec.MAX_HEADER)
        socket.setsockopt(zmq.BACKLOG, 1024)
        socket.setsockopt(zmq.HANDSHAKE_IVL, 3000)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        return socket

    @staticmethod
    def _bind(socket: zmq.Socket[bytes], *endpoints: str) -> None:
        for each in endpoints:
            try:
                socket.bind(each)
            except zmq.ZMQError as problem:
                raise CoveyError(f"cannot listen on {each}: {problem}", "is another daemon using it?") from None
