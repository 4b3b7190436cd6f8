"""Liveness in the simulator, one fault at a time: who leaves, who does not, how fast, and that all agree.

With COVEY_SIM_LONG=1, as `make sim-liveness` sets it, from more seeds.
"""

from __future__ import annotations

import os

import pytest
from covey.bus.simulation import Link, Occurrence
from covey.components.liveness.messages import LeaveQ, Status, ViewChanged
from covey.components.liveness.settings import Settings
from liveness_cluster import Cluster

SIZES = [3, 5, 10]
SEEDS = range(0, 4, 1 if "COVEY_SIM_LONG" in os.environ else 2)
LONE: tuple[int, ...] = ()
MOVING = (1, 2, 3)
LOGS = pytest.mark.parametrize("moving", [LONE, MOVING], ids=["lone", "moving"])


def settled(seed: int, n: int, **options: object) -> Cluster:
    cluster = Cluster(seed, n, **options)  # type: ignore[arg-type]
    cluster.settle(5)
    return cluster


def removal_time(cluster: Cluster, number: int, within: float = 5.0) -> float:
    """Wait until every running node holds a view without that number; return how long it took."""
    alive = cluster.running()

    def gone() -> bool:
        return all(not cluster.machine(n).chain.boot_id(number) for n in alive)

    return cluster.world.eventually(gone, within, f"node {number} is out of every view")


@LOGS
@pytest.mark.parametrize("n", [1, 2, *SIZES])
def test_a_cluster_boots_within_three_seconds_in_two_views(n: int, moving: tuple[int, ...]) -> None:
    for seed in range(3):
        cluster = Cluster(seed, n, moving=tuple(s for s in moving if s <= n))
        assert cluster.settle(3) < 3
        assert [len(view.members) for view in cluster.views.values()] == [n, n]


@LOGS
@pytest.mark.parametrize("n", SIZES)
def test_nothing_happens_when_nothing_happens(n: int, moving: tuple[int, ...]) -> None:
    cluster = settled(1, n, moving=moving)
    cluster.world.run(200 / n)
    assert len(cluster.views) == 2 and cluster.left() == []
    quorums = [o.body.quorate for o in cluster.world.published if isinstance(o.body, ViewChanged)]
    assert all(quorums)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("power", [False, True], ids=["killed", "power"])
def test_a_crashed_node_is_out_of_every_view_within_five_seconds(n: int, power: bool) -> None:
    worst = 0.0
    for seed in SEEDS:
        cluster = settled(seed, n)
        cluster.world.run(seed * 0.27)
        cluster.world.crash(n, power=power)
        worst = max(worst, removal_time(cluster, n))
        assert cluster.settle(1) <= 1
    assert worst <= (1.5 if not power else 5.0)


@pytest.mark.parametrize(("n", "dead"), [(3, 2), (5, 2), (5, 4), (10, 3), (10, 9)])
@pytest.mark.parametrize("power", [False, True], ids=["killed", "power"])
def test_nodes_that_die_together_leave_in_one_view(n: int, dead: int, power: bool) -> None:
    for seed in SEEDS:
        cluster = settled(seed, n)
        cluster.world.run(seed * 0.23)
        views = len(cluster.views)
        for number in range(n - dead + 1, n + 1):
            cluster.world.crash(number, power=power)
        for number in range(n - dead + 1, n + 1):
            removal_time(cluster, number)
        cluster.settle(1)
        assert len(cluster.views) == views + 1


@pytest.mark.parametrize("n", SIZES)
def test_a_node_that_restarts_comes_back_under_a_new_boot_id(n: int) -> None:
    for seed in SEEDS:
        cluster = settled(seed, n)
        cluster.world.crash(2)
        cluster.world.run(seed * 0.8)
        cluster.world.start(2)
        cluster.settle(8)
        assert [boot for _, boot in cluster.left()] == ["n2.1"]
        assert cluster.machine(2).boot_id == "n2.2"


@pytest.mark.parametrize("n", SIZES)
def test_the_restart_of_the_leader_costs_nobody_else_the_membership(n: int) -> None:
    for seed in SEEDS:
        cluster = settled(seed, n)
        cluster.world.restart(1)
        cluster.settle(8)
        cluster.world.run(10)
        assert [boot for _, boot in cluster.left()] == ["n1.1"]
        assert cluster.machine(2).chain.id[0] == 3, "a new epoch goes on with the old chain"


def test_the_restart_of_one_process_of_a_node_is_no_event() -> None:
    for number in (1, 3):
        cluster = settled(2, 3)
        cluster.world.crash_service(number, "liveness")
        cluster.world.run(1.0)
        cluster.world.start_service(number, "liveness")
        cluster.settle(5)
        assert cluster.left() == []
        views = [cluster.machine(n).chain.views for n in (1, 2, 3)]
        assert views[0] == views[1] == views[2]


@pytest.mark.parametrize("n", SIZES)
def test_a_cluster_whose_nodes_all_lose_power_comes_back(n: int) -> None:
    cluster = settled(3, n)
    for number in range(1, n + 1):
        cluster.world.crash(number, power=True)
    cluster.world.run(5)
    for number in range(n, 0, -1):
        cluster.world.start(number)
    cluster.settle(10)
    assert cluster.machine(1).chain.views[0].id == (2, 1)


@LOGS
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("one_way", [True, False], ids=["one-way", "both"])
def test_two_members_that_cannot_hear_one_another_both_stay(n: int, one_way: bool, moving: tuple[int, ...]) -> None:
    cluster = settled(4, n, moving=moving)
    primary = cluster.log.primary or 1
    a, b = [number for number in range(1, n + 1) if number != primary][:2]
    cluster.world.cut(a, b, one_way=one_way)
    cluster.world.run(200 / n)
    assert cluster.left() == [] and len(cluster.views) == 2


@pytest.mark.parametrize("n", SIZES)
def test_a_node_that_loses_everything_sent_to_it_is_frozen_and_removes_nobody(n: int) -> None:
    cluster = settled(5, n)
    for other in range(1, n):
        cluster.world.cut(other, n, one_way=True)
    cluster.world.run(8.6)
    assert not cluster.machine(n).quorate and all(cluster.machine(m).quorate for m in range(1, n))
    cluster.world.run(10)
    assert cluster.left() == []
    cluster.world.heal()
    cluster.settle(3)
    assert cluster.left() == []


@pytest.mark.parametrize("n", SIZES)
def test_a_fifth_of_all_messages_lost_costs_nobody_the_membership(n: int) -> None:
    for seed in SEEDS:
        cluster = Cluster(seed, n, link=Link(loss=0.2, duplicate=0.05, reorder=0.1))
        cluster.settle(15)
        cluster.world.run(300 / n)
        assert cluster.left() == []
        cluster.world.crash(n, power=True)
        removal_time(cluster, n, within=9)


@pytest.mark.parametrize("n", SIZES)
def test_a_node_stopped_for_three_seconds_accuses_nobody_and_stays(n: int) -> None:
    for seed in range(2):
        for victim in (1, n):
            cluster = settled(seed, n)
            cluster.world.pause(victim)
            cluster.world.run(3)
            cluster.world.resume(victim)
            cluster.world.run(8)
            assert cluster.left() == [] and cluster.settled()


@pytest.mark.parametrize("n", SIZES)
def test_a_node_stopped_for_long_is_removed_learns_it_and_returns(n: int) -> None:
    for seed in SEEDS:
        cluster = settled(seed, n)
        cluster.world.pause(n)
        removal_time_of_others(cluster, n)
        cluster.world.run(6)
        cluster.world.resume(n)
        assert cluster.settle(9) > 5, "it ran while it was removed, so it has to wait"
        assert [boot for _, boot in cluster.left()] == [f"n{n}.1"]
        assert [o.what for o in cluster.world.notified if o.node == n] == ["joined", "removed", "joined"]


def removal_time_of_others(cluster: Cluster, number: int) -> float:
    def gone() -> bool:
        return all(not cluster.machine(n).chain.boot_id(number) for n in cluster.running() if n != number)

    return cluster.world.eventually(gone, 5, f"node {number} is out of every other node's view")


@LOGS
@pytest.mark.parametrize("n", SIZES)
def test_a_minority_commits_nothing_freezes_and_comes_back(n: int, moving: tuple[int, ...]) -> None:
    """INV-27: the side without the quorum (here: without the servers) holds its last view and says so."""
    for seed in range(2):
        cluster = settled(seed, n, moving=moving)
        away = [n] if n == 3 else [n - 1, n]
        if moving and n == 3:
            away = [next(s for s in (3, 2) if s != cluster.log.primary)]
        rest = [number for number in range(1, n + 1) if number not in away]
        held = cluster.machine(away[0]).chain.id
        cluster.world.partition(away, rest)
        cluster.world.run(9)
        for number in away:
            machine = cluster.machine(number)
            assert machine.chain.id == held and not machine.quorate
            asked = cluster.world.ask(number, "liveness", Status())
            cluster.world.run(0.01)
            assert asked.result["frozen"]
        assert all(cluster.machine(number).quorate for number in rest)
        assert [m.number for m in cluster.machine(rest[0]).chain.members] == rest
        cluster.world.run(20)
        cluster.world.heal()
        cluster.settle(30)


def test_the_leader_cut_off_is_followed_by_another_which_removes_it() -> None:
    for seed in range(6):
        cluster = settled(seed, 5, moving=(1, 2, 3))
        old = cluster.log.primary
        cluster.world.partition([old], [n for n in range(1, 6) if n != old])
        cluster.world.run(12)
        rest = [n for n in range(1, 6) if n != old]
        views = [cluster.machine(n).chain.views for n in rest]
        assert all(v == views[0] for v in views) and views[0][-1].id[0] == 2
        assert [m.number for m in views[0][-1].members] == rest
        assert not cluster.machine(old).quorate
        cluster.world.heal()
        cluster.settle(10)


@LOGS
def test_an_orderly_leave_takes_effect_at_once(moving: tuple[int, ...]) -> None:
    cluster = settled(1, 3, moving=moving)
    leaver = 2 if cluster.log.primary != 2 else 3
    asked = cluster.world.ask(leaver, "liveness", LeaveQ())
    assert cluster.world.eventually(lambda: asked.done, 1) < 0.5
    cluster.world.crash(leaver)
    removal_time(cluster, leaver, within=0.1)
    cluster.settle(1)
    assert [o.what for o in cluster.world.notified if o.node == leaver] == ["joined", "left"]


def test_what_a_node_publishes_is_the_chain_from_its_first_view_on_each_once() -> None:
    cluster = settled(1, 5)
    cluster.world.crash(5)
    cluster.world.run(8)
    cluster.world.start(5)
    cluster.settle(5)
    for number in range(1, 5):
        told = [o.body for o in cluster.world.published if o.node == number and isinstance(o.body, ViewChanged)]
        assert [body.id for body in told] == [view.id for view in cluster.machine(number).chain.views]
    late = [o.body for o in cluster.world.published if o.node == 5 and isinstance(o.body, ViewChanged)][-2:]
    assert [(len(b.joined), len(b.left)) for b in late] == [(5, 0), (0, 0)]
    assert late[0].id[1] == len(cluster.views) - 1


def test_a_node_that_was_off_while_many_views_passed_still_holds_the_same_list() -> None:
    cluster = settled(1, 4)
    cluster.world.pause(4)
    for _ in range(3):
        for number in (2, 3):
            cluster.world.restart(number)
            cluster.world.run(3)
    cluster.world.resume(4)
    cluster.settle(10)
    chains = [cluster.machine(number).chain.views for number in range(1, 5)]
    assert all(chain == chains[0] for chain in chains) and len(chains[0]) > 8


def test_more_views_than_are_kept_are_bounded_at_every_node() -> None:
    cluster = settled(1, 3, settings=Settings(kept=6))
    for _ in range(6):
        cluster.world.restart(3)
        cluster.settle(8)
    assert all(len(cluster.machine(n).chain.views) == 6 for n in (1, 2, 3))
    assert len(cluster.views) > 12


def test_removed_nodes_are_heard_of_by_the_dcm() -> None:
    heard: list[Occurrence] = []
    cluster = settled(1, 3, rejoin=False)
    cluster.world.on_notify.append(heard.append)
    cluster.world.pause(3)
    cluster.world.run(10)
    cluster.world.resume(3)
    cluster.world.run(3)
    assert [(o.node, o.what, o.body["boot_id"]) for o in heard] == [(3, "removed", "n3.1")]
