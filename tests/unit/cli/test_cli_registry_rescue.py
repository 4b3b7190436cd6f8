"""`covey registry restore` and `force`: what is refused before anything is touched, and what a person is asked."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from covey.bus.security import make_keys
from covey.cli import registry_rescue
from covey.components.dcm.definitions import ClusterDefinition, NodeDefinition, plain
from covey.components.dcm.layout import Layout
from covey.components.dcm.storage import Store as LocalStore
from covey.components.registry import backup, entries, records
from covey.components.registry.keys import pack_value
from covey.components.registry.recovery import encode_snapshot
from covey.components.registry.store import Store

CLUSTER = "c" * 32


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A backup of a cluster with the nodes 1 and 2."""
    keys: dict[str, Any] = {"/cluster/definition": plain(ClusterDefinition("lab", CLUSTER)), "/app/a": 1}
    keys["/cluster/servers"] = {"servers": [1], "primary": 1}
    for number in (1, 2):
        node = NodeDefinition(number, f"old{number}", f"id-{number}", f"{number}" * 32, (f"127.9.0.{number}/16",), 7400)
        keys |= {f"/nodes/{number}": plain(node), f"/index/node-name/old{number}": {"number": number}}
        keys |= {f"/index/node-id/id-{number}": {"number": number}}
        keys |= {f"/index/node-address/127.9.0.{number}:7400": {"number": number}}
    store = Store()
    then = tuple((key, pack_value(key, value)) for key, value in sorted(keys.items()))
    store.apply(entries.Entry(1, 1, 0, entries.Founded(CLUSTER, 0, then)))
    backup.write(tmp_path / "night.backup", encode_snapshot(store, records.START), "2026-01-01T00:00:00.000Z")
    return tmp_path / "night.backup"


@pytest.fixture
def node_file(tmp_path: Path) -> Path:
    make_keys(tmp_path / "n.key")
    path = tmp_path / "n.yaml"
    path.write_text(
        "node: {name: fresh, state_dir: ./n, identity: generated, adapters: [127.9.0.7/16]}\n"
        "security: {key: {file: n.key}}\n"
    )
    return path


def test_a_look_changes_nothing_and_says_what_would_be(covey, saved, node_file, tmp_path) -> None:  # type: ignore[no-untyped-def]
    words = ["registry", "restore", str(saved), "--node", str(node_file), "--check"]
    data = json.loads(covey(*words, "-o", "json").stdout)["data"]
    assert (data["node"], data["replaces"], data["others"]) == ({"number": 1, "name": "fresh"}, "old1", [2])
    assert (data["before"], data["incarnation"][0]) == ([0, 1, 1], 1)
    text = covey(*words).stdout
    assert "fresh becomes node 1 in place of old1 and the only registry server of lab" in text
    assert not (tmp_path / "n").exists()


def test_restore_asks_and_makes_it(covey, saved, node_file, tmp_path) -> None:  # type: ignore[no-untyped-def]
    words = ["registry", "restore", str(saved), "--node", str(node_file)]
    assert covey(*words).exit_code == 2  # there is nobody to ask
    assert not (tmp_path / "n" / CLUSTER).exists()
    answer = covey(*words, "--number", "2", "--yes")
    assert answer.exit_code == 0, answer.stderr
    assert "next: covey node start" in answer.stderr
    local = LocalStore(Layout(tmp_path / "n"))
    node = local.node(CLUSTER)
    assert node is not None and (node.number, node.name) == (2, "fresh")
    assert node.id == json.loads((tmp_path / "n" / "dcm" / "identity.json").read_text())["content"]["id"]
    again = covey(*words, "--yes")
    assert (again.exit_code, "knows a cluster already" in again.stderr) == (5, True)


def test_restore_refuses_what_it_cannot_use(covey, saved, node_file, tmp_path) -> None:  # type: ignore[no-untyped-def]
    here = ["--node", str(node_file), "--yes"]
    assert covey("registry", "restore", str(node_file), *here).exit_code == 10
    assert covey("registry", "restore", str(tmp_path / "none"), *here).exit_code == 10
    assert covey("registry", "restore", str(saved), "--node", str(tmp_path / "none.yaml"), "--yes").exit_code == 10
    assert covey("--state", str(tmp_path / "m"), "registry", "restore", str(saved), *here).exit_code == 2
    whole = saved.read_bytes()
    saved.write_bytes(whole[:-1])
    assert "cut short" in covey("registry", "restore", str(saved), *here).stderr
    assert not (tmp_path / "n").exists() and not (tmp_path / "m").exists()


@pytest.fixture
def restored(covey, saved, node_file, tmp_path) -> Path:  # type: ignore[no-untyped-def]
    """A state folder whose node is the only registry server."""
    assert covey("registry", "restore", str(saved), "--node", str(node_file), "--yes").exit_code == 0
    found: Path = tmp_path / "n"
    return found


def test_force_looks_at_the_folder_of_the_state_option(covey, restored) -> None:  # type: ignore[no-untyped-def]
    data = json.loads(covey("--state", str(restored), "registry", "force", "--check", "-o", "json").stdout)["data"]
    assert (data["best"], data["servers"], data["missing"], data["doubtful"]) == (1, [1], [], None)
    assert data["copies"][0]["incarnation"][0] == 1
    text = covey("registry", "force", str(restored), "--check").stdout
    assert "a majority, which needs no force" in text
    assert covey("registry", "force", str(restored), str(restored), "--check").exit_code == 5
    assert covey("registry", "force", str(restored / "dcm"), "--check").exit_code == 10


def test_force_wants_the_name_of_the_cluster(covey, restored, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    assert covey("registry", "force", str(restored)).exit_code == 2  # there is nobody to ask

    class Terminal:
        def isatty(self) -> bool:
            return True

    for typed, code in (("no", 5), ("", 5), ("lab", 0)):
        monkeypatch.setattr(click, "prompt", lambda *_, typed=typed, **__: typed)
        monkeypatch.setattr(registry_rescue, "sys", type("System", (), {"stdin": Terminal(), "stderr": sys.stderr}))
        answer = covey("registry", "force", str(restored))
        assert answer.exit_code == code, answer.stderr
        assert "the best copy is that of node 1" in answer.stdout
        assert ("is the only registry server now" in answer.stdout) == (code == 0)
    data = json.loads(covey("registry", "force", str(restored), "--yes", "-o", "json").stdout)["data"]
    assert data["incarnation"][0] == 3
