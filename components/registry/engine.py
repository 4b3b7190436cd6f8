"""What stands between the registry's verbs and a store: the seam behind which another store could stand (DESIGN 3).

The engine that is shipped is `forward.py`: it answers from this node's own copy (`server.py`) if there is one that can,
else from the primary's.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Protocol

from ...bus.service import Request
from .messages import Question


class Engine(Protocol):
    """Answers the questions of `messages.py` with plain data."""

    @property
    def index(self) -> int:
        """The newest index that is known to be committed, 0: none."""

    def ask(self, question: Question, request: Request) -> Awaitable[Any]:
        """Answer within the request's budget, with what is done already where nothing need be waited for; raises
        CoveyError, here or there."""

    def traffic(self) -> list[dict[str, Any]]:
        """Return what passed between this node's copy and others past the brokers, by network."""

    def hear(self, body: bytes, request: Request) -> bytes | None:
        """Take a message of another node's registry; return the answer to one that asks who leads."""
