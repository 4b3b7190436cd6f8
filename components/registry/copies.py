"""Put a whole new copy where a server's copy is, or would be, while no server has it open.

The old copy is not removed: it is put aside as `registry.damaged`, for whoever wants to look into it.
"""

from __future__ import annotations

from pathlib import Path

from . import layout
from .generation import NewCopy


def put(cluster_folder: Path, copy: NewCopy) -> None:
    """Make `copy` the copy of the registry below a cluster's folder, durably. Raises `OSError`.

    After a crash there is the old copy, the new one, or none, and then the old one is aside, where `force` finds it.
    """
    home, store = layout.folder_of(cluster_folder), copy.store
    aside = layout.make_aside(home)
    try:
        layout.write_copy(aside, store.cluster_id, store.gen, copy.hard_state, copy.snapshot, ())
    except OSError:
        layout.remove_aside(home)
        raise
    layout.take_place(home)
