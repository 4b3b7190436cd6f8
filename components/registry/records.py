"""The record: the one format of every file of the registry. Pure: bytes in, bytes out.

Knows no file, no entry and no state. A record is

    magic 4 | length of payload 4 | kind 1 | epoch 8 | index 8 | payload | blake2b-16 of (previous digest, all before)

all numbers big-endian. Log entries are chained: `previous` is the digest of the entry before, so an order, a tear, a
flip and a swap are all seen, and two logs with the same digest at an index are the same up to there. Records of
other kinds are not part of the chain: each kind has a fixed word as `previous`, so one kind is never read as another.
"""

from __future__ import annotations

import struct
from hashlib import blake2b

import msgspec

MAGIC = b"CVR1"
HEADER = struct.Struct(">4sIBQQ")
KIND_AT = 8  # where a record's kind lies in it
SMALL = 4096  # bytes of payload up to which a record is copied to be checked
DIGEST_BYTES = 16
START = bytes(DIGEST_BYTES)  # what the first entry of a log is chained to

# kinds below 32 are log entries (entries.py names them), the others are about files
SEGMENT, BATCH, SNAPSHOT, IDENTITY, HARD_STATE, MARK, CUT, COMMITTED = range(32, 40)
SEED = {
    SEGMENT: b"segment",
    SNAPSHOT: b"snapshot",
    IDENTITY: b"identity",
    HARD_STATE: b"hard-state",
    MARK: b"mark",
    CUT: b"cut",
    COMMITTED: b"committed",
}


class BadRecord(Exception):
    """The bytes at `position` are not the record that belongs there; `reason` says what is wrong with them."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(f"at byte {position}: {reason}")
        self.position = position
        self.reason = reason


class Record(msgspec.Struct, frozen=True, gc=False):
    """One sound record, and where it lay: bytes `position` to `end`."""

    kind: int
    epoch: int
    index: int
    payload: bytes
    digest: bytes
    position: int
    end: int


def digest_of(previous: bytes, *parts: bytes | memoryview) -> bytes:
    """Return the digest of a record: blake2b over the previous digest (or the kind's word), then the bytes."""
    state = blake2b(previous, digest_size=DIGEST_BYTES)
    for part in parts:
        state.update(part)
    return state.digest()


def encode(kind: int, epoch: int, index: int, payload: bytes, previous: bytes) -> bytes:
    """Return the whole record; its last 16 bytes are its digest."""
    head = HEADER.pack(MAGIC, len(payload), kind, epoch, index)
    return b"".join((head, payload, digest_of(previous, head, payload)))


def encode_hard_state(promised: int, voted_for: int = 0) -> bytes:
    """Return the hard-state file: the newest epoch this server promised to, and whom it voted for in it (0: nobody)."""
    payload = msgspec.msgpack.encode({"voted_for": voted_for or None})
    return encode(HARD_STATE, promised, 0, payload, SEED[HARD_STATE])


def decode_vote(hard_state: Record) -> int:
    """Return whom a hard state's record says was voted for, 0: nobody."""
    return int(msgspec.msgpack.decode(hard_state.payload)["voted_for"] or 0)


def encode_cut(index: int, epoch: int, chain: bytes) -> bytes:
    """Return the record that gives up all entries behind `index`; `epoch` and `chain` are those of that entry."""
    return encode(CUT, epoch, index, chain, SEED[CUT])


def encode_committed(index: int) -> bytes:
    """Return the record that says that all entries up to `index` are committed: what may be read after a restart."""
    return encode(COMMITTED, 0, index, b"", SEED[COMMITTED])


def digest(record: bytes) -> bytes:
    """Return the digest of an encoded record."""
    return record[-DIGEST_BYTES:]


def kind_of(record: bytes) -> int:
    """Return the kind of an encoded record, unchecked: for bytes that this process made itself."""
    return record[KIND_AT]


def index_of(record: bytes) -> int:
    """Return the index of an encoded record, unchecked like its kind."""
    index: int = HEADER.unpack_from(record)[4]
    return index


def unchecked(data: bytes) -> Record:
    """Return what one encoded record says, its digest unchecked: for bytes that were checked when they came in."""
    _, _, kind, epoch, index = HEADER.unpack_from(data)
    return Record(kind, epoch, index, data[HEADER.size : -DIGEST_BYTES], data[-DIGEST_BYTES:], 0, len(data))


def encoded(record: Record) -> bytes:
    """Return the bytes that a record was decoded from."""
    head = HEADER.pack(MAGIC, len(record.payload), record.kind, record.epoch, record.index)
    return b"".join((head, record.payload, record.digest))


def payload_of(record: bytes) -> bytes:
    """Return the payload of an encoded record, unchecked like its kind."""
    return record[HEADER.size : -DIGEST_BYTES]


def decode(data: bytes | memoryview, position: int, previous: bytes, kind: int | None = None) -> Record:
    """Read the record at `position`, chained to `previous`; raise `BadRecord` unless every byte of it is right."""
    whole = len(data)
    body = position + HEADER.size
    if body > whole:
        raise BadRecord(position, f"cut off: {whole - position} bytes are left, a record begins with {HEADER.size}")
    magic, length, found, epoch, index = HEADER.unpack_from(data, position)
    if magic != MAGIC:
        raise BadRecord(position, "no record begins here")
    end = body + length + DIGEST_BYTES
    if end > whole:
        raise BadRecord(position, f"cut off: the record says it ends at byte {end}, the file at byte {whole}")
    written = bytes(data[end - DIGEST_BYTES : end])
    if length <= SMALL:  # nearly all are: to copy one costs less than to view it, and its digest is one call
        content = data[position : body + length]
        right = blake2b(b"".join((previous, content)), digest_size=DIGEST_BYTES).digest() == written
    else:
        right = digest_of(previous, memoryview(data)[position : body + length]) == written
    if not right:
        raise BadRecord(position, "the checksum does not fit: the record was changed, or is not the next one")
    if kind is not None and found != kind:
        raise BadRecord(position, f"a record of kind {found} lies where one of kind {kind} belongs")
    return Record(found, epoch, index, bytes(data[body : body + length]), written, position, end)


def decode_only(data: bytes, kind: int) -> Record:
    """Read a file that is one record of `kind` and nothing else; raise `BadRecord`."""
    record = decode(data, 0, SEED[kind], kind)
    if record.end != len(data):
        raise BadRecord(record.end, f"{len(data) - record.end} bytes follow the only record of this file")
    return record
