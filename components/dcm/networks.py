"""What the network objects say of an address: its subnetwork, its network, priorities and hops. Pure.

An address belongs to the subnetwork with the longest prefix that holds it. One that nobody defined is there implicitly
for an address that fits none: the address's own prefix, in the network `default` (SPEC 8.1).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

import msgspec

from ...bus.prefixes import Prefixes
from .definitions import NetworkDefinition, NetworkTable, NodeDefinition, SubnetDefinition
from .service_lists import Candidate, ordered

DEFAULT = "default"
CORE = ("dcm", "registry", "liveness", "groups", "resources", "bulk")
"""The services that send covey's own traffic; plugins add theirs."""

FAR = 2
"""Hops to another subnetwork of which nobody said more."""


class Place(NamedTuple):
    """One address of a node, as ADDRESS/PREFIX."""

    node: int
    address: str


class Choice(msgspec.Struct, frozen=True):
    """One address in a list, with why it stands where it does."""

    address: str
    node: int
    subnet: str
    network: str
    priority: int | None
    hops: int
    local: bool


class Rejection(msgspec.Struct, frozen=True):
    """An address that is not tried, and why."""

    address: str
    reason: str


class Networks:
    """The tables of one cluster, ready for questions. `nodes` are its nodes by number."""

    def __init__(self, table: NetworkTable, nodes: Mapping[int, NodeDefinition]) -> None:
        self.table = table
        self.nodes = nodes
        self._subnets = Prefixes({subnet.prefix: subnet for subnet in table.subnets.values()})
        self._known: dict[str, SubnetDefinition] = {}
        self._own: dict[int, tuple[SubnetDefinition, ...]] = {}

    def subnet_of(self, address: str) -> SubnetDefinition:
        """Return the subnetwork of an address, as ADDRESS/PREFIX."""
        found = self._known.get(address)
        if found is None:
            found = self._known[address] = self._subnets.find(address) or _implicit(address)
        return found

    def network_of(self, address: str) -> str:
        """Return the name of the network of an address, as ADDRESS/PREFIX."""
        return self.subnet_of(address).network

    def subnets(self) -> list[SubnetDefinition]:
        """Return all subnetworks, those that nobody defined among them, by name."""
        found = {each.id: each for each in self.table.subnets.values()}
        for node in self.nodes.values():
            for address in node.addresses:
                subnet = self.subnet_of(address)
                found.setdefault(subnet.id, subnet)
        return sorted(found.values(), key=lambda each: each.name)

    def networks(self) -> list[NetworkDefinition]:
        """Return all networks by name; `default` is always there."""
        found = {DEFAULT: NetworkDefinition(DEFAULT, DEFAULT), **self.table.networks}
        return [found[name] for name in sorted(found)]

    def in_subnet(self, subnet_id: str) -> list[Place]:
        """Return the addresses in a subnetwork."""
        return [place for place in self.places() if self.subnet_of(place.address).id == subnet_id]

    def places(self) -> list[Place]:
        """Return every address of every node, in order."""
        return [Place(number, address) for number, node in sorted(self.nodes.items()) for address in node.addresses]

    def services(self) -> set[str]:
        """Return the services of which a priority is set somewhere."""
        return {service for network in self.table.networks.values() for service in network.priorities}

    def priority(self, service: str, network: str) -> int | None:
        """Return the priority of a network for a service: None when it is not set, 0: never."""
        found = self.table.networks.get(network)
        return found.priorities.get(service) if found else None

    def hops(self, node: int, subnet: SubnetDefinition) -> int:
        """Return how far a subnetwork is from a node's nearest adapter: 1 in the same, else as it was said, else 2."""
        own = self._own_subnets(node)
        if any(each.id == subnet.id for each in own):
            return 1
        if not subnet.hops and not any(each.hops for each in own):
            return FAR
        said = [hops for each in own for hops in (each.hops.get(subnet.prefix), subnet.hops.get(each.prefix)) if hops]
        return min(said, default=FAR)

    def choose(self, service: str, node: int, places: Iterable[Place]) -> tuple[list[Choice], list[Rejection]]:
        """Return in which order a node tries these addresses for a service (SPEC 8.2, 8.3), and which it never does."""
        choices: dict[str, Choice] = {}
        rejected = []
        for place in places:
            subnet = self.subnet_of(place.address)
            host = place.address.partition("/")[0]
            priority = self.priority(service, subnet.network)
            if priority == 0:
                rejected.append(Rejection(host, f"the network {subnet.network} has priority 0 for {service}: never"))
                continue
            local = place.node == node
            hops = 0 if local else self.hops(node, subnet)
            choices[host] = Choice(host, place.node, subnet.name, subnet.network, priority, hops, local)
        if len(choices) < 2:
            return list(choices.values()), rejected
        candidates = [Candidate(each.address, each.priority, each.hops, each.local) for each in choices.values()]
        return [choices[each.address] for each in ordered(candidates, node)], rejected

    def _own_subnets(self, node: int) -> tuple[SubnetDefinition, ...]:
        found = self._own.get(node)
        if found is None:
            found = self._own[node] = tuple(self.subnet_of(each) for each in self.addresses(node))
        return found

    def addresses(self, node: int) -> tuple[str, ...]:
        """Return the addresses of a node, as ADDRESS/PREFIX; none of one that nobody knows."""
        return self.nodes[node].addresses if node in self.nodes else ()


@lru_cache(maxsize=65536)
def _implicit(address: str) -> SubnetDefinition:
    prefix = str(ipaddress.ip_interface(address).network)
    return SubnetDefinition(prefix, prefix, prefix, DEFAULT)
