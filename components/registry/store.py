"""The state that the log leads to: keys, system entries, answers to request ids. Pure: same entries, same state.

Knows no disk, no clock and no primary; it applies entries that are durable, in order, and answers reads. The index
counts entries, the revision counts transactions that changed something; a transaction is one revision or none.
Request ids (not the empty one): the answers to the newest `requests_kept` ids stay known, in log order, so a retry is
answered and not applied again. A transaction says since which index its id may have been in use (`since`); when an
answer younger than that was forgotten it is not applied, for it might be the second time (`Answer.expired`). The
state hash is a sum over all keys and system entries, so it is
renewed in the time of one change, and two copies at one index must have the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from functools import partial
from hashlib import blake2b
from itertools import repeat
from operator import methodcaller
from typing import Any

import msgspec

from ...errors import Compacted
from .entries import Body, Committed, Configured, Entry, Founded, Noted, Reigned, Transacted, WritesOpened
from .history import Event, History
from .ordered import OrderedKeys
from .settings import Settings

SERVERS_KEY = "/cluster/servers"
_HASH_MASK = (1 << 128) - 1
_digest_of = methodcaller("digest")
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode


class Item(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The value of a key (packed), and the revisions that last changed and made it."""

    value: bytes
    mod_revision: int
    create_revision: int


class Kept(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One kept system entry."""

    index: int
    epoch: int
    body: bytes


class Answer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What an entry with a request id came to."""

    index: int
    epoch: int
    revision: int
    succeeded: bool
    expired: bool = False  # its id was used before the oldest answer that is still known: nothing was done


class Batch(msgspec.Struct, frozen=True):
    """A contiguous batch for a watcher: all changes of revisions `start` … `end`, with their revisions."""

    start: int
    end: int
    events: list[tuple[int, Event]]


class Image(msgspec.Struct, array_like=True, frozen=True):
    """The whole state, as a snapshot holds it. The history begins anew after it (`revision + 1`)."""

    cluster_id: str
    gen: int
    epoch: int
    index: int
    time: int
    opened: int
    revision: int
    state_hash: bytes
    items: list[tuple[str, Item]]
    system: list[tuple[str, str, list[Kept]]]
    requests: list[tuple[str, Answer]]
    forgotten: int = 0


def _weight(*parts: str | Item | Kept) -> int:
    return int.from_bytes(blake2b(_pack(parts), digest_size=16).digest())


class Store:
    """The state machine. `apply` is its only way to change."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.cluster_id = ""
        self.gen = 0
        self.epoch = 0
        self.index = 0
        self.time = 0
        self.opened = 0  # index of the last entry that opened writes
        self.revision = 0
        self.state_hash = 0
        self._checked = -1  # index at which the invariants were looked at last
        self.forgotten = 0  # index of the newest answer to a request id that is no longer known
        self._items: dict[str, Item] = {}
        self._keys = OrderedKeys()
        self._system: dict[tuple[str, str], list[Kept]] = {}
        self._requests: OrderedDict[str, Answer] = OrderedDict()
        self._history = History(self.settings, 1)

    # --- change ---

    def apply(self, entry: Entry) -> Answer | None:
        """Apply the next entry; return what it came to, if it has a request id. Raises ValueError out of order."""
        if entry.index != self.index + 1 or entry.epoch < self.epoch:
            raise ValueError(
                f"entry {entry.epoch}.{entry.index} cannot follow on {self.epoch}.{self.index} of the state"
            )
        self.index, self.epoch, self.time = entry.index, entry.epoch, max(self.time, entry.time)
        body: Body = entry.body
        match body:
            case Founded():
                self.cluster_id, self.gen = body.cluster_id, body.gen
                self._change(body.then)
            case Transacted():
                return self._transact(body)
            case Committed():
                return self._commit(body)
            case WritesOpened():
                self.opened = entry.index
            case Reigned():
                self._mark_primary(body.primary)
            case Configured():
                self._configure(body)
            case Noted():
                pass
        return None

    def _servers(self) -> dict[str, Any]:
        item = self._items.get(SERVERS_KEY)
        return dict(_unpack(item.value)) if item else {}

    def _mark_primary(self, primary: int) -> None:
        """The server list marks the primary (SPEC 3.2); unchanged, it is no revision."""
        value = self._servers()
        if value and value.get("primary") != primary:
            self._change(((SERVERS_KEY, _pack({**value, "primary": primary})),))

    def _configure(self, body: Configured) -> None:
        primary = self._servers().get("primary", 0)
        value = {
            "servers": list(body.voters),
            "primary": primary if primary in body.voters else body.voters[0],
            "learners": list(body.learners),
            "stopped": list(body.stopped),
        }
        self._change(((SERVERS_KEY, _pack(value)),))

    def _transact(self, body: Transacted) -> Answer:
        if answer := self.answered(body.id):
            return answer
        if body.id and 0 < body.since < self.forgotten:
            return Answer(self.index, self.epoch, self.revision, False, True)
        succeeded = not body.compare or all(self.mod_revision(key) == revision for key, revision in body.compare)
        self._change(body.then if succeeded else body.otherwise)
        return self._remember(body.id, Answer(self.index, self.epoch, self.revision, succeeded))

    def _commit(self, body: Committed) -> Answer:
        if answer := self.answered(body.id):
            return answer
        place = (body.kind, body.slot)
        kept = self._system.pop(place, [])
        for old in kept:
            self._weigh(-_weight("system", *place, old))
        kept = [*kept, Kept(self.index, self.epoch, body.body)][-body.keep :] if body.keep > 0 else []
        for new in kept:
            self._weigh(_weight("system", *place, new))
        if kept:
            self._system[place] = kept
        return self._remember(body.id, Answer(self.index, self.epoch, self.revision, True))

    def _change(self, operations: tuple[tuple[str, bytes | None], ...]) -> None:
        revision = self.revision + 1
        events: list[Event] = []
        for key, value in operations:
            old = self._items.get(key)
            if old is not None:
                self._weigh(-_weight("item", key, old))
            elif value is None:
                continue
            if value is None:
                del self._items[key]
                self._keys.remove(key)
            else:
                new = Item(value, revision, old.create_revision if old else revision)
                self._items[key] = new
                self._weigh(_weight("item", key, new))
                if old is None:
                    self._keys.add(key)
            events.append(Event(key, value))
        if events:
            self.revision = revision
            self._history.add(revision, self.time, tuple(events))

    def _weigh(self, weight: int) -> None:
        self.state_hash = (self.state_hash + weight) & _HASH_MASK

    def _remember(self, request: str, answer: Answer) -> Answer:
        if request:
            self._requests[request] = answer
        if len(self._requests) > self.settings.requests_kept:
            _, oldest = self._requests.popitem(last=False)
            self.forgotten = oldest.index
        return answer

    # --- read ---

    @property
    def history_start(self) -> int:
        """The lowest revision from which a watch can still begin."""
        return self._history.start

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: str) -> Item | None:
        """Return the item of a key."""
        return self._items.get(key)

    def mod_revision(self, key: str) -> int:
        """Return the revision that last changed the key, 0: there is none."""
        item = self._items.get(key)
        return item.mod_revision if item else 0

    def ls(self, prefix: str, after: str = "") -> Iterator[tuple[str, Item]]:
        """Yield the items whose key begins with `prefix` and comes behind `after`, in the order of the keys."""
        for key in self._keys.since(max(prefix, after)):
            if not key.startswith(prefix):
                return
            if key != after:
                yield key, self._items[key]

    def answered(self, request: str) -> Answer | None:
        """Return what a request id came to, if it is still known."""
        return self._requests.get(request)

    def system(self, kind: str, since_index: int = 0) -> list[tuple[str, Kept]]:
        """Return the kept system entries of a kind above an index: (slot, entry), by rising index."""
        found = [
            (slot, kept)
            for (of_kind, slot), row in self._system.items()
            if of_kind == kind
            for kept in row
            if kept.index > since_index
        ]
        return sorted(found, key=lambda pair: pair[1].index)

    def changes(self, prefix: str, start: int, limit: int) -> Batch:
        """Return the changes below `prefix` from revision `start` on; raise `Compacted` when they are not all kept."""
        if start < self._history.start:
            raise Compacted(
                f"the changes from revision {start} are no longer kept, the oldest is {self._history.start}",
                f"list the prefix (it is at revision {self.revision}), then watch from the list's revision + 1",
                compacted=self._history.start,
                revision=self.revision,
            )
        if start > self.revision:
            return Batch(start, start - 1, [])
        found, end = self._history.read(prefix, start, limit)
        return Batch(start, end, found)

    # --- snapshots and checks ---

    def image(self) -> Image:
        """Return the whole state, for a snapshot. The order of its lists is that of the keys and of the log."""
        return Image(
            self.cluster_id,
            self.gen,
            self.epoch,
            self.index,
            self.time,
            self.opened,
            self.revision,
            self.state_hash.to_bytes(16),
            [(key, self._items[key]) for key in self._keys],
            [(kind, slot, row) for (kind, slot), row in sorted(self._system.items())],
            list(self._requests.items()),
            self.forgotten,
        )

    @classmethod
    def restore(cls, image: Image, settings: Settings | None = None) -> Store:
        """Rebuild the state of a snapshot; raise ValueError when it does not have the hash it had."""
        store = cls(settings)
        store.cluster_id, store.gen, store.opened = image.cluster_id, image.gen, image.opened
        store.epoch, store.index, store.time, store.revision = image.epoch, image.index, image.time, image.revision
        store._items = dict(image.items)
        store._keys = OrderedKeys(store._items)
        store._system = {(kind, slot): row for kind, slot, row in image.system}
        store._requests, store.forgotten = OrderedDict(image.requests), image.forgotten
        store._history = History(store.settings, image.revision + 1)
        store.state_hash = store.computed_hash()
        if store.state_hash.to_bytes(16) != image.state_hash:
            raise ValueError(f"the snapshot at index {image.index} does not have the state hash it says")
        return store

    def computed_hash(self) -> int:
        """Compute the state hash from nothing."""
        # what `_weight` does, without a step of the interpreter: a hundred thousand keys are a part of each start
        packed = map(_pack, zip(repeat("item"), self._items.keys(), self._items.values()))
        digests = map(_digest_of, map(partial(blake2b, digest_size=16), packed))
        total = sum(map(int.from_bytes, digests))
        for place, row in self._system.items():
            total += sum(_weight("system", *place, kept) for kept in row)
        return total & _HASH_MASK

    def check_invariants(self) -> None:
        """5. the hash is that of the state; 15. history without a gap; 32. every table within its bound."""
        if self.index == self._checked:  # nothing but an entry changes it, and looking at all of it takes time
            return
        self._checked = self.index
        assert self.state_hash == self.computed_hash(), "5: the state hash is not that of the state"
        assert list(self._keys) == sorted(self._items), "5: the order of keys is not that of the items"
        self._history.check(self.revision)
        assert len(self._requests) <= self.settings.requests_kept, "32: too many request ids"
