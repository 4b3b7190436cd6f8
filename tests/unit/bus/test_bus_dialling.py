"""Who dials and who is dialled, step by step: addresses, pauses, refusals, goodbyes, and strangers."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from covey.bus import acceptor as acceptor_module
from covey.bus.acceptor import Acceptor
from covey.bus.dialler import DIAL_LIMIT, IDLE_LIMIT, LONGEST_PAUSE, Connect, Dialler, HangUp, State
from covey.bus.messages import Kind
from covey.bus.session import (
    ACCEPT,
    CUT,
    DATA,
    END,
    FULL,
    IDLE,
    LEAVING,
    OPEN,
    RESUME,
    UNKNOWN,
    Closed,
    Deliver,
    Down,
    Transmit,
    Up,
    frame,
    parse,
)
from covey.errors import Unreachable

BODY = [b"head", b"body"]
A, B = "10.1.0.2:7400", "10.2.0.2:7400"


def dialler(*addresses: str, seed: int = 1) -> Dialler:
    return Dialler(2, addresses or (A,), Random(seed), lambda: [b"hello", b""])


def said(effects: list[Any]) -> list[int]:
    return [each.frames[0][1] for each in effects if isinstance(each, Transmit)]


def only(effects: list[Any], kind: type) -> Any:
    (found,) = [each for each in effects if isinstance(each, kind)]
    return found


def accept(made: Dialler, now: float) -> list[Any]:
    assert made.session is not None
    (opening,) = made.connected(now)
    assert isinstance(opening, Transmit)
    _, number, attempt, _, _ = parse(opening.frames[0], 1)
    return [*made.heard(now, ACCEPT, number, attempt, made.session._acked, 0, [])]


def up(*addresses: str) -> Dialler:
    made = dialler(*addresses)
    made.send(0.0, Kind.REQUEST, BODY)
    assert isinstance(accept(made, 0.0)[-1], Up)
    return made


def test_the_first_message_dials_and_goes_after_the_hello_once_the_peer_has_answered() -> None:
    made = dialler()
    assert made.send(0.0, Kind.REQUEST, BODY) == [Connect(A)]
    assert made.send(0.1, Kind.REQUEST, BODY) == []
    effects = accept(made, 0.2)
    assert [each.frames[1] for each in effects if isinstance(each, Transmit)] == [b"hello", b"head", b"head"]
    assert effects[-1] == Up(2)


def test_the_addresses_are_tried_in_order_for_two_seconds_each_then_all_reasons_are_told() -> None:
    made = dialler(A, B)
    made.send(0.0, Kind.REQUEST, BODY)
    assert made.deadline == DIAL_LIMIT
    assert made.due(DIAL_LIMIT) == [HangUp(), Connect(B)]
    effects = made.failed(3.0, "connection refused", True)
    down = only(effects, Down)
    assert down.reason == f"{A}: no answer in 2 s; {B}: connection refused"
    assert (down.reached, down.lost) == (False, 2)
    assert made.state is State.AT_REST


def test_a_connection_that_stands_but_is_not_answered_counts_as_no_connection() -> None:
    made = dialler(A, B)
    made.send(0.0, Kind.REQUEST, BODY)
    made.connected(0.1)
    assert made.due(DIAL_LIMIT) == [HangUp(), Connect(B)]


def test_the_address_that_worked_is_tried_first() -> None:
    made = dialler(A, B)
    made.send(0.0, Kind.REQUEST, BODY)
    made.failed(0.1, "connection refused", True)
    accept(made, 0.2)
    made.failed(1.0, "connection closed")
    assert made.deadline is not None
    assert made.due(made.deadline) == [Connect(B)]


def test_pauses_double_with_jitter_up_to_the_longest() -> None:
    spread = set()
    for seed in range(20):
        made = dialler(seed=seed)
        made.keep(0.0, True)
        now, pauses = 0.0, []
        for _ in range(10):
            only([*made.failed(now, "connection refused", True)], Down)
            assert made.deadline is not None
            pauses.append(made.deadline - now)
            now = made.deadline
            assert made.due(now) == [Connect(A)]
        for number, pause in enumerate(pauses):
            low = min(LONGEST_PAUSE, 0.1 * 2**number)
            assert low - 1e-9 <= pause <= min(LONGEST_PAUSE, 2 * low) + 1e-9
        spread.add(round(pauses[0], 6))
    assert len(spread) > 15  # not all nodes at the same moment


def test_who_asks_for_a_dead_peer_waits_a_moment_at_most() -> None:
    made = dialler()
    made.send(0.0, Kind.REQUEST, BODY)
    made.failed(0.1, "connection refused", True)
    assert made.send(0.1, Kind.REQUEST, BODY) == []
    assert made.deadline is not None
    assert 0.2 <= made.deadline <= 0.3
    assert made.due(made.deadline) == [Connect(A)]
    made.failed(0.4, "connection refused", True)
    assert made.send(9.0, Kind.REQUEST, BODY) == [Connect(A)]


def test_a_refusal_after_a_break_ends_the_session_at_once_and_a_timeout_does_not() -> None:
    made = up()
    made.failed(1.0, "connection closed")
    assert made.deadline is not None
    now = made.deadline
    made.due(now)
    assert only([*made.failed(now, "connection refused", True)], Down).reached
    made = up()
    made.failed(1.0, "connection closed")
    assert made.deadline is not None
    now = made.deadline
    made.due(now)
    assert made.failed(now, "no route to host") == [HangUp()]
    assert made.state is State.PAUSING


def test_an_idle_link_says_goodbye_but_not_while_somebody_waits_or_wants_it() -> None:
    made = up()
    assert made.session is not None
    made.heard(1.0, DATA, made.session.number, 1, 2, 0, BODY)  # an answer, which confirms hello and request
    assert made.rest_if_idle(1.0 + IDLE_LIMIT - 0.1, busy=False) == []
    assert made.rest_if_idle(1.0 + IDLE_LIMIT, busy=True) == []
    made.keep(1.0, True)
    assert made.rest_if_idle(1.0 + IDLE_LIMIT, busy=False) == []
    made.keep(1.0, False)
    effects = made.rest_if_idle(1.0 + IDLE_LIMIT, busy=False)
    assert said(effects) == [END]
    assert effects[1:] == [HangUp(), Closed(2)]
    assert made.deadline is None
    assert made.send(99.0, Kind.REQUEST, BODY) == [Connect(A)]


def test_a_link_that_is_cut_says_why_and_forgets_all() -> None:
    made = up()
    effects = made.stop(1.0, CUT, "it is no peer any more")
    assert said(effects) == [END]
    assert only([*effects], Down) == Down(2, "it is no peer any more", True, 2)
    assert made.deadline is None


def test_frames_of_other_sessions_and_of_no_dialler_are_counted() -> None:
    made = up()
    assert made.session is not None
    for type_, number in ((DATA, 1), (OPEN, made.session.number), (ACCEPT, made.session.number)):
        assert made.heard(1.0, type_, number, 1, 0, 0, BODY) == []
    assert made.counters.malformed == 3
    assert made.up


# --- the side that is dialled ---------------------------------------------------------------------------------------

ONE, TWO = b"\0one", b"\0two"
KEY = (7).to_bytes(8, "big")


def opened(user: str = "") -> Acceptor:
    made = Acceptor()
    effects = made.heard(0.0, ONE, [frame(OPEN, 7, 1)], user)
    assert effects[0] == Up(KEY)
    assert effects[1] == Transmit([ONE, frame(ACCEPT, 7, 1)])
    return made


def test_a_session_is_taken_over_by_a_new_connection_of_the_same_user_only() -> None:
    made = opened("alice")
    (refusal,) = made.heard(0.1, TWO, [frame(RESUME, 7, 2)], "mallory")
    assert refusal == Transmit([TWO, frame(END, 7, extra=UNKNOWN)])
    assert made.counters["sessions_wrong_key"] == 1
    (accepted,) = made.heard(0.2, TWO, [frame(RESUME, 7, 2)], "alice")
    assert accepted == Transmit([TWO, frame(ACCEPT, 7, 2)])
    assert made.heard(0.3, ONE, [frame(DATA, 7, 1), *BODY], "alice") == []  # of the former connection
    assert made.counters["sessions_late"] == 1
    assert made.heard(0.3, TWO, [frame(DATA, 7, 1), *BODY], "alice") == [Deliver(KEY, BODY)]


def test_a_stranger_is_told_that_nobody_knows_the_session() -> None:
    made = Acceptor()
    for type_ in (RESUME, DATA):
        frames = [frame(type_, 9, 1), *(BODY if type_ == DATA else [])]
        assert made.heard(0.0, ONE, frames) == [Transmit([ONE, frame(END, 9, extra=UNKNOWN)])]
    assert made.heard(0.0, ONE, [frame(END, 9)]) == []  # or two would answer each other without end
    assert made.deadline is None


def test_a_connection_that_named_itself_is_not_heard() -> None:
    made = Acceptor()
    assert made.heard(0.0, b"bob", [frame(OPEN, 7, 1)]) == []
    assert made.heard(0.0, ONE, [b"\1junk"]) == []
    assert made.counters["malformed"] == 2
    assert not made.sessions


def test_sessions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor_module, "MOST", 1)
    made = opened()
    assert made.heard(0.0, TWO, [frame(OPEN, 8, 1)]) == [Transmit([TWO, frame(END, 8, extra=FULL)])]
    assert made.counters["sessions_full"] == 1


def test_goodbyes_end_a_session_in_good_order_or_not() -> None:
    assert opened().heard(1.0, ONE, [frame(END, 7, extra=IDLE)]) == [Closed(KEY)]
    assert opened().heard(1.0, ONE, [frame(END, 7, extra=LEAVING)]) == [Down(KEY, "the other side ended")]
    assert opened().heard(1.0, ONE, [frame(END, 7, extra=2**63)]) == [Down(KEY, "it closed the connection")]


def test_an_ended_session_takes_nothing_any_more() -> None:
    made = opened()
    assert made.end(1.0, KEY, "its key is not trusted any more")[1] == Down(KEY, "its key is not trusted any more")
    with pytest.raises(Unreachable):
        made.send(1.0, KEY, Kind.REPLY, BODY)
    made.check_invariants()


def test_what_is_sent_to_a_broken_connection_waits_for_the_next_one() -> None:
    made = opened()
    made.unroutable(0.1, ONE)
    assert made.send(0.1, KEY, Kind.REPLY, BODY) == []
    effects = made.heard(0.2, TWO, [frame(RESUME, 7, 2)])
    assert [parse(each.frames[1], len(each.frames) - 1)[0] for each in effects if isinstance(each, Transmit)] == [
        ACCEPT,
        DATA,
    ]


def test_a_confirmation_that_rode_along_does_not_hold_up_the_next() -> None:
    made = opened()
    made.heard(0.10, ONE, [frame(DATA, 7, 1), *BODY])
    made.send(0.11, KEY, Kind.REPLY, BODY)
    made.heard(0.12, ONE, [frame(DATA, 7, 2), *BODY])
    assert made.deadline == pytest.approx(0.14)
    assert said([Transmit(each.frames[1:]) for each in made.due(0.15) if isinstance(each, Transmit)]) == [5]
