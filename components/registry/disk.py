"""One copy's folder: open it and say what it holds, append batches durably, keep snapshots, trim.

Knows records, not what entries say (the machine and the store do). `load` reads and judges without changing anything;
`Disk` then makes the folder fit for writing: cuts what was torn, writes the unmarked tail once more and syncs it (after
a failed sync the kernel may show bytes that are not on the disk), and only then may a machine start on what was loaded.
`append` and `trim` belong to one thread, `write_snapshot` may run in another: it touches files of its own.

    identity            cluster id, generation, ids of server and disk
    hard-state          the promised epoch, and the vote
    log-<first index>   segments (segments.py)
    synced              how far the log is durable (mark.py)
    snapshot-<index>    the whole state at an index, the newest two
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ...errors import AlreadyRunning
from . import records
from .files import NoRoom, failed, names, sync_folder, unsynced, write_all, write_aside, write_new
from .loaded import Damage, Identity, Loaded
from .mark import NAME as MARK_NAME
from .mark import MarkFile, Synced
from .segments import Scan, SegmentHead, encode_batch, encode_head, path_of, scan
from .settings import Settings

IDENTITY = "identity"
HARD_STATE = "hard-state"
SNAPSHOTS_KEPT = 2
_SNAPSHOT = re.compile(r"snapshot-(\d{20})")


def folder_of(folder: Path) -> Path:
    """Return the registry's own folder below a cluster's folder."""
    return folder / "configuration" / "registry"


def encode_identity(identity: Identity) -> bytes:
    """Return the identity file."""
    payload = msgspec.msgpack.encode(identity)
    return records.encode(records.IDENTITY, 0, 0, payload, records.SEED[records.IDENTITY])


def snapshot_path(folder: Path, index: int) -> Path:
    """Return the path of the snapshot at `index`."""
    return folder / f"snapshot-{index:020d}"


def snapshot_indexes(folder: Path) -> list[int]:
    """Return the indexes of the snapshots in the folder, newest first."""
    found = (_SNAPSHOT.fullmatch(name) for name in names(folder))
    return sorted((int(match[1]) for match in found if match), reverse=True)


def _read_one(path: Path, kind: int, damaged: list[Damage]) -> records.Record | None:
    try:
        return records.decode_only(path.read_bytes(), kind)
    except FileNotFoundError:
        damaged.append(Damage(str(path), 0, "the file is missing"))
    except records.BadRecord as bad:
        damaged.append(Damage(str(path), bad.position, bad.reason))
    return None


def load(folder: Path, cluster_id: str) -> tuple[Loaded, Scan | None]:
    """Read everything in the copy's folder and judge it; changes nothing."""
    damaged: list[Damage] = []
    repaired: list[Damage] = []
    if not folder.is_dir():
        return Loaded(damaged=(Damage(str(folder), 0, "the folder of this server's copy is missing"),)), None
    identity = _read_identity(folder, cluster_id, damaged)
    hard_state = _read_one(folder / HARD_STATE, records.HARD_STATE, damaged)
    mark, _, wrong = MarkFile.read(folder / MARK_NAME)
    (repaired if mark else damaged).extend(wrong)
    if identity is None or mark is None or hard_state is None:
        return Loaded(identity=identity, damaged=tuple(damaged)), None
    found = scan(folder, identity.cluster_id, identity.gen, mark)
    damaged.extend(found.damaged)
    repaired.extend(found.torn)
    snapshot = _choose_snapshot(folder, found, damaged, repaired)
    if damaged:
        return Loaded(identity=identity, damaged=tuple(damaged)), None
    base = snapshot.index if snapshot else 0
    entries = tuple(record for record in found.entries if record.index > base)
    promised = max(hard_state.epoch, entries[-1].epoch if entries else 0, snapshot.epoch if snapshot else 0)
    sound = Loaded(identity, promised, snapshot=snapshot, entries=entries, repaired=tuple(repaired))
    return sound, found


def _read_identity(folder: Path, cluster_id: str, damaged: list[Damage]) -> Identity | None:
    record = _read_one(folder / IDENTITY, records.IDENTITY, damaged)
    if record is None:
        return None
    identity = msgspec.msgpack.decode(record.payload, type=Identity)
    if identity.cluster_id != cluster_id:
        why = f"it belongs to cluster {identity.cluster_id}, this node's cluster is {cluster_id}"
        damaged.append(Damage(str(folder / IDENTITY), 0, why))
        return None
    return identity


def _choose_snapshot(folder: Path, found: Scan, damaged: list[Damage], repaired: list[Damage]) -> records.Record | None:
    """Return the newest sound snapshot that the log goes on from; none is needed while the log is whole.

    A bad snapshot costs nothing while an older one (or none) and the chained log lead to the same place.
    """
    bad: list[Damage] = []
    for index in snapshot_indexes(folder):
        path = snapshot_path(folder, index)
        record = _read_one(path, records.SNAPSHOT, bad)
        if record is None:
            continue
        if record.index != index or not _joins(found, record):
            bad.append(Damage(str(path), 0, "it does not belong to this log: its name or its place was changed"))
            continue
        repaired.extend(bad)
        return record
    if found.first == 1 or found.damaged:
        repaired.extend(bad)
        return None
    if not bad:
        why = f"the log begins with entry {found.first} and there is no snapshot of what was before"
        bad.append(Damage(str(path_of(folder, found.first)), 0, why))
    damaged.extend(bad)
    return None


def _joins(found: Scan, snapshot: records.Record) -> bool:
    """Does the log go on from this snapshot? The snapshot's first bytes are the digest of its last entry."""
    chain = snapshot.payload[: records.DIGEST_BYTES]
    place = snapshot.index - found.first
    if place == -1:
        return chain == found.before
    return 0 <= place < len(found.entries) and found.entries[place].digest == chain


class Disk:
    """The copy's folder, opened for writing by this process alone."""

    def __init__(self, folder: Path, settings: Settings, lock: int, loaded: Loaded, found: Scan) -> None:
        assert loaded.identity is not None
        self._folder, self._settings, self._lock = folder, settings, lock
        self._identity = loaded.identity
        self._segments = list(found.segments)
        last = found.entries[-1] if found.entries else None
        self._index = last.index if last else found.first - 1
        self._chain = last.digest if last else found.before
        self._descriptor = -1
        self._offset, self._batch, self._salt = found.end, found.batch, found.salt
        _, serial, _ = MarkFile.read(folder / MARK_NAME)
        self._mark = MarkFile(folder / MARK_NAME, serial)

    @classmethod
    def open(cls, folder: Path, cluster_id: str, settings: Settings | None = None) -> tuple[Disk | None, Loaded]:
        """Lock, load and make fit; a damaged copy is returned as loaded, without a `Disk` and untouched.

        Raises `AlreadyRunning` when another process has it open, `DiskFailed` when it cannot be made durable.
        """
        if not folder.is_dir():
            return None, load(folder, cluster_id)[0]
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise AlreadyRunning(
                f"another process has the registry's files in {folder} open", "stop the other daemon first"
            ) from None
        try:
            loaded, found = load(folder, cluster_id)
            if found is None:
                os.close(lock)
                return None, loaded
            disk = cls(folder, settings or Settings(), lock, loaded, found)
            disk._make_fit(loaded, found)
        except BaseException:
            os.close(lock)
            raise
        return disk, loaded

    def _make_fit(self, loaded: Loaded, found: Scan) -> None:
        path = self._folder
        try:
            for left in sorted(self._folder.glob("*.tmp")):
                left.unlink()
            for damage in loaded.repaired:
                path = Path(damage.path)
                if _SNAPSHOT.fullmatch(path.name):
                    path.replace(self._folder / "snapshot-unreadable")  # one is kept, for whoever looks into it
            if found.end == 0:  # the head of a new segment was torn
                self._begin_segment()
                return
            path = path_of(self._folder, self._segments[-1])
            self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            tail = os.pread(self._descriptor, found.end - found.tail, found.tail)
            if tail:
                write_all(self._descriptor, tail, found.tail)
            if found.size > found.end:
                os.ftruncate(self._descriptor, found.end)
            os.fsync(self._descriptor)
            sync_folder(self._folder)
            self._write_mark()
        except OSError as error:
            failed(path, error)

    def _begin_segment(self) -> None:
        """Start a new log file; its head and its name are durable before anything is written behind it."""
        first = self._index + 1
        path = path_of(self._folder, first)
        salt = os.urandom(16)
        head = SegmentHead(self._identity.cluster_id, self._identity.gen, salt, self._chain)
        data = encode_head(head, first)
        with unsynced(path, lambda: self._remove(path)):
            descriptor = write_new(path, data)
        os.fsync(descriptor)
        sync_folder(self._folder)
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._salt = descriptor, salt
        self._segments.append(first)
        self._offset, self._batch = len(data), 0
        self._write_mark()

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        sync_folder(self._folder)

    def _cut(self) -> None:
        """Take back what was written behind the last synced batch; only then may the next one be written there."""
        os.ftruncate(self._descriptor, self._offset)
        os.fsync(self._descriptor)

    def _write_mark(self) -> None:
        self._mark.write(Synced(self._index, self._segments[-1], self._offset, self._chain))

    def append(self, batch: Sequence[bytes]) -> None:
        """Make records durable, all together: hard states by replacing their file, entries behind the log.

        Returns when they are synced. Raises `NoRoom`: then no entry of them is there and the next batch may come, but
        not one that is chained to them; `DiskFailed`: then the process must end, whatever is in the file.
        """
        path, position = self._folder / HARD_STATE, 0
        try:
            entries: list[bytes] = []
            for record in batch:
                if records.kind_of(record) == records.HARD_STATE:
                    write_aside(path, record)
                else:
                    entries.append(record)
            if not entries:
                return
            if self._batch and self._offset >= self._settings.segment_bytes:
                path = path_of(self._folder, self._index + 1)
                self._begin_segment()
            path, position = path_of(self._folder, self._segments[-1]), self._offset
            data = encode_batch(self._batch + 1, self._index + 1, entries, self._salt)
            with unsynced(path, self._cut):
                write_all(self._descriptor, data, position)
            os.fdatasync(self._descriptor)
            self._batch += 1
            self._index += len(entries)
            self._offset += len(data)
            self._chain = records.digest(entries[-1])
            self._write_mark()
        except NoRoom:
            raise
        except OSError as error:
            failed(path, error, position)

    def write_snapshot(self, record: bytes) -> None:
        """Write a snapshot durably under its own name. Raises `OSError`; the log is not touched by that."""
        path = snapshot_path(self._folder, records.index_of(record))
        try:
            write_aside(path, record)
        except OSError:
            path.with_name(path.name + ".tmp").unlink(missing_ok=True)
            raise

    def trim(self) -> None:
        """Keep the newest two snapshots and the log from the older of them on; remove the rest."""
        path = self._folder
        try:
            self._mark.sync()
            indexes = snapshot_indexes(self._folder)
            for index in indexes[SNAPSHOTS_KEPT:]:
                snapshot_path(self._folder, index).unlink()
            if len(indexes) < SNAPSHOTS_KEPT:
                return
            oldest = indexes[SNAPSHOTS_KEPT - 1]
            while len(self._segments) > 1 and self._segments[1] <= oldest + 1:
                path = path_of(self._folder, self._segments[0])
                path.unlink()
                del self._segments[0]
            sync_folder(self._folder)
        except OSError as error:
            failed(path, error)

    def close(self) -> None:
        """Sync the mark and close the files."""
        try:
            self._mark.sync()
        except OSError as error:
            failed(self._folder / MARK_NAME, error)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close the files as they are and give up the lock: what is left to do after `DiskFailed`."""
        self._mark.close()
        for descriptor in (self._descriptor, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
