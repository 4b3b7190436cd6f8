"""What every party of bench/bus.py does alike: the payload, the loops that measure, and its talk with the bench.

A party is a process of its own. It says `ready` on standard output, takes commands as JSON lines on standard input,
answers each with one line, and ends when its input ends. Only the counter by which a subscriber slows its publisher
down goes another way: through a file both have mapped, so that no measured system carries it.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import struct
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

TEXT = "".join(chr(ord("a") + number % 26) for number in range(256))
"""The payload: 256 bytes. In covey and its peers it is one field of a small map, encoded and decoded by msgspec."""

WINDOW = 10_000
"""Events a publisher may be ahead of its subscriber: enough that nobody waits for nothing, so few that none is lost."""

BURST = 100
"""Events a publisher gives away before it lets its loop run and looks at the window."""

WARM_UP = 0.25
"""Of the measured time, before it."""

clock = time.perf_counter
pack = msgspec.msgpack.Encoder().encode
unpack = msgspec.msgpack.Decoder().decode


def answer(**what: Any) -> None:
    """Say one line to the bench."""
    print(json.dumps(what), flush=True)


async def commands() -> AsyncIterator[dict[str, Any]]:
    """Say that this party is ready, then yield what the bench wants until it wants no more."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    answer(ready=True)
    while line := await reader.readline():
        yield json.loads(line)


def commands_sync() -> Iterator[dict[str, Any]]:
    """Do the same without a loop."""
    answer(ready=True)
    for line in sys.stdin:
        yield json.loads(line)


def run(roles: dict[str, Callable[[dict[str, Any]], Coroutine[Any, Any, None] | None]]) -> None:
    """Be the party that the command line names: a role, and what it must know as JSON."""
    role, said = sys.argv[1], json.loads(sys.argv[2])
    made = roles[role](said)
    if made is None:
        return
    if said.get("uvloop"):
        import uvloop

        uvloop.run(made)
    else:
        asyncio.run(made)


class Shared:
    """Numbers that processes share: how far each of up to seven readers is, and whether the writer is to stop."""

    SIZE = 64

    def __init__(self, path: str | Path) -> None:
        with Path(path).open("a+b") as file:
            file.truncate(self.SIZE)
            self._map = mmap.mmap(file.fileno(), self.SIZE)

    def read(self, slot: int) -> int:
        """Return a number."""
        number: int = struct.unpack_from("q", self._map, slot * 8)[0]
        return number

    def write(self, slot: int, number: int) -> None:
        """Set a number."""
        struct.pack_into("q", self._map, slot * 8, number)

    @property
    def stopped(self) -> bool:
        """Whether enough was published."""
        return self.read(7) != 0

    async def room(self, number: int, window: int = WINDOW, slots: Sequence[int] = (0,)) -> None:
        """Wait until every reader is near enough; one that does not move for a while has lost the rest."""
        while not self.stopped:
            behind = self._last(slots)
            if number - behind < window:
                return
            given_up = clock() + 0.5
            while behind == self._last(slots) and not self.stopped:
                if clock() > given_up:
                    return
                await asyncio.sleep(0.0005)

    def _last(self, slots: Sequence[int]) -> int:
        return min(self.read(slot) for slot in slots)

    def room_sync(self, number: int) -> None:
        """Do the same without a loop."""
        given_up = clock() + 0.5
        while number - self.read(0) >= WINDOW and not self.stopped and clock() < given_up:
            time.sleep(0.0005)


class Meter:
    """Counts what a subscriber iterates over, from the end of the warm-up for `seconds`."""

    def __init__(self, shared: Shared, seconds: float) -> None:
        self._shared = shared
        self._seconds = seconds
        self._count = self._look = 0
        self._begins = clock() + seconds * WARM_UP
        self._first: tuple[float, int, int] | None = None
        self.found: dict[str, float] = {}

    def seen(self, number: int) -> bool:
        """Take one event; True when it was the last."""
        self._count += 1
        if self._count < self._look:
            return False
        self._look = self._count + 250
        self._shared.write(0, number)
        now = clock()
        if self._first is None:
            if now >= self._begins:
                self._first = now, self._count, number
            return False
        began, count, first = self._first
        if now - began < self._seconds:
            return False
        count = self._count - count
        self.found = {"rate": count / (now - began), "lost": number - first - count}
        self._shared.write(7, 1)
        return True


def latency(taken: list[float]) -> dict[str, float]:
    """Return percentiles in microseconds."""
    taken.sort()
    return {
        "p50": taken[len(taken) // 2] * 1e6,
        "p99": taken[min(len(taken) - 1, len(taken) * 99 // 100)] * 1e6,
        "count": len(taken),
    }


async def round_trips(ask: Callable[[], Awaitable[Any]], seconds: float) -> dict[str, float]:
    """Ask, wait for the answer, ask again."""
    begins = clock() + seconds * WARM_UP
    while clock() < begins:
        await ask()
    taken = []
    ends = clock() + seconds
    while (began := clock()) < ends:
        await ask()
        taken.append(clock() - began)
    return latency(taken)


async def pipelined(ask: Callable[[], Awaitable[Any]], seconds: float, in_flight: int) -> dict[str, float]:
    """Keep so many requests on their way, each asked by a task of its own that then asks again."""
    answered = 0
    ended = False

    async def asker() -> None:
        nonlocal answered
        while not ended:
            await ask()
            answered += 1

    tasks = [asyncio.create_task(asker()) for _ in range(in_flight)]
    await asyncio.sleep(seconds * WARM_UP)
    before, began = answered, clock()
    await asyncio.sleep(seconds)
    rate = (answered - before) / (clock() - began)
    ended = True
    await asyncio.gather(*tasks)
    return {"rate": rate}


async def ask_as_told(ask: Callable[[], Awaitable[Any]]) -> None:
    """Be a client: measure what the bench asks for."""
    async for command in commands():
        if command["do"] == "round_trip":
            answer(**await round_trips(ask, command["seconds"]))
        else:
            answer(**await pipelined(ask, command["seconds"], command["in_flight"]))


async def until_ended() -> None:
    """Be a party that only serves."""
    async for _ in commands():
        pass


async def publish_as_told(path: str, publish: Callable[[range], Awaitable[None]]) -> None:
    """Be a publisher: `publish(numbers)` in bursts, never far ahead of the subscriber."""
    async for _ in commands():
        shared = Shared(path)
        sent = 0
        while not shared.stopped:
            await publish(range(sent + 1, sent + BURST + 1))
            sent += BURST
            await shared.room(sent)
        answer(published=sent)
