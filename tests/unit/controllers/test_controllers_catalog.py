"""The classes of a node: who owns each, in which version, and which controllers wait for which."""

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
    catalog.add("b", [made("Zebra", "b"), made("Apple", "b", version=3)])
    catalog.add("a", [made("Melon", "a")])
    assert [(name, version, owner) for name, (version, _, owner) in catalog.versions().items()] == [
        ("Apple", 3, "b"),
        ("Melon", 1, "a"),
        ("Zebra", 1, "b"),
    ]
    assert catalog.versions()["Melon"][1] == catalog.get("Melon").fingerprint
    catalog.add("b", [made("Pear", "b")])
    assert list(catalog.versions()) == ["Melon", "Pear"]
    assert (catalog.owner("Pear"), catalog.owner("Apple")) == ("b", "")


def test_a_class_has_one_controller_and_the_loser_changes_nothing() -> None:
    catalog = Catalog()
    catalog.add("first", [made("Disk")])
    catalog.add("second", [made("Tape")])
    with pytest.raises(PluginError, match="class Disk belongs to the controller 'first' already"):
        catalog.add("second", [made("Drum"), made("Disk", "first")])  # whatever its description says
    assert [(name, found[2]) for name, found in catalog.versions().items()] == [("Disk", "first"), ("Tape", "second")]


def test_a_class_that_is_reserved_waits_for_its_controller() -> None:
    catalog = Catalog()
    catalog.reserve({"Host": (1, "print", "host")})
    with pytest.raises(PluginError, match="class Host belongs to the controller 'host' already"):
        catalog.add("copycat", [made("Host")])
    assert catalog.owner("Host") == ""
    catalog.add("host", [made("Host")])
    assert catalog.owner("Host") == "host"


def test_look_up_suggests() -> None:
    catalog = Catalog()
    with pytest.raises(ResourceNotFound) as caught:
        catalog.get("FileSystem")
    assert caught.value.hint == "known: none"
    catalog.add("c", [made("FileSystem"), made("Host")])
    with pytest.raises(ResourceNotFound) as caught:
        catalog.get("FileSytem")
    assert caught.value.hint == "did you mean FileSystem? known: FileSystem, Host"


def test_whom_a_controller_waits_for() -> None:
    catalog = Catalog()
    catalog.add("a", [made("A", depends=("C", "Absent", "A2")), made("A2", depends=("B",))])
    assert catalog.awaited("a") == ([], ["Absent", "B", "C"])
    catalog.add("b", [made("B"), made("C", depends=("B",))])
    assert catalog.awaited("a") == (["b"], ["Absent"])
    assert catalog.awaited("b") == ([], [])


def test_a_circle_is_printed_and_changes_nothing() -> None:
    catalog = Catalog()
    catalog.add("a", [made("A", depends=("B",))])
    catalog.add("b", [made("B", depends=("C",)), made("B2")])
    with pytest.raises(CycleError, match="c -> a -> b -> c"):
        catalog.add("c", [made("C", depends=("A",))])
    assert catalog.owner("C") == ""
    catalog.add("c", [made("C")])
    assert catalog.owner("C") == "c"
