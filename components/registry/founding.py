"""Found a new cluster's registry: a fresh log whose first entry holds what everything else begins with.

Runs in the DCM's process at `cluster define`, before any registry server does; knows nothing of the bus. The folder is
made aside and renamed whole, so after a crash there is a founded copy or none.
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path
from typing import Any

from ...errors import AlreadyDefined, NotImplementedYet
from . import entries, records
from .disk import HARD_STATE, IDENTITY, encode_identity, folder_of
from .files import sync_folder, write_aside
from .keys import check_key, pack_value
from .loaded import Identity
from .mark import NAME as MARK_NAME
from .mark import MarkFile, Synced
from .segments import SegmentHead, encode_batch, encode_head, path_of

FIRST_EPOCH = 1


def create(folder: Path, *, cluster_id: str, cluster_name: str, node: dict[str, Any], servers: list[int]) -> None:
    """Write the registry of a new cluster below `folder` (`<state>/<cluster id>`), synced before it returns.

    `node` is the definition of the first node, with its `number`; `servers` the numbers of the registry servers.
    Raises `AlreadyDefined` when the folder holds a registry, `NotImplementedYet` for more than one server, `OSError`.
    """
    if servers != [node["number"]]:
        raise NotImplementedYet(
            f"registry servers {servers} for a cluster founded on node {node['number']}: more than one server, or one "
            "elsewhere, is not built yet (SPEC 9.5, DESIGN 3)"
        )
    home = folder_of(folder)
    if home.exists():
        raise AlreadyDefined(f"{home} holds a registry already", "nothing was changed; undefine the cluster first")
    keys = {
        "/cluster/definition": {"name": cluster_name, "id": cluster_id},
        "/cluster/servers": {"servers": servers, "primary": servers[0]},
        f"/nodes/{node['number']}": node,
    }
    then = tuple((check_key(key), pack_value(key, value)) for key, value in sorted(keys.items()))
    home.parent.mkdir(parents=True, exist_ok=True)
    aside = home.with_name("registry.new")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(mode=0o700)
    _write(aside, entries.Founded(cluster_id, 0, then))
    aside.rename(home)
    for made in (home.parent, home.parent.parent):
        sync_folder(made)


def _write(folder: Path, founded: entries.Founded) -> None:
    salt = os.urandom(16)
    entry = entries.encode(entries.Entry(FIRST_EPOCH, 1, 0, founded), records.START)
    head = encode_head(SegmentHead(founded.cluster_id, founded.gen, salt, records.START), 1)
    log = head + encode_batch(1, 1, [entry], salt)
    write_aside(path_of(folder, 1), log)
    MarkFile.create(folder / MARK_NAME, Synced(1, 1, len(log), records.digest(entry)))
    write_aside(folder / HARD_STATE, records.encode_hard_state(FIRST_EPOCH))
    identity = Identity(founded.cluster_id, founded.gen, str(uuid.uuid4()), str(uuid.uuid4()))
    write_aside(folder / IDENTITY, encode_identity(identity))
