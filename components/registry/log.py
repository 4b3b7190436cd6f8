"""The log in memory: the entries behind the last snapshots, chained, and the servers that they name. Pure.

Knows what was appended, cut and committed, not what is durable (`journal.py`), who wrote it or what an entry does. An
entry is kept as its record, which is what goes to the disk and to other servers. Two logs with the same digest at an
index are the same up to there (records.py). The *base* is where the log begins: the index, epoch and digest of the
last entry before it, which a snapshot covers.

The newest `Configured` entry is in force as soon as it stands here, committed or not (Raft thesis 4.1); when it is cut,
the one before it is in force again.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from . import entries, records
from .entries import Configured


class Place(msgspec.Struct, frozen=True, gc=False):
    """A place in a log: an index, and the epoch and digest of the entry there."""

    index: int
    epoch: int
    chain: bytes


START = Place(0, 0, records.START)


class Kept(NamedTuple):
    """One entry: its epoch, its digest, its record."""

    epoch: int
    chain: bytes
    data: bytes


class Log:
    """Entries `base.index + 1` … `last`. Invariants: committed is within; a cut is never below it."""

    def __init__(self, base: Place, servers: Configured) -> None:
        self.base = base
        self.committed = base.index
        self._kept: list[Kept] = []
        self._servers: list[tuple[int, Configured]] = [(base.index, servers)]

    # --- where it ends, what it holds ---

    @property
    def last(self) -> int:
        """The index of the newest entry."""
        return self.base.index + len(self._kept)

    @property
    def end(self) -> Place:
        """The place of the newest entry."""
        if not self._kept:
            return self.base
        newest = self._kept[-1]
        return Place(self.last, newest.epoch, newest.chain)

    @property
    def servers(self) -> Configured:
        """The registry servers in force."""
        return self._servers[-1][1]

    @property
    def servers_index(self) -> int:
        """The index of the entry that named them."""
        return self._servers[-1][0]

    def place(self, index: int) -> Place | None:
        """Return the place of an index, None when the log does not reach there or no longer does."""
        if index == self.base.index:
            return self.base
        if not self.base.index < index <= self.last:
            return None
        kept = self._kept[index - self.base.index - 1]
        return Place(index, kept.epoch, kept.chain)

    def entry(self, index: int) -> entries.Entry:
        """Return the decoded entry at an index that the log holds."""
        data = self._kept[index - self.base.index - 1].data
        return entries.decode(records.unchecked(data))

    def size(self, index: int) -> int:
        """Return the bytes of the record at an index that the log holds."""
        return len(self._kept[index - self.base.index - 1].data)

    def data(self, start: int, most: int) -> tuple[bytes, ...]:
        """Return the records from index `start` on, about `most` bytes, at least one if there is one."""
        first = start - self.base.index - 1
        end, size = first, 0
        while end < len(self._kept):
            size += len(self._kept[end].data)
            if size > most and end > first:
                break
            end += 1
        return tuple(kept.data for kept in self._kept[first:end])

    # --- change ---

    def append(self, data: bytes, record: records.Record) -> None:
        """Put an entry behind the last; `record` is what `data` says, decoded."""
        self._kept.append(Kept(record.epoch, record.digest, data))
        if record.kind == entries.CONFIGURED:
            body = entries.decode(record).body
            assert isinstance(body, Configured)
            self._servers.append((record.index, body))

    def cut(self, index: int) -> None:
        """Give up all entries behind `index`."""
        assert index >= self.committed, f"entry {self.committed} is committed and cannot be cut away at {index}"
        del self._kept[index - self.base.index :]
        while self._servers[-1][0] > index:
            self._servers.pop()

    def commit(self, index: int) -> None:
        """All entries up to `index` are committed."""
        assert self.committed <= index <= self.last, f"{index} cannot be committed after {self.committed}"
        self.committed = index

    def trim(self, index: int) -> None:
        """Forget the entries up to `index`, which are in a snapshot."""
        place = self.place(index)
        if place is None or index > self.committed:
            return
        del self._kept[: index - self.base.index]
        self.base = place
        while len(self._servers) > 1 and self._servers[1][0] <= index:
            del self._servers[0]

    def check(self) -> None:
        """Raise AssertionError: 3 and 6 of the machine's invariants, as far as they concern the log."""
        assert self.base.index <= self.committed <= self.last, "6: what is committed is not in the log"
        assert all(index <= self.last for index, _ in self._servers), "3: servers are in force by an entry that was cut"
        epoch = self.base.epoch
        for kept in self._kept[-8:]:
            assert kept.epoch >= (epoch if len(self._kept) <= 8 else 0), "3: an entry is of an older epoch than before"
            epoch = kept.epoch
