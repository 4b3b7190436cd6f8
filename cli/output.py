"""The one place that renders: tables for people, one JSON or YAML envelope for programs, NDJSON for streams, errors.

Knows nothing of verbs or the bus: it gets plain data and a list of blocks that say how a person sees it. `terminal.py`,
and with it rich, is loaded only when standard output is a terminal; in a pipe the same tables are plain aligned text,
so that it stays stable.
What is odd: text that came from elsewhere is printed with its control characters escaped, since a value in the registry
must not be able to drive the reader's terminal.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import CoveyError
from .options import Settings


@dataclass(frozen=True)
class Table:
    """Rows under columns; `empty` is said instead when there are none.

    Headings are in capitals, but for those of a `literal` table. What a narrow terminal does: it leaves out columns of
    `fit` (their positions, the most wanted first; `more` says how to see them), or with `cut` the end of the last one.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    empty: str = "none"
    literal: bool = False
    fit: Sequence[int] = ()
    more: str = ""
    cut: bool = False

    @property
    def headings(self) -> list[str]:
        """The columns' names as they are printed."""
        return [column if self.literal else column.upper() for column in self.columns]


@dataclass(frozen=True)
class Fields:
    """Names and values, one a line."""

    pairs: Sequence[tuple[str, Any]]


Block = str | Table | Fields


@dataclass
class Envelope:
    """What stands around the data of an answer: where it came from, and what to be careful about."""

    schema: str
    cluster: dict[str, Any] | None = None
    node: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)

    def around(self, data: Any) -> dict[str, Any]:
        """Return the object that `-o json` prints."""
        return {
            "schema": f"covey/{self.schema}/1",
            "generated_at": timestamp(),
            "cluster": self.cluster,
            "node": self.node,
            "data": plain(data),
            "warnings": self.warnings,
        }


def print_result(envelope: Envelope, data: Any, blocks: Iterable[Block], settings: Settings) -> None:
    """Print the answer of a command in the form that was asked for."""
    if settings.output == "json":
        write(to_json(envelope.around(data), indent=2 if sys.stdout.isatty() else None))
    elif settings.output == "yaml":
        write(to_yaml(envelope.around(data)))
    else:
        print_blocks(blocks)
        for warning in envelope.warnings:
            note(f"warning: {warning}")


def print_blocks(blocks: Iterable[Block]) -> None:
    """Print blocks for a person."""
    for block in blocks:
        if isinstance(block, str):
            write(escape(block))
        elif isinstance(block, Fields):
            print_fields(block)
        elif not block.rows:
            write(block.empty)
        elif sys.stdout.isatty():
            from .terminal import print_table

            print_table(block)
        else:
            write("\n".join(aligned(block)))


class Stream:
    """Prints one line at a time: text on a terminal, NDJSON in a pipe or with `-o json`, documents with `-o yaml`."""

    def __init__(self, settings: Settings) -> None:
        self.form = settings.output or ("table" if sys.stdout.isatty() else "json")

    def line(self, data: Mapping[str, Any], text: str) -> None:
        """Print one record; it is flushed, since a reader of a pipe wants it now."""
        if self.form == "json":
            write(to_json(plain(data)))
        elif self.form == "yaml":
            write("---\n" + to_yaml(plain(data)))
        else:
            write(escape(text))
        sys.stdout.flush()

    def remark(self, text: str) -> None:
        """Say something to the person only, beside the records."""
        if self.form == "table":
            note(text)


def print_error(error: CoveyError, *, as_json: bool) -> None:
    """Print an error: an object on standard output with `-o json`, text on standard error otherwise."""
    if as_json:
        body = {"code": error.code, "message": error.message, "hint": error.hint}
        write(to_json({"schema": "covey/error/1", "error": body}))
        return
    note(f"error[{error.code}]: {error.message}" + (f"\n  hint: {error.hint}" if error.hint else ""))


def note(text: str) -> None:
    """Print to standard error, where progress, warnings and errors go."""
    sys.stdout.flush()
    print(escape(text), file=sys.stderr, flush=True)


def write(text: str) -> None:
    """Print to standard output."""
    print(text.removesuffix("\n"))


def cell(value: Any) -> str:
    """Return a value as a person reads it in a table."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return escape(", ".join(f"{name}={cell(found)}" for name, found in value.items()) or "-")
    if isinstance(value, (list, tuple)):
        return ", ".join(cell(found) for found in value) or "-"
    return escape(str(plain(value)))


def escape(text: str) -> str:
    """Return the text with control characters other than line feed and tab shown as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c in "\n\t" or c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def aligned(table: Table) -> list[str]:
    """Return the lines of a table in plain text, columns two spaces apart."""
    sizes = widths(table)
    return [
        "  ".join(text.ljust(size) for text, size in zip(row, sizes, strict=True)).rstrip() for row in _texts(table)
    ]


def widths(table: Table) -> list[int]:
    """Return how wide each column is at its widest."""
    return [max(map(len, column)) for column in zip(*_texts(table), strict=True)]


def _texts(table: Table) -> list[list[str]]:
    return [table.headings, *([cell(value).replace("\n", "\\n") for value in row] for row in table.rows)]


def print_fields(block: Fields) -> None:
    """Print names and values, the values below one another."""
    width = max((len(name) for name, _ in block.pairs), default=0)
    for name, value in block.pairs:
        write(f"{name.ljust(width)}  {cell(value)}")


def plain(value: Any) -> Any:
    """Return the value as JSON can say it: bytes as text or hex, names of objects as text, no NaN."""
    if isinstance(value, Mapping):
        return {str(name): plain(found) for name, found in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(found) for found in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(found) for found in value), key=str)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.hex(" ")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (str, int, float)):
        return value
    return str(value)


def to_json(data: Any, indent: int | None = None) -> str:
    """Return one JSON text; on one line unless `indent` is given."""
    return json.dumps(data, ensure_ascii=_narrow(), indent=indent, allow_nan=False)


def to_yaml(data: Any) -> str:
    """Return one YAML document, with the keys in the order of the data."""
    import yaml

    return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=not _narrow(), default_flow_style=False))


def _narrow() -> bool:
    """Say whether standard output takes less than all of Unicode: JSON and YAML then use their own escapes."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return not encoding.lower().replace("-", "").replace("_", "").startswith("utf")


def timestamp() -> str:
    """Return the present time as RFC 3339, in UTC with milliseconds."""
    from datetime import UTC, datetime

    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
