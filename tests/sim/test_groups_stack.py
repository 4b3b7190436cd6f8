"""Groups over the real registry and the real liveness machines: what a crash of a node means to members elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
from covey.bus.machine import Address, Received
from covey.bus.simulation import Birth, Disk, Link
from covey.components.groups.machine import GroupsMachine
from covey.components.groups.questions import Broadcast, JoinGroup, Poll
from covey.components.registry.agent import AgentMachine
from liveness_cluster import Cluster


class Stack:
    """A cluster of liveness' kit with a groups machine on every node, and one member on each."""

    def __init__(self, seed: int, n: int, link: Link | None = None) -> None:
        self.cluster = Cluster(seed, n, link=link)
        self.world = self.cluster.world
        self.sessions = 0
        self.cursors: dict[str, int] = {}
        self.events: dict[str, list[Any]] = {}
        for number, node in self.world.nodes.items():
            node.factories["groups"], node.disks["groups"], node.births["groups"] = self.groups, Disk(), 0
            self.world.start_service(number, "groups")
        self.cluster.settle(10)
        self.world.eventually(lambda: all(self.machine(m).synced for m in self.world.nodes), 5, "groups are ready")
        for number in sorted(self.world.nodes):
            self.join(number, f"p{number}")

    def groups(self, birth: Birth) -> GroupsMachine:
        self.sessions += 1
        return GroupsMachine(birth.node, birth.boot_id, self.sessions)

    def machine(self, number: int) -> GroupsMachine:
        found: GroupsMachine = self.world.machine(number, "groups")
        return found

    def join(self, number: int, party: str) -> None:
        asked = self.world.ask(number, "groups", JoinGroup("db", party))
        self.world.eventually(lambda: asked.done, 5, f"{party} has joined")
        assert asked.error is None, asked.error
        self.cursors[party], self.events[party] = asked.result["joined"] - 1, []

    def say(self, number: int, party: str, text: str) -> Any:
        asked = self.world.ask(number, "groups", Broadcast("db", party, text.encode()))
        self.world.eventually(lambda: asked.done, 9, f"{party} is answered")
        assert asked.error is None, asked.error
        return asked.result

    def hear(self, number: int, party: str) -> list[Any]:
        """Return all events that the party has not polled yet."""
        asked = self.world.ask(number, "groups", Poll("db", self.cursors[party], 0.0))
        self.world.eventually(lambda: asked.done, 1)
        assert asked.result["missed"] == 0
        self.cursors[party] = asked.result["to"]
        self.events[party] += asked.result["events"]
        return list(asked.result["events"])

    def until_failed(self, number: int, party: str, dead: str, within: float) -> float:
        def seen() -> bool:
            found = self.machine(number).replica.get("db").members.values()
            return dead not in [member.party for member in found]

        took = self.world.eventually(seen, within, f"{dead} has failed")
        assert ("failed", [dead]) in [(e.kind, [m.party for m in e.who]) for e in self.hear(number, party)]
        return took


ROUGH = Link(loss=0.05, duplicate=0.05, reorder=0.05)


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize("link", [None, ROUGH], ids=["smooth", "rough"])
def test_a_crashed_node_is_a_failure_leave_everywhere(n: int, link: Link | None) -> None:
    """INV-26 through liveness' own view change."""
    for seed in range(3):
        stack = Stack(seed, n, link)
        stack.say(n, f"p{n}", "last words")
        stack.world.crash(n)
        for number in range(1, n):
            stack.until_failed(number, f"p{number}", f"p{n}", 6.0)
        stories = [[(e.kind, e.body) for e in stack.events[f"p{m}"]][-2:] for m in range(1, n)]
        assert stories == [[("message", b"last words"), ("failed", b"")]] * (n - 1)


@pytest.mark.parametrize("link", [None, ROUGH], ids=["smooth", "rough"])
def test_the_node_of_the_coordinator_restarts_and_the_groups_go_on(link: Link | None) -> None:
    for seed in range(3):
        stack = Stack(seed, 3, link)
        said = stack.say(2, "p2", "before")
        stack.world.crash(1)
        stack.world.run(2.0 + seed)
        stack.world.start(1)
        stack.until_failed(3, "p3", "p1", 15.0)
        told = stack.say(3, "p3", "after")
        assert told["sequence"] == said["sequence"] + 2
        stack.world.run(2.0)
        stack.hear(2, "p2")
        stack.hear(3, "p3")
        assert [(e.kind, e.body) for e in stack.events["p2"]][-3:] == [
            ("message", b"before"),
            ("failed", b""),
            ("message", b"after"),
        ]
        assert stack.events["p2"][-3:] == stack.events["p3"][-3:]


def test_the_process_of_the_coordinator_restarts_under_its_members() -> None:
    for seed in range(3):
        stack = Stack(seed, 3, ROUGH)
        stack.say(2, "p2", "before")
        asked = stack.world.ask(3, "groups", Broadcast("db", "p3", b"in between"))
        stack.world.run(0.001 * seed)
        stack.world.crash_service(1, "groups")
        stack.world.run(0.3)
        stack.world.start_service(1, "groups")
        registry = stack.world.machine(1, "registry")
        assert not isinstance(registry, AgentMachine)
        machine = stack.cluster.machine(1)
        stack.world.feed(1, "groups", Received(Address("registry", 1), registry.leading))
        view = next(o.body for o in reversed(stack.world.published) if o.what == "liveness.view" and o.node == 1)
        assert view.id == machine.chain.id
        stack.world.feed(1, "groups", Received(Address("liveness", 1), view))
        stack.world.eventually(lambda a=asked: a.done, 9)  # type: ignore[misc]
        assert asked.error is None
        stack.say(1, "p1", "after")
        stack.world.run(2.0)
        texts = []
        for number in (1, 2, 3):
            stack.hear(number, f"p{number}")
            texts.append([e.body for e in stack.events[f"p{number}"] if e.kind == "message"])
        assert texts == [[b"before", b"in between", b"after"]] * 3
