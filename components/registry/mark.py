"""The synced mark: how far the log was durable when an answer last left. It tells a log cut short from a torn one.

Knows the place of a byte in the log, not what lies there: a serial and an offset, which only rise, while the index that
it names for comparison goes back with a cut. The file has two slots of one disk sector each, written in turn after each
sync of the log, so a write of the mark that tears leaves an older one. The mark itself is not synced with every write
(that would double the time of a put): it is a lower bound, right at once after a kill of the process, and at most as
old as the kernel's write-back after a loss of power. It is synced before anything is removed; an older slot may still
name a segment that was trimmed, and then says nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from . import records
from .files import write_all, write_aside
from .loaded import Damage

SLOT_BYTES = 512
NAME = "synced"


class Synced(msgspec.Struct, frozen=True, array_like=True):
    """All of the log up to byte `offset` of the segment with the serial `segment` is durable; there entry `index` is
    the last one, and `chain` its digest."""

    index: int
    segment: int
    offset: int
    chain: bytes


_decoder = msgspec.msgpack.Decoder(Synced)


def _slot(serial: int, synced: Synced) -> bytes:
    payload = msgspec.msgpack.encode(synced)
    return records.encode(records.MARK, serial, synced.index, payload, records.SEED[records.MARK])


class MarkFile:
    """The open mark file of one copy; used by the thread that writes the log."""

    def __init__(self, path: Path, serial: int) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        self._serial = serial

    @staticmethod
    def create(path: Path, synced: Synced) -> None:
        """Write a new mark file with both slots filled."""
        data = b"".join(_slot(serial, synced).ljust(SLOT_BYTES, b"\0") for serial in (0, 1))
        write_aside(path, data)

    @staticmethod
    def read(path: Path) -> tuple[Synced | None, int, list[Damage]]:
        """Return the newest mark, its serial, and what is wrong with a slot; no mark at all: None."""
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None, 0, [Damage(str(path), 0, "the file is missing, so nothing says how far the log was synced")]
        found: list[tuple[int, Synced]] = []
        wrong: list[Damage] = []
        for position in (0, SLOT_BYTES):
            try:
                record = records.decode(data, position, records.SEED[records.MARK], records.MARK)
                found.append((record.epoch, _decoder.decode(record.payload)))
            except records.BadRecord as bad:
                wrong.append(Damage(str(path), position, f"a slot of the synced mark cannot be read: {bad.reason}"))
        if not found:
            return None, 0, wrong
        serial, synced = max(found, key=lambda pair: pair[0])
        return synced, serial, wrong

    def write(self, synced: Synced) -> None:
        """Say how far the log is durable now."""
        self._serial += 1
        write_all(self._descriptor, _slot(self._serial, synced), SLOT_BYTES * (self._serial % 2))

    def sync(self) -> None:
        """Make the mark itself durable."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the file, if it is open."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1
