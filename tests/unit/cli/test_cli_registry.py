"""`covey registry` and `covey cluster`: what is asked, what is printed, and how it ends."""

from __future__ import annotations

import json
from typing import Any

import pytest
from covey.cli.registry import MOST_INPUT
from covey.errors import Compacted, CompareFailed, ConnectionLost, KeyNotFound, NoQuorum

STATUS = {
    "phase": "writes",
    "writable": True,
    "closed_because": None,
    "incarnation": [1, 2, 34],
    "revision": 12,
    "primary": 1,
    "servers": [{"number": 1, "state": "primary", "incarnation": [1, 2, 34], "lag": 0}],
    "tolerates": 0,
    "damaged": [],
}


def cluster(*states: str, quorate: bool = True, writable: bool = True) -> dict[str, Any]:
    nodes = [
        {"number": n, "name": f"n{n}", "id": f"id-{n}", "boot_id": "b", "state": state, "addresses": [f"127.1.0.{n}"]}
        for n, state in enumerate(states, 1)
    ]
    members = [node["number"] for node in nodes if node["state"] != "offline"]
    return {
        "quorate": quorate,
        "nodes": nodes,
        "registry": {**STATUS, "writable": writable, "phase": "writes" if writable else "reads"},
        "view": {"id": [2, len(members)], "members": members},
    }


def test_get_prints_text_as_it_is_and_json_otherwise(covey, bus) -> None:  # type: ignore[no-untyped-def]
    found = {"key": "/app/a", "value": "hello", "revision": 9, "mod_revision": 7, "consistency": "linear"}
    bus.answers["registry", "get"] = found
    assert covey("registry", "get", "/app/a").stdout == "hello\n"
    assert bus.calls[-1] == ("registry", "get", {"key": "/app/a", "consistency": "linear"})
    assert json.loads(covey("registry", "get", "/app/a", "-o", "json").stdout)["data"] == found
    bus.answers["registry", "get"] = {**found, "value": {"x": [1, None]}}
    assert covey("registry", "get", "/app/a").stdout == '{"x": [1, null]}\n'


def test_a_stale_read_is_marked(covey, bus) -> None:  # type: ignore[no-untyped-def]
    found = {"key": "/a", "value": 1, "revision": 9, "mod_revision": 7, "consistency": "stale"}
    bus.answers["registry", "get"] = found
    answer = covey("registry", "get", "/a", "--consistency", "stale")
    assert (answer.stdout, "old value" in answer.stderr) == ("1\n", True)
    assert json.loads(covey("registry", "get", "/a", "-o", "json").stdout)["warnings"]


def test_no_such_key(covey, bus) -> None:  # type: ignore[no-untyped-def]
    bus.answers["registry", "get"] = KeyNotFound("no key /app/x")
    assert covey("registry", "get", "/app/x").exit_code == 4


@pytest.mark.parametrize(
    ("words", "value"),
    [(["hello"], "hello"), (["7"], "7"), (["7", "--json"], 7), (['{"a": [1]}', "--json"], {"a": [1]})],
)
def test_put_takes_text_unless_json(words: list[str], value: Any, covey, bus) -> None:  # type: ignore[no-untyped-def]
    bus.answers["registry", "put"] = {"revision": 4, "succeeded": True}
    answer = covey("registry", "put", "/app/a", *words, "--if-revision", "3")
    assert (answer.exit_code, answer.stdout) == (0, "revision 4\n")
    assert bus.calls[-1][2] == {"key": "/app/a", "value": value, "if_revision": 3}


def test_put_takes_standard_input_for_a_dash(covey, bus) -> None:  # type: ignore[no-untyped-def]
    bus.answers["registry", "put"] = {"revision": 4, "succeeded": True}
    assert covey("registry", "put", "/app/a", "-", input="two\nlines\n").exit_code == 0
    assert bus.calls[-1][2]["value"] == "two\nlines\n"
    assert covey("registry", "put", "/app/a", "--json", "-", input="[1]").exit_code == 0
    assert bus.calls[-1][2]["value"] == [1]
    answer = covey("registry", "put", "/app/a", "-", input=b"\xff\xfe")
    assert (answer.exit_code, "UTF-8" in answer.stderr) == (2, True)
    called = len(bus.calls)
    answer = covey("registry", "put", "/app/a", "-", input="x" * (MOST_INPUT + 1))
    assert (answer.exit_code, "more than 4 MiB" in answer.stderr, len(bus.calls)) == (2, True, called)


def test_put_of_no_json_is_a_usage_error(covey, bus) -> None:  # type: ignore[no-untyped-def]
    answer = covey("registry", "put", "/app/a", "{", "--json")
    assert answer.exit_code == 2
    assert bus.calls == []


@pytest.mark.parametrize("outcome", [{"revision": 4, "succeeded": False}, CompareFailed("changed in between")])
def test_a_write_that_lost_the_race_is_exit_3(outcome: Any, covey, bus) -> None:  # type: ignore[no-untyped-def]
    bus.answers["registry", "delete"] = outcome
    assert covey("registry", "delete", "/app/a", "--if-revision", "3").exit_code == 3


def test_ls(covey, bus) -> None:  # type: ignore[no-untyped-def]
    items = [{"key": "/app/a", "value": "x" * 300, "mod_revision": 3}, {"key": "/app/b", "value": 1, "mod_revision": 4}]
    bus.answers["registry", "ls"] = {"items": items, "revision": 9, "consistency": "linear"}
    text = covey("registry", "ls", "/app/").stdout.splitlines()
    assert text[0].split() == ["KEY", "CHANGED", "AT", "VALUE"]
    assert len(text) == 3
    assert json.loads(covey("registry", "ls", "/app/", "-o", "json").stdout)["data"] == items


def test_txn_reads_yaml_and_json(covey, bus, tmp_path) -> None:  # type: ignore[no-untyped-def]
    bus.answers["registry", "txn"] = {"revision": 5, "succeeded": True}
    file = tmp_path / "change.yaml"
    file.write_text("compare: [{key: /app/a, mod_revision: 0}]\nthen:\n- {op: put, key: /app/a, value: hi}\n")
    assert covey("registry", "txn", str(file)).exit_code == 0
    given = {
        "compare": [{"key": "/app/a", "mod_revision": 0}],
        "then": [{"op": "put", "key": "/app/a", "value": "hi"}],
        "otherwise": [],
    }
    assert bus.calls[-1][2] == given
    assert covey("registry", "txn", "-", input=json.dumps(given)).exit_code == 0
    assert bus.calls[-1][2] == given


@pytest.mark.parametrize("text", ["[1, 2]", "when: []", "then: {op: put}", "then: [", "then: [put]"])
def test_txn_refuses_other_files(text: str, covey, bus, tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "change.yaml"
    file.write_text(text)
    answer = covey("registry", "txn", str(file))
    assert answer.exit_code == 10
    assert "change.yaml" in answer.stderr
    assert bus.calls == []


def batches(*found: Any) -> Any:
    """Answer each watch question with the next of these; the one after the last ends the test."""
    left = list(found)

    def answer(**given: Any) -> Any:
        return left.pop(0)

    return answer


def event(revision: int, key: str, value: Any = None, type: str = "put") -> dict[str, Any]:
    return {"type": type, "key": key, "value": value, "revision": revision}


def test_watch_prints_a_line_for_each_revision_and_goes_on_where_it_was(covey, bus) -> None:  # type: ignore[no-untyped-def]
    bus.answers["registry", "watch"] = batches(
        {"from": 13, "to": 12, "events": []},
        {"from": 13, "to": 14, "events": []},
        ConnectionLost("the broker was restarted"),
        {
            "from": 15,
            "to": 17,
            "events": [event(15, "/app/a", 1), event(15, "/app/b", 2), event(17, "/app/a", type="delete")],
        },
    )
    answer = covey("registry", "watch", "/app/", "--count", "2")
    assert answer.exit_code == 0, answer.stderr
    assert [json.loads(line) for line in answer.stdout.splitlines()] == [
        {
            "revision": 15,
            "events": [
                {"type": "put", "key": "/app/a", "value": 1},
                {"type": "put", "key": "/app/b", "value": 2},
            ],
        },
        {"revision": 17, "events": [{"type": "delete", "key": "/app/a", "value": None}]},
    ]
    asked = [given["from_revision"] for _, verb, given in bus.calls if verb == "watch"]
    assert asked == [0, 13, 15, 15]


def test_watch_from_too_far_back_says_where_to_resume(covey, bus) -> None:  # type: ignore[no-untyped-def]
    bus.answers["registry", "watch"] = Compacted("gone", "list again", compacted=90, revision=99)
    answer = covey("registry", "watch", "--from", "1", "-o", "json")
    assert answer.exit_code == 1
    assert json.loads(answer.stdout) == {"compacted": 90}


def test_watch_gives_up_when_the_registry_stays_away(covey, bus) -> None:  # type: ignore[no-untyped-def]
    bus.answers["registry", "watch"] = NoQuorum("no primary")
    assert covey("registry", "watch", "--from", "1", "--timeout", "1ms").exit_code == 6


def test_registry_status(covey, bus) -> None:  # type: ignore[no-untyped-def]
    bus.answers["registry", "status"] = STATUS
    text = covey("registry", "status").stdout
    assert "tolerates    no loss of a server" in text
    assert json.loads(covey("registry", "status", "-o", "json").stdout)["data"] == STATUS
    bus.answers["registry", "status"] = {
        **STATUS,
        "writable": False,
        "closed_because": "no group yet",
        "damaged": [{"path": "/x/log", "position": 17, "reason": "bad digest"}],
        "direct": [{"number": 2, "up": True}, {"number": 3, "up": False}, {"number": 4, "up": True}],
    }
    text = covey("registry", "status").stdout
    assert "direct links    to 2, 4; by the brokers to 3" in text
    assert "closed because  no group yet" in text
    assert "damaged: /x/log at byte 17: bad digest" in text


def test_cluster_status(covey, bus) -> None:  # type: ignore[no-untyped-def]
    bus.answers["dcm", "cluster_status"] = cluster("online", "pending online", "offline")
    answer = covey("cluster", "status")
    assert answer.exit_code == 0
    assert "1 of 3 online" in answer.stdout
    assert "2.2, members 1, 2" in answer.stdout
    bus.answers["dcm", "cluster_status"] = cluster("online", quorate=False)
    answer = covey("cluster", "status", "-o", "json")
    assert (answer.exit_code, json.loads(answer.stdout)["data"]["quorate"]) == (3, False)


@pytest.mark.parametrize(
    ("predicate", "states"),
    [
        ("online", [cluster("online", "offline"), cluster("online", "online")]),
        ("quorate", [cluster("online", quorate=False), cluster("online")]),
        ("writable", [cluster("online", writable=False), cluster("online")]),
        ("members=1", [cluster("online", "online"), cluster("online", "offline")]),
    ],
)
def test_wait_for(predicate: str, states: list[Any], covey, bus, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("covey.cli.waiting.PAUSE_SECONDS", 0.001)
    bus.answers["dcm", "cluster_status"] = batches(ConnectionLost("restarting"), *states)
    answer = covey("cluster", "wait-for", predicate, "-o", "json")
    assert answer.exit_code == 0, answer.stdout
    assert json.loads(answer.stdout)["data"] == states[-1]
    assert len(bus.calls) == 3


def test_wait_for_gives_up(covey, bus) -> None:  # type: ignore[no-untyped-def]
    bus.answers["dcm", "cluster_status"] = cluster("online", "offline")
    answer = covey("cluster", "wait-for", "online", "--timeout", "10ms")
    assert answer.exit_code == 7
    assert "n2 offline" in answer.stderr


@pytest.mark.parametrize("predicate", ["offline", "members=", "members=x"])
def test_wait_for_what(predicate: str, covey) -> None:  # type: ignore[no-untyped-def]
    assert covey("cluster", "wait-for", predicate).exit_code == 2


def test_views_and_clusters(covey, bus) -> None:  # type: ignore[no-untyped-def]
    views = [{"id": [1, 2], "members": [1, 2], "joined": [2], "left": [], "at": "2026-01-01T00:00:00Z"}]
    bus.answers["liveness", "views"] = views
    assert "1.2" in covey("cluster", "views", "--last", "1").stdout
    assert json.loads(covey("cluster", "views", "-o", "json").stdout)["data"] == views
    bus.answers["dcm", "cluster_ls"] = [{"name": "lab", "id": "x", "current": True, "target": True}]
    assert covey("cluster", "ls").stdout.splitlines()[1].split() == ["lab", "x", "yes", "yes"]
    bus.answers["dcm", "cluster_define"] = {"name": "lab", "id": "x"}
    assert covey("cluster", "define", "lab").stdout == "name  lab\nid    x\n"


@pytest.mark.parametrize(
    ("otherwise", "says"), [("[{op: delete, key: /app/a}]", "`otherwise` was applied"), ("[]", "nothing was written")]
)
def test_a_transaction_whose_comparison_fails(otherwise: str, says: str, covey, bus) -> None:  # type: ignore[no-untyped-def]
    bus.answers["registry", "txn"] = {"revision": 5, "succeeded": False}
    answer = covey("registry", "txn", "-", input=f"otherwise: {otherwise}")
    assert answer.exit_code == 3
    assert says in answer.stdout
