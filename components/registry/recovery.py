"""From what the files hold to the state that a machine starts on. Pure.

Knows no path (damage found here is named by the folder it was loaded from). Odd: a sound record can still be one that
this version cannot read, or a state that does not have the hash it says; both count as damage, because a copy that
guesses is worse than one that is silent.
"""

from __future__ import annotations

import msgspec

from . import entries, records
from .loaded import Damage, Loaded
from .settings import Settings
from .store import Image, Store

_images = msgspec.msgpack.Decoder(Image)


class Recovered(msgspec.Struct):
    """What a machine starts on. With `damaged` not empty the store is empty and serves nothing."""

    store: Store
    chain: bytes = records.START
    promised: int = 0
    log_bytes: int = 0  # since the snapshot
    snapshot_bytes: int = 0
    damaged: tuple[Damage, ...] = ()
    repaired: tuple[Damage, ...] = ()


def encode_snapshot(store: Store, chain: bytes) -> bytes:
    """Return the record of a snapshot: the digest of the entry it stands at, then the state."""
    payload = chain + msgspec.msgpack.encode(store.image())
    return records.encode(records.SNAPSHOT, store.epoch, store.index, payload, records.SEED[records.SNAPSHOT])


def recover(loaded: Loaded, settings: Settings, place: str = "the registry's folder") -> Recovered:
    """Rebuild the state: the snapshot, then every entry after it."""
    if loaded.damaged:
        return Recovered(Store(settings), damaged=loaded.damaged, repaired=loaded.repaired)
    try:
        return _rebuild(loaded, settings)
    except (msgspec.MsgspecError, entries.UnknownEntry, ValueError) as error:
        damage = Damage(place, 0, f"the records are sound but cannot be applied: {error}")
        return Recovered(Store(settings), damaged=(damage,), repaired=loaded.repaired)


def _rebuild(loaded: Loaded, settings: Settings) -> Recovered:
    result = Recovered(Store(settings), promised=loaded.promised, repaired=loaded.repaired)
    if loaded.snapshot:
        payload = loaded.snapshot.payload
        result.chain = payload[: records.DIGEST_BYTES]
        result.store = Store.restore(_images.decode(memoryview(payload)[records.DIGEST_BYTES :]), settings)
        result.snapshot_bytes = len(payload)
    for record in loaded.entries:
        result.store.apply(entries.decode(record))
        result.chain = record.digest
        result.log_bytes += record.end - record.position
    if loaded.identity and loaded.identity.cluster_id != result.store.cluster_id:
        raise ValueError(f"the log was founded for cluster {result.store.cluster_id}")
    return result
