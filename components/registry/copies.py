"""Put a whole new copy where a server's copy is, or would be: by one rename, so there is the old one or the new one.

The old copy is not removed: it is put aside as `registry.damaged`, for whoever wants to look into it.
"""

from __future__ import annotations

from pathlib import Path

from . import layout
from .generation import NewCopy


def put(cluster_folder: Path, copy: NewCopy) -> None:
    """Make `copy` the copy of the registry below a cluster's folder, durably. Raises `OSError`."""
    home = layout.folder_of(cluster_folder)
    store = copy.store
    layout.write_copy(layout.make_aside(home), store.cluster_id, store.gen, copy.hard_state, copy.snapshot, ())
    layout.take_place(home)
