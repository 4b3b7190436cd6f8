"""One session frame by frame: numbers, confirmations, windows, and bytes that no honest broker sends."""

from __future__ import annotations

from typing import Any

import pytest
from covey.bus.messages import Kind
from covey.bus.session import (
    ACK,
    ACK_DELAY,
    ACK_MESSAGES,
    CALM,
    DATA,
    HEARTBEAT,
    LULL,
    PING,
    PONG,
    RESEND,
    SILENT,
    WORRY,
    Counters,
    Deliver,
    Session,
    Transmit,
    frame,
    parse,
)
from covey.bus.window import BYTES, MESSAGES
from covey.errors import Malformed, Overloaded
from hypothesis import given
from hypothesis import strategies as st

BODY = [b"head", b"body"]


def session(now: float = 100.0) -> Session:
    made = Session(7, "peer", now, Counters())
    assert made.attach(now, 0)
    return made


def types(effects: list[Any]) -> list[int | str]:
    """Return the frame types that are transmitted, and "deliver"."""
    found: list[int | str] = []
    for each in effects:
        found.append("deliver" if isinstance(each, Deliver) else each.frames[0][1])
    return found


def data(made: Session, now: float, number: int, ack: int = 0) -> list[Any]:
    return made.heard(now, DATA, number, ack, 0, BODY)


def test_messages_are_numbered_and_carry_the_confirmation() -> None:
    made = session()
    data(made, 100.0, 1)
    (first,) = made.send(100.0, Kind.REQUEST, BODY)
    (second,) = made.send(100.0, Kind.REQUEST, BODY)
    assert isinstance(first, Transmit)
    assert isinstance(second, Transmit)
    assert parse(first.frames[0], 3) == (DATA, 7, 1, 1, 0)
    assert parse(second.frames[0], 3) == (DATA, 7, 2, 1, 0)
    assert first.frames[1:] == BODY
    assert made.ack_by is None  # it rode along


def test_a_message_is_delivered_once_and_in_order() -> None:
    made = session()
    assert types(data(made, 100.0, 1)) == ["deliver"]
    assert types(data(made, 100.0, 1)) == []
    assert types(data(made, 100.0, 3)) == [RESEND]
    assert types(data(made, 100.0, 4)) == []  # asked for already
    assert types(data(made, 101.5, 5)) == [RESEND]  # that got lost, too
    assert types(data(made, 101.6, 2)) == ["deliver"]
    assert types(data(made, 101.6, 4)) == [RESEND]
    assert (made.counters.duplicates, made.counters.gaps, made.counters.messages_in) == (1, 3, 2)


def test_confirmations_go_alone_after_so_many_messages_bytes_or_so_long() -> None:
    made = session()
    for number in range(1, ACK_MESSAGES):
        assert types(data(made, 100.0, number)) == ["deliver"]
    assert types(data(made, 100.0, ACK_MESSAGES)) == ["deliver", ACK]
    data(made, 100.1, ACK_MESSAGES + 1)
    assert made.deadline == 100.1 + ACK_DELAY
    assert types(made.due(100.1 + ACK_DELAY)) == [ACK]
    large = made.heard(100.2, DATA, ACK_MESSAGES + 2, 0, 0, [b"h", bytes(1024 * 1024)])
    assert types(large) == ["deliver", ACK]


def test_what_is_confirmed_is_forgotten_and_the_rest_is_sent_again_on_the_next_connection() -> None:
    made = session()
    for _ in range(5):
        made.send(100.0, Kind.REQUEST, BODY)
    made.heard(100.1, ACK, 0, 2, 0, [])
    assert made.waiting == 3
    made.detach(100.2)
    assert made.send(100.2, Kind.REQUEST, BODY) == []
    assert made.attach(100.5, 3)
    again: list[Any] = made.rest(100.5)
    assert [parse(each.frames[0], 3)[2] for each in again] == [4, 5, 6]
    assert made.counters.resent == 2


def test_a_connection_to_another_state_is_refused() -> None:
    made = session()
    made.send(100.0, Kind.REQUEST, BODY)
    made.send(100.0, Kind.REQUEST, BODY)
    made.heard(100.1, ACK, 0, 1, 0, [])
    made.detach(100.2)
    assert not made.attach(100.2, 0)  # it has confirmed more than it now knows
    assert not made.attach(100.2, 3)  # that was never sent
    assert made.attach(100.2, 2)


def test_confirming_what_was_never_sent_changes_nothing() -> None:
    made = session()
    made.send(100.0, Kind.REQUEST, BODY)
    assert made.heard(100.1, ACK, 0, 2, 0, []) == []
    assert (made.waiting, made.counters.malformed) == (1, 1)


def test_the_window_refuses_events_first_then_requests_then_replies_but_never_errors() -> None:
    made = session()
    for kind, most in ((Kind.EVENT, MESSAGES // 2), (Kind.REQUEST, MESSAGES * 3 // 4), (Kind.REPLY, MESSAGES)):
        while made.waiting < most:
            made.send(100.0, kind, BODY)
        with pytest.raises(Overloaded):
            made.send(100.0, kind, BODY)
    for _ in range(MESSAGES):
        made.send(100.0, Kind.ERROR, BODY)
    with pytest.raises(Overloaded):
        made.send(100.0, Kind.ERROR, BODY)
    assert made.counters.refused == 4
    made.heard(100.1, ACK, 0, 2 * MESSAGES, 0, [])
    made.send(100.1, Kind.EVENT, BODY)
    made.check_invariants()


def test_the_window_is_bounded_in_bytes() -> None:
    made = session()
    large = [b"h", bytes(BYTES // 4)]
    made.send(100.0, Kind.REPLY, large)
    made.send(100.0, Kind.REPLY, large)
    made.send(100.0, Kind.REPLY, large)
    with pytest.raises(Overloaded, match="bytes"):
        made.send(100.0, Kind.REPLY, large)


def test_a_heartbeat_after_a_second_of_saying_nothing_measures_the_way() -> None:
    one, two = session(), session()
    assert one.due(100.0 + HEARTBEAT - 0.01) == []
    (ping,) = one.due(100.0 + HEARTBEAT)
    assert types([ping]) == [PING]
    assert isinstance(ping, Transmit)
    (pong,) = two.heard(101.01, *parse(ping.frames[0], 1)[:1], *parse(ping.frames[0], 1)[2:], [])
    assert isinstance(pong, Transmit)
    one.heard(101.02, *parse(pong.frames[0], 1)[:1], *parse(pong.frames[0], 1)[2:], [])
    assert one.counters.rtt == pytest.approx(0.02, abs=1e-5)
    one.heard(200.0, PONG, 0, 0, 1, [])  # not the answer to what was asked
    assert one.counters.rtt < 0.1


def test_silence_is_told_after_the_limit_unless_this_side_stood_still() -> None:
    made = session()
    assert not made.silent(100.0 + SILENT - 0.01)
    assert made.silent(100.0 + SILENT)
    made.excuse(110.0)
    assert not made.silent(110.5)
    assert made.silent(110.0 + HEARTBEAT)


def both(now: float) -> tuple[Session, Session]:
    one, two = session(now), session(now)
    (calm,) = one.hush(now, True)
    assert types([calm]) == [CALM] and one.hush(now, True) == []
    assert isinstance(calm, Transmit)
    (pong,) = two.heard(now, *parse(calm.frames[0], 1)[:1], *parse(calm.frames[0], 1)[2:], [])
    assert types([pong]) == [PONG]
    one.heard(now, PONG, 0, 0, 0, [])
    return one, two


def test_a_calm_session_has_few_heartbeats_and_bears_more_silence_on_both_sides() -> None:
    one, two = both(100.0)
    for side, said in ((one, CALM), (two, PING)):
        assert side.deadline == 100.0 + LULL and side.due(100.0 + LULL - 0.1) == []
        assert not side.silent(100.0 + LULL + SILENT - 0.1) and side.silent(100.0 + LULL + SILENT)
        assert types(side.due(100.0 + LULL)) == [said]


@pytest.mark.parametrize("dialled", [True, False])
def test_what_waits_to_be_confirmed_ends_the_calm_until_it_is(dialled: bool) -> None:
    side = both(100.0)[0 if dialled else 1]
    side.send(110.0, Kind.REQUEST, BODY)
    assert side.deadline == 110.0 + HEARTBEAT and side.silent(110.0 + SILENT) and not side.silent(110.0 + SILENT - 0.1)
    side.heard(110.1, ACK, 0, 1, 0, [])
    assert side.deadline == 110.0 + LULL and not side.silent(120.0)


def test_when_nobody_vouches_any_more_there_is_a_question_and_little_time_for_its_answer() -> None:
    one, two = both(100.0)
    (ping,) = one.hush(110.0, False)
    assert types([ping]) == [PING]
    assert not one.silent(110.0 + WORRY - 0.1) and one.silent(110.0 + WORRY)
    two.heard(110.0, PING, 0, 0, 1, [])
    assert two.deadline == 110.0 + HEARTBEAT, "both are as before"


def test_a_connection_that_breaks_in_the_calm_is_not_silent_at_once() -> None:
    one, _ = both(100.0)
    one.detach(112.0)
    assert not one.silent(112.0 + SILENT - 0.1) and one.silent(112.0 + SILENT)
    assert one.attach(113.0, 0) and not one.calm
    assert one.hush(113.0, False) == [], "the other side knows"


def test_a_heartbeat_tells_that_the_last_message_was_lost() -> None:
    made = session()
    assert types(made.heard(100.0, PING, 3, 0, 9, [])) == [PONG, RESEND]


def test_who_asks_for_the_same_again_and_again_is_answered_once() -> None:
    made = session()
    for _ in range(1000):
        made.send(100.0, Kind.REPLY, BODY)
    sent = sum(len(made.heard(100.0 + i / 1000, RESEND, 0, 0, 0, [])) for i in range(100))
    assert sent == 1000


@pytest.mark.parametrize(
    ("bytes_", "count"),
    [
        (b"", 1),
        (b"\1", 1),
        (frame(ACK, 7)[:-1], 1),
        (frame(ACK, 7) + b"x", 1),
        (b"\2" + frame(ACK, 7)[1:], 1),  # another version
        (frame(0, 7), 1),
        (frame(CALM + 1, 7), 1),
        (frame(DATA, 7), 1),
        (frame(DATA, 7), 4),
        (frame(ACK, 7), 3),
    ],
)
def test_a_malformed_frame_is_refused(bytes_: bytes, count: int) -> None:
    with pytest.raises(Malformed):
        parse(bytes_, count)


def test_the_frame_on_the_wire() -> None:
    assert frame(DATA, 0x0102030405060708, 9, 10, 11).hex() == (
        "0104" + "0102030405060708" + "0000000000000009" + "000000000000000a" + "000000000000000b"
    )


U64 = st.integers(0, 2**64 - 1)


@given(
    st.lists(st.tuples(st.integers(DATA, RESEND), st.integers(0, 6) | U64, st.integers(0, 6) | U64, U64), max_size=30)
)
def test_whatever_the_other_side_says_the_session_stays_sound(said: list[tuple[int, int, int, int]]) -> None:
    made = session()
    delivered = 0
    for step, (type_, sequence, ack, extra) in enumerate(said):
        now = 100.0 + step / 10
        made.send(now, Kind.REPLY, BODY)
        effects = made.heard(now, type_, sequence, ack, extra, BODY)
        delivered += sum(isinstance(each, Deliver) for each in effects)
        made.due(now)
        made.check_invariants()
    assert delivered == made.counters.messages_in == made.received
