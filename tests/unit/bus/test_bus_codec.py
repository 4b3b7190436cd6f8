"""Bytes of the wire: what goes out comes back, and hostile bytes only ever raise Malformed."""

from __future__ import annotations

import lz4.block
import pytest
from covey import errors
from covey.bus import codec
from covey.bus.messages import PROTOCOL, Header, Kind, split_address
from hypothesis import given, settings
from hypothesis import strategies as st

TEXT = st.text(max_size=20)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | TEXT
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)


@given(
    st.builds(
        Header,
        kind=st.sampled_from(Kind),
        ids=st.lists(st.integers(0, 2**40), max_size=100).map(tuple),
        source=TEXT,
        destination=TEXT,
        topic=TEXT,
        count=st.integers(1, 100),
        causes=st.lists(TEXT, max_size=5).map(tuple),
    )
)
def test_a_header_comes_back(header: Header) -> None:
    assert codec.decode_header(codec.encode_header(header)) == header


@given(PLAIN)
def test_a_body_comes_back(value: object) -> None:
    assert codec.decode_body(codec.encode_item(value)) == value


@settings(max_examples=30)
@given(st.lists(PLAIN, min_size=1, max_size=100))
def test_a_batch_comes_back(values: list[object]) -> None:
    body = codec.join_items([codec.encode_item(value) for value in values])
    assert [codec.decode_body(bytes(item)) for item in codec.split_items(body, len(values))] == values
    if len(values) > 1:
        assert codec.decode_body(body) == values
        with pytest.raises(errors.Malformed):
            codec.split_items(body, len(values) + 1)


def test_a_large_body_is_compressed_when_that_helps() -> None:
    data, compressed = codec.compress(codec.encode_item("x" * 100_000))
    assert compressed and len(data) < 1000
    assert codec.decode_body(data, True) == "x" * 100_000


def test_a_body_that_compressing_does_not_shrink_goes_plain() -> None:
    import random

    noise = codec.encode_item(random.Random(1).randbytes(50_000))
    assert codec.compress(noise) == (noise, False)
    assert codec.compress(b"x" * codec.COMPRESS_ABOVE)[1] is False


def test_too_large_a_body_is_refused_before_it_is_sent() -> None:
    with pytest.raises(errors.TooLarge):
        codec.encode_item(b"x" * (codec.MAX_BODY + 1))


@pytest.mark.parametrize(
    ("ids", "source", "destination", "cause"),
    [((7,), "a@1", "b", "a@1#7"), ((), "a@1", "b", "")],
)
def test_a_request_without_a_cause_is_a_story_of_its_own(
    ids: tuple[int, ...], source: str, destination: str, cause: str
) -> None:
    assert Header(Kind.REQUEST, ids, source, destination).cause() == cause
    assert Header(Kind.REPLY, ids, destination, source).cause() == cause  # and so is its answer
    assert Header(Kind.REQUEST, (7, 8), source, destination, count=2, causes=("s",)).cause(1) == "s"
    assert Header(Kind.REQUEST, (7, 8), source, destination, count=2, causes=("s", "t")).cause(1) == "t"


def test_a_bomb_is_not_unpacked() -> None:
    bomb = (2**31 - 1).to_bytes(4, "little") + lz4.block.compress(b"x", store_size=False)
    with pytest.raises(errors.Malformed, match="at most"):
        codec.decode_body(bomb, True)


@given(st.binary(max_size=200))
def test_random_bytes_are_malformed_or_a_header(frame: bytes) -> None:
    for data in (frame, bytes([PROTOCOL]) + frame):
        try:
            assert isinstance(codec.decode_header(data), Header)
        except errors.Malformed:
            pass


@given(st.binary(max_size=200), st.booleans())
def test_random_bodies_are_malformed_or_data(frame: bytes, compressed: bool) -> None:
    for decode in (
        lambda: codec.decode_body(frame, compressed),
        lambda: codec.decode_error(frame),
        lambda: codec.split_items(frame, 3),
    ):
        try:
            decode()
        except errors.Malformed:
            pass


def test_deep_nesting_is_malformed() -> None:
    with pytest.raises(errors.Malformed):
        codec.decode_body(b"\x91" * 100_000 + b"\xc0")


@pytest.mark.parametrize("frame", [b"", b"\1\x91\1", bytes([PROTOCOL]) + b"\xc4" * 20_000])
def test_other_versions_and_long_headers_are_malformed(frame: bytes) -> None:
    with pytest.raises(errors.Malformed):
        codec.decode_header(frame)


def test_an_error_comes_back_as_its_class() -> None:
    back = codec.decode_error(codec.encode_error(errors.ReadOnly("asked, found", "do", primary=3)))
    assert (type(back), back.message, back.hint, back.details) == (
        errors.ReadOnly,
        "asked, found",
        "do",
        {"primary": 3},
    )


def test_an_unknown_code_comes_back_with_that_code() -> None:
    strange = errors.CoveyError("from a newer version")
    strange.code = "future.thing"
    assert codec.decode_error(codec.encode_error(strange)).code == "future.thing"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", ("a", None)),
        ("a@2", ("a", 2)),
        ("a@127.1.0.2:7400", ("a", "127.1.0.2:7400")),
        ("a@[::1]:7", ("a", "[::1]:7")),
        ("a@127.1.0.2:7400#ab12", ("a", "127.1.0.2:7400#ab12")),
    ],
)
def test_addresses(text: str, expected: tuple[str, int | str | None]) -> None:
    assert split_address(text) == expected
