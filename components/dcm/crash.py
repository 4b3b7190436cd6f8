"""End the daemon at a named step of a protocol, as a crash of its machine would: for tests of what it leaves behind.

`COVEY_CRASH_AT=m3` in the daemon's environment does it, on a node that has loopback addresses alone, as those of a lab.
"""

from __future__ import annotations

import ipaddress
import os
import signal
from collections.abc import Iterable
from pathlib import Path


def crash_at(step: str, addresses: Iterable[str], lock: Path) -> None:
    """Kill the daemon whose process id is in this lock file, with all its processes, if it is to end at this step."""
    if os.environ.get("COVEY_CRASH_AT") != step:
        return
    if all(ipaddress.ip_interface(each).ip.is_loopback for each in addresses):
        os.kill(int(lock.read_text()), signal.SIGKILL)
