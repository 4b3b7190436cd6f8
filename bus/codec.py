"""Bytes of the wire: headers, bodies, events. Everything that does not decode raises `errors.Malformed`.

Bodies are msgpack, lz4-compressed above a threshold when that makes them smaller. Hostile bytes are expected: the
header is decoded into a typed struct with its size bounded, a body is decompressed only up to the largest body.
"""

from __future__ import annotations

from typing import Any

import lz4.block
import msgspec

from ..errors import CoveyError, Malformed, TooLarge, UsageError, from_wire
from .messages import PROTOCOL, ErrorBody, EventHead, Header

MAX_HEADER = 4096
"""Bytes. Names and topics are short; a longer header is an attack or a bug."""

MAX_BODY = 16 * 1024 * 1024
"""Bytes, after decompression. Registry values hold at most 1 MiB; lists of many resources are the largest bodies."""

COMPRESS_ABOVE = 4096
"""Bytes. Below it, one packet carries the body anyway and compressing only costs time."""

_VERSION = bytes([PROTOCOL])
_encoder = msgspec.msgpack.Encoder()
_header_decoder = msgspec.msgpack.Decoder(Header)
_event_decoder = msgspec.msgpack.Decoder(EventHead)
_error_decoder = msgspec.msgpack.Decoder(ErrorBody)
_any_decoder = msgspec.msgpack.Decoder()


def encode_header(header: Header) -> bytes:
    """Return the header frame: the protocol version, then the header as a msgpack array.

    Raises UsageError for text that is no Unicode, TooLarge for a header that no broker would take.
    """
    frame = _VERSION + _encode(header)
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
        return _header_decoder.decode(memoryview(frame)[1:])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
        raise Malformed(f"a header that does not decode: {problem}") from None


def encode_body(value: Any) -> tuple[bytes, bool]:
    """Return the body's bytes and whether they are compressed; raises TooLarge, UsageError, TypeError."""
    data = _encode(value)
    if len(data) > MAX_BODY:
        raise TooLarge(f"a body of {len(data)} bytes, at most {MAX_BODY} are allowed", "send it in parts")
    if len(data) > COMPRESS_ABOVE:
        packed = lz4.block.compress(data)
        if len(packed) < len(data):
            return packed, True
    return data, False


def _encode(value: Any) -> bytes:
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError as problem:
        raise UsageError(f"{problem.object!a} is no Unicode text, a message cannot carry it") from None
    except OverflowError:
        raise UsageError("an integer is out of range: a message carries those from -2**63 to 2**64 - 1") from None
    except RecursionError:
        raise UsageError("a value is nested too deeply for a message") from None


def unpack_body(data: bytes, compressed: bool) -> bytes:
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


def decode_body(data: bytes, compressed: bool = False) -> Any:
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


def decode_error(data: bytes) -> CoveyError:
    """Read the body of an ERROR message into the exception it stands for; raises Malformed."""
    try:
        body = _error_decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
        raise Malformed(f"an error body that does not decode: {problem}") from None
    return from_wire(body.code, body.message, body.hint, body.details)


def encode_event(topic: str, head: EventHead) -> bytes:
    """Return the single frame of an event: topic, NUL, head. Subscriptions match its first bytes."""
    return topic.encode() + b"\0" + _encoder.encode(head)


def decode_event(frame: bytes) -> tuple[str, EventHead]:
    """Read an event frame; raises Malformed."""
    topic, nul, rest = frame.partition(b"\0")
    if not nul:
        raise Malformed("an event without a topic")
    try:
        return topic.decode(), _event_decoder.decode(rest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
        raise Malformed(f"an event that does not decode: {problem}") from None
