"""One copy's folder, open for writing: append batches durably, keep snapshots, trim, install what the primary sent.

Knows records, not what entries say (the machine and the store do). `open` makes the folder fit for writing: takes off
what was torn, writes the unmarked tail once more and syncs it (after a failed sync the kernel may show bytes that are
not on the disk), and only then may a machine start on what was loaded. `append` and `trim` belong to one thread,
`write_snapshot` may run in another: it touches files of its own.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from ...errors import AlreadyRunning
from . import layout, records
from .files import NoRoom, aside_of, failed, show, sync_folder, unsynced, write_all, write_aside, write_hidden
from .layout import HARD_STATE, UNREADABLE, end_of_snapshot, is_snapshot, snapshot_indexes, snapshot_path
from .loaded import Loaded
from .loading import load
from .mark import NAME as MARK_NAME
from .mark import MarkFile, Synced
from .segments import End, Scan, Segment, SegmentHead, encode_batch, encode_head, path_of
from .settings import Settings

SNAPSHOTS_KEPT = 2


def _lock(folder: Path) -> int:
    """Hold the folder for this process alone until the descriptor is closed."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise AlreadyRunning(
            f"another process has the registry's files in {folder} open", "stop the other daemon first"
        ) from None
    return lock


class Disk:
    """The copy's folder, opened for writing by this process alone."""

    def __init__(self, folder: Path, settings: Settings, lock: int, loaded: Loaded, found: Scan) -> None:
        assert loaded.identity is not None
        self._folder, self._settings, self._lock = folder, settings, lock
        self._identity = loaded.identity
        self._segments = list(found.segments)
        self._end = End(found.last, found.digest_at(found.last), loaded.committed)
        self._base = found.first - 1 if found.begins else 0  # no snapshot below this one is of any use
        self._descriptor = -1
        self._offset, self._batch, self._salt = found.end, found.batch, found.salt
        _, serial, _ = MarkFile.read(folder / MARK_NAME)
        self._mark = MarkFile(folder / MARK_NAME, serial)
        self._snapshots, self._closed = threading.Lock(), False

    @classmethod
    def open(cls, folder: Path, cluster_id: str, settings: Settings | None = None) -> tuple[Disk | None, Loaded]:
        """Lock, load and make fit; a damaged copy is returned as loaded, without a `Disk` and untouched.

        Raises `AlreadyRunning` when another process has it open, `DiskFailed` when it cannot be made durable.
        """
        if not folder.is_dir():
            layout.remove_aside(folder)
            return None, load(folder, cluster_id)[0]
        lock = _lock(folder)
        try:
            layout.remove_aside(folder)
            loaded, found = load(folder, cluster_id)
            if found is None:
                os.close(lock)
                return None, loaded
            disk = cls(folder, settings or Settings(), lock, loaded, found)
        except BaseException:
            os.close(lock)
            raise
        try:
            disk._make_fit(loaded, found)
        except BaseException:
            disk.abandon()
            raise
        return disk, loaded

    @classmethod
    def refill(
        cls,
        folder: Path,
        cluster_id: str,
        settings: Settings,
        hard_state: bytes,
        snapshot: bytes,
        *,
        gen: int,
        log: Sequence[bytes] = (),
    ) -> Disk:
        """Put a whole new copy in the place of a damaged, missing or superseded one, and open it.

        It begins with the state in the record `snapshot`, of generation `gen`, and holds the records `log` behind it.
        The old one stays beside it as `registry.damaged`; whoever has it open must have closed it. After a crash
        there is the old copy, none, or the new one. Raises `NoRoom`: then nothing has changed; `AlreadyRunning`;
        `DiskFailed`.
        """
        lock = _lock(folder) if folder.is_dir() else -1
        try:
            with unsynced(folder, lambda: layout.remove_aside(folder)):
                layout.write_copy(layout.make_aside(folder), cluster_id, gen, hard_state, snapshot, log)
            layout.take_place(folder)
        except NoRoom:
            raise
        except OSError as error:
            failed(folder, error)
        finally:
            if lock >= 0:
                os.close(lock)
        disk, loaded = cls.open(folder, cluster_id, settings)
        if disk is None:
            raise loaded.damaged[0].error()
        return disk

    def _make_fit(self, loaded: Loaded, found: Scan) -> None:
        path = self._folder
        try:
            for left in sorted(self._folder.glob("*.tmp")):
                left.unlink()
            for damage in loaded.repaired:
                path = Path(damage.path)
                if is_snapshot(path):
                    path.replace(self._folder / UNREADABLE)  # one is kept, for whoever looks into it
            path = path_of(self._folder, self._segments[-1].serial)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            tail = os.pread(self._descriptor, found.end - found.tail, found.tail)
            if tail:
                write_all(self._descriptor, tail, found.tail)
            if found.size > found.end:
                os.ftruncate(self._descriptor, found.end)
            os.fsync(self._descriptor)
            sync_folder(self._folder)
            self._write_mark()
            self._remove_superseded(found.superseded)
            for index in snapshot_indexes(self._folder):
                if index < self._base:
                    snapshot_path(self._folder, index).unlink()
        except OSError as error:
            failed(path, error)

    # --- the log ---

    def append(self, batch: Sequence[bytes]) -> None:
        """Make records durable, all together: a hard state by replacing its file, the others behind the log.

        A SNAPSHOT among them was sent by the primary: it supersedes the log before it and what stands before it in
        `batch`; the log begins anew behind it. Returns when all is synced. Raises `NoRoom`: then none of the log's
        records is there, no snapshot was installed, and the next batch may come, but not one that builds on them;
        `DiskFailed`: then the process must end, whatever is in the files; ValueError for records that cannot follow.
        """
        path, position = self._folder / HARD_STATE, 0
        hard_state, snapshot, log = _sorted(batch)
        begin = end_of_snapshot(snapshot) if snapshot else self._end
        end = begin.follow(log)
        try:
            if hard_state:
                write_aside(path, hard_state)
            path = path_of(self._folder, self._segments[-1].serial + 1)
            if snapshot:
                self._install(snapshot, begin, end, log)
            elif log and self._batch and self._offset >= self._settings.segment_bytes:
                self._begin_segment(begin, end, log)
            elif log:
                path, position = path_of(self._folder, self._segments[-1].serial), self._offset
                self._add(path, end, log)
        except NoRoom:
            raise
        except OSError as error:
            failed(path, error, position)

    def _add(self, path: Path, end: End, log: Sequence[bytes]) -> None:
        """Write a batch behind the last one."""
        data = encode_batch(self._batch + 1, self._end.last + 1, log, self._salt)
        with unsynced(path, self._take_back):
            write_all(self._descriptor, data, self._offset)
        os.fdatasync(self._descriptor)
        self._batch += 1
        self._offset += len(data)
        self._end = end
        self._write_mark()

    def _take_back(self) -> None:
        """Remove what was written behind the last synced batch; only then may the next one be written there."""
        os.ftruncate(self._descriptor, self._offset)
        os.fsync(self._descriptor)

    def _begin_segment(self, begin: End, end: End, log: Sequence[bytes], snapshot: bytes = b"") -> None:
        """Start a new log file with its first batch. It gets its name when all of it is durable.

        With a snapshot the log begins anew behind that: it is durable first, for the file's name makes it count.
        """
        serial, salt = self._segments[-1].serial + 1, os.urandom(16)
        batches = None if snapshot else self._batch
        head = SegmentHead(self._identity.cluster_id, self._identity.gen, salt, serial, begin.chain, batches)
        data = encode_head(head, begin.last + 1)
        if log:
            data += encode_batch(1, begin.last + 1, log, salt)
        path = path_of(self._folder, serial)
        descriptor = write_hidden(path, data)
        try:
            if snapshot:
                self._show_snapshot(path, snapshot, begin)
            show(path)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(self._descriptor)
        self._descriptor, self._salt = descriptor, salt
        self._segments.append(Segment(serial, begin.last + 1))
        self._offset, self._batch = len(data), 1 if log else 0
        self._end = end
        self._write_mark()

    def _show_snapshot(self, segment: Path, snapshot: bytes, begin: End) -> None:
        try:
            write_aside(snapshot_path(self._folder, begin.last), snapshot)
        except NoRoom:
            aside_of(segment).unlink()
            raise

    def _install(self, snapshot: bytes, begin: End, end: End, log: Sequence[bytes]) -> None:
        """Let the log begin anew behind a snapshot, then remove all that was before."""
        superseded = [segment.serial for segment in self._segments]
        self._begin_segment(begin, end, log, snapshot)
        self._base = begin.last
        del self._segments[:-1]
        self._remove_superseded(superseded)
        for index in snapshot_indexes(self._folder):
            if index != begin.last:
                snapshot_path(self._folder, index).unlink(missing_ok=True)

    def _remove_superseded(self, superseded: Sequence[int]) -> None:
        """Remove the log before the segment that begins it anew; until the mark knows that one, it must stay."""
        if not superseded:
            return
        self._mark.sync()
        for serial in superseded:
            path_of(self._folder, serial).unlink()
        sync_folder(self._folder)

    def _write_mark(self) -> None:
        self._mark.write(Synced(self._end.last, self._segments[-1].serial, self._offset, self._end.chain))

    # --- snapshots of its own ---

    def write_snapshot(self, record: bytes) -> None:
        """Write a snapshot durably under its own name. Raises `OSError`; the log is not touched by that.

        Odd: while it is written, a newer one may be installed, which removes all others; then this one goes too.
        """
        path = snapshot_path(self._folder, records.index_of(record))
        with self._snapshots:
            if self._closed:
                raise OSError(errno.EBADF, "the copy was closed", str(path))
            try:
                write_aside(path, record)
            except OSError:
                aside_of(path).unlink(missing_ok=True)
                raise
        if records.index_of(record) < self._base:
            path.unlink(missing_ok=True)

    def trim(self) -> None:
        """Keep the newest two snapshots and the log from the older of them on; remove the rest.

        A segment may be the first when it was begun at or before the entry behind that snapshot: a cut in it or behind
        it that lies before its beginning was made before the snapshot was, and the entries after the cut are there.
        """
        path = self._folder
        try:
            self._mark.sync()
            indexes = snapshot_indexes(self._folder)
            for index in indexes[SNAPSHOTS_KEPT:]:
                snapshot_path(self._folder, index).unlink()
            if len(indexes) < SNAPSHOTS_KEPT:
                return
            oldest = indexes[SNAPSHOTS_KEPT - 1]
            needed = [place for place, segment in enumerate(self._segments) if segment.first <= oldest + 1]
            for _ in range(max(needed, default=0)):
                path = path_of(self._folder, self._segments[0].serial)
                path.unlink()
                sync_folder(self._folder)  # in this order on the disk too: a hole between two files would be damage
                del self._segments[0]
        except OSError as error:
            failed(path, error)

    # --- the end ---

    def close(self) -> None:
        """Sync the mark and close the files. A snapshot that is being written is finished first: what comes to this
        folder later is another copy."""
        with self._snapshots:
            self._closed = True
        try:
            self._mark.sync()
        except OSError as error:
            failed(self._folder / MARK_NAME, error)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close the files as they are and give up the lock: what is left to do after `DiskFailed`."""
        self._mark.close()
        held, self._descriptor, self._lock = (self._descriptor, self._lock), -1, -1
        for descriptor in held:
            if descriptor >= 0:
                os.close(descriptor)


def _sorted(batch: Sequence[bytes]) -> tuple[bytes, bytes, list[bytes]]:
    """Return the last hard state, the last snapshot (empty: there is none), and the log's records behind that."""
    hard_state = snapshot = b""
    log: list[bytes] = []
    for record in batch:
        kind = records.kind_of(record)
        if kind == records.HARD_STATE:
            hard_state = record
        elif kind == records.SNAPSHOT:
            snapshot = record
            log.clear()
        else:
            log.append(record)
    return hard_state, snapshot, log
