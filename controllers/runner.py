"""Runs controllers in this process: loads each, makes it, and serves it on the bus as `controller.<name>`.

The shipped ones share one process, a third-party one has its own; `isolation: inline` runs the same coroutines in one.
Knows no Resource Manager: that asks the services. A controller that does not import, does not fit its description or
cannot be made is served as failed with its reason, and the others run. A hanging call is left behind (`caller.py`);
only one that computes without end in a process of its own ends that process, which the DCM starts again after a
growing pause. Odd: even importing is done apart from the
loop and under a deadline, since a module can hang as well as a method.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from ..bus.client import Client
from ..bus.context import ComponentContext, Local
from ..errors import CoveyError, PluginError
from ..plugins.blame import home_of, tail
from ..plugins.manager import PluginManager
from . import options
from .binding import Bound, bind, described
from .caller import Caller
from .contract import GROUP, Controller, Node
from .served import ServedController

LOAD_DEADLINE = 10.0
"""Seconds an import, and then the making of the controller, may take."""


async def run_controllers(
    context: ComponentContext, plugins: PluginManager, name: str = "", *, alone: bool = False
) -> None:
    """Serve the third-party controller `name`, or all shipped ones that are enabled, until cancelled.

    `alone`: this process is for that controller only. Raises PluginError when it then computes without end.
    """
    settings = context.local.settings.get("controllers") or {}
    names = [name] if name else shipped(plugins, settings)
    if name and not _enabled(name, settings):  # blocked a moment ago: this process is ended soon
        names = []
    async with serving(context.bus, plugins, names, context.kept, context.local) as made:
        if alone and name and made:
            raise PluginError(f"the process of controller {name} is ended: {await made[0].spun()}")
        await asyncio.Event().wait()


def shipped(plugins: PluginManager, settings: Mapping[str, Any]) -> list[str]:
    """Return the names of covey's own controllers that are neither blocked nor disabled, and have something to do."""
    return [
        one.name
        for one in plugins.loadable(GROUP)
        if one.shipped and _enabled(one.name, settings) and options.has_work(one, settings)
    ]


def _enabled(name: str, settings: Mapping[str, Any]) -> bool:
    enabled: bool = (settings.get(name) or {}).get("enabled", True)
    return enabled


@asynccontextmanager
async def serving(
    bus: Client,
    plugins: PluginManager,
    names: Sequence[str],
    kept: dict[str, Any] | None = None,
    local: Local | None = None,
) -> AsyncIterator[list[ServedController]]:
    """Load and serve the controllers of these names while the context lasts; yields them, failed ones too.

    In `kept` is what earlier lives of this process loaded, class and description; the objects are made anew, each
    with its options from `local`, the node's configuration (None: nothing is configured).
    """
    loaded: dict[str, Bound] = {} if kept is None else kept.setdefault("controllers", {})
    async with AsyncExitStack() as stack:
        made = []
        for one in await asyncio.gather(*(_made(bus, plugins, name, stack, loaded, local) for name in names)):
            await stack.enter_async_context(bus.serve(f"controller.{one.name}", one))
            made.append(one)
        yield made


async def _made(
    bus: Client,
    plugins: PluginManager,
    name: str,
    stack: AsyncExitStack,
    loaded: dict[str, Bound],
    local: Local | None,
) -> ServedController:
    """Load one controller and make its object; never raises for what the plugin does."""
    candidate = next((one for one in plugins.loadable(GROUP) if one.name == name), None)
    home = home_of(candidate.value.partition(":")[0]) if candidate else None
    caller = Caller(name, home or home_of(name))
    stack.callback(caller.close)

    def node() -> int:
        return bus.node.number

    def load() -> Bound | None:
        bound: list[Bound] = []
        plugins.load(GROUP, only=[name], accept=lambda entry, found: bound.append(bind(entry, found)))
        running = plugins.load(GROUP, only=[name])
        return (bound or [bind(name, running[name])])[0] if name in running else None

    try:
        bound = loaded.get(name) or await caller.call(load, deadline=LOAD_DEADLINE)
        if bound is None:
            status = next(one for one in plugins.status(GROUP) if one.name == name)
            return ServedController(name, node, home=home, reason=status.reason, why=plugins.why(name))
        found = loaded[name] = bound

        controller = await caller.call(make, name, found.controller, local, deadline=LOAD_DEADLINE)
        if found.describes:
            bound = described(found, await caller.call(controller.describe, deadline=LOAD_DEADLINE))
    except CoveyError as error:
        why = tail(error.__cause__ or error, caller.home)
        plugins.fail(GROUP, name, error.message, why)
        return ServedController(name, node, home=home, reason=error.message, why=why)
    return ServedController(name, node, home=home, bound=bound, controller=controller, caller=caller)


def make(name: str, controller: type[Controller], local: Local | None) -> Controller:
    """Return the object of a controller, with the options that the node's YAML has for it, and where it is."""
    if local is None:
        return options.make(controller)
    given = ((local.settings.get("controllers") or {}).get(name) or {}).get("options")
    node = Node(local.node, local.node_name, local.cluster_name, local.state_dir)
    return options.make(controller, given, local.settings.get("folder", ""), node)
