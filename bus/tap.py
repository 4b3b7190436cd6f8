"""What passes a broker, for those who ask to see it, with exact accounting.

A tap is asked for and leased: its filter runs here, before anything is copied, and what matched waits in a bounded ring
until its reader fetches it. `matched = fetched + dropped + waiting` holds at every moment; a slow reader only makes
`dropped` grow. With no tap attached the broker pays one test of an empty dict a message. A tap never shows its own
fetching. A tap is its reader's alone. Bodies are for administrators: a join token passes in one.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from contextlib import suppress
from typing import Any

import msgspec

from ..config.predicate import FieldType, predicate
from ..errors import Malformed, NotFound, Overloaded
from . import codec
from .messages import Header, Kind

LEASE = 15.0
"""Seconds without a fetch after which a tap is taken off: its reader is gone."""

RING_RECORDS = 10_000
RING_BYTES = 16 * 1024 * 1024
MOST_BYTES = 4 * 1024 * 1024
"""Of bodies in one fetch: the answer must fit into one message."""

MAX_TAPS = 16

MAX_VERDICTS = 10_000
"""Headers whose match a tap remembers."""

_OF_MESSAGE = ("kind", "topic", "source", "destination", "direction")
FIELDS = {
    "kind": FieldType("text", choices=("request", "reply", "error", "event", "control")),
    "topic": FieldType("text"),
    "source": FieldType("text"),
    "destination": FieldType("text"),
    "direction": FieldType("text", choices=("in", "out")),
    "cause": FieldType("text"),
    "size": FieldType("number", "By"),
    "id": FieldType("number"),
}
"""What a filter can ask for; those that a message has for all its items are `_OF_MESSAGE`."""


class Record(msgspec.Struct, frozen=True):
    """One item of a message that passed: `at` is wall-clock seconds, `size` its bytes on the wire."""

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
    body: Any = None
    compressed: bool = False


class Tap:
    """One reader's view: its filter, its ring and its counters."""

    def __init__(self, filter: str, payload: bool, now: float, owner: str = "") -> None:
        self.owner = owner
        self._filter = predicate(filter, FIELDS) if filter else None
        self._verdicts: dict[tuple[Any, ...], bool | None] = {}
        self._payload = payload
        self._ring: deque[Record] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self.polled = now
        self.passed = self.matched = self.dropped = self.fetched = 0

    def verdict(self, key: tuple[Any, ...]) -> bool | None:
        """Say whether a message matches by what `key`, the values of `_OF_MESSAGE`, tells; None: its items decide.

        Few keys differ, so each is judged once.
        """
        if self._filter is None:
            return True
        verdict = self._verdicts.get(key, ...)
        if verdict is ...:
            if len(self._verdicts) >= MAX_VERDICTS:
                self._verdicts.clear()
            texts = (key[0].name.lower(), *key[1:])
            verdict = self._verdicts[key] = self._filter(dict(zip(_OF_MESSAGE, texts, strict=True)))
        return verdict

    def offer(self, record: Record, verdict: bool | None) -> None:
        """Keep an item of a message with that verdict, if it matches and there is room."""
        if verdict is None and self._filter is not None and not self._filter(msgspec.structs.asdict(record)):
            return
        self.matched += 1
        size = record.size if self._payload else 0
        if len(self._ring) >= RING_RECORDS or self._bytes + size > RING_BYTES:
            self.dropped += 1
            return
        self._bytes += size
        body = bytes(record.body) if self._payload and record.body is not None else None
        self._ring.append(msgspec.structs.replace(record, body=body))
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

    def attach(self, filter: str, payload: bool, now: float, owner: str = "") -> int:
        """Add a tap and return its number; raises BadExpression for a bad filter, Overloaded when there are too many.

        `filter` is an expression over `FIELDS`; an empty one takes everything.
        """
        self.sweep(now)
        if len(self._taps) >= MAX_TAPS:
            raise Overloaded(f"{MAX_TAPS} taps are attached to this broker already", "end one of them")
        number = next(self._numbers)
        self._taps[number] = Tap(filter, payload, now, owner)
        return number

    def get(self, number: int, owner: str = "") -> Tap:
        """Return a tap; raises NotFound when it was taken off (its lease ended), or is another's."""
        if number not in self._taps or self._taps[number].owner != owner:
            raise NotFound(f"no tap {number} is attached to this broker", "its lease ended; attach again")
        return self._taps[number]

    def detach(self, number: int, owner: str = "") -> dict[str, int]:
        """Take a tap off and return its last counters."""
        counters = self.get(number, owner).counters()
        del self._taps[number]
        return counters

    def sweep(self, now: float) -> None:
        """Take off the taps whose readers are gone."""
        for number in [number for number, tap in self._taps.items() if tap.polled + LEASE < now]:
            del self._taps[number]

    def offer(self, at: float, node: int, direction: str, header: Header, source: str, body: Any) -> None:
        """Show a message to every tap: its header first, its items only to those that may want one of them."""
        count = header.count if 0 < header.count <= codec.MAX_BATCH else 1
        if header.topic.startswith("bus.tap_") and header.kind is not Kind.EVENT:
            return
        key = (header.kind, header.topic, source, header.destination, direction)
        records: list[Record] | None = None
        for tap in self._taps.values():
            tap.passed += count
            verdict = tap.verdict(key)
            if verdict is not False:
                if records is None:
                    records = _records(at, node, direction, header, source, body)
                for record in records:
                    tap.offer(record, verdict)


def _records(at: float, node: int, direction: str, header: Header, source: str, body: Any) -> list[Record]:
    """Return the items of a message; one that cannot be opened is shown as a whole."""
    items, compressed = [body], header.compressed
    if header.count != 1:
        with suppress(Malformed):
            items = codec.split_items(codec.unpack_body(bytes(body), compressed), header.count)
            compressed = False
    kind = header.kind.name.lower()
    asker = header.destination if header.kind in (Kind.REPLY, Kind.ERROR) else source
    records = []
    for index, item in enumerate(items):
        number = header.ids[index] if index < len(header.ids) else 0
        cause = f"{asker}#{number}" if number else ""
        if header.causes:
            cause = header.causes[min(index, len(header.causes) - 1)]
        size = len(bytes(item)) if isinstance(item, msgspec.Raw) else len(item)
        place = (source, header.destination, header.topic)
        records.append(Record(at, node, direction, kind, *place, number, cause, size, item, compressed))
    return records
