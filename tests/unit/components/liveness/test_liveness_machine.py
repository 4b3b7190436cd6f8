"""One node's liveness, in conversation: joining, views, quorum, suspicion, leaving, being removed."""

from __future__ import annotations

import msgspec
import pytest
from covey.bus.machine import ImpossibleTransition, Send
from covey.components.liveness.messages import (
    Alert,
    ClockRead,
    Configured,
    ConfiguredQ,
    Heartbeat,
    HeartbeatAck,
    Join,
    JoinRefused,
    Leave,
    LeaveQ,
    PeerDown,
    Removed,
    Status,
    Suspect,
    TasksChecked,
    ViewChanged,
    Views,
)
from covey.components.registry.messages import ReadSystem
from covey.errors import Timeout
from liveness_script import Script


def member(*numbers: int) -> Script:
    """Node 2, in a view with node 1, which leads epoch 1, and these numbers."""
    node = Script(2)
    node.leading(1, 1)
    node.announce(node.view(1, 2, *numbers))
    node.take()
    return node


# --- joining ------------------------------------------------------------------------------------------------------


def test_it_asks_to_join_until_it_is_in_a_view_and_tells_everybody_once() -> None:
    node = Script(2)
    node.wait(5)
    assert node.take() == []
    node.leading(1, 1)
    node.wait(1.2)
    assert node.sent(Join, to=1) == [Join("b2", "n2")] * 3
    node.take()
    view = node.view(1, 2)
    node.announce(view)
    assert node.notified() == ["joined"]
    (told,) = node.published()
    assert told == ViewChanged(view.id, view.members, joined=view.members, quorate=True, hash=view.hash)
    assert node.sent(Join) == []
    node.take()
    node.announce(view)
    assert node.published() == [] and node.notified() == []


def test_history_before_its_own_time_is_kept_and_not_told() -> None:
    node = Script(3)
    node.leading(1, 1)
    node.take()
    node.announce(node.view(1), node.view(1, 2), node.view(1, 2, 3), whole=True)
    assert [told.id for told in node.published()] == [(1, 3)]
    assert [m.number for m in node.published()[0].joined] == [1, 2, 3]
    node.ask(Views(10))
    (found,) = node.replies()
    assert [(v["id"], v["joined"], v["left"]) for v in found] == [
        ([1, 1], [1], []),
        ([1, 2], [2], []),
        ([1, 3], [3], []),
    ]


def test_a_view_out_of_the_middle_is_no_beginning() -> None:
    node = Script(3)
    node.leading(1, 1)
    node.view(1)
    node.take()
    node.announce(node.view(1, 3))
    assert node.published() == []
    assert node.sent(Join, to=1) == [Join("b3", "n3")]
    node.announce(*node.views, whole=True)
    assert node.notified() == ["joined"]


def test_a_refused_clone_stays_out() -> None:
    node = Script(2)
    node.leading(1, 1)
    node.hear(1, JoinRefused("other", "clone"))
    node.hear(1, JoinRefused("b2", "clone"))
    node.take()
    node.wait(5)
    assert node.machine.phase == "refused" and node.sent(Join) == []


# --- views --------------------------------------------------------------------------------------------------------


def test_views_come_in_order_each_once_and_a_gap_is_asked_for() -> None:
    node = member(3)
    second, third = node.view(1, 2, 3, 4), node.view(1, 2, 4)
    node.announce(third)
    assert node.published() == []
    (asked,) = node.sent(Heartbeat, to=1)
    assert asked.view == (1, 1)
    node.announce(second, third)
    node.announce(second, third)
    told = node.published()
    assert [t.id for t in told] == [(1, 2), (1, 3)]
    assert [[m.number for m in t.joined] for t in told] == [[4], []]
    assert [[m.number for m in t.left] for t in told] == [[], [3]]


def test_one_that_lags_beyond_what_is_kept_takes_the_list_as_it_is() -> None:
    node = member(3)
    for _ in range(3):
        node.view(1, 2, 3)
    late = node.view(1, 2)
    node.announce(late, whole=True)
    assert node.machine.chain.id == late.id and [t.id for t in node.published()] == [late.id]


def test_a_view_that_was_tampered_with_is_not_taken() -> None:
    node = member(3)
    bad = msgspec.structs.replace(node.view(1, 2), at=77.0)
    node.announce(bad)
    node.announce(bad, whole=True)
    assert node.published() == [] and node.machine.chain.id[1] <= 1


# --- heartbeats and suspicion ---------------------------------------------------------------------------------------


def test_everybody_gets_a_heartbeat_every_interval_and_an_answer() -> None:
    node = member(3)
    node.peers_alive(0.1, 1, 3)
    node.take()
    node.wait(1.01)
    assert len(node.sent(Heartbeat, to=1)) == len(node.sent(Heartbeat, to=3)) == 1
    node.take()
    node.hear(3, Heartbeat("b3", (1, 1), 41))
    (ack,) = node.sent(HeartbeatAck, to=3)
    assert msgspec.structs.replace(ack, age=0.0) == HeartbeatAck("b2", (1, 1), 41, epoch=1)


def test_silence_is_probed_then_told_to_the_leader_and_repeated() -> None:
    node = member(3)
    node.peers_alive(2.9, 1, leads=1)
    node.take()
    node.peers_alive(1.05, 1, leads=1)
    assert node.sent(Alert) == []
    node.peers_alive(2.2, 1, leads=1)
    assert node.sent(Alert, to=1) == [Alert("b2", (1, 1), (Suspect(3),))] * 3
    node.take()
    node.beat(3)
    assert node.sent(Alert, to=1) == [Alert("b2", (1, 1), ())]


def test_a_closed_link_makes_it_a_matter_of_a_second() -> None:
    node = member(3)
    node.peers_alive(0.4, 1, 3, leads=1)
    node.feed(PeerDown(3))
    node.peers_alive(1.1, 1, leads=1)
    assert node.sent(Alert, to=1) == [Alert("b2", (1, 1), (Suspect(3),))]


def test_one_that_did_not_run_accuses_nobody_that_round() -> None:
    node = member(3)
    node.sleep(60)
    node.wait(3.9)
    assert node.sent(Alert) == []
    node.wait(1)
    assert node.sent(Alert, to=1)[0].suspects == (Suspect(1), Suspect(3))
    assert node.machine.late_steps == 1


def test_accusations_are_said_again_for_a_new_view_and_to_a_new_leader() -> None:
    node = member(3, 4)
    node.feed(PeerDown(3))
    node.peers_alive(1.5, 1, 4, leads=1)
    node.take()
    node.announce(node.view(1, 2, 3))
    assert node.sent(Alert, to=1) == [Alert("b2", (1, 2), (Suspect(3),))]
    node.take()
    node.leading(2, 3)
    assert node.sent(Alert, to=3) == [Alert("b2", (1, 2), (Suspect(3),))]


def test_a_hung_node_sends_no_heartbeats() -> None:
    node = member(3)
    node.feed(TasksChecked())
    node.peers_alive(9, 1, 3, leads=1)
    node.feed(TasksChecked(("dcm",)))
    node.take()
    node.wait(4)
    node.take()
    node.wait(2)
    node.beat(1, leads=1)
    assert [e for e in node.effects if isinstance(e, Send)] == []
    node.feed(TasksChecked())
    node.wait(1.1)
    assert node.sent(Heartbeat, to=1) != []


# --- quorum ---------------------------------------------------------------------------------------------------------


def test_without_word_for_eight_seconds_it_is_not_quorate_and_the_list_is_frozen() -> None:
    node = member(3)
    node.peers_alive(20, 1, 3, leads=1)
    assert node.published() == []
    node.peers_alive(7, 3)
    assert node.machine.quorate
    node.peers_alive(1.5, 3)
    (told,) = node.published()
    assert (told.id, told.quorate, told.joined, told.left) == ((1, 1), False, (), ())
    node.take()
    node.peers_alive(1.2, 1, 3, leads=1)
    (told,) = node.published()
    assert told.quorate


def test_word_is_an_answer_of_the_leader_to_a_fresh_heartbeat() -> None:
    """Neither its heartbeats, nor answers of others, of an older leader, or to what was sent long ago will do."""
    node = member(3)
    node.leading(5, 1)
    node.wait(1.1)
    old = node.sent(Heartbeat, to=1)[-1].beat
    for _ in range(9):
        node.wait(1)
        node.beat(1, leads=5)
        node.hear(1, HeartbeatAck("b1", (1, 1), old, 5, epoch=5))
        node.answer_beats(3, leads=4)
        node.answer_beats(1)
    assert not node.machine.quorate


def test_who_leads_is_also_learned_from_heartbeats_and_never_from_an_older_epoch() -> None:
    node = member(3)
    node.beat(3, leads=4)
    assert node.machine.leader == (4, 3)
    node.beat(1, leads=2)
    node.leading(2, 1)
    assert node.machine.leader == (4, 3)
    node.leading(0, 0, "offline")
    assert node.machine.leader == (4, 0)
    node.beat(3, leads=4)
    assert node.machine.leader == (4, 3)


# --- configured, leaving, being removed -----------------------------------------------------------------------------


def test_configured_is_asked_for_until_the_view_says_online() -> None:
    node = Script(2)
    node.leading(1, 1)
    node.announce(node.view(1, 2, online=False))
    node.ask(ConfiguredQ())
    node.peers_alive(1.2, 1, leads=1)
    assert len(node.sent(Configured, to=1)) >= 2 and node.replies() == []
    node.take()
    node.announce(node.view(1, 2))
    assert node.replies() == [{"view": [1, 2]}]
    node.take()
    node.ask(ConfiguredQ())
    assert node.replies() == [{"view": [1, 2]}]


def test_a_client_is_told_when_its_time_is_over() -> None:
    node = Script(2)
    node.ask(ConfiguredQ())
    node.wait(10.1)
    (answer,) = node.replies()
    assert isinstance(answer, Timeout)


def test_leaving_is_asked_for_until_the_leader_says_removed() -> None:
    node = member(3)
    node.ask(LeaveQ())
    node.peers_alive(0.7, 1, 3, leads=1)
    assert node.sent(Leave, to=1) == [Leave("b2")] * 2
    node.hear(1, Removed("b2", (1, 2)))
    assert node.replies() == [{"view": [1, 2]}] and node.notified() == ["left"]
    assert node.machine.phase == "left"
    node.take()
    node.wait(3)
    assert node.take() == []


def test_one_that_is_in_no_view_leaves_at_once_and_calls_its_join_back() -> None:
    node = Script(2)
    node.leading(1, 1)
    node.take()
    node.ask(LeaveQ())
    assert node.replies() == [{"view": [0, 0]}] and node.sent(Leave, to=1) == [Leave("b2")]


def test_a_removed_boot_id_knows_it_and_falls_silent() -> None:
    node = member(3)
    node.hear(1, Removed("older", (1, 2)))
    assert node.machine.phase == "member"
    node.hear(1, Removed("b2", (1, 2)))
    assert node.notified() == ["removed"]
    assert [told.quorate for told in node.published()] == [False]
    node.take()
    node.wait(20)
    node.beat(1, leads=1)
    node.announce(node.view(1, 2, 3, 4))
    assert node.take() == []


def test_a_view_without_it_says_the_same() -> None:
    node = member(3)
    node.announce(node.view(1, 3))
    assert node.machine.phase == "removed" and node.notified() == ["removed"]


# --- the rest -------------------------------------------------------------------------------------------------------


def test_status_tells_what_it_holds_and_thinks() -> None:
    node = member(3)
    node.feed(PeerDown(3))
    node.peers_alive(1.5, 1, leads=1)
    node.take()
    node.feed(ClockRead(0.0))
    node.ask(Status())
    (status,) = node.replies()
    assert status["view"]["id"] == [1, 1]
    assert status["view"]["members"][1] == {"number": 2, "boot_id": "b2", "state": "online", "name": "n2"}
    assert (status["quorate"], status["frozen"], status["suspects"]) == (True, False, [3])
    assert status["leader"] == {"epoch": 1, "node": 1} and not status["leading"]
    assert [(p["number"], p["state"]) for p in status["peers"]] == [(1, "alive"), (3, "suspect")]


def test_messages_of_other_components_are_none_of_its_business_but_unknown_questions_are_bugs() -> None:
    node = member(3)
    node.hear(2, ReadSystem("x", "view"), "registry")
    node.take()
    with pytest.raises(ImpossibleTransition, match="was asked"):
        node.ask("what")
    with pytest.raises(ImpossibleTransition, match="does not know"):
        node.feed("what")


def test_every_effect_carries_the_cause_of_its_input() -> None:
    node = member(3)
    node.announce(node.view(1, 2))
    assert {effect.cause for effect in node.effects} == {"cause"}
