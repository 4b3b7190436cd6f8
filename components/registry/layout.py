"""The files of one copy: their names, how a whole new copy is written, and how it takes the place of another.

Knows records, not what an entry says.

    identity            cluster id, generation, ids of server and disk
    hard-state          the promised epoch, and the vote
    log-<serial>        segments (segments.py)
    synced              how far the log is durable (mark.py)
    snapshot-<index>    the whole state at an index, the newest two

A copy is made whole in the folder `registry.new` beside its place and gets there by one rename, so after a crash there
is the copy of before, or none, or the new one; never one that looks sound and is empty. What it replaces is kept as
`registry.damaged` until the next is replaced.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

import msgspec

from . import records
from .files import names, sync_folder, write_aside
from .loaded import Identity
from .mark import NAME as MARK_NAME
from .mark import MarkFile, Synced
from .segments import FIRST_SERIAL, End, SegmentHead, encode_batch, encode_head, path_of

IDENTITY = "identity"
HARD_STATE = "hard-state"
UNREADABLE = "snapshot-unreadable"
_SNAPSHOT = re.compile(r"snapshot-(\d{20})")


def folder_of(folder: Path) -> Path:
    """Return the registry's own folder below a cluster's folder."""
    return folder / "configuration" / "registry"


def snapshot_path(folder: Path, index: int) -> Path:
    """Return the path of the snapshot at `index`."""
    return folder / f"snapshot-{index:020d}"


def is_snapshot(path: Path) -> bool:
    """Is this the name of a snapshot that counts?"""
    return _SNAPSHOT.fullmatch(path.name) is not None


def snapshot_indexes(folder: Path) -> list[int]:
    """Return the indexes of the snapshots in the folder, newest first."""
    found = (_SNAPSHOT.fullmatch(name) for name in names(folder))
    return sorted((int(match[1]) for match in found if match), reverse=True)


def end_of_snapshot(snapshot: bytes) -> End:
    """Return where a log ends that holds nothing but the state of this encoded snapshot."""
    index = records.index_of(snapshot)
    return End(index, records.payload_of(snapshot)[: records.DIGEST_BYTES], index)


def write_copy(
    folder: Path, cluster_id: str, gen: int, hard_state: bytes, snapshot: bytes | None, log: Sequence[bytes]
) -> None:
    """Write the files of a new copy into an empty folder, all synced: it is a server and a disk of its own.

    Its log begins behind `snapshot` (None: with entry 1) and holds the records `log`.
    """
    begin = end_of_snapshot(snapshot) if snapshot else End(0, records.START, 0)
    salt = os.urandom(16)
    head = SegmentHead(cluster_id, gen, salt, FIRST_SERIAL, begin.chain, None)
    data = encode_head(head, begin.last + 1)
    if log:
        data += encode_batch(1, begin.last + 1, log, salt)
    if snapshot:
        write_aside(snapshot_path(folder, begin.last), snapshot)
    write_aside(path_of(folder, FIRST_SERIAL), data)
    end = begin.follow(log)
    MarkFile.create(folder / MARK_NAME, Synced(end.last, FIRST_SERIAL, len(data), end.chain))
    write_aside(folder / HARD_STATE, hard_state)
    payload = msgspec.msgpack.encode(Identity(cluster_id, gen, str(uuid.uuid4()), str(uuid.uuid4())))
    identity = records.encode(records.IDENTITY, 0, 0, payload, records.SEED[records.IDENTITY])
    write_aside(folder / IDENTITY, identity)


def make_aside(folder: Path) -> Path:
    """Make the empty folder in which the copy that is to become `folder` is written."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_aside(folder)
    aside = _aside_of(folder)
    aside.mkdir(mode=0o700)
    return aside


def remove_aside(folder: Path) -> None:
    """Remove what a copy that was never finished left."""
    shutil.rmtree(_aside_of(folder), ignore_errors=True)


def take_place(folder: Path) -> None:
    """Put the new copy in the place of `folder`, durably; the copy that was there, if any, is kept aside."""
    if folder.exists():
        kept = folder.with_name(folder.name + ".damaged")
        if kept.exists():
            shutil.rmtree(kept)
        folder.rename(kept)
        sync_folder(folder.parent)
    _aside_of(folder).rename(folder)
    for made in (folder.parent, folder.parent.parent):
        sync_folder(made)


def _aside_of(folder: Path) -> Path:
    return folder.with_name(folder.name + ".new")
