"""Liveness on real brokers over the real registry: three nodes join, one falls silent, one leaves, all agree."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from covey import errors
from covey.bus.client import Client, connect
from covey.components.liveness import service as liveness_service
from covey.components.liveness.messages import Removed
from covey.components.registry import service as registry_service
from real_nodes import Mains, Node, free_port, node, story

INTERVAL = 0.2
MAINS: Mains = {
    "registry": registry_service.main,
    "liveness": liveness_service.main,
}


@asynccontextmanager
async def cluster(folder: Path, count: int) -> AsyncIterator[list[Node]]:
    port, numbers, settings = free_port(), range(1, count + 1), {"liveness": {"interval": INTERVAL}}
    async with AsyncExitStack() as stack:
        made = [node(folder, each, port, set(numbers) - {each}, MAINS, settings) for each in numbers]
        nodes = [await stack.enter_async_context(each) for each in made]
        for place in nodes:
            await place.until("liveness")
        yield nodes


@asynccontextmanager
async def user(place: Node, name: str = "") -> AsyncIterator[Client]:
    async with connect(endpoint=place.broker.endpoint, name=name, component=bool(name)) as bus:
        yield bus


async def members_everywhere(nodes: list[Node], wanted: list[int], state: str = "") -> list[Any]:
    """Wait until all these nodes hold the same view of these members; return its id."""
    while True:
        seen = []
        for place in nodes:
            async with user(place) as bus:
                view = (await bus.call("liveness", "status"))["view"]
            seen.append((view["id"], [m["number"] for m in view["members"] if state in ("", m["state"])]))
        if all(each == seen[0] for each in seen) and seen[0][1] == wanted:
            found: list[Any] = seen[0][0]
            return found
        await asyncio.sleep(0.02)


@story
async def test_nodes_join_in_the_order_of_the_boot_and_are_online_when_configured(folder: Path) -> None:
    async with cluster(folder, 3) as nodes:
        for place in nodes:
            assert [step for step in place.steps if step in (8, 10, 11)] == [8, 10, 11]
        await members_everywhere(nodes, [1, 2, 3], "pending online")
        for place in nodes:
            async with user(place, "dcm-2") as bus:
                answer = await bus.call("liveness", "configured")
                assert (await bus.call("liveness", "status"))["view"]["id"] == answer["view"]
        await members_everywhere(nodes, [1, 2, 3], "online")
        views = []
        for place in nodes:
            async with user(place) as bus:
                views.append(await bus.call("liveness", "views", last=100))
        assert views[0] == views[1] == views[2]
        assert all(view["at"].startswith("20") for view in views[0])
        joined = [number for view in views[0] for number in view["joined"]]
        assert sorted(joined) == [1, 2, 3]


@story
async def test_a_node_that_falls_silent_is_removed_and_the_event_tells(folder: Path) -> None:
    async with cluster(folder, 3) as nodes:
        await members_everywhere(nodes, [1, 2, 3])
        async with user(nodes[1]) as bus, bus.subscribe("liveness.view") as events:
            await nodes[2].stop("liveness")
            async for event in events:
                if event.body["left"]:
                    break
            assert [m["number"] for m in event.body["left"]] == [3]
            assert [m["number"] for m in event.body["members"]] == [1, 2] and event.body["quorate"]
        await members_everywhere(nodes[:2], [1, 2])
        nodes[2].start("liveness")
        async with user(nodes[2]) as bus, bus.subscribe("liveness.*") as events:
            async for event in events:  # the same boot id again: it is told, as long as it tries
                if event.topic == "liveness.removed":
                    break
            assert event.body["boot_id"] == "b3"


@story
async def test_a_node_leaves_in_order_and_the_leader_outlives_its_own_process(folder: Path) -> None:
    async with cluster(folder, 2) as nodes:
        first = await members_everywhere(nodes, [1, 2])
        for strange in ({"type": "Prophecy"}, {"type": "Join", "boot_id": 7}, 5):  # as a node of another version may
            await nodes[1].buses["liveness"].call("liveness", "message", node=1, body=msgspec.msgpack.encode(strange))
        async with user(nodes[0]) as bus:
            status = await bus.call("liveness", "status")
        assert status["not_understood"] == {"2": 3} and status["view"]["id"] == first
        await nodes[0].stop("liveness")
        nodes[0].start("liveness")
        async with user(nodes[1], "dcm-2") as bus:
            answer = await bus.call("liveness", "leave")
        assert answer["view"][1] == first[1] + 1
        assert await members_everywhere(nodes[:1], [1]) == answer["view"]


@story
async def test_who_may_ask_what(folder: Path) -> None:
    async with cluster(folder, 1) as nodes:
        async with user(nodes[0]) as bus:
            assert await bus.call("liveness", "paths", network="default") == []
            with pytest.raises(errors.NotFound, match="no network 'east'"):
                await bus.call("liveness", "paths", network="east")
        async with user(nodes[0], "groups") as bus:
            forged = msgspec.msgpack.encode(Removed("b1", (9, 9)))
            with pytest.raises(errors.Denied, match="not the liveness of a node"):
                await bus.call("liveness", "message", body=forged)
            assert (await bus.call("liveness", "status"))["state"] == "member"
