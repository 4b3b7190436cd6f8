"""What waits for a connection: bounded in messages and bytes, events give way first."""

from __future__ import annotations

import pytest
from covey.bus.messages import Kind
from covey.bus.window import BYTES, MESSAGES, READ_BYTES, READ_MESSAGES, Window
from hypothesis import given
from hypothesis import strategies as st

ORDER = [Kind.EVENT, Kind.REQUEST, Kind.REPLY]


def filled(messages: int, size: int) -> Window:
    window = Window()
    for _ in range(messages):
        window.sent(size)
    return window


def test_events_give_way_first_then_requests_then_replies() -> None:
    for share, fits in ((0.49, 3), (0.5, 2), (0.74, 2), (0.75, 1), (0.99, 1), (1.0, 0)):
        window = filled(int(MESSAGES * share), 1)
        assert [window.room(kind, 1) for kind in ORDER] == [False] * (3 - fits) + [True] * fits


def test_bytes_are_bounded_too() -> None:
    window = filled(8, BYTES // 16)
    assert not window.room(Kind.EVENT, 1)
    assert window.room(Kind.REPLY, BYTES // 2)
    assert not window.room(Kind.REPLY, BYTES // 2 + 1)


def test_the_largest_message_fits_into_a_window_that_may_be_empty() -> None:
    assert Window().take(Kind.EVENT, BYTES)
    assert filled(READ_MESSAGES - 1, 1).take(Kind.EVENT, BYTES)
    assert not filled(READ_MESSAGES, 1).take(Kind.EVENT, BYTES)
    assert not filled(1, READ_BYTES).take(Kind.EVENT, BYTES)


@pytest.mark.parametrize("told", [(11, 100), (10, 101), (4, 100), (10, 49), (-1, -1)])
def test_a_reading_that_cannot_be_changes_nothing(told: tuple[int, int]) -> None:
    window = filled(10, 10)
    assert window.read(5, 50)
    assert not window.read(*told)
    assert (window.messages, window.bytes) == (5, 50)


@given(st.lists(st.tuples(st.sampled_from(ORDER), st.integers(1, 2**21)) | st.none(), max_size=200))
def test_taking_is_asking_and_sending(steps: list[tuple[Kind, int] | None]) -> None:
    window, sizes, read = Window(), [], 0
    for step in steps:
        if step is None:
            read = len(sizes)
            assert window.read(read, sum(sizes))
        else:
            room = window.room(*step)
            assert window.take(*step) is room
            if room:
                sizes.append(step[1])
        assert (window.messages, window.bytes) == (len(sizes) - read, sum(sizes[read:]))
        assert window.messages <= MESSAGES
        assert window.bytes <= BYTES + 2**21
