"""A thousand members in one group, and a thousand groups: what it costs, and that it works."""

from __future__ import annotations

from typing import Any

from covey.bus.machine import Effect, Send
from covey.components.groups.machine import GroupsMachine
from covey.components.groups.messages import Terms
from covey.components.groups.questions import Broadcast, JoinGroup, ListGroups, ProposeVote
from covey.components.registry.messages import AppendSystem
from groups_world import GROUP, Cluster

MANY = 1000


class Machine(GroupsMachine):
    """One whose invariants are not checked at each of many thousand steps: the storms do that."""

    def check_invariants(self) -> None:
        pass


def test_a_thousand_members_in_one_group() -> None:
    cluster = Cluster(61, 3, make=Machine)
    largest = 0

    def watch(node: int, service: str, input: Any, effects: list[Effect]) -> None:
        nonlocal largest
        appends = [e.message for e in effects if isinstance(e, Send) and isinstance(e.message, AppendSystem)]
        largest = max([largest, *(len(append.body) for append in appends)])

    cluster.world.on_step.append(watch)
    cluster.world.run(0.1)
    asked = [cluster.world.ask(n % 3 + 1, "groups", JoinGroup(GROUP, f"m{n}")) for n in range(MANY)]
    cluster.world.eventually(lambda: all(each.done for each in asked), 10.0, "all have joined")
    assert all(each.error is None for each in asked)
    said = cluster.world.ask(2, "groups", Broadcast(GROUP, "m1", b"hello"))
    vote = cluster.world.ask(2, "groups", ProposeVote(GROUP, "m1", b"x", Terms(1, "approve", 5.0)))
    cluster.world.eventually(lambda: said.done and vote.done, 3.0)
    assert said.error is None and vote.error is None
    group = cluster.world.machine(3, "groups").replica.get(GROUP)
    assert len(group.members) == MANY and len(group.tallies[0].rounds[0]) == MANY
    assert group.version < 30, "joins that come together are one batch"
    cluster.crash_node(3)
    cluster.show_view(1, 2)
    cluster.world.eventually(lambda: len(cluster.world.machine(2, "groups").replica.get(GROUP).members) == 667, 1.0)
    assert largest < 512 * 1024, "an entry of the log takes 1 MiB"


def test_a_thousand_groups() -> None:
    cluster = Cluster(62, 3, make=Machine)
    cluster.world.run(0.1)
    asked = [cluster.world.ask(n % 3 + 1, "groups", JoinGroup(f"g{n}", "me")) for n in range(MANY)]
    cluster.world.eventually(lambda: all(each.done for each in asked), 10.0, "all have joined")
    cluster.elect(2)
    after = cluster.world.ask(2, "groups", Broadcast("g1", "me", b"again"))
    cluster.world.eventually(lambda: after.done, 3.0, "it goes on under another coordinator")
    last = cluster.world.machine(3, "groups")
    cluster.world.eventually(lambda: len(last.replica.groups) == MANY, 3.0, "the third node has them all")
    listed = cluster.world.ask(3, "groups", ListGroups())
    cluster.world.run(0.1)
    assert after.error is None and len(listed.result) == MANY
