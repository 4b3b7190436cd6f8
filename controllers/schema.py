"""The model of a resource description file: its sections, fields, and what each may hold.

Knows nothing of how files are read, nor what must hold across fields (`description.py`). The descriptions of the fields
are what `covey config schema` and editors show.
Odd: a list is written `type: [string]`, because that also works inside `{…}`.
"""

from __future__ import annotations

import keyword
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, WithJsonSchema
from pydantic import Field as Setting

from ..config.findings import quoted
from ..config.units import Duration, between
from ..config.wording import nearest, refusal, suggestion
from .classes import TYPES

NAME_PATTERN = r"[A-Za-z][A-Za-z0-9_]{0,63}"
_RESERVED = ("key", "self", "resource")
_ALIASES = {
    "int": "int64",
    "integer": "int64",
    "uint": "uint64",
    "long": "int64",
    "float": "float64",
    "double": "float64",
    "number": "float64",
    "str": "string",
    "text": "string",
    "boolean": "bool",
    "bytes": "binary",
    "datetime": "timestamp",
    "date": "timestamp",
    "time": "timestamp",
    "timedelta": "duration",
    "interval": "duration",
}


def _name(name: str) -> str:
    if name in _RESERVED or keyword.iskeyword(name):
        raise refusal(
            "bad_name", f"the name {quoted(name)} has a meaning of its own in Python", f"write {name.capitalize()}"
        )
    if not re.fullmatch(NAME_PATTERN, name):
        words = [word for word in re.split(r"[^A-Za-z0-9_]+", name) if word]
        better = "".join(word[0].upper() + word[1:] for word in words)[:64]
        hint = f"write {better}\n" if re.fullmatch(NAME_PATTERN, better) else ""
        allowed = "allowed: letters, digits and _, a letter first, at most 64"
        raise refusal("bad_name", f"{quoted(name)} is not a name", hint + allowed)
    return name


def _type(written: Any) -> tuple[str, bool]:
    if isinstance(written, list):
        if len(written) != 1:
            raise refusal("wrong_type", "a list type has exactly one item, the type of its items", "write [string]")
        return _type_name(written[0], at=(0,)), True
    return _type_name(written, at=()), False


def _type_name(written: Any, at: tuple[int, ...]) -> str:
    if not isinstance(written, str):
        raise refusal("wrong_type", "'type' must be the name of a type", suggestion("", TYPES), at=at)
    if written in TYPES:
        return written
    hint = suggestion(written, TYPES)
    inner = re.fullmatch(r"(?:list|array)\s*(?:\[|<|of\s|\s)\s*(\w+)\s*[\]>]?|(\w+)\[\]", written)
    if inner is not None:
        item = nearest(inner[1] or inner[2], TYPES) or "string"
        hint = f"write [{item}] for a list\nallowed: {', '.join(sorted(TYPES))}"
    elif written.lower() in _ALIASES:
        hint = f"did you mean '{_ALIASES[written.lower()]}'?\nallowed: {', '.join(sorted(TYPES))}"
    raise refusal("unknown_type", f"unknown attribute type {quoted(written)}", hint, at=at)


Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": f"^{NAME_PATTERN}$"})]
Type = Annotated[
    tuple[str, bool],
    BeforeValidator(_type),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(TYPES)},
                {"type": "array", "items": {"enum": list(TYPES)}, "minItems": 1, "maxItems": 1},
            ]
        }
    ),
]


class Section(BaseModel):
    """What all sections share: no unknown keys, nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FieldSection(Section):
    """An argument of an action, or a part of its result."""

    type: Type = Setting(
        description="bool, int32, uint32, int64, uint64, float32, float64, string, binary, timestamp, "
        "duration, or [TYPE] for a list of one of them.",
        examples=["string"],
    )
    unit: str = Setting(default="", description="Unit of a number, as in UCUM: By, s, %, Cel, W.")
    default: Any = Setting(default=None, description="What holds when it is not given. Durations with unit: 30s.")
    sensitive: bool = Setting(default=False, description="Shown to nobody, never stored in the registry.")
    summary: str = Setting(default="", description="What it says, in one line.")


class DeprecatedSection(Section):
    """Says that an attribute will go."""

    since: str = Setting(description="The release that deprecated it.", examples=["'1.3'"])
    use: str = Setting(default="", description="The attribute to use instead.")


class AttributeSection(FieldSection):
    """One attribute of a class."""

    kind: Literal["persistent", "dynamic"] = Setting(
        description="persistent: found by discovery, kept in the registry. dynamic: read when asked for.",
        examples=["persistent"],
    )
    required: bool = Setting(default=False, description="Must be given to define a resource of this class.")
    writable: bool = Setting(default=False, description="May be set by callers.")
    deprecated: DeprecatedSection | None = Setting(default=None, description="{since: RELEASE, use: ATTRIBUTE}")


class ActionSection(Section):
    """One action of a class."""

    summary: str = Setting(default="", description="What it does, in one line.")
    arguments: dict[Name, FieldSection] = Setting(default={}, description="Its arguments by name.")
    result: dict[Name, FieldSection] = Setting(default={}, description="What it returns, by name.")
    deadline: Annotated[Duration, between("100ms", "1d")] = Setting(
        default=30.0, description="Time it may take, 100ms to 1d. After that the caller gets a timeout. Default 30s."
    )
    effects: list[str] = Setting(default=[], description="The attributes that it may change.")


class EverySection(Section):
    """How often something is done by itself."""

    every: Annotated[Duration, between("1s", "7d")] = Setting(description="1s to 7d.", examples=["5m"])


class ClassSection(Section):
    """One resource class."""

    version: int = Setting(ge=1, le=65535, description="Goes up by one with each breaking change.", examples=["1"])
    summary: str = Setting(default="", description="What one resource of it is, in one line.")
    key: list[str] = Setting(
        min_length=1, description="The attributes that tell its resources apart.", examples=["[Name]"]
    )
    attributes: dict[Name, AttributeSection] = Setting(min_length=1, description="Its attributes by name.")
    actions: dict[Name, ActionSection] = Setting(default={}, description="Its actions by name.")
    discover: EverySection | None = Setting(default=None, description="{every: 5m}: besides at each join.")
    poll: EverySection | None = Setting(default=None, description="{every: 30s}: dynamic attributes.")
    depends: list[str] = Setting(default=[], description="The classes that must be known first.")


class DescriptionFile(Section):
    """A resource description file (INTERFACES 4)."""

    covey: Literal[1] = Setting(description="Version of this format.", examples=["1"])
    controller: str = Setting(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$",
        description="The controller's name: that of its entry point.",
        examples=["gpu"],
    )
    classes: dict[Name, ClassSection] = Setting(min_length=1, description="The classes of this controller by name.")
