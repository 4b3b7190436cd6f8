"""The bootstrap as a table, and the log of how far the last one came (SPEC 2.3).

`STEPS` and `BEFORE` are the table of the specification as data. `BootLog` keeps the records of the last boot in
memory and, line by line, in a file, so that the boot that hung or crashed is the one that can be read. Knows nothing
of the bus.

Odd: records are flushed to the system but not synced; they survive any crash of covey, which is what they are for, and
cost a boot nothing. A new join of the same daemon begins a new log; its step 0 says when the daemon itself started.
"""

from __future__ import annotations

import datetime
import itertools
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import msgspec

log = logging.getLogger(__name__)

How = Literal["done", "remote", "waiting", "failed"]


class Step(NamedTuple):
    """One step of the bootstrap: its number, whose it is, and what it does."""

    number: int
    component: str
    text: str


STEPS: tuple[Step, ...] = (
    Step(0, "os", "the DCM daemon is started"),
    Step(1, "dcm", "start the System Registry"),
    Step(2, "dcm", "start Liveness"),
    Step(3, "dcm", "start Group Services"),
    Step(4, "dcm", "start the Resource Manager"),
    Step(5, "registry", "phase 1: the newest copies are chosen, reads are open"),
    Step(6, "dcm", "read the global configuration"),
    Step(7, "dcm", "compare it with the local one: join or not"),
    Step(8, "liveness", "get the local configuration"),
    Step(9, "groups", "get the local configuration"),
    Step(10, "liveness", "read the global configuration"),
    Step(11, "liveness", "ready"),
    Step(12, "groups", "read the global configuration"),
    Step(13, "groups", "use Liveness"),
    Step(14, "groups", "ready"),
    Step(15, "registry", "phase 2: older copies are brought up to date"),
    Step(16, "registry", "writes are open"),
    Step(17, "resources", "read the local configuration"),
    Step(18, "resources", "read the global configuration, make own changes"),
    Step(19, "resources", "agree the version of the class definitions"),
    Step(20, "resources", "ready"),
    Step(21, "resources", "start the resource controllers"),
    Step(22, "controllers", "read local and global configuration"),
    Step(23, "controllers", "write their changes"),
    Step(24, "controllers", "ready"),
)

_CHAINS = (
    (0, 1, 2, 3, 4),
    (1, 5, 6, 7),
    (7, 8, 10, 11),
    (7, 9, 12, 13, 14),
    (11, 13),
    (14, 15, 16, 18),
    (17, 18, 19, 20, 21, 22, 23, 24),
)
BEFORE: frozenset[tuple[int, int]] = frozenset(pair for chain in _CHAINS for pair in itertools.pairwise(chain))


class Record(msgspec.Struct, frozen=True):
    """One event of a boot. `ms` counts from the beginning of this boot, by the clock that never jumps."""

    step: int
    component: str
    event: str
    at: str
    ms: float
    how: How


def waited_for(step: int) -> tuple[int, ...]:
    """Return the steps that come directly before this one."""
    return tuple(sorted(before for before, after in BEFORE if after == step))


def _utc() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class BootLog:
    """The log of the last boot of this node."""

    def __init__(
        self, path: Path, *, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], str] = _utc
    ) -> None:
        self._path = path
        self._monotonic = monotonic
        self._wall = wall
        self._begun = monotonic()
        self._records = _read(path)

    def begin(self, boot_id: str, started: str = "") -> None:
        """Begin the log of a new boot. `started` tells when the daemon started, if that was earlier."""
        self._path.write_bytes(b"")
        self._records = []
        self._begun = self._monotonic()
        event = f"boot {boot_id}" + (f", the daemon runs since {started}" if started else "")
        self.record(0, "os", event)

    def record(self, step: int, component: str = "", event: str = "", how: str = "done") -> Record:
        """Add an event; ValueError for a step or a `how` that does not exist."""
        if not 0 <= step < len(STEPS) or how not in get_args(How):
            raise ValueError(f"there is no step {step} that is {how!r}")
        ms = round((self._monotonic() - self._begun) * 1000, 3)
        table = STEPS[step]
        record = msgspec.convert(
            {
                "step": step,
                "component": component or table.component,
                "event": event or table.text,
                "at": self._wall(),
                "ms": ms,
                "how": how,
            },
            Record,
        )
        self._records.append(record)
        try:
            self._append(msgspec.json.encode(record) + b"\n")
        except OSError as why:  # a full disk: the boot itself goes on
            log.error("the boot log cannot be written: %s", why)
        return record

    def _append(self, line: bytes) -> None:
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            os.write(handle, line)
        finally:
            os.close(handle)

    def reached(self, step: int) -> bool:
        return any(record.step == step and record.how in ("done", "remote") for record in self._records)

    def timeline(self, waits: Mapping[str, Iterable[str]] | None = None) -> list[dict[str, Any]]:
        """Return the boot in time order, then what was not reached, as INTERFACES `node boot-log`.

        `waits` tells for which functions each component is waiting just now; else the steps before are named.
        """
        known = [
            {**msgspec.to_builtins(record), "waiting_for": None}
            for record in sorted(self._records, key=lambda record: (record.ms, record.step))
        ]
        seen = {record.step for record in self._records}
        open_waits = {name: sorted(functions) for name, functions in (waits or {}).items()}
        for step in STEPS:
            if step.number in seen:
                continue
            missing = [before for before in waited_for(step.number) if not self.reached(before)]
            reason = ", ".join(f"step {before} ({STEPS[before].text})" for before in missing)
            known.append(
                {
                    "step": step.number,
                    "component": step.component,
                    "event": step.text,
                    "at": None,
                    "ms": None,
                    "how": "waiting",
                    "waiting_for": reason or ", ".join(open_waits.get(step.component, [])) or step.component,
                }
            )
        return known


def _read(path: Path) -> list[Record]:
    """Return the records of the boot before; lines that a crash cut short are left out."""
    if not path.exists():
        return []
    records = []
    for line in path.read_bytes().splitlines():
        try:
            records.append(msgspec.json.decode(line, type=Record))
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
    return records
