"""Pydantic's errors said in the words of a YAML file: code, message, hint. Never a Python type name.

Knows the error types of pydantic and nothing of any particular model. A validator's own error, a
`PydanticCustomError(type, message, {"hint": …})`, passes through with its own code and words; a `ValueError`
becomes `bad_value` with its text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple, get_args

from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_core.core_schema import ErrorType

from .findings import quoted
from .tree import Scalar, Section, Sequence, Tree

Path = tuple[str | int, ...]

_BUILT_IN = frozenset(get_args(ErrorType))

# What the model wants, by the error it gives when something else is there.
_WANTED: dict[str, str] = {
    "string_type": "text",
    "string_sub_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "decimal_type": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "none_required": "null",
    "dict_type": "a section of KEY: VALUE lines",
    "mapping_type": "a section of KEY: VALUE lines",
    "model_type": "a section of KEY: VALUE lines",
    "model_attributes_type": "a section of KEY: VALUE lines",
    "dataclass_type": "a section of KEY: VALUE lines",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "iterable_type": "a list",
    "path_type": "text",
    "bytes_type": "text",
}
_LIMITS: dict[str, str] = {
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
}
_LENGTHS: dict[str, str] = {
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} item(s)",
    "too_long": "must have at most {max_length} item(s)",
}
_BOOLS = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


class Words(NamedTuple):
    """What a finding says. `wanted` is set when the type or choice is wrong, so that choices can be joined."""

    code: str
    message: str
    hint: str = ""
    wanted: str = ""


def in_words(error: ErrorDetails, path: Path, found: Tree | None) -> Words:
    """Return what a finding says about one error of pydantic at `path`, where `found` stands in the file."""
    kind = error["type"]
    context: Mapping[str, Any] = error.get("ctx", {})
    name = where(path)
    if kind not in _BUILT_IN:
        return Words(kind, error["msg"], str(context.get("hint", "")))
    if kind in _WANTED:
        return wrong_type(name, _WANTED[kind], found)
    if kind in {"literal_error", "enum"}:
        return _wrong_choice(name, str(context.get("expected", "")), found)
    if kind in _LIMITS:
        limit = _LIMITS[kind].format(**context)
        return Words("out_of_range", f"{name} must be {limit}, not {shown(found)}", f"write a number that is {limit}")
    if kind in _LENGTHS:
        limit = _LENGTHS[kind].format(**context)
        return Words("bad_length", f"{name} {limit}")
    if kind in {"value_error", "assertion_error"}:
        return Words("bad_value", str(context.get("error", error["msg"])))
    return Words("bad_value", f"{name}: {error['msg'].replace('Input should', 'it should')}")


def is_mismatch(kind: str) -> bool:
    """Say whether an error of pydantic means that something of quite another kind stands there."""
    return kind in _WANTED or kind in {"literal_error", "enum"}


def refusal(code: str, message: str, hint: str = "", *, at: Path = (), at_key: bool = False) -> PydanticCustomError:
    """Return the error that a validator raises to make a finding of its own.

    `code` without a dot gets the prefix of the kind of file. `at` moves the finding to a place inside the value (keys
    and list positions), `at_key` from the value there to its key.
    """
    # The text goes in as an argument, last, so that braces in it are not taken for places of other arguments.
    return PydanticCustomError(code, "{text}", {"hint": hint, "at": at, "key": at_key, "text": message})


def _wrong_choice(name: str, expected: str, found: Tree | None) -> Words:
    choices = re.findall(r"'((?:[^'\\]|\\.)*)'", expected)
    if isinstance(found, Scalar) and isinstance(found.value, str) and choices:
        hint = suggestion(found.value, choices)
        return Words("bad_value", f"{name} cannot be {quoted(found.value)}", hint, ", ".join(choices))
    return wrong_type(name, " or ".join(choices) or expected, found)


def wrong_type(name: str, wanted: str, found: Tree | None) -> Words:
    """Return what to say when something of another kind stands there; `wanted` may be joined with ' or '."""
    if isinstance(found, Scalar) and found.value is None:
        return Words("wrong_type", f"{name} has no value; it must be {wanted}", _hint(wanted, found), wanted)
    message = f"{name} must be {wanted}, not {shown(found)}"
    return Words("wrong_type", message, _hint(wanted, found), wanted)


def _hint(wanted: str, found: Tree | None) -> str:
    kinds = wanted.split(" or ")
    if isinstance(found, Scalar):
        value = found.value
        if value is None:
            return "write {} if it is meant to be empty" if "section" in wanted else ""
        if "text" in kinds and not isinstance(value, str):
            return f'quote it: "{found.written}"'
        if wanted == "true or false" and isinstance(value, str) and value.lower() in _BOOLS:
            return f"write {_BOOLS[value.lower()]}"
        if "number" in wanted and found.quoted and re.fullmatch(r"[-+]?[0-9.]+", found.written):
            return f"write {found.written} without quotes"
        if "a list" in kinds and "\n" not in found.written:
            return f"write [{found.written}]"
    return ""


def unknown_key(key: str, parent: Path, allowed: Iterable[str], home: str = "") -> Words:
    """Return what to say about a key nobody knows; `home` names the section it belongs to, if any."""
    section = f" in {where(parent)}" if parent else ""
    names = list(allowed)
    hint = suggestion(key, names)
    if home and "did you mean" not in hint:
        hint = "\n".join(part for part in (f"it belongs in '{home}'", hint) if part)
    return Words("unknown_key", f"unknown key {quoted(key)}{section}", hint)


def suggestion(found: str, allowed: Iterable[str]) -> str:
    """Return a hint: the nearest allowed word, if one is near, and the list of all."""
    names = sorted(set(allowed))
    near = nearest(found, names)
    parts = [f"did you mean '{near}'?"] if near else []
    if names:
        parts.append(f"allowed: {', '.join(names)}")
    return "\n".join(parts)


def nearest(found: str, allowed: Iterable[str]) -> str:
    """Return the allowed word most like `found`, whatever its case and dashes; empty if none is near."""
    simple = {_simple(name): name for name in sorted(allowed, reverse=True)}
    matches = get_close_matches(_simple(found[:100]), simple, n=1, cutoff=0.6)
    return simple[matches[0]] if matches else ""


def _simple(name: str) -> str:
    return name.lower().replace("-", "_").replace(" ", "_")


def as_yaml(value: Any) -> str:
    """Return a simple value as it stands on one line of a file."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {as_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(as_yaml(item) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)


def where(path: Path) -> str:
    """Return how a message names a place: 'port', item 2 of 'adapters', the file."""
    items: list[int] = []
    while path and isinstance(path[-1], int):
        items.append(path[-1])
        path = path[:-1]
    name = quoted(str(path[-1])) if path else "the file"
    for number in reversed(items):
        name = f"item {number + 1} of {name}"
    return name


def shown(found: Tree | None) -> str:
    """Return how a message shows what stands in the file."""
    if isinstance(found, Section):
        return "a section of KEY: VALUE lines"
    if isinstance(found, Sequence):
        return "a list"
    if found is None or found.value is None:
        return "nothing"
    return quoted(found.written) if isinstance(found.value, str) else found.written
