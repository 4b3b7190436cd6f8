"""Run one protocol machine on the real bus and the real clock.

The driver steps the machine for each input and whenever its deadline comes, and hands the effects, in order, to the
service around it. It knows no effect's meaning; the two that are the same everywhere (`Send` to another machine and
`Publish`) have a helper, `perform_common`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from .client import Client
from .machine import Effect, Machine, Message, Publish, Send

log = logging.getLogger(__name__)


class Driver:
    """Feed a machine. An exception of the machine is a bug: it ends the component, whose supervisor restarts it."""

    def __init__(self, machine: Machine, perform: Callable[[Effect], None]) -> None:
        self.machine = machine
        self._perform = perform
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._failed: asyncio.Future[None] = self._loop.create_future()
        self._stopped = False

    def feed(self, input: Any = None) -> None:
        """Take one input now (None: the deadline came) and perform what follows."""
        if self._stopped:
            return
        try:
            effects = self.machine.step(self._loop.time(), input)
            for effect in effects:
                self._perform(effect)
        except Exception as problem:
            log.exception("%s failed on %r", type(self.machine).__name__, input)
            self.stop()
            if not self._failed.done():
                self._failed.set_exception(problem)
            return
        self._arm()

    def stop(self) -> None:
        """Feed no more; the timer is off."""
        self._stopped = True
        if self._timer:
            self._timer.cancel()
            self._timer = None

    async def failed(self) -> None:
        """Wait until the machine fails, and raise its exception."""
        await self._failed

    def _arm(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        deadline = self.machine.deadline
        if deadline is not None and not self._stopped:
            self._timer = self._loop.call_at(max(deadline, self._loop.time()), self.feed)


class Background:
    """Tasks that belong together: kept alive, their failures logged, ended together."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Any, name: str = "") -> None:
        """Run a coroutine; an exception in it is logged and hurts nothing else."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def close(self) -> None:
        """Cancel all and wait for their ends."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception():
            log.error("background work %s failed", task.get_name(), exc_info=task.exception())


async def perform_common(bus: Client, effect: Send | Publish) -> None:
    """Carry a machine's message to its address, or publish its event. A lost message is the machines' business."""
    if isinstance(effect, Send):
        message, (service, node) = effect.message, effect.to
        about, body = type(message).__name__.lower(), msgspec.msgpack.encode(message)
        await bus.send(service, "message", node=node or None, about=about, cause=effect.cause, body=body)
    else:
        body = effect.body
        plain = msgspec.to_builtins(body, builtin_types=(bytes,)) if isinstance(body, Message) else body
        await bus.publish(effect.topic, plain, cause=effect.cause)
