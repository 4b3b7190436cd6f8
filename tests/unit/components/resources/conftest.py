"""A Resource Manager machine with everything around it in view: its orders, its clock, and a registry that answers."""

from __future__ import annotations

from typing import Any

import pytest
from covey.bus.machine import Address, Asked, Effect, Notify, Received, Reply, Send
from covey.components.resources import messages as m
from covey.components.resources.machine import ResourcesMachine
from covey.components.resources.settings import Settings
from covey.controllers.classes import Attribute, ClassDescription, resource_id, to_wire

AT = "2026-03-01T12:00:00Z"


def disk_class(**changes: Any) -> ClassDescription:
    """Return a class with a key, a persistent, a dynamic and two sensitive attributes."""
    fields: dict[str, Any] = {
        "name": "Disk",
        "version": 1,
        "controller": "disks",
        "key": ("Slot",),
        "attributes": (
            Attribute(name="Slot", type="uint32", kind="persistent"),
            Attribute(name="Model", type="string", kind="persistent"),
            Attribute(name="Pin", type="string", kind="persistent", sensitive=True),
            Attribute(name="Used", type="float64", kind="dynamic"),
            Attribute(name="Token", type="string", kind="dynamic", sensitive=True),
        ),
        "discover_every": 300.0,
        "poll_every": 30.0,
    }
    return ClassDescription(**{**fields, **changes})


class Registry:
    """What is stored, at which revision; answers `ReadStored` and `Write` as the real one does."""

    def __init__(self) -> None:
        self.values: dict[str, tuple[dict[str, Any], int]] = {}
        self.revision = 0
        self.writes: list[m.Write] = []
        self._answers: dict[str, m.Written] = {}

    def put(self, key: str, value: dict[str, Any]) -> None:
        self.revision += 1
        self.values[key] = (value, self.revision)

    def answer(self, order: m.ReadStored | m.Write) -> m.Stored | m.Written:
        if isinstance(order, m.ReadStored):
            return m.Stored(order.id, tuple((key, *found) for key, found in sorted(self.values.items())))
        if order.id not in self._answers:
            held = all(self.values.get(key, (None, 0))[1] == revision for key, revision in order.compare)
            if held:
                self.writes.append(order)
                self.revision += 1
                self.values.update({key: (value, self.revision) for key, value in order.puts})
            self._answers[order.id] = m.Written(order.id, held, self.revision)
        return self._answers[order.id]


class Rig:
    """The machine, stepped by hand. With `open` the registry answers by itself, controllers never do."""

    def __init__(self, settings: Settings | None = None, node: int = 1) -> None:
        self.machine = ResourcesMachine(node, "run", settings)
        self.registry = Registry()
        self.open = True
        self.now = 100.0
        self.orders: list[tuple[str, m.Describe | m.Discover | m.Read | m.Change]] = []
        self.held: list[m.ReadStored | m.Write] = []
        self.told: list[tuple[str, Any]] = []
        self.sent: list[Send] = []
        self.replies: dict[int, Any] = {}

    @staticmethod
    def disk(slot: Any, **attributes: Any) -> dict[str, Any]:
        return {"class": "Disk", "key": {"Slot": slot}, "attributes": attributes}

    disk_class = staticmethod(disk_class)

    def feed(self, input: Any = None) -> list[Effect]:
        effects = self.machine.step(self.now, input)
        self.machine.check_invariants()
        for effect in effects:
            if isinstance(effect, Reply):
                assert effect.request not in self.replies, "a question is answered once"
                self.replies[effect.request] = effect.result
            elif isinstance(effect, Notify):
                self.told.append((effect.what, effect.body))
            elif isinstance(effect, Send):
                self._take(effect)
        return effects

    def wait(self, seconds: float) -> None:
        """Let time pass, with a step at every deadline on the way."""
        until = self.now + seconds
        for _ in range(10_000):
            deadline = self.machine.deadline
            if deadline is None or deadline > until:
                break
            self.now = max(self.now, deadline)
            self.feed()
        else:
            raise AssertionError("the machine asks for steps without end")
        self.now = until

    def ask(self, number: int, question: m.Question) -> Any:
        self.feed(Asked(number, question))
        return self.replies.get(number)

    def boot(self, *names: str) -> None:
        self.feed(m.Opened())
        self.feed(m.ControllersListed(tuple(m.Entry(name) for name in names)))

    def take(self, name: str, kind: type[Any]) -> Any:
        """Return the oldest order of that kind to a controller, and forget it."""
        for index, (found, order) in enumerate(self.orders):
            if found == name and isinstance(order, kind):
                del self.orders[index]
                return order
        raise AssertionError(f"no {kind.__name__} was sent to {name}: {self.orders}")

    def count(self, name: str, kind: type[Any]) -> int:
        return sum(found == name and isinstance(order, kind) for found, order in self.orders)

    def hear(self, name: str, message: Any) -> None:
        self.feed(Received(Address(f"controller.{name}"), message))

    def describe(self, name: str = "disks", *classes: ClassDescription) -> None:
        wires = tuple(to_wire(found) for found in classes or (disk_class(),))
        self.hear(name, m.Described(self.take(name, m.Describe).id, wires))

    def find(self, *found: Any, name: str = "disks", at: str = AT) -> None:
        self.hear(name, m.Discovered(self.take(name, m.Discover).id, found, at))

    def fail(self, kind: type[Any], name: str = "disks", reason: str = "boom", code: str = "plugin.failed") -> None:
        self.hear(name, m.CallFailed(self.take(name, kind).id, code, reason))

    def change(self, number: int, what: Any, slot: int | None = 0, name: str = "disks", **more: Any) -> Any:
        """Ask for a change of the disk in a slot; return the order to its controller, or what it was refused with."""
        identity = resource_id(self.machine.node, {"Slot": slot}) if slot is not None else ""
        refused = self.ask(number, m.ChangeOne(what, "Disk", identity, **more))
        return refused or (self.take(name, m.Change) if self.count(name, m.Change) else None)

    def changed(self, order: m.Change, name: str = "disks", at: str = AT, **more: Any) -> None:
        self.hear(name, m.Changed(order.id, at, **more))

    def states(self) -> dict[str, tuple[str, str]]:
        return {name: (found.state, found.reason) for name, found in self.machine.controllers.items()}

    def answer_registry(self) -> None:
        held, self.held = self.held, []
        for order in held:
            self.feed(Received(Address("registry"), self.registry.answer(order)))

    def stored(self) -> dict[str, Any]:
        """Return what the registry has of each slot: its attributes, or "gone"."""
        values = [value for value, _ in self.registry.values.values()]
        return {value["key"]["Slot"]: "gone" if value["gone"] else value["attributes"] for value in values}

    def _take(self, effect: Send) -> None:
        message = effect.message
        if isinstance(message, m.ReadStored | m.Write):
            self.held.append(message)
            if self.open:
                self.answer_registry()
        elif isinstance(message, m.Describe | m.Discover | m.Read | m.Change):
            self.orders.append((effect.to.service.removeprefix("controller."), message))
        else:
            self.sent.append(effect)


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture(scope="session")
def new_rig() -> type[Rig]:
    return Rig
