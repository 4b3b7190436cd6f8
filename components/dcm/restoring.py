"""Restore a backup: this machine becomes the first node, and the only registry server, of the cluster in it.

The cluster's data is all there, in a new generation of its registry. One node's definition is replaced by that of this
machine (the old one is undefined, with the proof that an undefine leaves); the others stay, for nodes that still have
their keys. `plan` is pure; `carry_out` writes the files in the order of a `cluster define`, so that after a crash at
any moment there is nothing (the next start sweeps it away) or all.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from ...bus.security import load_keys
from ...config.adapters import addresses_of
from ...errors import AlreadyDefined, BackupDamaged, CoveyError
from ...plugins.hookspecs import IdentitySource
from ..registry import copies, generation
from ..registry.backup import Backup, Label
from ..registry.keys import unpack_value
from ..registry.messages import Comparison, Operation
from ..registry.store import SERVERS_KEY
from .definitions import ClusterDefinition, NodeDefinition, NodeTable, Replica, ServerList
from .entries import NODES, NodeEntry, define, entry_from
from .layout import Layout
from .sources import read_original
from .stopped import Stopped


class Machine(msgspec.Struct, frozen=True):
    """What this machine says of itself; `key` is empty in mode open."""

    name: str
    id: str
    addresses: tuple[str, ...]
    port: int
    key: str = ""


class Plan(msgspec.Struct, frozen=True):
    """What a restore will make: the local files, the copy, whom this node replaces (None: nobody)."""

    label: Label
    replica: Replica
    copy: generation.NewCopy
    replaces: NodeDefinition | None


def this_machine(config: Any, state_dir: Path, sources: Mapping[str, IdentitySource], *, look: bool = False) -> Machine:
    """Return what a node's YAML makes of this machine; raises what its key file or identity source raises.

    With `look` nothing is written, not even an id that is to be generated: there is a word in its place.
    """
    security, node = config.security, config.node
    key = load_keys(security.key.file).public if str(security.mode) == "curve" else ""
    identity = node.identity.source if node.identity.value is None else {node.identity.source: node.identity.value}
    unmade = look and identity == "generated" and not Layout(state_dir).identity_file.exists()
    original = "not generated yet" if unmade else read_original(identity, state_dir, sources)
    return Machine(str(node.name), original, addresses_of(node.adapters), int(node.port), key)


def plan(found: Backup, machine: Machine, number: int | None = None) -> Plan:
    """Say what restoring makes of a backup on this machine, as node `number`; writes nothing.

    Without a number it is the one that this machine has in the backup, by its key or id, else the lowest of the
    registry servers. Raises `AlreadyDefined` when another node of the cluster has this machine's name, id, key or
    address, `BackupDamaged` when the backup holds no cluster.
    """
    store = found.store
    listed = [entry_from(key, unpack_value(item.value), item.mod_revision) for key, item in store.ls(NODES)]
    nodes = {entry.definition.number: entry for entry in listed if entry}
    servers = store.get(SERVERS_KEY)
    definition = store.get("/cluster/definition")
    if not nodes or servers is None or definition is None:
        raise BackupDamaged("the backup is sound, and holds no cluster to restore", "take another backup")
    cluster = msgspec.convert(unpack_value(definition.value), ClusterDefinition)
    if number is None:
        number = _own_number(nodes, machine) or min(unpack_value(servers.value)["servers"])
    old = nodes.pop(number, None)
    for entry in nodes.values():
        _check_other(entry.definition, machine)
    node = NodeDefinition(
        number, machine.name, machine.id, uuid.uuid4().hex, machine.addresses, machine.port, machine.key
    )
    wanted = define(node, [old] if old else [])
    try:
        copy = generation.begin(
            store,
            found.chain,
            number,
            compare=[msgspec.convert(one, Comparison) for one in wanted["compare"]],
            then=[msgspec.convert(one, Operation) for one in wanted["then"]],
        )
    except generation.Conflict as why:
        raise AlreadyDefined(f"node {number} cannot be this machine: {why}", "try another --number") from None
    revision = copy.store.revision
    table = NodeTable({**{n: entry.definition for n, entry in sorted(nodes.items())}, number: node}, revision)
    replica = Replica(cluster, node, ServerList((number,), number, revision), table)
    return Plan(found.label, replica, copy, old.definition if old else None)


def _own_number(nodes: Mapping[int, NodeEntry], machine: Machine) -> int | None:
    for number, entry in sorted(nodes.items()):
        if machine.key and entry.definition.key == machine.key:
            return number
    return next((number for number, entry in sorted(nodes.items()) if entry.definition.id == machine.id), None)


def _check_other(other: NodeDefinition, machine: Machine) -> None:
    own = {address.partition("/")[0] for address in machine.addresses}
    same = [
        ("name", machine.name if machine.name == other.name else ""),
        ("id", machine.id if machine.id == other.id else ""),
        ("key", f"{machine.key[:16]}…" if machine.key and machine.key == other.key else ""),
        ("address", ", ".join(sorted(own & set(other.hosts())))),
    ]
    for what, value in same:
        if value:
            raise AlreadyDefined(
                f"node {other.number} of the cluster has this machine's {what}, {value}",
                f"--number {other.number} takes its place; else give this machine another {what}",
            )


def check_empty(at: Stopped) -> None:
    """Raise unless the state folder knows no cluster; what a crash left half made is swept away first."""
    at.store.prepare()
    at.store.sweep()
    known = at.store.clusters()
    if known.clusters or known.pending:
        names = ", ".join(f"{one.name} ({cluster})" for cluster, one in known.clusters.items()) or "one, in doubt"
        raise AlreadyDefined(
            f"{at.layout.state_dir} knows a cluster already: {names}",
            "restore onto an empty state folder; nothing was changed",
        )


def carry_out(at: Stopped, plan: Plan) -> None:
    """Write all of it; the last write makes it a cluster. Raises `CoveyError`, and then nothing is left."""
    check_empty(at)
    store, replica = at.store, plan.replica
    cluster = replica.cluster
    if at.layout.cluster(cluster.id).folder.exists():
        raise AlreadyDefined(
            f"{at.layout.cluster(cluster.id).folder} exists", "move it away; nothing was changed, and nothing removed"
        )
    about = {"cluster": cluster.id, "name": cluster.name, "number": replica.node.number, "taken": plan.label.taken_at}
    with at.audited("registry_restore", **about, incarnation=list(plan.label.incarnation)):
        try:
            store.make_cluster(cluster)
            copies.put(at.layout.cluster(cluster.id).folder, plan.copy)
            store.commit_replica(replica)
            store.commit_cluster(cluster)
        except BaseException as why:
            with suppress(OSError):  # no room for that either: the next start, or the next restore, sweeps it away
                store.erase_cluster(cluster.id)
            if isinstance(why, OSError):
                raise CoveyError(
                    f"the registry cannot be written below {at.layout.state_dir}: {why.strerror or why}",
                    "nothing was left there; make room and try again",
                ) from why
            raise
