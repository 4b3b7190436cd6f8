"""The envelope of everything that passes a broker, and the control messages of the bus itself.

Protocol version 1. The header is a msgpack array (positions are the contract, new fields go last and have defaults);
the body is opaque to brokers. tests/wire/ holds frozen bytes of every kind.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

PROTOCOL = 1
"""First byte of every header. A frame with another one is counted and dropped."""


class Kind(enum.IntEnum):
    """What a message is. `CONTROL` is talk between a party (or a peer broker) and the broker itself."""

    REQUEST = 1
    REPLY = 2
    ERROR = 3
    EVENT = 4
    CONTROL = 5


class Role(enum.IntEnum):
    """What the sender may do. The broker stamps it from the kernel's uid of the connection; senders cannot set it."""

    LOOK = 0
    OPERATOR = 1
    ADMIN = 2
    COMPONENT = 3


class Header(msgspec.Struct, array_like=True, frozen=True):
    """What brokers route by.

    `id` pairs a reply with its request on one hop (0: no reply wanted); `destination` is `service`, `service@node` or
    `service@host:port`; `topic` is `service.verb` of a request (and of its reply), or the topic of an event; `budget`
    is how many seconds the caller still waits, so that no clocks are compared; `cluster` is the cluster id the sender
    believes in, or empty; `uid` is the user who sent it, as the kernel of its own node proved it (-1: unknown).
    """

    kind: Kind
    id: int = 0
    source: str = ""
    destination: str = ""
    topic: str = ""
    cause: str = ""
    cluster: str = ""
    role: int = Role.LOOK
    budget: float = 0.0
    request_id: str = ""
    sequence: int = 0
    compressed: bool = False
    uid: int = -1


class NodeInfo(msgspec.Struct, frozen=True):
    """The node a broker serves. Number 0 and empty ids: it is in no cluster."""

    number: int = 0
    name: str = ""
    id: str = ""
    cluster_id: str = ""
    cluster_name: str = ""
    boot_id: str = ""


class Peer(msgspec.Struct, frozen=True):
    """Another node and where its broker listens: `host:port`, best first."""

    name: str
    addresses: tuple[str, ...]


class Hello(msgspec.Struct, frozen=True):
    """First message of a party, or of a peer broker, on a connection; said again when the broker asks `hello?`.

    `name` is the wished name (empty: the broker gives one), `services` what the party serves. A peer broker sends its
    `node`. Lost: the broker asks for it. Doubled: the second changes nothing.
    """

    name: str = ""
    component: bool = False
    services: tuple[str, ...] = ()
    node: NodeInfo | None = None


class Welcome(msgspec.Struct, frozen=True):
    """The broker's answer to `Hello`: the party's name and the node it is on. Sent again when that changes."""

    name: str
    node: NodeInfo


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of an `ERROR`: see `covey.errors.from_wire`."""

    code: str
    message: str
    hint: str = ""
    details: dict[str, Any] = {}


class EventHead(msgspec.Struct, array_like=True, frozen=True):
    """What follows `topic NUL` in an event frame, before the body. `welcome` marks the answer to a new subscription."""

    source: str
    sequence: int
    cause: str
    body: bytes
    compressed: bool = False
    welcome: bool = False


# topics of control messages
HELLO = "hello"
HELLO_WANTED = "hello?"
WELCOME = "welcome"
GOODBYE = "goodbye"

# events every broker publishes about itself
PARTY_TOPIC = "bus.party"
PEER_TOPIC = "bus.peer"


def split_address(destination: str) -> tuple[str, int | str | None]:
    """Split `registry@2` into ("registry", 2), `dcm@127.1.0.2:7400` into ("dcm", "127.1.0.2:7400").

    No `@` gives None: this node. Raises ValueError when what follows the `@` is neither a number nor `host:port`.
    """
    service, at, where = destination.partition("@")
    if not at:
        return service, None
    if where.isdecimal():
        return service, int(where)
    host, colon, port = where.rpartition(":")
    if not (host and colon and port.isdecimal()):
        raise ValueError(f"'{where}' is neither a node number nor host:port")
    return service, where
