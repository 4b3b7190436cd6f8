"""Gather what `checks.py` judges: of this node, of its way to others, of the whole cluster, of a node at rest.

A way is tried by asking a question that changes nothing, over the very connection that would be used: whatever comes
back, an error too, has come through. Decides nothing.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shutil
import time
from collections.abc import Coroutine, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from ...bus.client import Client
from ...bus.messages import PROTOCOL
from ...errors import ConnectionLost, CoveyError, LocalDamaged, Overloaded, Timeout, Unreachable
from .checks import Finding, disk
from .definitions import NodeDefinition, PendingDefine
from .layout import Layout
from .messages import Here, Prepared, Way
from .places import join_places
from .settings import WAY_TIME
from .storage import Store, read_document

NOT_THROUGH = (Unreachable, Timeout, ConnectionLost, Overloaded)
"""Errors that mean that nobody answered; every other one is an answer."""

LONGEST_PROBLEM = 120
"""Characters of why a way failed: eight of them must fit the join port's small messages."""


_KEY = re.compile(r"#[0-9a-f]{64}")


@cache
def version() -> str:
    """Return the version of covey that runs."""
    from importlib.metadata import version as installed

    return installed("covey")


async def here(ways: Iterable[Coroutine[Any, Any, Way]] = ()) -> Here:
    """Return what this node says of itself, with the ways tried all at once."""
    tried = await asyncio.gather(*ways)
    return Here(version(), PROTOCOL, time.time(), tuple(tried))


def without(said: Here, away: Iterable[NodeDefinition]) -> Here:
    """Return what the new node said without its ways to nodes that are offline: nobody reaches those."""
    gone = {place.partition("#")[0] for node in away for place in join_places(node)}
    return msgspec.structs.replace(said, ways=tuple(way for way in said.ways if way.endpoint not in gone))


def skew(clock: float, asked: float, answered: float) -> float:
    """Return by how many seconds another's clock is ahead for certain, when it was read in between; 0: it may fit."""
    if asked <= clock <= answered or not clock:
        return 0.0
    return clock - asked if clock < asked else clock - answered


async def tried(bus: Client, node: int, place: str, verb: str, **arguments: Any) -> Way:
    """Try one place of a node; say what was in the way."""
    endpoint = place.partition("#")[0]
    try:
        await bus.call("dcm", verb, node=place, timeout=WAY_TIME, **arguments)
    except NOT_THROUGH as why:
        return Way(node, endpoint, _KEY.sub("", why.message)[:LONGEST_PROBLEM])
    except CoveyError:
        pass
    return Way(node, endpoint)


# --- before a define ------------------------------------------------------------------------------------------


def to_members(bus: Client, pending: PendingDefine) -> list[Coroutine[Any, Any, Way]]:
    """Try the members that know how this define will end: whom this node must reach if the one that defines it dies."""
    about = {"cluster_id": pending.cluster.id, "definition_id": pending.definition_id}
    return [tried(bus, 0, place, "verdict", **about) for place in pending.ask]


def to_newcomer(
    bus: Client, address: str, prepared: Prepared, cluster_id: str, definition_id: str
) -> list[Coroutine[Any, Any, Way]]:
    """Try the new node's addresses; at one of them it has just answered."""
    node = NodeDefinition(0, prepared.name, prepared.id, definition_id, prepared.addresses, prepared.port, prepared.key)
    about = {"cluster_id": cluster_id, "definition_id": definition_id}
    known = zip(node.endpoints(), join_places(node), strict=True)
    others = [tried(bus, 0, place, "verdict", **about) for endpoint, place in known if endpoint != address]
    return [_reached(address), *others]


async def _reached(endpoint: str) -> Way:
    return Way(0, endpoint)


# --- a node at rest -------------------------------------------------------------------------------------------


def at_rest(state_dir: Path) -> list[Finding]:
    """Say what is to be said of a node whose daemon does not answer; blocks, changes nothing."""
    layout = Layout(state_dir)
    if not layout.state_dir.is_dir():
        hint = "--state names the state folder; the one of `node: {state_dir: …}` in the node's YAML"
        return [Finding("doctor.no_folder", "error", None, f"there is no folder {layout.state_dir}", hint)]
    holder = _holder(layout.lock)
    if holder:
        hint = "look at that process and its log; it may be stopped"
        message = f"the daemon of {layout.state_dir}, process {holder}, does not answer"
        found = [Finding("doctor.hung", "error", None, message, hint)]
    else:
        hint = "`covey node start FILE`, or the service that does it"
        found = [Finding("doctor.no_daemon", "error", None, f"no daemon runs on {layout.state_dir}", hint)]
    try:
        store = Store(layout)
        for cluster_id in sorted(store.clusters().defined()):
            for type_, (path, kind) in store.files(cluster_id).items():
                read_document(path, kind, type_)
    except LocalDamaged as why:
        found.append(Finding("doctor.damaged_file", "error", None, why.message, why.hint))
    return [*found, *disk(None, "this machine", free(layout.state_dir))]


def at_rest_plain(state_dir: Path) -> list[dict[str, Any]]:
    """Return `at_rest` as plain data."""
    found: list[dict[str, Any]] = msgspec.to_builtins(at_rest(state_dir))
    return found


def mtus(addresses: Iterable[str]) -> dict[str, int]:
    """Return the largest packet in bytes of the adapters that carry these of this machine's addresses."""
    import psutil

    wanted, stats = {each.partition("/")[0] for each in addresses}, psutil.net_if_stats()
    return {
        each.address: stats[name].mtu
        for name, found in psutil.net_if_addrs().items()
        for each in found
        if each.address in wanted and name in stats
    }


def free(folder: Path) -> int:
    """Return how many bytes a daemon may still write below a folder."""
    return shutil.disk_usage(folder).free


def _holder(lock: Path) -> str:
    """Return the process id of who holds a lock file, "" when nobody does; looks at it only."""
    try:
        handle = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
    finally:
        os.close(handle)
    return ""
