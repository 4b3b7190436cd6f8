"""What the DCM asks of others: the registry for nodes, servers and definitions, other DCMs how a definition stands.

Decides nothing. All reads are current (`linear`): a verdict or a define built on an old copy would be worse than none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable
from typing import Any

import msgspec

from ...bus.client import Client
from ...bus.machine import Message
from ...errors import BadArguments, CoveyError, KeyNotFound, Malformed
from .definitions import ClusterDefinition, NetworkTable, NodeDefinition, NodeTable, Replica, ServerList
from .entries import NODES, NodeEntry, Standing, entry_from
from .home import servers_from
from .messages import Define, Resolve, Resolved
from .network_entries import NETWORKS, SUBNETS, table_from
from .places import by_join_port, peer_places
from .settings import READ_TIME, STATUS_TIME, TELL_TIME

log = logging.getLogger(__name__)

_decoder = msgspec.msgpack.Decoder(Define)


class Global(msgspec.Struct, frozen=True):
    """The global configuration as far as the DCM needs it, as of `revision`."""

    cluster: ClusterDefinition
    servers: ServerList
    entries: tuple[NodeEntry, ...]
    revision: int
    networks: NetworkTable = NetworkTable()

    def table(self) -> NodeTable:
        return NodeTable({entry.definition.number: entry.definition for entry in self.entries}, self.revision)

    def entry(self, number: int) -> NodeEntry | None:
        return next((entry for entry in self.entries if entry.definition.number == number), None)

    def renewed(self, old: Replica) -> Replica:
        """Return the local copy with all missed updates (SPEC 5.3): all but the node's id, which is for a verdict."""
        entry = self.entry(old.node.number)
        if (
            entry is None
            or entry.definition.definition_id != old.node.definition_id
            or self.revision < old.nodes.revision
        ):
            return old
        return self.replica_for(msgspec.structs.replace(entry.definition, id=old.node.id))

    def replica_for(self, node: NodeDefinition) -> Replica:
        return Replica(self.cluster, node, self.servers, self.table(), self.networks)


async def read_global(bus: Client, cluster_id: str) -> Global:
    """Read it all, current; raises what the registry raises, and WrongCluster when it serves another cluster."""

    async def get(key: str) -> Any:
        return (await bus.call("registry", "get", key=key, cluster=cluster_id, timeout=READ_TIME))["value"]

    async def ls(prefix: str) -> Any:
        return await bus.call("registry", "ls", prefix=prefix, cluster=cluster_id, timeout=READ_TIME)

    listed, definition, servers, networks, subnets = await asyncio.gather(
        ls(NODES), get("/cluster/definition"), get("/cluster/servers"), ls(NETWORKS), ls(SUBNETS)
    )
    try:
        cluster = msgspec.convert(definition, ClusterDefinition)
        found = [entry_from(item["key"], item["value"], item["mod_revision"]) for item in listed["items"]]
        entries = sorted((entry for entry in found if entry), key=lambda entry: entry.definition.number)
        revision = int(listed["revision"])
        table = table_from(networks["items"], subnets["items"], min(networks["revision"], subnets["revision"]))
        return Global(cluster, servers_from(servers, revision), tuple(entries), revision, table)
    except (msgspec.ValidationError, KeyError, TypeError, ValueError) as why:
        raise Malformed(f"the registry holds a definition that cannot be read: {why}") from why


async def read_value(bus: Client, key: str, cluster_id: str = "") -> tuple[Any, int]:
    """Return a key's current value and its modification revision; (None, 0) when there is none."""
    try:
        found = await bus.call("registry", "get", key=key, cluster=cluster_id, timeout=READ_TIME)
    except KeyNotFound:
        return None, 0
    return found["value"], int(found["mod_revision"])


async def online_members(bus: Client) -> dict[int, dict[str, Any]]:
    """Return the members of the view that this node holds, by number; none when Liveness cannot tell."""
    try:
        status = await bus.call("liveness", "status", timeout=STATUS_TIME)
    except CoveyError:
        return {}
    return {int(member["number"]): member for member in (status.get("view") or {}).get("members", [])}


# --- other DCMs -----------------------------------------------------------------------------------------------


def decode(body: bytes) -> Define:
    """Return a message between DCMs; BadArguments when it is none."""
    try:
        message: Define = _decoder.decode(body)
        return message
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError) as why:
        raise BadArguments(f"this is no message of a define: {why}") from why


async def ask_dcm(bus: Client, place: str, message: Message) -> Define:
    """Send a message to the DCM at a place and return its answer."""
    body = msgspec.msgpack.encode(message)
    verb = "join_message" if by_join_port(place) else "define_message"
    return decode(await bus.call("dcm", verb, node=place, body=body, timeout=TELL_TIME))


async def ask_outcome(bus: Client, places: Iterable[str], question: Resolve) -> Resolved | None:
    """Ask one node after the other how a define of this node ended; None when nobody could tell."""
    for place in places:
        try:
            answer = await ask_dcm(bus, place, question)
        except CoveyError as why:
            log.info("%s cannot tell how the define of this node ended: %s", place.partition("#")[0], why)
            continue
        if isinstance(answer, Resolved):
            return answer
    return None


class Verdict(msgspec.Struct, frozen=True):
    """What a member of the cluster says of a definition, from a current read (SPEC 5.7).

    "gone" is proved by the tombstone that an undefine leaves; `key` and `revision` are in it. `place` said so.
    """

    standing: Standing
    definition_id: str
    key: str = ""
    revision: int = 0
    place: str = ""

    def proof(self) -> dict[str, Any]:
        """Return what the audit log keeps of it, when it is the ground on which local data is erased."""
        said_by = self.place or "registry"
        return {"definition_id": self.definition_id, "revision": self.revision, "said_by": said_by}


async def ask_verdict(
    bus: Client, places: Iterable[str], cluster_id: str, node: NodeDefinition, problems: list[str] | None = None
) -> Verdict | None:
    """Ask one node after the other whether this one is still defined; None when nobody could be asked, and then
    `problems` says why, for each.

    Goes by place, so it works for a node whose key its cluster no longer trusts. Only what is said of this very
    definition and key counts; that nobody knows of it ("unknown") is the answer when no better one comes.
    """
    unknown: Verdict | None = None
    for place in places:
        where = place.partition("#")[0]
        try:
            answer = await bus.call(
                "dcm", "verdict", node=place, cluster_id=cluster_id, definition_id=node.definition_id, timeout=TELL_TIME
            )
            found = msgspec.convert({**answer, "place": where}, Verdict)
        except (CoveyError, msgspec.ValidationError, TypeError) as why:
            log.info("%s cannot tell how this node's definition stands: %s", where, why)
            if problems is not None:
                problems.append(f"{where}: {why.message if isinstance(why, CoveyError) else why}")
            continue
        if found.standing in ("defined", "gone") and (found.definition_id, found.key) == (node.definition_id, node.key):
            return found
        log.info("%s says of this node's definition: %s, which decides nothing", where, found.standing)
        if (found.standing, found.definition_id) == ("unknown", node.definition_id):
            unknown = found
    return unknown


async def same_node_elsewhere(
    bus: Client, cluster_id: str, node: NodeDefinition, own: Collection[str], boot: str
) -> str:
    """Return where another machine runs as this very node, "" when none does (SPEC 5.5): a clone of this one.

    Asks at the addresses of the node's definition that are not this machine's `own`; silence and refusal mean nobody.
    A clone has this node's key, too, so each of the two trusts the other.
    """

    async def ask(place: str) -> str:
        try:
            said = await bus.call("dcm", "local", node=place, timeout=TELL_TIME)
        except CoveyError:
            return ""
        same = (said["cluster_id"], said["node"]) == (cluster_id, node.number)
        return place.partition("#")[0] if same and said["boot_id"] not in ("", boot) else ""

    asked = [place for place in peer_places(node) if place.partition("#")[0] not in own]
    answers = await asyncio.gather(*(ask(place) for place in asked))
    return next((answer for answer in answers if answer), "")
