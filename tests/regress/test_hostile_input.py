"""Local files that are gone or unreadable, and values nested without end, are told by name."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from covey.bus.messages import NodeInfo
from covey.cli.connection import _check_cluster
from covey.cli.registry import _json
from covey.components.dcm import supervisor
from covey.components.dcm.layout import Layout
from covey.components.dcm.storage import Store
from covey.components.dcm.verbs import _numeric
from covey.errors import CoveyError, LocalDamaged, NotFound, UsageError, WrongCluster


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(Layout(tmp_path))
    store.prepare()
    return store


def test_a_missing_server_list_is_no_empty_one(store: Store) -> None:
    with pytest.raises(LocalDamaged, match=r"servers\.json is missing"):
        store.servers("a" * 32)
    with pytest.raises(LocalDamaged, match=r"nodes\.json is missing"):
        store.nodes("a" * 32)


def test_a_file_that_cannot_be_read_is_named(store: Store) -> None:
    store.layout.clusters_file.mkdir(parents=True)
    with pytest.raises(LocalDamaged, match=r"clusters\.json cannot be read: Is a directory"):
        store.clusters()


def test_without_the_list_of_clusters_a_node_that_has_one_is_not_undefined(store: Store) -> None:
    assert store.clusters().current is None
    folder = store.layout.cluster("a" * 32).configuration
    folder.mkdir(parents=True)
    (folder / "node.json").write_text("{}")
    with pytest.raises(LocalDamaged, match=rf"clusters\.json is missing.* {'a' * 32}"):
        store.clusters()


def test_a_state_folder_that_is_a_file_is_said(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("")
    with pytest.raises(CoveyError, match=r"the state folder .*taken cannot be made: File exists"):
        supervisor.run(SimpleNamespace(node=SimpleNamespace(state_dir=str(taken))))


def test_a_host_name_that_cannot_be_one_is_not_found() -> None:
    with pytest.raises(NotFound):
        asyncio.run(_numeric("a" * 300 + ":7400"))


@pytest.mark.parametrize("wanted", ["", "other"])
def test_an_empty_cluster_option_is_a_cluster_that_is_not_this_one(wanted: str) -> None:
    bus: Any = SimpleNamespace(node=NodeInfo(1, "n1", "i", "c1", "lab", "b"))
    with pytest.raises(WrongCluster):
        _check_cluster(bus, wanted)
    _check_cluster(bus, None)


def test_json_nested_without_end_is_a_mistake_of_the_user() -> None:
    with pytest.raises(UsageError):
        _json("[" * 100_000)
