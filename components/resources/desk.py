"""Takes a change to the node that has the resource, and there into the audit log: who, what, how it ended (SPEC 4).

The machine decides (`changing`). The line is written on the node whose resource it is, with the caller and the user
that the kernel of the caller's node proved. It names attributes and arguments, never their values: one may be
sensitive, or typed behind the wrong name. Odd: an audit log that cannot be written stops no change.
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from ...bus.client import Client
from ...bus.service import Request
from ...errors import CoveyError
from .messages import SERVICE, ChangeOne
from .orders import Orders

log = logging.getLogger(__name__)

LONGEST = 10.0
"""Seconds for a change whose caller names no time."""


class Desk:
    """Where changes come in, from callers and from peers."""

    def __init__(self, bus: Client, node: int, orders: Orders) -> None:
        self._bus = bus
        self._node = node
        self._orders = orders

    async def hand_on(self, request: Request, node: int | None, change: ChangeOne) -> dict[str, Any]:
        """Have a change made on a node (None: this one) for whoever asked; raises the error it ended with."""
        if node in (None, self._node):
            return await self.carry_out(change, request.source, request.uid, request.cause)
        body = msgspec.to_builtins(change)
        timeout = request.budget or LONGEST
        found: dict[str, Any] = await self._bus.call(
            SERVICE, "change_local", node=node, timeout=timeout, change=body, who=request.source, uid=request.uid
        )
        return found

    async def carry_out(self, change: ChangeOne, who: str, uid: int, cause: str) -> dict[str, Any]:
        """Make a change on this node and write its audit line, however it ends."""
        try:
            found: dict[str, Any] = await self._orders.ask(change, cause)
        except CoveyError as problem:
            await self._audit(change, who, uid, problem.code, {})
            raise
        await self._audit(change, who, uid, "done", found)
        return found

    async def _audit(self, change: ChangeOne, who: str, uid: int, outcome: str, found: dict[str, Any]) -> None:
        about: dict[str, Any] = {
            "class": change.cls,
            "id": change.id or found.get("id"),
            "names": sorted(change.values),
        }
        if change.action:
            about["action"] = change.action
        try:
            await self._bus.call(
                "dcm", "audit", who=who, uid=uid, what=f"resource_{change.what}", outcome=outcome, about=about
            )
        except CoveyError as problem:
            log.error("no line in the audit log for %s of %s by %s: %s", change.what, about, who, problem)
