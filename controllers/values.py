"""Single values of the attribute types, each brought into its one normal form.

The forms are plain JSON, so that the registry, the bus and `-o json` hold the same: a timestamp is RFC 3339 text in
UTC, a duration a number of seconds, binary is base64 text. Knows no class and no controller.
Odd: a whole number is a good float and never the other way round; true is no number.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from ..config.measures import factor, written_units
from .classes import NUMERIC, Field

_FLOAT32_MAX = (2 - 2**-23) * 2.0**127
_INTEGERS = {
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint64": (0, 2**64 - 1),
}


def normal(value: Any, field: Field) -> Any:
    """Return the value in the normal form of its type. Raises ValueError that says what is expected instead."""
    try:
        return _normal(value, field)
    except ValueError:
        if field.sensitive:  # its error text would show it
            raise ValueError(f"the value is no {field.type_text}") from None
        raise


def _normal(value: Any, field: Field) -> Any:
    if not field.many:
        return _NORMAL[field.type](value, field.type)
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{shown(value)} is no {field.type_text}")
    result = []
    for number, item in enumerate(value):
        try:
            result.append(_NORMAL[field.type](item, field.type))
        except ValueError as error:
            raise ValueError(f"item {number + 1}: {error}") from None
    return result


def _bool(value: Any, wanted: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{shown(value)} is no {wanted}")
    return value


def _integer(value: Any, wanted: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{shown(value)} is no {wanted}")
    least, most = _INTEGERS[wanted]
    if not least <= value <= most:
        raise ValueError(f"{value} is no {wanted}: it must be from {least} to {most}")
    return int(value)


def _float(value: Any, wanted: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ValueError(f"{shown(value)} is no {wanted}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or (wanted == "float32" and abs(number) > _FLOAT32_MAX):
        raise ValueError(f"{shown(value)} is no {wanted}: it must be a finite number; use null for 'not known'")
    return number


def _string(value: Any, wanted: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is no {wanted}")
    text = str.__str__(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{text!a} is no {wanted}: it holds bytes that are no UTF-8 text") from None
    return text


def _binary(value: Any, wanted: str) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    if isinstance(value, str):
        try:
            return base64.b64encode(base64.b64decode(value, validate=True)).decode()
        except (binascii.Error, ValueError):
            raise ValueError(f"{shown(value)} is no {wanted}: as text it must be base64") from None
    raise ValueError(f"{shown(value)} is no {wanted}")


def _timestamp(value: Any, wanted: str) -> str:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{shown(value)} is no {wanted}: write it like 2026-01-31T12:00:00Z") from None
    if not isinstance(value, datetime):
        raise ValueError(f"{shown(value)} is no {wanted}: give a datetime with a time zone, or RFC 3339 text")
    if value.tzinfo is None:
        raise ValueError(f"{value.isoformat()} is no {wanted}: it has no time zone")
    try:
        utc = value.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{value.isoformat()} is no {wanted}: in UTC it is before the year 1 or after 9999") from None
    return utc.isoformat().replace("+00:00", "Z")


def _duration(value: Any, wanted: str) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, str):
        from ..config.units import seconds  # brings pydantic, and most values are numbers

        return seconds(value)
    return _float(value, wanted)


def from_text(text: str, field: Field) -> Any:
    """Return what a person typed for a field, as the value that `normal` takes. Raises ValueError: what to write.

    A number may have a unit that can be turned into the field's; a duration must. A list is written `a,b`, or as JSON.
    """
    try:
        return _list_from_text(text, field) if field.many else _from_text(text, field)
    except ValueError:
        if field.sensitive:  # its error text would show it
            raise ValueError(f"the value is no {field.type_text}") from None
        raise


def _list_from_text(text: str, field: Field) -> Any:
    if text.startswith("["):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError(f"{shown(text)} is no list: write a,b or JSON") from None
    return [_from_text(part.strip(), field) for part in text.split(",")] if text.strip() else []


def _from_text(text: str, field: Field) -> Any:
    if field.type == "bool":
        if text not in ("true", "false"):
            raise ValueError(f"{shown(text)} is no bool: write true or false")
        return text == "true"
    if field.type not in (*NUMERIC, "duration"):
        return text
    unit = "s" if field.type == "duration" else field.unit
    units = ", ".join(written_units(unit))
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(f"{shown(text)} is no {field.type}" + (f"; units: {units}" if units else ""))
    digits, written = match.groups()
    if field.type == "duration" and not written:
        raise ValueError(f"{shown(text)} has no unit: write {text}s or {text}ms")
    times = factor(written, unit) if written else 1
    if times is None:
        raise ValueError(
            f"{shown(text)} has a unit that does not fit: " + (f"units: {units}" if units else "it has none")
        )
    number = int(digits) if _WHOLE.fullmatch(digits) else float(digits)
    number = number * times if times != 1 else number
    whole = field.type in _INTEGERS and isinstance(number, float) and number.is_integer()
    return int(number) if whole else number


_NUMBER = re.compile(r"([+-]?[0-9]{1,40}(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?)\s*([A-Za-z%/]*)")
_WHOLE = re.compile(r"[+-]?[0-9]+")

_NORMAL: dict[str, Callable[[Any, str], Any]] = {
    "bool": _bool,
    **dict.fromkeys(_INTEGERS, _integer),
    "float32": _float,
    "float64": _float,
    "string": _string,
    "binary": _binary,
    "timestamp": _timestamp,
    "duration": _duration,
}


def shown(value: Any) -> str:
    """Return how a message shows a value: short, and only the type of what is no simple value."""
    if isinstance(value, (bool, int, float, str)) or value is None:
        text = repr(value) if value is not None else "null"
    else:
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 80 else text[:79] + "…"
