"""From what a command of class printed to the values of its attributes, by the section `exec` of the class.

Runs nothing. What the class does not declare is passed on all the same: the check that every controller's values go
through names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..classes import Action, ClassDescription
from ..commands import Done
from ..contract import Failed
from . import formats
from .file import ExecSection, filled


def attributes(section: ExecSection, described: ClassDescription, key: Mapping[str, Any], done: Done) -> dict[str, Any]:
    """Return the attributes of one resource as its command printed them. Raises Failed when it failed or babbles."""
    command = section.command or ("",)
    most = 3 if section.format == "nagios" else 0
    if done.code < 0 or (done.code > most and not section.exit):
        raise Failed(f"{command[0]}: {done.reason}")
    try:
        values = _values(section, described, key, done)
    except ValueError as error:
        raise Failed(f"{command[0]} printed what cannot be read as {section.format}: {error}") from None
    if section.exit:
        values[section.exit] = done.code
    return _fitted(values, described)


def listed(described: ClassDescription, section: ExecSection, done: Done) -> list[dict[str, Any]]:
    """Return the resources that the command of a discovery printed. Raises Failed."""
    command = section.discover or ("",)
    if done.code != 0:
        raise Failed(f"{command[0]}: {done.reason}")
    try:
        return [_fitted(one, described) for one in formats.many(done.output)]
    except ValueError as error:
        raise Failed(f"{command[0]} printed what cannot be read as resources of {described.name}: {error}") from None


def result(action: Action, done: Done, program: str) -> dict[str, Any]:
    """Return the result of an action: `NAME=VALUE` words, or a JSON object. Nothing is read when none is declared."""
    if not action.result:
        return {}
    try:
        read = formats.one_json if done.output.lstrip().startswith("{") else formats.words
        found = read(done.output)
    except ValueError as error:
        raise Failed(f"{program} printed what cannot be read as the result of {action.name}: {error}") from None
    declared = {one.name: one for one in action.result}
    return {name: formats.fitted(value, declared[name]) if name in declared else value for name, value in found.items()}


def _values(section: ExecSection, described: ClassDescription, key: Mapping[str, Any], done: Done) -> dict[str, Any]:
    match section.format:
        case "openmetrics":
            samples = formats.openmetrics(done.output)
            wanted = {name: formats.wanted_sample(filled((what,), key)[0]) for name, what in section.map.items()}
            return {name: formats.picked(samples, one) for name, one in wanted.items()}
        case "json":
            found: dict[str, Any] = formats.one_json(done.output)
            nested = {what.partition(".")[0] for what in section.map.values() if "." in what}
            mapped = {name: formats.inside(found, what) for name, what in section.map.items()}
            taken = nested | set(section.map.values())
            return {**{name: value for name, value in found.items() if name not in taken}, **mapped}
        case "nagios":
            text, found = formats.nagios(done.output)
            verdict: dict[str, Any] = {"Output": text, "Status": formats.STATUS[done.code] if done.code < 4 else None}
            status = described.attribute("Status")
            if status is not None and status.type != "string":
                verdict["Status"] = done.code
            said = {name: value for name, value in verdict.items() if described.attribute(name) is not None}
            return {**_renamed(found, section.map), **said}
        case _:
            return _renamed(formats.words(done.output), section.map)


def _renamed(found: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    ours = {theirs: name for name, theirs in names.items()}
    return {ours.get(name, name): value for name, value in found.items()}


def _fitted(values: Mapping[str, Any], described: ClassDescription) -> dict[str, Any]:
    found = {}
    for name, value in values.items():
        declared = described.attribute(name)
        found[name] = value if declared is None else formats.fitted(value, declared)
    return found
