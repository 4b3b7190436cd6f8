"""In which order the addresses of a service are tried: SPEC 8.2 and 8.3 as one pure function.

Knows no network, no subnetwork and no registry: what they say of an address (its priority, its hops) comes with it;
`networks.py` finds that out. The seed's example holds: node 5 tries servers 1 (this node), 3, 7, 9 (one hop), 12 and 2
(two hops) in the order 1, 9, 3, 7, 2, 12.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec


class Candidate(msgspec.Struct, frozen=True):
    """An address where a service can be reached. `priority` is that of its network for the service (None: not set, 0:
    never), `hops` counts from the node that asks, `local`: it is that node's own."""

    address: str
    priority: int | None = None
    hops: int = 1
    local: bool = False


def ordered(candidates: Iterable[Candidate], node: int) -> list[Candidate]:
    """Return where to try, best first, for the node of this number; those with priority 0 are not in it.

    The highest priority first, networks without one last; in these this node's own addresses, then the fewest hops;
    n equally far ones by address, lowest first, beginning with number `node mod n`, so that nodes spread evenly.
    """
    sets: dict[tuple[int, int], list[Candidate]] = {}
    for each in candidates:
        if each.priority != 0:
            # a set priority is 1 at least, so an unset one ranks below all of them
            rank = (-(each.priority or 0), -1 if each.local else each.hops)
            sets.setdefault(rank, []).append(each)
    found: list[Candidate] = []
    for rank in sorted(sets):
        alike = sets[rank]
        if len(alike) > 1:
            alike = by_address(alike)
            first = node % len(alike)
            alike = alike[first:] + alike[:first]
        found += alike
    return found


def by_address(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Sort as IP addresses, v4 before v6, when all are some, else as text."""
    found = list(candidates)
    keys = [_number(each.address) for each in found]
    if all(key is not None for key in keys):
        return sorted(found, key=lambda each: _number(each.address) or (0, 0))
    return sorted(found, key=lambda each: each.address)


@lru_cache(maxsize=65536)
def _number(address: str) -> tuple[int, int] | None:
    try:
        found: Any = ipaddress.ip_address(address)
    except ValueError:
        return None
    return found.version, int(found)
