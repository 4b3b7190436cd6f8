"""Whom a broker trusts, how often a stranger may knock, and what is told of those it refuses. All of it pure.

Knows no socket and no clock: time arrives as `now`, in seconds. `Trust` is the look-up from key to node that every
message of a peer is held against, because a handshake proves a key once and a session outlives a revocation.
`RateLimit` and `Refusals` are bounded tables: whoever knocks from many addresses, or with many keys, makes them
coarser, never larger.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Mapping

import msgspec

REMEMBERED = 1000
"""Revoked keys that are still called revoked; an older one is an unknown key like any other."""

JOIN_RATE, JOIN_BURST = 5.0, 20.0
"""Knocks a second that one address has on the join port, and how many at once: a whole define needs about ten."""

SOURCES = 4096
"""Addresses a rate limit tells apart. The one quiet longest goes first, and it had its allowance back anyhow."""

TOLD_EVERY = 10.0
"""Seconds between two events about the same refusal; what happens in between is counted in the next one."""

TOLD_RATE, TOLD_BURST = 0.2, 20.0
"""Refusals a second that are told for one reason, and at once: the audit log's files hold days of that, not minutes."""

KINDS = 256
"""Different refusals (reason, address, key) told apart; the rest is told by reason alone."""


class Trust:
    """The keys of the nodes of this node's cluster, its own among them; renewed whenever a definition changes."""

    def __init__(self) -> None:
        self._nodes: dict[str, frozenset[int]] = {}
        self._revoked: dict[str, None] = {}

    def renew(self, keys: Mapping[int, str]) -> frozenset[tuple[str, int]]:
        """Take the key of each node (empty: it has none); return the pairs (key, number) that hold no more."""
        nodes: dict[str, set[int]] = {}
        for number, key in keys.items():
            if key:
                nodes.setdefault(key, set()).add(number)
        before = self._pairs()
        for key in self._nodes.keys() - nodes.keys():
            self._revoked[key] = None
        for key in nodes:
            self._revoked.pop(key, None)
        while len(self._revoked) > REMEMBERED:
            del self._revoked[next(iter(self._revoked))]
        self._nodes = {key: frozenset(numbers) for key, numbers in nodes.items()}
        return frozenset(before - self._pairs())

    def may(self, key: str) -> bool:
        """Say whether a key belongs to a node of the cluster."""
        return key in self._nodes

    @property
    def keys(self) -> int:
        """How many keys are trusted."""
        return len(self._nodes)

    def speaks_for(self, key: str, number: int | None) -> bool:
        """Say whether `why_not` would give "": asked of every message."""
        numbers = self._nodes.get(key)
        return numbers is not None and (number is None or number in numbers)

    def node_of(self, key: str) -> int:
        """Return the node that a key belongs to, 0 for none; the lowest when two share one, as a copied disk does."""
        return min(self._nodes.get(key, (0,)))

    def why_not(self, key: str, number: int | None = None) -> str:
        """Return why a key may not speak (for node `number`, if given): "" when it may.

        Else "revoked" (it could, and its node was undefined since), "unknown_key", or "wrong_node".
        """
        if self.speaks_for(key, number):
            return ""
        if key in self._nodes:
            return "wrong_node"
        return "revoked" if key in self._revoked else "unknown_key"

    def _pairs(self) -> set[tuple[str, int]]:
        return {(key, number) for key, numbers in self._nodes.items() for number in numbers}


class RateLimit:
    """So many times a second for each source, and so many at once after a pause."""

    def __init__(self, rate: float = JOIN_RATE, burst: float = JOIN_BURST, most: int = SOURCES) -> None:
        self._rate = rate
        self._burst = burst
        self._most = most
        self._left: dict[str, tuple[float, float]] = {}  # by source, longest unseen first: what is left, and since when

    @property
    def sources(self) -> int:
        """How many sources are told apart at the moment."""
        return len(self._left)

    def allow(self, now: float, source: str, cost: int = 1) -> bool:
        """Take `cost` from what the source has left; False, and nothing is taken, when there is not so much."""
        left, since = self._left.pop(source, (self._burst, now))
        left = min(self._burst, left + max(0.0, now - since) * self._rate)
        allowed = left >= cost
        self._left[source] = (left - cost if allowed else left, now)
        if len(self._left) > self._most:
            del self._left[next(iter(self._left))]
        return allowed


def source_of(address: str) -> str:
    """Return what a rate limit counts an address as: itself, or its /64, which one IPv6 machine has for itself."""
    try:
        found = ipaddress.ip_address(address.strip("[]").partition("%")[0])
    except ValueError:
        return address[:64]
    if found.version == 4:
        return str(found)
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((int(found), 64), strict=False))


class Refusal(msgspec.Struct, frozen=True):
    """Body of the event `bus.refused`: somebody was refused `count` times since it was last told, and why.

    `address` and `key` are empty when they are not known (a raw connection has proved no key), or when there were too
    many different ones. Lost: the counters of `bus.status` still have it.
    """

    reason: str
    address: str = ""
    key: str = ""
    count: int = 1


class Refusals:
    """Count every refusal under `refused_REASON`, and tell of each kind at once, then now and then."""

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        self._kinds: dict[tuple[str, str, str], tuple[float, int]] = {}  # when last told, how many since
        self._limit = RateLimit(TOLD_RATE, TOLD_BURST)  # by reason: a flood of one kind must not hide another

    def note(self, now: float, reason: str, address: str = "", key: str = "") -> list[Refusal]:
        """Take a refusal; return what to tell now: nothing, or this one."""
        self._counters[f"refused_{reason}"] += 1
        kind = (reason, source_of(address) if address else "", key)
        if kind not in self._kinds and len(self._kinds) >= KINDS:
            kind = (reason, "", "")
        told, held = self._kinds.get(kind, (now - TOLD_EVERY, 0))
        self._kinds[kind] = (told, held + 1)
        return self._told(now, kind)

    def due(self, now: float) -> list[Refusal]:
        """Return what was held back and may be told by now; forget what has been quiet. To be called now and then."""
        for kind, (told, held) in list(self._kinds.items()):
            if not held and now - told >= TOLD_EVERY:
                del self._kinds[kind]
        return [refusal for kind in list(self._kinds) for refusal in self._told(now, kind)]

    def _told(self, now: float, kind: tuple[str, str, str]) -> list[Refusal]:
        told, held = self._kinds[kind]
        if not held or now - told < TOLD_EVERY or not self._limit.allow(now, kind[0]):
            return []
        self._kinds[kind] = (now, 0)
        return [Refusal(*kind, count=held)]
