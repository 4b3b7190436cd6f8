"""covey's parties in bench/bus.py: a broker, a service, a client, a subscriber, a publisher, one who holds taps."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from bus_common import TEXT, Meter, Shared, answer, ask_as_told, commands, publish_as_told, run, until_ended
from covey.bus.broker import BrokerSettings
from covey.bus.broker_service import run_broker
from covey.bus.client import connect
from covey.bus.messages import NodeInfo, Peer
from covey.bus.security import Keys

TOPIC = "bench.events"


def cpu(pid: int) -> float:
    """Return the CPU seconds that all threads of a process have used, as the scheduler counts them."""
    spent = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread may end meanwhile
            spent += int((task / "schedstat").read_text().split()[0])
    return spent / 1e9


async def broker(said: dict[str, Any]) -> None:
    """Run one node's broker. `peers` has the address of each node, `number` says which of them this is.

    `keys` has the key pair of each node, when they encrypt.
    """
    keys = {int(number): Keys(*pair) for number, pair in said.get("keys", {}).items()}
    peers = {int(number): address for number, address in said.get("peers", {}).items()}
    own = said.get("number", 0)
    host, _, port = peers.get(own, ":0").rpartition(":")
    settings = BrokerSettings(f"{said['state']}/run", (f"{host}/8",) if host else (), int(port), keys=keys.get(own))
    async with run_broker(settings) as (running, _):
        if own:
            running.configure(
                NodeInfo(own, f"n{own}", f"id-{own}", "c-1", "bench", f"boot-{own}"),
                {
                    number: Peer(f"n{number}", (address,), keys[number].public if keys else "")
                    for number, address in peers.items()
                    if number != own
                },
            )
        async for _ in commands():
            answer(cpu=cpu(os.getpid()))


def echo(*, text: str) -> str:
    """Say it back."""
    return text


async def service(said: dict[str, Any]) -> None:
    async with connect(said["state"]) as bus, bus.serve(said.get("name", "echo"), {"echo": echo}):
        await until_ended()


async def client(said: dict[str, Any]) -> None:
    async with connect(said["state"]) as bus:
        node = said.get("node")
        await bus.wait_for_service("echo", node=node)

        async def ask() -> None:
            await bus.call("echo", "echo", node=node, text=TEXT)

        assert await bus.call("echo", "echo", node=node, text=TEXT) == TEXT
        await ask_as_told(ask)


async def idler(said: dict[str, Any]) -> None:
    async with connect(said["state"]):
        await until_ended()


async def subscriber(said: dict[str, Any]) -> None:
    async with connect(said["state"]) as bus:
        # `node` is only given for the events of another node
        where = {"node": said["node"]} if "node" in said else {}
        async with bus.subscribe(TOPIC, **where) as events:
            async for command in commands():
                meter = Meter(Shared(said["shared"]), command["seconds"])
                async for event in events:
                    if meter.seen(event.body["number"]):
                        break
                answer(**meter.found)


async def publisher(said: dict[str, Any]) -> None:
    async with connect(said["state"]) as bus:

        async def publish(numbers: range) -> None:
            for number in numbers:
                await bus.publish(TOPIC, {"number": number, "text": TEXT})
            await asyncio.sleep(0)

        await publish_as_told(said["shared"], publish)


async def tapper(said: dict[str, Any]) -> None:
    """Hold a tap as the bench says: none, one that nothing matches and that is read, one that is never read."""
    async with connect(said["state"]) as bus:
        reading: asyncio.Task[None] | None = None
        tap: int | None = None

        async def read(number: int) -> None:
            while True:
                await bus.call("bus", "tap_next", tap=number, wait=1.0)

        async for command in commands():
            counters: dict[str, int] = {}
            if reading is not None:
                reading.cancel()
                reading = None
            if tap is not None:
                counters = (await bus.call("bus", "tap_detach", tap=tap))["counters"]
                tap = None
            if command["tap"] != "none":
                rule = 'topic == "nobody.says.this"' if command["tap"] == "no match" else ""
                tap = (await bus.call("bus", "tap_attach", filter=rule))["tap"]
                if command["tap"] == "no match":
                    reading = asyncio.create_task(read(tap))
            answer(**counters)
        if reading is not None:
            reading.cancel()


if __name__ == "__main__":
    run(
        {
            "broker": broker,
            "service": service,
            "client": client,
            "idler": idler,
            "subscriber": subscriber,
            "publisher": publisher,
            "tapper": tapper,
        }
    )
