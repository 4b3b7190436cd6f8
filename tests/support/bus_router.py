"""Short words for tests of the broker's mind: ends by a letter, headers of what it sends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from covey import errors
from covey.bus import codec
from covey.bus.ends import Out
from covey.bus.messages import SUBSCRIBE, Header, Hello, Kind, NodeInfo, Peer, Role, Subscribe
from covey.bus.routing import Router
from msgspec import msgpack

HOME = NodeInfo(1, "n1", "id1", "c1", "lab", "b1")
PEERS = {2: Peer("n2", ("127.1.0.2:7400",)), 3: Peer("n3", ("127.1.0.3:7400",))}


def lab_router() -> Router:
    """Return a router of node 1 with a client `a` (an administrator) and the service `store` at `s`."""
    router = Router(reserved=("dcm",))
    router.configure(HOME, PEERS)
    router.hello("a", Hello(), Role.ADMIN, 1000, 100)
    router.hello("s", Hello("store", True, ("store",)), Role.COMPONENT, 0, 101)
    return router


def request(destination: str = "store", *ids: int, **fields: Any) -> Header:
    """Return the header of a request, or of a batch; 7 when no ids are given."""
    ids = ids or (7,)
    fields = {"budget": 5.0, "count": len(ids), **fields}
    return Header(Kind.REQUEST, ids, "forged@9", destination, "store.get", **fields)


def reply(destination: str, *ids: int, **fields: Any) -> Header:
    """Return the header of a reply, or of a batch of them."""
    return Header(Kind.REPLY, ids, "", destination, "store.get", count=max(len(ids), 1), **fields)


def event(topic: str, sequence: int = 1, count: int = 1, **fields: Any) -> Header:
    """Return the header of events."""
    return Header(Kind.EVENT, topic=topic, sequence=sequence, count=count, **fields)


def subscribing(topic: str, node: int = 0, verb: str = SUBSCRIBE) -> tuple[Header, bytes]:
    """Return the message that subscribes."""
    return Header(Kind.CONTROL, topic=verb), msgpack.encode(Subscribe(topic, node))


def head(out: Out) -> Header:
    """Return the header of what is sent."""
    return codec.decode_header(out.frame)


def heads(outs: Iterable[Out], port: str = "local") -> list[tuple[Any, str, int]]:
    """Return to whom each event goes, with topic and sequence."""
    return [
        (out.connection.key, head(out).topic, head(out).sequence)
        for out in outs
        if out.kind is Kind.EVENT and out.connection.port == port
    ]


def controls(outs: Iterable[Out]) -> list[tuple[Any, str]]:
    """Return to whom each control message goes, with its topic."""
    return [(out.connection.key, head(out).topic) for out in outs if out.kind is Kind.CONTROL]


def problems(out: Out) -> list[errors.CoveyError]:
    """Return the errors in a message, one for each id."""
    assert out.kind is Kind.ERROR
    header = head(out)
    return [codec.decode_error(item) for item in codec.split_items(bytes(out.body), header.count)]
