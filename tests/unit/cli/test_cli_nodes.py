"""`covey node`, and nodes named by number or name wherever a node is meant."""

from __future__ import annotations

import json
from typing import Any

import pytest
from covey.bus.messages import NodeInfo

NODES = [
    {"number": 1, "name": "n1", "id": "a", "boot_id": "b1", "state": "online", "addresses": ["127.1.0.1/16"]},
    {"number": 2, "name": "db", "id": "b", "boot_id": "b2", "state": "offline", "addresses": ["127.1.0.2/16"]},
    {"number": 3, "name": "db", "id": "c", "boot_id": "b3", "state": "online", "addresses": ["127.1.0.3/16"]},
]


@pytest.fixture
def nodes(bus: Any) -> Any:
    bus.answers["dcm", "node_ls"] = NODES
    bus.answers["dcm", "node_show"] = lambda number: NODES[number - 1]
    return bus


def test_by_number_by_name_and_this_one(covey, nodes) -> None:  # type: ignore[no-untyped-def]
    for typed in (["1"], ["n1"], []):
        answer = covey("node", "show", *typed, "-o", "json")
        assert json.loads(answer.stdout)["data"] == NODES[0]
    assert covey("node", "show", "3").exit_code == 0


@pytest.mark.parametrize(
    ("typed", "code", "says"), [("db", 2, "numbers 2, 3"), ("n11", 4, "did you mean n1"), ("xyz", 4, "covey node ls")]
)
def test_names_that_fit_none_or_several(typed: str, code: int, says: str, covey, nodes) -> None:  # type: ignore[no-untyped-def]
    answer = covey("node", "show", typed)
    assert (answer.exit_code, says in answer.stderr) == (code, True)


def test_this_node_in_no_cluster(covey, nodes) -> None:  # type: ignore[no-untyped-def]
    nodes.node = NodeInfo()
    answer = covey("node", "show", "-o", "json")
    assert answer.exit_code == 5
    assert json.loads(answer.stdout)["error"]["code"] == "dcm.not_defined"
    found = json.loads(covey("node", "ls", "-o", "json").stdout)
    assert (found["cluster"], found["node"]) == (None, None)


def test_ls(covey, nodes) -> None:  # type: ignore[no-untyped-def]
    lines = covey("node", "ls").stdout.splitlines()
    assert lines[0].split() == ["NUMBER", "NAME", "STATE", "ADDRESSES", "ID"]
    assert lines[2].split() == ["2", "db", "offline", "127.1.0.2/16", "b"]


def test_define(covey, nodes) -> None:  # type: ignore[no-untyped-def]
    nodes.answers["dcm", "node_define"] = {"number": 3, "name": "db"}
    answer = covey("node", "define", "127.1.0.3:7400", "--number", "3", "--wait", "-o", "json")
    assert answer.exit_code == 0, answer.stdout
    assert json.loads(answer.stdout)["data"] == {"number": 3, "name": "db"}
    given = {"address": "127.1.0.3:7400", "name": None, "number": 3, "id": None, "token": None}
    assert nodes.calls[0] == ("dcm", "node_define", given)
    assert [verb for _, verb, _ in nodes.calls] == ["node_define", "node_show"]  # waited until it was online


def test_a_script_does_not_wait_unless_told(covey, nodes) -> None:  # type: ignore[no-untyped-def]
    nodes.answers["dcm", "node_online"] = {"number": 2, "state": "pending online"}
    assert covey("node", "online", "2").exit_code == 0
    assert [verb for _, verb, _ in nodes.calls] == ["node_online"]
    answer = covey("node", "online", "2", "--wait", "--timeout", "10ms")
    assert (answer.exit_code, "node 2 is offline" in answer.stderr) == (7, True)


def test_undefine_asks(covey, nodes) -> None:  # type: ignore[no-untyped-def]
    nodes.answers["dcm", "node_undefine"] = None
    answer = covey("node", "undefine", "2")
    assert answer.exit_code == 2
    assert "--yes" in answer.stderr
    assert nodes.calls == []
    assert covey("node", "undefine", "2", "--yes").exit_code == 0
    assert nodes.calls == [("dcm", "node_undefine", {"number": 2})]


def test_verdict(covey, nodes) -> None:  # type: ignore[no-untyped-def]
    verdict = {"original": "a", "local": "a", "global": "a", "scenario": 1, "action": "join", "reason": "all agree"}
    nodes.answers["dcm", "node_verdict"] = verdict
    assert "scenario  1" in covey("node", "verdict").stdout
    assert json.loads(covey("node", "verdict", "-o", "json").stdout)["data"] == verdict


def test_boot_log(covey, nodes) -> None:  # type: ignore[no-untyped-def]
    log = [
        {"step": 0, "component": "os", "event": "boot", "at": "t", "ms": 0.0, "how": "done", "waiting_for": None},
        {"step": 1, "component": "dcm", "event": "start", "at": "t", "ms": 12.4, "how": "done", "waiting_for": None},
        {
            "step": 5,
            "component": "registry",
            "event": "p1",
            "at": None,
            "ms": None,
            "how": "waiting",
            "waiting_for": "x",
        },
    ]
    nodes.answers["dcm", "node_boot_log"] = log
    lines = covey("node", "boot-log").stdout.splitlines()
    assert lines[2].split() == ["1", "12", "+12", "dcm", "done", "start", "-"]
    assert lines[3].split() == ["5", "-", "-", "registry", "waiting", "p1", "x"]
    covey("node", "boot-log", "3")
    assert json.loads(covey("node", "boot-log", "-o", "json").stdout)["data"] == log


def test_start_of_a_bad_file_starts_nothing(covey, tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "n1.yaml"
    file.write_text("node: {nmae: n1}\n")
    answer = covey("node", "start", str(file))
    assert answer.exit_code == 10
    assert "n1.yaml:1:8: error[config.unknown_key]" in answer.stderr


def test_ping(covey, nodes) -> None:  # type: ignore[no-untyped-def]
    nodes.answers["dcm", "ping"] = {"service": "dcm"}
    found = json.loads(covey("ping", "dcm@n1", "--count", "2", "-o", "json").stdout)["data"]
    assert (found["service"], found["node"], len(found["rtt_ms"])) == ("dcm", 1, 2)
    assert found["route"] == ["client-1", "broker@1", "dcm@1"]
    found = json.loads(covey("ping", "dcm@3", "-o", "json").stdout)["data"]
    assert found["route"] == ["client-1", "broker@1", "broker@3", "dcm@3"]
    assert nodes.options[-1]["node"] == 3
    assert covey("ping", "dcm").stdout.splitlines()[-1] == "way: client-1 > broker@1 > dcm@1"
    nodes.answers["bus", "status"] = {"losses": {"events_dropped": 4, "no_target": 1}}
    line = "broker@3 has lost or refused since its start: events_dropped 4, no_target 1"
    assert line in covey("ping", "dcm@3").stdout.splitlines()
    nodes.answers["bus", "status"] = {"losses": {}}
    assert "lost" not in covey("ping", "dcm@3").stdout


@pytest.mark.parametrize("typed", ["@1", "dcm@"])
def test_ping_of_nothing(typed: str, covey) -> None:  # type: ignore[no-untyped-def]
    assert covey("ping", typed).exit_code == 2


# --- moving and changing ----------------------------------------------------------------------------------------------

STEPS = [
    {"step": "m1", "ms": 6.0, "what": "the target has this node and answers"},
    {"step": "m2", "ms": 2.0, "what": "w"},
]
MOVING = {"state": "moving", "from": "A", "to": "B", "ms": 8.0, "steps": STEPS, "error": None}


def test_move_waits_for_its_end_and_tells_each_step(covey, nodes) -> None:  # type: ignore[no-untyped-def]
    said = iter([MOVING, {**MOVING, "state": "idle", "ms": 250.0}])
    nodes.answers["dcm", "node_move"] = MOVING
    nodes.answers["dcm", "node_moving"] = lambda: next(said)
    answer = covey("node", "move", "--to", "B", "-o", "json")
    assert json.loads(answer.stdout)["data"] == {"from": "A", "to": "B", "ms": 250.0, "steps": STEPS}
    given = {"to": "B", "force": False, "wait": False, "number": None}
    assert [call for call in nodes.calls if call[1] != "node_moving"] == [("dcm", "node_move", given)]
    lines = covey("node", "move", "--to", "B", "--no-wait").stdout.splitlines()
    assert lines[:3] == ["from  A", "to    B", "ms    8"]
    assert lines[4].split()[:2] == ["m1", "6"]


def test_a_move_that_failed_is_an_error(covey, nodes) -> None:  # type: ignore[no-untyped-def]
    nodes.answers["dcm", "node_move"] = MOVING
    error = {"code": "dcm.move_failed", "message": "the node was not online there within 30 s", "hint": "look"}
    nodes.answers["dcm", "node_moving"] = {**MOVING, "state": "idle", "error": error}
    answer = covey("node", "move", "--to", "B")
    assert (answer.exit_code, answer.stderr.splitlines()[0]) == (1, f"error[dcm.move_failed]: {error['message']}")


def test_nobody_here_sees_the_end_of_another_nodes_move(covey, nodes) -> None:  # type: ignore[no-untyped-def]
    nodes.answers["dcm", "node_move"] = MOVING
    assert covey("node", "move", "2", "--to", "B").exit_code == 0
    assert nodes.calls[-1] == ("dcm", "node_move", {"to": "B", "force": False, "wait": False, "number": 2})


def test_modify(covey, nodes) -> None:  # type: ignore[no-untyped-def]
    nodes.answers["dcm", "node_modify"] = {"number": 2, "name": "web", "definition_id": "d", "key": "k"}
    answer = covey("node", "modify", "2", "--name", "web", "--address", "127.1.0.2/16", "--port", "7402")
    assert answer.stdout.splitlines() == ["number  2", "name    web"]
    given = {"number": 2, "name": "web", "addresses": ["127.1.0.2/16"], "port": 7402}
    assert nodes.calls[-1] == ("dcm", "node_modify", given)


def test_cluster_online_and_offline_report_each_node(covey, nodes) -> None:  # type: ignore[no-untyped-def]
    good = {"number": 1, "name": "n1", "state": "checking", "error": None}
    bad = {"number": 2, "name": "db", "state": None, "error": {"code": "bus.unreachable", "message": "nobody there"}}
    nodes.answers["dcm", "cluster_online"] = [good, bad]
    answer = covey("cluster", "online", "--wait")
    assert answer.exit_code == 1
    assert [line.split()[:3] for line in answer.stdout.splitlines()[1:]] == [["1", "n1", "online"], ["2", "db", "-"]]
    nodes.answers["dcm", "cluster_offline"] = [{**bad}, {**good, "state": "leaving"}]
    nodes.answers["dcm", "cluster_status"] = {"node_state": "offline"}
    found = json.loads(covey("cluster", "offline", "--wait", "-o", "json").stdout)["data"]
    assert [one["state"] for one in found] == [None, "offline"]


def test_cluster_undefine_asks_and_tells_who_was_away(covey, nodes) -> None:  # type: ignore[no-untyped-def]
    told = [{"number": 1, "name": "n1", "erased": True}, {"number": 2, "name": "db", "erased": False}]
    nodes.answers["dcm", "cluster_undefine"] = {"name": "lab", "id": "c", "nodes": told}
    assert covey("cluster", "undefine", "lab").exit_code == 2
    answer = covey("cluster", "undefine", "lab", "--yes", "--force")
    assert [line.split()[1:] for line in answer.stdout.splitlines()[1:]] == [["n1", "removed"], ["db", "away"]]
    assert nodes.calls == [("dcm", "cluster_undefine", {"which": "lab", "force": True})]


def test_cluster_modify(covey, nodes) -> None:  # type: ignore[no-untyped-def]
    nodes.answers["dcm", "cluster_modify"] = {"name": "night", "id": "c"}
    assert covey("cluster", "modify", "--name", "night").stdout.splitlines() == ["name  night", "id    c"]
