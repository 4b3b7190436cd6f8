"""Nodes with real brokers and real components in one process, and a DCM that only keeps their books."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from covey.bus.broker import Broker, BrokerSettings
from covey.bus.broker_service import run_broker
from covey.bus.client import Client, connect
from covey.bus.context import ComponentContext, Local
from covey.bus.messages import NodeInfo, Peer
from covey.components.registry import create

CLUSTER = "c-1"
LIMIT = 120.0
Mains = dict[str, Callable[[ComponentContext], Coroutine[Any, Any, None]]]


def story(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on a loop of its own, for a bounded time."""

    @functools.wraps(test)
    def run(*arguments: Any, **fixtures: Any) -> None:
        async def limited() -> None:
            async with asyncio.timeout(LIMIT):
                await test(*arguments, **fixtures)

        asyncio.run(limited())

    return run


def free_port() -> int:
    """Return a port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.1.0.1", 0))
        return int(probe.getsockname()[1])


class Node:
    """One node: a broker, its components, and the books that a DCM would keep."""

    def __init__(self, folder: Path, number: int, broker: Broker, mains: Mains, settings: dict[str, Any]) -> None:
        self.number, self.broker = number, broker
        self.local = Local(
            str(folder), str(folder / CLUSTER), CLUSTER, "blue", number, f"n{number}", f"id{number}", f"b{number}", (1,)
        )
        self.local = msgspec.structs.replace(self.local, settings=settings)
        self.steps: list[int] = []
        self.functions = {"dcm.local"}
        self.changed = asyncio.Condition()
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.buses: dict[str, Client] = {}
        self._mains = mains

    def ping(self) -> None:
        """The DCM answers."""

    def start(self, name: str) -> None:
        async def run() -> None:
            async with connect(endpoint=self.broker.endpoint, name=name, component=True) as bus:
                self.buses[name] = bus
                await self._mains[name](Context(name, bus, self))

        self.tasks[name] = asyncio.create_task(run(), name=f"{name}@{self.number}")

    async def stop(self, name: str) -> None:
        task = self.tasks.pop(name)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def until(self, function: str) -> None:
        """Wait until a function is ready; raises what ended a component meanwhile."""
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


@asynccontextmanager
async def node(
    folder: Path,
    number: int,
    port: int,
    others: Iterable[int],
    mains: Mains,
    settings: dict[str, Any] | None = None,
) -> AsyncIterator[Node]:
    """Run a node's broker and components; node 1 has the registry."""
    state = folder / f"n{number}"
    async with run_broker(BrokerSettings(f"{state}/run", (f"127.1.0.{number}/16",), port)) as (broker, _):
        peers = {other: Peer(f"n{other}", (f"127.1.0.{other}:{port}",)) for other in others}
        broker.configure(NodeInfo(number, f"n{number}", f"id{number}", CLUSTER, "blue", f"b{number}"), peers)
        found = Node(state, number, broker, mains, settings or {})
        Path(found.local.folder).mkdir(parents=True)
        if number == 1:
            record = {"number": 1, "name": "n1", "id": "id1", "definition_id": "d", "addresses": [], "port": port}
            create(Path(found.local.folder), cluster_id=CLUSTER, cluster_name="blue", node=record, servers=[1])
        async with (
            connect(endpoint=broker.endpoint, name="dcm", component=True) as dcm,
            dcm.serve("dcm", {"ping": found.ping}),
        ):
            for name in mains:
                found.start(name)
            try:
                yield found
            finally:
                for name in list(found.tasks):
                    await found.stop(name)
