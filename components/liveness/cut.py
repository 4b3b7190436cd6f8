"""Whom to remove: the largest cut that the accusations support.

Knows numbers only. On one network a node is down when nine of ten of its observers say so: those who go at the same
time have no say, else a cluster could never lose most of its nodes at once, and those who are unsure of themselves
abstain, as long as enough others speak (H and L of the cut detection of Rapid, USENIX ATC 2018, section 4.2). A node
goes when it is down on every network: a dead adapter is no dead node. So what is looked for is a *set*, each of whose
members is accused well enough by those who stay. It is found from above: everybody accused, less, one by one, whoever
is accused least by those who would stay. The leader always stays: if it is the one who is cut off, the registry gives
it no majority for what it commits, and its word is void.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from .networks import high, low
from .peers import Place

Observers = Mapping[str, Mapping[int, tuple[int, ...]]]
"""The observers of each node, on each network."""


def cut(
    observers: Observers, accusers: Mapping[Place, Set[int]], leader: int, unsure: Set[int] = frozenset()
) -> set[int]:
    """Return the nodes to remove; `accusers` maps a node on a network to those who accuse it there.

    `unsure` are accusers whose word counts for nothing either way. `leader` is never removed.
    """
    places: dict[int, list[Place]] = {}
    for number, network in accusers:
        places.setdefault(number, []).append((number, network))
    networks = {number: sum(number in nodes for nodes in observers.values()) for number in places}
    going = {n for n, found in places.items() if n != leader and len(found) == networks[n]}
    while hopeless := {n for n in going if not all(_can_go(observers, accusers, p, going, unsure) for p in places[n])}:
        going -= hopeless

    def support(number: int) -> float:
        """The least, over its networks, of how far the votes against it go beyond what is needed."""
        return min(_margin(observers[net][number], accusers[number, net], going, unsure) for _, net in places[number])

    margins = {n: support(n) for n in going}
    while going:
        weakest = min(going, key=lambda n: (margins[n], -n))
        if margins[weakest] >= 0:
            return going
        going.remove(weakest)
        for number in going.intersection(_observed_by(weakest, observers, going)):
            margins[number] = support(number)
    return going


def _can_go(
    observers: Observers, accusers: Mapping[Place, Set[int]], place: Place, going: Set[int], unsure: Set[int]
) -> bool:
    """Tell whether a node would be accused well enough if all who go and do not accuse it went. Most do not go: this
    says so at once."""
    number, network = place
    accusing = accusers[place]
    voting = [n for n in observers[network][number] if n not in unsure and (n in accusing or n not in going)]
    return sum(n in accusing for n in voting) >= high(len(voting))


def _margin(observing: tuple[int, ...], accusing: Set[int], going: Set[int], unsure: Set[int]) -> float:
    staying = [n for n in observing if n not in going]
    voting = [n for n in staying if n not in unsure]
    if not voting:
        return -1.0
    needed = max(high(len(voting)), min(low(len(observing)), len(staying)))
    return (sum(n in accusing for n in voting) - needed) / len(voting)


def _observed_by(observer: int, observers: Observers, going: Set[int]) -> Iterable[int]:
    return [n for nodes in observers.values() for n in going if observer in nodes.get(n, ())]
