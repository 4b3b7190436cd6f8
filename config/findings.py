"""What is wrong in a file, at which place, and what to write instead.

Knows no YAML and no model: it gets places and words from `tree` and `document` and shows them. A finding is
shown as the line `FILE:LINE:COLUMN: error[CODE]: message`, the source line, and carets with the hint. Lines
and columns count from 1, columns in characters. What `covey explain` says about a code stands in
`codes.FINDINGS`.
Odd: a hint may have several lines; the first goes behind the carets, the others (and `allowed: …`) below
them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Severity = Literal["error", "warning"]

SHOWN = 20
_WINDOW = 100
_BREAKS = re.compile(r"\r\n|[\n\r\x85\u2028\u2029]")


class Place(NamedTuple):
    """A stretch of one line: where it begins, both from 1, and how many characters it is long."""

    line: int
    column: int
    width: int = 1


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong (`error`) or doubtful (`warning`) at one place of one file."""

    code: str
    severity: Severity
    file: str
    line: int
    column: int
    message: str
    hint: str = ""
    source: str = ""
    width: int = 1

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that `config check -o json` prints."""
        return {
            "code": self.code,
            "severity": self.severity,
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "message": self.message,
            "hint": self.hint,
        }

    def render(self) -> str:
        """Return the finding as a person reads it: what, the source line, carets with the hint, more."""
        head = f"{printable(self.file)}:{self.line}:{self.column}: {self.severity}[{self.code}]: "
        lines = [head + printable(self.message)]
        hints = [printable(line) for line in self.hint.splitlines()]
        gutter = max(5, len(str(self.line)))
        if self.source.strip():
            behind = hints.pop(0) if hints and not hints[0].startswith("allowed:") else ""
            text, before, carets = _window(self.source, self.column, self.width)
            lines.append(f"{self.line:>{gutter}} | {text}")
            lines.append(f"{'':>{gutter}} | {before}{carets} {behind}".rstrip())
        lines += [f"{'':>{gutter}} = {hint}" for hint in hints]
        return "\n".join(lines)


class Source:
    """The text of one file, cut into lines, that turns places into findings."""

    def __init__(self, file: str, text: str = "", prefix: str = "config.") -> None:
        self.file = file
        self.prefix = prefix
        self.lines = _BREAKS.split(text)

    def line(self, number: int) -> str:
        """Return a line by its number from 1, without its end; empty when the file has no such line."""
        return self.lines[number - 1] if 0 < number <= len(self.lines) else ""

    def finding(self, code: str, place: Place, message: str, hint: str = "", severity: Severity = "error") -> Finding:
        """Make a finding; a code without a dot gets the prefix of this kind of file."""
        full = code if "." in code else self.prefix + code
        return Finding(full, severity, self.file, *place[:2], message, hint, self.line(place.line), max(1, place.width))


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings by position, each only once."""
    return sorted(dict.fromkeys(findings), key=lambda found: (found.file, found.line, found.column, found.code))


def render_all(findings: Sequence[Finding], shown: int = SHOWN) -> str:
    """Return the findings as text, the first `shown` of them in full, and a last line that counts them."""
    parts = [found.render() for found in findings[:shown]]
    if len(findings) > shown:
        parts.append(f"… and {len(findings) - shown} more")
    counts = []
    for severity in ("error", "warning"):
        number = sum(found.severity == severity for found in findings)
        if number:
            counts.append(f"{number} {severity}{'s' if number > 1 else ''}")
    files = sorted({found.file for found in findings})
    if counts:
        where = printable(files[0]) if len(files) == 1 else f"{len(files)} files"
        parts.append(f"{' and '.join(counts)} in {where}")
    return "\n".join(parts)


def printable(text: str) -> str:
    """Return text that is safe on a terminal: tabs stay, what cannot be printed becomes `?`."""
    return "".join(char if char == "\t" or char.isprintable() else "?" for char in text)


def quoted(text: str, longest: int = 60) -> str:
    """Return a value of the file as a message shows it: in quotes, on one line, not too long."""
    flat = " ".join(text.split()) if text.strip() else text
    return f"'{flat}'" if len(flat) <= longest else f"'{flat[: longest - 1]}…'"


def _window(source: str, column: int, width: int) -> tuple[str, str, str]:
    """Cut a long line around the place; return it, what stands before the carets, and the carets."""
    text = printable(source)
    start = min(column - 1, len(text))
    width = max(1, min(width, len(text) - start, _WINDOW))
    left = max(0, start + width - _WINDOW) if len(text) > _WINDOW else 0
    shown = text[left : left + _WINDOW]
    before = "".join(char if char == "\t" else " " * _cells(char) for char in text[left:start])
    carets = "^" * max(1, sum(_cells(char) for char in text[start : start + width]))
    if left:
        shown, before = "…" + shown, " " + before
    if left + _WINDOW < len(text):
        shown += "…"
    return shown, before, carets


def _cells(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
