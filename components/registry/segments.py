"""Read the log's files: what is sound, what was torn in the last moment, what is damaged.

Knows records and batches, not what an entry says. The log is a row of *segments*, files named by their first index;
a segment begins with a SEGMENT record (whose log, which index, chained to what) and goes on with *batches*: a BATCH
record, then the entries that were synced together. Segments are never rewritten; trimming removes the oldest whole
(removing a file cannot tear, a rewrite can, and it would cost the whole log each time).

What may be cut: the last batch, if no answer can have left for it. That is so when it lies past the synced mark and no
batch follows it (a batch is written only after the one before is synced). Every other bad byte is damage.
Odd: a batch is found behind a bad one by looking for its record; that is sealed with a random word of the segment,
so no value that a user stored can pass for one.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from . import records
from .files import names
from .loaded import Damage
from .mark import Synced

_NAME = re.compile(r"log-(\d{20})")
_BATCH_PAYLOAD = msgspec.msgpack.Decoder(tuple[int, int])


class SegmentHead(msgspec.Struct, frozen=True, array_like=True):
    """The payload of a SEGMENT record; its `index` is the first entry's, `previous` the digest of the entry before."""

    cluster_id: str
    gen: int
    salt: bytes
    previous: bytes


class Scan(msgspec.Struct):
    """What the log's files hold: entries in order, and where the next batch goes."""

    entries: list[records.Record]
    first: int  # index that the first segment begins with
    before: bytes  # digest of the entry before that
    segments: list[int]  # first indexes, in order
    end: int  # where the last segment ends after the cut, 0: there is no segment
    size: int  # where it ended before
    salt: bytes  # of the last segment
    batch: int  # number of the last batch in it
    tail: int  # from here on the last segment was never marked as synced
    read: int  # first index of the segment read last
    torn: list[Damage]
    damaged: list[Damage]


def path_of(folder: Path, first: int) -> Path:
    """Return the path of the segment that begins with index `first`."""
    return folder / f"log-{first:020d}"


def first_indexes(folder: Path) -> list[int]:
    """Return the first index of every segment in the folder, in order."""
    found = (_NAME.fullmatch(name) for name in names(folder))
    return sorted(int(match[1]) for match in found if match)


def encode_head(head: SegmentHead, first: int) -> bytes:
    """Return the first record of a segment."""
    payload = msgspec.msgpack.encode(head)
    return records.encode(records.SEGMENT, 0, first, payload, records.SEED[records.SEGMENT])


def encode_batch(number: int, first: int, entries: list[bytes], salt: bytes) -> bytes:
    """Return a batch: its record, then the entries that are synced together."""
    body = b"".join(entries)
    payload = msgspec.msgpack.encode((number, len(body)))
    return records.encode(records.BATCH, 0, first, payload, salt) + body


def scan(folder: Path, cluster_id: str, gen: int, mark: Synced) -> Scan:
    """Read all segments; damage and torn tails are listed, not raised. What follows a damage is not read."""
    firsts = first_indexes(folder)
    result = Scan([], 1, records.START, firsts, 0, 0, b"", 0, 0, 0, [], [])
    if not firsts:
        path = path_of(folder, mark.segment)
        result.damaged.append(Damage(str(path), 0, f"the file is missing; it was synced up to byte {mark.offset}"))
        return result
    result.first = firsts[0]
    chain, following = b"", firsts[0]
    for first in firsts:
        path = path_of(folder, first)
        if first != following:
            why = (
                f"it ends with entry {following - 1}, and the next file begins with entry {first}: "
                "it was cut short, or a file between them is missing"
            )
            result.damaged.append(Damage(str(path_of(folder, result.read)), result.end, why))
            return result
        result.read = first
        reader = _Reader(path, path.read_bytes(), mark, first == firsts[-1])
        chain, following = reader.read(result, cluster_id, gen, chain)
        if result.damaged:
            return result
    if result.segments and mark.segment > result.segments[-1]:
        path = path_of(folder, mark.segment)
        result.damaged.append(Damage(str(path), 0, f"the file is missing; it was synced up to byte {mark.offset}"))
    return result


class _Reader:
    """Reads one segment into a `Scan`."""

    def __init__(self, path: Path, data: bytes, mark: Synced, last: bool) -> None:
        self.path, self.data, self.last = path, data, last
        self.mark = mark
        self.index = int(path.name.removeprefix("log-"))
        self.marked = mark.offset if mark.segment == self.index else 0  # synced up to here, as far as the mark knows
        self.salt = b""

    def read(self, result: Scan, cluster_id: str, gen: int, chain: bytes) -> tuple[bytes, int]:
        """Read all of it; return the digest of its last entry and the index that must follow."""
        position, number, index = 0, 0, self.index
        try:
            record = records.decode(self.data, 0, records.SEED[records.SEGMENT], records.SEGMENT)
            head = msgspec.msgpack.decode(record.payload, type=SegmentHead)
            self.salt = head.salt
            self._check_head(head, record, cluster_id, gen, chain)
            if not chain:
                chain = result.before = head.previous
            position = record.end
            while position < len(self.data):
                found, position_after, chain_after = self._batch(position, number + 1, index, chain)
                result.entries.extend(found)
                position, chain, number, index = position_after, chain_after, number + 1, index + len(found)
        except records.BadRecord as bad:
            self._judge(result, position, bad)
        if not result.damaged and position < self.marked:
            why = f"cut short: it ends at byte {position} and was synced up to byte {self.marked}"
            result.damaged.append(Damage(str(self.path), position, why))
        result.end, result.size, result.salt, result.batch = position, len(self.data), self.salt, number
        result.tail = self.marked
        if position == 0 and self.last and not result.damaged:
            result.segments = result.segments[:-1]  # a segment without a head holds nothing: it will be removed
        return chain, index

    def _check_head(self, head: SegmentHead, record: records.Record, cluster_id: str, gen: int, chain: bytes) -> None:
        if (head.cluster_id, head.gen) != (cluster_id, gen):
            raise records.BadRecord(0, f"belongs to cluster {head.cluster_id} generation {head.gen}, not to this one")
        if record.index != self.index or (chain and head.previous != chain):
            raise records.BadRecord(0, "does not follow on the segment before: its name or its place was changed")

    def _batch(self, position: int, number: int, index: int, chain: bytes) -> tuple[list[records.Record], int, bytes]:
        head = records.decode(self.data, position, self.salt, records.BATCH)
        found_number, length = _BATCH_PAYLOAD.decode(head.payload)
        if (found_number, head.index) != (number, index):
            raise records.BadRecord(position, f"batch {found_number} lies where batch {number} belongs")
        end = head.end + length
        if end > len(self.data):
            raise records.BadRecord(position, f"cut off: the batch ends at byte {end}, the file at {len(self.data)}")
        entries: list[records.Record] = []
        place = head.end
        while place < end:
            record = records.decode(self.data, place, chain)
            if record.index != index + len(entries) or record.end > end:
                raise records.BadRecord(place, f"entry {record.index} lies where {index + len(entries)} belongs")
            entries.append(record)
            place, chain = record.end, record.digest
            if (self.mark.segment, self.mark.offset) == (self.index, place) and self.mark.chain != chain:
                raise records.BadRecord(place, "the synced mark belongs to another log than this one")
        return entries, end, chain

    def _judge(self, result: Scan, position: int, bad: records.BadRecord) -> None:
        """Torn in the last moment, or damaged? `position` is where the last sound batch ends."""
        path = str(self.path)
        never_synced = self.last and self.mark.segment <= self.index and position >= self.marked
        later = self._later_batch(bad.position + 1)
        if never_synced and not later:
            why = f"{bad.reason}; cut at byte {position}, behind it nothing was acknowledged"
            result.torn.append(Damage(path, bad.position, why))
            return
        reason = bad.reason
        if position < self.marked:
            reason += f"; the file was synced up to byte {self.marked}"
        elif later:
            reason += f"; a later batch at byte {later} proves that this one was synced"
        result.damaged.append(Damage(path, bad.position, reason))

    def _later_batch(self, start: int) -> int:
        """Return where a sound batch record lies at or past `start`, 0: nowhere."""
        if not self.salt:  # the head itself is bad; it is synced alone, so any record behind it came later
            return max(self.data.find(records.MAGIC, start), 0)
        while (start := self.data.find(records.MAGIC, start)) >= 0:
            try:
                records.decode(self.data, start, self.salt, records.BATCH)
            except records.BadRecord:
                start += 1
            else:
                return start
        return 0
