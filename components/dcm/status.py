"""Compose what `cluster status`, `node ls` and `node show` say, from what each component said. Pure."""

from __future__ import annotations

from typing import Any

from .definitions import Replica
from .life import State

OWN: dict[State, str] = {
    "checking": "pending online",
    "starting": "pending online",
    "configuring": "pending online",
    "leaving": "pending offline",
}
CLOSED = {"writable": False, "phase": "offline", "incarnation": None, "revision": None, "primary": None}
"""A registry that nothing is known of: what would be a number of the truth is null, for 0 is a number, too."""


def node_list(replica: Replica | None, view: dict[str, Any] | None, state: State, boot_id: str) -> list[dict[str, Any]]:
    """Return the nodes of INTERFACES `node ls`: the definitions with what the view says of each.

    This node's own state wins over the view where it knows better: before it is in, and while it leaves.
    """
    if replica is None:
        return []
    members = {int(member["number"]): member for member in (view or {}).get("members", [])}
    nodes = []
    for number, node in sorted({**replica.nodes.nodes, replica.node.number: replica.node}.items()):
        member = members.get(number)
        shown, boot = (member["state"], member["boot_id"]) if member else ("offline", None)
        if number == replica.node.number:
            own = state not in ("undefined", "offline", "failed", "new")
            boot = boot_id if own else None
            if state == "leaving" or not own or member is None or member["boot_id"] != boot_id:
                shown = OWN.get(state, "offline")
        nodes.append(
            {
                "number": number,
                "name": node.name,
                "id": node.id,
                "boot_id": boot,
                "state": shown,
                "addresses": list(node.addresses),
                "port": node.port,
                "definition_id": node.definition_id,
            }
        )
    return nodes


def cluster_status(
    replica: Replica | None,
    liveness: dict[str, Any] | None,
    registry: dict[str, Any] | None,
    state: State,
    reason: str,
    boot_id: str,
) -> dict[str, Any]:
    """Return INTERFACES `cluster status` as this node sees it; None stands for a component that did not answer."""
    view = (liveness or {}).get("view")
    servers = list(replica.servers.all) if replica else []
    shown = {**CLOSED, "servers": [{"number": number, "state": "offline"} for number in servers]}
    if registry is not None:
        shown.update({key: registry[key] for key in (*shown, "closed_because", "tolerates") if key in registry})
    return {
        "name": replica.cluster.name if replica else None,
        "id": replica.cluster.id if replica else None,
        "quorate": bool(liveness and liveness.get("quorate")),
        "nodes": node_list(replica, view, state, boot_id),
        "registry": shown,
        "view": {
            "id": list(view["id"]) if view else None,
            "members": [int(member["number"]) for member in view["members"]] if view else [],
        },
        "node_state": state,
        "reason": reason,
    }
