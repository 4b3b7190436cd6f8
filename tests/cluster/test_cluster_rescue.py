"""What is saved can be brought back on another machine, and what is left after a loss can be gone on from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest
from covey.testing import Cluster, Node

pytestmark = pytest.mark.cluster

Nodes = Callable[..., Cluster]
VALUES: dict[str, Any] = {"/app/text": "012", "/app/list": [1, None, {"ü": 1.5}], "/app/large": "x" * 900_000}


def put(node: Node, key: str, value: Any) -> int:
    """Write through a node; return the exit code."""
    return node.covey("registry", "put", key, json.dumps(value), "--json").code


def values(node: Node) -> dict[str, Any]:
    """Return all that users wrote, read exactly."""
    return {item["key"]: item["value"] for item in node.call("registry", "ls", prefix="/app/")["items"]}


def writable(status: Any) -> bool:
    return bool(status["writable"])


def test_a_backup_becomes_the_cluster_again_on_another_machine(nodes: Nodes) -> None:
    lab = nodes(3)
    one, two, new = lab
    for node in (one, two):
        node.start()
        node.wait_up()
    one.call("dcm", "cluster_define", name="lab")
    one.wait_online()
    one.define(two, name="n2", number=2)
    two.wait_online()
    for key, value in VALUES.items():
        one.call("registry", "put", key=key, value=value)
    file = str(lab.folder / "night.backup")
    told = two.covey("registry", "backup", file, "-o", "json").data  # not a registry server
    assert told["cluster"]["name"] == "lab"
    assert told["revision"] == one.call("registry", "status")["revision"]
    assert put(one, "/app/late", 1) == 0
    again = two.covey("-o", "json", "registry", "backup", file)
    assert (again.code, again.error["code"]) == (5, "core.refused")
    for node in (one, two):
        node.kill()
    shutil.rmtree(one.state)

    node_file = str(new.file)
    checked = new.covey("registry", "restore", file, "--node", node_file, "--check", "-o", "json").data
    assert (checked["node"], checked["replaces"], checked["others"]) == ({"number": 1, "name": "n3"}, "n1", [2])
    assert not (new.state / checked["cluster"]["id"]).exists()
    assert new.covey("registry", "restore", file, "--node", node_file).code == 2  # nobody was asked, nobody said yes
    done = new.covey("registry", "restore", file, "--node", node_file, "--yes", "-o", "json").data
    assert done["before"] == told["incarnation"]
    assert done["incarnation"][0] == told["incarnation"][0] + 1
    new.start()
    new.wait_online()
    assert values(new) == VALUES
    assert put(new, "/app/after", 1) == 0
    status = new.call("registry", "status")
    assert (status["primary"], status["incarnation"][0]) == (1, done["incarnation"][0])
    assert new.covey("cluster", "wait-for", "members=1").code == 0  # the backup lists n2 as a member; it was killed
    listed = {node["number"]: (node["name"], node["state"]) for node in new.covey("-o", "json", "node", "ls").data}
    assert listed == {1: ("n3", "online"), 2: ("n2", "offline")}
    refused = new.covey("-o", "json", "registry", "restore", file, "--node", node_file, "--yes")
    assert (refused.code, refused.error["code"]) == (5, "dcm.already_running")
    assert str(new.pid) in refused.error["message"]

    # the other node comes back by being defined anew: what it knows of the lost machine is no use to it
    two.start()
    two.wait_up()
    assert two.covey("node", "offline", "--wait").code == 0
    assert two.covey("node", "forget", "lab", "--yes").code == 0
    new.define(two, name="n2", number=2)
    two.wait_online()
    assert values(two) == {**VALUES, "/app/after": 1}
    assert [node["state"] for node in two.covey("-o", "json", "node", "ls").data] == ["online", "online"]


def test_the_registry_is_forced_when_a_majority_is_lost_for_good(cluster: Any) -> None:
    lab: Cluster = cluster(3, isolation="inline")
    one, two, three = lab
    for number in (2, 3):
        one.call("registry", "define_server", server=number, timeout=30.0)

    def all_vote(status: Any) -> bool:
        states = sorted(server["state"] for server in status["servers"])
        return states == ["follower", "follower", "primary"] and status["writable"]

    one.wait("three registry servers", all_vote, ask=("registry", "status"))
    for key, value in VALUES.items():
        one.call("registry", "put", key=key, value=value, timeout=30.0)
    two.kill()
    three.kill()
    assert put(one, "/app/lost", 1) in (6, 7)  # no majority
    running = one.covey("-o", "json", "registry", "force", "--yes")
    assert (running.code, running.error["code"]) == (5, "dcm.already_running")
    assert str(one.pid) in running.error["message"]
    one.kill()

    seen = one.covey("registry", "force", "--check", "-o", "json").data
    assert (seen["best"], sorted(seen["servers"]), sorted(seen["missing"])) == (1, [1, 2, 3], [2, 3])
    assert one.covey("registry", "force").code == 2  # nobody to ask
    told = one.covey("registry", "force", "--yes")
    assert told.code == 0, told.err
    assert "lost: whatever is behind entry" in told.out
    one.start()
    status = one.wait("writes", writable, ask=("registry", "status"))
    assert status["incarnation"][0] == 1
    assert [server["number"] for server in status["servers"]] == [1]
    found = values(one)
    found.pop("/app/lost", None)  # it was never acknowledged, and may be there
    assert found == VALUES
    assert put(one, "/app/after", 1) == 0

    # those that were lost come back, with copies that would be a majority: what they held counts for nothing
    two.start()
    three.start()
    for node in (two, three):
        node.wait_online()
        node.wait(
            "the registry of now",
            lambda status: status["incarnation"][0] == 1 and status["primary"] == 1,
            ask=("registry", "status"),
        )
        assert values(node) == values(one)
        assert [server["number"] for server in node.call("registry", "status")["servers"]] == [1]
    assert one.call("registry", "status")["primary"] == 1
    one.call("registry", "define_server", server=2, timeout=30.0)

    def filled(status: Any) -> bool:
        return sorted(server["state"] for server in status["servers"]) == ["follower", "primary"]

    one.wait("the old server to be filled anew", filled, ask=("registry", "status"))
