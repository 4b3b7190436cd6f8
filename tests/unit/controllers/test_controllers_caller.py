"""Authors' methods under a deadline: whatever they do, the one who asks gets an answer, and a place to look at."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from covey.controllers import caller as caller_module
from covey.controllers.caller import MAX_LEFT_BEHIND, Caller
from covey.errors import Failed, PluginError, Retry, Timeout
from covey.plugins.blame import Home

HERE = Path(__file__)
HOME = Home(HERE.name, (HERE,), (HERE,))
SOON = 0.2  # a deadline that is meant to pass
LATE = 30.0  # one that is not


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Ends what hangs, after the test."""
    event = threading.Event()
    yield event
    event.set()


def run(work: Callable[[Caller], Any]) -> Any:
    """Run a coroutine function with a caller that is closed afterwards."""

    async def main() -> Any:
        caller = Caller("gpu", HOME)
        try:
            return await work(caller)
        finally:
            caller.close()

    return asyncio.run(main())


def line_of(text: str) -> int:
    """The number of the one line of this file that ends with a marker."""
    (line,) = [number for number, one in enumerate(HERE.read_text().splitlines(), 1) if one.endswith("# " + text)]
    return line


def plain(x: int, *, y: int = 0) -> int:
    return x + y


async def coroutine(x: int, *, y: int = 0) -> int:
    await asyncio.sleep(0)
    return x + y


def generator(x: int) -> Iterator[int]:
    yield from range(x)


async def async_generator(x: int) -> AsyncIterator[int]:
    for number in range(x):
        await asyncio.sleep(0)
        yield number


def test_results_of_all_kinds_of_methods() -> None:
    async def work(caller: Caller) -> list[Any]:
        return [
            await caller.call(plain, 1, y=2, deadline=LATE),
            await caller.call(coroutine, 1, y=2, deadline=LATE),
            await caller.call(generator, 3, deadline=LATE),
            await caller.call(async_generator, 3, deadline=LATE),
            await caller.call(lambda: map(str, [1]), deadline=LATE),
            await caller.call(lambda: {"a": 1}, deadline=LATE),
        ]

    assert run(work) == [3, 3, [0, 1, 2], [0, 1, 2], ["1"], {"a": 1}]


def test_nothing_runs_on_the_loop_that_asks() -> None:
    async def who() -> int:
        return threading.get_ident()

    async def work(caller: Caller) -> set[int]:
        first = await caller.call(who, deadline=LATE)
        assert first == await caller.call(who, deadline=LATE), "async methods share one loop of the controller's own"
        return {first, await caller.call(threading.get_ident, deadline=LATE), threading.get_ident()}

    assert len(run(work)) == 3


def raising(error: BaseException) -> None:
    raise error  # raised here


async def raising_async(error: BaseException) -> None:
    raise error


async def raising_generator(error: BaseException) -> AsyncIterator[int]:
    yield 1
    raise error


@pytest.mark.parametrize("method", [raising, raising_async, raising_generator])
def test_the_two_kinds_of_error_for_authors_come_through(method: Any) -> None:
    for error in (Retry("busy"), Failed("broken")):
        with pytest.raises(type(error)) as caught:
            run(lambda caller, error=error: caller.call(method, error, deadline=LATE))
        assert caught.value is error


@pytest.mark.parametrize("method", [raising, raising_async, raising_generator])
@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        KeyError("k"),
        SystemExit(2),
        KeyboardInterrupt(),
        StopIteration(),
        GeneratorExit(),
        asyncio.CancelledError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_anything_else_is_a_bug_with_its_line(method: Any, error: BaseException) -> None:
    with pytest.raises(PluginError) as caught:
        run(lambda caller: caller.call(method, error, deadline=LATE))
    assert caught.value.message.startswith(f"{method.__name__}: ")
    assert f"({HERE.name}:" in caught.value.message
    assert caught.value.hint == "this is a bug of the controller gpu"


def test_the_line_is_the_right_one() -> None:
    with pytest.raises(PluginError) as caught:
        run(lambda caller: caller.call(raising, ValueError("no"), deadline=LATE))
    assert caught.value.message == f"raising: ValueError: no ({HERE.name}:{line_of('raised here')})"


def test_a_plain_method_that_hangs(release: threading.Event) -> None:
    def hang() -> None:
        release.wait()  # hangs here

    with pytest.raises(Timeout) as caught:
        run(lambda caller: caller.call(hang, deadline=SOON))
    assert caught.value.message == f"hang: no answer within 0.2 s (at {HERE.name}:{line_of('hangs here')})"


def test_a_coroutine_that_waits_for_ever_is_cancelled() -> None:
    cancelled = threading.Event()

    async def inner() -> None:
        try:
            await asyncio.Event().wait()  # waits here
        finally:
            cancelled.set()

    async def discover() -> AsyncIterator[int]:
        yield 1
        await inner()

    async def work(caller: Caller) -> None:
        with pytest.raises(Timeout) as caught:
            await caller.call(discover, deadline=SOON)
        assert caught.value.message == f"discover: no answer within 0.2 s (at {HERE.name}:{line_of('waits here')})"
        assert await caller.call(coroutine, 1, deadline=LATE) == 1, "its loop is free for others"

    run(work)
    assert cancelled.is_set()


def test_a_coroutine_that_blocks_its_loop(release: threading.Event) -> None:
    async def discover() -> None:
        release.wait()  # blocks here

    async def work(caller: Caller) -> None:
        with pytest.raises(Timeout) as caught:
            await caller.call(discover, deadline=SOON)
        assert f"(at {HERE.name}:{line_of('blocks here')})" in caught.value.message
        with pytest.raises(Timeout) as caught:
            await caller.call(coroutine, 1, deadline=SOON)
        assert f"(at {HERE.name}:{line_of('blocks here')})" in caught.value.message, (
            "the culprit is named, not the victim"
        )
        assert await caller.call(plain, 1, deadline=LATE) == 1, "plain methods go on"
        release.set()
        assert await caller.call(coroutine, 1, deadline=LATE) == 1

    run(work)


def test_too_many_that_hang_are_refused_until_one_comes_back(release: threading.Event) -> None:
    def hang() -> None:
        release.wait()

    async def work(caller: Caller) -> None:
        for _ in range(MAX_LEFT_BEHIND):
            with pytest.raises(Timeout):
                await caller.call(hang, deadline=SOON)
        with pytest.raises(Failed, match="4 calls of the controller gpu hang, the oldest is hang") as caught:
            await caller.call(plain, 1, deadline=LATE)
        assert f"({HERE.name}:" in caught.value.message.replace("at ", "")
        release.set()
        async with asyncio.timeout(LATE):
            while True:
                try:
                    assert await caller.call(plain, 1, deadline=LATE) == 1
                    break
                except Failed:
                    await asyncio.sleep(0)

    run(work)


def test_cancelling_the_one_who_asks_cancels_the_method() -> None:
    began, ended = threading.Event(), threading.Event()

    async def method() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def work(caller: Caller) -> None:
        task = asyncio.get_running_loop().create_task(caller.call(method, deadline=LATE))
        await asyncio.to_thread(began.wait, LATE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(ended.wait, LATE)

    run(work)


def test_a_flood_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caller_module, "MAX_FOUND", 100)

    def flood() -> Iterator[int]:
        while True:
            yield 1

    async def async_flood() -> AsyncIterator[int]:
        while True:
            yield 1

    for method in (flood, async_flood):
        with pytest.raises(Failed, match="yields more than 100 things"):
            run(lambda caller, method=method: caller.call(method, deadline=LATE))


def test_a_plain_method_that_returns_something_to_await() -> None:
    for method in (lambda: coroutine(1), lambda: async_generator(1)):
        with pytest.raises(PluginError, match="write it with async def"):
            run(lambda caller, method=method: caller.call(method, deadline=LATE))


# --- what computes without an end -----------------------------------------------------------------------------------


def test_a_call_that_computes_without_end_is_told_from_one_that_waits(
    release: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caller_module, "SPIN_TIME", 0.2)
    monkeypatch.setattr(caller_module, "SPIN_SHARE", 0.02)  # a busy machine gives little of its time
    monkeypatch.setattr(caller_module, "LOOK", 0.01)

    def waits() -> None:
        release.wait()

    rounds: list[threading.Event] = []

    def spins() -> None:
        enough = rounds[-1]
        while not (release.is_set() or enough.is_set()):
            pass  # spinning

    async def spins_on_the_loop() -> None:
        spins()

    async def story(caller: Caller) -> None:
        told = asyncio.ensure_future(caller.spun())
        with pytest.raises(Timeout):
            await caller.call(waits, deadline=0.3)
        for _ in range(5):
            await asyncio.sleep(0.01)
        assert not told.done()
        for method in (spins, spins_on_the_loop):
            rounds.append(threading.Event())
            other = Caller("gpu", HOME)
            with pytest.raises(Timeout):
                await other.call(method, deadline=0.05)
            if method is spins:  # several of them share one processor
                with pytest.raises(Timeout):
                    await other.call(method, deadline=0.05)
            found = await asyncio.wait_for(other.spun(), 20)
            assert found.startswith(f"{method.__name__} computes without an end") and HERE.name in found
            rounds[-1].set()  # they would take the time of those that come next
        told.cancel()

    run(story)
