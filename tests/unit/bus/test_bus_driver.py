"""The driver keeps the time of a machine with few timers. The loop is a stand-in whose clock the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from covey.bus.driver import Driver, Hearing
from covey.bus.machine import Asked, Reply
from covey.errors import ReadOnly


class Timer:
    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at, self.call, self.cancelled = at, call, False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[Timer] = []
        self.made = 0

    def time(self) -> float:
        return self.now

    def create_future(self) -> None:
        return None

    def call_at(self, at: float, call: Callable[[], None]) -> Timer:
        self.made += 1
        self.timers.append(Timer(at, call))
        return self.timers[-1]

    def until(self, end: float) -> None:
        while due := [one for one in self.timers if not one.cancelled and one.at <= end]:
            first = min(due, key=lambda one: one.at)
            self.timers.remove(first)
            self.now = max(self.now, first.at)
            first.call()
        self.now = end


class Machine:
    """Does nothing, and notes when it was stepped."""

    def __init__(self) -> None:
        self.deadline: float | None = None
        self.steps: list[tuple[float, Any]] = []

    def step(self, now: float, input: Any = None) -> list[Any]:
        self.steps.append((now, input))
        if input is None and self.deadline is not None and now >= self.deadline:
            self.deadline = None
        return []

    def check_invariants(self) -> None:
        pass


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    found = Loop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: found)
    return found


def fed(driver: Driver, machine: Machine, deadline: float | None) -> None:
    machine.deadline = deadline
    driver.feed("something")
    machine.steps.clear()


def test_a_machine_is_stepped_when_its_deadline_comes_and_not_again(loop: Loop) -> None:
    machine = Machine()
    fed(Driver(machine, lambda effect: None), machine, 101.0)
    loop.until(110.0)
    assert machine.steps == [(101.0, None)]


def test_a_deadline_that_moves_on_costs_no_timer_and_comes_when_it_is_due(loop: Loop) -> None:
    machine = Machine()
    driver = Driver(machine, lambda effect: None)
    for number in range(100):
        fed(driver, machine, 101.0 + number)
    assert loop.made == 1
    loop.until(199.0)
    assert machine.steps == []
    loop.until(300.0)
    assert machine.steps == [(200.0, None)]


def test_a_deadline_that_comes_nearer_is_kept(loop: Loop) -> None:
    machine = Machine()
    driver = Driver(machine, lambda effect: None)
    fed(driver, machine, 150.0)
    fed(driver, machine, 102.0)
    loop.until(103.0)
    assert machine.steps == [(102.0, None)]


def test_a_deadline_that_has_gone_does_not_come(loop: Loop) -> None:
    machine = Machine()
    driver = Driver(machine, lambda effect: None)
    fed(driver, machine, 101.0)
    fed(driver, machine, None)
    loop.until(200.0)
    assert machine.steps == []
    fed(driver, machine, 201.0)
    loop.until(300.0)
    assert machine.steps == [(201.0, None)]


def test_a_deadline_that_is_over_comes_at_once_however_much_else_is_fed(loop: Loop) -> None:
    machine = Machine()
    driver = Driver(machine, lambda effect: None)
    for _ in range(3):
        loop.now += 1
        fed(driver, machine, 99.0)
    assert [one.at for one in loop.timers if not one.cancelled] == [101.0]


def test_a_driver_that_stopped_steps_no_more(loop: Loop) -> None:
    machine = Machine()
    driver = Driver(machine, lambda effect: None)
    fed(driver, machine, 101.0)
    driver.stop()
    loop.until(200.0)
    driver.feed("more")
    assert machine.steps == []


class Clerk(Machine):
    """Answers at once what is asked for `now`, the rest when it is told to."""

    def step(self, now: float, input: Any = None) -> list[Any]:
        super().step(now, input)
        if isinstance(input, Asked):
            return [Reply(input.request, "at once")] if input.question == "now" else []
        return [input] if input else []


def test_who_asks_gets_a_future_that_is_done_when_the_machine_answered_at_once() -> None:
    async def story() -> None:
        driver = Driver(Clerk(), lambda effect: None)
        assert driver.ask("now").result() == "at once"
        one, two, three, four = (driver.ask(question) for question in ("a", "b", "c", "d"))
        assert not one.done()
        two.cancel()
        driver.feed(Reply(2, "a's"))
        driver.feed(Reply(2, "once more"))
        driver.feed(Reply(3, "b's, who has given up"))
        driver.feed(Reply(4, ReadOnly("not now")))
        assert one.result() == "a's" and two.cancelled()
        with pytest.raises(ReadOnly, match="not now"):
            await three
        driver.stop()
        driver.refuse(ReadOnly("ended"))
        with pytest.raises(ReadOnly, match="ended"):
            await four

    asyncio.run(story())


def test_what_is_not_understood_is_counted_and_told_ever_more_seldom(caplog: pytest.LogCaptureFixture) -> None:
    hearing = Hearing(int)
    assert hearing.take(msgspec.msgpack.encode(7), 3) == 7
    for body in [msgspec.msgpack.encode("seven"), b"", b"\xc1", b"\x91" * 100_000, b"\xa1\xff"] * 2:
        assert hearing.take(body, 3) is None
    assert hearing.misheard == {3: 10}
    assert [record.args[1] for record in caplog.records if isinstance(record.args, tuple)] == [1, 2, 4, 8]
