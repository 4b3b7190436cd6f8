"""Frozen bytes of protocol version 2: whoever changes one of them makes a new version, or breaks running clusters."""

from __future__ import annotations

import pytest
from covey.bus import codec
from covey.bus.messages import Header, Hello, Kind, NodeInfo, Subscribe, Welcome
from covey.errors import ReadOnly
from msgspec import msgpack

REQUEST = Header(
    Kind.REQUEST,
    (7, 2**31),
    "client-1@1",
    "registry@2",
    "registry.get",
    2,
    "c1",
    role=2,
    uid=1000,
    budget=1.5,
    causes=("story",),
    request_ids=("r1", ""),
    key="c0ffee",
)
EVENT = Header(Kind.EVENT, (), "dcm@1", "", "app.hello", 3, sequence=41, compressed=True, welcome=True)
NODE = NodeInfo(1, "n1", "id1", "c1", "lab", "b1")

VECTORS = [
    (
        codec.encode_header(REQUEST),
        "02dc0010019207ce80000000aa636c69656e742d314031aa72656769737472794032ac72656769737472792e67657402a2633102"
        "cd03e8cb3ff800000000000000c2c291a573746f727992a27231a0a6633066666565",
    ),
    (
        codec.encode_header(Header(Kind.REPLY, (7,), destination="client-1@1")),
        "02dc0010029107a0aa636c69656e742d314031a001a000ffcb000000000000000000c2c29090a0",
    ),
    (
        codec.encode_header(EVENT),
        "02dc00100490a564636d4031a0a96170702e68656c6c6f03a000ffcb000000000000000029c3c39090a0",
    ),
    (
        codec.encode_header(Header(Kind.CONTROL, (12, 3400), topic="read")),
        "02dc001005920ccd0d48a0a0a47265616401a000ffcb000000000000000000c2c29090a0",
    ),
    (
        msgpack.encode(Hello("dcm", True, ("dcm",))),
        "84a46e616d65a364636da9636f6d706f6e656e74c3a8736572766963657391a364636da46e6f6465c0",
    ),
    (
        msgpack.encode(Welcome("client-1", NODE)),
        "82a46e616d65a8636c69656e742d31a46e6f646586a66e756d62657201a46e616d65a26e31a26964a3696431aa636c757374"
        "65725f6964a26331ac636c75737465725f6e616d65a36c6162a7626f6f745f6964a26231",
    ),
    (
        msgpack.encode(Subscribe("app.*", 3)),
        "82a5746f706963a56170702e2aa46e6f646503",
    ),
    (
        codec.encode_error(ReadOnly("closed", "wait")),
        "84a4636f6465b272656769737472792e726561645f6f6e6c79a76d657373616765a6636c6f736564a468696e74a477616974"
        "a764657461696c7380",
    ),
    (
        codec.join_items([codec.encode_item({"key": "/app/x"})]),
        "81a36b6579a62f6170702f78",
    ),
    (
        codec.join_items([codec.encode_item(number) for number in (1, "two", None)]),
        "9301a374776fc0",
    ),
    (
        codec.join_items([b"\1"] * 16),
        "dc001001010101010101010101010101010101",
    ),
]


@pytest.mark.parametrize(("data", "frozen"), VECTORS, ids=lambda value: value[:12] if isinstance(value, str) else None)
def test_bytes_are_frozen(data: bytes, frozen: str) -> None:
    assert data.hex() == frozen


def test_frozen_bytes_are_still_understood() -> None:
    assert codec.decode_header(bytes.fromhex(VECTORS[0][1])) == REQUEST
    assert codec.decode_header(bytes.fromhex(VECTORS[2][1])) == EVENT
    assert str(codec.decode_error(bytes.fromhex(VECTORS[7][1]))) == "closed (wait)"
    assert codec.decode_body(bytes.fromhex(VECTORS[9][1])) == [1, "two", None]


def test_a_header_of_a_newer_minor_version_is_understood() -> None:
    """New fields go last: an older node reads what it knows and passes over the rest."""
    longer = b"\x02" + msgpack.encode([*msgpack.decode(codec.encode_header(REQUEST)[1:]), "new field"])
    assert codec.decode_header(longer) == REQUEST


def test_a_header_may_be_short() -> None:
    """Fields that were not sent have their defaults."""
    assert codec.decode_header(b"\x02\x91\x05") == Header(Kind.CONTROL)
