"""The limit in bench/bus.py: libzmq's own C loops between plain sockets, one message a frame, nothing decoded.

Requests pass `monitored_queue` between two ROUTERs, the service is named by its routing id; events pass `proxy` between
XSUB and XPUB. All block instead of polling, and wait rather than drop (XPUB_NODROP): as fast as ZeroMQ goes.
"""

from __future__ import annotations

import time
from typing import Any

import zmq
from bus_common import BURST, TEXT, WARM_UP, Meter, Shared, answer, clock, commands_sync, latency, run
from zmq.devices import monitored_queue

BODY = TEXT.encode()
NAME = b"echo"
LIMIT_MS = 60_000


def made(kind: int, **options: Any) -> zmq.Socket[bytes]:
    """Return a socket of this process's context with the queues that covey's have."""
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
    for name, value in {"LINGER": 0, "SNDHWM": 10_000, "RCVHWM": 10_000, **options}.items():
        socket.setsockopt(getattr(zmq, name), value)
    return socket


def queue(said: dict[str, Any]) -> None:
    """Run `monitored_queue` until this process is ended."""
    front, back, monitor = made(zmq.ROUTER), made(zmq.ROUTER), made(zmq.PUB)
    front.bind(f"ipc://{said['folder']}/front")
    back.bind(f"ipc://{said['folder']}/back")
    monitor.bind("inproc://monitor")
    answer(ready=True)
    monitored_queue(front, back, monitor, b"in", b"out")


def proxy(said: dict[str, Any]) -> None:
    """Run `proxy` until this process is ended."""
    publishers, subscribers = made(zmq.XSUB), made(zmq.XPUB, XPUB_NODROP=1)
    publishers.bind(f"ipc://{said['folder']}/publishers")
    subscribers.bind(f"ipc://{said['folder']}/subscribers")
    answer(ready=True)
    zmq.proxy(publishers, subscribers)


def service(said: dict[str, Any]) -> None:
    socket = made(zmq.DEALER, ROUTING_ID=NAME)
    socket.connect(f"ipc://{said['folder']}/back")
    answer(ready=True)
    while True:
        socket.send_multipart(socket.recv_multipart())


def client(said: dict[str, Any]) -> None:
    socket = made(zmq.DEALER, RCVTIMEO=200)
    socket.connect(f"ipc://{said['folder']}/front")
    for _ in range(50):  # the queue drops what is for a service that it does not know yet
        socket.send_multipart([NAME, BODY])
        try:
            assert socket.recv_multipart() == [NAME, BODY]
            break
        except zmq.Again:
            continue
    socket.setsockopt(zmq.RCVTIMEO, LIMIT_MS)
    for command in commands_sync():
        measure = _round_trips if command["do"] == "round_trip" else _pipelined
        answer(**measure(socket, command))


def _round_trips(socket: zmq.Socket[bytes], command: dict[str, Any]) -> dict[str, float]:
    begins = clock() + command["seconds"] * WARM_UP
    ends = begins + command["seconds"]
    taken = []
    while (began := clock()) < ends:
        socket.send_multipart([NAME, BODY])
        socket.recv_multipart()
        if began >= begins:
            taken.append(clock() - began)
    return latency(taken)


def _pipelined(socket: zmq.Socket[bytes], command: dict[str, Any]) -> dict[str, float]:
    for _ in range(command["in_flight"]):
        socket.send_multipart([NAME, BODY])
    begins = clock() + command["seconds"] * WARM_UP
    while clock() < begins:
        socket.recv_multipart()
        socket.send_multipart([NAME, BODY])
    began = clock()
    answered = 0
    while (now := clock()) - began < command["seconds"]:
        for _ in range(20):
            socket.recv_multipart()
            socket.send_multipart([NAME, BODY])
        answered += 20
    for _ in range(command["in_flight"]):
        socket.recv_multipart()
    return {"rate": answered / (now - began)}


def subscriber(said: dict[str, Any]) -> None:
    """Count what comes; the number in the first eight bytes only shows that nothing was lost."""
    socket = made(zmq.SUB, RCVTIMEO=LIMIT_MS)
    socket.subscribe(b"")
    socket.connect(f"ipc://{said['folder']}/subscribers")
    time.sleep(0.1)  # the subscription has no confirmation
    for command in commands_sync():
        meter = Meter(Shared(said["shared"]), command["seconds"])
        while not meter.seen(int.from_bytes(socket.recv()[:8], "little")):
            pass
        answer(**meter.found)


def publisher(said: dict[str, Any]) -> None:
    socket = made(zmq.PUB, XPUB_NODROP=1, SNDTIMEO=1000)
    socket.connect(f"ipc://{said['folder']}/publishers")
    time.sleep(0.1)
    for _ in commands_sync():
        shared = Shared(said["shared"])
        sent = 0
        rest = BODY[8:]
        while not shared.stopped:
            for number in range(sent + 1, sent + BURST + 1):
                socket.send(number.to_bytes(8, "little") + rest)
            sent += BURST
            shared.room_sync(sent)
        answer(published=sent)


if __name__ == "__main__":
    run(
        {
            "queue": queue,
            "proxy": proxy,
            "service": service,
            "client": client,
            "subscriber": subscriber,
            "publisher": publisher,
        }
    )
