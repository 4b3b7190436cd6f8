"""The dynamic attributes of one controller's resources: last values with their age, and which to read next.

Knows no bus and no clock. `every` of a class is None where nothing is dynamic, 0 where nothing is read by the clock but
once with each discovery and when asked. Each resource is due by itself: after a good read at the next multiple of its
class's interval, so that those of one interval are read together and an idle node sleeps between; after a bad one at a
back-off of its own, so that one dead mount costs a few calls a minute and holds up no other. Reads under way are
bounded, and each has a deadline. Odd: a read that was asked for afresh goes before all that is only due.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from ...bus.machine import Address, Effect, Send
from .listing import key_text
from .messages import Read
from .settings import Settings
from .stored import Resource

Tell = Callable[[str, Resource, Mapping[str, Any], Collection[str]], None]
"""Hears of a resource that `appeared`, `changed` in the attributes of these names, or is `gone`; with all of them."""


def _nobody(what: str, resource: Resource, attributes: Mapping[str, Any], names: Collection[str]) -> None: ...


class Polled(msgspec.Struct):
    """A resource that is there: what was last read of it, when, and why not if the last read failed."""

    resource: Resource
    every: float | None
    seen_at: float
    due: float | None = None
    values: dict[str, Any] = {}
    read_at: float | None = None
    failures: int = 0
    reason: str = ""

    @property
    def attributes(self) -> dict[str, Any]:
        """All attributes beside the key, as they are known now."""
        return {**self.resource.attributes, **self.values}

    def age(self, now: float) -> float:
        """Return the age of the dynamic attributes; of the discovery, where there are none to read."""
        if self.every is None or self.read_at is None:
            return now - self.seen_at
        return now - self.read_at


class Poller:
    """Reads and keeps the dynamic attributes of the resources of one controller."""

    def __init__(self, name: str, settings: Settings, next_id: Callable[[], str], tell: Tell = _nobody) -> None:
        self._address = Address(f"controller.{name}")
        self._settings = settings
        self._next_id = next_id
        self._tell = tell
        self.resources: dict[str, Polled] = {}
        self._reads: dict[str, tuple[str, float]] = {}
        self._queue: list[tuple[float, str]] = []
        self._failing: set[str] = set()
        self._readable = 0

    @property
    def deadline(self) -> float | None:
        """When `tick` must run next."""
        times = [until for _, until in self._reads.values()]
        self._forget_stale()
        if self._queue and len(self._reads) < self._settings.reads_at_once:
            times.append(self._queue[0][0])
        return min(times, default=None)

    @property
    def under_way(self) -> int:
        """How many reads have not been answered."""
        return len(self._reads)

    @property
    def all_fail(self) -> bool:
        """Whether every resource that can be read failed at its last read (and there is one)."""
        return 0 < self._readable == len(self._failing)

    @property
    def reason(self) -> str:
        """Why a read failed, with the resource it was of; empty when none does."""
        if not self._failing:
            return ""
        polled = self.resources[min(self._failing)]
        return f"{polled.resource.cls} '{key_text(polled.resource.key)}': {polled.reason}"

    def discovered(
        self,
        now: float,
        found: Mapping[str, Resource],
        values: Mapping[str, dict[str, Any]],
        every: Mapping[str, float | None],
    ) -> None:
        """Take over what is there now; `every` is the poll interval by class, None where nothing is dynamic."""
        before = self.resources
        self.resources = {}
        for path in sorted(found):
            resource = found[path]
            was = before[path].attributes if path in before else None
            polled = before.get(path) or Polled(resource, None, now)
            polled.resource, polled.seen_at, polled.every = resource, now, every.get(resource.cls)
            if values.get(path):
                polled.values = {**polled.values, **values[path]}
            self.resources[path] = polled
            self._compare(was, polled)
        for path in sorted(before.keys() - self.resources.keys()):
            self._tell("gone", before[path].resource, before[path].attributes, ())
        self._readable = sum(polled.every is not None for polled in self.resources.values())
        self._failing = {path for path in self._failing if path in self.resources}
        reading = {path for path, _ in self._reads.values()}
        for path, polled in self.resources.items():
            if polled.every is not None and polled.due is None and path not in reading:
                self._plan(path, now)

    def amend(
        self, now: float, path: str, resource: Resource | None, values: Mapping[str, Any], every: float | None
    ) -> None:
        """Take over what a change made of one resource; None: it is no longer there."""
        known = self.resources.get(path)
        was = known.attributes if known is not None else None
        if resource is None:
            if known is not None:
                self._tell("gone", known.resource, known.attributes, ())
            self.resources.pop(path, None)
            self._failing.discard(path)
        else:
            polled = self.resources.setdefault(path, Polled(resource, every, now))
            polled.resource = resource
            polled.values = {**polled.values, **values}
            self._compare(was, polled)
        self._readable = sum(polled.every is not None for polled in self.resources.values())
        self.want(path)

    def want(self, path: str) -> bool:
        """Read a resource as soon as may be; false when there is nothing to read of it."""
        polled = self.resources.get(path)
        if polled is None or polled.every is None:
            return False
        if not self.reading(path):
            self._plan(path, float("-inf"))
        return True

    def reading(self, path: str) -> bool:
        """Whether a read of that resource is under way."""
        return any(found == path for found, _ in self._reads.values())

    def waiting(self, path: str) -> bool:
        """Whether a wanted read of that resource is under way or not yet begun."""
        polled = self.resources.get(path)
        return polled is not None and (polled.due == float("-inf") or self.reading(path))

    def stop(self) -> None:
        """Forget the reads under way: the controller is gone. What was read stays, and ages."""
        self._reads.clear()
        self._failing.clear()
        for polled in self.resources.values():
            polled.due = None
            polled.failures = 0

    def tick(self, now: float) -> list[Effect]:
        """Give up reads past their deadline, begin those that are due."""
        late = [read for read, (_, until) in sorted(self._reads.items()) if until <= now]
        for read in late:
            self.failed(now, read, f"read: no answer within {self._settings.read_deadline:g} s")
        effects: list[Effect] = []
        while len(self._reads) < self._settings.reads_at_once:
            self._forget_stale()
            if not self._queue or self._queue[0][0] > now:
                break
            _, path = heapq.heappop(self._queue)
            polled = self.resources[path]
            polled.due = None
            read = self._next_id()
            self._reads[read] = (path, now + self._settings.read_deadline)
            effects.append(Send(self._address, Read(read, polled.resource.cls, polled.resource.key)))
        return effects

    def asked_about(self, read: str) -> Polled | None:
        """Return the resource that a read is about; None when it is not one of ours (any more)."""
        return self.resources.get(self._reads[read][0]) if read in self._reads else None

    def answered(self, now: float, read: str, values: dict[str, Any], complaint: str = "") -> None:
        """Take the values of a read; `complaint` says what of the answer was dropped."""
        path = self._reads.pop(read)[0]
        polled = self.resources.get(path)
        if polled is None:
            return
        was = polled.attributes
        polled.values, polled.read_at, polled.failures, polled.reason = values, now, 0, complaint
        self._compare(was, polled)
        self._failing.discard(path)
        if polled.every:
            self._plan(path, (now // polled.every + 1) * polled.every)

    def failed(self, now: float, read: str, reason: str) -> None:
        """Take that a read came to nothing: the old values stay."""
        if read not in self._reads:
            return
        path = self._reads.pop(read)[0]
        polled = self.resources.get(path)
        if polled is None:
            return
        polled.failures += 1
        self._failing.add(path)
        polled.reason = reason
        self._plan(path, now + self._settings.backoff(polled.failures))

    def _compare(self, was: Mapping[str, Any] | None, polled: Polled) -> None:
        attributes = polled.attributes
        if was is None:
            self._tell("appeared", polled.resource, attributes, attributes)
        elif was != attributes:
            names = [name for name in {**was, **attributes} if was.get(name) != attributes.get(name)]
            self._tell("changed", polled.resource, attributes, names)

    def _plan(self, path: str, due: float) -> None:
        self.resources[path].due = due
        heapq.heappush(self._queue, (due, path))

    def _forget_stale(self) -> None:
        # Entries are not taken out of the heap when a plan changes; the resource's own `due` says which one counts.
        while self._queue:
            due, path = self._queue[0]
            polled = self.resources.get(path)
            if polled is not None and polled.due == due and not self.reading(path):
                return
            heapq.heappop(self._queue)
