"""A whole node in one process and one loop (`isolation: inline`): for tests, labs and small machines.

The same code as with processes; only the endpoint differs (`inproc`), and a task stands where a process stood.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from typing import Any

from ...bus.broker_service import run_broker
from ...bus.client import connect
from ...bus.loop import run
from ...errors import CoveyError
from ...plugins.manager import PluginManager
from .child import (
    broker_settings,
    causes,
    last_words,
    load_own,
    raise_file_limit,
    run_component,
    run_dcm,
    set_up_logging,
)
from .processes import Exit

log = logging.getLogger(__name__)


class TaskSpawner:
    """Starts and stops tasks (`processes.Spawner`), each with its own connection to the bus."""

    def __init__(self, endpoint: str, plugins: PluginManager) -> None:
        self._endpoint = endpoint
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._exits: asyncio.Queue[Exit] = asyncio.Queue()
        self._plugins = plugins

    async def start(self, name: str) -> None:
        """Start a task unless it runs."""
        if name not in self._tasks:
            self._tasks[name] = asyncio.get_running_loop().create_task(self._run(name), name=name)

    async def stop(self, name: str, deadline: float) -> None:
        """Cancel a task and wait for its end, at most `deadline` seconds."""
        task = self._tasks.pop(name, None)
        if task:
            task.cancel()
            await asyncio.wait([task], timeout=deadline)

    async def exits(self) -> AsyncIterator[Exit]:
        """Every end that no `stop` asked for."""
        while True:
            yield await self._exits.get()

    async def close(self) -> None:
        """End all."""
        for name in list(self._tasks):
            await self.stop(name, 5.0)

    async def _run(self, name: str) -> None:
        reason = "it returned"
        try:
            async with connect(endpoint=self._endpoint, name=name, component=True) as bus:
                await run_component(name, bus, self._plugins)
        except asyncio.CancelledError:
            raise
        except Exception as problem:
            known = all(isinstance(cause, CoveyError) for cause in causes(problem))
            reason = last_words(problem)
            log.error("%s: %s", name, reason, exc_info=None if known else problem)
        self._tasks.pop(name, None)
        self._exits.put_nowait(Exit(name, 1, reason))


async def run_node(config: Any, shutdown: asyncio.Event) -> None:
    """Run a node on this loop until `shutdown` is set and it has left in order."""
    plugins = PluginManager()
    load_own(plugins)
    async with run_broker(broker_settings(config, plugins)) as (broker, _):
        spawner = TaskSpawner(broker.endpoint, plugins)
        try:
            async with connect(endpoint=broker.endpoint, name="dcm", component=True) as bus:
                # a list of its own: it shows what processes say of controllers, and loads none itself
                await run_dcm(config, bus, PluginManager(), spawner, shutdown)
        finally:
            await spawner.close()


def run_inline(config: Any) -> int:
    """Run a node in the foreground until SIGTERM or SIGINT; returns the exit code."""

    async def main() -> None:
        shutdown = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, shutdown.set)
        await run_node(config, shutdown)

    set_up_logging("node")
    raise_file_limit()
    run(main())
    return 0
