"""Dynamic attributes: when they are read, how old they are, what a failing read does."""

from __future__ import annotations

from typing import Any

from covey.components.resources import messages as m
from covey.components.resources.settings import Settings


def running(rig: Any, *slots: int, **changes: Any) -> None:
    rig.boot("disks")
    rig.describe("disks", rig.disk_class(**changes))
    rig.find(*(rig.disk(slot) for slot in slots or (0,)))


def values(rig: Any, **attributes: Any) -> None:
    rig.hear("disks", m.Values(rig.take("disks", m.Read).id, attributes))


def rows(rig: Any, number: int = 1, **more: Any) -> Any:
    return rig.ask(number, m.ReadLocal("Disk", **more))


def test_a_new_resource_is_read_at_once_and_then_at_each_multiple_of_its_interval(rig: Any) -> None:
    running(rig)
    for wait in (30.0 - rig.now % 30.0, 30.0):
        values(rig, Used=1.0)
        rig.wait(wait - 0.1)
        assert rig.count("disks", m.Read) == 0
        rig.wait(0.1)
        assert rig.count("disks", m.Read) == 1


def test_interval_of_the_nodes_file_wins(new_rig: Any) -> None:
    rig = new_rig(Settings(polls={"disks": 5.0}))
    running(rig)
    values(rig, Used=1.0)
    rig.wait(5)
    assert rig.count("disks", m.Read) == 1


def test_without_interval_it_is_read_once_a_discovery(rig: Any) -> None:
    running(rig, poll_every=0.0)
    values(rig, Used=1.0)
    rig.wait(299)
    assert not rig.orders
    rig.wait(1)
    rig.find(rig.disk(0))
    assert rig.count("disks", m.Read) == 1


def test_class_without_dynamic_attributes_is_never_read(rig: Any) -> None:
    still = tuple(one for one in rig.disk_class().attributes if one.kind == "persistent")
    running(rig, attributes=still)
    rig.wait(299)
    assert rig.count("disks", m.Read) == 0
    assert rows(rig)[0]["age_s"] == 299.0
    assert rows(rig, 2, fresh=True)[0]["age_s"] == 299.0, "there is nothing to wait for"


def test_values_come_with_their_age(rig: Any) -> None:
    running(rig)
    rig.wait(1)
    values(rig, Used=41.5)
    rig.wait(7)
    (row,) = rows(rig)
    assert row == {"id": row["id"], "attributes": {"Used": 41.5}, "age_s": 7.0, "reason": ""}


def test_first_values_of_a_discovery_count_until_a_read(rig: Any) -> None:
    rig.boot("disks")
    rig.describe()
    rig.find(rig.disk(0, Used=1.0))
    assert rows(rig)[0]["attributes"] == {"Used": 1.0}
    values(rig, Used=2.0)
    assert rows(rig, 2)[0]["attributes"] == {"Used": 2.0}


def test_reads_under_way_are_bounded(new_rig: Any) -> None:
    rig = new_rig(Settings(reads_at_once=2))
    running(rig, *range(7))
    assert rig.count("disks", m.Read) == 2
    for _ in range(7):
        values(rig, Used=1.0)
    assert not rig.orders and len(rows(rig)) == 7


def test_fresh_waits_for_reads_that_begin_after_it_was_asked(rig: Any) -> None:
    running(rig, 0, 1)
    values(rig, Used=1.0)
    values(rig, Used=1.0)
    rig.wait(10)
    assert rows(rig, fresh=True, wait=2.0) is None
    values(rig, Used=2.0)
    assert 1 not in rig.replies
    values(rig, Used=2.0)
    assert [(row["attributes"]["Used"], row["age_s"]) for row in rig.replies[1]] == [(2.0, 0.0), (2.0, 0.0)]


def test_fresh_goes_before_what_is_only_due(new_rig: Any) -> None:
    rig = new_rig(Settings(reads_at_once=1))
    running(rig, *range(5))
    everything = rows(rig)
    last = everything[-1]["id"]
    rows(rig, 2, fresh=True, ids=(last,))
    values(rig, Used=1.0)
    values(rig, Used=9.0)
    (row,) = rig.replies[2]
    assert row["id"] == last and row["attributes"]["Used"] in (1.0, 9.0)


def test_fresh_is_answered_with_what_there_is_when_its_time_is_over(rig: Any) -> None:
    running(rig)
    values(rig, Used=1.0)
    rig.wait(10)
    rows(rig, fresh=True, wait=2.0)
    rig.wait(2)
    (row,) = rig.replies[1]
    assert (row["attributes"], row["age_s"]) == ({"Used": 1.0}, 12.0)


def test_one_resource_that_fails_keeps_its_reason_and_holds_up_no_other(rig: Any) -> None:
    running(rig, 0, 1)
    rig.fail(m.Read, reason="mount is dead")
    values(rig, Used=1.0)
    assert rig.states()["disks"] == ("running", "")
    assert sorted(row["reason"] for row in rows(rig)) == ["", "mount is dead"]
    reports = [body for what, body in rig.told if what == "plugin_state"]
    assert reports[-1]["state"] == "running" and "mount is dead" in reports[-1]["reason"]


def test_controller_fails_when_nothing_can_be_read_and_recovers_with_one_read(rig: Any) -> None:
    running(rig, 0, 1)
    rig.fail(m.Read, reason="no bus")
    rig.fail(m.Read, reason="no bus")
    state, reason = rig.states()["disks"]
    assert state == "failed" and reason.startswith("Disk '") and reason.endswith("no bus")
    rig.wait(1)
    values(rig, Used=1.0)
    assert rig.states()["disks"] == ("running", "")


def test_failing_reads_come_at_growing_intervals(rig: Any) -> None:
    running(rig)
    for pause in (1, 2, 4, 8):
        rig.fail(m.Read)
        rig.wait(pause - 0.01)
        assert rig.count("disks", m.Read) == 0
        rig.wait(0.01)
    assert rig.count("disks", m.Read) == 1


def test_hanging_read_is_given_up_and_its_late_answer_ignored(rig: Any) -> None:
    running(rig)
    read = rig.take("disks", m.Read)
    rig.wait(5)
    assert rig.states()["disks"] == ("failed", "Disk '0': read: no answer within 5 s")
    rig.hear("disks", m.Values(read.id, {"Used": 1.0}))
    assert rows(rig)[0]["attributes"] == {}


def test_values_that_do_not_fit_are_dropped_with_a_reason(rig: Any) -> None:
    running(rig)
    values(rig, Used="much", Colour="red")
    (row,) = rows(rig)
    assert row["attributes"] == {} and "Disk.Used" in row["reason"] and "Colour" in row["reason"]


def test_resource_that_is_gone_is_not_read_any_more(rig: Any) -> None:
    running(rig, 0, 1)
    read = rig.take("disks", m.Read)
    values(rig, Used=1.0)
    rig.ask(9, m.DiscoverAll(10, again=True))
    rig.orders = [order for order in rig.orders if not isinstance(order[1], m.Read)]
    rig.find()
    rig.hear("disks", m.Values(read.id, {"Used": 1.0}))
    assert rows(rig) == []
    rig.wait(100)
    assert rig.count("disks", m.Read) == 0


def test_gone_controller_is_not_read_and_its_values_age(rig: Any) -> None:
    running(rig)
    values(rig, Used=1.0)
    rig.feed(m.ControllerGone("disks", "killed"))
    rig.wait(500)
    assert rig.count("disks", m.Read) == 0
    (row,) = rows(rig)
    assert row["attributes"] == {"Used": 1.0} and row["age_s"] == 500.0 and row["reason"]


def test_class_of_no_controller_here_has_no_rows(rig: Any) -> None:
    running(rig)
    assert rig.ask(1, m.ReadLocal("Fan")) == []
    assert rig.ask(2, m.ReadLocal("Fan", fresh=True)) == []
