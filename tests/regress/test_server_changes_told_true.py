"""A change of the servers that was so already was confirmed at once: by a primary that was none any more, or before the
change was committed. And a node that nobody knows was removed with success."""

from __future__ import annotations

from covey.errors import Busy, NotFound, NotPrimary
from registry_script import Script


def test_a_change_under_way_is_not_confirmed() -> None:
    script = Script(3, 1)
    script.open(1)
    first = script.define(1, 4)
    again = script.define(1, 4)
    assert isinstance(script.refused(again), Busy)
    script.talk()
    assert script.result(first)["learners"] == [4]
    script.peace()


def test_a_deposed_primary_confirms_nothing() -> None:
    script = Script(3, 1)
    script.open(1)
    script.drop()
    script.elect(2, 3)
    script.drop(2, 1)
    script.talk(2, 3)
    made = script.define(2, 4)
    script.talk(2, 3)
    assert script.result(made)["learners"] == [4]
    asked = script.define(1, 4, "undefine")  # as far as it knows it leads, and 4 is no server
    assert asked not in script.answers
    script.peace()
    assert isinstance(script.refused(asked), NotPrimary)


def test_what_is_so_already_is_confirmed_by_a_majority() -> None:
    script = Script(3)
    script.open(1)
    asked = script.define(1, 3)
    assert asked not in script.answers
    script.talk()
    assert script.result(asked)["servers"] == [1, 2, 3]


def test_nobody_removes_a_node_that_there_is_not() -> None:
    script = Script(3)
    script.open(1)
    for change in ("undefine", "define", "start", "stop"):
        assert isinstance(script.refused(script.define(1, 99, change)), NotFound)
