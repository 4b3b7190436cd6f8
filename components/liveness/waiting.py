"""Clients that wait for the view to say what they asked for, each with its time limit.

Knows nothing of views: the machine says when something came true.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ...bus.machine import Asked, Reply
from ...errors import Timeout
from .settings import Settings


class Waiter(NamedTuple):
    """One open request."""

    request: int
    kind: type
    until: float
    cause: str


class Waiting:
    """The open requests, each answered exactly once: when it came true, or when its time is over."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._open: list[Waiter] = []

    def add(self, asked: Asked, now: float) -> None:
        """Keep a request open."""
        until = now + self.settings.answer
        self._open.append(Waiter(asked.request, type(asked.question), until, asked.cause))

    def any(self, kind: type) -> bool:
        """Tell whether somebody waits for that."""
        return any(waiter.kind is kind for waiter in self._open)

    def came_true(self, kind: type, result: dict[str, Any]) -> list[Reply]:
        """Answer everybody who waits for that."""
        told = [waiter for waiter in self._open if waiter.kind is kind]
        self._open = [waiter for waiter in self._open if waiter.kind is not kind]
        return [Reply(waiter.request, result, waiter.cause) for waiter in told]

    def expire(self, now: float) -> list[Reply]:
        """Answer everybody whose time is over."""
        if not self._open:
            return []
        told = [waiter for waiter in self._open if now >= waiter.until]
        self._open = [waiter for waiter in self._open if now < waiter.until]
        late = Timeout(
            f"the leader was asked, and after {self.settings.answer:g} s no view says so",
            "it is still being asked for; `covey liveness status` shows the view and the leader",
        )
        return [Reply(waiter.request, late, waiter.cause) for waiter in told]

    @property
    def deadline(self) -> float | None:
        """When the next one's time is over."""
        return min((waiter.until for waiter in self._open), default=None)
