"""The leader, in conversation: from accusations, joins and leaves to one committed view at a time."""

from __future__ import annotations

import msgspec
import pytest
from covey.bus.machine import Send
from covey.components.liveness.messages import (
    Alert,
    Configured,
    Heartbeat,
    HeartbeatAck,
    Join,
    JoinRefused,
    Leave,
    LeaveQ,
    PeerDown,
    Removed,
    Suspect,
    ViewsAnnounced,
)
from covey.components.liveness.views import make, step_to
from covey.components.registry.messages import AppendSystem, ReadSystem, SystemAppended, SystemRead, SystemRefused
from liveness_script import Script


def leader(*numbers: int) -> Script:
    """Node 1, leading epoch 1, in a view with these numbers."""
    node = Script(1)
    node.rule(*numbers)
    assert [m.number for m in node.machine.chain.members] == [1, *numbers]
    return node


def numbers_of(node: Script) -> list[int]:
    return [m.number for m in node.proposed().members]


# --- the first view; the log ----------------------------------------------------------------------------------------


def test_a_leader_reads_the_log_before_anything_else_and_asks_again() -> None:
    node = Script(1)
    node.leading(1, 1, "stale")
    assert node.sent(ReadSystem) == []
    node.leading(1, 1, "reads")
    node.hear(2, Join("b2", "n2"))
    node.wait(1.2)
    assert node.sent(ReadSystem) == [ReadSystem("views/1/0", "view")] * 3
    assert node.sent(AppendSystem) == []
    node.hear(1, SystemRead("views/1/0", (), 7), "registry")
    node.hear(1, SystemRead("views/9/0", (), 1), "registry")
    assert not node.machine.leading
    node.load(1)
    assert node.machine.leading


def test_nothing_is_announced_before_the_log_has_it() -> None:
    node = Script(1)
    node.leading(1, 1)
    node.load(1)
    node.hear(2, Join("b2", "n2"))
    node.wait(3)
    entry = node.sent(AppendSystem)[0]
    assert set(node.sent(AppendSystem)) == {entry} and len(node.sent(AppendSystem)) >= 5
    assert (entry.id, entry.epoch, entry.kind, entry.slot, entry.keep) == ("view/1/1", 1, "view", "", 256)
    assert node.published() == [] and node.sent(ViewsAnnounced) == []
    node.commit(1)
    assert [v.id for v in node.sent(ViewsAnnounced, to=2)[0].views] == [(1, 1)]
    assert node.machine.phase == "member"


def test_joins_that_come_together_go_into_one_view() -> None:
    node = leader()
    node.hear(2, Join("b2", "n2"))
    node.wait(0.05)
    node.hear(3, Join("b3", "n3"))
    node.wait(0.06)
    assert numbers_of(node) == [1, 2, 3]
    assert [m.state for m in node.proposed().members] == ["pending online"] * 3


def test_the_first_entry_of_a_reign_is_read_back_and_what_the_log_has_holds() -> None:
    """A process that died in this epoch had proposed another view of the same number, and the log took that one."""
    node = Script(1)
    node.leading(1, 1)
    node.load(1)
    node.hear(2, Join("b2", "n2"))
    node.wait(0.15)
    mine = node.sent(AppendSystem)[-1]
    theirs = make(None, 1, [node.proposed().members[0]], 5.0)
    node.log.append(msgspec.msgpack.encode(step_to(theirs, None)))
    node.take()
    node.hear(1, SystemAppended(mine.id, 1, 1), "registry")
    assert node.published() == [] and node.machine.chain.last is None
    node.load(1)
    assert node.machine.chain.last == theirs
    node.hear(2, Join("b2", "n2"))
    node.wait(0.15)
    assert node.proposed().previous_hash == theirs.hash


def test_a_later_entry_needs_no_reading_back() -> None:
    node = leader(2)
    node.hear(3, Join("b3", "n3"))
    node.peers_alive(0.2, 2)
    node.hear(1, SystemAppended("view/1/2", 2, 1), "registry")
    assert node.sent(ReadSystem) == [] and node.machine.chain.id == (1, 2)


def test_a_new_leader_goes_on_where_the_log_ends() -> None:
    node = leader(2)
    second = Script(1, "c1", now=50.0)
    second.log = node.log
    second.leading(4, 1)
    second.load(4)
    second.beat(2)
    second.wait(0.15)
    view = second.proposed()
    assert view.id == (4, 2) and view.previous == (1, 1)
    assert [(m.number, m.boot_id) for m in view.members] == [(1, "c1"), (2, "b2")]


def test_another_reign_ends_this_one() -> None:
    node = leader(2)
    node.hear(3, Join("b3", "n3"))
    node.peers_alive(0.2, 2)
    assert node.sent(AppendSystem) != []
    node.hear(1, SystemRefused("view/1/2", 0, "no quorum just now"), "registry")
    node.take()
    node.peers_alive(0.6, 2)
    assert node.sent(AppendSystem) != [] and node.machine.leading
    node.hear(1, SystemRefused("view/1/2", 3, "epoch 3 reigns"), "registry")
    node.take()
    node.peers_alive(3, 2)
    assert node.sent(AppendSystem) == [] and not node.machine.leading
    node.hear(1, SystemAppended("view/1/2", 2, 1), "registry")
    assert node.machine.chain.id == (1, 1)


def test_a_reign_that_is_taken_up_again_repeats_the_same_proposal() -> None:
    node = leader(2)
    node.hear(3, Join("b3", "n3"))
    node.peers_alive(0.2, 2)
    entry = node.sent(AppendSystem)[-1]
    node.leading(0, 0, "stale")
    node.take()
    node.peers_alive(1, 2)
    assert node.sent(AppendSystem) == [] and not node.machine.leading
    node.leading(1, 1)
    assert node.sent(AppendSystem) == [entry] and node.sent(ReadSystem) == []


# --- removals -------------------------------------------------------------------------------------------------------


def accuse(node: Script, accuser: int, *suspects: int) -> None:
    node.hear(accuser, Alert(f"b{accuser}", node.machine.chain.id, tuple(Suspect(each) for each in suspects)))


def test_a_member_whom_all_its_few_observers_accuse_is_removed() -> None:
    node = leader(2, 3, 4, 5)
    node.feed(PeerDown(5))
    node.peers_alive(1.2, 2, 3, 4)
    accuse(node, 2, 5)
    accuse(node, 3, 5)
    node.peers_alive(1.2, 2, 3, 4)
    assert node.sent(AppendSystem) == []
    accuse(node, 4, 5)
    node.peers_alive(0.2, 2, 3, 4)
    assert numbers_of(node) == [1, 2, 3, 4]
    node.commit(1)
    assert node.sent(Removed, to=5) == [Removed("b5", (1, 2))]
    assert [len(node.sent(ViewsAnnounced, to=n)) for n in (2, 3, 4, 5)] == [1, 1, 1, 0]


def test_the_same_accuser_counts_once_and_one_that_is_no_member_not_at_all() -> None:
    node = leader(2, 3, 4, 5)
    for _ in range(5):
        accuse(node, 2, 5)
        node.hear(7, Alert("b7", node.machine.chain.id, (Suspect(5),)))
        node.hear(3, Alert("former", node.machine.chain.id, (Suspect(5),)))
        node.hear(4, Alert("b4", (1, 0), (Suspect(5),)))
    node.peers_alive(1.5, 2, 3, 4, 5)
    assert node.sent(AppendSystem) == []


def test_an_accusation_that_is_taken_back_or_not_repeated_is_void() -> None:
    node = leader(2, 3, 4, 5)
    node.peers_alive(0.2, 2, 3, 4, 5)
    accuse(node, 2, 5)
    accuse(node, 2)
    accuse(node, 3, 5)
    accuse(node, 4, 5)
    node.peers_alive(1.5, 2, 3, 4, 5)
    assert node.sent(AppendSystem) == []
    node.peers_alive(3, 2, 3, 4, 5)
    accuse(node, 2, 5)
    node.peers_alive(1.5, 2, 3, 4, 5)
    assert node.sent(AppendSystem) == []


def test_of_two_the_leader_decides_alone() -> None:
    node = leader(2)
    node.feed(PeerDown(2))
    node.wait(1.2)
    assert numbers_of(node) == [1]


def test_those_who_die_together_leave_together() -> None:
    node = leader(2, 3, 4)
    node.peers_alive(0.2, 2, 3, 4)
    node.feed(PeerDown(3))
    node.peers_alive(0.5, 2)
    node.feed(PeerDown(4))
    node.peers_alive(0.8, 2)
    accuse(node, 2, 3)
    node.peers_alive(0.3, 2)
    assert node.sent(AppendSystem) == []
    accuse(node, 2, 3, 4)
    node.peers_alive(0.5, 2)
    assert numbers_of(node) == [1, 2]


def test_a_trouble_that_lasts_does_not_hold_up_others() -> None:
    node = leader(2, 3, 4, 5)
    for _ in range(5):
        accuse(node, 2, 3)
        node.peers_alive(1, 2, 3, 4, 5)
    node.feed(PeerDown(5))
    for _ in range(2):
        accuse(node, 2, 3)
        node.peers_alive(0.6, 2, 3, 4)
    node.take()
    for accuser in (2, 4, 3):
        accuse(node, accuser, *([3, 5] if accuser == 2 else [5]))
    node.peers_alive(0.21, 2, 3, 4)
    assert numbers_of(node) == [1, 2, 3, 4]


def test_a_leader_that_was_stopped_accuses_nobody() -> None:
    node = leader(2)
    node.sleep(30)
    node.wait(0.5)
    assert node.sent(AppendSystem) == []


# --- members that lag, or are none ----------------------------------------------------------------------------------


def test_a_member_that_lags_gets_what_it_lacks_but_not_twice_at_once() -> None:
    node = leader(2, 3)
    for number in (4, 5):
        node.hear(number, Join(f"b{number}", f"n{number}"))
        node.peers_alive(0.2, 2, 3, 4)
        node.commit(1)
    node.take()
    node.beat(3, view=(1, 1))
    node.beat(3, view=(1, 1))
    (sent,) = node.sent(ViewsAnnounced, to=3)
    assert [v.id for v in sent.views] == [(1, 2), (1, 3)] and not sent.whole
    node.peers_alive(0.4, 2)
    node.beat(3, view=(1, 1))
    assert len(node.sent(ViewsAnnounced, to=3)) == 2


def test_a_joiner_gets_the_whole_history() -> None:
    node = leader(2)
    node.hear(3, Join("b3", "n3"))
    node.peers_alive(0.2, 2)
    node.commit(1)
    (sent,) = node.sent(ViewsAnnounced, to=3)
    assert [v.id for v in sent.views] == [(1, 1), (1, 2)]


def test_a_removed_node_that_still_acts_as_a_member_is_told_so() -> None:
    node = leader(2, 3)
    node.hear(3, Leave("b3"))
    node.peers_alive(0.2, 2)
    node.commit(1)
    node.take()
    node.beat(3, view=(1, 1))
    assert node.sent(Removed, to=3) == [Removed("b3", (1, 2))]
    for message in (Join("b3", "n3"), Leave("b3"), Configured("b3")):
        node.take()
        node.hear(3, message)
        assert node.sent(Removed, to=3) == [Removed("b3", (1, 2))], message
    node.peers_alive(0.3, 2)
    assert node.sent(AppendSystem) == []


def test_the_word_of_the_leader_is_for_members_only() -> None:
    node = leader(2)
    node.beat(2)
    assert node.sent(HeartbeatAck, to=2)[-1].leads == 1
    node.beat(2, boot="former")
    assert node.sent(HeartbeatAck, to=2)[-1].leads == 0


def test_one_that_knows_more_than_an_old_leader_is_not_told_that_it_was_removed() -> None:
    node = leader(2)
    node.beat(7, view=(2, 9))
    node.beat(8, leads=1)
    assert node.sent(Removed) == []


# --- joins under a number in use ------------------------------------------------------------------------------------


def test_a_node_that_restarted_replaces_its_old_boot_id_in_one_view_once_it_answers() -> None:
    node = leader(2, 3)
    node.peers_alive(0.2, 2, 3)
    node.hear(3, Join("c3", "n3"))
    (probe,) = node.sent(Heartbeat, to=3)
    node.hear(3, HeartbeatAck("c3", (0, 0), probe.beat))
    node.peers_alive(0.2, 2)
    assert [(m.number, m.boot_id) for m in node.proposed().members] == [(1, "b1"), (2, "b2"), (3, "c3")]
    node.commit(1)
    assert node.sent(Removed, to=3) == [Removed("b3", (1, 2))]
    assert [m.boot_id for m in node.published()[-1].left] == ["b3"]
    assert [m.boot_id for m in node.published()[-1].joined] == ["c3"]


def test_a_clone_is_refused_when_the_old_boot_id_answers() -> None:
    node = leader(2, 3)
    node.peers_alive(0.2, 2, 3)
    node.hear(3, Join("clone", "n3"))
    (probe,) = node.sent(Heartbeat, to=3)
    node.hear(3, HeartbeatAck("b3", (1, 1), probe.beat - 1))
    assert node.sent(JoinRefused) == []
    node.hear(3, HeartbeatAck("b3", (1, 1), probe.beat))
    assert node.sent(JoinRefused, to=3) == [JoinRefused("clone", "clone")]
    node.peers_alive(2, 2, 3)
    assert node.sent(AppendSystem) == []


def test_silence_of_the_old_boot_id_lets_the_new_one_in() -> None:
    node = leader(2, 3)
    node.peers_alive(0.2, 2, 3)
    for _ in range(3):
        node.hear(3, Join("c3", "n3"))
        node.peers_alive(0.4, 2)
    assert [m.boot_id for m in node.proposed().members] == ["b1", "b2", "c3"]


def test_a_joiner_that_went_away_while_it_was_checked_is_forgotten() -> None:
    node = leader(2, 3)
    node.leading(0, 0, "stale")
    node.leading(1, 1)
    node.hear(3, Join("c3", "n3"))
    node.machine.lead.joiners[3].check_until += 10  # type: ignore[union-attr,operator]
    node.peers_alive(3, 2, 3)
    assert node.machine.lead is not None and node.machine.lead.joiners == {}


# --- its own node; leaving; configured ------------------------------------------------------------------------------


def test_configured_members_become_online() -> None:
    node = leader(2)
    node.hear(2, Configured("b2"))
    node.hear(2, Configured("stranger"))
    node.peers_alive(0.2, 2)
    assert [m.state for m in node.proposed().members] == ["pending online", "online"]


def test_one_that_leaves_before_it_was_let_in_is_not_let_in() -> None:
    node = leader(2)
    node.hear(3, Join("b3", "n3"))
    node.hear(3, Leave("b3"))
    node.peers_alive(0.3, 2)
    assert node.sent(AppendSystem) == [] and node.sent(Removed, to=3) != []


def test_the_leader_itself_can_leave_and_goes_on_leading() -> None:
    node = leader(2, 3)
    node.ask(LeaveQ())
    node.peers_alive(0.2, 2, 3)
    assert numbers_of(node) == [2, 3]
    node.commit(1)
    assert node.replies() == [{"view": [1, 2]}] and node.notified() == ["left"]
    assert len(node.sent(ViewsAnnounced, to=2)) == 1
    node.take()
    node.wait(1)
    assert node.sent(Heartbeat, to=2)[-1].leads == 1


@pytest.mark.parametrize("epoch", [1, 5])
def test_whatever_a_leader_sends_to_itself_stays_inside(epoch: int) -> None:
    node = Script(1)
    node.rule(2, epoch=epoch)
    node.peers_alive(5, 2)
    assert all(effect.to.node != 1 for effect in node.effects if isinstance(effect, Send))
