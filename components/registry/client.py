"""The registry as other components use it: append their entries to the core log, read them again, know who leads.

Knows what the answers of the registry mean to a machine that asked, and nothing of how the registry works. An error
after which nobody knows whether an entry was appended is no answer: the machine asks again with the same id.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from ...bus.client import Client
from ...errors import ConnectionLost, CoveyError, Overloaded, ServiceDied, Timeout, Unreachable
from .messages import SERVICE, AppendSystem, Consistency, Leading, ReadSystem, SystemAppended, SystemRead, SystemRefused

log = logging.getLogger(__name__)

IN_DOUBT = (Timeout, ConnectionLost, ServiceDied, Unreachable, Overloaded)
"""Errors after which nobody knows whether the entry was appended."""

APPEND_TIMEOUT = 5.0
"""Seconds an append may take before the machine's own repetition is let through."""

NODES = "/nodes/"

PART = 2000
"""Keys read at a time: about a megabyte."""

READ_TIMEOUT = 30.0
"""Seconds for one such part."""

RETRY = 0.2
"""Seconds between two tries to read the nodes at the start."""


class SystemLog:
    """The registry of this node, for one component's machine."""

    def __init__(self, bus: Client) -> None:
        self._bus = bus
        self._appending: set[str] = set()

    async def ask(
        self, message: AppendSystem | ReadSystem, cause: str
    ) -> SystemAppended | SystemRefused | SystemRead | None:
        """Return the registry's answer to a machine's message; None: there is none, the machine will ask again."""
        if isinstance(message, ReadSystem):
            return await self._read(message, cause)
        if message.id in self._appending:
            return None
        self._appending.add(message.id)
        try:
            return await self._append(message, cause)
        finally:
            self._appending.discard(message.id)

    async def _append(self, entry: AppendSystem, cause: str) -> SystemAppended | SystemRefused | None:
        try:
            answer = await self._bus.call(
                SERVICE,
                "append_system",
                request_id=entry.id,
                cause=cause,
                epoch=entry.epoch,
                kind=entry.kind,
                slot=entry.slot,
                body=entry.body,
                keep=entry.keep,
                timeout=APPEND_TIMEOUT,
            )
        except IN_DOUBT as problem:
            log.info("entry %s not appended, or not known to be: %s", entry.kind, problem)
            return None
        except CoveyError as problem:
            log.info("entry %s refused by the log: %s", entry.kind, problem)
            return SystemRefused(entry.id, int(problem.details.get("epoch", 0)), str(problem))
        return SystemAppended(entry.id, answer["index"], entry.epoch)

    async def _read(self, wanted: ReadSystem, cause: str) -> SystemRead | None:
        entries: list[tuple[str, int, int, bytes]] = []
        more = True
        while more:
            since = entries[-1][1] if entries else 0
            try:
                answer = await self._bus.call(SERVICE, "system", cause=cause, kind=wanted.kind, since_index=since)
            except CoveyError as problem:
                log.info("the log's entries %s could not be read: %s", wanted.kind, problem)
                return None
            entries += [(e["slot"], e["index"], e["epoch"], e["body"]) for e in answer["entries"]]
            more = answer["more"]
        return SystemRead(wanted.id, tuple(entries), answer["epoch"])


def leading_from(told: Mapping[str, Any]) -> Leading:
    """Return who leads, from the event `registry.leading` or from the registry's status."""
    return Leading(told["epoch"], told["primary"] or 0, told["phase"], told["writable"])


async def read_all(
    bus: Client, prefix: str, consistency: Consistency = "linear", cause: str = ""
) -> list[dict[str, Any]]:
    """Return every item below a prefix, read in parts: one answer of the registry has a largest size."""
    items: list[dict[str, Any]] = []
    while True:
        listed = await bus.call(
            SERVICE,
            "ls",
            timeout=READ_TIMEOUT,
            cause=cause,
            prefix=prefix,
            consistency=consistency,
            after=items[-1]["key"] if items else "",
            limit=PART,
        )
        items += listed["items"]
        if not listed["more"]:
            return items


async def read_nodes(bus: Client) -> list[dict[str, Any]]:
    """Read the nodes of the global configuration, again and again until they can be read."""
    while True:
        try:
            return await read_all(bus, NODES)
        except CoveyError as problem:
            log.info("the global configuration cannot be read yet: %s", problem)
            await asyncio.sleep(RETRY)
