"""Counters by network and service, and the switch that throws traffic away in a lab."""

from __future__ import annotations

import pytest
from covey.bus.messages import Way
from covey.bus.prefixes import Prefixes
from covey.bus.traffic import MOST_SERVICES, Traffic, host_of, service_of

WAYS = {"10.1.0.0/16": Way("A", "10.1.0.1"), "fd00::/16": Way("six"), "10.0.0.0/8": Way("wide")}


def rows(traffic: Traffic) -> list[tuple[object, ...]]:
    return [tuple(each.values()) for each in traffic.state()]


def test_what_passes_is_counted_for_its_network_and_service() -> None:
    traffic = Traffic()
    traffic.sent("10.1.0.2", "registry", 5)
    traffic.renew(WAYS)
    traffic.sent("10.1.0.2", "registry", 100)
    traffic.received("10.1.0.9", "registry", 7)
    traffic.sent("fd00::2", "", 34)
    traffic.received("10.9.0.1", "dcm", 1)
    traffic.sent("nowhere", "dcm", 2)
    assert rows(traffic) == [
        ("", "dcm", 1, 2, 0, 0),
        ("", "registry", 1, 5, 0, 0),
        ("A", "registry", 1, 100, 1, 7),
        ("six", "bus", 1, 34, 0, 0),
        ("wide", "dcm", 0, 0, 1, 1),
    ]
    assert (traffic.source_for("10.1.0.2"), traffic.source_for("192.168.0.1")) == ("10.1.0.1", "")


def test_a_subnetwork_that_moves_takes_no_past_along() -> None:
    traffic = Traffic()
    traffic.renew({"10.1.0.0/16": Way("A")})
    traffic.sent("10.1.0.2", "dcm", 1)
    traffic.renew({"10.1.0.0/16": Way("B")})
    traffic.sent("10.1.0.2", "dcm", 2)
    assert rows(traffic) == [("A", "dcm", 1, 1, 0, 0), ("B", "dcm", 1, 2, 0, 0)]


def test_names_that_others_choose_do_not_fill_the_memory() -> None:
    traffic = Traffic()
    for number in range(MOST_SERVICES + 10):
        traffic.received("10.1.0.2", f"made-up-{number}", 1)
    assert len(traffic.state()) == MOST_SERVICES + 1
    assert [each["messages_in"] for each in traffic.state() if each["service"] == "other"] == [10]


def test_a_cut_is_one_way_unless_it_is_both() -> None:
    traffic = Traffic()
    traffic.cut(["10.1.0.2"], [])
    assert (traffic.lets_out("10.1.0.2"), traffic.lets_in("10.1.0.2"), traffic.lets_out("10.1.0.3")) == (
        False,
        True,
        True,
    )
    traffic.cut([], [])
    assert traffic.lets_out("10.1.0.2")


@pytest.mark.parametrize(
    ("topic", "service"), [("registry.put", "registry"), ("a.b.c", "a"), ("hello", ""), ("", ""), ("*", "")]
)
def test_a_topic_names_its_service(topic: str, service: str) -> None:
    assert service_of(topic) == service


def test_an_address_is_found_by_its_longest_prefix() -> None:
    table = Prefixes({"10.0.0.0/8": 1, "10.1.0.0/16": 2, "10.1.2.3/32": 3, "::/1": 4})
    assert [table.find(each) for each in ("10.1.2.3/8", "10.1.2.4", "10.2.0.0", "11.0.0.1", "::5", "f000::")] == [
        3, 2, 1, None, 4, None
    ]  # fmt: skip
    assert [host_of(each) for each in ("10.0.0.1:7", "[::1]:7")] == ["10.0.0.1", "::1"]
