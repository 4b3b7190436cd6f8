"""The verdict over three copies of a node's id: the table of SPEC 5, every line."""

from __future__ import annotations

import itertools

import pytest
from covey.components.dcm.definitions import Replacement
from covey.components.dcm.identity import NOWHERE, Copy, Elsewhere, judge

LOCAL = Copy("c" * 32, 3, "d" * 32, "old")
OTHERS = [
    Copy("e" * 32, 3, "d" * 32, "old"),
    Copy("c" * 32, 4, "d" * 32, "old"),
    Copy("c" * 32, 3, "f" * 32, "old"),
    Copy("c" * 32, 3, "d" * 32, "other"),
]


def test_scenario_1_all_agree() -> None:
    assert (judge("old", LOCAL, LOCAL).scenario, judge("old", LOCAL, LOCAL).action) == (1, "join")


@pytest.mark.parametrize("found", [None, *OTHERS])
def test_scenario_2_undefined_while_away(found: Copy | None) -> None:
    verdict = judge("old", LOCAL, found)
    assert (verdict.scenario, verdict.action) == (2, "erase")


def test_scenario_3_identity_hardware_replaced() -> None:
    verdict = judge("new", LOCAL, LOCAL)
    assert (verdict.scenario, verdict.action) == (3, "replace")


@pytest.mark.parametrize("found", [None, *OTHERS])
def test_scenario_4_both(found: Copy | None) -> None:
    verdict = judge("new", LOCAL, found)
    assert (verdict.scenario, verdict.action) == (4, "erase")


@pytest.mark.parametrize(
    ("original", "local", "known"),
    [(None, LOCAL, True), ("old", None, True), ("old", LOCAL, False), (None, None, False)],
)
def test_what_cannot_be_decided_is_no_verdict(original: str | None, local: Copy | None, known: bool) -> None:
    for found in (None, LOCAL, *OTHERS):
        verdict = judge(original, local, found, known=known)
        assert (verdict.scenario, verdict.action) == (None, "wait")
        assert verdict.reason


def test_nothing_is_ever_erased_without_a_current_read_and_a_readable_id() -> None:
    copies = [None, LOCAL, *OTHERS]
    elsewhere = [NOWHERE, Elsewhere(boot="x"), Elsewhere(owner="y")]
    for original, local, found, known, other in itertools.product(
        [None, "old", "new"], copies, copies, [True, False], elsewhere
    ):
        verdict = judge(original, local, found, known=known, elsewhere=other)
        if verdict.action == "erase":
            assert original is not None
            assert local is not None
            assert known
            assert found != local
        if verdict.action in ("join", "replace"):
            assert found == local
            assert other.boot is None


@pytest.mark.parametrize("original", ["old", "new"])
def test_a_node_online_under_another_boot_makes_a_clone(original: str) -> None:
    verdict = judge(original, LOCAL, LOCAL, elsewhere=Elsewhere(boot="127.1.0.3:7400 (boot 77)"))
    assert (verdict.scenario, verdict.action, verdict.code) == (None, "refuse", "identity.clone")
    assert "127.1.0.3:7400" in verdict.reason


def test_a_new_id_that_another_node_has_makes_a_clone() -> None:
    verdict = judge("new", LOCAL, LOCAL, elsewhere=Elsewhere(owner="n2 (2)"))
    assert (verdict.action, verdict.code) == ("refuse", "identity.clone")
    assert "n2 (2)" in verdict.reason


def test_a_clone_elsewhere_does_not_stop_the_clean_up_of_an_undefined_node() -> None:
    assert judge("old", LOCAL, None, elsewhere=Elsewhere(boot="x")).scenario == 2


@pytest.mark.parametrize(
    ("original", "local_id", "global_id", "scenario"),
    [
        ("new", "old", "old", 3),  # begun, and no more
        ("new", "old", "new", 3),  # the global id is done, the local one is not
        ("new", "new", "new", 1),  # all done but the record
        ("old", "old", "old", 1),  # the old card was put back
        ("old", "old", "new", 3),  # put back when the global id was done
        ("third", "old", "old", 3),  # and replaced once more
        ("third", "old", "new", 3),
        ("new", "old", "third", 4),  # somebody else's doing: no part of the replacement
    ],
)
def test_a_replacement_under_way_is_completed(original: str, local_id: str, global_id: str, scenario: int) -> None:
    local = Copy("c" * 32, 3, "d" * 32, local_id)
    found = Copy("c" * 32, 3, "d" * 32, global_id)
    assert judge(original, local, found, replacement=Replacement("old", "new")).scenario == scenario


def test_a_replacement_does_not_hide_another_definition() -> None:
    found = Copy("c" * 32, 3, "f" * 32, "new")
    assert judge("new", LOCAL, found, replacement=Replacement("old", "new")).scenario == 4


def test_without_a_local_copy_the_advice_names_the_global_one() -> None:
    assert "define it again" in judge("old", None, None, elsewhere=Elsewhere(owner="n3 (3)")).reason
