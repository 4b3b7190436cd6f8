"""Nodes for tests of the registry: each a real broker and the registry's component, with a DCM and Groups made up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from covey.bus.broker import Broker, BrokerSettings
from covey.bus.broker_service import run_broker
from covey.bus.client import Client, connect
from covey.bus.context import ComponentContext, Local
from covey.bus.messages import NodeInfo, Peer
from covey.bus.security import Keys
from covey.components.registry import create
from covey.components.registry.service import main
from covey.errors import CoveyError
from real_nodes import free_port

CLUSTER = "c-1"
NODE = {"number": 1, "name": "n1", "id": "id-1", "definition_id": "d", "addresses": ["127.1.0.1/16"], "port": 1}


class Context(ComponentContext):
    """A context whose DCM is this object: it remembers steps and functions."""

    def __init__(self, bus: Client, local: Local) -> None:
        super().__init__("registry", bus, local)
        self.steps: list[tuple[int, str, str]] = []
        self.functions: list[str] = []
        self.changed = asyncio.Event()

    async def refresh(self) -> Local:
        return self.local

    async def step(self, number: int, event: str, how: str = "done") -> None:
        self.steps.append((number, event, how))
        self.changed.set()

    async def need(self, function: str) -> None:
        assert function == "groups"

    async def ready(self, *functions: str) -> None:
        self.functions += functions
        self.changed.set()

    async def until(self, function: str) -> None:
        while function not in self.functions:
            self.changed.clear()
            await self.changed.wait()


class Groups:
    """Group Services that let everybody join."""

    def __init__(self) -> None:
        self.joined: list[str] = []

    async def join(self, *, group: str) -> None:
        self.joined.append(group)

    async def leave(self, *, group: str) -> None:
        self.joined.remove(group)


class Node:
    """One node: a broker, a party that asks, and the registry component, started and stopped at will."""

    def __init__(self, folder: Path, number: int, broker: Broker, bus: Client) -> None:
        self.folder, self.number, self.broker, self.bus = folder, number, broker, bus
        self.nodes: dict[int, dict[str, Any]] = {}  # as the local configuration has them
        self.security = {"mode": "open", "key": ""}
        self.context: Context | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, **lists: tuple[int, ...]) -> Context:
        """Start the component; `servers`, `learners` and `stopped` are what the local configuration lists."""
        lists = {"servers": (1,)} | lists
        where = (str(self.folder), str(self.folder / CLUSTER), CLUSTER)
        local = Local(*where, "blue", self.number, f"n{self.number}", "id", "boot", **lists)  # type: ignore[arg-type]
        local = msgspec.structs.replace(local, nodes=self.nodes, settings={"security": self.security})
        ready: asyncio.Future[Context] = asyncio.get_running_loop().create_future()

        async def run() -> None:
            async with connect(endpoint=self.broker.endpoint, name="registry", component=True) as bus:
                context = Context(bus, local)
                ready.set_result(context)
                await main(context)

        self._task = asyncio.create_task(run())
        self.context = await ready
        return self.context

    async def stop(self) -> None:
        assert self._task
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def listed(self, servers: dict[str, Any]) -> None:
        """Renew the local configuration, as the DCM does when the registry's list of servers changes."""
        assert self.context
        found = {name: tuple(servers.get(name, ())) for name in ("servers", "learners", "stopped")}
        self.context.local = msgspec.structs.replace(self.context.local, **found)
        await self.bus.publish("dcm.local", {"servers": servers})

    async def know(self, nodes: dict[int, dict[str, Any]]) -> None:
        """Renew the nodes of the local configuration, and tell the broker, as the DCM does."""
        self.nodes = nodes
        self.configure()
        if self.context:
            self.context.local = msgspec.structs.replace(self.context.local, nodes=nodes)
            await self.bus.publish("dcm.local", {})

    def configure(self) -> None:
        """Tell the broker who this node is, and where the others are."""
        number = self.number
        peers = {
            other: Peer(each["name"], (f"127.1.0.{other}:{each['port']}",), each["key"])
            for other, each in self.nodes.items()
            if other != number
        }
        self.broker.configure(NodeInfo(number, f"n{number}", f"id{number}", CLUSTER, "blue", "boot"), peers)

    async def ended(self) -> BaseException | None:
        assert self._task
        await asyncio.wait([self._task])
        return self._task.exception()


def definitions(port: int, of: int, keys: dict[int, Keys] | None = None) -> dict[int, dict[str, Any]]:
    """Return so many nodes as the local configuration has them."""
    return {
        number: {
            "number": number,
            "name": f"n{number}",
            "id": f"id{number}",
            "definition_id": f"d{number}",
            "addresses": [f"127.1.0.{number}/16"],
            "port": port,
            "key": keys[number].public if keys else "",
        }
        for number in range(1, of + 1)
    }


@asynccontextmanager
async def node(
    folder: Path, number: int, port: int, of: int = 2, keys: dict[int, Keys] | None = None
) -> AsyncIterator[Node]:
    state = folder / f"n{number}"
    settings = BrokerSettings(f"{state}/run", (f"127.1.0.{number}/16",), port, keys=keys[number] if keys else None)
    async with (
        run_broker(settings) as (broker, _),
        connect(endpoint=broker.endpoint, name="tester", component=True) as bus,
    ):
        found = Node(state, number, broker, bus)
        await found.know(definitions(port, of, keys))
        if keys:
            found.security = {"mode": "curve", "key": str(key_file(folder, number, keys[number]))}
        try:
            yield found
        finally:
            if found._task and not found._task.done():
                await found.stop()


def key_file(folder: Path, number: int, keys: Keys) -> Path:
    """Write a node's key file."""
    path = folder / f"n{number}.key"
    path.write_text(f"public: {keys.public}\nsecret: {keys.secret}\n")
    path.chmod(0o600)
    return path


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[tuple[Node, Node, Groups]]:
    """Node 1 with the registry server, node 2 with an agent; Group Services are there."""
    port, groups = free_port(), Groups()
    create(folder / "n1" / CLUSTER, cluster_id=CLUSTER, cluster_name="blue", node=NODE, servers=[1])
    async with node(folder, 1, port) as one, node(folder, 2, port) as two:
        there = connect(endpoint=one.broker.endpoint, name="groups", component=True)
        async with there as bus, bus.serve("groups", {"join": groups.join}):
            yield one, two, groups


class Servers:
    """Three nodes; the first founds the registry. A made-up DCM on each follows the list of servers."""

    def __init__(self, nodes: list[Node], groups: Groups) -> None:
        self.nodes, self.groups = nodes, groups

    def __getitem__(self, number: int) -> Node:
        return self.nodes[number - 1]

    async def up(self) -> None:
        """Start the three, and make the other two registry servers."""
        for found in self.nodes:
            await (await found.start()).until("registry.writes")
        for number in (2, 3):
            await self[1].bus.call("registry", "put", key=f"/nodes/{number}", value={"number": number})
            await self.change("define_server", number)
            await self.voting(number)

    async def change(self, verb: str, server: int, by: int = 1) -> Any:
        """Change the servers by one, asked of the node `by`."""
        done = await self[by].bus.call("registry", verb, server=server, timeout=20.0)
        await self.renew(by)
        return done

    async def seen(self, by: int, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until a node's `registry status` is as wanted, and return it."""
        while True:
            with suppress(CoveyError):
                status: dict[str, Any] = await self[by].bus.call("registry", "status")
                if holds(status):
                    return status
            await asyncio.sleep(0.02)

    async def renew(self, by: int = 1) -> dict[str, Any]:
        """Tell every node's DCM the list of servers."""
        found: dict[str, Any] = (await self[by].bus.call("registry", "get", key="/cluster/servers"))["value"]
        for each in self.nodes:
            await each.listed(found)
        return found

    async def voting(self, *numbers: int, by: int = 1) -> dict[str, Any]:
        """Wait until these servers vote; return the registry's status."""

        def voting(status: dict[str, Any]) -> bool:
            states = {one["number"]: one["state"] for one in status["servers"]}
            return all(states.get(number) in ("primary", "follower") for number in numbers)

        status = await self.seen(by, voting)
        await self.renew(by)
        return status


@asynccontextmanager
async def three(folder: Path, curve: bool = False) -> AsyncIterator[Servers]:
    """Three nodes, and Group Services on each; `up` starts them."""
    port, groups = free_port(), Groups()
    keys = {number: Keys.make() for number in (1, 2, 3)} if curve else None
    create(folder / "n1" / CLUSTER, cluster_id=CLUSTER, cluster_name="blue", node=NODE, servers=[1])
    async with AsyncExitStack() as stack:
        nodes = []
        for number in (1, 2, 3):
            found = await stack.enter_async_context(node(folder, number, port, 3, keys))
            there = connect(endpoint=found.broker.endpoint, name="groups", component=True)
            bus = await stack.enter_async_context(there)
            verbs = {"join": groups.join, "leave": groups.leave}
            await stack.enter_async_context(bus.serve("groups", verbs))
            nodes.append(found)
        yield Servers(nodes, groups)
