"""The exit codes that scripts rely on, and no traceback in any of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from covey.testing import Cluster, Node

pytestmark = pytest.mark.cluster

CASES = [
    (4, "registry.not_found", ["registry", "get", "/app/no/such/key"]),
    (4, "core.not_found", ["node", "show", "n9"]),
    (4, "core.not_found", ["plugin", "why", "nobody"]),
    (4, "bus.no_service", ["ping", "nobody"]),
    (4, "bus.unknown_node", ["ping", "dcm@9"]),
    (4, "bus.unknown_node", ["tap", "--node", "9", "--for", "1s"]),
    (4, "bus.unknown_node", ["node", "online", "9"]),
    (4, "core.not_found", ["ping", "dcm@n9"]),
    (4, "core.not_found", ["registry", "define-server", "9"]),
    (4, None, ["resource", "ls", "NoSuchClass"]),
    (4, None, ["group", "show", "no-such-group"]),
    (5, "registry.reserved_key", ["registry", "put", "/nodes/1", "x"]),
    (5, "registry.reserved_key", ["registry", "delete", "/cluster/definition"]),
    (5, "registry.reserved_key", ["registry", "put", "/else/where", "x"]),
    (5, "registry.wrong_cluster", ["--cluster", "another", "registry", "get", "/nodes/1"]),
    (5, "registry.wrong_cluster", ["--cluster", "another", "node", "ls"]),
    (2, "registry.bad_key", ["registry", "put", "app/x", "x"]),
    (2, "core.usage", ["registry", "put"]),
    (2, "core.usage", ["no-such-noun"]),
    (2, "core.usage", ["cluster", "wait-for", "nothing-known"]),
    (7, "core.timeout", ["cluster", "wait-for", "members=9", "--timeout", "500ms"]),
    (4, "core.not_found", ["node", "move", "n2", "--to", "other"]),
    (1, "core.not_implemented", ["reload"]),
    (2, "expression.invalid", ["resource", "ls", "Host", "-s", "Lod1 > 1"]),
    (2, "expression.invalid", ["tap", 'knid == "event"', "--for", "1s"]),
    (2, "resource.bad_attribute", ["resource", "set", "FileSystem", "/", "Size=1", "--node", "1"]),
    (2, "core.ambiguous", ["resource", "run", "FileSystem", "/", "Check"]),
    (2, "core.usage", ["resource", "undefine", "FileSystem", "/"]),
    (4, "resource.not_found", ["resource", "run", "FileSystem", "/", "Check", "--node", "1"]),
    (4, "resource.not_found", ["resource", "set", "FileSystem", "/no/where", "Size=1"]),
    (5, "resource.unsupported", ["resource", "define", "FileSystem", "MountPoint=/no/where", "--node", "n3"]),
]


@pytest.mark.parametrize(("code", "error", "words"), CASES, ids=[" ".join(case[2]) for case in CASES])
def test_what_fails_says_its_code(shared: Cluster, code: int, error: str | None, words: list[str]) -> None:
    answer = shared[2].covey("-o", "json", *words)
    assert answer.code == code, answer
    found = answer.error
    assert error in (None, found["code"])
    assert found["message"]
    assert json.loads(answer.out)["schema"] == "covey/error/1"


def test_for_a_person_it_stands_on_standard_error(shared: Cluster) -> None:
    text = shared[2].covey("registry", "get", "/app/no/such/key")
    assert text.code == 4
    assert text.err.startswith("error[registry.not_found]: ")
    assert text.out == ""


def test_a_false_comparison_is_3(shared: Cluster) -> None:
    node = shared[3]
    assert node.covey("registry", "put", "/app/compared", "1").code == 0
    answer = node.covey("-o", "json", "registry", "put", "/app/compared", "2", "--if-revision", "0")
    assert answer.code == 3
    assert not answer.data["succeeded"]
    assert node.covey("registry", "get", "/app/compared").out == "1\n"


def test_the_own_cluster_is_accepted_by_name_and_by_id(shared: Cluster) -> None:
    node = shared[2]
    (known,) = node.covey("-o", "json", "cluster", "ls").data
    assert known["current"]
    for called in (known["name"], known["id"]):
        assert node.covey("--cluster", called, "registry", "get", "/nodes/1").code == 0


def test_a_value_over_the_limit_is_refused(shared: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "change.json"
    file.write_text(json.dumps({"then": [{"op": "put", "key": "/app/large", "value": "x" * (2**20 + 1)}]}))
    answer = shared[3].covey("-o", "json", "registry", "txn", str(file))
    assert answer.code == 10
    assert "change.json:1:" in answer.error["message"] and "bus.too_large" in answer.error["message"]
    assert shared[3].covey("registry", "get", "/app/large").code == 4
    assert shared[3].covey("registry", "get", "/nodes/1").code == 0


@pytest.mark.parametrize("words", [["node", "ls"], ["registry", "get", "/app/x"], ["tap"], ["ping", "dcm"]])
def test_without_a_daemon_it_is_9(shared: Cluster, tmp_path: Path, words: list[str]) -> None:
    answer = shared[1].covey("--state", str(tmp_path / "empty"), "-o", "json", *words)
    assert answer.code == 9
    assert answer.error["code"] == "bus.no_daemon"
    assert str(tmp_path / "empty") in answer.error["message"]


@pytest.fixture(scope="module")
def alone() -> Iterator[Node]:
    """A node that is in no cluster."""
    with closing(Cluster(1, isolation="inline")) as lab:
        lab[1].start()
        lab[1].wait_up()
        yield lab[1]


@pytest.mark.parametrize(
    "words",
    [
        ["registry", "get", "/app/x"],
        ["registry", "status"],
        ["cluster", "views"],
        ["liveness", "status"],
        ["group", "ls"],
        ["resource", "ls", "Host"],
        ["resource", "classes"],
        ["node", "define", "127.0.0.1:1"],
        ["node", "online"],
        ["node", "offline"],
        ["node", "show"],
    ],
    ids=" ".join,
)
def test_in_no_cluster_it_is_5_and_says_what_to_do(alone: Node, words: list[str]) -> None:
    answer = alone.covey("-o", "json", *words)
    assert answer.code == 5, answer
    assert answer.error["code"] in ("dcm.not_defined", "dcm.not_online")
    assert "`covey " in answer.error["hint"]


@pytest.mark.parametrize("words", [["node", "ls"], ["cluster", "ls"], ["plugin", "ls"], ["ping", "dcm"]], ids=" ".join)
def test_what_needs_no_cluster_works_in_none(alone: Node, words: list[str]) -> None:
    assert alone.covey(*words).code == 0
