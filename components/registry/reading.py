"""Answers to what clients read, as plain data. Pure functions over a store.

Knows no phase: whether a read may be answered at all, and as what, is the machine's affair.
"""

from __future__ import annotations

from typing import Any

from ...errors import KeyNotFound, TooLarge
from .history import OVERHEAD
from .keys import check_key, check_prefix, unpack_value
from .messages import Get, List, ListSystem
from .store import Batch, Store


def read(store: Store, question: Get | List | ListSystem, epoch: int, limit_bytes: int) -> dict[str, Any]:
    """Return what a question finds; raises BadKey, KeyNotFound, TooLarge."""
    match question:
        case Get():
            return get(store, question)
        case List():
            return ls(store, question, limit_bytes)
        case ListSystem():
            return system(store, question, epoch, limit_bytes)


def get(store: Store, question: Get) -> dict[str, Any]:
    """Return one key with its value; raises BadKey, KeyNotFound."""
    item = store.get(check_key(question.key))
    if item is None:
        raise KeyNotFound(
            f"there is no key {question.key!r} at revision {store.revision}",
            key=question.key,
            revision=store.revision,
        )
    return {
        "key": question.key,
        "value": unpack_value(item.value),
        "revision": store.revision,
        "mod_revision": item.mod_revision,
        "consistency": question.consistency,
    }


def ls(store: Store, question: List, limit_bytes: int) -> dict[str, Any]:
    """Return the keys below a prefix, in order; raises BadKey, TooLarge.

    With `limit` at most so many, and `more` says whether there are others behind the last.
    """
    items: list[dict[str, Any]] = []
    size, more = 0, False
    for key, item in store.ls(check_prefix(question.prefix), question.after):
        if question.limit and len(items) == question.limit:
            more = True
            break
        size += len(key) + len(item.value) + OVERHEAD
        if size > limit_bytes:
            if question.limit and items:
                more = True
                break
            raise TooLarge(
                f"the keys below {question.prefix!r} have more than {limit_bytes} bytes",
                "read them in parts, with limit= and after=",
            )
        items.append({"key": key, "value": unpack_value(item.value), "mod_revision": item.mod_revision})
    return {"items": items, "revision": store.revision, "consistency": question.consistency, "more": more}


def batch(found: Batch, start: int) -> dict[str, Any]:
    """Return what a watcher gets: all changes of revisions `start` to `to`, those before `found` had none for it."""
    events = [
        {
            "type": "delete" if event.value is None else "put",
            "key": event.key,
            "value": None if event.value is None else unpack_value(event.value),
            "revision": revision,
        }
        for revision, event in found.events
    ]
    return {"from": start, "to": max(found.end, start - 1), "events": events}


def system(store: Store, question: ListSystem, epoch: int, most: int = 8 << 20) -> dict[str, Any]:
    """Return the kept system entries of a kind, about `most` bytes; if there is `more`, ask on from the last index."""
    entries: list[dict[str, Any]] = []
    rows = store.system(question.kind, question.since_index)
    for slot, kept in rows:
        entries.append({"index": kept.index, "epoch": kept.epoch, "slot": slot, "body": kept.body})
        most -= len(kept.body) + len(slot) + 50
        if most <= 0:
            break
    return {"entries": entries, "epoch": epoch, "more": len(entries) < len(rows)}
