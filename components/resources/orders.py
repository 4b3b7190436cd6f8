"""Carries out what the machine orders: one call on the bus for each message, its outcome fed back as a message.

Knows no verb that people use. Every order ends in exactly one answer, an error included. A call to a controller gets
the deadline the machine has for it: the controller's process gives up a little before and then names the line where
it hangs. Odd: the moment of a discovery is read from the wall clock here, since it goes into the registry for people.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ...bus.client import Client
from ...bus.driver import Background, perform_common
from ...bus.machine import Address, Asked, Effect, Message, Notify, Received, Reply, Send
from ...errors import CoveyError
from .messages import (
    PREFIX,
    CallFailed,
    Describe,
    Described,
    Discover,
    Discovered,
    Question,
    Read,
    ReadStored,
    Stored,
    Values,
    Write,
    Written,
)
from .settings import Settings

log = logging.getLogger(__name__)

PART = 2000
"""Resources read from the registry at a time: about a megabyte."""

REGISTRY_TIMEOUT = 30.0
"""Seconds for one call to the registry; longer than the machine waits before it asks again under the same id."""


async def read_all(bus: Client, prefix: str, consistency: str = "linear", cause: str = "") -> list[dict[str, Any]]:
    """Return every item below a prefix, read in parts: one answer of the registry has a largest size."""
    items: list[dict[str, Any]] = []
    while True:
        listed = await bus.call(
            "registry",
            "ls",
            timeout=REGISTRY_TIMEOUT,
            cause=cause,
            prefix=prefix,
            consistency=consistency,
            after=items[-1]["key"] if items else "",
            limit=PART,
        )
        items += listed["items"]
        if not listed["more"]:
            return items


class Orders:
    """The machine's hands: `perform` takes effects, `ask` questions; outcomes go to `feed`."""

    def __init__(self, bus: Client, settings: Settings, background: Background) -> None:
        self.feed: Callable[[Any], None] = lambda _: None
        self._bus = bus
        self._settings = settings
        self._background = background
        self._notified: dict[str, Callable[[Any], None]] = {}
        self._questions: dict[int, asyncio.Future[Any]] = {}
        self._count = 0

    def on(self, what: str, function: Callable[[Any], None]) -> None:
        """Call `function` with the body of every `Notify(what)`."""
        self._notified[what] = function

    def perform(self, effect: Effect) -> None:
        """Begin to carry out one effect."""
        match effect:
            case Reply(request, result):
                self._answer(request, result)
            case Notify(what, body):
                self._notified[what](body)
            case Send(to, message, cause):
                self._background.start(self._carry_out(to, message, cause, effect), name=f"{to.service}.{message}"[:80])
            case _:
                raise TypeError(f"{type(effect).__name__} is no effect of the Resource Manager")

    async def ask(self, question: Question, cause: str = "") -> Any:
        """Put a question to the machine and wait for its answer; raises the CoveyError it answers with."""
        self._count += 1
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        number = self._count
        self._questions[number] = future
        try:
            self.feed(Asked(number, question, cause))
            return await future
        finally:
            del self._questions[number]

    def _answer(self, request: int, result: Any) -> None:
        future = self._questions.get(request)
        if future is None or future.done():
            return
        if isinstance(result, CoveyError):
            future.set_exception(result)
        else:
            future.set_result(result)

    async def _carry_out(self, to: Address, message: Message, cause: str, effect: Send) -> None:
        match message:
            case Describe(id) | Discover(id) | Read(id) | ReadStored(id) | Write(id):
                try:
                    answer = await self._call(to, message, cause)
                except CoveyError as problem:
                    answer = CallFailed(id, problem.code, problem.message)
                except (TypeError, ValueError, KeyError, AttributeError) as problem:
                    # An answer of another shape than its verb promises: other people's code, or another version.
                    answer = CallFailed(id, "plugin.failed", f"its answer cannot be understood: {problem!r}"[:200])
                self.feed(Received(to, answer))
            case _:
                try:
                    await perform_common(self._bus, effect)
                except CoveyError as problem:
                    log.debug("%s to %s@%s: %s", type(message).__name__, to.service, to.node, problem)

    async def _call(self, to: Address, message: Message, cause: str) -> Message:
        bus, settings = self._bus, self._settings
        match message:
            case Describe(id):
                wires = await bus.call(to.service, "classes", timeout=settings.describe_deadline, cause=cause)
                return Described(id, tuple(wires))
            case Discover(id):
                result = await bus.call(to.service, "discover", timeout=settings.discover_deadline, cause=cause)
                at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
                return Discovered(id, tuple(result["found"]), at, tuple(result.get("findings") or ()))
            case Read(id, cls, key):
                result = await bus.call(
                    to.service, "read", timeout=settings.read_deadline, cause=cause, cls=cls, key=key
                )
                return Values(id, result["attributes"], tuple(result.get("findings") or ()))
            case ReadStored(id):
                items = await read_all(bus, PREFIX, cause=cause)
                return Stored(id, tuple((item["key"], item["value"], item["mod_revision"]) for item in items))
            case Write(id, compare, puts):
                result = await bus.call(
                    "registry",
                    "txn",
                    timeout=REGISTRY_TIMEOUT,
                    request_id=id,
                    cause=cause,
                    compare=[{"key": key, "mod_revision": revision} for key, revision in compare],
                    then=[{"op": "put", "key": key, "value": value} for key, value in puts],
                )
                return Written(id, result["succeeded"], result["revision"])
            case _:
                raise TypeError(f"{type(message).__name__} is no order")
