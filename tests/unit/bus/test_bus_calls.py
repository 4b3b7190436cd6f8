"""Calls that wait: each ends exactly once, whatever comes; no socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from covey import errors
from covey.bus import codec
from covey.bus.calls import Calls
from covey.bus.messages import Header, Kind


def story(test: Callable[[Calls], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        async def inside() -> None:
            calls = Calls()
            await test(calls)
            calls.close()
            assert not len(calls)

        asyncio.run(inside())

    return run


def reply(calls: Calls, numbers: list[int], *values: Any, body: bytes | None = None) -> None:
    header = Header(Kind.REPLY, tuple(numbers), "store@1", "a@1", "store.get", len(numbers))
    calls.replies(header, codec.join_items([codec.encode_item(value) for value in values]) if body is None else body)


@story
async def test_each_answer_of_a_batch_reaches_its_call(calls: Calls) -> None:
    begun = [calls.begin(5.0) for _ in range(3)]
    first, second, third = (number for number, _ in begun)
    reply(calls, [third, first], "third", "first")
    reply(calls, [second], ["one", "that is a list"])
    assert [await future for _, future in begun] == ["first", ["one", "that is a list"], "third"]
    reply(calls, [second], "again")  # nobody waits


@story
async def test_each_error_of_a_batch_reaches_its_call(calls: Calls) -> None:
    begun = [calls.begin(5.0) for _ in range(2)]
    header = Header(Kind.ERROR, tuple(number for number, _ in begun), "bus@1", "a@1", "store.get", 2)
    calls.errors(
        header, codec.join_items([codec.encode_error(each) for each in (errors.NoService("a"), errors.Denied("b"))])
    )
    with pytest.raises(errors.NoService):
        await begun[0][1]
    with pytest.raises(errors.Denied):
        await begun[1][1]


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x91\1", b"\x93\1\2\3", b"\1"])
def test_answers_that_do_not_decode_end_their_calls(body: bytes) -> None:
    @story
    async def broken(calls: Calls) -> None:
        for take in (calls.replies, calls.errors):
            begun = [calls.begin(5.0) for _ in range(2)]
            take(Header(Kind.REPLY, tuple(number for number, _ in begun), count=2), body)
            for _, future in begun:
                with pytest.raises(errors.Malformed):
                    await future

    broken()


@story
async def test_a_late_call_ends_and_its_answer_is_nobodys(calls: Calls) -> None:
    number, future = calls.begin(0.001)
    with pytest.raises(TimeoutError):
        await future
    reply(calls, [number], "late")


@story
async def test_a_call_nobody_waits_for_is_forgotten(calls: Calls) -> None:
    number, future = calls.begin(5.0)
    future.cancel()
    reply(calls, [number], "x")
    number, _ = calls.begin(5.0)
    calls.drop(number)
    assert not len(calls)


@story
async def test_a_lost_connection_ends_all(calls: Calls) -> None:
    begun = [calls.begin(5.0) for _ in range(3)]
    calls.fail_all("the broker went away")
    for _, future in begun:
        with pytest.raises(errors.ConnectionLost, match="went away"):
            await future


@story
async def test_a_party_that_starts_again_does_not_use_the_numbers_of_its_old_self(calls: Calls) -> None:
    number, future = calls.begin(5.0)
    again, other = Calls().begin(5.0)
    assert number != again  # one in two thousand million fails
    future.cancel()
    other.cancel()
