"""Applying transactions to a model registry gives exactly what was discovered, and writes nothing else."""

from __future__ import annotations

from typing import Any

from covey.components.resources.stored import Resource, StoredResources
from hypothesis import given
from hypothesis import strategies as st

NODE = 1
CLASSES = ("Disk", "Fan")


def resource(cls: str, slot: int, model: str) -> Resource:
    return Resource(cls, f"{NODE}-{slot}", {"Slot": slot}, {"Model": model}, 1)


@st.composite
def discoveries(draw: st.DrawFn) -> dict[str, Resource]:
    slots = st.tuples(st.sampled_from(CLASSES), st.integers(0, 5))
    found = draw(st.dictionaries(slots, st.sampled_from("AB")))
    return {made.path: made for made in (resource(cls, slot, model) for (cls, slot), model in found.items())}


class Model:
    """A registry: values with the revision of their last change, and transactions that compare."""

    def __init__(self) -> None:
        self.revision = 0
        self.items: dict[str, tuple[Any, int]] = {}

    def put(self, key: str, value: Any) -> None:
        self.revision += 1
        self.items[key] = (value, self.revision)

    def listed(self) -> list[tuple[str, Any, int]]:
        return [(key, *found) for key, found in sorted(self.items.items())]

    def apply(self, transaction: Any) -> bool:
        if any(self.items.get(key, (None, 0))[1] != revision for key, revision in transaction.compare):
            return False
        self.revision += 1
        self.items.update({key: (value, self.revision) for key, value in transaction.puts})
        return True

    def there(self, node: int = NODE) -> dict[str, Any]:
        return {key: value for key, (value, _) in self.items.items() if value["node"] == node and not value["gone"]}


@given(st.lists(discoveries(), max_size=6), st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=6))
def test_the_registry_holds_exactly_what_was_found(rounds: list[dict[str, Resource]], others: list[Any]) -> None:
    model = Model()
    model.put("/resources/Disk/2-0", {**resource("Disk", 0, "A").value(2), "id": "2-0"})
    stored = StoredResources(NODE, model.listed())
    ever: set[str] = set()
    for number, found in enumerate(rounds):
        if number < len(others) and others[number][1]:
            # Somebody else writes one of our keys behind our back: compared, refused, read again, mended.
            meddled = resource("Disk", others[number][0], "Z")
            model.put(meddled.path, meddled.value(NODE))
            ever.add(meddled.path)
        transaction = stored.transaction(CLASSES, found, f"round {number}")
        before = dict(model.items)
        if transaction is not None and model.apply(transaction):
            stored.applied(transaction, model.revision)
            assert all(before.get(key, (None, 0))[0] != value for key, value in transaction.puts)
        stored = StoredResources(NODE, model.listed()) if dict(model.items) != _as_dict(stored) else stored
        again = stored.transaction(CLASSES, found, f"round {number} again")
        if again is not None:
            assert model.apply(again)
            stored.applied(again, model.revision)
        ever |= set(found)
        assert model.there() == {path: made.value(NODE) for path, made in found.items()}
        assert {key for key, (value, _) in model.items.items() if value["node"] == NODE} == ever, "nothing is deleted"
        assert stored.transaction(CLASSES, found, "later") is None, "the same again writes nothing"
    assert set(model.there(2)) == {"/resources/Disk/2-0"}


def _as_dict(stored: StoredResources) -> dict[str, Any]:
    return dict(stored._items)


@given(discoveries(), discoveries())
def test_a_controller_touches_only_its_own_classes(first: dict[str, Resource], second: dict[str, Resource]) -> None:
    model = Model()
    stored = StoredResources(NODE)
    for found in (first, second):
        disks = {path: made for path, made in found.items() if made.cls == "Disk"}
        transaction = stored.transaction(("Disk",), disks, "now")
        if transaction is not None:
            assert all(key.startswith("/resources/Disk/") for key, _ in transaction.puts)
            assert model.apply(transaction)
            stored.applied(transaction, model.revision)


def test_since_is_kept_while_it_stays_gone() -> None:
    model = Model()
    stored = StoredResources(NODE)
    disk = resource("Disk", 0, "A")
    for found, at in (({disk.path: disk}, "t1"), ({}, "t2"), ({}, "t3")):
        transaction = stored.transaction(CLASSES, found, at)
        if transaction is not None:
            assert model.apply(transaction)
            stored.applied(transaction, model.revision)
    assert model.items[disk.path][0]["since"] == "t2"


def test_values_that_are_no_resources_are_neither_read_nor_trusted() -> None:
    stored = StoredResources(NODE, [("/resources/Disk/1-0", "junk", 7), ("/resources/Disk/1-1", {"node": 1}, 8)])
    disk = resource("Disk", 0, "A")
    transaction = stored.transaction(CLASSES, {disk.path: disk}, "now")
    assert transaction is not None
    assert transaction.compare == ((disk.path, 7),)
