"""Durations and sizes as people write them: a number with its unit, `250ms`, `5m`, `10MiB`.

For fields of pydantic models: `Duration` is a float in seconds, `Size` an int in bytes; `between` bounds either. A bare
number is an error, because its unit would be a guess; the hint shows the right spelling. Knows nothing of files.
Odd: there is no unit longer than a day (months differ), and no sum of units (`1m30s` is written `90s`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from .findings import quoted
from .measures import BYTES, SECONDS
from .wording import refusal

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_DURATION = re.compile(rf"({_NUMBER})(ms|s|m|h|d)")
_SIZE = re.compile(rf"({_NUMBER})(B|kB|MB|GB|KiB|MiB|GiB)")
_DURATION_WORDS = {
    "ms": ("msec", "msecs", "millis", "millisecond", "milliseconds"),
    "s": ("sec", "secs", "second", "seconds"),
    "m": ("min", "mins", "minute", "minutes"),
    "h": ("hr", "hrs", "hour", "hours"),
    "d": ("day", "days"),
}
_SPELLINGS = {word: unit for unit, words in _DURATION_WORDS.items() for word in (unit, *words)}
_LONGEST = 20


def seconds(written: Any) -> float:
    """Return a duration in seconds; raise the pydantic error that names the right spelling."""
    text = _text(written, "a duration", "duration", "s or {}m", "ms s m h d")
    match = _DURATION.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        raise refusal("bad_duration", f"{quoted(text)} is not a duration", _duration_hint(text))
    return round(float(match[1]) * SECONDS[match[2]], 9)


def size_bytes(written: Any) -> int:
    """Return a size in bytes; raise the pydantic error that names the right spelling."""
    text = _text(written, "a size", "size", "KiB or {}MiB", " ".join(BYTES))
    match = _SIZE.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        raise refusal("bad_size", f"{quoted(text)} is not a size", _size_hint(text))
    found = float(match[1]) * BYTES[match[2]]
    if found != int(found):
        raise refusal("bad_size", f"{quoted(text)} is not a whole number of bytes", "write a smaller unit")
    return int(found)


def show_seconds(value: float) -> str:
    """Return a duration as a file has it, in the largest unit that fits evenly."""
    for unit in ("d", "h", "m", "s", "ms"):
        number = value / SECONDS[unit]
        if number >= 1 and abs(number - round(number)) < 1e-9:
            return f"{round(number)}{unit}"
    return f"{value:g}s"


def show_bytes(value: int) -> str:
    """Return a size as a file has it, in the largest binary unit that fits evenly."""
    for unit in ("GiB", "MiB", "KiB"):
        if value and value % BYTES[unit] == 0:
            return f"{value // BYTES[unit]}{unit}"
    return f"{value}B"


def _text(written: Any, what: str, kind: str, units: str, all_units: str) -> str:
    if isinstance(written, str):
        return written
    if isinstance(written, (int, float)) and not isinstance(written, bool):
        number = f"{written:g}" if isinstance(written, float) else str(written)
        if len(number) <= _LONGEST and re.fullmatch(_NUMBER, number):
            hint = f"write {number}{units.format(number)}  (units: {all_units})"
        else:
            hint = f"units: {all_units}"
        raise refusal("needs_unit", f"{what} needs a unit", hint)
    example = "3s" if kind == "duration" else "10MiB"
    raise refusal("wrong_type", f"{what} must stand here", f"for example {example}")


def _duration_hint(text: str) -> str:
    units = "units: ms s m h d"
    parts = re.findall(rf"({_NUMBER})\s*([A-Za-z]+)", text[:100])
    if not parts or re.sub(rf"({_NUMBER})\s*([A-Za-z]+)", "", text[:100]).strip(" ,"):
        return units
    total = 0.0
    for number, word in parts:
        if word.lower() in ("w", "week", "weeks"):
            number, word = str(float(number) * 7), "d"
        unit = _SPELLINGS.get(word) or _SPELLINGS.get(word.lower())
        if unit is None or len(number) > _LONGEST:
            return units
        total += float(number) * SECONDS[unit]
    if len(parts) == 1 and _SPELLINGS.get(parts[0][1].lower()):
        return f"write {parts[0][0]}{_SPELLINGS[parts[0][1].lower()]}  ({units})"
    return f"write {show_seconds(total)}  ({units})"


def _size_hint(text: str) -> str:
    units = f"units: {' '.join(BYTES)}"
    match = re.fullmatch(rf"({_NUMBER})\s*([A-Za-z]+)", text[:100])
    if match is None or len(match[1]) > _LONGEST:
        return units
    number, word = match.groups()
    for unit in BYTES:
        if word.lower() == unit.lower():
            return f"write {number}{unit}  ({units})"
    letter = word[0].upper()
    if letter in "KMG" and word.lower() in (letter.lower(), f"{letter.lower()}i"):
        decimal = f"{'k' if letter == 'K' else letter}B"
        return f"write {number}{letter}iB or {number}{decimal}  ({units})"
    return f"write {number}B  ({units})" if word.lower() in ("byte", "bytes") else units


def between(least: str, most: str) -> AfterValidator:
    """Bound a `Duration` or a `Size` field; both limits are written as in a file and are allowed values."""
    is_duration = _DURATION.fullmatch(least) is not None
    read: Callable[[Any], float] = seconds if is_duration else size_bytes
    low, high = read(least), read(most)

    def check(value: float) -> float:
        if not low <= value <= high:
            shown = show_seconds(value) if is_duration else show_bytes(int(value))
            if value < low:
                raise refusal("out_of_range", f"{shown} is less than {least}", f"write {least} or more")
            raise refusal("out_of_range", f"{shown} is more than {most}", f"write {most} or less")
        return value

    return AfterValidator(check)


DURATION_PATTERN = rf"^{_NUMBER}(ms|s|m|h|d)$"
SIZE_PATTERN = rf"^{_NUMBER}(B|kB|MB|GB|KiB|MiB|GiB)$"

Duration = Annotated[
    float,
    BeforeValidator(seconds),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN, "examples": ["500ms", "30s", "5m"]}),
]
"""A duration in seconds."""

Size = Annotated[
    int,
    BeforeValidator(size_bytes),
    WithJsonSchema({"type": "string", "pattern": SIZE_PATTERN, "examples": ["64KiB", "10MiB"]}),
]
"""A size in bytes."""
