"""Where everything lies below one state folder (SPEC 3.1): names only, no reading and no writing of content.

Only the DCM knows that a node can be defined to several clusters; every other component is given the folder of the
current cluster and works below it. Odd: a cluster id can come from another machine, so it is checked before it becomes
a folder name.
"""

from __future__ import annotations

import re
from pathlib import Path

from ...errors import UsageError

_ID = re.compile(r"[0-9a-f]{32}")


def check_id(text: str, what: str = "cluster id") -> str:
    """Return `text` when it is 32 lower-case hex digits, the form of every id that covey makes; else UsageError."""
    if not _ID.fullmatch(text):
        raise UsageError(f"{text[:64]!r} is no {what}", f"a {what} is 32 hexadecimal digits")
    return text


class ClusterLayout:
    """The folder of one cluster this node is defined to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.locks = folder / "locks"
        self.logs = folder / "logs"
        self.core = folder / "core"
        self.configuration = folder / "configuration"
        self.cluster_file = self.configuration / "cluster.json"
        self.node_file = self.configuration / "node.json"
        self.servers_file = self.configuration / "servers.json"
        self.nodes_file = self.configuration / "nodes.json"
        self.networks_file = self.configuration / "networks.json"
        self.replacement_file = self.configuration / "replacement.json"

    @property
    def folders(self) -> tuple[Path, ...]:
        return (self.folder, self.locks, self.logs, self.core, self.configuration)


class Layout:
    """All paths below a state folder."""

    def __init__(self, state_dir: Path | str) -> None:
        self.state_dir = Path(state_dir).absolute()
        self.run = self.state_dir / "run"
        self.lock = self.run / "lock"
        self.dcm = self.state_dir / "dcm"
        self.configuration = self.dcm / "configuration"
        self.logs = self.dcm / "logs"
        self.clusters_file = self.configuration / "clusters.json"
        self.blocked_file = self.configuration / "blocked.json"
        self.identity_file = self.dcm / "identity.json"
        self.verdict_file = self.dcm / "verdict.json"
        self.audit_log = self.logs / "audit.log"
        self.boot_log = self.logs / "boot.log"

    @property
    def folders(self) -> tuple[Path, ...]:
        return (self.state_dir, self.run, self.dcm, self.configuration, self.logs)

    def cluster(self, cluster_id: str) -> ClusterLayout:
        return ClusterLayout(self.state_dir / check_id(cluster_id))
