"""What groups keep in the core log: reading it back, and which entries count.

Knows only bytes and indexes. A coordinator that died may leave an append under way, which then lands in the log after
its successor has read it. Every coordinator therefore begins with a `Takeover`, and an entry is void if a takeover
lies between its term (the index of its own takeover) and its place in the log. A takeover that lands late is void, too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from .messages import TAKEOVER_SLOT, Entry, Takeover


class ReadBack(NamedTuple):
    """What the log says: the indexes of takeovers that count, the latest of them, each group's entries that count."""

    takeovers: list[int]
    latest: Takeover | None
    groups: dict[str, list[Entry]]


def read_back(kept: Iterable[tuple[str, int, int, bytes]]) -> ReadBack:
    """Judge the kept entries `(slot, index, epoch, body)`. A group's entries come oldest first, without a gap."""
    ordered = sorted(kept, key=lambda entry: entry[1])
    takeovers: list[int] = []
    latest: Takeover | None = None
    for slot, index, _, body in ordered:
        if slot == TAKEOVER_SLOT:
            takeover = msgspec.msgpack.decode(body, type=Takeover)
            if latest is None or rank(takeover) > rank(latest):
                takeovers.append(index)
                latest = takeover
    found: dict[str, list[Entry]] = {}
    for slot, index, _, body in ordered:
        if slot != TAKEOVER_SLOT:
            entry = msgspec.msgpack.decode(body, type=Entry)
            after = bisect_right(takeovers, entry.term)
            if after == len(takeovers) or takeovers[after] > index:
                found.setdefault(slot, []).append(entry)
    return ReadBack(takeovers, latest, found)


def rank(takeover: Takeover) -> tuple[int, int, int]:
    """Return what a takeover must exceed to be the next one."""
    return takeover.epoch, takeover.session, takeover.count
