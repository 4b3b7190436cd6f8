"""Reads a resource description file: what must hold across its fields, and how it becomes `ClassDescription`s.

The file is the one source of what a class is. Reading goes through `config.document`, so every mistake is found at
once, with its place; the codes begin with `description.`. Knows no controller code (`binding.py` compares the two).
Odd: pydantic is imported here, so that only processes that read files pay for it; others get classes over the bus.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..config.document import load, read, read_bytes
from ..config.findings import Finding, Place, Source, quoted
from ..config.walker import Problem
from ..config.wording import suggestion
from ..errors import CoveyError
from . import classes
from .classes import NUMERIC, TYPES, ClassDescription
from .schema import AttributeSection, ClassSection, DescriptionFile, FieldSection
from .values import normal

_Where = tuple[str | int, ...]


@dataclass(frozen=True)
class Description:
    """What a description file says: the controller's name and its classes."""

    controller: str
    classes: tuple[ClassDescription, ...]
    file: str = ""

    def get(self, name: str) -> ClassDescription | None:
        """Return the class of that name."""
        return next((one for one in self.classes if one.name == name), None)


def read_description(path: str | os.PathLike[str]) -> tuple[Description | None, list[Finding]]:
    """Return what a description file says (None if there is any error) and all findings, by position."""
    found, findings = read(path, DescriptionFile, env={}, prefix="description.", check=check_description)
    return (None if found is None else _description(found, Path(path))), findings


def load_description(path: str | os.PathLike[str]) -> Description:
    """Return what a description file says. Raises InvalidFile that shows all findings."""
    return _description(load(path, DescriptionFile, env={}, prefix="description.", check=check_description), Path(path))


@functools.cache
def description_of_ours(path: Path) -> Description:
    """`load_description`, once in the life of a process and those it forks: these files change with the code alone."""
    return load_description(path)


def preload() -> None:
    """Read the files of covey's own controllers now, for the processes that will be forked from this one."""
    for path in sorted(Path(__file__).parent.glob("*/*.yaml")):
        with suppress(CoveyError):  # whoever needs it will say so
            description_of_ours(path)


def description_files(module: str) -> list[Path]:
    """Return the description files beside a module, which is not imported for it; the packages around it are."""
    spec = find_spec(module)
    return sorted(Path(spec.origin).parent.glob("*.yaml")) if spec is not None and spec.origin else []


def made_description(controller: str, classes: Mapping[str, Any]) -> tuple[Description | None, list[Finding]]:
    """Return the classes that a program gives (None if there is any error), and all findings, as if from a file."""
    try:
        text = json.dumps({"covey": 1, "controller": controller, "classes": classes}, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        return None, [Source("classes", prefix="description.").finding("bad_value", Place(1, 1), str(error))]
    found, findings = read_bytes(
        text.encode(), DescriptionFile, file="classes", prefix="description.", check=check_description, literal=True
    )
    return (None if found is None else _description(found, Path())), findings


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of description files, for editors."""
    return DescriptionFile.model_json_schema()


# --- what must hold across fields ---------------------------------------------------------------------------


def check_description(data: Any, _: Mapping[str, Any]) -> Iterator[Problem]:
    """Find what is wrong between several values of a description, whatever shape they have (`document.Check`)."""
    for name, section in _mappings(_mapping(data).get("classes")):
        path: _Where = ("classes", name)
        attributes = dict(_mappings(section.get("attributes")))
        yield from _check_key(path, section.get("key"), attributes)
        for attribute, body in attributes.items():
            yield from _check_field((*path, "attributes", attribute), body)
            use = _mapping(body.get("deprecated")).get("use")
            yield from _check_names((*path, "attributes", attribute, "deprecated"), {"use": use}, attributes)
        for action, body in _mappings(section.get("actions")):
            here = (*path, "actions", action)
            for part in ("arguments", "result"):
                for field, inner in _mappings(body.get(part)):
                    yield from _check_field((*here, part, field), inner)
            yield from _check_names((*here, "effects"), dict(enumerate(_list(body.get("effects")))), attributes)
        for position, needed in enumerate(_list(section.get("depends"))):
            if needed == name:
                at = (*path, "depends", position)
                yield Problem(at, "bad_depends", f"{quoted(name)} depends on itself", "leave it out")


def _check_key(path: _Where, key: Any, attributes: dict[str, Mapping[str, Any]]) -> Iterator[Problem]:
    seen: set[str] = set()
    for position, name in enumerate(_list(key)):
        at = (*path, "key", position)
        if not isinstance(name, str):
            continue
        if name in seen:
            yield Problem(at, "bad_key_attribute", f"{quoted(name)} stands twice in the key", "leave one out")
        elif name not in attributes:
            text = f"the key names {quoted(name)}, which is not declared under 'attributes'"
            yield Problem(at, "undeclared_attribute", text, suggestion(name, attributes))
        seen.add(name)
        body, place = attributes.get(name, {}), (*path, "attributes", name)
        if body.get("kind") == "dynamic":
            text = f"{quoted(name)} is part of the key and cannot be dynamic"
            yield Problem((*place, "kind"), "bad_key_attribute", text, "write persistent")
        for flag in ("writable", "sensitive"):
            if body.get(flag) is True:
                text = f"{quoted(name)} is part of the key and cannot be {flag}"
                yield Problem((*place, flag), "bad_key_attribute", text, "write false, or leave it out")
        if isinstance(body.get("type"), list) or body.get("type") in ("float32", "float64"):
            text = f"{quoted(name)} is part of the key and cannot be a list or a fraction"
            yield Problem((*place, "type"), "bad_key_attribute", text, "write string, or a whole number's type")


def _check_field(path: _Where, body: Mapping[str, Any]) -> Iterator[Problem]:
    written = body.get("type")
    item = written[0] if isinstance(written, list) and len(written) == 1 else written
    if not isinstance(item, str) or item not in TYPES:
        return
    if body.get("unit") and item not in NUMERIC:
        text = f"a {item} has no unit"
        hint = "a duration is always in seconds: leave the unit out" if item == "duration" else "leave it out"
        yield Problem((*path, "unit"), "unit_without_number", text, hint, at_key=True)
    if body.get("default") is not None:
        try:
            _default(body["default"], item, isinstance(written, list))
        except ValueError as error:
            text = "the default does not fit the type" if body.get("sensitive") is True else str(error)
            yield Problem((*path, "default"), "bad_default", text, _default_hint(item, isinstance(written, list)))


def _check_names(path: _Where, named: Mapping[Any, Any], attributes: Mapping[str, Any]) -> Iterator[Problem]:
    for position, name in named.items():
        if isinstance(name, str) and name and name not in attributes:
            text = f"{quoted(name)} is not declared under 'attributes'"
            yield Problem((*path, position), "undeclared_attribute", text, suggestion(name, attributes))


def _default(value: Any, name: str, many: bool) -> Any:
    """A default in normal form. A duration has its unit, as everywhere in files. Raises ValueError."""
    items = value if many and isinstance(value, list) else [value]
    if name == "duration" and any(isinstance(item, (int, float)) for item in items):
        raise ValueError("a duration needs a unit")
    return normal(value, classes.Field(name="default", type=name, many=many))  # type: ignore[arg-type]


def _default_hint(name: str, many: bool) -> str:
    example = {
        "bool": "true",
        "string": "text",
        "binary": "aGVsbG8=",
        "timestamp": "2026-01-31T12:00:00Z",
        "duration": "30s",
    }.get(name, "1")
    return f"for example {f'[{example}]' if many else example}"


# --- from the model to what goes over the bus ---------------------------------------------------------------


def _description(found: DescriptionFile, path: Path) -> Description:
    made = tuple(_class(name, section, found.controller) for name, section in found.classes.items())
    return Description(found.controller, made, os.fspath(path))


def _class(name: str, section: ClassSection, controller: str) -> ClassDescription:
    return ClassDescription(
        name=name,
        version=section.version,
        controller=controller,
        key=tuple(section.key),
        summary=section.summary,
        attributes=tuple(_attribute(one, body) for one, body in section.attributes.items()),
        actions=tuple(
            classes.Action(
                name=one,
                summary=body.summary,
                arguments=tuple(classes.Field(**_field(*pair)) for pair in body.arguments.items()),
                result=tuple(classes.Field(**_field(*pair)) for pair in body.result.items()),
                deadline=body.deadline,
                effects=tuple(body.effects),
            )
            for one, body in section.actions.items()
        ),
        discover_every=section.discover.every if section.discover else 0.0,
        poll_every=section.poll.every if section.poll else 0.0,
        depends=tuple(section.depends),
    )


def _attribute(name: str, body: AttributeSection) -> classes.Attribute:
    return classes.Attribute(
        **_field(name, body),
        kind=body.kind,
        required=body.required,
        writable=body.writable,
        deprecated_since=body.deprecated.since if body.deprecated else "",
        deprecated_use=body.deprecated.use if body.deprecated else "",
    )


def _field(name: str, body: FieldSection) -> dict[str, Any]:
    item, many = body.type
    return {
        "name": name,
        "type": item,
        "many": many,
        "unit": body.unit,
        "default": None if body.default is None else _default(body.default, item, many),
        "has_default": "default" in body.model_fields_set,
        "sensitive": body.sensitive,
        "summary": body.summary,
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _mappings(value: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, body in _mapping(value).items():
        yield name, _mapping(body)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
