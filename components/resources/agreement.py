"""Tell the other nodes which classes this one has, and hear theirs: the group `sys.resources` (SPEC 2.3 step 19).

Knows no controller. One task stays in the group and polls its events; another broadcasts this node's versions whenever
the machine says that they changed. Step 19 is reached when this node's own message was delivered, for then it has its
place in the one order in which every member hears them. Odd: a group that stands still (no quorum) stops neither
listing nor reading; what is to be told waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ...bus.client import Client
from ...bus.machine import Address, Received
from ...controllers.catalog import Versions
from ...errors import CoveyError
from .messages import GROUP, SERVICE, ClassVersions, MembersChanged

log = logging.getLogger(__name__)

POLL_WAIT = 10.0
"""Seconds of one long poll."""

CALL_TIMEOUT = 30.0
"""Seconds for a join or a broadcast: both wait for a durable decision."""

LEAVES = ("left", "failed", "expelled")

PAUSE = 0.5
"""Seconds before a failed call is made again."""


class Agreement:
    """This node's membership in the group."""

    def __init__(self, bus: Client, node: int, feed: Callable[[Any], None]) -> None:
        self.agreed = asyncio.Event()
        """Set once this node's own message was delivered."""
        self._bus = bus
        self._node = node
        self._members: set[tuple[int, str, str]] = set()
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
                while self._joined.is_set():
                    since = await self._hear(since)
            except CoveyError as problem:
                log.info("group %s: %s", GROUP, problem)
            await asyncio.sleep(PAUSE)

    async def broadcast(self) -> None:
        """Say this node's versions whenever they change, for ever."""
        while True:
            await self._changed.wait()
            await self._joined.wait()
            self._changed.clear()
            body = {"node": self._node, "classes": self._own}
            try:
                await self._bus.call("groups", "broadcast", group=GROUP, body=body, timeout=CALL_TIMEOUT)
            except CoveyError as problem:
                log.info("telling class versions: %s", problem)
                self._changed.set()
                await asyncio.sleep(PAUSE)

    async def _join(self) -> int:
        """Join, or learn that this party is a member still; return where to listen from: its own join."""
        found = await self._bus.call("groups", "join", group=GROUP, timeout=CALL_TIMEOUT)
        self._members = {_key(member) for member in found["members"]}
        self._tell_members()
        self._joined.set()
        return int(found["joined"]) - 1

    async def _hear(self, since: int) -> int:
        """Take the events after `since`; return how far they went."""
        found = await self._bus.call(
            "groups", "poll", group=GROUP, since=since, wait=POLL_WAIT, timeout=POLL_WAIT + CALL_TIMEOUT
        )
        if found["missed"]:
            self._members = {_key(member) for member in found["members"]}
            self._tell_members()
        for event in found["events"]:
            self._take(event)
        return int(found["to"])

    def _take(self, event: Mapping[str, Any]) -> None:
        who = {_key(member) for member in event["who"]}
        if event["kind"] == "joined":
            self._members |= who
            self._tell_members()
        elif event["kind"] in LEAVES:
            self._members -= who
            self._tell_members()
            if (self._node, self._bus.name) in {(node, party) for node, _, party in who}:
                self._joined.clear()  # taken for dead: join again
        elif event["kind"] == "message":
            self._take_versions(event["body"])

    def _take_versions(self, body: Any) -> None:
        try:
            message = ClassVersions(int(body["node"]), msgspec.convert(body["classes"], Versions))
        except (TypeError, KeyError, ValueError, msgspec.ValidationError) as problem:
            log.warning("a message in %s that says no versions: %s", GROUP, problem)
            return
        self._feed(Received(Address(SERVICE, message.node), message))
        if message.node == self._node:
            self.agreed.set()

    def _tell_members(self) -> None:
        self._feed(MembersChanged(tuple(sorted({node for node, _, _ in self._members}))))


def _key(member: Mapping[str, Any]) -> tuple[int, str, str]:
    return member["node"], member["boot_id"], member["member"]
