"""What stands between the registry's verbs and a store: the seam behind which another store could stand (DESIGN 3).

Two engines are shipped: `server.py` (this node's own copy) and `forward.py` (the primary's, from a node without one).
"""

from __future__ import annotations

from typing import Any, Protocol

from ...bus.service import Request
from .messages import Question


class Engine(Protocol):
    """Answers the questions of `messages.py` with plain data."""

    async def ask(self, question: Question, request: Request) -> Any:
        """Answer within the request's budget; raises CoveyError."""

    async def hear(self, body: bytes, request: Request) -> bytes | None:
        """Take a message of another node's registry; return the answer to one that asks who leads."""
