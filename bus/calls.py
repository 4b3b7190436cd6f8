"""The calls of one party that wait for an answer: a future each, one timer for all.

The answers to a batch come as a batch and are decoded in one go. Whatever happens, each call ends exactly once.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec

from ..errors import ConnectionLost, CoveyError, Malformed
from . import codec
from .deadlines import Deadlines
from .messages import Header

_one = msgspec.msgpack.Decoder()
_many = msgspec.msgpack.Decoder(list[Any])


class Calls:
    """Futures by number. A call that is late gets a plain TimeoutError; who called knows what to say."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._number = random.randrange(1 << 31)  # a restarted party must not take an answer to its old self
        self._deadlines = Deadlines(self._loop, self._waiting, self._late)
        self._answered = 0  # calls that ended with the last message

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def quiet(self) -> bool:
        """Whether a call made now is likely to stay alone in its turn: none waits, and no crowd was just answered."""
        return not self._waiting and self._answered <= 1

    def begin(self, timeout: float) -> tuple[int, asyncio.Future[Any]]:
        """Return a number, and what will be its answer within `timeout` seconds."""
        number = self._number = self._number + 1
        future = self._waiting[number] = self._loop.create_future()
        self._deadlines.add(number, timeout)
        return number, future

    def drop(self, number: int) -> None:
        """Nobody waits for that any more."""
        self._waiting.pop(number, None)

    def replies(self, header: Header, body: bytes | memoryview) -> None:
        """Give each of these answers to who waits for it."""
        ids = header.ids
        self._answered = len(ids)
        try:
            data = codec.unpack_body(body, header.compressed)
            try:
                results = [_one.decode(data)] if header.count == 1 else _many.decode(data)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
                raise Malformed(f"an answer that does not decode: {problem}") from None
            if len(results) != len(ids):
                raise Malformed(f"{len(results)} answers to {len(ids)} requests")
        except Malformed as problem:
            for number in ids:
                self._fail(number, Malformed(problem.message))
            return
        pop = self._waiting.pop
        for number, result in zip(ids, results, strict=True):
            future = pop(number, None)
            if future is not None and not future.done():
                future.set_result(result)

    def errors(self, header: Header, body: bytes | memoryview) -> None:
        """Raise each of these errors where it is waited for."""
        try:
            items = codec.split_items(codec.unpack_body(body, header.compressed), len(header.ids))
            problems = [codec.decode_error(item) for item in items]
        except Malformed as problem:
            problems = [Malformed(problem.message) for _ in header.ids]
        for number, error in zip(header.ids, problems, strict=True):
            self._fail(number, error)

    def fail_all(self, reason: str) -> None:
        """No answer will come on this connection."""
        for number in list(self._waiting):
            self._fail(
                number,
                ConnectionLost(f"{reason} before it answered", "read before you ask again: it may have happened"),
            )

    def close(self) -> None:
        """Fail all, and let the timer go."""
        self.fail_all("this connection was closed")
        self._deadlines.close()

    def _late(self, number: int) -> None:
        future = self._waiting.pop(number)
        if not future.done():
            future.set_exception(TimeoutError())

    def _fail(self, number: int, problem: CoveyError) -> None:
        future = self._waiting.pop(number, None)
        if future is not None and not future.done():
            future.set_exception(problem)
