"""From what the files hold to the state and the log that a machine starts on. Pure.

Knows no path (damage found here is named by the folder it was loaded from). Only what is known to be committed is
applied; what follows stays in the log until a primary commits or cuts it. Odd: a sound record can still be one that
this version cannot read, or a state that does not have the hash it says; both count as damage, because a copy that
guesses is worse than one that is silent.
"""

from __future__ import annotations

import msgspec

from . import entries, membership, records
from .loaded import Damage, Loaded
from .log import START, Log, Place
from .settings import Settings
from .store import Image, Store

_images = msgspec.msgpack.Decoder(Image)
_EMPTY = entries.Configured(())


class Recovered(msgspec.Struct):
    """What a machine starts on. With `damaged` not empty store and log are empty and serve nothing."""

    store: Store
    log: Log
    promised: int = 0
    voted_for: int = 0
    log_bytes: int = 0  # since the snapshot
    snapshot_bytes: int = 0
    damaged: tuple[Damage, ...] = ()
    repaired: tuple[Damage, ...] = ()

    @property
    def chain(self) -> bytes:
        """The digest of the newest entry."""
        return self.log.end.chain


def encode_snapshot(store: Store, chain: bytes) -> bytes:
    """Return the record of a snapshot: the digest of the entry it stands at, then the state."""
    payload = chain + msgspec.msgpack.encode(store.image())
    return records.encode(records.SNAPSHOT, store.epoch, store.index, payload, records.SEED[records.SNAPSHOT])


def restore(snapshot: records.Record, settings: Settings) -> tuple[Store, Place]:
    """Return the state of a snapshot and its place in the log; raises ValueError or MsgspecError."""
    chain = snapshot.payload[: records.DIGEST_BYTES]
    store = Store.restore(_images.decode(memoryview(snapshot.payload)[records.DIGEST_BYTES :]), settings)
    return store, Place(snapshot.index, snapshot.epoch, chain)


def recover(loaded: Loaded, settings: Settings, place: str = "the registry's folder") -> Recovered:
    """Rebuild the state: the snapshot, then every entry after it that is known to be committed."""
    if loaded.damaged:
        return _nothing(settings, loaded.damaged, loaded.repaired)
    try:
        return _rebuild(loaded, settings)
    except (msgspec.MsgspecError, entries.UnknownEntry, ValueError) as error:
        damage = Damage(place, 0, f"the records are sound but cannot be applied: {error}")
        return _nothing(settings, (damage,), loaded.repaired)


def _nothing(settings: Settings, damaged: tuple[Damage, ...], repaired: tuple[Damage, ...]) -> Recovered:
    return Recovered(Store(settings), Log(START, _EMPTY), damaged=damaged, repaired=repaired)


def _rebuild(loaded: Loaded, settings: Settings) -> Recovered:
    store, base = Store(settings), START
    snapshot_bytes = 0
    if loaded.snapshot:
        store, base = restore(loaded.snapshot, settings)
        snapshot_bytes = len(loaded.snapshot.payload)
    log = Log(base, membership.of_store(store))
    committed = max(loaded.committed, base.index)
    log_bytes = 0
    for record in loaded.entries:
        data = records.encoded(record)
        log.append(data, record)
        log_bytes += len(data)
        entry = entries.decode(record)
        if isinstance(entry.body, entries.Founded):
            committed = max(committed, entry.index)  # it was synced before anybody knew of the cluster
        if entry.index <= committed:
            store.apply(entry)
            if isinstance(entry.body, entries.Founded):
                log = _founded(log, store)
    log.commit(min(committed, log.last))
    if loaded.identity and loaded.identity.cluster_id != store.cluster_id:
        raise ValueError(f"the log was founded for cluster {store.cluster_id}")
    return Recovered(
        store,
        log,
        promised=loaded.promised,
        voted_for=loaded.voted_for,
        log_bytes=log_bytes,
        snapshot_bytes=snapshot_bytes,
        repaired=loaded.repaired,
    )


def _founded(log: Log, store: Store) -> Log:
    """The first entry names the first servers by a key: they are in force from there on."""
    founded = Log(log.base, membership.of_store(store))
    for index in range(log.base.index + 1, log.last + 1):
        data = log.data(index, 0)[0]
        founded.append(data, records.unchecked(data))
    return founded
