"""What the Resource Manager orders, told as what happens around it."""

from __future__ import annotations

from typing import Any

import pytest
from covey.bus.machine import Address, ImpossibleTransition, Notify, Received
from covey.components.resources import messages as m
from covey.components.resources.settings import Settings
from covey.components.resources.supervision import TRANSITIONS, Supervision


def running(rig: Any, *found: Any) -> None:
    """Boot with one controller and let it find something."""
    rig.boot("disks")
    rig.describe()
    rig.find(*(found or (rig.disk(0, Model="A"), rig.disk(1, Model="B"))))


def reports(rig: Any) -> list[tuple[str, str, str]]:
    bodies = [body for what, body in rig.told if what == "plugin_state"]
    return [(body["name"], body["state"], body["reason"]) for body in bodies]


# --- discovery becomes one transaction ------------------------------------------------------------------------


def test_first_discovery_is_one_transaction_of_new_keys(rig: Any) -> None:
    running(rig)
    (write,) = rig.registry.writes
    assert [revision for _, revision in write.compare] == [0, 0]
    values = dict(write.puts)
    assert sorted(values) == sorted(key for key, _ in write.compare)
    key, value = min(values.items(), key=lambda item: item[1]["key"]["Slot"])
    assert value == {
        "class": "Disk",
        "id": key.removeprefix("/resources/Disk/"),
        "key": {"Slot": 0},
        "node": 1,
        "attributes": {"Model": "A"},
        "version": 1,
        "gone": False,
    }
    assert value["id"].startswith("1-")
    assert rig.machine.controllers["disks"].outcome == "done"


def test_unchanged_discovery_writes_nothing(rig: Any) -> None:
    running(rig)
    rig.wait(300)
    rig.find(rig.disk(1, Model="B"), rig.disk(0, Model="A"))
    assert len(rig.registry.writes) == 1
    assert rig.machine.controllers["disks"].outcome == "done"


def test_only_what_changed_is_written(rig: Any) -> None:
    running(rig)
    rig.wait(300)
    rig.find(rig.disk(0, Model="A"), rig.disk(1, Model="C"), rig.disk(2, Model="D"))
    assert [value["key"]["Slot"] for _, value in rig.registry.writes[1].puts] in ([1, 2], [2, 1])
    assert rig.stored() == {0: {"Model": "A"}, 1: {"Model": "C"}, 2: {"Model": "D"}}


def test_gone_is_marked_with_since_and_returns_without(rig: Any) -> None:
    running(rig)
    rig.wait(300)
    rig.find(rig.disk(0, Model="A"), at="2026-03-01T12:05:00Z")
    ((key, value),) = rig.registry.writes[1].puts
    assert value["key"] == {"Slot": 1} and value["gone"] is True
    assert value["since"] == "2026-03-01T12:05:00Z" and value["attributes"] == {"Model": "B"}
    rig.wait(300)
    rig.find(rig.disk(0, Model="A"), at="2026-03-01T12:10:00Z")
    assert len(rig.registry.writes) == 2, "what is gone already is not written again"
    rig.wait(300)
    rig.find(rig.disk(0, Model="A"), rig.disk(1, Model="B"))
    assert rig.registry.values[key][0]["gone"] is False and "since" not in rig.registry.values[key][0]


def test_what_was_stored_before_a_restart_is_compared_with(rig: Any, new_rig: Any) -> None:
    running(rig)
    later = new_rig()
    later.registry = rig.registry
    running(later, later.disk(0, Model="A"))
    assert later.stored() == {0: {"Model": "A"}, 1: "gone"}
    assert len(rig.registry.writes) == 2


def test_another_nodes_and_another_controllers_resources_are_left_alone(rig: Any) -> None:
    other = {"class": "Disk", "id": "2-x", "key": {"Slot": 0}, "node": 2, "attributes": {}, "version": 1, "gone": False}
    rig.registry.put("/resources/Disk/2-x", other)
    rig.registry.put("/resources/Fan/1-y", {**other, "class": "Fan", "id": "1-y", "node": 1})
    running(rig, rig.disk(3))
    assert rig.registry.values["/resources/Disk/2-x"][0]["gone"] is False
    assert rig.registry.values["/resources/Fan/1-y"][0]["gone"] is False
    assert len(rig.registry.writes[0].puts) == 1


def test_nothing_is_written_before_the_registry_was_read(rig: Any) -> None:
    rig.open = False
    running(rig)
    assert [type(order) for order in rig.held] == [m.ReadStored]
    rig.answer_registry()
    assert [type(order) for order in rig.held] == [m.Write]


def test_lost_answer_is_repeated_under_the_same_id_and_written_once(rig: Any) -> None:
    running(rig, rig.disk(0))
    rig.open = False
    rig.wait(300)
    rig.find(rig.disk(1))
    (first,) = rig.held
    rig.held.clear()
    rig.registry.answer(first)
    rig.wait(10)
    (second,) = rig.held
    assert second == first
    rig.answer_registry()
    assert len(rig.registry.writes) == 2
    assert rig.machine.controllers["disks"].outcome == "done"


def test_refused_write_is_repeated_with_back_off_until_writes_open(rig: Any) -> None:
    running(rig, rig.disk(0))
    rig.open = False
    rig.wait(300)
    rig.find(rig.disk(1))
    for pause in (1, 2, 4):
        (write,) = rig.held
        rig.held.clear()
        rig.feed(Received(Address("registry"), m.CallFailed(write.id, "registry.read_only", "closed")))
        rig.wait(pause - 0.01)
        assert not rig.held
        rig.wait(0.01)
        assert rig.held == [write]
    rig.answer_registry()
    assert rig.stored() == {0: "gone", 1: {}}


def test_changed_by_somebody_else_is_read_again_and_mended(rig: Any) -> None:
    running(rig, rig.disk(0, Model="A"))
    (key,) = rig.registry.values
    rig.registry.put(key, {**rig.registry.values[key][0], "attributes": {"Model": "forged"}})
    rig.wait(300)
    rig.find(rig.disk(0, Model="B"))
    assert rig.stored() == {0: {"Model": "B"}}
    assert len(rig.registry.writes) == 2


def test_discovery_during_a_write_waits_and_the_newest_counts(rig: Any) -> None:
    rig.open = False
    running(rig, rig.disk(0))
    rig.answer_registry()
    rig.wait(5)
    assert [type(order) for order in rig.held] == [m.Write]
    rig.ask(1, m.DiscoverAll(60, again=True))
    rig.find(rig.disk(1))
    rig.ask(2, m.DiscoverAll(60, again=True))
    rig.find(rig.disk(2))
    assert sum(isinstance(order, m.Write) for order in rig.held) == 1
    rig.open = True
    rig.answer_registry()
    assert rig.stored() == {0: "gone", 2: {}}
    assert rig.replies[1] == rig.replies[2] == [{"name": "disks", "state": "done", "reason": ""}]


# --- what a class declares holds for its controller ---------------------------------------------------------------


def test_undeclared_and_misfit_attributes_are_not_stored_and_the_reason_is_kept(rig: Any) -> None:
    running(rig, rig.disk(0, Model="A", Colour="red"), rig.disk(1, Model=7))
    assert rig.stored() == {0: {"Model": "A"}, 1: {}}
    state, reason = rig.states()["disks"]
    assert state == "running" and "'Colour'" in reason and "does not declare" in reason
    assert reports(rig)[-1] == ("disks", "running", reason)


def test_sensitive_attributes_stay_out_of_registry_and_answers(rig: Any) -> None:
    running(rig, rig.disk(0, Model="A", Pin="1234"))
    assert rig.stored() == {0: {"Model": "A"}}
    read = rig.take("disks", m.Read)
    rig.hear("disks", m.Values(read.id, {"Used": 1.0, "Token": "secret"}))
    (row,) = rig.ask(1, m.ReadLocal("Disk"))
    assert row["attributes"] == {"Used": 1.0, "Token": "<redacted>"}


@pytest.mark.parametrize("junk", [None, 7, "text", [], {"class": "Fan", "key": {}}, {"class": ["Disk"]}])
def test_junk_is_a_complaint_and_hurts_nothing(rig: Any, junk: Any) -> None:
    running(rig, rig.disk(0), junk)
    assert rig.stored() == {0: {}}
    assert "class it does not have" in rig.states()["disks"][1]


def test_key_that_cannot_be_read_makes_nothing_gone(rig: Any) -> None:
    running(rig)
    rig.wait(300)
    rig.find(rig.disk(0, Model="A"), rig.disk("one", Model="B"))
    assert rig.stored() == {0: {"Model": "A"}, 1: {"Model": "B"}}
    assert rig.states()["disks"][1]


def test_findings_of_the_controllers_process_are_kept_and_a_bad_key_makes_nothing_gone(rig: Any) -> None:
    running(rig)
    rig.ask(1, m.DiscoverAll(10, again=True))
    finding = {"code": "plugin.bad_value", "message": "Disk.Slot: no number", "class_name": "Disk", "attribute": "Slot"}
    order = rig.take("disks", m.Discover)
    rig.hear("disks", m.Discovered(order.id, (rig.disk(0, Model="A"),), "t", (finding, "junk")))
    assert rig.stored() == {0: {"Model": "A"}, 1: {"Model": "B"}}
    assert rig.states()["disks"] == ("running", "Disk.Slot: no number")
    rig.ask(2, m.DiscoverAll(10, again=True))
    order = rig.take("disks", m.Discover)
    harmless = {**finding, "attribute": "Model"}
    rig.hear("disks", m.Discovered(order.id, (rig.disk(0, Model="A"),), "t", (harmless,)))
    assert rig.stored() == {0: {"Model": "A"}, 1: "gone"}


def test_flood_is_a_failure_and_nothing_of_it_is_stored(new_rig: Any) -> None:
    rig = new_rig(Settings(most_resources=3))
    running(rig, *(rig.disk(slot) for slot in range(4)))
    assert rig.stored() == {}
    assert rig.states()["disks"] == ("failed", "found 4 resources, at most 3 are taken; nothing was stored")


def test_class_of_another_controller_is_refused(rig: Any) -> None:
    rig.boot("disks", "more")
    rig.describe("disks")
    rig.describe("more")
    assert rig.states()["more"] == ("failed", "class Disk belongs to the controller 'disks' already")
    assert rig.states()["disks"][0] == "discovering"


def other_class(rig: Any, name: str, *depends: str) -> Any:
    return rig.disk_class(name=name, controller="x", depends=depends)


def test_what_classes_depend_on_is_looked_for_first(rig: Any) -> None:
    """Tape needs Disk; Disk's discovery fails once, which is an end too."""
    rig.boot("disks", "tapes")
    rig.describe("tapes", other_class(rig, "Tape", "Disk"))
    assert rig.states()["tapes"] == ("starting", "")
    rig.ask(1, m.DiscoverAll(10, again=True))
    rig.wait(0.1)
    assert rig.count("tapes", m.Discover) == 0
    rig.describe("disks")
    assert (rig.count("disks", m.Discover), rig.count("tapes", m.Discover)) == (1, 0)
    rig.fail(m.Discover)
    assert rig.count("tapes", m.Discover) == 1
    assert rig.states()["tapes"][0] == "discovering"


def test_a_class_that_nobody_brings_is_no_obstacle(rig: Any) -> None:
    rig.boot("disks", "mute", "tapes")
    rig.describe("tapes", other_class(rig, "Tape", "Drum"))
    rig.describe("disks")
    assert rig.count("tapes", m.Discover) == 0, "'mute' may bring it"
    rig.wait(Settings().describe_deadline + 0.1)
    assert rig.states()["mute"][0] == "failed"
    assert rig.count("tapes", m.Discover) == 1


def test_one_that_is_held_back_and_goes_is_failed_and_comes_again(rig: Any) -> None:
    rig.boot("disks", "tapes")
    rig.describe("tapes", other_class(rig, "Tape", "Disk"))
    rig.feed(m.ControllerGone("tapes", "killed"))
    rig.describe("disks")
    rig.find(rig.disk(0))
    assert (rig.states()["tapes"], rig.count("tapes", m.Discover)) == (("failed", "killed"), 0)
    rig.feed(m.ControllerAppeared("tapes"))
    rig.describe("tapes", other_class(rig, "Tape", "Disk"))
    assert rig.count("tapes", m.Discover) == 1


def test_controllers_that_wait_for_each_other_are_refused(rig: Any) -> None:
    rig.boot("disks", "tapes")
    rig.describe("tapes", other_class(rig, "Tape", "Disk"))
    rig.describe("disks", other_class(rig, "Disk", "Tape"))
    state, reason = rig.states()["disks"]
    assert state == "failed" and "disks -> tapes -> disks" in reason
    assert rig.count("tapes", m.Discover) == 1, "nobody brings what it waits for"


def test_unusable_descriptions_are_a_failure_that_is_tried_again(rig: Any) -> None:
    rig.boot("disks")
    rig.hear("disks", m.Described(rig.take("disks", m.Describe).id, ({"name": 3},)))
    state, reason = rig.states()["disks"]
    assert state == "failed" and "cannot be used" in reason
    rig.wait(1)
    rig.describe()
    assert rig.states()["disks"][0] == "discovering"
    rig.find(rig.disk(0))
    assert rig.states()["disks"] == ("running", "")


# --- controllers that fail ------------------------------------------------------------------------------------


def test_failing_controller_is_reported_and_tried_at_growing_intervals(rig: Any) -> None:
    rig.boot("disks")
    rig.describe()
    for pause in (1, 2, 4, 8, 16, 32, 60, 60):
        rig.fail(m.Discover, reason="boom")
        assert rig.states()["disks"] == ("failed", "discover: boom")
        rig.wait(pause - 0.01)
        assert rig.count("disks", m.Discover) == 0
        rig.wait(0.01)
    rig.find(rig.disk(0))
    assert rig.states()["disks"] == ("running", "")
    assert reports(rig) == [
        ("disks", "running", ""),
        ("disks", "failed", "discover: boom"),
        ("disks", "running", ""),
    ]
    rig.wait(300)
    rig.fail(m.Discover)
    rig.wait(1)
    assert rig.count("disks", m.Discover) == 1, "a success makes the back-off short again"


def test_failed_discovery_marks_nothing_gone(rig: Any) -> None:
    running(rig)
    rig.wait(300)
    rig.fail(m.Discover)
    assert "gone" not in rig.stored().values()


def test_hanging_discovery_is_failed_at_its_deadline_and_not_piled_up(rig: Any) -> None:
    rig.boot("disks")
    rig.describe()
    rig.wait(9.9)
    assert rig.states()["disks"][0] == "discovering"
    rig.wait(0.1)
    assert rig.states()["disks"] == ("failed", "discover: no answer within 10 s")
    rig.take("disks", m.Discover)
    rig.wait(19)
    assert rig.count("disks", m.Discover) == 0
    rig.wait(1)
    assert rig.count("disks", m.Discover) == 1


def test_late_discovery_is_written_when_it_comes(rig: Any) -> None:
    rig.boot("disks")
    rig.describe()
    order = rig.take("disks", m.Discover)
    assert rig.ask(1, m.DiscoverAll(0.5)) is None
    rig.wait(0.5)
    assert rig.replies[1] == [{"name": "disks", "state": "late", "reason": ""}]
    rig.wait(12)
    assert rig.states()["disks"][0] == "failed"
    rig.hear("disks", m.Discovered(order.id, (rig.disk(4),), "2026-03-01T12:00:09Z"))
    assert rig.stored() == {4: {}}
    assert rig.states()["disks"] == ("running", "")


def test_end_of_an_overdue_call_names_the_line_and_frees_the_next_try(rig: Any) -> None:
    rig.boot("disks")
    rig.describe()
    order = rig.take("disks", m.Discover)
    rig.wait(10.5)
    rig.hear("disks", m.CallFailed(order.id, "core.timeout", "discover: no answer within 10 s (at disks.py:7)"))
    assert rig.states()["disks"] == ("failed", "discover: no answer within 10 s (at disks.py:7)")
    rig.wait(1)
    assert rig.count("disks", m.Discover) == 1


def test_answer_of_a_former_call_is_ignored(rig: Any) -> None:
    rig.boot("disks")
    rig.describe()
    old = rig.take("disks", m.Discover)
    rig.feed(m.ControllerAppeared("disks"))
    rig.describe()
    rig.hear("disks", m.Discovered(old.id, (rig.disk(9),), "x"))
    assert rig.stored() == {} and rig.states()["disks"][0] == "discovering"


def test_one_bad_controller_does_not_touch_another(rig: Any) -> None:
    rig.boot("disks", "fans")
    fan = rig.disk_class(name="Fan", controller="fans")
    rig.describe("disks")
    rig.describe("fans", fan)
    rig.fail(m.Discover, "disks")
    rig.find({"class": "Fan", "key": {"Slot": 5}, "attributes": {}}, name="fans")
    assert rig.stored() == {5: {}}
    assert rig.states()["fans"] == ("running", "") and rig.states()["disks"][0] == "failed"


def test_gone_controller_is_reported_and_asked_for_its_classes_when_back(rig: Any) -> None:
    running(rig)
    rig.orders.clear()
    rig.feed(m.ControllerGone("disks", "killed by signal 9"))
    assert rig.states()["disks"] == ("failed", "killed by signal 9")
    assert reports(rig)[-1] == ("disks", "failed", "killed by signal 9")
    rig.feed(m.ControllerAppeared("disks"))
    rig.describe("disks", rig.disk_class(version=2))
    rig.find(rig.disk(0, Model="A"), rig.disk(1, Model="B"))
    assert {value["version"] for value, _ in rig.registry.values.values()} == {2}
    assert reports(rig)[-1] == ("disks", "running", "")


def test_return_that_goes_unheard_is_found_by_trying(rig: Any) -> None:
    running(rig)
    read = rig.take("disks", m.Read)
    rig.hear("disks", m.CallFailed(read.id, "bus.no_service", "no such service"))
    assert rig.states()["disks"][0] == "failed"
    rig.wait(1)
    rig.describe()
    rig.find(rig.disk(0))
    assert rig.states()["disks"] == ("running", "")


def test_controller_that_did_not_start_is_listed_and_not_called(rig: Any) -> None:
    rig.feed(m.Opened())
    rig.feed(m.ControllersListed((m.Entry("gpu", "failed", "import: no driver"),)))
    rig.wait(1000)
    assert not rig.orders
    (row,) = rig.ask(1, m.Standing())
    assert (row["state"], row["reason"]) == ("failed", "import: no driver")
    rig.feed(m.ControllerAppeared("gpu"))
    assert rig.count("gpu", m.Describe) == 1


def test_started_controller_is_awaited_and_missed_in_time(rig: Any) -> None:
    rig.feed(m.Opened())
    rig.feed(m.ControllersListed((m.Entry("disks", "starting"), m.Entry("gpu", "starting"))))
    rig.wait(3)
    assert not rig.orders and not reports(rig), "loading a package may take a while"
    rig.feed(m.ControllerAppeared("disks"))
    rig.describe()
    rig.find()
    rig.wait(27)
    rig.fail(m.Describe, "gpu", "no service 'controller.gpu'", "bus.no_service")
    assert rig.states()["gpu"] == ("failed", "no service 'controller.gpu'")
    assert reports(rig) == [("disks", "running", ""), ("gpu", "failed", "no service 'controller.gpu'")]


def test_classes_are_reported_with_the_state(rig: Any) -> None:
    running(rig)
    assert (
        rig.told.index(("plugin_state", {"name": "disks", "state": "running", "reason": "", "classes": ["Disk"]})) > 0
    )


def test_impossible_transition_names_controller_and_state() -> None:
    supervision = Supervision("disks", 1, Settings(), lambda: "1")
    with pytest.raises(ImpossibleTransition, match="disks: 'discovered' while starting"):
        supervision._become("discovered")


def test_every_state_is_reached_and_left_by_the_table() -> None:
    states = {"starting", "discovering", "running", "failed"}
    assert {state for state, _ in TRANSITIONS} == set(TRANSITIONS.values()) == states
    assert all((state, "appeared") in TRANSITIONS and (state, "failed") in TRANSITIONS for state in states)


# --- what the join and `refresh` ask --------------------------------------------------------------------------


def test_join_waits_until_controllers_are_known_and_written(rig: Any) -> None:
    rig.feed(m.Opened())
    assert rig.ask(1, m.DiscoverAll(0.5)) is None, "no controller listed yet does not mean: none there"
    rig.feed(m.ControllersListed((m.Entry("disks"), m.Entry("gpu", "failed", "no driver"))))
    rig.describe()
    rig.open = False
    rig.find(rig.disk(0))
    assert 1 not in rig.replies, "found is not written"
    rig.answer_registry()
    assert rig.replies[1] == [
        {"name": "disks", "state": "done", "reason": ""},
        {"name": "gpu", "state": "failed", "reason": "no driver"},
    ]


def test_join_after_the_first_discovery_is_answered_at_once(rig: Any) -> None:
    running(rig)
    assert rig.ask(1, m.DiscoverAll(0.5)) == [{"name": "disks", "state": "done", "reason": ""}]
    assert rig.count("disks", m.Discover) == 0


def test_refresh_discovers_again_and_looks_at_the_registry_again(rig: Any) -> None:
    running(rig, rig.disk(0))
    rig.registry.values.clear()
    assert rig.ask(1, m.DiscoverAll(10, again=True)) is None
    rig.find(rig.disk(0))
    assert rig.replies[1] == [{"name": "disks", "state": "done", "reason": ""}]
    assert rig.stored() == {0: {}}, "what somebody deleted is there again"


def test_refresh_of_a_failing_controller_says_failed(rig: Any) -> None:
    running(rig, rig.disk(0))
    rig.ask(1, m.DiscoverAll(10, again=True))
    rig.fail(m.Discover)
    assert rig.replies[1] == [{"name": "disks", "state": "failed", "reason": "discover: boom"}]


def test_class_without_interval_is_discovered_only_when_asked(rig: Any) -> None:
    rig.boot("disks")
    rig.describe("disks", rig.disk_class(discover_every=0.0))
    rig.find(rig.disk(0))
    rig.orders.clear()
    rig.wait(3600)
    assert rig.count("disks", m.Discover) == 0
    rig.ask(1, m.DiscoverAll(10, again=True))
    assert rig.count("disks", m.Discover) == 1


# --- boot steps and class versions ----------------------------------------------------------------------------


def steps(rig: Any) -> list[tuple[int, str]]:
    return [(body["step"], body["how"]) for what, body in rig.told if what == "boot_step"]


def test_boot_steps_come_once_in_order(rig: Any) -> None:
    rig.boot("disks", "fans")
    rig.describe("disks")
    assert steps(rig) == [(22, "done")]
    rig.find(rig.disk(0))
    assert steps(rig) == [(22, "done"), (23, "done")]
    rig.fail(m.Describe, "fans")
    assert steps(rig) == [(22, "done"), (23, "done"), (24, "done")]
    last = next(body for what, body in rig.told if what == "boot_step" and body["step"] == 24)
    assert last["event"] == "1 of 2 controllers ready, failed: fans"


def test_boot_steps_keep_their_order_when_the_first_controller_has_no_class(rig: Any) -> None:
    rig.boot("disks", "nothing")
    rig.hear("nothing", m.Described(rig.take("nothing", m.Describe).id, ()))
    rig.find(name="nothing")
    assert steps(rig) == [(22, "done"), (23, "done")]


def test_boot_steps_are_said_to_have_failed_where_no_controller_works(rig: Any) -> None:
    rig.boot("disks")
    rig.fail(m.Describe)
    assert steps(rig) == [(22, "failed"), (23, "failed"), (24, "failed")]


def test_boot_steps_without_any_controller_are_done(rig: Any) -> None:
    rig.boot()
    assert steps(rig) == [(22, "done"), (23, "done"), (24, "done")]
    assert rig.ask(1, m.DiscoverAll(0.5)) == []


def test_loaded_is_told_once(rig: Any) -> None:
    rig.feed(m.Opened())
    rig.feed(m.Opened())
    assert [what for what, _ in rig.told].count("loaded") == 1


def test_versions_are_told_when_they_change(rig: Any) -> None:
    rig.feed(m.ClassesKnown({"Disk": (1, "aaaa", "disks"), "Gpu": (1, "bbbb", "gpu")}))
    assert rig.told[-1][0] == "tell_classes" and sorted(rig.told[-1][1]) == ["Disk", "Gpu"]
    running(rig)
    told = [body for what, body in rig.told if what == "tell_classes"]
    assert sorted(told[1]) == ["Disk", "Gpu"] and told[1]["Disk"][1] != "aaaa"
    assert sorted(told[-1]) == ["Disk"], "after the boot, only what a controller really has"


def test_members_who_told_before_are_asked_until_they_answer(rig: Any) -> None:
    rig.feed(m.MembersChanged((1, 2, 3)))
    rig.feed(Received(Address("resources", 2), m.ClassVersions(2, {"Disk": (1, "aaaa", "disks")})))
    asked = [effect.to.node for effect in rig.sent if isinstance(effect.message, m.AskVersions)]
    assert asked == [2, 3]
    rig.sent.clear()
    rig.wait(2)
    assert [effect.to.node for effect in rig.sent] == [3]
    rig.feed(Received(Address("resources", 3), m.ClassVersions(3, {"Disk": (2, "cccc", "disks")})))
    rig.sent.clear()
    rig.wait(60)
    assert not rig.sent and rig.machine.deadline is None


def test_question_for_versions_is_answered(rig: Any) -> None:
    rig.feed(Received(Address("resources", 2), m.AskVersions()))
    assert not rig.sent, "before step 19 there is nothing to say"
    rig.feed(m.ClassesKnown({"Disk": (1, "aaaa", "disks")}))
    rig.feed(Received(Address("resources", 2), m.AskVersions()))
    assert rig.sent[-1].to == Address("resources", 2)
    assert rig.sent[-1].message == m.ClassVersions(1, {"Disk": (1, "aaaa", "disks")})


def test_classes_lists_nodes_and_names_differences(rig: Any) -> None:
    rig.feed(m.MembersChanged((1, 2, 3, 4)))
    for node, version in ((1, 1), (2, 1), (3, 2)):
        rig.feed(
            Received(Address("resources", node), m.ClassVersions(node, {"Disk": (version, f"{version}" * 16, "disks")}))
        )
    answer = rig.ask(1, m.ListClasses())
    assert answer["items"] == [
        {"class": "Disk", "version": 1, "controller": "disks", "nodes": [1, 2]},
        {"class": "Disk", "version": 2, "controller": "disks", "nodes": [3]},
    ]
    assert answer["warnings"] == [
        "class Disk differs between nodes: version 1 (11111111) on nodes 1, 2; version 2 (22222222) on node 3",
        "node 4 did not say yet which classes they have",
    ]
    rig.feed(m.MembersChanged((1, 2)))
    assert rig.ask(2, m.ListClasses())["warnings"] == []


def test_description_of_a_class(rig: Any) -> None:
    running(rig)
    assert rig.ask(1, m.DescribeClass("Disk"))["name"] == "Disk"
    assert rig.ask(2, m.DescribeClass("Fan")).code == "resource.not_found"


def test_effects_are_told_in_one_step(rig: Any) -> None:
    effects = rig.feed(m.ClassesKnown({"Disk": (1, "aaaa", "disks")}))
    assert [type(effect) for effect in effects] == [Notify]
