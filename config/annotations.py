"""Which keys a model allows at a path: a walk over the type annotations of pydantic models.

Pydantic's errors name the key that is wrong, not those that would be right; this finds them. Knows the usual
shapes (models, unions, lists, dicts, `Annotated`); what it cannot see through it answers with no keys, never
with an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, RootModel
from pydantic.fields import FieldInfo


def fields_at(model: type[BaseModel], path: tuple[str | int, ...]) -> dict[str, FieldInfo]:
    """Return the fields allowed at a path below a model, by the name they have in the file."""
    annotations: list[Any] = [model]
    for part in path:
        annotations = [child for found in annotations for child in _children(found, part)]
    return {name: field for found in annotations for kind in _kinds(found) for name, field in _fields(kind)}


def home_of(key: str, model: type[BaseModel]) -> str:
    """Return the section of a model that allows `key`, if exactly one does."""
    homes = [name for name, _ in _fields(model) if key in fields_at(model, (name,))]
    return homes[0] if len(homes) == 1 else ""


def _kinds(annotation: Any) -> Iterator[Any]:
    """Take apart `Annotated`, unions, named types and root models, down to plain types."""
    if hasattr(annotation, "__value__"):
        yield from _kinds(annotation.__value__)
    elif get_origin(annotation) is Annotated:
        yield from _kinds(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for choice in get_args(annotation):
            yield from _kinds(choice)
    elif isinstance(annotation, type) and issubclass(annotation, RootModel):
        yield from _kinds(annotation.model_fields["root"].annotation)
    else:
        yield annotation


def _children(annotation: Any, part: str | int) -> Iterator[Any]:
    for kind in _kinds(annotation):
        arguments = [argument for argument in get_args(kind) if argument is not Ellipsis]
        if isinstance(part, str) and arguments and isinstance(get_origin(kind), type):
            if len(arguments) == 2:
                yield arguments[1]
        elif isinstance(part, int):
            yield from arguments[:1]
        for name, field in _fields(kind):
            if name == part:
                yield field.annotation


def _fields(kind: Any) -> Iterator[tuple[str, FieldInfo]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            alias = field.validation_alias if isinstance(field.validation_alias, str) else None
            yield alias or field.alias or name, field
