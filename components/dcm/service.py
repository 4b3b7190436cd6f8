"""The Distributed Configuration Manager on the bus: the verbs of `dcm`, and the tasks behind them.

Thin: a verb checks its arguments, forwards what is another node's to that node's DCM, feeds a machine or asks a part,
and writes the audit line of what it changed. What belongs to later work is there, and says so (`unbuilt.py`).
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...bus.client import Client
from ...plugins.hookspecs import Component
from ...plugins.manager import PluginManager
from . import dependencies, life
from .daemon import Daemon
from .definer import Definer
from .dependencies import Graphs
from .home import Home
from .mover import Mover
from .plugin_list import PluginList
from .processes import Spawner
from .settings import SHUTDOWN_TIME, STOP_TIME
from .sources import installed_sources
from .verbs import Verbs
from .watching import Watcher

log = logging.getLogger(__name__)


@dataclass
class DcmContext:
    """What the DCM's process is given."""

    config: Any
    state_dir: Path
    spawner: Spawner
    bus: Client
    plugins: PluginManager
    shutdown: asyncio.Event


async def main(context: DcmContext) -> None:
    """Run the DCM until the daemon is told to end and the node has left in order; errors of its parts end it too."""
    graphs = declared(context.plugins)
    sources = installed_sources(context.plugins)
    home = await asyncio.to_thread(Home, context.config, context.state_dir, context.bus, sources)
    swept = await asyncio.to_thread(_look_around, home)
    for cluster_id in swept:
        await home.audit(
            "dcm", "local_erased", "done", cluster=cluster_id, reason="a crash left it half made or erased"
        )
    await home.tell_repairs()
    await home.tell_broker(again=True)
    for name in sorted(getattr(context.spawner, "running", ()), reverse=True):
        await context.spawner.stop(
            name, STOP_TIME
        )  # left over by a DCM that crashed: they belong to a boot that is over

    order = tuple(name for name in graphs.order if name != "dcm")
    daemon = Daemon(home, context.spawner, life.Plan(order, dict(graphs.offered_by)))
    definer = Definer(home, daemon)
    plugins = PluginList(context.plugins, home.settings["controllers"])
    plugins.blocked = home.blocked
    watcher = Watcher(home, daemon)
    mover = Mover(home, daemon)
    verbs = Verbs(home, daemon, definer, watcher, mover, plugins, graphs)
    mover.start()  # before anybody can ask whether a move is under way
    async with context.bus.serve("dcm", verbs):
        works = (daemon.run(), definer.run(), watcher.run(), mover.run())
        tasks: list[asyncio.Task[None]] = [asyncio.ensure_future(work) for work in works]
        ended: asyncio.Task[Any] = asyncio.ensure_future(context.shutdown.wait())
        try:
            daemon.start()
            await asyncio.wait([*tasks, ended], return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
            daemon.feed(life.OfflineAsked("the daemon ends", operator=False))
            async with asyncio.timeout(SHUTDOWN_TIME):
                await daemon.settled(("undefined", "offline", "failed"))
        except TimeoutError:
            log.error("the node did not leave within %g s", SHUTDOWN_TIME)
        finally:
            for task in (*tasks, ended):
                task.cancel()
            await asyncio.gather(*tasks, ended, return_exceptions=True)
            await definer.close()
            await daemon.close()


def declared(plugins: PluginManager) -> Graphs:
    """Return the graphs of the installed components; CycleError when they cannot be started."""
    plugins.load("covey.components")
    found: dict[str, Component] = {}
    for plugin, component in plugins.call("covey_component"):
        if component.name in found:
            plugins.fail("covey.components", plugin, f"another plugin declares the component {component.name!r}")
        else:
            found[component.name] = component
    return dependencies.build(found.values())


def _look_around(home: Home) -> list[str]:
    """Finish what a crash left, then read who this node is. A damaged file stops the sweep, not the daemon."""
    home.load()
    swept: list[str] = []
    if not home.problem:
        swept = home.store.sweep()
        home.load()
    home.read_original()
    return swept
