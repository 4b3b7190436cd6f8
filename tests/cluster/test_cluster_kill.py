"""A node that dies without a word: nothing of it stays, the others agree that it is gone, and it comes back itself."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from covey.testing import Cluster, Node

pytestmark = pytest.mark.cluster

Kept = Callable[[int, str], Cluster]
COMPONENTS = {"covey:broker", "covey:dcm", "covey:registry", "covey:liveness", "covey:groups", "covey:resources"}


def views(node: Node) -> list[list[Any]]:
    """Return the sequence of views as a node tells it, without the times."""
    found = node.call("liveness", "views", last=100)
    return [[view["id"], view["members"], view["joined"], view["left"]] for view in found]


def shown_views(node: Node) -> list[list[Any]]:
    """Return the same as the command line shows it."""
    found = node.covey("-o", "json", "cluster", "views", "--last", "100").data
    return [[view["id"], view["members"], view["joined"], view["left"]] for view in found]


def state_of(number: int, status: Any) -> str:
    return next(str(one["state"]) for one in status["nodes"] if one["number"] == number)


def boot_id_of(number: int, status: Any) -> str:
    return next(str(one["boot_id"]) for one in status["nodes"] if one["number"] == number)


@pytest.mark.parametrize("isolation", ["process", "inline"])
def test_a_killed_node_is_gone_seen_and_comes_back(
    kept: Kept, isolation: str, record_property: Callable[[str, object], None]
) -> None:
    lab = kept(3, isolation)
    first, second, third = lab
    before = boot_id_of(3, first.call("dcm", "cluster_status"))
    family = third.processes()
    if isolation == "process":
        assert set(family.values()) >= COMPONENTS, family

    began = time.monotonic()
    third.kill()  # the daemon's parent only; raises when a process is left
    for node in (first, second):
        node.wait("n3 to be offline", lambda status: state_of(3, status) == "offline", 30)
    record_property(f"offline_seconds_{isolation}", round(time.monotonic() - began, 2))
    assert not [pid for pid in family if alive(pid, family[pid])]

    told = views(first)
    assert views(second) == told
    assert shown_views(first) == shown_views(second)
    assert told[-1][1:] == [[1, 2], [], [3]]
    assert first.covey("registry", "put", "/app/while-away", "written").code == 0

    third.start()
    lab.wait_online()
    after = boot_id_of(3, first.call("dcm", "cluster_status"))
    assert after != before
    assert third.covey("registry", "get", "/app/while-away").out == "written\n"
    told = views(first)
    assert views(second) == views(third) == told
    assert told[-1][1] == [1, 2, 3]
    fresh = third.covey("-o", "json", "resource", "ls", "Host", "--node", "n3").data
    assert len(fresh) == 1


def test_the_death_of_the_registrys_node_stops_writes_not_the_others(kept: Kept) -> None:
    lab = kept(3, "inline")
    first, second, third = lab
    assert second.covey("registry", "put", "/app/before", "1").code == 0
    first.kill()
    for node in (second, third):
        node.wait("the loss of the quorum", lambda status: not status["quorate"], 30)
    refused = third.covey("-o", "json", "--timeout", "3s", "registry", "put", "/app/meanwhile", "2")
    assert refused.code in (6, 7), refused
    assert third.covey("cluster", "status").code == 3
    first.start()
    lab.wait_online()
    for node in lab:
        assert node.call("registry", "get", key="/app/before")["value"] == "1"
        assert node.call("registry", "put", key=f"/app/after/{node.number}", value=3)["succeeded"]
    assert views(first) == views(second) == views(third)


def test_two_nodes_killed_at_once_and_back_at_once(kept: Kept) -> None:
    lab = kept(3, "inline")
    first, second, third = lab
    for node in (second, third):
        os.kill(node.pid, signal.SIGKILL)
    first.wait("both to be offline", lambda status: status["view"]["members"] == [1], 30)
    for node in (second, third):
        node.kill()
        node.start()
    lab.wait_online()
    assert views(first) == views(second) == views(third)


def alive(pid: int, name: str) -> bool:
    """Whether that very process is still there (the kernel may have used its number again)."""
    try:
        text = Path("/proc", str(pid), "stat").read_text()
    except OSError:
        return False
    return f"({name})" in text and text.rpartition(")")[2].split()[0] not in "ZX"
