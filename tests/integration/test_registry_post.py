"""How a server's messages leave, on real sockets: what one turn says goes as one, what is large alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from covey.bus.context import Local
from covey.bus.machine import Address, Send
from covey.components.registry import direct
from covey.components.registry.direct import Post
from covey.components.registry.messages import Leading
from covey.components.registry.peers import Part, PreVoteAsked, Reach
from real_nodes import story
from registry_nodes import definitions


class Bus:
    """Keeps what is sent over it; taps are never on."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, str, bytes]] = []

    async def send(self, service: str, verb: str, *, node: int, about: str, cause: str, body: bytes) -> None:
        assert (service, verb) == ("registry", "message")
        self.sent.append((node, about, body))

    def abouts(self) -> list[str]:
        return [about for _, about, _ in self.sent]

    @asynccontextmanager
    async def subscribe(self, topic: str) -> AsyncIterator[AsyncIterator[Any]]:
        async def never() -> AsyncIterator[Any]:
            await asyncio.Event().wait()
            yield

        yield never()


class Server:
    def __init__(self, number: int, mode: str = "open", address: str = "") -> None:
        self.number = number
        self.bus = Bus()
        self.heard: list[tuple[int, Any, str]] = []
        self.post = Post(self.bus, lambda *heard: self.heard.append(heard))  # type: ignore[arg-type]
        where = ("", "", "c1", "blue", number, f"n{number}", f"id{number}", "boot", (1, 2))
        nodes = definitions(7400, 2)
        nodes[number]["addresses"] = [address or f"127.1.0.{number}/16"]
        self.local = Local(*where, nodes=nodes, settings={"security": {"mode": mode, "key": "/nowhere"}})

    def say(self, message: Any, cause: str = "") -> None:
        self.post.put(Send(Address("registry", 3 - self.number), message, cause))

    def way(self) -> Any:
        return self.post.state()[0]


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Server, Server]]:
    servers = Server(1), Server(2)
    running = []
    for each in servers:
        await each.post.open(each.local)
        running.append(asyncio.create_task(each.post.run()))
    try:
        yield servers
    finally:
        for each in servers:
            await each.post.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def until(holds: Callable[[], object]) -> None:
    while True:
        if holds():
            return
        await asyncio.sleep(0.005)


async def meet(one: Server, two: Server) -> None:
    """Let node 2 say something by the bus, and node 1 hear where node 2 listens."""
    two.say(asked(0))
    await until(lambda: "reach" in two.bus.abouts())
    (body,) = [body for _, about, body in two.bus.sent if about == "reach"]
    one.post.reached(2, msgspec.msgpack.decode(body, type=Reach))
    await until(lambda: one.post.state() and one.way()["up"] and two.way()["up"])


def asked(number: int) -> PreVoteAsked:
    return PreVoteAsked(0, number, 0, 0)


@story
async def test_until_there_is_a_link_all_goes_by_the_bus_and_only_who_is_dialled_says_where_it_is() -> None:
    async with pair() as (one, two):
        for number in range(5):
            one.say(asked(number))
            two.say(asked(number))
        await until(lambda: len(one.bus.sent) == 5 and len(two.bus.sent) == 6)
        assert set(one.bus.abouts()) == {"prevoteasked"}
        assert two.bus.abouts().count("reach") == 1, "once a second is enough"
        assert one.way()["by_brokers"] == two.way()["by_brokers"] == 5


@story
async def test_what_one_turn_says_leaves_as_one_message_in_order_with_its_causes() -> None:
    async with pair() as (one, two):
        await meet(one, two)
        before = one.post._direct.state(2)["messages_out"]  # type: ignore[union-attr]
        for number in range(7):
            one.say(asked(number), f"cause {number}")
        one.say(asked(7), "")
        await until(lambda: len(two.heard) == 8)
        assert two.heard == [(1, asked(number), f"cause {number}" if number < 7 else "") for number in range(8)]
        assert one.post._direct.state(2)["messages_out"] == before + 1  # type: ignore[union-attr]
        assert (one.way()["messages_out"], two.way()["messages_in"], one.way()["by_brokers"]) == (8, 8, 0)


@story
async def test_what_is_too_much_for_one_message_leaves_as_several_in_order() -> None:
    async with pair() as (one, two):
        await meet(one, two)
        said: list[Any] = [asked(number) for number in range(250)]
        said += [Part(0, 1, 2, 3, 4, 5, offset, bytes([offset]) * 600_000) for offset in range(5)]
        for message in said:
            two.say(message, "c" * 200)  # a header has room for few of these
        await until(lambda: len(one.heard) == len(said))
        assert [message for _, message, _ in one.heard] == said and two.way()["lost"] == 0


@story
async def test_what_is_no_servers_message_goes_by_the_bus_and_a_link_that_is_full_loses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with pair() as (one, two):
        await meet(one, two)
        one.say(Leading(1, 1, "writes", True))
        await until(lambda: one.bus.abouts() == ["leading"])
        assert one.way()["by_brokers"] == 0 and not two.heard

        def full(*_: Any) -> None:
            raise direct.CoveyError("full")

        monkeypatch.setattr(direct.Direct, "send", full)
        one.say(asked(1))
        await until(lambda: one.way()["lost"] == 1)
        assert not two.heard


@pytest.mark.parametrize(
    "mode, address", [("curve", ""), ("", ""), ("Open", ""), ("open", "192.0.2.1/24"), ("open", "127.1.0.77/32")]
)
@story
async def test_nothing_is_opened_unless_it_is_said_to_be_open_and_is_at_home(mode: str, address: str) -> None:
    one = Server(1, mode, address)
    await one.post.open(one.local)
    opened = one.post._direct is not None
    await one.post.close()
    assert opened == (address == "127.1.0.77/32"), "the one that is as it should be"
