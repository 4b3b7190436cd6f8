"""`covey registry define-server` and its like: what is asked, whom it waits for, and how it ends."""

from __future__ import annotations

import json
from typing import Any

import pytest
from covey.errors import NoQuorum, Refused


def servers(*states: str, lag: int | None = 0) -> dict[str, Any]:
    found = [
        {"number": number, "state": state, "incarnation": [0, 2, 9] if state != "offline" else None, "lag": lag}
        for number, state in enumerate(states, 1)
    ]
    return {"phase": "writes", "writable": True, "servers": found}


def batches(*found: Any) -> Any:
    """Answer each question with the next of these, and the last one ever after."""
    left = list(found)
    return lambda **_: left.pop(0) if len(left) > 1 else left[0]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("covey.cli.waiting.PAUSE_SECONDS", 0.001)


@pytest.mark.usefixtures("quick")
def test_servers_are_defined_one_after_the_other_and_waited_for(covey, bus) -> None:  # type: ignore[no-untyped-def]
    bus.answers["dcm", "node_ls"] = [{"number": 2, "name": "n2"}]
    bus.answers["dcm", "registry_define_server"] = {}
    bus.answers["registry", "status"] = batches(
        NoQuorum("electing"),
        servers("primary", "learner", lag=7),
        servers("primary", "follower"),
        servers("primary", "follower", "follower"),
    )
    answer = covey("registry", "define-server", "n2", "3", "--wait", "-o", "json")
    assert answer.exit_code == 0, answer.output
    asked = [given["number"] for service, verb, given in bus.calls if verb == "registry_define_server"]
    assert asked == [2, 3]
    assert json.loads(answer.stdout)["data"] == {"servers": servers("primary", "follower", "follower")["servers"]}


@pytest.mark.parametrize(
    ("words", "verb", "given"),
    [
        (["define-server", "2"], "registry_define_server", {"number": 2}),
        (["undefine-server", "2"], "registry_undefine_server", {"number": 2}),
        (["online", "2"], "registry_online", {"number": 2}),
        (["offline", "2"], "registry_offline", {"number": 2}),
        (["offline", "2", "--force"], "registry_offline", {"number": 2, "forced": True}),
    ],
)
def test_what_is_asked_and_shown(words: list[str], verb: str, given: dict[str, Any], covey, bus) -> None:  # type: ignore[no-untyped-def]
    bus.answers["dcm", verb] = {}
    bus.answers["registry", "status"] = servers("primary", "learner", lag=3)
    answer = covey("registry", *words)
    assert answer.exit_code == 0, answer.output
    assert bus.calls[0] == ("dcm", verb, given)
    lines = [line.split() for line in answer.stdout.splitlines()]
    assert lines == [
        ["SERVER", "STATE", "INCARNATION", "LAG"],
        ["1", "primary", "0.2.9", "3"],
        ["2", "learner", "0.2.9", "3"],
    ]


def test_a_change_that_is_refused_and_one_that_never_ends(covey, bus) -> None:  # type: ignore[no-untyped-def]
    bus.answers["dcm", "registry_offline"] = Refused("only 1 of 3 would answer", "bring the others back first")
    refused = covey("registry", "offline", "2", "-o", "json")
    assert refused.exit_code == 5
    assert json.loads(refused.stdout)["error"]["hint"] == "bring the others back first"
    bus.answers["dcm", "registry_online"] = {}
    bus.answers["registry", "status"] = servers("primary", "offline", lag=None)
    late = covey("registry", "online", "2", "--wait", "--timeout", "20ms")
    assert late.exit_code == 7 and "registry server 2: offline" in late.stderr
