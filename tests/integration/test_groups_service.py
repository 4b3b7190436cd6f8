"""Groups on real brokers, over the real registry and the real liveness: two nodes, their boots, their members."""

from __future__ import annotations

import asyncio
import functools
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from covey import errors
from covey.bus.broker import Broker, BrokerSettings
from covey.bus.broker_service import run_broker
from covey.bus.client import Client, connect
from covey.bus.context import ComponentContext, Local
from covey.bus.messages import NodeInfo, Peer
from covey.components.groups import service as groups_service
from covey.components.groups.client import Group, GroupEvent
from covey.components.liveness import service as liveness_service
from covey.components.registry import create
from covey.components.registry import service as registry_service

CLUSTER = "c-1"
MAINS: dict[str, Callable[[ComponentContext], Coroutine[Any, Any, None]]] = {
    "registry": registry_service.main,
    "liveness": liveness_service.main,
    "groups": groups_service.main,
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
    """One node: a broker, its components, and a DCM that only keeps their books."""

    def __init__(self, folder: Path, number: int, broker: Broker) -> None:
        self.number, self.broker = number, broker
        self.local = Local(
            str(folder), str(folder / CLUSTER), CLUSTER, "blue", number, f"n{number}", f"id{number}", f"b{number}", (1,)
        )
        self.steps: list[int] = []
        self.functions = {"dcm.local"}
        self.changed = asyncio.Condition()
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def ping(self) -> None:
        """The DCM answers."""

    async def start(self, name: str) -> None:
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
            await self.changed.wait_for(lambda: function in self.functions or self.failed())
        if failed := self.failed():
            raise failed

    def failed(self) -> BaseException | None:
        return next((task.exception() for task in self.tasks.values() if task.done()), None)


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
            self._node.functions.update(functions)
            self._node.changed.notify_all()


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cv") as name:
        yield Path(name)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.1.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def node(folder: Path, number: int, port: int, others: tuple[int, ...]) -> AsyncIterator[Node]:
    state = folder / f"n{number}"
    settings = BrokerSettings(f"{state}/run", (f"127.1.0.{number}/16",), port)
    async with run_broker(settings) as (broker, _):
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
                await found.start(name)
            try:
                yield found
            finally:
                for name in list(found.tasks):
                    await found.stop(name)


@asynccontextmanager
async def pair(folder: Path) -> AsyncIterator[tuple[Node, Node]]:
    port = free_port()
    async with node(folder, 1, port, (2,)) as one, node(folder, 2, port, (1,)) as two:
        await one.until("registry.writes")
        await two.until("groups")
        yield one, two


@asynccontextmanager
async def user(place: Node) -> AsyncIterator[Client]:
    async with connect(endpoints=place.broker.endpoints) as bus:
        yield bus


async def following(member: Group, count: int) -> list[GroupEvent]:
    found = []
    async for event in member:
        found.append(event)
        if len(found) == count:
            break
    return found


@story
async def test_the_boot_order_and_the_registrys_own_group(folder: Path) -> None:
    async with pair(folder) as (one, two):
        for place in (one, two):
            order = [step for step in place.steps if step in (9, 12, 13, 14)]
            assert order == [9, 12, 13, 14]
        assert one.steps.index(14) < one.steps.index(15) < one.steps.index(16)
        async with user(two) as bus:
            shown = await bus.call("groups", "show", name="sys.registry")
            assert [(each["node"], each["member"]) for each in shown["members"]] == [(1, "registry")]
            with pytest.raises(errors.Denied):
                await bus.call("groups", "join", group="sys.mine")
            with pytest.raises(errors.NotFound):
                await bus.call("groups", "show", name="nothing")
            with pytest.raises(errors.NotImplementedYet, match=r"SPEC 11\.2"):
                await bus.call("groups", "propose", group="db", body="x", phases=2)
            with pytest.raises(errors.Refused, match="your own node"):
                await bus.call("groups", "join", group="db", node=1)


@story
async def test_members_on_two_nodes_see_the_same(folder: Path) -> None:
    async with pair(folder) as (one, two), user(one) as here, user(two) as there:
        async with Group(here, "db", state={"leader": 1}) as first, Group(there, "db") as second:
            assert second.state == {"leader": 1}
            await first.broadcast("hello")
            await second.broadcast({"answer": 42})
            await second.set_state([1, 2])
            mine, theirs = await following(first, 6), await following(second, 4)
            assert [(event.kind, event.body) for event in theirs] == [
                ("joined", None),
                ("message", "hello"),
                ("message", {"answer": 42}),
                ("state", [1, 2]),
            ]
            assert [event.kind for event in mine[:2]] == ["joined", "state"]
            assert [event.sequence for event in mine[2:]] == [event.sequence for event in theirs]
            assert [member.node for member in first.members] == [1, 2] == [m.node for m in second.members]
            assert first.view == second.view and first.state == [1, 2]
            with pytest.raises(errors.TooLarge):
                await first.broadcast("x" * 70_000)
            with pytest.raises(errors.NotImplementedYet):
                first.vote(lambda proposal: "approve")
            with pytest.raises(errors.NotMember):
                await here.call("groups", "broadcast", group="other", body="x")
        assert await here.call("groups", "ls") == [
            each for each in await here.call("groups", "ls") if each["name"].startswith("sys.")
        ]


@story
async def test_a_party_that_dies_fails_in_all_its_groups_at_once(folder: Path) -> None:
    async with pair(folder) as (one, two), user(one) as here, Group(here, "db") as watcher:
        await following(watcher, 1)
        async with user(two) as there:
            await there.call("groups", "join", group="db")
            await following(watcher, 1)
        (event,) = await following(watcher, 1)
        assert event.kind == "failed" and event.who[0].node == 2
        assert [member.node for member in event.members] == [1]


@story
async def test_groups_are_restarted_under_their_members(folder: Path) -> None:
    """The coordinator's process dies: members stay members, one that died meanwhile fails, nothing is lost."""
    async with (
        pair(folder) as (one, two),
        user(one) as here,
        user(two) as there,
        Group(here, "db") as first,
        Group(there, "db") as second,
    ):
        await first.broadcast("before")
        await following(first, 3)
        one.functions.discard("groups")
        async with user(one) as short:
            await short.call("groups", "join", group="db")
            await following(first, 1)
            await one.stop("groups")
        await one.start("groups")
        await one.until("groups")
        await second.broadcast("after")
        kinds = [(event.kind, event.body) for event in await following(first, 2)]
        assert sorted(kinds, key=str) == [("failed", None), ("message", "after")]
        seen = [(event.kind, event.body) for event in await following(second, 5)]
        assert seen[:3] == [("joined", None), ("message", "before"), ("joined", None)] and seen[3:] == kinds
