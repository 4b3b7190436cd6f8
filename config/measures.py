"""The units of times and sizes, and which can be turned into one another.

`SECONDS` and `BYTES` are what people write; descriptions of resources also have the spellings of UCUM (`By`, `min`).
Every other unit is known by its name alone. Odd: `m` is what people write for a minute, but the metre as the unit of an
attribute.
"""

from __future__ import annotations

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
BYTES = {
    "B": 1,
    "kB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
}

_TIMES = {"us": 1e-6, **SECONDS}
_SIZES = {**BYTES, "TB": 1000**4, "TiB": 1024**4}
_FAMILY = {unit: ("time", factor) for unit, factor in {**_TIMES, "min": 60.0}.items()}
_FAMILY |= {unit: ("size", float(factor)) for unit, factor in _SIZES.items()}
_FAMILY |= {unit.replace("B", "By"): ("size", float(factor)) for unit, factor in _SIZES.items()}


def factor(unit: str, other: str) -> float | None:
    """Return how many of the other unit one of the first is; None when they measure different things."""
    if unit == other:
        return 1
    family, one = _FAMILY.get(unit, ("", 1.0))
    wanted, by = _FAMILY.get(other, ("", 1.0))
    if not family or family != wanted or other == "m":
        return None
    found = one / by
    return round(found) if abs(found - round(found)) < 1e-9 * found else found


def written_units(unit: str) -> tuple[str, ...]:
    """Return the units in which people can write what is measured in `unit`."""
    family = _FAMILY.get(unit, ("",))[0] if unit != "m" else ""
    if family:
        return tuple(_TIMES if family == "time" else _SIZES)
    return (unit,) if unit else ()
