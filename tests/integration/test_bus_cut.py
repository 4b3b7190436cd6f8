"""Two brokers of which one is cut off: by its own word only, one way or both, and healed (`covey lab cut`)."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from covey.bus.broker import Broker, BrokerSettings
from covey.bus.broker_service import run_broker
from covey.bus.client import Client
from covey.bus.messages import NodeInfo, Peer, Way
from covey.errors import CoveyError, Refused
from real_nodes import free_port

HOSTS = {1: "127.1.0.1", 2: "127.1.0.2"}


@asynccontextmanager
async def pair(lab: bool) -> AsyncIterator[dict[int, tuple[Broker, Client]]]:
    """Two nodes that know each other, each with a port of its own."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cv", dir="/tmp")))
        found, port = {}, free_port()
        for number, host in HOSTS.items():
            settings = BrokerSettings(str(folder / f"n{number}"), (f"{host}/16",), port, lab=lab)
            found[number] = await stack.enter_async_context(run_broker(settings))
        for number, (broker, _) in found.items():
            other = 3 - number
            peers = {other: Peer(f"n{other}", (f"{HOSTS[other]}:{port}",))}
            broker.configure(NodeInfo(number, f"n{number}", "", "c1", "lab"), peers, {"127.1.0.0/16": Way("A")})
        yield found


def test_a_node_that_is_none_of_a_lab_refuses() -> None:
    async def story() -> None:
        async with pair(lab=False) as found:
            _, client = found[1]
            for verb, given in (("cut", {"out": [HOSTS[2]], "into": []}), ("heal", {})):
                with pytest.raises(Refused, match="no node of a lab"):
                    await client.call("bus", verb, **given)
            assert (await client.call("bus", "status", node=2))["node"]["number"] == 2

    asyncio.run(asyncio.wait_for(story(), 20))


def test_what_is_cut_does_not_pass_and_is_told_as_silence_until_it_is_healed() -> None:
    async def story() -> None:
        async with pair(lab=True) as found:
            _, client = found[1]
            assert (await client.call("bus", "status", node=2))["node"]["number"] == 2
            before = {each["service"]: each["messages_out"] for each in await client.call("bus", "traffic")}
            await client.call("bus", "cut", out=[HOSTS[2]], into=[])
            with pytest.raises(CoveyError):
                await client.call("bus", "status", node=2, timeout=0.5)
            after = {each["service"]: each["messages_out"] for each in await client.call("bus", "traffic")}
            assert after["bus"] == before["bus"], "nothing left, and nothing was counted"
            await client.call("bus", "heal")
            assert (await client.call("bus", "status", node=2, timeout=10.0))["node"]["number"] == 2

    asyncio.run(asyncio.wait_for(story(), 30))
