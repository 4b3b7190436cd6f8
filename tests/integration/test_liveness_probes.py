"""Probes between two nodes' sockets: what is signed counts, what is not changes nothing, and a closed port tells."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from covey.components.liveness.messages import Heartbeat, HeartbeatAck
from covey.components.liveness.probes import Probes
from real_nodes import free_port, story

NET = "127.1.0.0/16"


class End:
    """One node's probes, and what they brought."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.heard: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()
        self.keys: dict[int, bytes] = {}
        self.refused: asyncio.Queue[int] = asyncio.Queue()
        self.probes = Probes(
            number, lambda *told: self.heard.put_nowait(told), self.keys.__setitem__, self.refused.put_nowait
        )


@asynccontextmanager
async def two() -> AsyncIterator[tuple[End, End, int]]:
    port, ends = free_port(), (End(1), End(2))
    networks = {NET: {1: "127.1.0.1", 2: "127.1.0.2"}}
    for end in ends:
        end.probes.configure(networks, {1: port, 2: port}, {1: None, 2: None})
    try:
        yield *ends, port
    finally:
        for end in ends:
            end.probes.close()


@story
async def test_a_probe_is_answered_under_the_key_of_who_asks_and_nothing_else_counts(folder: Any) -> None:
    async with two() as (one, other, port):
        ping = Heartbeat("b1", (1, 1), 7, network=NET)
        one.probes.send(2, ping)
        for _ in range(1000):
            if other.probes.counters["unproved"]:  # the key is not known yet
                break
            await asyncio.sleep(0.001)
        other.probes.learn(1, one.keys[2])
        one.probes.send(2, ping)  # the same again counts, since the first was not taken
        assert await other.heard.get() == (1, ping)
        pong = HeartbeatAck("b2", (1, 1), 7, network=NET, epoch=1, age=0.5)
        other.probes.send(1, pong)
        assert await one.heard.get() == (2, pong)

        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener,
        ):
            listener.bind(("127.1.0.9", 0))
            listener.settimeout(10)
            one.probes.configure(
                {NET: {1: "127.1.0.1", 2: "127.1.0.9"}}, {1: port, 2: listener.getsockname()[1]}, [1, 2]
            )
            later = Heartbeat("b1", (1, 1), 8, network=NET)
            one.probes.send(2, later)
            genuine = listener.recv(2000)
            forged = [genuine[:-1] + b"\x00", b"", b"x" * 40, genuine[:20], b"\x00" * 1300, genuine[:28] + b"\xc1"]
            for data in forged:
                stranger.sendto(data, ("127.1.0.2", port))
            stranger.sendto(genuine, ("127.1.0.1", port))  # thrown back at who said it
            stranger.sendto(genuine, ("127.1.0.2", port))  # word for word, as the first to bring it
        assert await other.heard.get() == (1, later)
        counted = other.probes.counters
        assert counted["unproved"] + counted["malformed"] == 1 + len(forged)
        assert one.heard.empty() and other.heard.empty()
        other.probes.configure({}, {}, {2: None})  # node 1 is undefined: its key counts no more
        assert other.probes._theirs == {}


@story
async def test_a_port_where_nobody_listens_is_told(folder: Any) -> None:
    async with two() as (one, other, _):
        other.probes.close()
        one.probes.send(2, Heartbeat("b1", (1, 1), 1, network=NET))
        assert await one.refused.get() == 2
        one.probes.send(2, Heartbeat("b1", (1, 1), 2, network="elsewhere"))
        assert one.probes.counters["unsent"] == 1
