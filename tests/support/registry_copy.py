"""What a registry server's disk holds in the simulator: records in order, snapshots of its own, and its faults.

`Copy` replays records one by one, for what is durable and for what was only ordered alike; it trusts no word of the
machine. `CopyDisk` is the disk under one server: it loses unsynced records from a random one on (a promise may reach
the platter before entries that were ordered earlier), is full, or is damaged.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
from covey.bus.machine import Persisted
from covey.bus.simulation import Disk
from covey.components.registry import entries, messages, records
from covey.components.registry.entries import Configured
from covey.components.registry.loaded import Damage, Loaded
from covey.components.registry.store import Image

SERVERS_KEY = "/cluster/servers"
NOT_FILLED = Damage("registry", 0, "the folder of this server's copy is missing")
FLIPPED = Damage("registry/log-1", 117, "the checksum does not fit")


def servers_in(snapshot: bytes) -> tuple[Configured, int]:
    """Return the servers and the generation that a snapshot's state names."""
    image = msgspec.msgpack.decode(records.unchecked(snapshot).payload[records.DIGEST_BYTES :], type=Image)
    value = next((msgspec.msgpack.decode(item.value) for key, item in image.items if key == SERVERS_KEY), {})
    named = (tuple(value.get(name, ())) for name in ("servers", "learners", "stopped"))
    return Configured(*named), image.gen


class Copy:
    """A log and a promise, as a row of records leads to them. `damaged`: there is none that may be trusted."""

    def __init__(self) -> None:
        self.damaged = True
        self.gen = 0
        self.base = 0
        self.base_epoch = 0
        self.base_chain = records.START
        self.log: list[tuple[int, bytes, bytes]] = []  # epoch, digest, record
        self.servers: list[tuple[int, Configured]] = []
        self.installed = b""
        self.promised = 0
        self.voted_for = 0
        self.votes: dict[int, int] = {}  # epoch -> for whom, in the life of this copy
        self.committed = 0

    def clone(self) -> Copy:
        """Return one that goes its own way from here."""
        other = Copy.__new__(Copy)
        other.__dict__.update(self.__dict__)
        other.log, other.servers, other.votes = list(self.log), list(self.servers), dict(self.votes)
        return other

    @property
    def last(self) -> int:
        """The index of the last entry."""
        return self.base + len(self.log)

    @property
    def last_epoch(self) -> int:
        """The epoch of the last entry."""
        return self.log[-1][0] if self.log else self.base_epoch

    @property
    def in_force(self) -> Configured:
        """The servers that the newest entry about them names."""
        return self.servers[-1][1]

    def digest(self, index: int) -> bytes | None:
        """Return the digest of the entry at an index, None when it is not here (or no longer)."""
        if index == self.base:
            return self.base_chain
        at = index - self.base - 1
        return self.log[at][1] if 0 <= at < len(self.log) else None

    def take(self, data: bytes) -> int:
        """Take the next record; return its kind."""
        kind = data[8]
        if kind < records.SEGMENT:
            record = records.unchecked(data)
            assert record.index == self.last + 1, f"entry {record.index} was ordered behind {self.last}"
            chain = self.log[-1][1] if self.log else self.base_chain
            assert _chained(chain, data), f"entry {record.index} is not chained to the one before"
            self.log.append((record.epoch, record.digest, data))
            if kind == entries.CONFIGURED:
                self.servers.append((record.index, entries.decode(record).body))  # type: ignore[arg-type]
        elif kind == records.HARD_STATE:
            hard = records.decode_only(data, kind)
            vote = records.decode_vote(hard)
            assert hard.epoch >= self.promised, f"INV-6: the promise went back from {self.promised} to {hard.epoch}"
            assert hard.epoch > self.promised or self.voted_for in (0, vote), (
                f"INV-6: the vote of epoch {hard.epoch} for {self.voted_for} became one for {vote}"
            )
            self.promised, self.voted_for = hard.epoch, vote
            if self.voted_for:
                self.votes.setdefault(hard.epoch, self.voted_for)
        elif kind == records.COMMITTED:
            self.committed = max(self.committed, min(records.index_of(data), self.last))
        elif kind == records.CUT:
            cut = records.unchecked(data)
            assert self.committed <= cut.index, f"a cut at {cut.index} below what is committed, {self.committed}"
            assert self.digest(cut.index) == cut.payload, f"a cut at {cut.index} that is not this log's"
            del self.log[cut.index - self.base :]
            while self.servers[-1][0] > cut.index:
                self.servers.pop()
        else:
            assert kind == records.SNAPSHOT, f"a record of kind {kind}"
            self._install(data)
        return kind

    def _install(self, data: bytes) -> None:
        snapshot = records.unchecked(data)
        self.base, self.base_epoch, self.installed = snapshot.index, snapshot.epoch, data
        self.base_chain = snapshot.payload[: records.DIGEST_BYTES]
        self.log = []
        named, gen = servers_in(data)
        if self.damaged or gen != self.gen:  # another copy: what the old one voted for is forgotten with it
            self.votes = {self.promised: self.voted_for} if self.voted_for else {}
        self.servers, self.gen = [(snapshot.index, named)], gen
        self.committed, self.damaged = snapshot.index, False

    def trim(self, snapshot: bytes) -> None:
        """Forget what lies before a snapshot of this log."""
        record = records.unchecked(snapshot)
        index = record.index
        if index <= self.base:
            return
        assert self.digest(index) == record.payload[: records.DIGEST_BYTES], f"a snapshot at {index} of another log"
        epoch, chain, _ = self.log[index - self.base - 1]
        del self.log[: index - self.base]
        self.base, self.base_epoch, self.base_chain, self.installed = index, epoch, chain, snapshot
        self.committed = max(self.committed, index)
        while len(self.servers) > 1 and self.servers[1][0] <= index:
            del self.servers[0]


_seen: dict[bytes, bytes] = {}


def _chained(previous: bytes, data: bytes) -> bool:
    """Is this record sound and chained to the digest before it? Asked of each record many times, so remembered."""
    digest = data[-records.DIGEST_BYTES :]
    if _seen.get(digest) == previous:
        return True
    if records.digest_of(previous, data[: -records.DIGEST_BYTES]) != digest:
        return False
    if len(_seen) > 100_000:
        _seen.clear()
    _seen[digest] = previous
    return True


class CopyDisk(Disk):
    """The disk under one server. `hear` is told of each record that became durable, `changed` when it was spoiled."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self.random = random
        self.copy = Copy()
        self.own: list[bytes] = []  # snapshots that the server made itself, newest last
        self.full = False
        self.damage: tuple[Damage, ...] = (NOT_FILLED,)
        self.refills = 0  # how often a whole copy took the place of another
        self.heard: Callable[[bytes, int], None] = lambda data, kind: None
        self.skipped: set[int] = set()

    def keep(self, data: bytes) -> None:
        """Let one record be durable."""
        kind = self.copy.take(data)
        if kind == records.SNAPSHOT:
            self.damage, self.own = (), []
            self.refills += 1
        self.heard(data, kind)

    def sync(self, number: int) -> Any:
        """Make everything up to `number` durable, unless there is no room."""
        if number in self.skipped:
            self.skipped.discard(number)
            return None
        if self.full:
            self.skipped |= {given for given, _ in self.pending if given > number}
            self.pending = []
            return messages.NoRoom("no space left on device")
        for given, batch in self.pending:
            if given <= number:
                for data in batch:
                    self.keep(data)
        self.pending = [(given, batch) for given, batch in self.pending if given > number]
        return Persisted(number)

    def crash(self, random: Random) -> None:
        """Lose what was not synced, from a random record on; a later promise may be there all the same.

        A refill is whole or not there at all, its promise included: it comes by one rename.
        """
        rows = [data for _, batch in self.pending for data in _whole(batch)]
        cut = random.randint(0, len(rows)) if not self.full else 0
        for row in rows[:cut]:
            for data in row:
                self.keep(data)
        later = [row[0] for row in rows[cut:] if len(row) == 1 and row[0][8] == records.HARD_STATE]
        if later and not self.full and not self.copy.damaged and random.random() < 0.5:
            self.keep(random.choice(later))
        self.pending, self.skipped = [], set()

    def spoil(self, damage: Damage = FLIPPED) -> None:
        """Flip bytes of the copy, or delete it: at the next birth it is found damaged."""
        self.damage, self.copy, self.own = (damage,), Copy(), []

    def write_own(self, snapshot: bytes) -> bool:
        """Keep a snapshot that the server made, and the log from the one before on; False: the copy is another now."""
        record = records.unchecked(snapshot)
        if self.copy.damaged or record.index < self.copy.base:
            return False
        self.own = [*self.own, snapshot][-2:]
        if len(self.own) == 2 and self.copy.digest(records.index_of(self.own[0])) is not None:
            self.copy.trim(self.own[0])
        return True

    def load(self) -> Loaded:
        """Return what a machine that is started now finds."""
        if self.damage:
            return Loaded(damaged=self.damage)
        copy, base = self.copy, self.copy.installed
        for snapshot in self.own:
            record = records.unchecked(snapshot)
            if copy.digest(record.index) == record.payload[: records.DIGEST_BYTES] and self.random.random() < 0.9:
                base = snapshot  # else it is unreadable, and the one before must do
        start = records.index_of(base)
        found = tuple(records.unchecked(data) for _, _, data in copy.log[start - copy.base :])
        promised, voted_for = copy.promised, copy.voted_for
        if copy.last_epoch > promised:
            promised, voted_for = copy.last_epoch, 0
        committed = max(copy.committed, start)
        snapshot = records.unchecked(base)
        return Loaded(None, promised, voted_for, committed, snapshot, found)


def _whole(batch: list[bytes]) -> list[list[bytes]]:
    """Split a batch into what may be durable by itself: record by record, but a promise with its snapshot."""
    if any(data[8] == records.SNAPSHOT for data in batch):
        at = next(i for i, data in enumerate(batch) if data[8] == records.SNAPSHOT)
        return [batch[: at + 1], *([data] for data in batch[at + 1 :])]
    return [[data] for data in batch]
