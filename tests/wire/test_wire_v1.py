"""Frozen bytes of protocol version 1: whoever changes one of them makes a new version, or breaks running clusters."""

from __future__ import annotations

import pytest
from covey.bus import codec
from covey.bus.messages import EventHead, Header, Hello, Kind, NodeInfo, Welcome
from covey.errors import ReadOnly
from msgspec import msgpack

REQUEST = Header(
    Kind.REQUEST,
    7,
    "client-1@1",
    "registry@2",
    "registry.get",
    "story",
    "c1",
    role=2,
    budget=1.5,
    request_id="r1",
    sequence=0,
    uid=1000,
)
NODE = NodeInfo(1, "n1", "id1", "c1", "lab", "b1")

VECTORS = [
    (
        codec.encode_header(REQUEST),
        "019d0107aa636c69656e742d314031aa72656769737472794032ac72656769737472792e676574a573746f7279a2633102cb3ff8000000000000a2723100c2cd03e8",
    ),
    (codec.encode_header(Header(Kind.REPLY, 7)), "019d0207a0a0a0a0a000cb0000000000000000a000c2ff"),
    (
        msgpack.encode(Hello("dcm", True, ("dcm",))),
        "84a46e616d65a364636da9636f6d706f6e656e74c3a8736572766963657391a364636da46e6f6465c0",
    ),
    (
        msgpack.encode(Welcome("client-1", NODE)),
        "82a46e616d65a8636c69656e742d31a46e6f646586a66e756d62657201a46e616d65a26e31a26964a3696431"
        "aa636c75737465725f6964a26331ac636c75737465725f6e616d65a36c6162a7626f6f745f6964a26231",
    ),
    (
        codec.encode_error(ReadOnly("closed", "wait")),
        "84a4636f6465b272656769737472792e726561645f6f6e6c79a76d657373616765a6636c6f736564a468696e74a477616974a764657461696c7380",
    ),
    (
        codec.encode_event("app.hello", EventHead("dcm@1", 3, "story", b"\x01")),
        "6170702e68656c6c6f0096a564636d403103a573746f7279c40101c2c2",
    ),
    (codec.encode_body({"key": "/app/x"})[0], "81a36b6579a62f6170702f78"),
]


@pytest.mark.parametrize(("data", "frozen"), VECTORS, ids=lambda value: value[:12] if isinstance(value, str) else None)
def test_bytes_are_frozen(data: bytes, frozen: str) -> None:
    assert data.hex() == frozen


def test_frozen_bytes_are_still_understood() -> None:
    assert codec.decode_header(bytes.fromhex(VECTORS[0][1])) == REQUEST
    assert str(codec.decode_error(bytes.fromhex(VECTORS[4][1]))) == "closed (wait)"
    assert codec.decode_event(bytes.fromhex(VECTORS[5][1]))[1].sequence == 3


def test_a_header_of_a_newer_minor_version_is_understood() -> None:
    """New fields go last: an older node reads what it knows and passes over the rest."""
    longer = b"\x01" + msgpack.encode([*msgpack.decode(codec.encode_header(REQUEST)[1:]), "new field"])
    assert codec.decode_header(longer) == REQUEST
