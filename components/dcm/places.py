"""Where other nodes' DCMs are asked: `HOST:PORT`, and in mode curve `HOST:PORT#KEY`, the key that must answer there.

Pure. A node with a public key in its definition is in mode curve: it is asked on its peer port by nodes it trusts, and
on its join port (the next one) by those that it does not, or not yet. Without keys there is one port and no question.
"""

from __future__ import annotations

from collections.abc import Iterable

from .definitions import NodeDefinition, NodeTable, ServerList


def peer_places(node: NodeDefinition) -> list[str]:
    """Return where a node that trusts us listens, for calls by address."""
    return [f"{found}#{node.key}" if node.key else found for found in node.endpoints()]


def join_places(node: NodeDefinition) -> list[str]:
    """Return where a node listens for those that it need not trust."""
    return [join_place(found, node.key) for found in node.endpoints()]


def join_place(endpoint: str, key: str) -> str:
    """Return the join port that belongs to a peer endpoint; with no key the endpoint itself."""
    if not key:
        return endpoint
    host, _, port = endpoint.rpartition(":")
    return f"{host}:{int(port) + 1}#{key}"


def by_join_port(place: str) -> bool:
    """Whether a place is a join port, as `join_places` gives it, and not a peer's own."""
    return "#" in place


def who_knows(node: NodeDefinition, servers: ServerList, table: NodeTable) -> list[str]:
    """Return the join places of all other nodes, the registry servers' first."""
    numbers: Iterable[int] = dict.fromkeys([*servers.all, *sorted(table.nodes)])
    others = [table.nodes[number] for number in numbers if number in table.nodes and number != node.number]
    return [place for other in others for place in join_places(other)]
