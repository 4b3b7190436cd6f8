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
from collections.abc import Collection, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import zmq

from ..errors import CoveyError, Malformed, ServiceDied, UsageError
from . import codec
from .callers import Callers
from .ends import Lane, LinkKey, Out, node_of
from .guard import Guard
from .inlet import Inlet, content
from .join_port import JoinPort
from .links import Links, endpoint, parse_endpoint
from .messages import (
    HELLO,
    HELLO_WANTED,
    PEER_TOPIC,
    REFUSED_TOPIC,
    SUBSCRIBE,
    TAP_TOPIC,
    Header,
    Hello,
    Kind,
    NodeInfo,
    Peer,
    Role,
    Way,
)
from .port import bind
from .routing import Router
from .security import Keys, is_key
from .tap import Taps
from .traffic import Traffic, service_of
from .trust import Refusal
from .watch import Watch
from .window import MESSAGES

QUEUE = 3 * MESSAGES
"""Messages libzmq may hold for one party: its window, and errors, which need no window."""

MOST_SOCKETS = 30_000
"""Of the context for tcp: a link to each of 10 000 nodes needs three (itself, and two for its monitor)."""

SWEEP = 1.0
"""Seconds between the looks for forgotten requests and ended tap leases."""

CONTROL = Kind.CONTROL
_hello_decoder = msgspec.msgpack.Decoder(Hello)
_inproc_names = itertools.count(1)


class BrokerSettings(msgspec.Struct, frozen=True):
    """What a broker must know: its run folder, adapters as `address/prefix`, peer port, and who may do what.

    `roles` gives extra uids their role; uid 0 and the daemon's own are always administrators. `reserved` are the
    service names only components may take. With `keys` the mode is curve: only nodes of the cluster are let in on the
    peer port, and any key on the next one, for requests of `join_topics` alone. Without, it is open. Only a node of a
    `lab` can be cut off.
    """

    folder: str
    adapters: tuple[str, ...] = ()
    port: int = 0
    roles: dict[int, Role] = {}
    reserved: tuple[str, ...] = ()
    keys: Keys | None = None
    join_topics: tuple[str, ...] = ()
    lab: bool = False


class Broker:
    """Run a node's broker on the running loop: `await start()`, then `close()`."""

    def __init__(self, settings: BrokerSettings, context: zmq.Context[zmq.Socket[bytes]] | None = None) -> None:
        self.settings = settings
        self.router = Router(settings.reserved)
        self.taps = Taps()
        self.endpoint = f"inproc://covey-broker-{os.getpid()}-{next(_inproc_names)}"
        self._context = context or zmq.Context.instance()
        self._outside: zmq.Context[zmq.Socket[bytes]] = zmq.Context()  # for tcp alone: a context has one ZAP handler
        self._outside.set(zmq.MAX_SOCKETS, MOST_SOCKETS)
        self.guard: Guard | None = None
        if settings.keys:
            self.guard = Guard(
                self._outside, settings.keys, settings.join_topics, self.router.counters, self._tell_refusal
            )
        self.traffic = Traffic()
        self.links = Links(
            self._outside,
            settings.adapters,
            self._peer_at,
            self._own_hello,
            self._from_link,
            self._link_up,
            self._link_down,
            self.router.link_closed,
            self.router.counters,
            self._flush,
            self._secure_link if self.guard else None,
            self.traffic,
        )
        self.callers = Callers(
            self._outside,
            self._from_peer,
            self._caller_down,
            self._caller_closed,
            self.router.counters,
            self._flush,
            self.guard.secure_peers if self.guard else None,
            self._refuses if self.guard else None,
            traffic=self.traffic,
        )
        self.join_port: JoinPort | None = None
        self._vouched: tuple[frozenset[int], float] = (frozenset(), 0.0)  # until when
        self._watch = Watch(lambda key: self._gone(key, "process ended"))
        self._outs: list[Out] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self._started = False
        self._tapped = False

    async def start(self) -> None:
        """Bind all sockets; raises CoveyError when an address is not of this machine, or is taken."""
        run = Path(self.settings.folder)
        run.mkdir(parents=True, exist_ok=True)
        local = self._socket()
        self._bind(local, f"ipc://{run}/bus.sock", self.endpoint)
        (run / "bus.sock").chmod(0o666)  # the kernel's uid decides what a connection may do, not the path
        self._local = Inlet(local, self._from_local, self._malformed, self._flush)
        self._started = True
        if self.settings.adapters:
            self.callers.listen([endpoint(adapter, self.settings.port) for adapter in self.settings.adapters])
            if self.guard:
                strangers = [endpoint(adapter, self.settings.port + 1) for adapter in self.settings.adapters]
                self.join_port = JoinPort(
                    self._outside, strangers, self.guard, self._from_stranger, self._stranger_gone, self._flush
                )
                self.join_port.listen()
        self._sweep()

    def close(self) -> None:
        """Close all sockets; parties see their connection end."""
        if self._sweeper:
            self._sweeper.cancel()
        self.links.close()
        if self.join_port:
            self.join_port.close()
        if self.guard:
            self.guard.close()
        self.callers.close()
        if self._started:
            self._local.close()
        self._watch.close()
        self._outside.term()

    def configure(self, node: NodeInfo, peers: dict[int, Peer], ways: Mapping[str, Way] | None = None) -> None:
        """Take this node's place in its cluster, where its peers are, by which keys they are known, and the networks.

        Whose key is trusted no more is cut off at once, in both directions.
        """
        changed = node != self.router.node
        self.traffic.renew(ways or {})
        if self.guard and self.guard.configure(node, peers):
            for key, user in self.callers.users().items():
                caller = self.router.callers.get(key)
                if self.guard.trust.why_not(user, caller.node.number if caller else None):
                    self.callers.end(key, "its key is not trusted any more")
        self._send(self.router.configure(node, peers))
        self.links.retain(peers)
        if changed:
            self.links.greet()

    def security(self) -> dict[str, Any]:
        """Return the mode, and in mode curve this node's public key and what its two ports have seen."""
        if self.guard is None:
            return {"mode": "open"}
        join = self.join_port.state() if self.join_port else {}
        return {"mode": "curve", **self.guard.state(), **{f"join_{name}": value for name, value in join.items()}}

    def publish(self, topic: str, body: dict[str, Any]) -> None:
        """Publish an event of the broker's own."""
        self._send(self.router.event(topic, body))

    def tell_taps(self, asked: bool = False) -> None:
        """Tell those who speak past this broker whether anybody taps it: when that changed, or one had to be told."""
        tapped = bool(self.taps)
        if tapped != self._tapped or (asked and not tapped):
            self._tapped = tapped
            self.publish(TAP_TOPIC, {"on": tapped})

    def show(self, direction: str, header: Header, body: bytes) -> None:
        """Show the taps a message that did not pass this broker."""
        self.taps.offer(time.time(), self.router.node.number, direction, header, header.source, body)

    # --- what comes in --------------------------------------------------------------------------------------

    def _from_local(self, key: bytes, head: bytes, frame: zmq.Frame) -> None:
        try:
            header = codec.decode_header(head)
        except Malformed:
            self._malformed()
            return
        if header.kind is CONTROL:
            self._control(key, header, frame)
            return
        router = self.router
        body = content(frame)
        outs = router.from_party(key, header, body, time.monotonic())
        if self.taps and key in router.parties:
            self._show("out", header, router.parties[key].source, body, outs)
        self._outs += outs

    def _control(self, key: bytes, header: Header, frame: zmq.Frame) -> None:
        if header.topic == HELLO:
            self._hello(key, frame)
            return
        self._outs += self.router.from_party(key, header, frame.bytes, time.monotonic())
        if key not in self.router.parties:  # it said goodbye
            self._watch.discard(key)
        if header.topic == SUBSCRIBE:
            self.links.keep(self.router.links_wanted())

    def _from_peer(self, key: bytes, frames: list[zmq.Frame], user: str | None) -> None:
        header = self._header(frames)
        if header is None:
            return
        self.traffic.received(self.callers.host(key), service_of(header.topic), len(frames[0]) + len(frames[1]))
        if header.kind is CONTROL and header.topic == HELLO:
            hello = self._decode_hello(frames[1].bytes)
            if hello and hello.node and not self._wrong_node(key, user, hello.node.number, frames[0]):
                self.router.caller_came(key, hello.node)
            return
        caller = self.router.callers.get(key)
        if caller and self._wrong_node(key, user, caller.node.number, frames[0]):
            return
        body = content(frames[1])
        outs = self.router.from_caller(key, header, body, time.monotonic(), user or "")
        if self.taps:
            self._show("in", header, header.source, body, outs)
        self._outs += outs

    def _wrong_node(self, key: bytes, user: str | None, number: int, frame: zmq.Frame) -> bool:
        """Cut off a caller whose key is not that of the node it speaks for."""
        if self.guard is None or not self.guard.refuses(user or "", number, frame):
            return False
        self.callers.end(key, f"its key is not that of node {number}")
        return True

    def _from_stranger(self, key: bytes, header: Header, frame: zmq.Frame) -> None:
        outs = self.router.from_stranger(key, header, frame.bytes, time.monotonic())
        if self.taps:
            self._show("in", header, header.source, frame.bytes, outs)
        self._outs += outs

    def _stranger_gone(self, key: bytes) -> None:
        self._outs += self.router.stranger_gone(key)
        self._flush()

    def _from_link(self, key: LinkKey, frames: list[zmq.Frame]) -> None:
        header = self._header(frames)
        if header is None:
            return
        self.traffic.received(self.links.host(key), service_of(header.topic), len(frames[0]) + len(frames[1]))
        if header.kind is CONTROL and header.topic == HELLO_WANTED:
            self.links.greet()
            return
        body = content(frames[1])
        outs = self.router.from_link(key, header, body)
        if self.taps:
            self._show("in", header, header.source, body, outs)
        self._outs += outs

    def _header(self, frames: list[zmq.Frame]) -> Header | None:
        try:
            if len(frames) != 2:
                raise Malformed(f"{len(frames)} frames, expected 2")
            return codec.decode_header(frames[0].bytes)
        except Malformed:
            self._malformed()
            return None

    def _malformed(self) -> None:
        self.router.counters["malformed"] += 1

    def _decode_hello(self, body: bytes) -> Hello | None:
        try:
            if len(body) > codec.MAX_HEADER:
                raise msgspec.DecodeError("too long")
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
                    self.callers.send(key, out.kind, [out.frame, out.body], service_of(out.topic))
                elif port == "join":
                    if self.join_port:
                        self.join_port.send(key, out.kind, out.frame, out.body)
                else:
                    self.links.send(key, out.kind, [out.frame, out.body], service_of(out.topic))
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
            self._watch.discard(out.connection.key)
            outs += self.router.party_gone(out.connection.key, "it hung up")
        return outs

    def _peer_at(self, key: LinkKey) -> Peer:
        if isinstance(key, int):
            return self.router.peers[key]
        if isinstance(key, Lane):
            peer = self.router.peers[key.node]
            return msgspec.structs.replace(peer, addresses=peer.lists.get(key.service, peer.addresses), lists={})
        address, _, its_key = key.partition("#")
        address = parse_endpoint(address)
        if self.guard and not is_key(its_key):
            hint = "write HOST:PORT#KEY, with the 64 characters of its public key"
            raise UsageError(f"to dial {address} the key of the node there is needed: this node is in mode curve", hint)
        if its_key and not self.guard:
            raise UsageError(f"{address} wants a key proved, and this node is in mode open", "leave the #KEY out")
        return Peer("", (address,), its_key)

    def _secure_link(self, socket: zmq.Socket[bytes], key: LinkKey) -> None:
        assert self.guard is not None
        self.guard.secure_link(socket, self._peer_at(key))

    def _refuses(self, user: str, frame: zmq.Frame) -> bool:
        assert self.guard is not None
        return self.guard.refuses(user, None, frame)

    def _tell_refusal(self, refusal: Refusal) -> None:
        self.publish(REFUSED_TOPIC, msgspec.to_builtins(refusal))

    def _own_hello(self) -> list[bytes]:
        body = msgspec.msgpack.encode(Hello(node=self.router.node))
        return [codec.encode_header(Header(Kind.CONTROL, topic=HELLO)), body]

    def _link_up(self, key: LinkKey) -> None:
        self._outs += self.router.link_up(key)
        self._peer(key, "up", "")
        self._flush()

    def _link_down(self, key: LinkKey, reason: str, reached: bool) -> None:
        self._outs += self.router.link_down(key, reason, reached)
        if not (isinstance(key, Lane) and self._linked(key.node)):
            self._peer(key, "down", reason)
        self._flush()

    def _caller_down(self, key: bytes, reason: str) -> None:
        caller = self.router.callers.get(key)
        self._caller_closed(key)
        if caller and caller.node.number:
            number = caller.node.number
            others = any(other.node.number == number for other in self.router.callers.values())
            if not others and not self._linked(number):  # it may have been started anew, and have dialled again
                self._peer(number, "down", reason)

    def _caller_closed(self, key: bytes) -> None:
        self._outs += self.router.caller_gone(key)
        self._flush()

    def _linked(self, number: int) -> bool:
        """Whether any link to a node stands."""
        peer = self.router.peers.get(number)
        return self.links.up(number) or any(self.links.up(Lane(number, each)) for each in (peer.lists if peer else ()))

    def _peer(self, key: LinkKey, state: str, reason: str) -> None:
        number = node_of(key)
        if number is not None:
            self.publish(PEER_TOPIC, {"node": number, "state": state, "reason": reason})

    def vouch(self, nodes: Collection[int], seconds: float) -> None:
        """For so long somebody vouches that these nodes live, and will say at once when one does not any more."""
        self._vouched = frozenset(nodes), time.monotonic() + seconds
        self.links.hush(self._vouched[0])

    def _sweep(self) -> None:
        now = time.monotonic()
        if self.guard:
            self.guard.sweep()
        if self.join_port:
            self.join_port.sweep()
        self._send(self.router.sweep(now))
        self.taps.sweep(now)
        self.tell_taps()
        self.links.keep(self.router.links_wanted())
        self.links.hush(self._vouched[0] if now < self._vouched[1] else ())
        self.links.sweep(self.router.exchange.busy_links())
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP, self._sweep)

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
            bind(socket, each)
