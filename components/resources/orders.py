"""Carries out what the machine orders: one call on the bus for each message, its outcome fed back as a message.

Knows no verb that people use. Every order ends in exactly one answer, an error included. A call to a controller gets
the deadline the machine has for it (a change one a little shorter): the controller's process gives up a little before
and then names the line where it hangs. Odd: the moment of a discovery is read from the wall clock here, since it goes
into the registry for people.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ...bus.client import Client
from ...bus.driver import Background, Driver, perform_common
from ...bus.machine import Address, Effect, Message, Notify, Received, Send
from ...errors import CoveyError
from ..registry.client import read_all
from .machine import ResourcesMachine
from .messages import (
    PREFIX,
    CallFailed,
    Change,
    Changed,
    Describe,
    Described,
    Discover,
    Discovered,
    Read,
    ReadStored,
    Stored,
    Values,
    Write,
    Written,
)

log = logging.getLogger(__name__)

REGISTRY_TIMEOUT = 30.0
"""Seconds for a transaction; longer than the machine waits before it asks again under the same id."""


class Orders:
    """The machine's hands: `perform` takes effects, `ask` questions; outcomes go to `feed`."""

    def __init__(
        self, bus: Client, machine: ResourcesMachine, background: Background, kept: dict[str, Any] | None = None
    ) -> None:
        """`kept` outlives this life of the process: what each controller found last is in it."""
        self.driver = Driver(machine, self.perform)
        self.feed = self.driver.feed
        self.ask = self.driver.ask
        self._bus = bus
        self._settings = machine.settings
        self._background = background
        self._found: dict[str, Discovered] = {} if kept is None else kept.setdefault("found", {})
        self._remembered = dict(self._found)  # what was found in the life before, each used once
        self._notified: dict[str, Callable[[Any], None]] = {}

    def on(self, what: str, function: Callable[[Any], None]) -> None:
        """Call `function` with the body of every `Notify(what)`."""
        self._notified[what] = function

    def perform(self, effect: Effect) -> None:
        """Begin to carry out one effect."""
        match effect:
            case Notify(what, body):
                self._notified[what](body)
            case Send(to, message, cause):
                self._background.start(self._carry_out(to, message, cause, effect), name=f"{to.service}.{message}"[:80])
            case _:
                raise TypeError(f"{type(effect).__name__} is no effect of the Resource Manager")

    async def _carry_out(self, to: Address, message: Message, cause: str, effect: Send) -> None:
        match message:
            case Describe(id) | Discover(id) | Read(id) | Change(id) | ReadStored(id) | Write(id):
                try:
                    answer = await self._call(to, message, cause)
                except CoveyError as problem:
                    answer = CallFailed(id, problem.code, problem.message, problem.hint)
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
            case Discover(id) if to.service in self._remembered:
                known = self._remembered.pop(to.service)
                return Discovered(id, known.found, known.at, known.findings, remembered=True)
            case Discover(id):
                result = await bus.call(to.service, "discover", timeout=settings.discover_deadline, cause=cause)
                found = Discovered(id, tuple(result["found"]), _at(), tuple(result.get("findings") or ()))
                self._found[to.service] = found
                return found
            case Change(id, verb, deadline, arguments):
                timeout = deadline + settings.change_margin / 2
                result = await bus.call(to.service, verb, timeout=timeout, cause=cause, **arguments)
                findings = tuple(result.get("findings") or ())
                return Changed(id, _at(), result.get("attributes"), result.get("result"), findings)
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


def _at() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
