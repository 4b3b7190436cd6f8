"""Fast messages in virtual time: one order within a view, and the same set for all who go on to the next."""

from __future__ import annotations

from itertools import count, takewhile
from typing import Any

import pytest
from covey.bus.machine import Effect
from covey.components.groups.machine import GroupsMachine
from covey.components.groups.messages import Fast
from covey.components.groups.questions import Broadcast, LeaveGroup
from covey.components.groups.settings import Settings
from covey.errors import Frozen, NotMember, Overloaded, Timeout, UsageError
from groups_world import GROUP, Cluster, formed


def shouting(seed: int, size: int = 3) -> Cluster:
    """Return a cluster whose members have sent one fast message each."""
    cluster = formed(seed, size)
    asked = [party.shout(f"{party.name} first") for party in cluster.parties]
    cluster.world.eventually(lambda: all(each.done and each.error is None for each in asked), 2.0)
    cluster.world.run(0.1)
    return cluster


def heard(cluster: Cluster, view: int) -> list[list[str]]:
    return [party.streams.get(view, []) for party in cluster.parties if party.alive]


def the_view(cluster: Cluster) -> int:
    return int(cluster.world.machine(2, "groups").replica.get(GROUP).view)


def test_one_order_and_answers_in_it() -> None:
    cluster = shouting(41)
    asked = [(party.name, n, party.shout(f"{party.name} {n}")) for n in range(10) for party in cluster.parties]
    cluster.world.eventually(lambda: all(each.done for *_, each in asked), 1.0)
    cluster.world.run(0.1)
    first, *others = heard(cluster, the_view(cluster))
    assert len(first) == 33 and others == [first, first]
    for name, n, operation in asked:
        assert first[operation.result["sequence"] - 1] == f"{name} {n}"
    decided = len(cluster.core.decisions)
    cluster.parties[0].shout("past the log")
    cluster.world.run(0.1)
    assert len(cluster.core.decisions) == decided


def test_all_who_go_on_have_had_the_same() -> None:
    """INV-25 where a node missed the last ones: it waits for them before it tells of the next view."""
    cluster = shouting(42)
    view = the_view(cluster)
    cluster.world.cut(1, 3, one_way=True)
    for n in range(5):
        cluster.parties[0].shout(f"m{n}")
    cluster.world.run(0.05)
    cluster.party(2, "fresh")
    cluster.world.run(0.2)
    behind = cluster.parties[2]
    assert the_view(cluster) == view + 1 and len(behind.streams[view]) == 3 and behind.view == view
    cluster.world.heal()
    cluster.world.eventually(lambda: behind.view == view + 1, 3.0, "the gap is fetched")
    assert len(behind.streams[view]) == 8
    assert cluster.parties[3].streams == {}, "who came later has none of those before"


def struck_at(at: int, harm: str) -> bool:
    """Send fast messages and let a member come, harm the coordinator at this step; return whether it had that many."""
    cluster = shouting(43, 4)
    left, struck = at, False

    def strike() -> None:
        if harm == "restart":
            cluster.restart_groups(1)
        elif harm == "another":
            cluster.elect(3)
        else:
            cluster.crash_node(1)
            cluster.connected.discard(1)
            cluster.elect(2)
            cluster.remove_node(1)

    def step(node: int, service: str, input: Any, effects: list[Effect]) -> None:
        nonlocal left, struck
        left -= service == "groups" and type(getattr(input, "message", None)).__name__ in (
            "Fast",
            "FastSend",
            "Announce",
        )
        if left < 0 and not struck:
            struck = True
            cluster.world.after(0, strike)

    cluster.world.on_step.append(step)
    asked = [cluster.parties[n % 3 + 1].shout(f"m{n}") for n in range(6)]
    fresh = cluster.party(3, "fresh")
    asked += [cluster.parties[2].shout("then")]
    cluster.world.run(0.5)
    cluster.world.on_step.remove(step)
    cluster.settle()  # what passes from view to view is compared as it does
    cluster.party(2, "last")
    cluster.settle()
    assert all(each.done and isinstance(each.error, Timeout | None) for each in asked), f"step {at}"
    for party in cluster.parties:
        if party.alive and not party.unsure:
            told = [text for stream in party.streams.values() for text in stream]
            assert len(told) == len(set(told)), f"step {at}: {party.name} had one twice: {told}"
    assert fresh.joined is not None
    return struck


STEPS = {"Fast", "FastSend", "Announce"}


@pytest.mark.parametrize("harm", ["restart", "another", "node"])
def test_harm_to_the_coordinator_at_every_step(harm: str) -> None:
    """INV-25: what one had whose fellow goes on, that one had; whatever the dead coordinator had told to whom."""
    assert len(list(takewhile(bool, (struck_at(at, harm) for at in count())))) > 12


def test_a_new_coordinator_waits_for_all_reports_and_borrows_what_it_lacks() -> None:
    cluster = shouting(44)
    view = the_view(cluster)
    cluster.world.cut(1, 2, one_way=True)
    cluster.parties[0].shout("only at 1 and 3")
    cluster.world.run(0.05)
    cluster.crash_node(1)
    cluster.connected.discard(1)
    cluster.elect(2)
    asked = cluster.parties[1].shout("next")
    late = cluster.party(2, "late")
    cluster.world.run(2.0)
    assert not asked.done and late.joined is None, "node 1 is in the view and may have had more"
    cluster.remove_node(1)
    cluster.world.eventually(lambda: asked.done and late.joined is not None, 1.0)
    cluster.settle()
    assert heard(cluster, view)[0][3:] == ["only at 1 and 3", "next"]
    assert heard(cluster, view)[0] == heard(cluster, view)[1]


def test_members_of_a_node_whose_groups_process_hangs_have_failed() -> None:
    """Node 3 alone has the last message of the coordinator that died, and says nothing: the others go on without it."""
    cluster = shouting(44, 4)
    view = the_view(cluster)
    for node in (2, 4):
        cluster.world.cut(1, node, one_way=True)
    cluster.parties[0].shout("only at 1 and 3")
    cluster.world.run(0.05)
    assert cluster.parties[2].streams[view][-1] == "only at 1 and 3"
    cluster.world.pause(3)
    cluster.crash_node(1)
    cluster.connected.discard(1)
    cluster.elect(2)
    cluster.remove_node(1)
    asked = cluster.parties[1].shout("next")
    late = cluster.party(2, "late")
    cluster.world.run(5.0)
    assert not asked.done and late.joined is None, "node 3 is in the view and may have had more"
    cluster.world.eventually(lambda: late.joined is not None, 6.0, "they go on without node 3")
    again = cluster.parties[1].shout("again")
    cluster.world.eventually(lambda: again.done and again.error is None, 1.0)
    assert "p3" not in [key[2] for key in cluster.world.machine(2, "groups").replica.get(GROUP).members]
    assert [party.streams[view] for party in cluster.parties[1:4:2]] == [cluster.parties[2].streams[view][:4]] * 2
    cluster.world.resume(3)
    hung = cluster.parties[2]
    cluster.world.eventually(lambda: "failed" in hung.kinds()[-2:], 3.0, "it is told")
    assert sorted(m.party for e in hung.events if e.kind == "failed" for m in e.who) == ["p1", "p3"]
    assert hung.streams[view][-1] == "only at 1 and 3" and len(hung.streams[view]) == 5
    hung.alive = False
    back = cluster.party(3, "back")
    cluster.world.eventually(lambda: back.joined is not None, 3.0, "its node has members again")
    shout = back.shout("here I am")
    cluster.world.eventually(lambda: shout.done, 3.0)
    cluster.settle()
    assert all(party.texts[-1:] for party in (cluster.parties[1], back))


def test_a_minority_sends_nothing_and_is_told() -> None:
    cluster = shouting(45)
    cluster.isolate(3)
    lonely = cluster.parties[2].shout("anybody?")
    cluster.world.run(7.0)
    assert isinstance(lonely.error, Frozen)
    cluster.rejoin()
    cluster.settle()
    assert heard(cluster, the_view(cluster)) == [[f"p{n} first" for n in (1, 2, 3)]] * 3


def test_only_members_and_only_so_many() -> None:
    cluster = formed(46, 3, make=lambda *who: GroupsMachine(*who, Settings(fast_messages=8)))
    first = cluster.parties[0]
    stranger = first.ask(Broadcast(GROUP, "nobody", b"x", fast=True))
    outside = first.ask(Broadcast(GROUP, "nobody", b"x", outside=True, fast=True))
    cluster.world.run(0.1)
    assert isinstance(stranger.error, NotMember) and isinstance(outside.error, UsageError)
    cluster.world.cut(2, 1)
    asked = [cluster.parties[1].shout(str(n)) for n in range(9)]
    cluster.world.run(0.1)
    assert isinstance(asked[8].error, Overloaded)
    cluster.world.heal()
    cluster.world.eventually(lambda: all(each.done for each in asked), 3.0)
    assert all(each.error is None for each in asked[:8])
    leaving = first.ask(LeaveGroup(GROUP, "p1"))
    late = first.shout("too late")
    cluster.world.eventually(lambda: leaving.done and late.done, 2.0)
    assert isinstance(late.error, NotMember)


def test_one_that_lags_more_than_is_held_is_told_that_it_missed_some() -> None:
    cluster = formed(47, 3, make=lambda *who: GroupsMachine(*who, Settings(fast_messages=8)))
    slow = cluster.parties[2]
    cluster.world.run(0.1)
    slow.alive = False  # it does not poll for a while
    for n in range(20):
        asked = cluster.parties[0].shout(str(n))
        cluster.world.eventually(lambda asked=asked: asked.done, 2.0)
    slow.alive = True
    slow.follow()
    cluster.world.run(0.2)
    assert slow.unsure and slow.streams[the_view(cluster)][-8:] == [str(n) for n in range(12, 20)]
    assert len(slow.streams[the_view(cluster)]) < 15
    cluster.settle()


def test_a_lost_last_one_is_noticed_by_the_beat() -> None:
    cluster = shouting(48)
    lost: list[int] = []
    cluster.world.on_step.append(
        lambda node, service, input, effects: lost.extend(
            effect.to.node for effect in effects if isinstance(getattr(effect, "message", None), Fast)
        )
    )
    cluster.world.cut(1, 2, one_way=True)
    cluster.parties[0].shout("last")
    cluster.world.run(0.05)
    cluster.world.heal()
    assert 2 in lost
    cluster.world.eventually(lambda: cluster.parties[1].streams[the_view(cluster)][-1] == "last", 2.0)
