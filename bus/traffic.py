"""What passed between this node and others, by network and service (SPEC 8.4): counted where it passes a socket.

A message belongs to the service that its topic names, whichever way it goes; what brokers say to one another
(greetings, confirmations, heartbeats) is the service `bus`. Sent again is counted again: it was on the wire.

It is also where the traffic of a lab's node is cut (`covey lab cut`): what may not pass is thrown away at the socket,
and nobody is told, as by a cable that was pulled.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from typing import Any

from .messages import Way
from .prefixes import Prefixes

OWN = "bus"
UNKNOWN = ""
"""The network of an address that belongs to none: that of a stranger, or before this node is in a cluster."""

MOST_HOSTS = 20_000
"""Addresses whose network is remembered."""

MOST_SERVICES = 1000
"""Networks and services told apart; what is named beyond is counted as `other`. Others choose the names."""


class Traffic:
    """The counters, and which network and own address belong to an address."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], list[int]] = {}  # messages and bytes out, then in
        self._ways: Prefixes[Way] = Prefixes({})
        self._networks: dict[str, str] = {}
        self._cut: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())

    def renew(self, ways: Mapping[str, Way]) -> None:
        """Take the networks: what is counted from now on counts for them."""
        self._ways = Prefixes(ways)
        self._networks.clear()

    def source_for(self, host: str) -> str:
        """Return this node's own address for a connection to that host; "" when the networks say nothing of it."""
        way = self._ways.find(host)
        return way.source if way else ""

    def cut(self, out: Collection[str], into: Collection[str]) -> None:
        """Let nothing pass to these hosts, and nothing from those."""
        self._cut = (frozenset(out), frozenset(into))

    def lets_out(self, host: str) -> bool:
        """Whether what is sent to a host shall leave."""
        return host not in self._cut[0]

    def lets_in(self, host: str) -> bool:
        """Whether what came from a host shall be heard."""
        return host not in self._cut[1]

    def sent(self, host: str, service: str, size: int) -> None:
        """Count a message to a host."""
        counts = self._of(host, service)
        counts[0] += 1
        counts[1] += size

    def received(self, host: str, service: str, size: int) -> None:
        """Count a message from a host."""
        counts = self._of(host, service)
        counts[2] += 1
        counts[3] += size

    def state(self) -> list[dict[str, Any]]:
        """Return what was counted, by network and service."""
        names = ("messages_out", "bytes_out", "messages_in", "bytes_in")
        return [
            {"network": network, "service": service, **dict(zip(names, counts, strict=True))}
            for (network, service), counts in sorted(self._counts.items())
        ]

    def _of(self, host: str, service: str) -> list[int]:
        network = self._networks.get(host)
        if network is None:
            if len(self._networks) >= MOST_HOSTS:
                self._networks.clear()
            network = self._networks[host] = self._network_of(host)
        key = (network, service or OWN)
        counts = self._counts.get(key)
        if counts is None:
            if len(self._counts) >= MOST_SERVICES:
                key = (network, "other")
            counts = self._counts.setdefault(key, [0, 0, 0, 0])
        return counts

    def _network_of(self, host: str) -> str:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return UNKNOWN
        way = self._ways.find(host)
        return way.network if way else UNKNOWN


def service_of(topic: str) -> str:
    """Return the service that a topic belongs to: `registry` of `registry.put`; "" of what brokers say themselves."""
    service, dot, _ = topic.partition(".")
    return service if dot else ""


def host_of(address: str) -> str:
    """Return the host of `host:port`."""
    return address.rpartition(":")[0].strip("[]")
