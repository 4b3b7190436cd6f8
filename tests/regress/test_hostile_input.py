"""Local files that are gone or unreadable, and values nested without end, are told by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from covey.cli.registry import _json
from covey.components.dcm.layout import Layout
from covey.components.dcm.storage import Store
from covey.errors import LocalDamaged, UsageError


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


def test_json_nested_without_end_is_a_mistake_of_the_user() -> None:
    with pytest.raises(UsageError):
        _json("[" * 100_000)
