"""A cluster of real daemons, each in a network namespace of its own, with a switch between them that can be broken.

Needs root and ip(8). The nodes' local sockets are files, so clients of this process reach them all the same, whatever
the network does. Knows no registry: `test_netns_registry.py` looks at what comes of it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from covey.testing import _START, Cluster, Node

NET = "10.78.1"
PORT = 7400


def ip(*words: str) -> None:
    """Run ip(8)."""
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def possible() -> bool:
    """Whether this process may make namespaces, and this kernel has what a switch needs."""
    name = f"cvtry{os.getpid()}"
    if os.geteuid() != 0 or not shutil.which("ip"):
        return False
    try:
        ip("netns", "add", name)
        ip("-n", name, "link", "add", "br0", "type", "bridge")
        ip("-n", name, "link", "add", "v0", "type", "veth", "peer", "name", "v1")
    except subprocess.CalledProcessError:
        return False
    finally:
        with suppress(subprocess.CalledProcessError):
            ip("netns", "del", name)
    return True


class NetNode(Node):
    """A node whose daemon runs in a namespace."""

    namespace = ""

    def start(self) -> None:
        """Start the daemon there."""
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, sys.executable, "-P", "-c", _START, "node", "start", self.file],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


class NetCluster(Cluster):
    """Nodes with one network between them, or several: 10.78.1.0/24, 10.78.2.0/24 and so on."""

    def __init__(
        self, nodes: int, servers: int, environment: Mapping[str, str] | None = None, networks: int = 1
    ) -> None:
        self.servers = servers
        self.networks = range(1, networks + 1)
        self.folder = Path(tempfile.mkdtemp(prefix="cv", dir="/tmp"))
        self._nodes = []
        self.spaces = {number: f"cv{os.getpid()}r{number}" for number in range(nodes + 1)}
        self._cut: list[tuple[list[str], list[str]]] = []
        for number in range(1, nodes + 1):
            adapters = [f"10.78.{network}.{number}/24" for network in self.networks]
            node = NetNode(number, self.folder, adapters, PORT, "inline", environment or {})
            node.namespace = self.spaces[number]
            self._nodes.append(node)

    def up(self) -> None:
        """Make the network, then the cluster."""
        switch = self.spaces[0]
        for name in self.spaces.values():
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        for network in self.networks:
            bridge, adapter = f"br{network - 1}", f"eth{network - 1}"
            ip("-n", switch, "link", "add", bridge, "type", "bridge")
            ip("-n", switch, "link", "set", bridge, "up")
            for node in self:
                name = self.spaces[node.number]
                port = f"p{node.number}" if network == 1 else f"p{node.number}n{network}"
                ip("-n", switch, "link", "add", port, "type", "veth", "peer", "name", adapter, "netns", name)
                ip("-n", switch, "link", "set", port, "master", bridge, "up")
                ip("-n", name, "addr", "add", f"10.78.{network}.{node.number}/24", "dev", adapter)
                ip("-n", name, "link", "set", adapter, "up")
        super().up()

    def close(self) -> None:
        """End the daemons, remove the network and the files."""
        try:
            super().close()
        finally:
            for name in self.spaces.values():
                with suppress(subprocess.CalledProcessError):
                    ip("netns", "del", name)

    # --- what breaks ---

    def lose(self, node: Node) -> None:
        """Nothing leaves or reaches a node any more, and it sees no reason."""
        self._break(["link", "set", f"p{node.number}", "nomaster"], ["link", "set", f"p{node.number}", "master", "br0"])

    def cut_network(self, network: int) -> None:
        """A network carries nothing any more, and no node sees a reason."""
        self._break(["link", "set", f"br{network - 1}", "down"], ["link", "set", f"br{network - 1}", "up"])

    def part(self, *nodes: Node) -> None:
        """These nodes do not reach one another any more, all others they do."""
        for node in nodes:
            change = ["link", "set", f"p{node.number}", "type", "bridge_slave", "isolated"]
            self._break([*change, "on"], [*change, "off"])

    def mute(self, node: Node, *others: Node) -> None:
        """What a node sends to others is lost; what they send arrives."""
        for other in others:
            route = [f"{NET}.{other.number}/32"]
            self._break(["route", "add", "blackhole", *route], ["route", "del", "blackhole", *route], node.number)

    def read(self, node: Node, *files: str) -> str:
        """Return what files below /sys say in a node's namespace."""
        words = ["ip", "netns", "exec", self.spaces[node.number], "cat", *files]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    def heal(self) -> None:
        """Mend all that was broken."""
        while self._cut:
            _, mend = self._cut.pop()
            ip(*mend)

    def _break(self, cut: list[str], mend: list[str], space: int = 0) -> None:
        where = ["-n", self.spaces[space]]
        ip(*where, *cut)
        self._cut.append((cut, [*where, *mend]))
