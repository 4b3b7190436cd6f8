"""Members about whom their observers do not agree: how long that may last, and how it ends. Pure.

    in doubt  --- for `doubt` seconds --->  on trial  --- after `trial` seconds --->  condemned, or cleared for a while

On trial all its observers look at once and say what they find, and so does the leader. It is condemned when the leader
finds it dead on every network and a majority of those who look agree. Without this one member that loses a part of its
messages would hold up, for as long as it does, what a view needs that others are in no doubt about; and whoever is
seen by the leader itself stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from .cut import Observers
from .networks import low
from .peers import Peers, Place
from .settings import Settings


class Doubts:
    """Who is in doubt since when, who is on trial until when, and who was condemned."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.since: dict[int, float] = {}
        self.trials: dict[int, float] = {}
        self.condemned: set[int] = set()

    def renew(self, now: float, observers: Observers, accusers: Mapping[Place, Set[int]], going: Set[int]) -> None:
        """Take the accusations as they are now; `going` are those who will be removed anyhow."""
        doubted = set()
        for number in {number for number, _ in accusers} - going:
            counts = [
                len(accusers.get((number, net), ())) >= low(len(nodes[number]))
                for net, nodes in observers.items()
                if number in nodes
            ]
            if counts and all(counts):
                doubted.add(number)
        self.since = {n: self.since.get(n, now) for n in sorted(doubted)}
        self.trials = {n: until for n, until in self.trials.items() if n in doubted}
        self.condemned &= doubted

    def due(self, now: float) -> list[int]:
        """Return who goes on trial now."""
        called = [
            n
            for n, at in self.since.items()
            if n not in {*self.trials, *self.condemned} and now >= at + self.settings.doubt
        ]
        self.trials.update(dict.fromkeys(called, now + self.settings.trial))
        return called

    def judge(
        self,
        now: float,
        observers: Observers,
        accusers: Mapping[Place, Set[int]],
        going: Set[int],
        peers: Peers,
    ) -> set[int]:
        """End the trials that are over; return whom they were about."""
        over = {n for n, until in self.trials.items() if now >= until}
        guilty = {n for n in over if peers.dead(n)}
        while unfounded := {n for n in guilty if not self._agreed(n, observers, accusers, going | guilty)}:
            guilty -= unfounded  # who stays has a say about the others
        self.condemned |= guilty
        for number in over:
            del self.trials[number]
        self.since.update(dict.fromkeys(over - guilty, now))
        return over

    @staticmethod
    def _agreed(number: int, observers: Observers, accusers: Mapping[Place, Set[int]], going: Set[int]) -> bool:
        """Tell whether on each network most of its observers who stay accuse a member."""
        for network, nodes in observers.items():
            if number in nodes:
                staying = set(nodes[number]) - going
                if 2 * len(accusers.get((number, network), set()) & staying) <= len(staying):
                    return False
        return True

    @property
    def deadline(self) -> float | None:
        """When something is due."""
        times = [at + self.settings.doubt for n, at in self.since.items() if n not in {*self.trials, *self.condemned}]
        return min([*times, *self.trials.values()], default=None)
