"""What one node thinks of each of the others, from what it heard and when.

Knows no message and no view: the machine tells it who the peers are and what was heard, and asks it whom to
probe.

    alive    --- silent for `patience` intervals, or its link closed --->  probed
    probed   --- no sign during the grace ------------------------------>  suspect
    probed, suspect  --- any sign of the same boot id ------------------>  alive

A sign of another boot id under the same number is no sign of life. After a stretch in which this node itself
did not run, everybody starts anew as alive: a slow node does not accuse others (SPEC 10.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from .settings import Settings

Opinion = Literal["alive", "probed", "suspect"]
OPINIONS: dict[tuple[Opinion, str], Opinion] = {
    ("alive", "sign"): "alive",
    ("alive", "silence"): "probed",
    ("probed", "sign"): "alive",
    ("probed", "silence"): "probed",
    ("probed", "grace over"): "suspect",
    ("suspect", "sign"): "alive",
    ("suspect", "silence"): "suspect",
}


class Peer:
    """One other node in one of its lives."""

    def __init__(self, number: int, boot_id: str, now: float) -> None:
        self.number = number
        self.boot_id = boot_id
        self.heard = now
        self.opinion: Opinion = "alive"
        self.since = now
        self.probes = 0

    def turn(self, event: str, now: float) -> None:
        """Go on by the table; an impossible pair is a KeyError, which is a bug."""
        new = OPINIONS[self.opinion, event]
        if new != self.opinion:
            self.opinion, self.since, self.probes = new, now, 0


class Peers:
    """All peers of a node.

    Invariants: 1. a suspect was probed for the whole grace first; 2. nobody alive is silent for longer than
    the patience once `tick` has run.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.silence = settings.patience * settings.interval
        self._peers: dict[int, Peer] = {}

    def follow(self, members: Iterable[tuple[int, str]], now: float) -> None:
        """These are the peers from now on, `(number, boot id)`; opinions on those who stay stay."""
        wanted = dict(members)
        self._peers = {n: p for n, p in self._peers.items() if wanted.get(n) == p.boot_id}
        for number, boot_id in wanted.items():
            if number not in self._peers:
                self._peers[number] = Peer(number, boot_id, now)

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._peers.values())

    def sign(self, number: int, boot_id: str, now: float) -> None:
        """Something came from that node in that life."""
        peer = self._peers.get(number)
        if peer is not None and peer.boot_id == boot_id:
            peer.heard = now
            peer.turn("sign", now)

    def link_closed(self, number: int, now: float) -> None:
        """The bus lost that node: look at once."""
        if number in self._peers:
            self._peers[number].turn("silence", now)

    def excuse(self, now: float) -> None:
        """This node did not run for a while: whatever it did not hear meanwhile proves nothing."""
        for peer in self._peers.values():
            peer.heard = now
            peer.turn("sign", now)

    def tick(self, now: float) -> list[int]:
        """Let time judge; return the numbers to probe now."""
        probe = []
        for peer in self._peers.values():
            if peer.opinion == "alive" and now >= peer.heard + self.silence:
                peer.turn("silence", now)
            if peer.opinion == "probed":
                if now >= peer.since + self.settings.grace:
                    peer.turn("grace over", now)
                elif peer.probes < self.settings.probes and now >= self._next_probe(peer):
                    peer.probes += 1
                    probe.append(peer.number)
        return probe

    def _next_probe(self, peer: Peer) -> float:
        return peer.since + peer.probes * self.settings.probe_gap

    @property
    def deadline(self) -> float | None:
        """When `tick` has something to do though nothing is heard."""
        times = []
        for peer in self._peers.values():
            if peer.opinion == "alive":
                times.append(peer.heard + self.silence)
            elif peer.opinion == "probed":
                times.append(peer.since + self.settings.grace)
                if peer.probes < self.settings.probes:
                    times.append(self._next_probe(peer))
        return min(times, default=None)

    @property
    def suspects(self) -> tuple[int, ...]:
        """Whom this node accuses, sorted."""
        return tuple(sorted([n for n, peer in self._peers.items() if peer.opinion == "suspect"]))

    def troubled_since(self, number: int) -> float | None:
        """Since when that peer is not simply alive; None: it is, or is no peer."""
        peer = self._peers.get(number)
        return None if peer is None or peer.opinion == "alive" else peer.since
