"""The service `bus` that every broker offers: its status, its place in the cluster, its taps.

It runs in the broker's own process as an ordinary party over `inproc`: there is one way to ask, for all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import msgspec

from ..errors import Denied, Refused
from . import codec
from .broker import Broker, BrokerSettings
from .client import Client, connect
from .messages import CUT_TOPIC, NodeInfo, Peer, Role, Way
from .routing import FLOW
from .service import Request, verb
from .tap import Record

MOST_RECORDS = 1000
"""Tap records in one answer: about 200 KiB without payload."""

LONGEST_WAIT = 10.0

LONGEST_VOUCH = 60.0


class BrokerService:
    """The verbs of `bus`."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._out: set[str] = set()
        self._into: set[str] = set()

    @verb()
    def status(self) -> dict[str, Any]:
        """Parties, links to peers, waiting requests, and a counter for every kind of refusal and loss."""
        return _status(self._broker)

    @verb()
    def traffic(self) -> list[dict[str, Any]]:
        """Messages and bytes from and to other brokers, by network and service, since this broker began."""
        return self._broker.traffic.state()

    @verb(Role.ADMIN)
    def cut(self, *, out: tuple[str, ...], into: tuple[str, ...]) -> None:
        """On a node of a lab: let nothing pass to and from these hosts any more, besides those that are cut already."""
        self._cut(self._out | set(out), self._into | set(into))

    @verb(Role.ADMIN)
    def heal(self) -> None:
        """On a node of a lab: let everything pass again."""
        self._cut(set(), set())

    def _cut(self, out: set[str], into: set[str]) -> None:
        if not self._broker.settings.lab:
            raise Refused(
                "this is no node of a lab, so nothing of its traffic is cut",
                "`covey lab up` makes nodes that can: `lab: true` in their YAML, and loopback addresses alone",
            )
        self._out, self._into = out, into
        self._broker.traffic.cut(out, into)
        self._broker.publish(CUT_TOPIC, {"out": sorted(out), "into": sorted(into)})

    @verb(Role.COMPONENT)
    def configure(self, *, info: NodeInfo, peers: dict[int, Peer], ways: dict[str, Way] | None = None) -> None:
        """Set this node's place in its cluster, where its peers listen, and the network of each prefix. The DCM calls
        it at every change."""
        self._broker.configure(info, peers, ways)

    @verb(Role.COMPONENT)
    def vouch(self, *, nodes: list[int], seconds: float) -> None:
        """For `seconds` (at most 60) the caller knows that these nodes live, and says at once when one does not.

        The links to them need few heartbeats. Liveness calls it at every change, and again before the time is over.
        """
        self._broker.vouch(nodes, min(seconds, LONGEST_VOUCH))

    @verb()
    def tap_attach(
        self,
        request: Request,
        *,
        filter: str = "",
        payload: bool = False,
    ) -> dict[str, Any]:
        """Begin to watch what passes this broker; returns the tap's number. Fetch at least every 15 s to keep it.

        `filter` is an expression over the fields of `tap.FIELDS`; empty takes everything. `payload` needs the role
        admin: a body may hold what is nobody else's business, a join token say.
        """
        if payload and request.role < Role.ADMIN:
            has = request.role.name.lower()
            raise Denied(f"seeing what is in the messages needs the role admin, you have {has}", "leave payload out")
        number = self._broker.taps.attach(filter, payload, time.monotonic(), request.source)
        self._broker.tell_taps()
        return {"tap": number, "node": self._broker.router.node.number}

    @verb()
    async def tap_next(self, request: Request, *, tap: int, wait: float = 1.0) -> dict[str, Any]:
        """Return what matched since the last fetch, waiting up to `wait` seconds for the first record."""
        found = self._broker.taps.get(tap, request.source)
        records = await found.take(MOST_RECORDS, min(max(wait, 0.0), LONGEST_WAIT), time.monotonic())
        return {"records": _plain(records), "counters": found.counters()}

    @verb()
    def tap_detach(self, request: Request, *, tap: int) -> dict[str, Any]:
        """End a tap; returns its last counters, and the records that still waited, as far as they fit."""
        records = self._broker.taps.get(tap, request.source).take_now(MOST_RECORDS)
        counters = self._broker.taps.detach(tap, request.source)
        self._broker.tell_taps()
        return {"records": _plain(records), "counters": counters}

    @verb(Role.COMPONENT)
    def tap_show(self, request: Request, *, direction: Literal["in", "out"], header: bytes, body: bytes) -> None:
        """Show the taps a message that a component sent or got past this broker, over a link of its own."""
        found = codec.decode_header(header)
        if (found.source if direction == "out" else found.destination) != request.source:
            raise Denied(f"'{request.source}' may show only what it said or was told itself")
        self._broker.tell_taps(asked=True)
        self._broker.show(direction, found, body)


def _status(broker: Broker) -> dict[str, Any]:
    router = broker.router
    parties = sorted(router.parties.values(), key=lambda party: party.name)
    return {
        "node": msgspec.to_builtins(router.node),
        "security": broker.security(),
        "parties": [
            {
                "name": party.name,
                "services": list(party.services),
                "role": party.role.name.lower(),
                "uid": party.uid,
                "pid": party.pid,
                "waiting": party.waiting,
                "queue": party.window.messages if party.window else 0,
                "queue_bytes": party.window.bytes if party.window else 0,
                "subscriptions": len(party.wants),
                "events_dropped": party.dropped,
            }
            for party in parties
        ],
        "links": broker.links.state(),
        "callers": sorted(caller.node.number for caller in router.callers.values()),
        "sessions": _sessions(broker),
        "waiting": sum(end.waiting for end in (*parties, *router.callers.values())),
        "last_events": len(router.fanout.last),
        "last_events_bytes": router.fanout.last_bytes,
        "counters": dict(sorted(router.counters.items())),
        "losses": {name: count for name, count in sorted(router.counters.items()) if count and name not in FLOW},
    }


def _sessions(broker: Broker) -> list[dict[str, Any]]:
    """Return what the connections counted that other nodes made to this one."""
    callers = broker.router.callers
    return [
        {"peer": str(callers[key].node.number) if key in callers else "", **state}
        for key, state in broker.callers.state().items()
    ]


def _plain(records: list[Record]) -> list[dict[str, Any]]:
    return [msgspec.to_builtins(record, builtin_types=(bytes,)) for record in records]


@asynccontextmanager
async def run_broker(settings: BrokerSettings) -> AsyncIterator[tuple[Broker, Client]]:
    """Run a broker and its own service while the context lasts; yields them both."""
    broker = Broker(settings)
    try:
        await broker.start()
        async with (
            connect(name="bus", component=True, endpoint=broker.endpoint) as client,
            client.serve("bus", BrokerService(broker)),
        ):
            yield broker, client
    finally:
        broker.close()
        await asyncio.sleep(0)  # lets callbacks that were due see the closed ports
