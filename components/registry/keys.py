"""What a key and a value may be. Pure; the one place that judges them.

Knows neither the store nor who asks, but for one rule: users write below `/app/` only. That rule is applied where a
call enters the node (`service.py`), because behind it a forwarded call speaks with the role of a component.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import msgspec

from ...errors import BadArguments, BadKey, ReservedKey, TooLarge
from .settings import KEY_BYTES, VALUE_BYTES, VALUE_DEPTH

USERS = "/app/"
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode


def check_key(key: str) -> str:
    """Return the key if it is an absolute path without an empty part; raise `BadKey`."""
    if not key.startswith("/"):
        meant = "/" + key if key.startswith("app/") else "/app/" + key
        raise BadKey(f"the key {_short(key)} does not begin with a slash", f"did you mean {_short(meant)}?")
    if key.endswith("/") or "//" in key:
        raise BadKey(f"the key {_short(key)} has an empty part", "leave out the slash that is too many")
    _check_text(key, "key")
    return key


def check_prefix(prefix: str) -> str:
    """Return the prefix if some key can begin with it; raise `BadKey`."""
    if not prefix.startswith("/"):
        raise BadKey(f"the prefix {_short(prefix)} does not begin with a slash", "`/` stands for all keys")
    if "//" in prefix:
        raise BadKey(f"the prefix {_short(prefix)} has an empty part", "leave out the slash that is too many")
    _check_text(prefix, "prefix")
    return prefix


def check_users(keys: Iterable[str]) -> None:
    """Raise `ReservedKey` when a user may not write one of the keys."""
    for key in keys:
        if not key.startswith(USERS):
            raise ReservedKey(
                f"the key {_short(key)} belongs to covey's components", f"choose a key below {USERS}", key=key
            )


def pack_value(key: str, value: object) -> bytes:
    """Return the packed bytes of a JSON value; raise `BadArguments` or `TooLarge`."""
    _check_json(key, value, VALUE_DEPTH)
    try:
        packed = _pack(value)
    except (OverflowError, UnicodeEncodeError) as error:
        raise BadArguments(f"the value of {_short(key)} cannot be stored: {error}", "integers have 64 bits") from error
    if len(packed) > VALUE_BYTES:
        raise TooLarge(
            f"the value of {_short(key)} has {len(packed)} bytes, at most {VALUE_BYTES} are stored",
            "keep large things in a file and its place in the registry",
        )
    return packed


def unpack_value(packed: bytes) -> Any:
    """Return the JSON value of packed bytes."""
    return _unpack(packed)


def _check_text(text: str, what: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise BadKey(f"the {what} {_short(text)} is not valid Unicode") from None
    if size > KEY_BYTES:
        raise BadKey(f"the {what} {_short(text)} has {size} bytes, at most {KEY_BYTES} are allowed")
    if not text.isprintable():
        raise BadKey(f"the {what} {_short(text)} holds a character that cannot be printed")


def _check_json(key: str, value: object, depth: int) -> None:
    if value is None or isinstance(value, bool | int | str):
        return
    if isinstance(value, float):
        if math.isfinite(value):
            return
        raise BadArguments(f"the value of {_short(key)} holds {value}, which JSON does not have", "use null or a text")
    if depth == 0:
        raise BadArguments(f"the value of {_short(key)} is nested more than {VALUE_DEPTH} levels deep")
    if isinstance(value, list | tuple):
        for part in value:
            _check_json(key, part, depth - 1)
        return
    if isinstance(value, dict):
        for name, part in value.items():
            if not isinstance(name, str):
                raise BadArguments(f"the value of {_short(key)} has the name {name!r}: names in JSON are text")
            _check_json(key, part, depth - 1)
        return
    raise BadArguments(f"the value of {_short(key)} holds a {type(value).__name__}: only JSON values are stored")


def _short(text: str) -> str:
    return ascii(text if len(text) <= 80 else text[:77] + "...")
