"""Which paths one node sees, and what follows when the words of both ends are put together (SPEC 10.1). Pure.

What A sends to B on a network arrives when B hears it; B's word counts for that, and where B says nothing, A knows it
from B's answers. A path is `ok` when both ways work, `one-way` when one does, `down` when none does, and `unknown`
when neither end says anything. Only pairs of which one observes the other are known at all: in a small cluster that is
everybody, in a large one ten for each node and network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import msgspec

from .networks import Networks
from .peers import Peers, Place
from .settings import Settings

PathState = Literal["ok", "one-way", "down", "unknown"]


class Sight(msgspec.Struct, frozen=True):
    """What one node sees of another one on a network. `answers`: it answers probes (None: it gets none from here).

    `heard`: something of it arrives. `rtt` is seconds from the last probe to its answer. `address` is its adapter.
    """

    number: int
    network: str
    address: str
    answers: bool | None
    heard: bool
    rtt: float | None = None


class Heard:
    """When a node last heard each other one, on each network."""

    def __init__(self, settings: Settings) -> None:
        self._fresh = (settings.patience + 0.5) * settings.interval
        self._at: dict[Place, float] = {}

    def note(self, number: int, network: str, now: float) -> None:
        """Something came from a member."""
        self._at[number, network] = now

    def keep(self, networks: Networks) -> None:
        """Forget who is not on a network any more."""
        self._at = {(n, net): at for (n, net), at in self._at.items() if n in networks.get(net, {})}

    def report(
        self, peers: Peers, nodes_of: Callable[[str], Mapping[int, str] | None], now: float
    ) -> tuple[Sight, ...]:
        """Return what this node sees, by network and number."""
        observed = {(peer.number, peer.network): peer for peer in peers if not peer.passing}
        found = []
        for number, network in sorted({*self._at, *observed}, key=lambda place: (place[1], place[0])):
            address = (nodes_of(network) or {}).get(number)
            if address is None:
                continue
            peer = observed.get((number, network))
            heard = now - self._at.get((number, network), float("-inf")) <= self._fresh
            answers, rtt = None, None
            if peer is not None:
                answers = peer.answered is not None and now - peer.answered <= self._fresh
                rtt = peer.rtt if answers else None
            found.append(Sight(number, network, address, answers, heard, rtt))
        return tuple(found)


def paths(reports: Mapping[int, Iterable[Sight]], networks: Networks) -> list[dict[str, Any]]:
    """Join the reports of nodes, by number, into rows as INTERFACES has them, one for each pair and direction.

    `networks` has each node's adapter on each network. `arrives` tells whether what is sent from here to there gets
    there.
    """
    sights = {(node, each.number, each.network): each for node, told in reports.items() for each in told}
    pairs = {(a, b, net) for a, b, net in sights} | {(b, a, net) for a, b, net in sights}
    rows = []
    for a, b, network in sorted(pairs, key=lambda pair: (pair[2], pair[0], pair[1])):
        places = networks.get(network, {})
        if a not in places or b not in places:
            continue
        there = _arrives(reports, sights.get((a, b, network)), sights.get((b, a, network)), b)
        back = _arrives(reports, sights.get((b, a, network)), sights.get((a, b, network)), a)
        seen = sights.get((a, b, network))
        rtt = seen.rtt if seen is not None and seen.rtt is not None else None
        row = {
            "network": network,
            "from": places[a],
            "to": places[b],
            "from_node": a,
            "to_node": b,
            "state": state_of(there, back),
            "arrives": there,
            "rtt_ms": None if rtt is None else round(rtt * 1000, 3),
        }
        rows.append(row)
    return rows


def _arrives(
    reports: Mapping[int, Iterable[Sight]], seen_here: Sight | None, seen_there: Sight | None, there: int
) -> bool | None:
    """Tell whether what is sent from here gets there, by what is seen from both ends; None: nobody says."""
    if there in reports:
        return seen_there is not None and seen_there.heard
    return seen_here.answers if seen_here is not None else None


def state_of(there: bool | None, back: bool | None) -> PathState:
    """Return the state of a path by whether each of its ways works; None: not known."""
    if there and back:
        return "ok"
    if there or back:
        return "one-way" if None not in (there, back) else "unknown"
    return "unknown" if there is None and back is None else "down"
