"""Amounts as people read them: sizes, rates and times from a resource class's own units.

Knows the units of resource descriptions (UCUM: `By` is bytes), nothing of any class. Programs get the plain numbers,
with `-o json`.
"""

from __future__ import annotations

from typing import Any

_BINARY = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_DECIMAL = ("kbit/s", "Mbit/s", "Gbit/s", "Tbit/s")

EXACT = 10 * 1024
"""Sizes below this are said to the byte, as for an MTU."""


def human(value: Any, unit: str | None, kind: str | None = None) -> Any:
    """Return the value of an attribute with its unit as text, or as it is when there is nothing to make plainer.

    `kind` is the attribute's type: a duration is in seconds without saying so.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    if unit == "By" and abs(value) >= EXACT:
        return _scaled(value, 1024, "B", _BINARY)
    if unit == "By":
        return f"{value:g} B"
    if unit == "bit/s":
        return _scaled(value, 1000, "bit/s", _DECIMAL)
    if kind == "duration":
        return span(value)
    return value


def span(seconds: float) -> str:
    """Return a time in its two largest units: `1h57m`, `3d4h`, `12.5s`."""
    if seconds < 60:
        return f"{seconds:.3g}s"
    parts: list[str] = []
    left = round(seconds)
    for size, letter in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        number, left = divmod(left, size)
        if number or parts:
            parts.append(f"{number}{letter}")
    return "".join(part for part in parts[:2] if not part.startswith("0"))


def _scaled(value: float, step: int, small: str, larger: tuple[str, ...]) -> str:
    if abs(value) < step:
        return f"{value:g} {small}"
    power = 0
    while abs(value) >= step and power < len(larger):
        value /= step
        power += 1
    name = larger[power - 1]
    return f"{value:.3g} {name}" if abs(value) < 999.5 else f"{value:.0f} {name}"
