"""The file that makes classes of commands: a resource description whose classes have a part `exec`.

Reading it finds every mistake at once, with its place; what holds for any description holds for it, too. Knows how
commands are written (`{key.Name}`, `{Argument}`), and runs none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Field

from ...config.document import Problem, read
from ...config.findings import Finding, quoted
from ...config.units import Duration, between
from ...config.wording import refusal, suggestion
from ..commands import as_text
from ..description import check_description
from ..schema import ClassSection, DescriptionFile, Name, Section
from .formats import wanted_sample

_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{(key\.)?([A-Za-z][A-Za-z0-9_]*)\}")


def _program(command: tuple[str, ...]) -> tuple[str, ...]:
    if not command or not command[0]:
        raise refusal("bad_value", "a command begins with a program", "write [PROGRAM, ARGUMENT]")
    return command


Command = Annotated[tuple[str, ...], AfterValidator(_program)]
"""A program and its arguments; there is no shell. Looked for in PATH, or counted from the file's folder (`./check`)."""


class ExecSection(Section):
    """How commands find, read and act on the resources of a class."""

    resources: list[dict[str, Any]] = Field(default=[], description="Those there are: key and persistent attributes.")
    discover: Command | None = Field(
        default=None,
        description="Or the command that prints them: a JSON list of objects, or a line `Name=value …` for each.",
    )
    command: Command | None = Field(
        default=None, description="What prints the dynamic attributes of one resource; {key.NAME} is part of its key."
    )
    format: Literal["values", "nagios", "openmetrics", "json"] = Field(
        default="values",
        description="What `command` prints. values: NAME=VALUE words. nagios: a plugin's line with performance data; "
        "attributes Status and Output take its verdict and text. openmetrics: a text exposition. json: one object.",
    )
    map: dict[str, str] = Field(
        default={},
        description="By attribute: what the command calls it, when not the same: a label, a metric with labels, a "
        "path a.b in JSON. Of OpenMetrics only what stands here is taken.",
    )
    exit: str = Field(
        default="", description="The attribute that keeps the exit code; without it, another than 0 is a failure."
    )
    timeout: Annotated[Duration, between("100ms", "10s")] = Field(
        default=4.0,
        description="Time that `discover` and `command` may take, 100ms to 10s; then all they started is killed. "
        "Default 4s: a reading that takes 5s counts as failed.",
    )
    actions: dict[str, Command] = Field(
        default={}, description="By action: its command; {ARGUMENT} is an argument. It has the action's deadline."
    )


class ExecClass(ClassSection):
    """A class whose resources are commands' business."""

    exec: ExecSection = Field(description="The commands.", examples=["{resources: [{Name: a}], command: [./check]}"])


class ExecFile(DescriptionFile):
    """A file of such classes."""

    controller: Literal["exec"] = Field(description="exec", examples=["exec"])
    classes: dict[Name, ExecClass] = Field(  # type: ignore[assignment]
        min_length=1, description="The classes by name."
    )


class Read(NamedTuple):
    """One file: its commands by class, and the classes as `Controller.describe` gives them."""

    folder: Path
    sections: dict[str, ExecSection]
    classes: dict[str, Any]


def read_file(path: Path) -> tuple[Read | None, list[Finding]]:
    """Return what a file says (None if there is any error) and all findings, by position."""
    written: dict[str, Any] = {}

    def check(data: Any, context: Mapping[str, Any]) -> Iterator[Problem]:
        written.update(_mapping(_mapping(data).get("classes")))
        yield from check_description(data, context)
        for name, section in written.items():
            yield from _check(("classes", name), _mapping(section))

    found, findings = read(path, ExecFile, env={}, prefix="description.", check=check)
    if found is None:
        return None, findings
    classes = {name: {part: body for part, body in one.items() if part != "exec"} for name, one in written.items()}
    return Read(path.parent, {name: one.exec for name, one in found.classes.items()}, classes), findings


def filled(command: tuple[str, ...], key: Mapping[str, Any], arguments: Mapping[str, Any] | None = None) -> list[str]:
    """Return the words of a command, each placeholder filled; a value is never cut into several words."""

    def value(match: re.Match[str]) -> str:
        if match[2] is None:
            return match[0][0]
        return as_text(key[match[2]] if match[1] else (arguments or {})[match[2]])

    return [_PLACEHOLDER.sub(value, word) for word in command]


# --- what must hold across fields ---------------------------------------------------------------------------


def _check(path: tuple[str | int, ...], section: Mapping[str, Any]) -> Iterator[Problem]:
    commands, here = _mapping(section.get("exec")), (*path, "exec")
    attributes = {name: _mapping(body) for name, body in _mapping(section.get("attributes")).items()}
    keys = [name for name in _list(section.get("key")) if isinstance(name, str)]
    dynamic = [name for name, body in attributes.items() if body.get("kind") == "dynamic"]
    if "exec" not in section:
        return
    if bool(commands.get("resources")) == bool(commands.get("discover")):
        text = "either 'resources' or 'discover' says what there is"
        example = ", ".join(f"{key}: …" for key in keys)
        yield Problem(here, "missing", text, f"write resources: [{{{example}}}]", at_key=True)
    if dynamic and "command" not in commands:
        text = f"{quoted(dynamic[0])} is dynamic, and there is no 'command' that prints it"
        yield Problem(here, "missing", text, "write command: [PROGRAM, ARGUMENT]", at_key=True)
    yield from _check_resources((*here, "resources"), commands, keys, attributes)
    yield from _check_words((*here, "discover"), commands.get("discover"), [], [])
    yield from _check_words((*here, "command"), commands.get("command"), keys, [])
    for name, what in _mapping(commands.get("map")).items():
        yield from _check_word((*here, "map", name), what, [f"key.{key}" for key in keys])
        if name not in attributes:
            yield _undeclared((*here, "map", name), name, attributes)
        elif commands.get("format") == "openmetrics" and isinstance(what, str):
            try:
                wanted_sample(what)
            except ValueError as error:
                yield Problem((*here, "map", name), "bad_value", str(error), 'write name or name{label="value"}')
    exit_to = commands.get("exit")
    if isinstance(exit_to, str) and exit_to and exit_to not in dynamic:
        text = f"{quoted(exit_to)} is no dynamic attribute"
        yield Problem((*here, "exit"), "undeclared_attribute", text, suggestion(exit_to, dynamic))
    yield from _check_actions(path, _mapping(commands.get("actions")), keys, _mapping(section.get("actions")))


def _check_actions(
    path: tuple[str | int, ...], given: Mapping[str, Any], keys: list[str], actions: Mapping[str, Any]
) -> Iterator[Problem]:
    for name, words in given.items():
        if name not in actions:
            text = f"{quoted(name)} is not declared under 'actions' of the class"
            yield Problem((*path, "exec", "actions", name), "unknown_key", text, suggestion(name, actions), at_key=True)
        else:
            arguments = list(_mapping(_mapping(actions[name]).get("arguments")))
            yield from _check_words((*path, "exec", "actions", name), words, keys, arguments)
    for name in actions:
        if name not in given:
            text = f"the action {quoted(name)} has no command under 'actions' of 'exec'"
            yield Problem((*path, "actions", name), "missing", text, f"write {name}: [PROGRAM] there", at_key=True)


def _check_resources(
    path: tuple[str | int, ...],
    commands: Mapping[str, Any],
    keys: list[str],
    attributes: Mapping[str, Mapping[str, Any]],
) -> Iterator[Problem]:
    persistent = [name for name, body in attributes.items() if body.get("kind") != "dynamic"]
    for position, one in enumerate(_list(commands.get("resources"))):
        found = _mapping(one)
        missing = [key for key in keys if key not in found]
        if isinstance(one, Mapping) and missing:
            text = f"{quoted(missing[0])} of the key is not there"
            yield Problem((*path, position), "missing", text, f"write {missing[0]}: …")
        for name in found:
            if name not in persistent:
                yield _undeclared((*path, position, name), name, persistent)


def _check_words(path: tuple[str | int, ...], command: Any, keys: list[str], arguments: list[str]) -> Iterator[Problem]:
    known = [*(f"key.{key}" for key in keys), *arguments]
    for position, word in enumerate(_list(command)):
        yield from _check_word((*path, position), word, known)


def _check_word(path: tuple[str | int, ...], word: Any, known: list[str]) -> Iterator[Problem]:
    for match in _PLACEHOLDER.finditer(word) if isinstance(word, str) else ():
        name = f"{match[1] or ''}{match[2]}"
        if match[2] is not None and name not in known:
            text = f"nothing fills {{{name}}}; for these very characters write {{{{{name}}}}}"
            yield Problem(path, "bad_value", text, suggestion(name, known))


def _undeclared(path: tuple[str | int, ...], name: str, known: Any) -> Problem:
    text = f"{quoted(name)} is not declared under 'attributes'"
    return Problem(path, "undeclared_attribute", text, suggestion(name, known), at_key=True)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
