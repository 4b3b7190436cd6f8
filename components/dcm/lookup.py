"""What the DCM reads from the registry: nodes, servers, the cluster's definition. Asks the bus, decides nothing.

All reads are current (`linear`): a verdict or a define built on an old copy would be worse than none.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from ...bus.client import Client
from ...errors import CoveyError, KeyNotFound, Malformed
from .definitions import ClusterDefinition, NodeDefinition, NodeTable, Replica, ServerList
from .entries import NODES, NodeEntry, entry_from
from .home import servers_from

READ_TIME = 3.0


class Global(msgspec.Struct, frozen=True):
    """The global configuration as far as the DCM needs it, as of `revision`."""

    cluster: ClusterDefinition
    servers: ServerList
    entries: tuple[NodeEntry, ...]
    revision: int

    def table(self) -> NodeTable:
        return NodeTable({entry.definition.number: entry.definition for entry in self.entries}, self.revision)

    def entry(self, number: int) -> NodeEntry | None:
        return next((entry for entry in self.entries if entry.definition.number == number), None)

    def replica_for(self, node: NodeDefinition) -> Replica:
        return Replica(self.cluster, node, self.servers, self.table())


async def read_global(bus: Client, cluster_id: str) -> Global:
    """Read it all, current; raises what the registry raises, and WrongCluster when it serves another cluster."""

    async def get(key: str) -> Any:
        return (await bus.call("registry", "get", key=key, cluster=cluster_id, timeout=READ_TIME))["value"]

    listed, definition, servers = await asyncio.gather(
        bus.call("registry", "ls", prefix=NODES, cluster=cluster_id, timeout=READ_TIME),
        get("/cluster/definition"),
        get("/cluster/servers"),
    )
    try:
        cluster = msgspec.convert(definition, ClusterDefinition)
        found = [entry_from(item["key"], item["value"], item["mod_revision"]) for item in listed["items"]]
        entries = sorted((entry for entry in found if entry), key=lambda entry: entry.definition.number)
        revision = int(listed["revision"])
        return Global(cluster, servers_from(servers, revision), tuple(entries), revision)
    except (msgspec.ValidationError, KeyError, TypeError, ValueError) as why:
        raise Malformed(f"the registry holds a definition that cannot be read: {why}") from why


async def read_value(bus: Client, key: str) -> tuple[Any, int]:
    """Return a key's current value and its modification revision; (None, 0) when there is none."""
    try:
        found = await bus.call("registry", "get", key=key, timeout=READ_TIME)
    except KeyNotFound:
        return None, 0
    return found["value"], int(found["mod_revision"])


async def online_members(bus: Client) -> dict[int, dict[str, Any]]:
    """Return the members of the view that this node holds, by number; none when Liveness cannot tell."""
    try:
        status = await bus.call("liveness", "status", timeout=2.0)
    except CoveyError:
        return {}
    return {int(member["number"]): member for member in (status.get("view") or {}).get("members", [])}
