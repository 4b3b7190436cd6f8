"""Who a machine is, and the verdict over three copies of it: the table of SPEC 5, every line."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import pytest
from covey.components.dcm import identity
from covey.components.dcm.definitions import Replacement
from covey.components.dcm.identity import NOWHERE, Copy, Elsewhere, judge, read_original
from covey.errors import IdentityUnreadable, InvalidFile, LocalDamaged
from covey.plugins.hookspecs import IdentitySource

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


# --- sources --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "setting",
    [
        {"value": " card-7 "},
        {"file": "card"},
        {"command": [sys.executable, "-c", "print('card-7')"]},
        "mine",
        {"mine": "x"},
    ],
)
def test_sources(tmp_path: Path, setting: Any) -> None:
    (tmp_path / "card").write_text("card-7\n")
    if isinstance(setting, dict) and "file" in setting:
        setting = {"file": str(tmp_path / "card")}
    more = {"mine": IdentitySource("mine", lambda _value, _folder: "card-7")}
    assert read_original(setting, tmp_path, more) == "card-7"


def test_machine_id_and_dmi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (tmp_path / "uuid").write_text("4C4C4544-0042-3510-8052-B4C04F4A4D31\n")
    monkeypatch.setattr(identity, "_MACHINE_ID", (tmp_path / "none", tmp_path / "machine-id"))
    monkeypatch.setattr(identity, "_PRODUCT_UUID", tmp_path / "uuid")
    assert read_original("machine-id", tmp_path) == "0123456789abcdef0123456789abcdef"
    assert read_original("dmi", tmp_path) == "4c4c4544-0042-3510-8052-b4c04f4a4d31"


def test_a_generated_id_is_made_once(tmp_path: Path) -> None:
    first = read_original("generated", tmp_path)
    assert read_original("generated", tmp_path) == first
    (tmp_path / "dcm" / "identity.json").write_bytes(b"{}")
    with pytest.raises(LocalDamaged):
        read_original("generated", tmp_path)


@pytest.mark.parametrize(
    "setting",
    [
        {"file": "/nowhere/card"},
        {"value": ""},
        {"value": "uninitialized"},
        {"value": "00000000-0000-0000-0000-000000000000"},
        {"value": "x" * 129},
        {"value": "two\nlines"},
        {"command": [sys.executable, "-c", "raise SystemExit(3)"]},
        {"command": ["/nowhere/program"]},
        {"broken": None},
    ],
)
def test_an_id_that_cannot_be_read(tmp_path: Path, setting: Any) -> None:
    def broken(_value: Any, _folder: Any) -> str:
        raise OSError("no card in the reader")

    with pytest.raises(IdentityUnreadable):
        read_original(setting, tmp_path, {"broken": IdentitySource("broken", broken)})


def test_a_command_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "COMMAND_SECONDS", 0.2)
    with pytest.raises(IdentityUnreadable, match="timed out"):
        read_original({"command": [sys.executable, "-c", "import time; time.sleep(60)"]}, tmp_path)


def test_an_unknown_source_is_refused_with_the_list(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="machine-id") as caught:
        read_original("maschine-id", tmp_path)
    assert "there are: " in str(caught.value)


def test_a_plugin_cannot_take_the_place_of_a_built_in_source(tmp_path: Path) -> None:
    more = {"value": IdentitySource("value", lambda _value, _folder: "stolen")}
    assert read_original({"value": "mine"}, tmp_path, more) == "mine"
