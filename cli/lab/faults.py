"""Cuts between nodes of a lab: which addresses they concern, told to both nodes' brokers.

Both are told, since each dials the other: the one end throws away what it sends, the other what would arrive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from ...errors import NotFound, UsageError
from ..connection import connected
from .folder import Node


async def cut(first: Node, second: Node, one_way: bool, network: str | None) -> dict[str, Any]:
    """Cut what `first` sends to `second`, and unless `one_way` the other way round; return what was cut.

    `network` names a network or subnetwork, None: all. Raises NotFound when neither node has an address there.
    """
    if first == second:
        raise UsageError(f"{first.name} cannot be cut off from itself", "name two nodes")
    async with connected(first.state) as one, connected(second.state) as two:
        rows: list[dict[str, Any]] = await one.call("dcm", "address_ls")
        mine, theirs = one.node.number, two.node.number
        rows = [each for each in rows if each["node"] in (mine, theirs)]
        if network is not None:
            prefixes = {each["name"]: each["prefix"] for each in await one.call("dcm", "subnet_ls")}
            known = {name for each in rows for name in _names(each, prefixes)}
            rows = [each for each in rows if network in _names(each, prefixes)]
            if not rows:
                raise NotFound(f"neither node has an address on {network!r}", f"they are on {', '.join(sorted(known))}")
        hosts = {number: [each["address"] for each in rows if each["node"] == number] for number in (mine, theirs)}
        back = [] if one_way else hosts[theirs]
        await one.call("bus", "cut", out=hosts[theirs], into=back)
        await two.call("bus", "cut", out=[] if one_way else hosts[mine], into=hosts[mine])
        networks = sorted({each["network"] if network is None else network for each in rows})
        return {"from": mine, "to": theirs, "one_way": one_way, "networks": networks, "addresses": hosts[theirs]}


async def heal(nodes: Iterable[Node]) -> list[int]:
    """Undo every cut on these nodes; return their numbers."""

    async def one(node: Node) -> int:
        async with connected(node.state) as bus:
            await bus.call("bus", "heal")
        return node.number

    return list(await asyncio.gather(*map(one, nodes)))


def _names(address: dict[str, Any], prefixes: dict[str, str]) -> set[str]:
    return {address["network"], address["subnet"], prefixes[address["subnet"]]}
