"""What the committed entries come to, by a model of their own: a dict and lists. What answers are held against.

Trusts no server: entries come from what servers ordered to be written, and a place in the log is committed when a
server says so and a majority really had it on their disks (`registry_guard.py` sees to that).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from typing import Any

import msgspec
from covey.components.registry import entries, records
from covey.components.registry.entries import Configured
from covey.components.registry.store import Image
from registry_copy import SERVERS_KEY


class Truth:
    """The one log, from the founding snapshot on: digests, states, changes, answers."""

    def __init__(self, snapshot: bytes, requests_kept: int) -> None:
        record = records.unchecked(snapshot)
        image = msgspec.msgpack.decode(record.payload[records.DIGEST_BYTES :], type=Image)
        self.gen, self.first, self.last = image.gen, record.index, record.index
        self.digests = [record.payload[: records.DIGEST_BYTES]]
        self.epochs = [record.epoch]
        self.revisions = [image.revision]
        self.founded = image.revision
        self.ids: dict[str, tuple[int, bool, int, int]] = {}  # revision, succeeded, index, epoch
        self.kinds: dict[str, int] = {}
        self.rows: dict[str, list[tuple[int, Any]]] = {}
        self.changes: dict[int, list[tuple[str, Any]]] = {}
        self.servers = Configured(())
        self._requests_kept = requests_kept
        self._known: OrderedDict[str, int] = OrderedDict()
        self._forgotten = 0
        self._opened = 0
        for key, item in image.items:
            self.rows[key] = [(item.mod_revision, msgspec.msgpack.decode(item.value))]
        self._named()

    # --- what was when ---

    def digest(self, index: int) -> bytes | None:
        """Return the digest of a committed entry."""
        at = index - self.first
        return self.digests[at] if 0 <= at < len(self.digests) else None

    def revision(self, index: int) -> int:
        """Return the revision after a committed entry."""
        return self.revisions[index - self.first]

    def epoch(self, index: int) -> int:
        """Return the epoch of a committed entry."""
        return self.epochs[index - self.first]

    def at(self, key: str, revision: int | None = None) -> tuple[Any, int]:
        """Return `(value, mod_revision)` of a key after a revision, `(None, 0)` for none."""
        row = self.rows.get(key, [])
        found = len(row) if revision is None else bisect_right(row, revision, key=lambda pair: pair[0])
        if not found or row[found - 1][1] is None:
            return None, 0
        return row[found - 1][1], row[found - 1][0]

    # --- how it grows ---

    def add(self, data: bytes) -> None:
        """The next entry is committed."""
        record = records.unchecked(data)
        assert record.index == self.last + 1
        self.last = record.index
        self.digests.append(record.digest)
        self.epochs.append(record.epoch)
        self.revisions.append(self.revisions[-1])
        entry = entries.decode(record)
        body = entry.body
        self.kinds[type(body).__name__] = self.kinds.get(type(body).__name__, 0) + 1
        if isinstance(body, entries.WritesOpened):
            self._opened = entry.epoch
        elif isinstance(body, entries.Reigned):
            value, _ = self.at(SERVERS_KEY)
            if value.get("primary") != body.primary:
                self._change([(SERVERS_KEY, {**value, "primary": body.primary})])
        elif isinstance(body, entries.Configured):
            primary = self.at(SERVERS_KEY)[0].get("primary", 0)
            named = {"servers": list(body.voters), "learners": list(body.learners), "stopped": list(body.stopped)}
            self._change([(SERVERS_KEY, {**named, "primary": primary if primary in body.voters else body.voters[0]})])
            self._named()
        elif isinstance(body, entries.Committed):
            if self._once(body.id, 0):
                self._answer(body.id, True, entry)
        elif isinstance(body, entries.Transacted):
            assert body.system or self._opened == entry.epoch, f"INV-13: {body.id} was written while writes were closed"
            if self._once(body.id, body.since):
                succeeded = all(self.at(key)[1] == revision for key, revision in body.compare)
                packed = body.then if succeeded else body.otherwise
                self._change([(key, None if value is None else msgspec.msgpack.decode(value)) for key, value in packed])
                self._answer(body.id, succeeded, entry)

    def _once(self, id: str, since: int) -> bool:
        if id in self._known or 0 < since < self._forgotten:
            return False
        assert id not in self.ids, f"INV-14: {id} was applied twice"
        return True

    def _answer(self, id: str, succeeded: bool, entry: entries.Entry) -> None:
        self.ids[id] = (self.revisions[-1], succeeded, entry.index, entry.epoch)
        self._known[id] = entry.index
        if len(self._known) > self._requests_kept:
            self._forgotten = self._known.popitem(last=False)[1]

    def _change(self, operations: list[tuple[str, Any]]) -> None:
        revision, changed = self.revisions[-1] + 1, []
        for key, value in operations:
            if value is not None or self.at(key)[1]:
                self.rows.setdefault(key, []).append((revision, value))
                changed.append((key, value))
        if changed:
            self.changes[revision] = changed
            self.revisions[-1] = revision

    def _named(self) -> None:
        value = self.at(SERVERS_KEY)[0]
        self.servers = Configured(*(tuple(value.get(name, ())) for name in ("servers", "learners", "stopped")))

    def changes_from(self, start: int) -> dict[int, list[tuple[str, Any]]]:
        """Return what was changed from a revision on, with that of the founding."""
        founded: dict[int, list[tuple[str, Any]]] = {}
        for key in sorted(self.rows):
            revision, value = self.rows[key][0]
            if start <= revision <= self.founded:
                founded.setdefault(revision, []).append((key, value))
        return {**founded, **{at: row for at, row in self.changes.items() if at >= start}}
