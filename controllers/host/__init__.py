"""The controller of class `Host`: the operating-system instance that this node is.

All values come from psutil, and the system's name from its os-release file. Odd: the share of busy processor time is
that since the read before, so the first read of a process has none.
"""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psutil

from ..contract import Controller, Found, Resource

SHORTEST_SPAN = 0.5
"""Seconds between two looks at the processor times; over less the share is noise, and the last one is given again."""


class Host(Controller):
    """This machine, as its operating system sees it."""

    description = "host.yaml"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._looked: tuple[float, float, float] | None = None
        self._share: float | None = None

    def discover(self) -> Iterator[Found]:
        """There is exactly one host on a node."""
        name, version = _system()
        yield Found(
            "Host",
            key={"Name": platform.node()},
            OsName=name,
            OsVersion=version,
            Kernel=platform.release(),
            Architecture=platform.machine(),
            CpusLogical=psutil.cpu_count(logical=True),
            CpusPhysical=psutil.cpu_count(logical=False),
            MemoryTotal=psutil.virtual_memory().total,
            SwapTotal=psutil.swap_memory().total,
            BootTime=datetime.fromtimestamp(psutil.boot_time(), UTC),
        )

    def read(self, resource: Resource) -> dict[str, Any]:
        """Memory, load and uptime as they are now."""
        memory = psutil.virtual_memory()
        one, five, fifteen = psutil.getloadavg()
        return {
            "MemoryAvailable": memory.available,
            "MemoryUsed": memory.total - memory.available,
            "SwapUsed": psutil.swap_memory().used,
            "Load1": one,
            "Load5": five,
            "Load15": fifteen,
            "CpuPercent": self._busy(),
            "Uptime": max(0.0, time.time() - psutil.boot_time()),
            "Processes": len(psutil.pids()),
        }

    def _busy(self) -> float | None:
        with self._lock:
            now = time.monotonic()
            if self._looked is not None and now - self._looked[0] < SHORTEST_SPAN:
                return self._share
            times = psutil.cpu_times()
            total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)  # within user, nice
            idle = times.idle + getattr(times, "iowait", 0.0)
            before, self._looked = self._looked, (now, total, idle)
            if before is not None and total > before[1]:
                share = 1.0 - (idle - before[2]) / (total - before[1])
                self._share = round(min(max(share, 0.0), 1.0) * 100.0, 1)
            return self._share


def _system() -> tuple[str, str]:
    """Name and version of the operating system, as people know it: `Debian GNU/Linux`, `12`."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return platform.system(), platform.version()
    return release.get("NAME", platform.system()), release.get("VERSION_ID", "")
