"""The shape of a protocol machine: inputs in the past tense go in, effects as orders come out.

Knows no socket, clock, thread or random source; so does every `machine.py` built on it (a test forbids the imports).
The driver (`bus/driver.py`) runs a machine on the real bus; the simulator (`bus/simulation.py`) runs many in virtual
time. Both carry the same messages between the same addresses, so nothing a machine can do depends on which one runs it.

A *message* is a frozen msgspec struct of a component's `messages.py`, tagged by its class name; it is addressed to
`(service, node)`. Every effect carries the `cause` of the input that led to it: the tap can show the whole story.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import msgspec


class Message(msgspec.Struct, frozen=True, tag=True):
    """Base of what machines send one another. A subclass says: who sends, who hears, what loss or a duplicate does."""


class Address(NamedTuple):
    """A party on the bus: its service name and the number of its node (0: this node)."""

    service: str
    node: int = 0


# --- inputs: what happened ------------------------------------------------------------------------------------


class Received(msgspec.Struct, frozen=True):
    """A message came in. Delivery is not guaranteed, may be late, out of order between senders, or doubled."""

    source: Address
    message: Message
    cause: str = ""


class Asked(msgspec.Struct, frozen=True):
    """A client asked for something and waits: answer exactly once with `Reply(request, …)`."""

    request: int
    question: Any
    cause: str = ""


class Persisted(msgspec.Struct, frozen=True):
    """The bytes of `Persist(number, …)`, and of all before it, are on the disk and synced."""

    number: int


# --- effects: what must be done -------------------------------------------------------------------------------


class Send(msgspec.Struct, frozen=True):
    """Send a message, once and without a promise that it arrives; the machine repeats what matters."""

    to: Address
    message: Message
    cause: str = ""


class Reply(msgspec.Struct, frozen=True):
    """Answer a question: a result, or a `CoveyError`."""

    request: int
    result: Any
    cause: str = ""


class Persist(msgspec.Struct, frozen=True):
    """Make `data` durable, in the order of `number`; `Persisted(number)` comes back as an input."""

    number: int
    data: Any
    cause: str = ""


class Publish(msgspec.Struct, frozen=True):
    """Publish an event on the node's bus. Events are hints: a reader may miss one and sees the gap."""

    topic: str
    body: Any
    cause: str = ""


class Notify(msgspec.Struct, frozen=True):
    """Tell the service around the machine that something is now so (`what`), with its particulars."""

    what: str
    body: Any = None
    cause: str = ""


Effect = Send | Reply | Persist | Publish | Notify


class ImpossibleTransition(Exception):
    """A machine met an input that its table does not allow in its state. The text carries the story so far."""


class Machine(Protocol):
    """What the driver and the simulator ask of a machine."""

    @property
    def deadline(self) -> float | None:
        """When `step` must be called next though nothing happened; None: not at all. Seconds, monotonic."""

    def step(self, now: float, input: Any = None) -> list[Effect]:
        """Take one input (None: the deadline came) at time `now`; return what must be done, in order."""

    def check_invariants(self) -> None:
        """Raise AssertionError when one of the machine's numbered invariants does not hold."""
