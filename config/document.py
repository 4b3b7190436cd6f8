"""Read one YAML file into a pydantic model, or say at once everything that is wrong with it, and where.

Knows no particular model: node files and resource description files both come through here. The way of a
file: bytes → tree with positions (`tree`) → JSON → the model, in pydantic's strict mode (so that "8" is no
number and 8 no text) → each error walked back to its place in the tree and said in YAML words (`wording`).
`read` is for checking, `load` for use; they are the same code.

What a model's author has at hand for errors of their own:
- in a validator, `raise refusal(code, message, hint, at=…, at_key=…)` (a `PydanticCustomError`): a code with a dot is
  the finding's, one without gets the prefix of the kind of file; `at` moves the finding to a place inside the value,
  `at_key` to the key there. The hint's further lines, and one that begins with `allowed:`, go below the carets.
- a `check(data, context)`, for what concerns several values: it gets the plain values of the whole file, whatever
  their shape (also when the model refused them), and yields `Problem`s, and a `Part` for
  what has a model of its own.
- the validation context holds `folder`, the folder of the file, for relative paths, besides what the caller gives.

Odd: findings at a place that has one already are left out, and so are missing keys that a misspelt one
explains.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path as FilePath
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from .. import errors
from .findings import Finding, Place, Source, in_order, render_all
from .tree import LIMITS, MAX_BYTES, Limits, parse, plain
from .walker import Part, Problem, Walker
from .wording import refusal

__all__ = ["Check", "Part", "Problem", "load", "read", "read_bytes", "refusal"]

M = TypeVar("M", bound=BaseModel)


Check = Callable[[Any, Mapping[str, Any]], Iterable[Problem | Part]]


def load(
    path: str | os.PathLike[str],
    model: type[M],
    *,
    env: Mapping[str, str] | None = None,
    context: Mapping[str, Any] | None = None,
    prefix: str = "config.",
    check: Check | None = None,
) -> M:
    """Return the model of a file; arguments as of `read`.

    Raises `InvalidFile` if there is any error: its message shows all findings, `.details["findings"]` holds
    each one's `as_dict()`.
    """
    found, findings = read(path, model, env=env, context=context, prefix=prefix, check=check)
    if found is None:
        raise errors.InvalidFile(render_all(findings), findings=[finding.as_dict() for finding in findings])
    return found


def read(
    path: str | os.PathLike[str],
    model: type[M],
    *,
    env: Mapping[str, str] | None = None,
    context: Mapping[str, Any] | None = None,
    prefix: str = "config.",
    check: Check | None = None,
) -> tuple[M | None, list[Finding]]:
    """Return the model of a file (None if there is any error) and the findings, by position.

    `env` holds the variables for `${env:…}` (None: those of the process); `prefix` goes before generic codes.
    """
    source = Source(os.fspath(path), prefix=prefix)
    try:
        with FilePath(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None, [source.finding("no_file", Place(1, 1), "there is no such file")]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return None, [source.finding("unreadable", Place(1, 1), f"the file cannot be read: {reason}")]
    inside = {"folder": FilePath(path).absolute().parent, **(context or {})}
    return read_bytes(data, model, file=source.file, env=env, context=inside, prefix=prefix, check=check)


def read_bytes(
    data: bytes,
    model: type[M],
    *,
    file: str,
    env: Mapping[str, str] | None = None,
    context: Mapping[str, Any] | None = None,
    prefix: str = "config.",
    check: Check | None = None,
    literal: bool = False,
    limits: Limits = LIMITS,
) -> tuple[M | None, list[Finding]]:
    """Like `read`, from bytes at hand; `file` is how the findings name them. `literal`: nothing is a variable."""
    source = Source(file, prefix=prefix)
    variables = os.environ if env is None else env
    root, findings = parse(data, source, None if literal else variables, limits)
    if root is None:
        return None, in_order(findings)
    values = plain(root)
    context = dict(context or {})
    walker = Walker(source, model, root, findings)
    found = None
    try:
        found = model.model_validate_json(json.dumps(values), strict=True, context=context)
    except ValidationError as error:
        walker.add(error.errors(include_url=False, include_input=False))
    if check is not None:
        for problem in check(values, context):
            if isinstance(problem, Part):
                walker.part(problem, _errors(problem, values, context))
            else:
                walker.problem(problem)
    findings = in_order(walker.findings)
    if any(finding.severity == "error" for finding in findings):
        found = None
    return found, findings


def _errors(part: Part, values: Any, context: Mapping[str, Any]) -> list[ErrorDetails]:
    for step in part.path:
        values = values[step]
    try:
        part.model.model_validate_json(json.dumps(values), strict=True, context=dict(context))
    except ValidationError as error:
        return error.errors(include_url=False, include_input=False)
    return []
