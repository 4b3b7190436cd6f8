"""What a node tells its broker of the networks: in which order each peer's addresses are tried, and from where. Pure.

Most services have the same list, that of one of which no network says anything; only those that differ get their own.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ...bus.messages import Peer, Way
from .definitions import endpoint
from .networks import DEFAULT, Networks
from .service_lists import Candidate, ordered


class Routes(msgspec.Struct, frozen=True):
    """All other nodes as the broker knows them, and for each subnetwork its network and this node's address there."""

    peers: dict[int, Peer]
    ways: dict[str, Way]


def routes_of(networks: Networks, own: int) -> Routes:
    """Return what node `own` tells its broker."""
    services = sorted(networks.services())
    peers = {}
    for number, node in networks.nodes.items():
        if number == own:
            continue
        subnets = [networks.subnet_of(address) for address in node.addresses]
        usual = tuple(
            Candidate(address.partition("/")[0], hops=networks.hops(own, subnet))
            for address, subnet in zip(node.addresses, subnets, strict=True)
        )
        lists = {}
        for service in services:
            said = [networks.priority(service, subnet.network) for subnet in subnets]
            if len(set(said)) > 1 or 0 in said:  # equal ones change no order
                lists[service] = _endpoints(
                    (Candidate(each.address, priority, each.hops) for each, priority in zip(usual, said, strict=True)),
                    own,
                    node.port,
                )
        peers[number] = Peer(node.name, _endpoints(usual, own, node.port), node.key, lists)
    return Routes(peers, ways_of(networks, own))


def _endpoints(candidates: Iterable[Candidate], own: int, port: int) -> tuple[str, ...]:
    return tuple(endpoint(each.address, port) for each in ordered(candidates, own))


def ways_of(networks: Networks, own: int) -> dict[str, Way]:
    """Return for each subnetwork by its prefix the network, and the address from which this node reaches it.

    That is the one in the same subnetwork, else in the same network; `default` is no network in which one leads to the
    others: there the system decides.
    """
    node = networks.nodes.get(own)
    near: dict[str, str] = {}
    inside: dict[str, str] = {DEFAULT: ""}
    for address in node.addresses if node else ():
        subnet, host = networks.subnet_of(address), address.partition("/")[0]
        near.setdefault(subnet.id, host)
        inside.setdefault(subnet.network, host)
    never = {
        network.name: tuple(sorted(service for service, priority in network.priorities.items() if priority == 0))
        for network in networks.networks()
    }
    return {
        subnet.prefix: Way(
            subnet.network, near.get(subnet.id) or inside.get(subnet.network, ""), never.get(subnet.network, ())
        )
        for subnet in networks.subnets()
    }
