"""`covey log audit`: one node's log or all, and what it says of those it could not ask."""

from __future__ import annotations

import json
from typing import Any

from covey.errors import Refused

FIRST = {"at": "2026-01-01T00:00:00.000Z", "who": "client-1", "uid": 0, "what": "node_define", "outcome": "done"}
LATER = {**FIRST, "at": "2026-01-01T00:00:05.000Z", "what": "node_move", "with": {"to": "b", "forced": None}}
NODES = [{"number": 1, "state": "online"}, {"number": 2, "state": "offline"}, {"number": 3, "state": "online"}]


def test_one_node(bus: Any, covey: Any) -> None:
    bus.answers["dcm", "log_audit"] = {"entries": [FIRST, LATER], "breaks": []}
    answer = covey("log", "audit", "-s", 'outcome == "done"', "--last", "7")
    assert answer.exit_code == 0
    assert "node_move" in answer.stdout
    assert "to=b" in answer.stdout
    assert "forced" not in answer.stdout
    assert bus.calls == [("dcm", "log_audit", {"select": 'outcome == "done"', "last": 7})]


def test_all_nodes_are_merged_by_time_and_who_was_not_asked_is_named(bus: Any, covey: Any) -> None:
    logs = iter(([LATER], [FIRST]))
    bus.answers["dcm", "node_ls"] = NODES
    bus.answers["dcm", "log_audit"] = lambda **_: {
        "entries": next(logs),
        "breaks": [{"file": "audit.log", "line": 2, "reason": "it was changed"}],
    }
    answer = covey("log", "audit", "--node", "all", "-o", "json")
    found = json.loads(answer.stdout)
    assert [(one["node"], one["what"]) for one in found["data"]] == [(3, "node_define"), (1, "node_move")]
    assert found["warnings"] == [
        "not online, so not asked: node 2",
        "node 1: audit.log, line 2: it was changed",
        "node 3: audit.log, line 2: it was changed",
    ]


def test_who_may_not_is_told_so(bus: Any, covey: Any) -> None:
    bus.answers["dcm", "log_audit"] = Refused("dcm.audit needs the role operator")
    answer = covey("log", "audit")
    assert answer.exit_code == 5
    assert "operator" in answer.stderr
