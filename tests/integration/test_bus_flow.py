"""Real sockets: many at once, last values, readers that sleep, a broker that comes again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from covey import errors
from covey.bus import window
from covey.bus.broker import Broker, BrokerSettings
from covey.bus.broker_service import run_broker
from covey.bus.client import connect
from covey.bus.service import verb
from real_nodes import story


class Store:
    """A service with a verb that runs at once and one that waits."""

    def __init__(self) -> None:
        self.asked = 0

    @verb()
    def add(self, *, number: int) -> int:
        """Add one."""
        self.asked += 1
        return number + 1

    @verb()
    async def later(self, *, number: int) -> int:
        """Add one, a little later."""
        await asyncio.sleep(0)
        return number + 1


def settings(folder: Path) -> BrokerSettings:
    return BrokerSettings(f"{folder}/run")


@story
async def test_each_of_many_calls_at_once_gets_its_own_answer(folder: Path) -> None:
    async with run_broker(settings(folder)), connect(folder) as author, connect(folder) as bus:
        async with author.serve("store", Store()):
            for name in ("add", "later"):
                got = await asyncio.gather(*(bus.call("store", name, number=number) for number in range(900)))
                assert got == list(range(1, 901))
            mixed: list[Any] = await asyncio.gather(
                *(bus.call("store", "add", number=n if n % 7 else "seven") for n in range(500)), return_exceptions=True
            )
            for number, result in enumerate(mixed):
                if number % 7:
                    assert result == number + 1
                else:
                    assert isinstance(result, errors.BadArguments)
        assert not bus._calls


@story
async def test_who_asks_without_end_is_told_so_and_each_call_ends(folder: Path) -> None:
    async with run_broker(settings(folder)), connect(folder) as author, connect(folder) as bus:
        gate = asyncio.Event()

        async def wait() -> bool:
            return await gate.wait()

        async with author.serve("slow", {"wait": wait}):
            calls = [asyncio.ensure_future(bus.call("slow", "wait", timeout=60)) for _ in range(1500)]
            done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            assert all(isinstance(each.exception(), errors.Overloaded) for each in done)
            gate.set()
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert results.count(True) == 1000
            assert all(result is True or isinstance(result, errors.Overloaded) for result in results)


@story
async def test_a_reader_that_keeps_up_loses_nothing_however_much_it_is(folder: Path) -> None:
    async with (
        run_broker(settings(folder)) as (broker, _),
        connect(folder) as speaker,
        connect(folder) as bus,
        bus.subscribe("app.x") as events,
    ):
        total, got = 4 * window.MESSAGES, 0

        async def speak() -> None:
            for number in range(1, total + 1):
                await speaker.publish("app.x", number)
                if number % 10 == 0:
                    await asyncio.sleep(0)  # so that they are many messages, more than the window holds

        speaking = asyncio.ensure_future(speak())
        async for event in events:
            got += 1
            assert (event.body, event.sequence, event.missed) == (got, got, 0)
            if got == total:
                break
        await speaking
        status = await bus.call("bus", "status")
        assert status["counters"].get("events_dropped", 0) == 0
        assert broker.router.counters["events_delivered"] >= total


@story
async def test_a_late_reader_is_told_the_last_value_of_each_source(folder: Path) -> None:
    async with (
        run_broker(settings(folder)),
        connect(folder) as one,
        connect(folder) as two,
        connect(folder) as bus,
        bus.subscribe("app.*") as early,
    ):
        for number in range(5):
            await one.publish("app.x", ["one", number])
        await two.publish("app.x", ["two", 0])
        await one.publish("app.y", ["one", "y"])
        for _ in range(7):
            assert not (await anext(early)).welcome
        async with bus.subscribe("app.*") as late:
            told = [await anext(late) for _ in range(3)]
            assert all(event.welcome and not event.missed for event in told)
            found = sorted((event.topic, event.body, event.sequence) for event in told)
            assert found == [("app.x", ["one", 4], 5), ("app.x", ["two", 0], 1), ("app.y", ["one", "y"], 1)]
            await one.publish("app.x", "news")
            for reader in (early, late):  # the early one is not told again what it has read
                news = await anext(reader)
                assert (news.body, news.sequence, news.missed, news.welcome) == ("news", 6, 0, False)


SLEEPER = """
import asyncio, sys
from covey.bus.client import connect
async def main():
    async with connect(sys.argv[1]) as bus, bus.subscribe("app.x") as events:
        print("ready", flush=True)
        got = missed = 0
        async for event in events:
            got, missed = got + 1, missed + event.missed
            if event.body[0] == "last":
                print(got, missed, flush=True)
                break
asyncio.run(main())
"""


@story
async def test_a_sleeping_reader_hurts_nobody_and_wakes_to_how_things_stand(folder: Path) -> None:
    pipe = asyncio.subprocess.PIPE
    async with run_broker(settings(folder)), connect(folder) as bus, bus.subscribe("app.x") as events:
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", SLEEPER, str(folder), stdout=pipe)
        assert child.stdout
        try:
            assert await child.stdout.readline() == b"ready\n"
            os.kill(child.pid, signal.SIGSTOP)
            total = 3 * window.BYTES // 20_000
            for number in range(1, total + 1):
                await bus.publish("app.x", ["last" if number == total else "one", bytes(20_000)])
                assert (await anext(events)).missed == 0
            dropped = (await bus.call("bus", "status"))["counters"]["events_dropped"]
            assert dropped > total / 3
            os.kill(child.pid, signal.SIGCONT)
            got, missed = map(int, (await child.stdout.readline()).split())
            assert got + missed == total
            assert missed == dropped - 1  # one of the dropped, the last, was told again
            await child.wait()
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()


@story
async def test_readers_go_on_when_the_broker_comes_again(folder: Path) -> None:
    first = Broker(settings(folder))
    await first.start()
    async with connect(folder) as bus, connect(folder) as speaker, bus.subscribe("app.x") as events:
        await speaker.publish("app.x", "before")
        assert (await anext(events)).body == "before"
        first.close()
        second = Broker(settings(folder))
        await second.start()
        while sum(bool(party.wants) for party in second.router.parties.values()) < 1:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.01)
        while len(second.router.parties) < 2:  # noqa: ASYNC110 - the speaker, too
            await asyncio.sleep(0.01)
        await speaker.publish("app.x", "after")
        event = await anext(events)
        assert (event.body, event.sequence, event.missed) == ("after", 2, 0)
        second.close()


@story
async def test_a_subscription_the_broker_does_not_take_says_why(folder: Path) -> None:
    async with run_broker(settings(folder)), connect(folder) as bus:
        with pytest.raises(errors.UsageError, match="cannot subscribe"):
            async with bus.subscribe("app.*.x"):
                pass
        async with bus.subscribe("app.x") as events:
            await bus.publish("app.x", 1)
            assert (await anext(events)).body == 1
