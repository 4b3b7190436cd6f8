"""Which of the mounted file systems count: exactly those that `df` shows.

An administrator checks our figures with `df`, so its choice is ours: everything that holds blocks (so tmpfs too: a full
`/run` hurts like a full disk), nothing that holds none (proc, cgroup, …), and of several mounts of one device the one
that `df` prefers. Knows no controller. `prefer` follows `filter_mount_list` of GNU coreutils' df.c as documented there:
a device with a slash in its name wins; else the shorter mount point, unless it shows only a deeper part of the device;
else what was mounted later on the same place.
Odd: a mount that does not answer (a dead network server) is kept, with nothing known of it, since it is there all the
same; `df` itself would hang.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

PATIENCE = 2.0
"""Seconds that all mounts together have to answer one look."""

_NEVER = ("autofs",)
"""To look at one would mount it."""


@dataclass(frozen=True)
class Usage:
    """What one statvfs says, in bytes and inodes; `available` is what an ordinary user may still write."""

    size: int
    used: int
    available: int
    inodes: int
    inodes_used: int

    @property
    def percent(self) -> int | None:
        """Used share of what is usable, rounded up, as `df` prints it."""
        return share(self.used, self.used + self.available)

    @property
    def inodes_percent(self) -> int | None:
        """Used share of the inodes, rounded up; None where the file system has no fixed number."""
        return share(self.inodes_used, self.inodes)


@dataclass(frozen=True)
class Mount:
    """One mount. `root`: the part of the device that it shows; `number`: the device's; None: it did not answer."""

    device: str
    point: str
    type: str
    read_only: bool = False
    root: str = "/"
    number: int | None = None
    usage: Usage | None = None


def share(part: int, whole: int) -> int | None:
    """Return the percentage, rounded up; None of nothing."""
    return -(-part * 100 // whole) if whole > 0 else None


Answer = tuple[int, Usage] | OSError | None
"""The device's number and the usage of a mount, the error, or None: no answer."""


class _Asking:
    """A question to one mount: since when it waits, and what came of it."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.answer: Answer = None
        self.done = threading.Event()


class Looker:
    """Asks mounts for their usage, each in a thread of its own, because a dead server holds the asker for ever."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._asking: dict[str, _Asking] = {}
        self._lock = threading.Lock()

    def look(self, points: Iterable[str]) -> dict[str, Answer]:
        """Return the answer of each mount point.

        Looks at one point at the same time share one question. A point that has not answered in time is not asked
        again, nor waited for, until it does.
        """
        now = time.monotonic()
        asked = {point: self._ask(point, now) for point in points}
        for one in asked.values():
            one.done.wait(max(0.0, one.since + self._patience - time.monotonic()))
        return {point: one.answer for point, one in asked.items()}

    def _ask(self, point: str, now: float) -> _Asking:
        with self._lock:
            if point in self._asking:
                return self._asking[point]
            one = self._asking[point] = _Asking(now)
        threading.Thread(target=self._find_out, args=(point, one), name=f"look {point}", daemon=True).start()
        return one

    def _find_out(self, point: str, one: _Asking) -> None:
        try:
            one.answer = (Path(point).stat().st_dev, usage_of(os.statvfs(point)))
        except OSError as error:
            one.answer = error
        finally:
            with self._lock:
                del self._asking[point]
            one.done.set()


def usage_of(found: os.statvfs_result) -> Usage:
    """Return what a statvfs says. psutil's disk_usage asks the same call and leaves out the inodes."""
    block = found.f_frsize or found.f_bsize
    return Usage(
        size=found.f_blocks * block,
        used=(found.f_blocks - found.f_bfree) * block,
        available=max(0, found.f_bavail) * block,
        inodes=found.f_files,
        inodes_used=found.f_files - found.f_ffree,
    )


def mounted(looker: Looker) -> list[Mount]:
    """Return the mounts that `df` would show, by mount point."""
    roots = _roots()
    table = [
        Mount(
            device=one.device or "none",  # psutil makes an empty word of it; df and mount say what the kernel says
            point=one.mountpoint,
            type=one.fstype,
            read_only="ro" in one.opts.split(","),
            root=roots.get(one.mountpoint, "/"),
        )
        for one in psutil.disk_partitions(all=True)
        if one.fstype not in _NEVER
    ]
    answers = looker.look({one.point for one in table})
    found = []
    for one in table:
        answer = answers[one.point]
        if answer is None:
            found.append(one)
        elif not isinstance(answer, OSError):
            found.append(replace(one, number=answer[0], usage=answer[1]))
    return prefer(one for one in found if one.usage is None or one.usage.size > 0)


def prefer(mounts: Iterable[Mount]) -> list[Mount]:
    """Return one mount per device and per mount point, as `df` chooses, by mount point."""
    chosen: dict[object, Mount] = {}
    for one in mounts:
        identity: object = one.point if one.number is None else one.number
        seen = chosen.get(identity)
        if seen is None or _replaces(one, seen):
            chosen[identity] = one
    by_point = {one.point: one for one in chosen.values()}
    return [by_point[point] for point in sorted(by_point)]


def _replaces(one: Mount, seen: Mount) -> bool:
    if "/" in one.device and "/" not in seen.device:
        return True
    if len(one.point) < len(seen.point) and len(one.root) <= len(seen.root):
        return True
    return one.point == seen.point and one.device != seen.device


def _roots() -> dict[str, str]:
    """Which part of its device each mount shows; Linux tells, elsewhere it is always the whole."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return {}
    fields = [line.split(" ") for line in lines]
    return {_plain(one[4]): _plain(one[3]) for one in fields if len(one) > 4}


def _plain(text: str) -> str:
    """Undo the octal escapes of blanks and backslashes in the kernel's tables."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
