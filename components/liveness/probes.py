"""Probes as datagrams, from adapter to adapter: UDP sockets bound to this node's own addresses, and signed messages.

Why not over the bus: a datagram that is lost is lost, where a connection sends it again and hides for seconds that a
line is bad, or bad one way; it leaves by the adapter it is about; it needs no connection to each of twenty nodes; and
it costs a fraction. It is answered by this process's own loop, so a hung one does not answer, and the kernel says at
once (ICMP) that nobody listens there any more.

Port: a node's own, as its peers know it, for UDP. Each datagram carries the number of its sender and a MAC (keyed
BLAKE2b, 128 bits) over all of it. The key belongs to whoever asks: a node makes one for each node that it probes, new
in each life of its process, and tells it over the bus (`ProbeKey`), where the sender's CURVE key is proved; both its
probes and the answers are signed with it. So a stranger's datagram changes nothing but a counter, and an undefined
node's keys are forgotten. Probes are counted by who asks (`beat`), and of one node by one network only a higher one is
taken, of probes as of answers: whoever caught some of a node that has died cannot keep it alive by saying them again.
What a datagram says is no secret and is not encrypted. In mode open, for loopback addresses alone, the bus proves
nothing, and so do the keys.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import secrets
import socket
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress

import msgspec

from ...bus.traffic import Traffic
from .messages import Heartbeat, HeartbeatAck
from .networks import Networks

log = logging.getLogger(__name__)

LARGEST = 1200
"""Bytes of a datagram, more than any has and less than any network's limit; what is larger is dropped."""

DRAINED = 200
"""Datagrams taken in one turn of the loop; what a flood brings beyond waits in the kernel, which drops what is too
much."""

TELL_EVERY = 1.0
"""Seconds between two tries to tell a node the key, while it does not answer."""

TELL_ANYHOW = 30.0
"""Seconds after which the key is told again though all is well: the link between the brokers stays in use by it, and
its end is the quickest sign that a node died."""

BIND_EVERY = 2.0
"""Seconds between two tries to bind an address that this machine does not have at the moment."""

_HEAD = struct.Struct("!4sII")  # what it is, sender, receiver
_MAGIC = b"cvp\x01"
_MAC = 16
_IP_RECVERR, _IPV6_RECVERR = 11, 25

Probe = Heartbeat | HeartbeatAck
Place = tuple[str, int]
_decoder = msgspec.msgpack.Decoder(Probe)


class Probes:
    """The sockets of one node, and the keys. `hear(node, message)` gets what is understood, `tell(node, key)` says a
    key to a node over the bus, `refused(node)` is called when nobody listens at a node's place."""

    def __init__(
        self,
        number: int,
        hear: Callable[[int, Probe], None],
        tell: Callable[[int, bytes], None],
        refused: Callable[[int], None],
    ) -> None:
        self._number = number
        self._hear = hear
        self._tell = tell
        self._refused = refused
        self._loop = asyncio.get_running_loop()
        self._secret = secrets.token_bytes(32)
        self._mine: dict[int, bytes] = {}
        self._theirs: dict[int, bytes] = {}
        self._told: dict[int, float] = {}
        self._answered: dict[int, float] = {}
        self._highest: dict[int, dict[tuple[type[Probe], str], int]] = {}  # the last beat that was taken
        self._sockets: dict[Place, socket.socket | None] = {}
        self._tried: dict[Place, float] = {}
        self._places: dict[str, dict[int, Place]] = {}
        self._numbers: dict[Place, int] = {}
        self.counters: Counter[str] = Counter()
        self.traffic = Traffic()

    def configure(self, networks: Networks, ports: Mapping[int, int], known: Mapping[int, object]) -> None:
        """These are the networks, and the port of each node; whoever is not `known` any more loses its keys."""
        self._places = {
            name: {n: (address, ports[n]) for n, address in nodes.items() if ports.get(n)}
            for name, nodes in networks.items()
            if name
        }
        self._numbers = {place: n for places in self._places.values() for n, place in places.items()}
        for keys in (self._mine, self._theirs, self._told, self._answered, self._highest):
            for number in [n for n in keys if n not in known]:
                del keys[number]
        own = {places[self._number] for places in self._places.values() if self._number in places}
        for place in self._sockets.keys() - own:
            self._close(place)
        for place in own - self._sockets.keys():
            self._sockets[place] = None
            self._open(place)

    def learn(self, number: int, key: bytes) -> None:
        """A node of the cluster, proved by the bus, has said with which key it signs its probes."""
        if len(key) == 32 and key != self._theirs.get(number):
            self._theirs[number] = key
            highest = self._highest.get(number, {})  # its count begins anew with its process, ours goes on
            self._highest[number] = {place: beat for place, beat in highest.items() if place[0] is HeartbeatAck}

    def introduce(self, number: int) -> None:
        """Tell a node the key, unless it was told just now or shows that it knows it."""
        now = self._loop.time()
        told = self._told.get(number, float("-inf"))
        wait = TELL_ANYHOW if self._answered.get(number, float("-inf")) > now - 2 * TELL_EVERY else TELL_EVERY
        if now >= told + wait:
            self._told[number] = now
            self._tell(number, self._key_for(number))

    def send(self, number: int, message: Probe) -> None:
        """Send a probe, or the answer to one; what cannot be sent is as good as lost on the way."""
        place = self._places.get(message.network, {}).get(number)
        own = self._places.get(message.network, {}).get(self._number)
        asks = isinstance(message, Heartbeat)
        if asks:
            self.introduce(number)
        key = self._key_for(number) if asks else self._theirs.get(number)
        if place is None or own is None or key is None:
            self.counters["unsent"] += 1
            return
        if self._sockets.get(own) is None and self._loop.time() >= self._tried.get(own, 0.0) + BIND_EVERY:
            self._open(own)
        found = self._sockets.get(own)
        if found is None:
            self.counters["unsent"] += 1
            return
        if not self.traffic.lets_out(place[0]):
            return
        head, body = _HEAD.pack(_MAGIC, self._number, number), msgspec.msgpack.encode(message)
        try:
            found.sendto(head + _mac(key, head, body) + body, place)
            self.counters["sent"] += 1
            self.traffic.sent(own[0], "liveness", _HEAD.size + _MAC + len(body))
        except OSError as problem:  # also what an earlier one met
            self.counters["unsent"] += 1
            log.debug("no probe by %s to node %d: %s", message.network, number, problem)
            self._drain_errors(found)

    def close(self) -> None:
        """Close the sockets."""
        for place in list(self._sockets):
            self._close(place)

    # --- keys -----------------------------------------------------------------------------------------------------

    def _key_for(self, number: int) -> bytes:
        key = self._mine.get(number)
        if key is None:
            told = number.to_bytes(8, "big")
            key = self._mine[number] = hashlib.blake2b(told, key=self._secret, digest_size=32).digest()
        return key

    # --- sockets --------------------------------------------------------------------------------------------------

    def _open(self, place: Place) -> None:
        self._tried[place] = self._loop.time()
        version = ipaddress.ip_address(place[0]).version
        found = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        try:
            found.setblocking(False)
            level, option = (socket.IPPROTO_IP, _IP_RECVERR) if version == 4 else (socket.IPPROTO_IPV6, _IPV6_RECVERR)
            with suppress(OSError):  # else a node that listens no more shows by its silence
                found.setsockopt(level, option, 1)
            found.bind(place)
        except OSError as problem:
            found.close()
            self.counters["unbound"] += 1
            log.warning("no probes from %s:%d for now: %s", *place, problem)
            return
        self._sockets[place] = found
        self._loop.add_reader(found, self._drain, found)

    def _close(self, place: Place) -> None:
        found = self._sockets.pop(place, None)
        if found is not None:
            self._loop.remove_reader(found)
            found.close()

    def _drain(self, found: socket.socket) -> None:
        for _ in range(DRAINED):
            try:
                data = found.recv(LARGEST + 1)
            except BlockingIOError:
                return
            except OSError:
                self._drain_errors(found)
                return
            self._came(data)
            if found.fileno() < 0:  # what came has ended this process's part
                return

    def _drain_errors(self, found: socket.socket) -> None:
        """The kernel's error queue says which places refused."""
        self._loop.remove_reader(found)  # uvloop polls a socket no more that once had an error, unless told anew
        self._loop.add_reader(found, self._drain, found)
        for _ in range(DRAINED):
            try:
                _, _, _, place = found.recvmsg(LARGEST, 512, socket.MSG_ERRQUEUE)
            except OSError:
                return
            number = self._numbers.get((str(place[0]), int(place[1]))) if place else None
            if number is not None:
                self.counters["refused"] += 1
                self._loop.call_soon(self._refused, number)

    def _came(self, data: bytes) -> None:
        start = _HEAD.size + _MAC
        if not start < len(data) <= LARGEST:
            self.counters["malformed"] += 1
            return
        magic, sender, receiver = _HEAD.unpack_from(data)
        if magic != _MAGIC or receiver != self._number or sender == self._number:
            self.counters["malformed"] += 1
            return
        head, mac, body = data[: _HEAD.size], data[_HEAD.size : start], data[start:]
        kind = self._proved(sender, head, mac, body)
        if kind is None:
            self.counters["unproved"] += 1
            return
        try:
            message = _decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self.counters["malformed"] += 1
            return
        if type(message) is not kind or message.network not in self._places:
            self.counters["malformed"] += 1
            return
        highest = self._highest.setdefault(sender, {})
        if message.beat <= highest.get((kind, message.network), -1):
            self.counters["repeated"] += 1
            return
        highest[kind, message.network] = message.beat
        if kind is HeartbeatAck:
            self._answered[sender] = self._loop.time()
        theirs = self._places[message.network].get(sender)
        if theirs is not None and not self.traffic.lets_in(theirs[0]):
            return
        self.counters["received"] += 1
        own = self._places[message.network].get(self._number)
        self.traffic.received(own[0] if own else "", "liveness", len(data))
        self._hear(sender, message)

    def _proved(self, sender: int, head: bytes, mac: bytes, body: bytes) -> type[Probe] | None:
        """Return what a datagram may be by the key it is signed with: theirs for what they ask, ours for answers."""
        theirs, mine = self._theirs.get(sender), self._mine.get(sender)
        if theirs is not None and hmac.compare_digest(mac, _mac(theirs, head, body)):
            return Heartbeat
        if mine is not None and hmac.compare_digest(mac, _mac(mine, head, body)):
            return HeartbeatAck
        return None


def _mac(key: bytes, head: bytes, body: bytes) -> bytes:
    return hashlib.blake2b(head + body, key=key, digest_size=_MAC).digest()
