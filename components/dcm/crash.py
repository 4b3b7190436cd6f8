"""End the daemon at a named step of a protocol, as a crash of its machine would: for tests of what it leaves behind.

`COVEY_CRASH_AT=m3` in the daemon's environment does it, on a node that has loopback addresses alone, as those of a lab.
`STEPS` are all the names there are; a daemon ends when it has come to that point, before it does what follows.
"""

from __future__ import annotations

import ipaddress
import os
import signal

from .home import Home
from .move import STEPS as MOVE_STEPS

STEPS = {
    "d1": "define, member: the request came in",
    "d2": "define, member: begun in the registry; the new node is to be asked",
    "d3": "define, new node: it was asked",
    "d4": "define, member: the new node has answered",
    "d5": "define, member: the registry is to be looked through",
    "d6": "define, member: the registry has answered",
    "d7": "define, member: decided",
    "d8": "define, member: the entry is to be written",
    "d9": "define, member: the registry has decided over the entry",
    "d10": "define, member: the entry is written",
    "d11": "define, member: the new node is to commit",
    "d12": "define, new node: it is to commit",
    "d13": "define, member: the new node has committed",
    "d14": "define, member: the answer is to go",
    "j1": "join: the local definition was taken, a new boot begins",
    "j2": "join: the ids agree, the join goes on",
    "j3": "join: the Resource Manager is to have everything discovered",
    "j4": "join: a controller was asked",
    "j5": "join: a controller's findings are in the registry",
    "j6": "join: all controllers have reported",
    "j7": "join, another node: the registry has told of a change of the nodes",
    "j8": "join: the Resource Manager has reported",
    "j9": "join: Liveness is to call the node online",
    "r1": "identity replaced: the pending record is written",
    "r2": "identity replaced: the global id is the new one",
    "r3": "identity replaced: the local one, too; the record is still there",
    "u1": "undefine, member: the request came in",
    "u2": "undefine, member: the node is out of the view",
    "u3": "undefine, member: the registry has the tombstone",
    "u4": "undefine, the node: it has the proof",
    "u5": "undefine, the node: its data is erased",
    "u6": "undefine, member: the node has erased its data",
    "c1": "modify, member: the request came in",
    "c2": "modify, member: read and judged",
    "c3": "modify, member: the registry has it",
    "c4": "modify, any node: its local copy has followed",
    **{step: f"move: {what}" for step, what in MOVE_STEPS.items()},
}
"""Each step's name, with whose daemon ends there and what was done by then. d, j, m are those of SPEC 6 and 7."""


def crash_at(step: str, home: Home) -> None:
    """Kill this node's daemon with all its processes, if it is to end at this step (one of `STEPS`)."""
    if os.environ.get("COVEY_CRASH_AT") != step:
        return
    if all(ipaddress.ip_interface(each).ip.is_loopback for each in home.addresses()):
        os.kill(int(home.layout.lock.read_text()), signal.SIGKILL)
