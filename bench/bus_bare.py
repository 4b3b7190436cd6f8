"""The least that asyncio parties over ZeroMQ cost, for bench/bus.py: covey's shape with everything left out.

A broker that swaps two frames, a service that sends back what it got, a client with one future for each request. No
header, no roles, no deadlines, no windows, no errors, no batches, nothing encoded. What it takes beyond libzmq's C
loops is the price of Python and its loop; what covey takes beyond it is the price of what covey does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import zmq
from bus_common import TEXT, ask_as_told, run, until_ended

BODY = TEXT.encode()
NOBLOCK, MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)
EVENTS, POLLIN = int(zmq.EVENTS), int(zmq.POLLIN)


def connected(kind: int, endpoint: str, name: bytes = b"") -> zmq.Socket[bytes]:
    """Return a socket, bound if it is a ROUTER."""
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    if name:
        socket.setsockopt(zmq.ROUTING_ID, name)
    if kind == zmq.ROUTER:
        socket.bind(endpoint)
    else:
        socket.connect(endpoint)
    return socket


def listen(socket: zmq.Socket[bytes], heard: Callable[[], None]) -> Callable[[], None]:
    """Call `heard` for each message, which takes all its frames; return what to call after a send."""
    loop = asyncio.get_running_loop()

    def drain() -> None:
        while socket.get(EVENTS) & POLLIN:
            heard()

    def look() -> None:
        if socket.get(EVENTS) & POLLIN:
            loop.call_soon(drain)

    loop.add_reader(socket.getsockopt(zmq.FD), drain)
    look()
    return look


async def broker(said: dict[str, Any]) -> None:
    socket = connected(zmq.ROUTER, said["endpoint"])
    receive, send = socket.recv, super(zmq.Socket, socket).send

    def heard() -> None:
        source, destination, body = receive(NOBLOCK), receive(NOBLOCK), receive(NOBLOCK)
        send(destination, MORE)
        send(source, MORE)
        send(body, NOBLOCK)

    listen(socket, heard)
    await until_ended()


async def service(said: dict[str, Any]) -> None:
    socket = connected(zmq.DEALER, said["endpoint"], b"echo")
    receive, send = socket.recv, super(zmq.Socket, socket).send

    def heard() -> None:
        source, body = receive(NOBLOCK), receive(NOBLOCK)
        send(source, MORE)
        send(body, NOBLOCK)

    listen(socket, heard)
    await until_ended()


async def client(said: dict[str, Any]) -> None:
    socket = connected(zmq.DEALER, said["endpoint"])
    receive, send = socket.recv, super(zmq.Socket, socket).send
    waiting: list[asyncio.Future[bytes]] = []  # answers come in the order of the questions
    loop = asyncio.get_running_loop()

    def heard() -> None:
        receive(NOBLOCK)
        future, body = waiting.pop(0), receive(NOBLOCK)
        if not future.done():
            future.set_result(body)

    look = listen(socket, heard)

    async def ask() -> None:
        future: asyncio.Future[bytes] = loop.create_future()
        waiting.append(future)
        send(b"echo", MORE)
        send(BODY, NOBLOCK)
        look()
        await future

    await asyncio.sleep(0.2)  # the service has no way to say that it is there
    await ask_as_told(ask)


if __name__ == "__main__":
    run({"broker": broker, "service": service, "client": client})
