"""Groups in virtual time: every member sees one story, whatever is lost, doubled, killed, cut off or elected."""

from __future__ import annotations

import pytest
from covey.components.groups.questions import Broadcast, LeaveGroup, Show
from covey.errors import CoordinatorChanged, Frozen, NotFound
from groups_world import GROUP, formed


def test_members_see_one_sequence_of_joins_and_messages() -> None:
    cluster = formed(1, 3)
    first, *others = cluster.parties
    start = first.cursor
    for n in range(10):
        for party in cluster.parties:
            party.say(f"{party.name} {n}")
    cluster.settle()
    assert all(party.texts[-30:] == first.texts[-30:] for party in others)
    assert first.cursor > start + 30
    for name in ("p1", "p2", "p3"):  # each member's own messages keep their order
        mine = [text for text in first.texts if text.startswith(f"{name} ")]
        assert mine == [f"{name} {n}" for n in range(10)]
    cluster.check_promises()


def test_join_result_and_first_event() -> None:
    cluster = formed(2, 3)
    late = cluster.party(2, "late")
    cluster.settle()
    assert [member.party for member in late.join_asked.result["members"]][-1] == "late"
    assert late.events[0].kind == "joined" and late.events[0].who[0].party == "late"
    shown = late.ask(Show(GROUP))
    missing = late.ask(Show("none"))
    cluster.world.run(0.1)
    assert [(m.node, m.party) for m in shown.result["members"]][-1] == (2, "late")
    assert isinstance(missing.error, NotFound)


def test_a_leave_is_seen_by_the_others_and_ends_what_the_leaver_may_do() -> None:
    cluster = formed(3, 3)
    leaver, other = cluster.parties[0], cluster.parties[1]
    left = leaver.ask(LeaveGroup(GROUP, "p1"))
    refused = leaver.ask(Broadcast(GROUP, "p1", b"after"))
    cluster.world.run(1.0)
    assert left.error is None
    assert refused.error is not None and refused.error.code == "groups.not_member"
    assert other.events[-1].kind == "left" and [m.party for m in other.events[-1].who] == ["p1"]


def test_changes_that_come_together_are_one_batch_and_go_before_messages() -> None:
    cluster = formed(4, 3)
    cluster.core.latest = 0.5  # the first message holds up what comes meanwhile
    speaker = cluster.parties[0]
    view = cluster.world.machine(1, "groups").replica.get(GROUP).view
    for n in range(3):
        speaker.say(f"m{n}")
    cluster.world.run(0.02)
    for name in ("x", "y", "z"):
        cluster.party(2, name)
    cluster.kill(cluster.parties[2])
    cluster.world.run(8)
    seen = cluster.parties[1].events[-5:]
    assert [event.kind for event in seen] == ["message", "failed", "joined", "message", "message"]
    assert sorted(member.party for member in seen[2].who) == ["x", "y", "z"]
    assert [event.view for event in seen] == [view, view + 1, view + 1, view + 1, view + 1]


def test_death_of_a_party_is_a_failure_leave_at_every_member() -> None:
    """INV-26."""
    cluster = formed(5, 3)
    cluster.kill(cluster.parties[2])
    for other in cluster.parties[:2]:
        cluster.world.eventually(lambda o=other: o.kinds()[-1] == "failed", 0.5, "the failure is seen")
        assert [member.party for member in other.events[-1].who] == ["p3"]


def test_death_of_a_node_removes_all_its_members_in_one_batch_of_each_group() -> None:
    cluster = formed(6, 4)
    for name in ("q1", "q2"):
        cluster.party(4, name)
    for number in (1, 2, 4):
        cluster.party(number, f"other{number}", "other")
    cluster.settle()
    cluster.crash_node(4)
    cluster.show_view(1, 2, 3)
    watcher = cluster.parties[0]
    cluster.world.eventually(lambda: watcher.kinds()[-1] == "failed", 1.0, "the failure is seen")
    assert {member.party for member in watcher.events[-1].who} == {"p4", "q1", "q2"}
    cluster.settle()
    assert [m.node for m in cluster.world.machine(1, "groups").replica.get("other").members.values()] == [1, 2]


def test_a_dead_coordinator_is_followed_by_one_that_knows_all_it_decided() -> None:
    cluster = formed(7, 5)
    for n in range(5):
        cluster.parties[3].say(f"before {n}")
    cluster.crash_node(1)
    cluster.world.run(0.2)
    cluster.elect(2)
    cluster.show_view(2, 3, 4, 5)
    cluster.settle()
    cluster.check_promises()
    assert all(op.error is None for _, op in cluster.parties[3].said)


@pytest.mark.parametrize("step", ["before the log", "in the log", "answered"])
def test_coordinator_dies_between_append_and_announcement(step: str) -> None:
    """INV-24: what is in the log is told by the next one, once; what is not is proposed again."""
    cluster = formed(8, 3)
    before = len(cluster.core.decisions)
    if step == "before the log":
        cluster.core.latest = 5.0
    speaker = cluster.parties[1]
    operation = speaker.say("in the balance")
    if step == "before the log":
        cluster.world.run(0.02)
        assert len(cluster.core.decisions) == before
    else:
        cluster.world.eventually(lambda: len(cluster.core.decisions) > before, 1.0, "it is in the log")
    if step == "answered":
        for other in (2, 3):  # the announcements are lost with their sender
            cluster.world.cut(1, other, one_way=True)
        cluster.world.run(0.01)
    cluster.restart_groups(1)
    cluster.core.latest = 0.003
    cluster.world.heal()
    cluster.world.eventually(lambda: operation.done, 5.0, "the speaker knows")
    cluster.settle()
    assert operation.error is None
    assert cluster.parties[0].texts.count("in the balance") == 1
    cluster.world.run(6.0)  # the append of the dead one lands now, and is void
    cluster.restart_groups(1)
    cluster.settle()
    cluster.check_promises()


def test_a_minority_is_frozen_told_once_and_thawed() -> None:
    """INV-27 and SPEC 11.4."""
    cluster = formed(10, 3)
    lonely = cluster.parties[2]
    cluster.isolate(3)
    cluster.world.run(0.1)
    asked = lonely.say("anybody?")
    cluster.world.run(7.0)
    assert isinstance(asked.error, Frozen)
    assert isinstance(lonely.say("still?").error or cluster.world.run(0.1) or lonely.said[-1][1].error, Frozen)
    assert lonely.kinds().count("frozen") == 1
    count = lonely.cursor
    cluster.parties[0].say("we go on")
    cluster.world.run(2.0)
    assert cluster.parties[0].texts[-1] == "we go on"
    assert lonely.cursor == count
    cluster.rejoin()
    cluster.settle()
    assert lonely.kinds().count("thawed") == 1
    after = lonely.events[lonely.kinds().index("frozen") + 1 :]
    assert next(e.body for e in after if e.kind == "message") == b"we go on", "what it missed comes with the thaw"
    assert "anybody?" not in cluster.parties[0].texts
    cluster.check_promises()


def test_a_removed_node_comes_back_as_new_members_only() -> None:
    cluster = formed(11, 3)
    lonely = cluster.parties[2]
    cluster.isolate(3)
    cluster.show_view(1, 2)
    cluster.world.run(7.0)
    watcher = cluster.parties[0]
    assert watcher.kinds()[-1] == "failed"
    lonely.alive = False
    cluster.return_node(3)
    again = cluster.party(3, "p3")
    cluster.settle()
    assert again.joined is not None and again.joined > watcher.events[-1].sequence - 10
    members = cluster.world.machine(1, "groups").replica.get(GROUP).members
    assert [key for key in members if key[0] == 3] == [(3, "n3.2", "p3")]


def test_proposal_without_coordinator_is_withdrawn_or_decided_never_both() -> None:
    cluster = formed(12, 3)
    cluster.core.deaf = 1.0  # the log commits and never answers
    operation = cluster.parties[1].say("who knows")
    cluster.world.run(12.0)
    assert operation.error is not None and operation.error.code in ("core.timeout", "groups.frozen")
    cluster.core.deaf = 0.0
    cluster.settle()
    cluster.check_promises()


def test_a_withdrawn_proposal_came_to_nothing() -> None:
    cluster = formed(13, 3)
    cluster.world.cut(2, 1, one_way=True)  # beats arrive, proposals do not
    operation = cluster.parties[1].say("unheard")
    cluster.world.run(6.5)
    cluster.world.heal()
    cluster.world.eventually(lambda: operation.done, 2.0)
    assert isinstance(operation.error, CoordinatorChanged)
    cluster.settle()
    cluster.check_promises()


def test_members_that_died_while_no_machine_ran_are_failed_at_its_start() -> None:
    cluster = formed(14, 3)
    dead = cluster.parties[2]
    dead.alive = False
    cluster.restart_groups(3)
    watcher = cluster.parties[0]
    cluster.world.eventually(lambda: watcher.kinds()[-1] == "failed", 3.0, "the failure is seen")
    assert [member.party for member in watcher.events[-1].who] == ["p3"]


def test_a_restarted_cluster_reads_its_groups_back_from_the_log() -> None:
    cluster = formed(15, 3)
    sequence = cluster.parties[0].cursor
    for number in (1, 2, 3):
        cluster.crash_node(number)
    for number in (1, 2, 3):
        cluster.world.start(number)
    cluster.elect(2)
    cluster.show_view(1, 2, 3)
    fresh = cluster.party(1, "fresh")
    cluster.settle()
    assert fresh.joined is not None and fresh.joined > sequence
    assert [m.party for m in fresh.join_asked.result["members"]] == ["fresh"]
    cluster.check_promises()
