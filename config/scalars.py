"""What one YAML scalar means: the types of the YAML 1.2 core schema, and `${env:NAME}`.

Knows nothing of positions. Plain (unquoted) scalars are typed by the table below and nothing else: `no`,
`on`, `1:30` and dates are text, `012` is the number 12, `0o14` is 12, `~` and nothing at all are null. Quoted
scalars are text. Variables are replaced inside a scalar after the file was parsed, so a value can hold no
structure. A plain scalar is typed after the replacement (`port: ${env:PORT}` is a number), a quoted one stays
text; an empty result is empty text, not null. `${env:NAME:-default}` takes the default when NAME is unset or
empty; `$${env:` means a literal `${env:`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

ScalarValue = str | bool | int | float | None

_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
# Python refuses to turn more digits than 4300 into a number; nobody needs half of that.
_LONGEST_NUMBER = 1000
_NUMBERS: list[tuple[re.Pattern[str], Callable[[str], int | float]]] = [
    (re.compile(r"[-+]?[0-9]+"), int),
    (re.compile(r"0o[0-7]+"), lambda text: int(text[2:], 8)),
    (re.compile(r"0x[0-9a-fA-F]+"), lambda text: int(text[2:], 16)),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), float),
    (re.compile(r"[-+]?\.(inf|Inf|INF)"), lambda text: float(text.replace(".", ""))),
    (re.compile(r"\.(nan|NaN|NAN)"), lambda _: float("nan")),
]
_VARIABLE = re.compile(r"(\$?)\$\{env:([^}]*)(\}?)")
_INSIDE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


class VariableProblem(NamedTuple):
    """Why one `${env:…}` could not be replaced; `written` is how it stands in the file."""

    written: str
    code: str
    message: str
    hint: str


def resolve(text: str) -> ScalarValue:
    """Return what a plain scalar means by the YAML 1.2 core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) <= _LONGEST_NUMBER:
        for pattern, convert in _NUMBERS:
            if pattern.fullmatch(text):
                return convert(text)
    return text


def substitute(text: str, env: Mapping[str, str]) -> tuple[str, list[VariableProblem]]:
    """Replace the variables of one scalar; return the text and what was wrong with any of them."""
    problems: list[VariableProblem] = []

    def replace(match: re.Match[str]) -> str:
        escaped, inside, closed = match.groups()
        written = match.group()
        if escaped:
            return written[1:]
        parts = _INSIDE.fullmatch(inside)
        if not closed or not parts:
            problems.append(
                VariableProblem(written, "bad_variable", f"'{written}' is not a variable", "write ${env:NAME}")
            )
            return ""
        name, default = parts.groups()
        value = env.get(name)
        if default is not None and not value:
            value = default
        if value is None:
            hint = f"set it, or give a default: ${{env:{name}:-value}}"
            problems.append(VariableProblem(written, "unset_variable", f"environment variable {name} is not set", hint))
            return ""
        if any("\ud800" <= char <= "\udfff" for char in value):
            problems.append(
                VariableProblem(
                    written,
                    "bad_variable",
                    f"environment variable {name} does not hold UTF-8 text",
                    "set it again, as UTF-8",
                )
            )
            return ""
        return value

    return _VARIABLE.sub(replace, text), problems
