"""Redis in bench/bus.py, with redis-py and hiredis: pub/sub both ways, and pipelines wherever more than one waits.

Redis has no request and reply of its own. A request names the channel of its answer and a number; what one turn of the
loop wants to publish goes as one pipeline, which is what the documentation advises for speed.
"""

from __future__ import annotations

import asyncio
from typing import Any

import redis.asyncio as redis
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


class Sender:
    """Publishes in pipelines: what came while the last one was under way goes with the next."""

    def __init__(self, connection: redis.Redis) -> None:
        self._connection = connection
        self._waiting: list[tuple[str, bytes]] = []
        self._wanted = asyncio.Event()
        self._task = asyncio.create_task(self._send())

    def publish(self, channel: str, data: bytes) -> None:
        """Publish soon."""
        self._waiting.append((channel, data))
        self._wanted.set()

    async def _send(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            waiting, self._waiting = self._waiting, []
            if len(waiting) == 1:
                await self._connection.publish(*waiting[0])
                continue
            pipeline = self._connection.pipeline(transaction=False)
            for channel, data in waiting:
                pipeline.publish(channel, data)
            await pipeline.execute()

    def close(self) -> None:
        """Stop."""
        self._task.cancel()


async def listening(connection: redis.Redis, channel: str) -> Any:
    """Return a pub/sub object that surely listens."""
    pubsub = connection.pubsub(ignore_subscribe_messages=False)
    await pubsub.subscribe(channel)
    while (message := await pubsub.get_message(timeout=5)) is None or message["type"] != "subscribe":
        pass
    return pubsub


async def service(said: dict[str, Any]) -> None:
    connection = redis.from_url(said["server"])
    pubsub = await listening(connection, "echo")
    sender = Sender(connection)

    async def serve() -> None:
        async for message in pubsub.listen():
            request = unpack(message["data"])
            sender.publish(request["to"], pack({"id": request["id"], "text": request["text"]}))

    serving = asyncio.create_task(serve())
    await until_ended()
    serving.cancel()
    sender.close()


async def client(said: dict[str, Any]) -> None:
    connection = redis.from_url(said["server"])
    pubsub = await listening(connection, "answers")
    sender = Sender(connection)
    waiting: dict[int, asyncio.Future[str]] = {}
    last = 0
    loop = asyncio.get_running_loop()

    async def hear() -> None:
        async for message in pubsub.listen():
            found = unpack(message["data"])
            waiting.pop(found["id"]).set_result(found["text"])

    hearing = asyncio.create_task(hear())

    async def ask() -> None:
        nonlocal last
        last += 1
        future = waiting[last] = loop.create_future()
        sender.publish("echo", pack({"id": last, "to": "answers", "text": TEXT}))
        await future

    await ask_as_told(ask)
    hearing.cancel()
    sender.close()


async def subscriber(said: dict[str, Any]) -> None:
    connection = redis.from_url(said["server"])
    pubsub = await listening(connection, "bench.events")
    async for command in commands():
        meter = Meter(Shared(said["shared"]), command["seconds"])
        async for message in pubsub.listen():
            if meter.seen(unpack(message["data"])["number"]):
                break
        answer(**meter.found)


async def publisher(said: dict[str, Any]) -> None:
    connection = redis.from_url(said["server"])
    pipeline = connection.pipeline(transaction=False)

    async def publish(numbers: range) -> None:
        for number in numbers:
            pipeline.publish("bench.events", pack({"number": number, "text": TEXT}))
        await pipeline.execute()

    await publish_as_told(said["shared"], publish)


if __name__ == "__main__":
    run({"service": service, "client": client, "subscriber": subscriber, "publisher": publisher})
