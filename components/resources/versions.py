"""Which classes each node has, in which version; and in words, where nodes differ (SPEC 2.3 step 19).

Pure data. A node that disagrees is named and nothing else happens: its resources stay readable, because every value
in the registry carries the version of the class it was written with.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ...controllers.catalog import Versions


class VersionTable:
    """The class versions of the nodes in `sys.resources`; a node that has not told yet is in it with None."""

    def __init__(self) -> None:
        self._nodes: dict[int, Versions | None] = {}

    @property
    def nodes(self) -> list[int]:
        """The nodes in the table, in order."""
        return sorted(self._nodes)

    @property
    def untold(self) -> list[int]:
        """Members that have not said which classes they have, in order."""
        return sorted(node for node, versions in self._nodes.items() if versions is None)

    @property
    def tellers(self) -> list[int]:
        """The nodes that have said which classes they have, in order."""
        return sorted(node for node, versions in self._nodes.items() if versions is not None)

    def members(self, nodes: Collection[int]) -> None:
        """Keep exactly these nodes; a new one has told nothing yet."""
        self._nodes = {node: self._nodes.get(node) for node in sorted(nodes)}

    def told(self, node: int, versions: Versions) -> None:
        """Take what a node said of itself. One that is no member (any more) is heard too: its join may come late."""
        self._nodes[node] = versions

    def known(self, cls: str) -> list[int]:
        """Return the nodes that have a class, in order."""
        return sorted(node for node, versions in self._nodes.items() if versions and cls in versions)

    def rows(self) -> list[dict[str, Any]]:
        """Return `{class, version, controller, nodes}` for each version of each class there is."""
        nodes: dict[tuple[str, int, str], list[int]] = {}
        for node, versions in sorted(self._nodes.items()):
            for cls, (version, _, controller) in sorted((versions or {}).items()):
                nodes.setdefault((cls, version, controller), []).append(node)
        return [
            {"class": cls, "version": version, "controller": controller, "nodes": there}
            for (cls, version, controller), there in sorted(nodes.items())
        ]

    def differences(self) -> list[str]:
        """Return one sentence for each class that is not the same on all nodes that have it, and for silent nodes."""
        variants: dict[str, dict[tuple[int, str], list[int]]] = {}
        for node, versions in sorted(self._nodes.items()):
            for cls, (version, digest, _) in (versions or {}).items():
                variants.setdefault(cls, {}).setdefault((version, digest), []).append(node)
        sentences = [_sentence(cls, found) for cls, found in sorted(variants.items()) if len(found) > 1]
        if self.untold:
            sentences.append(f"{_nodes(self.untold)} did not say yet which classes they have")
        return sentences


def _sentence(cls: str, found: Mapping[tuple[int, str], list[int]]) -> str:
    parts = [
        f"version {version} ({digest[:8]}) on {_nodes(nodes)}" for (version, digest), nodes in sorted(found.items())
    ]
    return f"class {cls} differs between nodes: {'; '.join(parts)}"


def _nodes(nodes: list[int]) -> str:
    return f"node{'s' if len(nodes) > 1 else ''} {', '.join(str(node) for node in nodes)}"
