"""Schedules that chance seldom finds, played one by one on the replicated registry, every invariant watched."""

from __future__ import annotations

from typing import Any

import pytest
from covey.bus.simulation import Link
from covey.components.registry.messages import Get, Operation, Transact
from covey.components.registry.states import State
from covey.errors import CoveyError
from msgspec.structs import replace
from registry_clients import Call
from registry_cluster import AGENTS, SETTINGS, RegistryCluster


def put(cluster: RegistryCluster, node: int, value: str, key: str = "/app/a") -> Call:
    return cluster.clients.call(node, Transact(cluster.clients.id(), (), (Operation("put", key, value),)))


def done(cluster: RegistryCluster, call: Call, within: float = 10.0) -> Any:
    cluster.world.eventually(lambda: call.over, within, f"an answer to {call.question}")
    assert not call.unknown, call
    return call.result


def others(cluster: RegistryCluster, *without: int) -> list[int]:
    return [number for number in cluster.listed if number not in without]


# --- found by storms ------------------------------------------------------------------------------------------------


def test_a_slow_way_on_which_messages_overtake_one_another_makes_no_storm_of_messages() -> None:
    """Seed 4: each answer "does not fit" led to a new message, and each of these to an answer: more and more."""
    cluster = RegistryCluster(1, 3)
    world, primary = cluster.world, cluster.ready()
    far = others(cluster, primary)[0]
    slow = Link(low=0.3, high=0.6, reorder=0.3, late=2.0)
    world.set_link(primary, far, slow)
    world.set_link(far, primary, slow)
    for node in cluster.servers:
        cluster.clients.start(node, 10.0)
    world.run(5.0)
    before = world.counts["sent"]
    world.run(20.0)
    assert cluster.primary == primary
    assert world.counts["sent"] - before < 20 * 200, "messages a second"
    cluster.finish()


def test_a_new_primary_fills_a_copy_that_it_needs_for_its_first_entry() -> None:
    """Seed 1129: its first entry waited for one that needed a snapshot, and snapshots waited for its first entry."""
    cluster = RegistryCluster(2, 3)
    world, first = cluster.world, cluster.ready()
    second, far = others(cluster, first)
    world.crash(far, power=True)
    for n in range(150):
        put(cluster, first, f"{n}" * 20)
        world.run(0.05)
    assert min(cluster.disks[n].copy.base for n in (first, second)) > cluster.disks[far].copy.last
    world.crash(first, power=True)
    cluster.damage(second, 0.2)
    cluster.start(first)
    cluster.start(far)
    cluster.finish()
    assert cluster.guard.seen["snapshots installed"]


def test_a_lone_server_that_starts_on_a_full_disk_keeps_what_it_acknowledged() -> None:
    """What its disk has and nobody committed in this life is no proposal that could be taken back."""
    cluster = RegistryCluster(3, 1)
    world, one = cluster.world, cluster.ready()
    world.run(0.5)
    call = put(cluster, one, "kept")
    world.eventually(lambda: call.over, 1.0)
    disk = cluster.disks[one]
    world.crash(one, power=True)
    promised = disk.copy.promised
    cluster.start(one)
    world.eventually(lambda: disk.copy.promised > promised, 1.0, "its vote for itself had room")
    cluster.fill_disk(one, 2.0)
    world.run(1.0)
    assert cluster.guard.seen["full disks"]
    cluster.finish()
    assert cluster.truth.at("/app/a")[0] == "kept"


@pytest.mark.parametrize("seed", range(4))
def test_a_lone_server_that_has_a_learner_takes_nothing_back_on_a_full_disk(seed: int) -> None:
    """Seed 2081: the learner may have it, and the entry that named the learner was taken back with it in mind."""
    cluster = RegistryCluster(seed, 1, 2)
    world, one = cluster.world, cluster.ready()
    world.run(0.5)
    cluster.fill_disk(one, 1.5)
    if seed % 2:
        put(cluster, one, "before")
        world.run(0.1)
    change = cluster.change("define", 2)
    world.run(0.2)
    put(cluster, one, "meanwhile")
    world.run(3.0)
    assert change.over
    cluster.finish()


# --- classic schedules ----------------------------------------------------------------------------------------------


def figure_eight(seed: int, **machines: Any) -> RegistryCluster:
    """Raft's figure 8: an entry of an old epoch is on a majority of disks, and is cut off all the same.

    A primary writes an entry that only `second` gets, and dies. `fifth` leads, writes its first entry to its own disk
    and dies. Who has the old entry leads next, brings it to a third disk, and dies before an entry of its own epoch is
    there. Then `fifth` leads again.
    """
    cluster = RegistryCluster(seed, 5, settings=replace(SETTINGS, append_bytes=1), **machines)
    world, first = cluster.world, cluster.ready()
    second, third, fourth, fifth = others(cluster, first)
    world.run(1.0)
    before = cluster.truth.last
    world.partition([first, second], [third, fourth, fifth])
    put(cluster, first, "old")
    world.run(0.02)
    assert [cluster.disks[n].copy.last - before for n in (first, second, third, fourth, fifth)] == [1, 1, 0, 0, 0]
    world.crash(first, power=True)
    world.crash(second, power=True)
    for number in (third, fourth):  # neither stands for election itself
        cluster.server(number).raft._election_at += 1000.0
    world.eventually(lambda: fifth == cluster.primary, 8.0, "the fifth leads")
    world.partition([fifth], [third, fourth])
    world.run(0.02)
    assert [cluster.disks[n].copy.last - before for n in (third, fourth, fifth)] == [0, 0, 1]
    world.crash(fifth, power=True)
    world.mend([(a, b) for a in cluster.all for b in cluster.all])
    cluster.start(first)
    cluster.start(second)
    world.eventually(lambda: cluster.primary in (first, second), 8.0, "one that has the old entry leads")
    again, old = cluster.primary, cluster.truth.last
    reign = cluster.server(again).raft.reign

    def on_a_majority() -> bool:
        return any(reign.others[n].match == before + 1 for n in (third, fourth))

    world.eventually(on_a_majority, 3.0, "the old entry is on three disks")
    assert cluster.truth.last == old
    world.crash(again, power=True)
    for number in (first, second):
        if number != again:
            world.crash(number, power=True)
    cluster.start(fifth)
    world.eventually(lambda: cluster.primary not in (0, again), 12.0, "there is a primary")
    cluster.finish()
    return cluster


def test_an_entry_of_an_old_epoch_on_a_majority_is_not_committed_by_that() -> None:
    cluster = figure_eight(1)
    assert cluster.guard.seen["logs cut"]


@pytest.mark.parametrize("seed", range(6))
def test_a_vote_outlives_a_crash_of_the_voter(seed: int) -> None:
    """The lost vote: whoever voted, crashed and came back votes for nobody else in that epoch."""
    cluster = RegistryCluster(seed, 3)
    world = cluster.world
    for number in cluster.servers:
        cluster.disks[number].low = cluster.disks[number].high = 0.05
    for at in range(40):
        world.after(0.1 * at, lambda n=cluster.servers[at % 3]: cluster.crash(n, power=True, down=0.02))  # type: ignore[misc]
    world.run(5.0)
    cluster.finish()


def deposed(seed: int, **machines: Any) -> tuple[RegistryCluster, int]:
    """Return a cluster whose primary sleeps, cut off from the others, while another leads and has changed /app/a."""
    cluster = RegistryCluster(seed, 3, **machines)
    world, old = cluster.world, cluster.ready()
    done(cluster, put(cluster, old, "old"))
    world.run(0.5)
    world.pause(old)
    world.partition([old], others(cluster, old))
    world.eventually(lambda: cluster.primary not in (0, old), 10.0, "another primary")
    new = cluster.primary
    world.eventually(lambda: cluster.server(new).state is State.WRITES, 5.0)
    done(cluster, put(cluster, new, "new"))
    return cluster, old


@pytest.mark.parametrize("seed", range(6))
def test_a_deposed_primary_that_slept_answers_no_exact_read(seed: int) -> None:
    """It wakes up and finds reads at its door before it hears of anything else (Consul's stale read)."""
    cluster, old = deposed(seed)
    reads = [cluster.clients.call(old, Get("/app/a")) for _ in range(5)]
    cluster.world.run(0.1)
    cluster.world.resume(old)
    cluster.world.run(0.3)
    cluster.world.heal()
    for read in reads:
        assert done(cluster, read)["value"] == "new"
    cluster.finish()


@pytest.mark.parametrize("seed", range(4))
def test_a_read_waits_for_a_round_that_began_after_it(seed: int) -> None:
    """Answers to an older round come late: they prove nothing about now."""
    cluster = RegistryCluster(seed, 3)
    world, old = cluster.world, cluster.ready()
    done(cluster, put(cluster, old, "old"))
    for other in others(cluster, old):
        world.set_link(other, old, Link(low=1.9, high=1.95))
    world.run(0.25)  # a round is under way, its answers take their time
    for other in others(cluster, old):
        world.cut(old, other, one_way=True)
    world.eventually(lambda: any(cluster.server(n).raft.leads for n in others(cluster, old)), 5.0, "another primary")
    new = next(n for n in others(cluster, old) if cluster.server(n).raft.leads)
    world.eventually(lambda: cluster.server(new).state is State.WRITES, 5.0)
    done(cluster, put(cluster, new, "new"))
    read = cluster.clients.call(old, Get("/app/a"))
    world.run(2.0)
    cluster.world.heal()
    assert done(cluster, read)["value"] == "new"
    cluster.finish()


def test_a_primary_that_is_cut_off_says_so_and_its_writes_are_gone_or_done() -> None:
    cluster = RegistryCluster(4, 3)
    world, old = cluster.world, cluster.ready()
    world.run(1.0)
    world.partition([old], others(cluster, old))
    late = put(cluster, old, "never seen by the others")
    world.eventually(lambda: not cluster.server(old).raft.leads, 5.0, "it notices that no majority answers")
    read = cluster.clients.call(old, Get("/app/a"))
    stale = cluster.clients.call(old, Get("/app/a", "stale"))
    world.run(9.0)
    assert late.unknown
    assert read.unknown
    assert isinstance(stale.result, CoveyError | dict)
    assert not stale.unknown
    cluster.finish()
    assert cluster.truth.at("/app/a")[0] is None or late.question.id in cluster.truth.ids


@pytest.mark.parametrize("seed", range(6))
def test_two_of_five_damaged_at_once_are_filled_again_and_nothing_is_lost(seed: int) -> None:
    cluster = RegistryCluster(seed, 5)
    world, primary = cluster.world, cluster.ready()
    written = [put(cluster, AGENTS[0], f"v{n}", f"/app/{n}") for n in range(20)]
    world.run(0.5)
    bad = others(cluster, primary)[:2] if seed % 2 else [primary, others(cluster, primary)[0]]
    for number in bad:
        cluster.damage(number, 0.3)
    cluster.finish()
    for n, call in enumerate(written):
        assert cluster.truth.at(f"/app/{n}")[0] == f"v{n}" or call.unknown
    assert cluster.guard.seen["copies refilled"] >= 2


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_copy_that_lost_its_vote_makes_no_second_primary_of_an_epoch(seed: int) -> None:
    """It votes, its disk is spoiled, it is back at once, and the primary goes on; then its old vote arrives."""
    cluster = RegistryCluster(seed, 3, settings=replace(SETTINGS, canvass_low=1.5, canvass_high=2.0))
    world, old = cluster.world, cluster.ready()
    world.run(0.5)
    rival, victim = others(cluster, old)
    world.partition([old], [rival])
    world.cut(old, victim, one_way=True)
    world.eventually(lambda: State.CANDIDATE in (cluster.server(n).state for n in (rival, victim)), 5.0, "one stands")
    if cluster.server(victim).state is State.CANDIDATE:
        rival, victim = victim, rival
        world.heal()
        world.partition([old], [rival])
    world.set_link(victim, rival, Link(low=1.0, high=1.1))
    world.eventually(lambda: cluster.disks[victim].copy.voted_for == rival, 1.0, "the other votes")
    world.run(0.001)
    cluster.damage(victim, 0.01)
    world.mend([(old, victim)])
    late = [put(cluster, old, f"after the vote {n}") for n in range(20)]
    world.run(4.0)
    world.heal()
    cluster.finish()
    assert all(call.over for call in late)


# --- changes of the servers -----------------------------------------------------------------------------------------


def test_servers_come_and_go_one_to_five_and_back_under_load() -> None:
    cluster = RegistryCluster(5, 1, 4)
    world = cluster.world
    cluster.ready()
    for node in (1, *AGENTS):
        cluster.clients.start(node, 8.0)
    for number in (2, 3, 4, 5):
        done(cluster, cluster.change("define", number))
        world.eventually(lambda n=number: n in cluster.listed, 10.0, f"{number} is a voter")  # type: ignore[misc]
    assert sorted(cluster.listed) == [1, 2, 3, 4, 5]
    for number in (1, 2, 3, 4):
        call = cluster.change("undefine", number)
        done(cluster, call)
        assert number not in cluster.listed
    assert cluster.listed == [5]
    cluster.finish()
    refused = [
        c for c in cluster.clients.calls if isinstance(c.question, Transact) and isinstance(c.result, CoveyError)
    ]
    assert not [c for c in refused if c.result.code not in ("registry.read_only",)], refused


def test_a_learner_votes_when_it_is_asked() -> None:
    """A server that was made a voter and has not heard of it is needed for the next election (etcd's bug)."""
    cluster = RegistryCluster(6, 2, 1)
    world, primary = cluster.world, cluster.ready()
    other = others(cluster, primary)[0]
    done(cluster, cluster.change("define", 3))
    world.eventually(lambda: cluster.disks[3].copy.last > 1, 5.0, "it is being filled")

    def promoted() -> bool:
        return 3 in cluster.guard.ordered[primary].in_force.voters

    world.eventually(promoted, 5.0, "it is a voter by the primary's log")
    world.cut(primary, 3, one_way=True)  # it does not hear of it
    world.eventually(lambda: 3 in cluster.listed, 5.0, "the others made it a voter")
    knows = 3 in cluster.guard.ordered[3].in_force.voters
    world.crash(primary, power=True)
    world.eventually(lambda: cluster.primary == other, 10.0, "the third server's vote counts")
    assert not knows
    cluster.finish()


def test_the_primary_hands_over_before_it_is_removed() -> None:
    cluster = RegistryCluster(7, 3)
    old = cluster.ready()
    done(cluster, cluster.change("undefine", old))
    assert old not in cluster.listed
    assert cluster.primary not in (0, old)
    assert cluster.guard.seen["hand-overs taken"]
    cluster.finish()
    assert not cluster.server(old).raft.leads
