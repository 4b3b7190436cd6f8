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

    `since` says since when each accused node has been accused.
    """

    def __init__(self, number: int, settings: Settings) -> None:
        self.number = number
        self.settings = settings
        self.alerts: dict[int, Alerted] = {}
        self.since: dict[int, float] = {}
        self.doubts = Doubts(settings)
        self.called: list[int] = []
        self.released: set[int] = set()
        self._observers: dict[str, dict[int, tuple[int, ...]]] = {}
        self._going: set[int] = set()
        self._own: tuple[Place, ...] = ()
        self._changed = False
        self._judged_at = 0.0

    def settle(self, networks: Networks) -> None:
        """These are the networks from now on."""
        self._observers = {name: observers(tuple(sorted(nodes))) for name, nodes in networks.items()}
        self._changed = True

    def observers_of(self, number: int) -> list[int]:
        """Return who observes a node on any network, sorted."""
        return sorted({each for nodes in self._observers.values() for each in nodes.get(number, ())})

    def networks_of(self, number: int) -> list[str]:
        """Return the networks that a node is on."""
        return [name for name, nodes in self._observers.items() if number in nodes]

    def hear(self, alert: Alert, number: int, now: float) -> None:
        """A member of the present view says whom it cannot reach: who it does not observe is passed over."""
        suspects = frozenset((each, net) for each, net in alert.suspects if number in self._seen_by(each, net))
        before = self.alerts.pop(number, None)
        if suspects:
            self.alerts[number] = Alerted(now, suspects, alert.unsure)
        told = (suspects, alert.unsure) if suspects else None
        self._changed |= told != (None if before is None else (before.suspects, before.unsure))

    def _seen_by(self, number: int, network: str) -> Iterable[int]:
        return self._observers.get(network, {}).get(number, ())

    def clear(self) -> None:
        """There is a new view: what was said before it is void."""
        self.alerts.clear()
        self.since, self._going = {}, set()
        self.doubts = Doubts(self.settings)
        self._changed = True

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
        self._changed, self._judged_at, self._own = False, now, own
        accusers, unsure = self._accusers(now, own)
        self._going = cut(self._observers, accusers, self.number, unsure)
        before = set(self.doubts.trials)
        self.doubts.renew(now, self._observers, accusers, self._going)
        over = self.doubts.judge(now, self._observers, accusers, self._going, peers)
        self._going |= self.doubts.condemned
        self.called = self.doubts.due(now)
        self.released = (before - self.doubts.trials.keys()) | over
        return self._going

    def _accusers(self, now: float, own: Iterable[Place]) -> tuple[dict[Place, Set[int]], set[int]]:
        members = max(map(len, self._observers.values()), default=0)
        oldest = now - (self.settings.patience + 0.5) * self.settings.alert_every(members)
        self.alerts = {n: alert for n, alert in self.alerts.items() if alert.at >= oldest}
        said = {n: alert.suspects for n, alert in self.alerts.items()}
        said[self.number] = frozenset(place for place in own if self.number in self._seen_by(*place))
        accusers: dict[Place, set[int]] = {}
        for accuser in sorted(said):
            for place in sorted(said[accuser]):
                if place[0] != self.number:  # the leader stays, see `cut.py`
                    accusers.setdefault(place, set()).add(accuser)
        accused = dict.fromkeys(number for number, _ in accusers)
        self.since = {n: self.since.get(n, now) for n in accused}
        return dict(accusers), {n for n, alert in self.alerts.items() if alert.unsure}

    @property
    def deadline(self) -> float | None:
        """When `judge` has something to do though nothing comes in."""
        times = [at for at in (self.doubts.deadline,) if at is not None]
        if self._changed or self.alerts:
            times.append(self._judged_at + self.settings.batch)
        return min(times, default=None)
