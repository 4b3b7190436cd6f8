"""The router, told what happened, says what to send."""

from __future__ import annotations

import msgspec
import pytest
from covey import errors
from covey.bus import codec
from covey.bus.messages import GOODBYE, Header, Hello, Kind, NodeInfo, Peer, Role
from covey.bus.routing import Connection, Out, Router
from hypothesis import given, settings
from hypothesis import strategies as st

HOME = NodeInfo(1, "n1", "id1", "c1", "lab", "b1")


def local(key: str) -> Connection:
    return Connection("local", key.encode())


def request(destination: str, number: int = 7, **fields: object) -> Header:
    return Header(Kind.REQUEST, number, "forged@9", destination, "get", "story", budget=5.0, **fields)  # type: ignore[arg-type]


def error_of(out: Out) -> errors.CoveyError:
    assert out.header.kind is Kind.ERROR
    return codec.decode_error(out.body)


@pytest.fixture
def router() -> Router:
    router = Router(reserved=("dcm",))
    router.configure(HOME, {2: Peer("n2", ("127.1.0.2:7400",))})
    router.hello(local("a"), Hello(), Role.ADMIN, 1000, 100)
    router.hello(local("s"), Hello("store", True, ("store",)), Role.COMPONENT, 0, 101)
    return router


def test_a_request_reaches_the_service_with_a_source_that_cannot_be_forged(router: Router) -> None:
    (out,) = router.message(local("a"), request("store", role=Role.COMPONENT, uid=0), b"body", 0.0)
    assert out.connection == local("s")
    assert out.header.source == "client-1@1"
    assert (out.header.role, out.header.uid) == (Role.ADMIN, 1000)
    assert out.body == b"body"


def test_the_reply_goes_back_under_the_askers_number(router: Router) -> None:
    (asked,) = router.message(local("a"), request("store"), b"", 0.0)
    (answer,) = router.message(local("s"), Header(Kind.REPLY, asked.header.id), b"yes", 0.0)
    assert (answer.connection, answer.header.id, answer.header.cause) == (local("a"), 7, "story")


def test_only_the_party_that_was_asked_can_answer(router: Router) -> None:
    router.hello(local("x"), Hello(), Role.ADMIN, 0, 102)
    (asked,) = router.message(local("a"), request("store"), b"", 0.0)
    assert router.message(local("x"), Header(Kind.REPLY, asked.header.id), b"mine", 0.0) == []
    assert router.counters["orphan_reply"] == 1
    (answer,) = router.message(local("s"), Header(Kind.REPLY, asked.header.id), b"yes", 0.0)
    assert answer.body == b"yes"


def test_a_second_reply_is_dropped(router: Router) -> None:
    (asked,) = router.message(local("a"), request("store"), b"", 0.0)
    router.message(local("s"), Header(Kind.REPLY, asked.header.id), b"", 0.0)
    assert router.message(local("s"), Header(Kind.REPLY, asked.header.id), b"", 0.0) == []


def test_nobody_there_is_said_at_once_with_who_is(router: Router) -> None:
    (out,) = router.message(local("a"), request("stor"), b"", 0.0)
    problem = error_of(out)
    assert (type(problem), problem.hint) == (errors.NoService, "there are: store")


def test_the_death_of_the_party_asked_ends_its_requests_at_once(router: Router) -> None:
    router.message(local("a"), request("store"), b"", 0.0)
    failed, event = router.gone(local("s"), "process ended")
    assert isinstance(error_of(failed), errors.ServiceDied)
    assert failed.connection == local("a")
    assert event.connection is None and event.header.topic == "bus.party"
    assert not router.pending


def test_the_death_of_the_asker_forgets_its_requests(router: Router) -> None:
    (asked,) = router.message(local("a"), request("store"), b"", 0.0)
    router.message(local("a"), Header(Kind.CONTROL, topic=GOODBYE), b"", 0.0)
    assert not router.pending
    assert router.message(local("s"), Header(Kind.REPLY, asked.header.id), b"", 0.0) == []


def test_a_closed_link_ends_what_waits_on_it_and_nothing_else(router: Router) -> None:
    (far,) = router.message(local("a"), request("store@2"), b"", 0.0)
    router.message(local("a"), request("store", 8), b"", 0.0)
    assert far.connection == Connection("link", 2)
    assert far.header.cluster == "c1"
    (failed,) = router.link_down(2, "connection refused")
    assert isinstance(error_of(failed), errors.Unreachable)
    assert len(router.pending) == 1


@pytest.mark.parametrize("destination", ["store@7", "store@", "store@x", "store@1.2.3.4:"])
def test_a_node_that_is_none_is_refused(router: Router, destination: str) -> None:
    (out,) = router.message(local("a"), request(destination), b"", 0.0)
    assert isinstance(error_of(out), errors.Unreachable | errors.UsageError)


def test_a_peers_message_is_never_passed_on(router: Router) -> None:
    peer = Connection("peer", b"p")
    router.peer_hello(peer, NodeInfo(2))
    (out,) = router.message(peer, Header(Kind.REQUEST, 1, "x@2", "store@3", "get", budget=1), b"", 0.0)
    assert isinstance(error_of(out), errors.Unreachable)


def test_the_broker_we_dialled_cannot_ask_over_our_link(router: Router) -> None:
    assert router.message(Connection("link", 2), request("store"), b"", 0.0) == []
    assert router.counters["unexpected"] == 1


def test_a_peer_cannot_speak_for_another_node(router: Router) -> None:
    peer = Connection("peer", b"p")
    router.peer_hello(peer, NodeInfo(2))
    assert router.message(peer, Header(Kind.REQUEST, 1, "dcm@3", "store", "get", budget=1), b"", 0.0) == []
    assert router.counters["forged_source"] == 1


@pytest.mark.parametrize("port", ["local", "peer"])
def test_a_stranger_is_asked_who_it_is(router: Router, port: str) -> None:
    (out,) = router.message(Connection(port, b"?"), request("store"), b"", 0.0)
    assert (out.header.kind, out.header.topic) == (Kind.CONTROL, "hello?")


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
    (out,) = router.hello(local("n"), Hello(services=(name,)), role, 1000, 200)
    assert isinstance(error_of(out), expected)
    assert local("n") not in router.parties


def test_a_process_that_connects_anew_replaces_its_old_connection(router: Router) -> None:
    router.message(local("a"), request("store"), b"", 0.0)
    outs = router.hello(local("s2"), Hello("store", True, ("store",)), Role.COMPONENT, 0, 101)
    assert outs[0].connection == local("s2")
    assert any(out.connection == local("a") and isinstance(error_of(out), errors.ServiceDied) for out in outs[1:-2])
    assert router.services["store"] == local("s2")


def test_saying_hello_again_changes_what_is_served(router: Router) -> None:
    router.hello(local("a"), Hello(services=("one",)), Role.ADMIN, 0, 100)
    router.hello(local("a"), Hello(services=("two",)), Role.ADMIN, 0, 100)
    assert set(router.services) == {"store", "two"}


def test_every_party_hears_that_its_node_changed(router: Router) -> None:
    outs = router.configure(msgspec.structs.replace(HOME, number=5), {})
    assert {out.connection for out in outs} == {local("a"), local("s")}
    assert router.configure(router.node, {}) == []


def test_events_are_numbered_by_source_and_topic(router: Router) -> None:
    numbers = [
        router.message(local("a"), Header(Kind.EVENT, topic=topic), b"", 0.0)[0].header.sequence
        for topic in ("app.x", "app.x", "app.y")
    ]
    assert numbers == [1, 2, 1]


def test_what_cannot_be_sent_is_told_to_who_asked(router: Router) -> None:
    (out,) = router.message(local("a"), request("store"), b"", 0.0)
    (told,) = router.undeliverable(out, errors.Overloaded("full"))
    assert told.connection == local("a") and isinstance(error_of(told), errors.Overloaded)
    assert router.undeliverable(told, errors.Overloaded("full")) == []


def test_forgotten_requests_expire(router: Router) -> None:
    router.message(local("a"), request("store"), b"", 0.0)
    router.expire(5.9)
    assert router.pending
    router.expire(6.1)
    assert not router.pending


CONNECTIONS = st.sampled_from([local("a"), local("s"), local("x"), Connection("peer", b"p"), Connection("link", 2)])
HEADERS = st.builds(
    Header,
    kind=st.sampled_from(Kind),
    id=st.integers(0, 4),
    source=st.sampled_from(["", "dcm@2", "x@9"]),
    destination=st.sampled_from(["store", "store@2", "nobody", "store@x", ""]),
    topic=st.sampled_from(["get", "goodbye", "app.x"]),
    budget=st.floats(-1, 10),
)
HELLOS = st.builds(
    Hello, name=st.sampled_from(["", "store", "mine"]), services=st.sampled_from([(), ("store",), ("x",)])
)


@settings(max_examples=200)
@given(st.lists(st.tuples(CONNECTIONS, HEADERS | HELLOS | st.just("gone") | st.just("down")), max_size=40))
def test_whatever_happens_the_invariants_hold(happenings: list[tuple[Connection, object]]) -> None:
    router = Router()
    router.configure(HOME, {2: Peer("n2", ("127.1.0.2:7400",))})
    for now, (connection, what) in enumerate(happenings):
        if isinstance(what, Header):
            router.message(connection, what, b"", float(now))
        elif isinstance(what, Hello) and connection.port == "local":
            router.hello(connection, what, Role.COMPONENT, 0, hash(connection) % 3 + 1)
        elif isinstance(what, Hello) and connection.port == "peer":
            router.peer_hello(connection, NodeInfo(2))
        elif what == "gone" and connection.port != "link":
            router.gone(connection, "test")
        elif what == "down":
            router.link_down(2, "test")
        router.check_invariants()
