"""Boot steps 17 to 24 of SPEC 2.3, and the tasks that live as long as the component.

Knows no verb of its own component. Odd: the broker's events name parties, not services. The DCM says which processes it
started: `controllers` has all shipped ones, `controller:NAME` one of another package; when such a party comes, each of
its controllers is awaited by its own service, because loading a package takes longer than coming onto the bus.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from ...bus.context import ComponentContext
from ...bus.driver import Background
from ...bus.messages import PARTY_TOPIC
from ...errors import CoveyError
from .agreement import Agreement
from .cluster import Cluster
from .machine import ResourcesMachine
from .messages import ClassesKnown, ControllerAppeared, ControllerGone, ControllersListed, Entry, Opened
from .orders import Orders
from .shipped import shipped_names, shipped_versions

log = logging.getLogger(__name__)

CONTROLLERS_TIMEOUT = 60.0
"""Seconds for the DCM to start the controllers; a package that hangs at import costs its own deadline first."""

LOOK_TIMEOUT = 30.0
"""Seconds in which a controllers' process that joined the bus must serve its controllers."""

ONE_CONTROLLER = "controller:"
"""How the process of one controller is called, before the controller's name."""

BLOCK_TOPIC = "dcm.controller"
"""Event of the DCM: `{name, process, blocked}`, somebody changed whether a controller may run here."""

SHIPPED = "shipped"
"""Under which name the classes of the shipped controllers are kept for the process's next lives."""

PAUSE = 1.0
"""Seconds before the DCM is asked again."""


class Boot:
    """Goes through the steps, then keeps the machine told of controllers that come and go."""

    def __init__(
        self,
        context: ComponentContext,
        machine: ResourcesMachine,
        orders: Orders,
        cluster: Cluster,
        background: Background,
    ) -> None:
        self._context = context
        self._machine = machine
        self._feed = orders.feed
        self._cluster = cluster
        self._background = background
        self._agreement = Agreement(context.bus, context.local.node, orders.feed)
        self._loaded = asyncio.Event()
        self._processes: dict[str, list[str]] = {}  # those that run controllers, each with its own
        self._told: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
        orders.on("loaded", lambda _: self._loaded.set())
        orders.on("tell_classes", self._agreement.tell)
        orders.on("boot_step", lambda body: self._told.put_nowait(("boot_step", body)))
        orders.on("plugin_state", lambda body: self._told.put_nowait(("plugin_state", body)))

    async def run(self) -> None:
        """Go through steps 17 to 21; 22 to 24 are the machine's to tell. Goes on for ever."""
        context = self._context
        await context.step(17, f"read the local configuration of node {context.local.node}")
        await context.need("registry.writes")
        self._feed(Opened())
        await self._loaded.wait()
        await context.step(18, "read what the registry holds of this node")
        self._background.start(self._agreement.follow(), "following sys.resources")
        self._background.start(self._agreement.broadcast(), "telling class versions")
        if SHIPPED not in context.kept:  # the files are those of this process's code, in every life of it
            context.kept[SHIPPED] = await context.run_blocking(shipped_versions, context.local.settings)
        self._feed(ClassesKnown(context.kept[SHIPPED]))
        await self._agreement.agreed.wait()
        differences = [found for found in self._machine.versions.differences() if found.startswith("class ")]
        await context.step(19, "; ".join(differences) or "class versions told, no difference known")
        await context.ready("resources")
        await context.step(20, "ready")
        self._background.start(self._sweep(), "sweeping")
        async with context.bus.subscribe(PARTY_TOPIC) as parties:
            self._background.start(self._follow_blocks(), "following what is blocked")
            self._processes = await self._start_controllers()
            names = sorted(name for each in self._processes.values() for name in each)
            await context.step(21, f"started the controllers: {', '.join(names) or 'none'}")
            self._background.start(self._tell(), "telling the DCM")
            self._feed(ControllersListed(tuple(Entry(name, "starting") for name in names)))
            self._await(names)
            async for event in parties:
                if event.welcome:
                    continue  # from before the controllers were started
                names = self._processes.get(event.body.get("party", ""), [])
                if event.body.get("state") == "gone":
                    for name in names:
                        self._feed(ControllerGone(name, f"its process is gone: {event.body.get('reason', '')}"))
                else:
                    self._await(names)

    async def _sweep(self) -> None:
        try:
            swept = await self._cluster.sweep()
        except CoveyError as problem:
            log.info("resources of undefined nodes are left where they are: %s", problem)
            return
        if swept:
            log.info("deleted %d resources of nodes that are no longer defined", swept)

    async def _start_controllers(self) -> dict[str, list[str]]:
        """Return the processes that the DCM started, which are parties of the bus, each with its controllers."""
        settings = self._context.local.settings
        while True:
            try:
                found = await self._context.bus.call("dcm", "controllers_start", timeout=CONTROLLERS_TIMEOUT)
                break
            except CoveyError as problem:
                log.warning("starting the controllers: %s", problem)
                await asyncio.sleep(PAUSE)
        shipped = await self._context.run_blocking(shipped_names, settings)
        return {
            process: [process.removeprefix(ONE_CONTROLLER)] if process.startswith(ONE_CONTROLLER) else shipped
            for process in found["processes"]
        }

    async def _follow_blocks(self) -> None:
        """Expect a controller that may run again, and no more one that may not."""
        async for event in self._context.bus.subscribe(BLOCK_TOPIC):
            if event.welcome:
                continue  # the DCM started what may run now
            name = event.body["name"]
            if event.body["blocked"]:
                self._feed(ControllerGone(name, "it is blocked"))
                continue
            names = self._processes.setdefault(event.body["process"], [])
            if name not in names:
                names.append(name)
            self._await([name])

    def _await(self, names: Iterable[str]) -> None:
        for name in names:
            self._background.start(self._look_out(name), f"looking for {name}")

    async def _look_out(self, name: str) -> None:
        try:
            await self._context.bus.wait_for_service(f"controller.{name}", timeout=LOOK_TIMEOUT)
        except CoveyError as problem:
            log.info("controller %s: %s", name, problem)  # the machine misses it in its own time
            return
        self._feed(ControllerAppeared(name))

    async def _tell(self) -> None:
        """Tell the DCM the boot's steps and the controllers' states, in their order, each until it was heard."""
        while True:
            what, body = await self._told.get()
            while True:
                try:
                    if what == "boot_step":
                        await self._context.step(body["step"], body["event"], body["how"])
                    else:
                        await self._context.bus.call("dcm", "plugin_state", **body)
                    break
                except CoveyError as problem:
                    log.warning("telling the DCM %s: %s", what, problem)
                    await asyncio.sleep(PAUSE)
