"""The envelope of everything that passes a broker, and the control messages of the bus itself.

Protocol version 2. A message is two frames, header and body. The header is a msgpack array (positions are the
contract, new fields go last and have defaults); the body is opaque to brokers. What one party says to one destination
on one topic in one turn of its loop is one message, a batch, that brokers pass on unopened. tests/wire/ holds frozen
bytes.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

PROTOCOL = 2
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


class Header(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What brokers route by.

    `count` items are in the body: one is the body itself, more are a msgpack array. `ids` pairs each reply with its
    request (as many as items; empty: no reply is wanted); numbers are the caller's own and stay the same on the whole
    way, together with `source` they are unique. `destination` is `service`, `service@node` or `service@host:port`
    (`#key` behind it: the key that the peer must have, in hex); of a reply it is the `source` of the request. `topic`
    is `service.verb` of a request and of its reply, or the topic of an event. `budget` is how many seconds the caller
    still waits, so that no clocks are compared; `cluster` is the cluster id the sender believes in, or empty; `uid` is
    the user who sent it, as the kernel of its own node proved it (-1: unknown). `sequence` numbers the events of one
    source on one topic from 1 without gaps: that of the first item. `causes` holds one for all items, or one each;
    none: each item is a story of its own (`cause`). `request_ids` is empty, or one each. `welcome` marks the last event
    of a source and topic that is told again, to a new subscriber or after a loss: only its last item counts. `key` is
    the public key, in hex, that the connection proved over which a request came from another node (empty: none); the
    broker that received it says so.
    """

    kind: Kind
    ids: tuple[int, ...] = ()
    source: str = ""
    destination: str = ""
    topic: str = ""
    count: int = 1
    cluster: str = ""
    role: int = Role.LOOK
    uid: int = -1
    budget: float = 0.0
    sequence: int = 0
    compressed: bool = False
    welcome: bool = False
    causes: tuple[str, ...] = ()
    request_ids: tuple[str, ...] = ()
    key: str = ""

    def cause(self, index: int = 0) -> str:
        """Return the story that an item belongs to: without a cause, that of the request."""
        if self.causes:
            return self.causes[index if len(self.causes) > 1 else 0]
        asker = self.destination if self.kind in (Kind.REPLY, Kind.ERROR) else self.source
        return f"{asker}#{self.ids[index]}" if self.ids else ""


class NodeInfo(msgspec.Struct, frozen=True):
    """The node a broker serves. Number 0 and empty ids: it is in no cluster."""

    number: int = 0
    name: str = ""
    id: str = ""
    cluster_id: str = ""
    cluster_name: str = ""
    boot_id: str = ""


class Peer(msgspec.Struct, frozen=True):
    """Another node, where its broker listens (`host:port`, best first), and its public key in hex (mode curve).

    `lists` has the addresses for services that are not to be reached in that order; an empty one: not at all.
    """

    name: str
    addresses: tuple[str, ...]
    key: str = ""
    lists: dict[str, tuple[str, ...]] = {}


class Way(msgspec.Struct, frozen=True):
    """The network of a subnetwork, this node's own address from which it is reached ("": whichever it is), and the
    services that never use it."""

    network: str
    source: str = ""
    never: tuple[str, ...] = ()


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


class Subscribe(msgspec.Struct, frozen=True):
    """A party wants the events of `topic` (`name.*`: of all topics below), as published on `node` (0: its own).

    The broker answers with the same as `SUBSCRIBED`, then tells the last event of each source and topic that fits, then
    what is published from now on. Said between brokers for the nodes whose events parties want. Doubled: answered in
    the same way, last events included (a party may have several readers of one topic). The same body ends it, however
    often it was said, as `UNSUBSCRIBE`. Refused: an `ERROR` with topic `subscribe` and the same body in `details`.
    """

    topic: str
    node: int = 0


# topics of control messages
HELLO = "hello"
HELLO_WANTED = "hello?"
WELCOME = "welcome"
GOODBYE = "goodbye"
SUBSCRIBE = "subscribe"
SUBSCRIBED = "subscribed"
UNSUBSCRIBE = "unsubscribe"
READ = "read"
"""A party has read: `ids` are all messages and all bytes (header and body) it took from this connection so far.

Both sides count from the first `WELCOME` on, that one included; `hello?` is not counted and starts the count anew, as
does a new connection. Who says less than it read has a smaller window; who says more than was sent is not believed.
"""

# events every broker publishes about itself
PARTY_TOPIC = "bus.party"
PEER_TOPIC = "bus.peer"
COUNTERS_TOPIC = "bus.counters"
REFUSED_TOPIC = "bus.refused"
TAP_TOPIC = "bus.tap"
"""`{"on": …}`: whether anybody taps this broker. Who speaks past it then shows it copies (`bus.tap_show`)."""


CUT_TOPIC = "bus.cut"
"""`{"out": […], "into": […]}`: the hosts to and from which nothing shall pass, on a node of a lab."""


def split_address(destination: str) -> tuple[str, int | str | None]:
    """Split `registry@2` into ("registry", 2), `dcm@127.1.0.2:7400` into ("dcm", "127.1.0.2:7400").

    No `@` gives None: this node. A key (`host:port#key`) stays with the address. Raises ValueError when what follows
    the `@` is neither a number nor `host:port`.
    """
    service, at, where = destination.partition("@")
    if not at:
        return service, None
    if where.isdecimal():
        return service, int(where)
    host, colon, port = where.partition("#")[0].rpartition(":")
    if not (host and colon and port.isdecimal()):
        raise ValueError(f"'{where}' is neither a node number nor host:port")
    return service, where
