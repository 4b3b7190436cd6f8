"""Tell the other nodes which classes this one has, and hear theirs: the group `sys.resources` (SPEC 2.3 step 19).

Knows no controller. One task stays in the group and polls its events; another broadcasts this node's versions whenever
the machine says that they changed. Step 19 is reached when this node's own message was delivered, for then it has its
place in the one order in which every member hears them. Odd: a group that stands still (no quorum) stops neither
listing nor reading; what is to be told waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from ...bus.client import Client
from ...errors import CoveyError
from .messages import GROUP, Versions

log = logging.getLogger(__name__)

POLL_WAIT = 10.0
"""Seconds of one long poll."""

CALL_TIMEOUT = 30.0
"""Seconds for a join or a broadcast: both wait for a durable decision."""

PAUSE = 0.5
"""Seconds before a failed call is made again."""


class Agreement:
    """This node's membership in the group."""

    def __init__(self, bus: Client, feed: Callable[[Any], None]) -> None:
        self.agreed = asyncio.Event()
        """Set once this node's own message was delivered."""
        self._bus = bus
        self._feed = feed
        self._joined = asyncio.Event()
        self._changed = asyncio.Event()
        self._own: Versions = {}

    def tell(self, versions: Versions) -> None:
        """Have this node's versions broadcast; of several that wait, the last one counts."""
        self._own = versions
        self._changed.set()

    async def follow(self) -> None:
        """Stay in the group and hear what is said there, for ever."""
        while True:
            try:
                since = await self._join()
                while True:
                    since = await self._hear(since)
            except CoveyError as problem:
                log.info("group %s: %s", GROUP, problem)
            await asyncio.sleep(PAUSE)

    async def broadcast(self) -> None:
        """Say this node's versions whenever they change, for ever."""
        await self._joined.wait()
        while True:
            await self._changed.wait()
            self._changed.clear()
            body = msgspec.msgpack.encode({"node": self._bus.node.number, "classes": self._own})
            try:
                await self._bus.call("groups", "broadcast", group=GROUP, body=body, timeout=CALL_TIMEOUT)
            except CoveyError as problem:
                log.info("telling class versions: %s", problem)
                self._changed.set()
                await asyncio.sleep(PAUSE)
