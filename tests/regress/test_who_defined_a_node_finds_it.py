"""`covey node define --wait` said on a busy machine that there was no such node: the watch had not told of it yet."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from covey import errors
from covey.components.dcm.watching import Watcher
from real_nodes import free_port, story
from whole_nodes import define_cluster, running


@story
async def test_who_changed_the_cluster_finds_it_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Watcher, "_follow", never)  # the slowest watch there is
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="cv") as name:
        folder = Path(name)
        async with running(folder, 1, port) as one, running(folder, 2, port):
            await define_cluster(one)
            made = await one.call("dcm", "node_define", address=f"127.1.0.2:{port}", timeout=20)
            assert (await one.call("dcm", "node_show", number=2))["name"] == made["name"]
            await one.call("dcm", "node_undefine", number=2, timeout=30)
            with pytest.raises(errors.NotFound):
                await one.call("dcm", "node_show", number=2)
