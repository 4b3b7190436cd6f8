"""Many deadlines, one timer; virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from covey.bus.deadlines import LONGEST, SWEEP_ABOVE, Deadlines


class Timer:
    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when, self.callback, self.cancelled = when, callback, False

    def cancel(self) -> None:
        self.cancelled = True


class Clock:
    """A loop that is only a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []
        self.armed = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        self.armed += 1
        self.timers.append(Timer(when, callback))
        return self.timers[-1]

    def go(self, to: float) -> None:
        while due := sorted((t for t in self.timers if not t.cancelled and t.when <= to), key=lambda t: t.when):
            self.now = due[0].when
            self.timers.remove(due[0])
            due[0].callback()
        self.now = to


def made() -> tuple[Clock, dict[int, Any], list[tuple[float, int]], Deadlines]:
    clock = Clock()
    waiting: dict[int, Any] = {}
    late: list[tuple[float, int]] = []

    def told(number: int) -> None:
        late.append((clock.now, number))
        del waiting[number]

    return clock, waiting, late, Deadlines(clock, waiting, told)  # type: ignore[arg-type]


def test_each_is_told_when_its_time_is_over_and_not_before() -> None:
    clock, waiting, late, deadlines = made()
    for number, seconds in ((1, 5.0), (2, 1.0), (3, 3.0), (4, 0.0), (5, -1.0)):
        waiting[number] = None
        deadlines.add(number, seconds)
    clock.go(0.5)
    assert [number for _, number in late] == [5, 4]
    clock.go(10.0)
    assert late[2:] == [(1.0, 2), (3.0, 3), (5.0, 1)]
    assert all(timer.cancelled for timer in clock.timers)


def test_what_ended_in_time_is_not_told() -> None:
    clock, waiting, late, deadlines = made()
    for number in (1, 2):
        waiting[number] = None
        deadlines.add(number, float(number))
    del waiting[1]
    clock.go(5.0)
    assert late == [(2.0, 2)]


def test_a_steady_stream_of_calls_needs_few_timers_and_little_memory() -> None:
    clock, waiting, late, deadlines = made()
    for number in range(100_000):
        clock.go(number / 10_000)
        waiting[number] = None
        deadlines.add(number, 10.0)
        waiting.pop(number - 200, None)
    assert len(deadlines._heap) <= SWEEP_ABOVE + 3 * 201
    assert clock.armed < 10
    clock.go(100.0)
    assert sorted(number for _, number in late) == list(range(100_000 - 200, 100_000))


def test_waiting_for_ever_is_no_deadline() -> None:
    clock, waiting, late, deadlines = made()
    for number, seconds in ((1, float("inf")), (2, 1e300), (3, LONGEST * 2)):
        waiting[number] = None
        deadlines.add(number, seconds)
    assert not clock.timers and not late
