"""`covey explain`: what an error code or an exit code means and what to do, offline, from the error classes and
the codes of findings."""

from __future__ import annotations

import difflib
import inspect
from typing import Any

import click

from .. import errors
from ..config.codes import FINDINGS
from .connection import offline
from .output import Block, Table
from .verbs import alone


def entries() -> dict[str, dict[str, Any]]:
    """Return everything that can be explained, by its code."""
    found: dict[str, dict[str, Any]] = {}
    for code, known in errors.by_code().items():
        found[code] = {"code": code, "exit_code": known.exit_code, "meaning": inspect.cleandoc(known.__doc__ or "")}
    for code, meaning in FINDINGS.items():
        found.setdefault(code, {"code": code, "exit_code": 3 if code.startswith("doctor.") else 10, "meaning": meaning})
    for number, meaning in errors.EXIT_CODES.items():
        found[str(number)] = {"code": str(number), "exit_code": number, "meaning": meaning}
    return found


@alone("explain", examples=["covey explain registry.read_only", "covey explain 6"])
@click.argument("code", required=False)
def command(code: str | None) -> int:
    """Explain an error code like registry.read_only, or an exit code like 6.

    Works without a daemon. An error or a finding in a file always carries its code in square brackets; the exit code
    of the command tells a script the kind. Without CODE, every code is listed.
    """
    known = entries()
    if code is None:
        return offline(list(known.values()), _list)
    word = code.strip("[]")
    if word not in known:
        near = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "`covey explain` lists every code"
        raise errors.NotFound(f"there is no error or exit code {word!r}", hint)
    found = known[word]
    if word.isdecimal():
        found = {**found, "errors": sorted(c for c, e in known.items() if "." in c and e["exit_code"] == int(word))}
    return offline(found, _one)


def _list(data: list[dict[str, Any]]) -> list[Block]:
    rows = [(entry["code"], entry["exit_code"], _first_sentence(entry["meaning"])) for entry in data]
    return [Table(("code", "exit", "meaning"), rows)]


def _first_sentence(text: str) -> str:
    """Return the first sentence, on one line and without its full stop."""
    return " ".join(text.split("\n\n", maxsplit=1)[0].split()).split(". ")[0].removesuffix(".")


def _one(data: dict[str, Any]) -> list[Block]:
    if "errors" in data:
        blocks: list[Block] = [f"exit code {data['code']}: {data['meaning']}"]
        return [*blocks, "", "errors that end so: " + ", ".join(data["errors"])] if data["errors"] else blocks
    return [f"{data['code']} (exit code {data['exit_code']})", "", data["meaning"]]
