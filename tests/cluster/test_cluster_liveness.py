"""Liveness with real daemons: paths on both networks, a stopped node, a killed one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from covey.testing import Cluster, Node

pytestmark = pytest.mark.cluster


def test_the_paths_of_both_networks_are_shown_and_nobody_suspects_anybody(shared: Cluster) -> None:
    one = shared[1]

    def all_ok(rows: list[dict[str, Any]]) -> bool:
        return len(rows) == 12 and all(row["state"] == "ok" and row["rtt_ms"] is not None for row in rows)

    one.wait("all paths to be seen", all_ok, ask=("liveness", "paths"))
    told = one.covey("-o", "json", "liveness", "paths")
    assert told.code == 0 and {(row["from_node"], row["to_node"]) for row in told.data} == {
        (a, b) for a in (1, 2, 3) for b in (1, 2, 3) if a != b
    }
    networks = sorted({row["network"] for row in told.data})
    assert len(networks) == 2 and all(row["rtt_ms"] >= 0 and row["arrives"] for row in told.data)
    some = one.covey("-o", "json", "liveness", "paths", "--network", networks[1])
    assert {row["network"] for row in some.data} == {networks[1]} and len(some.data) == 6
    assert len(one.covey("-o", "json", "liveness", "paths", "--network", "default").data) == 12
    assert one.covey("liveness", "paths", "--network", "elsewhere").code == 4
    text = one.covey("liveness", "paths").out
    assert networks[0] in text and "ok" in text
    for node in shared:
        status = node.call("liveness", "status")
        assert status["suspects"] == [] and status["quorate"] and status["probes"]["sent"] > 0
        assert status["networks"] == dict.fromkeys(networks, 3)


def freeze(node: Node, what: signal.Signals) -> None:
    """Stop or continue every process of a node, the daemon first and last: it watches the others."""
    pids = [node.pid, *(pid for pid in node.processes() if pid != node.pid)]
    for pid in pids if what == signal.SIGSTOP else reversed(pids):
        os.kill(pid, what)


def test_a_node_that_stands_still_for_a_while_costs_nobody_the_membership(
    kept: Callable[[int, str], Cluster],
) -> None:
    three = kept(3, "inline")
    one, two, last = three
    held = one.call("liveness", "status")["view"]
    freeze(last, signal.SIGSTOP)
    try:
        one.wait(
            "it to be silent for almost three seconds",
            lambda told: any(p["number"] == last.number and p["silent_s"] > 2.5 for p in told["peers"]),
            ask=("liveness", "status"),
        )
    finally:
        freeze(last, signal.SIGCONT)
    for node in (one, two, last):
        told = node.wait("nobody to be suspect", lambda told: told["suspects"] == [], ask=("liveness", "status"))
        assert told["view"]["id"] == held["id"]
    assert last.call("liveness", "status")["late_steps"] >= 1
