"""Keep a controller from running on this node, with the reason, until somebody lets it run again (SPEC 12.5).

The list is one file of the node, whatever cluster it is in. A blocked controller is to its process what one is that the
node's YAML switches off: covey's own share a process, which begins its life anew without it; that of another package
has a process to itself, which is ended.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ...bus.messages import Role
from ...bus.service import Request, verb
from ...errors import NotFound, UsageError
from . import life
from .clusters import ClusterVerbs
from .definitions import Blocked
from .plugin_list import ALL_SHIPPED, PluginList
from .settings import STOP_TIME

TOPIC = "dcm.controller"
"""Event `{name, process, blocked}`: whether a controller may run here was changed."""

LONGEST_REASON = 500
"""Characters of a reason: it stands in a table."""


class BlockVerbs(ClusterVerbs):
    """Verbs over which controllers may run here. Each returns the controller's line of `plugins`."""

    _plugins: PluginList
    _blocking: asyncio.Lock

    @verb(Role.ADMIN)
    async def plugin_block(self, request: Request, *, name: str, reason: str) -> dict[str, Any]:
        """Keep a controller from running here, from now on and after restarts, too; `reason` is kept with it."""
        text = " ".join(reason.split())
        async with self._audited(request, "plugin_block", plugin=name, reason=text[:LONGEST_REASON]):
            if not 0 < len(text) <= LONGEST_REASON:
                raise UsageError(
                    "a controller is blocked with a reason" if not text else "that is more than a reason",
                    f"say in 1 to {LONGEST_REASON} characters why: whoever finds it blocked will ask",
                )
            self._plugins.must_be_controller(name)
            uid = request.uid if request.uid >= 0 else None
            return await self._change_blocked(name, Blocked(text, uid))

    @verb(Role.ADMIN)
    async def plugin_unblock(self, request: Request, *, name: str) -> dict[str, Any]:
        """Let a blocked controller run again."""
        async with self._audited(request, "plugin_unblock", plugin=name):
            if name not in self._home.blocked:
                there = ", ".join(sorted(self._home.blocked))
                raise NotFound(
                    f"{name!r} is not blocked", f"blocked on this node: {there}" if there else "nothing is blocked here"
                )
            return await self._change_blocked(name, None)

    async def _change_blocked(self, name: str, blocked: Blocked | None) -> dict[str, Any]:
        async with self._blocking:
            others = {key: value for key, value in self._home.blocked.items() if key != name}
            await self._home.block(others if blocked is None else {**others, name: blocked})
            self._plugins.blocked = self._home.blocked
            if name in self._plugins.names():  # else it was uninstalled meanwhile
                await self._apply(name)
                told = {"name": name, "process": self._plugins.process_of(name), "blocked": blocked is not None}
                await self._home.bus.publish(TOPIC, told)
        lines = self._plugins.lines(self._daemon.crashed, self._daemon.machine.running)
        return next((line for line in lines if line["name"] == name), {"name": name})

    async def _apply(self, name: str) -> None:
        """Have the process that runs a controller do as the list says."""
        process, lives, machine = self._plugins.process_of(name), self._daemon.lives, self._daemon.machine
        if process in machine.running:
            await lives.end(process, STOP_TIME, keep=process == ALL_SHIPPED)
            if process in machine.running and process in self._plugins.processes():
                await lives.begin(process, self._home.boot_id)
        elif machine.running and process in self._plugins.processes():
            self._daemon.feed(life.ControllersAsked((process,)))  # heard only where controllers run
