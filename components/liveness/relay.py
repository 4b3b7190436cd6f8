"""The tree by which a new view reaches a large cluster. Pure, and nothing is kept: the view itself is the tree.

Up to `FAN_OUT` members the leader tells everybody. Beyond, it tells the first `FAN_OUT` of them in order of their
numbers, each of these the next ones, so two steps reach 16,512 members. Whoever is missed because the one before it in
the tree is dead or slow learns from the next probe that it lags, and is told by whom it probed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

FAN_OUT = 128


def hearers(numbers: Sequence[int], leader: int, number: int) -> Sequence[int]:
    """Return whom a node tells a view of these members, sorted by number, that the leader committed."""
    top = bisect_left(numbers, leader)  # where the leader is missing in the order
    skips = top < len(numbers) and numbers[top] == leader
    place = 0
    if number != leader:
        at = bisect_left(numbers, number)
        if at == len(numbers) or numbers[at] != number:
            return ()
        place = at + 1 - (skips and at > top)
    first, last = place * FAN_OUT, (place + 1) * FAN_OUT
    if not skips or last <= top:
        return numbers[first:last]
    return [*numbers[first : max(first, top)], *numbers[max(first, top) + 1 : last + 1]]
