"""The outbox: what one turn says to one destination is one message, in order, and nothing is lost on the way out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import zmq
from covey import errors
from covey.bus import codec
from covey.bus.batch import MAX_TEXT, MAX_WAITING, Outbox
from covey.bus.messages import Header, Kind


class FakePort:
    """Takes messages as a socket does, until it is full."""

    def __init__(self) -> None:
        self.sent: list[tuple[Header, list[Any]]] = []
        self.full = False
        self.looks = 0
        self.draining = False

    def put(self, frames: list[bytes], copy: bool = True) -> None:
        if self.full:
            raise zmq.Again
        header = codec.decode_header(frames[0])
        items = [codec.decode_body(bytes(item)) for item in codec.split_items(frames[1], header.count)]
        self.sent.append((header, items))

    def touched(self) -> None:
        self.looks += 1


def story(test: Callable[[Outbox, FakePort], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        async def inside() -> None:
            port = FakePort()
            outbox = Outbox(port)  # type: ignore[arg-type]
            await test(outbox, port)
            outbox.close()

        asyncio.run(inside())

    return run


def item(value: Any) -> bytes:
    return codec.encode_item(value)


async def turn() -> None:
    await asyncio.sleep(0)


@story
async def test_what_one_turn_says_to_one_destination_is_one_message(outbox: Outbox, port: FakePort) -> None:
    for number in (1, 2, 3):
        outbox.add(Kind.REQUEST, "store", "store.get", item(number), number, budget=10.0)
        outbox.add(Kind.REQUEST, "store@2", "store.get", item(-number), 10 + number, budget=10.0)
    assert not port.sent
    await turn()
    assert [(header.destination, header.ids, items) for header, items in port.sent] == [
        ("store", (1, 2, 3), [1, 2, 3]),
        ("store@2", (11, 12, 13), [-1, -2, -3]),
    ]
    assert all(header.count == 3 and header.budget == 10.0 and not header.causes for header, _ in port.sent)
    assert port.looks == 1  # one look at the socket for all of it


@story
async def test_what_is_said_to_one_destination_is_never_reordered(outbox: Outbox, port: FakePort) -> None:
    for number, (topic, budget, cluster) in enumerate(
        [("s.a", 1.0, ""), ("s.b", 1.0, ""), ("s.a", 1.0, ""), ("s.a", 2.0, ""), ("s.a", 2.0, "c"), ("s.a", 2.0, "c")],
        1,
    ):
        outbox.add(Kind.REQUEST, "s", topic, item(number), number, budget=budget, cluster=cluster)
    outbox.add(Kind.REQUEST, "s", "s.a", item(7), 0, budget=2.0, cluster="c")
    await turn()
    assert [items for _, items in port.sent] == [[1], [2], [3], [4], [5, 6], [7]]
    assert port.sent[-1][0].ids == ()  # nobody waits for an answer to that one


@story
async def test_a_full_batch_leaves_at_once(outbox: Outbox, port: FakePort) -> None:
    for number in range(1, codec.MAX_BATCH + 2):
        outbox.add(Kind.EVENT, "", "app.x", item(number), sequence=number)
    assert [(header.sequence, header.count) for header, _ in port.sent] == [(1, codec.MAX_BATCH)]
    await turn()
    assert [(header.sequence, header.count) for header, _ in port.sent][1:] == [(codec.MAX_BATCH + 1, 1)]
    port.sent.clear()
    half = bytes(codec.BATCH_BYTES // 2 + 1)
    for number in range(1, 4):
        outbox.add(Kind.EVENT, "", "app.y", item(half), sequence=number)
    await turn()
    assert [header.sequence for header, _ in port.sent] == [1, 2, 3]


@story
async def test_causes_and_request_ids_are_one_for_all_or_one_each(outbox: Outbox, port: FakePort) -> None:
    for number in (1, 2):
        outbox.add(Kind.REQUEST, "s", "s.a", item(0), number, cause="story")
    for number in (3, 4):
        outbox.add(Kind.REQUEST, "s", "s.b", item(0), number, cause=f"story-{number}")
    outbox.add(Kind.REQUEST, "s", "s.b", item(0), 5)  # a story of its own
    for number, name in ((6, ""), (7, "seven"), (8, "")):
        outbox.add(Kind.REQUEST, "s", "s.c", item(0), number, request_id=name)
    await turn()
    found = [(header.ids, header.causes, header.request_ids) for header, _ in port.sent]
    assert found == [
        ((1, 2), ("story",), ()),
        ((3, 4), ("story-3", "story-4"), ()),
        ((5,), (), ()),
        ((6, 7, 8), (), ("", "seven", "")),
    ]


@story
async def test_names_that_no_header_carries_are_the_speakers_mistake(outbox: Outbox, port: FakePort) -> None:
    for destination, topic, cause in (("x" * MAX_TEXT, "x.y", ""), ("x", "x.y", "c" * (MAX_TEXT + 1))):
        with pytest.raises(errors.TooLarge):
            outbox.add(Kind.REQUEST, destination, topic, item(0), 1, cause=cause)
    for destination, cause in (("\udcff", ""), ("x", "\udcff")):
        with pytest.raises(errors.UsageError, match="Unicode"):
            outbox.add(Kind.REQUEST, destination, "x.y", item(0), 1, cause=cause)
    outbox.add(Kind.REQUEST, "x", "x.y", item(0), 2)
    await turn()
    assert [header.ids for header, _ in port.sent] == [(2,)]


@story
async def test_long_causes_never_make_a_header_that_no_broker_takes(outbox: Outbox, port: FakePort) -> None:
    for number in range(1, 51):
        outbox.add(Kind.REQUEST, "s", "s.a", item(0), number, cause=f"{number}-" + "c" * 2000)
    await turn()
    assert sum(len(header.ids) for header, _ in port.sent) == 50


@story
async def test_what_finds_no_room_waits_and_goes_first(outbox: Outbox, port: FakePort) -> None:
    port.full = True
    outbox.add(Kind.EVENT, "", "app.x", item(1), sequence=1)
    await turn()
    outbox.add(Kind.EVENT, "", "app.x", item(2), sequence=2)
    await turn()
    assert not port.sent
    port.full = False
    outbox.add(Kind.EVENT, "", "app.x", item(3), sequence=3)
    await turn()
    while len(port.sent) < 3:
        await turn()
    assert [items for _, items in port.sent] == [[1], [2], [3]]


@story
async def test_too_much_that_waits_is_refused_but_answers_are_not(outbox: Outbox, port: FakePort) -> None:
    port.full = True
    blob = item(bytes(codec.BATCH_BYTES))
    with pytest.raises(errors.Overloaded):
        for number in range(MAX_WAITING // codec.BATCH_BYTES + 2):
            outbox.add(Kind.EVENT, "", "app.x", blob, sequence=number + 1)
    outbox.add(Kind.REPLY, "asker@1", "s.get", item("answer"), 5)
    outbox.forget()  # the broker is gone
    port.full = False
    outbox.add(Kind.EVENT, "", "app.x", item("new"), sequence=9)
    await turn()
    assert [items for _, items in port.sent] == [["new"]]


@story
async def test_control_goes_after_what_was_said_before_it(outbox: Outbox, port: FakePort) -> None:
    outbox.add(Kind.EVENT, "", "app.x", item(1), sequence=1)
    outbox.control("subscribe", item({}))
    assert [header.kind for header, _ in port.sent] == [Kind.EVENT, Kind.CONTROL]


@story
async def test_an_answer_to_a_hostile_name_is_dropped_and_hurts_no_other(outbox: Outbox, port: FakePort) -> None:
    outbox.add(Kind.ERROR, "asker@1", "x" * 20_000, item(0), 1)
    outbox.add(Kind.REPLY, "other@1", "s.get", item(1), 2)
    await turn()
    assert [header.destination for header, _ in port.sent] == ["other@1"]


@story
async def test_the_short_way_of_events_keeps_order_topics_causes_and_bounds(outbox: Outbox, port: FakePort) -> None:
    for number in range(1, 251):
        outbox.event("app.x", item(number), number)
    outbox.event("app.y", item("other"), 1)
    outbox.add(Kind.EVENT, "", "app.x", item("caused"), cause="story", sequence=251)
    outbox.event("app.x", item("plain"), 252)
    outbox.event("app.x", item("z" * codec.BATCH_BYTES), 253)
    outbox.event("app.x", item("last"), 254)
    await turn()
    sizes = [(header.topic, header.count, header.sequence, header.causes) for header, _ in port.sent]
    assert sizes == [
        ("app.x", 100, 1, ()),
        ("app.x", 100, 101, ()),
        ("app.x", 50, 201, ()),
        ("app.y", 1, 1, ()),
        ("app.x", 1, 251, ("story",)),
        ("app.x", 1, 252, ()),
        ("app.x", 1, 253, ()),
        ("app.x", 1, 254, ()),
    ]
    assert [one for header, items in port.sent[:3] for one in items] == list(range(1, 251))
