"""NATS in bench/bus.py, with nats-py as its documentation and its own benchmarks do it: `request`, and callbacks."""

from __future__ import annotations

import asyncio
from typing import Any

import nats
from bus_common import (
    TEXT,
    Meter,
    Shared,
    answer,
    ask_as_told,
    commands,
    pack,
    publish_as_told,
    run,
    unpack,
    until_ended,
)
from nats.aio.msg import Msg


async def service(said: dict[str, Any]) -> None:
    connection = await nats.connect(said["server"])

    async def echo(message: Msg) -> None:
        await message.respond(pack(unpack(message.data)["text"]))

    await connection.subscribe("echo", cb=echo)
    await connection.flush()
    await until_ended()
    await connection.close()


async def client(said: dict[str, Any]) -> None:
    connection = await nats.connect(said["server"])

    async def ask() -> None:
        found = await connection.request("echo", pack({"text": TEXT}), timeout=10)
        unpack(found.data)

    await ask_as_told(ask)
    await connection.close()


async def subscriber(said: dict[str, Any]) -> None:
    """Hear by a callback: the other way, `async for message in subscription.messages`, makes a task a message."""
    connection = await nats.connect(said["server"])
    meter: Meter | None = None
    done = asyncio.Event()

    async def heard(message: Msg) -> None:
        if meter and not done.is_set() and meter.seen(unpack(message.data)["number"]):
            done.set()

    await connection.subscribe("bench.events", cb=heard)
    await connection.flush()
    async for command in commands():
        done.clear()
        meter = Meter(Shared(said["shared"]), command["seconds"])
        await done.wait()
        answer(**meter.found)
    await connection.close()


async def publisher(said: dict[str, Any]) -> None:
    connection = await nats.connect(said["server"])

    async def publish(numbers: range) -> None:
        for number in numbers:
            await connection.publish("bench.events", pack({"number": number, "text": TEXT}))
        await asyncio.sleep(0)  # its own flusher writes what is pending; `flush()` would wait for the server

    await publish_as_told(said["shared"], publish)
    await connection.close()


if __name__ == "__main__":
    run({"service": service, "client": client, "subscriber": subscriber, "publisher": publisher})
