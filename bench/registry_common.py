"""What the clients in bench/registry.py do alike: the same keys and values, and the rows they measure.

A client is a process of its own that speaks the lines of bus_common.py.
"""

from __future__ import annotations

import asyncio
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

from bus_common import TEXT, answer, commands, pipelined, round_trips, run

KEYS = 1000
"""Keys that are written and read, in turn."""

VALUE = TEXT
FILLERS = 64
"""Writes under way while the keys are made."""


def key_of(number: int, keys: int = KEYS) -> str:
    """Return a key's name; there are so many."""
    return f"/app/bench/{number % keys:06d}"


class Store(ABC):
    """A system's keys as its client sees them."""

    keys = KEYS
    """How many there are."""

    @abstractmethod
    async def put(self, number: int) -> None:
        """Write a key; durable on a majority when this returns."""

    @abstractmethod
    async def linear(self, number: int) -> None:
        """Read a key: what was written last."""

    @abstractmethod
    async def stale(self, number: int) -> None:
        """Read a key: what this server knows."""

    def opened(self) -> AbstractAsyncContextManager[Any]:
        """Return what must be entered before anything else."""
        return nullcontext()


async def fill(store: Store, first: int, keys: int) -> None:
    """Write so many keys once, many at a time."""
    numbers = iter(range(first, first + keys))

    async def work() -> None:
        for number in numbers:
            await store.put(number)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(FILLERS):
            tasks.create_task(work())


async def client(store: Store) -> None:
    """Measure what the bench asks for; `total` counts all requests, those of the warm-up too."""
    async with store.opened():
        async for command in commands():
            row, counter = command["do"], itertools.count()
            if row == "fill":
                store.keys = command.get("modulo", KEYS)
                await fill(store, command.get("first", 0), command.get("keys", KEYS))
                answer(filled=True)
                continue
            verb = {"put": store.put, "puts": store.put, "linear": store.linear, "stale": store.stale}[row]

            async def ask(verb: Any = verb, counter: Any = counter) -> None:
                await verb(next(counter))

            if row == "put":
                found = await round_trips(ask, command["seconds"])
            else:
                found = await pipelined(ask, command["seconds"], command["clients"])
            answer(**found, total=next(counter))


def serve_client(make: Callable[[dict[str, Any]], Store]) -> None:
    """Be the client that the command line asks for."""
    run({"client": lambda said: client(make(said))})
