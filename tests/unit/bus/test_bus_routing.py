"""The router: who is on the bus, what may be said, and who hears of it."""

from __future__ import annotations

import msgspec
import pytest
from bus_router import HOME, controls, event, head, lab_router, problems, reply, request, subscribing
from covey import errors
from covey.bus import exchange, names
from covey.bus.messages import GOODBYE, READ, Header, Hello, Kind, NodeInfo, Role
from covey.bus.routing import FLOW, Router, sound
from covey.bus.window import BYTES, MESSAGES


@pytest.fixture
def router() -> Router:
    return lab_router()


def test_a_request_reaches_the_service_with_a_source_that_cannot_be_forged(router: Router) -> None:
    (out,) = router.from_party("a", request(role=Role.COMPONENT, uid=0), b"body", 0.0)
    header = head(out)
    assert (out.connection.key, header.source) == ("s", "client-1@1")
    assert (header.role, header.uid, out.body) == (Role.ADMIN, 1000, b"body")


def test_the_asker_that_died_is_forgotten_with_its_requests(router: Router) -> None:
    router.from_party("a", request(), b"", 0.0)
    router.from_party("a", Header(Kind.CONTROL, topic=GOODBYE), b"", 0.0)
    assert not any(router.exchange.pending.values())
    assert router.from_party("s", reply("client-1@1", 7), b"", 0.0) == []
    router.check_invariants()


@pytest.mark.parametrize("destination", ["store@7", "store@", "store@x", "store@1.2.3.4:", "x" * 300])
def test_a_node_that_is_none_is_refused(router: Router, destination: str) -> None:
    (out,) = router.from_party("a", request(destination), b"", 0.0)
    assert isinstance(problems(out)[0], errors.Unreachable | errors.UsageError)
    assert (out.connection.key, head(out).ids) == ("a", (7,))


def test_a_peers_message_is_never_passed_on(router: Router) -> None:
    router.caller_came("p", NodeInfo(2))
    asked = msgspec.structs.replace(request("store@3"), source="x@2")
    (out,) = router.from_caller("p", asked, b"", 0.0)
    assert isinstance(problems(out)[0], errors.Unreachable)


def test_the_broker_we_dialled_cannot_ask_over_our_link(router: Router) -> None:
    assert router.from_link(2, request(), b"") == []
    assert router.counters["unexpected"] == 1


def test_a_peer_cannot_speak_for_another_node(router: Router) -> None:
    router.caller_came("p", NodeInfo(2))
    asked = msgspec.structs.replace(request(), source="dcm@3")
    assert router.from_caller("p", asked, b"", 0.0) == []
    assert router.counters["forged_source"] == 1


def test_strangers_are_asked_who_they_are(router: Router) -> None:
    outs = router.from_party("?", request(), b"", 0.0) + router.from_caller("?", request(), b"", 0.0)
    assert controls(outs) == [("?", "hello?")] * 2
    assert router.counters["strangers"] == 2


@pytest.mark.parametrize(
    ("name", "role", "expected"),
    [
        ("store", Role.COMPONENT, errors.NameTaken),
        ("dcm", Role.ADMIN, errors.Denied),
        ("controller.gpu", Role.ADMIN, errors.Denied),
        ("greeter", Role.LOOK, errors.Denied),
        ("Bad Name", Role.ADMIN, errors.UsageError),
    ],
)
def test_names_that_cannot_be_had(router: Router, name: str, role: Role, expected: type[errors.CoveyError]) -> None:
    (out,) = router.hello("n", Hello(services=(name,)), role, 1000, 200)
    assert isinstance(problems(out)[0], expected)
    assert "n" not in router.parties


def test_there_are_not_endlessly_many_parties_or_services(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    many = tuple(f"s{number}" for number in range(names.MAX_SERVICES + 1))
    (out,) = router.hello("n", Hello(services=many), Role.ADMIN, 0, 200)
    assert isinstance(problems(out)[0], errors.UsageError)
    monkeypatch.setattr(names, "MAX_PARTIES", 2)
    (out,) = router.hello("n", Hello(), Role.ADMIN, 0, 200)
    assert isinstance(problems(out)[0], errors.Overloaded)
    assert controls(router.hello("a", Hello(), Role.ADMIN, 0, 100)) == [("a", "welcome")]


def test_a_process_that_connects_anew_replaces_its_old_connection(router: Router) -> None:
    router.from_party("a", request(), b"", 0.0)
    outs = router.hello("s2", Hello("store", True, ("another", "store")), Role.COMPONENT, 0, 101)
    assert controls(outs)[0] == ("s2", "welcome")
    (failed,) = [out for out in outs if out.kind is Kind.ERROR]
    assert (failed.connection.key, type(problems(failed)[0])) == ("a", errors.ServiceDied)
    assert router.exchange.services["store"].connection.key == "s2"
    router.check_invariants()


def test_saying_hello_again_changes_what_is_served(router: Router) -> None:
    router.hello("a", Hello(services=("one",)), Role.ADMIN, 0, 100)
    router.hello("a", Hello(services=("two",)), Role.ADMIN, 0, 100)
    assert set(router.exchange.services) == {"store", "two"}
    assert head(router.from_party("s", request("two", 1), b"", 0.0)[0]).kind is Kind.REQUEST
    assert head(router.from_party("s", request("one", 2), b"", 0.0)[0]).kind is Kind.ERROR


def test_a_remembered_way_ends_with_the_service(router: Router) -> None:
    router.from_party("a", request("store", 1), b"", 0.0)
    router.party_gone("s", "test")
    (out,) = router.from_party("a", request("store", 2), b"", 0.0)
    assert isinstance(problems(out)[0], errors.NoService)


def test_every_party_hears_that_its_node_changed_and_old_answers_still_come(router: Router) -> None:
    router.from_party("a", request("store", 1, 2), b"", 0.0)
    outs = router.configure(msgspec.structs.replace(HOME, number=5), {})
    assert {key for key, _ in controls(outs)} == {"a", "s"}
    router.check_invariants()
    (answer,) = router.from_party("s", reply("client-1@1", 1, 2), b"\x92\1\2", 0.0)
    assert answer.connection.key == "a"
    assert router.configure(router.node, {}) == []
    assert head(router.from_party("a", request("store@5", 3), b"", 0.0)[0]).source == "client-1@5"


def test_what_cannot_be_sent_is_told_to_who_asked(router: Router) -> None:
    (out,) = router.from_party("a", request("store", 1, 2), b"", 0.0)
    (told,) = router.undeliverable(out, errors.Overloaded("full"))
    assert told.connection.key == "a" and [type(each) for each in problems(told)] == [errors.Overloaded] * 2
    assert router.undeliverable(told, errors.Overloaded("full")) == []
    router.check_invariants()


def test_an_answer_that_cannot_be_sent_is_replaced_by_an_error(router: Router) -> None:
    router.caller_came("p", NodeInfo(2))
    router.from_caller("p", msgspec.structs.replace(request(), source="x@2"), b"", 0.0)
    (answer,) = router.from_party("s", reply("x@2", 7), b"", 0.0)
    (told,) = router.undeliverable(answer, errors.Overloaded("full"))
    assert (told.connection.key, head(told).ids) == ("p", (7,))
    assert router.counters["replies_refused"] == 1


def test_a_note_that_cannot_be_sent_is_counted(router: Router) -> None:
    note = msgspec.structs.replace(request("nobody"), ids=(), count=3)
    assert router.from_party("a", note, b"", 0.0) == []
    (out,) = router.from_party("a", msgspec.structs.replace(note, destination="store"), b"", 0.0)
    assert router.undeliverable(out, errors.Overloaded("full")) == []
    assert router.counters["notes_dropped"] == 6


def test_losses_are_told_as_an_event_once(router: Router) -> None:
    assert router.sweep(0.0) == []
    router.from_party("a", *subscribing("bus.counters"), 0.0)
    router.from_party("a", request("nobody", 1, 2, 3), b"", 0.0)
    (out,) = router.sweep(1.0)
    assert msgspec.msgpack.decode(out.body) == {"changed": {"no_target": 3}}
    assert router.sweep(2.0) == []
    assert not FLOW & {"no_target"}


HOSTILE = [
    {"count": 0},
    {"count": -1},
    {"count": 10**9},
    {"ids": (1, 2), "count": 1},
    {"ids": (1, 2), "count": 3},
    {"ids": (1, 1), "count": 2},
    {"ids": (-1,)},
    {"ids": (1, -2), "count": 2},
    {"ids": tuple(range(101)), "count": 101},
    {"causes": ("a", "b")},
    {"ids": (1, 2, 3), "count": 3, "causes": ("a", "b")},
    {"request_ids": ("a", "b")},
    {"ids": (1, 2), "count": 2, "request_ids": ("a",)},
]


@pytest.mark.parametrize("fields", HOSTILE, ids=str)
@pytest.mark.parametrize("kind", [Kind.REQUEST, Kind.REPLY, Kind.ERROR, Kind.EVENT])
def test_a_header_that_makes_no_sense_is_counted_and_changes_nothing(
    router: Router, kind: Kind, fields: dict[str, object]
) -> None:
    router.from_party("a", request("store", 1, 2), b"", 0.0)
    router.caller_came("p", NodeInfo(2))
    header = Header(**{"kind": kind, "ids": (7,), "source": "x@2", "destination": "store", "topic": "t", **fields})
    assert not sound(header)
    before = repr(router.exchange.pending), router.parties["a"].waiting
    assert router.from_party("a", header, b"", 0.0) == []
    assert router.from_caller("p", header, b"", 0.0) == []
    assert router.from_link(2, header, b"") == []
    assert router.counters["malformed"] == 3
    assert before == (repr(router.exchange.pending), router.parties["a"].waiting)
    router.check_invariants()


@pytest.mark.parametrize("ids", [(), (1,), (1, 2, 3), (10**6, 1), (-1, 0), (1, 2**60)])
def test_a_reader_that_lies_is_not_believed(router: Router, ids: tuple[int, ...]) -> None:
    window = router.parties["a"].window
    assert window
    before = window.messages, window.bytes
    assert router.from_party("a", Header(Kind.CONTROL, ids, topic=READ), b"", 0.0) == []
    assert (window.messages, window.bytes) == before
    assert router.counters["read_refused"] + router.counters["malformed"] == 1


def test_a_request_said_twice_is_not_passed_twice(router: Router) -> None:
    router.from_party("a", request("store", 1, 2), b"", 0.0)
    assert router.from_party("a", request("store", 2, 3), b"", 0.0) == []
    assert router.counters["malformed"] == 1
    assert router.parties["a"].waiting == 2


def test_a_party_that_asks_without_end_is_told(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "MAX_WAITING", 3)
    router.from_party("a", request("store", 1, 2), b"", 0.0)
    (out,) = router.from_party("a", request("store", 3, 4), b"", 0.0)
    assert [type(each) for each in problems(out)] == [errors.Overloaded] * 2
    assert router.counters["requests_overloaded"] == 2


def test_an_event_with_a_mad_topic_is_refused(router: Router) -> None:
    for topic in ("", "x" * 300):
        (out,) = router.from_party("a", event(topic), b"\xc0", 0.0)
        assert isinstance(problems(out)[0], errors.UsageError)
    assert router.counters["publish_refused"] == 2


def test_forgotten_requests_expire(router: Router) -> None:
    router.from_party("a", request(), b"", 0.0)
    router.sweep(5.9)
    assert router.parties["a"].waiting == 1
    router.sweep(6.1)
    assert (router.parties["a"].waiting, router.counters["expired"]) == (0, 1)
    router.check_invariants()


def test_a_link_that_breaks_ends_what_waits_on_it_and_nothing_else(router: Router) -> None:
    (far,) = router.from_party("a", request("store@2", 1), b"", 0.0)
    router.from_party("a", request("store", 8), b"", 0.0)
    assert (far.connection.port, far.connection.key, head(far).cluster) == ("link", 2, "c1")
    assert router.exchange.busy_links() == {2}
    (failed,) = router.link_down(2, "connection refused")
    assert isinstance(problems(failed)[0], errors.Unreachable)
    assert router.parties["a"].waiting == 1


def test_who_asks_and_asks_and_never_reads_fills_no_memory(router: Router) -> None:
    window = router.parties["a"].window
    assert window
    causes = ("c" * 15_000,)
    for number in range(3 * MESSAGES):
        router.from_party("a", Header(Kind.REQUEST, (number,), "", "nobody", "t", causes=causes), b"", 0.0)
    assert window.bytes <= 2 * BYTES + 20_000
    router.sweep(0.0)
    assert router.counters["answers_unsent"] > MESSAGES
    sent = window.bytes
    for _ in range(3 * MESSAGES):
        router.hello("a", Hello(), Role.ADMIN, 0, 100)
        router.from_party("a", *subscribing("*" * 10_000), 0.0)
    assert window.messages <= 2 * MESSAGES and window.bytes <= max(sent, 2 * BYTES + 20_000)
