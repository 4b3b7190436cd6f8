"""Who a machine is: the sources of its id that covey ships, and those of other packages."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from covey.components.dcm import sources
from covey.components.dcm.sources import covey_identity_sources, installed_sources, read_original
from covey.config.values import BUILT_IN_SOURCES
from covey.errors import IdentityUnreadable, InvalidFile, LocalDamaged
from covey.plugins.hookspecs import IdentitySource
from covey.plugins.manager import PluginManager

Install = Callable[..., Path]

SHIPPED = {source.name: source for source in covey_identity_sources()}


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
    more = SHIPPED | {"mine": IdentitySource("mine", lambda _value, _folder: "card-7")}
    assert read_original(setting, tmp_path, more) == "card-7"


def test_machine_id_and_dmi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (tmp_path / "uuid").write_text("4C4C4544-0042-3510-8052-B4C04F4A4D31\n")
    monkeypatch.setattr(sources, "_MACHINE_ID", (tmp_path / "none", tmp_path / "machine-id"))
    monkeypatch.setattr(sources, "_PRODUCT_UUID", tmp_path / "uuid")
    assert read_original("machine-id", tmp_path, SHIPPED) == "0123456789abcdef0123456789abcdef"
    assert read_original("dmi", tmp_path, SHIPPED) == "4c4c4544-0042-3510-8052-b4c04f4a4d31"


def test_a_generated_id_is_made_once(tmp_path: Path) -> None:
    first = read_original("generated", tmp_path, SHIPPED)
    assert read_original("generated", tmp_path, SHIPPED) == first
    (tmp_path / "dcm" / "identity.json").write_bytes(b"{}")
    with pytest.raises(LocalDamaged):
        read_original("generated", tmp_path, SHIPPED)


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
        read_original(setting, tmp_path, SHIPPED | {"broken": IdentitySource("broken", broken)})


def test_a_command_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "COMMAND_SECONDS", 0.2)
    with pytest.raises(IdentityUnreadable, match="timed out"):
        read_original({"command": [sys.executable, "-c", "import time; time.sleep(60)"]}, tmp_path, SHIPPED)


def test_an_unknown_source_is_refused_with_the_list(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="machine-id") as caught:
        read_original("maschine-id", tmp_path, SHIPPED)
    assert "there are: " in str(caught.value)


def test_covey_ships_what_the_node_file_describes() -> None:
    assert set(SHIPPED) == set(BUILT_IN_SOURCES)
    assert set(installed_sources(PluginManager(safe=True))) == set(SHIPPED)


CARD = """
from covey.plugins.hookspecs import IdentitySource, hookimpl

@hookimpl{how}
def covey_identity_sources():
    return [IdentitySource(name, lambda value, folder: "stolen") for name in {names}]
"""


def test_another_package_adds_sources(install: Install, tmp_path: Path) -> None:
    install("covey-card", {"card.py": CARD.format(how="", names=["card", "ring"])}, {"covey": {"card": "card"}})
    found = installed_sources(PluginManager())
    assert set(found) == {*SHIPPED, "card", "ring"}
    assert read_original("ring", tmp_path, found) == "stolen"


@pytest.mark.parametrize("names", [["ring", "value"], ["ring", "ring"]])
def test_one_that_reuses_a_name_is_failed_with_all_its_sources(install: Install, names: list[str]) -> None:
    text = CARD.format(how="(tryfirst=True)", names=names)
    install("covey-card", {"card.py": text}, {"covey": {"card": "card"}})
    plugins = PluginManager()
    found = installed_sources(plugins)
    assert found.keys() == SHIPPED.keys()
    assert found["value"].read("mine", None) == "mine"
    (status,) = [one for one in plugins.status("covey") if one.name == "card"]
    assert (status.state, status.reason) == ("failed", f"the identity source {names[1]!r} is declared already")
