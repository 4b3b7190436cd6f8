"""The controller `service`, with what a real systemd printed; where one runs is in tests/netns."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from covey.controllers import service as module
from covey.controllers.contract import Resource
from covey.controllers.options import make
from covey.controllers.service import Service, units
from covey.errors import PluginError, Unsupported

PRINTED = """MainPID=36
NRestarts=2
MemoryCurrent=188416
Id=probe.service
Description=A probe = with signs
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=static
ActiveEnterTimestampMonotonic=58523510511

MainPID=0
NRestarts=0
MemoryCurrent=[not set]
Id=nope.service
Description=nope.service
LoadState=not-found
ActiveState=inactive
SubState=dead
UnitFileState=
ActiveEnterTimestampMonotonic=58523510511

MainPID=0
MemoryCurrent=18446744073709551615
Id=old.service
Description=
LoadState=loaded
ActiveState=active
SubState=exited
UnitFileState=enabled
ActiveEnterTimestampMonotonic=0

Id=some.timer
Description=What is no service
"""
"""`systemctl show` of systemd 252; the third block as versions before 244 print it."""


def test_what_systemd_prints() -> None:
    found = units(PRINTED, began=1_000_000_000.0)
    assert list(found) == ["probe.service", "nope.service", "old.service"]
    assert found["probe.service"] == {
        "Name": "probe.service",
        "Description": "A probe = with signs",
        "LoadState": "loaded",
        "ActiveState": "active",
        "SubState": "running",
        "Enabled": "static",
        "MainPid": 36,
        "Memory": 188416,
        "Restarts": 2,
        "StartTime": datetime(2001, 9, 9, 18, 2, 3, 510511, tzinfo=UTC),
    }
    nope, old = found["nope.service"], found["old.service"]
    assert (nope["LoadState"], nope["Enabled"], nope["MainPid"], nope["Memory"]) == ("not-found", None, None, None)
    assert nope["StartTime"] is None, "it is not active any more"
    assert (old["Memory"], old["Restarts"], old["StartTime"], old["Description"]) == (None, None, None, None)


def test_which_units_are_resources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "RUNS", tmp_path)
    asked: list[tuple[str, ...]] = []

    def show(_: Service, verb: str, *words: str, timeout: float) -> str:
        asked.append(words[2:])
        return PRINTED

    monkeypatch.setattr(Service, "_systemctl", show)
    controller = make(Service)
    assert [one.key["Name"] for one in controller.discover()] == ["probe.service", "old.service"]
    assert controller.read(Resource("Service", {"Name": "old.service"}, "x"))["SubState"] == "exited"
    assert asked == [("*.service",)], "one call tells of all units"
    controller = make(Service, {"units": ["probe", "nope.service", "o*"]})
    assert [one.key["Name"] for one in controller.discover()] == ["probe.service", "nope.service", "old.service"]
    assert asked[1:] == [("nope.service", "o*", "probe.service")]
    with pytest.raises(PluginError, match="'a/b' is no name of a unit"):
        make(Service, {"units": ["a/b"]})


def test_a_machine_without_systemd_has_no_services(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "RUNS", tmp_path / "nowhere")
    with pytest.raises(Unsupported, match="systemd does not run here"):
        list(make(Service).discover())
