"""Nodes as people name them: by number, by name, or as `this node` when nothing is said.

The one place that turns what was typed into a node number. A name is never all digits, so a number needs no look-up:
a number that does not exist is refused by whoever is asked about it.
"""

from __future__ import annotations

import difflib
from typing import Any

from ..errors import Ambiguous, NotDefined, NotFound
from .connection import OUTSIDE, Session


async def node_number(session: Session, typed: str | None) -> int:
    """Return the number of the node a person means; None is this node. Raises NotFound, Ambiguous, NotDefined."""
    if typed is None:
        here = session.bus.node.number
        if here == 0:
            raise NotDefined("this node is in no cluster", OUTSIDE)
        return here
    if typed.isdecimal():
        return int(typed)
    return by_name(await session.call("dcm", "node_ls"), typed)


async def must_exist(session: Session, number: int) -> None:
    """Raise NotFound when no node has that number: for an answer that is empty, perhaps for that reason."""
    if all(int(node["number"]) != number for node in await session.call("dcm", "node_ls")):
        raise NotFound(f"no node has the number {number}", "`covey node ls` lists the nodes")


def by_name(nodes: list[dict[str, Any]], name: str) -> int:
    """Return the number of the node of that name in a list of nodes."""
    found = [int(node["number"]) for node in nodes if node["name"] == name]
    if len(found) > 1:
        numbers = ", ".join(str(number) for number in sorted(found))
        raise Ambiguous(f"{len(found)} nodes are named {name!r}: numbers {numbers}", "use the number")
    if not found:
        near = difflib.get_close_matches(name, [str(node["name"]) for node in nodes], n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else "`covey node ls` lists the nodes"
        raise NotFound(f"no node is named {name!r}", hint)
    return found[0]
