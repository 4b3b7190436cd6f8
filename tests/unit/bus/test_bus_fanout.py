"""Who gets which event, what newcomers are told, and what a slow reader misses."""

from __future__ import annotations

import msgspec
import pytest
from bus_router import controls, event, head, heads, lab_router, problems, subscribing
from covey import errors
from covey.bus import codec, fanout
from covey.bus.ends import Out
from covey.bus.messages import READ, SUBSCRIBED, UNSUBSCRIBE, Header, Hello, Kind, NodeInfo, Role, Subscribe
from covey.bus.routing import Router
from covey.bus.window import MESSAGES
from msgspec import msgpack


@pytest.fixture
def router() -> Router:
    router = lab_router()
    for key in "xyz":
        router.hello(key, Hello(), Role.ADMIN, 0, 200 + ord(key))
    return router


def subscribe(router: Router, key: str, topic: str, node: int = 0) -> list[Out]:
    return router.from_party(key, *subscribing(topic, node), 0.0)


def publish(router: Router, topic: str, sequence: int = 1, count: int = 1, body: bytes = b"\xc0") -> list[Out]:
    return router.from_party("a", event(topic, sequence, count), body, 0.0)


def fill(router: Router, key: str, messages: int = MESSAGES) -> None:
    window = router.parties[key].window
    assert window
    for _ in range(messages):
        window.sent(1)


def read_all(router: Router, key: str) -> list[Out]:
    window = router.parties[key].window
    assert window
    ids = (window._sent_messages, window._sent_bytes)
    return router.from_party(key, Header(Kind.CONTROL, ids, topic=READ), b"", 0.0)


def test_exact_and_by_prefix_and_each_once(router: Router) -> None:
    for key, topic in (("x", "app.a"), ("x", "app.*"), ("y", "app.a.b"), ("z", "*"), ("y", "ap.*")):
        assert controls(subscribe(router, key, topic)) == [(key, "subscribed")]
    readers = {
        topic: sorted(key for key, _, _ in heads(publish(router, topic)))
        for topic in ("app.a", "app.a.b", "app.a.c", "app", "appx", "ap.y")
    }
    assert readers == {
        "app.a": ["x", "z"],
        "app.a.b": ["x", "y", "z"],
        "app.a.c": ["x", "z"],
        "app": ["z"],
        "appx": ["z"],
        "ap.y": ["y", "z"],
    }
    router.check_invariants()


def test_the_source_is_stamped_and_the_number_kept(router: Router) -> None:
    subscribe(router, "x", "app.a")
    (out,) = publish(router, "app.a", 41, 3, b"\x93\1\2\3")
    header = head(out)
    assert (header.source, header.sequence, header.count, header.welcome) == ("client-1@1", 41, 3, False)


def test_an_event_is_encoded_once_for_all(router: Router) -> None:
    for key in "xyz":
        subscribe(router, key, "app.a")
    outs = publish(router, "app.a")
    assert len(outs) == 3
    assert len({id(out.frame) for out in outs}) == 1
    assert router.counters["events_delivered"] == 3


def test_a_newcomer_is_told_the_last_event_of_each_source_and_topic(router: Router) -> None:
    for number in range(1, 4):
        publish(router, "app.a", number)
    router.from_party("x", event("app.a", 9), b"\1", 0.0)
    router.from_party("x", event("app.b", 1), b"\2", 0.0)
    publish(router, "other", 1)
    confirmed, *told = subscribe(router, "y", "app.*")
    assert head(confirmed).topic == SUBSCRIBED
    found = {(head(out).source, head(out).topic): head(out) for out in told}
    assert {key: header.sequence for key, header in found.items()} == {
        ("client-1@1", "app.a"): 3,
        ("client-2@1", "app.a"): 9,
        ("client-2@1", "app.b"): 1,
    }
    assert all(header.welcome for header in found.values())


def test_a_doubled_subscription_is_answered_again_and_ends_at_once(router: Router) -> None:
    publish(router, "app.a")
    assert [len(subscribe(router, "x", "app.a")) for _ in range(2)] == [2, 2]
    assert len(publish(router, "app.a", 2)) == 1
    router.from_party("x", *subscribing("app.a", verb=UNSUBSCRIBE), 0.0)
    assert publish(router, "app.a", 3) == []
    router.check_invariants()


@pytest.mark.parametrize("topic", ["", "a*", "*.a", "a.*.b", "x" * 256, "**"])
def test_a_topic_that_is_none_is_refused_by_name(router: Router, topic: str) -> None:
    (out,) = router.from_party(
        "x", Header(Kind.CONTROL, (5,), topic="subscribe"), msgpack.encode(Subscribe(topic)), 0.0
    )
    (problem,) = problems(out)
    assert (head(out).topic, head(out).ids, problem.details) == ("subscribe", (5,), {"topic": topic, "node": 0})
    assert router.counters["subscribe_refused"] == 1


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x91\1", msgpack.encode({"topic": 3})])
def test_a_subscription_that_does_not_decode_is_counted(router: Router, body: bytes) -> None:
    assert router.from_party("x", Header(Kind.CONTROL, topic="subscribe"), body, 0.0) == []
    assert router.counters["malformed"] == 1


def test_subscriptions_are_bounded(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(fanout.MAX_SUBSCRIPTIONS):
        subscribe(router, "x", f"app.t{number}")
    (out,) = subscribe(router, "x", "one.more")
    assert isinstance(problems(out)[0], errors.Overloaded)
    assert controls(subscribe(router, "x", "app.t0")) == [("x", "subscribed")]
    router.party_gone("x", "test")
    router.check_invariants()


def test_a_slow_reader_loses_only_its_own_events_and_is_told_where_things_stand(router: Router) -> None:
    for key in "xy":
        subscribe(router, key, "app.*")
    fill(router, "x")
    outs = [out for number in range(1, 6) for topic in ("app.a", "app.b") for out in publish(router, topic, number)]
    assert {key for key, _, _ in heads(outs)} == {"y"} and len(outs) == 10
    assert (router.parties["x"].dropped, router.counters["events_dropped"]) == (10, 10)
    told = read_all(router, "x")
    assert sorted(heads(told)) == [("x", "app.a", 5), ("x", "app.b", 5)]
    assert all(head(out).welcome for out in told)
    assert read_all(router, "x") == []
    assert heads(publish(router, "app.a", 6)) == [("x", "app.a", 6), ("y", "app.a", 6)]


def test_what_was_missed_is_not_told_again_when_something_newer_came(router: Router) -> None:
    subscribe(router, "x", "app.a")
    fill(router, "x")
    publish(router, "app.a", 1)
    window = router.parties["x"].window
    assert window
    window.read(window._sent_messages, window._sent_bytes)  # as if its READ had been taken just before
    assert heads(publish(router, "app.a", 2)) == [("x", "app.a", 2)]
    assert router.parties["x"].missed == {}


def test_a_welcome_without_room_comes_later(router: Router) -> None:
    publish(router, "app.a", 3)
    fill(router, "x")
    assert controls(subscribe(router, "x", "app.a")) == [("x", "subscribed")]
    assert heads(read_all(router, "x")) == [("x", "app.a", 3)]


def test_what_was_missed_is_forgotten_with_the_subscription(router: Router) -> None:
    for topic in ("app.a", "app.*", "other"):
        subscribe(router, "x", topic)
    fill(router, "x")
    publish(router, "app.a")
    publish(router, "other")
    router.from_party("x", *subscribing("app.*", verb=UNSUBSCRIBE), 0.0)
    assert {key[2] for key in router.parties["x"].missed} == {"app.a", "other"}
    router.from_party("x", *subscribing("app.a", verb=UNSUBSCRIBE), 0.0)
    assert {key[2] for key in router.parties["x"].missed} == {"other"}


def test_last_events_are_bounded_in_number_and_bytes(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "MAX_LAST", 4)
    for number in range(6):
        publish(router, f"app.t{number}")
    publish(router, "app.t2", 2)
    publish(router, "app.t6")
    assert [topic for _, _, topic in router.fanout.last] == ["app.t4", "app.t5", "app.t2", "app.t6"]
    router.check_invariants()
    monkeypatch.setattr(fanout, "MAX_LAST_BYTES", 1000)
    publish(router, "app.large", body=bytes(940))
    assert [topic for _, _, topic in router.fanout.last] == ["app.large"]
    publish(router, "app.huge", body=bytes(1000))
    assert not router.fanout.last and router.fanout.last_bytes == 0
    router.check_invariants()


def test_what_is_missed_is_bounded_but_counted(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "MAX_MISSED", 3)
    subscribe(router, "x", "*")
    fill(router, "x")
    for number in range(10):
        publish(router, f"app.t{number}")
    assert (len(router.parties["x"].missed), router.parties["x"].dropped) == (3, 10)


def test_the_readers_of_made_up_topics_are_not_remembered_without_end(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "MAX_CACHED", 10)
    subscribe(router, "x", "app.*")
    for number in range(25):
        assert len(publish(router, f"app.t{number}")) == 1
    assert len(router.fanout._cache) <= 10


# --- events of other nodes ---------------------------------------------------------------------------------------


def from_node(router: Router, sequence: int, topic: str = "app.a", *, welcome: bool = False) -> list[Out]:
    header = event(topic, sequence, source="dcm@2", welcome=welcome)
    return router.from_link(2, header, b"\1")


def links(outs: list[Out]) -> list[tuple[object, str, object]]:
    return [
        (out.connection.key, head(out).topic, msgpack.decode(out.body)["topic"])
        for out in outs
        if out.connection.port == "link"
    ]


def confirm(router: Router, topic: str = "app.a") -> list[Out]:
    return router.from_link(2, Header(Kind.CONTROL, topic=SUBSCRIBED), msgpack.encode(Subscribe(topic)))


def test_a_node_is_asked_once_for_all_who_want_its_events(router: Router) -> None:
    router.link_up(2)
    assert links(subscribe(router, "x", "app.a", 2)) == [(2, "subscribe", "app.a")]
    assert subscribe(router, "y", "app.a", 2) == []
    (first, second) = confirm(router)
    assert [msgpack.decode(out.body) for out in (first, second)] == [{"topic": "app.a", "node": 2}] * 2
    assert sorted(key for key, _, _ in heads(from_node(router, 1))) == ["x", "y"]
    assert heads(publish(router, "app.a")) == []
    outs = subscribe(router, "z", "app.a", 2)
    assert controls(outs) == [("z", "subscribed")] and heads(outs) == [("z", "app.a", 1)]
    for key in "xy":
        assert router.from_party(key, *subscribing("app.a", 2, UNSUBSCRIBE), 0.0) == []
    assert links(router.party_gone("z", "test")) == [(2, "unsubscribe", "app.a")]
    assert not [key for key in router.fanout.last if key[0] == 2]
    router.check_invariants()


def test_a_node_is_asked_again_after_its_connection_broke(router: Router) -> None:
    assert links(subscribe(router, "x", "app.a", 2)) == links(router.sweep(0.0)) == []  # nobody is there to hear it
    assert router.links_wanted() == {2}
    assert links(router.link_up(2)) == [(2, "subscribe", "app.a")]
    assert links(router.sweep(1.0)) == [(2, "subscribe", "app.a")]  # nothing was heard yet
    confirm(router)
    assert links(router.sweep(2.0)) == []
    router.link_down(2, "gone")
    assert links(router.sweep(3.0)) == []
    assert links(router.link_up(2)) == [(2, "subscribe", "app.a")]
    assert controls(confirm(router)) == [("x", "subscribed")]
    (again,) = from_node(router, 9, welcome=True)
    assert head(again).welcome


def test_only_what_was_not_confirmed_is_asked_for_again(router: Router) -> None:
    router.link_up(2)
    for topic in ("app.a", "app.b"):
        subscribe(router, "x", topic, 2)
    confirm(router, "app.a")
    assert links(router.sweep(1.0)) == [(2, "subscribe", "app.b")]
    assert (2, "app.a") in router.fanout.confirmed
    router.link_down(2, "gone")
    assert links(router.sweep(2.0)) == []


def test_an_event_is_compressed_once_for_all_nodes(router: Router) -> None:
    for key, number in (("p", 2), ("q", 3)):
        router.caller_came(key, NodeInfo(number))
        router.from_caller(key, *subscribing("app.a"), 0.0)
    one, other = publish(router, "app.a", body=b"x" * 9000)
    assert one.frame is other.frame and one.body is other.body


def test_nobody_speaks_for_another_node(router: Router) -> None:
    subscribe(router, "x", "app.a", 2)
    header = event("app.a", source="dcm@3")
    assert router.from_link(2, header, b"\1") == []
    assert router.counters["forged_source"] == 1
    assert router.from_link(2, msgspec.structs.replace(header, source="dcm@2", topic="x" * 300), b"\1") == []
    assert router.counters["malformed"] == 1


def test_an_unknown_node_cannot_be_subscribed_to(router: Router) -> None:
    (out,) = subscribe(router, "x", "app.a", 9)
    assert isinstance(problems(out)[0], errors.Unreachable)


def test_ones_own_number_is_no_other_node(router: Router) -> None:
    assert controls(subscribe(router, "x", "app.a", 1)) == [("x", "subscribed")]
    assert len(publish(router, "app.a")) == 1


def test_a_peer_is_sent_what_it_asked_for_compressed(router: Router) -> None:
    router.caller_came("p", NodeInfo(2))
    outs = router.from_caller("p", *subscribing("app.*", 3), 0.0)
    assert [(out.connection, head(out).topic) for out in outs] == [(("peer", "p"), SUBSCRIBED)]
    subscribe(router, "x", "app.a")
    near, far = sorted(publish(router, "app.a", body=b"x" * 9000), key=lambda out: out.connection.port)
    assert (head(near).compressed, head(far).compressed) == (False, True)
    assert codec.unpack_body(far.body, True) == near.body
    router.caller_gone("p")
    assert len(publish(router, "app.a")) == 1
    router.check_invariants()


def test_what_a_peer_could_not_take_is_told_again_with_the_sweep(router: Router) -> None:
    router.caller_came("p", NodeInfo(2))
    router.from_caller("p", *subscribing("app.*"), 0.0)
    (out,) = publish(router, "app.a", 5)
    assert router.undeliverable(out, errors.Overloaded("full")) == []
    assert (router.counters["events_dropped"], router.counters["events_delivered"]) == (1, 0)
    told = [head(out) for out in router.sweep(1.0) if out.connection.port == "peer"]
    assert [(header.topic, header.sequence, header.welcome) for header in told] == [("app.a", 5, True)]
