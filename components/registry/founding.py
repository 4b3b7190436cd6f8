"""Found a new cluster's registry: a fresh log whose first entry holds what everything else begins with.

Runs in the DCM's process at `cluster define`, before any registry server does; knows nothing of the bus. The folder is
made aside and renamed whole, so after a crash there is a founded copy or none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import AlreadyDefined, NotImplementedYet
from . import entries, records
from .keys import check_key, pack_value
from .layout import folder_of, make_aside, take_place, write_copy

FIRST_EPOCH = 1


def create(
    folder: Path,
    *,
    cluster_id: str,
    cluster_name: str,
    node: dict[str, Any],
    servers: list[int],
    others: Mapping[str, Any] | None = None,
) -> None:
    """Write the registry of a new cluster below `folder` (`<state>/<cluster id>`), synced before it returns.

    `node` is the definition of the first node, with its `number`; `servers` the numbers of the registry servers;
    `others` are more keys to begin with.
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
        **(others or {}),
    }
    then = tuple((check_key(key), pack_value(key, value)) for key, value in sorted(keys.items()))
    founded = entries.Founded(cluster_id, 0, then)
    first = entries.encode(entries.Entry(FIRST_EPOCH, 1, 0, founded), records.START)
    log = [first, records.encode_committed(1)]
    write_copy(make_aside(home), cluster_id, founded.gen, records.encode_hard_state(FIRST_EPOCH), None, log)
    take_place(home)
