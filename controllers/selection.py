"""Which resources of a class are meant: an expression over the attributes that the class declares.

Knows no resources and no node. Selections, and whoever watches values, judge a resource by its attributes with their
names, key included. Odd: a sensitive attribute cannot be asked for, since the answers would tell its value bit by bit.
"""

from __future__ import annotations

from ..config.predicate import FieldType, Kind, Predicate, predicate
from .classes import NUMERIC, ClassDescription, Field, TypeName

_KINDS: dict[TypeName, Kind] = {
    "bool": "truth",
    "string": "text",
    "binary": "text",
    "timestamp": "time",
    "duration": "number",
    **dict.fromkeys(NUMERIC, "number"),
}


def selection(description: ClassDescription, text: str) -> Predicate:
    """Return the checked expression. Raises BadExpression with the place of the mistake."""
    return predicate(text, {one.name: _field(one) for one in description.attributes}, "attribute")


def _field(one: Field) -> FieldType:
    unit = "s" if one.type == "duration" else one.unit
    return FieldType(_KINDS[one.type], unit, one.many, hidden="it is sensitive" if one.sensitive else "")
