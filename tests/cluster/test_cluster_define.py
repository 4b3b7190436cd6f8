"""Defining and undefining nodes: exactly one of two wins, and what a node missed it learns at its next join."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from covey.errors import CoveyError
from covey.testing import Cluster, Node

pytestmark = pytest.mark.cluster

Boot = Callable[..., Cluster]
Kept = Callable[[int, str], Cluster]


def started(lab: Cluster) -> Cluster:
    """Start all; the first is in a cluster, the others in none."""
    for node in lab:
        node.start()
    for node in lab:
        node.wait_up()
    lab[1].call("dcm", "cluster_define", name="lab")
    lab[1].wait_online()
    return lab


def define_all(member: Node, requests: list[dict[str, Any]]) -> list[Any]:
    """Send all at once, each over a connection of its own; return the answers and errors."""

    async def one(request: dict[str, Any]) -> Any:
        async with member.connect() as bus:
            return await bus.call("dcm", "node_define", timeout=30.0, **request)

    async def every() -> list[Any]:
        return await asyncio.gather(*(one(request) for request in requests), return_exceptions=True)

    return asyncio.run(every())


def numbers(node: Node) -> list[int]:
    return [one["number"] for one in node.call("dcm", "node_ls")]


# --- define ----------------------------------------------------------------------------------------------------------


def test_a_node_is_defined_as_a_person_does_it_and_not_twice(nodes: Boot) -> None:
    first, second = started(nodes(2))
    made = first.covey("-o", "json", "node", "define", *second.joining(), "--name", "two", "--number", "7", "--wait")
    assert made.code == 0
    assert (made.data["number"], made.data["name"]) == (7, "two")
    shown = second.covey("-o", "json", "node", "show").data
    assert (shown["number"], shown["name"], shown["state"]) == (7, "two", "online")

    again = first.covey("-o", "json", "node", "define", *second.joining())
    assert again.code == 5
    assert again.error["code"] == "dcm.already_defined"
    also = second.covey("-o", "json", "cluster", "define", "other")
    assert also.code == 5
    assert also.error["code"] == "dcm.node_online"
    assert numbers(first) == numbers(second) == [1, 7]
    assert len(second.covey("-o", "json", "cluster", "ls").data) == 1


def test_of_two_nodes_with_one_name_or_number_exactly_one_wins(nodes: Boot) -> None:
    first, second, third = started(nodes(3))
    exactly_one_wins(first, second, third, {"name": "twin"})
    for node in (second, third):
        first.call("dcm", "node_undefine", number=node.call("dcm", "node_show")["number"], timeout=30.0)
        node.wait("the node to be undefined", lambda status: status["node_state"] == "undefined")
    exactly_one_wins(first, second, third, {"number": 5})


def exactly_one_wins(first: Node, second: Node, third: Node, same: dict[str, Any]) -> None:
    answers = define_all(first, [{**node.prepared(), **same} for node in (second, third)])
    (won,) = [one for one in answers if isinstance(one, dict)]
    (lost,) = [one for one in answers if isinstance(one, CoveyError)]
    assert lost.code == "dcm.already_defined"
    winner, loser = (second, third) if isinstance(answers[0], dict) else (third, second)
    winner.wait_online()
    assert numbers(first) == [1, won["number"]]
    assert loser.call("dcm", "cluster_ls") == []
    assert [path.name for path in loser.state.iterdir() if len(path.name) == 32] == []
    assert loser.call("dcm", "cluster_status")["node_state"] == "undefined"
    first.define(loser, name="other")
    loser.wait_online()
    assert len(numbers(first)) == 3


def test_of_many_defines_of_one_node_exactly_one_wins(nodes: Boot) -> None:
    first, second = started(nodes(2))
    given = second.prepared()
    answers = define_all(first, [{**given, "name": f"name-{n}"} for n in range(6)])
    assert sum(isinstance(one, dict) for one in answers) == 1, answers
    lost = {one.code for one in answers if isinstance(one, CoveyError)}
    assert lost <= {"dcm.already_defined", "dcm.busy", "dcm.token_refused"}
    second.wait_online()
    assert numbers(first) == [1, 2]


def test_nodes_that_differ_can_be_defined_at_once(nodes: Boot) -> None:
    first, *others = started(nodes(4))
    answers = define_all(first, [node.prepared() for node in others])
    assert sorted(one["number"] for one in answers) == [2, 3, 4], answers
    for node in others:
        node.wait_online()


def test_an_address_where_nobody_listens_leaves_nothing_behind(nodes: Boot) -> None:
    first, second = nodes(2)
    first.start()
    first.wait_up()
    first.call("dcm", "cluster_define", name="lab")
    first.wait_online()
    second.start()
    second.wait_up()
    words = second.joining()
    second.kill()
    refused = first.covey("-o", "json", "node", "define", *words, "--name", "ghost")
    assert refused.code == 1
    assert refused.error["code"] == "bus.unreachable"
    assert second.address in refused.error["message"]
    assert numbers(first) == [1]
    second.start()
    second.wait_up()
    assert first.covey("node", "define", *second.joining(), "--name", "ghost", "--wait").code == 0


# --- undefine, and what a node learns at its join --------------------------------------------------------------------


def cluster_folders(node: Node) -> list[Path]:
    return [path for path in node.state.iterdir() if (path / "configuration").exists() and path.name != "dcm"]


def test_undefined_while_away_is_cleaned_up_at_the_return(kept: Kept) -> None:
    lab = kept(2, "inline")
    first, second = lab
    second.kill()
    first.wait("n2 to be gone", lambda status: status["view"]["members"] == [1], 30)
    for node, code, number in ((first, "doctor.silent", 2), (second, "doctor.no_daemon", None)):
        looked = node.covey("-o", "json", "doctor")
        errors = [(one["code"], one["node"]) for one in looked.data if one["severity"] == "error"]
        assert (looked.code, errors) == (3, [(code, number)])
    assert first.covey("node", "undefine", "n2", "--yes").code == 0
    assert numbers(first) == [1]
    assert len(cluster_folders(second)) == 1

    second.start()
    second.wait("the clean-up", lambda status: status["node_state"] == "undefined" and status["id"] is None, 30)
    assert cluster_folders(second) == []
    assert second.covey("-o", "json", "cluster", "ls").data == []
    verdict = second.covey("-o", "json", "node", "verdict").data
    assert (verdict["scenario"], verdict["action"]) == (2, "erase")
    assert verdict["original"] == verdict["local"]
    assert verdict["global"] is None
    second.kill()
    second.start()
    second.wait_up()
    assert second.covey("-o", "json", "node", "verdict").data == verdict
    assert first.covey("node", "define", *second.joining(), "--wait").code == 0
    lab.wait_online()
    assert [one for one in second.call("dcm", "doctor") if one["severity"] == "error"] == []


def test_an_online_node_is_undefined_in_order(kept: Kept) -> None:
    lab = kept(2, "inline")
    first, second = lab
    refused = first.covey("-o", "json", "node", "undefine", "n1", "--yes")
    assert refused.code == 5
    assert first.covey("node", "undefine", "n2").code == 2  # nobody at a terminal said yes
    done = first.covey("-o", "json", "node", "undefine", "n2", "--yes")
    assert done.code == 0
    assert done.data["erased"]
    assert cluster_folders(second) == []
    second.wait("the node to be undefined", lambda status: status["node_state"] == "undefined")  # it answers first
    (view,) = first.call("liveness", "views", last=1)
    assert (list(view["members"]), list(view["left"])) == ([1], [2])
    assert first.covey("-o", "json", "node", "show", "n2").code == 4
    assert first.covey("node", "define", *second.joining(), "--wait").code == 0
    lab.wait_online()


def test_a_node_put_offline_stays_so_over_a_restart(kept: Kept) -> None:
    lab = kept(2, "inline")
    first, second = lab
    assert first.covey("node", "offline", "n2", "--wait").code == 0
    assert second.call("dcm", "cluster_status")["node_state"] == "offline"
    second.kill()
    second.start()
    second.wait("its daemon to say so", lambda status: status["node_state"] == "offline")
    assert first.call("dcm", "cluster_status")["view"]["members"] == [1]
    assert first.covey("node", "online", "n2", "--wait").code == 0
    lab.wait_online()


# --- identity --------------------------------------------------------------------------------------------------------


def identity_in_a_file(node: Node) -> Path:
    """Let the node have its id from a file, as from a card that can be changed; return the file."""
    card = node.file.with_suffix(".card")
    card.write_text(f"card-one-of-{node.name}\n")
    node.file.write_text(node.file.read_text().replace("identity: generated", f"identity: {{file: {card}}}"))
    return card


def test_replaced_unreadable_and_undefined_identities(nodes: Boot) -> None:
    lab = nodes(2)
    cards = [identity_in_a_file(node) for node in lab]
    lab.up()
    for node, card in zip(lab, cards, strict=True):  # scenario 3, of the registry's node too
        assert node.stop() == 0
        card.write_text(f"new card of {node.name}\n")
        node.start()
        lab.wait_online()
        verdict = node.covey("-o", "json", "node", "verdict").data
        assert (verdict["scenario"], verdict["action"]) == (3, "replace")
        new = f"new card of {node.name}"
        for each in lab:
            each.wait(new, lambda said, new=new: said["id"] == new, ask=("dcm", "node_show"), number=node.number)

    first, second = lab
    away = cards[1].rename(cards[1].with_suffix(".away"))  # what cannot be read decides nothing
    second.kill()
    second.start()
    status = second.wait("the reason", lambda said: str(cards[1]) in said["reason"], 30)
    assert status["node_state"] == "checking"
    verdict = second.covey("-o", "json", "node", "verdict").data
    assert (verdict["scenario"], verdict["action"]) == (None, "wait")
    assert len(cluster_folders(second)) == 1
    away.rename(cards[1])
    lab.wait_online()
    assert second.covey("-o", "json", "node", "verdict").data["scenario"] == 1

    second.kill()  # scenario 4: undefined while away, and a new card
    first.wait("n2 to be gone", lambda status: status["view"]["members"] == [1], 30)
    first.call("dcm", "node_undefine", number=2)
    cards[1].write_text("another card\n")
    second.start()
    second.wait("the clean-up", lambda status: status["node_state"] == "undefined" and status["id"] is None, 30)
    assert second.covey("-o", "json", "node", "verdict").data["scenario"] == 4
    assert cluster_folders(second) == []


def test_a_copied_state_folder_is_a_clone_and_its_original_stays(nodes: Boot) -> None:
    lab = nodes(3)
    first, second, copy = lab
    for node in (first, second):
        node.start()
        node.wait_up()
    first.call("dcm", "cluster_define", name="lab")
    first.wait_online()
    first.define(second, name="n2", number=2)
    second.wait_online()
    boot_id = first.call("dcm", "node_show", number=2)["boot_id"]

    shutil.copytree(second.state, copy.state, ignore=shutil.ignore_patterns("run"))
    if second.key.exists():
        shutil.copy(second.key, copy.key)
    copy.start()
    copy.wait_up()
    status = copy.wait("the refusal", lambda said: said["node_state"] == "failed", 30)
    assert "clone" in status["reason"]
    verdict = copy.covey("-o", "json", "node", "verdict").data
    assert (verdict["scenario"], verdict["action"]) == (None, "refuse")
    assert len(cluster_folders(copy)) == 1
    refused = copy.covey("-o", "json", "node", "online", "--wait")
    assert refused.code == 8, refused
    assert refused.error["code"] == "identity.clone"
    assert first.call("dcm", "node_show", number=2)["boot_id"] == boot_id
    assert second.call("dcm", "cluster_status")["node_state"] == "online"
    assert first.call("dcm", "cluster_status")["view"]["members"] == [1, 2]
