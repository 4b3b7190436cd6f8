"""The log's files: how they are written, and what is sound, torn or damaged in them when they are read.

Knows records and batches, not what an entry says. The log is a row of *segments*, files named by a serial that only
rises; a segment begins with a SEGMENT record (whose log, which serial, which index, chained to what) and goes on with
*batches*: a BATCH record, then the records that were synced together, with their digest in the batch's. Segments are
never rewritten: a cut is a record behind the entries that it gives up, so an index may come twice, and only the
reading takes them away. Trimming removes the oldest segments whole (removing a file cannot tear, a rewrite can, and it
would cost the whole log each time).

What may be taken off: the last batch, if no answer can have left for it. That is so when it lies past the synced mark
and no batch follows it (a batch is written only after the one before is synced) and its digest does not fit. Every
other bad byte is damage; so is a whole batch that says what cannot be. A segment gets its name when it is synced, so
its head is never torn. Odd: a batch is found behind a bad one by looking for its record; that is sealed with a random
word of the segment, so no value that a user stored can pass for one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from . import records
from .files import names
from .loaded import Damage
from .mark import Synced

FIRST_SERIAL = 1
_NAME = re.compile(r"log-(\d{20})")
_HEAD_BYTES = 4096  # more than a head takes


class SegmentHead(msgspec.Struct, frozen=True, array_like=True):
    """The payload of a SEGMENT record; that record's `index` is the next entry's, `previous` the digest of the entry
    before it. `batches` counts those of the segment before; None: nothing before counts, the log begins here."""

    cluster_id: str
    gen: int
    salt: bytes
    serial: int
    previous: bytes
    batches: int | None


class _BatchHead(msgspec.Struct, frozen=True, array_like=True):
    """The payload of a BATCH record; that record's `index` is what the next entry's would be, before any cut in it."""

    number: int
    length: int
    digest: bytes


class Segment(NamedTuple):
    """A log file, and the index that the next entry had when it was begun."""

    serial: int
    first: int


class End(NamedTuple):
    """Where a log ends: the index and the digest of its last entry, and how far it is known to be committed."""

    last: int
    chain: bytes
    committed: int

    def follow(self, batch: Sequence[bytes]) -> End:
        """Return the end behind these encoded records. Raises ValueError for one that cannot come next, since it would
        make the copy a damaged one."""
        last, chain, committed = self
        for record in batch:
            kind, named = records.kind_of(record), records.index_of(record)
            if kind == records.COMMITTED:
                committed = max(committed, named) if named <= last else committed
            elif kind == records.CUT:
                if not committed <= named <= last:
                    raise ValueError(f"a cut at {named} of a log that ends at {last}, committed up to {committed}")
                last, chain = named, records.payload_of(record)
            elif kind >= records.SEGMENT or named != last + 1:
                raise ValueError(f"a record of kind {kind} and index {named} behind a log that ends at {last}")
            else:
                last, chain = named, records.digest(record)
        return End(last, chain, committed)


class Scan(msgspec.Struct):
    """What the log's files hold: entries in order, and where the next batch goes."""

    entries: list[records.Record]
    first: int  # index of the first of these entries, or what it would be
    before: bytes  # digest of the entry before that
    committed: int  # the highest hint
    begins: bool  # nothing was before the first segment but the beginning of all, or a snapshot that was installed
    segments: list[Segment]
    superseded: list[int]  # serials of segments that an installed snapshot made needless
    end: int  # where the last segment ends without what was torn
    size: int  # where it ends with that
    salt: bytes  # of the last segment
    batch: int  # number of the last batch in it
    tail: int  # from here on the last segment was never marked as synced
    torn: list[Damage]
    damaged: list[Damage]

    @property
    def last(self) -> int:
        """The index of the last entry."""
        return self.first + len(self.entries) - 1

    def digest_at(self, index: int) -> bytes:
        """Return the digest of the entry at `index`, which is `first` - 1 at least; empty: there is none."""
        place = index - self.first
        if place == -1:
            return self.before
        return self.entries[place].digest if 0 <= place < len(self.entries) else b""


def path_of(folder: Path, serial: int) -> Path:
    """Return the path of the segment with this serial."""
    return folder / f"log-{serial:020d}"


def serials(folder: Path) -> list[int]:
    """Return the serial of every segment in the folder, in order."""
    found = (_NAME.fullmatch(name) for name in names(folder))
    return sorted(int(match[1]) for match in found if match)


def encode_head(head: SegmentHead, first: int) -> bytes:
    """Return the first record of a segment."""
    payload = msgspec.msgpack.encode(head)
    return records.encode(records.SEGMENT, 0, first, payload, records.SEED[records.SEGMENT])


def encode_batch(number: int, first: int, batch: Sequence[bytes], salt: bytes) -> bytes:
    """Return a batch: its record, then the records that are synced together."""
    body = b"".join(batch)
    payload = msgspec.msgpack.encode(_BatchHead(number, len(body), records.digest_of(salt, body)))
    return records.encode(records.BATCH, 0, first, payload, salt) + body


def scan(folder: Path, cluster_id: str, gen: int, mark: Synced) -> Scan:
    """Read all segments; damage and torn tails are listed, not raised. What follows a damage is not read."""
    found = serials(folder)
    start = _beginning(folder, found, cluster_id, gen)
    result = Scan([], 1, records.START, 0, False, [], found[:start], 0, 0, b"", 0, 0, [], [])
    if not found or mark.segment > found[-1]:  # an older one than the first may have been read from its other slot
        path = path_of(folder, mark.segment)
        result.damaged.append(Damage(str(path), 0, f"the file is missing; it was synced up to byte {mark.offset}"))
        return result
    reader = _Reader(folder, result, mark, cluster_id, gen)
    following = found[start]
    for serial in found[start:]:
        if serial != following:
            path = path_of(folder, following)
            result.damaged.append(Damage(str(path), 0, f"the file is missing; {path_of(folder, serial).name} follows"))
        else:
            reader.read(serial, serial == found[-1])
        if result.damaged:
            break
        following = serial + 1
    return result


def _beginning(folder: Path, found: list[int], cluster_id: str, gen: int) -> int:
    """Return the place of the last segment that begins a log anew; what lies before it counts for nothing.

    A head that is bad is no beginning: then the reading comes to it from the one before, and finds it damaged.
    """
    for place in range(len(found) - 1, 0, -1):
        with path_of(folder, found[place]).open("rb") as file:
            data = file.read(_HEAD_BYTES)
        try:
            record = records.decode(data, 0, records.SEED[records.SEGMENT], records.SEGMENT)
        except records.BadRecord:
            continue
        head = msgspec.msgpack.decode(record.payload, type=SegmentHead)
        if (head.cluster_id, head.gen, head.serial, head.batches) == (cluster_id, gen, found[place], None):
            return place
    return 0


class _Torn(records.BadRecord):
    """The batch is not whole: perhaps it was being written in the last moment."""


class _CutShort(records.BadRecord):
    """It is the segment before that is bad, from this position on."""


class _Reader:
    """Reads one segment after the other into a `Scan`."""

    def __init__(self, folder: Path, result: Scan, mark: Synced, cluster_id: str, gen: int) -> None:
        self._folder, self._result, self._mark = folder, result, mark
        self._cluster_id, self._gen = cluster_id, gen
        self._chain = b""  # the digest of the last entry; empty: no segment was read yet

    def read(self, serial: int, last: bool) -> None:
        """Read all of a segment."""
        result, path = self._result, path_of(self._folder, serial)
        data = path.read_bytes()
        marked = self._mark.offset if self._mark.segment == serial else 0  # synced as far as the mark knows
        position = 0
        try:
            position = self._head(data, serial)
            while position < len(data):
                position = self._batch(data, position, serial)
        except _Torn as bad:
            later = self._later_batch(data, bad.position + 1)
            if last and self._mark.segment <= serial and position >= marked and not later:
                why = f"{bad.reason}; cut at byte {position}, behind it nothing was acknowledged"
                result.torn.append(Damage(str(path), bad.position, why))
            else:
                self._damaged(path, position, marked, later, bad)
        except _CutShort as bad:
            result.damaged.append(Damage(str(path_of(self._folder, serial - 1)), bad.position, bad.reason))
        except records.BadRecord as bad:
            self._damaged(path, position, marked, 0, bad)
        if not result.damaged and position < marked:
            why = f"cut short: it ends at byte {position} and was synced up to byte {marked}"
            result.damaged.append(Damage(str(path), position, why))
        result.end, result.size, result.tail = position, len(data), marked

    def _damaged(self, path: Path, position: int, marked: int, later: int, bad: records.BadRecord) -> None:
        reason = bad.reason
        if position < marked:
            reason += f"; the file was synced up to byte {marked}"
        elif later:
            reason += f"; a later batch at byte {later} proves that this one was synced"
        self._result.damaged.append(Damage(str(path), bad.position, reason))

    def _head(self, data: bytes, serial: int) -> int:
        """Read the head of a segment; return where it ends."""
        result = self._result
        record = records.decode(data, 0, records.SEED[records.SEGMENT], records.SEGMENT)
        head = msgspec.msgpack.decode(record.payload, type=SegmentHead)
        if (head.cluster_id, head.gen) != (self._cluster_id, self._gen):
            raise records.BadRecord(0, f"belongs to cluster {head.cluster_id} generation {head.gen}, not to this one")
        if head.serial != serial:
            raise records.BadRecord(0, f"it is file {head.serial} of the log: its name or its place was changed")
        if not self._chain:
            result.first, result.before, self._chain = record.index, head.previous, head.previous
            result.begins = head.batches is None
            result.committed = record.index - 1 if result.begins else 0
        else:
            if head.batches is not None and head.batches > result.batch:
                why = f"cut short: it ends with batch {result.batch}, and the file behind it says with {head.batches}"
                raise _CutShort(result.end, why)
            if (head.batches, record.index, head.previous) != (result.batch, result.last + 1, self._chain):
                raise records.BadRecord(0, "does not follow on the file before: its name or its place was changed")
        result.segments.append(Segment(serial, record.index))
        result.salt, result.batch = head.salt, 0
        self._hold_against_mark(serial, record.end)
        return record.end

    def _batch(self, data: bytes, position: int, serial: int) -> int:
        """Read one batch; return where it ends."""
        result = self._result
        try:
            record = records.decode(data, position, result.salt, records.BATCH)
        except records.BadRecord as bad:
            raise _Torn(bad.position, bad.reason) from None
        head = msgspec.msgpack.decode(record.payload, type=_BatchHead)
        end = record.end + head.length
        if end > len(data):
            raise _Torn(position, f"cut off: the batch ends at byte {end}, the file at byte {len(data)}")
        if records.digest_of(result.salt, memoryview(data)[record.end : end]) != head.digest:
            raise self._worst(data, record.end, end)
        if (head.number, record.index) != (result.batch + 1, result.last + 1):
            raise records.BadRecord(position, f"batch {head.number} lies where batch {result.batch + 1} belongs")
        place = record.end
        while place < end:
            place = self._take_entries(data, place, end)
            if place < end:
                place = self._take_other(data, place)
        result.batch += 1
        self._hold_against_mark(serial, end)
        return end

    def _worst(self, data: bytes, place: int, end: int) -> _Torn:
        """Return what to say of a batch whose digest does not fit: its first bad record, if one can be found."""
        chain = self._chain
        start = place
        try:
            while place < end:
                kind = data[place + records.KIND_AT] if place + records.KIND_AT < end else 0
                record = records.decode(data, place, records.SEED.get(kind, chain))
                place = record.end
                chain = record.payload if kind == records.CUT else chain if kind in records.SEED else record.digest
        except records.BadRecord as bad:
            return _Torn(bad.position, bad.reason)
        return _Torn(start, "the checksum of the batch does not fit: records of it were changed")

    def _take_entries(self, data: bytes, place: int, end: int) -> int:
        """Let the entries that follow on one another in a whole batch count; return where they end. Nearly all that is
        read is read here, so it is a loop of its own."""
        found, chain = self._result.entries, self._chain
        due = self._result.last + 1
        while place < end and data[place + records.KIND_AT] < records.SEGMENT:
            record = records.decode(data, place, chain)
            if record.index != due:
                raise records.BadRecord(place, f"entry {record.index} lies where entry {due} belongs")
            found.append(record)
            chain, place, due = record.digest, record.end, due + 1
        self._chain = chain
        return place

    def _take_other(self, data: bytes, place: int) -> int:
        """Let a record of a whole batch count that is no entry; return where it ends."""
        result = self._result
        kind = data[place + records.KIND_AT]
        record = records.decode(data, place, records.SEED.get(kind, self._chain))
        if kind == records.CUT:
            self._cut(record)
        elif kind == records.COMMITTED:
            if record.index <= result.last:
                result.committed = max(result.committed, record.index)
        else:
            raise records.BadRecord(place, f"a record of kind {kind} does not belong into a batch")
        return record.end

    def _cut(self, record: records.Record) -> None:
        """Give up the entries behind a cut. It may lie before the first segment there is: what it left was trimmed."""
        result, index = self._result, record.index
        if not result.committed <= index <= result.last:
            why = f"a cut at {index} of a log that ends at {result.last} and is committed up to {result.committed}"
            raise records.BadRecord(record.position, why)
        if index < result.first - 1 and not result.begins:
            result.first, result.before = index + 1, record.payload
        elif record.payload != result.digest_at(index):
            raise records.BadRecord(record.position, f"a cut names another entry {index} than the log has")
        del result.entries[index - result.first + 1 :]
        self._chain = record.payload

    def _hold_against_mark(self, serial: int, place: int) -> None:
        if (self._mark.segment, self._mark.offset) != (serial, place):
            return
        if (self._mark.index, self._mark.chain) != (self._result.last, self._chain):
            raise records.BadRecord(place, "the synced mark belongs to another log than this one")

    def _later_batch(self, data: bytes, start: int) -> int:
        """Return where a sound batch record lies at or past `start`, 0: nowhere."""
        while (start := data.find(records.MAGIC, start)) >= 0:
            try:
                records.decode(data, start, self._result.salt, records.BATCH)
            except records.BadRecord:
                start += 1
            else:
                return start
        return 0
