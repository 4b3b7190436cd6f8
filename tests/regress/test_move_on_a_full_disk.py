"""A move whose target pointer could not be written took the node out of the cluster that it had never left.

It was to "go back" there, left for it, and with a full disk could not join again.
"""

from __future__ import annotations

from covey.components.dcm import move
from covey.errors import MoveFailed


def test_a_node_that_has_not_left_stays() -> None:
    machine = move.MoveMachine()
    machine.step(0.0, move.Asked("a", "b"))
    assert machine.step(0.1, move.Checked())[-1] == move.Point("a", "b")
    assert machine.step(0.2, move.Pointed("no space")) == [move.Point("a", "a")]
    assert machine.step(0.3, move.Pointed("no space")) == []  # said again until it is sure what the disk has
    assert machine.deadline is not None
    assert machine.step(machine.deadline) == [move.Point("a", "a")]
    (ended,) = machine.step(9.0, move.Pointed())
    assert isinstance(ended, move.Ended) and isinstance(ended.problem, MoveFailed)
    assert (ended.current, machine.state) == ("a", "idle")
