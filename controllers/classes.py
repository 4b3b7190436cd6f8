"""What a resource class is, as plain frozen data that goes over the bus.

Made by `description.py` from a resource description file, or by `from_wire` on a node that does not have that
file: so a reader elsewhere can decode, check and show resources all the same. Knows no YAML, no controller,
no bus. Odd: `fingerprint` covers only what two nodes must agree on to understand each other's values. A
reworded summary or another polling interval does not change it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal, get_args

import msgspec

TypeName = Literal[
    "bool",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float32",
    "float64",
    "string",
    "binary",
    "timestamp",
    "duration",
]
TYPES: tuple[TypeName, ...] = get_args(TypeName)
NUMERIC: tuple[TypeName, ...] = ("int32", "uint32", "int64", "uint64", "float32", "float64")
"""The types that may carry a unit; a duration is always in seconds."""

Kind = Literal["persistent", "dynamic"]


class Field(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A named, typed value: an argument of an action or a part of its result. `many`: a list of them."""

    name: str
    type: TypeName
    many: bool = False
    unit: str = ""
    default: Any = None
    has_default: bool = False
    sensitive: bool = False
    summary: str = ""

    @property
    def type_text(self) -> str:
        """The type as a person reads it: `uint32`, `list of string`."""
        return f"list of {self.type}" if self.many else self.type


class Attribute(Field, frozen=True, kw_only=True, omit_defaults=True):
    """An attribute of a class. `persistent` ones are kept in the registry, `dynamic` ones are read when asked for."""

    kind: Kind
    required: bool = False
    writable: bool = False
    deprecated_since: str = ""
    deprecated_use: str = ""


class Action(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something a resource can be told to do. `deadline` in seconds; `effects`: attributes it may change."""

    name: str
    summary: str = ""
    arguments: tuple[Field, ...] = ()
    result: tuple[Field, ...] = ()
    deadline: float = 30.0
    effects: tuple[str, ...] = ()

    def argument(self, name: str) -> Field | None:
        """Return the argument of that name."""
        return next((one for one in self.arguments if one.name == name), None)


class ClassDescription(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A resource class. Intervals are in seconds, 0: only when asked; `depends`: classes to be known first."""

    name: str
    version: int
    controller: str
    key: tuple[str, ...]
    attributes: tuple[Attribute, ...]
    actions: tuple[Action, ...] = ()
    summary: str = ""
    discover_every: float = 0.0
    poll_every: float = 0.0
    depends: tuple[str, ...] = ()

    def attribute(self, name: str) -> Attribute | None:
        """Return the attribute of that name."""
        return next((one for one in self.attributes if one.name == name), None)

    def action(self, name: str) -> Action | None:
        """Return the action of that name."""
        return next((one for one in self.actions if one.name == name), None)

    @property
    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that are equal where values of this class mean the same."""
        agreed = {
            "name": self.name,
            "version": self.version,
            "key": self.key,
            "attributes": [
                [one.name, one.type, one.many, one.unit, one.kind, one.required, one.writable, one.sensitive]
                for one in sorted(self.attributes, key=lambda one: one.name)
            ],
            "actions": [
                [one.name, [_shape(field) for field in one.arguments], [_shape(field) for field in one.result]]
                for one in sorted(self.actions, key=lambda one: one.name)
            ],
        }
        return hashlib.sha256(_canonical(agreed)).hexdigest()[:16]


def to_wire(description: ClassDescription) -> dict[str, Any]:
    """Return the class as plain data for a message; `from_wire` makes it again."""
    found: dict[str, Any] = msgspec.to_builtins(description)
    return found


def from_wire(data: Mapping[str, Any]) -> ClassDescription:
    """Make a class from what `to_wire` gave. Raises msgspec.ValidationError."""
    return msgspec.convert(data, ClassDescription)


def resource_id(node: int, key: Mapping[str, Any]) -> str:
    """Return the id of a resource: its node's number and a hash of its key, as in `/resources/<class>/<id>`."""
    return f"{node}-{hashlib.sha256(_canonical(dict(key))).hexdigest()[:12]}"


def resource_path(class_name: str, identity: str) -> str:
    """Return the registry key of a resource."""
    return f"/resources/{class_name}/{identity}"


def _shape(field: Field) -> list[Any]:
    return [field.name, field.type, field.many, field.unit, field.default, field.has_default, field.sensitive]


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
