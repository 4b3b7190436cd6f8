"""The controller of class `Network`: what this node exchanges with others on each of its networks (SPEC 8.4).

The counters are the DCM's, by the verbs of `covey network`; asked over the node's own bus, since they are counted where
messages pass a socket. One answer serves all networks that are read within a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from ...bus.client import connect
from ...errors import ResourceNotFound
from ..contract import Controller, Found, Resource

SERVICES = ("dcm", "registry", "liveness", "groups", "resources", "bulk")

FRESH = 1.0
"""Seconds for which an answer is good enough."""

_COUNTERS = {
    "MessagesOut": "messages_out",
    "MessagesIn": "messages_in",
    "BytesOut": "bytes_out",
    "BytesIn": "bytes_in",
}


class Network(Controller):
    """Networks that this node is on."""

    description = "network.yaml"

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._until = 0.0

    async def discover(self) -> AsyncIterator[Found]:
        """Every network on which this node has an address."""
        rows = await self._ask("address_ls")
        own = [each for each in rows if each["node"] == self.node.number]
        for name in sorted({each["network"] for each in own}):
            here = [f"{each['address']}/{each['mask']}" for each in own if each["network"] == name]
            yield Found("Network", key={"Name": name}, Addresses=here)

    async def read(self, resource: Resource) -> dict[str, Any]:
        """The counters since the node's processes began."""
        now = asyncio.get_running_loop().time()
        if now >= self._until:
            self._rows, self._until = await self._ask("network_traffic"), now + FRESH
        rows = [each for each in self._rows if each["network"] == resource.key["Name"]]
        if not rows and resource.key["Name"] not in [each["name"] for each in await self._ask("network_ls")]:
            raise ResourceNotFound(f"there is no network {resource.key['Name']} (any more)", "discover again")
        values = {attribute: sum(each[name] for each in rows) for attribute, name in _COUNTERS.items()}
        for service in SERVICES:
            said = [each for each in rows if each["service"] == service]
            for attribute, name in _COUNTERS.items():
                values[service.capitalize() + attribute] = sum(each[name] for each in said)
        return values

    async def _ask(self, verb: str) -> list[dict[str, Any]]:
        async with connect(state=self.node.state) as bus:
            found: list[dict[str, Any]] = await bus.call("dcm", verb, timeout=2.0)
            return found
