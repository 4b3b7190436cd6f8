"""Many commands and many connections at once: every one gets its own answer, under a name of its own."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack

import pytest
from covey.testing import Answer, Cluster

pytestmark = pytest.mark.cluster

COMMANDS = 100
AT_ONCE = 8  # processes: each starts a Python, and tests share the machine
CONNECTIONS = 100


def test_two_commands_at_once(shared: Cluster) -> None:
    node = shared[2]
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(node.covey, "-o", "json", "node", "show")
        other = pool.submit(node.covey, "-o", "json", "cluster", "status")
        assert one.result().data["number"] == 2
        assert [each["number"] for each in other.result().data["nodes"]] == [1, 2, 3]


def test_a_hundred_commands(shared: Cluster) -> None:
    def command(number: int) -> Answer:
        node = shared[number % 3 + 1]
        words = (
            ("registry", "put", f"/app/commands/{number}", str(number)),
            ("registry", "get", "/nodes/1"),
            ("node", "ls"),
            ("ping", "dcm", "--count", "1"),
        )[number % 4]
        return node.covey("-o", "json", *words)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(command, range(COMMANDS)))
    assert [answer for answer in answers if answer.code != 0] == []
    items = shared[1].call("registry", "ls", prefix="/app/commands/")["items"]
    assert sorted(int(item["value"]) for item in items) == list(range(0, COMMANDS, 4))


def test_a_hundred_connections(shared: Cluster) -> None:
    async def all_at_once() -> None:
        async with AsyncExitStack() as stack:
            opening = (stack.enter_async_context(shared[number % 3 + 1].connect()) for number in range(CONNECTIONS))
            clients = await asyncio.gather(*opening)
            for number in (1, 2, 3):
                names = [client.name for client in clients if client.node.number == number]
                assert len(set(names)) == len(names) > 0, "two parties of one bus have one name"

            async def write_and_read(number: int) -> None:
                bus, key = clients[number], f"/app/connections/{number}"
                assert (await bus.call("registry", "put", key=key, value=number, timeout=60))["succeeded"]
                assert (await bus.call("registry", "get", key=key, timeout=60))["value"] == number
                other = number % 3 + 1
                status = await bus.call("dcm", "node_show", node=other, number=other, timeout=60)
                assert status["number"] == other

            await asyncio.gather(*(write_and_read(number) for number in range(CONNECTIONS)))

    asyncio.run(all_at_once())
    items = shared[3].call("registry", "ls", prefix="/app/connections/")["items"]
    assert len(items) == CONNECTIONS
    assert len({item["mod_revision"] for item in items}) == CONNECTIONS
