"""Setting, defining, removing and running: what the controller is told, what is stored, what the caller hears."""

from __future__ import annotations

from typing import Any

import pytest
from covey import errors
from covey.bus.machine import Asked, ImpossibleTransition
from covey.components.resources import messages as m
from covey.components.resources.changing import TRANSITIONS, Ongoing
from covey.components.resources.settings import Settings
from covey.controllers.classes import Action, Attribute, ClassDescription, Field, resource_id
from hypothesis import given
from hypothesis import strategies as st


def changeable(rig: Any) -> ClassDescription:
    """Return a class with everything that can be changed."""
    found: ClassDescription = rig.disk_class(
        attributes=(
            Attribute(name="Slot", type="uint32", kind="persistent"),
            Attribute(name="Model", type="string", kind="persistent", default="none", has_default=True),
            Attribute(name="Limit", type="float64", kind="persistent", unit="W", writable=True),
            Attribute(name="Cache", type="bool", kind="persistent", writable=True, default=True, has_default=True),
            Attribute(name="Pin", type="string", kind="persistent", sensitive=True, writable=True),
            Attribute(name="Used", type="float64", kind="dynamic"),
        ),
        actions=(
            Action(
                name="Format",
                arguments=(Field(name="Fast", type="bool", default=False, has_default=True),),
                result=(Field(name="Took", type="duration"),),
                deadline=5.0,
                effects=("Used",),
            ),
            Action(name="Rename", effects=("Model",)),
        ),
    )
    return found


@pytest.fixture
def disk(rig: Any) -> ClassDescription:
    return changeable(rig)


@pytest.fixture
def running(rig: Any, disk: ClassDescription) -> Any:
    """The rig after a boot, with two disks in the registry."""
    rig.boot("disks")
    rig.describe("disks", disk)
    rig.find(rig.disk(0, Model="A"), rig.disk(1, Model="B", Cache=None))
    return rig


def test_what_a_discovery_does_not_say_has_its_default_and_null_is_said(running: Any) -> None:
    assert running.stored() == {0: {"Model": "A", "Cache": True}, 1: {"Model": "B", "Cache": None}}


def test_a_set_is_told_to_the_controller_and_answered_when_it_is_stored(running: Any) -> None:
    running.open = False
    order = running.change(1, "set", values={"Limit": "180W", "Cache": "false", "Pin": "77"}, as_text=True)
    assert (order.verb, order.deadline) == ("set", 10.0)
    assert order.arguments == {
        "cls": "Disk",
        "key": {"Slot": 0},
        "values": {"Limit": 180.0, "Cache": False, "Pin": "77"},
    }
    running.changed(order, attributes={"Limit": 175.0, "Used": 3.0})
    assert 1 not in running.replies
    running.changed(order, attributes={"Limit": 1.0})  # a duplicate
    running.hear("disks", m.CallFailed(order.id, "plugin.failed", "a late one"))
    (write,) = running.held
    assert [(value["key"], value["attributes"]) for _, value in write.puts] == [
        ({"Slot": 0}, {"Model": "A", "Limit": 175.0, "Cache": False})
    ]
    assert len(write.compare) == 1 and write.compare[0][1] == 1, "at the revision at which it was read"
    running.answer_registry()
    row = running.replies[1]
    assert row["attributes"] == {"Slot": 0, "Model": "A", "Limit": 175.0, "Cache": False, "Used": 3.0}
    assert (row["node"], row["warnings"]) == (1, [])
    assert "77" not in str(running.registry.values), "what is sensitive is stored nowhere"


def test_what_was_set_stays_when_the_next_discovery_does_not_say_it(running: Any, new_rig: Any, disk: Any) -> None:
    running.changed(running.change(1, "set", values={"Limit": 180, "Cache": False}))
    running.wait(300)
    running.find(running.disk(0, Model="A"), running.disk(1, Model="B", Cache=None))
    assert running.stored()[0] == {"Model": "A", "Limit": 180.0, "Cache": False}
    later = new_rig()
    later.registry.values, later.registry.revision = running.registry.values, running.registry.revision
    later.boot("disks")
    later.describe("disks", disk)
    later.find(later.disk(0, Limit=90.0), later.disk(1))
    assert later.stored()[0] == {"Model": "none", "Limit": 90.0, "Cache": False}, "what it does say counts"


@pytest.mark.parametrize(
    ("what", "more", "error", "says"),
    [
        ("set", {"values": {"Limt": 3}}, errors.BadAttribute, "did you mean 'Limit'?"),
        ("set", {"values": {"Model": "x"}}, errors.BadAttribute, "Model cannot be set"),
        ("set", {"values": {"Limit": "x"}}, errors.BadAttribute, "no float64"),
        ("set", {"values": {}}, errors.BadAttribute, "no attribute"),
        ("set", {"values": {"Limit": 3}, "slot": 9}, errors.ResourceNotFound, "no Disk with the id"),
        ("undefine", {"slot": 9}, errors.ResourceNotFound, "no Disk with the id"),
        ("define", {"values": {"Slot": 0}, "slot": None}, errors.ResourceExists, "is there already"),
        ("define", {"values": {}, "slot": None}, errors.BadAttribute, "Slot .uint32. is missing"),
        ("run", {"action": "Fromat"}, errors.ResourceNotFound, "no action"),
        ("run", {"action": "Format", "values": {"Fst": True}}, errors.BadAttribute, "did you mean 'Fast'?"),
    ],
)
def test_what_cannot_be_never_reaches_the_controller(running: Any, what: Any, more: Any, error: Any, says: str) -> None:
    refused = running.change(1, what, **more)
    with pytest.raises(error, match=says):
        raise refused
    assert running.count("disks", m.Change) == 0 and running.machine.changes.ongoing == []


def test_a_class_that_is_not_here(running: Any) -> None:
    refused = running.ask(1, m.ChangeOne("set", "Tape", "1-x", {"A": 1}))
    assert isinstance(refused, errors.ResourceNotFound)


@pytest.mark.parametrize("code", ["resource.retry", "resource.failed", "plugin.failed", "bus.service_died"])
def test_the_kinds_of_error_are_told_apart(running: Any, code: str) -> None:
    order = running.change(1, "set", values={"Limit": 3})
    running.hear("disks", m.CallFailed(order.id, code, "it is hot", "cool it"))
    problem = running.replies[1]
    assert (problem.code, problem.message, problem.hint) == (code, "it is hot", "cool it")
    assert running.stored()[0] == {"Model": "A", "Cache": True}


def test_what_a_controller_answers_amiss_is_named_and_not_passed_on(running: Any) -> None:
    order = running.change(1, "set", values={"Limit": 3})
    running.changed(order, attributes={"Limit": "much", "Heat": 3}, findings=({"message": "said before"},))
    row = running.replies[1]
    assert row["attributes"]["Limit"] == 3.0, "what was asked for holds"
    assert row["warnings"][0] == "said before"
    assert "Disk.Limit: 'much' is no float64" in row["warnings"] and "'Heat'" in str(row["warnings"])


def test_defining_and_removing(running: Any) -> None:
    order = running.change(1, "define", slot=None, values={"Slot": 5, "Limit": 9})
    values = {"Limit": 9.0, "Cache": True}
    assert (order.verb, order.arguments) == ("define", {"cls": "Disk", "key": {"Slot": 5}, "values": values})
    running.changed(order, attributes={"Model": "new"})
    assert running.stored()[5] == {"Model": "new", **values}
    assert running.replies[1]["key"] == {"Slot": 5}
    order = running.change(2, "undefine", slot=5)
    running.changed(order, at="2026-03-01T13:00:00Z")
    assert running.stored()[5] == "gone"
    assert [value["since"] for value, _ in running.registry.values.values() if value["gone"]] == [
        "2026-03-01T13:00:00Z"
    ]
    assert running.replies[2]["warnings"] == []
    assert isinstance(running.change(3, "undefine", slot=5), errors.ResourceNotFound)


def test_an_action_has_its_own_deadline_its_result_is_checked_and_what_it_changes_is_read(running: Any) -> None:
    while running.count("disks", m.Read):
        running.hear("disks", m.Values(running.take("disks", m.Read).id, {"Used": 1.0}))
    order = running.change(1, "run", action="Format", values={"Fast": "true"}, as_text=True)
    assert (order.verb, order.deadline) == ("action", 5.0)
    assert order.arguments == {"cls": "Disk", "key": {"Slot": 0}, "name": "Format", "arguments": {"Fast": True}}
    running.changed(order, result={"Took": 2, "Heat": 3})
    answer = running.replies[1]
    assert (answer["action"], answer["result"]) == ("Format", {"Took": 2.0})
    assert "'Heat'" in answer["warnings"][0]
    assert running.take("disks", m.Read).key == {"Slot": 0}, "Used is read again"
    running.changed(running.change(2, "run", action="Rename"))
    assert running.replies[2]["result"] == {}
    assert running.count("disks", m.Discover) == 1, "Model is looked for again"


def test_changes_of_one_resource_wait_for_each_other_and_others_do_not(running: Any) -> None:
    first = running.change(1, "set", values={"Limit": 1})
    assert running.change(2, "set", values={"Limit": 2}) is None
    other = running.change(3, "set", slot=1, values={"Limit": 3})
    running.changed(other)
    assert running.replies[3]["attributes"]["Limit"] == 3.0
    running.changed(first)
    second = running.take("disks", m.Change)
    running.changed(second)
    assert [running.replies[number]["attributes"]["Limit"] for number in (1, 2)] == [1.0, 2.0]
    assert running.stored()[0]["Limit"] == 2.0


def test_a_silent_controller_is_given_up_and_its_late_answer_still_counts(running: Any) -> None:
    order = running.change(1, "set", values={"Limit": 1})
    running.wait(13)
    assert isinstance(running.replies[1], errors.Timeout)
    running.changed(order)
    assert running.stored()[0]["Limit"] == 1.0
    running.changed(order)  # a duplicate


def test_a_registry_that_does_not_take_it_is_told_and_gets_it_later(running: Any) -> None:
    running.open = False
    running.changed(running.change(1, "set", values={"Limit": 1}))
    running.wait(11)
    assert isinstance(running.replies[1], errors.Timeout) and "not in the registry yet" in running.replies[1].message
    running.answer_registry()
    assert running.stored()[0]["Limit"] == 1.0


def test_somebody_else_changed_the_key_meanwhile(running: Any) -> None:
    order = running.change(1, "set", values={"Limit": 1})
    (path,) = [key for key, (value, _) in running.registry.values.items() if value["key"] == {"Slot": 0}]
    running.registry.put(path, {**running.registry.values[path][0], "attributes": {"Model": "forged"}})
    running.changed(order)
    assert running.stored()[0] == {"Model": "A", "Cache": True, "Limit": 1.0}
    assert running.replies[1]["attributes"]["Limit"] == 1.0


def test_a_discovery_that_began_before_a_change_does_not_undo_it(running: Any) -> None:
    running.changed(running.change(1, "set", values={"Limit": 5}))
    running.wait(300)
    discover = running.take("disks", m.Discover)
    running.changed(running.change(2, "set", values={"Limit": 6}))
    running.changed(running.change(3, "define", slot=None, values={"Slot": 7}))
    running.changed(running.change(4, "undefine", slot=1))
    found = (running.disk(0, Model="A", Limit=5.0), running.disk(1, Model="B"))
    running.hear("disks", m.Discovered(discover.id, found, "2026-03-01T12:05:00Z"))
    assert running.stored()[0]["Limit"] == 6.0 and running.stored()[1] == "gone" and 7 in running.stored()
    running.find(running.disk(0, Model="A", Limit=4.0), running.disk(7))  # it looked again, at once
    assert running.stored()[0]["Limit"] == 4.0


def test_a_controller_that_starts_anew_loses_no_change(running: Any) -> None:
    running.open = False
    running.changed(running.change(1, "set", values={"Limit": 5}))
    running.feed(m.ControllerGone("disks", "its process is gone"))
    running.feed(m.ControllerAppeared("disks"))
    running.open = True
    running.answer_registry()
    assert running.stored()[0]["Limit"] == 5.0 and running.replies[1]["attributes"]["Limit"] == 5.0
    assert running.machine.controllers["disks"].outcome is None, "its discovery is still to come"


def test_a_selection_gives_what_matches_whole_and_why_reads_failed(running: Any) -> None:
    for read in (running.take("disks", m.Read), running.take("disks", m.Read)):
        good = read.key == {"Slot": 0}
        failed = m.CallFailed(read.id, "resource.retry", "no answer")
        running.hear("disks", m.Values(read.id, {"Used": 90.0}) if good else failed)
    found = running.ask(1, m.SelectLocal("Disk", "Used > 80 || Slot == 9"))
    assert [(row["key"], row["attributes"]["Model"]) for row in found["items"]] == [({"Slot": 0}, "A")]
    assert found["items"][0]["attributes"] == {"Slot": 0, "Model": "A", "Cache": True, "Used": 90.0}
    assert found["reasons"] == ["no answer"]
    assert [row["node"] for row in running.ask(2, m.SelectLocal("Disk", "Cache"))["items"]] == [1]
    refused = running.ask(3, m.SelectLocal("Disk", "Usd > 80"))
    assert isinstance(refused, errors.BadExpression) and "did you mean Used?" in refused.hint
    assert isinstance(running.ask(4, m.SelectLocal("Disk", 'Pin == "7"')), errors.BadExpression)
    assert isinstance(running.ask(5, m.SelectLocal("Tape", "Slot == 1")), errors.ResourceNotFound)


def test_a_fresh_selection_judges_what_was_read_for_it(running: Any) -> None:
    while running.count("disks", m.Read):
        running.hear("disks", m.Values(running.take("disks", m.Read).id, {"Used": 1.0}))
    running.ask(1, m.SelectLocal("Disk", "Used > 80", fresh=True, wait=5.0))
    assert 1 not in running.replies
    while running.count("disks", m.Read):
        running.hear("disks", m.Values(running.take("disks", m.Read).id, {"Used": 99.0}))
    assert len(running.replies[1]["items"]) == 2


def test_watchers_hear_what_changes_dynamic_attributes_too(running: Any) -> None:
    running.ask(1, m.WatchLocal("Disk", "Used > 50 || Limit == 7", wait=10.0))
    running.ask(2, m.WatchLocal("Disk", wait=10.0))
    assert running.replies == {}
    while running.count("disks", m.Read):
        read = running.take("disks", m.Read)
        running.hear("disks", m.Values(read.id, {"Used": 90.0 if read.key["Slot"] else 1.0}))
    (event,) = running.replies[1]["events"]
    assert (event["type"], event["key"], event["changed"]) == ("changed", {"Slot": 1}, ["Used"])
    assert event["attributes"] == {"Slot": 1, "Model": "B", "Cache": None, "Used": 90.0}
    behind = {"token": running.replies[1]["token"], "since": running.replies[1]["to"]}
    assert len(running.replies[2]["events"]) == 1, "it was answered at the first change"
    running.changed(running.change(3, "set", values={"Limit": 7}))
    running.ask(4, m.WatchLocal("Disk", "Limit == 7", **behind))
    assert [each["changed"] for each in running.replies[4]["events"]] == [["Limit"]]
    running.wait(300)
    running.ask(5, m.WatchLocal("Disk", token=behind["token"], since=running.replies[4]["to"]))
    running.find(running.disk(0, Model="A"), running.disk(2))
    assert {each["type"]: each["key"]["Slot"] for each in running.replies[5]["events"]} == {"appeared": 2, "gone": 1}
    running.ask(6, m.WatchLocal("Disk", wait=3.0))
    running.wait(4)
    assert running.replies[6] == {**running.replies[5], "events": []}
    assert isinstance(running.ask(7, m.WatchLocal("Disk", "Usd > 3")), errors.BadExpression)


def test_a_watcher_that_was_too_slow_or_saw_another_run_is_told(running: Any, new_rig: Any, disk: Any) -> None:
    small = new_rig(Settings(watch_ring=1, watch_events=5))
    small.boot("disks")
    small.describe("disks", disk)
    small.ask(9, m.WatchLocal("Disk", wait=0.0))
    small.find(small.disk(0), small.disk(1), small.disk(2))
    answer = small.ask(1, m.WatchLocal("Disk", token="run", since=0))
    assert (answer["missed"], len(answer["events"]), answer["to"]) == (2, 1, 3)
    answer = small.ask(2, m.WatchLocal("Disk", token="before", since=70))
    assert (answer["missed"], len(answer["events"]), answer["token"]) == (1, 1, "run")
    small.wait(300)
    small.find(small.disk(0), small.disk(1))
    answer = small.ask(3, m.WatchLocal("Disk", token="run", since=3))
    assert (answer["missed"], answer["events"], answer["to"]) == (1, [], 4), "where nobody watches nothing is kept"


STEPS = st.sampled_from(
    [
        "set",
        "define",
        "undefine",
        "run",
        "answer",
        "answer",
        "again",
        "fail",
        "find",
        "begin",
        "gone",
        "wait",
        "registry",
    ]
)


@given(st.lists(st.tuples(STEPS, st.integers(0, 2)), max_size=30))
def test_whatever_happens_each_change_is_answered_once_and_the_registry_holds_what_is_there(
    new_rig: Any, steps: list[tuple[str, int]]
) -> None:
    rig = new_rig()
    rig.boot("disks")
    rig.describe("disks", changeable(rig))
    there: dict[int, float] = {0: 0.0, 1: 0.0}
    rig.find(*(rig.disk(slot, Limit=limit) for slot, limit in there.items()))
    asked, answered = 0, []

    def carry_out(order: m.Change) -> None:
        slot = order.arguments["key"]["Slot"]
        if order.verb == "undefine":
            there.pop(slot, None)
        elif order.verb != "action":
            there[slot] = order.arguments["values"].get("Limit", there.get(slot, 0.0))
        answered.append(order)
        attributes = {"Limit": there[slot]} if order.verb in ("set", "define") else None
        rig.changed(order, attributes=attributes, result={"Took": 1})

    def look() -> None:
        while rig.count("disks", m.Describe):
            rig.describe("disks", changeable(rig))
        while rig.count("disks", m.Discover):
            rig.find(*(rig.disk(slot, Limit=limit) for slot, limit in sorted(there.items())))

    for step, slot in steps:
        orders = [order for _, order in rig.orders if isinstance(order, m.Change)]
        if step in ("set", "define", "undefine", "run"):
            asked += 1
            values = {"Limit": float(asked)} if step != "run" else {}
            identity = resource_id(1, {"Slot": slot})
            values |= {"Slot": slot} if step == "define" else {}
            action = "Format" if step == "run" else ""
            rig.feed(Asked(asked, m.ChangeOne(step, "Disk", identity, values, action)))  # type: ignore[arg-type]
        elif step == "answer" and orders:
            carry_out(rig.take("disks", m.Change))
        elif step == "again" and answered:
            rig.changed(answered[-1])
        elif step == "fail" and orders:
            rig.fail(m.Change, code="resource.retry")
        elif step == "find":
            look()
        elif step == "begin":
            rig.wait(300)
        elif step == "gone":
            rig.feed(m.ControllerGone("disks", "killed"))
            rig.feed(m.ControllerAppeared("disks"))
        elif step == "wait":
            rig.wait(13)
        elif step == "registry":
            rig.open = not rig.open
            rig.answer_registry()
    rig.open = True
    rig.answer_registry()
    while rig.count("disks", m.Change):
        carry_out(rig.take("disks", m.Change))
    rig.wait(120)
    look()
    rig.wait(400)
    look()
    rig.wait(120)
    assert sorted(rig.replies) == list(range(1, asked + 1))
    stored = {slot: value["Limit"] for slot, value in rig.stored().items() if value != "gone"}
    assert stored == there


def test_what_no_table_has_is_impossible() -> None:
    change = Ongoing(1, "", m.ChangeOne("run", "Disk"), "/resources/Disk/1-x", {}, "o", 0.0)
    with pytest.raises(ImpossibleTransition, match="'written' while waiting"):
        change.become("written")
    assert {state for pair in TRANSITIONS.items() for state in (pair[0][0], pair[1])} == {
        "waiting",
        "calling",
        "writing",
        "over",
    }
