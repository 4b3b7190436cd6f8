"""A write that enters where no primary is known yet must still say since which index its request id has been in use.

It did not: it was stamped before a primary was found, with nothing, and a retry after thousands of other writes
could have been applied a second time.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from covey.components.registry import entries
from covey.components.registry.layout import folder_of
from covey.components.registry.loading import load
from covey.errors import NoQuorum, NoService
from real_nodes import story
from registry_nodes import CLUSTER, Node, cluster


async def answers(node: Node) -> None:
    """Wait until the registry of a node is on its bus; nobody leads yet."""
    while True:
        try:
            await node.bus.call("registry", "get", key="/app/a", consistency="stale")
        except NoQuorum:
            return
        except NoService:
            await asyncio.sleep(0.01)


@story
async def test_a_write_waits_for_a_primary_and_is_stamped_then() -> None:
    with tempfile.TemporaryDirectory(prefix="cv") as folder:
        async with cluster(Path(folder)) as (one, two, _):
            await two.start()
            await answers(two)
            put = {"op": "put", "key": "/app/a", "value": 1}
            asked = asyncio.ensure_future(two.bus.call("registry", "txn", then=[put], system=True, timeout=10.0))
            await one.start()
            assert (await asked)["succeeded"]
            await one.stop()
            loaded, _ = load(folder_of(one.folder / CLUSTER), CLUSTER)
            bodies = [entries.decode(record).body for record in loaded.entries]
            (written,) = [body for body in bodies if isinstance(body, entries.Transacted)]
            assert written.since > 0
