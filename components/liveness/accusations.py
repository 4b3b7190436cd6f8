"""What the leader hears of who cannot be reached, and whom it would remove for it. Pure.

Knows the rings of the view and the word of each observer; puts together `cut.py` (who is accused well enough) and
`doubts.py` (who is accused by some). Only the observers of a node count, each once for each network.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

from .cut import cut
from .doubts import Doubts
from .messages import Alert
from .networks import Networks, observers
from .peers import Peers, Place
from .settings import Settings

MANY = 50
"""With more accusations than that they are looked at every `batch` only, not at each that comes."""


class Alerted:
    """The last word of one observer."""

    def __init__(self, at: float, suspects: frozenset[Place], unsure: bool) -> None:
        self.at = at
        self.suspects = suspects
        self.unsure = unsure


class Accusations:
    """Everybody's last word, and what follows from it. `called` and `released`: whose trials began and ended just now.

    `since` says since when each node has been accused that is accused on every network it is on: who is not goes in no
    case. So with one of two networks dead, where all are accused, nobody needs to be judged.

    Invariant: `_accusers` is what `alerts` and the own suspects say, place by place.
    """

    def __init__(self, number: int, settings: Settings) -> None:
        self.number = number
        self.settings = settings
        self.alerts: dict[int, Alerted] = {}  # the oldest first
        self.since: dict[int, float] = {}
        self.doubts = Doubts(settings)
        self.called: list[int] = []
        self.released: set[int] = set()
        self._observers: dict[str, dict[int, tuple[int, ...]]] = {}
        self._accusers: dict[Place, set[int]] = {}
        self._places: dict[int, int] = {}  # on how many networks somebody accuses a node
        self._accused: set[int] = set()  # those accused on every network they are on
        self._unsure: set[int] = set()  # those whose last word was an unsure one
        self._going: set[int] = set()
        self._own: tuple[Place, ...] = ()
        self._changed = False
        self._judged_at = 0.0

    def settle(self, networks: Networks) -> None:
        """These are the networks from now on; what was said of others is void."""
        said = {number: (alert.suspects, alert.unsure, alert.at) for number, alert in self.alerts.items()}
        own, self._own = self._own, ()
        self._void()
        self._observers = {name: observers(tuple(sorted(nodes))) for name, nodes in networks.items()}
        for number, (suspects, unsure, at) in said.items():
            self._take(number, suspects, unsure, at)
        self._look(own)
        self._changed = True

    def observers_of(self, number: int) -> list[int]:
        """Return who observes a node on any network, sorted."""
        return sorted({each for nodes in self._observers.values() for each in nodes.get(number, ())})

    def networks_of(self, number: int) -> list[str]:
        """Return the networks that a node is on."""
        return [name for name, nodes in self._observers.items() if number in nodes]

    def hear(self, alert: Alert, number: int, now: float) -> None:
        """A member of the present view says whom it cannot reach: who it does not observe is passed over."""
        if self._take(number, frozenset((each, net) for each, net in alert.suspects), alert.unsure, now):
            self._changed = True

    def _take(self, number: int, places: frozenset[Place], unsure: bool, at: float) -> bool:
        suspects = self._observed(number, places)
        before = self.alerts.pop(number, None)
        if suspects:
            self.alerts[number] = Alerted(at, suspects, unsure)
        (self._unsure.add if suspects and unsure else self._unsure.discard)(number)
        self._count(number, before.suspects if before else frozenset(), suspects)
        told = (suspects, unsure) if suspects else None
        return told != (None if before is None else (before.suspects, before.unsure))

    def _look(self, own: tuple[Place, ...]) -> None:
        """Take what this node itself finds, as it is now."""
        if own != self._own:
            before, self._own = self._own, own
            self._count(self.number, self._observed(self.number, before), self._observed(self.number, own))

    def _observed(self, number: int, places: Iterable[Place]) -> frozenset[Place]:
        """Return those of them that a node observes; the leader, which stays, is none, see `cut.py`."""
        return frozenset(
            place for place in places if place[0] != self.number and number in self._seen_by(place[0], place[1])
        )

    def _seen_by(self, number: int, network: str) -> Iterable[int]:
        return self._observers.get(network, {}).get(number, ())

    def _count(self, accuser: int, before: Set[Place], suspects: Set[Place]) -> None:
        """One observer says this instead of that."""
        for place in before - suspects:
            self._accusers[place].remove(accuser)
            if not self._accusers[place]:
                del self._accusers[place]
                self._places[place[0]] -= 1
                self._accused.discard(place[0])
        for place in suspects - before:
            accusers = self._accusers.setdefault(place, set())
            if not accusers:
                self._places[place[0]] = self._places.get(place[0], 0) + 1
                if self._places[place[0]] == len(self.networks_of(place[0])):
                    self._accused.add(place[0])
            accusers.add(accuser)

    def clear(self) -> None:
        """There is a new view: what was said before it is void."""
        self._void()
        self.since, self._going, self._own = {}, set(), ()
        self.doubts = Doubts(self.settings)
        self._changed = True

    def _void(self) -> None:
        for each in (self.alerts, self._accusers, self._places, self._accused, self._unsure):
            each.clear()

    def judge(self, now: float, peers: Peers) -> set[int]:
        """Return whom to remove as things stand."""
        self.called, self.released = [], set()
        own, due = peers.suspects, self.doubts.deadline
        idle = not self.alerts and not own and not self.since
        if idle and not self._changed:
            return self._going
        ripe = now >= self._judged_at + self.settings.batch or (due is not None and now >= due)
        if not ripe and (len(self.since) > MANY or not (self._changed or own != self._own)):
            return self._going
        self._changed, self._judged_at = False, now
        self._look(own)
        self._forget(now)
        self.since = {n: self.since.get(n, now) for n in sorted(self._accused)}
        accusers = {(n, net): self._accusers[n, net] for n in self.since for net in self.networks_of(n)}
        self._going = cut(self._observers, accusers, self.number, self._unsure)
        before = set(self.doubts.trials)
        self.doubts.renew(now, self._observers, accusers, self._going)
        over = self.doubts.judge(now, self._observers, accusers, self._going, peers)
        self._going |= self.doubts.condemned
        self.called = self.doubts.due(now)
        self.released = (before - self.doubts.trials.keys()) | over
        return self._going

    def _forget(self, now: float) -> None:
        """What is not said again is not said any more."""
        members = max(map(len, self._observers.values()), default=0)
        oldest = now - (self.settings.patience + 0.5) * self.settings.alert_every(members)
        while self.alerts and self.alerts[first := next(iter(self.alerts))].at < oldest:
            self._take(first, frozenset(), False, now)

    @property
    def deadline(self) -> float | None:
        """When `judge` has something to do though nothing comes in."""
        times = [at for at in (self.doubts.deadline,) if at is not None]
        if self._changed or self.alerts:
            times.append(self._judged_at + self.settings.batch)
        return min(times, default=None)
