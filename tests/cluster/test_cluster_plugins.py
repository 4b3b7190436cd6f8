"""Controllers that raise, hang or die, installed as pip does it: the node is online, and each has its reason."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from covey.errors import NoService
from covey.testing import Cluster
from fake_packages import put_controller, put_package

pytestmark = pytest.mark.cluster

DISCOVERY_DEADLINE = 10.0
FOUND = 'yield covey.Found("{}", key={{"Index": 7}})'


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with one good controller and every kind of bad one."""
    site = tmp_path / "site"
    put_controller(site, "fine", FOUND.format("Fine"))
    put_controller(site, "unborn", FOUND.format("Unborn"), before='raise RuntimeError("no licence for unborn")')
    put_controller(site, "raiser", 'raise ValueError("the bus of raiser is on fire")')
    put_controller(site, "hanger", "time.sleep(3600)")
    put_controller(site, "twin", FOUND.format("Twin"), package="aa-twin")
    put_controller(site, "twin", FOUND.format("Twin"), package="bb-twin")
    put_controller(site, "host", FOUND.format("Other"), package="covey-impostor", title="Other")
    put_controller(site, "copycat", FOUND.format("Host"), title="Host")
    put_package(site, "covey-void", {}, {"void": "no_such_module:Void"})
    return site


@pytest.mark.parametrize("isolation", ["process", "inline"])
def test_bad_controllers_hurt_nobody_and_are_named_with_their_reason(
    nodes: Callable[..., Cluster], site: Path, isolation: str, record_property: Callable[[str, object], None]
) -> None:
    if isolation == "process":
        put_controller(site, "dier", "os._exit(3)")
    lab = nodes(1, isolation, environment={"PYTHONPATH": str(site)})
    node = lab[1]
    node.start()
    node.wait_up()
    began = time.monotonic()
    node.call("dcm", "cluster_define", name="lab")
    node.wait_online(DISCOVERY_DEADLINE + 30)
    record_property(f"online_seconds_{isolation}", round(time.monotonic() - began, 2))
    told = lines(node.call("dcm", "plugins"))
    assert told["hanger"][0]["state"] != "failed", "the join waited for the one that hangs, until its deadline"

    def all_told(plugins: list[dict[str, Any]]) -> bool:
        said = lines(plugins)
        return all(
            any(one["state"] == state for one in said[name])
            for name, state in {"fine": "running", "hanger": "failed", "raiser": "failed", "host": "running"}.items()
        )

    node.wait("the deadline of the one that hangs", all_told, DISCOVERY_DEADLINE + 30, ask=("dcm", "plugins"))
    told = lines(node.covey("-o", "json", "plugin", "ls").data)
    expected = {
        "unborn": "no licence for unborn",
        "raiser": "the bus of raiser is on fire",
        "hanger": " within ",  # the controller's process says so with the line, or the Resource Manager without it
        "void": "no_such_module",
        "copycat": "class Host belongs to",
    }
    for name, words in expected.items():
        (one,) = told[name]
        assert one["state"] == "failed", one
        assert words in one["reason"], one
        assert (one["package"], one["version"]) == (f"covey-{name}", "1.2")
        why = node.covey("plugin", "why", name)
        assert why.code == 0
        assert words in why.out
    assert {one["package"]: one["state"] for one in told["twin"]} == {"aa-twin": "running", "bb-twin": "shadowed"}
    shadowed = next(one for one in told["twin"] if one["state"] == "shadowed")
    assert "aa-twin" in shadowed["reason"]
    why = node.covey("plugin", "why", "twin").out
    assert "aa-twin" in why
    assert "bb-twin" in why
    if isolation == "process":
        node.wait(
            "the one that dies to be told",
            lambda plugins: lines(plugins)["dier"][0]["state"] == "failed",
            30,
            ask=("dcm", "plugins"),
        )
        assert "exit code 3" in node.covey("plugin", "why", "dier").out

    assert told["fine"][0]["classes"] == ["Fine"]
    for name in ("Fine", "Twin", "Host", "FileSystem"):
        assert node.covey("-o", "json", "resource", "ls", name).data, name
    assert [one["key"] for one in node.covey("-o", "json", "resource", "ls", "Host").data] == [
        {"Name": os.uname().nodename}
    ]
    for name in ("host", "filesystem", "adapter"):
        assert [one["state"] for one in told[name] if one["package"] == "covey"] == ["running"]
    assert [one["state"] for one in told["host"] if one["package"] == "covey-impostor"] == ["shadowed"]
    assert node.covey("plugin", "why", "nobody").code == 4

    blocked = ["fine", "filesystem"]  # one in a process of its own, one beside others
    for name in blocked:
        assert node.covey("plugin", "block", name, "--reason", f"{name} is wrong").code == 0
    for again in (False, True):  # now, and after a restart
        told = lines(node.call("dcm", "plugins"))
        for name in blocked:
            assert told[name][0]["state"] == "blocked"
            assert told[name][0]["reason"].startswith(f"{name} is wrong (blocked by user ")
            with pytest.raises(NoService):
                node.call(f"controller.{name}", "status")
        if not again:
            assert node.stop() == 0
            node.start()
            node.wait_up()
            node.wait_online(DISCOVERY_DEADLINE + 30)
    for name in blocked:
        assert node.covey("plugin", "unblock", name).code == 0
    node.wait(
        "both to run again",
        lambda plugins: all(lines(plugins)[name][0]["state"] == "running" for name in blocked),
        30,
        ask=("dcm", "plugins"),
    )
    assert node.stop() == 0


def lines(plugins: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the plugins of a list by name; two can share one."""
    found: dict[str, list[dict[str, Any]]] = {}
    for one in plugins:
        found.setdefault(one["name"], []).append(one)
    return found
