"""Liveness on real brokers over the real registry: three nodes join, one falls silent, one leaves, all agree."""

from __future__ import annotations

import asyncio
import functools
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from covey import errors
from covey.bus.broker import Broker, BrokerSettings
from covey.bus.broker_service import run_broker
from covey.bus.client import Client, connect
from covey.bus.context import ComponentContext, Local
from covey.bus.messages import NodeInfo, Peer
from covey.components.liveness import service as liveness_service
from covey.components.liveness.messages import Removed
from covey.components.registry import create
from covey.components.registry import service as registry_service

CLUSTER = "c-1"
INTERVAL = 0.2
MAINS: dict[str, Callable[[ComponentContext], Coroutine[Any, Any, None]]] = {
    "registry": registry_service.main,
    "liveness": liveness_service.main,
}


def story(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on a loop of its own, for a minute at most."""

    @functools.wraps(test)
    def run(*arguments: Any, **fixtures: Any) -> None:
        async def limited() -> None:
            async with asyncio.timeout(60):
                await test(*arguments, **fixtures)

        asyncio.run(limited())

    return run


class Node:
    """One node: a broker and its components; the books that a DCM would keep are kept here."""

    def __init__(self, folder: Path, number: int, broker: Broker) -> None:
        self.number, self.broker = number, broker
        settings = {"liveness": {"interval": INTERVAL}}
        self.local = Local(
            str(folder), str(folder / CLUSTER), CLUSTER, "blue", number, f"n{number}", f"id{number}", f"b{number}", (1,)
        )
        self.local = msgspec.structs.replace(self.local, settings=settings)
        self.steps: list[int] = []
        self.ready = {"dcm.local"}
        self.changed = asyncio.Condition()
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def ping(self) -> None:
        """The DCM answers."""

    def start(self, name: str) -> None:
        async def run() -> None:
            async with connect(endpoints=self.broker.endpoints, name=name, component=True) as bus:
                await MAINS[name](Context(name, bus, self))

        self.tasks[name] = asyncio.create_task(run(), name=f"{name}@{self.number}")

    async def stop(self, name: str) -> None:
        task = self.tasks.pop(name)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def until(self, function: str) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: function in self.ready)


class Context(ComponentContext):
    """A context whose DCM is the test's."""

    def __init__(self, name: str, bus: Client, node: Node) -> None:
        super().__init__(name, bus, node.local)
        self._node = node

    async def refresh(self) -> Local:
        return self.local

    async def step(self, number: int, event: str, how: str = "done") -> None:
        self._node.steps.append(number)

    async def need(self, function: str) -> None:
        await self._node.until(function)

    async def ready(self, *functions: str) -> None:
        async with self._node.changed:
            self._node.ready.update(functions)
            self._node.changed.notify_all()


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cv") as name:
        yield Path(name)


@asynccontextmanager
async def node(folder: Path, number: int, port: int, count: int) -> AsyncIterator[Node]:
    state = folder / f"n{number}"
    async with run_broker(BrokerSettings(f"{state}/run", (f"127.1.0.{number}/16",), port)) as (broker, _):
        others = [other for other in range(1, count + 1) if other != number]
        peers = {other: Peer(f"n{other}", (f"127.1.0.{other}:{port}",)) for other in others}
        broker.configure(NodeInfo(number, f"n{number}", f"id{number}", CLUSTER, "blue", f"b{number}"), peers)
        found = Node(state, number, broker)
        Path(found.local.folder).mkdir(parents=True)
        if number == 1:
            record = {"number": 1, "name": "n1", "id": "id1", "definition_id": "d", "addresses": [], "port": port}
            create(Path(found.local.folder), cluster_id=CLUSTER, cluster_name="blue", node=record, servers=[1])
        async with (
            connect(endpoints=broker.endpoints, name="dcm", component=True) as dcm,
            dcm.serve("dcm", {"ping": found.ping}),
        ):
            for name in MAINS:
                found.start(name)
            try:
                yield found
            finally:
                for name in list(found.tasks):
                    await found.stop(name)


@asynccontextmanager
async def cluster(folder: Path, count: int) -> AsyncIterator[list[Node]]:
    with socket.socket() as probe:
        probe.bind(("127.1.0.1", 0))
        port = int(probe.getsockname()[1])
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(node(folder, n, port, count)) for n in range(1, count + 1)]
        for place in nodes:
            await place.until("liveness")
        yield nodes


@asynccontextmanager
async def user(place: Node, name: str = "") -> AsyncIterator[Client]:
    async with connect(endpoints=place.broker.endpoints, name=name, component=bool(name)) as bus:
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
            with pytest.raises(errors.NotImplementedYet, match=r"SPEC 10\.1"):
                await bus.call("liveness", "paths", network="default")
        async with user(nodes[0], "groups") as bus:
            forged = msgspec.msgpack.encode(Removed("b1", (9, 9)))
            with pytest.raises(errors.Denied, match="not the liveness of a node"):
                await bus.call("liveness", "message", body=forged)
            assert (await bus.call("liveness", "status"))["state"] == "member"
