"""The tree by which a new view reaches a large cluster. Pure, and nothing is kept: the view itself is the tree.

Up to `FAN_OUT` members the leader tells everybody. Beyond, it tells the first `FAN_OUT` of them in order of their
numbers, each of these the next ones, so two steps reach 16,512 members. Whoever is missed because the one before it in
the tree is dead or slow learns from the next probe that it lags, and is told by whom it probed.
"""

from __future__ import annotations

from collections.abc import Sequence

FAN_OUT = 128


def hearers(numbers: Sequence[int], leader: int, number: int) -> Sequence[int]:
    """Return whom a node tells a view of these members, sorted by number, that the leader committed."""
    order = [each for each in numbers if each != leader]
    if number == leader:
        return order[:FAN_OUT]
    try:
        place = order.index(number) + 1
    except ValueError:
        return ()
    return order[place * FAN_OUT : (place + 1) * FAN_OUT]
