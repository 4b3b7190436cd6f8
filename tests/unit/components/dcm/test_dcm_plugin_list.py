"""What `plugin ls` says of controllers: installed, started, told, ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from covey.components.dcm.definitions import Blocked
from covey.components.dcm.plugin_list import PluginList, Told
from covey.errors import NotFound, Refused
from covey.plugins.manager import PluginManager

Install = Callable[..., Path]


@pytest.fixture
def plugins(install: Install) -> PluginList:
    install("covey-gpu", {"covey_gpu.py": ""}, {"covey.controllers": {"gpu": "covey_gpu:Gpu"}}, version="2.0")
    install("covey-off", {"covey_off.py": ""}, {"covey.controllers": {"off": "covey_off:Off"}})
    return PluginList(PluginManager(), {"off": {"enabled": False}, "gpu": {"enabled": True}})


def of(plugins: PluginList, name: str, crashed: dict[str, str] | None = None, running: Any = ()) -> dict[str, Any]:
    (line,) = [line for line in plugins.lines(crashed or {}, list(running)) if line["name"] == name]
    return line


def test_a_process_for_all_of_ours_and_one_for_each_other(plugins: PluginList) -> None:
    assert plugins.processes() == ["controllers", "controller:gpu"]


def test_what_became_of_a_controller(plugins: PluginList) -> None:
    assert of(plugins, "gpu")["reason"] == "not started: the node is not online"
    assert of(plugins, "gpu", running=["controller:gpu"])["reason"] == "it has not said yet that it runs"
    plugins.tell("gpu", Told("running", "", ("GpuDevice",)))
    line = of(plugins, "gpu")
    assert (line["state"], line["version"], line["classes"]) == ("running", "2.0", ["GpuDevice"])
    plugins.tell("gpu", Told("failed", "discover: it hangs"))
    assert of(plugins, "gpu")["reason"] == "discover: it hangs"


def test_one_whose_process_ended_before_it_said_anything(plugins: PluginList) -> None:
    line = of(plugins, "gpu", {"controller:gpu": "killed by signal 9"})
    assert (line["state"], line["reason"]) == ("failed", "its process ended: killed by signal 9")


def test_one_whose_process_ended_after_it_failed(plugins: PluginList) -> None:
    plugins.tell("gpu", Told("failed", "its process is gone"))
    line = of(plugins, "gpu", {"controller:gpu": "exit code 3"}, ["controller:gpu"])
    assert (line["state"], line["reason"]) == (
        "failed",
        "its process is gone (its process ended last with: exit code 3)",
    )
    plugins.tell("gpu", Told("running"))
    assert of(plugins, "gpu", {"controller:gpu": "exit code 3"})["reason"] == ""


def test_one_that_the_yaml_switches_off(plugins: PluginList) -> None:
    assert (of(plugins, "off")["state"], of(plugins, "off")["reason"]) == (
        "blocked",
        "`enabled: false` in this node's YAML",
    )


def test_one_that_somebody_blocked(plugins: PluginList) -> None:
    plugins.tell("gpu", Told("running"))
    plugins.blocked = {"gpu": Blocked("hangs", 1000), "host": Blocked("wrong")}
    assert (of(plugins, "gpu")["state"], of(plugins, "gpu")["reason"]) == ("blocked", "hangs (blocked by user 1000)")
    assert of(plugins, "host")["reason"] == "wrong (blocked by somebody)"
    assert plugins.processes() == ["controllers"]
    assert (plugins.process_of("host"), plugins.process_of("gpu")) == ("controllers", "controller:gpu")


def test_only_an_installed_controller_can_be_blocked(plugins: PluginList) -> None:
    plugins.must_be_controller("gpu")
    with pytest.raises(NotFound) as told:
        plugins.must_be_controller("gpuu")
    assert "gpu" in told.value.hint
    with pytest.raises(Refused):
        plugins.must_be_controller("registry")


def test_the_story_of_one(plugins: PluginList) -> None:
    assert "covey_gpu:Gpu" in " ".join(plugins.why("gpu", {}, [])["story"])
    with pytest.raises(NotFound) as told:
        plugins.why("gpuu", {}, [])
    assert "did you mean gpu?" in told.value.hint
    assert "starts again" in told.value.hint
