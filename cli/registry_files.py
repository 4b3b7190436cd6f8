"""Files with registry values that people write and keep: the transaction of `txn`, the export that `import` takes back.

Both are YAML by the rules of every file of covey (YAML 1.2 core; JSON is YAML), with every mistake reported at its
place; nothing in them is a variable, since a value may hold any text. `dump` writes what `read_export` reads as the
very same values: a text that would be read as something else is quoted, by the rules of YAML 1.1 too, so that other
readers agree.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field

from ..components.registry.keys import USERS, check_key, pack_value
from ..config.document import Check, Problem, read_bytes
from ..config.findings import render_all
from ..config.tree import Limits
from ..errors import CoveyError, InvalidFile

LIMITS = Limits(bytes=64 * 1024 * 1024, depth=80, nodes=4_000_000)
"""Of a file with values: a value may have 64 levels, and a registry far more keys than a node's YAML has settings."""

FORMAT = 1
_HEAD = """\
# What a covey registry holds below {prefix}; `covey registry import FILE` takes it back.
"""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Compared(_Part):
    """One comparison."""

    key: str
    mod_revision: int = Field(ge=0)


class Step(_Part):
    """One change."""

    op: Literal["put", "delete"]
    key: str
    value: Any = None


class Change(_Part):
    """A transaction."""

    compare: list[Compared] = []
    then: list[Step] = []
    otherwise: list[Step] = []


class Export(_Part):
    """What was exported: whose it is, and the values by key."""

    covey: Literal[1] = Field(examples=[1])
    exported: Any = None
    keys: dict[str, Any] = Field(examples=[{}])


M = TypeVar("M", bound=BaseModel)


def read_transaction(file: str) -> dict[str, Any]:
    """Return the arguments of `registry.txn` from a file (`-`: standard input); raises InvalidFile."""
    found = _read(file, Change, _check_change)
    return {
        "compare": [one.model_dump() for one in found.compare],
        "then": [one.model_dump() for one in found.then],
        "otherwise": [one.model_dump() for one in found.otherwise],
    }


def read_export(file: str) -> dict[str, Any]:
    """Return the values by key from an exported file (`-`: standard input); raises InvalidFile."""
    return _read(file, Export, _check_export).keys


def _read(file: str, model: type[M], check: Check) -> M:
    try:
        data = sys.stdin.buffer.read(LIMITS.bytes + 1) if file == "-" else Path(file).read_bytes()
    except OSError as why:
        raise InvalidFile(
            f"{file} cannot be read: {why.strerror or why}", "name a file, or - for standard input"
        ) from None
    name = "standard input" if file == "-" else file
    found, findings = read_bytes(data, model, file=name, check=check, literal=True, limits=LIMITS)
    if found is None:
        raise InvalidFile(
            render_all(findings), "nothing was changed", findings=[finding.as_dict() for finding in findings]
        )
    return found


# --- what only the registry knows of keys and values -----------------------------------------------------------------


def _check_change(data: Any, _context: Mapping[str, Any]) -> Iterator[Problem]:
    if not isinstance(data, dict):
        return
    for number, one in _items(data, "compare"):
        yield from _key_problems(("compare", number, "key"), one.get("key"), users=False)
    for part in ("then", "otherwise"):
        seen: dict[str, int] = {}
        for number, one in _items(data, part):
            key, path = one.get("key"), (part, number)
            yield from _key_problems((*path, "key"), key)
            if isinstance(key, str) and seen.setdefault(key, number) != number:
                what = f"{key!r} is changed twice in `{part}`, by its items {seen[key] + 1} and {number + 1}"
                yield Problem((*path, "key"), "duplicate_key", what, "keep what should come last")
            if one.get("op") == "put" and "value" not in one:
                yield Problem(path, "missing", "a put has no 'value'", "write value: …; null is a value too")
            elif one.get("op") == "delete" and "value" in one:
                yield Problem((*path, "value"), "bad_value", "a delete takes no 'value'", "leave the line out")
            else:
                yield from _value_problems((*path, "value"), key, one.get("value"))


def _items(data: dict[str, Any], part: str) -> Iterator[tuple[int, dict[str, Any]]]:
    found = data.get(part)
    for number, one in enumerate(found if isinstance(found, list) else []):
        if isinstance(one, dict):
            yield number, one


def _check_export(data: Any, _context: Mapping[str, Any]) -> Iterator[Problem]:
    keys = data.get("keys") if isinstance(data, dict) else None
    for key, value in keys.items() if isinstance(keys, dict) else ():
        yield from _key_problems(("keys", key), key, at_key=True)
        yield from _value_problems(("keys", key), key, value)


def _key_problems(
    path: tuple[str | int, ...], key: Any, *, users: bool = True, at_key: bool = False
) -> Iterator[Problem]:
    if not isinstance(key, str):
        return
    wrong = _refused(lambda: check_key(key))
    if wrong:
        yield Problem(path, wrong.code, wrong.message, wrong.hint, at_key=at_key)
    elif users and not key.startswith(USERS):
        what = f"the key {key!r} belongs to covey's components"
        yield Problem(path, "registry.reserved_key", what, f"users write below {USERS}", at_key=at_key)


def _value_problems(path: tuple[str | int, ...], key: Any, value: Any) -> Iterator[Problem]:
    wrong = _refused(lambda: pack_value(str(key), value))
    if wrong:
        yield Problem(path, wrong.code, wrong.message, wrong.hint)


def _refused(check: Callable[[], object]) -> CoveyError | None:
    try:
        check()
    except CoveyError as wrong:
        return wrong
    return None


# --- writing ---------------------------------------------------------------------------------------------------------


def dump(prefix: str, about: dict[str, Any], keys: dict[str, Any]) -> str:
    """Return the text of an export."""
    document = {"covey": FORMAT, "exported": about, "keys": keys}
    text = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=sys.maxsize)
    return _HEAD.format(prefix=prefix) + str(text)


class _Dumper(yaml.SafeDumper):
    """PyYAML's, which quotes what YAML 1.1 would not read as text, and what YAML 1.2 would not."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    lines = text.split("\n")
    block = len(lines) > 1 and all(line == line.strip() and line.isprintable() for line in lines) and lines[0]
    style = "|" if block else None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"0o[0-7]+$"), ["0"])
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?[0-9]+$"), list("-+0123456789"))
