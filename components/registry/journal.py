"""What was ordered from the disk, and what waits for it: no answer, vote or promise leaves before its bytes are synced.

Pure. Knows numbers and indexes, not what the records say. Orders come back in their order; a word that waits for one is
let go only if the epoch in which it was to be said is still the epoch: a vote or an acknowledgement of a past one helps
nobody (and its duplicate could mislead).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from ...bus.machine import Effect, Persist


class Order(NamedTuple):
    """One order under way: the log's end after it, and what may be said when it is done."""

    number: int
    epoch: int
    last: int
    held: tuple[Effect, ...]


class Journal:
    """Orders under way. `durable`: the log on this disk and the one in memory are the same up to there."""

    def __init__(self, durable: int) -> None:
        self.durable = durable
        self.number = 0
        self._orders: deque[Order] = deque()

    def __len__(self) -> int:
        return len(self._orders)

    def order(
        self, data: Sequence[bytes], last: int, epoch: int, held: Sequence[Effect] = (), cause: str = ""
    ) -> Persist:
        """Return the order to make records durable; `last` is the log's end after them."""
        self.number += 1
        self._orders.append(Order(self.number, epoch, last, tuple(held)))
        return Persist(self.number, list(data), cause)

    def hold(self, effect: Effect, epoch: int) -> bool:
        """Keep an effect until all that was ordered is done; False: nothing is under way, say it now."""
        if not self._orders:
            return False
        newest = self._orders[-1]
        if newest.epoch != epoch:
            return False
        self._orders[-1] = newest._replace(held=(*newest.held, effect))
        return True

    def cut(self, index: int) -> None:
        """The log in memory ends at `index` now: what was durable behind it is no longer the same."""
        self.durable = min(self.durable, index)
        self._orders = deque(order._replace(last=min(order.last, index)) for order in self._orders)

    def persisted(self, number: int, epoch: int) -> list[Effect]:
        """Take it that all orders up to `number` are done; return what may be said now.

        Raises ValueError for a number that was never ordered; one that was heard before changes nothing.
        """
        if number > self.number:
            raise ValueError(f"Persisted({number}) came, and only {self.number} were ordered")
        said: list[Effect] = []
        while self._orders and self._orders[0].number <= number:
            done = self._orders.popleft()
            self.durable = done.last
            if done.epoch == epoch:
                said.extend(done.held)
        return said

    def anew(self) -> Journal:
        """Return the journal of a log that begins anew behind a snapshot; nothing of it is durable yet."""
        journal = Journal(0)
        journal.number = self.number
        journal._orders = deque(order._replace(last=0, held=()) for order in self._orders)
        return journal

    def refused(self) -> None:
        """None of what is under way was written: the disk is full. What waited for it is never said."""
        self._orders.clear()
