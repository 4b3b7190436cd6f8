"""What a log entry says: seven kinds of body, packed into records. Pure.

Knows no state: what an entry does is the store's affair. An entry carries `time`, milliseconds of log time: the
proposer adds the time that passed while it reigned to the time of the entry before, so log time never goes back, knows
no wall clock and stands still while no primary reigns. All that depends on time in the store depends on this alone.
"""

from __future__ import annotations

from typing import Any

import msgspec

from . import records


class Founded(msgspec.Struct, frozen=True, array_like=True):
    """The first entry of a log: whose cluster it is, and the first keys."""

    cluster_id: str
    gen: int
    then: tuple[tuple[str, bytes | None], ...]


class Reigned(msgspec.Struct, frozen=True, array_like=True):
    """A primary began its reign: all before it is settled once this entry is durable."""

    primary: int


class WritesOpened(msgspec.Struct, frozen=True, array_like=True):
    """Phase 2 is over: from here on users write in this epoch."""


class Transacted(msgspec.Struct, frozen=True, array_like=True):
    """A user transaction: if each `(key, mod_revision)` holds do `then`, else `otherwise`.

    An operation is `(key, packed value)`, or `(key, None)`: delete it. `system`: it needed no open writes. `since`: the
    id was not in use before this index (0: nobody knows).
    """

    id: str
    compare: tuple[tuple[str, int], ...]
    then: tuple[tuple[str, bytes | None], ...]
    otherwise: tuple[tuple[str, bytes | None], ...]
    system: bool = False
    since: int = 0


class Committed(msgspec.Struct, frozen=True, array_like=True):
    """A system entry of a component: the last `keep` of its slot are kept; 0 empties the slot."""

    id: str
    kind: str
    slot: str
    body: bytes
    keep: int


class Configured(msgspec.Struct, frozen=True, array_like=True):
    """The registry servers from here on, in force as soon as the entry stands in a log. It also writes the server
    list's key, so everybody who watches that learns it.

    `voters` count for majorities; `learners` are being filled and become voters by an entry of their own; `stopped`
    are voters or learners whose server process an operator put offline.
    """

    voters: tuple[int, ...]
    learners: tuple[int, ...] = ()
    stopped: tuple[int, ...] = ()


class Noted(msgspec.Struct, frozen=True, array_like=True):
    """The copy of `server` is damaged in its life `life`. Committed without counting that server, and only what holds
    this entry refills it: so nothing that the lost copy had voted for or acknowledged can be missed."""

    server: int
    life: int


Body = Founded | Reigned | WritesOpened | Transacted | Committed | Configured | Noted
KINDS: dict[type[Any], int] = {
    Founded: 1,
    Reigned: 2,
    WritesOpened: 3,
    Transacted: 4,
    Committed: 5,
    Configured: 6,
    Noted: 7,
}
CONFIGURED = KINDS[Configured]
_decoders: dict[int, msgspec.msgpack.Decoder[Any]] = {
    kind: msgspec.msgpack.Decoder(tuple[int, body])  # type: ignore[valid-type]  # a type of KINDS
    for body, kind in KINDS.items()
}
_pack = msgspec.msgpack.Encoder().encode


class Entry(msgspec.Struct, frozen=True):
    """One entry of the core log, as decoded."""

    epoch: int
    index: int
    time: int
    body: Body


class UnknownEntry(Exception):
    """A sound record holds an entry that this version cannot read."""


def encode(entry: Entry, previous: bytes) -> bytes:
    """Return the record of an entry, chained to the entry before."""
    payload = _pack((entry.time, entry.body))
    return records.encode(KINDS[type(entry.body)], entry.epoch, entry.index, payload, previous)


def decode(record: records.Record) -> Entry:
    """Return the entry in a sound record; raise `UnknownEntry` when a newer version must have written it."""
    decoder = _decoders.get(record.kind)
    if decoder is None:
        raise UnknownEntry(f"entry {record.index} is of the unknown kind {record.kind}")
    try:
        time, body = decoder.decode(record.payload)
    except msgspec.MsgspecError as error:
        raise UnknownEntry(f"entry {record.index} cannot be read: {error}") from error
    return Entry(record.epoch, record.index, time, body)
