"""One node in a network namespace: `netns_node.py FOLDER NUMBER PORT`. It calls the other node without end, writes down
what it was asked, prints what happens as lines of JSON, and prints all it knows when its standard input ends."""

from __future__ import annotations

import asyncio
import json
import sys
from time import monotonic
from typing import Any

from covey.bus.broker import BrokerSettings
from covey.bus.broker_service import run_broker
from covey.bus.client import Client, connect
from covey.bus.messages import NodeInfo, Peer
from covey.errors import CoveyError


def say(what: str, **facts: Any) -> None:
    print(json.dumps({"what": what, "at": monotonic(), **facts}), flush=True)


async def watch(bus: Client) -> None:
    async with bus.subscribe("bus.peer") as events:
        async for event in events:
            if not event.welcome:
                say("peer", **event.body)


async def main(folder: str, number: int, port: int) -> None:
    other = 3 - number
    asked: list[int] = []
    answered: list[int] = []
    failed: list[int] = []
    settings = BrokerSettings(f"{folder}/{number}/run", (f"10.77.1.{number}/24",), port)
    async with run_broker(settings) as (broker, _), connect(f"{folder}/{number}") as bus:
        broker.configure(
            NodeInfo(number, f"n{number}", f"id{number}", "c1", "lab", f"boot{number}"),
            {other: Peer(f"n{other}", (f"10.77.1.{other}:{port}",))},
        )

        async def one(count: int) -> None:
            try:
                await bus.call("book", "note", node=other, count=count, timeout=30.0)
                answered.append(count)
                say("answered", count=count)
            except CoveyError as problem:
                failed.append(count)
                say("failed", count=count, code=problem.code, text=str(problem))

        async def ask() -> None:
            calls = set()
            for count in range(1_000_000):  # they do not wait for one another
                calls.add(asyncio.create_task(one(count)))
                await asyncio.sleep(0.02)

        def note(count: int) -> None:
            asked.append(count)

        async with bus.serve("book", {"note": note}):
            tasks = [asyncio.create_task(watch(bus)), asyncio.create_task(ask())]
            await asyncio.to_thread(sys.stdin.read)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        say("end", asked=asked, answered=answered, failed=failed, links=broker.links.state())


asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
