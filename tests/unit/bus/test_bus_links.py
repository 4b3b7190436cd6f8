"""What a broker keeps of others: no more links by address than are used, and none that takes nothing."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import zmq
from covey.bus.links import BY_ADDRESS, IDLE, Link, Links


class FakeLink:
    """A link that only remembers; `used` is the number of its last message."""

    count = 0

    def __init__(self) -> None:
        self.used, self.closed = 0.0, False

    def send(self, _frames: list[Any]) -> None:
        FakeLink.count += 1
        self.used = FakeLink.count

    def close(self) -> None:
        self.closed = True


def links() -> tuple[Links, dict[int | str, FakeLink], list[str]]:
    made: dict[int | str, FakeLink] = {}
    closed: list[str] = []

    def make(key: int | str) -> Any:
        made[key] = FakeLink()
        return made[key]

    return Links(make, lambda key, _reason: closed.append(key)), made, closed


def test_links_by_address_are_bounded_and_the_quietest_goes_first() -> None:
    found, made, closed = links()
    found.send(1, [])
    for port in range(BY_ADDRESS):
        found.send(f"127.0.0.1:{port + 1}", [])
    found.send("127.0.0.1:1", [])
    assert not closed
    found.send("127.0.0.1:900", [])
    assert closed == ["127.0.0.1:2"] and [key for key, link in made.items() if link.closed] == closed


def test_an_idle_link_by_address_is_closed_but_not_while_somebody_waits() -> None:
    found, made, _ = links()
    for key in (1, "127.0.0.1:1", "127.0.0.1:2"):
        found.send(key, [])
    late = FakeLink.count + IDLE
    found.sweep(0.0, set())
    assert not any(link.closed for link in made.values())
    found.sweep(late, {"127.0.0.1:1"})
    assert [key for key, link in made.items() if link.closed] == ["127.0.0.1:2"]
    found.sweep(late, set())
    assert [key for key, link in made.items() if link.closed] == ["127.0.0.1:1", "127.0.0.1:2"]


def test_a_peer_that_reads_nothing_takes_no_greeting_and_is_hung_up() -> None:
    async def story() -> None:
        down: list[str] = []
        context: Any = None
        link = Link(context, ("127.1.0.2:7",), (), lambda: [b""], lambda _: None, lambda: None, down.append)

        def full(_frames: list[Any]) -> None:
            raise zmq.Again

        link.up, link._port = True, SimpleNamespace(send=full, close=lambda: None)  # type: ignore[assignment]
        link.greet()
        assert not link.up and down == ["127.1.0.2:7: it does not read its messages any more"]

    asyncio.run(story())
