"""`covey network`, `subnet` and `address`: what is asked, and what is shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

NETWORK = {"name": "fast", "id": "f", "priorities": {"registry": 3, "bulk": 0}}
SUBNET = {"id": "s", "name": "front", "prefix": "10.1.0.0/16", "network": "fast", "hops": {"10.2.0.0/16": 3}}
ADDRESS = {"id": "10.1.0.7", "address": "10.1.0.7", "mask": 16, "node": 7, "name": "n7", "subnet": "front"}


@pytest.mark.parametrize(
    ("words", "verb", "given", "returned", "shown"),
    [
        (
            "network define fast registry=3 bulk=0",
            "network_define",
            {"name": "fast", "priorities": {"registry": 3, "bulk": 0}},
            NETWORK,
            "bulk=0, registry=3",
        ),
        ("network modify fast --name front", "network_modify", {"name": "fast", "new_name": "front"}, NETWORK, "fast"),
        ("network undefine fast", "network_undefine", {"name": "fast"}, None, "removed"),
        (
            "network priority fast registry=3 bulk=",
            "network_priority",
            {"name": "fast", "priorities": {"registry": 3, "bulk": None}},
            NETWORK,
            "registry=3",
        ),
        (
            "subnet define front 10.1.0.0/16 --network fast",
            "subnet_define",
            {"name": "front", "prefix": "10.1.0.0/16", "network": "fast"},
            SUBNET,
            "10.2.0.0/16=3",
        ),
        (
            "subnet modify front --network fast --hops 10.2.0.0/16=3",
            "subnet_modify",
            {"subnet": "front", "name": None, "prefix": None, "network": "fast", "hops": {"10.2.0.0/16": 3}},
            SUBNET,
            "fast",
        ),
        ("subnet undefine front", "subnet_undefine", {"subnet": "front"}, None, "removed"),
        (
            "address define 10.1.0.7/16 --node 7 --subnet front",
            "address_define",
            {"address": "10.1.0.7/16", "number": 7, "subnet": "front"},
            ADDRESS | {"network": "fast"},
            "10.1.0.7/16",
        ),
        (
            "address modify 10.1.0.6 --to 10.1.0.7/16",
            "address_modify",
            {"address": "10.1.0.6", "to": "10.1.0.7/16"},
            ADDRESS | {"network": "fast"},
            "n7",
        ),
        ("address undefine 10.1.0.7", "address_undefine", {"address": "10.1.0.7"}, None, "removed"),
        ("network ls", "network_ls", {}, [NETWORK | {"subnets": ["front", "back"]}], "front, back"),
        ("subnet ls", "subnet_ls", {}, [SUBNET | {"addresses": 3, "defined": True}], "front"),
        ("address ls", "address_ls", {}, [ADDRESS | {"network": "fast"}], "10.1.0.7/16"),
    ],
)
def test_what_is_asked_and_shown(words: str, verb: str, given: Any, returned: Any, shown: str, covey, bus) -> None:  # type: ignore[no-untyped-def]
    bus.answers["dcm", verb] = returned
    answer = covey(*words.split())
    assert answer.exit_code == 0, answer.output
    assert bus.calls == [("dcm", verb, given)]
    assert shown in answer.stdout
    assert json.loads(covey(*words.split(), "-o", "json").stdout)["data"] == returned


def test_explain_shows_the_order_and_the_rejected(covey, bus) -> None:  # type: ignore[no-untyped-def]
    first = {"address": "10.2.0.1", "node": 1, "subnet": "back", "network": "slow", "priority": None, "hops": 2}
    told = {
        "service": "registry",
        "from": 2,
        "addresses": [first | {"local": False}],
        "rejected": [{"address": "10.1.0.1", "reason": "the network fast has priority 0 for registry: never"}],
    }
    bus.answers["dcm", "network_explain"] = told
    answer = covey("network", "explain", "registry", "--from", "2")
    assert answer.exit_code == 0, answer.output
    assert "not set" in answer.stdout and "never" in answer.stdout
    assert bus.calls == [("dcm", "network_explain", {"service": "registry", "number": 2})]
    assert json.loads(covey("network", "explain", "registry", "--from", "2", "-o", "json").stdout)["data"] == told


def test_what_was_measured_can_be_made_to_count(covey, bus) -> None:  # type: ignore[no-untyped-def]
    rows = [
        {"from": "front", "to": "back", "address": "10.2.0.2", "hops": 3, "known": 2},
        {"from": "front", "to": "far", "address": "10.3.0.2", "hops": None, "known": 2},
    ]
    bus.answers["dcm", "network_measure"] = rows
    bus.answers["dcm", "subnet_modify"] = SUBNET
    assert "10.2.0.2" in covey("network", "measure").stdout
    assert [verb for _, verb, _ in bus.calls] == ["network_measure"]
    assert json.loads(covey("network", "measure", "--apply", "-o", "json").stdout)["data"] == rows
    assert bus.calls[-1] == ("dcm", "subnet_modify", {"subnet": "front", "hops": {"back": 3}})


def test_traffic_is_shown_and_watched(covey, bus, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    def row(network: str, out: int) -> dict[str, Any]:
        counts = {"messages_out": out, "messages_in": 1, "bytes_out": 10 * out, "bytes_in": 7}
        return {"network": network, "service": "registry", **counts}

    bus.answers["dcm", "network_traffic"] = [row("A", 2), row("B", 1)]
    assert json.loads(covey("network", "traffic", "-o", "json").stdout)["data"] == [row("A", 2), row("B", 1)]
    assert "20" in covey("network", "traffic", "--node", "2").stdout
    assert bus.calls[-1] == ("dcm", "network_traffic", {"number": 2})
    monkeypatch.setattr("covey.cli.network.LOOK_SECONDS", 0.001)
    asked = iter((2, 2, 5))
    bus.answers["dcm", "network_traffic"] = lambda **_: [row("A", next(asked)), row("B", 1)]
    watched = covey("network", "traffic", "--watch", "--count", "2", "-o", "json")
    added = {"messages_out": 3, "messages_in": 0, "bytes_out": 30, "bytes_in": 0}
    assert [json.loads(line) for line in watched.stdout.splitlines()] == [
        {"network": "A", "service": "registry", **added}
    ]


@pytest.mark.parametrize(
    "words",
    ["network priority fast", "network priority fast registry", "network define fast =3", "subnet modify front",
     "subnet modify front --hops back", "address define 10.1.0.7/16"],
)  # fmt: skip
def test_a_wrong_command_line_asks_nothing(words: str, covey, bus) -> None:  # type: ignore[no-untyped-def]
    assert covey(*words.split()).exit_code == 2
    assert not bus.calls
