"""A fresh read that was asked for while its controller's process was away had the machine stepped without a pause."""

from __future__ import annotations

from covey.bus.machine import Address, Asked, Received, Reply, Send
from covey.components.resources import messages as m
from covey.components.resources.machine import ResourcesMachine
from covey.controllers.classes import Attribute, ClassDescription, to_wire

DISK = ClassDescription(
    name="Disk",
    version=1,
    controller="disks",
    key=("Slot",),
    attributes=(
        Attribute(name="Slot", type="uint32", kind="persistent"),
        Attribute(name="Used", type="float64", kind="dynamic"),
    ),
)


def test_what_is_wanted_of_a_controller_that_is_away_waits_for_it() -> None:
    machine, there = ResourcesMachine(1, "run"), Address("controller.disks")

    def order(effects: list[object], kind: type[m.Describe] | type[m.Discover]) -> str:
        (found,) = [one.message for one in effects if isinstance(one, Send) and isinstance(one.message, kind)]
        return found.id

    machine.step(0.0, m.Opened())
    described = order(machine.step(0.0, m.ControllersListed((m.Entry("disks"),))), m.Describe)
    effects = machine.step(0.0, Received(there, m.Described(described, (to_wire(DISK),))))
    found = ({"class": "Disk", "key": {"Slot": 0}},)
    machine.step(0.0, Received(there, m.Discovered(order(effects, m.Discover), found, "2026-03-01T12:00:00Z")))
    machine.step(1.0, m.ControllerGone("disks", "killed"))
    machine.step(1.0, Asked(1, m.ReadLocal("Disk", fresh=True, wait=0.5)))
    assert machine.deadline is not None and machine.deadline > 1.0
    (reply,) = [effect for effect in machine.step(1.5) if isinstance(effect, Reply)]
    assert reply.result[0]["reason"] == "killed"
