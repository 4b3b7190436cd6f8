"""Those who wait for another server to become the primary. Pure."""

from __future__ import annotations

from typing import Any

from ...errors import Refused
from .proposed import Waiter
from .raft import Raft


class HandOvers:
    """Waiters, each with the time at which it is told that nobody took over. `patience`: seconds until then."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._waiting: list[tuple[float, Waiter]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def deadline(self) -> float | None:
        """When the first of them must be answered."""
        return self._waiting[0][0] if self._waiting else None

    def add(self, now: float, waiter: Waiter) -> None:
        """Let one wait."""
        self._waiting.append((now + self._patience, waiter))

    def answers(self, now: float, raft: Raft) -> list[tuple[Waiter, Any]]:
        """Take out and return whom to answer, and what."""
        if not self._waiting:  # as nearly always; this is asked at every step
            return []
        result: Any = None
        if not raft.leads and raft.leader and raft.told[0] != "stale":
            result = {"primary": raft.leader, "epoch": raft.promised}
        due = [waiter for until, waiter in self._waiting if result or now >= until]
        self._waiting = [one for one in self._waiting if one[1] not in due]
        nobody = Refused(f"no other server took over within {self._patience:g} s")
        return [(waiter, result or nobody) for waiter in due]
