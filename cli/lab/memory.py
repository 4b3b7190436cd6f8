"""Whether this machine has the memory for so many nodes: one that has not would end with its processes killed."""

from __future__ import annotations

from pathlib import Path

from ...errors import Refused

NODE_MEGABYTES = {"process": 120, "inline": 60}
"""Memory of a node with all shipped controllers, by isolation; its processes share what was imported."""


def must_fit(nodes: int, isolation: str) -> None:
    """Raise Refused when that many more nodes want more memory than the kernel says is available."""
    available = _available_megabytes()
    wanted = nodes * NODE_MEGABYTES[isolation]
    if wanted > available:
        fit = {kind: available // each for kind, each in NODE_MEGABYTES.items()}
        raise Refused(
            f"{nodes} nodes with isolation {isolation} want some {wanted} MB of memory; {available} MB are available",
            f"there is room for {fit['process']} of them, or for {fit['inline']} with --isolation inline",
        )


def _available_megabytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) // 1024
    return 1 << 30  # a kernel that does not say
