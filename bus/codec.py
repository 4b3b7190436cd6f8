"""Bytes of the wire: headers, items, batches. Everything that does not decode raises `errors.Malformed`.

An item is msgpack; a body is one item, or an array of them. Bodies that leave the node are lz4-compressed above a
threshold when that makes them smaller; within a node, copying is cheaper than compressing. Hostile bytes are expected:
the header is decoded into a typed struct with its size bounded, a body is decompressed only up to the largest body.
"""

from __future__ import annotations

from typing import Any

import lz4.block
import msgspec

from ..errors import CoveyError, Malformed, TooLarge, UsageError, from_wire
from .messages import PROTOCOL, ErrorBody, Header

MAX_HEADER = 16 * 1024
"""Bytes. Names are short, and a batch has at most `MAX_BATCH` ids and causes; a longer header is an attack or a bug."""

MAX_BATCH = 100
"""Items in one message."""

BATCH_BYTES = 64 * 1024
"""Bytes of items after which a batch is full: what is larger goes alone, and nobody waits long for one message."""

MAX_BODY = 16 * 1024 * 1024
"""Bytes, after decompression. Registry values hold at most 1 MiB; lists of many resources are the largest bodies."""

COMPRESS_ABOVE = 4096
"""Bytes. Below it, one packet carries the body anyway and compressing only costs time."""

_VERSION = bytes([PROTOCOL])
_encoder = msgspec.msgpack.Encoder()
_header_decoder = msgspec.msgpack.Decoder(Header)
_items_decoder = msgspec.msgpack.Decoder(list[msgspec.Raw])
_error_decoder = msgspec.msgpack.Decoder(ErrorBody)
_any_decoder = msgspec.msgpack.Decoder()


def encode_header(header: Header) -> bytes:
    """Return the header frame: the protocol version, then the header as a msgpack array.

    Raises UsageError for text that is no Unicode, TooLarge for a header that no broker would take.
    """
    try:
        frame = _VERSION + _encoder.encode(header)
    except (UnicodeEncodeError, OverflowError):
        frame = _VERSION + _encode(header)  # raises what it means
    if len(frame) > MAX_HEADER:
        raise TooLarge(
            f"'{header.topic[:40]}' to '{header.destination[:40]}': a header of {len(frame)} bytes, "
            f"at most {MAX_HEADER} are allowed",
            "names of services, verbs and topics are short",
        )
    return frame


def decode_header(frame: bytes) -> Header:
    """Read a header frame; raises Malformed for another protocol version and for anything that is no header."""
    if not frame or frame[0] != PROTOCOL:
        raise Malformed(f"unknown protocol version {frame[0] if frame else 'none'}; this node speaks {PROTOCOL}")
    if len(frame) > MAX_HEADER:
        raise Malformed(f"a header of {len(frame)} bytes, at most {MAX_HEADER} are allowed")
    try:
        return _header_decoder.decode(frame[1:])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
        raise Malformed(f"a header that does not decode: {problem}") from None


def encode_item(value: Any) -> bytes:
    """Return the bytes of one item; raises TooLarge, UsageError, TypeError."""
    try:
        data = _encoder.encode(value)
    except (UnicodeEncodeError, OverflowError, RecursionError):
        data = _encode(value)  # which says it in our words
    if len(data) > MAX_BODY:
        raise TooLarge(f"a body of {len(data)} bytes, at most {MAX_BODY} are allowed", "send it in parts")
    return data


def join_items(items: list[bytes]) -> bytes:
    """Return the body of a message with these items, at least one."""
    if len(items) == 1:
        return items[0]
    count = len(items)
    return (bytes([0x90 | count]) if count < 16 else b"\xdc" + count.to_bytes(2, "big")) + b"".join(items)


def split_items(body: bytes | memoryview, count: int) -> list[bytes | memoryview | msgspec.Raw]:
    """Return the `count` items of an uncompressed body; raises Malformed when there are not so many."""
    if count == 1:
        return [body]
    try:
        items = _items_decoder.decode(body)
    except (msgspec.MsgspecError, RecursionError) as problem:
        raise Malformed(f"a batch that does not decode: {problem}") from None
    if len(items) != count:
        raise Malformed(f"a batch of {len(items)} items, its header says {count}")
    return list(items)


def compress(body: bytes) -> tuple[bytes, bool]:
    """Return a body as it leaves the node, and whether it is compressed: when it is large and that helps."""
    if len(body) > COMPRESS_ABOVE:
        packed = lz4.block.compress(body)
        if len(packed) < len(body):
            return packed, True
    return body, False


def _encode(value: Any) -> bytes:
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError as problem:
        raise UsageError(f"{problem.object!a} is no Unicode text, a message cannot carry it") from None
    except OverflowError:
        raise UsageError("an integer is out of range: a message carries those from -2**63 to 2**64 - 1") from None
    except RecursionError:
        raise UsageError("a value is nested too deeply for a message") from None


def unpack_body(data: bytes | memoryview, compressed: bool) -> bytes | memoryview:
    """Return the body's msgpack bytes; raises Malformed for a broken or oversized compressed body."""
    if not compressed:
        return data
    size = int.from_bytes(data[:4], "little")
    if size > MAX_BODY:
        raise Malformed(f"a compressed body says it holds {size} bytes, at most {MAX_BODY} are allowed")
    try:
        return bytes(lz4.block.decompress(data))
    except (lz4.block.LZ4BlockError, ValueError, MemoryError) as problem:
        raise Malformed(f"a compressed body that does not unpack: {problem}") from None


def decode_body(data: bytes | memoryview, compressed: bool = False) -> Any:
    """Read a body into plain data (dict, list, str, bytes, numbers, None); raises Malformed."""
    try:
        return _any_decoder.decode(unpack_body(data, compressed))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
        raise Malformed(f"a body that does not decode: {problem}") from None


def encode_error(error: CoveyError) -> bytes:
    """Return the body of an ERROR message. What msgpack cannot say goes as text."""
    try:
        return _encoder.encode(ErrorBody(error.code, error.message, error.hint, error.details))
    except (TypeError, UnicodeEncodeError, OverflowError, RecursionError):
        # an error must always get through: names of files need not be Unicode, and details can be anything
        details = {_shown(key): _shown(value) for key, value in error.details.items()}
        return _encoder.encode(ErrorBody(error.code, _shown(error.message), _shown(error.hint), details))


def _shown(value: object) -> str:
    return str(value).encode(errors="backslashreplace").decode()


def decode_error(data: bytes | memoryview | msgspec.Raw) -> CoveyError:
    """Read the body of an ERROR message into the exception it stands for; raises Malformed."""
    try:
        body = _error_decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
        raise Malformed(f"an error body that does not decode: {problem}") from None
    return from_wire(body.code, body.message, body.hint, body.details)
