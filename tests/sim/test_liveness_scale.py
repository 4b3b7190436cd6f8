"""Many nodes: whole machines with thirty, what a fault touches with a thousand (ten thousand: `make sim-liveness`).

Who is innocent never leaves, those who die together leave in one view, and no node says more for there being more.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from covey.bus.machine import Effect, Send
from covey.components.liveness.messages import Heartbeat, HeartbeatAck, Removed, ViewsAnnounced
from liveness_cluster import Cluster
from liveness_scale import SCENARIOS


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_fault_removes_exactly_those_it_should(name: str) -> None:
    for n in (10, 30, 100) if name != "one of two networks dead" else (10, 40):
        SCENARIOS[name](n)


@pytest.mark.parametrize("name", ["10 % killed", "10 % without power", "1 % with 80 % loss", "slow observers"])
def test_a_thousand_nodes_do_as_a_hundred_do(name: str) -> None:
    told = SCENARIOS[name](1000)
    assert told.get("after", 0.0) <= 10


def test_three_of_thirty_die_at_once_in_one_view_and_nobody_says_more_than_it_may() -> None:
    cluster = Cluster(1, 30)
    cluster.world.run(3)
    assert cluster.settled()
    said: Counter[int] = Counter()

    def watch(number: int, service: str, input: Any, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send) and isinstance(effect.message, Heartbeat | HeartbeatAck | ViewsAnnounced):
                said[number] += 1
                said[-effect.to.node] += 1  # what it hears counts, too

    cluster.world.on_step.append(watch)
    cluster.world.run(3)
    cluster.world.on_step.remove(watch)
    busiest = max(said[n] + said[-n] for n in range(1, 31))
    assert busiest <= 45 * 3, f"{busiest / 3} messages a second"
    views = len(cluster.views)
    for number in range(28, 31):
        cluster.world.crash(number, power=number % 2 == 0)
    cluster.world.run(5)
    assert cluster.settled() and len(cluster.views) <= views + 2
    assert len(cluster.left()) == 3


def test_half_of_a_cluster_that_is_cut_off_is_out_and_freezes() -> None:
    """The word of a leader reaches those who never hear it, and its age with it."""
    cluster = Cluster(3, 24, moving=(1, 2, 3))
    cluster.world.run(4)
    assert cluster.settled()
    cluster.world.run(10)
    assert all(cluster.machine(n).quorate for n in cluster.running())
    cluster.world.partition(range(13, 25), range(1, 13))
    cluster.world.run(9)
    leader = cluster.log.primary
    side = range(1, 13) if leader <= 12 else range(13, 25)
    assert [m.number for m in cluster.machine(leader).chain.members] == list(side)
    assert not any(cluster.machine(n).quorate for n in range(1, 25) if n not in side)
    cluster.world.heal()
    cluster.settle(30)
    assert not [o for o in cluster.world.notified if o.node in side and isinstance(o.body, Removed)]
