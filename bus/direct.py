"""A party's links of its own to the same party on other nodes: what they say to each other passes no broker.

Sessions, heartbeats, keys and refusals are those of brokers (`links.py`, `callers.py`, `guard.py`), in a ZeroMQ context
of its own, since one context has one ZAP handler. Here is who is who: the port is any that is free, so the others must
be told where it is (`reach`); of two nodes the one with the lower number dials, so a pair has one session for both
ways. Each side says hello first, and counts only when number and cluster are right and, in mode curve, the key proved
is that node's by the cluster's definitions: with ports that come and go, whoever answers at one may be anybody.

A link is `ready` only while the other side was heard just now. Whoever uses this has another way for everything else,
and loses nothing by taking that early, while a session takes five seconds of silence for the end.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import zmq

from ..errors import CoveyError, Malformed, UsageError
from . import codec
from .callers import Callers
from .ends import LinkKey
from .guard import Guard
from .links import Links, endpoint, parse_endpoint
from .messages import HELLO, Header, Hello, Kind, NodeInfo, Peer, Way
from .port import content
from .security import Keys
from .traffic import Traffic
from .trust import Refusal

FRESH = 0.5
"""Seconds since the other side was heard in which a link is ready. Who talks less often than that does not need it."""

MOST_PLACES = 32
"""Endpoints that a node may name; the rest is not looked at."""

SWEEP = 1.0
"""Seconds between the looks for refusals that were not told yet."""

_hello_decoder = msgspec.msgpack.Decoder(Hello)


class Direct:
    """Links of one party with the same party of other nodes, on the running loop.

    `service` is that party's name, `place` is this node, `addresses` are its own (`address/prefix`), `keys` its key
    pair (None: mode open).
    `on_message(node, header, body)` gets each message once and in order, `on_drained()` comes when all that had come
    was handled, `on_change(node, up, reason)` when a link came or went. `tell` gets what is to be told of refusals.
    Raises NoCurve, and CoveyError when an address cannot be had.
    """

    def __init__(
        self,
        service: str,
        place: NodeInfo,
        addresses: Sequence[str],
        keys: Keys | None,
        on_message: Callable[[int, Header, bytes | memoryview], None],
        on_drained: Callable[[], None],
        on_change: Callable[[int, bool, str], None],
        tell: Callable[[Refusal], None],
    ) -> None:
        self.place = place
        self._service = service
        self.counters: Counter[str] = Counter()
        """Of all links: `refused_REASON` as in `bus.status`, `refused_stranger`: number or cluster were not right."""
        self._on_message = on_message
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._peers: dict[int, Peer] = {}
        self._wanted: frozenset[int] = frozenset()
        self._places: dict[int, tuple[str, ...]] = {}  # where the nodes we dial said that they listen
        self._answered: set[int] = set()  # nodes dialled that said the right hello
        self._nodes: dict[bytes, int] = {}  # sessions of those who dialled us and said the right hello
        self._callers: dict[int, bytes] = {}  # the newest of these of each node
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._guard = Guard(self._context, keys, (), self.counters, tell) if keys else None
        guard = self._guard
        self.traffic = Traffic()
        self._links = Links(
            self._context,
            addresses,
            self._peer,
            self._hello,
            self._from_link,
            lambda key: None,
            lambda key, reason, reached: self._link_down(key, reason),
            lambda key: self._link_down(key, "it was not used any more"),
            self.counters,
            on_drained,
            self._secure if guard else None,
            self.traffic,
        )
        self._server = Callers(
            self._context,
            self._from_caller,
            self._caller_down,
            lambda key: self._caller_down(key, "it was not used any more"),
            self.counters,
            on_drained,
            guard.secure_peers if guard else None,
            self._refuses if guard else None,
            traffic=self.traffic,
        )
        self._sweeper = self._loop.call_later(SWEEP, self._sweep)
        try:
            self.endpoints = tuple(self._server.listen([endpoint(address, 0) for address in addresses]))
        except BaseException:
            self._shut()
            self._context.term()
            raise

    def configure(
        self, peers: Mapping[int, Peer], wanted: Collection[int], ways: Mapping[str, Way] | None = None
    ) -> None:
        """Take the other nodes of the cluster, with which of them there shall be links, and the networks.

        Of a peer's addresses the hosts count, and their order. Who is no node any more, has another key, or is not
        wanted, is cut.
        """
        self.traffic.renew(ways or {})
        self._peers, self._wanted = dict(peers), frozenset(wanted) & peers.keys()
        if self._guard:
            self._guard.configure(self.place, peers)
        users = self._server.users()
        for key, number in list(self._nodes.items()):
            trusted = not self._guard or self._guard.trust.speaks_for(users.get(key, ""), number)
            if number not in self._wanted or not trusted:
                self._server.end(key, "it is not wanted any more" if trusted else "its key is not trusted any more")
        self._dial()

    def reach(self, number: int, endpoints: Sequence[str]) -> None:
        """A node has said where it listens; to be told only what that node itself has said.

        It may name ports at its own addresses, and no others: nobody is to send us anywhere.
        """
        peer = self._peers.get(number)
        if peer is None or number <= self.place.number:
            return
        found = []
        for each in endpoints[:MOST_PLACES]:
            with suppress(UsageError):
                found.append(parse_endpoint(each))
        if _in_order(peer, found):
            self._places[number] = tuple(found)
            self._dial()

    def silence(self, number: int) -> float | None:
        """Return for how many seconds a node was not heard; None when there is no link."""
        if number in self._answered:
            heard = self._links.heard_at(number)
        else:
            key = self._callers.get(number)
            heard = None if key is None else self._server.heard_at(key)
        return None if heard is None else self._loop.time() - heard

    def ready(self, number: int) -> bool:
        """Whether a message can go to that node now, and will most likely arrive at once."""
        silence = self.silence(number)
        return silence is not None and silence < FRESH

    def send(self, number: int, frames: list[Any]) -> None:
        """Send header and body to a node; raises Overloaded, and Unreachable when there is no link."""
        if number in self._answered:
            self._links.send(number, Kind.REQUEST, frames, self._service)
        else:
            self._server.send(self._callers.get(number, b""), Kind.REQUEST, frames, self._service)

    def state(self, number: int) -> dict[str, Any]:
        """Return what the session with a node counted, if there is one (`session.Counters`)."""
        if number in self._callers:
            return self._server.state()[self._callers[number]]
        return next((each for each in self._links.state() if each["peer"] == str(number)), {})

    async def close(self) -> None:
        """Say goodbye on all links and close everything. Waits up to half a second for what is under way."""
        self._shut()
        await asyncio.to_thread(self._context.term)

    # --- who is dialled -----------------------------------------------------------------------------------------

    def _dial(self) -> None:
        known = {number: self._peer(number) for number in self._places.keys() & self._wanted}
        dialled = {number: peer for number, peer in known.items() if peer.addresses}
        self._links.retain(dialled)
        self._links.keep(dialled)

    def _peer(self, key: LinkKey) -> Peer:
        assert isinstance(key, int)
        peer, said = self._peers[key], self._places[key]
        return msgspec.structs.replace(peer, addresses=_in_order(peer, said))

    def _secure(self, socket: zmq.Socket[bytes], key: LinkKey) -> None:
        assert self._guard is not None
        self._guard.secure_link(socket, self._peer(key))

    def _hello(self) -> list[Any]:
        body = msgspec.msgpack.encode(Hello(node=self.place))
        return [codec.encode_header(Header(Kind.CONTROL, topic=HELLO)), body]

    def _from_link(self, key: LinkKey, frames: list[zmq.Frame]) -> None:
        assert isinstance(key, int)
        header = self._header(frames)
        if header is None:
            return
        if header.kind is not Kind.CONTROL:
            if key in self._answered:
                self._count(self._links.host(key), frames)
                self._on_message(key, header, content(frames[1]))
            return
        node = self._greeting(header, frames[1])
        if node and node.number == key and node.cluster_id == self.place.cluster_id:
            self._answered.add(key)
            self._on_change(key, True, "")
        else:  # another listens where that node did; it will say where it listens now
            self.counters["refused_stranger"] += 1
            self._places.pop(key, None)
            self._loop.call_soon(self._links.cut, key, "another answers there")

    def _link_down(self, key: LinkKey, reason: str) -> None:
        assert isinstance(key, int)
        if key in self._answered:
            self._answered.discard(key)
            self._on_change(key, False, reason)

    # --- who dials us -------------------------------------------------------------------------------------------

    def _from_caller(self, key: bytes, frames: list[zmq.Frame], user: str | None) -> None:
        header = self._header(frames)
        if header is None:
            return
        number = self._nodes.get(key)
        if header.kind is Kind.CONTROL:
            node = self._greeting(header, frames[1])
            if node and number is None:
                self._greeted(key, node, user, frames[0])
        elif number is not None and not self._wrong(key, number, user, frames[0]):
            self._count(self._server.host(key), frames)
            self._on_message(number, header, content(frames[1]))

    def _greeted(self, key: bytes, node: NodeInfo, user: str | None, frame: zmq.Frame) -> None:
        """A caller says who it is; it is answered when that is right."""
        number = node.number
        if node.cluster_id != self.place.cluster_id or number not in self._wanted:
            self.counters["refused_stranger"] += 1
            self._server.end(key, "it is nobody whom this party talks with")
            return
        if self._wrong(key, number, user, frame):
            return
        self._nodes[key], self._callers[number] = number, key
        with suppress(CoveyError):
            self._server.send(key, Kind.CONTROL, self._hello())
        self._on_change(number, True, "")

    def _wrong(self, key: bytes, number: int, user: str | None, frame: zmq.Frame) -> bool:
        """Cut off a caller whose key is not that of the node it speaks for."""
        if self._guard is None or not self._guard.refuses(user or "", number, frame):
            return False
        self._server.end(key, f"its key is not that of node {number}")
        return True

    def _refuses(self, user: str, frame: zmq.Frame) -> bool:
        assert self._guard is not None
        return self._guard.refuses(user, None, frame)

    def _caller_down(self, key: bytes, reason: str) -> None:
        number = self._nodes.pop(key, 0)
        if number and self._callers.get(number) == key:
            del self._callers[number]
            self._on_change(number, False, reason)

    def _count(self, host: str, frames: list[zmq.Frame]) -> None:
        self.traffic.received(host, self._service, len(frames[0]) + len(frames[1]))

    # --- both ---------------------------------------------------------------------------------------------------

    def _header(self, frames: list[zmq.Frame]) -> Header | None:
        try:
            return codec.decode_header(frames[0].bytes)
        except Malformed:
            self.counters["malformed"] += 1
            return None

    def _greeting(self, header: Header, frame: zmq.Frame) -> NodeInfo | None:
        try:
            if header.topic != HELLO or len(frame) > codec.MAX_HEADER:
                raise msgspec.DecodeError("no hello")
            return _hello_decoder.decode(frame.bytes).node
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self.counters["malformed"] += 1
            return None

    def _sweep(self) -> None:
        self._sweeper = self._loop.call_later(SWEEP, self._sweep)
        if self._guard:
            self._guard.sweep()

    def _shut(self) -> None:
        self._sweeper.cancel()
        self._links.close()
        if self._guard:
            self._guard.close()
        self._server.close()


def _in_order(peer: Peer, places: Sequence[str]) -> tuple[str, ...]:
    """Return those of these places that are at a peer's addresses, in the order of these."""
    return tuple(each for host in map(_host, peer.addresses) for each in places if _host(each) == host)


def _host(place: str) -> Any:
    """Return the address in `host:port`."""
    return ipaddress.ip_address(place.rpartition(":")[0].strip("[]"))
