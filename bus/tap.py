"""What passes a broker, for those who ask to see it, with exact accounting.

A tap is asked for and leased: its filter runs here, before anything is copied, and what matched waits in a bounded ring
until its reader fetches it. `matched = fetched + dropped + waiting` holds at every moment; a slow reader only makes
`dropped` grow. With no tap attached the broker pays one test of an empty dict a message. A tap never shows its own
fetching.
"""

from __future__ import annotations

import asyncio
import fnmatch
import itertools
import operator
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from ..errors import NotFound, Overloaded, UsageError
from .messages import Header, Kind

LEASE = 15.0
"""Seconds without a fetch after which a tap is taken off: its reader is gone."""

RING_RECORDS = 10_000
RING_BYTES = 16 * 1024 * 1024
MOST_BYTES = 4 * 1024 * 1024
"""Of bodies in one fetch: the answer must fit into one message."""

MAX_TAPS = 16
MAX_CONDITIONS = 32
MAX_PATTERN = 256

FIELDS = ("kind", "topic", "source", "destination", "direction", "cause", "size", "id")
_TEXT_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "=~": fnmatch.fnmatchcase,
}
_NUMBER_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Condition(msgspec.Struct, frozen=True):
    """`field operator value`; `=~` is a shell pattern over the whole text (`registry.*`)."""

    field: str
    operator: str
    value: str | int | float

    def compiled(self) -> tuple[str, Callable[[Any, Any], bool], str | int | float]:
        """Return the test to run for each message; raises UsageError for a condition that can never make sense."""
        if self.field not in FIELDS:
            raise UsageError(f"a tap has no field '{self.field}'", f"fields: {', '.join(FIELDS)}")
        numeric = self.field in ("size", "id")
        table = _NUMBER_OPERATORS if numeric else _TEXT_OPERATORS
        if self.operator not in table:
            raise UsageError(f"'{self.operator}' does not fit the field '{self.field}'", f"allowed: {' '.join(table)}")
        if isinstance(self.value, str) == numeric:
            raise UsageError(f"'{self.field}' is compared with a {'number' if numeric else 'text'}, not {self.value!r}")
        if isinstance(self.value, str) and len(self.value) > MAX_PATTERN:
            raise UsageError(f"a pattern of {len(self.value)} characters, at most {MAX_PATTERN} are allowed")
        return self.field, table[self.operator], self.value


class Record(msgspec.Struct, frozen=True):
    """One message that passed: `at` is wall-clock seconds, `size` the body's bytes on the wire."""

    at: float
    node: int
    direction: str
    kind: str
    source: str
    destination: str
    topic: str
    id: int
    cause: str
    size: int
    body: bytes | None = None
    compressed: bool = False


class Tap:
    """One reader's view: its filter, its ring and its counters."""

    def __init__(self, conditions: list[Condition], payload: bool, now: float) -> None:
        self._tests = [condition.compiled() for condition in conditions]
        self._payload = payload
        self._ring: deque[Record] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self.polled = now
        self.passed = self.matched = self.dropped = self.fetched = 0

    def offer(self, record: Record) -> None:
        """Count a message, and keep it if the filter matches and there is room."""
        self.passed += 1
        for field, test, value in self._tests:
            if not test(getattr(record, field), value):
                return
        self.matched += 1
        size = len(record.body) if self._payload and record.body else 0
        if len(self._ring) >= RING_RECORDS or self._bytes + size > RING_BYTES:
            self.dropped += 1
            return
        self._bytes += size
        self._ring.append(record if self._payload else msgspec.structs.replace(record, body=None))
        self._filled.set()

    async def take(self, most: int, wait: float, now: float) -> list[Record]:
        """Return up to `most` records, waiting up to `wait` seconds for the first."""
        self.polled = now + wait
        if not self._ring:
            self._filled.clear()
            try:
                await asyncio.wait_for(self._filled.wait(), wait)
            except TimeoutError:
                return []
        return self.take_now(most)

    def take_now(self, most: int) -> list[Record]:
        """Return up to `most` records that are there, and no more than `MOST_BYTES` of bodies (but at least one)."""
        taken: list[Record] = []
        bodies = 0
        while self._ring and len(taken) < most:
            size = len(self._ring[0].body or b"")
            if taken and bodies + size > MOST_BYTES:
                break
            bodies += size
            taken.append(self._ring.popleft())
        self._bytes -= bodies
        self.fetched += len(taken)
        return taken

    def counters(self) -> dict[str, int]:
        """Return `passed`, `matched`, `fetched`, `dropped`, `waiting`; matched is the sum of the last three."""
        return {
            "passed": self.passed,
            "matched": self.matched,
            "fetched": self.fetched,
            "dropped": self.dropped,
            "waiting": len(self._ring),
        }


class Taps:
    """All taps of a broker."""

    def __init__(self) -> None:
        self._taps: dict[int, Tap] = {}
        self._numbers = itertools.count(1)

    def __bool__(self) -> bool:
        return bool(self._taps)

    def attach(self, conditions: list[Condition], payload: bool, now: float) -> int:
        """Add a tap and return its number; raises UsageError for a bad filter, Overloaded when there are too many."""
        self.sweep(now)
        if len(self._taps) >= MAX_TAPS:
            raise Overloaded(f"{MAX_TAPS} taps are attached to this broker already", "end one of them")
        if len(conditions) > MAX_CONDITIONS:
            raise UsageError(f"a filter of {len(conditions)} conditions, at most {MAX_CONDITIONS} are allowed")
        number = next(self._numbers)
        self._taps[number] = Tap(conditions, payload, now)
        return number

    def get(self, number: int) -> Tap:
        """Return a tap; raises NotFound when it was taken off (its lease ended)."""
        if number not in self._taps:
            raise NotFound(f"no tap {number} is attached to this broker", "its lease ended; attach again")
        return self._taps[number]

    def detach(self, number: int) -> dict[str, int]:
        """Take a tap off and return its last counters."""
        counters = self.get(number).counters()
        del self._taps[number]
        return counters

    def sweep(self, now: float) -> None:
        """Take off the taps whose readers are gone."""
        for number in [number for number, tap in self._taps.items() if tap.polled + LEASE < now]:
            del self._taps[number]

    def offer(self, at: float, node: int, direction: str, header: Header, body: bytes) -> None:
        """Show a message to every tap."""
        if header.kind in (Kind.REQUEST, Kind.REPLY, Kind.ERROR) and header.topic.startswith("bus.tap_"):
            return
        record = Record(
            at,
            node,
            direction,
            header.kind.name.lower(),
            header.source,
            header.destination,
            header.topic,
            header.id,
            header.cause,
            len(body),
            body,
            header.compressed,
        )
        for tap in self._taps.values():
            tap.offer(record)
