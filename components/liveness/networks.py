"""Who probes whom on which network: the networks of a view, and the rings of observers on each. Pure.

A *network* is the adapters of one prefix, and is named by it, where every member has an adapter of that prefix (a lab
has two). Adapters of other prefixes, as in racks with subnets of their own, are reached by routing: together they are
the network `default`, on which a member takes part with the first of them. So no member is without observers, and a
whole rack that goes dark is seen from outside it. Objects for networks (SPEC 8.1) will replace this rule, not what is
built on it.

On each network a node has up to ten *observers*: its predecessors on ten rings, each in another order that all nodes
compute alike (Suresh and others, Rapid, USENIX ATC 2018, section 4.1). Up to eleven nodes everybody observes everybody.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

RINGS = 10
"""Observers of a node on one network: 20 messages a second each way at an interval of a second, for any number of
nodes. Ten random orders leave no part of a cluster without many eyes from outside it."""

FULL_MESH = RINGS + 1
"""Up to so many nodes everybody observes everybody."""

DEFAULT = "default"

Networks = dict[str, dict[int, str]]
"""Each network's nodes, each with its address there."""


def networks_of(members: Iterable[int], adapters: Mapping[int, Sequence[str]]) -> Networks:
    """Return the networks of these members. `adapters` holds addresses with prefix lengths, as ADDRESS/PREFIX.

    With no adapters known at all there is one network without a name, and nobody has an address on it. A member of
    whom alone none are known is on no network.
    """
    numbers = sorted(members)
    if not adapters:
        return {"": dict.fromkeys(numbers, "")}
    known = {number: [_parse(each) for each in adapters[number]] for number in numbers if adapters.get(number)}
    if not known:
        return {}
    shared = set.intersection(*({prefix for _, prefix in found} for found in known.values()))
    networks: Networks = {}
    for number, found in known.items():
        for address, prefix in found:
            networks.setdefault(prefix if prefix in shared else DEFAULT, {}).setdefault(number, address)
    return dict(sorted(networks.items()))


@lru_cache(maxsize=65536)
def _parse(adapter: str) -> tuple[str, str]:
    found = ipaddress.ip_interface(adapter)
    return str(found.ip), str(found.network)


@lru_cache(maxsize=16)
def observers(nodes: tuple[int, ...]) -> dict[int, tuple[int, ...]]:
    """Return the observers of each of these nodes of one network, each once, sorted. It is shared: read only."""
    if len(nodes) <= FULL_MESH:
        return {node: tuple(other for other in nodes if other != node) for node in nodes}
    found: dict[int, set[int]] = {node: set() for node in nodes}
    for ring in range(RINGS):
        order = sorted(nodes, key=lambda node: hashlib.blake2b(b"%d/%d" % (ring, node), digest_size=8).digest())
        for before, node in zip([order[-1], *order], order, strict=False):
            found[node].add(before)
    return {node: tuple(sorted(seen)) for node, seen in found.items()}


@lru_cache(maxsize=16)
def subjects(nodes: tuple[int, ...]) -> dict[int, tuple[int, ...]]:
    """Return whom each of these nodes of one network observes, sorted. It is shared: read only."""
    found: dict[int, list[int]] = {node: [] for node in nodes}
    for node, seen in observers(nodes).items():
        for observer in seen:
            found[observer].append(node)
    return {node: tuple(sorted(whom)) for node, whom in found.items()}


def high(observing: int) -> int:
    """Return how many of so many observers must agree that a node is down: nine of ten."""
    return -(-9 * observing // 10)


def low(observing: int) -> int:
    """Return from how many accusers of so many observers on a node is in doubt: four of ten."""
    return max(1, 4 * observing // 10)
