"""The classes known: who owns each, in which order they come, and how they differ between nodes."""

from __future__ import annotations

from typing import Any

import pytest
from covey.controllers.catalog import Catalog
from covey.controllers.classes import Attribute, ClassDescription
from covey.errors import CycleError, PluginError, ResourceNotFound


def made(name: str, controller: str = "c", **more: Any) -> ClassDescription:
    attributes = more.pop("attributes", (Attribute(name="Id", type="string", kind="persistent"),))
    return ClassDescription(
        name=name, controller=controller, version=more.pop("version", 1), key=("Id",), attributes=attributes, **more
    )


def test_classes_of_controllers() -> None:
    catalog = Catalog()
    catalog.add("b", [made("Zebra", "b"), made("Apple", "b")])
    catalog.add("a", [made("Melon", "a")])
    assert [one.name for one in catalog] == ["Apple", "Melon", "Zebra"]
    assert [one.name for one in catalog.of("b")] == ["Apple", "Zebra"]
    assert "Melon" in catalog and "Lemon" not in catalog and len(catalog) == 3
    catalog.add("b", [made("Pear", "b")])
    assert [one.name for one in catalog] == ["Melon", "Pear"]
    catalog.remove("a")
    assert [one.name for one in catalog] == ["Pear"]


def test_a_class_has_one_controller_and_the_loser_changes_nothing() -> None:
    catalog = Catalog()
    catalog.add("first", [made("Disk", "first")])
    catalog.add("second", [made("Tape", "second")])
    with pytest.raises(PluginError, match="the class Disk of the controller second belongs to the controller first"):
        catalog.add("second", [made("Drum", "second"), made("Disk", "second")])
    assert [one.name for one in catalog] == ["Disk", "Tape"]
    assert catalog.get("Disk").controller == "first"


def test_look_up_suggests() -> None:
    catalog = Catalog()
    with pytest.raises(ResourceNotFound, match="known: none"):
        catalog.get("FileSystem")
    catalog.add("c", [made("FileSystem"), made("Host")])
    with pytest.raises(ResourceNotFound) as caught:
        catalog.get("FileSytem")
    assert caught.value.hint == "did you mean FileSystem? known: FileSystem, Host"


def test_order_follows_dependencies() -> None:
    catalog = Catalog()
    catalog.add("c", [made("A", depends=("C", "Absent")), made("B"), made("C", depends=("D",)), made("D")])
    assert [one.name for one in catalog.in_order()] == ["D", "C", "A", "B"]


def test_a_circle_is_printed() -> None:
    catalog = Catalog()
    catalog.add("c", [made("A", depends=("B",)), made("B", depends=("C",)), made("C", depends=("B",))])
    with pytest.raises(CycleError, match="B -> C -> B"):
        catalog.in_order()


def test_differences_name_the_class_and_both_sides() -> None:
    here, there = Catalog(), Catalog()
    other = (Attribute(name="Id", type="string", kind="persistent", unit="x"),)
    here.add("c", [made("Same"), made("Newer", version=2), made("Odd"), made("OnlyHere")])
    there.add("c", [made("Same"), made("Newer"), made("Odd", attributes=other), made("OnlyThere")])
    newer, odd = here.differences(there.versions())
    assert newer == "Newer: version 2 here, 1 there"
    assert odd.startswith("Odd: version 1 on both, but described differently")
    assert here.differences(here.versions()) == []
