"""Whom a broker trusts, and that its tables stay small whoever knocks."""

from __future__ import annotations

from collections import Counter

import pytest
from covey.bus.trust import (
    KINDS,
    REMEMBERED,
    SOURCES,
    TOLD_BURST,
    TOLD_EVERY,
    RateLimit,
    Refusal,
    Refusals,
    Trust,
    source_of,
)

A, B, C = "a" * 64, "b" * 64, "c" * 64


def test_only_keys_of_defined_nodes_may_speak_and_only_for_their_node() -> None:
    trust = Trust()
    assert trust.why_not(A) == "unknown_key"
    assert trust.renew({1: A, 2: B, 3: ""}) == frozenset()
    assert trust.may(A)
    assert not trust.may("")
    assert not trust.may(C)
    assert [trust.node_of(key) for key in (A, B, C)] == [1, 2, 0]
    assert trust.why_not(A, 1) == ""
    assert trust.why_not(A, 2) == "wrong_node"
    assert trust.why_not(C, 3) == "unknown_key"


def test_a_change_says_what_it_revoked() -> None:
    trust = Trust()
    trust.renew({1: A, 2: B})
    assert trust.renew({1: A}) == {(B, 2)}
    assert trust.why_not(B, 2) == "revoked"
    assert trust.renew({1: A, 3: B}) == frozenset()
    assert trust.why_not(B, 2) == "wrong_node"
    assert trust.renew({1: C, 3: B}) == {(A, 1)}
    assert trust.renew({2: C, 3: B}) == {(C, 1)}
    assert trust.why_not(C, 2) == ""
    assert trust.renew({}) == {(C, 2), (B, 3)}


def test_revoked_keys_are_not_remembered_without_end() -> None:
    trust = Trust()
    for number in range(REMEMBERED + 2):
        trust.renew({1: f"{number:064x}"})
    assert trust.why_not(f"{0:064x}") == "unknown_key"
    assert trust.why_not(f"{1:064x}") == "revoked"
    assert trust.may(f"{REMEMBERED + 1:064x}")


def test_a_key_that_two_nodes_list_speaks_for_both() -> None:
    trust = Trust()
    trust.renew({4: A, 2: A})
    assert trust.node_of(A) == 2
    assert trust.why_not(A, 4) == trust.why_not(A, 2) == ""
    assert trust.renew({2: A}) == {(A, 4)}
    assert trust.why_not(A, 4) == "wrong_node"


def test_the_rate_of_one_source_is_no_concern_of_another() -> None:
    limit = RateLimit(rate=5.0, burst=10.0)
    assert [limit.allow(0.0, "x") for _ in range(12)] == [True] * 10 + [False] * 2
    assert limit.allow(0.0, "y")
    assert not limit.allow(0.1, "x")
    assert limit.allow(0.21, "x")
    assert sum(limit.allow(100.0 + step / 100, "x") for step in range(1000)) in range(58, 61)  # 10 + 5/s for 10 s


def test_refused_knocks_do_not_prolong_the_pause() -> None:
    limit = RateLimit(rate=5.0, burst=1.0)
    allowed = sum(limit.allow(step / 1000, "x") for step in range(10_000))
    assert allowed in (49, 50, 51)


def test_a_clock_that_stands_or_goes_back_gives_nothing_away() -> None:
    limit = RateLimit(rate=5.0, burst=2.0)
    assert [limit.allow(now, "x") for now in (10.0, 5.0, 5.0, 5.1)] == [True, True, False, False]


def test_the_table_of_sources_is_bounded_and_forgets_the_quiet_ones() -> None:
    limit = RateLimit(rate=5.0, burst=1.0, most=100)
    assert limit.allow(0.0, "busy")
    for number in range(1000):
        limit.allow(0.0, f"s{number}")
        assert not limit.allow(0.0, "busy")
        assert limit.sources <= 100
    assert SOURCES >= 1024


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8::1:2:3:4", "2001:db8::/64"),
        ("2001:db8::ffff", "2001:db8::/64"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("nonsense", "nonsense"),
        ("x" * 1000, "x" * 64),
    ],
)
def test_one_machine_is_one_source(address: str, source: str) -> None:
    assert source_of(address) == source


def test_every_refusal_is_counted_and_each_kind_told_now_and_then() -> None:
    counters: Counter[str] = Counter()
    refusals = Refusals(counters)
    assert refusals.note(0.0, "unknown_key", "10.0.0.1", A) == [Refusal("unknown_key", "10.0.0.1", A)]
    for step in range(99):
        assert refusals.note(step / 10, "unknown_key", "10.0.0.1", A) == []
    assert counters == {"refused_unknown_key": 100}
    assert refusals.note(1.0, "revoked", "10.0.0.1", A) == [Refusal("revoked", "10.0.0.1", A)]
    assert refusals.due(TOLD_EVERY - 0.1) == []
    assert refusals.due(TOLD_EVERY) == [Refusal("unknown_key", "10.0.0.1", A, 99)]
    assert refusals.due(5 * TOLD_EVERY) == []
    assert refusals.note(5 * TOLD_EVERY, "unknown_key", "10.0.0.1", A) == [Refusal("unknown_key", "10.0.0.1", A)]


def test_what_is_told_adds_up_to_what_was_counted_and_is_not_much() -> None:
    counters: Counter[str] = Counter()
    refusals = Refusals(counters)
    told: list[Refusal] = []
    for step in range(2000):  # 200 s of ten strangers a second, each from elsewhere with another key
        told += refusals.note(step / 10, "unknown_key", f"10.0.{step % 200}.{step % 7}", f"{step:064x}")
        told += refusals.due(step / 10)
        assert len(refusals._kinds) <= KINDS + 1
    assert len(told) <= TOLD_BURST + 200 * 0.2 + 1
    now = 200.0
    while len(told) < 5000 and any(held for _, held in refusals._kinds.values()):
        now += 1.0
        told += refusals.due(now)
    assert sum(one.count for one in told) == counters["refused_unknown_key"] == 2000


def test_a_flood_of_one_kind_does_not_hide_another() -> None:
    refusals = Refusals(Counter())
    for step in range(1000):
        refusals.note(0.0, "unknown_key", f"10.0.0.{step % 250}", f"{step:064x}")
    assert refusals.note(0.0, "wrong_node", "10.0.0.9", A)[0].reason == "wrong_node"
