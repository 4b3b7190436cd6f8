"""The controller of class `Network`, with a bus that answers from a table."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from covey.controllers import network
from covey.controllers.contract import Node, Resource
from covey.controllers.description import read_description
from covey.errors import ResourceNotFound


def row(name: str, service: str, out: int) -> dict[str, Any]:
    counts = {"messages_out": out, "messages_in": 1, "bytes_out": 10 * out, "bytes_in": 20}
    return {"network": name, "service": service, **counts}


ADDRESSES = [
    {"node": 1, "address": "10.1.0.1", "mask": 16, "network": "A"},
    {"node": 1, "address": "10.2.0.1", "mask": 16, "network": "default"},
    {"node": 2, "address": "10.3.0.2", "mask": 16, "network": "B"},
]
ANSWERS = {
    "address_ls": ADDRESSES,
    "network_traffic": [row("A", "registry", 3), row("A", "greeter", 4), row("default", "dcm", 9)],
    "network_ls": [{"name": name} for name in ("A", "B", "default")],
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []

    class Bus:
        async def call(self, service: str, verb: str, *, timeout: float) -> Any:
            said.append(f"{service}.{verb}")
            return ANSWERS[verb]

    @asynccontextmanager
    async def connect(state: str) -> AsyncIterator[Bus]:
        assert state == "/where"
        yield Bus()

    monkeypatch.setattr(network, "connect", connect)
    return said


def test_the_networks_of_this_node_with_what_passed_on_them(asked: list[str]) -> None:
    controller = network.Network()
    controller.node = Node(1, "n1", "lab", "/where")

    async def story() -> None:
        found = [each async for each in controller.discover()]
        assert [(each.key["Name"], each.attributes["Addresses"]) for each in found] == [
            ("A", ["10.1.0.1/16"]),
            ("default", ["10.2.0.1/16"]),
        ]
        read = await controller.read(Resource("Network", {"Name": "A"}, "x"))
        assert (read["BytesOut"], read["MessagesIn"], read["RegistryBytesOut"], read["DcmBytesOut"]) == (70, 2, 30, 0)
        quiet = await controller.read(Resource("Network", {"Name": "B"}, "x"))
        assert set(quiet.values()) == {0}
        with pytest.raises(ResourceNotFound):
            await controller.read(Resource("Network", {"Name": "gone"}, "x"))
        description, findings = read_description(Path(network.__file__).parent / "network.yaml")
        assert not findings and description is not None
        (declared,) = description.classes
        assert set(read) == {each.name for each in declared.attributes if each.kind == "dynamic"}

    asyncio.run(story())
    assert asked.count("dcm.network_traffic") == 1, "one answer serves all that are read at once"
