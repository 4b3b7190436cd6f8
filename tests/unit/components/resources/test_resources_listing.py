"""The rows of `resource ls` and `resource show`."""

from __future__ import annotations

from typing import Any

import pytest
from covey import errors
from covey.components.resources.listing import add_values, key_text, pick, stored_rows


def item(node: int, slot: Any, gone: bool = False, **attributes: Any) -> dict[str, Any]:
    value = {
        "class": "Disk",
        "id": f"{node}-{slot}",
        "key": {"Slot": slot},
        "node": node,
        "attributes": attributes,
        "version": 1,
        "gone": gone,
    }
    return {"key": f"/resources/Disk/{node}-{slot}", "value": {**value, "since": "t"} if gone else value}


def test_rows_are_ordered_by_node_and_key_numbers_by_size() -> None:
    items = [item(2, 1), item(1, 10), item(1, 9), item(1, "x"), item(1, True)]
    rows = stored_rows(items)
    assert [(row["node"], row["key"]["Slot"]) for row in rows] == [(1, True), (1, 9), (1, 10), (1, "x"), (2, 1)]


def test_a_row_has_the_fields_that_checks_read() -> None:
    (row,) = stored_rows([item(1, 0, Model="A")])
    assert row == {
        "class": "Disk",
        "id": "1-0",
        "key": {"Slot": 0},
        "node": 1,
        "attributes": {"Slot": 0, "Model": "A"},
        "age_s": None,
    }


def test_gone_ones_are_listed_only_if_asked_for() -> None:
    items = [item(1, 0), item(1, 1, gone=True)]
    assert [row["id"] for row in stored_rows(items)] == ["1-0"]
    gone = stored_rows(items, gone=True)[1]
    assert (gone["gone"], gone["since"]) == (True, "t")


def test_a_node_can_be_picked_and_junk_is_left_out() -> None:
    items = [item(1, 0), item(2, 0), {"key": "/resources/Disk/x", "value": "junk"}]
    assert [row["id"] for row in stored_rows(items, node=2)] == ["2-0"]


def test_values_go_to_the_rows_of_the_node_that_answered() -> None:
    rows = stored_rows([item(1, 0, Model="A"), item(2, 0, Model="B")])
    add_values(rows, 2, [{"id": "2-0", "attributes": {"Used": 5}, "age_s": 1.5, "reason": ""}])
    add_values(rows, 2, [{"id": "1-0", "attributes": {"Used": 9}, "age_s": 1.5, "reason": ""}])
    assert [row["attributes"] for row in rows] == [{"Slot": 0, "Model": "A"}, {"Slot": 0, "Model": "B", "Used": 5}]
    assert [row["age_s"] for row in rows] == [None, 1.5]


def test_key_text() -> None:
    assert key_text({"MountPoint": "/var"}) == "/var"
    assert key_text({"Bus": 0, "Up": True}) == "0,true"


def test_pick_by_key_text_or_id() -> None:
    rows = stored_rows([item(1, 0), item(1, 1)])
    assert [pick(rows, "Disk", key)["id"] for key in ("1", "1-1", "Slot=1")] == ["1-1"] * 3


def test_pick_names_the_nodes_when_several_have_it() -> None:
    rows = stored_rows([item(1, 0), item(2, 0)])
    with pytest.raises(errors.Ambiguous, match="nodes 1, 2"):
        pick(rows, "Disk", "0")


def test_pick_prefers_what_is_there_to_what_is_gone() -> None:
    rows = stored_rows([item(1, 0, gone=True), item(2, 0)], gone=True)
    assert pick(rows, "Disk", "0")["node"] == 2
    assert pick(rows[:1], "Disk", "0")["gone"] is True


def test_pick_says_what_there_is_instead() -> None:
    rows = stored_rows([item(1, slot) for slot in range(7)])
    with pytest.raises(errors.ResourceNotFound, match="there are: 0, 1, 2, 3, 4, …"):
        pick(rows, "Disk", "9")
    with pytest.raises(errors.ResourceNotFound, match="no Disk at all"):
        pick([], "Disk", "9")
