"""Read a copy's folder and judge it; changes nothing.

Knows records, not what entries say. The files are held against one another: the log against the synced mark, the
snapshots against the log. A bad snapshot costs nothing while an older one (or none) and the chained log lead to the
same place; every other bad byte that is not the torn end of the log makes the copy a damaged one.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from . import records
from .layout import HARD_STATE, IDENTITY, snapshot_indexes, snapshot_path
from .loaded import Damage, Identity, Loaded
from .mark import NAME as MARK_NAME
from .mark import MarkFile
from .segments import Scan, path_of, scan


def load(folder: Path, cluster_id: str) -> tuple[Loaded, Scan | None]:
    """Read everything in the copy's folder. Without a `Scan` it cannot be written to: it is damaged, or not there."""
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
    snapshot = None if damaged else _choose_snapshot(folder, found, damaged, repaired)
    if damaged:
        return Loaded(identity=identity, damaged=tuple(damaged)), None
    base = snapshot.index if snapshot else 0
    entries = tuple(record for record in found.entries if record.index > base)
    promised = max(hard_state.epoch, entries[-1].epoch if entries else 0, snapshot.epoch if snapshot else 0)
    sound = Loaded(
        identity,
        promised,
        voted_for=records.decode_vote(hard_state) if hard_state.epoch == promised else 0,
        committed=max(base, found.committed),
        snapshot=snapshot,
        entries=entries,
        repaired=tuple(repaired),
    )
    return sound, found


def _read_one(path: Path, kind: int, damaged: list[Damage]) -> records.Record | None:
    try:
        return records.decode_only(path.read_bytes(), kind)
    except FileNotFoundError:
        damaged.append(Damage(str(path), 0, "the file is missing"))
    except records.BadRecord as bad:
        damaged.append(Damage(str(path), bad.position, bad.reason))
    return None


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

    One that does not fit the log may also be what a crash left of an installation: the log did not begin anew yet.
    """
    bad: list[Damage] = []
    for index in snapshot_indexes(folder):
        if found.begins and index < found.first - 1:
            break  # older than what was installed
        path = snapshot_path(folder, index)
        record = _read_one(path, records.SNAPSHOT, bad)
        if record is None:
            continue
        if record.index != index or found.digest_at(index) != record.payload[: records.DIGEST_BYTES]:
            bad.append(Damage(str(path), 0, "it does not belong to this log: its name or its place was changed"))
            continue
        repaired.extend(bad)
        return record
    if found.first == 1:
        repaired.extend(bad)
        return None
    if not bad:
        why = f"the log begins with entry {found.first} and there is no snapshot of what was before"
        bad.append(Damage(str(path_of(folder, found.segments[0].serial)), 0, why))
    damaged.extend(bad)
    return None
