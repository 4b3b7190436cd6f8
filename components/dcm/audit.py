"""The audit log: who asked this node's DCM for what, when, and how it ended (SPEC 4).

Append-only lines of JSON, each synced before `append` returns, each holding the digest of the one before it, so that a
line removed, changed or moved is found by `verify`. Knows nothing of the bus. Files are rotated by size and the oldest
is dropped, so the disk used is bounded; the chain goes on over the files that are kept.

Odd: a line that a crash cut short was never promised to anybody. It stays where it is, the next line says so and
chains to the cut bytes.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from .storage import sync_folder, write_synced

START = "0" * 32

_TEXTS = ("at", "who", "what", "outcome", "previous")
"""What every entry has, as text."""


class Break(NamedTuple):
    """A place where the chain does not hold."""

    path: Path
    line: int
    reason: str


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _entry(line: bytes) -> dict[str, Any] | None:
    """Return what a line says; None when it is no entry, as `_write` makes them."""
    try:
        entry = msgspec.json.decode(line)  # refuses what no message can carry, too
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    whole = isinstance(entry, dict) and all(isinstance(entry.get(name), str) for name in _TEXTS)
    sound = whole and isinstance(entry.get("uid"), int | None) and isinstance(entry.get("with", {}), dict)
    return entry if sound else None


def _utc() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class AuditLog:
    """One node's audit log. Blocks for the disk; safe to call from several threads."""

    def __init__(
        self, path: Path, *, limit: int = 4 * 1024 * 1024, keep: int = 4, clock: Callable[[], str] = _utc
    ) -> None:
        self._path = path
        self._limit = limit
        self._keep = keep
        self._clock = clock
        self._lock = threading.Lock()
        self._previous: str | None = None

    def files(self) -> list[Path]:
        """Return the files there are, oldest first."""
        rotated = [self._path.with_name(f"{self._path.name}.{number}") for number in range(self._keep, 0, -1)]
        return [path for path in [*rotated, self._path] if path.exists()]

    def append(self, who: str, uid: int | None, what: str, outcome: str, **particulars: Any) -> None:
        """Write one entry and sync it. `outcome` is "done" or an error's code; OSError when the disk refuses."""
        with self._lock:
            try:
                if self._previous is None:
                    self._previous = self._resume()
                self._rotate()
                self._write(who, uid, what, outcome, particulars)
            except OSError:
                self._previous = None  # a part of the line may be there: the next call looks and says so
                raise

    def entries(self) -> Iterator[dict[str, Any]]:
        """Return every entry that can be read, oldest first. What somebody else wrote into the file is none."""
        for _, _, line in self._lines():
            entry = _entry(line)
            if entry is not None:
                yield entry

    def verify(self) -> list[Break]:
        """Return every place where the chain does not hold; empty for a sound log."""
        breaks: list[Break] = []
        previous: str | None = None
        for path, number, line in self._lines():
            entry = _entry(line)
            if entry is None:
                breaks.append(Break(path, number, "the line is cut short or is no entry"))
            elif previous is not None and entry["previous"] != previous:
                breaks.append(Break(path, number, "the line before it was changed, removed or moved"))
            previous = _digest(line)
        return breaks

    def _lines(self) -> Iterator[tuple[Path, int, bytes]]:
        """Return the lines of all files, oldest first. All are opened at once: none is missed when they are rotated."""
        with ExitStack() as stack:
            with self._lock:
                opened = [(path, stack.enter_context(path.open("rb"))) for path in self.files()]
            for path, file in opened:
                for number, line in enumerate(file, 1):
                    yield path, number, line.removesuffix(b"\n")

    def _resume(self) -> str:
        """Find the digest to go on from; end and report a line that was cut short."""
        found = self.files()
        if not found:
            return START
        data = found[-1].read_bytes()
        last = data.splitlines()[-1] if data else b""
        whole = data.endswith(b"\n")
        if _entry(last) is None:
            whole = not data
        if whole:
            return _digest(last) if last else self._before_empty(found)
        line = data.count(b"\n")
        if not data.endswith(b"\n"):
            line += 1
            self._put(b"\n")
        self._previous = _digest(last)
        self._write("dcm", None, "audit.damaged", "found", {"file": found[-1].name, "line": line})
        return self._previous

    def _before_empty(self, found: list[Path]) -> str:
        older = found[-2].read_bytes().splitlines() if len(found) > 1 else []
        return _digest(older[-1]) if older else START

    def _write(self, who: str, uid: int | None, what: str, outcome: str, particulars: dict[str, Any]) -> None:
        entry: dict[str, Any] = {"at": self._clock(), "who": who, "uid": uid, "what": what, "outcome": outcome}
        if particulars:
            entry["with"] = particulars
        entry["previous"] = self._previous
        line = json.dumps(entry, ensure_ascii=False, default=str).encode()
        self._put(line + b"\n")
        self._previous = _digest(line)

    def _put(self, data: bytes) -> None:
        new = not self._path.exists()
        write_synced(self._path, data, os.O_APPEND, 0o640)
        if new:
            sync_folder(self._path.parent)

    def _rotate(self) -> None:
        if not self._path.exists() or self._path.stat().st_size < self._limit:
            return
        for number in range(self._keep - 1, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            if older.exists():
                older.replace(self._path.with_name(f"{self._path.name}.{number + 1}"))
        self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        sync_folder(self._path.parent)
