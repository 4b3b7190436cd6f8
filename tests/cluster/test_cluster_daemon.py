"""The life of a daemon and of its processes: one a state folder, ended in order, and whatever crashes comes back."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from covey.testing import Cluster, Node

pytestmark = pytest.mark.cluster

Boot = Callable[..., Cluster]
Kept = Callable[[int, str], Cluster]
COMPONENTS = ("registry", "liveness", "groups", "resources", "controllers", "dcm", "broker")


# --- one daemon a state folder ---------------------------------------------------------------------------------------


def test_a_second_daemon_on_the_same_folder_is_refused_with_the_first_ones_pid(shared: Cluster) -> None:
    node = shared[2]
    refused = node.covey("-o", "json", "node", "start", str(node.file))
    assert refused.code == 5
    assert refused.error["code"] == "dcm.already_running"
    assert str(node.pid) in refused.error["message"]
    assert node.covey("node", "ls").code == 0
    text = node.covey("node", "start", str(node.file))
    assert text.code == 5
    assert str(node.pid) in text.err


@pytest.mark.parametrize("isolation", ["process", "inline"])
def test_a_port_that_is_taken_is_said(cluster: Boot, nodes: Boot, isolation: str) -> None:
    first = cluster(1)[1]
    other = nodes(1, isolation)[1]
    text = other.file.read_text().replace(str(other.port), str(first.port))
    other.file.write_text(text.replace(other.adapters[0], first.adapters[0]))
    refused = other.covey("-o", "json", "node", "start", str(other.file))
    assert refused.code == 1, refused
    assert first.address in refused.error["message"]
    assert "in use" in refused.error["message"]


# --- ends ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isolation", ["process", "inline"])
def test_sigterm_leaves_in_order(kept: Kept, isolation: str) -> None:
    lab = kept(2, isolation)
    first, second = lab
    assert second.stop() == 0
    ended = datetime.now(UTC)
    (view,) = first.covey("-o", "json", "cluster", "views", "--last", "1").data
    assert (view["members"], view["left"]) == ([1], [2])
    assert datetime.fromisoformat(view["at"]) <= ended, "the others had to notice by themselves"
    status = first.covey("-o", "json", "cluster", "status").data
    assert [one["state"] for one in status["nodes"]] == ["online", "offline"]
    assert first.stop() == 0
    for node in lab:
        node.start()
    lab.wait_online()


def test_ctrl_c_ends_a_node_too(cluster: Boot) -> None:
    node = cluster(1, isolation="process")[1]
    os.killpg(node.pid, signal.SIGINT)  # as a terminal does, to all processes of the foreground
    assert node.wait_end() == 0


def test_sigterm_ends_a_node_that_is_in_no_cluster(nodes: Boot) -> None:
    for isolation in ("process", "inline"):
        node = nodes(1, isolation, fresh=True)[1]
        node.start()
        node.wait_up()
        assert node.stop() == 0


# --- crashes of one process ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("component", COMPONENTS)
def test_a_killed_process_is_started_again_and_the_node_works(kept: Kept, number: int, component: str) -> None:
    pair = kept(2, "process")
    node, other = pair[number], pair[3 - number]
    old = process_of(node, component)
    os.kill(old, signal.SIGKILL)

    node.wait("another process in its place", lambda _: process_of(node, component) not in (0, old), 30)
    node.wait("all functions to be there", has_all_functions, ask=("dcm", "components"))
    pair.wait_online()
    node.wait("its controllers to run", all_run, ask=("dcm", "plugins"))
    assert node.ended is None
    key = f"/app/crash/{component}/{number}"
    assert node.call("registry", "put", key=key, value="works")["succeeded"]
    found = other.covey("registry", "get", key)
    assert found.out == "works\n", found
    hosts = other.call("resources", "ls", cls="Host", fresh=True)["items"]
    assert [one["node"] for one in hosts] == [1, 2]
    assert all(one["attributes"]["Load1"] is not None for one in hosts)
    views = [one.call("liveness", "views", last=100) for one in pair]
    assert views[0] == views[1]


def has_all_functions(components: Any) -> bool:
    return set(components["ready"]) == set(components["functions"])


def all_run(plugins: Any) -> bool:
    return all(one["state"] == "running" or one["reason"].startswith("nothing to do") for one in plugins)


def process_of(node: Node, component: str) -> int:
    """Return the process id of a component, 0 when it has none. The kernel keeps 15 characters of a name."""
    return next((pid for pid, name in node.processes().items() if name == f"covey:{component}"[:15]), 0)


def test_a_crash_is_told_and_kept(kept: Kept) -> None:
    node = kept(2, "process")[2]

    def records() -> set[Path]:
        return set(node.state.glob("*/core/*groups*.json"))

    before = records()
    os.kill(process_of(node, "groups"), signal.SIGKILL)

    def crashed(said: Any) -> bool:
        return "groups" in said["crashed"] and "groups" in said["ready"] and records() > before

    said = node.wait("groups to be ready again", crashed, 30, ask=("dcm", "components"))
    assert "SIGKILL" in said["crashed"]["groups"]
    (record,) = records() - before
    assert "SIGKILL" in record.read_text()


def test_a_component_that_keeps_crashing_takes_its_node_offline_in_order(kept: Kept) -> None:
    lab = kept(2, "process")
    first, second = lab
    killed = 0

    def kill_again(status: Any) -> bool:
        nonlocal killed
        pid = process_of(second, "groups")
        if pid not in (0, killed):
            os.kill(pid, signal.SIGKILL)
            killed = pid
        return bool(status["node_state"] == "failed")

    status = second.wait("the node to give up", kill_again)
    assert "groups crashed" in status["reason"]
    assert process_of(second, "registry") == process_of(second, "liveness") == 0
    first.wait("it to be out", lambda said: said["view"]["members"] == [1], 30)
    shown = second.covey("-o", "json", "node", "show")
    assert shown.data["state"] == "offline"
    assert "groups crashed" in shown.data["reason"]
    assert second.covey("node", "online", "--wait").code == 0
    lab.wait_online()
