"""The Resource Manager's service on real brokers of two nodes; everything around it is a small honest stand-in."""

from __future__ import annotations

import asyncio
import os
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
from covey.bus.messages import NodeInfo, Peer, Role
from covey.bus.service import Request, verb
from covey.components.resources.service import main
from covey.controllers.classes import Action, Attribute, ClassDescription, Field, to_wire
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
        self.audited: list[tuple[str, int, str, str, dict[str, Any]]] = []
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

    @verb(Role.COMPONENT)
    def audit(self, *, who: str, uid: int, what: str, outcome: str, about: dict[str, Any]) -> None:
        self.audited.append((who, uid, what, outcome, about))

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
        self.models: dict[int, str] = {}
        self.reads = 0

    @verb()
    def classes(self) -> list[dict[str, Any]]:
        attributes = (
            Attribute(name="Slot", type="uint32", kind="persistent"),
            Attribute(name="Model", type="string", kind="persistent", writable=True),
            Attribute(name="Reads", type="uint32", kind="dynamic"),
        )
        return [
            to_wire(
                ClassDescription(
                    name="Disk",
                    version=self.version,
                    controller="disks",
                    key=("Slot",),
                    attributes=attributes[: 2 if self.version == 2 else 3],
                    actions=(Action(name="Spin", result=(Field(name="Rpm", type="uint32"),)),),
                )
            )
        ]

    @verb()
    def discover(self) -> dict[str, Any]:
        if self.raises:
            raise errors.PluginError(self.raises)
        found = [
            {"class": "Disk", "key": {"Slot": slot}, "attributes": {"Model": self.models.get(slot, "A")}}
            for slot in self.slots
        ]
        return {"found": found, "findings": []}

    @verb()
    def read(self, *, cls: str, key: dict[str, Any]) -> dict[str, Any]:
        self.reads += 1
        return {"attributes": {"Reads": self.reads}, "findings": []}

    @verb(Role.COMPONENT)
    def set(self, *, cls: str, key: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
        if values["Model"] == "bad":
            raise errors.Failed("it does not fit", "take another")
        self.models[key["Slot"]] = values["Model"]
        return {"attributes": {}, "findings": []}

    @verb(Role.COMPONENT)
    def define(self, *, cls: str, key: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
        self.slots.append(key["Slot"])
        return {"attributes": {"Model": "A"}, "findings": []}

    @verb(Role.COMPONENT)
    def undefine(self, *, cls: str, key: dict[str, Any]) -> dict[str, Any]:
        self.slots.remove(key["Slot"])
        return {"attributes": {}, "findings": []}

    @verb(Role.COMPONENT)
    def action(self, *, cls: str, key: dict[str, Any], name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"result": {"Rpm": 7200, "Noise": 3}, "findings": []}


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


def test_a_change_asked_for_anywhere_is_made_where_the_resource_is_and_audited_there(folder: Path) -> None:
    async def story() -> None:
        async with nodes(folder, Disks(), Disks()) as ((one, two), registry):
            call = one.bus.call
            row = await call("resources", "set", cls="Disk", key="0", of_node=2, values={"Model": "B"}, as_text=True)
            assert (row["node"], row["attributes"]["Model"], row["warnings"]) == (2, "B", [])
            assert registry.items[f"/resources/Disk/{row['id']}"][0]["attributes"] == {"Model": "B"}
            assert (one.disks.models, two.disks.models) == ({}, {0: "B"})
            who, uid, *told = two.dcm.audited.pop()
            assert (who, uid) == (f"{one.bus.name}@1", os.getuid()), "who asked, not who handed it on"
            assert told == ["resource_set", "done", {"class": "Disk", "id": row["id"], "names": ["Model"]}]

            with pytest.raises(errors.Failed, match="it does not fit") as failed:
                await call("resources", "set", cls="Disk", key="0", of_node=2, values={"Model": "bad"})
            assert failed.value.hint == "take another"
            assert two.dcm.audited.pop()[3] == "resource.failed"
            with pytest.raises(errors.Ambiguous):
                await call("resources", "set", cls="Disk", key="0", values={"Model": "C"})
            with pytest.raises(errors.BadAttribute, match="did you mean 'Model'"):
                await call("resources", "set", cls="Disk", key="1", of_node=2, values={"Modl": "C"})

            row = await call("resources", "define", cls="Disk", values={"Slot": "7", "Model": "A"}, as_text=True)
            assert (row["node"], row["key"]) == (1, {"Slot": 7})
            answer = await two.bus.call("resources", "run", cls="Disk", key="7", action="Spin")
            assert (answer["node"], answer["result"]) == (1, {"Rpm": 7200})
            assert "'Noise'" in answer["warnings"][0]
            await two.bus.call("resources", "undefine", cls="Disk", key="7")
            with pytest.raises(errors.ResourceNotFound, match="is gone since"):
                await two.bus.call("resources", "undefine", cls="Disk", key="7")
            assert [line[2] for line in one.dcm.audited] == ["resource_define", "resource_run", "resource_undefine"]
            assert 7 not in one.disks.slots
            roles = {one["verb"]: one["role"] for one in await call("resources", "describe")}
            assert {roles[name] for name in ("set", "define", "undefine", "run")} == {"operator"}
            with pytest.raises(errors.Denied):
                await call("resources", "change_local", change={"what": "set", "cls": "Disk"}, who="x@1", uid=0)

    asyncio.run(story())


def test_a_selection_is_judged_at_each_node_and_the_registry_stands_in_for_a_silent_one(folder: Path) -> None:
    async def story() -> None:
        async with nodes(folder, Disks(), Disks()) as ((one, two), _registry):
            await one.bus.call("resources", "set", cls="Disk", key="1", of_node=2, values={"Model": "B"})
            found = await one.bus.call("resources", "ls", cls="Disk", select='Slot == 1 && Model =~ "[AB]"', fresh=True)
            assert [(row["node"], row["attributes"]["Model"]) for row in found["items"]] == [(1, "A"), (2, "B")]
            assert all(row["attributes"]["Reads"] and row["age_s"] < 5 for row in found["items"])
            assert found["warnings"] == []
            found = await two.bus.call("resources", "ls", cls="Disk", select="Reads > 0 && Slot == 0", of_node=1)
            assert [(row["node"], row["key"]["Slot"]) for row in found["items"]] == [(1, 0)], found
            with pytest.raises(errors.BadExpression, match="no attribute 'Modell'"):
                await one.bus.call("resources", "ls", cls="Disk", select='Modell == "A"')
            local = {"cls": "Disk", "select": "Reads > 0", "wait": 5.0}
            watched = asyncio.ensure_future(one.bus.call("resources", "watch_local", node=2, **local))
            await one.bus.call(
                "resources", "watch_local", node=2, **{**local, "wait": 0.0}
            )  # the first one waits there
            await one.bus.call("resources", "show", cls="Disk", key="0", of_node=2, fresh=True)
            assert [event["changed"] for event in (await watched)["events"]] == [["Reads"]]
            seen = await one.bus.call("resources", "watch", cls="Disk", from_revision=1, select='Model == "B"')
            assert [(event["node"], event["key"]["Slot"]) for event in seen["events"]] == [(2, 1)]
            two.broker.close()
            found = await one.bus.call("resources", "ls", cls="Disk", select='Model == "B" || Reads > 9000')
            assert [(row["node"], row["key"]["Slot"], row["age_s"]) for row in found["items"]] == [(2, 1, None)]
            silent, unknown = found["warnings"]
            assert silent.startswith("node 2: persistent attributes only") and "may match too" in unknown

    asyncio.run(story())


def test_a_node_with_another_version_of_the_class_is_named_and_nothing_breaks(folder: Path) -> None:
    async def story() -> None:
        async with nodes(folder, Disks(), Disks(version=2)) as ((one, two), _registry):
            found = await one.bus.call("resources", "ls", cls="Disk", select="Reads >= 0", fresh=True)
            assert {row["node"] for row in found["items"]} == {1}
            assert found["warnings"] == ["node 2 is left out, its Disk is another one: there is no attribute 'Reads'"]
            row = await one.bus.call("resources", "set", cls="Disk", key="0", of_node=2, values={"Model": "B"})
            assert row["attributes"] == {"Slot": 0, "Model": "B"} and two.disks.models == {0: "B"}

    asyncio.run(story())
