"""Keep this node's picture of its cluster fresh: cached nodes and servers, the broker's peers, its place in the view.

Follows `/nodes/` and `/cluster/` by long polls of the registry, its own place by Liveness's events; what changed is
written to local storage and told to the broker by `home.py`. Decides nothing: that this boot was removed, or is a
clone, goes to the life machine.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from ...errors import Compacted, CoveyError
from ..groups.messages import VOTED_TOPIC
from . import life
from .crash import crash_at
from .daemon import JOINED, Daemon
from .home import Home, new_id
from .lookup import read_global
from .settings import BROKER_AGAIN, LONG_POLL, LOOK_AGAIN, ROOM_LOOK

log = logging.getLogger(__name__)


class Watcher:
    """The tasks that follow the cluster."""

    def __init__(self, home: Home, daemon: Daemon) -> None:
        self._home = home
        self._daemon = daemon
        self._fresh = asyncio.Lock()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow("/nodes/"))
            tasks.create_task(self._follow("/cluster/"))
            tasks.create_task(self._own_place())
            tasks.create_task(self._broker())
            tasks.create_task(self._refused())
            tasks.create_task(self._voted())

    # --- the registry -----------------------------------------------------------------------------------------

    async def _follow(self, prefix: str) -> None:
        position: int | None = None
        cluster = ""
        while True:
            await self._daemon.settled(JOINED)
            if cluster != self._home.here().cluster.id:
                cluster, position = self._home.here().cluster.id, None
            try:
                if position is None:
                    position = await self.renew() + 1
                batch = await self._home.bus.call(
                    "registry", "watch", prefix=prefix, from_revision=position, wait=LONG_POLL, timeout=LONG_POLL + 10
                )
                position = int(batch["to"]) + 1
                if batch["events"]:
                    crash_at("j7", self._home)
                    await self.renew()
                    crash_at("c4", self._home)
            except Compacted:
                position = None
            except CoveyError as why:
                log.debug("%s cannot be followed just now: %s", prefix, why)
                position = None
                await asyncio.sleep(LOOK_AGAIN)

    async def renew(self) -> int:
        """Read the global configuration and renew the local copy of it; return its revision."""
        async with self._fresh:
            here = self._home.here()
            found = await read_global(self._home.bus, here.cluster.id)
            entry = found.entry(here.node.number)
            if entry is None or entry.definition.definition_id != here.node.definition_id:
                log.warning("the cluster no longer lists this node as it is defined here; its next join will tell")
            elif self._daemon.machine.state in JOINED:
                await self._home.refresh(found.renewed)
            return found.revision

    async def seen(self) -> None:
        """Renew now: whoever changed the cluster through this node must find it changed when they ask here next."""
        with suppress(CoveyError):  # it is changed; this node learns it a little later then
            await self.renew()

    # --- the view ---------------------------------------------------------------------------------------------

    async def _own_place(self) -> None:
        """Liveness says, again and again, when this boot was removed from the view or refused as a clone."""
        async for event in self._home.bus.subscribe("liveness.*"):
            if event.welcome or self._home.replica is None or not isinstance(event.body, dict):
                continue
            if event.topic == "liveness.removed" and event.body.get("boot_id") == self._home.boot_id:
                self._daemon.feed(life.Removed(new_id(), self._home.server))
            elif event.topic == "liveness.refused":
                self._daemon.feed(life.CloneTold(_clone(self._home.here().node.number, self._home.name)))

    # --- the broker -------------------------------------------------------------------------------------------

    async def _broker(self) -> None:
        """A broker that was started again knows nothing: tell it anew who this node is. And a full disk gets room."""
        bus = self._home.bus
        while True:
            bus.welcomed.clear()
            wait = ROOM_LOOK
            here, told = self._home.replica, self._home.bus.node
            number, boot = (here.node.number, self._home.boot_id) if here else (0, "")
            if (told.number, told.boot_id) != (number, boot):
                try:
                    await self._home.tell_broker(again=True)
                except CoveyError as why:
                    log.debug("the broker cannot be told: %s", why)
                    wait = BROKER_AGAIN
            await self._home.save_again()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await bus.welcomed.wait()

    async def _refused(self) -> None:
        """Write down whom the broker did not let in from outside; it tells each kind seldom, with a count."""
        async for event in self._home.bus.subscribe("bus.refused"):
            if isinstance(event.body, dict) and not getattr(event, "welcome", False):
                told = {name: event.body.get(name) for name in ("address", "key", "count")}
                await self._home.audit("bus", "refused", str(event.body.get("reason", "")), **told)

    async def _voted(self) -> None:
        """Write down how the votes of groups ended that this node coordinated."""
        async for event in self._home.bus.subscribe(VOTED_TOPIC):
            if isinstance(event.body, dict) and not event.welcome:
                told = {name: value for name, value in event.body.items() if name not in ("by", "outcome")}
                by, outcome = str(event.body.get("by", "")), str(event.body.get("outcome", ""))
                await self._home.audit(by, "group_vote", outcome, **told)


def _clone(number: int, name: str) -> str:
    return (
        f"node number {number} is online already under another boot id, which answers: this machine ({name}) and that "
        "one are clones of each other; define one of them anew with an identity of its own"
    )
