"""Run one protocol machine on the real bus and the real clock.

The driver steps the machine for each input and whenever its deadline comes, and hands the effects, in order, to the
service around it. The effects that mean the same everywhere are carried out here: a `Reply` ends the `ask` it belongs
to; `Send` to another machine and `Publish` go out by an `Outbox`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from ..errors import CoveyError
from .client import Client
from .machine import Asked, Effect, Machine, Message, Publish, Reply, Send

log = logging.getLogger(__name__)


class Driver:
    """Feed a machine. An exception of the machine is a bug: it ends the component, whose supervisor restarts it."""

    def __init__(self, machine: Machine, perform: Callable[[Effect], None]) -> None:
        self.machine = machine
        self._perform = perform
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._armed = 0.0  # the deadline that the timer is for
        self._failed: asyncio.Future[None] = self._loop.create_future()
        self._stopped = False
        self._numbers = itertools.count(1)
        self._asked: dict[int, Callable[[Any], None]] = {}

    def ask(self, question: Any, cause: str = "") -> asyncio.Future[Any]:
        """Put a question to the machine; return what will be its answer, or the CoveyError it answers with. The future
        is done already when the machine answered at once."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        self.put(question, cause, partial(settle, answer))
        return answer

    def put(self, question: Any, cause: str, answered: Callable[[Any], None]) -> None:
        """Put a question to the machine; `answered` is called once with its answer or its CoveyError, maybe at once."""
        number = next(self._numbers)
        self._asked[number] = answered
        self.feed(Asked(number, question, cause))

    def feed(self, input: Any = None) -> None:
        """Take one input now (None: the deadline came) and perform what follows."""
        if self._stopped:
            return
        try:
            effects = self.machine.step(self._loop.time(), input)
            for effect in effects:
                if isinstance(effect, Reply):
                    answered = self._asked.pop(effect.request, None)
                    if answered:
                        answered(effect.result)
                else:
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

    @property
    def stopped(self) -> bool:
        """Nothing is fed any more."""
        return self._stopped

    def refuse(self, problem: CoveyError) -> None:
        """Answer everybody who still waits with this error: the machine will not."""
        asked = list(self._asked.values())
        self._asked.clear()
        for answered in asked:
            answered(problem)

    async def failed(self) -> None:
        """Wait until the machine fails, and raise its exception."""
        await self._failed

    def _arm(self) -> None:
        """Set the timer. One that comes too early stays: most inputs only move the deadline on."""
        deadline = self.machine.deadline
        if self._timer:
            if deadline is not None and self._armed <= deadline:
                return
            self._timer.cancel()
            self._timer = None
        if deadline is not None and not self._stopped:
            self._armed = deadline
            self._timer = self._loop.call_at(max(deadline, self._loop.time()), self._due)

    def _due(self) -> None:
        self._timer = None
        deadline = self.machine.deadline
        if deadline is not None and deadline > self._armed:
            self._arm()
        else:
            self.feed()


def settle(future: asyncio.Future[Any], answer: Any) -> None:
    """End a future with an answer or an error, unless whoever waited has given up."""
    if future.done():
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)


class Hearing:
    """Decodes what machines of other nodes say: nodes of different versions meet in every upgrade.

    What this version does not understand is dropped, as if it had been lost on the way. It is counted for each node,
    and told in the log the 1st, 2nd, 4th, 8th … time.
    """

    def __init__(self, messages: Any) -> None:
        """`messages`: the union of those that are understood."""
        self._decoder = msgspec.msgpack.Decoder(messages)
        self.misheard: Counter[int] = Counter()

    def take(self, body: bytes, node: int) -> Any:
        """Return the message of a node; None if it is none that is understood."""
        try:
            return self._decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
            self.misheard[node] += 1
            if (count := self.misheard[node]).bit_count() == 1:
                log.warning("node %d says what is not understood here, %d times by now: %s", node, count, problem)
            return None


class Background:
    """Tasks that belong together: kept alive, their failures logged, ended together."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Any, name: str = "") -> asyncio.Task[Any]:
        """Run a coroutine; an exception in it is logged and hurts nothing else."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def close(self) -> None:
        """Cancel all and wait for their ends."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception():
            log.error("background work %s failed", task.get_name(), exc_info=task.exception())


class Outbox:
    """What a machine sends and publishes, in its order. One that is lost is the machine's business: it says it again.

    `limit`: how many may wait for this node's broker; more are lost. 0: any number.
    """

    def __init__(self, bus: Client, limit: int = 0) -> None:
        self._bus = bus
        self._waiting: asyncio.Queue[Send | Publish] = asyncio.Queue(limit)

    def put(self, effect: Send | Publish) -> None:
        """Have an effect carried out after those before it."""
        try:
            self._waiting.put_nowait(effect)
        except asyncio.QueueFull:
            log.warning("the broker does not keep up; lost: %s", type(effect).__name__)

    async def post(self) -> None:
        """Carry out what is put in, until cancelled."""
        while True:
            effect = await self._waiting.get()
            try:
                await perform_common(self._bus, effect)
            except CoveyError as problem:
                log.debug("not sent: %s", problem)


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
