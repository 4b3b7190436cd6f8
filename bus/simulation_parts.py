"""The pieces that a simulated cluster is put together from, and how its events read as text.

Knows the shape of a machine and of its effects; time and chance belong to the world (`simulation.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from ..errors import CoveyError
from .machine import Address, Asked, Machine, Message, Notify, Persisted, Publish, Received, Reply, Send


@dataclass(frozen=True)
class Link:
    """How messages fare from one node to another. Delays are seconds, the rest chances from 0 to 1.

    Messages keep their order unless `reorder` strikes; one that it strikes takes up to `late` longer.
    """

    loss: float = 0.0
    low: float = 0.0002
    high: float = 0.002
    duplicate: float = 0.0
    reorder: float = 0.0
    late: float = 0.2


@dataclass
class Disk:
    """The durable half of one machine. `synced` is what a machine built after a crash may read, in order."""

    low: float = 0.0002
    high: float = 0.002
    synced: list[Any] = field(default_factory=list)
    pending: list[tuple[int, Any]] = field(default_factory=list)
    ready_at: float = 0.0

    def sync(self, number: int) -> Any:
        """Make everything up to `number` durable; return what the machine hears of it, None: nothing."""
        self.synced += [data for given, data in self.pending if given <= number]
        self.pending = [(given, data) for given, data in self.pending if given > number]
        return Persisted(number)

    def crash(self, random: Random) -> None:
        """Lose what was not synced, but for a random first part of it."""
        self.synced += [data for _, data in self.pending[: random.randint(0, len(self.pending))]]
        self.pending = []


@dataclass(frozen=True)
class Birth:
    """What a factory gets to build a machine from: which node, which life of it, what its disk holds.

    `boot_id` is new in each life of the node; `now` is the time on the node's own clock; `random` is the
    machine's own.
    """

    node: int
    service: str
    life: int
    boot_id: str
    now: float
    disk: Disk
    random: Random


Factory = Callable[[Birth], Machine]


@dataclass
class Operation:
    """A question of a client and what became of it. `unknown`: the node died first, so it may be done."""

    number: int
    node: int
    service: str
    question: Any
    asked_at: float
    answered_at: float | None = None
    result: Any = None
    unknown: bool = False

    @property
    def done(self) -> bool:
        """An answer came."""
        return self.answered_at is not None

    @property
    def error(self) -> CoveyError | None:
        """The error that was answered, if it was one."""
        return self.result if isinstance(self.result, CoveyError) else None


@dataclass(frozen=True)
class Occurrence:
    """Something a machine let the world hear: an event it published or a `Notify`."""

    at: float
    node: int
    service: str
    what: str
    body: Any


class Node:
    """One node: its machines by service name while it runs, and what outlives them.

    `said` is the last message each service published on each topic, for a machine that starts later than it was said.
    """

    def __init__(self, number: int, factories: dict[str, Factory], offset: float) -> None:
        self.number = number
        self.factories = factories
        self.offset = offset
        self.machines: dict[str, Machine] = {}
        self.disks: dict[str, Disk] = {service: Disk() for service in factories}
        self.births: dict[str, int] = dict.fromkeys(factories, 0)
        self.life = 0
        self.said: dict[tuple[str, str], Message] = {}
        self.paused = False
        self.held: list[tuple[str, int, Any]] = []

    @property
    def running(self) -> bool:
        """The node has been started and has not crashed (it may be paused)."""
        return bool(self.machines)

    @property
    def boot_id(self) -> str:
        """The boot id of this life."""
        return f"n{self.number}.{self.life}"


def describe(thing: Any) -> str:
    """Return an input or effect as one line of text: for failures, and for tests that compare with a text."""
    if thing is None:
        return "the deadline came"
    if isinstance(thing, Received):
        text = f"Received {_party(thing.source)} {thing.message}"
    elif isinstance(thing, Send):
        text = f"Send {_party(thing.to)} {thing.message}"
    elif isinstance(thing, Asked):
        text = f"Asked {thing.request} {thing.question}"
    elif isinstance(thing, Reply):
        text = f"Reply {thing.request} {thing.result!r}"
    elif isinstance(thing, Publish):
        text = f"Publish {thing.topic} {thing.body}"
    elif isinstance(thing, Notify):
        text = f"Notify {thing.what} {thing.body}"
    else:
        text = str(thing)
    return text if len(text) <= 400 else f"{text[:400]}… ({len(text)} characters)"


def _party(address: Address) -> str:
    return f"{address.service}@{address.node}" if address.node else address.service
