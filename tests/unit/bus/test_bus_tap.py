"""The tap's accounting: matched = fetched + dropped + waiting, always."""

from __future__ import annotations

import asyncio

import pytest
from covey import errors
from covey.bus import tap
from covey.bus.messages import Header, Kind
from covey.bus.tap import Condition, Taps


def offer(taps: Taps, topic: str, times: int = 1, body: bytes = b"x", kind: Kind = Kind.REQUEST) -> None:
    for number in range(times):
        taps.offer(0.0, 1, "out", Header(kind, number, "a@1", "store", topic), body)


def balanced(counters: dict[str, int]) -> bool:
    return counters["matched"] == counters["fetched"] + counters["dropped"] + counters["waiting"]


def test_only_what_matches_is_kept_and_all_is_counted() -> None:
    taps = Taps()
    number = taps.attach([Condition("topic", "=~", "reg*"), Condition("size", ">", 0)], False, 0.0)
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
    slow, quick = taps.attach([], True, 0.0), taps.attach([], True, 0.0)
    for _ in range(5):
        offer(taps, "x", 7)
        asyncio.run(taps.get(quick).take(1000, 0.0, 0.0))
    assert taps.get(slow).counters() == {"passed": 35, "matched": 35, "fetched": 0, "dropped": 25, "waiting": 10}
    assert taps.get(quick).counters()["dropped"] == 0
    assert all(balanced(taps.get(number).counters()) for number in (slow, quick))


def test_the_ring_is_bounded_in_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap, "RING_BYTES", 100)
    taps = Taps()
    number = taps.attach([], True, 0.0)
    offer(taps, "x", 3, b"y" * 40)
    assert taps.get(number).counters()["dropped"] == 1


def test_a_tap_does_not_show_its_own_fetching() -> None:
    taps = Taps()
    number = taps.attach([], False, 0.0)
    offer(taps, "bus.tap_next")
    offer(taps, "bus.tap_next", kind=Kind.REPLY)
    assert taps.get(number).counters()["passed"] == 0


def test_a_reader_that_is_gone_loses_its_tap() -> None:
    taps = Taps()
    number = taps.attach([], False, 0.0)
    taps.sweep(tap.LEASE + 0.1)
    assert not taps
    with pytest.raises(errors.NotFound, match="no tap 1"):
        taps.get(number)


@pytest.mark.parametrize(
    "condition",
    [
        Condition("topc", "==", "x"),
        Condition("topic", "<", "x"),
        Condition("size", "=~", 3),
        Condition("size", ">", "big"),
        Condition("topic", "==", "x" * 1000),
    ],
)
def test_a_filter_that_can_never_make_sense_is_refused(condition: Condition) -> None:
    with pytest.raises(errors.UsageError):
        Taps().attach([condition], False, 0.0)


def test_there_are_not_endlessly_many_taps() -> None:
    taps = Taps()
    for _ in range(tap.MAX_TAPS):
        taps.attach([], False, 0.0)
    with pytest.raises(errors.Overloaded):
        taps.attach([], False, 0.0)


def test_one_fetch_is_bounded_in_bytes_but_never_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap, "MOST_BYTES", 100)
    taps = Taps()
    number = taps.attach([], True, 0.0)
    offer(taps, "x", 3, b"y" * 60)
    found = taps.get(number)
    assert [len(found.take_now(1000)) for _ in range(4)] == [1, 1, 1, 0]
    assert balanced(found.counters())
