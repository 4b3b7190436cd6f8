"""What a lab is on the disk: `lab.yaml`, one YAML file a node, and beside it the node's key, state, log and process.

Knows no process and no bus. A node's YAML and key are written once and never again, so that a person can change them.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...config.names import LONGEST_SOCKET
from ...errors import InvalidFile, NoLab, Refused, UsageError

DEFAULT_DIR = "covey-lab"
CLUSTER = "lab"
NETWORKS = ("127.1.0", "127.2.0")
MOST_NODES = 250
MOST_SERVERS = 5
MODE = "curve"
"""How the nodes of a new lab speak with each other, unless it is said."""

_LAB = """\
# A lab: {nodes} covey nodes on this machine, {servers} of them registry servers. `covey lab --help` says more.
# The port was chosen free on all addresses when the lab was made; n1.yaml and so on are yours to change.
lab: 1
cluster: {cluster}
nodes: {nodes}
servers: {servers}
port: {port}
security: {mode}
"""

_NODE = """\
# Node {number} of the lab in this folder. Change what you like (but for the state folder, the adapters and the port,
# where the lab looks for it); it counts from the next `covey lab start {number}` on.
node:
  name: n{number}
  state_dir: ./n{number}
  identity: generated            # made once and kept: the nodes of a lab share one machine's own id
  adapters: [{adapters}]
  port: {port}
security:
{security}
lab: true                      # `covey lab cut` may cut this node off from others; loopback addresses alone
isolation: {isolation:<19} # process: one a component; inline: all in one
"""


_SECURITY = {
    "curve": """\
  mode: curve                    # everything between nodes is encrypted
  key: {key:<25} # who this node is to the others""",
    "open": """\
  mode: open                     # no encryption: allowed on loopback addresses only""",
}


@dataclass(frozen=True)
class Node:
    """One node of a lab and the paths of what belongs to it."""

    number: int
    folder: Path
    port: int

    @property
    def name(self) -> str:
        """Its name until a person gives it another."""
        return f"n{self.number}"

    @property
    def state(self) -> Path:
        """The node's state folder, for `--state`."""
        return self.folder / self.name

    @property
    def file(self) -> Path:
        """The node's YAML."""
        return self.folder / f"{self.name}.yaml"

    @property
    def key(self) -> Path:
        """The node's key pair, if the lab is encrypted."""
        return self.folder / f"{self.name}.key"

    @property
    def log(self) -> Path:
        """What its daemon prints."""
        return self.folder / f"{self.name}.log"

    @property
    def record(self) -> Path:
        """Which process was started for it."""
        return self.folder / f"{self.name}.pid"

    @property
    def addresses(self) -> list[str]:
        """Its adapters' addresses, one a network."""
        return addresses(self.number)


@dataclass(frozen=True)
class Lab:
    """A lab on the disk."""

    folder: Path
    nodes: int
    port: int
    cluster: str = CLUSTER
    mode: str = MODE
    servers: int = 1

    def __iter__(self) -> Iterator[Node]:
        for number in range(1, self.nodes + 1):
            yield Node(number, self.folder, self.port)

    def node(self, typed: str) -> Node:
        """Return the node a person means by `2` or `n2`; raises NoLab when the lab has no such node."""
        for node in self:
            if typed in (str(node.number), node.name):
                return node
        raise NoLab(f"the lab in {self.folder} has no node {typed!r}", f"it has n1 to n{self.nodes}")


def addresses(number: int) -> list[str]:
    """Return the addresses of a node of any lab."""
    return [f"{network}.{number}" for network in NETWORKS]


def option(folder: Path) -> str:
    """Return what a command line says to mean the lab of that folder: nothing where it is the usual one."""
    return "" if folder.absolute() == Path(DEFAULT_DIR).absolute() else f" --dir {shlex.quote(str(folder))}"


def exists(folder: Path) -> bool:
    """Say whether there is a lab in a folder."""
    return (folder / "lab.yaml").exists()


def load(folder: Path) -> Lab:
    """Read the lab of a folder; raises NoLab, InvalidFile."""
    import yaml

    path = folder / "lab.yaml"
    try:
        found: Any = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        where = folder.absolute()
        raise NoLab(f"there is no lab in {where}", "`covey lab up` makes one; --dir names another folder") from None
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as problem:
        raise InvalidFile(f"{path} cannot be read: {problem}") from None
    try:
        mode = str(found.get("security", "open"))  # older labs have no word on it
        servers = int(found.get("servers", 1))
        return Lab(folder.absolute(), int(found["nodes"]), int(found["port"]), str(found["cluster"]), mode, servers)
    except (TypeError, KeyError, ValueError, AttributeError):
        raise InvalidFile(
            f"{path} is not what `covey lab up` writes: it needs nodes, port and cluster",
            "if the lab's processes are gone, remove the folder and make the lab anew",
        ) from None


def check(folder: Path, nodes: int) -> None:
    """Raise UsageError when a lab of that size cannot live in that folder."""
    if not 1 <= nodes <= MOST_NODES:
        raise UsageError(f"a lab has 1 to {MOST_NODES} nodes, not {nodes}")
    longest = os.fsencode(folder.absolute() / f"n{nodes}" / "run" / "events.sock")
    if len(longest) > LONGEST_SOCKET:
        raise UsageError(
            f"{folder.absolute()} is too long a path: the nodes' local sockets would have {len(longest)} bytes, and "
            f"the kernel takes {LONGEST_SOCKET}",
            "use --dir with a shorter one",
        )


def usual_servers(nodes: int) -> int:
    """Return how many registry servers a lab has unless it is said: the largest odd number, at most 3."""
    return 3 if nodes >= 3 else 1


def check_servers(servers: int, nodes: int, present: int = 1) -> None:
    """Raise when a lab of that size cannot have so many registry servers; UsageError, Refused."""
    if not 1 <= servers <= min(nodes, MOST_SERVERS):
        raise UsageError(f"a lab of {nodes} nodes has 1 to {min(nodes, MOST_SERVERS)} registry servers, not {servers}")
    if servers < present:
        raise Refused(
            f"the lab has {present} registry servers, and {servers} are asked for",
            "take one off with `covey registry undefine-server N`",
        )


def make_folder(folder: Path) -> bool:
    """Make a lab's folder, unless it is there; say whether it was made. Raises Refused."""
    try:
        str(folder).encode()
        new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
    except UnicodeEncodeError:  # the lab's YAML files name it, and are UTF-8
        raise Refused(f"the folder's name {str(folder)!a} is no Unicode text", "name another one with --dir") from None
    except OSError as problem:
        raise Refused(
            f"the folder {folder.absolute()} cannot be made: {problem.strerror}", "name another one with --dir"
        ) from None
    return new


def create(folder: Path, nodes: int, port: int, isolation: str, mode: str = MODE, servers: int = 1) -> Lab:
    """Write the files of a new lab, or those that are missing of a lab that grows."""
    make_folder(folder)
    lab = Lab(folder.absolute(), nodes, port, mode=mode, servers=servers)
    for node in lab:
        if node.file.exists():
            continue
        if mode == "curve" and not node.key.exists():
            from ...bus.security import make_keys

            make_keys(node.key)
        adapters = ", ".join(f"{address}/16" for address in node.addresses)
        security = _SECURITY[mode].format(key=f"{{file: {node.key.name}}}")
        text = _NODE.format(number=node.number, adapters=adapters, port=port, isolation=isolation, security=security)
        node.file.write_text(text)
    aside = folder / "lab.yaml.new"
    aside.write_text(_LAB.format(nodes=nodes, servers=servers, cluster=CLUSTER, port=port, mode=mode))
    aside.replace(folder / "lab.yaml")
    return lab


def grown(lab: Lab, nodes: int, isolation: str, servers: int | None = None) -> Lab:
    """Return the lab with as many nodes and servers as wanted; raises Refused when that is fewer than it has."""
    if nodes < lab.nodes:
        raise Refused(
            f"the lab in {lab.folder} has {lab.nodes} nodes, and {nodes} are asked for",
            "a lab only grows: undefine a node with `covey node undefine`, or make another lab with --dir",
        )
    servers = lab.servers if servers is None else servers
    check_servers(servers, nodes, lab.servers)
    if (nodes, servers) == (lab.nodes, lab.servers):
        return lab
    return create(lab.folder, nodes, lab.port, isolation, lab.mode, servers)
