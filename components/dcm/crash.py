"""End the daemon at a named step of a protocol, as a crash of its machine would: for tests of what it leaves behind.

`COVEY_CRASH_AT=m3` (or d8: the steps of SPEC 6 and 7) in the daemon's environment does it, on a node that has loopback
addresses alone, as those of a lab.
"""

from __future__ import annotations

import ipaddress
import os
import signal

from .home import Home


def crash_at(step: str, home: Home) -> None:
    """Kill this node's daemon with all its processes, if it is to end at this step."""
    if os.environ.get("COVEY_CRASH_AT") != step:
        return
    if all(ipaddress.ip_interface(each).ip.is_loopback for each in home.addresses()):
        os.kill(int(home.layout.lock.read_text()), signal.SIGKILL)
