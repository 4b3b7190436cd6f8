"""The ends of a broker's connections, and what it remembers of each: plain data, no decisions.

An end is a party of this node, a broker that dialled us, or a link to a broker that we dial. What waits for a party is
bounded by its window; a connection between nodes has a window of its own in its session.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from . import codec
from .messages import Header, Kind, NodeInfo, Role
from .window import BYTES, MESSAGES, Window


class Lane(NamedTuple):
    """The link to a node for services that take its addresses in another order than the rest; named by one of them."""

    node: int
    service: str

    def __str__(self) -> str:
        return f"{self.node}/{self.service}"


LinkKey = int | str | Lane
"""What a link is known by: a node number, `host:port`, or a lane to a node."""


def node_of(key: LinkKey) -> int | None:
    """Return the node that a link leads to; None when it is known by its address alone."""
    return key if isinstance(key, int) else None if isinstance(key, str) else key.node


class Connection(NamedTuple):
    """One end the broker can send to: `local` (a party, by ZeroMQ identity), `peer` (a broker that dialled us), `link`
    (a broker we dial, by its `LinkKey`)."""

    port: str
    key: Any


class Out(msgspec.Struct, frozen=True, gc=False):
    """One message to send: its header frame and its body, and the topic of what leaves the node."""

    connection: Connection
    kind: Kind
    frame: bytes
    body: Any
    topic: str = ""


class End:
    """What is known of one connection.

    `waiting` counts its requests that wait for an answer, `wants` is what it subscribed to (node and topic), `missed`
    whose last events it did not get, `dropped` how many events in all, `unsent` how many errors and the like.
    """

    __slots__ = ("connection", "dropped", "missed", "unsent", "waiting", "wants", "window")

    def __init__(self, connection: Connection, window: Window | None = None) -> None:
        self.connection = connection
        self.window = window
        self.waiting = 0
        self.wants: set[tuple[int, str]] = set()
        self.missed: dict[tuple[int, str, str], None] = {}
        self.dropped = 0
        self.unsent = 0


class Party(End):
    """A local process end on the bus. `pid` 0: in the broker's own process. `pending` is what it waits for, by id;
    `source` its name on the wire, `sources` all it ever had; `published` and `served`: it did so once."""

    __slots__ = ("name", "pending", "pid", "published", "role", "served", "services", "source", "sources", "uid")

    def __init__(self, connection: Connection, name: str, role: Role, uid: int, pid: int, number: int) -> None:
        super().__init__(connection, Window())
        self.name = name
        self.role = role
        self.uid = uid
        self.pid = pid
        self.source = f"{name}@{number}"
        self.sources: list[str] = []
        self.served = self.published = False
        self.services: tuple[str, ...] = ()
        self.pending: dict[int, Pending] = {}


class Caller(End):
    """A broker that dialled us, and the node it speaks for."""

    __slots__ = ("node", "suffix")

    def __init__(self, connection: Connection, node: NodeInfo) -> None:
        super().__init__(connection)
        self.node = node
        self.suffix = f"@{node.number}"


class Pending(msgspec.Struct, eq=False, gc=False):
    """The requests of one message on their way: who waits, who must answer, what to say when nobody does.

    Two are never the same. The garbage collector does not look at them: an end that leaves lets go of all.
    """

    origin: End
    target: Connection
    source: str
    destination: str
    topic: str
    causes: tuple[str, ...]
    expires: float


def out(end: End, header: Header, body: bytes = b"") -> list[Out]:
    """Return a message of the broker's own, which is sent whether or not there is room: such are small, and few.

    Nothing, when the window is full twice over: that party asks and asks and never reads.
    """
    frame = codec.encode_header(header)
    window = end.window
    if window is not None:
        if window.messages >= 2 * MESSAGES or window.bytes >= 2 * BYTES:
            end.unsent += header.count
            return []
        window.sent(len(frame) + len(body))
    return [Out(end.connection, header.kind, frame, body, header.topic)]
