"""Do these values fit what the class declares? Asked of what controllers report and of what callers send.

Knows no controller and no bus. Every value gets its one normal form, which is plain JSON, so that the
registry, the bus and `-o json` all hold the same: a timestamp is RFC 3339 text in UTC, a duration a number of
seconds, binary is base64 text. A null is allowed for any attribute that is not part of the key: it says "not
known now". What a controller reports wrongly becomes findings and the rest is kept; what a caller sends
wrongly is refused whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any

from ..errors import BadAttribute, ResourceNotFound
from .classes import Action, ClassDescription, Field
from .values import from_text, normal, shown

REDACTED = "<redacted>"
"""What stands for a sensitive value everywhere outside the controller's own process."""


@dataclass(frozen=True)
class Misfit:
    """One thing that a controller reported against its own description; the code is explained by `covey explain`."""

    code: str
    message: str
    hint: str = ""
    class_name: str = ""
    attribute: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return it as plain data for a message."""
        return asdict(self)


# --- what a controller reports ------------------------------------------------------------------------------


def check_reported(description: ClassDescription, values: Any) -> tuple[dict[str, Any], list[Misfit]]:
    """Return those values that fit the class, in normal form, and a misfit for each that does not."""
    name = description.name
    if not isinstance(values, Mapping):
        return {}, [_bad(name, "", f"{name}: reported {shown(values)}, not a mapping of attributes")]
    good: dict[str, Any] = {}
    misfits = []
    for attribute, value in values.items():
        declared = description.attribute(attribute)
        if declared is None:
            misfits.append(
                Misfit(
                    "plugin.undeclared_attribute",
                    f"{name} reports {attribute!r}, which its description does not declare",
                    _choices(str(attribute), [one.name for one in description.attributes], "declared"),
                    name,
                    str(attribute),
                )
            )
        elif attribute not in description.key and (value is None or (declared.sensitive and value == REDACTED)):
            good[attribute] = value
        else:
            try:
                good[attribute] = normal(value, declared)
            except ValueError as error:
                misfits.append(_bad(name, attribute, f"{name}.{attribute}: {error}"))
    return good, misfits


def check_key(description: ClassDescription, key: Any) -> tuple[dict[str, Any] | None, list[Misfit]]:
    """Return the key in normal form, or None if it does not name one resource of this class."""
    good, misfits = check_reported(description, key)
    extra = [name for name in good if name not in description.key]
    missing = [name for name in description.key if name not in good]
    if (extra or missing) and not misfits:
        got = ", ".join(map(str, key)) if key else "nothing"
        wanted = ", ".join(description.key)
        misfits.append(
            Misfit(
                "plugin.bad_key",
                f"{description.name}: the key is {got}",
                f"the description says key: [{wanted}]",
                description.name,
            )
        )
    return (None if misfits else good), misfits


def redacted(description: ClassDescription, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with each sensitive one replaced."""
    hidden = {one.name for one in description.attributes if one.sensitive}
    return {name: REDACTED if name in hidden and value is not None else value for name, value in values.items()}


# --- what a caller sends ------------------------------------------------------------------------------------


def checked_key(description: ClassDescription, key: Any) -> dict[str, Any]:
    """Return a caller's key in normal form. Raises BadAttribute."""
    good, misfits = check_key(description, key)
    if good is None:
        raise BadAttribute(
            "; ".join(one.message for one in misfits), f"the key of {description.name} is {', '.join(description.key)}"
        )
    return good


def checked_changes(description: ClassDescription, values: Mapping[str, Any], as_text: bool = False) -> dict[str, Any]:
    """Return the values of a set in normal form; `as_text`: they are as a person typed them.

    Raises BadAttribute naming all that is wrong; nothing is set then.
    """
    problems: list[str] = []
    good: dict[str, Any] = {}
    for name, value in values.items():
        declared = description.attribute(name)
        if declared is None:
            choices = [one.name for one in description.attributes if one.writable]
            problems.append(f"there is no attribute {name!r}: {_choices(name, choices, 'writable')}")
        elif not declared.writable:
            choices = [one.name for one in description.attributes if one.writable]
            problems.append(f"{name} cannot be set: {_choices('', choices, 'writable')}")
        else:
            _collect(good, problems, declared, value, as_text)
    if not values:
        problems.append("no attribute to set was given")
    if problems:
        raise BadAttribute(f"{description.name}: {'; '.join(problems)}", "nothing was set")
    return good


def checked_definition(
    description: ClassDescription, values: Mapping[str, Any], as_text: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the key and the other attributes of a resource to define, in normal form, defaults filled in.

    The key, what is required and what is writable may be given. Raises BadAttribute naming all that is wrong; nothing
    is defined then.
    """
    problems: list[str] = []
    good: dict[str, Any] = {}
    given = {one.name: one for one in description.attributes if one.name in description.key}
    given |= {one.name: one for one in description.attributes if one.required or one.writable}
    for name, value in values.items():
        if name in given:
            _collect(good, problems, given[name], value, as_text)
        elif description.attribute(name) is None:
            problems.append(f"there is no attribute {name!r}: {_choices(name, given, 'to define')}")
        else:
            problems.append(f"{name} is the controller's to say: {_choices('', given, 'to define')}")
    for name, declared in given.items():
        if name not in values and declared.has_default:
            good[name] = declared.default
        elif name not in values and (declared.required or name in description.key):
            problems.append(f"{name} ({declared.type_text}) is missing")
    if problems:
        raise BadAttribute(f"{description.name}: {'; '.join(problems)}", "nothing was defined")
    return {name: good.pop(name) for name in description.key}, good


def checked_arguments(
    description: ClassDescription, action: Action, arguments: Mapping[str, Any], as_text: bool = False
) -> dict[str, Any]:
    """Return an action's arguments in normal form, defaults filled in; `as_text`: they are as a person typed them.

    Raises BadAttribute naming all that is wrong; nothing was run then.
    """
    problems: list[str] = []
    good: dict[str, Any] = {}
    for name, value in arguments.items():
        declared = action.argument(name)
        if declared is None:
            choices = [one.name for one in action.arguments]
            problems.append(f"there is no argument {name!r}: {_choices(name, choices, 'declared')}")
        else:
            _collect(good, problems, declared, value, as_text)
    for declared in action.arguments:
        if declared.name not in arguments:
            if declared.has_default:
                good[declared.name] = declared.default
            else:
                problems.append(f"the argument {declared.name} ({declared.type_text}) is missing")
    if problems:
        raise BadAttribute(f"{description.name}.{action.name}: {'; '.join(problems)}", "nothing was run")
    return good


def no_action(description: ClassDescription, name: str) -> ResourceNotFound:
    """Return the error for an action that a class does not have."""
    known = [one.name for one in description.actions]
    return ResourceNotFound(f"{description.name} has no action {name!r}", _choices(name, known, "declared"))


def check_result(description: ClassDescription, action: Action, result: Any) -> tuple[dict[str, Any], list[Misfit]]:
    """Return what fits of an action's result, and a misfit for each thing that does not or is missing."""
    place = f"{description.name}.{action.name}"
    if result is None:
        result = {}
    if not isinstance(result, Mapping):
        return {}, [_bad(description.name, "", f"{place}: returned {shown(result)}, not a mapping")]
    good: dict[str, Any] = {}
    misfits = []
    declared = {one.name: one for one in action.result}
    for name, value in result.items():
        if name not in declared:
            hint = _choices(str(name), declared, "declared")
            text = f"{place}: returned {name!r}, which its description does not declare"
            misfits.append(Misfit("plugin.undeclared_attribute", text, hint, description.name, str(name)))
        else:
            try:
                good[name] = None if value is None else normal(value, declared[name])
            except ValueError as error:
                misfits.append(_bad(description.name, name, f"{place}: {name}: {error}"))
    missing = [name for name in declared if name not in result]
    misfits += [
        _bad(description.name, name, f"{place}: did not return {name!r}, which it declares") for name in missing
    ]
    return good, misfits


def _collect(good: dict[str, Any], problems: list[str], field: Field, value: Any, as_text: bool) -> None:
    try:
        good[field.name] = normal(from_text(value, field) if as_text and isinstance(value, str) else value, field)
    except ValueError as error:
        problems.append(f"{field.name}: {error}")


def _bad(class_name: str, attribute: str, message: str) -> Misfit:
    return Misfit("plugin.bad_value", message, "nothing of it was kept", class_name, attribute)


def _choices(name: str, known: Iterable[str], word: str) -> str:
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    listed = f"{word}: {', '.join(names)}" if names else f"nothing is {word}"
    return f"did you mean {near[0]!r}? {listed}" if near else listed
