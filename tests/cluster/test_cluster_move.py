"""A node of two clusters on one machine: moved without a restart of its processes, and killed on its way."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from covey.errors import CoveyError
from covey.testing import Cluster, Node

pytestmark = pytest.mark.cluster

Boot = Callable[..., Cluster]


def two_clusters(lab: Cluster) -> tuple[Node, Node, Node]:
    """Found A on the first node and B on the second, and define the third to both, as 2 and as 7; it is online in A."""
    for node in lab:
        node.start()
    first, second, third = lab
    for node, name, number in ((first, "A", 2), (second, "B", 7)):
        node.wait_up()
        node.call("dcm", "cluster_define", name=name)
        node.wait_online()
        third.wait_up()
        made = node.define(third, number=number)
        assert made["number"] == number
        third.wait_online()
    return first, second, third


def place(node: Node) -> tuple[str, int]:
    """Wait until a node is online and no move is under way; return its cluster and its number there."""
    node.wait("no move to be under way", lambda said: said["state"] == "idle", 60, ask=("dcm", "node_moving"))
    status = node.wait_online(60)
    pointers = {one["name"]: (one["current"], one["target"]) for one in node.call("dcm", "cluster_ls")}
    assert sorted(pointers.values()) == [(False, False), (True, True)]
    assert pointers[status["name"]] == (True, True)
    return status["name"], node.call("dcm", "node_show")["number"]


def seen(node: Node, number: int, *, inside: bool) -> None:
    what = f"{number} to be {'a' if inside else 'no'} member"
    node.wait(what, lambda status: (number in status["view"]["members"]) == inside, 30)


def opened(node: Node) -> int:
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in node.processes())


def test_a_node_moves_to_and_fro_in_the_same_processes(nodes: Boot) -> None:
    first, second, third = two_clusters(nodes(3, "process"))
    assert place(third) == ("A", 2)
    family = third.processes()
    first.call("registry", "put", key="/app/where", value="in A")

    moved = third.covey("-o", "json", "node", "move", "--to", "B")
    assert moved.code == 0, moved
    assert (moved.data["from"], moved.data["to"]) == ("A", "B")
    assert [step["step"] for step in moved.data["steps"]] == ["m1", "m2", "m3", "m4", "m5", "m6"]
    assert moved.data["ms"] == pytest.approx(sum(step["ms"] for step in moved.data["steps"]), abs=1)
    assert place(third) == ("B", 7)
    assert third.processes() == family
    seen(first, 2, inside=False)
    seen(second, 7, inside=True)
    assert third.covey("registry", "get", "/app/where").code == 4  # it is of the other cluster
    found = second.call("resources", "ls", cls="Host", of_node=7)["items"]
    assert [row["node"] for row in found] == [7]  # what was known of it is in B's registry at once
    assert {line["step"] for line in third.call("dcm", "node_boot_log")} == set(range(25))

    for refused, code, words in (
        (third.covey("-o", "json", "node", "move", "--to", "B"), 5, "in B already"),
        (third.covey("-o", "json", "node", "move", "--to", "C"), 4, "no data of a cluster"),
    ):
        assert (refused.code, words in refused.error["message"]) == (code, True), refused
    away = second.covey("node", "move", "7", "--to", "A")  # asked at another node: it returns when that has begun
    assert away.code == 0, away
    third.wait("the node to be in A", lambda status: status["name"] == "A" and status["node_state"] == "online")
    assert place(third) == ("A", 2)
    before = opened(third)
    for target in ("B", "A", "B", "A"):
        assert third.call("dcm", "node_move", to=target, timeout=60.0)["to"] == target
    assert third.processes() == family
    assert opened(third) <= before + 4  # a link to the other cluster may still be open
    audit = [line for line in (third.state / "dcm/logs/audit.log").read_text().splitlines() if '"moved"' in line]
    assert len(audit) == 6

    # the only registry server of a cluster goes only when forced, and can come back though nobody answers there
    second.define(first, number=8)
    kept = first.covey("-o", "json", "node", "move", "--to", "B")
    assert kept.code == 5
    assert "lose its quorum" in kept.error["message"]
    assert first.call("dcm", "node_move", to="B", force=True, timeout=60.0)["to"] == "B"
    refused = third.covey("-o", "json", "node", "move", "--to", "A")  # it is there, without a quorum
    assert "in A already" in refused.error["message"]
    assert third.call("dcm", "node_move", to="B", force=True, timeout=60.0)["to"] == "B"
    gone = third.covey("-o", "json", "node", "move", "--to", "A")
    assert (gone.code, "no registry server of A answers" in gone.error["message"]) == (5, True)
    assert first.call("dcm", "node_move", to="A", timeout=60.0)["to"] == "A"
    assert third.call("dcm", "node_move", to="A", timeout=60.0)["to"] == "A"
    assert first.call("registry", "get", key="/app/where")["value"] == "in A"


def test_a_node_that_is_killed_on_its_way_comes_back_in_exactly_one(nodes: Boot) -> None:
    first, second, third = two_clusters(nodes(3))
    at = "A"
    for step in ("m1", "m2", "m3", "m4", "m5"):
        assert third.stop() == 0
        third.environment["COVEY_CRASH_AT"] = step
        third.start()
        third.wait_online()
        target = "AB".replace(at, "")
        with pytest.raises(CoveyError):
            third.call("dcm", "node_move", to=target, timeout=60.0)
        assert third.wait_end() == -signal.SIGKILL
        del third.environment["COVEY_CRASH_AT"]
        third.start()
        at, number = place(third)
        assert at == (target if step != "m1" else "A"), step
        assert (at, number) in {("A", 2), ("B", 7)}
        seen(first, 2, inside=at == "A")
        seen(second, 7, inside=at == "B")

    # with its target away it waits there for it, and is in neither; both pointers are on the disk all the while
    target = "AB".replace(at, "")
    there = first if target == "A" else second
    third.call("dcm", "node_move", to=target, wait=False, timeout=60.0)
    there.kill()
    third.kill()
    third.start()
    third.wait("the node to try", lambda said: said["node_state"] in ("checking", "online"))
    there.start()
    there.wait_online()
    assert place(third)[0] in ("A", "B")
