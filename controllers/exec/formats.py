"""What commands print, in four usual forms, as values by name: words, Nagios plugins, OpenMetrics, JSON.

Knows no command and no class; `fitted` turns what was printed as text into the attribute's type. What cannot be read at
all raises ValueError; what is only strange becomes a value that the class's own check then complains of.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..classes import Field
from ..values import from_text

STATUS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
"""What the exit codes 0 to 3 of a Nagios plugin mean (Monitoring Plugins Development Guidelines, 2.3)."""

_PERFDATA = re.compile(r"\s*(?:'((?:[^']|'')+)'|([^\s'=]+))=([^\s;]*)(?:;[^\s]*)?")
_QUANTITY = re.compile(r"([-+]?[0-9]*[.,]?[0-9]+(?:[eE][-+]?[0-9]+)?)([A-Za-z%]*)")
_UNITS = {"KB": "KiB", "MB": "MiB", "GB": "GiB", "TB": "TiB", "c": ""}
"""Plugins count 1024 bytes as one KB; `c` marks a counter, which is no unit."""

_METRIC = r"([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})?"
_VALUE = r"[-+]?(?:[0-9.]+(?:[eE][-+]?[0-9]+)?|Inf|NaN)"
_WANTED = re.compile(_METRIC)
_SAMPLE = re.compile(rf"{_METRIC}\s+({_VALUE})(?:\s+[-+0-9.eE]+)?(?:\s+#.*)?")
_LABEL = re.compile(r'\s*([A-Za-z_][A-Za-z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)')


class Sample(NamedTuple):
    """One metric of an exposition: its name, its labels and its value as written."""

    name: str
    labels: Mapping[str, str]
    value: str


def words(printed: str) -> dict[str, Any]:
    """Read `Count=10 Model="two words"`; a word without `=` has no value. Raises ValueError."""
    found: dict[str, Any] = {}
    for word in shlex.split(printed):
        name, equals, value = word.partition("=")
        found[name] = value if equals else None
    return found


def one_json(printed: str) -> dict[str, Any]:
    """Read one JSON object. Raises ValueError."""
    found = _json(printed)
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found


def many(printed: str) -> Iterator[dict[str, Any]]:
    """Read what a discovery printed: a JSON list of objects, or a line of words for each. Raises ValueError."""
    if not printed.lstrip().startswith("["):
        yield from (words(line) for line in printed.splitlines() if line.strip())
        return
    for found in _json(printed):
        if not isinstance(found, dict):
            raise ValueError("an item of the JSON list is no object")
        yield found


def nagios(printed: str) -> tuple[str, dict[str, str]]:
    """Read what a plugin printed: its text, and its performance data by label (units in our spelling)."""
    text, performance = [], []
    in_data = False  # behind a `|` of the long text everything is performance data
    for number, line in enumerate(printed.splitlines()):
        said, bar, data = line.partition("|")
        if in_data:
            said, data = "", line
        elif number and bar:
            in_data = True
        text.append(said.strip())
        performance.append(data)
    found = {}
    for match in _PERFDATA.finditer(" ".join(performance)):
        label = match[1].replace("''", "'") if match[1] else match[2]
        found[label] = _quantity(match[3])
    return "\n".join(text).strip(), found


def openmetrics(printed: str) -> list[Sample]:
    """Read the samples of an OpenMetrics or Prometheus text exposition. Raises ValueError naming the line."""
    found = []
    for number, line in enumerate(printed.splitlines()):
        if not line.strip() or line.startswith("#"):
            continue
        match = _SAMPLE.fullmatch(line.strip())
        if match is None:
            raise ValueError(f"line {number + 1} is no metric")
        found.append(Sample(match[1], _labels(match[2] or ""), match[3]))
    return found


def wanted_sample(written: str) -> Sample:
    """Read which metric is meant, `name` or `name{label="value"}`. Raises ValueError."""
    match = _WANTED.fullmatch(written.strip())
    if match is None:
        raise ValueError(f"{written!r} is no metric")
    return Sample(match[1], _labels(match[2] or ""), "")


def picked(samples: list[Sample], wanted: Sample) -> str | None:
    """Return the value of the one sample with that name and at least those labels; None when there is none.

    Raises ValueError when there are several.
    """
    found = [one for one in samples if one.name == wanted.name and wanted.labels.items() <= one.labels.items()]
    if len(found) > 1:
        raise ValueError(f"{len(found)} samples of {wanted.name} fit: name more labels")
    return found[0].value if found else None


def inside(values: Mapping[str, Any], path: str) -> Any:
    """Return what is at `a.b` in nested objects; None when it is not there."""
    found: Any = values
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def fitted(value: Any, field: Field) -> Any:
    """Return what was printed as text in the type of its attribute; as it is, when it does not fit."""
    if not isinstance(value, str) or field.type == "string":
        return value
    if value in ("", "U", "NaN", "nan"):
        return None  # not known
    try:
        number = from_text(_without_unit(value) if not field.unit and field.type != "duration" else value, field)
    except ValueError:
        return value
    whole = field.type not in ("float32", "float64") and isinstance(number, float) and math.isfinite(number)
    return int(number) if whole and field.type != "duration" and number.is_integer() else number


def _without_unit(value: str) -> str:
    match = _QUANTITY.fullmatch(value)
    return match[1] if match else value


def _quantity(written: str) -> str:
    match = _QUANTITY.fullmatch(written)
    if match is None:
        return written
    number, unit = match[1].replace(",", "."), _UNITS.get(match[2], match[2])
    number = f"0{number}" if number.startswith(".") else number
    return f"{float(number) / 1000:.12g}us" if unit == "ns" else number + unit


def _labels(written: str) -> dict[str, str]:
    found, position = {}, 0
    while position < len(written):
        match = _LABEL.match(written, position)
        if match is None:
            raise ValueError(f"{{{written}}} are no labels")
        found[match[1]] = re.sub(r"\\(.)", lambda one: "\n" if one[1] == "n" else one[1], match[2])
        position = match.end()
    return found


def _json(printed: str) -> Any:
    try:
        return json.loads(printed)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except json.JSONDecodeError:
        raise
    except ValueError:  # Python speaks of a switch of its own here
        raise ValueError("it holds a number of too many digits") from None
