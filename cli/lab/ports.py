"""A port that is free on every address of a lab, held against other labs until the nodes have it.

Below the range from which the kernel gives outgoing connections their ports, so that none of those takes it later.
What is odd: between the check and the moment a node binds, another `lab up` could choose the same port. A local socket
with an abstract name, which the kernel frees when the process ends, keeps the choice to one of them.
"""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Iterable

from ...errors import LabFailed
from .folder import addresses

_LOWEST, _HIGHEST, _TRIES = 20000, 32000, 200


class Choice:
    """A chosen port; held until `release`, or the end of the process."""

    def __init__(self, port: int, held: socket.socket) -> None:
        self.port = port
        self._held = held

    def release(self) -> None:
        """Let other labs have it, if no node took it."""
        self._held.close()


def choose(nodes: Iterable[int]) -> Choice:
    """Choose a port for these nodes: it and the next one (for joins) are free on all their addresses."""
    hosts = [address for number in nodes for address in addresses(number)]
    problem = ""
    for _ in range(_TRIES):
        port = random.randrange(_LOWEST, _HIGHEST, 2)
        held = _hold(port)
        if held is None:
            continue
        found = next((found for host in hosts for each in (port, port + 1) if (found := _taken(host, each))), "")
        if not found:
            return Choice(port, held)
        held.close()
        problem = found
    raise LabFailed(f"no port is free on all addresses of the lab; the last try: {problem or 'held by another lab'}")


def _hold(port: int) -> socket.socket | None:
    held = socket.socket(socket.AF_UNIX)
    try:
        held.bind(f"\0covey-lab-port-{port}")
    except OSError:
        held.close()
        return None
    return held


def _taken(host: str, port: int) -> str:
    with socket.socket() as probe:
        try:
            probe.bind((host, port))
        except OSError as problem:
            if problem.errno == errno.EADDRNOTAVAIL:
                raise LabFailed(
                    f"{host} is no address of this machine", "a lab needs all of 127.0.0.0/8 on the loopback interface"
                ) from None
            return f"{host}:{port}: {problem.strerror}"
    return ""
