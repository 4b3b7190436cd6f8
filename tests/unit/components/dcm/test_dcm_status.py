"""What people see of a cluster, composed from what each component said."""

from __future__ import annotations

from typing import Any

import pytest
from covey.components.dcm.definitions import ClusterDefinition, NodeDefinition, NodeTable, Replica, ServerList
from covey.components.dcm.life import State
from covey.components.dcm.status import cluster_status, node_list

NODES = {n: NodeDefinition(n, f"n{n}", f"machine-{n}", f"{n:032}", (f"127.1.0.{n}/16",), 7400) for n in (1, 2, 3)}
HERE = Replica(ClusterDefinition("lab", "c" * 32), NODES[2], ServerList((1,), 1), NodeTable(NODES))


def view(*members: tuple[int, str, str]) -> dict[str, Any]:
    found = [
        {"number": number, "boot_id": boot, "state": state, "name": f"n{number}"} for number, boot, state in members
    ]
    return {"id": [3, 7], "members": found}


def states(found: list[dict[str, Any]]) -> list[tuple[str, str | None]]:
    return [(node["state"], node["boot_id"]) for node in found]


def test_a_member_is_what_the_view_says() -> None:
    seen = view((1, "a", "online"), (2, "b", "online"))
    assert states(node_list(HERE, seen, "online", "b")) == [("online", "a"), ("online", "b"), ("offline", None)]


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        ("checking", "pending online"),
        ("starting", "pending online"),
        ("leaving", "pending offline"),
        ("failed", "offline"),
        ("offline", "offline"),
    ],
)
def test_this_node_knows_better_of_itself_when_it_is_not_in(state: State, shown: str) -> None:
    found = node_list(HERE, view((1, "a", "online")), state, "b")
    assert found[1]["state"] == shown


def test_a_view_with_an_older_boot_of_this_node_is_not_believed() -> None:
    assert states(node_list(HERE, view((2, "old", "online")), "starting", "b"))[1] == ("pending online", "b")


def test_the_view_decides_between_pending_and_online() -> None:
    assert states(node_list(HERE, view((2, "b", "pending online")), "online", "b"))[1] == ("pending online", "b")


def test_an_undefined_node_sees_nothing() -> None:
    status = cluster_status(None, None, None, "undefined", "", "")
    assert (status["nodes"], status["quorate"], status["registry"]["phase"]) == ([], False, "offline")
    assert status["view"] == {"id": None, "members": []}


def test_everything_together() -> None:
    liveness = {"quorate": True, "view": view((1, "a", "online"), (2, "b", "online"))}
    registry = {
        "phase": "writes",
        "writable": True,
        "incarnation": [0, 2, 9],
        "revision": 5,
        "primary": 1,
        "servers": [{"number": 1, "state": "primary", "incarnation": [0, 2, 9], "lag": 0}],
        "closed_because": None,
        "tolerates": 0,
        "state_hash": "not for this page",
    }
    status = cluster_status(HERE, liveness, registry, "online", "", "b")
    assert (status["name"], status["quorate"]) == ("lab", True)
    assert status["view"] == {"id": [3, 7], "members": [1, 2]}
    assert status["registry"] == {key: value for key, value in registry.items() if key != "state_hash"}


def test_a_registry_that_does_not_answer_is_offline() -> None:
    status = cluster_status(HERE, None, None, "online", "", "b")
    assert status["registry"]["servers"] == [{"number": 1, "state": "offline"}]
    assert (status["registry"]["writable"], status["registry"]["primary"]) == (False, None)
    assert (status["registry"]["incarnation"], status["registry"]["revision"]) == (None, None)
