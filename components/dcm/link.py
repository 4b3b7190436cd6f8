"""The socket pair between the supervising parent and the DCM: lines of JSON, both ways.

DCM → parent: `{"start": NAME}`, `{"stop": NAME, "deadline": SECONDS}`. Parent → DCM: `{"started": NAME}`,
`{"stopped": NAME}`, `{"exited": NAME, "status": N, "reason": TEXT}`, `{"shutdown": SIGNAL}`. `ForkSpawner` is the DCM's
end of it.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

from .processes import Exit


def write_line(link: socket.socket, line: dict[str, Any]) -> None:
    """Send one line; the pair's buffer holds hundreds, and both ends always read."""
    link.sendall(json.dumps(line).encode() + b"\n")


def read_lines(link: socket.socket) -> Iterator[list[dict[str, Any]]]:
    """Yield, for each time the socket is readable, the lines that are whole by now (none at its end)."""
    rest = b""
    while True:
        rest += link.recv(65536)
        *whole, rest = rest.split(b"\n")
        yield [json.loads(line) for line in whole]


class ForkSpawner:
    """Starts and stops processes by asking the parent (`processes.Spawner`)."""

    def __init__(self, link: socket.socket, running: list[str]) -> None:
        self._link = link
        self._lines = read_lines(link)
        self._waiting: dict[tuple[str, str], list[asyncio.Future[None]]] = {}
        self._exits: asyncio.Queue[Exit] = asyncio.Queue()
        self.running = set(running)
        """Names of processes that run: those of an earlier DCM that crashed go on."""
        self.shutdown = asyncio.Event()
        """Set when the daemon was told to end."""
        asyncio.get_running_loop().add_reader(link, self._read)

    async def start(self, name: str) -> None:
        """Start a process; returns when it is forked."""
        if name not in self.running:
            self.running.add(name)
            await self._ask({"start": name}, "started", name)

    async def stop(self, name: str, deadline: float) -> None:
        """End a process; it is killed after `deadline` seconds."""
        if name in self.running:
            await self._ask({"stop": name, "deadline": deadline}, "stopped", name)
            self.running.discard(name)

    async def exits(self) -> AsyncIterator[Exit]:
        """Every end that no `stop` asked for."""
        while True:
            yield await self._exits.get()

    async def _ask(self, order: dict[str, Any], answer: str, name: str) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault((answer, name), []).append(future)
        write_line(self._link, order)
        await future

    def _read(self) -> None:
        lines = next(self._lines)
        for line in lines:
            if "shutdown" in line:
                self.shutdown.set()
            elif "exited" in line:
                self.running.discard(line["exited"])
                self._exits.put_nowait(Exit(line["exited"], line["status"], line["reason"]))
            else:
                ((answer, name),) = line.items()
                for future in self._waiting.pop((answer, name), []):
                    if not future.done():
                        future.set_result(None)
