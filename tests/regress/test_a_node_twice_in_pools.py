"""A node that a balance file named once by its name and once by its number counted as two."""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path
from typing import Any

import pytest
from covey.cli.balance import _plan
from covey.components.dcm.balance_file import load_balance
from covey.errors import InvalidFile


class Asked:
    """A session of which only the list of nodes is wanted."""

    async def call(self, service: str, what: str) -> list[dict[str, Any]]:
        assert (service, what) == ("dcm", "node_ls")
        return [{"number": 3, "name": "n3"}]


@pytest.mark.parametrize(
    "pools",
    [
        "{p: {nodes: [n3, 3], clusters: {lab: 2}}}",
        "{p: {nodes: [n3], clusters: {lab: 1}}, q: {nodes: [3], clusters: {x: 1}}}",
    ],
)
def test_a_node_is_in_one_pool_once(pools: str, tmp_path: Path) -> None:
    noon = datetime.datetime(2026, 11, 23, 12, tzinfo=datetime.UTC)
    file = tmp_path / "pools.yaml"
    file.write_text(f"covey: 1\npools: {pools}\n")
    with pytest.raises(InvalidFile, match="is the node 3, which is in the pool 'p' already"):
        asyncio.run(_plan(Asked(), load_balance(file), noon))  # type: ignore[arg-type]
