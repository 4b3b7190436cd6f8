"""Whole nodes in one process, with every component, for tests of what nodes do together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from covey import errors
from covey.bus.client import Client, connect
from covey.bus.security import make_keys
from covey.components.dcm.audit import AuditLog
from covey.components.dcm.inline import run_node
from covey.config.node import load_node

PATIENCE = 30.0


@asynccontextmanager
async def running(
    folder: Path, number: int, port: int, identity: str = "", mode: str = "open"
) -> AsyncIterator[Client]:
    """Run a node while the context lasts; it leaves in order at the end. In mode curve it has a key file `n<k>.key`."""
    key = folder / f"n{number}.key"
    if mode == "curve" and not key.exists():
        make_keys(key)
    security = f"{{mode: curve, key: {{file: {key.name}}}}}" if mode == "curve" else "{mode: open}"
    (folder / f"n{number}.yaml").write_text(
        f"node: {{name: n{number}, state_dir: ./n{number}, identity: {identity or f'{{value: machine-{number}}}'}, "
        f"adapters: [127.1.0.{number}/16], port: {port}}}\n"
        f"security: {security}\nisolation: inline\ncontrollers: {{adapter: {{enabled: false}}}}\n"
    )
    shutdown = asyncio.Event()
    task = asyncio.ensure_future(run_node(load_node(folder / f"n{number}.yaml"), shutdown))
    try:
        async with AsyncExitStack() as stack:
            bus = await until(lambda: stack.enter_async_context(connect(folder / f"n{number}")), lambda _: True)
            await bus.wait_for_service("dcm")
            yield bus
    finally:
        shutdown.set()
        await asyncio.wait_for(task, PATIENCE)


async def until(ask: Callable[[], Awaitable[Any]], wanted: Callable[[Any], bool]) -> Any:
    """Ask until the answer is what is wanted; return it."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                answer = await ask()
            except (errors.CoveyError, OSError):
                pass
            else:
                if wanted(answer):
                    return answer
            await asyncio.sleep(0.02)


async def until_state(bus: Client, state: str, number: int | None = None) -> dict[str, Any]:
    found: dict[str, Any] = await until(
        lambda: bus.call("dcm", "node_show", number=number), lambda node: bool(node["state"] == state)
    )
    return found


async def until_phase(bus: Client, phase: str) -> dict[str, Any]:
    found: dict[str, Any] = await until(
        lambda: bus.call("dcm", "cluster_status"), lambda status: bool(status["node_state"] == phase)
    )
    return found


async def define_cluster(bus: Client) -> str:
    made = await bus.call("dcm", "cluster_define", name="lab")
    await until_state(bus, "online")
    return str(made["id"])


def audited(folder: Path, number: int) -> list[tuple[str, str]]:
    """Return (what, outcome) of a node's audit log, which must be whole."""
    log = AuditLog(folder / f"n{number}" / "dcm" / "logs" / "audit.log")
    assert log.verify() == []
    return [(entry["what"], entry["outcome"]) for entry in log.entries()]
