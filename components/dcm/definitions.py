"""The definitions of SPEC 3.2 as typed values, the same in local storage and in the registry. Pure data.

`Clusters` is the node's own view: which clusters it is defined to, the two pointers, what is half done. It is one value
kept in one file, so each change of it (a define committed, a pointer moved) is one atomic write.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Literal

import msgspec

from ...errors import UsageError

_NAME = re.compile(r"(?!\d+$)[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")


class ClusterDefinition(msgspec.Struct, frozen=True):
    """A cluster's name, and the id that tells it from another of the same name."""

    name: str
    id: str


class NodeDefinition(msgspec.Struct, frozen=True):
    """One node of one cluster. `definition_id` is new at every define; addresses are `ADDRESS/PREFIX`."""

    number: int
    name: str
    id: str
    definition_id: str
    addresses: tuple[str, ...] = ()
    port: int = 0
    key: str = ""

    def hosts(self) -> list[str]:
        """Return every address without its prefix length."""
        return [address.partition("/")[0] for address in self.addresses]

    def endpoints(self) -> list[str]:
        """Return `HOST:PORT` of every address, IPv6 in brackets."""
        return [endpoint(address, self.port) for address in self.addresses]


class ServerList(msgspec.Struct, frozen=True):
    """The registry server nodes in order, with the primary marked, as of `revision` of the global configuration.

    `servers` vote; `learners` are servers that are being filled; those of both that an operator stopped are `stopped`.
    """

    servers: tuple[int, ...] = ()
    primary: int | None = None
    revision: int = 0
    learners: tuple[int, ...] = ()
    stopped: tuple[int, ...] = ()

    @property
    def all(self) -> tuple[int, ...]:
        """Every node that was defined as a registry server."""
        return (*self.servers, *self.learners)

    @property
    def running(self) -> tuple[int, ...]:
        """The nodes that run a registry server."""
        return tuple(number for number in self.all if number not in self.stopped)

    def same_nodes(self, other: ServerList) -> bool:
        """Whether another list names the same nodes in the same parts."""
        return (self.servers, self.learners, self.stopped) == (other.servers, other.learners, other.stopped)


class NodeTable(msgspec.Struct, frozen=True):
    """Every node of the cluster, as of `revision`: what is needed to reach the registry before it can be read."""

    nodes: dict[int, NodeDefinition] = {}
    revision: int = 0


class NetworkDefinition(msgspec.Struct, frozen=True):
    """A network: which services prefer it (the highest number first), or never use it (0)."""

    name: str
    id: str = ""
    priorities: dict[str, int] = {}


class SubnetDefinition(msgspec.Struct, frozen=True):
    """A subnetwork `prefix` (as 10.1.0.0/16) and the network that it belongs to.

    `hops` to other subnetworks are by their prefixes. The id of one that nobody defined is its prefix.
    """

    id: str
    name: str
    prefix: str
    network: str
    hops: dict[str, int] = {}


class NetworkTable(msgspec.Struct, frozen=True):
    """The networks by name and the subnetworks by id that were defined, as of `revision`."""

    networks: dict[str, NetworkDefinition] = {}
    subnets: dict[str, SubnetDefinition] = {}
    revision: int = 0


class KnownCluster(msgspec.Struct, frozen=True):
    """A cluster this node knows. `making` and `erasing` are finished, or swept away, at the next start."""

    name: str
    state: Literal["making", "defined", "erasing"] = "defined"


class PendingDefine(msgspec.Struct, frozen=True):
    """A define this node agreed to and whose outcome it does not know yet; `ask` are places that can tell.

    `token` is the id of the join token it uses, `key` the key that the member proved (empty: mode open).
    """

    transaction: str
    cluster: ClusterDefinition
    definition_id: str
    ask: tuple[str, ...] = ()
    token: str = ""
    key: str = ""


class KeptToken(msgspec.Struct, frozen=True):
    """A join token that this node handed out; the times are seconds since 1970. One that was used has no secret."""

    secret: bytes
    key: str
    made: float
    expires: float
    used: bool = False


class Clusters(msgspec.Struct, frozen=True):
    """What this node is defined to. The pointers differ only during a move; `offline` is an operator's word.

    Join tokens (by id) are here, because using one up and committing the define that it allowed must be one write.
    """

    clusters: dict[str, KnownCluster] = {}
    current: str | None = None
    target: str | None = None
    offline: bool = False
    pending: dict[str, PendingDefine] = {}
    tokens: dict[str, KeptToken] = {}

    def pointing(self, current: str | None, target: str | None, *, offline: bool) -> Clusters:
        """Return the same with other pointers."""
        return msgspec.structs.replace(self, current=current, target=target, offline=offline)

    def defined(self) -> dict[str, KnownCluster]:
        return {cluster: known for cluster, known in sorted(self.clusters.items()) if known.state == "defined"}


class Blocked(msgspec.Struct, frozen=True):
    """Why a controller is kept from running on this node, and which user said so (None: nobody proved it)."""

    reason: str
    uid: int | None = None


class BlockList(msgspec.Struct, frozen=True):
    """The controllers that may not run on this node, by name."""

    controllers: dict[str, Blocked] = {}


class Replacement(msgspec.Struct, frozen=True):
    """Scenario 3 under way: the node's id changes from `old` to `new`, globally first, then here (SPEC 5.4)."""

    old: str
    new: str


class Replica(msgspec.Struct, frozen=True):
    """All local files of one cluster: what a define hands to the new node."""

    cluster: ClusterDefinition
    node: NodeDefinition
    servers: ServerList
    nodes: NodeTable
    networks: NetworkTable = NetworkTable()


def check_name(text: str, what: str = "node name") -> str:
    """Return `text` when it can name a node or a cluster; a name is never all digits, so it is never a number."""
    if not _NAME.fullmatch(text):
        raise UsageError(
            f"{text[:80]!r} cannot be a {what}",
            "use letters, digits and '_', behind the first also '-' and '.'; at most 63, and not digits only",
        )
    return text


def endpoint(address: str, port: int) -> str:
    """Return `HOST:PORT` of an address with or without prefix length."""
    host = address.partition("/")[0]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_endpoint(text: str, default_port: int) -> str:
    """Return `HOST:PORT` of what a person wrote: a host, an IPv4 or IPv6 address, with or without a port."""
    host, colon, port = text.rpartition(":")
    try:
        if ipaddress.ip_address(text.strip("[]")).version == 6:
            return endpoint(text.strip("[]"), default_port)
    except ValueError:
        pass
    if not colon:
        host, port = text, str(default_port)
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"{text!r} is no address of a node", "write HOST or HOST:PORT, an IPv6 address in brackets")
    return f"{host}:{int(port)}"


def plain(value: Any) -> Any:
    """Return a definition as plain dicts and lists, fit for JSON and for the wire."""
    return msgspec.to_builtins(value, str_keys=True)
