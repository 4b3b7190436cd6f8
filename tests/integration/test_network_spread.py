"""Thirty nodes spread over three equally far registry servers, by their lists and by whom they ask (SPEC 8.3)."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from covey.bus.messages import Role
from covey.bus.service import Request
from covey.components.dcm.definitions import NetworkTable, NodeDefinition
from covey.components.dcm.networks import Networks
from covey.components.registry.forward import ForwardEngine
from covey.components.registry.messages import Get
from covey.errors import Unreachable

SERVERS = (1, 2, 3)
CLIENTS = range(101, 131)
NODES = {n: NodeDefinition(n, f"n{n}", "", "", (f"10.1.0.{n}/16",), 7400) for n in (*SERVERS, *CLIENTS)}


class Bus:
    """Remembers which node was asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def call(self, service: str, verb: str, /, *, node: int, **given: Any) -> Any:
        if verb != "get":
            raise Unreachable("who leads is not asked here")
        self.asked.append(node)
        return {"value": 1}


def test_each_server_is_first_for_ten_of_thirty_and_is_asked_by_them() -> None:
    networks = Networks(NetworkTable(), NODES)

    async def first_asked(client: int) -> int:
        places = [place for place in networks.places() if place.node in SERVERS]
        order = [each.node for each in networks.choose("registry", client, places)[0]]
        bus = Bus()
        engine = ForwardEngine(bus, client, SERVERS, "c1")  # type: ignore[arg-type]
        engine.listed(SERVERS, (), order)
        await engine.ask(Get("/app/a", "stale"), Request("client-1", client, Role.LOOK, budget=5.0))
        assert bus.asked == order[:1]
        return bus.asked[0]

    async def story() -> Counter[int]:
        return Counter([await first_asked(client) for client in CLIENTS])

    assert asyncio.run(story()) == dict.fromkeys(SERVERS, 10)
