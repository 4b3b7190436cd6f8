"""Requests and replies, one by one and in batches."""

from __future__ import annotations

import msgspec
import pytest
from bus_router import head, lab_router, problems, reply, request
from covey import errors
from covey.bus import codec, window
from covey.bus.messages import READ, Header, Hello, Kind, NodeInfo, Role
from covey.bus.routing import Router


@pytest.fixture
def router() -> Router:
    return lab_router()


def test_the_reply_goes_back_under_the_askers_number(router: Router) -> None:
    (asked,) = router.from_party("a", request("store", 7), b"", 0.0)
    assert head(asked).ids == (7,)
    (answer,) = router.from_party("s", reply("client-1@1", 7, causes=("story",)), b"yes", 0.0)
    header = head(answer)
    assert (answer.connection.key, header.ids, header.topic, header.cause()) == ("a", (7,), "store.get", "story")
    assert (header.source, answer.body) == ("store@1", b"yes")


def test_a_batch_passes_as_it_is_and_answers_come_in_any_grouping(router: Router) -> None:
    body = codec.join_items([codec.encode_item(number) for number in range(4)])
    (asked,) = router.from_party("a", request("store", 1, 2, 3, 4), body, 0.0)
    assert asked.body is body
    (pair,) = router.from_party("s", reply("client-1@1", 4, 2), b"\x92\4\2", 0.0)
    assert (head(pair).ids, pair.body) == ((4, 2), b"\x92\4\2")
    router.from_party("a", request("store", 5), b"", 0.0)
    (rest,) = router.from_party("s", reply("client-1@1", 1, 5, 3), b"\x93\1\5\3", 0.0)
    assert head(rest).ids == (1, 5, 3)
    assert router.parties["a"].waiting == 0
    router.check_invariants()


def test_only_the_party_that_was_asked_can_answer(router: Router) -> None:
    router.hello("x", Hello(), Role.ADMIN, 0, 102)
    router.from_party("a", request("store", 7, 8), b"", 0.0)
    assert router.from_party("x", reply("client-1@1", 7), b"mine", 0.0) == []
    assert router.from_party("x", reply("client-1@1", 7, 8), b"\x92\1\1", 0.0) == []
    assert router.counters["orphan_reply"] == 3
    (answer,) = router.from_party("s", reply("client-1@1", 7), b"yes", 0.0)
    assert answer.body == b"yes"


def test_a_second_reply_is_dropped(router: Router) -> None:
    router.from_party("a", request("store", 7), b"", 0.0)
    assert len(router.from_party("s", reply("client-1@1", 7), b"", 0.0)) == 1
    assert router.from_party("s", reply("client-1@1", 7), b"", 0.0) == []


@pytest.mark.parametrize("compressed", [False, True])
def test_of_a_batch_with_orphans_the_rest_passes(router: Router, compressed: bool) -> None:
    router.from_party("a", request("store", 1, 2, 3), b"", 0.0)
    router.from_party("s", reply("client-1@1", 2), b"", 0.0)
    values = ["x" * 5000, "gone", "third"]
    body = codec.join_items([codec.encode_item(value) for value in values])
    if compressed:
        body, compressed = codec.compress(body)
    outs = router.from_party("s", reply("client-1@1", 1, 2, 3, compressed=compressed), body, 0.0)
    assert [(head(out).ids, codec.decode_body(out.body)) for out in outs] == [((1,), values[0]), ((3,), values[2])]
    assert router.counters["orphan_reply"] == 1
    router.check_invariants()


def test_a_batch_with_orphans_that_cannot_be_opened_fails_and_nobody_waits_in_vain(router: Router) -> None:
    router.from_party("a", request("store", 1, 2), b"", 0.0)
    outs = router.from_party("s", reply("client-1@1", 1, 2, 9), b"\x92\1", 0.0)
    assert [type(each) for out in outs for each in problems(out)] == [errors.Malformed] * 2
    assert router.parties["a"].waiting == 0


def test_nobody_there_is_said_at_once_with_who_is(router: Router) -> None:
    (out,) = router.from_party("a", request("stor", 1, 2), b"", 0.0)
    assert head(out).ids == (1, 2)
    for problem in problems(out):
        assert (type(problem), problem.hint) == (errors.NoService, "there are: store")


def test_the_death_of_the_party_asked_ends_its_requests_at_once(router: Router) -> None:
    router.from_party("a", request("store", 1, 2, 3), b"", 0.0)
    router.from_party("s", reply("client-1@1", 2), b"", 0.0)
    (failed,) = router.party_gone("s", "process ended")
    assert (failed.connection.key, head(failed).ids) == ("a", (1, 3))
    assert [type(each) for each in problems(failed)] == [errors.ServiceDied] * 2
    router.check_invariants()


def test_requests_of_a_peer_are_counted_and_forgotten_with_it(router: Router) -> None:
    router.caller_came("p", NodeInfo(2))
    asked = msgspec.structs.replace(request("store", 1, 2), source="dcm@2")
    router.from_caller("p", asked, b"", 0.0)
    assert router.callers["p"].waiting == 2
    router.from_party("s", reply("dcm@2", 1, 2), b"\x92\1\1", 0.0)
    assert "dcm@2" not in router.exchange.pending
    router.from_caller("p", asked, b"", 0.0)
    router.caller_gone("p")
    assert "dcm@2" not in router.exchange.pending
    router.check_invariants()


def test_what_leaves_the_node_is_compressed_when_that_helps(router: Router) -> None:
    large, noise = b"x" * 10_000, bytes(range(256)) * 2
    (out,) = router.from_party("a", request("store@2", 1), large, 0.0)
    assert head(out).compressed and codec.unpack_body(out.body, True) == large
    (out,) = router.from_party("a", request("store@2", 2), noise, 0.0)
    assert not head(out).compressed and out.body is noise
    (out,) = router.from_party("a", request("store", 3), large, 0.0)
    assert not head(out).compressed and out.body is large
    router.caller_came("p", NodeInfo(2))
    router.from_caller("p", msgspec.structs.replace(request("store", 1), source="x@2"), b"", 0.0)
    (out,) = router.from_party("s", reply("x@2", 1), large, 0.0)
    assert head(out).compressed and codec.unpack_body(out.body, True) == large


def fill(router: Router, key: str, share: float) -> None:
    mailbox = router.parties[key].window
    assert mailbox
    for _ in range(int(window.MESSAGES * share)):
        mailbox.sent(1)


def test_a_service_that_does_not_read_pushes_back(router: Router) -> None:
    fill(router, "s", 0.75)
    (out,) = router.from_party("a", request("store", 1, 2), b"", 0.0)
    assert [type(each) for each in problems(out)] == [errors.Overloaded] * 2
    note = msgspec.structs.replace(request(), ids=())
    assert router.from_party("a", note, b"", 0.0) == []
    assert (router.counters["requests_overloaded"], router.counters["notes_dropped"]) == (2, 1)
    assert router.parties["a"].waiting == 0


def test_an_answer_without_room_becomes_an_error(router: Router) -> None:
    router.from_party("a", request("store", 1, 2), b"", 0.0)
    fill(router, "a", 1.0)
    (out,) = router.from_party("s", reply("client-1@1", 1, 2), b"\x92\1\1", 0.0)
    assert (out.connection.key, head(out).ids) == ("a", (1, 2))
    assert [type(each) for each in problems(out)] == [errors.Overloaded] * 2
    assert (router.counters["replies_refused"], router.parties["a"].waiting) == (2, 0)


def test_reading_gives_room_again(router: Router) -> None:
    fill(router, "s", 0.75)
    mailbox = router.parties["s"].window
    assert mailbox
    read = mailbox.messages - 100, mailbox.bytes - 100
    router.from_party("s", Header(Kind.CONTROL, read, topic=READ), b"", 0.0)
    assert mailbox.messages == 100
    (out,) = router.from_party("a", request("store", 1), b"", 0.0)
    assert out.kind is Kind.REQUEST


def test_a_header_that_grows_too_long_on_its_way_is_told(router: Router) -> None:
    causes = ("c" * (codec.MAX_HEADER - 60),)
    header = Header(Kind.REQUEST, (1,), "", "store", "get", causes=causes)
    assert len(codec.encode_header(header)) <= codec.MAX_HEADER
    (out,) = router.from_party("a", header, b"", 0.0)
    assert out.kind is Kind.ERROR or len(out.frame) <= codec.MAX_HEADER
