"""A new generation: what a registry's state becomes when an operator takes it over from a lost or an older registry.

Pure. `restore` and `force` both go on from a state that may not be the newest one there was: entries, revisions and
epochs that others have seen are missing in it, and will be given out again. So the generation is raised by one (copies
of a lower one are never merged), and the counters jump over all that can have been given out: then no watcher goes on
over a gap (it hears `registry.compacted`), no comparison with a lost revision holds, and nobody takes the new primary,
a view of the members or the age of a request id for older than what it knows.

Odd: the server list is written like any other key, in the entry that does all of it: the state at the base of a log is
what names its first servers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from . import entries, records
from .keys import check_key, pack_value
from .messages import Comparison, Operation
from .recovery import encode_snapshot
from .store import SERVERS_KEY, Store

EPOCHS = 1_000_000
"""Reigns that the lost registry may have had beyond this state: one a second for eleven days."""

ENTRIES = 1_000_000_000
"""Entries, and so revisions, that it may have had: 1,000 a second for eleven days."""


class NewCopy(msgspec.Struct, frozen=True):
    """The first copy of a new generation: its state, and the two records that a copy's files begin with."""

    store: Store
    hard_state: bytes
    snapshot: bytes


class Conflict(ValueError):
    """The state is not what the changes to it were made for; `keys` are those that differ."""

    def __init__(self, keys: list[str]) -> None:
        super().__init__("a comparison does not hold: " + ", ".join(keys))
        self.keys = keys


def begin(
    store: Store,
    chain: bytes,
    server: int,
    *,
    promised: int = 0,
    compare: Iterable[Comparison] = (),
    then: Iterable[Operation] = (),
) -> NewCopy:
    """Return the next generation of a state, whose only registry server is node `server`.

    `chain` is the digest of the last entry, `promised` the newest epoch that its server knew. What `then` does is done
    with it, if every comparison holds; else `Conflict`.
    """
    wanted = [(check_key(one.key), one.mod_revision) for one in compare]
    wrong = [key for key, revision in wanted if store.mod_revision(key) != revision]
    if wrong:
        raise Conflict(wrong)
    listed = {"servers": [server], "learners": [], "stopped": [], "primary": server}
    changes = [(check_key(one.key), _value(one.key, one.value) if one.op == "put" else None) for one in then]
    changes.append((SERVERS_KEY, _value(SERVERS_KEY, listed)))
    image = store.image()
    raised = msgspec.structs.replace(
        image, gen=image.gen + 1, index=image.index + ENTRIES, revision=image.revision + ENTRIES
    )
    new = Store.restore(raised, store.settings)
    body = entries.Transacted("", (), tuple(changes), (), system=True)
    epoch = max(store.epoch, promised) + EPOCHS
    entry = entries.Entry(epoch, new.index + 1, new.time, body)
    new.apply(entry)
    chain = records.digest(entries.encode(entry, chain))
    return NewCopy(new, records.encode_hard_state(epoch), encode_snapshot(new, chain))


def _value(key: str, value: Any) -> bytes:
    return pack_value(key, value)
