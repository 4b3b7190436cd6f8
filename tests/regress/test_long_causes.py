"""A request with causes as long as a header may be was not answered, and each one left a traceback in the log."""

from __future__ import annotations

from covey.bus import codec
from covey.bus.messages import Header, Hello, Kind, Role
from covey.bus.routing import Router


def longest(ids: tuple[int, ...], destination: str) -> Header:
    """Return a request whose header is as long as one may be."""
    one = Header(Kind.REQUEST, ids, "", destination, "nosuch.verb", len(ids), causes=("x" * 16_000,))
    room = codec.MAX_HEADER - len(codec.encode_header(one))
    return Header(Kind.REQUEST, ids, "", destination, "nosuch.verb", len(ids), causes=("x" * (16_000 + room),))


def test_a_refusal_is_said_whatever_the_causes_are() -> None:
    router = Router()
    router.hello("a", Hello(), Role.LOOK, 0, 1)
    for ids, destination in (((1,), "nosuch"), (tuple(range(2, 50)), "nosuch"), ((99,), "nosuch@77")):
        (out,) = router.from_party("a", longest(ids, destination), b"\x80", 0.0)
        answer = codec.decode_header(out.frame)
        assert (answer.kind, answer.ids, answer.count) == (Kind.ERROR, ids, len(ids))
    router.check_invariants()


def test_an_event_that_is_refused_is_answered_too() -> None:
    router = Router()
    router.hello("a", Hello(), Role.LOOK, 0, 1)
    short = len(codec.encode_header(Header(Kind.EVENT, topic="app.x", sequence=1, causes=("x" * 300,))))
    longest = ("x" * (300 + codec.MAX_HEADER - short),)
    event = Header(Kind.EVENT, topic="app.x", sequence=1, causes=longest)
    assert len(codec.encode_header(event)) == codec.MAX_HEADER
    (out,) = router.from_party("a", event, b"\xc0", 0.0)
    assert out.kind is Kind.ERROR
    assert router.counters["publish_refused"] == 1
