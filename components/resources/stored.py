"""This node's resources as the registry has them, and the one transaction that makes them what was discovered.

Knows no machine, no bus and no time (the moment of a discovery comes as text). A resource that is no longer found is
not deleted but marked gone, with since when: others may still want to know what was there. Every write compares the
revision at which each touched key was last seen, so a copy that lags behind the registry can never overwrite it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec

from .messages import PREFIX


class Resource(msgspec.Struct, frozen=True):
    """One discovered resource, checked against its class; `attributes` are the persistent ones beside its key."""

    cls: str
    id: str
    key: dict[str, Any]
    attributes: dict[str, Any]
    version: int

    @property
    def path(self) -> str:
        """Where the registry keeps it."""
        return f"{PREFIX}{self.cls}/{self.id}"

    def value(self, node: int) -> dict[str, Any]:
        """Return what the registry keeps of it while it is there."""
        return {
            "class": self.cls,
            "id": self.id,
            "key": self.key,
            "node": node,
            "attributes": self.attributes,
            "version": self.version,
            "gone": False,
        }


class Transaction(msgspec.Struct, frozen=True):
    """What must be written: `compare` holds the revision of every key in `puts` (0: must not exist)."""

    compare: tuple[tuple[str, int], ...]
    puts: tuple[tuple[str, dict[str, Any]], ...]


class StoredResources:
    """The registry's copy of this node's resources, as last read or written."""

    def __init__(self, node: int, items: Iterable[tuple[str, Any, int]] = ()) -> None:
        self.node = node
        self._items: dict[str, tuple[dict[str, Any], int]] = {}
        self._foreign: dict[str, int] = {}
        for key, value, revision in items:
            if isinstance(value, dict) and value.get("node") == node:
                self._items[key] = (value, revision)
            else:
                self._foreign[key] = revision

    def transaction(
        self,
        classes: Collection[str],
        found: Mapping[str, Resource],
        at: str,
        unclear: Collection[str] = (),
        removed: Collection[str] = (),
    ) -> Transaction | None:
        """Return what to write so that `classes` hold exactly `found` (by path); None when nothing changed.

        `unclear` are classes of which something was found that nobody can name: nothing of them is marked gone, but
        for the paths of `removed`.
        """
        puts: list[tuple[str, dict[str, Any]]] = []
        for path in sorted(found):
            value = found[path].value(self.node)
            if path not in self._items or self._items[path][0] != value:
                puts.append((path, value))
        for path, (value, _) in sorted(self._items.items()):
            cls = value.get("class")
            clear = path in removed or (cls in classes and cls not in unclear)
            if path not in found and clear and not value.get("gone"):
                puts.append((path, {**value, "gone": True, "since": at}))
        if not puts:
            return None
        return Transaction(tuple((path, self._revision(path)) for path, _ in puts), tuple(puts))

    def attributes(self, path: str) -> Mapping[str, Any]:
        """Return the attributes that are stored of a resource; none of one that is gone or was never there."""
        value = self._items[path][0] if path in self._items else {}
        attributes = value.get("attributes")
        return attributes if isinstance(attributes, Mapping) and not value.get("gone") else {}

    def applied(self, transaction: Transaction, revision: int) -> None:
        """Take over a transaction that the registry carried out at `revision`."""
        for path, value in transaction.puts:
            self._items[path] = (value, revision)
            self._foreign.pop(path, None)

    def _revision(self, path: str) -> int:
        # A key that another node's number stands in can only be a collision of hashes or an old store: it is
        # compared like any other, so that the later writer wins knowingly.
        return self._items[path][1] if path in self._items else self._foreign.get(path, 0)
