"""How a registry server's messages to other servers leave: over links of its own where they stand, else by the brokers.

A message through two brokers costs four times the time and the processors of one connection between the two processes.
Nothing is configured and nothing stored: a server listens at a free port and, while it has to take the brokers, tells
the other by them where (`Reach`). Which keys are whose is what the DCM tells the broker, too (`Local.nodes`); the key
file is the node's own. Whatever goes wrong here, a key file that cannot be read, a port that a firewall closes, leaves
the way by the brokers.

A direct link that is lost tells the machine nothing: its messages go by the brokers at once, and whether the other node
is alive is known from there. Messages may be lost, doubled and swapped by changing ways; Raft takes that.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import typing
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import zmq

from ...bus import codec
from ...bus.batch import MAX_TEXT
from ...bus.client import Client
from ...bus.context import Local
from ...bus.direct import Direct
from ...bus.driver import Background, Outbox
from ...bus.links import endpoint
from ...bus.machine import Send
from ...bus.messages import CUT_TOPIC, REFUSED_TOPIC, TAP_TOPIC, Header, Kind, NodeInfo, Peer, Role
from ...bus.security import Keys, load_keys
from ...bus.trust import Refusal
from ...errors import CoveyError, KeyMismatch, Malformed, UsageError
from .messages import SERVICE
from .peers import PeerMessage, Reach

log = logging.getLogger(__name__)

TELL_EVERY = 1.0
"""Seconds between two words to one server about where this one listens."""

FULL = 1024 * 1024
"""Bytes of messages that are sent as one; what is larger goes alone."""

_DIRECT = frozenset(typing.get_args(PeerMessage))
_one = msgspec.msgpack.Decoder(PeerMessage)
_many = msgspec.msgpack.Decoder(list[PeerMessage])
_encode = msgspec.msgpack.Encoder().encode


class Way(msgspec.Struct):
    """What passed between this server and another one."""

    messages_out: int = 0
    bytes_out: int = 0
    messages_in: int = 0
    bytes_in: int = 0
    by_brokers: int = 0
    lost: int = 0
    malformed: int = 0
    downs: int = 0
    reason: str = ""


class Letters:
    """Messages to one server that leave together."""

    def __init__(self) -> None:
        self.items: list[bytes] = []
        self.causes: list[str] = []
        self.names: set[str] = set()
        self.size = self.text = 0  # bytes of the items; characters of the causes, for which a header has little room


class Post:
    """One server's messages to others. `hear(node, message, cause)` gets those of others that came directly."""

    def __init__(self, bus: Client, hear: Callable[[int, Any, str], None]) -> None:
        self._bus = bus
        self._hear = hear
        self._outbox = Outbox(bus)
        self._loop = asyncio.get_running_loop()
        self._direct: Direct | None = None
        self._place = NodeInfo()
        self._ways: dict[int, Way] = {}
        self._told: dict[int, float] = {}
        self._open: dict[int, Letters] = {}
        self._scheduled = False
        self._tapped = False
        self._lab = False
        self._background = Background()

    async def open(self, local: Local) -> None:
        """Listen for the other servers. When that is not possible it is logged, and all goes by the brokers."""
        try:
            addresses = tuple(local.nodes.get(local.node, {}).get("addresses", ()))
            if "security" not in local.settings or not addresses:
                return
            keys = await asyncio.to_thread(_keys, local, addresses)
            self._lab = bool(local.settings.get("lab"))
            self._place = NodeInfo(local.node, local.node_name, local.node_id, local.cluster_id, local.cluster_name)
            self._direct = Direct(
                SERVICE, self._place, addresses, keys, self._came, self._flush, self._changed, self._tell_refusal
            )
        except (CoveyError, zmq.ZMQError) as problem:
            log.warning("no links of its own to other registry servers, all goes by the brokers: %s", problem)
            return
        self.configure(local)

    def configure(self, local: Local) -> None:
        """The local configuration changed: who is a node, with which key, and which of them are servers."""
        if self._direct is None:
            return
        peers = {
            number: Peer(
                str(node.get("name", "")),
                local.server_lists[number] if number in local.server_lists else _places(node),
                str(node.get("key", "")),
            )
            for number, node in local.nodes.items()
            if number != local.node
        }
        servers = [number for number in local.registry_servers if number != local.node]
        self._direct.configure(peers, servers, local.ways)
        for number in self._ways.keys() - set(servers):
            del self._ways[number]

    def reached(self, node: int, reach: Reach) -> None:
        """Another server has said, by the brokers, where it listens."""
        if self._direct:
            self._direct.reach(node, reach.endpoints)

    def put(self, effect: Send) -> None:
        """Have a message of the machine sent."""
        number, message = effect.to.node, effect.message
        if self._direct is None or type(message) not in _DIRECT:
            self._outbox.put(effect)
        elif self._direct.ready(number):
            self._add(number, message, effect.cause)
        else:
            self._outbox.put(effect)
            self._way(number).by_brokers += 1
            self._tell(effect, number, self._direct)

    async def run(self) -> None:
        """Send what goes by the brokers, and follow whether anybody taps, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._outbox.post())
            tasks.create_task(self._hear_taps())
            tasks.create_task(self._hear_cuts())

    def state(self) -> list[dict[str, Any]]:
        """Return for each other server that was spoken with whether there is a link, and what passed.

        `silence`: seconds since it was heard over the link.
        """
        found = []
        if direct := self._direct:
            for number, way in sorted(self._ways.items()):
                silence, counted = direct.silence(number), direct.state(number)
                up = {"number": number, "up": silence is not None, "silence": silence}
                found.append({**up, **msgspec.structs.asdict(way), "resent": counted.get("resent", 0)})
        return found

    def refused(self) -> dict[str, int]:
        """Return how often somebody was not let in, or not spoken with, by reason."""
        counters = self._direct.counters if self._direct else {}
        return {name: count for name, count in sorted(counters.items()) if name.startswith("refused_") and count}

    def traffic(self) -> list[dict[str, Any]]:
        """Return what passed over the direct links, by network."""
        return self._direct.traffic.state() if self._direct else []

    async def close(self) -> None:
        """Close the links."""
        await self._background.close()
        if self._direct:
            self._flush()
            direct, self._direct = self._direct, None
            await direct.close()

    # --- inside -------------------------------------------------------------------------------------------------

    def _way(self, number: int) -> Way:
        found = self._ways.get(number)
        if found is None:
            found = self._ways[number] = Way()
        return found

    def _tell(self, effect: Send, number: int, direct: Direct) -> None:
        """Say where this server listens to one that is to dial it."""
        now = self._loop.time()
        if number < self._place.number and now - self._told.get(number, float("-inf")) >= TELL_EVERY:
            self._told[number] = now
            self._outbox.put(Send(effect.to, Reach(direct.endpoints)))

    def _add(self, number: int, message: Any, cause: str) -> None:
        item = _encode(message)
        letters = self._open.get(number)
        if letters and (
            letters.size + len(item) > FULL
            or letters.text + len(cause) > MAX_TEXT
            or len(letters.items) >= codec.MAX_BATCH
        ):
            self._send(number, letters)
            letters = None
        if letters is None:
            letters = self._open[number] = Letters()
        letters.items.append(item)
        letters.causes.append(cause)
        letters.names.add(type(message).__name__.lower())
        letters.size += len(item)
        letters.text += len(cause)
        if not self._scheduled:  # what this turn of the loop has yet to say goes with it
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self._flush()

    def _flush(self) -> None:
        if self._open:
            letters, self._open = self._open, {}
            for number, each in letters.items():
                self._send(number, each)

    def _send(self, number: int, letters: Letters) -> None:
        way = self._way(number)
        if self._direct is None:
            return
        count, causes = len(letters.items), letters.causes
        body, compressed = codec.compress(codec.join_items(letters.items))
        about = f".{next(iter(letters.names))}" if len(letters.names) == 1 else ""
        header = Header(
            Kind.REQUEST,
            source=f"{SERVICE}@{self._place.number}",
            destination=f"{SERVICE}@{number}",
            topic=f"{SERVICE}.message{about}",
            count=count,
            cluster=self._place.cluster_id,
            role=Role.COMPONENT,
            compressed=compressed,
            causes=tuple(causes[:1] if causes.count(causes[0]) == count else causes),
        )
        try:
            self._direct.send(number, [codec.encode_header(header), body])
        except CoveyError as problem:  # as good as lost on the way
            way.lost += count
            log.debug("not sent to node %d: %s", number, problem)
            return
        way.messages_out += count
        way.bytes_out += len(body)
        if self._tapped:
            self._show("out", header, body)

    def _came(self, number: int, header: Header, body: bytes | memoryview) -> None:
        way = self._way(number)
        try:
            data = codec.unpack_body(body, header.compressed)
            found = [_one.decode(data)] if header.count == 1 else _many.decode(data)
        except (Malformed, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
            if not way.malformed:
                log.warning("node %d said what no registry server says: %s", number, problem)
            way.malformed += 1
            return
        way.messages_in += len(found)
        way.bytes_in += len(body)
        if self._tapped:
            self._show("in", header, body)
        for index, message in enumerate(found):
            self._hear(number, message, header.causes[min(index, len(header.causes) - 1)] if header.causes else "")

    async def _hear_taps(self) -> None:
        async with self._bus.subscribe(TAP_TOPIC) as events:
            async for event in events:
                self._tapped = bool(event.body["on"])

    async def _hear_cuts(self) -> None:
        """On a node of a lab the direct links are cut with all others."""
        if not (self._direct and self._lab):
            return
        async for event in self._bus.subscribe(CUT_TOPIC):
            self._direct.traffic.cut(event.body["out"], event.body["into"])

    def _show(self, direction: str, header: Header, body: bytes | memoryview) -> None:
        """Give this node's broker a copy for its taps."""
        head, data = codec.encode_header(header), bytes(body)
        self._background.start(self._copy(direction, head, data), "a copy for the tap")

    async def _copy(self, direction: str, header: bytes, body: bytes) -> None:
        with suppress(CoveyError):
            await self._bus.send("bus", "tap_show", direction=direction, header=header, body=body)

    def _changed(self, number: int, up: bool, reason: str) -> None:
        way = self._way(number)
        if not up:
            way.downs += 1
            way.reason = reason
            self._told.pop(number, None)
        log.info("the direct link with registry server %d %s", number, "is up" if up else f"ended: {reason}")

    def _tell_refusal(self, refusal: Refusal) -> None:
        """A refusal goes where those of the broker go, so the audit log has it."""
        self._background.start(self._say_refusal(msgspec.to_builtins(refusal)), "tell a refusal")

    async def _say_refusal(self, body: dict[str, Any]) -> None:
        with suppress(CoveyError):  # it is counted
            await self._bus.publish(REFUSED_TOPIC, body)


def _places(node: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(endpoint(address, int(node.get("port", 0))) for address in node.get("addresses", ()))


def _keys(local: Local, addresses: Sequence[str]) -> Keys | None:
    """Return the node's key pair, None in mode open; raises KeyFileError, KeyMismatch, UsageError. Blocks.

    Only what says that it is open is, and only at loopback addresses.
    """
    security = local.settings["security"]
    if security["mode"] == "open":
        if not all(ipaddress.ip_interface(each).ip.is_loopback for each in addresses):
            raise UsageError("mode open is for loopback addresses alone, and this node has others")
        return None
    keys = load_keys(security["key"])
    if keys.public != local.nodes[local.node].get("key"):
        raise KeyMismatch(f"{security['key']} is not the key by which the cluster knows this node")
    return keys
