"""The controller of class `FileSystem`: what is mounted on this node, with figures that agree with `df`.

`mounts.py` says which mounts count and why. The table of mounts comes from psutil, the figures from statvfs, the call
that `df` makes. Odd: a mount of a dead network server is listed, its size unknown, and reading it asks for a retry.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...errors import ResourceNotFound
from ..contract import Controller, Found, Resource, Retry
from .mounts import Looker, mounted


class FileSystem(Controller):
    """Mounted file systems."""

    description = "filesystem.yaml"

    def __init__(self) -> None:
        self._looker = Looker()

    def discover(self) -> Iterator[Found]:
        """Every file system that `df` shows."""
        for one in mounted(self._looker):
            yield Found(
                "FileSystem",
                key={"MountPoint": one.point},
                Device=one.device,
                Type=one.type,
                ReadOnly=one.read_only,
                Size=one.usage.size if one.usage else None,
            )

    def read(self, resource: Resource) -> dict[str, Any]:
        """Space and inodes of one mount, as they are now."""
        point = resource.key["MountPoint"]
        answer = self._looker.look([point])[point]
        if answer is None:
            raise Retry(f"the file system on {point} does not answer", "is its server there?")
        if isinstance(answer, FileNotFoundError):
            raise ResourceNotFound(f"nothing is mounted on {point} (any more)", "discover again")
        if isinstance(answer, OSError):
            raise answer
        usage = answer[1]
        return {
            "Used": usage.used,
            "Available": usage.available,
            "PercentUsed": usage.percent,
            "InodesTotal": usage.inodes,
            "InodesUsed": usage.inodes_used,
            "InodesPercentUsed": usage.inodes_percent,
        }
