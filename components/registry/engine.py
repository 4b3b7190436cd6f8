"""What stands between the registry's verbs and a store: the seam behind which another store could stand (DESIGN 3).

The engine that is shipped is `forward.py`: it answers from this node's own copy (`server.py`) if there is one that can,
else from the primary's.
"""

from __future__ import annotations

from typing import Any, Protocol

from ...bus.service import Request
from .messages import Question


class Engine(Protocol):
    """Answers the questions of `messages.py` with plain data."""

    @property
    def index(self) -> int:
        """The newest index that is known to be committed, 0: none."""

    async def ask(self, question: Question, request: Request) -> Any:
        """Answer within the request's budget; raises CoveyError."""

    def hear(self, body: bytes, request: Request) -> bytes | None:
        """Take a message of another node's registry; return the answer to one that asks who leads."""
