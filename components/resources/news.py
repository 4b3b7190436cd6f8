"""What changed of this node's resources, in order, for those who watch: persistent and dynamic attributes alike.

Knows no bus and no clock. The last changes are kept in a ring, numbered from 1 for each run of the process (its token);
a watcher names the last number it saw, and waits. So a watch leaves nothing here but its question, and who was too slow
is told how many changes it missed. Where nobody has watched for a while, changes are counted and not kept. A selection
is judged here, over the resource as it was after the change.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from ...bus.machine import Effect, Reply
from ...config.predicate import Predicate
from .messages import WatchLocal
from .settings import Settings
from .stored import Resource


class Watcher(msgspec.Struct):
    """A question that waits for the first change behind `since` that it is about."""

    request: int
    until: float
    cause: str
    cls: str
    since: int
    missed: int
    chosen: Predicate | None


class News:
    """The ring of changes, and who waits for the next one."""

    def __init__(self, node: int, token: str, settings: Settings) -> None:
        self.waiting: list[Watcher] = []
        self._node = node
        self._token = token
        self._most = settings.watch_events
        self._ring: deque[dict[str, Any]] = deque(maxlen=settings.watch_ring)
        self._kept = settings.watch_kept
        self._until = 0.0
        self._watched = False
        self._last = 0

    @property
    def deadline(self) -> float | None:
        """When `tick` must run next."""
        return min((watcher.until for watcher in self.waiting), default=None)

    def tell(self, what: str, resource: Resource, attributes: Mapping[str, Any], names: Collection[str]) -> None:
        """Take a change: a resource `appeared`, `changed` in the attributes of these names, or is `gone`."""
        self._last += 1
        if not self._watched:
            return
        self._ring.append(
            {
                "type": what,
                "class": resource.cls,
                "id": resource.id,
                "key": resource.key,
                "node": self._node,
                "attributes": {**resource.key, **attributes},
                "changed": list(names),
            }
        )

    def ask(self, now: float, request: int, cause: str, question: WatchLocal, chosen: Predicate | None) -> None:
        """Answer a watcher when there is something behind what it saw; one that saw nothing begins now."""
        self._watched, self._until = True, now + question.wait + self._kept
        oldest = self._last - len(self._ring)
        since, missed = question.since, 0
        if question.token != self._token:
            since = self._last if not question.token else oldest
            missed = 1 if question.token else 0  # at least: what the process before this one saw is gone with it
        elif since < oldest:
            since, missed = oldest, oldest - since
        since = min(since, self._last)
        until = now + question.wait
        self.waiting.append(Watcher(request, until, cause, question.cls, since, missed, chosen))

    def tick(self, now: float) -> list[Effect]:
        """Answer those for whom something is there, or whose time is over."""
        if self._watched and self._until <= now:
            self._watched = False
            self._ring.clear()
        effects: list[Effect] = []
        oldest = self._last - len(self._ring)
        for watcher in list(self.waiting):
            events: list[dict[str, Any]] = []
            while watcher.since < self._last and len(events) < self._most:
                event = self._ring[max(watcher.since - oldest, 0)]
                watcher.since += 1
                if event["class"] == watcher.cls and (watcher.chosen is None or watcher.chosen(event["attributes"])):
                    events.append(event)
            if events or watcher.missed or watcher.until <= now:
                self.waiting.remove(watcher)
                found = {"token": self._token, "to": watcher.since, "missed": watcher.missed, "events": events}
                effects.append(Reply(watcher.request, found, watcher.cause))
        return effects
