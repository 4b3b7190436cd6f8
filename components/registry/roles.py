"""Whether this node is a registry server, and what follows from it: the copy opened and closed as the list changes.

Follows the node's local configuration, in place: the service `registry` goes on answering, as an agent, while the copy
comes or goes. A node that is listed as voter or learner, and not stopped, has a copy at work; on one that is stopped
the files lie still; on one that is listed no more they are put aside. Knows the DCM by the bus only.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path
from typing import Any

from ...bus.context import ComponentContext
from ...bus.messages import PARTY_TOPIC
from ...errors import CoveyError
from .files import sync_folder
from .forward import ForwardEngine
from .layout import folder_of
from .server import ServerEngine

log = logging.getLogger(__name__)

GROUP = "sys.registry"
LOCAL_TOPIC = "dcm.local"
"""The DCM's event that the server list in the local configuration changed."""

ASIDE = "registry.undefined"
"""Beside the copy's folder: what is left of the copy of a node that is a registry server no more; one is kept."""

RETRY = 0.2
"""Seconds between two tries to join the group; Group Services are there by then, so it is rarely needed."""

LOOK_AGAIN = 5.0
"""Seconds between two looks at the local configuration, while no primary is known; an event may be missed."""


class Roles:
    """One node's part in the registry, over time."""

    def __init__(self, context: ComponentContext, engine: ForwardEngine) -> None:
        self._context = context
        self._engine = engine
        self._tasks: asyncio.TaskGroup | None = None
        self._works: list[asyncio.Task[None]] = []
        self._member = asyncio.Event()

    async def begin(self) -> None:
        """Open the copy of a registry server, before anything is asked of it."""
        await self._follow()

    async def run(self) -> None:
        """Follow the local configuration until cancelled; raises what the copy raises."""
        async with self._context.bus.subscribe(LOCAL_TOPIC) as events, asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            if self._engine.own is not None:
                self._work(self._engine.own)
            changed = asyncio.Event()
            tasks.create_task(self._hear(events, changed))
            while True:
                try:
                    await self._context.refresh()
                    await self._follow()
                except CoveyError as problem:
                    log.debug("the local configuration cannot be read: %s", problem)
                await self._until(changed)

    async def joined(self) -> None:
        """Wait until this server is a member of the group, or no server."""
        await self._member.wait()

    async def leave(self) -> None:
        """Let a primary hand over, while it can be reached."""
        if self._engine.own is not None:
            await self._engine.own.leave()

    async def end(self) -> None:
        """Close the copy."""
        own = self._engine.own
        if own is not None:
            self._engine.own = None
            await own.close()

    # --- following ---

    async def _hear(self, events: Any, changed: asyncio.Event) -> None:
        async for _ in events:
            changed.set()

    async def _until(self, changed: asyncio.Event) -> None:
        """Wait for news of the list; look by oneself now and then while no primary is known."""
        while not changed.is_set():
            try:
                async with asyncio.timeout(LOOK_AGAIN):
                    await changed.wait()
            except TimeoutError:
                if not self._engine.known.primary:
                    break
        changed.clear()

    async def _follow(self) -> None:
        local = self._context.local
        servers = local.registry_servers
        self._engine.listed(servers, sorted(set(local.nodes) - {*servers, local.node}), local.server_order)
        folder = folder_of(Path(local.folder))
        if local.node in servers:
            if self._engine.own is None:
                await self._open(folder)
            else:
                self._engine.own.configure(local)
            return
        if self._engine.own is not None:
            await self._close()
        if local.node not in (*local.servers, *local.learners):
            await asyncio.to_thread(put_aside, folder)

    async def _open(self, folder: Path) -> None:
        local, engine = self._context.local, self._engine
        own = await ServerEngine.open(
            self._context.bus,
            folder,
            local.cluster_id,
            local.node,
            leads=engine.copy_said,
            new=local.node in local.learners,
            local=local,
        )
        engine.copy_opened(own)
        self._member.clear()
        if self._tasks is not None:
            log.info("this node is a registry server from now on")
            self._work(own)

    async def _close(self) -> None:
        own = self._engine.own
        assert own is not None
        log.info("this node is no registry server any more")
        await own.leave()
        self._engine.copy_closed()
        for work in self._works:
            work.cancel()
        await asyncio.gather(*self._works, return_exceptions=True)
        self._works = []
        self._member.set()
        await own.close()
        try:
            await self._context.bus.call("groups", "leave", group=GROUP)
        except CoveyError as problem:
            log.info("the group %s was not left: %s", GROUP, problem)

    def _work(self, own: ServerEngine) -> None:
        assert self._tasks is not None
        self._works = [self._tasks.create_task(own.run()), self._tasks.create_task(self._keep_joined(own))]

    # --- the group ---

    async def _keep_joined(self, own: ServerEngine) -> None:
        """Be a member of the group, also after Group Services were restarted and have forgotten us."""
        await self._engine.reach("reads", "writes")
        async with self._context.bus.subscribe(PARTY_TOPIC) as parties:
            await self._join()
            own.group_formed()
            self._member.set()
            async for event in parties:
                if event.body["party"] == "groups" and event.body["state"] == "joined" and not event.welcome:
                    await self._join()

    async def _join(self) -> None:
        while True:
            await self._context.need("groups")
            try:
                await self._context.bus.call("groups", "join", group=GROUP)
                return
            except CoveyError as problem:
                log.info("the group %s cannot be joined yet: %s", GROUP, problem)
                await asyncio.sleep(RETRY)


def put_aside(folder: Path) -> None:
    """Put the copy of a node that is no registry server out of the way; one made before it is removed. Blocks."""
    if not folder.is_dir():
        return
    aside = folder.with_name(ASIDE)
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    sync_folder(folder.parent)
    log.info("the copy of this node, which is no registry server any more, lies in %s", aside)
