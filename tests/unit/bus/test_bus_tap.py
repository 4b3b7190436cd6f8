"""The tap's accounting: matched = fetched + dropped + waiting, always."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from covey import errors
from covey.bus import codec, tap
from covey.bus.messages import Header, Kind
from covey.bus.tap import Taps
from hypothesis import given
from hypothesis import strategies as st


def offer(taps: Taps, topic: str, times: int = 1, body: bytes = b"x", kind: Kind = Kind.REQUEST) -> None:
    for number in range(times):
        taps.offer(0.0, 1, "out", Header(kind, (number,), "", "store", topic), "a@1", body)


def offer_batch(taps: Taps, values: list[object], **fields: Any) -> None:
    ids = tuple(range(1, len(values) + 1))
    header = Header(Kind.REQUEST, ids, "", "store", "store.get", len(values), **fields)
    taps.offer(0.0, 1, "out", header, "a@1", codec.join_items([codec.encode_item(value) for value in values]))


def balanced(counters: dict[str, int]) -> bool:
    return counters["matched"] == counters["fetched"] + counters["dropped"] + counters["waiting"]


def test_only_what_matches_is_kept_and_all_is_counted() -> None:
    taps = Taps()
    number = taps.attach('topic =~ "reg*" && size > 0', False, 0.0)
    offer(taps, "registry.get", 3)
    offer(taps, "dcm.local", 2)
    offer(taps, "registry.get", 1, b"")
    records = asyncio.run(taps.get(number).take(2, 0.0, 0.0))
    assert [record.topic for record in records] == ["registry.get"] * 2
    assert records[0].body is None
    assert taps.detach(number) == {"passed": 6, "matched": 3, "fetched": 2, "dropped": 0, "waiting": 1}


def test_a_reader_that_does_not_come_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap, "RING_RECORDS", 10)
    taps = Taps()
    slow, quick = taps.attach("", True, 0.0), taps.attach("", True, 0.0)
    for _ in range(5):
        offer(taps, "x", 7)
        asyncio.run(taps.get(quick).take(1000, 0.0, 0.0))
    assert taps.get(slow).counters() == {"passed": 35, "matched": 35, "fetched": 0, "dropped": 25, "waiting": 10}
    assert taps.get(quick).counters()["dropped"] == 0
    assert all(balanced(taps.get(number).counters()) for number in (slow, quick))


def test_the_ring_is_bounded_in_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap, "RING_BYTES", 100)
    taps = Taps()
    number = taps.attach("", True, 0.0)
    offer(taps, "x", 3, b"y" * 40)
    assert taps.get(number).counters()["dropped"] == 1


def test_a_tap_does_not_show_its_own_fetching() -> None:
    taps = Taps()
    number = taps.attach("", False, 0.0)
    offer(taps, "bus.tap_next")
    offer(taps, "bus.tap_next", kind=Kind.REPLY)
    assert taps.get(number).counters()["passed"] == 0


def test_a_reader_that_is_gone_loses_its_tap() -> None:
    taps = Taps()
    number = taps.attach("", False, 0.0)
    taps.sweep(tap.LEASE + 0.1)
    assert not taps
    with pytest.raises(errors.NotFound, match=f"no tap {number}"):
        taps.get(number)


@pytest.mark.parametrize(
    "filter", ['topc == "x"', 'topic < "x"', "size =~ 3", 'size > "big"', 'kind == "requst"', "size >"]
)
def test_a_filter_that_can_never_make_sense_is_refused(filter: str) -> None:
    with pytest.raises(errors.BadExpression):
        Taps().attach(filter, False, 0.0)


def test_there_are_not_endlessly_many_taps() -> None:
    taps = Taps()
    for _ in range(tap.MAX_TAPS):
        taps.attach("", False, 0.0)
    with pytest.raises(errors.Overloaded):
        taps.attach("", False, 0.0)


def test_one_fetch_is_bounded_in_bytes_but_never_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap, "MOST_BYTES", 100)
    taps = Taps()
    number = taps.attach("", True, 0.0)
    offer(taps, "x", 3, b"y" * 60)
    found = taps.get(number)
    assert [len(found.take_now(1000)) for _ in range(4)] == [1, 1, 1, 0]
    assert balanced(found.counters())


def test_a_batch_is_shown_item_by_item() -> None:
    taps = Taps()
    number = taps.attach("", True, 0.0)
    offer_batch(taps, ["one", {"two": 2}, 3])
    records = taps.get(number).take_now(10)
    assert [(record.id, codec.decode_body(record.body), record.cause) for record in records] == [
        (1, "one", "a@1#1"),
        (2, {"two": 2}, "a@1#2"),
        (3, 3, "a@1#3"),
    ]
    assert [record.size for record in records] == [len(record.body) for record in records]
    assert taps.get(number).passed == 3


def test_items_are_matched_one_by_one() -> None:
    taps = Taps()
    number = taps.attach('id > 1 && cause == "s"', False, 0.0)
    offer_batch(taps, ["x"] * 4, causes=("s", "s", "t", "s"))
    counters = taps.detach(number)
    assert (counters["passed"], counters["matched"], counters["waiting"]) == (4, 2, 2)


def test_a_compressed_batch_is_opened() -> None:
    taps = Taps()
    number = taps.attach("", True, 0.0)
    body, compressed = codec.compress(codec.join_items([codec.encode_item("x" * 5000), codec.encode_item("y")]))
    header = Header(Kind.REPLY, (4, 5), "", "a@1", "store.get", 2, compressed=compressed)
    taps.offer(0.0, 1, "in", header, "store@2", body)
    first, second = taps.get(number).take_now(10)
    assert [codec.decode_body(each.body, each.compressed) for each in (first, second)] == ["x" * 5000, "y"]
    assert second.cause == "a@1#5"


def test_nothing_is_opened_that_cannot_match(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr(codec, "split_items", never)
    taps = Taps()
    conditions = [
        ("kind", "reply"),
        ("topic", "other"),
        ("source", "b@1"),
        ("destination", "shop"),
        ("direction", "in"),
    ]
    numbers = [taps.attach(f'{field} == "{value}" && size > 0', True, 0.0) for field, value in conditions]
    for _ in range(3):
        offer_batch(taps, [1, 2, 3])
    for number in numbers:
        assert taps.detach(number) == {"passed": 9, "matched": 0, "fetched": 0, "dropped": 0, "waiting": 0}


@pytest.mark.parametrize("count", [0, -1, 3, 10**9])
def test_a_batch_that_lies_is_shown_as_a_whole(count: int) -> None:
    taps = Taps()
    number = taps.attach("", True, 0.0)
    taps.offer(0.0, 1, "out", Header(Kind.EVENT, topic="x", count=count), "a@1", b"\x92\1\2")
    (record,) = taps.get(number).take_now(10)
    assert record.body == b"\x92\1\2"
    assert taps.get(number).matched == 1


def test_what_is_remembered_of_headers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap, "MAX_VERDICTS", 5)
    taps = Taps()
    number = taps.attach('topic == "t3"', False, 0.0)
    for name in range(20):
        offer(taps, f"t{name}")
    assert len(taps.get(number)._verdicts) <= 5
    assert taps.get(number).matched == 1


@given(
    st.lists(
        st.tuples(st.sampled_from(["a.x", "b.x"]), st.lists(st.binary(max_size=30), min_size=1, max_size=5))
        | st.integers(0, 5),
        max_size=40,
    ),
    st.sampled_from(['topic =~ "a.*"', "size > 10", "id != 2 || size > 20", '!(kind == "event")']),
)
def test_the_accounts_always_balance(steps: list[Any], filter: str) -> None:
    taps = Taps()
    number = taps.attach(filter, True, 0.0)
    found = taps.get(number)
    passed = 0
    for step in steps:
        if isinstance(step, int):
            found.take_now(step)
        else:
            topic, items = step
            passed += len(items)
            header = Header(Kind.REQUEST, tuple(range(len(items))), "", "s", topic, len(items))
            taps.offer(0.0, 1, "out", header, "a@1", codec.join_items([codec.encode_item(item) for item in items]))
        assert balanced(found.counters())
        assert found.counters()["passed"] == passed
