"""Bring discoveries into the registry: at most one transaction under way for each controller.

Knows no bus and no clock. A transaction is repeated under its request id until it is answered, so a lost answer never
writes twice; one whose comparison failed means that the registry was changed by somebody else: what it holds is read
again and compared anew. A discovery that comes while another one is being written waits, and only the newest counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ...bus.machine import Address, Effect, Notify, Send
from .messages import CallFailed, ReadStored, Stored, Write, Written
from .settings import Settings
from .stored import StoredResources, Transaction
from .supervision import Supervision

REGISTRY = Address("registry")


class PendingWrite(msgspec.Struct):
    """A transaction that the registry has not answered; sent again at `again_at`."""

    id: str
    transaction: Transaction
    again_at: float
    failures: int = 0


class PendingRead(msgspec.Struct):
    """A question for everything stored that is not answered yet; asked again at `again_at`."""

    id: str
    again_at: float
    failures: int = 0


class Writer:
    """Owns this node's copy of what the registry holds of it."""

    def __init__(self, node: int, settings: Settings, next_id: Callable[[], str]) -> None:
        self._node = node
        self._settings = settings
        self._next_id = next_id
        self._stored: StoredResources | None = None
        self._read: PendingRead | None = None
        self.writes: dict[str, PendingWrite] = {}

    @property
    def deadline(self) -> float | None:
        """When `tick` or `write` must run next."""
        times = [write.again_at for write in self.writes.values()]
        if self._read is not None:
            times.append(self._read.again_at)
        return min(times, default=None)

    def reload(self, now: float) -> None:
        """Read again what the registry holds; nothing new is written before that is known."""
        if self._read is None:
            self._read = PendingRead(self._next_id(), now)

    def loaded(self, message: Stored) -> list[Effect]:
        """Take what the registry holds."""
        if self._read is None or message.id != self._read.id:
            return []
        self._read = None
        first = self._stored is None
        self._stored = StoredResources(self._node, message.items)
        return [Notify("loaded")] if first else []

    def attributes(self, path: str) -> Mapping[str, Any]:
        """Return the attributes that the registry has of a resource of this node, as far as is known."""
        return self._stored.attributes(path) if self._stored is not None else {}

    def written(self, now: float, message: Written) -> None:
        """Take the outcome of a transaction."""
        name = self._name(message.id)
        if name is None or self._stored is None:
            return
        write = self.writes.pop(name)
        if message.succeeded:
            self._stored.applied(write.transaction, message.revision)
        else:
            self.reload(now)

    def failed(self, now: float, message: CallFailed) -> None:
        """The registry could not be asked, or refused: the same again later."""
        name = self._name(message.id)
        pending: PendingRead | PendingWrite | None = self.writes[name] if name else None
        if self._read is not None and message.id == self._read.id:
            pending = self._read
        if pending is not None:
            pending.failures += 1
            pending.again_at = now + self._settings.backoff(pending.failures)

    def tick(self, now: float) -> list[Effect]:
        """Ask what is stored, first or again."""
        if self._read is None or self._read.again_at > now:
            return []
        self._read.again_at = now + self._settings.write_deadline
        return [Send(REGISTRY, ReadStored(self._read.id))]

    def write(self, now: float, supervision: Supervision) -> list[Effect]:
        """Send the transaction that a discovery needs; say so to the controller's supervision when none is needed."""
        write = self.writes.get(supervision.name)
        if write is None:
            discovery = supervision.unwritten
            if discovery is None or self._stored is None or self._read is not None:
                return []
            checked = discovery.checked
            transaction = self._stored.transaction(
                supervision.classes, checked.resources, discovery.at, checked.unclear, checked.removed
            )
            if transaction is None:
                supervision.written()
                return []
            write = PendingWrite(self._next_id(), transaction, now)
            self.writes[supervision.name] = write
        if write.again_at > now:
            return []
        write.again_at = now + self._settings.write_deadline
        return [Send(REGISTRY, Write(write.id, write.transaction.compare, write.transaction.puts))]

    def _name(self, id: str) -> str | None:
        return next((name for name, write in self.writes.items() if write.id == id), None)
