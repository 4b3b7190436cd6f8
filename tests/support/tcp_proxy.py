"""A way between two brokers that can be cut, stalled in one direction or both, and made to refuse."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Proxy:
    """Pass bytes from `port` to `target`. `stalled` holds the ways that swallow nothing but pass nothing either: "up"
    (from who dials) and "down"; what waits is passed when the way opens again, as TCP does it."""

    def __init__(self, host: str, target: tuple[str, int]) -> None:
        self.host = host
        self.port = 0
        self.connections = 0
        self._target = target
        self._server: asyncio.Server | None = None
        self._open = {"up": asyncio.Event(), "down": asyncio.Event()}
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.heal()

    async def __aenter__(self) -> Proxy:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.refuse()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Cut everything and let nobody in until `listen`."""
        if self._server:
            self._server.close()
            self._server = None
        self.cut()

    def cut(self) -> None:
        """Break all connections, both sides are told; what was under way is lost."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def stall(self, *ways: str) -> None:
        for way in ways:
            self._open[way].clear()

    def heal(self) -> None:
        for event in self._open.values():
            event.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        for way, source, sink in (("up", reader, far_writer), ("down", far_reader, writer)):
            task = asyncio.create_task(self._pass(way, source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(self, way: str, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(16_384):
                await self._open[way].wait()
                sink.write(data)
                await sink.drain()
        await self._open[way].wait()  # a stalled way does not pass on that it ended, either
        sink.close()
