"""One call of a client on its way to the registry of another node: the same request id, and less time, at each try.

Knows how each question is said as a verb of the service `registry`, and nothing of who leads.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from typing import Any

import msgspec

from ...bus.client import Client
from ...bus.service import Request
from . import messages
from .messages import SERVICE, Question

MARGIN = 0.25
"""Seconds of the budget left unused, so that the caller hears our reason and not its own timeout."""

DEFAULT_BUDGET = 10.0
"""Seconds for a call that names none."""

VERBS: dict[type[Any], str] = {
    messages.Get: "get",
    messages.List: "ls",
    messages.Watch: "watch",
    messages.ListSystem: "system",
    messages.Status: "status",
    messages.Transact: "txn",
    messages.ChangeServers: "change_servers",
    messages.HandOver: "hand_over",
    messages.Backup: "backup",
}
CHANGING = ("txn", "change_servers", "hand_over")
"""Verbs after whose loss nobody knows whether they were carried out."""


class RequestIds:
    """Ids for writes that came without one. Made by each start of a registry: the processes of a node are forked from
    one that has imported this, so a word drawn at the import would be the same in all of them."""

    def __init__(self) -> None:
        self._start = secrets.token_hex(8)
        self._numbers = itertools.count(1)

    def new(self) -> str:
        """Return one that nobody has used."""
        return f"{self._start}-{next(self._numbers)}"


class Call:
    """One call and its time; `doubt` is the last error after which nobody knows whether a change was carried out."""

    def __init__(
        self, bus: Client, cluster_id: str, question: Question, request: Request, began: float | None = None
    ) -> None:
        self.question: Any = question
        self.request = request
        self.verb = VERBS[type(question)]
        self.doubt: Exception | None = None
        self.turned_away = False  # by somebody who was taken for the primary
        self._bus, self._cluster_id = bus, cluster_id
        self._now = asyncio.get_running_loop().time
        began = self._now() if began is None else began
        self._end = began + max((request.budget or DEFAULT_BUDGET) - MARGIN, MARGIN)

    @property
    def changing(self) -> bool:
        """Whether it changes something."""
        return self.verb in CHANGING

    @property
    def left(self) -> float:
        """Seconds left."""
        return self._end - self._now()

    async def to(self, node: int, most: float = float("inf")) -> Any:
        """Ask the registry of a node, for at most so many seconds of what is left."""
        arguments = msgspec.structs.asdict(self.question)
        return await self._bus.call(
            SERVICE,
            self.verb,
            node=node,
            timeout=max(min(self.left, most), 0.01),
            request_id=arguments.pop("id", ""),
            cause=self.request.cause,
            cluster=self._cluster_id,
            **arguments,
        )
