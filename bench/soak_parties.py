"""The parties of bench/soak.py: callers, publishers, and readers that count what they got and what is lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from bus_common import BURST, TEXT, Shared, answer, clock, commands, run
from covey.bus.client import Client, connect
from covey.errors import CoveyError, Overloaded

STILL = 10.0
"""Seconds without an event after which a reader gives up waiting for the rest."""


async def caller(said: dict[str, Any]) -> None:
    """Ask its services in turn, `count` requests with `in_flight` of them on their way."""
    async with connect(said["state"]) as bus:
        for service in said["services"]:
            await bus.wait_for_service(service)
        async for command in commands():
            left = iter(range(command["count"]))
            ends: Counter[str] = Counter()
            await asyncio.gather(*(_ask(bus, said["services"], left, ends) for _ in range(command["in_flight"])))
            answer(**ends)


async def _ask(bus: Client, services: list[str], left: Any, ends: Counter[str]) -> None:
    for number in left:
        try:
            if await bus.call(services[number % len(services)], "echo", text=TEXT) == TEXT:
                ends["answered"] += 1
            else:
                ends["wrong answer"] += 1
        except CoveyError as problem:
            ends[problem.code] += 1


async def publisher(said: dict[str, Any]) -> None:
    """Publish on its topic, never far ahead of the readers whose slots it is given."""
    shared = Shared(said["shared"])
    sent = 0
    text = "x" * said["size"]
    async with connect(said["state"]) as bus:
        async for command in commands():
            for _ in range(command["count"]):
                sent += 1
                while True:
                    try:
                        await bus.publish(said["topic"], {"number": sent, "text": text})
                        break
                    except Overloaded:
                        await asyncio.sleep(0.001)
                if sent % BURST == 0:
                    await asyncio.sleep(0)
                    await shared.room(sent, slots=said["slots"])
            answer(sent=sent)


class Reader:
    """Reads events and keeps account of each topic. An event told again and known already is counted apart."""

    def __init__(self, said: dict[str, Any]) -> None:
        self._shared = Shared(said["shared"])
        self._slots: dict[str, int] = said["slots"]
        self.last: Counter[str] = Counter()
        self.received: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        self.known = self.wrong = 0
        self.heard = clock()

    async def read(self, events: Any) -> None:
        """Read for ever."""
        async for event in events:
            topic, number = event.topic, event.body["number"]
            self.heard = clock()
            if number <= self.last[topic]:
                self.known += 1
                self.wrong += not getattr(event, "welcome", False)  # only what is told again may come twice
                continue
            self.missed[topic] += event.missed
            self.wrong += number != self.last[topic] + event.missed + 1  # a gap that was not told, or one made up
            self.received[topic] += 1
            self.last[topic] = number
            if topic in self._slots and number % BURST == 0:
                self._shared.write(self._slots[topic], number)

    async def wait(self, until: dict[str, int]) -> None:
        """Wait until the last event of each topic was read."""
        self.heard = clock()
        while any(self.last[topic] < number for topic, number in until.items()):
            if clock() > self.heard + STILL:
                return
            await asyncio.sleep(0.01)


async def reader(said: dict[str, Any]) -> None:
    """Read a subscription; answer how it stands once everything of `until` was read."""
    found = Reader(said)
    async with connect(said["state"], name=said["name"]) as bus, bus.subscribe(said["subscription"]) as events:
        reading = asyncio.create_task(found.read(events))
        async for command in commands():
            await found.wait(command["until"])
            answer(received=found.received, missed=found.missed, known=found.known, wrong=found.wrong)
        reading.cancel()


async def watcher(said: dict[str, Any]) -> None:
    """Tell the broker's counters."""
    async with connect(said["state"]) as bus:
        async for _ in commands():
            answer(**(await bus.call("bus", "status"))["counters"])


if __name__ == "__main__":
    run({"caller": caller, "publisher": publisher, "reader": reader, "watcher": watcher})
