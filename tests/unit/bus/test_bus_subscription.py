"""Readers of events: gaps, last values, bounds; no socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest
from covey import errors
from covey.bus import codec, subscription
from covey.bus.messages import SUBSCRIBE, UNSUBSCRIBE, Header, Kind, Subscribe
from covey.bus.subscription import Event, Subscription, Subscriptions


class Broker:
    """What the broker hears of one party's subscriptions, and what it says."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Subscribe]] = []
        self.party = Subscriptions(self.hear)

    def hear(self, topic: str, body: bytes) -> None:
        self.heard.append((topic, msgspec.msgpack.decode(body, type=Subscribe)))

    def open(self, topic: str, node: int = 0) -> Subscription:
        found = self.party.add(topic, node)
        self.party.confirm(found.wanted)
        return found

    def tell(self, topic: str, first: int, *bodies: Any, source: str = "x@1", welcome: bool = False) -> None:
        header = Header(Kind.EVENT, source=source, topic=topic, count=len(bodies), sequence=first, welcome=welcome)
        self.party.take(header, codec.join_items([codec.encode_item(body) for body in bodies]))


def story(test: Callable[[Broker], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        async def inside() -> None:
            broker = Broker()
            broker.party.configure(1)
            await test(broker)

        asyncio.run(inside())

    return run


async def read(events: Subscription, count: int) -> list[tuple[Any, int, int, bool]]:
    found = [await anext(events) for _ in range(count)]
    return [(event.body, event.sequence, event.missed, event.welcome) for event in found]


@story
async def test_a_gap_is_counted_where_it_is(broker: Broker) -> None:
    events = broker.open("app.x")
    broker.tell("app.x", 5, "a", "b")
    broker.tell("app.x", 10, "c", "d")
    broker.tell("app.x", 12, "e")
    assert await read(events, 5) == [
        ("a", 5, 0, False),
        ("b", 6, 0, False),
        ("c", 10, 3, False),
        ("d", 11, 0, False),
        ("e", 12, 0, False),
    ]


@story
async def test_a_source_that_starts_again_is_no_gap(broker: Broker) -> None:
    events = broker.open("app.x")
    broker.tell("app.x", 500, "old")
    broker.tell("app.x", 1, "new")
    broker.tell("app.x", 7, "source two", source="y@1")
    assert await read(events, 3) == [("old", 500, 0, False), ("new", 1, 0, False), ("source two", 7, 0, False)]


@story
async def test_the_last_value_is_welcome_once(broker: Broker) -> None:
    events = broker.open("app.x")
    broker.tell("app.x", 8, "a", "b", "c", welcome=True)  # of a batch, only the last item counts
    broker.tell("app.x", 11, "d")
    broker.tell("app.x", 11, "d", welcome=True)  # told for another reader of this party
    broker.tell("app.x", 12, "e")
    assert await read(events, 3) == [("c", 10, 0, True), ("d", 11, 0, False), ("e", 12, 0, False)]


@story
async def test_after_a_loss_the_last_value_tells_how_many_were_missed(broker: Broker) -> None:
    events = broker.open("app.x")
    broker.tell("app.x", 1, "a")
    broker.tell("app.x", 900, "b", welcome=True)
    assert await read(events, 2) == [("a", 1, 0, False), ("b", 900, 898, False)]


def test_a_slow_reader_is_bounded_and_ends_with_the_last_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscription, "QUEUE", 10)

    @story
    async def slow(broker: Broker) -> None:
        events, other = broker.open("app.x"), broker.open("app.*")
        for first in range(1, 101, 4):
            broker.tell("app.x", first, *range(first, first + 4))
            await read(other, 4)  # a quick reader of the same party loses nothing
        broker.tell("app.x", 1, "y", source="y@1")
        got = await read(events, 8 + 1 + 1)
        assert [body for body, *_ in got] == [1, 2, 3, 4, 5, 6, 7, 8, "y", 100]
        assert got[-1] == (100, 100, 91, False)
        broker.tell("app.x", 101, 101)
        assert await read(events, 1) == [(101, 101, 0, False)]

    slow()


def test_a_slow_reader_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscription, "QUEUE_BYTES", 1000)

    @story
    async def slow(broker: Broker) -> None:
        events = broker.open("app.*")
        broker.tell("app.large", 1, bytes(5000))  # one always finds room
        for number in range(1, 200):
            broker.tell(f"app.{number}", 1, bytes(300))
        assert events._bytes <= 5000 + 2000 + 400
        assert len((await anext(events)).body) == 5000
        got = 0
        while events._waiting or events._late or events._events:
            got += 1
            await anext(events)
        assert 0 < got < 20
        assert events._bytes == 0 and events._count == 0

    slow()


@story
async def test_topics_prefixes_and_nodes_reach_their_readers_only(broker: Broker) -> None:
    readers = {
        name: broker.open(topic, node)
        for name, topic, node in (
            ("x", "app.x", 0),
            ("below", "app.*", 0),
            ("all", "*", 0),
            ("far", "app.x", 3),
            ("own number", "app.x", 1),
        )
    }
    broker.tell("app.x", 1, "here")
    broker.tell("app.xy", 1, "xy")
    broker.tell("app.x", 1, "there", source="x@3")
    broker.tell("app.x", 1, "elsewhere", source="x@4")
    broker.tell("app.x", 1, "before the join", source="x@0")
    found = {}
    for name, reader in readers.items():
        await reader.aclose()
        found[name] = [event.body async for event in reader]
    assert found == {
        "x": ["here", "before the join"],
        "below": ["here", "xy", "before the join"],
        "all": ["here", "xy", "before the join"],
        "far": ["there"],
        "own number": ["here", "before the join"],
    }


@story
async def test_the_broker_hears_of_the_first_and_the_last_of_the_same_kind(broker: Broker) -> None:
    one, two = broker.open("app.x"), broker.open("app.x")
    await one.aclose()
    await one.aclose()
    assert broker.heard == [(SUBSCRIBE, Subscribe("app.x"))] * 2
    await two.aclose()
    assert broker.heard[2:] == [(UNSUBSCRIBE, Subscribe("app.x"))]
    broker.open("app.y", 3)
    broker.heard.clear()
    broker.party.renew()
    assert broker.heard == [(SUBSCRIBE, Subscribe("app.y", 3))]


@story
async def test_a_refused_subscription_says_so_and_ends(broker: Broker) -> None:
    events = broker.party.add("app.x", 0)
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    broker.party.confirm(events.wanted, errors.Overloaded("too many"))
    with pytest.raises(errors.Overloaded):
        await waiting
    with pytest.raises(errors.Overloaded):
        await events.ready()


def test_a_broker_that_does_not_confirm_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscription, "READY_LIMIT", 0.01)

    @story
    async def silent(broker: Broker) -> None:
        events = broker.party.add("app.x", 0)
        with pytest.raises(errors.Timeout, match="confirm"):
            async with events:
                pass
        assert broker.heard[-1] == (UNSUBSCRIBE, Subscribe("app.x"))

    silent()


@story
async def test_a_reader_that_waits_ends_with_its_party(broker: Broker) -> None:
    events = broker.open("app.x")
    waiting = asyncio.ensure_future(anext(events, None))
    await asyncio.sleep(0)
    broker.party.close()
    assert await waiting is None


@pytest.mark.parametrize(("body", "count"), [(b"\xc1", 1), (b"\x92\1", 2), (b"\x92\1\2", 3), (b"\1", 2), (b"", 1)])
def test_events_that_do_not_decode_are_dropped_and_stop_nothing(body: bytes, count: int) -> None:
    @story
    async def broken(broker: Broker) -> None:
        events = broker.open("app.x")
        broker.party.take(Header(Kind.EVENT, source="x@1", topic="app.x", count=count, sequence=1), body)
        broker.tell("app.x", 9, "good")
        assert await anext(events) == Event("app.x", "good", "x@1", 9)

    broken()


@story
async def test_each_event_has_its_cause(broker: Broker) -> None:
    events = broker.open("app.x")
    items = [codec.encode_item(body) for body in "ab"]
    header = Header(Kind.EVENT, source="x@1", topic="app.x", count=2, sequence=1, causes=("one", "two"))
    broker.party.take(header, codec.join_items(items))
    broker.party.take(msgspec.structs.replace(header, sequence=3, causes=("same",)), codec.join_items(items))
    broker.party.take(msgspec.structs.replace(header, sequence=7, welcome=True), codec.join_items(items))
    assert [(await anext(events)).cause for _ in range(5)] == ["one", "two", "same", "same", "two"]
