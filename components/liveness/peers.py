"""What one node thinks of each of the others that it observes, network by network, from what it heard and when.

Knows no message and no view: the machine tells it whom to observe and what was heard, and asks it whom to probe.

    alive    --- silent for `patience` intervals, four of the last ten probes unanswered, or a closed link --->  probed
    probed   --- no sign during the grace ------------------------------>  suspect
    probed, suspect  --- any sign of the same boot id ------------------>  alive

Whatever comes from that boot id by that network is a sign of life, an answer or its own probe: a line that is broken
one way accuses nobody, but shows in `paths`. A sign of another boot id under the same number is none. After a stretch
in which this node itself did not run, everybody starts anew as alive: a slow node does not accuse others (SPEC 10.3).
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

WINDOW = 0x3FF
"""The last ten probes, a bit each, set for one that was not answered in time."""

Place = tuple[int, str]
"""A node and a network."""


class Peer:
    """One other node in one of its lives, as it is seen on one network."""

    def __init__(self, number: int, network: str, boot_id: str, now: float) -> None:
        self.number = number
        self.network = network
        self.boot_id = boot_id
        self.heard = now
        self.answered: float | None = None
        self.rtt: float | None = None
        self.opinion: Opinion = "alive"
        self.since = now
        self.probes = 0
        self.lost = 0  # of the last ten probes, see WINDOW
        self.awaited = 0  # the beat that is not answered yet; 0: none
        self.passing = False  # looked at just now, and not observed

    def turn(self, event: str, now: float) -> None:
        """Go on by the table; an impossible pair is a KeyError, which is a bug."""
        new = OPINIONS[self.opinion, event]
        if new != self.opinion:
            self.opinion, self.since, self.probes = new, now, 0

    def sent(self, beat: int) -> bool:
        """A probe is sent. Tell whether the one before went unanswered."""
        missed, self.awaited = self.awaited != 0, beat
        if missed:
            self.lost = (self.lost << 1 | 1) & WINDOW
        return missed


class Peers:
    """All that a node observes.

    Invariants: 1. a suspect was probed for the whole grace first; 2. nobody alive is silent for longer than
    the patience once `tick` has run.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.silence = settings.patience * settings.interval
        self._peers: dict[Place, Peer] = {}

    def follow(self, observed: Iterable[tuple[int, str, str]], now: float) -> None:
        """Observe these from now on, `(number, network, boot id)`; opinions on those who stay stay."""
        wanted = {(number, network): boot_id for number, network, boot_id in observed}
        self._peers = {p: peer for p, peer in self._peers.items() if wanted.get(p) == peer.boot_id}
        for (number, network), boot_id in wanted.items():
            if (number, network) not in self._peers:
                self._peers[number, network] = Peer(number, network, boot_id, now)
            self._peers[number, network].passing = False

    def look(self, number: int, boot_id: str, networks: Iterable[str], now: float) -> None:
        """Find out at once whether a node lives, on these networks. One that is not observed is, until it is clear."""
        for network in networks:
            place = (number, network)
            if place not in self._peers:
                self._peers[place] = Peer(number, network, boot_id, now)
                self._peers[place].passing = True
            self._peers[place].turn("silence", now)

    def look_no_more(self, number: int) -> None:
        """Forget what was found out about a node that is not observed."""
        for place in [p for p, peer in self._peers.items() if peer.number == number and peer.passing]:
            del self._peers[place]

    def observes(self, number: int) -> bool:
        """Tell whether that node is looked at on some network."""
        return any(peer.number == number for peer in self._peers.values())

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._peers.values())

    def __len__(self) -> int:
        return len(self._peers)

    def sign(self, number: int, network: str, boot_id: str, now: float) -> Peer | None:
        """Something came from that node in that life by that network; return who is seen there."""
        peer = self._peers.get((number, network))
        if peer is None or peer.boot_id != boot_id:
            return None
        peer.heard = now
        peer.turn("sign", now)
        return peer

    def unproved(self, number: int) -> bool:
        """Tell whether a node never answered a probe that went by a network: perhaps none can get through to it."""
        found = [peer for peer in self._peers.values() if peer.number == number]
        return bool(found) and all(peer.network and peer.answered is None for peer in found)

    def alive_elsewhere(self, number: int, boot_id: str, now: float) -> None:
        """A node to which no probe ever got through has answered over the bus."""
        if self.unproved(number):
            for peer in [peer for peer in self._peers.values() if peer.number == number]:
                self.sign(number, peer.network, boot_id, now)

    def answer(self, number: int, network: str, boot_id: str, beat: int, sent_at: float | None, now: float) -> None:
        """That node answered the probe `beat`, which was sent at `sent_at` (None: nobody knows any more)."""
        peer = self.sign(number, network, boot_id, now)
        if peer is not None and sent_at is not None:
            peer.answered, peer.rtt = now, now - sent_at
            if beat == peer.awaited:
                peer.awaited, peer.lost = 0, peer.lost << 1 & WINDOW

    def sent(self, peer: Peer, beat: int, now: float) -> None:
        """A probe leaves. When too many of the last ones went unanswered, this is a reason to look closely, unless the
        other one is heard by its own probes: then it lives, and the line is broken one way."""
        missed, silent = peer.sent(beat), now > peer.heard + 1.2 * self.settings.interval
        if missed and silent and peer.opinion == "alive" and peer.lost.bit_count() >= self.settings.bad:
            peer.turn("silence", now)

    def link_closed(self, number: int, now: float) -> None:
        """The bus lost that node: look at once."""
        for peer in self._peers.values():
            if peer.number == number:
                peer.turn("silence", now)

    def excuse(self, now: float) -> None:
        """This node did not run for a while: whatever it did not hear meanwhile proves nothing."""
        for peer in self._peers.values():
            peer.heard, peer.lost, peer.awaited = now, 0, 0
            peer.turn("sign", now)

    def tick(self, now: float) -> list[Peer]:
        """Let time judge; return whom to probe now."""
        probe = []
        for peer in self._peers.values():
            if peer.opinion == "alive" and now >= peer.heard + self.silence:
                peer.turn("silence", now)
            if peer.opinion == "probed":
                if now >= peer.since + self.settings.grace:
                    peer.turn("grace over", now)
                elif peer.probes < self.settings.probes and now >= self._next_probe(peer):
                    peer.probes += 1
                    probe.append(peer)
        return probe

    def _next_probe(self, peer: Peer) -> float:
        return peer.since + peer.probes * self.settings.probe_gap

    @property
    def deadline(self) -> float | None:
        """When `tick` has something to do though nothing is heard."""
        first: float | None = None
        for peer in self._peers.values():
            if peer.opinion == "alive":
                at = peer.heard + self.silence
            elif peer.opinion == "probed":
                at = peer.since + self.settings.grace
                if peer.probes < self.settings.probes:
                    at = min(at, self._next_probe(peer))
            else:
                continue
            if first is None or at < first:
                first = at
        return first

    @property
    def suspects(self) -> tuple[Place, ...]:
        """Whom this node accuses, on which network; sorted."""
        return tuple(sorted([p for p, peer in self._peers.items() if peer.opinion == "suspect" and not peer.passing]))

    @property
    def deaf(self) -> bool:
        """On every network more than three quarters of those observed are silent: it may well be this node that hears
        nothing. Three quarters: half of them are silent when half of the cluster is cut off, and that is to be told.
        """
        balance: dict[str, int] = {}
        for peer in self._peers.values():
            balance[peer.network] = balance.get(peer.network, 0) + (1 if peer.opinion != "alive" else -3)
        return len(self._peers) > 2 and all(found > 0 for found in balance.values())

    def dead(self, number: int) -> bool:
        """Tell whether that node is suspect on every network on which it is looked at."""
        found = [peer.opinion == "suspect" for peer in self._peers.values() if peer.number == number]
        return bool(found) and all(found)

    @property
    def sound(self) -> frozenset[int]:
        """Those who are alive and answered, on every network on which they are observed."""
        found = {peer.number for peer in self._peers.values()}
        return frozenset(found - {p.number for p in self._peers.values() if p.opinion != "alive" or p.answered is None})

    def troubled_since(self, number: int) -> float | None:
        """Since when that peer is not simply alive on some network; None: it is, or is no peer."""
        found = [p.since for p in self._peers.values() if p.number == number and p.opinion != "alive"]
        return min(found, default=None)
