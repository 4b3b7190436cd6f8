"""A place that refused a probe must not make the socket deaf: uvloop polls it no more after an error, unless told anew.

On asyncio's own loop that never was so; daemons run on uvloop where it is installed.
"""

from __future__ import annotations

import asyncio

from covey.bus import loop
from covey.components.liveness.messages import Heartbeat
from covey.components.liveness.probes import Probes
from real_nodes import LIMIT, free_port

NET = "127.1.0.0/16"


async def refused_then_spoken_to() -> None:
    keys: dict[int, bytes] = {}
    heard: asyncio.Queue[tuple[int, object]] = asyncio.Queue()
    refused: asyncio.Queue[int] = asyncio.Queue()
    port, networks = free_port(), {NET: {1: "127.1.0.1", 2: "127.1.0.2"}}
    ends = [
        Probes(number, lambda *told: heard.put_nowait(told), keys.__setitem__, refused.put_nowait) for number in (1, 2)
    ]
    one, other = ends
    try:
        one.configure(networks, {1: port, 2: port}, {1: None, 2: None})
        one.send(2, Heartbeat("b1", (1, 1), 1, network=NET))
        assert await refused.get() == 2
        other.configure(networks, {1: port, 2: port}, {1: None, 2: None})
        other.introduce(1)
        one.learn(2, keys[1])
        for beat in range(3):
            probe = Heartbeat("b2", (1, 1), beat, network=NET)
            other.send(1, probe)
            assert await heard.get() == (2, probe)
    finally:
        for end in ends:
            end.close()


def test_a_node_hears_after_another_one_refused() -> None:
    loop.run(asyncio.wait_for(refused_then_spoken_to(), LIMIT))
