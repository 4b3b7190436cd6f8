"""The Resource Manager's service on real brokers of two nodes; everything around it is a small honest stand-in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from covey import errors
from covey.bus.broker import Broker, BrokerSettings
from covey.bus.broker_service import run_broker
from covey.bus.client import Client, connect
from covey.bus.context import ComponentContext, Local
from covey.bus.messages import NodeInfo, Peer
from covey.bus.service import Request, verb
from covey.components.resources.service import main
from covey.controllers.classes import Attribute, ClassDescription, to_wire
from real_nodes import free_port


class Registry:
    """One store for all nodes, with transactions that compare and watches that wait."""

    def __init__(self) -> None:
        self.items: dict[str, tuple[Any, int]] = {}
        self.history: list[dict[str, Any]] = []
        self.revision = 0
        self.quorum = True
        self.changed = asyncio.Event()

    @verb()
    async def ls(self, *, prefix: str, consistency: str = "linear", after: str = "", limit: int = 0) -> dict[str, Any]:
        if consistency == "linear" and not self.quorum:
            raise errors.NoQuorum("no primary")
        found = sorted((key, *item) for key, item in self.items.items() if key.startswith(prefix) and key > after)
        limit = min(limit, 3)  # in small parts, so that every list takes several
        more, found = len(found) > limit, found[:limit]
        items = [{"key": key, "value": value, "mod_revision": revision} for key, value, revision in found]
        return {"items": items, "revision": self.revision, "consistency": consistency, "more": more}

    @verb()
    async def txn(self, *, compare: list[dict[str, Any]], then: list[dict[str, Any]]) -> dict[str, Any]:
        held = all(self.items.get(each["key"], (None, 0))[1] == each["mod_revision"] for each in compare)
        if held:
            self.revision += 1
            for each in then:
                if each["op"] == "put":
                    self.items[each["key"]] = (each["value"], self.revision)
                else:
                    del self.items[each["key"]]
                event = {"type": each["op"], "key": each["key"], "value": each.get("value"), "revision": self.revision}
                self.history.append(event)
            self.changed.set()
        return {"revision": self.revision, "succeeded": held}

    @verb()
    async def watch(self, *, prefix: str, from_revision: int, wait: float = 0.0) -> dict[str, Any]:
        from_revision, wait = (from_revision, wait) if from_revision else (self.revision + 1, 0.0)
        if self.revision < from_revision:
            self.changed.clear()
            try:
                await asyncio.wait_for(self.changed.wait(), wait)
            except TimeoutError:
                pass
        events = [one for one in self.history if one["revision"] >= from_revision and one["key"].startswith(prefix)]
        return {"from": from_revision, "to": max(self.revision, from_revision - 1), "events": events}


class Groups:
    """One group for all nodes: events in one order, polls that wait."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.members: list[dict[str, Any]] = []
        self.changed = asyncio.Condition()

    async def _add(self, kind: str, who: dict[str, Any], body: Any = None) -> int:
        async with self.changed:
            number = len(self.events) + 1
            self.events.append({"kind": kind, "sequence": number, "view": 1, "who": [who], "body": body})
            self.changed.notify_all()
        return number

    @verb()
    async def join(self, request: Request, *, group: str) -> dict[str, Any]:
        who = {"node": request.node, "boot_id": "boot", "member": request.service}
        joined = await self._add("joined", who)
        self.members.append({**who, "joined": joined})
        return {"group": group, "sequence": joined, "joined": joined, "members": self.members}

    @verb()
    async def broadcast(self, request: Request, *, group: str, body: Any) -> None:
        await self._add("message", {"node": request.node, "boot_id": "boot", "member": request.service}, body)

    @verb()
    async def poll(self, *, group: str, since: int, wait: float) -> dict[str, Any]:
        async with self.changed:
            if len(self.events) <= since:
                await self.changed.wait()
        return {"from": since + 1, "to": len(self.events), "missed": 0, "events": self.events[since:]}


class Dcm:
    """Hears what the component says of itself and of controllers."""

    def __init__(self, processes: list[str]) -> None:
        self.processes = processes
        self.steps: list[int] = []
        self.offered: list[str] = []
        self.plugins: dict[str, tuple[str, str]] = {}
        self.heard = asyncio.Event()

    @verb()
    def step(self, *, number: int, component: str, event: str, how: str) -> None:
        self.steps.append(number)
        self.heard.set()

    @verb()
    def function_wait(self, *, function: str, component: str, wait: float) -> dict[str, Any]:
        return {"ready": True}

    @verb()
    def ready(self, *, component: str, functions: list[str]) -> None:
        self.offered += functions

    @verb()
    def controllers_start(self) -> dict[str, Any]:
        return {"processes": self.processes}

    @verb()
    def plugin_state(self, *, name: str, state: str, reason: str = "", classes: tuple[str, ...] = ()) -> None:
        self.plugins[name] = (state, reason)
        self.heard.set()

    async def until(self, wanted: Any) -> None:
        async with asyncio.timeout(10):
            while not wanted(self):
                self.heard.clear()
                await self.heard.wait()


class Disks:
    """A controller."""

    def __init__(self, version: int = 1, raises: str = "") -> None:
        self.version = version
        self.raises = raises
        self.slots = [0, 1]
        self.reads = 0

    @verb()
    def classes(self) -> list[dict[str, Any]]:
        attributes = (
            Attribute(name="Slot", type="uint32", kind="persistent"),
            Attribute(name="Model", type="string", kind="persistent"),
            Attribute(name="Reads", type="uint32", kind="dynamic"),
        )
        return [
            to_wire(
                ClassDescription(
                    name="Disk", version=self.version, controller="disks", key=("Slot",), attributes=attributes
                )
            )
        ]

    @verb()
    def discover(self) -> dict[str, Any]:
        if self.raises:
            raise errors.PluginError(self.raises)
        found = [{"class": "Disk", "key": {"Slot": slot}, "attributes": {"Model": "A"}} for slot in self.slots]
        return {"found": found, "findings": []}

    @verb()
    def read(self, *, cls: str, key: dict[str, Any]) -> dict[str, Any]:
        self.reads += 1
        return {"attributes": {"Reads": self.reads}, "findings": []}


class Node:
    """One node: its broker, a person's connection, a component's, and what is around the Resource Manager."""

    def __init__(self, broker: Broker, bus: Client, component: Client, dcm: Dcm, disks: Disks) -> None:
        self.broker = broker
        self.bus = bus
        self.component = component
        self.dcm = dcm
        self.disks = disks


@asynccontextmanager
async def nodes(
    folder: Path, *controllers: Disks, before: dict[str, Any] | None = None
) -> AsyncIterator[tuple[list[Node], Registry]]:
    """Run the Resource Manager on one node for each controller; yields when all have finished their boot."""
    registry, groups = Registry(), Groups()
    registry.items = before or {f"/nodes/{number}": ({}, 0) for number in range(1, len(controllers) + 1)}
    registry.revision = max(revision for _, revision in registry.items.values())
    port = free_port()
    numbers = range(1, len(controllers) + 1)
    peers = {number: Peer(f"n{number}", (f"127.1.0.{number}:{port}",)) for number in numbers}
    async with AsyncExitStack() as stack:
        made = []
        for number, disks in zip(numbers, controllers, strict=True):
            state = f"{folder}/{number}"
            broker, _ = await stack.enter_async_context(
                run_broker(BrokerSettings(f"{state}/run", (f"127.1.0.{number}/16",), port))
            )
            info = NodeInfo(number, f"n{number}", f"id{number}", "c1", "lab", "boot")
            broker.configure(info, {other: peer for other, peer in peers.items() if other != number})
            bus = await stack.enter_async_context(connect(state))
            dcm = Dcm(["controller:disks"])
            component = await stack.enter_async_context(connect(state, name="somebody", component=True))
            made.append(Node(broker, bus, component, dcm, disks))
            services = {"registry": registry, "groups": groups, "dcm": dcm}
            for name, service in services.items():
                party = await stack.enter_async_context(connect(state, name=name, component=True))
                await stack.enter_async_context(party.serve(name, service))
            party = await stack.enter_async_context(connect(state, name="controller:disks", component=True))
            await stack.enter_async_context(party.serve("controller.disks", disks))
        for number, node in zip(numbers, made, strict=True):
            own = await stack.enter_async_context(connect(f"{folder}/{number}", name="resources", component=True))
            local = Local(
                state_dir=folder,
                folder=folder,
                cluster_id="c1",
                cluster_name="lab",
                node=number,
                node_name=f"n{number}",
                node_id=f"id{number}",
                boot_id="boot",
                servers=(1,),
                settings={"controllers": {name: {"enabled": False} for name in ("host", "adapter", "filesystem")}},
            )
            task = asyncio.ensure_future(main(ComponentContext("resources", own, local)))
            stack.push_async_callback(_end, task)
            await node.dcm.until(lambda dcm: 24 in dcm.steps)
        yield made, registry


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled(), task.exception()


def test_boot_steps_come_in_order_and_the_function_is_offered(folder: Path) -> None:
    async def story() -> None:
        async with nodes(folder, Disks()) as ((node,), registry):
            assert node.dcm.steps == [17, 18, 19, 20, 21, 22, 23, 24]
            assert node.dcm.offered == ["resources"]
            assert node.dcm.plugins == {"disks": ("running", "")}
            values = [value for key, (value, _) in registry.items.items() if key.startswith("/resources/")]
            assert sorted(value["key"]["Slot"] for value in values) == [0, 1]
            assert registry.revision == 1, "one transaction"

    asyncio.run(story())


def test_ls_puts_both_nodes_together_and_names_the_one_that_does_not_answer(folder: Path) -> None:
    async def story() -> None:
        async with nodes(folder, Disks(), Disks()) as ((one, two), registry):
            listed = await one.bus.call("resources", "ls", cls="Disk", fresh=True)
            assert [(row["node"], row["key"]["Slot"]) for row in listed["items"]] == [(1, 0), (1, 1), (2, 0), (2, 1)]
            assert all(row["attributes"]["Reads"] > 0 and row["age_s"] < 5 for row in listed["items"])
            assert listed["warnings"] == []
            listed = await two.bus.call("resources", "ls", cls="Disk", of_node=1)
            assert {row["node"] for row in listed["items"]} == {1}

            two.broker.close()
            registry.quorum = False
            listed = await one.bus.call("resources", "ls", cls="Disk")
            assert len(listed["items"]) == 4
            assert [row["age_s"] is None for row in listed["items"]] == [False, False, True, True]
            old, silent = listed["warnings"]
            assert "may be old" in old and silent.startswith("node 2: persistent attributes only")

    asyncio.run(story())


def test_show_classes_and_class(folder: Path) -> None:
    async def story() -> None:
        async with nodes(folder, Disks(), Disks(version=2)) as ((one, _), _registry):
            found = await one.bus.call("resources", "show", cls="Disk", key="1", of_node=2)
            assert (found["node"], found["attributes"]["Model"]) == (2, "A")
            with pytest.raises(errors.Ambiguous):
                await one.bus.call("resources", "show", cls="Disk", key="1")
            with pytest.raises(errors.ResourceNotFound, match="did you mean Disk"):
                await one.bus.call("resources", "ls", cls="Dsik")
            classes = await one.bus.call("resources", "classes")
            assert [(row["version"], row["nodes"]) for row in classes["items"]] == [(1, [1]), (2, [2])]
            assert "class Disk differs between nodes" in classes["warnings"][0]
            described = await one.bus.call("resources", "class", cls="Disk")
            assert (described["version"], described["nodes"]) == (1, [1, 2])

    asyncio.run(story())


def test_watch_tells_what_changed_and_what_is_gone(folder: Path) -> None:
    async def story() -> None:
        async with nodes(folder, Disks()) as ((node,), _registry):
            asked = asyncio.ensure_future(node.bus.call("resources", "watch", cls="Disk", wait=5.0))
            await node.bus.call("resources", "controllers")
            node.disks.slots = [0, 7]
            assert (await node.bus.call("resources", "refresh")) == [{"name": "disks", "state": "done", "reason": ""}]
            batch = await asked
            told = {event["key"]["Slot"]: event["type"] for event in batch["events"]}
            assert told == {7: "changed", 1: "gone"}
            assert batch["to"] == 2

    asyncio.run(story())


def test_undefined_node_is_not_listed_and_swept_at_the_next_start(folder: Path) -> None:
    async def story() -> None:
        async with nodes(folder, Disks(), Disks()) as ((one, _), registry):
            del registry.items["/nodes/2"]
            listed = await one.bus.call("resources", "ls", cls="Disk")
            assert {row["node"] for row in listed["items"]} == {1} and not listed["warnings"]
            with pytest.raises(errors.ResourceNotFound):
                await one.bus.call("resources", "show", cls="Disk", key="0", of_node=2)
            left = dict(registry.items)
        async with nodes(folder, Disks(), before=left) as ((one,), registry):
            async with asyncio.timeout(10):
                while any(key.startswith("/resources/Disk/2-") for key in registry.items):
                    await one.bus.call("resources", "watch", from_revision=registry.revision + 1, wait=0.1)
            assert {value["node"] for key, (value, _) in registry.items.items() if "/Disk/" in key} == {1}

    asyncio.run(story())


def test_raising_controller_is_told_to_the_dcm_and_to_the_join(folder: Path) -> None:
    async def story() -> None:
        async with nodes(folder, Disks(raises="discover: ValueError: no bus")) as ((node,), registry):
            assert node.dcm.plugins["disks"] == ("failed", "discover: ValueError: no bus")
            answer = await node.component.call("resources", "discover")
            assert answer == [{"name": "disks", "state": "failed", "reason": "discover: ValueError: no bus"}]
            assert list(registry.items) == ["/nodes/1"]
            with pytest.raises(errors.Denied):
                await node.bus.call("resources", "discover")

    asyncio.run(story())


def test_what_is_not_built_yet_says_so(folder: Path) -> None:
    async def story() -> None:
        async with nodes(folder, Disks()) as ((node,), _registry):
            for name, arguments in (
                ("set", {"cls": "Disk", "key": "0", "values": {}}),
                ("define", {"cls": "Disk", "values": {}}),
                ("undefine", {"cls": "Disk", "key": "0"}),
                ("run", {"cls": "Disk", "key": "0", "action": "Reset"}),
                ("ls", {"cls": "Disk", "select": "Slot == 0"}),
            ):
                with pytest.raises(errors.NotImplementedYet, match=r"SPEC 12\.2"):
                    await node.bus.call("resources", name, **arguments)

    asyncio.run(story())
