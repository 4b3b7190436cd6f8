"""Put a whole new copy where a server's copy is, or would be: by one rename, so there is the old one or the new one.

The old copy is not removed: it is put aside as `registry.damaged`, for whoever wants to look into it.
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from . import records
from .disk import HARD_STATE, IDENTITY, encode_identity, folder_of, snapshot_path
from .files import sync_folder, write_aside
from .generation import NewCopy
from .loaded import Identity
from .mark import NAME as MARK_NAME
from .mark import MarkFile, Synced
from .segments import SegmentHead, encode_head, path_of


def put(cluster_folder: Path, copy: NewCopy) -> None:
    """Make `copy` the copy of the registry below a cluster's folder, durably. Raises `OSError`."""
    home = folder_of(cluster_folder)
    home.parent.mkdir(parents=True, exist_ok=True)
    aside, old = home.with_name("registry.new"), home.with_name("registry.damaged")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(mode=0o700)
    store = copy.store
    first = store.index + 1
    chain = records.decode_only(copy.snapshot, records.SNAPSHOT).payload[: records.DIGEST_BYTES]
    head = encode_head(SegmentHead(store.cluster_id, store.gen, os.urandom(16), chain), first)
    write_aside(path_of(aside, first), head)
    MarkFile.create(aside / MARK_NAME, Synced(store.index, first, len(head), chain))
    write_aside(aside / HARD_STATE, copy.hard_state)
    write_aside(snapshot_path(aside, store.index), copy.snapshot)
    identity = Identity(store.cluster_id, store.gen, str(uuid.uuid4()), str(uuid.uuid4()))
    write_aside(aside / IDENTITY, encode_identity(identity))
    if home.is_dir():
        shutil.rmtree(old, ignore_errors=True)
        home.rename(old)
    aside.rename(home)
    sync_folder(home.parent)
