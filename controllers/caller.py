"""Runs the methods of one controller, each with a deadline, none on the loop that asks.

Authors' code may block, hang or raise anything. A plain method runs in a thread of its own; an async one on
an event loop that lives in a thread of its own, one per controller, so that even `time.sleep` in a coroutine
stops nobody but its author. Python cannot end a thread: one past its deadline is left behind, counted, and
when too many are left behind the controller is refused more work until one of them comes back. The place
where it hangs is named. One that only waits costs nothing and stays; one that computes for ever eats a core,
so whoever has a process for this controller alone ends it (`spun`). Knows no bus and no description.
Odd: outcomes travel as values, never as exceptions of a future, because asyncio cannot carry StopIteration and
lets SystemExit end the loop.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from types import FrameType
from typing import Any

from ..errors import CoveyError, Failed, PluginError, Timeout
from ..plugins.blame import Home, place_of_frame, reason

MAX_LEFT_BEHIND = 4
"""Calls past their deadline that still hold a thread. More would be a leak that only a restart of the process ends."""

SPIN_TIME = 30.0
"""Seconds after which a call that is past its deadline and computes counts as one that never ends."""

SPIN_SHARE = 0.25
"""Share of a processor that all calls left behind have had, from which on they compute; less than that is waiting."""

LOOK = 1.0
"""Seconds between two looks at what is left behind."""

MAX_FOUND = 10_000
"""Things one call may yield. A controller with more needs a coarser class; an endless one must not eat the memory."""


@dataclass
class _Call:
    """One call on its way. `frame` says where it is now, for the message when it is late."""

    method: str
    started: float
    finished: asyncio.Event
    frame: Callable[[], FrameType | None]
    thread: threading.Thread | None
    computed: float = 0.0  # what its thread had computed before, in seconds
    result: Any = None
    error: BaseException | None = None


class Caller:
    """The one way into a controller's code."""

    def __init__(self, name: str, home: Home) -> None:
        self._name = name
        self.home = home
        self._left_behind: dict[int, _Call] = {}
        self._late = asyncio.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def call(self, method: Callable[..., Any], /, *arguments: Any, deadline: float, **keywords: Any) -> Any:
        """Run a method and return its result; what it yields comes as a list.

        Raises the method's own CoveyError (`Retry`, `Failed`, …); PluginError naming the line for any other
        exception of it; Timeout after `deadline` seconds, naming where it hangs; Failed at once when it hangs
        too often.
        """
        if len(self._left_behind) >= MAX_LEFT_BEHIND:
            raise Failed(self._stuck(), "restart the controller")
        label = getattr(method, "__name__", "method")
        is_async = inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method)
        start = self._start_on_loop if is_async else self._start_in_thread
        call, cancel = start(label, lambda: method(*arguments, **keywords))
        try:
            async with asyncio.timeout(deadline):
                await call.finished.wait()
        except TimeoutError:
            place = place_of_frame(call.frame(), self.home)
            self._leave_behind(call)
            cancel()
            where = f" (at {place})" if place else ""
            raise Timeout(f"{label}: no answer within {deadline:g} s{where}", "what it does may still happen") from None
        except asyncio.CancelledError:
            self._leave_behind(call)
            cancel()
            raise
        if call.error is None:
            return call.result
        if isinstance(call.error, CoveyError):
            raise call.error
        hint = f"this is a bug of the controller {self._name}"
        raise PluginError(reason(label, call.error, self.home), hint) from call.error

    def close(self) -> None:
        """Stop the controller's event loop; threads left behind end with the process."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        self._loop = None
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=0.5)

    # --- the two ways to run ------------------------------------------------------------------------------------

    def _start_in_thread(self, label: str, function: Callable[[], Any]) -> tuple[_Call, Callable[[], None]]:
        asking = asyncio.get_running_loop()

        def work() -> None:
            try:
                call.result = _value(function())
            except BaseException as error:
                call.error = error
            self._finish(asking, call)

        thread = threading.Thread(target=work, name=f"{self._name}.{label}", daemon=True)
        call = _Call(label, time.monotonic(), asyncio.Event(), lambda: _frame_of(thread), thread)
        thread.start()
        return call, lambda: None

    def _start_on_loop(self, label: str, function: Callable[[], Any]) -> tuple[_Call, Callable[[], None]]:
        asking = asyncio.get_running_loop()
        loop = self._own_loop()
        tasks: list[asyncio.Task[None]] = []
        running: list[Any] = []
        call = _Call(label, time.monotonic(), asyncio.Event(), lambda: self._frame_on_loop(running), self._thread)
        call.computed = _computed(self._thread)

        async def work() -> None:
            try:
                running.append(function())
                call.result = await _awaited_value(running[0])
            except BaseException as error:
                call.error = error
            self._finish(asking, call)

        loop.call_soon_threadsafe(lambda: tasks.append(loop.create_task(work())))
        return call, lambda: _cancel(loop, tasks)

    def _finish(self, asking: asyncio.AbstractEventLoop, call: _Call) -> None:
        def tell() -> None:
            self._left_behind.pop(id(call), None)
            call.finished.set()

        try:
            asking.call_soon_threadsafe(tell)
        except RuntimeError:
            pass  # whoever asked has ended, loop and all

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=_run, args=(loop,), name=f"{self._name}.loop", daemon=True)
            self._thread.start()
            self._loop = loop
        return self._loop

    # --- those that hang ----------------------------------------------------------------------------------------

    def _leave_behind(self, call: _Call) -> None:
        if not call.finished.is_set():
            self._left_behind[id(call)] = call
            self._late.set()

    async def spun(self) -> str:
        """Wait until a call that was left behind turns out to compute without end; return which, and where."""
        while True:
            await self._late.wait()
            left = {id: _computed(call.thread) - call.computed for id, call in self._left_behind.items()}
            oldest = min((call.started for call in self._left_behind.values()), default=time.monotonic())
            took = time.monotonic() - oldest
            if took >= SPIN_TIME and sum(left.values()) >= SPIN_SHARE * took:
                call = self._left_behind[max(left, key=lambda id: left[id])]
                place = place_of_frame(call.frame(), self.home)
                where = f" (at {place})" if place else ""
                return f"{call.method} computes without an end, {sum(left.values()):.0f} of {took:.0f} s{where}"
            if not self._left_behind:
                self._late.clear()
            await asyncio.sleep(LOOK)

    def _stuck(self) -> str:
        oldest = min(self._left_behind.values(), key=lambda call: call.started)
        place = place_of_frame(oldest.frame(), self.home)
        return (
            f"{len(self._left_behind)} calls of the controller {self._name} hang, the oldest is {oldest.method} "
            f"for {time.monotonic() - oldest.started:.0f} s" + (f" (at {place})" if place else "")
        )

    def _frame_on_loop(self, running: list[Any]) -> FrameType | None:
        """Where a coroutine waits; if it, or another one, blocks the loop: what the loop's thread does instead."""
        busy = _frame_of(self._thread)
        if not running or _is_inside(busy, _frame(running[0])):
            return busy
        return _suspended(running[0], self.home)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=0.5))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def _cancel(loop: asyncio.AbstractEventLoop, running: list[asyncio.Task[None]]) -> None:
    loop.call_soon_threadsafe(lambda: [task.cancel() for task in running])


def _frame_of(thread: threading.Thread | None) -> FrameType | None:
    return sys._current_frames().get(thread.ident) if thread is not None and thread.ident is not None else None


def _computed(thread: threading.Thread | None) -> float:
    """Seconds of a processor that a thread has had; 0 when it has ended."""
    if thread is None or thread.ident is None or not thread.is_alive():
        return 0.0
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


def _is_inside(frame: FrameType | None, wanted: FrameType | None) -> bool:
    while frame is not None:
        if frame is wanted:
            return True
        frame = frame.f_back
    return False


def _suspended(waiting: Any, home: Home) -> FrameType | None:
    """Follow what a coroutine awaits and return the innermost frame of the plugin's own code."""
    found = None
    while waiting is not None:
        frame = _frame(waiting)
        if frame is not None and home.place(frame.f_code.co_filename, frame.f_lineno):
            found = frame
        links = (getattr(waiting, name, None) for name in ("cr_await", "ag_await", "gi_yieldfrom"))
        waiting = next((link for link in links if link is not None), None)
    return found


def _frame(waiting: Any) -> FrameType | None:
    frames = (getattr(waiting, name, None) for name in ("cr_frame", "ag_frame", "gi_frame"))
    return next((frame for frame in frames if frame is not None), None)


def _value(result: Any) -> Any:
    """Take what is lazy while still in the author's thread, where it may block."""
    if inspect.isawaitable(result) or inspect.isasyncgen(result):
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError("a plain method returned something to await; write it with async def")
    if isinstance(result, Iterator):
        items = list(itertools.islice(result, MAX_FOUND + 1))
        if len(items) > MAX_FOUND:
            raise _too_many()
        return items
    return dict(result) if isinstance(result, Mapping) else result


async def _awaited_value(result: Any) -> Any:
    if not inspect.isasyncgen(result):
        return _value(await result)
    items: list[Any] = []
    async with aclosing(result):
        async for item in result:
            items.append(item)
            if len(items) > MAX_FOUND:
                raise _too_many()
    return items


def _too_many() -> Failed:
    return Failed(f"it yields more than {MAX_FOUND} things", "declare a coarser class, or stop yielding")
