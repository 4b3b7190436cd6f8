"""How a lab is: which of its daemons run, and what the cluster says of each node."""

from __future__ import annotations

import sys
import time
from typing import Any

from ...errors import CoveyError
from ..connection import opened
from ..options import Settings
from ..output import Block, Fields, Stream, Table
from .folder import Lab, Node
from .processes import running

ASK_SECONDS = 2.0
"""How long one node may take to say how the cluster is, before another is asked."""

_COLUMNS = ("node", "pid", "running", "state", "addresses", "log")


async def look_at(lab: Lab) -> dict[str, Any]:
    """Return what `covey lab status` shows; `state` is the cluster's word, None when no node can be asked."""
    daemons = {node.number: running(node) for node in lab}
    states = await _states([node for node in lab if daemons[node.number]])
    nodes = []
    for node in lab:
        daemon = daemons[node.number]
        nodes.append(
            {
                "node": node.number,
                "name": node.name,
                "pid": daemon.pid if daemon else None,
                "running": daemon is not None,
                "state": states.get(node.number),
                "addresses": node.addresses,
                "state_dir": str(node.state),
                "log": str(node.log),
            }
        )
    return {"dir": str(lab.folder), "cluster": lab.cluster, "port": lab.port, "nodes": nodes}


async def _states(nodes: list[Node]) -> dict[int, str]:
    for node in nodes:
        try:
            async with opened(Settings(state=str(node.state)), ASK_SECONDS) as session:
                status = await session.call("dcm", "cluster_status")
        except CoveyError:
            continue
        return {int(found["number"]): str(found["state"]) for found in status["nodes"]}
    return {}


def blocks(data: dict[str, Any]) -> list[Block]:
    """Return how a person sees a lab."""
    head = Fields([("lab", data["dir"]), ("cluster", data["cluster"]), ("port", data["port"])])
    return [head, "", _table(data)]


def _table(data: dict[str, Any]) -> Table:
    rows = [(n["name"], n["pid"], n["running"], n["state"], n["addresses"], n["log"]) for n in data["nodes"]]
    return Table(_COLUMNS, rows, "no nodes")


async def show_until(lab: Lab, ended: Any, stream: Stream) -> None:
    """Show the live table until `ended` is set: redrawn on a terminal, a line for every change in a pipe."""
    import asyncio

    if sys.stdout.isatty() and stream.form == "table":
        from rich.live import Live

        from ..terminal import drawn

        with Live(auto_refresh=False) as live:
            while not ended.is_set():
                live.update(drawn(_table(await look_at(lab))), refresh=True)
                await _pause(ended, 1.0)
        return
    last: dict[str, Any] = {}
    while not ended.is_set():
        data = await look_at(lab)
        if data != last:
            states = ", ".join(
                f"{n['name']} {n['state'] or ('runs' if n['running'] else 'gone')}" for n in data["nodes"]
            )
            stream.line(data, f"{time.strftime('%H:%M:%S')} {states}")
            last = data
        await _pause(ended, 1.0)
    await asyncio.sleep(0)


async def _pause(ended: Any, seconds: float) -> None:
    import asyncio

    try:
        await asyncio.wait_for(ended.wait(), seconds)
    except TimeoutError:
        pass
