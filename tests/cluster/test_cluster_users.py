"""Other users of the machine on a real daemon: everybody may look, and only who has a role may do more (SPEC 13.3)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from covey.testing import Cluster, Node

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
]

Kept = Callable[[int, str], Cluster]
Nodes = Callable[..., Cluster]
NOBODY = 65534
SCRIPT = Path(__file__).parents[1] / "support" / "as_nobody.py"


def ask(node: Node, *calls: tuple[str, str, dict[str, Any]], uid: int = NOBODY) -> list[dict[str, Any]]:
    """Make calls on a node's bus as another user; return what each gave."""
    for folder in (node.state, *node.state.parents):
        if not folder.stat().st_mode & 0o001 and str(folder).startswith("/tmp/"):
            folder.chmod(folder.stat().st_mode | 0o011)  # the test's own temporary folder is root's alone
    words = [word for service, verb, arguments in calls for word in (service, verb, json.dumps(arguments))]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(node.state), str(uid), *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()[2:]]


def test_a_user_without_a_role_can_look_and_not_change(kept: Kept) -> None:
    node = kept(1, "inline")[1]
    assert node.covey("registry", "put", "/app/users", "before").code == 0
    listed, refused, got, offline, serve = ask(
        node,
        ("registry", "ls", {"prefix": "/app/"}),
        ("registry", "put", {"key": "/app/users", "value": "after"}),
        ("registry", "get", {"key": "/app/users"}),
        ("dcm", "node_offline", {}),
        ("dcm", "node_prepare", {}),
    )
    assert any(item["key"] == "/app/users" for item in listed["result"]["items"])
    assert refused["error"] == "bus.denied"
    assert "you have look" in refused["message"]
    assert got["result"]["value"] == "before"
    assert offline["error"] == "bus.denied"
    assert serve["error"] == "bus.denied"


def test_a_user_with_a_role_in_the_yaml_can_do_what_it_says(nodes: Nodes) -> None:
    cluster = nodes(1)
    node = cluster[1]
    text = node.file.read_text().replace("mode: open", "mode: open, roles: {operator: [nobody]}")
    node.file.write_text(text.replace("mode: curve", "mode: curve, roles: {operator: [nobody]}"))
    assert "nobody" in node.file.read_text()
    cluster.up()
    put, prepare = ask(node, ("registry", "put", {"key": "/app/users", "value": "after"}), ("dcm", "node_prepare", {}))
    assert put["result"]["succeeded"]
    assert prepare["error"] == "bus.denied"
    assert "you have operator" in prepare["message"]
