"""Look at what is left of a registry's copies, and choose the one to go on from when a majority is lost for good.

Changes nothing. A copy is judged by its files alone. The best is the one with the highest incarnation among the sound
ones: it holds every entry that any of the others can prove to be committed (Raft thesis 3.6.1). What only lost servers
held is gone; what the best copy holds and nobody knows as committed is kept, because it may have been acknowledged.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from ...errors import Refused
from . import entries, membership
from .layout import folder_of
from .loaded import Damage, Loaded
from .loading import load
from .recovery import recover
from .settings import Settings
from .store import Store

ASIDE = "registry.damaged"
"""Beside the copy's folder: the copy that a new one took, or was to take, the place of."""


class Copy(msgspec.Struct, frozen=True):
    """One server's copy. Of one that is not sound only `folder`, `gen` (if that can be read) and `damaged` count.

    `committed` is the last entry that this copy knows as committed; `doubtful` are the entries behind it, in which
    `unsure` transactions of users are; `store` is the state with all of them.
    """

    folder: Path
    gen: int | None
    damaged: tuple[Damage, ...] = ()
    committed: int = 0
    promised: int = 0
    unsure: int = 0
    store: Store = msgspec.field(default_factory=Store)
    chain: bytes = b""

    @property
    def sound(self) -> bool:
        return not self.damaged

    @property
    def aside(self) -> bool:
        """Whether it was put aside for a new one that is not there: by a crash, or somebody removed that."""
        return self.folder.name == ASIDE

    @property
    def incarnation(self) -> tuple[int, int, int]:
        """(generation, epoch of the last entry, last index)."""
        return (self.store.gen, self.store.epoch, self.store.index)

    @property
    def doubtful(self) -> tuple[int, int] | None:
        """The first and the last entry that this copy holds and does not know as committed."""
        return (self.committed + 1, self.store.index) if self.committed < self.store.index else None

    def servers(self) -> list[int]:
        """Return the voters that this copy names."""
        return list(membership.of_store(self.store).voters)


def look(cluster_folder: Path, cluster_id: str, settings: Settings | None = None) -> Copy:
    """Read the copy below a cluster's folder and judge it."""
    settings = settings or Settings()
    folder = folder_of(cluster_folder)
    aside = folder.with_name(ASIDE)
    if not folder.exists() and aside.is_dir():
        folder = aside  # a crash came just when a new copy was to take its place
    loaded, _ = load(folder, cluster_id)
    gen = loaded.identity.gen if loaded.identity else None
    if loaded.damaged:
        return Copy(folder, gen, loaded.damaged)
    base = recover(Loaded(identity=None, snapshot=loaded.snapshot), settings, str(folder))
    if base.damaged:
        return Copy(folder, gen, base.damaged)
    store, chain, unsure = base.store, base.chain, 0
    committed = max(loaded.committed, store.index)
    try:
        for record in loaded.entries:
            entry = entries.decode(record)
            store.apply(entry)
            chain = record.digest
            by_user = isinstance(entry.body, entries.Transacted) and not entry.body.system
            unsure += by_user and entry.index > committed
    except (entries.UnknownEntry, ValueError, msgspec.MsgspecError) as why:
        return Copy(folder, gen, (Damage(str(folder), 0, f"the records are sound but cannot be applied: {why}"),))
    if store.cluster_id != cluster_id:
        return Copy(folder, gen, (Damage(str(folder), 0, f"it was founded for cluster {store.cluster_id}"),))
    return Copy(folder, gen, (), min(committed, store.index), loaded.promised, unsure, store, chain)


def best(copies: Sequence[Copy]) -> Copy:
    """Return the copy to go on from; raises `Refused` when none of them can be."""
    sound = [copy for copy in copies if copy.sound]
    if not sound:
        raise Refused("none of these copies is sound", "covey registry restore FILE goes on from a backup")
    newest = max(copy.gen for copy in copies if copy.gen is not None)
    able = [copy for copy in sound if copy.gen == newest]
    if not able:
        raise Refused(
            f"a copy of generation {newest} is damaged, and the sound ones are older: they belong to a registry that "
            "was given up",
            "covey registry restore FILE goes on from a backup",
        )
    return max(able, key=lambda copy: copy.incarnation)
