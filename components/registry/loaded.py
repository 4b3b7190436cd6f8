"""What a copy's files were found to hold, and what is said of a damaged one. Pure data.

The disk makes it, the recovery reads it; neither knows the other.
"""

from __future__ import annotations

import msgspec

from ...errors import Damaged
from .records import Record


class Damage(msgspec.Struct, frozen=True):
    """One file that is not what it must be: where, from which byte on, and why."""

    path: str
    position: int
    reason: str

    def error(self) -> Damaged:
        """Return the error that clients get while this stands."""
        return Damaged(
            f"{self.path} is damaged at byte {self.position}: {self.reason}",
            "this copy serves nothing; restore a backup of the folder, or define the server again",
            path=self.path,
            position=self.position,
        )


class Identity(msgspec.Struct, frozen=True, array_like=True):
    """Whose copy this is. `gen` is raised only by an operator's force; copies of a lower one are never merged."""

    cluster_id: str
    gen: int
    server_id: str
    disk_id: str


class Loaded(msgspec.Struct, frozen=True):
    """What a copy's files hold: all that a machine starts from. With `damaged` not empty, nothing else counts."""

    identity: Identity | None = None
    promised: int = 0
    voted_for: int = 0  # in the promised epoch; 0: nobody
    committed: int = 0  # all up to here is known to be committed; what follows may still be cut
    snapshot: Record | None = None
    entries: tuple[Record, ...] = ()  # after the snapshot, in order, without a gap
    damaged: tuple[Damage, ...] = ()
    repaired: tuple[Damage, ...] = ()  # torn or doubled things that cost nothing that was acknowledged
