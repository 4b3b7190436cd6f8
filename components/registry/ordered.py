"""Keys in order, in blocks: a new key moves the rest of one block, not of a hundred thousand. Pure.

Knows nothing but text. Blocks hold at most `2 * BLOCK` keys; an empty block goes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator

BLOCK = 512


class OrderedKeys:
    """A sorted set of texts. Invariant: blocks are sorted, not empty, and follow one another."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        ordered = sorted(keys)
        self._blocks = [ordered[at : at + BLOCK] for at in range(0, len(ordered), BLOCK)]
        self._firsts = [block[0] for block in self._blocks]

    def __iter__(self) -> Iterator[str]:
        for block in self._blocks:
            yield from block

    def add(self, key: str) -> None:
        """Add a key that is not there."""
        if not self._blocks:
            self._blocks, self._firsts = [[key]], [key]
            return
        at = max(bisect_right(self._firsts, key) - 1, 0)
        block = self._blocks[at]
        insort(block, key)
        self._firsts[at] = block[0]
        if len(block) > 2 * BLOCK:
            self._blocks[at : at + 1] = [block[:BLOCK], block[BLOCK:]]
            self._firsts.insert(at + 1, block[BLOCK])

    def remove(self, key: str) -> None:
        """Remove a key that is there."""
        at = bisect_right(self._firsts, key) - 1
        block = self._blocks[at]
        del block[bisect_left(block, key)]
        if block:
            self._firsts[at] = block[0]
        else:
            del self._blocks[at], self._firsts[at]

    def since(self, start: str) -> Iterator[str]:
        """Yield the keys from `start` on, in order."""
        at = max(bisect_right(self._firsts, start) - 1, 0)
        for block in self._blocks[at : at + 1]:
            yield from block[bisect_left(block, start) :]
        for block in self._blocks[at + 1 :]:
            yield from block
